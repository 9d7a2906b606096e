"""One venue's work for REST, as the ledger lists it: gaps to fill, and stored candles to compare.

The writer reads the work from the ledger: all of a venue's every few seconds, and after each commit of answers that of
the series in the answers. The gap-filler (:mod:`.gapfill`) and the comparer (:mod:`.confirm`) ask about it.

From the question about a series until the writer has read the ledger after the answer's commit, the series is *busy*,
and nobody asks about it: only then does the ledger know what the answer was worth. So an answer that a disk does not
take yet holds up its own series, and no other.
"""

from __future__ import annotations

from collections.abc import Collection

import attrs
import trio

from trio_candles.candles.model import Finding, Millis, Series
from trio_candles.store.gaps import Due
from trio_candles.store.journal import Journal
from trio_candles.store.revisions import Doubtful, Unconfirmed
from trio_candles.store.samples import Sample
from trio_candles.venues.history import History

__all__ = ["Backlog"]


@attrs.define
class Backlog:
    """The work of one venue; :attr:`history` is what the venue can be asked."""

    history: History
    due: dict[Series, Due] = attrs.field(factory=dict)
    """The page to ask for, of each series with a gap that may be asked about now."""
    doubtful: list[Doubtful] = attrs.field(factory=list)
    unconfirmed: list[Unconfirmed] = attrs.field(factory=list)
    samples: list[Sample] = attrs.field(factory=list)
    """These three are to be compared; each begins with what has been due the longest."""
    busy: set[Series] = attrs.field(factory=set)
    """Series whose gaps were asked about, until the ledger knows of the answer."""
    comparing: set[Series] = attrs.field(factory=set)
    """Series whose stored candles were asked about, until the ledger knows of the answer."""
    refreshed: trio.Event = attrs.field(factory=trio.Event)
    """Set when the ledger has been read the next time."""

    def look(self, journal: Journal, now: Millis) -> None:
        """Read everything that is due by *now* (Unix ms).

        Runs in a thread, as :meth:`look_again` does, beside tasks that read these fields: so each field is replaced as
        a whole, and never changed in place.
        """
        self.due = journal.gaps.due(self.history, now)
        self._look_at_stored(journal, now)

    def look_again(self, journal: Journal, now: Millis, answers: Collection[Finding]) -> None:
        """Read anew the work of the series in *answers*, which have been committed."""
        filled = {one.series for one in answers if not one.comparing}
        others = {series: page for series, page in self.due.items() if series not in filled}
        self.due = others | journal.gaps.due(self.history, now, filled)
        if any(one.comparing for one in answers):
            self._look_at_stored(journal, now)

    def _look_at_stored(self, journal: Journal, now: Millis) -> None:
        self.doubtful = journal.revisions.doubtful(self.history.name, now)
        self.unconfirmed = journal.revisions.unconfirmed(self.history.name, now)
        self.samples = journal.samples.due(self.history.name, now)

    def release(self, answers: Collection[Finding]) -> None:
        """Let the series in *answers* be asked about again, and wake whoever waits for that."""
        self.busy.difference_update(one.series for one in answers if not one.comparing)
        self.comparing.difference_update(one.series for one in answers if one.comparing)
        self.refreshed.set()
        self.refreshed = trio.Event()
