"""The ledger's table ``underived``: which days' aggregates are behind their minutes; and what the ledger says of a
day's minutes as far as aggregates are concerned.

A minute that changes and leaves a row in ``candle`` needs no note here: the row brings its day into a flush. Every
other change is noted in the transaction that makes it, and so are the minutes that a replacement brings into a day
file; the notes of a day are deleted when all its files are durable. So after a crash a day is either noted or done.

Works inside the journal's transactions, on its connection.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

import attrs

from trio_candles.candles.aggregation import Kinds
from trio_candles.candles.intervals import Interval
from trio_candles.candles.model import DAY, Millis, floor_to
from trio_candles.store.accounts import EMPTY, GAP, UNFILLABLE, Account
from trio_candles.store.spans import touching

__all__ = ["DayLedger", "Underived"]


@attrs.frozen
class DayLedger:
    """What the ledger says of one day's minutes."""

    day: Millis
    first: Millis
    """The first minute that is accounted for; earlier ones are unknown, or (see *listed*) empty."""
    mark: Millis
    listed: Millis | None
    """When the market began, if that is known."""
    gaps: list[Interval]
    empties: list[Interval]
    underived: list[Interval]
    """Minutes that changed without a row in ``candle``."""

    def expected(self) -> Kinds:
        """What each minute must be, without a look at the day file: empty, a gap, or stored up to the mark."""
        kinds = Kinds(self.day)
        if self.listed is not None:
            kinds.empty(0, self.listed)
        kinds.stored(self.first, self.mark)
        for gap in self.gaps:
            kinds.unknown(*gap)
        for empty in self.empties:
            kinds.empty(*empty)
        return kinds

    def found(self, stored: Iterable[int]) -> Kinds:
        """What each minute is, given the open times of those that really are in the day file."""
        kinds = Kinds(self.day)
        for empty in self.empties:
            kinds.empty(*empty)
        if self.listed is not None:
            kinds.empty(0, self.listed)
        kinds.stored_at(stored)
        return kinds

    @property
    def wholly_underived(self) -> bool:
        """Whether the whole day is noted: nothing is known about its aggregates."""
        return (self.day, self.day + DAY) in self.underived


class Underived:
    """The table of an open journal."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._db = database

    def add(self, series_id: int, since: int, until: int) -> None:
        """Note that minutes of ``[since, until)`` have changed; neighbours within a day are joined."""
        for day in range(floor_to(since, DAY), until, DAY):
            low, high = max(since, day), min(until, day + DAY)
            before = self._db.execute(
                "SELECT id, until_ms FROM underived WHERE series_id = ? AND since_ms BETWEEN ? AND ?"
                " ORDER BY since_ms DESC LIMIT 1",
                (series_id, day, low),
            ).fetchone()
            if before is None or before[1] < low:
                self._db.execute(
                    "INSERT INTO underived (series_id, since_ms, until_ms) VALUES (?, ?, ?)", (series_id, low, high)
                )
            elif before[1] < high:
                self._db.execute("UPDATE underived SET until_ms = ? WHERE id = ?", (high, before[0]))

    def add_days(self, days: Iterable[tuple[int, Millis]]) -> None:
        """Note whole days, as (series id, day): nothing is known any more about their aggregates."""
        self._db.executemany(
            "INSERT INTO underived (series_id, since_ms, until_ms) VALUES (?, ?, ?)",
            [(series_id, day, day + DAY) for series_id, day in days],
        )

    def days(self) -> list[tuple[int, Millis]]:
        """The (series id, day) that are noted, and for which no candle waits; the newest days first."""
        rows = self._db.execute(
            f"WITH noted AS (SELECT DISTINCT series_id AS id, since_ms - since_ms % {DAY} AS day FROM underived)"
            " SELECT id, day FROM noted WHERE NOT EXISTS (SELECT 1 FROM candle"
            f" WHERE series_id = id AND open_ms >= day AND open_ms < day + {DAY}) ORDER BY day DESC, id"
        )
        return [(series_id, Millis(day)) for series_id, day in rows]

    def forget(self, series_id: int, day: Millis) -> None:
        """Delete the notes of *day*: all its aggregates are derived from its minutes as they are."""
        self._db.execute(
            "DELETE FROM underived WHERE series_id = ? AND since_ms >= ? AND since_ms < ?", (series_id, day, day + DAY)
        )

    def ledger_of(
        self, series_id: int, first: Millis, mark: Millis, day: Millis, account: Account | None = None
    ) -> DayLedger:
        """What the ledger says of *day*; *account* is the day's, if it is sealed."""
        listed = self._db.execute("SELECT since_ms FROM listing WHERE series_id = ?", (series_id,)).fetchone()
        return DayLedger(
            day,
            first,
            mark,
            None if listed is None else Millis(listed[0]),
            self._spans("gap", series_id, day) if account is None else account.spans(GAP + UNFILLABLE),
            self._spans("empty", series_id, day) if account is None else account.spans(EMPTY),
            self._spans("underived", series_id, day),
        )

    def _spans(self, table: str, series_id: int, day: Millis) -> list[Interval]:
        return self._db.execute(
            f"SELECT since_ms, until_ms FROM {table} WHERE {touching(table)} ORDER BY since_ms",
            {"id": series_id, "since": day, "until": day + DAY},
        ).fetchall()
