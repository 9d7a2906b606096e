"""Open gaps → REST → what it proves: one venue's gap-filler, a sibling of its sockets that survives them.

It knows what the ledger knows (:class:`~trio_candles.collector.writer.GapBook`), asks page by page, newest gap first,
and puts what an answer proves where the sockets put theirs: the writer closes the gaps. What an answer does not prove
stays open, is counted as an attempt, and is asked again later, ever more rarely. Beside it, at a tenth of the pace,
:mod:`trio_candles.collector.confirm` compares what is stored.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Iterable, Sequence

import attrs
import trio

from trio_candles.candles.model import MINUTE, Attempt, Finding, Gap, Millis, Page, Series, printable, utc_text
from trio_candles.clock import Time
from trio_candles.collector.confirm import keep_comparing
from trio_candles.collector.venue_state import VenueState
from trio_candles.collector.writer import GapBook
from trio_candles.network.pacing import Backoff, wall_floor
from trio_candles.network.rest import Rest, converse, open_rest
from trio_candles.network.websocket import Network
from trio_candles.venues.history import (
    ABSENT,
    Filled,
    History,
    Missing,
    Refusal,
    RestUrls,
    Throttled,
    Unavailable,
    Using,
    Why,
)
from trio_candles.venues.protocol import Misunderstood

__all__ = ["fill_gaps"]

log = logging.getLogger(__name__)

WORKERS = 4
"""Questions under way at once: enough to keep a budget of ten a second busy at a round trip of 0.4 s."""
IDLE_SECONDS = 5.0
"""Between two looks for something to ask, unless the ledger has news before."""
KNOWN_SECONDS, KNOWN_WALL_SECONDS = 15.0, 5.0
"""After which the ledger, and the list of gaps drawn from it, know what an answer proved; seldom more than six. The
second is on the wall clock: an accelerated one makes the disk no quicker."""
FIRST_RETRY, LAST_RETRY = 30.0, 600.0
"""Seconds until a gap that an answer did not close is asked about again: doubling, each time."""
LAST_RETRY_WHILE_YOUNG, YOUNG = 120.0, Millis(60 * MINUTE)
"""The same for a gap that ended less than so many ms ago: no minute is to stay open longer than five minutes while the
venue answers."""

BARREN_FILLS = 4
"""So many fills in a row that prove nothing, and a series rests."""


@attrs.frozen
class _Job:
    series: Series
    since: Millis
    until: Millis
    gaps: tuple[Gap, ...]
    """The gaps that the page covers, whole or in part."""


@attrs.define
class _Filler:
    history: History
    book: GapBook
    time: Time
    busy: set[Series] = attrs.field(factory=set)
    """Series that somebody is asking about."""
    answered: dict[Series, list[tuple[Millis, Millis, float]]] = attrs.field(factory=dict)
    """Pages (since, until) that have been answered, and when the ledger surely knows of it."""
    waits: dict[tuple[Series, Millis], tuple[float, float]] = attrs.field(factory=dict)
    """(series, the end of what is open) → when it may be asked about again, and how long it waited last."""
    asked: dict[Series, float] = attrs.field(factory=dict)
    """When each series was last asked about."""
    barren: dict[Series, tuple[int, float]] = attrs.field(factory=dict)
    """Series of which the last fills proved nothing: how many, and until when the series rests."""
    unwell: bool = False
    """Whether the venue's last answer was none."""
    vouched: set[Series] = attrs.field(factory=set)
    """Series of which a page was told twice, alike: later ones overlap with what is stored of it."""

    def next_job(self) -> _Job | None:
        """The newest page that is worth asking for now, of the series that was asked about the longest ago.

        Young pages first: no minute is to stay open for long, however much else there is to fill.
        """
        now, moment = self.time.now(), trio.current_time()
        gaps = self.book.gaps.get(self.history.name, [])
        ready: dict[Series, tuple[Millis, Millis]] = {}
        for gap in gaps:
            if gap.series in self.busy or gap.series in ready or self.barren.get(gap.series, (0, 0.0))[1] > moment:
                continue
            for since, until in self._unanswered(gap, moment):
                newest = next(iter(self.history.windows(since, until, now)), None)
                if newest is not None and not self._waits(gap.series, newest[1], moment):
                    ready[gap.series] = newest
                    break
        if not ready:
            return None
        series = min(ready, key=lambda one: (ready[one][1] <= now - YOUNG, self.asked.get(one, float("-inf"))))
        self.asked[series] = moment
        return self._page(series, *ready[series], gaps, now, moment)

    def _waits(self, series: Series, until: Millis, moment: float) -> bool:
        return self.waits.get((series, until), (0.0, 0.0))[0] > moment

    def _unanswered(self, gap: Gap, moment: float) -> list[tuple[Millis, Millis]]:
        """What is left of *gap* beside the pages that have just been answered, newest first."""
        spans = [(gap.since, gap.until)]
        for since, until, known in self.answered.get(gap.series, ()):
            if known > moment:
                spans = [
                    (low, high)
                    for begin, end in spans
                    for low, high in ((max(begin, until), end), (begin, min(end, since)))
                    if low < high
                ]
        return spans

    def _page(
        self, series: Series, since: Millis, until: Millis, gaps: Sequence[Gap], now: Millis, moment: float
    ) -> _Job:
        """The page that ends at *until*, begun early enough to cover the series' older gaps that fit in.

        Not those that wait: a venue that is asked about the oldest holes first would never come to the others.
        """
        reach = min(gap.since for gap in gaps if gap.series == series)
        lowest, _ = next(iter(self.history.windows(reach, until, now)), (since, until))
        fitting = [gap for gap in gaps if gap.series == series and gap.since < until and gap.until > lowest]
        eager = [gap.since for gap in fitting if not self._waits(series, gap.until, moment)]
        begin = max(lowest, min([since, *eager]))
        return _Job(series, begin, until, tuple(gap for gap in fitting if gap.until > begin))

    def may_believe(self, job: _Job) -> bool:
        """Whether one answer about *job* is enough. The ledger holds one that names no market against what is stored
        beside it; where that could not be, there has been an attempt in vain.
        """
        if not self.history.anonymous:
            return True
        return job.series in self.vouched and not any(gap.attempts for gap in job.gaps)

    def answered_well(self) -> None:
        """The venue is well: if it was not, what waited because of that need wait no longer."""
        if self.unwell:
            self.unwell = False
            self.waits.clear()
            self.barren.clear()

    def proved(self, series: Series, minutes: int) -> None:
        """A fill proved *minutes* of *series*' gaps. If a few in a row prove none, the series rests: a gap that grows,
        as that of a market which is closed, would be asked for anew with each minute, page by page.
        """
        if minutes:
            self.barren.pop(series, None)
            return
        count = self.barren.get(series, (0, 0.0))[0] + 1
        rest = FIRST_RETRY * 2.0 ** min(count - BARREN_FILLS, 10) if count >= BARREN_FILLS else 0.0
        self.barren[series] = (count, trio.current_time() + min(rest, LAST_RETRY_WHILE_YOUNG))

    def done(self, job: _Job, still_open: Iterable[Millis], unreached: Iterable[Missing]) -> None:
        """*job* is over; what ends at *still_open* may be asked about later, twice as late as the last time, and what
        was *unreached* (ascending) at once.
        """
        moment = trio.current_time()
        known = moment + wall_floor(KNOWN_SECONDS, KNOWN_WALL_SECONDS * self.time.speed)
        answered = [page for page in self.answered.get(job.series, ()) if page[2] > moment]
        begin = job.since
        for part in unreached:
            answered.append((begin, part.since, known))
            begin = part.until
        self.answered[job.series] = [*answered, (begin, job.until, known)]
        waited = self.waits.pop((job.series, job.until), (0.0, FIRST_RETRY / 2))[1]
        young = job.until > self.time.now() - YOUNG
        wait = min(2 * waited, LAST_RETRY_WHILE_YOUNG if young else LAST_RETRY)
        for end in still_open:
            self.waits[job.series, end] = (moment + wait, wait)
        if len(self.waits) > 10_000:
            self.waits = {key: one for key, one in self.waits.items() if one[0] + LAST_RETRY > moment}


