"""The audit holds a sealed day's row in the ledger, the account in its file and its rows against each other.

The days are sealed by hand (``handmade``), by what the schema says of them: no code of the writing path is involved.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from handmade import DAY0, DAY1, FILE0, FILE1, FIRST, MARK, OKX, Directory, folded, minutes, row

from trio_candles.audit import Report, audit
from trio_candles.candles.model import DAY, MINUTE, day_name
from trio_candles.store.schema import JOURNAL

LETTERS = "." * 1380 + "c" * 30 + "e" * 10 + "u" * 5 + "c" * 15
AGGREGATES = f"okx/BTC-USDT/5m/{day_name(DAY0)}.parquet"
ROWS = [row(DAY0 + at * MINUTE) for at, letter in enumerate(LETTERS) if letter == "c"]
FIVES = [
    folded([one for one in ROWS if time <= one["open_time_ms"] < time + 5 * MINUTE], time)
    for time in range(FIRST, DAY0 + DAY, 5 * MINUTE)
    if all(LETTERS[(time - DAY0) // MINUTE + at] == "c" for at in range(5))
]


@pytest.fixture
def opened(tmp_path: Path) -> Directory:
    """An hour of OKX before midnight, and an hour after it; the first is about to be sealed."""
    made = Directory(tmp_path / "data")
    made.series(*OKX)
    made.days(*OKX, minutes(DAY0 + DAY, MARK))
    return made


def replaced(letters: str, at: int, letter: str) -> str:
    return letters[:at] + letter + letters[at + 1 :]


def found(report: Report) -> list[tuple[str, str, int | None, int | None]]:
    return [(one.kind, one.path, one.start_ms, one.end_ms) for one in report.violations]


def words(report: Report) -> str:
    return "; ".join(one.detail for one in report.violations)


def minute(at: int) -> tuple[int, int]:
    return DAY0 + at * MINUTE, DAY0 + (at + 1) * MINUTE


# --- nothing is wrong


def test_a_sealed_day_counts_like_an_open_one(opened: Directory) -> None:
    opened.seal(1, DAY0, ROWS, LETTERS)
    report = opened.audit()
    assert report.violations == ()
    total = report.totals()
    assert (total.candles, total.empty, total.open_gap, total.unfillable, total.files) == (105, 10, 0, 5, 2)
    (gap,) = report.gaps
    assert (gap.start_ms, gap.end_ms, gap.state, gap.reason, gap.attempts) == (
        DAY0 + 1420 * MINUTE, DAY0 + 1425 * MINUTE, "unfillable", "not_collected", 3,
    )  # fmt: skip


def test_gaps_of_a_sealed_day_are_open_gaps(opened: Directory) -> None:
    opened.sql("UPDATE series SET expected = 0")
    opened.seal(1, DAY0, ROWS, LETTERS.replace("e", "g"))
    report = opened.audit()
    assert report.violations == ()
    assert report.totals().open_gap == 10
    assert [(gap.state, gap.reason) for gap in report.gaps] == [
        ("open", "disconnected"),
        ("unfillable", "not_collected"),
    ]


def test_gaps_are_told_in_the_order_of_time_whether_their_day_is_sealed(opened: Directory) -> None:
    opened.sql(f"DELETE FROM day_file WHERE path = '{FILE1}'")
    (opened.root / FILE1).unlink()
    opened.gap(1, DAY1, MARK)
    opened.seal(1, DAY0, ROWS, LETTERS)
    assert [gap.start_ms for gap in opened.audit().gaps] == [DAY0 + 1420 * MINUTE, DAY1]


@pytest.mark.parametrize("shape", ["account", ""])
def test_a_day_on_which_nothing_traded_has_a_file_without_rows_or_none_yet(opened: Directory, shape: str) -> None:
    file = opened.seal(1, DAY0, [], "." * 1380 + "e" * 60, shape)
    assert (file is None) == (shape == "")
    report = opened.audit()
    assert report.violations == ()
    assert report.totals().empty == 60


def test_a_series_of_nothing_but_files_without_rows_has_no_first_and_no_last_candle(tmp_path: Path) -> None:
    made = Directory(tmp_path / "data")
    made.series(*OKX, first=DAY0, mark=DAY0 + DAY)
    made.seal(1, DAY0, [], "e" * 1440)
    report = made.audit()
    assert report.violations == ()
    (one,) = report.document().series
    assert (one.first_open_ms, one.last_open_ms, one.candles, one.empty_minutes) == (None, None, 0, 1440)


def test_the_account_in_an_open_days_file_need_only_be_that_of_its_rows(opened: Directory) -> None:
    """A crash came between putting the file into its place and sealing the day; meanwhile an empty minute came."""
    opened.seal(1, DAY0, ROWS, LETTERS)
    opened.sql(f"DELETE FROM sealed; INSERT INTO open_day VALUES (1, {DAY0}, 0)")
    opened.list(FILE0)
    opened.empty(1, DAY0 + 1410 * MINUTE, DAY0 + 1425 * MINUTE)
    assert opened.audit().violations == ()


def test_a_file_that_a_crash_left_between_two_digests_is_either(opened: Directory) -> None:
    opened.seal(1, DAY0, ROWS, LETTERS, digests={"1m": "0" * 64})
    opened.list(FILE0, "pending")
    assert opened.audit().violations == ()


def test_aggregates_of_a_sealed_day_are_derived_anew(opened: Directory) -> None:
    opened.write(AGGREGATES, FIVES, listed=False)
    opened.seal(1, DAY0, ROWS, LETTERS, "account 5m")
    assert opened.audit().violations == ()
    wrong = [FIVES[0] | {"high": 1e6}, *FIVES[1:]]
    opened.write(AGGREGATES, wrong, listed=False)
    opened.sql("DELETE FROM sealed")
    opened.seal(1, DAY0, ROWS, LETTERS, "account 5m")
    assert found(opened.audit()) == [("wrong_aggregate", AGGREGATES, FIRST, FIRST + 5 * MINUTE)]


@pytest.mark.parametrize(("shape", "missing"), [("account", set()), ("account 5m", {"missing_aggregate"})])
def test_a_timeframe_that_the_day_was_not_derived_in_is_still_to_come(
    opened: Directory, shape: str, missing: set[str]
) -> None:
    opened.sql("INSERT INTO meta VALUES ('timeframes', '5m')")
    opened.sql(f"INSERT INTO underived (series_id, since_ms, until_ms) VALUES (1, {DAY0 + DAY}, {MARK})")
    opened.seal(1, DAY0, ROWS, LETTERS, shape)
    assert {one.kind for one in opened.audit().violations} == missing


def test_what_is_sealed_or_opened_between_two_readings_is_no_violation(opened: Directory) -> None:
    """The ledger is read before the files: a day is sealed in between."""
    opened.write(FILE0, ROWS)
    opened.empty(1, DAY0 + 1410 * MINUTE, DAY0 + 1420 * MINUTE)
    opened.gap(1, DAY0 + 1420 * MINUTE, DAY0 + 1425 * MINUTE, "unfillable", "not_collected")

    asked = iter(range(100))

    def running() -> bool:
        if next(asked) == 2:  # before the second reading of the ledger
            opened.sql("DELETE FROM empty; DELETE FROM gap")
            opened.seal(1, DAY0, ROWS, LETTERS)
        return True

    (opened.root / FILE0).write_bytes(b"half of it")  # what looks wrong is read again
    report = audit(opened.root, now=lambda: MARK, running=running, pauses=(0.0, 0.0))
    assert report.violations == ()
    assert next(asked) == 3  # the reading in which it looked wrong, and the one in which it did not


# --- what differs


@pytest.mark.parametrize(
    ("letters", "at"),
    [(replaced(LETTERS, 1385, "e"), 1385), (replaced(LETTERS, 1412, "c"), 1412), (replaced(LETTERS, 1421, "e"), 1421)],
    ids=["a candle called empty", "an empty minute called a candle", "an unfillable minute called empty"],
)
@pytest.mark.parametrize("where", ["file", "row"])
def test_a_flipped_letter_is_a_contradiction(opened: Directory, where: str, letters: str, at: int) -> None:
    """In the account in the file, or in the ledger's row, whose checksum is right."""
    if where == "file":
        opened.seal(1, DAY0, ROWS, LETTERS, carried={"minutes": letters})
    else:
        opened.seal(1, DAY0, ROWS, LETTERS, told=letters)
    report = opened.audit()
    assert ("contradiction", FILE0, *minute(at)) in found(report)
    assert {one[0] for one in found(report)} == {"contradiction"}
    assert {one[2:] for one in found(report)} == {minute(at)}


