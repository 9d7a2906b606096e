"""Open gaps → REST → verdicts: one venue's gap-filler, a sibling of its sockets that survives them.

It knows what the ledger knows (:class:`~trio_candles.writer.GapBook`), asks page by page, newest gap first, and
puts what an answer proves where the sockets put theirs: the writer closes the gaps. What an answer does not prove
stays open, is counted as an attempt, and is asked again later, ever more rarely.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Iterable, Iterator, Sequence

import attrs
import trio

from trio_candles.clock import Time
from trio_candles.desk import Desk
from trio_candles.model import Attempt, Gap, Millis, Series, Verdict, printable, utc_text
from trio_candles.network import Backoff, Network
from trio_candles.rest import Rest, open_rest
from trio_candles.venues.history import Filled, History, Refusal, Throttled, Unavailable, Why
from trio_candles.venues.protocol import Misunderstood
from trio_candles.writer import GapBook

__all__ = ["fill_gaps"]

log = logging.getLogger(__name__)

WORKERS = 4
"""Questions under way at once: enough to keep a budget of ten a second busy at a round trip of 0.4 s."""
IDLE_SECONDS = 5.0
"""Between two looks at the ledger's gaps while there is nothing to ask."""
KNOWN_SECONDS = 15.0
"""After which the ledger, and the list of gaps drawn from it, know what an answer proved; seldom more than six."""
FIRST_RETRY, LAST_RETRY = 30.0, 600.0
"""Seconds until a gap that an answer did not close is asked about again: doubling, each time."""


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
    answered: list[tuple[Series, Millis, Millis, float]] = attrs.field(factory=list)
    """Pages (series, since, until) that have been answered, and when the ledger surely knows of it."""
    waits: dict[tuple[Series, Millis], tuple[float, float]] = attrs.field(factory=dict)
    """(series, the end of what is open) → when it may be asked about again, and how long it waited last."""

    def next_job(self) -> _Job | None:
        """The newest page that is worth asking for now."""
        now, moment = self.time.now(), trio.current_time()
        self.answered = [page for page in self.answered if page[3] > moment]
        gaps = self.book.gaps.get(self.history.name, [])
        for gap in gaps:
            if gap.series in self.busy:
                continue
            for since, until in self._unanswered(gap):
                newest = next(iter(self.history.windows(since, until, now)), None)
                if newest is not None and self.waits.get((gap.series, newest[1]), (0.0, 0.0))[0] <= moment:
                    return self._page(gap.series, *newest, gaps, now)
        return None

    def _unanswered(self, gap: Gap) -> list[tuple[Millis, Millis]]:
        """What is left of *gap* beside the pages that have just been answered, newest first."""
        spans = [(gap.since, gap.until)]
        for series, since, until, _ in self.answered:
            if series == gap.series:
                spans = [
                    (low, high)
                    for begin, end in spans
                    for low, high in ((max(begin, until), end), (begin, min(end, since)))
                    if low < high
                ]
        return spans

    def _page(self, series: Series, since: Millis, until: Millis, gaps: Sequence[Gap], now: Millis) -> _Job:
        """The page that ends at *until*, begun early enough to cover the series' older gaps that fit in."""
        reach = min(gap.since for gap in gaps if gap.series == series)
        lowest, _ = next(iter(self.history.windows(reach, until, now)), (since, until))
        covered = tuple(gap for gap in gaps if gap.series == series and gap.since < until and gap.until > lowest)
        return _Job(series, max(lowest, min(gap.since for gap in covered)), until, covered)

    def done(self, job: _Job, still_open: Iterable[Millis]) -> None:
        """*job* is over; what ends at *still_open* may be asked about later, twice as late as the last time."""
        moment = trio.current_time()
        self.answered.append((job.series, job.since, job.until, moment + KNOWN_SECONDS))
        waited = self.waits.pop((job.series, job.until), (0.0, FIRST_RETRY / 2))[1]
        wait = min(2 * waited, LAST_RETRY)
        for end in still_open:
            self.waits[job.series, end] = (moment + wait, wait)
        if len(self.waits) > 10_000:
            self.waits = {key: one for key, one in self.waits.items() if one[0] + LAST_RETRY > moment}


async def fill_gaps(
    history: History, network: Network, url: str, book: GapBook, desk: Desk, time: Time, chance: random.Random
) -> None:
    """Close *history*'s venue's gaps as far as its record reaches, for ever."""
    filler = _Filler(history, book, time)
    async with open_rest(network, url, history.rates, history.penalty) as rest, trio.open_nursery() as nursery:
        for number in range(WORKERS):
            backoff = Backoff(random.Random(chance.random()))
            nursery.start_soon(work, filler, rest, desk, backoff, name=f"{history.name}/gaps {number}")


async def work(filler: _Filler, rest: Rest, desk: Desk, backoff: Backoff) -> None:
    """Ask for one page after another, for ever."""
    while True:
        job = filler.next_job()
        if job is None:
            await trio.sleep(IDLE_SECONDS)
            continue
        filler.busy.add(job.series)
        try:
            unwell = await fill(filler, rest, desk, job)
        finally:
            filler.busy.discard(job.series)
        if unwell:
            await trio.sleep(backoff.next())
        else:
            backoff.reset()


async def fill(filler: _Filler, rest: Rest, desk: Desk, job: _Job) -> bool:
    """Ask about *job* and pass on what is proven; whether the venue was not well."""
    error, unwell, still_open = "", False, [job.until]
    try:
        filled: Filled | None = await converse(filler.history, rest, job, filler.time.now())
    except Refusal as refusal:
        filled, error = refusal.proven, f"{type(refusal).__name__}: {refusal}"
        unwell = isinstance(refusal, (Throttled, Unavailable))
    except Misunderstood as misunderstood:
        filled, error = None, str(misunderstood)
    if filled is not None:
        desk.add(asked_for(filled, job.gaps))
        # What was not reached within one fill's requests is simply the next one's; the rest has failed for now.
        failed = [missing for missing in filled.missing if missing.why != Why.NOT_REACHED]
        still_open = [missing.until for missing in failed] or still_open
        error = error or "; ".join(sorted({missing.why for missing in failed}))
    filler.done(job, still_open if error else ())
    if error:
        log.info(
            "%s is not all known from %s to %s: %s",
            job.series,
            utc_text(job.since),
            utc_text(job.until),
            printable(error),
        )
        desk.add([Attempt(job.series, job.since, job.until, error[:500])])
    return unwell


async def converse(history: History, rest: Rest, job: _Job, now: Millis) -> Filled:
    """Lead one fill to its end: each of its questions asked, each answer or failure given back to it."""
    conversation = history.fill(job.series, job.since, job.until, now)
    try:
        request = next(conversation)
        while True:
            try:
                answer = await rest.ask(request)
            except Unavailable as error:
                request = conversation.throw(error)
            else:
                request = conversation.send(answer)
    except StopIteration as end:
        filled: Filled = end.value
        return filled
    except Throttled as error:
        rest.throttled(error)
        raise


def asked_for(filled: Filled, gaps: Sequence[Gap]) -> Iterator[Verdict]:
    """What was proven about the minutes of *gaps*, and nothing else: other minutes are not in question."""
    for candle in filled.candles:
        if any(gap.since <= candle.open_time < gap.until for gap in gaps):
            yield candle
    for empty in filled.empties:
        for gap in gaps:
            since, until = max(empty.since, gap.since), min(empty.until, gap.until)
            if since < until:
                yield attrs.evolve(empty, since=since, until=until)
