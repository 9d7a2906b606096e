"""The ledger's gaps: opened, closed, asked about, given up; and the history of each.

Works inside the journal's transactions, on its connection; spans are whole minutes, which the journal has checked.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator

from trio_candles.candles.model import MINUTE, Attempt, Gap, Millis, Reason, Series, Unsure
from trio_candles.store.spans import touching

__all__ = ["OLD_ENOUGH", "SPACED", "Gaps"]

EVENTS_KEPT = 90 * 86_400_000
"""How long the history of gaps is kept, in ms."""
OLD_ENOUGH = Millis(60 * MINUTE)
"""Only of minutes that ended this long ago is an absence taken down: a record may be late (OKX's history is)."""
SPACED = Millis(10 * MINUTE)
"""How far apart the two observations are that make a minute unfillable."""

Span = tuple[Millis, Millis]


class Gaps:
    """The tables ``gap`` and ``gap_event`` of an open journal."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._db = database

    # --- what there is

    def read_through(self) -> None:
        """Read every word that the collector goes by; ``ValueError`` where that makes no sense."""
        for state, reason in self._db.execute("SELECT DISTINCT state, reason FROM gap"):
            Reason(reason)
            if state not in ("open", "unfillable"):
                raise ValueError(f"a gap is {state!r}")

    def open_minutes(self) -> Counter[str]:
        """Minutes in open gaps of expected series, by venue."""
        rows = self._db.execute(
            "SELECT venue, sum(until_ms - since_ms) FROM gap JOIN series ON series.id = series_id"
            " WHERE state = 'open' AND expected = 1 GROUP BY venue"
        )
        return Counter({str(venue): int(length) // MINUTE for venue, length in rows})

    def newest(self, venue: str, limit: int) -> list[Gap]:
        """The newest *limit* open gaps of *venue*'s expected series, newest first."""
        rows = self._db.execute(
            "SELECT symbol, timeframe, since_ms, until_ms, reason, first_seen_ms, attempts"
            " FROM gap JOIN series ON series.id = series_id"
            " WHERE state = 'open' AND expected = 1 AND venue = ? ORDER BY until_ms DESC, symbol LIMIT ?",
            (venue, limit),
        )
        return [
            Gap(Series(venue, symbol, timeframe), Millis(since), Millis(until), Reason(reason), Millis(seen), attempts)
            for symbol, timeframe, since, until, reason, seen, attempts in rows
        ]

    def within(self, series_id: int, since: Millis, until: Millis) -> list[Span]:
        """The parts of ``[since, until)`` that are gaps, open or unfillable, oldest first."""
        rows = self._db.execute(
            f"SELECT max(since_ms, :since), min(until_ms, :until) FROM gap WHERE {touching('gap')} ORDER BY since_ms",
            {"id": series_id, "since": since, "until": until},
        )
        return [(Millis(low), Millis(high)) for low, high in rows]

    # --- opened and closed

    def open(self, series_id: int, unsure: Unsure, now: Millis) -> None:
        """Let ``[since, until)`` be a gap; one that touches it and says the same grows."""
        if unsure.since >= unsure.until:
            return
        reason, detail = unsure.reason.value, unsure.detail
        said = f"{reason}: {detail}" if detail else reason
        before = self._db.execute(
            "SELECT until_ms, state, reason, detail, id FROM gap WHERE series_id = ? AND since_ms < ?"
            " ORDER BY since_ms DESC LIMIT 1",
            (series_id, unsure.since),
        ).fetchone()
        if before is not None and before[:4] == (unsure.since, "open", reason, detail):
            self._db.execute("UPDATE gap SET until_ms = ? WHERE id = ?", (unsure.until, before[4]))
            if not self._extend_event(series_id, unsure.since, unsure.until, said):
                self.event(series_id, unsure.since, unsure.until, "opened", said, now)
            return
        self.event(series_id, unsure.since, unsure.until, "opened", said, now)
        self._db.execute(
            "INSERT INTO gap (series_id, since_ms, until_ms, state, reason, detail, first_seen_ms, attempts)"
            " VALUES (?, ?, ?, 'open', ?, ?, ?, 0)",
            (series_id, unsure.since, unsure.until, reason, detail, now),
        )

    def close(self, series_id: int, since: Millis, until: Millis, event: str, detail: str, now: Millis) -> list[Span]:
        """Take ``[since, until)`` out of the gaps; the spans that were gaps, oldest first."""
        closed = []
        for gap, gap_since, gap_until in self._touching(series_id, since, until):
            low, high = Millis(max(gap_since, since)), Millis(min(gap_until, until))
            closed.append((low, high))
            self._cut(gap, gap_since, gap_until, low, high)
            self._db.execute("DELETE FROM gap WHERE id = ?", (gap,))
            self.event(series_id, low, high, event, detail, now)
        return closed

    def _touching(self, series_id: int, since: Millis, until: Millis) -> list[tuple[int, int, int]]:
        return self._db.execute(
            f"SELECT id, since_ms, until_ms FROM gap WHERE {touching('gap')} ORDER BY since_ms",
            {"id": series_id, "since": since, "until": until},
        ).fetchall()

    def _cut(self, gap: int, since: int, until: int, low: Millis, high: Millis) -> None:
        """Let what *gap* has outside of ``[low, high)`` be gaps of their own, and *gap* end there."""
        self._db.execute("UPDATE gap SET since_ms = ?, until_ms = ? WHERE id = ?", (low, high, gap))
        for begin, end in ((since, low), (high, until)):
            if begin < end:
                self._db.execute(
                    "INSERT INTO gap (series_id, since_ms, until_ms, state, reason, detail, first_seen_ms, attempts,"
                    " last_error) SELECT series_id, ?, ?, state, reason, detail, first_seen_ms, attempts, last_error"
                    " FROM gap WHERE id = ?",
                    (begin, end, gap),
                )

    # --- asked about

    def attempted(self, series_id: int, attempt: Attempt, now: Millis) -> None:
        """Count *attempt*; minutes whose absence was observed before, long enough ago, become unfillable."""
        self._db.execute(
            f"UPDATE gap SET attempts = attempts + 1, last_error = :error WHERE {touching('gap')} AND state = 'open'",
            {"error": attempt.error, "id": series_id, "since": attempt.since, "until": attempt.until},
        )
        if attempt.absent:
            until = min(attempt.until, Millis(now - now % MINUTE - OLD_ENOUGH))
            if attempt.since < until:
                self._observed_absent(series_id, attempt.since, until, attempt.error, now)

    def _observed_absent(self, series_id: int, since: Millis, until: Millis, error: str, now: Millis) -> None:
        earlier = self._db.execute(
            "SELECT max(since_ms, ?), min(until_ms, ?), at_ms, detail FROM gap_event"
            " WHERE series_id = ? AND event = 'absent' AND since_ms < ? AND until_ms > ? ORDER BY at_ms",
            (since, until, series_id, until, since),
        ).fetchall()
        known: list[Span] = []
        for low, high, at, said in earlier:
            known.append((low, high))
            if at <= now - SPACED:
                self._give_up(series_id, low, high, f"{said} (at {at}); {error} (at {now})", now)
        for low, high in _rest(since, until, known):
            self.event(series_id, low, high, "absent", error, now)

    def _give_up(self, series_id: int, since: Millis, until: Millis, evidence: str, now: Millis) -> None:
        """The open gaps in ``[since, until)`` are unfillable."""
        for gap, gap_since, gap_until in self._touching(series_id, since, until):
            low, high = Millis(max(gap_since, since)), Millis(min(gap_until, until))
            (state,) = self._db.execute("SELECT state FROM gap WHERE id = ?", (gap,)).fetchone()
            if state == "open":
                self._cut(gap, gap_since, gap_until, low, high)
                self._db.execute("UPDATE gap SET state = 'unfillable', last_error = ? WHERE id = ?", (evidence, gap))
                self.event(series_id, low, high, "unfillable", evidence, now)

    # --- history

    def event(self, series_id: int, since: Millis, until: Millis, event: str, detail: str, now: Millis) -> None:
        """Append to the history of ``[since, until)``."""
        self._db.execute(
            "INSERT INTO gap_event VALUES (?, ?, ?, ?, ?, ?)", (now, series_id, since, until, event, detail)
        )

    def _extend_event(self, series_id: int, since: Millis, until: Millis, detail: str) -> bool:
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

    def forget_old_events(self, now: Millis) -> None:
        """Let go of history that is older than :data:`EVENTS_KEPT`."""
        self._db.execute("DELETE FROM gap_event WHERE at_ms < ?", (now - EVENTS_KEPT,))


def _rest(since: Millis, until: Millis, taken: list[Span]) -> Iterator[Span]:
    """What of ``[since, until)`` is in none of *taken*."""
    for low, high in sorted(taken):
        if since < low:
            yield since, low
        since = max(since, high)
    if since < until:
        yield since, until
