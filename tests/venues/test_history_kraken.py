"""Kraken's REST record: rows within twelve hours, trades by id before them."""

from __future__ import annotations

import json
from decimal import Decimal

import attrs
import msgspec
import pytest
from history_peer import NOON, Peer, minutes_of, resume, whys
from recorded import recorded

from trio_candles.candles.model import DAY, MINUTE, Millis, Series
from trio_candles.simulator import Market, RestFault
from trio_candles.venues.history import Answer, Throttled, Unavailable, UnknownSymbol, Using, Why
from trio_candles.venues.kraken.history import KrakenHistory, altname, names_of
from trio_candles.venues.protocol import Misunderstood

SERIES = Series("kraken", "BTC/USD")
HOUR = 60 * MINUTE


def asked(series: Series = SERIES, since: int = NOON - HOUR, until: int = NOON - MINUTE, now: int = NOON, **more):
    """A fill that has asked its first question."""
    fill = KrakenHistory().fill(series, Millis(since), Millis(until), Millis(now), **more)
    return fill, next(fill)


def thin(venue: str) -> str:
    market = Peer(venue).market
    return next(s for s in market.symbols(venue) if market.instrument(venue, s).per_day < 8)


# --- names ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("symbol", "name"),
    [
        ("BTC/USD", "XXBTZUSD"), ("BTC/USD", "XBTUSD"), ("BTC/USDT", "XBTUSDT"), ("DOGE/BTC", "XXDGXXBT"),
        ("DOGE/USD", "XDGUSD"), ("XRP/USD", "XXRPZUSD"), ("ZEC/EUR", "XZECZEUR"), ("USDT/USD", "USDTZUSD"),
        ("EUR/USD", "ZEURZUSD"), ("AAVE/USD", "AAVEUSD"), ("SOL/USD", "SOLUSD"), ("ETH/BTC", "ETHXBT"),
    ],
)  # fmt: skip
def test_a_pair_has_many_names(symbol, name):
    assert name in names_of(symbol)
    assert altname(symbol) in names_of(symbol)


def test_every_recorded_pair_is_known_by_its_names_and_no_other():
    pairs = json.loads(recorded("rest/kraken_assetpairs_20210417.json").read_text(encoding="utf-8"))["result"]
    keys = {
        pair["wsname"].replace("XBT", "BTC").replace("XDG", "DOGE"): (key, pair["altname"])
        for key, pair in pairs.items()
        if "wsname" in pair
    }
    assert len(keys) > 250
    for symbol, (key, alternative) in keys.items():
        assert altname(symbol) == alternative
        assert {other for other, (name, _) in keys.items() if name in names_of(symbol)} == {symbol}, key


def test_rows_of_another_pair_are_refused():
    peer = Peer("kraken")
    peer.exchange.faults.rest.append(RestFault("wrong_symbol"))
    with pytest.raises(Misunderstood, match="wrong_symbol"):
        peer.fill("BTC/USD", NOON - HOUR, NOON - MINUTE)
    fill, _ = asked()
    with pytest.raises(Misunderstood, match="wrong_symbol"):
        fill.send(Answer(200, b'{"error":[],"result":{"XXBTZUSD":[],"XETHZUSD":[],"last":1}}'))


# --- rows -------------------------------------------------------------------------------------------------


def test_twelve_hours_are_one_request_and_zero_rows_are_empty():
    peer = Peer("kraken")
    (filled,) = peer.fill_all("DOGE/USD", NOON - 699 * MINUTE, NOON)
    assert len(peer.requests) == 1
    assert int(peer.requests[0].params["since"]) == NOON // 1000 - 701 * 60
    assert not filled.missing
    assert {empty.evidence for empty in filled.empties} == {"zero row"}
    candle = filled.candles[0]
    assert candle.quote_volume is None
    assert candle.trades_count > 0


