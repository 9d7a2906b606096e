"""Coinbase's REST record: rows where there were trades, ids where there were none."""

from __future__ import annotations

from decimal import Decimal

import attrs
import msgspec
import pytest
from history_peer import NOON, Peer, drive, minutes_of, whys

from trio_candles.candles.model import DAY, MINUTE, Millis, Series, Trade
from trio_candles.simulator import FOREVER, Market, RestFault
from trio_candles.venues.coinbase.history import CoinbaseHistory
from trio_candles.venues.findings import Findings
from trio_candles.venues.history import (
    ABSENT,
    Answer,
    Request,
    Throttled,
    Unavailable,
    UnknownSymbol,
    Using,
    Why,
)
from trio_candles.venues.protocol import Misunderstood

SERIES = Series("coinbase", "BTC-USD")
PAGE = 288 * MINUTE
DAY_AGO = NOON - DAY


def rows(*rows: object, status: int = 200) -> Answer:
    return Answer(status, msgspec.json.encode(rows))


LATER = [DAY_AGO // 1000 + 120, 1, 1, 1, 1, 1]
"""A row that shows that the venue had settled the minute at DAY_AGO when it answered."""


def ask_old() -> tuple[object, Request]:
    """A fill of one minute of yesterday, and its first request."""
    fill = CoinbaseHistory().fill(SERIES, DAY_AGO, Millis(DAY_AGO + MINUTE), NOON)
    return fill, next(fill)


# --- rows -------------------------------------------------------------------------------------------------


def test_a_window_and_its_overlap_are_one_page_of_300_rows():
    fill = CoinbaseHistory().fill(SERIES, DAY_AGO, Millis(DAY_AGO + PAGE), NOON)
    request = next(fill)
    assert request.path == "/products/BTC-USD/candles"
    start, end = int(request.params["start"]), int(request.params["end"])
    assert (end - start) // 60 + 1 == 300
    assert (start, end) == ((DAY_AGO - MINUTE) // 1000, (DAY_AGO + PAGE + 10 * MINUTE) // 1000)
    assert request.params["granularity"] == "60"


def test_a_row_is_low_before_high_before_open():
    fill = CoinbaseHistory().fill(SERIES, DAY_AGO, Millis(DAY_AGO + MINUTE), NOON)
    filled = drive(fill, rows(LATER, [DAY_AGO // 1000, 1.5, 4, 2, 3, 14.697630010000001]))
    (candle,) = filled.candles
    assert (candle.open, candle.high, candle.low, candle.close) == (2, 4, 1.5, 3)
    assert candle.volume == 14.697630010000001
    assert (candle.quote_volume, candle.vwap, candle.trades_count) == (None, None, None)


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ([4, 1.5, 2, 3, 1], "high_below_low"),
        ([1.5, 4, 5, 3, 1], "high_below_open"),
        ([0, 4, 2, 3, 1], "nonpositive_price"),
        ([1.5, 4, 2, 3, -1], "negative_volume"),
    ],
)
def test_a_row_that_breaks_a_rule_is_missing_by_the_rules_name(row, why):
    fill = CoinbaseHistory().fill(SERIES, DAY_AGO, Millis(DAY_AGO + MINUTE), NOON)
    filled = drive(fill, rows(LATER, [DAY_AGO // 1000, *row]))
    assert filled.candles == ()
    assert whys(filled) == {why}
    assert [(candle.open_time, rule) for candle, rule in filled.rejected] == [(DAY_AGO, why)]


def test_a_minute_is_rejected_once_and_an_unsettled_one_not_at_all():
    fill = CoinbaseHistory().fill(SERIES, NOON - 2 * MINUTE, NOON, NOON)
    late, young = (NOON - 2 * MINUTE) // 1000, (NOON - MINUTE) // 1000
    filled = drive(fill, rows([young + 60, 1, 1, 1, 1, 1], *([at, 4, 1, 2, 3, 1] for at in (young, late, late))))
    assert [(candle.open_time, rule) for candle, rule in filled.rejected] == [(late * 1000, "high_below_low")]


def test_a_candle_of_trades_that_breaks_a_rule_is_rejected_however_often_they_are_told():
    findings = Findings(SERIES, DAY_AGO, Millis(DAY_AGO + MINUTE), NOON)
    times = [DAY_AGO - 5_000, DAY_AGO + 5_000, DAY_AGO + MINUTE + 5_000]
    trades = [Trade(7 + n, Millis(time), Decimal(0), Decimal(1)) for n, time in enumerate(times)]
    findings.trades(trades)
    findings.trades(trades)
    filled = findings.filled()
    assert whys(filled) == {"nonpositive_price"}
    assert [(candle.open_time, rule) for candle, rule in filled.rejected] == [(DAY_AGO, "nonpositive_price")]


def test_rows_that_contradict_each_other_are_missing_and_repeated_ones_are_not():
    minute = DAY_AGO // 1000
    row, other = [minute, 1, 1, 1, 1, 1], [minute, 1, 1, 1, 1, 2]
    fill = CoinbaseHistory().fill(SERIES, DAY_AGO, Millis(DAY_AGO + MINUTE), NOON)
    assert whys(drive(fill, rows(LATER, row, other))) == {Why.ROWS_DIFFER}
    fill = CoinbaseHistory().fill(SERIES, DAY_AGO, Millis(DAY_AGO + MINUTE), NOON)
    assert len(drive(fill, rows(LATER, row, row)).candles) == 1


def test_the_forming_minute_and_the_unsettled_one_are_never_candles():
    peer = Peer("coinbase", now=Millis(NOON + 30_000))
    filled = peer.fill("BTC-USD", NOON - 10 * MINUTE, NOON + MINUTE)
    assert [part for part in filled.missing if part.why == Why.UNSETTLED][-1].until == NOON + MINUTE
    assert max(candle.open_time for candle in filled.candles) == NOON - 2 * MINUTE


@pytest.mark.parametrize("late", [20, 90, 200, 900, 3_000])
def test_an_answer_out_of_a_cache_proves_no_minute_that_was_forming_in_it(late):
    """The judge compares every candle with the truth."""
    peer = Peer("coinbase", now=Millis(NOON + 20_000))
    peer.exchange.faults.rest.append(RestFault("stale", path="/candles", seconds=late))
    peer.fill("BTC-USD", NOON - 60 * MINUTE, NOON - MINUTE)
    assert peer.exchange.faults.fired["rest stale"]


@pytest.mark.parametrize("ahead", [0, 600, 3_600, 90_000])
def test_the_newest_row_of_an_answer_is_not_believed_however_old_our_clock_says_it_is(ahead):
    now = Millis(NOON + ahead * 1000)
    newest = [(NOON - 5 * MINUTE) // 1000, 1.5, 4, 2, 3, 5]  # it may have been forming in what a cache has kept
    before = [(NOON - 7 * MINUTE) // 1000, 1, 1, 1, 1, 1]
    fill = CoinbaseHistory().fill(SERIES, Millis(NOON - 7 * MINUTE), Millis(NOON - 4 * MINUTE), now, Using.ROWS)
    filled = drive(fill, rows(newest, before))
    assert [candle.open_time for candle in filled.candles] == [NOON - 7 * MINUTE]


def test_the_last_row_before_a_silence_is_proven_by_the_trades_around_it():
    peer = Peer("coinbase")
    market = peer.market
    silent = next(
        minute
        for minute in range(DAY_AGO, DAY_AGO + DAY, MINUTE)
        if market.candle("coinbase", "SIM001-USD", minute) is not None
        and not any(market.candle("coinbase", "SIM001-USD", minute + n * MINUTE) for n in range(2, 13))
    )
    filled = peer.fill("SIM001-USD", silent, silent + MINUTE)
    assert "/products/SIM001-USD/trades" in {request.path for request in peer.requests}
    assert not filled.missing
    assert silent in {candle.open_time for candle in filled.candles}


def test_a_row_is_seen_to_be_settled_by_a_later_one_though_the_next_minutes_have_none():
    minute = DAY_AGO // 1000
    fill = CoinbaseHistory().fill(SERIES, DAY_AGO, Millis(DAY_AGO + MINUTE), NOON)
    request = next(fill)
    assert int(request.params["end"]) == minute + 11 * 60
    with pytest.raises(StopIteration) as ended:
        fill.send(rows([minute + 600, 1, 1, 1, 1, 1], [minute, 1.5, 4, 2, 3, 5]))
    assert DAY_AGO in {candle.open_time for candle in ended.value.value.candles}


def test_rows_before_the_start_and_float_artefacts_are_read():
    peer = Peer("coinbase")
    peer.exchange.faults.early_rows = 7
    peer.exchange.faults.float_artefacts = True
    filled = peer.fill("BTC-USD", DAY_AGO, DAY_AGO + 60 * MINUTE)
    assert min(candle.open_time for candle in filled.candles) == DAY_AGO - 37 * MINUTE
    assert not filled.missing


# --- trades -----------------------------------------------------------------------------------------------


def test_a_minute_without_a_row_is_empty_by_the_ids_around_it():
    peer = Peer("coinbase")
    filled = peer.fill("ETH-USD", DAY_AGO, DAY_AGO + PAGE)
    empty = filled.empties[0]
    first = peer.market.first_id_from("coinbase", "ETH-USD", empty.since * 1000)
    assert empty.evidence == f"no trade between the ids {first - 1} and {first}"
    assert len(minutes_of(filled.empties, DAY_AGO, DAY_AGO + PAGE)) > 3
    assert not filled.missing
    assert len(peer.requests) <= 6


def test_a_row_that_is_missing_although_there_were_trades_is_rebuilt_from_them():
    gone = DAY_AGO + 20 * MINUTE

    def spoil(request, answer):
        if not request.path.endswith("/candles"):
            return answer
        kept = [row for row in msgspec.json.decode(answer.body) if row[0] * 1000 != gone]
        return attrs.evolve(answer, body=msgspec.json.encode(kept))

    peer = Peer("coinbase", spoil=spoil)
    filled = peer.fill("BTC-USD", DAY_AGO, DAY_AGO + 60 * MINUTE)
    assert not filled.missing
    (candle,) = [candle for candle in filled.candles if candle.open_time == gone]
    truth = peer.market.candle("coinbase", "BTC-USD", gone)
    assert candle.trades_count == truth.trades_count
    assert candle.quote_volume == float(truth.quote_volume)


def test_by_trades_asks_for_no_row_and_builds_everything():
    peer = Peer("coinbase")
    filled = peer.fill("BTC-USD", DAY_AGO, DAY_AGO + 100 * MINUTE, by_trades=True)
    assert all(request.path.endswith("/trades") for request in peer.requests)
    assert not filled.missing
    assert all(candle.trades_count for candle in filled.candles)
    assert len(peer.requests) <= 10


def test_the_minutes_after_the_newest_trade_stay_missing():
    peer = Peer("coinbase")
    symbol = next(s for s in peer.market.symbols("coinbase") if peer.market.instrument("coinbase", s).per_day < 10)
    filled = peer.fill(symbol, NOON - 5 * DAY, NOON - MINUTE, by_trades=True)
    last = peer.market.last_trade_before("coinbase", symbol, NOON * 1000).time_us // 1000
    assert whys(filled) == {Why.NO_TRADE_AFTER}
    assert filled.missing[0].since <= last
    assert len(peer.requests) == 2, "one page, read twice because no row vouches for it"


def test_the_first_trade_of_all_proves_its_own_minute_and_none_before():
    listed = DAY_AGO + 10 * MINUTE
    peer = Peer("coinbase", market=Market(7, {("coinbase", "ETH-USD"): listed}))
    filled = peer.fill("ETH-USD", DAY_AGO, DAY_AGO + PAGE)
    first = peer.market.trade("coinbase", "ETH-USD", 1).time_us // 60_000_000 * MINUTE
    assert filled.candles[0].open_time == first
    assert [(part.since, part.until, part.why) for part in filled.missing] == [(DAY_AGO, first, Why.BEFORE_FIRST)]


def test_a_search_is_bounded_and_says_what_it_did_not_reach():
    peer = Peer("coinbase")
    filled = peer.fill("BTC-USD", NOON - 30 * DAY, NOON - 28 * DAY, by_trades=True)
    assert len(peer.requests) <= 40
    assert filled.candles[-1].open_time >= NOON - 28 * DAY - MINUTE
    assert whys(filled) == {Why.NOT_REACHED}
    assert filled.missing[0].since == NOON - 30 * DAY


def test_a_hole_among_the_ids_proves_nothing_around_it():
    market = Peer("coinbase").market
    hole = market.first_id_from("coinbase", "BTC-USD", (DAY_AGO + 10 * MINUTE) * 1000) + 5

    def spoil(request, answer):
        kept = [trade for trade in msgspec.json.decode(answer.body) if trade["trade_id"] != hole]
        return attrs.evolve(answer, body=msgspec.json.encode(kept))

    filled = Peer("coinbase", spoil=spoil).fill("BTC-USD", DAY_AGO, DAY_AGO + 20 * MINUTE, by_trades=True)
    assert [(part.since, part.why) for part in filled.missing] == [(DAY_AGO + 10 * MINUTE, Why.ID_HOLE)]


@pytest.mark.parametrize(
    "body", [b"[", b"[]", b'[{"time":"2026-01-01T00:00:00Z","trade_id":7,"price":"1","size":"1"}]']
)
def test_minutes_whose_trades_could_not_be_read_a_second_time_are_not_called_absent(body):
    """Seen so twice they would be given up for ever."""
    asked = []

    def spoil(request, answer):
        asked.append(request)
        return attrs.evolve(answer, body=body) if len(asked) > 1 and request.params == asked[-2].params else answer

    peer = Peer("coinbase", spoil=spoil)
    filled = peer.fill("BTC-USD", DAY_AGO, DAY_AGO + 3 * MINUTE, by_trades=True)
    assert asked[-1].params == asked[-2].params, "the last page is the one that was read again"
    assert minutes_of(filled.missing, DAY_AGO, DAY_AGO + 3 * MINUTE)
    assert not whys(filled) & ABSENT


def test_a_row_that_differs_from_its_trades_is_missing():
    changed = DAY_AGO + 20 * MINUTE

    def spoil(request, answer):
        if not request.path.endswith("/candles"):
            return answer
        kept = [row for row in msgspec.json.decode(answer.body) if row[0] * 1000 != changed + MINUTE]
        for row in kept:
            if row[0] * 1000 == changed:
                row[5] *= 1.001
        return attrs.evolve(answer, body=msgspec.json.encode(kept))

    peer = Peer("coinbase", spoil=spoil)
    filled = peer.fill("BTC-USD", DAY_AGO, DAY_AGO + 60 * MINUTE)
    assert [(part.since, part.until, part.why) for part in filled.missing] == [
        (changed, changed + MINUTE, Why.ROW_AND_TRADES_DIFFER)
    ]


def test_a_row_of_a_minute_that_ids_prove_empty_is_missing_and_not_empty():
    market = Peer("coinbase").market
    minutes = range(DAY_AGO, DAY_AGO + PAGE, MINUTE)
    silent = [minute for minute in minutes if market.candle("coinbase", "ADA-USD", minute) is None]
    invented = next(m for m in silent if m - MINUTE in silent and m + MINUTE in silent)

    def spoil(request, answer):
        if not request.path.endswith("/candles"):
            return answer
        made_up = [[invented // 1000, 1, 1, 1, 1, 1], *msgspec.json.decode(answer.body)]
        return attrs.evolve(answer, body=msgspec.json.encode(made_up))

    filled = Peer("coinbase", spoil=spoil).fill("ADA-USD", DAY_AGO, DAY_AGO + PAGE)
    assert [(part.since, part.until) for part in filled.missing] == [(invented, invented + MINUTE)]
    assert invented not in minutes_of(filled.empties, DAY_AGO, DAY_AGO + PAGE)
    assert {invented - MINUTE, invented + MINUTE} <= set(minutes_of(filled.empties, DAY_AGO, DAY_AGO + PAGE))


def test_a_page_that_is_not_the_one_below_the_cursor_is_nonsense():
    newest: list[Answer] = []

    def spoil(request, answer):
        newest.append(answer)
        return newest[0]

    filled = Peer("coinbase", spoil=spoil).fill("BTC-USD", DAY_AGO, DAY_AGO + PAGE, by_trades=True)
    assert not filled.candles
    assert next(iter(whys(filled))).startswith("cursor_ignored")


@pytest.mark.parametrize("symbol", ["BTC-USD", "ETH-USD", "ADA-USD", "SOL-USD"])
@pytest.mark.parametrize("nth", [0, 1, 2])
@pytest.mark.parametrize("by_trades", [False, True])
def test_trades_of_another_product_prove_nothing(symbol, nth, by_trades):
    """No answer names its product: pages repeat a trade, and what stands alone is read twice or vouched for by rows."""
    peer = Peer("coinbase")
    for _ in range(nth):
        peer.exchange.faults.rest.append(RestFault("slow", path="/trades"))
    peer.exchange.faults.rest.append(RestFault("wrong_symbol", path="/trades"))
    peer.fill(symbol, NOON - 3 * 60 * MINUTE, NOON - MINUTE, by_trades)


def test_rows_of_another_product_are_given_away_by_the_trades():
    peer = Peer("coinbase")
    peer.exchange.faults.rest.append(RestFault("wrong_symbol", path="/candles"))
    filled = peer.fill("ADA-USD", DAY_AGO, DAY_AGO + PAGE)
    assert not filled.candles
    assert whys(filled) == {Why.ROWS_AND_TRADES_DIFFER}


# --- what goes wrong --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Answer(429, b'{"message":"Public rate limit exceeded"}', 3.0), Throttled),
        (Answer(503, b"<html>"), Unavailable),
        (Answer(520, b""), Unavailable),
        (Answer(403, b"<html>"), Unavailable),
        (Answer(200, b" <!doctype html>"), Unavailable),
        (Answer(404, b'{"message":"NotFound"}'), UnknownSymbol),
        (Answer(404, b"<html>"), Unavailable),
        (Answer(404, b'{"message":"Gone fishing"}'), Misunderstood),
        (Answer(400, b'{"message":"granularity too small for the requested time range."}'), Misunderstood),
        (Answer(302, b""), Misunderstood),
        (Answer(200, b""), Misunderstood),
        (Answer(200, b"[[1788415260,1"), Misunderstood),
        (Answer(200, b'{"message":"hello"}'), Misunderstood),
        (Answer(200, b"[[1788415260,NaN,1,1,1,1]]"), Misunderstood),
        (Answer(200, b"[" * 100_000), Misunderstood),
    ],
)
def test_each_refusal_has_its_name(answer, error):
    fill, _ = ask_old()
    with pytest.raises(error) as raised:
        fill.send(answer)
    if error is Throttled:
        assert raised.value.retry_after == 3.0
    if isinstance(raised.value, Unavailable):
        assert raised.value.proven is None


def test_what_was_proved_before_a_refusal_is_not_lost():
    peer = Peer("coinbase")
    peer.exchange.faults.rest.append(RestFault("throttle", path="/trades"))
    with pytest.raises(Throttled) as raised:
        peer.fill("ETH-USD", DAY_AGO, DAY_AGO + PAGE)
    proven = raised.value.proven
    assert len(proven.candles) > 250
    peer.judge(proven, proven.candles[0].series, DAY_AGO, DAY_AGO + PAGE, NOON)


def test_an_error_thrown_into_a_fill_comes_back_with_what_was_proved():
    fill, _ = ask_old()
    with pytest.raises(Unavailable) as raised:
        fill.throw(Unavailable("no answer in 10 s"))
    assert raised.value.proven is None


def test_nonsense_after_a_good_answer_leaves_its_minutes_missing():
    peer = Peer("coinbase")
    peer.exchange.faults.rest.append(RestFault("truncated", path="/trades"))
    filled = peer.fill("ETH-USD", DAY_AGO, DAY_AGO + PAGE)
    assert len(filled.candles) > 250
    assert filled.missing
    assert all(why.startswith("not_json") for why in whys(filled))


def test_an_empty_list_is_no_proof():
    peer = Peer("coinbase")
    peer.exchange.faults.rest.append(RestFault("empty", times=FOREVER))
    filled = peer.fill("ETH-USD", DAY_AGO, DAY_AGO + PAGE)
    assert (filled.candles, filled.empties) == ((), ())
    assert whys(filled) == {Why.NO_TRADES}


def test_the_venues_time_is_read_to_the_millisecond():
    history = CoinbaseHistory()
    assert history.server_time().path == "/time"
    answer = Answer(200, b'{"iso":"2020-05-12T08:00:51.504Z","epoch":1589270451.504}')
    assert history.read_time(answer) == 1_589_270_451_504
    with pytest.raises(Misunderstood):
        history.read_time(Answer(200, b'{"epoch":1589270451.504}'))
