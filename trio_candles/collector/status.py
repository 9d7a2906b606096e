"""The counters that people watch, and the table that shows them."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Sequence

import attrs

from trio_candles.candles.delays import Delays
from trio_candles.candles.model import Millis, utc_text

__all__ = ["Board", "VenueBoard", "banner", "render"]

log = logging.getLogger(__name__)

WIDTH = 79
RATE_OVER = 300_000
"""Ms over which the rate of a backfill is taken."""
WORTH_SHOWING = 60
"""Open gap minutes from which on a venue's backfill has a line in the table: fewer are open at any time."""
UNCLEAR_AFTER = 3
"""How many answers about a series, one after another, are not understood before people are told."""
STALE_AFTER = 120_000
"""Ms without market data after which a connected venue is called stale."""


@attrs.define
class Backfill:
    """How much a venue's gap-filler has filled, and how fast. Times are Unix ms of the service."""

    done: int = 0
    """Minutes that REST proved in this run."""
    _recent: deque[tuple[Millis, int]] = attrs.field(factory=deque)

    def add(self, minutes: int, now: Millis) -> None:
        """REST proved *minutes* more."""
        self.done += minutes
        self._recent.append((now, minutes))
        self._forget(now)

    def rate(self, now: Millis) -> float:
        """Minutes proved a minute, over the last five."""
        self._forget(now)
        if not self._recent:
            return 0.0
        return sum(minutes for _, minutes in self._recent) * 60_000 / max(now - self._recent[0][0], 60_000)

    def _forget(self, now: Millis) -> None:
        while self._recent and self._recent[0][0] <= now - RATE_OVER:
            self._recent.popleft()


@attrs.define
class VenueBoard:
    """What one venue's tasks count; written by them, read by the table."""

    name: str
    connections: int = 0
    """Connections that the venue's symbols need."""
    connections_up: int = 0
    received: int = 0
    """1m candles that the WebSocket feed brought in this run."""
    saved: int = 0
    """1m rows newly in day files in this run."""
    reconnects: int = 0
    rejected: Counter[str] = attrs.field(factory=Counter)
    """Rejected candles by rule."""
    skipped: Counter[str] = attrs.field(factory=Counter)
    """Messages and remarks by reason."""
    revisions: int = 0
    """Closed candles that differ from a stored one, received in this run."""
    compared: Counter[str] = attrs.field(factory=Counter)
    """What comparing live candles with REST came to in this run: agreed, differed, replaced, unanswered."""
    open_gap_minutes: int = 0
    delays: Delays = attrs.field(factory=Delays)
    """From the minutes' ends until the feed's candles were durable, in this run."""
    unclear: dict[str, int] = attrs.field(factory=dict)
    """How many answers of REST about a symbol, up to the newest, were not understood; only symbols with one."""
    backfill: Backfill = attrs.field(factory=lambda: Backfill())
    last_data: Millis | None = None
    """When market data (no heartbeat) last came; ``None`` if none came since the start, or since the clock jumped."""
    up_since: Millis | None = None
    """When every connection was first up since then."""
    waiting: bool = False
    """Whether what the venue says waits for the clock to be vouched for."""
    at_stop: str | None = None
    """The status from when the collector was asked to stop: closing connections then is no disconnection."""

    @property
    def connected(self) -> bool:
        """Whether every connection is up; false until it is known how many there are."""
        return 0 < self.connections <= self.connections_up

    def answered(self, symbol: str, understood: bool) -> int:
        """Count an answer of REST about *symbol*; returns how many, up to this one, were not understood."""
        if understood:
            self.unclear.pop(symbol, None)
            return 0
        self.unclear[symbol] = self.unclear.get(symbol, 0) + 1
        return self.unclear[symbol]

    @property
    def rejections(self) -> int:
        """Rejected candles, duplicates aside."""
        return sum(count for rule, count in self.rejected.items() if rule != "duplicate")

    def status(self, now: Millis) -> str:
        """The venue's status at *now* (Unix ms): ``[OK]``, ``[WAIT]``, ``[DISC]`` or ``[STALE (3m)]``."""
        if self.at_stop is not None:
            return self.at_stop
        if not self.connected:
            return "[DISC]"
        # A reconnection does not make a venue fresh: a connection that brings nothing is made anew every few minutes.
        quiet_since = self.last_data or self.up_since or now
        if now - quiet_since >= STALE_AFTER:
            return f"[STALE ({(now - quiet_since) // 60_000}m)]"
        return "[WAIT]" if self.waiting or not self.received else "[OK]"

    def clock_jumped(self) -> None:
        """Forget the times by a clock that has jumped: how long ago they were cannot be told any more."""
        self.last_data = self.up_since = None


