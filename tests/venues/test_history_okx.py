"""OKX's REST record: a confirmed row for every minute, on two endpoints."""

from __future__ import annotations

import json

import msgspec
import pytest
from history_peer import NOON, Peer, resume, whys
from recorded import recorded

from trio_candles.candles.model import DAY, MINUTE, Millis, Series
from trio_candles.simulator import FOREVER, RestFault
from trio_candles.venues.history import Answer, Throttled, Unavailable, UnknownSymbol, Why
from trio_candles.venues.okx.history import OkxHistory
from trio_candles.venues.protocol import Misunderstood

CANDLES, HISTORY = "/api/v5/market/candles", "/api/v5/market/history-candles"
INSTRUMENTS = "/api/v5/public/instruments"
SERIES = Series("okx", "BTC-USDT")
PAGE = 298 * MINUTE


def asked(since: int = NOON - 10 * MINUTE, until: int = NOON - 5 * MINUTE, now: int = NOON):
    fill = OkxHistory().fill(SERIES, Millis(since), Millis(until), Millis(now))
    return fill, next(fill)


def rows(*rows: list[str]) -> Answer:
    return Answer(200, msgspec.json.encode({"code": "0", "msg": "", "data": rows}))


def test_a_window_and_a_row_on_either_side_are_one_page():
    peer = Peer("okx")
    filled = peer.fill("BTC-USDT", NOON - PAGE - DAY, NOON - DAY)
    assert not filled.missing
    assert len(peer.requests) == 1
    assert len(filled.candles) == 300
    assert (filled.candles[0].open_time, filled.candles[-1].open_time) == (NOON - DAY - PAGE - MINUTE, NOON - DAY)


def test_a_small_page_shows_minutes_on_both_sides_of_what_is_asked_for():
    """By what is stored of them it is seen which market the page is about: one candle alone may be the odd one."""
    peer = Peer("okx")
    filled = peer.fill("BTC-USDT", NOON - 60 * MINUTE, NOON - 59 * MINUTE)
    times = [candle.open_time for candle in filled.candles]
    assert (times[0], times[-1]) == (NOON - 90 * MINUTE, NOON - 49 * MINUTE)


@pytest.mark.parametrize("minutes", [1, 250, 259, 260, 280, 297, 298])
def test_no_page_asks_for_more_rows_than_there_are_in_one(minutes):
    for until in (NOON - DAY, NOON - MINUTE):
        _, request = asked(since=until - minutes * MINUTE, until=until)
        after, before = int(request.params["after"]), int(request.params["before"])
        assert minutes + 2 <= (after - before - 1) // MINUTE <= 300


@pytest.mark.parametrize(("after", "before"), [(0, 0), (-1, 0), (0, 1), (-1, 1)])
def test_no_minute_is_lost_if_a_bound_is_inclusive_after_all(after, before):
    """The page then begins or ends a row further out; the newest 300 are kept."""
    fill, request = asked(NOON - DAY - PAGE, NOON - DAY)
    until, since = int(request.params["after"]) - after * MINUTE, int(request.params["before"]) - before * MINUTE
    minutes = [m for m in range(until - MINUTE, since - MINUTE, -MINUTE) if since < m < until]
    filled = resume(fill, rows(*([str(m), "1", "1", "1", "1", "1", "1", "1", "1"] for m in minutes[:300])))
    assert not filled.missing


@pytest.mark.parametrize(
    ("age", "paths"),
    [(60 * MINUTE, [CANDLES]), (20 * 60 * MINUTE, [CANDLES]), (30 * 60 * MINUTE, [HISTORY]), (20 * DAY, [HISTORY])],
)
def test_the_endpoint_fits_the_age(age, paths):
    peer = Peer("okx")
    assert not peer.fill("ETH-USDT", NOON - age, NOON - age + 30 * MINUTE).missing
    assert [request.path for request in peer.requests] == paths
    assert [request.bucket for request in peer.requests] == paths


