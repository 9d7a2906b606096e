"""The values of changes, read where they lie: in the journal, in the day files, or not at all any more.

What became durable since a change was told may be read already: a later candle of the minute, never an earlier one. So
the rows of the feed and the values need not be of one moment; what is read of one series and day is.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import attrs
import pyarrow as pa

from trio_candles.candles.intervals import Interval
from trio_candles.candles.model import DAY, MINUTE, Millis
from trio_candles.reading.errors import DayFileDamaged
from trio_candles.reading.files import DayFiles, Digests, FileChanged
from trio_candles.reading.ledger import Account, Ledger

__all__ = ["DayOfValues", "Needed", "Row", "Values"]

Row = tuple[float, float, float, float, float, float | None, float | None, int | None, str, int]
"""open, high, low, close, volume, quote volume, vwap, count of trades, source, time of ingestion."""

COLUMNS = (
    "open_time_ms", "open", "high", "low", "close", "volume", "quote_volume", "vwap", "trades_count", "source",
    "ingest_time_ms",
)  # fmt: skip
TRIES = 50
"""As for ``read_candles``: a file that is not the ledger's in so many readings is not just being replaced."""
AT_ONCE = 64
"""Days of which the ledger is asked in one transaction: their files are read after it."""
FILES_KEPT = 128
"""Day files whose rows are kept for the next reading, some 100 KB each."""


@attrs.define
class Needed:
    """Minutes ``[since, until)`` of one series and one UTC day whose values are needed."""

    account: Account
    since: int
    until: int
    undone: int | None = None
    """The replacements after this number of the feed are needed, too."""

    def add(self, since: int, until: int) -> None:
        """``[since, until)`` is needed as well."""
        self.since, self.until = min(self.since, since), max(self.until, until)

    def undo_after(self, seq: int) -> None:
        """The replacements from *seq* on are needed as well."""
        self.undone = seq - 1 if self.undone is None else min(self.undone, seq - 1)


@attrs.frozen
class DayOfValues:
    """What is stored of the needed minutes of a day, at one moment."""

    rows: dict[int, Row]
    """By open time."""
    unknown: tuple[Interval, ...]
    """The needed minutes that are a gap, open or unfillable, oldest first."""
    revisions: tuple[tuple[int, int, str], ...] = ()
    """Replacements that were asked for: number in the feed, minute, and what was replaced, as JSON."""


Snapshot = Callable[[], AbstractContextManager[Ledger]]


class Values:
    """The values in one data directory; keeps the rows of some day files between two readings."""

    def __init__(self, root: Path, snapshot: Snapshot) -> None:
        self._root = root
        self._snapshot = snapshot
        self._tables: OrderedDict[tuple[str, str], pa.Table] = OrderedDict()

    def read(self, needed: Sequence[Needed]) -> list[DayOfValues]:
        """What is stored of each of *needed*, in their order."""
        found: list[DayOfValues] = []
        for index in range(0, len(needed), AT_ONCE):
            found += self._read(needed[index : index + AT_ONCE])
        return found

    def _read(self, needed: Sequence[Needed]) -> Iterable[DayOfValues]:
        found: dict[int, DayOfValues] = {}
        changed = FileChanged("", "")
        for _ in range(TRIES):
            left = [index for index in range(len(needed)) if index not in found]
            if not left:
                return (found[index] for index in range(len(needed)))
            with self._snapshot() as ledger:
                asked = [(index, *_ask(ledger, needed[index])) for index in left]
            for index, day, files in asked:
                try:
                    found[index] = self._with_files(needed[index], day, files)
                except FileChanged as error:
                    changed = error
        raise DayFileDamaged(changed.path, changed.why)

    def _with_files(self, needed: Needed, day: DayOfValues, files: dict[str, Digests]) -> DayOfValues:
        rows: dict[int, Row] = {}
        for path, digests in files.items():
            table = self._table(path, digests)
            if table is not None:
                rows.update(_rows(table, needed.since, needed.until))
        rows.update(day.rows)
        return attrs.evolve(day, rows=rows)

    def _table(self, path: str, digests: Digests) -> pa.Table | None:
        key = (path, digests[0] or "")
        if digests[1] is None and key in self._tables:
            self._tables.move_to_end(key)
            return self._tables[key]
        table = DayFiles(self._root).read({path: digests}, COLUMNS)
        if digests[1] is None:
            self._tables[key] = table
            if len(self._tables) > FILES_KEPT:
                self._tables.popitem(last=False)
        return table


def _ask(ledger: Ledger, needed: Needed) -> tuple[DayOfValues, dict[str, Digests]]:
    """What the ledger has of *needed*, and the file that has the rest of the rows, if there is a rest."""
    account, since, until = needed.account, needed.since, needed.until
    waiting: dict[int, Row] = {row[0]: row[1:] for row in ledger.waiting(account, since, until)}
    unknown = tuple((gap.since, gap.until) for gap in ledger.gaps(account, since, until))
    revisions = () if needed.undone is None else ledger.told.replacements(account.id, since, until, needed.undone)
    day = DayOfValues(waiting, unknown, tuple(revisions))
    if len(waiting) == (until - since) // MINUTE:
        return day, {}
    begin = since - since % DAY
    return day, ledger.files(account, "1m", Millis(begin), Millis(begin + DAY))


def _rows(table: pa.Table, since: int, until: int) -> dict[int, Row]:
    """The rows of *table* that open in ``[since, until)``."""
    times = table.column("open_time_ms").to_pylist()
    low, high = _position(times, since), _position(times, until)
    columns = [column.to_pylist() for column in table.slice(low, high - low).columns]
    return {row[0]: row[1:] for row in zip(*columns, strict=True)}


def _position(times: Sequence[int | None], time: int) -> int:
    return bisect_left(times, time)  # type: ignore[type-var]  # the column is not nullable
