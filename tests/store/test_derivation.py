"""Aggregates on disk follow from the stored minutes, whatever happened to either, and whenever the power went."""

from __future__ import annotations

import errno
import random
import shutil
import sqlite3
from pathlib import Path

import attrs
import pytest
from derived import Wrong, candles, empty, promise, rows
from directories import BTC, ETH, MIDNIGHT, at, bring_down
from disks import Cut, Failing, HeldOpen, PowerCut, Refusing, after, cuts
from stores import AFTER, BEFORE, LATE, candle, expect, flush, ledger, spoil

from trio_candles.audit import audit
from trio_candles.candles.model import MINUTE, Candle, Millis, Page, Reason, Series, Source, Unsure
from trio_candles.store import dayfiles
from trio_candles.store.dayfiles import DayFile
from trio_candles.store.disk import LOCAL_DISK, LocalDisk
from trio_candles.store.store import FILES_AT_ONCE, open_store

FIVE = BEFORE.replace("1m", "5m"), AFTER.replace("1m", "5m")
HOUR = AFTER.replace("1m", "1h")


def is_clean(root: Path) -> bool:
    """What the audit says, beside the store."""
    report = audit(root, now=lambda: LATE, running=lambda: False, pauses=())
    return [(one.kind, one.path, one.detail) for one in report.violations] == []


def unsure(since: int, until: int, series: Series = BTC) -> Unsure:
    return Unsure(series, at(since), at(until), Reason.UNPROVEN)


# --- what a flush derives


