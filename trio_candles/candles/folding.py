"""A minute's trades -> its candle; sums are exact until the end."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Context, Decimal

from trio_candles.candles.model import MINUTE, Candle, Millis, Series, Source, Trade

__all__ = ["fold_trades"]

_EXACT = Context(prec=200)
"""Wide enough that products and sums of prices and sizes are never rounded."""


def fold_trades(series: Series, minute: Millis, trades: Sequence[Trade], source: Source, ingest: Millis) -> Candle:
    """The candle of *minute* from all its *trades* (at least one): opened by the lowest id, closed by the highest.

    Sums are exact, and become floats once, at the end.
    """
    trades = sorted(trades, key=lambda trade: trade.trade_id)
    volume, quote_volume = Decimal(0), Decimal(0)
    low = high = trades[0].price
    for trade in trades:
        volume = _EXACT.add(volume, trade.size)
        quote_volume = _EXACT.add(quote_volume, _EXACT.multiply(trade.price, trade.size))
        low, high = min(low, trade.price), max(high, trade.price)
    return Candle(
        series,
        minute,
        open=float(trades[0].price),
        high=float(high),
        low=float(low),
        close=float(trades[-1].price),
        volume=float(volume),
        quote_volume=float(quote_volume),
        vwap=float(_EXACT.divide(quote_volume, volume)) if volume else None,
        trades_count=len(trades),
        source=source,
        ingest_time=ingest,
        close_time=Millis(minute + MINUTE),
    )
