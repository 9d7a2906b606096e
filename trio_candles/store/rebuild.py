"""Opening the journal; and if it is lost, a new ledger from what the day files still prove.

A journal that is missing or unsound is set aside, never deleted, and a new ledger is begun from the day files, which
prove candles and nothing else, and from what is proven sound in the old journal (:mod:`.salvage`): candles that were
not in a day file yet, and empty minutes. Every other minute becomes a gap (``ledger_lost``) and is asked for again.

A new journal is empty until one transaction fills it. So a ledger without any series beside day files is new after a
loss, or its rebuilding was cut short; in both cases it is filled.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import attrs

from trio_candles.candles import intervals
from trio_candles.candles.model import DAY, MINUTE, Millis, Series, floor_to
from trio_candles.store import dayfiles
from trio_candles.store.dayfiles import DayFile, DayFileBroken
from trio_candles.store.disk import LOCAL_DISK, Disk
from trio_candles.store.journal import Journal, JournalBroken, StoredElsewhere
from trio_candles.store.opening import GoOn
from trio_candles.store.salvage import keep_copy, salvage
from trio_candles.store.schema import JOURNAL, QUARANTINE, TMP, digest_of

__all__ = ["fill_if_lost", "open_journal"]

log = logging.getLogger(__name__)


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
    """What the day files in one folder say."""

    first: Millis
    """The day of the oldest file, readable or not. Which of its minutes were expected is not known; asking for all is
    harmless."""
    series: Series | None = None
    spans: list[intervals.Interval] = attrs.field(factory=list)
    """The stored minutes, oldest first; over midnight neighbours are not joined."""
    minutes: set[Millis] = attrs.field(factory=set)

    def add(self, series: Series, minutes: list[Millis]) -> None:
        self.series = series
        self.minutes.update(minutes)
        self.spans += intervals.touching(minutes)


def fill_if_lost(root: Path, disk: Disk, journal: Journal, go_on: GoOn) -> None:
    """Fill *journal* from the day files if it is empty and there are any.

    *go_on* is called before each file and may raise; then the next start begins the filling anew.
    """
    if journal.spans() or journal.digests():
        return
    digests: dict[str, str] = {}
    files: list[DayFile] = []
    stored: dict[str, _Stored] = {}
    refused, latest = 0, 0
    for number, (folder, name, day) in enumerate(_day_files(root, disk)):
        go_on("Making the journal anew, day files read", number)
        path = f"{folder}/{name}"
        known = stored.setdefault(folder, _Stored(day))
        try:
            content = dayfiles.content_of(disk, root, path)
            file, table = dayfiles.identify(content, path)
            if known.series not in (None, file.series):
                raise DayFileBroken(path, f"in the place of {known.series}")
        except DayFileBroken as error:
            log.error("%s; moved to %s", error, dayfiles.set_aside(disk, root, path))
            refused += 1
            continue
        digests[path] = digest_of(content)
        files.append(file)
        known.add(file.series, dayfiles.times_in(table))
        latest = max(latest, *dayfiles.closes_in(table))
    series = {one.series: one for one in stored.values() if one.series is not None and one.series.timeframe == "1m"}
    salvaged = salvage(root, series).beside({one: found.minutes for one, found in series.items()})
    if not (stored or salvaged.candles or salvaged.empties):
        return
    minutes = {}
    for one in dict.fromkeys([*series, *salvaged.candles, *salvaged.empties]):
        spans = salvaged.spans(one)
        firsts = [floor_to(Millis(since), DAY) for since, _ in spans]
        if one in series:
            firsts, spans = [*firsts, series[one].first], [*spans, *series[one].spans]
        minutes[one] = min(firsts), list(intervals.union(sorted(spans)))
    latest = max([latest, *(candle.close_time for some in salvaged.candles.values() for candle in some)])
    days = set()
    for file in files:
        if file.base in minutes:
            days.add((file.base, file.day))
        else:
            del digests[file.path]
            log.error("%s: no minutes under it; moved to %s", file.path, dayfiles.set_aside(disk, root, file.path))
            refused += 1
    lost = journal.rebuild(digests, minutes, Millis(latest), sorted(days), salvaged)
    log.error(
        "there was no usable journal; a new one was made from %d day files with %d rows (%d more were refused);"
        " %d minutes between them are gaps now (reason: ledger_lost), and so will be every later one."
        " Sound in the old journal were %d candles that were in no day file and %d empty minutes, which are kept",
        len(digests), sum(len(one.minutes) for one in stored.values()), refused, lost,
        sum(map(len, salvaged.candles.values())),
        sum(high - low for spans in salvaged.empties.values() for low, high, _ in spans) // MINUTE,
    )  # fmt: skip


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
