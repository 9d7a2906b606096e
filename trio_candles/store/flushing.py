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

from trio_candles.candles.model import DAY, Millis, Timeframe
from trio_candles.store import aggregates, dayfiles
from trio_candles.store.accounts import Account, SealedDay, shape_of
from trio_candles.store.catalog import Catalog
from trio_candles.store.dayfiles import DayFile, DayFileBroken, agrees
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
    sealed: SealedDay | None = None
    """What the day is sealed with, once the replacements are durable."""

    def sealed_with_new(self) -> SealedDay:
        """What the day is sealed with, the replacements having been made."""
        assert self.sealed is not None
        digests = dict(self.sealed.digests)
        for one in self.replacements:
            digests.pop(one.file.series.timeframe, None)
            if one.digest != ABSENT:
                digests[one.file.series.timeframe] = one.digest
        return attrs.evolve(self.sealed, digests=digests)


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
        with self._group(flushed) as days:
            for number, file in enumerate(files):
                if number == FILES_AT_ONCE or sum(len(day.replacements) for day in days) >= FILES_AT_ONCE:
                    flushed.rest = list(files[number:])
                    break
                days.append(day := _Day(file))
                with _each_for_itself([file], flushed):
                    self._prepare(day, flushed)

    @contextmanager
    def _group(self, flushed: Flushed, now: Millis | None = None) -> Iterator[list[_Day]]:
        """What the block prepares becomes durable at its end; days that are to be sealed are sealed at *now*."""
        days: list[_Day] = []
        try:
            yield days
            durable = self._replace([one for day in days for one in day.replacements], flushed)
            whole = [day for day in days if _all_of(day, durable)]
            self._journal.replaced(
                [(one.file.path, one.digest, one.file.series, one.minutes) for one in durable],
                [(day.file.series, day.file.day) for day in whole if day.derived],
                [day.sealed_with_new() for day in whole if day.sealed is not None],
                now,
            )
            for one in durable:
                if one.minutes:
                    flushed.count({one.file.series.venue: one.new})
        finally:
            for one in (one for day in days for one in day.replacements):
                with _each_for_itself([], flushed):
                    if one.temporary is not None:
                        self._disk.remove(one.temporary)

    def _replace(self, prepared: Sequence[_Replacement], flushed: Flushed) -> list[_Replacement]:
        """Note the digests of *prepared* as pending, and put the files into their places; return those that are there
        durably.
        """
        moved: dict[Path, list[_Replacement]] = {}
        durable: list[_Replacement] = []
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
        return durable

    # --- sealed days

    def seal(self, files: Sequence[DayFile], now: Millis, flushed: Flushed, *, filling: bool) -> None:
        """Seal those days of *files* that can be sealed; the others are looked at again later."""
        later: list[DayFile] = []
        with self._group(flushed, now) as days:
            for number, file in enumerate(files):
                if number == FILES_AT_ONCE:
                    flushed.rest = list(files[number:])
                    break
                days.append(day := _Day(file))
                with _each_for_itself([file], flushed):
                    self._prepare_seal(day, now, flushed, filling=filling)
                if day.sealed is None:
                    later.append(file)
        if later:
            self._journal.postpone([(file.series, file.day) for file in later], now)

    def _prepare_seal(self, day: _Day, now: Millis, flushed: Flushed, *, filling: bool) -> None:
        file, timeframes = day.file, [one.name for one in {*self.timeframes, *self.older}]
        for name in ("1m", *timeframes):
            self._settle_first(file.of(name), flushed)
        account = self._journal.sealing.account(file.series, file.day, timeframes, now, filling=filling)
        if account is None or not self._with_account(day, account):
            return
        digests = {name: self._journal.digest(file.of(name).path)[0] for name in ("1m", *timeframes)}
        there = {name: digest for name, digest in digests.items() if digest is not None}
        derived = [name for name in timeframes if name in there or Timeframe.parse(name) in self.timeframes]
        day.sealed = SealedDay(account, there, shape_of(derived, in_file=True))

    def _with_account(self, day: _Day, account: Account) -> bool:
        """Prepare the file of minutes with *account* in its metadata, unless the file carries it already; ``False`` if
        the file was given up, because it does not hold what the account says.
        """
        file = day.file
        table = self._catalog.believed(file)
        if not agrees(account, dayfiles.table_of([]) if table is None else table):
            if table is not None:
                why = "its rows are not the minutes that the ledger says are stored"
                self._catalog.give_up(DayFileBroken(file.path, why))
            return False
        rows = dayfiles.table_of([]) if table is None else table
        if digest_of(dayfiles.encode(rows, file.series, account)) != self._journal.digest(file.path)[0]:
            day.replacements.append(self._beside(file, rows, [], anew=table is None, account=account))
        return True

    def finish(self, files: Sequence[DayFile], flushed: Flushed) -> None:
        """Give the sealed days of *files* what they lack: the account in the file of minutes, configured timeframes."""
        with self._group(flushed) as days:
            for number, file in enumerate(files):
                if number == FILES_AT_ONCE or sum(len(day.replacements) for day in days) >= FILES_AT_ONCE:
                    flushed.rest = list(files[number:])
                    break
                days.append(day := _Day(file))
                with _each_for_itself([file], flushed):
                    self._prepare_finish(day, flushed)

    def _prepare_finish(self, day: _Day, flushed: Flushed) -> None:
        file = day.file
        for name in ("1m", *(one.name for one in self.timeframes)):
            self._settle_first(file.of(name), flushed)
        sealed = self._journal.sealed_day(file.series, file.day)
        if sealed is None or not self._with_account(day, sealed.account):
            return
        has = sealed.shape.split()
        lacking = [one for one in self.timeframes if one.name not in has]
        if lacking:
            ledger = self._journal.day_ledger(file.series, file.day)
            ledger = attrs.evolve(ledger, underived=[(file.day, file.day + DAY)])
            table = self._catalog.believed(file)
            minutes = aggregates.Minutes.of(dayfiles.table_of([]) if table is None else table, ledger)
            timeframes = [(one, one.name in sealed.digests) for one in lacking]
            for one in aggregates.outdated(file, ledger, (), timeframes):
                done = False
                with _each_for_itself([one.file], flushed):
                    done = self._derive_one(day, one, minutes)
                if not done:
                    return
        day.sealed = attrs.evolve(sealed, shape=shape_of([*has, *(one.name for one in lacking)], in_file=True))

    # --- files

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

    def _beside(
        self, file: DayFile, table: pa.Table, minutes: list[Millis], *, anew: bool, account: Account | None = None
    ) -> _Replacement:
        """Write *table* durably beside the place of *file*; *anew*: there is no such file yet."""
        content = dayfiles.encode(table, file.series, account)
        same = dayfiles.read(content, file).equals(table)
        if not same or (account is not None and dayfiles.account_of(content, file) != account):
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
