"""Open gaps → REST → what its answers prove: one venue's gap-filler, a sibling of its sockets that outlives each.

::

         ledger (store/gaps.py)          backlog (writer)              here
    ┌───────────────────────────┐   ┌──────────────────────┐   ┌──────────────────────┐
    │ due ── page of a series ──┼──▶│ due ─────────────────┼──▶│ asked, answer passed │
    │  ▲                        │   │  ▲                   │   │ on to the writer     │
    │  │ the wait is over       │   │  │ looked at again   │   └──────────┬───────────┘
    │ waits ◀── asked in vain ──┼───┼─ busy ◀── committed ─┼──────────────┘
    └───────────────────────────┘   └──────────────────────┘

The ledger decides when a gap may be asked about, because what the ledger knows outlives this task. Which series is
asked about next, of those with something due, is decided here (:meth:`Filler.next_page`). Of each series one question
is under way at most, from the asking until the ledger has the answer. What an answer proves goes into the outbox into
which the sockets' verdicts go, and the writer closes the gaps; what an answer does not prove goes there as an
:class:`Attempt`, and that span waits, longer after each attempt. While the venue is unwell (gives no answer, or calls
us too fast) the gaps do not wait longer for it; the workers do, each by itself.

Invariant: of each :data:`OTHERS_EVERY` questions one is about the series that was asked about the longest ago. So a
series with something due waits for at most so many questions for each series of the venue, and a gap that nobody can
fill keeps no other waiting. (No stricter rule holds: a series with a young gap every minute is asked about more often.)

Beside the gap-filler, at a tenth of the pace, :mod:`trio_candles.collector.confirm` compares what is stored. Why a
minute became a gap is decided elsewhere: see :mod:`trio_candles.collector.venue_state`.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Iterable

import attrs
import trio

from trio_candles.candles.model import MINUTE, Attempt, Finding, Millis, Page, Series, printable, utc_text
from trio_candles.collector.backlog import Backlog
from trio_candles.collector.confirm import keep_comparing
from trio_candles.collector.horizon import look_beyond
from trio_candles.collector.venue_state import VenueState
from trio_candles.network.pacing import Backoff
from trio_candles.network.rest import Rest, converse, open_rest
from trio_candles.network.websocket import Network
from trio_candles.store.gaps import PATIENT, YOUNG, Due
from trio_candles.venues.history import (
    ABSENT,
    Fill,
    Filled,
    History,
    Missing,
    Refusal,
    RestUrls,
    Shown,
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
OTHERS_EVERY = 4
"""One question in so many is about the series that was asked about the longest ago, be its gap young or old."""


@attrs.define
class Filler:
    """What the workers of one venue share."""

    backlog: Backlog
    asked: dict[Series, float] = attrs.field(factory=dict)
    """When each series was last asked about, on trio's clock; a new run begins the turns anew, so the ledger has
    none."""
    turn: int = 0
    vouched: set[Series] = attrs.field(factory=set)
    """Series of which one page was answered twice, alike: later pages overlap with what is stored of that one."""
    shown: dict[Series, Shown] = attrs.field(factory=dict)
    """What the latest answers about each series showed of its newest trade."""
    oldest: dict[Series, Millis] = attrs.field(factory=dict)
    """The oldest minute of each series that any answer knew something of."""

    @property
    def history(self) -> History:
        """The venue's record."""
        return self.backlog.history

    def next_page(self, now: Millis) -> Due | None:
        """The page to ask for *now*, of the series that was asked about the longest ago; ``None`` if nothing is due.

        Young minutes that nobody has asked about, and that were patient (:data:`PATIENT`), go first: no minute is to
        stay open for long, however much else there is to fill. Until then they have their series' turn, so that a page
        closes many of them at once. But one question in :data:`OTHERS_EVERY` goes by turns alone: a thousand symbols
        whose every minute is a gap would otherwise leave no time for older gaps.
        """
        ready = [page for page in self.backlog.due.values() if page.series not in self.backlog.busy]
        if not ready:
            return None
        self.turn += 1
        young = now - YOUNG if self.turn % OTHERS_EVERY else float("inf")
        page = min(ready, key=lambda one: self._turn(one, young, now - PATIENT))
        self.asked[page.series] = trio.current_time()
        self.backlog.busy.add(page.series)
        return page

    def _turn(self, page: Due, young: float, patient: float) -> tuple[bool, float, Millis]:
        """The key of *page* in the order in which pages are asked for, lowest first."""
        hurries = page.fresh and page.until > young and page.since + MINUTE <= patient
        return not hurries, self.asked.get(page.series, float("-inf")), page.until

    def may_believe(self, page: Due) -> bool:
        """Whether one answer about *page* is enough. The ledger holds an answer that names no market against what is
        stored beside the page; where there was nothing to hold it against, the page has an attempt in vain.
        """
        return not self.history.anonymous or (page.series in self.vouched and not page.tried)


async def fill_gaps(
    backlog: Backlog, network: Network, urls: RestUrls, state: VenueState, chance: random.Random
) -> None:
    """Close *backlog*'s venue's gaps as far as its record reaches, and compare what is stored with it; for ever."""
    history, filler = backlog.history, Filler(backlog)
    async with open_rest(network, urls, history.rates, history.penalty) as rest, trio.open_nursery() as nursery:
        for number in range(WORKERS):
            backoff = Backoff(random.Random(chance.random()))
            nursery.start_soon(work, filler, rest, state, backoff, name=f"{history.name}/gaps {number}")
        backoff = Backoff(random.Random(chance.random()))
        nursery.start_soon(keep_comparing, backlog, rest, state, backoff, name=f"{history.name}/confirm")


