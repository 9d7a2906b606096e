"""The rules that every row obeys, checked on many files' rows at once.

Written anew from the contract, not shared with the collector's own validation: what one of the two gets wrong
the other finds. Checking one small table after another costs more than reading them, so the rows of a batch
are put together first and each keeps the number of the piece that it came from. Nearly always nothing is wrong, and
then this module is not needed: see :mod:`trio_candles.audit.batch`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import attrs
import pyarrow as pa
import pyarrow.compute as pc

from trio_candles.audit.bits import span_bits
from trio_candles.audit.files import Cell
from trio_candles.audit.report import Kind, Violation
from trio_candles.candles.model import DAY, MINUTE, Series, Timeframe
from trio_candles.store.schema import COLUMNS

__all__ = ["MOST_RANGES", "SOURCES", "Columns", "Piece", "judge_closely", "values"]

Columns = dict[str, Any]
"""Arrow arrays by name (the stubs cannot say of which type)."""

SOURCES = {True: frozenset({"websocket", "rest"}), False: frozenset({"aggregated"})}
"""Where rows may come from, by whether they are minutes."""
MOST_RANGES = 20
"""Violations of one kind in one file; more are reported as one range from the first to the last."""


@attrs.define
class Piece:
    """Rows that lie together: a day file, or what the journal holds for one."""

    cell: Cell
    series: Series
    path: str
    table: pa.Table
    account: bytes | None = None
    """The account in the file's metadata."""
    violations: list[Violation] = attrs.field(factory=list)
    """What the rules found; this and the fields below are filled by judging."""
    bits: int = 0
    """The minutes of the day for which there is a 1m row."""
    first: int | None = None
    last: int | None = None
    rows: int = attrs.field()
    """How many there are. Of a file with a receipt these are not in ``table``."""

    @rows.default
    def _count(self) -> int:
        return self.table.num_rows

    @property
    def orderly(self) -> bool:
        """Whether rows can be looked up by their time: each is of this day and series, once, in order."""
        return not any(v.kind in ("wrong_partition", "unsorted", "duplicate") for v in self.violations)


def values(table: pa.Table, column: str) -> list[Any]:
    """A column as Python values."""
    found = table.column(column)
    code: Any = {pa.int64(): "q", pa.float64(): "d"}.get(found.type)
    if code is None or found.null_count or found.num_chunks != 1:
        return found.to_pylist()
    # Ten times as quick as to_pylist, which makes an Arrow scalar of every value.
    chunk: Any = found.chunk(0)
    numbers: list[Any] = memoryview(chunk.buffers()[1]).cast(code)[chunk.offset : chunk.offset + len(chunk)].tolist()
    return numbers


def judge_closely(filled: Sequence[Piece], now: Callable[[], int]) -> None:
    """Hold every row of *filled*, none of which is empty, against every rule, and say where one is broken."""
    for piece in filled:
        piece.first = piece.last = None
        piece.bits = 0
    batch = pa.concat_tables([piece.table.cast(COLUMNS) for piece in filled]).combine_chunks()
    columns: Columns = {name: batch.column(name).chunk(0) for name in batch.column_names}
    columns["piece"] = pa.concat_arrays(
        [pa.repeat(pa.scalar(number, pa.int32()), piece.table.num_rows) for number, piece in enumerate(filled)]
    )
    found = _Found(filled, columns)
    for kind, words, broken in _row_rules(columns, _Expected.of(filled, columns["piece"]), now()):
        found.note(kind, words, broken)
    _note_disorder(found)
    _note_extent(found)
    found.report()


@attrs.frozen
class _Expected:
    """What each row must be, by the folder and the file in which it lies."""

    venue: Any
    symbol: Any
    timeframe: Any
    length: Any
    day: Any
    base: Any
    """Whether it is a 1m row."""

    @classmethod
    def of(cls, pieces: Sequence[Piece], index: Any) -> _Expected:  # noqa: ANN401
        def spread(values: list[Any]) -> Any:  # noqa: ANN401
            return pc.take(pa.array(values), index)

        return cls(
            spread([piece.series.venue for piece in pieces]),
            spread([piece.series.symbol for piece in pieces]),
            spread([piece.series.timeframe for piece in pieces]),
            spread([int(Timeframe.parse(piece.series.timeframe).length) for piece in pieces]),
            spread([piece.cell.day for piece in pieces]),
            spread([piece.series.timeframe == "1m" for piece in pieces]),
        )


