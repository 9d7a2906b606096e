"""One venue as preflight meets it: where it is, how it is asked, how much time there is, what was found."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from urllib.parse import urlsplit

import attrs
import trio

from trio_candles.clock import Time
from trio_candles.config.load import VenueConfig
from trio_candles.network.websocket import Network
from trio_candles.preflight.checks import Checks
from trio_candles.venues.history import History, RestUrls, Throttled, Unavailable
from trio_candles.venues.protocol import FeedProtocol, Misunderstood, VenueError
from trio_candles.venues.venue import Venue

__all__ = ["LookUp", "Pace", "Visit", "host_of", "look_up_host"]

LookUp = Callable[[str], Awaitable[Sequence[str]]]
"""The addresses of a host; OSError if there are none."""

TOTAL_SECONDS = 22.0
"""For all questions: of the contract's 30 seconds, the rest is for the start, and for closing towards deaf peers."""
LEAST_WALL_SECONDS = 10.0
"""Wall seconds for everything, at least, however fast the service's clock: requests are paced by the wall."""
NAME_SECONDS = 6.0

_REMEDIES: dict[type[VenueError], str] = {
    Throttled: "wait some minutes; other programs on this address share the venue's limits",
    Unavailable: "see the venue's status page; check firewall, proxy and rest_url; then run preflight again",
    Misunderstood: "the venue's interface may have changed: look for a newer version before you start",
}


@attrs.frozen
class Pace:
    """How long things may take, on the service's clock."""

    speed: float

    @property
    def stretch(self) -> float:
        """Service seconds for each second that a constant of this package names."""
        most = TOTAL_SECONDS * self.speed  # all of TOTAL_SECONDS, on the wall clock
        return min(most, max(TOTAL_SECONDS, LEAST_WALL_SECONDS * self.speed)) / TOTAL_SECONDS

    def seconds(self, seconds: float) -> float:
        """*seconds*, stretched."""
        return seconds * self.stretch

    def wall_text(self, seconds: float) -> str:
        """*seconds* of the service as text, in the wall seconds that people have waited."""
        wall = seconds / self.speed
        return f"{wall:.1f} s" if wall >= 1 else f"{wall * 1000:.0f} ms"


@attrs.frozen
class Visit:
    """What the checks of one venue share."""

    settings: VenueConfig
    venue: Venue
    network: Network
    look_up: LookUp
    time: Time
    pace: Pace
    deadline: float
    """On trio's clock: a check that is not finished by then has failed, and its detail says so."""
    checks: Checks

    @property
    def feed(self) -> FeedProtocol:
        """The protocol of the venue's feed."""
        return self.venue.feed

    @property
    def history(self) -> History:
        """The venue's REST record."""
        return self.venue.history

    @property
    def websocket_url(self) -> str:
        """The configured endpoint, or the venue's own."""
        return self.settings.websocket_url or self.feed.websocket_url

    @property
    def rest_urls(self) -> RestUrls:
        """The configured endpoint for every host, or the venue's own."""
        return self.venue.rest_urls(self.settings.rest_url)

    @contextmanager
    def step(self, name: str, seconds: float, symbol: str | None = None) -> Iterator[None]:
        """Run the block as the check *name*, which fails on a VenueError, or if it takes longer than *seconds*,
        stretched.
        """
        began = trio.current_time()
        with trio.move_on_at(min(self.deadline, began + self.pace.seconds(seconds))) as scope:
            try:
                yield
            except VenueError as error:
                self.checks.failed(name, str(error), _remedy(error), symbol=symbol)
        if scope.cancelled_caught:
            waited = self.pace.wall_text(trio.current_time() - began)
            self.checks.failed(name, f"not finished after {waited}", _REMEDIES[Unavailable], symbol=symbol)


def _remedy(error: VenueError) -> str:
    return next((remedy for kind, remedy in _REMEDIES.items() if isinstance(error, kind)), _REMEDIES[Unavailable])


def host_of(url: str) -> str:
    """The host in *url*."""
    return urlsplit(url).hostname or ""


async def look_up_host(visit: Visit, url: str) -> bool:
    """Whether the host in *url* has an address; adds the check "dns", whatever the answer."""
    host, found = host_of(url), False
    remedy = "check the network, the DNS server and the spelling of the endpoint"
    with visit.step("dns", NAME_SECONDS):
        try:
            addresses = await visit.look_up(host)
        except (OSError, UnicodeError) as error:
            visit.checks.failed("dns", f"{host}: {error}", remedy)
        else:
            found = bool(addresses)
            others = f" and {len(addresses) - 1} more" if len(addresses) > 1 else ""
            if found:
                visit.checks.passed("dns", f"{host} is {addresses[0]}{others}")
            else:
                visit.checks.failed("dns", f"{host} has no address", remedy)
    return found
