"""The contract's rules for one candle, each with its name."""

from __future__ import annotations

import math

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trio_candles.candles.model import MINUTE, Candle, Millis, Series, Source
from trio_candles.candles.validation import Rule, broken_rule

PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""How long an example takes says something about a busy machine, nothing about the code."""
NOON = 1_768_046_400_000
NOW = Millis(NOON + 90_000)
LENGTHS = {"1m": 1, "3m": 3, "5m": 5, "15m": 15, "1h": 60, "4h": 240, "1d": 1440}

GOOD = Candle(
    Series("coinbase", "BTC-USD"),
    Millis(NOON),
    open=100.5,
    high=102.0,
    low=99.5,
    close=101.25,
    volume=12.5,
    quote_volume=1_260.0,
    vwap=100.8,
    trades_count=17,
    source=Source.WEBSOCKET,
    ingest_time=Millis(NOON + 61_000),
    close_time=Millis(NOON + MINUTE),
)


def rule_of(**changes):
    return broken_rule(attrs.evolve(GOOD, **changes), NOW)


def test_a_good_candle_breaks_no_rule():
    assert broken_rule(GOOD, NOW) is None


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"high": 99.0, "open": 99.0, "close": 99.0}, "high_below_low"),
        ({"high": 101.0, "open": 101.5, "close": 101.0}, "high_below_open"),
        ({"high": 101.0, "close": 101.0000001}, "high_below_close"),
        ({"low": 101.0}, "low_above_open"),
        ({"low": 100.0, "close": 99.9}, "low_above_close"),
        ({"open": 0.0}, "nonpositive_price"),
        ({"high": -0.0}, "nonpositive_price"),
        ({"low": 0.0}, "nonpositive_price"),
        ({"low": -99.5}, "nonpositive_price"),
        ({"close": -1e-300}, "nonpositive_price"),
        ({"volume": -1e-12}, "negative_volume"),
        ({"open_time": NOON + 1, "close_time": NOON + MINUTE + 1}, "unaligned"),
        ({"open_time": NOON - 30_000, "close_time": NOON + 30_000}, "unaligned"),
        ({"close_time": NOON + MINUTE - 1}, "wrong_close_time"),
        ({"close_time": NOON + 2 * MINUTE}, "wrong_close_time"),
        ({"close_time": NOON}, "wrong_close_time"),
        ({"open_time": NOON + 2 * MINUTE, "close_time": NOON + 3 * MINUTE}, "in_future"),
        ({"is_closed": False}, "not_closed"),
    ],
)
def test_each_rule_is_broken_under_its_own_name(changes, rule):
    assert rule_of(**changes) == Rule(rule)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["open", "high", "low", "close", "volume", "quote_volume", "vwap"])
def test_a_number_that_is_not_finite_is_rejected_in_every_field(name, value):
    assert rule_of(**{name: value}) is Rule.NOT_FINITE


def test_all_prices_not_a_number_are_rejected_although_nothing_compares():
    nan = math.nan
    assert rule_of(open=nan, high=nan, low=nan, close=nan, volume=nan, quote_volume=nan, vwap=nan) is Rule.NOT_FINITE


def test_a_number_that_is_not_finite_is_named_before_what_follows_from_it():
    assert rule_of(high=-math.inf) is Rule.NOT_FINITE
    assert rule_of(volume=-math.inf, is_closed=False, open_time=1) is Rule.NOT_FINITE


@pytest.mark.parametrize("name", ["quote_volume", "vwap", "trades_count"])
def test_what_the_venue_does_not_say_may_be_absent(name):
    assert rule_of(**{name: None}) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"open": 100.0, "high": 100.0, "low": 100.0, "close": 100.0},
        {"open": 100.0, "high": 100.0, "low": 100.0, "close": 100.0, "volume": 0.0, "trades_count": 0, "vwap": None},
        {"volume": -0.0},
        {"low": 5e-324},
        {"high": 1.7976931348623157e308},
        {"open_time": 0, "close_time": MINUTE},
        {"open": 102.0},
        {"close": 99.5},
    ],
)
def test_the_edges_of_each_rule_belong_to_the_good_candles(changes):
    assert rule_of(**changes) is None


def test_a_minute_is_in_the_future_until_it_begins():
    assert broken_rule(GOOD, Millis(NOON - 1)) is Rule.IN_FUTURE
    assert broken_rule(GOOD, Millis(NOON)) is None


@pytest.mark.parametrize(("timeframe", "minutes"), LENGTHS.items())
def test_a_candle_is_as_long_as_its_timeframe_and_aligned_to_it(timeframe, minutes):
    length = minutes * MINUTE
    start = NOON - NOON % length
    series = Series("okx", "BTC-USDT", timeframe)
    candle = attrs.evolve(GOOD, series=series, open_time=start, close_time=start + length)
    assert broken_rule(candle, NOW) is None
    assert broken_rule(attrs.evolve(candle, close_time=start + length + MINUTE), NOW) is Rule.WRONG_CLOSE_TIME
    moved = attrs.evolve(candle, open_time=start - 1000, close_time=start - 1000 + length)
    assert broken_rule(moved, NOW) is Rule.UNALIGNED
    if minutes > 1:
        minute_off = attrs.evolve(candle, open_time=start - MINUTE, close_time=start - MINUTE + length)
        assert broken_rule(minute_off, NOW) is Rule.UNALIGNED


def test_a_candle_of_a_timeframe_that_is_none_is_a_bug_and_raises():
    with pytest.raises(ValueError, match="is no timeframe"):
        rule_of(series=Series("okx", "BTC-USDT", "soon"))


def test_what_the_store_judges_has_names_too():
    assert {"duplicate", "conflict", "out_of_order"} <= {rule.value for rule in Rule}


# --- any candle -------------------------------------------------------------------------------------------

ANY_FLOAT = st.one_of(st.floats(), st.sampled_from([1.0, 2.0, 3.0, 0.0, -1.0, math.nan, math.inf]))
PRICE = st.one_of(ANY_FLOAT, st.floats(0.5, 4.0))
TIME = st.one_of(st.integers(), st.integers(-3, 3).map(lambda n: NOON + n * MINUTE), st.integers(NOON, NOON + 200_000))


@st.composite
def candles(draw):
    timeframe = draw(st.sampled_from(list(LENGTHS)))
    open_time = draw(TIME)
    return Candle(
        Series("kraken", "BTC/USD", timeframe),
        open_time,
        draw(PRICE),
        draw(PRICE),
        draw(PRICE),
        draw(PRICE),
        draw(ANY_FLOAT),
        draw(st.none() | ANY_FLOAT),
        draw(st.none() | ANY_FLOAT),
        draw(st.none() | st.integers()),
        Source.REST,
        NOON,
        draw(st.one_of(st.just(open_time + LENGTHS[timeframe] * MINUTE), TIME)),
        draw(st.booleans()),
    )


@st.composite
def plausible_candles(draw):
    """Candles that break at most a rule or two, so that the good side is reached as well."""
    timeframe = draw(st.sampled_from(list(LENGTHS)))
    length = LENGTHS[timeframe] * MINUTE
    start = draw(st.integers(-2, 2)) * length + NOON - NOON % length
    low, other, third, high = sorted(draw(st.tuples(*[st.floats(1e-3, 1e6)] * 4)))
    first, last = draw(st.permutations([other, third]))
    good = Candle(
        Series("kraken", "BTC/USD", timeframe), start, first, high, low, last, draw(st.floats(0, 1e9)),
        None, None, None, Source.REST, NOON, start + length, True,
    )  # fmt: skip
    if draw(st.booleans()):
        return good
    field = draw(st.sampled_from(["open", "high", "low", "close", "volume", "quote_volume", "vwap"]))
    return attrs.evolve(good, **{field: draw(ANY_FLOAT)})


def conditions(candle, now):
    """The contract's section 4, written down once more: true for each condition that holds."""
    numbers = [candle.open, candle.high, candle.low, candle.close, candle.volume]
    numbers += [number for number in (candle.quote_volume, candle.vwap) if number is not None]
    finite = all(-math.inf < number < math.inf for number in numbers)
    length = LENGTHS[candle.series.timeframe] * 60_000
    return {
        "finite": finite,
        "high >= low": candle.high >= candle.low,
        "high >= open": candle.high >= candle.open,
        "high >= close": candle.high >= candle.close,
        "low <= open": candle.low <= candle.open,
        "low <= close": candle.low <= candle.close,
        "prices": min(candle.open, candle.high, candle.low, candle.close) > 0,
        "volume": candle.volume >= 0,
        "aligned": candle.open_time // length * length == candle.open_time,
        "its end": candle.close_time - candle.open_time == length,
        "begun": candle.open_time <= now,
        "closed": candle.is_closed,
    }


