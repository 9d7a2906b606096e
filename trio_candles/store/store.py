"""The store: journal and day files as one. Blocking; the writer calls it in a thread.

How a flush is safe against crashes is in :mod:`trio_candles.store.flushing`, what is done about day files that are
not as they should be in :mod:`trio_candles.store.catalog`.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from trio_candles.candles.model import Candle, Finding, Millis, Series, Timeframe, Verdict
from trio_candles.store import dayfiles
from trio_candles.store.accounts import IN_FILE
from trio_candles.store.catalog import Catalog
from trio_candles.store.dayfiles import DayFile, DayFileBroken
from trio_candles.store.disk import LOCAL_DISK, Disk, is_closed
from trio_candles.store.flushing import FILES_AT_ONCE, Flushed, Flusher
from trio_candles.store.journal import Journal, Judged, OtherFormat, is_temporary
from trio_candles.store.lock import hold_lock
from trio_candles.store.opening import GoOn, is_damage
from trio_candles.store.rebuild import fill_if_lost, open_journal
from trio_candles.store.schema import IDENTITY, JOURNAL, LOCK, TIMEFRAMES, TMP, WAITS, identity_content, identity_in
from trio_candles.store.sealed import AccountBroken
from trio_candles.store.upgrade import seal_old_days

__all__ = ["FILES_AT_ONCE", "Flushed", "Store", "StoreUnavailable", "WrongDirectory", "open_store"]

log = logging.getLogger(__name__)

T = TypeVar("T")


class StoreUnavailable(OSError):
    """The disk does not take what it is given; nothing was accepted, and asking again later may help."""

    def __init__(self, text: str, *, closed: bool = False) -> None:
        super().__init__(text)
        self.closed = closed
        """Whether it is merely closed to us (see :func:`~trio_candles.store.disk.is_closed`), and not full or ill."""


class WrongDirectory(Exception):
    """The directory belongs to another kind of run (simulated or real, another seed, another clock)."""


class Store:
    """An open data directory; made by :func:`open_store`."""

    def __init__(self, root: Path, journal: Journal, disk: Disk) -> None:
        self._root = root
        self.journal = journal
        self._disk = disk
        self._catalog = Catalog(root, journal, disk)
        self._flusher = Flusher(root, journal, disk, self._catalog)
        self.working = threading.RLock()
        """Held by the thread that is at work in the store."""

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Around direct calls of the journal: errors of its disk become :class:`StoreUnavailable`. The next start
        is told of damage, which ends the service.
        """
        with self.working, _system_errors(self._root):
            try:
                yield
            except sqlite3.DatabaseError as error:
                if is_damage(error):
                    self.journal.suspect()
                raise

    def ask(self, work: Callable[..., T], *args: Any) -> T:  # noqa: ANN401
        """``work(*args)``, a method of the journal, :meth:`guarded`, as one call that can be handed to a thread."""
        with self.guarded():
            return work(*args)

    # --- what the directory is

    def claim(self, kind: str, **identity: object) -> None:
        """Record the directory's *kind* and *identity*, and that no mark moves before a venue has been heard;
        :class:`WrongDirectory` if it is of another kind.
        """
        with self.guarded():
            content = self._identity()
            found = self.journal.meta().get("kind") or self._kind_in(content)
            if found is not None and found != kind:
                raise WrongDirectory(f"{self._root} holds {found} candles; this run would write {kind} ones")
            identified = identity_content(kind, identity.get("seed"), identity.get("speed"), identity.get("pivot"))
            if content != identified:
                self._write_identity(identified)
            self.journal.remember(kind=kind, stopped_at_ms=None, **{WAITS: "no venue has been heard"}, **identity)

    def _identity(self) -> bytes | None:
        try:
            return self._catalog.content(IDENTITY)
        except DayFileBroken as broken:
            log.error("%s; moved to %s", broken, dayfiles.set_aside(self._disk, self._root, IDENTITY))
            return None

    def _kind_in(self, content: bytes | None) -> str | None:
        """The kind that ``identity.json`` names, for when the journal has lost it."""
        if content is None:
            return None
        try:
            return identity_in(content)["kind"]
        except ValueError as error:
            log.error("%s says nothing (%s); what this directory held, nobody knows", self._root / IDENTITY, error)
            return None

    def _write_identity(self, content: bytes) -> None:
        """Make *content* the content of ``identity.json``, durably: the file is read if the journal is lost."""
        temporary = self._root / TMP / IDENTITY
        dayfiles.write_temporary(self._disk, temporary, content)
        try:
            self._disk.replace(temporary, self._root / IDENTITY)
            self._disk.sync_folder(self._root)
        except OSError:
            self._disk.remove(temporary)
            raise

    # --- verdicts

    def expect(self, series: Sequence[Series], earliest: Millis, now: Millis) -> dict[Series, tuple[Millis, Millis]]:
        """Expect *series* from now on; the first minute of each, and its mark: where its next verdict begins."""
        with self.guarded():
            self._sound(lambda: self.journal.expect(series, earliest, now))
            spans = self.journal.spans()
            return {one: spans[one] for one in series}

    def commit(
        self, verdicts: Sequence[Verdict | Finding], now: Millis, rejected: Mapping[tuple[str, str], int] | None = None
    ) -> Judged:
        """Make *verdicts* durable, and count what was *rejected* before; both, or :class:`StoreUnavailable`."""
        with self.guarded():
            return self._sound(lambda: self.journal.commit(verdicts, now, rejected))

    def _sound(self, work: Callable[[], T]) -> T:
        """*work*, done again once a day file that it met and could not believe was given up, and the row of a sealed
        day restored: judged again, verdicts find the file's minutes to be gaps.
        """
        while True:
            try:
                return work()
            except DayFileBroken as broken:
                self._catalog.give_up(broken)
            except AccountBroken as damaged:
                self._catalog.restore(damaged)

    def stopped(self, now: Millis) -> None:
        """Note when the collector stopped, in good order."""
        with self.guarded():
            self.journal.remember(stopped_at_ms=now, latest_ms=now)

    # --- day files

    def aggregate(self, timeframes: Sequence[str]) -> None:
        """Derive *timeframes* from now on. Days on disk that may be without one are :meth:`underived` from then on."""
        with self.guarded():
            before = self.journal.meta().get(TIMEFRAMES, "").split(",")
            gained = not set(timeframes) <= set(before)
            days = (
                [(file.series, file.day) for file in self._catalog.known().values() if file.is_base] if gained else []
            )
            self.journal.aggregate(timeframes, days)
            self._flusher.timeframes = [Timeframe.parse(name) for name in timeframes]

    def waiting(self) -> list[DayFile]:
        """The days that a flush has something to do for: :meth:`unsaved` ones, and then the :meth:`underived`."""
        return [*self.unsaved(), *self.underived()]

    def unsaved(self, count: int | None = None) -> list[DayFile]:
        """The day files for which candles wait in the journal, those that have waited longest first; at most *count*,
        which is cheap however many wait.
        """
        with self.guarded():
            return [DayFile(series, day) for series, day in self.journal.waiting_days(count)]

    def underived(self) -> list[DayFile]:
        """The other days whose aggregates are behind their minutes, as these files of minutes; the newest first."""
        with self.guarded():
            return [DayFile(series, day) for series, day in self.journal.underived_days()]

    def flush(self, files: Sequence[DayFile]) -> Flushed:
        """Bring these days' files up to date: first the candles that wait, then what is derived from them.

        Ends after the day with which it has written :data:`FILES_AT_ONCE` files, and after as many days at most; the
        days that are left are in ``Flushed.rest``.
        """
        return self._flushed(files, partial(self._flusher.flush, files))

    def sealable(self, now: Millis, count: int = FILES_AT_ONCE) -> list[DayFile]:
        """Open days to be looked at now, at most *count*, as their files of minutes: see :meth:`seal`."""
        with self.guarded():
            return [DayFile(series, day) for series, day in self.journal.sealing.due(now, count)]

    def seal(self, files: Sequence[DayFile], now: Millis, *, filling: bool) -> Flushed:
        """Seal those of these days that can be sealed (:mod:`.sealing`); the others are :meth:`sealable` again later.

        *filling* says whether gaps are filled over REST, which is what a day's candles are compared by.
        """
        return self._flushed(files, partial(self._flusher.seal, files, now, filling=filling))

    def unfinished(self, count: int = FILES_AT_ONCE) -> list[DayFile]:
        """Sealed days that lack a configured timeframe, or whose file does not carry their account; at most *count*."""
        wanted = [IN_FILE, *(one.name for one in self._flusher.timeframes)]
        with self.guarded():
            return [DayFile(series, day) for series, day in self.journal.sealed.lacking(wanted, count)]

    def finish(self, files: Sequence[DayFile]) -> Flushed:
        """Give these sealed days what they lack, without opening them."""
        return self._flushed(files, partial(self._flusher.finish, files))

    def _flushed(self, files: Sequence[DayFile], work: Callable[[Flushed], None]) -> Flushed:
        flushed = Flushed()
        try:
            with self.guarded():
                self._sound(lambda: work(flushed))
        except StoreUnavailable as error:
            flushed.note(str(error))
            done = {*flushed.held, *flushed.failed, *(file.path for file in flushed.rest)}
            flushed.failed += [file.path for file in files if file.path not in done]
        return flushed

    # --- sealed days

    def scrub(self, place: tuple[int, int], count: int) -> tuple[tuple[int, int] | None, int]:
        """Read the files of the next *count* sealed days after *place* again, which is (series id, day); those that are
        not what was sealed are given up. Returns the last day's place, or ``None`` at the end; and how many days.
        """
        with self.guarded():
            days = self.journal.sealed.after(place, count)
            for id_, day in days:
                self._sound(partial(self._catalog.scrub, self.journal.sealed.series(id_), day))
                place = id_, day
            return place if len(days) == count else None, len(days)

    def timeframes_in(self, series: Series) -> list[str]:
        """The names of the folders in which day files of *series* may lie."""
        with self.guarded():
            return self._catalog.timeframes_in(series)

    def set_strays_aside(self, series: Series, timeframe: str) -> None:
        """Move files among the day files of *series* in *timeframe* that the ledger does not know to quarantine. A
        start looks at open days only, and a flush at the files that it replaces.
        """
        with self.guarded():
            self._sound(partial(self._catalog.set_strays_aside, series, timeframe))

    # --- for whoever opens it

    def look_up(self, series: Series, minute: Millis) -> Candle | None:
        """The candle of *minute* in its day file; see :meth:`~trio_candles.store.catalog.Catalog.look_up`."""
        return self._catalog.look_up(series, minute)

    def recover(self, go_on: GoOn) -> None:
        """Finish what a crash left, and go on deriving what was derived before."""
        with self.guarded():
            fill_if_lost(self._root, self._disk, self.journal, go_on)
            self._sound(lambda: seal_old_days(self.journal, self._catalog.timeframes_in, go_on))
            self._flusher.older = self._catalog.recover(go_on)
            derived = self.journal.meta().get(TIMEFRAMES, "")
            self._flusher.timeframes = [Timeframe.parse(name) for name in derived.split(",") if name]


