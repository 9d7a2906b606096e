"""Faults planted into the product."""

from __future__ import annotations

import random
from collections.abc import Mapping

import attrs

from trio_candles.network import Network
from trio_candles.store.store import Store
from trio_candles.venues.history import History
from trio_candles.venues.protocol import Venue

__all__ = ["NONE", "Bug"]


@attrs.frozen
class Bug:
    """Replaces what the service is given; this one replaces nothing."""

    ignores: str = ""

    def network(self, network: Network) -> Network:
        return network

    def store(self, store: Store) -> Store:
        return store

    def venues(self, venues: Mapping[str, Venue]) -> Mapping[str, Venue]:
        return venues

    def histories(self, histories: Mapping[str, History]) -> Mapping[str, History]:
        return histories

    def chance(self, chance: random.Random) -> random.Random:
        return chance


NONE = Bug()
