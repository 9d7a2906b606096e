"""Whether Coinbase's REST is as assumed: see :mod:`trio_candles.venues.probes`."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from trio_candles.candles.model import MINUTE
from trio_candles.venues.coinbase.answers import judge
from trio_candles.venues.history import Answer, Request, read_body
from trio_candles.venues.probes import (
    Clock,
    Finding,
    Probe,
    ProbedRow,
    as_assumed,
    check_columns,
    check_forming_row,
    check_trade_ids,
    must_hold,
    order_of,
)
from trio_candles.venues.protocol import time_of

__all__ = ["probe"]


# {"time":"2014-11-07T22:19:28.578544Z","trade_id":74,"price":"10.00000000","size":"0.01000000","side":"buy"}
class _Trade(msgspec.Struct):
    time: str
    trade_id: int


# [1788415260,77760.01,77790.5,77761.2,77788.4,1.93821004]: open (s), low, high, open, close, volume; more may follow.
class _Row(msgspec.Struct, array_like=True):
    time: int
    low: float
    high: float
    open: float
    close: float
    volume: float


_ROWS = msgspec.json.Decoder(list[_Row])
_SPAN = 290 * MINUTE
"""How many ms of rows the second page is asked for; a page has at most 300 minutes."""
_TRADES = msgspec.json.Decoder(list[_Trade])


def probe(symbol: str, now: Clock) -> Probe:
    """Whether rows come newest first, the forming one among them, with both ends inclusive; whether trade ids have no
    hole, and the cursor is exclusive.
    """
    product, bucket = f"/products/{symbol}", "public"

    def rows_of(answer: Answer) -> list[ProbedRow]:
        judge(answer)
        rows = read_body(_ROWS, answer)
        return [ProbedRow(row.time * 1000, row.open, row.high, row.low, row.close, row.volume) for row in rows]

    rows = rows_of((yield Request(f"{product}/candles", {"granularity": "60"}, bucket)))
    got_at = now()
    times = [row.time for row in rows]
    found = [check_columns(rows)]
    if len(times) > 2:
        found += [as_assumed("row order", order_of(times), "newest first"), check_forming_row(max(times), got_at)]
        last = sorted(times)[-2]
        known = [time for time in sorted(times)[-50:] if last - _SPAN <= time <= last]
        first = known[0]
        bounds = {"granularity": "60", "start": str(first // 1000), "end": str(last // 1000)}
        page = [row.time for row in rows_of((yield Request(f"{product}/candles", bounds, bucket)))]
        found.append(_page_ends(page, known))
    answer = yield Request(f"{product}/trades", {"limit": "1000"}, bucket)
    judge(answer)
    trades = [(trade.trade_id, int(time_of(trade.time))) for trade in read_body(_TRADES, answer)]
    found.append(check_trade_ids(trades))
    if len(trades) > 1:
        after = sorted(id for id, _ in trades)[len(trades) // 2]
        answer = yield Request(f"{product}/trades", {"limit": "10", "after": str(after)}, bucket)
        judge(answer)
        newest = max((trade.trade_id for trade in read_body(_TRADES, answer)), default=0)
        assumed = "the page after an id begins right below it"
        found.append(must_hold("cursor", newest == after - 1, assumed, f"asked for ids below {after}, got {newest}"))
    return found


def _page_ends(page: Sequence[int], known: Sequence[int]) -> Finding:
    """Whether both ends of a page that was asked for from the first *known* row to the last were answered."""
    first, last, missing = known[0], known[-1], set(known[1:-1]) - set(page)
    if missing:
        return Finding("page ends", "fail", f"{len(missing)} rows between the ends of a page are missing from it")
    ends = {(True, True): "inclusive", (True, False): "the newer one exclusive",
            (False, True): "the older one exclusive", (False, False): "exclusive"}  # fmt: skip
    return as_assumed("page ends", ends[first in page, last in page], "inclusive")
