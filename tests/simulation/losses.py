"""What happens to sealed days: power and processes end while they are sealed and opened, ledgers and files are lost.

A cut waits for what it is to interrupt (:attr:`Machine.cut_on`); a loss, for the moment between two lives.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from simulation.machine import JOURNAL, TMP, Machine
from simulation.sealed import Key, days_of, minutes_of, path_of
from simulation.stored import open_ledger
from simulation.torn import PAGE

if TYPE_CHECKING:
    from simulation.life import World

__all__ = ["KINDS", "suffer"]


async def cut(world: World, chance: random.Random, what: str) -> None:
    """The process ends, or the power goes, the next time that a day is being sealed, opened, finished or scrubbed."""
    await trio.lowlevel.checkpoint()
    world.machine.cut_on[what] = chance.choice(("kill", "power", "power"))
    if what == "scrubbing":  # which is done at a start
        world.ask_to_stop()


async def lose(world: World, chance: random.Random, what: str) -> None:
    """Somebody deletes something, or the disk damages it, while the collector is down."""
    await trio.lowlevel.checkpoint()
    if world.machine.loses:
        return
    world.machine.loses = what
    if chance.random() < 0.5:
        world.kill("kill")
    else:
        world.ask_to_stop()


KINDS: dict[str, Callable[[Any, random.Random], Awaitable[None]]] = {
    **{f"cut {what}": partial(cut, what=what) for what in ("sealing", "sealed", "opened", "finishing", "scrubbing")},
    **{
        what: partial(lose, what=what)
        for what in ("journal lost", "journal broken", "row damaged", "file lost", "file damaged")
    },
}


def suffer(machine: Machine) -> None:
    """The loss that waits, if one does, of a collector that is down."""
    what, machine.loses = machine.loses, ""
    if not what or machine.has_lied or machine.kept or not (machine.root / JOURNAL).exists():
        return
    with closing(sqlite3.connect(machine.root / JOURNAL)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with open_ledger(machine.root) as database:
        if database.execute("SELECT count(*) FROM sqlite_master WHERE name = 'sealed'").fetchone() == (0,):
            return
        days = days_of(database, damaged=set())
        kept = minutes_of(database, machine.disk.contents())
    if not days:
        return
    if what.startswith("journal"):
        (machine.root / TMP).mkdir(exist_ok=True)  # where the store copies it to
        machine.kept = kept
        machine.lost.add("journal")
        _lose_journal(machine, whole=what == "journal lost")
    else:
        key = machine.losing.choice(sorted(days))
        if what == "row damaged":
            if key not in kept:
                return  # nothing but the row has its account
            _damage_row(machine, key)
        elif not _lose_file(machine, key, sorted(days[key].digests), damaged=what == "file damaged"):
            return
    machine.begin_again()
    machine.fired[what] += 1
    machine.trace.note(f"while the collector is down: {what}")


def _lose_journal(machine: Machine, *, whole: bool) -> None:
    path = machine.root / JOURNAL
    if whole:
        for name in (JOURNAL, f"{JOURNAL}-wal", f"{JOURNAL}-shm"):
            (machine.root / name).unlink(missing_ok=True)
        filed = machine.stored_in_files()
        machine.acknowledged = {key: value for key, value in machine.acknowledged.items() if key in filed}
        return
    with open_ledger(machine.root) as database:
        (page,) = database.execute("SELECT rootpage FROM sqlite_master WHERE name = 'gap_event'").fetchone()
    content = bytearray(path.read_bytes())
    content[(page - 1) * PAGE : page * PAGE] = machine.losing.randbytes(PAGE)
    path.write_bytes(content)


def _damage_row(machine: Machine, key: Key) -> None:
    with closing(sqlite3.connect(machine.root / JOURNAL)) as database, database:
        where = (
            "day_ms = ?3 AND series_id = (SELECT id FROM series WHERE venue = ?1 AND symbol = ?2 AND timeframe = '1m')"
        )
        column = machine.losing.choice(("minutes", "detail"))
        (blob,) = database.execute(f"SELECT {column} FROM sealed WHERE {where}", key).fetchone()
        content = bytearray(blob)
        content[machine.losing.randrange(len(content))] ^= 1 << machine.losing.randrange(8)
        database.execute(f"UPDATE sealed SET {column} = ?4 WHERE {where}", (*key, bytes(content)))
    machine.damaged.add(key)


def _lose_file(machine: Machine, key: Key, timeframes: list[str], *, damaged: bool) -> bool:
    timeframe = machine.losing.choice(timeframes) if timeframes else "1m"
    path = path_of(*key, timeframe)
    contents = machine.disk.contents()
    content = contents.get(path)
    if content is None:
        return False
    if damaged:
        spoiled = bytearray(content)
        spoiled[machine.losing.randrange(len(spoiled))] ^= 1 << machine.losing.randrange(8)
        contents[path] = bytes(spoiled)
    else:
        del contents[path]
    machine.lost.add("file")
    machine.hold(contents)
    if timeframe == "1m":
        machine.acknowledged = {
            (venue, symbol, minute): value
            for (venue, symbol, minute), value in machine.acknowledged.items()
            if (venue, symbol) != key[:2] or not key[2] <= minute < key[2] + 86_400_000
        }
    return True
