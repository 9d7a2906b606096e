"""Exchanges that speak the wire protocols of real venues over a seeded market.

The simulator imports nothing of the rest of the project, so that it shares no mistake with what it tests.
Each venue is one folder and one line in the registry; no module outside such a folder knows a venue.
"""

from .exchange import Disconnected, SimulatedExchange
from .faults import FOREVER, Faults, RestFault
from .instruments import Listing
from .market import MarketTrade, TrueCandle, VenueMarket
from .markets import Market
from .registry import VENUES
from .session import Connection, Session
from .text import Request, Response
from .venue import Rest, SimulatedVenue
from .world import (
    Endpoint,
    MemoryExchanges,
    SimulatedExchanges,
    open_exchanges_in_memory,
    open_exchanges_on_loopback,
)

__all__ = [
    "FOREVER",
    "VENUES",
    "Connection",
    "Disconnected",
    "Endpoint",
    "Faults",
    "Listing",
    "Market",
    "MarketTrade",
    "MemoryExchanges",
    "Request",
    "Response",
    "Rest",
    "RestFault",
    "Session",
    "SimulatedExchange",
    "SimulatedExchanges",
    "SimulatedVenue",
    "TrueCandle",
    "VenueMarket",
    "open_exchanges_in_memory",
    "open_exchanges_on_loopback",
]
