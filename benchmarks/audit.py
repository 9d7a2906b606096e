"""The whole audit of a year of day files, beside DuckDB scanning the same files for the least, the most and the count.

The files are made once, into a folder that is named, by the collector's own encoder and with a sound ledger, so that
the audit finds nothing. Then, round after round, each client reads all of them in a process of its own::

    python benchmarks/audit.py --dir year
    python benchmarks/audit.py --dir year --days 30 --rounds 1 --aggregates --json

README.md, beside this file, says how to read the table. Unix only.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import resource
import shutil
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from math import fsum
from pathlib import Path

import attrs
import pyarrow as pa
import pyarrow.compute as pc

from trio_candles.candles.model import DAY, MINUTE, Millis, Series, Timeframe, day_name
from trio_candles.store import dayfiles
from trio_candles.store.accounts import SEALED, STORED, Account, SealedDay, sealed_row, shape_of
from trio_candles.store.schema import COLUMNS, FORMAT, digest_of
from trio_candles.store.store import open_store

BEGIN = Millis(1_735_689_600_000)
"""2025-01-01."""
HIGHER = ("5m", "15m", "1h", "4h", "1d")
MADE = "made.json"
"""Says what a folder was made as, so that it is used again for the same and for nothing else."""
NULL = {"okx": ("vwap", "trades_count"), "coinbase": (), "kraken": ("quote_volume",)}
"""The columns that a venue's rows leave empty."""


# --- the files --------------------------------------------------------------------------------------------


def series_names(count: int) -> list[Series]:
    """*count* series, of the three venues in turn."""
    slash = {"kraken": "/"}
    venues = ("okx", "coinbase", "kraken")
    return [Series(venue := venues[n % 3], f"C{n:03}{slash.get(venue, '-')}USD") for n in range(count)]


def year_of(one: Series, days: int, seed: int) -> pa.Table:
    """A random walk of dense minutes, with prices and sizes as venues write them: few decimals, not few bytes."""
    rows = days * 1440

    def chance(number: int) -> pa.Array:
        return pc.random(rows, initializer=seed * 16 + number)

    def rounded(values: pa.Array, digits: int) -> pa.Array:
        return pc.round(values, digits)

    steps = pc.multiply(pc.subtract(chance(0), 0.5), 8.0)
    close = rounded(pc.add(pc.abs(pc.cumulative_sum(steps)), 20_000.0 + seed), 2)
    open_ = pa.concat_arrays([close[:1], close[:-1]])
    high = rounded(pc.add(pc.max_element_wise(open_, close), pc.multiply(chance(1), 9.0)), 2)
    low = rounded(pc.subtract(pc.min_element_wise(open_, close), pc.multiply(chance(2), 9.0)), 2)
    volume = rounded(pc.add(pc.multiply(chance(3), 30.0), 1e-6), 8)
    vwap = rounded(pc.divide(pc.add(high, low), 2.0), 4)
    late = pc.cast(pc.add(pc.multiply(chance(6), 900.0), 60_020.0), pa.int64(), safe=False)
    times = pa.array(range(BEGIN, BEGIN + rows * MINUTE, MINUTE), pa.int64())
    made = {
        "venue": pa.repeat(one.venue, rows), "symbol": pa.repeat(one.symbol, rows), "timeframe": pa.repeat("1m", rows),
        "open_time_ms": times, "close_time_ms": pc.add(times, int(MINUTE)),
        "open": open_, "high": high, "low": low, "close": close, "volume": volume,
        "quote_volume": pc.multiply(volume, vwap), "vwap": vwap,
        "trades_count": pc.cast(pc.floor(pc.multiply(chance(4), 400.0)), pa.int64()),
        "is_closed": pa.repeat(True, rows),
        "source": pc.if_else(pc.less(chance(5), 0.02), "rest", "websocket"),
        "ingest_time_ms": pc.add(times, late),
    }  # fmt: skip
    for name in NULL[one.venue]:
        made[name] = pa.nulls(rows, COLUMNS.field(name).type)
    return pa.table(made, schema=COLUMNS)


