"""Each aggregate is the fold of its minutes; one is there if and only if all its minutes are known."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Set
from pathlib import Path

from simulation.stored import LENGTHS, MINUTE, Row, rows_of
from simulation.trace import Broken

__all__ = ["expected_folds", "judge_aggregates"]


def judge_aggregates(
    root: Path,
    venue: str,
    symbol: str,
    timeframes: Iterable[str],
    minutes: Mapping[int, Row],
    unknown: Set[int],
    bounds: tuple[int, int, int],
    now: int,
) -> int:
    """Raise :class:`Broken` if one is missing that belongs to *timeframes*, or one stands on what is not known.

    *bounds*: from when on minutes are known to be something, the first and the last expected one. How many there are.
    """
    count = 0
    for timeframe in LENGTHS:
        if timeframe == "1m":
            continue
        stored = rows_of(root, venue, symbol, timeframe, now)
        name = f"{venue} {symbol} {timeframe}"
        expected = expected_folds(LENGTHS[timeframe] * MINUTE, minutes, unknown, bounds)
        missing = sorted(set(expected) - set(stored))
        # What an older configuration derived may stay, as it should be, or partly go with what it stood on.
        if missing and timeframe in timeframes:
            raise Broken("aggregates", f"{name}: {missing[0]} is missing, and all is known of it")
        if surplus := sorted(set(stored) - set(expected)):
            raise Broken("aggregates", f"{name}: {surplus[0]} is stored, and not all is known of it")
        for time, row in stored.items():
            found = {key: row[key] for key in expected[time]}
            if found != expected[time]:
                raise Broken("aggregates", f"{name}: {time} is {found}, folded it is {expected[time]}")
        count += len(stored)
    return count


def expected_folds(
    length: int, minutes: Mapping[int, Row], unknown: Set[int], bounds: tuple[int, int, int]
) -> dict[int, Row]:
    """All that there should be, by the time of opening."""
    known_from, _, mark = bounds
    expected = {}
    for time in sorted({minute // length * length for minute in minutes}):
        span = range(time, time + length, MINUTE)
        if time >= known_from and time + length <= mark and unknown.isdisjoint(span):
            expected[time] = _fold([minutes[minute] for minute in span if minute in minutes])
    return expected


def _fold(parts: list[Row]) -> Row:
    """The contract's 5.5, once more by hand."""
    volume = math.fsum(part["volume"] for part in parts)
    quotes = [part["quote_volume"] for part in parts]
    quote = None if None in quotes else math.fsum(quotes)
    counts = [part["trades_count"] for part in parts]
    return {
        "open": parts[0]["open"],
        "high": max(part["high"] for part in parts),
        "low": min(part["low"] for part in parts),
        "close": parts[-1]["close"],
        "volume": volume,
        "quote_volume": quote,
        "vwap": None if quote is None or not volume else quote / volume,
        "trades_count": None if None in counts else sum(counts),
        "source": "aggregated",
        "ingest_time_ms": max(part["ingest_time_ms"] for part in parts),
    }
