"""One venue's nursery: listen, watch, reconnect.

::

    {venue}/socket n    keep_listening   one turn per connection: subscribe, check every ack, hear
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
from collections.abc import Awaitable, Callable, Iterable

import trio

from trio_candles.candles.model import Millis, printable
from trio_candles.clock import Time
from trio_candles.collector.subscriptions import (
    Connection,
    Feed,
    Saying,
    acknowledged,
    ask,
    check_requests,
    check_stall,
    check_symbols,
    ping,
    refused,
    throttled,
    told,
)
from trio_candles.collector.venue_state import VenueState
from trio_candles.collector.writer import Batch
from trio_candles.network.pacing import Backoff, Budget
from trio_candles.network.websocket import Network, Socket
from trio_candles.venues.protocol import (
    Acked,
    Doubt,
    Event,
    Leaving,
    Limits,
    Lost,
    Misunderstood,
    Refused,
    Skipped,
    Told,
    Venue,
)

__all__ = ["run_feed"]

log = logging.getLogger(__name__)

HEALTHY_SECONDS = 60.0
"""A connection that lasted so long was a good one: the next attempt starts without delay's history."""
LONGEST_WAIT = 60.0
"""For a reconnection, as promised."""
DRIFT_SECONDS = 2.0
"""Between trio's clock and the service's, from one look to the next: more means that the machine slept, or its clock
was set. Over a day they may well drift so far apart."""
TICK = 1.0


async def run_feed(
    venue: Venue,
    url: str,
    state: VenueState,
    network: Network,
    time: Time,
    verdicts: trio.MemorySendChannel[Batch],
    chance: random.Random,
    last_words: Callable[[Batch], object],
    fill: Callable[[VenueState], Awaitable[object]] | None,
) -> None:
    """Collect from *venue* until cancelled; then say the *last_words* and close *verdicts*."""
    feed = Feed(venue, url, state, network, time)
    symbols = tuple(state.assemblers)
    size = venue.limits.symbols_per_connection
    batches = [symbols[start : start + size] for start in range(0, len(symbols), size)]
    state.board.connections = len(batches)
    connects = Budget(venue.limits.connects_per_second, venue.limits.connects_burst)
    with verdicts:
        try:
            async with trio.open_nursery() as nursery:
                for number, batch in enumerate(batches):
                    backoff = Backoff(random.Random(chance.random()))
                    name = f"{venue.name}/socket {number}"
                    nursery.start_soon(keep_listening, feed, number, batch, connects, backoff, name=name)
                nursery.start_soon(watch, feed, name=f"{venue.name}/watchdog")
                if fill is not None:
                    nursery.start_soon(fill, state, name=f"{venue.name}/gaps")
                nursery.start_soon(send_verdicts, state, verdicts, name=f"{venue.name}/sender")
        finally:
            # Every minute that is over gets its verdict, also when we are being cancelled.
            state.settle_all(time.now())
            last_words(state.take())


async def send_verdicts(state: VenueState, verdicts: trio.MemorySendChannel[Batch]) -> None:
    """Pass on what the state has, for ever."""
    while True:
        await state.filled.wait()
        batch = state.take()
        try:
            await verdicts.send(batch)
        except trio.Cancelled:
            state.outbox[:0] = batch  # not sent: the feed's last words begin with it
            raise


# --- one connection ---------------------------------------------------------------------------------------


async def keep_listening(feed: Feed, number: int, symbols: tuple[str, ...], connects: Budget, backoff: Backoff) -> None:
    """Listen to *symbols* for ever, on one connection after another."""
    first = True
    while True:
        await connects.take()
        if not first:
            feed.state.board.reconnects += 1
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
    """How long a connection of *symbols* is not worth making: all are refused, and venues close it anyway."""
    wanted = min(feed.refused_until.get(symbol, 0.0) for symbol in symbols)
    return min(wanted - trio.current_time(), LONGEST_WAIT)


async def listen(feed: Feed, number: int, symbols: tuple[str, ...]) -> None:
    """One turn: connect, subscribe, hear until :class:`Lost`."""
    state, board = feed.state, feed.state.board
    async with feed.network.connect(feed.url) as socket, trio.open_nursery() as nursery:
        say, said = trio.open_memory_channel[Saying](1000)  # a connection's subscriptions, twice over
        now = trio.current_time()
        heard = dict.fromkeys(symbols, now)
        connection = feed.connections[number] = Connection(number, symbols, say, nursery.cancel_scope, now, heard, now)
        board.connections_up += 1
        if board.connected and board.up_since is None:
            board.up_since = feed.time.now()
        log.info("%s/%d: connected to %s", feed.venue.name, number, feed.url)
        try:
            nursery.start_soon(speak, socket, said, feed.limits, name=f"{feed.venue.name}/speaker {number}")
            # If all are refused they are all asked for again: on a new connection there is nothing else to say.
            ask(feed, connection, [one for one in symbols if feed.refused_until.get(one, 0.0) <= now] or symbols)
            await hear(feed, connection, socket)
        finally:
            del feed.connections[number]
            board.connections_up -= 1
            state.disconnected(symbols, feed.time.now())
            state.doubted(symbols, None)
    if connection.hung_up is not None:
        raise Lost(connection.hung_up)


