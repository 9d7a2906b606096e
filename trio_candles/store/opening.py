"""Making sure that a file is a sound journal of this format before anybody relies on it."""

from __future__ import annotations

import errno
import logging
import os
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing

from trio_candles.store.schema import FORMAT, TABLES, UPGRADES, candle_checksum

__all__ = ["JournalBroken", "OtherFormat", "is_temporary", "prepare"]


class JournalBroken(Exception):
    """The file is no sound journal; what the journal held is lost, and the day files are not."""


class OtherFormat(Exception):
    """The journal is of another version of this program; refused, never guessed at."""


log = logging.getLogger(__name__)

ATTEMPT_MS = 500
ATTEMPTS = 60
"""Half a minute in all for a reader that came first. Between two attempts we can be stopped, and readers can begin."""

LOG_BYTES = 64 * 1024 * 1024
"""To how many bytes the write-ahead log shrinks once it has been copied: it grows for as long as somebody reads."""

_READ_FAILED = re.compile(r"error code=([0-9]+)")
"""``integrity_check`` reports a failing disk in its text, as if the file were damaged."""


def is_temporary(error: Exception) -> bool:
    """Whether *error* may pass by itself: a full or failing disk, another process's lock; not a faulty statement."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    return isinstance(error, sqlite3.OperationalError) and code != sqlite3.SQLITE_ERROR


def prepare(database: sqlite3.Connection, go_on: Callable[[], object], attempts: int = ATTEMPTS) -> None:
    """Make a new file a journal, and an older format this one; check that the file is sound.

    ``sqlite3.DatabaseError`` if the file is damaged or holds something else, ``OSError`` if the disk cannot be read,
    :class:`OtherFormat` if another version made it.
    """
    fresh = database.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
    _write_ahead(database, go_on, attempts)
    database.execute("PRAGMA synchronous = FULL")
    # On macOS a sync that empties the disk's own memory too; no other system has such a thing (pragma_fullfsync).
    database.execute("PRAGMA fullfsync = ON")
    database.execute("PRAGMA checkpoint_fullfsync = ON")
    database.execute(f"PRAGMA journal_size_limit = {LOG_BYTES}")
    if fresh:
        database.executescript(f"BEGIN IMMEDIATE;{TABLES}INSERT INTO meta VALUES ('format', '{FORMAT}');COMMIT;")
    found = database.execute("SELECT value FROM meta WHERE key = 'format'").fetchone()
    if found is None:
        raise sqlite3.DatabaseError("it has no format")
    if found != (FORMAT,) and found[0] not in UPGRADES:
        raise OtherFormat(f"the journal's format is {found[0]}; this version knows {FORMAT}")
    (check,) = database.execute("PRAGMA integrity_check(1)").fetchone()
    if check != "ok":
        failed = _READ_FAILED.search(check)
        if failed is not None and int(failed[1]) & 0xFF == sqlite3.SQLITE_IOERR:
            raise OSError(errno.EIO, f"{os.strerror(errno.EIO)}: the journal cannot be read: {check}")
        raise sqlite3.DatabaseError(check)
    if found != (FORMAT,):
        database.create_function("candle_checksum", -1, lambda *row: candle_checksum(row), deterministic=True)
        database.executescript(
            f"BEGIN IMMEDIATE;{UPGRADES[found[0]]}UPDATE meta SET value = '{FORMAT}' WHERE key = 'format';COMMIT;"
        )
    tables = "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name"
    with closing(sqlite3.connect(":memory:")) as model:
        model.executescript(TABLES)
        if database.execute(tables).fetchall() != model.execute(tables).fetchall():
            raise sqlite3.DatabaseError("other tables than ours")


def _write_ahead(database: sqlite3.Connection, go_on: Callable[[], object], attempts: int) -> None:
    """Switch the journal to a write-ahead log, beside which readers are in nobody's way; any reader blocks the switch.

    *go_on* is called between two attempts, and may raise.
    """
    (usual,) = database.execute("PRAGMA busy_timeout").fetchone()
    database.execute(f"PRAGMA busy_timeout = {ATTEMPT_MS}")
    for attempt in range(attempts):
        try:
            database.execute("PRAGMA journal_mode = WAL")
            break
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or attempt + 1 == attempts:
                raise
            if not attempt:
                log.warning(
                    "another program is reading the journal (an audit, a backup?); waiting up to %d s for it to end",
                    attempts * ATTEMPT_MS // 1000,
                )
            go_on()
    database.execute(f"PRAGMA busy_timeout = {usual}")
