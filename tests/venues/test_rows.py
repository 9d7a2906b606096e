"""A row that cannot be read costs its minute: not the page's, not the message's, and no neighbour is proven by it."""

from __future__ import annotations

import json
from datetime import datetime

import pytest
import trio
from history_peer import NOON, Peer, in_rows, in_trades, minutes_of, whys

from trio_candles.assembly import FromCountedRows, FromStatedCloses
from trio_candles.candles.model import DAY, MINUTE, Candle, Millis, Reason, Series
from trio_candles.venues.history import ABSENT, Using, Why
from trio_candles.venues.protocol import Row, TradeSeen, Unread
from trio_candles.venues.registry import VENUES

SYMBOLS = {"coinbase": "BTC-USD", "kraken": "BTC/USD", "okx": "BTC-USDT"}
SINCE, UNTIL = NOON - 60 * MINUTE, NOON - 10 * MINUTE
BAD = NOON - 30 * MINUTE


def time_of(row):
    """A row's minute in Unix ms."""
    return int(row[0]) if isinstance(row[0], str) else row[0] * 1000


def spoil_one(field, value):
    """Puts *value* into one field of the row of the minute BAD."""

    def change(rows):
        for row in rows:
            if time_of(row) == BAD:
                row[field] = value

    return change


def known(filled):
    """The minutes that were asked for and are known."""
    empties = set(minutes_of(filled.empties, SINCE, UNTIL))
    return empties | {candle.open_time for candle in filled.candles if SINCE <= candle.open_time < UNTIL}


def by_rows(peer):
    """What the rows alone say."""
    series = Series(peer.venue, SYMBOLS[peer.venue])
    fill = peer.history.fill(series, Millis(SINCE), Millis(UNTIL), peer.now, Using.ROWS)
    return trio.run(peer.run, fill)


ALL = set(range(SINCE, UNTIL, MINUTE))


# --- rows of REST -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("venue", SYMBOLS)
@pytest.mark.parametrize("value", [None, [], "soon", {"a": 1}, True])
def test_one_field_that_cannot_be_read_costs_its_minute_and_no_other(venue, value):
    """The smallest input: one null in one field of one row; other venues' rows come from trades then."""
    peer = Peer(venue, spoil=in_rows(venue, spoil_one(3, value)))
    filled = peer.fill(SYMBOLS[venue], SINCE, UNTIL)
    if venue == "okx":
        assert known(filled) == ALL - {BAD}
        assert whys(filled) == {Why.UNREADABLE}
    else:
        assert known(filled) == ALL  # trades say what the row does not
    assert filled.unclear


@pytest.mark.parametrize("venue", SYMBOLS)
def test_by_rows_alone_the_others_are_known(venue):
    filled = by_rows(Peer(venue, spoil=in_rows(venue, spoil_one(2, None))))
    assert known(filled) == ALL - {BAD}
    assert filled.unclear


@pytest.mark.parametrize("venue", SYMBOLS)
def test_columns_may_be_added(venue):
    def widen(rows):
        for row in rows:
            row += ["0", None, {"new": True}]

    peer = Peer(venue, spoil=in_rows(venue, widen))
    filled = peer.fill(SYMBOLS[venue], SINCE, UNTIL)
    assert known(filled) == ALL
    assert (filled.unclear, len({request.path for request in peer.requests})) == (None, 1)


@pytest.mark.parametrize("venue", SYMBOLS)
def test_a_column_too_few_costs_the_rows_that_have_it_not(venue):
    def shorten(rows):
        for row in rows:
            if time_of(row) == BAD:
                row.pop()

    filled = Peer(venue, spoil=in_rows(venue, shorten)).fill(SYMBOLS[venue], SINCE, UNTIL)
    assert known(filled) | {BAD} == ALL


