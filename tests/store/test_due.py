"""When REST may be asked about a gap again: kept with it, whatever happens to it, and seen without reading all gaps."""

from __future__ import annotations

from itertools import pairwise

import pytest
from directories import BTC, ETH
from hypothesis import given, settings
from hypothesis import strategies as st
from journals import LATE, NOON, at, candle, empty, journal_in, rows, unsure
from pages import findings, page, rest

from trio_candles.candles.model import MINUTE, Attempt, Millis, Reason, Series
from trio_candles.store.gaps import LONGEST_WAIT, OLD_ENOUGH, wait_after
from trio_candles.venues.registry import VENUES

OKX, KRAKEN = VENUES["okx"].history, VENUES["kraken"].history
PAGE = 298
"""Minutes of OKX's that one question is about."""


@pytest.fixture
def journal():
    with journal_in() as journal:
        journal.expect([BTC], NOON, NOON)
        yield journal


def vain(since: int, until: int, **words) -> Attempt:
    return Attempt(BTC, at(since), at(until), "no row", **words)


def due(journal, minute: float, history=OKX) -> list[tuple[float, float]]:
    """What may be asked about, in minutes after noon."""
    return [
        ((one.since - NOON) / MINUTE, (one.until - NOON) / MINUTE)
        for one in journal.gaps.due(history, at(minute)).values()
    ]


def waits_until(journal) -> list[float]:
    return [(not_before - NOON) / MINUTE for (not_before,) in rows(journal, "SELECT not_before_ms FROM gap")]


# --- how long


@pytest.mark.parametrize(
    ("attempts", "age", "seconds"),
    [(1, 5, 30), (2, 5, 60), (3, 5, 120), (9, 5, 120), (1, 90, 30), (5, 90, 480), (6, 90, 600), (10_000, 90, 600)],
)
def test_the_wait_doubles_up_to_two_minutes_and_of_what_is_older_than_an_hour_to_ten(attempts, age, seconds):
    assert wait_after(attempts, at(-age), NOON) == seconds * 1000


def test_what_was_asked_about_in_vain_waits_and_is_due_again(journal):
    journal.commit([unsure(0, 5)], at(200))
    for waited in (0.5, 1, 2, 4, 8, 10, 10):
        assert due(journal, 200) == [(0, 5)]
        journal.commit([vain(0, 5)], at(200))
        assert waits_until(journal) == [200 + waited]
        assert due(journal, 200 + waited - 0.01) == []
        assert due(journal, 200 + waited) == [(0, 5)]
        rows(journal, "UPDATE gap SET not_before_ms = 0")


def test_what_failed_because_the_venue_was_unwell_waits_for_nothing_and_ends_no_other_wait(journal):
    journal.commit([unsure(0, 5), candle(5), unsure(6, 9)], at(200))
    journal.commit([vain(0, 5), vain(6, 9, unwell=True)], at(200))
    assert due(journal, 200) == [(6, 9)]
    assert rows(journal, "SELECT attempts, last_error FROM gap") == [(1, "no row")] * 2
    journal.commit([vain(0, 9, unwell=True)], at(200.1))
    assert due(journal, 200.2) == [(6, 9)]


def test_a_clock_that_is_set_back_lets_nothing_wait_longer_than_its_longest_wait(journal):
    journal.commit([unsure(0, 5)], at(500))
    journal.commit([vain(0, 5)] * 6, at(500))
    assert waits_until(journal) == [510]
    assert due(journal, 499.99) == [(0, 5)]  # the clock was set back: nobody waits for its future
    assert due(journal, 500) == []


def test_a_new_start_keeps_the_waits(tmp_path):
    with journal_in(tmp_path / "j") as journal:
        journal.expect([BTC], NOON, NOON)
        journal.commit([unsure(0, 5), vain(0, 5)], at(200))
    with journal_in(tmp_path / "j") as journal:
        journal.expect([BTC], NOON, at(5))
        assert due(journal, 200.4) == []
        assert due(journal, 200.6) == [(0, 5)]


# --- of what


def test_a_gap_that_grows_while_it_waits_goes_on_waiting(journal):
    journal.commit([unsure(0, 5), vain(0, 5)], at(7))
    journal.commit([unsure(5, 6)], at(7.1))
    assert due(journal, 7.4) == []
    assert due(journal, 7.5) == [(0, 6)]


