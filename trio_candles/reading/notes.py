"""What the ledger notes of one minute, besides what the minute is: what was heard, and what is asked next.

Each query knows from which format of the journal on there is what it asks for, and finds nothing before.
"""

from __future__ import annotations

import sqlite3

import attrs

from trio_candles.candles.model import DAY, MINUTE, Millis, floor_to
from trio_candles.reading.records import GapEvent, Revision

__all__ = ["Comparing", "Listing", "Notes", "SampleSpan"]


@attrs.frozen
class Comparing:
    """How far the live candles of a series were compared with REST."""

    mark: Millis
    """Every live candle that opens earlier was compared, or is out of REST's reach."""
    not_before: Millis | None
    """The next ones are compared from then on; ``None`` before format 4."""


@attrs.frozen
class Listing:
    """When the venue's market of a series began, and how that is known."""

    since: Millis
    evidence: str


@attrs.frozen
class SampleSpan:
    """Minutes ``[since, until)`` that rows of REST filled, and that are to be rebuilt from trades."""

    since: Millis
    until: Millis
    attempts: int
    not_before: Millis


class Notes:
    """The tables of a ledger of *version* that say of a minute what happened to it, and what is still to happen."""

    def __init__(self, database: sqlite3.Connection, version: int) -> None:
        self._db = database
        self._version = version

    def asked_again(self, series_id: int, since: int) -> Millis | None:
        """When REST may be asked again about the gap that begins at *since*; 0: as soon as may be. ``None`` before
        format 4.
        """
        if self._version < 4:
            return None
        row = self._db.execute(
            "SELECT not_before_ms FROM gap WHERE series_id = ? AND since_ms = ?", (series_id, since)
        ).fetchone()
        return None if row is None else row[0]

    def gap_events(self, series_id: int, minute: int) -> list[GapEvent]:
        """What happened to gaps that have *minute*, in the order in which it was noted."""
        rows = self._db.execute(
            "SELECT series_id, since_ms, until_ms, at_ms, event, detail FROM gap_event"
            " WHERE series_id = ? AND until_ms > ? AND since_ms <= ? ORDER BY at_ms, rowid",
            (series_id, minute, minute),
        )
        return [GapEvent(*row) for row in rows]

    def revisions(self, series_id: int, minute: int) -> list[tuple[Revision, Millis | None]]:
        """The revisions of *minute*, the first noted first, each with the time from which on REST is asked about it
        while it is open; ``None`` before format 4.
        """
        asked = "not_before_ms" if self._version >= 4 else "NULL"
        # A journal of format 1 has no index by minute; its revisions are few.
        rows = self._db.execute(
            f"SELECT series_id, open_ms, at_ms, stored, offered, outcome, {asked} FROM revision"
            " WHERE series_id = ? AND open_ms = ? ORDER BY id",
            (series_id, minute),
        )
        return [(Revision(*row), not_before) for *row, not_before in rows]

    def compared(self, series_id: int) -> Comparing | None:
        """How far the series was compared with REST; ``None`` if nobody noted that."""
        if self._version < 2:
            return None
        asked = "not_before_ms" if self._version >= 4 else "NULL"
        row = self._db.execute(f"SELECT mark_ms, {asked} FROM confirmed WHERE series_id = ?", (series_id,)).fetchone()
        return None if row is None else Comparing(*row)

    def sealing_due(self, series_id: int, minute: int) -> Millis | None:
        """When it is looked at again whether the open day of *minute* can be sealed; ``None`` if it is no open day."""
        if self._version < 6:
            return None
        row = self._db.execute(
            "SELECT not_before_ms FROM open_day WHERE series_id = ? AND day_ms = ?",
            (series_id, floor_to(Millis(minute), DAY)),
        ).fetchone()
        return None if row is None else row[0]

    def samples(self, series_id: int, minute: int) -> list[SampleSpan]:
        """What of *minute* is to be rebuilt from trades: the minute itself as a sample, or a page that has it, of which
        a sample differed.
        """
        if self._version < 5:
            return []
        # Of a series there are a few samples, and no index by time.
        rows = self._db.execute(
            "SELECT coalesce(minute_ms, since_ms), iif(minute_ms IS NULL, until_ms, minute_ms + ?), attempts,"
            " not_before_ms FROM sample WHERE series_id = ?",
            (MINUTE, series_id),
        )
        return [span for span in (SampleSpan(*row) for row in rows) if span.since <= minute < span.until]

    def listing(self, series_id: int) -> Listing | None:
        """When the venue's market began; ``None`` if that is not known."""
        if self._version < 2:
            return None
        row = self._db.execute("SELECT since_ms, evidence FROM listing WHERE series_id = ?", (series_id,)).fetchone()
        return None if row is None else Listing(*row)
