"""Day files: one series' candles of one UTC day as parquet, only ever replaced whole.

The steps of a replacement are functions of their own, in the order in which they must happen, because a crash
may come between any two of them (the order itself is in :mod:`trio_candles.store.flushing`):

``encode`` in memory → ``write_temporary`` (write, fsync, read back, compare) → the journal notes the pending
digest → replace → fsync the folder → the journal notes that it is done.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import attrs
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from trio_candles.candles.intervals import minutes
from trio_candles.candles.model import DAY, Candle, Millis, Series, Source, Timeframe, day_name
from trio_candles.store.accounts import STORED, Account, AccountBroken, account_in, account_json
from trio_candles.store.disk import SHARING, Disk, held_if
from trio_candles.store.schema import ACCOUNT_KEY, COLUMNS, QUARANTINE, SERIES_KEY, STRINGS, digest_of

__all__ = [
    "DayFile",
    "DayFileBroken",
    "account_of",
    "agrees",
    "candles_in",
    "closes_in",
    "content_of",
    "day_file",
    "day_of",
    "encode",
    "identify",
    "make_folder",
    "merged",
    "read",
    "set_aside",
    "times_in",
    "write_temporary",
]

_EPOCH = date(1970, 1, 1).toordinal()
_NOTHING = pa.scalar(0.0, pa.float64())  # an untyped one would look for a package of dates each time
_TIMES = ["open_time_ms", "close_time_ms", "ingest_time_ms"]


class DayFileBroken(Exception):
    """A day file does not say what it was written to say; never merged, never overwritten."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(f"{path}: {why}")
        self.path = path


@attrs.frozen
class DayFile:
    """The place of one series' candles of one UTC day."""

    series: Series
    day: Millis
    """The day's first instant."""

    @property
    def path(self) -> str:
        """Below the data directory, with ``/``."""
        return f"{self.series.path}/{day_name(self.day)}.parquet"

    @property
    def base(self) -> Series:
        """The 1m series that the rows are of, or are derived from."""
        return attrs.evolve(self.series, timeframe="1m")

    @property
    def is_base(self) -> bool:
        """Whether it holds minutes, and no aggregates."""
        return self.series.timeframe == "1m"

    def of(self, timeframe: str) -> DayFile:
        """The day's file of another timeframe."""
        return DayFile(attrs.evolve(self.series, timeframe=timeframe), self.day)


def day_of(name: str) -> Millis | None:
    """The first instant of the day that a file called *name* is about; ``None`` if that is no day file's name."""
    try:
        day = date.fromisoformat(name[:10])
    except ValueError:
        return None
    time = Millis((day.toordinal() - _EPOCH) * DAY)
    return time if name == f"{day_name(time)}.parquet" else None


def day_file(path: str, series: Series) -> DayFile | None:
    """The day file of *series* that belongs at *path*; ``None`` if none does."""
    folder, _, name = path.rpartition("/")
    day = day_of(name)
    return None if day is None or folder != series.path else DayFile(series, day)


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


def merged(old: pa.Table | None, candles: Sequence[Candle], replaced: Collection[Millis] = ()) -> pa.Table:
    """*old*'s rows and *candles*, oldest first; sorted and unique by open time.

    A minute that is in both keeps *old*'s row, unless it is in *replaced*: of the minutes in *old*, the journal lets
    only equal candles and replaced ones come this far.
    """
    if old is None or old.num_rows == 0:
        return table_of(candles)
    if not candles:
        return old.combine_chunks()
    if candles[0].open_time > old.column("open_time_ms")[-1].as_py():  # nearly always
        return pa.concat_tables([old, table_of(candles)]).combine_chunks()
    present = set(times_in(old))
    new = [candle for candle in candles if candle.open_time not in present or candle.open_time in replaced]
    gone = present.intersection(candle.open_time for candle in new)
    if gone:
        old = old.filter(pa.array([time not in gone for time in times_in(old)]))
    return pa.concat_tables([old, table_of(new)]).sort_by("open_time_ms").combine_chunks()


def with_rows(old: pa.Table | None, gone: Collection[Millis], candles: Sequence[Candle]) -> pa.Table:
    """*old*'s rows without those that open at one of *gone*, and *candles* in their places."""
    table = table_of(candles)
    if old is not None:
        kept = old.filter(pa.array([time not in gone for time in times_in(old)], pa.bool_()))
        table = pa.concat_tables([kept, table]).sort_by("open_time_ms")
    return table.combine_chunks()


def times_in(table: pa.Table) -> list[Millis]:
    """The open times of *table*'s rows."""
    return table.column("open_time_ms").to_pylist()  # type: ignore[return-value]  # not nullable


def closes_in(table: pa.Table) -> list[Millis]:
    """The close times of *table*'s rows."""
    return table.column("close_time_ms").to_pylist()  # type: ignore[return-value]  # not nullable


