"""Gaps are closed over REST, within the venues' limits, whatever made them; what is not proven stays open."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable

import attrs
import httpx
import pytest
import trio
from world import NOON, ONE_EACH, SYMBOLS, check_against_truth, collecting, ledger

from trio_candles.candles.model import DAY, MINUTE, Millis, Series
from trio_candles.collector.backlog import Backlog
from trio_candles.collector.gapfill import Filler
from trio_candles.simulator import FOREVER, Market, RestFault
from trio_candles.store.gaps import Due
from trio_candles.venues.registry import VENUES

EACH = [Series(name, symbol) for name, (symbol,) in ONE_EACH.items()]


def minute(n):
    return NOON + n * MINUTE


def gaps_of(root, series):
    with ledger(root) as books:
        return books.gaps(series)


async def sleep_until(seconds):
    await trio.sleep(seconds - trio.current_time())


def no_limit_was_exceeded(world):
    return not any(exchange.violations for exchange in world.exchanges.exchanges.values())


@pytest.mark.parametrize("minutes", [15, pytest.param(90, marks=pytest.mark.slow)])
async def test_an_outage_of_all_venues_is_filled_and_nothing_else_changes(autojump_clock, tmp_path, minutes):
    async with collecting(tmp_path, ONE_EACH, fill=True) as world:
        await sleep_until(300)
        for exchange in world.exchanges.exchanges.values():
            exchange.faults.refuse_connections = True
            exchange.drop_connections()
        await sleep_until(60 * (5 + minutes))
        for exchange in world.exchanges.exchanges.values():
            exchange.faults.refuse_connections = False
        await sleep_until(60 * (5 + minutes + 10))
        assert no_limit_was_exceeded(world)
    for series in EACH:
        check_against_truth(tmp_path, world.market, series)
        # The last minutes before the stop are not settled; everything older is known.
        assert not [m for m in gaps_of(tmp_path, series) if m < minute(5 + minutes + 7)]


async def test_a_first_start_fills_its_lookback(autojump_clock, tmp_path):
    async with collecting(tmp_path, ONE_EACH, fill=True, lookback_days=0.625) as world:
        await sleep_until(720)
        assert no_limit_was_exceeded(world)
    for series in EACH:
        check_against_truth(tmp_path, world.market, series)
        assert not [m for m in gaps_of(tmp_path, series) if m < minute(9)], series
        with ledger(tmp_path) as books:
            assert books.range(series).start == NOON - DAY * 5 // 8


async def test_no_minute_stays_open_longer_than_five_minutes(autojump_clock, tmp_path):
    """Thin symbols prove nothing on their own feed for hours; REST does once the minute has settled."""
    symbols = {"coinbase": ("SOL-USD",), "kraken": ("SIM001/USD",), "okx": ("SIM001-USDT",)}
    async with collecting(tmp_path, symbols, fill=True) as world:
        await sleep_until(1200)
        assert no_limit_was_exceeded(world)
    for name, (symbol,) in symbols.items():
        series = Series(name, symbol)
        check_against_truth(tmp_path, world.market, series)
        assert not [m for m in gaps_of(tmp_path, series) if m < minute(15)], series


@pytest.mark.slow
async def test_a_venue_whose_rest_is_down_keeps_its_gaps_and_counts_the_attempts(autojump_clock, tmp_path):
    async with collecting(tmp_path, {"okx": ("BTC-USDT", "ETH-USDT")}, fill=True, lookback_days=0.1) as world:
        world.exchanges["okx"].faults.rest.append(RestFault("status", times=FOREVER, status=503))
        await sleep_until(1800)
        assert world.service.board.venues["okx"].status(world.time.now()) == "[OK]"
        with_fault = world.service.board.venues["okx"].open_gap_minutes
        world.exchanges["okx"].faults.rest.clear()
        await sleep_until(1800 + 900)
    assert with_fault >= 280
    series = Series("okx", "BTC-USDT")
    check_against_truth(tmp_path, world.market, series)
    assert not [m for m in gaps_of(tmp_path, series) if m < minute(42)]


@pytest.mark.parametrize(
    "kind",
    ["status", "truncated", "empty", "short", "slow"]
    + [pytest.param(kind, marks=pytest.mark.slow) for kind in ("throttle", "html", "disconnect")],
)
async def test_bad_answers_are_never_believed_and_the_rest_goes_on(autojump_clock, tmp_path, kind):
    async with collecting(tmp_path, ONE_EACH, fill=True, lookback_days=0.02) as world:
        for exchange in world.exchanges.exchanges.values():
            exchange.faults.rest.append(RestFault(kind, times=2, status=500, seconds=60))
        await sleep_until(480)
        assert no_limit_was_exceeded(world)
    for series in EACH:
        check_against_truth(tmp_path, world.market, series)
        assert not [m for m in gaps_of(tmp_path, series) if m < minute(5)], series


async def test_a_page_of_another_market_is_not_believed_where_it_says_so(autojump_clock, tmp_path):
    """Kraken's answers name their market."""
    async with collecting(tmp_path, {"kraken": SYMBOLS["kraken"]}, fill=True, lookback_days=0.02) as world:
        world.exchanges["kraken"].faults.rest.append(RestFault("wrong_symbol", times=2))
        await sleep_until(600)
        assert no_limit_was_exceeded(world)
    for symbol in SYMBOLS["kraken"]:
        series = Series("kraken", symbol)
        check_against_truth(tmp_path, world.market, series)
        assert not [m for m in gaps_of(tmp_path, series) if m < minute(5)], series


