"""Coinbase Exchange, REST: rows where there were trades, and trades by id to prove the rest.

Source: the Exchange documentation of ``GET /products/{id}/candles`` and ``/products/{id}/trades``, and measurements
of its bounds. A minute without trades has no row, but a minute without a row may have had trades: only ids that are
contiguous across it prove that it had none. No answer names its product; where rows and trades speak of the same
minute they are compared.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from decimal import Decimal
from types import MappingProxyType

import attrs
import msgspec

from trio_candles.candles.model import MINUTE, Candle, Millis, Series, Source, Trade, floor_to
from trio_candles.venues.coinbase.answers import judge
from trio_candles.venues.findings import Findings, finish
from trio_candles.venues.history import (
    BESIDE,
    GRACE,
    Answer,
    Fill,
    Penalty,
    Rate,
    Request,
    RestUrls,
    Using,
    Why,
    pages,
    read_body,
    settled_until,
)
from trio_candles.venues.protocol import Id, Misunderstood, exact, time_of

__all__ = ["CoinbaseHistory"]

_PUBLIC = "public"

_ROWS = 300
"""Measured: one more is answered, two more are refused with HTTP 400."""
_AHEAD = Millis(10 * MINUTE)
"""Of later minutes, asked for besides: any row of theirs but the first shows that the venue had settled the last."""
_WINDOW = Millis((_ROWS - 2) * MINUTE - _AHEAD)
"""A row before it is asked for, too: no edge is lost."""
_TRADES = 1_000
"""Documented: the most that one page has."""
_REQUESTS = 40
"""The most that one fill asks: five seconds of the budget."""


# [1788415260,77760.01,77790.5,77761.2,77788.4,1.93821004]: open (s), LOW, HIGH, open, close, volume; newest first;
# the forming minute's is among them, and nothing marks it. Volumes are sums of doubles: 14.697630010000001.
_Row = tuple[Id, float, float, float, float, float]


# {"time":"2014-11-07T22:19:28.578544Z","trade_id":74,"price":"10.00000000","size":"0.01000000","side":"buy"}
class _TradeRow(msgspec.Struct):
    time: str
    trade_id: Id
    price: str
    size: str


# {"iso":"2020-05-12T08:00:51.504Z","epoch":1589270451.504}
class _Time(msgspec.Struct):
    iso: str


_ROW_LIST = msgspec.json.Decoder(list[_Row])
_TRADE_LIST = msgspec.json.Decoder(list[_TradeRow])
_TIME = msgspec.json.Decoder(_Time)


class CoinbaseHistory:
    """Coinbase Exchange's public market data; no key needed."""

    name = "coinbase"
    rest_urls: RestUrls = MappingProxyType({None: "https://api.exchange.coinbase.com"})
    # Documented: 10 a second and IP, 15 at once. Other programs share the IP.
    rates: Mapping[str, Rate] = MappingProxyType({_PUBLIC: Rate(per_second=8.0, burst=6)})
    penalty = Penalty(Rate(per_second=1.0, burst=1), seconds=30.0)  # not documented

    def windows(self, since: Millis, until: Millis, now: Millis) -> Iterator[tuple[Millis, Millis]]:
        """Pages of rows, overlapping at both edges."""
        return pages(since, min(until, settled_until(now)), _WINDOW)

    anonymous = True
    has_trades = True

    def settles_by(self, minute: Millis, now: Millis) -> Using:
        """Rows have differed from the trades they are made of: only trades, read again, replace a candle."""
        return Using.TRADES

    def reach(self, now: Millis) -> Millis:
        """Commonly reported: since the listing."""
        return Millis(0)

    def fill(self, series: Series, since: Millis, until: Millis, now: Millis, using: Using = Using.ALL) -> Fill:
        """One request for the rows, and up to 39 for the trades around those that are missing.

        By trades alone every candle is built from trades that were read again.
        """
        findings = Findings(series, since, until, now)
        return finish(findings, _fill(findings, using))

    def server_time(self) -> Request:
        """In milliseconds."""
        return Request("/time", {}, _PUBLIC)

    def read_time(self, answer: Answer) -> Millis:
        """{"iso":"2020-05-12T08:00:51.504Z","epoch":1589270451.504}"""
        judge(answer)
        return time_of(read_body(_TIME, answer).iso)


