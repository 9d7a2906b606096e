"""The reader: every answer is complete or says why not, whatever the collector does meanwhile."""

from __future__ import annotations

import operator
import os
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pyarrow as pa
import pytest
from directories import (
    BTC,
    ETH,
    LATE,
    MIDNIGHT,
    Truth,
    at,
    bring_down,
    candle,
    flush,
    left_by_a_killed_collector,
    make,
    put_into_journal,
    row,
    sql,
    tell,
    verdicts,
    write_day_file,
)
from hypothesis import given, settings
from hypothesis import strategies as st

import trio_candles
from trio_candles import (
    DayFileDamaged,
    GapError,
    LedgerUnreadable,
    NoSuchDirectory,
    ReadError,
    UnknownSeries,
    coverage,
    read_candles,
)
from trio_candles.candles.model import DAY, MINUTE, Millis, Reason, Series, Source, Timeframe, Unsure
from trio_candles.candles.times import unix_ms
from trio_candles.reading.errors import NoLedger
from trio_candles.reading.files import DayFiles, FileChanged
from trio_candles.reading.ledger import open_ledger
from trio_candles.reading.plan import Request, plan
from trio_candles.store.disk import LocalDisk
from trio_candles.store.identity import remembered_meta
from trio_candles.store.schema import COLUMNS, JOURNAL
from trio_candles.store.store import open_store
from trio_candles.venues.registry import VENUES

REPOSITORY = Path(__file__).resolve().parents[2]


