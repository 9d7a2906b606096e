"""What must hold at the end of a seed, read from the files with nothing of the product's.

Parquet with pyarrow, the ledger with SQL of its own, the truth from the market.
"""

from __future__ import annotations

import math
import random
import sqlite3
from collections.abc import Iterator, Mapping, Set
from contextlib import closing, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import attrs
import pyarrow.parquet as pq

from simulation.plan import Plan
from simulation.trace import Broken
from trio_candles.audit import Report, audit
from trio_candles.simulator import Market, SimulatedExchange

__all__ = ["End", "judge", "judge_the_auditor", "marks"]

MINUTE = 60_000
DAY = 86_400_000
FILLED_WITHIN = 300_000
"""Ms in which a minute is filled once nothing is in the way."""
COLUMNS = [
    "venue", "symbol", "timeframe", "open_time_ms", "close_time_ms", "open", "high", "low", "close", "volume",
    "quote_volume", "vwap", "trades_count", "is_closed", "source", "ingest_time_ms",
]  # fmt: skip
LENGTHS = {"1m": 1, "5m": 5, "15m": 15, "1h": 60, "4h": 240, "1d": 1440}
AGGREGATES = find_spec("trio_candles.aggregation") is not None
Row = dict[str, Any]


@attrs.define
class End:
    """What there was at the end, for whoever counts."""

    minutes: int = 0
    candles: int = 0
    empty: int = 0
    gaps: int = 0
    lives: int = 0


@contextmanager
def _ledger(root: Path) -> Iterator[sqlite3.Connection]:
    path = (root / "journal.sqlite3").absolute().as_uri()
    with closing(sqlite3.connect(f"{path}?mode=ro", uri=True)) as database:
        yield database


def marks(root: Path) -> dict[tuple[str, str], int]:
    """Of each expected series, the first minute that is not accounted for."""
    with _ledger(root) as database:
        query = "SELECT venue, symbol, mark_ms FROM series WHERE timeframe = '1m' AND expected = 1"
        return {(venue, symbol): mark for venue, symbol, mark in database.execute(query)}


def judge(
    plan: Plan,
    root: Path,
    market: Market,
    now: int,
    healed_at: int,
    exchanges: Mapping[str, SimulatedExchange],
    revised: Set[tuple[str, int]],
    end: End,
) -> None:
    """Raise :class:`Broken` for the first invariant that does not hold, else fill in *end*."""
    for venue, exchange in exchanges.items():
        if exchange.violations:
            raise Broken("limits", f"{venue}'s were exceeded: {dict(exchange.violations)}")
    leftovers = [path.name for path in (root / ".tmp").iterdir()]
    if leftovers:
        raise Broken("leftovers", f"in .tmp: {leftovers}")
    with _ledger(root) as database:
        waiting = database.execute("SELECT count(*) FROM candle").fetchone()[0]
        if waiting:
            raise Broken("flush", f"{waiting} rows still wait in the journal after a clean stop")
        for venue, symbols in plan.symbols.items():
            for symbol in symbols:
                _judge_series(root, database, market, now, healed_at, revised, venue, symbol, end)
    _judge_audit(audit(root, now=lambda: now, running=lambda: False, pauses=()), end)


