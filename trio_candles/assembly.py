"""What was heard about a series -> one verdict for every minute of it, fail-closed.

Three ways to prove a minute, one class each; what they share is :class:`Assembler`, which gives every minute
its first verdict in order and exactly once:

=================== =================================== ==============================================
class               the venue                           a minute is certain when
=================== =================================== ==============================================
FromTrades          sends trades, and heartbeats that   ids are contiguous from a trade before the
                    name the newest id                  minute to a trade or heartbeat after it
FromCountedRows     sends rows that count their         the ids between a trade before and a trade
                    trades, and trade ids               after are as many as the row counted
FromStatedCloses    sends rows that say "closed"        the row says so
=================== =================================== ==============================================

None of them believes a clock, and none of them believes a connection: ids that are contiguous across a lost
connection prove the minutes in which it was lost and found, and ids that jump on a healthy one prove nothing.
The clock only decides when to stop waiting for a first verdict (:data:`SETTLE`): such a minute is ``Unsure``,
and a later proof may still make it a candle.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from decimal import Context, Decimal
from itertools import accumulate

import attrs

from trio_candles.model import (
    DAY,
    MINUTE,
    Candle,
    Empty,
    Millis,
    Reason,
    Series,
    Source,
    Trade,
    Unsure,
    Verdict,
    floor_to,
)
from trio_candles.validation import Rule, broken_rule
from trio_candles.venues.protocol import Beat, Event, Row, Seen, Traded

__all__ = [
    "SETTLE",
    "Assembler",
    "FromCountedRows",
    "FromStatedCloses",
    "FromTrades",
    "Rejected",
    "Remark",
    "assembler_for",
    "fold_trades",
]

BEGINNING = Millis(0)

SETTLE = Millis(8_000)
"""How long after its end a minute may go without a verdict before it is called ``Unsure``.

Ten seconds are promised; two are left for the watchdog's tick and the disk."""

GRACE = Millis(1_000)
"""How far beyond a minute's end proof must reach where trades might come slightly out of order."""

AHEAD = Millis(60_000)
"""A venue's time further than this ahead of our clock proves nothing: it would prove minutes that are not over."""


@attrs.frozen
class Rejected:
    """A candle that broke a rule: to be counted and logged; its minute stays without proof."""

    candle: Candle
    rule: Rule


@attrs.frozen
class Remark:
    """Something about a feed that a person should be able to read later; changes no verdict."""

    kind: str
    """One of a few words, fit for a counter."""
    text: str


Outcome = Verdict | Rejected | Remark


