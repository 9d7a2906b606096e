"""Day files are brought up to date by share: a tenth of the time at most, however many series there are.

::

    a round, every flush_interval_seconds and at the day's end:

    candles that wait, the longest first ─┐
    aggregates that are behind            ├─ chunks of half a second ─► commits come in between
    days that can be sealed               │
    sealed days that lack something      ─┘

A round ends when nothing is left of what waited as it began, or when the share is used up; the rest stays where it is,
durable and readable, for the next round. With a few dozen series all is written each time.

The time that a chunk takes is measured on trio's clock, as is the time of which it is a share: so the share is one of
wall time, whatever the speed.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import attrs
import trio

from trio_candles.candles.model import Millis
from trio_candles.collector.status import Board
from trio_candles.collector.vouching import Vouching
from trio_candles.store.dayfiles import DayFile
from trio_candles.store.flushing import FILES_AT_ONCE, Flushed
from trio_candles.store.store import Store, StoreUnavailable
from trio_candles.threads import Offload

__all__ = ["Flushing"]

log = logging.getLogger(__name__)

SHARE = 0.1
"""Of one core, at most, on average."""
CHUNK_SECONDS = 0.5
"""Wall seconds between two commits while day files are written, about."""
EVERY_FOURTH = 4
"""Of the chunks of a round: it is for something else than candles, so that days are sealed though candles never end."""
LISTED = 256
"""Days that are looked up at once: a few chunks of them."""
HELD_LONG = 60_000
"""Ms after which a day file that another program holds open is worth a warning."""


@attrs.define
class _Work:
    """One kind of work, in one round."""

    part: str
    """The part of the store that does it, as people are told."""
    consequence: str
    """Of its failing."""
    find: Callable[[int], list[DayFile]]
    """At most so many days that need it (or all), in the order in which they are to be worked on."""
    do: Callable[[Sequence[DayFile]], Flushed]
    failing: set[str]
    """Days' files of minutes: not all of these days could be written when it was last their turn. They come after the
    others, so that nobody waits for a disk that does not take them.
    """
    files: list[DayFile] = attrs.field(factory=list)
    """Found, and next."""
    seen: set[DayFile] = attrs.field(factory=set)
    """Whose turn it was, or is: what comes for them now waits for the next round."""
    behind: set[str] = attrs.field(factory=set)
    """Days' files of minutes: not all of these days could be written."""
    error: str | None = None
    is_done: bool = False
    """Whether all has had its turn."""


