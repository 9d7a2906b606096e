"""Whether the service's clock can be believed: it can once a venue has vouched for it, until it jumps.

::

                 a venue's time is within 30 s of ours
    WAITING ────────────────────────────────────────────► VOUCHED
       ▲                                                     │
       └── the clock jumps, or drifts away, or all venues ───┘
           that were heard in ten minutes say something else

While the clock waits, nothing durable is derived from the time: no first expected minute, no mark, no verdict. What is
heard is kept in order, with trio's time of hearing (:mod:`trio_candles.collector.venue_state`), and judged once the
clock is vouched for, each event at the moment that the clock, right by then, gives it. The clock is never shifted.

Evidence is an interval. A venue that wrote a time into a message wrote the message then, or up to so much later, and
the message came to us later still: so the message says how far the venue's clock is ahead of ours *at least*, and (but
for its time on the way) *at most*. The intervals of one venue meet while our clock does not jump. Where one ends before
another begins, its message was late or came out of a cache, and its end means nothing.

Invariants: every reading of the clock (:meth:`Vouching.now`) is held against trio's clock first, so that nobody derives
anything from a clock that has jumped before that is noticed; and evidence from before a jump vouches for nothing
after the jump.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import attrs
import trio

from trio_candles.candles.model import Millis, printable
from trio_candles.clock import Time
from trio_candles.network.pacing import wall_floor
from trio_candles.network.rest import Rest, open_rest
from trio_candles.network.websocket import Network
from trio_candles.venues.history import History, Refusal, RestUrls
from trio_candles.venues.protocol import Misunderstood
from trio_candles.venues.skew import WORST_MS, TimeAnswer

__all__ = ["Vouching", "keep_asking_time"]

log = logging.getLogger(__name__)

TOLERANCE_MS = 30_000
"""Wall ms by which a venue that vouches may differ from our clock."""
JUMP_SECONDS = 2.0
"""By which trio's clock and the service's may part from one reading to the next: more means that the machine slept, or
that its clock was set. (Over a day the two may well drift so far apart.)"""
REVIEW_SECONDS = 60.0
"""Wall seconds between two reviews of what venues say about our clock; what is wrong is said as often."""
REVIEWS_KEPT = 10
"""Evidence is forgotten after so many reviews: a clock that is set slowly is seen after that time."""
ASK_SECONDS = 600.0
"""Between two questions for a venue's time."""
RETRY_SECONDS = 10.0
"""Until a venue that gave no time is asked again while nobody vouches."""

_INFINITE = float("inf")


@attrs.define
class _Skew:
    """How far one venue's clock is ahead of ours, in ms: from *least* to *most*."""

    least: float = -_INFINITE
    most: float = _INFINITE

    def hear(self, least: float, most: float) -> None:
        """Take in one message's bounds."""
        if least > self.least:
            self.least = least
            if self.most < least:
                self.most = _INFINITE  # the message that said so was late
        if self.least <= most < self.most:
            self.most = most

    def is_within(self, tolerance: float) -> bool:
        """Whether the difference is at most *tolerance*, for sure."""
        return -tolerance <= self.least and self.most <= tolerance

    def is_beyond(self, tolerance: float) -> bool:
        """Whether the difference is more than *tolerance*, for sure."""
        return self.least > tolerance or self.most < -tolerance

    def __str__(self) -> str:
        if self.least > 0 or self.most < 0:
            ours = -self.least if self.least > 0 else -self.most
            return f"our clock differs from the venue's by {ours / 1000:+.1f} s"
        if self.most == _INFINITE:
            return "our clock is not known to be ahead"
        return f"our clock differs by {-self.most / 1000:+.1f} to {-self.least / 1000:+.1f} s"