def test_rows_that_one_endpoint_lacks_are_asked_of_the_other():
    peer = Peer("okx")
    peer.exchange.faults.rest.append(RestFault("short", path=CANDLES))
    filled = peer.fill("BTC-USDT", NOON - 100 * MINUTE, NOON - MINUTE)
    assert not filled.missing
    assert [request.path for request in peer.requests] == [CANDLES, HISTORY]
    peer.exchange.faults.rest.append(RestFault("empty", path=HISTORY))
    filled = peer.fill("BTC-USDT", NOON - DAY - 20 * MINUTE, NOON - DAY + 60 * MINUTE)
    assert [request.path for request in peer.requests] == [HISTORY, CANDLES, INSTRUMENTS]
    assert filled.missing[0].since == NOON - DAY - 20 * MINUTE
    assert filled.missing[-1].until < NOON - DAY + 5 * MINUTE


@pytest.mark.parametrize("wrong", [CANDLES, HISTORY])
def test_of_two_answers_that_differ_in_most_minutes_nothing_is_believed(wrong):
    """Neither names its instrument: one is another's, and the minutes that only that one has are, too."""
    peer = Peer("okx")
    faults = peer.exchange.faults
    first = NOON - 100 * MINUTE
    lost = ("BTC-USDT", "ETH-USDT") if wrong == CANDLES else ("BTC-USDT",)
    faults.lose_row = lambda symbol, minute: symbol in lost and minute < first + 10 * MINUTE
    faults.rest.append(RestFault("wrong_symbol", path=wrong))
    filled = peer.fill("BTC-USDT", first, NOON - MINUTE)
    assert [request.path for request in peer.requests][:2] == [CANDLES, HISTORY]
    assert filled.candles == ()
    assert whys(filled) == {Why.ROWS_DIFFER}


def test_a_missing_row_is_a_hole_and_never_empty():
    peer = Peer("okx")
    peer.exchange.faults.rest.append(RestFault("empty", path="candles", times=FOREVER))
    filled = peer.fill("BTC-USDT", NOON - 100 * MINUTE, NOON - MINUTE)
    assert (filled.candles, filled.empties) == ((), ())
    assert whys(filled) == {Why.NO_ROW}


def test_flat_rows_are_candles_as_published():
    peer = Peer("okx")
    filled = peer.fill("DOGE-USDT", NOON - 300 * MINUTE, NOON - MINUTE)
    assert not filled.missing
    assert any(candle.volume == 0 for candle in filled.candles)


def test_a_row_that_is_not_confirmed_or_not_settled_is_not_believed():
    minute, forming = NOON - 8 * MINUTE, NOON
    fill, _ = asked(minute, minute + 2 * MINUTE)
    answer = rows(
        [str(forming), "1", "1", "1", "1", "1", "1", "1", "1"],
        [str(minute + MINUTE), "1", "1", "1", "1", "1", "1", "1", "0"],
        [str(minute), "1", "1", "1", "1", "1", "1", "1", "1"],
    )
    fill.send(answer)
    filled = resume(fill, rows())
    assert [candle.open_time for candle in filled.candles] == [minute]
    assert [(part.since, part.why) for part in filled.missing] == [(minute + MINUTE, Why.NOT_CONFIRMED)]


def test_the_recorded_rows_are_read_exactly():
    body = recorded("rest/okx_candles_1m_swap_20250512.json").read_bytes()
    parsed = json.loads(body)["data"]
    since, until = int(parsed[-1][0]), int(parsed[0][0]) + MINUTE
    fill, _ = asked(since, until, until + 5 * MINUTE)
    filled = resume(fill, Answer(200, body))
    assert not filled.missing
    for candle, row in zip(filled.candles, reversed(parsed), strict=True):
        numbers = (candle.open, candle.high, candle.low, candle.close, candle.volume, candle.quote_volume)
        assert numbers == tuple(map(float, (*row[1:6], row[7])))
        assert candle.vwap == float(row[7]) / float(row[5])
        assert candle.open_time == int(row[0])


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (["2", "1", "1", "1", "1", "1", "1", "1"], "high_below_open"),
        (["1", "1", "1", "1", "-1", "1", "1", "1"], "negative_volume"),
        (["1", "1", "1", "Infinity", "1", "1", "1", "1"], Why.UNREADABLE),
    ],
)
def test_a_bad_row_costs_its_minute(row, why):
    minute = NOON - 8 * MINUTE
    fill, _ = asked(minute, minute + MINUTE)
    filled = resume(fill, *[rows([str(minute), *row])] * 2, rows())
    assert filled.candles == ()
    assert whys(filled) == {why}


