"""The contract's rules for one candle: a candle goes in, the name of the rule it breaks comes out, or nothing.

Pure and total: any floats, any integers. Duplicates and order depend on what is stored and are judged by
the store; everything that a candle shows by itself is judged here, once where the candle is assembled and once more
before it is written.
"""

from __future__ import annotations

from enum import StrEnum
from math import isfinite

from trio_candles.candles.model import Candle, Millis, Timeframe

__all__ = ["Rule", "broken_rule"]


class Rule(StrEnum):
    """Why a candle is rejected; logs, counters and gaps carry the value."""

    NOT_FINITE = "not_finite"
    NONPOSITIVE_PRICE = "nonpositive_price"
    NEGATIVE_VOLUME = "negative_volume"
    HIGH_BELOW_LOW = "high_below_low"
    HIGH_BELOW_OPEN = "high_below_open"
    HIGH_BELOW_CLOSE = "high_below_close"
    LOW_ABOVE_OPEN = "low_above_open"
    LOW_ABOVE_CLOSE = "low_above_close"
    UNALIGNED = "unaligned"
    WRONG_CLOSE_TIME = "wrong_close_time"
    IN_FUTURE = "in_future"
    NOT_CLOSED = "not_closed"
    DUPLICATE = "duplicate"
    """An equal candle of the minute is stored: skipped."""
    CONFLICT = "conflict"
    """A different candle of the minute is stored, or the minute is called empty: the ledger keeps both, what is stored
    stays."""
    OUT_OF_ORDER = "out_of_order"
    """Older than the first minute that the ledger accounts for."""


def broken_rule(candle: Candle, now: Millis) -> Rule | None:
    """The first rule that *candle* breaks, or ``None``; *now* is the service's clock.

    ``ValueError`` if the timeframe of the candle's series is no timeframe: that is a bug, not a bad candle.
    """
    o, h, low, c, v = candle.open, candle.high, candle.low, candle.close, candle.volume
    # Not-a-number compares false with everything, so this test must come before every comparison below.
    if not (isfinite(o) and isfinite(h) and isfinite(low) and isfinite(c) and isfinite(v)):
        return Rule.NOT_FINITE
    for optional in (candle.quote_volume, candle.vwap):
        if optional is not None and not isfinite(optional):
            return Rule.NOT_FINITE
    if o <= 0 or h <= 0 or low <= 0 or c <= 0:
        return Rule.NONPOSITIVE_PRICE
    if v < 0:
        return Rule.NEGATIVE_VOLUME
    if h < low:
        return Rule.HIGH_BELOW_LOW
    if h < o:
        return Rule.HIGH_BELOW_OPEN
    if h < c:
        return Rule.HIGH_BELOW_CLOSE
    if low > o:
        return Rule.LOW_ABOVE_OPEN
    if low > c:
        return Rule.LOW_ABOVE_CLOSE
    return _broken_time_rule(candle, now)


def _broken_time_rule(candle: Candle, now: Millis) -> Rule | None:
    length = _LENGTH.get(candle.series.timeframe) or Timeframe.parse(candle.series.timeframe).length
    if candle.open_time % length:
        return Rule.UNALIGNED
    if candle.close_time != candle.open_time + length:
        return Rule.WRONG_CLOSE_TIME
    if candle.open_time > now:
        return Rule.IN_FUTURE
    if not candle.is_closed:
        return Rule.NOT_CLOSED
    return None


_LENGTH = {name: Timeframe.parse(name).length for name in ("1m", "5m", "15m", "1h", "4h", "1d")}
