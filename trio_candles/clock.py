"""The service's clock; the only module that reads the machine's clock.

The service's time is ``T + X * (wall clock - T)``: X is the speed, T the pivot. Deadlines are trio's and run at
the same speed, so a simulated hour at speed 60 is a minute of everything: sleeps, timeouts, intervals.
Only ``shutdown.timeout_seconds`` and the floor under network deadlines are wall time.
"""

from __future__ import annotations

import time
from typing import Protocol

import attrs
import trio

from trio_candles.candles.model import Millis

__all__ = ["RELEASED", "ServiceClock", "SimulatedTime", "Time", "WallTime", "stopwatch"]

RELEASED = Millis(1_796_083_200_000)
"""2026-12-01, when this release was made: a wall clock that shows less is wrong."""


def stopwatch() -> float:
    """Wall seconds since no particular moment: for durations before trio runs."""
    return time.monotonic()


class Time(Protocol):
    """What the service asks about time."""

    @property
    def speed(self) -> float:
        """Service seconds per wall second."""
        ...

    def now(self) -> Millis:
        """The service's time, Unix ms UTC."""
        ...


@attrs.frozen
class WallTime:
    """The wall clock, sped up *speed* times around *pivot* (Unix seconds)."""

    speed: float = 1.0
    pivot: float = 0.0

    def now(self) -> Millis:
        """``pivot + speed * (wall - pivot)``."""
        return self.at(time.time())

    def at(self, wall: float) -> Millis:
        """The service's time at the wall time *wall* (Unix seconds), as for a log record made then."""
        if self.speed == 1.0:
            return Millis(int(wall * 1000))
        return Millis(int((self.pivot + self.speed * (wall - self.pivot)) * 1000))

    @classmethod
    def starting(cls, speed: float, pivot: float | None) -> WallTime:
        """A clock with the given pivot, by default this moment."""
        return cls(speed, time.time() if pivot is None else pivot)

    @classmethod
    def continuing(cls, old_speed: float, old_pivot: float, latest_ms: int, speed: float) -> WallTime:
        """A clock at *speed* that continues an older clock, which was stopped when it showed *latest_ms* (Unix ms): it
        begins there, plus the wall time that has passed since.

        At speed 1 the clock is the wall's, and may show a time before *latest_ms*.
        """
        if speed == 1.0:
            return cls(1.0, time.time())
        wall, latest = time.time(), latest_ms / 1000
        stopped_at = old_pivot + (latest - old_pivot) / old_speed
        start = latest + max(0.0, wall - stopped_at)
        # pivot + speed * (wall - pivot) = start, solved for the pivot.
        return cls(speed, (speed * wall - start) / (speed - 1.0))


@attrs.frozen
class SimulatedTime:
    """Time under ``trio.testing.MockClock``: *epoch* plus trio's time."""

    epoch: Millis
    speed: float = 1.0

    def now(self) -> Millis:
        """*epoch* plus trio's current time, in ms."""
        return Millis(self.epoch + round(trio.current_time() * 1000))

    def at(self, wall: float) -> Millis:
        """As :meth:`now`, whatever *wall* is: a log record made in a simulation has the simulation's time."""
        return self.now()


class ServiceClock(trio.abc.Clock):
    """Trio's clock at the service's speed: ``trio.sleep(60)`` takes a second at speed 60."""

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._origin = time.perf_counter()

    def start_clock(self) -> None:
        """Begin at zero; called by trio."""
        self._origin = time.perf_counter()

    def current_time(self) -> float:
        """Service seconds since the start."""
        return (time.perf_counter() - self._origin) * self._speed

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """Wall seconds until *deadline*."""
        return (deadline - self.current_time()) / self._speed
