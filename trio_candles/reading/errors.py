"""Why a data directory could not be read as asked.

::

    ReadError
    ├── NoSuchDirectory    there is no such directory
    ├── LedgerUnreadable   the ledger cannot be read, or it contradicts itself
    │   ├── NoLedger        there is no ledger in the directory
    │   └── UnknownFormat   its tables are of a format that this version does not know
    ├── UnknownSeries      the ledger does not know the series
    ├── DayFileDamaged     a day file is not the file that the ledger knows
    ├── GapError           minutes of the range are not known
    ├── CursorExpired      what came right after the cursor is not kept any more
    └── CursorUnknown      the cursor is of another history

Arguments that make no sense (an unknown column, a naive datetime) are ``ValueError``, those of another type (a list as
a symbol) ``TypeError``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import attrs

from trio_candles.candles.model import MINUTE, Millis, Series, utc_text

__all__ = [
    "CursorError",
    "CursorExpired",
    "CursorUnknown",
    "DayFileDamaged",
    "GapError",
    "LedgerUnreadable",
    "NoLedger",
    "NoSuchDirectory",
    "ReadError",
    "UnknownFormat",
    "UnknownMinutes",
    "UnknownSeries",
    "check_texts",
    "senseless_values",
]


def check_texts(**arguments: object) -> None:
    """``TypeError`` unless each of *arguments* is a text."""
    for name, value in arguments.items():
        if not isinstance(value, str):
            raise TypeError(f"{name} is {value!r}; expected a text")


@contextmanager
def senseless_values() -> Iterator[None]:
    """Around what reads the ledger: a value of a type that its column should not hold, of which SQLite checks none, is
    the ledger's fault, :class:`LedgerUnreadable`.
    """
    try:
        yield
    except (TypeError, ValueError, LookupError, OverflowError) as error:
        raise LedgerUnreadable(f"a value in the ledger makes no sense ({error}); run the audit") from error


SHOWN = 5
"""Gaps that a message lists; the rest are counted."""


class ReadError(Exception):
    """A data directory could not be read as asked."""


class NoSuchDirectory(ReadError):
    """There is no such data directory."""


class LedgerUnreadable(ReadError):
    """The journal is missing, of another version, broken, or contradicts itself or the day files."""

    def __init__(self, why: str, path: Path | None = None) -> None:
        super().__init__(why if path is None else f"{path}: {why}")
        self.why = why
        """The message without the path."""


class NoLedger(LedgerUnreadable):
    """There is no journal in the directory."""


class UnknownFormat(LedgerUnreadable):
    """The journal's tables are of a format that this version does not know."""

    def __init__(self, found: str | None, known: str) -> None:
        super().__init__(f"the journal's format is {found}; this version knows {known}")
        self.found, self.known = found, known


class UnknownSeries(ReadError):
    """The ledger does not know the series; the message names the nearest of those that it knows."""


class DayFileDamaged(ReadError):
    """A day file is missing, unreadable, or has neither the current nor the pending digest of the ledger; none of its
    rows was used.
    """

    def __init__(self, path: str, why: str) -> None:
        super().__init__(path, why)
        self.path = path
        """Below the data directory."""

    def __str__(self) -> str:
        return ": ".join(self.args)


@attrs.frozen
class UnknownMinutes:
    """Minutes ``[since, until)``, Unix ms, of which nobody knows what traded."""

    since: Millis
    until: Millis
    state: str
    """``gap``, ``unfillable``, or ``unaccounted``: outside what the ledger has accounted for."""
    reason: str
    """The ledger's reason for the gap; of unaccounted minutes ``not_yet`` or ``before_first``."""
    detail: str = ""
    attempts: int = 0

    @property
    def minutes(self) -> int:
        """How many minutes they are."""
        return (self.until - self.since) // MINUTE

    def __str__(self) -> str:
        end = utc_text(self.until)[:16]
        if utc_text(self.since)[:10] == end[:10]:
            end = end[11:]
        words = {"gap": self.reason, "unaccounted": _UNACCOUNTED.get(self.reason, self.reason)}
        what = words.get(self.state, f"{self.state}: {self.reason}")
        return f"{utc_text(self.since)[:16]} to {end} ({self.minutes:,} min, {what})"


_UNACCOUNTED = {"not_yet": "not accounted for yet", "before_first": "before the first expected minute"}


class GapError(ReadError):
    """Minutes of the range are not known; nothing was returned."""

    def __init__(self, series: Series, gaps: Sequence[UnknownMinutes]) -> None:
        super().__init__(series, tuple(gaps))
        self.series = series
        self.gaps = tuple(gaps)
        """Oldest first."""

    @property
    def minutes(self) -> int:
        """How many minutes are not known."""
        return sum(gap.minutes for gap in self.gaps)

    def __str__(self) -> str:
        shown = [str(gap) for gap in self.gaps[:SHOWN]]
        if len(self.gaps) > SHOWN:
            shown.append(f"and {len(self.gaps) - SHOWN} more")
        return f"{self.series}: {self.minutes:,} minutes are not known: {'; '.join(shown)}"


class CursorError(ReadError):
    """The change feed cannot go on from a cursor; nothing was delivered past it."""

    def __init__(self, cursor: str, oldest: str, newest: str) -> None:
        super().__init__(cursor, oldest, newest)
        self.cursor = cursor
        self.oldest = oldest
        """The cursor from which everything that is kept is delivered."""
        self.newest = newest
        """The cursor from which what comes from now on is delivered."""


class CursorExpired(CursorError):
    """The cursor is older than what is kept of the feed (``feed.retention_hours``, ``feed.max_changes``)."""

    def __str__(self) -> str:
        return (
            f"the cursor {self.cursor} is older than what is kept of the change feed. Read the state anew with"
            f" snapshot() and go on from its cursor; kept is what came after {self.oldest}, the newest is {self.newest}"
        )


class CursorUnknown(CursorError):
    """The cursor is of another history: of a rebuilt journal, of one put back from a copy, of another directory."""

    def __str__(self) -> str:
        return (
            f"the cursor {self.cursor} is not of this journal, which is another directory's, was rebuilt, or was put"
            " back from a copy. Read the state anew with snapshot() and go on from its cursor; the oldest one here is"
            f" {self.oldest}, the newest {self.newest}"
        )