def _judge_series(
    root: Path,
    database: sqlite3.Connection,
    market: Market,
    now: int,
    healed_at: int,
    revised: Set[tuple[str, int]],
    venue: str,
    symbol: str,
    end: End,
) -> None:
    name = f"{venue} {symbol}"
    rows = _rows(root, venue, symbol, "1m", now)
    first, mark = database.execute(
        "SELECT first_ms, mark_ms FROM series WHERE venue = ? AND symbol = ? AND timeframe = '1m'", (venue, symbol)
    ).fetchone()
    gaps = _spans(database, "gap", venue, symbol, "state")
    empties = _spans(database, "empty", venue, symbol, "evidence")
    strange = [minute for minute in {*rows, *gaps, *empties} if not first <= minute < mark]
    if strange:
        raise Broken("account", f"{name}: minutes outside [{first}, {mark}): {sorted(strange)[:5]}")
    for minute in range(first, mark, MINUTE):
        kinds = (minute in rows) + (minute in gaps) + (minute in empties)
        if kinds != 1:
            raise Broken("account", f"{name}: {minute} is {kinds} things")
        true = market.candle(venue, symbol, minute)
        if minute in rows:
            _judge_candle(name, venue, rows[minute], true, (symbol, minute) in revised)
        elif minute in empties:
            if true is not None:
                raise Broken("truth", f"{name}: {minute} is called empty ({empties[minute]}), and had {true}")
            if minute + MINUTE > now:
                raise Broken("future", f"{name}: {minute} is called empty, and is not over")
        elif minute + MINUTE <= healed_at and not _unprovable(market, venue, symbol, minute, now):
            why = database.execute(
                "SELECT state, reason, detail, attempts, last_error FROM gap JOIN series ON series.id = series_id"
                " WHERE venue = ? AND symbol = ? AND since_ms <= ? AND until_ms > ?",
                (venue, symbol, minute, minute),
            ).fetchone()
            raise Broken(
                "filled", f"{name}: {minute} is a gap {(now - healed_at) / 1000:.0f} s after the last trouble: {why}"
            )
    end.minutes += (mark - first) // MINUTE
    end.candles += len(rows)
    end.empty += len(empties)
    end.gaps += len(gaps)
    for timeframe in LENGTHS:
        if timeframe != "1m":
            _judge_aggregates(root, venue, symbol, timeframe, rows, gaps, (first, mark, now))


def _unprovable(market: Market, venue: str, symbol: str, minute: int, now: int) -> bool:
    """Whether Coinbase's record cannot yet be asked: it proves a minute by the trade that follows it."""
    after, lately = (minute + MINUTE + 1000) * 1000, (now - FILLED_WITHIN) * 1000
    return venue == "coinbase" and market.first_id_from(venue, symbol, after) >= market.first_id_from(
        venue, symbol, lately
    )


def _judge_candle(name: str, venue: str, row: Row, true: Any, revised: bool) -> None:
    minute = row["open_time_ms"]
    found = tuple(row[key] for key in ("open", "high", "low", "close", "volume"))
    if true is None:
        flat = row["volume"] == 0.0 and row["open"] == row["high"] == row["low"] == row["close"]
        if venue != "okx" or not flat:
            raise Broken("truth", f"{name}: {minute} is stored as {found}, and nothing was traded")
        return
    wanted = tuple(float(x) for x in (true.open, true.high, true.low, true.close, true.volume))
    close = found[:4] == wanted[:4] and math.isclose(found[4], wanted[4], rel_tol=1e-9)
    if revised and found[:4] == wanted[:4] and found[4] == float(f"1{true.volume:f}"):
        return  # the venue said so, and said the truth when nobody heard it
    if not close or row["trades_count"] not in (None, true.trades_count):
        raise Broken("truth", f"{name}: {minute} is stored as {found} ({row['source']}), and was {wanted}")


def _rows(root: Path, venue: str, symbol: str, timeframe: str, now: int) -> dict[int, Row]:
    """What the day files hold, with everything about their form checked."""
    folder = root / venue / symbol.replace("/", "-") / timeframe
    found: dict[int, Row] = {}
    length = LENGTHS[timeframe] * MINUTE
    for path in sorted(folder.glob("*.parquet")) if folder.is_dir() else ():
        table = pq.read_table(path, use_threads=False)
        if table.column_names != COLUMNS:
            raise Broken("columns", f"{path}: {table.column_names}")
        times = table.column("open_time_ms").to_pylist()
        if times != sorted(set(times)) or not times:
            raise Broken("duplicates", f"{path}: not sorted, a row twice, or none")
        for row in table.to_pylist():
            time = row["open_time_ms"]
            if time % length or row["close_time_ms"] != time + length or time // DAY != times[0] // DAY:
                raise Broken("times", f"{path}: {row}")
            if not row["is_closed"] or row["close_time_ms"] > now:
                raise Broken("future", f"{path}: {time} is not over at {now}")
            if (row["venue"], row["symbol"], row["timeframe"]) != (venue, symbol, timeframe):
                raise Broken("names", f"{path}: {row}")
            found[time] = row
    return found


