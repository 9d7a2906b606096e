"""What a venue was asked for: every subscription is acknowledged, asked for again, or loudly refused.

A symbol is asked for with the others; without an acknowledgement once more so, then in a message of its own, and
then it counts as refused: an error in the log, gaps in the ledger, and another attempt within five minutes. A named
refusal takes one symbol out of the message that it spoiled; the rest is asked for again at once, still together.

Of a symbol that falls silent, the venue's limits say whether that proves a fault (Coinbase beats once a second for
each product) or is a suspicion (OKX). A proof costs the connection, but only once in an hour for one symbol, and
only its own minutes after that.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Sequence

import attrs
import trio

from trio_candles.clock import Time
from trio_candles.collector.venue_state import VenueState
from trio_candles.network.pacing import wall_floor
from trio_candles.network.websocket import Network
from trio_candles.venues.protocol import Beat, Event, Forming, Limits, Row, Seen, Traded, Venue

__all__ = [
    "Connection",
    "Feed",
    "Request",
    "Saying",
    "acknowledged",
    "ask",
    "check_requests",
    "check_stall",
    "check_symbols",
    "ping",
    "refused",
    "throttled",
    "told",
]

log = logging.getLogger(__name__)

ACK_SECONDS = 5.0
"""For an acknowledgement, from the moment at which the request was sent."""
SPOILED_SECONDS = 1.0
"""After a refusal, for the acknowledgements of those others that it did not touch."""
THROTTLED_SECONDS = 60.0
"""Without asking again, once the venue found us too fast."""
REFUSED_SECONDS = 300.0
"""After which a refused symbol is asked for again: listings come and go."""
BLAME_SECONDS = 3600.0
"""In which one symbol's silence may cost its connection once: a second time it is the symbol's own."""
REMEDY_SECONDS = 60.0
"""Between two rounds of subscribing anew on one connection: all suspects share its messages."""
RAREST_REMEDY = 3600.0
"""Of silence, at most, before a symbol is subscribed anew."""
STALLED_SECONDS = 120.0
"""Without market data on a connection that is otherwise alive, until it is made anew; where silent symbols are
subscribed anew, twice as long as until that. A market may be so quiet: each time the patience doubles, up to an hour,
and is short again after six hours without need."""
STALLS_FORGOTTEN = 6 * 3600.0
HOUR = 3600.0

_TOGETHER, _TOGETHER_AGAIN, _ALONE = 1, 2, 3


@attrs.define
class Request:
    """A symbol that we asked for."""

    missing: set[str]
    """Channels not yet acknowledged."""
    stage: int
    """Asked with the others, with the others again, or in a message of its own."""
    asked_at: float = float("inf")
    """When its message was sent; until then it is not due."""
    refused: bool = False


@attrs.frozen
class Saying:
    """A text to send, and the requests whose acknowledgement is awaited from then on."""

    text: str
    requests: tuple[Request, ...] = ()


@attrs.define
class Connection:
    """One connection's state: read and changed by its reader and by the venue's watchdog."""

    number: int
    symbols: tuple[str, ...]
    say: trio.MemorySendChannel[Saying]
    scope: trio.CancelScope
    last_frame: float
    heard: dict[str, float]
    """When each symbol was last spoken of, or last subscribed."""
    last_data: float
    """When market data last came, or proof that there was none to come."""
    newest: dict[str, int] = attrs.field(factory=dict)
    """The newest trade heard of each symbol."""
    owed: dict[str, float] = attrs.field(factory=dict)
    """Since when the venue's heartbeats name a trade of a symbol that it has not told us."""
    requests: dict[str, Request] = attrs.field(factory=dict)
    patience: dict[str, float] = attrs.field(factory=dict)
    """Seconds of silence until a symbol is subscribed anew; doubling."""
    remedied_at: float = float("-inf")
    messages: deque[float] = attrs.field(factory=deque)
    """When subscriptions were changed, in the last hour."""
    pinged: bool = False
    hung_up: str | None = None

    def hang_up(self, why: str) -> None:
        """End this turn of the connection; its task reports it as lost."""
        if self.hung_up is None:
            self.hung_up = why
            self.scope.cancel()

    def forgive(self, late: float) -> None:
        """Do not count *late* seconds of our own as the venue's silence."""
        self.last_frame += late
        self.last_data += late
        self.owed = {symbol: moment + late for symbol, moment in self.owed.items()}
        self.heard = {symbol: moment + late for symbol, moment in self.heard.items()}
        for request in self.requests.values():
            request.asked_at += late


@attrs.define
class Feed:
    """What the tasks of one venue share."""

    venue: Venue
    url: str
    state: VenueState
    network: Network
    time: Time
    connections: dict[int, Connection] = attrs.field(factory=dict)
    refused_until: dict[str, float] = attrs.field(factory=dict)
    """Symbols not to be asked for before that time."""
    blamed_at: dict[str, float] = attrs.field(factory=dict)
    """When a symbol's silence last cost its connection."""
    stalls: dict[int, tuple[int, float]] = attrs.field(factory=dict)
    """By the connection's number: how often in a row it was made anew for want of data, and when last."""
    requests_sent: int = 0

    @property
    def limits(self) -> Limits:
        """The venue's."""
        return self.venue.limits

    def floor(self, seconds: float) -> float:
        """A network deadline: *seconds*, but never under a wall second."""
        return wall_floor(seconds, self.time.speed)


