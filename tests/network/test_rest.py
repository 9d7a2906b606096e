"""What a request says of itself arrives: its method, body and host; and its weight is what it costs of the budget."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import attrs
import httpx
import pytest
import trio

from trio_candles.network.rest import Rest, converse, open_rest
from trio_candles.network.websocket import Network
from trio_candles.venues.history import Fill, Penalty, Rate, Request, RestUrls, Throttled, Unavailable, judge_status
from trio_candles.venues.registry import VENUES

HOSTS: RestUrls = {None: "https://api.venue.test", "futures": "https://futures.venue.test/v2"}
RATES = {"all": Rate(per_second=2.0, burst=4, empty_at_start=False)}
PENALTY = Penalty(Rate(per_second=0.5, burst=1), seconds=60.0)
ASKED = Request("/candles", {"symbol": "BTC-USD"}, "all")


@attrs.define
class Answering(httpx.AsyncBaseTransport):
    """Answers everything at once, and keeps what it was asked, and when on trio's clock."""

    headers: Mapping[str, str] | None = None
    """If given, every question is refused, with *status* and these headers."""
    status: int = 429
    requests: list[tuple[float, httpx.Request]] = attrs.field(factory=list)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        self.requests.append((trio.current_time(), request))
        if self.headers is not None:
            return httpx.Response(self.status, headers=self.headers)
        return httpx.Response(200, content=b"[]")


async def no_dial(url: str) -> trio.abc.Stream:
    raise AssertionError(f"dialled {url}")


@asynccontextmanager
async def asking(urls: RestUrls = HOSTS) -> AsyncIterator[tuple[Rest, Answering]]:
    venue = Answering()
    async with open_rest(Network(no_dial, transport=venue), urls, RATES, PENALTY) as rest:
        yield rest, venue


async def heard(request: Request, urls: RestUrls = HOSTS) -> httpx.Request:
    """What arrives of *request*."""
    async with asking(urls) as (rest, venue):
        await rest.ask(request)
    ((_, arrived),) = venue.requests
    return arrived


async def test_a_request_that_says_nothing_of_it_is_a_get_without_a_body_to_the_main_host(autojump_clock):
    arrived = await heard(ASKED)
    assert (arrived.method, str(arrived.url)) == ("GET", "https://api.venue.test/candles?symbol=BTC-USD")
    assert arrived.content == b""
    assert "content-type" not in arrived.headers
    assert arrived.headers["accept-encoding"] == "identity"


async def test_a_body_arrives_as_it_is_and_is_called_json(autojump_clock):
    body = b'{"type":"candleSnapshot","req":{"coin":"BTC"}}'
    arrived = await heard(Request("/info", {}, "all", method="POST", body=body))
    assert (arrived.method, str(arrived.url)) == ("POST", "https://api.venue.test/info")
    assert arrived.content == body
    assert arrived.headers["content-type"] == "application/json"


async def test_a_request_goes_to_the_host_that_it_names(autojump_clock):
    arrived = await heard(attrs.evolve(ASKED, host="futures"))
    assert str(arrived.url) == "https://futures.venue.test/v2/candles?symbol=BTC-USD"


async def test_a_host_that_the_venue_does_not_have_is_a_bug_and_not_a_venue_that_is_unwell(autojump_clock):
    with pytest.raises(KeyError):
        await heard(attrs.evolve(ASKED, host="options"))


async def test_a_heavy_request_takes_as_many_turns_as_it_weighs(autojump_clock):
    """Four turns are there at once, two more come each second."""
    async with asking() as (rest, venue):
        for weight in (3, 1, 1, 6, 1):
            await rest.ask(attrs.evolve(ASKED, weight=weight))
    assert [moment for moment, _ in venue.requests] == [0.0, 0.0, 0.5, 3.5, 4.0]


async def test_all_hosts_share_one_budget(autojump_clock):
    async with asking() as (rest, venue):
        for host in (None, "futures") * 3:
            await rest.ask(attrs.evolve(ASKED, host=host))
    assert [moment for moment, _ in venue.requests] == [0.0, 0.0, 0.0, 0.0, 0.5, 1.0]


async def test_a_configured_address_stands_for_every_host_of_a_venue(autojump_clock):
    """Else a run on loopback addresses would ask the real venue on its other hosts."""

    class TwoHosts(type(VENUES["okx"].history)):
        rest_urls = HOSTS

    venue = attrs.evolve(VENUES["okx"], history=TwoHosts())
    assert venue.rest_urls(None) == HOSTS
    for host in HOSTS:
        arrived = await heard(attrs.evolve(ASKED, host=host), venue.rest_urls("http://127.0.0.1:8080"))
        assert str(arrived.url) == "http://127.0.0.1:8080/candles?symbol=BTC-USD"


