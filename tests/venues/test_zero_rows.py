"""Kraken's rows without trades prove a minute empty only as far as they keep the rules; else trades decide."""

from __future__ import annotations

import json

import pytest
from history_peer import NOON, Peer, in_rows, minutes_of, resume, whys

from trio_candles.candles.model import MINUTE, Millis, Series
from trio_candles.venues.history import Answer, Why
from trio_candles.venues.kraken.history import KrakenHistory

SINCE, UNTIL = NOON - 60 * MINUTE, NOON - 10 * MINUTE
ALL = set(range(SINCE, UNTIL, MINUTE))


def zeroed(minutes, price):
    """Spoils the rows of *minutes*: no trade, at *price* (or, where that is ``None``, the last price before them)."""

    def change(rows):
        last = "0"
        for row in rows:
            if row[0] * 1000 in minutes:
                row[1:] = [last if price is None else price] * 4 + ["0", "0", 0]
            last = row[4]

    return in_rows("kraken", change)


def found(filled):
    return {candle.open_time for candle in filled.candles} & ALL, set(minutes_of(filled.empties, SINCE, UNTIL))


@pytest.fixture
def truth():
    """The minutes with trades, of those asked for."""
    return found(Peer("kraken").fill("BTC/USD", SINCE, UNTIL))[0]


@pytest.mark.parametrize("price", ["0", "0.0", "1", "75000.12345"])
def test_a_row_of_zeros_or_of_another_price_is_no_evidence(truth, price):
    """The smallest input: a minute that traded has a row of zeros. Its trades are asked for, and build it."""
    minute = sorted(truth)[-3]
    peer = Peer("kraken", spoil=zeroed({minute}, price))
    filled = peer.fill("BTC/USD", SINCE, UNTIL)
    candles, empties = found(filled)
    assert candles == truth
    assert minute not in empties
    assert any(request.path.endswith("/Trades") for request in peer.requests)


def test_a_run_of_them_is_none_either(truth):
    """Ten traded minutes at one made-up price: only the first differs from the row before it, and none is believed."""
    minutes = set(range(BASE := sorted(truth)[5], BASE + 10 * MINUTE, MINUTE))
    candles, empties = found(Peer("kraken", spoil=zeroed(minutes, "1234.5")).fill("BTC/USD", SINCE, UNTIL))
    assert candles == truth
    assert not empties & truth


def test_without_trades_a_row_that_breaks_the_rule_leaves_its_minute_open():
    minute = NOON - 30 * MINUTE
    fill = KrakenHistory().fill(Series("kraken", "BTC/USD"), Millis(minute), Millis(minute + MINUTE), NOON)
    next(fill)
    row = ["1", "1", "1", "1", "0.5", "3", 2]
    zero = ["0", "0", "0", "0", "0", "0", 0]
    filled = resume(fill, rows(minute - MINUTE, row, zero, row), *[rows(minute)] * 9)
    assert (filled.candles[-1].open_time, filled.empties, whys(filled)) == (
        minute + MINUTE, (), {Why.ZERO_ROW_BREAKS_RULE},
    )  # fmt: skip


@pytest.mark.parametrize("vwap", ["0", "0.0", None])
def test_a_row_without_trades_at_the_price_before_it_is_evidence(vwap):
    """Also one after another such row, with which the page may begin."""
    minute = NOON - 30 * MINUTE
    zero = ["1", "1", "1", "1", vwap, "0.00000000", 0]
    traded = ["2", "2", "1", "1.0", "0.5", "3", 2]
    for before in ([traded], [zero], [zero, zero], [traded, zero]):
        fill = KrakenHistory().fill(Series("kraken", "BTC/USD"), Millis(minute), Millis(minute + MINUTE), NOON)
        next(fill)
        start = minute - len(before) * MINUTE
        filled = resume(fill, rows(start, *before, zero, traded))
        assert minutes_of(filled.empties, minute, minute + MINUTE) == [minute]


