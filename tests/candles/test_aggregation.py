"""A day's minutes into higher timeframes: complete or nothing, to the bit, and as the venues themselves have it."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterable
from math import inf

import folding
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recorded import expected, recorded

from trio_candles.candles.aggregation import DayOfMinutes, Kinds, aggregates, periods_of
from trio_candles.candles.model import DAY, MINUTE, Candle, Millis, Series, Source, Timeframe

DAY0 = Millis(1_768_003_200_000)  # 2026-01-10
BTC = Series("okx", "BTC-USDT")
WHOLE = [(DAY0, Millis(DAY0 + DAY))]


def at(minute: int) -> Millis:
    return Millis(DAY0 + minute * MINUTE)


def candle(minute: int, o=10.0, h=12.0, low=9.0, c=11.0, v=2.0, quote=22.0, count=3, ingest=0) -> Candle:
    time = at(minute)
    return Candle(BTC, time, o, h, low, c, v, quote, None, count, Source.REST, Millis(ingest), Millis(time + MINUTE))


def row(one: Candle) -> dict[str, object]:
    return {
        "venue": one.series.venue, "symbol": one.series.symbol, "timeframe": one.series.timeframe,
        "open_time_ms": one.open_time, "close_time_ms": one.close_time, "open": one.open, "high": one.high,
        "low": one.low, "close": one.close, "volume": one.volume, "quote_volume": one.quote_volume, "vwap": one.vwap,
        "trades_count": one.trades_count, "is_closed": one.is_closed, "source": one.source.value,
        "ingest_time_ms": one.ingest_time,
    }  # fmt: skip


def derived(
    candles: list[Candle],
    empty: Iterable[int],
    timeframe: str,
    spans: list[tuple[Millis, Millis]] = WHOLE,
    day: Millis = DAY0,
) -> list[Candle]:
    kinds = Kinds(day)
    for minute in empty:
        kinds.empty(minute, minute + MINUTE)
    kinds.stored_at(one.open_time for one in candles)
    series = Series(BTC.venue, BTC.symbol, timeframe)
    return list(aggregates(DayOfMinutes.of(candles), kinds, series, periods_of(Timeframe.parse(timeframe), spans, day)))


PRICES = st.floats(1e-8, 1e9)
SIZES = st.one_of(st.just(0.0), st.floats(0, 1e12), st.floats(0, 1e-9))


@st.composite
def minutes(draw: st.DrawFn) -> tuple[list[Candle], list[int]]:
    """Candles and empty minutes; a start in the middle of the day, whose other minutes are unknown, too."""
    first = draw(st.integers(0, 1439))
    kinds = draw(st.lists(st.sampled_from("ccccceeee-"), max_size=45))
    candles, empty = [], []
    for minute, kind in enumerate(kinds, first):
        if minute >= 1440:
            break
        if kind == "c":
            prices = [draw(PRICES) for _ in range(4)]
            candles.append(
                candle(
                    minute, prices[0], max(prices), min(prices), prices[1], draw(SIZES),
                    draw(st.one_of(SIZES, st.just(None)) if draw(st.integers(0, 9)) == 0 else SIZES),
                    None if draw(st.integers(0, 19)) == 0 else draw(st.integers(0, 10**6)), draw(st.integers(0, 10**6)),
                )
            )  # fmt: skip
        elif kind == "e":
            empty.append(at(minute))
    return candles, empty


@settings(deadline=None)
@given(minutes(), st.sampled_from(["5m", "15m"]))
def test_any_minutes_fold_to_the_bit_into_what_exact_arithmetic_makes_of_them(some, timeframe):
    candles, empty = some
    found = [row(one) for one in derived(candles, empty, timeframe)]
    assert found == folding.aggregates([row(one) for one in candles], set(empty), timeframe)


def test_a_sum_is_rounded_once():
    """0.1 ten times is 1.0, and 0.9999999999999999 if it is added up step by step."""
    (one,) = derived([candle(minute, v=0.1, quote=0.1) for minute in range(60)], [], "1h")
    assert (one.volume, one.quote_volume) == (6.0, 6.0)
    assert sum([0.1] * 60) != 6.0


@pytest.mark.parametrize("timeframe", ["5m", "15m", "1h", "4h", "1d"])
def test_a_dense_day_gives_every_candle_of_the_day(timeframe):
    dense = [candle(minute, v=0.1 + minute / 7, ingest=minute) for minute in range(1440)]
    found = [row(one) for one in derived(dense, [], timeframe)]
    assert found == folding.aggregates([row(one) for one in dense], set(), timeframe)
    assert len(found) == 1440 // folding.LENGTHS[timeframe]


def test_one_unknown_minute_leaves_out_what_stands_on_it_and_nothing_else():
    dense = [candle(minute) for minute in range(1440)]
    missing = 17
    found = {
        name: [one.open_time for one in derived(dense[:missing] + dense[missing + 1 :], [], name)]
        for name in ("5m", "1h", "1d")
    }
    assert at(15) not in found["5m"]
    assert len(found["5m"]) == 287
    assert at(0) not in found["1h"]
    assert len(found["1h"]) == 23
    assert found["1d"] == []
    assert len(derived(dense[:missing] + dense[missing + 1 :], [at(missing)], "1d")) == 1


def test_where_every_minute_is_empty_there_is_none():
    assert derived([], [at(minute) for minute in range(1440)], "1d") == []
    found = derived([candle(3)], [at(minute) for minute in range(1440) if minute != 3], "5m")
    assert [one.open_time for one in found] == [at(0)]


@pytest.mark.parametrize(
    ("change", "quote", "vwap", "count"),
    [
        ({}, 44.0, 11.0, 6), ({"quote": None}, None, None, 6), ({"count": None}, 44.0, 11.0, None),
        ({"v": 0.0, "quote": 0.0}, 22.0, 11.0, 6),
    ],
)  # fmt: skip
def test_what_a_part_does_not_say_the_whole_does_not_say(change, quote, vwap, count):
    (one,) = derived([candle(0), candle(1, **change)], [at(2), at(3), at(4)], "5m")
    assert (one.quote_volume, one.vwap, one.trades_count) == (quote, vwap, count)


def test_without_volume_there_is_no_average():
    (one,) = derived([candle(0, v=0.0, quote=0.0)], [at(n) for n in (1, 2, 3, 4)], "5m")
    assert (one.volume, one.quote_volume, one.vwap) == (0.0, 0.0, None)


def test_a_sum_beyond_floats_is_infinite_and_no_error():
    (one,) = derived([candle(0, v=1.7e308), candle(1, v=1.7e308)], [at(n) for n in (2, 3, 4)], "5m")
    assert one.volume == inf
    (one,) = derived([candle(0, v=5e-324, quote=1e300)], [at(n) for n in (1, 2, 3, 4)], "5m")
    assert one.vwap == inf


def test_only_the_periods_that_a_change_touches_are_looked_at():
    five = Timeframe.parse("5m")
    spans = [(at(4), at(6)), (at(5), at(6)), (at(-30), at(1)), (at(1439), at(1500))]
    assert [(since - DAY0) // MINUTE for since, _ in periods_of(five, spans, DAY0)] == [0, 5, 1435]
    assert list(periods_of(five, [(at(-5), at(0)), (at(1440), at(1441))], DAY0)) == []
    dense = [candle(minute) for minute in range(20)]
    assert [one.open_time for one in derived(dense, [], "5m", [(at(7), at(8))])] == [at(5)]


# --- recorded


def test_coinbases_minutes_fold_into_coinbases_four_hours():
    """Three weeks of March 2023 from two downloads of other people; the hours without trades are an outage."""
    table = pq.ParquetFile(str(recorded("series/coinbase_1m_BTC-USD_20230301_21_exchange.parquet"))).read(
        columns=["time", "open", "high", "low", "close", "volume"], use_threads=False
    )
    by_day: dict[int, list[Candle]] = {}
    for one in table.sort_by("time").to_pylist():
        time = Millis(one["time"] * 1000)
        made = Candle(
            BTC, time, one["open"], one["high"], one["low"], one["close"], one["volume"], None, None, None, Source.REST,
            time, Millis(time + MINUTE),
        )  # fmt: skip
        by_day.setdefault(time - time % DAY, []).append(made)
    found = {}
    for day, candles in by_day.items():
        there = {one.open_time for one in candles}
        empty = [time for time in range(day, day + DAY, MINUTE) if time not in there]
        for one in derived(candles, empty, "4h", [(Millis(day), Millis(day + DAY))], Millis(day)):
            found[one.open_time] = one
    venue = json.loads(recorded("rest/coinbase_advtrade_candles_4h_BTC-USD_202303.json").read_text())["candles"]
    equal = [
        one
        for one in venue
        if (ours := found.get(int(one["start"]) * 1000)) is not None
        and (ours.open, ours.high, ours.low, ours.close)
        == tuple(float(one[name]) for name in ("open", "high", "low", "close"))
        and ours.volume == pytest.approx(float(one["volume"]), rel=1e-9)
    ]
    told = expected()["cross_checks"]["coinbase 1m aggregated to 4h vs venue 4h"]
    assert (len(found), len(equal)) == (told["rows_a"], told["volume_equal_1e-9"]) == (126, 126)


def test_coinbases_minutes_fold_into_coinbases_five_minutes_but_for_34_windows():
    """Five weeks of 2025, 55,536 minutes: of 11,107 whole windows of the venue's own, 34 differ from the fold (0.31 %).

    All 34 differ in volume, up to more than twofold, four of them in a price, too; the other 11,073 are equal. The fold
    is not the reason: the venue's record does not agree with itself, so its row alone is not the last word on a minute.
    Two minutes without a row are taken for empty; the first window began before the first minute.
    """
    file = "added-2026-11/series/coinbase_{}_BTC-USD_20251123_1231_advtrade.parquet"
    table = pq.read_table(recorded(file.format("1m")), use_threads=False)
    by_day: dict[int, list[Candle]] = {}
    for time, *numbers in zip(*(table[name].to_pylist() for name in _COLUMNS), strict=True):
        made = Candle(BTC, time, *numbers, None, None, None, Source.REST, time, Millis(time + MINUTE))
        by_day.setdefault(time - time % DAY, []).append(made)
    first, last = min(table["open_time_ms"].to_pylist()), max(table["open_time_ms"].to_pylist())
    found = {}
    for day, candles in by_day.items():
        known = range(max(day, first), min(day + DAY, last + MINUTE), MINUTE)
        for one in derived(candles, known, "5m", [(Millis(day), Millis(day + DAY))], Millis(day)):
            found[one.open_time] = one
    theirs = pq.read_table(recorded(file.format("5m")), use_threads=False)
    differ, compared = Counter(), 0
    for time, *prices, volume in zip(*(theirs[name].to_pylist() for name in _COLUMNS), strict=True):
        ours = found.get(time)
        if ours is not None:
            compared += 1
            same_prices = [ours.open, ours.high, ours.low, ours.close] == prices
            differ[same_prices, ours.volume == pytest.approx(volume, rel=1e-9)] += 1
    assert (table.num_rows, theirs.num_rows, compared) == (55_536, 11_108, 11_107)
    assert differ == {(True, True): 11_073, (True, False): 30, (False, False): 4}


_COLUMNS = ("open_time_ms", "open", "high", "low", "close", "volume")


@pytest.mark.parametrize("day", ["20161007", "20161008"])
def test_seconds_of_gdax_fold_into_the_minutes_that_another_program_made_of_them(day):
    """A second is taken for a minute, and so a minute for an hour: the fold does not know the difference."""
    by_day: dict[int, list[Candle]] = {}
    for time, *numbers in _lean("second", day):
        scaled = Millis(time // 1000 * MINUTE)
        o, high, low, close, volume = numbers
        made = Candle(
            BTC, scaled, o, high, low, close, volume, None, None, None, Source.REST, scaled, Millis(scaled + MINUTE)
        )
        by_day.setdefault(scaled - scaled % DAY, []).append(made)
    found = {}
    for start, candles in by_day.items():
        there = {one.open_time for one in candles}
        empty = [time for time in range(start, start + DAY, MINUTE) if time not in there]
        for one in derived(candles, empty, "1h", [(Millis(start), Millis(start + DAY))], Millis(start)):
            found[one.open_time // 60] = (one.open, one.high, one.low, one.close, pytest.approx(one.volume, rel=1e-9))
    told = expected()["cross_checks"][f"lean coinbase 1s -> 1m {day}"]
    assert len(found) == told["common"] == told["volume_equal_1e-9"]
    assert {int(time): tuple(numbers) for time, *numbers in _lean("minute", day)} == found


def _lean(what: str, day: str) -> list[tuple[int, ...]]:
    with recorded(f"series/lean_coinbase_{what}_btcusd_{day}.csv").open() as lines:
        return [(int(time), *map(float, numbers)) for time, *numbers in csv.reader(lines)]
