"""Rows out of day files that are the ledger's, joined with those that wait in the journal.

The ledger is read first and the files afterwards: rows leave the journal only once they are in a file, so a reader that
went the other way round would miss the rows that moved in between. A file that was replaced meanwhile has a digest that
this reading of the ledger does not know (:class:`FileChanged`); then the ledger and the files are read again. Digests
are computed by :func:`~trio_candles.store.schema.digest_of` and put into the ledger by
:mod:`trio_candles.store.flushing`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from trio_candles.candles.model import MINUTE, Series
from trio_candles.reading.errors import DayFileDamaged, LedgerUnreadable
from trio_candles.store.schema import COLUMNS, digest_of

__all__ = ["DayFiles", "FileChanged", "between", "schema_of", "strictly_sorted", "waiting_table", "with_waiting"]

Digests = tuple[str | None, str | None]
"""A day file's current digest and its pending one, as the ledger has them."""


class FileChanged(Exception):
    """A day file is not the one of which this reading of the ledger has the digest; of a later reading it may be."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(path, why)
        self.path, self.why = path, why


def schema_of(columns: Sequence[str]) -> pa.Schema:
    """The contract's schema of *columns*, in that order."""
    return pa.schema([COLUMNS.field(name) for name in columns])


@attrs.define
class DayFiles:
    """The day files of a data directory; keeps what it has read, for when the ledger must be read again."""

    root: Path
    _kept: dict[tuple[str, Sequence[str]], tuple[str, pa.Table]] = attrs.field(factory=dict)

    def read(self, files: Mapping[str, Digests], columns: Sequence[str]) -> pa.Table:
        """The rows of *files*, in their order; :class:`FileChanged` if one is not what the ledger says."""
        tables = [self._file(path, digests, tuple(columns)) for path, digests in files.items()]
        return pa.concat_tables([schema_of(columns).empty_table(), *(table for table in tables if table is not None)])

    def _file(self, path: str, digests: Digests, columns: tuple[str, ...]) -> pa.Table | None:
        kept = self._kept.get((path, columns))
        if kept is not None and kept[0] == digests[0] and digests[1] is None:
            return kept[1]
        try:
            content = (self.root / path).read_bytes()
        except FileNotFoundError:
            if digests[0] is None:
                return None  # its first replacement is under way, and the journal still has the rows
            raise FileChanged(path, "the ledger lists it and it is gone") from None
        except OSError as error:  # on Windows also the instant in which it is replaced
            raise FileChanged(path, f"{type(error).__name__}: {error}") from error
        digest = digest_of(content)
        if digest not in digests:
            raise FileChanged(path, "its digest is not the ledger's")
        table = _parsed(content, path, columns)
        self._kept[path, columns] = (digest, table)
        return table


def _parsed(content: bytes, path: str, columns: tuple[str, ...]) -> pa.Table:
    """Rows of a file whose digest was verified: it is, bit by bit, what the writer wrote, checked and read back."""
    try:
        # From a buffer and without threads: reading from Python file objects has aborted processes at exit.
        table = pq.ParquetFile(pa.BufferReader(content)).read(list(columns), use_threads=False)
        table = table.select(list(columns)).replace_schema_metadata(None)
    except (pa.ArrowException, OSError, LookupError) as error:
        raise DayFileDamaged(path, str(error)) from error
    if not table.schema.equals(schema_of(columns)):
        raise DayFileDamaged(path, "other columns than ours")
    return table


def between(table: pa.Table, since: int, until: int) -> pa.Table:
    """The rows that open in ``[since, until)``."""
    if table.num_rows == 0:
        return table
    times = table.column("open_time_ms")
    first, last = times[0].as_py(), times[-1].as_py()
    if since <= first and last < until:
        return table
    return table.filter(pc.and_(pc.greater_equal(times, pa.scalar(since)), pc.less(times, pa.scalar(until))))


def waiting_table(series: Series, rows: Sequence[Sequence[object]]) -> pa.Table:
    """*rows* that wait in the journal for a day file of *series*, as in one; :class:`LedgerUnreadable` if they do not
    fit.
    """
    if not rows:
        return COLUMNS.empty_table()
    opens, *numbers, source, ingest = zip(*rows, strict=True)
    count = len(rows)
    try:
        values = [
            [series.venue] * count, [series.symbol] * count, [series.timeframe] * count, opens,
            [time + MINUTE for time in opens], *numbers, [True] * count, source, ingest,
        ]  # fmt: skip
        arrays = [pa.array(column, field.type) for column, field in zip(values, COLUMNS, strict=True)]
    except (pa.ArrowException, OverflowError, TypeError) as error:
        raise LedgerUnreadable(f"{series}: the journal's candles make no sense: {error}") from error
    return pa.Table.from_arrays(arrays, schema=COLUMNS)


def with_waiting(filed: pa.Table, waiting: pa.Table) -> pa.Table:
    """Rows of both, sorted; of a minute that is in both, the journal's: it is equal, or it replaces the file's."""
    waiting = waiting.select(filed.column_names)
    if waiting.num_rows == 0:
        return filed
    times, opens = filed.column("open_time_ms"), waiting.column("open_time_ms")
    if filed.num_rows and times[-1].as_py() >= opens[0].as_py():
        filed = filed.filter(pc.invert(pc.is_in(times, value_set=opens.combine_chunks())))
        return pa.concat_tables([filed, waiting]).sort_by("open_time_ms")
    return pa.concat_tables([filed, waiting])


def strictly_sorted(table: pa.Table) -> bool:
    """Whether every row opens after the one before it."""
    times = table.column("open_time_ms")
    if len(times) < 2:
        return True
    return bool(pc.all(pc.less(times.slice(0, len(times) - 1), times.slice(1))).as_py())
