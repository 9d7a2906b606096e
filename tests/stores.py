"""A store in a directory: candles by minutes from midnight, and whether the directory keeps what the store promised."""

from __future__ import annotations

import itertools
import sqlite3
from pathlib import Path

import attrs
from directories import BTC, ETH, MIDNIGHT, at

from trio_candles.candles.model import DAY, MINUTE, Candle, Millis, Series, Source
from trio_candles.store import dayfiles
from trio_candles.store.disk import LOCAL_DISK
from trio_candles.store.schema import digest_of
from trio_candles.store.store import Store, open_store

LATE = Millis(MIDNIGHT + DAY)


def candle(minute: int, price: float = 100.0, series: Series = BTC, **changes) -> Candle:
    open_time = at(minute)
    made = Candle(
        series, open_time, price, price + 1, price - 1, price, 2.5, 250.0, price, 7, Source.WEBSOCKET,
        Millis(open_time + MINUTE + 100), Millis(open_time + MINUTE),
    )  # fmt: skip
    return attrs.evolve(made, **changes)


def candles(since: int, until: int, series: Series = BTC) -> list[Candle]:
    return [candle(minute, 100.0 + minute, series) for minute in range(since, until)]


def expect(store: Store, *series: Series, since: float = -3, now: float = -3) -> None:
    store.expect(series or (BTC,), at(since), at(now))


def flush(store: Store):
    return store.flush(store.waiting())


def on_disk(root: Path, disk=LOCAL_DISK) -> dict[str, list[int]]:
    """Path -> the minutes in it, of every day file, read as anybody would."""
    found = {}
    for venue, symbol in itertools.product(("okx", "kraken"), ("BTC-USDT", "ETH-USD")):
        folder = f"{venue}/{symbol}/1m"
        for name in disk.names(root / folder):
            if not name.endswith(".parquet"):
                continue
            path = f"{folder}/{name}"
            series = BTC if venue == "okx" else ETH
            table = dayfiles.read(disk.read(root / path), dayfiles.day_file(path, series))
            found[path] = [(time - MIDNIGHT) // MINUTE for time in dayfiles.times_in(table)]
    return found


def ledger(root: Path, query: str) -> list[tuple]:
    """What the ledger says, asked beside the store."""
    database = sqlite3.connect(root / "journal.sqlite3")
    try:
        return database.execute(query).fetchall()
    finally:
        database.close()


BEFORE = "okx/BTC-USDT/1m/2026-01-10.parquet"
AFTER = "okx/BTC-USDT/1m/2026-01-11.parquet"


class Lost(AssertionError):
    """A promise of the store does not hold."""


def check(root: Path, acknowledged: list[Candle], disk=LOCAL_DISK) -> None:
    """Open what a crash left: everything acknowledged is there, once, and a flush brings all of it into files."""
    with open_store(root, disk) as store:
        stored = _promises(root, disk, acknowledged)
        if disk.names(root / ".tmp"):
            raise Lost("a leftover in .tmp")
        flushed = flush(store)
        if flushed.error or flushed.held or store.waiting():
            raise Lost(f"the flush does not finish: {flushed}")
        if _promises(root, disk, acknowledged) != stored:
            raise Lost("the flush lost or made up a candle")
        if disk.names(root / ".tmp") or disk.names(root / "quarantine"):
            raise Lost("a leftover")


def _promises(root: Path, disk, acknowledged: list[Candle]) -> set[Candle]:
    known = {path: (digest, pending) for path, digest, pending in ledger(root, "SELECT * FROM day_file")}
    found: list[Candle] = []
    for path in on_disk(root, disk):
        content = disk.read(root / path)
        if known.get(path) != (digest_of(content), None):
            raise Lost(f"{path} is not what the ledger says")
        series = BTC if path.startswith("okx") else ETH
        table = dayfiles.read(content, dayfiles.day_file(path, series))
        found += dayfiles.candles_in(table, series)
    if set(known) != set(on_disk(root, disk)):
        raise Lost("a file is missing")
    for symbol, open_ms, price, *_ in ledger(
        root, "SELECT symbol, open_ms, open FROM candle JOIN series ON series.id = series_id"
    ):
        found.append(candle((open_ms - MIDNIGHT) // MINUTE, price, BTC if symbol == BTC.symbol else ETH))
    minutes = [(one.series, one.open_time) for one in found]
    if len(minutes) != len(set(minutes)):
        raise Lost("a candle is there twice")
    if set(acknowledged) - set(found):
        raise Lost(f"{len(set(acknowledged) - set(found))} candles are lost")
    for symbol, first, mark in ledger(root, "SELECT symbol, first_ms, mark_ms FROM series"):
        series = BTC if symbol == BTC.symbol else ETH
        _every_minute(root, {time for one, time in minutes if one == series}, series, first, mark)
    return set(found)


def _every_minute(root: Path, stored: set[int], series: Series, first: int, mark: int) -> None:
    spans = ledger(
        root,
        "SELECT since_ms, until_ms, symbol FROM gap JOIN series ON series.id = series_id"
        " UNION ALL SELECT since_ms, until_ms, symbol FROM empty JOIN series ON series.id = series_id",
    )
    said = [time for since, until, symbol in spans if symbol == series.symbol for time in range(since, until, MINUTE)]
    if sorted([*stored, *said]) != list(range(first, mark, MINUTE)):
        raise Lost(f"{series}: a minute is nothing, or two things")


def spoil(path: Path) -> bytes:
    """Flip a bit in the middle; what is there now."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    return bytes(content)