@attrs.define
class Flushing:
    """What keeps the day files up to date; used by the writer alone."""

    _store: Store
    _board: Board
    _time: Vouching
    _offload: Offload
    _interval: float
    """Service seconds between two rounds."""
    _filling: bool
    """Whether gaps are filled over REST."""
    _commit: Callable[[], Awaitable[None]]
    """Makes durable what has come meanwhile; awaited after every chunk."""
    _earned_at: float = attrs.field(factory=trio.current_time)
    _credit: float = 0.0
    """Service seconds that may be spent; below zero after a chunk that took more than there was."""
    _chunks: int = 0
    _sizes: dict[str, int] = attrs.field(factory=dict)
    """How many days a chunk of each kind of work has."""
    _failing: dict[str, set[str]] = attrs.field(factory=dict)
    _held_since: dict[str, Millis] = attrs.field(factory=dict)

    async def round(self, running: Callable[[], bool]) -> None:
        """Work on whatever waits now, as far as the share goes, and while we are *running*: a stop cuts it short."""
        now = trio.current_time()
        # An idle hour is no leave for a busy minute.
        self._credit = min(self._credit + (now - self._earned_at) * SHARE, self._interval * SHARE)
        self._earned_at = now
        works = [self._candles(), self._aggregates(), *self._upkeep()]
        await self._run(works, lambda: self._credit > 0 and running())

    async def all_candles(self, goes_on: Callable[[], bool]) -> bool:
        """Bring candles into files while there is time (*goes_on*); returns whether all are in files."""
        return await self._run([self._candles()], goes_on)

    async def all_aggregates(self, goes_on: Callable[[], bool]) -> None:
        """Derive the aggregates that are behind while there is time (*goes_on*)."""
        await self._run([self._aggregates()], goes_on)

    # --- the kinds of work

    def _candles(self) -> _Work:
        return self._work("day files", "its rows stay in the journal", self._store.unsaved, self._store.flush)

    def _aggregates(self) -> _Work:
        find = self._store.underived
        return self._work("aggregates", "they stay behind their minutes", lambda count: find(), self._store.flush)

    def _upkeep(self) -> list[_Work]:
        works = []
        now = self._time.trusted()
        if now is not None:  # what is over, only a right clock can tell
            seal = partial(self._store.seal, now=now, filling=self._filling)
            works.append(self._work("sealing", "days stay open", partial(self._store.sealable, now), seal))
        lacks = "they lack aggregates or their account"
        return [*works, self._work("sealed days", lacks, self._store.unfinished, self._store.finish)]

    def _work(
        self,
        part: str,
        consequence: str,
        find: Callable[[int], list[DayFile]],
        do: Callable[[Sequence[DayFile]], Flushed],
    ) -> _Work:
        return _Work(part, consequence, find, do, self._failing.get(part, set()))

    # --- in chunks

    async def _run(self, works: Sequence[_Work], goes_on: Callable[[], bool]) -> bool:
        """Work while there is work and *goes_on*; returns whether nothing is left."""
        held: list[str] = []
        try:
            while goes_on() and (work := await self._next(works)) is not None:
                await self._chunk(work, held)
                await self._commit()
        except StoreUnavailable as error:
            self._board.store_failed("journal", str(error), "its rows stay in the journal")
            return False
        self._report(works, held)
        return all(work.is_done and not work.behind for work in works)

    async def _next(self, works: Sequence[_Work]) -> _Work | None:
        """The one of *works* whose turn it is."""
        first, *others = works
        in_turn = [*others, first] if self._chunks % EVERY_FOURTH == EVERY_FOURTH - 1 else works
        for work in in_turn:
            if not work.files and not work.is_done:
                found = await self._offload(work.find, LISTED + len(work.behind))
                work.files = [file for file in found if file not in work.seen]
                work.files.sort(key=lambda file, work=work: file.path in work.failing)  # type: ignore[misc]
                work.seen.update(work.files)
                work.is_done = not work.files
            if work.files:
                return work
        return None

    async def _chunk(self, work: _Work, held: list[str]) -> None:
        size, began = self._sizes.get(work.part, 1), trio.current_time()
        flushed = await self._offload(work.do, work.files[:size])
        took = trio.current_time() - began
        done = len(work.files[:size]) - len(flushed.rest)
        work.files[:size] = flushed.rest
        self._chunks += 1
        self._credit -= took
        fits = int(done * CHUNK_SECONDS * self._time.speed / took) if took > 0 else FILES_AT_ONCE
        self._sizes[work.part] = max(1, min(fits, 2 * size, FILES_AT_ONCE))
        for venue, rows in flushed.saved.items():
            if venue in self._board.venues:  # of a venue that is collected no more, rows are saved and not shown
                self._board.venues[venue].saved += rows
        held += flushed.held
        work.behind.update(map(_of_minutes, (*flushed.held, *flushed.failed)))
        work.error = work.error or flushed.error

    def _report(self, works: Sequence[_Work], held: Sequence[str]) -> None:
        for work in works:
            tried = {file.path for file in work.seen.difference(work.files)}
            self._failing[work.part] = work.behind if work.is_done else work.behind | (work.failing - tried)
            if work.error is not None:
                self._board.store_failed(work.part, work.error, work.consequence)
            elif not self._failing[work.part] and (tried or work.is_done):
                self._board.store_works(work.part)
        if any(work.seen for work in works):
            now = self._time.now()
            self._held_since = {path: self._held_since.get(path, now) for path in held}
            for path, since in self._held_since.items():
                if now - since >= HELD_LONG:
                    log.warning("%s is held open by another program; its rows wait in the journal", path)


def _of_minutes(path: str) -> str:
    """The path of the file of minutes of the day whose file is *path*."""
    folder, _, name = path.rpartition("/")
    return f"{folder.rpartition('/')[0]}/1m/{name}"
