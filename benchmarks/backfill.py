"""Minutes filled per second over REST, stored and accounted for, beside a loop that only downloads.

A made-up OKX record (a process of its own, pages of 300 rows from rows rendered beforehand, no limits) is asked by one
client after another, each in a process of its own::

    the record's process                   the client's process
    render the rows of some days       ←   ask for all of them, page by page
                                           say how many minutes it has, the seconds, the CPU time

A round is one turn of every client; ratios are taken within a round, and medians over the rounds.

    python benchmarks/backfill.py
    python benchmarks/backfill.py --rounds 1 --symbols 20 --only ours,ccxt --json

README.md, beside this file, says how to read the table. Unix only.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import json
import logging
import platform
import random
import resource
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from urllib.parse import parse_qsl

import attrs

MINUTE = 60_000
PAGE = 300
"""Rows that the venue gives at most."""
AT_ONCE = 10
"""Questions under way, of the clients that have no rule of their own."""
PATIENCE = 300.0
"""Seconds to wait for a client before the run is given up."""


@attrs.frozen
class Task:
    """What every client is to fetch."""

    url: str
    symbols: tuple[str, ...]
    days: float
    until: int
    """Minutes from here on are not waited for: the newest are not settled yet. Unix ms."""
    minutes: int
    """Of each symbol."""

    @property
    def since(self) -> int:
        return self.until - self.minutes * MINUTE


@attrs.frozen
class Done:
    """What a client says at its end."""

    minutes: int
    wall: float
    """Seconds until it had all of them; for ours, in day files."""
    cpu: float
    """Seconds, of all its threads, user and system."""
    accounted: float | None = None
    """Seconds until none of them was a gap any more; the rest is the last flush."""


# --- the record -------------------------------------------------------------------------------------------


class Record(asyncio.Protocol):
    """Answers ``/api/v5/market/candles`` and ``history-candles`` from rows that are bytes already."""

    def __init__(self, first: int, rows: Sequence[bytes]) -> None:
        self._first, self._rows = first, rows  # ascending, one a minute from *first* on
        self._heard = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._heard += data
        while b"\r\n\r\n" in self._heard:
            head, _, self._heard = self._heard.partition(b"\r\n\r\n")
            body = self._answer(head.split(b" ", 2)[1].decode())
            top = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            self._transport.write(top.encode() + body)

    def _answer(self, target: str) -> bytes:
        asked = dict(parse_qsl(target.partition("?")[2]))
        # Exclusive both, and named backwards. Whole minutes only: what a real record does with the one that runs.
        oldest = int(asked["before"]) // MINUTE + 1 - self._first // MINUTE
        newest = -(-int(asked["after"]) // MINUTE) - 1 - self._first // MINUTE
        end = min(newest + 1, len(self._rows))
        begin = max(0, oldest, end - min(PAGE, int(asked.get("limit", "100"))))
        return b'{"code":"0","msg":"","data":[' + b",".join(self._rows[begin:end][::-1]) + b"]}"


def rendered(first: int, count: int) -> list[bytes]:
    """*count* rows, a random walk: OKX's nine strings."""
    chance, price, rows = random.Random(7), 41_000.0, []
    for number in range(count):
        opened, price = price, max(1.0, price + chance.gauss(0, 12))
        high, low = max(opened, price) + chance.random() * 9, min(opened, price) - chance.random() * 9
        volume = chance.expovariate(1 / 8)
        quote = volume * (high + low) / 2
        prices = f'"{opened:.1f}","{max(high, opened, price):.1f}","{min(low, opened, price):.1f}","{price:.1f}"'
        rows.append(f'["{first + number * MINUTE}",{prices},"{volume:.8f}","{quote:.9f}","{quote:.9f}","1"]'.encode())
    return rows


