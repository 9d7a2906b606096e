"""The journal and the ledger: one SQLite file in which a verdict is durable before it counts.

Accepted candles that are not yet in a day file, and for every series what each of its minutes is: up to the
mark, a minute is a stored candle, in ``empty``, or in ``gap``; and never two of these. Everything that one
batch of verdicts changes is one transaction (WAL, ``synchronous=FULL``).

Blocking; the writer calls it in a thread. ``sqlite3.Error`` passes through: the store knows what it means.
"""

from __future__ import annotations

import errno
import json
import os
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
    Finding,
    Gap,
    Listed,
    Millis,
    Page,
    Reason,
    Series,
    Source,
    Unsure,
    Verdict,
    floor_to,
)
from trio_candles.store.gaps import Gaps
from trio_candles.store.revisions import Doubtful, Revisions, Unconfirmed, as_json
from trio_candles.store.schema import ABSENT, FORMAT, TABLES, TIMEFRAMES, UPGRADES
from trio_candles.store.underived import DayLedger, Underived
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
    conflicts: list[tuple[Candle | None, Candle]] = attrs.field(factory=list)
    """(stored, offered); ``None``: the minute is called empty."""
    replaced: list[tuple[Candle | None, Candle]] = attrs.field(factory=list)
    """(stored, what REST said twice)"""
    compared: Counter[tuple[str, str]] = attrs.field(factory=Counter)
    """What comparing live candles with REST came to, by (venue, outcome)."""
    refused: list[str] = attrs.field(factory=list)
    """Why pages were not believed."""


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

MAY_BE_LATE = 30 * MINUTE
"""So long a stored candle waits for its row in the venue's record; then confirmation goes on without it."""

_READ_FAILED = re.compile(r"error code=([0-9]+)")
"""A disk that fails under ``integrity_check`` is told by it in words, as if it were damage."""

_CANDLE = "open_ms, open, high, low, close, volume, quote_volume, vwap, trades_count, source, ingest_ms"


