"""The store: journal and day files as one. Blocking; the writer calls it in a thread.

What a flush does, in an order in which a crash between any two steps leaves something that the next start can
finish (``recover``): the day files are rebuilt in memory, written beside their place, synced and read back;
their digests are noted as pending in the journal; they replace the old ones, and the folders are synced; then
one transaction makes the digests current and lets go of the journal's rows. Until that transaction either
digest is valid, and rows that are in both places are equal.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import attrs
import pyarrow as pa

from trio_candles.model import DAY, Candle, Finding, Gap, Millis, Series, Verdict, floor_to
from trio_candles.store import dayfiles
from trio_candles.store.dayfiles import DayFile, DayFileBroken, day_file
from trio_candles.store.disk import LOCAL_DISK, Disk, is_held
from trio_candles.store.journal import Journal, Judged, OtherFormat, is_of_the_moment
from trio_candles.store.lock import hold_lock
from trio_candles.store.rebuild import open_journal
from trio_candles.store.revisions import Doubtful, Unconfirmed
from trio_candles.store.schema import IDENTITY, LOCK, TMP, digest_of, identity_content, identity_in

__all__ = ["Flushed", "Store", "StoreUnavailable", "WrongDirectory", "open_store"]

log = logging.getLogger(__name__)

FILES_AT_ONCE = 64
"""Day files per transaction: amortises its fsync, and bounds the memory of a flush."""


class StoreUnavailable(OSError):
    """The disk does not take what it is given; nothing was accepted, and asking again later may help."""


class WrongDirectory(Exception):
    """The directory belongs to another kind of run (simulated or real, another seed, another clock)."""


@attrs.define
class Flushed:
    """What a flush did."""

    saved: dict[str, int] = attrs.field(factory=dict)
    """Rows newly in day files, by venue."""
    error: str | None = None
    """The system's own text for what went wrong first; what is not in day files stays in the journal."""
    failed: list[str] = attrs.field(factory=list)
    """Day files that were not written because of an error; the others of the group were."""
    held: list[str] = attrs.field(factory=list)
    """Day files that another program holds open (Windows); tried again at the next flush."""

    def note(self, error: str) -> None:
        """Keep the first *error*."""
        self.error = self.error or error


@attrs.frozen
class _Replacement:
    file: DayFile
    temporary: Path
    digest: str
    minutes: list[Millis]


