"""What the simulator has to know of a venue: the record that each venue's folder gives, and the two things it makes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable

    from .faults import Faults
    from .instruments import Listing
    from .market import VenueMarket
    from .session import Connection, Session
    from .text import Request, Response


class Rest(Protocol):
    """A venue's REST interface at given moments, in Unix milliseconds."""

    def within_limits(self, request: Request, now_ms: int) -> bool:
        """Whether the request may be answered; what each request weighs is the venue's to know."""

    def throttled(self) -> Response:
        """The answer to a client that asks too often."""

    def overrun(self) -> Response:
        """The same, for the fault "throttle"."""

    def busy(self) -> Response:
        """The answer to everybody when the service is unwell."""

    def misdirect(self, request: Request) -> Request:
        """The same question about another instrument."""

    def answer(self, request: Request, now_ms: int) -> Response:
        """The answer to a request within the limits, 404 included."""


def never_cached(request: Request) -> int:
    """No seconds: every answer is a new one."""
    return 0


@attrs.frozen
class SimulatedVenue:
    """One venue: what it lists, what it sends, what it answers, and whom it lets in.

    A simulated venue has one address for all: WebSockets of every path, and REST of every host that the real venue
    has, as a configured ``rest_url`` stands for all of them.
    """

    #: As in the configuration.
    name: str
    listing: Listing
    #: Makes the session of one connection.
    session: Callable[[Connection], Session]
    #: Makes the REST interface, one for all clients.
    rest: Callable[[VenueMarket, Faults], Rest]
    #: Where WebSockets are accepted; clients are sent to the first.
    websocket_paths: tuple[str, ...]
    #: Connections that may be opened: a second, in the long run.
    connects_per_second: float
    #: And at once.
    connects_burst: float
    #: For how many seconds the cache before the venue's REST repeats the answer to a request; 0: not at all.
    cached_seconds: Callable[[Request], int] = never_cached
