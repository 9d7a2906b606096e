"""The audit and the reader see in a data directory what the oracle sees: no false pass, no false alarm."""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pyarrow.parquet as pq

from simulation.folds import expected_folds
from simulation.machine import Machine
from simulation.stored import LENGTHS, MINUTE, Row
from simulation.trace import Broken
from trio_candles import coverage, read_candles
from trio_candles.audit import Report, audit
from trio_candles.store.schema import candle_checksum

__all__ = ["judge_audit", "judge_beside", "judge_reader", "judge_the_auditor"]


def judge_audit(root: Path, now: int, candles: int, empty: int, gaps: int, unfillable: int, aggregates: int) -> None:
    """The audit agrees: nothing is wrong, and there is so much of everything."""
    report = audit(root, now=lambda: now, running=lambda: False, pauses=())
    if not report.ok:
        raise Broken("audit", f"raises an alarm where all is well: {report.violations[0]}")
    counts = _counts(report)
    wanted = (candles, empty, gaps, unfillable, aggregates)
    if counts != wanted:
        raise Broken("audit", f"counts {counts}; there are {wanted}")


def _counts(report: Report) -> tuple[int, ...]:
    minutes = [tally for (_, _, timeframe), tally in report.series.items() if timeframe == "1m"]
    others = [tally.candles for (_, _, timeframe), tally in report.series.items() if timeframe != "1m"]
    names = ("candles", "empty", "open_gap", "unfillable")
    return (*(sum(getattr(tally, name) for tally in minutes) for name in names), sum(others))


def judge_beside(machine: Machine, now: int, what: str) -> None:
    """The audit finds nothing wrong beside a running collector, in the midst of *what*."""
    folder = machine.root.parent / "beside"
    folder.mkdir()
    try:
        machine.materialise(folder)
        report = audit(folder, now=lambda: now, running=lambda: True, pauses=())
    finally:
        shutil.rmtree(folder)
    if not report.ok:
        raise Broken("audit", f"raises a false alarm beside the collector, at {what}: {report.violations[0]}")


def judge_reader(
    root: Path,
    venue: str,
    symbol: str,
    rows: Mapping[int, Row],
    empties: Mapping[int, str],
    gaps: Mapping[int, str],
    bounds: tuple[int, int, int],
) -> None:
    """``read_candles`` and ``coverage`` tell the same; *gaps* with their states, *bounds* as the folds have them."""
    name, (_, first, mark) = f"{venue} {symbol}", bounds
    states = {minute: "gap" if state == "open" else state for minute, state in gaps.items()}
    wanted = {
        minute: states.get(minute, "empty" if minute in empties else "stored") for minute in range(first, mark, MINUTE)
    }
    told = [
        (minute, span["state"])
        for span in coverage(root, venue, symbol).to_pylist()
        for minute in range(span["since_ms"], span["until_ms"], MINUTE)
    ]
    if told != sorted(wanted.items()):
        differ = sorted(set(told) ^ set(wanted.items()))
        raise Broken("reader", f"{name}: coverage tells of other minutes: {differ[:4]}")
    found = read_candles(root, venue, symbol, start=first, end=mark, on_gap="ignore").to_pylist()
    if found != [rows[minute] for minute in sorted(rows)]:
        raise Broken("reader", f"{name}: {len(found)} candles are read, or other ones; there are {len(rows)}")
    for timeframe in ("5m", "10m", "1h"):
        length = LENGTHS.get(timeframe, 10) * MINUTE
        folds = expected_folds(length, rows, gaps.keys(), bounds)
        read = read_candles(root, venue, symbol, timeframe, start=first, end=mark, on_gap="ignore").to_pylist()
        told_of = {row["open_time_ms"]: {key: row[key] for key in ("open", "close", "volume", "vwap")} for row in read}
        right = {
            time: {key: fold[key] for key in ("open", "close", "volume", "vwap")}
            for time, fold in folds.items()
            if time >= first
        }
        if told_of != right:
            differ = sorted(time for time in {*told_of, *right} if told_of.get(time) != right.get(time))
            raise Broken("reader", f"{name}: {timeframe} at {differ[:4]} is not the fold of the minutes")


def judge_the_auditor(root: Path, now: int, chance: random.Random) -> None:
    """Spoil one thing in a directory in which all is well: the audit must see it. *root* is of no use afterwards."""
    files = [path for path in sorted(root.glob("*/*/1m/*.parquet")) if pq.read_metadata(path).num_rows]
    with closing(sqlite3.connect(root / "journal.sqlite3", isolation_level=None)) as database:
        database.create_function("candle_checksum", -1, lambda *row: candle_checksum(row))
        spans = [
            (table, *row)
            for table in ("gap", "empty")
            for row in database.execute(f"SELECT series_id, since_ms FROM {table} ORDER BY series_id, since_ms")
        ]
        ways = ["mark", *(["bit", "file", "row"] if files else []), *(["span"] if spans else [])]
        match chance.choice(ways):
            case "mark":
                what = "the mark is a minute further"
                database.execute(f"UPDATE series SET mark_ms = mark_ms + {MINUTE} WHERE timeframe = '1m'")
            case "span":
                table, series, since = chance.choice(spans)
                what = f"{since} is taken out of the table {table}"
                database.execute(f"DELETE FROM {table} WHERE series_id = ? AND since_ms = ?", (series, since))
            case "row":
                path = chance.choice(files)
                table = pq.read_table(path, use_threads=False)
                index = chance.randrange(table.num_rows)
                what = f"row {index} of {path.name} stands in the journal, too, as another one"
                row = table.slice(index, 1).to_pylist()[0]
                database.execute(
                    "INSERT INTO candle SELECT id, ?1, 1, 2, 1, 2, 3, NULL, NULL, NULL, 'rest', ?2,"
                    " candle_checksum(id, ?1, 1, 2, 1, 2, 3, NULL, NULL, NULL, 'rest', ?2) FROM series"
                    " WHERE venue = ?3 AND symbol = ?4 AND timeframe = '1m'",
                    (row["open_time_ms"], now, row["venue"], row["symbol"]),
                )
            case "file":
                path = chance.choice(files)
                what = f"{path.name} is gone"
                path.unlink()
            case _:
                path = chance.choice(files)
                content = bytearray(path.read_bytes())
                at = chance.randrange(len(content))
                content[at] ^= 1 << chance.randrange(8)
                path.write_bytes(content)
                what = f"a bit of byte {at} of {path.name} is the other one"
    # Two minutes on: nobody knows of a minute that has not happened, the audit neither.
    if audit(root, now=lambda: now + 2 * MINUTE, running=lambda: False, pauses=()).ok:
        raise Broken("audit", f"sees nothing wrong, and {what}")
