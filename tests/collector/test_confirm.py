"""Live candles are compared with the venues' record; what it says twice replaces them, what it never had is known."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter

import pytest
import trio
from journals import candle, journal_in, rows
from world import NOON, ONE_EACH, SYMBOLS, check_against_truth, collecting, ledger, rows_on_disk

from trio_candles.candles.model import DAY, MINUTE, Page, Series, Source
from trio_candles.collector.backlog import Backlog
from trio_candles.collector.confirm import Comparer
from trio_candles.simulator import FOREVER, Market, RestFault
from trio_candles.venues.registry import VENUES

ALL = [Series(name, symbol) for name, symbols in SYMBOLS.items() for symbol in symbols]


def minute(n):
    return NOON + n * MINUTE


async def sleep_until(seconds):
    await trio.sleep(seconds - trio.current_time())


def query(root, sql):
    database = sqlite3.connect(root / "journal.sqlite3")
    try:
        return database.execute(sql).fetchall()
    finally:
        database.close()


def an_hour_without_a_feed(clock, exchange):
    """Let the feed end here, and all be asleep until the hour's end: what comes then is REST's to say."""
    exchange.faults.refuse_connections = True
    exchange.drop_connections()
    clock.jump(3600 - trio.current_time())


def no_limit_was_exceeded(world):
    return not any(exchange.violations for exchange in world.exchanges.exchanges.values())


@pytest.mark.parametrize(
    ("symbols", "minutes"), [(ONE_EACH, 22), pytest.param(SYMBOLS, 40, marks=pytest.mark.slow)], ids=["few", "more"]
)
async def test_every_live_candle_is_confirmed_within_fifteen_minutes(autojump_clock, tmp_path, symbols, minutes):
    async with collecting(tmp_path, symbols, fill=True) as world:
        await sleep_until(minutes * 60)
        marks = query(
            tmp_path, "SELECT venue, symbol, confirmed.mark_ms FROM confirmed JOIN series ON series.id = series_id"
        )
        assert no_limit_was_exceeded(world)
        for name, board in world.service.board.venues.items():
            assert board.compared["agreed"] >= len(symbols[name]) * (minutes - 15), name
            assert not board.compared["differed"] + board.compared["replaced"] + board.compared["unanswered"], name
    assert len(marks) == sum(map(len, symbols.values()))
    for venue, symbol, mark in marks:
        # A candle that opens at the mark is the oldest that was not compared yet.
        assert mark >= minute(minutes - 15), (venue, symbol)
    assert not query(tmp_path, "SELECT * FROM revision")
    assert dict(query(tmp_path, "SELECT outcome, sum(count) FROM confirmation GROUP BY outcome")).keys() == {"agreed"}


async def test_what_can_never_be_compared_does_not_keep_others_waiting(autojump_clock):
    """Kraken is asked one such question in ten seconds: two closed markets, or a dozen doubts, could take them all."""
    closed = [Series("kraken", f"X{n}/USD") for n in range(8)]
    live = [Series("kraken", f"Y{n}/USD") for n in range(20)]
    with journal_in() as journal:
        journal.expect(closed, minute(-600), minute(-600))
        journal.commit([candle(-600, price, one) for one in closed for price in (100.0, 200.0)], NOON)
        journal.expect([*closed, *live], NOON, NOON)
        comparer = Comparer(Backlog(VENUES["kraken"].history))
        asked = Counter()
        for second in range(0, 2 * 3600, 10):
            now, newest = NOON + 1000 * second, second // 60 - 1
            if not second % 60 and newest >= 0:
                journal.commit([candle(newest, series=one) for one in live], now)
            marks = dict(rows(journal, "SELECT symbol, confirmed.mark_ms FROM confirmed JOIN series ON id = series_id"))
            assert all(now - marks[one.symbol] <= 15 * MINUTE for one in live), now
            comparer.backlog.look(journal, now)
            question = comparer.next_question(now)
            if question is not None:
                asked[question.series] += 1
                told = [candle(n, series=question.series, source=Source.REST) for n in range(newest)]
                answer = Page(
                    question.series, question.since, question.until,
                    tuple(c for c in told if question.since <= c.open_time < question.until and c.series in live),
                    (), conclusive=question.conclusive, comparing=True,
                )  # fmt: skip
                journal.commit([answer], now)
                comparer.backlog.release([answer])
            await trio.sleep(10)
    for series in closed:
        assert asked[series] >= 4, asked  # nor are these forgotten


@pytest.mark.parametrize("venue", ["kraken", "okx"])
async def test_a_candle_that_rest_denies_twice_is_replaced_and_both_are_kept(autojump_clock, tmp_path, venue):
    symbol = SYMBOLS[venue][0]
    series = Series(venue, symbol)
    async with collecting(tmp_path, {venue: (symbol,)}, fill=True) as world:
        world.exchanges[venue].faults.revise_row = lambda _, at: at == minute(5)
        await sleep_until(11 * 60)
        before = dict(rows_on_disk(tmp_path, series))
        await sleep_until(30 * 60)
        board = world.service.board.venues[venue]
        assert (board.revisions, board.compared["replaced"]) == (1, 1)
    after = rows_on_disk(tmp_path, series)
    true = float(world.market.candle(venue, symbol, minute(5)).volume)
    assert (before[minute(5)]["volume"], before[minute(5)]["source"]) == (true, "websocket")
    assert (after[minute(5)]["volume"], after[minute(5)]["source"]) == (2 * true, "rest")
    for at in before.keys() - {minute(5)}:
        assert after[at] == before[at]  # an equal candle never changes the stored row
    ((stored, offered, outcome),) = query(tmp_path, "SELECT stored, offered, outcome FROM revision")
    assert outcome == "replaced"
    assert (json.loads(stored)["volume"], json.loads(offered)["volume"]) == (true, 2 * true)


async def test_a_coinbase_row_that_its_trades_deny_replaces_nothing(autojump_clock, tmp_path):
    async with collecting(tmp_path, {"coinbase": ("BTC-USD",)}, fill=True) as world:
        world.exchanges["coinbase"].faults.revise_row = lambda _, at: at == minute(6)
        await sleep_until(30 * 60)
        assert world.service.board.venues["coinbase"].compared["differed"] == 1
    check_against_truth(tmp_path, world.market, Series("coinbase", "BTC-USD"))
    assert query(tmp_path, "SELECT outcome FROM revision") == [("kept",)]


async def test_a_close_that_the_feed_contradicts_is_settled_by_rest(autojump_clock, tmp_path):
    async with collecting(tmp_path, {"okx": ("BTC-USDT",)}, fill=True) as world:
        world.exchanges["okx"].faults.revise_confirm = lambda _, at: at == minute(5)
        await sleep_until(7 * 60)
        assert query(tmp_path, "SELECT outcome FROM revision") == [("open",)]
        await sleep_until(20 * 60)
    check_against_truth(tmp_path, world.market, Series("okx", "BTC-USDT"))
    assert query(tmp_path, "SELECT outcome FROM revision") == [("kept",)]


@pytest.mark.parametrize("venue", ["coinbase", "okx"])
async def test_a_page_of_another_market_is_never_believed(autojump_clock, tmp_path, venue):
    """Neither the first one, which nothing stored could contradict, nor any later one."""
    async with collecting(tmp_path, {venue: ONE_EACH[venue]}, fill=True, lookback_days=0.5, vouched=True) as world:
        world.exchanges[venue].faults.rest.append(RestFault("wrong_symbol", path="candles", times=1))
        await sleep_until(20)
        for times in range(40, 700, 60):
            world.exchanges[venue].faults.rest.append(RestFault("wrong_symbol", path="candles", times=1))
            await sleep_until(times)
        world.exchanges[venue].faults.rest.clear()
        await sleep_until(1200)
        assert no_limit_was_exceeded(world)
        # Where the feed itself contradicts a page, the page waits, and fewer are asked for.
        assert world.exchanges[venue].faults.fired["rest wrong_symbol"] >= 4
    for symbol in ONE_EACH[venue]:
        series = Series(venue, symbol)
        check_against_truth(tmp_path, world.market, series)
        with ledger(tmp_path) as books:
            assert not [m for m in books.gaps(series) if m < minute(15)], series


# --- what the venue does not have -------------------------------------------------------------------------


async def test_a_minute_that_the_record_leaves_out_twice_is_unfillable_with_both_observations(autojump_clock, tmp_path):
    async with collecting(tmp_path, {"okx": ("BTC-USDT",)}, fill=True) as world:
        faults = world.exchanges["okx"].faults
        faults.lose_confirm = faults.lose_row = lambda _, at: at == minute(5)
        await sleep_until(10 * 60)
        an_hour_without_a_feed(autojump_clock, world.exchanges["okx"])
        await sleep_until(62 * 60)
        assert world.service.board.venues["okx"].open_gap_minutes >= 1
        await sleep_until(90 * 60)
    ((since, until, state, reason, attempts, evidence),) = query(
        tmp_path, "SELECT since_ms, until_ms, state, reason, attempts, last_error FROM gap WHERE state != 'open'"
    )
    assert (since, until, state, reason) == (minute(5), minute(6), "unfillable", "no_close")
    assert attempts >= 2
    assert evidence.count("none of it") == 2
    events = query(tmp_path, f"SELECT event, at_ms FROM gap_event WHERE since_ms = {minute(5)} ORDER BY at_ms")
    assert [event for event, _ in events] == ["opened", "absent", "unfillable"]
    assert events[1][1] >= minute(6 + 60)
    assert events[2][1] - events[1][1] >= 10 * MINUTE
    check_against_truth(tmp_path, world.market, Series("okx", "BTC-USDT"))


@pytest.mark.parametrize("venue", ["coinbase", "kraken"])
async def test_a_minute_whose_trades_nobody_has_is_unfillable(autojump_clock, tmp_path, venue):
    symbol = SYMBOLS[venue][0]
    async with collecting(tmp_path, {venue: (symbol,)}, fill=True) as world:
        trades = world.market.trades(venue, symbol, minute(6))
        lost = trades[len(trades) // 2].trade_id
        faults = world.exchanges[venue].faults
        faults.drop_trade = faults.lose_trade = lambda _, trade_id: trade_id == lost
        faults.lose_row = lambda _, at: at == minute(6)
        faults.skip_ohlc = lambda _, trade_id: trade_id >= lost and trade_id <= trades[-1].trade_id
        await sleep_until(10 * 60)
        an_hour_without_a_feed(autojump_clock, world.exchanges[venue])
        await sleep_until(90 * 60)
    spans = query(tmp_path, "SELECT since_ms, until_ms, last_error FROM gap WHERE state = 'unfillable'")
    assert [(since, until) for since, until, _ in spans] == [(minute(6), minute(7))]
    assert spans[0][2].count("not contiguous") == 2
    check_against_truth(tmp_path, world.market, Series(venue, symbol))


async def test_a_hole_that_closes_before_it_was_seen_twice_is_filled(autojump_clock, tmp_path):
    async with collecting(tmp_path, {"okx": ("BTC-USDT",)}, fill=True) as world:
        faults = world.exchanges["okx"].faults
        faults.lose_confirm = faults.lose_row = lambda _, at: at == minute(5)
        await sleep_until(10 * 60)
        an_hour_without_a_feed(autojump_clock, world.exchanges["okx"])
        await sleep_until(72 * 60)
        assert query(tmp_path, "SELECT count(*) FROM gap_event WHERE event = 'absent'") == [(1,)]
        faults.lose_row = None
        await sleep_until(90 * 60)
    assert not query(tmp_path, f"SELECT * FROM gap WHERE since_ms = {minute(5)}")
    assert minute(5) in rows_on_disk(tmp_path, Series("okx", "BTC-USDT"))


async def test_a_record_that_is_empty_for_hours_makes_nothing_unfillable(autojump_clock, tmp_path):
    """Half of what is expected is old enough from the start, and could be missed twice within half an hour."""
    symbols = {"coinbase": ("SOL-USD",), "kraken": ("SIM001/USD",), "okx": ("SIM001-USDT",)}
    async with collecting(tmp_path, symbols, fill=True, lookback_days=0.1) as world:
        for exchange in world.exchanges.exchanges.values():
            exchange.faults.rest.append(RestFault("empty", times=FOREVER))
        await sleep_until(30 * 60)
    assert query(tmp_path, "SELECT count(*) FROM gap WHERE state != 'open'") == [(0,)]
    assert query(tmp_path, "SELECT count(*) FROM gap") != [(0,)]


async def test_minutes_before_the_listing_are_not_expected_and_stay_so(autojump_clock, tmp_path):
    began = NOON - 7 * 60 * MINUTE
    listed = {(name, SYMBOLS[name][0]): began + 25_000 for name in SYMBOLS}
    symbols = ONE_EACH
    market = Market(7, listed)
    async with collecting(tmp_path, symbols, fill=True, lookback_days=1, market=market) as world:
        await sleep_until(600)
        assert no_limit_was_exceeded(world)
    for name, (symbol,) in symbols.items():
        series = Series(name, symbol)
        with ledger(tmp_path) as books:
            first = books.range(series).start
            assert began <= first <= began + MINUTE, name
            # OKX states when it listed the market; its first row may come a minute later.
            assert not [m for m in books.gaps(series) if m < minute(6) and m != began], name
        check_against_truth(tmp_path, market, series)
        ((evidence,),) = query(
            tmp_path, f"SELECT evidence FROM listing JOIN series ON series.id = series_id WHERE venue = '{name}'"
        )
        assert evidence
    # A later start with a longer lookback knows it still.
    async with collecting(tmp_path, symbols, epoch=NOON + DAY // 24, fill=True, lookback_days=2, market=market):
        await trio.sleep(150)
    for name, (symbol,) in symbols.items():
        with ledger(tmp_path) as books:
            assert began <= books.range(Series(name, symbol)).start <= began + MINUTE


@pytest.mark.slow
async def test_a_long_backfill_says_how_far_it_is(autojump_clock, tmp_path):
    async with collecting(tmp_path, {"kraken": SYMBOLS["kraken"]}, fill=True, lookback_days=2) as world:
        await sleep_until(65)
        lines = [line for line in world.shown[-1].splitlines() if "BACKFILL" in line]
        await sleep_until(720)
    assert len(lines) == 1
    assert lines[0].startswith("  BACKFILL KRAKEN: ")
    assert "left" in lines[0]
    assert "ETA" in lines[0]
    assert "BACKFILL" not in world.shown[-1]
