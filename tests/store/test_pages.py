"""What the ledger makes of an answer of the venue's record: gaps closed, candles confirmed, contradicted, replaced."""

from __future__ import annotations

import json

import attrs
import pytest
from directories import BTC
from hypothesis import given, settings
from hypothesis import strategies as st
from journals import LATE, NOON, Watched, at, candle, empty, gaps, journal_in, kinds, minutes, rows, unsure
from pages import NOW, absent, findings, page, rest

from trio_candles.candles.model import DAY, MINUTE, Attempt, Candle, Millis, Page, Reason, Source
from trio_candles.candles.validation import Rule

LATER = at(202)


@pytest.fixture
def journal():
    """Noon is a live candle, then a gap of three minutes, a live candle, two empty minutes, and a live candle."""
    with journal_in() as journal:
        journal.expect([BTC], NOON, NOON)
        journal.commit([candle(0), unsure(1, 4), candle(4), empty(5, 7), candle(7)], at(8))
        yield journal


def revisions(journal: Watched) -> list[tuple]:
    """(minute, open that was offered, outcome)"""
    found = rows(journal, "SELECT open_ms, offered, outcome FROM revision ORDER BY id")
    return [((at_ms - NOON) // MINUTE, json.loads(offered)["open"], outcome) for at_ms, offered, outcome in found]


def mark(journal: Watched) -> float:
    ((mark_ms,),) = rows(journal, "SELECT mark_ms FROM confirmed")
    return (mark_ms - NOON) / MINUTE


# --- gaps


def test_a_page_closes_the_gaps_that_it_covers_and_nothing_else(journal):
    judged = journal.commit([page(1, 3, rest(0), rest(1), empties=[empty(2, 3), empty(9, 12)])], NOW)
    assert kinds(journal) == "CCEGCEEC"
    assert judged.accepted == 1
    assert judged.compared == {("okx", "agreed"): 1}
    assert journal.spans() == {BTC: (NOON, at(8))}  # what lies beyond the mark is the feed's to say first


def test_neighbours_are_one_event_in_the_history_of_their_gap(journal):
    journal.commit([page(1, 4, rest(1), rest(2), rest(3))], NOW)
    closed = rows(journal, "SELECT since_ms, until_ms, detail FROM gap_event WHERE event = 'stored'")
    assert closed == [(at(1), at(4), "rest")]
    assert gaps(journal) == []


def test_a_row_that_breaks_a_rule_closes_nothing(journal):
    broken = attrs.evolve(rest(2), high=1.0)
    judged = journal.commit([page(1, 4, rest(1), broken, rest(3))], NOW)
    assert kinds(journal) == "CCGCCEEC"
    assert judged.rejected == [(broken, Rule.HIGH_BELOW_LOW)]
    assert rows(journal, "SELECT reason, count FROM rejection") == [("high_below_low", 1)]


# --- whose page is it?


@pytest.mark.parametrize(("agreeing", "believed"), [(0, False), (1, True), (2, True)])
def test_a_page_without_a_name_is_believed_if_not_most_of_it_differs_from_what_is_stored(journal, agreeing, believed):
    same = [rest(0), rest(7)][:agreeing]
    judged = journal.commit([page(1, 4, *same, rest(1), rest(2), rest(3), rest(4, 55.0), anonymous=True)], NOW)
    assert (kinds(journal) == "CCCCCEEC") is believed
    assert bool(judged.refused) is not believed
    if not believed:
        assert rows(journal, "SELECT attempts, last_error FROM gap") == [
            (1, "the page differs from what is stored in 1 of 1 minutes")
        ]
        assert not revisions(journal)


def test_a_page_with_a_name_is_believed_and_what_differs_is_a_revision(journal):
    journal.commit([page(1, 4, rest(1), rest(2), rest(3), rest(4, 55.0))], NOW)
    assert kinds(journal) == "CCCCCEEC"
    assert revisions(journal) == [(4, 55.0, "open")]


def test_a_page_without_a_name_and_without_a_neighbour_closes_gaps_if_it_was_told_twice(journal):
    judged = journal.commit([page(1, 4, rest(1), rest(2), rest(3), anonymous=True)], NOW)
    assert (kinds(journal), len(judged.refused)) == ("CGGGCEEC", 1)
    assert rows(journal, "SELECT attempts FROM gap") == [(1,)]
    journal.commit([page(1, 4, rest(1), rest(2), rest(3), anonymous=True, twice=True)], NOW)
    assert kinds(journal) == "CCCCCEEC"


# --- revisions


def test_two_same_answers_a_minute_apart_replace_the_stored_candle(journal):
    first = journal.commit([page(4, 5, rest(4, 55.0))], NOW)
    assert (first.conflicts, first.replaced) == ([(candle(4), rest(4, 55.0))], [])
    assert journal.stored(BTC, at(4)) == candle(4)
    again = rest(4, 55.0, NOW + 60_000)
    second = journal.commit([page(4, 5, again)], LATER)
    assert second.replaced == [(candle(4), again)]
    assert journal.stored(BTC, at(4)) == again
    assert revisions(journal) == [(4, 55.0, "replaced")]
    assert journal.replaced_minutes(BTC, Millis(NOON - NOON % 86_400_000)) == {at(4)}
    assert dict(rows(journal, "SELECT outcome, count FROM confirmation")) == {"differed": 1, "replaced": 1}


@pytest.mark.parametrize(
    ("price", "asked", "words"),
    [
        (55.0, NOW + 59_999, {}),
        (56.0, NOW + 120_000, {}),
        (55.0, NOW + 120_000, {"conclusive": False}),
    ],
    ids=["too soon", "something else", "not conclusive"],
)
def test_anything_less_replaces_nothing(journal, price, asked, words):
    journal.commit([page(4, 5, rest(4, 55.0))], NOW)
    judged = journal.commit([page(4, 5, rest(4, price, asked), **words)], LATER)
    assert judged.replaced == []
    assert journal.stored(BTC, at(4)) == candle(4)
    assert revisions(journal)[-1] == (4, price, "open")
    assert len([one for one in revisions(journal) if one[2] == "open"]) == 1


def test_an_answer_from_before_the_clock_was_set_back_counts_from_when_it_is_heard_again(journal):
    journal.commit([page(4, 5, rest(4, 55.0, LATER + 3_600_000))], LATER)
    journal.commit([page(4, 5, rest(4, 55.0, NOW))], NOW)
    assert [one.answered for one in journal.revisions.doubtful("okx", LATE)] == [NOW]
    journal.commit([page(4, 5, rest(4, 55.0, NOW + 59_999))], LATER)
    assert journal.stored(BTC, at(4)) == candle(4)
    journal.commit([page(4, 5, rest(4, 55.0, NOW + 60_000))], LATER)
    assert journal.stored(BTC, at(4)) == rest(4, 55.0, NOW + 60_000)


def test_rest_that_comes_round_to_what_is_stored_keeps_it(journal):
    journal.commit([page(4, 5, rest(4, 55.0))], NOW)
    journal.commit([page(4, 5, rest(4))], LATER)
    journal.commit([page(4, 5, rest(4, 55.0, LATER))], LATER)
    assert revisions(journal) == [(4, 55.0, "kept"), (4, 55.0, "open")]
    assert journal.stored(BTC, at(4)) == candle(4)


def test_what_the_feed_contradicts_waits_for_rest(journal):
    journal.commit([candle(4, 55.0)], NOW)
    assert [(doubt.minute, doubt.answered) for doubt in journal.revisions.doubtful("okx", LATE)] == [(at(4), None)]
    journal.commit([page(4, 5, rest(4, 55.0))], NOW)
    assert [(doubt.minute, doubt.answered) for doubt in journal.revisions.doubtful("okx", LATE)] == [(at(4), NOW)]
    journal.commit([page(4, 5, rest(4, 55.0, LATER))], LATER)
    assert journal.revisions.doubtful("okx", LATE) == []
    assert journal.stored(BTC, at(4)).source is Source.REST
    assert revisions(journal) == [(4, 55.0, "kept"), (4, 55.0, "replaced")]


def test_a_minute_called_empty_is_replaced_by_what_rest_says_twice(journal):
    journal.commit([page(5, 7, rest(6, 55.0))], NOW)
    assert kinds(journal) == "CGGGCEEC"
    journal.commit([page(5, 7, rest(6, 55.0, LATER))], LATER)
    assert kinds(journal) == "CGGGCECC"
    assert minutes(journal)[at(6)] == ("candle", 55.0)


# --- confirmation


def test_the_mark_passes_what_was_answered_and_waits_at_a_young_minute_that_was_not(journal):
    assert mark(journal) == 0
    journal.commit([page(0, 5, rest(0))], at(20))
    assert mark(journal) == 4  # minutes in gaps and empty ones need no answer; minute 4 is stored and has none
    journal.commit([page(4, 8, rest(7), comparing=True)], at(20))
    assert mark(journal) == 4
    assert [one.since for one in journal.revisions.unconfirmed("okx", LATE)] == [at(4)]
    journal.commit([page(4, 8, rest(7))], at(34))
    assert mark(journal) == 4  # asked for a gap, it may be silent for other reasons: row and trades differ
    judged = journal.commit([page(4, 8, rest(7), comparing=True)], at(34))
    assert mark(journal) == 8
    assert judged.compared == {("okx", "agreed"): 1, ("okx", "unanswered"): 1}
    assert journal.revisions.unconfirmed("okx", LATE) == []


def test_a_page_that_begins_after_the_mark_does_not_move_it(journal):
    journal.commit([page(4, 8, rest(4), rest(7))], at(20))
    assert mark(journal) == 0


def test_a_live_candle_that_is_proven_late_is_compared_though_the_mark_had_passed_it(journal):
    journal.commit([page(0, 8, rest(0), rest(4), rest(7))], at(20))
    assert mark(journal) == 8
    journal.commit([candle(2)], at(21))
    assert mark(journal) == 2
    assert [one.since for one in journal.revisions.unconfirmed("okx", LATE)] == [at(2)]
    journal.commit([page(2, 8, rest(2), rest(4), rest(7))], at(22))
    assert mark(journal) == 8


def test_a_candle_from_rest_needs_no_comparing(journal):
    journal.commit([page(0, 8, rest(0), rest(2), rest(4), rest(7))], at(20))
    assert mark(journal) == 8
    assert "C" in kinds(journal)[2]


def test_a_restart_goes_on_confirming_where_it_was(tmp_path):
    with journal_in(tmp_path / "j") as journal:
        journal.expect([BTC], NOON, NOON)
        journal.commit([candle(0), candle(1), page(0, 1, rest(0))], at(20))
    with journal_in(tmp_path / "j") as journal:
        journal.expect([BTC], NOON, at(30))
        assert mark(journal) == 1


# --- unfillable


def states(journal: Watched) -> list[tuple]:
    found = rows(journal, "SELECT since_ms, until_ms, state, attempts FROM gap ORDER BY since_ms")
    return [((since - NOON) // MINUTE, (until - NOON) // MINUTE, *rest) for since, until, *rest in found]


def test_two_observations_make_what_both_saw_unfillable(journal):
    journal.commit([absent(1, 3)], at(100))
    assert states(journal) == [(1, 4, "open", 1)]
    journal.commit([absent(2, 4)], at(110))
    assert states(journal) == [(1, 2, "open", 2), (2, 3, "unfillable", 2), (3, 4, "open", 2)]
    ((evidence,),) = rows(journal, "SELECT last_error FROM gap WHERE state = 'unfillable'")
    assert evidence == f"left out (at {at(100)}); left out (at {at(110)})"
    journal.commit([absent(1, 4)], at(120))
    assert states(journal) == [(1, 2, "unfillable", 3), (2, 3, "unfillable", 2), (3, 4, "unfillable", 3)]
    assert journal.gaps.open_minutes(LATE) == {}


@pytest.mark.parametrize(
    ("first", "second", "attempt"),
    [
        (at(100), at(100) + 599_999, absent(1, 4)),
        (at(50), at(100), absent(1, 4)),
        (at(100), at(120), Attempt(BTC, at(1), at(4), "HTTP 503")),
    ],
    ids=["too close", "the first too young", "no absence"],
)
def test_anything_less_leaves_it_open(journal, first, second, attempt):
    journal.commit([absent(1, 4)], Millis(first))
    journal.commit([attempt], Millis(second))
    assert states(journal) == [(1, 4, "open", 2)]


def test_what_turns_up_after_all_is_stored(journal):
    journal.commit([absent(1, 4)], at(100))
    journal.commit([absent(1, 4)], at(120))
    journal.commit([page(1, 4, rest(2))], at(130))
    assert [state[:3] for state in states(journal)] == [(1, 2, "unfillable"), (3, 4, "unfillable")]
    assert minutes_stored(journal) == {0, 2, 4, 7}


def absences(journal: Watched) -> list[tuple[int, int]]:
    found = rows(journal, "SELECT since_ms, until_ms FROM gap_event WHERE event = 'absent' ORDER BY since_ms")
    return [((since - NOON) // MINUTE, (until - NOON) // MINUTE) for since, until in found]


@pytest.mark.parametrize("turned_up", [candle(2), empty(2, 3)], ids=["a candle", "empty"])
def test_an_absence_before_a_minute_was_known_does_not_count_when_it_is_lost(journal, turned_up):
    """Its day file was damaged, say: the venue had the minute, so that it has to be seen absent twice anew."""
    journal.commit([absent(1, 4)], at(100))
    journal.commit([turned_up], at(105))
    if isinstance(turned_up, Candle):
        rows(journal, "DELETE FROM candle WHERE open_ms = ?", at(2))
    else:
        rows(journal, "DELETE FROM empty WHERE since_ms = ?", at(2))
    journal.lose("p", BTC, Millis(NOON - NOON % DAY), at(108), "a test")
    assert absences(journal) == [(1, 2), (3, 4)]
    journal.commit([absent(1, 4)], at(120))
    assert [state[:3] for state in states(journal)] == [(1, 2, "unfillable"), (2, 3, "open"), (3, 4, "unfillable")]
    assert absences(journal) == [(1, 2), (2, 3), (3, 4)]
    journal.commit([absent(1, 4)], at(131))
    assert {state[2] for state in states(journal)} == {"unfillable"}


def minutes_stored(journal: Watched) -> set[int]:
    return {(open_ms - NOON) // MINUTE for (open_ms,) in rows(journal, "SELECT open_ms FROM candle")}


# --- listing


def listing(minute: int) -> Page:
    """Nothing but when the market began, said when minutes 1 to 4 were asked for."""
    return page(1, 4, listed=(at(minute), "trade 1"))


def test_gaps_before_the_listing_are_closed_and_not_expected_again():
    with journal_in() as journal:
        journal.expect([BTC], at(-10), NOON)
        journal.commit([candle(0), listing(-4)], at(1))
        assert journal.spans() == {BTC: (at(-4), at(1))}
        assert gaps(journal) == [(-4, 0, "not_collected")]
        journal.expect([BTC], at(-20), at(2))
        assert journal.spans() == {BTC: (at(-4), at(2))}
        assert rows(journal, "SELECT since_ms, evidence FROM listing") == [(at(-4), "trade 1")]
        events = rows(journal, "SELECT since_ms, until_ms FROM gap_event WHERE event = 'unlisted'")
        assert events == [(at(-10), at(-4))]


@pytest.mark.parametrize("since", [3, 7, 50], ids=["a candle before", "candles and empties before", "in the future"])
def test_a_listing_that_what_is_known_contradicts_changes_nothing(journal, since):
    journal.commit([listing(since)], NOW)
    assert kinds(journal) == "CGGGCEEC"
    assert not rows(journal, "SELECT * FROM listing")
    assert rows(journal, "SELECT attempts FROM gap WHERE since_ms >= ?", at(1)) == [(1,)]  # asked for again, later


def test_a_page_that_is_not_believed_lists_nothing(journal):
    journal.commit([page(1, 4, rest(1), rest(4, 55.0), anonymous=True, listed=(NOON, "trade 1"))], NOW)
    assert not rows(journal, "SELECT * FROM listing")


def test_candles_from_before_the_first_expected_minute_speak_against_a_listing_too():
    for first in (-10, -3):
        with journal_in() as journal:
            journal.expect([BTC], at(first), NOON)
            journal.commit([candle(0)], at(1))
            journal.commit([page(first, 0, rest(-12), rest(0), listed=(at(-4), "trade 1"))], at(1))
            assert journal.spans()[BTC][0] == at(first)
            assert not rows(journal, "SELECT * FROM listing")


def test_minutes_that_a_page_tells_from_before_its_own_listing_are_stored_and_the_listing_is_not_believed():
    with journal_in() as journal:
        journal.expect([BTC], at(-10), NOON)
        journal.commit([candle(0)], at(1))
        journal.commit([page(-10, 0, rest(-6), rest(-5), rest(-3), listed=(at(-4), "trade 1"))], at(1))
        assert minutes_stored(journal) == {-6, -5, -3, 0}
        assert gaps(journal) == [(-10, -6, "not_collected"), (-4, -3, "not_collected"), (-2, 0, "not_collected")]
        assert not rows(journal, "SELECT * FROM listing")


# --- the first row of all, where the venue does not tell the listing


def first_row(minute: int, *candles: Candle) -> Page:
    """A page of the minutes -10 to 0; in the answers, *minute* had the first row."""
    return page(-10, 0, *candles, first_row=(at(minute), "oldest row"))


def listings(journal: Watched) -> list[tuple]:
    return rows(journal, "SELECT since_ms, evidence FROM listing")


@pytest.fixture
def young():
    """Ten minutes that were not collected, and a live candle."""
    with journal_in() as journal:
        journal.expect([BTC], at(-10), NOON)
        journal.commit([candle(0)], at(1))
        yield journal


@pytest.mark.parametrize("apart", [9, 10])
def test_a_first_row_that_is_told_twice_ten_minutes_apart_is_the_listing_of_a_collector_restarted_between(quick, apart):
    with journal_in(quick / "journal") as journal:
        journal.expect([BTC], at(-10), NOON)
        journal.commit([candle(0), first_row(-4, rest(-4))], at(1))
        assert listings(journal) == []
    with journal_in(quick / "journal") as journal:
        journal.commit([first_row(-4)], at(1 + apart))
        if apart < 10:
            assert listings(journal) == []
            assert journal.spans() == {BTC: (at(-10), at(1))}
        else:
            assert listings(journal) == [(at(-4), f"oldest row (at {at(1)}); oldest row (at {at(11)})")]
            assert journal.spans() == {BTC: (at(-4), at(1))}
            assert gaps(journal) == [(-3, 0, "not_collected")]


def test_two_first_rows_are_no_listing(young):
    young.commit([first_row(-4)], at(1))
    young.commit([first_row(-6, rest(-6))], at(20))
    young.commit([first_row(-4)], at(40))
    assert listings(young) == []
    young.commit([first_row(-6)], at(40))
    assert [since for since, _ in listings(young)] == [at(-6)]


def test_nothing_is_a_first_row_after_a_minute_that_was_known_until_its_file_was_lost(young):
    young.commit([page(-10, 0, rest(-6))], at(1))
    rows(young, "DELETE FROM candle WHERE open_ms = ?", at(-6))
    young.lose("p", BTC, Millis(NOON - NOON % DAY), at(2), "a test")
    for minute in (3, 20, 40):
        young.commit([first_row(-4)], at(minute))
    assert listings(young) == []
    assert young.spans()[BTC][0] == at(-10)


# --- whatever comes


@given(some=st.lists(st.lists(findings(), max_size=4), max_size=6))
@settings(deadline=None)
def test_any_sequence_of_findings_leaves_each_minute_one_thing_and_no_candle_without_a_word_for_it(some):
    with journal_in() as journal:
        journal.expect([BTC], NOON, NOON)
        journal.commit([candle(0), unsure(1, 4), candle(4), empty(5, 7), candle(7)], at(8))
        for number, batch in enumerate(some):
            before = {minute: journal.stored(BTC, Millis(minute)) for minute in range(NOON, at(8), MINUTE)}
            judged = journal.commit(batch, Millis(NOW + 20 * MINUTE * (number + 1)))
            replaced = {offered.open_time for _, offered in judged.replaced}
            for minute, stored in before.items():
                if stored is not None and minute not in replaced:
                    assert journal.stored(BTC, Millis(minute)) == stored
            spans = [
                span for table in ("gap", "empty") for span in rows(journal, f"SELECT since_ms, until_ms FROM {table}")
            ] + [(open_ms, open_ms + MINUTE) for (open_ms,) in rows(journal, "SELECT open_ms FROM candle")]
            accounted = sorted(minute for since, until in spans for minute in range(since, until, MINUTE))
            assert accounted == list(range(NOON, at(8), MINUTE))
            assert NOON / MINUTE <= mark(journal) + NOON / MINUTE <= at(8) / MINUTE
            open_rest = rows(
                journal,
                "SELECT count(*) FROM revision WHERE outcome = 'open' AND json_extract(offered, '$.source') = 'rest'"
                " GROUP BY open_ms HAVING count(*) > 1",
            )
            assert not open_rest


def test_reasons_survive_the_cutting_of_gaps(journal):
    journal.commit([page(2, 3, rest(2))], NOW)
    assert gaps(journal) == [(1, 2, Reason.UNPROVEN), (3, 4, Reason.UNPROVEN)]


# --- asked about again


@pytest.mark.parametrize(("age", "wait"), [(200, 30), (100, 2)], ids=["old", "young"])
def test_a_doubt_that_an_answer_did_not_settle_waits_and_of_an_old_one_longer(journal, age, wait):
    journal.commit([candle(4, 55.0)], at(4 + age))
    assert [one.minute for one in journal.revisions.doubtful("okx", at(4 + age))] == [at(4)]
    journal.commit([page(0, 8, comparing=True)], at(4 + age))
    assert journal.revisions.doubtful("okx", at(4 + age + wait - 0.01)) == []
    assert [one.minute for one in journal.revisions.doubtful("okx", at(4 + age + wait))] == [at(4)]


def test_a_second_answer_is_asked_for_a_minute_after_the_first_and_not_before(journal):
    journal.commit([page(4, 5, rest(4, 55.0, NOW), comparing=True)], NOW)
    assert journal.revisions.doubtful("okx", Millis(NOW + 60_999)) == []
    assert [one.answered for one in journal.revisions.doubtful("okx", Millis(NOW + 61_000))] == [NOW]
