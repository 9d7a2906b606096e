"""What venues say in words: told by how they begin, whatever follows, and never taken for more than they say."""

from __future__ import annotations

import json
import re

import pytest
from recorded import frames, recorded

from trio_candles.candles.model import Millis
from trio_candles.venues.history import Answer, Throttled, Unavailable, UnknownSymbol
from trio_candles.venues.protocol import Acked, Event, Misunderstood, Notice, Refused, VenueError
from trio_candles.venues.registry import VENUES

NOW = Millis(1_790_000_000_000)


def said(venue: str, message: object) -> list[Event]:
    """The events of *message*, as the feed of *venue* reads it."""
    return list(VENUES[venue].feed.read(json.dumps(message)))


# --- Kraken: a subscription that there is already ---------------------------------------------------------

KRAKEN_FRAMES = "kraken_v2_single_frames_2025_2026.jsonl"
ONE_INTERVAL = "Already subscribed to one ohlc interval on this symbol"


def already(words: str, **more: object) -> list[Event]:
    return said("kraken", {"error": words, "method": "subscribe", "success": False, "symbol": "BTC/USD", **more})


def test_kraken_what_is_already_subscribed_is_acknowledged_on_the_channel_that_is_named():
    """The answer to a request that was repeated because the first answer came late is no refusal."""
    assert already("Already subscribed") == [Acked("BTC/USD", "ohlc"), Acked("BTC/USD", "trade")]
    assert already(ONE_INTERVAL) == [Acked("BTC/USD", "ohlc")]
    assert already("Already subscribed to trade on this symbol, whatever that is") == [Acked("BTC/USD", "trade")]


def test_kraken_what_is_already_subscribed_and_names_no_symbol_refuses_nothing():
    assert already(ONE_INTERVAL, symbol=None) == [Notice(ONE_INTERVAL)]


def test_kraken_the_recorded_words_acknowledge():
    read = [list(VENUES["kraken"].feed.read(frame.text)) for frame in frames(KRAKEN_FRAMES)]
    assert read == [
        [Acked("BTC/USD", "ohlc"), Acked("BTC/USD", "trade")],
        [Notice(ONE_INTERVAL)],
        [Acked("BTC/USD", "ohlc")],
    ]


def test_kraken_a_refusal_that_names_its_channel_is_one():
    """Recorded of a channel that needs a login; a frame that has a channel and is no data."""
    (recorded_one,) = [frame for frame in frames("kraken_v2_20260925_bytex_recorded.jsonl") if "ESession" in frame.text]
    refused, _ = VENUES["kraken"].feed.read(recorded_one.text)  # and when the venue said so
    assert refused == Refused(None, "ESession:Invalid session")
    words = {"error": "Currency pair not supported X/Y", "method": "subscribe", "success": False, "symbol": "X/Y"}
    assert said("kraken", {**words, "channel": "ohlc"}) == [Refused("X/Y", words["error"])]


# --- which symbol is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        {"message": "Failed to subscribe", "reason": "XX-USD is not a valid product"},
        {"message": "Failed to subscribe", "reason": "Product XX-USD is not valid any more."},
        {"message": "Failed to subscribe", "reason": "invalid product: XX-USD"},
        {"message": "XX-USD is delisted"},
    ],
)
def test_coinbase_a_refused_product_is_known_wherever_it_stands(message):
    (event,) = said("coinbase", {"type": "error", **message})
    assert isinstance(event, Refused)
    assert event.symbol == "XX-USD"


def test_coinbase_the_recorded_refusal_of_a_channel_names_no_product():
    events = [
        event
        for frame in frames("coinbase_exchange_2026_08_09_single_frames.jsonl")
        for event in VENUES["coinbase"].feed.read(frame.text)
        if isinstance(event, Refused)
    ]
    assert [event.symbol for event in events] == [None]
    assert "require authentication" in events[0].text


@pytest.mark.parametrize(
    ("msg", "symbol"),
    [
        ("Wrong URL or channel:candle1m,instId:XX-USDT doesn't exist. Please use the correct URL", "XX-USDT"),
        ("Wrong URL or channel:candle1m, instId:XX-USDT doesn't exist.", "XX-USDT"),
        ("Subscribe failed, wrong URL or channel:candle1m, instId: XX-USDT doesn't exist.", "XX-USDT"),
        ("Wrong URL or channel:candle1m, instId:XX-USDT-SWAP doesn't exist.", None),
        ('Invalid request: {"op": "subscribe", "args": [{"instId": "XX-USDT"}, {"instId": "YY-USDT"}]}', None),
    ],
)
def test_okx_a_refused_instrument_is_known_in_each_of_its_wordings(msg, symbol):
    assert said("okx", {"event": "error", "code": "60018", "msg": msg}) == [Refused(symbol, f"60018 {msg}")]


