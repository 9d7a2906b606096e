"""Real series through the store and the audit: what was recorded of three venues comes out as it went in.

The rows become verdicts, as a feed would give them (a candle for each row; a missing minute is a gap where the venue
was down and empty where it says that nothing traded), are committed, flushed and audited. ``EXPECTED.json`` was
computed from the same files by programs that share nothing with ours. And then the directory is damaged, in every way
that the audit must find.
"""

from __future__ import annotations

import csv
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from recorded import expected, recorded

from trio_candles.audit import Report, audit
from trio_candles.audit.files import day_file_path
from trio_candles.audit.walk import Cell
from trio_candles.candles.model import (
    DAY,
    MINUTE,
    Candle,
    Empty,
    Millis,
    Reason,
    Series,
    Source,
    Unsure,
    floor_to,
    utc_text,
)
from trio_candles.store.schema import JOURNAL, digest_of
from trio_candles.store.store import open_store

Row = tuple[int, float, float, float, float, float]
"""Open time, open, high, low, close, volume."""

COINBASE = Series("coinbase", "BTC-USD")
KRAKEN = Series("kraken", "BTC/USDC")
OKX = Series("okx", "BTC-USDT")


def rows_of(name: str) -> list[Row]:
    """The rows of a recorded series; *name* is that of a file below ``series``, or a path below the data folder."""
    path = recorded(name if "/" in name else f"series/{name}")
    if path.suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as lines:
            return [(int(row[0]) * 1000, *map(float, row[1:6])) for row in csv.reader(lines)]  # type: ignore[misc]
    table = pq.read_table(path, use_threads=False)
    names = ("start", "date", "timestamp", "open_time_ms")
    times = table.column(next(n for n in names if n in table.column_names))
    if "open_time_ms" in table.column_names:
        opens = times.to_pylist()
    elif pa.types.is_timestamp(times.type):
        opens = times.cast(pa.timestamp("ms", times.type.tz)).cast(pa.int64()).to_pylist()
    else:
        opens = [int(time) * 1000 for time in times.to_pylist()]
    numbers = [table.column(n).cast(pa.float64()).to_pylist() for n in ("open", "high", "low", "close", "volume")]
    return sorted(zip(opens, *numbers, strict=True))


def verdicts(series: Series, rows: Sequence[Row], hole: Callable[[Series, Millis, Millis], Any]) -> Iterator[Any]:
    """A verdict on every minute from the first row to the last, in order."""
    reached = rows[0][0]
    for time, o, high, low, close, volume in rows:
        if reached < time:
            yield hole(series, Millis(reached), Millis(time))
        yield Candle(
            series, Millis(time), o, high, low, close, volume, None, None, None, Source.REST,
            Millis(time + 2 * MINUTE), Millis(time + MINUTE),
        )  # fmt: skip
        reached = time + MINUTE


def outage(series: Series, since: Millis, until: Millis) -> Unsure:
    return Unsure(series, since, until, Reason.DISCONNECTED, "the venue was down")


def quiet(series: Series, since: Millis, until: Millis) -> Empty:
    return Empty(series, since, until, "the venue's record has no row")


def store(root: Path, series: Series, rows: Sequence[Row], hole: Callable[[Series, Millis, Millis], Any]) -> int:
    """Bring *rows* into the data directory *root*; the end of what is accounted for."""
    first, end = Millis(rows[0][0]), Millis(rows[-1][0] + MINUTE)
    with open_store(root) as opened:
        opened.claim("real")
        opened.expect([series], first, first)
        told = verdicts(series, rows, hole)
        for _, day in groupby(told, lambda v: floor_to(v.open_time if isinstance(v, Candle) else v.since, DAY)):
            judged = opened.commit(list(day), Millis(end + 5 * MINUTE))
            assert not judged.rejected
            assert not judged.conflicts
        waiting = opened.waiting()
        for at in range(0, len(waiting), 64):
            flushed = opened.flush(waiting[at : at + 64])
            assert (flushed.error, flushed.failed) == (None, [])
        opened.stopped(end)
    return end


