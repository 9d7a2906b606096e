"""Text in, events out: what each venue's reader makes of what the venue says, and of what no venue should say."""

from __future__ import annotations

import json
import math
import re
import typing
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from recorded import DATA, frames

from trio_candles.candles.model import MINUTE, Millis, Trade, canonical_symbol
from trio_candles.venues.protocol import (
    Acked,
    Alive,
    Event,
    Forming,
    Heartbeat,
    Leaving,
    Lost,
    Misunderstood,
    Notice,
    Proof,
    Refused,
    Row,
    Skipped,
    SystemStatus,
    Told,
    Traded,
    TradeSeen,
    Unread,
    VenueError,
    exact,
    plain_float,
    plain_floats,
    time_of,
)
from trio_candles.venues.registry import VENUES
from trio_candles.venues.venue import Grade

PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""How long an example takes says something about a busy machine, nothing about the code."""
FEEDS = {name: venue.feed for name, venue in VENUES.items()}
COINBASE, KRAKEN, OKX = FEEDS["coinbase"], FEEDS["kraken"], FEEDS["okx"]
EVENTS = typing.get_args(Event)
WORD = re.compile(r"[a-z][a-z_]*")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def ms(text):
    return (datetime.fromisoformat(text).replace(tzinfo=UTC) - EPOCH) // timedelta(milliseconds=1)


def read(venue, message):
    return list(venue.read(message if isinstance(message, str) else json.dumps(message)))


def reason_of(venue, message):
    """Why *message* is misunderstood, or the rows of it that are."""
    try:
        (reason,) = {event.reason for event in read(venue, message) if isinstance(event, Unread)}
    except Misunderstood as error:
        reason = error.reason
    assert WORD.fullmatch(reason)
    return reason


def without(message, *keys):
    return {key: value for key, value in message.items() if key not in keys}


# --- numbers and times ------------------------------------------------------------------------------------

NO_NUMBERS = [
    "", "NaN", "nan", "sNaN", "Infinity", "-inf", "1_000", " 1 ", "1 ", "\t1", "1\n", "1e5", "1E5", "1e999", "-1e-9",
    "+1", "--1", ".5", "5.", "1.2.3", "1,5", "0x10", "٣", "\uff11\uff12", "1٣.5", "²", "one", "0.-10000", "1.-5", "- 1",
    "\x001", "1" * 21, "0." + "1" * 21, "true", "null", "1/2", "1\u200b", "\u22121",
]  # fmt: skip


@pytest.mark.parametrize("text", NO_NUMBERS)
def test_only_plain_digits_are_a_number(text):
    for reader in (exact, plain_float):
        with pytest.raises(Misunderstood) as caught:
            reader(text)
        assert caught.value.reason == "bad_number"


@pytest.mark.parametrize("text", ["0", "1", "-1", "0.00000001", "65091", "007.50", "9" * 20, "-0", "1." + "0" * 20])
def test_plain_digits_are_read_exactly(text):
    assert exact(text) == Decimal(text)
    assert plain_float(text) == float(text)


@PATIENT
@given(st.decimals(allow_nan=False, allow_infinity=False, places=8, min_value=-(10**12), max_value=10**12))
def test_every_number_that_a_venue_writes_is_read_exactly(number):
    text = f"{number:f}"
    assert exact(text) == number
    assert plain_float(text) == float(number)


@PATIENT
@given(st.lists(st.text("0123456789.,-", max_size=6), max_size=4))
def test_a_row_of_numbers_is_read_as_each_of_them_is(texts):
    def read(reader):
        try:
            return list(reader())
        except Misunderstood as error:
            return str(error)

    assert read(lambda: plain_floats(texts)) == read(lambda: [plain_float(text) for text in texts])


def test_a_comma_within_a_number_of_a_row_does_not_make_two_of_it():
    assert plain_floats(["1", "2.5"]) == [1.0, 2.5]
    for texts in (["1,2"], ["1", "2,3"], ["1,2", ""], ["", "1,2"]):
        with pytest.raises(Misunderstood):
            plain_floats(texts)


@PATIENT
@given(st.one_of(st.text(), st.text("0123456789.-_eEnaif ", max_size=45)))
def test_a_number_that_is_accepted_is_finite(text):
    try:
        number = plain_float(text)
    except Misunderstood:
        with pytest.raises(Misunderstood):
            exact(text)
        return
    assert math.isfinite(number)
    assert exact(text).is_finite()
    assert float(exact(text)) == number


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2014-11-07T08:19:27.028459Z", ms("2014-11-07T08:19:27.028")),
        ("2026-09-10T17:44:00.000000000Z", ms("2026-09-10T17:44:00")),
        ("2026-01-10T12:00:00Z", ms("2026-01-10T12:00:00")),
        ("2026-01-10T12:00:00.9999999Z", ms("2026-01-10T12:00:00.999")),
        ("2026-01-10T11:59:59.999999999Z", ms("2026-01-10T11:59:59.999")),
        ("2024-02-29T23:59:59.999Z", ms("2024-02-29T23:59:59.999")),
        ("2025-12-31T06:00:12.44524Z", ms("2025-12-31T06:00:12.445")),
        ("2009-01-03T18:15:05Z", ms("2009-01-03T18:15:05")),
    ],
)
def test_a_time_is_floored_to_the_millisecond(text, time):
    assert time_of(text) == time


@pytest.mark.parametrize(
    "text",
    [
        "", "now", "0001-01-01T00:00:00.000000Z", "2008-12-31T23:59:59Z", "9999-01-01T00:00:00Z",
        "9999-12-31T23:59:59Z", "2023-02-29T00:00:00Z", "2026-13-01T00:00:00Z", "2026-04-31T00:00:00Z",
        "2026-00-10T00:00:00Z",
        "2026-01-10T24:00:01Z", "2026-01-10T12:60:00Z", "2016-12-31T23:59:60Z", "2026-01-10T12:00:00",
        "2026-01-10T12:00:00+00:00", "2026-01-10T12:00:00+01:00", "2026-01-10T12:00:00.5+01:00Z",
        "2026-01-10T12:00:00-0Z", "2026-01-10 12:00:00Z", "2026-01-10t12:00:00Z", "2026-01-10T12:00:00z",
        "2026-01-10T12:00:00,123Z",
        "2026-01-10T12:00:00.Z", "2026-01-10T12:00:00.1234567890Z", "2026-01-10T120000.0Z", "2026-01-10T12000000Z",
        "20260110T120000.000Z", "2026-W02-6T12:00:00Z", "2026-010T12:00:00.00Z", "2026-01-10T12:00Z", "2026-01-10",
        "2026-01-10T12:00:00.1 2Z", " 2026-01-10T12:00:00Z", "2026-01-10T12:00:00Z\n", "\uff12026-01-10T12:00:00Z",
        "2026-01-1٣T12:00:00Z", "-026-01-10T12:00:00Z", "2026-1-10T12:00:00.1Z", "1768046400", "1768046400000",
        "2026-01-10T12:00:00.\ud800Z", "2026-01-10T12:00:00ZZ",
    ],
)  # fmt: skip
def test_what_is_no_utc_time_of_these_markets_is_no_time(text):
    with pytest.raises(Misunderstood) as caught:
        time_of(text)
    assert caught.value.reason == "bad_time"


@PATIENT
@given(st.datetimes(datetime(2009, 1, 1), datetime(2100, 12, 31, 23, 59, 59)), st.integers(0, 999))
def test_every_time_to_the_nanosecond_is_read_as_datetime_reads_it(moment, nanoseconds):
    expected = (moment.replace(tzinfo=UTC) - EPOCH) // timedelta(milliseconds=1)
    assert time_of(f"{moment:%Y-%m-%dT%H:%M:%S.%f}Z") == expected
    assert time_of(f"{moment:%Y-%m-%dT%H:%M:%S.%f}{nanoseconds:03}Z") == expected


@PATIENT
@given(
    st.one_of(
        st.text(),
        st.text("0123456789-T:.Z+,W ", min_size=18, max_size=32),
        st.from_regex(r"20[0-9-]{8}T[0-9:]{8}[0-9.:Z+-]{0,9}Z", fullmatch=True),
    )
)
def test_a_time_that_is_accepted_has_the_one_documented_shape(text):
    try:
        time = time_of(text)
    except Misunderstood:
        return
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z", text, re.ASCII)
    assert time == ms(text[:19]) + int((text[20:-1] + "000")[:3])


def test_misunderstood_is_the_venue_s_fault_and_lost_is_no_misunderstanding():
    error = Misunderstood("bad_number", "'NaN'")
    assert (error.reason, str(error), str(Misunderstood("x"))) == ("bad_number", "bad_number: 'NaN'", "x")
    assert isinstance(error, VenueError)
    assert issubclass(Lost, VenueError)
    assert not issubclass(Lost, Misunderstood)


# --- all venues -------------------------------------------------------------------------------------------


def test_each_venue_is_found_by_its_name_and_keeps_no_state():
    assert list(VENUES) == ["coinbase", "kraken", "okx"]
    for name, venue in VENUES.items():
        assert {venue.name, venue.feed.name, venue.history.name} == {name}
        assert venue.feed.websocket_url.startswith("wss://")
        assert all(url.startswith("https://") for url in venue.history.rest_urls.values())
        assert not vars(venue.feed)
        assert not vars(venue.history)


def test_no_venue_claims_a_grade_that_its_facts_do_not_carry():
    """Contract 5.8; only ids prove that nothing is missing, and only who has them by REST can be asked for them."""
    assert {name: venue.grade.value for name, venue in VENUES.items()} == {
        "coinbase": "ids",
        "kraken": "ids",
        "okx": "stated",
    }
    for venue in VENUES.values():
        assert (venue.grade is Grade.IDS) == (venue.proof in (Proof.TRADE_IDS, Proof.COUNTED_ROWS))
        assert (venue.grade is Grade.IDS) <= venue.history.has_trades


@pytest.mark.parametrize("name", VENUES)
def test_a_venue_s_example_is_a_symbol_as_the_venue_writes_it(name):
    symbols = VENUES[name].symbols
    assert symbols.join(*canonical_symbol(symbols.example).split("-")) == symbols.example


def test_an_older_name_of_an_asset_is_replaced_where_the_venue_refuses_it():
    assert VENUES["kraken"].symbols.join("XBT", "XDG") == "BTC/DOGE"
    assert VENUES["coinbase"].symbols.join("XBT", "XDG") == "XBT-XDG"


@pytest.mark.parametrize("name", VENUES)
def test_what_a_venue_asks_counts_against_a_budget_and_goes_to_a_host_that_it_has(name):
    venue = VENUES[name]
    for request in (venue.listing.request, venue.history.server_time(), next(venue.probe(venue.symbols.example, int))):
        assert request.bucket in venue.history.rates
        assert request.host in venue.history.rest_urls
        assert 1 <= request.weight <= venue.history.rates[request.bucket].burst


@pytest.mark.parametrize("venue", FEEDS.values(), ids=list(FEEDS))
def test_a_venue_s_limits_make_sense_together(venue):
    limits = venue.limits
    assert 0 < limits.symbols_per_message <= limits.symbols_per_connection
    assert limits.connects_burst >= 1
    assert min(limits.connects_per_second, limits.messages_per_second) > 0
    assert limits.silence >= 10
    assert (limits.ping_after is None) == (venue.ping is None)
    assert limits.ping_after is None or limits.ping_after < limits.silence
    assert limits.symbol_remedy in ("reconnect", "resubscribe")


BROKEN = [
    "", " ", "{", "}", "{]", '{"type":"match"', "pong?", "PONG", "NaN", "nul", "{} {}", "\ufeff{}", "\x00", "{'a':1}",
    '{"type":"match",}', '{"channel":"ohlc" "data":[]}', '{"channel":"heartbeat","x":NaN}', '{"a":01}', '{"a":1_0}',
    '{"event":"error","code":-Infinity}', '{"a":+1}', '{"a":.5}', '{"a":"\n"}', '{"a":"\\ud800"}', '{"a":"\\x"}',
    "\ud800", '{"type":"\udfff"}', "<html><title>502 Bad Gateway</title></html>",
]  # fmt: skip
NO_MESSAGES = ["null", "true", "0", '"pong"', "[]", "[[]]", "{}", '{"x":1}', "[1,2]", '{"type":null}', '{"type":1}']
DEEP = 100_000


@pytest.mark.parametrize("venue", FEEDS.values(), ids=list(FEEDS))
@pytest.mark.parametrize("text", BROKEN)
def test_what_is_no_json_is_misunderstood(venue, text):
    assert reason_of(venue, text) == "not_json"


@pytest.mark.parametrize("venue", FEEDS.values(), ids=list(FEEDS))
@pytest.mark.parametrize("text", NO_MESSAGES)
def test_json_that_is_no_message_is_misunderstood(venue, text):
    assert reason_of(venue, text) == "bad_shape"


@pytest.mark.parametrize("venue", FEEDS.values(), ids=list(FEEDS))
@pytest.mark.parametrize(
    "text",
    [
        "[" * DEEP,
        "[" * DEEP + "]" * DEEP,
        '{"a":' * DEEP,
        '{"a":' * DEEP + "1" + "}" * DEEP,
        '{"type":"match","extra":' + "[" * DEEP + "]" * DEEP + "}",
        '{"channel":"ohlc","data":' + "[" * DEEP + "]" * DEEP + "}",
        '{"channel":"trade","data":[{"symbol":' + "[" * DEEP + "]" * DEEP + "}]}",
        '{"arg":{"channel":"candle1m","instId":"BTC-USDT"},"data":' + "[" * DEEP + "]" * DEEP + "}",
        '{"arg":' + "{" * DEEP,
    ],
    ids=range(9),
)
def test_nesting_without_end_is_misunderstood(venue, text):
    assert reason_of(venue, text) in ("not_json", "bad_shape")


@pytest.mark.parametrize("venue", FEEDS.values(), ids=list(FEEDS))
def test_an_error_quotes_a_bounded_part_of_what_was_said(venue):
    for text in ("{" * 300_000, json.dumps({"type": "match", "x": "y" * 300_000}), json.dumps(["z" * 300_000])):
        with pytest.raises(Misunderstood) as caught:
            venue.read(text)
        assert len(str(caught.value)) < 1000


def said(venue, symbols, request=7):
    return [json.loads(text) for text in venue.subscribe(symbols, request)]


@pytest.mark.parametrize("venue", FEEDS.values(), ids=list(FEEDS))
@pytest.mark.parametrize("count", [0, 1, 19, 20, 21, 100, 101, 200])
@pytest.mark.parametrize("verb", ["subscribe", "unsubscribe"])
def test_every_symbol_is_asked_for_once_per_channel_in_messages_within_the_limit(venue, count, verb):
    symbols = [f"S{n}-USD" for n in range(count)]
    asked = {channel: [] for channel in venue.channels}
    for text in getattr(venue, verb)(symbols, 7):
        message = json.loads(text)
        assert verb in (message.get("type"), message.get("method"), message.get("op"))
        if venue is COINBASE:
            some = {channel: message["product_ids"] for channel in message["channels"]}
        elif venue is KRAKEN:
            some = {message["params"]["channel"]: message["params"]["symbol"]}
        else:
            some = {"candle1m": [arg["instId"] for arg in message["args"] if arg["channel"] == "candle1m"]}
            assert len(text.encode()) < 64 * 1024  # documented
        for channel, names in some.items():
            assert 0 < len(names) <= venue.limits.symbols_per_message
            asked[channel] += names
    assert asked == {channel: symbols for channel in venue.channels}


# --- Coinbase ---------------------------------------------------------------------------------------------

MATCH = {
    "type": "match",
    "trade_id": 10,
    "sequence": 50,
    "maker_order_id": "ac928c66-ca53-498f-9c13-a110027a60e8",
    "taker_order_id": "132fb6ae-456b-4654-b4e0-d681ac05cea1",
    "time": "2014-11-07T08:19:27.028459Z",
    "product_id": "BTC-USD",
    "size": "5.23512",
    "price": "400.23",
    "side": "sell",
}
HEARTBEAT = {
    "type": "heartbeat",
    "sequence": 90,
    "last_trade_id": 20,
    "product_id": "BTC-USD",
    "time": "2014-11-07T08:19:28.464459Z",
}


def test_coinbase_subscribes_to_matches_and_heartbeats_in_one_message():
    assert said(COINBASE, ["BTC-USD", "ETH-USD"]) == [
        {"type": "subscribe", "product_ids": ["BTC-USD", "ETH-USD"], "channels": ["matches", "heartbeat"]}
    ]
    assert [json.loads(text) for text in COINBASE.unsubscribe(["BTC-USD"], 8)] == [
        {"type": "unsubscribe", "product_ids": ["BTC-USD"], "channels": ["matches", "heartbeat"]}
    ]


@pytest.mark.parametrize("kind", ["match", "last_match"])
def test_coinbase_a_match_is_a_trade_with_exact_numbers_at_the_engine_s_time(kind):
    trade = Trade(10, Millis(ms("2014-11-07T08:19:27.028")), Decimal("400.23"), Decimal("5.23512"))
    assert read(COINBASE, {**MATCH, "type": kind}) == [Traded("BTC-USD", trade)]


def test_coinbase_a_heartbeat_names_the_newest_trade_and_zero_is_passed_on_as_said():
    time = ms("2014-11-07T08:19:28.464")
    assert read(COINBASE, HEARTBEAT) == [Heartbeat("BTC-USD", time, 20)]
    assert read(COINBASE, {**HEARTBEAT, "last_trade_id": 0}) == [Heartbeat("BTC-USD", time, 0)]


def test_coinbase_acknowledges_all_current_subscriptions_at_once():
    both = ["BTC-USD", "ETH-USD"]
    channels = [
        {"name": "matches", "product_ids": both},
        {"name": "heartbeat", "product_ids": both, "account_ids": None},
    ]
    assert read(COINBASE, {"type": "subscriptions", "channels": channels}) == [
        Acked("BTC-USD", "matches"),
        Acked("ETH-USD", "matches"),
        Acked("BTC-USD", "heartbeat"),
        Acked("ETH-USD", "heartbeat"),
    ]
    assert read(COINBASE, {"type": "subscriptions", "channels": []}) == []


@pytest.mark.parametrize(
    ("reason", "symbol"),
    [
        ("GIBBERISH-USD is not a valid product", "GIBBERISH-USD"),
        ("BTC-EUR is delisted", "BTC-EUR"),
        ("BTC-USD-PERP is not a valid product", None),
        ("BTC-USD_X is not a valid product", None),
        ("matchez is not a valid channel", None),
    ],
)
def test_coinbase_a_refusal_names_the_product_where_the_venue_does(reason, symbol):
    message = {"type": "error", "message": "Failed to subscribe", "reason": reason}
    assert read(COINBASE, message) == [Refused(symbol, f"Failed to subscribe: {reason}")]


@pytest.mark.parametrize("reason", [{}, {"reason": ""}, {"reason": None}])
def test_coinbase_a_refusal_may_come_without_a_reason(reason):
    assert read(COINBASE, {"type": "error", "message": "Malformed JSON", **reason}) == [Refused(None, "Malformed JSON")]
    assert read(COINBASE, {"type": "error", **reason}) == [Refused(None, "refused without a reason")]


@pytest.mark.parametrize("kind", ["ticker", "status", "l2update", "snapshot", "rfq_match", "", "Match", "new"])
def test_coinbase_types_that_we_do_not_need_are_skipped_as_documented(kind):
    assert read(COINBASE, {**MATCH, "type": kind}) == [Skipped("unknown_type")]


@pytest.mark.parametrize("key", ["trade_id", "time", "product_id", "size", "price"])
def test_coinbase_a_match_without_a_field_that_it_needs_is_misunderstood(key):
    assert reason_of(COINBASE, without(MATCH, key)) == "bad_shape"
    assert reason_of(COINBASE, {**MATCH, key: None}) == "bad_shape"
    assert reason_of(COINBASE, {**MATCH, key: [MATCH[key]]}) == "bad_shape"


@pytest.mark.parametrize("key", ["sequence", "side", "maker_order_id", "taker_order_id"])
def test_coinbase_fields_that_are_not_used_may_be_anything(key):
    assert read(COINBASE, without(MATCH, key)) == read(COINBASE, MATCH)
    assert read(COINBASE, {**MATCH, key: {"deep": [1e308, None]}, "new": 2**200}) == read(COINBASE, MATCH)


@pytest.mark.parametrize("key", ["price", "size"])
def test_coinbase_prices_and_sizes_are_strings_of_plain_digits_above_zero(key):
    for number in (400.23, 400, True):
        assert reason_of(COINBASE, {**MATCH, key: number}) == "bad_shape"
    for text in NO_NUMBERS:
        assert reason_of(COINBASE, {**MATCH, key: text}) == "bad_number"
    for text in ("0", "0.00", "-1", "-0", "-0.00000001"):
        assert reason_of(COINBASE, {**MATCH, key: text}) == "bad_trade"


@pytest.mark.parametrize(
    "number", ["true", '"10"', "10.0", "1e1", "10.5", "-1", str(2**63), str(2**64), "1" * 100, "1" * 5000, "1e999"]
)
@pytest.mark.parametrize(("message", "key"), [(MATCH, "trade_id"), (HEARTBEAT, "last_trade_id")])
def test_coinbase_ids_are_integers_that_a_column_can_hold(message, key, number):
    text = json.dumps({**message, key: "here"}).replace('"here"', number)
    assert reason_of(COINBASE, text) in ("bad_shape", "not_json")


def test_coinbase_the_ends_of_the_ids():
    assert read(COINBASE, {**MATCH, "trade_id": 2**63 - 1})[0].trade.trade_id == 2**63 - 1
    assert reason_of(COINBASE, {**MATCH, "trade_id": 0}) == "bad_trade"


@pytest.mark.parametrize("message", [MATCH, HEARTBEAT])
def test_coinbase_a_time_that_is_none_is_misunderstood(message):
    for time in ("0001-01-01T00:00:00.000000Z", "", "2014-11-07T08:19:27.028459+01:00", "1415348367"):
        assert reason_of(COINBASE, {**message, "time": time}) == "bad_time"
    assert reason_of(COINBASE, {**message, "time": 1415348367}) == "bad_shape"


@pytest.mark.parametrize(
    "message",
    [
        {"type": "heartbeat"},
        {"type": "subscriptions"},
        {"type": "subscriptions", "channels": None},
        {"type": "subscriptions", "channels": [{"name": "matches"}]},
        {"type": "subscriptions", "channels": [{"product_ids": ["BTC-USD"]}]},
        {"type": "subscriptions", "channels": [{"name": "matches", "product_ids": "BTC-USD"}]},
        {"type": "subscriptions", "channels": [{"name": "matches", "product_ids": [1]}]},
        {"type": "subscriptions", "channels": ["matches"]},
        {"type": "error", "message": 5},
    ],
)
def test_coinbase_a_known_message_of_another_shape_is_misunderstood(message):
    assert reason_of(COINBASE, message) == "bad_shape"


def test_coinbase_of_a_key_said_twice_the_last_counts_and_two_types_are_misunderstood():
    text = json.dumps(MATCH)
    assert read(COINBASE, text[:-1] + ',"price":"7"}')[0].trade.price == 7
    assert reason_of(COINBASE, text[:-1] + ',"price":"NaN"}') == "bad_number"
    assert reason_of(COINBASE, text[:-1] + ',"type":"heartbeat"}') == "bad_shape"


# --- Kraken -----------------------------------------------------------------------------------------------

OHLC_ROW = {
    "symbol": "BTC/USD",
    "open": 77400.0,
    "high": 77445.8,
    "low": 77400.0,
    "close": 77416.3,
    "trades": 15,
    "volume": 0.25302078,
    "vwap": 77416.2,
    "interval_begin": "2026-09-10T17:44:00.000000000Z",
    "interval": 1,
    "timestamp": "2026-09-10T17:45:00.000000Z",
}
TRADE_ROW = {
    "symbol": "MATIC/USD",
    "side": "sell",
    "price": 0.5117,
    "qty": 40.0,
    "ord_type": "market",
    "trade_id": 4665906,
    "timestamp": "2023-09-25T07:49:37.708706Z",
}
STATUS = {
    "version": "2.0.10",
    "system": "online",
    "api_version": "v2",
    "connection_id": 16174536464690282295,
    "upcoming_maintenance": [],
    "emergency": [],
}
ACK = {
    "method": "subscribe",
    "result": {
        "channel": "ohlc",
        "interval": 1,
        "snapshot": True,
        "symbol": "BTC/USD",
        "warnings": ["timestamp is deprecated, use interval_begin"],
    },
    "success": True,
    "time_in": "2026-09-10T17:44:43.050123Z",
    "time_out": "2026-09-10T17:44:43.050191Z",
    "req_id": 1,
}


def ohlc(*rows, kind="update"):
    return {"channel": "ohlc", "type": kind, "timestamp": "2026-09-10T17:44:51.123456789Z", "data": list(rows)}


def trades(*rows, kind="update"):
    return {"channel": "trade", "type": kind, "data": list(rows)}


def test_kraken_subscribes_to_minutes_and_trades_with_snapshots():
    assert said(KRAKEN, ["BTC/USD", "ETH/USD"], 3) == [
        {
            "method": "subscribe",
            "params": {"channel": "ohlc", "symbol": ["BTC/USD", "ETH/USD"], "snapshot": True, "interval": 1},
            "req_id": 3,
        },
        {
            "method": "subscribe",
            "params": {"channel": "trade", "symbol": ["BTC/USD", "ETH/USD"], "snapshot": True},
            "req_id": 3,
        },
    ]
    assert json.loads(KRAKEN.ping) == {"method": "ping"}


def test_kraken_a_row_is_a_minute_that_never_says_it_is_closed():
    begin = ms("2026-09-10T17:44:00")
    assert read(KRAKEN, ohlc(OHLC_ROW)) == [
        Row(
            "BTC/USD", begin, begin + MINUTE, 77400.0, 77445.8, 77400.0, 77416.3, 0.25302078,
            quote_volume=None, vwap=77416.2, trades_count=15, closed=False,
        )
    ]  # fmt: skip


def test_kraken_a_snapshot_s_rows_are_all_read_in_order():
    rows = [
        {**OHLC_ROW, "interval_begin": f"2026-09-10T17:{minute}:00.0Z", "timestamp": None} for minute in (41, 43, 44)
    ]
    times = [row.open_time for row in read(KRAKEN, ohlc(*rows, kind="snapshot"))]
    assert times == [ms(f"2026-09-10T17:{minute}:00") for minute in (41, 43, 44)]
    assert read(KRAKEN, ohlc(kind="snapshot")) == []


def test_kraken_the_deprecated_timestamp_is_the_end_and_may_be_gone():
    begin = ms("2026-09-10T17:44:00")
    (row,) = read(KRAKEN, ohlc(without(OHLC_ROW, "timestamp")))
    assert (row.open_time, row.close_time) == (begin, begin + MINUTE)
    (row,) = read(KRAKEN, ohlc({**OHLC_ROW, "timestamp": "2026-09-10T17:44:00.0Z"}))
    assert row.close_time == begin  # as stated: validation rejects it


def test_kraken_the_average_price_of_no_trades_is_none():
    (row,) = read(KRAKEN, ohlc({**OHLC_ROW, "trades": 0, "volume": 0.0, "vwap": 0.0}))
    assert (row.trades_count, row.volume, row.vwap) == (0, 0.0, None)


@pytest.mark.parametrize("kind", ["snapshot", "update"])
def test_kraken_every_trade_of_a_message_is_seen_also_of_one_instant(kind):
    time = ms("2023-09-25T07:49:37.708")
    assert read(KRAKEN, trades(TRADE_ROW, {**TRADE_ROW, "trade_id": 4665907}, kind=kind)) == [
        TradeSeen("MATIC/USD", 4665906, time),
        TradeSeen("MATIC/USD", 4665907, time),
        *([Told(time)] if kind == "update" else []),  # a snapshot's trades are from before
    ]


def test_kraken_heartbeats_and_pongs_are_signs_of_life():
    assert read(KRAKEN, {"channel": "heartbeat"}) == [Alive()]
    assert read(KRAKEN, {"method": "pong", "req_id": 101, "time_in": "x", "time_out": "y"}) == [Alive()]


@pytest.mark.parametrize("system", ["cancel_only", "maintenance", "post_only", "something_new"])
def test_kraken_any_state_but_online_puts_its_feed_in_doubt(system):
    (doubt,) = read(KRAKEN, {"channel": "status", "type": "update", "data": [{**STATUS, "system": system}]})
    assert doubt == SystemStatus(f"system {system}")


def test_kraken_online_ends_the_doubt_whatever_the_size_of_its_connection_id():
    assert read(KRAKEN, {"channel": "status", "type": "update", "data": [STATUS]}) == [SystemStatus(None)]
    bigger = {**STATUS, "connection_id": 2**64 + 1}
    assert read(KRAKEN, {"channel": "status", "type": "update", "data": [bigger]}) == [SystemStatus(None)]


def test_kraken_acknowledges_one_symbol_and_channel_at_a_time():
    assert read(KRAKEN, ACK) == [Acked("BTC/USD", "ohlc"), Told(ms("2026-09-10T17:44:43.050"))]
    trade = {"method": "subscribe", "result": {"channel": "trade", "snapshot": True, "symbol": "X/Y"}, "success": True}
    assert read(KRAKEN, trade) == [Acked("X/Y", "trade")]
    assert read(KRAKEN, {**ACK, "method": "unsubscribe"})[0] == Skipped("unsubscribed")


def test_kraken_a_refusal_names_the_symbol_where_the_venue_does():
    refusal = {
        "error": "Currency pair not supported XBT/USDT",
        "method": "subscribe",
        "success": False,
        "symbol": "XBT/USDT",
        "time_in": "2026-09-10T17:44:44.609516Z",
        "time_out": "2026-09-10T17:44:44.609555Z",
        "req_id": 1,
    }
    assert read(KRAKEN, refusal)[0] == Refused("XBT/USDT", "Currency pair not supported XBT/USDT")
    shapeless = {**without(refusal, "symbol"), "error": "Currency pair not in ISO 4217-A3 format XBTUSD"}
    assert read(KRAKEN, shapeless)[0] == Refused(None, "Currency pair not in ISO 4217-A3 format XBTUSD")
    (refused,) = read(KRAKEN, {"method": "subscribe", "success": False})
    assert refused.text


def test_kraken_complaints_are_told():
    assert read(KRAKEN, {"Error": "Exceeded msg rate"}) == [Notice("Exceeded msg rate")]
    assert read(KRAKEN, {"method": "whatever", "error": "Malformed request"}) == [Notice("Malformed request")]


@pytest.mark.parametrize("channel", ["instrument", "ticker", "book", "level3", "", "OHLC"])
def test_kraken_channels_that_we_do_not_need_are_skipped(channel):
    assert read(KRAKEN, {"channel": channel, "data": [{"what": "ever"}]}) == [Skipped("unknown_channel")]


@pytest.mark.parametrize("channel", ["ohlc", "trade", "status"])
@pytest.mark.parametrize("data", ["absent", None, {}, "x", 5, [None], [[]], [{}], {"symbol": "BTC/USD"}])
def test_kraken_data_of_another_shape_is_misunderstood(channel, data):
    frame = {"channel": channel, "type": "update"}
    assert reason_of(KRAKEN, frame if data == "absent" else {**frame, "data": data}) == "bad_shape"


@pytest.mark.parametrize("key", [key for key in OHLC_ROW if key not in ("timestamp", "vwap")])
def test_kraken_a_row_without_a_field_that_it_needs_is_misunderstood(key):
    assert reason_of(KRAKEN, ohlc(without(OHLC_ROW, key))) == "bad_shape"
    assert reason_of(KRAKEN, ohlc(OHLC_ROW, {**OHLC_ROW, key: None})) == "bad_shape"


@pytest.mark.parametrize("key", ["symbol", "trade_id", "timestamp"])
def test_kraken_a_trade_without_a_field_that_it_needs_is_misunderstood(key):
    assert reason_of(KRAKEN, trades(TRADE_ROW, without(TRADE_ROW, key))) == "bad_shape"
    assert reason_of(KRAKEN, trades({**TRADE_ROW, key: None})) == "bad_shape"


def written(row, key, number):
    """An ohlc frame whose *key* is the very text *number*."""
    return json.dumps(ohlc({**row, key: "here"})).replace('"here"', number)


@pytest.mark.parametrize("key", ["open", "high", "low", "close", "volume"])
@pytest.mark.parametrize(
    "number",
    [
        "NaN", "Infinity", "-Infinity", "1e999", "-1e999", '"1"', "true", "1_000", "\u0663", "01", ".5", "+1",
        "9" * 400, "9" * 5000,
    ],
)  # fmt: skip
def test_kraken_numbers_are_finite_json_numbers(key, number):
    assert reason_of(KRAKEN, written(OHLC_ROW, key, number)) in ("bad_shape", "not_json")


@pytest.mark.parametrize("number", ["1", "1.0", "1e5", "0.1", "77400.00000001", "1234567890" * 3, "5e-324"])
def test_kraken_numbers_become_the_nearest_float(number):
    assert read(KRAKEN, written(OHLC_ROW, "open", number))[0].open == float(number)


@PATIENT
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_kraken_numbers_come_back_bit_for_bit(number):
    assert read(KRAKEN, written(OHLC_ROW, "volume", repr(number)))[0].volume.hex() == number.hex()


@pytest.mark.parametrize("number", ["true", '"1"', "1.5", "-1", str(2**63), str(2**64), "1" * 50, "1" * 5000, "1e999"])
def test_kraken_counts_and_ids_are_integers_that_a_column_can_hold(number):
    assert reason_of(KRAKEN, written(OHLC_ROW, "trades", number)) in ("bad_shape", "not_json")
    text = json.dumps(trades({**TRADE_ROW, "trade_id": "here"})).replace('"here"', number)
    assert reason_of(KRAKEN, text) in ("bad_shape", "not_json")


def test_kraken_ids_begin_at_one():
    assert reason_of(KRAKEN, trades({**TRADE_ROW, "trade_id": 0})) == "bad_trade"


@pytest.mark.parametrize("interval", [0, 5, 60, -1])
def test_kraken_a_row_of_another_interval_is_misunderstood(interval):
    assert reason_of(KRAKEN, ohlc({**OHLC_ROW, "interval": interval})) == "wrong_interval"


def test_kraken_a_time_that_is_none_is_misunderstood():
    for time in ("0001-01-01T00:00:00Z", "2026-09-10T17:44:00+02:00", "1788415260", "soon"):
        assert reason_of(KRAKEN, ohlc({**OHLC_ROW, "interval_begin": time})) == "bad_time"
        assert reason_of(KRAKEN, ohlc({**OHLC_ROW, "timestamp": time})) == "bad_time"
        assert reason_of(KRAKEN, trades({**TRADE_ROW, "timestamp": time})) == "bad_time"
    assert reason_of(KRAKEN, trades({**TRADE_ROW, "timestamp": 1788415260})) == "bad_shape"


@pytest.mark.parametrize(
    "message",
    [
        {"method": "subscribe"},
        {"method": "subscribe", "success": True},
        {"method": "subscribe", "success": True, "result": {}},
        {"method": "subscribe", "success": True, "result": {"channel": "ohlc"}},
        {"method": "subscribe", "success": True, "result": {"channel": "ohlc", "symbol": ["BTC/USD"]}},
        {"method": "subscribe", "success": "true", "result": {"channel": "ohlc", "symbol": "BTC/USD"}},
        {"method": "subscribe", "success": 1, "result": {"channel": "ohlc", "symbol": "BTC/USD"}},
        {"method": "add_order", "success": True, "result": {"order_id": "x"}},
        {"channel": 5},
        {"channel": ["ohlc"], "data": [OHLC_ROW]},
        {"success": True},
    ],
)
def test_kraken_an_answer_of_another_shape_is_misunderstood(message):
    assert reason_of(KRAKEN, message) == "bad_shape"


def test_kraken_of_a_key_said_twice_the_last_counts():
    text = json.dumps(ohlc(OHLC_ROW)).replace('"close": 77416.3', '"close": 77416.3, "close": 77444.0')
    assert read(KRAKEN, text)[0].close == 77444.0
    assert reason_of(KRAKEN, text.replace("77444.0", "NaN")) == "not_json"


# --- OKX --------------------------------------------------------------------------------------------------

CANDLE_ARG = {"channel": "candle1m", "instId": "BTC-USDT"}
OKX_ROW = ["1597026360000", "8533.02", "8553.74", "8527.17", "8548.26", "45247", "529.5858061", "386783242.42", "1"]


def candle1m(*rows):
    return {"arg": CANDLE_ARG, "data": list(rows)}


def okx_row(index, value):
    return [*OKX_ROW[:index], value, *OKX_ROW[index + 1 :]]


def test_okx_subscribes_one_argument_per_instrument():
    assert said(OKX, ["BTC-USDT", "ETH-USDT"], 1512) == [
        {"id": "1512", "op": "subscribe", "args": [CANDLE_ARG, {"channel": "candle1m", "instId": "ETH-USDT"}]}
    ]
    assert OKX.ping == "ping"


def test_okx_a_confirmed_row_is_a_closed_minute_and_its_average_price_follows():
    assert read(OKX, candle1m(OKX_ROW)) == [
        Row(
            "BTC-USDT", 1597026360000, 1597026420000, 8533.02, 8553.74, 8527.17, 8548.26, 45247.0,
            quote_volume=386783242.42, vwap=386783242.42 / 45247.0, trades_count=None, closed=True,
        )
    ]  # fmt: skip


def test_okx_a_forming_row_is_a_sign_of_life_and_never_a_number():
    row = okx_row(8, "0")
    assert read(OKX, candle1m(row)) == [Forming("BTC-USDT", Millis(int(row[0])))]
    assert read(OKX, candle1m(["", "NaN", "", "", "", "", "", "", "0"])) == [Forming("BTC-USDT")]


def test_okx_a_flat_minute_without_trades_has_no_average_price():
    (row,) = read(OKX, candle1m(["1685221620000", "26800", "26800", "26800", "26800", "0", "0", "0", "1"]))
    assert (row.volume, row.quote_volume, row.vwap, row.closed) == (0.0, 0.0, None, True)


def test_okx_every_row_of_a_message_is_read_and_fields_to_come_are_ignored():
    events = read(OKX, candle1m(OKX_ROW, okx_row(0, "1597026420000"), [*OKX_ROW, "new"], okx_row(8, "0")))
    assert [type(event) for event in events] == [Row, Row, Row, Forming]
    assert read(OKX, candle1m()) == []


def test_okx_pong_is_plain_text_and_a_sign_of_life():
    assert read(OKX, "pong") == [Alive()]
    assert reason_of(OKX, "pong ") == "not_json"


def test_okx_acknowledges_one_instrument_at_a_time():
    answer = {"id": "1512", "event": "subscribe", "arg": CANDLE_ARG, "connId": "a4d3ae55"}
    assert read(OKX, answer) == [Acked("BTC-USDT", "candle1m")]
    assert read(OKX, {**answer, "event": "unsubscribe"}) == [Skipped("unsubscribed")]


@pytest.mark.parametrize(
    ("instrument", "symbol"), [("XX-USDT", "XX-USDT"), ("BTC-USDT-SWAP", None), ("BTC-USD-220527", None)]
)
def test_okx_a_refusal_names_the_instrument_in_its_text_only(instrument, symbol):
    text = (
        f"Wrong URL or channel:candle1m,instId:{instrument} doesn't exist. "
        "Please use the correct URL, channel and parameters referring to API document."
    )
    refusal = {"event": "error", "msg": text, "code": "60018", "connId": "a4d3ae55"}
    assert read(OKX, refusal) == [Refused(symbol, f"60018 {text}")]


def test_okx_a_refusal_of_the_request_names_no_instrument():
    refusal = {"id": "1512", "event": "error", "code": "60012", "msg": 'Invalid request: {"op": "subscribe"}'}
    assert read(OKX, refusal) == [Refused(None, '60012 Invalid request: {"op": "subscribe"}')]


def test_okx_announces_that_it_will_close_the_connection():
    text = "The connection will soon be closed for a service upgrade. Please reconnect."
    notice = {"event": "notice", "code": "64008", "msg": text, "connId": "a4d3ae55"}
    assert read(OKX, notice) == [Leaving(text)]
    assert read(OKX, {**notice, "code": "64009"}) == [Notice(f"64009 {text}")]


@pytest.mark.parametrize("event", ["channel-conn-count", "login", "", "SUBSCRIBE"])
def test_okx_events_that_we_do_not_know_are_skipped(event):
    assert read(OKX, {"event": event, "channel": "candle1m", "connCount": "1"}) == [Skipped("unknown_event")]


@pytest.mark.parametrize("channel", ["trades", "tickers", "candle5m", "mark-price-candle1m", "", "status"])
def test_okx_channels_that_we_do_not_need_are_skipped(channel):
    assert read(OKX, {"arg": {"channel": channel, "instId": "BTC-USDT"}, "data": [{}]}) == [Skipped("unknown_channel")]


def test_okx_a_row_of_seven_fields_is_misunderstood():
    assert reason_of(OKX, candle1m(OKX_ROW[:7])) == "bad_shape"
    assert reason_of(OKX, candle1m(OKX_ROW[:8])) == "bad_shape"
    assert reason_of(OKX, candle1m(OKX_ROW, [])) == "bad_shape"


@pytest.mark.parametrize("confirm", ["", "2", "01", "true", " 1", "1.0", "10", "\u0661"])
def test_okx_a_row_is_confirmed_by_the_text_one_and_nothing_else(confirm):
    assert reason_of(OKX, candle1m(okx_row(8, confirm))) == "bad_confirm"


@pytest.mark.parametrize("confirm", [1, 0, True, None, ["1"]])
def test_okx_all_fields_of_a_row_are_strings(confirm):
    assert reason_of(OKX, candle1m(okx_row(8, confirm))) == "bad_shape"
    assert reason_of(OKX, candle1m(okx_row(1, confirm))) == "bad_shape"


@pytest.mark.parametrize("index", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("text", NO_NUMBERS)
def test_okx_numbers_are_strings_of_plain_digits(index, text):
    assert reason_of(OKX, candle1m(okx_row(index, text))) == "bad_number"


@pytest.mark.parametrize(
    "time",
    [
        "", "0", "1597026360", "15970263600000", "-597026360000", "1597026360000.0", "1.597026e12",
        "\uff11597026360000", " 597026360000",
    ],
)  # fmt: skip
def test_okx_a_time_that_is_no_milliseconds_is_misunderstood(time):
    assert reason_of(OKX, candle1m(okx_row(0, time))) == "bad_time"


@pytest.mark.parametrize(
    "message",
    [
        {"arg": CANDLE_ARG},
        {"data": [OKX_ROW]},
        {"arg": None, "data": [OKX_ROW]},
        {"arg": "candle1m", "data": [OKX_ROW]},
        {"arg": {"channel": "candle1m"}, "data": [OKX_ROW]},
        {"arg": {"channel": "candle1m", "instId": ""}, "data": [OKX_ROW]},
        {"arg": {"channel": "candle1m", "instId": 5}, "data": [OKX_ROW]},
        {"arg": CANDLE_ARG, "data": None},
        {"arg": CANDLE_ARG, "data": OKX_ROW},
        {"arg": CANDLE_ARG, "data": {"0": OKX_ROW}},
        {"arg": CANDLE_ARG, "data": [{"ts": "1597026360000"}]},
        {"arg": CANDLE_ARG, "data": "[]"},
        {"event": "subscribe"},
        {"event": "subscribe", "arg": {}},
        {"event": "subscribe", "arg": {"channel": "candle1m"}},
        {"event": 5, "arg": CANDLE_ARG},
        {"event": "error", "code": 60018, "msg": "x"},
    ],
)
def test_okx_a_message_of_another_shape_is_misunderstood(message):
    assert reason_of(OKX, message) == "bad_shape"


# --- anything at all --------------------------------------------------------------------------------------


def events_of(venue, text):
    try:
        return list(venue.read(text)), "understood"
    except Misunderstood as error:
        return [], error.reason


def check(venue, text):
    """Read *text*: nothing but Misunderstood comes out as an error, and no event holds what is no number."""
    events, reason = events_of(venue, text)
    assert WORD.fullmatch(reason)
    for event in events:
        assert isinstance(event, EVENTS)
        if isinstance(event, Row):
            check_row(event)
        elif isinstance(event, Traded):
            check_trade(event.trade)
        elif isinstance(event, TradeSeen):
            check_id_and_time(event.trade_id, event.time)
        elif isinstance(event, Heartbeat):
            check_id_and_time(event.last_trade_id, event.time)
        elif isinstance(event, (Skipped, Unread)):
            assert WORD.fullmatch(event.reason)


def check_row(row):
    numbers = [row.open, row.high, row.low, row.close, row.volume]
    numbers += [number for number in (row.quote_volume, row.vwap) if number is not None]
    assert all(type(number) is float and math.isfinite(number) for number in numbers)
    check_id_and_time(row.trades_count or 0, row.open_time)
    check_id_and_time(row.trades_count or 0, row.close_time)
    assert type(row.closed) is bool


def check_trade(trade):
    assert trade.price > 0
    assert trade.size > 0
    assert math.isfinite(float(trade.price))
    assert math.isfinite(float(trade.size))
    assert trade.trade_id > 0
    check_id_and_time(trade.trade_id, trade.time)


def check_id_and_time(number, time):
    assert type(number) is int
    assert 0 <= number < 2**63
    assert type(time) is int
    assert 0 <= time < 2**53


SAMPLES = [
    MATCH, HEARTBEAT, {"type": "subscriptions", "channels": [{"name": "matches", "product_ids": ["BTC-USD"]}]},
    {"type": "error", "message": "Failed to subscribe", "reason": "XX-USD is not a valid product"},
    ohlc(OHLC_ROW, OHLC_ROW), trades(TRADE_ROW, TRADE_ROW), {"channel": "status", "data": [STATUS]}, ACK,
    {"method": "subscribe", "success": False, "error": "no", "symbol": "X/Y"}, {"channel": "heartbeat"},
    candle1m(OKX_ROW, okx_row(8, "0")), {"event": "subscribe", "arg": CANDLE_ARG},
    {"event": "error", "code": "60018", "msg": "instId:XX-USDT doesn't exist"},
    {"event": "notice", "code": "64008", "msg": "soon"},
]  # fmt: skip

LEAF = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([2**63, 2**64, -(2**63), 10**30, 0, -1]),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from([*NO_NUMBERS, "0001-01-01T00:00:00Z", "BTC-USD", "../x", "1", "0", "match", "ohlc", "candle1m"]),
)
JSON = st.recursive(
    LEAF,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@st.composite
def mutated(draw, message):
    """*message* with something in it replaced, dropped or added, at any depth."""
    if isinstance(message, dict) and message:
        key = draw(st.sampled_from(sorted(message)))
        match draw(st.sampled_from(["drop", "into", "into", "into", "replace"])):
            case "drop":
                return without(message, key)
            case "into":
                return {**message, key: draw(mutated(message[key]))}
            case _:
                return {**message, key: draw(JSON)}
    if isinstance(message, list) and message:
        at = draw(st.integers(0, len(message) - 1))
        match draw(st.sampled_from(["drop", "into", "into", "into", "replace", "twice"])):
            case "drop":
                return message[:at] + message[at + 1 :]
            case "into":
                return [*message[:at], draw(mutated(message[at])), *message[at + 1 :]]
            case "twice":
                return [*message, message[at]]
            case _:
                return [*message[:at], draw(JSON), *message[at + 1 :]]
    return draw(JSON)


@st.composite
def mutated_text(draw, text):
    """*text* with a few characters changed, lost, doubled, or cut off."""
    for _ in range(draw(st.integers(1, 3))):
        assume(text)
        at = draw(st.integers(0, len(text) - 1))
        upto = draw(st.integers(at, min(len(text), at + 20)))
        middle = draw(
            st.sampled_from(["", text[at:upto] * 2, "9" * 30, "e999", "NaN", "\\ud800", "-", ".", '"', "{", "]"])
        )
        text = text[:at] + (draw(st.text(max_size=5)) if draw(st.booleans()) else middle) + text[upto:]
    return text


@PATIENT
@given(st.text())
def test_no_text_at_all_does_more_than_be_misunderstood(text):
    for venue in FEEDS.values():
        check(venue, text)


@PATIENT
@given(JSON)
def test_no_json_at_all_does_more_than_be_misunderstood(message):
    for venue in FEEDS.values():
        check(venue, json.dumps(message))


@settings(PATIENT, max_examples=4 * settings.default.max_examples)
@given(st.sampled_from(SAMPLES).flatmap(mutated))
def test_no_message_that_is_nearly_right_does_more_than_be_misunderstood(message):
    text = json.dumps(message)
    for venue in FEEDS.values():
        check(venue, text)


@settings(PATIENT, max_examples=4 * settings.default.max_examples)
@given(st.sampled_from(SAMPLES).map(json.dumps).flatmap(mutated_text))
def test_no_text_that_is_nearly_a_message_does_more_than_be_misunderstood(text):
    for venue in FEEDS.values():
        check(venue, text)


def real_texts():
    names = [
        "coinbase_exchange_20210417_matches_ticker.jsonl",
        "kraken_v2_2024_05_mixed_frames.jsonl",
        "kraken_v2_20260910_ohlc_verbatim_frames.jsonl",
        "okcoin_v5_20230527_candle1m_trades.jsonl",
        "okx_v5_20220513_trades_tickers.jsonl",
    ]
    return [frame.text for name in names for frame in frames(name)]


@settings(PATIENT, max_examples=4 * settings.default.max_examples)
@given(st.data())
def test_no_recorded_frame_damaged_in_any_way_does_more_than_be_misunderstood(data):
    if not DATA.exists():
        pytest.skip(f"no recorded data: {DATA} is absent")
    text = data.draw(st.sampled_from(REAL))
    damaged = data.draw(st.one_of(mutated_text(text), mutated(json.loads(text)).map(json.dumps)))
    for venue in FEEDS.values():
        check(venue, damaged)


REAL = real_texts() if DATA.exists() else []
