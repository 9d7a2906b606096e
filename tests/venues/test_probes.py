"""The canary: probes find what they are told, and nothing where all is as assumed."""

from __future__ import annotations

import json
from collections.abc import Callable

import attrs
import pytest
import trio
from history_peer import NOON, Peer, in_rows

from trio_candles.venues.history import Answer, Request, Unavailable
from trio_candles.venues.probes import Finding
from trio_candles.venues.protocol import Misunderstood
from trio_candles.venues.registry import VENUES

SYMBOL = {"coinbase": "BTC-USD", "kraken": "BTC/USD", "okx": "BTC-USDT"}


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


@pytest.mark.parametrize(
    ("venue", "path", "more"),
    [
        ("coinbase", "/candles", 5.0),
        ("coinbase", "/candles", None),
        ("kraken", "/OHLC", "5"),
        ("kraken", "/Trades", None),
        ("okx", "/candles", "0"),
    ],
)
def test_a_column_more_than_is_read_is_nothing_to_be_said(venue, path, more):
    found = probed(spoiled(venue, path, lambda rows: [[*row, more] for row in rows]))
    assert {finding.status for finding in found.values()} == {"pass"}


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
