"""Opening the journal; and if it is lost, a new ledger from what the day files still prove.

A journal that is missing or unsound is set aside, never deleted, and a new ledger is begun from the day files, and from
what is proven sound in the old journal (:mod:`.salvage`). A day whose file of minutes carries an account, or whose row
in the old journal matches its checksum and the file, is sealed as it was: nothing of it is lost. Of other days the
files prove candles and nothing else, and the old journal candles that were not in a day file yet, and empty minutes.
Every other minute becomes a gap (``ledger_lost``) and is asked for again.

The aggregates of a sealed day are only hashed here; where the old journal does not vouch for them, its row's ``shape``
lacks their timeframe, so that they are derived and compared in the background.

A new journal is empty until one transaction fills it. So a ledger without any series beside day files is new after a
loss, or its rebuilding was cut short; in both cases it is filled.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import attrs

from trio_candles.candles.intervals import Interval, length, touching, union
from trio_candles.candles.model import DAY, MINUTE, Millis, Series, floor_to
from trio_candles.store import dayfiles
from trio_candles.store.accounts import ANY, IN_FILE, STORED, SealedDay, shape_of
from trio_candles.store.dayfiles import DayFileBroken
from trio_candles.store.disk import LOCAL_DISK, Disk
from trio_candles.store.journal import Journal, JournalBroken, StoredElsewhere
from trio_candles.store.opening import GoOn
from trio_candles.store.salvage import keep_copy, salvage
from trio_candles.store.schema import JOURNAL, QUARANTINE, TMP, digest_of

__all__ = ["fill_if_lost", "open_journal"]

log = logging.getLogger(__name__)

WHAT = "Making the journal anew, day files"
"""For the line that says how far it is."""


def open_journal(root: Path, stored_elsewhere: StoredElsewhere, go_on: GoOn) -> Journal:
    """The journal of the data directory *root*; a new one, to be filled, if it is missing or not sound.

    ``sqlite3.OperationalError`` and :class:`~trio_candles.store.journal.OtherFormat` are no reason to rebuild.
    """
    path = root / JOURNAL
    if not path.is_file():
        aside = _set_journal_aside(root)  # a write-ahead log whose journal is gone must not meet a new one
        if aside:
            log.error("the journal is no file; set aside: %s", ", ".join(aside))
    try:
        try:
            journal = Journal.open(path, stored_elsewhere, go_on)
        except JournalBroken as error:
            # Damage is still there at a second reading; an error of one reading is not, and is no reason to rebuild.
            log.warning("the journal seems to be broken (%s); it is read once more", error)
            journal = Journal.open(path, stored_elsewhere, go_on)
    except JournalBroken as error:
        keep_copy(root)
        log.error("the journal is broken (%s); set aside: %s", error, ", ".join(_set_journal_aside(root)))
        journal = Journal.open(path, stored_elsewhere, go_on)
    return journal


def _set_journal_aside(root: Path) -> list[str]:
    """Move the journal to quarantine, and then the files that belong to it; return their new paths.

    A crash in between leaves a log without a journal, which is set aside at the next start. In the other order it
    would leave a journal without its log, which is sound and wrong.
    """
    parts = [JOURNAL, f"{JOURNAL}-wal", f"{JOURNAL}-shm"]
    return [dayfiles.set_aside(LOCAL_DISK, root, part) for part in parts if (root / part).exists()]


@attrs.define
class _Stored:
    """What the day files of one symbol say."""

    first: Millis
    """The first minute to account for. Which minutes of an open day were expected is not known; asking for all is
    harmless."""
    series: Series
    stored: list[Interval] = attrs.field(factory=list)
    """Minutes of open days, oldest first."""
    open: set[Millis] = attrs.field(factory=set)
    """Open days that have files."""
    sealed: dict[Millis, SealedDay] = attrs.field(factory=dict)

    def spans(self, letters: str) -> list[Interval]:
        """The minutes of sealed days that are one of *letters*, and those that are stored in open ones."""
        sealed = [one for day in self.sealed.values() for one in day.account.spans(letters)]
        return list(union(sorted([*self.stored, *sealed])))


def fill_if_lost(root: Path, disk: Disk, journal: Journal, go_on: GoOn) -> None:
    """Fill *journal* from the day files if it is empty and there are any.

    *go_on* is called before each file and may raise; then the next start begins the filling anew.
    """
    if journal.spans() or journal.digests():
        return
    rebuilding = _Rebuilding(root, disk, go_on)
    rebuilding.read_files()
    lost = rebuilding.fill(journal)
    if lost is not None:
        log.error(
            "there was no usable journal; a new one was made from %d day files with %d rows (%d more were refused);"
            " %d days are sealed as they were; %d minutes between the others are gaps now (reason: ledger_lost), and so"
            " will be every later one. Sound in the old journal were %d candles that were in no day file and %d empty"
            " minutes, which are kept", *lost,
        )  # fmt: skip


class _Rebuilding:
    """One rebuilding of the ledger of *root*: what its files and the broken journal prove."""

    def __init__(self, root: Path, disk: Disk, go_on: GoOn) -> None:
        self._root = root
        self._disk = disk
        self._go_on = go_on
        self._folders: dict[str, list[tuple[str, Millis]]] = {}
        for folder, name, day in _day_files(root, disk):
            self._folders.setdefault(folder, []).append((name, day))
        self._symbols: dict[str, _Stored] = {}
        """By the folder of the files of minutes."""
        self._digests: dict[str, str] = {}
        """Of the files of open days."""
        self._refused = 0
        for folder, files in self._folders.items():
            series = None
            if folder.endswith("/1m"):
                go_on(WHAT)
                series = self._series_in(folder, files)
            if series is not None:
                self._symbols[folder] = _Stored(files[0][1], series)
        self._salvaged = salvage(root, [one.series for one in self._symbols.values()])

    def _series_in(self, folder: str, files: Sequence[tuple[str, Millis]]) -> Series | None:
        """Whose files lie in *folder*: the newest one that can be read says so."""
        for name, _ in reversed(files):
            with suppress(DayFileBroken):
                path = f"{folder}/{name}"
                return dayfiles.identify(dayfiles.content_of(self._disk, self._root, path), path)[0].series
        return None

    def read_files(self) -> None:
        """Read every day file: those of minutes first, because they say which days are sealed."""
        done, total = 0, sum(map(len, self._folders.values()))
        for folder in sorted(self._folders, key=lambda one: not one.endswith("/1m")):
            for name, day in self._folders[folder]:
                self._go_on(WHAT, done, total)
                done += 1
                path = f"{folder}/{name}"
                try:
                    content = dayfiles.content_of(self._disk, self._root, path)
                    symbol, _, timeframe = folder.rpartition("/")
                    known = self._symbols.get(f"{symbol}/1m")
                    if known is None:
                        dayfiles.identify(content, path)
                        raise DayFileBroken(path, "no minutes under it")
                    if timeframe == "1m":
                        self._read_minutes(known, path, day, content)
                    else:
                        self._read_aggregates(known, path, day, content)
                except DayFileBroken as error:
                    log.error("%s; moved to %s", error, dayfiles.set_aside(self._disk, self._root, path))
                    self._refused += 1

    def _read_minutes(self, known: _Stored, path: str, day: Millis, content: bytes) -> None:
        digest = digest_of(content)
        sealed = self._salvaged.sealed.get(known.series, {}).get(day)
        if sealed is None or sealed.digests.get("1m") != digest:
            file, table, account = dayfiles.identify(content, path)
            if file.series != known.series:
                raise DayFileBroken(path, f"in the place of {known.series}")
            if account is None:
                self._digests[path] = digest
                known.stored += touching(dayfiles.times_in(table))
                known.open.add(day)
                return
            sealed = SealedDay(account, {"1m": digest}, shape_of([], in_file=True))
        self._seal(known, sealed, {"1m": digest})

    def _seal(self, known: _Stored, sealed: SealedDay, digests: Mapping[str, str]) -> None:
        known.sealed[sealed.account.day] = attrs.evolve(sealed, digests=digests)
        begins = sealed.account.spans(ANY)[0][0]
        if known.first >= sealed.account.day:
            known.first = Millis(begins)

    def _read_aggregates(self, known: _Stored, path: str, day: Millis, content: bytes) -> None:
        digest, timeframe = digest_of(content), path.split("/")[-2]
        sealed = known.sealed.get(day)
        if sealed is not None:
            known.sealed[day] = attrs.evolve(sealed, digests={**sealed.digests, timeframe: digest})
            return
        file, _, _ = dayfiles.identify(content, path)
        if file.base != known.series:
            raise DayFileBroken(path, "no minutes under it")
        self._digests[path] = digest
        known.open.add(day)

    def fill(self, journal: Journal) -> tuple[int, ...] | None:
        """Fill *journal*, if there is anything to fill it with; the figures of what was done."""
        for series, days in self._salvaged.sealed.items():
            known = self._symbols.get(series.path)
            for day, one in sorted(days.items()):
                # A day without a candle may have no file yet.
                if known and "1m" not in one.digests and day not in known.sealed and day not in known.open:
                    self._seal(known, one, {})
        sealed = [self._vouched_for(one) for known in self._symbols.values() for one in known.sealed.values()]
        by_series = {one.series: one for one in self._symbols.values()}
        in_files = {series: one.spans(STORED) for series, one in by_series.items()}
        in_accounts = {series: one.spans(ANY) for series, one in by_series.items()}
        salvaged = self._salvaged.beside(in_files, in_accounts)
        if not (self._folders or salvaged.candles or salvaged.empties):
            return None
        known_minutes = {}
        for series in dict.fromkeys([*by_series, *salvaged.candles, *salvaged.empties]):
            spans = salvaged.spans(series)
            firsts = [floor_to(Millis(since), DAY) for since, _ in spans]
            if series in by_series:
                firsts, spans = [*firsts, by_series[series].first], [*spans, *in_accounts[series]]
            if spans:
                known_minutes[series] = min(firsts), list(union(sorted(spans)))
        latest = max((spans[-1][1] for _, spans in known_minutes.values()), default=0)
        opened = sorted({(known.series, day) for known in self._symbols.values() for day in known.open})
        lost = journal.rebuild(self._digests, known_minutes, Millis(latest), opened, salvaged, sealed)
        files = len(self._digests) + sum(len(one.digests) for one in sealed)
        rows = sum(map(length, in_files.values())) // MINUTE
        candles = sum(map(len, salvaged.candles.values()))
        empties = sum(high - low for spans in salvaged.empties.values() for low, high, _ in spans) // MINUTE
        return files, rows, self._refused, len(sealed), lost, candles, empties

    def _vouched_for(self, sealed: SealedDay) -> SealedDay:
        """*sealed* with those timeframes in its shape for whose files the broken journal vouches."""
        before = self._salvaged.sealed.get(sealed.account.series, {}).get(sealed.account.day)
        if before is None or before.digests.get("1m") != sealed.digests.get("1m"):
            return sealed
        same = [one for one in before.shape.split() if before.digests.get(one) == sealed.digests.get(one)]
        return attrs.evolve(sealed, shape=shape_of(same, in_file=IN_FILE in same))


def _day_files(root: Path, disk: Disk) -> Iterator[tuple[str, str, Millis]]:
    """Folder, name and day of everything that is called like a day file, each folder's oldest first."""
    for venue in disk.names(root):
        if venue in (TMP, QUARANTINE):
            continue
        for symbol in disk.names(root / venue):
            for timeframe in disk.names(root / venue / symbol):
                folder = f"{venue}/{symbol}/{timeframe}"
                for name in disk.names(root / folder):
                    day = dayfiles.day_of(name)
                    if day is not None:
                        yield folder, name, day
