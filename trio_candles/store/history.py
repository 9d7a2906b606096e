"""What happened to gaps: the ledger's table ``gap_event``, of the last 90 days.

Works inside the journal's transactions, on its connection.
"""

from __future__ import annotations

import sqlite3

import attrs

from trio_candles.candles.intervals import subtract
from trio_candles.candles.model import MINUTE, Millis, Page, Reason
from trio_candles.store.entries import Entry
from trio_candles.store.spans import touching

__all__ = ["ABSENT_EVENTS", "SPACED", "GapHistory"]

EVENTS_KEPT = 90 * 86_400_000
"""How long the history of gaps is kept, in ms."""
SPACED = Millis(10 * MINUTE)
"""How many ms apart the two observations are at least that make a minute unfillable, or a row the market's first."""
ABSENT_EVENTS = "event = 'absent'"
"""Which events are disjoint within a series, as their index has it."""


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

    def observed_first(self, entry: Entry, page: Page, now: Millis) -> tuple[Millis, str] | None:
        """The first row of *page*, with both observations, if it was observed before, at least :data:`SPACED` ago.

        The first observation is kept in the history of the gaps before that row. None counts where one of these minutes
        was known until its file or the ledger was lost.
        """
        if page.first_row is None or page.first_row[0] <= entry.first:
            return None
        since, said = page.first_row
        lost = self._db.execute(
            f"SELECT 1 FROM gap WHERE {touching('gap')} AND reason IN ('{Reason.CORRUPT}', '{Reason.LEDGER_LOST}')",
            {"id": entry.id, "since": entry.first, "until": since},
        ).fetchone()
        if lost is not None:
            return None
        before = self._db.execute(
            "SELECT at_ms, detail FROM gap_event INDEXED BY gap_event_series WHERE series_id = ? AND until_ms = ?"
            " AND event = 'first_row' ORDER BY at_ms LIMIT 1",
            (entry.id, since),
        ).fetchone()
        if before is None:
            self.add(entry.id, entry.first, since, "first_row", said, now)
        if before is None or before[0] > now - SPACED:
            return None
        return since, f"{before[1]} (at {before[0]}); {said} (at {now})"

    def forget_absences(self, entry: Entry, since: int, until: int) -> None:
        """The minutes of ``[since, until)`` were stored or empty, and are none any more: what was absent before they
        were there says nothing about whether they can be had again.
        """
        rows = self._db.execute(
            "SELECT rowid, since_ms, until_ms, at_ms, detail FROM gap_event INDEXED BY gap_event_absent"
            f" WHERE {touching('gap_event', ABSENT_EVENTS)}",
            {"id": entry.id, "since": since, "until": until},
        ).fetchall()
        for rowid, low, high, at, detail in rows:
            self._db.execute("DELETE FROM gap_event WHERE rowid = ?", (rowid,))
            for begin, end in subtract([(low, high)], [(since, until)]):
                self.add(entry.id, begin, end, "absent", detail, at)
