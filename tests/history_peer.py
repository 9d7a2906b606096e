"""A peer for the REST histories: a simulated venue in memory, its truth, and a judge of what a fill claims to know."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from itertools import pairwise

import attrs
import trio

from trio_candles.candles.model import MINUTE, Candle, Empty, Millis, Series, Source
from trio_candles.simulator import Market
from trio_candles.simulator.exchange import SimulatedExchange
from trio_candles.simulator.text import Request as SimulatedRequest
from trio_candles.venues.history import NOTHING, Answer, Fill, Filled, Heard, History, Request, Using, settled_until
from trio_candles.venues.registry import VENUES

NOON = Millis(1_788_415_200_000)
HISTORIES: dict[str, History] = {name: venue.history for name, venue in VENUES.items()}
Spoil = Callable[[Request, Answer], Answer]
MARKET = Market(7)
"""One for all tests: it is a pure function of its seed, and remembers what it has computed."""


@attrs.define
class Peer:
    """One simulated venue, and the fills that are run against it."""

    venue: str
    market: Market = MARKET
    now: Millis = NOON
    spoil: Spoil | None = None
    """What happens to an answer on its way."""
    requests: list[Request] = attrs.field(factory=list)
    exchange: SimulatedExchange = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.exchange = SimulatedExchange(self.venue, self.market, lambda: self.now)
        self.exchange.faults.lift_limits = True

    @property
    def history(self) -> History:
        return HISTORIES[self.venue]

    async def ask(self, request: Request) -> Answer:
        """One request a second, as far as the venue's clock is concerned."""
        assert request.bucket in self.history.rates
        assert all(isinstance(text, str) for text in request.params.values())
        self.requests.append(request)
        self.now = Millis(self.now + 1_000)
        response = await self.exchange.answer(
            SimulatedRequest("GET", request.path, dict(request.params), {"user-agent": "tests"})
        )
        retry_after = response.headers.get("retry-after")
        answer = Answer(response.status, response.body, None if retry_after is None else float(retry_after))
        return self.spoil(request, answer) if self.spoil is not None else answer

    async def run(self, fill: Fill) -> Filled:
        try:
            request = next(fill)
            while True:
                request = fill.send(await self.ask(request))
        except StopIteration as stop:
            return stop.value

    def fill(self, symbol: str, since: int, until: int, by_trades: bool = False, heard: Heard = NOTHING) -> Filled:
        """What one fill finds out, judged; whatever it raises."""
        self.requests.clear()
        now, series = self.now, Series(self.venue, symbol)
        using = Using.TRADES if by_trades else Using.ALL
        filled = trio.run(self.run, self.history.fill(series, Millis(since), Millis(until), now, using, heard))
        self.judge(filled, series, since, until, now)
        return filled

    def fill_all(self, symbol: str, since: int, until: int) -> list[Filled]:
        """What the fills of all windows find out, newest first."""
        windows = list(self.history.windows(Millis(since), Millis(until), self.now))
        covered = sorted(minute for window in windows for minute in range(*window, MINUTE))
        assert covered == list(range(since, max(min(until, settled_until(self.now)), since), MINUTE))
        assert windows == sorted(windows, reverse=True)
        return [self.fill(symbol, *window) for window in windows]

    def judge(self, filled: Filled, series: Series, since: int, until: int, now: Millis) -> None:
        """Each minute that was asked for once, no minute twice, and nothing that is not true."""
        candles = [candle.open_time for candle in filled.candles]
        empties = [(empty.since, empty.until) for empty in filled.empties]
        missing = [(part.since, part.until) for part in filled.missing]
        assert candles == sorted(set(candles))
        for spans in (empties, missing):
            assert all(begin < end for begin, end in spans)
            assert all(one[1] <= other[0] for one, other in pairwise(spans))
        asked = [*(m for m in candles if since <= m < until), *within(empties, since, until), *within(missing)]
        assert sorted(asked) == list(range(since, until, MINUTE))
        assert not set(candles) & set(within(empties, min(candles, default=0), max(candles, default=0) + MINUTE))
        for candle in filled.candles:
            assert candle.close_time <= settled_until(now)
            assert candle.series == series
            self.judge_candle(candle, now)
        for empty in filled.empties:
            assert empty.until <= settled_until(now)
            assert empty.series == series
            assert empty.evidence
            ids = [self.market.first_id_from(self.venue, series.symbol, t * 1000) for t in (empty.since, empty.until)]
            assert ids[0] == ids[1], f"{empty} had trades"
        assert all(part.why for part in filled.missing)

    def judge_candle(self, candle: Candle, now: Millis) -> None:
        true = self.market.candle(self.venue, candle.series.symbol, candle.open_time)
        assert (candle.source, candle.ingest_time, candle.is_closed) == (Source.REST, now, True)
        assert candle.close_time == candle.open_time + MINUTE
        if true is None:  # OKX publishes flat rows
            assert self.venue == "okx"
            assert candle.open == candle.high == candle.low == candle.close
            assert (candle.volume, candle.quote_volume or 0, candle.vwap) == (0, 0, None)
            return
        prices = (true.open, true.high, true.low, true.close)
        assert (candle.open, candle.high, candle.low, candle.close) == tuple(map(float, prices))
        if self.exchange.faults.float_artefacts and candle.trades_count is None:
            assert math.isclose(candle.volume, float(true.volume), rel_tol=1e-12)
        else:
            assert candle.volume == float(true.volume)
        assert candle.trades_count in (None, true.trades_count)
        if candle.quote_volume is not None:
            assert math.isclose(candle.quote_volume, float(true.quote_volume), rel_tol=1e-15)
        if candle.vwap is not None:
            assert math.isclose(candle.vwap, float(true.quote_volume / true.volume), rel_tol=1e-4)