def encode(table: pa.Table, series: Series | None = None, account: Account | None = None) -> bytes:
    """*table* as the bytes of a parquet file with a checksum in every page. If *series* is given, the metadata names
    it: a venue may write symbols that do not show their folder. The *account* of a sealed day lies there, too.
    """
    if series is not None:
        metadata = {SERIES_KEY: json.dumps(_names(series))}
        if account is not None:
            metadata[ACCOUNT_KEY] = account_json(account)
        table = table.replace_schema_metadata(metadata)
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        # Snappy takes half the time of zstd to read, and to write, for a quarter more bytes: in a file this small,
        # beginning to decompress costs more than decompressing, twenty times a file.
        compression="snappy",
        write_page_checksum=True,
        write_statistics=_TIMES,  # what a reader skips files by
        # Constant strings shrink to nothing as dictionaries; delta coding suits times; prices are left plain,
        # because not every reader's fast path knows byte-stream-split.
        use_dictionary=[*STRINGS],  # type: ignore[arg-type]  # the stubs know only bool
        column_encoding=dict.fromkeys(_TIMES, "DELTA_BINARY_PACKED"),
    )
    return sink.getvalue().to_pybytes()


def _names(series: Series) -> dict[str, str]:
    return {"venue": series.venue, "symbol": series.symbol, "folder": series.folder}


def content_of(disk: Disk, root: Path, path: str) -> bytes:
    """What is in the file at *path* below *root*; :class:`DayFileBroken` if a folder lies in its place."""
    try:
        return disk.read(root / path)
    except (IsADirectoryError, PermissionError) as error:  # the latter is what Windows says
        if not (root / path).is_dir():
            raise
        raise DayFileBroken(path, "a folder lies in the place of the file") from error


def read(content: bytes, file: DayFile) -> pa.Table:
    """The rows in *content*, with every page's checksum verified; :class:`DayFileBroken` if it is not *file*."""
    return _checked(_parsed(content, file.path), file)


def account_of(content: bytes, file: DayFile) -> Account | None:
    """The account that *content*, which is *file*, carries; ``None`` if none. :class:`DayFileBroken` if its minutes are
    not those of the rows, or if it is another file's.
    """
    return _account_in(_parsed(content, file.path), file)


def _account_in(table: pa.Table, file: DayFile) -> Account | None:
    text = (table.schema.metadata or {}).get(ACCOUNT_KEY)
    if text is None:
        return None
    try:
        account = account_in(text)
    except AccountBroken as error:
        raise DayFileBroken(file.path, str(error)) from error
    if (account.series, account.day) != (file.series, file.day):
        raise DayFileBroken(file.path, "its account is another file's")
    if not agrees(account, table):
        raise DayFileBroken(file.path, "its rows are not the minutes that its account says are stored")
    return account


def agrees(account: Account, table: pa.Table) -> bool:
    """Whether the rows of *table* are exactly the minutes that *account* says are stored."""
    return times_in(table) == list(minutes(account.spans(STORED)))


def identify(content: bytes, path: str) -> tuple[DayFile, pa.Table, Account | None]:
    """Which day file *content* is, by its rows and its *path*; the rows; and the account, if there is one.

    For a rebuilding, when no ledger knows. :class:`DayFileBroken` if the content is no day file, lies in another's
    place, or has a row that would never have been written. Whether a row is in the future is not checked: a clock may
    be wrong, too.
    """
    table = _parsed(content, path)
    try:
        file = day_file(path, _series_of(table, path))
        if file is None:
            raise DayFileBroken(path, "rows that belong elsewhere")
        account = _account_in(table, file)
        table = _checked(table, file)
        wrong = next(_what_is_wrong(table, file), None)
        if wrong is not None:
            raise DayFileBroken(path, f"a row whose {wrong}")
        return file, table, account
    except ValueError as error:  # no symbol, no timeframe
        raise DayFileBroken(path, str(error)) from error


def _series_of(table: pa.Table, path: str) -> Series:
    """Whose rows are in *table*: the first row says so, or without rows the account."""
    if table.num_rows:
        row = table.slice(0, 1).to_pylist()[0]
        return Series(row["venue"], row["symbol"], row["timeframe"], _names_in(table, path).get("folder"))
    text = (table.schema.metadata or {}).get(ACCOUNT_KEY)
    if text is None:
        raise DayFileBroken(path, "no rows")
    return account_in(text).series


def _parsed(content: bytes, path: str) -> pa.Table:
    try:
        # From a buffer and without threads: reading from Python file objects has aborted processes at exit.
        reader = pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True)
        table = reader.read(use_threads=False)
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DayFileBroken(path, str(error)) from error
    if not table.schema.equals(COLUMNS, check_metadata=False):
        raise DayFileBroken(path, "other columns than ours")
    return table