def minutes(table) -> list[int]:
    return [(time - MIDNIGHT) // MINUTE for time in table.column("open_time_ms").to_pylist()]


def read(root: Path, *args, **options):
    return read_candles(root, "okx", "BTC-USDT", *args, **options)


@pytest.fixture(scope="module")
def in_memory():
    """A folder in memory where the system has one."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


# --- one table


def test_day_files_and_journal_are_one_table_of_the_contracts_columns(tmp_path):
    make(tmp_path, "s" * 10, first=-4, flush_at=[2])
    assert sql(tmp_path, "SELECT count(*) FROM candle") == [(4,)]
    table = read(tmp_path)
    assert table.schema.equals(COLUMNS, check_metadata=True)
    assert table.to_pylist() == [row(candle(minute)) for minute in range(-4, 6)]


def test_a_candle_repaired_before_those_in_its_file_comes_in_its_place(tmp_path):
    with open_store(tmp_path) as store:
        tell(store, "sgss", flush_at=[4])
        store.commit([candle(1)], LATE)
        assert minutes(read(tmp_path)) == [0, 1, 2, 3]


def test_a_candle_in_the_journal_replaces_the_one_in_the_day_file(tmp_path):
    """As while a revision waits for its flush."""
    make(tmp_path, "sss", flush_at=[3])
    put_into_journal(tmp_path, candle(1, source=Source.REST, close=100_001.0))
    table = read(tmp_path)
    assert minutes(table) == [0, 1, 2]
    assert table.column("source").to_pylist() == ["websocket", "rest", "websocket"]


def test_a_series_without_a_minute_yet_is_an_empty_table(tmp_path):
    make(tmp_path, "")
    assert read(tmp_path).num_rows == 0
    assert read(tmp_path).schema.equals(COLUMNS)
    assert read(tmp_path, fill="previous", timeframe="1h").num_rows == 0


@pytest.mark.parametrize("spelling", ["BTCUSDT", "btcusdt", "BTC-USDT", "btc/usdt"])
def test_a_symbol_without_a_separator_is_found_in_the_folder_that_the_ledger_names(tmp_path, spelling):
    make(tmp_path, "ssse", flush_at=[2])
    sql(tmp_path, "UPDATE series SET symbol = 'BTCUSDT', folder = 'BTC-USDT'")
    assert minutes(read_candles(tmp_path, "okx", spelling)) == [0, 1, 2]
    assert coverage(tmp_path, "okx", spelling).column("symbol").to_pylist() == ["BTCUSDT"] * 2


@pytest.mark.parametrize("spelling", ["ETH/USD", "ETH-USD", "eth-usd"])
def test_a_symbol_is_found_as_the_venue_writes_it_and_as_its_folder_is_called(tmp_path, spelling):
    make(tmp_path, "ss", series=ETH)
    table = read_candles(str(tmp_path), "kraken", spelling)
    assert table.column("symbol").to_pylist() == ["ETH/USD"] * 2


def test_columns_come_as_asked_for_and_in_that_order(tmp_path):
    make(tmp_path, "ssss", flush_at=[2])
    table = read(tmp_path, columns=["close", "venue", "open_time_ms"])
    assert table.column_names == ["close", "venue", "open_time_ms"]
    assert table.field("close") == COLUMNS.field("close")
    assert read(tmp_path, columns=("close",)).column("close").to_pylist() == [candle(n).close for n in range(4)]
    assert read(tmp_path, columns=[]).num_columns == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"columns": ["clsoe"]}, "unknown column 'clsoe'; did you mean close?"),
        ({"columns": ["zzz"]}, "known: venue, symbol"),
        ({"columns": ["filled"]}, "unknown column 'filled'"),
        ({"columns": ["open", "open"]}, "a column is named twice"),
        ({"columns": "close"}, "expected a list of names"),
        ({"on_gap": "skip"}, "on_gap is 'skip'"),
        ({"fill": "zero"}, "fill is 'zero'"),
        ({"timeframe": "7m"}, "does not divide a day"),
        ({"start": "yesterday"}, "'yesterday' is no UTC date, ISO time or Unix ms"),
        ({"start": datetime(2026, 1, 11)}, "names no time zone"),  # that is the point
        ({"end": 1_768_089_600}, "looks like seconds"),
        ({"start": "2026-01-12", "end": "2026-01-11"}, "is after end"),
    ],
)
def test_arguments_without_sense_are_refused(tmp_path, options, words):
    make(tmp_path, "ss")
    with pytest.raises(ValueError, match=words.replace("(", r"\(")):
        read(tmp_path, **options)


# --- times


BERLIN_SUMMER = timezone(timedelta(hours=2))


@pytest.mark.parametrize(
    ("value", "time"),
    [
        ("2026-01-11", MIDNIGHT),
        ("2026-01-11T00:00", MIDNIGHT),
        ("2026-01-11 00:00:00Z", MIDNIGHT),
        ("2026-01-11T02:00:00.5+02:00", MIDNIGHT + 500),
        ("20260111", MIDNIGHT),
        (str(MIDNIGHT), MIDNIGHT),
        (MIDNIGHT, MIDNIGHT),
        (0, 0),
        (date(2026, 1, 11), MIDNIGHT),
        (datetime(2026, 1, 11, tzinfo=UTC), MIDNIGHT),
        (datetime(2026, 1, 11, 2, tzinfo=BERLIN_SUMMER), MIDNIGHT),
    ],
)
def test_times_are_read_as_people_write_them(value, time):
    assert unix_ms(value) == time


class Numpy:
    """An integer that is not Python's, as numpy has them."""

    def __init__(self, value: object) -> None:
        self.value = value

    def __index__(self) -> int:
        return operator.index(self.value)


@pytest.mark.parametrize(
    "value",
    [
        Numpy(MIDNIGHT), pa.scalar(MIDNIGHT), pa.scalar(MIDNIGHT, pa.int64()), pa.scalar("2026-01-11"),
        pa.scalar(date(2026, 1, 11)), pa.scalar(datetime(2026, 1, 11, tzinfo=UTC)),
        pa.table({"open_time_ms": [MIDNIGHT]}).column("open_time_ms")[0],
    ],
)  # fmt: skip
def test_a_time_that_came_out_of_a_table_is_a_time(tmp_path, value):
    assert unix_ms(value) == MIDNIGHT
    make(tmp_path, "sss")
    assert minutes(read(tmp_path, start=value)) == [0, 1, 2]
    assert coverage(tmp_path, start=value).num_rows == 1


@pytest.mark.parametrize("value", [pa.scalar(1.5), pa.scalar(None), pa.scalar(True), Numpy(1.5), [MIDNIGHT], [1, 2]])
def test_a_value_of_a_table_that_is_no_time_is_refused(value):
    with pytest.raises(TypeError, match="is no time"):
        unix_ms(value)


@pytest.mark.parametrize("value", [1.5, None, True, b"2026-01-11", timedelta(1)])
def test_what_is_no_time_is_refused(value):
    with pytest.raises(TypeError, match="is no time"):
        unix_ms(value)


@pytest.mark.parametrize("value", ["", "2026-13-01", "2026-01-11T25:00", "-5", "99999999999999999", 10**14, "1e12"])
def test_what_means_no_certain_time_is_refused(value):
    with pytest.raises(ValueError, match=r"2026|-5|9999|1e12|is no|1000"):
        unix_ms(value)


def test_the_hour_that_a_clock_shows_twice_is_two_hours(tmp_path):
    try:
        berlin = ZoneInfo("Europe/Berlin")
    except ZoneInfoNotFoundError:
        pytest.skip("this system has no time zones")

    first, second = (unix_ms(datetime(2026, 10, 25, 2, 30, tzinfo=berlin, fold=fold)) for fold in (0, 1))
    assert (first, second) == (unix_ms("2026-10-25T00:30"), unix_ms("2026-10-25T01:30"))


@pytest.mark.parametrize(
    ("start", "end", "found"),
    [
        (None, None, [-2, -1, 0, 1]),
        ("2026-01-11", None, [0, 1]),
        (None, "2026-01-11", [-2, -1]),
        (at(-1), at(1), [-1, 0]),
        (at(-1) + 1, at(0) + 1, [0]),  # a candle opens in the range, or it does not
        (at(0), at(0), []),
        (at(2), None, []),
        (at(100), None, []),  # nothing is accounted for there yet: nothing new for somebody who polls
    ],
)
def test_a_range_is_of_open_times_and_half_open(tmp_path, start, end, found):
    make(tmp_path, "ssss", first=-2, flush_at=[1])
    assert minutes(read(tmp_path, start=start, end=end)) == found


# --- gaps


def test_a_gap_in_the_range_raises_and_says_what_is_not_known(tmp_path):
    make(tmp_path, "sgguss", first=-2)
    with pytest.raises(GapError) as caught:
        read(tmp_path)
    assert isinstance(caught.value, ReadError)
    assert [(gap.since, gap.until, gap.state, gap.reason, gap.attempts) for gap in caught.value.gaps] == [
        (at(-1), at(1), "gap", "disconnected", 0),
        (at(1), at(2), "unfillable", "disconnected", 2),
    ]
    assert caught.value.minutes == 3
    assert str(caught.value) == (
        "okx BTC-USDT 1m: 3 minutes are not known:"
        " 2026-01-10 23:59 to 2026-01-11 00:01 (2 min, disconnected);"
        " 2026-01-11 00:01 to 00:02 (1 min, unfillable: disconnected)"
    )
    assert minutes(read(tmp_path, on_gap="ignore")) == [-2, 2, 3]
    assert minutes(read(tmp_path, start=at(2))) == [2, 3]
    assert minutes(read(tmp_path, end=at(-1))) == [-2]


def test_minutes_outside_of_what_is_accounted_for_are_not_known_either(tmp_path):
    make(tmp_path, "ss")
    with pytest.raises(GapError, match="before the first expected minute") as caught:
        read(tmp_path, start=at(-1))
    assert [(gap.since, gap.until) for gap in caught.value.gaps] == [(at(-1), at(0))]
    with pytest.raises(GapError, match="not accounted for yet") as caught:
        read(tmp_path, end=at(4))
    assert [(gap.since, gap.until) for gap in caught.value.gaps] == [(at(2), at(4))]
    assert minutes(read(tmp_path, start=at(-1), end=at(4), on_gap="ignore")) == [0, 1]


def test_a_message_about_many_gaps_stays_short(tmp_path):
    make(tmp_path, "sg" * 30)
    with pytest.raises(GapError, match=r"30 minutes are not known.*and 25 more$"):
        read(tmp_path, end=at(60))


@pytest.mark.parametrize(
    ("tail", "found"),
    [
        ([(1, Reason.UNPROVEN)], [0, 1]),
        ([(1, Reason.NO_CLOSE), (2, Reason.UNPROVEN)], [0, 1]),
        ([(5, Reason.UNPROVEN)], [0, 1]),
        ([(6, Reason.UNPROVEN)], None),
        ([(1, Reason.DISCONNECTED)], [0, 1]),  # the minute in which the collector came, or went
        ([(5, Reason.COLLECTOR_DOWN), (1, Reason.UNPROVEN)], None),
        ([(1, Reason.UNPROVEN), (1, None)], None),  # newer ones are known
    ],
)
def test_the_newest_minutes_that_are_still_being_proven_are_not_part_of_everything(tmp_path, tail, found):
    """Else reading a quiet symbol up to now would fail most of the time, beside the healthiest collector."""
    with open_store(tmp_path) as store:
        tell(store, "ss")
        minute = 2
        for length, reason in tail:
            unsure = reason and Unsure(BTC, at(minute), at(minute + length), reason)
            store.commit([unsure or candle(minute)], LATE)
            minute += length
        if found is None:
            with pytest.raises(GapError):
                read(tmp_path)
        else:
            assert minutes(read(tmp_path)) == found
        with pytest.raises(GapError):
            read(tmp_path, end=at(minute))


def test_what_the_venue_no_longer_serves_is_not_on_its_way(tmp_path):
    with open_store(tmp_path) as store:
        tell(store, "ss")
        store.commit([Unsure(BTC, at(2), at(3), Reason.UNPROVEN)], LATE)
    sql(tmp_path, "UPDATE gap SET state = 'unfillable'")
    with pytest.raises(GapError, match="unfillable: unproven"):
        read(tmp_path)


def test_minutes_before_the_listing_are_no_gap(tmp_path):
    make(tmp_path, "s" * 10, first=3)
    sql(tmp_path, "INSERT INTO listing SELECT id, first_ms, 'the venue said so' FROM series")
    assert minutes(read(tmp_path, start=at(-100))) == list(range(3, 13))
    assert minutes(read(tmp_path, "5m", start=at(-100), fill="previous")) == [0, 5]
    assert minutes(read(tmp_path, "5m")) == [0, 5]
    (span,) = coverage(tmp_path).to_pylist()
    assert (span["since_ms"], span["until_ms"]) == (at(3), at(13))


# --- filling


def test_filling_makes_flat_bars_of_empty_minutes_and_marks_them(tmp_path):
    make(tmp_path, "esees", first=-2, flush_at=[1])
    table = read(tmp_path, fill="previous")
    assert table.schema.names == [*COLUMNS.names, "filled"]
    assert table.column("filled").to_pylist() == [False, True, True, False]
    assert table.to_pylist() == Truth("esees", -2).rows(-2, 3, fill=True)
    assert "filled" not in read(tmp_path).column_names


def test_filling_goes_on_from_a_candle_before_the_range(tmp_path):
    make(tmp_path, "seee")
    table = read(tmp_path, start=at(2), fill="previous", columns=["close"])
    assert table.to_pylist() == [{"close": candle(0).close, "filled": True}] * 2


def test_no_bar_is_made_up_after_a_gap(tmp_path):
    """Nobody knows the price at which the gap ended."""
    make(tmp_path, "sgees")
    assert minutes(read(tmp_path, fill="previous", on_gap="ignore")) == [0, 4]
    assert minutes(read(tmp_path, start=at(2), fill="previous")) == [4]


# --- higher timeframes


def test_a_timeframe_that_is_in_no_day_file_is_folded_from_the_minutes(tmp_path):
    word = "sqesseeeeessgss"
    make(tmp_path, word, first=-10, flush_at=[2])
    found = read(tmp_path, "5m", on_gap="ignore")
    assert found.schema.equals(COLUMNS)
    assert found.to_pylist() == Truth(word, -10).rows(-10, 5, "5m")
    assert minutes(found) == [-10]


def test_sums_are_exact(tmp_path):
    """Ten tenths are one; added one by one in binary they are a bit less."""
    with open_store(tmp_path) as store:
        store.expect([BTC], at(0), at(0))
        store.commit([candle(minute, volume=0.1, quote_volume=0.1) for minute in range(10)], LATE)
    (ten,) = read(tmp_path, "10m").to_pylist()
    assert (ten["volume"], ten["quote_volume"], ten["vwap"]) == (1.0, 1.0, 1.0)


def test_aggregates_in_day_files_are_read_from_there(tmp_path):
    make(tmp_path, "s" * 10, flush_at=[10])
    rows = Truth("s" * 10, 0).rows(0, 10, "5m")
    rows[0]["ingest_time_ms"] = 42  # so that it shows where the row came from
    write_day_file(tmp_path, Series("okx", "BTC-USDT", "5m"), rows)
    assert read(tmp_path, "5m").to_pylist() == rows


@pytest.mark.parametrize("change", ["a candle in the journal", "underived"])
def test_an_aggregate_that_does_not_follow_its_minutes_yet_is_derived_anew(tmp_path, change):
    word = "s" * 10
    make(tmp_path, word, flush_at=[10])
    stale = Truth(word, 0).rows(0, 10, "5m")
    for one in stale:
        one["open"] = 1e9
    write_day_file(tmp_path, Series("okx", "BTC-USDT", "5m"), stale)
    if change == "underived":
        sql(tmp_path, "INSERT INTO underived (series_id, since_ms, until_ms) SELECT id, ?, ? FROM series", at(6), at(7))
    else:
        put_into_journal(tmp_path, candle(6))
    assert read(tmp_path, "5m").to_pylist() == [stale[0], Truth(word, 0).rows(5, 10, "5m")[0]]


def test_an_aggregate_over_a_gap_is_not_shown(tmp_path):
    """As after a minute's day file was lost, until the aggregates follow."""
    make(tmp_path, "ssgssssssss", flush_at=[11])
    write_day_file(tmp_path, Series("okx", "BTC-USDT", "5m"), Truth("s" * 10, 0).rows(0, 10, "5m"))
    assert minutes(read(tmp_path, "5m", on_gap="ignore")) == [5]
    with pytest.raises(GapError, match="BTC-USDT 5m: 1 minutes"):
        read(tmp_path, "5m")


def test_the_period_that_runs_is_no_part_of_everything(tmp_path):
    make(tmp_path, "s" * 13, first=2)
    assert minutes(read(tmp_path, "5m")) == [5, 10]
    assert minutes(read(tmp_path, "1h")) == []
    with pytest.raises(GapError):
        read(tmp_path, "5m", start=at(0), end=at(10))
    with pytest.raises(GapError):
        read(tmp_path, "5m", end=at(16))


# --- what the store does meanwhile


class Watched(LocalDisk):
    """Has somebody look before and after each of its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.look = lambda: None

    def _watched(name):
        def call(self, *args):
            self.look()
            try:
                return getattr(LocalDisk, name)(self, *args)
            finally:
                self.look()

        return call

    read, names, write_new, replace, remove, make_folder, sync_folder = map(
        _watched, ("read", "names", "write_new", "replace", "remove", "make_folder", "sync_folder")
    )


def test_every_answer_in_the_middle_of_a_flush_is_complete(tmp_path):
    disk = Watched()
    word = "ssgseqesssss"
    with open_store(tmp_path, disk) as store:
        tell(store, word[:5], first=-3, flush_at=[0])  # yesterday's file is there, today's is not
        store.commit([verdicts(letter, minute) for minute, letter in enumerate(word[5:], 2)], LATE)
        store.commit([candle(-1)], LATE)  # was a gap
        truth = Truth(word.replace("g", "s"), -3)
        answers = []

        def look() -> None:
            answers.append((read(tmp_path).to_pylist(), read(tmp_path, "5m", on_gap="ignore").to_pylist()))

        disk.look = look
        flush(store)
        disk.look = lambda: None
    assert len(answers) > 10
    assert all(answer == (truth.rows(-3, 9), truth.rows(-3, 9, "5m")) for answer in answers)


def test_a_day_file_replaced_after_the_ledger_was_read_sends_the_reader_back(tmp_path):
    request = Request("okx", "BTC-USDT", Timeframe.parse("1m"), None, None)
    with open_store(tmp_path) as store:
        tell(store, "ss", flush_at=[2])
        store.commit([candle(2)], LATE)
        with open_ledger(tmp_path) as ledger:
            planned = plan(ledger, request)
        files = DayFiles(tmp_path)
        assert minutes(files.read(planned.minute_files, ["open_time_ms"])) == [0, 1]
        flush(store)
        with pytest.raises(FileChanged):
            DayFiles(tmp_path).read(planned.minute_files, ["open_time_ms"])
        with open_ledger(tmp_path) as ledger:
            again = plan(ledger, request)
        assert minutes(files.read(again.minute_files, ["open_time_ms"])) == [0, 1, 2]
        assert minutes(read(tmp_path)) == [0, 1, 2]


def test_reading_without_pause_beside_a_store_that_flushes_without_pause_is_always_complete(in_memory):
    root = in_memory / "busy"
    done = threading.Event()
    committed = [0]
    problems: list[object] = []

    def look() -> None:
        while not done.is_set():
            before = committed[0]
            try:
                found = minutes(read(root))
            except ReadError as error:
                problems.append(error)
                return
            if found != list(range(len(found))) or len(found) < before:
                problems.append((before, found))

    with open_store(root) as store:
        tell(store, "s")
        committed[0] = 1
        reader = threading.Thread(target=look)
        reader.start()
        try:
            for minute in range(1, 60):
                store.commit([candle(minute)], LATE)
                committed[0] = minute + 1
                flush(store)
        finally:
            done.set()
            reader.join()
    assert not problems


# --- directories that are not as they should be


def test_what_a_killed_collector_left_in_its_log_is_read(tmp_path):
    with left_by_a_killed_collector(tmp_path / "live", tmp_path / "killed", "ssessss") as killed:
        assert read(killed).to_pylist() == Truth("ssessss", 0).rows(0, 7)


@pytest.mark.skipif(sys.platform == "win32", reason="a folder cannot be made read-only there")
def test_a_read_only_directory_is_read_and_left_as_it_was():
    """Not below ``tmp_path``, whose parents other tests share: root may write anywhere, so that the reader runs as
    nobody, who must be let in."""
    code = (
        "import os, sys, trio_candles\n"
        "read = trio_candles.read_candles\n"
        "os.geteuid() or os.setuid(65534)\n"
        "print(read(sys.argv[1], 'okx', 'BTC-USDT').num_rows)\n"
        "from pathlib import Path; from trio_candles.store.identity import remembered_meta\n"
        "print(sorted(remembered_meta(Path(sys.argv[1]))))"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        with left_by_a_killed_collector(folder / "live", folder / "killed", "ssessss") as killed:
            before = sorted(path.name for path in killed.iterdir())
            killed.chmod(0o555)
            done = subprocess.run(
                [sys.executable, "-c", code, str(killed)], cwd="/", capture_output=True, text=True, timeout=60,
                check=False, env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            )  # fmt: skip
            killed.chmod(0o755)
            assert (done.stdout, done.stderr) == (f"6\n{sorted(remembered_meta(folder / 'live'))}\n", "")
            assert sorted(path.name for path in killed.iterdir()) == before


AFTER = "okx/BTC-USDT/1m/2026-01-11.parquet"


@pytest.mark.parametrize("harm", ["flipped", "deleted", "an older one"])
def test_a_day_file_that_is_not_the_ledgers_is_not_read(tmp_path, harm):
    make(tmp_path, "ssss", first=-2, flush_at=[1])
    path = tmp_path / AFTER
    older = path.read_bytes()
    with open_store(tmp_path) as store:
        flush(store)
    match harm:
        case "flipped":
            content = bytearray(path.read_bytes())
            content[len(content) // 2] ^= 1
            path.write_bytes(content)
        case "deleted":
            path.unlink()
        case _:
            path.write_bytes(older)
    with pytest.raises(DayFileDamaged, match=AFTER) as caught:
        read(tmp_path)
    assert caught.value.path == AFTER
    with pytest.raises(DayFileDamaged):
        read(tmp_path, "2m", on_gap="ignore", columns=["open"])
    assert minutes(read(tmp_path, end="2026-01-11")) == [-2, -1]


def test_a_minute_that_is_nowhere_is_not_missing_silently(tmp_path):
    make(tmp_path, "sss")
    sql(tmp_path, "DELETE FROM candle WHERE open_ms = ?", at(1))
    for timeframe in ("1m", "3m"):
        with pytest.raises(LedgerUnreadable, match="3 minutes are stored, and 2 are"):
            read(tmp_path, timeframe, on_gap="ignore")


@pytest.mark.parametrize("order", [(0, 0, 2), (1, 0, 2)])
def test_a_day_file_out_of_order_is_not_passed_on(tmp_path, order):
    """Nor if its digest is right: that would be the collector's own mistake."""
    make(tmp_path, "sss", flush_at=[3])
    write_day_file(tmp_path, BTC, [row(candle(minute)) for minute in order])
    for timeframe in ("1m", "3m"):
        with pytest.raises(LedgerUnreadable, match="not sorted, or one is there twice"):
            read(tmp_path, timeframe)


def test_a_directory_that_is_not_there_is_said(tmp_path):
    with pytest.raises(NoSuchDirectory, match="nowhere: no such directory"):
        read(tmp_path / "nowhere")
    with pytest.raises(LedgerUnreadable, match=f"there is no {JOURNAL}"):
        read(tmp_path)
    with pytest.raises(LedgerUnreadable, match=f"there is no {JOURNAL}"):
        coverage(tmp_path)


def test_a_directory_in_which_nothing_can_be_looked_up_is_not_one_without_a_ledger(tmp_path):
    with pytest.raises(LedgerUnreadable) as caught:
        read(tmp_path / ("x" * 300))
    assert not isinstance(caught.value, NoLedger)


def test_a_ledger_that_cannot_be_read_is_said(tmp_path):
    (tmp_path / JOURNAL).write_bytes(b"no database" * 100)
    with pytest.raises(LedgerUnreadable, match="not a database"):
        read(tmp_path)
    (tmp_path / JOURNAL).unlink()
    make(tmp_path, "s")
    sql(tmp_path, "UPDATE meta SET value = '99' WHERE key = 'format'")
    with pytest.raises(LedgerUnreadable, match="format is 99"):
        read(tmp_path)


def test_a_directory_of_the_first_format_is_read(tmp_path):
    make(tmp_path, "sse")
    bring_down(tmp_path / JOURNAL, "1")
    assert minutes(read(tmp_path)) == [0, 1]
    assert minutes(read(tmp_path, "3m")) == [0]
    assert coverage(tmp_path).num_rows == 2


def test_a_directory_of_the_second_format_is_read_without_checksums(tmp_path):
    make(tmp_path, "sse")
    bring_down(tmp_path / JOURNAL, "2")
    assert minutes(read(tmp_path)) == [0, 1]


def test_a_waiting_row_in_which_a_bit_has_flipped_is_not_given_out(tmp_path):
    make(tmp_path, "ss")
    sql(tmp_path, "UPDATE candle SET close = close + 0.25 WHERE open_ms = ?", at(1))
    with pytest.raises(LedgerUnreadable, match="does not match its checksum"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("venue", "symbol", "words"),
    [
        ("okx", "BTC-USD", "'okx BTC-USD' is not there; did you mean 'okx BTC-USDT'?"),
        ("okx", "ZZZ-ZZZ", "'okx ZZZ-ZZZ' is not there; known: okx BTC-USDT"),
        ("krakn", "ETH/USD", "did you mean 'kraken ETH/USD'?"),
        ("kraken", "../../etc", "is not there"),
    ],
)
def test_an_unknown_series_is_named_with_the_nearest(tmp_path, venue, symbol, words):
    with open_store(tmp_path) as store:
        store.expect([BTC, ETH], at(0), at(0))
    with pytest.raises(UnknownSeries) as caught:
        read_candles(tmp_path, venue, symbol)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("venue", "symbol", "timeframe", "words"),
    [
        ("okx", None, "1m", "symbol is None"),
        (None, "BTC-USDT", "1m", "venue is None"),
        ("okx", ["BTC-USDT"], "1m", "symbol is \\['BTC-USDT'\\]"),
        (b"okx", "BTC-USDT", "1m", "venue is b'okx'"),
        ("okx", "BTC-USDT", None, "timeframe is None"),
        ("okx", "BTC-USDT", 60, "timeframe is 60"),
    ],
)
def test_a_series_that_is_not_named_is_no_series(tmp_path, venue, symbol, timeframe, words):
    make(tmp_path, "sss")
    with pytest.raises(TypeError, match=words):
        read_candles(tmp_path, venue, symbol, timeframe)


