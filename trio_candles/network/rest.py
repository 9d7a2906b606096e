"""Asks a venue's REST: one deadline, one bound, one budget; whatever goes wrong is a named error.

The body is bounded as it comes from the wire and never decompressed (194 KB of gzip once became 200 MB): we ask for
it as it is, and refuse it otherwise. No redirects, no proxies from the environment.

No cache on the way may answer in the venue's place (``Cache-Control: no-cache``): a question that is asked again, to
hear the answer a second time or because the first one was of no use, would be answered from there with the same body.
Coinbase's candles are kept for 300 s otherwise (``max-age=300`` as recorded in 2025; with the header the age was 0).
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from email.utils import parsedate_to_datetime

import attrs
import httpx
import trio

from trio_candles.candles.model import Millis, printable
from trio_candles.network.pacing import Budget, wall_floor
from trio_candles.network.trust import trusted
from trio_candles.network.websocket import Network, error_text
from trio_candles.venues.history import (
    Answer,
    Fill,
    Filled,
    Penalty,
    Rate,
    Request,
    RestUrls,
    Throttled,
    Unavailable,
)

__all__ = ["Counted", "Rest", "converse", "open_rest"]

ANSWER_SECONDS = 15.0
"""For the whole answer, name and TLS included: an answer that drips slowly does not get longer."""
LARGEST_BODY = 8 * 1024 * 1024
ACCELERATED_PACE = 4.0
"""Questions a wall second and bucket under an accelerated clock: a venue's budget times the speed would leave no time
for the live feed, which goes before any backfill."""
LONGEST_PAUSE = 3_600.0
"""Seconds of silence at most, whatever a venue asks for: a header with a digit too many would be days of gaps."""

log = logging.getLogger(__name__)


@attrs.frozen
class Rest:
    """One venue's REST within its published limits; made by :func:`open_rest`, which is handed the limits."""

    _client: httpx.AsyncClient
    _urls: RestUrls
    _budgets: Mapping[str, Budget]
    _penalty: Penalty
    _speed: float

    def pace(self) -> float:
        """Turns a second of the quickest bucket, which at every venue is the one for candles."""
        return max(budget.rate for budget in self._budgets.values())

    async def ask(self, request: Request) -> Answer:
        """The answer to *request*, which is asked once its budget grants a turn; :class:`Unavailable` if no answer
        comes.
        """
        await self._budgets[request.bucket].take(request.weight)
        with trio.move_on_after(wall_floor(ANSWER_SECONDS, self._speed)):
            try:
                return await self._get(request)
            except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError) as error:
                raise Unavailable(f"{request.path}: {error_text(error)}") from error
        raise Unavailable(f"{request.path}: no answer in {ANSWER_SECONDS:.0f} s")

    async def _get(self, request: Request) -> Answer:
        url, asked = self._urls[request.host] + request.path, trio.current_time()
        headers = {} if request.body is None else {"Content-Type": "application/json"}
        async with self._client.stream(
            request.method, url, params=dict(request.params), content=request.body, headers=headers
        ) as response:
            if response.headers.get("content-encoding", "identity") != "identity":
                raise Unavailable(f"{request.path}: the body is compressed, which we did not ask for")
            body = bytearray()
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > LARGEST_BODY:
                    raise Unavailable(f"{request.path}: the body is larger than {LARGEST_BODY} bytes")
            retry_after = _retry_after(response.headers)
            # RFC 9111: only an answer out of a cache has an Age.
            date = None if "age" in response.headers else _date(response.headers.get("date"))
            return Answer(response.status_code, bytes(body), retry_after, trio.current_time() - asked, date)

    def refused(self, error: Throttled | Unavailable) -> None:
        """Ask nothing for the seconds that *error* names, which are :data:`LONGEST_PAUSE` at most; after
        :class:`Throttled`, ask more slowly from now on, as the venue's penalty says.
        """
        asked = error.retry_after or 0.0
        pause = min(asked, LONGEST_PAUSE)
        if pause < asked:
            log.warning(
                "%s wants not to be asked for %.0f s (%s); it is left alone for %.0f s, and asked again then",
                self._urls[None], asked, printable(str(error)), pause,
            )  # fmt: skip
        for budget in self._budgets.values():
            budget.pause(pause)
            if isinstance(error, Throttled):
                budget.punish(self._penalty.rate.per_second, self._penalty.seconds)


@attrs.define
class Counted:
    """A venue's REST that counts what is asked of it."""

    rest: Rest
    turns: int = 0
    """How many turns the questions have taken so far, of their buckets."""

    async def ask(self, request: Request) -> Answer:
        """As :meth:`Rest.ask`."""
        self.turns += request.weight
        return await self.rest.ask(request)

    def refused(self, error: Throttled | Unavailable) -> None:
        """As :meth:`Rest.refused`."""
        self.rest.refused(error)


async def converse(rest: Rest | Counted, conversation: Fill) -> Filled:
    """What *conversation* has found at its end. Each of its requests is asked of *rest*, and it is sent the answer, or
    :class:`Unavailable`. Raises what the conversation raises; *rest* heeds a refusal (:meth:`Rest.refused`).
    """
    try:
        request = next(conversation)
        while True:
            try:
                answer = await rest.ask(request)
            except Unavailable as error:
                request = conversation.throw(error)
            else:
                request = conversation.send(answer)
    except StopIteration as end:
        filled: Filled = end.value
        return filled
    except (Throttled, Unavailable) as error:
        rest.refused(error)
        raise


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds that the header Retry-After names, as a number or as a date (RFC 9110, 10.2.3); ``None`` if it names
    none. A date is held against the answer's own Date, so that our clock does not matter.
    """
    text = headers.get("retry-after", "")
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        wait = parsedate_to_datetime(text) - parsedate_to_datetime(headers.get("date", ""))
    except (ValueError, TypeError, OverflowError):  # no dates; or only one of them with a zone
        return None
    return max(wait / timedelta(seconds=1), 0.0)


def _date(text: str | None) -> Millis | None:
    """A Date header as Unix ms; ``None`` if there is none or it makes no sense."""
    try:
        return None if text is None else Millis(int(parsedate_to_datetime(text).timestamp()) * 1000)
    except (ValueError, OverflowError):
        return None


@asynccontextmanager
async def open_rest(
    network: Network, urls: RestUrls, rates: Mapping[str, Rate], penalty: Penalty
) -> AsyncIterator[Rest]:
    """The REST of one venue, on the hosts *urls*, for the block; all hosts share the budgets of *rates*.

    Each venue's *rates* and *penalty* are decided in ``venues/{venue}/history.py``.
    """
    pace = ACCELERATED_PACE / network.speed if network.speed > 1 else float("inf")
    budgets = {
        name: Budget(min(rate.per_second, pace), rate.burst if pace > rate.per_second else 1, empty=rate.empty_at_start)
        for name, rate in rates.items()
    }
    client = httpx.AsyncClient(
        transport=network.transport, verify=network.authorities or trusted(), timeout=None, trust_env=False,
        headers={"Accept-Encoding": "identity", "Cache-Control": "no-cache"},
    )  # fmt: skip
    async with client:
        yield Rest(client, urls, budgets, penalty, network.speed)
