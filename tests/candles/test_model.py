"""Minutes, days, timeframes and symbols: the arithmetic that everything stands on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import PurePosixPath, PureWindowsPath

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trio_candles.candles.model import (
    DAY,
    MINUTE,
    ONE_MINUTE,
    Candle,
    Millis,
    Reason,
    Series,
    Source,
    Timeframe,
    canonical_symbol,
    day_name,
    floor_to,
    utc_text,
)

PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""How long an example takes says something about a busy machine, nothing about the code."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)
# Every millisecond that datetime can name.
TIMES = st.integers(
    (datetime.min.replace(tzinfo=UTC) - EPOCH) // MILLISECOND, (datetime.max.replace(tzinfo=UTC) - EPOCH) // MILLISECOND
)
NOON = 1_768_046_400_000


def test_a_minute_and_a_day_are_what_they_are_in_milliseconds():
    assert timedelta(minutes=1) // MILLISECOND == MINUTE
    assert timedelta(days=1) // MILLISECOND == DAY
    assert Timeframe.parse("1m") == ONE_MINUTE


# --- floor_to ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("time", "floor"),
    [(NOON - 1, NOON - MINUTE), (NOON, NOON), (NOON + 1, NOON), (NOON + MINUTE - 1, NOON), (0, 0), (-1, -MINUTE)],
)
def test_a_minute_holds_its_first_instant_and_not_its_end(time, floor):
    assert floor_to(time, MINUTE) == floor


@PATIENT
@given(TIMES, st.sampled_from([1, 1000, MINUTE, 5 * MINUTE, 60 * MINUTE, DAY]))
def test_the_floor_is_the_one_multiple_within_a_step_before(time, step):
    floor = floor_to(time, step)
    assert floor % step == 0
    assert floor <= time < floor + step
    assert floor_to(floor, step) == floor


@PATIENT
@given(TIMES)
def test_minutes_nest_in_hours_and_hours_in_days(time):
    assert floor_to(floor_to(time, MINUTE), 60 * MINUTE) == floor_to(time, 60 * MINUTE)
    assert floor_to(floor_to(time, 60 * MINUTE), DAY) == floor_to(time, DAY)


# --- day_name and utc_text --------------------------------------------------------------------------------


@PATIENT
@given(TIMES)
def test_the_day_is_the_one_that_datetime_names(time):
    assert day_name(time) == (EPOCH + time * MILLISECOND).date().isoformat()


@PATIENT
@given(TIMES)
def test_the_text_of_a_time_is_the_one_that_datetime_writes(time):
    assert utc_text(time) == (EPOCH + time * MILLISECOND).replace(microsecond=0, tzinfo=None).isoformat(" ")


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("2024-02-29T00:00:00", "2024-02-29"),
        ("2024-02-28T23:59:59.999000", "2024-02-28"),
        ("2023-03-01T00:00:00", "2023-03-01"),
        ("2100-03-01T00:00:00", "2100-03-01"),
        ("2000-02-29T12:00:00", "2000-02-29"),
        ("2025-12-31T23:59:59.999000", "2025-12-31"),
        ("2026-01-01T00:00:00", "2026-01-01"),
        ("1970-01-01T00:00:00", "1970-01-01"),
        ("1969-12-31T23:59:59.999000", "1969-12-31"),
    ],
)
def test_days_change_at_midnight_utc_in_leap_years_too(text, day):
    assert day_name((datetime.fromisoformat(text).replace(tzinfo=UTC) - EPOCH) // MILLISECOND) == day


def test_day_names_sort_as_the_days_do():
    names = [day_name(day * DAY) for day in range(0, 60_000, 7)]
    assert names == sorted(names)
    assert len(set(names)) == len(names)


@PATIENT
@given(st.integers(-(10**18), 10**18))
def test_any_value_that_a_clock_can_show_has_a_text(time):
    assert utc_text(time).startswith(day_name(time) + " ")


# --- Timeframe --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "minutes"),
    [("1m", 1), ("5m", 5), ("15m", 15), ("1h", 60), ("4h", 240), ("1d", 1440), ("3m", 3), ("90m", 90), ("24h", 1440)],
)
def test_a_timeframe_is_a_number_and_a_unit(name, minutes):
    timeframe = Timeframe.parse(name)
    assert (timeframe.name, timeframe.length) == (name, minutes * MINUTE)


@pytest.mark.parametrize(
    "name",
    [
        "", "m", "1", "0m", "01m", "-1m", "+1m", "1.5m", "1M", "1H", "1s", "1w", "1 m", " 1m", "1m ", "1m\n", "\n1m",
        "1mm", "1m5", "٥m", "1_0m", "１m", "99999m", "../1m", "1m/..", "1m\x00",  # noqa: RUF001
    ],
)  # fmt: skip
def test_what_is_no_number_and_unit_is_no_timeframe(name):
    with pytest.raises(ValueError, match="is no timeframe"):
        Timeframe.parse(name)


@pytest.mark.parametrize("name", ["7m", "11m", "25m", "100m", "5h", "7h", "9h", "25h", "48h", "2d", "9999d", "1441m"])
def test_a_timeframe_divides_a_day(name):
    with pytest.raises(ValueError, match="does not divide a day"):
        Timeframe.parse(name)


@PATIENT
@given(st.one_of(st.text(), st.from_regex(r"[0-9]{1,4}[mhd]\n?", fullmatch=True)))
def test_every_timeframe_that_is_accepted_tiles_a_day(name):
    try:
        timeframe = Timeframe.parse(name)
    except ValueError:
        return
    assert timeframe.name == name
    assert timeframe.length >= MINUTE
    assert timeframe.length % MINUTE == 0
    assert DAY % timeframe.length == 0


# --- canonical_symbol -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("symbol", "folder"),
    [
        ("BTC-USD", "BTC-USD"),
        ("BTC/USD", "BTC-USD"),
        ("1INCH-USDC", "1INCH-USDC"),
        ("A-B", "A-B"),
        ("A" * 20 + "/" + "B" * 20, "A" * 20 + "-" + "B" * 20),
    ],
)
def test_a_symbol_s_folder_is_base_dash_quote(symbol, folder):
    assert canonical_symbol(symbol) == folder


@pytest.mark.parametrize(
    "symbol",
    [
        "", "BTC", "BTCUSD", "-", "/", "BTC-", "-USD", "BTC--USD", "BTC/-USD", "BTC//USD", "BTC-USD/", "/BTC-USD",
        "BTC-USDT-SWAP", "BTC/USD/EUR", "BTC-USD/EUR",
        "btc-usd", "Btc-Usd", "BTC-usd",
        "../x", "../../etc/passwd", "..-USD", "BTC-..", ".-.", "BTC\\USD", "C:-USD", "BTC-USD.", "BTC-USD/..", "~-USD",
        "BTC-USD\n", "\nBTC-USD", "BTC-USD\r", "BTC-\nUSD", "BTC-USD\x00", "BTC-USD ", " BTC-USD", "BTC - USD",
        "ВТС-USD", "BTC‐USD", "BTC–USD", "ＢTC-USD", "BTC-USD\u200b", "٣-USD", "İ-USD", "ß-USD", "\u212a-USD",  # noqa: RUF001
        "A" * 21 + "-USD", "BTC-" + "A" * 21, "CON", "NUL", "*-USD", "BTC-USD?", "$BTC-USD", "BTC:USD", "BTC_USD",
    ],
)  # fmt: skip
def test_what_could_leave_the_data_directory_or_is_no_symbol_is_refused(symbol):
    with pytest.raises(ValueError, match="is no symbol"):
        canonical_symbol(symbol)


@PATIENT
@given(st.one_of(st.text(), st.text("ABC019/-.\\\n:", max_size=12)))
def test_a_folder_is_one_plain_name_on_every_system(symbol):
    try:
        folder = canonical_symbol(symbol)
    except ValueError:
        return
    for path in (PurePosixPath("data", folder), PureWindowsPath("data", folder)):
        assert path.parts == ("data", folder)
    assert not PureWindowsPath(folder).is_absolute()
    assert folder.isascii()
    assert folder == folder.upper() == folder.strip()
    assert symbol in (folder, folder.replace("-", "/"))


def test_two_symbols_of_one_venue_share_a_folder_only_by_their_separator():
    assert canonical_symbol("BTC/USD") == canonical_symbol("BTC-USD")
    assert canonical_symbol("BTC/USDT") != canonical_symbol("BTC/USD")


# --- Series -----------------------------------------------------------------------------------------------


def test_a_series_lies_in_venue_symbol_timeframe():
    assert Series("kraken", "BTC/USD").path == "kraken/BTC-USD/1m"
    assert Series("okx", "BTC-USDT", "4h").path == "okx/BTC-USDT/4h"
    assert str(Series("kraken", "BTC/USD")) == "kraken BTC/USD 1m"


def test_series_are_ordered_and_hashable():
    some = [Series("okx", "B-C"), Series("kraken", "A/C", "5m"), Series("kraken", "A/C")]
    assert sorted(some) == [Series("kraken", "A/C", "1m"), Series("kraken", "A/C", "5m"), Series("okx", "B-C")]
    assert len({*some, Series("okx", "B-C", "1m")}) == 3


# --- Candle.same_as ---------------------------------------------------------------------------------------

CANDLE = Candle(
    Series("okx", "BTC-USDT"),
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


@pytest.mark.parametrize("name", ["open", "high", "low", "close"])
def test_a_price_that_differs_in_its_last_bit_is_another_candle(name):
    other = attrs.evolve(CANDLE, **{name: getattr(CANDLE, name) * (1 + 2**-52)})
    assert getattr(other, name) != getattr(CANDLE, name)
    assert not CANDLE.same_as(other)
    assert not other.same_as(CANDLE)


@pytest.mark.parametrize(
    "change",
    [
        {"quote_volume": None}, {"quote_volume": 1.0}, {"vwap": None}, {"vwap": 5.0}, {"trades_count": None},
        {"trades_count": 18}, {"source": Source.REST}, {"ingest_time": Millis(0)},
    ],
)  # fmt: skip
def test_nullable_columns_source_and_time_of_receipt_are_not_compared(change):
    assert CANDLE.same_as(attrs.evolve(CANDLE, **change))
    assert attrs.evolve(CANDLE, **change).same_as(CANDLE)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (12.5, 12.5, True),
        (1.0, 1.0 + 0.9e-9, True),
        (1.0, 1.0 + 1.1e-9, False),
        (1e9, 1e9 + 0.9, True),
        (1e9, 1e9 + 1.1, False),
        (1e-9, 1.1e-9, False),  # relative: no absolute slack for small volumes
        (0.0, 0.0, True),
        (0.0, -0.0, True),
        (0.0, 5e-324, False),
        (0.0, 1e-9, False),
        (0.1 + 0.2, 0.3, True),  # a sum of floats by the venue
        (1e308, 1.7e308, False),
    ],
)
def test_volumes_agree_within_a_billionth_of_themselves(one, other, same):
    first, second = attrs.evolve(CANDLE, volume=one), attrs.evolve(CANDLE, volume=other)
    assert first.same_as(second) is same
    assert second.same_as(first) is same


def test_what_is_not_a_number_equals_nothing():
    for name in ("open", "volume"):
        broken = attrs.evolve(CANDLE, **{name: float("nan")})
        assert not broken.same_as(broken)
        assert not broken.same_as(CANDLE)


@PATIENT
@given(st.floats(min_value=0, allow_infinity=False), st.floats(min_value=0, allow_infinity=False))
def test_being_equal_has_no_direction(one, other):
    first, second = attrs.evolve(CANDLE, volume=one), attrs.evolve(CANDLE, volume=other)
    assert first.same_as(first)
    assert first.same_as(second) == second.same_as(first)


# --- the words that are stored ----------------------------------------------------------------------------


def test_the_words_of_the_contract_are_spelled_as_there():
    assert {source.value for source in Source} == {"websocket", "rest", "aggregated"}
    assert {"unproven", "disconnected", "corrupt", "ledger_lost"} <= {reason.value for reason in Reason}
    assert all(reason.value for reason in Reason)
