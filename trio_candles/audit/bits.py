"""A day's minutes as the bits of one integer: bit *i* is the minute that opens *i* minutes after midnight.

Set algebra on 1,440 minutes is then one operation on 180 bytes, and "exactly one of" is readable: ``a & b`` is the
contradiction, ``expected & ~(a | b)`` the silent gap. All other rooms count in intervals
(:mod:`trio_candles.candles.intervals`); the audit does not, so that it does not share their mistakes.
"""

from __future__ import annotations

from collections.abc import Iterator

from trio_candles.candles.model import DAY, MINUTE

__all__ = ["LATEST", "days_of", "runs", "span_bits"]

LATEST = 10_413_792_000_000
"""The year 2300 (accelerated clocks run ahead), in Unix ms: a later time is a mistake, and no span is followed
further."""


def span_bits(since: int, until: int, day: int) -> int:
    """The minutes of *day* that ``[since, until)`` touches."""
    low = max(0, (since - day) // MINUTE)
    high = min(DAY // MINUTE, -((day - until) // MINUTE))
    return ((1 << (high - low)) - 1) << low if high > low else 0


def days_of(since: int, until: int) -> range:
    """The first instants of the days that ``[since, until)`` touches."""
    return range(since - since % DAY, until, DAY) if since < until else range(0)


def runs(bits: int) -> Iterator[tuple[int, int]]:
    """The runs of set bits as ``[low, high)``, lowest first."""
    at = 0
    while bits:
        skipped = (bits & -bits).bit_length() - 1
        bits >>= skipped
        length = (~bits & (bits + 1)).bit_length() - 1
        yield at + skipped, at + skipped + length
        bits >>= length
        at += skipped + length