@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("last_is_forming", [False, True])
@pytest.mark.parametrize("omitted", [False, True])
@pytest.mark.parametrize("symbol", ["BTC/USD", "ETH/USD", "DOGE/USD", "thin"])
def test_no_convention_of_the_venue_loses_a_minute(exclusive, last_is_forming, omitted, symbol):
    peer = Peer("kraken", now=Millis(NOON + 25_000))
    faults = peer.exchange.faults
    faults.since_exclusive, faults.last_is_forming, faults.omit_empty_rows = exclusive, last_is_forming, omitted
    symbol = thin("kraken") if symbol == "thin" else symbol
    # Where nothing is said about silence, the minutes after the last trade cannot be known.
    until = peer.market.last_trade_before("kraken", symbol, (NOON - 5 * MINUTE) * 1000).time_us // 60_000_000 * MINUTE
    until = Millis(until if omitted else NOON - MINUTE)
    fills = peer.fill_all(symbol, max(until - 3 * HOUR, NOON - 11 * HOUR), until)
    assert not any(filled.missing for filled in fills)


@pytest.mark.parametrize("late", [20, 90, 200, 900])
def test_an_answer_out_of_a_cache_proves_no_minute_that_was_forming_in_it(late):
    peer = Peer("kraken", now=Millis(NOON + 20_000))
    peer.exchange.faults.rest.append(RestFault("stale", seconds=late))
    filled = peer.fill("DOGE/USD", NOON - HOUR, NOON - MINUTE)
    assert filled.candles
    assert whys(filled) <= {Why.MAYBE_OLD}
    assert bool(filled.missing) is (late > 80)


def test_the_recorded_rows_are_read_exactly():
    body = recorded("rest/kraken_ohlc_1m_XBTUSDT_20251110_trimmed.json").read_bytes()
    result = json.loads(body)["result"]
    first, *parsed = result["XBTUSDT"]
    assert not first[7], "without trades, and without a row before it to be held against"
    since, until = parsed[0][0] * 1000, parsed[-1][0] * 1000 + MINUTE
    fill, _ = asked(Series("kraken", "BTC/USDT"), since, until, result["last"] * 1000 + 3 * MINUTE)
    filled = resume(fill, Answer(200, body))
    assert not filled.missing
    assert [c.open_time for c in filled.candles] == [row[0] * 1000 for row in parsed if row[7]]
    assert minutes_of(filled.empties, since, until) == [row[0] * 1000 for row in parsed if not row[7]]
    for candle, row in zip(filled.candles, [row for row in parsed if row[7]], strict=True):
        numbers = (candle.open, candle.high, candle.low, candle.close, candle.vwap, candle.volume)
        assert (*numbers, candle.trades_count) == (*map(float, row[1:7]), row[7])


def test_the_recorded_trades_build_the_recorded_rows():
    """409 minutes of rows and trades that the venue published independently of each other."""
    body = recorded("rest/kraken_trades_XBTUSDT_20251110_first400.json").read_bytes()
    listed = json.loads(recorded("rest/kraken_ohlc_1m_XBTUSDT_20251110_trimmed.json").read_bytes())
    stated = {row[0] * 1000: row for row in listed["result"]["XBTUSDT"]}
    times = [row[2] for row in json.loads(body)["result"]["XBTUSDT"]]
    since, until = int(times[0]) // 60 * MINUTE + MINUTE, int(times[-1]) // 60 * MINUTE
    fill, request = asked(Series("kraken", "BTC/USDT"), since, until, until + DAY)
    assert request.path == "/0/public/Trades"
    filled = resume(fill, Answer(200, body))
    assert not filled.missing
    assert len(filled.candles) + len(minutes_of(filled.empties, since, until)) == (until - since) // MINUTE > 140
    assert all(not stated[minute][7] for minute in minutes_of(filled.empties, since, until))
    for candle in filled.candles:
        row = stated[candle.open_time]
        prices = (candle.open, candle.high, candle.low, candle.close, candle.volume)
        assert (*prices, candle.trades_count) == (*map(float, (*row[1:5], row[6])), row[7])
        assert 0 <= candle.vwap - float(row[5]) < 0.1, "the row's is truncated to the tick"


# --- trades -----------------------------------------------------------------------------------------------


