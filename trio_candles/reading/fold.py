"""Minutes folded into a higher timeframe, as the contract defines it: what the day files do not hold yet."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from trio_candles.candles.aggregation import DayOfMinutes
from trio_candles.candles.model import Candle, Millis, Series
from trio_candles.store.schema import COLUMNS

__all__ = ["folded"]

_COLUMNS = (
    "open_time_ms", "open", "high", "low", "close", "volume", "quote_volume", "trades_count", "ingest_time_ms",
)  # fmt: skip


def folded(minutes: pa.Table, series: Series, length: int) -> pa.Table:
    """A row for each period of *length* ms that *minutes* (sorted, all columns, whole periods) have a row in."""
    columns: list[Any] = [minutes.column(name).to_pylist() for name in _COLUMNS]
    day = DayOfMinutes(*columns)
    periods = sorted({time // length for time in day.opens})
    candles = (day.fold(series, Millis(n * length), Millis((n + 1) * length)) for n in periods)
    rows = list(zip(*map(_row, candles), strict=True))
    return pa.table(dict(zip(COLUMNS.names, rows, strict=True)), schema=COLUMNS) if rows else COLUMNS.empty_table()


def _row(candle: Candle) -> tuple[object, ...]:
    """*candle* as a row, its values in the order of the columns."""
    return (
        candle.series.venue, candle.series.symbol, candle.series.timeframe, candle.open_time, candle.close_time,
        candle.open, candle.high, candle.low, candle.close, candle.volume, candle.quote_volume, candle.vwap,
        candle.trades_count, candle.is_closed, candle.source.value, candle.ingest_time,
    )  # fmt: skip
