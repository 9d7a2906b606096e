"""What is on disk, read with pyarrow and SQL and nothing of the product's; its form is checked on the way."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from simulation.sealed import Day
from simulation.trace import Broken

__all__ = ["DAY", "LENGTHS", "MINUTE", "Row", "bounds", "marks", "open_ledger", "rows_of", "spans_of"]

MINUTE = 60_000
DAY = 86_400_000
COLUMNS = [
    "venue", "symbol", "timeframe", "open_time_ms", "close_time_ms", "open", "high", "low", "close", "volume",
    "quote_volume", "vwap", "trades_count", "is_closed", "source", "ingest_time_ms",
]  # fmt: skip
LENGTHS = {"1m": 1, "3m": 3, "5m": 5, "15m": 15, "30m": 30, "1h": 60, "4h": 240, "1d": 1440}
Row = dict[str, Any]


@contextmanager
def open_ledger(root: Path) -> Iterator[sqlite3.Connection]:
    path = (root / "journal.sqlite3").absolute().as_uri()
    with closing(sqlite3.connect(f"{path}?mode=ro", uri=True)) as database:
        yield database


def marks(root: Path) -> dict[tuple[str, str], int]:
    """Of each expected series, the first minute that is not accounted for."""
    with open_ledger(root) as database:
        query = "SELECT venue, symbol, mark_ms FROM series WHERE timeframe = '1m' AND expected = 1"
        return {(venue, symbol): mark for venue, symbol, mark in database.execute(query)}


def bounds(root: Path) -> tuple[int, int]:
    """The first minute that any series expects, and the last up to which any is accounted for."""
    with open_ledger(root) as database:
        first, mark = database.execute(
            "SELECT min(first_ms), max(mark_ms) FROM series WHERE timeframe = '1m'"
        ).fetchone()
        return first, mark


def rows_of(root: Path, venue: str, symbol: str, timeframe: str, now: int) -> dict[int, Row]:
    """What the day files hold, with everything about their form checked."""
    folder = root / venue / symbol.replace("/", "-") / timeframe
    found: dict[int, Row] = {}
    length = LENGTHS[timeframe] * MINUTE
    for path in sorted(folder.glob("*.parquet")) if folder.is_dir() else ():
        try:
            table = pq.read_table(path, use_threads=False)
        except (OSError, ValueError) as error:
            raise Broken("unreadable", f"{path}: {error}") from error
        if table.column_names != COLUMNS:
            raise Broken("columns", f"{path}: {table.column_names}")
        times = table.column("open_time_ms").to_pylist()
        if times != sorted(set(times)) or not (times or _is_sealed(path)):
            raise Broken("duplicates", f"{path}: not sorted, a row twice, or none")
        for row in table.to_pylist():
            time = row["open_time_ms"]
            if time % length or row["close_time_ms"] != time + length or time // DAY != times[0] // DAY:
                raise Broken("times", f"{path}: {row}")
            if not row["is_closed"] or row["close_time_ms"] > now:
                raise Broken("future", f"{path}: {time} is not over at {now}")
            if (row["venue"], row["symbol"], row["timeframe"]) != (venue, symbol, timeframe):
                raise Broken("names", f"{path}: {row}")
            found[time] = row
    return found


def _is_sealed(path: Path) -> bool:
    """Whether the file carries an account: one without rows is of a day in which nothing was traded."""
    return b"trio_candles.account" in (pq.read_metadata(path).metadata or {})


def spans_of(
    database: sqlite3.Connection, table: str, venue: str, symbol: str, what: str, days: Iterable[Day]
) -> dict[int, str]:
    """The minutes of *table*, and those of the sealed *days* that would be there if the days were open."""
    spans = database.execute(
        f"SELECT since_ms, until_ms, {what} FROM {table} JOIN series ON series.id = series_id"
        " WHERE venue = ? AND symbol = ? AND timeframe = '1m'",
        (venue, symbol),
    ).fetchall()
    for one in days:
        if table == "empty":
            spans += [(*span, one.evidence["empty"]) for span in one.spans("e")]
        else:
            spans += [(*span, "unfillable") for span in one.spans("u")]
            spans += [(*span, "open") for span in one.spans("g")]
    found: dict[int, str] = {}
    for since, until, word in spans:
        for minute in range(since, until, MINUTE):
            if minute in found:
                raise Broken("account", f"{table}: {venue} {symbol} {minute} twice")
            found[minute] = word
    return found
