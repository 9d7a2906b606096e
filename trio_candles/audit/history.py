"""What the ledger remembers of gaps and revisions: not judged, only shown, so every value is taken as text."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs

from trio_candles.audit.walk import Selection
from trio_candles.candles.model import canonical_symbol
from trio_candles.store.schema import JOURNAL, QUARANTINE
from trio_candles.store.snapshot import open_snapshot

__all__ = ["MOST", "Event", "GapStory", "History", "Revision", "read_history"]

MOST = 2000
"""Newest entries of each sort; the rest is counted."""


@attrs.frozen
class GapStory:
    """A known gap, with all that the ledger says of it."""

    series: str
    start: int
    end: int
    state: str
    reason: str
    detail: str
    first_seen: int
    attempts: int
    last_error: str


@attrs.frozen
class Event:
    """Something that became of a gap."""

    at: int
    series: str
    start: int
    end: int
    event: str
    detail: str


@attrs.frozen
class Revision:
    """Two closed candles of one minute."""

    at: int
    series: str
    start: int
    stored: str
    offered: str
    outcome: str


@attrs.define
class History:
    """The newest of each first."""

    gaps: list[GapStory] = attrs.field(factory=list)
    events: list[Event] = attrs.field(factory=list)
    revisions: list[Revision] = attrs.field(factory=list)
    quarantined: list[str] = attrs.field(factory=list)
    more: dict[str, int] = attrs.field(factory=dict)
    """How many there are beyond those, by sort."""
    trouble: str = ""
    """Why the ledger could not be read."""


_SERIES = "SELECT id, venue, symbol FROM series WHERE timeframe = '1m'"
_GAPS = """
SELECT series_id, since_ms, until_ms, state, reason, detail, first_seen_ms, attempts, last_error FROM gap
WHERE {of} AND since_ms < :until AND until_ms > :since ORDER BY until_ms DESC
"""
_EVENTS = """
SELECT series_id, since_ms, until_ms, at_ms, event, detail FROM gap_event
WHERE {of} AND since_ms < :until AND until_ms > :since ORDER BY at_ms DESC, until_ms DESC
"""
_REVISIONS = """
SELECT series_id, open_ms, at_ms, stored, offered, outcome FROM revision
WHERE {of} AND open_ms < :until AND open_ms >= :since ORDER BY at_ms DESC, id DESC
"""


def read_history(data_dir: Path, selection: Selection) -> History:
    """Read what is remembered of *selection*; a ledger that cannot be read is told in ``trouble``."""
    history = History()
    folder = data_dir / QUARANTINE
    if folder.is_dir():
        history.quarantined = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    if (data_dir / JOURNAL).exists():
        try:
            with open_snapshot(data_dir / JOURNAL) as database:
                _read(database, selection, history)
        except (sqlite3.Error, OSError) as error:
            history.trouble = str(error)
    return history


def _read(database: sqlite3.Connection, selection: Selection, history: History) -> None:
    names = {
        id_: f"{venue} {symbol}"
        for id_, venue, symbol in database.execute(_SERIES)
        if selection.takes(str(venue), _folder(str(symbol)))
    }

    def rows(sort: str, query: str) -> Iterator[Sequence[object]]:
        # The ids are integers of our own reading: they cannot carry SQL.
        of = f"series_id IN ({', '.join(str(int(id_)) for id_ in names)})"
        asked = {"since": selection.since, "until": selection.until}
        found = database.execute(query.format(of=of), asked)
        yield from found.fetchmany(MOST)
        history.more[sort] = sum(1 for _ in found)

    for id_, since, until, state, reason, detail, seen, attempts, error in rows("gaps", _GAPS):
        story = (_text(state), _text(reason), _text(detail), _number(seen), _number(attempts), _text(error))
        history.gaps.append(GapStory(names[_number(id_)], _number(since), _number(until), *story))
    for id_, since, until, at, event, detail in rows("events", _EVENTS):
        span = (_number(since), _number(until))
        history.events.append(Event(_number(at), names[_number(id_)], *span, _text(event), _text(detail)))
    for id_, minute, at, stored, offered, outcome in rows("revisions", _REVISIONS):
        both = (_candle(stored), _candle(offered))
        history.revisions.append(Revision(_number(at), names[_number(id_)], _number(minute), *both, _text(outcome)))


def _folder(symbol: str) -> str:
    try:
        return canonical_symbol(symbol)
    except ValueError:
        return symbol


def _number(value: object) -> int:
    """*value* if it is one that can be a time or a count, else 0: what is wrong with it, the audit says."""
    return value if isinstance(value, int) and 0 <= value < 1 << 47 else 0


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _candle(told: object) -> str:
    """A candle of the revisions in one line; as it is, if it is not one."""
    try:
        candle = json.loads(str(told))
        return "  ".join(f"{name} {value}" for name, value in candle.items() if name != "ingest_time_ms")
    except (ValueError, AttributeError):
        return _text(told)
