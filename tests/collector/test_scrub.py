"""Sealed day files are read again in the background, all of them, at a twentieth of one core."""

from __future__ import annotations

import json

import pytest
import trio
from directories import BTC, at
from sealing import collect, path, sealed
from stores import spoil

from trio_candles.collector.scrub import DAYS_AT_ONCE, keep_scrubbing
from trio_candles.store.store import open_store
from trio_candles.threads import inline

DAYS = 3 * DAYS_AT_ONCE
NOW = at((DAYS + 3) * 1440)


@pytest.fixture
def directory(tmp_path):
    with open_store(tmp_path) as store:
        collect(store, *["c"] * (DAYS + 1), timeframes=("1h",))
        while store.sealable(NOW):
            store.seal(store.sealable(NOW), NOW, filling=False)
    assert len(sealed(tmp_path)) == DAYS + 1
    return tmp_path


def progress(store) -> dict[str, object]:
    with store.guarded():
        return json.loads(store.journal.meta()["scrub"])


async def scrub(store, seconds: float, offload=inline) -> None:
    with trio.move_on_after(seconds):
        await keep_scrubbing(store, lambda: NOW, 1.0, offload)


async def test_a_pass_reads_every_sealed_file_and_says_how_far_it_is(directory, autojump_clock):
    spoil(directory / path(DAYS - 1))
    with open_store(directory) as store:
        await scrub(store, 60)
        assert DAYS - 1 not in sealed(directory)
        assert [(at((DAYS - 1) * 1440), at((DAYS - 1) * 1440 + 1))] == store.journal.gaps_of(BTC)
        assert progress(store) == {
            "began_ms": NOW, "ended_ms": NOW, "days": DAYS + 1, "of": DAYS + 1, "place": [0, 0]
        }  # fmt: skip


async def test_the_next_pass_begins_a_day_later(directory, autojump_clock):
    with open_store(directory) as store:
        await scrub(store, 86_400)
        spoil(directory / path(0))
        await scrub(store, 60)
        assert 0 not in sealed(directory)
    with open_store(directory) as store:
        with trio.move_on_after(86_000):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(keep_scrubbing, store, lambda: NOW, 1.0, inline)
                await trio.sleep(60)
                spoil(directory / path(1))
        assert 1 in sealed(directory)


async def test_a_pass_that_was_cut_short_goes_on_where_it_was(directory, autojump_clock):
    read = []

    async def slow(work, *args):
        await trio.sleep(2)
        if getattr(work, "__name__", "") == "scrub":
            read.append(args[0])
        return work(*args)

    with open_store(directory) as store:
        await scrub(store, 200, slow)
        assert progress(store)["ended_ms"] is None
        done = progress(store)["days"]
        assert 0 < done < DAYS + 1
        read.clear()
        await scrub(store, 1000, slow)
        assert read[0] != (0, 0)
        assert progress(store)["ended_ms"] == NOW
        assert progress(store)["days"] == DAYS + 1


async def test_reading_takes_a_twentieth_of_the_time(directory, autojump_clock):
    spent = 0.0

    async def slow(work, *args):
        nonlocal spent
        if getattr(work, "__name__", "") == "scrub":
            await trio.sleep(0.5)
            spent += 0.5
        return work(*args)

    with open_store(directory) as store:
        await scrub(store, 31, slow)
    assert spent == 2.0  # in the first second, and every ten


async def test_when_a_pass_ended_is_noted_by_a_clock_that_is_vouched_for(directory, autojump_clock):
    times = [None, None, None, NOW]
    with open_store(directory) as store:
        with trio.move_on_after(600):
            await keep_scrubbing(store, lambda: times.pop(0) if len(times) > 1 else times[0], 1.0, inline)
        assert progress(store)["ended_ms"] == NOW
