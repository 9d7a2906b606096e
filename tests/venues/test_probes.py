"""What the venues list, and the canary: probes find what they are told, and nothing where all is as assumed."""

from __future__ import annotations

import json
from collections.abc import Callable

import attrs
import pytest
import trio
from history_peer import NOON, Peer, in_rows
from recorded import recorded

from trio_candles.venues.history import Answer, Request, Throttled, Unavailable
from trio_candles.venues.listings import Listed, Trading, nearest
from trio_candles.venues.probes import Finding
from trio_candles.venues.protocol import Misunderstood
from trio_candles.venues.registry import VENUES

SYMBOL = {"coinbase": "BTC-USD", "kraken": "BTC/USD", "okx": "BTC-USDT"}


def answer_of(document: object, status: int = 200) -> Answer:
    return Answer(status, json.dumps(document).encode())


def listed(venue: str, document: object) -> dict[str, Listed]:
    return VENUES[venue].listing.read(answer_of(document))


# --- what the venues list ---------------------------------------------------------------------------------


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
        "ADA/USD": Trading.CLOSED,
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


def test_okx_instruments_trade_when_live():
    rows = [
        {"instId": f"{base}-USDT", "state": state, "listTime": time}
        for base, state, time in (("A", "live", "1548133413000"), ("B", "preopen", ""), ("C", "suspend", ""))
    ]
    found = listed("okx", {"code": "0", "data": rows})
    assert [one.trading for one in found.values()] == [Trading.OPEN, Trading.LIMITED, Trading.CLOSED]


