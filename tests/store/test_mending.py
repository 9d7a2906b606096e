"""What an earlier version derived from a wrong clock is dropped once, and nothing else is; see store/mending.py."""

from __future__ import annotations

import logging
from pathlib import Path

import attrs
import pytest
from directories import BTC, ETH, bring_down, sql
from journals import journal_in, rows
from stores import at, candle, candles, expect, flush, on_disk

from trio_candles.audit.walk import audit
from trio_candles.candles.model import DAY, MINUTE, Attempt, Empty, Millis, Reason, Source, Unsure
from trio_candles.store.schema import JOURNAL, UNMENDED
from trio_candles.store.store import open_store

LOOKBACK = 3 * DAY
NOW = Millis(at(600) + 20_000)
IN_1970 = Millis(25_000)
IN_2025 = Millis(1_735_689_600_000)


def start(store, now: int, series=(BTC,)) -> None:
    store.expect(list(series), Millis(now - LOOKBACK), Millis(now))


def age(root: Path, version: str = "4") -> None:
    """Let *root* be as an earlier version left it."""
    bring_down(root / JOURNAL, version)


def spans(root: Path) -> list[tuple[int, int]]:
    return sql(root, "SELECT first_ms, mark_ms FROM series ORDER BY id")


def problems(root: Path, now: int = NOW) -> list[str]:
    report = audit(root, now=lambda: now, running=lambda: False, pauses=())
    return [f"{one.kind}: {one.detail}" for one in report.violations]


def times_ahead(root: Path, now: int = NOW) -> list[tuple[str, int]]:
    """Every time in the ledger that is later than a right clock could have made it: more than half an hour ahead."""
    ahead = []
    for table, column in (
        ("series", "mark_ms"), ("series", "first_ms"), ("series", "last_candle_ms"), ("gap", "until_ms"),
        ("gap", "first_seen_ms"), ("gap", "not_before_ms"), ("gap_event", "at_ms"), ("gap_event", "until_ms"),
        ("empty", "until_ms"), ("confirmed", "mark_ms"), ("confirmed", "not_before_ms"), ("revision", "at_ms"),
        ("revision", "not_before_ms"), ("listing", "since_ms"),
    ):  # fmt: skip
        found = sql(root, f"SELECT max({column}) FROM {table}")[0][0]
        if found is not None and found > now + 30 * MINUTE:
            ahead.append((f"{table}.{column}", found))
    return ahead


def gaps_of(root: Path) -> list[tuple]:
    return sql(root, "SELECT since_ms, until_ms, reason FROM gap ORDER BY series_id, since_ms")


# --- behind


@pytest.mark.parametrize("wrong", [0, IN_1970, IN_2025], ids=["the epoch", "1970", "2025"])
def test_a_first_start_under_a_clock_behind_is_as_if_it_had_been_right(tmp_path, wrong):
    with open_store(tmp_path) as store:
        start(store, wrong)
        # The clock is set right while the collector runs: nothing was heard in between.
        store.commit([Unsure(BTC, Millis(wrong - wrong % MINUTE), at(590), Reason.UNPROVEN)], at(590))
        store.commit(candles(590, 595), at(595))
    age(tmp_path)
    with open_store(tmp_path) as store:
        start(store, NOW)
    assert spans(tmp_path) == [(at(590) - LOOKBACK, at(600))]
    assert sum(until - since for since, until, _ in gaps_of(tmp_path)) == LOOKBACK + 5 * MINUTE
    assert problems(tmp_path) == []
    assert times_ahead(tmp_path) == []


@pytest.mark.parametrize("wrong", [IN_1970, IN_2025], ids=["1970", "2025"])
def test_a_later_start_under_a_clock_behind_leaves_what_was_there(tmp_path, wrong):
    with open_store(tmp_path) as store:
        start(store, at(0))
        store.commit(candles(0, 30), at(30))
        flush(store)
    first = spans(tmp_path)[0][0]
    with open_store(tmp_path) as store:
        start(store, wrong)  # sets the first expected minute back by decades
    assert spans(tmp_path)[0][0] < wrong
    age(tmp_path)
    with open_store(tmp_path) as store:
        start(store, NOW)
    assert spans(tmp_path) == [(min(first, at(600) - LOOKBACK), at(600))]
    assert gaps_of(tmp_path)[0] == (first, at(0), "not_collected")
    assert problems(tmp_path) == []
    assert sum(map(len, on_disk(tmp_path).values())) == 30


