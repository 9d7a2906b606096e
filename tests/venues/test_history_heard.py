"""What a feed has heard and what REST answers are evidence about the same minutes, and are judged together."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

import attrs
import msgspec
import pytest
from history_peer import NOON, Peer, drive, minutes_of, whys
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trio_candles.candles.model import MINUTE, Candle, Millis, Series, Trade, utc_text
from trio_candles.simulator import RestFault
from trio_candles.venues.coinbase.history import CoinbaseHistory
from trio_candles.venues.findings import Findings, proven
from trio_candles.venues.history import NOTHING, Answer, Filled, Heard, Refusal, Request, Shown, Using, Why
from trio_candles.venues.kraken.history import KrakenHistory
from trio_candles.venues.protocol import Misunderstood, TradeSeen

COINBASE, KRAKEN = Series("coinbase", "BTC-USD"), Series("kraken", "BTC/USD")
HOUR = 60 * MINUTE
HOUR_AGO = Millis(NOON - HOUR)
"""The minute of the newest trade, which is an hour old."""
SINCE, UNTIL = Millis(HOUR_AGO - 10 * MINUTE), Millis(NOON - 2 * MINUTE)


def trade(id: int, time: int, price: str = "7") -> Trade:
    return Trade(id, Millis(time), Decimal(price), Decimal(2))


BEFORE, NEWEST = trade(41, HOUR_AGO - 20 * MINUTE), trade(42, HOUR_AGO + 20_000)
BEAT = Millis(NOON - 1_000)


# --- Coinbase: a heartbeat names the newest trade -----------------------------------------------------------


def told(trades: Sequence[Trade]) -> Answer:
    """A page of trades, newest first."""
    rows = [
        {
            "time": f"{utc_text(one.time).replace(' ', 'T')}.{one.time % 1000:03}Z",
            "trade_id": one.trade_id,
            "price": str(one.price),
            "size": str(one.size),
        }
        for one in sorted(trades, key=lambda one: -one.trade_id)
    ]
    return Answer(200, msgspec.json.encode(rows))


def at_coinbase(
    heard: Heard, *trades: Trade, using: Using = Using.ALL, now: int = NOON
) -> tuple[Filled, list[Request]]:
    """What is found in the record of *trades* and of the rows they make, and what was asked."""
    rows = [[one.time // MINUTE * 60, float(one.price), *([float(one.price)] * 3), float(one.size)] for one in trades]
    fill = CoinbaseHistory().fill(COINBASE, SINCE, UNTIL, Millis(now), using, heard)
    requests = [next(fill)]
    try:
        while True:
            asked = requests[-1]
            if asked.path.endswith("candles"):
                answer = Answer(200, msgspec.json.encode(sorted(rows, reverse=True)))
            else:
                below = int(asked.params.get("after", 1 << 60))
                answer = told([one for one in trades if one.trade_id < below])
            requests.append(fill.send(answer))
    except StopIteration as stop:
        return stop.value, requests


def test_a_quiet_products_last_traded_minute_is_known_when_a_heartbeat_names_its_trade():
    filled, _ = at_coinbase(Heard((NEWEST,), 42, BEAT), BEFORE, NEWEST)
    assert not filled.missing
    (candle,) = [one for one in filled.candles if one.open_time >= SINCE]
    assert (candle.open_time, candle.close, candle.trades_count) == (HOUR_AGO, 7, 1)
    assert len(minutes_of(filled.empties, SINCE, UNTIL)) == (UNTIL - SINCE) // MINUTE - 1
    assert filled.empties[-1].evidence == f"no trade after the id 42 until {BEAT}"


def test_a_heartbeat_serves_also_where_the_feed_was_never_told_the_trade_that_it_names():
    filled, _ = at_coinbase(Heard((BEFORE,), 42, BEAT), BEFORE, NEWEST)
    assert not filled.missing
    assert not at_coinbase(Heard((), 42, BEAT), BEFORE, NEWEST)[0].missing


def test_trades_that_the_feed_told_confirm_the_page_that_repeats_one_of_them():
    """No answer names its product, so a page that nothing confirms is read twice."""
    _, alone = at_coinbase(Heard((), 42, BEAT), BEFORE, NEWEST, using=Using.TRADES)
    _, confirmed = at_coinbase(Heard((NEWEST,), 42, BEAT), BEFORE, NEWEST, using=Using.TRADES)
    assert len(confirmed) < len(alone)


def test_a_trade_that_the_feed_told_is_the_trade_after_a_minute_which_an_old_page_lacks():
    after = trade(43, NOON - 10 * MINUTE + 9_000)
    filled, _ = at_coinbase(Heard((after,)), BEFORE, NEWEST)
    assert HOUR_AGO in {one.open_time for one in filled.candles}
    assert {part.since for part in filled.missing} == {NOON - 10 * MINUTE}


@pytest.mark.parametrize(
    ("heard", "known_until"),
    [
        (NOTHING, HOUR_AGO),
        (Heard((NEWEST,)), HOUR_AGO),
        (Heard((NEWEST,), 43, BEAT), HOUR_AGO),  # a trade that neither the feed nor REST has told
        (Heard((NEWEST,), 41, BEAT), HOUR_AGO),
        (Heard((NEWEST,), 0, BEAT), HOUR_AGO),
        (Heard((NEWEST,), 42, Millis(HOUR_AGO + 30_000)), HOUR_AGO),  # older than the minute's end
        (Heard((NEWEST,), 42, Millis(HOUR_AGO + MINUTE + 500)), HOUR_AGO),  # a trade may come out of order
        (Heard((NEWEST,), 42, Millis(HOUR_AGO + MINUTE + 1_000)), HOUR_AGO + MINUTE),
        (Heard((NEWEST,), 42, Millis(HOUR_AGO + 5 * MINUTE)), HOUR_AGO + 4 * MINUTE),
        (Heard((trade(43, HOUR_AGO + 50_000),), 43, BEAT), UNTIL),
    ],
)
def test_what_is_heard_proves_no_more_than_it_says(heard, known_until):
    filled, _ = at_coinbase(heard, BEFORE, NEWEST)
    assert [(part.since, part.until) for part in filled.missing] == (
        [] if known_until == UNTIL else [(known_until, UNTIL)]
    )


def test_a_page_out_of_a_cache_that_lacks_a_trade_proves_nothing_up_to_what_the_feed_knows():
    newer = trade(44, HOUR_AGO + 50_000)
    filled, _ = at_coinbase(Heard((newer,), 44, BEAT), BEFORE, NEWEST, using=Using.TRADES)
    assert [(part.since, part.until) for part in filled.missing] == [(SINCE, HOUR_AGO + MINUTE)]
    assert filled.candles == ()


def test_a_page_that_tells_a_trade_otherwise_than_the_feed_is_not_believed():
    heard = Heard((trade(42, NEWEST.time, "8"),), 42, BEAT)
    with pytest.raises(Misunderstood, match="trade 42 is told in two ways"):
        at_coinbase(heard, BEFORE, NEWEST, using=Using.TRADES)


def test_a_trade_told_in_two_ways_is_a_hole_among_the_ids():
    findings = Findings(COINBASE, SINCE, UNTIL, NOON, Heard((trade(42, NEWEST.time, "8"),), 42, BEAT))
    findings.trades([BEFORE, NEWEST])
    assert whys(findings.filled()) == {Why.NO_ROW}


def test_a_trade_without_numbers_proves_as_others_do_and_its_minute_has_no_candle():
    seen = TradeSeen("BTC/USD", 42, NEWEST.time)
    verdicts = list(proven(KRAKEN, [BEFORE, seen, trade(43, NOON - 5 * MINUTE + 9_000)], NOON))
    assert not any(isinstance(one, Candle) for one in verdicts)
    assert minutes_of(verdicts, SINCE, UNTIL) == [
        minute for minute in range(SINCE, NOON - 5 * MINUTE, MINUTE) if minute != HOUR_AGO
    ]


# --- Kraken: rows, trades and the feed agree ----------------------------------------------------------------


def seen(*trades: Trade) -> tuple[TradeSeen, ...]:
    return tuple(TradeSeen("BTC/USD", one.trade_id, one.time) for one in trades)


def at_kraken(
    heard: Heard, *trades: Trade, last: int = NOON, since: int = SINCE, lose: int = 0, now: int = NOON
) -> tuple[Filled, list[Request]]:
    """What is found where rows are omitted: the record's newest row is the last traded minute's."""
    fill = KrakenHistory().fill(KRAKEN, Millis(since), UNTIL, Millis(now), Using.ALL, heard)
    requests = [next(fill)]
    try:
        while True:
            asked = requests[-1]
            begin = int(asked.params["since"])
            if asked.path.endswith("OHLC"):
                rows = ",".join(
                    f'[{one.time // MINUTE * 60},"7","7","7","7","7","2",1]'
                    for one in trades
                    if one.trade_id != lose and one.time >= begin * 1000
                )
                end = str(last // 1000)
            else:
                rows = ",".join(
                    f'["{one.price}","{one.size}",{one.time // 1000}.{one.time % 1000:03},"b","m","",{one.trade_id}]'
                    for one in trades
                    if one.time * 10**6 >= begin
                )
                end = f'"{begin}"'
            requests.append(
                fill.send(Answer(200, f'{{"error":[],"result":{{"XXBTZUSD":[{rows}],"last":{end}}}}}'.encode()))
            )
    except StopIteration as stop:
        return stop.value, requests


def test_a_quiet_pairs_minutes_are_known_where_rows_are_omitted_and_all_records_agree():
    filled, requests = at_kraken(Heard(seen(BEFORE, NEWEST), 42), BEFORE, NEWEST)
    assert not filled.missing
    assert [one.open_time for one in filled.candles if one.open_time >= SINCE] == [HOUR_AGO]
    assert len(requests) == 2


def test_a_quiet_pairs_last_traded_minute_is_built_from_its_trades_where_its_row_is_lost():
    filled, _ = at_kraken(Heard(seen(BEFORE, NEWEST), 42), BEFORE, NEWEST, lose=42)
    assert not filled.missing
    assert [one.open_time for one in filled.candles if one.open_time >= SINCE] == [HOUR_AGO]


def test_a_pair_that_has_not_traded_for_days_costs_two_questions():
    old = trade(42, NOON - 3 * 24 * HOUR)
    filled, requests = at_kraken(Heard(seen(old), 42), old)
    assert not filled.missing
    assert len(requests) == 2


def test_minutes_beyond_the_rows_are_known_too_where_no_trade_followed():
    old = trade(42, NOON - 30 * HOUR)
    filled, requests = at_kraken(Heard(seen(old), 42), old, since=NOON - 24 * HOUR)
    assert not filled.missing
    assert len(requests) == 2


@pytest.mark.parametrize(
    ("heard", "known_until", "more"),
    [
        (NOTHING, HOUR_AGO, {}),
        (Heard(seen(BEFORE, NEWEST)), HOUR_AGO, {}),  # not connected: who knows what followed
        (Heard(seen(BEFORE), 41), HOUR_AGO, {}),  # the feed lacks a trade, so it may lack others
        (Heard(seen(BEFORE, NEWEST, trade(43, NOON - 5 * MINUTE + 9_000)), 43), NOON - 5 * MINUTE, {}),  # REST is old
        (Heard(seen(BEFORE, NEWEST), 42), NOON - 10 * MINUTE, {"last": NOON - 9 * MINUTE}),  # the rows are old
    ],
)
def test_one_record_that_does_not_agree_leaves_the_minutes_open(heard, known_until, more):
    filled, _ = at_kraken(heard, BEFORE, NEWEST, **more)
    missing = [(part.since, part.until) for part in filled.missing]
    assert missing
    assert missing[0][0] >= known_until
    assert missing[-1][1] == UNTIL


def test_a_row_of_a_trade_that_the_other_records_lack_leaves_the_minutes_around_it_open():
    unknown = trade(43, NOON - 30 * MINUTE)
    fill = KrakenHistory().fill(KRAKEN, SINCE, UNTIL, NOON, Using.ALL, Heard(seen(BEFORE, NEWEST), 42))
    rows = ",".join(f'[{one.time // MINUTE * 60},"7","7","7","7","7","2",1]' for one in (NEWEST, unknown))
    trades = f'["7","2",{NEWEST.time // 1000},"b","m","",42]'
    body = '{"error":[],"result":{"XXBTZUSD":[%s],"last":%s}}'
    pages = [Answer(200, (body % (trades, 1)).encode())] * 9
    filled = drive(fill, Answer(200, (body % (rows, NOON // 1000)).encode()), *pages)
    assert minutes_of(filled.missing, SINCE, UNTIL) == [
        minute for minute in range(HOUR_AGO + MINUTE, UNTIL, MINUTE) if minute != NOON - 30 * MINUTE
    ]


def test_the_same_question_is_never_asked_at_the_same_url_again():
    """The CDN answers a URL that it knows out of its cache."""
    urls = {
        at_kraken(Heard(seen(BEFORE, NEWEST), 42), BEFORE, NEWEST, now=NOON + n)[1][1].params["since"]
        for n in range(0, 1_000, 7)
    }
    assert len(urls) == len(range(0, 1_000, 7))


# --- told twice -----------------------------------------------------------------------------------------------


def test_where_nothing_tells_the_age_of_kraken_s_rows_a_second_fill_must_be_shown_the_same():
    """The newest row of an answer with rows omitted, and its "last", may be as old as the pair's newest trade."""
    pair, asked = Heard(seen(BEFORE, NEWEST), 42), NOON - 3 * MINUTE
    first, _ = at_kraken(pair, BEFORE, NEWEST, last=HOUR_AGO, now=asked)
    assert (first.missing[0].since, first.shown) == (HOUR_AGO, Shown(42, asked))
    second, requests = at_kraken(attrs.evolve(pair, shown=first.shown), BEFORE, NEWEST, last=HOUR_AGO)
    assert second.shown == Shown(42, NOON)
    assert [one.open_time for one in second.candles if one.open_time >= SINCE] == [HOUR_AGO]
    assert [(part.since, part.until) for part in second.missing] == [(asked - 2 * MINUTE, UNTIL)]
    assert len(requests) == 2


