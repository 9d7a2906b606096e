"""Day files: what is in them, what every reader can make of them, and that nothing else passes for one."""

from __future__ import annotations

import errno
import os
import random
import re
import stat
import sys
from contextlib import suppress
from pathlib import Path

import attrs
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import stores
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_candles.candles.model import DAY, MINUTE, Candle, Millis, Series, Source
from trio_candles.store import dayfiles
from trio_candles.store.dayfiles import DayFile, DayFileBroken
from trio_candles.store.disk import LOCAL_DISK, REPLACING, SHARING, FileHeld, LocalDisk, held_if, system_sync
from trio_candles.store.schema import SERIES_KEY, digest_of
from trio_candles.store.store import open_store

MIDNIGHT = Millis(1_768_003_200_000)
"""2026-01-10."""
BTC = Series("kraken", "BTC/USD")
FILE = DayFile(BTC, MIDNIGHT)
CONTRACT = {
    "venue": "string", "symbol": "string", "timeframe": "string", "open_time_ms": "int64", "close_time_ms": "int64",
    "open": "double", "high": "double", "low": "double", "close": "double", "volume": "double",
    "quote_volume": "double", "vwap": "double", "trades_count": "int64", "is_closed": "bool", "source": "string",
    "ingest_time_ms": "int64",
}  # fmt: skip
"""The table of docs/contract.md, typed once more."""


def candle(minute: int, price: float = 100.0, series: Series = BTC, **changes) -> Candle:
    open_time = Millis(MIDNIGHT + minute * MINUTE)
    made = Candle(
        series, open_time, price, price + 1, price - 1, price, 2.5, 250.0, price, 7, Source.WEBSOCKET,
        Millis(open_time + MINUTE + 100), Millis(open_time + MINUTE),
    )  # fmt: skip
    return attrs.evolve(made, **changes)


def dense_day(seed: int = 1) -> list[Candle]:
    """Every minute of a day of a busy market, with numbers as real ones have them."""
    chance, price, day = random.Random(seed), 93_512.4, []
    for minute in range(1440):
        close = max(1.0, round(price + chance.gauss(0, 25), 1))
        volume = round(chance.expovariate(1 / 3), 8)
        day.append(
            candle(
                minute, open=price, close=close, high=round(max(price, close) + chance.expovariate(1 / 9), 1),
                low=round(min(price, close) - chance.expovariate(1 / 9), 1), volume=volume,
                quote_volume=volume * (price + close) / 2, vwap=(price + close) / 2 + chance.random(),
                trades_count=chance.randrange(1, 900),
                ingest_time=Millis(MIDNIGHT + (minute + 1) * MINUTE + chance.randrange(80, 900)),
                source=Source.REST if chance.random() < 0.02 else Source.WEBSOCKET,
            )
        )  # fmt: skip
        price = close
    return day


def encoded(candles) -> bytes:
    return dayfiles.encode(dayfiles.table_of(candles))


# --- what is in them


def test_the_columns_are_the_contracts_in_order_and_only_three_may_be_null(tmp_path):
    (tmp_path / "x.parquet").write_bytes(encoded([candle(0)]))
    schema = pq.read_schema(tmp_path / "x.parquet")
    assert {field.name: str(field.type) for field in schema} == CONTRACT
    assert schema.names == list(CONTRACT)
    assert [field.name for field in schema if field.nullable] == ["quote_volume", "vwap", "trades_count"]


def test_plain_pyarrow_reads_what_was_written(tmp_path):
    path = tmp_path / "x.parquet"
    path.write_bytes(encoded([candle(0), candle(1, vwap=None, quote_volume=None, trades_count=None)]))
    assert pq.read_table(str(path), use_threads=False).to_pylist() == [
        {
            "venue": "kraken", "symbol": "BTC/USD", "timeframe": "1m", "open_time_ms": MIDNIGHT,
            "close_time_ms": MIDNIGHT + 60_000, "open": 100.0, "high": 101.0, "low": 99.0, "close": 100.0,
            "volume": 2.5, "quote_volume": 250.0, "vwap": 100.0, "trades_count": 7, "is_closed": True,
            "source": "websocket", "ingest_time_ms": MIDNIGHT + 60_100,
        },
        {
            "venue": "kraken", "symbol": "BTC/USD", "timeframe": "1m", "open_time_ms": MIDNIGHT + 60_000,
            "close_time_ms": MIDNIGHT + 120_000, "open": 100.0, "high": 101.0, "low": 99.0, "close": 100.0,
            "volume": 2.5, "quote_volume": None, "vwap": None, "trades_count": None, "is_closed": True,
            "source": "websocket", "ingest_time_ms": MIDNIGHT + 120_100,
        },
    ]  # fmt: skip


def test_a_dense_day_takes_at_most_70_bytes_a_row():
    assert len(encoded(dense_day())) / 1440 <= 70


def test_the_same_rows_give_the_same_bytes():
    assert encoded(dense_day()) == encoded(dense_day())


def test_the_path_names_venue_symbol_timeframe_and_day():
    assert FILE.path == "kraken/BTC-USD/1m/2026-01-10.parquet"
    assert dayfiles.day_file(FILE.path, BTC) == FILE
    for other in ("2026-01-10", "2026-1-10", "2026-02-30", "20260110", "2026-01-10.parquet", ""):
        assert dayfiles.day_file(f"kraken/BTC-USD/1m/{other}.parquet", BTC) == (FILE if other == "2026-01-10" else None)
    assert dayfiles.day_file(FILE.path, Series("kraken", "ETH/USD")) is None


prices = st.floats(min_value=1e-300, max_value=1e300)
counts = st.none() | st.integers(0, 2**62)


@settings(deadline=None)
@given(st.dictionaries(st.integers(0, 1439), st.tuples(prices, prices, st.none() | prices, counts), max_size=30))
def test_every_float_comes_back_to_the_bit(some):
    wanted = [
        candle(minute, open=o, volume=v, vwap=vwap, quote_volume=vwap, trades_count=count)
        for minute, (o, v, vwap, count) in sorted(some.items())
    ]
    assert list(dayfiles.candles_in(dayfiles.read(encoded(wanted), FILE), BTC)) == wanted


# --- merging


@settings(deadline=None)
@given(st.sets(st.integers(0, 50)), st.sets(st.integers(0, 50)))
def test_merging_keeps_every_minute_once_in_order_and_the_old_rows_as_they_were(before, after):
    old = dayfiles.table_of([candle(minute, 10.0) for minute in sorted(before)]) if before else None
    table = dayfiles.merged(old, [candle(minute, 20.0) for minute in sorted(after)])
    assert list(dayfiles.candles_in(table, BTC)) == [
        candle(minute, 10.0 if minute in before else 20.0) for minute in sorted(before | after)
    ]
    assert dayfiles.read(dayfiles.encode(table), FILE).equals(table)


# --- nothing else passes for one


def test_a_flipped_bit_is_always_seen_by_the_digest_and_hardly_ever_missed_by_the_checksums():
    """The digest is the proof; page checksums, all there is once the ledger is lost, leave only the footer's slack."""
    content, chance, missed = encoded(dense_day()), random.Random(2), 0
    right, digest = dayfiles.read(content, FILE), digest_of(content)
    for _ in range(300):
        spoilt = bytearray(content)
        spoilt[chance.randrange(len(spoilt))] ^= 1 << chance.randrange(8)
        assert digest_of(bytes(spoilt)) != digest
        with suppress(DayFileBroken):
            missed += not dayfiles.read(bytes(spoilt), FILE).equals(right)
    assert missed <= 1


