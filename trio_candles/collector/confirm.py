"""Stored candles ↔ REST: every candle that came from a live feed is compared with the venue's own record, and of those
that came from the record's rows a sample with its trades.

There are three kinds of questions, at a tenth of the venue's pace in all. (A page fetched for a gap confirms the stored
candles in it besides.) ::

    a live candle ──── ten minutes ────▶ due ── asked ──▶ in the ledger: agreed, the mark moves on
    a contradicted minute ── settled ──▶  ▲                              differs, a revision is open
    a sampled minute, or its page ─────▶  │                              settled: kept or replaced
                                          └──────── waits ◀───────────── or nothing that settles it

The ledger decides (:mod:`trio_candles.store.revisions`, :mod:`trio_candles.store.samples`) what is due, what an answer
means, and how long a minute or a series waits that the answer did not settle. This module asks about what has been due
the longest: so a minute that can never be settled has its turns and holds up no other. A series is asked about again
once the ledger knows of the answer.

The first two kinds take turns. Samples, each of which takes many requests, use what these leave, and a tenth at least.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import chain

import attrs
import trio

from trio_candles.candles.model import MINUTE, Attempt, Millis, Page, Series, printable
from trio_candles.collector.backlog import Backlog
from trio_candles.collector.venue_state import VenueState
from trio_candles.network.pacing import Backoff
from trio_candles.network.rest import Counted, Rest, converse
from trio_candles.venues.history import History, Refusal, Throttled, Unavailable, Using, settled_until
from trio_candles.venues.protocol import Misunderstood

__all__ = ["keep_comparing"]

log = logging.getLogger(__name__)

SHARE = 0.1
"""The share of the venue's pace that comparing takes."""
SAMPLES_ONE_IN = 10
"""While anything else is due, samples take one request of so many that comparing takes."""
BESIDE = Millis(60 * MINUTE)
"""Ms on either side of a doubtful minute that are asked for with it: that these neighbours agree with what is stored
shows which market an answer is about."""
IDLE_SECONDS = 5.0
"""Until the backlog is looked at again when nothing in it can be asked about."""


@attrs.frozen
class Question:
    """What the venue is asked about stored candles of *series*. Times are Unix ms."""

    series: Series
    since: Millis
    """``[since, until)`` is what the answer is about, for the ledger; its beginning may be out of the record's
    reach."""
    until: Millis
    asked_since: Millis
    """Where the span begins that is asked for, which the record reaches; it ends at ``until``."""
    using: Using
    conclusive: bool
    """Whether the answer may replace a stored candle, if an earlier answer was the same."""
    is_sample: bool = False


@attrs.define
class Comparer:
    """Decides what to ask of one venue."""

    backlog: Backlog
    doubts_next: bool = True
    """Doubtful minutes and waiting series take turns, as far as there are both."""
    before_sample: int = 0
    """How many requests the others may take before the next sample is asked about."""

    @property
    def history(self) -> History:
        """The venue's record."""
        return self.backlog.history

    def next_question(self, now: Millis) -> Question | None:
        """A question, at *now*, about what has been due the longest, of the kind whose turn it is; ``None`` if nothing
        is due.
        """
        kinds = [self._doubtful(now), self._unconfirmed(now)]
        if not self.doubts_next:
            kinds.reverse()
        self.doubts_next = not self.doubts_next
        kinds.insert(2 if self.before_sample > 0 else 0, self._samples())
        question = next(chain(*kinds), None)
        if question is not None:
            self.backlog.comparing.add(question.series)
        return question

    def has_taken(self, question: Question, requests: int) -> None:
        """Note what *question* has cost."""
        if question.is_sample:
            self.before_sample = requests * (SAMPLES_ONE_IN - 1)
        else:
            self.before_sample -= requests

    def _samples(self) -> Iterator[Question]:
        for one in self.backlog.samples:
            if one.series not in self.backlog.comparing:
                yield Question(
                    one.series, one.since, one.until, one.since, Using.TRADES, conclusive=True, is_sample=True
                )

    def _doubtful(self, now: Millis) -> Iterator[Question]:
        for doubt in self.backlog.doubtful:
            if doubt.series not in self.backlog.comparing:
                # The first answer is the record's, as it stands; unless that is what is stored.
                has_record = doubt.answered is not None or doubt.is_row
                yield self._about_minute(doubt.series, doubt.minute, has_record, now)

    def _unconfirmed(self, now: Millis) -> Iterator[Question]:
        for one in self.backlog.unconfirmed:
            if one.series not in self.backlog.comparing:
                question = self._about_series(one.series, one.since, now)
                if question is not None:
                    yield question

    def _about_minute(self, series: Series, minute: Millis, has_record: bool, now: Millis) -> Question:
        using = self.history.settles_by(minute, now)
        if using is Using.TRADES and not has_record and minute >= self.history.reach(now):
            using = Using.ROWS
        if using is Using.TRADES:
            return Question(series, minute, Millis(minute + MINUTE), minute, using, conclusive=True)
        since = max(Millis(minute - BESIDE), self.history.reach(now))
        until = min(Millis(minute + BESIDE), settled_until(now))
        conclusive = self.history.settles_by(minute, now) is using
        return Question(series, since, until, since, using, conclusive)

    def _about_series(self, series: Series, since: Millis, now: Millis) -> Question | None:
        reached = max(since, self.history.reach(now))
        windows = list(self.history.windows(reached, settled_until(now), now))
        if not windows:
            return None
        asked_since, until = windows[-1]  # the oldest: nothing is passed over
        return Question(series, since, until, asked_since, Using.ROWS, conclusive=False)


async def keep_comparing(backlog: Backlog, rest: Rest, state: VenueState, backoff: Backoff) -> None:
    """Compare what is stored of *backlog*'s venue with its record, for ever."""
    comparer, counted = Comparer(backlog), Counted(rest)
    while True:
        now = await state.room()
        question = comparer.next_question(now)
        if question is None:
            await trio.sleep(IDLE_SECONDS)
            continue
        before = counted.turns
        unwell = await compare(backlog.history, counted, state, question, now)
        comparer.has_taken(question, counted.turns - before)
        seconds = (counted.turns - before) / (rest.pace() * SHARE)
        await trio.sleep(max(seconds, backoff.next()) if unwell else seconds)
        if not unwell:
            backoff.reset()


async def compare(history: History, rest: Rest | Counted, state: VenueState, question: Question, now: Millis) -> bool:
    """Ask *question* and hand the answer, or why there is none, to *state*; returns whether the venue was unwell (gave
    no answer, or called us too fast). *now* is in Unix ms.
    """
    series, using = question.series, question.using
    # Not with trades that the feed told: what came from there is what is compared.
    heard = attrs.evolve(state.heard(series), trades=())
    try:
        filled = await converse(rest, history.fill(series, question.asked_since, question.until, now, using, heard))
    except (Refusal, Misunderstood) as error:
        log.info("%s cannot be confirmed now: %s", series, printable(str(error)))
        if isinstance(error, Refusal) and error.proven is not None:
            state.reject(error.proven.rejected)
        why = printable(str(error))
        state.add([Attempt(series, question.since, question.until, why, comparing=True)])
        unwell = isinstance(error, (Throttled, Unavailable))
        if not unwell:
            state.answered(series, why)
        return unwell
    state.answered(series, filled.unclear)
    state.reject(filled.rejected)
    state.add([
        Page(
            series, question.since, question.until, filled.candles, filled.empties,
            anonymous=history.anonymous and using is not Using.TRADES, conclusive=question.conclusive, comparing=True,
            sampled=history.sampled,
        )
    ])  # fmt: skip
    return False
