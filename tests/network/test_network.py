"""The WebSocket library's traps, each with its answer; pacing, budgets and back-off by exact times."""

from __future__ import annotations

import random
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import httpx
import pytest
import trio
import trio.testing
import trio_websocket
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st
from peers import URL, accept, network_with, refused_with

from trio_candles.collector.feed import leaves
from trio_candles.network.pacing import Backoff, Budget
from trio_candles.network.streams import PacedStream, TlsStream, paced_ticks
from trio_candles.network.websocket import (
    CLOSE_SECONDS,
    CONNECT_SECONDS,
    LARGEST_MESSAGE,
    Network,
    dial_tcp,
    error_text,
)
from trio_candles.venues.protocol import Lost


async def lost_by(network: Network) -> tuple[Lost, float]:
    """Connect and wait for the connection to be lost; the error, and how many seconds it took."""
    began = trio.current_time()
    lost: list[BaseException] = []
    try:
        async with network.connect(URL) as socket:
            while True:
                await socket.receive()
    except* Lost as group:
        lost = leaves(group)
    (error,) = lost
    assert isinstance(error, Lost)
    return error, trio.current_time() - began


async def test_a_peer_that_closes_during_the_handshake_is_lost_within_the_deadline(autojump_clock, nursery):
    async def closes(stream):
        await stream.aclose()

    _, seconds = await lost_by(network_with(nursery, closes))
    assert seconds <= CONNECT_SECONDS


async def test_a_peer_that_never_answers_the_handshake_is_lost_at_the_deadline(autojump_clock, nursery):
    async def is_silent(stream):
        await trio.sleep_forever()

    error, seconds = await lost_by(network_with(nursery, is_silent))
    assert seconds == CONNECT_SECONDS
    assert "no answer" in str(error)
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "reply",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 4\r\n\r\nhey!",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: bm90IHRoZSByaWdodCBvbmU=\r\n\r\n",
        b"\x00" * 2000,
        b"HTTP/1.1 " + b"9" * 100_000,
    ],
    ids=["ssh", "429", "html", "wrong key", "zeros", "endless line"],
)
async def test_anything_but_the_right_reply_to_the_handshake_is_lost(autojump_clock, nursery, reply):
    hung_up = trio.Event()

    async def replies(stream):
        await stream.receive_some()
        await stream.send_all(reply)
        while await stream.receive_some():
            pass
        hung_up.set()

    _, seconds = await lost_by(network_with(nursery, replies))
    assert seconds <= CONNECT_SECONDS
    await trio.testing.wait_all_tasks_blocked()
    assert hung_up.is_set()  # and not only once the garbage is collected


async def test_a_refused_connection_is_lost_at_once(autojump_clock):
    async def dial(url):
        raise ConnectionRefusedError("nobody there")

    error, seconds = await lost_by(Network(dial))
    assert seconds == 0
    assert "nobody there" in str(error)


@settings(deadline=None)
@given(st.lists(st.binary(max_size=300), max_size=6))
def test_whatever_bytes_follow_the_handshake_the_connection_is_lost_and_nothing_else(chunks):
    async def main():
        async def talk(websocket):
            stream = websocket._stream  # the test's own side: raw bytes below the frames
            for chunk in chunks:
                await stream.send_all(chunk)
            await stream.aclose()

        async def peer(stream):
            # This side's library may be upset by what we reply to its garbage; that is its business.
            try:
                await accept(stream, talk)
            except* (Exception,):  # noqa: B013
                await stream.aclose()

        async with trio.open_nursery() as nursery:
            await lost_by(network_with(nursery, peer))
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


async def test_a_message_too_large_to_skip_costs_its_connection(autojump_clock, nursery):
    async def talk(websocket):
        await websocket.send_message("x" * (LARGEST_MESSAGE + 1))
        await trio.sleep_forever()

    _, seconds = await lost_by(network_with(nursery, lambda stream: accept(stream, talk)))
    assert seconds <= CLOSE_SECONDS
    nursery.cancel_scope.cancel()


