"""Kraken, simulated."""

from ..instruments import Listing
from ..venue import SimulatedVenue
from .feed import KrakenSession
from .rest import KrakenRest

VENUE = SimulatedVenue(
    name="kraken",
    listing=Listing(("USD", "EUR", "GBP", "USDT", "USDC", "BTC"), "USD", "{}/{}".format),
    session=KrakenSession,
    rest=KrakenRest,
    websocket_paths=("/v2",),
    connects_per_second=0.25,
    connects_burst=150.0,
)
