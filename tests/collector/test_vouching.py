"""A clock that is wrong, at a start or for a moment, leaves nothing behind that a right clock would not have left."""

from __future__ import annotations

import logging
import sqlite3
from contextlib import closing

import httpx
import pytest
import trio
from world import NOON, ONE_EACH, AdjustableTime, check_against_truth, collecting, ledger, rows_on_disk

from trio_candles.candles.model import DAY, MINUTE, Millis, Series
from trio_candles.clock import RELEASED, SimulatedTime
from trio_candles.collector.status import VenueBoard
from trio_candles.collector.subscriptions import State
from trio_candles.collector.venue_state import HELD_LIMIT, open_venue_state
from trio_candles.collector.vouching import Vouching, keep_asking_time
from trio_candles.network.websocket import Network
from trio_candles.store.store import open_store
from trio_candles.venues.protocol import Forming, Heartbeat, Proof, Row, Told, TradeSeen
from trio_candles.venues.registry import VENUES

EACH = [Series(name, symbol) for name, (symbol,) in ONE_EACH.items()]
HOUR = 60 * MINUTE
YEAR = 365 * DAY


def minute(n: int) -> int:
    return NOON + n * MINUTE


def meta(root) -> dict[str, str]:
    with closing(sqlite3.connect(root / "journal.sqlite3")) as database:
        return dict(database.execute("SELECT key, value FROM meta"))


def marks(root) -> dict[str, tuple[int, int]]:
    with closing(sqlite3.connect(root / "journal.sqlite3")) as database:
        return {
            venue: (first, mark)
            for venue, first, mark in database.execute("SELECT venue, first_ms, mark_ms FROM series")
        }


async def nobody(*_: object) -> None:
    raise OSError("there is nobody to dial")


# --- the whole service -------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [YEAR, -NOON + MINUTE, 6 * HOUR, -6 * HOUR, 40_000, -40_000])
@pytest.mark.parametrize("name", list(ONE_EACH))
async def test_a_first_start_under_a_wrong_clock_expects_what_the_right_one_would(
    autojump_clock, tmp_path, wrong, name
):
    async with collecting(tmp_path, {name: ONE_EACH[name]}, wrong=wrong) as world:
        await trio.sleep(130)
        assert world.service.board.status(world.time.now()) == "STARTING"
        assert "[WAIT]" in world.shown[-1]
        assert marks(tmp_path) == {}
        assert "latest_ms" not in meta(tmp_path)
        assert meta(tmp_path)["clock_waits"]
        world.time.jump(-wrong)
        await trio.sleep(250)
        assert world.service.board.status(world.time.now()) == "HEALTHY"
        assert "clock_waits" not in meta(tmp_path)
    (series,) = [one for one in EACH if one.venue == name]
    counts = check_against_truth(tmp_path, world.market, series)
    with ledger(tmp_path) as books:
        assert books.range(series) == range(NOON, minute(6), MINUTE)
    assert int(meta(tmp_path)["latest_ms"]) == int(meta(tmp_path)["stopped_at_ms"]) <= minute(7)
    assert counts["gap"] <= 3  # the reconnection's, and the one that ended as we left


@pytest.mark.parametrize("wrong", [YEAR, -NOON + MINUTE, 6 * HOUR, -6 * HOUR, 40_000, -40_000])
async def test_a_clock_that_is_wrong_for_a_while_leaves_nothing_behind(autojump_clock, tmp_path, caplog, wrong):
    async with collecting(tmp_path, ONE_EACH) as world:
        await trio.sleep(200)
        world.time.jump(wrong)
        await trio.sleep(5)
        before = marks(tmp_path)
        await trio.sleep(200)
        assert marks(tmp_path) == before
        assert world.service.board.status(world.time.now()) == "STARTING"
        world.time.jump(-wrong)
        await trio.sleep(200)
        assert world.service.board.status(world.time.now()) == "HEALTHY"
    for series in EACH:
        counts = check_against_truth(tmp_path, world.market, series)
        assert counts["gap"] <= 5, series
        with ledger(tmp_path) as books:
            assert books.range(series) == range(NOON, minute(10), MINUTE)
            assert books.one("SELECT coalesce(max(at_ms), 0) FROM gap_event") <= minute(11)
    assert (
        sum("the clock jumped" in record.message for record in caplog.records if record.name.endswith("vouching")) == 2
    )


@pytest.mark.parametrize("name", list(ONE_EACH))
@pytest.mark.parametrize("off", [-5_000, 5_000])
async def test_five_seconds_are_a_warning_and_no_more_whatever_venue_tells_them(
    autojump_clock, tmp_path, caplog, name, off
):
    async with collecting(tmp_path, {name: ONE_EACH[name]}, wrong=off) as world:
        await trio.sleep(700)
        assert world.service.board.status(world.time.now()) == "HEALTHY"
    said = [record.message for record in caplog.records if "our clock differs" in record.message]
    assert len(said) == 1, said
    assert said[0].startswith(name)
    seconds = float(said[0].rpartition("by ")[2].split()[0])
    assert 2.0 <= seconds * 1000 / off * 5.0 <= 5.5  # its sign too; a row's time is a bound only


