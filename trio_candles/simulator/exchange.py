"""One simulated venue: its WebSocket connections, its REST answers, its faults, and what it noticed."""

from __future__ import annotations

import json
from collections import Counter, deque
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

import attrs
import trio
from trio_websocket import ConnectionClosed, HandshakeError, wrap_server_stream
from wsproto.utilities import LocalProtocolError

from .cache import Cache, with_headers
from .faults import Faults, RestFault, spoil_row
from .limits import TokenBucket
from .session import Connection, run_session
from .text import Request, Response, to_json
from .wire import Wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio_websocket import WebSocketRequest

    from .markets import Market

# No venue takes a subscription of more than 64 kB; nobody sends a venue more than that.
LARGEST_MESSAGE = 1 << 20
# The venue waits so long for the answer to a close.
CLOSE_SECONDS = 5
GARBAGE = b"SSH-2.0-OpenSSH_9.6\r\n"
HTML = b"<html><head><title>Error</title></head><body><center><h1>Error</h1></center></body></html>"

# What happens to an answer on its way; any other fault is the venue's own, and its cache keeps what came of it.
NEVER_KEPT = ("status", "html", "throttle", "busy", "drip", "stale", "truncated", "disconnect")

# More than a day at one request a second.
REQUESTS_KEPT = 100_000

# What a client, or the way to it, can do to a connection.
CLIENT_TROUBLE = (
    trio.BrokenResourceError,
    trio.ClosedResourceError,
    ConnectionClosed,
    HandshakeError,
    # What is sent while trio-websocket closes the connection because the client broke the protocol.
    LocalProtocolError,
)


class Disconnected(Exception):
    """The connection breaks instead of an answer."""


