"""The writer by itself: what comes to it counts, whatever else comes or does not."""

from collections.abc import Callable
from typing import Any

import trio
from stores import candle, expect, ledger
from world import AdjustableTime

from trio_candles.assembly import Rejected
from trio_candles.candles.delays import delays_in
from trio_candles.candles.model import Millis
from trio_candles.candles.validation import Rule
from trio_candles.collector.status import Board, VenueBoard
from trio_candles.collector.vouching import Vouching
from trio_candles.collector.writer import Writing, write_verdicts
from trio_candles.config.load import Feed
from trio_candles.store.store import open_store


async def inline(work: Callable[..., Any], /, *args: Any) -> Any:
    await trio.lowlevel.checkpoint()
    return work(*args)


async def test_rejections_are_counted_in_the_ledger_though_no_verdict_comes_with_them(autojump_clock, tmp_path):
    with open_store(tmp_path) as store:
        expect(store)
        send, receive = trio.open_memory_channel[Any](16)
        board, writing = Board(Millis(0), {"okx": VenueBoard("okx")}), Writing()
        clock = Vouching(AdjustableTime(candle(5).open_time), vouched=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write_verdicts, receive, store, board, clock, 60.0, 3.0, inline, writing, {}, Feed())
            for minute in range(3):
                send.send_nowait([Rejected(candle(minute, low=200.0), Rule.HIGH_BELOW_LOW)])
                await trio.sleep(10)
                # Nothing of it waits, so that a kill at this moment leaves no less in the ledger than in the log.
                assert ledger(tmp_path, "SELECT * FROM rejection") == [("okx", "high_below_low", minute + 1)]
            await trio.sleep(1)  # no other word to the tools is due at this moment
            board.venues["okx"].received = 11
            send.close()
        assert board.venues["okx"].rejections == 3
    assert writing.finished
    assert ledger(tmp_path, "SELECT count FROM rejection") == [(3,)]
    # And the tools are left with the table as it was at the end.
    assert ledger(tmp_path, "SELECT received, rejected FROM venue_state") == [(11, 3)]


async def test_how_long_a_candle_took_to_be_durable_is_published(autojump_clock, tmp_path):
    with open_store(tmp_path) as store:
        expect(store)
        send, receive = trio.open_memory_channel[Any](16)
        board, writing = Board(Millis(0), {"okx": VenueBoard("okx")}), Writing()
        clock = Vouching(AdjustableTime(Millis(candle(-3).close_time + 700)), vouched=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write_verdicts, receive, store, board, clock, 60.0, 3.0, inline, writing, {}, Feed())
            send.send_nowait([candle(-3)])
            await trio.sleep(1)
            send.close()
    ((text,),) = ledger(tmp_path, "SELECT value FROM meta WHERE key = 'close_to_durable'")
    assert delays_in(text)["okx"].count == 1
    assert 500 < (delays_in(text)["okx"].quantile(0.5) or 0) <= 1_000
