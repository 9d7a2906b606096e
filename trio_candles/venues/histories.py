"""The venues' REST records, by name; apart from the feeds', because proving from trades needs the assembler."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from trio_candles.venues.coinbase.history import CoinbaseHistory
from trio_candles.venues.history import History
from trio_candles.venues.kraken.history import KrakenHistory
from trio_candles.venues.okx.history import OkxHistory

__all__ = ["HISTORIES"]

HISTORIES: Mapping[str, History] = MappingProxyType(
    {history.name: history for history in (CoinbaseHistory(), KrakenHistory(), OkxHistory())}
)