@attrs.define
class Assembler:
    """Hears what is said about one series and gives each of its minutes a first verdict, in order.

    Lives as long as the venue's feed, not as long as a connection.
    """

    series: Series
    frontier: Millis
    """Every minute before it has had a first verdict."""
    earliest: Millis = BEGINNING
    """The first expected minute: what a snapshot proves about earlier ones, nobody has asked for."""
    _gone: Millis | None = BEGINNING
    """Since when there has been no connection; ``None`` while there is one."""
    _breaks: list[tuple[Millis, Millis]] = attrs.field(factory=list)
    """Each ``[since, until)`` without connection that may touch a minute which has no verdict yet."""
    _reasons: dict[Millis, tuple[Reason, str]] = attrs.field(factory=dict)
    """Why single minutes are in doubt, where that is more than "not proven"."""
    _doubt: str | None = None
    _refused: str | None = None

    default_reason = Reason.UNPROVEN

    # --- what the feed tells us about the connection

    def connected(self, now: Millis) -> None:
        """The subscription was acknowledged: from *now* on we hear what is said."""
        self._refused = None
        if self._gone is not None:
            self._breaks = [(since, until) for since, until in self._breaks if until > self.frontier]
            self._breaks.append((self._gone, now))
            self._gone = None

    def disconnected(self, now: Millis) -> None:
        """We hear nothing any more."""
        if self._gone is None:
            self._gone = now

    def refused(self, text: str) -> None:
        """The venue does not want to tell us about this symbol."""
        self._refused = text

    def doubted(self, text: str | None) -> None:
        """The venue calls its own feed into question, or (``None``) no longer.

        Nothing is proven meanwhile. What was heard stays heard: once the doubt is gone, ids may prove it.
        """
        self._doubt = text

    # --- verdicts

    def hear(self, event: Event, now: Millis) -> Sequence[Outcome]:
        """What *event*, received at *now*, proves."""
        raise NotImplementedError

    def due(self, now: Millis) -> Sequence[Outcome]:
        """Call minutes that have waited longer than :data:`SETTLE` ``Unsure``."""
        until = floor_to(now - SETTLE, MINUTE)
        return () if until <= self.frontier else list(self.give_up(until))

    def give_up(self, until: Millis) -> Iterator[Outcome]:
        """A verdict of ``Unsure`` for each minute before *until* that has none, neighbours joined by reason."""
        since = self.frontier
        while since < until:
            reason, detail = self._why(since)
            end = Millis(since + MINUTE)
            while end < until and self._why(end) == (reason, detail):
                end = Millis(end + MINUTE)
            yield Unsure(self.series, since, end, reason, detail)
            since = end
        self.frontier = max(self.frontier, until)
        self._reasons = {minute: why for minute, why in self._reasons.items() if minute >= self.frontier}

    def _why(self, minute: Millis) -> tuple[Reason, str]:
        if self._refused is not None:
            return Reason.REFUSED, self._refused
        if minute in self._reasons:
            return self._reasons[minute]
        if self._without_connection(minute, minute + MINUTE):
            return Reason.DISCONNECTED, ""
        if self._doubt is not None:
            return Reason.SUSPECT, self._doubt
        return self.default_reason, ""

    def _without_connection(self, since: int, until: int) -> bool:
        """Whether there was none for some of ``[since, until)``."""
        gone = self._gone is not None and self._gone < until
        return gone or any(lost < until and found > since for lost, found in self._breaks)

    def _prove(self, verdict: Candle | Empty, now: Millis) -> Iterator[Outcome]:
        """Pass a proven verdict on, after first verdicts for the minutes before it."""
        if isinstance(verdict, Candle):
            since, until = verdict.open_time, verdict.close_time
            if since < self.earliest:
                return
            rule = broken_rule(verdict, now)
            if rule is not None:
                minute = floor_to(since, MINUTE)
                if self.frontier <= minute <= now:
                    self._reasons[minute] = (Reason.REJECTED, rule.value)
                yield Rejected(verdict, rule)
                return
        else:
            since, until = max(verdict.since, self.earliest), verdict.until
            if since >= until:
                return
            verdict = attrs.evolve(verdict, since=since)
        yield from self.give_up(since)
        self.frontier = max(self.frontier, until)
        yield verdict

    def _prove_anew(self, verdict: Candle, now: Millis) -> Iterator[Outcome]:
        """Say a minute that was proven again, otherwise: let the store see that the two differ."""
        if self._doubt is None:
            yield from self._prove(verdict, now)

    def _ahead(self, what: str, time: Millis, now: Millis) -> Sequence[Outcome]:
        return (Remark("wrong_time", f"{self.series} {what} is {time - now} ms ahead of our clock"),)


# --- trades and heartbeats --------------------------------------------------------------------------------

_EXACT = Context(prec=200)
"""Wide enough that products and sums of prices and sizes are never rounded."""


def fold_trades(series: Series, minute: Millis, trades: Sequence[Trade], source: Source, ingest: Millis) -> Candle:
    """The candle of *minute* from all its *trades* (at least one): open and close by lowest and highest id.

    Sums are exact and become floats once, here.
    """
    trades = sorted(trades, key=lambda trade: trade.trade_id)
    volume, quote_volume = Decimal(0), Decimal(0)
    low = high = trades[0].price
    for trade in trades:
        volume = _EXACT.add(volume, trade.size)
        quote_volume = _EXACT.add(quote_volume, _EXACT.multiply(trade.price, trade.size))
        low, high = min(low, trade.price), max(high, trade.price)
    return Candle(
        series,
        minute,
        open=float(trades[0].price),
        high=float(high),
        low=float(low),
        close=float(trades[-1].price),
        volume=float(volume),
        quote_volume=float(quote_volume),
        vwap=float(_EXACT.divide(quote_volume, volume)) if volume else None,
        trades_count=len(trades),
        source=source,
        ingest_time=ingest,
        close_time=Millis(minute + MINUTE),
    )


