"""What a venue was asked for: every subscription is acknowledged, asked for again, or loudly given up.

A symbol's subscription is a :class:`Request` in one of seven states::

    ask ──► TOGETHER ──5 s──► TOGETHER_AGAIN ──5 s──► ALONE ──5 s──► UNANSWERED
               ▲                     │
               └── another refused ──┘

    each of these ──acknowledged on every channel──► SUBSCRIBED ──silent──► SILENT
    any state   ──refused by name──► REFUSED ──acknowledged late──► SUBSCRIBED
    UNANSWERED, REFUSED, SILENT ──300 s──► TOGETHER_AGAIN

- TOGETHER: asked for in a message with others; TOGETHER_AGAIN: in such a message once more; ALONE: in a message of its
  own. The five seconds count from the moment at which the message was sent. After a refusal there is one second
  instead: one bad symbol may have spoiled its whole message. A refusal that names a symbol takes the symbol out of the
  message, and the other symbols are asked for together once more, however often they were; a refusal that names none
  leads to a message for each symbol.
- UNANSWERED, REFUSED, SILENT: given up. That is an error in the log and gaps in the ledger. When a symbol is SILENT is
  decided in :mod:`trio_candles.collector.silence`.
- A venue that finds us too fast has refused nothing: what is awaited goes back to TOGETHER, and its five seconds begin
  a minute later.

Invariant: on an open connection, every symbol is subscribed, or is awaited and has a time at which it is asked for
again or given up, or is given up and has a time at which it is tried again. No symbol is ever merely forgotten.

What becomes of all this is reported to a :class:`Listener`: the collector's assemblers, or preflight's findings.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Sequence
from enum import Enum, auto
from typing import Protocol

import attrs
import trio

from trio_candles.candles.model import Millis
from trio_candles.clock import Time
from trio_candles.network.pacing import wall_floor
from trio_candles.network.websocket import Network
from trio_candles.venues.protocol import Event, FeedProtocol, Limits

__all__ = [
    "Connection",
    "Feed",
    "Listener",
    "Message",
    "Request",
    "State",
    "acknowledged",
    "ask",
    "can_spare",
    "check_requests",
    "give_up",
    "ping",
    "refused",
    "throttled",
    "unsubscribe",
]

log = logging.getLogger(__name__)

ACK_SECONDS = 5.0
"""Allowed for an acknowledgement, from the moment at which the request was sent."""
SPOILED_SECONDS = 1.0
"""Allowed after a refusal for the acknowledgements of the symbols that it did not touch."""
THROTTLED_SECONDS = 60.0
"""Added to :data:`ACK_SECONDS` once the venue found us too fast."""
GIVEN_UP_SECONDS = 300.0
"""After which a symbol that was given up is asked for again: listings come and go."""
HOUR = 3600.0


class State(Enum):
    """What has become of a symbol that we asked for; see the module's drawing."""

    TOGETHER = auto()
    TOGETHER_AGAIN = auto()
    ALONE = auto()
    SUBSCRIBED = auto()
    UNANSWERED = auto()
    REFUSED = auto()
    SILENT = auto()


_GIVEN_UP = (State.UNANSWERED, State.REFUSED, State.SILENT)


@attrs.define
class Request:
    """A symbol that we asked for."""

    missing: set[str]
    """Channels not yet acknowledged."""
    state: State
    asked_at: float = float("inf")
    """When its message was sent, on trio's clock; until then no acknowledgement is due."""

    @property
    def given_up(self) -> bool:
        """Whether the symbol is asked for again only after a while."""
        return self.state in _GIVEN_UP

    @property
    def awaited(self) -> bool:
        """Whether an acknowledgement may come: asked for, and neither answered nor given up."""
        return self.state is not State.SUBSCRIBED and not self.given_up


@attrs.frozen
class Message:
    """A text to send, and the requests whose acknowledgement is awaited from then on."""

    text: str
    requests: tuple[Request, ...] = ()


