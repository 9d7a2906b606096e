"""Making sure that a file is a sound journal of this format before anybody relies on it."""

from __future__ import annotations

import errno
import logging
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Protocol

from trio_candles.store.schema import FORMAT, NEW_EPOCH, SUSPECT, TABLES, UPGRADES, candle_checksum
from trio_candles.store.words import is_damaged

__all__ = [
    "GoOn",
    "JournalBroken",
    "NotAsWritten",
    "OtherFormat",
    "is_damage",
    "is_temporary",
    "prepare",
    "put_to_rest",
]


class GoOn(Protocol):
    """Called at every step of what may take long, with what is being done, how much of it is done, and of how much
    (0: nobody knows). What it raises ends the work, which the next start takes up again.
    """

    def __call__(self, what: str = "", done: int = 0, of: int = 0, /) -> object: ...


class JournalBroken(Exception):
    """The file is no sound journal; what the journal held is lost, and the day files are not."""


class OtherFormat(Exception):
    """The journal is of another version of this program; refused, never guessed at."""


class NotAsWritten(OtherFormat):
    """The journal is sound, and somebody has changed in it what is ours: refused with a remedy, never thrown away."""


log = logging.getLogger(__name__)

ATTEMPT_MS = 500
ATTEMPTS = 60
"""Half a minute in all for a reader that came first. Between two attempts we can be stopped, and readers can begin."""

LOG_BYTES = 64 * 1024 * 1024
"""To how many bytes the write-ahead log shrinks once it has been copied: it grows for as long as somebody reads."""

STEPS = 50_000
"""Of SQLite's machine between two looks whether to go on: some milliseconds."""

_READ_FAILED = re.compile(r"error code=([0-9]+)")
"""``integrity_check`` reports a failing disk in its text, as if the file were damaged."""


def is_temporary(error: Exception) -> bool:
    """Whether *error* may pass by itself: a full or failing disk, another process's lock; not a faulty statement."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    return isinstance(error, sqlite3.OperationalError) and code != sqlite3.SQLITE_ERROR


def is_damage(error: sqlite3.Error) -> bool:
    """Whether *error* says that what SQLite read is not what SQLite wrote."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def prepare(database: sqlite3.Connection, go_on: GoOn, attempts: int = ATTEMPTS) -> None:
    """Make a new file a journal, and an older format this one; check that the file is sound.

    What others have put beside our tables (statistics, tables and views of theirs) stays and is not looked at.
    ``sqlite3.DatabaseError`` if the file is damaged or holds something else, ``OSError`` if the disk cannot be read,
    :class:`OtherFormat` if another version made it, :class:`NotAsWritten` if ours is changed and nothing is damaged.
    """
    fresh = database.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
    _write_ahead(database, go_on, attempts)
    database.execute("PRAGMA synchronous = FULL")
    # On macOS a sync that empties the disk's own memory too; no other system has such a thing (pragma_fullfsync).
    database.execute("PRAGMA fullfsync = ON")
    database.execute("PRAGMA checkpoint_fullfsync = ON")
    database.execute(f"PRAGMA journal_size_limit = {LOG_BYTES}")
    if fresh:
        database.executescript(
            f"BEGIN IMMEDIATE;{TABLES}INSERT INTO meta VALUES ('format', '{FORMAT}');{NEW_EPOCH}COMMIT;"
        )
    found = _format(database)
    if found is not None and found != FORMAT and found not in UPGRADES:
        raise OtherFormat(f"the journal's format is {found}; this version knows {FORMAT}")
    with _stoppable(database, go_on, "Checking the journal"):
        _check_pages(database, whole=found != FORMAT or _is_suspect(database))
    if found in UPGRADES:
        with _stoppable(database, go_on, f"Bringing the journal up to format {FORMAT}"):
            _bring_up(database, found)
    _check_objects(database)
    if found is None:
        raise sqlite3.DatabaseError("it has no format")
    database.execute("DELETE FROM meta WHERE key = ?", (SUSPECT,))  # all of it was checked


def put_to_rest(database: sqlite3.Connection) -> None:
    """Leave one file without a write-ahead log; beside a reader that stays attached, a log with nothing in it.

    ``sqlite3.Error`` if a reader is in the middle of a transaction: then the log keeps what it has.
    """
    database.execute("PRAGMA busy_timeout = 1000")  # a stop has little time, and nothing is lost without
    is_busy, _, _ = database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    database.execute("PRAGMA busy_timeout = 0")
    try:
        database.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.OperationalError as error:
        if is_busy or error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
            raise


