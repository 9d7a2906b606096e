"""The journal and the ledger: one SQLite file in which a verdict is durable before it counts.

Accepted candles that are not yet in a day file, and for every series what each of its minutes is: up to the
mark, a minute is a stored candle, in ``empty``, or in ``gap``; and never two of these. Everything that one
batch of verdicts changes is one transaction (WAL, ``synchronous=FULL``).

Blocking; the writer calls it in a thread. ``sqlite3.Error`` passes through: the store decides what the error means.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from trio_candles.candles.delays import Delays
from trio_candles.candles.intervals import Interval
from trio_candles.candles.model import (
    DAY,
    MINUTE,
    Candle,
    Finding,
    Millis,
    Reason,
    Series,
    Unsure,
    Verdict,
    floor_to,
)
from trio_candles.store.accounts import SealedDay
from trio_candles.store.changes import Changes
from trio_candles.store.due import TIDIED_AT_ONCE
from trio_candles.store.entries import Entries, Entry
from trio_candles.store.gaps import Gaps
from trio_candles.store.losses import Losses
from trio_candles.store.mending import Mender
from trio_candles.store.meta import Meta
from trio_candles.store.opening import GoOn, JournalBroken, OtherFormat, is_temporary, prepare, put_to_rest
from trio_candles.store.revisions import Revisions
from trio_candles.store.salvage import Salvaged
from trio_candles.store.samples import Samples
from trio_candles.store.schema import ABSENT, SUSPECT, TIMEFRAMES
from trio_candles.store.sealed import Sealed
from trio_candles.store.sealing import Sealing
from trio_candles.store.spans import check_spans
from trio_candles.store.underived import DayLedger, Underived
from trio_candles.store.verdicts import CANDLE, Judged, LedgerBroken, StoredElsewhere, Verdicts, candle_of
from trio_candles.store.waiting import count_waiting, waiting_longest

__all__ = [
    "Journal",
    "JournalBroken",
    "Judged",
    "LedgerBroken",
    "OtherFormat",
    "StoredElsewhere",
    "is_temporary",
]


LEDGER_LOST = "ledger_lost"
"""A key of ``meta``: set by a rebuilding of the ledger, and removed by the next :meth:`Journal.expect`, which gives the
minutes since the last stored one this reason."""


class Journal:
    """The open journal; made by :meth:`open`, ended by :meth:`close`."""

    def __init__(self, database: sqlite3.Connection, stored_elsewhere: StoredElsewhere) -> None:
        self._db = database
        self._meta = Meta(database)
        self._underived = Underived(database)
        self._entries = Entries(database)
        self.sealed = Sealed(database, self._entries)
        self._changes = Changes(database)
        self.gaps = Gaps(database, self._entries, self.sealed, self._changes)
        self.revisions = Revisions(database, self._entries)
        self.samples = Samples(database, self._entries)
        self._verdicts = Verdicts(
            database, self._entries, self.gaps, self.revisions, self.samples, self._underived, self.sealed,
            self._changes, stored_elsewhere,
        )  # fmt: skip
        self.sealing = Sealing(database, self._entries, self.revisions)
        self._losses = Losses(database, self._entries, self.gaps, self._verdicts, self._underived, self.sealed)
        self._mender = Mender(database, self._entries, self.gaps, self.revisions, self._underived)

    @classmethod
    def open(cls, path: Path, stored_elsewhere: StoredElsewhere, go_on: GoOn = lambda *_: None) -> Journal:
        """Open *path*, made anew if it does not exist or is empty; *go_on* may end the waiting, or the check.

        :class:`JournalBroken` if it is no sound journal, :class:`OtherFormat` if it is another version's, and
        ``sqlite3.OperationalError`` if it cannot be opened now (no permission, somebody else's lock).
        """
        # Whoever calls holds the only reference and never calls twice at once, but from changing threads.
        database = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=5.0)
        try:
            prepare(database, go_on)
            journal = cls(database, stored_elsewhere)
            journal._read_through()
        except (sqlite3.DatabaseError, ValueError, LookupError, TypeError, LedgerBroken) as error:
            database.close()
            if is_temporary(error):
                raise
            raise JournalBroken(str(error)) from error
        except BaseException:  # we are asked to stop
            with suppress(sqlite3.Error):
                put_to_rest(database)
            database.close()
            raise
        return journal

    def _read_through(self) -> None:
        """Read what the collector relies on; ``ValueError`` or the like where that makes no sense.

        SQLite has no checksums, and only candles have one of ours: a flipped bit in another value is seen here, if
        anywhere. (A time with a flipped bit is no whole minute any more: no power of two is a multiple of 60,000.)
        """
        for series, entry in self._entries.items():
            if entry.first > entry.mark or entry.first % MINUTE or entry.mark % MINUTE:
                raise ValueError(f"{series} stands at {entry}")
        self._entries.read_through(self.digests())
        check_spans(self._db)
        self.gaps.read_through()
        self.revisions.read_through()
        self.samples.read_through()
        for series, day in self.waiting_days():
            self.waiting(series, day)
        self.meta()

    def close(self) -> None:
        """Leave one file at rest, readable from a read-only place; ``sqlite3.Error`` if a reader is in the way."""
        put_to_rest(self._db)
        self._db.close()

    def abandon(self) -> None:
        """Let go without insisting; what was committed is in the write-ahead log."""
        self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        self._entries.begin()
        try:
            yield
            self._changes.write()
            self._db.execute("COMMIT")
        except BaseException:
            self._entries.undo()
            self._changes.undo()
            if self._db.in_transaction:  # some errors (a full disk) have rolled back already
                self._db.execute("ROLLBACK")
            raise

    # --- meta

    def meta(self) -> dict[str, str]:
        """What the directory remembers: kind, seed, clock, when it was last stopped."""
        return self._meta.read()

    def remember(self, **values: object) -> None:
        """Keep *values* as text; ``None`` forgets."""
        with self._transaction():
            self._meta.keep(values)

    def suspect(self) -> None:
        """Leave word that the file is damaged, so that the next start checks all of it; nothing if that fails, too."""
        with suppress(sqlite3.Error):
            self._meta.keep({SUSPECT: True})

    def publish(
        self, states: Iterable[Sequence[object]], errors: Mapping[str, str], now: Millis, waits: str | None = None,
        delays: Mapping[str, Delays] | None = None,
    ) -> None:  # fmt: skip
        """Record for the tools what the collector's table shows: *states* are rows of ``venue_state`` without the time,
        *errors* what the store cannot do, by part; *waits* is why *now* cannot be believed, if it cannot; *delays* are
        those from a minute's end to durable, by venue.
        """
        with self._transaction():
            self._meta.publish(states, errors, now, waits, delays or {})
            if waits is None:
                self.gaps.report(now)

    # --- series

    def expect(self, series: Collection[Series], earliest: Millis, now: Millis) -> None:
        """From now on expect exactly *series*, complete since *earliest* or since what is recorded, if earlier.

        Minutes before the one that runs at *now* which are not accounted for become gaps: those before a series
        was first started ``not_collected``; those since its mark ``collector_down``, or ``ledger_lost`` at the
        first start after a rebuilding, when nobody knows what was heard of them. Old history is deleted (:meth:`tidy`).

        *now* is to be a clock that a venue has vouched for: what follows from it is durable. What an earlier version
        derived from a wrong clock is dropped first (:mod:`.mending`).
        """
        until = floor_to(now, MINUTE)
        asked = floor_to(min(earliest, until), MINUTE)
        down = Reason.LEDGER_LOST if LEDGER_LOST in self.meta() else Reason.COLLECTOR_DOWN
        with self._transaction():
            anew = self._mender.mend(asked, now)
            listings = {
                self._entries.series(id_): Millis(since)
                for id_, since in self._db.execute("SELECT series_id, since_ms FROM listing")
            }
            for one in series:
                earliest = max(asked, min(listings.get(one, asked), until))
                known = one in self._entries
                entry = self._entries[one] if known else self._entries.add(one, earliest)
                reason = down if known and one not in anew else Reason.NOT_COLLECTED
                if not entry.expected:
                    self._expect_again(entry)
                if earliest < entry.first:
                    self.sealed.open(entry, earliest, entry.first)
                    self.gaps.open(entry, Unsure(one, earliest, entry.first, Reason.NOT_COLLECTED), now)
                    self._entries.begin_at(entry, earliest)
                self._verdicts.unsure(Unsure(one, entry.mark, until, reason), now)
                self.revisions.begin(entry.id, entry.mark)
            self._entries.expect(series)
            self._meta.keep({LEDGER_LOST: None})
        self.tidy(now)

    def _expect_again(self, entry: Entry) -> None:
        """What was sealed as it stood, when the series was not expected any more, is open again."""
        self.sealed.open_unknown(entry)
        if entry.mark % DAY:
            self.sealed.open(entry, entry.mark, entry.mark + MINUTE)

    def tidy(self, now: Millis) -> bool:
        """Let go of some of what is old: history, and contradictions that REST has not settled; returns whether more is
        left, for all of it at once would hold up the commits. Once a day will do."""
        with self._transaction():
            steps = self.gaps.history.forget_old, self.revisions.give_up_old, self.revisions.forget_old
            return any([step(now, TIDIED_AT_ONCE) == TIDIED_AT_ONCE for step in steps])

    def forget_changes(self, before: Millis, most: int) -> bool:
        """Let go of some of the change feed: what was committed earlier than *before*, and the oldest beyond *most*
        changes; returns whether more is left."""
        with self._transaction():
            return self._changes.forget_old(before, most)

    def rebuild(
        self,
        digests: dict[str, str],
        stored: Mapping[Series, tuple[Millis, Sequence[Interval]]],
        latest: Millis,
        days: Iterable[tuple[Series, Millis]] = (),
        salvaged: Salvaged | None = None,
        sealed: Iterable[SealedDay] = (),
    ) -> int:
        """Begin the ledger anew from what day files hold; return how many minutes between known ones are gaps now.

        *digests* are those of the files of open days; *stored* has of each series the first minute to account for and
        the spans that are known, oldest first: in day files, or *salvaged* from the old journal; *latest* is the latest
        time that these prove; *days* are open ones that have files, whose aggregates may be derived from minutes that
        were called empty; *sealed* are days that are sealed as they were. The next :meth:`expect` accounts for the
        minutes since the last known one.
        """
        with self._transaction():
            lost = self._losses.rebuild(digests, stored, days, salvaged or Salvaged(), sealed)
            self._meta.keep({LEDGER_LOST: True, "latest_ms": latest})
        return lost

    def spans(self) -> dict[Series, tuple[Millis, Millis]]:
        """Every series that was ever expected, and the minutes that are accounted for: first, and mark."""
        return {series: (entry.first, entry.mark) for series, entry in self._entries.items()}

    def newest_candles(self) -> dict[Series, Millis]:
        """The open time of each series' newest candle; nothing of a series without any."""
        return {series: entry.last_candle for series, entry in self._entries.items() if entry.last_candle is not None}

    # --- verdicts

    def commit(
        self, verdicts: Sequence[Verdict | Finding], now: Millis, rejected: Mapping[tuple[str, str], int] | None = None
    ) -> Judged:
        """Judge *verdicts* in order and make what they change durable, all of it or (on an error) nothing.

        *rejected* counts what was rejected before it came here, by (venue, reason).
        """
        judged = Judged()
        with self._transaction():
            for verdict in verdicts:
                self._verdicts.judge(verdict, now, judged)
            self.gaps.report(now)
            self._count(judged, rejected or {})
            self.revisions.count(judged.compared)
            self._meta.keep({"latest_ms": now})
        return judged

    def _count(self, judged: Judged, before: Mapping[tuple[str, str], int]) -> None:
        counts = Counter((candle.series.venue, rule.value) for candle, rule in judged.rejected)
        counts.update(before)
        for (venue, reason), count in counts.items():
            self._db.execute(
                "INSERT INTO rejection VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET count = count + excluded.count",
                (venue, reason, count),
            )

    def stored(self, series: Series, minute: Millis) -> Candle | None:
        """The stored candle of *minute*, from the journal or a day file; ``None`` if there is none."""
        return self._verdicts.stored(series, minute)

    def gaps_of(self, series: Series) -> list[Interval]:
        """The minutes of *series* that are gaps, open or unfillable, oldest first."""
        entry = self._entries[series]
        return self.gaps.within(entry, entry.first, entry.mark)

    def replaced_minutes(self, series: Series, day: Millis) -> set[Millis]:
        """The minutes of *day* whose stored candle REST has replaced."""
        return self.revisions.replaced(self._entries[series].id, day, Millis(day + DAY))

    # --- towards the day files

    def waiting_days(self, count: int | None = None) -> list[tuple[Series, Millis]]:
        """The (series, day) pairs for which candles wait, those that have waited longest first; at most *count*."""
        return [(self._entries.series(id_), day) for id_, day in waiting_longest(self._db, count)]

    def waiting_count(self) -> tuple[int, int]:
        """How many candles wait, and for how many days' files."""
        return count_waiting(self._db)

    def waiting(self, series: Series, day: Millis) -> list[Candle]:
        """The candles that wait for that day's file, oldest first."""
        rows = self._db.execute(
            f"SELECT {CANDLE} FROM candle WHERE series_id = ? AND open_ms >= ? AND open_ms < ? ORDER BY open_ms",
            (self._entries[series].id, day, day + DAY),
        )
        return [candle_of(series, row) for row in rows]

    def digests(self) -> dict[str, tuple[str | None, str | None]]:
        """Path -> (digest, pending digest), of every day file."""
        return {str(path): (digest, pending) for path, digest, pending in self._db.execute("SELECT * FROM day_file")}

    def digest(self, path: str) -> tuple[str | None, str | None]:
        """(digest, pending digest) of one day file, of an open day or of a sealed one."""
        return self.sealed.digest(path)

    def replacing(self, pending: dict[str, str], minutes: Iterable[tuple[Series, Millis, Millis]] = ()) -> None:
        """Note that day files are about to be replaced: *pending* has each path's new digest, *minutes* the first and
        the last minute of the candles that each file takes in.
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
        sealed: Iterable[SealedDay] = (),
        now: Millis | None = None,
    ) -> None:
        """Note that *files*, as (path, digest, series, minutes), are durable: those minutes wait no longer. Of the days
        in *derived* every file of aggregates is durable, too; those in *sealed* are sealed at *now*; or, without
        *now*, were sealed before, and have new digests and another shape.
        """
        with self._transaction():
            for path, digest, series, minutes in files:
                self.sealed.now_current(path, None if digest == ABSENT else digest)
                self._db.executemany(
                    "DELETE FROM candle WHERE series_id = ? AND open_ms = ?",
                    [(self._entries[series].id, minute) for minute in minutes],
                )
            for series, day in derived:
                self._underived.forget(self._entries[series].id, day)
            for one in sealed:
                entry, day = self._entries[one.account.series], one.account.day
                if now is None:
                    self.sealed.change(entry, day, one.digests, one.shape)
                else:
                    self.gaps.forget(entry, day, day + DAY, now)
                    self.sealed.seal(entry, one)

    def not_replaced(self, path: str) -> None:
        """The replacement of *path* did not happen; the file is what it was."""
        with self._transaction():
            self._db.execute("UPDATE day_file SET pending = NULL WHERE path = ?", (path,))
            self._db.execute("DELETE FROM day_file WHERE path = ? AND digest IS NULL", (path,))

    def lose(self, path: str, series: Series, day: Millis, now: Millis, detail: str) -> int:
        """The day file *path* is gone or not to be believed: its minutes become gaps; return how many."""
        with self._transaction():
            return self._losses.lose(path, series, day, now, detail)

    # --- aggregates

    def aggregate(self, timeframes: Sequence[str], days: Iterable[tuple[Series, Millis]]) -> None:
        """Remember which *timeframes* are derived, and that nothing is known of the aggregates of *days*."""
        with self._transaction():
            self._derive_anew(days)
            self._meta.keep({TIMEFRAMES: ",".join(timeframes)})

    def _derive_anew(self, days: Iterable[tuple[Series, Millis]]) -> None:
        self._underived.add_days((self._entries[series].id, day) for series, day in days)

    def lose_aggregate(self, path: str, series: Series, day: Millis) -> None:
        """The day file *path*, of a higher timeframe of the 1m *series*, is gone or not to be believed."""
        with self._transaction():
            self._losses.lose_aggregate(path, series, day)

    def underived_days(self) -> list[tuple[Series, Millis]]:
        """The (series, day) whose aggregates are behind although no candle waits for the day; the newest days first."""
        return [(self._entries.series(series_id), day) for series_id, day in self._underived.days()]

    def day_ledger(self, series: Series, day: Millis) -> DayLedger:
        """What the minutes of *day* are, and which of them aggregates do not know yet."""
        entry = self._entries[series]
        sealed = self.sealed.day(entry, day)
        return self._underived.ledger_of(
            entry.id, entry.first, entry.mark, day, None if sealed is None else sealed.account
        )

    # --- sealed days

    def open_days(self) -> list[tuple[Series, Millis]]:
        """The days, as (series, day), that are accounted for and not sealed; those of a series one after the other."""
        rows = self._db.execute("SELECT series_id, day_ms FROM open_day ORDER BY series_id, day_ms")
        return [(self._entries.series(id_), Millis(day)) for id_, day in rows]

    def postpone(self, days: Iterable[tuple[Series, Millis]], now: Millis) -> None:
        """Look at the open *days* again later: they cannot be sealed at *now*."""
        with self._transaction():
            self.sealing.postpone(days, now)

    def restore(self, sealed: SealedDay) -> None:
        """Let *sealed* be the row of a day whose row was damaged."""
        with self._transaction():
            self._losses.restore(sealed)

    def reopen(self, series: Series, day: Millis, digests: Mapping[str, str], stored: Iterable[int]) -> int:
        """The row of a sealed *day* was damaged, and no file has its account: open the day with what its files, with
        *digests* by timeframe, have *stored*; return how many of its other minutes are gaps now.
        """
        with self._transaction():
            return self._losses.reopen(series, day, digests, stored)

    def sealed_day(self, series: Series, day: Millis) -> SealedDay | None:
        """The sealed *day* of *series*; ``None`` if that day is open."""
        return self.sealed.day(self._entries[series], day)
