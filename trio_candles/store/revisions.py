"""What the venue's REST record says of stored minutes: agreement, or a revision with both values and both times.

A candle that differs from the stored one is a *revision*::

                               REST says what is stored, or something new, or nothing for two days
    another candle ──▶ open ──────────────────────────────────────────────────────────────────────▶ kept
                        │
                        └── two answers of REST, a minute apart, say the same other thing ─────────▶ replaced

REST is asked about two kinds of things: the minutes of open revisions (:class:`Doubtful`), and of each series the
live candles from its mark on (:class:`Unconfirmed`). Both are listed by when they are due, ``not_before_ms``, which
moves in the transaction that records an answer, whatever it was worth: so what cannot be settled, and a record that
is empty, come behind all that has been due for longer, and hide nothing.

Works inside the journal's transactions, on its connection.
"""

from __future__ import annotations

import sqlite3
from collections import Counter

import attrs

from trio_candles.candles.documents import CandleDocument, EmptyDocument, from_json, kept_from_json, to_json
from trio_candles.candles.model import MINUTE, Candle, Millis, Series, Source
from trio_candles.store.entries import Entries
from trio_candles.venues.history import SETTLED

__all__ = ["APART", "Doubtful", "Revisions", "Unconfirmed"]

APART = Millis(60_000)
"""Between two REST answers that replace a stored candle if they are the same: no cache keeps one that long."""
ASKED_APART = Millis(APART + 1000)
"""Between the questions; the second is for rounding."""
UNSETTLED_FOR = Millis(2 * 86_400_000)
"""After which a revision that REST never settled is kept as it is: nobody is asked for ever."""

RIPE = Millis(10 * MINUTE)
"""A live candle is asked about at this age, with all that came after it: one page for ten minutes of a series."""
WAIT, OLD = Millis(120_000), Millis(180 * MINUTE)
"""Ms until a minute, or a series, that an answer did not settle is asked about again; and how old it is when it may
never be settled, as of a market that is closed."""
WAIT_OF_OLD_DOUBT, WAIT_OF_OLD_SERIES = Millis(1_800_000), Millis(600_000)
"""The same of such a minute, or such a series."""
LISTED = 50
"""Of each kind, those that have been due for longest: more than is asked about until the next look."""


@attrs.frozen
class Unconfirmed:
    """Live candles of *series* that open at *since* or later have not been compared with REST yet."""

    series: Series
    since: Millis


@attrs.frozen
class Doubtful:
    """A stored minute with an open revision, to be asked about once more."""

    series: Series
    minute: Millis
    answered: Millis | None
    """When REST first said something else than what is stored; ``None`` if only the feed did."""


