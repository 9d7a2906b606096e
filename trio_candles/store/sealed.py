"""The ledger's tables ``sealed`` and ``open_day``: each day that is accounted for is in exactly one of them.

::

                      over, known, compared (:mod:`.sealing`)
      ┌──────────┐ ───────────────────────────────────────────▶ ┌────────┐
      │   open   │                                              │ sealed │
      └──────────┘ ◀─────────────────────────────────────────── └────────┘
                      a revision, a late fill, a longer look-back, a lost file

The minutes of an open day are spans in ``gap`` and ``empty``, its files are in ``day_file``. All of that is in one row
of ``sealed`` while the day is sealed (:mod:`.accounts`), so what a start, a look or a commit reads does not grow with
history. Whatever changes a minute of a sealed day opens the day first, in the same transaction.

Works inside the journal's transactions, on its connection.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Mapping

import attrs

from trio_candles.candles.intervals import Interval, clip
from trio_candles.candles.model import DAY, MINUTE, Millis, Series, day_name
from trio_candles.store import accounts
from trio_candles.store.accounts import EMPTY, GAP, SEALED, UNFILLABLE, SealedDay, Unknown, sealed_day, sealed_row
from trio_candles.store.dayfiles import day_of
from trio_candles.store.entries import Entries, Entry
from trio_candles.store.schema import TIMEFRAMES
from trio_candles.store.spans import cut_empty

__all__ = ["AccountBroken", "Sealed", "path_of"]


class AccountBroken(Exception):
    """A row of ``sealed`` is not what was written; the account may still be in the day's file."""

    def __init__(self, series: Series, day: Millis, why: str) -> None:
        super().__init__(why)
        self.series = series
        self.day = day


def path_of(series: Series, day: int, timeframe: str) -> str:
    """Where the day file of *timeframe* lies, below the data directory; *series* is of minutes."""
    return f"{attrs.evolve(series, timeframe=timeframe).path}/{day_name(Millis(day))}.parquet"


