"""Opens WebSocket connections; library errors become :class:`~trio_candles.venues.protocol.Lost`.

The only module that imports trio_websocket. What that library does on a hostile network was measured before
this was written, and each trap has its answer here:

- a peer that closes during the handshake makes it wait for ever: one deadline around the whole opening;
- garbage instead of the HTTP reply raises from the library's own task: that task runs in a nursery of its own,
  apart from ours, and whatever it raises ends the connection and nothing else;
- a silent peer is never reported: the feed's watchdog looks for silence;
- closing towards a deaf peer waits: two seconds, then the stream is closed without asking;
- pings are answered by the task that reads, which stops when nobody takes messages: the queue is long, and
  whoever takes messages never waits for the disk.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Protocol
from urllib.parse import urlsplit

import attrs
import httpx
import trio
import trio_websocket

from trio_candles.network.joining import Joiner, parted
from trio_candles.network.pacing import wall_floor
from trio_candles.network.streams import READ_BYTES, JoiningStream, PacedStream, TlsStream
from trio_candles.network.trust import trusted
from trio_candles.venues.protocol import Lost

__all__ = [
    "Dial",
    "Network",
    "Socket",
    "dial_tcp",
    "error_text",
]

Dial = Callable[[str], Awaitable[trio.abc.Stream]]
"""Opens a byte stream to a WebSocket URL's host, TLS included; raises OSError or trio.BrokenResourceError."""

CONNECT_SECONDS = 10.0
"""For name, TCP, TLS and WebSocket handshake together."""
CLOSE_SECONDS = 2.0
LARGEST_MESSAGE = 256 * 1024
"""Bytes; the largest real one is a snapshot of some 20 KB."""
MESSAGES_QUEUED = 1024
"""So that the library's task goes on answering pings while a burst is being read."""

log = logging.getLogger(__name__)


class Socket(Protocol):
    """An open WebSocket connection."""

    async def receive(self) -> Sequence[str | bytes]:
        """The messages that have come, at least one, waiting for it; raises :class:`Lost` once no more can come."""
        ...

    async def send(self, text: str) -> None:
        """Send *text*; raises :class:`Lost` if the connection has ended."""
        ...


