"""Kraken, REST: rows for the newest twelve hours, trades by id for everything before.

Source: the documentation of ``GET /0/public/OHLC`` and ``/0/public/Trades``, captured answers, and measurements of
their bounds. A minute without trades has a row of zeros, which proves it empty, or (as of 2019) none, which proves
nothing. A row never says that it is closed, but the newest row is the forming one. Errors come with HTTP 200.

After the newest trade no ids prove anything, and where rows are left out nothing states it. That no trade followed is
believed if all three of the venue's records say so, because none of them does alone (:func:`_confirm_newest`).
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from decimal import Decimal
from itertools import product
from types import MappingProxyType

import attrs
import msgspec

from trio_candles.candles.model import MINUTE, Candle, Millis, Series, Source, Trade, floor_to
from trio_candles.venues.findings import Findings, finish
from trio_candles.venues.history import (
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
    settled_until,
)
from trio_candles.venues.kraken.answers import part_of, result_of
from trio_candles.venues.kraken.listing import SYMBOLS
from trio_candles.venues.protocol import Id, Misunderstood, exact, plain_floats

__all__ = ["KrakenHistory"]

_PUBLIC = "public"

_REACH = Millis(720 * MINUTE)
"""Documented: /OHLC has this many ms of rows before the forming one, whatever is asked for."""
_MARGIN = Millis(20 * MINUTE)
"""Minutes that near to the end of the reach may be out of reach by the time they are asked for."""
_DAY_OF_TRADES = Millis(1_440 * MINUTE)
"""A quiet pair's day is one page, a thin pair's a fraction of one; a busy pair's takes several fills."""
_TRADES = 1_000
"""Documented: the most that one page has."""
_PAGES = 10
"""The most pages of trades that one fill asks for: ten seconds of the budget."""
_PAGES_FOR_HOLES = 3
"""The most pages of trades where rows were answered, and some were left out."""
_APART = Millis(MINUTE)
"""How many ms apart two answers about the newest trade are two tellings. Measured: a cache keeps one for 2 s."""
_LEADS = tuple(Millis(minutes * MINUTE) for minutes in (10, 4 * 60, 3 * 1_440, 30 * 1_440))
"""How far before a minute to look for a trade, in turn: there is no way to ask for the last trade before a time."""

_SECONDS = re.compile(rb"[0-9]{1,10}(\.[0-9]{1,9})?")
_NANOSECONDS = re.compile(rb'"?([0-9]{1,19})"?')


# [1788415200,"77776.4","77800.0","77717.8","77736.8","77777.6","4.07649664",167]:
# open (s), o, h, l, c, vwap ("0.0" if nothing traded), volume, count; oldest first, the forming one last.
_Row = tuple[Id, str, str, str, str, str, str, Id]

# ["30243.40000","0.34507674",1688669597.8277369,"b","m","",61044952]: price, size, time (s), side, kind, misc, id;
# oldest first. The time has more digits than a double keeps: it is read as text.
_TradeRow = tuple[str, str, msgspec.Raw, str, str, str, Id]

_ROW_LIST = msgspec.json.Decoder(list[_Row])
_TRADE_LIST = msgspec.json.Decoder(list[_TradeRow])
_WHOLE = msgspec.json.Decoder(Id)

_OLDER = {today: older for older, today in SYMBOLS.older.items()}
_FIAT = {"AUD", "CAD", "CHF", "EUR", "GBP", "JPY", "KRW", "USD"}


def altname(symbol: str) -> str:
    """What Kraken's REST calls *symbol*, a name of the WebSocket: ``XBTUSD`` for ``BTC/USD``."""
    return "".join(_OLDER.get(asset, asset) for asset in symbol.split(SYMBOLS.separator))


def names_of(symbol: str) -> frozenset[str]:
    """Every name under which *symbol* may be answered: ``XXBTZUSD``, ``XBTUSD``, ``BTC/USD``...

    The oldest assets, all of three letters, have a fourth before them: Z for money, X for coins.
    """
    names = []
    for asset in symbol.split(SYMBOLS.separator):
        own = _OLDER.get(asset, asset)
        old = ("Z" if own in _FIAT else "X") + own
        names.append({asset, own, old} if len(own) == 3 else {asset, own})
    return frozenset(joint.join(pair) for pair in product(*names) for joint in ("", SYMBOLS.separator))


