"""The history of gaps and revisions: what is worth telling, read in order; how long it is kept, and what that costs."""

from __future__ import annotations

import pytest
from directories import BTC, ETH
from hypothesis import given, settings
from hypothesis import strategies as st
from journals import LATE, NOON, at, candle, empty, journal_in, rows, unsure
from pages import page, rest

from trio_candles.candles.model import DAY, MINUTE, Attempt, Millis, Reason
from trio_candles.store.due import TIDIED_AT_ONCE
from trio_candles.store.gaps import WORTH_TELLING
from trio_candles.store.history import EVENTS_KEPT
from trio_candles.store.revisions import LISTED, REVISIONS_KEPT, UNSETTLED_FOR

TOLD = WORTH_TELLING // MINUTE


@pytest.fixture
def journal():
    with journal_in() as journal:
        journal.expect([BTC], NOON, NOON)
        yield journal


def told(journal) -> list[tuple]:
    """(first minute, last minute + 1, event), in the order of time."""
    found = rows(journal, "SELECT since_ms, until_ms, event FROM gap_event ORDER BY at_ms, rowid")
    return [((since - NOON) // MINUTE, (until - NOON) // MINUTE, event) for since, until, event in found]


def steps(journal, work) -> int:
    """How many thousand steps of SQLite's machine *work* takes."""
    count = 0

    def one() -> int:
        nonlocal count
        count += 1
        return 0

    journal.database.set_progress_handler(one, 1000)
    work()
    journal.database.set_progress_handler(None, 0)
    return count


# --- what is told


def test_a_quiet_pair_whose_minutes_are_proven_soon_has_no_history(journal):
    for minute in range(50):
        journal.commit([unsure(minute, minute + 1)], at(minute + 1))
        if minute >= 3:
            journal.commit([empty(minute - 3, minute - 2)], at(minute + 1.9))
    assert told(journal) == []


def test_a_minute_that_was_a_gap_for_five_minutes_is_told_and_its_younger_neighbour_is_not(journal):
    journal.commit([unsure(0, 3)], at(3))
    journal.commit([empty(0, 3)], at(2 + TOLD))
    assert told(journal) == [(0, 2, "opened"), (0, 2, "empty")]


def test_an_outage_is_told_at_once_as_one_event(journal):
    journal.commit([unsure(0, 300, Reason.DISCONNECTED)], at(300 + TOLD))
    assert told(journal) == [(0, 300, "opened")]
    journal.commit([page(0, 300, *(rest(minute) for minute in range(100, 200)))], at(310))
    assert told(journal) == [(0, 300, "opened"), (100, 200, "stored")]


def test_an_outage_that_waited_for_a_disk_is_one_gap_and_one_event(journal):
    """Its verdicts, one a minute, are committed an hour later, some of them in another transaction."""
    for batch in range(0, 60, 20):
        minutes = range(batch, batch + 20)
        journal.commit([unsure(minute, minute + 1, Reason.DISCONNECTED) for minute in minutes], at(90 + batch / 100))
    assert rows(journal, "SELECT count(*) FROM gap") == [(1,)]
    assert told(journal) == [(0, 60, "opened")]


def test_an_outage_that_grew_minute_by_minute_is_told_when_it_is_filled(journal):
    for minute in range(60):
        journal.commit([unsure(minute, minute + 1, Reason.DISCONNECTED)], at(minute + 1))
    journal.commit([page(0, 60, *(rest(minute) for minute in range(20, 60)))], at(70))
    assert told(journal) == [(20, 60, "opened"), (20, 60, "stored")]
    assert rows(journal, "SELECT at_ms FROM gap_event WHERE event = 'opened'") == [(at(21),)]


def test_an_absence_is_noted_of_gaps_only(journal):
    journal.commit([candle(0), unsure(1, 3), candle(3), unsure(4, 5), empty(5, 8)], at(8))
    journal.commit([Attempt(BTC, at(0), at(8), "no row", absent=True)], at(100))
    assert [one for one in told(journal) if one[2] == "absent"] == [(1, 3, "absent"), (4, 5, "absent")]
    journal.commit([Attempt(BTC, at(0), at(8), "no row", absent=True)], at(120))
    assert [one for one in told(journal) if one[2] == "unfillable"] == [(1, 3, "unfillable"), (4, 5, "unfillable")]
    assert [one for one in told(journal) if one[2] == "opened"] == [(1, 3, "opened"), (4, 5, "opened")]


@given(
    st.lists(
        st.tuples(st.sampled_from(["unsure", "candle", "close", "absent"]), st.integers(1, 12), st.integers(0, 30)),
        max_size=12,
    )
)
@settings(deadline=None, max_examples=40)
def test_read_in_the_order_of_time_the_history_opens_and_ends_each_minute_by_turns(some):
    with journal_in() as journal:
        journal.expect([BTC], NOON, NOON)
        mark = now = 0
        for what, length, later in some:
            now = max(now + later, mark)
            if what in ("unsure", "candle"):
                now = max(now, mark + length) + 1
                candles = [candle(minute) for minute in range(mark, mark + length)]
                journal.commit(candles if what == "candle" else [unsure(mark, mark + length)], at(now))
                mark += length
            elif what == "close":
                journal.commit([empty(max(0, mark - 2 * length), max(1, mark - length))] if mark else [], at(now))
            elif mark:
                journal.commit([Attempt(BTC, at(0), at(mark), "none", absent=True)], at(now))
        open_now: set[int] = set()
        for since, until, event in told(journal):
            span = set(range(since, until))
            if event == "opened":
                assert not open_now & span
                open_now |= span
            elif event in ("stored", "empty"):
                open_now -= span
            if event == "unfillable":
                assert open_now >= span
        gaps = rows(journal, "SELECT since_ms, until_ms FROM gap")
        minutes = {(m - NOON) // MINUTE for since, until in gaps for m in range(since, until, MINUTE)}
        assert open_now <= minutes  # what was told as opened, and not as ended, is a gap


# --- how long it is kept


def revise(journal, minute: int, now: Millis) -> None:
    journal.commit([candle(minute)], now)
    journal.commit([candle(minute, 200.0)], now)


def test_settled_revisions_are_let_go_of_after_ninety_days_and_open_ones_never(journal):
    revise(journal, 0, LATE)
    journal.replaced([("p", "d", BTC, [at(0)])])
    journal.tidy(Millis(LATE + UNSETTLED_FOR))
    assert rows(journal, "SELECT outcome FROM revision") == [("open",)]
    journal.tidy(Millis(LATE + REVISIONS_KEPT))
    assert rows(journal, "SELECT outcome FROM revision") == [("kept",)]
    journal.tidy(Millis(LATE + REVISIONS_KEPT + 1))
    assert rows(journal, "SELECT * FROM revision") == []


def test_a_revision_is_kept_as_long_as_the_candle_that_replaced_another_waits_for_its_file(journal):
    revise(journal, 0, LATE)
    rows(journal, "UPDATE revision SET outcome = 'replaced'")
    day = Millis(NOON - NOON % DAY)
    journal.tidy(Millis(LATE + 2 * REVISIONS_KEPT))
    assert journal.replaced_minutes(BTC, day) == {at(0)}
    journal.replaced([("p", "d", BTC, [at(0)])])
    journal.tidy(Millis(LATE + 2 * REVISIONS_KEPT))
    assert journal.replaced_minutes(BTC, day) == set()


def test_a_settled_revision_that_makes_no_sense_outvotes_nothing(tmp_path):
    with journal_in(tmp_path / "j") as journal:
        journal.expect([BTC], NOON, NOON)
        revise(journal, 0, LATE)
        rows(journal, "UPDATE revision SET outcome = 'kept', offered = substr(offered, 2)")
    with journal_in(tmp_path / "j") as journal:
        again = page(0, 1, rest(0, price=200.0))
        assert len(journal.commit([again], LATE).conflicts) == 1


def test_old_history_is_let_go_of_in_parts(journal):
    count = TIDIED_AT_ONCE * 2 + 1
    for minute in range(count):
        journal.gaps.history.add(1, at(minute), at(minute + 1), "stored", "x", NOON)
    now = Millis(NOON + EVENTS_KEPT + 1)
    left = []
    while True:
        more = journal.tidy(now)
        left.append(rows(journal, "SELECT count(*) FROM gap_event")[0][0])
        if not more:
            break
    assert left == [TIDIED_AT_ONCE + 1, 1, 0]


# --- at what cost


def fill_with_doubts(journal, count: int, not_before: int, outcome: str = "open", series: int = 1) -> None:
    stored, offered = rows(journal, "SELECT stored, offered FROM revision LIMIT 1")[0]
    journal.database.executemany(
        "INSERT INTO revision (at_ms, series_id, open_ms, stored, offered, outcome, not_before_ms)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        [(NOON, series, at(10 + minute), stored, offered, outcome, not_before + minute) for minute in range(count)],
    )


@pytest.mark.parametrize(
    ("not_before", "outcome", "listed"),
    [(0, "open", LISTED), (LATE + MINUTE, "open", 1), (0, "kept", 1)],
    ids=["due", "waiting", "settled"],
)
def test_a_look_at_what_is_doubtful_costs_no_more_for_ten_thousand_than_for_a_few(journal, not_before, outcome, listed):
    revise(journal, 0, at(5))
    fill_with_doubts(journal, 10_000, not_before, outcome)
    assert len(journal.revisions.doubtful("okx", LATE)) == listed
    assert steps(journal, lambda: journal.revisions.doubtful("okx", LATE)) <= 6


def test_the_doubts_of_one_venue_do_not_hide_those_of_another(journal):
    journal.expect([BTC, ETH], NOON, NOON)
    revise(journal, 0, at(5))
    fill_with_doubts(journal, 1_000, 0)
    fill_with_doubts(journal, 1, 2_000, series=2)
    assert [one.series for one in journal.revisions.doubtful("kraken", LATE)] == [ETH]
    due = [one.minute for one in journal.revisions.doubtful("okx", LATE)]
    assert due == [at(10 + minute) for minute in range(LISTED)]


def test_letting_go_of_history_reads_no_history_that_is_kept(journal):
    for minute in range(10_000):
        journal.gaps.history.add(1, at(minute), at(minute + 1), "stored", "x", LATE)
    revise(journal, 0, at(5))
    fill_with_doubts(journal, 10_000, 0, "kept")
    rows(journal, "UPDATE revision SET at_ms = ?", LATE)
    assert steps(journal, lambda: journal.tidy(Millis(LATE + DAY))) <= 1