@pytest.mark.parametrize(
    ("name", "value", "letters"),
    [
        ("empty", None, LETTERS), ("unfillable", None, LETTERS), ("gap", None, LETTERS.replace("e", "g")),
        ("empty", "nothing traded", LETTERS.replace("e", "c")), ("unfillable", ["", "", 0, 0, None], LETTERS),
        ("unfillable", ["whim", "", 0, 0, None], LETTERS), ("unfillable", [1], LETTERS), ("compared", 1, LETTERS),
        ("listed", "1970", LETTERS),
    ],
)  # fmt: skip
def test_minutes_without_sound_evidence_are_a_corrupt_ledger(
    opened: Directory, name: str, value: Any, letters: str
) -> None:
    opened.sql("UPDATE series SET expected = 0")
    rows = [row(DAY0 + at * MINUTE) for at, letter in enumerate(letters) if letter == "c"]
    opened.seal(1, DAY0, rows, letters, carried={name: value}, **{name: value})
    assert ("ledger_corrupt", JOURNAL, DAY0, DAY0 + DAY) in found(opened.audit())


def test_other_evidence_in_the_file_is_a_contradiction(opened: Directory) -> None:
    opened.seal(1, DAY0, ROWS, LETTERS, carried={"empty": "another", "compared": False})
    report = opened.audit()
    assert found(report) == [("contradiction", FILE0, DAY0, DAY0 + DAY)]
    assert "compared, empty" in words(report)


