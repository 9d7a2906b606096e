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
from functools import partial
from itertools import product
from math import nan
from types import MappingProxyType

import msgspec

from trio_candles.candles.intervals import touching
from trio_candles.candles.model import MINUTE, Candle, Millis, Series, Source, floor_to
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
    read_rows,
    settled_until,
)
from trio_candles.venues.kraken.answers import part_of, result_of
from trio_candles.venues.kraken.listing import SYMBOLS
from trio_candles.venues.kraken.trades import TRADE_LIST, TRADES, PageTrade, Step, Walk, leads_for, page_trade
from trio_candles.venues.protocol import UNREADABLE, Id, Misunderstood, Rows, floats_of

__all__ = ["KrakenHistory"]

_PUBLIC = "public"

_REACH = Millis(720 * MINUTE)
"""Documented: /OHLC has this many ms of rows before the forming one, whatever is asked for."""
_MARGIN = Millis(20 * MINUTE)
"""Minutes that near to the end of the reach may be out of reach by the time they are asked for."""
_DAY_OF_TRADES = Millis(1_440 * MINUTE)
"""A quiet pair's day is one page, a thin pair's a fraction of one; a busy pair's takes several fills."""
_PAGES = 10
"""The most pages of trades that one fill asks for: ten seconds of the budget."""
_PAGES_FOR_HOLES = 3
"""The most pages of trades where rows were answered, and some were left out."""
_APART = Millis(MINUTE)
"""How many ms apart two answers about the newest trade are two tellings. Measured: a cache keeps one for 2 s."""
_LONG_SILENCE = 60
"""So many rows without trades in a row deserve a look at the trades, in a market that trades in most other minutes."""

_NANOSECONDS = re.compile(rb'"?([0-9]{1,19})"?')


# [1788415200,"77776.4","77800.0","77717.8","77736.8","77777.6","4.07649664",167]:
# open (s), o, h, l, c, vwap ("0.0" if nothing traded), volume, count; oldest first, the forming one last.
class _Row(msgspec.Struct, array_like=True, frozen=True, gc=False):
    time: Id
    open: str
    high: str
    low: str
    close: str
    vwap: object
    volume: str
    count: Id


# What a row that cannot be read is about.
class _About(msgspec.Struct, array_like=True):
    time: Id


