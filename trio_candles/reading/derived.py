"""Which candles of higher timeframes a row of the change feed completes or changes.

Decided from the row alone, by what it says was known around its span when it was committed: so whoever reads the feed
again, from wherever, finds the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from trio_candles.candles.model import MINUTE
from trio_candles.store.feed import KNOWING, Around, Kind, Row

__all__ = ["Derived", "derived"]


class Derived(NamedTuple):
    """A candle of a higher timeframe, changed by the minute that has the number ``seq``."""

    seq: int
    side: int
    """1 for the second candle of its timeframe that the same number completes, else 0."""
    kind: Kind
    """Closed, filled or revised."""
    open: int
    """Its open time in Unix ms."""


def derived(row: Row, length: int) -> Iterator[Derived]:
    """The candles of *length* ms that *row* completes or changes, oldest first.

    A candle is completed by the row after which all of its minutes are known, if one of them is a candle; by the last
    of the row's minutes that it has. ``ValueError`` if *row* is not as it was written.
    """
    seq, kind, _, since, minutes, _, text, *_ = row
    if kind not in KNOWING and kind != Kind.REVISED:
        return
    until = since + minutes * MINUTE
    if text is None and minutes == 1 and until % length:
        return  # nothing after the minute was known, and no candle ends with it
    around = Around.parse(text)
    low, high = since - around.known_before * MINUTE, until + around.known_after * MINUTE
    first, last = since - since % length, until - MINUTE - (until - MINUTE) % length
    has_candles = kind not in (Kind.EMPTY, Kind.UNLISTED)
    # Of a span without candles, the first and the last period reach over it; the others have no candle at all.
    for begin in range(first, last + 1, length) if has_candles else sorted({first, last}):
        end = begin + length
        if begin < low or end > high:
            continue
        if kind == Kind.REVISED:
            yield Derived(seq, 0, Kind.REVISED, begin)
        elif has_candles or _within(begin, end, since, until, around.candle_before, around.candle_after):
            filled = kind == Kind.FILLED or _within(begin, end, since, until, around.filled_before, around.filled_after)
            number = seq + (min(end, until) - since) // MINUTE - 1 if has_candles else seq
            side = 0 if has_candles or begin == first else 1
            yield Derived(number, side, Kind.FILLED if filled else Kind.CLOSED, begin)


def _within(begin: int, end: int, since: int, until: int, before: int, after: int) -> bool:
    """Whether ``[begin, end)`` has the minute that began *before* minutes before *since*, or the one that ended *after*
    minutes after *until*; 0 is no minute.
    """
    return bool((before and since - before * MINUTE >= begin) or (after and until + after * MINUTE <= end))