async def test_leaving_a_half_open_connection_takes_two_seconds_and_no_more(autojump_clock, nursery):
    async def talk(websocket):
        await websocket.send_message("hello")
        await trio.sleep_forever()

    async def deaf(stream):
        # Does the handshake, then neither reads nor closes.
        async with trio.open_nursery() as inner:
            request = await trio_websocket.wrap_server_stream(inner, stream)
            websocket = await request.accept()
            await websocket.send_message("hello")
            inner.cancel_scope.cancel()
        await trio.sleep_forever()

    began = trio.current_time()
    async with network_with(nursery, deaf).connect(URL) as socket:
        assert await socket.receive() == ["hello"]
    assert trio.current_time() - began <= CLOSE_SECONDS
    nursery.cancel_scope.cancel()


async def test_an_unknown_error_in_our_own_code_is_not_taken_for_a_lost_connection(autojump_clock, nursery):
    async def talk(websocket):
        await websocket.send_message("hello")
        await trio.sleep_forever()

    async def listen():
        async with network_with(nursery, lambda stream: accept(stream, talk)).connect(URL) as socket:
            await socket.receive()
            raise ZeroDivisionError("a bug")

    with pytest.raises(ExceptionGroup) as caught:
        await listen()
    assert [type(error) for error in leaves(caught.value)] == [ZeroDivisionError]
    nursery.cancel_scope.cancel()


async def test_pings_are_answered_while_nobody_takes_messages(autojump_clock, nursery):
    answered = trio.Event()

    async def talk(websocket):
        for n in range(200):
            await websocket.send_message(str(n))
        await websocket.ping()
        answered.set()
        await trio.sleep_forever()

    async with network_with(nursery, lambda stream: accept(stream, talk)).connect(URL) as socket:
        with trio.fail_after(1):
            await answered.wait()
        assert (await socket.receive())[0] == "0"
    nursery.cancel_scope.cancel()


# --- TLS --------------------------------------------------------------------------------------------------