_ROW_LIST = Rows(_Row)
_ABOUT = msgspec.json.Decoder(_About)
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
    sampled = False

    def settles_by(self, minute: Millis, now: Millis) -> Using:
        """Rows as far as they reach, trades before that."""
        return Using.ROWS if minute >= self.reach(now) else Using.TRADES

    def reach(self, now: Millis) -> Millis:
        """Twelve hours ago, less a margin."""
        return Millis(floor_to(now, MINUTE) - _REACH + _MARGIN)

    depth = None  # documented: trades go back to the first one
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
        # Inclusive as measured, exclusive as once documented: two rows earlier are asked for, because a row without
        # trades is held against the row before it.
        answer = yield _ask(findings, "OHLC", interval="1", since=str(since // 1000 - 120))
        seen_settled, newest_row = _take_rows(findings, answer)
        findings.excuse(max(seen_settled, findings.since), until, Why.MAYBE_OLD)
        until, shown_until = min(until, seen_settled), Millis(seen_settled + MINUTE)
        pages_left = _PAGES_FOR_HOLES if findings.since >= reach else _PAGES
    if using is Using.ROWS:
        return
    walk = Walk(findings.now)
    try:
        yield from _confirm_newest(findings, walk, shown_until, newest_row)
        until = max(until, min(findings.until, floor_to(walk.quiet_until, MINUTE)))
        spans = [(since, min(end, until)) for since, end in findings.open() if since < until]
        yield from _search(findings, walk, spans, pages_left)
    finally:
        findings.trades(walk.known.values())
        findings.saw(max(walk.known, default=0))
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
    rows = read_rows(_ROW_LIST, listed, partial(_candle, findings), _unread)
    # "last" was the newest committed row in 2025 and the forming one in 2026: neither is earlier than a closed row.
    # A time to come is no time that the venue had reached.
    times = [read_body(_WHOLE, last) * 1000, *(row.open_time for row in rows if isinstance(row, Candle))]
    newest = max((time for time in times if time <= findings.now), default=0)
    seen_settled = Millis(floor_to(newest, MINUTE) - MINUTE)
    findings.understood = True
    zeros, traded, price = [], 0, None
    for row in rows:
        if not isinstance(row, Candle):
            findings.unread(*row)
        elif row.open_time >= seen_settled:
            continue
        elif row.trades_count or row.open_time % MINUTE:
            findings.row(row)
            traded, price = traded + 1, row.close
        elif _is_flat(row) and price is None:
            price = row.close  # of the first row nothing shows whether that is the last price before it
        elif _is_flat(row) and row.close == price:
            zeros.append(row.open_time)
        else:
            findings.excuse(row.open_time, row.close_time, Why.ZERO_ROW_BREAKS_RULE)
            price = nan  # nor is any row believed that repeats it
    for since, until in touching(zeros):
        length = (until - since) // MINUTE
        others = traded + len(zeros) - length
        if min(length, others) >= _LONG_SILENCE and traded > others / 2:
            findings.excuse(Millis(since), Millis(until), Why.LONG_SILENCE)
            continue
        for minute in range(since, until, MINUTE):
            findings.zero_row(Millis(minute))
    counted = (row.open_time for row in rows if isinstance(row, Candle) and row.trades_count)
    return seen_settled, floor_to(max(counted, default=Millis(0)), MINUTE)


def _is_flat(row: Candle) -> bool:
    """Whether *row*, which counts no trade, has one price: the last one before it, which the venue carries on."""
    return not row.vwap and row.open == row.high == row.low == row.close > 0


def _candle(findings: Findings, row: _Row) -> Candle:
    numbers, vwap = floats_of((row.open, row.high, row.low, row.close, row.volume), row.vwap)
    first, high, low, last, volume = numbers
    if (volume == 0) != (row.count == 0):
        raise Misunderstood("bad_count", f"{row.count} trades of {row.volume} in all")
    return Candle(
        findings.series, Millis(row.time * 1000), first, high, low, last, volume,
        quote_volume=None,  # vwap is truncated to the tick, so vwap x volume would only look exact
        vwap=vwap or None, trades_count=row.count,
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


def _confirm_newest(
    findings: Findings, walk: Walk, shown_until: Millis, newest_row: Millis
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
    if findings.heard.shown is not None and findings.heard.shown.id > newest.trade_id:
        return  # an earlier fill was shown a later one, which the feed does not know: an answer without it is old
    if not any(newest.time - GRACE < end for _, end in findings.open()):
        return
    # Repeats the newest trade, as the steps of a walk do. "since" is up to 2 ms earlier than that trade.
    step = Step(newest.time * 10**6 - 10_000 - findings.now % 10**6, repeats=newest.trade_id)
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
    findings: Findings, walk: Walk, spans: Sequence[tuple[Millis, Millis]], pages_left: int
) -> Generator[Request, Answer, None]:
    """Read the trades of *spans*, oldest first, and one trade on either side of each."""
    for since, until in spans:
        leads = leads_for(findings.heard.trades)
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


def _ask_trades(findings: Findings, step: Step) -> Request:
    return _ask(findings, "Trades", since=str(step.since), count=str(TRADES))


def _trades_of(findings: Findings, answer: Answer) -> list[PageTrade]:
    """The page's trades, but for those of which not even id and time can be read."""
    listed, _ = _of_pair(findings, answer)
    page = []
    for row in read_rows(TRADE_LIST, listed, page_trade, lambda text, error: str(error)):
        if isinstance(row, str):
            findings.unread(None, row)
            continue
        if row.trade is None:
            time = row.time // 10**6
            span = floor_to(time - GRACE, MINUTE), Millis(floor_to(time + GRACE, MINUTE) + MINUTE)
            findings.unread(span, f"trade {row.trade_id} cannot be read")
        page.append(row)
    return page
