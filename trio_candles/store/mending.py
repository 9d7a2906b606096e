"""What an earlier version derived from a wrong clock is dropped, once.

Earlier versions believed the machine's clock at once, and what they derived from it was durable and only ever widened:
a first start in 1970 expects 56 years of minutes, and a clock that was ahead leaves minutes accounted for that have
not happened yet. The upgrade of such a journal notes :data:`~trio_candles.store.schema.UNMENDED`, and the first
:meth:`~trio_candles.store.journal.Journal.expect`, whose clock a venue has vouched for, mends it in its transaction::

    first                                                             now          mark
    │ gaps that no right clock would have made │ what rightly remains │ not happened │
    └──────── dropped: first moves on ─────────┘                      └── dropped ───┘

The minutes of a series are accounted for without a hole, so nothing can be dropped but at the two ends. No stored
candle is dropped: the mark stays above one that is ahead of the clock. A directory that is simulated or accelerated is
not mended, because its clock is rightly another than the wall's.

Works inside the journal's transactions, on its connection.
"""

from __future__ import annotations

import logging
import sqlite3

import attrs

from trio_candles.candles.intervals import Interval, clip, length, periods, subtract
from trio_candles.candles.model import DAY, MINUTE, Millis, Reason, Series, Unsure, floor_to
from trio_candles.store.entries import Entries, Entry
from trio_candles.store.gaps import LONGEST_WAIT, Gaps
from trio_candles.store.revisions import RIPE, WAIT_OF_OLD_DOUBT, Revisions
from trio_candles.store.schema import UNMENDED
from trio_candles.store.spans import cut_empty
from trio_candles.store.underived import Underived

__all__ = ["Mender"]

log = logging.getLogger(__name__)

BEGAN = Millis(1_767_225_600_000)
"""2026-01-01: no version of this program is older, and no clock of a collector was right that showed less."""
LONGEST_LOOKBACK = Millis(3650 * DAY)
"""The longest ``lookback_days`` that the configuration allows, in ms."""

TIMES = {
    ("gap", "first_seen_ms"): 0,
    ("gap", "not_before_ms"): LONGEST_WAIT,
    ("gap_event", "at_ms"): 0,
    ("revision", "at_ms"): 0,
    ("revision", "not_before_ms"): WAIT_OF_OLD_DOUBT,
    ("confirmed", "not_before_ms"): RIPE,
}
"""Table and column of the ledger's points in time → how many ms ahead of the clock they may rightly be."""


