"""What goes wrong with venues, as a table: kinds of trouble, each with its rate, what it turns, and for how long."""

from __future__ import annotations

from typing import Any

import trio

from simulation.stored import marks
from simulation.trace import Broken
from simulation.ways import Site, Trouble, answered, spoiled, turn, turned
from trio_candles.simulator import VENUES, RestFault

__all__ = ["KINDS", "outage", "told_to_wait"]

MINUTE = 60_000
NOTICED = {"coinbase": 15.0, "kraken": 15.0, "okx": 35.0}
"""Seconds after which a venue that has fallen silent must be known to be: its published silence, and five."""
HELD_UP = 95.0
"""Seconds in which a minute ends, and has its verdict whatever is lacking."""
STALE = 125.0
"""Seconds without market data after which the table must say so."""
APART = 420.0
"""Seconds between two answers about another market where answers do not name theirs: who asks twice and is told the
same wrong thing twice cannot know better. A cache may repeat the first one for five minutes."""


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
    await trio.sleep(limit)
    if service is None or world.service is not service or world.is_stopping or world.time.ahead != clock:
        return
    board = service.board.venues.get(site.venue)
    if board is None:
        return  # its only symbol is not collected in this life
    if what == "staleness" and (board.last_data or board.up_since or began) > began + 1000:
        return  # what had been delayed still came, or the venue came up only then
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


async def wrong_symbol(site: Site) -> None:
    """An answer is another market's; several, where answers say which market they are about."""
    if site.venue == "kraken":
        await answered("wrong_symbol")(site)
        return
    if site.turned["wrong_symbol"]:
        return
    site.turned["wrong_symbol"] += 1
    fault = RestFault("wrong_symbol", "candles" if site.world.lives <= 1 else "")
    site.faults.rest.append(fault)
    while fault.times:  # noqa: ASYNC110  (the venue tells nobody)
        await trio.sleep(1)
    await trio.sleep(APART)
    site.turned["wrong_symbol"] -= 1


async def outage(site: Site, seconds: float) -> None:
    """REST has no answer for that long, in one of the ways to have none; the feed stumbles now and then."""
    chance = site.chance
    kind = chance.choice(("status", "disconnect", "html", "busy", "throttle", "slow", "truncated"))
    site.world.trace.note(f"{site.venue}: REST is away ({kind})")
    site.faults.rest.insert(0, RestFault(kind, times=1 << 30, seconds=40.0))  # type: ignore[arg-type]
    with trio.move_on_after(seconds):
        while True:
            await trio.sleep(chance.uniform(60, 600))
            site.exchange.drop_connections()
    site.fire("outage")


