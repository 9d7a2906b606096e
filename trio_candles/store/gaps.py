"""The ledger's gaps: opened, closed, asked about, given up; and the history of each.

When REST may be asked about a gap again is kept with the gap, in the transaction that records the attempt::

                     ┌──────────────── closed: a candle, empty, before the listing
                     │
    opened ──────▶  due  ──── asked in vain ────▶  waits  ──── absent twice, 10 min apart ────▶ unfillable
                   ▲ ▲ │                             │
                   │ │ └ the venue was not well      │
                   │ └───────────────────────────────┘ not_before_ms has come

A gap is *due* if its ``not_before_ms`` is not ahead of the clock. A gap that is longer than a question reaches is asked
about piece by piece, newest first, before it waits: ``rest_since_ms`` to ``rest_until_ms`` is what is left to ask.
(After a few pieces in vain each further piece waits, too: a closed market has a long gap without anything in it.) A
gap that grows while it waits goes on waiting: else every minute of a closed market would be a question. The wait
doubles with the attempts (:func:`wait_after`). A question that failed because the venue was not well lets no gap wait:
the asking task backs off by itself, and the gaps are due once the venue is well. So a new start can keep the waits:
none is longer than ten minutes, and while the way to a venue is broken none begins.

Invariant: each expected series with a due gap has a page to ask for, whatever other gaps there are.

Works inside the journal's transactions, on its connection; spans are whole minutes, which the journal has checked.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Collection
from typing import NamedTuple

import attrs

from trio_candles.candles.intervals import Interval, clip, length, subtract
from trio_candles.candles.model import MINUTE, Attempt, Millis, Reason, Series, Unsure, floor_to
from trio_candles.store.accounts import GAP, UNFILLABLE
from trio_candles.store.changes import Changes
from trio_candles.store.entries import Entries, Entry
from trio_candles.store.feed import Kind
from trio_candles.store.history import ABSENT_EVENTS, SPACED, GapHistory
from trio_candles.store.opening import NotAsWritten
from trio_candles.store.sealed import Sealed
from trio_candles.store.spans import touching
from trio_candles.store.words import is_damaged
from trio_candles.venues.history import History

__all__ = ["LONGEST_WAIT", "OLD_ENOUGH", "PATIENT", "SPACED", "YOUNG", "Due", "Gaps", "wait_after"]

STATES = ("open", "unfillable")
WORTH_TELLING = Millis(5 * MINUTE)
"""A minute that was a gap for fewer ms after its end has no history: of a quiet pair, each minute is one."""
OLD_ENOUGH = Millis(60 * MINUTE)
"""An absence is noted only of minutes that ended this many ms ago: a record may be late (OKX's history is)."""
AWAITED = frozenset({Reason.UNPROVEN, Reason.NO_CLOSE})
"""Nothing is wrong with such a minute but that the proof has not come yet: the change feed has it as a gap only once
that is worth telling."""

FIRST_WAIT, LONGEST_WAIT = Millis(30_000), Millis(600_000)
"""Ms until a gap that an answer did not close is asked about again: doubled each time, up to the longest."""
LONGEST_WAIT_WHILE_YOUNG, YOUNG = Millis(120_000), Millis(60 * MINUTE)
"""The longest wait of a gap that ended less than ``YOUNG`` ms ago: no minute is to stay open longer than five minutes
while the venue answers, and the first of the five passes before the minute may be asked about."""
PATIENT = Millis(150_000)
"""A gap whose first minute ended less than this many ms ago lets an older gap of its series go first that no page can
hold with it: else a thin pair, whose every minute is a gap, would never be asked about an older day."""
PIECES_AT_ONCE = 4
"""How many pieces of a long gap are asked about at once; after these, in vain, each further piece waits as well, as
long as a young gap does at most."""
LOOKED_AT = 8
"""How many due gaps of one series a look reads, nearly always all. Of thousands, the newest and the oldest will do."""


@attrs.frozen
class Due:
    """The page of *series* to ask for next: the newest part of a due gap, and older due gaps that fit into the page."""

    series: Series
    since: Millis
    until: Millis
    fresh: bool
    """Whether the newest gap was never asked about."""
    tried: bool
    """Whether any due gap of the page was asked about in vain."""


class _Row(NamedTuple):
    id: int
    since: int
    until: int
    state: str
    attempts: int
    not_before: int
    rest_since: int | None
    rest_until: int | None
    seen: int
    reason: str
    detail: str
    reported: int

    @property
    def why(self) -> str:
        """The reason, and its detail if there is one."""
        return f"{self.reason}: {self.detail}" if self.detail else self.reason

    @property
    def rest(self) -> Interval:
        """What is left to ask before the gap waits."""
        if self.rest_since is None or self.rest_until is None:
            return self.since, self.until
        return self.rest_since, self.rest_until

    def is_due(self, now: Millis) -> bool:
        """Whether the gap waits no more; one that waits beyond the longest wait is due, for the clock was set back."""
        return not now < self.not_before <= now + LONGEST_WAIT


_ROW = (
    "id, since_ms, until_ms, state, attempts, not_before_ms, rest_since_ms, rest_until_ms, first_seen_ms, reason,"
    " detail, reported_ms"
)


def wait_after(attempts: int, until: int, now: Millis) -> Millis:
    """How many ms a gap that ended at *until* waits after so many *attempts* in vain."""
    longest = LONGEST_WAIT_WHILE_YOUNG if until > now - YOUNG else LONGEST_WAIT
    return Millis(min(FIRST_WAIT << min(attempts - 1, 10), longest))


class Gaps:
    """The table ``gap`` of an open journal."""

    def __init__(self, database: sqlite3.Connection, entries: Entries, sealed: Sealed, changes: Changes) -> None:
        self._db = database
        self._entries = entries
        self._sealed = sealed
        self._changes = changes
        self.history = GapHistory(database)

    # --- what there is

    def read_through(self) -> None:
        """Read every value that the collector goes by; ``ValueError`` where one makes no sense.

        A reason that is a newer version's is kept as it is. A state that is one means what nobody here knows:
        :class:`NotAsWritten`.
        """
        for state, reason in self._db.execute("SELECT DISTINCT state, reason FROM gap"):
            if is_damaged(state, STATES) or is_damaged(reason, Reason):
                raise ValueError(f"a gap is {state!r}, for {reason!r}")
            if state not in STATES:
                raise NotAsWritten(f"the journal calls a gap {state!r}, which only another version understands; use it")
        whole = " AND ".join(f"{column} % {MINUTE} = 0" for column in ("rest_since_ms", "rest_until_ms"))
        odd = self._db.execute(
            "SELECT attempts, not_before_ms, rest_since_ms, rest_until_ms FROM gap"
            " WHERE typeof(attempts) != 'integer' OR typeof(not_before_ms) != 'integer'"
            " OR (rest_since_ms, rest_until_ms) IS NOT (NULL, NULL) AND (since_ms <= rest_since_ms"
            f" AND rest_since_ms < rest_until_ms AND rest_until_ms <= until_ms AND {whole}) IS NOT 1"
        ).fetchone()
        if odd is not None:
            raise ValueError(f"when a gap may be asked about again is {odd}")

    def open_minutes(self, now: Millis) -> Counter[str]:
        """Minutes in open gaps of expected series, by venue. Only minutes that have ended at *now* are counted: the
        clock may have been ahead.
        """
        minutes: Counter[str] = Counter()
        for series, entry in self._entries.items():
            if entry.expected and entry.in_gaps:
                ahead = self._open_since(entry, floor_to(now, MINUTE)) if entry.mark > now else 0
                minutes[series.venue] += (entry.in_gaps - ahead) // MINUTE
        return minutes

    def _open_since(self, entry: Entry, since: int) -> int:
        """How many ms of *entry* from *since* on are in open gaps."""
        spans = [(row.since, row.until) for row in self._touching(entry, since, entry.mark) if row.state == "open"]
        return length(clip(spans, since, entry.mark))

    def within(self, entry: Entry, since: Millis, until: Millis) -> list[Interval]:
        """The parts of ``[since, until)`` that are gaps, open or unfillable, oldest first."""
        gaps = [(row.since, row.until) for row in self._touching(entry, since, until)]
        return list(clip(sorted(gaps + self._sealed.spans(entry, since, until, GAP + UNFILLABLE)), since, until))

    def _touching(self, entry: Entry, since: int, until: int) -> list[_Row]:
        return self._rows(f"WHERE {touching('gap')} ORDER BY since_ms", id=entry.id, since=since, until=until)

    def _rows(self, condition: str, **values: int) -> list[_Row]:
        return [_Row._make(row) for row in self._db.execute(f"SELECT {_ROW} FROM gap {condition}", values)]

    # --- opened and closed

    def open(self, entry: Entry, unsure: Unsure, now: Millis) -> None:
        """Make the span of *unsure* a gap; an open gap before it of the same reason grows instead, if the two touch.

        The change feed has the gap at once, or, while it is merely unproven, once it is worth telling
        (:meth:`report`). The history has at once what is worth telling by now (an outage). A gap grows only if what the
        history has of it stays as its ``first_seen_ms`` says: of minutes worth telling by then, and no others
        (:meth:`_tell`).
        """
        since, until = unsure.since, unsure.until
        if since >= until:
            return
        self._entries.count_in_gaps(entry, until - since)
        self._changes.gaps_changed(entry)
        reason, detail = unsure.reason.value, unsure.detail
        text = f"{reason}: {detail}" if detail else reason
        reported = since if reason in AWAITED else until
        if reported == until:
            self._changes.unknown(Kind.GAP, entry, since, until, now, text)
        before = self._db.execute(
            "SELECT until_ms, state, reason, detail, id, first_seen_ms FROM gap WHERE series_id = ? AND since_ms < ?"
            " ORDER BY since_ms DESC LIMIT 1",
            (entry.id, since),
        ).fetchone()
        grows = before is not None and before[:4] == (since, "open", reason, detail)
        told = min(until, _worth_telling(now))
        if since < told:
            grows = grows and until <= _worth_telling(before[5])
            if not (grows and self.history.extend(entry.id, since, until, text)):
                self.history.add(entry.id, since, told, "opened", text, now)
        if grows:
            self._db.execute(
                "UPDATE gap SET until_ms = ?, reported_ms = iif(?, ?, reported_ms) WHERE id = ?",
                (until, reported == until, until, before[4]),
            )
            return
        self._db.execute(
            "INSERT INTO gap (series_id, since_ms, until_ms, state, reason, detail, first_seen_ms, attempts,"
            " reported_ms) VALUES (?, ?, ?, 'open', ?, ?, ?, 0, ?)",
            (entry.id, since, until, reason, detail, now, reported),
        )

    def report(self, now: Millis) -> None:
        """Put into the change feed what is worth telling by now of the open gaps that were merely unproven."""
        rows = self._db.execute(
            f"SELECT series_id, {_ROW} FROM gap INDEXED BY gap_unreported"
            " WHERE reported_ms < until_ms AND reported_ms < :end AND since_ms < :end AND state = 'open'"
            " ORDER BY since_ms",
            {"end": _worth_telling(now)},
        ).fetchall()
        for id_, *values in rows:
            row = _Row._make(values)
            since, until = max(row.since, row.reported), min(row.until, _worth_telling(now))
            if since < until:
                entry = self._entries[self._entries.series(id_)]
                self._changes.unknown(Kind.GAP, entry, since, until, now, row.why)
                self._db.execute("UPDATE gap SET reported_ms = ? WHERE id = ?", (until, row.id))

    def is_unreported(self, entry: Entry, minute: int) -> bool:
        """Whether *minute* is in a gap that the change feed does not have yet."""
        row = self._db.execute(
            "SELECT until_ms, reported_ms FROM gap WHERE series_id = ? AND since_ms <= ?"
            " ORDER BY since_ms DESC LIMIT 1",
            (entry.id, minute),
        ).fetchone()
        return row is not None and row[1] <= minute < row[0]

    def close(self, entry: Entry, since: int, until: int, event: str, detail: str, now: Millis) -> list[Interval]:
        """Take ``[since, until)`` out of the gaps; return the spans that were gaps, oldest first. The history has what
        was a gap for long enough.
        """
        self._sealed.open(entry, since, until, only=GAP + UNFILLABLE)
        for row in self._touching(entry, since, until):
            low, high = max(row.since, since), min(row.until, until, self._tell(entry, row, since, until, now))
            if low < high:
                self.history.add(entry.id, low, high, event, detail, now)
        return self.forget(entry, since, until, now)

    def _tell(self, entry: Entry, row: _Row, since: int, until: int, now: Millis) -> int:
        """Put into the history that the minutes of *row* in ``[since, until)`` were opened, unless they are no open gap
        any more, or the history has it (see :meth:`open`). Returns the end of what is worth telling.
        """
        end = _worth_telling(max(now, row.seen))  # the clock may have been set back
        low, high = max(row.since, since, _worth_telling(row.seen)), min(row.until, until, end)
        if low < high and row.state == "open":
            at = Millis(max(row.seen, low + MINUTE))
            self.history.add(entry.id, low, high, "opened", row.why, at)
        return end

    def forget(self, entry: Entry, since: int, until: int, now: Millis) -> list[Interval]:
        """As :meth:`close`, without a word in the history."""
        self._sealed.open(entry, since, until, only=GAP + UNFILLABLE)
        self._changes.gaps_changed(entry)
        forgotten = []
        for row in self._touching(entry, since, until):
            low, high = max(row.since, since), min(row.until, until)
            forgotten.append((low, high))
            self._cut(row, low, high, now)
            self._db.execute("DELETE FROM gap WHERE id = ?", (row.id,))
            if row.state == "open":
                self._entries.count_in_gaps(entry, low - high)
        return forgotten

    def _cut(self, row: _Row, low: int, high: int, now: Millis) -> None:
        """Shrink the gap *row* to ``[low, high)``, and make its parts outside gaps of their own."""
        self._db.execute(
            "UPDATE gap SET since_ms = ?, until_ms = ?, rest_since_ms = NULL, rest_until_ms = NULL WHERE id = ?",
            (low, high, row.id),
        )
        for begin, end in subtract([(row.since, row.until)], [(low, high)]):
            not_before, rest = row.not_before, next(clip([row.rest], begin, end), None)
            if rest is None:  # the whole of this piece was asked about in vain
                not_before = now + wait_after(row.attempts, end, now)
            part = (None, None) if rest in (None, (begin, end)) else rest
            self._db.execute(
                "INSERT INTO gap (series_id, since_ms, until_ms, state, reason, detail, first_seen_ms, attempts,"
                " last_error, not_before_ms, rest_since_ms, rest_until_ms, reported_ms) SELECT series_id, ?, ?, state,"
                " reason, detail, first_seen_ms, attempts, last_error, ?, ?, ?, ? FROM gap WHERE id = ?",
                (begin, end, not_before, *part, min(row.reported, end), row.id),
            )

    # --- asked about

    def due(self, history: History, now: Millis, only: Collection[Series] | None = None) -> dict[Series, Due]:
        """The page to ask for now, of each expected series of *history*'s venue that has a due gap; if *only* is given,
        of those series only.

        Costs a search in an index for each series, and a few more for each with a due gap, however many gaps there are.
        """

        def newest(since: int, until: int) -> tuple[Millis, Millis] | None:
            return next(iter(history.windows(Millis(since), Millis(until), now)), None)

        found = {}
        for series, entry in self._entries.expected(history.name, only):
            if entry.in_gaps:
                page = self._page(series, entry, newest, now)
                if page is not None:
                    found[series] = page
        return found

    def _page(
        self, series: Series, entry: Entry, newest: Callable[[int, int], tuple[Millis, Millis] | None], now: Millis
    ) -> Due | None:
        far = now + LONGEST_WAIT
        rows: list[_Row] = []
        for due in ("not_before_ms <= :now", "not_before_ms > :far"):
            rows += self._rows(
                f"INDEXED BY gap_due WHERE series_id = :id AND state = 'open' AND {due} AND since_ms < :now"
                f" LIMIT {LOOKED_AT}",
                id=entry.id, now=now, far=far,
            )  # fmt: skip
        due = "state = 'open' AND (not_before_ms <= :now OR not_before_ms > :far)"
        many = len(rows) >= LOOKED_AT
        if many:  # gap_due gave any of them; gap_span gives the newest
            rows = self._rows(
                f"INDEXED BY gap_span WHERE series_id = :id AND {due} AND since_ms < :now"
                f" ORDER BY since_ms DESC LIMIT {LOOKED_AT}",
                id=entry.id, now=now, far=far,
            )  # fmt: skip
        rows.sort(key=lambda row: row.since, reverse=True)
        found = [(row, page) for row in rows if (page := newest(*row.rest)) is not None]
        if not found:
            return None
        row, (since, until) = found[0]
        lowest, _ = newest(0, until) or found[0][1]
        if row.since + MINUTE > now - PATIENT:
            row, (since, until) = next((older for older in found if older[0].rest[1] <= lowest), found[0])
            lowest, _ = newest(0, until) or (since, until)
        if many:
            rows += self._rows(
                f"INDEXED BY gap_span WHERE {touching('gap')} AND {due} ORDER BY since_ms LIMIT 1",
                id=entry.id, since=lowest, until=until, now=now, far=far,
            )  # fmt: skip
        fitting = [row for row in rows if row.rest[0] < until and row.rest[1] > lowest]
        # The page reaches back to its oldest due gap, and not to one that waits: a venue that is asked about the oldest
        # gaps first would never come to the others.
        begin = max(lowest, min([since, *(row.rest[0] for row in fitting)]))
        return Due(series, Millis(begin), until, not row.attempts, any(row.attempts for row in fitting))

    def attempted(self, entry: Entry, attempt: Attempt, now: Millis) -> None:
        """Count *attempt* for the open gaps that it touches, and let them wait; minutes whose absence was observed
        before, at least :data:`SPACED` ago, become unfillable.
        """
        for row in self._touching(entry, attempt.since, attempt.until):
            if row.state == "open":
                not_before, rest = row.not_before, (row.rest_since, row.rest_until)
                if not attempt.unwell:
                    not_before, rest = self._waiting(row, attempt, now)
                self._db.execute(
                    "UPDATE gap SET attempts = attempts + 1, last_error = ?, not_before_ms = ?, rest_since_ms = ?,"
                    " rest_until_ms = ? WHERE id = ?",
                    (attempt.error, not_before, *rest, row.id),
                )
        if attempt.absent:
            until = min(attempt.until, Millis(floor_to(now, MINUTE) - OLD_ENOUGH))
            if attempt.since < until:
                self._observed_absent(entry, attempt.since, until, attempt.error, now)

    def _waiting(self, row: _Row, attempt: Attempt, now: Millis) -> tuple[int, tuple[int | None, int | None]]:
        """``not_before_ms`` and what is left to ask of *row* after *attempt* in vain.

        A part newer than the attempt is left to ask only if it ended :data:`YOUNG` ago: a younger end may still grow.
        """
        left = [
            (since, until)
            for since, until in subtract([row.rest], [(attempt.since, attempt.until)])
            if since < attempt.since or until <= now - YOUNG
        ]
        if left and row.is_due(now):
            beyond = row.attempts + 2 - PIECES_AT_ONCE
            return (now + wait_after(beyond, now, now) if beyond > 0 else 0), left[-1]
        return now + wait_after(row.attempts + 1, row.until, now), (None, None)

    def _observed_absent(self, entry: Entry, since: Millis, until: Millis, error: str, now: Millis) -> None:
        rows = [row for row in self._touching(entry, since, until) if row.state == "open"]
        # Only minutes without an absent event get one, so these events are disjoint.
        earlier = self._db.execute(
            "SELECT max(since_ms, :since), min(until_ms, :until), at_ms, detail FROM gap_event INDEXED BY"
            f" gap_event_absent WHERE {touching('gap_event', ABSENT_EVENTS)} ORDER BY since_ms",
            {"id": entry.id, "since": since, "until": until},
        ).fetchall()
        for low, high, at, before in earlier:
            if at <= now - SPACED:
                self._give_up(entry, low, high, f"{before} (at {at}); {error} (at {now})", now)
        gaps = clip([(row.since, row.until) for row in rows], since, until)
        for low, high in subtract(gaps, [(low, high) for low, high, _, _ in earlier]):
            self.history.add(entry.id, low, high, "absent", error, now)

    def _give_up(self, entry: Entry, since: Millis, until: Millis, evidence: str, now: Millis) -> None:
        """The open gaps in ``[since, until)`` are unfillable."""
        for row in self._touching(entry, since, until):
            if row.state == "open":
                low, high = max(row.since, since), min(row.until, until)
                self._tell(entry, row, low, high, now)
                self._cut(row, low, high, now)
                self._db.execute(
                    "UPDATE gap SET state = 'unfillable', last_error = ?, reported_ms = until_ms WHERE id = ?",
                    (evidence, row.id),
                )
                self._changes.unknown(Kind.UNFILLABLE, entry, low, high, now, evidence)
                self.history.add(entry.id, low, high, "unfillable", evidence, now)
                self._entries.count_in_gaps(entry, low - high)


def _worth_telling(now: int) -> int:
    """The end of the minutes that a gap is old enough for, at *now*."""
    return floor_to(Millis(now - WORTH_TELLING), MINUTE)
