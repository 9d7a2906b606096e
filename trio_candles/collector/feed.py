"""One venue's nursery: listen, watch, reconnect.

::

    {venue}/socket n    keep_listening   one connection after another: subscribe, read, report
    {venue}/watchdog    watch            once a second: silence per socket and per symbol, acks, due minutes
    {venue}/gaps        fill             open gaps → REST → verdicts (trio_candles.collector.gapfill)
    {venue}/sender      send_verdicts    outbox → the writer's channel

A venue with more symbols than one connection carries has several, each with its own back-off, so that a lost one
makes gaps of its own symbols only. Only :class:`Lost` is answered by reconnecting; anything else is a bug, and
takes the service down.
"""

from __future__ import annotations

import logging
import random
import re
from collections.abc import Awaitable, Callable, Iterable
from functools import partial

import trio

from trio_candles.candles.model import Millis, printable
from trio_candles.collector.silence import check_stall, check_symbols, note_data
from trio_candles.collector.status import VenueBoard
from trio_candles.collector.subscriptions import (
    Connection,
    Feed,
    Message,
    acknowledged,
    ask,
    check_requests,
    ping,
    refused,
    throttled,
)
from trio_candles.collector.venue_state import VenueState
from trio_candles.collector.writer import Batch
from trio_candles.network.pacing import Backoff, Budget
from trio_candles.network.websocket import Network, Socket
from trio_candles.venues.protocol import (
    Acked,
    Event,
    FeedProtocol,
    Leaving,
    Limits,
    Lost,
    Misunderstood,
    Notice,
    Refused,
    Skipped,
    SystemStatus,
    Told,
    Unread,
)

__all__ = ["leaves", "listen", "run_feed"]

log = logging.getLogger(__name__)

HEALTHY_SECONDS = 60.0
"""A connection that lasted so long was a good one: after it, the delays begin anew with the shortest."""
LONGEST_WAIT = 60.0
"""Seconds until a reconnection, at most, as promised."""
TICK = 1.0
"""Seconds between two rounds of the watchdog."""


async def run_feed(
    venue: FeedProtocol,
    url: str,
    state: VenueState,
    network: Network,
    verdicts: trio.MemorySendChannel[Batch],
    chance: random.Random,
    last_words: Callable[[Batch], object],
    fill: Callable[[VenueState], Awaitable[object]] | None,
) -> None:
    """Collect from *venue* until cancelled. Then every minute that is over gets its verdict, *last_words* is given the
    last batch, and *verdicts* is closed.
    """
    clock = state.clock
    feed = Feed(venue, url, state, network, clock)
    symbols = tuple(state.assemblers)
    size = venue.limits.symbols_per_connection
    batches = [symbols[start : start + size] for start in range(0, len(symbols), size)]
    state.board.connections = len(batches)
    connects = Budget(venue.limits.connects_per_second, venue.limits.connects_burst)
    clock.on_jump += [partial(hang_up, feed, "the clock jumped"), state.board.clock_jumped]
    with verdicts:
        try:
            async with trio.open_nursery() as nursery:
                for number, batch in enumerate(batches):
                    backoff = Backoff(random.Random(chance.random()))
                    name = f"{venue.name}/socket {number}"
                    nursery.start_soon(keep_listening, feed, state.board, number, batch, connects, backoff, name=name)
                nursery.start_soon(watch, feed, state, name=f"{venue.name}/watchdog")
                if fill is not None:
                    nursery.start_soon(fill, state, name=f"{venue.name}/gaps")
                nursery.start_soon(send_verdicts, state, verdicts, name=f"{venue.name}/sender")
        finally:
            # Every minute that is over gets its verdict, also when we are being cancelled.
            state.settle_all(clock.now())
            last_words(state.take())


