"""What a data directory remembers of itself, also when its journal is lost, and what the next run makes of it."""

from __future__ import annotations

import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from trio_candles.candles.model import MINUTE, Candle, Millis, Series, Source
from trio_candles.clock import WallTime
from trio_candles.command.cli import parser
from trio_candles.command.launch import UsageError, plan
from trio_candles.command.options import tool_clock, tool_time
from trio_candles.store.identity import remembered_meta
from trio_candles.store.snapshot import open_snapshot
from trio_candles.store.store import open_store

NOW = int(time.time()) * 1000
AHEAD = Millis(NOW - NOW % 86_400_000 + 10 * 86_400_000)
"""Ten days from today on: where an accelerated clock soon is."""
BTC, ETH = Series("okx", "BTC-USDT"), Series("kraken", "ETH/USD")
CONFIG = "venues:\n  okx: {symbols: [BTC-USDT]}\nlog_dir: logs\n"


def candle(minute: int, series: Series = BTC) -> Candle:
    since = Millis(AHEAD + minute * MINUTE)
    end = Millis(since + MINUTE)
    return Candle(series, since, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1, Source.WEBSOCKET, end, end)


def filled(root: Path, kind: str = "simulated", minutes: int = 3) -> Path:
    """A directory that remembers everything, at rest."""
    latest = AHEAD + minutes * MINUTE
    with open_store(root) as store:
        store.claim(kind, seed=7 if kind == "simulated" else None, speed=60.0, pivot=NOW / 1000, latest_ms=latest)
        store.expect([BTC], AHEAD, AHEAD)
        store.commit([candle(minute) for minute in range(minutes)], Millis(latest))
        assert store.flush(store.waiting()).error is None
    return root


def lose(root: Path, how: str) -> None:
    journal = root / "journal.sqlite3"
    if how == "missing":
        journal.unlink()
    elif how == "text":
        journal.write_bytes(b"no database " * 1000)
    elif how == "empty":
        journal.write_bytes(b"")
    elif how == "zeros":
        journal.write_bytes(bytes(journal.stat().st_size))
    elif how == "rebuilt":  # and killed before it was claimed again
        journal.unlink()
        with open_store(root):
            pass


LOSSES = ["missing", "text", "empty", "zeros", "rebuilt"]


def options(root: Path, *more: str):
    (root.parent / "config.yaml").write_text(CONFIG)
    return parser().parse_args(["--config", str(root.parent / "config.yaml"), "--data-dir", str(root), *more])


def test_a_directory_that_is_none_or_is_empty_remembers_nothing(tmp_path):
    (tmp_path / "file").write_text("x")
    assert remembered_meta(tmp_path) == remembered_meta(tmp_path / "none") == remembered_meta(tmp_path / "file") == {}


@pytest.mark.parametrize("how", LOSSES)
def test_what_is_remembered_outlives_the_journal(tmp_path, how):
    whole = remembered_meta(filled(tmp_path / "d"))
    lose(tmp_path / "d", how)
    left = remembered_meta(tmp_path / "d")
    for key in ("kind", "seed", "speed", "pivot", "latest_ms"):
        assert left[key] == whole[key]


@pytest.mark.parametrize("how", LOSSES)
def test_the_other_kind_of_run_is_refused_though_the_journal_is_lost(tmp_path, how):
    lose(filled(tmp_path / "d"), how)
    with pytest.raises(UsageError, match="holds simulated candles"):
        plan(options(tmp_path / "d"))
    lose(filled(tmp_path / "real", "real"), how)
    with pytest.raises(UsageError, match="holds real candles"):
        plan(options(tmp_path / "real", "--simulate"))