class Store:
    """An open data directory; made by :func:`open_store`."""

    def __init__(self, root: Path, journal: Journal, disk: Disk) -> None:
        self._root = root
        self._journal = journal
        self._disk = disk
        self._cached: tuple[str, str, dict[Millis, Candle]] | None = None

    # --- what the directory is

    def claim(self, kind: str, **identity: object) -> None:
        """Make the directory remember that it is *kind* and its clock; :class:`WrongDirectory` if it is not."""
        with _system_errors(self._root):
            content = self._content(IDENTITY)
            found = self._journal.meta().get("kind") or self._kind_in(content)
            if found is not None and found != kind:
                raise WrongDirectory(f"{self._root} holds {found} candles; this run would write {kind} ones")
            told = identity_content(kind, identity.get("seed"), identity.get("speed"), identity.get("pivot"))
            if content != told:
                self._write_identity(told)
            self._journal.remember(kind=kind, stopped_at_ms=None, **identity)

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
        """Make ``identity.json`` say *content*, durably, before the journal does: it is for when that is lost."""
        temporary = self._root / TMP / IDENTITY
        dayfiles.write_temporary(self._disk, temporary, content)
        try:
            self._disk.replace(temporary, self._root / IDENTITY)
            self._disk.sync_folder(self._root)
        except OSError:
            self._disk.remove(temporary)
            raise

    def meta(self) -> dict[str, str]:
        """What the directory remembers."""
        with _system_errors(self._root):
            return self._journal.meta()

    # --- verdicts

    def expect(self, series: Sequence[Series], earliest: Millis, now: Millis) -> dict[Series, tuple[Millis, Millis]]:
        """Expect *series* from now on; the first minute of each, and its mark: where its next verdict begins."""
        with _system_errors(self._root):
            self._journal.expect(series, earliest, now)
            spans = self._journal.spans()
            return {one: spans[one] for one in series}

    def commit(
        self, verdicts: Sequence[Verdict | Finding], now: Millis, rejected: Mapping[tuple[str, str], int] | None = None
    ) -> Judged:
        """Make *verdicts* durable, and counted what was *rejected* before; else :class:`StoreUnavailable`."""
        with _system_errors(self._root):
            while True:
                try:
                    return self._journal.commit(verdicts, now, rejected)
                except DayFileBroken as broken:
                    # Found when a minute was looked up; the verdicts meet its minutes as gaps.
                    self._give_up(broken)

    def open_gap_minutes(self) -> dict[str, int]:
        """Minutes in open gaps, by venue."""
        with _system_errors(self._root):
            return dict(self._journal.open_gap_minutes())

    def open_gaps(self, venues: Sequence[str], limit: int) -> dict[str, list[Gap]]:
        """The newest *limit* open gaps of each of *venues*."""
        with _system_errors(self._root):
            return {venue: self._journal.open_gaps(venue, limit) for venue in venues}

    def to_compare(self, venues: Sequence[str], limit: int) -> dict[str, tuple[list[Doubtful], list[Unconfirmed]]]:
        """What of each of *venues* REST should be asked about although it is stored, at most *limit* of each kind."""
        with _system_errors(self._root):
            return {
                venue: (self._journal.doubtful(venue, limit), self._journal.unconfirmed(venue, limit))
                for venue in venues
            }

    def publish(self, states: Iterable[Sequence[object]], errors: Mapping[str, str], now: Millis) -> None:
        """Let the tools see the collector's table; see :meth:`~trio_candles.store.journal.Journal.publish`."""
        with _system_errors(self._root):
            self._journal.publish(states, errors, now)

    def stopped(self, now: Millis) -> None:
        """Note when the collector stopped, in good order."""
        with _system_errors(self._root):
            self._journal.remember(stopped_at_ms=now, latest_ms=now)

    # --- day files

    def waiting(self) -> list[DayFile]:
        """The day files for which candles wait in the journal."""
        with _system_errors(self._root):
            return [DayFile(series, day) for series, day in self._journal.waiting_days()]

    def flush(self, files: Sequence[DayFile]) -> Flushed:
        """Write the candles that wait for *files*, at most :data:`FILES_AT_ONCE` of them, into them."""
        flushed = Flushed()
        try:
            with _system_errors(self._root):
                self._flush_some(files, flushed)
        except StoreUnavailable as error:
            flushed.note(str(error))
            done = {*flushed.held, *flushed.failed}
            flushed.failed += [file.path for file in files if file.path not in done]
        return flushed

    def _flush_some(self, files: Sequence[DayFile], flushed: Flushed) -> None:
        """A file that cannot be written stands back, and the others go on; the journal's errors end it for all."""
        prepared: list[_Replacement] = []
        moved: dict[Path, list[_Replacement]] = {}
        durable: list[_Replacement] = []
        try:
            for file in files:
                with _each_for_itself([file], flushed):
                    prepared += self._prepare(file, flushed)
            self._journal.replacing({one.file.path: one.digest for one in prepared})
            for one in prepared:
                target = self._root / one.file.path
                with _each_for_itself([one.file], flushed):
                    self._disk.replace(one.temporary, target)
                    moved.setdefault(target.parent, []).append(one)
            for folder, some in sorted(moved.items()):
                with _each_for_itself([one.file for one in some], flushed):
                    self._disk.sync_folder(folder)
                    durable += some
            self._replaced(durable, flushed)
        finally:
            for one in prepared:
                with _each_for_itself([], flushed):
                    self._disk.remove(one.temporary)

    def _replaced(self, done: Sequence[_Replacement], flushed: Flushed) -> None:
        saved = self._journal.replaced((one.file.path, one.digest, one.file.series, one.minutes) for one in done)
        for venue, rows in saved.items():
            flushed.saved[venue] = flushed.saved.get(venue, 0) + rows

    def _prepare(self, file: DayFile, flushed: Flushed) -> list[_Replacement]:
        """The day file as it should be, durable beside its place; nothing if nothing waits for it."""
        if self._journal.digest(file.path)[1] is not None:
            # The last flush failed half way. The ledger knows two digests, so that one is settled first.
            self._settle(file, flushed)
        old = self._old(file)
        candles = self._journal.waiting(file.series, file.day)
        if not candles:
            return []
        table = dayfiles.merged(old, candles, self._journal.replaced_minutes(file.series, file.day))
        content = dayfiles.encode(table)
        if not dayfiles.read(content, file).equals(table):
            raise DayFileBroken(file.path, "encoded, it does not read back as what it was")
        folder, _, name = file.path.rpartition("/")
        if old is None:
            dayfiles.make_folder(self._disk, self._root, folder)
        temporary = self._root / TMP / f"{folder.replace('/', '_')}_{name}"
        self._disk.remove(temporary)  # if the last flush could not
        dayfiles.write_temporary(self._disk, temporary, content)
        return [_Replacement(file, temporary, digest_of(content), [candle.open_time for candle in candles])]

    def _old(self, file: DayFile) -> pa.Table | None:
        """The day file's rows; ``None`` if there is none, or if it could not be believed and was given up."""
        try:
            return self._read(file)
        except DayFileBroken as broken:
            self._give_up(broken)
            return None

    def _read(self, file: DayFile) -> pa.Table | None:
        """The day file's rows; ``None`` if there is none, :class:`DayFileBroken` if it is not the ledger's."""
        known = self._journal.digest(file.path)
        content = self._content(file.path)
        if content is None:
            if known[0] is not None:
                raise DayFileBroken(file.path, "the file is missing")
            return None
        if digest_of(content) not in known:
            raise DayFileBroken(file.path, "its digest is not the ledger's")
        return dayfiles.read(content, file)

    def _content(self, path: str) -> bytes | None:
        """What is at *path* below the root; ``None`` if there is no such file, or a file where its folder belongs."""
        try:
            return self._disk.read(self._root / path)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _give_up(self, broken: DayFileBroken) -> None:
        """Move a day file that cannot be believed to quarantine, if it is there, and make gaps of its minutes."""
        file = _day_file(broken.path, self._folders())
        assert file is not None, broken.path
        self._cached = None
        fate = "nothing is left to set aside"
        if self._content(file.path) is not None:
            fate = f"moved to {dayfiles.set_aside(self._disk, self._root, file.path)}"
        mark = self._journal.spans()[file.series][1]
        lost = self._journal.lose(file.path, file.series, file.day, mark, str(broken))
        log.error("%s; %s; %d minutes are gaps now (reason: corrupt)", broken, fate, lost)

    def _folders(self) -> dict[str, Series]:
        return {series.folder: series for series in self._journal.spans()}

    def look_up(self, series: Series, minute: Millis) -> Candle | None:
        """The candle of *minute* in its day file; the last file read is kept, duplicates come in rows.

        :class:`~trio_candles.store.dayfiles.DayFileBroken` if it is not the ledger's.
        """
        file = DayFile(series, floor_to(minute, DAY))
        digest = self._journal.digest(file.path)[0]
        if digest is None:
            return None
        if self._cached is None or self._cached[:2] != (file.path, digest):
            table = self._read(file)
            rows = {} if table is None else {c.open_time: c for c in dayfiles.candles_in(table, series)}
            self._cached = (file.path, digest, rows)
        return self._cached[2].get(minute)

    # --- after a crash

    def recover(self) -> None:
        """Finish what a crash left: replacements under way, temporary files, day files that changed since."""
        for name in self._disk.names(self._root / TMP):
            self._disk.remove(self._root / TMP / name)
        folders = self._folders()
        registered = self._journal.digests()
        for path in registered:
            file = _day_file(path, folders)
            if file is not None:
                self._settle(file, Flushed())
        for folder, series in folders.items():
            for name in self._disk.names(self._root / folder):
                path = f"{folder}/{name}"
                if path not in registered and day_file(path, series) is not None:
                    self._give_up(DayFileBroken(path, "the ledger does not know it"))

    def _settle(self, file: DayFile, flushed: Flushed) -> None:
        """Finish the replacement of *file* if one was under way; give *file* up if it is not the ledger's."""
        digest, pending = self._journal.digest(file.path)
        content = self._content(file.path)
        actual = None if content is None else digest_of(content)
        if content is not None and pending is not None and actual == pending:
            target = self._root / file.path
            self._disk.sync_folder(target.parent)
            minutes = dayfiles.times_in(dayfiles.read(content, file))
            self._replaced([_Replacement(file, target, pending, minutes)], flushed)
            log.warning("finished the replacement of %s, which had been interrupted", file.path)
        elif actual == digest:
            if pending is not None:
                self._journal.not_replaced(file.path)
        elif content is None:
            self._give_up(DayFileBroken(file.path, "the file is missing"))
        else:
            self._give_up(DayFileBroken(file.path, "its digest is not the ledger's"))


