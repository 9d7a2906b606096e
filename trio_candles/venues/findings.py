"""What the answers of one fill prove about each minute: rows state a candle, trades with contiguous ids build one.

::

    a row ───────────────────────────► stated ──┐ both must agree, else the minute is doubted
    trades, ids contiguous around it ► built  ──┤
                      and no trade in ► blank ──┘
    a broken rule, two rows that differ ► doubted, whatever else is said of the minute
    a row that cannot be read ► says nothing, and others decide; where its minute is not known, absence says nothing
    none of these ► open, and at last missing: with the first reason (:meth:`Findings.excuse`) that covers the minute

A minute's trades are all known when ids are contiguous from a trade before the minute to a trade after it, or to the
newest trade of all, if the venue has said (:class:`~trio_candles.venues.history.Heard`) that none followed that one
until the minute was over. It does not matter who told a trade, the feed or REST. A minute that is both stated and built
takes the built candle. Invariant of :meth:`Findings.filled`: every minute that was
asked for is in exactly one of candles, empties and missing, and no minute that is doubted or not settled is in the
first two. If more rows differ than agree, with earlier rows of their minutes or with the trades, the answers are of
two markets, and nothing is believed.
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
from trio_candles.venues.history import (
    CLOCK,
    GRACE,
    NOTHING,
    Answer,
    Fill,
    Filled,
    Heard,
    Missing,
    Refusal,
    Request,
    Shown,
    Why,
    settled_until,
)
from trio_candles.venues.protocol import Misunderstood, TradeSeen

__all__ = ["Findings", "finish", "proven"]

Span = tuple[Millis, Millis]

_OF_ROWS = (Why.UNREADABLE, Why.ZERO_ROW_BREAKS_RULE, Why.LONG_SILENCE)


@attrs.define
class Findings:
    """Collects what the answers of one fill say about one series; :meth:`filled` is the result.

    The methods before :meth:`open` take what answers say, in any order; the others draw conclusions.
    """

    series: Series
    since: Millis
    until: Millis
    now: Millis
    heard: Heard = NOTHING
    """What the feed knows of the series."""
    why: str = Why.NO_ROW
    """Why a minute is missing that has neither a doubt nor an excuse."""
    understood: bool = False
    """Whether an answer has been understood."""
    _rows: dict[Millis, Candle | None] = attrs.field(factory=dict)
    """The first row of each minute; ``None``: it states that nothing traded."""
    _alike: int = 0
    """How many rows repeated a minute, and equalled its first row."""
    _unlike: int = 0
    """How many rows repeated a minute, and differed from its first row."""
    _doubts: dict[Millis, str] = attrs.field(factory=dict)
    """Minutes that are not believed, whatever else is said about them, and why."""
    _excuses: list[tuple[Millis, Millis, str]] = attrs.field(factory=list)
    """(since, until, why): why minutes of the span are missing, if they are; the first that covers a minute counts."""
    _built: dict[Millis, Candle] = attrs.field(factory=dict)
    """The candles built from trades."""
    unclear: str | None = None
    """The first thing in the answers that was not understood."""
    listed: tuple[Millis, str] | None = None
    """The minute in which the market began, and how that is known."""
    shown: Shown | None = None
    """What the answers showed of the newest trade."""
    _rejected: dict[Millis, tuple[Candle, Rule]] = attrs.field(factory=dict)
    """The first candle of each minute that breaks a rule, and the rule."""
    _blanks: list[Empty] = attrs.field(factory=list)
    """Spans without a trade, by ids; ascending and disjoint, as the trades prove them."""

    settled: Millis = attrs.field(init=False)
    """Minutes from this one on are too young to be believed."""

    def __attrs_post_init__(self) -> None:
        if self.since % MINUTE or self.until % MINUTE:
            raise ValueError(f"[{self.since}, {self.until}) are no whole minutes")
        self.settled = settled_until(self.now)
        if self.heard.trades:
            self.trades(())

    # --- what answers say

    def row(self, candle: Candle) -> None:
        """Take a row that states *candle*: ignored if its minute is not settled, rejected if it breaks a rule."""
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
        """Take a row that states that nothing traded in *minute*."""
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
        """Excuse the minutes of ``[since, until)`` between the oldest and the newest row as left out: the venue serves
        a row for every minute.
        """
        first, last = self.first_row(), max(self._rows, default=None)
        if first is not None and last is not None:
            self.excuse(max(since, first), min(until, last), Why.LEFT_OUT)

    def first_row(self) -> Millis | None:
        """The oldest minute of which there is a row."""
        return min(self._rows, default=None)

    def doubt(self, minute: Millis, why: str) -> None:
        """Believe nothing about *minute*."""
        self._doubts.setdefault(minute, why)

    def unread(self, span: Span | None, why: str) -> None:
        """Take a row or trade about *span* that cannot be read (*why*): it says nothing, so other evidence may decide.

        Where *span* cannot be read, either (``None``), any minute may be meant: no absence proves anything then.
        """
        self.unclear = self.unclear or why
        self.excuse(*(span or (self.since, self.until)), Why.UNREADABLE)

    def excuse(self, since: Millis, until: Millis, why: str) -> None:
        """Give *why* as the reason of those minutes that turn out to be missing; the first excuse counts. Where a part
        of the answers could not be read, a hole in trade ids may be that part, and is no absence.
        """
        if self.unclear is not None and why in (Why.ID_HOLE, Why.NO_TRADE_BEFORE):
            why = Why.UNREADABLE
        self._excuses.append((since, until, why))

    def quiet(self, newest: int, until: Millis) -> None:
        """Take that before *until* (the venue's time, Unix ms) no trade followed the trade of the id *newest*.

        Nothing follows from answers of which a part could not be read: that part may have been such a trade.
        """
        if self.unclear is not None:
            return
        known = self.heard.quiet_until if self.heard.newest == newest else Millis(0)
        self.heard = attrs.evolve(self.heard, newest=newest, quiet_until=max(known, until))

    def show(self, newest: int, apart: int) -> None:
        """Take that the answers showed no trade after the one of the id *newest*.

        One answer may be old, or cut. What an earlier fill was shown, asked at least *apart* ms ago, and what this one
        was shown is two tellings, of which the later one is newer than that earlier question, if *apart* is longer than
        any cache keeps an answer. So no trade followed until then, less :data:`~trio_candles.venues.history.CLOCK`.
        """
        if self.unclear is not None:
            return
        before, now = self.heard.shown, Shown(newest, self.now)
        if before is None or before.id != newest or before.asked > now.asked:
            self.shown = now
        elif before.asked > now.asked - apart:
            self.shown = before
        else:
            self.shown = now
            self.quiet(newest, Millis(before.asked - CLOCK))

    def saw(self, newest: int) -> None:
        """Take that the answers showed the trade of the id *newest*, which the feed may not know: answers that end
        before this trade are older. Only of answers that name their market.
        """
        before = self.heard.shown
        if newest > max(self.heard.newest, 0 if before is None else before.id):
            self.shown = Shown(newest, self.now)

    def trades(self, known: Iterable[Trade]) -> None:
        """Take all trades that are *known* from answers; they replace the trades given before. Those that the feed told
        join them; a trade that is told in two ways counts as untold, which is a hole among the ids.
        """
        verdicts = list(self._proven(known))
        self._built = {verdict.open_time: verdict for verdict in verdicts if isinstance(verdict, Candle)}
        self._blanks = sorted((v for v in verdicts if isinstance(v, Empty)), key=_since)
        for minute, candle in self._built.items():
            self._rejects(minute, candle)

    def _proven(self, known: Iterable[Trade]) -> Iterator[Candle | Empty]:
        told: dict[int, Told] = {trade.trade_id: trade for trade in known}
        for trade in self.heard.trades:
            if not same_trade(told.setdefault(trade.trade_id, trade), trade):
                del told[trade.trade_id]
        return proven(self.series, told.values(), self.now, self.heard)

    # --- conclusions

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
        """Whether the *known* trades and those that the feed told prove anything about a minute that was asked for."""
        verdicts = self._proven(known)
        return any(_since(verdict) < self.until and self.since < _until(verdict) for verdict in verdicts)

    def rows_agree_with(self, known: Iterable[Trade]) -> bool:
        """Whether more rows agree with the *known* trades of REST than differ: then both are of the same market."""
        trial = Findings(self.series, self.since, self.until, self.now, rows=self._rows)
        trial.trades(known)
        return trial._most_agree() is True

    def _most_agree(self) -> bool | None:
        """Whether more rows agree with the trades than differ; ``None`` if no minute has both."""
        if not self._built and not self._blanks:
            return None
        verdicts = [self._agree(minute) for minute in self._rows]
        yes, no = verdicts.count(True), verdicts.count(False)
        return None if yes == no == 0 else yes > no

    def filled(self) -> Filled:
        """Every minute that was asked for, once, and the other minutes that were proved."""
        rejected = tuple(pair for _, pair in sorted(self._rejected.items()))
        if self._unlike > self._alike:
            # One of the answers to this fill may be of another market, and then its other rows are, too.
            return self._nothing(Why.ROWS_DIFFER, rejected)
        if self._most_agree() is False:
            # At some venues no answer names its market: rows or trades are of another one, and nobody can tell which.
            return self._nothing(Why.ROWS_AND_TRADES_DIFFER, rejected)
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
        return Filled(tuple(candles), tuple(empties), tuple(missing), self.listed, rejected, self.unclear, self.shown)

    def _nothing(self, why: str, rejected: tuple[tuple[Candle, Rule], ...]) -> Filled:
        missing = Missing(self.since, self.until, why)
        return Filled((), (), (missing,), rejected=rejected, unclear=self.unclear)

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
        whys = [why for since, until, why in self._excuses if since <= minute < until] or [self.why]
        # What is wrong with a row leads to the trades: where those were not reached, another fill will reach them.
        return Why.NOT_REACHED if whys[0] in _OF_ROWS and Why.NOT_REACHED in whys else whys[0]


def _since(verdict: Candle | Empty) -> Millis:
    return verdict.open_time if isinstance(verdict, Candle) else verdict.since


def _until(verdict: Candle | Empty) -> Millis:
    return verdict.close_time if isinstance(verdict, Candle) else verdict.until


def _spans(minutes: Iterable[Millis]) -> list[Span]:
    """*minutes* (ascending), neighbours made one."""
    return [(Millis(since), Millis(until)) for since, until in touching(minutes)]


def finish(findings: Findings, steps: Generator[Request, Answer, None]) -> Fill:
    """Run *steps*, which give *findings* what they learn, and return the result.

    What earlier answers proved survives an error: a :class:`Refusal` is raised with ``proven``, and a
    :class:`Misunderstood` after an answer that was understood ends the fill, with its text as why minutes are missing.
    """
    try:
        yield from steps
    except Refusal as refusal:
        refusal.proven = findings.filled() if findings.understood else None
        raise
    except Misunderstood as error:
        if not findings.understood:
            raise
        findings.why = str(error)
        findings.unclear = findings.unclear or str(error)
    return findings.filled()


# --- trades -----------------------------------------------------------------------------------------------


Told = Trade | TradeSeen


def same_trade(one: Told, other: Told) -> bool:
    """Whether *one* and *other*, of the same id, can be the same trade: a feed may tell the time alone, and venues
    round times, so that two tellings may differ by a millisecond.
    """
    if isinstance(one, Trade) and isinstance(other, Trade):
        return one == other
    return abs(one.time - other.time) <= 1


@attrs.frozen
class _Run:
    """Trades with contiguous ids along which time does not go back."""

    trades: list[Told]
    since: Millis
    """The first minute that the run can prove: it began :data:`GRACE` after the first trade, or has trade 1."""
    until: Millis
    """The end of the last minute that the run can prove: settled, and over :data:`GRACE` before the newest trade, or
    before the time until which the venue said that none followed it."""


def proven(series: Series, known: Iterable[Told], now: Millis, heard: Heard = NOTHING) -> Iterator[Candle | Empty]:
    """What contiguous ids among the *known* trades prove about settled minutes: candles and spans without a trade.

    Times ascend with ids up to :data:`~trio_candles.venues.history.GRACE`, so the trades on either side must be that
    far from the minute; a time that goes back further ends the run of trades. Before trade 1 there was no trade, and
    after the newest one none until ``heard.quiet_until``. A trade without numbers proves as the others do, but its
    minute has no candle.
    """
    trades = sorted((trade for trade in known if trade.time <= now), key=lambda trade: trade.trade_id)
    by_minute: dict[Millis, list[Told]] = {}
    for trade in trades:
        by_minute.setdefault(floor_to(trade.time, MINUTE), []).append(trade)
    minutes = sorted(by_minute)
    for run in _without_overlaps(_run(part, now, heard) for part in _contiguous(trades)):
        lo, hi = run.trades[0].trade_id, run.trades[-1].trade_id
        before = max((trade.trade_id for trade in run.trades if trade.time < run.since), default=lo)
        since = run.since
        within = minutes[bisect_left(minutes, run.since) : bisect_left(minutes, run.until)]
        for minute in [*within, run.until]:
            if since < minute:
                words = f"between the ids {before} and {before + 1}"
                if before == hi:
                    words = f"after the id {hi} until {heard.quiet_until}"
                yield Empty(series, since, minute, f"no trade {words}")
            since = Millis(minute + MINUTE)
            # A trade of another run in the minute contradicts this run, which does not have it: no verdict.
            if minute < run.until and all(lo <= trade.trade_id <= hi for trade in by_minute[minute]):
                numbered = [trade for trade in by_minute[minute] if isinstance(trade, Trade)]
                if len(numbered) == len(by_minute[minute]):
                    yield fold_trades(series, minute, numbered, Source.REST, now)
                before = max(trade.trade_id for trade in by_minute[minute])


def _run(trades: list[Told], now: Millis, heard: Heard) -> _Run:
    first, newest = trades[0], max(trade.time for trade in trades)
    if trades[-1].trade_id == heard.newest:
        newest = max(newest, heard.quiet_until)
    since = floor_to(first.time, MINUTE) if first.trade_id == 1 else floor_to(first.time + GRACE + MINUTE - 1, MINUTE)
    return _Run(trades, since, min(floor_to(newest - GRACE, MINUTE), settled_until(now)))


def _contiguous(trades: Iterable[Told]) -> Iterator[list[Told]]:
    run: list[Told] = []
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
    """Those of *runs* (by id) that prove anything; of two that claim the same minute neither."""
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
