"""All checks within their time, as one block::

preflight
├ this machine          in a thread; first, and quick
└ "okx"                 one nursery per venue, side by side
  ├ okx/rest            answers, clock, symbols, assumptions
  └ okx/feed            connects, subscribes, listens
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import attrs
import trio

from trio_candles.command.launch import Plan
from trio_candles.config.load import Config, VenueConfig
from trio_candles.network.names import look_up
from trio_candles.network.websocket import Network
from trio_candles.preflight.checks import Check, Checks
from trio_candles.preflight.feed import check_feed
from trio_candles.preflight.local import Machine, check_locally
from trio_candles.preflight.rest import check_rest
from trio_candles.preflight.visit import TOTAL_SECONDS, LookUp, Pace, Visit
from trio_candles.threads import Offload, in_thread
from trio_candles.venues.registry import VENUES
from trio_candles.venues.venue import Venue

__all__ = ["Show", "preflight"]

Show = Callable[[Sequence[Check], Sequence[str]], None]
"""Is given the checks of this machine or of one venue, and the venues that are still being asked."""

DISK_SECONDS = 5.0


async def preflight(
    planned: Plan,
    config: Config | None,
    network: Network,
    source: Path,
    show: Show,
    *,
    machine: Machine | None = None,
    offload: Offload = in_thread,
    resolve: LookUp = look_up,
    venues: Mapping[str, Venue] = VENUES,
) -> list[Check]:
    """Every check, in the order in which they were shown; if *config* is ``None``, those of this machine only."""
    pace = Pace(network.speed)
    deadline = trio.current_time() + pace.seconds(TOTAL_SECONDS)
    found: list[Check] = []
    waiting = [] if config is None else [settings.name for settings in config.enabled_venues]

    def report(checks: Sequence[Check]) -> None:
        found.extend(checks)
        show(checks, waiting)

    report((await _check_machine(planned, source, machine or Machine(), offload, pace)).done)
    if config is None:
        return found

    async def visit(settings: VenueConfig) -> None:
        name = settings.name
        asked = Visit(settings, venues[name], network, resolve, planned.time, pace, deadline, Checks(name))
        checks = await _ask_venue(asked)
        waiting.remove(name)
        report(checks)

    async with trio.open_nursery() as nursery:
        for settings in config.enabled_venues:
            nursery.start_soon(visit, settings, name=settings.name)
    return found


async def _check_machine(planned: Plan, source: Path, machine: Machine, offload: Offload, pace: Pace) -> Checks:
    with trio.move_on_after(pace.seconds(DISK_SECONDS)):
        return await offload(check_locally, planned, source, machine)
    checks = Checks()
    detail = f"{planned.config.data_dir}: not finished after {pace.wall_text(pace.seconds(DISK_SECONDS))}"
    checks.failed("data directory", detail, "the disk does not answer: see to it")
    return checks


async def _ask_venue(visit: Visit) -> list[Check]:
    """The checks of a venue's host names, its REST and its feed, in that order."""
    rest, feed = (attrs.evolve(visit, checks=Checks(visit.feed.name)) for _ in range(2))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(check_rest, rest, name=f"{visit.feed.name}/rest")
        nursery.start_soon(check_feed, feed, name=f"{visit.feed.name}/feed")
    return sorted([*rest.checks.done, *feed.checks.done], key=lambda check: check.name != "dns")
