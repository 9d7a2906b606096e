"""Where a venue's record ends: minutes that it cannot serve any more, and a market's beginning that it does not tell.

Both show only in what good answers leave out, so one answer is not enough: the ledger keeps what one was observed to
leave out, and concludes from a second one, ten minutes later at least (``SPACED`` in store/history.py). Here it is made
sure that an answer counts as such an observation, with one or two more questions where the answer itself does not
show it:

- A minute beyond the venue's documented depth is absent if the venue also serves its newest rows: so it is the venue
  that answers, it is well, and our clock is right.
- The oldest row is a first row if all of the day before it was asked for, inside that depth, and had none.

Of a venue that serves everything, and tells when its markets began, nothing of this is asked.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping

import attrs

from trio_candles.candles.model import DAY, MINUTE, Millis, Series, floor_to
from trio_candles.store.gaps import Due
from trio_candles.venues.history import BESIDE, CLOCK, Filled, History, Missing, Why, settled_until

__all__ = ["Ask", "look_beyond"]

Ask = Callable[[Millis, Millis], Awaitable[Filled]]
"""Asks the venue about a span of the page's series; raises what a fill raises."""

NEWEST = BESIDE
"""The venue serves its newest rows if one ended less than this many ms ago: a quiet market has not one each minute."""
FIRST = "the oldest row of answers that reach a day further back"


async def look_beyond(
    history: History, ask: Ask, oldest: MutableMapping[Series, Millis], page: Due, filled: Filled, now: Millis
) -> Filled:
    """*filled*, the answer about *page*, with what it shows of the end of *history*'s record at *now*: minutes are
    :attr:`~trio_candles.venues.history.Why.BEYOND_DEPTH`, and a first row.

    *oldest* is the oldest minute known of each series, so that a series is asked about its beginning only where the
    beginning may be; it is kept up to date here. Raises what *ask* raises.
    """
    edge = Millis(0) if history.depth is None else floor_to(Millis(now - CLOCK - history.depth), MINUTE)
    if any(part.since < edge for part in _without_a_row(filled)) and await _serves_newest(ask, filled, now):
        filled = attrs.evolve(filled, missing=tuple(_beyond(filled.missing, edge)))
    if not history.tells_listing:
        first = await _first_row(history, ask, oldest, page, filled, edge, now)
        if first is not None:
            filled = attrs.evolve(filled, first_row=(first, FIRST))
    return filled


def _without_a_row(filled: Filled) -> Iterator[Missing]:
    return (part for part in filled.missing if part.why == Why.NO_ROW)


def _beyond(missing: Iterable[Missing], edge: Millis) -> Iterator[Missing]:
    """*missing*, of which the minutes before *edge* without a row are beyond the depth."""
    for part in missing:
        if part.why != Why.NO_ROW or part.since >= edge:
            yield part
            continue
        yield Missing(part.since, min(part.until, edge), Why.BEYOND_DEPTH)
        if edge < part.until:
            yield attrs.evolve(part, since=edge)


async def _serves_newest(ask: Ask, filled: Filled, now: Millis) -> bool:
    if _newest(filled) > now - NEWEST:
        return True
    settled = settled_until(now)
    return _newest(await ask(Millis(settled - NEWEST), settled)) > now - NEWEST


async def _first_row(
    history: History,
    ask: Ask,
    oldest: MutableMapping[Series, Millis],
    page: Due,
    filled: Filled,
    edge: Millis,
    now: Millis,
) -> Millis | None:
    """The minute of the oldest row, if nothing is served of the day before it; ``None`` also if that is not shown."""

    def noted(answer: Filled) -> Millis | None:
        minutes = [candle.open_time for candle in answer.candles[:1]] + [empty.since for empty in answer.empties[:1]]
        if minutes:
            oldest[page.series] = min(*minutes, oldest.get(page.series, minutes[0]))
        return min(minutes, default=None)

    first = noted(filled)
    if first is None and oldest.get(page.series, page.until) >= page.until:
        beside = min(Millis(page.until + BESIDE), settled_until(now))  # the row may be the first after the page
        first = noted(await ask(page.until, beside)) if page.until < beside else None
    if first is None or oldest[page.series] < first or first - DAY < edge:
        return None
    if not any(part.since < first <= part.until for part in _without_a_row(filled)):
        return None
    for since, until in history.windows(Millis(first - DAY), first, now):
        answer = await ask(since, until)
        noted(answer)
        served_all = answer.unclear is None and all(part.why == Why.NO_ROW for part in answer.missing)
        if not served_all or oldest[page.series] < first:
            return None
    return first


def _newest(filled: Filled) -> int:
    """The end of the newest minute that *filled* knows; 0 if it knows none."""
    ends = [candle.close_time for candle in filled.candles[-1:]] + [empty.until for empty in filled.empties[-1:]]
    return max(ends, default=0)
