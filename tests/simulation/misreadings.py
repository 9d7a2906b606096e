"""Faults planted into the product: what venues and machines really do, understood as nobody should.

Each is a mistake that was made once, or nearly: a row that denies trades is believed, a row that cannot be read costs
its page, a cache is a second witness, other tools' tables are a broken journal, one pool of threads serves names and
disk.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import httpx
import trio

from trio_candles.candles.model import MINUTE, Empty, Series
from trio_candles.collector.vouching import Vouching
from trio_candles.network.websocket import Network
from trio_candles.venues.history import Answer, Fill, Filled, Request, Unavailable

if TYPE_CHECKING:
    from simulation.life import World

__all__ = [
    "BelievesJumps", "BelievesWhatWasVouched", "BelievesZeroRows", "ColumnsAreCounted", "DeafToTheFeed",
    "OddRowCostsThePage", "OddRowIsEmpty", "a_cache_is_a_witness", "as_long_as_told", "one_pool",
    "throw_away_what_was_visited",
]  # fmt: skip

UNREADABLE = b"{"
DOCUMENTED = (6, 7, 8, 9)
"""How many columns rows have at the venues."""
PATIENCE = 3600


class _Rereads:
    """A history whose answers pass through :meth:`read`, and what comes of a page through :meth:`conclude`."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def fill(self, *page: Any, **more: Any) -> Fill:
        questions = self.inner.fill(*page, **more)
        try:
            request: Request = next(questions)
            while True:
                try:
                    answer: Answer = yield request
                except Unavailable as error:
                    request = questions.throw(error)
                else:
                    request = questions.send(attrs.evolve(answer, body=self.read(answer.body)))
        except StopIteration as end:
            filled: Filled = end.value
            return self.conclude(page[0], filled)

    def read(self, body: bytes) -> bytes:
        return body

    def conclude(self, series: Series, filled: Filled) -> Filled:
        return filled


def lists_in(body: bytes) -> list[list[Any]]:
    """The rows of an answer that are lists, wherever they stand in it."""
    try:
        document = json.loads(body)
    except ValueError:
        return []
    return list(_lists(document))


def _lists(value: Any) -> Iterator[list[Any]]:
    inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    if isinstance(value, list) and value and not isinstance(value[0], list | dict):
        yield value
        return
    for one in inner:
        yield from _lists(one)


def is_odd(row: list[Any]) -> bool:
    """Whether something in a candle's prices is no number."""
    return any(cell in (None, "n/a") or isinstance(cell, dict | list) for cell in row[1:5])


class BelievesZeroRows(_Rereads):
    """Takes a row without trades for the word that there were none, whatever its prices are."""

    def read(self, body: bytes) -> bytes:
        try:
            document = json.loads(body)
            (rows,) = [rows for rows in document["result"].values() if isinstance(rows, list)]
        except (ValueError, LookupError, TypeError, AttributeError):
            return body
        close = None
        for row in rows:
            if len(row) == 8 and row[7] == 0 and close is not None:
                row[1:5] = [close] * 4
            close = row[4]
        return json.dumps(document).encode()


class OddRowCostsThePage(_Rereads):
    """Understands nothing of an answer in which one row cannot be read."""

    def read(self, body: bytes) -> bytes:
        return UNREADABLE if any(map(is_odd, lists_in(body))) else body


class OddRowIsEmpty(_Rereads):
    """Takes a row that cannot be read for one that is not there, and that for the word that nothing traded."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.odd: set[int] = set()

    def read(self, body: bytes) -> bytes:
        times = [int(row[0]) for row in lists_in(body) if is_odd(row) and str(row[0]).isdigit()]
        self.odd |= {time * (1000 if time < 10**11 else 1) for time in times}
        return body

    def conclude(self, series: Series, filled: Filled) -> Filled:
        odd = [one for one in filled.missing if one.until - one.since == MINUTE and one.since in self.odd]
        told = [Empty(series, one.since, one.until, "no row") for one in odd]
        empties = tuple(sorted((*filled.empties, *told), key=lambda span: span.since))
        return attrs.evolve(filled, empties=empties, missing=tuple(one for one in filled.missing if one not in odd))


class ColumnsAreCounted(_Rereads):
    """Understands rows of just as many columns as are documented."""

    def read(self, body: bytes) -> bytes:
        return body if all(_is_documented(row) for row in lists_in(body)) else UNREADABLE


def _is_documented(row: list[Any]) -> bool:
    """A further column is a zero, or a text without a word."""
    return len(row) in DOCUMENTED and not (row[-1] == "" or (len(row) in (7, 9, 10) and row[-1] == 0))


class DeafToTheFeed(_Rereads):
    """Judges what REST answers as if there were no feed."""

    def fill(self, *page: Any, **more: Any) -> Fill:
        return super().fill(*(one for one in page if not hasattr(one, "quiet_until")), **more)


class BelievesJumps(Vouching):
    """Goes on by a clock that has been set."""

    def _is_jump(self, by: float) -> bool:
        return False


class BelievesWhatWasVouched(Vouching):
    """Takes what a venue said before a jump for its word about the clock after it."""

    def _doubt(self, why: str) -> None:
        vouched = self.vouched
        super()._doubt(why)
        self.vouched = vouched


@attrs.define(eq=False)
class _Patient(httpx.AsyncBaseTransport):
    inner: httpx.AsyncBaseTransport
    until: dict[str, float] = attrs.field(factory=dict)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        host = request.url.host
        if trio.current_time() < self.until.get(host, 0.0):
            await trio.lowlevel.checkpoint()
            raise httpx.ConnectError("it wants to be left alone", request=request)
        response = await self.inner.handle_async_request(request)
        seconds = float(response.headers.get("retry-after", "0"))
        if seconds > PATIENCE:
            self.until[host] = trio.current_time() + seconds
        return response


@attrs.define(eq=False)
class _Cached(httpx.AsyncBaseTransport):
    inner: httpx.AsyncBaseTransport

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        request.headers.pop("cache-control", None)
        return await self.inner.handle_async_request(request)


def a_cache_is_a_witness(network: Network) -> Network:
    """Takes what a cache repeats for another telling."""
    assert network.transport is not None
    return attrs.evolve(network, transport=_Cached(network.transport))


def as_long_as_told(network: Network) -> Network:
    """Leaves a venue alone for as long as it says, be it days."""
    assert network.transport is not None
    return attrs.evolve(network, transport=_Patient(network.transport))


def throw_away_what_was_visited(root: Path) -> None:
    """Takes a journal in which another tool has been for a broken one, and begins anew."""
    path = root / "journal.sqlite3"
    if not path.exists():
        return
    with closing(sqlite3.connect(path)) as database:
        names = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
    if names & {"sqlite_stat1", "notes", "holes", "by_text"}:
        for old in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
            old.unlink(missing_ok=True)


def one_pool(world: World) -> Callable[..., Awaitable[Any]]:
    """Lets the disk wait while a name is looked up, as where one pool of threads serves both."""

    async def offload(work: Callable[..., Any], /, *args: Any) -> Any:
        while any(one.faults.unresolved for one in world.exchanges.exchanges.values()):  # noqa: ASYNC110
            await trio.sleep(0.5)
        return await world.machine.offload(work, *args)

    return offload
