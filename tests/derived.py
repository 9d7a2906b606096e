"""What follows from stored minutes: whether the aggregates in a directory do, and minutes whose aggregates differ."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import folding
from directories import BTC, MIDNIGHT, at
from stores import candle, ledger

from trio_candles.candles.model import DAY, MINUTE, Candle, Empty, Series, day_name
from trio_candles.store import dayfiles
from trio_candles.store.disk import LOCAL_DISK, Disk


def candles(since: int, until: int, series: Series = BTC) -> list[Candle]:
    return [candle(minute, 2000.0 + minute, series) for minute in range(since, until)]


class Wrong(AssertionError):
    """A promise about aggregates does not hold."""


def sealed_files(root: Path) -> dict[str, str]:
    """Path -> digest, of the files of sealed days."""
    found = {}
    query = "SELECT venue, symbol, day_ms, detail FROM sealed JOIN series ON series.id = series_id"
    for venue, symbol, day, detail in ledger(root, query):
        for timeframe, digest in json.loads(zlib.decompress(detail))["digests"].items():
            found[f"{Series(venue, symbol, timeframe).path}/{day_name(day)}.parquet"] = digest
    return found


def empty_in(root: Path, id_: int) -> list[tuple[int, int]]:
    """The empty minutes of a series, as spans."""
    spans = ledger(root, f"SELECT since_ms, until_ms FROM empty WHERE series_id = {id_}")
    for day, letters in ledger(root, f"SELECT day_ms, minutes FROM sealed WHERE series_id = {id_}"):
        found = enumerate(zlib.decompress(letters).decode())
        spans += [(day + n * MINUTE, day + (n + 1) * MINUTE) for n, letter in found if letter == "e"]
    return spans


def rows(root: Path, series: Series, disk: Disk = LOCAL_DISK) -> list[dict[str, object]]:
    """All rows in the day files of *series*, which must be as the ledger says and have rows."""
    known = dict(ledger(root, "SELECT path, digest FROM day_file WHERE pending IS NULL"))
    known |= sealed_files(root)
    found: list[dict[str, object]] = []
    for name in disk.names(root / series.path):
        path = f"{series.path}/{name}"
        content = disk.read(root / path)
        if dayfiles.digest_of(content) != known.get(path):
            raise Wrong(f"{path} is not what the ledger says")
        table = dayfiles.read(content, dayfiles.day_file(path, series))
        if not table.num_rows and b"trio_candles.account" not in content:
            raise Wrong(f"{path} is empty")
        found += table.to_pylist()
    return found


def promise(root: Path, *timeframes: str, disk: Disk = LOCAL_DISK) -> dict[str, int]:
    """Every aggregate that stands is there, equal to the bit, and no other; how many there are of each timeframe."""
    counts = dict.fromkeys(timeframes, 0)
    listed_files = {path for (path,) in ledger(root, "SELECT path FROM day_file")} | set(sealed_files(root))
    on_disk = set()
    for id_, venue, symbol in ledger(root, "SELECT id, venue, symbol FROM series"):
        spans = empty_in(root, id_)
        spans += [
            (MIDNIGHT - 2 * DAY, since)
            for (since,) in ledger(root, f"SELECT since_ms FROM listing WHERE series_id = {id_}")
        ]
        empty = {minute for since, until in spans for minute in range(since, until, MINUTE)}
        stored = rows(root, Series(venue, symbol), disk)
        for timeframe in timeframes:
            series = Series(venue, symbol, timeframe)
            found = rows(root, series, disk)
            counts[timeframe] += len(found)
            if found != folding.aggregates(stored, empty, timeframe):
                raise Wrong(f"{series} is {found}, not {folding.aggregates(stored, empty, timeframe)}")
        above = Series(venue, symbol).path.rpartition("/")[0]
        for timeframe in disk.names(root / above):
            on_disk |= {f"{above}/{timeframe}/{name}" for name in disk.names(root / above / timeframe)}
    if on_disk != listed_files:
        raise Wrong(f"the ledger lists {listed_files}, there are {on_disk}")
    if ledger(root, "SELECT count(*) FROM underived") != [(0,)]:
        raise Wrong("something is still behind")
    return counts


def empty(since: int, until: int, series: Series = BTC) -> Empty:
    return Empty(series, at(since), at(until), "nothing traded")
