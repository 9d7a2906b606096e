"""Arithmetic of minutes: half-open intervals ``[since, until)`` in Unix ms, and lists of them.

Every function takes and yields intervals in ascending order of their begin; empty intervals (``since >= until``) are
ignored, and never yielded. *Disjoint* intervals may touch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from trio_candles.candles.model import MINUTE

__all__ = ["Interval", "clip", "cover", "length", "minutes", "periods", "subtract", "touching", "union"]

Interval = tuple[int, int]
"""``[since, until)``."""


def clip(intervals: Iterable[Interval], since: int, until: int) -> Iterator[Interval]:
    """The parts of *intervals* in ``[since, until)``."""
    for low, high in intervals:
        low, high = max(low, since), min(high, until)
        if low < high:
            yield low, high


def union(intervals: Iterable[Interval]) -> Iterator[Interval]:
    """*intervals*, joined where they touch or overlap."""
    at: Interval | None = None
    for low, high in intervals:
        if low >= high:
            continue
        if at is not None and low <= at[1]:
            at = at[0], max(at[1], high)
            continue
        if at is not None:
            yield at
        at = low, high
    if at is not None:
        yield at


def subtract(intervals: Iterable[Interval], taken: Iterable[Interval]) -> Iterator[Interval]:
    """The parts of *intervals* (disjoint) that are in none of *taken*."""
    rest = list(union(taken))
    first = 0
    for low, high in intervals:
        while first < len(rest) and rest[first][1] <= low:
            first += 1
        at, index = low, first
        while index < len(rest) and rest[index][0] < high:
            if at < rest[index][0]:
                yield at, rest[index][0]
            at = max(at, rest[index][1])
            index += 1
        if at < high:
            yield at, high


def cover(intervals: Iterable[Interval], since: int, until: int) -> Iterator[tuple[Interval, bool]]:
    """``[since, until)`` in pieces, each with ``True`` if it is in one of *intervals* (disjoint), else ``False``."""
    at = since
    for low, high in clip(intervals, since, until):
        if at < low:
            yield (at, low), False
        yield (low, high), True
        at = high
    if at < until:
        yield (at, until), False


def length(intervals: Iterable[Interval]) -> int:
    """The length of all *intervals* (disjoint) together, in ms."""
    return sum(max(high - low, 0) for low, high in intervals)


def minutes(intervals: Iterable[Interval]) -> Iterator[int]:
    """The open time of each minute of *intervals* (disjoint, of whole minutes)."""
    for low, high in intervals:
        yield from range(low, high, MINUTE)


def periods(intervals: Iterable[Interval], step: int) -> Iterator[int]:
    """The open time of each period of *step* ms that *intervals* touch, each once."""
    for low, high in union((low - low % step, high) for low, high in intervals if low < high):
        yield from range(low, high, step)


def touching(times: Iterable[int], step: int = MINUTE) -> Iterator[Interval]:
    """The intervals ``[time, time + step)`` of *times* (ascending), joined where they touch."""
    return union((time, time + step) for time in times)