@pytest.mark.parametrize("name", list(ONE_EACH))
async def test_nothing_is_said_of_a_clock_that_is_right(autojump_clock, tmp_path, caplog, name):
    async with collecting(tmp_path, {name: ONE_EACH[name]}):
        await trio.sleep(1300)
    assert not [record.message for record in caplog.records if "clock" in record.message]


async def test_where_nobody_is_heard_that_is_said_each_minute_and_nothing_is_expected(autojump_clock, tmp_path, caplog):
    async with collecting(tmp_path, ONE_EACH) as world:
        for exchange in world.exchanges.exchanges.values():
            exchange.faults.refuse_connections = True
            exchange.drop_connections()
        # Not one message has come yet.
        await trio.sleep(185)
    said = [record.message for record in caplog.records if "not vouched for" in record.message]
    assert len(said) == 3
    assert all("no venue has been heard" in one for one in said)
    assert any("nothing was collected" in record.message for record in caplog.records)
    assert marks(tmp_path) == {}


@pytest.mark.parametrize("silent_from", [0, 300])
async def test_a_venue_that_sends_nothing_is_stale_also_while_nobody_vouches(autojump_clock, tmp_path, silent_from):
    async with collecting(tmp_path, {"okx": ("BTC-USDT",)}, wrong=40_000) as world:
        board, faults = world.service.board, world.exchanges["okx"].faults
        faults.silent = silent_from == 0
        await trio.sleep(silent_from)
        faults.silent = True
        await trio.sleep(110)
        assert board.venues["okx"].status(world.time.now()) == "[WAIT]"
        await trio.sleep(30)
        assert board.venues["okx"].status(world.time.now()) == "[STALE (2m)]"
        assert board.status(world.time.now()) == "DEGRADED"


@pytest.mark.parametrize("by", [YEAR, -YEAR])
async def test_after_a_jump_stale_counts_from_when_the_venue_came_up_again(autojump_clock, tmp_path, by):
    async with collecting(tmp_path, {"okx": ("BTC-USDT",)}) as world:
        board = world.service.board.venues["okx"]
        await trio.sleep(300)
        world.exchanges["okx"].faults.silent = True
        world.time.jump(by)
        await trio.sleep(100)
        assert board.status(world.time.now()) == "[WAIT]"
        await trio.sleep(30)
        assert board.status(world.time.now()) == "[STALE (2m)]"


async def test_any_one_venue_vouches_and_one_that_disagrees_is_named(autojump_clock, caplog):
    clock = Vouching(SimulatedTime(Millis(NOON)))
    clock.hear("kraken", Millis(NOON + 3_600_000), 1, Millis(NOON))
    assert not clock.vouched
    assert [r.message for r in caplog.records if r.message.startswith("kraken") and "-3600.0 s" in r.message]
    clock.hear("okx", Millis(NOON - 20_000), 40_000, Millis(NOON))
    assert clock.vouched
    caplog.clear()
    clock.hear("kraken", Millis(NOON + 3_600_000), 1, Millis(NOON))
    clock._warned.clear()
    clock.review()
    assert [r.message for r in caplog.records if r.message.startswith("kraken")]


async def test_what_was_heard_while_the_clock_waited_becomes_candles(autojump_clock, tmp_path):
    async with collecting(tmp_path, {"okx": ("BTC-USDT",)}, wrong=40_000) as world:
        await trio.sleep(200)  # three minutes have closed
        world.time.jump(-40_000)
        await trio.sleep(100)
    series = Series("okx", "BTC-USDT")
    check_against_truth(tmp_path, world.market, series)
    with ledger(tmp_path) as books:
        assert not {minute(0), minute(1), minute(2)} & set(books.gaps(series))
    # The rows say when they came, by the right clock.
    for opened, stored in rows_on_disk(tmp_path, series).items():
        assert opened + MINUTE <= stored["ingest_time_ms"] <= opened + MINUTE + 5_000


async def test_what_was_decided_before_a_jump_is_committed_at_a_stop_and_nothing_else_is(autojump_clock, tmp_path):
    from trio_candles.store.store import Store, StoreUnavailable

    class FullDisk(Store):
        full = False

        def commit(self, *batch):
            if self.full:
                raise StoreUnavailable("disk is full")
            return super().commit(*batch)

    def full(store):
        store.__class__ = FullDisk
        return store

    async with collecting(tmp_path, ONE_EACH, wrap=full) as world:
        await trio.sleep(130)
        world.store.full = True
        await trio.sleep(120)
        world.time.jump(YEAR)
        await trio.sleep(100)
        world.store.full = False
        await trio.sleep(20)
        assert world.service.writing.pending
    assert world.service.writing.finished
    for series in EACH:
        check_against_truth(tmp_path, world.market, series)
        with ledger(tmp_path) as books:
            assert minute(3) <= books.range(series).stop <= minute(5)
    assert minute(4) <= int(meta(tmp_path)["stopped_at_ms"]) <= minute(5)


