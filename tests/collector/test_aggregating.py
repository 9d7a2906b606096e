"""The whole service with aggregation on: what is on disk at any moment, and what a year's backlog does not hold up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from derived import candles, empty, promise
from directories import BTC, at
from stores import LATE, expect, ledger
from world import NOON, SYMBOLS, AdjustableTime, check_against_truth, collecting, rows_on_disk

from trio_candles.audit import Report, audit
from trio_candles.candles.model import DAY, MINUTE, Millis, Series
from trio_candles.collector.status import Board, VenueBoard
from trio_candles.collector.vouching import Vouching
from trio_candles.collector.writer import Writing, write_verdicts
from trio_candles.config.load import Feed
from trio_candles.store.dayfiles import DayFile
from trio_candles.store.store import Store, open_store

MIDNIGHT = NOON + DAY // 2


def audited(root: Path, now: int, running: bool = False) -> Report:
    return audit(root, now=lambda: now, running=lambda: running, pauses=())


@pytest.mark.slow
async def test_over_midnight_all_is_aggregated_exactly_and_the_audit_finds_nothing_at_any_moment(
    autojump_clock, tmp_path
):
    """Every three minutes, wherever the flush stands, somebody audits."""
    series = [Series(name, symbols[0]) for name, symbols in SYMBOLS.items()]
    symbols = {one.venue: (one.symbol,) for one in series}
    epoch = MIDNIGHT - 16 * MINUTE
    async with collecting(tmp_path, symbols, epoch=epoch, timeframes=("5m", "15m"), fill=True) as world:
        for _ in range(11):
            await trio.sleep(3 * 60 + 0.7)
            assert audited(tmp_path, world.time.now(), running=True).violations == ()
        await trio.sleep(60)
        saved = {name: venue.saved for name, venue in world.service.board.venues.items()}
    assert audited(tmp_path, LATE).violations == ()
    counts = promise(tmp_path, "5m", "15m")
    assert counts["5m"] >= 3 * 6
    assert counts["15m"] == 3 * 2
    for one in series:
        check_against_truth(tmp_path, world.market, one)
        rows = len(rows_on_disk(tmp_path, one))
        assert rows - 3 <= saved[one.venue] <= rows  # the last flush comes after the last look


async def test_days_that_come_over_rest_are_aggregated_too(autojump_clock, tmp_path):
    timeframes = ("5m", "4h", "1d")
    async with collecting(tmp_path, {"okx": ("BTC-USDT",)}, lookback_days=1.6, timeframes=timeframes, fill=True):
        await trio.sleep(600)
    assert audited(tmp_path, LATE).violations == ()
    counts = promise(tmp_path, *timeframes)
    assert counts["1d"] == 1
    assert counts["4h"] >= 9


async def test_switched_on_at_a_restart_what_is_there_already_is_derived(autojump_clock, tmp_path):
    symbols = {"okx": ("BTC-USDT",)}
    async with collecting(tmp_path, symbols) as world:
        await trio.sleep(1200)
    assert promise(tmp_path) == {}
    epoch = NOON + 1260_000 - round(trio.current_time() * 1000)
    async with collecting(tmp_path, symbols, epoch=epoch, market=world.market, timeframes=("5m",)):
        await trio.sleep(90)
        assert promise(tmp_path, "5m")["5m"] >= 3
    async with collecting(
        tmp_path, symbols, epoch=NOON + 1400_000 - round(trio.current_time() * 1000), market=world.market
    ):
        await trio.sleep(90)
    assert audited(tmp_path, LATE).violations == ()
    assert ledger(tmp_path, "SELECT value FROM meta WHERE key = 'timeframes'") == [("",)]


# --- a backlog of many days


def backlog(root: Path, days: int) -> None:
    """Many days on disk without aggregates, and a little of the day after."""
    with open_store(root) as store:
        expect(store, since=0, now=0)
        for day in range(days):
            store.commit([*candles(1440 * day, 1440 * day + 5), empty(1440 * day + 5, 1440 * day + 1440)], at(10**6))
        rest = store.unsaved()
        while rest:
            rest[:64] = store.flush(rest[:64]).rest
        rest = store.underived()
        while rest:
            rest[:64] = store.flush(rest[:64]).rest


class Slow:
    """Runs work at once and lets it have taken time: *seconds* if it was a flush."""

    def __init__(self, store: Store, seconds: float) -> None:
        self.store, self.seconds = store, seconds
        self.flushes: list[float] = []

    async def __call__(self, work: Callable[..., Any], /, *args: Any) -> Any:
        result = work(*args)
        if work == self.store.flush:
            self.flushes.append(trio.current_time())
            await trio.sleep(self.seconds)
        else:
            await trio.lowlevel.checkpoint()
        return result


@pytest.mark.parametrize("stop_at", [65.0, 130.0])
async def test_a_backlog_holds_up_neither_commits_nor_the_stop_and_is_done_at_the_next_start(
    autojump_clock, tmp_path, stop_at
):
    days = 96
    backlog(tmp_path, days)
    with open_store(tmp_path) as store:
        store.aggregate(("5m",))
        assert len(store.underived()) == days
        offload, board = Slow(store, 10.0), Board(Millis(0), {"okx": VenueBoard("okx")})
        send, receive = trio.open_memory_channel[Any](16)
        writing = Writing()
        committed: dict[int, float] = {}
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                write_verdicts,
                receive,
                store,
                board,
                Vouching(AdjustableTime(LATE), vouched=True),
                60.0,
                3.0,
                offload,
                writing,
                {},
                Feed(),
            )
            for minute in range(int(stop_at)):
                await trio.sleep_until(minute + 0.5)
                if minute % 5 == 0:
                    send.send_nowait([*candles(1440 * days + minute // 5, 1440 * days + minute // 5 + 1)])
                mark = store.expect([BTC], at(0), at(0))[BTC][1]
                for known in range(1440 * days, (mark - at(0)) // MINUTE):
                    committed.setdefault(known - 1440 * days, minute + 0.5)
            await trio.sleep_until(stop_at)
            send.close()
        ended = trio.current_time()
        left = len(store.underived())
    # At most one chunk of days came before each.
    assert all(seen - (5 * number + 0.5) <= 11 for number, seen in committed.items())
    assert len(committed) > 10
    # The group under way, the minutes' own flush, and no group begins more than three seconds after the stop.
    assert ended - stop_at <= 20
    assert writing.finished
    assert ledger(tmp_path, "SELECT count(*) FROM candle") == [(0,)]
    assert 0 < left < days
    # A tenth of the time, and what one more takes.
    assert sum(time < stop_at for time in offload.flushes) <= 1 + stop_at / 10 / 10
    with open_store(tmp_path) as store:
        rest = store.waiting()
        assert DayFile(BTC, at(0)) in rest
        while rest:
            rest[:64] = store.flush(rest[:64]).rest
        assert promise(tmp_path, "5m")["5m"] >= days
