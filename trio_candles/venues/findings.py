"""What the answers of one fill prove, minute by minute: rows that state, trades whose ids prove.

::

    a row ───────────────────────────► stated ──┐ both must agree, else the minute is doubted
    trades, ids contiguous around it ► built  ──┤
                      and no trade in ► blank ──┘
    a broken rule, two rows that differ ► doubted, whatever else is said of the minute
    none of these ► open, and at last missing: with the first reason (:meth:`Findings.excuse`) that covers the minute

A minute's trades are all known when ids are contiguous from a trade before the minute to a trade after it. Of a minute
that is both stated and built the candle is the built one. Invariant of :meth:`Findings.filled`: every minute that was
asked for is in exactly one of candles, empties and missing, and no minute that is doubted or not settled is in the
first two. Where more rows differ from what was said before, or from the trades, than agree, the answers are of two
markets, and nothing is believed.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Generator, Iterable, Iterator
from itertools import groupby

import attrs

from trio_candles.candles.folding import fold_trades
from trio_candles.candles.intervals import subtract, touching
from trio_candles.candles.model import MINUTE, Candle, Empty, Millis, Series, Source, Trade, floor_to
from trio_candles.candles.validation import Rule, broken_rule
from trio_candles.venues.history import GRACE, Answer, Fill, Filled, Missing, Refusal, Request, Why, settled_until
from trio_candles.venues.protocol import Misunderstood

__all__ = ["Findings", "finish", "proven"]

Span = tuple[Millis, Millis]


@attrs.define
class Findings:
    """Collects what is said about one series; :meth:`filled` is the sum of it.

    The methods before :meth:`open` take what answers say, in any order; the others draw conclusions.
    """

    series: Series
    since: Millis
    until: Millis
    now: Millis
    why: str = Why.NO_ROW
    """Of minutes about which nothing was found out and nothing better is known."""
    understood: bool = False
    """Whether an answer has been understood."""
    _rows: dict[Millis, Candle | None] = attrs.field(factory=dict)
    """What the venue states; ``None``: that nothing traded."""
    _alike: int = 0
    """Rows that were stated before, and said the same then."""
    _unlike: int = 0
    """Rows that were stated before, and said something else."""
    _doubts: dict[Millis, str] = attrs.field(factory=dict)
    """Minutes that are not believed, whatever else is said about them."""
    _excuses: list[tuple[Millis, Millis, str]] = attrs.field(factory=list)
    _built: dict[Millis, Candle] = attrs.field(factory=dict)
    listed: tuple[Millis, str] | None = None
    """When the market began, and how that is known."""
    _rejected: dict[Millis, tuple[Candle, Rule]] = attrs.field(factory=dict)
    _blanks: list[Empty] = attrs.field(factory=list)
    """Spans without a trade, by ids; ascending and disjoint, as the trades prove them."""

    settled: Millis = attrs.field(init=False)
    """Minutes from here on are not believed yet."""

    def __attrs_post_init__(self) -> None:
        if self.since % MINUTE or self.until % MINUTE:
            raise ValueError(f"[{self.since}, {self.until}) are no whole minutes")
        self.settled = settled_until(self.now)

    # --- what is said

    def row(self, candle: Candle) -> None:
        """The venue states *candle*; unsettled it is ignored, against the rules it is rejected."""
        minute = floor_to(candle.open_time, MINUTE)
        if minute >= self.settled:
            return
        if not self._rejects(minute, candle):
            self._state(minute, candle)

    def _rejects(self, minute: Millis, candle: Candle) -> bool:
        rule = broken_rule(candle, self.now)
        if rule is not None:
            self._rejected.setdefault(minute, (candle, rule))
            self.doubt(minute, rule.value)
        return rule is not None

    def zero_row(self, minute: Millis) -> None:
        """The venue states that nothing traded in *minute*."""
        if minute < self.settled:
            self._state(minute, None)

    def _state(self, minute: Millis, stated: Candle | None) -> None:
        if minute not in self._rows:
            self._rows[minute] = stated
        elif self._rows[minute] == stated:
            self._alike += 1
        else:
            self._unlike += 1
            self.doubt(minute, Why.ROWS_DIFFER)

    def leaves_out(self, since: Millis, until: Millis) -> None:
        """The venue serves a row for every minute of ``[since, until)``: one that it does not have, it left out."""
        first, last = self.first_row(), max(self._rows, default=None)
        if first is not None and last is not None:
            self.excuse(max(since, first), min(until, last), Why.LEFT_OUT)

    def first_row(self) -> Millis | None:
        """The oldest minute of which there is a row."""
        return min(self._rows, default=None)

    def doubt(self, minute: Millis, why: str) -> None:
        """Believe nothing about *minute*."""
        self._doubts.setdefault(minute, why)

    def excuse(self, since: Millis, until: Millis, why: str) -> None:
        """Say *why* of those minutes that turn out to be missing; the first excuse counts."""
        self._excuses.append((since, until, why))

    def trades(self, known: Iterable[Trade]) -> None:
        """All trades that are known: they replace those given before."""
        verdicts = list(proven(self.series, known, self.now))
        self._built = {verdict.open_time: verdict for verdict in verdicts if isinstance(verdict, Candle)}
        self._blanks = sorted((v for v in verdicts if isinstance(v, Empty)), key=_since)
        for minute, candle in self._built.items():
            self._rejects(minute, candle)

    # --- what it comes to

    def open(self) -> list[Span]:
        """The settled spans that were asked for and have neither a verdict nor a doubt, ascending."""
        asked = map(Millis, range(self.since, min(self.until, self.settled), MINUTE))
        return _spans(minute for minute in asked if minute not in self._doubts and not self._is_known(minute))

    def _is_known(self, minute: Millis) -> bool:
        return minute in self._rows or minute in self._built or self._blank(minute) is not None

    def _blank(self, minute: Millis) -> Empty | None:
        index = bisect_right(self._blanks, minute, key=_since) - 1
        return self._blanks[index] if index >= 0 and minute < self._blanks[index].until else None

    def gains_from(self, known: Iterable[Trade]) -> bool:
        """Whether the *known* trades prove anything about a minute that was asked for."""
        verdicts = proven(self.series, known, self.now)
        return any(_since(verdict) < self.until and self.since < _until(verdict) for verdict in verdicts)

    def rows_agree_with(self, known: Iterable[Trade]) -> bool:
        """Whether the rows say what the *known* trades say: then both are of the same market."""
        trial = Findings(self.series, self.since, self.until, self.now, rows=self._rows)
        trial.trades(known)
        return trial._most_agree() is True

    def _most_agree(self) -> bool | None:
        if not self._built and not self._blanks:
            return None
        verdicts = [self._agree(minute) for minute in self._rows]
        yes, no = verdicts.count(True), verdicts.count(False)
        return None if yes == no == 0 else yes > no

    def filled(self) -> Filled:
        """Every minute that was asked for, once; and whatever else was proved."""
        rejected = tuple(pair for _, pair in sorted(self._rejected.items()))
        if self._unlike > self._alike:
            # The same as below: of two answers to one fill one may be of another market, and its other rows with it.
            return Filled((), (), (Missing(self.since, self.until, Why.ROWS_DIFFER),), rejected=rejected)
        if self._most_agree() is False:
            # No answer names its market at some venues: one of the two is of another, and nobody can tell which.
            return Filled((), (), (Missing(self.since, self.until, Why.ROWS_AND_TRADES_DIFFER),), rejected=rejected)
        candles: list[Candle] = []
        zeros: list[Millis] = []
        for minute in sorted(self._rows.keys() | self._built.keys()):
            if self._agree(minute) is False:
                self.doubt(minute, Why.ROW_AND_TRADES_DIFFER)
            if minute in self._doubts:
                continue
            candle = self._built.get(minute) or self._rows.get(minute)
            if candle is not None:
                candles.append(candle)
            elif self._blank(minute) is None:
                zeros.append(minute)
        empties = [Empty(self.series, *span, "zero row") for span in _spans(zeros)]
        doubts = _spans(sorted(self._doubts))
        for empty in self._blanks:
            for since, until in subtract([(empty.since, empty.until)], doubts):
                empties.append(attrs.evolve(empty, since=Millis(since), until=Millis(until)))
        empties.sort(key=_since)
        missing = [
            Missing(*span, why)
            for why, minutes in groupby(map(Millis, range(self.since, self.until, MINUTE)), self._missing)
            if why is not None
            for span in _spans(minutes)
        ]
        return Filled(tuple(candles), tuple(empties), tuple(missing), self.listed, rejected)

    def _agree(self, minute: Millis) -> bool | None:
        """Whether row and trades say the same of *minute*; ``None`` if one of them says nothing."""
        if not self._built and not self._blanks:
            return None
        built, blank = self._built.get(minute), self._blank(minute)
        if minute not in self._rows or (built is None and blank is None):
            return None
        row = self._rows[minute]
        if row is None or built is None:
            return row is built
        return row.same_as(built) and row.trades_count in (None, built.trades_count)

    def _missing(self, minute: Millis) -> str | None:
        """Why *minute* is missing; ``None`` if it is not."""
        if minute in self._doubts:
            return self._doubts[minute]
        if minute >= self.settled:
            return Why.UNSETTLED
        if self._is_known(minute):
            return None
        return next((why for since, until, why in self._excuses if since <= minute < until), self.why)


def _since(verdict: Candle | Empty) -> Millis:
    return verdict.open_time if isinstance(verdict, Candle) else verdict.since


def _until(verdict: Candle | Empty) -> Millis:
    return verdict.close_time if isinstance(verdict, Candle) else verdict.until


def _spans(minutes: Iterable[Millis]) -> list[Span]:
    """*minutes* (ascending), neighbours made one."""
    return [(Millis(since), Millis(until)) for since, until in touching(minutes)]


def finish(findings: Findings, steps: Generator[Request, Answer, None]) -> Fill:
    """Run *steps*, which tell *findings* what they learn, and sum up; what was proved survives what goes wrong."""
    try:
        yield from steps
    except Refusal as refusal:
        refusal.proven = findings.filled() if findings.understood else None
        raise
    except Misunderstood as error:
        if not findings.understood:
            raise
        findings.why = str(error)
    return findings.filled()


# --- trades -----------------------------------------------------------------------------------------------


@attrs.frozen
class _Run:
    """Trades with contiguous ids along which time does not go back."""

    trades: list[Trade]
    since: Millis
    """The first minute that began after a trade of the run."""
    until: Millis
    """The end of the last minute that ended before one."""


def proven(series: Series, known: Iterable[Trade], now: Millis) -> Iterator[Candle | Empty]:
    """What contiguous ids among the *known* trades prove about settled minutes.

    Ids ascend with time up to :data:`~trio_candles.venues.history.GRACE`, so the trades on either side must be that far
    from the minute; where a time goes back further, nothing is proven across. Before trade 1 there was none.
    """
    trades = sorted((trade for trade in known if trade.time <= now), key=lambda trade: trade.trade_id)
    by_minute: dict[Millis, list[Trade]] = {}
    for trade in trades:
        by_minute.setdefault(floor_to(trade.time, MINUTE), []).append(trade)
    minutes = sorted(by_minute)
    for run in _without_overlaps(_run(part, now) for part in _contiguous(trades)):
        lo, hi = run.trades[0].trade_id, run.trades[-1].trade_id
        before = max((trade.trade_id for trade in run.trades if trade.time < run.since), default=lo)
        since = run.since
        within = minutes[bisect_left(minutes, run.since) : bisect_left(minutes, run.until)]
        for minute in [*within, run.until]:
            if since < minute:
                yield Empty(series, since, minute, f"no trade between the ids {before} and {before + 1}")
            since = Millis(minute + MINUTE)
            # A trade of another run says that the minute is not what this run believes: no verdict.
            if minute < run.until and all(lo <= trade.trade_id <= hi for trade in by_minute[minute]):
                yield fold_trades(series, minute, by_minute[minute], Source.REST, now)
                before = max(trade.trade_id for trade in by_minute[minute])


def _run(trades: list[Trade], now: Millis) -> _Run:
    first, newest = trades[0], max(trade.time for trade in trades)
    since = floor_to(first.time, MINUTE) if first.trade_id == 1 else floor_to(first.time + GRACE + MINUTE - 1, MINUTE)
    return _Run(trades, since, min(floor_to(newest - GRACE, MINUTE), settled_until(now)))


def _contiguous(trades: Iterable[Trade]) -> Iterator[list[Trade]]:
    run: list[Trade] = []
    newest = 0
    for trade in trades:
        if run and (trade.trade_id != run[-1].trade_id + 1 or trade.time < newest - GRACE):
            yield run
            run, newest = [], 0
        run.append(trade)
        newest = max(newest, trade.time)
    if run:
        yield run


def _without_overlaps(runs: Iterable[_Run]) -> list[_Run]:
    """Those *runs* (by id) that prove anything; none of two that claim the same minute."""
    kept: list[_Run] = []
    reached = 0
    for run in runs:
        if run.since >= run.until:
            continue
        if run.since < reached:
            kept = [other for other in kept if other.until <= run.since]
        else:
            kept.append(run)
        reached = max(reached, run.until)
    return kept
