"""The fold of one day's 1m candles into higher timeframes: complete, or nothing.

An aggregate exists only if each minute of its period is known to be a stored candle or empty, and at least one is a
candle. It is computed from the stored values alone, so whoever has the day file of minutes can derive the same
aggregate again, to the bit.

Pure. Folding a whole day into five timeframes takes a few ms: the minutes come as columns and never become objects,
because most of them are only summed up.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from math import fsum, inf

import attrs

from trio_candles.candles.intervals import Interval, clip, periods
from trio_candles.candles.model import DAY, MINUTE, Candle, Millis, Series, Source, Timeframe

__all__ = ["DayOfMinutes", "Kinds", "aggregates", "periods_of"]

Span = tuple[Millis, Millis]

_UNKNOWN, _EMPTY, _STORED = 0, 1, 2


class Kinds:
    """What each of a day's 1,440 minutes is: stored, empty, or unknown, which each of them is at first."""

    def __init__(self, day: Millis) -> None:
        self._day = day
        self._kinds = bytearray(DAY // MINUTE)

    def empty(self, since: int, until: int) -> None:
        """Mark the day's minutes in ``[since, until)`` as empty."""
        self._fill(since, until, _EMPTY)

    def stored(self, since: int, until: int) -> None:
        """Mark the day's minutes in ``[since, until)`` as stored."""
        self._fill(since, until, _STORED)

    def stored_at(self, minutes: Iterable[int]) -> None:
        """Mark each of *minutes*, open times in the day, as stored."""
        for minute in minutes:
            self._kinds[(minute - self._day) // MINUTE] = _STORED

    def unknown(self, since: int, until: int) -> None:
        """Mark the day's minutes in ``[since, until)`` as unknown."""
        self._fill(since, until, _UNKNOWN)

    def _fill(self, since: int, until: int, kind: int) -> None:
        low, high = self._position(since), self._position(until)
        if low < high:
            self._kinds[low:high] = bytes([kind]) * (high - low)

    def _position(self, time: int) -> int:
        return min(max((time - self._day) // MINUTE, 0), len(self._kinds))

    def has_aggregate(self, since: int, until: int) -> bool:
        """Whether ``[since, until)``, a period in the day, has an aggregate: all minutes known, and not all empty."""
        low, high = self._position(since), self._position(until)
        return self._kinds.find(_UNKNOWN, low, high) < 0 and self._kinds.find(_STORED, low, high) >= 0


@attrs.frozen
class DayOfMinutes:
    """The stored minutes of one UTC day, or of a part of it, as columns in the order of their times."""

    opens: Sequence[int]
    """Open times in ms, ascending."""
    open: Sequence[float]
    high: Sequence[float]
    low: Sequence[float]
    close: Sequence[float]
    volume: Sequence[float]
    quote_volume: Sequence[float | None]
    trades_count: Sequence[int | None]
    ingest: Sequence[int]

    @classmethod
    def of(cls, candles: Sequence[Candle]) -> DayOfMinutes:
        """*candles*, ascending, as columns."""
        return cls(
            [c.open_time for c in candles], [c.open for c in candles], [c.high for c in candles],
            [c.low for c in candles], [c.close for c in candles], [c.volume for c in candles],
            [c.quote_volume for c in candles], [c.trades_count for c in candles], [c.ingest_time for c in candles],
        )  # fmt: skip

    def fold(self, series: Series, since: Millis, until: Millis) -> Candle:
        """One candle of *series* from the minutes that open in ``[since, until)``, at least one of which is stored.

        A sum that is too large for a float becomes infinite, which makes the candle one that validation rejects.
        """
        a, b = bisect_left(self.opens, since), bisect_left(self.opens, until)
        quotes, counts = self.quote_volume[a:b], self.trades_count[a:b]
        volume = _sum(self.volume[a:b])
        quote = None if None in quotes else _sum(quotes)  # type: ignore[arg-type]  # there is no None
        vwap = None if quote is None or volume == 0 else quote / volume
        count = None if None in counts else sum(counts)  # type: ignore[arg-type]  # there is no None
        return Candle(
            series, since, self.open[a], max(self.high[a:b]), min(self.low[a:b]), self.close[b - 1],
            volume, quote, vwap, count, Source.AGGREGATED, Millis(max(self.ingest[a:b])), until,
        )  # fmt: skip


def periods_of(timeframe: Timeframe, spans: Iterable[Interval], day: Millis) -> Iterator[Span]:
    """The periods of *timeframe* in *day* that one of *spans* touches, ascending, each once."""
    for since in periods(clip(sorted(spans), day, day + DAY), timeframe.length):
        yield Millis(since), Millis(since + timeframe.length)


def aggregates(minutes: DayOfMinutes, kinds: Kinds, series: Series, periods: Iterable[Span]) -> Iterator[Candle]:
    """The candles of *series*, of a higher timeframe: one for each of *periods* that has an aggregate."""
    for since, until in periods:
        if kinds.has_aggregate(since, until):
            yield minutes.fold(series, since, until)


def _sum(numbers: Sequence[float]) -> float:
    try:
        return fsum(numbers)
    except OverflowError:
        return inf
