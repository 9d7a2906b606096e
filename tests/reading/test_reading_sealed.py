"""A reader sees sealed and open days as one."""

from __future__ import annotations

import itertools

import pytest
from directories import BTC, ETH, at, bring_down, sql
from sealing import UNANSWERED, collect, path, seal, sealed
from stores import spoil

from trio_candles.candles.model import Attempt
from trio_candles.reading.candles import read_candles
from trio_candles.reading.errors import DayFileDamaged, LedgerUnreadable, ReadError
from trio_candles.reading.ledger import open_ledger
from trio_candles.reading.spans import coverage
from trio_candles.store.store import open_store

DAYS = ("ccccc" + "eec" * 9, "cgc", "e", "ccc", "c")


@pytest.fixture
def lived(tmp_path):
    """Five days of which one minute is unfillable, nothing sealed yet."""
    with open_store(tmp_path) as store:
        collect(store, *DAYS, timeframes=("5m", "1h"))
        for minute in (1441 + 70, 1441 + 90):
            store.commit([Attempt(BTC, at(1441), at(1442), "no row", absent=True)], at(minute))
    return tmp_path


def seal_all(root) -> None:
    with open_store(root) as store:
        seal(store, 5 * 1440 + UNANSWERED)
    assert sorted(sealed(root)) == [0, 1, 2, 3, 4]


def answers(root) -> list[object]:
    """What is read, for requests that begin and end in and between days."""
    found: list[object] = []
    ends = [None, 0, 3, 1440, 1441, 1443, 2880, 4320, 5763, 7200]
    for start, end in itertools.combinations(ends, 2):
        if end is None:
            continue
        since = None if start is None else at(start)
        for timeframe, on_gap, fill in (("1m", "raise", None), ("15m", "ignore", "previous"), ("1h", "ignore", None)):
            try:
                table = read_candles(root, "okx", "BTC-USDT", timeframe, since, at(end), on_gap=on_gap, fill=fill)
                found.append(table.drop_columns(["ingest_time_ms"]).to_pylist()[:300])
            except ReadError as error:
                found.append(str(error))
    return found


def states(root, **asked) -> list[tuple[object, ...]]:
    columns = ["since_ms", "until_ms", "state", "reason", "attempts", "first_seen_ms", "last_error"]
    return [tuple(row[name] for name in columns) for row in coverage(root, **asked).to_pylist()]


def minutes(root) -> dict[int, object]:
    found: dict[int, object] = {}
    for since, until, *what in states(root):
        for minute in range((since - at(0)) // 60_000, (until - at(0)) // 60_000):
            assert minute not in found
            found[minute] = tuple(what)
    return found


def test_whatever_is_asked_sealing_changes_no_answer(lived):
    before, known = answers(lived), minutes(lived)
    seal_all(lived)
    assert answers(lived) == before
    assert minutes(lived) == known
    assert len(known) == 5 * 1440


def test_the_newest_evidence_of_a_sealed_day_is_what_coverage_says(lived):
    seal_all(lived)
    empty = [row["detail"] for row in coverage(lived, end=at(1440)).to_pylist() if row["state"] == "empty"]
    assert set(empty) == {f"no trade since {at(len(DAYS[0]))}"}


def test_gaps_of_sealed_days_count_as_open_ones(tmp_path):
    with open_store(tmp_path) as store:
        collect(store, "cgg", "cgc", timeframes=())
        store.expect([ETH], at(2880), at(2880))
        seal(store, 3 * UNANSWERED)
    assert sorted(sealed(tmp_path)) == [0, 1]
    with open_ledger(tmp_path) as ledger:
        (totals,) = ledger.open_gaps(ledger.accounts()).values()
        assert (totals.count, totals.length, totals.oldest.reason) == (2, 3 * 60_000, "disconnected")


def test_a_row_that_does_not_match_its_checksum_is_refused(lived):
    seal_all(lived)
    sql(lived, "UPDATE sealed SET unknown = 1 WHERE day_ms = ?", at(0))
    with pytest.raises(LedgerUnreadable, match="checksum"):
        read_candles(lived, "okx", "BTC-USDT", start=at(0), end=at(3))
    assert read_candles(lived, "okx", "BTC-USDT", start=at(4320), end=at(4323)).num_rows == 3


@pytest.mark.parametrize("harm", ["changed", "missing"])
def test_a_sealed_file_that_is_not_what_was_sealed_is_refused_at_once(lived, harm):
    seal_all(lived)
    (spoil if harm == "changed" else lambda file: file.unlink())(lived / path(3))
    with pytest.raises(DayFileDamaged):
        read_candles(lived, "okx", "BTC-USDT", start=at(4320), end=at(4323))


def test_a_timeframe_that_a_sealed_day_lacks_is_folded_from_its_minutes(lived):
    seal_all(lived)
    row = read_candles(lived, "okx", "BTC-USDT", "1d", at(3 * 1440), at(4 * 1440)).to_pylist()
    assert [one["open_time_ms"] for one in row] == [at(3 * 1440)]


def test_an_aggregate_that_nobody_vouches_for_is_not_believed(lived):
    """After the journal was lost the aggregates of sealed days are still to be compared with their minutes."""
    seal_all(lived)
    before = read_candles(lived, "okx", "BTC-USDT", "5m", at(0), at(5)).to_pylist()
    other = lived / path(3, timeframe="5m")
    (lived / path(0, timeframe="5m")).write_bytes(other.read_bytes())
    (lived / "journal.sqlite3").unlink()
    with open_store(lived):
        pass
    assert read_candles(lived, "okx", "BTC-USDT", "5m", at(0), at(5)).to_pylist() == before


def test_a_directory_of_the_format_before_is_read_as_ever(lived):
    before = answers(lived)
    bring_down(lived / "journal.sqlite3", "5")
    assert answers(lived) == before