async def send_verdicts(state: VenueState, verdicts: trio.MemorySendChannel[Batch]) -> None:
    """Send what waits in the outbox of *state* to the writer, for ever."""
    while True:
        await state.filled.wait()
        batch = state.take()
        try:
            await verdicts.send(batch)
        except trio.Cancelled:
            state.outbox[:0] = batch  # not sent: the feed's last batch begins with it
            raise


# --- one connection ---------------------------------------------------------------------------------------


async def keep_listening(
    feed: Feed, board: VenueBoard, number: int, symbols: tuple[str, ...], connects: Budget, backoff: Backoff
) -> None:
    """Listen to *symbols* for ever, on one connection after another."""
    first = True
    while True:
        await connects.take()
        if not first:
            board.reconnects += 1
        first = False
        began = trio.current_time()
        try:
            await listen(feed, number, symbols)
        except* Lost as group:
            log.warning("%s/%d: %s", feed.venue.name, number, "; ".join(str(lost) for lost in leaves(group)))
        if trio.current_time() - began >= HEALTHY_SECONDS:
            backoff.reset()
        delay = max(backoff.next(), _unwanted_seconds(feed, symbols))
        log.info("%s/%d: next attempt in %.1f s", feed.venue.name, number, delay)
        await trio.sleep(delay)


def _unwanted_seconds(feed: Feed, symbols: Iterable[str]) -> float:
    """Seconds until one of *symbols* may be asked for again, at most :data:`LONGEST_WAIT`; above zero only if all are
    given up: there is nothing to ask for, and venues close a connection without subscriptions.
    """
    wanted = min(feed.not_before.get(symbol, 0.0) for symbol in symbols)
    return min(wanted - trio.current_time(), LONGEST_WAIT)


async def listen(feed: Feed, number: int, symbols: tuple[str, ...]) -> None:
    """One connection: connect, subscribe *symbols*, report what comes; raises :class:`Lost` when the connection ends.

    Whoever runs this function also calls :func:`check_requests` once a second or so.
    """
    async with feed.network.connect(feed.url) as socket, trio.open_nursery() as nursery:
        outgoing, messages = trio.open_memory_channel[Message](1000)  # a connection's subscriptions, twice over
        now = trio.current_time()
        heard = dict.fromkeys(symbols, now)
        connection = Connection(number, symbols, outgoing, nursery.cancel_scope, now, heard, now)
        feed.connections[number] = connection
        feed.listener.connected(connection, feed.time.now())
        log.info("%s/%d: connected to %s", feed.venue.name, number, feed.url)
        try:
            name = f"{feed.venue.name}/sender {number}"
            nursery.start_soon(send_messages, socket, messages, feed.limits, name=name)
            # If all are given up they are all asked for again: on a new connection there is nothing else to ask for.
            ask(feed, connection, [one for one in symbols if feed.not_before.get(one, 0.0) <= now] or symbols)
            await read_messages(feed, connection, socket)
        finally:
            del feed.connections[number]
            feed.listener.disconnected(connection, feed.time.now())
    if connection.hung_up is not None:
        raise Lost(connection.hung_up)


async def send_messages(socket: Socket, messages: trio.MemoryReceiveChannel[Message], limits: Limits) -> None:
    """Send *messages* no faster than the venue allows; the wait for an acknowledgement begins once one was sent."""
    async for message in messages:
        log.debug("saying %s", message.text)
        await socket.send(message.text)
        for request in message.requests:
            request.asked_at = trio.current_time()
        await trio.sleep(1 / limits.messages_per_second)


async def read_messages(feed: Feed, connection: Connection, socket: Socket) -> None:
    """Read for ever; never waits for anything but the socket."""
    while True:
        messages = await socket.receive()
        connection.last_frame = trio.current_time()
        connection.pinged = False
        connection.received += len(messages)
        moment = feed.time.now()
        if connection.hung_up is not None:
            continue  # the clock has jumped: what was buffered meanwhile says nothing of now
        for message in messages:
            read_message(feed, connection, message, moment)