@pytest.mark.parametrize("value", [None, "", "x", [], {}, True, "NaN", "1e5"])
def test_a_nullable_column_that_cannot_be_read_is_null(value):
    filled = Peer("okx", spoil=in_rows("okx", spoil_one(7, value))).fill("BTC-USDT", SINCE, UNTIL)
    (candle,) = (candle for candle in filled.candles if candle.open_time == BAD)
    assert (candle.quote_volume, candle.vwap) == (None, None)
    assert known(filled) == ALL
    filled = Peer("okx", spoil=in_rows("okx", spoil_one(6, value))).fill("BTC-USDT", SINCE, UNTIL)
    assert (known(filled), filled.unclear) == (ALL, None)
    filled = Peer("kraken", spoil=in_rows("kraken", spoil_one(5, value))).fill("BTC/USD", SINCE, UNTIL)
    (candle,) = (candle for candle in filled.candles if candle.open_time == BAD)
    assert (candle.vwap, known(filled), filled.unclear) == (None, ALL, None)


@pytest.mark.parametrize("venue", SYMBOLS)
@pytest.mark.parametrize("time", [None, "soon", -1, [], 2**70])
def test_a_row_whose_minute_cannot_be_read_makes_no_absence_a_proof(venue, time):
    peer = Peer(venue, spoil=in_rows(venue, spoil_one(0, time)))
    filled = peer.fill(SYMBOLS[venue], SINCE, UNTIL)
    assert known(filled) | {BAD} == ALL
    assert not whys(filled) & ABSENT
    assert filled.unclear


def test_a_row_left_out_beside_a_row_of_an_unknown_minute_may_be_that_row():
    """OKX: the one row is left out, another cannot be placed. Either may be either's: neither is called absent."""

    def change(rows):
        rows[:] = [row for row in rows if time_of(row) != BAD + 5 * MINUTE]
        spoil_one(0, "x")(rows)

    filled = Peer("okx", spoil=in_rows("okx", change)).fill("BTC-USDT", SINCE, UNTIL)
    assert known(filled) == ALL - {BAD, BAD + 5 * MINUTE}
    assert whys(filled) == {Why.UNREADABLE}


def test_a_row_left_out_beside_an_unreadable_row_of_a_known_minute_is_left_out():
    def change(rows):
        rows[:] = [row for row in rows if time_of(row) != BAD + 5 * MINUTE]
        spoil_one(1, None)(rows)

    filled = Peer("okx", spoil=in_rows("okx", change)).fill("BTC-USDT", SINCE, UNTIL)
    assert [(part.since, part.why) for part in filled.missing] == [
        (BAD, Why.UNREADABLE),
        (BAD + 5 * MINUTE, Why.LEFT_OUT),
    ]


@pytest.mark.parametrize("venue", ["coinbase", "kraken"])
def test_a_time_to_come_in_one_row_settles_no_other(venue):
    """A row of the far future is no sign that the venue had settled the minutes before it."""
    now = NOON - 10 * MINUTE + 70_000

    def change(rows):
        rows[:] = [row for row in rows if time_of(row) < UNTIL]
        rows.append([*(rows[0])])
        rows[-1][0] = (NOON + DAY) // 1000

    filled = by_rows(Peer(venue, now=Millis(now), spoil=in_rows(venue, change)))
    assert known(filled) >= ALL - {UNTIL - MINUTE, UNTIL - 2 * MINUTE}
    if venue == "coinbase":  # at Kraken "last" is the minute that the venue has reached
        assert UNTIL - MINUTE not in known(filled)


# --- trades of REST ---------------------------------------------------------------------------------------


def without_row(venue, minute):
    """Leaves out the row of *minute*, so that trades are asked for."""

    def change(rows):
        rows[:] = [row for row in rows if time_of(row) != minute]

    return in_rows(venue, change)


def spoil_trades(venue, field, value, whose):
    """Puts *value* into one field of the trades of which *whose* says so, given their times in Unix ms."""

    def change(trades):
        for trade in trades:
            time = trade[2] * 1000 if venue == "kraken" else coinbase_time(trade["time"])
            if whose(time):
                trade[field] = value

    return in_trades(venue, change)


def coinbase_time(text):
    return datetime.fromisoformat(text).timestamp() * 1000


PRICE = {"coinbase": "price", "kraken": 0}
ID = {"coinbase": "trade_id", "kraken": 6}
TIME = {"coinbase": "time", "kraken": 2}


def both(one, other):
    return lambda request, answer: other(request, one(request, answer))


