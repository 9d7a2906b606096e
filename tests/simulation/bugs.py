"""Faults planted into the product: each must be found, or the net has a hole.

A bug replaces what the service is given (feeds, histories, network, store, disk, chance); nothing is patched.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
import msgspec

from simulation.day_misreadings import (
    forget_a_day,
    forget_empties,
    forgets_digests,
    forgets_evidence,
    forgets_to_open,
    scrubs_nothing,
    seals_early,
    seals_gaps,
)
from simulation.feed_misreadings import (
    counts_a_run_as_one,
    forgets_what_was_told,
    keeps_revisions_to_itself,
    stands_still,
    tells_before_it_is_so,
    tells_what_is_not_complete,
)
from simulation.misreadings import (
    BelievesJumps,
    BelievesWhatWasVouched,
    BelievesZeroRows,
    ColumnsAreCounted,
    DeafToTheFeed,
    OddRowCostsThePage,
    OddRowIsEmpty,
    a_cache_is_a_witness,
    as_long_as_told,
    one_pool,
    throw_away_what_was_visited,
)
from trio_candles.candles.model import MINUTE, Attempt, Empty, Millis, Page
from trio_candles.clock import Time
from trio_candles.collector.vouching import Vouching
from trio_candles.network.websocket import Network, Socket
from trio_candles.store.journal import Judged
from trio_candles.store.store import Store, StoreUnavailable
from trio_candles.venues.history import Answer, Fill, Filled, History, Rate, Request
from trio_candles.venues.protocol import Event, FeedProtocol, Heartbeat, Lost, Misunderstood, Row, Traded
from trio_candles.venues.venue import Venue

if TYPE_CHECKING:
    from simulation.life import World
    from simulation.machine import Machine

__all__ = ["BUGS", "NONE", "Bug", "SealsNothing"]

T = TypeVar("T")


def _same(thing: T) -> T:
    return thing


def _own_threads(world: World) -> Any:
    return world.machine.offload


def _nothing(*_: object) -> None:
    pass


@attrs.frozen
class Bug:
    """What to replace, and by what; as made, nothing."""

    ignores: str = ""
    """What the disk does not do: ``file sync``, ``folder sync``, ``journal sync``, ``read back``, ``remove``."""
    feeds: Mapping[str, Callable[[FeedProtocol], Any]] = attrs.field(factory=dict)
    histories: Callable[[History], Any] = _same
    store: Callable[[Store], Any] = _same
    network: Callable[[Network], Any] = _same
    before_a_start: Callable[[Path], object] = _same
    after_a_start: Callable[[Store, Machine], object] = _nothing
    offload: Callable[[World], Any] = _own_threads
    clock: Callable[[Time], Vouching] = Vouching
    follower: Callable[[Any], Any] = _same

    def over_venues(self, venues: Mapping[str, Venue]) -> dict[str, Venue]:
        """The venues, this life's."""
        return {
            name: attrs.evolve(
                venue, feed=self.feeds.get(name, _same)(venue.feed), history=self.histories(venue.history)
            )
            for name, venue in venues.items()
        }


class _Over:
    """Something of the product's, but for what a subclass says."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


# --- feeds ------------------------------------------------------------------------------------------------


class StoresForming(_Over):
    """Takes OKX's forming rows for closed ones."""

    def read(self, text: str) -> Sequence[Event]:
        return self.inner.read(text.replace('"0"]]', '"1"]]'))


class TakesEndForBegin(_Over):
    """Reads Kraken's ``timestamp``, the end of a row, as its beginning."""

    def read(self, text: str) -> Sequence[Event]:
        return [
            msgspec.structs.replace(one, open_time=one.close_time, close_time=Millis(one.close_time + MINUTE))
            if isinstance(one, Row)
            else one
            for one in self.inner.read(text)
        ]


