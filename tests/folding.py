"""The contract's section 5.5 once more, sharing nothing with the program: exact sums, one minute at a time."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from fractions import Fraction
from typing import Any

Row = Mapping[str, Any]
MINUTE = 60_000
DAY = 1440 * MINUTE
LENGTHS = {"5m": 5, "7m": 7, "15m": 15, "30m": 30, "1h": 60, "4h": 240, "1d": 1440}


def aggregates(rows: Collection[Row], empty: Collection[int], timeframe: str) -> list[dict[str, Any]]:
    """Every complete candle of *timeframe* over *rows*, the stored minutes, and the *empty* ones; oldest first."""
    stored = {row["open_time_ms"]: row for row in rows}
    length = LENGTHS[timeframe] * MINUTE
    found = []
    for since in sorted({time - time % length for time in stored}):
        under = range(since, since + length, MINUTE)
        if all(minute in stored or minute in empty for minute in under):
            found.append(_folded([stored[minute] for minute in under if minute in stored], timeframe, since, length))
    return found


def _folded(parts: list[Row], timeframe: str, since: int, length: int) -> dict[str, Any]:
    volume = _exactly([part["volume"] for part in parts])
    quote = _exactly([part["quote_volume"] for part in parts])
    counts = [part["trades_count"] for part in parts]
    return {
        "venue": parts[0]["venue"],
        "symbol": parts[0]["symbol"],
        "timeframe": timeframe,
        "open_time_ms": since,
        "close_time_ms": since + length,
        "open": parts[0]["open"],
        "high": max(part["high"] for part in parts),
        "low": min(part["low"] for part in parts),
        "close": parts[-1]["close"],
        "volume": volume,
        "quote_volume": quote,
        "vwap": None if quote is None or not volume else quote / volume,
        "trades_count": None if None in counts else sum(counts),
        "is_closed": True,
        "source": "aggregated",
        "ingest_time_ms": max(part["ingest_time_ms"] for part in parts),
    }


def _exactly(numbers: list[float | None]) -> float | None:
    """The float nearest to the true sum."""
    return None if None in numbers else float(sum(map(Fraction, numbers)))  # type: ignore[arg-type]