@pytest.mark.parametrize("how", LOSSES)
def test_a_simulation_goes_on_with_its_seed_and_its_clock_though_the_journal_is_lost(tmp_path, how):
    lose(filled(tmp_path / "d"), how)
    planned = plan(options(tmp_path / "d", "--simulate"))
    assert (planned.seed, planned.time.speed) == (7, 60.0)
    assert planned.time.now() >= AHEAD + 3 * MINUTE
    with pytest.raises(UsageError, match="seed 7, not 8"):
        plan(options(tmp_path / "d", "--simulate", "--seed", "8"))
    with pytest.raises(UsageError, match="before the directory's latest time"):
        plan(options(tmp_path / "d", "--simulate", "--speed", "1"))
    with open_store(tmp_path / "d") as store:
        store.claim("simulated", seed=7, speed=60.0, pivot=planned.time.pivot, latest_ms=planned.time.now())
        assert int(store.journal.meta()["latest_ms"]) >= AHEAD + 3 * MINUTE


def test_what_the_journal_says_is_above_what_lies_beside_it(tmp_path):
    filled(tmp_path / "d")
    (tmp_path / "d" / "identity.json").write_text('{"kind": "real", "seed": null, "speed": 1.0, "pivot": 0.0}')
    assert remembered_meta(tmp_path / "d")["kind"] == "simulated"
    assert remembered_meta(tmp_path / "d")["seed"] == "7"


@pytest.mark.parametrize("value", ["6p.0", "nan", "inf", ""])
@pytest.mark.parametrize("key", ["seed", "speed", "pivot", "latest_ms"])
def test_a_number_in_the_journal_that_is_none_any_more_is_taken_from_elsewhere(tmp_path, key, value):
    """A flipped bit: SQLite has no checksums."""
    whole = remembered_meta(filled(tmp_path / "d"))
    with closing(sqlite3.connect(tmp_path / "d" / "journal.sqlite3")) as journal, journal:
        journal.execute("UPDATE meta SET value = ? WHERE key = ?", (value, key))
    assert remembered_meta(tmp_path / "d")[key] == whole[key]
    assert plan(options(tmp_path / "d", "--simulate")).seed == 7


def test_a_journal_whose_schema_is_no_text_any_more_is_unsound_to_every_reader(tmp_path):
    """SQLite quotes the schema in its complaint, and Python cannot decode that."""
    whole = remembered_meta(filled(tmp_path / "d"))
    del whole["clock_waits"], whole["format"], whole["epoch"]
    journal = tmp_path / "d" / "journal.sqlite3"
    journal.write_bytes(journal.read_bytes().replace(b"CREATE TABLE empty (", b"CREATE TABLE \xe5mpty ("))
    assert remembered_meta(tmp_path / "d") == whole
    with pytest.raises(sqlite3.DatabaseError), open_snapshot(journal):
        pass
    with open_store(tmp_path / "d") as store:
        assert "kind" not in store.journal.meta()  # made anew; a collector claims it again


@pytest.mark.parametrize("content", [b"", b"\xff", b"[1]", b'{"kind": "simulated", "speed": "fast"}'])
def test_an_identity_that_makes_no_sense_is_none(tmp_path, content):
    lose(filled(tmp_path / "d"), "missing")
    (tmp_path / "d" / "identity.json").write_bytes(content)
    assert remembered_meta(tmp_path / "d") == {"latest_ms": str(AHEAD + 3 * MINUTE)}
    assert plan(options(tmp_path / "d", "--simulate")).seed == 0


def test_the_newest_close_is_the_latest_of_the_newest_days_files(tmp_path):
    with open_store(tmp_path) as store:
        store.expect([BTC, ETH], Millis(AHEAD - 2 * MINUTE), Millis(AHEAD - 2 * MINUTE))
        late = Millis(AHEAD + 9 * MINUTE)
        store.commit([candle(n) for n in range(-2, 5)] + [candle(n, ETH) for n in range(-2, 2)], late)
        store.flush(store.waiting())
    (tmp_path / "journal.sqlite3").unlink()
    assert remembered_meta(tmp_path) == {"latest_ms": str(AHEAD + 5 * MINUTE)}
    newest = next(tmp_path.glob("okx/*/1m/*"), None)
    for path in tmp_path.glob("okx/*/1m/*.parquet"):
        newest = max(newest, path)
    newest.write_bytes(newest.read_bytes()[:-1])  # cannot be read: what others of that day say counts
    assert remembered_meta(tmp_path) == {"latest_ms": str(AHEAD + 2 * MINUTE)}
    for path in tmp_path.glob(f"kraken/*/1m/{newest.name}"):
        path.write_bytes(b"")
    assert remembered_meta(tmp_path) == {"latest_ms": str(AHEAD)}


