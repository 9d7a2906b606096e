"""What becomes of the ledger when something is lost: a day file, the row of a sealed day, or the ledger itself.

Minutes of which nothing else is known become gaps, and are asked for again. Works inside the journal's transactions, on
its connection.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence

import attrs

from trio_candles.candles.intervals import Interval, length, subtract, touching
from trio_candles.candles.model import DAY, MINUTE, Millis, Reason, Series, Unsure
from trio_candles.store.accounts import SealedDay
from trio_candles.store.entries import Entries
from trio_candles.store.gaps import Gaps
from trio_candles.store.salvage import Salvaged
from trio_candles.store.sealed import Sealed, path_of
from trio_candles.store.spans import cut_empty
from trio_candles.store.underived import Underived
from trio_candles.store.verdicts import Verdicts

__all__ = ["Losses"]


@attrs.frozen
class Losses:
    """The losses of an open journal."""

    _db: sqlite3.Connection
    _entries: Entries
    _gaps: Gaps
    _verdicts: Verdicts
    _underived: Underived
    _sealed: Sealed

    def lose(self, path: str, series: Series, day: Millis, now: Millis, detail: str) -> int:
        """The day file *path* is gone or not to be believed: its minutes become gaps; return how many."""
        entry = self._entries[series]
        until = min(Millis(day + DAY), entry.mark)
        since = max(day, entry.first)
        lost = 0
        self._sealed.open(entry, day, day + DAY)
        self._db.execute("DELETE FROM day_file WHERE path = ?", (path,))
        for low, high in self._verdicts.unaccounted(entry, since, until):
            self._gaps.history.forget_absences(entry, low, high)
            self._gaps.open(entry, Unsure(series, Millis(low), Millis(high), Reason.CORRUPT, detail), now)
            self._underived.add(entry.id, low, high)
            lost += (high - low) // MINUTE
        return lost

    def lose_aggregate(self, path: str, series: Series, day: Millis) -> None:
        """The day file *path*, of a higher timeframe of the 1m *series*, is gone or not to be believed."""
        entry = self._entries[series]
        self._db.execute("DELETE FROM day_file WHERE path = ?", (path,))
        if not self._sealed.lose_aggregate(entry, day, path):
            self._underived.add_days([(entry.id, day)])

    def reopen(self, series: Series, day: Millis, digests: Mapping[str, str], stored: Iterable[int]) -> int:
        """The row of a sealed *day* was damaged, and no file has its account: open the day with what its files, with
        *digests* by timeframe, have *stored*; return how many of its other minutes are gaps now.
        """
        entry = self._entries[series]
        since, until = max(day, entry.first), min(Millis(day + DAY), entry.mark)
        gaps = list(subtract([(since, until)], touching(stored)))
        self._sealed.forget(entry, day)
        for timeframe, digest in digests.items():
            self._sealed.now_current(path_of(series, day, timeframe), digest)
        for low, high in gaps:
            lost = Unsure(series, Millis(low), Millis(high), Reason.LEDGER_LOST)
            self._gaps.open(entry, lost, until)
        self._underived.add_days([(entry.id, day)])
        return length(gaps) // MINUTE

    def restore(self, sealed: SealedDay) -> None:
        """Let *sealed* be the row of a day whose row was damaged."""
        entry = self._entries[sealed.account.series]
        self._sealed.forget(entry, sealed.account.day)
        self._sealed.seal(entry, sealed)

    def rebuild(
        self,
        digests: Mapping[str, str],
        known: Mapping[Series, tuple[Millis, Sequence[Interval]]],
        days: Iterable[tuple[Series, Millis]],
        salvaged: Salvaged,
        sealed: Iterable[SealedDay],
    ) -> int:
        """Begin the ledger anew, as ``Journal.rebuild`` says; return how many minutes between known ones are gaps."""
        lost = 0
        self._db.executemany("INSERT INTO day_file VALUES (?, ?, NULL)", list(digests.items()))
        for series, (first, spans) in known.items():
            entry = self._entries.add(series, first)
            end = Millis(spans[-1][1])
            for since, until in spans:
                lost += (since - entry.mark) // MINUTE
                self._verdicts.unsure(Unsure(series, entry.mark, Millis(since), Reason.LEDGER_LOST), end)
                self._verdicts.advance(entry, series, Millis(since), Millis(until))
        for one in sealed:
            entry, account = self._entries[one.account.series], one.account
            self._sealed.seal(entry, one)
            if account.listed is not None:
                self._db.execute("INSERT OR REPLACE INTO listing VALUES (?, ?, ?)", (entry.id, *account.listed))
        for series, (_, spans) in known.items():
            entry = self._entries[series]
            candles, empties = salvaged.candles.get(series, []), salvaged.empties.get(series, [])
            for candle in candles:  # that came after its day was sealed
                self._sealed.open(entry, candle.open_time, candle.close_time)
                self._gaps.forget(entry, candle.open_time, candle.close_time, candle.close_time)
                cut_empty(self._db, entry.id, candle.open_time, candle.close_time)
            self._verdicts.put_back(entry, candles, empties)
            newest = list(subtract(spans, [(low, high) for low, high, _ in empties]))[-1:]
            if newest:
                self._entries.stored(entry, Millis(newest[0][1] - MINUTE))
        self._underived.add_days((self._entries[series].id, day) for series, day in days)
        return lost
