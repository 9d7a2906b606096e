"""The service's clock, and the only place that reads the machine's.

The service's time is ``T + X * (wall clock - T)``: X is the speed, T the pivot. Deadlines are trio's and run at
the same speed, so a simulated hour at speed 60 is a minute of everything: sleeps, timeouts, intervals.
Only ``shutdown.timeout_seconds`` and the floor under network deadlines are wall time.
"""

from __future__ import annotations

import math
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

import attrs
import pyarrow as pa
import pyarrow.parquet as pq
import trio

from trio_candles.model import DAY, Millis
from trio_candles.store.schema import IDENTITY, JOURNAL, QUARANTINE, TMP, identity_in

__all__ = ["ServiceClock", "SimulatedTime", "Time", "WallTime", "remembered_meta", "tool_clock", "tool_time"]


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
        """A clock at *speed* that goes on after *latest_ms* of an older one, as much later as the wall has moved.

        At speed 1 there is only one clock, the wall's; it may lie before *latest_ms*.
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
        """*epoch* plus what trio's clock shows."""
        return Millis(self.epoch + round(trio.current_time() * 1000))

    def at(self, wall: float) -> Millis:
        """The same: a log record made in a simulation is stamped with the simulation's time."""
        return self.now()


class ServiceClock(trio.abc.Clock):
    """Trio's clock at the service's speed: ``trio.sleep(60)`` takes a second at speed 60."""

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._origin = time.perf_counter()

    def start_clock(self) -> None:
        """Begin at zero."""
        self._origin = time.perf_counter()

    def current_time(self) -> float:
        """Service seconds since the start."""
        return (time.perf_counter() - self._origin) * self._speed

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """Wall seconds until *deadline*."""
        return (deadline - self.current_time()) / self._speed


def remembered_meta(data_dir: Path) -> dict[str, str]:
    """What *data_dir* remembers about itself: what its journal says, and for what that does not say (it is lost, or
    was just made anew) ``identity.json``, and as the latest time the newest that its day files prove.
    """
    meta = _meta_in_journal(data_dir)
    with suppress(OSError, ValueError):
        meta = identity_in((data_dir / IDENTITY).read_bytes()) | meta
    if "latest_ms" not in meta:
        newest = _newest_stored(data_dir)
        if newest is not None:
            meta["latest_ms"] = str(newest)
    return meta


def _meta_in_journal(data_dir: Path) -> dict[str, str]:
    path = data_dir / JOURNAL
    if not os.path.isfile(path):  # not path.is_file(): before Python 3.14 a closed directory made it fail
        return {}
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
            found = {str(key): str(value) for key, value in database.execute("SELECT key, value FROM meta")}
    except (sqlite3.Error, UnicodeDecodeError):  # the latter: a broken schema, quoted in SQLite's complaint
        return {}
    return {key: value for key, value in found.items() if key not in _NUMBERS or _is_number(value, _NUMBERS[key])}


_NUMBERS: Mapping[str, type] = MappingProxyType({"seed": int, "speed": float, "pivot": float, "latest_ms": int})


def _is_number(text: str, kind: type) -> bool:
    """Whether *text* is one; SQLite has no checksums, and a flipped bit must not keep a collector from starting."""
    try:
        return math.isfinite(kind(text))
    except (ValueError, OverflowError):
        return False


def _newest_stored(data_dir: Path) -> Millis | None:
    """The end of the newest stored candle; of a day file that cannot be read, its day's first instant."""
    found = [(day, path) for path in _parquet_files(data_dir) if (day := _day_in(path.name)) is not None]
    newest = max((day for day, _ in found), default=None)
    if newest is None:
        return None
    return max(_last_close(path, newest) for day, path in found if day == newest)


def _parquet_files(data_dir: Path) -> Iterator[Path]:
    for venue in _names(data_dir):
        if venue not in (TMP, QUARANTINE):
            for symbol in _names(data_dir / venue):
                for timeframe in _names(data_dir / venue / symbol):
                    folder = data_dir / venue / symbol / timeframe
                    yield from (folder / name for name in _names(folder) if name.endswith(".parquet"))


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _day_in(name: str) -> Millis | None:
    try:
        day = datetime.strptime(name, "%Y-%m-%d.parquet").replace(tzinfo=UTC)
    except ValueError:
        return None
    return Millis(int(day.timestamp()) * 1000)


def _last_close(path: Path, day: Millis) -> Millis:
    """When the last candle in *path*, a file of *day*, ended; the day's first instant if that cannot be read."""
    try:
        content = pa.BufferReader(path.read_bytes())
        table = pq.ParquetFile(content, page_checksum_verification=True).read(["close_time_ms"], use_threads=False)
        closes = table.column("close_time_ms").to_pylist()
    except (OSError, ValueError, LookupError, pa.ArrowException):
        return day
    return Millis(max((close for close in closes if isinstance(close, int) and day < close <= day + DAY), default=day))


def tool_time(data_dir: Path, speed: float | None, pivot: float | None) -> WallTime:
    """The clock by which a tool should read *data_dir*: the one given, else the one it was written under.

    A pivot alone is that of a clock at the speed that the directory remembers.
    """
    if speed is not None:
        return WallTime.starting(speed, pivot)
    meta = remembered_meta(data_dir)
    try:
        time = WallTime(float(meta["speed"]), float(meta["pivot"]))
    except (KeyError, ValueError):
        time = WallTime()
    return time if pivot is None else WallTime(time.speed, pivot)


def tool_clock(data_dir: Path, speed: float | None, pivot: float | None) -> Callable[[], Millis]:
    """What :func:`tool_time` reads."""
    return tool_time(data_dir, speed, pivot).now
