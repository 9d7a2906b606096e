"""Day files: one series' candles of one UTC day as parquet, only ever replaced whole.

The steps of a replacement are functions of their own, in the order in which they must happen, because a crash
may come between any two of them (the order itself is in :mod:`trio_candles.store.store`):

``encode`` in memory → ``write_temporary`` (write, fsync, read back, compare) → the journal notes the pending
digest → ``put_in_place`` (replace, fsync the folder) → the journal notes that it is done.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs
import pyarrow as pa
import pyarrow.parquet as pq

from trio_candles.model import DAY, Candle, Millis, Series, Source, day_name
from trio_candles.store.schema import COLUMNS, digest_of

__all__ = ["DayFile", "DayFileBroken", "candles_in", "encode", "merged", "put_in_place", "read", "write_temporary"]

_STRINGS = ["venue", "symbol", "timeframe", "source"]
_TIMES = ["open_time_ms", "close_time_ms", "ingest_time_ms"]


class DayFileBroken(Exception):
    """A day file does not say what it was written to say; never merged, never overwritten."""


@attrs.frozen
class DayFile:
    """The place of one series' candles of one UTC day."""

    series: Series
    day: Millis
    """The day's first instant."""

    @property
    def path(self) -> str:
        """Below the data directory, with ``/``."""
        return f"{self.series.folder}/{day_name(self.day)}.parquet"


def table_of(candles: Sequence[Candle]) -> pa.Table:
    """*candles* as rows of the day file's columns, in the order given."""
    return pa.table(
        {
            "venue": [candle.series.venue for candle in candles],
            "symbol": [candle.series.symbol for candle in candles],
            "timeframe": [candle.series.timeframe for candle in candles],
            "open_time_ms": [candle.open_time for candle in candles],
            "close_time_ms": [candle.close_time for candle in candles],
            "open": [candle.open for candle in candles],
            "high": [candle.high for candle in candles],
            "low": [candle.low for candle in candles],
            "close": [candle.close for candle in candles],
            "volume": [candle.volume for candle in candles],
            "quote_volume": [candle.quote_volume for candle in candles],
            "vwap": [candle.vwap for candle in candles],
            "trades_count": [candle.trades_count for candle in candles],
            "is_closed": [candle.is_closed for candle in candles],
            "source": [candle.source.value for candle in candles],
            "ingest_time_ms": [candle.ingest_time for candle in candles],
        },
        schema=COLUMNS,
    )


def candles_in(table: pa.Table, series: Series) -> Iterator[Candle]:
    """The rows of *table* as candles."""
    for row in table.to_pylist():
        yield Candle(
            series, row["open_time_ms"], row["open"], row["high"], row["low"], row["close"], row["volume"],
            row["quote_volume"], row["vwap"], row["trades_count"], Source(row["source"]), row["ingest_time_ms"],
            row["close_time_ms"], row["is_closed"],
        )  # fmt: skip


def merged(old: pa.Table | None, candles: Sequence[Candle]) -> tuple[pa.Table, int]:
    """*old*'s rows and *candles*, sorted and unique by open time; and how many are new.

    A minute that is in both keeps *old*'s row: the journal lets only equal ones come this far.
    """
    present = set() if old is None else set(old.column("open_time_ms").to_pylist())
    fresh = [candle for candle in candles if candle.open_time not in present]
    table = table_of(fresh)
    if old is not None:
        table = pa.concat_tables([old, table]).sort_by("open_time_ms")
    return table.combine_chunks(), len(fresh)


def encode(table: pa.Table) -> pa.Buffer:
    """*table* as parquet, with a checksum in every page."""
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        compression="zstd",
        write_page_checksum=True,
        # Constant strings shrink to nothing as dictionaries; delta coding suits times; prices are left plain,
        # because not every reader's fast path knows byte-stream-split.
        use_dictionary=_STRINGS,  # type: ignore[arg-type]  # the stubs know only bool
        column_encoding=dict.fromkeys(_TIMES, "DELTA_BINARY_PACKED"),
    )
    return sink.getvalue()


def read(content: bytes, file: DayFile) -> pa.Table:
    """The rows in *content*, with every page's checksum verified; :class:`DayFileBroken` if it is not *file*."""
    try:
        # From a buffer and without threads: reading from Python file objects has aborted processes at exit.
        reader = pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True)
        table = reader.read(use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise DayFileBroken(f"{file.path}: {error}") from error
    if not table.schema.equals(COLUMNS, check_metadata=False):
        raise DayFileBroken(f"{file.path}: other columns than ours")
    times: list[int] = table.column("open_time_ms").to_pylist()  # type: ignore[assignment]  # not nullable
    if any(not file.day <= time < file.day + DAY for time in times) or times != sorted(set(times)):
        raise DayFileBroken(f"{file.path}: rows of another day, or not sorted, or twice")
    return table.replace_schema_metadata(None)


def write_temporary(path: Path, content: pa.Buffer) -> None:
    """*content* durable in *path*, a new file, and read back to be sure; OSError if the disk does not do it.

    A file whose fsync failed is never synced again (the kernel may have dropped its pages and say nothing the
    second time): it is removed, and the next flush writes another.
    """
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o644)
        try:
            rest = memoryview(content)
            while rest:
                rest = rest[os.write(handle, rest) :]
            os.fsync(handle)
        finally:
            os.close(handle)
        if digest_of(path.read_bytes()) != digest_of(content):
            raise OSError(f"{path.name}: what was read back is not what was written")
    except OSError:
        path.unlink(missing_ok=True)
        raise


def make_folder(root: Path, folder: str) -> None:
    """*folder* below *root*, with every step of it durable."""
    path = root
    for part in folder.split("/"):
        parent, path = path, path / part
        if not path.is_dir():
            path.mkdir(exist_ok=True)
            sync_folder(parent)


def put_in_place(temporary: Path, target: Path) -> None:
    """Replace *target* by *temporary*, atomically; durable with its folder's fsync, which the caller does."""
    os.replace(temporary, target)


def sync_folder(path: Path) -> None:
    """Make the names in *path* durable; Windows has no such call and does it with the rename."""
    if sys.platform == "win32":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
