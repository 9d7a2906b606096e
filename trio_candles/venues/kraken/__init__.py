"""Kraken: pairs of the spot market, public."""

from __future__ import annotations

from trio_candles.venues.kraken.feed import Kraken
from trio_candles.venues.kraken.history import KrakenHistory
from trio_candles.venues.kraken.listing import LISTING, SYMBOLS
from trio_candles.venues.kraken.probes import probe
from trio_candles.venues.protocol import Proof
from trio_candles.venues.venue import Grade, Venue

__all__ = ["VENUE"]

VENUE = Venue(
    feed=Kraken(),
    proof=Proof.COUNTED_ROWS,
    grade=Grade.IDS,
    history=KrakenHistory(),
    listing=LISTING,
    probe=probe,
    symbols=SYMBOLS,
)
