"""The day files that the ledger knows: read, believed or given up, and put in order after a crash.

A file is believed if it has one of the ledger's digests: the current one, or the pending one of a replacement under
way. Any other goes to quarantine, never merged, never overwritten; what was in it is asked for, or derived, again.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from itertools import groupby
from pathlib import Path

import attrs
import pyarrow as pa

from trio_candles.candles.model import DAY, Candle, Millis, Series, Timeframe, floor_to
from trio_candles.store import dayfiles
from trio_candles.store.accounts import SealedDay, shape_of
from trio_candles.store.dayfiles import DayFile, DayFileBroken
from trio_candles.store.disk import SHARING, Disk, held_if
from trio_candles.store.journal import Journal
from trio_candles.store.opening import GoOn
from trio_candles.store.schema import ABSENT, TMP, digest_of
from trio_candles.store.sealed import AccountBroken

__all__ = ["Catalog"]

log = logging.getLogger(__name__)


class Catalog:
    """The day files of an open data directory."""

    def __init__(self, root: Path, journal: Journal, disk: Disk) -> None:
        self._root = root
        self._journal = journal
        self._disk = disk
        self._cached: tuple[str, str, dict[Millis, Candle]] | None = None

    def believed(self, file: DayFile) -> pa.Table | None:
        """The day file's rows; ``None`` if there is none, or if it could not be believed and was given up."""
        try:
            return self.read(file)
        except DayFileBroken as broken:
            self.give_up(broken)
            return None

    def read(self, file: DayFile) -> pa.Table | None:
        """The day file's rows; ``None`` if there is none, :class:`DayFileBroken` if it has no digest of the ledger's.

        A file that cannot be parsed is :class:`DayFileBroken` too.
        """
        known = self._journal.digest(file.path)
        content = self.content(file.path)
        if content is None:
            if known[0] is not None:
                raise DayFileBroken(file.path, "the file is missing")
            return None
        if digest_of(content) not in known:
            raise DayFileBroken(file.path, "its digest is not the ledger's")
        return dayfiles.read(content, file)

    def content(self, path: str) -> bytes | None:
        """What is at *path* below the root; ``None`` if there is no such file, or a file where its folder belongs.

        :class:`DayFileBroken` if it is a folder itself, :class:`~trio_candles.store.disk.FileHeld` if another program
        lets nobody read it.
        """
        try:
            with held_if(SHARING):
                return dayfiles.content_of(self._disk, self._root, path)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def give_up(self, broken: DayFileBroken) -> None:
        """Move a day file that cannot be believed to quarantine, if it is there, and make gaps of its minutes."""
        file = _day_file(broken.path, self.folders())
        assert file is not None, broken.path
        self._cached = None
        fate = "nothing is left to set aside"
        if self._is_there(file.path):
            fate = f"moved to {dayfiles.set_aside(self._disk, self._root, file.path)}"
        if not file.is_base:
            self._journal.lose_aggregate(file.path, file.base, file.day)
            log.error("%s; %s; it is derived anew if its timeframe is configured", broken, fate)
            return
        mark = self._journal.spans()[file.series][1]
        lost = self._journal.lose(file.path, file.series, file.day, mark, str(broken))
        log.error("%s; %s; %d minutes are gaps now (reason: corrupt)", broken, fate, lost)

    def _is_there(self, path: str) -> bool:
        try:
            return self.content(path) is not None
        except DayFileBroken:
            return True

    def folders(self) -> dict[str, Series]:
        """The 1m series by where their day files lie."""
        return {series.path: series for series in self._journal.spans()}

    def look_up(self, series: Series, minute: Millis) -> Candle | None:
        """The candle of *minute* in its day file. The last file read stays in memory: duplicates come in a row.

        :class:`~trio_candles.store.dayfiles.DayFileBroken` if the file has no digest of the ledger's.
        """
        file = DayFile(series, floor_to(minute, DAY))
        digest = self._journal.digest(file.path)[0]
        if digest is None:
            return None
        if self._cached is None or self._cached[:2] != (file.path, digest):
            table = self.read(file)
            rows = {} if table is None else {c.open_time: c for c in dayfiles.candles_in(table, series)}
            self._cached = (file.path, digest, rows)
        return self._cached[2].get(minute)

    # --- sealed days

    def restore(self, broken: AccountBroken) -> None:
        """The ledger's row of a sealed day is damaged: the day's account is taken from its file of minutes. If there is
        none, the day is open again with the rows of that file, and its other minutes are gaps.
        """
        file, content, account, times = DayFile(broken.series, broken.day), None, None, []
        try:
            content = self.content(file.path)
            if content is not None:
                times = dayfiles.times_in(dayfiles.read(content, file))
                account = dayfiles.account_of(content, file)
        except DayFileBroken as error:
            log.error("%s; moved to %s", error, dayfiles.set_aside(self._disk, self._root, file.path))
            content, account, times = None, None, []
        digests = {} if content is None else {"1m": digest_of(content)}
        symbol = file.path.rsplit("/", 2)[0]
        for name in self._disk.names(self._root / symbol):
            one = _day_file(f"{symbol}/{name}/{file.path.rpartition('/')[2]}", self.folders())
            found = None if one is None or one.is_base else self.content(one.path)
            if found is not None:
                digests[name] = digest_of(found)
        self._cached = None
        if account is not None:
            self._journal.restore(SealedDay(account, digests, shape_of([], in_file=True)))
            log.error("%s; the account is taken from %s", broken, file.path)
        else:
            lost = self._journal.reopen(file.series, file.day, digests, times)
            log.error("%s; no file has it: %d minutes are gaps now (reason: ledger_lost)", broken, lost)

    def scrub(self, series: Series, day: Millis) -> int:
        """Read the files of the sealed *day* again, and give up those that are not what was sealed; return how many
        were read.
        """
        sealed, read = self._journal.sealed_day(series, day), 0
        for timeframe in () if sealed is None else sealed.digests:
            file = DayFile(series, day).of(timeframe)
            read += 1
            try:
                content = self.content(file.path)
            except DayFileBroken as broken:
                self.give_up(broken)
                continue
            known = self._journal.digest(file.path)
            if (ABSENT if content is None else digest_of(content)) not in known:
                why = "the file is missing" if content is None else "its digest is not the ledger's"
                self.give_up(DayFileBroken(file.path, why))
        return read

    def set_strays_aside(self, series: Series, timeframe: str) -> None:
        """Move files among *series*' day files of *timeframe* that the ledger does not know to quarantine."""
        folder = DayFile(series, Millis(0)).of(timeframe).series.path
        for name in self._disk.names(self._root / folder):
            path = f"{folder}/{name}"
            if dayfiles.day_of(name) is not None and self._journal.digest(path) == (None, None):
                self.give_up(DayFileBroken(path, "the ledger does not know it"))

    # --- after a crash

    def known(self) -> dict[str, DayFile]:
        """The day files that the ledger lists, of minutes and of aggregates, of known series, by path."""
        folders = self.folders()
        files = {path: _day_file(path, folders) for path in self._journal.digests()}
        return {path: file for path, file in files.items() if file is not None}

    def recover(self, go_on: GoOn) -> set[Timeframe]:
        """Finish what a crash left: replacements under way, temporary files, files of open days that changed since.

        Returns the higher timeframes of which there are folders. *go_on* is called before each file and may raise;
        then the next start does the other files. Files of sealed days are left to the scrub.
        """
        for name in self._disk.names(self._root / TMP):
            self._clear(f"{TMP}/{name}")
        known, found = self.known(), set()
        for number, file in enumerate(known.values()):
            go_on("Checking the files of open days", number, len(known))
            self.settle(file)
        for series, days in groupby(self._journal.open_days(), key=lambda one: one[0]):
            names = self.timeframes_in(series)
            found.update(names)
            for file in [DayFile(series, day).of(name) for _, day in days for name in names]:
                if file.path not in known and self._is_there(file.path):
                    go_on()
                    self.give_up(DayFileBroken(file.path, "the ledger does not know it"))
        return {Timeframe.parse(name) for name in found - {"1m"}}

    def timeframes_in(self, series: Series) -> list[str]:
        """The names of the folders in which day files of *series*, of any timeframe, may lie."""
        names = self._disk.names(self._root / series.path.rpartition("/")[0])
        return [name for name in names if _is_timeframe(name)]

    def _clear(self, path: str) -> None:
        """Remove the temporary file at *path*; a folder there, which we never make, is set aside."""
        try:
            self._disk.remove(self._root / path)
        except (IsADirectoryError, PermissionError):  # the latter is what Windows and macOS say
            if not (self._root / path).is_dir():
                raise
            log.error("%s is a folder; moved to %s", path, dayfiles.set_aside(self._disk, self._root, path))

    def settle(self, file: DayFile) -> Counter[str]:
        """Finish the replacement of *file* if one was under way; give *file* up if it is not the ledger's.

        Returns how many minutes are new in the file, by venue, without minutes that REST has ever replaced.
        """
        digest, pending = self._journal.digest(file.path)
        try:
            content = self.content(file.path)
        except DayFileBroken as broken:
            self.give_up(broken)
            return Counter()
        actual = None if content is None else digest_of(content)
        if pending is not None and pending == (actual or ABSENT):
            with suppress(FileNotFoundError, NotADirectoryError) if content is None else nullcontext():
                self._disk.sync_folder((self._root / file.path).parent)
            minutes = self._arrived(file, content) if content is not None and file.is_base else []
            log.warning("finished the replacement of %s, which had been interrupted", file.path)
            self._journal.replaced([(file.path, pending, file.series, minutes)])
            if not minutes:
                return Counter()
            return Counter(
                {file.series.venue: len(set(minutes) - self._journal.replaced_minutes(file.series, file.day))}
            )
        if actual == digest:
            if pending is not None:
                self._journal.not_replaced(file.path)
        elif content is None:
            self.give_up(DayFileBroken(file.path, "the file is missing"))
        else:
            self.give_up(DayFileBroken(file.path, "its digest is not the ledger's"))
        return Counter()

    def _arrived(self, file: DayFile, content: bytes) -> list[Millis]:
        """The waiting minutes whose candles are the same in *content*. One that REST has replaced since waits on."""
        waiting = dayfiles.table_of(self._journal.waiting(file.series, file.day)).to_pylist()
        there = {row["open_time_ms"]: row for row in dayfiles.read(content, file).to_pylist()}
        return [row["open_time_ms"] for row in waiting if row == there.get(row["open_time_ms"])]


def _day_file(path: str, folders: Mapping[str, Series]) -> DayFile | None:
    """The day file that belongs at *path*, of one of the 1m series in *folders* or of its aggregates."""
    symbol, _, timeframe = path.rpartition("/")[0].rpartition("/")
    base = folders.get(f"{symbol}/1m")
    if not _is_timeframe(timeframe):
        return None
    return None if base is None else dayfiles.day_file(path, attrs.evolve(base, timeframe=timeframe))


def _is_timeframe(name: str) -> bool:
    try:
        Timeframe.parse(name)
    except ValueError:
        return False
    return True
