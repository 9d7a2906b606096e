"""A venue's WebSocket: can it be had, is every symbol acknowledged, does data come?

Subscribes as the collector does, in the same batches and at the same pace, and listens until every symbol has shown
a trade of the last minute (most venues begin with the newest ones), or until there is no time left.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import attrs
import trio

from trio_candles.candles.model import Millis
from trio_candles.network.pacing import Budget
from trio_candles.network.websocket import Socket
from trio_candles.preflight.visit import Visit, host_of, look_up_host
from trio_candles.venues.protocol import (
    Acked,
    Beat,
    Doubt,
    Event,
    Forming,
    Leaving,
    Lost,
    Misunderstood,
    Refused,
    Row,
    Seen,
    Skipped,
    Told,
    Traded,
    Venue,
)

__all__ = ["check_feed"]

PAUSES = (1.0, 2.0, 4.0)
"""Seconds before the next attempts at a connection: one that is lost now and then is every day's."""
ACK_SECONDS = 8.0
"""After the last message: then what is not acknowledged will not be."""
SPOILED_SECONDS = 1.0
"""After a refusal, for the acknowledgements of others in the same message."""
RECENT_MS = 60_000
"""A trade so old shows that a market is alive; most are told at once, as the newest before we came."""
TICK_SECONDS = 0.25

_NETWORK = (
    "see what it says; check firewall, proxy and websocket_url; a proxy that inspects TLS needs its authority trusted"
)


@attrs.define
class _Symbol:
    """What was heard about one symbol."""

    missing: set[str]
    """Channels not yet acknowledged."""
    refused: str | None = None
    first: float | None = None
    """When something about its market came first, on trio's clock."""
    last_trade: Millis | None = None
    alive: bool = False
    """Whether a trade of the last minute was told."""


@attrs.define
class _Line:
    """One connection."""

    symbols: dict[str, _Symbol]
    dialled: float | None = None
    """Seconds that it took, TLS included."""
    opened_at: float | None = None
    lost: str | None = None
    """Why it ended before we had heard enough."""
    asked_at: float = float("inf")
    """When everything had been asked for."""
    spoiled: trio.Event = attrs.field(factory=trio.Event)
    """Set when a refusal may have cost others their subscription."""
    unnamed: bool = False
    """Whether a refusal did not say whose it was."""
    messages: int = 0
    unread: Counter[str] = attrs.field(factory=Counter)
    """Messages that were not understood, by what was wrong with the first of a kind."""
    remarks: list[str] = attrs.field(factory=list)
    doubt: str | None = None

    def waits(self, now: float, patience: float) -> bool:
        """Whether anything more may come that would change a verdict."""
        late = now - self.asked_at > patience
        return any(one.refused is None and not (late if one.missing else one.alive) for one in self.symbols.values())

    def pending(self) -> list[str]:
        """Neither acknowledged nor refused."""
        return [symbol for symbol, one in self.symbols.items() if one.missing and one.refused is None]


async def check_feed(visit: Visit) -> None:
    """All connections that the venue's symbols need, side by side."""
    if not await look_up_host(visit, visit.websocket_url):
        return
    limits, symbols = visit.venue.limits, visit.settings.symbols
    size = limits.symbols_per_connection
    batches = [symbols[start : start + size] for start in range(0, len(symbols), size)]
    connects = Budget(limits.connects_per_second, limits.connects_burst)
    async with trio.open_nursery() as nursery:
        for number, batch in enumerate(batches, 1):
            label = f"websocket {number}" if len(batches) > 1 else "websocket"
            nursery.start_soon(_check_connection, visit, label, batch, connects, name=f"{visit.venue.name}/{label}")