def _spans(database: sqlite3.Connection, table: str, venue: str, symbol: str, what: str) -> dict[int, str]:
    found: dict[int, str] = {}
    for since, until, word in database.execute(
        f"SELECT since_ms, until_ms, {what} FROM {table} JOIN series ON series.id = series_id"
        " WHERE venue = ? AND symbol = ? AND timeframe = '1m'",
        (venue, symbol),
    ):
        for minute in range(since, until, MINUTE):
            if minute in found:
                raise Broken("account", f"{table}: {venue} {symbol} {minute} twice")
            found[minute] = word
    return found


def _judge_aggregates(
    root: Path,
    venue: str,
    symbol: str,
    timeframe: str,
    minutes: Mapping[int, Row],
    gaps: Mapping[int, str],
    bounds: tuple[int, int, int],
) -> None:
    """Each aggregate is the fold of its minutes; one is there if and only if all its minutes are known."""
    first, mark, now = bounds
    length = LENGTHS[timeframe] * MINUTE
    stored = _rows(root, venue, symbol, timeframe, now)
    expected = {}
    if AGGREGATES and timeframe in ("5m", "15m"):
        for time in range(-(-first // length) * length, mark - length + 1, length):
            parts = [minutes[minute] for minute in range(time, time + length, MINUTE) if minute in minutes]
            if parts and not any(minute in gaps for minute in range(time, time + length, MINUTE)):
                expected[time] = parts
    if missing := sorted(set(expected) - set(stored)):
        raise Broken("aggregates", f"{venue} {symbol} {timeframe}: {missing[0]} is missing, and all is known of it")
    if surplus := sorted(set(stored) - set(expected)):
        raise Broken("aggregates", f"{venue} {symbol} {timeframe}: {surplus[0]} is stored, and not all is known of it")
    for time, parts in expected.items():
        wanted = _fold(parts)
        found = {key: stored[time][key] for key in wanted}
        if found != wanted:
            raise Broken("aggregates", f"{venue} {symbol} {timeframe}: {time} is {found}, folded it is {wanted}")


def _fold(parts: list[Row]) -> Row:
    """The contract's 5.5, once more by hand."""
    volume = math.fsum(part["volume"] for part in parts)
    quotes = [part["quote_volume"] for part in parts]
    quote = None if None in quotes else math.fsum(quotes)
    counts = [part["trades_count"] for part in parts]
    return {
        "open": parts[0]["open"],
        "high": max(part["high"] for part in parts),
        "low": min(part["low"] for part in parts),
        "close": parts[-1]["close"],
        "volume": volume,
        "quote_volume": quote,
        "vwap": None if quote is None or not volume else quote / volume,
        "trades_count": None if None in counts else sum(counts),
        "source": "aggregated",
        "ingest_time_ms": max(part["ingest_time_ms"] for part in parts),
    }


def _judge_audit(report: Report, end: End) -> None:
    """The audit agrees: nothing is wrong, and there is so much of everything."""
    if not report.ok:
        raise Broken("audit", f"raises an alarm where all is well: {report.violations[0]}")
    minutes = [tally for (_, _, timeframe), tally in report.series.items() if timeframe == "1m"]
    counts = tuple(sum(getattr(tally, what) for tally in minutes) for what in ("candles", "empty", "open_gap"))
    if counts != (end.candles, end.empty, end.gaps):
        raise Broken("audit", f"counts {counts}; there are {(end.candles, end.empty, end.gaps)}")


def judge_the_auditor(root: Path, now: int, chance: random.Random) -> None:
    """Spoil one thing in a directory in which all is well: the audit must see it. *root* is of no use afterwards."""
    files = sorted(root.glob("*/*/1m/*.parquet"))
    with closing(sqlite3.connect(root / "journal.sqlite3", isolation_level=None)) as database:
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
                    "INSERT INTO candle (series_id, open_ms, open, high, low, close, volume, source, ingest_ms)"
                    " SELECT id, ?, 1, 2, 1, 2, 3, 'rest', ? FROM series"
                    " WHERE venue = ? AND symbol = ? AND timeframe = '1m'",
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
    if audit(root, now=lambda: now, running=lambda: False, pauses=()).ok:
        raise Broken("audit", f"sees nothing wrong, and {what}")
