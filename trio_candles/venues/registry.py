"""The venues, by name: the one place outside a venue's folder that names the venue."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from trio_candles.venues import coinbase, kraken, okx
from trio_candles.venues.venue import Venue

__all__ = ["VENUES"]

VENUES: Mapping[str, Venue] = MappingProxyType(
    {
        venue.name: venue
        for venue in (
            coinbase.VENUE,
            kraken.VENUE,
            okx.VENUE,
        )
    }
)
"""In the order in which messages list them."""
