"""A condition in SQL: the spans of a table that touch a given span, found without reading all older spans."""

from __future__ import annotations

__all__ = ["touching"]


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
