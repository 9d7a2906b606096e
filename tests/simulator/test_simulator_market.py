"""The simulated market is a pure function, and its candles are those of its trades."""

from __future__ import annotations

import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest

from trio_candles.simulator import VENUES, Market

MINUTE = 60_000
DAY = 86_400_000
START = 1_788_415_200_000
MIDNIGHT = START // DAY * DAY
SYMBOLS = [("coinbase", "BTC-USD"), ("coinbase", "ETH-USD"), ("kraken", "SOL/EUR"), ("okx", "SIM007-USDT")]

DIGEST = """
import hashlib
from trio_candles.simulator import Market
market = Market(11)
minutes = [1788415200000 + 60000 * n for n in range(6)]
text = repr([market.trades(v, s, m) for v, s in %r for m in minutes])
print(hashlib.sha256(text.encode()).hexdigest())
"""


def digest_in_a_process(hash_seed: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", DIGEST % (SYMBOLS,)],
        env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=True,
    )
    return result.stdout


def test_another_process_sees_the_same_market() -> None:
    assert digest_in_a_process("1") == digest_in_a_process("2")


def test_the_order_of_questions_does_not_matter() -> None:
    minutes = [START + MINUTE * n for n in range(-700, 700, 37)]
    forwards, backwards = Market(3), Market(3)
    first = {(s, m): forwards.trades(*s, m) for s in SYMBOLS for m in minutes}
    second = {(s, m): backwards.trades(*s, m) for s in reversed(SYMBOLS) for m in reversed(minutes)}
    assert first == second


def test_another_seed_is_another_market() -> None:
    assert Market(1).trades("okx", "BTC-USDT", START) != Market(2).trades("okx", "BTC-USDT", START)


@pytest.mark.parametrize(("venue", "symbol"), SYMBOLS)
def test_ids_are_contiguous_across_minutes_and_midnight(venue: str, symbol: str) -> None:
    market = Market(5)
    minutes = range(MIDNIGHT - 200 * MINUTE, MIDNIGHT + 200 * MINUTE, MINUTE)
    trades = [trade for minute in minutes for trade in market.trades(venue, symbol, minute)]
    first = market.first_id_from(venue, symbol, minutes[0] * 1000)
    assert [trade.trade_id for trade in trades] == list(range(first, first + len(trades)))
    times = [trade.time_us for trade in trades]
    assert times == sorted(times)
    assert all(trade.price > 0 and trade.size > 0 for trade in trades)


@pytest.mark.parametrize(("venue", "symbol"), SYMBOLS)
def test_trades_stay_in_their_minute(venue: str, symbol: str) -> None:
    market = Market(5)
    for minute in range(START, START + 30 * MINUTE, MINUTE):
        assert all(trade.time_us // 1000 // MINUTE * MINUTE == minute for trade in market.trades(venue, symbol, minute))


def test_a_candle_is_the_fold_of_its_trades() -> None:
    market = Market(5)
    for minute in range(START, START + 60 * MINUTE, MINUTE):
        trades, candle = (
            market.trades("kraken", "ETH/USD", minute),
            market.candle("kraken", "ETH/USD", minute),
        )
        if candle is None:
            assert trades == ()
            continue
        prices = [trade.price for trade in trades]
        assert (candle.open, candle.close) == (prices[0], prices[-1])
        assert (candle.high, candle.low) == (max(prices), min(prices))
        assert candle.volume == sum((trade.size for trade in trades), Decimal(0))
        assert candle.quote_volume == sum((trade.price * trade.size for trade in trades), Decimal(0))
        assert (candle.first_id, candle.last_id) == (trades[0].trade_id, trades[-1].trade_id)
        assert candle.trades_count == len(trades)


def test_a_trade_is_found_by_its_id_and_by_time() -> None:
    market = Market(5)
    for venue, symbol in SYMBOLS:
        last = market.last_trade_before(venue, symbol, START * 1000)
        assert market.trade(venue, symbol, last.trade_id) == last
        assert last.time_us < START * 1000
        assert market.trade(venue, symbol, last.trade_id + 1).time_us >= START * 1000
        assert market.last_trade_before(venue, symbol, last.time_us + 1).time_us == last.time_us
        assert market.last_trade_before(venue, symbol, last.time_us).time_us < last.time_us


def test_markets_are_busy_quiet_and_thin() -> None:
    market = Market(5)

    def counts(symbol: str) -> list[int]:
        return [len(market.trades("coinbase", symbol, START + n * MINUTE)) for n in range(720)]

    btc, eth = counts("BTC-USD"), counts("ETH-USD")
    assert 20 < sum(btc) / 720 < 40
    assert 3 < sum(eth) / 720 < 5
    assert 0 in eth
    per_day = sorted(market.instrument("coinbase", symbol).per_day for symbol in market.symbols("coinbase")[-1000:])
    assert per_day[0] < 15
    assert 500 < per_day[500] < 1000


def test_trades_share_timestamps() -> None:
    trades = [t for n in range(10) for t in Market(5).trades("okx", "BTC-USDT", START + n * MINUTE)]
    assert len({trade.time_us for trade in trades}) < len(trades)


def test_a_listing_has_a_first_trade_and_nothing_before() -> None:
    market = Market(5, {("okx", "ETH-USDT"): START})
    first = market.trade("okx", "ETH-USDT", 1)
    assert START * 1000 <= first.time_us < (START + 10 * MINUTE) * 1000
    assert market.trades("okx", "ETH-USDT", START - MINUTE) == ()
    with pytest.raises(LookupError, match="ETH-USDT"):
        market.last_trade_before("okx", "ETH-USDT", START * 1000)


def test_every_venue_lists_real_and_synthetic_symbols() -> None:
    market = Market(5)
    for venue in VENUES:
        assert len(market.symbols(venue)) == len(set(market.symbols(venue))) > 1100
        assert all(market.trade(venue, symbol, 1).price > 0 for symbol in market.symbols(venue)[::50])
    assert market.listed("kraken", "BTC/USD")
    assert not market.listed("kraken", "XBT/USD")
    with pytest.raises(LookupError, match="NOPE"):
        market.trades("okx", "NOPE-USDT", START)
