"""Answers of REST that are not understood: their rows cost their minutes, and a run of them is told."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable

import attrs
import httpx
import pytest
import trio
from world import NOON, SYMBOLS, check_against_truth, collecting, ledger

from trio_candles.candles.model import MINUTE, Millis, Series
from trio_candles.collector.status import Board, VenueBoard, render
from trio_candles.simulator import FOREVER, RestFault

PATHS = {"coinbase": "/candles", "kraken": "/OHLC", "okx": "candles"}


@attrs.define
class Spoiling(httpx.AsyncBaseTransport):
    """The simulated venues, but *spoil* is done to each row of candles."""

    venues: httpx.AsyncBaseTransport
    path: str
    spoil: Callable[[list], None]
    cache_control: list[str | None] = attrs.field(factory=list)
    """What each question said of caches."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.cache_control.append(request.headers.get("cache-control"))
        response = await self.venues.handle_async_request(request)
        if self.path not in request.url.path:
            return response
        document = rows = json.loads(await response.aread())
        if isinstance(rows, dict):
            rows = rows["data"] if "data" in rows else next(v for k, v in rows["result"].items() if k != "last")
        for row in rows:
            self.spoil(row)
        return httpx.Response(response.status_code, json=document)


async def sleep_until(seconds):
    await trio.sleep(seconds - trio.current_time())


def gaps_of(root, series):
    with ledger(root) as books:
        return [minute for minute in books.gaps(series) if minute < NOON]


def warnings(caplog):
    records = [one for one in caplog.records if "not_understood" in one.message]
    return [one.message for one in records if one.levelno == logging.WARNING]


@pytest.mark.parametrize("venue", SYMBOLS)
async def test_one_null_in_one_field_of_one_row_costs_that_minute_and_is_told(autojump_clock, tmp_path, caplog, venue):
    """OKX: of 72 minutes 71 are known, and a run of such answers is told. The others have trades to ask for."""
    lost = NOON - 40 * MINUTE

    def spoil(row):
        if int(row[0]) in (lost, lost // 1000):
            row[3] = None

    symbol = SYMBOLS[venue][0]
    async with collecting(
        tmp_path,
        {venue: (symbol,)},
        fill=True,
        lookback_days=0.05,
        wrap_rest=lambda venues: Spoiling(venues, PATHS[venue], spoil),
    ) as world:
        await sleep_until(600)
        head = render(world.service.board, world.time.now()).splitlines()[1]
    assert gaps_of(tmp_path, Series(venue, symbol)) == ([lost] if venue == "okx" else [])
    check_against_truth(tmp_path, world.market, Series(venue, symbol))
    if venue == "okx":
        assert f"3 answers about {symbol} in a row; the last one: bad_shape" in warnings(caplog)[0]
        assert head.endswith(f"  |  okx: answers not understood ({symbol})")


async def test_a_run_is_told_ever_more_rarely_until_an_answer_is_understood(autojump_clock, tmp_path, caplog):
    """Every answer is cut short, for an hour; then none is."""
    async with collecting(tmp_path, {"kraken": ("BTC/USD",)}, fill=True, lookback_days=0.05) as world:
        faults, board = world.exchanges["kraken"].faults, world.service.board
        faults.rest.append(RestFault("truncated", times=FOREVER))
        await sleep_until(3600)
        count = board.venues["kraken"].unclear["BTC/USD"]
        said = [text.split("not_understood: ")[1].split(" ")[0] for text in warnings(caplog)]
        assert said == [str(n) for n in (3, 6, 12, 24, 48, 96, 192) if n <= count]
        assert count >= 12
        assert "kraken: answers not understood (BTC/USD)" in render(board, world.time.now())
        assert "STATUS: HEALTHY" in render(board, world.time.now())
        faults.rest.clear()
        await sleep_until(3600 + 900)
        assert board.venues["kraken"].unclear == {}
        assert "not understood" not in render(board, world.time.now())
    assert gaps_of(tmp_path, Series("kraken", "BTC/USD")) == []


@pytest.mark.slow
async def test_a_venue_that_is_unwell_is_no_riddle(autojump_clock, tmp_path, caplog):
    async with collecting(tmp_path, {"okx": ("BTC-USDT",)}, fill=True, lookback_days=0.05) as world:
        world.exchanges["okx"].faults.rest.append(RestFault("status", times=FOREVER, status=503))
        await sleep_until(1800)
        assert world.service.board.venues["okx"].unclear == {}
    assert warnings(caplog) == []


async def test_a_symbol_that_rest_does_not_know_is_told(autojump_clock, tmp_path, caplog):
    """It does not pass by waiting, either."""
    unknown = httpx.MockTransport(lambda request: httpx.Response(404, json={"message": "NotFound"}))
    async with collecting(
        tmp_path, {"coinbase": ("BTC-USD",)}, fill=True, lookback_days=0.05, wrap_rest=lambda venues: unknown
    ) as world:
        await sleep_until(1800)
        assert world.service.board.venues["coinbase"].unclear["BTC-USD"] >= 3
    assert "3 answers about BTC-USD in a row" in warnings(caplog)[0]


async def test_no_question_may_be_answered_by_a_cache(autojump_clock, tmp_path):
    """Coinbase's keeps a page of candles for 300 s: told twice by it is told once."""
    seen = []

    def wrap(venues):
        seen.append(Spoiling(venues, "/", lambda row: None))
        return attrs.evolve(seen[0], path="no such path", cache_control=seen[0].cache_control)

    async with collecting(tmp_path, {"coinbase": ("BTC-USD",)}, fill=True, lookback_days=0.01, wrap_rest=wrap):
        await sleep_until(120)
    assert len(seen[0].cache_control) > 2
    assert set(seen[0].cache_control) == {"no-cache"}


def test_the_status_line_names_a_symbol_and_counts_the_others():
    venue = VenueBoard("kraken", 1, 1, received=3, last_data=Millis(NOON))
    board = Board(Millis(NOON), {"kraken": venue})
    venue.unclear = {"BTC/USD": 2}
    assert "understood" not in render(board, Millis(NOON))
    venue.unclear = {"BTC/USD": 2, "ETH/USD": 3, "SOL/USD": 40, "XRP/USD": 3}
    head = render(board, Millis(NOON)).splitlines()[1]
    assert (
        head
        == "  STATUS: HEALTHY  |  Uptime: 0 min  |  12:00:00  |  kraken: answers not understood (ETH/USD and 2 more)"
    )
