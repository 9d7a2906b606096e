"""What the ledger says, as the audit keeps it: of each series an account of its minutes, of each day file a digest.

Filled by :mod:`trio_candles.audit.ledger`, judged by the others.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import pyarrow as pa

from trio_candles.audit.bits import LATEST, days_of
from trio_candles.audit.report import KnownGap, Violation
from trio_candles.audit.sealed import SealedDay
from trio_candles.candles.model import MINUTE, Series, Timeframe
from trio_candles.store.schema import JOURNAL, TIMEFRAMES

__all__ = ["Account", "Ledger"]


@attrs.define
class Account:
    """What the ledger says of one 1m series. Minutes are bits by day (:mod:`trio_candles.audit.bits`)."""

    series: Series
    first: int
    mark: int
    expected: bool
    happened: int = LATEST
    """The end of the newest minute that has happened: a clock that was ahead may have left gaps and empty minutes that
    have not, which say nothing. A mark may be later."""
    open_gap: dict[int, int] = attrs.field(factory=dict)
    unfillable: dict[int, int] = attrs.field(factory=dict)
    empty: dict[int, int] = attrs.field(factory=dict)
    underived: dict[int, int] = attrs.field(factory=dict)
    """Minutes whose aggregates are to follow at a flush."""
    listed: int = 0
    """When the market began: no minute before is expected, and aggregates count such minutes as empty."""
    journal: dict[int, pa.Table] = attrs.field(factory=dict)
    """Day -> accepted candles that are in no day file yet, shaped as a day file's rows."""
    replaced: dict[int, Sequence[float]] = attrs.field(factory=dict)
    """Minute -> open, high, low, close and volume that it is on record to have now, whatever the day file has."""
    sealed: dict[int, SealedDay] = attrs.field(factory=dict)
    """The sealed days that can be read. Their gaps and empty minutes are among those above, too."""
    astray: dict[int, int] = attrs.field(factory=dict)
    """Minutes of sealed days of which there are rows in the tables ``gap`` or ``empty`` nevertheless."""

    def end(self, running: bool, now: int) -> int:
        """The end of what must be accounted for: the mark, as far as it has happened; beside a collector at least the
        time two minutes ago.
        """
        end = max(self.first, min(self.mark, self.happened))
        if not (running and self.expected):
            return end
        return max(end, min(now, LATEST) // MINUTE * MINUTE - 2 * MINUTE)

    def days(self, end: int) -> set[int]:
        """Every day up to *end* that this account covers, and every other of which it holds anything."""
        noted = (self.open_gap, self.unfillable, self.empty, self.journal, self.sealed)
        return {*days_of(self.first, end), *(day for by_day in noted for day in by_day)}


@attrs.define
class Ledger:
    """One reading of the whole data base."""

    exists: bool = True
    usable: bool = False
    """Whether the day files can be held against it."""
    accounts: dict[tuple[str, str], Account] = attrs.field(factory=dict)
    """By venue and folder."""
    files: dict[str, tuple[str | None, str | None]] = attrs.field(factory=dict)
    """Path -> digest and pending digest; not of what only the row of a sealed day names, see :meth:`digests`."""
    gaps: list[KnownGap] = attrs.field(factory=list)
    meta: dict[str, str] = attrs.field(factory=dict)
    problems: list[Violation] = attrs.field(factory=list)

    def digests(
        self, account: Account | None, day: int, timeframe: str, path: str
    ) -> tuple[str | None, str | None] | None:
        """Digest and pending digest of a day file; ``None`` where the ledger lists no such file."""
        found = self.files.get(path)
        sealed = None if account is None else account.sealed.get(day)
        if sealed is None:
            return found
        digest = sealed.digests.get(timeframe)
        if found is None:
            return None if digest is None else (digest, None)
        return digest if found[0] is None else found[0], found[1]

    def blame(
        self, detail: str, series: Series | None = None, start: int | None = None, end: int | None = None
    ) -> None:
        """Note that the ledger is corrupt."""
        where = {} if series is None else dict(venue=series.venue, symbol=series.symbol, timeframe=series.timeframe)
        self.problems.append(Violation("ledger_corrupt", JOURNAL, detail, **where, start_ms=start, end_ms=end))

    @property
    def timeframes(self) -> tuple[str, ...]:
        """The higher timeframes that the collector derives."""
        names = self.meta.get(TIMEFRAMES, "").split(",")
        return tuple(name for name in names if _is_timeframe(name) and name != "1m")

    @property
    def stopped_at(self) -> int | None:
        """When the last collector stopped; after a crash, how far it had accounted."""
        stopped = self.meta.get("stopped_at_ms", "")
        if stopped.isascii() and stopped.isdigit():
            return int(stopped)
        return max((account.end(False, 0) for account in self.accounts.values()), default=None)


def _is_timeframe(name: str) -> bool:
    try:
        Timeframe.parse(name)
    except ValueError:
        return False
    return True
