"""Coinbase Exchange, simulated."""

from ..instruments import Listing, five_digits
from ..venue import SimulatedVenue
from .feed import CoinbaseSession
from .rest import CoinbaseRest, cached_seconds


def price_digits(dollars: float, quote: str) -> int:
    """One digit more for the dearest markets."""
    return five_digits(dollars, quote) + (dollars > 10_000 and quote != "BTC")


VENUE = SimulatedVenue(
    name="coinbase",
    listing=Listing(("USD", "EUR", "GBP", "USDT", "BTC"), "USD", "{}-{}".format, price_digits),
    session=CoinbaseSession,
    rest=CoinbaseRest,
    websocket_paths=("/",),
    connects_per_second=8.0,
    connects_burst=20.0,
    cached_seconds=cached_seconds,
)
