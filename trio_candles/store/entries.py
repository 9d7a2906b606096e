"""The ledger's series in memory, because every verdict asks for one; changes of a failed transaction are undone."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Collection, Iterable, Iterator
from datetime import date

import attrs

from trio_candles.candles.model import DAY, MINUTE, Millis, Series, canonical_symbol, floor_to

__all__ = ["OVER", "Entries", "Entry"]

OVER = DAY + 60 * MINUTE
"""How many ms after a day's beginning it is looked at for the first time whether the day can be sealed."""


@attrs.define
class Entry:
    """A series' row of the ledger, kept in memory because every verdict asks for it."""

    id: int
    first: Millis
    """The first minute that is accounted for."""
    mark: Millis
    """Every minute from ``first`` to here is accounted for."""
    last_candle: Millis | None
    """The open time of the newest accepted candle."""
    expected: bool = False
    in_gaps: int = 0
    """How many ms of the series are in open gaps: counted here, because there may be half a million gaps to add up."""


class Entries:
    """The rows of ``series`` that are about minutes; each change goes to the table and to memory."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._db = database
        rows = database.execute(
            "SELECT venue, symbol, timeframe, folder, id, first_ms, mark_ms, last_candle_ms, expected,"
            " coalesce((SELECT sum(until_ms - since_ms) FROM gap WHERE series_id = series.id AND state = 'open'), 0)"
            " FROM series WHERE timeframe = '1m'"
        )
        self._all = {
            Series(venue, symbol, timeframe, folder): Entry(
                id_, Millis(first), Millis(mark), last, bool(expected), gaps
            )
            for venue, symbol, timeframe, folder, id_, first, mark, last, expected, gaps in rows
        }
        self._series = {entry.id: series for series, entry in self._all.items()}
        self._before: dict[int, tuple[Entry, Entry]] = {}
        """What a transaction has changed so far, by id: the entry, and what it was."""
        self._added: list[Series] = []
        self._folders: dict[str, Series] | None = None

    def __getitem__(self, series: Series) -> Entry:
        return self._all[series]

    def __contains__(self, series: Series) -> bool:
        return series in self._all

    def series(self, id_: int) -> Series:
        """The series that the tables call *id_*."""
        return self._series[id_]

    def at(self, folder: str) -> Series | None:
        """The series whose day files lie in *folder*; ``None`` if none does."""
        if self._folders is None:
            self._folders = {series.path: series for series in self._all}
        return self._folders.get(folder)

    def items(self) -> Iterator[tuple[Series, Entry]]:
        """All series and their entries."""
        yield from self._all.items()

    def read_through(self, paths: Iterable[str]) -> None:
        """Check the series against the *paths* of the listed day files; ``ValueError`` if minutes are of no series.

        Series are never taken out of the ledger: where one is missing whose files are listed, its name was damaged.
        """
        folders = {series.path for series in self._all}
        for path in paths:
            if path.rpartition("/")[0] not in folders and _is_of_minutes(path):
                raise ValueError(f"{path} is listed, and belongs to no series")

    def begin(self) -> None:
        """A transaction begins."""
        self._before, self._added = {}, []

    def undo(self) -> None:
        """The transaction failed: be as before.

        Remembered rather than read again: a disk that fails a transaction may fail the reading as well, and marks
        ahead of what is durable would make the next candles look old.
        """
        for entry, was in self._before.values():
            entry.first, entry.mark, entry.last_candle = was.first, was.mark, was.last_candle
            entry.expected, entry.in_gaps = was.expected, was.in_gaps
        for series in self._added:
            del self._series[self._all.pop(series).id]
        self._folders = None

    def _changing(self, entry: Entry) -> Entry:
        if entry.id not in self._before:
            self._before[entry.id] = (entry, attrs.evolve(entry))
        return entry

    def add(self, series: Series, first: Millis) -> Entry:
        """A new series of which nothing is accounted for; not yet expected."""
        row = self._db.execute(
            "INSERT INTO series (venue, symbol, timeframe, folder, first_ms, mark_ms, expected)"
            " VALUES (?, ?, ?, ?, ?, ?, 0)",
            (series.venue, series.symbol, series.timeframe, _own_folder(series), first, first),
        )
        assert row.lastrowid is not None
        entry = self._all[series] = Entry(row.lastrowid, first, first, None)
        self._series[entry.id] = series
        self._added.append(series)
        self._folders = None
        return entry

    def expect(self, series: Collection[Series]) -> None:
        """Exactly *series*, all known, are expected from now on."""
        for one, entry in self._all.items():
            if entry.expected != (one in series):
                self._changing(entry).expected = one in series
                self._db.execute("UPDATE series SET expected = ? WHERE id = ?", (entry.expected, entry.id))

    def expected(self, venue: str, only: Iterable[Series] | None = None) -> Iterator[tuple[Series, Entry]]:
        """The expected series of *venue*, or those of *only* if it is given, and their entries."""
        some = self._all.items() if only is None else [(one, self._all[one]) for one in only]
        return ((one, entry) for one, entry in some if entry.expected and one.venue == venue)

    def begin_at(self, entry: Entry, first: Millis) -> None:
        """*first* is the first expected minute."""
        if first < entry.first:
            self._open_days(entry.id, first, entry.first)
        else:
            self._db.execute(
                "DELETE FROM open_day WHERE series_id = ? AND day_ms < ?", (entry.id, floor_to(first, DAY))
            )
        self._changing(entry).first = first
        self._db.execute("UPDATE series SET first_ms = ? WHERE id = ?", (first, entry.id))

    def advance(self, entry: Entry, mark: Millis) -> None:
        """Every minute before *mark* is accounted for."""
        if entry.mark == entry.first or floor_to(Millis(mark - 1), DAY) >= entry.mark:  # else its day is there
            self._open_days(entry.id, entry.mark, mark)
        self._changing(entry).mark = mark
        self._db.execute("UPDATE series SET mark_ms = ? WHERE id = ?", (mark, entry.id))

    def stand(self, entry: Entry, first: Millis, mark: Millis) -> None:
        """*entry* is accounted for in ``[first, mark)``; the only change that moves a mark back, or a beginning on."""
        self._db.execute(
            "DELETE FROM open_day WHERE series_id = ? AND (day_ms < ? OR day_ms >= ?)",
            (entry.id, floor_to(first, DAY), mark),
        )
        entry = self._changing(entry)
        entry.first, entry.mark = first, mark
        if entry.last_candle is not None and entry.last_candle >= mark:
            entry.last_candle = Millis(mark - MINUTE)
        self._db.execute(
            "UPDATE series SET first_ms = ?, mark_ms = ?, last_candle_ms = ? WHERE id = ?",
            (first, mark, entry.last_candle, entry.id),
        )

    def _open_days(self, id_: int, since: Millis, until: Millis) -> None:
        """The days of ``[since, until)``, which are about to be accounted for, are open unless they are sealed."""
        days = [(id_, day) for day in range(floor_to(since, DAY), until, DAY)]
        self._db.executemany(
            f"INSERT OR IGNORE INTO open_day SELECT ?1, ?2, ?2 + {OVER}"
            " WHERE NOT EXISTS (SELECT 1 FROM sealed WHERE series_id = ?1 AND day_ms = ?2)",
            days,
        )

    def stored(self, entry: Entry, minute: Millis) -> None:
        """A candle of *minute* was accepted; the newest one is remembered."""
        if entry.last_candle is None or minute > entry.last_candle:
            self._changing(entry).last_candle = minute
            self._db.execute("UPDATE series SET last_candle_ms = ? WHERE id = ?", (minute, entry.id))

    def count_in_gaps(self, entry: Entry, length: int) -> None:
        """Note that *length* ms more of *entry* are in open gaps; fewer if *length* is negative."""
        self._changing(entry).in_gaps += length


def _own_folder(series: Series) -> str | None:
    """*series*' folder, if it is not the one that its symbol shows; else ``None``."""
    try:
        return None if canonical_symbol(series.symbol) == series.folder else series.folder
    except ValueError:
        return series.folder


def _is_of_minutes(path: str) -> bool:
    """Whether *path* is well-formed as that of a day file of minutes, of any series; a malformed path is damaged."""
    match = _DAY_FILE.fullmatch(path)
    try:
        return match is not None and canonical_symbol(match[1]) == match[1] and bool(date.fromisoformat(match[2]))
    except ValueError:
        return False


_DAY_FILE = re.compile(r"[^/]+/([^/]+)/1m/([0-9]{4}-[0-9]{2}-[0-9]{2})\.parquet")