def test_what_is_complete_is_derived_in_the_flush_that_completes_it(tmp_path):
    with open_store(tmp_path) as store:
        store.aggregate(("5m", "15m"))
        expect(store, since=0, now=0)
        for until in (4, 5, 11, 16):
            (mark,) = [mark for _, mark in store.expect([BTC], at(0), at(0)).values()]
            store.commit(candles((mark - MIDNIGHT) // MINUTE, until), LATE)
            assert flush(store).saved == {"okx": until - (mark - MIDNIGHT) // MINUTE}
            assert promise(tmp_path, "5m", "15m") == {"5m": until // 5, "15m": until // 15}
            assert is_clean(tmp_path)
        assert store.waiting() == []


def test_the_day_divides_aggregates_as_it_divides_minutes(tmp_path):
    with open_store(tmp_path) as store:
        store.aggregate(("5m", "1h", "1d"))
        expect(store, BTC, ETH, since=-1440, now=-1440)
        store.commit([*candles(-1440, 62), *candles(-1440, 3, ETH)], LATE)
        flush(store)
        assert promise(tmp_path, "5m", "1h", "1d") == {"5m": 588, "1h": 49, "1d": 2}
        assert (tmp_path / FIVE[0]).exists()
        assert (tmp_path / FIVE[1]).exists()
    assert is_clean(tmp_path)


def test_saved_counts_minutes_and_never_aggregates(tmp_path):
    with open_store(tmp_path) as store:
        store.aggregate(("5m",))
        expect(store, since=0, now=0)
        store.commit([*candles(0, 4), empty(4, 5)], LATE)
        assert flush(store).saved == {"okx": 4}
        store.aggregate(("5m", "15m"))
        assert flush(store).saved == {}


def test_a_minute_that_becomes_empty_completes_an_aggregate_and_leaves_the_file_of_minutes_alone(tmp_path):
    with open_store(tmp_path) as store:
        store.aggregate(("5m",))
        expect(store, since=0, now=0)
        store.commit([*candles(0, 3), unsure(3, 5), *candles(5, 7)], LATE)
        flush(store)
        assert promise(tmp_path, "5m") == {"5m": 0}
        before = (tmp_path / AFTER).stat()
        store.commit([empty(3, 5)], LATE)
        assert store.unsaved() == []
        assert store.waiting() == store.underived() == [DayFile(BTC, at(0))]
        assert is_clean(tmp_path)
        assert flush(store).saved == {}
        assert promise(tmp_path, "5m") == {"5m": 1}
        assert (tmp_path / AFTER).stat() == before


def test_a_repaired_minute_of_a_past_day_derives_what_stands_on_it_and_leaves_the_rest_alone(tmp_path):
    with open_store(tmp_path) as store:
        store.aggregate(("5m", "1h", "1d"))
        expect(store, since=-1440, now=-1440)
        store.commit([*candles(-1440, -700), unsure(-700, -699), *candles(-699, 10)], LATE)
        flush(store)
        assert promise(tmp_path, "5m", "1h", "1d") == {"5m": 289, "1h": 23, "1d": 0}
        today = (tmp_path / FIVE[1]).stat()
        store.commit([candle(-700)], LATE)
        flush(store)
        assert promise(tmp_path, "5m", "1h", "1d") == {"5m": 290, "1h": 24, "1d": 1}
        assert (tmp_path / FIVE[1]).stat() == today


def test_a_replaced_candle_is_in_its_aggregates_too(tmp_path):
    """REST said twice, a minute apart, that it is another one."""
    with open_store(tmp_path) as store:
        store.aggregate(("5m",))
        expect(store, since=0, now=0)
        store.commit([*candles(0, 4), empty(4, 5), *candles(5, 10)], LATE)
        flush(store)
        for minute in (2, 4):  # a stored one, and an empty one
            for again in (0, 2):
                said = candle(minute, 5000.0, source=Source.REST, ingest_time=Millis(at(600 + again)))
                store.commit([Page(BTC, at(minute), at(minute + 1), (said,), ())], Millis(LATE + again * MINUTE))
            flush(store)
            assert promise(tmp_path, "5m") == {"5m": 2}
            assert rows(tmp_path, Series("okx", "BTC-USDT", "5m"))[0]["high"] == 5001.0
    assert is_clean(tmp_path)


def test_minutes_before_the_first_expected_one_carry_nothing_and_before_the_listing_they_are_empty(tmp_path):
    with open_store(tmp_path) as store:
        store.aggregate(("5m", "1h", "1d"))
        expect(store, since=2, now=12)
        store.commit([candle(minute) for minute in range(8, 10)], LATE)
        store.commit([unsure(10, 12)], LATE)
        store.commit([*candles(12, 60)], LATE)
        flush(store)
        store.commit([*candles(10, 12)], LATE)
        flush(store)
        assert promise(tmp_path, "5m", "1h", "1d") == {"5m": 10, "1h": 0, "1d": 0}
        store.commit([Page(BTC, at(2), at(8), (), (), listed=(at(8), "the venue says so"))], LATE)
        assert is_clean(tmp_path)
        flush(store)
        assert promise(tmp_path, "5m", "1h", "1d") == {"5m": 11, "1h": 1, "1d": 0}
        assert is_clean(tmp_path)


def test_an_aggregate_whose_sum_is_beyond_a_float_is_not_stored_and_said(tmp_path, caplog):
    with open_store(tmp_path) as store:
        store.aggregate(("5m",))
        expect(store, since=0, now=0)
        store.commit([candle(minute, volume=1.7e308) for minute in range(5)], LATE)
        store.commit([candle(minute, trades_count=2**62) for minute in range(5, 10)], LATE)
        store.commit(candles(10, 15), LATE)
        assert flush(store).error is None
        assert [row["open_time_ms"] for row in rows(tmp_path, Series("okx", "BTC-USDT", "5m"))] == [at(10)]
        assert caplog.text.count("an aggregate is not stored") == 2
        assert store.waiting() == []
    assert is_clean(tmp_path)


def written(path):
    """Which file it is, and when it was written; not when it was read."""
    return path.stat().st_ino, path.stat().st_mtime_ns


def test_what_has_not_changed_is_not_written_again(tmp_path):
    with open_store(tmp_path, disk := Failing()) as store:
        store.aggregate(("5m", "15m", "1h"))
        expect(store, since=0, now=0)
        store.commit(candles(0, 121), LATE)
        flush(store)
        disk.calls.clear()
        store.commit(candles(121, 122), LATE)
        flush(store)
        # Nothing of the aggregates is even read until a minute completes one.
        assert disk.calls == ["read", "remove", "write_new", "read", "replace", "sync_folder", "remove"]
        before = {path: written(path) for path in tmp_path.glob("okx/*/*/*") if path.parent.name != "1m"}
        store.aggregate(())
        store.aggregate(("5m", "15m", "1h"))
        assert store.underived() == [DayFile(BTC, at(0))]
        flush(store)
        assert {path: written(path) for path in before} == before


def test_a_quiet_minute_reads_no_file_until_it_completes_something(tmp_path):
    with open_store(tmp_path, disk := Failing()) as store:
        store.aggregate(("5m", "1h"))
        expect(store, since=0, now=0)
        store.commit([*candles(0, 5), empty(5, 6)], LATE)
        flush(store)
        for minute in (6, 7, 8):
            disk.calls.clear()
            store.commit([empty(minute, minute + 1)], LATE)
            flush(store)
            assert disk.calls == []
        store.commit([empty(9, 10)], LATE)
        flush(store)
        assert promise(tmp_path, "5m", "1h") == {"5m": 1, "1h": 0}
        store.commit([empty(10, 60)], LATE)
        flush(store)
        assert promise(tmp_path, "5m", "1h") == {"5m": 1, "1h": 1}


def test_many_quiet_minutes_are_one_note(tmp_path):
    with open_store(tmp_path) as store:
        expect(store, since=-10, now=-10)
        for minute in range(-10, 10):
            store.commit([empty(minute, minute + 1)], LATE)
        assert ledger(tmp_path, "SELECT since_ms, until_ms FROM underived") == [(at(-10), at(0)), (at(0), at(10))]


# --- which timeframes


def test_switched_on_later_what_is_there_already_is_derived(tmp_path):
    with open_store(tmp_path) as store:
        store.aggregate(())
        expect(store, BTC, ETH, since=-10, now=-10)
        store.commit([*candles(-10, 10), *candles(-10, 0, ETH), empty(0, 5, ETH)], LATE)
        flush(store)
        assert promise(tmp_path) == {}
    with open_store(tmp_path) as store:
        store.aggregate(("5m",))
        assert len(store.underived()) == 3
        assert is_clean(tmp_path)  # it knows that they follow
        store.aggregate(("5m",))
        assert len(ledger(tmp_path, "SELECT * FROM underived")) == 3
        flush(store)
        assert promise(tmp_path, "5m") == {"5m": 6}
        store.aggregate(("15m", "5m"))
        flush(store)
        assert promise(tmp_path, "5m", "15m") == {"5m": 6, "15m": 0}


def test_a_timeframe_that_is_gained_stays_owed_over_restarts_until_all_of_it_is_there(tmp_path):
    with open_store(tmp_path) as store:
        expect(store, since=-10, now=-10)
        store.commit(candles(-10, 10), LATE)
        flush(store)
        store.aggregate(("5m",))
        store.flush(store.underived()[:1])
    with open_store(tmp_path) as store:
        assert store.underived() == [DayFile(BTC, at(-1440))]
        flush(store)
        assert promise(tmp_path, "5m") == {"5m": 4}


def test_the_timeframes_are_known_before_anybody_says_them_again(tmp_path):
    with open_store(tmp_path) as store:
        store.aggregate(("5m",))
        expect(store, since=0, now=0)
        store.commit(candles(0, 5), LATE)
    with open_store(tmp_path) as store:
        flush(store)
        assert promise(tmp_path, "5m") == {"5m": 1}


def test_files_of_a_timeframe_that_is_no_longer_configured_follow_their_minutes_and_no_new_one_is_begun(tmp_path):
    with open_store(tmp_path) as store:
        store.aggregate(("5m",))
        expect(store, since=-10, now=-10)
        store.commit([*candles(-10, -7), unsure(-7, -6), *candles(-6, 0)], LATE)
        flush(store)
        assert promise(tmp_path, "5m") == {"5m": 1}
    for timeframes in ((), ("15m",)):
        with open_store(tmp_path) as store:
            store.aggregate(timeframes)
            if not timeframes:
                store.commit([candle(-7), *candles(0, 10)], LATE)
            flush(store)
            assert len(rows(tmp_path, Series("okx", "BTC-USDT", "5m"))) == 2
            assert not (tmp_path / FIVE[1]).exists()
            assert is_clean(tmp_path)


# --- minutes and aggregates that are lost


def day_with_aggregates(root: Path) -> None:
    with open_store(root) as store:
        store.aggregate(("5m", "1h"))
        expect(store, since=-10, now=-10)
        store.commit([*candles(-10, 61), empty(61, 70)], LATE)
        flush(store)
    assert promise(root, "5m", "1h") == {"5m": 15, "1h": 1}


def test_minutes_that_are_lost_take_their_aggregates_with_them_and_bring_them_back(tmp_path):
    day_with_aggregates(tmp_path)
    spoil(tmp_path / AFTER)
    with open_store(tmp_path) as store:
        assert is_clean(tmp_path)  # it is known, and follows
        flush(store)
        assert promise(tmp_path, "5m", "1h") == {"5m": 2, "1h": 0}
        assert not (tmp_path / FIVE[1]).exists()
        assert is_clean(tmp_path)
        store.commit(candles(0, 30), LATE)
        flush(store)
        assert promise(tmp_path, "5m", "1h") == {"5m": 8, "1h": 0}
        store.commit(candles(30, 61), LATE)
        flush(store)
        assert promise(tmp_path, "5m", "1h") == {"5m": 15, "1h": 1}
    assert is_clean(tmp_path)


def test_minutes_found_to_be_lost_by_a_flush_take_their_aggregates_with_them(tmp_path):
    day_with_aggregates(tmp_path)
    with open_store(tmp_path) as store:
        store.commit([*candles(70, 71), unsure(71, 75)], LATE)
        flush(store)
        spoil(tmp_path / AFTER)
        store.commit([empty(71, 75)], LATE)  # completes a period, which makes the flush look
        flush(store)
        assert promise(tmp_path, "5m", "1h") == {"5m": 2, "1h": 0}
    assert is_clean(tmp_path)


@pytest.mark.parametrize("gone", [False, True])
@pytest.mark.parametrize("found_by", ["start", "flush"])
def test_an_aggregate_that_cannot_be_believed_is_set_aside_and_derived_again(tmp_path, caplog, found_by, gone):
    day_with_aggregates(tmp_path)

    def damage() -> None:
        if gone:
            (tmp_path / FIVE[1]).unlink()
        else:
            damaged.append(spoil(tmp_path / FIVE[1]))

    damaged: list[bytes] = []
    if found_by == "start":
        damage()
    with open_store(tmp_path) as store:
        if found_by == "flush":
            damage()
            store.commit(candles(70, 75), LATE)
            flush(store)
        assert is_clean(tmp_path)
        flush(store)
        assert promise(tmp_path, "5m", "1h") == {"5m": 16 if found_by == "flush" else 15, "1h": 1}
        assert ledger(tmp_path, "SELECT count(*) FROM gap") == [(0,)]
    aside = [path.read_bytes() for path in (tmp_path / "quarantine").glob("*")] if not gone else []
    assert aside == damaged
    assert "derived anew" in caplog.text
    assert is_clean(tmp_path)


def test_an_aggregate_that_the_ledger_does_not_know_is_set_aside(tmp_path):
    day_with_aggregates(tmp_path)
    shutil.copy(tmp_path / FIVE[1], tmp_path / FIVE[1].replace("-11", "-09"))
    (tmp_path / "okx/BTC-USDT/4h").mkdir()
    (tmp_path / HOUR.replace("1h", "4h")).write_bytes(b"what is this")
    with open_store(tmp_path) as store:
        for timeframe in store.timeframes_in(BTC):
            store.set_strays_aside(BTC, timeframe)
        flush(store)
        assert promise(tmp_path, "5m", "1h") == {"5m": 15, "1h": 1}
    assert len(LOCAL_DISK.names(tmp_path / "quarantine")) == 2


def test_after_a_lost_journal_only_aggregates_over_stored_minutes_are_left(tmp_path):
    """Which minutes were empty went with the journal."""
    day_with_aggregates(tmp_path)
    with open_store(tmp_path) as store:
        store.commit([*candles(70, 72), empty(72, 75)], LATE)
        flush(store)
    orphan = tmp_path / "kraken/ETH-USD/5m/2026-01-11.parquet"
    orphan.parent.mkdir(parents=True)
    shutil.copy(tmp_path / FIVE[1], orphan)
    (tmp_path / "journal.sqlite3").unlink()
    with open_store(tmp_path) as store:
        store.aggregate(("5m", "1h"))
        assert is_clean(tmp_path)
        assert not orphan.exists()
        flush(store)
        assert promise(tmp_path, "5m", "1h") == {"5m": 14, "1h": 1}
        store.expect([BTC], at(-10), at(80))
        store.commit([empty(61, 70), empty(72, 75)], LATE)
        flush(store)
        assert promise(tmp_path, "5m", "1h") == {"5m": 16, "1h": 1}
    assert is_clean(tmp_path)


def test_after_a_lost_journal_nothing_stands_on_what_is_not_known_though_nothing_is_configured(tmp_path):
    day_with_aggregates(tmp_path)
    (tmp_path / "journal.sqlite3").unlink()
    with open_store(tmp_path) as store:
        store.aggregate(())
        flush(store)
        assert promise(tmp_path, "5m", "1h") == {"5m": 14, "1h": 1}
    assert is_clean(tmp_path)


def test_the_audit_expects_what_the_collector_derives_and_knows_what_is_about_to_go(tmp_path):
    day_with_aggregates(tmp_path)
    journal = sqlite3.connect(tmp_path / "journal.sqlite3")
    with journal:
        journal.execute("UPDATE day_file SET pending = 'absent' WHERE path = ?", (FIVE[1],))
        journal.execute("INSERT INTO underived (series_id, since_ms, until_ms) VALUES (1, ?, ?)", (at(0), at(1440)))
    assert is_clean(tmp_path)
    (tmp_path / FIVE[1]).unlink()
    assert is_clean(tmp_path)
    with journal:
        journal.execute("DELETE FROM day_file WHERE path = ?", (FIVE[1],))
        journal.execute("DELETE FROM underived")
    journal.close()
    found = audit(tmp_path, now=lambda: LATE, running=lambda: False, pauses=()).violations
    # Twelve and the one that is half empty.
    assert [(one.kind, one.path, one.start_ms, one.end_ms) for one in found] == [
        ("missing_aggregate", FIVE[1], at(0), at(65)),
    ]


def test_an_aggregate_without_any_minutes_is_set_aside_when_the_journal_is_lost(tmp_path):
    day_with_aggregates(tmp_path)
    shutil.rmtree(tmp_path / "okx/BTC-USDT/1m")
    (tmp_path / "journal.sqlite3").unlink()
    with open_store(tmp_path):
        assert ledger(tmp_path, "SELECT count(*) FROM day_file") == [(0,)]
    assert len(LOCAL_DISK.names(tmp_path / "quarantine")) == 3


# --- disks that fail


@pytest.mark.parametrize("call", ["write_new", "read", "replace", "sync_folder", "remove"])
def test_an_aggregate_that_cannot_be_written_keeps_no_minute_waiting_and_follows_later(tmp_path, call):
    with open_store(tmp_path, disk := Refusing("5m")) as store:
        store.aggregate(("5m", "30m"))
        expect(store, since=0, now=0)
        store.commit(candles(0, 15), LATE)
        flush(store)
        disk.calls = (call,)
        store.commit(candles(15, 30), LATE)
        flushed = flush(store)
        assert flushed.saved == {"okx": 15}
        assert "Input/output error" in flushed.error
        assert set(flushed.failed) <= {FIVE[1]}
        assert store.unsaved() == []
        assert is_clean(tmp_path)
        disk.calls = ()
        if call != "remove":  # then only the temporary file is left behind
            assert store.underived() == [DayFile(BTC, at(0))]
        assert flush(store).error is None
        assert promise(tmp_path, "5m", "30m") == {"5m": 6, "30m": 1}
    with open_store(tmp_path):
        assert LOCAL_DISK.names(tmp_path / ".tmp") == []


def test_whichever_call_fails_the_next_flush_completes(quick):
    with open_store(quick / "before") as store:
        store.aggregate(("5m",))
        expect(store, since=-5, now=-5)
        store.commit([*candles(-5, 3)], LATE)
        flush(store)
        store.commit([empty(3, 5), *candles(5, 8)], LATE)
    spoil(quick / "before" / BEFORE)

    def work(root: Path, which: int) -> list[str]:
        """A flush that completes one aggregate and removes another, with a failure; and one that completes one."""
        shutil.copytree(quick / "before", root)
        with open_store(root, disk := Failing(number=errno.EIO)) as store:
            disk.calls.clear()
            disk.when = {which}
            flush(store)
            store.commit(candles(8, 10), LATE)
            flush(store)
            calls = [*disk.calls]
            assert flush(store).error is None
            assert promise(root, "5m") == {"5m": 2}
        shutil.rmtree(root)
        return calls

    calls = work(quick / "all", 0)
    assert calls.count("replace") == 4
    for which in range(1, len(calls) + 1):
        work(quick / str(which), which)


def test_a_plain_file_in_the_place_of_an_aggregates_folder_keeps_only_that_waiting(tmp_path):
    with open_store(tmp_path) as store:
        store.aggregate(("5m", "15m"))
        expect(store, since=0, now=0)
        place = tmp_path / "okx/BTC-USDT/5m"
        place.parent.mkdir(parents=True)
        place.write_text("in the way")
        store.commit(candles(0, 15), LATE)
        flushed = flush(store)
        assert (flushed.saved, flushed.failed) == ({"okx": 15}, [FIVE[1]])
        assert len(rows(tmp_path, Series("okx", "BTC-USDT", "15m"))) == 1
        place.unlink()
        flush(store)
        assert promise(tmp_path, "5m", "15m") == {"5m": 3, "15m": 1}


def test_a_folder_in_the_place_of_an_aggregate_is_set_aside_and_the_next_flush_writes_it(tmp_path, caplog):
    with open_store(tmp_path) as store:
        store.aggregate(("5m", "15m"))
        expect(store, since=0, now=0)
        (tmp_path / FIVE[1]).mkdir(parents=True)
        store.commit(candles(0, 15), LATE)
        flushed = flush(store)
        assert (flushed.saved, flushed.error) == ({"okx": 15}, None)
        assert "a folder lies in the place of the file" in caplog.text
        assert store.underived() == [DayFile(BTC, at(0))]
        flush(store)
        assert promise(tmp_path, "5m", "15m") == {"5m": 3, "15m": 1}
        assert store.underived() == []


@pytest.mark.parametrize("exclusive", [False, True])
def test_an_aggregate_that_another_program_holds_open_keeps_only_itself_waiting(tmp_path, exclusive):
    day_with_aggregates(tmp_path)
    with open_store(tmp_path, disk := HeldOpen()) as store:
        disk.held, disk.exclusive = (FIVE[1],), exclusive
        store.commit(candles(70, 75), LATE)
        flushed = flush(store)
        assert (flushed.saved, flushed.held, flushed.error) == ({"okx": 5}, [FIVE[1]], None)
        assert store.underived() == [DayFile(BTC, at(0))]
        disk.held = ()
        flush(store)
        assert promise(tmp_path, "5m", "1h") == {"5m": 16, "1h": 1}


def test_a_flush_ends_when_it_has_written_files_enough_and_says_what_is_left(tmp_path):
    """A day may have six files: a group is bounded by files, not by days."""
    with open_store(tmp_path) as store:
        some = [Series("okx", f"C{number}-USDT") for number in range(FILES_AT_ONCE)]
        store.aggregate(("5m", "15m"))
        store.expect(some, at(0), at(0))
        for series in some:
            store.commit(candles(0, 15, series), LATE)
        files = store.unsaved()
        assert len(files) == FILES_AT_ONCE
        flushed = store.flush(files)
        assert flushed.rest == files[22:]  # of three files each
        assert flushed.saved == {"okx": 22 * 15}
        assert store.unsaved() == flushed.rest


# --- power cuts


def a_life(disk: PowerCut, acknowledged: list[Candle]) -> None:
    """An aggregate begun; completed by an empty minute; another minute lost, so that one goes; and brought back."""
    root = disk.root
    with open_store(root, disk) as store:
        store.aggregate(("5m",))
        expect(store, since=-2, now=-2)
        store.commit([unsure(-2, 0), *candles(0, 5), *candles(5, 8)], LATE)
        flush(store)
        store.commit([empty(8, 10)], LATE)
        flush(store)
    disk.watch()


def a_loss(disk: PowerCut, acknowledged: list[Candle]) -> None:
    """All minutes are lost: their aggregates go. Then they come back."""
    with open_store(disk.root, disk) as store:
        flush(store)
        store.commit(candles(0, 8), LATE)
        flush(store)
    disk.watch()


def finish(cut: Cut, root: Path) -> dict[str, int]:
    """Open what a power cut left, flush once, and hold it against the promise."""
    disk = after(cut, root)
    with open_store(root, disk) as store:
        promised = flush(store)
        if promised.error or store.waiting():
            raise Wrong(f"the flush does not finish: {promised}")
        if disk.names(root / ".tmp") or disk.names(root / "quarantine"):
            raise Wrong("a leftover")
        counts = promise(root, "5m", disk=disk)
    shutil.rmtree(root)
    return counts


def test_whatever_a_power_cut_leaves_aggregates_follow_from_the_minutes(quick):
    (quick / "work").mkdir()
    found = sorted(cuts(quick / "work", PowerCut(quick / "work"), a_life), key=repr)
    assert len(found) > 60
    counts = {finish(cut, quick / str(number))["5m"] for number, cut in enumerate(found)}
    assert counts == {0, 1, 2}


@pytest.mark.slow
def test_whatever_a_power_cut_leaves_of_a_removal_it_is_done(quick, caplog):
    """The minutes' file is damaged before; from there on every instant of the loss and of the repair."""
    (work := quick / "work").mkdir()
    disk = PowerCut(work)
    a_life(disk, [])
    name = AFTER
    content = bytearray(disk.read(work / name))
    content[len(content) // 2] ^= 1
    disk.durable[name] = attrs.evolve(disk.durable[name], content=bytes(content))
    found = sorted(cuts(work, disk, a_loss), key=repr)
    assert len(found) > 40
    seen = set()
    for number, cut in enumerate(found):
        root = quick / str(number)
        restored = after(cut, root)
        with open_store(root, restored) as store:
            flush(store)
            assert store.waiting() == []
            assert restored.names(root / ".tmp") == []
            assert not any("5m" in name for name in restored.names(root / "quarantine"))
            seen.add(promise(root, "5m", disk=restored)["5m"])
        shutil.rmtree(root)
    assert seen == {0, 2}
    assert "the file is missing" not in caplog.text.replace(f"{AFTER}: the file is missing", "")


class Forgetful(LocalDisk):
    """Does not do what it is told to do with aggregates, and says nothing."""

    def replace(self, source, target):
        if "5m" not in target.parts:
            super().replace(source, target)


def test_the_promise_finds_an_aggregate_that_was_not_replaced(tmp_path):
    """A negative control of the checks here."""
    day_with_aggregates(tmp_path)
    with open_store(tmp_path, Forgetful()) as store:
        store.commit(candles(70, 75), LATE)
        flush(store)
        with pytest.raises(Wrong):
            promise(tmp_path, "5m", "1h")


def test_a_crash_between_minutes_and_their_aggregates_leaves_the_day_noted(tmp_path):
    """The minutes are in place and settled by the next start; of the aggregates nothing had been written."""
    day_with_aggregates(tmp_path)
    with open_store(tmp_path, disk := Failing()) as store:
        store.commit(candles(70, 75), LATE)
        ahead = [*disk.calls]
        flush(store)
        steps = disk.calls[len(ahead) :]
    shutil.rmtree(tmp_path)
    day_with_aggregates(tmp_path)
    first = steps.index("replace") + 2
    with open_store(tmp_path, disk := Failing(dead=True)) as store:
        store.commit(candles(70, 75), LATE)
        disk.when = {len(disk.calls) + first}
        flush(store)
        assert len(rows_of(tmp_path, AFTER)) == 66
    with open_store(tmp_path) as store:
        assert store.unsaved() == []
        assert store.underived() == [DayFile(BTC, at(0))]
        assert is_clean(tmp_path)
        flush(store)
        assert promise(tmp_path, "5m", "1h") == {"5m": 16, "1h": 1}


def rows_of(root: Path, path: str) -> list[Millis]:
    content = (root / path).read_bytes()
    return dayfiles.times_in(dayfiles.read(content, dayfiles.day_file(path, BTC)))


# --- a long life


@pytest.mark.parametrize("seed", range(3))
def test_in_a_long_random_life_aggregates_are_what_the_minutes_are_after_every_flush(quick, seed):
    chance = random.Random(seed)
    root, mark = quick / "data", -1450
    with open_store(root) as store:
        store.aggregate(("5m", "1h", "1d"))
        expect(store, since=mark, now=mark)
    for _ in range(14):
        with open_store(root) as store:
            if chance.random() < 0.3:
                store.aggregate(chance.choice([("5m", "1h", "1d"), ("5m", "15m", "1h", "1d"), ("5m", "1h", "1d")]))
            for _ in range(chance.randrange(4)):
                length = chance.choice([1, 1, 2, 5, 60, 300])
                since, mark = mark, mark + length
                kind = chance.choice(["candles", "candles", "candles", "empty", "unsure"])
                store.commit(_verdicts(kind, since, mark, chance), LATE)
                for low, high in _some_gaps(root, chance):
                    store.commit(_verdicts(chance.choice(["candles", "empty"]), low, high, chance), LATE)
                if chance.random() < 0.7:
                    assert flush(store).error is None
                    promise(root, "5m", "1h", "1d")
            assert is_clean(root)
        paths = sorted((root / "okx").rglob("*.parquet"))
        if paths and chance.random() < 0.4:
            spoil(chance.choice(paths))
    with open_store(root) as store:
        flush(store)
        promise(root, "5m", "1h", "1d")


def _verdicts(kind: str, since: int, until: int, chance: random.Random) -> list:
    if kind == "empty":
        return [empty(since, until)]
    if kind == "unsure":
        return [unsure(since, until)]
    return [
        candle(
            minute,
            100.0 + chance.random(),
            volume=chance.random(),
            quote_volume=chance.choice([None, *[chance.random()] * 50]),
        )
        for minute in range(since, until)
    ]


def _some_gaps(root: Path, chance: random.Random) -> list[tuple[int, int]]:
    gaps = ledger(root, "SELECT since_ms, until_ms FROM gap")
    some = chance.sample(gaps, min(len(gaps), chance.randrange(3)))
    return [((since - MIDNIGHT) // MINUTE, (until - MIDNIGHT) // MINUTE) for since, until in some]


# --- older directories


def test_a_directory_from_before_aggregates_is_derived_whole(tmp_path):
    with open_store(tmp_path) as store:
        expect(store, since=0, now=0)
        store.commit([*candles(0, 4), empty(4, 5)], LATE)
        flush(store)
    bring_down(tmp_path / "journal.sqlite3", "1")
    assert is_clean(tmp_path)
    with open_store(tmp_path) as store:
        store.aggregate(("5m",))
        flush(store)
        assert promise(tmp_path, "5m") == {"5m": 1}