async def test_a_start_before_the_newest_minute_that_is_accounted_for_says_so(autojump_clock, tmp_path, caplog):
    with open_store(tmp_path) as store:
        store.expect([EACH[0]], Millis(NOON), Millis(NOON))
    async with collecting(tmp_path, ONE_EACH, wrong=-6 * HOUR):
        await trio.sleep(1)
    assert any("before the newest minute that is accounted for" in record.message for record in caplog.records)


@pytest.mark.parametrize("wrong", [-DAY, 0])
@pytest.mark.parametrize("of_wall", [True, False])
async def test_a_start_before_the_release_says_so_where_the_clock_is_the_walls(
    autojump_clock, tmp_path, caplog, wrong, of_wall
):
    async with collecting(tmp_path, ONE_EACH, epoch=RELEASED, wrong=wrong, of_wall=of_wall):
        await trio.sleep(1)
    said = [record.message for record in caplog.records if "before this release" in record.message]
    assert len(said) == (wrong < 0 and of_wall)


async def test_an_hour_asleep_costs_that_hour_and_the_clock_is_vouched_for_anew(autojump_clock, tmp_path):
    """To the process the wall clock and the venues' jump together."""
    async with collecting(tmp_path, ONE_EACH) as world:
        await trio.sleep(200)
        world.time.epoch = Millis(world.time.epoch + HOUR)
        await trio.sleep(200)
        assert world.service.board.status(world.time.now()) == "HEALTHY"
    for series in EACH:
        with ledger(tmp_path) as books:
            assert books.range(series) == range(NOON, minute(66), MINUTE)


async def test_where_feeds_say_nothing_rest_vouches_if_the_clock_is_the_walls(autojump_clock, tmp_path):
    """Also with gap filling off; and again after a jump."""
    async with collecting(tmp_path, {"okx": ("BTC-USDT",)}, of_wall=True) as world:
        world.exchanges["okx"].faults.silent = True
        await trio.sleep(15)
        assert world.service.clock.vouched
        world.time.jump(40_000)
        await trio.sleep(15)
        assert not world.service.clock.vouched
        world.time.jump(-40_000)
        await trio.sleep(15)
        assert world.service.clock.vouched
        await trio.sleep(1800)
        assert len(world.exchanges["okx"].requests) < 12


async def test_an_answer_that_is_refused_tells_the_time_by_its_date(autojump_clock):
    """A region's block, a proxy: whoever answers has a clock."""

    async def handle(request: httpx.Request) -> httpx.Response:
        date = "Sat, 10 Jan 2026 12:00:00 GMT"
        assert NOON == 1_768_046_400_000
        return httpx.Response(451, headers={"Date": date, **more})

    for more, vouches in [({"Age": "7"}, False), ({}, True)]:  # noqa: B007
        clock, venue = clock_at(), VENUES["kraken"]
        network = Network(nobody, transport=httpx.MockTransport(handle))
        with trio.move_on_after(9):
            await keep_asking_time(clock, venue.history, network, venue.rest_urls(None))
        assert clock.vouched is vouches


# --- evidence ----------------------------------------------------------------------------------------------


def clock_at(now: int = NOON, speed: float = 1.0) -> Vouching:
    clock = Vouching(SimulatedTime(Millis(now), speed))
    clock.now()
    return clock


@pytest.mark.parametrize(("off", "speed", "vouches"), [
    (29_900, 1.0, True), (30_100, 1.0, False), (-30_100, 1.0, False), (31_000, 60.0, True), (1_700_000, 60.0, True),
    (-1_900_000, 60.0, False),
])  # fmt: skip
async def test_a_venue_vouches_within_thirty_seconds_of_the_wall(autojump_clock, off, speed, vouches):
    clock = clock_at(speed=speed)
    clock.hear("a", Millis(NOON + off), 1, Millis(NOON))
    assert clock.vouched is vouches


async def test_a_minute_wide_row_vouches_with_another_and_an_old_one_never(autojump_clock):
    clock = clock_at()
    for _ in range(3):
        clock.hear("a", Millis(NOON - YEAR), None, Millis(NOON))  # a lower bound says nothing against an early clock
    clock.hear("a", Millis(NOON - 50_000), 60_000, Millis(NOON))
    assert not clock.vouched
    clock.hear("a", Millis(NOON + 60_000), 60_000, Millis(NOON + 61_000))
    assert clock.vouched


