"""What happened to gaps: the ledger's table ``gap_event``, of the last 90 days.

Works inside the journal's transactions, on its connection.
"""

from __future__ import annotations

import sqlite3

import attrs

from trio_candles.candles.model import Millis

__all__ = ["GapHistory"]

EVENTS_KEPT = 90 * 86_400_000
"""How long the history of gaps is kept, in ms."""


@attrs.frozen
class GapHistory:
    """The table of an open journal."""

    _db: sqlite3.Connection

    def add(self, series_id: int, since: int, until: int, event: str, detail: str, now: Millis) -> None:
        """Append to the history of ``[since, until)``."""
        self._db.execute(
            "INSERT INTO gap_event VALUES (?, ?, ?, ?, ?, ?)", (now, series_id, since, until, event, detail)
        )

    def extend(self, series_id: int, since: Millis, until: Millis, detail: str) -> bool:
        """Let the opening that ends at *since* reach *until*, so that an outage is one event however long it is.

        Not over minutes that something has happened to since then: read in order, the history must stay true.
        """
        extended = self._db.execute(
            "UPDATE gap_event SET until_ms = :until WHERE rowid = (SELECT max(rowid) FROM gap_event"
            " WHERE series_id = :id AND until_ms = :since AND event = 'opened' AND detail = :detail)"
            " AND NOT EXISTS (SELECT 1 FROM gap_event AS later WHERE later.series_id = :id"
            " AND later.until_ms > :since AND later.since_ms < :until)",
            {"id": series_id, "since": since, "until": until, "detail": detail},
        )
        return extended.rowcount == 1

    def forget_old(self, now: Millis, count: int) -> int:
        """Let go of history that is older than :data:`EVENTS_KEPT`, at most *count* events; returns how many."""
        return self._db.execute(
            "DELETE FROM gap_event WHERE rowid IN (SELECT rowid FROM gap_event INDEXED BY gap_event_at"
            " WHERE at_ms < ? LIMIT ?)",
            (now - EVENTS_KEPT, count),
        ).rowcount
