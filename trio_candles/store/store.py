"""The store: journal and day files as one. Blocking; the writer calls it in a thread.

What a flush does, in an order in which a crash between any two steps leaves something that the next start can
finish (``recover``): the day files are rebuilt in memory, written beside their place, synced and read back;
their digests are noted as pending in the journal; they replace the old ones, and the folders are synced; then
one transaction makes the digests current and lets go of the journal's rows. Until that transaction either
digest is valid, and rows that are in both places are equal.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import attrs
import pyarrow as pa

from trio_candles.model import DAY, Candle, Millis, Reason, Series, Verdict, floor_to
from trio_candles.store import dayfiles
from trio_candles.store.dayfiles import DayFile, DayFileBroken
from trio_candles.store.journal import Journal, Judged
from trio_candles.store.lock import hold_lock
from trio_candles.store.schema import JOURNAL, LOCK, QUARANTINE, TMP, digest_of

__all__ = ["Flushed", "Store", "StoreUnavailable", "WrongDirectory", "open_store"]

log = logging.getLogger(__name__)

FILES_AT_ONCE = 64
"""Day files per transaction: amortises its fsync, and bounds the memory of a flush."""


class StoreUnavailable(Exception):
    """The disk does not take what it is given; nothing was accepted, and asking again later may help."""


class WrongDirectory(Exception):
    """The directory belongs to another kind of run (simulated or real, another seed, another clock)."""


@attrs.define
class Flushed:
    """What a flush did."""

    saved: dict[str, int] = attrs.field(factory=dict)
    """Rows newly in day files, by venue."""
    error: str | None = None
    """The system's own text for what went wrong; what is not in day files stays in the journal."""
    held: list[str] = attrs.field(factory=list)
    """Day files that another program holds open (Windows); tried again at the next flush."""


@attrs.define
class _Replacement:
    file: DayFile
    temporary: Path
    digest: str
    minutes: list[Millis]
    fresh: int