def serve(days: float) -> None:
    """Serve a record of *days* up to an hour from now, on a port that is said on stdout."""
    first = (int(time.time()) // 60 - int((days + 1) * 1440)) * MINUTE
    rows = rendered(first, int((days + 1) * 1440) + 60)

    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(lambda: Record(first, rows), "127.0.0.1", 0)
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()

    asyncio.run(run())


# --- the clients ------------------------------------------------------------------------------------------


def run_untold(task: Task) -> Done:
    """As :func:`run_ours`, without the change feed."""
    return run_ours(task, told=False)


def run_ours(task: Task, *, told: bool = True) -> Done:
    """The service: gap-filler, writer, journal, day files; its budgets lifted, its venue's feed not there."""
    import trio

    from trio_candles.clock import ServiceClock, WallTime
    from trio_candles.collector.service import open_service
    from trio_candles.config.load import Aggregation, Config, GapDetection, Shutdown, Status, Storage, VenueConfig
    from trio_candles.network.streams import paced_ticks
    from trio_candles.network.websocket import Network, dial_tcp
    from trio_candles.store.store import open_store
    from trio_candles.venues.history import Rate
    from trio_candles.venues.okx import VENUE
    from trio_candles.venues.okx.history import OkxHistory

    class Unlimited(OkxHistory):
        rates = dict.fromkeys(OkxHistory.rates, Rate(per_second=1e6, burst=1_000_000, empty_at_start=False))

    logging.disable(logging.CRITICAL)  # that there is no feed is said once a reconnection
    with tempfile.TemporaryDirectory(prefix="backfill-") as folder:
        root = Path(folder, "data")
        config = Config(
            data_dir=root,
            log_dir=Path(folder),
            # No feed: port 9 refuses, and what it would say is not what is measured.
            venues=(VenueConfig("okx", True, task.symbols, "ws://127.0.0.1:9/", task.url),),
            gap_detection=GapDetection(True, task.days),
            aggregation=Aggregation(False, "1m", ()),
            storage=Storage(60),
            status=Status(30),
            shutdown=Shutdown(PATIENCE),
        )
        venues = {"okx": attrs.evolve(VENUE, history=Unlimited())}
        wall = WallTime()
        network = Network(dial_tcp(paced_ticks(wall.now)))
        with open_store(root) as store:
            if not told:
                for name in ("known", "revised", "unknown"):
                    setattr(store.journal._changes, name, lambda *_, **__: None)
            begun, cpu = time.monotonic(), time.process_time()

            async def collect() -> float:
                async with open_service(config, network, store, wall, venues=venues):
                    while open_minutes(root, task.until):  # noqa: ASYNC110  (the ledger is a file)
                        await trio.sleep(0.05)
                    return time.monotonic() - begun

            accounted = trio.run(collect, clock=ServiceClock(1.0))
            took, cpu = time.monotonic() - begun, time.process_time() - cpu
        return Done(stored_minutes(root, task), took, cpu, accounted)


def open_minutes(root: Path, until: int) -> int:
    """Minutes before *until* that the ledger calls gaps."""
    with closing(sqlite3.connect(f"{(root / 'journal.sqlite3').as_uri()}?mode=ro", uri=True)) as ledger:
        ((total,),) = ledger.execute(
            "SELECT coalesce(sum(min(until_ms, ?1) - since_ms), 0) FROM gap WHERE since_ms < ?1", (until,)
        )
    return int(total) // MINUTE


def stored_minutes(root: Path, task: Task) -> int:
    """Rows of the task's minutes in day files."""
    import pyarrow.parquet as pq

    total = 0
    for path in root.rglob("*.parquet"):
        times = pq.ParquetFile(path).read(["open_time_ms"], use_threads=False).column(0).to_pylist()
        total += sum(task.since <= minute < task.until for minute in times)
    return total


def pages_of(task: Task) -> list[tuple[str, int]]:
    """(symbol, since) of every page."""
    starts = range(task.since, task.until, PAGE * MINUTE)
    return [(symbol, since) for since in starts for symbol in task.symbols]


def run_ccxt(task: Task) -> Done:
    """ccxt, asyncio: ``fetch_ohlcv`` page by page, ten at a time; the rows are counted and dropped."""
    import ccxt.async_support

    async def collect() -> Done:
        exchange = ccxt.async_support.okx({"enableRateLimit": False})
        exchange.urls["api"]["rest"] = task.url
        exchange.set_markets([_ccxt_market(symbol) for symbol in task.symbols])
        pages, minutes = pages_of(task), 0

        async def work() -> None:
            nonlocal minutes
            while pages:
                symbol, since = pages.pop()
                rows = await exchange.fetch_ohlcv(symbol.replace("-", "/"), "1m", since, PAGE)
                minutes += sum(task.since <= row[0] < task.until for row in rows)

        begun, cpu = time.monotonic(), time.process_time()
        try:
            await asyncio.gather(*[work() for _ in range(AT_ONCE)])
            return Done(minutes, time.monotonic() - begun, time.process_time() - cpu)
        finally:
            await exchange.close()

    return asyncio.run(collect())


def _ccxt_market(symbol: str) -> dict[str, object]:
    base, quote = symbol.split("-")
    names = {"id": symbol, "symbol": f"{base}/{quote}", "base": base, "quote": quote, "baseId": base, "quoteId": quote}
    return {**names, "type": "spot", "spot": True, "active": True}


def run_bare(task: Task) -> Done:
    """httpx on trio, ten at a time, and msgspec: pages decoded into strings, counted, dropped."""
    import httpx
    import msgspec
    import trio

    class Body(msgspec.Struct):
        code: str
        data: list[list[str]]

    decoder = msgspec.json.Decoder(Body)

    async def collect() -> Done:
        pages, minutes = pages_of(task), 0

        async def work(client: httpx.AsyncClient) -> None:
            nonlocal minutes
            while pages:
                symbol, since = pages.pop()
                asked = {"instId": symbol, "bar": "1m", "limit": str(PAGE), "before": str(since - 1)}
                asked["after"] = str(since + PAGE * MINUTE)
                answer = await client.get(f"{task.url}/api/v5/market/history-candles", params=asked)
                rows = decoder.decode(answer.content).data
                minutes += sum(task.since <= int(row[0]) < task.until for row in rows)

        begun, cpu = time.monotonic(), time.process_time()
        async with httpx.AsyncClient(trust_env=False) as client, trio.open_nursery() as nursery:
            for _ in range(AT_ONCE):
                nursery.start_soon(work, client)
        return Done(minutes, time.monotonic() - begun, time.process_time() - cpu)

    return trio.run(collect)


@attrs.frozen
class Client:
    """Who is measured, and which installed package it needs."""

    label: str
    run: Callable[[Task], Done]
    package: str


CLIENTS = {
    "ours": Client("trio_candles", run_ours, "httpx"),
    "untold": Client("without the change feed", run_untold, "httpx"),
    "ccxt": Client("ccxt async", run_ccxt, "ccxt"),
    "bare": Client("httpx and msgspec alone", run_bare, "httpx"),
}


# --- measuring --------------------------------------------------------------------------------------------


def version(package: str) -> str | None:
    """The installed version of *package*."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def measure(name: str, port: int, symbols: int, days: float) -> dict[str, float]:
    """Run the client *name* once, in a process of its own."""
    now = time.time()
    until = (int(now) // 60 - 5) * MINUTE
    # A few minutes fewer than ours is owed: its lookback begins when its own process reads the clock.
    minutes = int(days * 1440) - 10
    task = {"url": f"http://127.0.0.1:{port}", "days": days, "until": until, "minutes": minutes}
    task["symbols"] = [f"C{number:03}-USDT" for number in range(symbols)]
    child = subprocess.run(
        [sys.executable, __file__, "--client", name],
        input=json.dumps(task), capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    if child.returncode:
        raise SystemExit(f"{name} failed:\n{child.stderr[-2000:]}")
    done: dict[str, float] = json.loads(child.stdout)
    if done["minutes"] != minutes * symbols:
        raise SystemExit(f"{name} was to have {minutes * symbols} minutes and has {done['minutes']:.0f}")
    return done


def act_as(name: str) -> None:
    """Be the client *name*: a task comes on stdin, what it took goes to stdout."""
    told = json.load(sys.stdin)
    task = Task(**{**told, "symbols": tuple(told["symbols"])})
    done = CLIENTS[name].run(task)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    print(json.dumps({**attrs.asdict(done), "rss": peak}))


def summary(name: str, rounds: Sequence[dict[str, dict[str, float]]]) -> dict[str, object]:
    """One client's row: medians over the rounds, and of the ratios within each."""
    mine = [costs[name] for costs in rounds if name in costs]
    both = [(costs[name], costs["ccxt"]) for costs in rounds if name in costs and "ccxt" in costs]
    package = CLIENTS[name].package
    return {
        "client": CLIENTS[name].label,
        "installed": version(package) is not None,
        "minutes_per_second": middle([one["minutes"] / one["wall"] for one in mine]),
        "cpu_us_per_minute": middle([one["cpu"] / one["minutes"] * 1e6 for one in mine]),
        "speed_ratio": middle([one["minutes"] / one["wall"] / (o["minutes"] / o["wall"]) for one, o in both]),
        "cpu_ratio": middle([one["cpu"] / one["minutes"] / (o["cpu"] / o["minutes"]) for one, o in both]),
        "rss_mb": middle([one["rss"] for one in mine]),
        "version": f"{package} {version(package)}",
        "rounds": mine,
    }


def middle(values: Sequence[float]) -> float | None:
    """The median; ``None`` of nothing."""
    return statistics.median(values) if values else None


def table(rows: Sequence[dict[str, object]]) -> str:
    """The rows for people."""
    lines = [f"{'':<24}{'minutes/s':>10}{'CPU µs':>9}{'x ccxt':>18}", ""]
    lines[1] = f"{'client':<24}{'':>10}{'a minute':>9}{'speed':>10}{'CPU':>8}{'RSS MB':>8}"
    keys = {"minutes_per_second": 10, "cpu_us_per_minute": 9, "speed_ratio": 10, "cpu_ratio": 8, "rss_mb": 8}
    for row in rows:
        numbers = "".join(f"{_number(row[key], key):>{width}}" for key, width in keys.items())
        lines.append(
            f"{row['client']:<24}{numbers}   {row['version']}"
            if row["installed"]
            else f"{row['client']:<24}  missing: not installed"
        )
    return "\n".join(lines)


def _number(value: object, key: str) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if key.endswith("ratio") else f"{value:.1f}" if key.startswith("cpu") else f"{value:,.0f}"


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="turns of every client (default: 3)")
    parser.add_argument("--symbols", type=int, default=40, help="how many series (default: 40)")
    parser.add_argument("--days", type=float, default=3.0, help="of each, as far back as that (default: 3)")
    parser.add_argument("--only", default=",".join(CLIENTS), help=f"some of {','.join(CLIENTS)} (default: all)")
    parser.add_argument("--json", action="store_true", help="print everything as JSON instead of the table")
    parser.add_argument("--client", choices=CLIENTS, help=argparse.SUPPRESS)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.client is not None:
        return act_as(options.client)
    if options.serve:
        return serve(options.days)
    names = options.only.split(",")
    unknown = set(names) - set(CLIENTS)
    if unknown:
        parser.error(f"unknown client: {', '.join(sorted(unknown))}")
    command = [sys.executable, __file__, "--serve", "--days", str(options.days)]
    record = subprocess.Popen(command, stdout=subprocess.PIPE)
    rounds: list[dict[str, dict[str, float]]] = []
    try:
        assert record.stdout is not None
        port = int(record.stdout.readline())
        for turn in range(options.rounds):
            rounds.append({})
            for name in names:
                if version(CLIENTS[name].package) is not None:
                    print(f"round {turn + 1} of {options.rounds}: {CLIENTS[name].label}", file=sys.stderr)
                    rounds[-1][name] = measure(name, port, options.symbols, options.days)
    finally:
        record.kill()
        record.communicate()
    rows = [summary(name, rounds) for name in names]
    setup = {"symbols": options.symbols, "days": options.days, "rounds": options.rounds}
    machine = {"python": platform.python_version(), "system": platform.system(), "machine": platform.machine()}
    if options.json:
        print(json.dumps({"setup": setup, "machine": machine, "clients": rows}, indent=2))
    else:
        print(table(rows))
        print(", ".join(f"{key} {value}" for key, value in {**setup, **machine}.items()))


if __name__ == "__main__":
    main()
