"""The whole service as one block: everything that runs, and the order in which it stops.

::

    open_service
    ├ writer      shielded: it gets a deadline, not a cancellation
    └ venues
      ├ status
      └ {venue}   one nursery each (trio_candles.collector.feed)

Leaving the block cancels the venues; each hands over its last verdicts and closes its end of the channel; the writer
finds the channel's end, writes what it has into parquet, and is done. An exception anywhere does the same.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial

import attrs
import trio

from trio_candles.candles.model import DAY, Millis, Series
from trio_candles.clock import Time
from trio_candles.collector.backlog import Backlog
from trio_candles.collector.feed import run_feed
from trio_candles.collector.gapfill import fill_gaps
from trio_candles.collector.status import Board, VenueBoard, render
from trio_candles.collector.venue_state import open_venue_state
from trio_candles.collector.writer import Batch, Writing, write_verdicts
from trio_candles.config.load import Config
from trio_candles.network.websocket import Network
from trio_candles.store.store import Store
from trio_candles.threads import Offload, in_thread
from trio_candles.venues.registry import VENUES
from trio_candles.venues.venue import Venue

__all__ = ["Service", "open_service"]

SHARE = 0.9
"""The share of ``shutdown.timeout_seconds`` for the venues and the writer; the rest is for the journal and the
console."""
DERIVING_SHARE = 0.3
"""The share of that time for aggregates that are behind their minutes: these can wait for the next start."""
BATCHES_QUEUED = 16
"""Batches between the feeds and the writer: a few per venue, so that one transaction takes them all. What the
writer has no time for waits in the feeds' outboxes, where it is bounded and visible."""


@attrs.frozen
class Service:
    """A running service: what its status table shows, and what its writer has in hand."""

    board: Board
    writing: Writing


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
) -> AsyncIterator[Service]:
    """A :class:`Service` that collects for the block; when the block is left, everything received is in parquet.

    *show* is given the status table every ``status.interval_seconds``. If the writer cannot finish within
    ``shutdown.timeout_seconds`` of wall time, ``Service.writing`` holds what was left. An exception in any task ends
    the block, within exception groups.
    """
    chance = chance or random.Random()
    series = all_series(config)
    now = time.now()
    everything = [one for some in series.values() for one in some]
    earliest = Millis(int(now - config.gap_detection.lookback_days * DAY))
    owed = await offload(store.expect, everything, earliest, now)
    await offload(store.aggregate, config.aggregation.timeframes if config.aggregation.enabled else ())
    board = Board(now, {name: VenueBoard(name) for name in series})
    gaps = await offload(store.ask, store.journal.gaps.open_minutes, now)
    for name, shown in board.venues.items():
        shown.open_gap_minutes = gaps[name]
    service = Service(board, Writing())
    filling = config.gap_detection.enabled
    backlogs = {name: Backlog(venues[name].history) for name in series if filling}
    send, receive = trio.open_memory_channel[Batch](BATCHES_QUEUED)
    writer_scope = trio.CancelScope(shield=True)
    grace = config.shutdown.timeout_seconds * SHARE * time.speed
    flush_seconds = config.storage.flush_interval_seconds
    async with trio.open_nursery() as outer:
        outer.start_soon(
            _run_in, writer_scope, write_verdicts,
            receive, store, board, time, flush_seconds, grace * DERIVING_SHARE, offload, service.writing, backlogs,
            name="writer",
        )  # fmt: skip
        try:
            async with trio.open_nursery() as nursery:
                with send:
                    for settings in config.enabled_venues:
                        venue = venues[settings.name]
                        state = open_venue_state(
                            board.venues[venue.name],
                            venue.proof,
                            {one: owed[one] for one in series[venue.name]},
                            time.speed,
                        )
                        url = settings.websocket_url or venue.feed.websocket_url
                        fill = None
                        if venue.name in backlogs:
                            rest_urls = venue.rest_urls(settings.rest_url)
                            fill = partial(
                                fill_gaps, backlogs[venue.name], network, rest_urls, time=time, chance=chance
                            )
                        nursery.start_soon(
                            run_feed, venue.feed, url, state, network, time, send.clone(), chance,
                            service.writing.last_words.append, fill, name=venue.name,
                        )  # fmt: skip
                if show is not None:
                    nursery.start_soon(show_status, board, time, config.status.interval_seconds, show, name="status")
                yield service
                board.stopping(time.now())
                writer_scope.deadline = trio.current_time() + grace
                nursery.cancel_scope.cancel()
        finally:
            # From the stop on, this much wall time is left to the writer; the venues' leaving is part of it.
            writer_scope.deadline = min(writer_scope.deadline, trio.current_time() + grace)


async def _run_in(scope: trio.CancelScope, run: Callable[..., object], *args: object) -> None:
    with scope:
        await run(*args)  # type: ignore[misc]


async def show_status(board: Board, time: Time, seconds: float, show: Callable[[str], None]) -> None:
    """Show the table every *seconds*, for ever."""
    while True:
        await trio.sleep(seconds)
        show(render(board, time.now()))