class Sealed:
    """The tables of an open journal."""

    def __init__(self, database: sqlite3.Connection, entries: Entries) -> None:
        self._db = database
        self._entries = entries

    # --- what is sealed

    def day(self, entry: Entry, day: int) -> SealedDay | None:
        """The sealed day that begins at *day*; ``None`` if that day is not sealed."""
        found = self.within(entry, day, day + DAY)
        return found[0] if found else None

    def within(self, entry: Entry, since: int, until: int) -> list[SealedDay]:
        """The sealed days that touch ``[since, until)``, oldest first; :class:`AccountBroken` if one is damaged."""
        rows = self._db.execute(
            f"SELECT {SEALED} FROM sealed WHERE series_id = ? AND day_ms > ? AND day_ms < ? ORDER BY day_ms",
            (entry.id, since - DAY, until),
        )
        return [self._sealed(entry.id, row) for row in rows.fetchall()]

    def _sealed(self, id_: int, row: tuple[object, ...]) -> SealedDay:
        series = self._entries.series(id_)
        try:
            return sealed_day(series, row)
        except accounts.AccountBroken as error:
            raise AccountBroken(series, Millis(int(str(row[0]))), str(error)) from error

    def spans(self, entry: Entry, since: int, until: int, letters: str) -> list[Interval]:
        """The minutes of ``[since, until)`` that are one of *letters* in a sealed day, oldest first."""
        days = self.within(entry, since, until)
        runs = ((low, high) for one in days for letter, low, high in one.account.runs() if letter in letters)
        return list(clip(runs, since, until))

    def series(self, id_: int) -> Series:
        """The series that :meth:`after` calls *id_*."""
        return self._entries.series(id_)

    def after(self, place: tuple[int, int], count: int) -> list[tuple[int, Millis]]:
        """The next *count* sealed days after *place*, as (series id, day), in the order of the scrub."""
        rows = self._db.execute(
            "SELECT series_id, day_ms FROM sealed WHERE (series_id, day_ms) > (?, ?) ORDER BY 1, 2 LIMIT ?",
            (*place, count),
        )
        return [(id_, Millis(day)) for id_, day in rows]

    def count(self) -> int:
        """How many days are sealed. Reads an index of all of them: once a scrub, not at each look."""
        (count,) = self._db.execute("SELECT count(*) FROM sealed").fetchone()
        return int(count)

    def lacking(self, wanted: Collection[str], count: int) -> list[tuple[Series, Millis]]:
        """At most *count* sealed days, as (series, day), whose shape lacks one of *wanted*; costs what it finds."""
        found: list[tuple[Series, Millis]] = []
        shapes = self._db.execute(
            "WITH RECURSIVE one (shape) AS (SELECT min(shape) FROM sealed UNION ALL"
            " SELECT (SELECT min(shape) FROM sealed WHERE shape > one.shape) FROM one WHERE one.shape IS NOT NULL)"
            " SELECT shape FROM one WHERE shape IS NOT NULL"
        ).fetchall()
        for (shape,) in shapes:
            if set(wanted) - set(shape.split()) and len(found) < count:
                rows = self._db.execute(
                    "SELECT series_id, day_ms FROM sealed WHERE shape = ? ORDER BY rowid DESC LIMIT ?",
                    (shape, count - len(found)),
                )
                found += [(self._entries.series(id_), Millis(day)) for id_, day in rows]
        return found

    def whose(self, path: str) -> tuple[Series | None, Millis, str]:
        """The 1m series, the day and the timeframe whose day file belongs at *path*; no series if none's does."""
        folder, _, name = path.rpartition("/")
        symbol, _, timeframe = folder.rpartition("/")
        day = day_of(name)
        series = None if day is None else self._entries.at(f"{symbol}/1m")
        return series, Millis(0) if day is None else day, timeframe

    def digest(self, path: str) -> tuple[str | None, str | None]:
        """(digest, pending digest) of the day file at *path*, of an open day or of a sealed one."""
        row = self._db.execute("SELECT digest, pending FROM day_file WHERE path = ?", (path,)).fetchone()
        digest, pending = (None, None) if row is None else row
        if digest is None:
            series, day, timeframe = self.whose(path)
            sealed = None if series is None else self.day(self._entries[series], day)
            digest = None if sealed is None else sealed.digests.get(timeframe)
        return digest, pending

    # --- sealed, and opened again

    def seal(self, entry: Entry, sealed: SealedDay) -> None:
        """Let the open day be *sealed*, in the place of its rows in ``open_day``, ``empty``, ``underived`` and
        ``day_file``. The caller has taken its minutes out of ``gap``.
        """
        account = sealed.account
        since, until = account.day, account.day + DAY
        cut_empty(self._db, entry.id, since, until)
        of_day = (entry.id, since, until)
        self._db.execute("DELETE FROM underived WHERE series_id = ? AND since_ms >= ? AND since_ms < ?", of_day)
        paths = [(path_of(account.series, account.day, name),) for name in sealed.digests]
        self._db.executemany("DELETE FROM day_file WHERE path = ?", paths)
        self._db.execute("DELETE FROM open_day WHERE series_id = ? AND day_ms = ?", of_day[:2])
        self._db.execute(
            f"INSERT INTO sealed (series_id, {SEALED}) VALUES (?, ?, ?, ?, ?, ?, ?)", (entry.id, *sealed_row(sealed))
        )

    def change(self, entry: Entry, day: Millis, digests: Mapping[str, str | None], shape: str | None = None) -> None:
        """Give the sealed day *digests* of files (``None``: the file is gone), and another *shape* if that is given."""
        before = self.day(entry, day)
        assert before is not None, (entry, day)
        files = {**before.digests, **digests}
        kept = {name: digest for name, digest in files.items() if digest is not None}
        after = attrs.evolve(before, digests=kept, shape=before.shape if shape is None else shape)
        self._db.execute(
            f"INSERT OR REPLACE INTO sealed (series_id, {SEALED}) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (entry.id, *sealed_row(after)),
        )

    def now_current(self, path: str, digest: str | None) -> None:
        """The day file at *path* has *digest* now, and no replacement is under way; ``None``: it is gone."""
        series, day, timeframe = self.whose(path)
        entry = None if series is None else self._entries[series]
        if entry is not None and self.day(entry, day) is not None:
            self.change(entry, day, {timeframe: digest})
            digest = None
        if digest is None:
            self._db.execute("DELETE FROM day_file WHERE path = ?", (path,))
        else:
            self._db.execute("INSERT OR REPLACE INTO day_file VALUES (?, ?, NULL)", (path, digest))

    def lose_aggregate(self, entry: Entry, day: Millis, path: str) -> bool:
        """The file of aggregates at *path* is gone; ``False`` if *day* is open, and nothing was noted."""
        sealed, timeframe = self.day(entry, day), self.whose(path)[2]
        if sealed is None:
            return False
        shape = " ".join(name for name in sealed.shape.split() if name != timeframe)
        self.change(entry, day, {timeframe: None}, shape)
        return True

    def open(self, entry: Entry, since: int, until: int, *, only: str = "") -> None:
        """Open the sealed days that touch ``[since, until)``; if *only* is given, those of which a minute in that span
        is one of these letters.
        """
        for one in self.within(entry, since, until):
            low, high = (max(0, (time - one.account.day) // MINUTE) for time in (since, until + MINUTE - 1))
            if not only or set(only).intersection(one.account.minutes[low:high]):
                self._open(entry, one)

    def open_unknown(self, entry: Entry) -> None:
        """Open the sealed days that have gaps: the series is expected again, and they are to be filled."""
        rows = self._db.execute("SELECT day_ms FROM sealed WHERE series_id = ? AND unknown > 0", (entry.id,)).fetchall()
        for (day,) in rows:
            self.open(entry, day, day + DAY)

    def forget(self, entry: Entry, day: Millis) -> None:
        """Take the row of *day* out of ``sealed``, unread, and note the day as open: nothing else is known of it."""
        self._db.execute("DELETE FROM sealed WHERE series_id = ? AND day_ms = ?", (entry.id, day))
        self._db.execute("INSERT OR IGNORE INTO open_day VALUES (?, ?, 0)", (entry.id, day))

    def _open(self, entry: Entry, sealed: SealedDay) -> None:
        account = sealed.account
        self.forget(entry, account.day)
        for letter, state, why in ((GAP, "open", account.gap), (UNFILLABLE, "unfillable", account.unfillable)):
            if why is not None:
                self._put_back(entry, account.spans(letter), state, why)
        self._db.executemany(
            "INSERT INTO empty VALUES (?, ?, ?, ?)",
            [(entry.id, low, high, account.empty) for low, high in account.spans(EMPTY)],
        )
        for timeframe, digest in sealed.digests.items():
            path = path_of(account.series, account.day, timeframe)
            self._db.execute(
                "INSERT INTO day_file VALUES (?, ?, NULL) ON CONFLICT DO UPDATE SET digest = excluded.digest",
                (path, digest),
            )
        derived = self._db.execute("SELECT value FROM meta WHERE key = ?", (TIMEFRAMES,)).fetchone()
        if derived is not None and not set(filter(None, derived[0].split(","))) <= set(sealed.shape.split()):
            self._db.execute(
                "INSERT INTO underived (series_id, since_ms, until_ms) VALUES (?, ?, ?)",
                (entry.id, account.day, account.day + DAY),
            )

    def _put_back(self, entry: Entry, spans: Iterable[Interval], state: str, why: Unknown) -> None:
        for low, high in spans:
            self._db.execute(
                "INSERT INTO gap (series_id, since_ms, until_ms, state, reason, detail, first_seen_ms, attempts,"
                " last_error, reported_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    entry.id,
                    low,
                    high,
                    state,
                    why.reason,
                    why.detail,
                    why.first_seen,
                    why.attempts,
                    why.last_error,
                    high,
                ),
            )
            if state == "open":
                self._entries.count_in_gaps(entry, high - low)