def folded(day: pa.Table, timeframe: str) -> pa.Table:
    """The aggregates of a dense *day*, by the contract's rule."""
    length = Timeframe.parse(timeframe).length
    columns = {name: day.column(name).to_pylist() for name in COLUMNS.names}
    rows = []
    for at in range(0, 1440, length // MINUTE):
        part = {name: column[at : at + length // MINUTE] for name, column in columns.items()}
        volume = fsum(part["volume"])
        quote = None if None in part["quote_volume"] else fsum(part["quote_volume"])
        rows.append(
            {
                "venue": part["venue"][0], "symbol": part["symbol"][0], "timeframe": timeframe,
                "open_time_ms": part["open_time_ms"][0], "close_time_ms": part["open_time_ms"][0] + length,
                "open": part["open"][0], "high": max(part["high"]), "low": min(part["low"]), "close": part["close"][-1],
                "volume": volume, "quote_volume": quote, "vwap": None if quote is None else quote / volume,
                "trades_count": None if None in part["trades_count"] else sum(part["trades_count"]),
                "is_closed": True, "source": "aggregated", "ingest_time_ms": max(part["ingest_time_ms"]),
            }
        )  # fmt: skip
    return pa.Table.from_pylist(rows, schema=COLUMNS)


def sealed_days(one: Series, days: int, seed: int, aggregates: bool) -> Iterator[tuple[SealedDay, dict[str, bytes]]]:
    """Every day of *one* as it is sealed, and the contents of its day files by their paths."""
    table = year_of(one, days, seed)
    for number in range(days):
        name = f"{day_name(Millis(BEGIN + number * DAY))}.parquet"
        day = table.slice(number * 1440, 1440).combine_chunks()
        account = Account(one, Millis(BEGIN + number * DAY), STORED * 1440, compared=True)
        contents = {"1m": dayfiles.encode(day, one, account)}
        for timeframe in HIGHER if aggregates else ():
            contents[timeframe] = dayfiles.encode(folded(day, timeframe))
        digests = {timeframe: digest_of(content) for timeframe, content in contents.items()}
        folders = {timeframe: attrs.evolve(one, timeframe=timeframe).path for timeframe in contents}
        yield (
            SealedDay(account, digests, shape_of([*contents], in_file=True)),
            {f"{folders[timeframe]}/{name}": content for timeframe, content in contents.items()},
        )


def make(root: Path, options: argparse.Namespace) -> None:
    """Fill *root* with day files and their ledger, unless it is already what is asked for."""
    wanted = {"series": options.series, "days": options.days, "aggregates": options.aggregates, "format": FORMAT}
    mark = root.with_name(f"{root.name}.{MADE}")
    if mark.exists() and json.loads(mark.read_text()) == wanted:
        return
    if root.exists() and not mark.exists():
        raise SystemExit(f"{root} is there and was not made by this program")
    mark.unlink(missing_ok=True)
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    mark.write_text("{}")
    with open_store(root) as store:
        store.claim("real")
        store.expect(series_names(options.series), BEGIN, BEGIN)
        store.stopped(Millis(BEGIN + options.days * DAY))
    with closing(sqlite3.connect(root / "journal.sqlite3")) as database, database:
        for seed, one in enumerate(series_names(options.series)):
            print(f"making series {seed + 1} of {options.series}", file=sys.stderr)
            whose = (one.venue, one.symbol)
            (id_,) = database.execute("SELECT id FROM series WHERE venue = ? AND symbol = ?", whose).fetchone()
            for sealed, contents in sealed_days(one, options.days, seed, options.aggregates):
                for path, content in contents.items():
                    file = root / path
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.write_bytes(content)
                values = (id_, *sealed_row(sealed))
                database.execute(f"INSERT INTO sealed (series_id, {SEALED}) VALUES (?, ?, ?, ?, ?, ?, ?)", values)
        database.execute("UPDATE series SET mark_ms = ?", (BEGIN + options.days * DAY,))
    mark.write_text(json.dumps(wanted))


# --- the clients ------------------------------------------------------------------------------------------


def run_ours(root: Path, receipts: Path | None = None) -> int:
    """The audit as the command does it, all of it; how many rows it saw."""
    from trio_candles.audit import audit
    from trio_candles.audit.receipts import Receipts

    timeframes = HIGHER if (next(root.glob("*/*/1d"), None)) else ()
    kept = None if receipts is None else Receipts.read(receipts)
    report = audit(
        root, now=lambda: int(time.time() * 1000), running=lambda: False, timeframes=timeframes, receipts=kept
    )
    if not report.ok:
        raise SystemExit(f"the audit found {len(report.violations)} violations: {report.violations[0]}")
    if kept is not None and receipts is not None:
        receipts.write_text(kept.text())
    return report.totals().candles


def run_with_receipts(root: Path) -> int:
    """The same with the receipts of an audit before it, which :func:`main` has made."""
    return run_ours(root, root.with_name(f"{root.name}.receipts"))


def run_duckdb(root: Path) -> int:
    """The least and the most of every number, and the count, per series."""
    import duckdb

    numbers = [field.name for field in COLUMNS if field.type in (pa.int64(), pa.float64())]
    asked = ", ".join(f"min({name}), max({name})" for name in numbers)
    query = f"SELECT venue, symbol, timeframe, count(*), {asked} FROM '{root}/*/*/*/*.parquet' GROUP BY ALL"
    return sum(row[3] for row in duckdb.sql(query).fetchall())


CLIENTS: dict[str, tuple[Callable[[Path], int], str]] = {
    "ours": (run_ours, "pyarrow"),
    "receipts": (run_with_receipts, "pyarrow"),
    "duckdb": (run_duckdb, "duckdb"),
}
"""How each runs, and the package whose version counts."""


@attrs.frozen
class Cost:
    """What one client took in one round."""

    rows: int
    seconds: float
    cpu: float
    rss: float
    """MB at the peak."""


def client(name: str, root: Path) -> None:
    """Be the client *name*: read everything, say what it took."""
    run, package = CLIENTS[name]
    __import__(package)  # imports are no part of it
    begun, cpu = time.perf_counter(), time.process_time()
    rows = run(root)
    seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss + children.ru_maxrss
    cost = Cost(rows, seconds, cpu + children.ru_utime, peak / (2**20 if sys.platform == "darwin" else 2**10))
    print(json.dumps(attrs.asdict(cost)))


def measure(name: str, root: Path) -> Cost:
    """Run the client *name* once, in a process of its own."""
    command = [sys.executable, __file__, "--client", name, "--dir", str(root)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return Cost(**json.loads(done.stdout))


def version(package: str) -> str | None:
    """The installed version of *package*."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def summary(name: str, rounds: Sequence[dict[str, Cost]]) -> dict[str, object]:
    """One client's row: medians over the rounds, and of the ratios within each."""
    costs = [costs[name] for costs in rounds if name in costs]
    ratios = [one["duckdb"].seconds / one[name].seconds for one in rounds if {name, "duckdb"} <= one.keys()]
    package = CLIENTS[name][1]

    def middle(values: Sequence[float]) -> float | None:
        return statistics.median(values) if values else None

    return {
        "client": {"ours": "trio_candles audit", "receipts": "  with receipts"}.get(name, name),
        "rows_per_second": middle([cost.rows / cost.seconds for cost in costs]),
        "ratio": middle(ratios),
        "cpu_seconds": middle([cost.cpu for cost in costs]),
        "rss_mb": middle([cost.rss for cost in costs]),
        "version": f"{package} {version(package)}",
        "ratios": ratios,
        "rounds": [attrs.asdict(cost) for cost in costs],
    }


def table(rows: Sequence[dict[str, object]]) -> str:
    """The rows for people."""
    lines = [f"{'client':<20}{'M rows/s':>10}{'x DuckDB':>10}{'CPU s':>8}{'RSS MB':>8}"]
    for row in rows:
        if row["rows_per_second"] is None:
            lines.append(f"{row['client']:<20}  missing: not installed")
            continue
        ratio = "-" if row["ratio"] is None else f"{row['ratio']:.2f}"
        numbers = f"{row['rows_per_second'] / 1e6:>10.2f}{ratio:>10}{row['cpu_seconds']:>8.1f}{row['rss_mb']:>8.0f}"
        lines.append(f"{row['client']:<20}{numbers}   {row['version']}")
    return "\n".join(lines)


def main() -> None:
    """Make the files, measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--dir", type=Path, required=True, help="where the files are, or are made (630 MB for a year)")
    parser.add_argument("--series", type=int, default=20, help="default: 20")
    parser.add_argument("--days", type=int, default=365, help="default: 365")
    parser.add_argument("--aggregates", action="store_true", help="higher timeframes, too; the audit derives them anew")
    parser.add_argument("--rounds", type=int, default=3, help="turns of every client (default: 3)")
    parser.add_argument("--json", action="store_true", help="print everything as JSON instead of the table")
    parser.add_argument("--client", choices=CLIENTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.client is not None:
        client(options.client, options.dir)
        return
    make(options.dir, options)
    run_with_receipts(options.dir)  # gives them
    rounds: list[dict[str, Cost]] = []
    for turn in range(options.rounds):
        rounds.append({})
        for name, (_, package) in CLIENTS.items():
            if version(package) is not None:
                print(f"round {turn + 1} of {options.rounds}: {name}", file=sys.stderr)
                rounds[-1][name] = measure(name, options.dir)
        if len({cost.rows for cost in rounds[-1].values()}) > 1:
            raise SystemExit(f"they disagree about the rows: {rounds[-1]}")
    rows = [summary(name, rounds) for name in CLIENTS]
    setup = {"series": options.series, "days": options.days, "aggregates": options.aggregates, "rounds": options.rounds}
    machine = {"python": platform.python_version(), "system": platform.system(), "machine": platform.machine()}
    if options.json:
        print(json.dumps({"setup": setup, "machine": machine, "clients": rows}, indent=2))
    else:
        print(table(rows))
        print(", ".join(f"{key} {value}" for key, value in {**setup, **machine}.items()))


if __name__ == "__main__":
    main()
