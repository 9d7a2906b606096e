"""Reading the journal beside a live collector, or where nothing may be written: one consistent moment of it.

For the tools and the reader; shares nothing with the writing path but the names of the schema.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from trio_candles.store.schema import JOURNAL

__all__ = ["open_snapshot"]


@contextmanager
def open_snapshot(path: Path) -> Iterator[sqlite3.Connection]:
    """A read transaction on *path*, or on a copy of it where SQLite cannot read in place.

    A write-ahead log needs a shared-memory file beside it, which a read-only disk refuses; ``immutable=1``
    would open such a journal and silently leave out what is in its log.
    """
    with ExitStack() as stack:
        try:
            database = stack.enter_context(closing(_connect(path, "ro")))
            _begin(database)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
                raise
            database = stack.enter_context(closing(_connect(_copy(path, stack), "rw")))
            _begin(database)
        yield database


def _copy(path: Path, stack: ExitStack) -> Path:
    """A copy of the journal at *path*, its log included, for as long as *stack* lasts."""
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="trio-candles-"))
    for suffix in ("", "-wal", "-journal"):
        original = path.with_name(path.name + suffix)
        if original.exists():
            shutil.copyfile(original, Path(folder, JOURNAL + suffix))
    return Path(folder, JOURNAL)


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True, isolation_level=None, timeout=5.0)


def _begin(database: sqlite3.Connection) -> None:
    """Begin a read transaction and read once: its snapshot is that of the first read, which is also what may fail."""
    database.execute("BEGIN")
    try:
        database.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except UnicodeDecodeError as error:
        # A flipped bit in the schema: SQLite quotes it in its complaint, which Python then cannot decode.
        raise sqlite3.DatabaseError(f"malformed database schema: {error}") from error
