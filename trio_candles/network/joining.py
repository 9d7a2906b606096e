"""Joins WebSocket messages that came together into one message, and parts them again.

The library takes 20 µs for every message: two tasks are woken and a parser's state machine runs, however short it
is. A feed's messages are short, many, and read together (:class:`~trio_candles.network.streams.PacedStream`); so the
whole text messages of one read are handed to the library as one, and parted behind it: 2 µs. What is not a complete,
unfragmented text message passes unchanged and in order, and is the library's to judge: the handshake, pings, closes,
fragments, whatever breaks the protocol.

No I/O here: bytes go in, bytes come out.
"""

from __future__ import annotations

import attrs

__all__ = ["Joiner", "parted"]

SEPARATOR = "\x1e"
"""Stands before each message within a joined message. RFC 7464 separates JSON texts by this character, because no JSON
text can contain it; a venue's message that contains it is no JSON, and neither are the two that parting makes of it."""
_SEPARATOR = SEPARATOR.encode()

_WHOLE_TEXT = 0x81
"""A frame's first byte: final fragment, no extension, text (RFC 6455, 5.2)."""
LARGEST_HEAD = 16 * 1024


@attrs.define
class Joiner:
    """Joins the messages of one connection, between the stream and the library."""

    largest: int
    """Bytes of the largest message that is waited for, or made. From a frame that announces a larger one on, everything
    passes as it comes."""
    _head: bytes | None = b""
    """The HTTP answer so far; ``None`` once it is over."""
    _passing: bool = False
    """Whether all further bytes pass unchanged: they are no WebSocket, or one that the library will refuse."""
    _rest: bytes = b""
    """The beginning of a frame that has not come completely."""

    def feed(self, data: bytes) -> bytes:
        """What the library should be given for *data*; nothing while a frame is incomplete."""
        if self._passing:
            return data
        if self._head is not None:
            return self._open(data)
        return self._join(self._rest + data)

    def end(self) -> bytes:
        """The incomplete frame that is left when the stream ends."""
        rest, self._rest = self._rest, b""
        return rest

    def _open(self, data: bytes) -> bytes:
        """The HTTP answer passes as it comes; after a 101, frames begin behind its head."""
        assert self._head is not None
        before, self._head = len(self._head), self._head + data
        end = self._head.find(b"\r\n\r\n") + 4
        if end < 4:
            self._passing = len(self._head) > LARGEST_HEAD
            return data
        switched = self._head.startswith(b"HTTP/1.1 101 ")
        self._head, self._passing = None, not switched
        return data[: end - before] + self.feed(data[end - before :])

    def _join(self, data: bytes) -> bytes:
        ready: list[bytes] = []
        texts: list[bytes] = []
        joined, begin, size = 0, 0, len(data)
        while size - begin >= 2:
            length, body = data[begin + 1], begin + 2
            if length >= 126:
                body += 2 if length == 126 else 8
                if length > 127:  # masked: only a client may do that
                    self._passing = True
                    break
                if size < body:
                    break
                length = int.from_bytes(data[begin + 2 : body], "big")
                if length > self.largest:
                    self._passing = True
                    break
            end = body + length
            if size < end:
                break
            if data[begin] == _WHOLE_TEXT:
                joined += length + 1
                if joined > self.largest:
                    ready.append(_joined(texts))
                    texts, joined = [], length + 1
                texts.append(data[body:end])
            else:
                ready += (_joined(texts), data[begin:end])
                texts, joined = [], 0
            begin = end
        ready.append(_joined(texts))
        if self._passing:
            ready.append(data[begin:])
        else:
            self._rest = data[begin:]
        return b"".join(ready)


def _joined(texts: list[bytes]) -> bytes:
    """One frame of *texts*, each behind a separator."""
    if not texts:
        return b""
    body = texts[0] if len(texts) == 1 else _SEPARATOR + _SEPARATOR.join(texts)
    length = len(body)
    if length < 126:
        return bytes((_WHOLE_TEXT, length)) + body
    if length < 1 << 16:
        return b"\x81\x7e" + length.to_bytes(2, "big") + body
    return b"\x81\x7f" + length.to_bytes(8, "big") + body


def parted(text: str) -> list[str]:
    """The messages that were joined into *text*; *text* alone if none were."""
    return text[1:].split(SEPARATOR) if text.startswith(SEPARATOR) else [text]