@attrs.frozen
class Network:
    """The way to the venues: real over TCP and TLS, in tests over memory streams; the frames are real in both."""

    dial: Dial
    speed: float = 1.0
    close_seconds: float = CLOSE_SECONDS
    """Wall seconds for the closing handshake with a peer that may be deaf."""
    transport: httpx.AsyncBaseTransport | None = None
    """How REST is asked; ``None``: over TCP and TLS, as httpx does."""
    authorities: ssl.SSLContext | None = None
    """Whom REST trusts; ``None``: the :func:`~trio_candles.network.trust.trusted` ones."""

    @asynccontextmanager
    async def connect(self, url: str) -> AsyncIterator[Socket]:
        """An open connection to *url* for the block; raises :class:`Lost` if it cannot be opened within ten seconds."""
        async with trio.open_nursery() as nursery:
            with trio.move_on_after(wall_floor(CONNECT_SECONDS, self.speed)) as deadline:
                isolated = _IsolatedConnection(self.close_seconds * max(1.0, self.speed))
                try:
                    socket: Socket = await nursery.start(isolated.run, self.dial, url)
                except (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
                    raise Lost(f"cannot connect to {url}: {error_text(error)}") from error
            if deadline.cancelled_caught:
                raise Lost(f"cannot connect to {url}: no answer in {CONNECT_SECONDS:.0f} s")
            try:
                yield socket
            finally:
                await isolated.close()


@attrs.define
class _IsolatedConnection:
    """A connection whose library task, and whatever that raises, is kept apart from our tasks."""

    _close_seconds: float
    _scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    _connection: trio_websocket.WebSocketConnection | None = None
    _stream: trio.abc.Stream | None = None
    _failure: BaseException | None = None

    async def run(self, dial: Dial, url: str, task_status: trio.TaskStatus[Socket]) -> None:
        """Open the connection and run the library's reading task until it ends."""
        stream = self._stream = JoiningStream(await dial(url), Joiner(LARGEST_MESSAGE))
        parts = urlsplit(url)
        resource = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        try:
            with self._scope:
                async with trio.open_nursery() as library:
                    self._connection = await trio_websocket.wrap_client_stream(
                        library,
                        stream,  # type: ignore[arg-type]  # annotated as a socket, documented as any stream
                        parts.netloc,
                        resource,
                        message_queue_size=MESSAGES_QUEUED,
                        max_message_size=LARGEST_MESSAGE,
                        receive_buffer_size=READ_BYTES,
                    )
                    # From here on cancellation reaches us first: the library must still be reading when we close
                    # the connection, or it never sees the peer's close.
                    self._scope.shield = True
                    task_status.started(self)
        # Only the library's own code runs in that block, and the peer decides what it is fed: anything that it
        # raises (h11 and wsproto have error trees of their own) ends this connection and is reported by it.
        except* Exception as group:
            self._failure = _leaf(group)
            log.debug("%s ended: %r", url, self._failure)
        finally:
            if self._connection is None:
                await trio.aclose_forcefully(stream)
        if self._connection is None:
            raise Lost(f"cannot connect to {url}: {error_text(self._failure)}") from self._failure

    async def receive(self) -> Sequence[str | bytes]:
        """See :class:`Socket`."""
        assert self._connection is not None
        try:
            message = await self._connection.get_message()
        except trio_websocket.ConnectionClosed as error:
            raise Lost(f"connection closed: {self._failure or error.reason}") from error
        return parted(message) if isinstance(message, str) else (message,)

    async def send(self, text: str) -> None:
        """See :class:`Socket`."""
        assert self._connection is not None
        try:
            await self._connection.send_message(text)
        except trio_websocket.ConnectionClosed as error:
            raise Lost(f"connection closed: {error.reason}") from error

    async def close(self) -> None:
        """Close the connection in good order if the peer answers in time, then the stream without asking."""
        if self._connection is not None:
            with trio.move_on_after(self._close_seconds, shield=True):
                await self._connection.aclose()
        if self._stream is not None:
            await trio.aclose_forcefully(self._stream)
        self._scope.cancel()


def _leaf(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def error_text(error: BaseException | None) -> str:
    """*error* and what caused it as text: trio and httpx hide the system's own text a few causes deep."""
    text = f"{type(error).__name__}: {error}" if error is not None and str(error) else type(error).__name__
    behind = error.__cause__ if error is not None else None
    if error is not None and error.__suppress_context__:
        # httpcore raises its errors "from None": that takes the cause away, and leaves it as the context.
        behind = behind or error.__context__
    if behind is None:
        return text
    rest = error_text(_leaf(behind))
    # Libraries wrap an error in one of their own with the same text.
    return rest if rest.startswith(text) else f"{text} ({rest})"


# --- the real network -------------------------------------------------------------------------------------


def dial_tcp(tick: Callable[[], float], context: ssl.SSLContext | None = None) -> Dial:
    """Dial over TCP and, for ``wss``, TLS with the certificate and host name verified.

    *context* is the one of :func:`~trio_candles.network.trust.trusted` unless a test brings its own authority.
    """
    context = context or trusted()

    async def dial(url: str) -> trio.abc.Stream:
        parts = urlsplit(url)
        host = parts.hostname or ""
        secure = parts.scheme == "wss"
        tcp = await trio.open_tcp_stream(host, parts.port or (443 if secure else 80))
        paced = PacedStream(tcp, tick)
        if not secure:
            return paced
        tls = TlsStream.over(paced, context, host)
        try:
            await tls.shake_hands()
        except BaseException:
            await trio.aclose_forcefully(tls)
            raise
        return tls

    return dial
