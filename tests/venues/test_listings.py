"""What the venues list: every symbol that can be collected, whatever its neighbours in the answer look like."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from recorded import recorded

from trio_candles.venues.history import Answer, Throttled, Unavailable
from trio_candles.venues.listings import Listed, Trading, nearest
from trio_candles.venues.protocol import Misunderstood
from trio_candles.venues.registry import VENUES


def answer_of(document: object, status: int = 200) -> Answer:
    return Answer(status, json.dumps(document).encode())


def listed(venue: str, document: object) -> dict[str, Listed]:
    return VENUES[venue].listing.read(answer_of(document))


# --- states and names -------------------------------------------------------------------------------------


@pytest.mark.parametrize("venue", VENUES)
def test_a_listing_counts_against_one_of_its_venues_budgets(venue):
    assert VENUES[venue].listing.request.bucket in VENUES[venue].history.rates


def product(symbol: str, **more: object) -> dict[str, object]:
    return {"id": symbol, "status": "online", "trading_disabled": False, **more}


@pytest.mark.parametrize(
    ("more", "trading"),
    [
        ({}, Trading.OPEN),
        ({"limit_only": True}, Trading.OPEN),
        ({"post_only": True}, Trading.LIMITED),
        ({"cancel_only": True}, Trading.LIMITED),
        ({"auction_mode": True}, Trading.LIMITED),
        ({"status": "delisted"}, Trading.CLOSED),
        ({"status": "offline"}, Trading.CLOSED),
        ({"trading_disabled": True}, Trading.CLOSED),
        ({"status": "a_state_of_the_future"}, Trading.LIMITED),
        ({"status": None}, Trading.LIMITED),
    ],
)
def test_a_coinbase_product_trades_if_it_is_online_and_not_disabled(more, trading):
    assert listed("coinbase", [product("BTC-USD", **more)])["BTC-USD"].trading is trading


def test_a_coinbase_alias_is_known_by_its_field_or_by_the_rule_where_there_is_none():
    names = ["BTC-USD", "BTC-USDC", "USDT-USD", "USDT-USDC", "EURC-USD", "EURC-USDC", "XSGD-USDC"]
    by_rule = listed("coinbase", [product(name) for name in names])
    assert {name: one.alias_of for name, one in by_rule.items() if one.alias_of} == {"BTC-USDC": "BTC-USD"}
    own_book = listed("coinbase", [product(name, alias="") for name in names])
    assert not any(one.alias_of for one in own_book.values())
    named = listed("coinbase", [product("A-USD", alias=""), product("B-EUR", alias="A-USD")])
    assert named["B-EUR"].alias_of == "A-USD"


def test_the_recorded_products_say_the_same_by_field_and_by_rule():
    told = json.loads(recorded("rest/coinbase_advtrade_products_20260809.json").read_text(encoding="utf-8"))
    products = [one | {"id": one["product_id"]} for one in told["products"]]
    by_field = listed("coinbase", products)
    by_rule = listed("coinbase", [{key: one[key] for key in one if key != "alias"} for one in products])
    assert by_field == by_rule
    assert sum(one.alias_of is not None for one in by_field.values()) == 400
    assert sum(one.trading is Trading.CLOSED for one in by_field.values()) == 8


def test_kraken_pairs_are_called_as_its_feed_calls_them_and_dark_pools_left_out():
    pairs = {
        "XXBTZUSD": {"wsname": "XBT/USD", "status": "online"},
        "XDGUSD": {"wsname": "XDG/USD", "status": "post_only"},
        "ETHXBT": {"wsname": "ETH/XBT", "status": "delisted"},
        "XXBTZUSD.d": {"altname": "XBTUSD.d"},
        "SOLUSD": {"wsname": "SOL/USD"},
        "ADAUSD": {"wsname": "ADA/USD", "status": "a_state_of_the_future"},
    }
    found = listed("kraken", {"error": [], "result": pairs})
    assert {name: one.trading for name, one in found.items()} == {
        "BTC/USD": Trading.OPEN,
        "DOGE/USD": Trading.LIMITED,
        "ETH/BTC": Trading.CLOSED,
        "SOL/USD": Trading.OPEN,
        "ADA/USD": Trading.LIMITED,
    }


def test_recorded_pairs_and_instruments_are_read():
    pairs = VENUES["kraken"].listing.read(Answer(200, recorded("rest/kraken_assetpairs_20210417.json").read_bytes()))
    assert len(pairs) == 293
    assert {"BTC/USD", "DOGE/USD", "ETH/BTC"} <= set(pairs)
    instruments = VENUES["okx"].listing.read(
        Answer(200, recorded("rest/okx_instruments_spot_20220513.json").read_bytes())
    )
    assert len(instruments) == 513
    assert instruments["BTC-USDT"] == Listed("BTC-USDT", Trading.OPEN, "live", 1_548_133_413_000)


@pytest.mark.parametrize(
    ("state", "trading"),
    [
        ("live", Trading.OPEN),
        ("post_only", Trading.LIMITED),
        ("rebase", Trading.LIMITED),
        ("preopen", Trading.LIMITED),
        ("suspend", Trading.LIMITED),
        ("a_state_of_the_future", Trading.LIMITED),
        (None, Trading.LIMITED),
        ("test", Trading.CLOSED),
        ("expired", Trading.CLOSED),
    ],
)
def test_an_okx_instrument_that_is_restricted_or_waits_is_not_called_closed(state, trading):
    row = {"instId": "A-USDT", "state": state, "listTime": "1548133413000"}
    assert listed("okx", {"code": "0", "data": [row]})["A-USDT"].trading is trading


# --- several rows of one symbol ---------------------------------------------------------------------------

BITCOIN = {"altname": "XBTUSD", "wsname": "XBT/USD", "status": "online", "execution_venue": "international"}
BITNOMIAL = {
    "altname": "XBTUSD:BTNL",
    "wsname": "XBT/USD",
    "status": "delisted",
    "execution_venue": "bitnomial_exchange",
}


def kraken_pairs(*pairs: tuple[str, object]) -> dict[str, Listed]:
    return listed("kraken", {"error": [], "result": dict(pairs)})


@pytest.mark.parametrize(
    "twin",
    [
        ("XBTUSD:BTNL", BITNOMIAL),
        ("XBTUSD:BTNL", BITNOMIAL | {"execution_venue": None}),
        ("XXBTZUSD2", BITNOMIAL | {"altname": "XBTUSD2"}),  # told by its venue alone
        ("XBTUSD2", BITNOMIAL | {"execution_venue": "international"}),  # told by its other name alone
        ("XXBTZUSD.d", BITCOIN | {"altname": "XBTUSD.d", "status": "post_only"}),
        ("XXBTZUSD_OLD", BITCOIN | {"status": "delisted"}),  # told by nothing: then it is the one that trades
        ("XXBTZUSD_OLD", BITCOIN | {"status": "cancel_only"}),
    ],
)
def test_of_two_kraken_pairs_of_one_name_the_one_that_trades_here_is_listed_in_either_order(twin):
    one = ("XXBTZUSD", BITCOIN)
    for pairs in ((one, twin), (twin, one)):
        assert kraken_pairs(*pairs) == {"BTC/USD": Listed("BTC/USD", Trading.OPEN, "online")}


def test_a_kraken_pair_that_only_another_venue_or_a_dark_pool_has_is_not_listed():
    assert kraken_pairs(("XBTUSD:BTNL", BITNOMIAL | {"status": "online"}), ("XXBTZUSD.d", {"wsname": "XBT/USD"})) == {}
    elsewhere = BITCOIN | {"execution_venue": "somewhere_else"}
    assert kraken_pairs(("XXBTZUSD", elsewhere)) == {}
    assert set(kraken_pairs(("XXBTZUSD", elsewhere), ("SOLUSD", {"wsname": "SOL/USD"}))) == {"SOL/USD"}


@pytest.mark.parametrize("turned", [1, -1])
def test_of_two_rows_of_one_symbol_the_one_that_trades_most_freely_is_listed(turned):
    products = [product("BTC-USD"), product("BTC-USD", status="delisted"), product("BTC-USD", post_only=True)]
    assert listed("coinbase", products[::turned])["BTC-USD"].trading is Trading.OPEN
    assert listed("coinbase", products[1:][::turned])["BTC-USD"].trading is Trading.LIMITED
    rows = [{"instId": "BTC-USDT", "state": state} for state in ("live", "expired", "suspend")]
    assert listed("okx", {"code": "0", "data": rows[::turned]})["BTC-USDT"].trading is Trading.OPEN
    assert listed("okx", {"code": "0", "data": rows[1:][::turned]})["BTC-USDT"].trading is Trading.LIMITED


def test_a_row_that_repeats_an_alias_leaves_it_one():
    products = [product("BTC-USDC"), product("BTC-USD"), product("BTC-USDC", status="delisted"), product("BTC-USD")]
    found = listed("coinbase", products)
    assert {name: one.alias_of for name, one in found.items()} == {"BTC-USDC": "BTC-USD", "BTC-USD": None}


# --- rows that cannot be read -----------------------------------------------------------------------------


def test_a_null_in_a_product_is_nothing_said():
    nulls = dict.fromkeys(("status_message", "trading_disabled", "post_only", "auction_mode", "alias"))
    found = listed("coinbase", [product("BTC-USD", **nulls), product("ETH-USD")])
    assert {name: one.state for name, one in found.items()} == {"BTC-USD": "online", "ETH-USD": "online"}


GOOD = {
    "coinbase": product("BTC-USD"),
    "kraken": {"wsname": "BTC/USD", "status": "online"},
    "okx": {"instId": "BTC-USD", "state": "live"},
}
NAME = {"coinbase": "id", "kraken": "wsname", "okx": "instId"}
STATE = {"coinbase": "status", "kraken": "status", "okx": "state"}


def listing_of(venue: str, rows: list[object]) -> dict[str, Listed]:
    if venue == "kraken":
        return kraken_pairs(*((f"PAIR{n}", row) for n, row in enumerate(rows)))
    return listed(venue, rows if venue == "coinbase" else {"code": "0", "data": rows})


@pytest.mark.parametrize("venue", VENUES)
@pytest.mark.parametrize("bad", [None, 5, "x", [], [[]], {}])
def test_a_row_that_is_none_costs_nothing_else(venue, bad):
    assert len(listing_of(venue, [bad, GOOD[venue], bad])) == 1


@pytest.mark.parametrize("venue", VENUES)
@pytest.mark.parametrize("place", ["name", "state"])
@pytest.mark.parametrize("value", [5, True, [], {}])
def test_a_field_of_a_wrong_type_costs_its_own_symbol(venue, place, value):
    key = (NAME if place == "name" else STATE)[venue]
    assert len(listing_of(venue, [GOOD[venue] | {key: value}, GOOD[venue] | {"more": value}])) == 1


@pytest.mark.parametrize("venue", VENUES)
@pytest.mark.parametrize("value", [None, "", 5, [], {}])
def test_a_field_that_is_not_read_may_be_anything(venue, value):
    unread = dict.fromkeys(("baseCcy", "quoteCcy", "base_currency", "quote_increment", "fees", "listTime"), value)
    assert list(listing_of(venue, [unread | GOOD[venue]]).values()) == list(listing_of(venue, [GOOD[venue]]).values())


@pytest.mark.parametrize("name", ["", "BTCUSD", "/", "BTC/", "/USD", "A/B/C"])
def test_a_kraken_pair_without_base_or_quote_is_not_listed(name):
    assert kraken_pairs(("A", {"wsname": name}), ("B", BITCOIN)).keys() == {"BTC/USD"}


# --- what was recorded ------------------------------------------------------------------------------------


def read(venue: str, name: str) -> dict[str, Listed]:
    return VENUES[venue].listing.read(Answer(200, recorded(f"added-2026-11/rest/{name}").read_bytes()))


def counts(found: dict[str, Listed]) -> dict[str, int]:
    return dict(Counter(entry.state for entry in found.values()))


def test_the_recorded_720_products_of_2025_are_listed():
    """458 trade, 19 of them with limit orders only; 262 are delisted, among them all ten that are other names."""
    found = read("coinbase", "coinbase_products_20250827.json")
    assert len(found) == 720
    assert counts(found) == {"online": 439, "online, limit_only": 19, "delisted, trading_disabled": 262}
    assert Counter(entry.trading for entry in found.values()) == {Trading.OPEN: 458, Trading.CLOSED: 262}
    assert Counter(entry.trading for entry in found.values() if entry.alias_of) == {Trading.CLOSED: 10}


def test_one_recorded_product_with_a_null_costs_none_of_the_720():
    products = json.loads(recorded("added-2026-11/rest/coinbase_products_20250827.json").read_bytes())
    whole = listed("coinbase", products)
    products[7] |= {"status_message": None}
    assert listed("coinbase", products) == whole
    products[7] |= {"id": None}
    assert whole.keys() - listed("coinbase", products).keys() == {list(whole)[7]}


def test_the_recorded_products_of_2018_are_listed_although_most_have_no_message():
    found = read("coinbase", "coinbase_products_2018_xchange.json")
    assert counts(found) == {"online": 10}
    assert {entry.trading for entry in found.values()} == {Trading.OPEN}


def test_the_recorded_pairs_of_2026_are_called_as_the_feed_calls_them():
    found = read("kraken", "kraken_assetpairs_20260925_bytex_5pairs.json")
    assert {name: entry.trading for name, entry in found.items()} == {
        "BTC/USD": Trading.OPEN,
        "DOGE/USD": Trading.OPEN,
        "ETH/BTC": Trading.OPEN,
        "SOL/USD": Trading.OPEN,
        "ACA/EUR": Trading.LIMITED,
    }


def test_a_recorded_tokenized_share_is_listed_under_its_own_name():
    found = read("kraken", "kraken_assetpairs_tokenized_nautilus_202603.json")
    assert found == {"AAPLx/USD": Listed("AAPLx/USD", Trading.OPEN, "online")}


def test_the_recorded_instruments_of_2025_are_listed_also_those_that_wait():
    """One of the two that wait has no base currency."""
    found = read("okx", "okx_instruments_roq_202512_0.json")
    assert {name: (entry.state, entry.since) for name, entry in found.items()} == {
        "USDT-SGD": ("live", 1_734_678_000_000),
        "USDC-SGD": ("live", 1_734_678_600_000),
        "OKSOL-SOL": ("live", 1_733_902_200_000),
        "NIGHT-USDT": ("preopen", 1_765_270_800_000),
        "NIGHT-USD": ("preopen", 1_765_278_000_000),
    }
    assert counts(read("okx", "okx_instruments_spot_nautilus.json")) == {"live": 5}


# --- what is no listing -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("venue", "answer", "error"),
    [
        ("coinbase", Answer(503, b"<html>"), Unavailable),
        ("coinbase", Answer(200, b"<html>"), Unavailable),
        ("coinbase", Answer(200, b'[{"id":1}]'), Misunderstood),
        ("kraken", Answer(200, b'{"error":["EGeneral:Too many requests"]}'), Throttled),
        ("kraken", Answer(200, b'{"error":[],"result":{"X":[]}}'), Misunderstood),
        ("okx", Answer(200, b'{"code":"50013","msg":"busy","data":[]}'), Unavailable),
        ("okx", answer_of({"code": "0", "data": [{"instId": "", "state": "live"}]}), Misunderstood),
    ],
)
def test_what_is_no_listing_is_a_named_error(venue, answer, error):
    with pytest.raises(error):
        VENUES[venue].listing.read(answer)


def test_the_nearest_names_are_offered_and_none_that_cannot_be_used():
    names = ["BTC-USD", "BTC-USDT", "LTC-USD", "ETH-USD", "ETH-EUR", "DOGE-USD"]
    entries = {name: Listed(name, Trading.OPEN, "online") for name in names}
    entries["BTC-USDC"] = Listed("BTC-USDC", Trading.OPEN, "online", alias_of="BTC-USD")
    entries["BTC-USDX"] = Listed("BTC-USDX", Trading.CLOSED, "delisted")
    assert nearest("BTC-USDX", entries) == ["BTC-USD", "BTC-USDT", "LTC-USD"]
    assert nearest("USD-ETH", entries)[0] == "ETH-USD"
    assert nearest("XBT-USD", entries)[0] == "BTC-USD"
    assert nearest("XDG-USD", entries)[0] == "DOGE-USD"
    assert nearest("ETH-QQQQQQQ", entries) == ["ETH-EUR", "ETH-USD"]
    assert nearest("QQQQ-ZZZZ", entries) == []


@pytest.mark.parametrize("symbol", ["BTCUSD", "XBTUSD", "BTC"])
def test_the_nearest_names_are_offered_also_for_one_without_a_separator(symbol):
    entries = {name: Listed(name, Trading.OPEN, "online") for name in ("BTC/USD", "ETH/USD", "DOGE/EUR")}
    assert nearest(symbol, entries)[0] == "BTC/USD"


@given(st.text(st.sampled_from("ABTCUSDX-/ "), max_size=9))
def test_whatever_was_written_the_names_that_are_offered_are_listed(symbol):
    entries = {name: Listed(name, Trading.OPEN, "online") for name in ("BTC-USD", "ETH-USD")}
    assert set(nearest(symbol, entries)) <= set(entries)