def test_a_row_between_two_minutes_is_no_candle():
    minute = NOON - 8 * MINUTE
    fill, _ = asked(minute, minute + MINUTE)
    filled = resume(fill, rows([str(minute + 1), "1", "1", "1", "1", "1", "1", "1", "1"]))
    assert whys(filled) == {"unaligned"}


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Answer(429, b'{"code":"50011","msg":"Too Many Requests","data":[]}', 2.0), Throttled),
        (Answer(200, b'{"code":"50011","msg":"Too Many Requests","data":[]}'), Throttled),
        (Answer(200, b'{"code":"50013","msg":"Systems are busy."}'), Unavailable),
        (Answer(503, b'{"code":"50001"}'), Unavailable),
        (Answer(200, b'{"code":"50001"}'), Unavailable),
        (Answer(500, b'{"code":"50026"}'), Unavailable),
        (Answer(200, b'{"code":"50026"}'), Unavailable),
        (Answer(502, b"<html>"), Unavailable),
        (Answer(200, b"<html>"), Unavailable),
        (Answer(200, b'{"code":"51001","msg":"Instrument ID doesn\'t exist.","data":[]}'), UnknownSymbol),
        (Answer(400, b'{"code":"51000","msg":"Parameter error","data":[]}'), Misunderstood),
        (Answer(404, b'{"code":"404","msg":"Not Found","data":[]}'), Misunderstood),
        (Answer(400, b'{"code":"0","data":[]}'), Misunderstood),
        (Answer(200, b""), Misunderstood),
        (Answer(200, b"[]"), Misunderstood),
        (Answer(200, b'{"code":0,"data":[]}'), Misunderstood),
        (Answer(200, b'{"code":"0","data":{}}'), Misunderstood),
    ],
)
def test_each_refusal_has_its_name(answer, error):
    fill, _ = asked()
    with pytest.raises(error):
        fill.send(answer)


def test_rows_of_2022_prove_nothing():
    peer = Peer("okx")
    peer.exchange.faults.seven_fields = True
    filled = peer.fill("BTC-USDT", NOON - 100 * MINUTE, NOON - MINUTE)
    assert (filled.candles, filled.empties, whys(filled)) == ((), (), {Why.UNREADABLE})
    assert filled.unclear.startswith("bad_shape")


def test_what_the_first_endpoint_said_survives_the_second():
    peer = Peer("okx")
    peer.exchange.faults.rest += [RestFault("short", path=CANDLES), RestFault("throttle", path=HISTORY)]
    with pytest.raises(Throttled) as raised:
        peer.fill("BTC-USDT", NOON - 100 * MINUTE, NOON - MINUTE)
    assert len(raised.value.proven.candles) > 40


def test_the_venues_time_is_read():
    history = OkxHistory()
    assert history.read_time(Answer(200, b'{"code":"0","msg":"","data":[{"ts":"1597026383085"}]}')) == 1_597_026_383_085
    assert history.server_time().bucket in history.rates
    with pytest.raises(Misunderstood):
        history.read_time(Answer(200, b'{"code":"0","msg":"","data":[]}'))
    with pytest.raises(Misunderstood):
        history.read_time(Answer(200, b'{"code":"0","msg":"","data":[{"ts":"x"}]}'))
