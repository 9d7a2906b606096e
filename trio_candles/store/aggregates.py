"""Aggregates of one day: which rows of which day files may have changed, and what they are now.

Only the periods over minutes that changed are looked at: the live feed appends a minute, and nothing has to be read
until it completes a period. What is asked for anew is derived whole.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Any

import attrs
import pyarrow as pa

from trio_candles.candles.aggregation import DayOfMinutes, Kinds, aggregates, periods_of
from trio_candles.candles.model import MINUTE, Candle, Millis, Timeframe
from trio_candles.candles.validation import broken_rule
from trio_candles.store import dayfiles
from trio_candles.store.dayfiles import DayFile
from trio_candles.store.underived import DayLedger

__all__ = ["Minutes", "Outdated", "derived", "outdated"]

log = logging.getLogger(__name__)

Span = tuple[Millis, Millis]


@attrs.frozen
class Outdated:
    """A day file of a higher timeframe, and the periods whose rows may not be what they should."""

    file: DayFile
    periods: list[Span]
    stands: bool
    """Whether one of them has a row by the ledger; otherwise rows can only go, and no minutes are needed for that."""


def outdated(
    base: DayFile, ledger: DayLedger, waiting: Sequence[Millis], timeframes: Iterable[tuple[Timeframe, bool]]
) -> list[Outdated]:
    """What has to be derived of *base*'s day, by the ledger alone.

    *waiting* are the minutes whose candles are about to get into the day file; of each of *timeframes* is given
    whether it has a file of that day.
    """
    kinds = ledger.expected()
    candles = [(minute, Millis(minute + MINUTE)) for minute in waiting]
    # A minute that was not known carried no aggregate, and a period that reaches beyond the mark has never had one.
    # So a row may have to go only where a minute changed that had been known: those are noted.
    found = []
    for timeframe, exists in timeframes:
        noted = set(periods_of(timeframe, ledger.underived, base.day))
        periods = [
            period
            for period in sorted(noted.union(periods_of(timeframe, candles, base.day)))
            if kinds.carries(*period) or (exists and period in noted and (ledger.anew or period[1] <= ledger.mark))
        ]
        if periods:
            stands = any(kinds.carries(*period) for period in periods)
            found.append(Outdated(base.of(timeframe.name), periods, stands))
    return found


@attrs.frozen
class Minutes:
    """The day file of minutes, as it is about to be, and what the other minutes are."""

    times: list[Millis]
    table: pa.Table
    kinds: Kinds

    @classmethod
    def of(cls, table: pa.Table, ledger: DayLedger) -> Minutes:
        """*table*'s rows, and of the rest what *ledger* says."""
        times = dayfiles.times_in(table)
        return cls(times, table, ledger.found(times))

    def columns(self, since: Millis, until: Millis) -> DayOfMinutes:
        """The candles that open in ``[since, until)``."""
        low, high = bisect_left(self.times, since), bisect_left(self.times, until)
        part = self.table.slice(low, high - low)
        names = ("open", "high", "low", "close", "volume", "quote_volume", "trades_count", "ingest_time_ms")
        columns: list[list[Any]] = [part.column(name).to_pylist() for name in names]
        return DayOfMinutes(self.times[low:high], *columns)


def derived(one: Outdated, old: pa.Table | None, minutes: Minutes) -> pa.Table | None:
    """The rows that *one*'s file should have, *old* being those that it has; ``None`` if they are the same."""
    columns = minutes.columns(one.periods[0][0], one.periods[-1][1])
    candles = [
        candle for candle in aggregates(columns, minutes.kinds, one.file.series, one.periods) if _is_sound(candle)
    ]
    new = dayfiles.with_rows(old, {since for since, _ in one.periods}, candles)
    return None if new.equals(dayfiles.table_of([]) if old is None else old) else new


def _is_sound(candle: Candle) -> bool:
    rule = broken_rule(candle, candle.close_time)
    why = None if rule is None else rule.value
    if candle.trades_count is not None and abs(candle.trades_count) >= 2**63:
        why = "more trades than the column takes"
    if why is not None:
        log.error("an aggregate is not stored (%s): %s", why, candle)
    return why is None