def test_answers_that_lack_a_trade_which_an_earlier_one_had_are_old_however_often_they_come():
    """The feed is away, and has not told the newest trade, which only REST has shown so far."""
    pair, later = Heard(seen(BEFORE, NEWEST), 42), trade(43, HOUR_AGO + 10 * MINUTE)
    first, _ = at_kraken(pair, BEFORE, NEWEST, later, now=NOON - 4 * MINUTE)
    assert first.shown == Shown(43, Millis(NOON - 4 * MINUTE))
    for asked in (NOON - 2 * MINUTE, NOON):
        stale, _ = at_kraken(attrs.evolve(pair, shown=first.shown), BEFORE, NEWEST, last=HOUR_AGO, now=asked)
        assert stale.shown is None  # what was shown first stays
        assert all(empty.until <= HOUR_AGO for empty in stale.empties)


@pytest.mark.parametrize(
    ("shown", "remembered"),
    [
        (Shown(41, Millis(NOON - 5 * MINUTE)), Shown(42, NOON)),
        (Shown(42, Millis(NOON - 59_000)), Shown(42, Millis(NOON - 59_000))),
        (Shown(42, Millis(NOON + 59_000)), Shown(42, NOON)),  # our clock was set back
    ],
)
def test_what_was_shown_of_another_trade_or_just_now_is_no_first_telling(shown, remembered):
    filled, _ = at_kraken(Heard(seen(BEFORE, NEWEST), 42, shown=shown), BEFORE, NEWEST, last=HOUR_AGO)
    assert (filled.missing[0].since, filled.shown) == (HOUR_AGO, remembered)


