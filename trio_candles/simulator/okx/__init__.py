"""OKX, simulated."""

from ..instruments import Listing
from ..venue import SimulatedVenue
from .feed import CHANNELS, OkxSession
from .rest import OkxRest

VENUE = SimulatedVenue(
    name="okx",
    listing=Listing(("USDT", "USDC", "USD", "EUR", "BTC"), "USDT", "{}-{}".format),
    session=OkxSession,
    rest=OkxRest,
    websocket_paths=tuple(CHANNELS),
    connects_per_second=3.0,
    connects_burst=3.0,
)