@attrs.define
class Board:
    """Everything that the status table shows."""

    started: Millis
    venues: dict[str, VenueBoard]
    store_errors: dict[str, str] = attrs.field(factory=dict)
    """Why a part of the store (journal, day files) cannot write, in the system's words, while it cannot."""

    def stopping(self, now: Millis) -> None:
        """Keep showing the venues as they are at this moment."""
        for venue in self.venues.values():
            venue.at_stop = venue.status(now)

    def store_failed(self, part: str, error: str, consequence: str) -> None:
        """Note and say that *part* of the store cannot write, in the system's words (*error*), and with what
        *consequence*.
        """
        if self.store_errors.get(part) != error:
            log.error("the store cannot write (%s): %s; %s, and are tried again", part, error, consequence)
        self.store_errors[part] = error

    def store_works(self, part: str) -> None:
        """Note, and say if it is news, that *part* of the store writes."""
        error = self.store_errors.pop(part, None)
        if error is not None:
            log.warning("the store writes again (%s), after: %s", part, error)

    def status(self, now: Millis) -> str:
        """HEALTHY, STARTING or DEGRADED."""
        states = [venue.status(now) for venue in self.venues.values()]
        if self.store_errors or any(state not in ("[OK]", "[WAIT]") for state in states):
            return "DEGRADED"
        return "STARTING" if "[WAIT]" in states else "HEALTHY"


def banner(venues: list[str], remarks: Sequence[str] = ()) -> str:
    """The text that is shown once, at the start; *remarks* are lines in it: what is not as usual, where things are."""
    line = "=" * WIDTH
    names = ", ".join(name.upper() for name in venues)
    title = "  TRIO CANDLES  |  1-minute OHLCV collector"
    lines = [f"  {remark}" for remark in remarks]
    return "\n".join([line, title, f"  Venues: {names}", *lines, line, "  Starting WebSocket streams...", line]) + "\n"


def render(board: Board, now: Millis) -> str:
    """The table as plain text, every line ended."""
    double, single = "=" * WIDTH, "-" * WIDTH
    status = [f"STATUS: {board.status(now)}", f"Uptime: {_uptime(now - board.started)}", utc_text(now)[11:]]
    head = "  " + "  |  ".join([*status, *filter(None, map(_unclear, board.venues.values()))])
    rows = [
        double,
        head,
        double,
        f"  {'VENUE':<12} {'STATUS':<14}{'RECV':>9} {'SAVED':>8} {'RECONN':>8}"
        f" {'GAPS':>6} {'REJ':>4} {'REV':>4} {'CONF':>5}",
    ]
    rows.append(single)
    rows += [
        f"  {venue.name.upper():<12} {venue.status(now):<14}{venue.received:>9} {venue.saved:>8} {venue.reconnects:>8}"
        f" {venue.open_gap_minutes:>6} {venue.rejections:>4} {venue.revisions:>4} {_confirmed(venue):>5}"
        for venue in board.venues.values()
    ]
    backfills = [line for venue in board.venues.values() if (line := _backfill(venue, now))]
    if backfills:
        rows += [single, *backfills]
    if board.store_errors:
        rows += [single, *(f"  STORE ({part}): {error}" for part, error in board.store_errors.items())]
    return "\n".join([*rows, double]) + "\n"


def _unclear(venue: VenueBoard) -> str:
    """``kraken: answers not understood (BTC/USD and 2 more)``; nothing if no symbol has a run of them."""
    symbols = [symbol for symbol, count in venue.unclear.items() if count >= UNCLEAR_AFTER]
    if not symbols:
        return ""
    more = f" and {len(symbols) - 1} more" if len(symbols) > 1 else ""
    return f"{venue.name}: answers not understood ({symbols[0]}{more})"


def _confirmed(venue: VenueBoard) -> str:
    """The share of the live candles compared with REST that agreed; ``-`` if none was compared."""
    agreed, differed = venue.compared["agreed"], venue.compared["differed"]
    if not agreed + differed:
        return "-"
    # 99.96 % is not all: never rounded up.
    return "100%" if not differed else f"{agreed * 1000 // (agreed + differed) / 10:.1f}%"


def _backfill(venue: VenueBoard, now: Millis) -> str:
    """``BACKFILL KRAKEN: 7,412 minutes done, 1,228 left, 840 a minute, ETA 2 min``; nothing if there is little left."""
    left = venue.open_gap_minutes
    if left < WORTH_SHOWING or venue.at_stop is not None:
        return ""
    rate = venue.backfill.rate(now)
    eta = f"ETA {_uptime(round(left / rate + 0.5) * 60_000)}" if rate >= 1 else "no progress yet"
    name = venue.name.upper()
    return f"  BACKFILL {name}: {venue.backfill.done:,} minutes done, {left:,} left, {rate:,.0f} a minute, {eta}"


def _uptime(length: int) -> str:
    minutes = max(0, length) // 60_000
    if minutes < 1440:
        return f"{minutes} min"
    return f"{minutes // 1440} d {minutes // 60 % 24} h"