def _fill(findings: Findings, using: Using) -> Generator[Request, Answer, None]:
    product = f"/products/{findings.series.symbol}"
    if using is not Using.TRADES:
        for since, until in pages(findings.since, findings.until, _WINDOW):
            answer = yield _ask_rows(product, since, until, findings.now)
            _take_rows(findings, answer)
    spans = findings.open()
    if not spans or using is Using.ROWS:
        return
    walk = _Walk(findings.now)
    try:
        reached = yield from _search(findings, walk, product, spans)
        for after in walk.doubtful(findings):
            answer = yield _ask_trades(product, after)
            walk.add_page(answer, after)
        for since, end in reached:  # said only now: trades that nobody vouched for for want of an answer are no holes
            findings.excuse(since, min(end, walk.first_minute()), Why.BEFORE_FIRST)
            findings.excuse(since, end, Why.ID_HOLE)
    finally:
        believed = walk.believed(findings)
        findings.trades(believed)
        first = next((trade for trade in believed if trade.trade_id == 1), None)
        if first is not None:
            findings.listed = (floor_to(first.time, MINUTE), f"trade 1 at {first.time}")


# --- rows -------------------------------------------------------------------------------------------------


def _ask_rows(product: str, since: Millis, until: Millis, now: Millis) -> Request:
    # Both ends are inclusive; given only one of them, the venue ignores it.
    # A small page is filled up with older minutes: what is stored of them shows which market the answer is about.
    start = min(since - MINUTE, max(since - BESIDE, until - _WINDOW))
    end = max(until + MINUTE, min(until + _AHEAD, floor_to(now, MINUTE)))
    bounds = {"start": str(start // 1000), "end": str(end // 1000)}
    return Request(f"{product}/candles", {"granularity": "60", **bounds}, _PUBLIC)


def _take_rows(findings: Findings, answer: Answer) -> None:
    judge(answer)
    rows = read_body(_ROW_LIST, answer)
    findings.understood = True
    # An answer may come out of a cache, where a minute was forming that is settled now: nothing marks it. A row a
    # minute later than its end says that the venue had settled it, too. The newest row's age says nothing: it is our
    # clock that would say how old it is, and that may be wrong; the trades after it tell.
    seen_settled = max((row[0] for row in rows), default=0) * 1000 - MINUTE
    for row in rows:
        candle = _candle(findings, row)
        if candle.close_time <= seen_settled:
            findings.row(candle)


def _candle(findings: Findings, row: _Row) -> Candle:
    time, low, high, first, last, volume = row
    return Candle(
        findings.series, Millis(time * 1000), first, high, low, last, volume,
        quote_volume=None, vwap=None, trades_count=None,
        source=Source.REST, ingest_time=findings.now, close_time=Millis(time * 1000 + MINUTE),
    )  # fmt: skip


# --- trades -----------------------------------------------------------------------------------------------


def _search(
    findings: Findings, walk: _Walk, product: str, spans: Sequence[tuple[Millis, Millis]]
) -> Generator[Request, Answer, list[tuple[Millis, Millis]]]:
    """Read the trades of *spans*, newest first, and one trade on either side of each; which were reached."""
    answer = yield _ask_trades(product, None)
    walk.add_page(answer, None)
    findings.understood = True
    left = _REQUESTS - 2
    newest = walk.newest()
    reached: list[tuple[Millis, Millis]] = []
    for since, until in reversed(spans):
        end = min(until, floor_to(newest - GRACE, MINUTE))
        findings.excuse(max(since, end), until, Why.NO_TRADE_AFTER if newest else Why.NO_TRADES)
        if since >= end:
            continue
        step = 0
        while (after := walk.next(since, end, step)) is not None:
            if not left:
                findings.excuse(findings.since, end, Why.NOT_REACHED)
                return reached
            left, step = left - 1, step + 1
            answer = yield _ask_trades(product, after)
            walk.add_page(answer, after)
        reached.append((since, end))
    return reached


def _ask_trades(product: str, after: int | None) -> Request:
    # after=X: ids below X, newest first. (before=X gets the newest page, cut off at X: of no use.)
    cursor = {} if after is None else {"after": str(after)}
    return Request(f"{product}/trades", {"limit": str(_TRADES), **cursor}, _PUBLIC)


@attrs.frozen
class _Stretch:
    """Trades that are all there are from the id ``lo`` to the id ``hi``; a ``lo`` of 0: none is served below."""

    lo: int
    hi: int
    twice: bool
    """Whether two answers had one of the trades, alike: no answer names its product, but two do not both err."""


@attrs.define
class _Walk:
    """Finds its way through the trades by id, knowing what it has seen of their times."""

    now: Millis
    known: dict[int, Trade] = attrs.field(factory=dict)
    _ids: set[int] = attrs.field(factory=set)
    """Of every trade that was answered, of one that could not be read too."""
    _stretches: list[_Stretch] = attrs.field(factory=list)
    """By id, disjoint."""

    def newest(self) -> Millis:
        """The time of the newest trade; 0 if there is none."""
        return max((trade.time for trade in self.known.values()), default=Millis(0))

    def first_minute(self) -> Millis:
        """The minute of the first trade of all, if that has been reached; 0 otherwise."""
        reached = self._stretches[0].lo <= 1
        return floor_to(min(trade.time for trade in self.known.values()), MINUTE) if reached else Millis(0)

    def add_page(self, answer: Answer, after: int | None) -> None:
        """Remember a page: all trades that there are between its lowest id and *after*."""
        judge(answer)
        rows = [(row.trade_id, _trade(row)) for row in read_body(_TRADE_LIST, answer)]
        # What happened after the moment at which all this is judged is not heard: it would prove minutes to come.
        rows = [(id, trade) for id, trade in rows if trade is None or trade.time <= self.now]
        ids = {id for id, _ in rows}
        if after is not None and max(ids, default=0) != after - 1:
            raise Misunderstood("cursor_ignored", f"asked for ids below {after}, got {max(ids, default=None)}")
        if not ids:
            return
        for id, trade in rows:
            if trade is not None and self.known.setdefault(id, trade) != trade:
                raise Misunderstood("trades_differ", f"trade {id} is told in two ways")
        lowest, again = min(ids), bool(ids & self._ids)
        self._ids |= ids
        self._join(_Stretch(0 if again and len(ids) == 1 else lowest, max(ids), again))

    def _join(self, new: _Stretch) -> None:
        joined: list[_Stretch] = []
        for stretch in sorted([*self._stretches, new], key=lambda stretch: stretch.lo):
            if joined and stretch.lo <= joined[-1].hi:
                last = joined.pop()
                stretch = _Stretch(last.lo, max(last.hi, stretch.hi), last.twice or stretch.twice)
            joined.append(stretch)
        self._stretches = joined

    def _within(self, stretch: _Stretch) -> list[Trade]:
        return [trade for id, trade in self.known.items() if stretch.lo <= id <= stretch.hi]

    def doubtful(self, findings: Findings) -> list[int]:
        """Cursors of pages to read again: they matter, and nothing vouches for them yet."""
        return [
            stretch.hi + 1
            for stretch in self._stretches
            if not stretch.twice
            and (stretch.lo <= 1 or findings.gains_from(self._within(stretch)))
            and not findings.rows_agree_with(self._within(stretch))
        ]

    def believed(self, findings: Findings) -> list[Trade]:
        """The trades that two answers had, or an answer with which the rows agree."""
        return [
            trade
            for stretch in self._stretches
            if stretch.twice or findings.rows_agree_with(self._within(stretch))
            for trade in self._within(stretch)
        ]

    def next(self, since: Millis, until: Millis, step: int) -> int | None:
        """The cursor of the page to read next for ``[since, until)``; ``None`` if there is nothing more to read.

        A page repeats a trade that is known wherever it is to be joined to others.
        """
        early, late = since - GRACE, until + GRACE
        above = min(id for id, trade in self.known.items() if trade.time >= late)
        here = next(stretch for stretch in self._stretches if stretch.lo <= above <= stretch.hi)
        earliest = min(trade.time for trade in self._within(here))
        if earliest < early or here.lo <= 1:
            return None
        below = max((stretch.hi for stretch in self._stretches if stretch.hi < here.lo), default=0)
        if earliest < late or here.lo - below < _TRADES:
            return here.lo + 1
        return min(here.lo + 1, max(self._guess(below, here, late, step) + _TRADES // 2, below + _TRADES))

    def _guess(self, below: int, here: _Stretch, time: int, step: int) -> int:
        """Which id may be the first at *time*, between *below* and *here*."""
        lowest = min(trade.trade_id for trade in self._within(here))
        if step % 3 == 2:  # trades do not come evenly: interpolation alone may creep
            return (below + lowest) // 2
        anchor = self.known.get(below)
        if anchor is None:
            # Nothing is known below: as dense as the page above.
            highest = max(trade.trade_id for trade in self._within(here))
            span = self.known[highest].time - self.known[lowest].time
            return max(lowest // 2, lowest - (self.known[lowest].time - time) * (highest - lowest) // max(span, 1))
        rise = self.known[lowest].time - anchor.time
        return below + (lowest - below) * (time - anchor.time) // max(rise, 1)


def _trade(row: _TradeRow) -> Trade | None:
    """*row* as a trade; one that cannot be read is a hole among the ids."""
    try:
        trade = Trade(row.trade_id, time_of(row.time), exact(row.price), exact(row.size))
    except Misunderstood:
        return None
    return trade if trade.trade_id and trade.price > Decimal(0) and trade.size > Decimal(0) else None
