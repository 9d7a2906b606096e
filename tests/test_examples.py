"""The programs in ``examples/``, as processes beside a store in which things become known."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import attrs
import pytest
from directories import BTC, at, candle, flush
from processes import ROOT

from trio_candles import read_candles
from trio_candles.candles.model import Empty, Millis, Page, Reason, Source, Unsure
from trio_candles.store.store import Store, open_store

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="ends the programs by SIGINT")


def started(name: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(ROOT / "examples" / f"{name}.py"), *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1, env={"PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def run(name: str, *arguments: object) -> int:
    with started(name, *arguments) as process:
        _, errors = process.communicate(timeout=60)
    assert errors == ""
    return process.returncode


def lines(process: subprocess.Popen[str], count: int) -> list[str]:
    assert process.stdout is not None
    found = [process.stdout.readline() for _ in range(count)]
    assert all(found), process.communicate()
    return [line.rstrip("\n") for line in found]


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    return process.returncode, errors


def replace(store: Store, minute: int, close: float) -> None:
    """REST says twice, a minute apart, that the candle of *minute* is another one."""
    for asked in (at(100), at(102)):
        other = attrs.evolve(candle(minute), close=close, source=Source.REST, ingest_time=asked)
        store.commit([Page(BTC, at(minute), at(minute + 1), (other,), (), comparing=True)], asked)


def test_a_moving_average_is_computed_anew_when_a_candle_is_revised_and_unknown_while_one_is(tmp_path):
    with open_store(tmp_path / "data") as store:
        store.expect([BTC], at(0), at(0))
        store.commit([candle(minute) for minute in range(3)], at(3))
        process = started("moving_average", tmp_path / "data", "okx:BTC-USDT", "--periods", 3)
        try:
            assert lines(process, 1) == ["2026-01-11 00:02   stored average of 3: 100001.25"]
            store.commit([candle(3), candle(4)], at(5))
            assert lines(process, 2)[1] == "2026-01-11 00:04   closed average of 3: 100003.25"
            replace(store, 4, 100_005.0)
            assert lines(process, 1) == ["2026-01-11 00:04  revised average of 3: 100003.5"]
            store.commit([Unsure(BTC, at(5), at(6), Reason.DISCONNECTED), candle(6)], at(105))
            assert lines(process, 2)[1] == "2026-01-11 00:06   closed average of 3: not known"
            store.commit([candle(5)], at(106))
            assert lines(process, 1) == ["2026-01-11 00:06   filled average of 3: 100005.5"]
        finally:
            assert ended(process) == (0, "")


def loaded(path: Path) -> list[tuple]:
    with closing(sqlite3.connect(path)) as database:
        return database.execute("SELECT open_time_ms, close, volume FROM candle ORDER BY 1").fetchall()


def test_a_loader_that_is_killed_has_each_candle_once_and_as_it_is_in_the_end(tmp_path):
    database = tmp_path / "candles.sqlite"
    arguments = [tmp_path / "data", database, "--once"]
    with open_store(tmp_path / "data") as store:
        store.expect([BTC], at(0), at(0))
        store.commit([candle(0), Empty(BTC, at(1), at(2), "none"), candle(2)], at(3))
        flush(store)
        assert run("load_sqlite", *arguments) == 0
        store.commit([Unsure(BTC, at(3), at(4), Reason.DISCONNECTED), candle(4)], at(5))
        process = started("load_sqlite", tmp_path / "data", database)
        lines(process, 1)
        process.kill()
        process.communicate()
        store.commit([candle(3)], at(6))
        replace(store, 2, 100_002.5)
        path = f"{BTC.path}/2026-01-11.parquet"
        store.ask(store.journal.lose, path, BTC, at(0), at(110), "lost")  # its candles are a gap now
        store.commit([candle(0)], Millis(at(111)))
        for _ in range(2):
            assert run("load_sqlite", *arguments) == 0
    table = read_candles(
        tmp_path / "data", "okx", "BTC-USDT", on_gap="ignore", columns=["open_time_ms", "close", "volume"]
    )
    assert loaded(database) == list(zip(*(column.to_pylist() for column in table.columns), strict=True))
    assert len(loaded(database)) == 4


def test_an_asyncio_program_gets_each_change_from_its_queue_and_leaves_at_once(tmp_path):
    with open_store(tmp_path / "data") as store:
        store.expect([BTC], at(0), at(0))
        store.commit([candle(0), Empty(BTC, at(1), at(2), "none")], at(3))
        process = started("asyncio_queue", tmp_path / "data", "okx:*", "--after", "oldest")
        try:
            assert lines(process, 2) == [
                f"okx BTC-USDT closed {at(0)} close 100000",
                f"okx BTC-USDT empty {at(1)}",
            ]
            store.commit([candle(2)], at(3))
            assert lines(process, 1) == [f"okx BTC-USDT closed {at(2)} close 100002"]
        finally:
            code, errors = ended(process)
    assert (code, errors) == (0, "")
