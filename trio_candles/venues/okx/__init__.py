"""OKX: instruments of the spot market, public."""

from __future__ import annotations

from trio_candles.venues.okx.feed import Okx
from trio_candles.venues.okx.history import OkxHistory
from trio_candles.venues.okx.listing import LISTING, SYMBOLS
from trio_candles.venues.okx.probes import probe
from trio_candles.venues.protocol import Proof
from trio_candles.venues.venue import Grade, Venue

__all__ = ["VENUE"]

VENUE = Venue(
    feed=Okx(),
    proof=Proof.STATED_CLOSES,
    grade=Grade.STATED,
    history=OkxHistory(),
    listing=LISTING,
    probe=probe,
    symbols=SYMBOLS,
)
