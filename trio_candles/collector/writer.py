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
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

import attrs
import trio

from trio_candles.assembly import Rejected
from trio_candles.candles.model import DAY, Attempt, Candle, Finding, Millis, Page, Source, Verdict
from trio_candles.candles.validation import Rule
from trio_candles.collector.backlog import Backlog
from trio_candles.collector.status import Board
from trio_candles.collector.vouching import Vouching
from trio_candles.network.pacing import wall_floor
from trio_candles.store.dayfiles import DayFile
from trio_candles.store.flushing import Flushed
from trio_candles.store.journal import Judged
from trio_candles.store.store import FILES_AT_ONCE, Store, StoreUnavailable
from trio_candles.threads import Offload

__all__ = ["Batch", "Writing", "write_verdicts"]

log = logging.getLogger(__name__)

T = TypeVar("T")
Batch = Sequence[Verdict | Rejected | Finding]
"""What a feed sends at once."""

COMMITTED_AT_ONCE = 5_000
"""Verdicts in one transaction, at most: those that waited for a full disk must not need much room or time at once."""

LOOK_SECONDS = 5.0
"""Between two looks at all open gaps, which the table shows and the gap-fillers close."""
DERIVING = 0.5
"""The share of the time between two flushes for aggregates of days that are behind: a year of them takes minutes."""
DAYS_AT_ONCE = 16
"""Days whose aggregates are derived between two commits: each may have six files to read and to write."""
RETRY_SECONDS = 1.0
"""Between two offers of the same batch to a disk that does not take it."""
REJECTIONS_KEPT = 10_000
"""REST candles of which it is remembered that their rejection was logged: when they come again they are no news."""
HELD_LONG = 60_000
"""Ms after which a day file that another program holds open is worth a warning."""


@attrs.define
class Writing:
    """What the writer has in hand, for the report of what was lost when time ran out."""

    pending: list[Verdict | Finding] = attrs.field(factory=list)
    """Taken from the channel, and not yet durable."""
    last_words: list[Batch] = attrs.field(factory=list)
    """What feeds still had when they were cancelled, which the writer takes after the channel's end. A list and no
    channel, because a feed that is leaving must not wait for a disk that takes nothing."""
    unflushed: int = 0
    """How many day files of minutes lack rows that are in the journal: those are durable, and a next start writes
    them."""
    finished: bool = False


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
) -> None:
    """Make everything that comes durable, and write it into day files every *flush_seconds* and at the day's end.

    Ends when every sender has gone and every candle is in parquet; aggregates have *last_seconds* more, at most. Both
    are service seconds. A disk that takes nothing raises nothing: it is tried again.
    """
    writer = _Writer(store, board, time, offload, writing, backlogs)
    await writer.look()
    try:
        await _write(batches, writer, flush_seconds, last_seconds)
    finally:
        writer.take_waiting(batches)
        writer.take_last_words()
    await writer.publish()  # what the tools show of us from now on is our final table
    time.now()
    try:
        if time.last is not None:
            await offload(store.stopped, time.last)
    except StoreUnavailable as error:
        log.error("everything is written, but not when we stopped: %s", error)
    writing.finished = True


async def _write(
    batches: trio.MemoryReceiveChannel[Batch], writer: _Writer, flush_seconds: float, last_seconds: float
) -> None:
    next_flush = trio.current_time() + flush_seconds
    day: int | None = None
    open_end = True
    while open_end:
        # Also when nothing comes: the tools take a collector that publishes nothing for one that hangs.
        with trio.move_on_at(min(next_flush, writer.look_due)):
            open_end = await _receive(batches, writer)
        await writer.commit()
        now = writer.time.trusted()
        ended = now is not None and day is not None and now // DAY != day
        if now is not None:
            day = now // DAY
            if ended:
                await writer.tidy(now, batches)
        if trio.current_time() >= next_flush or ended:
            await writer.flush(batches, trio.current_time() + flush_seconds * DERIVING)
            next_flush = max(next_flush + flush_seconds, trio.current_time())
    writer.take_last_words()
    writer.leaving = True
    await writer.commit()
    until = trio.current_time() + last_seconds
    while not await writer.flush(batches, until):  # noqa: ASYNC110  (nothing tells us when a disk is free again)
        await trio.sleep(RETRY_SECONDS)


async def _receive(batches: trio.MemoryReceiveChannel[Batch], writer: _Writer) -> bool:
    """Wait for a batch and take all that are there; ``False`` at the channel's end."""
    try:
        writer.take(await batches.receive())
    except trio.EndOfChannel:
        return False
    writer.take_waiting(batches)
    return True


