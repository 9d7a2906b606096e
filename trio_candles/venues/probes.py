"""Questions that show whether a venue's REST still does what our code takes for granted: a canary for drift.

A probe asks about one symbol, preferably a busy one, and says line by line what it found. What differs from what was
measured once is no fault where the code handles it both ways; where it does not, it is: better known before a start
than from gaps that stay open. Like a fill, a probe is a generator that yields requests and is sent answers; it reads
the rows by decoders of its own, not by those whose assumptions it tests.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType
from typing import Literal

import attrs
import msgspec

from trio_candles.candles.model import MINUTE, Millis, floor_to
from trio_candles.venues.answers import judge_coinbase, kraken_part, kraken_result, okx_data
from trio_candles.venues.history import GRACE, Answer, Request, read_body
from trio_candles.venues.kraken.history import altname, names_of
from trio_candles.venues.protocol import Misunderstood, plain_float, time_of

__all__ = ["PROBES", "Clock", "Finding", "Grade", "Probe"]

Grade = Literal["pass", "warn", "fail"]


@attrs.frozen
class Finding:
    """What a probe found out about one assumption."""

    name: str
    grade: Grade
    detail: str


Probe = Generator[Request, Answer, list[Finding]]
Clock = Callable[[], Millis]
"""What time it is at the venue: handed in, and looked at when an answer has come."""


# --- what is asked of rows and trades, whoever wrote them --------------------------------------------------


@attrs.frozen
class _Row:
    time: int
    open: float
    high: float
    low: float
    close: float
    volume: float
    vwap: float | None = None


def _shape(rows: Sequence[_Row]) -> Finding:
    """Whether the columns are what we take them for: prices in each other's bounds, times on the minute."""
    name = "columns"
    if not rows:
        return Finding(name, "warn", "not seen: there is no row")
    for row in rows:
        average = row.vwap if row.vwap is not None else row.close
        # A venue's average is rounded to the tick, or is a quotient of rounded sums.
        slack = 1e-3 * row.high
        if (
            row.time % MINUTE
            or not 0 < row.low <= min(row.open, row.close) <= max(row.open, row.close) <= row.high
            or not row.low - slack <= average <= row.high + slack
            or row.volume < 0
        ):
            return Finding(name, "fail", f"a row is no candle, read as we read it: {row}"[:200])
    return Finding(name, "pass", f"{len(rows)} rows are candles, in the columns that we assume")


def _order(times: Sequence[int]) -> str:
    steps = {(later > earlier) - (later < earlier) for earlier, later in pairwise(times)}
    return {1: "oldest first", -1: "newest first"}.get(steps.pop(), "with repetitions") if len(steps) == 1 else "mixed"


def _as_assumed(name: str, found: str, assumed: str) -> Finding:
    """What differs, and does not matter, is a note."""
    note = ", as assumed" if found == assumed else f" ({assumed} was assumed; the code handles both)"
    return Finding(name, "pass", found + note)


def _forming(newest: int, now: Millis) -> Finding:
    """Whether the forming minute's row is among the others, unmarked."""
    minute = floor_to(now, MINUTE)
    if newest > minute + MINUTE:  # one minute may turn while we ask
        return Finding("forming row", "fail", f"a row opens {(newest - now) / 1000:.0f} s from now")
    return _as_assumed("forming row", "there, unmarked" if newest >= minute else "not there", "there, unmarked")


def _contiguous(trades: Iterable[tuple[int, int]]) -> Finding:
    """Whether the ids of *trades* (id, time in ms) have no hole, and follow time as far as we rely on it."""
    name, by_id = "trade ids", sorted(trades)
    if len(by_id) < 2:
        return Finding(name, "warn", f"not seen: {len(by_id)} trades")
    ids = [id for id, _ in by_id]
    holes = ids[-1] - ids[0] + 1 - len(set(ids))
    if holes:
        return Finding(name, "fail", f"{holes} of the {ids[-1] - ids[0] + 1} ids are missing from one page")
    latest = by_id[0][1]
    for id, time in by_id:
        if time < latest - GRACE:
            return Finding(name, "fail", f"trade {id} is {(latest - time) / 1000:.1f} s earlier than one before it")
        latest = max(latest, time)
    return Finding(name, "pass", f"{len(ids)} trades in a row without a hole, in order of time")


