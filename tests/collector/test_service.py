"""The whole service, hours of it, in memory with real frames: exact candles, exact times, clean ends."""

from __future__ import annotations

import sqlite3
from collections import Counter

import httpx
import pytest
import trio
from world import NOON, ONE_EACH, SYMBOLS, AdjustableTime, check_against_truth, collecting, ledger, rows_on_disk

from trio_candles.candles.model import DAY, MINUTE, Candle, Millis, Reason, Series, Source, day_name
from trio_candles.store.store import Store, StoreUnavailable, open_store

ALL = [Series(name, symbol) for name, symbols in SYMBOLS.items() for symbol in symbols]
EACH = [Series(name, symbol) for name, (symbol,) in ONE_EACH.items()]
MIDNIGHT = NOON + DAY // 2
SLOW = pytest.mark.slow


@pytest.mark.parametrize("minutes", [15, pytest.param(120, marks=SLOW)])
async def test_hours_of_three_venues_are_stored_exactly_as_they_were(autojump_clock, tmp_path, minutes):
    async with collecting(tmp_path) as world:
        await trio.sleep(60 * minutes)
        assert world.service.board.status(world.time.now()) == "HEALTHY"
        assert not any(exchange.violations for exchange in world.exchanges.exchanges.values())
    for series in ALL:
        counts = check_against_truth(tmp_path, world.market, series)
        # Only the minute that ended as we left is still waiting for its proof.
        assert counts["gap"] <= 2, series
        assert counts["candles"] >= minutes * 5 / 6, series


async def test_midnight_divides_the_day_files_and_nothing_else(autojump_clock, tmp_path):
    async with collecting(tmp_path, ONE_EACH, epoch=MIDNIGHT - 5 * MINUTE) as world:
        await trio.sleep(5 * 60 + 15)
        # The day's end flushes, whatever the interval: yesterday's last minute is in its file moments later.
        await trio.sleep(60)
        yesterday = tmp_path / "okx/BTC-USDT/1m" / f"{day_name(MIDNIGHT - 1)}.parquet"
        assert yesterday.exists()
        await trio.sleep(5 * 60)
    for series in EACH:
        counts = check_against_truth(tmp_path, world.market, series)
        assert counts["gap"] <= 2
        names = sorted(path.name for path in (tmp_path / series.path).iterdir())
        assert names == [f"{day_name(MIDNIGHT - 1)}.parquet", f"{day_name(MIDNIGHT)}.parquet"]
        for row in rows_on_disk(tmp_path, series).values():
            assert MIDNIGHT - 5 * MINUTE <= row["open_time_ms"] < MIDNIGHT + 7 * MINUTE


@pytest.mark.parametrize("minutes", [15, pytest.param(120, marks=SLOW)])
async def test_quiet_and_very_thin_symbols_are_empty_with_evidence_or_known_gaps(autojump_clock, tmp_path, minutes):
    symbols = {
        "coinbase": ("SOL-USD", "XRP-USD", "SIM001-USD"),
        "kraken": ("SOL/USD", "XRP/USD", "SIM001/USD"),
        "okx": ("SOL-USDT", "SIM001-USDT"),
    }
    async with collecting(tmp_path, symbols) as world:
        await trio.sleep(60 * minutes)
    for name, some in symbols.items():
        for symbol in some:
            series = Series(name, symbol)
            counts = check_against_truth(tmp_path, world.market, series)
            if name == "coinbase":  # heartbeats prove emptiness second by second
                assert counts["gap"] <= 2
                assert counts["empty"] > minutes / 6
            if name == "okx":
                assert counts["candles"] >= minutes - 2
            with ledger(tmp_path) as books:
                assert all(evidence for evidence in books.empties(series).values())


