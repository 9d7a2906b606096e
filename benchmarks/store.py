"""What durability costs: candles accepted per second, and a flush per day file beside writing it barely.

Three measurements, each in a process of its own, over the store that the service uses, on a real disk::

    commit      batches of 1, 100 and 2,500 candles, each a transaction that is durable when it returns
    untold      the same without the change feed
    flush       one candle more for each of many series whose day file has 1,439 rows already: read and verify,
                merge, encode, decode and compare, write, fsync, read back, rename, fsync the folders, journal;
                beside ``pyarrow.parquet.write_table`` of the same 1,440 rows, fsync and rename, and nothing else

    python benchmarks/store.py
    python benchmarks/store.py --rounds 1 --files 2500 --dir /var/tmp --json

README.md, beside this file, says how to read the table. Unix only.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import takewhile
from pathlib import Path

import attrs
import pyarrow as pa
import pyarrow.parquet as pq

from trio_candles.candles.model import MINUTE, Candle, Millis, Series, Source
from trio_candles.store import dayfiles
from trio_candles.store.schema import JOURNAL
from trio_candles.store.store import FILES_AT_ONCE, Store, open_store

BATCHES = (1, 100, 2500)
COMMITS = {1: 1_000, 100: 100, 2500: 12}
"""Of each batch size: a second or two."""
DAY_BEGINS = Millis(1_768_003_200_000)
"""2026-01-10 00:00:00 UTC."""
ROWS = 1_440
PATIENCE = 900.0
"""Seconds to wait for one measurement before the run is given up."""


def series_of(number: int) -> tuple[Series, ...]:
    """*number* series of one venue."""
    return tuple(Series("okx", f"C{place:04}-USDT") for place in range(number))


def candles_of(series: Series, minutes: range, seed: int) -> Iterator[Candle]:
    """A random walk with the digits of a real market's."""
    chance, price = random.Random(seed), 40_000.0
    for minute in minutes:
        opened, price = price, round(max(1.0, price + chance.gauss(0, 12)), 1)
        high = round(max(opened, price) + chance.random() * 9, 1)
        low = round(min(opened, price) - chance.random() * 9, 1)
        volume = round(chance.expovariate(1 / 8), 8)
        quote = round(volume * (high + low) / 2, 9)
        yield Candle(
            series, Millis(minute), opened, high, low, price, volume, quote, quote / volume if volume else None, None,
            Source.WEBSOCKET, Millis(minute + MINUTE + 250 + chance.randrange(900)), Millis(minute + MINUTE),
        )  # fmt: skip


@attrs.define
class Watch:
    """Wall and CPU seconds of a block, all threads."""

    wall: float = 0.0
    cpu: float = 0.0

    def time(self, work: Callable[[], None]) -> None:
        """Add what *work* takes."""
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        self.wall += time.perf_counter() - wall
        self.cpu += time.process_time() - cpu


# --- the measurements -------------------------------------------------------------------------------------


def tell_nothing(store: Store) -> None:
    """Let *store* write no change feed."""
    for name in ("known", "revised", "unknown"):
        setattr(store.journal._changes, name, lambda *_, **__: None)


def measure_commits_untold(root: Path, files: int) -> dict[str, dict[str, float]]:
    """As :func:`measure_commits`, without the change feed."""
    return measure_commits(root, files, tell_nothing)