@attrs.define
class Vouching:
    """The service's clock, and whether a venue has vouched for it; shared by everything that runs in a service.

    Stands wherever a :class:`~trio_candles.clock.Time` is wanted.
    """

    _time: Time
    vouched: bool = False
    """Whether the clock can be believed. Only as good as the last reading: see :meth:`trusted`."""
    last: Millis | None = None
    """The last reading that could be believed."""
    jumps: int = 0
    on_jump: list[Callable[[], object]] = attrs.field(factory=list)
    """Called when the clock has jumped: what a connection holds now may be from before."""
    _ahead: float | None = None
    """Ms by which the clock was ahead of trio's at the last reading."""
    _ahead_vouched: float | None = None
    """The same at the last reading for which a venue vouched."""
    _skews: dict[str, _Skew] = attrs.field(factory=dict)
    _warned: set[str] = attrs.field(factory=set)
    """Venues of which it was said that they differ."""
    _changed: trio.Event = attrs.field(factory=trio.Event)
    _reviews: int = 0

    @property
    def speed(self) -> float:
        """Service seconds per wall second."""
        return self._time.speed

    def now(self) -> Millis:
        """The clock's reading, Unix ms; afterwards :attr:`vouched` says whether the reading can be believed."""
        now, ahead = self._read()
        known = ahead if self._ahead is None else self._ahead
        if self._is_jump(ahead - known):
            now, ahead = self._read()  # the process may have been held up between the two clocks
            if self._is_jump(ahead - known):
                self._jumped(ahead - known)
        self._ahead = ahead
        if self.vouched:
            if self._ahead_vouched is None:
                self._ahead_vouched = ahead
            if abs(ahead - self._ahead_vouched) > self._wall(TOLERANCE_MS):
                self._doubt(f"the clock has drifted by {(ahead - self._ahead_vouched) / 1000:+.1f} s")
            else:
                self.last = now
        return now

    def _read(self) -> tuple[Millis, float]:
        now = self._time.now()
        return now, now - trio.current_time() * 1000

    def _is_jump(self, by: float) -> bool:
        return abs(by) > wall_floor(JUMP_SECONDS, self.speed) * 1000

    def _wall(self, amount: float) -> float:
        """So much on the service's clock as *amount* is on the wall's."""
        return amount * max(1.0, self.speed)

    def trusted(self) -> Millis | None:
        """The clock's reading, Unix ms, if it can be believed; else ``None``."""
        now = self.now()
        return now if self.vouched else None

    async def believed(self) -> None:
        """Return once the clock is vouched for."""
        while not self.vouched:
            await self._changed.wait()

    async def change(self) -> None:
        """Return at the next change between waiting and vouched, or at the next jump."""
        await self._changed.wait()

    # --- evidence

    def hear(self, venue: str, time: Millis, within: float | None, heard: Millis, asked: Millis | None = None) -> None:
        """*venue* wrote the message that came at *heard*, by our clock, at *time*, or at most *within* ms later;
        ``None``: any time later. An answer was not written before it was *asked* for.
        """
        skew = self._skews.setdefault(venue, _Skew())
        most = _INFINITE if within is None else time + within - (heard if asked is None else asked)
        skew.hear(time - heard, most)
        if self.vouched:
            return
        if skew.is_within(self._wall(TOLERANCE_MS)):
            self.vouched, self.last, self._ahead_vouched = True, heard, self._ahead
            self._change()
            log.log(logging.WARNING if self._warned else logging.INFO, "%s vouches for our clock: %s", venue, skew)
            self._reviews = 0
        elif skew.is_beyond(self._wall(TOLERANCE_MS)) and venue not in self._warned:
            self._warned.add(venue)
            log.warning("%s: %s; nothing is collected until a venue vouches for our clock", venue, skew)

    def review(self) -> None:
        """Say what is wrong with the clock; forget old evidence now and then."""
        self._reviews += 1
        if not self.vouched:
            log.warning("our clock is not vouched for, nothing is collected: %s", self.state)
        else:
            self._warn_of_differences()
        if self._reviews % REVIEWS_KEPT:
            return
        if self.vouched:
            if any(skew.is_within(self._wall(TOLERANCE_MS)) for skew in self._skews.values()):
                self._ahead_vouched = self._ahead
            elif any(skew.is_beyond(self._wall(TOLERANCE_MS)) for skew in self._skews.values()):
                self._doubt(f"no venue vouches for our clock any more: {self.state}")
        self._skews.clear()

    def _warn_of_differences(self) -> None:
        for venue, skew in self._skews.items():
            if not skew.is_beyond(self._wall(WORST_MS)):
                self._warned.discard(venue)
            elif venue not in self._warned:
                self._warned.add(venue)
                log.warning("%s: %s", venue, skew)

    @property
    def state(self) -> str:
        """What venues say about our clock, for people."""
        said = [f"{venue}: {skew}" for venue, skew in sorted(self._skews.items())]
        return "; ".join(said) or "no venue has been heard"

    async def watch(self) -> None:
        """Read the clock once a second, so that a jump is noticed also when nothing comes; review; for ever."""
        due = trio.current_time() + self._wall(REVIEW_SECONDS)
        while True:
            await trio.sleep(1.0)
            self.now()
            if trio.current_time() >= due:
                due = trio.current_time() + self._wall(REVIEW_SECONDS)
                self.review()

    def _jumped(self, by: float) -> None:
        self.jumps += 1
        self._doubt(f"the clock jumped by {by / 1000:+.1f} s (suspended, or set); reconnecting")
        for act in self.on_jump:
            act()

    def _doubt(self, why: str) -> None:
        log.error("%s", why)
        self.vouched, self._ahead_vouched, self._reviews = False, None, 0
        self._skews.clear()
        self._warned.clear()
        self._change()

    def _change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


async def keep_asking_time(clock: Vouching, history: History, network: Network, urls: RestUrls) -> None:
    """Ask a venue's REST for its time: at the start, after a jump, and every ten minutes; for ever.

    For a clock that is the wall's: under another one REST's time and the time in HTTP's heads are not the service's.
    """
    async with open_rest(network, urls, history.rates, history.penalty) as rest:
        while True:
            jumps = clock.jumps
            await _ask_time(clock, history, rest)
            # Whoever gave no usable time is asked again soon while nobody vouches.
            with trio.move_on_after(ASK_SECONDS if clock.vouched else RETRY_SECONDS):
                while clock.jumps == jumps:
                    await clock.change()


async def _ask_time(clock: Vouching, history: History, rest: Rest) -> None:
    jumps = clock.jumps
    try:
        answer = await rest.ask(history.server_time())
    except Refusal as error:
        log.info("%s did not tell its time: %s", history.name, printable(str(error)))
        return
    now = clock.now()
    if clock.jumps != jumps:
        return
    asked = Millis(now - round(answer.seconds * 1000))
    try:
        told = TimeAnswer(history.read_time(answer), asked, now)
    except (Refusal, Misunderstood) as error:
        log.info("%s did not tell its time: %s", history.name, printable(str(error)))
        if answer.date is None:
            return
        told = TimeAnswer(answer.date, asked, now)
    clock.hear(history.name, told.venue, told.grain, now, asked)
