"""How long a start takes, and that this does not grow with history.

A directory of many series and days, of which all but the last two are sealed, is made once. Then ``run.py`` is started
in it again and again, with endpoints on the loopback that take a connection and say nothing, and killed once the first
connection has come. Measured is the wall time until the first character on stdout, and until that connection; the CPU
time until then; and beside them the time of a bare ``python -c "import trio_candles.command.cli"``::

    fresh       an empty directory
    days N      N sealed days a series, by the ledger alone: a start does not read their files
    files N     N sealed days a series with all their files; the journal as it was, and deleted

    python benchmarks/start.py                          # 60 series, 365 and 1,825 days: under five minutes
    python benchmarks/start.py --days --files 365       # 131,400 files: some minutes more, 1 GB

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

from history import HIGHER, VENUES, make_sealed, names

from trio_candles.candles.model import DAY, MINUTE, Candle, Millis, Series, Source, floor_to
from trio_candles.store.accounts import STORED, Account, SealedDay, sealed_row, shape_of
from trio_candles.store.schema import JOURNAL
from trio_candles.store.store import open_store

ROOT = Path(__file__).parents[1]
PATIENCE = 900.0
"""Seconds to wait for a start before the run is given up."""


# --- directories


def candles_of(series: Series, since: int, until: int) -> Iterator[Candle]:
    """A candle for each minute."""
    for minute in range(since, until, MINUTE):
        price = 100.0 + (minute // MINUTE) % 977 / 7
        end = Millis(minute + MINUTE)
        yield Candle(
            series, Millis(minute), price, price + 1.25, price - 1.5, price + 0.5, 3.25, 320.5, price, 17,
            Source.WEBSOCKET, Millis(end + 350), end,
        )  # fmt: skip


def make(root: Path, series: Sequence[Series], days: int, now: Millis, *, files: bool) -> None:
    """A directory of *series* with *days* sealed days, with their *files* or without, and two open days."""
    begin = Millis(floor_to(now, DAY) - DAY)
    if files:
        make_sealed(root, series, days, begin=Millis(begin - days * DAY))
    with open_store(root) as store:
        store.claim("real", speed=1.0, pivot=0.0)
        store.aggregate(HIGHER)
        store.expect(series, begin, begin)
        for one in series:
            store.commit(list(candles_of(one, begin, floor_to(now, MINUTE))), now)
        while waiting := store.waiting():
            assert store.flush(waiting).error is None
    if files:
        return
    with closing(sqlite3.connect(root / JOURNAL)) as database, database:
        ids = {(venue, symbol): id_ for id_, venue, symbol in database.execute("SELECT id, venue, symbol FROM series")}
        digests = dict.fromkeys(("1m", *HIGHER), "0" * 64)
        for one in series:
            id_ = ids[one.venue, one.symbol]
            for day in range(begin - days * DAY, begin, DAY):
                account = Account(one, Millis(day), STORED * (DAY // MINUTE), compared=True)
                row = sealed_row(SealedDay(account, digests, shape_of(HIGHER, in_file=True)))
                database.execute("INSERT INTO sealed VALUES (?, ?, ?, ?, ?, ?, ?)", (id_, *row))
            database.execute("UPDATE series SET first_ms = first_ms - ? WHERE id = ?", (days * DAY, id_))


def sealed_in(root: Path) -> list[tuple[object, ...]]:
    """What each minute of every sealed day is."""
    with closing(sqlite3.connect(root / JOURNAL)) as database:
        return database.execute(
            "SELECT venue, symbol, day_ms, minutes FROM sealed JOIN series ON series.id = series_id ORDER BY 1, 2, 3"
        ).fetchall()


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
    """The medians over *rounds* starts in *root*, whose journal is put back after each; *lost*: it is deleted."""
    journal, kept = root / JOURNAL, home / "journal"
    if journal.exists():
        shutil.copyfile(journal, kept)
    before, found = sealed_in(root) if lost else [], []
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        config = configured(home, root, series, listener.getsockname()[1])
        for _ in range(rounds):
            for part in (journal, root / f"{JOURNAL}-wal", root / f"{JOURNAL}-shm"):
                part.unlink(missing_ok=True)
            if kept.exists() and not lost:
                shutil.copyfile(kept, journal)
            one = one_start([sys.executable, str(ROOT / "run.py"), "--config", str(config)], home, listener)
            one["import_ms"] = bare(home)
            found.append(one)
            print(f"{name}: {one['connection_ms']:.0f} ms", file=sys.stderr)
            if lost and sealed_in(root) != before:
                raise SystemExit("the rebuilt journal is not what it was")
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
    parser.add_argument("--days", type=int, nargs="*", default=[365, 1825], help="sealed days (default: 365 1825)")
    parser.add_argument("--files", type=int, default=0, help="sealed days, each with its files (default: none)")
    parser.add_argument("--rounds", type=int, default=5, help="starts of each kind (default: 5)")
    parser.add_argument("--dir", type=Path, help="where to write: on the disk that is meant (default: the system's)")
    parser.add_argument("--json", action="store_true", help="print everything as JSON instead of the table")
    options = parser.parse_args()
    series, results = names(options.series), {}
    with tempfile.TemporaryDirectory(prefix="start-", dir=options.dir) as folder:
        home = Path(folder)
        measure(home, "caches are filled", home / "first", series, 2)
        results["fresh"] = measure(home, "fresh", home / "fresh", series, options.rounds)
        now = Millis(time.time_ns() // 1_000_000)
        for days in options.days:
            root = home / f"days-{days}"
            make(root, series, days, now, files=False)
            results[f"days {days}"] = measure(home, f"{days} days", root, series, options.rounds)
        if options.files:
            root = home / "files"
            make(root, series, options.files, now, files=True)
            results[f"files {options.files}"] = measure(home, "with files", root, series, options.rounds)
            lost = measure(home, "no journal", root, series, 1, lost=True)
            count = sum(1 for _ in root.glob("*/*/*/*.parquet"))
            results[f"no journal, {count:,}"] = {**lost, "ms_a_file": lost["connection_ms"] / count}
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