@pytest.mark.parametrize("asked", [{"symbol": ["BTC-USDT"]}, {"venue": 1}, {"venue": "okx", "symbol": ("BTC-USDT",)}])
def test_coverage_of_something_that_is_no_name_is_an_error_and_none_is_any(tmp_path, asked):
    make(tmp_path, "sss")
    with pytest.raises(TypeError, match="expected a text"):
        coverage(tmp_path, **asked)
    assert coverage(tmp_path, None, None).num_rows == coverage(tmp_path).num_rows == 1


@pytest.mark.parametrize("name", ["", "  "])
def test_an_empty_name_is_an_unknown_series_and_not_any(tmp_path, name):
    make(tmp_path, "sss")
    for venue, symbol in (("okx", name), (name, "BTC-USDT")):
        with pytest.raises(UnknownSeries):
            read_candles(tmp_path, venue, symbol)
        with pytest.raises(UnknownSeries):
            coverage(tmp_path, venue, symbol)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE series SET mark_ms = 'noon'",
        "UPDATE series SET first_ms = x'00'",
        "UPDATE gap SET until_ms = 'noon'",
        "UPDATE gap SET since_ms = x'00' WHERE id = 1",
        "UPDATE gap SET attempts = 'many'",
        "UPDATE candle SET open = 'much', checksum = 'x'",
        "UPDATE empty SET until_ms = 'noon'",
        "UPDATE series SET folder = x'00'",
    ],
)
def test_a_value_of_a_wrong_type_in_the_ledger_is_the_ledgers_fault(tmp_path, statement):
    make(tmp_path, "sgesge")
    sql(tmp_path, statement)
    for look in (lambda: read_candles(tmp_path, "okx", "BTC-USDT", on_gap="ignore"), lambda: coverage(tmp_path)):
        with suppress(ReadError):
            look()


