"""What goes wrong, when: kinds of trouble, each at its rate, until there is none any more."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import TYPE_CHECKING

import attrs
import trio

from simulation import losses, machine_troubles, venue_troubles
from simulation.record import Record
from simulation.ways import Site
from trio_candles.simulator import Faults

if TYPE_CHECKING:
    from simulation.life import World

__all__ = ["KINDS", "calm_machine", "calm_venue", "trouble_machine", "trouble_venue"]

MINUTE = 60_000
KINDS = [
    *((kind, rate) for kind, (rate, _, _) in venue_troubles.KINDS.items()),
    *((kind, rate) for kind, (rate, _) in machine_troubles.KINDS.items()),
]


async def trouble_venue(site: Site, rates: Mapping[str, float]) -> None:
    """Trouble *site* at *rates* per minute, for ever."""
    mine = [kind for kind, (_, venues, _) in venue_troubles.KINDS.items() if site.venue in venues and rates[kind]]
    if not mine:
        return
    total = sum(rates[kind] for kind in mine)
    async with trio.open_nursery() as nursery:
        if site.world.plan.mistaken:
            nursery.start_soon(venue_troubles.KINDS["rest wrong_symbol"][2], site, name=f"{site.venue}/mistaken")
        while True:
            await trio.sleep(site.chance.expovariate(total / 60))
            (kind,) = site.chance.choices(mine, [rates[kind] for kind in mine])
            if site.chance.random() < 0.3:  # the ends of minutes are where candles are decided
                left = MINUTE - site.exchange.now() % MINUTE
                await trio.sleep(max(0.0, left / 1000 + site.chance.uniform(-2.0, 1.5)))
            site.world.trace.note(f"{site.venue}: {kind}")
            nursery.start_soon(venue_troubles.KINDS[kind][2], site, name=f"{site.venue}/{kind}")


def calm_venue(site: Site, record: Record) -> None:
    """Nothing is wrong with the venue any more, but for its record."""
    fresh = Faults()
    for field in attrs.fields(Faults):
        if field.name == "rest":
            site.faults.rest.clear()
        elif field.name == "corrupt":
            site.faults.corrupt.clear()
        elif field.name != "fired":
            setattr(site.faults, field.name, getattr(fresh, field.name))
    record.spoil(site.venue, site.faults)


async def trouble_machine(world: World, rates: Mapping[str, float], chance: random.Random) -> None:
    """Trouble the collector's machine at *rates* per minute, for ever."""
    kinds = {kind: trouble for kind, (_, trouble) in machine_troubles.KINDS.items()} | losses.KINDS
    mine = [kind for kind in kinds if rates[kind]]
    if not mine:
        return
    total = sum(rates[kind] for kind in mine)
    async with trio.open_nursery() as nursery:
        while True:
            await trio.sleep(chance.expovariate(total / 60))
            (kind,) = chance.choices(mine, [rates[kind] for kind in mine])
            world.trace.note(f"machine: {kind}")
            nursery.start_soon(kinds[kind], world, chance, name=f"machine/{kind}")


def calm_machine(world: World) -> None:
    """Nothing is wrong with the collector's machine any more."""
    machine = world.machine
    machine.disarm()
    machine.errors.clear()
    machine.short_writes, machine.lies = 0, False
    now = trio.current_time()
    machine.full_until, machine.slow_until = min(machine.full_until, now), min(machine.slow_until, now)
