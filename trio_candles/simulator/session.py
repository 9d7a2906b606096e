"""One WebSocket connection, seen from the venue: an agenda of what to send when, and the task that sends it.

A venue's session never waits: it puts what is due later on the connection's agenda (``plan``), and what is due now
into its outbox (``send``, and ``send_data`` for what faults may spoil). ``run_session`` alone waits and sends.
"""

from __future__ import annotations

import heapq
import json
import re
from typing import TYPE_CHECKING, Any, Protocol

import attrs
import trio

from .faults import GIANT_BYTES

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable

    from trio_websocket import WebSocketConnection

    from .faults import Corruption, Faults
    from .market import MarketTrade, VenueMarket

UNKNOWN = '{"type":"from_the_future","channel":"from_the_future","event":"from_the_future","data":[]}'

# Trades reach a subscriber 20 to 80 ms after they were matched.
LATENCY_LEAST_US = 20_000
LATENCY_SPREAD_US = 60_000


def visible_ms(trade: MarketTrade) -> int:
    """When a trade's message is sent, always the same for the same trade."""
    latency_us = LATENCY_LEAST_US + (trade.trade_id * 2_654_435_761 >> 7) % LATENCY_SPREAD_US
    return -(-(trade.time_us + latency_us) // 1000)


class Session(Protocol):
    """What a venue does on one connection; all of it without waiting."""

    def opened(self) -> None:
        """Send what every new connection is sent."""

    def heard(self, text: str) -> None:
        """Answer a message of the client."""

    def second_passed(self, now_ms: int) -> None:
        """Do what is done once a second."""


@attrs.define(eq=False)
class Connection:
    """A WebSocket connection that the venue accepted: what happened on it, and what is to be sent next."""

    market: VenueMarket
    faults: Faults
    #: Unix milliseconds of the service's clock.
    now: Callable[[], int]
    #: Counts what clients did that the venue's rules forbid.
    violations: Counter[str]
    #: The path of the request, without its query.
    path: str
    #: Unique and deterministic: the first connection of an exchange is 1.
    number: int
    #: Unix milliseconds.
    connected_at: int
    #: Leaving it breaks the connection.
    _scope: trio.CancelScope
    closed_at: int | None = None
    #: Everything that the client sent, in order, pings included.
    heard: list[str] = attrs.Factory(list)
    #: When the client last sent something, and when the venue last queued a frame.
    heard_ms: int = attrs.Factory(lambda self: self.connected_at, takes_self=True)
    sent_ms: int = attrs.Factory(lambda self: self.connected_at, takes_self=True)
    #: Set to (code, reason) to close the connection once everything was sent.
    closing: tuple[int, str] | None = None
    #: Frames to send, in order.
    outbox: list[str | bytes] = attrs.Factory(list)
    wake: trio.Event = attrs.Factory(trio.Event)
    _agenda: list[tuple[int, int, Callable[[int], None]]] = attrs.Factory(list)
    _planned: int = 0
    _data_frames: int = 0

    def close(self, code: int = 1001, reason: str = "") -> None:
        """Close with a closing handshake, as for a deployment."""
        if self.closing is None:
            self.closing = (code, reason)
            self.wake.set()

    def drop(self) -> None:
        """Break the connection without a closing handshake."""
        self._scope.cancel()

    @property
    def age(self) -> float:
        """Seconds since the connection was opened."""
        return (self.now() - self.connected_at) / 1000

    def is_silent(self, symbol: str) -> bool:
        """Whether a fault keeps all data of a symbol from this connection; counted if so."""
        return self.faults.is_silent(symbol, self.age)

    def plan(self, due_ms: int, action: Callable[[int], None]) -> None:
        """Call *action* with the time then, at *due_ms* or as soon as possible after it."""
        self._planned += 1
        heapq.heappush(self._agenda, (due_ms, self._planned, action))

    def send(self, text: str) -> None:
        """Send a frame that is not market data."""
        self.outbox.append(text)
        self.sent_ms = self.now()

    def send_data(self, text: str) -> None:
        """Send a frame of market data, unless a fault spoils it."""
        self.sent_ms = self.now()
        self._data_frames += 1
        faults = self.faults
        if faults.corrupt:
            kind = faults.corrupt.pop(0)
            faults.fired[f"corrupt {kind}"] += 1
            self.outbox.extend(spoil(text, kind))
            return
        self.outbox.append(text)
        if faults.duplicate_every and self._data_frames % faults.duplicate_every == 0:
            faults.fired["duplicate_every"] += 1
            self.outbox.append(text)

    def send_trade(self, symbol: str, trade_id: int, text: str) -> None:
        """Send a frame of one trade: once, or as the faults have it late, twice or not at all."""
        faults = self.faults
        if self.is_silent(symbol) or faults.holds("drop_trade", symbol, trade_id):
            return
        if late := faults.delay("delay_trade", symbol, trade_id):
            self.send_data_later(late, text)
            return
        self.send_data(text)
        if faults.holds("duplicate_trade", symbol, trade_id):
            self.send_data(text)

    def send_data_later(self, seconds: float, text: str) -> None:
        """Send a frame of market data after some time, behind what is sent until then."""
        self.plan(self.now() + round(seconds * 1000), lambda _: self.send_data(text))

    def run_due(self) -> None:
        """Do everything on the agenda whose time has come."""
        now_ms = self.now()
        while self._agenda and self._agenda[0][0] <= now_ms and self.closing is None:
            heapq.heappop(self._agenda)[2](now_ms)

    def seconds_to_next(self) -> float:
        """How long nothing is on the agenda; not positive if something is due."""
        return (self._agenda[0][0] - self.now()) / 1000 if self._agenda else float("inf")


def spoil(text: str, kind: Corruption) -> list[str | bytes]:
    """The frames that come instead of a good one."""
    match kind:
        case "truncated":
            return [text[: len(text) * 2 // 3]]
        case "nan":
            spoiled = re.sub(r'("(?:price|open)":"?)[0-9.]+', r"\1NaN", text)
            return [re.sub(r'(\["[0-9]{13}",")[0-9.]+', r"\1NaN", spoiled)]
        case "wrong_type":
            spoiled = re.sub(r'("(?:price|open)":)"?[0-9.]+"?', r'\1{"value":1}', text)
            return [re.sub(r'(\["[0-9]{13}",)"[0-9.]+"', r"\1null", spoiled)]
        case "binary":
            return [text.encode()]
        case "not_json":
            return ["<html><body>502 Bad Gateway</body></html>"]
        case "giant":
            return ['{"type":"giant","padding":"' + "x" * GIANT_BYTES + '"}']
        case "unknown":
            return [UNKNOWN, text]
        case "impossible":
            spoiled = re.sub(r'("(?:size|high)":"?)([0-9.]+)', r"\1-\2", text)
            return [re.sub(r'(\["[0-9]{13}","[0-9.]+",")([0-9.]+)', r"\1-\2", spoiled)]
        case "null_row":
            return [text.replace('"data":[', '"data":[null,', 1)]


async def run_session(websocket: WebSocketConnection, session: Session, connection: Connection) -> None:
    """Run a session until the venue closes the connection; ConnectionClosed, in a group, if the client does."""
    session.opened()
    connection.plan(connection.now() + 1000, lambda now_ms: pass_second(session, connection, now_ms))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen, websocket, session, connection)
        await send_due(websocket, connection)
        nursery.cancel_scope.cancel()


def pass_second(session: Session, connection: Connection, now_ms: int) -> None:
    """Do what is done every second, and plan the next."""
    longest = connection.faults.longest_connection
    if longest is not None and connection.age >= longest:
        connection.faults.fired["longest_connection"] += 1
        connection.closing = (1001, "")
    session.second_passed(now_ms)
    connection.plan(now_ms + 1000, lambda then_ms: pass_second(session, connection, then_ms))


async def listen(websocket: WebSocketConnection, session: Session, connection: Connection) -> None:
    """Hand every message of the client to the session, for ever."""
    while True:
        message = await websocket.get_message()
        connection.heard_ms = connection.now()
        text = message if isinstance(message, str) else message.decode("utf-8", "replace")
        connection.heard.append(text)
        session.heard(text)
        connection.wake.set()


async def send_due(websocket: WebSocketConnection, connection: Connection) -> None:
    """Send what the session sends at the time when it is due, until the connection is to be closed."""
    while True:
        connection.run_due()
        frames, connection.outbox = connection.outbox, []
        for frame in frames:
            await websocket.send_message(frame)
        if connection.outbox:
            continue
        if connection.closing is not None:
            return
        connection.wake = trio.Event()
        seconds = connection.seconds_to_next()
        if seconds > 0:
            with trio.move_on_after(seconds):
                await connection.wake.wait()
        else:
            await trio.lowlevel.checkpoint()


def parse_object(text: str) -> dict[str, Any] | None:
    """A client's message as an object; None if it is anything else."""
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return message if isinstance(message, dict) else None


def strings(value: object) -> list[str]:
    """The strings of a list; nothing else."""
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []
