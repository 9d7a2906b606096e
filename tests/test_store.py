"""The store: nothing accepted is lost, whatever fails, lies, or loses its power, at whatever instant.

Three disks do what real ones do only once a year: :class:`Failing` (an error at the nth call), :class:`PowerCut`
(knows what a cut at any instant may leave behind), :class:`HeldOpen` (Windows). And real processes are killed.
"""

from __future__ import annotations

import errno
import itertools
import random
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import attrs
import pyarrow.parquet as pq
import pytest

from trio_candles.model import DAY, MINUTE, Candle, Empty, Millis, Reason, Series, Source, Unsure
from trio_candles.store import dayfiles
from trio_candles.store.dayfiles import DayFile
from trio_candles.store.disk import LOCAL_DISK, LocalDisk
from trio_candles.store.journal import Journal
from trio_candles.store.lock import Locked
from trio_candles.store.schema import digest_of
from trio_candles.store.store import Store, StoreUnavailable, WrongDirectory, open_store
from trio_candles.validation import Rule

MIDNIGHT = Millis(1_768_089_600_000)
"""2026-01-11; minutes are counted from here, so that the day's end is in the middle of things."""
BTC = Series("okx", "BTC-USDT")
ETH = Series("kraken", "ETH/USD")
LATE = Millis(MIDNIGHT + DAY)


def at(minute: float) -> Millis:
    return Millis(int(MIDNIGHT + minute * MINUTE))


def candle(minute: int, price: float = 100.0, series: Series = BTC, **changes) -> Candle:
    open_time = at(minute)
    made = Candle(
        series, open_time, price, price + 1, price - 1, price, 2.5, 250.0, price, 7, Source.WEBSOCKET,
        Millis(open_time + MINUTE + 100), Millis(open_time + MINUTE),
    )  # fmt: skip
    return attrs.evolve(made, **changes)


def candles(since: int, until: int, series: Series = BTC) -> list[Candle]:
    return [candle(minute, 100.0 + minute, series) for minute in range(since, until)]


def expect(store: Store, *series: Series, since: float = -3, now: float = -3) -> None:
    store.expect(series or (BTC,), at(since), at(now))


def flush(store: Store):
    return store.flush(store.waiting())


