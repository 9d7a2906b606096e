"""The store: nothing accepted is lost, whatever fails, lies, or loses its power, at whatever instant.

Three of ``disks`` do what real ones do only once a year: ``Failing`` (an error at the nth call), ``PowerCut`` (knows
what a cut at any instant may leave behind), ``HeldOpen`` (Windows). And real processes are killed.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import attrs
import pyarrow.parquet as pq
import pytest
from directories import BTC, ETH, MIDNIGHT, at
from disks import Failing, HeldOpen, PowerCut, Refusing, after, cuts
from stores import AFTER, BEFORE, LATE, Lost, candle, candles, check, expect, flush, ledger, on_disk, spoil

from trio_candles.candles.model import MINUTE, Candle, Empty, Millis, Page, Reason, Series, Source, Unsure
from trio_candles.candles.validation import Rule, broken_rule
from trio_candles.store import dayfiles
from trio_candles.store.dayfiles import DayFile
from trio_candles.store.disk import LOCAL_DISK, LocalDisk
from trio_candles.store.journal import Journal
from trio_candles.store.lock import Locked
from trio_candles.store.opening import prepare
from trio_candles.store.schema import IDENTITY, digest_of, identity_content, identity_in
from trio_candles.store.store import Store, StoreUnavailable, WrongDirectory, open_store


def gaps(root: Path) -> list[tuple]:
    return [
        ((since - MIDNIGHT) // MINUTE, (until - MIDNIGHT) // MINUTE, reason)
        for since, until, reason in ledger(
            root, "SELECT since_ms, until_ms, reason FROM gap ORDER BY series_id, since_ms"
        )
    ]


# --- flushing


def test_a_flush_puts_each_day_into_its_file_and_lets_go_of_the_journals_rows(tmp_path):
    with open_store(tmp_path) as store:
        expect(store, BTC, ETH)
        store.commit([*candles(-3, 3), *candles(-3, 1, ETH)], LATE)
        assert [file.path for file in store.waiting()] == [
            BEFORE, AFTER, "kraken/ETH-USD/1m/2026-01-10.parquet", "kraken/ETH-USD/1m/2026-01-11.parquet",
        ]  # fmt: skip
        assert flush(store).saved == {"okx": 6, "kraken": 4}
        assert store.waiting() == []
        assert on_disk(tmp_path) == {
            BEFORE: [-3, -2, -1],
            AFTER: [0, 1, 2],
            "kraken/ETH-USD/1m/2026-01-10.parquet": [-3, -2, -1],
            "kraken/ETH-USD/1m/2026-01-11.parquet": [0],
        }
        check_at_rest = {path.name for path in tmp_path.iterdir()}
    assert check_at_rest - {path.name for path in tmp_path.iterdir()} == {"journal.sqlite3-wal", "journal.sqlite3-shm"}
    check(tmp_path, [*candles(-3, 3), *candles(-3, 1, ETH)])


def test_later_candles_are_merged_into_the_file_that_is_there(tmp_path):
    with open_store(tmp_path) as store:
        expect(store, since=0, now=0)
        store.commit([candle(0), Unsure(BTC, at(1), at(3), Reason.UNPROVEN), candle(3)], LATE)
        flush(store)
        store.commit([candle(2), candle(4), candle(1)], LATE)
        assert flush(store).saved == {"okx": 3}
        assert on_disk(tmp_path) == {AFTER: [0, 1, 2, 3, 4]}
        table = pq.read_table(str(tmp_path / AFTER), use_threads=False)
        assert table.column("open_time_ms").to_pylist() == [at(minute) for minute in range(5)]


def test_flushing_what_does_not_wait_writes_nothing(tmp_path):
    with open_store(tmp_path) as store:
        expect(store, since=0, now=0)
        store.commit(candles(0, 3), LATE)
        files = store.waiting()
        store.flush(files)
        before = (tmp_path / AFTER).stat()
        assert store.flush([*files, DayFile(BTC, at(5 * 1440))]).saved == {}
        assert (tmp_path / AFTER).stat() == before
        assert on_disk(tmp_path) == {AFTER: [0, 1, 2]}


def test_a_flush_takes_as_many_files_as_it_is_given(tmp_path):
    """The writer asks for FILES_AT_ONCE at a time; what was not asked for stays."""
    with open_store(tmp_path) as store:
        expect(store, since=0, now=0)
        store.commit([candle(0)], LATE)
        for day in range(1, 6):
            store.commit([Empty(BTC, at((day - 1) * 1440 + 1), at(day * 1440), "x"), candle(day * 1440)], at(9999))
        files = store.waiting()
        assert len(files) == 6
        assert store.flush(files[:4]).saved == {"okx": 4}
        assert store.waiting() == files[4:]
        assert store.flush(files[4:]).saved == {"okx": 2}
        assert len(on_disk(tmp_path)) == 6


def test_a_duplicate_of_a_flushed_candle_is_recognised_and_a_conflict_leaves_the_file_alone(tmp_path):
    with open_store(tmp_path) as store:
        expect(store, since=0, now=0)
        store.commit(candles(0, 3), LATE)
        flush(store)
        content = (tmp_path / AFTER).read_bytes()
        judged = store.commit([*candles(0, 3), candle(1, 7.0)], LATE)
        assert [rule for _, rule in judged.rejected] == [Rule.DUPLICATE] * 3 + [Rule.CONFLICT]
        assert judged.conflicts == [(candle(1, 101.0), candle(1, 7.0))]
        assert store.waiting() == []
        assert (tmp_path / AFTER).read_bytes() == content


def test_a_directory_remembers_what_it_is(tmp_path):
    with open_store(tmp_path / "a" / "b") as store:
        store.claim("real", seed=None, latest_ms=5)
        store.stopped(Millis(7))
    with open_store(tmp_path / "a" / "b") as store:
        assert (store.journal.meta()["stopped_at_ms"], store.journal.meta()["latest_ms"]) == ("7", "7")
        with pytest.raises(WrongDirectory, match="holds real candles"):
            store.claim("simulated", seed=1)
        store.claim("real", latest_ms=9)
        assert "stopped_at_ms" not in store.journal.meta()


def test_one_store_per_directory(tmp_path):
    with open_store(tmp_path), pytest.raises(Locked), open_store(tmp_path):
        pass


def test_a_journal_of_another_version_is_refused_and_left_as_it_is(tmp_path):
    with open_store(tmp_path):
        pass
    database = sqlite3.connect(tmp_path / "journal.sqlite3", isolation_level=None)
    database.execute("UPDATE meta SET value = '99' WHERE key = 'format'")
    database.close()
    with pytest.raises(WrongDirectory, match="format is 99"), open_store(tmp_path):
        pass
    assert not (tmp_path / "quarantine").exists()


def test_a_reader_that_stays_does_not_keep_the_store_from_stopping(tmp_path, caplog):
    with open_store(tmp_path) as store:
        expect(store, since=0, now=0)
        store.commit([candle(0)], LATE)
        reader = sqlite3.connect(tmp_path / "journal.sqlite3")
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM candle").fetchone() == (1,)
    assert "could not be put to rest" in caplog.text
    reader.close()
    check(tmp_path, [candle(0)])
    assert not (tmp_path / "journal.sqlite3-wal").exists()


# --- a disk that fails


def start(root: Path, disk) -> list[Candle]:
    """A file of yesterday, and candles that wait for it and for today's first; what was acknowledged."""
    some = [*candles(-3, 0), *candles(0, 2)]
    with open_store(root) as store:
        expect(store)
        store.commit(some[:2], LATE)
        flush(store)
        store.commit(some[2:], LATE)
    return some


def calls_of_a_flush(root: Path) -> list[str]:
    """The calls that the flush of :func:`start`'s candles makes, in order."""
    start(root, None)
    with open_store(root, disk := Failing()) as store:
        disk.calls.clear()
        assert flush(store).error is None
    return disk.calls


