"""The audit itself: first the ledger, then the files, day by day; what looks wrong is read again.

::

    every cell ──read, judged──► clean: counted, and not read again
                   ▲    └──────► suspect ──pauses are left──┐
                   └────────────────────────────────────────┤
                                                            └──none is left──► reported

A cell is a day of a symbol. A flush beside us replaces files and then their digests, so a file that is read after the
ledger may be newer than the ledger. Such a cell is clean in the next reading; a real fault stays. Invariant: each cell
is reported by its last reading, in which ledger and files were read in this order.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import attrs
import pyarrow as pa

from trio_candles.audit.account import Day, check_aggregates, check_minutes, check_sealed
from trio_candles.audit.batch import judge
from trio_candles.audit.bits import LATEST, span_bits
from trio_candles.audit.books import Account, Ledger
from trio_candles.audit.daymap import DayMap
from trio_candles.audit.files import Cell, Content, Tree, cell_of, day_file_path, decode, read_content, survey
from trio_candles.audit.ledger import read_ledger
from trio_candles.audit.receipts import Found, Receipts, may_have_one, seal_of, written
from trio_candles.audit.report import KnownGap, Report, Tally, Violation
from trio_candles.audit.rows import Piece, values
from trio_candles.candles.model import DAY, Series, Timeframe, canonical_symbol
from trio_candles.store.schema import ABSENT, JOURNAL, WAITS

__all__ = ["Selection", "audit"]

BATCH = 64
"""Files whose rows are judged together: fewer cost more than reading them, more gain nothing."""
WORKERS = max(2, min(4, os.cpu_count() or 1))
"""Threads, each with a batch of its own from the file to the finding: decoding, digests and comparisons let go of the
interpreter, and a thread that hands every file on to another one would wait for it more than it reads."""
PAUSES = (0.2, 0.2)
PAUSES_BESIDE = (0.2, 0.5, 1.5, 3.0)
"""Seconds before each further reading; longer beside a collector, which may be in the middle of a flush."""
PAUSES_BEHIND = (3.0, 6.0, 12.0)
"""And then, where nothing is wrong but that a collector is late with its newest minutes. Which minutes are due stays as
it was, so a collector that is merely slow (a sped-up clock on a busy machine) catches up, and a stuck one does not."""


@attrs.frozen
class Selection:
    """Which part of the directory is to be audited (times in Unix ms); the ledger's own soundness always is."""

    venue: str | None = None
    symbol: str | None = None
    """As the venue writes it or as the folder is called."""
    since: int = 0
    until: int = LATEST

    def takes(self, venue: str, folder: str) -> bool:
        """Whether this symbol is to be audited."""
        wanted = None if self.symbol is None else self.symbol.replace("/", "-", 1)
        return self.venue in (None, venue) and wanted in (None, folder)

    def takes_cell(self, cell: Cell) -> bool:
        """Whether this day of this symbol is to be audited."""
        return self.takes(cell.venue, cell.folder) and self.since < cell.day + DAY and cell.day < self.until


