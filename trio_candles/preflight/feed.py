"""A venue's WebSocket: can it be had, is every symbol acknowledged, does data come?

Each connection is one turn of the collector's own feed (:func:`trio_candles.collector.feed.listen`): dialled, asked,
paced and read by the same code, in the same batches, with the same second attempts for what is not acknowledged. So
preflight reports what the collector would meet. Only the listener is another one: it keeps what was found instead of
assembling candles.

A connection is listened to until every symbol has shown a trade of the last minute (most venues begin with the
newest ones), or is known to fail, or until there is no time left.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import attrs
import trio

from trio_candles.candles.model import Millis
from trio_candles.collector.feed import leaves, listen
from trio_candles.collector.subscriptions import Connection, Feed, State, check_requests
from trio_candles.network.pacing import Budget
from trio_candles.preflight.visit import Visit, host_of, look_up_host
from trio_candles.venues.protocol import Event, Forming, Heartbeat, Lost, Row, Traded, TradeSeen

__all__ = ["check_feed"]

PAUSES = (1.0, 2.0, 4.0)
"""Seconds before the next attempts at a connection: connections are lost now and then, on any day."""
ANSWER_SECONDS = 3.0
"""For the acknowledgement of a second request; with the five seconds of the first, eight together."""
RECENT_MS = 60_000
"""A trade up to this age shows that a market is alive; most venues send the newest trade at once."""
TICK_SECONDS = 0.25

_NETWORK = (
    "see what it says; check firewall, proxy and websocket_url; a proxy that inspects TLS needs its authority trusted"
)


@attrs.define
class _Symbol:
    """What was found about one symbol."""

    refused: str | None = None
    """The venue's words."""
    last_trade: Millis | None = None
    alive: bool = False
    """Whether a trade of the last minute was received."""


@attrs.define
class _Attempt:
    """What was found on one connection; the feed's listener."""

    symbols: dict[str, _Symbol]
    dialled: float | None = None
    """Seconds that dialling took, TLS included."""
    connection: Connection | None = None
    """The open connection; once it has ended, its last state."""
    opened_at: float = float("inf")
    lost: str | None = None
    """Why the connection ended before we had heard enough."""
    unread: list[str] = attrs.field(factory=list)
    """What was wrong with each message that could not be read."""
    remarks: list[str] = attrs.field(factory=list)
    doubt: str | None = None

    def state(self, symbol: str) -> State:
        """The state of the request for *symbol*; REFUSED once it was refused, also while it is asked for again."""
        assert self.connection is not None
        return State.REFUSED if self.symbols[symbol].refused is not None else self.connection.requests[symbol].state

    def waits(self, now: float, patience: float) -> bool:
        """Whether anything may still change a verdict; *patience* is :data:`ANSWER_SECONDS`, stretched."""
        if self.connection is None:
            return True
        for symbol, found in self.symbols.items():
            request, state = self.connection.requests[symbol], self.state(symbol)
            if state is State.SUBSCRIBED:
                waits = not found.alive
            elif state is State.TOGETHER:
                waits = True
            else:
                waits = state in (State.TOGETHER_AGAIN, State.ALONE) and now - request.asked_at <= patience
            if waits:
                return True
        return False

    # --- what the feed reports

    def connected(self, connection: Connection, now: Millis) -> None:
        self.connection, self.opened_at = connection, trio.current_time()

    def disconnected(self, connection: Connection, now: Millis) -> None:
        pass  # how it ended is what listen() raises

    def became(self, symbol: str, state: State, text: str, now: Millis) -> None:
        if state is State.REFUSED and self.symbols[symbol].refused is None:
            self.symbols[symbol].refused = text

    def hear(self, event: Event, now: Millis) -> None:
        match event:
            case Traded(symbol, trade):
                time = trade.time
            case TradeSeen(symbol, _, time):
                pass
            case Forming(symbol):
                time = now  # pushed when something traded
            case Row(symbol=symbol):
                # A row of a minute long ago is a snapshot's; of one without volume, a quiet market's.
                time = min(now, event.close_time) if event.volume else Millis(0)
            case Heartbeat() | _:
                return  # a heartbeat comes from a market in which nothing happens, too
        found = self.symbols[symbol]
        found.last_trade = max(found.last_trade or Millis(0), time)
        found.alive = found.alive or time >= now - RECENT_MS

    def doubted(self, symbols: Iterable[str], text: str | None) -> None:
        self.doubt = text

    def announced(self, text: str) -> None:
        self.remarks.append(text)

    def remark(self, kind: str, text: str) -> None:
        if kind != "unknown_symbol":
            self.unread.append("a binary message" if kind == "binary_message" else text)

    def skipped(self, reason: str) -> None:
        pass  # nothing that preflight is about


async def check_feed(visit: Visit) -> None:
    """All connections that the venue's symbols need, side by side."""
    if not await look_up_host(visit, visit.websocket_url):
        return
    limits, symbols = visit.feed.limits, visit.settings.symbols
    size = limits.symbols_per_connection
    batches = [symbols[start : start + size] for start in range(0, len(symbols), size)]
    connects = Budget(limits.connects_per_second, limits.connects_burst)
    async with trio.open_nursery() as nursery:
        for number, batch in enumerate(batches, 1):
            label = f"websocket {number}" if len(batches) > 1 else "websocket"
            nursery.start_soon(_check_connection, visit, label, batch, connects, name=f"{visit.feed.name}/{label}")


