"""How long a start takes, and that this does not grow with history.

A directory of many series and days, of which all but the last two are sealed, is made once. Then ``run.py`` is started
in it again and again, with endpoints on the loopback that take a connection and say nothing, and killed once the first
connection has come. Measured is the wall time until the first character on stdout, and until that connection; the CPU
time until then; and beside them the time of a bare ``python -c "import trio_candles.command.cli"``::

    fresh       an empty directory
    days N      N sealed days a series by the ledger alone: a start does not read their files
    rebuilt     with --files: real day files, and no journal; ms a file

    python benchmarks/start.py                          # 60 series; 365 and 1,825 days; under five minutes
    python benchmarks/start.py --days 30 --files 30     # and a journal rebuilt from 30 days of real files

README.md, beside this file, says how to read the table. Unix only.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import selectors
import shutil
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import pyarrow as pa

from trio_candles.candles.model import DAY, MINUTE, Candle, Millis, Series, Source, floor_to
from trio_candles.store import dayfiles
from trio_candles.store.accounts import Account, SealedDay, sealed_row, shape_of
from trio_candles.store.schema import JOURNAL, digest_of
from trio_candles.store.sealed import path_of
from trio_candles.store.store import open_store

ROOT = Path(__file__).parents[1]
TIMEFRAMES = ("5m", "15m", "1h", "4h", "1d")
VENUES = {"coinbase": "C{}-USD", "kraken": "K{}/USD", "okx": "O{}-USDT"}
PATIENCE = 120.0
"""Seconds to wait for a start before the run is given up."""


# --- directories


def all_series(count: int) -> list[Series]:
    """*count* series, of all venues in turn."""
    names = list(VENUES.items())
    return [Series(names[n % len(names)][0], names[n % len(names)][1].format(n)) for n in range(count)]


def candles_of(series: Series, since: int, until: int) -> Iterator[Candle]:
    """A candle for each minute."""
    for minute in range(since, until, MINUTE):
        price = 100.0 + (minute // MINUTE) % 977 / 7
        end = Millis(minute + MINUTE)
        yield Candle(
            series, Millis(minute), price, price + 1.25, price - 1.5, price + 0.5, 3.25, 320.5, price, 17,
            Source.WEBSOCKET, Millis(end + 350), end,
        )  # fmt: skip


def make(root: Path, series: Sequence[Series], days: int, files: int, now: Millis) -> None:
    """A directory of *series* with *days* sealed days, the last *files* of them with files, and two open days."""
    today = floor_to(now, DAY)
    begin = Millis(today - DAY)
    with open_store(root) as store:
        store.claim("real", speed=1.0, pivot=0.0)
        store.aggregate(TIMEFRAMES)
        store.expect(series, begin, begin)
        for one in series:
            store.commit(list(candles_of(one, begin, floor_to(now, MINUTE))), now)
        while waiting := store.waiting():
            assert store.flush(waiting).error is None
    with closing(sqlite3.connect(root / JOURNAL)) as database, database:
        ids = {(venue, symbol): id_ for id_, venue, symbol in database.execute("SELECT id, venue, symbol FROM series")}
        for one in series:
            id_ = ids[one.venue, one.symbol]
            for number in range(days):
                day = Millis(begin - (number + 1) * DAY)
                account = Account(one, day, "c" * 1440, compared=True)
                digests = dict.fromkeys(("1m", *TIMEFRAMES), "0" * 64)
                if number < files:
                    digests = {name: write(root, one, account, name) for name in digests}
                row = sealed_row(SealedDay(account, digests, shape_of(TIMEFRAMES, in_file=True)))
                database.execute("INSERT INTO sealed VALUES (?, ?, ?, ?, ?, ?, ?)", (id_, *row))
            database.execute("UPDATE series SET first_ms = first_ms - ? WHERE id = ?", (days * DAY, id_))


def write(root: Path, one: Series, account: Account, timeframe: str) -> str:
    """Write the day file of *timeframe*; its digest. The aggregates are not derived: no start looks into them."""
    path = path_of(one, account.day, timeframe)
    file = dayfiles.DayFile(one, account.day).of(timeframe)
    step = dayfiles.Timeframe.parse(timeframe).length
    some = list(candles_of(one, account.day, account.day + DAY))[:: step // MINUTE]
    table = dayfiles.table_of(some)
    if timeframe == "1m":
        content = dayfiles.encode(table, one, account)
    else:
        table = table.set_column(2, "timeframe", pa.array([timeframe] * len(some)).cast(table.schema[2].type))
        ends = pa.array([candle.open_time + step for candle in some], pa.int64())
        content = dayfiles.encode(table.set_column(4, table.schema[4], ends), file.series)
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_bytes(content)
    return digest_of(content)


def configured(home: Path, root: Path, series: Sequence[Series], port: int) -> Path:
    """A configuration that collects *series* from this machine's *port*; its path."""
    lines = [f"data_dir: {root}", f"log_dir: {home / 'logs'}", "venues:"]
    for venue in VENUES:
        symbols = ", ".join(one.symbol for one in series if one.venue == venue)
        urls = f'websocket_url: "ws://127.0.0.1:{port}/", rest_url: "http://127.0.0.1:{port}"'
        lines.append(f"  {venue}: {{symbols: [{symbols}], {urls}}}")
    path = home / "config.yaml"
    path.write_text("\n".join(lines) + "\n")
    return path


