"""Data directories made by hand, from the schema alone: no code of the writing path is involved."""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Iterable, Sequence
from contextlib import closing
from math import fsum
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trio_candles.audit import Report, audit, main
from trio_candles.candles.model import DAY, MINUTE, canonical_symbol, day_name
from trio_candles.store.schema import ACCOUNT_KEY, COLUMNS, FORMAT, JOURNAL, TABLES, candle_checksum, digest_of

DAY0 = 1_768_003_200_000  # 2026-01-10
DAY1 = DAY0 + DAY
FIRST, MARK = DAY1 - 60 * MINUTE, DAY1 + 60 * MINUTE
NOW = MARK + 10 * MINUTE
OKX = ("okx", "BTC-USDT")
FILE0, FILE1 = f"okx/BTC-USDT/1m/{day_name(DAY0)}.parquet", f"okx/BTC-USDT/1m/{day_name(DAY1)}.parquet"

Row = dict[str, Any]


def row(time: int, venue: str = "okx", symbol: str = "BTC-USDT", timeframe: str = "1m", **changes: Any) -> Row:
    """A sound candle that opens at *time*, except for *changes*."""
    number = time // MINUTE % 97
    length = {"1m": MINUTE, "5m": 5 * MINUTE}[timeframe]
    made = {
        "venue": venue, "symbol": symbol, "timeframe": timeframe,
        "open_time_ms": time, "close_time_ms": time + length,
        "open": 100.0 + number, "high": 110.5 + number, "low": 99.1 + number, "close": 101.3 + number,
        "volume": 0.1 + number / 7, "quote_volume": 10.3 + number / 3, "vwap": None, "trades_count": number,
        "is_closed": True, "source": "websocket", "ingest_time_ms": time + length + 300,
    }  # fmt: skip
    return made | changes


def folded(rows: Sequence[Row], time: int, timeframe: str = "5m", **changes: Any) -> Row:
    """The contract's 5.5, once more by hand."""
    volume, quote = fsum(r["volume"] for r in rows), fsum(r["quote_volume"] for r in rows)
    numbers = {
        "open": rows[0]["open"], "high": max(r["high"] for r in rows), "low": min(r["low"] for r in rows),
        "close": rows[-1]["close"], "volume": volume, "quote_volume": quote, "vwap": quote / volume,
        "trades_count": sum(r["trades_count"] for r in rows), "source": "aggregated",
        "ingest_time_ms": max(r["ingest_time_ms"] for r in rows),
    }  # fmt: skip
    return row(time, rows[0]["venue"], rows[0]["symbol"], timeframe, **numbers) | changes


