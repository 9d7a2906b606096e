"""The journal and the ledger: one SQLite file in which a verdict is durable before it counts.

Accepted candles that are not yet in a day file, and for every series what each of its minutes is: up to the
mark, a minute is a stored candle, in ``empty``, or in ``gap``; and never two of these. Everything that one
batch of verdicts changes is one transaction (WAL, ``synchronous=FULL``).

Blocking; the writer calls it in a thread. ``sqlite3.Error`` passes through: the store knows what it means.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import attrs

from trio_candles.model import (
    DAY,
    MINUTE,
    Attempt,
    Candle,
    Empty,
    Gap,
    Millis,
    Reason,
    Series,
    Source,
    Unsure,
    Verdict,
    floor_to,
)
from trio_candles.store.schema import FORMAT, TABLES, UPGRADES
from trio_candles.validation import Rule, broken_rule

__all__ = [
    "Journal",
    "JournalBroken",
    "Judged",
    "LedgerBroken",
    "OtherFormat",
    "StoredElsewhere",
    "is_of_the_moment",
]


class LedgerBroken(Exception):
    """An invariant of the ledger does not hold: a bug of ours, and a reason to stop."""


class JournalBroken(Exception):
    """The file is no sound journal; what it said is lost, and the day files are not."""


class OtherFormat(Exception):
    """The journal is of another version of this program; refused, never guessed at."""


StoredElsewhere = Callable[[Series, Millis], Candle | None]
"""Looks a minute up in the day files."""


@attrs.define
class Judged:
    """What became of a batch."""

    accepted: int = 0
    rejected: list[tuple[Candle, Rule]] = attrs.field(factory=list)
    conflicts: list[tuple[Candle, Candle]] = attrs.field(factory=list)
    """(stored, offered)"""


@attrs.define
class _Entry:
    """A series' row of the ledger, kept in memory because every verdict asks for it."""

    id: int
    first: Millis
    mark: Millis
    last_candle: Millis | None


def _candle_of(series: Series, row: Sequence[object]) -> Candle:
    open_ms, o, h, low, c, v, quote, vwap, count, source, ingest = row
    assert isinstance(open_ms, int)
    assert isinstance(ingest, int)
    return Candle(
        series, Millis(open_ms), o, h, low, c, v, quote, vwap, count, Source(source), Millis(ingest),  # type: ignore[arg-type]
        Millis(open_ms + MINUTE),
    )  # fmt: skip


LEDGER_LOST = "ledger_lost"
"""Remembered (in ``meta``) from a rebuilding of the ledger until the next start has said why minutes are missing."""

EVENTS_KEPT = 90 * DAY
"""How long the history of gaps is kept, in ms."""

_CANDLE = "open_ms, open, high, low, close, volume, quote_volume, vwap, trades_count, source, ingest_ms"


