"""What the ledger says, read in one transaction: of each series, what its minutes are and where their rows lie."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path

import attrs
import pyarrow as pa

from trio_candles.candles.model import MINUTE, Millis, Series, canonical_symbol, day_name
from trio_candles.reading.errors import LedgerUnreadable, NoSuchDirectory, UnknownSeries
from trio_candles.store.schema import COLUMNS, FORMAT, JOURNAL, UNCHECKED, UPGRADES, candle_checksum
from trio_candles.store.snapshot import open_snapshot

__all__ = ["Account", "Books", "GapSpan", "open_books"]


@attrs.frozen
class Account:
    """A 1m series, and the minutes ``[first, mark)`` that the ledger accounts for."""

    id: int
    series: Series
    first: Millis
    mark: Millis
    since_listing: bool
    """Whether the venue's market began at ``first``: then minutes before it are no gap, and count as empty."""


@attrs.frozen
class GapSpan:
    """A row of the ledger's gaps."""

    since: Millis
    until: Millis
    state: str
    """``open`` or ``unfillable``."""
    reason: str
    detail: str
    first_seen: Millis
    attempts: int
    last_error: str | None


class Books:
    """The ledger at one moment; made by :func:`open_books`."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._db = database
        found = database.execute("SELECT value FROM meta WHERE key = 'format'").fetchone()
        if found is None or found[0] not in (FORMAT, *UPGRADES):
            raise LedgerUnreadable(f"the journal's format is {found and found[0]}; this version knows {FORMAT}")
        self._derives = found[0] != "1"
        self._checked = found[0] not in UNCHECKED
        """Whether waiting rows have checksums: since format 3."""

    def accounts(self, venue: str | None = None, symbol: str | None = None) -> list[Account]:
        """All 1m series, or those of *venue* or *symbol* (spelled as the venue does or as the folder is called);
        :class:`UnknownSeries` if there are none like it.
        """
        wanted_venue, wanted_symbol = venue and venue.lower(), symbol and symbol.upper().replace("/", "-", 1)
        everything = self._accounts()
        found = [
            account
            for account in everything
            if wanted_venue in (None, account.series.venue)
            and wanted_symbol in (None, canonical_symbol(account.series.symbol))
        ]
        if not found and (venue is not None or symbol is not None):
            raise UnknownSeries(_unknown(venue, symbol, [account.series for account in everything]))
        return found

    def account(self, venue: str, symbol: str) -> Account:
        """The one series; :class:`UnknownSeries` if there is none."""
        return self.accounts(venue, symbol)[0]

    def _accounts(self) -> list[Account]:
        listing = "(SELECT since_ms FROM listing WHERE series_id = series.id)" if self._derives else "NULL"
        rows = self._db.execute(
            f"SELECT id, venue, symbol, first_ms, mark_ms, {listing} FROM series"
            " WHERE timeframe = '1m' ORDER BY venue, symbol"
        )
        found = []
        for id_, venue, symbol, first, mark, listed in rows:
            since_listing = listed is not None and first <= listed <= mark
            first = listed if since_listing else first
            found.append(Account(id_, Series(venue, symbol), Millis(first), Millis(mark), since_listing))
        return found

    def gaps(self, account: Account, since: int, until: int) -> list[GapSpan]:
        """Open and unfillable gaps that touch ``[since, until)``, oldest first, whole."""
        rows = self._db.execute(
            "SELECT since_ms, until_ms, state, reason, detail, first_seen_ms, attempts, last_error FROM gap"
            " WHERE series_id = ? AND since_ms < ? AND until_ms > ? ORDER BY since_ms",
            (account.id, until, since),
        )
        return [GapSpan(*row) for row in rows]

    def empties(self, account: Account, since: int, until: int) -> list[tuple[int, int, str]]:
        """Empty spans that touch ``[since, until)`` with their evidence, oldest first, whole."""
        return self._db.execute(
            "SELECT since_ms, until_ms, evidence FROM empty"
            " WHERE series_id = ? AND since_ms < ? AND until_ms > ? ORDER BY since_ms",
            (account.id, until, since),
        ).fetchall()

    def begin_of_empty_run(self, account: Account, time: int) -> int:
        """The end of the last minute before *time* that is not empty."""
        while True:
            row = self._db.execute(
                "SELECT since_ms, until_ms FROM empty WHERE series_id = ? AND since_ms < ?"
                " ORDER BY since_ms DESC LIMIT 1",
                (account.id, time),
            ).fetchone()
            if row is None or row[1] < time:
                return time
            time = row[0]

    def waiting(self, account: Account, since: int, until: int) -> pa.Table:
        """The candles in ``[since, until)`` that are in no day file yet, or newer than the one in it."""
        rows = self._db.execute(
            "SELECT series_id, open_ms, open, high, low, close, volume, quote_volume, vwap, trades_count, source,"
            f" ingest_ms, {'checksum' if self._checked else 'NULL'}"
            " FROM candle WHERE series_id = ? AND open_ms >= ? AND open_ms < ? ORDER BY open_ms",
            (account.id, since, until),
        ).fetchall()
        series, count = account.series, len(rows)
        if not count:
            return COLUMNS.empty_table()
        for row in rows:
            if self._checked and candle_checksum(row[:-1]) != row[-1]:
                raise LedgerUnreadable(f"{series}: the journal's candle of {row[1]} does not match its checksum")
        _, opens, *numbers, source, ingest, _ = zip(*rows, strict=True)
        values = [
            [series.venue] * count, [series.symbol] * count, [series.timeframe] * count, opens,
            [time + MINUTE for time in opens], *numbers, [True] * count, source, ingest,
        ]  # fmt: skip
        try:
            arrays = [pa.array(column, field.type) for column, field in zip(values, COLUMNS, strict=True)]
        except (pa.ArrowException, OverflowError, TypeError) as error:
            raise LedgerUnreadable(f"{series}: the journal's candles make no sense: {error}") from error
        return pa.Table.from_arrays(arrays, schema=COLUMNS)

    def underived(self, account: Account, since: int, until: int) -> list[tuple[int, int]]:
        """Spans of minutes that changed and that aggregates do not follow yet."""
        if not self._derives:
            return []
        return self._db.execute(
            "SELECT since_ms, until_ms FROM underived WHERE series_id = ? AND since_ms < ? AND until_ms > ?",
            (account.id, until, since),
        ).fetchall()

    def files(self, series: Series, since: int, until: int) -> dict[str, tuple[str | None, str | None]]:
        """Path → digest and pending digest of *series*' day files of ``[since, until)``, oldest first."""
        if since >= until:
            return {}
        low, high = (f"{series.path}/{day_name(time)}.parquet" for time in (since, until - 1))
        rows = self._db.execute(
            "SELECT path, digest, pending FROM day_file WHERE path BETWEEN ? AND ? ORDER BY path", (low, high)
        )
        return {str(path): (digest, pending) for path, digest, pending in rows}


