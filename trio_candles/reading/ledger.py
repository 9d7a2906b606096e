"""The ledger for whoever only reads: ``read_candles``, check and monitor, preflight, the history in the audit's page.

This module opens a journal read-only, knows the formats, and makes every query of its tables; no other reader does,
but for the audit's judgement (:mod:`trio_candles.audit.ledger`), which shares nothing with what it judges.

SQLite checks no types, and neither does this module: a value is handed on as it lies in the ledger, whatever its
annotation promises. A caller that must survive a ledger that somebody broke checks each value
(:mod:`trio_candles.health.reading`) or takes each as text (:mod:`trio_candles.audit.history`).

A reader knows no minute that has not happened. A clock that was ahead may have left the ledger with some, so spans end
for every reader at ``Ledger.present``, as if the ledger said nothing of what is later.

Imports nothing that makes tables, because check and preflight start with this module.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import attrs

from trio_candles.candles.intervals import Interval
from trio_candles.candles.model import DAY, MINUTE, Millis, Series, day_name, floor_to
from trio_candles.reading.errors import LedgerUnreadable, NoLedger, NoSuchDirectory, UnknownFormat, UnknownSeries
from trio_candles.reading.notes import Notes
from trio_candles.reading.records import Account, GapEvent, GapSpan, GapTotals, Revision
from trio_candles.reading.sealed import SealedDays
from trio_candles.reading.told import Told
from trio_candles.store.accounts import EMPTY, GAP, UNFILLABLE, SealedDay
from trio_candles.store.accounts import Account as DayAccount
from trio_candles.store.schema import EPOCH, FORMAT, JOURNAL, UPGRADES, candle_checksum
from trio_candles.store.snapshot import open_snapshot
from trio_candles.store.spans import touching

__all__ = ["Account", "GapEvent", "GapSpan", "GapTotals", "Ledger", "Revision", "open_ledger"]

Row = tuple[Any, ...]
T = TypeVar("T")


class Ledger:
    """The ledger at one moment; made by :func:`open_ledger`."""

    def __init__(self, database: sqlite3.Connection, now: Callable[[], Millis] | None = None) -> None:
        self._db = database
        self.meta = {str(key): str(value) for key, value in database.execute("SELECT key, value FROM meta")}
        """What the directory says of itself, as in the table ``meta``."""
        found = self.meta.get("format")
        if found not in (FORMAT, *UPGRADES):
            raise UnknownFormat(found, FORMAT)
        self._format = int(found)
        self._sealed = SealedDays(database, known=self._format >= 6)
        self.told = Told(database, self.meta.get(EPOCH))
        self.notes = Notes(database, self._format)
        self.now = self._clock() if now is None else now()
        """The service's time in Unix ms, by the clock that was given or by the one that the directory remembers."""
        (newest,) = database.execute(
            "SELECT max(last_candle_ms) FROM series WHERE typeof(last_candle_ms) = 'integer'"
        ).fetchone()
        self.present = Millis(max(floor_to(self.now, MINUTE), 0 if newest is None else newest + MINUTE))
        """The end of the newest minute that has happened. A clock says so, and so does a stored candle: the reader's
        clock may be the one that is wrong."""

    def _clock(self) -> Millis:
        """The time by the clock that the directory remembers, else the wall's.

        The wall's is asked of SQLite, which cuts it to whole ms: the service's clock would bring trio into programs
        that only read.
        """
        (wall,) = self._db.execute("SELECT (julianday('now') - 2440587.5) * 86400 + 0.001").fetchone()
        try:
            speed, pivot = float(self.meta["speed"]), float(self.meta["pivot"])
            return Millis(int((wall if speed == 1 else pivot + speed * (wall - pivot)) * 1000))
        except (LookupError, ValueError, OverflowError):
            return Millis(int(wall * 1000))

    def _happened(self, time: T) -> T | Millis:
        """*time*, or the present if *time* is later."""
        return self.present if isinstance(time, int) and time > self.present else time

    # --- series

    def accounts(self) -> list[Account]:
        """Every 1m series, in the order in which they were first expected."""
        # A journal of format 1 knows no listings; before format 4 a series' folder follows from its symbol.
        listed = "(SELECT since_ms FROM listing WHERE series_id = series.id)" if self._format >= 2 else "NULL"
        folder = "folder" if self._format >= 4 else "NULL"
        rows = self._db.execute(
            f"SELECT id, venue, symbol, {folder}, first_ms, mark_ms, last_candle_ms, expected, {listed} FROM series"
            " WHERE timeframe = '1m' ORDER BY id"
        )
        return [
            Account(
                id_, Series(str(venue), str(symbol), folder=folder), self._happened(first), self._happened(mark), last,
                expected == 1, listed,
            )
            for id_, venue, symbol, folder, first, mark, last, expected, listed in rows
        ]  # fmt: skip

    def find(self, venue: str | None = None, symbol: str | None = None) -> list[Account]:
        """All 1m series, or those of *venue* or *symbol* (spelled as the venue does or as the folder is called), by
        venue and symbol; :class:`UnknownSeries` if there are none like them.
        """
        wanted_venue, wanted_symbol = venue and venue.lower(), symbol and _spelled(symbol)
        everything = sorted(self.accounts(), key=lambda one: (one.series.venue, one.series.symbol))
        found = [
            account
            for account in everything
            if wanted_venue in (None, account.series.venue)
            and wanted_symbol in (None, account.series.folder, _spelled(account.series.symbol))
        ]
        if not found and (venue is not None or symbol is not None):
            raise UnknownSeries(_unknown(venue, symbol, [account.series for account in everything]))
        return found

    # --- minutes

    def gaps(self, account: Account, since: int, until: int, *, newest_first: bool = False) -> list[GapSpan]:
        """Open and unfillable gaps that touch ``[since, until)``, of a sealed day those minutes that are in the day;
        oldest first, or newest first.
        """
        found, happened = self.gaps_of_open_days(account, since, until), self._happened(until)
        for _, _, day in self.sealed_minutes(account, since, until):
            if day is not None:
                found += [gap for gap in self._gaps_in(account, day) if gap.since < happened and gap.until > since]
        return sorted(found, key=lambda gap: gap.since, reverse=newest_first)

    def gaps_of_open_days(self, account: Account, since: int, until: int) -> list[GapSpan]:
        """As :meth:`gaps`, without those of sealed days."""
        return [self._gap(row) for row in self._touching("gap", _GAP, account, since, until)]

    def _gaps_in(self, account: Account, day: DayAccount) -> Iterator[GapSpan]:
        """The gaps of the sealed *day* of *account*, oldest first."""
        for letter, low, high in day.runs():
            state, why = {GAP: ("open", day.gap), UNFILLABLE: ("unfillable", day.unfillable)}.get(letter, ("", None))
            if why is not None:
                since, until = Millis(low), self._happened(Millis(high))
                yield GapSpan(account.id, since, until, state, *attrs.astuple(why))

    def _touching(self, table: str, columns: str, account: Account, since: int, until: int) -> list[Row]:
        """*columns* of the rows of *table* that touch ``[since, until)``, oldest first."""
        return self._db.execute(
            f"SELECT {columns} FROM {table} WHERE {touching(table)} ORDER BY since_ms",
            {"id": account.id, "since": since, "until": self._happened(until)},
        ).fetchall()

    def sealed_minutes(
        self, account: Account, since: int, until: int
    ) -> Iterator[tuple[Millis, str, DayAccount | None]]:
        """The sealed days that touch ``[since, until)``, oldest first: the day, a letter for each of its minutes, and
        its account, which is ``None`` where every minute is a candle. None before format 6.
        """
        return self._sealed.minutes(account.id, account.series, since, self._happened(until))

    def sealed_day(self, account: Account, minute: int) -> SealedDay | None:
        """The sealed day that has *minute*; ``None`` if that day is open, or not accounted for at all."""
        return next(iter(self._sealed.whole(account.id, account.series, minute, minute + MINUTE)), None)

    def _gap(self, row: Row) -> GapSpan:
        id_, since, until, *rest = row
        return GapSpan(id_, since, self._happened(until), *rest)

    def open_gaps(self, wanted: Iterable[Account]) -> dict[int, GapTotals]:
        """The totals of open gaps by the account's id, those in sealed days of *wanted* accounts included. Reads no
        other sealed day.
        """
        rows = self._db.execute(
            f"SELECT count(*), sum(min(until_ms, :present) - since_ms), min(first_seen_ms), {_GAP} FROM gap"
            " WHERE state = 'open' AND (since_ms < :present OR typeof(since_ms) != 'integer') GROUP BY series_id",
            {"present": self.present},
        )  # with min(), SQLite takes the other columns from the row that has the minimum
        totals = {gap[0]: GapTotals(count, length, self._gap(gap)) for count, length, _, *gap in rows}
        for account in wanted:
            if not account.expected:  # of no other do sealed days have open gaps
                days = self._sealed.with_open_gaps(account.id, account.series)
                for gap in (gap for day in days for gap in self._gaps_in(account, day) if gap.state == "open"):
                    before = totals.get(account.id, GapTotals(0, 0, gap))
                    oldest = min(before.oldest, gap, key=lambda one: one.first_seen)
                    totals[account.id] = GapTotals(before.count + 1, before.length + gap.until - gap.since, oldest)
        return totals

    def empties(self, account: Account, since: int, until: int) -> list[tuple[int, int, str]]:
        """Empty spans that touch ``[since, until)`` with their evidence, oldest first, whole."""
        found, happened = self.empties_of_open_days(account, since, until), self._happened(until)
        for _, _, day in self.sealed_minutes(account, since, until):
            if day is not None:
                spans = ((low, self._happened(high), day.empty or "") for low, high in day.spans(EMPTY))
                found += [span for span in spans if span[0] < happened and span[1] > since]
        return sorted(found, key=lambda span: span[0])

    def empties_of_open_days(self, account: Account, since: int, until: int) -> list[tuple[int, int, str]]:
        """As :meth:`empties`, without those of sealed days."""
        rows = self._touching("empty", "since_ms, until_ms, evidence", account, since, until)
        return [(low, self._happened(high), evidence) for low, high, evidence in rows]

    def begin_of_empty_run(self, account: Account, time: int) -> int:
        """The end of the last minute before *time* that is not empty."""
        while True:
            row = self._db.execute(
                "SELECT since_ms, until_ms FROM empty WHERE series_id = ? AND since_ms < ?"
                " ORDER BY since_ms DESC LIMIT 1",
                (account.id, time),
            ).fetchone()
            if row is None or row[1] < time:
                day = floor_to(Millis(time - 1), DAY)
                row = next((span for span in reversed(self.empties(account, day, time)) if span[1] >= time), None)
            if row is None:
                return time
            time = row[0]

    def underived(self, account: Account, since: int, until: int, timeframe: str) -> list[Interval]:
        """Spans of minutes that changed and that aggregates of *timeframe* do not follow yet, oldest first; sealed days
        of which these are still to be derived or compared, whole.
        """
        if self._format < 2:
            return []
        noted = self._db.execute(
            "SELECT since_ms, until_ms FROM underived WHERE series_id = ? AND since_ms < ? AND until_ms > ?",
            (account.id, until, since),
        ).fetchall()
        days = self._sealed.whole(account.id, account.series, since, until) if since < until else []
        sealed = [one for one in days if timeframe not in one.shape.split()]
        return sorted([*noted, *((one.account.day, one.account.day + DAY) for one in sealed)])

    # --- rows

    def waiting(self, account: Account, since: int, until: int) -> list[Row]:
        """The candles in ``[since, until)`` that are in no day file yet, or newer than the one there, oldest first:
        open time, open, high, low, close, volume, quote volume, vwap, count of trades, source, time of ingestion.

        :class:`LedgerUnreadable` if one does not match its checksum.
        """
        checked = self._format >= 3
        rows = self._db.execute(
            "SELECT series_id, open_ms, open, high, low, close, volume, quote_volume, vwap, trades_count, source,"
            f" ingest_ms, {'checksum' if checked else 'NULL'}"
            " FROM candle WHERE series_id = ? AND open_ms >= ? AND open_ms < ? ORDER BY open_ms",
            (account.id, since, until),
        ).fetchall()
        for row in rows:
            if checked and candle_checksum(row[:-1]) != row[-1]:
                raise LedgerUnreadable(
                    f"{account.series}: the journal's candle of {row[1]} does not match its checksum"
                )
        return [row[1:-1] for row in rows]

    def newest_waiting(self, account: Account, count: int) -> Iterator[tuple[int, int, str]]:
        """Open time, time of ingestion and source of the *count* newest candles in the journal, newest first."""
        return self._db.execute(
            "SELECT open_ms, ingest_ms, source FROM candle WHERE series_id = ? ORDER BY open_ms DESC LIMIT ?",
            (account.id, count),
        )

    def files(
        self, account: Account, timeframe: str, since: int, until: int
    ) -> dict[str, tuple[str | None, str | None]]:
        """Path → digest and pending digest of the day files of *account* in *timeframe* of ``[since, until)``, oldest
        first.
        """
        series = attrs.evolve(account.series, timeframe=timeframe)
        if since >= until:
            return {}
        low, high = (f"{series.path}/{day_name(time)}.parquet" for time in (since, until - 1))
        rows = self._db.execute(
            "SELECT path, digest, pending FROM day_file WHERE path BETWEEN ? AND ? ORDER BY path", (low, high)
        )
        open_days = {str(path): (digest, pending) for path, digest, pending in rows}
        sealed = {
            f"{series.path}/{day_name(one.account.day)}.parquet": one.digests[series.timeframe]
            for one in self._sealed.whole(account.id, account.series, since, until)
            if series.timeframe in one.digests
        }
        of_sealed = {path: (digest, open_days.get(path, (None, None))[1]) for path, digest in sealed.items()}
        return dict(sorted({**open_days, **of_sealed}.items()))

    # --- what happened

    def gap_events(self, since: int, until: int) -> Iterator[GapEvent]:
        """What became of gaps that touch ``[since, until)``, of every series, newest first."""
        rows = self._db.execute(
            "SELECT series_id, since_ms, until_ms, at_ms, event, detail FROM gap_event"
            " WHERE since_ms < ? AND until_ms > ? ORDER BY at_ms DESC, until_ms DESC",
            (until, since),
        )
        return (GapEvent(*row) for row in rows)

    def revisions(self) -> Iterator[Revision]:
        """The revisions of every series, the last noted first; no further row is read than the caller takes."""
        rows = self._db.execute(
            "SELECT series_id, open_ms, at_ms, stored, offered, outcome FROM revision ORDER BY id DESC"
        )
        return (Revision(*row) for row in rows)

    def revisions_since(self, time: int) -> dict[int, int]:
        """How many revisions were noted at *time* or later, by the account's id."""
        query = "SELECT series_id, count(*) FROM revision WHERE at_ms >= ? GROUP BY series_id"
        return dict(self._db.execute(query, (time,)).fetchall())

    def rejections(self) -> Iterator[tuple[str, str, int]]:
        """Venue, rule, and how many candles were refused by it since the directory began."""
        return self._db.execute("SELECT venue, reason, count FROM rejection")

    def confirmations(self) -> Iterator[tuple[str, str, int]]:
        """Venue, outcome, and how many candles came to it when compared with REST, since the directory began."""
        return self._since_2("SELECT venue, outcome, count FROM confirmation")

    def venue_states(self) -> Iterator[Row]:
        """Of each venue what the running collector shows: name, time, status, 1 if connected, and the counts of
        messages received, candles saved, reconnections and candles rejected.
        """
        return self._since_2(
            "SELECT venue, at_ms, status, connected, received, saved, reconnects, rejected FROM venue_state"
        )

    def _since_2(self, query: str) -> Iterator[Row]:
        """The rows of a table that a journal of format 1 does not have."""
        return self._db.execute(query) if self._format >= 2 else iter(())