def measure_commits(
    root: Path, files: int, prepare: Callable[[Store], None] = lambda _: None
) -> dict[str, dict[str, float]]:
    """Candles per second to durable, by batch size."""
    found = {}
    series = series_of(2500)
    with open_store(root / "data") as store:
        prepare(store)
        store.expect(series, DAY_BEGINS, DAY_BEGINS)
        walks = [candles_of(one, range(DAY_BEGINS, DAY_BEGINS + ROWS * MINUTE, MINUTE), 7) for one in series[:64]]
        minute = 0
        for size in BATCHES:
            watch = Watch()
            flow = _in_order(series, walks, minute)
            for _ in range(COMMITS[size]):
                batch = [next(flow) for _ in range(size)]
                watch.time(lambda batch=batch: _accept(store, batch))
            minute += -(-COMMITS[size] * size // len(series))
            # The rest of the last minute, so that every series stands where the next size begins.
            rest = takewhile(lambda candle, end=DAY_BEGINS + minute * MINUTE: candle.open_time < end, flow)
            _accept(store, list(rest))
            count = COMMITS[size] * size
            found[str(size)] = {"per_second": count / watch.wall, "cpu_us": watch.cpu / count * 1e6}
    return found


def _in_order(series: Sequence[Series], walks: list[Iterator[Candle]], minute: int) -> Iterator[Candle]:
    """Every series' candle of a minute, then of the next."""
    for number in range(minute, ROWS):
        time_ms = Millis(DAY_BEGINS + number * MINUTE)
        shapes = [next(walk) for walk in walks]
        for place, one in enumerate(series):
            shape = shapes[place % len(shapes)]
            yield attrs.evolve(shape, series=one, open_time=time_ms, close_time=Millis(time_ms + MINUTE))


def _accept(store: Store, batch: Sequence[Candle]) -> None:
    judged = store.commit(batch, Millis(DAY_BEGINS + 2 * ROWS * MINUTE))
    if judged.accepted != len(batch):
        raise SystemExit(f"of {len(batch)} candles {judged.accepted} were accepted: {judged.rejected[:1]}")


def measure_flush(root: Path, files: int) -> dict[str, float]:
    """Milliseconds per day file: a flush that adds a row to each, and the bare way, taking turns."""
    series, data = series_of(files), root / "data"
    data.mkdir()
    minutes = range(DAY_BEGINS, DAY_BEGINS + ROWS * MINUTE, MINUTE)
    shapes = [list(candles_of(series[0], minutes, seed)) for seed in range(8)]
    days = [[attrs.evolve(candle, series=one) for candle in shapes[place % 8]] for place, one in enumerate(series)]
    for one, day in zip(series, days, strict=True):
        path = data / dayfiles.DayFile(one, DAY_BEGINS).path
        path.parent.mkdir(parents=True)
        path.write_bytes(dayfiles.encode(dayfiles.table_of(day[:-1])))
    flushed, bare = Watch(), Watch()
    with open_store(data) as store:  # finds day files and no journal, and makes one of them
        store.expect(series, DAY_BEGINS, Millis(DAY_BEGINS + (ROWS - 1) * MINUTE))
        _accept(store, [day[-1] for day in days])
        waiting = store.waiting()
        assert len(waiting) == files
        for start in range(0, files, FILES_AT_ONCE):
            some = waiting[start : start + FILES_AT_ONCE]
            flushed.time(lambda some=some: _flush(store, some))
            tables = [dayfiles.table_of(day) for day in days[start : start + FILES_AT_ONCE]]
            bare.time(lambda tables=tables: _write_barely(root, tables))
    size = statistics.mean(path.stat().st_size for path in data.rglob("*.parquet"))
    plain = statistics.mean(path.stat().st_size for path in root.glob("bare/*.parquet"))
    journal = (data / JOURNAL).stat().st_size
    return {
        "flush_ms": flushed.wall / files * 1e3,
        "flush_cpu_ms": flushed.cpu / files * 1e3,
        "bare_ms": bare.wall / files * 1e3,
        "bare_cpu_ms": bare.cpu / files * 1e3,
        "ratio": flushed.wall / bare.wall,
        "cpu_ratio": flushed.cpu / bare.cpu,
        "flush_seconds": flushed.wall,
        "bytes_per_row": size / ROWS,
        "bare_bytes_per_row": plain / ROWS,
        "journal_mb": journal / 2**20,
    }


def _flush(store: Store, files: Sequence[dayfiles.DayFile]) -> None:
    done = store.flush(files)
    if done.saved != {"okx": len(files)}:
        raise SystemExit(f"the flush went wrong: {done}")


def _write_barely(root: Path, tables: Sequence[pa.Table]) -> None:
    """What a collector does that trusts its disk and never looks back."""
    folder = root / "bare"
    folder.mkdir(exist_ok=True)
    for number, table in enumerate(tables):
        temporary = folder / "temporary"
        pq.write_table(table, temporary)
        handle = os.open(temporary, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
        os.replace(temporary, folder / f"{number}.parquet")


MEASUREMENTS: dict[str, Callable[[Path, int], dict]] = {
    "commit": measure_commits, "untold": measure_commits_untold, "flush": measure_flush
}  # fmt: skip


# --- the run ----------------------------------------------------------------------------------------------


def measure(name: str, folder: Path, files: int) -> dict:
    """One measurement, in a process and a directory of its own."""
    with tempfile.TemporaryDirectory(prefix="store-", dir=folder) as home:
        child = subprocess.run(
            [sys.executable, __file__, "--measure", name, "--dir", home, "--files", str(files)],
            capture_output=True, text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip
    if child.returncode:
        raise SystemExit(f"{name} failed:\n{child.stderr[-2000:]}")
    return json.loads(child.stdout)


def middle(rounds: Sequence[dict[str, float]]) -> dict[str, float]:
    """The medians over the rounds."""
    return {key: statistics.median(one[key] for one in rounds) for key in rounds[0]}


def table(commits: dict[str, dict[str, float]], flush: dict[str, float]) -> str:
    """The figures for people."""
    lines = [f"{'candles a transaction':<34}{'a second':>10}{'CPU µs each':>13}{'x without the feed':>20}"]
    lines += [
        f"{size:<34}{one['per_second']:>10,.0f}{one['cpu_us']:>13.1f}{one['x_untold']:>20.2f}"
        for size, one in commits.items()
    ]
    lines += ["", f"{'a day file of 1,440 rows':<34}{'ms':>10}{'CPU ms':>13}{'bytes a row':>13}"]
    lines.append(
        f"{'flush, verified and journalled':<34}{flush['flush_ms']:>10.2f}{flush['flush_cpu_ms']:>13.2f}"
        f"{flush['bytes_per_row']:>13.1f}"
    )
    lines.append(
        f"{'write_table, fsync, rename':<34}{flush['bare_ms']:>10.2f}{flush['bare_cpu_ms']:>13.2f}"
        f"{flush['bare_bytes_per_row']:>13.1f}"
    )
    lines.append(f"{'ratio':<34}{flush['ratio']:>10.2f}{flush['cpu_ratio']:>13.2f}")
    lines.append(f"the whole flush: {flush['flush_seconds']:.1f} s")
    return "\n".join(lines)


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="turns of both measurements (default: 3)")
    parser.add_argument("--files", type=int, default=512, help="series, and day files, of a flush (default: 512)")
    parser.add_argument("--dir", type=Path, help="where to write: on the disk that is meant (default: the system's)")
    parser.add_argument("--json", action="store_true", help="print everything as JSON instead of the table")
    parser.add_argument("--measure", choices=MEASUREMENTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure is not None:
        logging.disable(logging.CRITICAL)  # a journal made of day files is an emergency elsewhere
        print(json.dumps(MEASUREMENTS[options.measure](options.dir, options.files)))
        return
    rounds: dict[str, list[dict]] = {name: [] for name in MEASUREMENTS}
    for turn in range(options.rounds):
        for name, done in rounds.items():
            print(f"round {turn + 1} of {options.rounds}: {name}", file=sys.stderr)
            done.append(measure(name, options.dir, options.files))
    commits = {size: middle([one[size] for one in rounds["commit"]]) for size in map(str, BATCHES)}
    for size, one in commits.items():
        pairs = zip(rounds["commit"], rounds["untold"], strict=True)
        one["x_untold"] = statistics.median(told[size]["cpu_us"] / untold[size]["cpu_us"] for told, untold in pairs)
    flush = middle(rounds["flush"])
    setup = {"rounds": options.rounds, "files": options.files, "pyarrow": pa.__version__}
    machine = {"python": platform.python_version(), "system": platform.system(), "machine": platform.machine()}
    if options.json:
        print(json.dumps({"setup": setup, "machine": machine, "commit": commits, "flush": flush, "rounds": rounds}))
    else:
        print(table(commits, flush))
        print(", ".join(f"{key} {value}" for key, value in {**setup, **machine}.items()))


if __name__ == "__main__":
    main()
