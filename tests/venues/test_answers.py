"""Every documented error has its class: to be waited for, to ask more slowly, or not understood and told."""

from __future__ import annotations

import json

import pytest

from trio_candles.candles.model import MINUTE, Millis, Series
from trio_candles.venues.history import Answer, Throttled, Unavailable, UnknownSymbol
from trio_candles.venues.protocol import Misunderstood
from trio_candles.venues.registry import VENUES

NOON = Millis(1_788_415_200_000)
SYMBOLS = {"coinbase": "BTC-USD", "kraken": "BTC/USD", "okx": "BTC-USDT"}


def refused(venue, answer):
    """The error that *answer* means."""
    fill = VENUES[venue].history.fill(
        Series(venue, SYMBOLS[venue]), Millis(NOON - 60 * MINUTE), Millis(NOON - 10 * MINUTE), NOON
    )
    next(fill)
    with pytest.raises((Throttled, Unavailable, UnknownSymbol, Misunderstood)) as raised:
        fill.send(answer)
    return type(raised.value)


@pytest.mark.parametrize(
    ("error", "name"),
    [
        ("EAPI:Rate limit exceeded", Throttled),
        ("EGeneral:Too many requests", Throttled),
        ("EGeneral:Too many requests:Please slow down", Throttled),
        ("EGeneral:Temporary lockout", Throttled),
        ("EService: Throttled: 1788415260", Throttled),
        ("EService:Unavailable", Unavailable),
        ("EService: Unavailable", Unavailable),
        ("EService:Busy", Unavailable),
        ("EService:Deadline elapsed", Unavailable),
        ("EService:Market in cancel_only mode", Unavailable),
        ("EService:Market in post_only mode", Unavailable),
        ("EGeneral:Internal error", Unavailable),
        ("EGeneral:Internal error:7", Unavailable),
        ("EDatabase:Internal error", Unavailable),
        ("EQuery:Unknown asset pair", UnknownSymbol),
        ("EQuery:Unknown asset", Misunderstood),
        ("EGeneral:Invalid arguments", Misunderstood),
        ("EGeneral:Invalid arguments:Index unavailable", Misunderstood),
        ("EGeneral:Permission denied", Misunderstood),
        ("EGeneral:Unknown method", Misunderstood),
        ("EAPI:Feature disabled", Misunderstood),
        ("EWhat:Ever", Misunderstood),
    ],
)
@pytest.mark.parametrize("result", [{}, {"result": None}, {"result": {}}], ids=["absent", "null", "empty"])
def test_a_kraken_error_has_its_class_with_or_without_a_result(error, name, result):
    """The smallest input: {"error":["EAPI:Rate limit exceeded"],"result":null}."""
    assert refused("kraken", Answer(200, json.dumps({"error": [error], **result}).encode())) is name


def test_a_result_that_is_null_without_an_error_is_not_understood():
    assert refused("kraken", Answer(200, b'{"error":[],"result":null}')) is Misunderstood


@pytest.mark.parametrize(
    ("status", "code", "name"),
    [
        (200, "50011", Throttled),
        (429, "50011", Throttled),
        (200, "50040", Throttled),
        (400, "50040", Throttled),
        (200, "50061", Throttled),
        (429, "50013", Throttled),
        (503, "50001", Unavailable),
        (200, "50001", Unavailable),
        (400, "50004", Unavailable),
        (200, "50004", Unavailable),
        (410, "50005", Unavailable),
        (200, "50005", Unavailable),
        (200, "50013", Unavailable),
        (500, "50026", Unavailable),
        (200, "51001", UnknownSymbol),
        (400, "51001", UnknownSymbol),
        (400, "50014", Misunderstood),
        (400, "50039", Misunderstood),
        (400, "51000", Misunderstood),
        (200, "1", Misunderstood),
        (200, "99999", Misunderstood),
    ],
)
def test_an_okx_code_has_its_class_whatever_the_http_status(status, code, name):
    assert refused("okx", Answer(status, json.dumps({"code": code, "msg": "x", "data": []}).encode())) is name


@pytest.mark.parametrize(
    ("status", "body", "name"),
    [
        (429, {"message": "Public rate limit exceeded"}, Throttled),
        (503, {"message": "Service Unavailable"}, Unavailable),
        (520, {}, Unavailable),
        (404, {"message": "NotFound"}, UnknownSymbol),
        (404, {"message": "Route not found"}, Misunderstood),
        (400, {"message": "Unsupported granularity"}, Misunderstood),
        (400, {"message": "User-Agent header is required."}, Misunderstood),
        (400, {"message": None}, Misunderstood),
    ],
)
def test_a_coinbase_error_has_its_class(status, body, name):
    assert refused("coinbase", Answer(status, json.dumps(body).encode())) is name