@attrs.define
class _Writer:
    _store: Store
    _board: Board
    time: Vouching
    _offload: Offload
    _writing: Writing
    _backlogs: Mapping[str, Backlog]
    _answers: list[Finding] = attrs.field(factory=list)
    """Answers that are committed, and whose series were not looked at since."""
    _rejected: Counter[tuple[str, str]] = attrs.field(factory=Counter)
    """Rejections by (venue, rule) that the ledger has not counted yet."""
    leaving: bool = False
    """Whether we are about to stop: then what was decided under a clock that was right does not wait for another."""
    look_due: float = float("-inf")
    _publish_due: float = float("-inf")
    _held_since: dict[str, Millis] = attrs.field(factory=dict)
    _rejections: set[tuple[object, ...]] = attrs.field(factory=set)

    def take(self, batch: Batch) -> None:
        for outcome in batch:
            if isinstance(outcome, Rejected):
                self._reject(outcome.candle, outcome.rule)
                self._rejected[outcome.candle.series.venue, outcome.rule.value] += 1
            else:
                self._writing.pending.append(outcome)

    def take_waiting(self, batches: trio.MemoryReceiveChannel[Batch]) -> None:
        """Take what has come meanwhile: one transaction costs the same for one verdict as for a thousand."""
        while True:
            try:
                self.take(batches.receive_nowait())
            except (trio.WouldBlock, trio.EndOfChannel):
                return

    def take_last_words(self) -> None:
        """Take what the feeds left behind."""
        while self._writing.last_words:
            self.take(self._writing.last_words.pop(0))

    async def commit(self) -> None:
        """Make what is in hand durable, however long the disk refuses it. While the clock is not vouched for, what was
        decided when it was waits.
        """
        while self._writing.pending or self._rejected:
            now = self.time.trusted() or (self.time.last if self.leaving else None)
            if now is None:
                break
            verdicts, rejected = self._writing.pending[:COMMITTED_AT_ONCE], Counter(self._rejected)
            try:
                judged = await self._offload(self._store.commit, verdicts, now, rejected)
            except StoreUnavailable as error:
                self._board.store_failed("journal", str(error), f"{len(self._writing.pending)} verdicts wait in memory")
                await trio.sleep(RETRY_SECONDS)
                continue
            del self._writing.pending[: len(verdicts)]
            self._answers += [one for one in verdicts if isinstance(one, (Attempt, Page))]
            self._rejected -= rejected
            self._board.store_works("journal")
            self._report(judged)
        if trio.current_time() >= self.look_due or self._answers:
            await self.look()

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

    async def tidy(self, now: Millis, batches: trio.MemoryReceiveChannel[Batch]) -> None:
        """Let go of what is old, committing what comes in between; what a disk does not take today, it may tomorrow."""
        try:
            while await self._offload(self._store.ask, self._store.journal.tidy, now):
                self.take_waiting(batches)
                await self.commit()
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
            await self._offload(self._store.ask, publish, states, dict(self._board.store_errors), now, waits)
        except StoreUnavailable as error:
            self._board.store_failed("journal", str(error), "the tools see an old state")
        else:
            self._board.store_works("journal")

    async def flush(self, batches: trio.MemoryReceiveChannel[Batch], until: float) -> bool:
        """Bring the day files up to date, committing what comes in between; returns whether every candle is in one.

        Aggregates that are behind for another reason than a candle are derived until *until*, on trio's clock; there
        may be a year of them, and those that are not reached wait for the next flush, or the next start.
        """
        held: list[str] = []
        try:
            files = await self._offload(self._store.unsaved)
            saved = await self._save(files, held, batches)
            await self._derive(await self._offload(self._store.underived), held, batches, until)
        except StoreUnavailable as error:
            self._board.store_failed("journal", str(error), "its rows stay in the journal")
            return False
        self._warn_of_held(held)
        return saved

    async def _save(self, files: Sequence[DayFile], held: list[str], batches: trio.MemoryReceiveChannel[Batch]) -> bool:
        """Bring candles into *files*; returns whether all are in them."""
        self._writing.unflushed = len(files)
        failed: str | None = None
        behind: set[str] = set()
        rest = list(files)
        while rest:
            flushed = await self._offload(self._store.flush, rest[:FILES_AT_ONCE])
            rest[:FILES_AT_ONCE] = flushed.rest
            self._count_saved(flushed)
            held += flushed.held
            behind.update(flushed.held, flushed.failed)
            failed = failed or flushed.error
            self.take_waiting(batches)
            await self.commit()
        if failed is not None:
            self._board.store_failed("day files", failed, "its rows stay in the journal")
        else:
            self._board.store_works("day files")
        self._writing.unflushed = len(behind.intersection(file.path for file in files))
        return not self._writing.unflushed

    async def _derive(
        self, files: Sequence[DayFile], held: list[str], batches: trio.MemoryReceiveChannel[Batch], until: float
    ) -> None:
        """Derive the aggregates of *files*' days; ends early when all senders have gone, which is the stop."""
        failed: str | None = None
        rest = list(files)
        running = batches.statistics().open_send_channels > 0
        while rest and trio.current_time() < until:
            flushed = await self._offload(self._store.flush, rest[:DAYS_AT_ONCE])
            rest[:DAYS_AT_ONCE] = flushed.rest
            self._count_saved(flushed)
            held += flushed.held
            failed = failed or flushed.error
            self.take_waiting(batches)
            await self.commit()
            if running and not batches.statistics().open_send_channels:
                break
        if rest:
            log.info("the aggregates of %d days are behind their minutes, and follow at the next flush", len(rest))
        if failed is not None:
            self._board.store_failed("aggregates", failed, "they stay behind their minutes")
        else:
            self._board.store_works("aggregates")

    def _count_saved(self, flushed: Flushed) -> None:
        for venue, rows in flushed.saved.items():
            if venue in self._board.venues:  # of a venue that is collected no more, rows are saved and not shown
                self._board.venues[venue].saved += rows

    def _report(self, judged: Judged) -> None:
        for candle, rule in judged.rejected:
            self._reject(candle, rule)
        for stored, offered in judged.conflicts:
            self._board.venues[offered.series.venue].revisions += 1
            log.warning("revision: stored %s, offered %s; the stored one stays", stored or "empty", offered)
        for stored, offered in judged.replaced:
            log.warning("replaced: stored %s, REST said twice %s", stored or "empty", offered)
        for text in judged.refused:
            log.warning("not believed: %s", text)
        for name, minutes in judged.filled.items():
            self._board.venues[name].backfill.add(minutes, self.time.now())
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

    def _warn_of_held(self, held: Iterable[str]) -> None:
        now = self.time.now()
        self._held_since = {path: self._held_since.get(path, now) for path in held}
        for path, since in self._held_since.items():
            if now - since >= HELD_LONG:
                log.warning("%s is held open by another program; its rows wait in the journal", path)
