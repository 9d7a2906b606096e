"""What is on the other side of a connection, where a test is to say what it does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing
import trio_websocket

from trio_candles.collector.feed import leaves
from trio_candles.network.websocket import Network
from trio_candles.venues.protocol import Lost

URL = "ws://venue.test/feed"
Peer = Callable[[trio.abc.Stream], Awaitable[None]]


def network_with(nursery: trio.Nursery, peer: Peer) -> Network:
    """A network on whose other side *peer* does what it likes with the raw stream."""

    async def dial(url: str) -> trio.abc.Stream:
        assert url == URL
        ours, theirs = trio.testing.memory_stream_pair()
        nursery.start_soon(peer, theirs)
        return ours

    return Network(dial)


async def accept(
    stream: trio.abc.Stream, talk: Callable[[trio_websocket.WebSocketConnection], Awaitable[None]]
) -> None:
    """Be a well-behaved server up to the handshake, then *talk*."""
    async with trio.open_nursery() as nursery:
        request = await trio_websocket.wrap_server_stream(nursery, stream)
        websocket = await request.accept()
        await talk(websocket)
        nursery.cancel_scope.cancel()


async def refused_with(network: Network, url: str) -> str:
    async def connect():
        async with network.connect(url):
            raise AssertionError("connected")

    with pytest.raises(ExceptionGroup) as caught:
        await connect()
    (lost,) = leaves(caught.value)
    assert isinstance(lost, Lost)
    return str(lost)
