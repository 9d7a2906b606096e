"""What of a table is due now, found without reading what is not listed."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from trio_candles.candles.model import Millis

__all__ = ["TIDIED_AT_ONCE", "due_longest"]

TIDIED_AT_ONCE = 2_000
"""Rows of each kind of old history that one transaction lets go of, at most: some 20 ms."""


def due_longest(
    database: sqlite3.Connection,
    table: str,
    columns: Sequence[str],
    venue: str,
    now: Millis,
    far: Millis,
    count: int,
    only: str = "1",
) -> list[tuple[Any, ...]]:
    """The *count* rows of *table* that have been due for longest, of *venue*'s expected series, as (series id,
    *columns*...). A row that waits beyond *far*, longer than any waits, is due as well: the clock was set back.

    Costs a search in an index for each series, and *count* rows of each of *count* series, however many rows are due:
    *table* has an index on (series_id, not_before_ms) of the rows that meet *only*, which is called *table*_due. No
    other series can have one of the rows: the first row of each has been due for less long.
    """
    found: list[tuple[Any, ...]] = []
    for due in ("not_before_ms <= :now", "not_before_ms > :far"):
        values = {"venue": venue, "now": now, "far": far, "count": count - len(found)}
        rows = f"FROM {table} INDEXED BY {table}_due WHERE series_id = %s AND {only} AND {due}"
        series = database.execute(
            f"SELECT id FROM (SELECT id, (SELECT min(not_before_ms) {rows % 'series.id'}) AS since FROM series"
            " WHERE expected = 1 AND venue = :venue) WHERE since IS NOT NULL ORDER BY since LIMIT :count",
            values,
        ).fetchall()
        listed: list[tuple[Any, ...]] = []
        for (id_,) in series:
            listed += database.execute(
                f"SELECT not_before_ms, id, series_id, {', '.join(columns)} {rows % ':id'}"
                " ORDER BY not_before_ms, id LIMIT :count",
                {**values, "id": id_},
            )
        found += [row[2:] for row in sorted(listed)[: count - len(found)]]
    return found
