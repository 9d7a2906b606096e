"""What the ledger remembers of gaps and revisions. It is shown and not judged, so values of any type are taken."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import attrs

from trio_candles.audit.walk import Selection
from trio_candles.candles.model import Series
from trio_candles.reading.errors import LedgerUnreadable, NoLedger, NoSuchDirectory
from trio_candles.reading.ledger import Ledger, open_ledger
from trio_candles.store.schema import QUARANTINE

__all__ = ["MOST", "Event", "GapRecord", "History", "Revision", "read_history"]

T = TypeVar("T")

MOST = 2000
"""Newest entries of each sort; the rest is counted."""


def _number(value: object) -> int:
    """*value* if it can be a time or a count, else 0: that it is wrong is for the audit to report."""
    return value if isinstance(value, int) and 0 <= value < 1 << 47 else 0


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _candle(noted: object) -> str:
    """A candle of a revision, in JSON, as one line; *noted* as it is if it is no candle."""
    try:
        candle = json.loads(str(noted))
        return "  ".join(f"{name} {value}" for name, value in candle.items() if name != "ingest_time_ms")
    except (ValueError, AttributeError):
        return _text(noted)


@attrs.frozen
class GapRecord:
    """A known gap, with all that the ledger says of it."""

    series: str
    start: int = attrs.field(converter=_number)
    end: int = attrs.field(converter=_number)
    state: str = attrs.field(converter=_text)
    reason: str = attrs.field(converter=_text)
    detail: str = attrs.field(converter=_text)
    first_seen: int = attrs.field(converter=_number)
    attempts: int = attrs.field(converter=_number)
    last_error: str = attrs.field(converter=_text)


@attrs.frozen
class Event:
    """Something that happened to a gap."""

    series: str
    start: int = attrs.field(converter=_number)
    end: int = attrs.field(converter=_number)
    at: int = attrs.field(converter=_number)
    event: str = attrs.field(converter=_text)
    detail: str = attrs.field(converter=_text)


@attrs.frozen
class Revision:
    """Two different closed candles of one minute."""

    series: str
    start: int = attrs.field(converter=_number)
    at: int = attrs.field(converter=_number)
    stored: str = attrs.field(converter=_candle)
    offered: str = attrs.field(converter=_candle)
    outcome: str = attrs.field(converter=_text)


@attrs.define
class History:
    """What the ledger remembers; each list begins with the newest entry."""

    gaps: list[GapRecord] = attrs.field(factory=list)
    events: list[Event] = attrs.field(factory=list)
    revisions: list[Revision] = attrs.field(factory=list)
    quarantined: list[str] = attrs.field(factory=list)
    more: dict[str, int] = attrs.field(factory=dict)
    """How many entries there are beyond those listed, by sort."""
    trouble: str = ""
    """Why the ledger could not be read."""


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

    def newest(sort: str, kind: Callable[..., T], noted: Iterable[Any]) -> list[T]:
        """The first of *noted*, records of the ledger, each as a *kind* of those here, which has the same fields."""
        asked = (one for one in noted if one.account_id in names)
        found = [kind(names[one.account_id], *attrs.astuple(one)[1:]) for one in islice(asked, MOST)]
        history.more[sort] = sum(1 for _ in asked)
        return found

    gaps = [gap for account in accounts for gap in ledger.gaps(account, since, until)]
    history.gaps = newest("gaps", GapRecord, sorted(gaps, key=lambda gap: _number(gap.until), reverse=True))
    history.events = newest("events", Event, ledger.gap_events(since, until))
    revisions = (one for one in ledger.revisions() if since <= _number(one.open_time) < until)
    history.revisions = newest("revisions", Revision, revisions)


def _folder(series: Series) -> str:
    try:
        return series.folder
    except ValueError:
        return series.symbol
