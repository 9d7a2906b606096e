"""Records of the ledger, as the reader gives them; times are Unix ms.

SQLite checks no types, so a value is what lies in the ledger, whatever its annotation promises.
"""

from __future__ import annotations

import attrs

from trio_candles.candles.model import Millis, Series

__all__ = ["Account", "GapEvent", "GapSpan", "GapTotals", "Revision"]


@attrs.frozen
class Account:
    """A 1m series, and the minutes ``[first, mark)`` that the ledger accounts for; times are Unix ms."""

    id: int
    series: Series
    begin: Millis
    """The first minute that was expected when the series was first configured."""
    mark: Millis
    last_candle: Millis | None
    """The open time of the newest candle."""
    expected: bool
    """Whether the collector's configuration names the series."""
    listed: Millis | None
    """When the venue's market began, where that is known."""

    @property
    def since_listing(self) -> bool:
        """Whether the venue's market began at ``first``: then minutes before are no gap, and count as empty."""
        return self.listed is not None and self.begin <= self.listed <= self.mark

    @property
    def first(self) -> Millis:
        """The first minute that is expected."""
        return self.listed if self.listed is not None and self.since_listing else self.begin


@attrs.frozen
class GapSpan:
    """A gap: minutes ``[since, until)`` that are to be filled, or cannot be."""

    account_id: int
    since: Millis
    until: Millis
    state: str
    """``open`` or ``unfillable``."""
    reason: str
    detail: str
    first_seen: Millis
    attempts: int
    last_error: str | None


@attrs.frozen
class GapTotals:
    """The open gaps of one series, together."""

    count: int
    length: int
    """In ms."""
    oldest: GapSpan
    """The gap that has been known for longest."""


@attrs.frozen
class GapEvent:
    """What happened at ``at`` to the gap ``[since, until)``; times are Unix ms."""

    account_id: int
    since: Millis
    until: Millis
    at: Millis
    event: str
    detail: str


@attrs.frozen
class Revision:
    """Two different closed candles of the minute that opens at ``open_time``."""

    account_id: int
    open_time: Millis
    at: Millis
    """When the second candle was heard."""
    stored: str
    offered: str
    """``stored`` and ``offered`` are candles as JSON."""
    outcome: str