@contextmanager
def open_books(data_dir: Path) -> Iterator[Books]:
    """The ledger of *data_dir* at this moment, beside a collector or not; leave the block soon, a stop waits for it.

    Raises :class:`NoSuchDirectory` and :class:`LedgerUnreadable`.
    """
    if not data_dir.is_dir():
        raise NoSuchDirectory(f"{data_dir}: no such directory")
    path = data_dir / JOURNAL
    if not path.is_file():
        raise LedgerUnreadable(f"{data_dir}: there is no {JOURNAL}, so nobody knows what is complete")
    try:
        with open_snapshot(path) as database:
            yield Books(database)
    except (sqlite3.Error, OSError) as error:
        raise LedgerUnreadable(f"{path}: {error}") from error


def _unknown(venue: str | None, symbol: str | None, known: list[Series]) -> str:
    """What to say of a series that is not there."""
    asked = " ".join(filter(None, (venue, symbol)))
    if not known:
        return f"{asked!r} is not there: the ledger knows no series yet"
    names = [f"{one.venue} {one.symbol}" for one in known]
    mine = [name for name in names if venue is not None and name.startswith(f"{venue.lower()} ")]
    near = get_close_matches(asked.lower(), [name.lower() for name in mine or names], n=1, cutoff=0.5)
    if near:
        return f"{asked!r} is not there; did you mean {next(name for name in names if name.lower() == near[0])!r}?"
    return f"{asked!r} is not there; known: {', '.join((mine or names)[:10])}"
