"""What is to be read, decided from one reading of the ledger: the range, what of it is not known, what is empty.

A *period* is a candle's span, of one minute or more. It is known if each of its minutes is stored or empty, and has
a row if it is known and one of them is stored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import attrs
import pyarrow as pa

from trio_candles.candles.intervals import Interval, clip, length, periods, union
from trio_candles.candles.model import DAY, MINUTE, Millis, Series, Timeframe, floor_to
from trio_candles.reading.errors import UnknownMinutes
from trio_candles.reading.files import Digests, waiting_table
from trio_candles.reading.ledger import Account, GapSpan, Ledger

__all__ = ["Plan", "Request", "plan"]

SETTLED_AFTER = 5 * MINUTE
"""Ms within which the collector promises to prove a minute: see :func:`_known_until`."""


@attrs.frozen
class Request:
    """What somebody wants to read."""

    venue: str
    symbol: str
    timeframe: Timeframe
    since: Millis | None
    """``None`` for the first expected minute."""
    until: Millis | None
    """``None`` for the newest minute that is accounted for."""
    fill: bool = False
    to_the_mark: bool = False
    """Whether "the newest minute" is the last one before the mark, even if minutes shortly before it are unproven."""


@attrs.frozen
class Plan:
    """Everything that the ledger has about a request, at one moment. Times are Unix ms."""

    account: Account
    timeframe: Timeframe
    since: int
    until: int
    """``[since, until)`` are whole periods."""
    reach: int
    """Where reading begins: at ``since``, or for filling at the last period before it that may have a row."""
    unknown: tuple[UnknownMinutes, ...]
    """The minutes that are not known in ``[reach, until)``, oldest first, disjoint."""
    empty: tuple[Interval, ...]
    """The minutes of ``[reach, until)`` that are empty, or before the listing; neighbours joined."""
    waiting: pa.Table
    """Candles that wait in the journal for a day file, shaped as a day file's rows."""
    minute_files: dict[str, Digests]
    files: dict[str, Digests]
    """Day files of the timeframe asked for; the same as ``minute_files`` for 1m."""
    stale: tuple[Interval, ...] = ()
    """Minutes that aggregates in day files do not follow yet."""

    @property
    def series(self) -> Series:
        """The series in the timeframe asked for."""
        return attrs.evolve(self.account.series, timeframe=self.timeframe.name)

    def not_known(self) -> list[UnknownMinutes]:
        """The minutes of ``[since, until)`` that are not known, oldest first."""
        return [
            attrs.evolve(one, since=Millis(max(one.since, self.since)))
            for one in self.unknown
            if one.until > self.since
        ]

    def _unknown_minutes(self) -> list[Interval]:
        return [(one.since, one.until) for one in self.unknown]

    def stored_minutes(self, since: int, until: int) -> int:
        """How many minutes of ``[since, until)`` have a row, by the ledger."""
        others = (self._unknown_minutes(), self.empty)
        return (until - since - sum(length(clip(other, since, until)) for other in others)) // MINUTE

    def empty_periods(self) -> list[Interval]:
        """Runs of periods in ``[reach, until)`` that are known and have no row."""
        step = self.timeframe.length
        found = ((_ceil_to(low, step), floor_to(high, step)) for low, high in self.empty)
        return [(low, high) for low, high in found if low < high]

    def periods_with_row(self) -> list[int]:
        """The open times of the periods in ``[reach, until)`` that are known and have a row, oldest first."""
        step = self.timeframe.length
        without = {*periods(self._unknown_minutes(), step), *periods(self.empty_periods(), step)}
        return [period for period in range(self.reach, self.until, step) if period not in without]

    def changed_periods(self) -> set[int]:
        """Periods whose row in a day file may be older than the minutes under it."""
        opens = self.waiting.column("open_time_ms").to_pylist()
        waiting = ((time, time + MINUTE) for time in opens if time is not None)
        return {period for changed in (self.stale, waiting) for period in periods(changed, self.timeframe.length)}

    def empty_minutes_by_period(self) -> Counter[int]:
        """How many minutes of each period are empty."""
        step, found = self.timeframe.length, Counter[int]()
        for empty in self.empty:
            for period in periods([empty], step):
                found[period] += length(clip([empty], period, period + step)) // MINUTE
        return found


def plan(ledger: Ledger, request: Request) -> Plan:
    """Decide what to read for *request*; raises :class:`~trio_candles.reading.errors.UnknownSeries`."""
    account, step = ledger.find(request.venue, request.symbol)[0], request.timeframe.length
    since = _ceil_to(_begin(account, step) if request.since is None else request.since, step)
    if request.until is None:
        end = account.mark if request.to_the_mark else _known_until(ledger, account)
        until = max(since, floor_to(end, step))
    else:
        until = max(since, _ceil_to(request.until, step))
    reach = _reach(ledger, account, since, step) if request.fill else since
    empty = [(low, high) for low, high, _ in ledger.empties(account, reach, until)]
    if account.since_listing and reach < account.first:
        empty.insert(0, (reach, account.first))
    minutes = account.series
    day, end = floor_to(reach, DAY), _ceil_to(until, DAY)
    return Plan(
        account,
        request.timeframe,
        since,
        until,
        reach,
        tuple(_unknown(account, ledger.gaps(account, reach, until), reach, until)),
        tuple(union(clip(empty, reach, until))),
        waiting_table(minutes, ledger.waiting(account, reach, until)),
        ledger.files(account, "1m", day, end),
        ledger.files(account, request.timeframe.name, day, end),
        tuple(ledger.underived(account, reach, until, request.timeframe.name)) if step > MINUTE else (),
    )


def _begin(account: Account, step: int) -> int:
    """Where reading begins if the request does not say: with the first period that can be known."""
    return floor_to(account.first, step) if account.since_listing else account.first


def _known_until(ledger: Ledger, account: Account) -> int:
    """Where reading ends if the request does not say: at the mark, without the newest minutes whose proof is on its
    way.

    Beside a live collector the newest minute of a quiet symbol is always being proven, and so is the minute in which
    the collector started or stopped. To a reader such a minute is no gap, as the minute that has not ended yet is none.
    """
    earliest = max(account.first, account.mark - SETTLED_AFTER)
    end: int = account.mark
    for gap in ledger.gaps(account, earliest, account.mark, newest_first=True):
        if gap.until < end or gap.state != "open":
            break
        end = max(earliest, gap.since)
    return end


def _reach(ledger: Ledger, account: Account, since: int, step: int) -> int:
    """The last period before *since* with anything but empty minutes in it, known or not."""
    return max(0, floor_to(ledger.begin_of_empty_run(account, since) - MINUTE, step))


def _unknown(account: Account, gaps: Iterable[GapSpan], since: int, until: int) -> Iterator[UnknownMinutes]:
    if not account.since_listing and since < min(account.first, until):
        end = min(account.first, until)
        yield UnknownMinutes(Millis(since), Millis(end), "unaccounted", "before_first")
    for gap in gaps:
        low, high = max(gap.since, since, account.first), min(gap.until, until, account.mark)
        if low < high:
            state = "gap" if gap.state == "open" else gap.state
            yield UnknownMinutes(Millis(low), Millis(high), state, gap.reason, gap.detail, gap.attempts)
    if max(account.mark, since) < until:
        yield UnknownMinutes(Millis(max(account.mark, since)), Millis(until), "unaccounted", "not_yet")


def _ceil_to(time: int, step: int) -> int:
    return -(-time // step) * step