@attrs.define
class _Run:
    """Trades ``lo`` to ``hi``, all of them heard."""

    lo: int
    hi: int
    since: Millis
    """The first minute that began after the trade ``lo``: the first that this run can prove."""
    complete_until: Millis
    """No trade before this time is missing above ``hi``: the newest trade's time, or a heartbeat's."""
    told: Millis
    """Verdicts have been given on its minutes before this one."""


_RUNS_KEPT = 64
_KEPT_TOLD = 5 * MINUTE
"""Trades of minutes that have been told are kept this long, for a trade that comes late."""
_MINUTES_KEPT = 60
"""Minutes with trades that may wait for proof; beyond it the oldest are left to REST, which is much quicker."""


@attrs.define
class FromTrades(Assembler):
    """Candles built from trades; proven by contiguous ids and by heartbeats that name the newest id."""

    _runs: list[_Run] = attrs.field(factory=list)
    """By id; between two of them at least one trade is missing."""
    _trades: dict[Millis, list[Trade]] = attrs.field(factory=dict)
    _kept_since: Millis = BEGINNING
    """Trades of minutes before it have been dropped: nothing is said about those any more."""
    _forgotten_id: int = 0
    """Whether trades up to this id were heard is not known any more: they are not heard again."""

    def hear(self, event: Event, now: Millis) -> Sequence[Outcome]:
        """A trade extends what is known; a heartbeat confirms it up to its time."""
        if isinstance(event, Traded):
            trade = event.trade
            if trade.time > now + AHEAD:
                return self._ahead(f"trade {trade.trade_id}", trade.time, now)
            return self._hear_trade(trade, now)
        if isinstance(event, Beat):
            if event.time > now + AHEAD:
                return self._ahead("heartbeat", event.time, now)
            return self._hear_beat(event, now)
        return ()

    def _hear_trade(self, trade: Trade, now: Millis) -> Sequence[Outcome]:
        run = self._runs[-1] if self._runs else None
        if run is None or trade.trade_id != run.hi + 1:  # hardly any trade
            return self._hear_out_of_order(run, trade, now)
        outcomes = self._extend(run, trade, now)
        if run.complete_until - GRACE >= run.told + MINUTE:
            outcomes += self._tell(run, now)
        return outcomes

    def _hear_out_of_order(self, last: _Run | None, trade: Trade, now: Millis) -> Sequence[Outcome]:
        """A trade that does not follow the newest one: it repeats one, begins a hole, or fills one."""
        x, runs = trade.trade_id, self._runs
        if x <= self._forgotten_id or any(run.lo <= x <= run.hi for run in runs):
            return ()  # heard before: last_match repeats a trade after every subscription
        outcomes = self._note_hole(last, trade, now) if last is not None and x > last.hi else []
        index = next((i for i, run in enumerate(runs) if run.lo > x), len(runs))
        if index and runs[index - 1].hi + 1 == x:
            run = runs[index - 1]
        else:
            # Ids ascend with time: a time long before a lower id's is wrong, and would prove minutes before the hole.
            time = max(trade.time, runs[index - 1].complete_until - GRACE) if index else trade.time
            since = Millis(floor_to(time, MINUTE) + MINUTE)
            run = _Run(x, x - 1, since, trade.time, since)
            runs.insert(index, run)
            index += 1
        outcomes += self._extend(run, trade, now)
        if index < len(runs) and runs[index].lo == x + 1:
            outcomes += self._join(run, runs.pop(index), now)
        outcomes += self._tell(run, now)
        if len(runs) > _RUNS_KEPT:
            self._forgotten_id = runs.pop(0).hi
        return outcomes

    def _extend(self, run: _Run, trade: Trade, now: Millis) -> list[Outcome]:
        """Add to *run* the trade that follows it."""
        run.hi = trade.trade_id
        run.complete_until = max(run.complete_until, trade.time)
        minute = floor_to(trade.time, MINUTE)
        if minute < self._kept_since:
            return [self._late(trade)]
        self._trades.setdefault(minute, []).append(trade)
        outcomes: list[Outcome] = []
        if run.since <= minute < run.told and self._all_in(run, minute):
            outcomes = [self._late(trade), *self._prove_anew(self._candle(minute, now), now)]
        if len(self._trades) > _MINUTES_KEPT:
            self._forget(sorted(self._trades)[-_MINUTES_KEPT])
        return outcomes

    def _late(self, trade: Trade) -> Remark:
        return Remark("late_trade", f"{self.series} trade {trade.trade_id} of {trade.time} came after its minute")

    def _note_hole(self, run: _Run, trade: Trade, now: Millis) -> list[Outcome]:
        """Blame the feed for the ids between *run* and *trade*, as far as we were there to hear them."""
        missing = f"trade ids {run.hi + 1}..{trade.trade_id - 1}"
        since = max(floor_to(min(run.complete_until, trade.time), MINUTE), self.frontier)
        for minute in range(since, max(run.complete_until, trade.time) + 1, MINUTE):
            if not self._without_connection(minute, minute + MINUTE):
                self._reasons.setdefault(Millis(minute), (Reason.MISSING_TRADES, missing))
        if self._without_connection(run.complete_until, now):
            return []
        return [Remark("missing_trades", f"{self.series} {missing} were not sent")]

    def _join(self, lower: _Run, upper: _Run, now: Millis) -> list[Outcome]:
        """Make *lower* the run of both, and prove what neither could alone if the later minutes have been told."""
        lower.hi = upper.hi
        lower.complete_until = max(lower.complete_until, upper.complete_until)
        if upper.told == upper.since or self._doubt is not None:
            return []  # it is all told from the lower's on
        outcomes = self._verdicts(lower, lower.told, upper.since, now)
        lower.told = max(lower.told, upper.told)
        return outcomes

    def _hear_beat(self, beat: Beat, now: Millis) -> Sequence[Outcome]:
        if not self._runs:
            return ()
        run = self._runs[-1]
        # A smaller id than we have heard proves nothing (the venue once sent 0 for months); a larger one says
        # that a trade is still on its way, or lost.
        if beat.last_trade_id == run.hi and beat.time > run.complete_until:
            run.complete_until = beat.time
            if beat.time - GRACE >= run.told + MINUTE:
                return self._tell(run, now)
        return ()

    def _tell(self, run: _Run, now: Millis) -> list[Outcome]:
        """Verdicts on all minutes that *run* now proves and has not told."""
        until = floor_to(run.complete_until - GRACE, MINUTE)
        if until <= run.told or self._doubt is not None:
            return []
        outcomes = self._verdicts(run, run.told, until, now)
        run.told = until
        self._forget(Millis(until - _KEPT_TOLD))
        return outcomes

    def _verdicts(self, run: _Run, since: Millis, until: Millis, now: Millis) -> list[Outcome]:
        outcomes: list[Outcome] = []
        evidence = f"trade ids up to {run.hi} contiguous, known until {run.complete_until}"
        since = max(since, self._kept_since)  # what was forgotten would look empty
        for minute in [*sorted(m for m in self._trades if since <= m < until), until]:
            if since < minute:
                outcomes += self._prove(Empty(self.series, since, minute, evidence), now)
            # An id of another run among them says that the minute is not what this run believes: no verdict.
            if minute < until and self._all_in(run, minute):
                outcomes += self._prove(self._candle(minute, now), now)
            since = Millis(minute + MINUTE)
        return outcomes

    def _all_in(self, run: _Run, minute: Millis) -> bool:
        return all(run.lo <= trade.trade_id <= run.hi for trade in self._trades[minute])

    def _candle(self, minute: Millis, now: Millis) -> Candle:
        return fold_trades(self.series, minute, self._trades[minute], Source.WEBSOCKET, now)

    def _forget(self, horizon: Millis) -> None:
        self._kept_since = max(self._kept_since, horizon)
        for minute in [minute for minute in self._trades if minute < horizon]:
            del self._trades[minute]