class Store:
    """An open data directory; made by :func:`open_store`."""

    def __init__(self, root: Path, journal: Journal) -> None:
        self._root = root
        self._journal = journal
        self._cached: tuple[str, str, dict[Millis, Candle]] | None = None

    # --- what the directory is

    def claim(self, kind: str, **identity: object) -> None:
        """Make the directory remember that it is *kind* and its clock; :class:`WrongDirectory` if it is not."""
        found = self._journal.meta().get("kind")
        if found is not None and found != kind:
            raise WrongDirectory(f"{self._root} holds {found} candles; this run would write {kind} ones")
        self._journal.remember(kind=kind, stopped_at_ms=None, **identity)

    def meta(self) -> dict[str, str]:
        """What the directory remembers."""
        return self._journal.meta()

    # --- verdicts

    def expect(self, series: Sequence[Series], earliest: Millis, now: Millis) -> dict[Series, Millis]:
        """Expect *series* from now on; where each one's next first verdict must begin."""
        with _system_errors():
            self._journal.expect(series, earliest, now, Reason.COLLECTOR_DOWN)
            marks = self._journal.marks()
            return {one: marks[one] for one in series}

    def commit(self, verdicts: Sequence[Verdict], now: Millis) -> Judged:
        """Make *verdicts* durable; :class:`StoreUnavailable` if the disk does not take them."""
        with _system_errors():
            return self._journal.commit(verdicts, now)

    def open_gap_minutes(self) -> dict[str, int]:
        """Minutes in open gaps, by venue."""
        return dict(self._journal.open_gap_minutes())

    def stopped(self, now: Millis) -> None:
        """Note when the collector stopped, in good order."""
        with _system_errors():
            self._journal.remember(stopped_at_ms=now, latest_ms=now)

    # --- day files

    def waiting(self) -> list[DayFile]:
        """The day files for which candles wait in the journal."""
        return [DayFile(series, day) for series, day in self._journal.waiting_days()]

    def flush(self, files: Sequence[DayFile]) -> Flushed:
        """Write the candles that wait for *files*, at most :data:`FILES_AT_ONCE` of them, into them."""
        flushed = Flushed()
        try:
            with _system_errors():
                self._flush_some(files, flushed)
        except StoreUnavailable as error:
            flushed.error = str(error)
        return flushed

    def _flush_some(self, files: Sequence[DayFile], flushed: Flushed) -> None:
        replacements = [self._prepare(file) for file in files]
        self._journal.replacing({one.file.path: one.digest for one in replacements})
        done = []
        for one in replacements:
            target = self._root / one.file.path
            try:
                dayfiles.put_in_place(one.temporary, target)
            except PermissionError:  # Windows: somebody reads the old file; its rows wait in the journal
                one.temporary.unlink(missing_ok=True)
                flushed.held.append(one.file.path)
                continue
            done.append(one)
        for folder in {(self._root / one.file.path).parent for one in done}:
            dayfiles.sync_folder(folder)
        self._journal.replaced((one.file.path, one.digest, one.file.series, one.minutes) for one in done)
        for path in flushed.held:
            self._journal.not_replaced(path)
        for one in done:
            venue = one.file.series.venue
            flushed.saved[venue] = flushed.saved.get(venue, 0) + one.fresh

    def _prepare(self, file: DayFile) -> _Replacement:
        """The day file as it should be, durable beside its place."""
        candles = self._journal.waiting(file.series, file.day)
        table, fresh = dayfiles.merged(self._read(file), candles)
        content = dayfiles.encode(table)
        if not dayfiles.read(content.to_pybytes(), file).equals(table):
            raise DayFileBroken(f"{file.path}: encoded, it does not read back as what it was")
        folder, _, name = file.path.rpartition("/")
        dayfiles.make_folder(self._root, folder)
        temporary = self._root / TMP / f"{folder.replace('/', '_')}_{name}"
        temporary.unlink(missing_ok=True)
        dayfiles.write_temporary(temporary, content)
        return _Replacement(file, temporary, digest_of(content), [c.open_time for c in candles], fresh)

    def _read(self, file: DayFile) -> pa.Table | None:
        """The file's rows; ``None`` if there is none, or if it had to be moved to quarantine."""
        path = self._root / file.path
        known = self._journal.digest(file.path)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            if known != (None, None):
                self._lose(file, "the file is missing")
            return None
        try:
            if digest_of(content) not in known:
                raise DayFileBroken(f"{file.path}: its digest is not the ledger's")
            return dayfiles.read(content, file)
        except DayFileBroken as error:
            self._quarantine(file, str(error))
            return None

    def _quarantine(self, file: DayFile, why: str) -> None:
        """Move a day file that cannot be believed out of the way, and make gaps of its minutes."""
        quarantine = self._root / QUARANTINE
        quarantine.mkdir(exist_ok=True)
        name = file.path.replace("/", "_")
        target = next(path for n in range(10_000) if not (path := quarantine / f"{name}.{n}").exists())
        os.replace(self._root / file.path, target)
        log.error("%s; moved to %s", why, target)
        self._lose(file, why)

    def _lose(self, file: DayFile, why: str) -> None:
        self._cached = None
        marks = self._journal.marks()
        if file.series in marks:
            now = marks[file.series]
            lost = self._journal.lose(file.path, file.series, file.day, now, why)
            log.error("%s: %s; %d minutes are gaps now (reason: corrupt)", file.path, why, lost)

    def look_up(self, series: Series, minute: Millis) -> Candle | None:
        """The candle of *minute* in its day file; the last file read is kept, duplicates come in rows."""
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
        for leftover in (self._root / TMP).iterdir():
            leftover.unlink()
        for path, (digest, pending) in self._journal.digests().items():
            file = _day_file(path, self._journal.marks())
            if file is None:
                continue
            target = self._root / path
            actual = digest_of(target.read_bytes()) if target.is_file() else None
            if pending is not None and actual == pending:
                dayfiles.sync_folder(target.parent)
                table = dayfiles.read(target.read_bytes(), file)
                minutes = [candle.open_time for candle in dayfiles.candles_in(table, file.series)]
                self._journal.replaced([(path, pending, file.series, minutes)])
                log.warning("finished the replacement of %s that a crash had interrupted", path)
            elif actual == digest:
                self._journal.not_replaced(path)
            elif actual is None:
                self._lose(file, "the file is missing")
            else:
                self._quarantine(file, f"{path}: its digest is not the ledger's")


def _day_file(path: str, known: Iterable[Series]) -> DayFile | None:
    folder, _, name = path.rpartition("/")
    for series in known:
        if series.folder == folder:
            return DayFile(series, _day_of(name.removesuffix(".parquet")))
    return None


def _day_of(name: str) -> Millis:
    return Millis(int(datetime.fromisoformat(name).replace(tzinfo=UTC).timestamp()) * 1000)


@contextmanager
def _system_errors() -> Iterator[None]:
    """Full disks and failing ones become :class:`StoreUnavailable`, in the system's own words."""
    try:
        yield
    except (OSError, sqlite3.OperationalError) as error:
        raise StoreUnavailable(f"{type(error).__name__}: {error}") from error


@contextmanager
def open_store(root: Path) -> Iterator[Store]:
    """The data directory *root*, locked, recovered and ready; left in one piece at the end of the block.

    Raises :class:`~trio_candles.store.lock.Locked` if another collector has it.
    """
    root.mkdir(parents=True, exist_ok=True)
    with hold_lock(root / LOCK):
        (root / TMP).mkdir(exist_ok=True)
        # The journal asks the day files, and the day files are the store's, which has the journal.
        elsewhere: list[Callable[[Series, Millis], Candle | None]] = []
        journal = Journal.open(root / JOURNAL, lambda series, minute: elsewhere[0](series, minute))
        store = Store(root, journal)
        elsewhere.append(store.look_up)
        try:
            store.recover()
            yield store
        finally:
            try:
                journal.close()
            except sqlite3.Error as error:
                # What was committed is in the write-ahead log; the next start, or a reader, finds it there.
                log.error("the journal could not be put to rest: %s", error)
                journal.abandon()