class SimulatedExchange:
    """One venue: turn the knobs of ``faults``; read what it noticed in the other attributes."""

    def __init__(self, venue: str, market: Market, now: Callable[[], int]) -> None:
        if venue not in market.venues:
            raise ValueError(f"{venue!r} is none of {', '.join(market.venues)}")
        self._kind = market.venues[venue]
        self.venue = venue
        self.market = market
        self.now = now
        self.faults = Faults()
        #: What clients did that the venue's rules forbid: "rest", "connections", "messages".
        self.violations: Counter[str] = Counter()
        #: Every connection whose handshake was completed, the closed ones included.
        self.connections: list[Connection] = []
        #: When somebody dialled, whatever came of it; Unix milliseconds.
        self.attempts: list[int] = []
        #: The newest REST requests with their times, the refused ones included.
        self.requests: deque[tuple[int, Request]] = deque(maxlen=REQUESTS_KEPT)
        self._rest = self._kind.rest(market[venue], self.faults)
        self._cache = Cache(self.faults)
        self._dials = TokenBucket(self._kind.connects_per_second, self._kind.connects_burst)

    @property
    def open_connections(self) -> list[Connection]:
        """The connections that are open now."""
        return [connection for connection in self.connections if connection.closed_at is None]

    def drop_connections(self) -> None:
        """Break every open connection without a closing handshake."""
        for connection in self.open_connections:
            connection.drop()

    def close_connections(self, code: int = 1001, reason: str = "") -> None:
        """Close every open connection with a closing handshake."""
        for connection in self.open_connections:
            connection.close(code, reason)

    async def resolved(self) -> None:
        """Wait until the venue's name has an address."""
        if self.faults.is_set("unresolved"):
            while self.faults.unresolved:  # noqa: ASYNC110  (a knob tells nobody)
                await trio.sleep(1)

    def admit(self) -> None:
        """Note that somebody dials; ConnectionRefusedError if the venue refuses connections."""
        self.attempts.append(self.now())
        if self.faults.refuse_connections:
            self.faults.fired["refuse_connections"] += 1
            raise ConnectionRefusedError(f"{self.venue} refuses connections")

    async def answer(self, request: Request) -> Response:
        """Answer a REST request, with the time of the venue's clock; Disconnected if a fault says so."""
        response = await self._answer(request)
        return with_headers(response, {"date": formatdate(self.now() / 1000, usegmt=True)})

    async def _answer(self, request: Request) -> Response:
        now_ms = self.now()
        self.requests.append((now_ms, request))
        if not self.faults.lift_limits and not self._rest.within_limits(request, now_ms):
            self.violations["rest"] += 1
            await trio.lowlevel.checkpoint()
            return self._rest.throttled()
        fault = self.faults.rest_fault(request.target)
        if fault is not None and fault.kind == "slow":
            await trio.sleep(fault.seconds)
        else:
            await trio.lowlevel.checkpoint()
        if fault is not None and fault.kind in NEVER_KEPT:
            return self._spoilt(request, fault)
        seconds = self._kind.cached_seconds(request)
        if not seconds:
            return self._made(request, fault)
        return self._cache.answer(request, self.now(), seconds, lambda: self._made(request, fault))

    def _made(self, request: Request, fault: RestFault | None) -> Response:
        return self._rest.answer(request, self.now()) if fault is None else self._spoilt(request, fault)

    def _spoilt(self, request: Request, fault: RestFault) -> Response:
        rest, now_ms = self._rest, self.now()
        match fault.kind:
            case "status":
                waits = {} if fault.retry_after is None else {"retry-after": str(fault.retry_after)}
                if fault.status == 429:
                    return attrs.evolve(with_headers(rest.throttled(), waits), status=429)
                return Response(fault.status, {"content-type": "text/html"} | waits, HTML)
            case "html":
                return Response(200, {"content-type": "text/html"}, HTML)
            case "throttle":
                return rest.overrun()
            case "busy":
                return rest.busy()
            case "slow":
                return rest.answer(request, now_ms)
            case "drip":
                return attrs.evolve(rest.answer(request, now_ms), drip=fault.seconds)
            case "stale":
                return rest.answer(request, now_ms - round(fault.seconds * 1000))
            case "wrong_symbol":
                return rest.answer(rest.misdirect(request), now_ms)
            case "truncated":
                whole = rest.answer(request, now_ms)
                return attrs.evolve(whole, body=whole.body[: len(whole.body) * 2 // 3])
            case "empty":
                return cut_rows(rest.answer(request, now_ms), lambda rows: [])
            case "short":
                return cut_rows(rest.answer(request, now_ms), lambda rows: rows[: (len(rows) + 1) // 2])
            case "repeated":
                return cut_rows(rest.answer(request, now_ms), lambda rows: rows + rows[: (len(rows) + 1) // 2])
            case "odd_row":
                return cut_rows(rest.answer(request, now_ms), lambda rows: spoil_one(rows, now_ms // 1000))
            case "disconnect":
                raise Disconnected(f"{self.venue} hangs up on {request.target}")

    async def serve(self, stream: trio.abc.Stream, read_ahead: bytes = b"") -> None:
        """Serve one WebSocket connection, from the HTTP request to the end of the stream."""
        opened_ms = self.now()
        wire = Wire(stream, self.faults, lambda: (self.now() - opened_ms) / 1000, read_ahead)
        scope = trio.CancelScope()
        try:
            with scope:
                await self._serve_wire(wire, scope)
                if wire.half_open:  # and the library, which read until now, has gone
                    await wire.linger()
        finally:
            for connection in self.open_connections:
                if connection._scope is scope:
                    connection.closed_at = self.now()
            await trio.aclose_forcefully(stream)

    async def _serve_wire(self, wire: Wire, scope: trio.CancelScope) -> None:
        handshake = self.faults.handshake
        if handshake != "normal":
            self.faults.fired[f"handshake {handshake}"] += 1
        try:
            if handshake in ("close", "garbage", "silent"):
                await wire.receive_some()
                if handshake == "garbage":
                    await wire.send_all(GARBAGE)
                if handshake != "close":
                    await wire.linger()
                return
            async with trio.open_nursery() as nursery:
                nursery.start_soon(give_up_when_ended, wire, nursery.cancel_scope)
                request = await wrap_server_stream(nursery, wire, max_message_size=LARGEST_MESSAGE)
                if (status := self._objection(request, handshake)) is not None:
                    await request.reject(status, extra_headers=[], body=HTML)
                else:
                    await self._converse(request, scope)
                nursery.cancel_scope.cancel()
        except* CLIENT_TROUBLE:
            pass  # A client that misbehaves or leaves costs its own connection and nothing else.

    def _objection(self, request: WebSocketRequest, handshake: str | int) -> int | None:
        """The HTTP status with which a handshake is refused, if it is."""
        if not self.faults.lift_limits and not self._dials.take(self.now()):
            self.violations["connections"] += 1
            return 429
        if isinstance(handshake, int):
            return handshake
        return None if path_of(request) in self._kind.websocket_paths else 404

    async def _converse(self, request: WebSocketRequest, scope: trio.CancelScope) -> None:
        number, path = len(self.connections) + 1, path_of(request)
        market = self.market[self.venue]
        connection = Connection(market, self.faults, self.now, self.violations, path, number, self.now(), scope)
        self.connections.append(connection)
        websocket = await request.accept()
        await run_session(websocket, self._kind.session(connection), connection)
        code, reason = connection.closing or (1000, "")
        with trio.move_on_after(CLOSE_SECONDS):
            await websocket.aclose(code, reason)


def path_of(request: WebSocketRequest) -> str:
    """The path of a handshake, without its query."""
    return request.path.partition("?")[0]


async def give_up_when_ended(wire: Wire, scope: trio.CancelScope) -> None:
    """Cancel *scope* a moment after the wire ended: a client may leave before the end of its handshake."""
    await wire.ended.wait()
    if not wire.half_open:
        # What was received before the end is still handled.
        await trio.sleep(CLOSE_SECONDS)
        scope.cancel()


def cut_rows(response: Response, keep: Callable[[list[Any]], list[Any]]) -> Response:
    """The answer with those rows that *keep* makes of its own."""
    document: Any = json.loads(response.body)
    holder: Any = document
    if isinstance(document, dict):
        holder = document.get("result", document)
    if isinstance(holder, list):
        document = keep(holder)
    else:
        for key, value in holder.items():
            if isinstance(value, list) and key != "error":
                holder[key] = keep(value)
    return attrs.evolve(response, body=to_json(document).encode())


def spoil_one(rows: list[Any], number: int) -> list[Any]:
    """The rows, one of them with something that is no number in it; *number* decides which and what."""
    if not rows:
        return rows
    at = number % len(rows)
    row = rows[at]
    odd = json.loads(spoil_row(to_json(row), number)) if isinstance(row, list) else dict.fromkeys(row)
    return [*rows[:at], odd, *rows[at + 1 :]]