def read_message(feed: Feed, connection: Connection, message: str | bytes, moment: Millis) -> None:
    """Report what *message* says about symbols; act on what it says about the connection (:func:`act_on`)."""
    listener = feed.listener
    if isinstance(message, bytes):
        listener.remark("binary_message", f"{len(message)} bytes")
        return
    try:
        events = feed.venue.read(message)
    except Misunderstood as error:
        listener.remark(error.reason, printable(str(error)))
        return
    for event in events:
        symbol = getattr(event, "symbol", None)
        if isinstance(event, Unread):
            listener.remark(event.reason, printable(event.text))
            if symbol in connection.last_heard:
                listener.hear(event, moment)
        elif isinstance(event, _ABOUT_THE_CONNECTION):
            act_on(feed, connection, event)
        elif isinstance(event, Told):
            listener.hear(event, moment)
        elif symbol in connection.last_heard:
            connection.last_heard[symbol] = connection.last_frame
            note_data(connection, event)
            listener.hear(event, moment)
        elif symbol is not None:
            listener.remark("unknown_symbol", printable(repr(symbol)))


_ABOUT_THE_CONNECTION = (Acked, Refused, Notice, SystemStatus, Leaving, Skipped)


def act_on(feed: Feed, connection: Connection, event: Event) -> None:
    """An event about the connection itself."""
    name = f"{feed.venue.name}/{connection.number}"
    match event:
        case Acked(symbol, channel):
            acknowledged(feed, connection, symbol, channel)
        case Refused(_, text) | Notice(text) if re.search(feed.limits.too_fast, text, re.IGNORECASE):
            throttled(feed, connection, printable(text))
        case Refused(symbol, text):
            refused(feed, connection, symbol, printable(text))
        case Notice(text):
            log.warning("%s says: %s", name, printable(text))
            feed.listener.announced(printable(text))
        case SystemStatus(text):
            if text is not None:
                log.warning("%s: the venue is not in normal operation: %s", name, printable(text))
            feed.listener.doubted(connection.symbols, text and printable(text))
        case Leaving(text):
            feed.listener.announced(printable(text))
            connection.hang_up(f"the venue is leaving: {printable(text)}")
        case Skipped(reason):
            feed.listener.skipped(reason)


# --- the watchdog -----------------------------------------------------------------------------------------


def hang_up(feed: Feed, why: str) -> None:
    """End all connections of *feed*; each is made anew."""
    for connection in feed.connections.values():
        connection.hang_up(why)


async def watch(feed: Feed, state: VenueState) -> None:
    """Once a second: end silent connections, chase acknowledgements, settle minutes that are due; for ever."""
    while True:
        due = trio.current_time() + TICK
        await trio.sleep(TICK)
        late = trio.current_time() - due
        if late > feed.floor(0.5):
            # We were late, not the venue: the readers drain first, and our lateness does not count as its silence.
            for connection in feed.connections.values():
                connection.forgive(late)
            log.info("%s: the watchdog woke %.1f s late", feed.venue.name, late)
            continue
        for connection in list(feed.connections.values()):
            check_connection(feed, connection, trio.current_time())
        state.settle(feed.time.now())


def check_connection(feed: Feed, connection: Connection, now: float) -> None:
    """Act on what has been silent for too long on *connection* by *now* (trio's clock)."""
    limits, silent = feed.limits, now - connection.last_frame
    if silent >= feed.floor(limits.silence):
        connection.hang_up(f"silent for {silent:.0f} s")
    elif limits.ping_after is not None and silent >= limits.ping_after and not connection.pinged:
        connection.pinged = True
        ping(feed, connection)
    check_requests(feed, connection, now)
    check_symbols(feed, connection, now)
    check_stall(feed, connection, now)


def leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    """The exceptions in *group*, however deep."""
    found: list[BaseException] = []
    for error in group.exceptions:
        found += leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found
