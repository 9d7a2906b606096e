"""Coinbase Exchange, REST: rows where there were trades, and trades by id to prove the rest.

Source: the Exchange documentation of ``GET /products/{id}/candles`` and ``/products/{id}/trades``, and measurements
of its bounds. A minute without trades has no row, but a minute without a row may have had trades: only trade ids that
are contiguous across the minute prove that it had none. No answer names its product; rows and trades of the same
minute are compared.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from decimal import Decimal
from functools import partial
from types import MappingProxyType

import attrs
import msgspec

from trio_candles.candles.model import MINUTE, Candle, Millis, Series, Source, Trade, floor_to
from trio_candles.venues.coinbase.answers import judge
from trio_candles.venues.findings import Findings, finish
from trio_candles.venues.history import (
    BESIDE,
    GRACE,
    NOTHING,
    Answer,
    Fill,
    Heard,
    Penalty,
    Rate,
    Request,
    RestUrls,
    Using,
    Why,
    pages,
    read_body,
    read_rows,
    settled_until,
)
from trio_candles.venues.protocol import UNREADABLE, Id, Misunderstood, Number, Rows, exact, time_of

__all__ = ["CoinbaseHistory"]

_PUBLIC = "public"

_ROWS = 300
"""Rows of a page. Measured: one more is answered, two more are refused with HTTP 400."""
_AHEAD = Millis(10 * MINUTE)
"""How many ms of later minutes are asked for in addition: any row of them but the first shows that the venue had
settled the last minute of the span."""
_WINDOW = Millis((_ROWS - 2) * MINUTE - _AHEAD)
"""How many ms of minutes a page is asked for; the row before them is asked for too, so that no edge is lost."""
_TRADES = 1_000
"""Documented: the most that one page has."""
_APART = Millis(10 * MINUTE)
"""How many ms apart two answers about the newest trade are two tellings. Measured: a cache keeps rows for 300 s."""
_REQUESTS = 40
"""The most requests of one fill: five seconds of the budget."""


# [1788415260,77760.01,77790.5,77761.2,77788.4,1.93821004]: open (s), LOW, HIGH, open, close, volume; newest first;
# the forming minute's row is among them, and nothing marks it. Volumes are sums of doubles: 14.697630010000001.
class _Row(msgspec.Struct, array_like=True, frozen=True, gc=False):
    time: Id
    low: Number
    high: Number
    open: Number
    close: Number
    volume: Number


# {"time":"2014-11-07T22:19:28.578544Z","trade_id":74,"price":"10.00000000","size":"0.01000000","side":"buy"}
class _TradeRow(msgspec.Struct):
    time: str
    trade_id: Id
    price: str
    size: str


# What a row, or a trade, that cannot be read is about.
class _About(msgspec.Struct, array_like=True):
    time: Id


class _AboutTrade(msgspec.Struct):
    trade_id: Id
    time: object = None


# {"iso":"2020-05-12T08:00:51.504Z","epoch":1589270451.504}
class _Time(msgspec.Struct):
    iso: str


_ROW_LIST = Rows(_Row)
_TRADE_LIST = Rows(_TradeRow)
_ABOUT = msgspec.json.Decoder(_About)
_ABOUT_TRADE = msgspec.json.Decoder(_AboutTrade)
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
    sampled = True  # recorded: some of its 5m windows are not the fold of their 1m rows

    def settles_by(self, minute: Millis, now: Millis) -> Using:
        """Trades: rows have differed from the trades that they are made of, so only trades, read again, may replace."""
        return Using.TRADES

    def reach(self, now: Millis) -> Millis:
        """0: it is commonly reported that rows go back to the listing."""
        return Millis(0)

    depth = None  # trades go back to the first one; of rows no depth is documented
    tells_listing = True

    def fill(
        self,
        series: Series,
        since: Millis,
        until: Millis,
        now: Millis,
        using: Using = Using.ALL,
        heard: Heard = NOTHING,
    ) -> Fill:
        """One request for rows, and up to 39 for the trades around missing rows.

        *using* trades alone, every candle is built from trades that are read again. A heartbeat among what was *heard*
        proves the minutes after the newest trade, and with the trades before it that trade's own minute.
        """
        findings = Findings(series, since, until, now, heard)
        return finish(findings, _fill(findings, using))

    def server_time(self) -> Request:
        """The request for the venue's time, which is answered to the millisecond."""
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
    walk = _Walk(findings.now, findings.heard)
    try:
        reached = yield from _search(findings, walk, product, spans)
        for after in walk.doubtful(findings):
            answer = yield _ask_trades(product, after)
            walk.add_page(_trades_of(findings, answer), after)
        # Not before each page to be confirmed was read again: trades unconfirmed for want of an answer are no holes.
        for since, end in reached:
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
    # A small page is filled up with older minutes: comparing them with stored candles shows which market it is about.
    start = min(since - MINUTE, max(since - BESIDE, until - _WINDOW))
    end = max(until + MINUTE, min(until + _AHEAD, floor_to(now, MINUTE)))
    bounds = {"start": str(start // 1000), "end": str(end // 1000)}
    return Request(f"{product}/candles", {"granularity": "60", **bounds}, _PUBLIC)


def _take_rows(findings: Findings, answer: Answer) -> None:
    judge(answer)
    rows = read_rows(_ROW_LIST, answer, partial(_candle, findings), _unread)
    findings.understood = True
    # An answer may come out of a cache, with the row of a minute that was forming then and is settled now: nothing
    # marks that row. A row that opens at least a minute after the minute's end shows that the venue had settled the
    # minute. The age of the newest row shows nothing, because our clock, which measures it, may be wrong; the minutes
    # of the newest rows are settled by the trades after them.
    # A row that opens in the future is no row of the venue's.
    candles = [row for row in rows if isinstance(row, Candle)]
    opened = (candle.open_time for candle in candles if candle.open_time <= findings.now)
    seen_settled = max(opened, default=Millis(0)) - MINUTE
    for row in rows:
        if not isinstance(row, Candle):
            findings.unread(*row)
        elif row.close_time <= seen_settled:
            findings.row(row)


def _candle(findings: Findings, row: _Row) -> Candle:
    return Candle(
        findings.series, Millis(row.time * 1000), row.open, row.high, row.low, row.close, row.volume,
        quote_volume=None, vwap=None, trades_count=None,
        source=Source.REST, ingest_time=findings.now, close_time=Millis(row.time * 1000 + MINUTE),
    )  # fmt: skip


def _unread(text: bytes, error: Misunderstood) -> tuple[tuple[Millis, Millis] | None, str]:
    """The minute that the row *text* is about, if that can be read, and why the row cannot be."""
    try:
        minute = floor_to(_ABOUT.decode(text).time * 1000, MINUTE)
    except UNREADABLE:
        return None, str(error)
    return (minute, Millis(minute + MINUTE)), str(error)


# --- trades -----------------------------------------------------------------------------------------------


def _search(
    findings: Findings, walk: _Walk, product: str, spans: Sequence[tuple[Millis, Millis]]
) -> Generator[Request, Answer, list[tuple[Millis, Millis]]]:
    """Read the trades of *spans*, newest first, and one trade on either side of each; return the spans reached."""
    answer = yield _ask_trades(product, None)
    newest = walk.add_page(_trades_of(findings, answer), None)
    findings.understood = True
    if newest and newest >= max(walk.known, default=0) and findings.heard.newest in (0, newest):
        findings.show(newest, _APART)
        walk.heard = findings.heard
    left = _REQUESTS - 2
    known_until = walk.known_until()
    reached: list[tuple[Millis, Millis]] = []
    for since, until in reversed(spans):
        end = min(until, floor_to(known_until - GRACE, MINUTE))
        findings.excuse(max(since, end), until, Why.NO_TRADE_AFTER if known_until else Why.NO_TRADES)
        if since >= end:
            continue
        step = 0
        while (after := walk.next(since, end, step)) is not None:
            if not left:
                findings.excuse(findings.since, end, Why.NOT_REACHED)
                return reached
            left, step = left - 1, step + 1
            answer = yield _ask_trades(product, after)
            walk.add_page(_trades_of(findings, answer), after)
        reached.append((since, end))
    return reached


def _ask_trades(product: str, after: int | None) -> Request:
    # after=X: ids below X, newest first. (before=X gets the newest page, cut off at X: of no use.)
    cursor = {} if after is None else {"after": str(after)}
    return Request(f"{product}/trades", {"limit": str(_TRADES), **cursor}, _PUBLIC)


@attrs.frozen
class _Stretch:
    """All trades that exist from the id ``lo`` to the id ``hi``; ``lo`` is 0 if no trade is served below."""

    lo: int
    hi: int
    twice: bool
    """Whether one of the trades was told twice, and equal, by two answers or by the feed, which names its product: no
    answer does, but two tellings do not both err."""


@attrs.define
class _Walk:
    """Finds its way through the trades by id, knowing what it has seen of their times.

    What the feed told counts as a page; a page that tells one of the same trades is thereby confirmed.
    """

    now: Millis
    heard: Heard
    known: dict[int, Trade] = attrs.field(factory=dict)
    _ids: set[int] = attrs.field(factory=set)
    """The ids of all trades in the answers, also of those that could not be read."""
    _stretches: list[_Stretch] = attrs.field(factory=list)
    """By id, disjoint."""

    def __attrs_post_init__(self) -> None:
        self.known = {
            trade.trade_id: trade for trade in self.heard.trades if isinstance(trade, Trade) and trade.time <= self.now
        }
        self._ids = set(self.known)
        if self.known:
            self._stretches = [_Stretch(min(self.known), max(self.known), twice=True)]

    def known_until(self) -> Millis:
        """The end of the time of which trades can be known at all: the newest trade's, or that until which the venue
        said that no other followed; 0 if there is no trade.
        """
        newest = max((trade.time for trade in self.known.values()), default=Millis(0))
        is_last = max(self.known, default=0) == self.heard.newest
        return max(newest, self.heard.quiet_until) if newest and is_last else newest

    def first_minute(self) -> Millis:
        """The minute of the first trade of all, if that trade has been reached; 0 otherwise."""
        reached = self._stretches[0].lo <= 1
        return floor_to(min(trade.time for trade in self.known.values()), MINUTE) if reached else Millis(0)

    def add_page(self, rows: Sequence[tuple[int, Trade | None]], after: int | None) -> int:
        """Remember the ids and trades of a page, all there are between its lowest id and *after*; return its highest
        id.
        """
        # Trades after *now*, at which everything here is judged, are ignored: they would prove minutes to come.
        rows = [(id, trade) for id, trade in rows if trade is None or trade.time <= self.now]
        ids = {id for id, _ in rows}
        if after is not None and max(ids, default=0) != after - 1:
            raise Misunderstood("cursor_ignored", f"asked for ids below {after}, got {max(ids, default=None)}")
        if not ids:
            return 0
        for id, trade in rows:
            if trade is not None and self.known.setdefault(id, trade) != trade:
                raise Misunderstood("trades_differ", f"trade {id} is told in two ways")
        lowest, again = min(ids), bool(ids & self._ids)
        if not again and any(lowest < stretch.lo < max(ids) for stretch in self._stretches):
            raise Misunderstood("trades_differ", f"none of the trades told before is in {lowest} to {max(ids)}")
        self._ids |= ids
        self._join(_Stretch(0 if again and after is not None and len(ids) == 1 else lowest, max(ids), again))
        return max(ids)

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
        """Cursors of the pages to read again: their trades prove something, and nothing confirms them yet."""
        return [
            stretch.hi + 1
            for stretch in self._stretches
            if not stretch.twice
            and (stretch.lo <= 1 or findings.gains_from(self._within(stretch)))
            and not findings.rows_agree_with(self._within(stretch))
        ]

    def believed(self, findings: Findings) -> list[Trade]:
        """The trades of stretches that two answers had, or with which the rows agree."""
        return [
            trade
            for stretch in self._stretches
            if stretch.twice or findings.rows_agree_with(self._within(stretch))
            for trade in self._within(stretch)
        ]

    def next(self, since: Millis, until: Millis, step: int) -> int | None:
        """The cursor of the page to read next for ``[since, until)``; ``None`` if there is nothing more to read.

        A page that is to be joined to known trades begins with one of them.
        """
        early, late = since - GRACE, until + GRACE
        above = min((id for id, trade in self.known.items() if trade.time >= late), default=max(self.known))
        upper = next(stretch for stretch in self._stretches if stretch.lo <= above <= stretch.hi)
        for stretch in reversed(self._stretches):  # neighbours that do not overlap: the feed's trades and a page's
            if stretch.hi == upper.lo - 1 and stretch.hi in self.known:
                upper = stretch
        earliest = min(trade.time for trade in self._within(upper))
        if earliest < early or upper.lo <= 1:
            return None
        below = max((stretch.hi for stretch in self._stretches if stretch.hi < upper.lo), default=0)
        if earliest < late or upper.lo - below < _TRADES:
            return upper.lo + 1
        return min(upper.lo + 1, max(self._guess(below, upper, late, step) + _TRADES // 2, below + _TRADES))

    def _guess(self, below: int, upper: _Stretch, time: int, step: int) -> int:
        """An estimate of the first id at *time*, between the id *below* and the stretch *upper*."""
        lowest = min(trade.trade_id for trade in self._within(upper))
        if step % 3 == 2:  # trades do not come evenly: interpolation alone may take many steps
            return (below + lowest) // 2
        anchor = self.known.get(below)
        if anchor is None:
            # No trade is known at *below*: trades are taken to be as dense there as in *upper*.
            highest = max(trade.trade_id for trade in self._within(upper))
            span = self.known[highest].time - self.known[lowest].time
            return max(lowest // 2, lowest - (self.known[lowest].time - time) * (highest - lowest) // max(span, 1))
        rise = self.known[lowest].time - anchor.time
        return below + (lowest - below) * (time - anchor.time) // max(rise, 1)


def _trades_of(findings: Findings, answer: Answer) -> list[tuple[int, Trade | None]]:
    """The ids and trades of the page *answer*, newest first; a trade that cannot be read is ``None``: a hole among the
    ids, of which nobody can say that the venue left it out.
    """
    judge(answer)
    rows = read_rows(_TRADE_LIST, answer, _trade, _unread_trade)
    page: list[tuple[int, Trade | None]] = []
    for row in reversed(rows):
        if isinstance(row, Trade):
            page.append((row.trade_id, row))
            continue
        trade_id, span, why = row
        findings.unread(span, why)
        if trade_id is not None:
            page.append((trade_id, None))
        elif page and row is rows[0]:  # ids are contiguous, and the page is to begin where it was asked for
            page.append((page[-1][0] + 1, None))
    return page[::-1]


def _trade(row: _TradeRow) -> Trade:
    trade = Trade(row.trade_id, time_of(row.time), exact(row.price), exact(row.size))
    if not trade.trade_id or trade.price <= Decimal(0) or trade.size <= Decimal(0):
        raise Misunderstood("bad_trade", f"{row.trade_id} {row.price[:40]!r} {row.size[:40]!r}")
    return trade


def _unread_trade(text: bytes, error: Misunderstood) -> tuple[int | None, tuple[Millis, Millis] | None, str]:
    """Id and minutes of the trade *text*, each if it can be read, and why the trade cannot be."""
    try:
        about = _ABOUT_TRADE.decode(text)
    except UNREADABLE:
        return None, None, str(error)
    try:
        time = time_of(about.time) if isinstance(about.time, str) else None
    except Misunderstood:
        time = None
    if time is None:
        return about.trade_id, None, str(error)
    span = floor_to(time - GRACE, MINUTE), Millis(floor_to(time + GRACE, MINUTE) + MINUTE)
    return about.trade_id, span, str(error)