def test_the_row_that_a_page_begins_with_has_no_price_to_be_held_against_and_proves_nothing():
    """Where rows are left out the page may begin with the very minute that was asked for."""
    minute = NOON - 30 * MINUTE
    zero, traded = ["1", "1", "1", "1", "0", "0", 0], ["2", "2", "1", "1", "0.5", "3", 2]
    fill = KrakenHistory().fill(Series("kraken", "BTC/USD"), Millis(minute), Millis(minute + MINUTE), NOON)
    next(fill)
    filled = resume(fill, rows(minute, zero, traded, traded), *[rows(minute)] * 9)
    assert minutes_of(filled.empties, minute, minute + MINUTE) == []


@pytest.mark.parametrize(("price", "proven"), [("1", True), ("2", False)])
def test_after_a_row_that_cannot_be_read_the_next_one_is_held_against_the_row_before_that(price, proven):
    minute = NOON - 30 * MINUTE
    zero, traded = [*[price] * 4, "0", "0", 0], ["2", "2", "1", "1", "0.5", "3", 2]
    fill = KrakenHistory().fill(Series("kraken", "BTC/USD"), Millis(minute), Millis(minute + MINUTE), NOON)
    next(fill)
    filled = resume(fill, rows(minute - 2 * MINUTE, traded, [None, *traded[1:]], zero, traded), *[rows(minute)] * 9)
    assert minutes_of(filled.empties, minute, minute + MINUTE) == [minute] * proven


@pytest.mark.parametrize("length", [60, 100])
def test_a_long_silence_of_a_market_that_trades_is_looked_at(length):
    """At the last price, so that no rule is broken: the market's own trades decide."""
    since, until = NOON - 400 * MINUTE, NOON - 10 * MINUTE
    true = {c.open_time for c in Peer("kraken").fill("BTC/USD", since, until).candles if since <= c.open_time < until}
    silent = set(range(NOON - 250 * MINUTE, NOON - (250 - length) * MINUTE, MINUTE))
    assert len(true & silent) > length / 2
    peer = Peer("kraken", spoil=zeroed(silent, None))
    filled = peer.fill("BTC/USD", since, until)
    assert len([request for request in peer.requests if request.path.endswith("/Trades")]) >= 1
    candles = {candle.open_time for candle in filled.candles}
    empties = set(minutes_of(filled.empties, since, until))
    assert not empties & true
    assert candles >= true - silent
    assert whys(filled) <= {Why.LONG_SILENCE, Why.NOT_REACHED}


def test_what_the_requests_of_one_fill_do_not_reach_is_left_to_the_next():
    """More rows that lead to trades than one fill reads: these wait for nothing but their turn."""
    since, until = NOON - 650 * MINUTE, NOON - 10 * MINUTE
    odd = set(range(since + 30 * MINUTE, until, 60 * MINUTE))
    filled = Peer("kraken", spoil=zeroed(odd, "0")).fill("BTC/USD", since, until)
    left = {part.since for part in filled.missing}
    assert left
    assert left < odd
    assert whys(filled) == {Why.NOT_REACHED}


def test_a_quiet_markets_long_silence_is_believed():
    peer = Peer("kraken")
    market = peer.market
    symbol = next(s for s in market.symbols("kraken") if market.instrument("kraken", s).per_day < 8)
    filled = peer.fill(symbol, NOON - 11 * 60 * MINUTE, NOON - 10 * MINUTE)
    assert (filled.missing, len(peer.requests)) == ((), 1)


def rows(since, *rows):
    """An answer with a row a minute from *since* on, and a newest one at noon."""
    listed = [[since // 1000 + 60 * n, *row] for n, row in enumerate(rows)]
    body = {"error": [], "result": {"XXBTZUSD": listed, "last": NOON // 1000}}
    return Answer(200, json.dumps(body).encode())
