"""Looks host names up: of each host one look-up is under way at most, and whoever else asks waits for that one.

A look-up runs in a thread, because the system has no other way, and nobody can end it: a resolver may take minutes.
So a look-up belongs to none of those who wait for its answer. Whoever gives up leaves it running, whoever asks next
joins it, and a thousand connections to a host whose name server is silent cost one thread.
"""

from __future__ import annotations

import math
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import attrs
import trio

__all__ = ["Found", "Resolve", "look_up", "looking_up"]

Found = list[tuple[Any, Any, int, str, Any]]
"""As :func:`socket.getaddrinfo` gives them."""
Resolve = Callable[..., Awaitable[Found]]
"""As :func:`resolve`."""


async def resolve(host: bytes, family: int, kind: int, protocol: int, flags: int) -> Found:
    """The addresses of *host*, with port 0, as the system resolves the name; raises the system's OSError."""
    return await _in_thread(socket.getaddrinfo, host, None, family, kind, protocol, flags)


_in_thread = partial(trio.to_thread.run_sync, abandon_on_cancel=True, limiter=trio.CapacityLimiter(math.inf))
"""A thread for each host: trio's ration of threads, which others share, would be used up by forty silent ones."""


@attrs.define
class _LookUp:
    """One look-up, under way or done."""

    done: trio.Event = attrs.field(factory=trio.Event)
    found: Found = attrs.field(factory=list)
    error: OSError | None = None


@attrs.define
class _Names(trio.abc.HostnameResolver):
    """What trio asks in place of its own threads, whoever connects: our sockets, or httpx."""

    _nursery: trio.Nursery
    _resolve: Resolve
    _under_way: dict[tuple[Any, ...], _LookUp] = attrs.field(factory=dict)

    async def getaddrinfo(
        self, host: bytes | None, port: object, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
    ) -> Found:
        """The addresses of *host*, with *port* in each."""
        question = (host, family, type, proto, flags)
        look_up = self._under_way.get(question)
        if look_up is None:
            look_up = self._under_way[question] = _LookUp()
            self._nursery.start_soon(self._ask, question, look_up, name=f"name {host!r}")
        await look_up.done.wait()
        if look_up.error is not None:
            # Each asker's own: an error that several tasks raise would gather the traceback of each.
            raise look_up.error.__class__(*look_up.error.args)
        return [(*kind, (address[0], port or 0, *address[2:])) for *kind, address in look_up.found]

    async def _ask(self, question: tuple[Any, ...], look_up: _LookUp) -> None:
        try:
            look_up.found = await self._resolve(*question)
        except OSError as error:
            look_up.error = error
        finally:
            del self._under_way[question]
            look_up.done.set()

    async def getnameinfo(self, sockaddr: tuple[str, int] | tuple[str, int, int, int], flags: int) -> tuple[str, str]:
        """The name of an address; nobody asks for one."""
        return await _in_thread(socket.getnameinfo, sockaddr, flags)


@asynccontextmanager
async def looking_up(resolve: Resolve = resolve) -> AsyncIterator[None]:
    """For the block, every name that this run of trio wants to know is looked up by *resolve*, one look-up a host."""
    async with trio.open_nursery() as nursery:
        before = trio.socket.set_custom_hostname_resolver(_Names(nursery, resolve))
        try:
            yield
        finally:
            trio.socket.set_custom_hostname_resolver(before)
            nursery.cancel_scope.cancel()


async def look_up(host: str) -> list[str]:
    """The addresses of *host*; raises the system's OSError if there are none."""
    found = await trio.socket.getaddrinfo(host, None, type=trio.socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))
