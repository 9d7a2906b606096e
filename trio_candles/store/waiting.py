"""Which day files the candles in the journal wait for; millions of candles may, so no more are read than it takes.

Works on the journal's connection.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing

from trio_candles.candles.model import DAY, Millis

__all__ = ["count_waiting", "waiting_longest"]


def waiting_longest(database: sqlite3.Connection, count: int | None) -> list[tuple[int, Millis]]:
    """The days as (series id, day), those that have waited longest first; at most *count*."""
    found: dict[tuple[int, Millis], None] = {}
    # A new row's id is above all others.
    rows = database.execute(f"SELECT series_id, open_ms - open_ms % {DAY} FROM candle NOT INDEXED ORDER BY rowid")
    with closing(rows):
        for day in rows:
            found[day] = None
            if len(found) == count:
                break
    return list(found)


def count_waiting(database: sqlite3.Connection) -> tuple[int, int]:
    """How many candles wait, and for how many days' files."""
    (candles,) = database.execute("SELECT count(*) FROM candle").fetchone()
    # From day to day along the index, however many rows each has.
    (days,) = database.execute(
        "WITH RECURSIVE day (id, at) AS (SELECT * FROM (SELECT series_id, open_ms FROM candle"
        " ORDER BY series_id, open_ms LIMIT 1) UNION ALL SELECT one.series_id, one.open_ms FROM day JOIN candle one"
        " ON one.rowid = (SELECT rowid FROM candle"
        f" WHERE (series_id, open_ms) >= (day.id, day.at - day.at % {DAY} + {DAY})"
        " ORDER BY series_id, open_ms LIMIT 1)) SELECT count(*) FROM day"
    ).fetchone()
    return candles, days
