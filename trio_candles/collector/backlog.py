"""What of one venue REST is to be asked about, as the ledger has it: the writer fills it in, the askers read it.

The writer looks at all of a venue every few seconds, and after each commit of answers at the series that they were
about. From the question until that second look a series is *busy*: nobody asks about it before the ledger knows what
the answer was worth. So an answer that a disk does not take yet holds up its own series, and no other.
"""

from __future__ import annotations

from collections.abc import Collection

import attrs
import trio

from trio_candles.candles.model import Finding, Millis, Series
from trio_candles.store.gaps import Due
from trio_candles.store.journal import Journal
from trio_candles.store.revisions import Doubtful, Unconfirmed
from trio_candles.venues.history import History

__all__ = ["Backlog"]


@attrs.define
class Backlog:
    """One venue's."""

    history: History
    due: dict[Series, Due] = attrs.field(factory=dict)
    """Of each series with a gap that may be asked about now, the page to ask for."""
    doubtful: list[Doubtful] = attrs.field(factory=list)
    unconfirmed: list[Unconfirmed] = attrs.field(factory=list)
    """What is to be compared, due the longest first."""
    busy: set[Series] = attrs.field(factory=set)
    """Series whose gaps were asked about, while the ledger does not know of the answer."""
    comparing: set[Series] = attrs.field(factory=set)
    """The same of series that were to be compared."""
    news: trio.Event = attrs.field(factory=trio.Event)
    """Set when the ledger has been looked at next."""

    def look(self, journal: Journal, now: Millis) -> None:
        """Read everything that is due by *now*.

        As :meth:`look_again` called in a thread: what the askers may be reading meanwhile is put in place of, whole.
        """
        self.due = journal.gaps.due(self.history, now)
        self._look_at_stored(journal, now)

    def look_again(self, journal: Journal, now: Millis, answers: Collection[Finding]) -> None:
        """Read anew what *answers*, which have been committed, were about."""
        filled = {one.series for one in answers if not one.comparing}
        others = {series: page for series, page in self.due.items() if series not in filled}
        self.due = others | journal.gaps.due(self.history, now, filled)
        if any(one.comparing for one in answers):
            self._look_at_stored(journal, now)

    def _look_at_stored(self, journal: Journal, now: Millis) -> None:
        self.doubtful = journal.revisions.doubtful(self.history.name, now)
        self.unconfirmed = journal.revisions.unconfirmed(self.history.name, now)

    def release(self, answers: Collection[Finding]) -> None:
        """What *answers* were about may be asked about again, and there is news."""
        self.busy.difference_update(one.series for one in answers if not one.comparing)
        self.comparing.difference_update(one.series for one in answers if one.comparing)
        self.news.set()
        self.news = trio.Event()
