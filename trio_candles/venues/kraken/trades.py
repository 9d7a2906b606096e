"""Kraken, REST: the pages of trades, and the way through them.

Source: the documentation of ``GET /0/public/Trades``, and captured answers. A page begins at a time, tells the oldest
trades first, and has no end; times are rounded, so that only ids show whether two pages meet.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal

import attrs
import msgspec

from trio_candles.candles.model import MINUTE, Millis, Trade, floor_to
from trio_candles.venues.history import GRACE
from trio_candles.venues.protocol import Id, Misunderstood, Rows, TradeSeen, exact

__all__ = ["TRADES", "TRADE_LIST", "PageTrade", "Step", "Walk", "leads_for", "page_trade"]

TRADES = 1_000
"""Documented: the most that one page has."""
_LEADS = tuple(Millis(minutes * MINUTE) for minutes in (10, 4 * 60, 3 * 1_440, 30 * 1_440))
"""How far before a minute to look for a trade, in turn: there is no way to ask for the last trade before a time."""

_SECONDS = re.compile(rb"[0-9]{1,10}(\.[0-9]{1,9})?")


# ["30243.40000","0.34507674",1688669597.8277369,"b","m","",61044952]: price, size, time (s), side, kind, misc, id;
# oldest first. The time has more digits than a double keeps: it is read as text.
class _TradeRow(msgspec.Struct, array_like=True, frozen=True, gc=False):
    price: object
    size: object
    time: msgspec.Raw
    side: object
    kind: object
    misc: object
    trade_id: Id


TRADE_LIST = Rows(_TradeRow)


@attrs.frozen
class PageTrade:
    """A row of a page of trades; ``trade`` is ``None`` if the row cannot be read, which is a hole among the ids."""

    trade_id: int
    trade: Trade | None
    time: int
    """In nanoseconds."""


def page_trade(row: _TradeRow) -> PageTrade:
    text = bytes(row.time)
    if _SECONDS.fullmatch(text) is None:
        raise Misunderstood("bad_time", repr(text[:40]))
    time = int(Decimal(text.decode()) * 10**9)
    if not isinstance(row.price, str) or not isinstance(row.size, str):
        return PageTrade(row.trade_id, None, time)
    try:
        trade = Trade(row.trade_id, Millis(time // 10**6), exact(row.price), exact(row.size))
    except Misunderstood:
        return PageTrade(row.trade_id, None, time)
    good = row.trade_id > 0 and trade.price > 0 and trade.size > 0
    return PageTrade(row.trade_id, trade if good else None, time)


def leads_for(heard: Sequence[Trade | TradeSeen]) -> list[Millis]:
    """How far before a minute to look for a trade, in turn: those of :data:`_LEADS` that probably find one, being three
    times as long as the trades that were *heard* of the series (by id) are apart.
    """
    span = heard[-1].time - heard[0].time if heard else 0
    apart = span // max(len(heard) - 1, 1)
    return [lead for lead in _LEADS if lead >= 3 * apart] or [_LEADS[-1]]


@attrs.frozen
class Step:
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
class Walk:
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

    def next(self, since: Millis, until: Millis, leads: list[Millis]) -> Step | None:
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
                return Step(newest.until - 10_000, repeats=newest.hi)
        return Step((since - leads.pop(0)) * 10**6, repeats=None) if leads else None

    def add_page(self, step: Step, page: Sequence[PageTrade]) -> None:
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
            if len(page) >= TRADES:
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