def _row_rules(c: Columns, expected: _Expected, now: int) -> Iterator[tuple[Kind, str, Any]]:
    """The rules of one row by itself, each with the rows that break it.

    Comparisons with NaN are false, so what must hold is asked for and then inverted.
    """
    open_ms, o, high, low, close = c["open_time_ms"], c["open"], c["high"], c["low"], c["close"]
    yield "wrong_partition", "another venue than the folder's", pc.not_equal(c["venue"], expected.venue)
    yield "wrong_partition", "another symbol than the folder's", pc.not_equal(c["symbol"], expected.symbol)
    yield (
        "wrong_partition",
        "another timeframe than the folder's",
        pc.not_equal(c["timeframe"], expected.timeframe),
    )
    yield (
        "wrong_partition",
        "not of the file's day",
        pc.or_(
            pc.less(open_ms, expected.day),
            pc.greater_equal(open_ms, pc.add(expected.day, pa.scalar(int(DAY)))),
        ),
    )
    yield "not_closed", "is_closed is false", pc.invert(c["is_closed"])
    whole = pc.multiply(pc.divide(open_ms, expected.length), expected.length)
    yield "invalid_candle", "open_time_ms is not aligned", pc.not_equal(open_ms, whole)
    end = pc.add(open_ms, expected.length)
    yield "invalid_candle", "close_time_ms is not the candle's end", pc.not_equal(c["close_time_ms"], end)
    yield "invalid_candle", "opens in the future", pc.greater(open_ms, pa.scalar(now))
    for name in ("open", "high", "low", "close", "volume"):
        yield "invalid_candle", f"{name} is not finite", pc.invert(pc.is_finite(c[name]))
    for name in ("open", "high", "low", "close"):
        yield "invalid_candle", f"{name} is not above zero", pc.less_equal(c[name], pa.scalar(0.0))
    yield "invalid_candle", "volume is below zero", pc.less(c["volume"], pa.scalar(0.0))
    yield "invalid_candle", "high < low", pc.less(high, low)
    yield "invalid_candle", "high < open", pc.less(high, o)
    yield "invalid_candle", "high < close", pc.less(high, close)
    yield "invalid_candle", "low > open", pc.greater(low, o)
    yield "invalid_candle", "low > close", pc.greater(low, close)
    # vwap is not held against high and low: Kraken truncates it to a tick.
    quote, vwap = c["quote_volume"], c["vwap"]
    yield "invalid_candle", "quote_volume is not finite", pc.invert(pc.is_finite(quote))
    yield "invalid_candle", "quote_volume is below zero", pc.less(quote, pa.scalar(0.0))
    yield "invalid_candle", "vwap is not finite", pc.invert(pc.is_finite(vwap))
    yield "invalid_candle", "vwap is not above zero", pc.less_equal(vwap, pa.scalar(0.0))
    yield "invalid_candle", "trades_count is below zero", pc.less(c["trades_count"], pa.scalar(0))
    from_venue = pc.is_in(c["source"], pa.array(sorted(SOURCES[True])))
    derived = pc.is_in(c["source"], pa.array(sorted(SOURCES[False])))
    wrong = pc.invert(pc.if_else(expected.base, from_venue, derived))
    yield "invalid_candle", "source is not one of this timeframe's", wrong


