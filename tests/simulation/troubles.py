"""What goes wrong, as a table: kinds of trouble, each with its rate, what it turns, and for how long.

A kind counts as fired when it had an effect, not when it was turned on.
"""

from __future__ import annotations

import errno
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any
from zlib import crc32

import attrs
import trio

from simulation.machine import CALLS, WRITING, DiskError
from simulation.trace import Broken
from trio_candles.simulator import VENUES, Faults, RestFault, SimulatedExchange

if TYPE_CHECKING:
    from simulation.life import World

__all__ = ["KINDS", "MACHINE_KINDS", "VENUE_KINDS", "calm", "trouble_machine", "trouble_venue"]

MINUTE = 60_000
NOTICED = {"coinbase": 15.0, "kraken": 15.0, "okx": 35.0}
"""Seconds after which a venue that has fallen silent must be known to be: its published silence, and five."""
STALE = 125.0
"""Seconds without market data after which the table must say so."""


@attrs.define
class Site:
    """Where a venue's troubles happen."""

    world: World
    exchange: SimulatedExchange
    symbols: tuple[str, ...]
    chance: random.Random
    turned: Counter[str] = attrs.field(factory=Counter)
    """How many troubles hold each knob."""

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
DEFAULTS = {field.name: field.default for field in attrs.fields(Faults)}


def counted(fired: Mapping[str, int], name: str) -> int:
    """How often anything of that name has had an effect."""
    return sum(times for key, times in fired.items() if key == name or key.startswith(f"{name} "))


async def turn(site: Site, kind: str, seconds: float, *, drop: bool, **knobs: Any) -> None:
    """Turn *knobs* for some seconds, with new connections to begin with if *drop* is set."""
    faults = site.faults
    before = {name: counted(faults.fired, name) for name in knobs}
    for name, value in knobs.items():
        site.turned[name] += 1
        setattr(faults, name, value)
    if drop:
        site.exchange.drop_connections()
    await trio.sleep(seconds)
    for name in knobs:
        site.turned[name] -= 1
        if not site.turned[name]:
            untouched = DEFAULTS[name]
            setattr(faults, name, set() if isinstance(untouched, attrs.Factory) else untouched)  # type: ignore[arg-type]
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


async def dropped(site: Site) -> None:
    """Connections break without a word."""
    await trio.lowlevel.checkpoint()
    site.fire("dropped", len(site.exchange.open_connections))
    site.exchange.drop_connections()


async def closed(site: Site) -> None:
    """Connections are closed in good order."""
    await trio.lowlevel.checkpoint()
    site.fire("closed", len(site.exchange.open_connections))
    site.exchange.close_connections(site.chance.choice((1000, 1001, 1012, 1013)), "elsewhere")


async def muted(site: Site) -> None:
    """Not a byte comes, TCP stays open; it must be noticed while it lasts."""
    seconds, limit = site.chance.uniform(3, 90), NOTICED[site.venue]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(notice, site, seconds, limit, "silence", "[DISC]")
        await turn(site, "muted", seconds, drop=False, mute=True)


