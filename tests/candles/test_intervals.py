"""The arithmetic of minutes against a naive model: an interval is the set of the minutes in it, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from trio_candles.candles.intervals import (
    Interval,
    clip,
    cover,
    length,
    minutes,
    periods,
    subtract,
    touching,
    union,
)
from trio_candles.candles.model import MINUTE

HOUR = 60


def ms(found: Iterable[tuple[int, int]]) -> list[Interval]:
    return [(low * MINUTE, high * MINUTE) for low, high in found]


MOMENTS = st.integers(0, HOUR)
"""In minutes; few enough that intervals touch, overlap and repeat all the time."""
INTERVALS = st.lists(st.tuples(MOMENTS, MOMENTS), max_size=12).map(sorted).map(ms)
"""In the order of their begins; some are empty or the wrong way round, some overlap, some touch."""


@st.composite
def disjoint(draw):
    """Intervals of which none is in another's way; some touch, some are empty or the wrong way round."""
    cuts = sorted(draw(st.lists(MOMENTS, max_size=16)))
    kinds = st.sampled_from(["kept", "kept", "left out", "turned round"])
    drawn = [(pair, draw(kinds)) for pair in pairwise(cuts)]
    return ms(
        (high, low) if kind == "turned round" else (low, high) for (low, high), kind in drawn if kind != "left out"
    )


DISJOINT = disjoint()
SPAN = st.tuples(MOMENTS, MOMENTS).map(sorted).map(lambda pair: ms([(pair[0], pair[1])])[0])


def of(intervals: Iterable[Interval]) -> set[int]:
    """The model: the open times of the minutes in *intervals*."""
    return {time for low, high in intervals for time in range(low, high, MINUTE)}


def tidy(intervals: list[Interval]) -> bool:
    """Whether *intervals* are in order, disjoint and none of them empty."""
    return all(low < high for low, high in intervals) and all(one[1] <= other[0] for one, other in pairwise(intervals))


def whole(intervals: list[Interval]) -> bool:
    """Whether *intervals* are as few as they can be: none touches the next."""
    return tidy(intervals) and all(one[1] < other[0] for one, other in pairwise(intervals))


def test_the_model_itself_counts_minutes():
    assert of([(0, 2 * MINUTE), (MINUTE, 2 * MINUTE), (9, 9), (5 * MINUTE, 3 * MINUTE)]) == {0, MINUTE}
    assert tidy([(0, 1), (1, 2)])
    assert not whole([(0, 1), (1, 2)])
    assert not tidy([(1, 2), (0, 1)])
    assert not tidy([(1, 1)])


@given(INTERVALS, SPAN)
def test_a_clip_is_what_lies_in_the_span(intervals, span):
    found = list(clip(intervals, *span))
    assert of(found) == of(intervals) & of([span])
    assert all(low < high for low, high in found)
    assert found == sorted(found, key=lambda one: one[0])


@given(DISJOINT, SPAN)
def test_a_clip_of_the_disjoint_is_disjoint(intervals, span):
    assert tidy(list(clip(intervals, *span)))


@given(INTERVALS)
def test_a_union_is_every_minute_in_as_few_intervals_as_there_can_be(intervals):
    found = list(union(intervals))
    assert of(found) == of(intervals)
    assert whole(found)


@given(DISJOINT, INTERVALS)
def test_a_difference_is_what_is_in_the_first_and_in_none_of_the_others(intervals, taken):
    found = list(subtract(intervals, taken))
    assert of(found) == of(intervals) - of(taken)
    assert tidy(found)


@given(DISJOINT, SPAN)
def test_a_cover_has_every_minute_of_the_span_once_and_says_which_were_there(intervals, span):
    found = list(cover(intervals, *span))
    pieces = [piece for piece, _ in found]
    assert of(pieces) == of([span])
    assert tidy(pieces)
    assert of(piece for piece, there in found if there) == of(intervals) & of([span])
    assert all(one[1] == other[0] for one, other in pairwise(pieces))
    assert [piece for piece, there in found if there] == list(clip(intervals, *span))  # none are made one


@given(DISJOINT)
def test_a_length_is_a_minute_for_every_minute(intervals):
    assert length(intervals) == MINUTE * len(of(intervals))


@given(DISJOINT)
def test_the_minutes_are_those_of_the_model_in_order(intervals):
    assert list(minutes(intervals)) == sorted(of(intervals))


@given(INTERVALS, st.integers(1, 20).map(lambda count: count * MINUTE))
def test_the_periods_are_those_with_a_minute_in_an_interval(intervals, step):
    assert list(periods(intervals, step)) == sorted({time // step * step for time in of(intervals)})


@given(st.lists(MOMENTS.map(lambda time: time * MINUTE), max_size=20).map(sorted))
def test_times_that_follow_on_one_another_are_one_interval(times):
    found = list(touching(times))
    assert of(found) == set(times)
    assert whole(found)


@given(st.sets(st.integers(0, 20)), st.integers(1, 9))
def test_times_a_step_apart_follow_on_one_another(counts, step):
    times = sorted(count * step * MINUTE for count in counts)
    found = list(touching(times, step * MINUTE))
    assert of(found) == {time + minute * MINUTE for time in times for minute in range(step)}
    assert whole(found)


def test_intervals_may_be_any_iterable_and_only_once():
    """As rows come from a cursor."""

    def rows():
        yield from [(0, MINUTE), (MINUTE, 3 * MINUTE)]

    assert list(union(rows())) == [(0, 3 * MINUTE)]
    assert list(subtract(rows(), iter([(0, 2 * MINUTE)]))) == [(2 * MINUTE, 3 * MINUTE)]
    assert [there for _, there in cover(rows(), 0, 4 * MINUTE)] == [True, True, False]
    assert length(rows()) == 3 * MINUTE
