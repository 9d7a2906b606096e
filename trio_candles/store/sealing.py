"""Whether a day can be sealed: a day that is over, known and compared (the states are in :mod:`.sealed`).

A day is looked at an hour after its end, and whenever :data:`AGAIN` has passed since it was found not to be ready::

    over        it ended an hour ago, and each of its minutes is accounted for
    known       none is an open gap, and no revision is open
    written     no candle waits for a file of it, no aggregate is behind, no file is being replaced
    compared    its live candles were compared with REST, or nobody answered for a day, or filling is off

The last days of a series that is not expected any more are sealed as they stand, gaps included.

Works inside the journal's transactions, on its connection.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

import attrs

from trio_candles.candles.model import DAY, MINUTE, Millis, Series
from trio_candles.store.accounts import EMPTY, GAP, NOT_EXPECTED, STORED, UNFILLABLE, Account, Unknown
from trio_candles.store.entries import OVER, Entries, Entry
from trio_candles.store.revisions import Revisions
from trio_candles.store.sealed import path_of
from trio_candles.store.spans import touching

__all__ = ["AGAIN", "Sealing"]

AGAIN = Millis(600_000)
"""Ms until a day that cannot be sealed is looked at again."""
UNANSWERED = DAY
"""Ms after its end when a day is sealed although its live candles were not compared."""


@attrs.frozen
class Sealing:
    """The judge of an open journal's open days."""

    _db: sqlite3.Connection
    _entries: Entries
    _revisions: Revisions

    def due(self, now: Millis, count: int) -> list[tuple[Series, Millis]]:
        """At most *count* open days, as (series, day), to be looked at now; those due for longest first."""
        rows = self._db.execute(
            "SELECT series_id, day_ms FROM open_day WHERE not_before_ms <= :now AND day_ms <= :now - :over"
            " ORDER BY not_before_ms LIMIT :count",
            {"now": now, "over": OVER, "count": count},
        ).fetchall()
        # One that waits for longer than any waits: the clock was set back.
        rows += self._db.execute(
            "SELECT series_id, day_ms FROM open_day WHERE not_before_ms > :far AND day_ms <= :now - :over"
            " ORDER BY not_before_ms LIMIT :count",
            {"now": now, "over": OVER, "far": now + AGAIN, "count": count - len(rows)},
        ).fetchall()
        return [(self._entries.series(id_), Millis(day)) for id_, day in rows]

    def postpone(self, days: Iterable[tuple[Series, Millis]], now: Millis) -> None:
        """Look at *days* again in :data:`AGAIN`."""
        self._db.executemany(
            "UPDATE open_day SET not_before_ms = ? WHERE series_id = ? AND day_ms = ?",
            [(now + AGAIN, self._entries[series].id, day) for series, day in days],
        )

    def account(
        self, series: Series, day: Millis, timeframes: Iterable[str], now: Millis, *, filling: bool
    ) -> Account | None:
        """The account of the open *day* as it would be sealed now; ``None`` if the day cannot be sealed yet.

        *timeframes* are those of which the day may have files, *filling* says whether gaps are filled over REST.
        """
        entry = self._entries[series]
        since, until = max(day, entry.first), min(Millis(day + DAY), entry.mark)
        if since >= until or now < day + OVER or (entry.expected and until < day + DAY):
            return None
        if not self._is_written(entry, series, day, timeframes):
            return None
        account = self.as_it_stands(series, day, compared=False)
        if account is None:
            return None
        mark = self._revisions.mark(entry.id)
        # The mark goes on to the next candle, which a thin pair may not have for long.
        if mark is not None and STORED not in account.minutes[max(0, (mark - day) // MINUTE) :]:
            return attrs.evolve(account, compared=True)
        return account if not filling or now >= day + DAY + UNANSWERED else None

    def as_it_stands(self, series: Series, day: Millis, *, compared: bool) -> Account | None:
        """The account of the open *day*, whatever is written of it; ``None`` if one of its gaps is to be filled."""
        entry = self._entries[series]
        since, until = max(day, entry.first), min(Millis(day + DAY), entry.mark)
        letters = bytearray(NOT_EXPECTED.encode() * (DAY // MINUTE))
        _write(letters, day, since, until, STORED)
        why: dict[str, Unknown] = {}
        columns = "since_ms, until_ms, state, reason, detail, first_seen_ms, attempts, last_error"
        for low, high, state, *rest in self._rows("gap", columns, entry, day):
            if state == "open" and entry.expected:
                return None
            letter = GAP if state == "open" else UNFILLABLE
            _write(letters, day, low, high, letter)
            why[letter] = Unknown(*rest)
        for low, high in self._rows("empty", "since_ms, until_ms", entry, day):  # of a thin pair 720
            _write(letters, day, low, high, EMPTY)
        (empty,) = self._rows("empty", "evidence", entry, day, "DESC LIMIT 1").fetchone() or (None,)
        listed = self._db.execute(
            "SELECT since_ms, evidence FROM listing WHERE series_id = ? AND since_ms >= ? AND since_ms < ?",
            (entry.id, day, day + DAY),
        ).fetchone()
        return Account(
            series, day, letters.decode(), compared, empty, why.get(UNFILLABLE), why.get(GAP),
            None if listed is None else (Millis(listed[0]), listed[1]),
        )  # fmt: skip

    def _is_written(self, entry: Entry, series: Series, day: Millis, timeframes: Iterable[str]) -> bool:
        """Whether everything that is known of *day* is in its files, and nothing of it is in doubt."""
        of_day = (entry.id, day, day + DAY)
        left = (
            "SELECT 1 FROM candle WHERE series_id = ? AND open_ms >= ? AND open_ms < ?",
            "SELECT 1 FROM underived WHERE series_id = ? AND since_ms >= ? AND since_ms < ?",
            "SELECT 1 FROM revision WHERE series_id = ? AND open_ms >= ? AND open_ms < ? AND outcome = 'open'",
        )
        if any(self._db.execute(f"{query} LIMIT 1", of_day).fetchone() for query in left):
            return False
        paths = [path_of(series, day, name) for name in ("1m", *timeframes)]
        pending = "SELECT 1 FROM day_file WHERE path = ? AND pending IS NOT NULL"
        return not any(self._db.execute(pending, (path,)).fetchone() for path in paths)

    def _rows(self, table: str, columns: str, entry: Entry, day: Millis, order: str = "ASC") -> sqlite3.Cursor:
        return self._db.execute(
            f"SELECT {columns} FROM {table} WHERE {touching(table)} ORDER BY since_ms {order}",
            {"id": entry.id, "since": day, "until": day + DAY},
        )


def _write(letters: bytearray, day: Millis, low: int, high: int, letter: str) -> None:
    """Let the minutes of ``[low, high)`` that are of *day* be *letter*."""
    since, until = max(low - day, 0) // MINUTE, min(high - day, DAY) // MINUTE
    letters[since:until] = letter.encode() * (until - since)