def test_what_a_flush_asks_of_the_disk_in_this_order(tmp_path):
    file = ["remove", "write_new", "read"]
    steps = ["make_folder", "sync_folder"] * 3
    assert calls_of_a_flush(tmp_path) == [
        "read", *file, "read", *steps, *file, "replace", "replace", "sync_folder", "remove", "remove",
    ]  # fmt: skip


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_whichever_call_fails_the_systems_own_words_are_told_nothing_is_lost_and_the_next_flush_writes(quick, number):
    calls = calls_of_a_flush(quick / "all")
    for which in range(1, len(calls) + 1):
        root = quick / str(which)
        some = start(root, None)
        with open_store(root, disk := Failing(number=number)) as store:
            disk.when = {len(disk.calls) + which}
            flushed = flush(store)
            assert os.strerror(number) in flushed.error
            store.commit(candles(2, 4), LATE)
            assert flush(store).error is None
            assert store.waiting() == []
            assert disk.names(root / ".tmp") == []
            assert on_disk(root) == {BEFORE: [-3, -2, -1], AFTER: [0, 1, 2, 3]}
        check(root, [*some, *candles(2, 4)])


@pytest.mark.slow
def test_a_crash_in_the_flush_after_one_that_failed_loses_nothing(quick):
    """The ledger has room for two digests, and after a flush that failed half way the file has the second one."""
    calls = calls_of_a_flush(quick / "all")
    replaced = calls.index("replace") + 1
    failures = [replaced + 1, replaced + 2]  # the other file's replacement, and the sync of both
    for first, second in itertools.product(failures, range(1, len(calls) + 6)):
        root = quick / f"{first} {second}"
        some = start(root, None)
        with open_store(root, disk := Failing()) as store:
            disk.when = {len(disk.calls) + first}
            assert flush(store).error
            more = [*candles(2, 4)]
            store.commit(more, LATE)
            disk.when, disk.dead = {len(disk.calls) + second}, True
            flush(store)
        check(root, [*some, *more])


def test_saved_rows_are_counted_once_whatever_fails(quick):
    for which in range(1, 20):
        root = quick / str(which)
        start(root, None)
        with open_store(root, disk := Failing()) as store:
            disk.when = {len(disk.calls) + which}
            assert sum(flush(store).saved.get("okx", 0) for _ in range(3)) == 3


def test_a_disk_that_says_it_has_written_what_it_has_not_is_caught_and_nothing_is_replaced(tmp_path):
    some = start(tmp_path, None)

    class Short(LocalDisk):
        def write_new(self, path, content):
            super().write_new(path, content[7:])

    with open_store(tmp_path, Short()) as store:
        assert "what was read back is not what was written" in flush(store).error
        assert LOCAL_DISK.names(tmp_path / ".tmp") == []
    check(tmp_path, some)


class Watched(Journal):
    """A journal whose database a test may set limits to."""

    def __init__(self, database, stored_elsewhere) -> None:
        super().__init__(database, stored_elsewhere)
        self.database = database


def test_a_full_database_accepts_nothing_says_so_and_works_again(tmp_path):
    (tmp_path / ".tmp").mkdir()
    journal = Watched.open(tmp_path / "journal.sqlite3", lambda series, minute: None)
    store = Store(tmp_path, journal, LOCAL_DISK)
    expect(store, since=0, now=0)
    store.commit(candles(0, 3), LATE)
    (pages,) = journal.database.execute("PRAGMA page_count").fetchone()
    journal.database.execute(f"PRAGMA max_page_count = {pages}")
    before = list(journal.database.iterdump())
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="database or disk is full"):
            store.commit(candles(3, 2000), at(2000))
        assert list(journal.database.iterdump()) == before
        assert journal.spans() == {BTC: (at(0), at(3))}
    assert flush(store).saved == {"okx": 3}  # what is in the journal can be written meanwhile
    journal.database.execute("PRAGMA max_page_count = 100000")
    assert store.commit(candles(3, 2000), at(2000)).accepted == 1997
    journal.close()