def _day_file(path: str, folders: Mapping[str, Series]) -> DayFile | None:
    series = folders.get(path.rpartition("/")[0])
    return None if series is None else day_file(path, series)


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
def _each_for_itself(files: Sequence[DayFile], flushed: Flushed) -> Iterator[None]:
    """Leave *files* for a later flush if the disk refuses them, or if another program has one open (Windows)."""
    try:
        yield
    except OSError as error:
        paths = [file.path for file in files]
        if is_held(error):
            flushed.held += paths
        else:
            flushed.failed += paths
            flushed.note(f"{', '.join(paths) or TMP}: {type(error).__name__}: {error}")


@contextmanager
def _system_errors(root: Path) -> Iterator[None]:
    """Full disks and failing ones become :class:`StoreUnavailable`: where, and in the system's own words."""
    try:
        yield
    except (OSError, sqlite3.OperationalError) as error:
        if isinstance(error, OSError) or is_of_the_moment(error):
            raise StoreUnavailable(f"{root}: {type(error).__name__}: {error}") from error
        raise


@contextmanager
def open_store(root: Path, disk: Disk = LOCAL_DISK) -> Iterator[Store]:
    """The data directory *root*, locked, recovered and ready; left in one piece at the end of the block.

    Raises :class:`~trio_candles.store.lock.Locked` if another collector has it, :class:`WrongDirectory` if
    another version of this program made it or *root* is no directory, and :class:`StoreUnavailable` if the disk
    does not let it be read.
    """
    with ExitStack() as stack:
        with _system_errors(root):
            _make_root(root)
            stack.enter_context(hold_lock(root / LOCK))
        # The journal asks the day files, and the day files are the store's, which has the journal.
        elsewhere: list[Callable[[Series, Millis], Candle | None]] = []
        with _system_errors(root):
            disk.make_folder(root / TMP)
            try:
                journal = open_journal(root, disk, lambda series, minute: elsewhere[0](series, minute))
            except OtherFormat as error:
                raise WrongDirectory(f"{root}: {error}") from error
        store = Store(root, journal, disk)
        elsewhere.append(store.look_up)
        try:
            with _system_errors(root):
                store.recover()
            yield store
        finally:
            try:
                journal.close()
            except sqlite3.Error as error:
                # What was committed is in the write-ahead log; the next start, or a reader, finds it there.
                log.warning("the journal could not be put to rest (is a reader at work?): %s", error)
                journal.abandon()
