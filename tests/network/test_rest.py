"""What a request says of itself arrives: its method, body and host; and its weight is what it costs of the budget."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import httpx
import pytest
import trio

from trio_candles.network.rest import Rest, open_rest
from trio_candles.network.websocket import Network
from trio_candles.venues.history import Penalty, Rate, Request, RestUrls
from trio_candles.venues.registry import VENUES

HOSTS: RestUrls = {None: "https://api.venue.test", "futures": "https://futures.venue.test/v2"}
RATES = {"all": Rate(per_second=2.0, burst=4, empty_at_start=False)}
PENALTY = Penalty(Rate(per_second=0.5, burst=1), seconds=60.0)
ASKED = Request("/candles", {"symbol": "BTC-USD"}, "all")


@attrs.define
class Answering(httpx.AsyncBaseTransport):
    """Answers everything at once, and keeps what it was asked, and when on trio's clock."""

    requests: list[tuple[float, httpx.Request]] = attrs.field(factory=list)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        self.requests.append((trio.current_time(), request))
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
