"""A day that is over, known and compared is sealed; whatever changes one of its minutes opens it again."""

from __future__ import annotations

import attrs
import pytest
from directories import BTC, ETH, at, bring_down, sql
from sealing import OVER, UNANSWERED, collect, day_of, in_file, open_days, path, seal, sealed, spans
from stores import candle, flush, ledger, spoil

from trio_candles.candles.model import Attempt, Empty, Millis, Page, Reason, Source, Unsure
from trio_candles.store.accounts import SealedDay
from trio_candles.store.store import open_store

REST = "e" * 1437


def page(*candles, since=0, until=1440, **changes) -> Page:
    return Page(BTC, at(since), at(until), tuple(candles), (), **changes)


def rest(minute, price, at_minute=2000):
    return candle(minute, price, source=Source.REST, ingest_time=Millis(at(at_minute)))


# --- sealed


def test_a_day_that_is_over_and_known_is_one_row_and_its_file_carries_the_account(tmp_path):
    with open_store(tmp_path) as store:
        collect(store, "cce", "c")
        seal(store)
        assert store.journal.gaps_of(BTC) == []
    assert sealed(tmp_path) == {0: "cce" + REST}
    assert open_days(tmp_path) == [1]
    assert spans(tmp_path, "empty") == [(1441, 2880)]
    account = in_file(tmp_path)
    assert account["minutes"] == "cce" + REST
    assert (account["venue"], account["symbol"], account["folder"], account["day"]) == (
        "okx",
        "BTC-USDT",
        "BTC-USDT",
        at(0),
    )
    assert account["empty"] == f"no trade since {at(3)}"
    assert {one[-18:] for (one,) in ledger(tmp_path, "SELECT path FROM day_file")} == {path(1)[-18:]}
    (row,) = ledger(tmp_path, "SELECT length(shape) + length(minutes) + length(detail) + 40 FROM sealed")
    assert row[0] < 1024


def test_a_day_is_not_sealed_before_it_ended_an_hour_ago(tmp_path):
    with open_store(tmp_path) as store:
        collect(store, "c", "c")
        seal(store, OVER - 1, filling=False)
        assert sealed(tmp_path) == {}
        seal(store, OVER, filling=False)
    assert sorted(sealed(tmp_path)) == [0]


@pytest.mark.parametrize(
    ("filling", "minute", "compared"), [(True, OVER, None), (False, OVER, False), (True, UNANSWERED, False)]
)
def test_a_day_is_sealed_once_compared_or_when_nobody_can(tmp_path, filling, minute, compared):
    with open_store(tmp_path) as store:
        collect(store, "ccc", "c")
        seal(store, minute, filling=filling)
    assert (in_file(tmp_path) and in_file(tmp_path)["compared"]) == compared


def test_a_day_whose_candles_agree_with_the_venues_record_says_so(tmp_path):
    with open_store(tmp_path) as store:
        collect(store, "cc", "c")
        known = [rest(minute, 100.0 + minute) for minute in (0, 1, 1440)]
        store.commit([page(*known, until=1441, comparing=True)], at(OVER))
        seal(store, OVER)
    assert in_file(tmp_path)["compared"] is True


def test_the_last_candle_of_a_thin_pair_was_compared_though_no_other_came_after_it(tmp_path):
    with open_store(tmp_path) as store:
        collect(store, "cc")
        store.commit([page(rest(0, 100.0), rest(1, 101.0), until=2, comparing=True)], at(OVER))
        seal(store, OVER)
    assert in_file(tmp_path)["compared"] is True


def test_a_day_with_an_open_gap_stays_open_and_is_sealed_once_the_gap_is_filled(tmp_path):
    with open_store(tmp_path) as store:
        collect(store, "cgc", "c")
        seal(store)
        assert sealed(tmp_path) == {}
        assert store.sealable(at(UNANSWERED + 9)) == []  # a look costs what is due
        store.commit([page(rest(1, 7.0))], at(UNANSWERED + 9))
        seal(store, UNANSWERED + 10)
        assert sealed(tmp_path) == {}  # the candle waits for its file
        flush(store)
        seal(store, UNANSWERED + 20)
    assert sealed(tmp_path)[0] == "ccc" + REST


def test_a_day_of_a_series_that_is_not_expected_any_more_is_sealed_as_it_stands(tmp_path):
    with open_store(tmp_path) as store:
        collect(store, "cg", "cgc")
        store.expect([ETH], at(2880), at(2880))
        seal(store, 2 * UNANSWERED)
    assert {day: text[:3] for day, text in sealed(tmp_path).items()} == {0: "cge", 1: "cgc"}
    assert in_file(tmp_path)["gap"][0] == "disconnected"
    with open_store(tmp_path) as store:  # and is open again once it is expected
        store.expect([BTC, ETH], at(2880), at(2880))
        assert store.journal.gaps_of(BTC)[:2] == [(at(1), at(2)), (at(1441), at(1442))]
    assert open_days(tmp_path)[:2] == [0, 1]
    assert sealed(tmp_path) == {}


