"""What readers take, however long the history: the last half hour, a look of the monitor, and ``coverage`` of a year.

    python benchmarks/reading.py
    python benchmarks/reading.py --days 60 --rows 10000,100000 --json

README.md, beside this file, says how to read the table. Linux only.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from history import BEGIN, make_sealed, names

from trio_candles.candles.model import DAY, MINUTE, Millis, floor_to
from trio_candles.store.schema import JOURNAL

HALF_HOUR = 30
TABLES = ("empty", "gap", "unfillable")
TURNS = 15


def make_behind(root: Path, table: str, rows: int) -> None:
    """One series with a sealed day, and *rows* spans of every other minute before it, as *table* says."""
    (one,) = names(1)
    make_sealed(root, [one], 1, aggregates=False)
    with closing(sqlite3.connect(root / JOURNAL)) as database, database:
        times = ((1, BEGIN - (2 * number + 2) * MINUTE) for number in range(rows))
        begins = [(id_, at, at + MINUTE) for id_, at in times]
        if table == "empty":
            database.executemany("INSERT INTO empty VALUES (?, ?, ?, 'ids 1 and 2 are neighbours')", begins)
        else:
            database.executemany(
                "INSERT INTO gap (series_id, since_ms, until_ms, state, reason, detail, first_seen_ms, attempts)"
                f" VALUES (?, ?, ?, '{'open' if table == 'gap' else table}', 'disconnected', '', 0, 2)",
                begins,
            )
        first = floor_to(Millis(begins[-1][1]), DAY)
        database.execute("UPDATE series SET first_ms = ?", (first,))
        database.executemany("INSERT INTO open_day VALUES (1, ?, 0)", [(day,) for day in range(first, BEGIN, DAY)])


def middle(work: Callable[[], object]) -> float:
    """The median of CPU ms that *work* takes once it is warm."""
    work()
    taken = []
    for _ in range(TURNS):
        began = time.process_time()
        work()
        taken.append((time.process_time() - began) * 1e3)
    return statistics.median(taken)


def measure_looks(root: Path) -> dict[str, float]:
    """CPU ms of reading the last half hour, and of a look of the monitor."""
    from trio_candles import read_candles
    from trio_candles.health.reading import read_health

    (one,) = names(1)
    end = Millis(BEGIN + DAY)

    def read() -> None:
        found = read_candles(root, one.venue, one.symbol, start=end - HALF_HOUR * MINUTE, end=end)
        assert found.num_rows == HALF_HOUR

    def look() -> None:
        assert read_health(root, lambda: end, None).trouble is None

    return {"read_ms": middle(read), "look_ms": middle(look)}


def measure_coverage(root: Path) -> dict[str, float]:
    """CPU seconds, and memory, of all that the ledger says."""
    import trio_candles.venues.registry
    from trio_candles import coverage

    assert trio_candles.venues.registry.VENUES
    before, began = peak_mb(), time.process_time()
    table = coverage(root)
    seconds = time.process_time() - began
    return {
        "cpu_s": seconds, "spans": table.num_rows, "bytes_a_span": table.nbytes / table.num_rows,
        "imports_mb": before, "peak_mb": peak_mb(),
    }  # fmt: skip


def peak_mb() -> float:
    """The most memory that this process has had. Not by ``getrusage``, which remembers that of the parent, too."""
    with open("/proc/self/status", encoding="ascii") as status:
        (line,) = [line for line in status if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


MEASUREMENTS: dict[str, Callable[[Path], dict[str, float]]] = {"looks": measure_looks, "coverage": measure_coverage}


def measured(name: str, root: Path) -> dict[str, float]:
    """One measurement, in a process of its own."""
    command = [sys.executable, __file__, "--measure", name, "--dir", str(root)]
    child = subprocess.run(command, capture_output=True, text=True, check=False)
    if child.returncode:
        raise SystemExit(f"{name} failed:\n{child.stderr[-2000:]}")
    return json.loads(child.stdout)


def run(folder: Path, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Every line of the table."""
    found = {}
    for table in TABLES:
        for rows in options.rows:
            root = folder / f"{table}-{rows}"
            make_behind(root, table, rows)
            found[f"{rows:,} {table} spans"] = measured("looks", root)
    for count, thin in ((60, False), (5, True)):
        root, series = folder / f"{count}-{thin}", names(count)
        make_sealed(root, series, options.days, thin=series if thin else (), aggregates=False)
        found[f"{count} {'thin' if thin else 'dense'} series, {options.days} days"] = measured("coverage", root)
    return found


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--days", type=int, default=365, help="of coverage (default: 365)")
    parser.add_argument(
        "--rows", type=lambda text: [int(one) for one in text.split(",")], default=[10_000, 100_000, 500_000],
        help="spans before the half hour (default: 10000,100000,500000)",
    )  # fmt: skip
    parser.add_argument("--dir", type=Path, help="where to write (default: the system's)")
    parser.add_argument("--json", action="store_true", help="print everything as JSON instead of the table")
    parser.add_argument("--measure", choices=MEASUREMENTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure is not None:
        print(json.dumps(MEASUREMENTS[options.measure](options.dir)))
        return
    with tempfile.TemporaryDirectory(prefix="reading-", dir=options.dir) as folder:
        found = run(Path(folder), options)
    if options.json:
        print(json.dumps(found))
        return
    for name, figures in found.items():
        print(f"{name:<32}" + "  ".join(f"{key} {value:,.2f}" for key, value in figures.items()))


if __name__ == "__main__":
    main()