def test_nothing_is_due_that_has_not_settled_and_an_older_gap_is(journal):
    journal.commit([unsure(0, 1), candle(1), unsure(2, 3)], at(3))
    assert due(journal, 3.5) == [(0, 1)]
    assert due(journal, 4) == [(0, 3)]


def test_a_page_reaches_back_over_what_is_due_and_not_over_what_waits(journal):
    journal.commit([unsure(0, 1), candle(1), unsure(2, 3), candle(3), unsure(4, 5), candle(5)], at(200))
    assert due(journal, 200) == [(0, 5)]
    journal.commit([vain(0, 1)], at(200))
    assert due(journal, 200) == [(2, 5)]
    journal.commit([vain(4, 5)], at(200))
    assert due(journal, 200) == [(2, 3)]


def test_a_gap_of_minutes_ago_lets_one_go_first_that_no_page_holds_with_it(journal):
    journal.commit([unsure(0, 5), empty(5, 200), unsure(200, 201), empty(201, 400), unsure(400, 401)], at(402))
    assert due(journal, 402) == [(0, 5)]
    assert due(journal, 403.4) == [(0, 5)]
    assert due(journal, 403.5) == [(200, 401)]
    journal.commit([vain(0, 5)], at(402))
    assert due(journal, 402) == [(200, 401)]


def test_a_gap_that_one_question_does_not_reach_is_asked_about_piece_by_piece_before_it_waits(journal):
    journal.commit([unsure(0, 800)], at(1000))
    asked = []
    while pieces := due(journal, 1000):
        asked += pieces
        ((since, until),) = pieces
        journal.commit([vain(int(since), int(until))], at(1000))
    assert asked == [(800 - PAGE, 800), (800 - 2 * PAGE, 800 - PAGE), (0, 800 - 2 * PAGE)]
    assert rows(journal, "SELECT attempts, state FROM gap") == [(3, "open")]  # and it is one gap, as before
    assert waits_until(journal) == [1002]
    assert due(journal, 1002) == [(800 - PAGE, 800)]


def test_of_a_long_gap_without_anything_in_it_the_later_pieces_wait_too(journal):
    journal.commit([unsure(0, 3000)], at(3200))
    now, asked = 3200.0, []
    while len(asked) < 8:
        now += 0.25
        for since, until in due(journal, now):
            asked.append(now)
            journal.commit([vain(int(since), int(until))], at(now))
    assert [later - earlier for earlier, later in pairwise(asked)] == [
        0.25, 0.25, 0.25, 0.5, 1, 2, 2,
    ]  # fmt: skip


def test_what_is_cut_out_of_a_long_gap_changes_nothing_for_the_rest(journal):
    journal.commit([unsure(0, 800), vain(800 - PAGE, 800)], at(1000))
    journal.commit([page(400, 450, *(rest(minute) for minute in range(400, 450)))], at(1000))
    assert due(journal, 1000) == [(800 - 2 * PAGE, 800 - PAGE)]  # stretched over the older part of it
    journal.commit([vain(450, 800 - PAGE), vain(0, 400)], at(1000))
    assert due(journal, 1000) == []
    assert due(journal, 1002)


def test_what_was_asked_of_a_long_gap_waits_though_it_is_cut(journal):
    journal.commit([unsure(0, 800), vain(800 - PAGE, 800)], at(1000))
    journal.commit([candle(600)], at(1000))
    assert due(journal, 1000) == [(800 - 2 * PAGE, 800 - PAGE)]
    assert due(journal, 1000.5) == [(601, 800)]  # one attempt, half a minute


def test_a_piece_that_is_given_up_leaves_a_ledger_that_makes_sense(journal):
    journal.commit([unsure(0, 800), vain(800 - PAGE, 800, absent=True)], at(1000))
    journal.commit([vain(700, 800, absent=True)], at(1011))
    assert rows(journal, "SELECT count(*) FROM gap WHERE state = 'unfillable'") == [(1,)]
    journal.gaps.read_through()
    assert journal.gaps.open_minutes(LATE) == {"okx": 700}


def test_what_an_answer_did_not_reach_is_due_at_once(journal):
    """Trades come oldest first: what is left then is the newer part."""
    journal.commit([unsure(0, 50), vain(0, 20)], at(500))
    assert due(journal, 500) == [(20, 50)]
    journal.commit([vain(20, 50)], at(500))
    assert due(journal, 500) == []


