"""The change feed is written: rows of :mod:`.feed`, in the transaction of the verdicts that they tell of.

Works inside the journal's transactions, on its connection.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence

from trio_candles.candles.model import DAY, MINUTE, Millis, floor_to
from trio_candles.store.entries import Entry
from trio_candles.store.feed import DENSE, RUNS, WHOLE, Around, Kind, Row, last_seq

__all__ = ["PRUNED_AT_ONCE", "Changes"]

PRUNED_AT_ONCE = 20_000
"""Rows that one transaction lets go of, at most: some 20 ms."""

Known = tuple[Kind, int, int]
"""What minutes ``[since, until)`` have become: closed, filled, empty or unlisted."""


class Changes:
    """The table ``change`` of an open journal."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._db = database
        self._rows: list[Row] = []
        """Of the transaction that runs, not yet in the table."""
        self._next: int | None = None
        self._run_begins: dict[int, int] = {}
        """By series id: where the known minutes that end at the mark begin, or the day in which that was looked up."""
        self._filled_until: dict[int, int] = {}
        """By series id: the end of the newest minute that was reported as filled; 0 for none on that day."""

    def write(self) -> None:
        """Put into the table what was told; called before the commit."""
        if self._rows:
            self._db.executemany("INSERT INTO change VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", self._rows)
            self._rows.clear()

    def undo(self) -> None:
        """The transaction failed: nothing was told, and no number is taken."""
        self._rows.clear()
        self._next = None
        self._run_begins.clear()
        self._filled_until.clear()

    def gaps_changed(self, entry: Entry) -> None:
        """The gaps of the series, or its first minute, have changed."""
        self._run_begins.pop(entry.id, None)

    def forget_old(self, before: int, most: int, count: int = PRUNED_AT_ONCE) -> bool:
        """Let go of what was committed earlier than *before*, and of the oldest beyond *most* changes: at most *count*
        rows; returns whether there may be more. The newest row of these stays, so that a cursor can be checked that
        has everything up to there.
        """
        newest = self._db.execute(f"SELECT {_PLACE} FROM change ORDER BY seq DESC LIMIT 1").fetchone()
        anchor, rows = None, 0
        for seq, kind, minutes, at in self._db.execute(
            "SELECT seq, kind, minutes, at_ms FROM change ORDER BY seq LIMIT ?", (count,)
        ):
            if at >= before and last_seq(*newest) - last_seq(seq, kind, minutes) < most:
                break
            anchor, rows = seq, rows + 1
        if rows > 1:
            self._db.execute("DELETE FROM change WHERE seq < ?", (anchor,))
        return rows == count

    # --- what is told

    def known(self, entry: Entry, spans: Sequence[Known], now: Millis, detail: str | None = None) -> None:
        """Minutes that were not known are known now; *spans* are ascending and disjoint, and in the ledger already."""
        if len(spans) == 1 and self._is_dense(entry, *spans[0]):
            kind, since, until = spans[0]
            self._tell(kind, entry, since, until, now)
            return
        pieces = [piece for span in spans for piece in _by_day(*span)]
        end = run = candle = filled = 0
        for index, (kind, since, until) in enumerate(pieces):
            if since != end:
                run, filled = self._run_begin(entry, since, until), self._filled_before(entry, since, until)
                candle = -1
            if candle < 0 and kind not in RUNS:
                candle = self._candle_before(entry, since, run)
            later = pieces[index + 1][1] if index + 1 < len(pieces) else entry.mark
            around = self._around(entry, pieces[index], run, candle, filled, later)
            self._tell(kind, entry, since, until, now, around, detail)
            end = until
            if kind in RUNS:
                candle = until
            if kind is Kind.FILLED:
                filled = until
                if entry.id in self._filled_until:
                    self._filled_until[entry.id] = max(self._filled_until[entry.id], until)

    def _is_dense(self, entry: Entry, kind: Kind, since: int, until: int) -> bool:
        """Whether this is the newest minute's candle, and it is remembered that all of its day before is known and that
        nothing of the day was filled: so it is nearly always.
        """
        day = since - since % DAY
        return (
            kind is Kind.CLOSED
            and until == entry.mark
            and self._run_begins.get(entry.id, until) <= day
            and self._filled_until.get(entry.id, until) <= day
        )

    def revised(self, entry: Entry, minute: Millis, now: Millis, revision: int) -> None:
        """What was stored of *minute*, or its emptiness, was replaced; *revision* has what it was."""
        span = (Kind.REVISED, minute, minute + MINUTE)
        around = self._around(entry, span, self._run_begin(entry, *span[1:]), 0, 0, entry.mark)
        self._tell(Kind.REVISED, entry, minute, minute + MINUTE, now, around, revision=revision)

    def unknown(self, kind: Kind, entry: Entry, since: int, until: int, now: Millis, detail: str) -> None:
        """``[since, until)`` is a gap, or unfillable, because of *detail*."""
        self._tell(kind, entry, since, until, now, detail=detail)

    def _tell(
        self,
        kind: Kind,
        entry: Entry,
        since: int,
        until: int,
        now: Millis,
        around: Around = DENSE,
        detail: str | None = None,
        revision: int | None = None,
    ) -> None:
        if self._next is None:
            newest = self._db.execute(f"SELECT {_PLACE} FROM change ORDER BY seq DESC LIMIT 1").fetchone()
            self._next = 1 if newest is None else last_seq(*newest) + 1
        seq, minutes = self._next, (until - since) // MINUTE
        text = None if around is DENSE else str(around)
        self._rows.append((seq, kind.value, entry.id, since, minutes, now, text, detail, revision))
        self._next = last_seq(seq, kind, minutes) + 1

    # --- what is known around

    def _around(self, entry: Entry, piece: Known, run: int, candle: int, filled: int, later: int) -> Around:
        """What is known around *piece*: before it from *run* on, where the last candle ends at *candle* and the last
        filled minute at *filled*; and after it up to *later* at most.
        """
        kind, since, until = piece
        low, high = floor_to(Millis(since), DAY), floor_to(Millis(until - 1), DAY) + DAY
        reach = self._run_end(entry, until, min(later, high))
        around = Around(
            WHOLE if run <= low or kind is Kind.UNLISTED else (since - run) // MINUTE,
            (reach - until) // MINUTE,
            (since - candle) // MINUTE + 1 if kind not in RUNS and candle > max(run, low) else 0,
            self._candle_after(entry, until, reach) if kind not in RUNS and reach > until else 0,
            (since - filled) // MINUTE + 1 if kind is not Kind.FILLED and filled > max(run, low) else 0,
            self._filled_after(entry, until, reach) if kind is not Kind.FILLED and reach > until else 0,
        )
        return DENSE if around == DENSE else around

    def _run_begin(self, entry: Entry, since: int, until: int) -> int:
        """Where the known minutes that end at *since* begin, or an earlier time on the same day."""
        day = floor_to(Millis(since), DAY)
        if until == entry.mark and entry.id in self._run_begins:
            return self._run_begins[entry.id]
        row = self._db.execute(
            "SELECT until_ms FROM gap WHERE series_id = ? AND since_ms < ? ORDER BY since_ms DESC LIMIT 1",
            (entry.id, since),
        ).fetchone()
        begin = max(day, 0 if row is None else row[0])
        if begin < entry.first and not self._begins_with_listing(entry):
            begin = entry.first
        if until == entry.mark:
            self._run_begins[entry.id] = begin
        return begin

    def _begins_with_listing(self, entry: Entry) -> bool:
        """Whether the market began at the first expected minute: then no minute before is unknown."""
        row = self._db.execute("SELECT since_ms FROM listing WHERE series_id = ?", (entry.id,)).fetchone()
        return row is not None and row[0] >= entry.first

    def _run_end(self, entry: Entry, until: int, limit: int) -> int:
        """Where the known minutes that begin at *until* end, or *limit*."""
        if limit <= until:
            return until
        row = self._db.execute(
            "SELECT since_ms FROM gap WHERE series_id = ? AND since_ms >= ? ORDER BY since_ms LIMIT 1",
            (entry.id, until),
        ).fetchone()
        return limit if row is None else min(limit, row[0])

    def _candle_before(self, entry: Entry, since: int, run: int) -> int:
        """The end of the last candle before *since*, or 0 if there is none from *run* on."""
        if entry.last_candle is None:
            return 0
        if entry.last_candle < since:
            return entry.last_candle + MINUTE
        at = since
        while at > max(run, entry.first):
            row = self._db.execute(
                "SELECT since_ms, until_ms FROM empty WHERE series_id = ? AND since_ms < ?"
                " ORDER BY since_ms DESC LIMIT 1",
                (entry.id, at),
            ).fetchone()
            if row is None or row[1] < at:
                return at
            at = row[0]
        return 0

    def _candle_after(self, entry: Entry, until: int, reach: int) -> int:
        """How many minutes after *until* the next candle ends; 0 if there is none before *reach*."""
        at = until
        while at < reach:
            row = self._db.execute(
                "SELECT until_ms FROM empty WHERE series_id = ? AND since_ms <= ? ORDER BY since_ms DESC LIMIT 1",
                (entry.id, at),
            ).fetchone()
            if row is None or row[0] <= at:
                return (at - until) // MINUTE + 1
            at = row[0]
        return 0

    def _filled_before(self, entry: Entry, since: int, until: int) -> int:
        """The end of the last minute before *since* on the same day that was reported as filled; 0 if there is none."""
        if until == entry.mark and entry.id in self._filled_until:
            return self._filled_until[entry.id]
        self.write()
        (end,) = self._db.execute(
            f"SELECT coalesce(max(since_ms + minutes * {MINUTE}), 0) {_FILLED} AND since_ms >= ? AND since_ms < ?",
            (entry.id, floor_to(Millis(since), DAY), since),
        ).fetchone()
        if until == entry.mark:
            self._filled_until[entry.id] = end
        return int(end)

    def _filled_after(self, entry: Entry, until: int, reach: int) -> int:
        """How many minutes after *until* the next minute ends that was reported as filled; 0 for none in *reach*."""
        self.write()
        (begin,) = self._db.execute(
            f"SELECT min(since_ms) {_FILLED} AND since_ms >= ? AND since_ms < ?", (entry.id, until, reach)
        ).fetchone()
        return 0 if begin is None else (begin - until) // MINUTE + 1


_PLACE = "seq, kind, minutes"
_FILLED = (
    "FROM change INDEXED BY change_told"
    f" WHERE kind IN ({Kind.FILLED:d}, {Kind.REVISED:d}) AND kind = {Kind.FILLED:d} AND series_id = ?"
)


def _by_day(kind: Kind, since: int, until: int) -> Iterator[Known]:
    """A run of candles by UTC day, whose values lie in one file each; a span of another kind as it is."""
    if kind not in RUNS:
        yield kind, since, until
        return
    while since < until:
        end = min(until, floor_to(Millis(since), DAY) + DAY)
        yield kind, since, end
        since = end
