"""Asking for the spans of a table that touch a span, without reading all that are older."""

from __future__ import annotations

__all__ = ["touching"]


def touching(table: str, only: str = "") -> str:
    """A condition: rows of *table* (``gap``, ``empty``...) of the series ``:id`` that touch ``[:since, :until)``.

    Spans of a series are disjoint, so of those that begin before, only the last can reach into it. Asked for by their
    ends alone, all older ones would be read, and a thin pair has 100,000 a year. Where that holds of some rows only,
    *only* is the condition that they meet (``event = 'absent'``), as their index has it.
    """
    also = f" AND {only}" if only else ""
    return (
        f"series_id = :id AND since_ms < :until AND until_ms > :since{also} AND since_ms >= coalesce("
        f"(SELECT max(since_ms) FROM {table} WHERE series_id = :id AND since_ms <= :since{also}), 0)"
    )