async def test_the_first_table_waits_and_later_ones_are_ok(autojump_clock, tmp_path):
    async with collecting(tmp_path) as world:
        await trio.sleep(29)
        assert world.shown == []
        await trio.sleep(300)
    first, last = world.shown[0], world.shown[-1]
    assert first.count("[WAIT]") == 3
    assert "STATUS: STARTING" in first
    assert last.count("[OK]") == 3
    assert "STATUS: HEALTHY" in last
    assert all(len(line) == 79 for line in last.splitlines() if line[0] in "=-")
    saved = [int(line.split()[3]) for line in last.splitlines() if "[OK]" in line]
    assert all(number >= 6 for number in saved)


async def test_flushes_come_every_sixty_seconds_and_the_last_one_leaves_nothing_behind(autojump_clock, tmp_path):
    async with collecting(tmp_path) as world:
        await trio.sleep(59)
        assert not list(tmp_path.glob("*/*/1m/*.parquet"))
        await trio.sleep(130)
        assert len(list(tmp_path.glob("*/*/1m/*.parquet"))) == len(ALL)
        saved = {name: venue.saved for name, venue in world.service.board.venues.items()}
        await trio.sleep(60)
        assert all(world.service.board.venues[name].saved > number for name, number in saved.items())
    with ledger(tmp_path) as books:
        assert books.one("SELECT count(*) FROM candle") == 0
        assert books.one("SELECT value FROM meta WHERE key = 'stopped_at_ms'") is not None
    assert not list((tmp_path / ".tmp").iterdir())
    assert not list(tmp_path.glob("journal.sqlite3-*"))


async def test_what_waits_of_a_venue_that_is_not_collected_any_more_comes_into_its_file(autojump_clock, tmp_path):
    series, minute = Series("okx", "BTC-USDT"), Millis(NOON - 10 * MINUTE)
    with open_store(tmp_path) as store:
        store.expect([series], minute, minute)
        one = Candle(
            series, minute, 3.0, 4.0, 2.0, 3.0, 1.0, None, None, None, Source.REST, NOON, Millis(minute + MINUTE)
        )
        store.commit([one], NOON)
    async with collecting(tmp_path, {"kraken": ("ETH/USD",)}) as world:
        await trio.sleep(70)
        assert world.service.board.venues.keys() == {"kraken"}
    assert list(rows_on_disk(tmp_path, series)) == [minute]


async def test_a_restart_knows_the_time_between_as_a_gap_and_goes_on(autojump_clock, tmp_path):
    async with collecting(tmp_path, ONE_EACH) as world:
        await trio.sleep(300)
    resumed = NOON + 1200 * 1000  # a quarter of an hour later
    epoch = resumed - round(trio.current_time() * 1000)
    async with collecting(tmp_path, ONE_EACH, epoch=epoch, market=world.market) as again:
        await trio.sleep(300)
    for series in EACH:
        check_against_truth(tmp_path, again.market, series)
        with ledger(tmp_path) as books:
            opened, gaps = books.opened(series), books.gaps(series)
        assert opened[NOON + 10 * MINUTE] == "collector_down"
        if series.venue == "okx":
            assert gaps[NOON + 10 * MINUTE] == "collector_down"


async def test_the_lookback_is_expected_from_the_first_start_on(autojump_clock, tmp_path):
    async with collecting(tmp_path, {"okx": ("BTC-USDT",)}, lookback_days=3):
        await trio.sleep(300)
    series = Series("okx", "BTC-USDT")
    with ledger(tmp_path) as books:
        assert books.range(series).start == NOON - 3 * DAY
        assert books.gaps(series)[NOON - MINUTE] == "not_collected"
        assert books.gaps(series)[NOON - 3 * DAY] == "not_collected"


async def test_a_series_that_is_no_longer_configured_is_no_longer_expected(autojump_clock, tmp_path):
    async with collecting(tmp_path, {"okx": ("BTC-USDT", "ETH-USDT")}) as world:
        await trio.sleep(300)
    async with collecting(
        tmp_path, {"okx": ("BTC-USDT",)}, epoch=NOON + 600_000 - round(trio.current_time() * 1000), market=world.market
    ):
        await trio.sleep(300)
    with ledger(tmp_path) as books:
        assert books.one("SELECT expected FROM series WHERE symbol = 'ETH-USDT'") == 0
        assert books.range(Series("okx", "ETH-USDT")).stop == NOON + 300_000