CONDITION_OF = {
    Rule.NOT_FINITE: "finite",
    Rule.NONPOSITIVE_PRICE: "prices",
    Rule.NEGATIVE_VOLUME: "volume",
    Rule.HIGH_BELOW_LOW: "high >= low",
    Rule.HIGH_BELOW_OPEN: "high >= open",
    Rule.HIGH_BELOW_CLOSE: "high >= close",
    Rule.LOW_ABOVE_OPEN: "low <= open",
    Rule.LOW_ABOVE_CLOSE: "low <= close",
    Rule.UNALIGNED: "aligned",
    Rule.WRONG_CLOSE_TIME: "its end",
    Rule.IN_FUTURE: "begun",
    Rule.NOT_CLOSED: "closed",
}


@PATIENT
@given(candles() | plausible_candles())
def test_a_candle_passes_if_and_only_if_every_condition_of_the_contract_holds(candle):
    rule, holds = broken_rule(candle, NOW), conditions(candle, NOW)
    if rule is None:
        assert all(holds.values()), holds
    else:
        assert not holds[CONDITION_OF[rule]], (rule, holds)
        assert not all(holds.values())


def test_every_rule_about_a_candle_alone_stands_for_one_condition():
    assert set(CONDITION_OF) == set(Rule) - {Rule.DUPLICATE, Rule.CONFLICT, Rule.OUT_OF_ORDER}
    assert set(CONDITION_OF.values()) == set(conditions(GOOD, NOW))
