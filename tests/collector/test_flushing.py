"""Day files by share: many series take a tenth of the time, nobody is forgotten, and a stop ends in time."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio
from directories import BTC, at
from disks import Slow
from sealing import UNANSWERED, collect, sealed
from stores import candle, expect, ledger
from world import SYMBOLS, AdjustableTime, check_against_truth, collecting
from world import ledger as books_of

from trio_candles.candles.model import Millis, Series
from trio_candles.collector.status import Board, VenueBoard
from trio_candles.collector.vouching import Vouching
from trio_candles.collector.writer import Writing, write_verdicts
from trio_candles.config.load import Feed
from trio_candles.store.store import Store, open_store


def many(count: int) -> tuple[Series, ...]:
    return tuple(Series("okx", f"C{number:03}-USDT") for number in range(count))


@attrs.frozen
class Running:
    """A writer at work."""

    send: trio.MemorySendChannel[Any]
    board: Board
    writing: Writing
    ended: trio.Event

    async def stop(self, seconds: float = 10.0) -> float:
        """Stop as the service does; returns how long it took."""
        asked = trio.current_time()
        self.writing.flush_until = asked + seconds * 0.63
        self.send.close()
        await self.ended.wait()
        return trio.current_time() - asked


@asynccontextmanager
async def writer(store: Store, disk: Slow, minute: int) -> AsyncIterator[Running]:
    """A writer whose clock shows *minute* at trio's zero."""
    send, receive = trio.open_memory_channel[Any](16)
    running = Running(send, Board(Millis(0), {"okx": VenueBoard("okx")}), Writing(), trio.Event())
    clock = Vouching(AdjustableTime(at(minute)), vouched=True)
    backlogs: Mapping[str, Any] = {}

    async def write() -> None:
        await write_verdicts(
            receive, store, running.board, clock, 60.0, 3.0, disk.offload, running.writing, backlogs, Feed()
        )  # fmt: skip
        running.ended.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        yield running
        running.send.close()


async def collect_minutes(running: Running, series: tuple[Series, ...], minutes: range) -> None:
    """A candle of each of *series* a minute."""
    for minute in minutes:
        await running.send.send([candle(minute, 100.0, one) for one in series])
        await trio.sleep(60)


async def test_many_series_take_a_tenth_of_the_time_and_the_day_that_waits_longest_is_always_next(
    autojump_clock, tmp_path
):
    series, disk = many(40), Slow(1.0)
    with open_store(tmp_path, disk) as store:
        expect(store, *series, since=0, now=0)
        async with writer(store, disk, 1) as running:
            await trio.sleep(1)
            for minute in range(20):
                await collect_minutes(running, series, range(minute, minute + 1))
                # The share is of the time so far, and of every part of it: nothing is saved up for a burst.
                assert len(disk.written) <= 1 + (trio.current_time() + 6) / 10
            assert len(disk.written) >= 100
            written = Counter(dict.fromkeys(series, 0))
            for name in disk.written:
                written[next(one for one in series if one.folder in name)] += 1
                # One, and one more where two turns of a day meet in a minute: then both have waited as long.
                assert max(written.values()) - min(written.values()) <= 2
            assert store.journal.waiting_count()[0] > 40  # durable, and not in files
        # There was time at the end.
        assert store.journal.waiting_count() == (0, 0)
        assert running.board.venues["okx"].saved == 20 * 40


async def test_few_series_are_in_their_files_a_minute_later_whatever_the_share(autojump_clock, tmp_path):
    series, disk = many(5), Slow(1.0)
    with open_store(tmp_path, disk) as store:
        expect(store, *series, since=0, now=0)
        async with writer(store, disk, 1) as running:
            for minute in range(10):
                await collect_minutes(running, series, range(minute, minute + 1))
            await trio.sleep(10)
            assert running.board.venues["okx"].saved >= 9 * 5


async def test_days_are_sealed_though_candles_never_end(autojump_clock, tmp_path):
    series, disk = many(40), Slow(1.0)
    with open_store(tmp_path, disk) as store:
        collect(store, "c", "c", timeframes=())
        expect(store, BTC, *series, since=UNANSWERED + 1, now=UNANSWERED + 1)
        async with writer(store, disk, UNANSWERED + 2) as running:
            await collect_minutes(running, series, range(UNANSWERED + 1, UNANSWERED + 4))
            assert store.journal.waiting_count()[1] > 20
            assert list(sealed(tmp_path)) == [0]


async def test_a_day_that_cannot_be_written_keeps_no_other_from_being_written(autojump_clock, tmp_path):
    """Each attempt uses up more than what a minute earns."""
    series, disk = many(6), Slow(7.0, refused="C000")
    with open_store(tmp_path, disk) as store:
        expect(store, *series, since=0, now=0)
        async with writer(store, disk, 1) as running:
            await collect_minutes(running, series, range(1))
            await trio.sleep(60 * 10)
            assert {name for one in series[1:] for name in disk.written if one.folder in name} == set(disk.written)
            assert len(disk.written) == 5
            assert "C000" in running.board.store_errors["day files"]
            disk.refused = "\0"
            await trio.sleep(60 * 3)
            assert store.unsaved() == []
            assert running.board.store_errors == {}


async def test_a_stop_that_has_no_time_for_all_files_ends_in_time_with_every_verdict_durable(
    autojump_clock, tmp_path, caplog
):
    series, disk = many(300), Slow(0.1)
    with open_store(tmp_path, disk) as store:
        expect(store, *series, since=0, now=0)
        async with writer(store, disk, 1) as running:
            await running.send.send([candle(minute, 100.0, one) for one in series for minute in range(2)])
            await trio.sleep(62)  # amid a flush
            await running.send.send([candle(2, 100.0, one) for one in series])
            assert await running.stop() <= 10
        assert running.writing.finished
        assert running.writing.pending == []
        candles, files = store.journal.waiting_count()
        assert 0 < files < 300
    said = f"{candles} candles of {files} day files stay in the journal; the next start writes them"
    assert [record.message for record in caplog.records] == [said]
    assert ledger(tmp_path, "SELECT count(*) FROM series WHERE mark_ms >= 180000 + first_ms") == [(300,)]
    with open_store(tmp_path) as store:
        rest = store.unsaved()
        while rest:
            rest = store.flush(rest).rest
        assert store.waiting() == []
    assert len(list(tmp_path.glob("okx/*/1m/*.parquet"))) == 300


async def test_the_service_loses_no_verdict_if_it_is_stopped_while_a_flush_takes_longer_than_the_deadline(
    autojump_clock, tmp_path, caplog
):
    disk = Slow(4.0)
    async with collecting(tmp_path, disk=disk, offload=disk.offload) as world:
        await trio.sleep(181.5)  # amid the flush of three files: 12 s
        before = len(disk.written)
        asked = trio.current_time()
    assert trio.current_time() - asked <= 10
    assert world.service.writing.finished
    assert world.service.writing.pending == []
    assert before < len(disk.written)
    assert any("stay in the journal; the next start writes them" in record.message for record in caplog.records)
    with open_store(tmp_path) as store:
        assert store.flush(store.waiting()).error is None
    for name, symbols in SYMBOLS.items():
        for symbol in symbols:
            one = Series(name, symbol)
            assert check_against_truth(tmp_path, world.market, one)["gap"] == 0
            with books_of(tmp_path) as books:
                assert len(books.range(one)) >= 1
