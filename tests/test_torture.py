"""The judge of the torture (``tools/torture.py``, minutes long, no part of this run) sees what it is there to see."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import attrs
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from torture.atwork import FIRST, LATE, SERIES, after_all, batches, candle, heard, told, truth, work
from torture.evidence import MINUTE, held_against, survey

from trio_candles.store.store import open_store

LAST = ("okx", "BTC-USDT", FIRST + 7 * MINUTE)


@pytest.fixture
def lived(tmp_path):
    """A directory in which eight minutes were stored: seven in day files, the last in the journal."""
    root = tmp_path / "lived"
    with open_store(root) as store:
        store.expect(SERIES, FIRST, FIRST)
        for batch in batches(0, 8, 1):
            if (batch[0].open_time - FIRST) // MINUTE == 7:
                store.flush(store.waiting())
            store.commit(batch, LATE)
    return root


def change(root, statement):
    with closing(sqlite3.connect(root / "journal.sqlite3")) as journal, journal:
        assert journal.execute(statement).rowcount > 0


def rewrite(root, alter):
    path = sorted(root.glob("okx/*/1m/*.parquet"))[0]
    rows = pq.ParquetFile(path).read(use_threads=False)
    pq.write_table(alter(rows), path)


def test_what_is_as_it_should_be_is_not_blamed(lived):
    everything = heard(b"".join(told(batch) for batch in batches(0, 8)))
    assert len(everything) == 16
    assert survey(lived).candles == everything
    assert held_against(survey(lived), truth, everything) == []
    assert after_all(lived, everything) == []


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE candle SET close = close + 1e-9", "and was"),
        ("DELETE FROM candle", "is 0 things"),
        ("UPDATE series SET mark_ms = mark_ms + 60000", "is 0 things"),
        (f"INSERT INTO empty VALUES (1, {FIRST}, {FIRST + MINUTE}, 'x')", "is called empty"),
        (
            f"INSERT INTO gap VALUES (1, 1, {FIRST}, {FIRST + MINUTE}, 'open', 'unproven', '', 0, 0, NULL, 0, NULL,"
            " NULL, 0)",
            "is 2 things",
        ),
    ],
)
def test_a_ledger_that_is_wrong_is_blamed(lived, statement, said):
    change(lived, statement)
    assert [fault for fault in held_against(survey(lived), truth) if said in fault]


@pytest.mark.parametrize(
    ("alter", "said"),
    [
        (lambda rows: pa.concat_tables([rows, rows.slice(0, 1)]), "is twice in"),
        (lambda rows: rows.slice(1), "is 0 things"),
        (lambda rows: rows.set_column(5, rows.schema.field(5), pa.array([1.5] * rows.num_rows)), "and was"),
    ],
)
def test_a_day_file_that_is_wrong_is_blamed(lived, alter, said):
    rewrite(lived, alter)
    assert [fault for fault in held_against(survey(lived), truth) if said in fault]


def test_a_file_that_cannot_be_read_is_blamed(lived):
    path = next(lived.glob("okx/*/1m/*.parquet"))
    path.write_bytes(path.read_bytes()[:-9])
    assert "cannot be read" in survey(lived).faults[0]


def test_a_candle_that_was_durable_and_is_gone_is_blamed_though_the_ledger_knows_it_as_a_gap(lived):
    before = survey(lived).candles
    change(lived, "DELETE FROM candle WHERE series_id = (SELECT id FROM series WHERE venue = 'okx')")
    change(lived, "UPDATE series SET mark_ms = mark_ms - 60000 WHERE venue = 'okx'")
    assert held_against(survey(lived), truth) == []
    assert held_against(survey(lived), truth, before) == [f"{LAST} was durable as {truth(LAST)} and is now gone"]


def test_a_killed_flush_that_was_not_finished_is_blamed(lived):
    (lived / ".tmp" / "x").write_bytes(b"x")
    with open_store(lived):  # a start removes it
        pass
    assert after_all(lived, {}) == []
    (lived / "okx" / "x").write_bytes(b"x")
    assert [fault for fault in after_all(lived, {}) if "leftover_file" in fault]


def test_the_work_goes_on_where_it_was_ended(tmp_path):
    with (tmp_path / "ears").open("wb") as ears:
        work(tmp_path / "d", ears.fileno(), 0, 4)
        work(tmp_path / "d", ears.fileno(), 0, 6)
    acknowledged = heard((tmp_path / "ears").read_bytes())
    assert sorted(acknowledged) == sorted(
        (one.venue, one.symbol, FIRST + n * MINUTE) for one in SERIES for n in range(6)
    )
    assert attrs.astuple(candle(SERIES[0], 0))[2:7] == truth((*attrs.astuple(SERIES[0])[:2], FIRST))
    assert after_all(tmp_path / "d", acknowledged) == []
