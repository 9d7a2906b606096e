"""The fold of a day's minutes into a higher timeframe, a column at a time: a quick proof that all aggregates are right.

Nearly always they are, and then comparing whole columns is ten times as quick as going row by row, which is left for
days on which something is wrong (:mod:`trio_candles.audit.account`). Sums are ``fsum`` either way: an aggregate is
right to the bit or not at all.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from math import fsum
from typing import Any

import pyarrow as pa

from trio_candles.audit.rows import values
from trio_candles.candles.model import DAY, MINUTE

__all__ = ["follows"]


def follows(
    table: pa.Table, length: int, day: int, stored: int, empty: int, opens: Sequence[int], columns: Mapping[str, Any]
) -> bool:
    """Whether *table* holds exactly the aggregates of *length* ms that follow from a day's *stored* minutes.

    *opens* and *columns* are the open times and values of the stored minutes; *stored* and *empty* are minutes as bits.
    ``False`` decides nothing.
    """
    steps = length // MINUTE
    whole, known = (1 << steps) - 1, stored | empty
    due = [
        day + at * MINUTE
        for at in range(0, DAY // MINUTE, steps)
        if (known >> at) & whole == whole and (stored >> at) & whole
    ]
    if values(table, "open_time_ms") != due:
        return False
    cuts = list(zip(_positions(opens, due), _positions(opens, [time + length for time in due]), strict=True))
    try:
        return all(values(table, name) == column for name, column in _folded(columns, cuts))
    except OverflowError:
        return False


def _folded(columns: Mapping[str, Any], cuts: Sequence[tuple[int, int]]) -> Sequence[tuple[str, list[Any]]]:
    o, high, low, close = (columns[name] for name in ("open", "high", "low", "close"))
    volume, quotes = columns["volume"], columns["quote_volume"]
    trades, ingest = columns["trades_count"], columns["ingest_time_ms"]
    volumes = [fsum(volume[a:b]) for a, b in cuts]
    totals = _where_whole(quotes, cuts, fsum)
    return [
        ("open", [o[a] for a, _ in cuts]),
        ("high", [max(high[a:b]) for a, b in cuts]),
        ("low", [min(low[a:b]) for a, b in cuts]),
        ("close", [close[b - 1] for _, b in cuts]),
        ("volume", volumes),
        ("quote_volume", totals),
        ("vwap", [None if q is None or v == 0 else q / v for q, v in zip(totals, volumes, strict=True)]),
        ("trades_count", _where_whole(trades, cuts, sum)),
        ("ingest_time_ms", [max(ingest[a:b]) for a, b in cuts]),
    ]


def _where_whole(column: Sequence[Any], cuts: Sequence[tuple[int, int]], total: Any) -> list[Any]:  # noqa: ANN401
    """The *total* of each part of *column*, ``None`` for a part in which a value is ``None``."""
    if None not in column:
        return [total(column[a:b]) for a, b in cuts]
    return [None if None in column[a:b] else total(column[a:b]) for a, b in cuts]


def _positions(opens: Sequence[int], times: Sequence[int]) -> list[int]:
    """How many of the sorted *opens* are before each of *times*."""
    if opens and opens[-1] - opens[0] == (len(opens) - 1) * MINUTE:
        first, count = opens[0], len(opens)  # a dense day needs no search
        return [min(max(-((first - time) // MINUTE), 0), count) for time in times]
    return [bisect_left(opens, time) for time in times]
