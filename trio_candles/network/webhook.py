"""Posts JSON to a URL that somebody gave us: https with its certificate verified, or plain http to this machine.

One deadline for everything; the answer's body is not read; no redirects, no proxies from the environment. The URL is
a secret as often as not (a token is in its path), so errors name its host alone.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import httpx
import trio

from trio_candles import __version__
from trio_candles.candles.documents import to_json
from trio_candles.network.trust import trusted

__all__ = ["Undelivered", "Webhook", "open_webhook"]

POST_SECONDS = 10.0
"""For the whole exchange, name and TLS included."""
TRY_AGAIN = {408, 425, 429}
"""Status codes among 4xx that refuse the document at this moment only."""


class Undelivered(Exception):
    """The document did not arrive, or its arrival was not confirmed."""

    def __init__(self, why: str, *, refused: bool = False) -> None:
        super().__init__(why)
        self.refused = refused
        """Whether the other side refused this very document (4xx): it will hardly take the same document next time."""


@attrs.frozen
class Webhook:
    """Where documents go; made by :func:`open_webhook`."""

    _client: httpx.AsyncClient
    _url: str

    async def post(self, document: attrs.AttrsInstance) -> None:
        """Post *document* as JSON; :class:`Undelivered` unless the answer is 2xx, in time."""
        content = to_json(document).encode()
        with trio.move_on_after(POST_SECONDS):
            try:
                async with self._client.stream("POST", self._url, content=content) as response:
                    code = response.status_code
            except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError) as error:
                raise Undelivered(f"{type(error).__name__}: {error}") from error
            if 200 <= code < 300:
                return
            raise Undelivered(f"it answered {code}", refused=400 <= code < 500 and code not in TRY_AGAIN)
        raise Undelivered(f"no answer in {POST_SECONDS:.0f} s")


@asynccontextmanager
async def open_webhook(
    url: str, transport: httpx.AsyncBaseTransport | None = None, authorities: ssl.SSLContext | None = None
) -> AsyncIterator[Webhook]:
    """The webhook at *url* for the block; it trusts the :func:`~trio_candles.network.trust.trusted` *authorities*."""
    headers = {"Content-Type": "application/json", "User-Agent": f"trio-candles/{__version__}"}
    client = httpx.AsyncClient(
        transport=transport, verify=authorities or trusted(), timeout=None, trust_env=False, headers=headers
    )
    async with client:
        yield Webhook(client, url)
