"""What is told in the change feed, and when: rows of ``change`` in the transaction of their verdict."""

from __future__ import annotations

import pytest
from directories import BTC, ETH, at, bring_down, candle, flush

from trio_candles.candles.model import MINUTE, Attempt, Candle, Empty, Millis, Page, Reason, Source, Unsure
from trio_candles.store.feed import Around, Kind
from trio_candles.store.journal import LedgerBroken
from trio_candles.store.store import Store, open_store

DAY = 1440


@pytest.fixture
def store(tmp_path):
    with open_store(tmp_path) as store:
        store.expect([BTC], at(-2), at(-2))
        yield store


def told(store: Store) -> list[tuple[str, int, int]]:
    """(event, begin, end), in minutes from midnight."""
    rows = store.journal._db.execute("SELECT kind, since_ms, minutes FROM change ORDER BY seq").fetchall()
    return [
        (Kind(kind).name.lower(), (since - at(0)) // MINUTE, (since - at(0)) // MINUTE + n) for kind, since, n in rows
    ]


def numbers(store: Store) -> list[int]:
    return [seq for (seq,) in store.journal._db.execute("SELECT seq FROM change ORDER BY seq")]


def around(store: Store) -> Around:
    (text,) = store.journal._db.execute("SELECT around FROM change ORDER BY seq DESC LIMIT 1").fetchone()
    return Around.parse(text)


def rest(minute: int, asked: Millis, **changes) -> Candle:
    return candle(minute, source=Source.REST, ingest_time=asked, **changes)


def page(since: int, until: int, *candles: Candle, **more) -> Page:
    return Page(BTC, at(since), at(until), candles, more.pop("empties", ()), **more)


def test_a_live_candle_is_closed_and_an_empty_span_is_one_change(store):
    store.commit([candle(-2), Empty(BTC, at(-1), at(3), "ids"), candle(3)], at(4))
    assert told(store) == [("closed", -2, -1), ("empty", -1, 3), ("closed", 3, 4)]
    assert numbers(store) == [1, 2, 3]


def test_an_outage_is_a_gap_at_once_and_what_ends_it_is_filled_whoever_says_so(store):
    store.commit([Unsure(BTC, at(-2), at(1), Reason.DISCONNECTED), candle(1)], at(2))
    store.commit([candle(-2), page(-1, 0, rest(-1, at(3)))], at(3))
    assert told(store) == [("gap", -2, 1), ("closed", 1, 2), ("filled", -2, -1), ("filled", -1, 0)]


def test_a_minute_that_is_merely_unproven_is_a_gap_only_five_minutes_after_its_end(store):
    store.commit([Unsure(BTC, at(-2), at(-1), Reason.UNPROVEN)], at(-1))
    store.commit([Unsure(BTC, at(-1), at(0), Reason.UNPROVEN)], at(0))
    store.commit([], Millis(at(4) - 1))
    assert told(store) == []
    store.commit([], at(4))
    assert told(store) == [("gap", -2, -1)]
    store.commit([candle(-1), candle(-2)], at(4))
    assert told(store)[1:] == [("closed", -1, 0), ("filled", -2, -1)]


def test_what_rest_proves_of_an_unproven_minute_is_filled(store):
    store.commit([Unsure(BTC, at(-2), at(0), Reason.NO_CLOSE)], at(0))
    store.commit([page(-2, 0, rest(-2, at(1)), empties=(Empty(BTC, at(-1), at(0), "x"),))], at(1))
    assert told(store) == [("filled", -2, -1), ("empty", -1, 0)]


def test_a_page_is_told_in_the_order_of_time_and_a_run_takes_as_many_numbers_as_minutes(store):
    store.commit([Unsure(BTC, at(-2), at(5), Reason.COLLECTOR_DOWN)], at(5))
    candles = [rest(minute, at(6)) for minute in (-2, -1, 0, 1, 4)]
    store.commit([page(-2, 5, *candles, empties=(Empty(BTC, at(2), at(4), "x"),)), candle(5)], at(6))
    assert told(store)[1:] == [("filled", -2, 0), ("filled", 0, 2), ("empty", 2, 4), ("filled", 4, 5), ("closed", 5, 6)]
    assert numbers(store) == [1, 2, 4, 6, 7, 8]  # the run is parted at midnight, where another file begins


def test_a_replacement_is_told_once_with_what_it_replaced(store):
    store.commit([candle(-2), Empty(BTC, at(-1), at(0), "x")], at(0))
    for asked in (at(10), at(12)):
        store.commit([page(-2, 0, rest(-2, asked, close=100_000.0), rest(-1, asked), comparing=True)], asked)
    store.commit([page(-2, 0, rest(-2, at(14), close=100_000.0), comparing=True)], at(14))
    assert told(store)[2:] == [("revised", -2, -1), ("revised", -1, 0)]
    kept = store.journal._db.execute(
        "SELECT stored FROM change JOIN revision ON revision.id = revision_id ORDER BY seq"
    )
    assert ["empty" in text for (text,) in kept] == [False, True]


def test_two_absences_are_unfillable_and_a_listing_is_unlisted(store):
    store.commit([Unsure(BTC, at(-2), at(1), Reason.NOT_COLLECTED), candle(1)], at(2))
    for asked in (at(100), at(120)):
        store.commit([Attempt(BTC, at(0), at(1), "left out", absent=True)], asked)
    store.commit([Page(BTC, at(-2), at(0), (), (), listed=(at(-1), "trade 1"))], at(121))
    assert told(store)[2:] == [("unfillable", 0, 1), ("unlisted", -DAY, -1)]


def test_a_lost_day_file_is_a_gap_and_its_minutes_are_filled_again(store, tmp_path):
    store.commit([candle(-2), candle(-1), candle(0)], at(1))
    flush(store)
    store.ask(store.journal.lose, f"{BTC.path}/2026-01-10.parquet", BTC, at(-DAY), at(2), "gone")
    store.commit([page(-2, 0, rest(-2, at(3)))], at(3))
    assert told(store)[3:] == [("gap", -2, 0), ("filled", -2, -1)]


def test_a_transaction_that_fails_tells_nothing_and_takes_no_number(store):
    store.commit([candle(-2)], at(-1))
    with pytest.raises(LedgerBroken):
        store.commit([candle(-1), candle(5)], at(6))
    store.commit([candle(-1)], at(0))
    assert told(store) == [("closed", -2, -1), ("closed", -1, 0)]
    assert numbers(store) == [1, 2]


@pytest.mark.parametrize(
    ("before", "last", "expected"),
    [
        ([candle(-2), candle(-1)], candle(0), Around()),
        ([candle(-2), Unsure(BTC, at(-1), at(1), Reason.SUSPECT), candle(1)], candle(2), Around(1)),
        ([candle(-2), candle(-1), candle(0), candle(1)], Empty(BTC, at(2), at(3), "x"), Around(candle_before=1)),
        ([candle(-2), candle(-1), candle(0)], Empty(BTC, at(1), at(3), "x"), Around(candle_before=1)),
        ([Empty(BTC, at(-2), at(2), "x")], Empty(BTC, at(2), at(3), "y"), Around()),
    ],
)
def test_what_was_known_around_a_minute_is_told_with_it(store, before, last, expected):
    store.commit(before, at(3))
    store.commit([last], at(3))
    assert around(store) == expected


def test_a_filled_minute_before_and_after_is_told_with_a_late_one(store):
    store.commit([Empty(BTC, at(-2), at(0), "x"), Unsure(BTC, at(0), at(5), Reason.SUSPECT), candle(5)], at(6))
    store.commit([page(0, 5, rest(0, at(7)), rest(3, at(7)))], at(7))
    store.commit([Empty(BTC, at(1), at(3), "late")], at(8))
    assert around(store) == Around(DAY, 1, 1, 1, 1, 1)
    store.commit([candle(4)], at(9))
    assert told(store)[-1] == ("filled", 4, 5)
    assert around(store) == Around(DAY, 1)


def test_old_changes_go_in_parts_and_the_newest_of_them_stays_to_check_a_cursor_by(store):
    for minute in range(-2, 8):
        store.commit([candle(minute)], at(minute + 1))
    changes = store.journal._changes
    assert changes.forget_old(at(4), 10**9, count=3)
    assert numbers(store) == [3, 4, 5, 6, 7, 8, 9, 10]
    assert not store.journal.forget_changes(at(4), 10**9)
    assert numbers(store) == [5, 6, 7, 8, 9, 10]
    store.journal.forget_changes(at(-99), 2)
    assert numbers(store) == [8, 9, 10]
    store.journal.forget_changes(at(99), 1)
    assert numbers(store) == [10]
    store.commit([candle(8)], at(9))
    assert numbers(store) == [10, 11]


@pytest.mark.parametrize("version", ["6", "5", "3", "1"])
def test_a_journal_of_an_earlier_version_gets_a_feed_that_begins_now(tmp_path, version):
    with open_store(tmp_path) as store:
        store.expect([BTC, ETH], at(-2), at(-2))
        store.commit([candle(-2), Unsure(BTC, at(-1), at(0), Reason.UNPROVEN)], at(0))
    bring_down(tmp_path / "journal.sqlite3", version)
    with open_store(tmp_path) as store:
        store.commit([], at(60))
        assert told(store) == []
        store.commit([candle(-1), candle(0)], at(61))
        assert told(store) == [("filled", -1, 0), ("closed", 0, 1)]
        assert len(store.journal.meta()["epoch"]) == 8


def test_another_journal_has_another_epoch(tmp_path):
    epochs = set()
    for name in "ab":
        with open_store(tmp_path / name) as store:
            epochs.add(store.journal.meta()["epoch"])
    with open_store(tmp_path / "a") as store:
        epochs.add(store.journal.meta()["epoch"])
    (tmp_path / "a" / "journal.sqlite3").unlink()
    with open_store(tmp_path / "a") as store:
        epochs.add(store.journal.meta()["epoch"])
    assert len(epochs) == 3


def test_a_flush_tells_nothing(store):
    store.commit([Empty(BTC, at(-2), at(0), "x"), candle(0)], at(1))
    before = told(store)
    flush(store)
    assert told(store) == before
