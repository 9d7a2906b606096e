"""All series of one venue: what its connections receive goes in, verdicts wait to be sent to the writer.

::

    connections ──events──► assemblers ──verdicts, rejections──► outbox ──take──► the writer's channel
    gap-filler ─────────────────────────findings of REST───────────┘

A venue state owns the venue's assemblers (one for each series), the outbox with its bound, the counters that people
watch, and what was last logged. It lives as long as the venue's feed and is touched by the feed's tasks only.

Invariants: every minute that an assembler decided is in the outbox, in the batch being sent or with the writer, and
beyond the outbox's bound it is there as a gap. Nothing that a connection calls waits: so a reader is never held up
by the disk, and a slow disk never looks like a silent venue. The gap-filler, which can ask again, does wait
(:meth:`VenueState.room`).

Where a gap gets its reason (:class:`~trio_candles.candles.model.Reason`): an assembler gives it while the collector
runs (``Assembler`` in :mod:`trio_candles.assembly.base`, and ``default_reason`` of its kinds); :func:`collapsed` says
``overflow``; the ledger gives the reasons of minutes that no assembler decided (:mod:`trio_candles.store.journal`), and
``rejected`` to a candle that it refuses (:mod:`trio_candles.store.verdicts`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

import attrs
import trio

from trio_candles.assembly import Assembler, Outcome, Rejected, Remark, assembler_for
from trio_candles.candles.model import (
    MINUTE,
    Attempt,
    Candle,
    Finding,
    Millis,
    Page,
    Reason,
    Series,
    Unsure,
    Verdict,
)
from trio_candles.candles.validation import Rule
from trio_candles.collector.status import VenueBoard
from trio_candles.collector.subscriptions import Connection, State
from trio_candles.venues.protocol import Event, Forming, Heartbeat, Proof, Row, Traded, TradeSeen, Unread

__all__ = ["VenueState", "collapsed", "open_venue_state"]

log = logging.getLogger(__name__)

OUTBOX_LIMIT = 100_000
"""Verdicts that may wait for the disk, per venue: some 100 MB, a day and a half of fifty symbols.

Beyond it their minutes become gaps, which take next to no room and which REST can fill later."""

PAGES_LIMIT = 100
"""Answers of REST that may wait for the disk, per venue, of some 300 minutes each. They can be had again: beyond it
nothing is asked, else the same pages would pile up for as long as a disk takes nothing."""

CLOCK_TOLERANCE = 2_000
"""Ms between the venue's clock and ours beyond which a warning is logged."""
LOUD_EVERY = 60.0
"""Seconds between two warnings of the same kind about one venue; those between them go to the log file only."""


