"""What a verdict or a finding changes in the ledger.

Invariant: every minute of a series from ``first`` to its mark is exactly one of stored, empty, and gap (open or
unfillable); the mark never goes back (but once, where :mod:`.mending` drops what has not happened). What a minute
becomes, by what it is::

    offered                 at the mark        gap           stored                    empty
    a candle of the feed    stored             stored        duplicate, or conflict    conflict
    a candle of a page      -                  stored        agreed, differed, or      differed, or
                                                             replaced                  replaced
    Empty                   empty              empty         -                         -
    Unsure                  gap                -             -                         -
    Attempt                 -                  waits, or     -                         -
                                               unfillable

(-: nothing changes.) A conflict or a difference is kept as a revision (see :mod:`.revisions`); how a gap waits is in
:mod:`.gaps`. Before ``first`` a candle of the feed is out of order. A verdict that begins beyond the mark would
leave a hole: :class:`LedgerBroken`.

Judges inside the journal's transactions, on its connection.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

import attrs

from trio_candles.candles import intervals
from trio_candles.candles.documents import CandleDocument, EmptyDocument
from trio_candles.candles.model import (
    DAY,
    MINUTE,
    Attempt,
    Candle,
    Empty,
    Finding,
    Millis,
    Page,
    Reason,
    Series,
    Source,
    Unsure,
    Verdict,
    floor_to,
)
from trio_candles.candles.validation import Rule, broken_rule
from trio_candles.store.accounts import EMPTY, GAP, UNFILLABLE
from trio_candles.store.changes import Changes
from trio_candles.store.entries import Entries, Entry
from trio_candles.store.feed import Kind
from trio_candles.store.gaps import Gaps
from trio_candles.store.opening import NotAsWritten
from trio_candles.store.revisions import Revisions
from trio_candles.store.samples import Samples
from trio_candles.store.schema import candle_checksum
from trio_candles.store.sealed import Sealed
from trio_candles.store.spans import add_empty, cut_empty, touching
from trio_candles.store.underived import Underived

__all__ = ["CANDLE", "Judged", "LedgerBroken", "StoredElsewhere", "Verdicts", "candle_of"]


class LedgerBroken(Exception):
    """An invariant of the ledger does not hold: a bug of ours, or a bit that has flipped, and a reason to stop."""


StoredElsewhere = Callable[[Series, Millis], Candle | None]
"""Looks a minute up in the day files."""

MAY_BE_LATE = 30 * MINUTE
"""How many ms a stored candle waits for its row in the venue's record; then confirmation goes on without it."""

CANDLE = (
    "series_id, open_ms, open, high, low, close, volume, quote_volume, vwap, trades_count, source, ingest_ms, checksum"
)


@attrs.define
class Judged:
    """What became of a batch."""

    accepted: int = 0
    rejected: list[tuple[Candle, Rule]] = attrs.field(factory=list)
    conflicts: list[tuple[Candle | None, Candle]] = attrs.field(factory=list)
    """(stored, offered); ``None``: the minute is called empty."""
    replaced: list[tuple[Candle | None, Candle]] = attrs.field(factory=list)
    """(stored, what REST said twice)"""
    closed: list[Candle] = attrs.field(factory=list)
    """Accepted as the first verdict on their minutes."""
    filled: Counter[str] = attrs.field(factory=Counter)
    """Minutes of gaps that pages proved, by venue."""
    compared: Counter[tuple[str, str]] = attrs.field(factory=Counter)
    """What comparing live candles with REST came to, by (venue, outcome)."""
    refused: list[str] = attrs.field(factory=list)
    """Why pages were not believed."""


