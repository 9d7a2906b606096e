"""Stored candles ↔ REST: every candle that came from a live feed is compared with the venue's own record.

Two kinds of questions, oldest first, at a tenth of the venue's pace (pages fetched for gaps confirm what they carry
besides): series whose live candles have waited for ten minutes, and stored minutes that somebody contradicts. What
the answers mean is the ledger's to judge (:mod:`trio_candles.store.revisions`).
"""

from __future__ import annotations

import logging

import attrs
import trio

from trio_candles.candles.model import MINUTE, Millis, Page, Series, printable
from trio_candles.clock import Time
from trio_candles.collector.venue_state import VenueState
from trio_candles.collector.writer import GapBook
from trio_candles.network.pacing import Backoff
from trio_candles.network.rest import Rest, converse
from trio_candles.venues.history import History, Refusal, Throttled, Unavailable, Using, settled_until
from trio_candles.venues.protocol import Misunderstood

__all__ = ["keep_comparing"]

log = logging.getLogger(__name__)

SHARE = 0.1
"""Of the venue's budget."""
RIPE = Millis(10 * MINUTE)
"""A live candle is asked about at this age, with all that came after it: one page for ten minutes of a series."""
APART = Millis(61_000)
"""Between two answers about one minute that are to settle it; a minute is asked for, the second is for rounding."""
BESIDE = Millis(60 * MINUTE)
"""Of a doubtful minute's neighbours on either side: that they agree shows which market an answer is about."""
IDLE_SECONDS = 5.0
KNOWN_SECONDS = 15.0
"""After which the ledger, and the lists drawn from it, know of an answer."""
RETRY_SECONDS = 120.0
"""Until a minute that an answer did not settle is asked about again."""
OLD = Millis(3 * 60 * MINUTE)
"""What has not been settled for so long may never be, as of a market that is closed: others go before it."""
OLD_RETRY_SECONDS = 1800.0
STUCK_SECONDS = 600.0
"""Until a series is asked about again whose oldest candle is old, and was not settled the last time."""


@attrs.frozen
class _Question:
    series: Series
    since: Millis
    """What the answer is about, for the ledger; a part may be out of the record's reach."""
    until: Millis
    asked_since: Millis
    using: Using
    conclusive: bool


@attrs.define
class _Comparer:
    history: History
    book: GapBook
    time: Time
    waits: dict[tuple[Series, Millis | None], float] = attrs.field(factory=dict)
    """(series, doubtful minute) → when it may be asked about again."""
    onward: dict[Series, Millis] = attrs.field(factory=dict)
    """From where on each series was compared the last time."""
    doubts_next: bool = True
    """Doubtful minutes and waiting series take turns, as far as there are both."""

    def next_question(self) -> _Question | None:
        """What is most worth asking now."""
        moment = trio.current_time()
        self.waits = {key: until for key, until in self.waits.items() if until > moment}
        first, second = self._next_doubt, self._next_series
        if not self.doubts_next:
            first, second = second, first
        self.doubts_next = not self.doubts_next
        return first(moment) or second(moment)

    def _next_doubt(self, moment: float) -> _Question | None:
        now = self.time.now()
        for doubt in self.book.to_compare.get(self.history.name, ([], []))[0]:
            if (doubt.series, doubt.minute) in self.waits or doubt.minute + MINUTE > settled_until(now):
                continue
            # An answer from the future was heard before the clock was set back: it may be any time ago.
            if doubt.answered is None or not 0 <= now - doubt.answered < APART:
                old = doubt.minute < now - OLD
                self.waits[doubt.series, doubt.minute] = moment + (OLD_RETRY_SECONDS if old else RETRY_SECONDS)
                return self._about(doubt.series, doubt.minute, doubt.answered is not None, now)
        return None

    def _next_series(self, moment: float) -> _Question | None:
        now = self.time.now()
        for one in self.book.to_compare.get(self.history.name, ([], []))[1]:
            if (one.series, None) not in self.waits and now - one.since >= RIPE:
                stuck = one.since < now - OLD and self.onward.get(one.series) == one.since
                self.waits[one.series, None] = moment + (STUCK_SECONDS if stuck else KNOWN_SECONDS)
                self.onward[one.series] = one.since
                question = self._onward(one.series, one.since, now)
                if question is not None:
                    return question
        return None

    def _about(self, series: Series, minute: Millis, second: bool, now: Millis) -> _Question:
        using = self.history.settles_by(minute, now)
        if using is Using.TRADES and not second and minute >= self.history.reach(now):
            using = Using.ROWS  # the first word is the record's, as it stands
        if using is Using.TRADES:
            return _Question(series, minute, Millis(minute + MINUTE), minute, using, conclusive=True)
        since = max(Millis(minute - BESIDE), self.history.reach(now))
        until = min(Millis(minute + BESIDE), settled_until(now))
        conclusive = self.history.settles_by(minute, now) is using
        return _Question(series, since, until, since, using, conclusive)

    def _onward(self, series: Series, since: Millis, now: Millis) -> _Question | None:
        reached = max(since, self.history.reach(now))
        windows = list(self.history.windows(reached, settled_until(now), now))
        if not windows:
            return None
        asked_since, until = windows[-1]  # the oldest: nothing is passed over
        return _Question(series, since, until, asked_since, Using.ROWS, conclusive=False)


async def keep_comparing(
    history: History, rest: Rest, book: GapBook, state: VenueState, time: Time, backoff: Backoff
) -> None:
    """Compare what is stored of *history*'s venue with its record, for ever."""
    comparer = _Comparer(history, book, time)
    while True:
        await state.room()
        question = comparer.next_question()
        if question is None:
            await trio.sleep(IDLE_SECONDS)
            continue
        unwell = await compare(history, rest, state, question, time.now())
        await trio.sleep(backoff.next() if unwell else 1 / (rest.pace() * SHARE))
        if not unwell:
            backoff.reset()


async def compare(history: History, rest: Rest, state: VenueState, question: _Question, now: Millis) -> bool:
    """Ask *question* and pass the answer on; whether the venue was not well."""
    series, using = question.series, question.using
    try:
        filled = await converse(rest, history.fill(series, question.asked_since, question.until, now, using))
    except (Refusal, Misunderstood) as error:
        log.info("%s cannot be confirmed now: %s", series, printable(str(error)))
        if isinstance(error, Refusal) and error.proven is not None:
            state.reject(error.proven.rejected)
        return isinstance(error, (Throttled, Unavailable))
    state.reject(filled.rejected)
    state.add([
        Page(
            series, question.since, question.until, filled.candles, filled.empties,
            anonymous=history.anonymous and using is not Using.TRADES, conclusive=question.conclusive, comparing=True,
        )
    ])  # fmt: skip
    return False
