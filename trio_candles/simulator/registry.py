"""The venues that the simulator knows, by name."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from .coinbase import VENUE as COINBASE
from .kraken import VENUE as KRAKEN
from .okx import VENUE as OKX

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .venue import SimulatedVenue

VENUES: Mapping[str, SimulatedVenue] = MappingProxyType(
    {
        venue.name: venue
        for venue in (
            COINBASE,
            KRAKEN,
            OKX,
        )
    }
)