async def _check_connection(visit: Visit, label: str, batch: Sequence[str], connects: Budget) -> None:
    """Verdicts on one connection and its symbols; a few attempts, if it is lost."""
    checks, url, began = visit.checks, visit.websocket_url, trio.current_time()
    lines: list[_Line] = []
    with trio.move_on_at(visit.deadline):
        for pause in (*PAUSES, None):
            line = _Line({symbol: _Symbol(set(visit.venue.channels)) for symbol in batch})
            lines.append(line)
            await connects.take()
            await _attempt(visit, line)
            if line.lost is None or pause is None:
                break
            await trio.sleep(visit.pace.seconds(pause))
    line, losses = lines[-1], [one.lost for one in lines if one.lost is not None]
    dialled = [one.dialled for one in lines if one.dialled is not None]
    if dialled:
        what = "TCP and TLS" if url.startswith("wss:") else "TCP"
        checks.passed("connect", f"{what} to {host_of(url)} in {visit.pace.told(dialled[-1])}")
    if line.opened_at is None and line.lost is None:
        losses.append(f"{url}: not finished after {visit.pace.told(trio.current_time() - began)}")
    if line.opened_at is None or line.lost is not None:
        checks.failed(label, f"{'; then: '.join(dict.fromkeys(losses))} ({len(lines)} attempts)", _NETWORK)
    elif losses:
        checks.warned(label, f"{url} is open, after {len(losses)} losses: {losses[-1]}", _NETWORK)
    else:
        checks.passed(label, f"{url} is open")
    if line.opened_at is not None:
        _judge(visit, line)


async def _attempt(visit: Visit, line: _Line) -> None:
    """Connect, ask and listen; note why that ended early, if it did."""

    async def dial(url: str) -> trio.abc.Stream:
        began = trio.current_time()
        stream = await visit.network.dial(url)
        line.dialled = trio.current_time() - began
        return stream

    try:
        async with attrs.evolve(visit.network, dial=dial).connect(visit.websocket_url) as socket:
            line.opened_at = trio.current_time()
            await _converse(visit, line, socket)
    except* Lost as group:
        line.lost = "; ".join(_texts(group))


def _texts(group: BaseExceptionGroup[Lost]) -> Iterable[str]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _texts(error)
        else:
            yield str(error)