def within(spans: Iterable[tuple[int, int]], since: int = 0, until: int = 1 << 60) -> list[int]:
    """The minutes of *spans* that lie in ``[since, until)``."""
    return [m for begin, end in spans for m in range(max(begin, since), min(end, until), MINUTE)]


def drive(fill: Fill, *answers: Answer) -> Filled | None:
    """What *fill* says after exactly these answers, or fewer; ``None`` if it asks on."""
    next(fill)
    return resume(fill, *answers)


def resume(fill: Fill, *answers: Answer) -> Filled | None:
    """The same, for a fill that has asked its first question."""
    try:
        for answer in answers:
            fill.send(answer)
    except StopIteration as stop:
        return stop.value
    return None


def whys(filled: Filled) -> set[str]:
    return {part.why for part in filled.missing}


def minutes_of(empties: Iterable[Empty], since: int, until: int) -> list[int]:
    return within([(empty.since, empty.until) for empty in empties], since, until)


PATHS = {"coinbase": ("/candles", "/trades"), "kraken": ("/OHLC", "/Trades"), "okx": ("candles", "")}
"""How the paths of a venue's rows, and of its trades, end."""


def in_lists(path: str, change: Callable[[list], None]) -> Spoil:
    """Spoils each answer to *path*: *change* is given the list of its rows."""

    def spoil(request: Request, answer: Answer) -> Answer:
        if not request.path.endswith(path):
            return answer
        body = json.loads(answer.body)
        rows = body
        if isinstance(body, dict):
            rows = body["data"] if "data" in body else next(v for k, v in body["result"].items() if k != "last")
        change(rows)
        return attrs.evolve(answer, body=json.dumps(body).encode())

    return spoil


def in_rows(venue: str, change: Callable[[list], None]) -> Spoil:
    """Spoils each answer with *venue*'s rows by *change*, as :func:`in_lists` does."""
    return in_lists(PATHS[venue][0], change)


def in_trades(venue: str, change: Callable[[list], None]) -> Spoil:
    """Spoils each answer with *venue*'s trades by *change*, as :func:`in_lists` does."""
    return in_lists(PATHS[venue][1], change)
