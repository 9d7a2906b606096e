"""The ways in which a venue is troubled: a knob that is turned for some time, frames and answers that are spoiled.

A kind counts as fired when it had an effect, not when it was turned on.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any
from zlib import crc32

import attrs
import trio

from trio_candles.simulator import Faults, RestFault, SimulatedExchange

if TYPE_CHECKING:
    from simulation.life import World

__all__ = ["Site", "Trouble", "answered", "spoiled", "turn", "turned"]


@attrs.define
class Site:
    """Where a venue's troubles happen."""

    world: World
    exchange: SimulatedExchange
    symbols: tuple[str, ...]
    chance: random.Random
    turned: Counter[str] = attrs.field(factory=Counter)
    """How many troubles hold each knob."""
    untouched: dict[str, Any] = attrs.field(factory=dict)
    """What each of these was before the first of them turned it."""

    @property
    def venue(self) -> str:
        return self.exchange.venue

    @property
    def faults(self) -> Faults:
        return self.exchange.faults

    def fire(self, kind: str, times: int = 1) -> None:
        self.world.fired[kind] += times

    def one(self) -> str:
        """One of the symbols."""
        return self.chance.choice(self.symbols)

    def some(self, least: float, most: float) -> Callable[[str, int], bool]:
        """A predicate that holds for a share of all (symbol, number)."""
        share, salt = self.chance.uniform(least, most), self.chance.randrange(1 << 30)
        return lambda symbol, number: crc32(f"{salt}|{symbol}|{number}".encode()) < share * (1 << 32)

    def late(self, least: float, most: float) -> Callable[[str, int], float]:
        """By how many seconds some are late."""
        those, seconds = self.some(0.05, 0.5), self.chance.uniform(least, most)
        return lambda symbol, number: seconds if those(symbol, number) else 0.0


Trouble = Callable[[Site], Awaitable[None]]


def counted(fired: Mapping[str, int], name: str) -> int:
    """How often anything of that name has had an effect."""
    return sum(times for key, times in fired.items() if key == name or key.startswith(f"{name} "))


async def turn(site: Site, kind: str, seconds: float, *, drop: bool, **knobs: Any) -> None:
    """Turn *knobs* for some seconds, with new connections to begin with if *drop* is set."""
    faults = site.faults
    before = {name: counted(faults.fired, name) for name in knobs}
    for name, value in knobs.items():
        if not site.turned[name]:
            site.untouched[name] = getattr(faults, name)
        site.turned[name] += 1
        setattr(faults, name, value)
    if drop:
        site.exchange.drop_connections()
    await trio.sleep(seconds)
    for name in knobs:
        site.turned[name] -= 1
        if not site.turned[name]:
            setattr(faults, name, site.untouched[name])
    if any(counted(faults.fired, name) > times for name, times in before.items()):
        site.fire(kind)


def turned(kind: str, least: float, most: float, *, drop: bool = False, **knobs: Any) -> Trouble:
    """A trouble that turns *knobs*; a value that is a function is asked what it is, with the site."""

    async def trouble(site: Site) -> None:
        values = {name: value(site) if callable(value) else value for name, value in knobs.items()}
        await turn(site, kind, site.chance.uniform(least, most), drop=drop, **values)

    return trouble


def spoiled(kind: str, most: int) -> Trouble:
    """A trouble that spoils some of the next frames; the venue counts them."""

    async def trouble(site: Site) -> None:
        await trio.lowlevel.checkpoint()
        site.faults.corrupt += [kind] * site.chance.randint(1, most)  # type: ignore[list-item]

    return trouble


def answered(kind: str, most: int = 4, seconds: tuple[float, float] = (0, 0), **more: Any) -> Trouble:
    """A trouble that spoils some of the next REST answers; the venue counts them."""

    async def trouble(site: Site) -> None:
        await trio.lowlevel.checkpoint()
        chance = site.chance
        values = {name: chance.choice(value) for name, value in more.items()}
        fault = RestFault(kind, "", chance.randint(1, most), seconds=chance.uniform(*seconds), **values)  # type: ignore[arg-type]
        site.faults.rest.append(fault)

    return trouble
