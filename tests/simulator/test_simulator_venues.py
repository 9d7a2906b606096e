"""A venue of the simulator is one record: another one can be simulated without registering it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import httpx
import pytest
import trio

from trio_candles.simulator import (
    VENUES,
    Connection,
    Faults,
    Listing,
    Market,
    Request,
    Response,
    SimulatedExchange,
    SimulatedVenue,
    VenueMarket,
    open_exchanges_in_memory,
    open_exchanges_on_loopback,
)
from trio_candles.simulator.limits import TokenBucket, Window
from trio_candles.simulator.text import answer_json

if TYPE_CHECKING:
    from trio.testing import MockClock

START = 1_788_415_200_000


@attrs.define
class Echo:
    """A REST interface that answers with the question; posting weighs five."""

    market: VenueMarket
    faults: Faults
    window: Window = attrs.Factory(lambda: Window(10, 1_000))

    def within_limits(self, request: Request, now_ms: int) -> bool:
        return self.window.take(now_ms, 5 if request.method == "POST" else 1)

    def throttled(self) -> Response:
        return answer_json("too often", 418)

    def answer(self, request: Request, now_ms: int) -> Response:
        return answer_json([request.method, request.path, request.query, request.body.decode()])


def never(connection: Connection) -> None:
    raise AssertionError("nobody connects")


ECHO = SimulatedVenue(
    name="echo",
    listing=Listing(("USDT",), "USDT", "{}{}".format),
    session=never,
    rest=Echo,
    websocket_paths=("/stream", "/other"),
    connects_per_second=1.0,
    connects_burst=1.0,
)
MARKET = Market(5, venues={"echo": ECHO})


def now() -> int:
    return START


def test_symbols_need_no_separator() -> None:
    assert MARKET.symbols("echo")[:2] == ("BTCUSDT", "ETHUSDT")
    instrument = MARKET.instrument("echo", "BTCUSDT")
    assert (instrument.base, instrument.quote) == ("BTC", "USDT")
    assert MARKET["echo"].trades("BTCUSDT", START) == MARKET.trades("echo", "BTCUSDT", START) != ()


def test_two_markets_of_one_name_are_a_mistake() -> None:
    with pytest.raises(AssertionError, match="written alike"):
        Listing(("USD", "USDT"), "USD", lambda base, quote: base)


def test_only_the_venues_of_the_market_can_be_simulated() -> None:
    with pytest.raises(ValueError, match="'okx' is none of echo"):
        SimulatedExchange("okx", MARKET, now)


def test_another_venue_changes_no_market() -> None:
    both = Market(5, venues={"echo": ECHO, **VENUES})
    for venue in VENUES:
        symbol = both.symbols(venue)[0]
        assert both.trades(venue, symbol, START) == Market(5).trades(venue, symbol, START)


async def check_methods_and_bodies(client: httpx.AsyncClient, url: str) -> None:
    assert (await client.get(f"{url}/a", params={"x": "1"})).json() == ["GET", "/a", {"x": "1"}, ""]
    assert (await client.post(f"{url}/b", content=b'{"y":2}')).json() == ["POST", "/b", {}, '{"y":2}']


async def test_a_venue_reads_methods_and_bodies_in_memory(autojump_clock: MockClock) -> None:
    async with (
        open_exchanges_in_memory(MARKET, now) as world,
        httpx.AsyncClient(transport=world.transport, timeout=None) as client,
    ):
        assert world.endpoints["echo"].websocket_url == "ws://echo.simulated/stream"
        await check_methods_and_bodies(client, world.endpoints["echo"].rest_url)


async def test_a_venue_reads_methods_and_bodies_over_tcp() -> None:
    with trio.fail_after(10):
        async with open_exchanges_on_loopback(MARKET, now) as world, httpx.AsyncClient(timeout=None) as client:
            await check_methods_and_bodies(client, world.endpoints["echo"].rest_url)


async def test_requests_weigh_what_the_venue_says(autojump_clock: MockClock) -> None:
    exchange = SimulatedExchange("echo", MARKET, now)
    statuses = [(await exchange.answer(Request(method, "/"))).status for method in ("POST", "GET", "POST", "GET")]
    assert statuses == [200, 200, 418, 200]
    assert exchange.violations == {"rest": 1}


def test_limits_count_weights() -> None:
    window, bucket = Window(10, 1_000), TokenBucket(per_second=10, burst=10)
    taken = [(at, weight) for at, weight in ((0, 6), (500, 5), (500, 4), (999, 1), (1_000, 7), (1_000, 6))]
    assert [window.take(at, weight) for at, weight in taken] == [True, False, True, False, False, True]
    assert [bucket.take(at, weight) for at, weight in ((0, 6), (0, 5), (0, 4), (400, 5), (500, 5))] == [
        True, False, True, False, True,
    ]  # fmt: skip
