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

Before the ledger has said what the assemblers owe (:meth:`VenueState.begin`), and while nobody vouches for the clock,
nothing is judged: what connections report is held in order, with trio's time of hearing, and judged once both is there,
each at the moment that the clock, right by then, gives it. What is held is bounded, too; beyond the bound the older
half goes, as if there had been no connection.

Where a gap gets its reason (:class:`~trio_candles.candles.model.Reason`): an assembler gives it while the collector
runs (``Assembler`` in :mod:`trio_candles.assembly.base`, and ``default_reason`` of its kinds); :func:`collapsed` says
``overflow``; the ledger gives the reasons of minutes that no assembler decided (:mod:`trio_candles.store.journal`), and
``rejected`` to a candle that it refuses (:mod:`trio_candles.store.verdicts`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence

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
    Trade,
    Unsure,
    Verdict,
    printable,
)
from trio_candles.candles.validation import Rule
from trio_candles.collector.status import UNCLEAR_AFTER, VenueBoard
from trio_candles.collector.subscriptions import Connection, State
from trio_candles.collector.vouching import Vouching
from trio_candles.venues.history import Heard
from trio_candles.venues.protocol import Event, Forming, Heartbeat, Proof, Row, Told, Traded, TradeSeen, Unread

__all__ = ["VenueState", "collapsed", "open_venue_state"]

log = logging.getLogger(__name__)

OUTBOX_LIMIT = 100_000
"""Verdicts that may wait for the disk, per venue: some 100 MB, a day and a half of fifty symbols.

Beyond it their minutes become gaps, which take next to no room and which REST can fill later."""

PAGES_LIMIT = 100
"""Answers of REST that may wait for the disk, per venue, of some 300 minutes each. They can be had again: beyond it
nothing is asked, else the same pages would pile up for as long as a disk takes nothing."""

HELD_LIMIT = 100_000
"""Events of a venue that may wait for the clock to be vouched for: some 50 MB. Beyond it the older half goes, which is
as if there had been no connection then."""
SAMPLE = 1_000
"""Ms between two events that are taken for evidence of a clock that is vouched for already."""
FORMING_LATE = 2_000
"""Ms after its end for which a minute's forming row may still come: rows are pushed at most once a second."""
CLOSED_LATE = 20_000
"""Ms after a minute's end within which its closed row is pushed; usually it takes one or two seconds."""
LOUD_EVERY = 60.0
"""Seconds between two warnings of the same kind about one venue; those between them go to the log file only."""

_Held = tuple[float, Callable[..., None], tuple[object, ...]]
"""When something happened, on trio's clock; what it does to the state; with which arguments but for the moment."""


