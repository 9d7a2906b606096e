"""Exchanges that speak the wire protocols of Coinbase Exchange, Kraken and OKX over a seeded market.

The simulator imports nothing of the rest of the project, so that it shares no mistake with what it tests.
"""

from .exchange import Connection, Disconnected, SimulatedExchange
from .faults import FOREVER, Faults, RestFault
from .instruments import VENUES
from .market import Market, MarketTrade, TrueCandle
from .text import Request, Response
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
    "Market",
    "MarketTrade",
    "MemoryExchanges",
    "Request",
    "Response",
    "RestFault",
    "SimulatedExchange",
    "SimulatedExchanges",
    "TrueCandle",
    "open_exchanges_in_memory",
    "open_exchanges_on_loopback",
]