class Directory:
    """A data directory that is made by hand."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(exist_ok=True)
        self.sql(TABLES)
        self.sql(f"INSERT INTO meta VALUES ('format', '{FORMAT}')")

    def open(self) -> closing[sqlite3.Connection]:
        database = sqlite3.connect(self.root / JOURNAL, isolation_level=None)
        database.execute("PRAGMA synchronous = OFF")
        database.execute("PRAGMA journal_mode = MEMORY")
        return closing(database)

    def sql(self, script: str) -> None:
        with self.open() as database:
            database.executescript(f"BEGIN;{script};COMMIT")

    def series(
        self,
        venue: str,
        symbol: str,
        first: int = FIRST,
        mark: int = MARK,
        expected: int = 1,
        folder: str | None = None,
    ) -> int:
        with self.open() as database:
            values = (venue, symbol, folder, first, mark, expected)
            made = database.execute(
                "INSERT INTO series (venue, symbol, folder, timeframe, first_ms, mark_ms, expected)"
                " VALUES (?, ?, ?, '1m', ?, ?, ?)", values,
            )  # fmt: skip
            assert made.lastrowid is not None
            days = [(made.lastrowid, day) for day in range(first - first % DAY, mark, DAY)]
            database.executemany("INSERT INTO open_day VALUES (?, ?, 0)", days)
            return made.lastrowid

    def gap(self, series: int, since: int, until: int, state: str = "open", reason: str = "disconnected") -> None:
        self.sql(
            "INSERT INTO gap (series_id, since_ms, until_ms, state, reason, detail, first_seen_ms, attempts)"
            f" VALUES ({series}, {since}, {until}, '{state}', '{reason}', '', {until}, 3)"
        )

    def empty(self, series: int, since: int, until: int) -> None:
        self.sql(f"INSERT INTO empty VALUES ({series}, {since}, {until}, 'ids 7 and 8')")

    def wait(self, series: int, rows: Iterable[Row]) -> None:
        """Put *rows* into the journal."""
        with self.open() as database:
            names = (
                "open",
                "high",
                "low",
                "close",
                "volume",
                "quote_volume",
                "vwap",
                "trades_count",
                "source",
            )
            database.executemany(
                f"INSERT INTO candle VALUES ({', '.join('?' * 13)})",
                [
                    (*values, candle_checksum(values))
                    for r in rows
                    for values in [(series, r["open_time_ms"], *(r[n] for n in names), r["ingest_time_ms"])]
                ],
            )

    def write(self, path: str, rows: Sequence[Row], schema: pa.Schema = COLUMNS, listed: bool = True) -> Path:
        """A day file with *rows*, and its digest in the ledger."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), file, write_page_checksum=True)
        if listed:
            self.list(path)
        return file

    def list(self, path: str, column: str = "digest") -> None:
        """Put the file's digest into the ledger."""
        digest = digest_of((self.root / path).read_bytes())
        self.sql(
            f"INSERT INTO day_file (path, {column}) VALUES ('{path}', '{digest}')"
            f" ON CONFLICT DO UPDATE SET {column} = excluded.{column}"
        )

    def days(self, venue: str, symbol: str, times: Iterable[int]) -> None:
        """Day files with a candle at each of *times*."""
        by_day: dict[int, list[Row]] = {}
        for time in times:
            by_day.setdefault(time - time % DAY, []).append(row(time, venue, symbol))
        for day, rows in by_day.items():
            self.write(f"{venue}/{canonical_symbol(symbol)}/1m/{day_name(day)}.parquet", rows)

    def audit(self, **options: Any) -> Report:
        running = options.pop("running", False)
        now = options.pop("now", NOW)
        return audit(self.root, now=lambda: now, running=lambda: running, **{"pauses": (0.0,), **options})

    def seal(
        self,
        series: int,
        day: int,
        rows: Sequence[Row],
        letters: str,
        shape: str = "account",
        carried: Any = None,
        **changes: Any,
    ) -> Path | None:
        """Seal the *day*: its file of minutes with *rows* and the account, if *shape* names that, and its row; by what
        the schema says of both, not by the code that writes them. *carried* are changes of the account in the file,
        *changes* of the row: of the evidence, and of its minutes (``told``), ``told_shape``, ``unknown``, ``flipped``.
        """
        with self.open() as database:
            venue, symbol, folder = database.execute(
                "SELECT venue, symbol, folder FROM series WHERE id = ?", (series,)
            ).fetchone()
        folder = folder or canonical_symbol(symbol)

        def why(reason: str) -> list[Any]:
            return [reason, "", day + DAY, 3, None]

        evidence = {
            "compared": True, "empty": "ids 7 and 8" if "e" in letters else None,
            "unfillable": why("not_collected") if "u" in letters else None,
            "gap": why("disconnected") if "g" in letters else None, "listed": None,
        }  # fmt: skip
        names = {"venue": venue, "symbol": symbol, "folder": folder, "day": day, "minutes": letters}
        has = shape.split()
        path, digests = f"{venue}/{folder}/1m/{day_name(day)}.parquet", {}
        if "account" in has or rows:
            account = None if "account" not in has else json.dumps({**names, **evidence, **(carried or {})})
            metadata = {} if account is None else {ACCOUNT_KEY: account.encode()}
            file = self.write(path, rows, COLUMNS.with_metadata(metadata), listed=False)
            digests["1m"] = digest_of(file.read_bytes())
        for one in [name for name in has if name != "account"]:
            other = self.root / f"{venue}/{folder}/{one}/{day_name(day)}.parquet"
            if other.exists():
                digests[one] = digest_of(other.read_bytes())
        detail = {**evidence, "digests": digests}
        detail |= {name: value for name, value in changes.items() if name in detail}
        told = changes.get("told", letters)
        packed = [zlib.compress(told.encode()), zlib.compress(json.dumps(detail).encode())]
        values = [day, changes.get("told_shape", shape), *packed, changes.get("unknown", told.count("g"))]
        checksum = zlib.crc32(repr((venue, symbol, folder, *values)).encode()) ^ changes.get("flipped", 0)
        with self.open() as database:
            database.execute("INSERT INTO sealed VALUES (?, ?, ?, ?, ?, ?, ?)", (series, *values, checksum))
            database.execute("DELETE FROM open_day WHERE series_id = ? AND day_ms = ?", (series, day))
            day_files = f"{venue}/{folder}/%/{day_name(day)}.parquet"
            database.execute("DELETE FROM day_file WHERE path LIKE ?", (day_files,))
        return self.root / path if digests else None


def minutes(since: int, until: int) -> list[int]:
    return list(range(since, until, MINUTE))


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err