def test_beyond_the_rows_a_quiet_day_is_a_page_and_exact():
    peer = Peer("kraken")
    filled = peer.fill("DOGE/USD", NOON - 3 * DAY, NOON - 2 * DAY)
    assert len(peer.requests) == 1
    assert not filled.missing
    assert all(candle.quote_volume is not None for candle in filled.candles)
    assert filled.empties[0].evidence.startswith("no trade between the ids ")


def test_a_thin_pair_is_found_by_looking_further_back():
    peer = Peer("kraken")
    filled = peer.fill(thin("kraken"), NOON - 2 * DAY, NOON - DAY)
    assert not filled.missing
    assert len(peer.requests) <= 3


def test_a_busy_day_takes_several_fills_and_each_says_what_is_left():
    peer = Peer("kraken")
    since, until, total = NOON - 3 * DAY, NOON - 2 * DAY, 0
    while since < until:
        filled = peer.fill("BTC/USD", since, until)
        assert len(peer.requests) <= 10
        assert whys(filled) <= {Why.NOT_REACHED}
        reached = min((part.since for part in filled.missing), default=until)
        assert reached == until or reached > since + 3 * HOUR
        since, total = reached, total + len(peer.requests)
    assert total < 60


def test_a_minute_that_was_passed_and_not_proven_is_missing_for_that_and_not_for_want_of_requests():
    since = NOON - 3 * DAY
    peer = Peer("kraken")
    lost = peer.market.first_id_from("kraken", "BTC/USD", (since + HOUR + MINUTE // 2) * 1000)
    peer.exchange.faults.lose_trade = lambda symbol, id_: id_ == lost
    filled = peer.fill("BTC/USD", since, since + DAY)
    assert [part.why for part in filled.missing] == [Why.ID_HOLE, Why.NOT_REACHED]
    assert filled.missing[0].since == since + HOUR


def test_the_first_trade_of_all_proves_its_own_minute_and_none_before():
    listed = NOON - 2 * DAY + 10 * MINUTE
    peer = Peer("kraken", market=Market(7, {("kraken", "ETH/USD"): listed}))
    filled = peer.fill("ETH/USD", NOON - 2 * DAY, NOON - 2 * DAY + HOUR)
    first = peer.market.trade("kraken", "ETH/USD", 1).time_us // 60_000_000 * MINUTE
    assert filled.candles[0].open_time == first
    assert [(part.until, part.why) for part in filled.missing] == [(first, Why.BEFORE_FIRST)]


def page(*trades: tuple[str, str, str, int], pair: str = "XXBTZUSD") -> Answer:
    """A page of (price, size, time, id)."""
    rows = ",".join(f'["{price}","{size}",{time},"b","m","",{id}]' for price, size, time, id in trades)
    return Answer(200, f'{{"error":[],"result":{{"{pair}":[{rows}],"last":"1"}}}}'.encode())


def trade_minute(*trades: tuple[str, str, str, int]):
    """What a fill of one old minute, ended by an empty page where need be, finds in these trades."""
    minute = NOON - 2 * DAY
    fill, _ = asked(since=minute, until=minute + MINUTE, using=Using.TRADES)
    answer = page(*trades)
    return resume(fill, *[answer] * 9)


SECOND = (NOON - 2 * DAY) // 1000


def test_a_time_with_more_digits_than_a_double_keeps_stays_in_its_minute():
    filled = trade_minute(
        ("1", "1", f"{SECOND - 3}.5", 7), ("2", "1", f"{SECOND + 59}.9999999", 8), ("3", "1", f"{SECOND + 62}", 9)
    )
    assert [(c.open_time, c.close) for c in filled.candles] == [(SECOND * 1000, 2)]


@pytest.mark.parametrize(
    ("trades", "why"),
    [
        ([("1", "1", -3, 7), ("2", "1", 30, 9), ("3", "1", 62, 10)], Why.ID_HOLE),
        ([("1", "1", -3, 7), ("2", "0", 30, 8), ("3", "1", 62, 9)], Why.UNREADABLE),
        ([("1", "1", -3, 7), ("nan", "1", 30, 8), ("3", "1", 62, 9)], Why.UNREADABLE),
        ([("1", "1", -3, 7), ("2", "1", 30, 8), ("3", "1", 60, 9)], Why.NO_TRADE_AFTER),
        ([("1", "1", 0, 7), ("2", "1", 30, 8), ("3", "1", 62, 9)], Why.NO_TRADE_BEFORE),
        ([("1", "1", -3, 7), ("2", "1", 90, 8), ("3", "1", 30, 9), ("3", "1", 95, 10)], Why.ID_HOLE),
    ],
)
def test_only_contiguous_ids_from_before_to_after_prove_a_minute(trades, why):
    filled = trade_minute(*((price, size, str(SECOND + time), id) for price, size, time, id in trades))
    assert filled.candles == ()
    assert not minutes_of(filled.empties, SECOND * 1000, SECOND * 1000 + MINUTE)
    assert whys(filled) == {why}


def test_two_runs_of_ids_that_claim_the_same_minute_prove_neither():
    one = [("1", "1", "-200", 7), ("2", "1", "200", 8), ("1", "1", "-200", 20), ("2", "1", "200", 21)]
    filled = trade_minute(*((price, size, str(SECOND + int(time)), id) for price, size, time, id in one))
    assert (filled.candles, filled.empties) == ((), ())


def test_a_page_that_does_not_repeat_the_last_trade_is_nonsense():
    fill, _ = asked(since=NOON - 2 * DAY, until=NOON - 2 * DAY + MINUTE, using=Using.TRADES)
    request = fill.send(page(("1", "1", f"{SECOND - 3}", 7), ("2", "1", f"{SECOND + 30}.5", 8)))
    assert request.params["since"] == f"{SECOND + 30}499990000"
    filled = resume(fill, page(("3", "1", f"{SECOND + 62}", 9)))
    assert next(iter(whys(filled))).startswith("cursor_ignored")


def test_a_trade_told_in_two_ways_is_nonsense():
    fill, _ = asked(since=NOON - 2 * DAY, until=NOON - 2 * DAY + MINUTE, using=Using.TRADES)
    with pytest.raises(Misunderstood, match="trades_differ"):
        fill.send(page(("1", "1", f"{SECOND}", 7), ("2", "1", f"{SECOND}", 7)))


def test_a_full_page_that_brings_nothing_new_ends_the_walk():
    trades = [("1", "1", f"{SECOND - 3}", 5 + id) for id in range(1_000)]
    fill, _ = asked(since=NOON - 2 * DAY, until=NOON - 2 * DAY + MINUTE, using=Using.TRADES)
    fill.send(page(*trades))
    filled = resume(fill, page(*trades))
    assert next(iter(whys(filled))).startswith("no_progress")


@pytest.mark.parametrize("kind", ["short", "empty"])
def test_a_page_that_was_cut_hides_no_trade(kind):
    peer = Peer("kraken")
    peer.exchange.faults.rest.append(RestFault(kind))
    filled = peer.fill("ETH/USD", NOON - 3 * DAY, NOON - 3 * DAY + 4 * HOUR)
    assert whys(filled) <= {Why.NO_TRADE_AFTER}
    assert bool(filled.missing) is (kind == "empty")


# --- what goes wrong --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "error", "retry_after"),
    [
        ("EGeneral:Too many requests", Throttled, None),
        ("EAPI:Rate limit exceeded", Throttled, None),
        (f"EService: Throttled: {NOON // 1000 + 7}", Throttled, 7.0),
        (f"EService:Throttled: {NOON // 1000 - 7}", Throttled, 0.0),
        (f"EService: Throttled: {NOON // 1000 + 999_999}", Throttled, 999_999.0),  # who asks bounds it
        ("EService: Throttled: soon", Throttled, None),
        ("EService:Unavailable", Unavailable, None),
        ("EService:Busy", Unavailable, None),
        ("EService:Deadline elapsed", Unavailable, None),
        ("EQuery:Unknown asset pair", UnknownSymbol, None),
        ("EGeneral:Invalid arguments", Misunderstood, None),
        ("what?", Misunderstood, None),
    ],
)
def test_each_error_has_its_name_although_it_is_http_200(said, error, retry_after):
    fill, _ = asked()
    with pytest.raises(error) as raised:
        fill.send(Answer(200, json.dumps({"error": [said]}).encode()))
    assert type(raised.value) is error
    if error is not Misunderstood:
        assert raised.value.retry_after == retry_after


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Answer(429, b"<html>", 9.0), Throttled),
        (Answer(520, b"<html>"), Unavailable),
        (Answer(200, b"<html>"), Unavailable),
        (Answer(404, b"{}"), Misunderstood),
        (Answer(200, b""), Misunderstood),
        (Answer(200, b"{}"), Misunderstood),
        (Answer(200, b'{"error":[]}'), Misunderstood),
        (Answer(200, b'{"error":[],"result":{"XXBTZUSD":[]}}'), Misunderstood),
        (Answer(200, b'{"error":[],"result":{"XXBTZUSD":[],"last":"x"}}'), Misunderstood),
        (Answer(200, b'{"error":[],"result":{"XXBTZUSD":[],"last":18446744073709551616}}'), Misunderstood),
    ],
)
def test_each_refusal_has_its_name(answer, error):
    fill, _ = asked()
    with pytest.raises(error):
        fill.send(answer)


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (["2", "1", "1", "1", "1", "1", 3], "high_below_open"),
        (["1", "1", "1", "1", "1", "-1", 3], "negative_volume"),
        (["NaN", "1", "1", "1", "1", "1", 3], Why.UNREADABLE),
        (["1e5", "1", "1", "1", "1", "1", 3], Why.UNREADABLE),
        (["1", "1", "1", "1", "1.0", "1", 0], Why.UNREADABLE),
        (["1", "1", "1", "1", "1.0", "0", 3], Why.UNREADABLE),
        (["1", "2", "1", "1", "0.0", "0", 0], Why.ZERO_ROW_BREAKS_RULE),
    ],
)
def test_a_bad_row_costs_its_minute(row, why):
    minute = NOON - 10 * MINUTE
    fill, _ = asked(since=minute, until=minute + MINUTE)
    body = {"error": [], "result": {"XXBTZUSD": [[minute // 1000, *row]], "last": NOON // 1000}}
    filled = resume(fill, Answer(200, msgspec.json.encode(body)), *[page()] * 9)
    assert (filled.candles, filled.empties) == ((), ())
    assert whys(filled) == {why}


def test_a_row_with_trades_it_does_not_count_is_missing():
    changed, omitted = NOON - 20 * MINUTE, NOON - 19 * MINUTE

    def spoil(request, answer):
        if not request.path.endswith("/OHLC"):
            return answer
        body = json.loads(answer.body, parse_float=Decimal)
        rows = body["result"]["XXBTZUSD"]
        body["result"]["XXBTZUSD"] = rows = [row for row in rows if row[0] * 1000 != omitted]
        for row in rows:
            if row[0] * 1000 == changed:
                row[7] += 1
        return attrs.evolve(answer, body=msgspec.json.encode(body))

    filled = Peer("kraken", spoil=spoil).fill("BTC/USD", NOON - HOUR, NOON - MINUTE)
    assert [(part.since, part.why) for part in filled.missing] == [(changed, Why.ROW_AND_TRADES_DIFFER)]


def test_a_warning_is_no_error():
    fill, _ = asked()
    body = f'{{"error":["WGeneral:x"],"result":{{"XBTUSD":[],"last":{NOON // 1000 - 7200}}}}}'.encode()
    assert resume(fill, Answer(200, body)) is not None


def test_the_venues_time_is_read():
    history = KrakenHistory()
    assert history.server_time().path == "/0/public/Time"
    body = recorded("rest/kraken_server_time_20251111.json").read_bytes()
    assert history.read_time(Answer(200, body)) == json.loads(body)["result"]["unixtime"] * 1000
    with pytest.raises(Misunderstood):
        history.read_time(Answer(200, b'{"error":[],"result":{"rfc1123":""}}'))
    with pytest.raises(Throttled):
        history.read_time(Answer(200, b'{"error":["EAPI:Rate limit exceeded"]}'))
