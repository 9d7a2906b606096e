"""Spans of minutes in the ledger's tables: found without reading all older spans, and cut."""

from __future__ import annotations

import sqlite3

from trio_candles.candles.intervals import subtract

__all__ = ["cut_empty", "touching"]


def touching(table: str, only: str = "") -> str:
    """A condition: rows of *table* (``gap``, ``empty``...) of the series ``:id`` that touch ``[:since, :until)``.

    Spans of a series are disjoint, so of the spans that begin before ``:since``, only the last can reach beyond it. A
    search by ends alone would read all older spans, and a thin pair has 100,000 a year. Where only some rows are
    disjoint, *only* is the condition that those rows meet (``event = 'absent'``), as their index has it.
    """
    also = f" AND {only}" if only else ""
    return (
        f"series_id = :id AND since_ms < :until AND until_ms > :since{also} AND since_ms >= coalesce("
        f"(SELECT max(since_ms) FROM {table} WHERE series_id = :id AND since_ms <= :since{also}), 0)"
    )


def cut_empty(database: sqlite3.Connection, series_id: int, since: int, until: int) -> None:
    """Take ``[since, until)`` out of the spans of empty minutes; what lies outside stays."""
    span = {"id": series_id, "since": since, "until": until}
    across = database.execute(  # the first and the last one at most; a day may have 720
        "SELECT since_ms, until_ms, evidence FROM empty"
        f" WHERE {touching('empty')} AND (since_ms < :since OR until_ms > :until)",
        span,
    ).fetchall()
    database.execute(f"DELETE FROM empty WHERE {touching('empty')}", span)
    for low, high, evidence in across:
        for begin, end in subtract([(low, high)], [(since, until)]):
            database.execute("INSERT INTO empty VALUES (?, ?, ?, ?)", (series_id, begin, end, evidence))
