"""The change feed of a data directory, read from a place on: batch by batch, by one thread at a time, read-only.

::

    changed()  a look without a transaction: has anybody committed, is the journal still the same file?
    read()     one transaction for the rows that come next, further ones for the values; then nothing is held

A reader keeps its connection, and no transaction, while it waits. SQLite goes on reading a file that was replaced or
deleted, so the file's identity is looked at each second. At every reading the row at which the reader stands is
checked: a journal that was put back from a copy has another row there, or none.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import NamedTuple

import attrs

from trio_candles.candles.aggregation import DayOfMinutes
from trio_candles.candles.documents import CandleDocument, kept_from_json
from trio_candles.candles.model import DAY, MINUTE, Millis, Series, Source
from trio_candles.reading.changes import Change, Wanted
from trio_candles.reading.cursor import FIRST_STEP, LAST_STEP, Cursor, step_of
from trio_candles.reading.derived import derived
from trio_candles.reading.errors import (
    CursorExpired,
    CursorUnknown,
    LedgerUnreadable,
    NoLedger,
    NoSuchDirectory,
    UnknownSeries,
    senseless_values,
)
from trio_candles.reading.ledger import Account, Ledger
from trio_candles.reading.values import DayOfValues, Needed, Row, Values
from trio_candles.store import feed
from trio_candles.store.feed import RUNS, Kind, check_of, last_seq
from trio_candles.store.schema import JOURNAL

__all__ = ["OLDEST", "Feed"]

OLDEST = "oldest"
READ_AT_ONCE = 50_000
"""Numbers of the feed in one batch, at least: of many series the files are read once for many minutes of each."""
IDENTITY_SECONDS = 1.0
"""Between two looks at whether the journal is still the same file."""


_KINDS = {kind.value: kind for kind in Kind}
_EVENTS = {kind: kind.name.lower() for kind in Kind}
_SOURCES = {source.value: source for source in Source}


class _Step(NamedTuple):
    """A change to be made of a row: of the row itself, or of a candle that the row completes or changes."""

    row: feed.Row
    series: Series
    seq: int
    step: int
    kind: Kind
    since: int
    until: int
    before: str | None
    """Of a revised minute what it was, as JSON."""
    evidence: str | None


class Feed:
    """The change feed from a place on; :class:`.ReadError` where it cannot be read, or not from there on."""

    def __init__(self, data_dir: str | Path, wanted: Wanted, after: str | None = None) -> None:
        """*after* is a cursor, ``"oldest"``, or ``None`` for what comes from now on."""
        place = None if after in (None, OLDEST) else Cursor.parse(after)
        self._path = Path(data_dir) / JOURNAL
        self._wanted = wanted
        self._accounts: dict[int, Account | None] = {}
        """Series by id; ``None`` for one that is not followed."""
        self._higher: dict[int, list[tuple[int, Series]]] = {}
        """By id of those that are followed, the lengths and series of the higher timeframes that are followed."""
        self._version: int | None = None
        """SQLite's count of the commits of others, when it was read last."""
        self._values = Values(Path(data_dir), self._snapshot)
        self._connect()
        try:
            with self._snapshot() as ledger:
                oldest, newest = ledger.told.ends()
                self.place = place or (newest if after is None else oldest)
                self._rows_from_here(ledger, 1)
                self._know_series(ledger)
                missing = wanted.unknown(account.series for account in ledger.accounts()) if self._accounts else []
                if missing:
                    venue, _, symbol = missing[0].partition(":")
                    ledger.find(venue, symbol)
                    raise UnknownSeries(f"{missing[0]!r} is not there")
        except BaseException:
            self.close()
            raise

    def _connect(self) -> None:
        try:
            self._identity = self._look()
            uri = f"{self._path.absolute().as_uri()}?mode=ro"
            # Whoever reads from changing threads never does so from two at once.
            self._db = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=5.0, check_same_thread=False)
        except (sqlite3.Error, OSError) as error:
            raise LedgerUnreadable(str(error), self._path) from error
        self._version = None
        self._accounts.clear()

    def _look(self) -> tuple[int, int]:
        """Which file the journal is."""
        self._looked = monotonic()
        try:
            found = os.stat(self._path)
        except (FileNotFoundError, NotADirectoryError):
            if not self._path.parent.is_dir():
                raise NoSuchDirectory(f"{self._path.parent}: no such directory") from None
            raise NoLedger(f"there is no {JOURNAL}; start the collector first", self._path.parent) from None
        return found.st_dev, found.st_ino

    def close(self) -> None:
        """Let go of the journal."""
        with suppress(sqlite3.Error):
            self._db.close()

    @contextmanager
    def _snapshot(self) -> Iterator[Ledger]:
        """One moment of the ledger."""
        try:
            self._db.execute("BEGIN")
            try:
                with senseless_values():
                    yield Ledger(self._db)
            finally:
                self._db.execute("ROLLBACK")
        except (sqlite3.Error, OSError) as error:
            raise LedgerUnreadable(str(error), self._path) from error

    # --- what comes next

    def changed(self) -> bool:
        """Whether there may be something to :meth:`read`; costs some 15 µs."""
        if monotonic() - self._looked >= IDENTITY_SECONDS and self._look() != self._identity:
            self.close()
            self._connect()
        if self._version is None:
            return True
        try:
            (version,) = self._db.execute("PRAGMA data_version").fetchone()
        except sqlite3.Error as error:
            raise LedgerUnreadable(str(error), self._path) from error
        return bool(version != self._version)

    def read(self, at_least: int = READ_AT_ONCE) -> list[Change]:
        """What comes next and is wanted, oldest first, of so many numbers of the feed or what there is; then the place
        is after all of these, and ``changed`` says whether there is more.
        """
        try:
            (version,) = self._db.execute("PRAGMA data_version").fetchone()
        except sqlite3.Error as error:
            raise LedgerUnreadable(str(error), self._path) from error
        with self._snapshot() as ledger:
            rows = self._rows_from_here(ledger, at_least)
            if any(row[2] not in self._accounts for row in rows):
                self._know_series(ledger)
            steps = [step for row in rows for step in self._steps(ledger, row)]
        changes = list(self._changes(steps))
        self._version = version
        if rows:
            self.place = ledger.told.after(rows[-1])
            if self.place.seq < self._newest:
                self._version = None
        return changes

    def _rows_from_here(self, ledger: Ledger, at_least: int) -> list[feed.Row]:
        """The rows that reach beyond the place, oldest first, checked; at most as many as have *at_least* numbers."""
        oldest, newest = ledger.told.ends()
        place, self._newest = self.place, newest.seq
        if place.epoch != newest.epoch or place.seq > newest.seq:
            raise CursorUnknown(str(place), str(oldest), str(newest))
        if place.seq < oldest.seq:
            raise CursorExpired(str(place), str(oldest), str(newest))
        rows: list[feed.Row] = []
        count = 0
        for row in ledger.told.rows_from(place.seq):
            if row[0] <= place.seq and check_of(row) != place.check:
                raise CursorUnknown(str(place), str(oldest), str(newest))
            end = last_seq(row[0], row[1], row[4])
            if end > place.seq or (end == place.seq and place.step < LAST_STEP):
                rows.append(row)
                count += end - row[0] + 1
                if count >= at_least:
                    break
        return rows

    def _know_series(self, ledger: Ledger) -> None:
        self._accounts = {one.id: one if self._wanted.has(one.series) else None for one in ledger.accounts()}
        higher = [one for one in self._wanted.timeframes if one.length > MINUTE]
        self._higher = {
            id_: [(one.length, attrs.evolve(account.series, timeframe=one.name)) for one in higher]
            for id_, account in self._accounts.items()
            if account is not None
        }

    # --- rows into changes

    def _steps(self, ledger: Ledger, row: feed.Row) -> Iterator[_Step]:
        """The wanted changes of *row* beyond the place, in their order."""
        account = self._accounts.get(row[2])
        if account is None:
            return
        seq, kind, _, since, minutes, _, _, detail, revision = row
        steps: list[_Step] = []
        event = _KINDS[kind]
        if kind not in RUNS:
            if kind in self._wanted.events:
                until = since + minutes * MINUTE
                evidence = _evidence(ledger, account, since) if kind == Kind.EMPTY else detail
                steps.append(_Step(row, account.series, seq, FIRST_STEP, event, since, until, None, evidence))
        elif kind in self._wanted.events and self._wanted.has_minutes:
            before = ledger.told.replaced(revision) if revision is not None else None
            for number in range(minutes):
                at = since + number * MINUTE
                steps.append(_Step(row, account.series, seq + number, FIRST_STEP, event, at, at + MINUTE, before, None))
        for length, series in self._higher[row[2]]:
            for one in derived(row, length):
                if one.kind in self._wanted.events:
                    step, end = step_of(length, one.side), one.open + length
                    steps.append(_Step(row, series, one.seq, step, one.kind, one.open, end, None, None))
        if len(steps) > 1:
            steps.sort(key=lambda step: (step.seq, step.step))
        place = self.place.seq, self.place.step
        yield from (step for step in steps if (step.seq, step.step) > place)

    def _changes(self, steps: Sequence[_Step]) -> Iterator[Change]:
        needed: dict[tuple[int, int], Needed] = {}
        for step in steps:
            if step.kind in RUNS:
                account = self._accounts[step.row[2]]
                assert account is not None
                key = step.row[2], step.since // DAY
                one = needed.get(key)
                if one is None:
                    one = needed[key] = Needed(account, step.since, step.until)
                one.add(step.since, step.until)
                if step.kind is Kind.REVISED and step.until - step.since > MINUTE:
                    one.undo_after(step.row[0])
        values = dict(zip(needed, self._values.read(list(needed.values())), strict=True))
        for step in steps:
            yield self._change(step, values.get((step.row[2], step.since // DAY)))

    def _change(self, step: _Step, values: DayOfValues | None) -> Change:
        candle = before = None
        reason, evidence = None, step.evidence
        if step.kind is Kind.GAP and evidence is not None:
            reason, _, detail = evidence.partition(": ")
            evidence = detail or None
        elif step.kind in RUNS and step.until - step.since == MINUTE:
            assert values is not None
            candle = _document(values.rows.get(step.since))
            if step.before is not None:
                kept = kept_from_json(step.before)
                before = kept if isinstance(kept, CandleDocument) else None
        elif step.kind in RUNS:
            assert values is not None
            candle = _folded(step, values.rows, values.unknown)
            if step.kind is Kind.REVISED:
                before = _before(step, values)
        series = step.series
        return Change(
            f"{self.place.epoch}-{step.seq}.{step.step}-{check_of(step.row)}", _EVENTS[step.kind], series.venue,
            series.symbol, series.timeframe, step.since, step.until, step.row[5], candle, before,
            None if candle is None else candle.source.value, reason, evidence,
        )  # fmt: skip


def _evidence(ledger: Ledger, account: Account, minute: int) -> str | None:
    """By what *minute* is known to be empty; ``None`` if that is not what it is any more."""
    found = ledger.empties(account, minute, minute + MINUTE)
    return found[0][2] if found else None


def _document(row: Row | None) -> CandleDocument | None:
    if row is None:
        return None
    o, h, low, c, volume, quote, vwap, count, source, ingest = row
    return CandleDocument(o, h, low, c, volume, quote, vwap, count, _SOURCES[source], ingest)


def _folded(step: _Step, rows: dict[int, Row], unknown: Sequence[tuple[int, int]]) -> CandleDocument | None:
    """The candle of *step* as its minutes are; ``None`` if one of them is not known, or none is a candle."""
    times = [time for time in range(step.since, step.until, MINUTE) if time in rows]
    if not times or any(low < step.until and high > step.since for low, high in unknown):
        return None
    o, h, low, c, volume, quote, _, count, _, ingest = zip(*(rows[time] for time in times), strict=True)
    day = DayOfMinutes(times, o, h, low, c, volume, quote, count, ingest)
    return CandleDocument.of(day.fold(step.series, Millis(step.since), Millis(step.until)))


def _before(step: _Step, values: DayOfValues) -> CandleDocument | None:
    """The revised candle of *step* as it was before: as it is now, with its replacement and all later ones undone."""
    rows = dict(values.rows)
    for seq, minute, stored in sorted(values.revisions, reverse=True):
        if seq >= step.row[0]:
            kept = kept_from_json(stored)
            if isinstance(kept, CandleDocument):
                rows[minute] = attrs.astuple(kept)
            else:
                rows.pop(minute, None)
    return _folded(step, rows, values.unknown)
