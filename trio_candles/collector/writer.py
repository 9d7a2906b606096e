"""The one task that writes: verdicts come in, and count only once they are durable.

::

    channel ──► in hand ──commit──► journal: durable ──flush──► day files
                 ▲    │                │
                 └────┘ a disk that    └──► backlogs (:meth:`_Writer.look`): what REST is to be asked next
                        takes nothing

Invariant: what the writer took from the channel is in hand (:class:`Writing`) or durable. While the disk takes
nothing, the batch in hand waits and is offered again; the channel fills, and behind the channel each feed's outbox,
which is bounded and turns verdicts beyond its bound into gaps.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TypeVar

import attrs
import trio

from trio_candles.assembly import Rejected
from trio_candles.candles.model import DAY, Attempt, Candle, Finding, Millis, Page, Source, Verdict
from trio_candles.candles.validation import Rule
from trio_candles.collector.backlog import Backlog
from trio_candles.collector.flushing import Flushing
from trio_candles.collector.status import Board
from trio_candles.collector.vouching import Vouching
from trio_candles.config.load import Feed
from trio_candles.network.pacing import wall_floor
from trio_candles.store.journal import Judged
from trio_candles.store.store import Store, StoreUnavailable
from trio_candles.threads import Offload

__all__ = ["Batch", "Writing", "write_verdicts"]

log = logging.getLogger(__name__)

T = TypeVar("T")
HOUR = 3_600_000
Batch = Sequence[Verdict | Rejected | Finding]
"""What a feed sends at once."""

COMMITTED_AT_ONCE = 5_000
"""Verdicts in one transaction, at most: those that waited for a full disk must not need much room or time at once."""

LOOK_SECONDS = 5.0
"""Between two looks at all open gaps, which the table shows and the gap-fillers close."""
RETRY_SECONDS = 1.0
"""Between two offers of the same batch to a disk that does not take it."""
REJECTIONS_KEPT = 10_000
"""REST candles of which it is remembered that their rejection was logged: when they come again they are no news."""


@attrs.define
class Writing:
    """What the writer has in hand, for the report of what was lost when time ran out."""

    pending: list[Verdict | Finding] = attrs.field(factory=list)
    """Taken from the channel, and not yet durable."""
    last_words: list[Batch] = attrs.field(factory=list)
    """What feeds still had when they were cancelled, which the writer takes after the channel's end. A list and no
    channel, because a feed that is leaving must not wait for a disk that takes nothing."""
    flush_until: float = float("inf")
    """Until when, on trio's clock, candles are brought into day files once the channel has ended. What is left then is
    durable in the journal, and a next start writes it."""
    finished: bool = False
    _turned: trio.Event = attrs.field(factory=trio.Event, init=False)

    def turned(self) -> None:
        """The writer has gone round: it has offered what was there to the disk, whether or not the disk took it."""
        self._turned.set()
        self._turned = trio.Event()

    async def wait_turned(self) -> None:
        """Wait until the writer has gone round once more; it does so every few seconds, also when nothing comes."""
        await self._turned.wait()


async def write_verdicts(
    batches: trio.MemoryReceiveChannel[Batch],
    store: Store,
    board: Board,
    time: Vouching,
    flush_seconds: float,
    last_seconds: float,
    offload: Offload,
    writing: Writing,
    backlogs: Mapping[str, Backlog],
    feed: Feed,
) -> None:
    """Make everything that comes durable, and write it into day files every *flush_seconds* and at the day's end, as
    far as their share goes (:mod:`.flushing`).

    Ends when every sender has gone and every candle is in parquet, or ``Writing.flush_until`` has come; aggregates have
    *last_seconds* more, at most. Both are service seconds. A disk that takes nothing raises nothing: it is tried again.
    """
    writer = _Writer(batches, store, board, time, offload, writing, backlogs, feed)
    flushing = Flushing(store, board, time, offload, flush_seconds, bool(backlogs), writer.commit_waiting)
    await writer.look()
    try:
        await _write(writer, flushing, flush_seconds)
        await _write_last(writer, flushing, last_seconds)
    finally:
        writer.take_waiting()
        writer.take_last_words()
    await writer.publish()  # what the tools show of us from now on is our final table
    time.now()
    try:
        if time.last is not None:
            await offload(store.stopped, time.last)
    except StoreUnavailable as error:
        log.error("everything is written, but not when we stopped: %s", error)
    writing.finished = True


async def _write(writer: _Writer, flushing: Flushing, flush_seconds: float) -> None:
    """Until the channel's end."""
    next_flush = trio.current_time() + flush_seconds
    day: int | None = None
    open_end = True
    while open_end:
        # Also when nothing comes: the tools take a collector that publishes nothing for one that hangs.
        with trio.move_on_at(min(next_flush, writer.look_due)):
            open_end = await writer.receive()
        await writer.commit()
        now = writer.time.trusted()
        ended = now is not None and day is not None and now // DAY != day
        if now is not None:
            day = now // DAY
        if trio.current_time() >= next_flush or ended:
            await flushing.round(writer.is_running)
            if now is not None:
                await writer.tidy(now, whole=ended)
            next_flush = max(next_flush + flush_seconds, trio.current_time())


