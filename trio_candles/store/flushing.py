"""A flush: the candles that wait for some days go into their day files, and aggregates follow from them.

What it does, in an order in which a crash between any two steps leaves something that the next start can finish
(``Catalog.recover``): the day files are rebuilt in memory, written beside their place, synced and read back; their
digests are noted as pending in the journal; they replace the old ones, and the folders are synced; then one
transaction makes the digests current and lets go of the journal's rows. Until that transaction either digest is
valid, and rows that are in both places are equal.

A day's aggregates are derived from its file of minutes in the same group, and are replaced in the same steps; a file
of aggregates without a row left is removed instead. A day whose files are not all durable stays noted as underived.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import attrs
import pyarrow as pa

from trio_candles.candles.model import Millis, Timeframe
from trio_candles.store import aggregates, dayfiles
from trio_candles.store.catalog import Catalog
from trio_candles.store.dayfiles import DayFile, DayFileBroken
from trio_candles.store.disk import REPLACING, Disk, FileHeld, held_if
from trio_candles.store.journal import Journal
from trio_candles.store.schema import ABSENT, TMP, digest_of

__all__ = ["FILES_AT_ONCE", "Flushed", "Flusher"]

FILES_AT_ONCE = 64
"""Day files per transaction, aggregates included: amortises its fsync, and bounds the memory of a flush and the time
for which it holds up commits."""


@attrs.define
class Flushed:
    """What a flush did."""

    saved: dict[str, int] = attrs.field(factory=dict)
    """Rows newly in the day files of minutes, by venue."""
    error: str | None = None
    """The system's own text of the first error; candles that are not in day files stay in the journal."""
    failed: list[str] = attrs.field(factory=list)
    """Day files that were not written because of an error; the others of the group were."""
    held: list[str] = attrs.field(factory=list)
    """Day files that another program holds open (Windows); tried again at the next flush."""
    rest: list[DayFile] = attrs.field(factory=list)
    """The days that were not reached, because those before them came to enough files."""

    def count(self, saved: Mapping[str, int]) -> None:
        """Add to what was saved."""
        for venue, rows in saved.items():
            self.saved[venue] = self.saved.get(venue, 0) + rows

    def note(self, error: str) -> None:
        """Keep the first *error*."""
        self.error = self.error or error


@attrs.frozen
class _Replacement:
    file: DayFile
    temporary: Path | None
    """``None``: the file goes, and *digest* is :data:`~trio_candles.store.schema.ABSENT`."""
    digest: str
    minutes: list[Millis]
    """The waiting minutes that the file takes in; none for a file of aggregates."""
    new: int = 0
    """How many of *minutes* are not in the file that is replaced."""


@attrs.define
class _Day:
    """One day of one series in a flush."""

    file: DayFile
    """The day's file of minutes."""
    replacements: list[_Replacement] = attrs.field(factory=list)
    derived: bool = False
    """Whether every aggregate that has to change is among the replacements."""


