"""What an assembler may say and must say, over small generated markets and hostile deliveries of them.

The oracle knows every trade and shares nothing with the code: a candle must be the fold of *all* trades of its
minute, an empty span must have none, and first verdicts must follow one another without a hole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from decimal import Decimal
from fractions import Fraction
from functools import partial

import attrs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trio_candles.assembly import AHEAD, Assembler, Outcome, Rejected, Remark, assembler_for
from trio_candles.candles.model import MINUTE, Candle, Empty, Millis, Series, Source, Trade, Unsure
from trio_candles.venues.protocol import Event, Heartbeat, Proof, Row, Traded, TradeSeen
from trio_candles.venues.registry import VENUES

NOON = Millis(1_768_046_400_000)
"""The first minute that is owed a verdict."""
BEGIN = Millis(NOON - MINUTE)
END = Millis(NOON + 5 * MINUTE)
SYMBOL = "X-USD"
FIRST_ID = 11

thorough = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


# --- the market, and what is true of it -------------------------------------------------------------------


def minute_of(time: int) -> Millis:
    return Millis(time // MINUTE * MINUTE)


@attrs.frozen
class World:
    """All trades of six minutes; ids are contiguous and times ascend."""

    trades: tuple[Trade, ...]

    def within(self, since: int, until: int) -> list[Trade]:
        return [trade for trade in self.trades if since <= trade.time < until]

    def last_id(self, time: int) -> int:
        """The newest id at *time*: what an honest heartbeat names."""
        return max((trade.trade_id for trade in self.trades if trade.time <= time), default=FIRST_ID - 1)

    def truth(self, minute: int) -> tuple[object, ...] | None:
        """The minute's columns, correctly rounded from exact fractions; ``None`` if nothing traded."""
        trades = self.within(minute, minute + MINUTE)
        if not trades:
            return None
        prices = [float(trade.price) for trade in trades]
        volume = sum(Fraction(trade.size) for trade in trades)
        quote = sum(Fraction(trade.size) * Fraction(trade.price) for trade in trades)
        return (
            prices[0], max(prices), min(prices), prices[-1],
            float(volume), float(quote), float(quote / volume), len(trades),
        )  # fmt: skip