async def _converse(visit: Visit, line: _Line, socket: Socket) -> None:
    """Ask for all symbols and listen, as long as that may tell us anything."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_speak, visit, line, socket)
        nursery.start_soon(_hear, visit, line, socket)
        patience = visit.pace.seconds(ACK_SECONDS)
        # Not an event's business: time alone may end it.
        while line.waits(trio.current_time(), patience):  # noqa: ASYNC110
            await trio.sleep(visit.pace.seconds(TICK_SECONDS))
        nursery.cancel_scope.cancel()


async def _speak(visit: Visit, line: _Line, socket: Socket) -> None:
    """Ask for everything; after a refusal ask again for what it may have spoiled, alone if it named nobody."""
    await _ask(visit, line, socket, [list(line.symbols)])
    while True:
        await line.spoiled.wait()
        await trio.sleep(visit.pace.seconds(SPOILED_SECONDS))
        line.spoiled = trio.Event()
        pending = line.pending()
        if pending:
            batches = [[symbol] for symbol in pending] if line.unnamed else [pending]
            await _ask(visit, line, socket, batches)


async def _ask(visit: Visit, line: _Line, socket: Socket, batches: Sequence[Sequence[str]]) -> None:
    line.asked_at = float("inf")
    for number, batch in enumerate(batches, 1):
        for text in visit.venue.subscribe(batch, number):
            await socket.send(text)
            await trio.sleep(1 / visit.venue.limits.messages_per_second)
    line.asked_at = trio.current_time()


async def _hear(visit: Visit, line: _Line, socket: Socket) -> None:
    """Read for ever."""
    while True:
        for message in await socket.receive():
            line.messages += 1
            for event in _read(visit.venue, line, message):
                _heed(visit, line, event)


def _read(venue: Venue, line: _Line, message: str | bytes) -> Sequence[Event]:
    if isinstance(message, bytes):
        line.unread["a binary message"] += 1
        return ()
    try:
        return venue.read(message)
    except Misunderstood as error:
        line.unread[error.reason if error.reason in line.unread else str(error)] += 1
        return ()


def _heed(visit: Visit, line: _Line, event: Event) -> None:
    match event:
        case Refused(_, text) | Told(text) if visit.venue.limits.too_fast in text:
            line.remarks.append(f"too fast: {text}")
        case Refused(symbol, text):
            one = line.symbols.get(symbol) if symbol is not None else None
            if one is None:
                line.unnamed = True
                line.remarks.append(f"refused: {text}")
                line.spoiled.set()
            elif one.refused is None:
                one.refused = text
                line.spoiled.set()
        case Told(text) | Leaving(text):
            line.remarks.append(text)
        case Doubt(text):
            line.doubt = text
        case Acked(symbol, channel) if symbol in line.symbols:
            line.symbols[symbol].missing.discard(channel)
        case Traded() | Seen() | Forming() | Row() | Beat() if event.symbol in line.symbols:
            _note(line.symbols[event.symbol], event, visit.time.now())
        case Skipped() | _:
            pass  # nothing that preflight is about


def _note(one: _Symbol, event: Traded | Seen | Forming | Row | Beat, now: Millis) -> None:
    if isinstance(event, Beat):
        return  # of a market in which nothing may happen
    if one.first is None:
        one.first = trio.current_time()
    match event:
        case Traded(_, trade):
            time = trade.time
        case Seen(_, _, time):
            pass
        case Forming():
            time = now  # pushed when something traded
        case Row():
            # A row of a minute long ago is a snapshot's; of one without volume, a quiet market's.
            time = min(now, event.close_time) if event.volume else Millis(0)
    one.last_trade = max(one.last_trade or Millis(0), time)
    one.alive = one.alive or time >= now - RECENT_MS


# --- verdicts ---------------------------------------------------------------------------------------------


def _judge(visit: Visit, line: _Line) -> None:
    for symbol, one in line.symbols.items():
        _judge_symbol(visit, line, symbol, one)
    if line.unread:
        told = f"{sum(line.unread.values())} of {line.messages} were not understood: {next(iter(line.unread))}"
        visit.checks.warned("messages", told, "the venue's interface may have changed: look for a newer version")
    else:
        visit.checks.passed("messages", f"all {line.messages} were understood")
    if line.doubt is not None:
        visit.checks.warned("market", line.doubt, "the venue is not in normal operation; gaps will be refilled later")
    for remark in dict.fromkeys(line.remarks):
        visit.checks.warned("remark", f"the venue says: {remark}", "see the venue's documentation")


def _judge_symbol(visit: Visit, line: _Line, symbol: str, one: _Symbol) -> None:
    checks, name = visit.checks, "subscription"
    waited = visit.pace.told(trio.current_time() - min(line.asked_at, trio.current_time()))
    if one.refused is not None:
        checks.failed(name, f"refused: {one.refused}", "see whether the venue lists it", symbol=symbol)
    elif one.missing:
        channels = ", ".join(sorted(one.missing))
        why = "the connection was lost" if line.lost else f"no acknowledgement of {channels} in {waited}"
        checks.failed(name, why, "run preflight again; if it stays so, take it out of the configuration", symbol=symbol)
    elif one.alive:
        checks.passed(name, "acknowledged, data comes", symbol=symbol)
    else:
        last = f"; the last was {_ago(visit.time.now() - one.last_trade)} ago" if one.last_trade else ""
        quiet = "nothing, if this market is so quiet; else see the venue's status page"
        checks.warned(name, f"acknowledged, but no trade in {waited}{last}", quiet, symbol=symbol)


def _ago(ms: int) -> str:
    minutes = ms // 60_000
    if minutes >= 120:
        return f"{minutes // 60} h" if minutes < 2880 else f"{minutes // 1440} days"
    return f"{minutes} min"
