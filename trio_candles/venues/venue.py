"""All that the program knows of one venue, as one record, which the venue's folder makes."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

import attrs

from trio_candles.venues.history import History, RestUrls
from trio_candles.venues.listings import Listing, Symbols
from trio_candles.venues.probes import Clock, Probe
from trio_candles.venues.protocol import FeedProtocol, Proof

__all__ = ["Grade", "Venue"]


class Grade(StrEnum):
    """How far a venue's live candles can be trusted: what makes a minute certain."""

    IDS = "ids"
    """Trade ids, or counts of trades, prove that no trade of the minute is missing."""
    STATED = "stated"
    """The venue says that the minute is closed."""
    COMPARED = "compared"
    """What was heard without interruption equals the venue's settled row."""


@attrs.frozen(kw_only=True)
class Venue:
    """One venue: how its feed, its REST and its symbols are read, and how far it is believed.

    The venue's limits are ``feed.limits`` for connections and ``history.rates`` for REST, with ``history.penalty``
    after the venue complained.
    """

    feed: FeedProtocol
    proof: Proof
    """What in the feed's events proves a minute."""
    grade: Grade
    """No higher than the venue's *proof* and answers support."""
    history: History
    listing: Listing
    probe: Callable[[str, Clock], Probe]
    """A probe of a symbol, given the venue's own clock."""
    symbols: Symbols

    @property
    def name(self) -> str:
        """As the configuration, the data directory's folder and the ``venue`` column have it."""
        return self.feed.name

    def rest_urls(self, configured: str | None) -> RestUrls:
        """Where the venue's REST is: the venue's own hosts, or *configured* in place of every one of them.

        A configured URL stands for the whole venue: a simulated exchange, a proxy. If it replaced the main host alone,
        a run that was promised to stay on loopback would ask the real venue on its other hosts.
        """
        own = self.history.rest_urls
        return own if configured is None else dict.fromkeys(own, configured)