def audited(root: Path) -> Report:
    return audit(root, now=lambda: 1_900_000_000_000, running=lambda: False, pauses=())


def runs_of(times: Sequence[int]) -> list[list[int]]:
    """[first, how many] of each run of minutes in *times*."""
    found: list[list[int]] = []
    for time in times:
        if found and time == found[-1][0] + found[-1][1] * MINUTE:
            found[-1][1] += 1
        else:
            found.append([time, 1])
    return found


def longest(runs: Sequence[Sequence[int]]) -> list[list[object]]:
    """The five longest, as EXPECTED.json words them; of equal ones any may be named."""
    return [
        [f"{utc_text(time).replace(' ', 'T')}+00:00", count] for time, count in sorted(runs, key=lambda r: -r[1])[:5]
    ]


# --- what was recorded comes out as it went in


@pytest.fixture(scope="module")
def coinbase(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """21 days of Coinbase's minutes, with the outage of 2023-03-04."""
    root = tmp_path_factory.mktemp("coinbase")
    store(root, COINBASE, rows_of("coinbase_1m_BTC-USD_20230301_21_advtrade.parquet"), outage)
    return root


def test_an_outage_of_277_minutes_is_told_as_the_gap_that_it_was(coinbase: Path) -> None:
    said = expected()["series"]["coinbase_1m_BTC-USD_20230301_21_advtrade.parquet"]
    report = audited(coinbase)
    assert report.violations == ()
    tally = report.series["coinbase", "BTC-USD", "1m"]
    assert (tally.candles, tally.open_gap, tally.empty) == (said["rows"], said["missing"], 0)
    assert tally.candles + tally.open_gap == said["grid"]
    assert len(report.gaps) == said["gap_runs"]
    runs = [(gap.start_ms, (gap.end_ms - gap.start_ms) // MINUTE) for gap in report.gaps]
    assert longest(runs)[:2] == said["longest_gaps"][:2] == [
        ["2023-03-04T17:00:00+00:00", 277], ["2023-03-10T02:40:00+00:00", 4],
    ]  # fmt: skip
    assert {gap.reason for gap in report.gaps} == {"disconnected"}


def test_a_pair_of_which_more_than_half_is_empty_is_complete(tmp_path: Path) -> None:
    name = "kraken_ohlcvt_official_1m_BTC-USDC_202301_02.csv"
    said = expected()["series"][name]
    rows = rows_of(name)
    end = store(tmp_path, KRAKEN, rows, quiet)
    report = audited(tmp_path)
    assert report.violations == ()
    tally = report.series["kraken", "BTC/USDC", "1m"]
    assert (tally.candles, tally.empty, tally.open_gap) == (said["rows"], said["missing"], 0)
    assert tally.candles + tally.empty == said["grid"] == (end - rows[0][0]) // MINUTE
    with closing(sqlite3.connect(tmp_path / JOURNAL)) as database:
        spans = database.execute("SELECT since_ms, (until_ms - since_ms) / 60000 FROM empty").fetchall()
    assert len(spans) == said["gap_runs"]
    assert longest(spans) == said["longest_gaps"]


@pytest.mark.slow
def test_five_weeks_of_2025_in_which_two_minutes_had_no_trade_are_complete(tmp_path: Path) -> None:
    rows = rows_of("added-2026-11/series/coinbase_1m_BTC-USD_20251123_1231_advtrade.parquet")
    store(tmp_path, COINBASE, rows, quiet)
    report = audited(tmp_path)
    assert report.violations == ()
    tally = report.series["coinbase", "BTC-USD", "1m"]
    assert (tally.candles, tally.empty, tally.open_gap) == (len(rows), 2, 0) == (55_536, 2, 0)


@pytest.mark.slow
def test_rows_without_volume_are_stored_as_the_venue_published_them(tmp_path: Path) -> None:
    """OKX publishes flat rows through its outages: 122 of them in a row, candles like any other.

    They were recorded as candles of five minutes. Rows are all that this is about, so row n stands for minute n.
    """
    name = "okx_5m_BTC-USDT-SWAP_2022.parquet"
    said = expected()["series"][name]
    recorded_rows = rows_of(name)
    first = floor_to(recorded_rows[0][0], DAY)
    rows = [(first + n * MINUTE, *row[1:]) for n, row in enumerate(recorded_rows)]
    store(tmp_path, OKX, rows, outage)
    report = audited(tmp_path)
    assert report.violations == ()
    tally = report.series["okx", "BTC-USDT", "1m"]
    assert (tally.candles, tally.empty, tally.open_gap) == (said["rows"], 0, 0)
    files = sorted((tmp_path / OKX.path).glob("*.parquet"))
    table = pa.concat_tables([pq.read_table(file, use_threads=False) for file in files])
    names = ("open_time_ms", "open", "high", "low", "close", "volume")
    stored = list(zip(*(table.column(name).to_pylist() for name in names), strict=True))
    assert stored == rows
    silent = [time for time, *_, volume in stored if volume == 0]
    assert len(silent) == said["zero_volume"]
    real = [[recorded_rows[(time - first) // MINUTE][0], count] for time, count in runs_of(silent)]
    assert longest(real)[:3] == said["longest_zero_runs"][:3]
    assert longest(real)[0] == ["2022-12-18T08:40:00+00:00", 122]


# --- and every kind of damage to it is found

DAY4 = 1_677_888_000_000  # 2023-03-04, the day of the outage
AT = DAY4 + 100 * MINUTE


@pytest.fixture
def damaged(coinbase: Path, tmp_path: Path) -> Path:
    """A copy of Coinbase's directory, to be damaged."""
    shutil.copytree(coinbase, tmp_path / "data")
    return tmp_path / "data"


def path_of(day: int) -> str:
    return day_file_path(Cell("coinbase", "BTC-USD", day), "1m")


def found(root: Path) -> list[tuple[str, str, int | None, int | None]]:
    report = audited(root)
    assert report.exit_code == 1
    return [(v.kind, v.path, v.start_ms, v.end_ms) for v in report.violations]


def rewrite(root: Path, change: Callable[[pa.Table], pa.Table], *, honest: bool) -> None:
    """Change the rows of the outage's day; an *honest* ledger knows the digest of what came out."""
    file = root / path_of(DAY4)
    pq.write_table(change(pq.read_table(file, use_threads=False)), file, write_page_checksum=True)
    if honest:
        with closing(sqlite3.connect(root / JOURNAL)) as database, database:
            database.execute(
                "UPDATE day_file SET digest = ? WHERE path = ?", (digest_of(file.read_bytes()), path_of(DAY4))
            )


CHECKSUM = ("checksum", path_of(DAY4), DAY4, DAY4 + DAY)


def test_a_flipped_byte_is_found_wherever_it_is(damaged: Path) -> None:
    file = damaged / path_of(DAY4)
    content = file.read_bytes()
    for at in range(5, len(content), len(content) // 23):
        file.write_bytes(content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :])
        told = found(damaged)
        assert CHECKSUM in told
        assert {(path, start, end) for _, path, start, end in told} == {CHECKSUM[1:]}


def test_a_deleted_file_is_found_over_the_minutes_that_it_held(damaged: Path) -> None:
    gaps = [gap for gap in audited(damaged).gaps if gap.start_ms >= DAY4 + DAY and gap.start_ms < DAY4 + 2 * DAY]
    (damaged / path_of(DAY4 + DAY)).unlink()
    assert not gaps
    assert found(damaged) == [("silent_gap", path_of(DAY4 + DAY), DAY4 + DAY, DAY4 + 2 * DAY)]


def test_two_swapped_days_are_found_in_both(damaged: Path) -> None:
    one, other = damaged / path_of(DAY4), damaged / path_of(DAY4 + DAY)
    one.rename(damaged / "aside")
    other.rename(one)
    (damaged / "aside").rename(other)
    told = found(damaged)
    for day, holds in ((DAY4, DAY4 + DAY), (DAY4 + DAY, DAY4)):
        assert ("checksum", path_of(day), day, day + DAY) in told
        inside = [(start, end) for kind, path, start, end in told if (kind, path) == ("wrong_partition", path_of(day))]
        assert inside
        assert all(holds <= start < end <= holds + DAY for start, end in inside)
        assert "silent_gap" in {kind for kind, path, *_ in told if path == path_of(day)}


@pytest.mark.parametrize("honest", [False, True])
def test_a_removed_row_is_a_silent_gap(damaged: Path, honest: bool) -> None:
    rewrite(damaged, lambda t: pa.concat_tables([t.slice(0, 100), t.slice(101)]), honest=honest)
    told = found(damaged)
    assert ("silent_gap", path_of(DAY4), AT, AT + MINUTE) in told
    assert (CHECKSUM in told) is not honest
    assert len(told) == 2 - honest


@pytest.mark.parametrize("honest", [False, True])
def test_a_doubled_row_is_a_duplicate(damaged: Path, honest: bool) -> None:
    rewrite(damaged, lambda t: pa.concat_tables([t.slice(0, 101), t.slice(100)]), honest=honest)
    told = found(damaged)
    assert ("duplicate", path_of(DAY4), AT, AT + MINUTE) in told
    assert (CHECKSUM in told) is not honest
    assert len(told) == 2 - honest


def test_a_row_put_into_the_outage_contradicts_the_ledger(damaged: Path) -> None:
    minute = DAY4 + 17 * 60 * MINUTE + 30 * MINUTE

    def put(table: pa.Table) -> pa.Table:
        row = table.slice(0, 1).to_pylist()[0] | {"open_time_ms": minute, "close_time_ms": minute + MINUTE}
        made = pa.Table.from_pylist([row], schema=table.schema)
        return pa.concat_tables([table, made]).sort_by("open_time_ms")

    rewrite(damaged, put, honest=True)
    assert found(damaged) == [("contradiction", path_of(DAY4), minute, minute + MINUTE)]


def test_a_foreign_file_is_left_over_and_costs_nothing_else(damaged: Path) -> None:
    (damaged / "coinbase/BTC-USD/1m/notes.txt").write_bytes(b"hello")
    assert found(damaged) == [("leftover_file", "coinbase/BTC-USD/1m/notes.txt", None, None)]


def test_a_wrong_aggregate_is_found_by_its_span(damaged: Path) -> None:
    """One that stands on the outage, and one whose volume is off in the last bit."""
    rows = pq.read_table(damaged / path_of(DAY4), use_threads=False).to_pylist()[:5]
    volume = sum(sorted(row["volume"] for row in rows)) * (1 + 2**-50)
    one = rows[0] | {
        "timeframe": "5m", "close_time_ms": DAY4 + 5 * MINUTE, "source": "aggregated", "volume": volume,
        "high": max(r["high"] for r in rows), "low": min(r["low"] for r in rows), "close": rows[-1]["close"],
        "ingest_time_ms": rows[-1]["ingest_time_ms"],
    }  # fmt: skip
    hour = DAY4 + 17 * 60 * MINUTE
    other = one | {"open_time_ms": hour, "close_time_ms": hour + 5 * MINUTE}
    path = day_file_path(Cell("coinbase", "BTC-USD", DAY4), "5m")
    schema = pq.read_schema(damaged / path_of(DAY4))
    (damaged / path).parent.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist([one, other], schema=schema), damaged / path)
    with closing(sqlite3.connect(damaged / JOURNAL)) as database, database:
        digest = digest_of((damaged / path).read_bytes())
        database.execute("INSERT OR REPLACE INTO day_file VALUES (?, ?, NULL)", (path, digest))
    told = [place for place in found(damaged) if place[0] == "wrong_aggregate"]
    assert told == [
        ("wrong_aggregate", path, DAY4, DAY4 + 5 * MINUTE),
        ("wrong_aggregate", path, hour, hour + 5 * MINUTE),
    ]