@attrs.define
class Connection:
    """One connection's state: read and changed by its reader and by the venue's watchdog."""

    number: int
    symbols: tuple[str, ...]
    outgoing: trio.MemorySendChannel[Message]
    scope: trio.CancelScope
    last_frame: float
    last_heard: dict[str, float]
    """When each symbol was last mentioned, or last subscribed; all times here are on trio's clock."""
    last_data: float
    """When market data last came, or proof that there was none to come."""
    received: int = 0
    """Messages that came."""
    newest: dict[str, int] = attrs.field(factory=dict)
    """The id of the newest trade received of each symbol."""
    behind_since: dict[str, float] = attrs.field(factory=dict)
    """Since when the venue's heartbeats name a trade of a symbol that has not been received."""
    requests: dict[str, Request] = attrs.field(factory=dict)
    patience: dict[str, float] = attrs.field(factory=dict)
    """Seconds of silence until a symbol is subscribed anew; doubling."""
    remedied_at: float = float("-inf")
    changes: deque[float] = attrs.field(factory=deque)
    """When subscriptions were changed, in the last hour."""
    pinged: bool = False
    hung_up: str | None = None
    """Why we ended this connection, once we have."""

    def hang_up(self, why: str) -> None:
        """End this turn of the connection; its task reports it as lost."""
        if self.hung_up is None:
            self.hung_up = why
            self.scope.cancel()

    def forgive(self, late: float) -> None:
        """Do not count *late* seconds of our own as the venue's silence."""
        self.last_frame += late
        self.last_data += late
        self.behind_since = {symbol: moment + late for symbol, moment in self.behind_since.items()}
        self.last_heard = {symbol: moment + late for symbol, moment in self.last_heard.items()}
        for request in self.requests.values():
            request.asked_at += late


class Listener(Protocol):
    """To whom a venue's connections report; no method may wait. Times are the service's, texts are printable."""

    def connected(self, connection: Connection, now: Millis) -> None:
        """*connection* is open; its symbols are being asked for."""
        ...

    def disconnected(self, connection: Connection, now: Millis) -> None:
        """*connection* has ended, for whatever reason."""
        ...

    def became(self, symbol: str, state: State, text: str, now: Millis) -> None:
        """*symbol* is subscribed, or (at every try) given up: then *text* says why."""
        ...

    def hear(self, event: Event, now: Millis) -> None:
        """Market data of a symbol that the connection carries, or the symbol's heartbeat."""
        ...

    def doubted(self, symbols: Iterable[str], text: str | None) -> None:
        """The venue calls what it sends about *symbols* into question (*text*), or no longer (``None``)."""
        ...

    def announced(self, text: str) -> None:
        """The venue wrote *text* for people to read; nobody need act on it."""
        ...

    def remark(self, kind: str, text: str) -> None:
        """A message or an event was dropped; *kind* is fit for a counter."""
        ...

    def skipped(self, reason: str) -> None:
        """A message was understood and is of no use to us."""
        ...


@attrs.define
class Feed:
    """What the tasks of one venue's connections share."""

    venue: FeedProtocol
    url: str
    listener: Listener
    network: Network
    time: Time
    connections: dict[int, Connection] = attrs.field(factory=dict)
    """Those that are open, by number."""
    not_before: dict[str, float] = attrs.field(factory=dict)
    """When a symbol that was given up may be asked for again, on trio's clock."""
    blamed_at: dict[str, float] = attrs.field(factory=dict)
    """When a symbol's silence last cost its connection."""
    stalls: dict[int, tuple[int, float]] = attrs.field(factory=dict)
    """By the connection's number: how often in a row it was made anew for want of data, and when last."""
    requests_sent: int = 0

    @property
    def limits(self) -> Limits:
        """The limits of the venue's feed; decided in ``venues/{venue}/feed.py``."""
        return self.venue.limits

    def floor(self, seconds: float) -> float:
        """A network deadline: *seconds*, but never under a wall second."""
        return wall_floor(seconds, self.time.speed)


# --- asking -----------------------------------------------------------------------------------------------


def ask(feed: Feed, connection: Connection, symbols: Sequence[str], state: State = State.TOGETHER) -> None:
    """Ask for *symbols* in as few messages as the venue allows; their acknowledgements are awaited once sent."""
    feed.requests_sent += 1
    size = feed.limits.symbols_per_message
    for start in range(0, len(symbols), size):
        batch = symbols[start : start + size]
        requests = tuple(Request(set(feed.venue.channels), state) for _ in batch)
        connection.requests.update(zip(batch, requests, strict=True))
        _change(connection, feed.venue.subscribe(batch, feed.requests_sent), requests)


def unsubscribe(feed: Feed, connection: Connection, symbols: Sequence[str]) -> None:
    """End the subscriptions of *symbols*; nothing is awaited."""
    feed.requests_sent += 1
    _change(connection, feed.venue.unsubscribe(symbols, feed.requests_sent))


def ping(feed: Feed, connection: Connection) -> None:
    """Ask the venue whether it is there, if its protocol has a message for that."""
    if feed.venue.ping is not None:
        _send(connection, Message(feed.venue.ping))


def _change(connection: Connection, texts: Iterable[str], requests: tuple[Request, ...] = ()) -> None:
    for text in texts:
        connection.changes.append(trio.current_time())
        _send(connection, Message(text, requests))


