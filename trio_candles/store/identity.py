"""What a data directory remembers about itself, even if its journal is lost: whose it is, and its latest time."""

from __future__ import annotations

import math
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType

from trio_candles.candles.model import DAY, Millis
from trio_candles.store.schema import IDENTITY, JOURNAL, QUARANTINE, TMP, identity_in
from trio_candles.store.snapshot import open_snapshot

__all__ = ["remembered_meta"]


def remembered_meta(data_dir: Path) -> dict[str, str]:
    """What *data_dir* remembers about itself, as its journal's ``meta`` has it.

    What the journal does not have (it is lost, or was just made anew) comes from ``identity.json``, and the latest time
    from the newest candle in the day files.
    """
    meta = _meta_in_journal(data_dir)
    with suppress(OSError, ValueError):
        meta = identity_in((data_dir / IDENTITY).read_bytes()) | meta
    if "latest_ms" not in meta:
        newest = _newest_stored(data_dir)
        if newest is not None:
            meta["latest_ms"] = str(newest)
    return meta


def _meta_in_journal(data_dir: Path) -> dict[str, str]:
    path = data_dir / JOURNAL
    if not os.path.isfile(path):  # not path.is_file(): before Python 3.14 a closed directory made it fail
        return {}
    try:
        with open_snapshot(path) as database:
            found = {str(key): str(value) for key, value in database.execute("SELECT key, value FROM meta")}
    except (sqlite3.Error, OSError):
        return {}
    return {key: value for key, value in found.items() if key not in _NUMBERS or _is_number(value, _NUMBERS[key])}


_NUMBERS: Mapping[str, type] = MappingProxyType({"seed": int, "speed": float, "pivot": float, "latest_ms": int})


def _is_number(text: str, kind: type) -> bool:
    """Whether *text* is a number of *kind*; SQLite has no checksums, and a flipped bit must not prevent a start."""
    try:
        return math.isfinite(kind(text))
    except (ValueError, OverflowError):
        return False


def _newest_stored(data_dir: Path) -> Millis | None:
    """The end of the newest stored candle; of a day file that cannot be read, its day's first instant."""
    found = [(day, path) for path in _parquet_files(data_dir) if (day := _day_in(path.name)) is not None]
    newest = max((day for day, _ in found), default=None)
    if newest is None:
        return None
    return max(_last_close(path, newest) for day, path in found if day == newest)


def _parquet_files(data_dir: Path) -> Iterator[Path]:
    for venue in _names(data_dir):
        if venue not in (TMP, QUARANTINE):
            for symbol in _names(data_dir / venue):
                for timeframe in _names(data_dir / venue / symbol):
                    folder = data_dir / venue / symbol / timeframe
                    yield from (folder / name for name in _names(folder) if name.endswith(".parquet"))


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _day_in(name: str) -> Millis | None:
    try:
        day = datetime.strptime(name, "%Y-%m-%d.parquet").replace(tzinfo=UTC)
    except ValueError:
        return None
    return Millis(int(day.timestamp()) * 1000)


def _last_close(path: Path, day: Millis) -> Millis:
    """When the last candle in *path*, a file of *day*, ended; the day's first instant if that cannot be read."""
    # Imported late: only a directory whose journal is lost needs pyarrow, and no other should wait for the import.
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        content = pa.BufferReader(path.read_bytes())
        table = pq.ParquetFile(content, page_checksum_verification=True).read(["close_time_ms"], use_threads=False)
        closes = table.column("close_time_ms").to_pylist()
    except (OSError, ValueError, LookupError, pa.ArrowException):
        return day
    return Millis(max((close for close in closes if isinstance(close, int) and day < close <= day + DAY), default=day))
