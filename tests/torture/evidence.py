"""A data directory read with SQL and parquet alone, and what can be said against it."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import attrs
import pyarrow.parquet as pq

from trio_candles.simulator import Market

ROOT = Path(__file__).resolve().parent.parent.parent
RUN = [sys.executable, str(ROOT / "run.py")]
AUDIT = [sys.executable, str(ROOT / "tools" / "audit.py")]
MINUTE = 60_000

Key = tuple[str, str, int]
"""Venue, symbol, minute."""
Row = tuple[float, float, float, float, float]


@attrs.define
class Survey:
    """What a directory says: every stored 1m candle, wherever it is, and what the ledger says of the rest."""

    candles: dict[Key, Row] = attrs.field(factory=dict)
    gaps: dict[Key, str] = attrs.field(factory=dict)
    empties: dict[Key, str] = attrs.field(factory=dict)
    spans: dict[tuple[str, str], tuple[int, int]] = attrs.field(factory=dict)
    """(venue, symbol) -> first expected minute, and mark."""
    faults: list[str] = attrs.field(factory=list)
    """Rows that are there twice, files that cannot be read."""

    def _add(self, key: Key, row: Row, where: str) -> None:
        if self.candles.setdefault(key, row) != row:
            self.faults.append(f"{key} differs in {where}")


def survey(root: Path) -> Survey:
    """Everything in *root*: the ledger first, then the files, or rows vanish in between.

    Works beside a collector; a directory at rest should be a copy, because SQLite may tidy up.
    """
    found = Survey()
    journal = root / "journal.sqlite3"
    if journal.exists():
        with closing(sqlite3.connect(f"{journal.absolute().as_uri()}?mode=rw", uri=True, timeout=10)) as ledger:
            ledger.execute("BEGIN")
            _read_ledger(found, ledger)
    for path in sorted(root.glob("*/*/1m/*.parquet")):
        _read_file(found, path)
    return found


def _read_ledger(found: Survey, ledger: sqlite3.Connection) -> None:
    of = "JOIN series ON series.id = series_id WHERE timeframe = '1m'"
    if not ledger.execute("SELECT count(*) FROM sqlite_master WHERE name = 'series'").fetchone()[0]:
        return
    for venue, symbol, first, mark in ledger.execute(
        "SELECT venue, symbol, first_ms, mark_ms FROM series WHERE timeframe = '1m'"
    ):
        found.spans[venue, symbol] = first, mark
    for venue, symbol, minute, *row in ledger.execute(
        f"SELECT venue, symbol, open_ms, open, high, low, close, volume FROM candle {of}"
    ):
        found._add((venue, symbol, minute), tuple(row), "the journal")
    for table, what, spans in (("gap", "reason", found.gaps), ("empty", "evidence", found.empties)):
        for venue, symbol, since, until, text in ledger.execute(
            f"SELECT venue, symbol, since_ms, until_ms, {what} FROM {table} {of}"
        ):
            for minute in range(since, until, MINUTE):
                if (venue, symbol, minute) in spans:
                    found.faults.append(f"{venue} {symbol} {minute} is twice in {table}")
                spans[venue, symbol, minute] = text


def _read_file(found: Survey, path: Path) -> None:
    try:
        rows = pq.ParquetFile(path, page_checksum_verification=True).read(use_threads=False).to_pylist()
    except (OSError, ValueError) as error:
        found.faults.append(f"{path.name} cannot be read: {error}")
        return
    seen = set()
    for row in rows:
        key = row["venue"], row["symbol"], row["open_time_ms"]
        if key in seen:
            found.faults.append(f"{key} is twice in {path}")
        seen.add(key)
        found._add(key, tuple(row[name] for name in ("open", "high", "low", "close", "volume")), str(path))


Truth = Callable[[Key], Row | None]
"""What a minute really was: ``None`` if nothing traded in it."""


def market_truth(seed: int) -> Truth:
    """The simulated market's."""
    market = Market(seed)

    def truth(key: Key) -> Row | None:
        candle = market.candle(*key)
        if candle is None:
            return None
        return tuple(float(x) for x in (candle.open, candle.high, candle.low, candle.close, candle.volume))

    return truth


def held_against(found: Survey, truth: Truth, before: dict[Key, Row] | None = None) -> list[str]:
    """Everything that is wrong with *found*; *before* is what had been durable and must be there still."""
    faults = list(found.faults)
    for key, row in found.candles.items():
        true = truth(key)
        flat = key[0] == "okx" and true is None and row[4] == 0.0 and len(set(row[:4])) == 1
        if row != true and not flat:
            faults.append(f"{key} is stored as {row} and was {true}")
    for key in found.empties:
        if truth(key) is not None:
            faults.append(f"{key} is called empty and was {truth(key)}")
    for (venue, symbol), (first, mark) in found.spans.items():
        for minute in range(first, mark, MINUTE):
            key = venue, symbol, minute
            times = (key in found.candles) + (key in found.gaps) + (key in found.empties)
            if times != 1:
                faults.append(f"{key} is {times} things")
    for key, row in (before or {}).items():
        if found.candles.get(key) != row:
            faults.append(f"{key} was durable as {row} and is now {found.candles.get(key, 'gone')}")
    return faults


def counted(outcomes: Counter[str]) -> dict[str, int]:
    """*outcomes* as a report's figures."""
    return {outcome.replace(" ", "_"): count for outcome, count in sorted(outcomes.items())}


@contextmanager
def copied(root: Path) -> Iterator[Path]:
    """A copy of *root* to look at, whoever is dead or stopped in the original."""
    with tempfile.TemporaryDirectory(prefix="torture-") as folder:
        shutil.copytree(root, Path(folder, "copy"))
        yield Path(folder, "copy")


def audited(root: Path, *, home: Path, allow: Callable[[dict], bool] = lambda violation: False) -> list[str]:
    """What the audit, a process of its own, says against *root*, beside what is *allow*\\ ed."""
    command = [*AUDIT, "--data-dir", str(root), "--json", "--config", str(home / "config.yaml")]
    done = subprocess.run(command, cwd=home, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode not in (0, 1):
        return [f"the audit ended with {done.returncode}: {done.stderr[-500:]}"]
    report = json.loads(done.stdout)
    return [f"audit: {one['kind']} {one['path']}: {one['detail']}" for one in report["violations"] if not allow(one)]