def audit(
    data_dir: Path,
    *,
    now: Callable[[], int],
    running: Callable[[], bool],
    timeframes: Sequence[str] = (),
    selection: Selection | None = None,
    pauses: Sequence[float] | None = None,
    progress: Callable[[int, int], object] | None = None,
    covers: dict[tuple[str, str], dict[int, DayMap]] | None = None,
    receipts: Receipts | None = None,
) -> Report:
    """Audit *data_dir* and report.

    *now* is the service's clock in ms, *running* whether a collector holds the directory; both are asked anew
    at every reading, but what is due is due at the first. *timeframes* are aggregates that are expected beside those
    that the collector derives; those on disk are verified in any case. *progress* is called with how many days of how
    many are done. *covers* is filled, by venue and symbol, with what the minutes of each day are. *receipts* are looked
    at, and brought up to date in memory. ``OSError`` where a folder or the lock cannot be opened; whatever else is
    wrong is in the report.
    """
    selection = selection or Selection()
    checked_at = now()
    kept: dict[tuple[str, str, str], Tally] = {}
    suspects: set[Cell] | None = None
    beside = running()
    waits = list(pauses if pauses is not None else PAUSES_BESIDE if beside else PAUSES)
    longer = list(PAUSES_BEHIND if pauses is None and beside else ())
    while True:
        beside = running()
        ledger = read_ledger(data_dir, now)
        if suspects is None and ledger.exists and not ledger.usable and waits:
            threading.Event().wait(waits.pop(0))
            continue  # a moment's lock: no use in reading all files without a ledger
        tree = survey(data_dir, {venue for venue, _ in ledger.accounts})
        # What looked wrong is decoded, whatever a receipt says.
        believed = receipts if suspects is None else None
        reading = _Reading(data_dir, ledger, tree, selection, beside, checked_at, timeframes, now, believed)
        todo = reading.cells() if suspects is None else sorted(suspects)
        found: list[Day] = []
        for done, day in enumerate(reading.days(todo), 1):
            if covers is not None and day.cover is not None:
                covers.setdefault((day.cell.venue, day.symbol), {})[day.cell.day] = day.cover
            if receipts is not None:
                receipts.give(day.cell, None if day.violations else day.receipt, believed=day.believed)
            if day.violations:
                found.append(day)
            else:
                _count(kept, day)
            if progress is not None and suspects is None:
                progress(done, len(todo))
        suspects = {day.cell for day in found}
        general = [*reading.ledger_problems(), *reading.leftovers()]
        if not waits and found and not general and all(_is_late(day) for day in found):
            waits, longer = longer, []
        if not waits or not (found or general):
            break
        threading.Event().wait(waits.pop(0))
    for day in found:
        _count(kept, day)
    for account in reading.accounts():
        kept.setdefault((account.series.venue, account.series.symbol, "1m"), Tally())
    folders = {(venue, account.series.symbol): folder for (venue, folder), account in ledger.accounts.items()}
    return Report(
        str(data_dir),
        checked_at,
        beside,
        None if beside else ledger.stopped_at,
        dict(sorted(kept.items(), key=lambda item: (item[0][:2], Timeframe.parse(item[0][2]).length))),
        tuple(gap for gap in ledger.gaps if _asked(selection, folders[gap.venue, gap.symbol], gap)),
        (*general, *(violation for day in found for violation in day.violations)),
        tree.quarantined,
        tuple(path for path in tree.foreign if selection.venue in (None, path.split("/")[0])),
        ledger.exists or bool(tree.cells),
    )


def _is_late(day: Day) -> bool:
    """Whether nothing is wrong with *day* but that the collector has yet to account for its newest minutes."""
    mark = LATEST if day.account is None else day.account.mark
    return all(one.kind == "silent_gap" and one.start_ms is not None and one.start_ms >= mark for one in day.violations)


def _count(kept: dict[tuple[str, str, str], Tally], day: Day) -> None:
    for series, tally in day.tallies.items():
        kept.setdefault(series, Tally()).add(tally)


def _asked(selection: Selection, folder: str, gap: KnownGap) -> bool:
    return selection.takes(gap.venue, folder) and gap.start_ms < selection.until and selection.since < gap.end_ms


