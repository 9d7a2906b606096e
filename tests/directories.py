"""Data directories made by the real store, minute by minute, and what a reader should say of them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from math import fsum
from pathlib import Path
from typing import Any

import attrs
import pyarrow as pa

from trio_candles.candles.model import (
    DAY,
    MINUTE,
    Candle,
    Empty,
    Millis,
    Reason,
    Series,
    Source,
    Timeframe,
    Unsure,
    day_name,
)
from trio_candles.store import dayfiles
from trio_candles.store.disk import LOCAL_DISK, Disk
from trio_candles.store.schema import COLUMNS, JOURNAL, candle_checksum, digest_of
from trio_candles.store.store import Store, open_store
from trio_candles.store.verdicts import CANDLE

MIDNIGHT = Millis(1_768_089_600_000)
"""2026-01-11; minutes are counted from here, so that the day's end is in the middle of things."""
BTC = Series("okx", "BTC-USDT")
ETH = Series("kraken", "ETH/USD")
LATE = Millis(MIDNIGHT + 2 * DAY)

Row = dict[str, Any]


def at(minute: float) -> Millis:
    return Millis(int(MIDNIGHT + minute * MINUTE))


def candle(minute: int, series: Series = BTC, **changes) -> Candle:
    """Every number differs from its neighbours', and the sums of some are not exact in binary."""
    price = 100_000.0 + minute
    return attrs.evolve(
        Candle(
            series, at(minute), price, price + 1.5, price - 1.5, price + 0.25, 0.1 + abs(minute) * 0.7,
            10.1 + price * 0.3, price + 0.1, 7 + abs(minute), Source.WEBSOCKET, Millis(at(minute + 1) + 100),
            at(minute + 1),
        ),
        **changes,
    )  # fmt: skip


def put_into_journal(root: Path, one: Candle) -> None:
    """Let *one* wait in the journal, whatever else is known of its minute."""
    with closing(sqlite3.connect(root / JOURNAL, isolation_level=None)) as database:
        of = (one.series.venue, one.series.symbol)
        (id_,) = database.execute("SELECT id FROM series WHERE venue = ? AND symbol = ?", of).fetchone()
        values = (
            id_, one.open_time, one.open, one.high, one.low, one.close, one.volume, one.quote_volume, one.vwap,
            one.trades_count, one.source.value, one.ingest_time,
        )  # fmt: skip
        database.execute(f"INSERT INTO candle VALUES ({', '.join('?' * 13)})", (*values, candle_checksum(values)))


def bring_down(journal: Path, version: str) -> None:
    """Let *journal* be as format "1", "2", "3", "4", "5" or "6" had it; before "6", no day of it is sealed."""
    with closing(sqlite3.connect(journal)) as database:
        database.execute("UPDATE meta SET value = ? WHERE key = 'format'", (version,))
        database.execute("DELETE FROM meta WHERE key = 'epoch'")
        columns = [name for _, name, *_ in database.execute("PRAGMA table_info(gap)") if name != "reported_ms"]
        database.executescript("DROP TABLE change;" + _remade("gap", OLD_GAP_6, ", ".join(columns)))
        if version == "6":
            return
        assert database.execute("SELECT count(*) FROM sealed").fetchone() == (0,)
        database.executescript("DROP TABLE sealed; DROP TABLE open_day;" + OLD_DUE)
        if version < "5":
            database.execute("DROP INDEX revision_at")
            database.execute("DROP TABLE sample")
        if version < "4":
            _before_4(database, version)
        database.commit()


def _before_4(database: sqlite3.Connection, version: str) -> None:
    database.executescript(
        "DROP INDEX gap_event_absent;"
        + _remade("series", OLD_SERIES, "id, venue, symbol, timeframe, first_ms, mark_ms, last_candle_ms, expected")
        + _remade(
            "gap", OLD_GAP,
            "id, series_id, since_ms, until_ms, state, reason, detail, first_seen_ms, attempts, last_error",
        )
        + _remade("revision", OLD_REVISION, "id, at_ms, series_id, open_ms, stored, offered, outcome")
        + _remade("confirmed", OLD_CONFIRMED, "series_id, mark_ms")
    )  # fmt: skip
    if version < "3":
        database.executescript(_remade("candle", OLD_CANDLE, CANDLE.removesuffix(", checksum")))
    if version < "2":
        database.execute("DROP INDEX revision_minute")
        for table in ("listing", "underived", "confirmed", "confirmation", "venue_state"):
            database.execute(f"DROP TABLE {table}")


def _remade(table: str, create: str, columns: str) -> str:
    return (
        f"CREATE TABLE old AS SELECT {columns} FROM {table}; DROP TABLE {table}; {create}"
        f"INSERT INTO {table} SELECT * FROM old; DROP TABLE old;"
    )


