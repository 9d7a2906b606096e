"""Candles into a database, each once, whenever the loader or the collector is killed.

    python examples/load_sqlite.py data candles.sqlite --series 'okx:*' --timeframe 1m --timeframe 1h

The cursor is committed with the rows that it stands for: a loader that dies before the commit loads them again, and one
that dies after it goes on behind them. The first start begins with what is stored.
"""

from __future__ import annotations

import argparse
import sqlite3
import sys
from contextlib import closing, suppress

import trio_candles
from trio_candles import Change, CursorError, follow_sync, snapshot

ROW = "venue, symbol, timeframe, open_time_ms, close_time_ms, open, high, low, close, volume"
TABLES = """
CREATE TABLE IF NOT EXISTS candle (
    venue TEXT, symbol TEXT, timeframe TEXT, open_time_ms INTEGER, close_time_ms INTEGER,
    open REAL, high REAL, low REAL, close REAL, volume REAL,
    PRIMARY KEY (venue, symbol, timeframe, open_time_ms)
);
CREATE TABLE IF NOT EXISTS place (cursor TEXT);
"""
AT_ONCE = 1_000


def apply(database: sqlite3.Connection, change: Change) -> None:
    """Let the database be as after *change*."""
    candle, of = change.candle, (change.venue, change.symbol)
    if candle is not None:
        values = (candle.open, candle.high, candle.low, candle.close, candle.volume)
        times = (change.open_time_ms, change.close_time_ms)
        database.execute(
            f"INSERT OR REPLACE INTO candle ({ROW}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (*of, change.timeframe, *times, *values),
        )
    elif change.event == "gap":  # candles that were stored there are not believed any more
        database.execute(
            "DELETE FROM candle WHERE venue = ? AND symbol = ? AND open_time_ms < ? AND close_time_ms > ?",
            (*of, change.close_time_ms, change.open_time_ms),
        )


def load_history(database: sqlite3.Connection, data_dir: str, timeframes: list[str]) -> None:
    """What is stored now. What changes meanwhile is told again after the first cursor; loading twice is harmless."""
    begin = None
    spans = trio_candles.coverage(data_dir)
    names = (map(str, spans[name].to_pylist()) for name in ("venue", "symbol"))
    for venue, symbol in sorted(set(zip(*names, strict=True))):
        for timeframe in timeframes:
            table, cursor = snapshot(data_dir, venue, symbol, timeframe, columns=ROW.split(", "))
            begin = begin or cursor
            rows = zip(*(column.to_pylist() for column in table.columns), strict=True)
            database.executemany(f"INSERT OR REPLACE INTO candle VALUES ({', '.join('?' * 10)})", rows)
    database.execute("INSERT INTO place VALUES (?)", (begin,))
    database.commit()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_dir")
    parser.add_argument("database")
    parser.add_argument("--series", action="append")
    parser.add_argument("--timeframe", action="append")
    parser.add_argument("--once", action="store_true", help="end when everything that is there is loaded")
    options = parser.parse_args()
    timeframes = options.timeframe or ["1m"]
    with closing(sqlite3.connect(options.database)) as database:
        database.executescript(TABLES)
        if database.execute("SELECT cursor FROM place").fetchone() is None:
            load_history(database, options.data_dir, timeframes)
        (cursor,) = database.execute("SELECT cursor FROM place").fetchone()
        try:
            changes = follow_sync(options.data_dir, options.series, timeframes, after=cursor, timeout=0.5)
            while True:
                count = 0
                for change in changes:
                    apply(database, change)
                    count += 1
                    if count % AT_ONCE == 0:
                        database.execute("UPDATE place SET cursor = ?", (change.cursor,))
                        database.commit()
                database.execute("UPDATE place SET cursor = ?", (changes.cursor,))
                database.commit()
                if count:
                    print(f"{count} changes", flush=True)
                elif options.once:
                    return 0
        except CursorError as error:
            print(f"{error}\nRemove {options.database} and start again.", file=sys.stderr)
            return 1


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main())