def test_without_a_feed_coinbase_is_believed_when_two_answers_ten_minutes_apart_show_the_same_newest_trade():
    asked = Millis(NOON - 11 * MINUTE)
    first, _ = at_coinbase(NOTHING, BEFORE, NEWEST, now=asked)
    assert (first.missing[0].since, first.shown) == (HOUR_AGO, Shown(42, asked))
    second, _ = at_coinbase(Heard(shown=first.shown), BEFORE, NEWEST)
    assert HOUR_AGO in {one.open_time for one in second.candles}
    assert [(part.since, part.until) for part in second.missing] == [(asked - 2 * MINUTE, UNTIL)]
    soon, _ = at_coinbase(Heard(shown=Shown(42, Millis(NOON - 9 * MINUTE))), BEFORE, NEWEST)
    assert (soon.missing[0].since, soon.shown) == (HOUR_AGO, Shown(42, Millis(NOON - 9 * MINUTE)))


def test_answers_that_show_the_same_twice_prove_nothing_against_a_feed_that_knows_a_newer_trade():
    shown = Shown(42, Millis(NOON - 20 * MINUTE))
    filled, _ = at_coinbase(Heard((), 43, BEAT, shown), BEFORE, NEWEST)
    assert filled.missing[0].since == HOUR_AGO
    newer = trade(43, NOON - 30 * MINUTE)
    filled, _ = at_kraken(Heard(seen(BEFORE, NEWEST, newer), 43, shown=shown), BEFORE, NEWEST, last=HOUR_AGO)
    assert newer.time in minutes_of(filled.missing, SINCE, UNTIL)


