"""What goes wrong with the collector's machine, as a table: kinds of trouble with their rates."""

from __future__ import annotations

import errno
import random
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import trio

from simulation.machine import CALLS, WRITING, DiskError

if TYPE_CHECKING:
    from simulation.life import World

__all__ = ["KINDS"]

HOUR, YEAR = 3_600_000, 365 * 86_400_000
FOREIGN = (
    "ANALYZE",
    "CREATE TABLE IF NOT EXISTS notes (at INTEGER, text TEXT); INSERT INTO notes VALUES (1, 'looked at')",
    "CREATE VIEW IF NOT EXISTS holes AS SELECT venue, symbol, since_ms FROM gap JOIN series ON series.id = series_id",
    "CREATE TABLE IF NOT EXISTS notes (at INTEGER, text TEXT); CREATE INDEX IF NOT EXISTS by_text ON notes (text)",
)
"""What other tools leave in a journal that they were let to look at."""


async def disk_error(world: World, chance: random.Random, number: int) -> None:
    """Some calls of the disk fail, once or for a while."""
    await trio.lowlevel.checkpoint()
    calls = WRITING if number == errno.ENOSPC else CALLS
    some = calls if chance.random() < 0.5 else frozenset({chance.choice(sorted(calls))})
    until = trio.current_time() + chance.choice((120.0, chance.uniform(1, 60)))
    world.machine.errors.append(DiskError(some, number, until, chance.choice((1, 1, 3, 1 << 30))))


async def disk_enospc(world: World, chance: random.Random) -> None:
    """The disk is full."""
    await disk_error(world, chance, errno.ENOSPC)


async def disk_eio(world: World, chance: random.Random) -> None:
    """The disk fails."""
    await disk_error(world, chance, errno.EIO)


async def disk_short(world: World, chance: random.Random) -> None:
    """A write that says it is whole, and is not."""
    await trio.lowlevel.checkpoint()
    world.machine.short_writes += 1


async def disk_lies(world: World, chance: random.Random) -> None:
    """Syncs that say they are done, and are not."""
    world.machine.lie()
    world.fired["disk_lies"] += 1
    await trio.sleep(chance.uniform(10, 120))
    world.machine.lies = False


async def disk_slow(world: World, chance: random.Random) -> None:
    """Every call takes seconds."""
    seconds = chance.uniform(5, 40)
    world.machine.slow_until = trio.current_time() + seconds
    await trio.sleep(seconds)


async def journal_full(world: World, chance: random.Random) -> None:
    """There is no room for the journal."""
    await trio.lowlevel.checkpoint()
    world.machine.full_until = trio.current_time() + chance.choice((0.5, chance.uniform(1, 60)))


async def clock_steps(world: World, chance: random.Random) -> None:
    """The collector's clock is set wrong, and after a while right again."""
    by = chance.choice((-1, 1)) * chance.choice((2_500, 30_000, 90_000, HOUR, YEAR)) + chance.randrange(500)
    world.time.jump(by)
    world.fired["clock_steps"] += 1
    try:
        await trio.sleep(chance.uniform(2, 100))
    finally:
        world.time.jump(-by)
        world.fired["clock_steps"] += 1


async def cut(world: World, chance: random.Random, how: str) -> None:
    """The process ends: at once, or at one of the next calls of the store or the disk."""
    await trio.lowlevel.checkpoint()
    if chance.random() < 0.25:
        world.kill(how)
    else:
        world.machine.arm(chance.choice((chance.randint(1, 6), chance.randint(1, 80))), how)
    if chance.random() < 0.3:
        world.cuts_in_recovery.append((chance.randint(1, 12), how))


async def power(world: World, chance: random.Random) -> None:
    """The power goes."""
    await cut(world, chance, "power")


async def kill(world: World, chance: random.Random) -> None:
    """SIGKILL."""
    await cut(world, chance, "kill")


async def restart(world: World, chance: random.Random) -> None:
    """Somebody stops the collector and starts it again."""
    await trio.lowlevel.checkpoint()
    world.fired["restart"] += 1
    world.ask_to_stop()


async def absence(world: World, chance: random.Random) -> None:
    """Somebody stops the collector, or it is killed, and starts it much later; meanwhile time is cheap."""
    await trio.lowlevel.checkpoint()
    if world.is_down:
        return
    world.fired["absence"] += 1
    world.stay_down(chance.uniform(8, 40) * 60)
    if chance.random() < 0.5:
        world.kill("kill")
    else:
        world.ask_to_stop()


async def foreign(world: World, chance: random.Random) -> None:
    """Another tool leaves something in the journal when the collector is down next."""
    await trio.lowlevel.checkpoint()
    world.machine.visitor = chance.choice(FOREIGN)


KINDS: dict[str, tuple[float, Callable[[Any, random.Random], Awaitable[None]]]] = {
    "disk_enospc": (0.06, disk_enospc),
    "disk_eio": (0.06, disk_eio),
    "disk_short": (0.06, disk_short),
    "disk_lies": (0.03, disk_lies),
    "disk_slow": (0.04, disk_slow),
    "journal_full": (0.06, journal_full),
    "clock_steps": (0.05, clock_steps),
    "power": (0.12, power),
    "kill": (0.08, kill),
    "restart": (0.05, restart),
    "absence": (0.03, absence),
    "foreign": (0.06, foreign),
}