@pytest.mark.parametrize("field", [PRICE, ID, TIME], ids=["price", "id", "time"])
@pytest.mark.parametrize("venue", PRICE)
def test_a_trade_that_cannot_be_read_is_a_hole_that_nobody_calls_absent(venue, field):
    """The minute's row is left out, and one of its trades cannot be read: unknown, and never unfillable."""
    fulls = Peer(venue).fill(SYMBOLS[venue], SINCE, UNTIL).candles
    traded = next(candle.open_time for candle in fulls if candle.open_time >= BAD)
    seen = set()

    def first(time):
        if traded <= time < traded + MINUTE:
            seen.add(time)
            return time == min(seen)
        return False

    spoil = both(without_row(venue, traded), spoil_trades(venue, field[venue], None, first))
    filled = Peer(venue, spoil=spoil).fill(SYMBOLS[venue], SINCE, UNTIL)
    assert seen
    assert known(filled) == ALL - {traded}
    assert not whys(filled) & ABSENT
    assert filled.unclear


@pytest.mark.parametrize("venue", PRICE)
def test_the_other_trades_of_a_page_count(venue):
    """Another minute's trade cannot be read; the minute without a row is built from the trades around it."""
    fulls = Peer(venue).fill(SYMBOLS[venue], SINCE, UNTIL).candles
    traded = [candle.open_time for candle in fulls if SINCE <= candle.open_time < UNTIL]
    one, other = traded[-8], traded[-2]

    def whose(time):
        return one <= time < one + MINUTE

    spoil = both(without_row(venue, other), spoil_trades(venue, PRICE[venue], None, whose))
    filled = Peer(venue, spoil=spoil).fill(SYMBOLS[venue], SINCE, UNTIL)
    assert other in known(filled)
    (candle,) = (candle for candle in filled.candles if candle.open_time == other)
    assert candle.trades_count


def test_a_page_begins_where_it_was_asked_for_although_its_first_id_cannot_be_read():
    """Coinbase: pages are joined by ids; a page whose first id is unreadable joins all the same."""

    def change(trades):
        if len(trades) > 1:
            trades[0]["trade_id"] = None

    spoil = both(without_row("coinbase", BAD), in_trades("coinbase", change))
    filled = Peer("coinbase", spoil=spoil).fill("BTC-USD", SINCE, UNTIL)
    assert not any(why.startswith("cursor_ignored") for why in whys(filled))
    assert known(filled) | {BAD} == ALL


# --- messages of a feed -----------------------------------------------------------------------------------

KRAKEN, OKX = VENUES["kraken"].feed, VENUES["okx"].feed
BEGUN = "2026-09-10T17:{:02}:00.000000000Z"


def ohlc_row(minute, **changed):
    begun = BEGUN.format(minute)
    return {
        "symbol": "BTC/USD", "open": 2, "high": 3, "low": 1, "close": 2, "trades": 5, "volume": 1, "vwap": 2.5,
        "interval_begin": begun, "interval": 1, **changed,
    }  # fmt: skip


def trade_row(minute, second, id, **changed):
    time = f"2026-09-10T17:{minute:02}:{second:02}.5Z"
    return {"symbol": "BTC/USD", "trade_id": id, "timestamp": time, **changed}


def read(venue, channel, *rows):
    if venue is KRAKEN:
        return venue.read(json.dumps({"channel": channel, "type": "update", "data": rows}))
    return venue.read(json.dumps({"arg": {"channel": channel, "instId": "BTC-USDT"}, "data": rows}))


@pytest.mark.parametrize("field", ["open", "high", "low", "close", "volume", "trades", "interval"])
@pytest.mark.parametrize("value", [None, "1", [], {}])
def test_a_row_of_a_message_that_cannot_be_read_leaves_the_others(field, value):
    events = read(KRAKEN, "ohlc", ohlc_row(44), ohlc_row(45, **{field: value}), ohlc_row(46, symbol="ETH/USD"))
    assert [type(event) for event in events] == [Row, Unread, Row]
    assert (events[1].symbol, events[1].minute) == ("BTC/USD", events[0].open_time + MINUTE)
    assert events[2].symbol == "ETH/USD"


@pytest.mark.parametrize("value", [None, "x", [], True])
def test_a_vwap_that_cannot_be_read_is_null(value):
    (event,) = read(KRAKEN, "ohlc", ohlc_row(44, vwap=value))
    assert event.vwap is None


