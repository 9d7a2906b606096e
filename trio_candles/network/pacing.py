"""When to ask, and when to try again: token buckets, back-off, and the floor under network deadlines.

The numbers are the venues': see :mod:`trio_candles.network`.
"""

from __future__ import annotations

import random

import attrs
import trio

__all__ = ["Backoff", "Budget", "wall_floor"]


def wall_floor(seconds: float, speed: float) -> float:
    """*seconds* of service time, but never less than one wall second: networks do not run faster in simulations."""
    return max(seconds, speed)


class Budget:
    """A token bucket on trio's clock (GCRA): *rate* a second sustained, *burst* at once, never more.

    First come, first served: a turn is booked before it is waited for.
    """

    def __init__(self, rate: float, burst: int, *, empty: bool = False) -> None:
        self._rate, self._burst = rate, burst
        self._full_at = trio.current_time() + burst / rate if empty else float("-inf")
        """When the bucket would be full again."""
        self._slow_rate, self._slow_until = rate, float("-inf")

    @property
    def rate(self) -> float:
        """Turns a second, sustained."""
        return self._rate

    async def take(self, weight: int = 1) -> None:
        """Wait for *weight* turns at once; for more turns than the burst, until the bucket has earned the rest."""
        now = trio.current_time()
        slow = now < self._slow_until
        rate, burst = (self._slow_rate, 1) if slow else (self._rate, self._burst)
        self._full_at = max(self._full_at, now) + weight / rate
        await trio.sleep_until(max(now, self._full_at - burst / rate))

    def punish(self, rate: float, seconds: float) -> None:
        """For *seconds*, grant no bursts and at most *rate* turns a second."""
        self._slow_rate, self._slow_until = min(rate, self._rate), trio.current_time() + seconds

    def pause(self, seconds: float) -> None:
        """Grant no further turn for *seconds*; the bucket is empty then, so that what waits does not come at once."""
        if seconds > 0:
            self._full_at = max(self._full_at, trio.current_time() + seconds + self._burst / self._rate)


@attrs.define
class Backoff:
    """Seconds to wait before each next attempt: doubling from one to sixty, each multiplied by chance."""

    _chance: random.Random
    _step: int = 0

    def reset(self) -> None:
        """Begin with the shortest wait again, as after an attempt that went well."""
        self._step = 0

    def next(self) -> float:
        """The next wait in seconds: between half and the whole of 1, 2, 4, ... 60."""
        whole = min(60.0, 2.0**self._step)
        self._step = min(self._step + 1, 10)
        return whole * self._chance.uniform(0.5, 1.0)