OLD_SERIES = """
CREATE TABLE series (
    id INTEGER PRIMARY KEY,
    venue TEXT NOT NULL, symbol TEXT NOT NULL, timeframe TEXT NOT NULL,
    first_ms INTEGER NOT NULL,          -- the first expected minute
    mark_ms INTEGER NOT NULL,           -- every minute in [first_ms, mark_ms) is accounted for
    last_candle_ms INTEGER,             -- open time of the newest accepted candle
    expected INTEGER NOT NULL,          -- 1 while the configuration names it
    UNIQUE (venue, symbol, timeframe)
);
"""
OLD_GAP_6 = """
CREATE TABLE gap (                      -- disjoint within a series
    id INTEGER PRIMARY KEY,
    series_id INTEGER NOT NULL REFERENCES series (id),
    since_ms INTEGER NOT NULL, until_ms INTEGER NOT NULL,
    state TEXT NOT NULL,                -- open | unfillable
    reason TEXT NOT NULL, detail TEXT NOT NULL,
    first_seen_ms INTEGER NOT NULL,
    attempts INTEGER NOT NULL, last_error TEXT,
    not_before_ms INTEGER NOT NULL DEFAULT 0,   -- REST is not asked about it again before then; 0: as soon as may be
    rest_since_ms INTEGER, rest_until_ms INTEGER    -- what is left to ask before it waits; NULL: all of it
);
CREATE UNIQUE INDEX gap_span ON gap (series_id, since_ms);
CREATE INDEX gap_due ON gap (series_id, not_before_ms) WHERE state = 'open';
"""
OLD_GAP = """
CREATE TABLE gap (                      -- disjoint within a series
    id INTEGER PRIMARY KEY,
    series_id INTEGER NOT NULL REFERENCES series (id),
    since_ms INTEGER NOT NULL, until_ms INTEGER NOT NULL,
    state TEXT NOT NULL,                -- open | unfillable
    reason TEXT NOT NULL, detail TEXT NOT NULL,
    first_seen_ms INTEGER NOT NULL,
    attempts INTEGER NOT NULL, last_error TEXT
);
CREATE UNIQUE INDEX gap_span ON gap (series_id, since_ms);
"""
OLD_REVISION = """
CREATE TABLE revision (                 -- two different closed candles of one minute were heard
    id INTEGER PRIMARY KEY,
    at_ms INTEGER NOT NULL,
    series_id INTEGER NOT NULL, open_ms INTEGER NOT NULL,
    stored TEXT NOT NULL, offered TEXT NOT NULL,    -- JSON
    outcome TEXT NOT NULL               -- open | kept | replaced
);
CREATE INDEX revision_minute ON revision (series_id, open_ms);
"""
OLD_DUE = """
DROP INDEX gap_event_at; DROP INDEX revision_open_at; DROP INDEX revision_due; DROP INDEX sample_due;
CREATE INDEX revision_due ON revision (not_before_ms) WHERE outcome = 'open';
CREATE INDEX sample_due ON sample (not_before_ms);
"""
OLD_CONFIRMED = """
CREATE TABLE confirmed (                -- live candles that open before the mark were compared with REST, or are out
    series_id INTEGER PRIMARY KEY REFERENCES series (id),   -- of its reach
    mark_ms INTEGER NOT NULL
);
"""
OLD_CANDLE = """
CREATE TABLE candle (                   -- accepted, durable, not yet in a day file
    series_id INTEGER NOT NULL REFERENCES series (id),
    open_ms INTEGER NOT NULL,
    open REAL NOT NULL, high REAL NOT NULL, low REAL NOT NULL, close REAL NOT NULL, volume REAL NOT NULL,
    quote_volume REAL, vwap REAL, trades_count INTEGER,
    source TEXT NOT NULL, ingest_ms INTEGER NOT NULL,
    PRIMARY KEY (series_id, open_ms)
);
"""


def row(one: Candle) -> Row:
    return dayfiles.table_of([one]).to_pylist()[0]


def verdicts(word: str, minute: int, series: Series = BTC):
    """``s`` stored, ``q`` stored and nullable columns null, ``e`` empty, ``g`` and ``u`` gaps (``u`` unfillable)."""
    match word:
        case "s":
            return candle(minute, series)
        case "q":
            return candle(minute, series, quote_volume=None, vwap=None, trades_count=None)
        case "e":
            return Empty(series, at(minute), at(minute + 1), f"the ids say so, {minute}")
    return Unsure(series, at(minute), at(minute + 1), Reason.DISCONNECTED, f"detail {word}")


def make(
    root: Path, word: str, first: int = 0, series: Series = BTC, flush_at: Iterable[int] = (), disk: Disk = LOCAL_DISK
) -> None:
    """*root* with *series* whose minutes from *first* on are the letters of *word*; flushed before those minutes."""
    with open_store(root, disk) as store:
        tell(store, word, first, series, flush_at)
    mark_unfillable(root, word, first, series)