# --- rows that count their trades -------------------------------------------------------------------------

_SPANS_KEPT = 20
"""Unresolved minutes with trades that are still tried together; older ones are left to REST."""
_ROWS_KEPT = 1_440
"""Rows that may wait for ids; a row that is forgotten can only make a count too small, which proves nothing."""
_PROVEN_KEPT = 5
"""Proven rows that are remembered, for a row that changes its mind."""


@attrs.define
class _Ids:
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
    _newest: Millis = BEGINNING
    """The newest minute in which a trade was seen."""

    def hear(self, event: Event, now: Millis) -> Sequence[Outcome]:
        """A row is remembered, a trade's id may prove the minutes before it."""
        if isinstance(event, Row):
            return self._hear_row(event, now)
        if isinstance(event, Seen):
            if event.time > now + AHEAD:
                return self._ahead(f"trade {event.trade_id}", event.time, now)
            return self._hear_trade(event, now)
        return ()

    def _hear_row(self, row: Row, now: Millis) -> Sequence[Outcome]:
        minute, count = row.open_time, row.trades_count or 0
        if not now - DAY <= minute <= now + AHEAD:
            return self._ahead("row", minute, now)
        if minute % MINUTE:
            return list(self._prove(_candle_of(self.series, row, now), now))  # only to be rejected
        if self._base is not None and minute <= self._base[0]:
            proven = self._proven.get(minute)
            if proven is None or row == proven or count < (proven.trades_count or 0):
                return ()  # given up, long ago, the same, or an older state out of a snapshot
            # Ids had proven the minute and now the venue says otherwise.
            self._proven[minute] = row
            late = Remark("late_row", f"{self.series} row of {minute} changed after it was proven")
            return (late, *self._prove_anew(_candle_of(self.series, row, now), now))
        known = self._rows.get(minute)
        if count and (known is None or count >= (known.trades_count or 0)):
            self._rows[minute] = row
            if len(self._rows) > _ROWS_KEPT:
                del self._rows[min(self._rows)]
            if minute < self._newest:
                return self._resolve(now)
        return ()

    def _hear_trade(self, seen: Seen, now: Millis) -> Sequence[Outcome]:
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

    def _resolve(self, now: Millis) -> Sequence[Outcome]:
        """Prove every span of minutes that the ids now prove, oldest first."""
        outcomes: list[Outcome] = []
        while self._doubt is None and (span := self._provable()) is not None:
            since, until = span
            next_id = self._ids[until].lo
            outcomes += self._tell(since, until, next_id, now)
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

    def _tell(self, since: Millis, until: Millis, next_id: int, now: Millis) -> list[Outcome]:
        outcomes: list[Outcome] = []
        evidence = f"no trade id below {next_id} is left for it"
        for minute in [*sorted(m for m in self._rows if since <= m < until), until]:
            if since < minute:
                outcomes += self._prove(Empty(self.series, since, minute, evidence), now)
            if minute < until:
                outcomes += self._prove(_candle_of(self.series, self._rows[minute], now), now)
                self._proven[minute] = self._rows[minute]
            since = Millis(minute + MINUTE)
        for minute in sorted(self._proven)[:-_PROVEN_KEPT]:
            del self._proven[minute]
        return outcomes

    def _settle(self, minute: Millis, last_id: int) -> None:
        self._base = (minute, last_id)
        self._ids = {m: ids for m, ids in self._ids.items() if m > minute}
        self._rows = {m: row for m, row in self._rows.items() if m > minute}


