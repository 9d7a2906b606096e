"""The counters that people watch, and the table that shows them."""

from __future__ import annotations

from collections import Counter

import attrs

from trio_candles.model import Millis, utc_text

__all__ = ["Board", "VenueBoard", "banner", "render"]

WIDTH = 70
STALE_AFTER = 120_000
"""Ms without market data after which a connected venue is called stale."""


@attrs.define
class VenueBoard:
    """What one venue's tasks count; written by them, read by the table."""

    name: str
    lines: int = 0
    """Connections that the venue's symbols need."""
    lines_up: int = 0
    received: int = 0
    """1m candles that the WebSocket feed yielded in this run."""
    saved: int = 0
    """1m rows newly in day files in this run."""
    reconnects: int = 0
    rejected: Counter[str] = attrs.field(factory=Counter)
    """Rejected candles by rule."""
    skipped: Counter[str] = attrs.field(factory=Counter)
    """Messages and remarks by reason."""
    open_gap_minutes: int = 0
    last_data: Millis | None = None
    """When market data (no heartbeat) last came."""
    up_since: Millis | None = None
    at_stop: str | None = None
    """The table's word when the collector was asked to stop: saying goodbye is no disconnection."""

    @property
    def connected(self) -> bool:
        """Every connection is up."""
        return self.lines_up >= self.lines

    @property
    def rejections(self) -> int:
        """Rejected candles, duplicates aside."""
        return sum(count for rule, count in self.rejected.items() if rule != "duplicate")

    def status(self, now: Millis) -> str:
        """The table's word for it."""
        if self.at_stop is not None:
            return self.at_stop
        if not self.connected:
            return "[DISC]"
        quiet_since = max(self.last_data or 0, self.up_since or 0)
        if now - quiet_since >= STALE_AFTER:
            return f"[STALE ({(now - quiet_since) // 60_000}m)]"
        return "[OK]" if self.received else "[WAIT]"


@attrs.define
class Board:
    """Everything that the status table shows."""

    started: Millis
    venues: dict[str, VenueBoard]
    store_errors: dict[str, str] = attrs.field(factory=dict)
    """The system's words for why a part of the store (journal, day files) cannot write, while it cannot."""

    def stopping(self, now: Millis) -> None:
        """Keep showing the venues as they are at this moment."""
        for venue in self.venues.values():
            venue.at_stop = venue.status(now)

    def status(self, now: Millis) -> str:
        """HEALTHY, STARTING or DEGRADED."""
        words = [venue.status(now) for venue in self.venues.values()]
        if self.store_errors or any(word not in ("[OK]", "[WAIT]") for word in words):
            return "DEGRADED"
        return "STARTING" if "[WAIT]" in words else "HEALTHY"


def banner(venues: list[str]) -> str:
    """What is shown once, at the start."""
    line = "=" * WIDTH
    names = ", ".join(name.upper() for name in venues)
    title = "  TRIO CANDLES  |  1-minute OHLCV collector"
    return "\n".join([line, title, f"  Venues: {names}", line, "  Starting WebSocket streams...", line]) + "\n"


def render(board: Board, now: Millis) -> str:
    """The table as plain text, every line ended."""
    double, single = "=" * WIDTH, "-" * WIDTH
    head = f"  STATUS: {board.status(now)}  |  Uptime: {_uptime(now - board.started)}  |  {utc_text(now)[11:]}"
    rows = [
        double,
        head,
        double,
        f"  {'VENUE':<12} {'STATUS':<14}{'RECV':>9} {'SAVED':>8} {'RECONN':>8} {'GAPS':>7} {'REJ':>5}",
    ]
    rows.append(single)
    rows += [
        f"  {venue.name.upper():<12} {venue.status(now):<14}{venue.received:>9} {venue.saved:>8} {venue.reconnects:>8}"
        f" {venue.open_gap_minutes:>7} {venue.rejections:>5}"
        for venue in board.venues.values()
    ]
    if board.store_errors:
        rows += [single, *(f"  STORE ({part}): {error}" for part, error in board.store_errors.items())]
    return "\n".join([*rows, double]) + "\n"


def _uptime(length: int) -> str:
    minutes = max(0, length) // 60_000
    if minutes < 60:
        return f"{minutes} min"
    hours = minutes // 60
    return f"{hours} h {minutes % 60} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"