def test_what_is_raised_is_one_family():
    for name in ("DayFileDamaged", "GapError", "LedgerUnreadable", "NoSuchDirectory", "UnknownSeries"):
        assert issubclass(getattr(trio_candles, name), ReadError)
    with pytest.raises(AttributeError, match="no attribute 'read_candle'"):
        _ = trio_candles.read_candle
    assert {"read_candles", "coverage"} <= set(dir(trio_candles))


# --- coverage


def test_coverage_is_the_ledger_in_spans(tmp_path):
    make(tmp_path, "sseeguuss", flush_at=[2])
    make(tmp_path, "s", series=ETH)
    table = coverage(tmp_path)
    found = [tuple(one.values()) for one in table.to_pylist()]
    assert found[0][:5] == ("kraken", "ETH/USD", at(0), at(1), "stored")
    assert found[1:] == [
        ("okx", "BTC-USDT", at(0), at(2), "stored", None, None, None, None, None, "stated"),
        ("okx", "BTC-USDT", at(2), at(4), "empty", None, "the ids say so, 3", None, None, None, "stated"),
        ("okx", "BTC-USDT", at(4), at(5), "gap", "disconnected", "detail g", 0, LATE, None, "stated"),
        ("okx", "BTC-USDT", at(5), at(7), "unfillable", "disconnected", "detail u", 2, LATE, None, "stated"),
        ("okx", "BTC-USDT", at(7), at(9), "stored", None, None, None, None, None, "stated"),
    ]
    assert [tuple(one.values())[2:5] for one in coverage(tmp_path, "okx", "btc-usdt", at(1), at(3)).to_pylist()] == [
        (at(1), at(2), "stored"),
        (at(2), at(3), "empty"),
    ]
    assert coverage(tmp_path, venue="kraken").num_rows == 1
    with pytest.raises(UnknownSeries):
        coverage(tmp_path, symbol="DOGE-USD")


