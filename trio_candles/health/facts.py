"""What a look at a data directory found, before anybody judges it. Times are Unix ms on the service's clock."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from trio_candles.candles.delays import Delays
from trio_candles.candles.model import Millis, Series

__all__ = ["Completeness", "Live", "OpenGaps", "Published", "Reading", "Scrub", "SeriesFacts", "VenueState"]


@attrs.frozen
class Completeness:
    """How much of a whole is known to be right: of a span what is candles or empty, in ms; of samples what agreed."""

    known: int
    of: int

    @property
    def percent(self) -> float | None:
        """Rounded down to a tenth, so 100 only if nothing is missing; ``None`` of nothing."""
        return self.known * 1000 // self.of / 10 if self.of else None


@attrs.frozen
class Live:
    """A candle that came over the WebSocket."""

    open_time: int
    ingest_time: int


@attrs.frozen
class OpenGaps:
    """A series' open gaps: how many, how long together, and the one that has been known for longest."""

    count: int
    length: int
    first_seen: int
    since: int
    until: int
    reason: str
    detail: str
    attempts: int
    last_error: str | None


@attrs.frozen(kw_only=True)
class SeriesFacts:
    """What the ledger says of one 1m series."""

    mark: int
    """The end of the accounted minutes."""
    known_until: int | None
    """The end of the newest minute known to be a candle or empty; ``None`` if there is none."""
    last_candle: int | None
    """Open time of the newest candle."""
    cause: str = ""
    """The reason of the newest gap, if the accounted minutes end with it."""
    live: Live | None = None
    """The newest WebSocket candle among those that wait for a day file."""
    hour: Completeness = Completeness(0, 0)
    day: Completeness = Completeness(0, 0)
    open_gaps: OpenGaps | None = None
    revisions: int = 0
    """How many were noted in the last day."""


@attrs.frozen
class VenueState:
    """A row of ``venue_state``: what the running collector's table shows."""

    at: int
    status: str
    connected: bool
    received: int
    saved: int
    reconnects: int
    rejected: int
    """In this run, duplicates aside."""
    delays: Delays = attrs.field(factory=Delays)
    """From a minute's end until the feed's candle was durable, in this run."""


@attrs.frozen
class Scrub:
    """How far the collector is with reading sealed days again."""

    began: int | None
    """``None`` if no clock was believed when this pass began."""
    ended: int | None
    """``None`` while the pass is under way."""
    days: int
    """Read in this pass..."""
    of: int
    """...of so many."""


@attrs.frozen(kw_only=True)
class Published:
    """When a collector published its state."""

    now: Millis
    """The service's time at the moment of reading."""
    at: int | None = None
    """``None`` if no collector ever has."""
    stopped_at: int | None = None
    """When the collector stopped in good order, if it did."""
    trouble: str = ""
    """Why the journal cannot be read; the facts are then empty."""


@attrs.frozen(kw_only=True)
class Reading:
    """One look at a data directory: a single moment of its ledger, and whether a collector holds the lock."""

    now: Millis
    """The service's time at that moment."""
    running: bool | None
    """Whether a collector holds the lock; ``None`` if that cannot be seen."""
    trouble: str | None = None
    """Why the journal cannot be read; the facts below are then empty."""
    exists: bool = True
    """Whether there is a journal..."""
    directory: bool = True
    """...and the directory in which it should be."""
    expected: tuple[Series, ...] = ()
    """The series that the collector was configured with."""
    series: Mapping[Series, SeriesFacts] = attrs.field(factory=dict)
    venues: Mapping[str, VenueState] = attrs.field(factory=dict)
    store_errors: Mapping[str, str] = attrs.field(factory=dict)
    """Part of the store → the system's words for why it cannot write."""
    rejections: Mapping[str, Mapping[str, int]] = attrs.field(factory=dict)
    """Venue → rule → candles, since the directory began."""
    confirmations: Mapping[str, Mapping[str, int]] = attrs.field(factory=dict)
    """Venue → outcome → candles compared with REST, and sampled ones rebuilt from trades, since the directory began."""
    scrub: Scrub | None = None
    """``None`` if there was none yet."""
    stopped_at: int | None = None
    """When the collector stopped in good order, if it did."""
    latest: int | None = None
    """When the collector last wrote anything."""

    def sampled(self, venue: str) -> Completeness:
        """How many minutes of *venue* that rows filled were rebuilt from trades, as a sample, and how many agreed."""
        counts = self.confirmations.get(venue, {})
        agreed, differed = counts.get("sampled_agreed", 0), counts.get("sampled_differed", 0)
        return Completeness(agreed, agreed + differed)
