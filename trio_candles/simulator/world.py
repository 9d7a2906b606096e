"""All the simulated venues together, in memory or on loopback TCP."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import attrs
import httpx
import trio
import trio.testing

from .exchange import Disconnected, SimulatedExchange
from .serving import serve_stream
from .text import Request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping

    from .markets import Market
    from .venue import SimulatedVenue

LOOPBACK = "127.0.0.1"


@attrs.frozen
class Endpoint:
    """Where a simulated venue is found."""

    #: The whole URL, path included.
    websocket_url: str
    #: Scheme, host and port.
    rest_url: str


@attrs.frozen
class SimulatedExchanges:
    """The venues of one world, all on the same market and clock."""

    market: Market
    exchanges: Mapping[str, SimulatedExchange]
    endpoints: Mapping[str, Endpoint]

    def __getitem__(self, venue: str) -> SimulatedExchange:
        """The exchange of that venue."""
        return self.exchanges[venue]


@attrs.frozen
class MemoryExchanges(SimulatedExchanges):
    """Venues that are reached without any socket: dial for WebSocket streams, transport for httpx."""

    transport: MemoryTransport
    _nursery: trio.Nursery

    async def dial(self, url: str) -> trio.abc.Stream:
        """A byte stream to the venue whose host the URL names; OSError if there is none or it refuses.

        The stream is as a TCP connection would be: the WebSocket handshake is still to come.
        """
        await trio.lowlevel.checkpoint()
        exchange = by_host(self.exchanges).get(urlsplit(url).hostname or "")
        if exchange is None:
            raise OSError(f"no such host: {url}")
        await exchange.resolved()
        exchange.admit()
        ours, theirs = trio.testing.memory_stream_pair()
        self._nursery.start_soon(exchange.serve, ours, name=f"{exchange.venue}/simulated connection")
        return theirs


class MemoryTransport(httpx.AsyncBaseTransport):
    """Answers httpx requests to the simulated hosts."""

    def __init__(self, exchanges: Mapping[str, SimulatedExchange]) -> None:
        self._exchanges = by_host(exchanges)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """The venue's answer; httpx's own errors where there is no host or the connection breaks."""
        exchange = self._exchanges.get(request.url.host)
        if exchange is None:
            raise httpx.ConnectError(f"no such host: {request.url.host}", request=request)
        await exchange.resolved()
        question = Request(
            request.method,
            request.url.path,
            dict(request.url.params.multi_items()),
            {name.lower(): value for name, value in request.headers.items()},
            await request.aread(),
        )
        try:
            answer = await exchange.answer(question)
        except Disconnected as broken:
            raise httpx.RemoteProtocolError(str(broken), request=request) from broken
        return httpx.Response(
            answer.status, headers=answer.headers, content=answer.pieces() if answer.drip else answer.body
        )


def by_host(exchanges: Mapping[str, SimulatedExchange]) -> dict[str, SimulatedExchange]:
    """The exchanges by the host names they have in memory."""
    return {f"{venue}.simulated": exchange for venue, exchange in exchanges.items()}


def endpoint(venue: SimulatedVenue, authority: str) -> Endpoint:
    """Where a venue is found on a host, with or without a port."""
    return Endpoint(f"ws://{authority}{venue.websocket_paths[0]}", f"http://{authority}")


def make_exchanges(
    market: Market, now: Callable[[], int], venues: Iterable[str] | None
) -> dict[str, SimulatedExchange]:
    """An exchange for each of *venues*, or for all that the market has."""
    return {venue: SimulatedExchange(venue, market, now) for venue in (market.venues if venues is None else venues)}


@asynccontextmanager
async def open_exchanges_in_memory(
    market: Market, now: Callable[[], int], venues: Iterable[str] | None = None
) -> AsyncIterator[MemoryExchanges]:
    """Those *venues* of the market, or all, in this process; leaving the block ends their connections."""
    exchanges = make_exchanges(market, now, venues)
    endpoints = {venue: endpoint(market.venues[venue], f"{venue}.simulated") for venue in exchanges}
    async with trio.open_nursery() as nursery:
        yield MemoryExchanges(market, exchanges, endpoints, MemoryTransport(exchanges), nursery)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_exchanges_on_loopback(
    market: Market, now: Callable[[], int], venues: Iterable[str] | None = None
) -> AsyncIterator[SimulatedExchanges]:
    """The same on 127.0.0.1, each venue on a port of its own; leaving the block closes ports and connections."""
    exchanges = make_exchanges(market, now, venues)
    endpoints = {}
    async with trio.open_nursery() as nursery:
        for venue, exchange in exchanges.items():
            listeners = await trio.open_tcp_listeners(0, host=LOOPBACK)
            port = listeners[0].socket.getsockname()[1]
            endpoints[venue] = endpoint(market.venues[venue], f"{LOOPBACK}:{port}")
            nursery.start_soon(listen, exchange, listeners, name=f"{venue}/simulated port")
        yield SimulatedExchanges(market, exchanges, endpoints)
        nursery.cancel_scope.cancel()


async def listen(exchange: SimulatedExchange, listeners: list[trio.SocketListener]) -> None:
    """Serve everybody who connects, for ever."""

    async def serve(stream: trio.SocketStream) -> None:
        await serve_stream(exchange, stream)

    await trio.serve_listeners(serve, listeners)
