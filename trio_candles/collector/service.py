"""The whole service as one block: everything that runs, and the order in which it stops.

::

    open_service
    ├ writer      shielded: it gets a deadline, not a cancellation
    └ venues
      ├ clock     notices jumps; says who vouches for the clock, and who does not
      ├ begin     once a venue vouches: what is expected, and since when
      ├ {venue}/time    REST's time as evidence, where the clock is the wall's
      ├ scrub     reads sealed day files again
      ├ status
      └ {venue}   one nursery each (trio_candles.collector.feed)

Leaving the block cancels the venues; each hands over its last verdicts and closes its end of the channel; the writer
finds the channel's end, writes what it has into parquet, and is done. An exception anywhere does the same.
"""

from __future__ import annotations

import logging
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial

import attrs
import trio

from trio_candles.candles.model import DAY, Millis, Series, utc_text
from trio_candles.clock import RELEASED, Time
from trio_candles.collector.backlog import Backlog
from trio_candles.collector.feed import run_feed
from trio_candles.collector.gapfill import fill_gaps
from trio_candles.collector.scrub import keep_scrubbing
from trio_candles.collector.status import Board, VenueBoard, render
from trio_candles.collector.venue_state import VenueState, open_venue_state
from trio_candles.collector.vouching import Vouching, keep_asking_time
from trio_candles.collector.writer import RETRY_SECONDS, Batch, Writing, write_verdicts
from trio_candles.config.load import Config
from trio_candles.network.pacing import wall_floor
from trio_candles.network.websocket import Network
from trio_candles.store.store import Store, StoreUnavailable
from trio_candles.threads import Offload, in_thread
from trio_candles.venues.registry import VENUES
from trio_candles.venues.venue import Venue

__all__ = ["Service", "open_service"]

log = logging.getLogger(__name__)

SHARE = 0.9
"""The share of ``shutdown.timeout_seconds`` for the venues and the writer; the rest is for the journal and the
console."""
FLUSHING_SHARE = 0.7
"""The share of that time until the end of which day files are written: then the writer has time to end by itself."""
DERIVING_SHARE = 0.3
"""The share of that time for aggregates that are behind their minutes: these can wait for the next start."""
WORTH_SAYING = 2.0
"""Seconds after which it is news that nothing was collected: who stops us sooner expects nothing else."""
BATCHES_QUEUED = 16
"""Batches between the feeds and the writer: a few per venue, so that one transaction takes them all. What the
writer has no time for waits in the feeds' outboxes, where it is bounded and visible."""


@attrs.frozen
class Service:
    """A running service: what its status table shows, and what its writer has in hand."""

    board: Board
    writing: Writing
    clock: Vouching


def all_series(config: Config) -> dict[str, list[Series]]:
    """The 1m series to collect, by venue."""
    return {venue.name: [Series(venue.name, symbol) for symbol in venue.symbols] for venue in config.enabled_venues}