class Revisions:
    """The tables ``revision``, ``confirmed`` and ``confirmation`` of an open journal."""

    def __init__(self, database: sqlite3.Connection, entries: Entries) -> None:
        self._db = database
        self._entries = entries

    # --- what differs

    def read_through(self) -> None:
        """Read what may be read again; ``ValueError`` or the like where that makes no sense."""
        rows = self._db.execute("SELECT open_ms, stored, offered FROM revision WHERE outcome IN ('open', 'kept')")
        for minute, stored, offered in rows:
            try:
                kept_from_json(stored)
                from_json(offered, CandleDocument)
            except ValueError as error:
                raise ValueError(f"the revision of minute {minute}: {error}") from error

    def add(
        self, series_id: int, minute: Millis, stored: CandleDocument | EmptyDocument, offered: Candle, now: Millis
    ) -> bool:
        """Something else than what is stored was heard; ``False`` if it was heard before, and is still open."""
        said = to_json(CandleDocument.of(offered))
        for id_, before in self._open(series_id, minute):
            same = _same(before, offered) and before.source is offered.source
            if same:
                if before.ingest_time_ms > offered.ingest_time:
                    # The clock was set back: how long ago that was nobody can tell, so the minute begins anew.
                    self._db.execute("UPDATE revision SET offered = ? WHERE id = ?", (said, id_))
                    self._wait(series_id, minute, offered)
                return False
            if before.source is offered.source:
                self._settle(id_, "kept")  # the venue has changed its mind once more
        self._db.execute(
            "INSERT INTO revision (at_ms, series_id, open_ms, stored, offered, outcome, not_before_ms)"
            " VALUES (?, ?, ?, ?, ?, 'open', ?)",
            (now, series_id, minute, to_json(stored), said, minute + MINUTE + SETTLED),
        )
        self._wait(series_id, minute, offered)
        return True

    def _wait(self, series_id: int, minute: Millis, offered: Candle) -> None:
        """After an answer of REST, the next one that counts is a minute away."""
        if offered.source is Source.REST:
            self._db.execute(
                "UPDATE revision SET not_before_ms = ? WHERE series_id = ? AND open_ms = ? AND outcome = 'open'",
                (offered.ingest_time + ASKED_APART, series_id, minute),
            )

    def is_second(self, series_id: int, offered: Candle) -> bool:
        """Whether an earlier REST answer, at least a minute before this one, said the same."""
        return any(
            before.source is Source.REST
            and _same(before, offered)
            and offered.ingest_time - before.ingest_time_ms >= APART
            for _, before in self._open(series_id, offered.open_time)
        )

    def was_kept(self, series_id: int, offered: Candle) -> bool:
        """Whether the same was offered before by the same side, and REST settled that it does not replace anything."""
        rows = self._db.execute(
            "SELECT offered FROM revision WHERE series_id = ? AND open_ms = ? AND outcome = 'kept'",
            (series_id, offered.open_time),
        )
        said = [from_json(before, CandleDocument) for (before,) in rows]
        return any(_same(before, offered) and before.source is offered.source for before in said)

    def settle(self, series_id: int, minute: Millis, outcome: str) -> bool:
        """REST has the last word on *minute*; whether anything was open."""
        rows = self._open(series_id, minute)
        for id_, before in rows:
            # Only the word that was followed is "replaced"; what else was heard is history.
            self._settle(id_, outcome if outcome == "kept" or before.source is Source.REST else "kept")
        return bool(rows)

    def _settle(self, id_: int, outcome: str) -> None:
        self._db.execute("UPDATE revision SET outcome = ? WHERE id = ?", (outcome, id_))

    def _open(self, series_id: int, minute: Millis) -> list[tuple[int, CandleDocument]]:
        rows = self._db.execute(
            "SELECT id, offered FROM revision WHERE series_id = ? AND open_ms = ? AND outcome = 'open' ORDER BY id",
            (series_id, minute),
        )
        return [(id_, from_json(offered, CandleDocument)) for id_, offered in rows]

    def replaced(self, series_id: int, since: Millis, until: Millis) -> set[Millis]:
        """The minutes of ``[since, until)`` whose stored candle REST has replaced."""
        rows = self._db.execute(
            "SELECT DISTINCT open_ms FROM revision"
            " WHERE series_id = ? AND open_ms >= ? AND open_ms < ? AND outcome = 'replaced'",
            (series_id, since, until),
        )
        return {Millis(minute) for (minute,) in rows}

    def doubtful(self, venue: str, now: Millis) -> list[Doubtful]:
        """The :data:`LISTED` stored minutes of *venue*'s expected series with an open revision that are due the
        longest.
        """
        rows = self._db.execute(
            "SELECT series_id, open_ms,"
            " max(CASE WHEN json_extract(offered, '$.source') = 'rest'"
            " THEN json_extract(offered, '$.ingest_time_ms') END)"
            " FROM revision JOIN series ON series.id = series_id"
            " WHERE outcome = 'open' AND expected = 1 AND venue = :venue"
            " AND (not_before_ms <= :now OR not_before_ms > :far)"
            " GROUP BY series_id, open_ms ORDER BY min(not_before_ms), min(revision.id) LIMIT :limit",
            {"venue": venue, "now": now, "far": now + WAIT_OF_OLD_DOUBT, "limit": LISTED},
        )
        return [
            Doubtful(self._entries.series(id_), Millis(minute), None if answered is None else Millis(answered))
            for id_, minute, answered in rows
        ]

    def give_up_old(self, now: Millis) -> None:
        """Keep what is stored where REST has not settled a revision in :data:`UNSETTLED_FOR`."""
        self._db.execute(
            "UPDATE revision SET outcome = 'kept' WHERE outcome = 'open' AND at_ms < ?", (now - UNSETTLED_FOR,)
        )

    # --- what is confirmed

    def begin(self, series_id: int, mark: Millis) -> None:
        """Confirm live candles from *mark* on, unless it is known already where to go on."""
        self._db.execute("INSERT OR IGNORE INTO confirmed VALUES (?, ?, ?)", (series_id, mark, mark + RIPE))

    def mark(self, series_id: int) -> Millis | None:
        """Every live candle that opens before it was compared, or cannot be."""
        row = self._db.execute("SELECT mark_ms FROM confirmed WHERE series_id = ?", (series_id,)).fetchone()
        return None if row is None else Millis(row[0])

    def advance(self, series_id: int, mark: Millis) -> None:
        """Every live candle that opens before *mark* was compared, or cannot be."""
        self._db.execute(
            "UPDATE confirmed SET mark_ms = ?1, not_before_ms = ?1 + ?2 WHERE series_id = ?3 AND mark_ms < ?1",
            (mark, RIPE, series_id),
        )

    def go_back(self, series_id: int, minute: Millis) -> None:
        """A live candle came late, of *minute*: it is still to be compared, whatever was."""
        self._db.execute(
            "UPDATE confirmed SET mark_ms = ?1, not_before_ms = ?1 + ?2 WHERE series_id = ?3 AND mark_ms > ?1",
            (minute, RIPE, series_id),
        )

    def compared(self, series_id: int, since: Millis, until: Millis, now: Millis) -> None:
        """REST was asked about ``[since, until)``: what that has not settled waits, doubts and the series' mark."""
        self._db.execute(
            "UPDATE revision SET not_before_ms = :now + iif(open_ms < :old, :wait_of_old, :wait)"
            " WHERE series_id = :id AND open_ms >= :since AND open_ms < :until AND outcome = 'open'"
            " AND not_before_ms <= :now",
            {
                "id": series_id, "since": since, "until": until, "now": now, "old": now - OLD, "wait": WAIT,
                "wait_of_old": WAIT_OF_OLD_DOUBT,
            },
        )  # fmt: skip
        self._db.execute(
            "UPDATE confirmed SET not_before_ms = :now + iif(mark_ms < :old, :wait_of_old, :wait)"
            " WHERE series_id = :id AND mark_ms >= :since AND mark_ms < :until AND not_before_ms <= :now",
            {
                "id": series_id, "since": since, "until": until, "now": now, "old": now - OLD, "wait": WAIT,
                "wait_of_old": WAIT_OF_OLD_SERIES,
            },
        )  # fmt: skip

    def unconfirmed(self, venue: str, now: Millis) -> list[Unconfirmed]:
        """The :data:`LISTED` expected series of *venue* whose candles have been due the longest for being compared."""
        rows = self._db.execute(
            "SELECT series_id, confirmed.mark_ms FROM confirmed JOIN series ON series.id = series_id"
            " WHERE expected = 1 AND venue = :venue AND last_candle_ms >= confirmed.mark_ms"
            " AND (not_before_ms <= :now OR not_before_ms > :far) ORDER BY not_before_ms LIMIT :limit",
            {"venue": venue, "now": now, "far": now + RIPE, "limit": LISTED},
        )
        return [Unconfirmed(self._entries.series(id_), Millis(mark)) for id_, mark in rows]

    def count(self, outcomes: Counter[tuple[str, str]]) -> None:
        """Add to the counts of what comparing came to, by (venue, outcome)."""
        for (venue, outcome), count in outcomes.items():
            self._db.execute(
                "INSERT INTO confirmation VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET count = count + excluded.count",
                (venue, outcome, count),
            )


def _same(before: CandleDocument, candle: Candle) -> bool:
    """The contract's *equal*."""
    values = {name: getattr(before, name) for name in ("open", "high", "low", "close", "volume")}
    return candle.same_as(attrs.evolve(candle, **values))
