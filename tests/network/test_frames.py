"""Joining changes nothing that a reader of messages could tell: any messages, in any pieces."""

from __future__ import annotations

import itertools

import wsproto
from hypothesis import given
from hypothesis import strategies as st
from wsproto.connection import Connection
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, TextMessage

from trio_candles.network.joining import LARGEST_HEAD, SEPARATOR, Joiner, parted

ANSWER = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"
WORDS = st.text(st.characters(exclude_characters=SEPARATOR, exclude_categories=["Cs"]), max_size=200)
PINGS = st.binary(max_size=125).map(Ping)
GROUPS = st.one_of(
    WORDS.map(lambda word: [TextMessage(word)]),
    WORDS.map(lambda word: [TextMessage(word), TextMessage(word)]),
    st.binary(max_size=200).map(lambda data: [BytesMessage(data)]),
    PINGS.map(lambda ping: [ping]),
    st.tuples(WORDS, PINGS, WORDS).map(lambda t: [TextMessage(t[0], message_finished=False), t[1], TextMessage(t[2])]),
)
EVENTS = st.lists(GROUPS, max_size=20).map(lambda groups: [event for group in groups for event in group])


def sent(events: list[Event]) -> bytes:
    """*events* as a server sends them."""
    server = Connection(wsproto.ConnectionType.SERVER)
    return b"".join(server.send(event) for event in events)


def read(frames: bytes) -> list[object]:
    """What the library makes of *frames*, and we of that."""
    client = Connection(wsproto.ConnectionType.CLIENT)
    client.receive_data(frames)
    heard: list[object] = []
    text = ""
    for event in client.events():
        if isinstance(event, TextMessage):
            text += event.data
            if event.message_finished:
                heard += parted(text)
                text = ""
        elif isinstance(event, BytesMessage):
            if event.data or event.message_finished:
                heard.append(bytes(event.data))
        elif isinstance(event, Ping | CloseConnection):
            heard.append(event)
    return heard


def fed(joiner: Joiner, data: bytes, cuts: list[int]) -> bytes:
    """What *joiner* makes of *data*, cut at *cuts*."""
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    pieces = [data[start:end] for start, end in itertools.pairwise(edges)]
    return b"".join(joiner.feed(piece) for piece in pieces if piece) + joiner.end()


@given(EVENTS, st.lists(st.integers(0, 10_000), max_size=8))
def test_joined_messages_read_as_they_were_sent(events, cuts):
    frames = sent(events)
    answer = fed(Joiner(1 << 18), ANSWER + frames, cuts)
    assert answer.startswith(ANSWER)
    assert read(answer[len(ANSWER) :]) == read(frames)


def test_a_hundred_messages_of_one_read_become_one():
    frames = sent([TextMessage(str(number)) for number in range(100)])
    joiner = Joiner(1 << 18)
    joiner.feed(ANSWER)
    (event,) = _events(joiner.feed(frames))
    assert parted(event.data) == [str(number) for number in range(100)]


def test_a_message_is_never_made_larger_than_the_largest():
    frames = sent([TextMessage("x" * 60) for _ in range(10)])
    joiner = Joiner(100)
    joiner.feed(ANSWER)
    assert joiner.feed(frames) == frames


def test_an_incomplete_message_waits():
    frames = sent([TextMessage("a"), TextMessage("b" * 300)])
    joiner = Joiner(1 << 18)
    joiner.feed(ANSWER)
    assert joiner.feed(frames[:5]) == frames[:3]
    assert joiner.feed(frames[5:50]) == b""
    assert joiner.feed(frames[50:]) == frames[3:]


def test_what_is_no_websocket_passes_unchanged():
    refusal = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\n\r\n\x81\x02no"
    assert fed(Joiner(100), refusal, [3, 20, 44]) == refusal
    garbage = bytes(range(256)) * 200
    assert len(garbage) > LARGEST_HEAD
    assert fed(Joiner(100), garbage, [5_000, 20_000]) == garbage


def test_what_announces_itself_too_large_passes_as_it_comes():
    head = b"\x81\x7f" + (101).to_bytes(8, "big")
    joiner = Joiner(100)
    joiner.feed(ANSWER)
    assert joiner.feed(head) == head
    assert joiner.feed(b"x") == b"x"


def test_a_masked_frame_passes_as_it_comes():
    joiner = Joiner(100)
    joiner.feed(ANSWER)
    assert joiner.feed(b"\x81\x81abcd?") == b"\x81\x81abcd?"


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=4))
def test_any_bytes_pass_in_order_and_whole_but_for_the_heads_of_texts(garbage, cuts):
    joiner = Joiner(1 << 18)
    joiner.feed(ANSWER)
    fed(joiner, garbage, cuts)


def _events(frames: bytes) -> list[Event]:
    client = Connection(wsproto.ConnectionType.CLIENT)
    client.receive_data(frames)
    return list(client.events())