@st.composite
def worlds(draw: st.DrawFn, least: int = 0) -> World:
    """Up to sixteen trades on a grid of 100 ms, so that the boundaries of minutes are hit."""
    ticks = sorted(draw(st.lists(st.integers(0, (END - BEGIN) // 100 - 1), min_size=least, max_size=16)))
    tenths = draw(st.lists(st.integers(1, 9), min_size=len(ticks), max_size=len(ticks)))
    return World(
        tuple(
            Trade(FIRST_ID + n, Millis(BEGIN + tick * 100), Decimal(price) / 10, Decimal(1 + n % 3) / 100)
            for n, (tick, price) in enumerate(zip(ticks, tenths, strict=True))
        )
    )


# --- the judge --------------------------------------------------------------------------------------------


@attrs.define
class Judge:
    """Drives an assembler second by second and objects to anything untrue, unordered or uncalled for."""

    world: World
    assembler: Assembler
    skew: int = 0
    """Our clock minus the venue's."""
    earliest: int = 0
    volume_only: bool = False
    """Whether rows carry no quote volume and no average price."""
    frontier: int = NOON
    proven: set[int] = attrs.field(factory=set)
    gaps: set[int] = attrs.field(factory=set)
    """Minutes whose first verdict was "unsure"."""
    doubted: bool = False
    clock: int = BEGIN

    def tick(self, moment: int) -> None:
        """Let time pass up to *moment*, which is on the venue's clock, asking every four seconds what is due."""
        while self.clock + 4_000 <= moment:
            self.clock += 4_000
            now = Millis(self.clock + self.skew)
            self.judge(self.assembler.due(now), now)

    def hear(self, event: Event, moment: int) -> None:
        now = Millis(moment + self.skew)
        self.judge(self.assembler.hear(event, now), now)

    def finish(self, moment: int) -> None:
        self.tick(moment)
        now = Millis(moment + self.skew)
        self.judge(self.assembler.give_up(minute_of(now)), now)
        assert self.frontier >= minute_of(now), "a minute that is over has no verdict"

    def judge(self, outcomes: Iterable[Outcome], now: Millis) -> None:
        for outcome in outcomes:
            if isinstance(outcome, Remark):
                continue
            assert not isinstance(outcome, Rejected), outcome
            since, until = span_of(outcome)
            assert since % MINUTE == until % MINUTE == 0
            assert self.earliest <= since < until <= now + AHEAD
            self.check_order(outcome, since, until)
            if not isinstance(outcome, Unsure):
                assert not self.doubted, "proven while the venue doubts itself"
                self.check_truth(outcome)
                self.proven.update(range(since, until, MINUTE))
        assert self.assembler.frontier == self.frontier

    def check_order(self, outcome: Candle | Empty | Unsure, since: int, until: int) -> None:
        if until <= self.frontier:
            assert not isinstance(outcome, Unsure), "doubt after the first verdict"
            return
        assert since <= self.frontier, "a hole at the frontier"
        assert since == self.frontier or isinstance(outcome, Empty), "an overlap at the frontier"
        self.frontier = until
        if isinstance(outcome, Unsure):
            assert outcome.reason
            self.gaps.update(range(since, until, MINUTE))

    def check_truth(self, outcome: Candle | Empty) -> None:
        if isinstance(outcome, Empty):
            assert self.world.within(outcome.since, outcome.until) == [], "called empty"
            assert outcome.evidence
            return
        truth = self.world.truth(outcome.open_time)
        assert truth is not None
        quotes = (None, None) if self.volume_only else truth[5:7]
        assert truth[:5] == (outcome.open, outcome.high, outcome.low, outcome.close, outcome.volume)
        assert quotes == (outcome.quote_volume, outcome.vwap)
        assert truth[7] == outcome.trades_count
        assert (outcome.source, outcome.is_closed) == (Source.WEBSOCKET, True)


def span_of(verdict: Candle | Empty | Unsure) -> tuple[int, int]:
    if isinstance(verdict, Candle):
        assert verdict.close_time == verdict.open_time + MINUTE
        return verdict.open_time, verdict.close_time
    return verdict.since, verdict.until


def judge_of(world: World, venue: str, skew: int = 0, earliest: int = 0) -> Judge:
    assembler = assembler_for(VENUES[venue].proof, Series(venue, SYMBOL), NOON, Millis(earliest))
    assembler.connected(Millis(BEGIN + skew))
    return Judge(world, assembler, skew, earliest, volume_only=venue == "kraken")


# --- what happens to messages on their way ----------------------------------------------------------------

Step = tuple[int, int, Callable[[Judge], None]]
"""(moment on the venue's clock, order among those of one moment, what happens)"""


def heard(event: Event, moment: int) -> Step:
    return (moment, 1, lambda judge: judge.hear(event, moment))


def play(judge: Judge, steps: Iterable[Step]) -> None:
    for moment, _, act in sorted(steps, key=lambda step: step[:2]):
        judge.tick(moment)
        act(judge)


def disconnect(moment: int, judge: Judge) -> None:
    judge.assembler.disconnected(Millis(moment + judge.skew))


def connect(moment: int, judge: Judge) -> None:
    judge.assembler.connected(Millis(moment + judge.skew))


def cut(steps: list[Step], since: int, until: int, replay: Iterable[Event]) -> list[Step]:
    """*steps* with a lost connection: nothing is heard in ``[since, until)``, then *replay*."""
    rest = [step for step in steps if not since <= step[0] < until]
    again = [heard(event, until) for event in replay]
    return [*rest, (since, 0, partial(disconnect, since)), (until, 0, partial(connect, until)), *again]


def doubt(text: str | None, judge: Judge) -> None:
    judge.doubted = text is not None
    judge.assembler.doubted(text)


@attrs.frozen
class Fate:
    """What becomes of a message."""

    dropped: bool = False
    delay: int = 0
    again: int | None = None
    """Delivered once more, so much later."""

    def of(self, event: Event, time: int) -> Iterable[Step]:
        if not self.dropped:
            yield heard(event, time + self.delay)
            if self.again is not None:
                yield heard(event, time + self.delay + self.again)


GOOD = Fate()
DELAYS = st.sampled_from([40, 400, 900, 2_000, 9_000, 70_000, 150_000])
LATE = st.builds(Fate, st.just(False), DELAYS, st.none() | DELAYS)
FATES = st.one_of(st.just(GOOD), st.just(GOOD), st.just(GOOD), st.just(Fate(dropped=True)), LATE)
SKEWS = st.sampled_from([0, -50_000, 50_000])
MOMENTS = st.integers(BEGIN // 1000, END // 1000 + 20).map(lambda second: second * 1000 + 50)
BREAKS = st.lists(st.tuples(MOMENTS, st.sampled_from([0, 100, 3_000, 20_000, 130_000])), max_size=2)
DOUBTS = st.none() | st.tuples(MOMENTS, MOMENTS)


def several(one: st.SearchStrategy, count: int) -> st.SearchStrategy[list]:
    return st.lists(one, min_size=count, max_size=count)


@st.composite
def ids_lost(draw: st.DrawFn, world: World) -> range:
    """A run of ids that the feed skips, across whatever boundary."""
    first = FIRST_ID + draw(st.integers(0, len(world.trades)))
    return range(first, first + draw(st.sampled_from([0, 0, 1, 2, 5])))


@st.composite
def interrupted(draw: st.DrawFn, steps: list[Step], replay: Callable[[int], Iterable[Event]]) -> list[Step]:
    """*steps* with lost connections and a span of doubt."""
    for since, length in draw(BREAKS):
        steps = cut(steps, since, since + length, replay(since + length))
    span = draw(DOUBTS)
    if span is not None:
        steps = [*steps, (min(span), 0, partial(doubt, "maintenance")), (max(span), 2, partial(doubt, None))]
    return steps


# --- trades and heartbeats --------------------------------------------------------------------------------


def last_match(world: World, moment: int) -> list[Event]:
    return [Traded(SYMBOL, trade) for trade in world.trades if trade.time <= moment][-1:]


BEATS = [Millis(time) for time in range(BEGIN + 37, END + 60_000, 6_000)]
HOWS = st.sampled_from(["honest"] * 4 + ["stale", "dropped", "zero", "lower", "higher", "future"])


def beat_of(world: World, time: Millis, how: str = "honest", delay: int = 0) -> Iterable[Step]:
    said = world.last_id(time)
    if how == "stale":
        said = world.last_id(time - 900)  # the heartbeat's clock and the engine's are not one
    elif how == "zero":
        said = 0
    elif how == "lower":
        said = FIRST_ID - 1
    elif how == "higher":
        said += 1 + time // 1000 % 3
    elif how == "future":
        moment = time + delay
        yield (
            moment,
            1,
            lambda judge: judge.hear(Heartbeat(SYMBOL, Millis(moment + judge.skew + AHEAD + 1), said), moment),
        )
    if how not in ("dropped", "future"):
        yield heard(Heartbeat(SYMBOL, time, said), time + delay)


@st.composite
def hostile_trades(draw: st.DrawFn) -> tuple[World, list[Step]]:
    world = draw(worlds())
    lost = draw(ids_lost(world))
    steps: list[Step] = []
    for trade, fate in zip(world.trades, draw(several(FATES, len(world.trades))), strict=True):
        if trade.trade_id not in lost:
            steps += fate.of(Traded(SYMBOL, trade), trade.time)
    fates = draw(several(st.tuples(HOWS, st.sampled_from([0, 0, 0, 500, 8_000])), len(BEATS)))
    for time, (how, delay) in zip(BEATS, fates, strict=True):
        steps += beat_of(world, time, how, delay)
    return world, draw(interrupted(steps, partial(last_match, world)))


@thorough
@given(hostile_trades(), SKEWS, st.sampled_from([0, BEGIN, NOON]))
def test_from_trades_never_says_what_is_not_true(case: tuple[World, list[Step]], skew: int, earliest: int) -> None:
    world, steps = case
    judge = judge_of(world, "coinbase", skew, earliest)
    play(judge, steps)
    judge.finish(END + 300_000)


@thorough
@given(worlds(), SKEWS, BREAKS)
def test_from_trades_proves_every_minute_after_the_first_trade_with_the_next_heartbeat(
    world: World, skew: int, breaks: list[tuple[int, int]]
) -> None:
    """Lost connections included, as long as at most the trade that ``last_match`` repeats fell into each."""
    steps = [heard(Traded(SYMBOL, trade), trade.time) for trade in world.trades]
    steps += [step for time in BEATS for step in beat_of(world, time)]
    heard_until = BEGIN
    for since, length in sorted(breaks):
        until = since + length
        if since >= heard_until and len(world.within(since, until)) <= 1:
            steps = cut(steps, since, until, last_match(world, until))
            heard_until = until
    judge = judge_of(world, "coinbase", skew)
    first = minute_of(world.trades[0].time) + MINUTE if world.trades else END
    for step in sorted(steps, key=lambda step: step[:2]):
        play(judge, [step])
        if step[0] in BEATS:
            assert judge.proven >= set(range(first, minute_of(step[0] - 1000), MINUTE))
    judge.finish(END + 60_000)


@thorough
@given(st.data())
def test_from_trades_proves_every_minute_once_everything_has_arrived(data: st.DataObject) -> None:
    """Late by minutes, twice, in any order: what is there in the end is proven in the end."""
    world = data.draw(worlds(least=1))
    steps: list[Step] = []
    for trade, fate in zip(
        world.trades, data.draw(several(st.one_of(st.just(GOOD), LATE), len(world.trades))), strict=True
    ):
        steps += fate.of(Traded(SYMBOL, trade), trade.time)
    for time, how in zip(BEATS, data.draw(several(HOWS, len(BEATS))), strict=True):
        steps += beat_of(world, time, how)
    end = Millis(max(END + 1_000, *(step[0] for step in steps)) + 1)
    steps += beat_of(world, end)
    judge = judge_of(world, "coinbase", data.draw(SKEWS))
    play(judge, steps)
    assert judge.proven >= set(range(minute_of(world.trades[0].time) + MINUTE, END, MINUTE))


@thorough
@given(st.data())
def test_from_trades_calls_no_minute_a_gap_for_trades_that_came_in_another_order(data: st.DataObject) -> None:
    """Two seconds of disorder are well within the eight that a minute may wait."""
    world = data.draw(worlds(least=1))
    delays = data.draw(several(st.sampled_from([0, 100, 900, 2_000]), len(world.trades)))
    steps = [heard(Traded(SYMBOL, t), t.time + delay) for t, delay in zip(world.trades, delays, strict=True)]
    times = [Millis(time) for time in range(BEGIN + 37, END + 10_000, 1_000)]
    steps += [step for time in times for step in beat_of(world, time)]
    judge = judge_of(world, "coinbase")
    play(judge, steps)
    wanted = set(range(minute_of(world.trades[0].time) + MINUTE, END, MINUTE))
    assert judge.proven >= wanted
    assert not judge.gaps & wanted


# --- rows that count their trades -------------------------------------------------------------------------


def row_of(world: World, minute: int, until: int) -> Row | None:
    """The venue's row of *minute* as it stood when trades before the id *until* had happened."""
    trades = [trade for trade in world.within(minute, minute + MINUTE) if trade.trade_id < until]
    if not trades:
        return None
    o, h, low, c, volume, _, _, count = World(tuple(trades)).truth(minute)
    return Row(SYMBOL, Millis(minute), Millis(minute + MINUTE), o, h, low, c, volume, None, None, count, closed=False)


def snapshot(world: World, moment: int, stale: int = 0, replayed: int = 3) -> list[Event]:
    """What Kraken says to a new subscriber: its rows, as of some time before, and the last trades."""
    until = world.last_id(moment - stale) + 1
    rows = [row_of(world, minute, until) for minute in range(BEGIN, END, MINUTE)]
    trades = [trade for trade in world.trades if trade.time <= moment][-replayed:]
    return [row for row in rows if row is not None] + [TradeSeen(SYMBOL, t.trade_id, t.time) for t in trades]


@st.composite
def hostile_rows(draw: st.DrawFn) -> tuple[World, list[Step]]:
    world = draw(worlds())
    lost = draw(ids_lost(world))
    steps: list[Step] = []
    fates = draw(several(st.tuples(FATES, FATES, st.booleans()), len(world.trades)))
    for trade, (trade_fate, row_fate, row_first) in zip(world.trades, fates, strict=True):
        row = row_of(world, minute_of(trade.time), trade.trade_id + 1)
        assert row is not None
        said = (
            []
            if trade.trade_id in lost
            else list(trade_fate.of(TradeSeen(SYMBOL, trade.trade_id, trade.time), trade.time))
        )
        stated = list(row_fate.of(row, trade.time))
        steps += [*stated, *said] if row_first else [*said, *stated]
    for moment, stale in draw(st.lists(st.tuples(MOMENTS, st.sampled_from([0, 500, 30_000, 90_000])), max_size=3)):
        steps += [heard(event, moment) for event in snapshot(world, moment, stale, draw(st.sampled_from([0, 1, 3])))]
    return world, draw(interrupted(steps, partial(snapshot, world, stale=draw(st.sampled_from([0, 30_000])))))


@thorough
@given(hostile_rows(), SKEWS, st.sampled_from([0, BEGIN, NOON]))
def test_from_counted_rows_never_says_what_is_not_true(
    case: tuple[World, list[Step]], skew: int, earliest: int
) -> None:
    world, steps = case
    judge = judge_of(world, "kraken", skew, earliest)
    play(judge, steps)
    judge.finish(END + 300_000)


@thorough
@given(worlds(), SKEWS, st.data())
def test_from_counted_rows_proves_every_minute_at_the_first_trade_after_it(
    world: World, skew: int, data: st.DataObject
) -> None:
    """Trades that the feed skips in the middle of a minute do not matter."""
    judge = judge_of(world, "kraken", skew)
    first: int | None = None
    row_first = data.draw(st.booleans())
    for trade in world.trades:
        minute = minute_of(trade.time)
        ids = [other.trade_id for other in world.within(minute, minute + MINUTE)]
        row = row_of(world, minute, trade.trade_id + 1)
        assert row is not None
        steps = [heard(row, trade.time)]
        if trade.trade_id in (ids[0], ids[-1]) or data.draw(st.booleans()):
            steps.insert(row_first, heard(TradeSeen(SYMBOL, trade.trade_id, trade.time), trade.time))
            first = minute if first is None else first
        play(judge, steps)
        if first is not None:
            assert judge.proven >= set(range(first + MINUTE, minute, MINUTE))
    judge.finish(END + 300_000)


@thorough
@given(st.data())
def test_from_counted_rows_proves_every_minute_although_everything_came_in_another_order(data: st.DataObject) -> None:
    """Two seconds of disorder, rows and trades alike; the last trade is one of a later minute."""
    world = data.draw(worlds(least=1))
    steps: list[Step] = []
    delays = st.sampled_from([0, 100, 900, 2_000])
    for trade, (one, two) in zip(
        world.trades, data.draw(several(st.tuples(delays, delays), len(world.trades))), strict=True
    ):
        row = row_of(world, minute_of(trade.time), trade.trade_id + 1)
        assert row is not None
        steps += [heard(TradeSeen(SYMBOL, trade.trade_id, trade.time), trade.time + one), heard(row, trade.time + two)]
    after = Millis(END + 5_000)
    steps.append(heard(TradeSeen(SYMBOL, FIRST_ID + len(world.trades), after), after))
    judge = judge_of(world, "kraken", data.draw(SKEWS))
    play(judge, steps)
    assert judge.proven >= set(range(minute_of(world.trades[0].time) + MINUTE, END, MINUTE))


# --- rows that say they are closed ------------------------------------------------------------------------


@thorough
@given(
    st.lists(st.tuples(st.integers(-2, 4), st.booleans(), DELAYS, st.integers(1, 3)), max_size=20),
    BREAKS,
    DOUBTS,
    SKEWS,
)
def test_from_stated_closes_says_what_was_stated_and_nothing_else(
    said: list[tuple[int, bool, int, int]], breaks: list[tuple[int, int]], span: tuple[int, int] | None, skew: int
) -> None:
    """Repeated, conflicting, late rows: each closed one is a candle, and no silence is an empty minute."""
    outcomes: list[Outcome] = []
    expected: list[tuple[int, float]] = []

    @attrs.define
    class Listener(Judge):
        def judge(self, heard: Iterable[Outcome], now: Millis) -> None:
            heard = list(heard)
            outcomes.extend(heard)
            for outcome in heard:
                assert not isinstance(outcome, (Empty, Remark, Rejected))
                since, until = span_of(outcome)
                assert since >= self.earliest
                self.check_order(outcome, since, until)
            assert self.assembler.frontier == self.frontier

    def state(row: Row, moment: int, judge: Judge) -> None:
        if row.closed and row.open_time >= BEGIN and not judge.doubted:
            expected.append((row.open_time, row.close))
        judge.hear(row, moment)

    steps: list[Step] = []
    for minute, closed, delay, price in said:
        since = Millis(NOON + minute * MINUTE)
        row = Row(SYMBOL, since, Millis(since + MINUTE), price, price, price, price, 1.0, 1.0, None, None, closed)
        moment = max(since + MINUTE, NOON) + delay
        if not any(start <= moment < start + length for start, length in breaks):
            steps.append((moment, 1, partial(state, row, moment)))
    for start, length in breaks:
        steps = cut(steps, start, start + length, ())
    if span is not None:
        steps += [(min(span), 0, partial(doubt, "maintenance")), (max(span), 2, partial(doubt, None))]
    assembler = assembler_for(Proof.STATED_CLOSES, Series("okx", SYMBOL), NOON, BEGIN)
    judge = Listener(World(()), assembler, skew, BEGIN)
    play(judge, steps)
    judge.finish(END + 300_000)
    assert [(c.open_time, c.close) for c in outcomes if isinstance(c, Candle)] == expected
