"""Whatever becomes known, in whatever order: followers are told what the store knows, once, and alike from any place.

The judge folds what is told by itself, minute by minute, and shares nothing with the code that derives higher
timeframes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from math import fsum
from pathlib import Path

import attrs
from directories import BTC, ETH, MIDNIGHT, at, candle, flush, sql
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trio_candles import Change, follow_sync
from trio_candles.candles.documents import to_json
from trio_candles.candles.model import DAY, MINUTE, Empty, Millis, Page, Reason, Series, Source, Unsure, day_name
from trio_candles.reading.candles import read_candles
from trio_candles.store.store import Store, open_store

FIRST = -7
"""Minutes are counted from midnight, which is in the middle of things."""
TIMEFRAMES = {"1m": 1, "3m": 3, "5m": 5, "10m": 10, "1h": 60}
SPANS = ("empty", "gap", "unfillable", "unlisted")

OPS = (
    "candle", "candle", "candle", "empty", "unproven", "down", "late", "late empty", "page", "page", "revise", "lose",
    "list", "further back", "time", "flush", "reopen", "both",
)  # fmt: skip


@attrs.define
class World:
    """A store, and what is done to it."""

    root: Path
    store: Store
    now: Millis
    first: dict[Series, int] = attrs.field(factory=lambda: {BTC: FIRST, ETH: FIRST})
    prices: int = 0

    def mark(self, series: Series) -> int:
        return (self.store.journal.spans()[series][1] - MIDNIGHT) // MINUTE

    def commit(self, *verdicts) -> None:
        self.store.commit(verdicts, self.now)

    def gaps(self, series: Series) -> list[int]:
        return [
            (minute - MIDNIGHT) // MINUTE
            for low, high in self.store.journal.gaps_of(series)
            for minute in range(low, high, MINUTE)
        ]

    def other(self, minute: int, series: Series, source: Source = Source.REST, received: int = 0):
        """A candle of *minute* that nobody has had before."""
        self.prices += 1
        one = candle(minute, series, source=source)
        return attrs.evolve(one, volume=1000.0 + self.prices, ingest_time=Millis(self.now + received))


def do(world: World, op: str, which: int, number: int) -> None:
    series = (BTC, ETH)[which % 2]
    mark = world.mark(series)
    world.now = Millis(max(world.now, at(mark + 6)))
    match op:
        case "candle":
            world.commit(candle(mark, series))
        case "both":
            other = ETH if series == BTC else BTC
            world.commit(candle(mark, series), *(candle(world.mark(other), other) for _ in range(number % 2)))
        case "empty":
            world.commit(Empty(series, at(mark), at(mark + 1 + number % 4), f"ids {mark}"))
        case "unproven":
            world.commit(Unsure(series, at(mark), at(mark + 1), Reason.UNPROVEN))
        case "down":
            world.commit(Unsure(series, at(mark), at(mark + 1 + number % 4), Reason.DISCONNECTED))
        case "late":
            for minute in world.gaps(series)[-1 - number % 5 :][:1]:
                world.commit(candle(minute, series))
        case "late empty":
            for minute in world.gaps(series)[-1 - number % 5 :][:1]:
                world.commit(Empty(series, at(minute), at(minute + 2), f"ids {minute}"))
        case "page":
            page(world, series, mark, number)
        case "revise":
            minute = max(world.first[series], mark - 1 - number % 9)
            if minute not in world.gaps(series) and minute < mark:
                one = world.other(minute, series)
                for received in (0, 70_000):
                    again = attrs.evolve(one, ingest_time=Millis(one.ingest_time + received))
                    world.commit(Page(series, at(minute), at(minute + 1), (again,), (), comparing=True))
                world.now = Millis(world.now + 70_000)
        case "lose":
            flush(world.store)
            for day in (-1, 0):
                path = f"{series.path}/{day_name(MIDNIGHT + day * DAY)}.parquet"
                if number % 2 == day + 1 and (world.root / path).exists():
                    (world.root / path).unlink()
                    world.store.ask(
                        world.store.journal.lose, path, series, Millis(MIDNIGHT + day * DAY), world.now, "lost"
                    )
        case "list":
            since = world.first[series] + number % 6
            if set(range(world.first[series], since)) <= set(world.gaps(series)) and since <= mark:
                listed = (at(since), "trade 1")
                world.commit(Page(series, at(since), at(since + 1), (), (), listed=listed))
                world.first[series] = since
        case "further back":
            world.first[series] -= number % 4
            world.store.expect([BTC, ETH], at(min(world.first.values())), at(max(map(world.mark, (BTC, ETH)))))
            world.first = {one: (world.store.journal.spans()[one][0] - MIDNIGHT) // MINUTE for one in (BTC, ETH)}
        case "time":
            world.now = Millis(world.now + number * MINUTE)
            world.commit()
        case "flush":
            flush(world.store)


def page(world: World, series: Series, mark: int, number: int) -> None:
    """An answer about some of the newest minutes: of the gaps, one in three stays, some are empty."""
    since = max(world.first[series], mark - 3 - 2 * number)
    gaps = [minute for minute in world.gaps(series) if minute >= since]
    kinds = {minute: (minute * 7 + number) % 3 for minute in gaps}
    candles = tuple(world.other(minute, series) for minute in gaps if kinds[minute] == 1)
    empties = tuple(Empty(series, at(m), at(m + 1), f"trades {m}") for m in gaps if kinds[m] == 2)
    world.commit(Page(series, at(since), at(mark), candles, empties))


# --- the judge


def facts(root: Path, series: Series) -> dict[int, str]:
    """What each accounted minute is, read from the tables: C, E, G or U."""
    ((id_, first, mark),) = sql(
        root, "SELECT id, first_ms, mark_ms FROM series WHERE symbol = ? AND timeframe = '1m'", series.symbol
    )
    found = dict.fromkeys(range(first, mark, MINUTE), "C")
    for low, high in sql(root, "SELECT since_ms, until_ms FROM empty WHERE series_id = ?", id_):
        found.update(dict.fromkeys(range(low, high, MINUTE), "E"))
    for low, high, state in sql(root, "SELECT since_ms, until_ms, state FROM gap WHERE series_id = ?", id_):
        found.update(dict.fromkeys(range(low, high, MINUTE), "G" if state == "open" else "U"))
    return found


@attrs.define
class Follower:
    """What a follower of minutes knows of one series; and what higher timeframes it expects to hear next."""

    known: dict[int, str] = attrs.field(factory=dict)
    """Minute -> C, E, G, U, L (before the market)."""
    filled: set[int] = attrs.field(factory=set)
    values: dict[int, Change] = attrs.field(factory=dict)
    before_all: int = -(10**18)
    """Minutes before this one are before the market."""

    def kind(self, minute: int) -> str:
        return "L" if minute < self.before_all else self.known.get(minute, "?")

    def complete(self, begin: int, length: int) -> bool:
        kinds = {self.kind(minute) for minute in range(begin, begin + length, MINUTE)}
        return kinds <= {"C", "E", "L"} and "C" in kinds

    def hear(self, change: Change, lengths: list[int]) -> Iterator[tuple[str, int, int]]:
        """(event, length, open time) of the higher candles that *change* completes or changes."""
        begin, end = change.open_time_ms, change.close_time_ms
        touched = [
            (length, period)
            for length in lengths
            for period in range(begin - begin % length, end, length)
        ]  # fmt: skip
        was = {one: self.complete(one[1], one[0]) for one in touched}
        letter = {"empty": "E", "gap": "G", "unfillable": "U", "unlisted": "L"}.get(change.event, "C")
        for minute in range(begin, end, MINUTE):
            if change.event in ("closed", "filled"):
                assert self.kind(minute) in "?GU", (minute, self.kind(minute), change)
                assert change.event == "filled" or self.kind(minute) == "?", change
            if change.event == "revised":
                assert self.kind(minute) == ("E" if change.before is None else "C"), change
            if change.event == "gap":
                assert self.kind(minute) in "?CG", (self.kind(minute), change)
            self.known[minute] = letter
            self.values[minute] = change
            if change.event == "filled":
                self.filled.add(minute)
            elif change.event != "revised":  # which leaves the minute what it was told as first
                self.filled.discard(minute)
        if change.event == "unlisted":
            self.before_all = max(self.before_all, end)
        for length, period in touched:
            if self.complete(period, length):
                if change.event == "revised":  # also where all of its minutes were called empty
                    yield "revised", length, period
                elif not was[length, period]:
                    filled = any(minute in self.filled for minute in range(period, period + length, MINUTE))
                    yield ("filled" if filled else "closed"), length, period


def brief(change: Change) -> tuple[str, str, str, int, int]:
    return change.event, change.symbol, change.timeframe, change.open_time_ms, change.close_time_ms


def judge(world: World) -> None:
    root = world.root
    minutes = list(follow_sync(root, after="oldest", timeout=0))
    everything = list(follow_sync(root, timeframes=list(TIMEFRAMES), after="oldest", timeout=0))
    assert [brief(one) for one in everything if one.timeframe == "1m"] == [brief(one) for one in minutes]
    assert len({one.cursor for one in everything}) == len(everything)
    higher = {length * MINUTE: name for name, length in TIMEFRAMES.items() if length > 1}
    followers = {BTC.symbol: Follower(), ETH.symbol: Follower()}
    expected = []
    for change in minutes:
        expected.append(brief(change))
        follower = followers[change.symbol]
        for event, length, period in follower.hear(change, sorted(higher)):
            expected.append((event, change.symbol, higher[length], period, period + length))
    assert [brief(one) for one in everything] == expected
    for series in (BTC, ETH):
        follower, true = followers[series.symbol], facts(root, series)
        told = {minute: follower.kind(minute) for minute in true}
        late = {
            minute for low, high in sql(
                root,
                "SELECT max(since_ms, reported_ms), until_ms FROM gap JOIN series ON series.id = series_id"
                " WHERE symbol = ? AND reason = 'unproven'", series.symbol,
            ) for minute in range(low, high, MINUTE) if minute + 6 * MINUTE > world.now
        }  # fmt: skip
        assert {m: k for m, k in told.items() if m not in late} == {m: k for m, k in true.items() if m not in late}
        assert all(told[minute] == "?" for minute in late)
        check_values(root, series, follower, everything)
    for place in everything[:: max(1, len(everything) // 7)]:
        tail = list(follow_sync(root, timeframes=list(TIMEFRAMES), after=place.cursor, timeout=0))
        assert tail == everything[everything.index(place) + 1 :]
    some = list(follow_sync(root, ["okx:*"], ["5m"], ["filled", "revised", "gap"], after="oldest", timeout=0))
    assert some == [
        one for one in everything
        if one.venue == "okx" and one.event in ("filled", "revised", "gap")
        and (one.timeframe == "5m" or one.event == "gap")
    ]  # fmt: skip


def check_values(root: Path, series: Series, follower: Follower, everything: list[Change]) -> None:
    table = read_candles(root, series.venue, series.symbol, on_gap="ignore", start=at(-2000), end=at(2000))
    stored = {row["open_time_ms"]: row for row in table.to_pylist()}
    assert set(stored) == {minute for minute, kind in follower.known.items() if kind == "C"}
    for one in everything:
        if one.symbol != series.symbol or one.event in SPANS:
            continue
        rows = [stored[m] for m in range(one.open_time_ms, one.close_time_ms, MINUTE) if m in stored]
        kinds = {follower.kind(m) for m in range(one.open_time_ms, one.close_time_ms, MINUTE)}
        if not rows or not kinds <= set("CEL"):
            assert one.candle is None, to_json(one)
            continue
        assert one.candle is not None, to_json(one)
        assert one.candle.volume == fsum(row["volume"] for row in rows)
        assert (one.candle.open, one.candle.close) == (rows[0]["open"], rows[-1]["close"])
        assert one.candle.high == max(row["high"] for row in rows)
        if one.event == "revised" and one.before is not None and one.timeframe == "1m":
            assert one.before.volume != one.candle.volume


@settings(max_examples=2500, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(st.sampled_from(OPS), st.integers(0, 1), st.integers(0, 9)), min_size=3, max_size=40))
def test_a_follower_is_told_what_the_store_knows_and_alike_from_any_place(ops):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        with open_store(root) as store:
            store.expect([BTC, ETH], at(FIRST), at(FIRST + 2))
        pending = list(ops)
        world = World(root, store, at(1))
        while pending:
            with open_store(root) as world.store:
                while pending:
                    op, which, number = pending.pop(0)
                    if op == "reopen":
                        break
                    do(world, op, which, number)
        judge(world)
