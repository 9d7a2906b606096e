"""A name that nobody resolves holds up nobody but those who want that name: one look-up a host, and its own thread."""

from __future__ import annotations

import socket
import threading
from collections import Counter

import attrs
import httpx
import pytest
import trio

from trio_candles.network.names import look_up, looking_up
from trio_candles.threads import in_thread


@attrs.define
class Resolver:
    """Answers at once, but for hosts that hang until they are let go."""

    hanging: trio.Event = attrs.field(factory=trio.Event)
    asked: Counter[bytes] = attrs.field(factory=Counter)

    async def __call__(self, host: bytes, family: int, kind: int, protocol: int, flags: int) -> list:
        self.asked[host] += 1
        if host.startswith(b"hanging"):
            await self.hanging.wait()
        if b"nowhere" in host:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [
            (socket.AF_INET, kind, 6, "", ("192.0.2.1", 0)),
            (socket.AF_INET6, kind, 6, "", ("2001:db8::1", 0, 0, 7)),
        ]


async def addresses(host: str, port: int = 443) -> list[tuple]:
    found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [address for *_, address in found]


async def test_2500_who_wait_for_one_name_cost_one_look_up_and_hold_up_no_other_name(autojump_clock):
    resolver, arrived, gave_up = Resolver(), [], []

    async def connect(number: int) -> None:
        with trio.move_on_after(10) as deadline:
            arrived.append(await addresses("hanging.test", number))
        gave_up.append(deadline.cancelled_caught)

    async with looking_up(resolver), trio.open_nursery() as nursery:
        for number in range(2_500):
            nursery.start_soon(connect, number)
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        assert await look_up("other.test") == ["192.0.2.1", "2001:db8::1"]
        assert trio.current_time() == began
        await trio.sleep(11)
        assert gave_up == [True] * 2_500  # each by its own deadline
        nursery.start_soon(connect, 8443)  # joins the look-up that all others have left
        await trio.testing.wait_all_tasks_blocked()
        resolver.hanging.set()
    assert arrived == [[("192.0.2.1", 8443), ("2001:db8::1", 8443, 0, 7)]]
    assert resolver.asked == {b"hanging.test": 1, b"other.test": 1}


async def test_a_name_is_looked_up_anew_once_it_is_known_or_refused(autojump_clock):
    resolver = Resolver()
    async with looking_up(resolver):
        for _ in range(2):
            assert (await addresses("venue.test"))[0] == ("192.0.2.1", 443)
            with pytest.raises(socket.gaierror, match="not known"):
                await addresses("nowhere.test")
    assert resolver.asked == {b"venue.test": 2, b"nowhere.test": 2}


async def test_all_who_wait_for_a_name_hear_that_there_is_none_each_with_an_error_of_its_own(autojump_clock):
    resolver, heard = Resolver(), []

    async def ask() -> None:
        with pytest.raises(socket.gaierror, match="not known") as raised:
            await addresses("hanging.nowhere.test")
        heard.append(raised.value)

    async with looking_up(resolver), trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        resolver.hanging.set()
    assert len({id(error) for error in heard}) == 3
    assert resolver.asked == {b"hanging.nowhere.test": 1}


async def test_rest_and_sockets_ask_for_names_by_the_same_way(autojump_clock):
    """httpx dials through trio, and so through whoever looks names up for trio."""
    resolver = Resolver()
    async with looking_up(resolver):
        async with httpx.AsyncClient(trust_env=False) as client:
            with pytest.raises(httpx.ConnectError):
                await client.get("http://nowhere.test/")
        with pytest.raises(OSError, match="not known"):
            await trio.open_tcp_stream("nowhere.test", 80)
    assert resolver.asked == {b"nowhere.test": 2}


async def test_names_that_hang_in_their_threads_keep_no_work_from_the_disk():
    """Fifty of them: more than all the threads that trio grants by itself."""
    let_go, hanging = threading.Event(), []

    def hang(host: bytes) -> list:
        hanging.append(host)
        let_go.wait(60)
        return []

    async def resolve(host: bytes, *question: int) -> list:
        return await in_thread(hang, host)

    try:
        with trio.fail_after(30):
            async with looking_up(resolve), trio.open_nursery() as nursery:
                for number in range(50):
                    nursery.start_soon(addresses, f"hanging{number}.test")
                while len(hanging) < 50:
                    await trio.lowlevel.checkpoint()
                assert await in_thread(lambda: "written") == "written"
                nursery.cancel_scope.cancel()
    finally:
        let_go.set()


async def test_whoever_else_uses_up_trios_threads_keeps_no_work_from_the_disk():
    let_go = threading.Event()
    limiter = trio.to_thread.current_default_thread_limiter()
    try:
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                for _ in range(int(limiter.total_tokens)):
                    nursery.start_soon(trio.to_thread.run_sync, let_go.wait, 60)
                while limiter.available_tokens:
                    await trio.lowlevel.checkpoint()
                assert await in_thread(lambda: "written") == "written"
                let_go.set()
    finally:
        let_go.set()