@attrs.frozen
class _Reading:
    """One look at the ledger, and at the files after it."""

    data_dir: Path
    ledger: Ledger
    tree: Tree
    selection: Selection
    beside: bool
    time: int
    timeframes: Sequence[str]
    now: Callable[[], int]
    receipts: Receipts | None = None
    listed: dict[Cell, set[str]] = attrs.field(init=False)
    """The timeframes of which the ledger lists a day file."""

    @listed.default
    def _list(self) -> dict[Cell, set[str]]:
        listed: dict[Cell, set[str]] = {}
        for path in self.ledger.files:
            place = cell_of(path)
            if place is not None:
                listed.setdefault(place[0], set()).add(place[1])
        for (venue, folder), account in self.ledger.accounts.items():
            for day, sealed in account.sealed.items():
                if sealed.digests:
                    listed.setdefault(Cell(venue, folder, day), set()).update(sealed.digests)
        return listed

    def accounts(self) -> Iterator[Account]:
        """The accounts of the selection."""
        for (venue, folder), account in self.ledger.accounts.items():
            if self.selection.takes(venue, folder):
                yield account

    def cells(self) -> list[Cell]:
        """Every day of every symbol that the files, the digests or the ledger know of, within the selection."""
        cells = {*self.tree.cells, *self.listed}
        for account in self.accounts():
            cells |= {
                Cell(account.series.venue, account.series.folder, day) for day in account.days(self._end(account))
            }
        return sorted(cell for cell in cells if self.selection.takes_cell(cell))

    def _end(self, account: Account) -> int:
        # A collector that waits for its clock to be vouched for accounts for nothing meanwhile.
        return account.end(self.beside and WAITS not in self.ledger.meta, self.time)

    def days(self, cells: Iterable[Cell]) -> Iterator[Day]:
        """Audit *cells*, in order."""
        with ThreadPoolExecutor(WORKERS) as workers:
            ahead: deque[Future[list[Day]]] = deque()
            # One cell has as many files as timeframes: memory is bounded by files, not by cells.
            for part in _portions(cells, lambda cell: max(1, len(self._timeframes_of(cell)))):
                ahead.append(workers.submit(self._judged, part))
                if len(ahead) > WORKERS:
                    yield from ahead.popleft().result()
            while ahead:
                yield from ahead.popleft().result()

    def _timeframes_of(self, cell: Cell) -> list[str]:
        """The timeframes of which *cell* has a day file, or should have one; 1m first."""
        names = self.tree.cells.get(cell, set()) | self.listed.get(cell, set())
        return sorted(names, key=lambda name: (name != "1m", name))

    def _judged(self, cells: Sequence[Cell]) -> list[Day]:
        """The findings about *cells*."""
        days, unseen = [], []
        for cell in cells:
            day = self._day(cell)
            # A Path for each of 10,000 files would cost more than opening them.
            contents = {
                name: read_content(f"{self.data_dir}/{day_file_path(cell, name)}") for name in self._timeframes_of(cell)
            }
            for name, content in contents.items():
                self._note_file(day, name, content)
            if not self._is_known(day, contents):
                for name, content in contents.items():
                    self._decode(day, name, content)
                unseen.append((day, contents))
            days.append(day)
        judge([piece for day, _ in unseen for piece in day.pieces()], self.now)
        for day, contents in unseen:
            self._check(day, contents)
        for day in days:
            day.forget_rows()  # the findings are kept, and there may be many days with findings
        return days

    def _is_known(self, day: Day, contents: Mapping[str, Content]) -> bool:
        """Whether a receipt says what the files of *day* are; then each of its minutes is judged by the receipt."""
        found = None if self.receipts is None or not may_have_one(day) else self.receipts.found(day.cell)
        if found is None or not {name for name, *_ in found[0].files} <= contents.keys():
            return False
        found[0].put_into(day)
        if self._seal(day, found[0], contents) == found[1]:
            day.receipt, day.believed = written(day, *found), True
            check_minutes(day)
            return True
        day.forget_rows()
        return False

    def _seal(self, day: Day, found: Found, contents: Mapping[str, Content]) -> str:
        assert day.account is not None
        return seal_of(day, found, contents, self._due(day), self._end(day.account))

    def _due(self, day: Day) -> tuple[str, ...]:
        """The aggregates that *day* must have: those that are asked for, and those that the collector derives; of these
        a sealed day has what its row names, and the others are to follow.
        """
        sealed = None if day.account is None else day.account.sealed.get(day.cell.day)
        derived = [name for name in self.ledger.timeframes if sealed is None or name in sealed.shape]
        return tuple(dict.fromkeys((*self.timeframes, *derived)))

    def _check(self, day: Day, contents: Mapping[str, Content]) -> None:
        for piece in day.pieces():
            day.violations.extend(piece.violations)
        check_minutes(day)
        check_sealed(day)
        account = day.account
        check_aggregates(day, self._due(day), 0 if account is None else self._end(account))
        if contents and may_have_one(day) and not day.violations:
            found = Found.of(day)
            day.receipt = written(day, found, self._seal(day, found, contents))

    def _day(self, cell: Cell) -> Day:
        account = self.ledger.accounts.get((cell.venue, cell.folder))
        day = Day(cell, cell.folder if account is None else account.series.symbol, account)
        if account is not None:
            end = min(self._end(account), self.selection.until)
            day.due = span_bits(max(account.first, self.selection.since), end, cell.day)
            day.before_mark = span_bits(0, account.mark, cell.day)
            if cell.day in account.journal:
                day.journal = Piece(cell, account.series, JOURNAL, account.journal[cell.day])
        return day

    def _note_file(self, day: Day, timeframe: str, file: Content) -> None:
        """Note in *day* whether a day file is there, and has the digest that the ledger knows."""
        path = day_file_path(day.cell, timeframe)
        listed = self.ledger.digests(day.account, day.cell.day, timeframe, path)
        start, end = day.cell.day, day.cell.day + DAY
        if file.missing:
            if listed is not None and listed[0] is not None and listed[1] != ABSENT:
                day.gone.add(timeframe)
        elif self.ledger.usable and file.digest is not None:
            if listed is None:
                day.note("checksum", timeframe, "the file is not in the ledger", start, end)
            elif file.digest not in listed:
                words = "the file is not what the ledger says was written"
                day.note("checksum", timeframe, words, start, end)

    def _decode(self, day: Day, timeframe: str, content: Content) -> None:
        """Put the rows of one day file into *day*, and note what is wrong with the file as a whole."""
        if content.missing:
            return
        path = day_file_path(day.cell, timeframe)
        file = decode(content, self.ledger.digests(day.account, day.cell.day, timeframe, path) or ())
        start, end = day.cell.day, day.cell.day + DAY
        if file.wrong_schema is not None:
            day.note("wrong_schema", timeframe, file.wrong_schema, start, end)
        if file.unreadable is not None:
            day.note("unreadable_file", timeframe, file.unreadable, start, end)
        if file.table is None:
            day.broken.add(timeframe)
            day.tally(timeframe).files += 1
            return
        if day.account is None and not day.files:
            day.symbol = _symbol_in(file.table, day.cell.folder)
        series = Series(day.cell.venue, day.symbol, timeframe)
        day.files[timeframe] = Piece(day.cell, series, path, file.table, file.account)

    def ledger_problems(self) -> list[Violation]:
        """What is wrong with the journal itself."""
        if not self.ledger.exists and (self.tree.cells or self.tree.quarantined):
            return [Violation("ledger_corrupt", JOURNAL, "there are day files and no journal: it is gone")]
        odd = [path for path in self.ledger.files if cell_of(path) is None]
        places = {(cell.venue, cell.folder) for cell in self.listed}
        nobody = sorted(places - self.ledger.accounts.keys()) if self.ledger.usable else []
        return [
            *self.ledger.problems,
            *(Violation("ledger_corrupt", JOURNAL, f"day_file: {path!r} is no day file's path") for path in odd),
            *(
                Violation(
                    "ledger_corrupt",
                    JOURNAL,
                    f"series: {folder} has day files and is not there",
                    venue=venue,
                    symbol=folder,
                )
                for venue, folder in nobody
            ),
        ]

    def leftovers(self) -> list[Violation]:
        """Files that should not be there; what is being written beside a collector is none."""
        found = []
        for path in self.tree.leftovers:
            venue = path.split("/")[0]
            if path in self.ledger.files and cell_of(path) is not None:
                continue  # a folder in a day file's place, which is reported as unreadable
            if self.selection.venue in (None, venue):
                found.append(Violation("leftover_file", path, "no day file belongs there", venue=venue))
        # A collector that was killed left what it was writing, and the next one removes it: that is as promised.
        if not self.beside and "stopped_at_ms" in self.ledger.meta:
            words = "a file that was being written, and no collector runs"
            found += [Violation("leftover_file", path, words) for path in self.tree.temporary]
        return found


def _symbol_in(table: pa.Table, folder: str) -> str:
    """How the venue writes the symbol, where no ledger says so: as the first row, if that fits the folder."""
    for first in values(table.slice(0, 1), "symbol"):
        try:
            return str(first) if canonical_symbol(first) == folder else folder
        except ValueError:
            return folder
    return folder


def _portions(cells: Iterable[Cell], weight: Callable[[Cell], int]) -> Iterator[list[Cell]]:
    """*cells* in order, in lists that weigh about :data:`BATCH`."""
    part: list[Cell] = []
    total = 0
    for cell in cells:
        part.append(cell)
        total += weight(cell)
        if total >= BATCH:
            yield part
            part, total = [], 0
    if part:
        yield part