async def fill_gaps(
    history: History,
    network: Network,
    urls: RestUrls,
    book: GapBook,
    state: VenueState,
    time: Time,
    chance: random.Random,
) -> None:
    """Close *history*'s venue's gaps as far as its record reaches, and compare what is stored with it; for ever."""
    filler = _Filler(history, book, time)
    async with open_rest(network, urls, history.rates, history.penalty) as rest, trio.open_nursery() as nursery:
        for number in range(WORKERS):
            backoff = Backoff(random.Random(chance.random()))
            nursery.start_soon(work, filler, rest, state, backoff, name=f"{history.name}/gaps {number}")
        backoff = Backoff(random.Random(chance.random()))
        nursery.start_soon(keep_comparing, history, rest, book, state, time, backoff, name=f"{history.name}/confirm")


async def work(filler: _Filler, rest: Rest, state: VenueState, backoff: Backoff) -> None:
    """Ask for one page after another, for ever."""
    while True:
        await state.room()
        job = filler.next_job()
        if job is None:
            with trio.move_on_after(IDLE_SECONDS):
                await filler.book.news.wait()
            continue
        filler.busy.add(job.series)
        try:
            unwell = await fill(filler, rest, state, job)
        finally:
            filler.busy.discard(job.series)
        if unwell:
            filler.unwell = True
            await trio.sleep(backoff.next())
        else:
            backoff.reset()
            filler.answered_well()