async def unresolved(site: Site) -> None:
    """The venue's name finds no address for a while; that holds up nothing else."""
    seconds = site.chance.choice((site.chance.uniform(5, 60), site.chance.uniform(HELD_UP, 200)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(go_on, site, seconds)
        await turn(site, "unresolved", seconds, drop=True, unresolved=True)


async def go_on(site: Site, seconds: float) -> None:
    """Broken if a collector that ran and was well all the while has no word of a minute in a trouble of *seconds*."""
    world, service = site.world, site.world.service
    if seconds <= HELD_UP:
        return
    await trio.sleep(HELD_UP)
    if service is None or world.service is not service or not world.expects or not world.is_well:
        return
    world.fired["went on"] += 1
    due = world.time.now() - round(HELD_UP * 1000)
    late = sorted({venue for (venue, _), mark in marks(world.machine.root).items() if mark < due})
    if late:
        raise Broken("held up", f"nothing is known of {', '.join(late)} since {due}, while {site.venue} has no address")


async def told_to_wait(site: Site, seconds: float) -> None:
    """REST asks once to be left alone for days, of which an hour is granted. The feed stumbles now and then."""
    chance, fault = site.chance, RestFault("status", status=429, retry_after=999_999)
    site.faults.rest.insert(0, fault)
    with trio.move_on_after(600):
        while fault.times:
            await trio.sleep(20)
            site.exchange.drop_connections()
    if fault.times:
        return
    site.world.trace.note(f"{site.venue}: REST wants to be left alone")
    with trio.move_on_after(seconds):
        while True:
            await trio.sleep(chance.uniform(60, 600))
            site.exchange.drop_connections()
    site.fire("told to wait")


def _one(site: Site) -> set[str]:
    return {site.one()}


COINBASE, KRAKEN, OKX = ("coinbase",), ("kraken",), ("okx",)
TRADING = ("coinbase", "kraken")

KINDS: dict[str, tuple[float, tuple[str, ...], Trouble]] = {
    # -- connections
    "unresolved": (0.10, VENUES, unresolved),
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
    "deaf_to_closes": (0.12, VENUES, turned("deaf_to_closes", 10, 90, ignore_close=True)),
    "short_connections": (0.03, VENUES, turned("short_connections", 30, 90, longest_connection=20.0)),
    "unacknowledged": (0.05, VENUES, turned("unacknowledged", 2, 25, drop=True, unacknowledged_symbols=_one)),
    "refused_symbol": (0.04, VENUES, turned("refused_symbol", 2, 20, drop=True, refused_symbols=_one)),
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
    "corrupt giant": (0.03, VENUES, spoiled("giant", 1)),
    "corrupt unknown": (0.05, VENUES, spoiled("unknown", 5)),
    "corrupt impossible": (0.10, VENUES, spoiled("impossible", 20)),
    "corrupt null_row": (0.06, ("kraken", "okx"), spoiled("null_row", 5)),
    # -- one venue's own
    "last_trade_id_zero": (0.08, COINBASE, turned("last_trade_id_zero", 5, 90, last_trade_id_zero=True)),
    "maintenance": (
        0.08,
        KRAKEN,
        turned("maintenance", 5, 90, system=lambda s: s.chance.choice(("maintenance", "cancel_only", "post_only"))),
    ),
    "skipped_rows": (0.20, KRAKEN, turned("skipped_rows", 5, 90, skip_ohlc=lambda s: s.some(0.05, 0.6))),
    "late_rows": (0.12, KRAKEN, turned("late_rows", 5, 90, delay_ohlc=lambda s: s.late(0.2, 70.0))),
    "notice": (0.06, OKX, turned("notice", 5, 30, notice=lambda s: s.chance.uniform(1, 60))),
    "lost_closes": (0.12, OKX, turned("lost_closes", 30, 150, lose_confirm=lambda s: s.some(0.3, 1.0))),
    "doubled_closes": (0.12, OKX, turned("doubled_closes", 30, 150, duplicate_confirm=lambda s: s.some(0.3, 1.0))),
    "revised_closes": (0.12, OKX, revised),
    "late_closes": (0.08, OKX, turned("late_closes", 60, 150, confirm_delay=lambda s: s.chance.uniform(1, 75))),
    "no_flat_rows": (0.60, OKX, turned("no_flat_rows", 60, 240, no_flat_rows=True)),
    "seven_fields": (0.06, OKX, turned("seven_fields", 20, 70, seven_fields=True)),
    # -- REST
    "rest status": (
        0.12,
        VENUES,
        answered("status", status=(500, 502, 503, 504, 520, 403, 429), retry_after=(None, None, 5, 40)),
    ),
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
    "rest odd_row": (0.08, VENUES, answered("odd_row")),
    "rest wrong_symbol": (0.15, VENUES, wrong_symbol),
    "rest disconnect": (0.06, VENUES, answered("disconnect")),
    "rest_early_rows": (
        0.10,
        COINBASE,
        turned("rest_early_rows", 30, 120, early_rows=lambda s: s.chance.randint(1, 9)),
    ),
    "rest_floats": (0.15, COINBASE, turned("rest_floats", 30, 120, float_artefacts=True)),
    "rest_since_exclusive": (0.30, KRAKEN, turned("rest_since_exclusive", 30, 120, since_exclusive=True)),
    "rest_no_empty_rows": (0.50, KRAKEN, turned("rest_no_empty_rows", 30, 120, omit_empty_rows=True)),
}
