"""The states of a subscription: whatever a venue answers, and however often, no symbol is forgotten."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import trio
import trio.testing
from hypothesis import example, given, settings
from hypothesis import strategies as st
from world import NOON

from trio_candles.candles.model import Millis
from trio_candles.clock import SimulatedTime
from trio_candles.collector.subscriptions import (
    GIVEN_UP_SECONDS,
    THROTTLED_SECONDS,
    Connection,
    Feed,
    Message,
    State,
    acknowledged,
    ask,
    check_requests,
    refused,
    throttled,
)
from trio_candles.network.websocket import Network
from trio_candles.venues.registry import VENUES

SYMBOLS = ("BTC-USDT", "ETH-USDT", "SOL-USDT", "XRP-USDT")
LONGEST_ATTEMPT = THROTTLED_SECONDS + 3 * (5 + 1)
"""Seconds from asking to giving up, a watchdog's second each time included."""


@attrs.define
class Reports:
    """The listener: what was last reported of each symbol, and how often."""

    last: dict[str, State] = attrs.field(factory=dict)
    subscribed: list[str] = attrs.field(factory=list)

    def became(self, symbol: str, state: State, text: str, now: Millis) -> None:
        self.last[symbol] = state
        if state is State.SUBSCRIBED:
            self.subscribed.append(symbol)

    def announced(self, text: str) -> None:
        pass


@attrs.define
class Conversation:
    """One open connection, whose messages are sent at once."""

    feed: Feed
    connection: Connection
    messages: trio.MemoryReceiveChannel[Message]
    asked: list[tuple[str, ...]] = attrs.field(factory=list)
    """The symbols of each message, in the order of sending."""

    def send(self) -> None:
        while True:
            try:
                message = self.messages.receive_nowait()
            except trio.WouldBlock:
                return
            for request in message.requests:
                request.asked_at = trio.current_time()
            names = {id(request): symbol for symbol, request in self.connection.requests.items()}
            self.asked.append(tuple(names[id(request)] for request in message.requests if id(request) in names))

    async def wait(self, seconds: int) -> None:
        for _ in range(seconds):
            await trio.sleep(1)
            check_requests(self.feed, self.connection, trio.current_time())
            self.send()
            self.check()

    def check(self) -> None:
        """The module's invariant."""
        now, reports = trio.current_time(), self.feed.listener.last
        for symbol in SYMBOLS:
            request = self.connection.requests[symbol]
            assert [request.state is State.SUBSCRIBED, request.given_up, request.awaited].count(True) == 1
            assert bool(request.missing) or not request.awaited
            if request.awaited:
                assert now - 6 <= request.asked_at <= now + THROTTLED_SECONDS
            else:
                assert reports[symbol] is request.state
            if request.given_up:
                assert now <= self.feed.not_before[symbol] + 1 <= now + GIVEN_UP_SECONDS + 1


def converse() -> Conversation:
    outgoing, messages = trio.open_memory_channel[Message](1000)
    feed = Feed(VENUES["okx"].feed, "ws://nowhere", Reports(), Network(None), SimulatedTime(Millis(NOON)))
    now = trio.current_time()
    connection = Connection(0, SYMBOLS, outgoing, trio.CancelScope(), now, dict.fromkeys(SYMBOLS, now), now)
    ask(feed, connection, SYMBOLS)
    conversation = Conversation(feed, connection, messages)
    conversation.send()
    return conversation


ANSWERS = st.one_of(
    st.tuples(st.just("acknowledged"), st.sampled_from(SYMBOLS)),
    st.tuples(st.just("refused"), st.sampled_from([*SYMBOLS, "ABC-USDT", None])),
    st.tuples(st.just("too fast"), st.none()),
    st.tuples(st.just("nothing"), st.sampled_from([1, 2, 7, 61, 301])),
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(answers=st.lists(ANSWERS, max_size=12))
@example(answers=[("refused", "BTC-USDT"), ("nothing", 7), ("acknowledged", "BTC-USDT")])
@example(answers=[("nothing", 301), ("acknowledged", "ETH-USDT"), ("refused", "ETH-USDT")])
def test_every_symbol_is_subscribed_or_awaited_or_given_up_for_a_while(answers: Sequence[tuple[str, object]]):
    async def main() -> None:
        conversation = converse()
        feed, connection = conversation.feed, conversation.connection
        for answer, about in answers:
            match answer:
                case "acknowledged":
                    acknowledged(feed, connection, about, "candle1m")
                case "refused":
                    refused(feed, connection, about, "no")
                case "too fast":
                    throttled(feed, connection, "slowly")
                case _:
                    await conversation.wait(about)
            conversation.send()
            conversation.check()
        await conversation.wait(int(LONGEST_ATTEMPT))
        states = {symbol: connection.requests[symbol].state for symbol in SYMBOLS}
        sent = len(conversation.asked)
        await conversation.wait(int(GIVEN_UP_SECONDS + LONGEST_ATTEMPT))
        again = {symbol for batch in conversation.asked[sent:] for symbol in batch}
        assert {symbol for symbol in SYMBOLS if states[symbol] is not State.SUBSCRIBED} <= again

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


async def test_without_an_answer_a_symbol_is_asked_for_twice_with_the_others_then_alone_and_given_up(autojump_clock):
    conversation = converse()
    await conversation.wait(int(LONGEST_ATTEMPT))
    assert conversation.asked == [SYMBOLS, SYMBOLS, *((symbol,) for symbol in SYMBOLS)]
    assert set(conversation.feed.listener.last.values()) == {State.UNANSWERED}


async def test_a_symbol_refused_by_name_is_left_out_and_the_others_are_asked_for_together_once_more(autojump_clock):
    conversation = converse()
    for symbol in ("ETH-USDT", "BTC-USDT"):
        refused(conversation.feed, conversation.connection, symbol, "no such instrument")
        await conversation.wait(2)
    assert conversation.asked == [SYMBOLS, ("BTC-USDT", "SOL-USDT", "XRP-USDT"), ("SOL-USDT", "XRP-USDT")]
    assert conversation.feed.listener.last == dict.fromkeys(("ETH-USDT", "BTC-USDT"), State.REFUSED)
    await conversation.wait(8)
    assert conversation.asked[3:] == [("SOL-USDT",), ("XRP-USDT",)]


async def test_an_acknowledgement_that_comes_after_all_subscribes_the_symbol_once(autojump_clock):
    conversation = converse()
    await conversation.wait(30)
    assert conversation.feed.listener.last["BTC-USDT"] is State.UNANSWERED
    for _ in range(2):
        acknowledged(conversation.feed, conversation.connection, "BTC-USDT", "candle1m")
    assert conversation.feed.listener.subscribed == ["BTC-USDT"]
    assert "BTC-USDT" not in conversation.feed.not_before
