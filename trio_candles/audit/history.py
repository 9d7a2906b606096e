"""What the ledger remembers of gaps and revisions: not judged, only shown, so every value is taken as text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TypeVar

import attrs

from trio_candles.audit.walk import Selection
from trio_candles.candles.model import Series
from trio_candles.reading.errors import LedgerUnreadable, NoLedger, NoSuchDirectory
from trio_candles.reading.ledger import Ledger, open_ledger
from trio_candles.store.schema import QUARANTINE

__all__ = ["MOST", "Event", "GapStory", "History", "Revision", "read_history"]

T = TypeVar("T")

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

    def newest(self, sort: str, entries: Iterable[T]) -> Iterator[T]:
        """The first :data:`MOST` of *entries*; the rest is counted."""
        rest = iter(entries)
        yield from islice(rest, MOST)
        self.more[sort] = sum(1 for _ in rest)


def read_history(data_dir: Path, selection: Selection) -> History:
    """Read what is remembered of *selection*; why a ledger cannot be read is in ``trouble``."""
    history = History()
    folder = data_dir / QUARANTINE
    if folder.is_dir():
        history.quarantined = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    try:
        with open_ledger(data_dir) as ledger:
            _read(ledger, selection, history)
    except (NoSuchDirectory, NoLedger):
        pass  # nothing is remembered
    except LedgerUnreadable as error:
        history.trouble = error.why
    return history


def _read(ledger: Ledger, selection: Selection, history: History) -> None:
    accounts = [one for one in ledger.accounts() if selection.takes(one.series.venue, _folder(one.series))]
    names = {account.id: f"{account.series.venue} {account.series.symbol}" for account in accounts}
    since, until = selection.since, selection.until
    gaps = [gap for account in accounts for gap in ledger.gaps(account, since, until)]
    gaps.sort(key=lambda gap: _number(gap.until), reverse=True)
    for gap in history.newest("gaps", gaps):
        story = GapStory(
            names[gap.account_id], _number(gap.since), _number(gap.until), _text(gap.state), _text(gap.reason),
            _text(gap.detail), _number(gap.first_seen), _number(gap.attempts), _text(gap.last_error),
        )  # fmt: skip
        history.gaps.append(story)
    events = (event for event in ledger.gap_events(since, until) if event.account_id in names)
    for one in history.newest("events", events):
        event = Event(
            _number(one.at), names[one.account_id], _number(one.since), _number(one.until), _text(one.event),
            _text(one.detail),
        )  # fmt: skip
        history.events.append(event)
    revisions = (one for one in ledger.revisions() if one.account_id in names)
    within = (one for one in revisions if since <= _number(one.open_time) < until)
    for noted in history.newest("revisions", within):
        revision = Revision(
            _number(noted.at), names[noted.account_id], _number(noted.open_time), _candle(noted.stored),
            _candle(noted.offered), _text(noted.outcome),
        )  # fmt: skip
        history.revisions.append(revision)


def _folder(series: Series) -> str:
    try:
        return series.folder
    except ValueError:
        return series.symbol


def _number(value: object) -> int:
    """*value* if it is one that can be a time or a count, else 0: what is wrong with it, the audit says."""
    return value if isinstance(value, int) and 0 <= value < 1 << 47 else 0


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _candle(noted: object) -> str:
    """A candle of the revisions in one line; as it is, if it is not one."""
    try:
        candle = json.loads(str(noted))
        return "  ".join(f"{name} {value}" for name, value in candle.items() if name != "ingest_time_ms")
    except (ValueError, AttributeError):
        return _text(noted)