@asynccontextmanager
async def serving_tls(host: str, authority: trustme.CA, talk) -> AsyncIterator[int]:
    """A WebSocket server over TLS on loopback with a certificate for *host*; its port."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(host).configure_cert(context)

    async def serve(tcp):
        stream = trio.SSLStream(tcp, context, server_side=True)
        try:
            await stream.do_handshake()
            await accept(stream, talk)
        except* (trio.BrokenResourceError, trio_websocket.ConnectionClosed):
            await trio.aclose_forcefully(tcp)

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def test_a_certificate_that_nobody_vouches_for_is_refused():
    """No option turns verification off; a self-signed certificate on loopback is as bad as any."""
    async with serving_tls("127.0.0.1", trustme.CA(), trio.sleep) as port:
        said = await refused_with(Network(dial_tcp(lambda: 0.0)), f"wss://127.0.0.1:{port}/")
    assert "CERTIFICATE_VERIFY_FAILED" in said


async def test_a_certificate_for_another_host_is_refused():
    authority = trustme.CA()
    context = ssl.create_default_context()
    authority.configure_trust(context)
    async with serving_tls("elsewhere.test", authority, trio.sleep) as port:
        said = await refused_with(Network(dial_tcp(lambda: 0.0, context)), f"wss://127.0.0.1:{port}/")
    assert "CERTIFICATE_VERIFY_FAILED" in said


async def test_over_tls_every_message_arrives_in_order_whatever_the_records():
    authority = trustme.CA()
    context = ssl.create_default_context()
    authority.configure_trust(context)
    sent = ["x" * size for size in (1, 5, 200, 70_000, 3)] + [str(n) for n in range(500)]

    async def talk(websocket):
        for message in sent:
            await websocket.send_message(message)
        assert await websocket.get_message() == "thanks"
        await websocket.send_message("goodbye")

    received: list[str] = []
    async with serving_tls("127.0.0.1", authority, talk) as port:
        network = Network(dial_tcp(lambda: 0.001, context))
        async with network.connect(f"wss://127.0.0.1:{port}/") as socket:
            while len(received) < len(sent):
                received += await socket.receive()
            await socket.send("thanks")
            assert await socket.receive() == ["goodbye"]
    assert received == sent


async def test_a_tls_peer_that_falls_silent_in_the_handshake_is_lost_at_the_deadline(autojump_clock, nursery):
    async def dial(url):
        ours, theirs = trio.testing.memory_stream_pair()
        nursery.start_soon(theirs.receive_some)
        tls = TlsStream.over(ours, ssl.create_default_context(), "venue.test")
        await tls.shake_hands()
        return tls

    _, seconds = await lost_by(Network(dial))
    assert seconds == CONNECT_SECONDS


@pytest.mark.parametrize("reply", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x15\x03\x03\x00\x02\x02\x28"])
async def test_a_peer_that_does_not_speak_tls_is_lost(autojump_clock, nursery, reply):
    async def dial(url):
        ours, theirs = trio.testing.memory_stream_pair()
        if reply:
            await theirs.send_all(reply)
        else:
            await theirs.aclose()
        tls = TlsStream.over(ours, ssl.create_default_context(), "venue.test")
        await tls.shake_hands()
        return tls

    _, seconds = await lost_by(Network(dial))
    assert seconds == 0


# --- pacing -----------------------------------------------------------------------------------------------


async def test_bytes_gather_between_two_reads(autojump_clock, nursery):
    ours, theirs = trio.testing.memory_stream_pair()
    paced = PacedStream(ours, lambda: 0.1)

    async def talk():
        for _ in range(10):
            await theirs.send_all(b"x")
            await trio.sleep(0.03)

    nursery.start_soon(talk)
    reads = []
    while sum(len(data) for data, _ in reads) < 10:
        reads.append((await paced.receive_some(1000), round(trio.current_time(), 3)))
    assert [time for _, time in reads] == [0.0, 0.1, 0.2, 0.3]


async def test_a_read_that_was_full_is_followed_at_once_by_the_next(autojump_clock):
    ours, theirs = trio.testing.memory_stream_pair()
    await theirs.send_all(b"x" * 100)
    paced = PacedStream(ours, lambda: 0.1)
    assert len(await paced.receive_some(60)) == 60
    assert len(await paced.receive_some(60)) == 40
    assert trio.current_time() == 0


@pytest.mark.parametrize(
    ("into_minute", "tick"), [(0, 0.01), (1_499, 0.01), (1_500, 0.1), (30_000, 0.1), (59_950, 0.01)]
)
def test_reads_are_dense_around_the_turn_of_a_minute(into_minute, tick):
    assert paced_ticks(lambda: 1_768_046_400_000 + into_minute)() == tick


# --- budgets and back-off ---------------------------------------------------------------------------------


@settings(deadline=None)
@given(
    st.sampled_from([0.2, 1.0, 4.0]),
    st.integers(1, 10),
    st.lists(st.tuples(st.floats(0, 5), st.integers(1, 10)), min_size=1, max_size=40),
)
def test_a_budget_is_never_exceeded_in_any_window(rate, burst, questions):
    async def main():
        budget, turns = Budget(rate, burst), []

        async def one(weight):
            await budget.take(weight)
            turns.extend([trio.current_time()] * weight)

        async with trio.open_nursery() as nursery:
            for pause, weight in questions:
                nursery.start_soon(one, min(weight, burst))
                await trio.sleep(pause)
        for i, first in enumerate(turns):
            for j in range(i, len(turns)):
                assert j - i + 1 <= burst + (turns[j] - first) * rate + 1e-6

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_back_off_doubles_with_chance_and_never_exceeds_a_minute():
    backoff = Backoff(random.Random(5))
    delays = [backoff.next() for _ in range(12)]
    for step, delay in enumerate(delays):
        whole = min(60.0, 2.0**step)
        assert whole / 2 <= delay <= whole
    assert len(set(delays)) == len(delays)
    backoff.reset()
    assert backoff.next() <= 1.0


def test_an_error_is_told_with_the_systems_words_however_deep_they_are_hidden():
    hidden = httpx.ConnectError("")
    hidden.__cause__ = inner = httpx.ConnectError("")
    inner.__context__ = trio.BrokenResourceError()
    inner.__context__.__cause__ = ConnectionRefusedError(111, "Connection refused")
    inner.__suppress_context__ = True
    refused = "ConnectionRefusedError: [Errno 111] Connection refused"
    assert error_text(hidden) == f"ConnectError (BrokenResourceError ({refused}))"
    beside = ValueError("one")
    beside.__context__ = KeyError("another story")
    assert error_text(beside) == "ValueError: one"
