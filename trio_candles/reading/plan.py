"""What is to be read, decided from one reading of the ledger: the range, what of it is not known, what is empty.

A *period* is a candle's span, of one minute or more. It is known if each of its minutes is stored or empty, and has
a row if it is known and one of them is stored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import attrs
import pyarrow as pa

from trio_candles.candles.model import DAY, MINUTE, Millis, Series, Timeframe, floor_to
from trio_candles.reading.errors import UnknownMinutes
from trio_candles.reading.files import Digests
from trio_candles.reading.ledger import Account, Books, GapSpan

__all__ = ["Plan", "Request", "plan"]

SETTLED_AFTER = 5 * MINUTE
"""Within which the collector promises that proof, in ms."""

Span = tuple[int, int]


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


@attrs.frozen
class Plan:
    """Everything that the ledger said about a request, at one moment."""

    account: Account
    timeframe: Timeframe
    since: int
    until: int
    """``[since, until)`` are whole periods."""
    reach: int
    """Where reading begins: at ``since``, or for filling at the last period before it that may have a row."""
    unknown: tuple[UnknownMinutes, ...]
    """What is not known in ``[reach, until)``, oldest first, disjoint."""
    empty: tuple[Span, ...]
    """What is empty in ``[reach, until)``, or before the listing; clipped, neighbours joined."""
    waiting: pa.Table
    minute_files: dict[str, Digests]
    files: dict[str, Digests]
    """Of the timeframe asked for; the minutes' own if that is what was asked for."""
    stale: tuple[Span, ...] = ()
    """Minutes that aggregates in day files do not follow yet."""

    @property
    def series(self) -> Series:
        """In the timeframe asked for."""
        return attrs.evolve(self.account.series, timeframe=self.timeframe.name)

    def not_known(self) -> list[UnknownMinutes]:
        """What of ``[since, until)`` is not known, clipped to it."""
        return [
            attrs.evolve(one, since=Millis(max(one.since, self.since)))
            for one in self.unknown
            if one.until > self.since
        ]

    def stored_minutes(self, since: int, until: int) -> int:
        """How many minutes of ``[since, until)`` have a row, by the ledger."""
        other = [*((one.since, one.until) for one in self.unknown), *self.empty]
        return (until - since - sum(high - low for low, high in _clipped(other, since, until))) // MINUTE

    def empty_periods(self) -> list[Span]:
        """Runs of periods in ``[reach, until)`` that are known and have no row."""
        length = self.timeframe.length
        found = ((_ceil_to(low, length), floor_to(high, length)) for low, high in self.empty)
        return [(low, high) for low, high in found if low < high]

    def periods_with_row(self) -> list[int]:
        """The open times of the periods in ``[reach, until)`` that are known and have a row, oldest first."""
        length = self.timeframe.length
        without = set(periods(((one.since, one.until) for one in self.unknown), length))
        for low, high in self.empty_periods():
            without.update(range(low, high, length))
        return [period for period in range(self.reach, self.until, length) if period not in without]

    def changed_periods(self) -> set[int]:
        """Periods whose row in a day file may be older than the minutes under it."""
        opens = self.waiting.column("open_time_ms").to_pylist()
        spans = [*self.stale, *((time, time + MINUTE) for time in opens if time is not None)]
        return set(periods(spans, self.timeframe.length))

    def empty_minutes_by_period(self) -> Counter[int]:
        """How many minutes of each period are empty."""
        length, found = self.timeframe.length, Counter[int]()
        for low, high in self.empty:
            for period in periods([(low, high)], length):
                found[period] += (min(high, period + length) - max(low, period)) // MINUTE
        return found


def periods(spans: Iterable[Span], length: int) -> Iterator[int]:
    """The open times of the periods of *length* ms that *spans* touch."""
    for since, until in spans:
        if since < until:
            yield from range(floor_to(since, length), until, length)


def plan(books: Books, request: Request) -> Plan:
    """Decide what to read for *request*; :class:`~trio_candles.reading.errors.UnknownSeries`."""
    account, length = books.account(request.venue, request.symbol), request.timeframe.length
    since = _ceil_to(_begin(account, length) if request.since is None else request.since, length)
    if request.until is None:
        until = max(since, floor_to(_known_until(books, account), length))
    else:
        until = max(since, _ceil_to(request.until, length))
    reach = _reach(books, account, since, length) if request.fill else since
    empty = [(low, high) for low, high, _ in books.empties(account, reach, until)]
    if account.since_listing and reach < account.first:
        empty.insert(0, (reach, account.first))
    minutes = account.series
    series = attrs.evolve(minutes, timeframe=request.timeframe.name)
    day, end = floor_to(reach, DAY), _ceil_to(until, DAY)
    return Plan(
        account,
        request.timeframe,
        since,
        until,
        reach,
        tuple(_unknown(account, books.gaps(account, reach, until), reach, until)),
        tuple(_joined(_clipped(empty, reach, until))),
        books.waiting(account, reach, until),
        books.files(minutes, day, end),
        books.files(series, day, end),
        tuple(books.underived(account, reach, until)),
    )


def _begin(account: Account, length: int) -> int:
    """Where reading begins if nobody says: with the first period that can be known."""
    return floor_to(account.first, length) if account.since_listing else account.first


def _known_until(books: Books, account: Account) -> int:
    """Where reading ends if nobody says: the mark, but for the newest minutes whose proof is on its way.

    Beside a live collector the newest minute of a quiet symbol is always being proven, and after a start or a stop the
    minute in which it came is: that is no gap in what is read up to now, as the minute that runs is none.
    """
    earliest = max(account.first, account.mark - SETTLED_AFTER)
    end: int = account.mark
    for gap in reversed(books.gaps(account, earliest, account.mark)):
        if gap.until < end or gap.state != "open":
            break
        end = max(earliest, gap.since)
    return end


def _reach(books: Books, account: Account, since: int, length: int) -> int:
    """The last period before *since* with anything but empty minutes in it, known or not."""
    return max(0, floor_to(books.begin_of_empty_run(account, since) - MINUTE, length))


def _unknown(account: Account, gaps: Sequence[GapSpan], since: int, until: int) -> Iterator[UnknownMinutes]:
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


def _clipped(spans: Iterable[Span], since: int, until: int) -> Iterator[Span]:
    for low, high in spans:
        if low < until and high > since:
            yield max(low, since), min(high, until)


def _joined(spans: Iterable[Span]) -> list[Span]:
    """*spans*, oldest first, those that touch made one."""
    joined: list[Span] = []
    for low, high in spans:
        if joined and low <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(high, joined[-1][1]))
        else:
            joined.append((low, high))
    return joined


def _ceil_to(time: int, step: int) -> int:
    return -(-time // step) * step
