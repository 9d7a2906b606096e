"""``coverage`` is a table of columns, however many spans there are, and the same table as of open days."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from itertools import pairwise

import attrs
import pytest
from directories import BTC, at, make, sql
from sealing import UNANSWERED, collect, seal, sealed
from stores import candles

from trio_candles.candles.model import Attempt
from trio_candles.reading.errors import LedgerUnreadable
from trio_candles.reading.spans import SPANS, coverage
from trio_candles.store.accounts import SEALED, Account, SealedDay, Unknown, sealed_row
from trio_candles.store.schema import JOURNAL
from trio_candles.store.store import open_store

THIN = "ce" * 150


def seal_by_hand(root, *days: Account) -> None:
    """Let *days*, which adjoin, be sealed days of BTC before those that the ledger knows."""
    rows = [(1, *sealed_row(SealedDay(account, {}, "account"))) for account in days]
    with closing(sqlite3.connect(root / JOURNAL)) as database, database:
        database.executemany(f"INSERT INTO sealed (series_id, {SEALED}) VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
    sql(root, "UPDATE series SET first_ms = ?", days[0].day + 60_000 * (1440 - len(days[0].minutes.lstrip("."))))


def day(number: int, minutes: str, **evidence) -> Account:
    return Account(BTC, at(number * 1440), minutes + "c" * (1440 - len(minutes)), compared=True, **evidence)


def spans(root, **asked) -> list[tuple[object, ...]]:
    rows = coverage(root, "okx", **asked).to_pylist()
    return [
        ((row["since_ms"] - at(0)) // 60_000, (row["until_ms"] - at(0)) // 60_000, row["state"], row["detail"])
        for row in rows
    ]


def test_a_span_takes_at_most_fifty_bytes_however_thin_the_pair(tmp_path):
    with open_store(tmp_path) as store:
        collect(store, THIN, THIN, timeframes=())
        seal(store, 1440 + UNANSWERED)
    assert sorted(sealed(tmp_path)) == [0, 1]
    table = coverage(tmp_path)
    assert table.schema.equals(SPANS)
    assert table.num_rows == 4 * 150
    assert table.nbytes <= 50 * table.num_rows + 1000  # and the texts, once
    table.validate(full=True)


def test_neighbours_over_midnight_that_say_the_same_are_one_span(tmp_path):
    make(tmp_path, "eg")
    sql(tmp_path, "UPDATE empty SET evidence = 'none'")
    other = Unknown("disconnected", "detail g", at(9), 3, None)
    seal_by_hand(
        tmp_path,
        day(-4, "c"),
        day(-3, "c" + "e" * 1439, empty="none"),
        day(-2, "e" * 1000 + "u" * 440, empty="none", unfillable=other),
        day(-1, "u" * 10 + "c" * 1000 + "e" * 430, unfillable=Unknown("refused", "", at(9), 3, None), empty="none"),
    )
    assert spans(tmp_path) == [
        (-4 * 1440, -3 * 1440 + 1, "stored", None),
        (-3 * 1440 + 1, -2 * 1440 + 1000, "empty", "none"),
        (-2 * 1440 + 1000, -1440, "unfillable", "detail g"),
        (-1440, -1430, "unfillable", ""),
        (-1430, -430, "stored", None),
        (-430, 1, "empty", "none"),
        (1, 2, "gap", "detail g"),
    ]
    assert spans(tmp_path, start=at(-1440 + 5), end=at(-431)) == [
        (-1435, -1430, "unfillable", ""),
        (-1430, -431, "stored", None),
    ]
    assert spans(tmp_path, start=at(-1440 - 7), end=at(-1440)) == [(-1447, -1440, "unfillable", "detail g")]


def test_more_days_than_are_taken_apart_together_lose_no_span(tmp_path):
    make(tmp_path, "s")
    days = [day(number, "ce" * (10 + number % 3), empty=f"why {number // 5}") for number in range(-150, 0)]
    seal_by_hand(tmp_path, *days)
    expected = [
        (one.day + minute * 60_000, f"why {number // 5}")
        for number, one in zip(range(-150, 0), days, strict=True)
        for minute in range(1, 2 * (10 + number % 3), 2)
    ]
    rows = coverage(tmp_path).to_pylist()
    assert [(row["since_ms"], row["detail"]) for row in rows if row["state"] == "empty"] == expected
    assert all(one["until_ms"] == other["since_ms"] for one, other in pairwise(rows))
    assert rows[0]["since_ms"] == days[0].day
    assert rows[-1]["until_ms"] == at(1)


@pytest.mark.parametrize(
    ("since", "until"), [(-1440, -1439), (-1, 1), (-1441, -1440 + 1), (-2880, 1)], ids=["in", "out", "into", "over"]
)
def test_a_span_that_reaches_into_a_sealed_day_is_refused(tmp_path, since, until):
    make(tmp_path, "s")
    seal_by_hand(tmp_path, day(-1, "c"))
    sql(tmp_path, "UPDATE series SET first_ms = ?", at(-4 * 1440))
    sql(tmp_path, "INSERT INTO empty VALUES (1, ?, ?, 'none')", at(since), at(until))
    with pytest.raises(LedgerUnreadable, match="two things"):
        coverage(tmp_path)


def test_an_account_that_does_not_know_an_expected_minute_is_refused(tmp_path):
    make(tmp_path, "s")
    seal_by_hand(tmp_path, day(-1, "..c"))
    assert spans(tmp_path) == [(-1438, 1, "stored", None)]
    sql(tmp_path, "UPDATE series SET first_ms = ?", at(-1440))
    with pytest.raises(LedgerUnreadable, match="does not know"):
        coverage(tmp_path)


def test_a_dense_day_is_refused_if_its_row_is_damaged(tmp_path):
    make(tmp_path, "s")
    seal_by_hand(tmp_path, day(-1, "c"))
    assert spans(tmp_path) == [(-1440, 1, "stored", None)]
    sql(tmp_path, "UPDATE sealed SET checksum = checksum + 1")
    with pytest.raises(LedgerUnreadable, match="checksum"):
        coverage(tmp_path)


def test_a_directory_without_a_minute_gives_an_empty_table(tmp_path):
    with open_store(tmp_path) as store:
        store.expect([BTC], at(0), at(0))
    table = coverage(tmp_path)
    assert (table.num_rows, table.schema.equals(SPANS)) == (0, True)


def test_what_is_open_again_reads_as_before(tmp_path):
    with open_store(tmp_path) as store:
        collect(store, THIN, "cgc", timeframes=())
        for minute in (1441 + 70, 1441 + 90):
            store.commit([Attempt(BTC, at(1441), at(1442), "no row", absent=True)], at(minute))
        seal(store, 1440 + UNANSWERED)
    before = coverage(tmp_path).to_pylist()
    with open_store(tmp_path) as store:  # other candles of minutes that are stored: revisions
        store.commit([attrs.evolve(one, close=one.close + 1) for n in (0, 1440) for one in candles(n, n + 1)], at(2880))
    assert sealed(tmp_path) == {}
    assert coverage(tmp_path).to_pylist() == before