class Flusher:
    """Flushes of an open data directory."""

    def __init__(self, root: Path, journal: Journal, disk: Disk, catalog: Catalog) -> None:
        self._root = root
        self._journal = journal
        self._disk = disk
        self._catalog = catalog
        self.timeframes: list[Timeframe] = []
        """The timeframes that are configured to be derived."""
        self.older: set[Timeframe] = set()
        """Other timeframes of which there are day files: a file of theirs is kept up to date as long as it is there."""

    def flush(self, files: Sequence[DayFile], flushed: Flushed) -> None:
        """Bring the days of *files* up to date, and add to *flushed* what was done.

        A file that cannot be written is left for a later flush, and the others go on; the journal's errors are raised.
        """
        days: list[_Day] = []
        moved: dict[Path, list[_Replacement]] = {}
        durable: list[_Replacement] = []
        try:
            for number, file in enumerate(files):
                if number == FILES_AT_ONCE or sum(len(day.replacements) for day in days) >= FILES_AT_ONCE:
                    flushed.rest = list(files[number:])
                    break
                days.append(day := _Day(file))
                with _each_for_itself([file], flushed):
                    self._prepare(day, flushed)
            prepared = [one for day in days for one in day.replacements]
            self._journal.replacing(
                {one.file.path: one.digest for one in prepared},
                [(one.file.series, one.minutes[0], one.minutes[-1]) for one in prepared if one.minutes],
            )
            for one in prepared:
                target = self._root / one.file.path
                with _each_for_itself([one.file], flushed), held_if(REPLACING):
                    if one.temporary is None:
                        self._disk.remove(target)
                    else:
                        self._disk.replace(one.temporary, target)
                    moved.setdefault(target.parent, []).append(one)
            for folder, some in sorted(moved.items()):
                with _each_for_itself([one.file for one in some], flushed):
                    self._disk.sync_folder(folder)
                    durable += some
            self._journal.replaced(
                [(one.file.path, one.digest, one.file.series, one.minutes) for one in durable],
                [(day.file.series, day.file.day) for day in days if day.derived and _all_of(day, durable)],
            )
            for one in durable:
                if one.minutes:
                    flushed.count({one.file.series.venue: one.new})
        finally:
            for one in (one for day in days for one in day.replacements):
                with _each_for_itself([], flushed):
                    if one.temporary is not None:
                        self._disk.remove(one.temporary)

    def _prepare(self, day: _Day, flushed: Flushed) -> None:
        """Write, durably beside their places, those files of *day* that have to change."""
        file, table = day.file, None
        self._settle_first(file, flushed)
        candles = self._journal.waiting(file.series, file.day)
        minutes = [candle.open_time for candle in candles]
        if candles:
            old = self._catalog.believed(file)
            table = dayfiles.merged(old, candles, self._journal.replaced_minutes(file.series, file.day))
            new = table.num_rows - (0 if old is None else old.num_rows)
            day.replacements.append(attrs.evolve(self._beside(file, table, minutes, anew=old is None), new=new))
        day.derived = self._derive(day, table, minutes, flushed)

    def _beside(self, file: DayFile, table: pa.Table, minutes: list[Millis], *, anew: bool) -> _Replacement:
        """Write *table* durably beside the place of *file*; *anew*: there is no such file yet."""
        content = dayfiles.encode(table, file.series)
        if not dayfiles.read(content, file).equals(table):
            raise DayFileBroken(file.path, "encoded, it does not read back as what it was")
        folder, _, name = file.path.rpartition("/")
        if anew:
            dayfiles.make_folder(self._disk, self._root, folder)
        temporary = self._root / TMP / f"{folder.replace('/', '_')}_{name}"
        self._disk.remove(temporary)  # if the last flush could not
        dayfiles.write_temporary(self._disk, temporary, content)
        return _Replacement(file, temporary, digest_of(content), minutes)

    def _derive(self, day: _Day, table: pa.Table | None, waiting: Sequence[Millis], flushed: Flushed) -> bool:
        """Prepare the aggregates that follow from *day*'s minutes; ``False`` if one was left for a later flush.

        *table* are the minutes as they will be, with those that are *waiting*; ``None`` if they are as on disk.
        """
        file = day.file
        timeframes, whole = self._timeframes_of(file, flushed)
        ledger = self._journal.day_ledger(file.series, file.day)
        behind = aggregates.outdated(file, ledger, waiting, timeframes)
        if table is None and any(one.has_rows for one in behind):
            table = self._catalog.believed(file)
            # If the file was given up, its minutes are gaps now.
            ledger = self._journal.day_ledger(file.series, file.day)
            behind = aggregates.outdated(file, ledger, (), timeframes)
        minutes = aggregates.Minutes.of(dayfiles.table_of([]) if table is None else table, ledger)
        for one in behind:
            done = False
            with _each_for_itself([one.file], flushed):
                done = self._derive_one(day, one, minutes)
            whole = whole and done
        return whole

    def _timeframes_of(self, file: DayFile, flushed: Flushed) -> tuple[list[tuple[Timeframe, bool]], bool]:
        """The timeframes to derive of *file*'s day, each with whether it has a file; and whether these are all."""
        found, whole = [], True
        for timeframe in (*self.timeframes, *sorted(self.older - {*self.timeframes}, key=lambda one: one.length)):
            one, settled = file.of(timeframe.name), False
            with _each_for_itself([one], flushed):
                self._settle_first(one, flushed)
                settled = True
            if not settled:
                whole = False
                continue
            exists = self._journal.digest(one.path)[0] is not None
            if exists or timeframe in self.timeframes:
                found.append((timeframe, exists))
        return found, whole

    def _derive_one(self, day: _Day, one: aggregates.Outdated, minutes: aggregates.Minutes) -> bool:
        """Prepare one file of aggregates if it has to change; ``False`` if it was given up, and its day noted anew."""
        try:
            old = self._catalog.read(one.file)
        except DayFileBroken as broken:
            self._catalog.give_up(broken)
            return False
        table = aggregates.derived(one, old, minutes)
        if table is not None and table.num_rows:
            day.replacements.append(self._beside(one.file, table, [], anew=old is None))
        elif table is not None:
            day.replacements.append(_Replacement(one.file, None, ABSENT, []))
        return True

    def _settle_first(self, file: DayFile, flushed: Flushed) -> None:
        """Settle *file* if the last flush failed half way: the ledger has room for one pending digest only."""
        if self._journal.digest(file.path)[1] is not None:
            flushed.count(self._catalog.settle(file))


def _all_of(day: _Day, durable: Sequence[_Replacement]) -> bool:
    return all(one in durable for one in day.replacements)


@contextmanager
def _each_for_itself(files: Sequence[DayFile], flushed: Flushed) -> Iterator[None]:
    """Leave *files* for a later flush if the disk refuses them, or if another program has one open (Windows)."""
    try:
        yield
    except FileHeld:
        flushed.held += [file.path for file in files]
    except OSError as error:
        paths = [file.path for file in files]
        flushed.failed += paths
        flushed.note(f"{', '.join(paths) or TMP}: {type(error).__name__}: {error}")