# --- a disk that takes nothing ----------------------------------------------------------------------------


class FullDisk(Store):
    """A store whose disk is full while ``full`` is set."""

    full = False

    def commit(self, *batch):
        """As the store, or the system's words."""
        if self.full:
            raise StoreUnavailable("OSError: [Errno 28] No space left on device")
        return super().commit(*batch)

    def expect(self, *minutes):
        """As the store, or the system's words."""
        if self.full:
            raise StoreUnavailable("OSError: [Errno 28] No space left on device")
        return super().expect(*minutes)


async def test_while_the_disk_is_full_verdicts_wait_and_are_written_when_there_is_room(
    autojump_clock, tmp_path, caplog
):
    async with collecting(tmp_path, ONE_EACH, wrap=lambda store: _as(FullDisk, store)) as world:
        await trio.sleep(200)
        world.store.full = True
        await trio.sleep(400)
        assert world.service.board.status(world.time.now()) == "DEGRADED"
        assert "No space left on device" in world.shown[-1]
        world.store.full = False
        await trio.sleep(200)
        assert world.service.board.status(world.time.now()) == "HEALTHY"
    assert sum("No space left on device" in record.message for record in caplog.records) == 2  # once, and its end
    for series in EACH:
        counts = check_against_truth(tmp_path, world.market, series)
        assert counts["gap"] <= 2


async def test_a_disk_that_is_full_when_a_venue_vouches_keeps_the_service_waiting_and_no_more(autojump_clock, tmp_path):
    async with collecting(tmp_path, ONE_EACH, wrap=lambda store: _as(FullDisk, store)) as world:
        world.store.full = True
        await trio.sleep(200)
        assert world.service.board.status(world.time.now()) == "DEGRADED"
        assert "No space left on device" in world.shown[-1]
        world.store.full = False
        await trio.sleep(300)
        assert world.service.board.status(world.time.now()) == "HEALTHY"
    for series in EACH:
        counts = check_against_truth(tmp_path, world.market, series)
        assert counts["candles"] + counts["empty"] >= 6


async def test_while_the_disk_is_full_rest_is_asked_for_no_more_than_may_wait(autojump_clock, tmp_path):
    asked: Counter[str] = Counter()

    class Counting(httpx.AsyncBaseTransport):
        def __init__(self, inner):
            self.inner = inner

        async def handle_async_request(self, request):
            asked[request.url.path.rpartition("/")[2]] += 1
            return await self.inner.handle_async_request(request)

    async with collecting(
        tmp_path, {"okx": ("SIM001-USDT", "SIM002-USDT")}, fill=True, vouched=True, lookback_days=3,
        wrap=lambda store: _as(FullDisk, store), wrap_rest=Counting,
    ) as world:  # fmt: skip
        await trio.sleep(0.1)  # the series are begun
        world.store.full = True
        await trio.sleep(1200)
        assert 0 < asked.total() < 250
        world.store.full = False
        await trio.sleep(300)
        assert world.service.board.venues["okx"].open_gap_minutes <= 4


async def test_a_disk_that_stays_full_does_not_keep_the_service_from_ending(autojump_clock, tmp_path):
    async with collecting(tmp_path, ONE_EACH, wrap=lambda store: _as(FullDisk, store)) as world:
        await trio.sleep(100)
        world.store.full = True
        await trio.sleep(200)
        asked = trio.current_time()
    assert trio.current_time() - asked <= 10  # shutdown.timeout_seconds, the venues' goodbyes included
    assert not world.service.writing.finished
    assert world.service.writing.pending


class FullAtTheEnd(Store):
    """A store whose disk is full just when the stop is to be noted."""

    def stopped(self, now):
        """The system's words."""
        raise StoreUnavailable("OperationalError: database or disk is full")


