"""The venues, by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from trio_candles.venues.coinbase.feed import Coinbase
from trio_candles.venues.kraken.feed import Kraken
from trio_candles.venues.okx.feed import Okx
from trio_candles.venues.protocol import Venue

__all__ = ["VENUES"]

VENUES: Mapping[str, Venue] = MappingProxyType({venue.name: venue for venue in (Coinbase(), Kraken(), Okx())})