class Journal:
    """The open journal; made by :meth:`open`, ended by :meth:`close`."""

    def __init__(self, database: sqlite3.Connection, stored_elsewhere: StoredElsewhere) -> None:
        self._db = database
        self._stored_elsewhere = stored_elsewhere
        rows = database.execute(
            "SELECT venue, symbol, timeframe, id, first_ms, mark_ms, last_candle_ms FROM series WHERE timeframe = '1m'"
        )
        self._entries = {
            Series(venue, symbol, timeframe): _Entry(id_, Millis(first), Millis(mark), last)
            for venue, symbol, timeframe, id_, first, mark, last in rows
        }

    @classmethod
    def open(cls, path: Path, stored_elsewhere: StoredElsewhere) -> Journal:
        """Open *path*, made anew if it does not exist or is empty.

        :class:`JournalBroken` if it is no sound journal, :class:`OtherFormat` if it is another version's, and
        ``sqlite3.OperationalError`` if it cannot be opened now (no permission, somebody else's lock).
        """
        # Whoever calls holds the only reference and never calls twice at once, but from changing threads.
        database = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=5.0)
        try:
            _prepare(database)
            journal = cls(database, stored_elsewhere)
            journal._read_through()
        except (sqlite3.DatabaseError, ValueError, LookupError, TypeError) as error:
            database.close()
            if is_of_the_moment(error):
                raise
            raise JournalBroken(str(error)) from error
        except BaseException:
            database.close()
            raise
        return journal

    def _read_through(self) -> None:
        """Read what the collector relies on; ``ValueError`` or the like where that makes no sense.

        SQLite has no checksums: a flipped bit in a value is seen here or not at all.
        """
        for series, entry in self._entries.items():
            if entry.first > entry.mark or entry.first % MINUTE or entry.mark % MINUTE:
                raise ValueError(f"{series} stands at {entry}")
        odd = self._db.execute(
            "SELECT since_ms, until_ms FROM (SELECT since_ms, until_ms FROM gap"
            " UNION ALL SELECT since_ms, until_ms FROM empty"
            f" UNION ALL SELECT open_ms, open_ms + {MINUTE} FROM candle)"
            f" WHERE since_ms >= until_ms OR since_ms % {MINUTE} OR until_ms % {MINUTE}"
        ).fetchone()
        if odd is not None:
            raise ValueError(f"not a span of whole minutes: {odd}")
        for series, day in self.waiting_days():
            self.waiting(series, day)
        self.meta()
        self.digests()

    def close(self) -> None:
        """Leave one file at rest, readable from a read-only place; ``sqlite3.Error`` if a reader is in the way."""
        self._db.execute("PRAGMA busy_timeout = 1000")  # a stop has little time, and nothing is lost without
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._db.execute("PRAGMA journal_mode = DELETE")
        self._db.close()

    def abandon(self) -> None:
        """Let go without insisting; what was committed is in the write-ahead log."""
        self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        # Remembered rather than read again: a disk that fails a transaction may fail the reading as well, and
        # marks ahead of what is durable would make the next candles look old.
        before = {series: attrs.evolve(entry) for series, entry in self._entries.items()}
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            self._entries = before
            if self._db.in_transaction:  # some errors (a full disk) have rolled back already
                self._db.execute("ROLLBACK")
            raise

    # --- meta

    def meta(self) -> dict[str, str]:
        """What the directory remembers: kind, seed, clock, when it was last stopped."""
        return {str(key): str(value) for key, value in self._db.execute("SELECT key, value FROM meta")}

    def remember(self, **values: object) -> None:
        """Keep *values* as text; ``None`` forgets."""
        with self._transaction():
            self._remember(values)

    def _remember(self, values: dict[str, object]) -> None:
        for key, value in values.items():
            if value is None:
                self._db.execute("DELETE FROM meta WHERE key = ?", (key,))
            else:
                self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, str(value)))

    def publish(self, states: Iterable[Sequence[object]], errors: Mapping[str, str], now: Millis) -> None:
        """Let the tools see what the collector's table shows: rows of ``venue_state`` without the time, and what the
        store cannot do, by part.
        """
        with self._transaction():
            self._db.executemany(
                "INSERT OR REPLACE INTO venue_state (venue, status, connected, received, saved, reconnects, rejected,"
                " at_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                [(*state, now) for state in states],
            )
            self._remember({"store_errors": json.dumps(dict(errors)) if errors else None, "latest_ms": now})

    # --- series

    def expect(self, series: Iterable[Series], earliest: Millis, now: Millis) -> None:
        """From now on expect exactly *series*, complete since *earliest* or since what is recorded, if earlier.

        Minutes before the one that runs at *now* which are not accounted for become gaps: those before a series
        was first started ``not_collected``; those since its mark ``collector_down``, or ``ledger_lost`` at the
        first start after a rebuilding, when nobody knows what was heard of them. What is old of the gaps' history
        is forgotten.
        """
        until = floor_to(now, MINUTE)
        earliest = floor_to(min(earliest, until), MINUTE)
        down = Reason.LEDGER_LOST if LEDGER_LOST in self.meta() else Reason.COLLECTOR_DOWN
        with self._transaction():
            self._db.execute("UPDATE series SET expected = 0")
            self._db.execute("DELETE FROM venue_state")
            for one in series:
                entry, reason = self._entries.get(one), down
                if entry is None:
                    entry, reason = self._add_series(one, earliest), Reason.NOT_COLLECTED
                self._db.execute("UPDATE series SET expected = 1 WHERE id = ?", (entry.id,))
                if earliest < entry.first:
                    self._open_gap(entry, Unsure(one, earliest, entry.first, Reason.NOT_COLLECTED), now)
                    entry.first = earliest
                    self._db.execute("UPDATE series SET first_ms = ? WHERE id = ?", (earliest, entry.id))
                self._judge_unsure(Unsure(one, entry.mark, until, reason), now)
            self._db.execute("DELETE FROM gap_event WHERE at_ms < ?", (now - EVENTS_KEPT,))
            self._remember({LEDGER_LOST: None})

    def _add_series(self, series: Series, first: Millis) -> _Entry:
        """A new series of which nothing is accounted for; not yet expected."""
        row = self._db.execute(
            "INSERT INTO series (venue, symbol, timeframe, first_ms, mark_ms, expected) VALUES (?, ?, ?, ?, ?, 0)",
            (series.venue, series.symbol, series.timeframe, first, first),
        )
        assert row.lastrowid is not None
        entry = self._entries[series] = _Entry(row.lastrowid, first, first, None)
        return entry

    def rebuild(
        self,
        digests: dict[str, str],
        stored: dict[Series, tuple[Millis, list[tuple[Millis, Millis]]]],
        latest: Millis,
    ) -> int:
        """Begin the ledger anew from what day files hold: their digests, and of each series the first minute to
        account for and the spans that are stored, oldest first; and the *latest* time that they prove to have been
        reached. How many minutes in between are gaps now.

        The next :meth:`expect` accounts for the minutes since the last stored one.
        """
        lost = 0
        with self._transaction():
            self._db.executemany("INSERT INTO day_file VALUES (?, ?, NULL)", list(digests.items()))
            for series, (first, spans) in stored.items():
                entry = self._add_series(series, first)
                end = spans[-1][1]
                for since, until in spans:
                    lost += (since - entry.mark) // MINUTE
                    self._judge_unsure(Unsure(series, entry.mark, since, Reason.LEDGER_LOST), end)
                    self._advance(entry, series, since, until)
                self._db.execute("UPDATE series SET last_candle_ms = ? WHERE id = ?", (end - MINUTE, entry.id))
                entry.last_candle = Millis(end - MINUTE)
            self._remember({LEDGER_LOST: True, "latest_ms": latest})
        return lost

    def spans(self) -> dict[Series, tuple[Millis, Millis]]:
        """Every series that was ever expected, and the minutes that are accounted for: first, and mark."""
        return {series: (entry.first, entry.mark) for series, entry in self._entries.items()}

    def open_gap_minutes(self) -> Counter[str]:
        """Minutes in open gaps of expected series, by venue."""
        rows = self._db.execute(
            "SELECT venue, sum(until_ms - since_ms) FROM gap JOIN series ON series.id = series_id"
            " WHERE state = 'open' AND expected = 1 GROUP BY venue"
        )
        return Counter({str(venue): int(length) // MINUTE for venue, length in rows})

    def open_gaps(self, venue: str, limit: int) -> list[Gap]:
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

    # --- verdicts

    def commit(
        self, verdicts: Sequence[Verdict | Attempt], now: Millis, rejected: Mapping[tuple[str, str], int] | None = None
    ) -> Judged:
        """Judge *verdicts* in order and make what they change durable, all of it or (on an error) nothing.

        *rejected* counts what was rejected before it came here, by (venue, reason).

        A first verdict must begin at its series' mark, and a span must be whole minutes: the assemblers promise
        it, and a ledger with a hole would be a silent gap, so anything else is :class:`LedgerBroken`.
        """
        judged = Judged()
        with self._transaction():
            for verdict in verdicts:
                if isinstance(verdict, Candle):
                    self._judge_candle(verdict, now, judged)
                    continue
                if isinstance(verdict, Attempt):
                    self._note_attempt(verdict)
                    continue
                if verdict.since >= verdict.until or verdict.since % MINUTE or verdict.until % MINUTE:
                    raise LedgerBroken(f"not a span of whole minutes: {verdict}")
                if isinstance(verdict, Empty):
                    self._judge_empty(verdict, now)
                else:
                    self._judge_unsure(verdict, now)
            self._count(judged, rejected or {})
            self._remember({"latest_ms": now})
        return judged

    def _judge_candle(self, candle: Candle, now: Millis, judged: Judged) -> None:
        rule = broken_rule(candle, now)
        if rule is not None:
            # The assembler has judged it before; only a clock that stepped back in between can bring it here.
            judged.rejected.append((candle, rule))
            if not candle.open_time % MINUTE:
                until = Millis(candle.open_time + MINUTE)
                self._judge_unsure(Unsure(candle.series, candle.open_time, until, Reason.REJECTED, rule.value), now)
            return
        entry = self._entries[candle.series]
        if candle.open_time < entry.mark:
            if not self._close_gap(entry, candle.open_time, candle.close_time, "stored", candle.source.value, now):
                self._judge_again(entry, candle, now, judged)
                return
        else:
            self._advance(entry, candle.series, candle.open_time, candle.close_time)
        self._db.execute(
            f"INSERT INTO candle (series_id, {_CANDLE}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                entry.id, candle.open_time, candle.open, candle.high, candle.low, candle.close, candle.volume,
                candle.quote_volume, candle.vwap, candle.trades_count, candle.source.value, candle.ingest_time,
            ),
        )  # fmt: skip
        if entry.last_candle is None or candle.open_time > entry.last_candle:
            entry.last_candle = candle.open_time
            self._db.execute("UPDATE series SET last_candle_ms = ? WHERE id = ?", (candle.open_time, entry.id))
        judged.accepted += 1

    def _judge_again(self, entry: _Entry, candle: Candle, now: Millis, judged: Judged) -> None:
        """A candle of a minute that is accounted for and no gap: the same again, or a contradiction."""
        stored = self.stored(candle.series, candle.open_time)
        if stored is None:
            empty = self._db.execute(
                "SELECT evidence FROM empty WHERE series_id = ? AND since_ms <= ? AND until_ms > ?",
                (entry.id, candle.open_time, candle.open_time),
            ).fetchone()
            if empty is not None:
                self._revise(entry, candle, {"empty": empty[0]}, now)
                judged.rejected.append((candle, Rule.CONFLICT))
            elif candle.open_time < entry.first:
                judged.rejected.append((candle, Rule.OUT_OF_ORDER))
            else:
                raise LedgerBroken(f"{candle.series}: minute {candle.open_time} is accounted for as nothing")
        elif stored.same_as(candle):
            judged.rejected.append((candle, Rule.DUPLICATE))
        else:
            self._revise(entry, candle, _as_json(stored), now)
            judged.rejected.append((candle, Rule.CONFLICT))
            judged.conflicts.append((stored, candle))

    def _revise(self, entry: _Entry, offered: Candle, stored: dict[str, object], now: Millis) -> None:
        self._db.execute(
            "INSERT INTO revision (at_ms, series_id, open_ms, stored, offered, outcome) VALUES (?, ?, ?, ?, ?, 'kept')",
            (now, entry.id, offered.open_time, json.dumps(stored), json.dumps(_as_json(offered))),
        )

    def _judge_empty(self, empty: Empty, now: Millis) -> None:
        entry = self._entries[empty.series]
        if empty.until > entry.mark:
            since = max(empty.since, entry.mark)
            self._advance(entry, empty.series, since, empty.until)
            self._add_empty(entry, since, empty.until, empty.evidence)
        if empty.since < entry.mark:
            for since, until in self._close_gap(entry, empty.since, empty.until, "empty", empty.evidence, now):
                self._add_empty(entry, since, until, empty.evidence)

    def _judge_unsure(self, unsure: Unsure, now: Millis) -> None:
        """Minutes that have a verdict already keep it: doubt never undoes what was proven."""
        entry = self._entries[unsure.series]
        since = max(unsure.since, entry.mark)
        if since >= unsure.until:
            return
        self._advance(entry, unsure.series, since, unsure.until)
        self._open_gap(entry, attrs.evolve(unsure, since=since), now)

    def _advance(self, entry: _Entry, series: Series, since: Millis, until: Millis) -> None:
        if since != entry.mark:
            raise LedgerBroken(f"{series}: verdict on {since}, but the ledger stands at {entry.mark}")
        entry.mark = until
        self._db.execute("UPDATE series SET mark_ms = ? WHERE id = ?", (until, entry.id))

    def _add_empty(self, entry: _Entry, since: Millis, until: Millis, evidence: str) -> None:
        """Neighbours that touch are joined if they say the same but for the numbers in it: ids and times only
        grow, so the newer evidence covers the older."""
        # Spans are disjoint, so the last that begins before is the only one that can end here. Asked by its end, the
        # table would be read through for every quiet minute: a thin pair has 100,000 spans a year.
        before = self._db.execute(
            "SELECT since_ms, until_ms, evidence FROM empty WHERE series_id = ? AND since_ms < ?"
            " ORDER BY since_ms DESC LIMIT 1",
            (entry.id, since),
        ).fetchone()
        if before is not None and before[1] == since and _without_numbers(before[2]) == _without_numbers(evidence):
            self._db.execute(
                "UPDATE empty SET until_ms = ?, evidence = ? WHERE series_id = ? AND since_ms = ?",
                (until, evidence, entry.id, before[0]),
            )
        else:
            self._db.execute("INSERT INTO empty VALUES (?, ?, ?, ?)", (entry.id, since, until, evidence))

    def _open_gap(self, entry: _Entry, unsure: Unsure, now: Millis) -> None:
        if unsure.since >= unsure.until:
            return
        reason, detail = unsure.reason.value, unsure.detail
        said = f"{reason}: {detail}" if detail else reason
        before = self._db.execute(
            "SELECT id FROM gap WHERE series_id = ? AND until_ms = ? AND state = 'open' AND reason = ? AND detail = ?",
            (entry.id, unsure.since, reason, detail),
        ).fetchone()
        if before is not None:
            self._db.execute("UPDATE gap SET until_ms = ? WHERE id = ?", (unsure.until, before[0]))
            if not self._extend_event(entry, unsure.since, unsure.until, said):
                self._event(entry, unsure.since, unsure.until, "opened", said, now)
            return
        self._event(entry, unsure.since, unsure.until, "opened", said, now)
        self._db.execute(
            "INSERT INTO gap (series_id, since_ms, until_ms, state, reason, detail, first_seen_ms, attempts)"
            " VALUES (?, ?, ?, 'open', ?, ?, ?, 0)",
            (entry.id, unsure.since, unsure.until, reason, detail, now),
        )

    def _close_gap(
        self, entry: _Entry, since: Millis, until: Millis, event: str, detail: str, now: Millis
    ) -> list[tuple[Millis, Millis]]:
        """Take ``[since, until)`` out of the gaps; the spans that were gaps, oldest first."""
        touched = self._db.execute(
            "SELECT id, since_ms, until_ms FROM gap"
            " WHERE series_id = ? AND since_ms < ? AND until_ms > ? ORDER BY since_ms",
            (entry.id, until, since),
        ).fetchall()
        closed = []
        for gap, gap_since, gap_until in touched:
            low, high = Millis(max(gap_since, since)), Millis(min(gap_until, until))
            closed.append((low, high))
            if gap_since < low:
                self._db.execute("UPDATE gap SET until_ms = ? WHERE id = ?", (low, gap))
                if high < gap_until:
                    self._db.execute(
                        "INSERT INTO gap (series_id, since_ms, until_ms, state, reason, detail, first_seen_ms,"
                        " attempts, last_error) SELECT series_id, ?, ?, state, reason, detail, first_seen_ms,"
                        " attempts, last_error FROM gap WHERE id = ?",
                        (high, gap_until, gap),
                    )
            elif high < gap_until:
                self._db.execute("UPDATE gap SET since_ms = ? WHERE id = ?", (high, gap))
            else:
                self._db.execute("DELETE FROM gap WHERE id = ?", (gap,))
            self._event(entry, low, high, event, detail, now)
        return closed

    def _event(self, entry: _Entry, since: Millis, until: Millis, event: str, detail: str, now: Millis) -> None:
        self._db.execute(
            "INSERT INTO gap_event VALUES (?, ?, ?, ?, ?, ?)", (now, entry.id, since, until, event, detail)
        )

    def _extend_event(self, entry: _Entry, since: Millis, until: Millis, detail: str) -> bool:
        """Let the opening that ends at *since* reach *until*, so that an outage is one event however long it is.

        Not over minutes that something has happened to since then: read in order, the history must stay true.
        """
        extended = self._db.execute(
            "UPDATE gap_event SET until_ms = :until WHERE rowid = (SELECT max(rowid) FROM gap_event"
            " WHERE series_id = :id AND until_ms = :since AND event = 'opened' AND detail = :detail)"
            " AND NOT EXISTS (SELECT 1 FROM gap_event AS later WHERE later.series_id = :id"
            " AND later.until_ms > :since AND later.since_ms < :until)",
            {"id": entry.id, "since": since, "until": until, "detail": detail},
        )
        return extended.rowcount == 1

    def _note_attempt(self, attempt: Attempt) -> None:
        self._db.execute(
            "UPDATE gap SET attempts = attempts + 1, last_error = ?"
            " WHERE series_id = ? AND since_ms < ? AND until_ms > ? AND state = 'open'",
            (attempt.error, self._entries[attempt.series].id, attempt.until, attempt.since),
        )

    def _count(self, judged: Judged, before: Mapping[tuple[str, str], int]) -> None:
        counts = Counter((candle.series.venue, rule.value) for candle, rule in judged.rejected)
        counts.update(before)
        for (venue, reason), count in counts.items():
            self._db.execute(
                "INSERT INTO rejection VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET count = count + excluded.count",
                (venue, reason, count),
            )

    def stored(self, series: Series, minute: Millis) -> Candle | None:
        """The stored candle of *minute*, wherever it is."""
        row = self._db.execute(
            f"SELECT {_CANDLE} FROM candle WHERE series_id = ? AND open_ms = ?", (self._entries[series].id, minute)
        ).fetchone()
        return self._stored_elsewhere(series, minute) if row is None else _candle_of(series, row)

    # --- towards the day files

    def waiting_days(self) -> list[tuple[Series, Millis]]:
        """The (series, day) pairs for which candles wait."""
        rows = self._db.execute(
            f"SELECT DISTINCT venue, symbol, timeframe, open_ms - open_ms % {DAY} AS day"
            " FROM candle JOIN series ON series.id = series_id ORDER BY venue, symbol, timeframe, day"
        )
        return [(Series(venue, symbol, timeframe), Millis(day)) for venue, symbol, timeframe, day in rows]

    def waiting(self, series: Series, day: Millis) -> list[Candle]:
        """The candles that wait for that day's file, oldest first."""
        rows = self._db.execute(
            f"SELECT {_CANDLE} FROM candle WHERE series_id = ? AND open_ms >= ? AND open_ms < ? ORDER BY open_ms",
            (self._entries[series].id, day, day + DAY),
        )
        return [_candle_of(series, row) for row in rows]

    def digests(self) -> dict[str, tuple[str | None, str | None]]:
        """Path -> (digest, pending digest), of every day file."""
        return {str(path): (digest, pending) for path, digest, pending in self._db.execute("SELECT * FROM day_file")}

    def digest(self, path: str) -> tuple[str | None, str | None]:
        """(digest, pending digest) of one day file."""
        row = self._db.execute("SELECT digest, pending FROM day_file WHERE path = ?", (path,)).fetchone()
        return (None, None) if row is None else (row[0], row[1])

    def replacing(self, pending: dict[str, str]) -> None:
        """Day files are about to be replaced by ones with these digests."""
        with self._transaction():
            self._db.executemany(
                "INSERT INTO day_file VALUES (?, NULL, ?) ON CONFLICT DO UPDATE SET pending = excluded.pending",
                list(pending.items()),
            )

    def replaced(self, files: Iterable[tuple[str, str, Series, Sequence[Millis]]]) -> Counter[str]:
        """Day files (path, digest, series, minutes) are durable: those minutes need wait no longer.

        How many waited until now, by venue.
        """
        saved: Counter[str] = Counter()
        with self._transaction():
            for path, digest, series, minutes in files:
                self._db.execute("INSERT OR REPLACE INTO day_file VALUES (?, ?, NULL)", (path, digest))
                rows = self._db.executemany(
                    "DELETE FROM candle WHERE series_id = ? AND open_ms = ?",
                    [(self._entries[series].id, minute) for minute in minutes],
                )
                saved[series.venue] += rows.rowcount
        return saved

    def not_replaced(self, path: str) -> None:
        """The replacement of *path* did not happen; the file is what it was."""
        with self._transaction():
            self._db.execute("UPDATE day_file SET pending = NULL WHERE path = ?", (path,))
            self._db.execute("DELETE FROM day_file WHERE path = ? AND digest IS NULL", (path,))

    def lose(self, path: str, series: Series, day: Millis, now: Millis, detail: str) -> int:
        """The day file *path* is gone or not to be believed: its minutes become gaps; how many."""
        entry = self._entries[series]
        until = min(Millis(day + DAY), entry.mark)
        since = max(day, entry.first)
        lost = 0
        with self._transaction():
            self._db.execute("DELETE FROM day_file WHERE path = ?", (path,))
            for low, high in self._unaccounted(entry, since, until):
                self._open_gap(entry, Unsure(series, low, high, Reason.CORRUPT, detail), now)
                lost += (high - low) // MINUTE
        return lost

    def _unaccounted(self, entry: _Entry, since: Millis, until: Millis) -> list[tuple[Millis, Millis]]:
        """The minutes of a span that are in no gap, not empty, and not waiting in the journal."""
        taken = self._db.execute(
            "SELECT since_ms, until_ms FROM gap WHERE series_id = :id AND since_ms < :until AND until_ms > :since"
            " UNION ALL SELECT since_ms, until_ms FROM empty"
            " WHERE series_id = :id AND since_ms < :until AND until_ms > :since"
            f" UNION ALL SELECT open_ms, open_ms + {MINUTE} FROM candle"
            " WHERE series_id = :id AND open_ms < :until AND open_ms >= :since ORDER BY 1",
            {"id": entry.id, "since": since, "until": until},
        ).fetchall()
        free = []
        for low, high in [*taken, (until, until)]:
            if since < low:
                free.append((since, Millis(low)))
            since = max(since, Millis(high))
        return free


def is_of_the_moment(error: Exception) -> bool:
    """Whether *error* may pass: a disk that is full or failing, another's lock; not a statement without sense."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    return isinstance(error, sqlite3.OperationalError) and code != sqlite3.SQLITE_ERROR


def _prepare(database: sqlite3.Connection) -> None:
    """Make a new file a journal; ``sqlite3.DatabaseError`` if it holds something else."""
    fresh = database.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    if fresh:
        database.executescript(f"BEGIN IMMEDIATE;{TABLES}INSERT INTO meta VALUES ('format', '{FORMAT}');COMMIT;")
    found = database.execute("SELECT value FROM meta WHERE key = 'format'").fetchone()
    if found is None:
        raise sqlite3.DatabaseError("it has no format")
    if found != (FORMAT,) and found[0] not in UPGRADES:
        raise OtherFormat(f"the journal's format is {found[0]}; this version knows {FORMAT}")
    check = database.execute("PRAGMA integrity_check(1)").fetchone()
    if check != ("ok",):
        raise sqlite3.DatabaseError(str(check[0]))
    if found != (FORMAT,):
        database.executescript(
            f"BEGIN IMMEDIATE;{UPGRADES[found[0]]}UPDATE meta SET value = '{FORMAT}' WHERE key = 'format';COMMIT;"
        )
    tables = "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name"
    with closing(sqlite3.connect(":memory:")) as model:
        model.executescript(TABLES)
        if database.execute(tables).fetchall() != model.execute(tables).fetchall():
            raise sqlite3.DatabaseError("other tables than ours")


def _without_numbers(text: str) -> str:
    return re.sub(r"[0-9]+", "", text)


def _as_json(candle: Candle) -> dict[str, object]:
    return {
        "open": candle.open, "high": candle.high, "low": candle.low, "close": candle.close,
        "volume": candle.volume, "quote_volume": candle.quote_volume, "vwap": candle.vwap,
        "trades_count": candle.trades_count, "source": candle.source.value, "ingest_time_ms": candle.ingest_time,
    }  # fmt: skip
