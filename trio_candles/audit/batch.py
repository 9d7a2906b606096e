"""A quick look at many files' rows together: either every rule holds for all of them, or they are looked at closely.

The rules of :mod:`trio_candles.audit.rows` in as few passes as prove them: ``0 < low <= open <= high < inf``
leaves no room for a NaN, and a run of rows one candle apart is in order, aligned, unique and of its day if its first
and last are. Files that fail this are judged by the rules themselves, which say what is wrong and where.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from trio_candles.audit.bits import span_bits
from trio_candles.audit.rows import SOURCES, Columns, Piece, judge_closely
from trio_candles.candles.model import DAY, MINUTE, Timeframe
from trio_candles.store.schema import COLUMNS, STRINGS

__all__ = ["judge"]

_NUMBERS = [name for name in COLUMNS.names if name not in STRINGS]
_NOTHING = pa.scalar(0.0)
_NO_LIMIT = pa.scalar(float("inf"))


def judge(pieces: Sequence[Piece], now: Callable[[], int]) -> None:
    """Hold every row of *pieces* against every rule, and note which minutes each has."""
    by_timeframe: dict[str, list[Piece]] = {}
    for piece in pieces:
        if piece.table.num_rows:
            by_timeframe.setdefault(piece.series.timeframe, []).append(piece)
    for timeframe, alike in by_timeframe.items():
        if not _all_sound(alike, int(Timeframe.parse(timeframe).length), now):
            judge_closely(alike, now)


def _all_sound(pieces: Sequence[Piece], length: int, now: Callable[[], int]) -> bool:
    """Whether certainly no rule is broken; if so, the minutes of each piece are noted."""
    if not all(_strings_sound(piece) for piece in pieces):
        return False
    batch = pa.concat_tables([piece.table.select(_NUMBERS) for piece in pieces]).combine_chunks()
    columns: Columns = {name: batch.column(name).chunk(0) for name in _NUMBERS}
    # The clock is asked after the files were read: beside a collector the rows may be newer than the audit.
    return _times_sound(pieces, columns, length, now()) and all(_all(holds) for holds in _number_rules(columns, length))


def _strings_sound(piece: Piece) -> bool:
    """Whether every row names its own series and a source; a column of one word is as quick as one row."""
    series = piece.series
    expected = ({series.venue}, {series.symbol}, {series.timeframe}, SOURCES[series.timeframe == "1m"])
    return all(_words(piece.table, name) <= words for name, words in zip(STRINGS, expected, strict=True))


def _words(table: pa.Table, name: str) -> set[object]:
    words: set[object] = set()
    for chunk in table.column(name).chunks:
        values = chunk.dictionary if isinstance(chunk, pa.DictionaryArray) else chunk.unique()
        words.update(values.to_pylist())
    return words


def _number_rules(c: Columns, length: int) -> Iterator[Any]:
    """For each rule, whether every row keeps it; null where the rule does not apply to a row."""
    o, high, low, close = c["open"], c["high"], c["low"], c["close"]
    yield pc.equal(pc.subtract(c["close_time_ms"], c["open_time_ms"]), pa.scalar(length))
    yield pc.greater(low, _NOTHING)
    yield pc.less_equal(low, o)
    yield pc.less_equal(low, close)
    yield pc.less_equal(o, high)
    yield pc.less_equal(close, high)
    yield pc.less(high, _NO_LIMIT)
    for name in ("volume", "quote_volume"):
        yield pc.greater_equal(c[name], _NOTHING)
        yield pc.less(c[name], _NO_LIMIT)
    yield pc.greater(c["vwap"], _NOTHING)
    yield pc.less(c["vwap"], _NO_LIMIT)
    yield pc.greater_equal(c["trades_count"], pa.scalar(0))
    yield c["is_closed"]


def _all(holds: Any) -> bool:  # noqa: ANN401
    return bool(pc.all(holds, min_count=0).as_py())


def _times_sound(pieces: Sequence[Piece], columns: Columns, length: int, now: int) -> bool:
    """Whether the rows of each piece are of its day, aligned, past, in order and unique; then notes its minutes."""
    opens = columns["open_time_ms"]
    bounds = [0, *accumulate(piece.table.num_rows for piece in pieces)]
    apart = pc.not_equal(pc.subtract(opens[1:], opens[:-1]), pa.scalar(length))
    starts = sorted({*bounds[:-1], *(at + 1 for at in pc.indices_nonzero(apart).to_pylist())})
    begins = opens.take(pa.array(starts, pa.int64())).to_pylist()
    # A run ends where the next one starts, so the time of its last row follows from its length.
    found = iter(zip(begins, pairwise([*starts, bounds[-1]]), strict=True))
    for piece, end in zip(pieces, bounds[1:], strict=True):
        day = piece.cell.day
        bits, reached = 0, day
        for since, (low, high) in found:
            until = since + (high - low) * length
            if since % length or not reached <= since < until <= day + DAY or until - length > now:
                return False
            bits |= span_bits(since, until, day)
            piece.first = since if low == end - piece.table.num_rows else piece.first
            piece.last, reached = until - length, until
            if high == end:
                break
        piece.bits = bits if length == MINUTE else 0
    return True