def tell(store: Store, word: str, first: int = 0, series: Series = BTC, flush_at: Iterable[int] = ()) -> None:
    store.expect([series], at(first), at(first))
    flushes = set(flush_at)
    pending = []
    for minute, letter in enumerate(word, first):
        if minute in flushes:
            store.commit(pending, LATE)
            pending = []
            flush(store)
        pending.append(verdicts(letter, minute, series))
    store.commit(pending, LATE)
    if first + len(word) in flushes:
        flush(store)


def flush(store: Store) -> None:
    flushed = store.flush(store.waiting())
    assert flushed.error is None


def mark_unfillable(root: Path, word: str, first: int, series: Series) -> None:
    with closing(sqlite3.connect(root / JOURNAL)) as database, database:
        database.execute("UPDATE gap SET state = 'unfillable', attempts = 2 WHERE detail = 'detail u'")


def sql(root: Path, statement: str, *values: object) -> list[Any]:
    with closing(sqlite3.connect(root / JOURNAL)) as database, database:
        return database.execute(statement, values).fetchall()


def write_day_file(root: Path, series: Series, rows: Sequence[Row]) -> str:
    """A day file as the collector leaves one, known to the ledger; its path."""
    table = pa.Table.from_pylist(list(rows), schema=COLUMNS)
    path = f"{series.path}/{day_name(rows[0]['open_time_ms'])}.parquet"
    content = dayfiles.encode(table)
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_bytes(content)
    sql(root, "INSERT OR REPLACE INTO day_file VALUES (?, ?, NULL)", path, digest_of(content))
    return path


# --- what the contract says of them


@attrs.frozen
class Truth:
    """A series as it should read, computed without the product's reading code."""

    word: str
    first: int
    series: Series = BTC

    def letter(self, minute: int) -> str:
        """What a minute is; ``-`` outside the ledger."""
        index = minute - self.first
        return self.word[index] if 0 <= index < len(self.word) else "-"

    def unknown(self, since: int, until: int) -> set[int]:
        return {minute for minute in range(since, until) if self.letter(minute) in "gu-"}

    def rows(self, since: int, until: int, timeframe: str = "1m", *, fill: bool = False) -> list[Row]:
        """Rows of the periods that open in the range, in minutes from midnight."""
        length = Timeframe.parse(timeframe).length // MINUTE
        found: dict[int, Row] = {}
        begin = min(self.first, since)
        for period in range(begin - begin % length - length, until, length):
            letters = [self.letter(minute) for minute in range(period, period + length)]
            if not set(letters) <= set("sqe"):
                continue
            parts = [
                row(verdicts(letter, minute, self.series))
                for minute, letter in enumerate(letters, period)
                if letter != "e"
            ]
            if parts:
                found[period] = parts[0] if length == 1 else self._fold(parts, period, timeframe)
                found[period] |= {"filled": False} if fill else {}
            elif fill and period - length in found:
                found[period] = flat(found[period - length], length * MINUTE)
        return [one for period, one in sorted(found.items()) if since <= period < until]

    def _fold(self, parts: Sequence[Row], period: int, timeframe: str) -> Row:
        volume = fsum(part["volume"] for part in parts)
        quotes, counts = ([part[name] for part in parts] for name in ("quote_volume", "trades_count"))
        quote = None if None in quotes else fsum(quotes)
        return parts[0] | {
            "timeframe": timeframe,
            "open_time_ms": at(period),
            "close_time_ms": at(period) + Timeframe.parse(timeframe).length,
            "high": max(part["high"] for part in parts),
            "low": min(part["low"] for part in parts),
            "close": parts[-1]["close"],
            "volume": volume,
            "quote_volume": quote,
            "vwap": None if quote is None else quote / volume,
            "trades_count": None if None in counts else sum(counts),
            "source": "aggregated",
            "ingest_time_ms": max(part["ingest_time_ms"] for part in parts),
        }


def flat(before: Mapping[str, Any], length: int) -> Row:
    price = before["close"]
    return dict(before) | {
        "open_time_ms": before["open_time_ms"] + length,
        "close_time_ms": before["close_time_ms"] + length,
        **dict.fromkeys(("open", "high", "low", "close"), price),
        **dict.fromkeys(("volume", "quote_volume"), 0.0),
        "vwap": None,
        "trades_count": 0,
        "source": "filled",
        "filled": True,
    }


@contextmanager
def left_by_a_killed_collector(root: Path, target: Path, word: str) -> Iterator[Path]:
    """*target*, as a collector that was killed leaves it: what is newest is in the write-ahead log only."""
    import shutil

    with open_store(root) as store:
        tell(store, word, flush_at=[len(word) // 2])
        shutil.copytree(root, target, ignore=shutil.ignore_patterns("*-shm"))
    yield target
