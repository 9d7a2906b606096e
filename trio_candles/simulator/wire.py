"""A byte stream on which the venue can fall silent without closing it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

    from .faults import Faults

# The first byte of an unfragmented, unmasked closing frame.
CLOSING_FRAME = 0x88


class Wire(trio.abc.Stream):
    """The venue's end of a connection: what was read ahead comes first, and faults eat what is sent."""

    def __init__(
        self,
        stream: trio.abc.Stream,
        faults: Faults,
        age: Callable[[], float],
        read_ahead: bytes = b"",
    ) -> None:
        self._stream = stream
        self._faults = faults
        self._age = age
        self._read_ahead = read_ahead
        #: The venue will never send anything again, nor close.
        self.half_open = False
        #: The other end closed, or this one wanted to.
        self.ended = trio.Event()
        #: The other end closed.
        self.left = trio.Event()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send, unless the venue is mute or leaves closes unanswered."""
        faults = self._faults
        if faults.ignore_close and data and data[0] == CLOSING_FRAME:
            faults.fired["ignore_close"] += 1
            self.half_open = True
        if self.half_open or faults.is_mute(self._age()):
            faults.fired["mute"] += 1
            await trio.lowlevel.checkpoint()
            return
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until sending might not block."""
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive what was read ahead, then from the stream."""
        if self._read_ahead:
            data, self._read_ahead = self._read_ahead, b""
            await trio.lowlevel.checkpoint()
            return data
        try:
            received = bytes(await self._stream.receive_some(max_bytes))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._end()
            raise
        if not received:
            self._end()
        return received

    def _end(self) -> None:
        self.ended.set()
        self.left.set()

    async def aclose(self) -> None:
        """Close, unless the venue is half-open: then only whoever serves the connection closes it."""
        self.ended.set()
        if self.half_open or self._faults.is_mute(self._age()):
            self.half_open = True
            await trio.lowlevel.checkpoint()
            return
        await self._stream.aclose()

    async def linger(self) -> None:
        """Leave the connection open, deaf and mute, until the other end closes it."""
        try:
            while await self._stream.receive_some(65_536):
                pass
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return
        except trio.BusyResourceError:
            # The library's task still reads, in vain, and will see the end.
            await self.left.wait()
