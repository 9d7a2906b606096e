"""One venue's nursery: listen, watch, reconnect.

::

    {venue}/socket n    keep_listening   one turn per connection: subscribe, check every ack, hear
    {venue}/watchdog    watch            once a second: silence per socket and per symbol, acks, due minutes
    {venue}/gaps        fill             open gaps → REST → verdicts (trio_candles.gapfill)
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

from trio_candles.clock import Time
from trio_candles.desk import Desk
from trio_candles.model import Millis, printable
from trio_candles.network import Backoff, Budget, Network, Socket
from trio_candles.subscriptions import (
    Feed,
    Line,
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
from trio_candles.writer import Batch

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
    desk: Desk,
    network: Network,
    time: Time,
    verdicts: trio.MemorySendChannel[Batch],
    chance: random.Random,
    last_words: Callable[[Batch], object],
    fill: Callable[[Desk], Awaitable[object]] | None,
) -> None:
    """Collect from *venue* until cancelled; then say the *last_words* and close *verdicts*."""
    feed = Feed(venue, url, desk, network, time)
    symbols = tuple(desk.assemblers)
    size = venue.limits.symbols_per_connection
    batches = [symbols[start : start + size] for start in range(0, len(symbols), size)]
    desk.board.lines = len(batches)
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
                    nursery.start_soon(fill, desk, name=f"{venue.name}/gaps")
                nursery.start_soon(send_verdicts, desk, verdicts, name=f"{venue.name}/sender")
        finally:
            # Every minute that is over gets its verdict, also when we are being cancelled.
            desk.settle_all(time.now())
            last_words(desk.take())


async def send_verdicts(desk: Desk, verdicts: trio.MemorySendChannel[Batch]) -> None:
    """Pass on what the desk has, for ever."""
    while True:
        await desk.filled.wait()
        batch = desk.take()
        try:
            await verdicts.send(batch)
        except trio.Cancelled:
            desk.outbox[:0] = batch  # not sent: the feed's last words begin with it
            raise


# --- one connection ---------------------------------------------------------------------------------------


async def keep_listening(feed: Feed, number: int, symbols: tuple[str, ...], connects: Budget, backoff: Backoff) -> None:
    """Listen to *symbols* for ever, on one connection after another."""
    first = True
    while True:
        await connects.take()
        if not first:
            feed.desk.board.reconnects += 1
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
    desk, board = feed.desk, feed.desk.board
    async with feed.network.connect(feed.url) as socket, trio.open_nursery() as nursery:
        say, said = trio.open_memory_channel[Saying](1000)  # a connection's subscriptions, twice over
        now = trio.current_time()
        heard = dict.fromkeys(symbols, now)
        line = feed.lines[number] = Line(number, symbols, say, nursery.cancel_scope, now, heard, now)
        board.lines_up += 1
        if board.connected and board.up_since is None:
            board.up_since = feed.time.now()
        log.info("%s/%d: connected to %s", feed.venue.name, number, feed.url)
        try:
            nursery.start_soon(speak, socket, said, feed.limits, name=f"{feed.venue.name}/speaker {number}")
            # If all are refused they are all asked for again: on a new connection there is nothing else to say.
            ask(feed, line, [one for one in symbols if feed.refused_until.get(one, 0.0) <= now] or symbols)
            await hear(feed, line, socket)
        finally:
            del feed.lines[number]
            board.lines_up -= 1
            desk.disconnected(symbols, feed.time.now())
            desk.doubted(symbols, None)
    if line.hung_up is not None:
        raise Lost(line.hung_up)


async def speak(socket: Socket, said: trio.MemoryReceiveChannel[Saying], limits: Limits) -> None:
    """Send what there is to say, not faster than the venue allows; only what was sent can be acknowledged."""
    async for saying in said:
        log.debug("saying %s", saying.text)
        await socket.send(saying.text)
        for request in saying.requests:
            request.asked_at = trio.current_time()
        await trio.sleep(1 / limits.messages_per_second)


async def hear(feed: Feed, line: Line, socket: Socket) -> None:
    """Read for ever; never waits for anything but the socket."""
    while True:
        messages = await socket.receive()
        line.last_frame = trio.current_time()
        line.pinged = False
        moment = feed.time.now()
        for message in messages:
            hear_message(feed, line, message, moment)


def hear_message(feed: Feed, line: Line, message: str | bytes, moment: Millis) -> None:
    """Pass on what *message* says: about symbols to the desk, about the connection to :func:`heed`."""
    if isinstance(message, bytes):
        feed.desk.remark("binary_message", f"{len(message)} bytes")
        return
    try:
        events = feed.venue.read(message)
    except Misunderstood as error:
        feed.desk.remark(error.reason, printable(str(error)))
        return
    for event in events:
        symbol = getattr(event, "symbol", None)
        if symbol in line.heard and not isinstance(event, _ABOUT_US):
            line.heard[symbol] = line.last_frame
            told(line, event)
            feed.desk.hear(event, moment)
        if isinstance(event, _ABOUT_US):
            heed(feed, line, event)
        elif symbol is not None and symbol not in line.heard:
            feed.desk.remark("unknown_symbol", printable(repr(symbol)))


_ABOUT_US = (Acked, Refused, Told, Doubt, Leaving, Skipped)


def heed(feed: Feed, line: Line, event: Event) -> None:
    """An event about the connection itself."""
    name = f"{feed.venue.name}/{line.number}"
    match event:
        case Acked(symbol, channel):
            acknowledged(feed, line, symbol, channel)
        case Refused(_, text) | Told(text) if feed.limits.too_fast in text:
            throttled(feed, line, printable(text))
        case Refused(symbol, text):
            refused(feed, line, symbol, printable(text))
        case Told(text):
            log.warning("%s says: %s", name, printable(text))
        case Doubt(text):
            if text is not None:
                log.warning("%s: the venue is not in normal operation: %s", name, printable(text))
            feed.desk.doubted(line.symbols, text and printable(text))
        case Leaving(text):
            line.hang_up(f"the venue is leaving: {printable(text)}")
        case Skipped(reason):
            feed.desk.board.skipped[reason] += 1


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
            for line in feed.lines.values():
                line.forgive(late)
            log.info("%s: the watchdog woke %.1f s late", feed.venue.name, late)
            continue
        before, drift = drift, feed.time.now() / 1000 - trio.current_time()
        jumped = drift - before
        if abs(jumped) > feed.floor(DRIFT_SECONDS):
            log.error("%s: the clock jumped by %+.1f s (suspended, or set); reconnecting", feed.venue.name, jumped)
            for line in feed.lines.values():
                line.hang_up("the clock jumped")
        for line in list(feed.lines.values()):
            check_line(feed, line, trio.current_time())
        feed.desk.settle(feed.time.now())


def check_line(feed: Feed, line: Line, now: float) -> None:
    """Judge one connection's silences."""
    limits, silent = feed.limits, now - line.last_frame
    if silent >= feed.floor(limits.silence):
        line.hang_up(f"silent for {silent:.0f} s")
    elif limits.ping_after is not None and silent >= limits.ping_after and not line.pinged:
        line.pinged = True
        ping(feed, line)
    check_requests(feed, line, now)
    check_symbols(feed, line, now)
    check_stall(feed, line, now)


def leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    """The exceptions in *group*, however deep."""
    found: list[BaseException] = []
    for error in group.exceptions:
        found += leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found
