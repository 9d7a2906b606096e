"""The simulated REST interfaces answer as the venues do, page edges and refusals included."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trio

from trio_candles.simulator import FOREVER, Market, MemoryExchanges, RestFault, open_exchanges_in_memory

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

MINUTE = 60_000
START = 1_788_415_200_000
NOON = START // 1000


@asynccontextmanager
async def open_world(offset_ms: int = 30_000) -> AsyncIterator[tuple[MemoryExchanges, httpx.AsyncClient]]:
    """Exchanges half a minute after START, and a client; no limits."""

    def now() -> int:
        return START + offset_ms + round(trio.current_time() * 1000)

    async with (
        open_exchanges_in_memory(Market(5), now) as world,
        httpx.AsyncClient(transport=world.transport, timeout=None) as client,
    ):
        for exchange in world.exchanges.values():
            exchange.faults.lift_limits = True
        yield world, client


async def get(client: httpx.AsyncClient, url: str, **query: object) -> Any:
    """The answer's JSON, numbers exact."""
    response = await client.get(url, params={key: str(value) for key, value in query.items()})
    return json.loads(response.text, parse_float=Decimal)


# -- Coinbase ----------------------------------------------------------------------------------------------

COINBASE = "http://coinbase.simulated/products/ETH-USD"


async def test_coinbase_candles_are_the_markets_newest_first_without_empty_minutes(
    autojump_clock: MockClock,
) -> None:
    async with open_world() as (world, client):
        rows = await get(
            client, COINBASE + "/candles", granularity=60, start=NOON - 299 * 60, end="2026-09-03T06:00:00Z"
        )
        minutes = range(START - MINUTE, START - 300 * MINUTE, -MINUTE)
        candles = [c for m in minutes if (c := world.market.candle("coinbase", "ETH-USD", m))]
        assert len(candles) < 299
        assert [row for row in rows if row[0] < NOON] == [
            [c.minute_ms // 1000, c.low, c.high, c.open, c.close, c.volume] for c in candles
        ]


async def test_coinbase_does_not_mark_the_forming_row(autojump_clock: MockClock) -> None:
    async with open_world() as (world, client):
        url = "http://coinbase.simulated/products/BTC-USD/candles"
        half = (await get(client, url, granularity=60, start=NOON, end=NOON + 600))[0]
        await trio.sleep(30)
        whole = (await get(client, url, granularity=60, start=NOON, end=NOON))[0]
        candle = world.market.candle("coinbase", "BTC-USD", START)
        assert candle is not None
        assert half[0] == whole[0] == NOON
        assert half[5] < whole[5] == candle.volume


async def test_coinbase_takes_301_rows_and_not_302(autojump_clock: MockClock) -> None:
    async with open_world() as (_, client):
        url = "http://coinbase.simulated/products/BTC-USD/candles"
        assert len(await get(client, url, granularity=60, start=NOON - 18_000, end=NOON)) == 301
        refusal = await client.get(url, params={"granularity": 60, "start": NOON - 18_060, "end": NOON})
        assert refusal.status_code == 400
        assert "exceeds 300" in refusal.json()["message"]
        assert len(await get(client, url, granularity=60, start=NOON)) == 350
        unaligned = await get(client, url, granularity=60, start=NOON - 61, end=NOON - 1)
        assert [row[0] for row in unaligned] == [NOON - 60]
        assert (await client.get(url, params={"granularity": 61})).json() == {"message": "Unsupported granularity"}
        assert (await client.get("http://coinbase.simulated/products/NO-USD/candles")).status_code == 404


async def test_coinbase_trades_page_backwards_by_id(autojump_clock: MockClock) -> None:
    async with open_world() as (world, client):
        first = await client.get(COINBASE + "/trades", params={"limit": 100})
        ids = [row["trade_id"] for row in first.json()]
        assert ids == list(range(ids[0], ids[0] - 100, -1))
        assert first.headers["cb-after"] == str(ids[-1])
        second = await get(client, COINBASE + "/trades", limit=10, after=ids[-1])
        assert [row["trade_id"] for row in second] == list(range(ids[-1] - 1, ids[-1] - 11, -1))
        # "before" does not move the page: it is the newest one.
        newer = await get(client, COINBASE + "/trades", limit=10, before=ids[50])
        assert [row["trade_id"] for row in newer] == ids[:10]
        trade = world.market.trade("coinbase", "ETH-USD", ids[0])
        assert Decimal(first.json()[0]["price"]) == trade.price
        assert first.json()[0]["side"] != trade.side


async def test_coinbase_limits_ten_requests_a_second_fifteen_at_once(autojump_clock: MockClock) -> None:
    async with open_world() as (world, client):
        world["coinbase"].faults.lift_limits = False
        codes = [(await client.get("http://coinbase.simulated/time")).status_code for _ in range(20)]
        assert codes == [200] * 15 + [429] * 5
        assert world["coinbase"].violations == {"rest": 5}
        await trio.sleep(1)
        codes = [(await client.get("http://coinbase.simulated/time")).status_code for _ in range(11)]
        assert codes == [200] * 10 + [429]


async def test_coinbase_lists_its_products(autojump_clock: MockClock) -> None:
    async with open_world() as (world, client):
        world["coinbase"].faults.delisted_symbols.add("LTC-USD")
        products = {p["id"]: p for p in await get(client, "http://coinbase.simulated/products")}
        assert products["BTC-USD"]["status"] == "online"
        assert products["LTC-USD"]["status"] == "delisted"
        assert (await get(client, "http://coinbase.simulated/time"))["epoch"] == NOON + 30


# -- Kraken ------------------------------------------------------------------------------------------------

KRAKEN = "http://kraken.simulated/0/public/"


async def test_kraken_ohlc_has_720_rows_and_the_forming_one_zero_rows_included(
    autojump_clock: MockClock,
) -> None:
    async with open_world() as (world, client):
        answer = await get(client, KRAKEN + "OHLC", pair="ETHUSD", interval=1)
        assert answer["error"] == []
        rows = answer["result"]["XETHZUSD"]
        assert [row[0] for row in rows] == list(range(NOON - 720 * 60, NOON + 1, 60))
        assert answer["result"]["last"] == NOON
        before = world.market.last_trade_before("kraken", "ETH/USD", rows[0][0] * 1_000_000).price
        for row in rows[:-1]:
            candle = world.market.candle("kraken", "ETH/USD", row[0] * 1000)
            if candle is None:
                assert row[1:] == [str(before)] * 4 + ["0.00", "0.00000000", 0]
                continue
            prices = [candle.open, candle.high, candle.low, candle.close]
            assert list(map(Decimal, row[1:5])) == prices
            assert (Decimal(row[6]), row[7]) == (candle.volume, candle.trades_count)
            assert 0 <= candle.quote_volume / candle.volume - Decimal(row[5]) < Decimal("0.01")
            before = candle.close
        assert any(row[7] == 0 for row in rows)


async def test_kraken_since_is_inclusive_unless_told_otherwise(autojump_clock: MockClock) -> None:
    async with open_world() as (world, client):
        faults = world["kraken"].faults
        ask = {"pair": "BTC/USD", "interval": 1, "since": NOON - 120}
        rows = (await get(client, KRAKEN + "OHLC", **ask))["result"]["XXBTZUSD"]
        assert [row[0] for row in rows] == [NOON - 120, NOON - 60, NOON]
        faults.since_exclusive, faults.last_is_forming = True, False
        await trio.sleep(2)  # an identical question is answered from the cache for two seconds
        result = (await get(client, KRAKEN + "OHLC", **ask))["result"]
        assert [row[0] for row in result["XXBTZUSD"]] == [NOON - 60, NOON]
        assert result["last"] == NOON - 60


async def test_kraken_trades_pages_overlap_by_the_boundary(autojump_clock: MockClock) -> None:
    async with open_world() as (world, client):
        since = (START - 600_000) * 1_000_000
        seen: list[int] = []
        for _ in range(4):
            result = (await get(client, KRAKEN + "Trades", pair="XXBTZUSD", since=since, count=50))["result"]
            ids = [row[6] for row in result["XXBTZUSD"]]
            assert len(ids) == 50
            if seen:
                assert ids[0] <= seen[-1]
            seen.extend(number for number in ids if not seen or number > seen[-1])
            since = int(result["last"])
        assert seen == list(range(seen[0], seen[0] + len(seen)))
        first = world.market.trade("kraken", "BTC/USD", seen[0])
        assert seen[0] == world.market.first_id_from("kraken", "BTC/USD", (START - 600_000) * 1000)
        assert since == world.market.trade("kraken", "BTC/USD", seen[-1]).time_us * 1000
        assert first.time_us >= (START - 600_000) * 1000


async def test_kraken_refuses_with_http_200(autojump_clock: MockClock) -> None:
    async with open_world() as (world, client):
        world["kraken"].faults.lift_limits = False
        unknown = await client.get(KRAKEN + "OHLC", params={"pair": "NOPE"})
        assert (unknown.status_code, unknown.json()) == (200, {"error": ["EQuery:Unknown asset pair"]})
        answers = [(await client.get(KRAKEN + "Time")).json()["error"] for _ in range(16)]
        assert answers == [[]] * 14 + [["EGeneral:Too many requests"]] * 2
        assert world["kraken"].violations["rest"] == 2


async def test_kraken_names_its_pairs(autojump_clock: MockClock) -> None:
    async with open_world() as (world, client):
        pairs = (await get(client, KRAKEN + "AssetPairs"))["result"]
        assert pairs["XXBTZUSD"]["wsname"] == "XBT/USD"
        assert pairs["XDGUSD"]["status"] == "online"
        assert pairs["SIM000USD"]["altname"] == "SIM000USD"
        world["kraken"].faults.system = "maintenance"
        assert (await get(client, KRAKEN + "SystemStatus"))["result"] == {
            "status": "maintenance",
            "timestamp": "2026-09-03T06:00:30Z",
        }


# -- OKX ---------------------------------------------------------------------------------------------------

OKX = "http://okx.simulated/api/v5/"


async def test_okx_bounds_are_exclusive_and_rows_newest_first(autojump_clock: MockClock) -> None:
    async with open_world() as (world, client):
        ask = {"instId": "ETH-USDT", "bar": "1m", "after": START, "before": START - 6 * MINUTE, "limit": 300}
        for name in ("candles", "history-candles"):
            rows = (await get(client, OKX + f"market/{name}", **ask))["data"]
            assert [int(row[0]) for row in rows] == [START - n * MINUTE for n in range(1, 6)]
            for row in rows:
                candle = world.market.candle("okx", "ETH-USDT", int(row[0]))
                numbers = [*map(Decimal, row[1:8])]
                if candle is None:
                    assert numbers[4:] == [0, 0, 0]
                    assert len(set(numbers[:4])) == 1
                else:
                    prices = [candle.open, candle.high, candle.low, candle.close]
                    assert numbers == [*prices, candle.volume, candle.quote_volume, candle.quote_volume]
                assert row[8] == "1"


async def test_okx_marks_the_forming_row_and_keeps_it_from_history(autojump_clock: MockClock) -> None:
    async with open_world() as (_, client):
        ask = {"instId": "BTC-USDT", "bar": "1m"}
        newest = (await get(client, OKX + "market/candles", **ask))["data"]
        history = (await get(client, OKX + "market/history-candles", **ask))["data"]
        assert (len(newest), newest[0][0], newest[0][8]) == (100, str(START), "0")
        assert (history[0][0], history[0][8]) == (str(START - MINUTE), "1")
        # "before" alone is the latest page, and /candles ends after a day.
        alone = (await get(client, OKX + "market/candles", **ask, before=START - 999 * MINUTE))["data"]
        assert [row[0] for row in alone] == [row[0] for row in newest]
        old = {**ask, "after": START - 1437 * MINUTE, "limit": 300}
        assert len((await get(client, OKX + "market/candles", **old))["data"]) == 2
        assert len((await get(client, OKX + "market/history-candles", **old))["data"]) == 300


async def test_okx_refuses_with_codes(autojump_clock: MockClock) -> None:
    async with open_world() as (world, client):
        world["okx"].faults.lift_limits = False
        unknown = await client.get(OKX + "market/candles", params={"instId": "NO-USDT"})
        assert (unknown.status_code, unknown.json()["code"]) == (200, "51001")
        answers = [
            await client.get(OKX + "market/history-candles", params={"instId": "BTC-USDT", "limit": 1})
            for _ in range(21)
        ]
        assert [answer.status_code for answer in answers] == [200] * 20 + [429]
        assert answers[-1].json()["code"] == "50011"
        await trio.sleep(2)
        again = await client.get(OKX + "market/history-candles", params={"instId": "BTC-USDT"})
        assert again.json()["code"] == "0"


async def test_okx_history_trades_page_by_id(autojump_clock: MockClock) -> None:
    async with open_world() as (_, client):
        ask = {"instId": "BTC-USDT", "type": 1, "limit": 100}
        first = (await get(client, OKX + "market/history-trades", **ask))["data"]
        ids = [int(row["tradeId"]) for row in first]
        second = (await get(client, OKX + "market/history-trades", **ask, after=ids[-1]))["data"]
        assert [int(row["tradeId"]) for row in second] == [number - 100 for number in ids]
        instruments = (await get(client, OKX + "public/instruments", instType="SPOT", instId="BTC-USDT"))["data"]
        assert instruments[0]["state"] == "live"
        assert (await get(client, OKX + "public/time"))["data"] == [{"ts": str(START + 30_000)}]
        assert (await get(client, OKX + "system/status"))["data"] == []


# -- faults ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("venue", ["coinbase", "kraken", "okx"])
async def test_rest_faults_are_used_up_and_counted(venue: str, autojump_clock: MockClock) -> None:
    urls = {
        "coinbase": COINBASE + "/candles?granularity=60",
        "kraken": KRAKEN + "OHLC?pair=ETHUSD",
        "okx": OKX + "market/candles?instId=ETH-USDT",
    }
    url = urls[venue]
    async with open_world() as (world, client):
        faults = world[venue].faults
        good = await client.get(url)

        async def spoilt(fault: RestFault) -> httpx.Response:
            faults.rest.append(fault)
            return await client.get(url, headers={"Cache-Control": "no-cache"})

        assert (await spoilt(RestFault("status", status=503))).status_code == 503
        assert (await spoilt(RestFault("status", status=429))).status_code == 429
        assert (await spoilt(RestFault("html"))).text.startswith("<html>")
        assert good.text.startswith((await spoilt(RestFault("truncated"))).text)
        assert (await spoilt(RestFault("wrong_symbol"))).text != good.text
        assert len((await spoilt(RestFault("empty"))).text) < 100
        assert 0.4 < len((await spoilt(RestFault("short"))).text) / len(good.text) < 0.6
        assert 1.4 < len((await spoilt(RestFault("repeated"))).text) / len(good.text) < 1.6
        begin = trio.current_time()
        assert (await spoilt(RestFault("slow", seconds=4))).status_code == 200
        assert trio.current_time() - begin == pytest.approx(4)
        whole = (await spoilt(RestFault("drip", seconds=4))).text
        assert trio.current_time() - begin == pytest.approx(8)
        assert whole == (await client.get(url)).text
        assert (await spoilt(RestFault("stale", seconds=300))).text != good.text
        assert (await spoilt(RestFault("throttle"))).status_code == (429 if venue == "coinbase" else 200)
        assert (await spoilt(RestFault("busy"))).status_code == (503 if venue == "coinbase" else 200)
        with pytest.raises(httpx.RemoteProtocolError):
            await spoilt(RestFault("disconnect"))
        assert sum(times for kind, times in faults.fired.items() if kind.startswith("rest ")) == 14
        assert (await client.get(url)).status_code == 200
        # A fault for another path does not fit.
        faults.rest.append(RestFault("status", path="trades", times=FOREVER))
        assert (await client.get(url)).status_code == 200


NONSENSE = [
    "",
    "-1",
    "1e9",
    "NaN",
    "9" * 5000,
    "²",
    "0001-01-01T00:00:00+23:59",
    "9999999999999999999",
    "[",
    "0",
]


async def test_no_question_is_too_strange_to_be_answered(autojump_clock: MockClock) -> None:
    async with open_world() as (_, client):
        for word in NONSENSE:
            for url, names in (
                (COINBASE + "/candles", ("start", "end", "granularity")),
                (COINBASE + "/trades", ("limit", "after", "before")),
                (KRAKEN + "OHLC?pair=XBTUSD", ("since", "interval")),
                (KRAKEN + "Trades?pair=XBTUSD", ("since", "count")),
                (OKX + "market/candles?instId=BTC-USDT", ("after", "before", "limit", "bar")),
                (OKX + "market/history-trades?instId=BTC-USDT&type=2", ("after", "before", "limit")),
            ):
                for name in names:
                    question = httpx.URL(url).copy_merge_params({name: word})
                    assert (await client.get(question)).status_code in (200, 400)
                everything = httpx.URL(url).copy_merge_params(dict.fromkeys(names, word))
                assert (await client.get(everything)).status_code in (200, 400)


async def test_a_host_that_is_not_there_cannot_be_reached(autojump_clock: MockClock) -> None:
    async with open_world() as (_, client):
        with pytest.raises(httpx.ConnectError):
            await client.get("http://binance.simulated/")