# --- how long a venue wants to be left alone ----------------------------------------------------------------


def once() -> Fill:
    """A conversation of one question."""
    judge_status((yield ASKED))
    raise AssertionError("it was to be refused")


async def silence_after(error: Throttled | None = None, status: int = 429, **headers: str) -> float:
    """Seconds until the second question leaves, after the first was refused with *headers*, or with *error*."""
    venue = Answering({name.replace("_", "-"): value for name, value in headers.items()}, status=status)
    async with open_rest(Network(no_dial, transport=venue), HOSTS, RATES, PENALTY) as rest:
        if error is not None:
            rest.refused(error)
            await rest.ask(ASKED)
            return venue.requests[0][0]
        with pytest.raises(Throttled if status == 429 else Unavailable):
            await converse(rest, once())
        await rest.ask(ASKED)
    (first, _), (second, _) = venue.requests
    return second - first


def warnings(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_venue_that_wants_eleven_days_of_silence_gets_an_hour_of_it_and_we_say_so(autojump_clock, caplog):
    assert 3_600 <= await silence_after(retry_after="999999") <= 3_602
    (said,) = warnings(caplog)
    assert all(part in said for part in ("api.venue.test", "999999 s", "3600 s"))


@pytest.mark.parametrize(
    "headers",
    [
        {"retry_after": "9" * 400},
        {"retry_after": "Wed, 26 Aug 2026 12:00:00 GMT", "date": "Wed, 19 Aug 2026 12:00:00 GMT"},
    ],
)
async def test_no_form_of_the_header_buys_more_than_an_hour(autojump_clock, caplog, headers):
    assert 3_600 <= await silence_after(**headers) <= 3_602
    assert len(warnings(caplog)) == 1


async def test_a_time_within_a_body_buys_no_more_than_an_hour_either(autojump_clock, caplog):
    """As in ``EService: Throttled: 9999999999``, which the venue's own reader turns into seconds."""
    error = Throttled("EService: Throttled: 9999999999", 8_218_000_000.0)
    assert 3_600 <= await silence_after(error) <= 3_602
    assert "EService: Throttled: 9999999999" in warnings(caplog)[0]


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry_after": "30"}, 30),
        ({"retry_after": "3600"}, 3_600),
        ({"retry_after": "Wed, 19 Aug 2026 12:01:00 GMT", "date": "Wed, 19 Aug 2026 12:00:00 GMT"}, 60),
        ({"retry_after": "Wed, 19 Aug 2026 12:00:00 GMT", "date": "Wed, 19 Aug 2026 12:01:00 GMT"}, 0),
        ({"retry_after": "Wed, 19 Aug 2026 12:01:00 GMT"}, 0),
        ({"retry_after": "-5"}, 0),
        ({"retry_after": "nan"}, 0),
        ({"retry_after": "inf"}, 0),
        ({"retry_after": ""}, 0),
        ({}, 0),
    ],
)
async def test_what_a_venue_asks_for_within_the_hour_it_gets_without_a_word(autojump_clock, caplog, headers, seconds):
    """After the pause questions go at the penalty's rate, one in two seconds; what is no time is no pause."""
    assert seconds <= await silence_after(**headers) <= seconds + 2
    assert warnings(caplog) == []


@pytest.mark.parametrize(("asked", "seconds"), [("30", 30), ("999999", 3_600), ("", 0)])
async def test_a_venue_that_is_not_well_is_left_alone_for_as_long_as_it_says(autojump_clock, caplog, asked, seconds):
    """For an hour at most, and then we say so; a wait that is not named is none."""
    assert seconds <= await silence_after(status=503, retry_after=asked) <= seconds + (2.5 if seconds else 0)
    assert len(warnings(caplog)) == (seconds == 3_600)


async def test_a_pause_is_no_penalty_and_ends_none(autojump_clock):
    async with asking() as (rest, venue):
        rest.refused(Throttled("too fast"))
        rest.refused(Unavailable("busy", 10.0))
        for _ in range(3):
            await rest.ask(ASKED)
        slow = [moment for moment, _ in venue.requests]
        await trio.sleep(600)
        rest.refused(Unavailable("busy", 10.0))
        at = trio.current_time()
        for _ in range(3):
            await rest.ask(ASKED)
    assert slow[0] >= 10
    assert slow[2] - slow[0] == 2 / PENALTY.rate.per_second
    assert [moment - at for moment, _ in venue.requests[3:]] == [10.5, 11.0, 11.5]