def test_quarantine_and_other_names_say_nothing_about_the_time(tmp_path):
    lose(filled(tmp_path / "d"), "missing")
    (tmp_path / "d" / "identity.json").unlink()
    day = next((tmp_path / "d").glob("okx/*/1m/*.parquet"))
    for place in ("quarantine", ".tmp"):
        (tmp_path / "d" / place / "a" / "b").mkdir(parents=True)
        shutil.copy(day, tmp_path / "d" / place / "a" / "b" / "2999-01-01.parquet")
    shutil.copy(day, day.with_name("notes.parquet"))
    day.with_name("2999-01-01.txt").write_text("x")
    assert remembered_meta(tmp_path / "d") == {"latest_ms": str(AHEAD + 3 * MINUTE)}


def test_a_day_file_whose_rows_lie_elsewhere_counts_as_its_day(tmp_path):
    lose(filled(tmp_path / "d"), "missing")
    day = next((tmp_path / "d").glob("okx/*/1m/*.parquet"))
    shutil.copy(day, day.with_name("9999-12-31.parquet"))
    assert remembered_meta(tmp_path / "d")["latest_ms"] == str(253_402_300_800_000 - 86_400_000)


def test_day_files_alone_do_not_bind_a_real_clock(tmp_path):
    """Without kind and speed the latest time means nothing: a wall clock is where it is."""
    lose(filled(tmp_path / "d", "real"), "missing")
    (tmp_path / "d" / "identity.json").unlink()
    assert plan(options(tmp_path / "d")).time.speed == 1.0


def test_a_tool_reads_by_the_directorys_clock_though_the_journal_is_lost(tmp_path):
    lose(filled(tmp_path / "d"), "missing")
    assert abs(tool_clock(tmp_path / "d", None, None)() - WallTime(60.0, NOW / 1000).now()) < 60_000


def test_a_pivot_alone_goes_with_the_speed_that_the_directory_remembers(tmp_path):
    assert tool_time(filled(tmp_path / "d"), None, 5.0) == WallTime(60.0, 5.0)
    assert tool_time(tmp_path / "d", 2.0, 5.0) == WallTime(2.0, 5.0)
    assert tool_time(tmp_path / "d", None, None) == WallTime(60.0, NOW / 1000)
    assert tool_time(tmp_path / "nowhere", None, 5.0) == WallTime(1.0, 5.0)


def test_a_simulation_that_lost_its_journal_twice_is_still_the_same(tmp_path):
    filled(tmp_path / "d")
    for _ in range(2):
        lose(tmp_path / "d", "missing")
        planned = plan(options(tmp_path / "d", "--simulate"))
        with open_store(tmp_path / "d") as store:
            store.claim(
                planned.kind, seed=planned.seed, speed=planned.time.speed, pivot=planned.time.pivot,
                latest_ms=planned.time.now(),
            )  # fmt: skip
            assert (store.journal.meta()["seed"], store.journal.meta()["kind"]) == ("7", "simulated")


def test_a_tool_that_only_looks_has_the_clock_of_the_collector_that_runs_there(tmp_path):
    pivot = NOW / 1000 - 864_000 / 59  # by which it is ten days from now
    with open_store(tmp_path / "d") as store:
        store.claim("simulated", seed=7, speed=60.0, pivot=pivot, latest_ms=AHEAD)
        looking = plan(options(tmp_path / "d", "--simulate"), looking=True)
        assert looking.time == WallTime(60.0, pivot)
        other = plan(options(tmp_path / "d", "--simulate", "--speed", "120"), looking=True)
        assert other.time.speed == 120.0
    assert plan(options(tmp_path / "d", "--simulate"), looking=True).time != WallTime(60.0, pivot)


def test_a_tool_that_only_looks_takes_nothing_from_a_directory_of_the_other_kind(tmp_path):
    filled(tmp_path / "d")
    planned = plan(options(tmp_path / "d"), looking=True)
    assert (planned.kind, planned.time.speed, planned.seed) == ("real", 1.0, None)