async def _write_last(writer: _Writer, flushing: Flushing, last_seconds: float) -> None:
    """What is not durable yet comes first; then day files, as far as there is time; and what is left is said."""
    writer.take_last_words()
    writer.leaving = True
    await writer.commit()

    def is_time() -> bool:
        return trio.current_time() < writer.writing.flush_until

    while not await flushing.all_candles(is_time) and is_time():  # noqa: ASYNC110  (nothing tells us when a disk is free again)
        await trio.sleep(RETRY_SECONDS)
    until = trio.current_time() + last_seconds
    await flushing.all_aggregates(lambda: is_time() and trio.current_time() < until)
    await writer.say_what_waits()


@attrs.define
class _Writer:
    _batches: trio.MemoryReceiveChannel[Batch]
    _store: Store
    _board: Board
    time: Vouching
    _offload: Offload
    writing: Writing
    _backlogs: Mapping[str, Backlog]
    _feed: Feed
    _answers: list[Finding] = attrs.field(factory=list)
    """Answers that are committed, and whose series were not looked at since."""
    _rejected: Counter[tuple[str, str]] = attrs.field(factory=Counter)
    """Rejections by (venue, rule) that the ledger has not counted yet."""
    leaving: bool = False
    """Whether we are about to stop: then what was decided under a clock that was right does not wait for another."""
    look_due: float = float("-inf")
    _publish_due: float = float("-inf")
    _rejections: set[tuple[object, ...]] = attrs.field(factory=set)

    def is_running(self) -> bool:
        """Whether something may still come."""
        return self._batches.statistics().open_send_channels > 0

    async def receive(self) -> bool:
        """Wait for a batch and take all that are there; ``False`` at the channel's end."""
        try:
            self.take(await self._batches.receive())
        except trio.EndOfChannel:
            return False
        self.take_waiting()
        return True

    def take(self, batch: Batch) -> None:
        for outcome in batch:
            if isinstance(outcome, Rejected):
                self._reject(outcome.candle, outcome.rule)
                self._rejected[outcome.candle.series.venue, outcome.rule.value] += 1
            else:
                self.writing.pending.append(outcome)

    def take_waiting(self) -> None:
        """Take what has come meanwhile: one transaction costs the same for one verdict as for a thousand."""
        while True:
            try:
                self.take(self._batches.receive_nowait())
            except (trio.WouldBlock, trio.EndOfChannel):
                return

    def take_last_words(self) -> None:
        """Take what the feeds left behind."""
        while self.writing.last_words:
            self.take(self.writing.last_words.pop(0))

    async def commit_waiting(self) -> None:
        """Take what has come meanwhile, and make it durable."""
        self.take_waiting()
        await self.commit()

    async def commit(self) -> None:
        """Make what is in hand durable, however long the disk refuses it. While the clock is not vouched for, what was
        decided when it was waits.
        """
        while self.writing.pending or self._rejected:
            now = self.time.trusted() or (self.time.last if self.leaving else None)
            if now is None:
                break
            verdicts, rejected = self.writing.pending[:COMMITTED_AT_ONCE], Counter(self._rejected)
            try:
                judged = await self._offload(self._store.commit, verdicts, now, rejected)
            except StoreUnavailable as error:
                self._board.store_failed("journal", str(error), f"{len(self.writing.pending)} verdicts wait in memory")
                self.writing.turned()
                await trio.sleep(RETRY_SECONDS)
                continue
            del self.writing.pending[: len(verdicts)]
            self._answers += [one for one in verdicts if isinstance(one, (Attempt, Page))]
            self._rejected -= rejected
            self._board.store_works("journal")
            self._report(judged)
        if trio.current_time() >= self.look_due or self._answers:
            await self.look()
        self.writing.turned()

    async def look(self) -> None:
        """Refresh the backlogs: all of them when that is due, else for the series whose answers were committed."""
        whole, now = trio.current_time() >= self.look_due, self.time.trusted()
        if whole:
            self.look_due = trio.current_time() + LOOK_SECONDS
        answers, self._answers = self._answers, []
        try:
            minutes = await self._offload(self._store.ask, self._look_into, whole, answers, now)
        except StoreUnavailable as error:
            self._answers[:0] = answers
            self._board.store_failed("journal", str(error), "the gaps cannot be counted")
            return
        for name, backlog in self._backlogs.items():
            backlog.release([one for one in answers if one.series.venue == name])
        if whole and minutes is not None:
            for name, venue in self._board.venues.items():
                venue.open_gap_minutes = minutes[name]
        if whole and trio.current_time() >= self._publish_due:
            # An accelerated clock makes the disk no quicker.
            self._publish_due = trio.current_time() + wall_floor(LOOK_SECONDS - 0.1, self.time.speed)
            await self.publish()

    def _look_into(self, whole: bool, answers: Sequence[Finding], now: Millis | None) -> Counter[str] | None:
        """Refresh the backlogs; return the minutes in open gaps, by venue. Nothing, while the clock is not believed:
        what is due, only a right clock can tell.
        """
        if now is None:
            return None
        for name, backlog in self._backlogs.items():
            if whole:
                backlog.look(self._store.journal, now)
            elif about := [one for one in answers if one.series.venue == name]:
                backlog.look_again(self._store.journal, now, about)
        return self._store.journal.gaps.open_minutes(now)

    async def tidy(self, now: Millis, *, whole: bool) -> None:
        """Let go of old changes, and, if this is about the *whole* history, of what else is old; committing what comes
        in between. What a disk does not take now, it may the next time.
        """
        journal, before = self._store.journal, Millis(now - round(self._feed.retention_hours * HOUR))
        try:
            while await self._offload(self._store.ask, journal.forget_changes, before, int(self._feed.max_changes)):
                await self.commit_waiting()
            while whole and await self._offload(self._store.ask, journal.tidy, now):
                await self.commit_waiting()
        except StoreUnavailable as error:
            self._board.store_failed("journal", str(error), "old history is kept")

    async def publish(self) -> None:
        """Let the tools see what the table shows."""
        now = self.time.now()
        states = [
            (one.name, one.status(now), one.connected, one.received, one.saved, one.reconnects, one.rejections)
            for one in self._board.venues.values()
        ]
        try:
            publish = self._store.journal.publish
            waits = None if self.time.vouched else self.time.state
            delays = {one.name: one.delays for one in self._board.venues.values()}
            await self._offload(self._store.ask, publish, states, dict(self._board.store_errors), now, waits, delays)
        except StoreUnavailable as error:
            self._board.store_failed("journal", str(error), "the tools see an old state")
        else:
            self._board.store_works("journal")

    async def say_what_waits(self) -> None:
        """Say what is in the journal and not in day files, if anything is."""
        try:
            candles, files = await self._offload(self._store.ask, self._store.journal.waiting_count)
        except StoreUnavailable as error:
            log.error("what stays in the journal cannot be counted: %s", error)
            return
        if candles:
            log.warning("%d candles of %d day files stay in the journal; the next start writes them", candles, files)

    def _report(self, judged: Judged) -> None:
        for candle, rule in judged.rejected:
            self._reject(candle, rule)
        now = self.time.now()
        for candle in judged.closed:
            self._board.venues[candle.series.venue].delays.add(now - candle.close_time)
        for stored, offered in judged.conflicts:
            self._board.venues[offered.series.venue].revisions += 1
            log.warning("revision: stored %s, offered %s; the stored one stays", stored or "empty", offered)
        for stored, offered in judged.replaced:
            log.warning("replaced: stored %s, REST said twice %s", stored or "empty", offered)
        for text in judged.refused:
            log.warning("not believed: %s", text)
        for name, minutes in judged.filled.items():
            self._board.venues[name].backfill.add(minutes, now)
        for (name, outcome), count in judged.compared.items():
            self._board.venues[name].compared[outcome] += count

    def _reject(self, candle: Candle, rule: Rule) -> None:
        self._board.venues[candle.series.venue].rejected[rule.value] += 1
        level = logging.DEBUG if rule is Rule.DUPLICATE or self._knows(candle, rule) else logging.WARNING
        log.log(level, "rejected (%s): %s", rule.value, candle)

    def _knows(self, candle: Candle, rule: Rule) -> bool:
        """Whether REST gave the same *candle* before: it is asked again and again about a minute that stays a gap."""
        if candle.source is not Source.REST:
            return False
        if len(self._rejections) >= REJECTIONS_KEPT:
            self._rejections.clear()
        numbers = (candle.open, candle.high, candle.low, candle.close, candle.volume)
        rejection = (candle.series, candle.open_time, rule, *numbers)
        known = rejection in self._rejections
        self._rejections.add(rejection)
        return known
