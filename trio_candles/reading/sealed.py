"""The sealed days in a ledger, for whoever only reads. A row that does not match its checksum is refused."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from trio_candles.candles.model import DAY, MINUTE, Millis, Series
from trio_candles.reading.errors import LedgerUnreadable
from trio_candles.store.accounts import (
    SEALED,
    STORED,
    Account,
    AccountBroken,
    SealedDay,
    sealed_day,
    sealed_minutes,
)

__all__ = ["SealedDays"]

DENSE = STORED * (DAY // MINUTE)

Row = tuple[Any, ...]


class SealedDays:
    """The table ``sealed`` of a ledger; *known* says whether its format has one."""

    def __init__(self, database: sqlite3.Connection, *, known: bool) -> None:
        self._db = database
        self._known = known
        self._whole: tuple[object, list[SealedDay]] = None, []
        """What was asked for last, and what was found: a plan asks for the same days several times."""

    def minutes(self, id_: int, series: Series, since: int, until: int) -> Iterator[tuple[Millis, str, Account | None]]:
        """The days that touch ``[since, until)`` of *series*, which the ledger knows as *id_*, oldest first: the day, a
        letter for each of its minutes, and the account, which is ``None`` where every minute is a candle.
        """
        with _refused():
            for row in self._rows("day_ms > ? AND day_ms < ?", id_, since - DAY, until):
                letters = sealed_minutes(series, row)
                yield Millis(row[0]), letters, None if letters == DENSE else sealed_day(series, row).account

    def whole(self, id_: int, series: Series, since: int, until: int) -> list[SealedDay]:
        """The days that touch ``[since, until)``, oldest first, with their files' digests."""
        asked = (id_, since - since % DAY, until + -until % DAY)
        if self._whole[0] != asked:
            with _refused():
                rows = self._rows("day_ms > ? AND day_ms < ?", id_, since - DAY, until)
                self._whole = asked, [sealed_day(series, row) for row in rows]
        return self._whole[1]

    def with_open_gaps(self, id_: int, series: Series) -> list[Account]:
        """The days in which a minute is an open gap, oldest first; reads no other day."""
        with _refused():
            return [sealed_day(series, row).account for row in self._rows("unknown > 0", id_)]

    def _rows(self, which: str, id_: int, *values: int) -> Iterable[Row]:
        if not self._known:
            return ()
        query = f"SELECT {SEALED} FROM sealed WHERE series_id = ? AND {which} ORDER BY day_ms"
        return self._db.execute(query, (id_, *values))


@contextmanager
def _refused() -> Iterator[None]:
    try:
        yield
    except AccountBroken as error:
        raise LedgerUnreadable(f"{error}; the collector mends it, or run the audit") from error