_GAP = "series_id, since_ms, until_ms, state, reason, detail, first_seen_ms, attempts, last_error"
"""The columns of a :class:`GapSpan`, in the order of its fields."""


@contextmanager
def open_ledger(data_dir: Path, now: Callable[[], Millis] | None = None) -> Iterator[Ledger]:
    """The ledger of *data_dir* at this moment, beside a collector or not; leave the block soon, a stop waits for it.

    *now* is the clock to read by, in Unix ms; by default the one that the directory remembers.

    Raises :class:`NoSuchDirectory` and :class:`LedgerUnreadable`, the latter also where SQLite fails in the block.
    """
    path = data_dir / JOURNAL
    try:
        if not _is_there(path):
            if not data_dir.is_dir():
                raise NoSuchDirectory(f"{data_dir}: no such directory")
            raise NoLedger(f"there is no {JOURNAL}, so nobody knows what is complete", data_dir)
        with open_snapshot(path) as database:
            yield Ledger(database, now)
    except (sqlite3.Error, OSError) as error:
        raise LedgerUnreadable(str(error), path) from error


def _is_there(path: Path) -> bool:
    """Whether *path* exists; ``OSError`` where that cannot be seen (``exists()`` says no there since Python 3.14)."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _spelled(symbol: str) -> str:
    """*symbol* as people may write it, in the one spelling in which they are compared."""
    return symbol.upper().replace("/", "-", 1)


def _unknown(venue: str | None, symbol: str | None, known: list[Series]) -> str:
    """The message about a series that the ledger does not know."""
    from difflib import get_close_matches  # late: check and preflight never come here

    asked = " ".join(filter(None, (venue, symbol)))
    if not known:
        return f"{asked!r} is not there: the ledger knows no series yet"
    names = [f"{one.venue} {one.symbol}" for one in known]
    mine = [name for name in names if venue is not None and name.startswith(f"{venue.lower()} ")]
    near = get_close_matches(asked.lower(), [name.lower() for name in mine or names], n=1, cutoff=0.5)
    if near:
        return f"{asked!r} is not there; did you mean {next(name for name in names if name.lower() == near[0])!r}?"
    return f"{asked!r} is not there; known: {', '.join((mine or names)[:10])}"