class KrakenHistory:
    """Kraken's public market data; no key needed."""

    name = "kraken"
    rest_urls: RestUrls = MappingProxyType({None: "https://api.kraken.com"})
    # Not documented; others found one request a second and IP safe, with a burst of about thirty.
    rates: Mapping[str, Rate] = MappingProxyType({_PUBLIC: Rate(per_second=1.0, burst=10)})
    penalty = Penalty(Rate(per_second=1 / 3, burst=1), seconds=120.0)

    def windows(self, since: Millis, until: Millis, now: Millis) -> Iterator[tuple[Millis, Millis]]:
        """All that rows reach in one piece; before that, a day of trades in each piece."""
        until = min(until, settled_until(now))
        reach = self.reach(now)
        yield from pages(max(since, reach), until, _REACH)
        yield from pages(since, min(until, reach), _DAY_OF_TRADES)

    anonymous = False
    has_trades = True

    def settles_by(self, minute: Millis, now: Millis) -> Using:
        """Rows as far as they reach, trades before that."""
        return Using.ROWS if minute >= self.reach(now) else Using.TRADES

    def reach(self, now: Millis) -> Millis:
        """Twelve hours ago, less a margin."""
        return Millis(floor_to(now, MINUTE) - _REACH + _MARGIN)

    def fill(
        self,
        series: Series,
        since: Millis,
        until: Millis,
        now: Millis,
        using: Using = Using.ALL,
        heard: Heard = NOTHING,
    ) -> Fill:
        """One request for rows, and up to three for trades where rows are missing; beyond the reach of rows, up to ten.

        Trades are served oldest first, so what a fill does not reach is at the newer end. Between the trades whose ids
        were *heard* nothing is asked; after the newest of them one more request shows whether another followed.
        """
        findings = Findings(series, since, until, now, heard)
        return finish(findings, _fill(findings, using))

    def server_time(self) -> Request:
        """The request for the venue's time, which is answered in seconds."""
        return Request("/0/public/Time", {}, _PUBLIC)

    def read_time(self, answer: Answer) -> Millis:
        """{"error":[],"result":{"unixtime":1762820224,"rfc1123":"Tue, 11 Nov 25 00:17:04 +0000"}}"""
        result = result_of(answer, Millis(0))
        return Millis(read_body(_WHOLE, part_of(answer, result, "unixtime")) * 1000)