def test_with_800_series_each_question_is_stretched_over_the_older_gap_beside_the_young_one():
    many = [Series("kraken", f"A{n:03}/USD") for n in range(800)]
    with journal_in() as journal:
        journal.expect(many, at(-1440), NOON)
        for one in many:
            journal.commit([candle(0, series=one), unsure(1, 2, Reason.UNPROVEN, series=one)], at(2))
            journal.commit([candle(2, series=one), unsure(3, 4, Reason.MISSING_TRADES, series=one)], at(4))
        found = journal.gaps.due(KRAKEN, at(10))
    assert found.keys() == set(many)
    assert {(one.until, one.fresh) for one in found.values()} == {(at(4), True)}
    assert min(one.until - one.since for one in found.values()) >= 690 * MINUTE


def test_series_that_are_not_expected_are_not_asked_about(journal):
    journal.expect([BTC, ETH], NOON, at(5))
    assert due(journal, 10, KRAKEN) == [(0, 5)]
    journal.expect([BTC], NOON, at(5))
    assert due(journal, 10, KRAKEN) == []


# --- at what cost


def steps(journal, now: Millis) -> int:
    """How many thousand steps of SQLite's machine a look takes."""
    count = 0

    def one() -> int:
        nonlocal count
        count += 1
        return 0

    journal.database.set_progress_handler(one, 1000)
    assert journal.gaps.open_minutes(now)
    journal.gaps.due(OKX, now)
    journal.database.set_progress_handler(None, 0)
    return count


@pytest.mark.parametrize("all_of_them", ["due", "waiting"])
def test_a_look_costs_no_more_for_twenty_thousand_gaps_than_for_a_few(journal, all_of_them):
    gaps = 20_000
    journal.commit([one for m in range(0, 2 * gaps, 2) for one in (unsure(m, m + 1), candle(m + 1))], at(2 * gaps))
    if all_of_them == "waiting":
        rows(journal, "UPDATE gap SET not_before_ms = ?", at(2 * gaps) + LONGEST_WAIT)
    assert bool(due(journal, 2 * gaps)) == (all_of_them == "due")
    assert steps(journal, at(2 * gaps)) <= 3


def test_absences_are_noted_without_reading_those_of_other_pages(journal):
    journal.commit([unsure(0, 60_000)], at(60_000))
    for begin in range(0, 40_000, 4):
        journal.gaps.history.add(1, at(begin), at(begin + 1), "absent", "x", at(60_000))
    count = 0

    def one() -> int:
        nonlocal count
        count += 1
        return 0

    journal.database.set_progress_handler(one, 1000)
    journal.commit([vain(50, 60, absent=True)], at(60_000 + OLD_ENOUGH // MINUTE))
    journal.database.set_progress_handler(None, 0)
    assert count <= 3


# --- whatever comes


@given(some=st.lists(st.lists(findings(), max_size=4), max_size=6))
@settings(deadline=None, max_examples=100)
def test_after_any_findings_the_count_is_the_tables_and_the_journal_can_be_opened_again(some):
    with journal_in() as journal:
        journal.expect([BTC], NOON, NOON)
        journal.commit([candle(0), unsure(1, 4), candle(4), unsure(5, 8, Reason.NO_CLOSE)], at(8))
        for number, batch in enumerate(some):
            now = Millis(at(200) + 20 * MINUTE * (number + 1))
            journal.commit(batch, now)
            total = rows(journal, "SELECT coalesce(sum(until_ms - since_ms), 0) FROM gap WHERE state = 'open'")
            assert [(journal.gaps.open_minutes(LATE)["okx"] * MINUTE,)] == total
            journal.gaps.read_through()
            open_gaps = set(rows(journal, "SELECT since_ms FROM gap WHERE state = 'open'"))
            later = journal.gaps.due(OKX, Millis(now + LONGEST_WAIT))
            assert bool(later) == bool(open_gaps)


def test_a_commit_that_fails_changes_no_count(journal):
    journal.commit([unsure(0, 5)], at(5))
    with pytest.raises(AttributeError):
        journal.commit([unsure(5, 9), None], LATE)
    assert journal.gaps.open_minutes(LATE) == {"okx": 5}
