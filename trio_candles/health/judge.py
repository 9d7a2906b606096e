"""Facts → verdicts: fresh, stale or missing; healthy, or what is wrong. Pure.

A series is judged by its newest known minute: the newest that is a candle or empty::

    missing     the ledger has no such series, or cannot be read
    stale       no minute is known, or the newest ended more than six minutes ago, or more than one minute ahead
    fresh       else: a quiet market is fresh, for its minutes are known to be empty

The collector is judged by its lock and by what it last wrote about its venues. While it is silent, or not there, no
venue counts as connected. All is *healthy* if there is no problem: a collector holds the lock, every venue is
connected, every configured series, of which there is one at least, is fresh, and the store can write. A backfill that
still runs is no problem. Nothing is remembered from one look to the next: the same facts have the same verdicts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum

import attrs

from trio_candles.candles.model import MINUTE, Millis, Series, utc_text
from trio_candles.health.facts import Reading, SeriesFacts, VenueState

__all__ = ["FRESH", "Health", "Problem", "SeriesVerdict", "State", "Subject", "VenueVerdict", "age_text", "judge"]

FRESH = 6 * MINUTE
"""Ms since the newest known minute ended, up to which a series is fresh."""
AHEAD = MINUTE
"""Ms that a time may lie ahead of our clock, as after a step of the clock; a minute further ahead is not fresh."""
SILENT = 30_000
"""Ms without news from the collector, which publishes every five seconds..."""
SILENT_WALL = 5_000
"""...and ms of the wall clock: a disk may take a second or two, however fast the service's clock."""


class State(StrEnum):
    """The verdict on a series."""

    FRESH = "fresh"
    STALE = "stale"
    MISSING = "missing"


@attrs.frozen
class SeriesVerdict:
    """One series, judged."""

    series: Series
    state: State
    facts: SeriesFacts | None
    now: Millis
    detail: str = ""
    """Why it is not fresh."""
    since: int | None = None
    """Since when it is not fresh, in Unix ms, where that is known."""

    @property
    def known_age(self) -> int | None:
        """Ms since the newest known minute ended."""
        return None if self.facts is None or self.facts.known_until is None else self.now - self.facts.known_until

    @property
    def candle_age(self) -> int | None:
        """Ms since the newest candle closed."""
        if self.facts is None or self.facts.last_candle is None:
            return None
        return self.now - self.facts.last_candle - MINUTE


@attrs.frozen
class VenueVerdict:
    """One venue, judged."""

    venue: str
    connected: bool
    state: VenueState | None
    status: str
    """The status that the collector published, or ours where no collector runs, or it is silent."""
    detail: str = ""


@attrs.frozen
class Subject:
    """What a problem is about: the collector, the journal, a part of the store, a venue, a series."""

    kind: str
    """``collector`` | ``journal`` | ``store`` | ``venue`` | ``series``"""
    venue: str | None = None
    symbol: str | None = None
    part: str | None = None

    def __str__(self) -> str:
        return " ".join(filter(None, (self.venue, self.symbol))) or f"{self.kind} {self.part or ''}".strip()


@attrs.frozen
class Problem:
    """Something that is not well, and since when (Unix ms), where that is known."""

    subject: Subject
    state: str
    """``down`` | ``silent`` | ``unreadable`` | ``cannot_write`` | ``not_connected`` | ``stale`` | ``missing`` |
    ``nothing_configured``"""
    detail: str
    since: int | None = None


@attrs.frozen
class Health:
    """A reading, judged."""

    reading: Reading
    series: tuple[SeriesVerdict, ...]
    venues: tuple[VenueVerdict, ...]
    problems: tuple[Problem, ...]

    @property
    def healthy(self) -> bool:
        """Whether there is no problem."""
        return not self.problems

    @property
    def all_fresh(self) -> bool:
        """Whether there is a series, and every series is fresh."""
        return bool(self.series) and all(one.state is State.FRESH for one in self.series)

    def count(self, state: State) -> int:
        """How many series are in that state."""
        return sum(one.state is state for one in self.series)


def judge(reading: Reading, configured: Sequence[Series], speed: float = 1.0) -> Health:
    """*reading* held against the *configured* series; *speed* is service seconds per wall second."""
    series = tuple(_judge_series(one, reading) for one in configured)
    silence = _silence(reading, speed)
    names = dict.fromkeys(one.venue for one in configured)
    venues = tuple(_judge_venue(name, reading, silence) for name in names)
    return Health(reading, series, venues, tuple(_problems(reading, series, venues, silence)))


