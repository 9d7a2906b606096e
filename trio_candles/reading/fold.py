"""Minutes folded into a higher timeframe, as the contract defines it: what the day files do not hold yet.

The same numbers, to the bit, as the collector stores: ``math.fsum`` over the stored values.
"""

from __future__ import annotations

from itertools import groupby
from math import fsum
from typing import Any

import pyarrow as pa

from trio_candles.model import Series, Source
from trio_candles.store.schema import COLUMNS

__all__ = ["folded"]


def folded(minutes: pa.Table, series: Series, length: int) -> pa.Table:
    """A row for each period of *length* ms that *minutes* (sorted, all columns, whole periods) have a row in."""
    values: dict[str, list[Any]] = {name: minutes.column(name).to_pylist() for name in _FOLDED}
    rows: dict[str, list[Any]] = {name: [] for name in COLUMNS.names}
    low = 0
    for period, group in groupby(values["open_time_ms"], key=lambda time: time // length):
        high = low + len(list(group))
        part = {name: column[low:high] for name, column in values.items()}
        for name, value in _fold(part, series, period * length, length).items():
            rows[name].append(value)
        low = high
    return pa.table(rows, schema=COLUMNS)


_FOLDED = (
    "open_time_ms", "open", "high", "low", "close", "volume", "quote_volume", "trades_count", "ingest_time_ms",
)  # fmt: skip


def _fold(part: dict[str, list[Any]], series: Series, open_time: int, length: int) -> dict[str, Any]:
    quotes, counts, volume = part["quote_volume"], part["trades_count"], fsum(part["volume"])
    quote_volume = None if None in quotes else fsum(quotes)
    return {
        "venue": series.venue,
        "symbol": series.symbol,
        "timeframe": series.timeframe,
        "open_time_ms": open_time,
        "close_time_ms": open_time + length,
        "open": part["open"][0],
        "high": max(part["high"]),
        "low": min(part["low"]),
        "close": part["close"][-1],
        "volume": volume,
        "quote_volume": quote_volume,
        "vwap": None if quote_volume is None or volume == 0 else quote_volume / volume,
        "trades_count": None if None in counts else sum(counts),
        "is_closed": True,
        "source": Source.AGGREGATED.value,
        "ingest_time_ms": max(part["ingest_time_ms"]),
    }