@pytest.mark.parametrize("venue", ["coinbase", "okx"])
@pytest.mark.parametrize("before", [0, 125])
async def test_a_page_of_another_market_is_not_believed_whatever_came_before(autojump_clock, tmp_path, venue, before):
    """Coinbase's and OKX's do not say whose they are: the first page, or one after a page of which nothing came."""
    symbol = SYMBOLS[venue][0]
    async with collecting(tmp_path, {venue: (symbol,)}, fill=True, vouched=True) as world:
        faults = world.exchanges[venue].faults
        faults.silent = True  # nothing is stored but what REST says
        faults.lose_row = lambda name, lost: name == symbol and lost == minute(0)  # which says nothing of the first
        faults.lose_trade = lambda name, id_: name == symbol and id_ % 5 == 0
        await sleep_until(before)
        faults.rest.append(RestFault("wrong_symbol", path="candles"))
        await sleep_until(600)
        assert faults.fired["rest wrong_symbol"] == 1
    check_against_truth(tmp_path, world.market, Series(venue, symbol))


@pytest.mark.parametrize("status", [404, 500])
@pytest.mark.parametrize(("venue", "refused"), [("coinbase", "/trades"), ("okx", "/instruments")])
async def test_rows_are_stored_though_what_is_asked_about_the_rest_is_always_refused(
    autojump_clock, tmp_path, venue, refused, status
):
    """The oldest row is missing: Coinbase is asked for its trades, OKX whether the market had begun."""
    symbol, oldest = SYMBOLS[venue][0], NOON - 144 * MINUTE
    async with collecting(tmp_path, {venue: (symbol,)}, fill=True, vouched=True, lookback_days=0.1) as world:
        faults = world.exchanges[venue].faults
        faults.silent = True  # nothing is stored but what REST says
        faults.lose_row = lambda name, lost: name == symbol and lost == oldest
        faults.rest.append(RestFault("status", path=refused, times=FOREVER, status=status))
        await sleep_until(600)
        assert faults.fired["rest status"] > 1
        assert no_limit_was_exceeded(world)
    series = Series(venue, symbol)
    check_against_truth(tmp_path, world.market, series)
    without_a_row = {oldest, *(m for m in range(oldest, NOON, MINUTE) if not world.market.candle(venue, symbol, m))}
    assert {m for m in gaps_of(tmp_path, series) if m < NOON} == (without_a_row if venue == "coinbase" else {oldest})


@pytest.mark.parametrize("wrong_pages", [0, 1])
async def test_rows_are_stored_though_the_endpoint_of_the_missing_ones_is_always_refused(
    autojump_clock, tmp_path, wrong_pages
):
    """OKX has rows on two endpoints: both times they are told, one of them refuses. Told once they prove nothing."""
    symbol, lost = "BTC-USDT", minute(-70)
    async with collecting(tmp_path, {"okx": (symbol,)}, fill=True, vouched=True, lookback_days=0.1) as world:
        faults = world.exchanges["okx"].faults
        faults.silent = True  # nothing is stored but what REST says
        faults.lose_row = lambda _, at: at == lost
        faults.rest.append(RestFault("status", path="history-candles", times=FOREVER))
        faults.rest.append(RestFault("wrong_symbol", path="market/candles", times=wrong_pages))
        await sleep_until(600)
        assert faults.fired["rest wrong_symbol"] == wrong_pages
    check_against_truth(tmp_path, world.market, Series("okx", symbol))
    assert [m for m in gaps_of(tmp_path, Series("okx", symbol)) if m < NOON] == [lost]


