"""A collector and its exchanges in memory, under the mock clock: what the whole-service tests stand on."""

from __future__ import annotations

import json
import random
import zlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from pathlib import Path

import attrs
import httpx
import pyarrow.parquet as pq

from trio_candles.candles.model import MINUTE, Millis, Series
from trio_candles.clock import SimulatedTime
from trio_candles.collector.service import Service, open_service
from trio_candles.collector.vouching import Vouching
from trio_candles.config.load import (
    Aggregation,
    Config,
    GapDetection,
    Shutdown,
    Status,
    Storage,
    VenueConfig,
)
from trio_candles.network.websocket import Network
from trio_candles.simulator import Market, MemoryExchanges, open_exchanges_in_memory
from trio_candles.store.disk import LOCAL_DISK, Disk
from trio_candles.store.store import Store, open_store
from trio_candles.threads import Offload, inline
from trio_candles.venues.registry import VENUES
from trio_candles.venues.venue import Venue

SYMBOLS = {
    "coinbase": ("BTC-USD", "ETH-USD"),
    "kraken": ("BTC/USD", "ETH/USD"),
    "okx": ("BTC-USDT", "ETH-USDT"),
}
ONE_EACH = {name: symbols[:1] for name, symbols in SYMBOLS.items()}
NOON = Millis(1_768_046_400_000)
"""2026-01-10 12:00:00 UTC."""

market_of = cache(Market)
"""A market is a pure function of its seed, and remembers what it computed: most tests look at the same minutes."""


def config_of(
    root: Path,
    symbols: dict[str, tuple[str, ...]],
    lookback_days: float = 0.0,
    *,
    fill: bool = False,
    timeframes: tuple[str, ...] = (),
) -> Config:
    venues = tuple(
        VenueConfig(name, enabled=True, symbols=some, websocket_url=None, rest_url=None)
        for name, some in symbols.items()
    )
    return Config(
        data_dir=root,
        log_dir=root / "logs",
        venues=venues,
        gap_detection=GapDetection(enabled=fill, lookback_days=lookback_days),
        aggregation=Aggregation(enabled=bool(timeframes), base_timeframe="1m", timeframes=timeframes),
        storage=Storage(flush_interval_seconds=60),
        status=Status(interval_seconds=30),
        shutdown=Shutdown(timeout_seconds=10),
    )


@attrs.define
class AdjustableTime:
    """The service's clock, which a test may set wrong; the venues' is never touched."""

    epoch: Millis
    speed: float = 1.0
    _ahead: int = 0

    def now(self) -> Millis:
        return Millis(self.true_now() + self._ahead)

    def true_now(self) -> Millis:
        return SimulatedTime(self.epoch).now()

    def jump(self, by: int) -> None:
        """Set the clock *by* ms ahead."""
        self._ahead += by


@attrs.frozen
class World:
    """Everything that a whole-service test looks at."""

    service: Service
    exchanges: MemoryExchanges
    market: Market
    time: AdjustableTime
    store: Store
    shown: list[str]


@asynccontextmanager
async def collecting(
    root: Path,
    symbols: dict[str, tuple[str, ...]] | None = None,
    *,
    epoch: int = NOON,
    seed: int = 7,
    lookback_days: float = 0.0,
    fill: bool = False,
    timeframes: tuple[str, ...] = (),
    market: Market | None = None,
    venues: Mapping[str, Venue] = VENUES,
    wrap: Callable[[Store], Store] = lambda store: store,
    wrap_rest: Callable[[httpx.AsyncBaseTransport], httpx.AsyncBaseTransport] = lambda transport: transport,
    venue_clock_ahead: int = 0,
    vouched: bool = False,
    wrong: int = 0,
    of_wall: bool = False,
    disk: Disk = LOCAL_DISK,
    offload: Offload = inline,
) -> AsyncIterator[World]:
    """The whole service against simulated exchanges, in memory; its clock shows *epoch* at trio's zero, and is vouched
    for from the beginning if *vouched*, where the exchanges' feeds are to say nothing. It begins *wrong* ms ahead.
    """
    symbols = symbols or SYMBOLS
    time = AdjustableTime(Millis(epoch), ahead=wrong)
    market = market or market_of(seed)
    shown: list[str] = []
    async with open_exchanges_in_memory(market, lambda: time.true_now() + venue_clock_ahead) as exchanges:
        config = config_of(root, symbols, lookback_days, fill=fill, timeframes=timeframes)
        config = attrs.evolve(
            config,
            venues=tuple(
                attrs.evolve(
                    venue,
                    websocket_url=exchanges.endpoints[venue.name].websocket_url,
                    rest_url=exchanges.endpoints[venue.name].rest_url,
                )
                for venue in config.venues
            ),
        )
        with open_store(root, disk) as store:
            network = Network(exchanges.dial, transport=wrap_rest(exchanges.transport))
            store = wrap(store)
            async with open_service(
                config,
                network,
                store,
                time,
                offload=offload,
                chance=random.Random(1),
                show=shown.append,
                venues=venues,
                clock=Vouching(time, vouched=vouched),
                of_wall=of_wall,
            ) as service:
                yield World(service, exchanges, market, time, store, shown)
        # Whatever a test does to the venues, their published limits are kept.
        over = {name: dict(one.violations) for name, one in exchanges.exchanges.items() if one.violations}
        assert not over, f"requests over the venues' limits: {over}"


# --- what lies on disk, read without the product's reading code --------------------------------------------