def _note_disorder(found: _Found) -> None:
    """Note rows that open before the row before them, or at the same time as another row of their piece."""
    opens, index = found.columns["open_time_ms"], found.columns["piece"]
    together = pc.equal(index[1:], index[:-1])
    back = pc.and_(together, pc.less(opens[1:], opens[:-1]))
    again = pc.and_(together, pc.equal(opens[1:], opens[:-1]))
    first = pa.array([False])
    found.note("unsorted", "opens before the row before it", pa.concat_arrays([first, back]))
    found.note("duplicate", "the same open time again", pa.concat_arrays([first, again]))
    for number in found.pieces_with("unsorted"):
        # Among unsorted rows a duplicate need not be a neighbour.
        times = values(found.pieces[number].table, "open_time_ms")
        for time, count in Counter(times).items():
            if count > 1:
                found.add(number, "duplicate", time, "the same open time again")


def _note_extent(found: _Found) -> None:
    """Note which minutes each piece has, run by run: a dense day is one run, however many rows."""
    opens, index = found.columns["open_time_ms"], found.columns["piece"]
    step = pc.not_equal(pc.subtract(opens[1:], opens[:-1]), pa.scalar(int(MINUTE)))
    breaks = pc.indices_nonzero(pc.or_(step, pc.not_equal(index[1:], index[:-1]))).to_pylist()
    starts = [0, *(at + 1 for at in breaks)]
    ends = [*breaks, len(opens) - 1]
    froms, tos = opens.take(pa.array(starts)).to_pylist(), opens.take(pa.array(ends)).to_pylist()
    for number, since, last in zip(index.take(pa.array(starts)).to_pylist(), froms, tos, strict=True):
        piece = found.pieces[number]
        piece.first = since if piece.first is None else min(piece.first, since)
        piece.last = last if piece.last is None else max(piece.last, last)
        if piece.series.timeframe == "1m":
            # An unaligned row stands for the minute it opens in: invalid, but not silently missing as well.
            piece.bits |= span_bits(since, last - last % MINUTE + MINUTE, piece.cell.day)


@attrs.define
class _Found:
    """Broken rules by piece and kind, until they become violations of ranges."""

    pieces: Sequence[Piece]
    columns: Columns
    rows: dict[tuple[int, Kind], dict[int, list[str]]] = attrs.field(factory=dict)

    def note(self, kind: Kind, words: str, broken: Any) -> None:  # noqa: ANN401
        """*broken* is true where a row breaks the rule; null where it does not apply."""
        if not pc.any(broken).as_py():
            return
        at = pc.indices_nonzero(pc.fill_null(broken, False))
        numbers = self.columns["piece"].take(at).to_pylist()
        for number, time in zip(numbers, self.columns["open_time_ms"].take(at).to_pylist(), strict=True):
            self.add(number, kind, time, words)

    def add(self, number: int, kind: Kind, time: int, words: str) -> None:
        """The row at *time* of piece *number* breaks a rule."""
        broken = self.rows.setdefault((number, kind), {}).setdefault(time, [])
        if words not in broken:
            broken.append(words)

    def pieces_with(self, kind: Kind) -> list[int]:
        """The numbers of the pieces that have rows of this *kind*."""
        return [number for number, noted in self.rows if noted == kind]

    def report(self) -> None:
        """Put the violations into their pieces, neighbours joined."""
        for (number, kind), rows in self.rows.items():
            piece = self.pieces[number]
            length = Timeframe.parse(piece.series.timeframe).length
            ranges: list[tuple[int, int, list[int]]] = []
            for time in sorted(rows):
                if ranges and time <= ranges[-1][1]:
                    since, _, members = ranges.pop()
                    ranges.append((since, time + length, [*members, time] if len(members) < 9 else members))
                else:
                    ranges.append((time, time + length, [time]))
            if len(ranges) > MOST_RANGES:
                ranges = [(ranges[0][0], ranges[-1][1], [member for one in ranges for member in one[2]])]
            for since, until, members in ranges:
                words = sorted({word for time in members for word in rows[time]})
                affected = sum(since <= time < until for time in rows)
                piece.violations.append(
                    Violation(
                        kind, piece.path, f"{affected} row{'s' * (affected != 1)}: {', '.join(words)}",
                        venue=piece.series.venue, symbol=piece.series.symbol, timeframe=piece.series.timeframe,
                        start_ms=since, end_ms=until,
                    )
                )  # fmt: skip
