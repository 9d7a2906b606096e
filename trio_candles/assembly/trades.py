"""Candles built from trades, and proven by contiguous ids.

What was heard is kept as *runs*: stretches of ids of which every trade was heard. A trade that follows the newest run
extends that run (nearly all do); any other one begins a run or extends another, and two runs that meet become one. A
heartbeat that names the newest id heard extends the time, not the ids: no trade has come since.

A run proves a minute if the run began :data:`GRACE` before the minute and no trade is missing up to :data:`GRACE`
after the minute's end. Invariants: between two runs at least one trade is missing; ``since <= judged_until``, and a
run's minutes before ``judged_until`` have had their verdict from that run, but for those in which a trade of another
run lies (the ids do not follow time there) and those whose trades were forgotten; ``complete_until`` and
``judged_until`` never go back.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from trio_candles.assembly.base import AHEAD, BEGINNING, Assembler, Outcome, Remark
from trio_candles.candles.folding import fold_trades
from trio_candles.candles.model import MINUTE, Candle, Empty, Millis, Reason, Source, Trade, floor_to
from trio_candles.venues.history import Heard
from trio_candles.venues.protocol import Event, Heartbeat, Traded

__all__ = ["FromTrades"]

GRACE = Millis(1_000)
"""How far beyond a minute, on either side, proof must reach where trades might come slightly out of order."""


@attrs.define
class _Run:
    """Trades ``lo`` to ``hi``, all of them heard."""

    lo: int
    hi: int
    since: Millis
    """The first minute that began :data:`GRACE` after the trade ``lo``: the first that this run can prove."""
    complete_until: Millis
    """No trade before this time is missing above ``hi``: the newest trade's time, or a heartbeat's."""
    judged_until: Millis
    """The run's minutes before this one have had their verdicts."""


_RUNS_KEPT = 64
_KEPT_JUDGED = 5 * MINUTE
"""Trades of minutes that have their verdict are kept this long, for a trade that comes late."""
_TOLD = 64
"""How many trades are evidence for REST: the newest will do, where they meet with what REST has."""
_MINUTES_KEPT = 60
"""How many minutes with trades may wait for proof; older ones are left to REST, which is much quicker."""