# --- whatever a feed has heard ------------------------------------------------------------------------------

SYMBOLS = {"coinbase": ["ETH-USD", "SOL-USD", "SIM001-USD"], "kraken": ["ETH/USD", "DOGE/USD", "SIM012/USD"]}


@pytest.mark.parametrize("venue", list(SYMBOLS))
@given(data=st.data())
@settings(deadline=None, suppress_health_check=list(HealthCheck))
def test_a_true_feed_leaves_nothing_open_at_a_venue_in_order_and_proves_nothing_false_at_another(venue, data):
    """The peer judges every minute by the truth; what the feed heard is true, and may lack the newest trades."""
    draw = data.draw
    symbol, coinbase = draw(st.sampled_from(SYMBOLS[venue])), venue == "coinbase"
    peer = Peer(venue, now=Millis(NOON + draw(st.integers(0, 59_999))))
    peer.exchange.faults.omit_empty_rows = not coinbase
    newest = peer.market.first_id_from(venue, symbol, peer.now * 1000) - 1
    lacking, told_ids = draw(st.sampled_from([0, 0, 0, 1, 2])), draw(st.integers(1, 50))
    true = [peer.market.trade(venue, symbol, newest - lacking - n) for n in reversed(range(told_ids))]
    if coinbase:
        trades = tuple(Trade(one.trade_id, Millis(one.time_us // 1000), one.price, one.size) for one in true)
        heard = Heard(trades, newest, Millis(peer.now - draw(st.integers(0, 2_000))))
    else:
        heard = Heard(tuple(TradeSeen(symbol, t.trade_id, Millis(t.time_us // 1000)) for t in true), newest - lacking)
    kind = draw(st.sampled_from([None, "short", "empty", "stale"]))
    if kind is not None:
        path, seconds = draw(st.sampled_from(["rades", "andles", "OHLC"])), draw(st.integers(1, 3_000))
        peer.exchange.faults.rest.append(RestFault(kind, path, draw(st.integers(1, 3)), 502, seconds))
    since, by_trades = NOON - draw(st.integers(10, 280)) * MINUTE, draw(st.booleans())
    try:
        filled = peer.fill(symbol, since, NOON - MINUTE, by_trades, heard)
    except (Misunderstood, Refusal):
        assert kind is not None
        return
    if kind is None and (coinbase or not (lacking or by_trades)):
        assert whys(filled) <= {Why.UNSETTLED, Why.MAYBE_OLD}
        assert all(part.since >= NOON - 2 * MINUTE for part in filled.missing)


@pytest.mark.parametrize("why", [Why.ID_HOLE, Why.NO_TRADE_BEFORE])
def test_where_a_part_of_the_answers_cannot_be_read_a_hole_in_trade_ids_is_no_absence(why):
    whole, torn = (Findings(KRAKEN, SINCE, UNTIL, NOON, NOTHING) for _ in range(2))
    torn.unread((SINCE, Millis(SINCE + MINUTE)), "trade 41 cannot be read")
    for findings in (whole, torn):
        findings.excuse(SINCE, UNTIL, why)
    assert why in whys(whole.filled())
    assert whys(torn.filled()) == {Why.UNREADABLE}
