"""Serving one venue over byte streams: WebSocket and REST on the same port, distinguished by the request."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

import h11
import trio

from .exchange import Disconnected
from .text import Request, Response, answer_json

if TYPE_CHECKING:
    from .exchange import SimulatedExchange

LARGEST_HEAD = 64 * 1024
LARGEST_BODY = 64 * 1024
END_OF_HEAD = b"\r\n\r\n"


async def serve_stream(exchange: SimulatedExchange, stream: trio.abc.Stream) -> None:
    """Serve one connection until the connection ends; whatever its client does, only that connection suffers."""
    try:
        head = await read_head(stream)
        if b"\r\nupgrade: websocket" in head.lower():
            exchange.admit()
            await exchange.serve(stream, head)
        elif head:
            await serve_http(exchange, stream, head)
    except (trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError):
        return
    except (ConnectionRefusedError, Disconnected):
        return
    finally:
        await trio.aclose_forcefully(stream)


async def read_head(stream: trio.abc.Stream) -> bytes:
    """The bytes up to the end of the first request's head or more, or up to the stream's end, or 64 KiB of them."""
    head = b""
    while END_OF_HEAD not in head and len(head) < LARGEST_HEAD:
        data = await stream.receive_some(4096)
        if not data:
            break
        head += data
    return head


async def serve_http(exchange: SimulatedExchange, stream: trio.abc.Stream, read_ahead: bytes) -> None:
    """Answer requests, one after the other, until the client closes."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=LARGEST_HEAD)
    connection.receive_data(read_ahead)
    while (request := await next_request(connection, stream)) is not None:
        response = await exchange.answer(request)
        answer = render(connection, request, response)
        if response.drip and request.method != "HEAD":
            await stream.send_all(answer[: -len(response.body)])
            async for piece in response.pieces():
                await stream.send_all(piece)
        else:
            await stream.send_all(answer)
        if connection.our_state is h11.MUST_CLOSE:
            return
        connection.start_next_cycle()


async def next_request(connection: h11.Connection, stream: trio.abc.Stream) -> Request | None:
    """The next whole request; None once the client has closed."""
    head: h11.Request | None = None
    body = b""
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(bytes(await stream.receive_some(65_536)))
        elif isinstance(event, h11.Request):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > LARGEST_BODY:
                too_large = answer_json({"message": "Payload too large"}, 413)
                await stream.send_all(render(connection, None, too_large))
                return None
        elif isinstance(event, h11.EndOfMessage) and head is not None:
            return read_request(head, body)
        else:
            return None


def read_request(head: h11.Request, body: bytes) -> Request:
    """The request that was received."""
    path, _, query = head.target.decode("ascii", "replace").partition("?")
    return Request(
        head.method.decode("ascii"),
        path,
        dict(parse_qsl(query, keep_blank_values=True)),
        {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in head.headers},
        body,
    )


def render(connection: h11.Connection, request: Request | None, response: Response) -> bytes:
    """The bytes of an answer."""
    headers = [*response.headers.items(), ("content-length", str(len(response.body)))]
    if request is None:
        headers.append(("connection", "close"))
    parts = [
        connection.send(h11.Response(status_code=response.status, headers=headers, reason=b"")),
        connection.send(h11.Data(data=b"" if request and request.method == "HEAD" else response.body)),
        connection.send(h11.EndOfMessage()),
    ]
    return b"".join(part for part in parts if part)