def _send(connection: Connection, message: Message) -> None:
    try:
        connection.outgoing.send_nowait(message)
    except trio.WouldBlock:
        connection.hang_up("the connection does not take what we say")


def can_spare(feed: Feed, connection: Connection, now: float) -> bool:
    """Whether *connection* may send a change of subscriptions that can wait: half of the changes that the venue allows
    in an hour are kept for those that cannot. *now* is on trio's clock.
    """
    while connection.changes and connection.changes[0] <= now - HOUR:
        connection.changes.popleft()
    most = feed.limits.changes_per_hour
    return most is None or len(connection.changes) < most / 2


# --- what the venue answers -------------------------------------------------------------------------------


def acknowledged(feed: Feed, connection: Connection, symbol: str, channel: str) -> None:
    """Note that *channel* is acknowledged; a symbol of which all are is subscribed, also if it was given up."""
    request = connection.requests.get(symbol)
    if request is None or channel not in request.missing:
        return  # Coinbase lists all current subscriptions in every acknowledgement
    request.missing.discard(channel)
    if not request.missing:
        request.state = State.SUBSCRIBED
        feed.not_before.pop(symbol, None)
        feed.listener.became(symbol, State.SUBSCRIBED, "", feed.time.now())
        connection.last_heard[symbol] = trio.current_time()
        log.info("%s/%d: %s is subscribed", feed.venue.name, connection.number, symbol)


def refused(feed: Feed, connection: Connection, symbol: str | None, text: str) -> None:
    """Give up *symbol* for a while; one bad symbol may have spoiled its whole message, so see to the others."""
    named = connection.requests.get(symbol) if symbol is not None else None
    news = named is not None and not named.given_up
    if named is not None and symbol is not None:
        give_up(feed, connection, symbol, State.REFUSED, text)
    else:
        log.error("%s/%d: refused: %s", feed.venue.name, connection.number, text)
        feed.listener.announced(f"refused: {text}")
    due = trio.current_time() - feed.floor(ACK_SECONDS) + feed.floor(SPOILED_SECONDS)
    for request in _awaited(connection):
        if request.state is not State.ALONE:
            request.asked_at = min(request.asked_at, due)
            if news:  # the others have not yet been asked for without that one
                request.state = State.TOGETHER


def throttled(feed: Feed, connection: Connection, text: str) -> None:
    """The venue found us too fast, which is no refusal: later, ask again for what it dropped, in shared messages."""
    log.warning("%s/%d: too fast: %s", feed.venue.name, connection.number, text)
    feed.listener.announced(f"too fast: {text}")
    for request in _awaited(connection):
        request.asked_at = trio.current_time() + THROTTLED_SECONDS
        request.state = State.TOGETHER


def _awaited(connection: Connection) -> Iterable[Request]:
    """Requests that were sent and not yet answered."""
    for request in connection.requests.values():
        if request.awaited and request.asked_at != float("inf"):
            yield request


def give_up(feed: Feed, connection: Connection, symbol: str, state: State, text: str) -> None:
    """*symbol* is UNANSWERED, REFUSED or SILENT (*state*), *text* says how: report it, and try again in 300 s."""
    request, now = connection.requests[symbol], trio.current_time()
    early = now < feed.not_before.get(symbol, 0.0)  # a new connection had nothing else to ask for: no news
    if not request.given_up:
        log.log(
            logging.INFO if early else logging.ERROR,
            "%s/%d: %s is refused: %s; its minutes are gaps, it is asked for again within %.0f minutes",
            feed.venue.name, connection.number, symbol, text, GIVEN_UP_SECONDS / 60,
        )  # fmt: skip
    request.state = state
    if not early:
        feed.not_before[symbol] = now + GIVEN_UP_SECONDS
    feed.listener.became(symbol, state, text, feed.time.now())


def check_requests(feed: Feed, connection: Connection, now: float) -> None:
    """Take the step that is due *now* (trio's clock) for each symbol: ask again, ask alone, give up, try once more."""
    together: list[str] = []
    for symbol in connection.symbols:
        request = connection.requests.get(symbol)
        if request is None or request.given_up:
            if feed.not_before.get(symbol, 0.0) <= now and can_spare(feed, connection, now):
                together.append(symbol)
        elif request.awaited and now - request.asked_at >= feed.floor(ACK_SECONDS):
            if request.state is State.TOGETHER:
                together.append(symbol)
            elif request.state is State.TOGETHER_AGAIN:
                ask(feed, connection, [symbol], State.ALONE)
            else:
                channels = ", ".join(sorted(request.missing))
                give_up(feed, connection, symbol, State.UNANSWERED, f"no acknowledgement of {channels}")
    if together:
        ask(feed, connection, together, State.TOGETHER_AGAIN)
