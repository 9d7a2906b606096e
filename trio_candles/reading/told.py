"""The change feed in a ledger, for whoever only reads: rows of the table ``change``, and what revisions replaced."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator

from trio_candles.reading.cursor import LAST_STEP, NOTHING, Cursor
from trio_candles.reading.errors import LedgerUnreadable
from trio_candles.store.feed import Kind, Row, check_of, last_seq

__all__ = ["Told"]

_ROW = "seq, kind, series_id, since_ms, minutes, at_ms, around, detail, revision_id"


class Told:
    """The table ``change`` of a ledger; *epoch* is the journal's, ``None`` if its version knew no change feed."""

    def __init__(self, database: sqlite3.Connection, epoch: str | None) -> None:
        self._db = database
        self._epoch = epoch

    @property
    def is_known(self) -> bool:
        """Whether the ledger has a change feed."""
        return self._epoch is not None

    def ends(self) -> tuple[Cursor, Cursor]:
        """The oldest place from which all that follows is kept, and the newest place."""
        if self._epoch is None:
            raise LedgerUnreadable(
                "an earlier version wrote the journal; its change feed begins when this version's collector starts"
            )
        nothing = Cursor(self._epoch, 0, LAST_STEP, NOTHING)
        query = f"SELECT {_ROW} FROM change ORDER BY seq"
        first: Row | None = self._db.execute(f"{query} LIMIT 1").fetchone()
        last: Row | None = self._db.execute(f"{query} DESC LIMIT 1").fetchone()
        if first is None or last is None:
            return nothing, nothing
        # What was let go of ends with the first row, which is kept to check a cursor by.
        return nothing if first[0] == 1 else self.after(first), self.after(last)

    def after(self, row: Row) -> Cursor:
        """The place after all of *row*."""
        return Cursor(self._epoch or "", last_seq(row[0], row[1], row[4]), LAST_STEP, check_of(row))

    def rows_from(self, seq: int) -> Iterator[Row]:
        """The row that has the number *seq*, and all that follow; no further row is read than the caller takes."""
        return self._db.execute(
            f"SELECT {_ROW} FROM change WHERE seq >= coalesce((SELECT max(seq) FROM change WHERE seq <= ?), 0)"
            " ORDER BY seq",
            (seq,),
        )

    def replaced(self, revision: int) -> str | None:
        """What the *revision* replaced, as JSON; ``None`` if nobody knows any more."""
        row = self._db.execute("SELECT stored FROM revision WHERE id = ?", (revision,)).fetchone()
        return None if row is None else row[0]

    def replacements(self, series_id: int, since: int, until: int, after: int) -> Iterable[tuple[int, int, str]]:
        """The replacements in ``[since, until)`` that were told after the number *after*: the number, the minute, and
        what was replaced, as JSON.
        """
        return self._db.execute(
            "SELECT seq, since_ms, stored FROM change INDEXED BY change_told JOIN revision ON revision.id = revision_id"
            f" WHERE kind IN ({Kind.FILLED:d}, {Kind.REVISED:d}) AND kind = {Kind.REVISED:d}"
            " AND change.series_id = ? AND since_ms >= ? AND since_ms < ? AND seq > ? ORDER BY seq",
            (series_id, since, until, after),
        )