def test_okx_a_refusal_that_names_its_argument_is_of_that_instrument():
    arg = {"channel": "candle1m", "instId": "XX-USDT"}
    message = {"event": "error", "code": "60018", "msg": "doesn't exist", "arg": arg}
    assert said("okx", message) == [Refused("XX-USDT", "60018 doesn't exist")]


def test_okx_the_recorded_refusals_name_the_one_instrument_of_ours():
    names = ("okx_v5_2025_12_roq_tests.jsonl", "okx_v5_20260925_bytex_recorded.jsonl")
    events = [
        event
        for name in names
        for frame in frames(name)
        if '"event":"error"' in frame.text
        for event in VENUES["okx"].feed.read(frame.text)
    ]
    assert [(event.symbol, event.text[:5]) for event in events] == [
        (None, "60032"),
        (None, "60018"),
        ("BTC-USDT", "60018"),
        (None, "60005"),
    ]


# --- our pace ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("venue", "message", "is_so"),
    [
        ("coinbase", {"type": "error", "message": "Rate limit exceeded"}, True),
        ("coinbase", {"type": "error", "message": "Failed to subscribe", "reason": "Public rate limit exceeded"}, True),
        ("coinbase", {"type": "error", "message": "Failed to subscribe", "reason": "RATE-USD is not a valid"}, False),
        ("kraken", {"Error": "Exceeded msg rate"}, True),
        ("kraken", {"method": "subscribe", "success": False, "error": "EAPI:Rate limit exceeded"}, True),
        ("kraken", {"method": "subscribe", "success": False, "error": "exceeded msg rate: wait"}, True),
        ("kraken", {"method": "subscribe", "success": False, "error": "Currency pair not supported RATE/USD"}, False),
        ("okx", {"event": "error", "code": "60014", "msg": "Requests too frequent."}, True),
        ("okx", {"event": "error", "code": "60014", "msg": ""}, True),
        ("okx", {"event": "error", "code": "60012", "msg": "Invalid request: 60014 "}, False),
    ],
)
def test_a_complaint_about_our_pace_is_told_from_a_refusal(venue, message, is_so):
    (event,) = said(venue, message)
    assert isinstance(event, Refused | Notice)
    assert (re.search(VENUES[venue].feed.limits.too_fast, event.text, re.IGNORECASE) is not None) is is_so


# --- answers of REST --------------------------------------------------------------------------------------


def error_of(venue: str, answer: Answer) -> VenueError:
    with pytest.raises(VenueError) as caught:
        VENUES[venue].history.read_time(answer)
    return caught.value


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("EGeneral:Too many requests", Throttled),
        ("EGeneral:Too many requests (public)", Throttled),
        ("EAPI:Rate limit exceeded", Throttled),
        ("EAPI:Rate limit exceeded for this address", Throttled),
        ("EAPI: Rate limit exceeded", Throttled),
        ("EGeneral:Temporary lockout", Throttled),
        ("EService: Throttled: 1762820224", Throttled),
        ("EService:Unavailable", Unavailable),
        ("EService:Busy", Unavailable),
        ("EGeneral:Internal error", Unavailable),
        ("EGeneral:Internal error, try again", Unavailable),
        ("EQuery:Unknown asset pair", UnknownSymbol),
        ("EQuery:Unknown asset pair: XBTUSDX", UnknownSymbol),
        ("EGeneral:Invalid arguments", Misunderstood),
        ("Unknown asset pair", Misunderstood),
        ("EWhatever:Of the future", Misunderstood),
    ],
)
def test_kraken_an_error_is_told_by_how_it_begins(words, kind):
    body = json.dumps({"error": [words]}).encode()
    assert type(error_of("kraken", Answer(200, body))) is kind


@pytest.mark.parametrize(
    ("status", "words", "kind"),
    [
        (404, "NotFound", UnknownSymbol),
        (404, "Not Found", UnknownSymbol),
        (404, "NotFound: no such product", UnknownSymbol),
        (404, "Route not found", Misunderstood),
        (400, "NotFound", Misunderstood),
    ],
)
def test_coinbase_an_unknown_product_is_told_by_how_the_words_begin(status, words, kind):
    assert type(error_of("coinbase", Answer(status, json.dumps({"message": words}).encode()))) is kind


def test_coinbase_the_recorded_404_is_an_unknown_product():
    body = recorded("added-2026-11/rest/coinbase_candles_404_20250827.json").read_bytes()
    assert type(error_of("coinbase", Answer(404, body))) is UnknownSymbol
