"""The change feed's rows, as the journal's table ``change`` has them: everything that became known, in the order of the
commits. Written by :mod:`.changes` in the transaction that makes the verdict durable; read by
:mod:`trio_candles.reading.changes`.

A row has no candle: values are read where they lie. It has the position in the feed of its first minute (``seq``), the
kind, the series, the span, and the time of the commit on the service's clock.

A row that makes minutes known also has what was known *around* its span at that moment, within the UTC day: from that
alone a reader decides, for any timeframe, which candles were completed by it. So the feed can be read from any position
on, and gives the same again.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from enum import IntEnum

import attrs

from trio_candles.candles.model import DAY, MINUTE

__all__ = ["DENSE", "KNOWING", "RUNS", "WHOLE", "Around", "Kind", "Row", "check_of", "last_seq"]


class Kind(IntEnum):
    """What became known; ``name`` in lower case is the contract's ``event``."""

    CLOSED = 1
    """A minute's first verdict, of the live feed: a candle."""
    FILLED = 2
    """A gap became a candle."""
    REVISED = 3
    """Another candle replaced what was stored, or called empty."""
    EMPTY = 4
    GAP = 5
    UNFILLABLE = 6
    UNLISTED = 7
    """Minutes before the venue's market began: nobody expects them."""
    DELISTED = 8


RUNS = frozenset({Kind.CLOSED, Kind.FILLED, Kind.REVISED})
"""Kinds whose rows take as many numbers as they have minutes; a row of any other kind takes one."""
KNOWING = frozenset({Kind.CLOSED, Kind.FILLED, Kind.EMPTY, Kind.UNLISTED})
"""Kinds by which minutes that were not known are known from then on."""

Row = tuple[int, int, int, int, int, int, str | None, str | None, int | None]
"""seq, kind, series id, since in ms, how many minutes, time of the commit in ms, around, detail, id of the revision."""

WHOLE = DAY // MINUTE
"""A day in minutes."""


@attrs.frozen
class Around:
    """What was known around the span of a row when it was committed, in minutes, within the UTC day of the span's begin
    and of its end; 0 for none.
    """

    known_before: int = WHOLE
    """How many minutes directly before the span were known: candles, empty, or before the market began."""
    known_after: int = 0
    candle_before: int = 0
    """The nearest known candle before the span began this many minutes before the span's begin; noted for rows without
    a candle of their own only."""
    candle_after: int = 0
    """The nearest known candle after the span ended this many minutes after the span's end."""
    filled_before: int = 0
    """As ``candle_before``, of the nearest minute that was reported as filled; not noted for rows that are filled."""
    filled_after: int = 0

    def __str__(self) -> str:
        return ",".join(map(str, attrs.astuple(self)))

    @classmethod
    def parse(cls, text: str | None) -> Around:
        """The text of a row's ``around``; ``ValueError`` for any other text."""
        if text is None:
            return DENSE
        numbers = text.split(",")
        if len(numbers) != 6:
            raise ValueError(f"{text!r} is not what was known around a span")
        return cls(*map(int, numbers))


DENSE = Around()
"""Every minute of the day before the span, and nothing after it: of nearly every candle of the live feed."""


def last_seq(seq: int, kind: int, minutes: int) -> int:
    """The last number that the row of these values takes."""
    return seq + minutes - 1 if kind in RUNS else seq


def check_of(row: Sequence[object]) -> str:
    """Eight hexadecimal digits that tell the row of the first six values of *row* from another with the same number:
    what a cursor is checked by, should the journal be one that was restored.
    """
    return f"{zlib.crc32(repr(tuple(row[:6])).encode()):08x}"
