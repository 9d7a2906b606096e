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

from collections.abc import Callable, Iterator, Sequence
from decimal import Context, Decimal

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
    _connected: bool = False
    _broken_until: Millis = BEGINNING
    """Minutes that begin before it were touched by a time without connection."""
    _reasons: dict[Millis, tuple[Reason, str]] = attrs.field(factory=dict)
    """Why single minutes are in doubt, where that is more than "not proven"."""
    _doubt: str | None = None
    _refused: str | None = None

    default_reason = Reason.UNPROVEN

    # --- what the feed tells us about the connection

    def connected(self, now: Millis) -> None:
        """The subscription was acknowledged: from *now* on we hear what is said."""
        self._connected, self._refused = True, None
        self._broken_until = Millis(now + 1)

    def disconnected(self, now: Millis) -> None:
        """We hear nothing any more."""
        self._connected = False
        self._broken_until = Millis(now + 1)

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
        if not self._connected or minute < self._broken_until:
            return Reason.DISCONNECTED, ""
        if self._doubt is not None:
            return Reason.SUSPECT, self._doubt
        return self.default_reason, ""

    def _prove(self, verdict: Candle | Empty, now: Millis) -> Iterator[Outcome]:
        """Pass a proven verdict on, after first verdicts for the minutes before it."""
        if isinstance(verdict, Candle):
            rule = broken_rule(verdict, now)
            if rule is not None:
                minute = floor_to(verdict.open_time, MINUTE)
                if self.frontier <= minute <= now:
                    self._reasons[minute] = (Reason.REJECTED, rule.value)
                yield Rejected(verdict, rule)
                return
            since, until = verdict.open_time, verdict.close_time
        else:
            since, until = verdict.since, verdict.until
        yield from self.give_up(since)
        self.frontier = max(self.frontier, until)
        yield verdict

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
_KEPT_UNTOLD = 240
"""Minutes with trades that may wait for proof; beyond it the oldest are left to REST."""