async def fill(filler: _Filler, rest: Rest, state: VenueState, job: _Job) -> bool:
    """Ask about *job* and pass on what is proven; whether the venue was not well."""
    error, filled, refusal, believed = "", None, None, filler.may_believe(job)
    try:
        filled, refusal = await ask(filler, rest, state, job)
    except Refusal as raised:
        refusal = raised
    except Misunderstood as misunderstood:
        error = str(misunderstood)
    if refusal is not None:
        error = f"{type(refusal).__name__}: {refusal}"
    unwell = isinstance(refusal, (Throttled, Unavailable))
    still_open, unreached, proven = [job.until], [], 0
    if filled is not None:
        # What was not reached within one fill's requests is simply the next one's; the rest has failed for now.
        failed = [part for part in filled.missing if part.why != Why.NOT_REACHED]
        still_open = [missing.until for missing in failed] or still_open
        state.add(findings(filler.history, job, filled, failed, not believed))
        proven = minutes_of_gaps(filled, job.gaps)
        state.board.backfill.add(proven, filler.time.now())
        if not error and (proven or failed):  # else the next fill would not get any further, either
            unreached = [missing for missing in filled.missing if missing.why == Why.NOT_REACHED]
        if failed:
            log.info(
                "%s is not all known: %s", job.series, "; ".join(sorted({printable(missing.why) for missing in failed}))
            )
    if error:
        span = f"{utc_text(job.since)} to {utc_text(job.until)}"
        log.info("%s is not all known from %s: %s", job.series, span, printable(error))
        state.add([Attempt(job.series, job.since, job.until, printable(error))])
    filler.proved(job.series, proven)
    filler.done(job, still_open if error or (filled is not None and failed) else (), unreached)
    return unwell


async def ask(filler: _Filler, rest: Rest, state: VenueState, job: _Job) -> tuple[Filled | None, Refusal | None]:
    """What the venue says of *job*, as far as it is believed, and what ended the conversation before its end.

    Where its answers do not name their market, the first one about a series has nothing stored to be held against, and
    others may not: they are asked for twice, and believed if both times the same was said. What breaks a rule is
    rejected whether they are believed or not. Rows are no worse for a later question that was refused, about trades or
    a listing; they are all that is asked for again then, for that question would be refused again.
    """
    history, refusal, using = filler.history, None, Using.ALL
    try:
        filled = await converse(rest, history.fill(job.series, job.since, job.until, filler.time.now()))
    except Refusal as raised:
        if raised.proven is None:
            raise
        refusal, filled, using = raised, raised.proven, Using.ROWS
    state.reject(filled.rejected)
    if filler.may_believe(job):
        return filled, refusal
    if refusal is not None and (not filled.candles or isinstance(refusal, Throttled)):
        return None, refusal
    if filled.candles:
        try:
            again = await converse(rest, history.fill(job.series, job.since, job.until, filler.time.now(), using))
        except Refusal as raised:  # OKX has rows on two endpoints: one may refuse each time
            if raised.proven is None or isinstance(raised, Throttled):
                raise
            refusal, again = refusal or raised, raised.proven
        known = {candle.open_time: candle for candle in filled.candles}
        both = [candle for candle in again.candles if candle.open_time in known]
        if not both or not all(candle.same_as(known[candle.open_time]) for candle in both):
            raise Misunderstood("told_differently", f"two answers about {job.series} are not the same")
        filler.vouched.add(job.series)
    return filled, refusal


def findings(history: History, job: _Job, filled: Filled, failed: Iterable[Missing], twice: bool) -> Iterable[Finding]:
    """What the ledger is to know of an answer, in an order in which it makes sense."""
    yield Page(
        job.series, job.since, job.until, filled.candles, filled.empties,
        anonymous=history.anonymous, twice=twice, conclusive=False, listed=filled.listed,
    )  # fmt: skip
    for missing in failed:
        if missing.why == Why.BEFORE_FIRST and filled.listed is not None:
            continue  # the ledger judges the listing, and notes the attempt if it does not believe it
        yield Attempt(job.series, missing.since, missing.until, printable(missing.why), absent=missing.why in ABSENT)


def minutes_of_gaps(filled: Filled, gaps: Sequence[Gap]) -> int:
    """How many minutes of *gaps* are proven."""
    spans = [(candle.open_time, candle.close_time) for candle in filled.candles]
    spans += [(empty.since, empty.until) for empty in filled.empties]
    lengths = (min(until, gap.until) - max(since, gap.since) for since, until in spans for gap in gaps)
    return sum(max(length, 0) for length in lengths) // MINUTE
