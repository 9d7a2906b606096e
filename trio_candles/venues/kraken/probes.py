"""Whether Kraken's REST is as assumed: see :mod:`trio_candles.venues.probes`."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from trio_candles.candles.model import MINUTE, Millis, floor_to
from trio_candles.venues.history import Answer, Request, read_body
from trio_candles.venues.kraken.answers import part_of, result_of
from trio_candles.venues.kraken.history import altname, names_of
from trio_candles.venues.probes import (
    Clock,
    Finding,
    Probe,
    ProbedRow,
    Status,
    as_assumed,
    check_columns,
    check_forming_row,
    check_trade_ids,
    must_hold,
    order_of,
)
from trio_candles.venues.protocol import Misunderstood, plain_float

__all__ = ["probe"]


# [1788415200,"77776.4","77800.0","77717.8","77736.8","77777.6","4.07649664",167]: open (s), o, h, l, c, vwap ("0.0"
# if nothing traded), volume, count; more may follow.
class _Row(msgspec.Struct, array_like=True):
    time: int
    open: str
    high: str
    low: str
    close: str
    vwap: str
    volume: str
    count: int


# ["30243.40000","0.34507674",1688669597.8277369,"b","m","",61044952]: price, size, time (s), ..., id; more may follow.
class _Trade(msgspec.Struct, array_like=True):
    price: str
    size: str
    time: float
    side: object
    kind: object
    misc: object
    trade_id: int


_ROWS = msgspec.json.Decoder(list[_Row])
_TRADES = msgspec.json.Decoder(list[_Trade])
_LAST = msgspec.json.Decoder(int)
_DEPTH = 720


def probe(symbol: str, now: Clock) -> Probe:
    """Whether rows come oldest first, 720 and the forming one, from *since* on; whether trade ids have no hole, and a
    page since a trade repeats that trade.
    """

    def ask(what: str, **params: str) -> Request:
        return Request(f"/0/public/{what}", {"pair": altname(symbol), **params}, "public")

    def part(answer: Answer, last: bool = False) -> Answer:
        result = result_of(answer, now())
        names = [name for name in result if (name == "last") == last]
        if len(names) != 1 or not (last or names[0] in names_of(symbol)):
            raise Misunderstood("wrong_symbol", f"{names[:5]} for {symbol}")
        return part_of(answer, result, names[0])

    answer = yield ask("OHLC", interval="1")
    got_at = now()
    rows = [_row(row) for row in read_body(_ROWS, part(answer))]
    times = [row.time for row in rows]
    last = read_body(_LAST, part(answer, last=True)) * 1000
    found = [check_columns(rows)]
    if len(times) > 5:
        found += [as_assumed("row order", order_of(times), "oldest first"), check_forming_row(max(times), got_at)]
        lasts = {max(times): "the forming row", max(times) - MINUTE: "the newest closed row"}
        status: Status = "pass" if last in lasts else "warn"
        found.append(Finding("last", status, f"is {lasts.get(last, 'neither the newest nor the row before it')}"))
        found.append(_depth(times, got_at))
        since = sorted(times)[-4]
        answer = yield ask("OHLC", interval="1", since=str(since // 1000))
        found.append(_since([row.time * 1000 for row in read_body(_ROWS, part(answer))], since))
    answer = yield ask("Trades", count="1000")
    trades = [(row.trade_id, row.time) for row in read_body(_TRADES, part(answer))]
    found.append(check_trade_ids((id, int(time * 1000)) for id, time in trades))
    if len(trades) > 1:
        id, time = sorted(trades)[len(trades) // 2]
        # Asked as a fill asks: the trade's time is rounded, and other trades may share it.
        answer = yield ask("Trades", since=str(int(time * 10**6) * 1000 - 10_000), count="1000")
        repeated = id in {row.trade_id for row in read_body(_TRADES, part(answer))}
        assumed, otherwise = "a page since a trade tells it again", f"a page since trade {id} does not tell it"
        found.append(must_hold("cursor", repeated, assumed, otherwise))
    return found


def _row(row: _Row) -> ProbedRow:
    texts = (row.open, row.high, row.low, row.close, row.volume, row.vwap)
    first, high, low, close, volume, vwap = map(plain_float, texts)
    return ProbedRow(row.time * 1000, first, high, low, close, volume, vwap or None)


def _depth(times: Sequence[int], now: Millis) -> Finding:
    reached = (floor_to(now, MINUTE) - min(times)) // MINUTE
    if reached < _DEPTH - 20:
        return Finding("depth", "fail", f"rows reach back {reached} minutes; {_DEPTH} were assumed")
    missing = (max(times) - min(times)) // MINUTE + 1 - len(set(times))
    note = f"{missing} without a row; the code handles both" if missing else "one for every minute"
    return Finding("depth", "pass", f"rows reach back {reached} minutes, {note}")


def _since(page: Sequence[int], since: int) -> Finding:
    first = min(page, default=0)
    if not since - MINUTE * (_DEPTH + 2) <= first <= since + MINUTE:
        return Finding("since", "fail", "rows that were asked for are not told")
    kinds = {since: "inclusive", since + MINUTE: "exclusive"}
    return as_assumed("since", kinds.get(Millis(first), "more rows than asked for"), "inclusive")