async def zombie(site: Site) -> None:
    """Subscriptions are acknowledged, heartbeats come, and no data."""
    seconds = site.chance.choice((site.chance.uniform(5, 90), site.chance.uniform(150, 200)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(notice, site, seconds, STALE, "staleness", "[STALE")
        await turn(site, "zombie", seconds, drop=False, silent=True)


async def notice(site: Site, seconds: float, limit: float, what: str, word: str) -> None:
    """Broken if a trouble of *seconds* is not shown after *limit*, by a collector that ran all the while."""
    if seconds <= limit + 1:
        return
    world, service, began, clock = site.world, site.world.service, site.world.time.now(), site.world.time.ahead
    lines = site.exchange.open_connections
    await trio.sleep(limit)
    if service is None or world.service is not service or world.time.ahead != clock:
        return
    board = service.board.venues[site.venue]
    if what == "staleness" and ((board.last_data or 0) > began + 1000 or lines != site.exchange.open_connections):
        return  # what had been delayed still came, or there was another connection
    status = board.status(world.time.now())
    world.fired[f"noticed {what}"] += 1
    if not status.startswith((word, "[DISC]")):
        raise Broken("noticed", f"{site.venue}: {what} for {limit:.0f} s, and the table says {status}")


async def dropped_run(site: Site) -> None:
    """All trades around the end of a minute are not sent."""
    exchange, chance = site.exchange, site.chance
    symbol, market = site.one(), exchange.market
    end = (exchange.now() // MINUTE + 1) * MINUTE
    since, until = end - chance.randrange(500, 20_000), end + chance.randrange(500, 20_000)
    low, high = (market.first_id_from(site.venue, symbol, time * 1000) for time in (since, until))

    def within(name: str, number: int) -> bool:
        return name == symbol and low <= number < high

    knobs: dict[str, Any] = {"drop_trade": within}
    if site.venue == "kraken" and chance.random() < 0.5:
        knobs["skip_ohlc"] = within
    await turn(site, "dropped_run", (until - exchange.now()) / 1000 + 2, drop=False, **knobs)


async def revised(site: Site) -> None:
    """The venue says twice that a minute has closed, and not the same; its record has what it said first."""
    those = site.some(0.3, 1.0)

    def noted(symbol: str, minute: int) -> bool:
        if not those(symbol, minute):
            return False
        site.world.revised.add((symbol, minute))
        return True

    await turn(site, "revised_closes", site.chance.uniform(30, 150), drop=False, revise_confirm=noted)


def _one(site: Site) -> set[str]:
    return {site.one()}


COINBASE, KRAKEN, OKX = ("coinbase",), ("kraken",), ("okx",)
TRADING = ("coinbase", "kraken")
NAMED = ("kraken",)
"""Venues whose REST answers name their market: nothing else could tell that a page is another market's."""

_TABLE: dict[str, tuple[float, tuple[str, ...], Trouble]] = {
    # -- connections
    "refused": (0.06, VENUES, turned("refused", 2, 60, drop=True, refuse_connections=True)),
    "dropped": (0.15, VENUES, dropped),
    "closed": (0.06, VENUES, closed),
    "handshake_closed": (0.04, VENUES, turned("handshake_closed", 2, 40, drop=True, handshake="close")),
    "handshake_garbage": (0.04, VENUES, turned("handshake_garbage", 2, 40, drop=True, handshake="garbage")),
    "handshake_silent": (0.04, VENUES, turned("handshake_silent", 2, 40, drop=True, handshake="silent")),
    "handshake_refused": (
        0.04,
        VENUES,
        turned("handshake_refused", 2, 40, drop=True, handshake=lambda s: s.chance.choice((403, 429, 500, 503))),
    ),
    "muted": (0.10, VENUES, muted),
    "zombie": (0.07, VENUES, zombie),
    "no_heartbeats": (0.04, TRADING, turned("no_heartbeats", 5, 40, heartbeats=False)),
    "deaf_to_closes": (0.04, VENUES, turned("deaf_to_closes", 10, 90, ignore_close=True)),
    "short_connections": (0.03, VENUES, turned("short_connections", 30, 90, longest_connection=20.0)),
    "unacknowledged": (0.03, VENUES, turned("unacknowledged", 2, 25, drop=True, unacknowledged_symbols=_one)),
    "refused_symbol": (0.02, VENUES, turned("refused_symbol", 2, 20, drop=True, refused_symbols=_one)),
    # -- what is said
    "dropped_trades": (0.08, TRADING, turned("dropped_trades", 5, 90, drop_trade=lambda s: s.some(0.01, 0.3))),
    "dropped_run": (0.12, TRADING, dropped_run),
    "doubled_trades": (0.06, TRADING, turned("doubled_trades", 5, 90, duplicate_trade=lambda s: s.some(0.1, 1.0))),
    "late_trades": (0.08, TRADING, turned("late_trades", 5, 90, delay_trade=lambda s: s.late(0.2, 90.0))),
    "doubled_frames": (0.05, VENUES, turned("doubled_frames", 5, 90, duplicate_every=lambda s: s.chance.randint(1, 9))),
    "corrupt truncated": (0.06, VENUES, spoiled("truncated", 5)),
    "corrupt nan": (0.06, VENUES, spoiled("nan", 5)),
    "corrupt wrong_type": (0.06, VENUES, spoiled("wrong_type", 5)),
    "corrupt binary": (0.05, VENUES, spoiled("binary", 5)),
    "corrupt not_json": (0.05, VENUES, spoiled("not_json", 5)),
    "corrupt giant": (0.015, VENUES, spoiled("giant", 1)),
    "corrupt unknown": (0.05, VENUES, spoiled("unknown", 5)),
    "corrupt impossible": (0.10, VENUES, spoiled("impossible", 20)),
    # -- one venue's own
    "last_trade_id_zero": (0.08, COINBASE, turned("last_trade_id_zero", 5, 90, last_trade_id_zero=True)),
    "maintenance": (
        0.08,
        KRAKEN,
        turned("maintenance", 5, 90, system=lambda s: s.chance.choice(("maintenance", "cancel_only", "post_only"))),
    ),
    "skipped_rows": (0.08, KRAKEN, turned("skipped_rows", 5, 90, skip_ohlc=lambda s: s.some(0.05, 0.6))),
    "late_rows": (0.08, KRAKEN, turned("late_rows", 5, 90, delay_ohlc=lambda s: s.late(0.2, 70.0))),
    "notice": (0.06, OKX, turned("notice", 5, 30, notice=lambda s: s.chance.uniform(1, 60))),
    "lost_closes": (0.10, OKX, turned("lost_closes", 30, 150, lose_confirm=lambda s: s.some(0.3, 1.0))),
    "doubled_closes": (0.08, OKX, turned("doubled_closes", 30, 150, duplicate_confirm=lambda s: s.some(0.3, 1.0))),
    "revised_closes": (0.08, OKX, revised),
    "late_closes": (0.08, OKX, turned("late_closes", 60, 150, confirm_delay=lambda s: s.chance.uniform(1, 75))),
    "no_flat_rows": (0.25, OKX, turned("no_flat_rows", 60, 240, no_flat_rows=True)),
    "seven_fields": (0.06, OKX, turned("seven_fields", 20, 70, seven_fields=True)),
    # -- REST
    "rest status": (0.12, VENUES, answered("status", status=(500, 502, 503, 504, 520, 403, 429))),
    "rest throttle": (0.08, VENUES, answered("throttle")),
    "rest busy": (0.06, VENUES, answered("busy")),
    "rest slow": (0.06, VENUES, answered("slow", seconds=(1, 40))),
    "rest drip": (0.06, VENUES, answered("drip", seconds=(1, 40))),
    "rest stale": (0.08, VENUES, answered("stale", seconds=(1, 600))),
    "rest truncated": (0.06, VENUES, answered("truncated")),
    "rest html": (0.05, VENUES, answered("html")),
    "rest empty": (0.08, VENUES, answered("empty")),
    "rest short": (0.08, VENUES, answered("short")),
    "rest repeated": (0.06, VENUES, answered("repeated")),
    "rest wrong_symbol": (0.08, NAMED, answered("wrong_symbol")),
    "rest disconnect": (0.06, VENUES, answered("disconnect")),
    "rest_early_rows": (
        0.05,
        COINBASE,
        turned("rest_early_rows", 30, 120, early_rows=lambda s: s.chance.randint(1, 9)),
    ),
    "rest_floats": (0.07, COINBASE, turned("rest_floats", 30, 120, float_artefacts=True)),
    "rest_since_exclusive": (0.07, KRAKEN, turned("rest_since_exclusive", 30, 120, since_exclusive=True)),
    "rest_no_empty_rows": (0.07, KRAKEN, turned("rest_no_empty_rows", 30, 120, omit_empty_rows=True)),
}
VENUE_KINDS = {kind: rate for kind, (rate, _, _) in _TABLE.items()}


async def trouble_venue(site: Site, rates: Mapping[str, float]) -> None:
    """Trouble *site* at *rates* per minute, for ever."""
    mine = [kind for kind, (_, venues, _) in _TABLE.items() if site.venue in venues and rates[kind]]
    if not mine:
        return
    total = sum(rates[kind] for kind in mine)
    async with trio.open_nursery() as nursery:
        while True:
            await trio.sleep(site.chance.expovariate(total / 60))
            (kind,) = site.chance.choices(mine, [rates[kind] for kind in mine])
            if site.chance.random() < 0.3:  # the ends of minutes are where candles are decided
                left = MINUTE - site.exchange.now() % MINUTE
                await trio.sleep(max(0.0, left / 1000 + site.chance.uniform(-2.0, 1.5)))
            site.world.trace.note(f"{site.venue}: {kind}")
            nursery.start_soon(_TABLE[kind][2], site, name=f"{site.venue}/{kind}")


def calm(site: Site) -> None:
    """Nothing is wrong with the venue any more."""
    fresh = Faults()
    for field in attrs.fields(Faults):
        if field.name == "rest":
            site.faults.rest.clear()
        elif field.name == "corrupt":
            site.faults.corrupt.clear()
        elif field.name != "fired":
            setattr(site.faults, field.name, getattr(fresh, field.name))


# --- the machine ------------------------------------------------------------------------------------------


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
    by = chance.choice((-1, 1)) * chance.choice((2_500, 30_000, 90_000, 3_600_000)) + chance.randrange(500)
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


_MACHINE: dict[str, tuple[float, Callable[[Any, random.Random], Awaitable[None]]]] = {
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
}
MACHINE_KINDS = {kind: rate for kind, (rate, _) in _MACHINE.items()}
KINDS = [*VENUE_KINDS.items(), *MACHINE_KINDS.items()]


async def trouble_machine(world: World, rates: Mapping[str, float], chance: random.Random) -> None:
    """Trouble the collector's machine at *rates* per minute, for ever."""
    mine = [kind for kind in _MACHINE if rates[kind]]
    if not mine:
        return
    total = sum(rates[kind] for kind in mine)
    async with trio.open_nursery() as nursery:
        while True:
            await trio.sleep(chance.expovariate(total / 60))
            (kind,) = chance.choices(mine, [rates[kind] for kind in mine])
            world.trace.note(f"machine: {kind}")
            nursery.start_soon(_MACHINE[kind][1], world, chance, name=f"machine/{kind}")