async def speak(socket: Socket, said: trio.MemoryReceiveChannel[Saying], limits: Limits) -> None:
    """Send what there is to say, not faster than the venue allows; only what was sent can be acknowledged."""
    async for saying in said:
        log.debug("saying %s", saying.text)
        await socket.send(saying.text)
        for request in saying.requests:
            request.asked_at = trio.current_time()
        await trio.sleep(1 / limits.messages_per_second)


async def hear(feed: Feed, connection: Connection, socket: Socket) -> None:
    """Read for ever; never waits for anything but the socket."""
    while True:
        messages = await socket.receive()
        connection.last_frame = trio.current_time()
        connection.pinged = False
        moment = feed.time.now()
        for message in messages:
            hear_message(feed, connection, message, moment)


def hear_message(feed: Feed, connection: Connection, message: str | bytes, moment: Millis) -> None:
    """Pass on what *message* says: about symbols to the state, about the connection to :func:`heed`."""
    if isinstance(message, bytes):
        feed.state.remark("binary_message", f"{len(message)} bytes")
        return
    try:
        events = feed.venue.read(message)
    except Misunderstood as error:
        feed.state.remark(error.reason, printable(str(error)))
        return
    for event in events:
        symbol = getattr(event, "symbol", None)
        if symbol in connection.heard and not isinstance(event, _ABOUT_US):
            connection.heard[symbol] = connection.last_frame
            told(connection, event)
            feed.state.hear(event, moment)
        if isinstance(event, _ABOUT_US):
            heed(feed, connection, event)
        elif symbol is not None and symbol not in connection.heard:
            feed.state.remark("unknown_symbol", printable(repr(symbol)))


_ABOUT_US = (Acked, Refused, Told, Doubt, Leaving, Skipped)


def heed(feed: Feed, connection: Connection, event: Event) -> None:
    """An event about the connection itself."""
    name = f"{feed.venue.name}/{connection.number}"
    match event:
        case Acked(symbol, channel):
            acknowledged(feed, connection, symbol, channel)
        case Refused(_, text) | Told(text) if feed.limits.too_fast in text:
            throttled(feed, connection, printable(text))
        case Refused(symbol, text):
            refused(feed, connection, symbol, printable(text))
        case Told(text):
            log.warning("%s says: %s", name, printable(text))
        case Doubt(text):
            if text is not None:
                log.warning("%s: the venue is not in normal operation: %s", name, printable(text))
            feed.state.doubted(connection.symbols, text and printable(text))
        case Leaving(text):
            connection.hang_up(f"the venue is leaving: {printable(text)}")
        case Skipped(reason):
            feed.state.board.skipped[reason] += 1


# --- the watchdog -----------------------------------------------------------------------------------------


async def watch(feed: Feed) -> None:
    """Once a second: end silent connections, chase acknowledgements, settle minutes that are due; for ever."""
    drift = feed.time.now() / 1000 - trio.current_time()
    while True:
        due = trio.current_time() + TICK
        await trio.sleep(TICK)
        late = trio.current_time() - due
        if late > feed.floor(0.5):
            # We were held up, not the venue: the readers drain first, and our own lateness is nobody's silence.
            for connection in feed.connections.values():
                connection.forgive(late)
            log.info("%s: the watchdog woke %.1f s late", feed.venue.name, late)
            continue
        before, drift = drift, feed.time.now() / 1000 - trio.current_time()
        jumped = drift - before
        if abs(jumped) > feed.floor(DRIFT_SECONDS):
            log.error("%s: the clock jumped by %+.1f s (suspended, or set); reconnecting", feed.venue.name, jumped)
            for connection in feed.connections.values():
                connection.hang_up("the clock jumped")
        for connection in list(feed.connections.values()):
            check_line(feed, connection, trio.current_time())
        feed.state.settle(feed.time.now())


def check_line(feed: Feed, connection: Connection, now: float) -> None:
    """Judge one connection's silences."""
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