@attrs.define
class FromTrades(Assembler):
    """Candles built from trades; proven by contiguous ids and by heartbeats that name the newest id."""

    _runs: list[_Run] = attrs.field(factory=list)
    """By id; between two of them at least one trade is missing."""
    _trades: dict[Millis, list[Trade]] = attrs.field(factory=dict)
    _kept_since: Millis = BEGINNING
    """Trades of earlier minutes have been dropped: those minutes get no verdict any more."""
    _newest: Trade | None = None
    """The trade of the highest id, which is kept although its minute may be forgotten."""
    _beat: Heartbeat | None = None
    """The latest heartbeat that named no older trade than the newest one heard."""
    _forgotten_id: int = 0
    """Whether trades up to this id have arrived before is not known any more: they are ignored."""

    def hear(self, event: Event, now: Millis) -> Sequence[Outcome]:
        """A trade extends or begins a run; a heartbeat confirms the newest run up to the heartbeat's time."""
        if isinstance(event, Traded):
            trade = event.trade
            if trade.time > now + AHEAD:
                return self._wrong_time(f"trade {trade.trade_id}", trade.time, now)
            return self._hear_trade(trade, now)
        if isinstance(event, Heartbeat):
            if event.time > now + AHEAD:
                return self._wrong_time("heartbeat", event.time, now)
            return self._hear_heartbeat(event, now)
        return ()

    def _hear_trade(self, trade: Trade, now: Millis) -> Sequence[Outcome]:
        run = self._runs[-1] if self._runs else None
        if run is None or trade.trade_id != run.hi + 1:  # hardly any trade
            return self._hear_out_of_order(run, trade, now)
        outcomes = self._extend(run, trade, now)
        if run.complete_until - GRACE >= run.judged_until + MINUTE:
            outcomes += self._give_verdicts(run, now)
        return outcomes

    def _hear_out_of_order(self, last: _Run | None, trade: Trade, now: Millis) -> Sequence[Outcome]:
        """A trade that does not follow the newest trade: it repeats a trade, begins a hole, or fills a hole."""
        new_id, runs = trade.trade_id, self._runs
        if new_id <= self._forgotten_id or any(run.lo <= new_id <= run.hi for run in runs):
            return ()  # heard before: last_match repeats a trade after every subscription
        outcomes = self._note_hole(last, trade, now) if last is not None and new_id > last.hi else []
        index = next((i for i, run in enumerate(runs) if run.lo > new_id), len(runs))
        if index and runs[index - 1].hi + 1 == new_id:
            run = runs[index - 1]
        else:
            # Ids ascend with time: a time long before that of a lower id is wrong; the new run would prove minutes
            # from before the hole.
            time = max(trade.time, runs[index - 1].complete_until - GRACE) if index else trade.time
            since = floor_to(time + GRACE + MINUTE - 1, MINUTE)  # the trade before it, which is missing, may be later
            run = _Run(new_id, new_id - 1, since, trade.time, since)
            runs.insert(index, run)
            index += 1
        outcomes += self._extend(run, trade, now)
        if index < len(runs) and runs[index].lo == new_id + 1:
            outcomes += self._join(run, runs.pop(index), now)
        outcomes += self._give_verdicts(run, now)
        if len(runs) > _RUNS_KEPT:
            self._forgotten_id = runs.pop(0).hi
        return outcomes

    def _extend(self, run: _Run, trade: Trade, now: Millis) -> list[Outcome]:
        """Add to *run* the trade that follows it."""
        run.hi = trade.trade_id
        if run is self._runs[-1]:
            self._newest = trade
        run.complete_until = max(run.complete_until, trade.time)
        minute = floor_to(trade.time, MINUTE)
        if minute < self._kept_since:
            return [self._late(trade)]
        self._trades.setdefault(minute, []).append(trade)
        outcomes: list[Outcome] = []
        if run.since <= minute < run.judged_until and self._all_in(run, minute):
            outcomes = [self._late(trade), *self._prove_anew(self._candle(minute, now), now)]
        if len(self._trades) > _MINUTES_KEPT:
            self._forget(sorted(self._trades)[-_MINUTES_KEPT])
        return outcomes

    def _late(self, trade: Trade) -> Remark:
        return Remark("late_trade", f"{self.series} trade {trade.trade_id} of {trade.time} came after its minute")

    def _note_hole(self, run: _Run, trade: Trade, now: Millis) -> list[Outcome]:
        """Note that the feed left out the ids between *run* and *trade*, in the minutes in which we were connected."""
        missing = f"trade ids {run.hi + 1}..{trade.trade_id - 1}"
        since = max(floor_to(min(run.complete_until, trade.time), MINUTE), self.frontier)
        until = floor_to(max(run.complete_until, trade.time) + GRACE - 1, MINUTE) + MINUTE
        self._explain(since, until, (Reason.MISSING_TRADES, missing))
        if self._was_lost(run.complete_until, now):
            return []
        return [Remark("missing_trades", f"{self.series} {missing} were not sent")]

    def _join(self, lower: _Run, upper: _Run, now: Millis) -> list[Outcome]:
        """Join *upper* to *lower*. If *upper* has given verdicts, prove the minutes that neither run could prove alone;
        otherwise the next verdicts of *lower* cover them.
        """
        lower.hi = upper.hi
        lower.complete_until = max(lower.complete_until, upper.complete_until)
        if upper.judged_until == upper.since or self._doubt is not None:
            return []  # every minute from lower.judged_until on is still to be judged
        outcomes = self._verdicts(lower, lower.judged_until, upper.since, now)
        lower.judged_until = max(lower.judged_until, upper.judged_until)
        return outcomes

    def _hear_heartbeat(self, beat: Heartbeat, now: Millis) -> Sequence[Outcome]:
        run = self._runs[-1] if self._runs else None
        # An id smaller than the newest we have proves nothing (the venue once sent 0 for months); a larger id means
        # that a trade is still on its way, or lost: REST may have it.
        if beat.last_trade_id >= (run.hi if run is not None else 1):
            self._beat = beat
        if run is None:
            return ()
        if beat.last_trade_id == run.hi and beat.time > run.complete_until:
            run.complete_until = beat.time
            if beat.time - GRACE >= run.judged_until + MINUTE:
                return self._give_verdicts(run, now)
        return ()

    def _heard(self) -> Heard:
        """The newest trades of the newest run, and what the latest heartbeat said."""
        told: list[Trade] = [self._newest] if self._newest is not None else []
        for minute in sorted(self._trades, reverse=True):
            if not told or len(told) >= _TOLD:
                break
            for trade in sorted(self._trades[minute], key=lambda trade: trade.trade_id, reverse=True):
                if trade.trade_id == told[-1].trade_id - 1:
                    told.append(trade)
        if self._beat is None:
            return Heard(tuple(reversed(told)))
        return Heard(tuple(reversed(told)), self._beat.last_trade_id, self._beat.time)

    def _give_verdicts(self, run: _Run, now: Millis) -> list[Outcome]:
        """Verdicts on all minutes that *run* now proves and has not judged."""
        until = floor_to(run.complete_until - GRACE, MINUTE)
        if until <= run.judged_until or self._doubt is not None:
            return []
        outcomes = self._verdicts(run, run.judged_until, until, now)
        run.judged_until = until
        self._forget(Millis(until - _KEPT_JUDGED))
        return outcomes

    def _verdicts(self, run: _Run, since: Millis, until: Millis, now: Millis) -> list[Outcome]:
        outcomes: list[Outcome] = []
        evidence = f"trade ids up to {run.hi} contiguous, known until {run.complete_until}"
        since = max(since, self._kept_since)  # a minute whose trades were dropped would look empty
        for minute in [*sorted(m for m in self._trades if since <= m < until), until]:
            if since < minute:
                outcomes += self._prove(Empty(self.series, since, minute, evidence), now)
            # A trade of another run in the minute contradicts this run, which does not have it: no verdict.
            if minute < until and self._all_in(run, minute):
                outcomes += self._prove(self._candle(minute, now), now)
            since = Millis(minute + MINUTE)
        return outcomes

    def _all_in(self, run: _Run, minute: Millis) -> bool:
        """Whether all trades of *minute* are of *run*."""
        return all(run.lo <= trade.trade_id <= run.hi for trade in self._trades[minute])

    def _candle(self, minute: Millis, now: Millis) -> Candle:
        return fold_trades(self.series, minute, self._trades[minute], Source.WEBSOCKET, now)

    def _forget(self, horizon: Millis) -> None:
        self._kept_since = max(self._kept_since, horizon)
        for minute in [minute for minute in self._trades if minute < horizon]:
            del self._trades[minute]
