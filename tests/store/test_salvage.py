"""A rebuilding keeps what is proven sound in the broken journal: candles that waited, and empty minutes."""

from __future__ import annotations

import errno
import itertools
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from directories import BTC, ETH, sql
from disks import Failing
from stores import LATE, at, candles, expect, flush, on_disk

from trio_candles.audit.walk import audit
from trio_candles.candles.model import Empty, Reason, Unsure
from trio_candles.store.schema import JOURNAL
from trio_candles.store.store import StoreUnavailable, open_store

WAITING = 60


def lived(root: Path, *, flushed: bool = True) -> None:
    """Ten minutes in day files, 60 that wait, then some that are empty and a gap; ETH has nothing but what waits."""
    with open_store(root) as store:
        store.aggregate(["5m"])
        expect(store, BTC, ETH, since=0, now=0)
        store.commit([*candles(0, 10), *candles(0, 10, ETH)], at(10))
        if flushed:
            flush(store)
        store.commit([*candles(10, 10 + WAITING), *candles(10, 10 + WAITING, ETH)], at(70))
        doubt = Unsure(BTC, at(75), at(80), Reason.UNPROVEN)
        store.commit([Empty(BTC, at(70), at(75), "the ids say so"), doubt, *candles(80, 81)], at(81))


def killed(root: Path, target: Path) -> None:
    """*target*, as a collector that was killed leaves it: what is newest is in the write-ahead log only."""
    with open_store(root) as store:
        store.commit([*candles(81, 90)], at(90))
        shutil.copytree(root, target, ignore=shutil.ignore_patterns("*-shm"))


def page_of(root: Path, name: str) -> tuple[int, int]:
    """The root page of a table or an index, and the size of a page."""
    size = sql(root, "PRAGMA page_size")[0][0]
    return sql(root, "SELECT rootpage FROM sqlite_master WHERE name = ?", name)[0][0], size


def ruin(root: Path, *names: str) -> None:
    """Overwrite the root pages of tables or indexes."""
    places = [page_of(root, name) for name in names]
    with (root / JOURNAL).open("rb+") as file:
        for page, size in places:
            file.seek((page - 1) * size)
            file.write(b"\xa5" * size)


def waiting(root: Path) -> int:
    return sql(root, "SELECT count(*) FROM candle")[0][0]


def sound(root: Path) -> None:
    assert audit(root, now=lambda: LATE, running=lambda: False, pauses=()).violations == ()


@pytest.mark.parametrize("flushed", [True, False])
@pytest.mark.parametrize("name", ["gap", "gap_event", "revision_minute", "empty", "sqlite_autoindex_candle_1"])
def test_candles_that_waited_in_a_journal_of_which_another_page_is_damaged_are_kept(tmp_path, caplog, name, flushed):
    lived(tmp_path, flushed=flushed)
    count = waiting(tmp_path)
    ruin(tmp_path, name)
    with open_store(tmp_path) as store:
        assert waiting(tmp_path) == count == 2 * WAITING + 1 + (0 if flushed else 20)
        assert f"Sound in the old journal were {count} candles" in caplog.text
        store.expect([BTC, ETH], at(0), at(82))
        flush(store)
    assert {path: len(minutes) for path, minutes in on_disk(tmp_path).items()} == {
        "okx/BTC-USDT/1m/2026-01-11.parquet": 71,
        "kraken/ETH-USD/1m/2026-01-11.parquet": 70,
    }
    sound(tmp_path)
    assert sorted(path.name for path in (tmp_path / ".tmp").iterdir()) == []


def test_what_a_killed_collector_left_in_its_log_is_kept_though_a_page_is_damaged(tmp_path):
    live, target = tmp_path / "live", tmp_path / "killed"
    lived(live)
    killed(live, target)
    page, size = page_of(live, "gap_event")
    with (target / JOURNAL).open("rb+") as file:
        file.seek((page - 1) * size)
        file.write(b"\xa5" * size)
    assert (target / f"{JOURNAL}-wal").stat().st_size
    with open_store(target) as store:
        store.expect([BTC, ETH], at(0), at(91))
        flush(store)
    assert len(on_disk(target)["okx/BTC-USDT/1m/2026-01-11.parquet"]) == 80
    sound(target)


def test_empty_minutes_are_kept_with_their_evidence_where_their_table_is_sound(tmp_path):
    lived(tmp_path)
    ruin(tmp_path, "gap")
    with open_store(tmp_path) as store:
        store.expect([BTC, ETH], at(0), at(82))
    assert sql(tmp_path, "SELECT since_ms, until_ms, evidence FROM empty") == [(at(70), at(75), "the ids say so")]
    assert (at(75), at(80), "ledger_lost") in sql(tmp_path, "SELECT since_ms, until_ms, reason FROM gap")
    sound(tmp_path)


