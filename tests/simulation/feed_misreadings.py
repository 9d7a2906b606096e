"""Faults planted into the change feed: what each gets wrong is in its text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trio_candles.store.feed import DENSE
from trio_candles.store.store import Store, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "counts_a_run_as_one", "forgets_what_was_told", "keeps_revisions_to_itself", "stands_still",
    "tells_before_it_is_so", "tells_what_is_not_complete",
]  # fmt: skip


def _with(store: Store, **methods: Callable[..., Any]) -> Store:
    """*store*, whose journal tells changes by *methods*."""
    for name, method in methods.items():
        setattr(store.journal._changes, name, method)
    return store


def tells_before_it_is_so(store: Store) -> Store:
    """Does not wait for the commit: what a transaction would have told that failed is told all the same."""
    changes, commit = store.journal._changes, store.commit

    def committed(*args: Any) -> Any:
        told: list[Any] = []

        def write() -> None:
            told.extend(changes._rows)
            type(changes).write(changes)

        changes.write = write  # type: ignore[method-assign]
        try:
            return commit(*args)
        except StoreUnavailable:
            changes._rows.extend(told)
            changes._next = told[-1][0] + told[-1][4] if told else None
            raise
        finally:
            del changes.write

    store.commit = committed  # type: ignore[method-assign]
    return store


def forgets_what_was_told(store: Store) -> Store:
    """Changes wait for the next transaction: a crash in between loses them, and not their verdicts."""
    changes = store.journal._changes
    write, waiting = changes.write, []

    def later() -> None:
        rows, changes._rows[:] = [*changes._rows], waiting
        waiting.clear()
        write()
        waiting.extend(rows)

    return _with(store, write=later)


def counts_a_run_as_one(store: Store) -> Store:
    """A run of candles takes one number: the next change has one of its others."""
    changes = store.journal._changes
    tell = changes._tell

    def told(*args: Any, **more: Any) -> None:
        tell(*args, **more)
        changes._next = changes._rows[-1][0] + 1

    return _with(store, _tell=told)


def keeps_revisions_to_itself(store: Store) -> Store:
    """A candle that is replaced is no news."""
    return _with(store, revised=lambda *_: None)


def tells_what_is_not_complete(store: Store) -> Store:
    """Takes every minute of the day before a candle for known."""
    return _with(store, _around=lambda *_: DENSE)


class stands_still:
    """A follower's cursor stays where the last wanted change was."""

    def __init__(self, feed: Any) -> None:
        self.inner = feed
        self.place = feed.place

    def changed(self) -> bool:
        return bool(self.inner.changed())

    def read(self) -> Any:
        found = self.inner.read()
        if found:
            self.place = found[-1].cursor
        return found

    def close(self) -> None:
        self.inner.close()