class BelievesEveryBeat(_Over):
    """Takes a heartbeat for the proof that nothing is missing, whatever id it names."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.newest: Counter[str] = Counter()

    def read(self, text: str) -> Sequence[Event]:
        events = list(self.inner.read(text))
        for number, event in enumerate(events):
            if isinstance(event, Traded):
                self.newest[event.symbol] = max(self.newest[event.symbol], event.trade.trade_id)
            elif isinstance(event, Heartbeat):
                events[number] = attrs.evolve(event, last_trade_id=self.newest[event.symbol])
        return events


class CountsForItself(_Over):
    """Forgets what the time without a connection may have cost: numbers the trades itself."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.ids: dict[tuple[str, int], int] = {}
        self.count: Counter[str] = Counter()

    def _own(self, symbol: str, trade_id: int) -> int:
        if (symbol, trade_id) not in self.ids:
            self.count[symbol] += 1
            self.ids[symbol, trade_id] = self.count[symbol]
        return self.ids[symbol, trade_id]

    def read(self, text: str) -> Sequence[Event]:
        events = list(self.inner.read(text))
        for number, event in enumerate(events):
            if isinstance(event, Traded):
                own = self._own(event.symbol, event.trade.trade_id)
                events[number] = attrs.evolve(event, trade=attrs.evolve(event.trade, trade_id=own))
            elif isinstance(event, Heartbeat):
                events[number] = attrs.evolve(event, last_trade_id=self.count[event.symbol])
        return events


class Swallows(_Over):
    """One venue's reader dies of the first bad message, and nobody hears of it."""

    dead = False

    def read(self, text: str) -> Sequence[Event]:
        if self.dead:
            return ()
        try:
            return self.inner.read(text)
        except Misunderstood:
            self.dead = True
            return ()


class StaleWatchdog(_Over):
    """The watchdog belongs to the first connection, and watches no other."""

    asked = 0

    def subscribe(self, symbols: Sequence[str], request: int) -> Iterator[str]:
        self.asked = request
        return self.inner.subscribe(symbols, request)

    @property
    def limits(self) -> Any:
        limits = self.inner.limits
        return limits if self.asked <= 1 else attrs.evolve(limits, silence=1e9, ping_after=None, symbol_silence=None)


class Insists(_Over):
    """Tries again at once where a connection cannot be had."""

    @asynccontextmanager
    async def connect(self, url: str) -> AsyncIterator[Socket]:
        async with AsyncExitStack() as stack:
            for left in reversed(range(10)):
                try:
                    socket = await stack.enter_async_context(self.inner.connect(url))
                    break
                except* Lost:
                    if not left:
                        raise
            yield socket


# --- REST -------------------------------------------------------------------------------------------------


class BelievesSilence(_Over):
    """Takes a page that says nothing of a minute for the proof that nothing traded in it."""

    def fill(self, series: Any, since: Millis, until: Millis, now: Millis, *more: Any) -> Fill:
        filled: Filled = yield from self.inner.fill(series, since, until, now, *more)
        told = [Empty(series, one.since, one.until, "no row") for one in filled.missing]
        return attrs.evolve(filled, empties=tuple(sorted((*filled.empties, *told), key=_since)), missing=())


def _since(span: Empty) -> Millis:
    return span.since


class OffByOne(_Over):
    """Takes the end of a page for the last minute on it, and never asks for that one."""

    def windows(self, since: Millis, until: Millis, now: Millis) -> Iterator[tuple[Millis, Millis]]:
        for low, high in self.inner.windows(since, until, now):
            if low < high - MINUTE:
                yield low, Millis(high - MINUTE)


class EdgeIsEmpty(_Over):
    """Asks for one minute too few, and takes the one that does not come for empty."""

    def fill(self, series: Any, since: Millis, until: Millis, now: Millis, *more: Any) -> Fill:
        edge = Millis(until - MINUTE)
        if edge <= since:
            return (yield from self.inner.fill(series, since, until, now, *more))
        filled: Filled = yield from self.inner.fill(series, since, edge, now, *more)
        empties = (one for one in filled.empties if one.until <= edge)
        return attrs.evolve(
            filled,
            candles=tuple(one for one in filled.candles if one.open_time < edge),
            empties=(*empties, Empty(series, edge, until, "no row")),
        )