def _names_in(table: pa.Table, path: str) -> dict[str, str]:
    """The names of its series in *table*'s metadata; nothing in a file that was written before they were there."""
    try:
        names = json.loads((table.schema.metadata or {}).get(SERIES_KEY, b"{}"))
    except ValueError as error:
        raise DayFileBroken(path, f"its metadata cannot be read: {error}") from error
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise DayFileBroken(path, "its metadata makes no sense")
    return names


def _checked(table: pa.Table, file: DayFile) -> pa.Table:
    series = file.series
    if _names_in(table, file.path) not in ({}, _names(series)):
        raise DayFileBroken(file.path, "its metadata is another series'")
    for column, name in (("venue", series.venue), ("symbol", series.symbol), ("timeframe", series.timeframe)):
        if table.column(column).unique().to_pylist() not in ([name], []):
            raise DayFileBroken(file.path, f"rows of another {column}")
    times, length = times_in(table), Timeframe.parse(series.timeframe).length
    opens = table.column("open_time_ms")
    # In Arrow where it is quicker than in Python: a flush does this twice for every day file.
    if pc.any(pc.less_equal(opens.slice(1), opens.slice(0, max(0, len(times) - 1)))).as_py():
        raise DayFileBroken(file.path, "not sorted, or a row twice")
    if times and (times[0] < file.day or times[-1] >= file.day + DAY or any([time % length for time in times])):
        raise DayFileBroken(file.path, "rows of another day, or between two candles")
    return table.replace_schema_metadata(None)


def _what_is_wrong(table: pa.Table, file: DayFile) -> Iterator[str]:
    """The rules of :func:`~trio_candles.candles.validation.broken_rule` that a row of *table* breaks, column by column.

    A price that is not a number fulfils no comparison, and an infinite one needs an infinite high: the high is tested.
    """
    o, high, low, close, volume = (table.column(name) for name in ("open", "high", "low", "close", "volume"))
    opens, closes = table.column("open_time_ms"), table.column("close_time_ms")
    length = Timeframe.parse(file.series.timeframe).length
    rules: dict[str, Any] = {
        "low is not above zero": pc.greater(low, _NOTHING),
        "low does not fit its open": pc.less_equal(low, o),
        "low does not fit its close": pc.less_equal(low, close),
        "high does not fit its open": pc.less_equal(o, high),
        "high does not fit its close": pc.less_equal(close, high),
        "high is not finite": pc.is_finite(high),
        "volume is below zero": pc.greater_equal(volume, _NOTHING),
        "volume is not finite": pc.is_finite(volume),
        "quote volume is not finite": pc.is_finite(table.column("quote_volume")),
        "vwap is not finite": pc.is_finite(table.column("vwap")),
        "close time is not its end": pc.equal(pc.subtract(closes, opens), pa.scalar(length, pa.int64())),
        "candle is not closed": table.column("is_closed"),
    }
    for rule, holds in rules.items():
        if not pc.all(holds, min_count=0).as_py():  # a null breaks no rule
            yield rule
    sources = {"websocket", "rest"} if file.is_base else {"aggregated"}
    if not sources.issuperset(table.column("source").unique().to_pylist()):
        yield "source writes no such row"


def write_temporary(disk: Disk, path: Path, content: bytes) -> None:
    """*content* durable in *path*, a new file, and read back to be sure; OSError if the disk does not do it.

    A file whose fsync failed is never synced again (the kernel may have dropped its pages and say nothing the
    second time): it is removed, and the next flush writes another.
    """
    try:
        disk.write_new(path, content)
        if digest_of(disk.read(path)) != digest_of(content):
            raise OSError(f"{path.name}: what was read back is not what was written")
    except OSError:
        disk.remove(path)
        raise


def make_folder(disk: Disk, root: Path, folder: str) -> None:
    """Make *folder* below *root*, and every folder on the way there durable.

    A folder that exists already is synced, too: a killed process may have had no time to sync it.
    """
    path = root
    for part in folder.split("/"):
        parent, path = path, path / part
        disk.make_folder(path)
        disk.sync_folder(parent)


def set_aside(disk: Disk, root: Path, path: str) -> str:
    """Move the file (or folder) at *path* to quarantine, under a name that is free; return the new path."""
    disk.make_folder(root / QUARANTINE)
    taken = set(disk.names(root / QUARANTINE))
    name = path.replace("/", "_")
    number = next(n for n in range(len(taken) + 1) if f"{name}.{n}" not in taken)
    target = f"{QUARANTINE}/{name}.{number}"
    with held_if(SHARING):
        disk.replace(root / path, root / target)
    # In this order, or a power cut could find the file in neither place.
    for folder in (root, root / QUARANTINE, (root / path).parent):
        disk.sync_folder(folder)
    return target
