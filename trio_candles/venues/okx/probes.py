"""Whether OKX's REST is as assumed: see :mod:`trio_candles.venues.probes`."""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from trio_candles.candles.model import MINUTE, Millis, floor_to
from trio_candles.venues.history import Answer, Request, read_body
from trio_candles.venues.okx.answers import data_of
from trio_candles.venues.probes import Clock, Finding, Probe, ProbedRow, Status, as_assumed, check_columns, order_of
from trio_candles.venues.protocol import Misunderstood, plain_float

__all__ = ["probe"]


_ROWS = msgspec.json.Decoder(list[list[str]])
_MILLIS = re.compile(r"[0-9]{13}", re.ASCII)
_SLACK = 2_000
"""How many ms our estimate of the venue's clock may be off."""
_CANDLES = "/api/v5/market/candles"
_HISTORY = "/api/v5/market/history-candles"


def probe(symbol: str, now: Clock) -> Probe:
    """Whether rows come newest first, both bounds are exclusive, and the forming row alone is marked "0", not "1"."""

    def ask(path: str, **params: str) -> Request:
        return Request(path, {"instId": symbol, "bar": "1m", **params}, path)

    def rows_of(answer: Answer) -> list[list[str]]:
        rows = read_body(_ROWS, data_of(answer))
        if any(len(row) < 9 for row in rows):
            raise Misunderstood("short_row", repr(rows)[:200])
        if any(_MILLIS.fullmatch(row[0]) is None for row in rows):
            raise Misunderstood("bad_time", repr(rows)[:200])
        return rows

    asked = now()
    newest = rows_of((yield ask(_CANDLES, limit="30")))
    got_at = now()
    times = [int(row[0]) for row in newest]
    found = [check_columns([_row(row) for row in newest])]
    if len(times) > 2:
        found += [as_assumed("row order", order_of(times), "newest first"), _flags(newest, asked, got_at)]
        first, last = sorted(times)[-10], sorted(times)[-3]
        page = [int(row[0]) for row in rows_of((yield ask(_CANDLES, before=str(first), after=str(last))))]
        found.append(_page_ends(page, first, last))
    old = rows_of((yield ask(_HISTORY, limit="10")))
    flags = {row[8] for row in old}
    what = "closed rows only" if flags == {"1"} else "no row" if not old else f"rows with confirm {sorted(flags)}"
    lag = (floor_to(now(), MINUTE) - max((int(row[0]) for row in old), default=0)) // MINUTE
    status: Status = "pass" if old and flags <= {"0", "1"} and lag <= 60 else "fail"
    found.append(Finding("history", status, f"{what}, the newest {lag} min old" if old else what))
    return found


def _row(row: Sequence[str]) -> ProbedRow:
    first, high, low, last, volume, _, quote = (plain_float(text) for text in row[1:8])
    return ProbedRow(int(row[0]), first, high, low, last, volume, quote / volume if volume else None)


def _flags(rows: Sequence[Sequence[str]], asked: Millis, got_at: Millis) -> Finding:
    """Whether ``confirm`` is "0" for the forming minute and "1" for all that are over."""
    name = "closed flag"
    for row in rows:
        time, flag = int(row[0]), row[8]
        early = flag == "1" and time + MINUTE > got_at + _SLACK
        # The "1" of a minute that has just ended may be on its way.
        late = flag == "0" and time < floor_to(asked, MINUTE) - MINUTE
        if flag not in ("0", "1") or early or late:
            return Finding(name, "fail", f"the row that opened {(got_at - time) / 1000:.0f} s ago has confirm {flag!r}")
    if any(row[8] == "0" for row in rows):
        return Finding(name, "pass", '"0" for the forming row, "1" for the closed ones, as assumed')
    return Finding(name, "pass", '"1" for all rows; none is forming (the code handles both)')


def _page_ends(page: Sequence[int], first: int, last: int) -> Finding:
    wanted = set(range(first + MINUTE, last, MINUTE))
    if not wanted <= set(page):
        return Finding("page ends", "fail", f"{len(wanted - set(page))} of {len(wanted)} rows between two are missing")
    ends = {(False, False): "exclusive", (False, True): "the newer one inclusive",
            (True, False): "the older one inclusive", (True, True): "inclusive"}  # fmt: skip
    return as_assumed("page ends", ends[first in page, last in page], "exclusive")