def _make_root(root: Path) -> None:
    """*root* and the folders above it, as durable as what will lie in them."""
    for folder in (*reversed(root.parents), root):
        if not folder.is_dir():
            try:
                LOCAL_DISK.make_folder(folder)
            except FileExistsError as error:
                raise WrongDirectory(f"{folder} is no directory; the data directory {root} was expected") from error
            LOCAL_DISK.sync_folder(folder.parent)


@contextmanager
def _system_errors(root: Path) -> Iterator[None]:
    """Errors of a full or failing disk become :class:`StoreUnavailable`, with *root* and the system's own words."""
    try:
        yield
    except (OSError, sqlite3.OperationalError) as error:
        if isinstance(error, OSError) or is_temporary(error):
            closed = is_closed(error) if isinstance(error, OSError) else _is_closed_journal(root / JOURNAL, error)
            raise StoreUnavailable(f"{root}: {type(error).__name__}: {error}", closed=closed) from error
        raise


def _is_closed_journal(path: Path, error: sqlite3.OperationalError) -> bool:
    code = error.sqlite_errorcode & 0xFF
    if code == sqlite3.SQLITE_CANTOPEN:  # SQLite does not say why
        return not os.access(path if path.exists() else path.parent, os.R_OK | os.W_OK)
    return code in (sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY)