async def test_a_stop_that_cannot_be_noted_is_said_and_is_no_failure(autojump_clock, tmp_path, caplog):
    """Everything is in parquet by then; only when the collector stopped is not known."""
    async with collecting(tmp_path, {"okx": ("BTC-USDT",)}, wrap=lambda store: _as(FullAtTheEnd, store)) as world:
        await trio.sleep(200)
    assert world.service.writing.finished
    assert any("disk is full" in record.message for record in caplog.records)
    assert len(rows_on_disk(tmp_path, Series("okx", "BTC-USDT"))) >= 2


def _as(kind, store):
    store.__class__ = kind
    return store


async def test_verdicts_beyond_the_bound_become_gaps_with_their_reason(autojump_clock, tmp_path):
    """The bound is a day and a half of fifty symbols: here it is reached by hand."""
    from trio_candles.assembly import FromStatedCloses
    from trio_candles.candles.model import Empty, Unsure
    from trio_candles.collector.status import VenueBoard
    from trio_candles.collector.venue_state import OUTBOX_LIMIT, VenueState
    from trio_candles.collector.vouching import Vouching

    series = Series("okx", "BTC-USDT")
    state = VenueState(
        VenueBoard("okx"),
        {"BTC-USDT": FromStatedCloses(series, Millis(0))},
        Vouching(AdjustableTime(NOON), vouched=True),
    )
    minutes = [Empty(series, Millis(n * MINUTE), Millis((n + 1) * MINUTE), "said so") for n in range(OUTBOX_LIMIT + 1)]
    state.put(minutes)
    (gap,) = state.take()
    assert isinstance(gap, Unsure)
    assert (gap.since, gap.until, gap.reason) == (0, (OUTBOX_LIMIT + 1) * MINUTE, "overflow")
    minutes[::2] = [Unsure(one.series, one.since, one.until, Reason.UNPROVEN) for one in minutes[::2]]
    state.put(minutes)
    (gap,) = state.take()
    assert (gap.since, gap.until, gap.reason) == (0, (OUTBOX_LIMIT + 1) * MINUTE, "overflow")


async def test_old_history_is_forgotten_each_day(autojump_clock, tmp_path):
    async with collecting(tmp_path, {"okx": ("BTC-USDT",)}, epoch=MIDNIGHT - 5 * MINUTE) as world:
        await trio.sleep(60)
        with sqlite3.connect(tmp_path / "journal.sqlite3") as database:
            old = world.time.now() - 91 * DAY
            database.execute("INSERT INTO gap_event VALUES (?, 1, 0, 60000, 'opened', 'long ago')", (old,))
        database.close()
        await trio.sleep(600)
    with ledger(tmp_path) as books:
        assert books.one("SELECT count(*) FROM gap_event WHERE detail = 'long ago'") == 0


# --- clocks -----------------------------------------------------------------------------------------------


async def test_a_clock_that_jumps_drops_every_connection_and_says_so(autojump_clock, tmp_path, caplog):
    async with collecting(tmp_path, {"kraken": ("BTC/USD",)}) as world:
        await trio.sleep(300)
        world.time.jump(90_000)
        await trio.sleep(120)
        assert world.service.board.venues["kraken"].reconnects == 1
    assert any("the clock jumped by +90.0 s" in record.message for record in caplog.records)


async def test_a_clock_that_is_wrong_is_said(autojump_clock, tmp_path, caplog):
    """Measured against Coinbase's heartbeats, whose quickest of sixty cannot be late by accident."""
    async with collecting(tmp_path, {"coinbase": ("BTC-USD",)}, venue_clock_ahead=3_000):
        await trio.sleep(300)
    said = [record.message for record in caplog.records if "our clock differs" in record.message]
    assert len(said) == 1
    assert "-3.0 s" in said[0] or "-2.9 s" in said[0]


def test_the_journal_is_sqlite_and_opens_with_nothing_of_ours(tmp_path):
    with open_store(tmp_path):
        pass
    with sqlite3.connect(f"file:{tmp_path / 'journal.sqlite3'}?mode=ro", uri=True) as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    database.close()