def rows_on_disk(root: Path, series: Series) -> dict[int, dict[str, object]]:
    """Every row of *series*' day files by open time; fails on a duplicate."""
    rows: dict[int, dict[str, object]] = {}
    for path in sorted((root / series.path).glob("*.parquet")):
        for row in pq.ParquetFile(str(path)).read(use_threads=False).to_pylist():
            assert row["open_time_ms"] not in rows, f"{path} has {row['open_time_ms']} twice"
            rows[row["open_time_ms"]] = row
    return rows


@contextmanager
def ledger(root: Path) -> Iterator[Ledger]:
    """The ledger of a directory that is at rest."""
    import sqlite3

    database = sqlite3.connect(root / "journal.sqlite3")
    try:
        yield Ledger(database)
    finally:
        database.close()


@attrs.frozen
class Ledger:
    """Reads the ledger's tables with SQL of its own."""

    _db: object

    def _spans(self, table: str, series: Series, what: str) -> dict[int, str]:
        rows = self._db.execute(  # type: ignore[attr-defined]
            f"SELECT since_ms, until_ms, {what} FROM {table} JOIN series ON series.id = series_id"
            " WHERE venue = ? AND symbol = ? AND timeframe = ?",
            (series.venue, series.symbol, series.timeframe),
        )
        found: dict[int, str] = {}
        for since, until, word in rows:
            for minute in range(since, until, MINUTE):
                assert minute not in found, f"{table}: {series} {minute} twice"
                found[minute] = word
        sealed = self._db.execute(  # type: ignore[attr-defined]
            "SELECT day_ms, minutes, detail FROM sealed JOIN series ON series.id = series_id"
            " WHERE venue = ? AND symbol = ? AND timeframe = ?",
            (series.venue, series.symbol, series.timeframe),
        )
        for day, letters, detail in sealed:
            evidence = json.loads(zlib.decompress(detail))
            for number, letter in enumerate(zlib.decompress(letters).decode()):
                kind = {"e": "empty", "u": "unfillable", "g": "gap"}.get(letter)
                if kind is not None and (kind == "empty") == (table == "empty"):
                    minute = day + number * MINUTE
                    assert minute not in found, f"{table}: {series} {minute} twice"
                    found[minute] = evidence["empty"] if kind == "empty" else evidence[kind][0]
        return found

    def gaps(self, series: Series) -> dict[int, str]:
        """Open gap minutes and their reasons."""
        return self._spans("gap", series, "reason")

    def opened(self, series: Series) -> dict[int, str]:
        """Minutes that are a gap or were one for five minutes, and the reason at first."""
        rows = self._db.execute(  # type: ignore[attr-defined]
            "SELECT since_ms, until_ms, detail FROM gap_event JOIN series ON series.id = series_id"
            " WHERE event = 'opened' AND venue = ? AND symbol = ? ORDER BY at_ms",
            (series.venue, series.symbol),
        )
        found: dict[int, str] = {}
        for since, until, detail in rows:
            for minute in range(since, until, MINUTE):
                found.setdefault(minute, detail.partition(":")[0])
        return self.gaps(series) | found

    def empties(self, series: Series) -> dict[int, str]:
        """Empty minutes and their evidence."""
        return self._spans("empty", series, "evidence")

    def range(self, series: Series) -> range:
        """The minutes that are accounted for."""
        first, mark = self._db.execute(  # type: ignore[attr-defined]
            "SELECT first_ms, mark_ms FROM series WHERE venue = ? AND symbol = ? AND timeframe = ?",
            (series.venue, series.symbol, series.timeframe),
        ).fetchone()
        return range(first, mark, MINUTE)

    def one(self, sql: str, *args: object) -> object:
        """The first value of a query."""
        return self._db.execute(sql, args).fetchone()[0]  # type: ignore[attr-defined]


def check_against_truth(root: Path, market: Market, series: Series) -> dict[str, int]:
    """Every stored row equals the market's candle, every minute is exactly one thing; how many of each."""
    rows = rows_on_disk(root, series)
    counts = {"candles": 0, "empty": 0, "gap": 0}
    with ledger(root) as books:
        gaps, empties, minutes = books.gaps(series), books.empties(series), books.range(series)
    assert set(rows) <= set(minutes)
    assert set(gaps) <= set(minutes)
    assert set(empties) <= set(minutes)
    for minute in minutes:
        kinds = (minute in rows) + (minute in gaps) + (minute in empties)
        assert kinds == 1, f"{series} {minute}: is {kinds} things"
        true = market.candle(series.venue, series.symbol, minute)
        if minute in rows:
            row = rows[minute]
            counts["candles"] += 1
            assert row["close_time_ms"] == minute + MINUTE
            assert (row["venue"], row["symbol"], row["timeframe"]) == (series.venue, series.symbol, "1m")
            if true is None:  # only OKX publishes rows of minutes without trades
                assert series.venue == "okx"
                assert row["volume"] == 0.0
                assert row["open"] == row["high"] == row["low"] == row["close"]
                continue
            found = tuple(row[name] for name in ("open", "high", "low", "close", "volume"))
            wanted = tuple(float(x) for x in (true.open, true.high, true.low, true.close, true.volume))
            assert found == wanted, f"{series} {minute}: {found} is not {wanted}"
            if row["trades_count"] is not None:
                assert row["trades_count"] == true.trades_count
        elif minute in empties:
            counts["empty"] += 1
            assert true is None, f"{series} {minute}: called empty, had {true}"
        else:
            counts["gap"] += 1
    return counts
