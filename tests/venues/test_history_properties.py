"""What the REST histories may claim and must find out, over random windows and hostile answers.

The judge is :meth:`history_peer.Peer.judge`: the simulated market knows every trade and shares nothing with the code.
Each minute that is asked for is found in exactly one place, and whatever is called a candle or empty is true.
"""

from __future__ import annotations

import contextlib
import json
import random
from decimal import Decimal
from itertools import pairwise

import attrs
import pytest
from history_peer import HISTORIES, NOON, Peer, drive, whys
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trio_candles.candles.model import MINUTE, Millis, Series
from trio_candles.simulator import RestFault
from trio_candles.venues.history import Answer, Refusal, Using, Why, pages
from trio_candles.venues.protocol import Misunderstood

SYMBOLS = {
    "coinbase": ["BTC-USD", "ETH-USD", "ADA-USD", "SOL-USD"],
    "kraken": ["BTC/USD", "ETH/USD", "DOGE/USD", "SIM012/USD"],
    "okx": ["BTC-USDT", "ETH-USDT", "DOGE-USDT", "SIM007-USDT"],
}
"""Busy, lively, quiet, thin."""
VENUES = list(HISTORIES)
KNOBS = {
    "coinbase": {"early_rows": [0, 5], "float_artefacts": [False, True]},
    "kraken": {
        "since_exclusive": [False, True],
        "last_is_forming": [False, True],
        "omit_empty_rows": [False, True],
    },
    "okx": {"history_lag": [0, 3]},
}
NAMED = (Misunderstood, Refusal)
"""All that a fill may raise."""

thorough = settings(deadline=None, suppress_health_check=list(HealthCheck))


@attrs.frozen
class Question:
    peer: Peer
    symbol: str
    since: int
    until: int
    by_trades: bool


@st.composite
def questions(draw: st.DrawFn, venue: str, longest: int = 700) -> Question:
    """A window anywhere in the last three days, more often at the edges of pages and reaches."""
    peer = Peer(venue, now=Millis(NOON + draw(st.integers(0, 59_999))))
    for knob, values in KNOBS[venue].items():
        setattr(peer.exchange.faults, knob, draw(st.sampled_from(values)))
    edges = st.sampled_from([0, 1, 2, 297, 298, 299, 300, 699, 700, 701, 719, 720, 721, 1430, 1439, 1440, 1441])
    end = draw(st.one_of(edges, st.integers(0, 3 * 1_440)))
    length = draw(st.one_of(st.sampled_from([1, 2, 297, 298, 299, 300, longest]), st.integers(1, longest)))
    until = NOON - end * MINUTE
    symbol = draw(st.sampled_from(SYMBOLS[venue]))
    return Question(peer, symbol, until - min(length, longest) * MINUTE, until, draw(st.booleans()))


# --- a venue in order -------------------------------------------------------------------------------------


@pytest.mark.parametrize("venue", VENUES)
@given(data=st.data())
@thorough
def test_no_page_edge_loses_or_doubles_a_minute(venue, data):
    """All that may stay missing is what comes after the newest trade, and what a bounded search did not reach."""
    question = data.draw(questions(venue))
    peer = question.peer
    for filled in peer.fill_all(question.symbol, question.since, question.until):
        allowed = {Why.NOT_REACHED} if question.symbol == "BTC/USD" else set()
        if venue == "coinbase" or peer.exchange.faults.omit_empty_rows:
            allowed |= {Why.NO_TRADE_AFTER, Why.MAYBE_OLD}
        assert whys(filled) <= allowed
        for part in filled.missing:
            if part.why == Why.NO_TRADE_AFTER:
                trade = peer.market.last_trade_before(venue, question.symbol, NOON * 1000)
                assert part.until > trade.time_us // 1000 - 1_000
            elif part.why == Why.MAYBE_OLD:
                assert part.since >= NOON - 3 * MINUTE


@given(st.integers(0, 10**7), st.integers(0, 10**8), st.integers(1, 2_000))
def test_pages_cover_every_minute_that_a_span_touches_newest_first(begin, length, minutes):
    found = list(pages(Millis(begin), Millis(begin + length), minutes * MINUTE))
    assert all(0 < until - since <= minutes * MINUTE for since, until in found)
    assert all(one[0] == other[1] for one, other in pairwise(found))
    if length:
        assert found[0][1] - MINUTE < begin + length <= found[0][1]
        assert found[-1][0] <= begin < found[-1][0] + MINUTE
    assert all(edge % MINUTE == 0 for span in found for edge in span)


# --- a venue out of order ---------------------------------------------------------------------------------


KINDS = ["short", "empty", "stale", "truncated", "wrong_symbol", "html", "status", "throttle", "busy", "slow"]


@st.composite
def faults(draw: st.DrawFn, venue: str) -> RestFault:
    """Something wrong with an answer, for a while."""
    kind = draw(st.sampled_from(KINDS))
    path = draw(st.sampled_from(["", "rades", "andles", "OHLC"]))
    if kind == "wrong_symbol" and venue != "kraken":
        # Neither says whose candles they are: that the rows next to the window differ shows it to whoever has those.
        path = "/trades"
    seconds = 0.0 if kind == "slow" else draw(st.integers(1, 3_000))
    return RestFault(kind, path, 1 if path == "/trades" else draw(st.integers(1, 3)), 502, seconds)