def _judge_series(series: Series, reading: Reading) -> SeriesVerdict:
    now, facts = reading.now, reading.series.get(series)
    if facts is None:
        absent = "there is no journal" if reading.directory else "there is no such directory"
        why = reading.trouble or ("the directory does not know it" if reading.exists else absent)
        return SeriesVerdict(series, State.MISSING, None, now, why)
    cause = f" ({facts.cause})" if facts.cause else ""
    if facts.known_until is None:
        return SeriesVerdict(series, State.STALE, facts, now, f"nothing is known of it yet{cause}")
    age = now - facts.known_until
    if age < -AHEAD:
        why = f"its newest minute is {age_text(-age)} ahead of the clock"
        return SeriesVerdict(series, State.STALE, facts, now, why)
    if age > FRESH:
        why = f"its newest known minute ended {age_text(age)} ago{cause}"
        return SeriesVerdict(series, State.STALE, facts, now, why, facts.known_until + FRESH)
    return SeriesVerdict(series, State.FRESH, facts, now)


def _silence(reading: Reading, speed: float) -> str | None:
    """Why the last state that the running collector published is not to be believed; ``None`` if it is."""
    if reading.trouble:
        return reading.trouble
    if not reading.venues:
        return "the collector has said nothing yet"
    at = min(state.at for state in reading.venues.values())
    age = reading.now - at
    if age < -AHEAD:
        return f"the collector's last word is {age_text(-age)} ahead of the clock"
    if age > max(SILENT, SILENT_WALL * speed):
        return f"the collector has said nothing for {age_text(age)}: it hangs, or the journal takes nothing"
    return None


def _judge_venue(name: str, reading: Reading, silence: str | None) -> VenueVerdict:
    state = reading.venues.get(name)
    if not reading.running:
        return VenueVerdict(name, False, state, "[DOWN]", "no collector is running")
    if silence is not None:
        return VenueVerdict(name, False, state, "[SILENT]", silence)
    if state is None:
        return VenueVerdict(name, False, None, "[NONE]", "the running collector was started without it")
    return VenueVerdict(name, state.connected, state, state.status, "" if state.connected else "a connection is down")


def _problems(
    reading: Reading, series: Iterable[SeriesVerdict], venues: Iterable[VenueVerdict], silence: str | None
) -> Iterable[Problem]:
    if reading.trouble is not None:
        yield Problem(Subject("journal"), "unreadable", reading.trouble)
    if not reading.running:
        yield Problem(Subject("collector"), "down", stop_text(reading), reading.stopped_at or reading.latest)
    elif silence is not None and reading.trouble is None:
        yield Problem(Subject("collector"), "silent", silence)
    for part, error in reading.store_errors.items():
        yield Problem(Subject("store", part=part), "cannot_write", f"the {part} cannot be written: {error}")
    for venue in venues:
        if not venue.connected:
            yield Problem(Subject("venue", venue.venue), "not_connected", venue.detail)
    empty = True
    for one in series:
        empty = False
        if one.state is not State.FRESH:
            yield Problem(Subject("series", one.series.venue, one.series.symbol), one.state, one.detail, one.since)
    if empty and reading.trouble is None:
        yield Problem(Subject("series"), "nothing_configured", "no series is configured here")


def stop_text(reading: Reading) -> str:
    """A sentence: that no collector is running, and since when."""
    if reading.running is None:
        return "whether a collector is running cannot be seen: the lock file cannot be opened"
    if reading.stopped_at is not None:
        return f"no collector is running; it stopped at {utc_text(reading.stopped_at)} UTC"
    if reading.latest is not None:
        return f"no collector is running; it was last heard of at {utc_text(reading.latest)} UTC"
    return "no collector is running"


def age_text(length: int | None) -> str:
    """A length of time in ms as people say it, in at most seven characters: ``48s``, ``5m 12s``, ``3h 10m``."""
    if length is None:
        return "-"
    sign, seconds = ("-", -length // 1000) if length <= -1000 else ("", max(0, length) // 1000)
    if seconds < 60:
        return f"{sign}{seconds}s"
    if seconds < 3600:
        return f"{sign}{seconds // 60}m {seconds % 60}s"
    if seconds < 86_400:
        return f"{sign}{seconds // 3600}h {seconds // 60 % 60}m"
    return f"{sign}{seconds // 86_400}d {seconds // 3600 % 24}h"
