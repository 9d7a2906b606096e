"""Coinbase Exchange: products, public."""

from __future__ import annotations

from trio_candles.venues.coinbase.feed import Coinbase
from trio_candles.venues.coinbase.history import CoinbaseHistory
from trio_candles.venues.coinbase.listing import LISTING, SYMBOLS
from trio_candles.venues.coinbase.probes import probe
from trio_candles.venues.protocol import Proof
from trio_candles.venues.venue import Grade, Venue

__all__ = ["VENUE"]

VENUE = Venue(
    feed=Coinbase(),
    proof=Proof.TRADE_IDS,
    grade=Grade.IDS,
    history=CoinbaseHistory(),
    listing=LISTING,
    probe=probe,
    symbols=SYMBOLS,
)
