"""Whether a collector lives: ``check --alive``, for whoever restarts what hangs. What it costs does not grow.

A collector publishes its state every five seconds, once its writer has gone round. A venue's outage, a gap or a stale
series is none of the question: a restart mends nothing of it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import attrs

from trio_candles.candles.model import Millis
from trio_candles.health.judge import AHEAD, SILENT, SILENT_WALL, age_text
from trio_candles.health.reading import read_published

__all__ = ["AliveDocument", "look_alive"]


@attrs.frozen(kw_only=True)
class AliveDocument:
    """What ``check --alive --json`` prints."""

    ok: bool
    """Whether the collector published its state within 30 s, and has not stopped since."""
    checked_at_ms: int
    data_dir: str
    published_at_ms: int | None
    """When it last did; null if it never has."""
    published_age_seconds: float | None
    stopped_at_ms: int | None
    """When it stopped in good order, if it did."""
    detail: str
    """What was found, in words."""


def look_alive(data_dir: Path, now: Callable[[], Millis], speed: float) -> AliveDocument:
    """Whether the collector of *data_dir* lives, by the clock *now*, which runs *speed* times as fast as the wall's."""
    found = read_published(data_dir, now)
    age = None if found.at is None else found.now - found.at
    alive = False
    if found.trouble:
        detail = found.trouble
    elif age is None:
        detail = "no collector has published its state there"
    elif found.stopped_at is not None:
        detail = f"the collector stopped {age_text(found.now - found.stopped_at)} ago"
    elif age < -AHEAD:
        detail = f"the state was published {age_text(-age)} ahead of the clock"
    else:
        alive = age <= max(SILENT, SILENT_WALL * speed)
        detail = f"the collector published its state {age_text(age)} ago"
    return AliveDocument(
        ok=alive,
        checked_at_ms=found.now,
        data_dir=str(data_dir),
        published_at_ms=found.at,
        published_age_seconds=None if age is None else age / 1000,
        stopped_at_ms=found.stopped_at,
        detail=detail,
    )