async def _check_connection(visit: Visit, label: str, batch: Sequence[str], connects: Budget) -> None:
    """Verdicts on one connection and its symbols; a few attempts, if it is lost."""
    checks, url, began = visit.checks, visit.websocket_url, trio.current_time()
    attempts: list[_Attempt] = []
    with trio.move_on_at(visit.deadline):
        for pause in (*PAUSES, None):
            attempt = _Attempt({symbol: _Symbol() for symbol in batch})
            attempts.append(attempt)
            await connects.take()
            await _try(visit, attempt)
            if attempt.lost is None or pause is None:
                break
            await trio.sleep(visit.pace.seconds(pause))
    attempt, losses = attempts[-1], [one.lost for one in attempts if one.lost is not None]
    dialled = [one.dialled for one in attempts if one.dialled is not None]
    if dialled:
        what = "TCP and TLS" if url.startswith("wss:") else "TCP"
        checks.passed("connect", f"{what} to {host_of(url)} in {visit.pace.wall_text(dialled[-1])}")
    if attempt.connection is None and attempt.lost is None:
        losses.append(f"{url}: not finished after {visit.pace.wall_text(trio.current_time() - began)}")
    if attempt.connection is None or attempt.lost is not None:
        checks.failed(label, f"{'; then: '.join(dict.fromkeys(losses))} ({len(attempts)} attempts)", _NETWORK)
    elif losses:
        checks.warned(label, f"{url} is open, after {len(losses)} losses: {losses[-1]}", _NETWORK)
    else:
        checks.passed(label, f"{url} is open")
    if attempt.connection is not None:
        _judge(visit, attempt, attempt.connection)


async def _try(visit: Visit, attempt: _Attempt) -> None:
    """Connect, ask and listen, as long as a verdict may change; note in *attempt* why the connection was lost."""

    async def dial(url: str) -> trio.abc.Stream:
        began = trio.current_time()
        stream = await visit.network.dial(url)
        attempt.dialled = trio.current_time() - began
        return stream

    network = attrs.evolve(visit.network, dial=dial)
    feed = Feed(visit.feed, visit.websocket_url, attempt, network, visit.time)
    patience = visit.pace.seconds(ANSWER_SECONDS)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen, feed, 1, tuple(attempt.symbols))
            # Polled, and not ended by an event: the passing of time alone may end it.
            while attempt.waits(trio.current_time(), patience):
                await trio.sleep(visit.pace.seconds(TICK_SECONDS))
                for connection in feed.connections.values():
                    check_requests(feed, connection, trio.current_time())
            nursery.cancel_scope.cancel()
    except* Lost as group:
        attempt.lost = "; ".join(str(lost) for lost in leaves(group))


# --- verdicts ---------------------------------------------------------------------------------------------


def _judge(visit: Visit, attempt: _Attempt, connection: Connection) -> None:
    for symbol in attempt.symbols:
        _judge_symbol(visit, attempt, connection, symbol)
    if attempt.unread:
        detail = f"{len(attempt.unread)} of {connection.received} were not understood: {attempt.unread[0]}"
        visit.checks.warned("messages", detail, "the venue's interface may have changed: look for a newer version")
    else:
        visit.checks.passed("messages", f"all {connection.received} were understood")
    if attempt.doubt is not None:
        visit.checks.warned(
            "market", attempt.doubt, "the venue is not in normal operation; gaps will be refilled later"
        )
    for remark in dict.fromkeys(attempt.remarks):
        visit.checks.warned("remark", f"the venue says: {remark}", "see the venue's documentation")


def _judge_symbol(visit: Visit, attempt: _Attempt, connection: Connection, symbol: str) -> None:
    checks, name, found = visit.checks, "subscription", attempt.symbols[symbol]
    waited = visit.pace.wall_text(trio.current_time() - attempt.opened_at)
    state = attempt.state(symbol)
    if state is State.REFUSED:
        checks.failed(name, f"refused: {found.refused}", "see whether the venue lists it", symbol=symbol)
    elif state is not State.SUBSCRIBED:
        channels = ", ".join(sorted(connection.requests[symbol].missing))
        why = "the connection was lost" if attempt.lost else f"no acknowledgement of {channels} in {waited}"
        checks.failed(name, why, "run preflight again; if it stays so, take it out of the configuration", symbol=symbol)
    elif found.alive:
        checks.passed(name, "acknowledged, data comes", symbol=symbol)
    else:
        last = f"; the last was {_ago(visit.time.now() - found.last_trade)} ago" if found.last_trade else ""
        quiet = "nothing, if this market is so quiet; else see the venue's status page"
        checks.warned(name, f"acknowledged, but no trade in {waited}{last}", quiet, symbol=symbol)


def _ago(ms: int) -> str:
    minutes = ms // 60_000
    if minutes >= 120:
        return f"{minutes // 60} h" if minutes < 2880 else f"{minutes // 1440} days"
    return f"{minutes} min"