@asynccontextmanager
async def open_service(
    config: Config,
    network: Network,
    store: Store,
    time: Time,
    *,
    offload: Offload = in_thread,
    chance: random.Random | None = None,
    show: Callable[[str], None] | None = None,
    venues: Mapping[str, Venue] = VENUES,
    of_wall: bool = False,
    clock: Vouching | None = None,
) -> AsyncIterator[Service]:
    """A :class:`Service` that collects for the block; when the block is left, everything received is durable, and in
    parquet as far as there was time.

    Nothing is expected or collected before a venue vouches for *clock*, which is made of *time* unless one is given;
    *of_wall* says that *time* is the wall's: then REST's times are evidence, too. *show* is given the status table
    every ``status.interval_seconds``. If the writer cannot finish within ``shutdown.timeout_seconds`` of wall time,
    ``Service.writing`` holds what was left. An exception in any task ends the block, within exception groups.
    """
    chance = chance or random.Random()
    series = all_series(config)
    clock = clock or Vouching(time)
    await _say_if_behind(store, clock.now(), offload, of_wall)
    await offload(store.aggregate, config.aggregation.timeframes if config.aggregation.enabled else ())
    board = Board(clock.now(), {name: VenueBoard(name) for name in series})
    service = Service(board, Writing(), clock)
    states: list[VenueState] = []
    began = trio.current_time()
    filling = config.gap_detection.enabled
    backlogs = {name: Backlog(venues[name].history) for name in series if filling}
    send, receive = trio.open_memory_channel[Batch](BATCHES_QUEUED)
    writer_scope = trio.CancelScope(shield=True)
    grace = config.shutdown.timeout_seconds * SHARE * time.speed
    flush_seconds = config.storage.flush_interval_seconds
    async with trio.open_nursery() as outer:
        outer.start_soon(
            _run_in, writer_scope, write_verdicts,
            receive, store, board, clock, flush_seconds, grace * DERIVING_SHARE, offload, service.writing, backlogs,
            config.feed, name="writer",
        )  # fmt: skip
        try:
            async with trio.open_nursery() as nursery:
                with send:
                    for settings in config.enabled_venues:
                        venue = venues[settings.name]
                        state = open_venue_state(board.venues[venue.name], venue.proof, series[venue.name], clock)
                        states.append(state)
                        url = settings.websocket_url or venue.feed.websocket_url
                        rest_urls = venue.rest_urls(settings.rest_url)
                        fill = None
                        if venue.name in backlogs:
                            fill = partial(fill_gaps, backlogs[venue.name], network, rest_urls, chance=chance)
                        nursery.start_soon(
                            run_feed, venue.feed, url, state, network, send.clone(), chance,
                            service.writing.last_words.append, fill, name=venue.name,
                        )  # fmt: skip
                        if of_wall:
                            nursery.start_soon(
                                keep_asking_time, clock, venue.history, network, rest_urls, name=f"{venue.name}/time"
                            )
                nursery.start_soon(clock.watch, name="clock")
                nursery.start_soon(keep_scrubbing, store, clock.trusted, time.speed, offload, name="scrub")
                lookback = round(config.gap_detection.lookback_days * DAY)
                nursery.start_soon(begin, clock, store, board, states, lookback, offload, name="begin")
                if show is not None:
                    nursery.start_soon(show_status, board, clock, config.status.interval_seconds, show, name="status")
                yield service
                if not all(state.begun for state in states):
                    waited = trio.current_time() - began >= wall_floor(WORTH_SAYING, time.speed)
                    log.log(
                        logging.WARNING if waited else logging.INFO,
                        "stopped before a venue vouched for our clock: nothing was collected",
                    )
                board.stopping(clock.now())
                _leave(writer_scope, service.writing, grace)
                nursery.cancel_scope.cancel()
        finally:
            _leave(writer_scope, service.writing, grace)


def _leave(writer_scope: trio.CancelScope, writing: Writing, grace: float) -> None:
    """From now on, or from an earlier call on, *grace* service seconds are left to the writer; the venues' leaving is
    part of it.
    """
    writer_scope.deadline = min(writer_scope.deadline, trio.current_time() + grace)
    writing.flush_until = writer_scope.deadline - grace * (1 - FLUSHING_SHARE)


async def _run_in(scope: trio.CancelScope, run: Callable[..., object], *args: object) -> None:
    with scope:
        await run(*args)  # type: ignore[misc]


async def _say_if_behind(store: Store, now: Millis, offload: Offload, of_wall: bool) -> None:
    """Say so if *now* is before a time that must have been: of the newest minute accounted for, of our release."""
    spans = await offload(store.ask, store.journal.spans)
    newest = max((mark for _, mark in spans.values()), default=Millis(0))
    past, what = max((newest, "the newest minute that is accounted for"), (RELEASED if of_wall else 0, "this release"))
    if now < past:
        log.warning("our clock shows %s UTC, which is before %s: %s", utc_text(now), what, utc_text(past))


async def begin(
    clock: Vouching, store: Store, board: Board, states: Sequence[VenueState], lookback: int, offload: Offload
) -> None:
    """Once a venue vouches for *clock*: expect all series, since *lookback* ms before this began, and let *states*
    begin. A disk that takes nothing raises nothing: it is tried again.
    """
    began = trio.current_time()
    series = [assembler.series for state in states for assembler in state.assemblers.values()]
    while True:
        while (now := clock.trusted()) is None:
            await clock.believed()
        # What was heard since we began is judged next, so what was not collected ends there.
        since = Millis(now - round((trio.current_time() - began) * 1000))
        try:
            owed = await offload(store.expect, series, Millis(since - lookback), since)
            gaps = await offload(store.ask, store.journal.gaps.open_minutes, now)
            break
        except StoreUnavailable as error:
            board.store_failed("ledger", str(error), "the series are not begun yet")
            await trio.sleep(RETRY_SECONDS)
    board.store_works("ledger")
    board.started = since
    for state in states:
        state.board.open_gap_minutes = gaps[state.board.name]
        state.begin({assembler.series: owed[assembler.series] for assembler in state.assemblers.values()})


async def show_status(board: Board, time: Time, seconds: float, show: Callable[[str], None]) -> None:
    """Show the table every *seconds*, for ever."""
    while True:
        await trio.sleep(seconds)
        show(render(board, time.now()))
