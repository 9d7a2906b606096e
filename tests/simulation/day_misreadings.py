"""Faults planted into the sealing of days: what each gets wrong is in its text."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING, Any

import attrs

from trio_candles.candles.model import DAY, Millis
from trio_candles.store.accounts import Account
from trio_candles.store.store import Store

if TYPE_CHECKING:
    from simulation.machine import Machine

__all__ = [
    "forget_a_day", "forget_empties", "forgets_digests", "forgets_evidence", "forgets_to_open", "scrubs_nothing",
    "seals_early", "seals_gaps",
]  # fmt: skip


class _Over:
    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


class _SealsGaps(_Over):
    """Takes a minute that is still asked about for one in which nothing traded, once its day is over."""

    def account(self, series: Any, day: Millis, timeframes: Any, now: Millis, **more: Any) -> Account | None:
        known: Account | None = self.inner.account(series, day, timeframes, now, **more)
        entry = self.inner._entries[series]
        if known is not None or now < day + DAY + 3_600_000 or entry.mark < day + DAY:
            return known
        entry.expected = False
        try:
            found: Account | None = self.inner.as_it_stands(series, day, compared=False)
        finally:
            entry.expected = True
        return found


class _SealsEarly(_Over):
    """Seals at midnight, and not an hour later."""

    def due(self, now: Millis, count: int) -> Any:
        return self.inner.due(Millis(now + 3_600_000), count)

    def account(self, series: Any, day: Millis, timeframes: Any, now: Millis, **more: Any) -> Account | None:
        found: Account | None = self.inner.account(series, day, timeframes, Millis(now + DAY), **more)
        return found


class _ForgetsEvidence(_Over):
    """Says what each minute is, and not why."""

    def account(self, *asked: Any, **more: Any) -> Account | None:
        found = self.inner.account(*asked, **more)
        return found and attrs.evolve(found, empty=None if found.empty is None else "")


def _judged_by(judge: Callable[[Any], Any]) -> Callable[[Store], Store]:
    def over(store: Store) -> Store:
        store.journal.sealing = judge(store.journal.sealing)
        return store

    return over


seals_gaps, seals_early, forgets_evidence = map(_judged_by, (_SealsGaps, _SealsEarly, _ForgetsEvidence))


def forgets_to_open(store: Store) -> Store:
    """Leaves a day sealed of which a minute changes."""
    store.journal.sealed.open = lambda *_, **__: None  # type: ignore[method-assign]
    return store


def forgets_digests(store: Store) -> Store:
    """Opens a day, and no longer knows its files."""
    sealed = store.journal.sealed
    opens = sealed._open

    def opened(entry: Any, one: Any) -> None:
        opens(entry, one)
        sealed._db.execute("DELETE FROM day_file WHERE pending IS NULL")

    sealed._open = opened  # type: ignore[method-assign]
    return store


def scrubs_nothing(store: Store) -> Store:
    """Believes that what was sealed stays what it was."""
    store.scrub = lambda *_: (None, 0)  # type: ignore[method-assign]
    return store


def forget_empties(_: Store, machine: Machine) -> None:
    """After a rebuilding believes candles only: empty minutes are gaps."""
    if machine.kept:
        _change(
            machine,
            "INSERT INTO open_day SELECT series_id, day_ms, 0 FROM sealed WHERE true ON CONFLICT DO NOTHING;"
            "DELETE FROM sealed",
        )


def forget_a_day(_: Store, machine: Machine) -> None:
    """Brings up a directory of the format before but for one day."""
    if machine.is_of_today and not machine.sealed:
        _change(machine, "DELETE FROM sealed WHERE rowid IN (SELECT rowid FROM sealed LIMIT 1)")


def _change(machine: Machine, statements: str) -> None:
    with closing(sqlite3.connect(machine.root / "journal.sqlite3")) as database:
        database.executescript(statements)