def test_a_day_without_a_candle_is_a_file_without_rows(tmp_path):
    with open_store(tmp_path) as store:
        collect(store, "e", "c")
        seal(store)
        assert store.look_up(BTC, at(5)) is None
    assert in_file(tmp_path)["minutes"] == "e" * 1440
    with open_store(tmp_path) as store:
        store.commit([candle(3)], at(UNANSWERED))  # it was called empty
        assert sealed(tmp_path) == {}
        assert ledger(tmp_path, "SELECT outcome FROM revision") == [("open",)]


def test_a_file_whose_rows_are_not_what_the_ledger_says_is_not_sealed(tmp_path):
    with open_store(tmp_path) as store:
        collect(store, "ccc", "c")
        with store.journal._transaction():  # as a mistake of ours would leave it
            store.journal._db.execute("INSERT INTO empty VALUES (1, ?, ?, 'wrong')", (at(1), at(2)))
        seal(store)
        assert sealed(tmp_path) == {}
    assert (tmp_path / "quarantine").is_dir()


# --- opened again


@pytest.fixture
def one_day(tmp_path):
    """A directory with a sealed day: two candles, one minute unfillable, and the rest empty."""
    with open_store(tmp_path) as store:
        collect(store, "cgc", "c")
        for minute in (1600, 1620):
            store.commit([Attempt(BTC, at(1), at(2), "no row", absent=True)], at(minute))
        seal(store)
    assert sealed(tmp_path)[0] == "cuc" + REST
    return tmp_path


def test_another_candle_of_a_sealed_minute_opens_the_day_and_replaces_it_when_told_twice(one_day):
    with open_store(one_day) as store:
        store.commit([page(rest(2, 7.0, UNANSWERED))], at(UNANSWERED))
        assert sealed(one_day) == {}
        assert open_days(one_day) == [0, 1]
        assert spans(one_day, "gap") == [(1, 2)]
        seal(store, UNANSWERED + 20)
        assert sealed(one_day) == {}  # the revision is open
        store.commit([page(rest(2, 7.0, UNANSWERED + 30))], at(UNANSWERED + 30))
        flush(store)
        assert in_file(one_day) is None  # a file that was written anew has no account
        seal(store, UNANSWERED + 40)
        assert store.look_up(BTC, at(2)).open == 7.0
    assert sealed(one_day)[0] == "cuc" + REST
    assert in_file(one_day)["unfillable"][0] == "disconnected"


def test_a_late_fill_opens_the_day(one_day):
    with open_store(one_day) as store:
        store.commit([page(rest(1, 7.0, UNANSWERED))], at(UNANSWERED))
        assert sealed(one_day) == {}
        assert spans(one_day, "gap") == []
        flush(store)
        seal(store, UNANSWERED + 20)
    assert sealed(one_day)[0] == "ccc" + REST


def test_a_longer_look_back_opens_the_first_day(one_day):
    with open_store(one_day) as store:
        store.expect([BTC], at(-10), at(2880))
        assert sealed(one_day)[0] == "cuc" + REST  # it begins at midnight: nothing of it has changed
        assert open_days(one_day) == [-1, 1]


def test_a_longer_look_back_opens_a_day_that_was_expected_in_part(tmp_path):
    with open_store(tmp_path) as store:
        store.aggregate(())
        store.expect([BTC], at(5), at(5))
        store.commit([*day_of("cccccc")[5:]], at(1440))
        flush(store)
        seal(store, UNANSWERED, filling=False)
        assert sealed(tmp_path)[0][:7] == ".....ce"
        store.expect([BTC], at(0), at(1440))
        assert sealed(tmp_path) == {}
        assert spans(tmp_path, "gap")[0] == (0, 5)


def test_what_agrees_with_a_sealed_day_leaves_it_sealed(one_day):
    with open_store(one_day) as store:
        same = [rest(minute, 100.0 + minute) for minute in (0, 2)]
        store.commit([page(*same), candle(2, 102.0), Empty(BTC, at(5), at(9), "again")], at(UNANSWERED))
        store.commit([Unsure(BTC, at(1), at(9), Reason.SUSPECT)], at(UNANSWERED))
        store.commit([Attempt(BTC, at(0), at(1440), "nothing")], at(UNANSWERED))
    assert sealed(one_day)[0] == "cuc" + REST


