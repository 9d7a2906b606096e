"""What all assemblers share: first verdicts in order, reasons for doubt, and the rules that a candle must keep.

A minute's way, as an assembler sees it::

                 proven ┌────────────────► Candle or Empty ──► Candle, if the venue states it anew, otherwise
    owed (no verdict) ──┤                    ▲
                 due    └──► Unsure ─────────┘ proven later, by the feed (or by REST, which is not this module's)

``frontier`` separates the minutes that have had a first verdict from those that are owed one. Invariant: the first
verdicts of all minutes from where the assembler began to ``frontier`` were given in order, without a hole and without
an overlap; ``frontier`` never goes back. A proof of a minute beyond the frontier makes the minutes between ``Unsure``,
so that no verdict waits for another minute's. Why a minute is ``Unsure`` is decided in :meth:`Assembler._whys`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import attrs

from trio_candles.candles.intervals import Interval, clip, cover, subtract, union
from trio_candles.candles.model import MINUTE, Candle, Empty, Millis, Reason, Series, Source, Unsure, Verdict, floor_to
from trio_candles.candles.validation import Rule, broken_rule
from trio_candles.venues.history import NOTHING, Heard
from trio_candles.venues.protocol import Event, Row, Unread

__all__ = ["AHEAD", "BEGINNING", "SETTLE", "Assembler", "Outcome", "Rejected", "Remark", "candle_of"]

BEGINNING = Millis(0)

SETTLE = Millis(8_000)
"""How long after its end a minute may go without a verdict before it is called ``Unsure``.

Ten seconds are promised; two are left for the watchdog's tick and the disk."""

AHEAD = Millis(60_000)
"""A venue's time further than this ahead of our clock proves nothing: it would prove minutes that are not over."""


@attrs.frozen
class Rejected:
    """A candle that broke a rule, to be counted and logged; it proves nothing about its minute."""

    candle: Candle
    rule: Rule


@attrs.frozen
class Remark:
    """A remark about a feed, to be counted and logged for people; it changes no verdict."""

    kind: str
    """One of a few words, fit for a counter."""
    text: str


Outcome = Verdict | Rejected | Remark