def _candle_of(series: Series, row: Row, now: Millis) -> Candle:
    return Candle(
        series, row.open_time, row.open, row.high, row.low, row.close, row.volume, row.quote_volume,
        row.vwap, row.trades_count, Source.WEBSOCKET, now, row.close_time,
    )  # fmt: skip


# --- rows that say they are closed ------------------------------------------------------------------------


@attrs.define
class FromStatedCloses(Assembler):
    """Rows of which the venue itself says that they are closed: complete even if we joined in between."""

    default_reason = Reason.NO_CLOSE

    def hear(self, event: Event, now: Millis) -> Sequence[Outcome]:
        """A row that says it is closed is a candle; silence is never an empty minute."""
        if isinstance(event, Row) and event.closed and self._doubt is None:
            return list(self._prove(_candle_of(self.series, event, now), now))
        return ()


_ASSEMBLERS: dict[str, Callable[[Series, Millis, Millis], Assembler]] = {
    "coinbase": FromTrades,
    "kraken": FromCountedRows,
    "okx": FromStatedCloses,
}


def assembler_for(series: Series, frontier: Millis, earliest: Millis = BEGINNING) -> Assembler:
    """The assembler that fits *series*' venue, owing first verdicts from the minute *frontier* on.

    Proofs of older minutes are welcome too, back to *earliest*.
    """
    return _ASSEMBLERS[series.venue](series, frontier, earliest)