@contextmanager
def open_store(root: Path, disk: Disk = LOCAL_DISK, go_on: GoOn = lambda *_: None) -> Iterator[Store]:
    """The data directory *root*, locked, recovered and ready; left in one piece at the end of the block.

    *go_on* is called once the directory is ours, while a reader is waited for, and at every step of what may take long;
    an error that it raises ends the opening and passes through, with the directory in one piece as well.

    Raises :class:`~trio_candles.store.lock.Locked` if another collector has it, :class:`WrongDirectory` if
    another version of this program made it or *root* is no directory, and :class:`StoreUnavailable` if the disk
    does not let it be read.
    """
    with ExitStack() as stack:
        with _system_errors(root):
            _make_root(root)
            stack.enter_context(hold_lock(root / LOCK))
            go_on()
        # The journal looks minutes up in the day files, through the store, which is made after it and has it.
        elsewhere: list[Callable[[Series, Millis], Candle | None]] = []
        with _system_errors(root):
            disk.make_folder(root / TMP)
            try:
                journal = open_journal(root, lambda series, minute: elsewhere[0](series, minute), go_on)
            except OtherFormat as error:
                raise WrongDirectory(f"{root}: {error}") from error
        store = Store(root, journal, disk)
        elsewhere.append(store.look_up)
        try:
            store.recover(go_on)
            yield store
        finally:
            if store.working.acquire(blocking=False):
                _put_to_rest(journal)
                store.working.release()
            else:
                # Nobody waits for a thread that hangs in the disk. But it may wake and write: until then the directory
                # is held, for as long as this process lives.
                log.error("%s is still being written to; it is held until that has ended", root)
                later = (store, journal, stack.pop_all())
                threading.Thread(target=_put_to_rest_later, args=later, name="store", daemon=True).start()


def _put_to_rest(journal: Journal) -> None:
    try:
        journal.close()
    except sqlite3.Error as error:
        # What was committed is in the write-ahead log; the next start, or a reader, finds it there.
        log.warning("the journal could not be put to rest (is a reader at work?): %s", error)
        journal.abandon()


def _put_to_rest_later(store: Store, journal: Journal, held: ExitStack) -> None:
    with held, store.working:
        _put_to_rest(journal)