def on_disk(root: Path, disk=LOCAL_DISK) -> dict[str, list[int]]:
    """Path -> the minutes in it, of every day file, read as anybody would."""
    found = {}
    for venue, symbol in itertools.product(("okx", "kraken"), ("BTC-USDT", "ETH-USD")):
        folder = f"{venue}/{symbol}/1m"
        for name in disk.names(root / folder):
            path = f"{folder}/{name}"
            series = BTC if venue == "okx" else ETH
            table = dayfiles.read(disk.read(root / path), dayfiles.day_file(path, series))
            found[path] = [(time - MIDNIGHT) // MINUTE for time in dayfiles.times_in(table)]
    return found


def ledger(root: Path, query: str) -> list[tuple]:
    """What the ledger says, asked beside the store."""
    database = sqlite3.connect(root / "journal.sqlite3")
    try:
        return database.execute(query).fetchall()
    finally:
        database.close()


def gaps(root: Path) -> list[tuple]:
    return [
        ((since - MIDNIGHT) // MINUTE, (until - MIDNIGHT) // MINUTE, reason)
        for since, until, reason in ledger(
            root, "SELECT since_ms, until_ms, reason FROM gap ORDER BY series_id, since_ms"
        )
    ]


BEFORE = "okx/BTC-USDT/1m/2026-01-10.parquet"
AFTER = "okx/BTC-USDT/1m/2026-01-11.parquet"


class Lost(AssertionError):
    """A promise of the store does not hold."""


def check(root: Path, acknowledged: list[Candle], disk=LOCAL_DISK) -> None:
    """Open what a crash left: everything acknowledged is there, once, and a flush brings all of it into files."""
    with open_store(root, disk) as store:
        stored = _promises(root, disk, acknowledged)
        if disk.names(root / ".tmp"):
            raise Lost("a leftover in .tmp")
        flushed = flush(store)
        if flushed.error or flushed.held or store.waiting():
            raise Lost(f"the flush does not finish: {flushed}")
        if _promises(root, disk, acknowledged) != stored:
            raise Lost("the flush lost or made up a candle")
        if disk.names(root / ".tmp") or disk.names(root / "quarantine"):
            raise Lost("a leftover")


def _promises(root: Path, disk, acknowledged: list[Candle]) -> set[Candle]:
    known = {path: (digest, pending) for path, digest, pending in ledger(root, "SELECT * FROM day_file")}
    found: list[Candle] = []
    for path in on_disk(root, disk):
        content = disk.read(root / path)
        if known.get(path) != (digest_of(content), None):
            raise Lost(f"{path} is not what the ledger says")
        series = BTC if path.startswith("okx") else ETH
        table = dayfiles.read(content, dayfiles.day_file(path, series))
        found += dayfiles.candles_in(table, series)
    if set(known) != set(on_disk(root, disk)):
        raise Lost("a file is missing")
    for symbol, open_ms, price, *_ in ledger(
        root, "SELECT symbol, open_ms, open FROM candle JOIN series ON series.id = series_id"
    ):
        found.append(candle((open_ms - MIDNIGHT) // MINUTE, price, BTC if symbol == BTC.symbol else ETH))
    minutes = [(one.series, one.open_time) for one in found]
    if len(minutes) != len(set(minutes)):
        raise Lost("a candle is there twice")
    if set(acknowledged) - set(found):
        raise Lost(f"{len(set(acknowledged) - set(found))} candles are lost")
    for symbol, first, mark in ledger(root, "SELECT symbol, first_ms, mark_ms FROM series"):
        series = BTC if symbol == BTC.symbol else ETH
        _every_minute(root, {time for one, time in minutes if one == series}, series, first, mark)
    return set(found)


def _every_minute(root: Path, stored: set[int], series: Series, first: int, mark: int) -> None:
    spans = ledger(
        root,
        "SELECT since_ms, until_ms, symbol FROM gap JOIN series ON series.id = series_id"
        " UNION ALL SELECT since_ms, until_ms, symbol FROM empty JOIN series ON series.id = series_id",
    )
    said = [time for since, until, symbol in spans if symbol == series.symbol for time in range(since, until, MINUTE)]
    if sorted([*stored, *said]) != list(range(first, mark, MINUTE)):
        raise Lost(f"{series}: a minute is nothing, or two things")


@pytest.fixture
def quick():
    """A folder in memory where the system has one: many directories, none of which has to outlive a power cut."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


# --- flushing


def test_a_flush_puts_each_day_into_its_file_and_lets_go_of_the_journals_rows(tmp_path):
    with open_store(tmp_path) as store:
        expect(store, BTC, ETH)
        store.commit([*candles(-3, 3), *candles(-3, 1, ETH)], LATE)
        assert [file.path for file in store.waiting()] == [
            "kraken/ETH-USD/1m/2026-01-10.parquet", "kraken/ETH-USD/1m/2026-01-11.parquet", BEFORE, AFTER,
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
        assert (store.meta()["stopped_at_ms"], store.meta()["latest_ms"]) == ("7", "7")
        with pytest.raises(WrongDirectory, match="holds real candles"):
            store.claim("simulated", seed=1)
        store.claim("real", latest_ms=9)
        assert "stopped_at_ms" not in store.meta()


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


class Failing(LocalDisk):
    """Fails its calls whose numbers are in *when*; with *dead*, every call after the first of them as well."""

    def __init__(self, when=(), number: int = errno.ENOSPC, dead: bool = False) -> None:
        self.calls: list[str] = []
        self.when, self.number, self.dead = set(when), number, dead

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if len(self.calls) in self.when:
            self.when |= {len(self.calls) + 1} if self.dead else set()
            raise OSError(self.number, os.strerror(self.number))

    def read(self, path):
        self._call("read")
        return super().read(path)

    def write_new(self, path, content):
        self._call("write_new")
        super().write_new(path, content)

    def replace(self, source, target):
        self._call("replace")
        super().replace(source, target)

    def remove(self, path):
        self._call("remove")
        super().remove(path)

    def make_folder(self, path):
        self._call("make_folder")
        super().make_folder(path)

    def sync_folder(self, path):
        self._call("sync_folder")
        super().sync_folder(path)


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
    file = ["write_new", "read"]
    steps = ["make_folder", "sync_folder"] * 3
    assert calls_of_a_flush(tmp_path) == [
        "read", *file, "read", *steps, *file, "replace", "replace", "sync_folder", "remove", "remove",
    ]  # fmt: skip


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_whichever_call_fails_the_systems_own_words_are_told_nothing_is_lost_and_the_next_flush_writes(
    quick, number
):
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


def test_a_crash_in_the_flush_after_one_that_failed_loses_nothing(quick):
    """The ledger has room for two digests, and after a flush that failed half way the file has the second one."""
    calls = calls_of_a_flush(quick / "all")
    failures = [number for number, name in enumerate(calls, 1) if name in ("replace", "sync_folder")]
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
from test_store import *
root = Path(sys.argv[1])
with open_store(root) as store:
    expect(store, since=0, now=0)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    accepted = 0
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, hard))
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
    command = [sys.executable, "-c", LIMITED, str(tmp_path), str(here), str(here.parent)]
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


# --- Windows: a file that somebody reads cannot be replaced


class HeldOpen(LocalDisk):
    """Windows while another program has some of the files open; *exclusive*: they cannot be read either."""

    def __init__(self, *held: str, exclusive: bool = False) -> None:
        self.held, self.exclusive = held, exclusive

    def _refuse(self, path: Path) -> None:
        if path.as_posix().endswith(self.held or ("\0",)) and ".tmp" not in path.parts:
            error = PermissionError(13, "The process cannot access the file")
            error.winerror = 32
            raise error

    def read(self, path):
        if self.exclusive:
            self._refuse(path)
        return super().read(path)

    def replace(self, source, target):
        self._refuse(target)
        super().replace(source, target)


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


@attrs.define
class File:
    """What is in a file, and whether a power cut may take some of it."""

    content: bytes = b""
    synced: bool = False


FOLDER = File(synced=True)


@attrs.define
class PowerCut:
    """A disk in memory that knows what a power cut may leave behind, at each instant and in every combination.

    A file that was not synced may be whole, half or nothing. A change of a name may be missing unless its folder
    was synced since; of two changes, in one folder or in two, either one may have come through without the other.
    """

    root: Path
    durable: dict[str, File] = attrs.field(factory=lambda: {"": FOLDER})
    changes: dict[str, list[File | None]] = attrs.field(factory=dict)
    """Of each name, oldest first, since its folder was last synced; ``None``: it is removed."""
    watch: Callable[[], None] = lambda: None
    """Called after every step that a cut may follow."""
    broken: str = ""
    """What this disk fails to do: ``file sync``, ``folder sync``; or ``writing``, with ``reading`` not showing it."""

    said: dict[Path, bytes] = attrs.field(factory=dict)
    """What this disk was told to write."""

    def _name(self, path: Path) -> str:
        return "" if path == self.root else path.relative_to(self.root).as_posix()

    def _now(self, name: str) -> File | None:
        return self.changes[name][-1] if name in self.changes else self.durable.get(name)

    def _change(self, name: str, file: File | None) -> None:
        self.changes.setdefault(name, []).append(file)

    def read(self, path: Path) -> bytes:
        file = self._now(self._name(path))
        if file is None or file is FOLDER:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path))
        return self.said[path] if "reading" in self.broken and path in self.said else file.content

    def names(self, folder: Path) -> list[str]:
        return sorted(
            name.rpartition("/")[2]
            for name in {*self.durable, *self.changes}
            if name and name.rpartition("/")[0] == self._name(folder) and self._now(name) is not None
        )

    def write_new(self, path: Path, content: bytes) -> None:
        name = self._name(path)
        assert self._now(name) is None, "it must not exist"
        assert self._now(name.rpartition("/")[0]) is FOLDER
        self._change(name, file := File())
        self.watch()
        self.said[path] = content
        file.content = content[7:] if "writing" in self.broken else content
        self.watch()
        file.synced = "file sync" not in self.broken
        self.watch()

    def replace(self, source: Path, target: Path) -> None:
        file = self._now(self._name(source))
        assert file is not None
        self._change(self._name(target), file)
        self._change(self._name(source), None)
        self.watch()

    def remove(self, path: Path) -> None:
        if self._now(self._name(path)) is not None:
            self._change(self._name(path), None)
            self.watch()

    def make_folder(self, path: Path) -> None:
        if self._now(self._name(path)) is None:
            self._change(self._name(path), FOLDER)
            self.watch()

    def sync_folder(self, path: Path) -> None:
        if "folder sync" in self.broken:
            return
        for name in [name for name in self.changes if name.rpartition("/")[0] == self._name(path)]:
            file = self.changes.pop(name)[-1]
            self.durable.pop(name, None)
            if file is not None:
                self.durable[name] = file
        self.watch()

    def after_a_cut(self) -> Iterator[dict[str, bytes | None]]:
        """Every content of the disk that is possible after a cut now; ``None`` is a folder."""
        names = sorted({*self.durable, *self.changes})
        choices = [[self.durable.get(name), *self.changes.get(name, [])] for name in names]
        for some in itertools.product(*({id(file): file for file in files}.values() for files in choices)):
            there = {name: file for name, file in zip(names, some, strict=True) if file is not None}
            reachable = {
                name: file
                for name, file in there.items()
                if all(parent in there for parent in itertools.accumulate(name.split("/")[:-1], "{}/{}".format))
            }
            unsure = [file for file in {id(file): file for file in reachable.values()}.values() if not file.synced]
            for lengths in itertools.product((0, 0.5, 1), repeat=len(unsure)):
                left = {id(file): int(len(file.content) * part) for file, part in zip(unsure, lengths, strict=True)}
                yield {
                    name: None if file is FOLDER else file.content[: left.get(id(file))]
                    for name, file in reachable.items()
                }

    @classmethod
    def holding(cls, root: Path, what: Mapping[str, bytes | None], **more) -> PowerCut:
        """A disk on which all of *what* is durable."""
        files = {name: FOLDER if content is None else File(content, synced=True) for name, content in what.items()}
        return cls(root, files, **more)


@attrs.frozen
class Cut:
    """What is left after a power cut, and what had been acknowledged before it."""

    journal: tuple[bytes, bytes]
    """The database and its write-ahead log: SQLite syncs what it has committed."""
    files: tuple[tuple[str, bytes | None], ...]
    acknowledged: tuple[Candle, ...]


def cuts(root: Path, disk: PowerCut, work: Callable[[PowerCut, list[Candle]], None], known=()) -> set[Cut]:
    """Everything that a power cut may leave behind, at every step of *work*."""
    found: set[Cut] = set()
    acknowledged = list(known)

    def watch() -> None:
        parts = [root / "journal.sqlite3", root / "journal.sqlite3-wal"]
        journal = tuple(path.read_bytes() if path.exists() else b"" for path in parts)
        for files in disk.after_a_cut():
            found.add(Cut(journal, tuple(sorted(files.items())), tuple(acknowledged)))

    disk.watch = watch
    work(disk, acknowledged)
    watch()
    return found


def after(cut: Cut, root: Path, **more) -> PowerCut:
    """The disk and, in *root*, the journal as *cut* left them."""
    root.mkdir()
    for name, content in zip(("journal.sqlite3", "journal.sqlite3-wal"), cut.journal, strict=True):
        if content:
            (root / name).write_bytes(content)
    return PowerCut.holding(root, dict(cut.files), **more)


def two_flushes(disk: PowerCut, acknowledged: list[Candle]) -> None:
    """A new file, then one that is there and another new one, in a folder that is new."""
    with open_store(disk.root, disk) as store:
        expect(store, since=-2, now=-2)
        for batch in (candles(-2, -1), candles(-1, 2)):
            store.commit(batch, LATE)
            acknowledged += batch
            assert flush(store).error is None


def bad_of(quick: Path, broken: str) -> tuple[int, list[str]]:
    """How many states a power cut may leave on a disk that is broken so, and what is wrong with the bad ones."""
    (quick / "work").mkdir()
    found = cuts(quick / "work", PowerCut(quick / "work", broken=broken), two_flushes)
    bad = []
    for number, cut in enumerate(sorted(found, key=repr)):
        disk = after(cut, root := quick / str(number))
        try:
            check(root, list(cut.acknowledged), disk)
        except Lost as lost:
            bad.append(str(lost))
    return len(found), bad


def test_whatever_a_power_cut_leaves_behind_nothing_is_lost(quick):
    states, bad = bad_of(quick, "")
    assert states > 100
    assert bad == []


@pytest.mark.parametrize("broken", ["file sync", "folder sync", "writing and reading"])
def test_the_enumeration_finds_what_each_precaution_is_for(quick, broken):
    """Without the fsync, without the folder's fsync, without reading back from a disk that lies: states are bad."""
    states, bad = bad_of(quick, broken)
    assert states > 20
    assert len(bad) >= 2


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


# --- processes that are killed, really

KILLED = """
import os, signal, sqlite3, sys
sys.path[:0] = sys.argv[2:]
from test_store import *

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
        for batch in ([*candles(-3, 0), *candles(-3, -1, ETH)], candles(0, 2), candles(2, 3)):
            store.commit(batch, LATE)
            told.write(b"".join(b"%d %d\\n" % (one.series == BTC, one.open_time) for one in batch))
            flush(store)
    sys.setprofile(None)
    told.write(b"end %d\\n" % ended())


root, step = Path(sys.argv[1]), 0
while True:
    step += 1
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
    known = {one.open_time: one for one in candles(-3, 3)}, {one.open_time: one for one in candles(-3, -1, ETH)}
    check(root / str(step), [known[line[0] == "0"][int(line[2:])] for line in lines])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork and SIGKILL")
def test_a_process_killed_before_every_system_call_and_statement_loses_nothing(quick):
    """Each of some hundreds of children dies one step later than the one before, by SIGKILL."""
    here = Path(__file__).parent
    command = [sys.executable, "-W", "ignore", "-c", KILLED, str(quick), str(here), str(here.parent)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout.split()[0]) > 100
