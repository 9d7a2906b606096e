"""Which of the minutes that rows of REST filled are rebuilt from trades, and what came of it.

Some venues' rows are believed on their word, which is not always what the trades say. So of each page of rows some
minutes are *sampled*: asked about once more, by trades. Where one differs, or a minute beside it of which the same
trades tell, all of its page is rebuilt::

    a page of rows fills minutes
         │  one of a hundred, one of each page at least
         ▼                  the trades say the same
    sampled ── asked ──▶ ─────────────────────────────▶ sampled_agreed
      │  ▲                  something else
      │  └ waits ◀── no  ─────────────────────────────▶ sampled_differed ──▶ its page is rebuilt, newest part first
      │                     no answer, three times
      │                  ─────────────────────────────▶ sampled_unanswered
      └ too many wait ──────────────────────────────────▶ not_sampled

What differs becomes a revision, as any other difference does (:mod:`.revisions`): replaced once the trades, read again
a minute later, say the same. The outcomes are counted by venue in the table ``confirmation``.

Works inside the journal's transactions, on its connection.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Sequence
from zlib import crc32

import attrs

from trio_candles.candles.intervals import clip, minutes
from trio_candles.candles.model import MINUTE, Candle, Millis, Page, Series
from trio_candles.store.due import due_longest
from trio_candles.store.entries import Entries

__all__ = ["Sample", "Samples", "chosen"]

ONE_IN = 100
"""Of so many minutes that rows filled, one is sampled."""
WAITING = 20
"""The most sampled minutes of a series that wait; beyond it the oldest sample goes. A year of backfill has thousands of
pages a series, and they come faster than a share of the budget can ask about them."""
TRIES, WAIT = 3, Millis(1_800_000)
"""How often a span is asked about in vain, and the ms in between."""
LISTED = 50
"""How many are listed, those due for longest: more than are asked about before the next listing."""


@attrs.frozen
class Sample:
    """``[since, until)`` of *series* is to be rebuilt from trades: a sampled minute, or what is left of a page."""

    series: Series
    since: Millis
    until: Millis


def chosen(series: Series, page: Sequence[Millis]) -> list[Millis]:
    """Those of the minutes of a *page* that are sampled, at least one. A function of its arguments alone, so that the
    same minutes are sampled however often a page is asked for.
    """
    salt = crc32(str(series).encode())
    draws = {minute: crc32(b"%d" % minute, salt) for minute in page}
    return [minute for minute, draw in draws.items() if not draw % ONE_IN] or [min(draws, key=draws.__getitem__)]


class Samples:
    """The table ``sample`` of an open journal."""

    def __init__(self, database: sqlite3.Connection, entries: Entries) -> None:
        self._db = database
        self._entries = entries

    def read_through(self) -> None:
        """Check every value that the collector goes by; ``ValueError`` where one makes no sense."""
        odd = self._db.execute(
            "SELECT minute_ms, since_ms, until_ms, attempts, not_before_ms FROM sample WHERE since_ms >= until_ms"
            f" OR since_ms % {MINUTE} OR until_ms % {MINUTE} OR coalesce(minute_ms, 0) % {MINUTE}"
            " OR typeof(attempts) != 'integer' OR typeof(not_before_ms) != 'integer'"
        ).fetchone()
        if odd is not None:
            raise ValueError(f"what is sampled is {odd}")

    def choose(self, series: Series, filled: Sequence[Candle], now: Millis) -> Counter[tuple[str, str]]:
        """Sample some of *filled*, the candles (ascending) that a page has just stored; returns how many samples went
        for them, by (venue, outcome).

        A candle with a count of trades was built from trades and needs no sample.
        """
        rows = [candle.open_time for candle in filled if candle.trades_count is None]
        if not rows:
            return Counter()
        id_ = self._entries[series].id
        self._db.executemany(
            "INSERT OR IGNORE INTO sample (series_id, minute_ms, since_ms, until_ms, attempts, not_before_ms)"
            " VALUES (?, ?, ?, ?, 0, ?)",
            [(id_, minute, rows[0], rows[-1] + MINUTE, now) for minute in chosen(series, rows)],
        )
        dropped = self._db.execute(
            "DELETE FROM sample WHERE id IN (SELECT id FROM sample WHERE series_id = ? AND minute_ms IS NOT NULL"
            " ORDER BY id DESC LIMIT -1 OFFSET ?)",
            (id_, WAITING),
        ).rowcount
        return +Counter({(series.venue, "not_sampled"): dropped})

    def due(self, venue: str, now: Millis) -> list[Sample]:
        """What is to be asked about now, of *venue*'s expected series: the :data:`LISTED` due longest, pages first."""
        span = "coalesce(minute_ms, since_ms)", f"coalesce(minute_ms + {MINUTE}, until_ms)"
        rows = due_longest(self._db, "sample", span, venue, now, Millis(now + WAIT), LISTED)
        return [Sample(self._entries.series(id_), Millis(since), Millis(until)) for id_, since, until in rows]

    def unanswered(self, series: Series, since: Millis, until: Millis, now: Millis) -> Counter[tuple[str, str]]:
        """``[since, until)`` was asked about in vain: it waits, or after :data:`TRIES` questions goes."""
        self._db.execute(
            "UPDATE sample SET attempts = attempts + 1, not_before_ms = ? WHERE series_id = ?"
            " AND coalesce(minute_ms, since_ms) = ? AND coalesce(minute_ms + ?, until_ms) = ?",
            (now + WAIT, self._entries[series].id, since, MINUTE, until),
        )
        in_vain = "FROM sample WHERE series_id = ? AND attempts >= ?", (self._entries[series].id, TRIES)
        (given_up,) = self._db.execute(f"SELECT count(minute_ms) {in_vain[0]}", in_vain[1]).fetchone()
        self._db.execute(f"DELETE {in_vain[0]}", in_vain[1])
        return +Counter({(series.venue, "sampled_unanswered"): given_up})

    def answered(
        self, page: Page, again: Sequence[tuple[Candle | None, Candle]], now: Millis
    ) -> Counter[tuple[str, str]]:
        """Take what *page*, built from trades, says of samples in its span; *again* are its candles of minutes that
        were accounted for and no gaps, each as (stored, offered). Returns how many minutes came to what, by (venue,
        outcome).
        """
        agrees = {offered.open_time: stored is not None and stored.same_as(offered) for stored, offered in again}
        # A row of a minute in which nothing was traded, say the ids: that minute stays as it is, and its page does not.
        empties = clip(((empty.since, empty.until) for empty in page.empties), page.since, page.until)
        agrees |= dict.fromkeys(map(Millis, minutes(empties)), False)
        outcomes: Counter[tuple[str, str]] = Counter()
        id_, venue = self._entries[page.series].id, page.series.venue
        sampled = self._db.execute(
            "SELECT id, minute_ms, since_ms, until_ms FROM sample"
            " WHERE series_id = ? AND minute_ms >= ? AND minute_ms < ?",
            (id_, page.since, page.until),
        ).fetchall()
        for sample, minute, since, until in sampled:
            if minute not in agrees:
                continue
            outcomes[venue, "sampled_agreed" if agrees[minute] else "sampled_differed"] += 1
            # The trades that prove the minute prove some beside it, and a page is as wrong if one of these differs.
            is_right = all(same for beside, same in agrees.items() if since <= beside < until)
            if is_right or self._is_rebuilt(id_, since):
                self._db.execute("DELETE FROM sample WHERE id = ?", (sample,))
            else:
                self._db.execute(
                    "UPDATE sample SET minute_ms = NULL, attempts = 0, not_before_ms = 0 WHERE id = ?", (sample,)
                )
        told = [minute for minute in agrees if page.since <= minute < page.until]
        if not told:
            return outcomes + self.unanswered(page.series, page.since, page.until, now)
        # Trades are read from the newest on, as far as the requests of one question reach.
        self._db.execute(
            "UPDATE sample SET until_ms = ?, attempts = 0 WHERE series_id = ? AND minute_ms IS NULL"
            " AND since_ms = ? AND until_ms = ?",
            (min(told), id_, page.since, page.until),
        )
        self._db.execute("DELETE FROM sample WHERE series_id = ? AND until_ms <= since_ms", (id_,))
        return outcomes

    def _is_rebuilt(self, series_id: int, since: Millis) -> bool:
        """Whether the page that begins at *since* is being rebuilt already."""
        found = self._db.execute(
            "SELECT 1 FROM sample WHERE series_id = ? AND minute_ms IS NULL AND since_ms = ?", (series_id, since)
        )
        return found.fetchone() is not None