def test_a_row_whose_minute_or_symbol_cannot_be_read_is_reported():
    for spoiled in (ohlc_row(45, interval_begin=5), ohlc_row(45, interval_begin="soon")):
        _, event = read(KRAKEN, "ohlc", ohlc_row(44), spoiled)
        assert (event.symbol, event.minute) == ("BTC/USD", None)
    for spoiled in (ohlc_row(45, symbol=None), None, [], 5):
        _, event = read(KRAKEN, "ohlc", ohlc_row(44), spoiled)
        assert (event.symbol, event.minute) == ("", None)


@pytest.mark.parametrize("spoiled", [{"trade_id": None}, {"trade_id": "8"}, {"trade_id": 0}, {"trade_id": -1}])
def test_a_trade_of_a_message_that_cannot_be_read_leaves_the_others(spoiled):
    events = read(KRAKEN, "trade", trade_row(44, 1, 7), trade_row(44, 2, 8, **spoiled), trade_row(44, 3, 9))
    assert [type(event) for event in events] == [TradeSeen, Unread, TradeSeen]
    assert (events[1].symbol, events[1].minute) == ("BTC/USD", Millis(events[0].time // MINUTE * MINUTE))


OKX_ROW = ["1788415200000", "2", "3", "1", "2", "5", "10", "10", "1"]


@pytest.mark.parametrize("index", [1, 2, 3, 4, 5, 8])
@pytest.mark.parametrize("value", [None, 5, "x", []])
def test_one_of_two_okx_rows_that_cannot_be_read_leaves_the_other(index, value):
    bad = ["1788415260000", *OKX_ROW[1:]]
    bad[index] = value
    row, event = read(OKX, "candle1m", OKX_ROW, bad)
    assert (row.open_time, type(event)) == (1788415200000, Unread)
    assert (event.symbol, event.minute) == ("BTC-USDT", 1788415260000)


def test_okx_columns_may_be_added_and_nullable_ones_be_null():
    (row,) = read(OKX, "candle1m", [*OKX_ROW, "new", None])
    assert (row.close, row.quote_volume, row.vwap) == (2, 10, 2)
    (row,) = read(OKX, "candle1m", [*OKX_ROW[:6], None, None, "1"])
    assert (row.close, row.quote_volume, row.vwap) == (2, None, None)


def test_an_unreadable_row_proves_nothing_and_is_the_reason_why():
    """The message's other row is a candle; the minute of the unreadable one is a gap whose reason says so."""
    assembler = FromStatedCloses(Series("okx", "BTC-USDT"), Millis(1788415200000))
    assembler.connected(Millis(1788415200000))
    now = Millis(1788415260000 + 70_000)
    outcomes = []
    for event in read(OKX, "candle1m", OKX_ROW, ["1788415260000", None, *OKX_ROW[2:]]):
        if isinstance(event, Unread):
            assembler.unread(event, now)
        else:
            outcomes += assembler.hear(event, now)
    outcomes += assembler.due(now)
    candle, unsure = outcomes
    assert isinstance(candle, Candle)
    assert (unsure.since, unsure.until, unsure.reason) == (1788415260000, 1788415320000, Reason.REJECTED)
    assert unsure.detail == "unreadable row: bad_shape"


def test_a_count_that_cannot_be_read_proves_no_minute():
    """Kraken: the newest state of a row is unreadable, so the state before it counts too few trades for the ids."""
    begun = read(KRAKEN, "ohlc", ohlc_row(44))[0].open_time
    assembler = FromCountedRows(Series("kraken", "BTC/USD"), begun)
    assembler.connected(begun)
    now = Millis(begun + 3 * MINUTE)
    events = [
        *read(KRAKEN, "trade", trade_row(43, 50, 7)),
        *read(KRAKEN, "ohlc", ohlc_row(44, trades=5), ohlc_row(44, trades=None)),
        *read(KRAKEN, "trade", trade_row(44, 5, 8), trade_row(45, 1, 14)),
    ]
    outcomes = []
    for event in events:
        if isinstance(event, Unread):
            assembler.unread(event, now)
        else:
            outcomes += assembler.hear(event, now)
    assert outcomes == []
    (unsure,) = [one for one in assembler.due(now) if one.since == begun]
    assert unsure.reason is Reason.REJECTED
