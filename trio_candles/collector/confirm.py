"""Stored candles ↔ REST: every candle that came from a live feed is compared with the venue's own record.

Two kinds of questions, by turns, at a tenth of the venue's pace (pages fetched for gaps confirm what they carry
besides)::

    a live candle ──── ten minutes ────▶ due ── asked ──▶ in the ledger: agreed, the mark moves on
    a contradicted minute ── settled ──▶  ▲                              differs, a revision is open
                                          │                              settled: kept or replaced
                                          └──────── waits ◀───────────── or nothing that settles it

What is due, and how long what was not settled waits, is the ledger's to say (:mod:`trio_candles.store.revisions`), and
what an answer means as well. Asked about is what has been due the longest, so what can never be settled gets its
turns and no more. A series that was asked about is asked about again once the ledger knows of the answer.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import chain

import attrs
import trio

from trio_candles.candles.model import MINUTE, Attempt, Millis, Page, Series, printable
from trio_candles.clock import Time
from trio_candles.collector.backlog import Backlog
from trio_candles.collector.venue_state import VenueState
from trio_candles.network.pacing import Backoff
from trio_candles.network.rest import Rest, converse
from trio_candles.venues.history import History, Refusal, Throttled, Unavailable, Using, settled_until
from trio_candles.venues.protocol import Misunderstood

__all__ = ["keep_comparing"]

log = logging.getLogger(__name__)

SHARE = 0.1
"""Of the venue's budget."""
BESIDE = Millis(60 * MINUTE)
"""Of a doubtful minute's neighbours on either side: that they agree shows which market an answer is about."""
IDLE_SECONDS = 5.0


@attrs.frozen
class Question:
    series: Series
    since: Millis
    """What the answer is about, for the ledger; a part may be out of the record's reach."""
    until: Millis
    asked_since: Millis
    using: Using
    conclusive: bool


@attrs.define
class Comparer:
    """Decides what to ask of one venue."""

    backlog: Backlog
    time: Time
    doubts_next: bool = True
    """Doubtful minutes and waiting series take turns, as far as there are both."""

    @property
    def history(self) -> History:
        """The venue's record."""
        return self.backlog.history

    def next_question(self) -> Question | None:
        """What has been due the longest, of the kind whose turn it is."""
        kinds = (self._doubts(), self._onwards()) if self.doubts_next else (self._onwards(), self._doubts())
        self.doubts_next = not self.doubts_next
        question = next(chain(*kinds), None)
        if question is not None:
            self.backlog.comparing.add(question.series)
        return question

    def _doubts(self) -> Iterator[Question]:
        now = self.time.now()
        for doubt in self.backlog.doubtful:
            if doubt.series not in self.backlog.comparing:
                yield self._about(doubt.series, doubt.minute, doubt.answered is not None, now)

    def _onwards(self) -> Iterator[Question]:
        now = self.time.now()
        for one in self.backlog.unconfirmed:
            if one.series not in self.backlog.comparing:
                question = self._onward(one.series, one.since, now)
                if question is not None:
                    yield question

    def _about(self, series: Series, minute: Millis, second: bool, now: Millis) -> Question:
        using = self.history.settles_by(minute, now)
        if using is Using.TRADES and not second and minute >= self.history.reach(now):
            using = Using.ROWS  # the first word is the record's, as it stands
        if using is Using.TRADES:
            return Question(series, minute, Millis(minute + MINUTE), minute, using, conclusive=True)
        since = max(Millis(minute - BESIDE), self.history.reach(now))
        until = min(Millis(minute + BESIDE), settled_until(now))
        conclusive = self.history.settles_by(minute, now) is using
        return Question(series, since, until, since, using, conclusive)

    def _onward(self, series: Series, since: Millis, now: Millis) -> Question | None:
        reached = max(since, self.history.reach(now))
        windows = list(self.history.windows(reached, settled_until(now), now))
        if not windows:
            return None
        asked_since, until = windows[-1]  # the oldest: nothing is passed over
        return Question(series, since, until, asked_since, Using.ROWS, conclusive=False)


async def keep_comparing(backlog: Backlog, rest: Rest, state: VenueState, time: Time, backoff: Backoff) -> None:
    """Compare what is stored of *backlog*'s venue with its record, for ever."""
    comparer = Comparer(backlog, time)
    while True:
        await state.room()
        question = comparer.next_question()
        if question is None:
            await trio.sleep(IDLE_SECONDS)
            continue
        unwell = await compare(backlog.history, rest, state, question, time.now())
        await trio.sleep(backoff.next() if unwell else 1 / (rest.pace() * SHARE))
        if not unwell:
            backoff.reset()


async def compare(history: History, rest: Rest, state: VenueState, question: Question, now: Millis) -> bool:
    """Ask *question* and pass the answer on; whether the venue was not well."""
    series, using = question.series, question.using
    try:
        filled = await converse(rest, history.fill(series, question.asked_since, question.until, now, using))
    except (Refusal, Misunderstood) as error:
        log.info("%s cannot be confirmed now: %s", series, printable(str(error)))
        if isinstance(error, Refusal) and error.proven is not None:
            state.reject(error.proven.rejected)
        why = printable(str(error))
        state.add([Attempt(series, question.since, question.until, why, comparing=True)])
        return isinstance(error, (Throttled, Unavailable))
    state.reject(filled.rejected)
    state.add([
        Page(
            series, question.since, question.until, filled.candles, filled.empties,
            anonymous=history.anonymous and using is not Using.TRADES, conclusive=question.conclusive, comparing=True,
        )
    ])  # fmt: skip
    return False