@attrs.define
class VenueState:
    """The assemblers of one venue, and the outbox of their verdicts; the collector's
    :class:`~trio_candles.collector.subscriptions.Listener`.
    """

    board: VenueBoard
    assemblers: dict[str, Assembler]
    speed: float = 1.0
    """Service seconds per wall second: a delay of a wall second looks like so many of the service's."""
    outbox: list[Verdict | Rejected | Finding] = attrs.field(factory=list)
    filled: trio.Event = attrs.field(factory=trio.Event)
    """Set while the outbox holds something."""
    _pages: int = 0
    """Answers of REST that :meth:`add` put into the outbox and nobody has taken."""
    _taken: trio.Event = attrs.field(factory=trio.Event)
    _loud_again: dict[str, float] = attrs.field(factory=dict)
    _lags: list[int] = attrs.field(factory=list)
    _clock_warned: bool = False

    # --- what comes in, and goes out

    def hear(self, event: Event, now: Millis) -> None:
        """Pass an event about a symbol to its assembler, and put what follows into the outbox."""
        if not isinstance(event, (Traded, TradeSeen, Row, Forming, Heartbeat, Unread)):
            return
        assembler = self.assemblers.get(event.symbol)
        if assembler is None:
            self.remark("unknown_symbol", repr(event.symbol[:40]))
            return
        if isinstance(event, Unread):
            assembler.unread(event, now)
            return
        if isinstance(event, Heartbeat):
            self._compare_clocks(now - event.time)
        else:
            self.board.last_data = now
        outcomes = assembler.hear(event, now)
        if outcomes:
            self.put(outcomes)

    def put(self, outcomes: Iterable[Outcome]) -> None:
        """Count *outcomes* of the feed, and let them wait for the writer."""
        for outcome in outcomes:
            if isinstance(outcome, Remark):
                self.remark(outcome.kind, outcome.text)
                continue
            if isinstance(outcome, (Candle, Rejected)):
                self.board.received += 1
            self.outbox.append(outcome)
        if len(self.outbox) > OUTBOX_LIMIT:
            log.error("%s: %d verdicts wait for the disk; their minutes become gaps", self.board.name, len(self.outbox))
            self.outbox = list(collapsed(self.outbox))
            if len(self.outbox) > OUTBOX_LIMIT // 2:  # a thin pair's reasons alternate, and never join
                self.outbox = list(collapsed(self.outbox, any_reason=True))
        if self.outbox:
            self.filled.set()

    async def room(self) -> None:
        """Return once there is room for another answer of REST; whoever asks REST waits here first."""
        while self._pages >= PAGES_LIMIT:
            await self._taken.wait()

    def add(self, outcomes: Iterable[Finding]) -> None:
        """Let what one answer of REST proved wait for the writer; not counted as received, as feed candles are."""
        self.outbox.extend(outcomes)
        self._pages += 1
        if self.outbox:
            self.filled.set()

    def reject(self, rejected: Iterable[tuple[Candle, Rule]]) -> None:
        """Let candles of REST that break a rule wait for the writer, who counts and logs them."""
        self.outbox.extend(Rejected(candle, rule) for candle, rule in rejected)
        if self.outbox:
            self.filled.set()

    def take(self) -> Sequence[Verdict | Rejected | Finding]:
        """Everything that waits in the outbox, which is empty then."""
        batch, self.outbox = self.outbox, []
        self.filled = trio.Event()
        self._pages = 0
        self._taken.set()
        self._taken = trio.Event()
        return batch

    def remark(self, kind: str, text: str) -> None:
        """Count something odd; a warning once a minute and *kind*, in the log file always."""
        self.board.skipped[kind] += 1
        moment = trio.current_time()
        loud = moment >= self._loud_again.get(kind, float("-inf"))
        if loud:
            self._loud_again[kind] = moment + LOUD_EVERY
        log.log(logging.WARNING if loud else logging.INFO, "%s: %s: %s", self.board.name, kind, text)

    def _compare_clocks(self, lag: int) -> None:
        """Warn when even the quickest of sixty heartbeats is two seconds off: that is a clock, not a network."""
        self._lags.append(lag)
        if len(self._lags) < 60:
            return
        least = min(self._lags)
        self._lags.clear()
        off = abs(least) > CLOCK_TOLERANCE * max(1.0, self.speed)
        if off and not self._clock_warned:
            log.warning("%s: our clock differs from the venue's by %+.1f s", self.board.name, least / 1000)
        self._clock_warned = off

    # --- the passing of time, and of connections

    def settle(self, now: Millis) -> None:
        """Give minutes that have waited too long their verdict of "unsure"."""
        for assembler in self.assemblers.values():
            outcomes = assembler.due(now)
            if outcomes:
                self.put(outcomes)

    def settle_all(self, now: Millis) -> None:
        """At the end: a verdict for every minute that is over."""
        over = Millis(now - now % MINUTE)
        for assembler in self.assemblers.values():
            self.put(assembler.give_up(over))

    def connected(self, connection: Connection, now: Millis) -> None:
        """See :class:`~trio_candles.collector.subscriptions.Listener`, as for the methods below."""
        self.board.connections_up += 1
        if self.board.connected and self.board.up_since is None:
            self.board.up_since = now

    def disconnected(self, connection: Connection, now: Millis) -> None:
        self.board.connections_up -= 1
        for symbol in connection.symbols:
            self.assemblers[symbol].disconnected(now)
        self.doubted(connection.symbols, None)

    def became(self, symbol: str, state: State, text: str, now: Millis) -> None:
        assembler = self.assemblers[symbol]
        if state is State.SUBSCRIBED:
            assembler.connected(now)
        else:
            assembler.refused(text)
        if state is State.SILENT:
            assembler.disconnected(now)

    def doubted(self, symbols: Iterable[str], text: str | None) -> None:
        for symbol in symbols:
            self.assemblers[symbol].doubted(text)

    def announced(self, text: str) -> None:
        pass  # it is in the log

    def skipped(self, reason: str) -> None:
        self.board.skipped[reason] += 1


def open_venue_state(
    board: VenueBoard, proof: Proof, owed: dict[Series, tuple[Millis, Millis]], speed: float = 1.0
) -> VenueState:
    """A state whose assemblers expect each series since its first minute, and owe verdicts from its mark on: *owed*
    gives both, for each series, in Unix ms. *speed* is service seconds per wall second.
    """
    assemblers = {series.symbol: assembler_for(proof, series, mark, first) for series, (first, mark) in owed.items()}
    return VenueState(board, assemblers, speed)


def collapsed(
    outcomes: Iterable[Verdict | Rejected | Finding], *, any_reason: bool = False
) -> Iterable[Unsure | Finding]:
    """The minutes of *outcomes* as gaps, neighbours joined where they have the same reason, or where *any_reason* all
    do: ``overflow``. Rejections are dropped, for they stored nothing. Of an answer of REST nothing is left but that
    there was one: REST can be asked again.
    """
    spans: dict[Series, list[Unsure]] = {}
    for outcome in outcomes:
        if isinstance(outcome, Rejected):
            continue
        if isinstance(outcome, (Attempt, Page)):
            yield (
                outcome if isinstance(outcome, Attempt) else attrs.evolve(outcome, candles=(), empties=(), listed=None)
            )
            continue
        reason, detail = Reason.OVERFLOW, ""
        if isinstance(outcome, Candle):
            since, until = outcome.open_time, outcome.close_time
        else:
            since, until = outcome.since, outcome.until
            if isinstance(outcome, Unsure) and not any_reason:
                reason, detail = outcome.reason, outcome.detail
        known = spans.setdefault(outcome.series, [])
        last = known[-1] if known else None
        if last is not None and since <= last.until:
            if until > last.until:
                if (last.reason, last.detail) == (reason, detail):
                    known[-1] = attrs.evolve(last, until=until)
                else:
                    known.append(Unsure(outcome.series, last.until, until, reason, detail))
        else:
            known.append(Unsure(outcome.series, since, until, reason, detail))
    for known in spans.values():
        yield from known