@attrs.frozen
class Verdicts:
    """The judge of an open journal."""

    _db: sqlite3.Connection
    _entries: Entries
    _gaps: Gaps
    _revisions: Revisions
    _samples: Samples
    _underived: Underived
    _sealed: Sealed
    _changes: Changes
    _stored_elsewhere: StoredElsewhere

    def judge(self, verdict: Verdict | Finding, now: Millis, judged: Judged) -> None:
        """Record *verdict* in the ledger, and in *judged* what became of it.

        A first verdict must begin at its series' mark, and a span must be whole minutes: the assemblers promise
        both, and a ledger with a hole would be a silent gap, so anything else is :class:`LedgerBroken`.
        """
        match verdict:
            case Candle():
                self._judge_candle(verdict, now, judged)
            case Attempt(comparing=False):
                self._gaps.attempted(self._entries[verdict.series], verdict, now)
            case Attempt():
                self._revisions.compared(self._entries[verdict.series].id, verdict.since, verdict.until, now)
                judged.compared += self._samples.unanswered(verdict.series, verdict.since, verdict.until, now)
            case Page():
                again = self._judge_page(verdict, now, judged)
                if verdict.comparing:
                    if verdict.conclusive:
                        judged.compared += self._samples.answered(verdict, again, now)
                    self._revisions.compared(self._entries[verdict.series].id, verdict.since, verdict.until, now)
            case _ if verdict.since >= verdict.until or verdict.since % MINUTE or verdict.until % MINUTE:
                raise LedgerBroken(f"not a span of whole minutes: {verdict}")
            case Empty():
                found = self._judge_empty(verdict, now)
                self._changes.known(self._entries[verdict.series], [(Kind.EMPTY, *span) for span in found], now)
            case Unsure():
                self.unsure(verdict, now)

    def _judge_candle(self, candle: Candle, now: Millis, judged: Judged) -> None:
        rule = broken_rule(candle, now)
        if rule is not None:
            # The assembler has checked the candle; only a clock that stepped back since can make it break a rule here.
            judged.rejected.append((candle, rule))
            if not candle.open_time % MINUTE:
                until = Millis(candle.open_time + MINUTE)
                self.unsure(Unsure(candle.series, candle.open_time, until, Reason.REJECTED, rule.value), now)
            return
        entry = self._entries[candle.series]
        if candle.open_time < entry.mark:
            since, until, source = candle.open_time, candle.close_time, candle.source.value
            is_first = candle.source is Source.WEBSOCKET and self._gaps.is_unreported(entry, since)
            kind = Kind.CLOSED if is_first else Kind.FILLED
            if not self._gaps.close(entry, since, until, "stored", source, now):
                self._judge_again(entry, candle, now, judged)
                return
            if candle.source is Source.WEBSOCKET:  # comparing may have passed this minute while it was a gap
                self._revisions.go_back(entry.id, candle.open_time)
        else:
            kind = Kind.CLOSED
            judged.closed.append(candle)
            self.advance(entry, candle.series, candle.open_time, candle.close_time)
        self._store(entry, [candle], judged)
        self._changes.known(entry, [(kind, candle.open_time, candle.close_time)], now)

    def _store(self, entry: Entry, candles: Sequence[Candle], judged: Judged) -> None:
        """Store *candles* (ascending), whose minutes the caller has taken out of gaps and empty spans."""
        rows = [
            (
                entry.id, candle.open_time, candle.open, candle.high, candle.low, candle.close, candle.volume,
                candle.quote_volume, candle.vwap, candle.trades_count, candle.source.value, candle.ingest_time,
            )
            for candle in candles
        ]  # fmt: skip
        self._db.executemany(
            f"INSERT OR REPLACE INTO candle ({CANDLE}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [(*row, candle_checksum(row)) for row in rows],
        )
        self._entries.stored(entry, candles[-1].open_time)
        judged.accepted += len(candles)

    def put_back(self, entry: Entry, candles: Sequence[Candle], empties: Iterable[tuple[int, int, str]]) -> None:
        """Store *candles* and empty spans that are accounted for as neither; both oldest first, and disjoint."""
        if candles:
            self._store(entry, candles, Judged())
        for since, until, evidence in empties:
            self._add_empty(entry, since, until, evidence)

    def _judge_again(self, entry: Entry, candle: Candle, now: Millis, judged: Judged) -> None:
        """A candle of a minute that is accounted for and no gap: the same again, or a contradiction."""
        stored = self.stored(candle.series, candle.open_time)
        if stored is not None and stored.same_as(candle):
            judged.rejected.append((candle, Rule.DUPLICATE))
        elif stored is None and candle.open_time < entry.first:
            judged.rejected.append((candle, Rule.OUT_OF_ORDER))
        else:
            self._differs(entry, stored, candle, now, judged)
            judged.rejected.append((candle, Rule.CONFLICT))

    def _differs(self, entry: Entry, stored: Candle | None, offered: Candle, now: Millis, judged: Judged) -> bool:
        """Keep a revision, because *offered* is not what is stored; ``True`` if the revision is new."""
        self._sealed.open(entry, offered.open_time, offered.close_time)
        before = self._kept(entry, stored, offered)
        is_new = self._revisions.add(entry.id, offered.open_time, before, offered, now)
        if is_new:
            judged.conflicts.append((stored, offered))
        return is_new

    def _kept(self, entry: Entry, stored: Candle | None, offered: Candle) -> CandleDocument | EmptyDocument:
        """What the minute of *offered* is, as a revision keeps it: *stored*, or empty."""
        if stored is not None:
            return CandleDocument.of(stored)
        empty = self._db.execute(
            f"SELECT evidence FROM empty WHERE {touching('empty')}",
            {"id": entry.id, "since": offered.open_time, "until": offered.open_time + MINUTE},
        ).fetchone()
        if empty is None:
            raise LedgerBroken(f"{offered.series}: minute {offered.open_time} is accounted for as nothing")
        return EmptyDocument(empty[0])

    # --- what REST says

    def _judge_page(self, page: Page, now: Millis, judged: Judged) -> list[tuple[Candle | None, Candle]]:
        """Close gaps by what *page* proves, and compare the rest of it with what is stored; returns what was
        compared, as (stored, offered): nothing of a page that is not believed.

        A page that does not name its market is refused if most of its minutes differ from what is stored, or if nothing
        is stored that could agree and the page was not answered twice.
        """
        entry = self._entries[page.series]
        known = [candle for candle in page.candles if entry.first <= candle.open_time < entry.mark]
        spans = [(c.open_time, c.close_time) for c in known] + [(e.since, e.until) for e in page.empties]
        if not spans:
            self._judge_listing(entry, page, now)
            return []
        lowest, highest = min(since for since, _ in spans), max(until for _, until in spans)
        gaps = set(intervals.minutes(self._gaps.within(entry, lowest, highest)))
        again = [(self.stored(page.series, c.open_time), c) for c in known if c.open_time not in gaps]
        different = [(stored, offered) for stored, offered in again if stored is None or not stored.same_as(offered)]
        if page.anonymous and (2 * len(different) > len(again) or not (again or page.twice)):
            error = f"the page differs from what is stored in {len(different)} of {len(again)} minutes"
            if not again:
                error = "nothing is stored that the page could be held against; it is to be told twice"
            judged.refused.append(f"{page.series}: {error}")
            self._gaps.attempted(entry, Attempt(page.series, page.since, page.until, error), now)
            return []
        self._judge_listing(entry, page, now)
        filled = self._fill(entry, [candle for candle in known if candle.open_time in gaps], now, judged)
        told = [(Kind.FILLED, *span) for span in intervals.touching(candle.open_time for candle in filled)]
        if page.sampled:
            judged.compared += self._samples.choose(page.series, filled, now)
        for empty in page.empties:
            since, until = max(empty.since, entry.first), min(empty.until, entry.mark)
            if since < until:
                found = self._judge_empty(attrs.evolve(empty, since=since, until=until), now)
                judged.filled[page.series.venue] += intervals.length(found) // MINUTE
                told += [(Kind.EMPTY, *span) for span in found]
        self._changes.known(entry, sorted(told, key=lambda span: span[1]), now)
        for stored, offered in again:
            self._compare(entry, stored, offered, page, now, judged)
        self._advance_confirmed(entry, page, now, judged)
        return again

    def _fill(self, entry: Entry, candles: Sequence[Candle], now: Millis, judged: Judged) -> list[Candle]:
        """Store *candles*, all of gap minutes, ascending; neighbours are one event in the gap's history. Returns those
        that were stored.
        """
        good: list[Candle] = []
        for candle in candles:
            rule = broken_rule(candle, now)
            if rule is None:
                good.append(candle)
            else:  # only a clock that stepped back since the answer was read can make it break a rule here
                judged.rejected.append((candle, rule))
        for since, until in intervals.touching(candle.open_time for candle in good):
            self._gaps.close(entry, since, until, "stored", good[0].source.value, now)
        if good:
            self._store(entry, good, judged)
            judged.filled[good[0].series.venue] += len(good)
        return good

    def _compare(
        self, entry: Entry, stored: Candle | None, offered: Candle, page: Page, now: Millis, judged: Judged
    ) -> None:
        """Compare *offered*, REST's candle, with what is *stored* of its minute (``None``: called empty)."""
        venue = offered.series.venue
        live = stored is None or stored.source is Source.WEBSOCKET
        if stored is not None and stored.same_as(offered):
            if live or page.conclusive:  # a stored row is not confirmed by the same row
                self._revisions.settle(entry.id, offered.open_time, "kept")
            judged.compared[venue, "agreed"] += live
        elif page.conclusive and self._revisions.is_second(entry.id, offered):
            self._replace(entry, stored, offered, now, judged)
            judged.compared[venue, "replaced"] += 1
        elif not page.conclusive and self._revisions.was_outvoted(entry.id, offered):
            pass  # the same was offered or stored before, and settled
        elif self._differs(entry, stored, offered, now, judged):
            judged.compared[venue, "differed"] += live

    def _replace(self, entry: Entry, stored: Candle | None, offered: Candle, now: Millis, judged: Judged) -> None:
        revision = self._revisions.replace(entry.id, offered.open_time, self._kept(entry, stored, offered))
        if stored is None:
            cut_empty(self._db, entry.id, offered.open_time, offered.close_time)
        self._store(entry, [offered], judged)
        self._changes.revised(entry, offered.open_time, now, revision)
        judged.replaced.append((stored, offered))

    def _advance_confirmed(self, entry: Entry, page: Page, now: Millis, judged: Judged) -> None:
        """Move the confirmed mark over the stored minutes of *page*, up to the first that the page has no candle of. If
        the page was asked for to compare, only a young minute without a candle ends this; an older one counts as
        unanswered. (A page for a gap also leaves out a minute of which row and trades differ, and one for samples those
        whose trades one question did not reach.)
        """
        mark = self._revisions.mark(entry.id)
        until = min(page.until, entry.mark)
        if mark is None or not page.since <= mark < until:
            return
        answered = {candle.open_time for candle in page.candles}
        is_whole = page.comparing and not (page.sampled and page.conclusive)
        for minute in self._stored_minutes(entry, mark, until):
            if minute not in answered:
                if minute + MAY_BE_LATE > now or not is_whole:
                    self._revisions.advance(entry.id, Millis(minute))
                    return
                judged.compared[page.series.venue, "unanswered"] += 1
        self._revisions.advance(entry.id, until)

    def _judge_listing(self, entry: Entry, page: Page, now: Millis) -> None:
        """Let the series begin at the listing that *page* gives: earlier minutes are not expected.

        The listing is not believed if it is beyond the mark, if an earlier minute is stored or empty, or if the page
        itself has an earlier candle; then the page proves nothing about the earlier minutes that were asked for.
        """
        listed = page.listed or self._gaps.history.observed_first(entry, page, now)
        if listed is None:
            return
        since, evidence = listed
        known = max(since - entry.first, 0) - intervals.length(self._gaps.within(entry, entry.first, since))
        if known or since > entry.mark or any(candle.open_time < since for candle in page.candles):
            error, until = f"the venue says that its market began later ({evidence})", min(page.until, since)
            if page.since < until:
                self._gaps.attempted(entry, Attempt(page.series, page.since, until, error), now)
            return
        told = self._db.execute("SELECT since_ms FROM listing WHERE series_id = ?", (entry.id,)).fetchone()
        if told == (since,) and since <= entry.first:
            return
        self._sealed.open(entry, since, since + MINUTE)
        day, first = floor_to(since, DAY), entry.first
        if since > first:
            self._gaps.close(entry, first, since, "unlisted", evidence, now)
            self._entries.begin_at(entry, since)
        self._underived.add(entry.id, day, day + DAY)  # one over the beginning may be complete
        self._db.execute("INSERT OR REPLACE INTO listing VALUES (?, ?, ?)", (entry.id, since, evidence))
        if day <= since >= first and min(first, day) < since:
            self._changes.gaps_changed(entry)
            self._changes.known(entry, [(Kind.UNLISTED, min(first, day), since)], now, evidence)

    def _judge_empty(self, empty: Empty, now: Millis) -> list[intervals.Interval]:
        """Record the minutes of *empty* that are gaps or beyond the mark; return them, oldest first."""
        entry, mark = self._entries[empty.series], self._entries[empty.series].mark
        found: list[intervals.Interval] = []
        if empty.since < mark:
            found = self._gaps.close(entry, empty.since, empty.until, "empty", empty.evidence, now)
        if empty.until > mark:
            since = max(empty.since, mark)
            self.advance(entry, empty.series, since, empty.until)
            found = [*found, (since, empty.until)]
        for low, high in found:
            self._add_empty(entry, low, high, empty.evidence)
        return found

    def unsure(self, unsure: Unsure, now: Millis) -> None:
        """Make the minutes of *unsure* beyond the mark a gap; the others keep their verdict: doubt undoes no proof."""
        entry = self._entries[unsure.series]
        since = max(unsure.since, entry.mark)
        if since >= unsure.until:
            return
        self.advance(entry, unsure.series, since, unsure.until)
        self._gaps.open(entry, attrs.evolve(unsure, since=since), now)

    def advance(self, entry: Entry, series: Series, since: Millis, until: Millis) -> None:
        """Move the mark from *since* to *until*; :class:`LedgerBroken` if the mark is elsewhere."""
        if since != entry.mark:
            raise LedgerBroken(f"{series}: verdict on {since}, but the ledger stands at {entry.mark}")
        self._entries.advance(entry, until)

    def _add_empty(self, entry: Entry, since: int, until: int, evidence: str) -> None:
        self._underived.add(entry.id, since, until)
        add_empty(self._db, entry.id, since, until, evidence)

    def stored(self, series: Series, minute: Millis) -> Candle | None:
        """The stored candle of *minute*, from the journal or a day file; ``None`` if there is none."""
        row = self._db.execute(
            f"SELECT {CANDLE} FROM candle WHERE series_id = ? AND open_ms = ?", (self._entries[series].id, minute)
        ).fetchone()
        return self._stored_elsewhere(series, minute) if row is None else candle_of(series, row)

    def _stored_minutes(self, entry: Entry, since: Millis, until: Millis) -> Iterator[int]:
        """The accounted minutes of ``[since, until)`` that are in no gap and not empty: they are stored."""
        taken: list[intervals.Interval] | sqlite3.Cursor = self._db.execute(
            f"SELECT since_ms, until_ms FROM gap WHERE {touching('gap')}"
            f" UNION ALL SELECT since_ms, until_ms FROM empty WHERE {touching('empty')}",
            {"id": entry.id, "since": since, "until": until},
        )
        taken = sorted([*taken, *self._sealed.spans(entry, since, until, EMPTY + UNFILLABLE + GAP)])
        return intervals.minutes(intervals.subtract([(since, until)], taken))

    def unaccounted(self, entry: Entry, since: Millis, until: Millis) -> list[intervals.Interval]:
        """The minutes of a span of open days that are in no gap, not empty, and not waiting in the journal."""
        taken = self._db.execute(
            f"SELECT since_ms, until_ms FROM gap WHERE {touching('gap')}"
            f" UNION ALL SELECT since_ms, until_ms FROM empty WHERE {touching('empty')}"
            f" UNION ALL SELECT open_ms, open_ms + {MINUTE} FROM candle"
            " WHERE series_id = :id AND open_ms < :until AND open_ms >= :since ORDER BY 1",
            {"id": entry.id, "since": since, "until": until},
        )
        return list(intervals.subtract([(since, until)], taken))


def candle_of(series: Series, row: Sequence[object]) -> Candle:
    """A row of the columns :data:`CANDLE` as a candle; :class:`LedgerBroken` if its checksum does not match,
    :class:`NotAsWritten` if it does and another version wrote the row.
    """
    if candle_checksum(row[:-1]) != row[-1]:
        raise LedgerBroken(f"{series}: the row that waits of {row[1]!r} does not match its checksum")
    _, open_ms, o, h, low, c, v, quote, vwap, count, source, ingest, _ = row
    assert isinstance(open_ms, int)
    assert isinstance(ingest, int)
    if source not in set(Source):  # no damage, for the checksum matches
        raise NotAsWritten(f"{series}: a candle that waits is of {source!r}, which only another version understands")
    return Candle(
        series, Millis(open_ms), o, h, low, c, v, quote, vwap, count, Source(source), Millis(ingest),  # type: ignore[arg-type]
        Millis(open_ms + MINUTE),
    )  # fmt: skip