class Journal:
    """The open journal; made by :meth:`open`, ended by :meth:`close`."""

    def __init__(self, database: sqlite3.Connection, stored_elsewhere: StoredElsewhere) -> None:
        self._db = database
        self._stored_elsewhere = stored_elsewhere
        self._gaps = Gaps(database)
        self._revisions = Revisions(database)
        self._underived = Underived(database)
        rows = database.execute(
            "SELECT venue, symbol, timeframe, id, first_ms, mark_ms, last_candle_ms FROM series WHERE timeframe = '1m'"
        )
        self._before: dict[int, tuple[_Entry, _Entry]] = {}
        """What a transaction has changed so far, by id: the entry, and what it was."""
        self._added: list[Series] = []
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
        self._before, self._added = {}, []
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            for entry, was in self._before.values():
                entry.first, entry.mark, entry.last_candle = was.first, was.mark, was.last_candle
            for series in self._added:
                del self._entries[series]
            if self._db.in_transaction:  # some errors (a full disk) have rolled back already
                self._db.execute("ROLLBACK")
            raise

    def _changing(self, entry: _Entry) -> _Entry:
        """*entry*, about to be changed; a transaction that fails changes it back."""
        if entry.id not in self._before:
            self._before[entry.id] = (entry, attrs.evolve(entry))
        return entry

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
        asked = floor_to(min(earliest, until), MINUTE)
        listings = self._listings()
        down = Reason.LEDGER_LOST if LEDGER_LOST in self.meta() else Reason.COLLECTOR_DOWN
        with self._transaction():
            self._db.execute("UPDATE series SET expected = 0")
            self._db.execute("DELETE FROM venue_state")
            for one in series:
                earliest = max(asked, min(listings.get(one, asked), until))
                entry, reason = self._entries.get(one), down
                if entry is None:
                    entry, reason = self._add_series(one, earliest), Reason.NOT_COLLECTED
                self._db.execute("UPDATE series SET expected = 1 WHERE id = ?", (entry.id,))
                if earliest < entry.first:
                    self._gaps.open(entry.id, Unsure(one, earliest, entry.first, Reason.NOT_COLLECTED), now)
                    self._changing(entry).first = earliest
                    self._db.execute("UPDATE series SET first_ms = ? WHERE id = ?", (earliest, entry.id))
                self._judge_unsure(Unsure(one, entry.mark, until, reason), now)
                self._revisions.begin(entry.id, entry.mark)
            self._gaps.forget_old_events(now)
            self._revisions.give_up_old(now)
            self._remember({LEDGER_LOST: None})

    def _listings(self) -> dict[Series, Millis]:
        """When the venues' markets began, where that is known."""
        rows = self._db.execute(
            "SELECT venue, symbol, timeframe, since_ms FROM listing JOIN series ON series.id = series_id"
        )
        return {Series(venue, symbol, timeframe): since for venue, symbol, timeframe, since in rows}

    def _add_series(self, series: Series, first: Millis) -> _Entry:
        """A new series of which nothing is accounted for; not yet expected."""
        row = self._db.execute(
            "INSERT INTO series (venue, symbol, timeframe, first_ms, mark_ms, expected) VALUES (?, ?, ?, ?, ?, 0)",
            (series.venue, series.symbol, series.timeframe, first, first),
        )
        assert row.lastrowid is not None
        entry = self._entries[series] = _Entry(row.lastrowid, first, first, None)
        self._added.append(series)
        return entry

    def rebuild(
        self,
        digests: dict[str, str],
        stored: dict[Series, tuple[Millis, list[tuple[Millis, Millis]]]],
        latest: Millis,
        days: Iterable[tuple[Series, Millis]] = (),
    ) -> int:
        """Begin the ledger anew from what day files hold: their digests, and of each series the first minute to
        account for and the spans that are stored, oldest first; the *latest* time that they prove to have been reached;
        and the *days* there are files of, whose aggregates may stand on minutes that were called empty. How many
        minutes in between are gaps now.

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
                self._changing(entry).last_candle = Millis(end - MINUTE)
            self._derive_anew(days)
            self._remember({LEDGER_LOST: True, "latest_ms": latest})
        return lost

    def spans(self) -> dict[Series, tuple[Millis, Millis]]:
        """Every series that was ever expected, and the minutes that are accounted for: first, and mark."""
        return {series: (entry.first, entry.mark) for series, entry in self._entries.items()}

    def open_gap_minutes(self) -> Counter[str]:
        """Minutes in open gaps of expected series, by venue."""
        return self._gaps.open_minutes()

    def open_gaps(self, venue: str, limit: int) -> list[Gap]:
        """The newest *limit* open gaps of *venue*'s expected series, newest first."""
        return self._gaps.newest(venue, limit)

    def unconfirmed(self, venue: str, limit: int) -> list[Unconfirmed]:
        """The *limit* expected series of *venue* whose live candles have waited longest for being compared."""
        return self._revisions.unconfirmed(venue, limit)

    def doubtful(self, venue: str, limit: int) -> list[Doubtful]:
        """The *limit* oldest stored minutes of *venue* with a revision that REST has not settled."""
        return self._revisions.doubtful(venue, limit)

    # --- verdicts

    def commit(
        self, verdicts: Sequence[Verdict | Finding], now: Millis, rejected: Mapping[tuple[str, str], int] | None = None
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
                    self._gaps.attempted(self._entries[verdict.series].id, verdict, now)
                    continue
                if isinstance(verdict, Page):
                    self._judge_page(verdict, now, judged)
                    continue
                if isinstance(verdict, Listed):
                    self._judge_listing(verdict, now)
                    continue
                if verdict.since >= verdict.until or verdict.since % MINUTE or verdict.until % MINUTE:
                    raise LedgerBroken(f"not a span of whole minutes: {verdict}")
                if isinstance(verdict, Empty):
                    self._judge_empty(verdict, now)
                else:
                    self._judge_unsure(verdict, now)
            self._count(judged, rejected or {})
            self._revisions.count(judged.compared)
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
            since, until, source = candle.open_time, candle.close_time, candle.source.value
            if not self._gaps.close(entry.id, since, until, "stored", source, now):
                self._judge_again(entry, candle, now, judged)
                return
        else:
            self._advance(entry, candle.series, candle.open_time, candle.close_time)
        self._store(entry, [candle], judged)

    def _store(self, entry: _Entry, candles: Sequence[Candle], judged: Judged) -> None:
        """Accept *candles*, ascending; whatever their minutes were before, they are nothing else now."""
        self._db.executemany(
            f"INSERT OR REPLACE INTO candle (series_id, {_CANDLE}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    entry.id, candle.open_time, candle.open, candle.high, candle.low, candle.close, candle.volume,
                    candle.quote_volume, candle.vwap, candle.trades_count, candle.source.value, candle.ingest_time,
                )
                for candle in candles
            ],
        )  # fmt: skip
        newest = candles[-1].open_time
        if entry.last_candle is None or newest > entry.last_candle:
            self._changing(entry).last_candle = newest
            self._db.execute("UPDATE series SET last_candle_ms = ? WHERE id = ?", (newest, entry.id))
        judged.accepted += len(candles)

    def _judge_again(self, entry: _Entry, candle: Candle, now: Millis, judged: Judged) -> None:
        """A candle of a minute that is accounted for and no gap: the same again, or a contradiction."""
        stored = self.stored(candle.series, candle.open_time)
        if stored is not None and stored.same_as(candle):
            judged.rejected.append((candle, Rule.DUPLICATE))
        elif stored is None and candle.open_time < entry.first:
            judged.rejected.append((candle, Rule.OUT_OF_ORDER))
        else:
            self._differs(entry, stored, candle, now, judged)
            judged.rejected.append((candle, Rule.CONFLICT))

    def _differs(self, entry: _Entry, stored: Candle | None, offered: Candle, now: Millis, judged: Judged) -> bool:
        """Keep on record that *offered* is not what is stored; whether that is news."""
        if stored is not None:
            before = as_json(stored)
        else:
            empty = self._db.execute(
                "SELECT evidence FROM empty WHERE series_id = ? AND since_ms <= ? AND until_ms > ?",
                (entry.id, offered.open_time, offered.open_time),
            ).fetchone()
            if empty is None:
                raise LedgerBroken(f"{offered.series}: minute {offered.open_time} is accounted for as nothing")
            before = {"empty": empty[0]}
        news = self._revisions.add(entry.id, offered.open_time, before, offered, now)
        if news:
            judged.conflicts.append((stored, offered))
        return news

    # --- what REST says

    def _judge_page(self, page: Page, now: Millis, judged: Judged) -> None:
        """Close gaps by what *page* proves, and compare the rest of it with what is stored.

        A page that does not name its market is not believed if it mostly differs from what is stored.
        """
        entry = self._entries[page.series]
        known = [candle for candle in page.candles if entry.first <= candle.open_time < entry.mark]
        spans = [(c.open_time, c.close_time) for c in known] + [(e.since, e.until) for e in page.empties]
        if not spans:
            return
        lowest, highest = min(since for since, _ in spans), max(until for _, until in spans)
        gaps = {m for low, high in self._gaps.within(entry.id, lowest, highest) for m in range(low, high, MINUTE)}
        again = [(self.stored(page.series, c.open_time), c) for c in known if c.open_time not in gaps]
        different = [(stored, offered) for stored, offered in again if stored is None or not stored.same_as(offered)]
        if page.anonymous and 2 * len(different) > len(again):
            error = f"the page differs from what is stored in {len(different)} of {len(again)} minutes"
            judged.refused.append(f"{page.series}: {error}")
            self._gaps.attempted(entry.id, Attempt(page.series, page.since, page.until, error), now)
            return
        self._fill(entry, [candle for candle in known if candle.open_time in gaps], now, judged)
        for empty in page.empties:
            since, until = max(empty.since, entry.first), min(empty.until, entry.mark)
            if since < until:
                self._judge_empty(attrs.evolve(empty, since=since, until=until), now)
        for stored, offered in again:
            self._compare(entry, stored, offered, page, now, judged)
        self._advance_confirmed(entry, page, now, judged)

    def _fill(self, entry: _Entry, candles: Sequence[Candle], now: Millis, judged: Judged) -> None:
        """Store *candles*, all of gap minutes, ascending; neighbours are one event in the gap's history."""
        good = [candle for candle in candles if broken_rule(candle, now) is None]
        start = 0
        for end in range(1, len(good) + 1):
            if end == len(good) or good[end].open_time != good[end - 1].close_time:
                since, until = good[start].open_time, good[end - 1].close_time
                self._gaps.close(entry.id, since, until, "stored", good[start].source.value, now)
                start = end
        if good:
            self._store(entry, good, judged)

    def _compare(
        self, entry: _Entry, stored: Candle | None, offered: Candle, page: Page, now: Millis, judged: Judged
    ) -> None:
        """*offered* is what REST says of a minute that is stored, or called empty."""
        venue = offered.series.venue
        live = stored is None or stored.source is Source.WEBSOCKET
        if stored is not None and stored.same_as(offered):
            self._revisions.settle(entry.id, offered.open_time, "kept")
            judged.compared[venue, "agreed"] += live
        elif page.conclusive and self._revisions.is_second(entry.id, offered):
            self._revisions.settle(entry.id, offered.open_time, "replaced")
            self._replace(entry, stored, offered, judged)
            judged.compared[venue, "replaced"] += 1
        elif self._differs(entry, stored, offered, now, judged):
            judged.compared[venue, "differed"] += live

    def _replace(self, entry: _Entry, stored: Candle | None, offered: Candle, judged: Judged) -> None:
        if stored is None:
            self._cut_empty(entry, offered.open_time, offered.close_time)
        self._store(entry, [offered], judged)
        judged.replaced.append((stored, offered))

    def _cut_empty(self, entry: _Entry, since: Millis, until: Millis) -> None:
        """Take ``[since, until)``, which lies in one span of empty minutes, out of it."""
        low, high, evidence = self._db.execute(
            "SELECT since_ms, until_ms, evidence FROM empty WHERE series_id = ? AND since_ms <= ? AND until_ms >= ?",
            (entry.id, since, until),
        ).fetchone()
        self._db.execute("DELETE FROM empty WHERE series_id = ? AND since_ms = ?", (entry.id, low))
        for begin, end in ((low, since), (until, high)):
            if begin < end:
                self._db.execute("INSERT INTO empty VALUES (?, ?, ?, ?)", (entry.id, begin, end, evidence))

    def _advance_confirmed(self, entry: _Entry, page: Page, now: Millis, judged: Judged) -> None:
        """Stored minutes are confirmed up to the first young one for which *page* has no answer."""
        mark = self._revisions.mark(entry.id)
        until = min(page.until, entry.mark)
        if mark is None or not page.since <= mark < until:
            return
        answered = {candle.open_time for candle in page.candles}
        for low, high in self._stored_spans(entry, mark, until):
            for minute in range(low, high, MINUTE):
                if minute not in answered:
                    if minute + MAY_BE_LATE > now:
                        self._revisions.advance(entry.id, Millis(minute))
                        return
                    judged.compared[page.series.venue, "unanswered"] += 1
        self._revisions.advance(entry.id, until)

    def _judge_listing(self, listed: Listed, now: Millis) -> None:
        """Earlier minutes are not expected, unless something is known about one of them: then nothing is done."""
        entry = self._entries[listed.series]
        if listed.since > entry.first:
            unknown = self._gaps.within(entry.id, entry.first, listed.since)
            if listed.since > entry.mark or sum(high - low for low, high in unknown) != listed.since - entry.first:
                return
            self._gaps.close(entry.id, entry.first, listed.since, "unlisted", listed.evidence, now)
            self._changing(entry).first = listed.since
            self._db.execute("UPDATE series SET first_ms = ? WHERE id = ?", (listed.since, entry.id))
        day = floor_to(listed.since, DAY)
        self._underived.add(entry.id, day, day + DAY)  # what reaches over the beginning may be complete now
        self._db.execute("INSERT OR REPLACE INTO listing VALUES (?, ?, ?)", (entry.id, listed.since, listed.evidence))

    def _judge_empty(self, empty: Empty, now: Millis) -> None:
        entry = self._entries[empty.series]
        if empty.until > entry.mark:
            since = max(empty.since, entry.mark)
            self._advance(entry, empty.series, since, empty.until)
            self._add_empty(entry, since, empty.until, empty.evidence)
        if empty.since < entry.mark:
            for since, until in self._gaps.close(entry.id, empty.since, empty.until, "empty", empty.evidence, now):
                self._add_empty(entry, since, until, empty.evidence)

    def _judge_unsure(self, unsure: Unsure, now: Millis) -> None:
        """Minutes that have a verdict already keep it: doubt never undoes what was proven."""
        entry = self._entries[unsure.series]
        since = max(unsure.since, entry.mark)
        if since >= unsure.until:
            return
        self._advance(entry, unsure.series, since, unsure.until)
        self._gaps.open(entry.id, attrs.evolve(unsure, since=since), now)

    def _advance(self, entry: _Entry, series: Series, since: Millis, until: Millis) -> None:
        if since != entry.mark:
            raise LedgerBroken(f"{series}: verdict on {since}, but the ledger stands at {entry.mark}")
        self._changing(entry).mark = until
        self._db.execute("UPDATE series SET mark_ms = ? WHERE id = ?", (until, entry.id))

    def _add_empty(self, entry: _Entry, since: Millis, until: Millis, evidence: str) -> None:
        """Neighbours that touch are joined if they say the same but for the numbers in it: ids and times only
        grow, so the newer evidence covers the older."""
        self._underived.add(entry.id, since, until)
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

    def _stored_spans(self, entry: _Entry, since: Millis, until: Millis) -> list[tuple[Millis, Millis]]:
        """The accounted minutes of ``[since, until)`` that are in no gap and not empty: they are stored."""
        taken = self._db.execute(
            "SELECT since_ms, until_ms FROM gap WHERE series_id = :id AND since_ms < :until AND until_ms > :since"
            " UNION ALL SELECT since_ms, until_ms FROM empty"
            " WHERE series_id = :id AND since_ms < :until AND until_ms > :since ORDER BY 1",
            {"id": entry.id, "since": since, "until": until},
        ).fetchall()
        return _free(taken, since, until)

    def replaced_minutes(self, series: Series, day: Millis) -> set[Millis]:
        """The minutes of *day* whose stored candle REST has replaced."""
        return self._revisions.replaced(self._entries[series].id, day, Millis(day + DAY))

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

    def replacing(self, pending: dict[str, str], minutes: Iterable[tuple[Series, Millis, Millis]] = ()) -> None:
        """Day files are about to be replaced by ones with these digests; of *minutes*, the first and the last one of a
        day, candles come into them.
        """
        with self._transaction():
            self._db.executemany(
                "INSERT INTO day_file VALUES (?, NULL, ?) ON CONFLICT DO UPDATE SET pending = excluded.pending",
                list(pending.items()),
            )
            for series, first, last in minutes:
                self._underived.add(self._entries[series].id, first, last + MINUTE)

    def replaced(
        self,
        files: Iterable[tuple[str, str, Series, Sequence[Millis]]],
        derived: Iterable[tuple[Series, Millis]] = (),
    ) -> Counter[str]:
        """Day files (path, digest, series, minutes) are durable: those minutes need wait no longer. Of the *derived*
        days so is every aggregate.

        How many minutes waited until now, by venue.
        """
        saved: Counter[str] = Counter()
        with self._transaction():
            for path, digest, series, minutes in files:
                if digest == ABSENT:
                    self._db.execute("DELETE FROM day_file WHERE path = ?", (path,))
                else:
                    self._db.execute("INSERT OR REPLACE INTO day_file VALUES (?, ?, NULL)", (path, digest))
                if minutes:
                    rows = self._db.executemany(
                        "DELETE FROM candle WHERE series_id = ? AND open_ms = ?",
                        [(self._entries[series].id, minute) for minute in minutes],
                    )
                    saved[series.venue] += rows.rowcount
            for series, day in derived:
                self._underived.forget(self._entries[series].id, day)
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
                self._gaps.open(entry.id, Unsure(series, low, high, Reason.CORRUPT, detail), now)
                self._underived.add(entry.id, low, high)
                lost += (high - low) // MINUTE
        return lost

    # --- aggregates

    def aggregate(self, timeframes: Sequence[str], days: Iterable[tuple[Series, Millis]]) -> None:
        """Remember which *timeframes* are derived, and that nothing is known of the aggregates of *days*."""
        with self._transaction():
            self._derive_anew(days)
            self._remember({TIMEFRAMES: ",".join(timeframes)})

    def _derive_anew(self, days: Iterable[tuple[Series, Millis]]) -> None:
        self._underived.add_days((self._entries[series].id, day) for series, day in days)

    def lose_aggregate(self, path: str, series: Series, day: Millis) -> None:
        """The day file *path*, of a higher timeframe of the 1m *series*, is gone or not to be believed."""
        with self._transaction():
            self._db.execute("DELETE FROM day_file WHERE path = ?", (path,))
            self._derive_anew([(series, day)])

    def underived_days(self) -> list[tuple[Series, Millis]]:
        """The (series, day) whose aggregates are behind although no candle waits for the day; the newest days first."""
        by_id = {entry.id: series for series, entry in self._entries.items()}
        waiting = set(self.waiting_days())
        days = [(by_id[series_id], day) for series_id, day in self._underived.days()]
        return [day for day in days if day not in waiting]

    def day_ledger(self, series: Series, day: Millis) -> DayLedger:
        """What the minutes of *day* are, and which of them aggregates do not know yet."""
        entry = self._entries[series]
        return self._underived.ledger_of(entry.id, entry.first, entry.mark, day)

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
        return _free(taken, since, until)


def _free(taken: Iterable[tuple[int, int]], since: Millis, until: Millis) -> list[tuple[Millis, Millis]]:
    """What of ``[since, until)`` is in none of *taken*, which ascend."""
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
    (check,) = database.execute("PRAGMA integrity_check(1)").fetchone()
    if check != "ok":
        failed = _READ_FAILED.search(check)
        if failed is not None and int(failed[1]) & 0xFF == sqlite3.SQLITE_IOERR:
            raise OSError(errno.EIO, f"{os.strerror(errno.EIO)}: the journal cannot be read: {check}")
        raise sqlite3.DatabaseError(check)
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
