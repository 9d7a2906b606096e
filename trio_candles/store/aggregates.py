"""Aggregates of one day: which rows of which day files may have changed, and what they are now.

Only the periods over minutes that changed are looked at: the live feed appends a minute, and nothing has to be read
until a minute completes a period. A day of which nothing is known is derived whole.
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
    has_rows: bool
    """Whether by the ledger one of the periods has a row; if not, rows are only removed, which needs no minutes."""


def outdated(
    base: DayFile, ledger: DayLedger, waiting: Sequence[Millis], timeframes: Iterable[tuple[Timeframe, bool]]
) -> list[Outdated]:
    """What has to be derived of *base*'s day, by the ledger alone.

    *waiting* are the minutes whose candles are about to be written to the day file; *timeframes* gives each timeframe
    and whether it has a file of that day.
    """
    kinds = ledger.expected()
    candles = [(minute, Millis(minute + MINUTE)) for minute in waiting]
    # A period with an unknown minute had no aggregate, and a period that reaches beyond the mark has never had one. So
    # a row may have to be removed only where a known minute changed: such changes are noted.
    found = []
    for timeframe, exists in timeframes:
        noted = set(periods_of(timeframe, ledger.underived, base.day))
        periods = [
            period
            for period in sorted(noted.union(periods_of(timeframe, candles, base.day)))
            if kinds.has_aggregate(*period)
            or (exists and period in noted and (ledger.wholly_underived or period[1] <= ledger.mark))
        ]
        if periods:
            has_rows = any(kinds.has_aggregate(*period) for period in periods)
            found.append(Outdated(base.of(timeframe.name), periods, has_rows))
    return found


@attrs.frozen
class Minutes:
    """The rows that the day file of minutes will have, and the kinds of all minutes of the day."""

    times: list[Millis]
    table: pa.Table
    kinds: Kinds

    @classmethod
    def of(cls, table: pa.Table, ledger: DayLedger) -> Minutes:
        """The minutes of a day whose rows are *table*; the other minutes are what *ledger* says."""
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
    """The rows that the file of *one* should have, *old* being the rows that it has; ``None`` if nothing changes."""
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