@attrs.define
class Assembler(ABC):
    """Takes the events of one series and gives each of its minutes a first verdict, in order.

    Lives as long as the venue's feed, which outlives connections. Times are Unix ms on the service's clock.
    """

    series: Series
    frontier: Millis
    """Every minute before it has had a first verdict."""
    earliest: Millis = BEGINNING
    """The first expected minute: what a snapshot proves about earlier minutes is dropped."""
    _disconnected_since: Millis | None = BEGINNING
    """Since when there has been no connection; ``None`` while there is one."""
    _breaks: list[tuple[Millis, Millis]] = attrs.field(factory=list)
    """Each ``[since, until)`` without connection that may touch a minute which has no verdict yet."""
    _reasons: dict[Interval, tuple[Reason, str]] = attrs.field(factory=dict)
    """Why minutes are in doubt, by disjoint spans, where that is more than "not proven"."""
    _doubt: str | None = None
    """Why the venue calls its own feed into question; ``None`` if it does not."""
    _refused: str | None = None
    """How the venue refused the subscription; ``None`` if it did not."""

    default_reason = Reason.UNPROVEN

    # --- the connection

    def connected(self, now: Millis) -> None:
        """The subscription was acknowledged: from *now* on events of the series arrive."""
        self._refused = None
        if self._disconnected_since is not None:
            self._breaks = [(since, until) for since, until in self._breaks if until > self.frontier]
            self._breaks.append((self._disconnected_since, now))
            self._disconnected_since = None

    def disconnected(self, now: Millis) -> None:
        """The connection was lost at *now*: no more events arrive."""
        if self._disconnected_since is None:
            self._disconnected_since = now

    def refused(self, text: str) -> None:
        """The venue refused the subscription of this symbol; *text* is its reason."""
        self._refused = text

    def doubted(self, text: str | None) -> None:
        """The venue calls its own feed into question, or (``None``) no longer.

        Nothing is proven meanwhile. Trades that arrive meanwhile are kept: once the doubt is gone, ids may prove their
        minutes.
        """
        self._doubt = text

    def unread(self, row: Unread, now: Millis) -> None:
        """A *row* was received at *now* that could not be read: it proves nothing, and if nothing else proves its
        minute, it is the reason why.
        """
        if row.minute is not None and self.frontier <= row.minute <= now:
            self._explain(row.minute, row.minute + MINUTE, (Reason.REJECTED, f"unreadable row: {row.reason}"))

    # --- what is known

    def heard(self) -> Heard:
        """What the feed knows, as evidence beside REST's answers; nothing while the venue calls it into question."""
        return NOTHING if self._doubt is not None else self._heard()

    def _heard(self) -> Heard:
        return NOTHING

    # --- verdicts

    @abstractmethod
    def hear(self, event: Event, now: Millis) -> Sequence[Outcome]:
        """The outcomes of *event*, received at *now*: what it proves, and what is to be logged."""

    def due(self, now: Millis) -> Sequence[Outcome]:
        """``Unsure`` for each minute that has waited for its first verdict longer than :data:`SETTLE`."""
        until = floor_to(now - SETTLE, MINUTE)
        return () if until <= self.frontier else list(self.give_up(until))

    def give_up(self, until: Millis) -> Iterator[Outcome]:
        """``Unsure`` for each minute before *until* that has no verdict; neighbours of one reason are joined."""
        last: Unsure | None = None
        for (since, end), (reason, detail) in self._whys(self.frontier, until):
            if last is not None and (last.reason, last.detail) == (reason, detail):
                last = attrs.evolve(last, until=Millis(end))
                continue
            if last is not None:
                yield last
            last = Unsure(self.series, Millis(since), Millis(end), reason, detail)
        if last is not None:
            yield last
        self.frontier = max(self.frontier, until)
        self._reasons = {span: why for span, why in self._reasons.items() if span[1] > self.frontier}

    def _whys(self, since: Millis, until: Millis) -> Iterator[tuple[Interval, tuple[Reason, str]]]:
        """``[since, until)`` in pieces, each with the reason and detail of a gap there: the first of these that
        applies.
        """
        if self._refused is not None:
            if since < until:
                yield (since, until), (Reason.REFUSED, self._refused)
            return
        without, at = self._without_connection(since, until), int(since)
        other = (self.default_reason, "") if self._doubt is None else (Reason.SUSPECT, self._doubt)
        beyond: tuple[Interval, tuple[Reason, str] | None] = ((until, until), None)
        for (low, high), why in [*sorted(self._reasons.items()), beyond]:
            low, high = min(max(int(since), low), int(until)), min(int(until), high)
            for piece, missing in cover(without, at, low):
                yield piece, (Reason.DISCONNECTED, "") if missing else other
            if why is not None and low < high:
                yield (low, high), why
            at = max(at, high)

    def _explain(self, since: int, until: int, why: tuple[Reason, str]) -> None:
        """Note why the minutes of ``[since, until)`` are in doubt, where nothing is noted yet and there was a
        connection.
        """
        known = [*self._reasons, *self._without_connection(since, until)]
        for piece in subtract([(since, until)], sorted(known)):
            self._reasons[piece] = why

    def _was_lost(self, since: int, until: int) -> bool:
        """Whether the connection was missing for a part of ``[since, until)``."""
        missing = self._disconnected_since is not None and self._disconnected_since < until
        return missing or any(lost < until and restored > since for lost, restored in self._breaks)

    def _without_connection(self, since: int, until: int) -> list[Interval]:
        """The minutes of ``[since, until)`` in a part of which the connection was missing."""
        breaks = [*self._breaks]
        if self._disconnected_since is not None:
            breaks.append((self._disconnected_since, Millis(max(until, self._disconnected_since + MINUTE))))
        touched = sorted((lost - lost % MINUTE, restored + -restored % MINUTE) for lost, restored in breaks)
        return list(clip(union(touched), since, until))

    def _prove(self, verdict: Candle | Empty, now: Millis) -> Iterator[Outcome]:
        """Pass a proven verdict on, after first verdicts for the minutes before it."""
        if isinstance(verdict, Candle):
            since, until = verdict.open_time, verdict.close_time
            if since < self.earliest:
                return
            rule = broken_rule(verdict, now)
            if rule is not None:
                minute = floor_to(since, MINUTE)
                if self.frontier <= minute <= now:
                    span = (minute, minute + MINUTE)
                    self._reasons = {
                        piece: why for known, why in self._reasons.items() for piece in subtract([known], [span])
                    }
                    self._reasons[span] = (Reason.REJECTED, rule.value)
                yield Rejected(verdict, rule)
                return
        else:
            since, until = max(verdict.since, self.earliest), verdict.until
            if since >= until:
                return
            verdict = attrs.evolve(verdict, since=since)
        yield from self.give_up(since)
        self.frontier = max(self.frontier, until)
        yield verdict

    def _prove_anew(self, verdict: Candle, now: Millis) -> Iterator[Outcome]:
        """Pass on a second, different candle of a minute that was proven before: the store sees that the two differ."""
        if self._doubt is None:
            yield from self._prove(verdict, now)

    def _wrong_time(self, what: str, time: Millis, now: Millis) -> Sequence[Outcome]:
        off = f"{time - now} ms ahead of" if time > now else f"{now - time} ms behind"
        return (Remark("wrong_time", f"{self.series} {what} is {off} our clock"),)


def candle_of(series: Series, row: Row, now: Millis) -> Candle:
    """The venue's own row as a candle, received live at *now*."""
    return Candle(
        series, row.open_time, row.open, row.high, row.low, row.close, row.volume, row.quote_volume,
        row.vwap, row.trades_count, Source.WEBSOCKET, now, row.close_time,
    )  # fmt: skip