@pytest.mark.parametrize("venue", VENUES)
@given(data=st.data())
@thorough
def test_nothing_wrong_is_proven_whatever_is_wrong_with_the_answers(venue, data):
    question = data.draw(questions(venue, 300))
    peer = question.peer
    peer.exchange.faults.rest += [data.draw(faults(venue)) for _ in range(data.draw(st.integers(1, 3)))]
    now, series = peer.now, Series(venue, question.symbol)
    if venue == "coinbase":  # where two answers running are of another product, nothing can show it
        strangers = [fault for fault in peer.exchange.faults.rest if fault.kind == "wrong_symbol"]
        for fault in strangers[1:]:
            fault.times = 0
    try:
        peer.fill(question.symbol, question.since, question.until, question.by_trades)
    except NAMED as error:
        if isinstance(error, Refusal) and error.proven is not None:
            peer.judge(error.proven, series, question.since, question.until, now)


HOSTILE = [None, True, "NaN", "Infinity", "", " 1", "1_000", "1e5", "-1", "٣", -1, 2**70, [], {}, "x" * 1_000]
"""What no cell of a row may be; each costs its row or its answer."""


def lists_of(document: object) -> list[list]:
    """The lists of rows in an answer."""
    found = [document] if isinstance(document, list) else []
    if isinstance(document, dict):
        found = [rows for key, value in document.items() if key != "error" for rows in lists_of(value)]
    return [rows for rows in found if rows and isinstance(rows[0], (list, dict))]


def mutate(body: bytes, dice: random.Random) -> bytes:
    """A real body with rows dropped, doubled, shuffled, cut short, or with cells that no venue would write."""
    document = json.loads(body, parse_float=Decimal)
    for rows in lists_of(document):
        for _ in range(dice.choice([1, 1, 2, 20])):
            index = dice.randrange(len(rows))
            row = rows[index]
            match dice.randrange(6):
                case 0 if len(rows) > 1:
                    del rows[index]
                case 1:
                    rows.insert(dice.randrange(len(rows)), row)
                case 2:
                    dice.shuffle(rows)
                case 3 if isinstance(row, list) and row:
                    rows[index] = row[: dice.randrange(len(row))]
                case 4:
                    rows[index] = dice.choice(HOSTILE)
                case _ if isinstance(row, (list, dict)) and row:
                    cell = dice.choice(range(len(row)) if isinstance(row, list) else list(row))
                    rows[index] = [*row] if isinstance(row, list) else {**row}
                    rows[index][cell] = dice.choice(HOSTILE)
    return json.dumps(document, default=lambda number: float(number)).encode()


@pytest.mark.parametrize("venue", VENUES)
@given(data=st.data())
@thorough
def test_no_mutation_of_a_real_answer_becomes_a_wrong_candle(venue, data):
    question, seed = data.draw(questions(venue, 120)), data.draw(st.integers(0, 2**32))
    dice = random.Random(seed)
    sane = data.draw(st.integers(0, 2))

    def spoil(request, answer):
        if len(question.peer.requests) <= sane:
            return answer
        body = mutate(answer.body, dice)
        return attrs.evolve(answer, body=body[: dice.choice([len(body), len(body), dice.randrange(len(body) + 1)])])

    question.peer.spoil = spoil
    with contextlib.suppress(*NAMED):
        question.peer.fill(question.symbol, question.since, question.until, question.by_trades)


# --- no venue at all --------------------------------------------------------------------------------------

SCRAPS = rb"""[ ] { } , : " null true 1 -1 1e999 "1" "NaN" \ud800 "error" "result" "last" "XXBTZUSD" "code" "0" "data"
"message" <html> {"error":[],"result":{"XXBTZUSD":[ ],"last":1}} {"code":"0","msg":"","data":[""".split()  # fmt: skip
keys = st.sampled_from(["error", "result", "last", "code", "data"])
leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["", "x", "1", "0", "NaN"])
values = st.recursive(leaves, lambda inner: st.lists(inner, max_size=9) | st.dictionaries(keys, inner), max_leaves=20)
scraps = st.sampled_from([*SCRAPS, b"\xff"])
bodies = (
    st.binary(max_size=60) | st.lists(scraps, max_size=12).map(b"".join) | values.map(lambda v: json.dumps(v).encode())
)
answers = st.builds(
    Answer,
    st.sampled_from([200, 200, 200, 200, 400, 404, 429, 500]) | st.integers(-1, 1_000),
    bodies,
    st.none() | st.floats(0, 100),
)


@pytest.mark.parametrize("venue", VENUES)
@pytest.mark.parametrize("using", list(Using))
@given(replies=st.lists(answers, min_size=1, max_size=4))
@thorough
def test_no_bytes_raise_anything_unnamed_or_make_a_candle(venue, using, replies):
    history, series = HISTORIES[venue], Series(venue, SYMBOLS[venue][0])
    fill = history.fill(series, Millis(NOON - 90 * MINUTE), Millis(NOON - 30 * MINUTE), NOON, using)
    with contextlib.suppress(*NAMED):
        filled = drive(fill, *replies)
        if filled is not None:
            assert (filled.candles, filled.empties) == ((), ())
            assert (filled.missing[0].since, filled.missing[-1].until) == (NOON - 90 * MINUTE, NOON - 30 * MINUTE)
    for reply in replies:
        with contextlib.suppress(*NAMED):
            assert isinstance(history.read_time(reply), int)
