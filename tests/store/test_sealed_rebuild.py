"""Losing the journal loses nothing of a sealed day; gaps are minutes of open days only."""

from __future__ import annotations

import shutil

import pytest
from directories import BTC, ETH, at, sql
from sealing import UNANSWERED, collect, in_file, open_days, path, seal, sealed
from stores import candle, flush

from trio_candles.audit.walk import audit
from trio_candles.candles.model import Attempt, Millis, Page, Source
from trio_candles.reading.spans import coverage
from trio_candles.store.schema import JOURNAL
from trio_candles.store.store import open_store

REST = "e" * 1437


@pytest.fixture
def lived(tmp_path):
    """Two sealed days (the second all empty) and an open one, of which a candle waits."""
    with open_store(tmp_path) as store:
        collect(store, "cgc", "e", "ccc")
        for minute in (1600, 1620):
            store.commit([Attempt(BTC, at(1), at(2), "no row", absent=True)], at(minute))
        seal(store, 3 * 1440)
        store.expect([BTC], at(0), at(3 * 1440 + 1))
        store.commit([candle(3 * 1440 + 1)], at(3 * 1440 + 2))
    assert sealed(tmp_path) == {0: "cuc" + REST, 1: "e" * 1440}
    return tmp_path


def rows(root) -> list[tuple]:
    return sql(root, "SELECT day_ms, minutes, detail, unknown FROM sealed ORDER BY day_ms")


def lose(root, how: str) -> None:
    journal = root / JOURNAL
    if how == "deleted":
        journal.unlink()
    elif how == "garbage":
        journal.write_bytes(b"this is no journal")
    else:  # the root page of another table is gone: its rows can be salvaged
        (page,) = sql(root, "SELECT rootpage FROM sqlite_master WHERE name = 'gap'")[0]
        content = bytearray(journal.read_bytes())
        content[(page - 1) * 4096 : page * 4096] = b"\xa5" * 4096
        journal.write_bytes(content)


@pytest.mark.parametrize("how", ["deleted", "garbage", "ruined"])
def test_a_sealed_day_is_what_it_was_after_the_journal_was_lost(lived, how):
    before = rows(lived)
    evidence = in_file(lived)
    lose(lived, how)
    with open_store(lived) as store:
        store.expect([BTC], at(0), at(3 * 1440 + 5))
        assert store.journal.gaps_of(BTC)[0] == (at(1), at(2))
        assert store.journal.gaps_of(BTC)[1][0] >= at(2 * 1440 + 3)  # of the open day, and what came after it
        account = store.journal.sealed_day(BTC, at(0)).account
        assert account.unfillable.last_error == evidence["unfillable"][4]
    assert [one[:2] + one[3:] for one in rows(lived)] == [one[:2] + one[3:] for one in before]
    assert open_days(lived)[0] == 2


def test_what_the_broken_journal_vouches_for_is_not_derived_again(lived):
    before = sql(lived, "SELECT shape, detail FROM sealed ORDER BY day_ms")
    lose(lived, "ruined")
    with open_store(lived) as store:
        assert sql(lived, "SELECT shape, detail FROM sealed ORDER BY day_ms") == before
        assert store.unfinished() == []


def test_aggregates_that_nobody_vouches_for_are_compared_in_the_background(lived):
    (lived / path(timeframe="5m")).write_bytes(b"?")
    lose(lived, "deleted")
    with open_store(lived) as store:
        store.aggregate(("5m", "1h"))
        while store.unfinished():
            assert store.finish(store.unfinished()).error is None
    assert sorted(sealed(lived)) == [0, 1]
    assert list((lived / "quarantine").iterdir()) != []


def test_a_file_that_changed_since_it_was_sealed_is_not_taken_for_the_row_that_the_broken_journal_has(lived):
    other = lived / "other"
    with open_store(other) as store:
        collect(store, "ceec", "c")
        seal(store)
    shutil.copy(other / path(), lived / path())
    shutil.rmtree(other)
    lose(lived, "ruined")
    with open_store(lived):
        pass
    assert sealed(lived)[0] == "ceec" + "e" * 1436  # what the file says of itself


def test_a_file_whose_account_is_not_that_of_its_rows_is_refused(lived):
    import pyarrow.parquet as pq

    table = pq.read_table(lived / path())
    pq.write_table(table.slice(0, 1), lived / path(), write_page_checksum=True)
    lose(lived, "deleted")
    with open_store(lived) as store:
        assert store.look_up(BTC, at(0)) is None
    assert sealed(lived) == {1: "e" * 1440}


def test_a_late_fill_that_waited_when_the_journal_broke_is_kept_and_its_day_is_open(lived):
    with open_store(lived) as store:
        late = candle(1, 7.0, source=Source.REST, ingest_time=Millis(at(UNANSWERED)))
        store.commit([Page(BTC, at(0), at(1440), (late,), ())], at(3 * 1440))
        assert open_days(lived)[0] == 0
    lose(lived, "ruined")
    with open_store(lived) as store:
        assert open_days(lived)[0] == 0
        flush(store)
        assert store.look_up(BTC, at(1)).open == 7.0
        store.expect([BTC, ETH], at(0), at(3 * 1440 + 5))
        assert store.journal.gaps_of(BTC)[0][0] >= at(2 * 1440 + 3)


def test_everything_that_is_left_is_audited_clean(lived):
    lose(lived, "deleted")
    with open_store(lived) as store:
        store.aggregate(("5m", "1h"))
        store.expect([BTC], at(0), at(3 * 1440 + 5))
        while store.unfinished():
            store.finish(store.unfinished())
        flush(store)
    report = audit(lived, now=lambda: at(3 * 1440 + 5), running=lambda: False, pauses=())
    assert [one.detail for one in report.violations] == []
    states = coverage(lived, start=at(0), end=at(1440)).column("state").to_pylist()
    assert states == ["stored", "unfillable", "stored", "empty"]
