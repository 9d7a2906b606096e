"""What venues were recorded to send beside what they document: caches, twins, nulls, columns, rows of zeros."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trio
from trio_websocket import wrap_client_stream

from trio_candles.simulator import Market, MemoryExchanges, RestFault, open_exchanges_in_memory

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

MINUTE = 60_000
START = 1_788_415_200_000
COINBASE = "http://coinbase.simulated/products"
KRAKEN = "http://kraken.simulated/0/public/"
OKX = "http://okx.simulated/api/v5/"
CANDLES = {
    "coinbase": f"{COINBASE}/ETH-USD/candles?granularity=60&start={START // 1000 - 600}&end={START // 1000 - 60}",
    "kraken": f"{KRAKEN}OHLC?pair=ETHUSD&since={START // 1000 - 600}",
    "okx": f"{OKX}market/candles?instId=ETH-USDT&limit=11",
}
ETH = {"coinbase": "ETH-USD", "kraken": "ETH/USD", "okx": "ETH-USDT"}


def now() -> int:
    return START + 30_000 + round(trio.current_time() * 1000)


@asynccontextmanager
async def open_world() -> AsyncIterator[tuple[MemoryExchanges, httpx.AsyncClient]]:
    """Exchanges half a minute after START, and a client; no limits."""
    async with (
        open_exchanges_in_memory(Market(5), now) as world,
        httpx.AsyncClient(transport=world.transport, timeout=None) as client,
    ):
        for exchange in world.exchanges.values():
            exchange.faults.lift_limits = True
        yield world, client


def rows_of(answer: httpx.Response) -> list[list[Any]]:
    """The candle rows of an answer, whoever gave it, by the time in the first column."""
    document = answer.json()
    if isinstance(document, dict):
        document = document["data"] if "data" in document else document["result"]["XETHZUSD"]
    return sorted(document, key=lambda row: int(row[0]))


# -- caches, and the venue's clock -------------------------------------------------------------------------


async def test_coinbases_candles_are_repeated_for_five_minutes(autojump_clock: MockClock) -> None:
    url = f"{COINBASE}/BTC-USD/candles?granularity=60"
    async with open_world() as (world, client):
        first = await client.get(url)
        assert first.headers["cache-control"] == "public, max-age=300, must-revalidate"
        assert first.headers["cf-cache-status"] == "MISS"
        await trio.sleep(299)
        again = await client.get(url)
        assert again.text == first.text
        assert (again.headers["cf-cache-status"], again.headers["age"]) == ("HIT", "299")
        assert world["coinbase"].faults.fired["cached"] == 1
        await trio.sleep(1)
        assert (await client.get(url)).text != first.text


async def test_another_query_or_a_wish_for_no_cache_gets_a_new_answer(autojump_clock: MockClock) -> None:
    url = f"{COINBASE}/BTC-USD/candles?granularity=60"
    async with open_world() as (world, client):
        first = await client.get(url)
        await trio.sleep(60)
        assert (await client.get(url, headers={"Cache-Control": "no-cache"})).text != first.text
        assert world["coinbase"].faults.fired == {"asked_anew": 1}
        second = f"{url}&start={START // 1000}&end={START // 1000 + 60}"
        assert len(rows_of(await client.get(second))) == 2


async def test_a_cache_repeats_what_was_wrong_at_the_venue_and_nothing_else(autojump_clock: MockClock) -> None:
    url = f"{COINBASE}/BTC-USD/candles?granularity=60"
    async with open_world() as (world, client):
        world["coinbase"].faults.rest += [RestFault("html"), RestFault("truncated"), RestFault("short")]
        told = [(await client.get(url)).text for _ in range(4)]
        assert told[0].startswith("<html>")
        assert len(told[1]) > len(told[2]) == len(told[3])
        assert told[2] == told[3] != (await client.get(url, headers={"Cache-Control": "no-cache"})).text


async def test_what_is_no_good_answer_is_not_kept(autojump_clock: MockClock) -> None:
    async with open_world() as (_, client):
        answer = await client.get(f"{COINBASE}/BTC-USD/candles?granularity=61")
        assert (answer.status_code, answer.headers["cache-control"]) == (400, "no-store")


@pytest.mark.parametrize("venue", ["coinbase", "kraken", "okx"])
async def test_every_answer_has_the_time_of_the_venues_clock(venue: str, autojump_clock: MockClock) -> None:
    async with open_world() as (world, client):
        world[venue].faults.rest.append(RestFault("slow", seconds=7))
        for _ in range(2):
            date = (await client.get(CANDLES[venue])).headers["date"]
            assert parsedate_to_datetime(date).timestamp() == now() // 1000


async def test_a_venue_can_ask_to_be_left_alone_for_days(autojump_clock: MockClock) -> None:
    async with open_world() as (world, client):
        for venue, url in CANDLES.items():
            world[venue].faults.rest.append(RestFault("status", status=429, retry_after=999_999))
            answer = await client.get(url)
            assert (answer.status_code, answer.headers["retry-after"]) == (429, "999999")


# -- listings ----------------------------------------------------------------------------------------------


async def test_krakens_pairs_have_twins_of_another_venue_and_dark_pools(autojump_clock: MockClock) -> None:
    async with open_world() as (_, client):
        pairs = (await client.get(f"{KRAKEN}AssetPairs")).json()["result"]
        names = list(pairs)
        twin = pairs["XBTUSD:BTNL"]
        assert names.index("XBTUSD:BTNL") > names.index("XXBTZUSD")
        assert (twin["wsname"], twin["status"]) == (pairs["XXBTZUSD"]["wsname"], "delisted")
        assert (twin["execution_venue"], pairs["XXBTZUSD"]["execution_venue"]) == (
            "bitnomial_exchange",
            "international",
        )
        assert "wsname" not in pairs["XXBTZUSD.d"]
        asked = (await client.get(f"{KRAKEN}AssetPairs?pair=XBTUSD")).json()["result"]
        assert list(asked) == ["XXBTZUSD"]


async def test_listings_have_nulls_and_states_that_are_rare(autojump_clock: MockClock) -> None:
    async with open_world() as (_, client):
        products = {one["id"]: one for one in (await client.get(COINBASE)).json()}
        assert products["SIM999-USD"]["status_message"] is None
        assert products["BTC-USD"]["status_message"] == ""
        data = (await client.get(f"{OKX}public/instruments?instType=SPOT")).json()["data"]
        instruments = {one["instId"]: one for one in data}
        states = [instruments[name]["state"] for name in ("BTC-USDT", "SIM998-USDT", "SIM997-USDT", "FRESH-USDT")]
        assert states == ["live", "post_only", "rebase", "preopen"]
        assert instruments["FRESH-USDT"]["baseCcy"] == ""
        assert instruments["FRESH-USDT"]["expTime"] is None


# -- rows --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("venue", ["coinbase", "kraken", "okx"])
async def test_one_row_can_be_odd_and_every_row_longer(venue: str, autojump_clock: MockClock) -> None:
    odd = START - 3 * MINUTE
    async with open_world() as (world, client):
        good = rows_of(await client.get(CANDLES[venue]))
        faults = world[venue].faults
        faults.odd_row = lambda symbol, minute: (symbol, minute) == (ETH[venue], odd)
        faults.extra_columns = True
        spoilt = rows_of(await client.get(CANDLES[venue], headers={"Cache-Control": "no-cache"}))
        assert len(spoilt) == len(good)
        for before, after in zip(good, spoilt, strict=True):
            assert len(after) == len(before) + 1
            cells = [new in (None, "n/a", {}, []) for old, new in zip(before, after, strict=False) if old != new]
            is_odd = int(after[0]) in (odd, odd // 1000)
            assert cells == [True] * is_odd
        assert faults.fired["odd_row"] == 1


@pytest.mark.parametrize("venue", ["coinbase", "kraken", "okx"])
async def test_one_row_of_an_answer_can_be_odd(venue: str, autojump_clock: MockClock) -> None:
    async with open_world() as (world, client):
        good = rows_of(await client.get(CANDLES[venue]))
        world[venue].faults.rest.append(RestFault("odd_row"))
        spoilt = rows_of(await client.get(CANDLES[venue], headers={"Cache-Control": "no-cache"}))
        assert sum(one != other for one, other in zip(good, spoilt, strict=True)) == 1


async def test_kraken_can_call_minutes_with_trades_empty(autojump_clock: MockClock) -> None:
    """By zeros for prices, and by a price that is not the close before it."""
    those = {START - number * MINUTE for number in (2, 3)}
    async with open_world() as (world, client):
        faults = world["kraken"].faults
        faults.zero_row = lambda symbol, minute: minute in those
        rows = {row[0] * 1000: row for row in rows_of(await client.get(CANDLES["kraken"]))}
        denied = [rows[minute] for minute in sorted(those)]
        traded = [world.market.candle("kraken", "ETH/USD", minute) for minute in sorted(those)]
        assert all(traded)
        assert [(row[6], row[7]) for row in denied] == [("0.00000000", 0)] * 2
        assert sorted(row[1] == "0" for row in denied) == [False, True]
        assert faults.fired["zero_row"] == 2


# -- feeds, and names --------------------------------------------------------------------------------------


async def test_kraken_has_one_ohlc_subscription_a_symbol(autojump_clock: MockClock) -> None:
    def said(channel: str, **more: object) -> str:
        return json.dumps({"method": "subscribe", "params": {"channel": channel, "symbol": ["BTC/USD"], **more}})

    async with open_world() as (world, _), trio.open_nursery() as nursery:
        stream = await world.dial("ws://kraken.simulated/v2")
        socket = await wrap_client_stream(nursery, stream, "kraken.simulated", "/v2")
        for text in (said("ohlc", interval=1), said("ohlc", interval=5), said("trade"), said("trade")):
            await socket.send_message(text)
        errors = []
        with trio.move_on_after(2):
            while True:
                message = json.loads(await socket.get_message())
                if "error" in message:
                    errors.append((message["symbol"], message["error"]))
        assert errors == [
            ("BTC/USD", "Already subscribed to one ohlc interval on this symbol"),
            ("BTC/USD", "Already subscribed"),
        ]
        await socket.aclose()


async def test_a_name_without_an_address_keeps_everybody_waiting(autojump_clock: MockClock) -> None:
    async with open_world() as (world, client):
        world["okx"].faults.unresolved = True
        waited = {}

        async def ask(venue: str) -> None:
            await client.get(CANDLES[venue])
            waited[venue] = trio.current_time()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, "okx")
            nursery.start_soon(ask, "kraken")
            await trio.sleep(120)
            assert list(waited) == ["kraken"]
            with trio.move_on_after(5) as dialling:
                await world.dial("ws://okx.simulated/ws/v5/business")
            assert dialling.cancelled_caught
            world["okx"].faults.unresolved = False
        assert 125 <= waited["okx"] <= 126


async def test_invented_markets_from_900_on_are_thin() -> None:
    market = Market(5)
    for number in (900, 950, 999):
        assert 16 <= market.instrument("okx", f"SIM{number}-USDT").per_day <= 144