# --- Coinbase ---------------------------------------------------------------------------------------------


# {"time":"2014-11-07T22:19:28.578544Z","trade_id":74,"price":"10.00000000","size":"0.01000000","side":"buy"}
class _CoinbaseTrade(msgspec.Struct):
    time: str
    trade_id: int


# [1788415260,77760.01,77790.5,77761.2,77788.4,1.93821004]: open (s), low, high, open, close, volume
_COINBASE_ROWS = msgspec.json.Decoder(list[tuple[int, float, float, float, float, float]])
_COINBASE_SPAN = 290 * MINUTE
"""Of a page, which has at most 300 minutes."""
_COINBASE_TRADES = msgspec.json.Decoder(list[_CoinbaseTrade])


def _coinbase(symbol: str, now: Clock) -> Probe:
    """Rows newest first, both ends inclusive, the forming one among them; trades by id, the cursor exclusive."""
    product, bucket = f"/products/{symbol}", "public"

    def rows_of(answer: Answer) -> list[_Row]:
        judge_coinbase(answer)
        rows = read_body(_COINBASE_ROWS, answer)
        return [_Row(row[0] * 1000, row[3], row[2], row[1], row[4], row[5]) for row in rows]

    rows = rows_of((yield Request(f"{product}/candles", {"granularity": "60"}, bucket)))
    heard = now()
    times = [row.time for row in rows]
    found = [_shape(rows)]
    if len(times) > 2:
        found += [_as_assumed("row order", _order(times), "newest first"), _forming(max(times), heard)]
        last = sorted(times)[-2]
        known = [time for time in sorted(times)[-50:] if last - _COINBASE_SPAN <= time <= last]
        first = known[0]
        bounds = {"granularity": "60", "start": str(first // 1000), "end": str(last // 1000)}
        page = [row.time for row in rows_of((yield Request(f"{product}/candles", bounds, bucket)))]
        found.append(_page_ends(page, known))
    answer = yield Request(f"{product}/trades", {"limit": "1000"}, bucket)
    judge_coinbase(answer)
    trades = [(trade.trade_id, int(time_of(trade.time))) for trade in read_body(_COINBASE_TRADES, answer)]
    found.append(_contiguous(trades))
    if len(trades) > 1:
        after = sorted(id for id, _ in trades)[len(trades) // 2]
        answer = yield Request(f"{product}/trades", {"limit": "10", "after": str(after)}, bucket)
        judge_coinbase(answer)
        newest = max((trade.trade_id for trade in read_body(_COINBASE_TRADES, answer)), default=0)
        good = newest == after - 1
        told = "the page after an id begins right below it" if good else f"asked for ids below {after}, got {newest}"
        found.append(Finding("cursor", "pass" if good else "fail", told + (", as assumed" if good else "")))
    return found


def _page_ends(page: Sequence[int], known: Sequence[int]) -> Finding:
    """Whether both ends of a page that was asked for from the first *known* row to the last were answered."""
    first, last, missing = known[0], known[-1], set(known[1:-1]) - set(page)
    if missing:
        return Finding("page ends", "fail", f"{len(missing)} rows between the ends of a page are missing from it")
    ends = {(True, True): "inclusive", (True, False): "the newer one exclusive",
            (False, True): "the older one exclusive", (False, False): "exclusive"}  # fmt: skip
    return _as_assumed("page ends", ends[first in page, last in page], "inclusive")


# --- Kraken -----------------------------------------------------------------------------------------------


# [1788415200,"77776.4","77800.0","77717.8","77736.8","77777.6","4.07649664",167]: open (s), o, h, l, c, vwap ("0.0"
# if nothing traded), volume, count. ["30243.40000","0.34507674",1688669597.8277369,"b","m","",61044952]
_KrakenRow = tuple[int, str, str, str, str, str, str, int]
_KRAKEN_ROWS = msgspec.json.Decoder(list[_KrakenRow])
_KRAKEN_TRADES = msgspec.json.Decoder(list[tuple[str, str, float, str, str, str, int]])
_KRAKEN_LAST = msgspec.json.Decoder(int)
_KRAKEN_DEPTH = 720


def _kraken(symbol: str, now: Clock) -> Probe:
    """Rows oldest first, 720 of them and the forming one, since inclusive; trades by id, a page repeats its first."""

    def ask(what: str, **params: str) -> Request:
        return Request(f"/0/public/{what}", {"pair": altname(symbol), **params}, "public")

    def part(answer: Answer, last: bool = False) -> Answer:
        result = kraken_result(answer, now())
        names = [name for name in result if (name == "last") == last]
        if len(names) != 1 or not (last or names[0] in names_of(symbol)):
            raise Misunderstood("wrong_symbol", f"{names[:5]} for {symbol}")
        return kraken_part(answer, result, names[0])

    answer = yield ask("OHLC", interval="1")
    heard = now()
    rows = [_kraken_row(row) for row in read_body(_KRAKEN_ROWS, part(answer))]
    times = [row.time for row in rows]
    last = read_body(_KRAKEN_LAST, part(answer, last=True)) * 1000
    found = [_shape(rows)]
    if len(times) > 5:
        found += [_as_assumed("row order", _order(times), "oldest first"), _forming(max(times), heard)]
        lasts = {max(times): "the forming row", max(times) - MINUTE: "the newest closed row"}
        grade: Grade = "pass" if last in lasts else "warn"
        found.append(Finding("last", grade, f"is {lasts.get(last, 'neither the newest nor the row before it')}"))
        found.append(_depth(times, heard))
        since = sorted(times)[-4]
        answer = yield ask("OHLC", interval="1", since=str(since // 1000))
        found.append(_since([row[0] * 1000 for row in read_body(_KRAKEN_ROWS, part(answer))], since))
    answer = yield ask("Trades", count="1000")
    trades = [(row[6], row[2]) for row in read_body(_KRAKEN_TRADES, part(answer))]
    found.append(_contiguous((id, int(time * 1000)) for id, time in trades))
    if len(trades) > 1:
        id, time = sorted(trades)[len(trades) // 2]
        # As the fill does: the time is rounded, and others may share it.
        answer = yield ask("Trades", since=str(int(time * 10**6) * 1000 - 10_000), count="1000")
        repeated = id in {row[6] for row in read_body(_KRAKEN_TRADES, part(answer))}
        told = "a page since a trade tells it again" if repeated else f"a page since trade {id} does not tell it"
        found.append(Finding("cursor", "pass" if repeated else "fail", told + (", as assumed" if repeated else "")))
    return found


def _kraken_row(row: _KrakenRow) -> _Row:
    opened, first, high, low, close, vwap, volume = row[0], *(plain_float(text) for text in row[1:7])
    return _Row(opened * 1000, first, high, low, close, volume, vwap or None)


def _depth(times: Sequence[int], now: Millis) -> Finding:
    reached = (floor_to(now, MINUTE) - min(times)) // MINUTE
    if reached < _KRAKEN_DEPTH - 20:
        return Finding("depth", "fail", f"rows reach back {reached} minutes; {_KRAKEN_DEPTH} were assumed")
    missing = (max(times) - min(times)) // MINUTE + 1 - len(set(times))
    note = f"{missing} without a row; the code handles both" if missing else "one for every minute"
    return Finding("depth", "pass", f"rows reach back {reached} minutes, {note}")


def _since(page: Sequence[int], since: int) -> Finding:
    first = min(page, default=0)
    if not since - MINUTE * (_KRAKEN_DEPTH + 2) <= first <= since + MINUTE:
        return Finding("since", "fail", "rows that were asked for are not told")
    words = {since: "inclusive", since + MINUTE: "exclusive"}
    return _as_assumed("since", words.get(Millis(first), "more rows than asked for"), "inclusive")


# --- OKX --------------------------------------------------------------------------------------------------


_OKX_ROWS = msgspec.json.Decoder(list[list[str]])
_MILLIS = re.compile(r"[0-9]{13}", re.ASCII)
_SLACK = 2_000
"""In ms: our notion of the venue's clock is not better than that."""
_OKX_CANDLES = "/api/v5/market/candles"
_OKX_HISTORY = "/api/v5/market/history-candles"


def _okx(symbol: str, now: Clock) -> Probe:
    """Rows newest first, both bounds exclusive, the forming one marked "0" and every other one "1"."""

    def ask(path: str, **params: str) -> Request:
        return Request(path, {"instId": symbol, "bar": "1m", **params}, path)

    def rows_of(answer: Answer) -> list[list[str]]:
        rows = read_body(_OKX_ROWS, okx_data(answer))
        if any(len(row) < 9 for row in rows):
            raise Misunderstood("short_row", repr(rows)[:200])
        if any(_MILLIS.fullmatch(row[0]) is None for row in rows):
            raise Misunderstood("bad_time", repr(rows)[:200])
        return rows

    asked = now()
    newest = rows_of((yield ask(_OKX_CANDLES, limit="30")))
    heard = now()
    times = [int(row[0]) for row in newest]
    found = [_shape([_okx_row(row) for row in newest])]
    if len(times) > 2:
        found += [_as_assumed("row order", _order(times), "newest first"), _flags(newest, asked, heard)]
        first, last = sorted(times)[-10], sorted(times)[-3]
        page = [int(row[0]) for row in rows_of((yield ask(_OKX_CANDLES, before=str(first), after=str(last))))]
        found.append(_okx_ends(page, first, last))
    old = rows_of((yield ask(_OKX_HISTORY, limit="10")))
    flags = {row[8] for row in old}
    told = "closed rows only" if flags == {"1"} else "no row" if not old else f"rows with confirm {sorted(flags)}"
    lag = (floor_to(now(), MINUTE) - max((int(row[0]) for row in old), default=0)) // MINUTE
    grade: Grade = "pass" if old and flags <= {"0", "1"} and lag <= 60 else "fail"
    found.append(Finding("history", grade, f"{told}, the newest {lag} min old" if old else told))
    return found


def _okx_row(row: Sequence[str]) -> _Row:
    first, high, low, last, volume, _, quote = (plain_float(text) for text in row[1:8])
    return _Row(int(row[0]), first, high, low, last, volume, quote / volume if volume else None)


def _flags(rows: Sequence[Sequence[str]], asked: Millis, heard: Millis) -> Finding:
    """Whether ``confirm`` is "0" for the forming minute and "1" for all that are over."""
    name = "closed flag"
    for row in rows:
        time, flag = int(row[0]), row[8]
        early = flag == "1" and time + MINUTE > heard + _SLACK
        # Of a minute that has just turned, "1" may be on its way.
        late = flag == "0" and time < floor_to(asked, MINUTE) - MINUTE
        if flag not in ("0", "1") or early or late:
            return Finding(name, "fail", f"the row that opened {(heard - time) / 1000:.0f} s ago has confirm {flag!r}")
    if any(row[8] == "0" for row in rows):
        return Finding(name, "pass", '"0" for the forming row, "1" for the closed ones, as assumed')
    return Finding(name, "pass", '"1" for all rows; none is forming (the code handles both)')


def _okx_ends(page: Sequence[int], first: int, last: int) -> Finding:
    wanted = set(range(first + MINUTE, last, MINUTE))
    if not wanted <= set(page):
        return Finding("page ends", "fail", f"{len(wanted - set(page))} of {len(wanted)} rows between two are missing")
    ends = {(False, False): "exclusive", (False, True): "the newer one inclusive",
            (True, False): "the older one inclusive", (True, True): "inclusive"}  # fmt: skip
    return _as_assumed("page ends", ends[first in page, last in page], "exclusive")


PROBES: Mapping[str, Callable[[str, Clock], Probe]] = MappingProxyType(
    {"coinbase": _coinbase, "kraken": _kraken, "okx": _okx}
)
"""By venue: a probe of a symbol, given the venue's own clock. Raises what :mod:`~trio_candles.venues.history` names."""