@attrs.frozen
class Mender:
    """Mends an open journal, once."""

    _db: sqlite3.Connection
    _entries: Entries
    _gaps: Gaps
    _revisions: Revisions
    _underived: Underived

    def mend(self, earliest: Millis, now: Millis) -> set[Series]:
        """Drop what no right clock would have made; return the series of which nothing is left, which begin anew at
        *earliest*, the first minute that is looked back to, or at their listing.

        Nothing happens unless the journal was an earlier version's and is not mended yet. *now* is a right clock's.
        """
        meta = dict(self._db.execute("SELECT key, value FROM meta"))
        if UNMENDED not in meta:
            return set()
        self._db.execute("DELETE FROM meta WHERE key = ?", (UNMENDED,))
        if meta.get("kind") == "simulated" or float(meta.get("speed", 1)) != 1:
            return set()
        anew, series_mended, before, ahead = set(), 0, 0, 0
        for series, entry in self._entries.items():
            not_happened = self._drop_the_future(entry, now)
            not_right = self._drop_the_past(entry, floor_to(now, MINUTE) - earliest, now)
            if entry.first >= entry.mark and (not_happened or not_right or entry.mark < BEGAN):
                anew.add(series)
                begin = self._listed(entry, now)
                begin = earliest if begin is None else max(earliest, begin)
                self._entries.stand(entry, begin, begin)
            if not_happened or not_right:
                series_mended, before, ahead = series_mended + 1, before + not_right, ahead + not_happened
                log.info(
                    "%s: dropped %d minutes before its first one and %d that have not happened; it is now accounted"
                    " for from %d to %d", series, not_right, not_happened, entry.first, entry.mark,
                )  # fmt: skip
            self._forget_around(entry)
        times = self._bring_back_times(now)
        if series_mended or times:
            log.warning(
                "an earlier version believed a wrong clock here, which is mended: %d minutes that nobody could expect"
                " and %d that have not happened were dropped, of %d series, and %d times ahead of the clock are now."
                " No candle was dropped; the log file names the series",
                before, ahead, series_mended, times,
            )  # fmt: skip
        return anew

    def _drop_the_future(self, entry: Entry, now: Millis) -> int:
        """Take back the mark to the minute that runs at *now*; return how many minutes were dropped."""
        until, mark = floor_to(now, MINUTE), entry.mark
        self._db.execute("DELETE FROM listing WHERE series_id = ? AND since_ms > ?", (entry.id, until))
        if mark <= until:
            return 0
        empties = self._ahead("empty", entry, until)
        noted = sorted([*self._ahead("gap", entry, until), *empties])
        stored = list(subtract([(max(until, entry.first), mark)], noted))
        reach = Millis(max(until, stored[-1][1] if stored else until))
        self._gaps.forget(entry, reach, mark, now)
        for low, high in empties:
            cut_empty(self._db, entry.id, low, high)
        # An aggregate of a period that runs may have been derived from minutes that were called empty.
        days = periods(clip(empties, until, floor_to(reach, DAY) + DAY), DAY)
        self._underived.add_days((entry.id, Millis(day)) for day in days)
        self._entries.stand(entry, min(entry.first, reach), reach)
        for low, high in clip(empties, until, reach):  # below a candle that is ahead of the clock
            doubt = Unsure(self._entries.series(entry.id), Millis(low), Millis(high), Reason.UNPROVEN)
            self._gaps.open(entry, doubt, now)
        self._revisions.go_back(entry.id, reach)
        return (mark - reach + length(clip(empties, until, reach))) // MINUTE

    def _ahead(self, table: str, entry: Entry, until: int) -> list[Interval]:
        """The parts of the spans in *table* that are not before *until*, oldest first."""
        rows = self._db.execute(
            f"SELECT since_ms, until_ms FROM {table} WHERE series_id = ? AND until_ms > ? ORDER BY since_ms",
            (entry.id, until),
        )
        return [(max(since, until), high) for since, high in rows]

    def _drop_the_past(self, entry: Entry, lookback: int, now: Millis) -> int:
        """Let the series begin with what rightly remains; return how many minutes were dropped."""
        first = begin = entry.first
        rows = self._db.execute(
            "SELECT since_ms, until_ms, state, reason, first_seen_ms FROM gap WHERE series_id = ? ORDER BY since_ms",
            (entry.id,),
        )
        for since, until, state, reason, seen in rows:
            if since != begin:
                break
            newest = entry.last_candle
            right = _right_from(since, until, reason, min(seen, now), lookback, newest) if state == "open" else since
            begin = Millis(floor_to(min(right, until), MINUTE))
            if begin < until:
                break
        if begin > first:
            self._gaps.forget(entry, first, begin, now)
            self._entries.stand(entry, begin, entry.mark)
            self._revisions.advance(entry.id, begin)
        return (begin - first) // MINUTE

    def _forget_around(self, entry: Entry) -> None:
        """Let go of history and notes about minutes that are not accounted for."""
        values = {"id": entry.id, "first": entry.first, "mark": entry.mark, "day": floor_to(entry.mark, DAY) + DAY}
        for statement in (
            "DELETE FROM gap_event WHERE series_id = :id"
            " AND (since_ms >= :mark OR until_ms <= :first OR :first = :mark)",
            "UPDATE gap_event SET since_ms = max(since_ms, :first), until_ms = min(until_ms, :mark)"
            " WHERE series_id = :id AND (since_ms < :first OR until_ms > :mark)",
            "DELETE FROM underived WHERE series_id = :id AND since_ms >= :day",
        ):
            self._db.execute(statement, values)

    def _listed(self, entry: Entry, now: Millis) -> Millis | None:
        row = self._db.execute("SELECT since_ms FROM listing WHERE series_id = ?", (entry.id,)).fetchone()
        return None if row is None else Millis(min(row[0], floor_to(now, MINUTE)))

    def _bring_back_times(self, now: Millis) -> int:
        """Let points in time that are ahead of the clock be *now*; return how many were."""
        count = 0
        for (table, column), ahead in TIMES.items():
            count += self._db.execute(
                f"UPDATE {table} SET {column} = ? WHERE {column} > ?", (now, now + ahead)
            ).rowcount
        return count


def _right_from(since: int, until: int, reason: str, seen: int, lookback: int, newest: Millis | None) -> int:
    """From which minute on a series may rightly be expected that begins with this open gap; *until* or later: not at
    all. *newest* is the newest stored candle.
    """
    if reason in (Reason.LEDGER_LOST, Reason.CORRUPT):  # it follows from day files, and from no clock
        return since
    if reason == Reason.NOT_COLLECTED:
        if seen < BEGAN:
            return until
        return since if newest is None else max(since, newest - LONGEST_LOOKBACK)
    # The others are about minutes in which a collector was at work, or should have been.
    if since >= BEGAN:
        return since
    if until <= BEGAN:
        return until
    # It reaches from a start under a wrong clock to the hour at which the clock was right, at last. A right clock would
    # have looked back from there.
    return max(since, (seen if seen >= BEGAN else until) - lookback)