@attrs.define
class VenueState:
    """The assemblers of one venue, and the outbox of their verdicts; the collector's
    :class:`~trio_candles.collector.subscriptions.Listener`.
    """

    board: VenueBoard
    assemblers: dict[str, Assembler]
    clock: Vouching
    """Judges nothing before it is vouched for."""
    begun: bool = False
    """Whether the assemblers know what they owe: see :meth:`begin`."""
    outbox: list[Verdict | Rejected | Finding] = attrs.field(factory=list)
    filled: trio.Event = attrs.field(factory=trio.Event)
    """Set while the outbox holds something."""
    _pages: int = 0
    """Answers of REST that :meth:`add` put into the outbox and nobody has taken."""
    _taken: trio.Event = attrs.field(factory=trio.Event)
    _beginning: trio.Event = attrs.field(factory=trio.Event)
    _loud_again: dict[str, float] = attrs.field(factory=dict)
    _held: list[_Held] = attrs.field(factory=list)
    """What came while the clock was not vouched for, oldest first."""
    _pushed: set[str] = attrs.field(factory=set)
    """Symbols of which a row has come since they were subscribed: the first may be an old one."""
    _next_sample: int = 0

    # --- what comes in, and goes out

    def heard(self, series: Series) -> Heard:
        """What the feed knows of *series*."""
        return self.assemblers[series.symbol].heard()

    def hear(self, event: Event, now: Millis) -> None:
        """Take *event* for evidence of the clock; pass an event about a symbol to its assembler, and put what follows
        into the outbox.
        """
        if isinstance(event, (Heartbeat, Told)) or now >= self._next_sample or not self.clock.vouched:
            self._compare_clocks(event, now)
        if not isinstance(event, (Traded, TradeSeen, Row, Forming, Heartbeat, Unread)):
            return
        if event.symbol not in self.assemblers:
            self.remark("unknown_symbol", repr(event.symbol[:40]))
            return
        if not isinstance(event, (Heartbeat, Unread)):
            self.board.last_data = now
        if self._judges(now):
            self._hear(event, now)
        elif not isinstance(event, Forming):  # no assembler needs those
            self._hold(VenueState._hear, event)

    def _hear(self, event: Traded | TradeSeen | Row | Forming | Heartbeat | Unread, now: Millis) -> None:
        if isinstance(event, Unread):
            self.assemblers[event.symbol].unread(event, now)
            return
        outcomes = self.assemblers[event.symbol].hear(event, now)
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

    async def room(self) -> Millis:
        """The service's time, once it can be believed and there is room for another answer of REST: whoever asks REST
        waits here first.
        """
        while True:
            if self._pages >= PAGES_LIMIT:
                await self._taken.wait()
            elif not self.begun:
                await self._beginning.wait()
            elif (now := self.clock.trusted()) is None:
                await self.clock.believed()
            else:
                return now

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

    def answered(self, series: Series, unclear: str | None) -> None:
        """Count an answer of REST about *series*: one that was understood, or (*unclear* says why) one that was not.

        The third of a run that is not understood is told, then the sixth, the twelfth and so on: waiting does not mend
        what a venue has changed. An unwell venue's refusal is neither kind: it passes.
        """
        count = self.board.answered(series.symbol, unclear is None)
        times, between = divmod(count, UNCLEAR_AFTER)
        if times and not between and not times & (times - 1):
            text = f"{count} answers about {series.symbol} in a row; the last one: {unclear}"
            self.remark("not_understood", printable(text))

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

    # --- the clock

    def _compare_clocks(self, event: Event, now: Millis) -> None:
        """Let *event*, heard at *now*, say how far the venue's clock is from ours."""
        self._next_sample = now + SAMPLE
        match event:
            case Heartbeat(time=time) | Told(time=time):
                self.clock.hear(self.board.name, time, 1, now)
            case Forming(symbol, time) if time is not None:
                within = MINUTE + FORMING_LATE if symbol in self._pushed else None
                self._pushed.add(symbol)
                self.clock.hear(self.board.name, time, within, now)
            case Row(symbol=symbol, close_time=time, closed=True):
                within = CLOSED_LATE if symbol in self._pushed else None
                self._pushed.add(symbol)
                self.clock.hear(self.board.name, time, within, now)
            case Traded(trade=Trade(time=time)) | TradeSeen(time=time):
                self.clock.hear(self.board.name, time, None, now)  # it may be a snapshot's

    def begin(self, owed: Mapping[Series, tuple[Millis, Millis]]) -> None:
        """Expect each series since its first minute, and owe verdicts from its mark on: *owed* gives both, for each
        series, in Unix ms. Until then what is heard is held.
        """
        for series, (first, mark) in owed.items():
            assembler = self.assemblers[series.symbol]
            assembler.earliest, assembler.frontier = first, mark
        self.begun = True
        self._beginning.set()
        self.board.waiting = not self.clock.vouched

    def _judges(self, now: Millis) -> bool:
        """Whether what is heard at *now*, the clock's last reading, can be judged; then what was held has been."""
        if not (self.begun and self.clock.vouched):
            self.board.waiting = True
            return False
        self.board.waiting = False
        if self._held:
            held, self._held = self._held, []
            moment = trio.current_time()
            for at, act, arguments in held:
                act(self, *arguments, Millis(now - round((moment - at) * 1000)))
        return True

    def _hold(self, act: Callable[..., None], *arguments: object) -> None:
        self._held.append((trio.current_time(), act, arguments))
        if len(self._held) > HELD_LIMIT:
            self._let_go()

    def _act(self, now: Millis, act: Callable[..., None], *arguments: object) -> None:
        """Do *act* at *now*, or once the clock is vouched for, at the moment that it then gives to now."""
        if self._judges(now):
            act(self, *arguments, now)
        else:
            self._hold(act, *arguments)

    def _let_go(self) -> None:
        """Drop the older half of what is held, as if there had been no connection: only how things stood with each
        symbol at its end is kept.
        """
        oldest, self._held = self._held[: HELD_LIMIT // 2], self._held[HELD_LIMIT // 2 :]
        cut, stood = self._held[0][0], dict[tuple[bool, object], _Held]()
        for _, act, arguments in oldest:
            if act is not VenueState._hear:
                stood[act is VenueState._doubted, arguments[0]] = (cut, act, arguments)
        began = [(oldest[0][0], VenueState._disconnected, (symbol,)) for symbol in self.assemblers]
        self._held[:0] = [*began, *stood.values()]
        dropped = sum(act is VenueState._hear for _, act, _ in oldest)
        log.warning(
            "%s: %d events that waited for the clock are dropped; their minutes are gaps", self.board.name, dropped
        )

    # --- the passing of time, and of connections

    def settle(self, now: Millis) -> None:
        """Give minutes that have waited too long their verdict of "unsure"."""
        if not self._judges(now):
            return
        for assembler in self.assemblers.values():
            outcomes = assembler.due(now)
            if outcomes:
                self.put(outcomes)

    def settle_all(self, now: Millis) -> None:
        """At the end: a verdict for every minute that is over; none under a clock that is not vouched for: then what is
        held goes.
        """
        if not self._judges(now):
            self._held.clear()
            return
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
            self._act(now, VenueState._disconnected, symbol)
        self.doubted(connection.symbols, None)

    def _disconnected(self, symbol: str, now: Millis) -> None:
        self.assemblers[symbol].disconnected(now)

    def became(self, symbol: str, state: State, text: str, now: Millis) -> None:
        if state is State.SUBSCRIBED:
            self._pushed.discard(symbol)
        self._act(now, VenueState._became, symbol, state, text)

    def _became(self, symbol: str, state: State, text: str, now: Millis) -> None:
        assembler = self.assemblers[symbol]
        if state is State.SUBSCRIBED:
            assembler.connected(now)
        else:
            assembler.refused(text)
        if state is State.SILENT:
            assembler.disconnected(now)

    def doubted(self, symbols: Iterable[str], text: str | None) -> None:
        now = self.clock.now()
        for symbol in symbols:
            self._act(now, VenueState._doubted, symbol, text)

    def _doubted(self, symbol: str, text: str | None, now: Millis) -> None:
        self.assemblers[symbol].doubted(text)

    def announced(self, text: str) -> None:
        pass  # it is in the log

    def skipped(self, reason: str) -> None:
        self.board.skipped[reason] += 1


def open_venue_state(board: VenueBoard, proof: Proof, series: Iterable[Series], clock: Vouching) -> VenueState:
    """A state with an assembler for each of *series*, which judges nothing before :meth:`VenueState.begin`."""
    return VenueState(board, {one.symbol: assembler_for(proof, one, Millis(0)) for one in series}, clock)


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
            if isinstance(outcome, Page):
                outcome = attrs.evolve(outcome, candles=(), empties=(), listed=None, first_row=None)
            yield outcome
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