@pytest.mark.parametrize(
    ("carried", "said"),
    [
        ({"day": DAY0 - DAY}, "another day"),
        ({"symbol": "ETH-USDT"}, "another day"),
        ({"minutes": "c"}, "cannot be read"),
    ],
)
def test_an_account_of_another_file_is_a_contradiction(opened: Directory, carried: dict[str, Any], said: str) -> None:
    opened.seal(1, DAY0, ROWS, LETTERS, carried=carried)
    report = opened.audit()
    assert found(report) == [("contradiction", FILE0, DAY0, DAY0 + DAY)]
    assert said in words(report)


def test_a_file_without_the_account_that_the_row_speaks_of_is_a_contradiction(opened: Directory) -> None:
    opened.seal(1, DAY0, ROWS, LETTERS, "", told_shape="account")
    assert found(opened.audit()) == [("contradiction", FILE0, DAY0, DAY0 + DAY)]


def test_a_row_more_or_less_than_the_ledger_knows_is_a_contradiction(opened: Directory) -> None:
    before = row(DAY0 + 1379 * MINUTE)
    opened.seal(1, DAY0, [before, *ROWS[1:]], LETTERS)
    assert {one[2:] for one in found(opened.audit())} == {minute(1379), minute(1380)} | {
        (DAY0 + 1379 * MINUTE, DAY0 + 1381 * MINUTE)
    }
    assert {one[0] for one in found(opened.audit())} == {"contradiction"}


def test_the_account_of_an_open_days_file_is_held_against_its_rows(opened: Directory) -> None:
    opened.seal(1, DAY0, ROWS[:-1], LETTERS)
    opened.sql(f"DELETE FROM sealed; INSERT INTO open_day VALUES (1, {DAY0}, 0)")
    opened.list(FILE0)
    opened.empty(1, DAY0 + 1410 * MINUTE, DAY0 + 1425 * MINUTE)
    opened.empty(1, DAY0 + 1439 * MINUTE, DAY0 + DAY)
    assert found(opened.audit()) == [("contradiction", FILE0, *minute(1439))]


# --- sealed and open


def test_a_candle_that_waits_for_a_sealed_day_is_a_contradiction(opened: Directory) -> None:
    opened.seal(1, DAY0, ROWS, LETTERS)
    opened.wait(1, ROWS[:1])
    assert found(opened.audit()) == [("contradiction", JOURNAL, *minute(1380))]