@pytest.mark.parametrize(
    ("venue", "answer", "error"),
    [
        ("coinbase", Answer(503, b"<html>"), Unavailable),
        ("coinbase", Answer(200, b"<html>"), Unavailable),
        ("coinbase", Answer(200, b'[{"id":1}]'), Misunderstood),
        ("kraken", Answer(200, b'{"error":["EGeneral:Too many requests"]}'), Throttled),
        ("kraken", Answer(200, b'{"error":[],"result":{"X":[]}}'), Misunderstood),
        ("okx", Answer(200, b'{"code":"50013","msg":"busy","data":[]}'), Unavailable),
        ("okx", answer_of({"code": "0", "data": [{"instId": "A", "state": "live", "listTime": "-1"}]}), Misunderstood),
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


# --- the canary -------------------------------------------------------------------------------------------


def probed(peer: Peer, symbol: str | None = None) -> dict[str, Finding]:
    async def run() -> list[Finding]:
        probe = VENUES[peer.venue].probe(symbol or SYMBOL[peer.venue], lambda: peer.now)
        try:
            request = next(probe)
            while True:
                request = probe.send(await peer.ask(request))
        except StopIteration as stop:
            return stop.value

    found = trio.run(run)
    assert len({finding.name for finding in found}) == len(found)
    return {finding.name: finding for finding in found}


NAMES = {
    "coinbase": {"columns", "row order", "forming row", "page ends", "trade ids", "cursor"},
    "kraken": {"columns", "row order", "forming row", "last", "depth", "since", "trade ids", "cursor"},
    "okx": {"columns", "row order", "closed flag", "page ends", "history"},
}


@pytest.mark.parametrize("venue", NAMES)
def test_nothing_is_found_at_a_venue_that_is_as_assumed(venue):
    found = probed(Peer(venue))
    assert set(found) == NAMES[venue]
    assert {finding.status for finding in found.values()} == {"pass"}
    assert not [finding for finding in found.values() if "both" in finding.detail]


@pytest.mark.parametrize("venue", NAMES)
def test_a_market_in_which_nothing_happens_is_no_alarm(venue):
    thin = {"coinbase": "ALGO-GBP", "kraken": "ZEC/GBP", "okx": "ADA-BTC"}[venue]
    assert {finding.status for finding in probed(Peer(venue), thin).values()} <= {"pass", "warn"}


@pytest.mark.parametrize(
    ("venue", "knob", "value", "name", "words"),
    [
        ("kraken", "since_exclusive", True, "since", "exclusive (inclusive was assumed"),
        ("kraken", "last_is_forming", False, "last", "the newest closed row"),
        ("kraken", "omit_empty_rows", True, "depth", "without a row; the code handles both"),
    ],
)
def test_what_differs_and_is_handled_both_ways_is_a_note(venue, knob, value, name, words):
    peer = Peer(venue)
    setattr(peer.exchange.faults, knob, value)
    finding = probed(peer, "ZEC/GBP" if knob == "omit_empty_rows" else None)[name]
    assert finding.status == "pass"
    assert words in finding.detail


Change = Callable[[list[list[object]]], list[list[object]]]


def spoiled(venue: str, path: str, change: Change, *, containing: str = "") -> Peer:
    """A peer whose rows at *path*, where the query contains a word, are changed on their way."""

    def spoil(request: Request, answer: Answer) -> Answer:
        if not request.path.endswith(path) or containing not in f"{dict(request.params)}":
            return answer
        document = json.loads(answer.body)
        if venue == "kraken":
            (name,) = set(document["result"]) - {"last"}
            document["result"][name] = change(document["result"][name])
        elif venue == "okx":
            document["data"] = change(document["data"])
        else:
            document = change(document)
        return attrs.evolve(answer, body=json.dumps(document).encode())

    return Peer(venue, spoil=spoil)


def without(*places: int) -> Change:
    return lambda rows: [row for place, row in enumerate(rows) if place not in places]


def swapped(one: int, other: int) -> Change:
    def swap(rows: list[list[object]]) -> list[list[object]]:
        for row in rows:
            row[one], row[other] = row[other], row[one]
        return rows

    return swap


def marked(flag: str) -> Change:
    return lambda rows: [[*row[:8], flag] for row in rows]


@pytest.mark.parametrize(
    ("venue", "path", "change", "containing", "name"),
    [
        ("coinbase", "/candles", swapped(1, 2), "", "columns"),  # high before low
        ("coinbase", "/candles", without(3), "start", "page ends"),
        ("coinbase", "/trades", without(7), "", "trade ids"),
        ("coinbase", "/trades", without(0), "after", "cursor"),
        ("kraken", "/OHLC", swapped(2, 3), "", "columns"),
        ("kraken", "/OHLC", lambda rows: rows[-600:], "", "depth"),
        ("kraken", "/OHLC", without(0, 1), "since", "since"),
        ("kraken", "/Trades", without(7), "count", "trade ids"),
        ("kraken", "/Trades", lambda rows: rows[-3:], "since", "cursor"),
        ("okx", "/candles", swapped(2, 3), "", "columns"),
        ("okx", "/candles", swapped(5, 7), "", "columns"),  # base and quote
        ("okx", "/candles", marked("1"), "30", "closed flag"),
        ("okx", "/candles", marked("0"), "30", "closed flag"),
        ("okx", "/candles", marked("2"), "30", "closed flag"),
        ("okx", "/candles", without(1), "before", "page ends"),
        ("okx", "/history-candles", marked("x"), "", "history"),
        ("okx", "/history-candles", without(*range(10)), "", "history"),
    ],
)
def test_what_the_code_cannot_handle_is_a_failure(venue, path, change, containing, name):
    found = probed(spoiled(venue, path, change, containing=containing))
    failed = {finding.name for finding in found.values() if finding.status == "fail"}
    assert failed == {name}


@pytest.mark.parametrize(("venue", "path"), [("coinbase", "/candles"), ("kraken", "/OHLC"), ("okx", "/candles")])
def test_rows_in_another_order_are_a_note(venue, path):
    finding = probed(spoiled(venue, path, lambda rows: rows[::-1]))["row order"]
    assert finding.status == "pass"
    assert "was assumed" in finding.detail


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"null", b"[[1]]", b'{"code":"0","data":[["x"]]}', b"<html>"])
@pytest.mark.parametrize("venue", NAMES)
def test_whatever_a_probe_is_sent_it_ends_with_findings_or_a_named_error(venue, body):
    probe = VENUES[venue].probe(SYMBOL[venue], lambda: NOON)
    next(probe)
    found: list[Finding] = []
    try:
        for _ in range(9):
            probe.send(Answer(200, body))
    except (Misunderstood, Unavailable):
        return
    except StopIteration as stop:
        found = stop.value
    assert found
    assert all(finding.status != "pass" for finding in found)


def test_rows_of_seven_fields_are_an_error():
    peer = Peer("okx")
    peer.exchange.faults.seven_fields = True
    with pytest.raises(Misunderstood, match="short_row"):
        probed(peer)


@pytest.mark.parametrize("venue", NAMES)
def test_a_column_that_was_added_is_no_alarm(venue):
    peer = Peer(venue, spoil=in_rows(venue, lambda rows: [row.append("new") for row in rows]))
    assert {finding.status for finding in probed(peer).values()} == {"pass"}