LIMITED = """
import resource, signal, sys
sys.path[:0] = sys.argv[2:]
from pathlib import Path
from directories import at
from stores import candles, expect, flush
from trio_candles.store.store import StoreUnavailable, open_store
root = Path(sys.argv[1])
with open_store(root) as store:
    expect(store, since=0, now=0)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    accepted = 0
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (240_000, hard))
    try:
        while True:
            accepted += store.commit(candles(accepted, accepted + 100), at(9999)).accepted
    except StoreUnavailable as error:
        print(error)
    stuck = flush(store).error
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    store.commit(candles(accepted, accepted + 100), at(9999))
    print(accepted, flush(store).error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs RLIMIT_FSIZE")
def test_a_journal_that_may_not_grow_accepts_nothing_and_works_again(tmp_path):
    here = Path(__file__).parent
    command = [sys.executable, "-c", LIMITED, str(tmp_path), *map(str, (here.parent, here.parents[1]))]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.splitlines()
    assert "disk I/O error" in said[0] or "disk is full" in said[0]
    accepted = int(said[1].split()[0])
    assert said[1].endswith("None")
    assert accepted >= 100
    check(tmp_path, candles(0, accepted + 100))


def test_a_statement_that_makes_no_sense_is_a_bug_and_no_full_disk(tmp_path):
    with open_store(tmp_path) as store:
        expect(store, since=0, now=0)
        with sqlite3.connect(tmp_path / "journal.sqlite3", isolation_level=None) as other:
            other.execute("DROP TABLE gap")
        other.close()
        with pytest.raises(sqlite3.OperationalError, match="no such table"):
            store.commit([Unsure(BTC, at(0), at(1), Reason.UNPROVEN)], LATE)


# --- one file that cannot be written


KRAKEN = "kraken/ETH-USD/1m/2026-01-11.parquet"


@pytest.mark.parametrize("call", ["write_new", "read", "replace", "sync_folder"])
def test_a_file_that_cannot_be_written_does_not_keep_the_others_of_its_group_waiting(tmp_path, call):
    with open_store(tmp_path, disk := Refusing("ETH-USD")) as store:
        expect(store, BTC, ETH, since=0, now=0)
        store.commit([*candles(0, 3), *candles(0, 2, ETH)], LATE)
        disk.calls = (call,)
        for saved in ({"okx": 3}, {}):
            flushed = flush(store)
            assert flushed.saved == saved
            assert "Input/output error" in flushed.error
            assert "ETH-USD" in flushed.error
            assert (flushed.failed, flushed.held) == ([KRAKEN], [])
            assert [file.path for file in store.waiting()] == [KRAKEN]
        assert on_disk(tmp_path)[AFTER] == [0, 1, 2]
        disk.calls = ()
        flushed = flush(store)
        assert (flushed.saved, flushed.error, flushed.failed) == ({"kraken": 2}, None, [])
    check(tmp_path, [*candles(0, 3), *candles(0, 2, ETH)])


def test_a_temporary_file_that_could_not_be_removed_keeps_its_day_waiting_only_until_it_can_be(tmp_path):
    with open_store(tmp_path, disk := Refusing("ETH-USD")) as store:
        expect(store, BTC, ETH, since=0, now=0)
        store.commit([*candles(0, 3), *candles(0, 2, ETH)], LATE)
        (tmp_path / ".tmp" / KRAKEN.replace("/", "_")).write_bytes(b"left behind")
        disk.calls = ("remove",)
        flushed = flush(store)
        assert (flushed.saved, flushed.failed) == ({"okx": 3}, [KRAKEN])
        disk.calls = ()
        assert flush(store).saved == {"kraken": 2}
    check(tmp_path, [*candles(0, 3), *candles(0, 2, ETH)])


@pytest.mark.parametrize("part", ["kraken", "kraken/ETH-USD", "kraken/ETH-USD/1m"])
def test_a_plain_file_where_a_folder_belongs_keeps_only_its_own_series_waiting_also_over_a_restart(tmp_path, part):
    with open_store(tmp_path) as store:
        expect(store, BTC, ETH, since=0, now=0)
        store.commit([*candles(0, 1), *candles(0, 1, ETH)], LATE)
        assert flush(store).error is None
        shutil.rmtree(tmp_path / part)
        (tmp_path / part).write_text("in the way")
        store.commit([*candles(1, 2), *candles(1, 2, ETH)], LATE)
        flushed = flush(store)
        assert (flushed.saved, flushed.failed) == ({"okx": 1}, [KRAKEN])
        assert str(tmp_path / part) in flushed.error
    with open_store(tmp_path) as store:
        assert flush(store).failed == [KRAKEN]
        (tmp_path / part).unlink()
        assert flush(store).saved == {"kraken": 1}
        assert on_disk(tmp_path) == {AFTER: [0, 1], KRAKEN: [1]}


def test_a_folder_where_a_day_file_belongs_is_set_aside_by_a_flush_and_keeps_nothing_waiting(tmp_path, caplog):
    with open_store(tmp_path) as store:
        expect(store)
        (tmp_path / BEFORE).mkdir(parents=True)
        store.commit(candles(-3, 2), LATE)
        assert flush(store).saved == {"okx": 5}
    assert "a folder lies in the place of the file" in caplog.text
    (tmp_path / "quarantine" / f"{BEFORE.replace('/', '_')}.0").rmdir()
    check(tmp_path, candles(-3, 2))


@pytest.mark.parametrize("again", ["the next flush", "the next start"])
def test_what_rest_replaces_after_a_flush_that_failed_half_way_comes_into_its_file(tmp_path, again):
    def told(minute, price, asked):
        one = candle(minute, price, source=Source.REST, ingest_time=Millis(asked))
        return Page(BTC, at(minute), at(minute + 1), (one,), ())

    with open_store(tmp_path, disk := Refusing("BTC-USDT")) as store:
        expect(store, since=0, now=0)
        store.commit(candles(0, 1), LATE)
        assert flush(store).saved == {"okx": 1}
        store.commit(candles(1, 4), LATE)
        disk.calls = ("sync_folder",)
        assert flush(store).error
        assert on_disk(tmp_path)[AFTER] == [0, 1, 2, 3]  # the file is in its place, and nobody knows how firmly
        disk.calls = ()
        for asked in (LATE, LATE + MINUTE):
            judged = store.commit([told(1, 7.0, asked)], Millis(asked))
        assert len(judged.replaced) == 1
        if again == "the next flush":
            assert flush(store).saved == {"okx": 2}
    with open_store(tmp_path) as store:
        assert flush(store).error is None
        content = LOCAL_DISK.read(tmp_path / AFTER)
        table = dayfiles.read(content, dayfiles.day_file(AFTER, BTC))
        assert table.column("open").to_pylist()[1] == 7.0
        assert store.waiting() == []


def test_the_days_that_have_waited_longest_come_first_however_old_their_minutes_are(tmp_path):
    with open_store(tmp_path) as store:
        assert (store.unsaved(), store.journal.waiting_count()) == ([], (0, 0))
        expect(store, BTC, ETH)
        yesterday, today = DayFile(BTC, at(-1440)), DayFile(BTC, at(0))
        store.commit([*candles(-3, 2), *candles(-3, -1, ETH)], LATE)
        assert store.unsaved() == [yesterday, today, DayFile(ETH, at(-1440))]
        assert store.journal.waiting_count() == (7, 3)
        store.flush([yesterday, today])
        store.commit([*candles(2, 3), *candles(-1, 1, ETH)], LATE)
        assert store.unsaved() == [DayFile(ETH, at(-1440)), today, DayFile(ETH, at(0))]
        assert store.unsaved(1) == [DayFile(ETH, at(-1440))]
        assert store.journal.waiting_count() == (5, 3)
    with open_store(tmp_path) as store:  # a start does not forget who waits
        assert store.unsaved(2) == [DayFile(ETH, at(-1440)), today]


def test_a_full_disk_is_told_once_and_every_file_waits(tmp_path):
    with open_store(tmp_path, disk := Refusing("")) as store:
        expect(store, BTC, ETH, since=0, now=0)
        store.commit([*candles(0, 3), *candles(0, 2, ETH)], LATE)
        disk.calls, disk.number = ("write_new",), errno.ENOSPC
        flushed = flush(store)
        assert (flushed.saved, flushed.failed) == ({}, [AFTER, KRAKEN])
        assert flushed.error.count(os.strerror(errno.ENOSPC)) == 1
        assert len(store.waiting()) == 2
    check(tmp_path, [*candles(0, 3), *candles(0, 2, ETH)])


def test_a_journal_that_fails_ends_the_flush_for_the_whole_group(tmp_path):
    (tmp_path / ".tmp").mkdir()
    journal = Watched.open(tmp_path / "journal.sqlite3", lambda series, minute: None)
    store = Store(tmp_path, journal, LOCAL_DISK)
    expect(store, BTC, ETH, since=0, now=0)
    store.commit([*candles(0, 3), *candles(0, 2, ETH)], LATE)
    journal.database.execute("PRAGMA query_only = ON")  # a journal on a file system that has gone read-only
    flushed = flush(store)
    assert "readonly" in flushed.error
    assert (flushed.saved, flushed.failed) == ({}, [AFTER, KRAKEN])
    assert LOCAL_DISK.names(tmp_path / ".tmp") == []
    journal.database.execute("PRAGMA query_only = OFF")
    assert flush(store).saved == {"okx": 3, "kraken": 2}
    journal.close()


# --- a start that is asked to stop


class Asked(Exception):
    """To stop."""


class AskedAtStep:
    """Goes on, but for the step of that number."""

    def __init__(self, number: int) -> None:
        self.left = number
        self.files = 0
        """How many day files' turn came."""

    def __call__(self, what: str = "", done: int = 0, of: int = 0) -> None:
        self.left -= 1
        if self.left == 0:
            raise Asked
        self.files += "files" in what


@pytest.mark.parametrize("lost", [False, True])
def test_a_start_that_is_asked_to_stop_does_so_before_the_next_day_file_and_the_next_one_does_it_all(tmp_path, lost):
    flushed_directory(tmp_path)
    if lost:
        (tmp_path / "journal.sqlite3").unlink()
    asked = 0
    for number in itertools.count(2):  # the first step is before anything is opened
        disk, step = Failing(), AskedAtStep(number)
        try:
            with open_store(tmp_path, disk, step):
                break
        except Asked:
            asked += 1
        assert disk.calls.count("read") == step.files
        assert sorted(path.name for path in tmp_path.glob("journal*")) == ["journal.sqlite3"]
        assert ledger(tmp_path, "PRAGMA journal_mode") == [("delete",)]
    assert asked >= 2
    check(tmp_path, [*candles(-3, 2), candle(4, 104.0)])


