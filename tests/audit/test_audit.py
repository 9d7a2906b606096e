"""The audit finds what is wrong in a data directory, each thing by kind, path and range, and nothing else.

The directories are made by hand (``handmade``), from the schema alone: no code of the writing path is involved.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from itertools import pairwise
from math import inf, nan
from pathlib import Path
from typing import Any

import attrs
import pyarrow as pa
import pytest
from handmade import DAY0, DAY1, FILE0, FILE1, FIRST, MARK, NOW, OKX, Directory, Row, folded, minutes, row, run
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_candles.audit import Report, Selection, Violation, audit, main
from trio_candles.audit.batch import judge
from trio_candles.audit.bits import days_of, runs, span_bits
from trio_candles.audit.files import CODED, Cell
from trio_candles.audit.folds import follows
from trio_candles.audit.ledger import REASONS
from trio_candles.audit.rows import Piece, judge_closely
from trio_candles.candles.documents import to_json
from trio_candles.candles.model import DAY, MINUTE, Reason, Series, day_name
from trio_candles.store.lock import hold_lock
from trio_candles.store.schema import COLUMNS, JOURNAL, LOCK

REPOSITORY = Path(__file__).parents[2]


def only(report: Report) -> Violation:
    """The one violation that there is."""
    assert [v.kind for v in report.violations] == [v.kind for v in report.violations[:1]], report.violations
    assert report.violations
    assert report.exit_code == 1
    return report.violations[0]


def place(violation: Violation) -> tuple[str, str, int | None, int | None]:
    return (violation.kind, violation.path, violation.start_ms, violation.end_ms)


# --- nothing is wrong


def test_a_sound_directory_is_ok_and_told_in_the_contracts_shape(sound: Directory) -> None:
    report = sound.audit()
    assert report.violations == ()
    assert report.exit_code == 0
    told = json.loads(to_json(report.document()))
    assert told["ok"] is True
    assert told["checked_at_ms"] == NOW
    assert told["totals"] == {
        "series": 2, "files": 4, "candles": 223, "empty_minutes": 5, "open_gap_minutes": 10,
        "unfillable_minutes": 2, "violations": 0, "violations_not_listed": 0, "quarantined_files": 0,
    }  # fmt: skip
    assert told["series"][1] == {
        "venue": "okx", "symbol": "BTC-USDT", "timeframe": "1m", "first_open_ms": FIRST,
        "last_open_ms": MARK - MINUTE, "candles": 103, "empty_minutes": 5, "open_gap_minutes": 10,
        "unfillable_minutes": 2,
    }  # fmt: skip
    assert told["series"][0]["symbol"] == "BTC/USD"
    assert told["gaps"] == [
        {"venue": "okx", "symbol": "BTC-USDT", "start_ms": DAY1 + 10 * MINUTE, "end_ms": DAY1 + 20 * MINUTE,
         "state": "open", "reason": "disconnected", "attempts": 3},
        {"venue": "okx", "symbol": "BTC-USDT", "start_ms": DAY1 + 25 * MINUTE, "end_ms": DAY1 + 27 * MINUTE,
         "state": "unfillable", "reason": "not_collected", "attempts": 3},
    ]  # fmt: skip
    assert told["stopped_at_ms"] == MARK
    assert told["collector_running"] is False


def test_an_empty_directory_is_ok(tmp_path: Path) -> None:
    report = audit(tmp_path, now=lambda: NOW, running=lambda: False, pauses=())
    assert report.ok
    assert set(attrs.astuple(report.document().totals)) == {0}


def test_the_audit_writes_nothing(sound: Directory) -> None:
    def contents() -> dict[str, bytes]:
        return {str(p): p.read_bytes() for p in sound.root.rglob("*") if p.is_file()}

    before = contents()
    sound.audit()
    assert contents() == before


def test_a_clean_stop_says_when(sound: Directory) -> None:
    sound.sql(f"INSERT INTO meta VALUES ('stopped_at_ms', '{MARK + 5000}')")
    assert sound.audit().stopped_at == MARK + 5000
    assert sound.audit(running=True, now=MARK).stopped_at is None


def test_a_row_in_the_journal_and_in_its_day_file_is_one_candle(sound: Directory) -> None:
    """So it is in the middle of every flush."""
    rows = [row(t, "kraken", "BTC/USD") for t in minutes(DAY1, DAY1 + 30 * MINUTE)]
    sound.wait(2, rows)
    report = sound.audit()
    assert report.ok
    assert report.totals().candles == 223


def test_rows_only_in_the_journal_are_stored(sound: Directory) -> None:
    sound.wait(2, [row(t, "kraken", "BTC/USD") for t in minutes(MARK, MARK + 7 * MINUTE)])
    sound.sql(f"UPDATE series SET mark_ms = {MARK + 7 * MINUTE} WHERE id = 2")
    report = sound.audit(now=NOW)
    assert report.ok
    assert report.totals().candles == 230


def test_a_pending_digest_is_as_good_as_the_last(sound: Directory) -> None:
    """Between the replacement and the note that it is done, either one is valid."""
    sound.sql(f"UPDATE day_file SET pending = digest, digest = 'old' WHERE path = '{FILE1}'")
    assert sound.audit().ok


def test_a_first_file_that_was_about_to_be_put_in_place_is_not_missing(sound: Directory) -> None:
    path = f"okx/BTC-USDT/1m/{day_name(DAY1 + DAY)}.parquet"
    sound.sql(f"INSERT INTO day_file VALUES ('{path}', NULL, 'soon')")
    assert sound.audit().ok


def test_rows_before_the_first_expected_minute_are_no_fault(sound: Directory) -> None:
    """The lookback was shortened; what was stored stays."""
    sound.sql(f"UPDATE series SET first_ms = {DAY1} WHERE venue = 'kraken'")
    assert sound.audit().ok


def test_quarantine_and_other_programs_folders_are_not_ours_to_judge(sound: Directory) -> None:
    for path in ("quarantine/okx/x.parquet", "lost+found/x", ".git/HEAD", "notes.txt"):
        (sound.root / path).parent.mkdir(parents=True, exist_ok=True)
        (sound.root / path).write_bytes(b"x")
    report = sound.audit()
    assert report.ok
    assert report.quarantined == 1


# --- files


def test_a_flipped_byte_is_a_checksum(sound: Directory) -> None:
    file = sound.root / FILE1
    content = bytearray(file.read_bytes())
    content[200] ^= 1
    file.write_bytes(content)
    kinds = {place(v) for v in sound.audit().violations}
    assert ("checksum", FILE1, DAY1, DAY1 + DAY) in kinds
    assert kinds <= {(kind, FILE1, DAY1, DAY1 + DAY) for kind in ("checksum", "unreadable_file")}


def test_flipped_bits_all_over_a_file_are_found(tmp_path: Path) -> None:
    """And whatever pyarrow makes of them, nothing worse happens than a report."""
    made = Directory(tmp_path / "data")
    made.series(*OKX, FIRST, DAY1)
    made.days(*OKX, minutes(FIRST, DAY1))
    file = made.root / FILE0
    content = bytearray(file.read_bytes())
    for at in range(0, len(content) * 8, 331):
        content[at // 8] ^= 1 << at % 8
        file.write_bytes(content)
        assert ("checksum", FILE0, DAY0, DAY1) in {place(v) for v in made.audit(pauses=()).violations}
        content[at // 8] ^= 1 << at % 8


@pytest.mark.parametrize("content", [b"", b"PAR1", b"not parquet at all, but long enough to have a footer" * 9])
def test_a_file_that_is_no_parquet_is_unreadable(sound: Directory, content: bytes) -> None:
    (sound.root / FILE0).write_bytes(content)
    sound.list(FILE0)
    assert place(only(sound.audit())) == ("unreadable_file", FILE0, DAY0, DAY1)


def test_a_truncated_file_is_a_checksum_and_unreadable(sound: Directory) -> None:
    content = (sound.root / FILE0).read_bytes()
    (sound.root / FILE0).write_bytes(content[: len(content) // 2])
    assert [v.kind for v in sound.audit().violations] == ["checksum", "unreadable_file"]


def test_a_day_file_that_the_ledger_does_not_list_is_a_checksum(sound: Directory) -> None:
    sound.sql(f"DELETE FROM day_file WHERE path = '{FILE1}'")
    violation = only(sound.audit())
    assert place(violation) == ("checksum", FILE1, DAY1, DAY1 + DAY)
    assert "not in the ledger" in violation.detail


def test_a_deleted_file_is_a_silent_gap_over_its_minutes(sound: Directory) -> None:
    (sound.root / FILE0).unlink()
    violation = only(sound.audit())
    assert place(violation) == ("silent_gap", FILE0, FIRST, DAY1)
    assert "lists the file" in violation.detail


def test_a_deleted_file_of_which_no_minute_is_due_is_a_checksum(sound: Directory) -> None:
    (sound.root / FILE0).unlink()
    sound.sql(f"UPDATE series SET first_ms = {DAY1} WHERE id = 1")
    assert place(only(sound.audit())) == ("checksum", FILE0, DAY0, DAY1)


def test_a_deleted_folder_is_found_in_every_day(sound: Directory) -> None:
    shutil.rmtree(sound.root / "kraken")
    found = {place(v) for v in sound.audit().violations}
    base = "kraken/BTC-USD/1m/"
    assert found == {
        ("silent_gap", f"{base}{day_name(DAY0)}.parquet", FIRST, DAY1),
        ("silent_gap", f"{base}{day_name(DAY1)}.parquet", DAY1, MARK),
    }


@pytest.mark.parametrize(
    ("schema", "word"),
    [
        (COLUMNS.set(9, pa.field("volume", pa.float32(), nullable=False)), "volume"),
        (COLUMNS.remove(11), "missing vwap"),
        (COLUMNS.remove(14), "missing source"),
        (COLUMNS.set(14, pa.field("sourcf", pa.string())), "sourcf"),
        (COLUMNS.append(pa.field("extra", pa.int64())), "foreign extra"),
        (COLUMNS.set(0, pa.field("venue", pa.string())), "not null"),
        (pa.schema([COLUMNS.field(1), COLUMNS.field(0), *list(COLUMNS)[2:]]), "order"),
        (
            COLUMNS.set(0, pa.field("venue", pa.dictionary(pa.int32(), pa.string()), nullable=False)),
            "dictionary",
        ),
    ],
)
def test_other_columns_are_a_wrong_schema(sound: Directory, schema: pa.Schema, word: str) -> None:
    sound.write(FILE0, [row(t) for t in minutes(FIRST, DAY1)], schema)
    violation = only(sound.audit())
    assert place(violation) == ("wrong_schema", FILE0, DAY0, DAY1)
    assert word in violation.detail


@pytest.mark.parametrize(
    "path",
    [
        "okx/notes.txt",
        "okx/BTC-USDT/1m/2026-01-10.parquet.tmp",
        "okx/BTC-USDT/1m/2026-13-10.parquet",
        "okx/BTC-USDT/1m/2026-1-10.parquet",
        "okx/BTC-USDT/7m/2026-01-10.parquet",
        "okx/btc-usdt/1m/2026-01-10.parquet",
        "okx/BTC-USDT/1m/deeper/2026-01-10.parquet",
        "okx/2026-01-10.parquet",
        "binance/x/2026-01-10.parquet",
        "binance/BTC-USD/1m/2026-01-10.parquet.tmp",
        "binance/BTC-USD/4h/notes.txt",
    ],
)
def test_what_is_no_day_file_is_left_over(sound: Directory, path: str) -> None:
    (sound.root / path).parent.mkdir(parents=True, exist_ok=True)
    (sound.root / path).write_bytes(b"x")
    assert place(only(sound.audit())) == ("leftover_file", path, None, None)


@pytest.mark.parametrize(
    "path",
    [
        "okx/.DS_Store", "okx/BTC-USDT/.DS_Store", "okx/BTC-USDT/1m/Thumbs.db", "okx/BTC-USDT/1m/desktop.ini",
        "okx/BTC-USDT/1m/._2026-01-10.parquet", "okx/BTC-USDT/1m/.directory",
    ],
)  # fmt: skip
def test_what_an_operating_system_leaves_behind_is_a_warning_and_no_violation(sound: Directory, path: str) -> None:
    (sound.root / path).write_bytes(b"x")
    report = sound.audit()
    assert (report.ok, report.document().warnings) == (True, (path,))
    assert path in report.as_text()


@pytest.mark.parametrize("path", ["okx/BTC-USDT/1m/2025-12-31.parquet", "okx/BTC-USDT/5m/2026-01-10.parquet"])
def test_a_folder_that_is_called_like_a_day_file_is_left_over(sound: Directory, path: str) -> None:
    (sound.root / path).mkdir(parents=True)
    assert place(only(sound.audit())) == ("leftover_file", path, None, None)


def test_a_folder_in_the_place_of_a_day_file_is_unreadable(sound: Directory) -> None:
    (sound.root / FILE0).unlink()
    (sound.root / FILE0).mkdir()
    assert place(only(sound.audit())) == ("unreadable_file", FILE0, DAY0, DAY1)


def test_a_plain_file_in_the_place_of_a_venues_folder_is_left_over(sound: Directory) -> None:
    (sound.root / "coinbase").write_bytes(b"x")
    assert place(only(sound.audit())) == ("leftover_file", "coinbase", None, None)


@pytest.mark.parametrize(
    "path", ["notes.txt", "README", "logs/collector.log", "logs/BTC-USD/x/y.txt", "logs/a/1m/b.txt"]
)
def test_what_is_neither_a_venues_nor_in_its_place_is_nobodys_business(sound: Directory, path: str) -> None:
    (sound.root / path).parent.mkdir(parents=True, exist_ok=True)
    (sound.root / path).write_bytes(b"x")
    assert sound.audit().ok


def test_a_link_is_left_over_and_not_followed(sound: Directory, tmp_path: Path) -> None:
    try:
        (sound.root / "okx" / "ETH-USDT").symlink_to(tmp_path, target_is_directory=True)
    except OSError:
        pytest.skip("no links here")
    assert only(sound.audit()).path == "okx/ETH-USDT"


def test_a_temporary_file_is_left_over_unless_a_collector_runs_or_was_killed(sound: Directory) -> None:
    (sound.root / ".tmp").mkdir()
    (sound.root / ".tmp" / "1.parquet").write_bytes(b"")
    assert sound.audit().ok
    sound.sql(f"INSERT OR REPLACE INTO meta VALUES ('stopped_at_ms', {MARK})")
    assert place(only(sound.audit())) == ("leftover_file", ".tmp/1.parquet", None, None)
    assert sound.audit(running=True, now=MARK).ok


def test_files_of_a_series_unknown_to_the_ledger_are_audited_too(sound: Directory) -> None:
    path = f"binance/BTC-USD/1m/{day_name(DAY0)}.parquet"
    sound.write(path, [row(t, "binance", "BTC/USD") for t in minutes(DAY0, DAY0 + 3 * MINUTE)], listed=False)
    report = sound.audit()
    assert place(only(report)) == ("checksum", path, DAY0, DAY1)
    assert report.series["binance", "BTC/USD", "1m"].candles == 3


# --- rows

AT = FIRST + 5 * MINUTE


def with_changed(sound: Directory, change: Callable[[list[Row]], object]) -> Report:
    """The report when the rows of FILE0 are changed and its digest is that of the changed file."""
    rows = [row(t) for t in minutes(FIRST, DAY1)]
    change(rows)
    sound.write(FILE0, rows)
    return sound.audit()


INVALID: dict[str, Row] = {
    "high < low": {"high": 99.0, "low": 250.0, "open": 99.0, "close": 99.0},
    "high < open": {"open": 1e6},
    "high < close": {"close": 1e6},
    "low > open": {"open": 1.0},
    "low > close": {"close": 1.0},
    "low is not above zero": {"low": 0.0},
    "open is not above zero": {"open": -1.0},
    "high is not finite": {"high": nan},
    "close is not finite": {"close": inf},
    "volume is not finite": {"volume": nan},
    "volume is below zero": {"volume": -0.5},
    "quote_volume is not finite": {"quote_volume": inf},
    "quote_volume is below zero": {"quote_volume": -1.0},
    "vwap is not finite": {"vwap": nan},
    "vwap is not above zero": {"vwap": 0.0},
    "trades_count is below zero": {"trades_count": -1},
    "close_time_ms is not the candle's end": {"close_time_ms": AT + MINUTE - 1},
    "open_time_ms is not aligned": {"open_time_ms": AT + 1, "close_time_ms": AT + 1 + MINUTE},
    "source is not one of this timeframe's": {"source": "aggregated"},
}


@pytest.mark.parametrize("rule", INVALID)
def test_each_rule_of_a_candle_is_held(sound: Directory, rule: str) -> None:
    violation = only(with_changed(sound, lambda rows: rows[5].update(INVALID[rule])))
    start = INVALID[rule].get("open_time_ms", AT)
    assert place(violation) == ("invalid_candle", FILE0, start, start + MINUTE)
    assert rule in violation.detail


def test_an_open_candle_is_not_closed(sound: Directory) -> None:
    violation = only(with_changed(sound, lambda rows: rows[5].update(is_closed=False)))
    assert place(violation) == ("not_closed", FILE0, AT, AT + MINUTE)


def test_a_candle_from_the_future_is_invalid(sound: Directory) -> None:
    report = sound.audit(now=MARK - 90_000)
    assert [place(v) for v in report.violations] == [
        ("invalid_candle", f"{venue}/1m/{day_name(DAY1)}.parquet", MARK - MINUTE, MARK)
        for venue in ("kraken/BTC-USD", "okx/BTC-USDT")
    ]


@pytest.mark.parametrize("column", ["venue", "symbol", "timeframe"])
def test_rows_of_another_series_are_in_the_wrong_partition(sound: Directory, column: str) -> None:
    violation = only(with_changed(sound, lambda rows: [r.update({column: "5m"}) for r in rows[5:8]]))
    assert place(violation) == ("wrong_partition", FILE0, AT, AT + 3 * MINUTE)
    assert column in violation.detail


def test_two_days_swapped_are_in_the_wrong_partition(sound: Directory) -> None:
    one, other = sound.root / FILE0, sound.root / FILE1
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)
    found = {place(v) for v in sound.audit().violations}
    assert ("wrong_partition", FILE1, FIRST, DAY1) in found
    assert ("checksum", FILE1, DAY1, DAY1 + DAY) in found
    assert ("silent_gap", FILE0, FIRST, DAY1) in found


def test_a_removed_row_is_a_silent_gap(sound: Directory) -> None:
    violation = only(with_changed(sound, lambda rows: rows.pop(5)))
    assert place(violation) == ("silent_gap", FILE0, AT, AT + MINUTE)


def test_a_doubled_row_is_a_duplicate(sound: Directory) -> None:
    violation = only(with_changed(sound, lambda rows: rows.insert(5, dict(rows[5]))))
    assert place(violation) == ("duplicate", FILE0, AT, AT + MINUTE)


def test_rows_out_of_order_are_unsorted(sound: Directory) -> None:
    violation = only(with_changed(sound, lambda rows: rows.insert(8, rows.pop(5))))
    assert place(violation) == ("unsorted", FILE0, AT, AT + MINUTE)


def test_a_duplicate_among_unsorted_rows_is_found(sound: Directory) -> None:
    report = with_changed(sound, lambda rows: rows.append(dict(rows[5])))
    assert {place(v)[0] for v in report.violations} == {"unsorted", "duplicate"}


def test_a_ruined_file_is_told_in_few_words(sound: Directory) -> None:
    """Every other row broken is 30 ranges; they are told as one."""
    violation = only(with_changed(sound, lambda rows: [r.update(low=-1.0) for r in rows[::2] + rows[1:44:3]]))
    assert "rows" in violation.detail


def test_violations_listed_are_bounded_and_counted_all(sound: Directory) -> None:
    for number in range(1100):
        (sound.root / "okx" / f"{number}.txt").write_bytes(b"")
    document = sound.audit().document()
    assert len(document.violations) == 1000
    assert document.totals.violations == 1100
    assert document.totals.violations_not_listed == 100


# --- the ledger


@pytest.mark.parametrize("table", ["empty", "gap"])
def test_a_stored_minute_that_the_ledger_calls_otherwise_is_a_contradiction(sound: Directory, table: str) -> None:
    getattr(sound, table)(1, AT, AT + 3 * MINUTE)
    assert place(only(sound.audit())) == ("contradiction", FILE0, AT, AT + 3 * MINUTE)


def test_a_minute_both_empty_and_a_gap_is_a_contradiction(sound: Directory) -> None:
    sound.gap(1, DAY1 + 23 * MINUTE, DAY1 + 25 * MINUTE)
    assert place(only(sound.audit())) == ("contradiction", FILE1, DAY1 + 23 * MINUTE, DAY1 + 25 * MINUTE)


def test_a_journal_row_that_the_ledger_calls_empty_is_a_contradiction(sound: Directory) -> None:
    sound.wait(1, [row(DAY1 + 21 * MINUTE)])
    assert place(only(sound.audit())) == ("contradiction", FILE1, DAY1 + 21 * MINUTE, DAY1 + 22 * MINUTE)


def test_a_gap_that_the_ledger_forgot_is_silent(sound: Directory) -> None:
    sound.sql("DELETE FROM gap WHERE state = 'open'")
    assert place(only(sound.audit())) == ("silent_gap", FILE1, DAY1 + 10 * MINUTE, DAY1 + 20 * MINUTE)


def test_a_day_without_any_file_must_be_accounted_for(sound: Directory) -> None:
    sound.sql(f"UPDATE series SET mark_ms = {DAY1 + DAY + 3 * MINUTE} WHERE id = 2")
    sound.sql(f"INSERT INTO open_day VALUES (2, {DAY1 + DAY}, 0)")
    found = [place(v)[2:] for v in sound.audit(now=DAY1 + 2 * DAY).violations]
    assert found == [(MARK, DAY1 + DAY), (DAY1 + DAY, DAY1 + DAY + 3 * MINUTE)]


def test_a_row_beyond_the_mark_is_a_corrupt_ledger(sound: Directory) -> None:
    sound.sql(f"UPDATE series SET mark_ms = {MARK - 4 * MINUTE} WHERE id = 1")
    assert place(only(sound.audit())) == ("ledger_corrupt", FILE1, MARK - 4 * MINUTE, MARK)


def test_a_candle_in_the_journal_obeys_the_rules(sound: Directory) -> None:
    sound.sql(f"UPDATE series SET mark_ms = {MARK + MINUTE} WHERE id = 1")
    sound.wait(1, [row(MARK, low=-1.0)])
    assert place(only(sound.audit())) == ("invalid_candle", JOURNAL, MARK, MARK + MINUTE)


@pytest.mark.parametrize("column", ["open", "volume", "quote_volume", "trades_count", "ingest_ms", "checksum"])
def test_a_plausible_value_that_has_changed_in_the_journal_does_not_match_its_checksum(
    sound: Directory, column: str
) -> None:
    sound.sql(f"UPDATE series SET mark_ms = {MARK + MINUTE} WHERE id = 1")
    sound.wait(1, [row(MARK)])
    assert sound.audit().ok
    sound.sql(f"UPDATE candle SET {column} = {column} + CASE WHEN {column} < 1 THEN 0.0001 ELSE 1 END")
    violation = only(sound.audit())
    assert place(violation) == ("ledger_corrupt", JOURNAL, MARK, MARK + MINUTE)
    assert "checksum" in violation.detail


def test_another_candle_of_the_same_minute_in_the_journal_is_a_duplicate(sound: Directory) -> None:
    """Unless it is on record that REST corrected the stored one, by this one and last."""
    corrected = row(AT, close=row(AT)["high"])
    sound.wait(1, [corrected, row(AT + MINUTE)])
    duplicate = ("duplicate", FILE0, AT, AT + MINUTE)
    assert place(only(sound.audit())) == duplicate
    said, other = json.dumps(corrected), json.dumps(row(AT, volume=1.5))
    sound.sql(f"INSERT INTO revision VALUES (1, 0, 1, {AT}, '', '{other}', 'replaced', 0)")
    assert place(only(sound.audit())) == duplicate
    sound.sql(f"INSERT INTO revision VALUES (2, 0, 1, {AT}, '', '{said}', 'replaced', 0)")
    assert sound.audit().violations == ()
    sound.sql(f"INSERT INTO revision VALUES (3, 0, 1, {AT}, '', '{other}', 'replaced', 0)")
    assert place(only(sound.audit())) == duplicate
    sound.sql("UPDATE revision SET offered = '[1]' WHERE id = 3")
    assert {violation.kind for violation in sound.audit().violations} == {"ledger_corrupt"}


@pytest.mark.parametrize(
    "script",
    [
        "UPDATE gap SET reason = ' ' WHERE id = 1",
        "UPDATE gap SET reason = 'dhsconnected' WHERE id = 1",
        "UPDATE gap SET state = 'closed' WHERE id = 1",
        "UPDATE empty SET evidence = ''",
        f"UPDATE series SET mark_ms = {FIRST - MINUTE} WHERE id = 1",
        "UPDATE series SET first_ms = first_ms + 1 WHERE id = 1",
        "UPDATE series SET symbol = '../x' WHERE id = 1",
        "UPDATE candle SET series_id = 7",
        "UPDATE candle SET open_ms = 'noon'",
        "UPDATE candle SET volume = 'much'",
        "UPDATE gap SET series_id = 7 WHERE id = 1",
        "UPDATE meta SET value = '99' WHERE key = 'format'",
        "DROP TABLE gap",
        "INSERT INTO day_file VALUES ('../x.parquet', '', '')",
        f"INSERT INTO gap VALUES (9, 1, {DAY1 + 12 * MINUTE}, {MARK}, 'open', 'x', '', 0, 0, '', 0, NULL, NULL, 0)",
        f"INSERT INTO empty VALUES (1, {DAY1 + 24 * MINUTE}, {DAY1 + 25 * MINUTE}, 'x')",
        f"INSERT INTO gap VALUES (9, 1, {AT + MINUTE}, {AT}, 'open', 'x', '', 0, 0, '', 0, NULL, NULL, 0)",
        f"INSERT INTO empty VALUES (1, {FIRST - MINUTE}, {FIRST - 1}, 'x')",
    ],
)
def test_a_ledger_that_contradicts_itself_is_corrupt(sound: Directory, script: str) -> None:
    sound.wait(1, [row(AT)])
    sound.sql(script)
    report = sound.audit()
    assert ("ledger_corrupt", JOURNAL) in {place(v)[:2] for v in report.violations}
    assert report.exit_code == 1


def test_the_audit_and_the_collector_have_the_same_reasons_for_a_gap() -> None:
    assert {reason.value for reason in Reason} == REASONS


@pytest.mark.parametrize("content", [None, b"", b"garbage" * 999])
def test_without_a_journal_the_files_are_still_checked(sound: Directory, content: bytes | None) -> None:
    rows = [row(t) for t in minutes(FIRST, DAY1)]
    rows[5]["high"] = nan
    sound.write(FILE0, rows)
    (sound.root / JOURNAL).unlink()
    if content is not None:
        (sound.root / JOURNAL).write_bytes(content)
    report = sound.audit()
    assert [place(v) for v in report.violations] == [
        ("ledger_corrupt", JOURNAL, None, None),
        ("invalid_candle", FILE0, AT, AT + MINUTE),
    ]
    assert report.series["kraken", "BTC/USD", "1m"].candles == 120


def test_a_damaged_page_of_the_journal_is_found(sound: Directory) -> None:
    with closing(sqlite3.connect(sound.root / JOURNAL)) as database:
        (root,) = database.execute("SELECT rootpage FROM sqlite_master WHERE name = 'gap'").fetchone()
        (size,) = database.execute("PRAGMA page_size").fetchone()
    content = bytearray((sound.root / JOURNAL).read_bytes())
    content[(root - 1) * size : (root - 1) * size + 100] = b"\xff" * 100
    (sound.root / JOURNAL).write_bytes(content)
    report = sound.audit()
    assert {place(v)[:2] for v in report.violations} == {("ledger_corrupt", JOURNAL)}
    assert report.totals().candles == 223


def test_a_killed_collectors_log_is_read(sound: Directory, tmp_path: Path) -> None:
    """What is committed may be in the write-ahead log alone."""
    with closing(sqlite3.connect(sound.root / JOURNAL)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA wal_autocheckpoint = 0")
        database.execute("UPDATE series SET mark_ms = mark_ms + 60000 WHERE id = 1")
        database.commit()
        shutil.copytree(sound.root, tmp_path / "killed")
    report = audit(tmp_path / "killed", now=lambda: NOW, running=lambda: False, pauses=())
    assert place(only(report)) == ("silent_gap", FILE1, MARK, MARK + MINUTE)


@pytest.mark.skipif(sys.platform == "win32", reason="a folder cannot be made read-only there")
def test_after_a_crash_a_read_only_directory_is_read_from_a_copy(sound: Directory, tmp_path: Path) -> None:
    with closing(sqlite3.connect(sound.root / JOURNAL)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA wal_autocheckpoint = 0")
        database.execute("UPDATE series SET mark_ms = mark_ms + 60000 WHERE id = 1")
        database.commit()
        killed = tmp_path / "killed"
        shutil.copytree(sound.root, killed, ignore=shutil.ignore_patterns("*-shm"))
    code = (
        "import sys, os; from pathlib import Path; from trio_candles.audit import audit\n"
        "os.geteuid() or os.setuid(65534)\n"
        f"r = audit(Path({str(killed)!r}), now=lambda: {NOW}, running=lambda: False, pauses=())\n"
        "print([v.kind for v in r.violations])"
    )
    # Root may write anywhere: the audit then runs as nobody, who must be let in, and may look.
    closed = [folder for folder in (tmp_path, *tmp_path.parents) if not folder.stat().st_mode & 0o001]
    folders = {folder: folder.stat().st_mode for folder in (*closed, killed)}
    for folder, mode in folders.items():
        folder.chmod(0o555 if folder == killed else mode | 0o055)
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], cwd="/", capture_output=True, text=True, timeout=60, check=False,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        )  # fmt: skip
    finally:
        for folder, mode in folders.items():
            folder.chmod(mode)
    assert (done.stdout.strip(), done.stderr) == ("['silent_gap']", "")
    assert not (killed / f"{JOURNAL}-shm").exists()


def test_a_gap_without_a_reason_is_corrupt_and_still_told_with_one(sound: Directory) -> None:
    sound.sql("UPDATE gap SET reason = ' ' WHERE id = 1")
    report = sound.audit()
    assert place(only(report)) == ("ledger_corrupt", JOURNAL, DAY1 + 10 * MINUTE, DAY1 + 20 * MINUTE)
    assert [gap.reason for gap in report.gaps] == ["unknown", "not_collected"]


# --- beside a collector


def test_beside_a_collector_minutes_are_due_two_minutes_after_they_ended(sound: Directory) -> None:
    assert sound.audit(running=True, now=MARK + 2 * MINUTE + MINUTE - 1).ok
    report = sound.audit(running=True, now=MARK + 3 * MINUTE)
    assert {place(v)[2:] for v in report.violations} == {(MARK, MARK + MINUTE)}
    assert {v.kind for v in report.violations} == {"silent_gap"}


def test_beside_a_collector_that_waits_for_its_clock_minutes_are_due_up_to_the_mark(sound: Directory) -> None:
    """No mark moves until a venue has vouched for the clock, which may be years ahead."""
    sound.sql("INSERT INTO meta VALUES ('clock_waits', 'no venue has been heard')")
    assert sound.audit(running=True, now=MARK + 3 * MINUTE).ok
    assert sound.audit(running=True, now=MARK + 365 * DAY).ok


def test_a_series_no_longer_configured_is_not_due_beside_a_collector(sound: Directory) -> None:
    sound.sql("UPDATE series SET expected = 0")
    assert sound.audit(running=True, now=MARK + DAY).ok


def test_what_is_right_in_the_next_reading_is_not_reported(sound: Directory) -> None:
    """A flush between the reading of the ledger and that of the file looks like damage, once."""
    good = (sound.root / FILE1).read_bytes()
    (sound.root / FILE1).write_bytes(b"half")
    looks: list[int] = []

    def running() -> bool:
        looks.append(1)
        if len(looks) > 2:
            (sound.root / FILE1).write_bytes(good)
        return True

    report = audit(sound.root, now=lambda: MARK, running=running, pauses=(0.0, 0.0))
    assert report.ok
    assert report.totals().candles == 223


def test_what_stays_wrong_is_reported_once(sound: Directory) -> None:
    (sound.root / FILE1).write_bytes(b"half")
    report = sound.audit(running=True, now=MARK, pauses=(0.0, 0.0, 0.0))
    assert [v.kind for v in report.violations] == ["checksum", "unreadable_file"]
    assert report.totals().files == 4


# --- a series whose symbol does not tell its folder


def test_a_series_is_accounted_for_in_the_folder_that_the_ledger_names(tmp_path: Path) -> None:
    directory = Directory(tmp_path / "d")
    series = directory.series("okx", "BTCUSDT", folder="BTC-USDT")
    directory.write(FILE0, [row(time, symbol="BTCUSDT") for time in minutes(FIRST, DAY1)])
    directory.gap(series, DAY1, MARK)
    report = directory.audit()
    assert report.ok
    assert report.series["okx", "BTCUSDT", "1m"].candles == 60
    assert [(gap.symbol, gap.start_ms) for gap in report.gaps] == [("BTCUSDT", DAY1)]
    assert not directory.audit(selection=Selection("okx", "ETH-USDT")).gaps


@pytest.mark.parametrize("folder", [None, "BTCUSDT", "../x", "btc-usdt"])
def test_a_series_without_a_folder_that_could_be_one_is_a_corrupt_ledger(tmp_path: Path, folder: str | None) -> None:
    directory = Directory(tmp_path / "d")
    directory.series("okx", "BTCUSDT", folder=folder)
    assert only(directory.audit()).kind == "ledger_corrupt"


# --- aggregates

FIVE = f"okx/BTC-USDT/5m/{day_name(DAY0)}.parquet"


def aggregates(until: int = DAY1) -> list[Row]:
    return [folded([row(t + i * MINUTE) for i in range(5)], t) for t in range(FIRST, until, 5 * MINUTE)]


def test_aggregates_that_follow_from_their_minutes_are_ok(sound: Directory) -> None:
    sound.write(FIVE, aggregates())
    report = sound.audit()
    assert report.ok
    assert report.series["okx", "BTC-USDT", "5m"].candles == 12


@pytest.mark.parametrize(
    "change",
    [
        {"volume": 1.25},
        {"high": 999.0, "low": 1.0},
        {"vwap": None},
        {"quote_volume": 1.0},
        {"trades_count": None},
        {"ingest_time_ms": 5},
    ],
)
def test_an_aggregate_that_does_not_follow_is_wrong(sound: Directory, change: Row) -> None:
    rows = aggregates()
    rows[2] |= change
    sound.write(FIVE, rows)
    start = FIRST + 10 * MINUTE
    violation = only(sound.audit())
    assert place(violation) == ("wrong_aggregate", FIVE, start, start + 5 * MINUTE)
    assert all(name in violation.detail for name in change)


@pytest.mark.parametrize("offset", [10, 20])
def test_an_aggregate_on_a_gap_or_on_nothing_is_wrong(sound: Directory, offset: int) -> None:
    time = DAY1 + offset * MINUTE
    path = f"okx/BTC-USDT/5m/{day_name(DAY1)}.parquet"
    sound.write(path, [folded([row(time)], time)])
    assert place(only(sound.audit())) == ("wrong_aggregate", path, time, time + 5 * MINUTE)


def test_an_aggregate_on_unknown_minutes_before_the_first_is_wrong(sound: Directory) -> None:
    time = FIRST - 5 * MINUTE
    sound.write(FIVE, [folded([row(time)], time), *aggregates()])
    assert place(only(sound.audit())) == ("wrong_aggregate", FIVE, time, FIRST)


def test_aggregates_wait_for_the_journal(sound: Directory) -> None:
    """A minute that is not yet in its day file is not yet in what stands on it."""
    sound.write(FIVE, aggregates(DAY1 - 10 * MINUTE))
    sound.wait(1, [row(DAY1 - 7 * MINUTE), row(DAY1 - 2 * MINUTE)])
    assert sound.audit(timeframes=["5m"], selection=Selection("okx", until=DAY1)).ok


def test_a_missing_aggregate_is_found_where_aggregates_are_expected(sound: Directory) -> None:
    rows = aggregates()
    del rows[3:5]
    sound.write(FIVE, rows)
    assert sound.audit().ok
    report = sound.audit(timeframes=["5m"], selection=Selection("okx", until=DAY1))
    start = FIRST + 15 * MINUTE
    assert place(only(report)) == ("missing_aggregate", FIVE, start, start + 10 * MINUTE)


def test_a_deleted_aggregate_file_is_missing(sound: Directory) -> None:
    sound.write(FIVE, aggregates()).unlink()
    assert place(only(sound.audit())) == ("missing_aggregate", FIVE, DAY0, DAY1)


def test_a_deleted_minute_file_is_not_blamed_on_its_aggregates(sound: Directory) -> None:
    sound.write(FIVE, aggregates())
    (sound.root / FILE0).unlink()
    assert only(sound.audit()).kind == "silent_gap"


def test_an_aggregate_is_held_against_the_rules_of_its_own_length(sound: Directory) -> None:
    rows = aggregates()
    rows[2] |= {
        "open_time_ms": rows[2]["open_time_ms"] + MINUTE,
        "close_time_ms": rows[2]["close_time_ms"] + MINUTE,
    }
    sound.write(FIVE, rows)
    violation = only(sound.audit())
    assert violation.kind == "invalid_candle"
    assert "not aligned" in violation.detail


# --- the quick look and the close one

PRICES = [99.5, 0.0, -0.0, -1.0, 1e300, 105.0, nan, inf, -inf]
ODDITIES: dict[str, list[Any]] = {
    "venue": ["kraken"],
    "symbol": ["BTC/USDT"],
    "timeframe": ["5m"],
    "source": ["rest", "aggregated", ""],
    "is_closed": [False],
    "open_time_ms": [1, -1, MINUTE, -MINUTE, 12 * MINUTE, -12 * MINUTE, DAY, -DAY],
    "close_time_ms": [1, -1, MINUTE],
    "trades_count": [None, 0, -1],
    **{name: PRICES for name in ("open", "high", "low", "close", "volume")},
    **{name: [None, 0.0, 1.5, -1.0, nan, inf] for name in ("quote_volume", "vwap")},
}
"""What a column may say; times are moved by so much."""
ODD = [(name, value) for name, some in ODDITIES.items() for value in some]
PLACES = (0, 2, 5, 9)
"""Rows: the first, one among others, one before a hole, the last."""


@pytest.mark.slow
@pytest.mark.parametrize("now", [NOW, DAY1 + 30 * MINUTE])
def test_the_quick_look_lets_nothing_through_that_the_rules_forbid(now: int) -> None:
    for change in ODD:
        for at in PLACES:
            compare_looks([change], at, now)


@settings(deadline=None)
@given(changes=st.lists(st.sampled_from(ODD), min_size=2, max_size=4), at=st.sampled_from(PLACES))
def test_nor_where_several_rules_are_broken(changes: list[tuple[str, Any]], at: int) -> None:
    compare_looks(changes, at, NOW)


def compare_looks(changes: Sequence[tuple[str, Any]], at: int, now: int) -> None:
    """Hold rows of which one is changed against the rules in both ways."""
    rows = [row(t) for t in minutes(DAY1 - 12 * MINUTE, DAY1)]
    del rows[6:8]
    for name, value in changes:
        time = name.endswith("time_ms")
        rows[at][name] = rows[at][name] + value if time else value
        if name == "open_time_ms":
            rows[at]["close_time_ms"] += value

    def pieces() -> list[Piece]:
        tables = [
            pa.Table.from_pylist([row(t) for t in minutes(DAY1 + 29 * MINUTE, DAY1 + 32 * MINUTE)], schema=COLUMNS)
        ]
        tables.insert(0, pa.Table.from_pylist(rows, schema=COLUMNS))
        cells = [Cell("okx", "BTC-USDT", DAY0), Cell("okx", "BTC-USDT", DAY1)]
        series = Series(*OKX)
        return [
            Piece(cell, series, "", table.cast(CODED) if at % 2 else table)
            for cell, table in zip(cells, tables, strict=True)
        ]

    quick, close = pieces(), pieces()
    judge(quick, lambda: now)
    judge_closely(close, lambda: now)
    for one, other in zip(quick, close, strict=True):
        assert one.violations == other.violations
        assert (one.bits, one.first, one.last) == (other.bits, other.first, other.last)


@settings(deadline=None)
@given(
    gone=st.sets(st.integers(0, 59), max_size=8),
    nulls=st.sets(st.integers(0, 59), max_size=3),
    spoil=st.none() | st.tuples(st.integers(0, 11), st.sampled_from(["open", "high", "low", "close", "volume"])),
)
def test_a_fold_is_right_exactly_if_it_equals_the_contracts(
    gone: set[int], nulls: set[int], spoil: tuple[int, str] | None
) -> None:
    rows = [
        row(FIRST + at * MINUTE, **({"quote_volume": None, "trades_count": None} if at in nulls else {}))
        for at in range(60)
        if at not in gone
    ]
    made = []
    for time in range(FIRST, DAY1, 5 * MINUTE):
        part = [r for r in rows if time <= r["open_time_ms"] < time + 5 * MINUTE]
        whole = [r | {"quote_volume": r["quote_volume"] or 0.0, "trades_count": r["trades_count"] or 0} for r in part]
        if part:
            lost: Row = {"quote_volume": None, "vwap": None} if any(r["quote_volume"] is None for r in part) else {}
            lost |= {"trades_count": None} if any(r["trades_count"] is None for r in part) else {}
            made.append(folded(whole, time, **lost))
    if spoil is not None and spoil[0] < len(made):
        made[spoil[0]][spoil[1]] = made[spoil[0]][spoil[1]] * (1 + 2**-52)
    columns = {name: [r[name] for r in rows] for name in COLUMNS.names}
    stored = sum(1 << (1380 + at) for at in range(60) if at not in gone)
    empty = sum(1 << (1380 + at) for at in gone)
    table = pa.Table.from_pylist(made, schema=COLUMNS).combine_chunks()
    right = follows(table, 5 * MINUTE, DAY0, stored, empty, columns["open_time_ms"], columns)
    assert right is (spoil is None or spoil[0] >= len(made))
    if made:
        assert not follows(table.slice(1), 5 * MINUTE, DAY0, stored, empty, columns["open_time_ms"], columns)
        torn = follows(table, 5 * MINUTE, DAY0, stored, 0, columns["open_time_ms"], columns)
        assert torn is (right and not gone)


# --- any ledger

STATES = st.lists(st.sampled_from(["candle", "journal", "empty", "gap", "unfillable"]), min_size=3, max_size=12)


def made_of(root: Path, states: Sequence[str]) -> Directory:
    """A series whose minutes from two before midnight on are *states*."""
    made = Directory(root)
    since = DAY1 - 2 * MINUTE
    series = made.series(*OKX, since, since + len(states) * MINUTE)
    made.days(*OKX, [since + i * MINUTE for i, state in enumerate(states) if state == "candle"])
    for i, state in enumerate(states):
        time = since + i * MINUTE
        if state == "journal":
            made.wait(series, [row(time)])
        elif state == "empty":
            made.empty(series, time, time + MINUTE)
        elif state != "candle":
            made.gap(series, time, time + MINUTE, "open" if state == "gap" else state)
    return made


@settings(deadline=None)
@given(states=STATES, data=st.data())
def test_one_minute_with_no_state_or_with_two_is_found(
    tmp_path_factory: pytest.TempPathFactory, states: list[str], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("ledger")
    assert made_of(folder / "sound", states).audit(pauses=()).ok

    at = data.draw(st.integers(0, len(states) - 1))
    time = DAY1 - 2 * MINUTE + at * MINUTE
    path = FILE0 if time < DAY1 else FILE1
    if data.draw(st.booleans()):
        broken = made_of(folder / "broken", [state if i != at else "candle" for i, state in enumerate(states)])
        also = data.draw(st.sampled_from([broken.empty, broken.gap]))
        also(1, time, time + MINUTE)
        expected = "contradiction"
    else:
        broken = made_of(folder / "broken", [state if i != at else "gap" for i, state in enumerate(states)])
        broken.sql(f"DELETE FROM gap WHERE since_ms = {time}")
        expected = "silent_gap"
    assert place(only(broken.audit(pauses=()))) == (expected, path, time, time + MINUTE)


@given(st.sets(st.integers(0, 1439)))
def test_runs_of_bits_are_the_sets_members(members: set[int]) -> None:
    bits = sum(1 << member for member in members)
    found = list(runs(bits))
    assert {i for low, high in found for i in range(low, high)} == members
    assert all(one[1] < other[0] for one, other in pairwise(found))


@given(st.integers(-3000, 6000), st.integers(-3000, 6000))
def test_a_spans_bits_are_its_minutes_of_the_day(since: int, until: int) -> None:
    bits = span_bits(DAY0 + since * MINUTE, DAY0 + until * MINUTE, DAY0)
    assert bits == sum(1 << i for i in range(max(0, since), min(1440, until)))
    assert (DAY0 in days_of(DAY0 + since * MINUTE, DAY0 + until * MINUTE)) == bool(bits)


# --- the command


def test_the_command_prints_one_json_document(sound: Directory, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "--data-dir", str(sound.root), "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["data_dir"] == str(sound.root)
    (sound.root / FILE0).unlink()
    code, out, _ = run(capsys, "--data-dir", str(sound.root), "--json")
    assert code == 1
    assert [v["kind"] for v in json.loads(out)["violations"]] == ["silent_gap"]


def test_the_text_fits_80_columns(sound: Directory, capsys: pytest.CaptureFixture[str]) -> None:
    (sound.root / FILE0).unlink()
    (sound.root / "okx" / "bell\x1b[2J.txt").write_bytes(b"")
    code, out, _ = run(capsys, "--data-dir", str(sound.root))
    assert code == 1
    assert "silent_gap" in out
    assert "2026-01-10 23:00:00 to 2026-01-11 00:00:00 UTC" in out
    assert "okx BTC-USDT: open, disconnected, 10 min once, 3 attempts" in out
    assert "FAILED: 2 violations." in out
    assert "\x1b" not in out
    assert max(map(len, out.splitlines()[1:])) <= 80


def test_the_command_sees_whether_a_collector_runs(sound: Directory, capsys: pytest.CaptureFixture[str]) -> None:
    sound.sql("UPDATE series SET expected = 0")
    with hold_lock(sound.root / LOCK):
        _, out, _ = run(capsys, "--data-dir", str(sound.root), "--json")
    assert json.loads(out)["collector_running"] is True


def test_selections_narrow_the_audit(sound: Directory, capsys: pytest.CaptureFixture[str]) -> None:
    (sound.root / FILE0).unlink()
    directory = ("--data-dir", str(sound.root), "--json")
    assert run(capsys, *directory, "--venue", "kraken")[0] == 0
    assert run(capsys, *directory, "--symbol", "btc/usd")[0] == 0
    assert run(capsys, *directory, "--from", "2026-01-11")[0] == 0
    assert run(capsys, *directory, "--to", "2026-01-10T00:00:00Z")[0] == 0
    _, out, _ = run(capsys, *directory, "--symbol", "BTC-USDT", "--from", str(DAY1 - 5 * MINUTE))
    assert [(v["start_ms"], v["end_ms"]) for v in json.loads(out)["violations"]] == [(DAY1 - 5 * MINUTE, DAY1)]


def test_usage_errors_are_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--data-dir", str(tmp_path / "nowhere"))[0] == 2
    assert run(capsys, "--config", str(tmp_path / "nowhere.yaml"))[0] == 2
    for bad in (
        ["--from", "noon"],
        ["--symbol", "../x"],
        ["--speed", "0"],
        ["--timeframes", "7m"],
        ["--what"],
    ):
        with pytest.raises(SystemExit) as exit_:
            main(["--data-dir", str(tmp_path), *bad])
        assert exit_.value.code == 2


@pytest.mark.skipif(sys.platform == "win32", reason="a link needs a privilege on Windows")
def test_a_lock_that_may_not_be_opened_is_said_and_no_verdict(
    sound: Directory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # A file that nobody may open, whoever runs the tests: a link to itself.
    (sound.root / LOCK).unlink(missing_ok=True)
    (sound.root / LOCK).symlink_to(sound.root / LOCK)
    code, out, err = run(capsys, "--data-dir", str(sound.root))
    assert (code, out) == (2, "")
    assert err.startswith(f"{sound.root}: ")
    assert LOCK in err


def test_the_configuration_says_where(sound: Directory, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"data_dir: {json.dumps(str(sound.root))}\nvenues:\n  okx:\n    symbols: [BTC-USDT]\n")
    assert run(capsys, "--config", str(config))[0] == 0


def test_the_script_runs_from_the_repository(sound: Directory) -> None:
    done = subprocess.run(
        [sys.executable, "tools/audit.py", "--data-dir", str(sound.root)],
        cwd=REPOSITORY, env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("OK: no violations.\n")


# --- a collector that is late


def test_a_collector_that_is_late_and_gets_there_is_no_violation(sound: Directory) -> None:
    """What is due is due at the first look: while the audit waits, the clock goes on and the collector follows."""
    time = MARK + 3 * MINUTE

    def running() -> bool:
        nonlocal time
        time += MINUTE
        if time > MARK + 5 * MINUTE:
            sound.sql(
                f"UPDATE series SET mark_ms = {MARK + MINUTE};"
                f"INSERT OR IGNORE INTO empty SELECT id, {MARK}, {MARK + MINUTE}, 'ids 7 and 8' FROM series"
            )
        return True

    report = audit(sound.root, now=lambda: time, running=running, pauses=(0.0, 0.0, 0.0))
    assert report.violations == ()
    assert report.checked_at == MARK + 3 * MINUTE