def test_every_page_carries_a_checksum():
    """Each flip inside the pages is found, where plain parquet without them hands out wrong prices."""
    content, chance = encoded(dense_day()), random.Random(3)
    pages = pq.ParquetFile(pa.BufferReader(content)).metadata.row_group(0)
    for column in (pages.column(number) for number in range(pages.num_columns)):
        if column.physical_type == "DOUBLE":  # one long page each, most of it data
            for _ in range(10):
                spoilt = bytearray(content)
                end = column.data_page_offset + column.total_compressed_size
                spoilt[end - 1 - chance.randrange(column.total_compressed_size // 2)] ^= 1 << chance.randrange(8)
                with pytest.raises(DayFileBroken, match="CRC"):
                    dayfiles.read(bytes(spoilt), FILE)


@pytest.mark.parametrize("length", [0, 1, 4, 100, -1, -8, -100])
def test_a_truncated_file_is_broken(length):
    content = encoded([candle(0)])
    with pytest.raises(DayFileBroken):
        dayfiles.read(content[:length], FILE)


TABLE = dayfiles.table_of([candle(0), candle(1)])
OTHERS = {
    "another venue": dayfiles.table_of([candle(0, series=Series("okx", "BTC-USD"))]),
    "another symbol": dayfiles.table_of([candle(0), candle(1, series=Series("kraken", "ETH/USD"))]),
    "another timeframe": dayfiles.table_of([candle(0, series=Series("kraken", "BTC/USD", "5m"))]),
    "the next day": dayfiles.table_of([candle(1440)]),
    "the day before": dayfiles.table_of([candle(-1)]),
    "between two minutes": dayfiles.table_of([candle(0, open_time=Millis(MIDNIGHT + 1))]),
    "unsorted": dayfiles.table_of([candle(1), candle(0)]),
    "a row twice": dayfiles.table_of([candle(0), candle(0)]),
    "a column less": TABLE.drop_columns(["vwap"]),
    "a column more": TABLE.append_column("x", pa.array([1, 2])),
    "another order": TABLE.select([*TABLE.column_names[1:], TABLE.column_names[0]]),
    "another type": TABLE.set_column(12, "trades_count", pa.array([1.0, 2.0])),
    "nullable": TABLE.cast(pa.schema([pa.field(f.name, f.type) for f in TABLE.schema])),
}


@pytest.mark.parametrize("what", OTHERS)
def test_foreign_content_is_broken(what):
    with pytest.raises(DayFileBroken, match=f"^{re.escape(FILE.path)}: "):
        dayfiles.read(dayfiles.encode(OTHERS[what]), FILE)


def test_somebody_elses_parquet_is_broken(tmp_path):
    pq.write_table(pa.table({"a": [1]}), str(tmp_path / "x.parquet"))
    with pytest.raises(DayFileBroken, match="other columns"):
        dayfiles.read((tmp_path / "x.parquet").read_bytes(), FILE)


def test_a_file_is_identified_by_its_rows_and_its_place():
    file, table, _ = dayfiles.identify(encoded([candle(0)]), FILE.path)
    assert (file, table.num_rows) == (FILE, 1)


def test_a_file_says_whose_it_is_where_its_symbol_does_not_tell_the_folder():
    series = Series("kraken", "XBTUSD", folder="BTC-USD")
    rows = dayfiles.table_of([candle(0, series=series)])
    file, table, _ = dayfiles.identify(dayfiles.encode(rows, series), FILE.path)
    assert (file.series.symbol, file.series.folder) == ("XBTUSD", "BTC-USD")
    assert table.equals(rows, check_metadata=True)
    with pytest.raises(DayFileBroken):
        dayfiles.identify(dayfiles.encode(rows), FILE.path)


@pytest.mark.parametrize(
    "said",
    [
        b'{"venue": "kraken", "symbol": "ETH/USD", "folder": "BTC-USD"}', b"[]", b'{"folder": 7}', b"{", b"\xff",
        b'{"venue": "kraken", "symbol": "BTC/USD", "folder": "../BTC-USD"}', b'{"venue": "kraken"}',
    ],
)  # fmt: skip
def test_rows_that_do_not_agree_with_what_their_file_says_are_broken(said):
    content = dayfiles.encode(TABLE.replace_schema_metadata({SERIES_KEY: said}))
    for read in (lambda: dayfiles.read(content, FILE), lambda: dayfiles.identify(content, FILE.path)):
        with pytest.raises(DayFileBroken, match=f"^{re.escape(FILE.path)}: "):
            read()


@pytest.mark.parametrize("what", ["another symbol", "the next day", "unsorted", "a column less", "nullable"])
def test_foreign_content_is_not_identified(what):
    with pytest.raises(DayFileBroken):
        dayfiles.identify(dayfiles.encode(OTHERS[what]), FILE.path)


@pytest.mark.parametrize(
    ("series", "path"),
    [
        (Series("kraken", "ETH/USD"), FILE.path),
        (BTC, "kraken/BTC-USD/1m/other.parquet"),
        (Series("kraken", "../../x"), FILE.path),
        (Series("kraken", "BTC/USD", "7m"), "kraken/BTC-USD/7m/2026-01-10.parquet"),
    ],
)
def test_rows_that_name_another_place_are_not_identified(series, path):
    with pytest.raises(DayFileBroken):
        dayfiles.identify(encoded([candle(0, series=series)]), path)


def test_a_file_without_rows_is_not_identified():
    with pytest.raises(DayFileBroken, match="no rows"):
        dayfiles.identify(encoded([]), FILE.path)


# --- the steps on a disk


def test_a_temporary_file_is_new_and_whole(tmp_path):
    path = tmp_path / "x"
    dayfiles.write_temporary(LOCAL_DISK, path, b"abc" * 100_000)
    assert path.read_bytes() == b"abc" * 100_000
    with pytest.raises(FileExistsError):
        LOCAL_DISK.write_new(path, b"other")


class Short(LocalDisk):
    """A disk that says it has written what it has not."""

    def write_new(self, path: Path, content: bytes) -> None:
        super().write_new(path, content[7:])


class Recording(LocalDisk):
    """The real disk, its syncs and replacements in the order in which they came."""

    def __init__(self) -> None:
        self.did: list[tuple] = []
        super().__init__(self._sync)

    def _sync(self, handle: int) -> None:
        os.fsync(handle)
        found = os.fstat(handle)
        self.did.append(("sync", found.st_ino, found.st_size if stat.S_ISREG(found.st_mode) else "folder"))

    def replace(self, source: Path, target: Path) -> None:
        self.did.append(("replace", source.stat().st_ino, target.name))
        super().replace(source, target)


def test_a_new_file_is_synced_whole_before_it_counts(tmp_path):
    disk = Recording()
    for number in range(3):
        disk.write_new(tmp_path / str(number), b"x" * 100_000)
        assert disk.did[number:] == [("sync", (tmp_path / str(number)).stat().st_ino, 100_000)]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no sync of a folder")
def test_a_folder_that_is_to_be_synced_is(tmp_path):
    disk = Recording()
    disk.sync_folder(tmp_path)
    assert disk.did == [("sync", tmp_path.stat().st_ino, "folder")]


def test_a_failing_sync_is_not_kept_quiet(tmp_path):
    def fail(handle: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(OSError, match="Input/output error"):
        LocalDisk(fail).write_new(tmp_path / "x", b"abc")
    if sys.platform != "win32":
        with pytest.raises(OSError, match="Input/output error"):
            LocalDisk(fail).sync_folder(tmp_path)
    with pytest.raises(OSError, match="Input/output error"):
        dayfiles.write_temporary(LocalDisk(fail), tmp_path / "y", b"abc")
    assert not (tmp_path / "y").exists()


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS has more than fsync")
def test_the_disk_in_use_syncs_as_the_system_does():
    assert LOCAL_DISK.sync is os.fsync


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no sync of a folder")
@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EBADF])
def test_a_file_system_that_does_not_sync_folders_is_borne_and_said_once(tmp_path, caplog, number):
    def files_only(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(number, os.strerror(number))

    disk = LocalDisk(files_only)
    for _ in range(3):
        disk.sync_folder(tmp_path)
    (said,) = [record.getMessage() for record in caplog.records]
    assert str(tmp_path) in said
    assert os.strerror(number) in said


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no sync of a folder")
def test_on_a_file_system_that_does_not_sync_folders_one_collects_all_the_same(tmp_path):
    def files_only(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")

    with open_store(tmp_path, LocalDisk(files_only)) as store:
        stores.expect(store)
        store.commit(stores.candles(-3, 3), stores.LATE)
        assert stores.flush(store).error is None
    with open_store(tmp_path) as store:
        assert store.waiting() == []


@attrs.define
class Control:
    """The module fcntl of a system that has a fuller sync than fsync; *number* is what the sync says."""

    number: int = 0
    F_FULLFSYNC: int = 51
    did: list[tuple[int, int]] = attrs.field(factory=list)

    def fcntl(self, handle: int, command: int) -> None:
        self.did.append((handle, command))
        if self.number:
            raise OSError(self.number, os.strerror(self.number))


@pytest.mark.parametrize("number", [0, errno.ENOTSUP])
def test_where_a_disk_has_memory_of_its_own_a_sync_empties_that_too(tmp_path, number):
    """As on macOS; a file system there that cannot is synced as far as it goes."""
    control = Control(number)
    LocalDisk(system_sync(control)).write_new(tmp_path / "x", b"abc")
    assert [command for _, command in control.did] == [51]
    assert (tmp_path / "x").read_bytes() == b"abc"


def test_a_fuller_sync_that_fails_is_not_kept_quiet(tmp_path):
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        LocalDisk(system_sync(Control(errno.EIO))).write_new(tmp_path / "x", b"abc")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no sync of a folder")
def test_a_flush_syncs_each_file_before_it_is_put_in_its_place_and_each_folder_after(tmp_path):
    other = Series("okx", "BTC-USDT")
    with open_store(tmp_path, disk := Recording()) as store:
        store.expect([BTC, other], MIDNIGHT, MIDNIGHT)
        for minute in (0, 1):  # into new folders, and into those that are there
            store.commit([candle(minute), candle(minute, series=other)], Millis(MIDNIGHT + DAY))
            disk.did.clear()
            assert store.flush(store.waiting()).error is None
            replaced = [step for step in disk.did if step[0] == "replace"]
            assert len(replaced) == 2
            for step in replaced:
                before = disk.did[: disk.did.index(step)]
                assert [what[0] for what in before if what[1] == step[1]] == ["sync"]
            after = disk.did[disk.did.index(replaced[-1]) + 1 :]
            folders = [(tmp_path / one.path).stat().st_ino for one in (BTC, other)]
            assert after == [("sync", inode, "folder") for inode in folders]
            sizes = {(tmp_path / DayFile(one, MIDNIGHT).path).stat().st_size for one in (BTC, other)}
            assert sizes == {what[2] for what in disk.did if what[0] == "sync"} - {"folder"}
            if minute == 0:  # the names of the new folders as well, before a file is in them
                steps = [tmp_path, tmp_path / "kraken", tmp_path / "kraken" / "BTC-USD"]
                before = disk.did[: disk.did.index(replaced[0])]
                assert {("sync", step.stat().st_ino, "folder") for step in steps} <= set(before)


def test_a_lying_disk_is_caught_and_its_file_removed(tmp_path):
    with pytest.raises(OSError, match="read back"):
        dayfiles.write_temporary(Short(), tmp_path / "x", b"abcdefghijk")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_says_so_in_its_own_words(tmp_path):
    class Full(LocalDisk):
        def write_new(self, path: Path, content: bytes) -> None:
            with open("/dev/full", "wb", buffering=0) as file:
                file.write(content)

    with pytest.raises(OSError, match="No space left on device"):
        dayfiles.write_temporary(Full(), tmp_path / "x", b"abc")


def test_a_file_set_aside_takes_nobodys_place(tmp_path):
    aside = []
    for content in (b"1", b"2", b"3"):
        (tmp_path / "a").mkdir(exist_ok=True)
        (tmp_path / "a" / "x.parquet").write_bytes(content)
        aside.append(dayfiles.set_aside(LOCAL_DISK, tmp_path, "a/x.parquet"))
    assert aside == [f"quarantine/a_x.parquet.{n}" for n in range(3)]
    assert [(tmp_path / path).read_bytes() for path in aside] == [b"1", b"2", b"3"]
    (tmp_path / aside[0]).unlink()
    (tmp_path / "a" / "x.parquet").write_bytes(b"4")
    assert dayfiles.set_aside(LOCAL_DISK, tmp_path, "a/x.parquet") == aside[0]
    assert (tmp_path / aside[2]).read_bytes() == b"3"


def test_what_lies_in_a_folder_that_is_none_is_nothing(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    assert LOCAL_DISK.names(tmp_path / "file") == LOCAL_DISK.names(tmp_path / "none") == []
    assert LOCAL_DISK.names(tmp_path) == ["file"]
    LOCAL_DISK.remove(tmp_path / "none")


def test_only_windows_own_codes_mean_that_a_file_is_held():
    error = PermissionError(13, "Permission denied")
    with pytest.raises(PermissionError), held_if(REPLACING):
        raise error
    error.winerror = 5
    with pytest.raises(PermissionError), held_if(SHARING):
        raise error
    with pytest.raises(FileHeld, match="Permission denied"), held_if(REPLACING):
        raise error


def test_a_year_has_a_file_a_day():
    names = {DayFile(BTC, Millis(MIDNIGHT + n * DAY)).path for n in range(365)}
    assert len(names) == 365
    assert max(names) == "kraken/BTC-USD/1m/2027-01-09.parquet"
