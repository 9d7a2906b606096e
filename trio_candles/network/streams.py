"""Byte streams below the WebSocket library: paced reads, TLS that gives every record that has come, joined messages."""

from __future__ import annotations

import ssl
from collections.abc import Callable

import attrs
import trio

from trio_candles.network.joining import Joiner

__all__ = ["READ_BYTES", "JoiningStream", "PacedStream", "TlsStream", "paced_ticks"]

READ_BYTES = 64 * 1024
"""Of one read, at most."""


def paced_ticks(now: Callable[[], int]) -> Callable[[], float]:
    """A function that gives the seconds between two reads: 0.1, and 0.01 around the turn of a minute, when candles
    close. *now* gives Unix ms.
    """

    def tick() -> float:
        into_minute = now() % 60_000
        return 0.01 if into_minute < 1_500 or into_minute >= 59_900 else 0.1

    return tick


@attrs.define
class PacedStream(trio.abc.Stream):
    """A stream that lets bytes gather: between two reads it waits, as long as the last read emptied the kernel.

    At real rates a feed costs wake-ups, not parsing: reading ten times a second instead of at every frame
    divides the cost by four and delays a message by a tenth of a second at most. The stream lies below TLS,
    because a TLS stream hands out one record a call.
    """

    _stream: trio.abc.Stream
    _tick: Callable[[], float]
    """Seconds to the next read."""
    _not_before: float = 0.0

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """At most *max_bytes* of what has gathered; waits for at least one."""
        if self._not_before > trio.current_time():
            await trio.sleep_until(self._not_before)
        data = await self._stream.receive_some(max_bytes)
        full = max_bytes is not None and len(data) >= max_bytes
        # Multiples of the tick, not a tick from now: connections that wake together cost one wake-up.
        tick = self._tick()
        self._not_before = (trio.current_time() // tick + 1) * tick if tick and not full else 0.0
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send at once."""
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """As the stream below."""
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Close the stream below."""
        await self._stream.aclose()


@attrs.define
class TlsStream(trio.abc.Stream):
    """TLS over a stream, as a client: one read gives every record that has come.

    :class:`trio.SSLStream` gives one record a call, and venues put every message into a record of its own.
    """

    _stream: trio.abc.Stream
    _tls: ssl.SSLObject
    _incoming: ssl.MemoryBIO
    _outgoing: ssl.MemoryBIO
    _sending: trio.Lock = attrs.field(factory=trio.Lock)

    @classmethod
    def over(cls, stream: trio.abc.Stream, context: ssl.SSLContext, host: str) -> TlsStream:
        """TLS with *host* over *stream*; the handshake is still to come."""
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        return cls(stream, context.wrap_bio(incoming, outgoing, server_hostname=host), incoming, outgoing)

    async def shake_hands(self) -> None:
        """Do the handshake; raises BrokenResourceError if the peer's certificate is not the host's."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._fill(READ_BYTES)
            except ssl.SSLError as error:
                await self._flush()  # the alert
                raise trio.BrokenResourceError from error
            else:
                return await self._flush()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Everything that one read of the stream below brought."""
        size = max_bytes or READ_BYTES
        while True:
            got = []
            try:
                while True:
                    data = self._tls.read(size)
                    if not data:
                        break
                    got.append(data)
            except ssl.SSLWantReadError:
                if not got:
                    if self._outgoing.pending:
                        await self._flush()
                    await self._fill(size)
                    continue
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                pass
            except ssl.SSLError as error:
                raise trio.BrokenResourceError from error
            return b"".join(got)

    async def _fill(self, size: int) -> None:
        data = await self._stream.receive_some(size)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    async def _flush(self) -> None:
        async with self._sending:
            if self._outgoing.pending:
                await self._stream.send_all(self._outgoing.read())

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send at once."""
        if data:
            self._tls.write(data)
        await self._flush()

    async def wait_send_all_might_not_block(self) -> None:
        """As the stream below."""
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Close the stream below; a goodbye of TLS's own would wait for a deaf peer."""
        await self._stream.aclose()


@attrs.define
class JoiningStream(trio.abc.Stream):
    """A stream of WebSocket frames whose text messages come joined (:mod:`trio_candles.network.joining`)."""

    _stream: trio.abc.Stream
    _joiner: Joiner

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """The complete frames of one read; a little more than *max_bytes* if the beginning of a frame had waited."""
        while True:
            data = await self._stream.receive_some(max_bytes)
            ready = self._joiner.feed(bytes(data)) if data else self._joiner.end()
            if ready or not data:
                return ready

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send at once."""
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """As the stream below."""
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Close the stream below."""
        await self._stream.aclose()