@pytest.mark.parametrize("name", ["sqlite_autoindex_empty_1", "sqlite_autoindex_series_1"])
def test_empty_minutes_of_which_nobody_can_tell_become_gaps(tmp_path, name):
    lived(tmp_path)
    ruin(tmp_path, name)
    with open_store(tmp_path) as store:
        store.expect([BTC, ETH], at(0), at(82))
    assert sql(tmp_path, "SELECT * FROM empty") == []
    sound(tmp_path)


@pytest.mark.parametrize("change", ["since_ms = since_ms + 1", "until_ms = until_ms + 64", "until_ms = 'noon'"])
def test_a_span_that_makes_no_sense_takes_all_empty_minutes_with_it_and_no_candle(tmp_path, change):
    lived(tmp_path)
    sql(tmp_path, f"UPDATE empty SET {change}")
    with open_store(tmp_path) as store:
        store.expect([BTC, ETH], at(0), at(82))
    assert sql(tmp_path, "SELECT * FROM empty") == []
    assert waiting(tmp_path) == 2 * WAITING + 1
    sound(tmp_path)


def test_a_row_that_does_not_match_its_checksum_is_not_kept_and_the_others_are(tmp_path):
    lived(tmp_path)
    sql(tmp_path, "UPDATE candle SET high = high + 1 WHERE open_ms = ?", at(30))
    with open_store(tmp_path) as store:
        store.expect([BTC, ETH], at(0), at(82))
    assert waiting(tmp_path) == 2 * WAITING + 1 - 2
    gone = sql(tmp_path, "SELECT since_ms, until_ms, reason FROM gap WHERE since_ms = ?", at(30))
    assert gone == [(at(30), at(31), "ledger_lost")] * 2
    sound(tmp_path)


def test_rows_of_a_series_whose_name_was_damaged_are_not_taken_for_another_ones(tmp_path):
    lived(tmp_path)
    content = (tmp_path / JOURNAL).read_bytes()
    assert content.count(b"okxBTC-USDT1m") == 2  # in the table, and in its index
    (tmp_path / JOURNAL).write_bytes(content.replace(b"okxBTC-USDT1m", b"okxBTC-USDU1m", 1))
    with open_store(tmp_path) as store:
        assert set(store.journal.spans()) == {BTC, ETH}
        store.expect([BTC, ETH], at(0), at(82))
        flush(store)
    assert {path: len(minutes) for path, minutes in on_disk(tmp_path).items()} == {
        "okx/BTC-USDT/1m/2026-01-11.parquet": 10,
        "kraken/ETH-USD/1m/2026-01-11.parquet": 70,
    }
    sound(tmp_path)


def test_a_row_that_is_in_a_day_file_as_well_is_there_once(tmp_path):
    lived(tmp_path)
    with open_store(tmp_path) as store:
        shutil.copy(tmp_path / JOURNAL, tmp_path / "before")
        shutil.copy(tmp_path / f"{JOURNAL}-wal", tmp_path / "before-wal")
        flush(store)
    for suffix in ("", "-wal"):  # the crash was between the files and the journal
        shutil.move(tmp_path / f"before{suffix}", tmp_path / f"{JOURNAL}{suffix}")
    with closing(sqlite3.connect(tmp_path / JOURNAL)) as database, database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        database.execute("DELETE FROM meta")
    with open_store(tmp_path) as store:
        assert waiting(tmp_path) == 0
        store.expect([BTC, ETH], at(0), at(82))
    assert sorted(len(minutes) for minutes in on_disk(tmp_path).values()) == [70, 71]
    sound(tmp_path)


def test_a_rebuilding_that_is_cut_short_salvages_when_it_is_done_again(tmp_path):
    lived(tmp_path)
    ruin(tmp_path, "gap")
    for which in itertools.count(1):
        try:
            with open_store(tmp_path, Failing({which}, errno.EIO)):
                break
        except StoreUnavailable:
            pass
    assert which > 2
    assert waiting(tmp_path) == 2 * WAITING + 1
    with open_store(tmp_path) as store:
        store.expect([BTC, ETH], at(0), at(82))
    sound(tmp_path)


def test_nothing_of_a_journal_that_was_set_aside_long_ago_comes_back(tmp_path):
    lived(tmp_path)
    ruin(tmp_path, "gap")
    with open_store(tmp_path) as store:
        flush(store)
    for path in tmp_path.glob("*/*/1m/*.parquet"):
        path.unlink()
    (tmp_path / JOURNAL).unlink()
    with open_store(tmp_path) as store:
        assert waiting(tmp_path) == 0
        assert store.journal.spans() == {}
