"""The document of :func:`.explain.explain`: everything known of one minute.

Times are Unix ms on the service's clock.
"""

from __future__ import annotations

from enum import StrEnum

import attrs

from trio_candles.candles.documents import CandleDocument, EmptyDocument

__all__ = [
    "Collector",
    "Comparison",
    "Day",
    "DayFile",
    "EmptySpan",
    "Explanation",
    "Gap",
    "GapEntry",
    "Question",
    "RevisionEntry",
    "Statement",
    "Verdict",
]


class Verdict(StrEnum):
    """What a minute is."""

    CANDLE = "candle"
    EMPTY = "empty"
    GAP = "gap"
    UNFILLABLE = "unfillable"
    UNACCOUNTED = "unaccounted"
    """There is no verdict yet."""
    NOT_EXPECTED = "not_expected"
    """No verdict is due: before the first expected minute, or after the last."""
    DAMAGED = "damaged"
    """The ledger and the day files, or two places in the ledger, contradict each other: nothing is believed."""


@attrs.frozen(kw_only=True)
class Collector:
    """Who decides about the minute, as far as that can be seen."""

    running: bool | None
    """Null if it cannot be seen whether a collector holds the directory."""
    stopped_at_ms: int | None
    """When it stopped in good order, if it did."""
    expects_series: bool
    """Whether the collector's configuration names the series."""
    accounted_until_ms: int
    """Every minute of the series from the first expected one up to here has a verdict."""
    clock_waits: str | None
    """Why the running collector does not believe its clock; until it does, no minute gets a verdict."""
    venue_status: str | None
    """As in the status table; null if the collector has published nothing of the venue."""
    published_at_ms: int | None


@attrs.frozen(kw_only=True)
class Gap:
    """The gap that has the minute."""

    start_ms: int
    end_ms: int
    reason: str
    detail: str
    first_seen_ms: int
    attempts: int
    """How often REST was asked in vain."""
    last_error: str | None
    """What the last answer came to; of an unfillable gap, both observations."""


@attrs.frozen(kw_only=True)
class EmptySpan:
    """The span without trades that has the minute."""

    start_ms: int
    end_ms: int
    evidence: str


@attrs.frozen(kw_only=True)
class Statement:
    """Something that was heard of the minute."""

    at_ms: int
    """When it was received."""
    by: str
    """``feed`` | ``rest``"""
    what: str
    """``candle`` | ``absent`` | ``first_row``"""
    candle: CandleDocument | None
    detail: str
    """Of an absence: what the answer was."""


@attrs.frozen(kw_only=True)
class RevisionEntry:
    """Two different values of the minute."""

    at_ms: int
    """When the second one was noted."""
    stored: CandleDocument | EmptyDocument
    """What was stored then."""
    offered: CandleDocument
    outcome: str
    """``open`` | ``kept`` | ``replaced``"""


@attrs.frozen(kw_only=True)
class GapEntry:
    """What happened to a gap that had the minute; the history is kept for 90 days, and has only what outlasted five
    minutes.
    """

    at_ms: int
    event: str
    """``opened`` | ``stored`` | ``empty`` | ``absent`` | ``first_row`` | ``unfillable`` | ``unlisted``"""
    start_ms: int
    end_ms: int
    detail: str


@attrs.frozen(kw_only=True)
class Day:
    """The UTC day of the minute."""

    name: str
    state: str
    """``open`` | ``sealed`` | ``none``: nothing is accounted for"""
    sealing_looked_at_ms: int | None
    """Of an open day: whether it can be sealed is looked at again from then on."""


@attrs.frozen(kw_only=True)
class Comparison:
    """Whether the minute was compared with the venue's REST record."""

    state: str
    """``compared`` | ``not_yet`` | ``not_compared`` (sealed without) | ``from_rest`` | ``unknown`` | ``none``"""
    mark_ms: int | None
    """Live candles that open earlier were compared, or are out of REST's reach."""


@attrs.frozen(kw_only=True)
class DayFile:
    """The day file that has the minute, or is to have it."""

    path: str
    """Below the data directory."""
    exists: bool
    digest: str | None
    """The ledger's; null while the file has no row yet."""
    pending_digest: str | None
    """Of a replacement under way: until it is done either one is valid."""
    found_digest: str | None
    """The file's own."""
    matches: bool | None
    """Null where there is nothing to compare."""
    row_in: str | None
    """``file`` | ``journal``: where the candle is read from; null where there is none."""


@attrs.frozen(kw_only=True)
class Question:
    """Something that REST is to be asked about the minute."""

    about: str
    """``gap`` | ``comparison`` | ``revision`` | ``sample``"""
    not_before_ms: int | None
    """0: as soon as may be; null where the journal's version does not say."""
    attempts: int
    """In vain, so far."""


@attrs.frozen(kw_only=True)
class Explanation:
    """Everything known of one minute of one series."""

    known: bool
    """Whether the minute is a candle or empty."""
    checked_at_ms: int
    data_dir: str
    venue: str
    symbol: str
    timeframe: str
    open_time_ms: int
    close_time_ms: int
    verdict: Verdict
    reason: str | None
    """Why there is no candle: the gap's reason; ``not_ended``, ``not_yet``; ``before_first``, ``unlisted``,
    ``not_configured``; ``contradiction``, ``day_file``. Null of a candle and of an empty minute."""
    evidence: str
    """The verdict's grounds, in words."""
    grade: str | None
    """What makes the venue's live minutes certain; null for a venue that this version does not know."""
    collector: Collector
    candle: CandleDocument | None
    """What is stored."""
    empty: EmptySpan | None
    gap: Gap | None
    said: tuple[Statement, ...]
    """What was heard of the minute, as far as it is kept, oldest first."""
    revisions: tuple[RevisionEntry, ...]
    """Kept for 90 days after they were settled; oldest first."""
    gap_history: tuple[GapEntry, ...]
    """Oldest first."""
    day: Day
    comparison: Comparison
    file: DayFile
    asked_next: tuple[Question, ...]
    """What REST is to be asked, while the collector runs and fills gaps."""
    would_change: tuple[str, ...]
    """What would change the verdict, in words."""