def test_coverage_says_of_each_venue_how_far_its_live_candles_are_proven(tmp_path):
    for venue in (*VENUES, "a_venue_of_the_future"):
        make(tmp_path, "sge", series=Series(venue, "BTC-USD"))
    grades = {(one["venue"], one["grade"]) for one in coverage(tmp_path).to_pylist()}
    assert grades == {("coinbase", "ids"), ("kraken", "ids"), ("okx", "stated"), ("a_venue_of_the_future", None)}


def test_a_ledger_that_says_two_things_of_a_minute_is_refused(tmp_path):
    make(tmp_path, "sge")
    sql(tmp_path, "UPDATE gap SET until_ms = ?", at(3))
    with pytest.raises(LedgerUnreadable, match="two things"):
        coverage(tmp_path)


# --- whatever the history


@st.composite
def histories(draw):
    word = draw(st.text("sssssqeeeggu", max_size=50))
    first = draw(st.integers(-40, 5))
    flushes = draw(st.lists(st.integers(first, first + len(word)), max_size=3))
    return word, first, flushes


@given(
    histories(), st.sampled_from(["1m", "1m", "2m", "5m", "15m"]), st.booleans(),
    st.tuples(st.integers(-50, 60), st.integers(-50, 60)).map(sorted),
)  # fmt: skip
@settings(deadline=None)
def test_whatever_the_history_the_answer_is_exactly_what_is_known(in_memory, history, timeframe, fill, span):
    word, first, flushes = history
    truth, (since, until) = Truth(word, first), span
    with tempfile.TemporaryDirectory(dir=in_memory) as folder:
        root = Path(folder)
        make(root, word, first, flush_at=flushes)
        filling = {"fill": "previous"} if fill else {}
        found = read(root, timeframe, at(since), at(until), on_gap="ignore", **filling)
        assert found.to_pylist() == truth.rows(since, until, timeframe, fill=fill)

        length = Timeframe.parse(timeframe).length // MINUTE
        whole = [-(-time // length) * length for time in span]
        unknown = truth.unknown(*whole)
        try:
            assert read(root, timeframe, at(since), at(until), **filling).equals(found)
            assert not unknown
        except GapError as error:
            told = [range(gap.since, gap.until, MINUTE) for gap in error.gaps]
            assert [(time - MIDNIGHT) // MINUTE for part in told for time in part] == sorted(unknown)

        states = {"s": "stored", "q": "stored", "e": "empty", "g": "gap", "u": "unfillable"}
        spans = coverage(root).to_pylist()
        tiles = [(one["state"], time) for one in spans for time in range(one["since_ms"], one["until_ms"], MINUTE)]
        assert tiles == [(states[letter], at(minute)) for minute, letter in enumerate(word, first)]


def test_the_days_of_a_long_range_come_in_order(in_memory):
    """Over a month's end and a year's, and nothing of the days around it."""
    root = in_memory / "long"
    year = Millis(at(0) - 12 * DAY)
    with open_store(root) as store:
        start = (year - MIDNIGHT) // MINUTE
        store.expect([BTC], at(start), at(start))
        for day in range(4):
            opens = [start + day * 1440 + minute for minute in range(0, 1440, 480)]
            for minute in opens:
                store.commit([candle(minute), Unsure(BTC, at(minute + 1), at(minute + 480), Reason.REFUSED)], LATE)
        flush(store)
    table = read(root, start="2025-12-31", end="2026-01-02", on_gap="ignore")
    assert table.column("open_time_ms").to_pylist() == [at(start + 480 * n) for n in range(3, 9)]