def reading(root: Path) -> sqlite3.Connection:
    """A reader in the middle of its transaction."""
    reader = sqlite3.connect(root / "journal.sqlite3", isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM meta").fetchall()
    return reader


def test_a_start_waits_for_a_reader_that_was_there_first_and_says_so_once(tmp_path, caplog):
    flushed_directory(tmp_path)
    reader, attempts = reading(tmp_path), []

    def go_on(*_: object) -> None:
        attempts.append(1)
        if len(attempts) == 3:
            reader.close()

    with open_store(tmp_path, go_on=go_on):
        assert len(attempts) >= 3
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "another program is reading the journal" in caplog.text
    assert "up to 30 s" in caplog.text
    check(tmp_path, [*candles(-3, 2), candle(4, 104.0)])


def test_a_start_that_waits_for_a_reader_can_be_stopped_and_has_touched_nothing(tmp_path):
    flushed_directory(tmp_path)
    with closing(reading(tmp_path)), pytest.raises(Asked), open_store(tmp_path, go_on=AskedAtStep(2)):
        pass
    assert ledger(tmp_path, "PRAGMA journal_mode") == [("delete",)]
    check(tmp_path, [*candles(-3, 2), candle(4, 104.0)])


def test_a_reader_that_stays_is_named_a_lock_in_the_end(tmp_path):
    flushed_directory(tmp_path)
    with (
        closing(reading(tmp_path)),
        closing(sqlite3.connect(tmp_path / "journal.sqlite3", isolation_level=None)) as database,
        pytest.raises(sqlite3.OperationalError, match="database is locked"),
    ):
        prepare(database, lambda *_: None, attempts=2)


# --- starting where it cannot


@pytest.mark.parametrize("below", ["", "a", "a/b"])
def test_a_plain_file_instead_of_a_directory_is_named_and_said_to_be_none(tmp_path, below):
    (tmp_path / "file").write_text("x")
    with pytest.raises(WrongDirectory) as caught, open_store(tmp_path / "file" / below):
        pass
    assert str(tmp_path / "file") in str(caught.value)
    assert "is no directory" in str(caught.value)
    assert (tmp_path / "file").read_text() == "x"


def test_whatever_fails_at_a_start_on_a_full_disk_the_directory_is_named(tmp_path):
    flushed_directory(tmp_path)
    (tmp_path / "journal.sqlite3").unlink()
    said = []
    for which in itertools.count(1):
        try:
            with open_store(tmp_path, Failing({which})) as store:
                store.claim("real", speed=1.0, pivot=float(which))
                break
        except StoreUnavailable as error:
            said.append(str(error))
    assert len(said) > 5
    assert all(str(tmp_path) in text and os.strerror(errno.ENOSPC) in text for text in said)


NO_ROOM = """
import resource, signal, sys
sys.path[:0] = sys.argv[2:]
from pathlib import Path
from trio_candles.store.store import StoreUnavailable, open_store
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
try:
    with open_store(Path(sys.argv[1])):
        pass
except StoreUnavailable as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs RLIMIT_FSIZE")
def test_a_journal_for_which_there_is_no_room_is_told_with_its_directory(tmp_path):
    here = Path(__file__).parent
    command = [
        sys.executable,
        "-B",
        "-c",
        NO_ROOM,
        str(tmp_path / "d"),
        *map(str, (here.parent, here.parents[1])),
    ]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    assert str(tmp_path / "d") in said
    assert "disk" in said


# --- what the directory is, beside the journal


def identity(root: Path) -> dict[str, object]:
    return json.loads((root / IDENTITY).read_text())


def claim(root: Path, kind: str = "simulated", disk=LOCAL_DISK, **more) -> None:
    with open_store(root, disk) as store:
        store.claim(kind, **({"seed": 7, "speed": 60.0, "pivot": 1.5, "latest_ms": 5} | more))


def test_a_claim_is_also_kept_beside_the_journal_and_written_only_when_it_changes(tmp_path):
    claim(tmp_path)
    assert identity(tmp_path) == {"kind": "simulated", "seed": 7, "speed": 60.0, "pivot": 1.5}
    before = (tmp_path / IDENTITY).stat()
    claim(tmp_path, latest_ms=9)
    assert (tmp_path / IDENTITY).stat() == before
    claim(tmp_path, pivot=2.5)
    assert identity(tmp_path)["pivot"] == 2.5
    assert LOCAL_DISK.names(tmp_path / ".tmp") == []


@pytest.mark.parametrize("loss", ["missing", "empty", "text", "half"])
@pytest.mark.parametrize("files", [True, False])
def test_a_lost_journal_does_not_make_the_directory_anybodys(tmp_path, loss, files):
    if files:
        flushed_directory(tmp_path, "simulated")
    else:
        claim(tmp_path)
    LOSSES[loss](tmp_path / "journal.sqlite3")
    with open_store(tmp_path) as store, pytest.raises(WrongDirectory, match="holds simulated candles"):
        store.claim("real", speed=1.0, pivot=0.0)
    with open_store(tmp_path) as store:
        assert identity(tmp_path)["kind"] == "simulated"
        assert "kind" not in store.journal.meta()
        store.claim("simulated", seed=7, speed=60.0, pivot=1.5)
        assert store.journal.meta()["kind"] == "simulated"


def test_the_journals_word_is_above_the_files(tmp_path):
    claim(tmp_path)
    (tmp_path / IDENTITY).write_bytes(identity_content("real", None, 1.0, 0.0))
    claim(tmp_path)
    assert identity(tmp_path)["kind"] == "simulated"


@pytest.mark.parametrize("content", [b"", b"no json", b"[]", b"{}", b'{"kind": 7}', b"\xff\xfe\x00"])
def test_an_identity_that_says_nothing_is_told_and_written_anew(tmp_path, content, caplog):
    claim(tmp_path)
    (tmp_path / IDENTITY).write_bytes(content)
    with open_store(tmp_path) as store, pytest.raises(WrongDirectory):
        store.claim("real")
    assert caplog.text == ""
    (tmp_path / "journal.sqlite3").unlink()
    claim(tmp_path)
    assert IDENTITY in caplog.text
    assert identity(tmp_path)["seed"] == 7


@pytest.mark.parametrize(
    "content",
    [
        b'{"kind": "real", "seed": "x"}', b'{"kind": "real", "seed": true}', b'{"kind": "real", "speed": []}',
        b'{"kind": "real", "pivot": NaN}', b'{"kind": "real", "seed": 1.5}',
    ],
)  # fmt: skip
def test_an_identity_of_the_wrong_types_says_nothing(content):
    with pytest.raises(ValueError, match=r"(seed|speed|pivot) is "):
        identity_in(content)


def test_an_identity_is_worded_as_the_journals_meta():
    assert identity_in(identity_content("simulated", 7, 60.0, 1_768_089_600.123)) == {
        "kind": "simulated", "seed": "7", "speed": "60.0", "pivot": "1768089600.123",
    }  # fmt: skip
    assert identity_in(identity_content("real", None, None, None)) == {"kind": "real"}


def test_whatever_a_power_cut_leaves_of_a_claim_it_is_the_old_one_or_the_new_one(quick):
    old, new = identity_content("simulated", 7, 60.0, 1.5), identity_content("simulated", 7, 60.0, 2.5)

    def claims(disk: PowerCut, acknowledged: list) -> None:
        for pivot in (1.5, 2.5):
            with open_store(disk.root, disk) as store:
                store.claim("simulated", seed=7, speed=60.0, pivot=pivot)
            acknowledged.append(pivot)

    (quick / "work").mkdir()
    found = cuts(quick / "work", PowerCut(quick / "work"), claims)
    left = {(len(cut.acknowledged), dict(cut.files).get(IDENTITY)) for cut in found}
    assert left == {(0, None), (0, old), (1, old), (1, new), (2, new)}


def test_a_claim_that_fails_leaves_the_old_identity_and_the_next_one_succeeds(quick):
    for which in itertools.count(1):
        claim(root := quick / str(which))
        with open_store(root, disk := Failing()) as store:
            disk.when = {len(disk.calls) + which}
            try:
                store.claim("simulated", seed=7, speed=60.0, pivot=2.5)
                break
            except StoreUnavailable:
                assert identity(root)["pivot"] in (1.5, 2.5)
                assert store.journal.meta()["pivot"] == "1.5"
            store.claim("simulated", seed=7, speed=60.0, pivot=2.5)
            assert identity(root)["pivot"] == 2.5
            assert LOCAL_DISK.names(root / ".tmp") == []
    assert which > 4


def test_a_rebuilt_journal_knows_how_late_it_was(tmp_path):
    flushed_directory(tmp_path, "simulated")
    (tmp_path / "journal.sqlite3").unlink()
    with open_store(tmp_path) as store:
        assert store.journal.meta()["latest_ms"] == str(at(5))


# --- the end of time


def test_times_up_to_the_year_9999_are_nothing_special(tmp_path):
    last = (253_402_300_800_000 - MIDNIGHT) // MINUTE  # 10000-01-01
    with open_store(tmp_path) as store:
        store.claim("simulated", seed=1, speed=1.0, pivot=0.0)
        store.expect([BTC], at(last - 5), at(last - 5))
        store.commit(candles(last - 5, last), at(last))
        assert flush(store).saved == {"okx": 5}
    path = tmp_path / "okx/BTC-USDT/1m/9999-12-31.parquet"
    assert path.exists()
    for lost in (False, True):
        if lost:
            (tmp_path / "journal.sqlite3").unlink()
        with open_store(tmp_path) as store:
            store.expect([BTC], at(last - 5), at(last))
            assert [rule for _, rule in store.commit([candle(last - 1, 99.0 + last)], at(last)).rejected] == [
                Rule.DUPLICATE
            ]
            assert path.exists()


# --- Windows: a file that somebody reads cannot be replaced


@pytest.mark.parametrize("exclusive", [False, True])
def test_the_rows_of_a_file_that_is_held_open_wait_in_the_journal_and_the_others_are_written(tmp_path, exclusive):
    some = start(tmp_path, None)
    with open_store(tmp_path, disk := HeldOpen()) as store:
        disk.held, disk.exclusive = (BEFORE,), exclusive
        for minute in (2, 3):
            flushed = flush(store)
            assert (flushed.held, flushed.error) == ([BEFORE], None)
            assert [file.path for file in store.waiting()] == [BEFORE]
            assert LOCAL_DISK.names(tmp_path / ".tmp") == []
            store.commit([candle(minute)], LATE)
            disk.held = (BEFORE,)
        disk.held = ()
        assert flush(store).held == []
        assert store.waiting() == []
    check(tmp_path, some)


def test_a_held_file_waits_over_a_restart(tmp_path):
    some = start(tmp_path, None)
    with open_store(tmp_path, HeldOpen(BEFORE)) as store:
        assert flush(store).held == [BEFORE]
    check(tmp_path, some)


class Denying(LocalDisk):
    """Windows while it lets nobody make, read or remove the temporary files of day files; *code* is its own number."""

    def __init__(self, what: str, code: int) -> None:
        super().__init__()
        self.what, self.code = what, code

    def _refuse(self, what: str, path: Path) -> None:
        if what == self.what and path.name.endswith(".parquet"):
            error = PermissionError(13, "Access is denied")
            error.winerror = self.code
            raise error

    def write_new(self, path, content):
        self._refuse("write", path)
        super().write_new(path, content)

    def read(self, path):
        self._refuse("read a day file" if ".tmp" not in path.parts else "read back", path)
        return super().read(path)

    def remove(self, path):
        self._refuse("remove", path)
        super().remove(path)


@pytest.mark.parametrize(
    ("what", "code"),
    [("write", 5), ("write", 32), ("read back", 5), ("read back", 32), ("remove", 5), ("read a day file", 5)],
)
def test_what_windows_denies_beside_the_place_of_a_day_file_is_an_error_and_no_file_held_open(tmp_path, what, code):
    some = start(tmp_path, None)
    with open_store(tmp_path, disk := Denying("", code)) as store:
        disk.what = what
        flushed = flush(store)
        assert flushed.held == []
        assert BEFORE in flushed.failed
        assert "Access is denied" in flushed.error
        disk.what = ""
        assert flush(store).error is None
    check(tmp_path, some)


def test_a_day_file_that_is_denied_to_its_replacement_is_held_open(tmp_path):
    """What Windows says of replacing a file that somebody reads is not a sharing violation."""

    class Denied(LocalDisk):
        def replace(self, source, target):
            error = PermissionError(13, "Access is denied")
            error.winerror = 5
            raise error

    some = start(tmp_path, None)
    with open_store(tmp_path, Denied()) as store:
        flushed = flush(store)
        assert (sorted(flushed.held), flushed.failed, flushed.error) == ([BEFORE, AFTER], [], None)
    check(tmp_path, some)


def test_a_folder_without_permission_is_an_error_and_not_a_held_file(tmp_path):
    class Forbidden(LocalDisk):
        def replace(self, source, target):
            raise PermissionError(13, "Permission denied")

    start(tmp_path, None)
    with open_store(tmp_path, Forbidden()) as store:
        flushed = flush(store)
    assert flushed.held == []
    assert "Permission denied" in flushed.error


# --- power cuts


def two_flushes(disk: PowerCut, acknowledged: list[Candle]) -> None:
    """A new file, then one that is there and another new one, in a folder that is new."""
    with open_store(disk.root, disk) as store:
        expect(store, since=-2, now=-2)
        for batch in (candles(-2, -1), candles(-1, 2)):
            store.commit(batch, LATE)
            acknowledged += batch
            disk.watch()
            assert flush(store).error is None


def three_flushes(disk: PowerCut, acknowledged: list[Candle]) -> None:
    """Two series, a day's end, and a candle that comes late into a file that is there."""
    with open_store(disk.root, disk) as store:
        expect(store, BTC, ETH, since=-2, now=-2)
        late = Unsure(BTC, at(-1), at(0), Reason.UNPROVEN)
        for batch in ([candle(-2), late, *candles(-2, 0, ETH)], candles(0, 1), candles(-1, 0)):
            store.commit(batch, LATE)
            acknowledged += [one for one in batch if isinstance(one, Candle)]
            disk.watch()
            assert flush(store).error is None


def bad_of(quick: Path, broken: str, work=two_flushes, enough: int = 3) -> tuple[int, list[str]]:
    """How many states a power cut may leave on a disk that is broken so, and what is wrong with the first bad ones."""
    (quick / "work").mkdir()
    found = cuts(quick / "work", PowerCut(quick / "work", broken=broken), work)
    bad = []
    for number, cut in enumerate(sorted(found, key=repr)):
        disk = after(cut, root := quick / str(number))
        try:
            check(root, list(cut.acknowledged), disk)
        except Lost as lost:
            bad.append(str(lost))
            if len(bad) == enough:
                break
    return len(found), bad


def test_whatever_a_power_cut_leaves_behind_nothing_is_lost(quick):
    states, bad = bad_of(quick, "", three_flushes)
    assert states > 100
    assert bad == []


@pytest.mark.parametrize("broken", ["file sync", "folder sync", "writing and reading"])
def test_the_enumeration_finds_what_each_precaution_is_for(quick, broken):
    """Without the fsync, without the folder's fsync, without reading back from a disk that lies: states are bad."""
    states, bad = bad_of(quick, broken)
    assert states > 20
    assert len(bad) == 3


@pytest.mark.slow
def test_a_power_cut_during_the_recovery_from_a_power_cut_loses_nothing(quick):
    chance = random.Random(1)
    (quick / "work").mkdir()
    first = sorted(cuts(quick / "work", PowerCut(quick / "work"), two_flushes), key=repr)
    for number, cut in enumerate(chance.sample(first, 12)):
        disk = after(cut, root := quick / f"first{number}")

        def recover(disk: PowerCut, acknowledged: list[Candle]) -> None:
            with open_store(disk.root, disk) as store:
                flush(store)

        second = sorted(cuts(root, disk, recover, cut.acknowledged), key=repr)
        for again, state in enumerate(chance.sample(second, min(10, len(second)))):
            disk = after(state, root := quick / f"second{number} {again}")
            check(root, list(cut.acknowledged), disk)


class Killed(BaseException):
    """Ends a process that a test plays, leaving the disk as it is."""


@pytest.mark.slow
def test_a_power_cut_after_a_kill_loses_nothing(quick):
    """What the killed process did and had no time to make durable, the next one must not take for durable."""
    for step in itertools.count(1):
        (root := quick / str(step)).mkdir()
        disk, acknowledged, steps = PowerCut(root), [], itertools.count(1)

        def kill(step=step, steps=steps) -> None:
            if next(steps) == step:
                raise Killed

        disk.watch = kill
        try:
            two_flushes(disk, acknowledged)
            break
        except Killed:
            disk.watch = lambda: None
        with open_store(root, disk) as store:
            flush(store)
        for number, state in enumerate(cuts(root, disk, lambda disk, known: None, acknowledged)):
            check(again := quick / f"{step} {number}", acknowledged, after(state, again))
    assert step > 15


# --- processes that are killed, really

KILLED = """
import os, signal, sqlite3, sys
sys.path[:0] = sys.argv[3:]
from pathlib import Path
from directories import BTC, ETH
from stores import LATE, candles, check, expect, flush
from trio_candles.store.store import open_store

OURS = {"write", "fsync", "replace", "mkdir", "unlink", "open", "close"}


def kill_at(step):
    count = 0

    def profile(frame, event, function):
        nonlocal count
        if event != "c_call":  # what is after one call is what is before the next
            return
        system = function.__name__ in OURS and getattr(function, "__module__", None) == "posix"
        if not system and not isinstance(getattr(function, "__self__", None), sqlite3.Connection):
            return
        count += 1
        if count == step:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(profile)
    return lambda: count


def work(root, told, step):
    ended = kill_at(step)
    with open_store(root) as store:
        expect(store, BTC, ETH)
        for batch in ([*candles(-3, -1), *candles(-3, -1, ETH)], candles(-1, 1)):
            store.commit(batch, LATE)
            told.write(b"".join(b"%d %d\\n" % (one.series == BTC, one.open_time) for one in batch))
            flush(store)
    sys.setprofile(None)
    told.write(b"end %d\\n" % ended())


root, stride, step = Path(sys.argv[1]), int(sys.argv[2]), 0
while True:
    step += stride
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            work(root / str(step), open(writing, "wb", buffering=0), step)
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading) as said:
        lines = said.read().split("\\n")[:-1]
    _, status = os.waitpid(child, 0)
    if lines and lines[-1].startswith("end"):
        print(step, lines[-1])
        break
    assert os.WIFSIGNALED(status), (step, lines, status)
    known = {one.open_time: one for one in candles(-3, 1)}, {one.open_time: one for one in candles(-3, -1, ETH)}
    check(root / str(step), [known[line[0] == "0"][int(line[2:])] for line in lines])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork and SIGKILL")
@pytest.mark.parametrize("stride", [4, pytest.param(1, marks=pytest.mark.slow)])
def test_a_process_killed_before_every_system_call_and_statement_loses_nothing(quick, stride):
    """Each of some hundreds of children dies *stride* steps later than the one before, by SIGKILL."""
    here = Path(__file__).parent
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-c",
        KILLED,
        str(quick),
        str(stride),
        *map(str, (here.parent, here.parents[1])),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout.split()[0]) > 100


# --- what is found at a start


def flushed_directory(root: Path, kind: str = "real") -> None:
    """BTC: yesterday's last three minutes, and today's first five of which one was empty and one is a gap."""
    with open_store(root) as store:
        store.claim(kind)
        expect(store)
        store.commit([*candles(-3, 2), Empty(BTC, at(2), at(3), "x")], LATE)
        store.commit([Unsure(BTC, at(3), at(4), Reason.UNPROVEN), candle(4, 104.0)], LATE)
        flush(store)


def test_a_day_file_that_does_not_match_its_digest_is_set_aside_and_its_minutes_are_gaps(tmp_path, caplog):
    flushed_directory(tmp_path)
    content = spoil(tmp_path / AFTER)
    with open_store(tmp_path) as store:
        assert gaps(tmp_path) == [(0, 2, "corrupt"), (3, 4, "unproven"), (4, 5, "corrupt")]
        assert on_disk(tmp_path) == {BEFORE: [-3, -2, -1]}
        assert (tmp_path / "quarantine" / (AFTER.replace("/", "_") + ".0")).read_bytes() == content
        assert "3 minutes are gaps now" in caplog.text
        judged = store.commit([*candles(0, 2), candle(4, 104.0)], LATE)
        assert judged.accepted == 3
        flush(store)
        assert on_disk(tmp_path)[AFTER] == [0, 1, 4]


def test_what_is_in_quarantine_is_never_overwritten(tmp_path):
    flushed_directory(tmp_path)
    aside = []
    for _ in range(3):
        aside.append(spoil(tmp_path / AFTER))
        with open_store(tmp_path) as store:
            store.commit([*candles(0, 2), candle(4, 104.0)], LATE)
            flush(store)
    assert [path.read_bytes() for path in sorted((tmp_path / "quarantine").iterdir())] == aside


def test_the_minutes_of_a_day_file_that_is_gone_are_gaps(tmp_path, caplog):
    flushed_directory(tmp_path)
    (tmp_path / BEFORE).unlink()
    with open_store(tmp_path):
        assert gaps(tmp_path) == [(-3, 0, "corrupt"), (3, 4, "unproven")]
        assert "the file is missing" in caplog.text
    with open_store(tmp_path):
        assert len(gaps(tmp_path)) == 2


def test_a_folder_that_is_gone_is_made_again(tmp_path):
    flushed_directory(tmp_path)
    with open_store(tmp_path) as store:
        shutil.rmtree(tmp_path / "okx")
        store.commit(candles(5, 6), LATE)
        assert flush(store).error is None
        assert on_disk(tmp_path) == {AFTER: [5]}
        assert gaps(tmp_path) == [(0, 2, "corrupt"), (3, 4, "unproven"), (4, 5, "corrupt")]


def test_a_day_file_that_the_ledger_does_not_know_is_set_aside(tmp_path):
    flushed_directory(tmp_path)
    stranger = AFTER.replace("-11", "-09")
    shutil.copy(tmp_path / AFTER, tmp_path / stranger)
    (tmp_path / "okx" / "BTC-USDT" / "1m" / "notes.txt").write_text("not ours to move")
    with open_store(tmp_path) as store:
        store.set_strays_aside(BTC, "1m")
        assert gaps(tmp_path) == [(3, 4, "unproven")]
        assert on_disk(tmp_path).keys() == {BEFORE, AFTER}
        assert LOCAL_DISK.names(tmp_path / "quarantine") == [stranger.replace("/", "_") + ".0"]


def in_the_way(path: Path) -> None:
    """Let a folder that is not empty lie where a file belongs."""
    path.unlink(missing_ok=True)
    path.mkdir(parents=True)
    (path / "notes.txt").write_text("somebody's")


FIVE = "okx/BTC-USDT/5m/2026-01-11.parquet"


@pytest.mark.parametrize(
    ("place", "lost"),
    [
        (AFTER, [(0, 2, "corrupt"), (3, 4, "unproven"), (4, 5, "corrupt")]),
        (FIVE, [(3, 4, "unproven")]),
        (AFTER.replace("-11", "-09"), [(3, 4, "unproven")]),
        (".tmp/folder", [(3, 4, "unproven")]),
        (IDENTITY, [(3, 4, "unproven")]),
    ],
)
def test_a_folder_in_the_place_of_a_file_is_set_aside_at_a_start_and_only_what_the_file_held_is_a_gap(
    tmp_path, caplog, place, lost
):
    flushed_directory(tmp_path)
    if place == FIVE:
        row = attrs.evolve(candle(0), series=Series("okx", "BTC-USDT", "5m"), close_time=at(5))
        content = dayfiles.encode(dayfiles.table_of([row]))
        (tmp_path / FIVE).parent.mkdir()
        journal = Journal.open(tmp_path / "journal.sqlite3", lambda series, minute: None)
        journal.replaced([(FIVE, digest_of(content), BTC, [])])
        journal.close()
    in_the_way(tmp_path / place)
    with open_store(tmp_path) as store:
        store.claim("real")
        store.set_strays_aside(BTC, "1m")  # as the scrub does that follows a start
        assert gaps(tmp_path) == lost
        store.commit([candle(5, 105.0)], LATE)
        assert flush(store).error is None
    assert (tmp_path / "quarantine" / f"{place.replace('/', '_')}.0" / "notes.txt").exists()
    assert any("moved to quarantine" in one.message and one.levelname == "ERROR" for one in caplog.records)
    assert identity(tmp_path)["kind"] == "real"
    caplog.clear()
    check_again(tmp_path)
    assert caplog.text == ""


def test_a_folder_in_the_place_of_a_file_under_replacement_costs_only_what_was_in_the_file(tmp_path):
    some = start(tmp_path, None)
    journal = Journal.open(tmp_path / "journal.sqlite3", lambda series, minute: None)
    journal.replacing({BEFORE: digest_of(b"never came to be")})
    journal.abandon()
    in_the_way(tmp_path / BEFORE)
    with open_store(tmp_path) as store:
        assert gaps(tmp_path) == [(-3, -1, "corrupt")]
        assert flush(store).error is None
    check_again(tmp_path)
    assert on_disk(tmp_path)[BEFORE] == [-1]
    assert on_disk(tmp_path)[AFTER] == [one.open_time // MINUTE - MIDNIGHT // MINUTE for one in some[3:]]


@pytest.mark.parametrize("spoiled", ["spoiled", "gone"])
def test_a_day_file_that_goes_bad_while_the_store_is_open_is_found_by_a_duplicate(tmp_path, spoiled):
    """Looked up in the middle of a transaction: the same batch is judged again, with its minutes as gaps."""
    flushed_directory(tmp_path)
    with open_store(tmp_path) as store:
        if spoiled == "spoiled":
            spoil(tmp_path / AFTER)
        else:
            (tmp_path / AFTER).unlink()
        judged = store.commit([candle(5), candle(1, 101.0)], LATE)
        assert (judged.accepted, judged.rejected) == (2, [])
        assert gaps(tmp_path) == [(0, 1, "corrupt"), (3, 4, "unproven"), (4, 5, "corrupt")]
        assert flush(store).error is None
        assert on_disk(tmp_path)[AFTER] == [1, 5]
    check_again(tmp_path)


def test_a_day_file_that_goes_bad_while_the_store_is_open_is_found_by_a_flush(tmp_path):
    flushed_directory(tmp_path)
    with open_store(tmp_path) as store:
        store.commit([candle(5)], LATE)
        spoil(tmp_path / AFTER)
        assert flush(store).saved == {"okx": 1}
        assert on_disk(tmp_path)[AFTER] == [5]
        assert gaps(tmp_path) == [(0, 2, "corrupt"), (3, 4, "unproven"), (4, 5, "corrupt")]
    check_again(tmp_path)


def check_again(root: Path) -> None:
    """All promises of a directory in which something was lost and is known to be."""
    shutil.rmtree(root / "quarantine", ignore_errors=True)
    check(root, [])


@pytest.mark.parametrize("on_disk_now", ["old", "new"])
def test_both_digests_of_a_replacement_under_way_are_valid(tmp_path, on_disk_now):
    some = start(tmp_path, None)
    old = (tmp_path / BEFORE).read_bytes()
    new = dayfiles.encode(dayfiles.table_of(some[:3]))
    journal = Journal.open(tmp_path / "journal.sqlite3", lambda series, minute: None)
    journal.replacing({BEFORE: digest_of(new), AFTER: digest_of(b"never came to be")})
    journal.abandon()
    (tmp_path / BEFORE).write_bytes(new if on_disk_now == "new" else old)
    (tmp_path / ".tmp" / "leftover.parquet").write_bytes(b"half of it")
    with open_store(tmp_path) as store:
        assert on_disk(tmp_path) == {BEFORE: [-3, -2, -1] if on_disk_now == "new" else [-3, -2]}
        assert store.waiting() == [DayFile(BTC, at(0))] if on_disk_now == "new" else store.waiting()
        assert gaps(tmp_path) == []
    check(tmp_path, some)


# --- a journal that is lost


@pytest.mark.parametrize("loss", ["journal", "nothing"])
def test_a_series_whose_symbol_does_not_tell_its_folder_keeps_it_whatever_is_lost(tmp_path, loss):
    series = Series("binance", "BTCUSDT", folder="BTC-USDT")
    with open_store(tmp_path) as store:
        expect(store, series, since=0, now=0)
        store.aggregate(("5m",))
        store.commit([candle(minute, series=series) for minute in range(6)], LATE)
        flush(store)
    there = {f"binance/BTC-USDT/{name}/2026-01-11.parquet" for name in ("1m", "5m")}
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.parquet")} == there
    if loss == "journal":
        (tmp_path / "journal.sqlite3").unlink()
    with open_store(tmp_path) as store:
        ((found, _),) = store.journal.spans().items()
        assert (found.symbol, found.folder) == ("BTCUSDT", "BTC-USDT")
        store.expect([found], at(0), at(6))
        assert store.commit([candle(6, series=found), candle(6, 55.0, series=found)], LATE).accepted == 1
        assert store.unsaved() == [DayFile(found, at(0))]
        flush(store)
        assert [one.series.folder for one in store.journal.revisions.doubtful("binance", LATE)] == ["BTC-USDT"]
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.parquet")} == there
    assert not (tmp_path / "quarantine").exists()


LOSSES = {
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_bytes(b"no database " * 1000),
    "zeros": lambda path: path.write_bytes(path.read_bytes()[:4096] + bytes(path.stat().st_size - 4096)),
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "head": lambda path: path.write_bytes(bytes(100) + path.read_bytes()[100:]),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_a_lost_journal_is_set_aside_and_rebuilt_from_the_day_files(tmp_path, caplog, loss):
    flushed_directory(tmp_path)
    files = {path: (tmp_path / path).read_bytes() for path in (BEFORE, AFTER)}
    LOSSES[loss](tmp_path / "journal.sqlite3")
    broken = (tmp_path / "journal.sqlite3").read_bytes() if loss not in ("missing", "empty") else None
    with open_store(tmp_path) as store:
        assert "2 day files with 6 rows" in caplog.records[-1].message
        assert caplog.records[-1].levelname == "ERROR"
        store.claim("real")
        spans = store.expect([BTC], at(6), at(7.5))
        # From the first instant of the oldest file's day: what of that day was expected, nobody knows.
        assert spans == {BTC: (at(-1440), at(7))}
        assert gaps(tmp_path) == [(-1440, -3, "ledger_lost"), (2, 4, "ledger_lost"), (5, 7, "ledger_lost")]
        assert store.journal.gaps.open_minutes(LATE) == {"okx": 1437 + 2 + 2}
        assert {path: (tmp_path / path).read_bytes() for path in files} == files
        judged = store.commit([*candles(-3, 2), Empty(BTC, at(2), at(3), "x"), candle(3), candle(7)], LATE)
        assert (judged.accepted, len(judged.rejected)) == (2, 5)
        flush(store)
    aside = LOCAL_DISK.names(tmp_path / "quarantine")
    assert aside == ([] if broken is None else ["journal.sqlite3.0"])
    if broken is not None:
        # SQLite may have tidied its header up before it saw what the rest was.
        assert len((tmp_path / "quarantine" / aside[0]).read_bytes()) == len(broken)
        shutil.rmtree(tmp_path / "quarantine")
    caplog.clear()
    check(tmp_path, [*candles(-3, 2), candle(3), candle(4, 104.0), candle(7)])
    assert caplog.text == ""
    with open_store(tmp_path) as store:
        store.expect([BTC], at(9), at(9))
        assert gaps(tmp_path)[-1] == (8, 9, "collector_down")


def test_a_lost_journals_log_is_set_aside_too(tmp_path):
    """A write-ahead log must not meet a journal that it was not written for."""
    flushed_directory(tmp_path)
    journal = Journal.open(tmp_path / "journal.sqlite3", lambda series, minute: None)
    journal.remember(x=1)
    log = (tmp_path / "journal.sqlite3-wal").read_bytes()
    journal.abandon()
    (tmp_path / "journal.sqlite3").unlink()
    (tmp_path / "journal.sqlite3-wal").write_bytes(log)
    with open_store(tmp_path) as store:
        assert "x" not in store.journal.meta()
        assert LOCAL_DISK.names(tmp_path / "quarantine") == ["journal.sqlite3-wal.0"]
        assert (tmp_path / "quarantine" / "journal.sqlite3-wal.0").read_bytes() == log


def test_a_day_file_that_cannot_be_believed_is_set_aside_by_a_rebuilding_and_its_day_is_owed(tmp_path, caplog):
    flushed_directory(tmp_path)
    (tmp_path / "journal.sqlite3").unlink()
    spoil(tmp_path / BEFORE)
    shutil.copy(tmp_path / AFTER, tmp_path / AFTER.replace("-11", "-12"))
    with open_store(tmp_path) as store:
        assert store.expect([BTC], at(6), at(7)) == {BTC: (at(-1440), at(7))}
        assert gaps(tmp_path) == [(-1440, 0, "ledger_lost"), (2, 4, "ledger_lost"), (5, 7, "ledger_lost")]
        assert len(LOCAL_DISK.names(tmp_path / "quarantine")) == 2
        assert "(2 more were refused)" in caplog.text
    check_again(tmp_path)


NAN, INFINITE = float("nan"), float("inf")
UNSOUND = [
    {"open": NAN}, {"high": INFINITE}, {"low": -INFINITE}, {"close": NAN}, {"volume": NAN}, {"quote_volume": INFINITE},
    {"vwap": NAN}, {"low": 0.0}, {"open": -1.0, "low": -1.0}, {"volume": -1e-9}, {"high": 90.0}, {"high": 100.5},
    {"open": 100.0, "close": 100.6, "high": 100.5}, {"low": 101.5}, {"high": 100.5, "close": 100.2}, {"open": 99.5},
    {"close": 99.5},
    {"close_time": Millis(9_000_000_000_000)}, {"close_time": at(1)}, {"is_closed": False},
    {"source": Source.AGGREGATED},
]  # fmt: skip


@pytest.mark.parametrize("changes", UNSOUND, ids=str)
def test_a_row_that_would_never_have_been_written_is_not_adopted_by_a_rebuilding(tmp_path, caplog, changes):
    flushed_directory(tmp_path)
    good = candle(1, 101.0)
    bad = attrs.evolve(good, **changes)
    assert bad.source is Source.AGGREGATED or broken_rule(bad, LATE) is not None
    (tmp_path / AFTER).write_bytes(dayfiles.encode(dayfiles.table_of([candle(0), bad, candle(4, 104.0)])))
    (tmp_path / "journal.sqlite3").unlink()
    with open_store(tmp_path) as store:
        assert store.expect([BTC], at(5), at(5)) == {BTC: (at(-1440), at(5))}
        assert gaps(tmp_path) == [(-1440, -3, "ledger_lost"), (0, 5, "ledger_lost")]
        assert store.journal.meta()["latest_ms"] == str(at(0))
    assert f"{AFTER}: a row whose" in caplog.text
    assert LOCAL_DISK.names(tmp_path / "quarantine") == [AFTER.replace("/", "_") + ".0"]
    check_again(tmp_path)


@pytest.mark.parametrize("source", [Source.WEBSOCKET, Source.REST])
def test_an_aggregate_is_adopted_only_if_it_says_that_it_is_one(tmp_path, source):
    flushed_directory(tmp_path)
    row = attrs.evolve(candle(0), series=Series("okx", "BTC-USDT", "5m"), close_time=at(5), source=source)
    (tmp_path / FIVE).parent.mkdir()
    (tmp_path / FIVE).write_bytes(dayfiles.encode(dayfiles.table_of([row])))
    (tmp_path / "journal.sqlite3").unlink()
    with open_store(tmp_path):
        assert FIVE not in {name for (name,) in ledger(tmp_path, "SELECT path FROM day_file")}
    assert LOCAL_DISK.names(tmp_path / "quarantine") == [FIVE.replace("/", "_") + ".0"]


def test_series_are_found_again_as_the_venue_writes_them_and_other_timeframes_are_only_registered(tmp_path):
    with open_store(tmp_path) as store:
        expect(store, BTC, ETH, since=0, now=0)
        store.commit([*candles(0, 2), *candles(0, 5, ETH)], LATE)
        flush(store)
    five = Series("okx", "BTC-USDT", "5m")
    row = attrs.evolve(candle(0), series=five, close_time=at(5), source=Source.AGGREGATED)
    path = DayFile(five, at(0)).path
    (tmp_path / path).parent.mkdir()
    (tmp_path / path).write_bytes(dayfiles.encode(dayfiles.table_of([row])))
    (tmp_path / "journal.sqlite3").unlink()
    with open_store(tmp_path) as store:
        assert store.expect([BTC, ETH], at(5), at(5)) == {BTC: (at(0), at(5)), ETH: (at(0), at(5))}
        assert gaps(tmp_path) == [(2, 5, "ledger_lost")]
        assert path in {name for (name,) in ledger(tmp_path, "SELECT path FROM day_file")}


def test_a_first_start_is_no_loss(tmp_path, caplog):
    with open_store(tmp_path) as store:
        expect(store)
    assert caplog.text == ""
    assert gaps(tmp_path) == []
    assert not (tmp_path / "quarantine").exists()


def test_a_broken_journal_without_day_files_is_set_aside_and_begun_anew(tmp_path, caplog):
    (tmp_path / "journal.sqlite3").write_bytes(b"no database " * 1000)
    with open_store(tmp_path) as store:
        expect(store)
    assert "the journal is broken (file is not a database)" in caplog.text
    assert LOCAL_DISK.names(tmp_path / "quarantine") == ["journal.sqlite3.0"]


def test_a_rebuilding_that_is_cut_short_is_done_again(tmp_path):
    flushed_directory(tmp_path)
    (tmp_path / "journal.sqlite3").write_bytes(b"no database " * 1000)
    for which in itertools.count(1):
        disk = Failing({which}, errno.EIO)
        try:
            with open_store(tmp_path, disk):
                break
        except StoreUnavailable:
            pass
    assert which > 3
    assert gaps(tmp_path) == [(-1440, -3, "ledger_lost"), (2, 4, "ledger_lost")]
    shutil.rmtree(tmp_path / "quarantine")
    check(tmp_path, [*candles(-3, 2), candle(4, 104.0)])


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE series SET symbol = 'BTC-USDU'", "UPDATE series SET venue = 'okz'",
        "UPDATE series SET timeframe = '5m'", "DELETE FROM series",
    ],
)  # fmt: skip
def test_a_series_that_lost_its_name_costs_the_ledger_and_no_stored_minute(tmp_path, caplog, damage):
    flushed_directory(tmp_path)
    journal = sqlite3.connect(tmp_path / "journal.sqlite3", isolation_level=None)
    journal.execute(damage)
    journal.close()
    with open_store(tmp_path) as store:
        assert store.expect([BTC], at(5), at(5)) == {BTC: (at(-1440), at(5))}
        assert gaps(tmp_path) == [(-1440, -3, "ledger_lost"), (2, 4, "ledger_lost")]
        assert on_disk(tmp_path) == {BEFORE: [-3, -2, -1], AFTER: [0, 1, 4]}
    assert "is listed, and belongs to no series" in caplog.text
    check_again(tmp_path)


@pytest.mark.parametrize(
    "path", ["2026-01-1/.parquet", "okx/BTC-USDT/1m/2026-01-1P.parquet", BEFORE.replace("/1m/", "/1n/")]
)
def test_a_damaged_path_in_the_ledger_costs_only_the_day_file_that_nobody_lists_any_more(tmp_path, path):
    flushed_directory(tmp_path)
    journal = sqlite3.connect(tmp_path / "journal.sqlite3", isolation_level=None)
    journal.execute("UPDATE day_file SET path = ? WHERE path = ?", (path, BEFORE))
    journal.close()
    with open_store(tmp_path):
        assert gaps(tmp_path) == [(-3, 0, "corrupt"), (3, 4, "unproven")]
        assert on_disk(tmp_path) == {AFTER: [0, 1, 4]}
    assert LOCAL_DISK.names(tmp_path / "quarantine") == [BEFORE.replace("/", "_") + ".0"]


def test_a_symbol_that_is_configured_no_more_is_no_damage(tmp_path, caplog):
    flushed_directory(tmp_path)
    for _ in range(2):
        with open_store(tmp_path) as store:
            store.expect([ETH], at(5), at(5))
    assert caplog.text == ""
    assert on_disk(tmp_path) == {BEFORE: [-3, -2, -1], AFTER: [0, 1, 4]}


def test_a_folder_in_the_place_of_the_journal_is_set_aside_and_the_ledger_rebuilt(tmp_path, caplog):
    flushed_directory(tmp_path)
    in_the_way(tmp_path / "journal.sqlite3")
    with open_store(tmp_path) as store:
        store.claim("real")
        assert gaps(tmp_path) == [(-1440, -3, "ledger_lost"), (2, 4, "ledger_lost")]
    assert "the journal is no file; set aside: quarantine/journal.sqlite3.0" in caplog.text
    assert (tmp_path / "quarantine" / "journal.sqlite3.0" / "notes.txt").exists()
    check_again(tmp_path)


def test_a_folder_in_the_place_of_a_day_file_is_set_aside_by_a_rebuilding(tmp_path, caplog):
    flushed_directory(tmp_path)
    (tmp_path / "journal.sqlite3").unlink()
    in_the_way(tmp_path / BEFORE)
    with open_store(tmp_path) as store:
        assert store.expect([BTC], at(5), at(5)) == {BTC: (at(-1440), at(5))}
        assert gaps(tmp_path) == [(-1440, 0, "ledger_lost"), (2, 4, "ledger_lost")]
    assert "(1 more were refused)" in caplog.text
    assert (tmp_path / "quarantine" / f"{BEFORE.replace('/', '_')}.0" / "notes.txt").exists()
    check_again(tmp_path)


def test_a_journal_that_cannot_be_opened_now_is_no_loss(tmp_path):
    flushed_directory(tmp_path)
    (tmp_path / "journal.sqlite3").rename(tmp_path / "elsewhere")
    try:
        (tmp_path / "journal.sqlite3").symlink_to(tmp_path / "not mounted" / "journal.sqlite3")
    except OSError:
        pytest.skip("no links here")
    with pytest.raises(StoreUnavailable, match="unable to open"), open_store(tmp_path):
        pass
    (tmp_path / "journal.sqlite3").unlink()
    (tmp_path / "elsewhere").rename(tmp_path / "journal.sqlite3")
    check(tmp_path, candles(-3, 2))