class BelievesForming(_Over):
    """Asks at once, and takes whatever row comes for a closed one."""

    def windows(self, since: Millis, until: Millis, now: Millis) -> Iterator[tuple[Millis, Millis]]:
        return self.inner.windows(since, until, Millis(now + MINUTE))

    def fill(self, series: Any, since: Millis, until: Millis, now: Millis, *more: Any) -> Fill:
        questions = self.inner.fill(series, since, until, Millis(now + 2 * MINUTE), *more)
        try:
            request: Request = next(questions)
            while True:
                answer: Answer = yield request
                request = questions.send(attrs.evolve(answer, body=answer.body.replace(b'"0"]', b'"1"]')))
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]


class BelievesAnyMarket(_Over):
    """Takes every answer for one about the market that was asked for."""

    anonymous = False


class Greedy(_Over):
    """Knows no limit of questions."""

    @property
    def rates(self) -> Mapping[str, Rate]:
        return {name: Rate(rate.per_second * 50, 1000, False) for name, rate in self.inner.rates.items()}


# --- the store --------------------------------------------------------------------------------------------


class AcknowledgesEarly(_Over):
    """Says that a batch is stored, and stores it with the next one."""

    held: tuple[Any, ...] | None = None

    def commit(self, *batch: Any) -> Judged:
        held, self.held = self.held, batch
        return Judged() if held is None else self.inner.commit(*held)

    def waiting(self) -> Any:
        if self.held is not None:
            self.commit(*self.held)
            self.held = None
        return self.inner.waiting()


class IgnoresErrors(_Over):
    """Takes a commit that failed for done."""

    def commit(self, *batch: Any) -> Judged:
        try:
            return self.inner.commit(*batch)
        except StoreUnavailable:
            return Judged()


class AskedIsFilled(_Over):
    """Takes a gap that was asked about for one that is closed."""

    def commit(self, verdicts: Sequence[Any], *more: Any) -> Judged:
        return self.inner.commit(
            [Empty(one.series, one.since, one.until, "asked") if isinstance(one, Attempt) else one for one in verdicts],
            *more,
        )


class _Rewrites(_Over):
    """Commits something else than it is given."""

    def commit(self, verdicts: Sequence[Any], *more: Any) -> Judged:
        changed = [self.changed(one) for one in verdicts]
        return self.inner.commit([one for one in changed if one is not None], *more)

    def changed(self, one: Any) -> Any:
        raise NotImplementedError


class NeverReplaces(_Rewrites):
    """Takes no answer of REST for the last word on what was heard live."""

    def changed(self, one: Any) -> Any:
        return attrs.evolve(one, conclusive=False) if isinstance(one, Page) else one


class ComparesNothing(_Rewrites):
    """Hears of a page only what fills gaps, and takes the rest for confirmed."""

    def changed(self, one: Any) -> Any:
        if not isinstance(one, Page):
            return one
        gaps = self.inner.journal.gaps_of(one.series)
        wanted = (c for c in one.candles if any(since <= c.open_time < until for since, until in gaps))
        return attrs.evolve(one, candles=tuple(wanted), anonymous=False)


class GivesUp(_Rewrites):
    """Takes every answer that did not help for the venue's word that it has nothing."""

    def changed(self, one: Any) -> Any:
        return attrs.evolve(one, absent=True) if isinstance(one, Attempt) else one


class ForgetsListings(_Rewrites):
    """Does not remember when a market began."""

    def changed(self, one: Any) -> Any:
        return attrs.evolve(one, listed=None) if isinstance(one, Page) else one


class SealsNothing(_Over):
    """Seals no day: no fault, but what the versions before sealed days did."""

    def sealable(self, *_: object) -> list[Any]:
        return []


class DerivesOnce(_Over):
    """Derives aggregates when candles come, and never again when a minute turns out to have been empty."""

    def underived(self) -> list[Any]:
        return []


