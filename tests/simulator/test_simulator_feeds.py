"""The simulated WebSocket feeds say what the market did, in the venues' own words."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from decimal import Decimal
from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

import pytest
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

from trio_candles.simulator import Market, MemoryExchanges, open_exchanges_in_memory

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

MINUTE = 60_000
START = 1_788_415_200_000


def now() -> int:
    """Ten seconds into a minute when the test begins."""
    return START + 10_000 + round(trio.current_time() * 1000)


@asynccontextmanager
async def open_world(market: Market | None = None) -> AsyncIterator[MemoryExchanges]:
    async with open_exchanges_in_memory(market or Market(5), now) as world:
        yield world


@asynccontextmanager
async def connect(
    world: MemoryExchanges, venue: str, *said: object, url: str | None = None
) -> AsyncIterator[WebSocketConnection]:
    """A WebSocket on which some messages were sent already."""
    url = url or world.endpoints[venue].websocket_url
    path = "/" + url.split("/", 3)[3]
    async with trio.open_nursery() as nursery:
        stream = cast("trio.SocketStream", await world.dial(url))
        socket = await wrap_client_stream(nursery, stream, f"{venue}.simulated", path)
        for message in said:
            await socket.send_message(message if isinstance(message, str) else json.dumps(message))
        yield socket
        with trio.move_on_after(1):
            await socket.aclose()
        nursery.cancel_scope.cancel()


async def hear(
    socket: WebSocketConnection, seconds: float, heard: list[tuple[int, Any]] | None = None
) -> list[tuple[int, Any]]:
    """Every message of so many seconds with its time, numbers exact."""
    heard = [] if heard is None else heard
    with trio.move_on_after(seconds):
        while True:
            text = await socket.get_message()
            heard.append((now(), json.loads(text, parse_float=Decimal) if text != "pong" else text))
    return heard


def market_trades(market: Market, venue: str, symbol: str, first: int, last: int) -> list[Any]:
    return [market.trade(venue, symbol, number) for number in range(first, last + 1)]


# -- Coinbase ----------------------------------------------------------------------------------------------


def coinbase(*symbols: str, channels: tuple[str, ...] = ("matches", "heartbeat")) -> dict[str, Any]:
    return {"type": "subscribe", "product_ids": list(symbols), "channels": list(channels)}


async def test_coinbase_sends_every_trade_once_and_in_order(autojump_clock: MockClock) -> None:
    async with open_world() as world, connect(world, "coinbase", coinbase("BTC-USD", "ETH-USD")) as socket:
        heard = await hear(socket, 130)
        assert heard[0][1]["type"] == "subscriptions"
        assert {channel["name"] for channel in heard[0][1]["channels"]} == {"matches", "heartbeat"}
        for symbol in ("BTC-USD", "ETH-USD"):
            mine = [(at, m) for at, m in heard if m.get("product_id") == symbol]
            assert mine[0][1]["type"] == "last_match"
            baseline = mine[0][1]["trade_id"]
            matches = [(at, m) for at, m in mine if m["type"] == "match"]
            ids = [m["trade_id"] for _, m in matches]
            assert ids == list(range(baseline + 1, baseline + 1 + len(ids)))
            for (at, m), trade in zip(
                matches, market_trades(world.market, "coinbase", symbol, ids[0], ids[-1]), strict=True
            ):
                assert (Decimal(m["price"]), Decimal(m["size"])) == (trade.price, trade.size)
                assert m["side"] != trade.side
                assert 20 <= at - trade.time_us / 1000 < 150
            sequences = [m["sequence"] for _, m in mine]
            assert sequences == sorted(sequences)


async def test_coinbase_heartbeats_prove_what_was_traded(autojump_clock: MockClock) -> None:
    async with open_world() as world, connect(world, "coinbase", coinbase("ETH-USD", "SIM001-USD")) as socket:
        heard = await hear(socket, 60)
        for symbol in ("ETH-USD", "SIM001-USD"):
            beats = [m for _, m in heard if m["type"] == "heartbeat" and m["product_id"] == symbol]
            assert 59 <= len(beats) <= 60
            seen = 0
            for message in (m for _, m in heard if m.get("product_id") == symbol):
                if message["type"] == "heartbeat":
                    assert message["last_trade_id"] == seen
                else:
                    seen = message["trade_id"]


async def test_coinbase_hangs_up_on_the_silent_after_five_seconds(autojump_clock: MockClock) -> None:
    async with open_world() as world, connect(world, "coinbase") as socket:
        with pytest.raises(ConnectionClosed):
            await socket.get_message()
        assert trio.current_time() == pytest.approx(5, abs=0.01)
        await trio.sleep(0.1)
        assert world["coinbase"].connections[0].closed_at is not None


async def test_coinbase_fails_the_whole_message_for_one_bad_product(autojump_clock: MockClock) -> None:
    async with open_world() as world, connect(world, "coinbase", coinbase("BTC-USD", "NO-USD")) as socket:
        assert await hear(socket, 3) == [
            (
                now() - 3000,
                {
                    "type": "error",
                    "message": "Failed to subscribe",
                    "reason": "NO-USD is not a valid product",
                },
            )
        ]


async def test_coinbase_acknowledges_all_that_is_subscribed(autojump_clock: MockClock) -> None:
    leave = {"type": "unsubscribe", "product_ids": ["BTC-USD"], "channels": ["matches", "heartbeat"]}
    async with (
        open_world() as world,
        connect(world, "coinbase", coinbase("BTC-USD"), coinbase("ETH-USD"), leave) as socket,
    ):
        heard = [m for _, m in await hear(socket, 20)]
        lists = [m["channels"][0]["product_ids"] for m in heard if m["type"] == "subscriptions"]
        assert lists == [["BTC-USD"], ["BTC-USD", "ETH-USD"], ["ETH-USD"]]
        assert {m["product_id"] for m in heard if m["type"] == "heartbeat"} == {"ETH-USD"}


async def test_a_dropped_coinbase_trade_is_counted_by_the_heartbeat(autojump_clock: MockClock) -> None:
    async with open_world() as world, connect(world, "coinbase", coinbase("BTC-USD")) as socket:
        lost = world.market.first_id_from("coinbase", "BTC-USD", (START + 20_000) * 1000)
        late = lost + 3
        faults = world["coinbase"].faults
        faults.drop_trade = lambda symbol, number: number == lost
        faults.delay_trade = lambda symbol, number: 7.0 if number == late else 0.0
        faults.duplicate_trade = lambda symbol, number: number == lost + 1
        heard = await hear(socket, 60)
        ids = [m["trade_id"] for _, m in heard if m["type"] == "match"]
        assert lost not in ids
        assert ids.count(lost + 1) == 2
        assert late in ids
        assert ids.index(late) > ids.index(late + 1)
        assert max(m["last_trade_id"] for _, m in heard if m["type"] == "heartbeat") >= max(ids)
        assert faults.fired == {"drop_trade": 1, "delay_trade": 1, "duplicate_trade": 1}
        faults.last_trade_id_zero = True
        assert {m["last_trade_id"] for _, m in await hear(socket, 9) if m["type"] == "heartbeat"} == {0}


# -- Kraken ------------------------------------------------------------------------------------------------


def kraken(channel: str, *symbols: str, **more: object) -> dict[str, Any]:
    return {
        "method": "subscribe",
        "params": {"channel": channel, "symbol": list(symbols), **more},
        "req_id": 7,
    }


async def test_kraken_updates_the_row_after_every_trade(autojump_clock: MockClock) -> None:
    said = kraken("ohlc", "BTC/USD", "ETH/USD", interval=1), kraken("trade", "BTC/USD", "ETH/USD")
    async with open_world() as world, connect(world, "kraken", *said) as socket:
        heard = [m for _, m in await hear(socket, 140)]
        assert heard[0]["channel"] == "status"
        acks = [m for m in heard if m.get("method") == "subscribe"]
        assert [(a["result"]["channel"], a["result"]["symbol"], a["req_id"]) for a in acks] == [
            (channel, symbol, 7) for channel in ("ohlc", "trade") for symbol in ("BTC/USD", "ETH/USD")
        ]
        assert all(("warnings" in a["result"]) == (a["result"]["channel"] == "ohlc") for a in acks)
        for symbol in ("BTC/USD", "ETH/USD"):
            updates = [
                row
                for m in heard
                if m.get("channel") == "ohlc" and m["type"] == "update"
                for row in m["data"]
                if row["symbol"] == symbol
            ]
            traded = [
                row["trade_id"]
                for m in heard
                if m.get("channel") == "trade"
                for row in m["data"]
                if row["symbol"] == symbol
            ]
            assert traded == list(range(traded[0], traded[-1] + 1))
            assert len(updates) == len(traded)
            rows = {row["interval_begin"]: row for row in updates}
            last = rows["2026-09-03T06:01:00.000000000Z"]
            assert last["timestamp"] == "2026-09-03T06:02:00.000000Z"
            candle = world.market.candle("kraken", symbol, START + MINUTE)
            assert candle is not None
            names = ("open", "high", "low", "close", "volume")
            assert [last[name] for name in names] == [getattr(candle, name) for name in names]
            assert last["trades"] == candle.trades_count


async def test_krakens_snapshot_has_only_minutes_with_trades(autojump_clock: MockClock) -> None:
    thin = next(
        symbol
        for symbol in Market(5).symbols("kraken")
        if None in (candles := [Market(5).candle("kraken", symbol, START - n * MINUTE) for n in range(1, 13)])
        and any(candles)
    )
    async with open_world() as world, connect(world, "kraken", kraken("ohlc", thin, interval=1)) as socket:
        snapshot = next(m for _, m in await hear(socket, 1) if m.get("type") == "snapshot")
        expected = [
            candle.trades_count
            for n in range(12, 0, -1)
            if (candle := world.market.candle("kraken", thin, START - n * MINUTE))
        ]
        assert 0 < len(expected) < 12
        assert [row["trades"] for row in snapshot["data"]][: len(expected)] == expected


async def test_kraken_rejects_each_symbol_for_itself(autojump_clock: MockClock) -> None:
    said = kraken("ohlc", "XBT/USD", "ETH/USD", "btcusd", interval=1)
    async with open_world() as world, connect(world, "kraken", said) as socket:
        answers = [m for _, m in await hear(socket, 1) if m.get("method") == "subscribe"]
        assert [a["success"] for a in answers] == [False, True, False]
        assert answers[0]["error"] == "Currency pair not supported XBT/USD"
        assert answers[0]["symbol"] == "XBT/USD"
        assert "ISO 4217-A3" in answers[2]["error"]


async def test_krakens_heartbeat_comes_only_when_nothing_else_does(autojump_clock: MockClock) -> None:
    said = kraken("trade", "ETH/USD"), {"method": "ping", "req_id": 101}
    async with open_world() as world, connect(world, "kraken", *said) as socket:
        heard = await hear(socket, 120.5)
        assert [m["req_id"] for _, m in heard if m.get("method") == "pong"] == [101]
        times = [at for at, _ in heard]
        assert max(b - a for a, b in pairwise(times)) < 2_000
        for (before, _), (at, message) in pairwise(heard):
            if message.get("channel") == "heartbeat":
                assert at - before >= 990
        world["kraken"].faults.heartbeats = False
        assert {m.get("channel") for _, m in await hear(socket, 60)} == {"trade"}


async def test_kraken_refuses_more_than_twenty_messages_a_second(autojump_clock: MockClock) -> None:
    async with (
        open_world() as world,
        connect(world, "kraken", *[{"method": "ping", "req_id": n} for n in range(25)]) as socket,
    ):
        heard = [m for _, m in await hear(socket, 1)]
        assert heard.count({"Error": "Exceeded msg rate"}) == 5
        assert world["kraken"].violations == {"messages": 5}


async def test_kraken_announces_maintenance(autojump_clock: MockClock) -> None:
    async with open_world() as world, connect(world, "kraken", kraken("trade", "SIM000/USD")) as socket:
        await hear(socket, 3)
        world["kraken"].faults.system = "maintenance"
        heard = [m for _, m in await hear(socket, 2) if m.get("channel") == "status"]
        assert [m["data"][0]["system"] for m in heard] == ["maintenance"]


async def test_a_kraken_row_can_come_late_and_updates_can_be_skipped(autojump_clock: MockClock) -> None:
    async with (
        open_world() as world,
        connect(world, "kraken", kraken("ohlc", "BTC/USD", interval=1)) as socket,
    ):
        candle = world.market.candle("kraken", "BTC/USD", START)
        assert candle is not None
        faults = world["kraken"].faults
        faults.delay_ohlc = lambda symbol, number: 65.0 if number == candle.last_id else 0.0
        faults.skip_ohlc = lambda symbol, number: candle.last_id - 3 <= number < candle.last_id
        rows = [
            (at, row["trades"])
            for at, m in await hear(socket, 180)
            if m.get("channel") == "ohlc" and m["type"] == "update"
            for row in m["data"]
            if row["interval_begin"] == "2026-09-03T06:00:00.000000000Z"
        ]
        assert [count for _, count in rows][-2:] == [candle.trades_count - 4, candle.trades_count]
        assert rows[-1][0] > START + MINUTE + 40_000
        assert faults.fired == {"skip_ohlc": 3, "delay_ohlc": 1}


# -- OKX ---------------------------------------------------------------------------------------------------


def okx(*symbols: str, channel: str = "candle1m") -> dict[str, Any]:
    arguments = [{"channel": channel, "instId": symbol} for symbol in symbols]
    return {"id": "1512", "op": "subscribe", "args": arguments}


def confirmed(heard: list[tuple[int, Any]], symbol: str) -> list[tuple[int, list[str]]]:
    return [
        (at, m["data"][0])
        for at, m in heard
        if m != "pong" and m.get("arg", {}).get("instId") == symbol and "data" in m
        if m["data"][0][-1] == "1"
    ]


async def keep_pinging(socket: WebSocketConnection) -> None:
    while True:
        await socket.send_message("ping")
        await trio.sleep(20)


async def test_okx_confirms_every_minute_even_a_silent_one(autojump_clock: MockClock) -> None:
    thin = next(s for s in Market(5).symbols("okx") if Market(5).instrument("okx", s).per_day < 20)
    async with open_world() as world, connect(world, "okx", okx("BTC-USDT", "ETH-USDT", thin)) as socket:
        heard = await hear(socket, 190)
        acks = [m for _, m in heard if m.get("event") == "subscribe"]
        assert [(a["id"], a["arg"]["instId"]) for a in acks] == [
            ("1512", symbol) for symbol in ("BTC-USDT", "ETH-USDT", thin)
        ]
        for symbol in ("BTC-USDT", "ETH-USDT", thin):
            rows = confirmed(heard, symbol)
            assert [int(row[0]) for _, row in rows] == [START, START + MINUTE, START + 2 * MINUTE]
            for at, row in rows:
                assert 100 <= at - int(row[0]) - MINUTE < 1000
                candle = world.market.candle("okx", symbol, int(row[0]))
                numbers = [*map(Decimal, row[1:8])]
                if candle is None:
                    assert len(set(numbers[:4])) == 1
                    assert row[5:8] == ["0", "0", "0"]
                else:
                    prices = [candle.open, candle.high, candle.low, candle.close]
                    assert numbers == [*prices, candle.volume, candle.quote_volume, candle.quote_volume]


async def test_okx_pushes_at_once_and_then_at_most_every_second(autojump_clock: MockClock) -> None:
    async with open_world() as world, connect(world, "okx", okx("BTC-USDT")) as socket:
        heard = await hear(socket, 40)
        pushes = [at for at, m in heard if "data" in m]
        assert pushes[0] == START + 10_000
        assert len(pushes) > 10
        assert min(b - a for a, b in pairwise(pushes)) >= 1_000
        assert {m["data"][0][8] for _, m in heard if "data" in m} == {"0"}


async def test_okx_hangs_up_after_thirty_silent_seconds_unless_pinged(autojump_clock: MockClock) -> None:
    thin = next(s for s in Market(5).symbols("okx") if Market(5).instrument("okx", s).per_day < 20)
    async with open_world() as world, connect(world, "okx", okx(thin)) as socket:
        with pytest.raises(ConnectionClosed) as closed:
            await hear(socket, 120)
        assert closed.value.reason is not None
        assert closed.value.reason.code == 4004
        async with connect(world, "okx", okx(thin)) as second, trio.open_nursery() as nursery:
            nursery.start_soon(keep_pinging, second)
            heard = await hear(second, 200)
            assert sum(m == "pong" for _, m in heard) == 10
            nursery.cancel_scope.cancel()


async def test_okx_says_60018_for_the_wrong_url_and_an_unknown_instrument(autojump_clock: MockClock) -> None:
    public = "ws://okx.simulated/ws/v5/public"
    async with open_world() as world:
        async with connect(world, "okx", okx("BTC-USDT"), url=public) as socket:
            heard = [m for _, m in await hear(socket, 1)]
            assert [m["code"] for m in heard] == ["60018"]
            assert "candle1m,instId:BTC-USDT doesn't exist" in heard[0]["msg"]
        async with connect(world, "okx", okx("NO-USDT", "BTC-USDT")) as socket:
            heard = [m for _, m in await hear(socket, 1)]
            assert [m.get("event") for m in heard] == ["error", "subscribe", None]


async def test_okx_allows_480_requests_an_hour(autojump_clock: MockClock) -> None:
    async with open_world() as world, connect(world, "okx", *[okx("BTC-USDT")] * 482) as socket:
        heard = [m for _, m in await hear(socket, 1)]
        assert sum(m.get("event") == "subscribe" for m in heard) == 480
        assert sum(m.get("code") == "60014" for m in heard) == 2


async def test_okx_confirms_can_be_lost_late_doubled_and_revised(autojump_clock: MockClock) -> None:
    async with open_world() as world, connect(world, "okx", okx("BTC-USDT")) as socket:
        faults = world["okx"].faults
        faults.lose_confirm = lambda symbol, minute: minute == START
        faults.duplicate_confirm = lambda symbol, minute: minute == START + MINUTE
        faults.revise_confirm = lambda symbol, minute: minute == START + 2 * MINUTE
        faults.confirm_delay = 30
        rows = confirmed(await hear(socket, 300), "BTC-USDT")
        minutes = [(int(row[0]) - START) // MINUTE for _, row in rows]
        assert minutes == [1, 1, 2, 2, 3]
        assert rows[0][1] == rows[1][1]
        assert rows[2][1] != rows[3][1]
        assert rows[0][0] > START + 2 * MINUTE + 30_000


async def test_okx_gives_notice_and_closes(autojump_clock: MockClock) -> None:
    async with open_world() as world, connect(world, "okx", okx("BTC-USDT")) as socket:
        world["okx"].faults.notice = 60
        world["okx"].faults.seven_fields = True
        heard: list[tuple[int, Any]] = []
        with pytest.raises(ConnectionClosed):
            await hear(socket, 120, heard)
        notices = [at for at, m in heard if m.get("code") == "64008"]
        assert notices == [START + 11_000]
        assert now() == START + 71_000
        assert len(heard[-1][1]["data"][0]) == 7