@pytest.mark.parametrize("refused", [0, 3])
async def test_a_listing_is_not_believed_of_trades_that_were_told_once(autojump_clock, tmp_path, refused):
    """One page of another market's trades, back to its first: minutes before that are expected none the less."""
    series = Series("coinbase", "BTC-USD")
    market = Market(7, {("coinbase", "ETH-USD"): minute(-3)})
    async with collecting(
        tmp_path, {"coinbase": (series.symbol,)}, fill=True, lookback_days=0.1, market=market
    ) as world:
        faults = world.exchanges["coinbase"].faults
        faults.silent = True  # nothing is stored but what REST says
        faults.lose_row = lambda _, at: at == minute(-70)
        faults.rest.append(RestFault("wrong_symbol", path="/trades"))
        faults.rest.append(RestFault("status", path="/trades", times=refused))
        await sleep_until(600)
        assert faults.fired["rest wrong_symbol"] == 1
    check_against_truth(tmp_path, market, series)
    with ledger(tmp_path) as books:
        assert books.range(series).start == minute(-144)


async def test_a_listing_that_is_still_to_come_counts_as_an_attempt(autojump_clock, tmp_path):
    market = Market(7, {("okx", "BTC-USDT"): minute(30)})
    async with collecting(tmp_path, {"okx": ("BTC-USDT",)}, fill=True, vouched=True, lookback_days=0.1, market=market):
        await sleep_until(600)
    with ledger(tmp_path) as books:
        assert 1 < books.one("SELECT min(attempts) FROM gap WHERE until_ms <= ?", NOON) < 12


@pytest.mark.parametrize(("hours", "at_most"), [(0.5, 120), pytest.param(2, 400, marks=pytest.mark.slow)])
async def test_a_market_that_is_closed_is_asked_about_ever_more_rarely(autojump_clock, tmp_path, hours, at_most):
    """Its gap grows by a minute each minute, and with it the end of every page of it."""
    market = Market(7, {("okx", "BTC-USDT"): minute(3000)})
    async with collecting(
        tmp_path, {"okx": ("BTC-USDT",)}, fill=True, vouched=True, lookback_days=3, market=market
    ) as world:
        await sleep_until(3600 * hours)
        assert 20 < len(world.exchanges.exchanges["okx"].requests) < at_most