# --- asking -----------------------------------------------------------------------------------------------


def ask(feed: Feed, connection: Connection, symbols: Sequence[str], stage: int = _TOGETHER) -> None:
    """Ask for *symbols* in as few messages as the venue allows; their acknowledgements are awaited once sent."""
    feed.requests_sent += 1
    size = feed.limits.symbols_per_message
    for start in range(0, len(symbols), size):
        batch = symbols[start : start + size]
        requests = tuple(Request(set(feed.venue.channels), stage) for _ in batch)
        connection.requests.update(zip(batch, requests, strict=True))
        _change(connection, feed.venue.subscribe(batch, feed.requests_sent), requests)


def _unsubscribe(feed: Feed, connection: Connection, symbols: Sequence[str]) -> None:
    feed.requests_sent += 1
    _change(connection, feed.venue.unsubscribe(symbols, feed.requests_sent))


def ping(feed: Feed, connection: Connection) -> None:
    """Ask the venue whether it is there, if it wants to be asked."""
    if feed.venue.ping is not None:
        _say(connection, Saying(feed.venue.ping))


def _change(connection: Connection, texts: Iterable[str], requests: tuple[Request, ...] = ()) -> None:
    for text in texts:
        connection.messages.append(trio.current_time())
        _say(connection, Saying(text, requests))


def _say(connection: Connection, saying: Saying) -> None:
    try:
        connection.say.send_nowait(saying)
    except trio.WouldBlock:
        connection.hang_up("the connection does not take what we say")


def _can_spare(feed: Feed, connection: Connection, now: float) -> bool:
    """Whether the connection may say what it need not: half of an hour's messages are kept for what it must."""
    while connection.messages and connection.messages[0] <= now - HOUR:
        connection.messages.popleft()
    most = feed.limits.changes_per_hour
    return most is None or len(connection.messages) < most / 2


# --- what the venue answers -------------------------------------------------------------------------------


def acknowledged(feed: Feed, connection: Connection, symbol: str, channel: str) -> None:
    """Take note; a symbol whose channels are all there is subscribed, also if that comes late."""
    request = connection.requests.get(symbol)
    if request is None or channel not in request.missing:
        return  # Coinbase lists all current subscriptions in every acknowledgement
    request.missing.discard(channel)
    if not request.missing:
        request.refused = False
        feed.refused_until.pop(symbol, None)
        feed.state.assemblers[symbol].connected(feed.time.now())
        connection.heard[symbol] = trio.current_time()
        log.info("%s/%d: %s is subscribed", feed.venue.name, connection.number, symbol)


def refused(feed: Feed, connection: Connection, symbol: str | None, text: str) -> None:
    """Give up *symbol* for a while; one bad symbol may have spoiled its whole message, so see to the others."""
    named = connection.requests.get(symbol) if symbol is not None else None
    news = named is not None and not named.refused
    if named is not None and symbol is not None:
        _refuse(feed, connection, symbol, text)
    else:
        log.error("%s/%d: refused: %s", feed.venue.name, connection.number, text)
    due = trio.current_time() - feed.floor(ACK_SECONDS) + feed.floor(SPOILED_SECONDS)
    for request in _awaited(connection):
        if request.stage != _ALONE:
            request.asked_at = min(request.asked_at, due)
            if news:  # they have not yet been asked for without that one
                request.stage = _TOGETHER


def throttled(feed: Feed, connection: Connection, text: str) -> None:
    """The venue found us too fast, which is no refusal: ask for what it dropped later, and together."""
    log.warning("%s/%d: too fast: %s", feed.venue.name, connection.number, text)
    for request in _awaited(connection):
        request.asked_at = trio.current_time() + THROTTLED_SECONDS
        request.stage = _TOGETHER


def _awaited(connection: Connection) -> Iterable[Request]:
    """Requests that were sent and not yet answered."""
    for request in connection.requests.values():
        if request.missing and not request.refused and request.asked_at != float("inf"):
            yield request


def _refuse(feed: Feed, connection: Connection, symbol: str, text: str) -> None:
    request, now = connection.requests[symbol], trio.current_time()
    early = now < feed.refused_until.get(symbol, 0.0)  # a new connection had nothing else to ask for: no news
    if not request.refused:
        log.log(
            logging.INFO if early else logging.ERROR,
            "%s/%d: %s is refused: %s; its minutes are gaps, it is asked for again within %.0f minutes",
            feed.venue.name, connection.number, symbol, text, REFUSED_SECONDS / 60,
        )  # fmt: skip
    request.refused = True
    if not early:
        feed.refused_until[symbol] = now + REFUSED_SECONDS
    feed.state.assemblers[symbol].refused(text)