def test_a_collector_down_since_1970_is_dropped_but_not_what_a_right_clock_would_have_looked_back_to(tmp_path):
    with open_store(tmp_path) as store:
        start(store, IN_1970)
    with open_store(tmp_path) as store:
        start(store, at(0))  # 29.9 million minutes
        store.commit([*candles(0, 10), Unsure(BTC, at(10), at(20), Reason.DISCONNECTED)], at(20))
    age(tmp_path)
    ten_days_later = Millis(at(0) + 10 * DAY)
    with open_store(tmp_path) as store:
        start(store, ten_days_later)
    assert spans(tmp_path) == [(at(0) - LOOKBACK, ten_days_later)]
    assert [reason for *_, reason in gaps_of(tmp_path)] == ["collector_down", "disconnected", "collector_down"]
    assert problems(tmp_path, ten_days_later) == []


def test_minutes_that_the_venue_has_filled_of_years_too_many_stay_and_end_the_dropping(tmp_path):
    with open_store(tmp_path) as store:
        start(store, IN_1970)
    with open_store(tmp_path) as store:
        start(store, at(0))
        store.commit([*candles(-7000, -6990), Empty(BTC, at(-7010), at(-7005), "no trade")], at(0))
    age(tmp_path)
    with open_store(tmp_path) as store:
        start(store, NOW)
    assert spans(tmp_path) == [(at(-7010), at(600))]
    assert problems(tmp_path) == []


# --- ahead


AHEAD = {"six hours": 360 * MINUTE, "three years": 1095 * DAY, "a minute": MINUTE}


@pytest.mark.parametrize("ahead", AHEAD.values(), ids=AHEAD)
def test_a_first_start_under_a_clock_ahead_is_as_if_it_had_been_right(tmp_path, ahead):
    with open_store(tmp_path) as store:
        start(store, NOW + ahead, (BTC, ETH))
    age(tmp_path)
    with open_store(tmp_path) as store:
        start(store, NOW, (BTC,))
        assert store.expect([BTC], at(0), NOW) == {BTC: (at(600) - LOOKBACK, at(600))}
    assert problems(tmp_path) == []
    assert times_ahead(tmp_path) == []
    assert {reason for *_, reason in gaps_of(tmp_path)} <= {"not_collected"}