async def work(filler: Filler, rest: Rest, state: VenueState, backoff: Backoff) -> None:
    """Ask for one page after another, for ever."""
    while True:
        now = await state.room()
        page = filler.next_page(now)
        if page is None:
            await filler.backlog.refreshed.wait()
        elif await fill(filler, rest, state, page, now):
            backoff.reset()
        else:
            await trio.sleep(backoff.next())


async def fill(filler: Filler, rest: Rest, state: VenueState, page: Due, now: Millis) -> bool:
    """Ask for *page* at *now*, hand *state* what is proven and what is not; returns whether the venue was well."""
    error, filled, refusal, twice = "", None, None, not filler.may_believe(page)
    try:
        filled, refusal = await ask(filler, rest, state, page, now)
        if filled is not None and refusal is None:

            async def about(since: Millis, until: Millis) -> Filled:
                moment = state.clock.trusted() or now
                return await converse(rest, filler.history.fill(page.series, since, until, moment))

            filled = await look_beyond(filler.history, about, filler.oldest, page, filled, now)
    except Refusal as raised:
        refusal = raised
    except Misunderstood as misunderstood:
        error = str(misunderstood)
    if refusal is not None:
        error = f"{type(refusal).__name__}: {refusal}"
    unwell = isinstance(refusal, (Throttled, Unavailable))
    if not unwell:
        state.answered(page.series, error or (filled.unclear if filled is not None else None))
    found: list[Finding] = []
    if filled is not None:
        failed = list(not_proven(page, filled))
        found += findings(filler.history, page, filled, failed, twice)
        if failed:
            words = "; ".join(sorted({printable(missing.why) for missing in failed}))
            log.info("%s is not all known: %s", page.series, words)
    if error:
        span = f"{utc_text(page.since)} to {utc_text(page.until)}"
        log.info("%s is not all known from %s: %s", page.series, span, printable(error))
        found.append(Attempt(page.series, page.since, page.until, printable(error), unwell=unwell))
    state.add(found)
    return not unwell


def not_proven(page: Due, filled: Filled) -> Iterable[Missing]:
    """The parts of *page* that *filled* did not prove and that are to wait before they are asked about again.

    A part that one fill's requests did not reach need not wait: the next fill begins there. But the page begins and
    ends with a minute of a gap, and where neither of these was reached the next fill would get no further: then all
    parts wait.
    """
    missing = {minute: part.why for part in filled.missing for minute in (part.since, part.until - MINUTE)}
    stuck = all(missing.get(minute) == Why.NOT_REACHED for minute in (page.since, page.until - MINUTE))
    return (part for part in filled.missing if stuck or part.why != Why.NOT_REACHED)


async def ask(
    filler: Filler, rest: Rest, state: VenueState, page: Due, now: Millis
) -> tuple[Filled | None, Refusal | None]:
    """The venue's answers about *page*, as far as they are believed, and the refusal that ended them early, if one did.
    Each is judged at the moment of its asking; at *now*, when the asking began, if the clock is not believed any more.

    Where answers do not name their market, there may be nothing stored to hold them against (for the first page of a
    series there never is): then the venue is asked twice, and believed if both answers are the same. Candles that
    break a rule are rejected whether the answers are believed or not. A question about trades or a listing that is
    refused makes the rows before it no worse: the second time the rows alone are asked for, because that question
    would be refused again.

    Raises :class:`Refusal` if a question was refused before anything was proven, or if the venue called us too fast the
    second time; :class:`Misunderstood`, also where the two answers differ.
    """
    history, refusal, using = filler.history, None, Using.ALL

    def about_page() -> Fill:
        heard = attrs.evolve(state.heard(page.series), shown=filler.shown.get(page.series))
        moment = state.clock.trusted() or now
        return history.fill(page.series, page.since, page.until, moment, using, heard)

    try:
        filled = await converse(rest, about_page())
    except Refusal as raised:
        if raised.proven is None:
            raise
        refusal, filled, using = raised, raised.proven, Using.ROWS
    if filled.shown is not None:
        filler.shown[page.series] = filled.shown
    state.reject(filled.rejected)
    if filler.may_believe(page):
        return filled, refusal
    if refusal is not None and (not filled.candles or isinstance(refusal, Throttled)):
        return None, refusal
    if filled.candles:
        try:
            again = await converse(rest, about_page())
        except Refusal as raised:  # OKX has rows on two endpoints: one may refuse each time
            if raised.proven is None or isinstance(raised, Throttled):
                raise
            refusal, again = refusal or raised, raised.proven
        known = {candle.open_time: candle for candle in filled.candles}
        both = [candle for candle in again.candles if candle.open_time in known]
        if not both or not all(candle.same_as(known[candle.open_time]) for candle in both):
            raise Misunderstood("told_differently", f"two answers about {page.series} are not the same")
        filler.vouched.add(page.series)
    return filled, refusal


def findings(history: History, page: Due, filled: Filled, failed: Iterable[Missing], twice: bool) -> Iterable[Finding]:
    """What the ledger is to be given of one answer: first the page that it proves, then what it *failed* to prove."""
    yield Page(
        page.series, page.since, page.until, filled.candles, filled.empties,
        anonymous=history.anonymous, twice=twice, conclusive=False, listed=filled.listed,
        first_row=filled.first_row, sampled=history.sampled,
    )  # fmt: skip
    for missing in failed:
        if missing.why == Why.BEFORE_FIRST and filled.listed is not None:
            continue  # the ledger judges the listing, and notes the attempt if it does not believe it
        yield Attempt(page.series, missing.since, missing.until, printable(missing.why), absent=missing.why in ABSENT)