def _fill(findings: Findings, using: Using) -> Generator[Request, Answer, None]:
    reach = Millis(floor_to(findings.now, MINUTE) - _REACH)
    until, pages_left, shown_until, newest_row = findings.until, _PAGES, Millis(reach + _MARGIN), Millis(0)
    if using is not Using.TRADES and findings.until > reach + _MARGIN:
        since = max(findings.since, reach)
        # Inclusive as measured, exclusive as once documented: one row earlier is asked for.
        answer = yield _ask(findings, "OHLC", interval="1", since=str(since // 1000 - 60))
        seen_settled, newest_row = _take_rows(findings, answer)
        findings.excuse(max(seen_settled, findings.since), until, Why.MAYBE_OLD)
        until, shown_until = min(until, seen_settled), Millis(seen_settled + MINUTE)
        pages_left = _PAGES_FOR_HOLES if findings.since >= reach else _PAGES
    if using is Using.ROWS:
        return
    walk = _Walk(findings.now)
    try:
        yield from _confirm_newest(findings, walk, shown_until, newest_row)
        until = max(until, min(findings.until, floor_to(walk.quiet_until, MINUTE)))
        spans = [(since, min(end, until)) for since, end in findings.open() if since < until]
        yield from _search(findings, walk, spans, pages_left)
    finally:
        findings.trades(walk.known.values())
        first = walk.known.get(1)
        if first is not None:
            findings.listed = (floor_to(first.time, MINUTE), f"trade 1 at {first.time}")


def _ask(findings: Findings, what: str, **params: str) -> Request:
    return Request(f"/0/public/{what}", {"pair": altname(findings.series.symbol), **params}, _PUBLIC)


# --- answers ----------------------------------------------------------------------------------------------


def _of_pair(findings: Findings, answer: Answer) -> tuple[Answer, Answer]:
    """The answer's part on the pair that was asked for, by whichever of its names; and the part ``last``."""
    result = result_of(answer, findings.now)
    last = part_of(answer, result, "last")
    keys = [key for key in result if key != "last"]
    if len(keys) != 1 or keys[0] not in names_of(findings.series.symbol):
        raise Misunderstood("wrong_symbol", f"{keys[:5]} for {findings.series.symbol}"[:200])
    return part_of(answer, result, keys[0]), last


# --- rows -------------------------------------------------------------------------------------------------


def _take_rows(findings: Findings, answer: Answer) -> tuple[Millis, Millis]:
    """Take the settled rows; return the end of the minutes that the venue had settled, as the answer itself shows, and
    the newest minute of which a row says that it had trades (0: none).

    By our clock more minutes may be settled, but a cache may have kept an old answer.
    """
    listed, last = _of_pair(findings, answer)
    rows = read_body(_ROW_LIST, listed)
    # "last" was the newest committed row in 2025 and the forming one in 2026: neither is earlier than a closed row.
    newest = max([read_body(_WHOLE, last), *(row[0] for row in rows)])
    seen_settled = Millis(floor_to(newest * 1000, MINUTE) - MINUTE)
    findings.understood = True
    for row in rows:
        minute = floor_to(row[0] * 1000, MINUTE)
        if minute >= seen_settled:
            continue
        try:
            _take_row(findings, minute, row)
        except Misunderstood as error:
            findings.doubt(minute, str(error))
    return seen_settled, floor_to(max((row[0] for row in rows if row[-1]), default=0) * 1000, MINUTE)


def _take_row(findings: Findings, minute: Millis, row: _Row) -> None:
    time, *numbers, count = row
    first, high, low, last, vwap, volume = plain_floats(numbers)
    candle = Candle(
        findings.series, Millis(time * 1000), first, high, low, last, volume,
        quote_volume=None,  # vwap is truncated to the tick, so vwap x volume would only look exact
        vwap=vwap or None, trades_count=count,
        source=Source.REST, ingest_time=findings.now, close_time=Millis(time * 1000 + MINUTE),
    )  # fmt: skip
    if count or candle.open_time != minute:
        findings.row(candle)
    elif candle.volume or candle.vwap or candle.high != candle.low:
        raise Misunderstood("bad_zero_row", str(row))
    else:
        findings.zero_row(minute)


# --- trades -----------------------------------------------------------------------------------------------


def _confirm_newest(
    findings: Findings, walk: _Walk, shown_until: Millis, newest_row: Millis
) -> Generator[Request, Answer, None]:
    """Ask whether a trade followed the newest one that the feed told, if minutes after that one are open; if none did,
    nothing was traded until *shown_until* (Unix ms), or until an earlier fill was shown the same.

    Three records must say so, and each would have shown a trade that another lacks: the feed is connected and knows
    none (it tells the newest fifty at each subscription); the page of trades from that one on, which is whole because
    it repeats that trade and is far from full, has none; and no row, the newest of which that had trades is that of
    *newest_row*, states one. None of them may be old. The rows' answer names the minute in which it was made, or a row
    in it does, which bounds *shown_until*, and the page is asked for after it, at a URL that no cache has met: the CDN
    keeps an answer for 2 s by its URL (measured), and the nanoseconds of "since" are those of the asking. Where nothing
    in the rows' answer is newer than that trade, its age is unknown, and a second fill must be shown the same
    (:meth:`Findings.show`). Minutes beyond the reach of rows ended half a day before any answer.
    """
    newest = findings.heard.trades[-1] if findings.heard.trades else None
    if newest is None or newest.trade_id != findings.heard.newest or newest_row > newest.time:
        return
    if not any(newest.time - GRACE < end for _, end in findings.open()):
        return
    # Repeats the newest trade, as the steps of a walk do. "since" is up to 2 ms earlier than that trade.
    step = _Step(newest.time * 10**6 - 10_000 - findings.now % 10**6, repeats=newest.trade_id)
    answer = yield _ask_trades(findings, step)
    page = _trades_of(findings, answer)
    findings.understood = True
    if not any(row.trade_id == newest.trade_id for row in page):
        return  # older than what the feed knows
    walk.add_page(step, page)
    if walk.newest_id() == newest.trade_id:
        findings.quiet(newest.trade_id, shown_until)
        findings.show(newest.trade_id, _APART)
        walk.quiet_until = findings.heard.quiet_until
        findings.trades(walk.known.values())


def _search(
    findings: Findings, walk: _Walk, spans: Sequence[tuple[Millis, Millis]], pages_left: int
) -> Generator[Request, Answer, None]:
    """Read the trades of *spans*, oldest first, and one trade on either side of each."""
    for since, until in spans:
        leads = _leads(findings.heard)
        while (step := walk.next(since, until, leads)) is not None:
            if not pages_left:
                if step.repeats is not None:  # the trades before this page were read, and prove nothing
                    passed = floor_to(Millis(step.since // 10**6 - GRACE), MINUTE)
                    findings.excuse(since, min(passed, walk.first_minute()), Why.BEFORE_FIRST)
                    findings.excuse(since, passed, Why.ID_HOLE)
                findings.excuse(since, findings.until, Why.NOT_REACHED)
                return
            pages_left -= 1
            answer = yield _ask_trades(findings, step)
            walk.add_page(step, _trades_of(findings, answer))
            findings.understood = True
        findings.excuse(since, min(until, walk.first_minute()), Why.BEFORE_FIRST)
        findings.excuse(max(since, walk.end(until)), until, Why.NO_TRADE_AFTER)
        findings.excuse(since, until, Why.ID_HOLE if leads else Why.NO_TRADE_BEFORE)


def _ask_trades(findings: Findings, step: _Step) -> Request:
    return _ask(findings, "Trades", since=str(step.since), count=str(_TRADES))


@attrs.frozen
class _PageTrade:
    """A row of a page of trades; ``trade`` is ``None`` if the row cannot be read, which is a hole among the ids."""

    trade_id: int
    trade: Trade | None
    time: int
    """In nanoseconds."""


def _trades_of(findings: Findings, answer: Answer) -> list[_PageTrade]:
    rows, _ = _of_pair(findings, answer)
    return [_page_trade(row) for row in read_body(_TRADE_LIST, rows)]


def _page_trade(row: _TradeRow) -> _PageTrade:
    price, size, seconds, *_, trade_id = row
    text = bytes(seconds)
    if _SECONDS.fullmatch(text) is None:
        raise Misunderstood("bad_time", repr(text[:40]))
    time = int(Decimal(text.decode()) * 10**9)
    try:
        trade = Trade(trade_id, Millis(time // 10**6), exact(price), exact(size))
    except Misunderstood:
        return _PageTrade(trade_id, None, time)
    good = trade_id > 0 and trade.price > 0 and trade.size > 0
    return _PageTrade(trade_id, trade if good else None, time)


def _leads(heard: Heard) -> list[Millis]:
    """Those of :data:`_LEADS` that probably find a trade: three times as long as trades of the series are apart."""
    span = heard.trades[-1].time - heard.trades[0].time if heard.trades else 0
    apart = span // max(len(heard.trades) - 1, 1)
    return [lead for lead in _LEADS if lead >= 3 * apart] or [_LEADS[-1]]


@attrs.frozen
class _Step:
    """A page to ask for: trades from *since* (ns) on; the page must repeat the trade of the id *repeats*, if given."""

    since: int
    repeats: int | None


@attrs.frozen
class _Stretch:
    """All trades that exist from the id ``lo`` to the id ``hi``, from one page or from several that overlap."""

    lo: int
    hi: int
    since: Millis
    """The time of the earliest trade, in milliseconds."""
    until: int
    """The time of the latest trade, in nanoseconds."""


@attrs.define
class _Walk:
    """Finds its way through the trades by time, in pages that begin at a time and have no end."""

    now: Millis
    quiet_until: Millis = attrs.field(default=Millis(0))
    """Before this time no trade followed the newest one."""
    known: dict[int, Trade] = attrs.field(factory=dict)
    _stretches: list[_Stretch] = attrs.field(factory=list)
    """By id, disjoint."""
    _ended: bool = False
    """Whether a page has had the newest trade of all."""

    def first_minute(self) -> Millis:
        """The minute of the first trade of all, if a page has had the trade; 0 otherwise."""
        return floor_to(self.known[1].time, MINUTE) if 1 in self.known else Millis(0)

    def newest_id(self) -> int:
        """The id of the newest trade of all, if a page has had that trade; 0 otherwise."""
        return self._stretches[-1].hi if self._ended and self._stretches else 0

    def end(self, until: Millis) -> Millis:
        """The end of the minutes before *until* that can be proven at all: nothing is proven after the newest trade, or
        after the time until which no other followed it.
        """
        if not self._ended:
            return until
        newest = max((trade.time for trade in self.known.values()), default=GRACE)
        return min(until, floor_to(max(newest, self.quiet_until) - GRACE, MINUTE))

    def next(self, since: Millis, until: Millis, leads: list[Millis]) -> _Step | None:
        """The page to read next for ``[since, until)``; ``None`` if there is nothing more to read.

        *leads* are those of :data:`_LEADS` that were not tried yet; one that is used is removed.
        """
        until = self.end(until)
        if until <= since:
            return None
        begun = [stretch for stretch in self._stretches if stretch.lo == 1 or stretch.since < since - GRACE]
        if begun:
            newest = begun[-1]
            if newest.until >= (until + GRACE) * 10**6 or newest.hi == self.newest_id():
                return None
            if not leads or newest.until >= (since - leads[0]) * 10**6:
                # The last trades are asked for again: times are rounded, other trades may share the last time, and the
                # parameter since may exclude it. (The answer's "last" lies beyond the rows where a page was cut.)
                return _Step(newest.until - 10_000, repeats=newest.hi)
        return _Step((since - leads.pop(0)) * 10**6, repeats=None) if leads else None

    def add_page(self, step: _Step, page: Sequence[_PageTrade]) -> None:
        """Remember the *page* that answers *step*."""
        # Trades after *now*, at which everything here is judged, are ignored: they would prove minutes to come.
        page = [row for row in page if row.time <= self.now * 10**6]
        ids = {row.trade_id for row in page}
        if not ids:
            self._ended = True
            return
        if step.repeats is not None and step.repeats not in ids:
            raise Misunderstood("cursor_ignored", f"trade {step.repeats} is not told again")
        if step.repeats == max(ids):
            if len(page) >= _TRADES:
                raise Misunderstood("no_progress", f"{len(page)} trades at the time of trade {step.repeats}")
            self._ended = True
        for row in page:
            if row.trade is not None and self.known.setdefault(row.trade_id, row.trade) != row.trade:
                raise Misunderstood("trades_differ", f"trade {row.trade_id} is told in two ways")
        newest, oldest = max(row.time for row in page), min(row.time for row in page)
        self._join(_Stretch(min(ids), max(ids), Millis(oldest // 10**6), newest))

    def _join(self, new: _Stretch) -> None:
        joined: list[_Stretch] = []
        for stretch in sorted([*self._stretches, new], key=lambda stretch: stretch.lo):
            if joined and stretch.lo <= joined[-1].hi:
                last = joined.pop()
                until = max(last.until, stretch.until)
                stretch = _Stretch(last.lo, max(last.hi, stretch.hi), min(last.since, stretch.since), until)
            joined.append(stretch)
        self._stretches = joined