async def test_a_late_message_neither_vouches_nor_hides_a_prompt_one(autojump_clock):
    clock = clock_at()
    clock.hear("a", Millis(NOON - 600_000), 1, Millis(NOON))
    assert not clock.vouched
    clock.hear("a", Millis(NOON - 100), 1, Millis(NOON))
    assert clock.vouched


async def test_evidence_from_before_a_jump_vouches_for_nothing_after_it(autojump_clock):
    time = AdjustableTime(Millis(NOON))
    clock = Vouching(time)
    clock.hear("a", clock.now(), 1, clock.now())
    assert clock.trusted() == NOON
    time.jump(3_000)
    assert clock.trusted() is None  # noticed by whoever looks first
    assert clock.last == NOON
    assert clock.jumps == 1


async def test_a_clock_that_runs_away_by_less_than_a_jump_at_a_time_is_not_believed_for_ever(autojump_clock):
    time = AdjustableTime(Millis(NOON))
    clock = Vouching(time)
    clock.hear("a", clock.now(), 1, clock.now())
    for _ in range(14):
        time.jump(2_000)
        assert clock.trusted() is not None
    for _ in range(2):
        time.jump(2_000)
        clock.now()
    assert clock.trusted() is None
    assert clock.jumps == 0


async def test_a_clock_that_all_venues_contradict_for_ten_minutes_is_not_believed(autojump_clock):
    clock = clock_at()
    clock.hear("a", clock.now(), 1, clock.now())
    for _ in range(10):
        clock.review()
    assert clock.vouched
    for _ in range(10):
        clock.hear("a", Millis(NOON + 31_000), 1, Millis(NOON))
        clock.review()
    assert not clock.vouched


# --- what a venue's events say -----------------------------------------------------------------------------


def state_of(clock: Vouching, proof: Proof = Proof.STATED_CLOSES):
    state = open_venue_state(VenueBoard("v"), proof, [Series("v", "X")], clock)
    state.board.connections = 1
    return state


def row(open_time: int) -> Row:
    return Row("X", Millis(open_time), Millis(open_time + MINUTE), 1.0, 1.0, 1.0, 1.0, 1.0, None, None, None, True)


@pytest.mark.parametrize(("events", "vouches"), [
    ([Heartbeat("X", Millis(NOON - 200), 7)], True),
    ([Told(Millis(NOON - 200))], True),
    ([TradeSeen("X", 7, Millis(NOON - 200))], False),  # it may be a snapshot's
    ([Forming("X", Millis(NOON - 30_000))], False),  # the first after a subscription may be old
    ([Forming("X", Millis(NOON - 30_000)), Forming("X", Millis(NOON - 31_000))], False),
    ([row(NOON - 61_000)], False),
    ([row(NOON - 61_000), row(NOON - 61_000)], True),
    ([row(NOON - 61_000), Forming("X", Millis(NOON - 1_000)), Forming("X", Millis(NOON - 33_000))], True),
])  # fmt: skip
async def test_what_each_event_says_about_the_clock(autojump_clock, events, vouches):
    clock = clock_at()
    state = state_of(clock)
    for event in events:
        state.hear(event, clock.now())
    assert clock.vouched is vouches


async def test_a_row_pushed_first_after_a_subscription_is_old_until_shown_otherwise(autojump_clock):
    clock = clock_at()
    state = state_of(clock)
    for _ in range(5):
        state.became("X", State.SUBSCRIBED, "", clock.now())
        state.hear(row(NOON - 61_000), clock.now())
    assert not clock.vouched


async def test_what_waits_is_bounded_and_what_goes_is_as_if_disconnected(autojump_clock, caplog):
    caplog.set_level(logging.WARNING)
    clock = clock_at()
    state = state_of(clock, Proof.COUNTED_ROWS)
    state.begin({Series("v", "X"): (Millis(NOON - HOUR), Millis(NOON))})
    state.became("X", State.SUBSCRIBED, "", clock.now())
    state.doubted(["X"], "maintenance")
    for number in range(HELD_LIMIT):
        if number == HELD_LIMIT // 4:
            await trio.sleep(30)
        state.hear(TradeSeen("X", number + 1, Millis(NOON - YEAR)), clock.now())
    await trio.sleep(60)
    assert len(state._held) < HELD_LIMIT
    assert any("dropped" in record.message for record in caplog.records)
    clock.hear("v", clock.now(), 1, clock.now())
    state.settle(clock.now())
    assert not state._held
    # How things stood is known: subscribed, and in doubt.
    (unsure,) = state.take()
    assert (unsure.since, unsure.until, unsure.reason) == (NOON, NOON + MINUTE, "disconnected")
    await trio.sleep(60)
    state.settle(clock.now())
    (unsure,) = state.take()
    assert unsure.reason == "suspect"
