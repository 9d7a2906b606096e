"""How long candles take to be durable, as a histogram."""

from __future__ import annotations

import pytest

from trio_candles.candles.delays import BOUNDS, Delays, delays_in, delays_text


def test_without_a_candle_there_is_no_quantile():
    assert Delays().quantile(0.5) is None


def test_quantiles_lie_in_the_bucket_of_the_delay_that_they_name():
    delays = Delays()
    for delay in [5] * 50 + [700] * 49 + [4_000]:
        delays.add(delay)
    assert (delays.count, delays.total) == (100, 5 * 50 + 700 * 49 + 4_000)
    assert delays.quantile(0.5) == 10
    assert 500 < (delays.quantile(0.51) or 0) <= (delays.quantile(0.99) or 0) == 1_000
    assert 2_500 < (delays.quantile(1.0) or 0) <= 5_000


def test_what_is_longer_than_every_bucket_is_counted_as_the_last_bound():
    delays = Delays()
    delays.add(61_000)
    assert (delays.counts[-1], delays.quantile(0.5)) == (1, float(BOUNDS[-1]))


def test_a_clock_that_was_set_makes_no_delay_of_years_and_none_below_nothing():
    delays = Delays()
    delays.add(-5_000)
    delays.add(10**15)
    assert (delays.counts[0], delays.counts[-1], delays.total) == (1, 1, 86_400_000)


def test_what_is_published_is_read_back():
    delays = Delays()
    delays.add(300)
    assert delays_in(delays_text({"okx": delays, "kraken": Delays()})) == {"okx": delays, "kraken": Delays()}
    assert delays_in(None) == {}


@pytest.mark.parametrize("text", ["[]x", '{"okx": 5}', '{"okx": [1, 2]}', '{"okx": [' + "0, " * 13 + "-1]}", "7"])
def test_other_text_is_refused(text):
    with pytest.raises((ValueError, TypeError)):
        delays_in(text)