# --- measuring


def environment(home: Path) -> dict[str, str]:
    """Ours, but Python keeps what it has compiled, as it does for users."""
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPYCACHEPREFIX": str(home / "compiled")}


def one_start(command: Sequence[str], home: Path, listener: socket.socket) -> dict[str, float]:
    """Start *command*, and kill it once it has connected: ms until the first character and until the connection."""
    began, found = time.perf_counter(), {}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=home, env=environment(home), bufsize=0
    )
    assert process.stdout is not None
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ, "character_ms")
            selector.register(listener, selectors.EVENT_READ, "connection_ms")
            while len(found) < 2:
                ready = selector.select(PATIENCE)
                if not ready or process.poll() is not None:
                    raise SystemExit(f"no start: {process.returncode} {process.stderr and process.stderr.read()!r}")
                for key, _ in ready:
                    found[key.data] = (time.perf_counter() - began) * 1000
                    selector.unregister(key.fileobj)
        ticks = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        found["cpu_ms"] = sum(map(int, ticks)) * 1000 / os.sysconf("SC_CLK_TCK")
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    listener.settimeout(0.1)
    try:
        while True:
            listener.accept()[0].close()
    except TimeoutError:
        return found


def bare(home: Path) -> float:
    """Ms that Python takes to import the command."""
    began = time.perf_counter()
    command = [sys.executable, "-c", "import trio_candles.command.cli"]
    subprocess.run(command, env=environment(home), cwd=ROOT, check=True)
    return (time.perf_counter() - began) * 1000


def measure(
    home: Path, name: str, root: Path, series: Sequence[Series], rounds: int, *, lost: bool = False
) -> dict[str, float]:
    """The medians over *rounds* starts in *root*, whose journal is put back after each; *lost*: there is none."""
    journal, kept = root / JOURNAL, home / "journal"
    if journal.exists():
        shutil.copyfile(journal, kept)
    found = []
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        config = configured(home, root, series, listener.getsockname()[1])
        for turn in range(rounds + 1):
            for part in (journal, root / f"{JOURNAL}-wal", root / f"{JOURNAL}-shm"):
                part.unlink(missing_ok=True)
            if kept.exists() and not lost:
                shutil.copyfile(kept, journal)
            one = one_start([sys.executable, str(ROOT / "run.py"), "--config", str(config)], home, listener)
            one["import_ms"] = bare(home)
            if turn:  # the first one fills caches
                found.append(one)
            print(f"{name}: {one['connection_ms']:.0f} ms", file=sys.stderr)
    kept.unlink(missing_ok=True)
    return {key: statistics.median(one[key] for one in found) for key in found[0]}


def table(results: Mapping[str, Mapping[str, float]]) -> str:
    """The figures for people."""
    lines = [f"{'ms until':<24}{'character':>11}{'connection':>12}{'CPU':>8}{'bare import':>13}{'ratio':>8}"]
    for name, one in results.items():
        ratio = one["connection_ms"] / one["import_ms"]
        lines.append(
            f"{name:<24}{one['character_ms']:>11.0f}{one['connection_ms']:>12.0f}{one['cpu_ms']:>8.0f}"
            f"{one['import_ms']:>13.0f}{ratio:>8.2f}"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--series", type=int, default=60, help="series (default: 60)")
    parser.add_argument("--days", type=int, nargs="+", default=[365, 1825], help="sealed days (default: 365 1825)")
    parser.add_argument("--files", type=int, default=0, help="sealed days with real files, for the rebuilding")
    parser.add_argument("--rounds", type=int, default=5, help="starts of each kind (default: 5)")
    parser.add_argument("--dir", type=Path, help="where to write: on the disk that is meant (default: the system's)")
    parser.add_argument("--json", action="store_true", help="print everything as JSON instead of the table")
    options = parser.parse_args()
    series, results = all_series(options.series), {}
    with tempfile.TemporaryDirectory(prefix="start-", dir=options.dir) as folder:
        home = Path(folder)
        results["fresh"] = measure(home, "fresh", home / "fresh", series, options.rounds)
        for days in options.days:
            root = home / f"days-{days}"
            make(root, series, days, options.files, Millis(time.time_ns() // 1_000_000))
            results[f"days {days}"] = measure(home, f"{days} days", root, series, options.rounds)
        if options.files:
            lost = measure(home, "no journal", root, series, 1, lost=True)
            count = sum(1 for _ in root.glob("*/*/*/*.parquet"))
            lost["ms_a_file"] = lost["connection_ms"] / count
            results[f"rebuilt, {count} files"] = lost
    machine = {"python": platform.python_version(), "system": platform.system(), "machine": platform.machine()}
    if options.json:
        print(json.dumps({"machine": machine, "results": results}))
    else:
        print(table(results))
        for name, one in results.items():
            if "ms_a_file" in one:
                print(f"{name}: {one['ms_a_file']:.2f} ms a file")


if __name__ == "__main__":
    main()
