"""Whatever a power cut leaves of sealing, opening, finishing and scrubbing, each minute is what it was, or what was
acknowledged since.
"""

from __future__ import annotations

import io
import json
import shutil
import sqlite3
import zlib
from contextlib import closing
from pathlib import Path

import attrs
import pyarrow.parquet as pq
import pytest
from derived import Wrong
from directories import BTC, MINUTE, at, sql
from disks import Cut, PowerCut, after, cuts
from sealing import collect, path, seal
from stores import candle, flush

from trio_candles.candles.model import Attempt, Candle, Millis, Page, Source
from trio_candles.store.accounts import SealedDay
from trio_candles.store.schema import digest_of
from trio_candles.store.store import open_store

NOW = 3 * 1440
BEFORE = "cuccc" + "e" * 1435
FILLED = "ccccc" + "e" * 1435


def rest(minute: int, price: float, told: float) -> Page:
    one = candle(minute, price, source=Source.REST, ingest_time=Millis(at(told)))
    return Page(BTC, at(0), at(1440), (one,), ())


def letters(root: Path, disk: PowerCut) -> str:
    """What each minute of the first day is, by the ledger's tables and the files, read as the format has them;
    :class:`Wrong` where two of them do not go together.
    """
    with closing(sqlite3.connect(root / "journal.sqlite3")) as database:
        sealed = database.execute("SELECT shape, minutes, detail FROM sealed WHERE day_ms = ?", (at(0),)).fetchone()
        opened = database.execute("SELECT 1 FROM open_day WHERE day_ms = ?", (at(0),)).fetchone()
        notes = [
            (letter, low, high)
            for letter, table in (("u", "gap"), ("e", "empty"))
            for low, high in database.execute(f"SELECT since_ms, until_ms FROM {table} WHERE since_ms < ?", (at(1440),))
        ]
        waiting = [time for (time,) in database.execute("SELECT open_ms FROM candle WHERE open_ms < ?", (at(1440),))]
        files = dict(database.execute("SELECT path, digest FROM day_file WHERE digest IS NOT NULL"))
    if (sealed is None) == (opened is None):
        raise Wrong("the day is neither sealed nor open, or both")
    if sealed is not None:
        text, digests = zlib.decompress(sealed[1]).decode(), json.loads(zlib.decompress(sealed[2]))["digests"]
        if notes or waiting or any("2026-01-11" in one for one in files):
            raise Wrong("a sealed day has notes besides")
        files = {path(0, timeframe=name): digest for name, digest in digests.items()}
    for name, digest in files.items():
        if "2026-01-11" in name and digest_of(disk.read(root / name)) != digest:
            raise Wrong(f"{name} has another digest")
    rows: list[int] = []
    if path() in files:
        table = pq.read_table(io.BytesIO(disk.read(root / path())))
        rows = table.column("open_time_ms").to_pylist()
        account = json.loads((table.schema.metadata or {}).get(b"trio_candles.account", b"null"))
        if account is not None and [at(i) for i, one in enumerate(account["minutes"]) if one == "c"] != rows:
            raise Wrong("the account in the file is not that of its rows")
        if sealed is not None and "account" in sealed[0] and (account is None or account["minutes"] != text):
            raise Wrong("the account in the file is not the ledger's")
    if sealed is not None:
        if [at(i) for i, one in enumerate(text) if one == "c"] != rows:
            raise Wrong("the rows are not those that the ledger says are stored")
        return text
    found = ["?"] * 1440
    for letter, low, high in [("c", time, time + MINUTE) for time in {*rows, *waiting}] + notes:
        for minute in range((low - at(0)) // MINUTE, min((high - at(0)) // MINUTE, 1440)):
            if found[minute] != "?":
                raise Wrong(f"minute {minute} is {found[minute]} and {letter}")
            found[minute] = letter
    return "".join(found)


def lived(disk: PowerCut, *, seal_it: bool = True) -> None:
    with open_store(disk.root, disk) as store:
        collect(store, "cgccc", "c", timeframes=("5m",))
        for minute in (1600, 1620):
            store.commit([Attempt(BTC, at(1), at(2), "no row", absent=True)], at(minute))
        if seal_it:
            seal(store, NOW)


def check(cut: Cut, root: Path) -> str:
    """Open what a power cut left, and seal it; what the first minutes are."""
    disk = after(cut, root)
    with open_store(root, disk) as store:
        found = letters(root, disk)
        for minute, one in [(one.open_time, one) for one in cut.acknowledged]:
            stored = store.journal.stored(BTC, minute)
            if stored is None or not stored.same_as(one):
                raise Wrong(f"acknowledged: {one}; stored: {stored}")
        flush(store)
        store.seal(store.sealable(at(NOW + 60)), at(NOW + 60), filling=True)
        while store.unfinished():
            if store.finish(store.unfinished()).error:
                raise Wrong("it does not come to an end")
        if letters(root, disk) != found:
            raise Wrong("sealed, the day is not what it was")
        store.set_strays_aside(BTC, "1m")
        if disk.names(root / ".tmp") or disk.names(root / "quarantine"):
            raise Wrong("a leftover")
        store.scrub((0, 0), 10)
        if letters(root, disk) != found:
            raise Wrong("the scrub finds what the start did not")
    shutil.rmtree(root)
    return found


def sealing(disk: PowerCut, acknowledged: list[Candle]) -> None:
    with open_store(disk.root, disk) as store:
        seal(store, NOW)
    disk.watch()


def filling(disk: PowerCut, acknowledged: list[Candle]) -> None:
    """A late fill opens the day, which is sealed again."""
    with open_store(disk.root, disk) as store:
        store.commit([rest(1, 7.0, NOW)], at(NOW))
        acknowledged.append(rest(1, 7.0, NOW).candles[0])
        flush(store)
        seal(store, NOW + 20)
    disk.watch()


def revising(disk: PowerCut, acknowledged: list[Candle]) -> None:
    """REST says another candle, and again: the day is open, and has the new one."""
    with open_store(disk.root, disk) as store:
        store.commit([rest(2, 8.0, NOW)], at(NOW))
        store.commit([rest(2, 8.0, NOW + 10)], at(NOW + 10))
        acknowledged.append(rest(2, 8.0, NOW + 10).candles[0])
        flush(store)
    disk.watch()


def finishing(disk: PowerCut, acknowledged: list[Candle]) -> None:
    """A day that was sealed by the ledger alone gets its account and a new timeframe."""
    with open_store(disk.root, disk) as store:
        store.aggregate(("5m", "1d"))
        assert store.finish(store.unfinished()).error is None
    disk.watch()


def sealed_by_the_ledger_alone(disk: PowerCut) -> None:
    lived(disk, seal_it=False)
    with open_store(disk.root, disk) as store:
        account = store.journal.sealing.as_it_stands(BTC, at(0), compared=False)
        digest = store.journal.digest(path())[0]
        store.journal.replaced([], sealed=[SealedDay(account, {"1m": digest}, "5m")], now=at(NOW))


WORK = {
    "sealing": (lambda disk: lived(disk, seal_it=False), sealing, {BEFORE}),
    "filling": (lived, filling, {FILLED}),
    "revising": (lived, revising, {BEFORE}),
    "finishing": (sealed_by_the_ledger_alone, finishing, {BEFORE}),
}


def outcomes(root: Path, work: str, broken: str = "") -> tuple[int, set[str]]:
    """How many different states a power cut may leave of *work*, and what the day's minutes are in them."""
    prepare, act, _ = WORK[work]
    (root / "work").mkdir()
    disk = PowerCut(root / "work")
    prepare(disk)
    disk.broken = broken
    found = sorted(cuts(root / "work", disk, act), key=repr)
    return len(found), {check(cut, root / str(number)) for number, cut in enumerate(found)}


@pytest.mark.parametrize(
    "work", ["finishing", *(pytest.param(one, marks=pytest.mark.slow) for one in ("sealing", "filling", "revising"))]
)
def test_whatever_a_power_cut_leaves_each_minute_is_what_it_was_or_what_was_acknowledged(quick, work):
    count, found = outcomes(quick, work)
    assert count > 8
    assert found == WORK[work][2]


@pytest.mark.parametrize("work", ["sealing", "finishing"])
@pytest.mark.parametrize("broken", ["file sync", "folder sync"])
def test_a_disk_that_does_not_sync_is_found_out(quick, work, broken):
    with pytest.raises(Wrong):
        outcomes(quick, work, broken)


def scrubbing(disk: PowerCut, acknowledged: list[Candle]) -> None:
    """A sealed file has a flipped bit: it is given up, its minutes are asked for again, and the day is sealed again."""
    with open_store(disk.root, disk) as store:
        store.scrub((0, 0), 10)
        disk.watch()
        pages = [rest(minute, 100.0 + minute, NOW) for minute in (0, 2, 3, 4)]
        store.commit(pages, at(NOW))
        acknowledged += [page.candles[0] for page in pages]
        flush(store)
        seal(store, NOW + 20)
    disk.watch()


@pytest.mark.slow
def test_whatever_a_power_cut_leaves_of_a_scrub_the_lost_minutes_are_gaps_until_they_are_stored(quick):
    (work := quick / "work").mkdir()
    disk = PowerCut(work)
    lived(disk)
    content = bytearray(disk.read(work / path()))
    content[len(content) // 2] ^= 1
    disk.durable[path()] = attrs.evolve(disk.durable[path()], content=bytes(content))
    found = sorted(cuts(work, disk, scrubbing), key=repr)
    assert len(found) > 20
    seen = set()
    for number, cut in enumerate(found):
        root = quick / str(number)
        restored = after(cut, root)
        with open_store(root, restored) as store:
            store.scrub((0, 0), 10)
            seen.add(letters(root, restored)[:5])
        if cut.acknowledged:
            assert sql(root, "SELECT count(*) FROM gap WHERE reason = 'corrupt'") == [(0,)]
        shutil.rmtree(root)
    assert seen == {"uuuuu", "cuccc"}  # "u" stands for gaps of both kinds
