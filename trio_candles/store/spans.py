"""Spans of minutes in the ledger's tables: found without reading all older spans, and cut."""

from __future__ import annotations

import re
import sqlite3

from trio_candles.candles.intervals import subtract
from trio_candles.candles.model import MINUTE

__all__ = ["add_empty", "check_spans", "cut_empty", "touching"]


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


def check_spans(database: sqlite3.Connection) -> None:
    """``ValueError`` if a gap, an empty span or a candle that waits is not of whole minutes."""
    odd = database.execute(
        "SELECT since_ms, until_ms FROM (SELECT since_ms, until_ms FROM gap"
        " UNION ALL SELECT since_ms, until_ms FROM empty"
        f" UNION ALL SELECT open_ms, open_ms + {MINUTE} FROM candle)"
        f" WHERE since_ms >= until_ms OR since_ms % {MINUTE} OR until_ms % {MINUTE}"
        " OR typeof(since_ms) != 'integer' OR typeof(until_ms) != 'integer'"
    ).fetchone()
    if odd is not None:
        raise ValueError(f"not a span of whole minutes: {odd}")


def add_empty(database: sqlite3.Connection, series_id: int, since: int, until: int, evidence: str) -> None:
    """Add a span of empty minutes, joined to the span that ends at its begin if their evidence differs in numbers only:
    ids and times only grow, so the newer evidence covers the older.
    """
    # Spans are disjoint, so only the last one that begins earlier can end at *since*. A search by ends would read
    # the whole table for every quiet minute: a thin pair has 100,000 spans a year.
    before = database.execute(
        "SELECT since_ms, until_ms, evidence FROM empty WHERE series_id = ? AND since_ms < ?"
        " ORDER BY since_ms DESC LIMIT 1",
        (series_id, since),
    ).fetchone()
    if before is not None and before[1] == since and _without_numbers(before[2]) == _without_numbers(evidence):
        database.execute(
            "UPDATE empty SET until_ms = ?, evidence = ? WHERE series_id = ? AND since_ms = ?",
            (until, evidence, series_id, before[0]),
        )
    else:
        database.execute("INSERT INTO empty VALUES (?, ?, ?, ?)", (series_id, since, until, evidence))


def _without_numbers(text: str) -> str:
    return re.sub(r"[0-9]+", "", text)


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