@pytest.mark.parametrize("ahead", AHEAD.values(), ids=AHEAD)
def test_a_later_start_under_a_clock_ahead_leaves_what_was_there_and_nothing_that_has_not_happened(tmp_path, ahead):
    with open_store(tmp_path) as store:
        start(store, at(0))
        store.commit(candles(0, 590), at(590))
    with open_store(tmp_path) as store:
        start(store, NOW + ahead)
        store.commit([Attempt(BTC, at(595), Millis(NOW + ahead), "no row", absent=True)], Millis(NOW + ahead))
        store.commit([candles(590, 591)[0]], Millis(NOW + ahead))
    age(tmp_path)
    with open_store(tmp_path) as store:
        start(store, NOW)
        assert store.journal.gaps.open_minutes(NOW) == {"okx": 3 * DAY // MINUTE + 9}
    assert spans(tmp_path) == [(at(0) - LOOKBACK, at(600))]
    assert gaps_of(tmp_path)[1:] == [(at(591), at(600), "collector_down")]
    assert problems(tmp_path) == []
    assert times_ahead(tmp_path) == []


def test_minutes_of_a_thin_pair_called_empty_ahead_are_dropped_and_their_aggregates_follow(tmp_path):
    with open_store(tmp_path) as store:
        store.aggregate(["1h", "1d"])
        expect(store, since=0, now=0)
        store.commit([*candles(0, 590), Empty(BTC, at(590), Millis(at(0) + 400 * DAY), "heartbeats")], NOW + 401 * DAY)
        flush(store)
    assert sql(tmp_path, "SELECT path FROM day_file WHERE path LIKE '%/1d/%'")
    age(tmp_path)
    with open_store(tmp_path) as store:
        store.expect([BTC], at(0), NOW)
        flush(store)
    assert spans(tmp_path) == [(at(0), at(600))]
    assert sql(tmp_path, "SELECT since_ms, until_ms FROM empty") == [(at(590), at(600))]
    assert not sql(tmp_path, "SELECT path FROM day_file WHERE path LIKE '%/1d/%'")
    assert problems(tmp_path) == []
    assert sql(tmp_path, "SELECT * FROM underived") == []


def test_a_stored_candle_ahead_of_the_clock_is_never_dropped_and_the_mark_stays_above_it(tmp_path):
    with open_store(tmp_path) as store:
        expect(store, since=0, now=0)
        said = [*candles(0, 610), Empty(BTC, at(610), at(620), "no trade"), *candles(620, 621)]
        store.commit([*said, Unsure(BTC, at(621), at(900), Reason.UNPROVEN)], at(900))
    age(tmp_path)
    with open_store(tmp_path) as store:
        store.expect([BTC], at(0), NOW)
        flush(store)
    assert spans(tmp_path) == [(at(0), at(621))]
    assert gaps_of(tmp_path) == [(at(610), at(620), "unproven")]
    assert sum(map(len, on_disk(tmp_path).values())) == 611
    assert problems(tmp_path, at(700)) == []


def test_comparing_goes_on_from_where_the_clock_is_right(tmp_path):
    with journal_in(tmp_path / "j") as journal:
        journal.expect([BTC], at(0), NOW + DAY)
    bring_down(tmp_path / "j", "4")
    with journal_in(tmp_path / "j") as journal:
        journal.expect([BTC], at(0), NOW)
        assert rows(journal, "SELECT mark_ms FROM confirmed") == [(at(600),)]
        journal.commit(candles(600, 615), at(616))
        assert [one.since for one in journal.revisions.unconfirmed("okx", at(616))] == [at(600)]


def test_times_ahead_of_the_clock_in_what_stays_are_now(tmp_path):
    path = tmp_path / "j"
    with journal_in(path) as journal:
        journal.expect([BTC], at(0), at(0))
        later = NOW + DAY
        journal.commit([*candles(0, 5), Unsure(BTC, at(5), at(9), Reason.DISCONNECTED)], later)
        journal.commit([Attempt(BTC, at(5), at(9), "no row", absent=True)], later)
        journal.commit([attrs.evolve(candle(2, 102.0), high=200.0, source=Source.REST)], later)
    bring_down(path, "4")
    with journal_in(path) as journal:
        journal.expect([BTC], at(0), NOW)
        assert rows(journal, "SELECT first_seen_ms, not_before_ms FROM gap WHERE since_ms = ?", at(5)) == [(NOW, NOW)]
        assert rows(journal, "SELECT max(at_ms) FROM gap_event") == [(NOW,)]
        assert rows(journal, "SELECT at_ms FROM revision") == [(NOW,)]
        # The absence that was observed counts, and the second one is near.
        journal.commit([Attempt(BTC, at(5), at(9), "no row", absent=True)], Millis(NOW + 11 * MINUTE))
        assert rows(journal, "SELECT DISTINCT state FROM gap WHERE since_ms = ?", at(5)) == [("unfillable",)]


# --- once, and not everywhere


def test_a_sound_directory_of_an_earlier_version_stays_as_it_is_and_nothing_is_said(tmp_path, caplog):
    with open_store(tmp_path) as store:
        start(store, at(0), (BTC, ETH))
        store.commit([*candles(0, 10), Unsure(BTC, at(10), at(20), Reason.DISCONNECTED)], at(20))
        before = store.journal.spans()[BTC], gaps_of(tmp_path)
    age(tmp_path)
    with open_store(tmp_path) as store:
        start(store, at(20), (BTC,))
        assert (store.journal.spans()[BTC], gaps_of(tmp_path)) == before
        assert UNMENDED not in store.journal.meta()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_what_was_dropped_is_said_in_sum_on_the_console_and_per_series_in_the_file(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    with open_store(tmp_path) as store:
        start(store, IN_1970, (BTC, ETH))
    with open_store(tmp_path) as store:
        start(store, NOW + 360 * MINUTE, (BTC, ETH))
    age(tmp_path)
    caplog.clear()
    with open_store(tmp_path) as store:
        start(store, NOW, (BTC, ETH))
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "720 that have not happened were dropped, of 2 series" in warnings[0]
    told = [record.getMessage() for record in caplog.records if "dropped" in record.getMessage()]
    assert [text.split(":")[0] for text in told[:2]] == ["okx BTC-USDT 1m", "kraken ETH/USD 1m"]


def test_a_directory_is_mended_once(tmp_path):
    with open_store(tmp_path) as store:
        start(store, at(0))
    age(tmp_path)
    with open_store(tmp_path) as store:
        start(store, at(10))
    with open_store(tmp_path) as store:
        start(store, at(700))
        start(store, NOW)  # a clock that is set back drops nothing in a directory that this version has made
    assert spans(tmp_path)[0][1] == at(700)


@pytest.mark.parametrize(("kind", "speed"), [("simulated", 1.0), ("simulated", 60.0), ("real", 60.0)])
@pytest.mark.parametrize("goes_on_at", [1.0, 60.0])
def test_a_simulated_or_accelerated_directory_is_never_mended(tmp_path, kind, speed, goes_on_at):
    with open_store(tmp_path) as store:
        store.claim(kind, speed=speed)
        start(store, at(0))
        store.commit([*candles(0, 10), Empty(BTC, at(10), at(700), "no trade")], at(700))
    age(tmp_path)
    with open_store(tmp_path) as store:
        store.claim(kind, speed=goes_on_at)
        start(store, NOW)
    assert spans(tmp_path)[0][1] == at(700)


def test_a_mending_that_fails_changes_nothing_and_the_next_start_does_it(tmp_path, monkeypatch):
    path = tmp_path / "j"
    with journal_in(path) as journal:
        journal.expect([BTC, ETH], at(0), at(900))
    bring_down(path, "4")
    with journal_in(path) as journal:
        before = list(journal.database.iterdump()), journal.spans()
        journal.database.execute("CREATE TEMP TRIGGER full BEFORE UPDATE ON series WHEN NEW.id = 2 BEGIN"
                                 " SELECT RAISE(ABORT, 'full'); END")  # fmt: skip
        with pytest.raises(Exception, match="full"):
            journal.expect([BTC, ETH], at(0), NOW)
        journal.database.execute("DROP TRIGGER full")
        assert (list(journal.database.iterdump()), journal.spans()) == before
        journal.expect([BTC, ETH], at(0), NOW)
        assert {mark for _, mark in journal.spans().values()} == {at(600)}


@pytest.mark.parametrize("version", ["1", "2", "3"])
def test_a_poisoned_directory_of_any_older_format_is_mended(tmp_path, version):
    with open_store(tmp_path) as store:
        start(store, IN_1970)
    with open_store(tmp_path) as store:
        start(store, NOW + 360 * MINUTE)
    age(tmp_path, version)
    with open_store(tmp_path) as store:
        start(store, NOW)
    assert spans(tmp_path) == [(at(600) - LOOKBACK, at(600))]
    assert problems(tmp_path) == []


@pytest.mark.parametrize("days", [3.0, 0.0])
def test_a_first_start_in_1970_that_looked_back_to_nothing_begins_anew(tmp_path, days):
    with journal_in(tmp_path / "j") as journal:
        journal.expect([BTC], Millis(IN_1970 - int(days * DAY)), IN_1970)
    bring_down(tmp_path / "j", "4")
    with journal_in(tmp_path / "j") as journal:
        journal.expect([BTC], Millis(at(600) - int(days * DAY)), NOW)
        assert journal.spans() == {BTC: (at(600) - days * DAY, at(600))}