@pytest.mark.parametrize("table", ["gap", "empty"])
def test_rows_of_open_days_that_reach_into_a_sealed_one_are_a_contradiction(opened: Directory, table: str) -> None:
    opened.seal(1, DAY0, ROWS, LETTERS)
    if table == "gap":
        opened.gap(1, DAY0 + 1422 * MINUTE, DAY0 + 1423 * MINUTE, "unfillable", "not_collected")
    else:
        opened.empty(1, DAY0 + 1412 * MINUTE, DAY0 + 1413 * MINUTE)
    assert found(opened.audit()) == [("contradiction", JOURNAL, *minute(1422 if table == "gap" else 1412))]


@pytest.mark.parametrize(
    ("script", "where"),
    [
        (f"INSERT INTO open_day VALUES (1, {DAY0}, 0)", (DAY0, DAY0 + DAY)),
        (f"DELETE FROM open_day WHERE day_ms = {DAY0 + DAY}", (DAY0 + DAY, DAY0 + 2 * DAY)),
        (f"INSERT INTO day_file VALUES ('{FILE0}', '{'0' * 64}', NULL)", (DAY0, DAY0 + DAY)),
        ("UPDATE sealed SET checksum = checksum + 1", (DAY0, DAY0 + DAY)),
    ],
    ids=["both", "neither", "a digest beside the row's", "another checksum"],
)
def test_each_day_is_either_sealed_or_open(opened: Directory, script: str, where: tuple[int, int]) -> None:
    opened.seal(1, DAY0, ROWS, LETTERS)
    opened.sql(script)
    assert ("ledger_corrupt", JOURNAL, *where) in found(opened.audit())


def test_many_days_that_are_nowhere_are_told_in_one_line(tmp_path: Path) -> None:
    made = Directory(tmp_path / "data")
    made.series(*OKX, first=DAY0, mark=DAY0 + 100 * DAY)
    made.gap(1, DAY0, DAY0 + 100 * DAY)
    made.sql("DELETE FROM open_day")
    report = made.audit(now=DAY0 + 101 * DAY)
    assert found(report) == [("ledger_corrupt", JOURNAL, DAY0, DAY0 + 100 * DAY)]


def test_a_sealed_gap_of_an_expected_series_is_a_corrupt_ledger(opened: Directory) -> None:
    """Nobody asks about the gaps of sealed days."""
    opened.seal(1, DAY0, ROWS, LETTERS.replace("e", "g"))
    assert found(opened.audit()) == [("ledger_corrupt", JOURNAL, DAY0, DAY0 + DAY)]


def test_a_count_of_gaps_that_is_wrong_is_a_corrupt_ledger(opened: Directory) -> None:
    opened.seal(1, DAY0, ROWS, LETTERS, unknown=1)
    assert found(opened.audit()) == [("ledger_corrupt", JOURNAL, DAY0, DAY0 + DAY)]


@pytest.mark.parametrize(
    "script",
    [
        "minutes = x'00'", "minutes = 5", "detail = x'789c030000000001'", "shape = 'account 7x'", "day_ms = day_ms + 1",
        "day_ms = 'today'", "minutes = zeroblob(3)",
    ],
)  # fmt: skip
def test_a_row_that_cannot_be_read_is_a_corrupt_ledger(opened: Directory, script: str) -> None:
    opened.seal(1, DAY0, ROWS, LETTERS)
    opened.sql(f"UPDATE sealed SET {script}")
    assert "ledger_corrupt" in {one[0] for one in found(opened.audit())}


def test_a_sealed_days_file_that_is_gone_is_a_silent_gap(opened: Directory) -> None:
    file = opened.seal(1, DAY0, ROWS, LETTERS)
    assert file is not None
    file.unlink()
    assert found(opened.audit()) == [
        ("silent_gap", FILE0, FIRST, FIRST + 30 * MINUTE), ("silent_gap", FILE0, DAY0 + 1425 * MINUTE, DAY0 + DAY),
    ]  # fmt: skip


def test_a_file_without_rows_that_is_gone_is_a_checksum(opened: Directory) -> None:
    file = opened.seal(1, DAY0, [], "." * 1380 + "e" * 60)
    assert file is not None
    file.unlink()
    assert found(opened.audit()) == [("checksum", FILE0, DAY0, DAY0 + DAY)]


def test_a_sealed_days_file_with_another_digest_is_a_checksum(opened: Directory) -> None:
    opened.seal(1, DAY0, ROWS, LETTERS, digests={"1m": "0" * 64})
    assert found(opened.audit()) == [("checksum", FILE0, DAY0, DAY0 + DAY)]