def forget_the_log(root: Path) -> None:
    """Opens the journal without what is only in its log."""
    (root / "journal.sqlite3-wal").unlink(missing_ok=True)


NONE = Bug()

BUGS: dict[str, Bug] = {
    "no_fsync": Bug(ignores="file sync"),
    "no_folder_fsync": Bug(ignores="folder sync"),
    "no_journal_fsync": Bug(ignores="journal sync"),
    "no_reading_back": Bug(ignores="read back"),
    "leaves_temporaries": Bug(ignores="remove"),
    "forgets_the_log": Bug(before_a_start=forget_the_log),
    "acknowledges_early": Bug(store=AcknowledgesEarly),
    "ignores_store_errors": Bug(store=IgnoresErrors),
    "asked_is_filled": Bug(store=AskedIsFilled),
    "stores_forming": Bug(feeds={"okx": StoresForming}),
    "takes_end_for_begin": Bug(feeds={"kraken": TakesEndForBegin}),
    "believes_every_beat": Bug(feeds={"coinbase": BelievesEveryBeat}),
    "forgets_the_reconnection": Bug(feeds={"coinbase": CountsForItself}),
    "swallows_an_exception": Bug(feeds={"okx": Swallows}),
    "stale_watchdog": Bug(feeds=dict.fromkeys(("coinbase", "kraken", "okx"), StaleWatchdog)),
    "no_backoff": Bug(network=Insists),
    "believes_an_empty_page": Bug(histories=BelievesSilence),
    "page_edge_never_asked": Bug(histories=OffByOne),
    "page_edge_is_empty": Bug(histories=EdgeIsEmpty),
    "believes_forming_rows": Bug(histories=BelievesForming),
    "exceeds_rest_limits": Bug(histories=Greedy),
    "believes_any_market": Bug(histories=BelievesAnyMarket),
    "never_replaces": Bug(store=NeverReplaces),
    "compares_nothing": Bug(store=ComparesNothing),
    "gives_up": Bug(store=GivesUp),
    "forgets_listings": Bug(store=ForgetsListings),
    "derives_once": Bug(store=DerivesOnce),
    "tells_before_it_is_so": Bug(store=tells_before_it_is_so),
    "forgets_what_was_told": Bug(store=forgets_what_was_told),
    "counts_a_run_as_one": Bug(store=counts_a_run_as_one),
    "keeps_revisions_to_itself": Bug(store=keeps_revisions_to_itself),
    "tells_what_is_not_complete": Bug(store=tells_what_is_not_complete),
    "stands_still": Bug(follower=stands_still),
    "believes_zero_rows": Bug(histories=BelievesZeroRows),
    "odd_row_costs_the_page": Bug(histories=OddRowCostsThePage),
    "odd_row_is_empty": Bug(histories=OddRowIsEmpty),
    "columns_are_counted": Bug(histories=ColumnsAreCounted),
    "a_cache_is_a_witness": Bug(network=a_cache_is_a_witness),
    "deaf_to_the_feed": Bug(histories=DeafToTheFeed),
    "as_long_as_told": Bug(network=as_long_as_told),
    "throws_away_what_was_visited": Bug(before_a_start=throw_away_what_was_visited),
    "one_pool_of_threads": Bug(offload=one_pool),
    "believes_the_clock": Bug(clock=partial(Vouching, vouched=True)),
    "believes_a_jump": Bug(clock=BelievesJumps),
    "seals_gaps": Bug(store=seals_gaps),
    "seals_early": Bug(store=seals_early),
    "forgets_evidence": Bug(store=forgets_evidence),
    "forgets_to_open": Bug(store=forgets_to_open),
    "forgets_digests": Bug(store=forgets_digests),
    "scrubs_nothing": Bug(store=scrubs_nothing),
    "forgets_empties": Bug(after_a_start=forget_empties),
    "upgrade_skips_a_day": Bug(after_a_start=forget_a_day),
    "believes_a_stale_witness": Bug(clock=BelievesWhatWasVouched),
}
"""By name; what each gets wrong is in its class."""