async def test_every_series_has_its_turn_though_a_budget_does_not_suffice_for_all(autojump_clock):
    """Thin pairs have a new minute to ask about each minute; one answer tells all that a pair has waited for."""
    many = [Series("kraken", f"A{n:03}/USD") for n in range(120)]
    filler = Filler(Backlog(VENUES["kraken"].history))
    asked = Counter()
    while trio.current_time() < 1200:
        newest = Millis(NOON + (int(trio.current_time()) // 60 - 2) * MINUTE)
        filler.backlog.due = {one: Due(one, Millis(newest - MINUTE), newest, True, False) for one in many}
        page = filler.next_page(NOON)
        assert page is not None
        asked[page.series] += 1
        filler.backlog.busy.clear()
        await trio.sleep(1)
    assert min(asked[one] for one in many) >= 5


async def test_holes_that_nobody_can_fill_do_not_keep_others_waiting(autojump_clock, tmp_path):
    """Kraken is asked for the trades of the oldest holes first, and for few of them at a time."""
    symbol, oldest, hidden = "BTC/USD", NOON - 360 * MINUTE, 300 * MINUTE
    async with collecting(tmp_path, {"kraken": (symbol,)}, fill=True, lookback_days=1 / 4) as world:
        ids = {
            trade.trade_id
            for at in range(oldest, oldest + hidden, 4 * MINUTE)
            for trade in world.market.trades("kraken", symbol, at)
        }
        faults = world.exchanges["kraken"].faults
        faults.lose_row = lambda _, at: at % (4 * MINUTE) == 0
        faults.lose_trade = lambda _, id_: id_ in ids
        await sleep_until(300)
        assert no_limit_was_exceeded(world)
    gaps = [at for at in gaps_of(tmp_path, Series("kraken", symbol)) if at < NOON]
    assert gaps
    assert max(gaps) < oldest + hidden


async def test_attempts_and_their_errors_are_in_the_ledger(autojump_clock, tmp_path):
    async with collecting(tmp_path, {"okx": ("BTC-USDT",)}, fill=True, lookback_days=0.05) as world:
        world.exchanges["okx"].faults.rest.append(RestFault("status", times=FOREVER, status=503))
        await sleep_until(600)
    with ledger(tmp_path) as books:
        assert books.one("SELECT max(attempts) FROM gap") >= 2
        assert "503" in books.one("SELECT last_error FROM gap WHERE attempts > 0")


async def test_a_dropped_trade_is_repaired_from_the_venues_record(autojump_clock, tmp_path):
    async with collecting(tmp_path, {"coinbase": ("BTC-USD",)}, fill=True) as world:
        await sleep_until(470)
        trades = world.market.trades("coinbase", "BTC-USD", minute(8))
        lost = trades[len(trades) // 2].trade_id
        world.exchanges["coinbase"].faults.drop_trade = lambda symbol, id_: id_ == lost
        series = Series("coinbase", "BTC-USD")
        await sleep_until(555)
        with ledger(tmp_path) as books:
            assert books.opened(series)[minute(8)] == "missing_trades"
        await sleep_until(900)
    check_against_truth(tmp_path, world.market, series)
    assert minute(8) not in gaps_of(tmp_path, series)


async def test_filling_switched_off_still_knows_every_gap(autojump_clock, tmp_path):
    async with collecting(tmp_path, {"okx": ("BTC-USDT",)}, fill=False, lookback_days=0.05) as world:
        await sleep_until(600)
        assert not world.exchanges["okx"].requests
    assert len(gaps_of(tmp_path, Series("okx", "BTC-USDT"))) >= 72


# --- candles against the rules ------------------------------------------------------------------------------


@attrs.define
class Impossible(httpx.AsyncBaseTransport):
    """The simulated venues, but OKX's highest price of some minutes is far below the lowest."""

    venues: httpx.AsyncBaseTransport
    holds: Callable[[int], bool]

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await self.venues.handle_async_request(request)
        if "candles" not in request.url.path:
            return response
        document = json.loads(await response.aread())
        for row in document["data"]:
            if self.holds(int(row[0])):
                row[2] = "0.01"
        return httpx.Response(response.status_code, json=document)


async def test_a_rest_candle_against_the_rules_is_counted_and_told_with_the_candle(autojump_clock, tmp_path, caplog):
    """For a gap its minute stays one; of a stored minute, with which it is compared, it changes nothing."""
    caplog.set_level(logging.DEBUG, "trio_candles.collector.writer")
    bad = {minute(-5), minute(2)}
    async with collecting(
        tmp_path,
        {"okx": ("BTC-USDT",)},
        fill=True,
        vouched=True,
        lookback_days=0.01,
        wrap_rest=lambda venues: Impossible(venues, bad.__contains__),
    ) as world:
        board = world.service.board.venues["okx"]
        await sleep_until(20)
        assert board.rejected == {"high_below_low": 1}
        await sleep_until(15 * 60)
        with ledger(tmp_path) as books:
            assert list(books.gaps(Series("okx", "BTC-USDT"))).count(minute(-5)) == 1
        bad.clear()
        times = board.rejected["high_below_low"]
        assert board.received == 14
        await sleep_until(30 * 60)
        assert board.rejected == {"high_below_low": times}
    said = [one for one in caplog.records if "rejected (high_below_low)" in one.message]
    # Whoever asks again hears it again: counted, and told where it disturbs nobody.
    assert len(said) == times > 3
    loud = [one.message for one in said if one.levelno == logging.WARNING]
    assert [str(at) in text for at, text in zip((minute(-5), minute(2)), loud, strict=True)] == [True, True]
    check_against_truth(tmp_path, world.market, Series("okx", "BTC-USDT"))
    with ledger(tmp_path) as books:
        assert not [m for m in books.gaps(Series("okx", "BTC-USDT")) if m < minute(25)]
        assert books.one("SELECT count FROM rejection WHERE reason = ?", "high_below_low") == times
