"""What can happen to a connection to a simulated venue, in memory and over TCP."""

from __future__ import annotations

import json
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

import httpx
import pytest
import trio
from trio_websocket import (
    ConnectionClosed,
    ConnectionRejected,
    WebSocketConnection,
    open_websocket_url,
    wrap_client_stream,
)

from trio_candles.simulator import (
    Market,
    MemoryExchanges,
    RestFault,
    open_exchanges_in_memory,
    open_exchanges_on_loopback,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

START = 1_788_415_200_000
SUBSCRIBE: dict[str, dict[str, Any]] = {
    "coinbase": {"type": "subscribe", "product_ids": ["BTC-USD"], "channels": ["matches", "heartbeat"]},
    "kraken": {"method": "subscribe", "params": {"channel": "ohlc", "symbol": ["BTC/USD"], "interval": 1}},
    "okx": {"id": "1", "op": "subscribe", "args": [{"channel": "candle1m", "instId": "BTC-USDT"}]},
}
SYMBOLS = {"coinbase": "BTC-USD", "kraken": "BTC/USD", "okx": "BTC-USDT"}
VENUES = tuple(SUBSCRIBE)
HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def now() -> int:
    return START + round(trio.current_time() * 1000)


@asynccontextmanager
async def open_world() -> AsyncIterator[MemoryExchanges]:
    async with open_exchanges_in_memory(Market(5), now) as world:
        yield world


@asynccontextmanager
async def connect(world: MemoryExchanges, venue: str) -> AsyncIterator[WebSocketConnection]:
    """A subscribed WebSocket that is simply let go of at the end."""
    url = world.endpoints[venue].websocket_url
    stream = cast("trio.SocketStream", await world.dial(url))
    async with trio.open_nursery() as nursery:
        socket = await wrap_client_stream(nursery, stream, f"{venue}.simulated", "/" + url.split("/", 3)[3])
        await socket.send_message(json.dumps(SUBSCRIBE[venue]))
        yield socket
        nursery.cancel_scope.cancel()
    await trio.aclose_forcefully(stream)


async def hear(socket: WebSocketConnection, seconds: float) -> list[Any]:
    heard: list[Any] = []
    with trio.move_on_after(seconds):
        while True:
            heard.append(await socket.get_message())
    return heard


async def handshake(world: MemoryExchanges, venue: str) -> None:
    """Dial and do the WebSocket handshake."""
    async with connect(world, venue):
        pass


@pytest.mark.parametrize("venue", VENUES)
async def test_a_refused_connection_is_an_oserror(venue: str, autojump_clock: MockClock) -> None:
    async with open_world() as world:
        world[venue].faults.refuse_connections = True
        with pytest.raises(OSError, match="refuses connections"):
            await world.dial(world.endpoints[venue].websocket_url)
        assert world[venue].attempts == [START]
        assert world[venue].connections == []
        with pytest.raises(OSError, match="no such host"):
            await world.dial("ws://binance.simulated/")


@pytest.mark.parametrize("status", [429, 503])
async def test_a_handshake_can_be_refused_with_a_status(status: int, autojump_clock: MockClock) -> None:
    async with open_world() as world:
        world["kraken"].faults.handshake = status
        with pytest.RaisesGroup(pytest.RaisesExc(ConnectionRejected), allow_unwrapped=True, flatten_subgroups=True):
            await handshake(world, "kraken")


@pytest.mark.parametrize("fault", ["close", "garbage", "silent"])
async def test_a_handshake_can_fail_otherwise(fault: Any, autojump_clock: MockClock) -> None:
    async with open_world() as world:
        world["okx"].faults.handshake = fault
        stream = await world.dial(world.endpoints["okx"].websocket_url)
        await stream.send_all(b"GET / HTTP/1.1\r\nHost: okx.simulated\r\n\r\n")
        with trio.move_on_after(100) as patience:
            answer = await stream.receive_some()
        assert patience.cancelled_caught == (fault == "silent")
        if fault != "silent":
            assert answer == {"close": b"", "garbage": b"SSH-2.0-OpenSSH_9.6\r\n"}[fault]
        await stream.aclose()
        assert world["okx"].faults.fired == {f"handshake {fault}": 1}


async def test_a_wrong_path_is_not_found(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        stream = await world.dial("ws://kraken.simulated/")
        await stream.send_all(HANDSHAKE)
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 404")


@pytest.mark.parametrize("venue", VENUES)
async def test_a_mute_venue_says_nothing_and_hangs_up_never(venue: str, autojump_clock: MockClock) -> None:
    async with open_world() as world, connect(world, venue) as socket:
        assert await hear(socket, 10)
        world[venue].faults.mute = True
        assert await hear(socket, 1000) == []
        with trio.move_on_after(60) as patience:
            await socket.aclose()
        assert patience.cancelled_caught


async def test_a_venue_can_leave_a_close_unanswered(autojump_clock: MockClock) -> None:
    async with open_world() as world, connect(world, "coinbase") as socket:
        world["coinbase"].faults.ignore_close = True
        assert await hear(socket, 10)
        with trio.move_on_after(60) as patience:
            await socket.aclose()
        assert patience.cancelled_caught


@pytest.mark.parametrize("venue", VENUES)
async def test_connections_can_be_dropped_and_closed(venue: str, autojump_clock: MockClock) -> None:
    async with open_world() as world:
        for drop, code in ((True, 1006), (False, 1012)):
            async with connect(world, venue) as socket:
                await hear(socket, 2)
                assert len(world[venue].open_connections) == 1
                if drop:
                    world[venue].drop_connections()
                else:
                    world[venue].close_connections(1012, "deploy")
                with pytest.raises(ConnectionClosed) as closed:
                    await hear(socket, 60)
                assert closed.value.reason is not None
                assert closed.value.reason.code == code
        await trio.sleep(1)
        assert [c.closed_at for c in world[venue].connections] == [START + 2000, START + 4000]


@pytest.mark.parametrize("venue", VENUES)
async def test_a_zombie_acknowledges_and_sends_no_data(venue: str, autojump_clock: MockClock) -> None:
    async with open_world() as world:
        world[venue].faults.silent_symbols.add(SYMBOLS[venue])
        async with connect(world, venue) as socket:
            heard = [json.loads(text) for text in await hear(socket, 25)]
            assert len(heard) >= (1 if venue == "okx" else 20)
            kinds = {m.get("type") or m.get("channel") or m.get("event") or m.get("method") for m in heard}
            assert kinds <= {"subscriptions", "heartbeat", "update", "subscribe"}
            assert world[venue].faults.fired["silent"] > 0


@pytest.mark.parametrize("venue", VENUES)
async def test_frames_can_be_corrupt(venue: str, autojump_clock: MockClock) -> None:
    async with open_world() as world, connect(world, venue) as socket:
        await hear(socket, 1)
        faults = world[venue].faults
        faults.corrupt.extend(["truncated", "nan", "wrong_type", "binary", "not_json", "unknown"])
        faults.corrupt.extend(["impossible", "impossible"])
        heard = await hear(socket, 28)
        assert faults.corrupt == []
        binary = next(frame for frame in heard if isinstance(frame, bytes))
        assert json.loads(binary)
        texts = [frame for frame in heard if isinstance(frame, str)]
        assert sum("NaN" in text for text in texts) == 1
        assert sum("from_the_future" in text for text in texts) == 1
        assert sum(text.startswith("<html>") for text in texts) == 1
        assert sum('{"value":1}' in text or ",null," in text for text in texts) == 1
        assert sum(text.startswith("{") and not text.endswith("}") for text in texts) == 1
        assert sum('":-' in text or '":"-' in text or ',"-' in text for text in texts) == 2
        faults.corrupt.append("giant")
        with pytest.raises(ConnectionClosed):  # The client takes a megabyte at most.
            await hear(socket, 28)


@pytest.mark.parametrize("venue", VENUES)
async def test_subscriptions_can_go_unacknowledged(venue: str, autojump_clock: MockClock) -> None:
    async with open_world() as world:
        world[venue].faults.unacknowledged_symbols.add(SYMBOLS[venue])
        async with connect(world, venue) as socket:
            texts = await hear(socket, 20)
            assert not any('"event":"subscribe"' in t or '"method":"subscribe"' in t for t in texts)
            assert len(texts) > 5
            assert world[venue].faults.fired == {"unacknowledged_symbols": 1}


async def test_connecting_too_often_is_a_violation(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        for _ in range(3):
            await handshake(world, "okx")
        with pytest.RaisesGroup(pytest.RaisesExc(ConnectionRejected), allow_unwrapped=True, flatten_subgroups=True):
            await handshake(world, "okx")
        assert world["okx"].violations == {"connections": 1}
        await trio.sleep(1)
        await handshake(world, "okx")


STRANGE = [
    "",
    "null",
    "[]",
    "{",
    "[" * 200_000,
    '{"type":7}',
    '{"op":"subscribe","args":7}',
    "\ud7ff",
    "NaN",
    '{"type":"subscribe","product_ids":[7,null],"channels":[7,{}]}',
    '{"op":"subscribe","args":[7,{}]}',
    '{"method":"subscribe","params":{"channel":["ohlc"],"symbol":7}}',
    '{"method":["subscribe"]}',
    '{"method":"subscribe","params":7,"req_id":{}}',
    '{"type":"unsubscribe","channels":["matches"]}',
]


@pytest.mark.parametrize("venue", VENUES)
async def test_no_message_is_too_strange_to_be_heard(venue: str, autojump_clock: MockClock) -> None:
    async with open_world() as world, connect(world, venue) as socket:
        for said in STRANGE:
            await socket.send_message(said)
            await socket.send_message(said.encode())
        assert len(await hear(socket, 20)) > 10
        assert world[venue].open_connections


async def test_three_hundred_symbols_fit_on_one_connection(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        symbols = [f"SIM{number:03}-USD" for number in range(300)]
        url = world.endpoints["coinbase"].websocket_url
        stream = cast("trio.SocketStream", await world.dial(url))
        async with trio.open_nursery() as nursery:
            socket = await wrap_client_stream(nursery, stream, "coinbase.simulated", "/")
            await socket.send_message(json.dumps(SUBSCRIBE["coinbase"] | {"product_ids": symbols}))
            heard = [json.loads(text) for text in await hear(socket, 5)]
            nursery.cancel_scope.cancel()
        beats = [m["product_id"] for m in heard if m["type"] == "heartbeat"]
        assert set(beats) == set(symbols)
        assert 4 * 300 <= len(beats) <= 5 * 300


# -- over TCP ----------------------------------------------------------------------------------------------


def wall() -> int:
    """A clock as a service on loopback has it: twenty times faster than the wall."""
    return START + round(time.monotonic() * 20_000)


async def test_the_websocket_works_over_tcp() -> None:
    async with (
        open_exchanges_on_loopback(Market(5), wall) as world,
        open_websocket_url(world.endpoints["okx"].websocket_url) as socket,
    ):
        await socket.send_message(json.dumps(SUBSCRIBE["okx"]))
        with trio.fail_after(10):
            assert json.loads(await socket.get_message())["event"] == "subscribe"
            assert json.loads(await socket.get_message())["data"][0][8] == "0"
            await socket.send_message("ping")
            while await socket.get_message() != "pong":
                pass
        assert len(world["okx"].open_connections) == 1
        world["okx"].faults.refuse_connections = True
        port = int(world.endpoints["okx"].rest_url.rpartition(":")[2])
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(HANDSHAKE)
            assert await stream.receive_some() == b""


async def test_rest_works_over_tcp_and_keeps_connections_alive() -> None:
    async with (
        open_exchanges_on_loopback(Market(5), wall) as world,
        httpx.AsyncClient(base_url=world.endpoints["kraken"].rest_url) as client,
    ):
        world["kraken"].faults.lift_limits = True
        assert len((await client.get("/0/public/OHLC?pair=XBTUSD")).json()["result"]["XXBTZUSD"]) == 721
        assert (await client.get("/0/public/Time")).json()["error"] == []
        assert (await client.post("/0/public/Time", content=b"x" * 100)).status_code == 200
        world["kraken"].faults.rest.append(RestFault("disconnect"))
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get("/0/public/Time")
        assert (await client.get("/0/public/Time")).status_code == 200


async def test_a_client_that_misbehaves_costs_only_its_own_connection() -> None:
    async with open_exchanges_on_loopback(Market(5), wall, ("coinbase",)) as world:
        world["coinbase"].faults.lift_limits = True
        rest_url = world.endpoints["coinbase"].rest_url
        port = int(rest_url.rpartition(":")[2])
        for said in (
            b"",
            b"SSH-2.0-x\r\n\r\n",
            b"GET / HTTP/1.1\r\n\r\n",
            b"GET / HTTP/9\r\n\r\n",
            b"\x00" * 70_000,
        ):
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            await stream.send_all(said)
            await stream.aclose()
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        await stream.send_all(HANDSHAKE)
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 101")
        await stream.send_all(b"\xff\xff\xff no frame at all")
        await stream.aclose()
        async with httpx.AsyncClient(base_url=rest_url) as client:
            assert (await client.get("/time")).status_code == 200