def check_requests(feed: Feed, connection: Connection, now: float) -> None:
    """Ask again for what was not acknowledged, then alone; then call it refused; later, try once more."""
    together: list[str] = []
    for symbol in connection.symbols:
        request = connection.requests.get(symbol)
        if request is None or request.refused:
            if feed.refused_until.get(symbol, 0.0) <= now and _can_spare(feed, connection, now):
                together.append(symbol)
        elif request.missing and now - request.asked_at >= feed.floor(ACK_SECONDS):
            if request.stage == _TOGETHER:
                together.append(symbol)
            elif request.stage == _TOGETHER_AGAIN:
                ask(feed, connection, [symbol], _ALONE)
            else:
                _refuse(feed, connection, symbol, f"no acknowledgement of {', '.join(sorted(request.missing))}")
    if together:
        ask(feed, connection, together, _TOGETHER_AGAIN)


# --- stalled connections ----------------------------------------------------------------------------------


def told(connection: Connection, event: Event) -> None:
    """Take note that *event* came: market data, or a heartbeat by which there is none that we have not heard."""
    match event:
        case Traded(symbol, trade):
            connection.newest[symbol] = max(connection.newest.get(symbol, 0), trade.trade_id)
        case Beat(symbol, _, last_trade_id) if last_trade_id != connection.newest.get(symbol):
            if last_trade_id > connection.newest.get(symbol, last_trade_id):
                connection.owed.setdefault(symbol, connection.last_frame)
            return
        case Beat(symbol):
            connection.owed.pop(symbol, None)
        case Seen() | Row() | Forming():
            pass
        case _:
            return
    connection.last_data = connection.last_frame


def check_stall(feed: Feed, connection: Connection, now: float) -> None:
    """Make a connection anew that lives, and brings no market data."""
    count, last = feed.stalls.get(connection.number, (0, float("-inf")))
    if now - last >= STALLS_FORGOTTEN:
        count = 0
    anew = feed.limits.symbol_remedy == "resubscribe" and feed.limits.symbol_silence
    patience = min((2 * anew if anew else STALLED_SECONDS) * 2**count, RAREST_REMEDY)
    silent = now - min([connection.last_data, *connection.owed.values()])
    if silent >= feed.floor(patience):
        feed.stalls[connection.number] = (min(count + 1, 10), now)
        connection.hang_up(f"no market data for {silent:.0f} s, though the venue is there")


# --- silent symbols ---------------------------------------------------------------------------------------


def check_symbols(feed: Feed, connection: Connection, now: float) -> None:
    """Do something about subscribed symbols that are silent for too long."""
    limit = feed.limits.symbol_silence
    if limit is None:
        return
    silences = {
        symbol: now - connection.heard[symbol]
        for symbol, request in connection.requests.items()
        if not request.missing and not request.refused
    }
    silent = [symbol for symbol, silence in silences.items() if silence >= feed.floor(limit)]
    if not silent:
        return
    if feed.limits.symbol_remedy == "resubscribe":
        _subscribe_anew(feed, connection, silent, now)
    elif min(silences.values()) >= feed.floor(limit / 2):
        connection.hang_up(f"no symbol has spoken for {min(silences.values()):.0f} s")
    else:
        _blame(feed, connection, silent, now)


def _blame(feed: Feed, connection: Connection, silent: Sequence[str], now: float) -> None:
    """Others speak: give *silent* symbols one new connection, and whoever had one already up for a while."""
    again = [symbol for symbol in silent if now - feed.blamed_at.get(symbol, float("-inf")) < BLAME_SECONDS]
    for symbol in again:
        _refuse(feed, connection, symbol, f"silent for {now - connection.heard[symbol]:.0f} s, on a new connection too")
        feed.state.assemblers[symbol].disconnected(feed.time.now())
    if again:
        _unsubscribe(feed, connection, again)
    feed.blamed_at.update(dict.fromkeys(silent, now))
    fresh = [symbol for symbol in silent if symbol not in again]
    if fresh:
        connection.hang_up(f"silent for {now - connection.heard[fresh[0]]:.0f} s: {', '.join(fresh)}")


def _subscribe_anew(feed: Feed, connection: Connection, silent: Sequence[str], now: float) -> None:
    """Only a suspicion: subscribe *silent* symbols anew, together and ever more rarely; leave the others alone."""
    patience = feed.limits.symbol_silence or 0.0
    due = [symbol for symbol in silent if now - connection.heard[symbol] >= connection.patience.get(symbol, patience)]
    if not due or now - connection.remedied_at < REMEDY_SECONDS or not _can_spare(feed, connection, now):
        return
    connection.remedied_at = now
    log.warning("%s/%d: silent, subscribing anew: %s", feed.venue.name, connection.number, ", ".join(due))
    for symbol in due:
        connection.patience[symbol] = min(2 * connection.patience.get(symbol, patience), RAREST_REMEDY)
        connection.heard[symbol] = now
    _unsubscribe(feed, connection, due)
    ask(feed, connection, due)