@attrs.define
class FromTrades(Assembler):
    """Candles built from trades; proven by contiguous ids and by heartbeats that name the newest id."""

    _runs: list[_Run] = attrs.field(factory=list)
    _trades: dict[Millis, list[Trade]] = attrs.field(factory=dict)
    _kept_since: Millis = BEGINNING
    """Trades of minutes before it have been dropped: nothing is said about those any more."""

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
        minute = floor_to(trade.time, MINUTE)
        outcomes: list[Outcome] = []
        run = self._runs[-1] if self._runs else None
        if run is not None and trade.trade_id == run.hi + 1:  # nearly every trade
            run.hi = trade.trade_id
            run.complete_until = max(run.complete_until, trade.time)
        else:
            if any(run.lo <= trade.trade_id <= run.hi for run in self._runs):
                return ()  # heard before: last_match repeats a trade after every subscription
            if run is not None and trade.trade_id > run.hi:
                outcomes.append(self._note_hole(run, trade))
            outcomes += self._insert(trade, minute, now)
            run = self._runs[-1]
        if minute < self._kept_since:
            return [*outcomes, self._late(trade)]
        self._trades.setdefault(minute, []).append(trade)
        if run.since <= minute < run.told and self._all_in(run, minute):
            # Called complete already: say the minute anew and let the store see that the two differ.
            return [*outcomes, self._late(trade), self._candle(minute, now)]
        if run.complete_until - GRACE >= run.told + MINUTE:
            outcomes += self._tell(run, now)
        return outcomes

    def _late(self, trade: Trade) -> Remark:
        return Remark("late_trade", f"{self.series} trade {trade.trade_id} of {trade.time} came after its minute")

    def _note_hole(self, run: _Run, trade: Trade) -> Remark:
        missing = f"trade ids {run.hi + 1}..{trade.trade_id - 1}"
        for minute in range(floor_to(run.complete_until, MINUTE), trade.time + 1, MINUTE):
            if minute >= self.frontier:
                self._reasons[Millis(minute)] = (Reason.MISSING_TRADES, missing)
        return Remark("missing_trades", f"{self.series} {missing} were not sent")

    def _insert(self, trade: Trade, minute: Millis, now: Millis) -> list[Outcome]:
        """Put *trade* into the runs; one that closes a hole joins its neighbours and proves what lay between."""
        x, runs = trade.trade_id, self._runs
        index = next((i for i, run in enumerate(runs) if run.lo > x), len(runs))
        following = Millis(minute + MINUTE)
        runs.insert(index, _Run(x, x, following, trade.time, following))
        outcomes: list[Outcome] = []
        for lower in (index, index - 1):
            if 0 <= lower < len(runs) - 1 and runs[lower].hi + 1 == runs[lower + 1].lo:
                outcomes += self._join(runs[lower], runs[lower + 1], trade, minute, now)
        del runs[:-_RUNS_KEPT]
        return outcomes

    def _join(self, lower: _Run, upper: _Run, trade: Trade, minute: Millis, now: Millis) -> list[Outcome]:
        self._runs.remove(upper)
        since, until = max(lower.told, lower.since, self._kept_since), upper.since
        lower.hi = upper.hi
        lower.complete_until = max(lower.complete_until, upper.complete_until)
        lower.told = upper.told
        if since >= until or lower.complete_until - GRACE < until or self._doubt is not None:
            lower.told = max(since, lower.since) if since < until else upper.told
            return []
        # The joining trade is not among the kept ones yet, and belongs to one of these minutes.
        waiting = self._trades.setdefault(minute, [])
        waiting.append(trade)
        outcomes = self._verdicts(lower, since, until, now)
        waiting.pop()
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
        since, until = run.told, floor_to(run.complete_until - GRACE, MINUTE)
        if self._doubt is not None:
            if len(self._trades) > _KEPT_UNTOLD:
                self._forget(Millis(until - _KEPT_UNTOLD * MINUTE))
            return []
        outcomes = self._verdicts(run, since, until, now)
        run.told = until
        self._forget(Millis(until - _KEPT_TOLD))
        return outcomes

    def _verdicts(self, run: _Run, since: Millis, until: Millis, now: Millis) -> list[Outcome]:
        outcomes: list[Outcome] = []
        evidence = f"trade ids up to {run.hi} contiguous, known until {run.complete_until}"
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
        for run in self._runs:
            run.told = max(run.told, horizon)


# --- rows that count their trades -------------------------------------------------------------------------

_SPANS_KEPT = 20
"""Unresolved minutes with trades that are still tried together; older ones are left to REST."""
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
        if self._base is not None and minute <= self._base[0]:
            proven = self._proven.get(minute)
            if proven is None or row == proven or count < (proven.trades_count or 0):
                return ()  # given up, long ago, the same, or an older state out of a snapshot
            # Ids had proven the minute and now the venue says otherwise: let the store see that they differ.
            self._proven[minute] = row
            late = Remark("late_row", f"{self.series} row of {minute} changed after it was proven")
            return (late, _candle_of(self.series, row, now))
        known = self._rows.get(minute)
        if count and (known is None or count >= (known.trades_count or 0)):
            self._rows[minute] = row
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
        if seen.trade_id < ids.lo:
            ids.lo = seen.trade_id
            return self._resolve(now)
        ids.hi = max(ids.hi, seen.trade_id)
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
        for minute, last_id in before:
            for after in minutes:
                if after - minute > MINUTE:
                    counted = sum(row.trades_count or 0 for at, row in self._rows.items() if minute < at < after)
                    if counted == self._ids[after].lo - 1 - last_id:
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


_ASSEMBLERS: dict[str, Callable[[Series, Millis], Assembler]] = {
    "coinbase": FromTrades,
    "kraken": FromCountedRows,
    "okx": FromStatedCloses,
}


def assembler_for(series: Series, frontier: Millis) -> Assembler:
    """The assembler that fits *series*' venue, owing verdicts from the minute *frontier* on."""
    return _ASSEMBLERS[series.venue](series, frontier)
