"""What the venue's REST record says of stored minutes: agreement, or a revision with both values and both times.

A candle that differs from the stored one is a *revision*::

                               REST says what is stored, or something new, or nothing for two days
    another candle ──▶ open ──────────────────────────────────────────────────────────────────────▶ kept
                        │
                        └── two answers of REST, a minute apart, say the same other thing ─────────▶ replaced

REST is asked about two kinds of things: the minutes of open revisions (:class:`Doubtful`), and of each series the
live candles from its mark on (:class:`Unconfirmed`). Both are listed in the order in which they are due, by
``not_before_ms``, which moves in the transaction that records an answer, even one that settles nothing. So a revision
that cannot be settled, and a series with an empty record, are listed behind everything that has been due for longer.

Works inside the journal's transactions, on its connection.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import suppress

import attrs

from trio_candles.candles.documents import CandleDocument, EmptyDocument, from_json, kept_from_json, to_json
from trio_candles.candles.model import MINUTE, Candle, Millis, Series, Source
from trio_candles.store.due import due_longest
from trio_candles.store.entries import Entries
from trio_candles.venues.history import SETTLED

__all__ = ["APART", "Doubtful", "Revisions", "Unconfirmed"]

APART = Millis(60_000)
"""Ms between two equal REST answers that replace a stored candle. No cache may answer for the venue
(:mod:`trio_candles.network.rest`), and the short ones that do not heed that (Kraken's keeps 2 s) are over by then."""
ASKED_APART = Millis(APART + 1000)
"""Ms between the two questions; the additional second is for rounding."""
UNSETTLED_FOR = Millis(2 * 86_400_000)
"""Ms after which the outcome of a revision that REST has not settled is ``kept``: REST is not asked for ever."""

REVISIONS_KEPT = Millis(90 * 86_400_000)
"""How long a settled revision is kept, in ms. Whoever reports changes from this table must keep them for less."""

RIPE = Millis(10 * MINUTE)
"""The age in ms at which a live candle is asked about, with all later ones: one page for ten minutes of a series."""
WAIT, OLD = Millis(120_000), Millis(180 * MINUTE)
"""Ms until a minute, or a series, that an answer did not settle is asked about again; and the age in ms from which it
may never be settled, as in a market that is closed."""
WAIT_OF_OLD_DOUBT, WAIT_OF_OLD_SERIES = Millis(1_800_000), Millis(600_000)
"""Ms until a minute, or a series, older than :data:`OLD` is asked about again."""
LISTED = 50
"""How many of each kind are listed, those due for longest: more than are asked about before the next listing."""


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
    is_row: bool = False
    """Whether what is stored is REST's own word already, which its rows would only repeat."""


class Revisions:
    """The tables ``revision``, ``confirmed`` and ``confirmation`` of an open journal."""

    def __init__(self, database: sqlite3.Connection, entries: Entries) -> None:
        self._db = database
        self._entries = entries

    # --- what differs

    def read_through(self) -> None:
        """Read every open revision; ``ValueError`` or the like where one makes no sense. (Of settled ones there may be
        half a million; one that makes no sense outvotes nothing.)
        """
        rows = self._db.execute("SELECT open_ms, stored, offered FROM revision WHERE outcome = 'open'")
        for minute, stored, offered in rows:
            try:
                kept_from_json(stored)
                from_json(offered, CandleDocument)
            except ValueError as error:
                raise ValueError(f"the revision of minute {minute}: {error}") from error

    def add(
        self, series_id: int, minute: Millis, stored: CandleDocument | EmptyDocument, offered: Candle, now: Millis
    ) -> bool:
        """Open a revision: *offered* is not what is *stored*; ``False`` if the same is open from the same source."""
        offered_json = to_json(CandleDocument.of(offered))
        for id_, before in self._open(series_id, minute):
            same = _same(before, offered) and before.source is offered.source
            if same:
                if before.ingest_time_ms > offered.ingest_time:
                    # The clock was set back, and nobody can tell how long ago the first answer was: the minute between
                    # two answers begins anew.
                    self._db.execute("UPDATE revision SET offered = ? WHERE id = ?", (offered_json, id_))
                    self._wait(series_id, minute, offered)
                return False
            if before.source is offered.source:
                self._settle(id_, "kept")  # the venue has changed its mind once more
        self._db.execute(
            "INSERT INTO revision (at_ms, series_id, open_ms, stored, offered, outcome, not_before_ms)"
            " VALUES (?, ?, ?, ?, ?, 'open', ?)",
            (now, series_id, minute, to_json(stored), offered_json, minute + MINUTE + SETTLED),
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
        """Whether an earlier REST answer, at least a minute before this one, had the candle *offered*."""
        return any(
            before.source is Source.REST
            and _same(before, offered)
            and offered.ingest_time - before.ingest_time_ms >= APART
            for _, before in self._open(series_id, offered.open_time)
        )

    def was_outvoted(self, series_id: int, offered: Candle) -> bool:
        """Whether the same source had the candle before, and it did not replace what was stored, or was replaced."""
        rows = self._db.execute(
            "SELECT iif(outcome = 'kept', offered, stored) FROM revision"
            " WHERE series_id = ? AND open_ms = ? AND outcome IN ('kept', 'replaced')",
            (series_id, offered.open_time),
        )
        for (text,) in rows:
            with suppress(ValueError, TypeError):
                before = kept_from_json(text)
                if isinstance(before, CandleDocument) and _same(before, offered) and before.source is offered.source:
                    return True
        return False

    def settle(self, series_id: int, minute: Millis, outcome: str) -> bool:
        """End the open revisions of *minute*, as REST decided; ``True`` if there was one."""
        rows = self._open(series_id, minute)
        for id_, before in rows:
            # Only REST's candle, which was followed, is "replaced"; the feed's becomes "kept".
            self._settle(id_, outcome if outcome == "kept" or before.source is Source.REST else "kept")
        return bool(rows)

    def replace(self, series_id: int, minute: Millis, stored: CandleDocument | EmptyDocument) -> int:
        """End the open revisions of *minute*: what REST offered replaces what is *stored* now. Returns the id of the
        revision that has both.
        """
        replaced = max(id_ for id_, offered in self._open(series_id, minute) if offered.source is Source.REST)
        self.settle(series_id, minute, "replaced")
        self._db.execute("UPDATE revision SET stored = ? WHERE id = ?", (to_json(stored), replaced))
        return replaced

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
        """The minutes of *venue*'s expected series with an open revision: the :data:`LISTED` due longest."""
        far = Millis(now + WAIT_OF_OLD_DOUBT)
        rows = due_longest(self._db, "revision", ("open_ms",), venue, now, far, LISTED, only="outcome = 'open'")
        return [self._doubtful(id_, minute) for id_, minute in dict.fromkeys(rows)]  # one may have two

    def _doubtful(self, series_id: int, minute: int) -> Doubtful:
        answered, is_row = self._db.execute(
            "SELECT max(CASE WHEN json_extract(offered, '$.source') = 'rest'"
            " THEN json_extract(offered, '$.ingest_time_ms') END),"
            " max(coalesce(json_extract(stored, '$.source') = 'rest', 0))"
            " FROM revision WHERE series_id = ? AND open_ms = ? AND outcome = 'open'",
            (series_id, minute),
        ).fetchone()
        series = self._entries.series(series_id)
        return Doubtful(series, Millis(minute), None if answered is None else Millis(answered), bool(is_row))

    def give_up_old(self, now: Millis, count: int) -> int:
        """Keep what is stored where REST has not settled a revision in :data:`UNSETTLED_FOR`: at most *count*
        revisions; returns how many.
        """
        return self._db.execute(
            "UPDATE revision SET outcome = 'kept' WHERE id IN (SELECT id FROM revision INDEXED BY revision_open_at"
            " WHERE outcome = 'open' AND at_ms < ? LIMIT ?)",
            (now - UNSETTLED_FOR, count),
        ).rowcount

    def forget_old(self, now: Millis, count: int) -> int:
        """Let go of settled revisions older than :data:`REVISIONS_KEPT`, at most *count*; returns how many.

        Not while the minute waits for its day file: the flush asks which rows replace those of the file. A candle that
        was outvoted so long ago may open a revision once more, and is outvoted again.
        """
        return self._db.execute(
            "DELETE FROM revision WHERE id IN (SELECT id FROM revision INDEXED BY revision_at"
            " WHERE at_ms < ? AND outcome != 'open' AND NOT EXISTS (SELECT 1 FROM candle"
            " WHERE candle.series_id = revision.series_id AND candle.open_ms = revision.open_ms) LIMIT ?)",
            (now - REVISIONS_KEPT, count),
        ).rowcount

    # --- what is confirmed

    def begin(self, series_id: int, mark: Millis) -> None:
        """Confirm live candles from *mark* on, unless the series has a confirmed mark already."""
        self._db.execute("INSERT OR IGNORE INTO confirmed VALUES (?, ?, ?)", (series_id, mark, mark + RIPE))

    def mark(self, series_id: int) -> Millis | None:
        """The confirmed mark, before which every live candle was compared or cannot be; ``None`` without one."""
        row = self._db.execute("SELECT mark_ms FROM confirmed WHERE series_id = ?", (series_id,)).fetchone()
        return None if row is None else Millis(row[0])

    def advance(self, series_id: int, mark: Millis) -> None:
        """Move the confirmed mark forward to *mark*: every earlier live candle was compared, or cannot be."""
        self._db.execute(
            "UPDATE confirmed SET mark_ms = ?1, not_before_ms = ?1 + ?2 WHERE series_id = ?3 AND mark_ms < ?1",
            (mark, RIPE, series_id),
        )

    def go_back(self, series_id: int, minute: Millis) -> None:
        """Move the confirmed mark back to *minute*: a late live candle of this minute is still to be compared."""
        self._db.execute(
            "UPDATE confirmed SET mark_ms = ?1, not_before_ms = ?1 + ?2 WHERE series_id = ?3 AND mark_ms > ?1",
            (minute, RIPE, series_id),
        )

    def compared(self, series_id: int, since: Millis, until: Millis, now: Millis) -> None:
        """REST was asked about ``[since, until)``: the open revisions and the mark in it that are still due wait."""
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
        """The expected series of *venue* with live candles to be compared: the :data:`LISTED` due longest."""
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
