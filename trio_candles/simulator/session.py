"""One WebSocket connection, seen from the venue: an agenda of what to say when, and the task that says it."""

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
    from .market import Market, MarketTrade

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
        """Say what is said to whoever connects."""

    def heard(self, text: str) -> None:
        """Answer a message of the client."""

    def second_passed(self, now_ms: int) -> None:
        """Do what is done once a second."""


@attrs.define(eq=False)
class Line:
    """One connection as a session sees it: the market, the clock, the agenda and what is to be sent."""

    market: Market
    faults: Faults
    now: Callable[[], int]
    #: Counts what the client did that the venue's rules forbid.
    violations: Counter[str]
    #: The path of the request, without its query.
    path: str
    #: Unique and deterministic: the first connection of an exchange is 1.
    number: int
    opened_ms: int
    #: Set to (code, reason) to close the connection once everything was said.
    closing: tuple[int, str] | None = None
    #: Frames to send, in order.
    outbox: list[str | bytes] = attrs.Factory(list)
    #: When the last frame was queued.
    spoke_ms: int = 0
    #: When the client last said something.
    heard_ms: int = 0
    #: Everything the client said.
    heard: list[str] = attrs.Factory(list)
    wake: trio.Event = attrs.Factory(trio.Event)
    _agenda: list[tuple[int, int, Callable[[int], None]]] = attrs.Factory(list)
    _planned: int = 0
    _pushed: int = 0

    @property
    def age(self) -> float:
        """Seconds since the connection was opened."""
        return (self.now() - self.opened_ms) / 1000

    def plan(self, due_ms: int, action: Callable[[int], None]) -> None:
        """Call *action* with the time then, at *due_ms* or as soon as possible after it."""
        self._planned += 1
        heapq.heappush(self._agenda, (due_ms, self._planned, action))

    def say(self, text: str) -> None:
        """Send a frame that is not market data."""
        self.outbox.append(text)
        self.spoke_ms = self.now()

    def push(self, text: str) -> None:
        """Send a frame of market data, unless a fault spoils it."""
        self.spoke_ms = self.now()
        self._pushed += 1
        faults = self.faults
        if faults.corrupt:
            kind = faults.corrupt.pop(0)
            faults.fired[f"corrupt {kind}"] += 1
            self.outbox.extend(spoil(text, kind))
            return
        self.outbox.append(text)
        if faults.duplicate_every and self._pushed % faults.duplicate_every == 0:
            faults.fired["duplicate_every"] += 1
            self.outbox.append(text)

    def push_later(self, seconds: float, text: str) -> None:
        """Send a frame of market data after some time, behind what comes before."""
        self.plan(self.now() + round(seconds * 1000), lambda _: self.push(text))

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


async def run_session(connection: WebSocketConnection, session: Session, line: Line) -> None:
    """Speak for the venue until the venue closes; ConnectionClosed, in a group, if the client does."""
    session.opened()
    line.plan(line.now() + 1000, lambda now_ms: pass_second(session, line, now_ms))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen, connection, session, line)
        await speak(connection, line)
        nursery.cancel_scope.cancel()


def pass_second(session: Session, line: Line, now_ms: int) -> None:
    """Do what is done every second, and plan the next."""
    longest = line.faults.longest_connection
    if longest is not None and line.age >= longest:
        line.faults.fired["longest_connection"] += 1
        line.closing = (1001, "")
    session.second_passed(now_ms)
    line.plan(now_ms + 1000, lambda then_ms: pass_second(session, line, then_ms))


async def listen(connection: WebSocketConnection, session: Session, line: Line) -> None:
    """Hand every message of the client to the session, for ever."""
    while True:
        message = await connection.get_message()
        line.heard_ms = line.now()
        text = message if isinstance(message, str) else message.decode("utf-8", "replace")
        line.heard.append(text)
        session.heard(text)
        line.wake.set()


async def speak(connection: WebSocketConnection, line: Line) -> None:
    """Send what the session says at the time it is due, until it wants the connection closed."""
    while True:
        line.run_due()
        frames, line.outbox = line.outbox, []
        for frame in frames:
            await connection.send_message(frame)
        if line.outbox:
            continue
        if line.closing is not None:
            return
        line.wake = trio.Event()
        seconds = line.seconds_to_next()
        if seconds > 0:
            with trio.move_on_after(seconds):
                await line.wake.wait()
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