@pytest.mark.parametrize("harm", ["changed", "missing"])
def test_a_sealed_file_that_is_not_what_was_sealed_is_given_up_by_who_meets_it_first(one_day, harm):
    (spoil if harm == "changed" else lambda file: file.unlink())(one_day / path())
    with open_store(one_day) as store:
        assert sealed(one_day)[0] == "cuc" + REST  # a start looks at open days only
        store.commit([candle(2, 5.0)], at(UNANSWERED))
        assert sealed(one_day) == {}
        assert spans(one_day, "gap") == [(0, 1), (1, 2)]  # and the third was told again


@pytest.mark.parametrize("harm", ["changed", "missing"])
def test_a_scrub_finds_a_sealed_file_that_is_not_what_was_sealed(one_day, harm):
    (spoil if harm == "changed" else lambda file: file.unlink())(one_day / path())
    with open_store(one_day) as store:
        assert store.scrub((0, 0), 10) == (None, 1)
        assert sealed(one_day) == {}
        assert [row for row in ledger(one_day, "SELECT reason FROM gap ORDER BY since_ms")][:3] == [
            ("corrupt",),
            ("disconnected",),
            ("corrupt",),
        ]


def test_a_scrub_finds_a_file_that_nobody_knows(one_day):
    stray = one_day / path(-3)
    stray.write_bytes(b"?")
    with open_store(one_day) as store:
        store.set_strays_aside(BTC, "1m")
    assert not stray.exists()


def test_an_aggregate_of_a_sealed_day_that_is_lost_is_derived_again_without_opening_the_day(tmp_path):
    with open_store(tmp_path) as store:
        collect(store, "ccccc", "c")
        seal(store)
        file = tmp_path / path(timeframe="5m")
        before = file.read_bytes()
        file.unlink()
        store.scrub((0, 0), 10)
        assert [one.path for one in store.unfinished()] == [path()]
        store.finish(store.unfinished())
        assert store.unfinished() == []
    assert file.read_bytes() == before
    assert sorted(sealed(tmp_path)) == [0]


def test_a_new_timeframe_is_derived_for_sealed_days_without_opening_them(tmp_path):
    with open_store(tmp_path) as store:
        collect(store, "c" * 15, "c", timeframes=("5m",))
        seal(store)
    with open_store(tmp_path) as store:
        store.aggregate(("5m", "15m"))
        store.finish(store.unfinished())
        assert store.unfinished() == []
        assert (tmp_path / path(timeframe="15m")).is_file()
    assert sorted(sealed(tmp_path)) == [0]


# --- a damaged row


def test_a_damaged_row_is_restored_from_the_account_in_the_file(one_day, caplog):
    sql(one_day, "UPDATE sealed SET unknown = 5")
    with open_store(one_day) as store:
        store.scrub((0, 0), 10)
        assert sealed(one_day)[0] == "cuc" + REST
        assert store.journal.sealed_day(BTC, at(0)).account.count("g") == 0
    assert "does not match its checksum" in caplog.text


def test_a_damaged_row_whose_account_is_in_no_file_is_opened_as_gaps_but_for_the_rows(tmp_path):
    with open_store(tmp_path) as store:
        collect(store, "cec", "c")
        account = store.journal.sealing.as_it_stands(BTC, at(0), compared=False)
        digest = store.journal.digest(path())[0]
        store.journal.replaced([], sealed=[SealedDay(account, {"1m": digest}, "5m 1h")], now=at(UNANSWERED))
        sql(tmp_path, "UPDATE sealed SET shape = '5m'")
        store.commit([candle(0, 100.0), candle(2, 102.0)], at(UNANSWERED))
        assert open_days(tmp_path) == [0, 1]
        assert store.journal.gaps_of(BTC) == [(at(1), at(2)), (at(3), at(1440))]
        assert attrs.asdict(store.look_up(BTC, at(2)))["open"] == 102.0


# --- brought up from an earlier version


def test_old_days_of_an_earlier_version_are_sealed_by_the_ledger_alone_and_their_files_get_the_account_later(tmp_path):
    with open_store(tmp_path) as store:
        collect(store, "cgc", "cce", "e", "e", "c")
        before = store.journal.gaps_of(BTC)
    bring_down(tmp_path / "journal.sqlite3", "5")
    with open_store(tmp_path) as store:
        assert sealed(tmp_path) == {1: "cce" + REST, 2: "e" * 1440}
        assert open_days(tmp_path) == [0, 3, 4]
        assert in_file(tmp_path, 1) is None
        assert store.journal.gaps_of(BTC) == before
        assert store.finish(store.unfinished()).error is None
        assert store.unfinished() == []
    assert in_file(tmp_path, 1)["minutes"] == "cce" + REST
    assert in_file(tmp_path, 2)["minutes"] == "e" * 1440