def _format(database: sqlite3.Connection) -> str | None:
    if database.execute("SELECT count(*) FROM sqlite_master WHERE name = 'meta'").fetchone() == (0,):
        return None
    row = database.execute("SELECT value FROM meta WHERE key = 'format'").fetchone()
    return None if row is None else row[0]


@contextmanager
def _stoppable(database: sqlite3.Connection, go_on: GoOn, what: str) -> Iterator[None]:
    """For the block *go_on* is told *what* is being done, while a statement runs, too; what it raises ends that."""
    raised: list[BaseException] = []

    def look() -> int:
        try:
            go_on(what)
        except BaseException as error:  # SQLite would swallow it
            raised.append(error)
        return len(raised)

    go_on(what)
    database.set_progress_handler(look, STEPS)
    try:
        yield
    except sqlite3.OperationalError:
        if raised:
            raise raised[0] from None
        raise
    finally:
        database.set_progress_handler(None, 0)


def _is_suspect(database: sqlite3.Connection) -> bool:
    return database.execute("SELECT 1 FROM meta WHERE key = ?", (SUSPECT,)).fetchone() is not None


def _check_pages(database: sqlite3.Connection, *, whole: bool) -> None:
    """Raise unless SQLite finds its pages, rows and indexes sound: of all tables but ``sealed``, or the *whole* file.

    ``sealed`` grows with history. Its rows have checksums, which are checked whenever one is used; whoever meets a
    page of it that cannot be read leaves ``SUSPECT``, so that the next start checks the whole file.
    """
    targets = ["1"]
    if not whole and sqlite3.sqlite_version_info >= (3, 33):  # an older one knows the whole file only
        tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name != 'sealed'").fetchall()
        targets = ["sqlite_master", *(f"'{name}'" for (name,) in tables if name in _OURS)]
    for target in targets:
        (check,) = database.execute(f"PRAGMA integrity_check({target})").fetchone()
        if check != "ok":
            failed = _READ_FAILED.search(check)
            if failed is not None and int(failed[1]) & 0xFF == sqlite3.SQLITE_IOERR:
                raise OSError(errno.EIO, f"{os.strerror(errno.EIO)}: the journal cannot be read: {check}")
            raise sqlite3.DatabaseError(check)


def _bring_up(database: sqlite3.Connection, found: str) -> None:
    database.create_function("candle_checksum", -1, lambda *row: candle_checksum(row), deterministic=True)
    try:
        database.executescript(
            f"BEGIN IMMEDIATE;{UPGRADES[found]}UPDATE meta SET value = '{FORMAT}' WHERE key = 'format';COMMIT;"
        )
    except sqlite3.OperationalError as error:
        if is_temporary(error):
            raise
        # The file is sound: somebody has changed a table of ours, or has made one whose name is now ours.
        raise NotAsWritten(
            f"the journal's format {found} cannot be brought up to {FORMAT}: {error}. Rename what is not ours, or put"
            f" back what is; or {_MOVE_IT}"
        ) from error


_OURS = {*re.findall(r"CREATE TABLE (\w+)", TABLES)}
_MOVE_IT = "move the journal away: the next start makes a new one from the day files, without what waits in the old one"


def _check_objects(database: sqlite3.Connection) -> None:
    """Compare our tables and indexes, and whatever hangs on our tables, with what this version writes."""
    query = "SELECT type, name, lower(tbl_name), sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name"
    found = {tuple(map(str, row)) for row in database.execute(query)}
    with closing(sqlite3.connect(":memory:")) as model:
        model.executescript(TABLES)
        ours = {tuple(map(str, row)) for row in model.execute(query)}
    missing, names, tables = ours - found, {row[1] for row in ours}, {row[2] for row in ours}
    changed = sorted(row for row in found - ours if row[1] in names or row[2] in tables)
    if not missing and not changed:
        return
    if not tables & {row[2] for row in found}:
        raise sqlite3.DatabaseError("other tables than ours")
    texts = ["\0".join(row) for row in missing]
    for row in found - ours:
        if is_damaged("\0".join(row), texts):
            raise sqlite3.DatabaseError(f"damaged: the schema says {row[3]!r}")
    foreign = [row for row in changed if row[1] not in names]
    if foreign and not missing:
        words = "; ".join(f"{kind} {name} on {table}: DROP {kind.upper()} {name}" for kind, name, table, _ in foreign)
        raise NotAsWritten(f"something on the journal's tables is not this program's ({words}), or {_MOVE_IT}")
    what = ", ".join(sorted(f"{kind} {name}" for kind, name, _, _ in missing or changed))
    raise NotAsWritten(f"the journal's {what} is not as this program wrote it. Put it back as it was, or {_MOVE_IT}")


def _write_ahead(database: sqlite3.Connection, go_on: GoOn, attempts: int) -> None:
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
