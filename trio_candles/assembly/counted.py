"""Rows that count their trades, and trade ids that say when a row is complete.

Rows and ids wait, by minute, after a *base*: a minute and the last id that is not after that minute. As soon as the
rows of all minutes between the base (or any other minute with ids) and a later minute with ids count as many trades as
there are ids between, those minutes are proven, and the last of them is the new base. Invariant: nothing is owed on
minutes up to the base; ``_rows`` and ``_ids`` hold later minutes only. Minutes that never add up are dropped, oldest
first, once more than twenty minutes with ids wait, and are left to REST.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate

import attrs

from trio_candles.assembly.base import AHEAD, BEGINNING, Assembler, Outcome, Remark, candle_of
from trio_candles.candles.model import DAY, MINUTE, Empty, Millis, floor_to
from trio_candles.venues.history import Heard
from trio_candles.venues.protocol import Event, Row, TradeSeen

__all__ = ["FromCountedRows"]

_SPANS_KEPT = 20
"""Unresolved minutes with trades that are still tried together; older ones are left to REST."""
_ROWS_KEPT = 1_440
"""How many rows may wait for ids; a dropped row can only make a count too small, which proves nothing."""
_TOLD = 64
"""How many trades, the newest, are evidence for REST; of a thin pair that may be days."""
_PROVEN_KEPT = 5
"""How many proven rows are remembered, to notice when the venue changes one afterwards."""


@attrs.define
class _Ids:
    """The lowest and the highest id seen of one minute."""

    lo: int
    hi: int


@attrs.define
class FromCountedRows(Assembler):
    """Rows with a count of trades; proven by the ids of trades seen before and after.

    Between a trade of id *b* before some minutes and a trade of id *a* after them, exactly ``a - 1 - b``
    trades happened. No row counts more trades than its minute had; so if the rows of those minutes count
    that many together, each of them is complete, and a minute among them without a row had none.
    """

    _rows: dict[Millis, Row] = attrs.field(factory=dict)
    """The fullest row heard of each minute after the base."""
    _ids: dict[Millis, _Ids] = attrs.field(factory=dict)
    """The lowest and highest id seen of each minute after the base."""
    _base: tuple[Millis, int] | None = None
    """(minute, id): a trade of that id is not after that minute, and nothing is owed on minutes up to it."""
    _proven: dict[Millis, Row] = attrs.field(factory=dict)
    """The newest :data:`_PROVEN_KEPT` proven rows."""
    _seen: dict[int, TradeSeen] = attrs.field(factory=dict)
    """The newest trades by id, at least :data:`_TOLD`."""
    _newest: Millis = BEGINNING
    """The newest minute in which a trade was seen."""

    def hear(self, event: Event, now: Millis) -> Sequence[Outcome]:
        """A row is remembered, a trade's id may prove the minutes before it."""
        if isinstance(event, Row):
            return self._hear_row(event, now)
        if isinstance(event, TradeSeen):
            if event.time > now + AHEAD:
                return self._wrong_time(f"trade {event.trade_id}", event.time, now)
            self._seen[event.trade_id] = event
            if len(self._seen) > 4 * _TOLD:
                self._seen = {id: self._seen[id] for id in sorted(self._seen)[-_TOLD:]}
            return self._hear_trade(event, now)
        return ()

    def _hear_row(self, row: Row, now: Millis) -> Sequence[Outcome]:
        minute, count = row.open_time, row.trades_count or 0
        if not now - DAY <= minute <= now + AHEAD:
            return self._wrong_time("row", minute, now)
        if minute % MINUTE:
            return list(self._prove(candle_of(self.series, row, now), now))  # broken: _prove rejects it
        if self._base is not None and minute <= self._base[0]:
            proven = self._proven.get(minute)
            if proven is None or row == proven or count < (proven.trades_count or 0):
                return ()  # never proven or long ago, or the same row, or an older state of it from a snapshot
            # Ids had proven the minute, and now the venue states another row.
            self._proven[minute] = row
            late = Remark("late_row", f"{self.series} row of {minute} changed after it was proven")
            return (late, *self._prove_anew(candle_of(self.series, row, now), now))
        known = self._rows.get(minute)
        if count and (known is None or count >= (known.trades_count or 0)):
            self._rows[minute] = row
            if len(self._rows) > _ROWS_KEPT:
                del self._rows[min(self._rows)]
            if minute < self._newest:
                return self._resolve(now)
        return ()

    def _hear_trade(self, seen: TradeSeen, now: Millis) -> Sequence[Outcome]:
        minute = floor_to(seen.time, MINUTE)
        if self._base is not None and minute <= self._base[0]:
            if seen.trade_id <= self._base[1]:
                return ()
            return (Remark("late_trade", f"{self.series} trade {seen.trade_id} of {seen.time} came after its minute"),)
        ids = self._ids.get(minute)
        if ids is None:
            self._ids[minute] = _Ids(seen.trade_id, seen.trade_id)
            self._newest = max(self._newest, minute)
            return self._resolve(now)
        if seen.trade_id > ids.hi:
            ids.hi = seen.trade_id
            return self._resolve(now) if minute < self._newest else ()
        if seen.trade_id < ids.lo:
            ids.lo = seen.trade_id
            return self._resolve(now)
        return ()

    def _heard(self) -> Heard:
        """The newest trades; which is the newest of all, a feed knows while there is a connection."""
        ids = sorted(self._seen)[-_TOLD:]
        if not ids:
            return Heard()
        first = next((n for n in range(len(ids) - 1, 0, -1) if ids[n - 1] != ids[n] - 1), 0)
        listens = self._disconnected_since is None and self._refused is None
        return Heard(tuple(self._seen[id] for id in ids[first:]), ids[-1] if listens else 0)

    def _resolve(self, now: Millis) -> Sequence[Outcome]:
        """Prove every span of minutes that the ids now prove, oldest first."""
        outcomes: list[Outcome] = []
        while self._doubt is None and (span := self._provable()) is not None:
            since, until = span
            next_id = self._ids[until].lo
            outcomes += self._give_verdicts(since, until, next_id, now)
            self._settle(Millis(until - MINUTE), next_id - 1)
        if len(self._ids) > _SPANS_KEPT:
            oldest = min(self._ids)
            self._settle(oldest, self._ids[oldest].hi)
        return outcomes

    def _provable(self) -> tuple[Millis, Millis] | None:
        """The first span of whole minutes between two seen ids whose rows count all the ids between."""
        minutes = sorted(self._ids)
        before = [(minute, self._ids[minute].hi) for minute in minutes]
        if self._base is not None:
            before.insert(0, self._base)
        rows = sorted(self._rows)
        counted = [0, *accumulate(self._rows[minute].trades_count or 0 for minute in rows)]
        for minute, last_id in before:
            so_far = counted[bisect_right(rows, minute)]
            for after in minutes:
                if after - minute > MINUTE:
                    between = counted[bisect_left(rows, after)] - so_far
                    if between == self._ids[after].lo - 1 - last_id:
                        return Millis(minute + MINUTE), after
        return None

    def _give_verdicts(self, since: Millis, until: Millis, next_id: int, now: Millis) -> list[Outcome]:
        outcomes: list[Outcome] = []
        evidence = f"no trade id below {next_id} is left for it"
        for minute in [*sorted(m for m in self._rows if since <= m < until), until]:
            if since < minute:
                outcomes += self._prove(Empty(self.series, since, minute, evidence), now)
            if minute < until:
                outcomes += self._prove(candle_of(self.series, self._rows[minute], now), now)
                self._proven[minute] = self._rows[minute]
            since = Millis(minute + MINUTE)
        for minute in sorted(self._proven)[:-_PROVEN_KEPT]:
            del self._proven[minute]
        return outcomes

    def _settle(self, minute: Millis, last_id: int) -> None:
        self._base = (minute, last_id)
        self._ids = {m: ids for m, ids in self._ids.items() if m > minute}
        self._rows = {m: row for m, row in self._rows.items() if m > minute}
