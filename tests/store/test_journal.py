"""The journal and the ledger: after any verdicts, every minute is exactly one thing, and the one it should be."""

from __future__ import annotations

import json
import random
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path

import attrs
import pytest
from directories import BTC, ETH, bring_down
from hypothesis import given, settings
from hypothesis import strategies as st
from journals import LATE, NOON, Watched, at, candle, empty, gaps, journal_in, kinds, minutes, rows, unsure

from trio_candles.candles.model import DAY, MINUTE, Attempt, Candle, Empty, Millis, Reason, Source, Unsure
from trio_candles.candles.validation import Rule
from trio_candles.store.journal import Journal, JournalBroken, LedgerBroken, OtherFormat
from trio_candles.store.schema import FORMAT, UNMENDED

NOON_DAY = Millis(NOON - NOON % DAY)


@pytest.fixture
def journal():
    """A journal in memory that expects BTC from noon on."""
    with journal_in() as journal:
        journal.expect([BTC], NOON, NOON)
        yield journal


def dump(journal: Watched):
    return list(journal.database.iterdump()), journal.spans()


# --- first verdicts


def test_verdicts_in_a_row_account_for_every_minute(journal):
    judged = journal.commit([candle(0), empty(1, 3), unsure(3, 4), candle(4)], LATE)
    assert judged.accepted == 2
    assert kinds(journal) == "CEEGC"
    assert journal.spans() == {BTC: (NOON, at(5))}


@pytest.mark.parametrize("verdict", [candle(1), empty(1, 2), unsure(1, 2)], ids=["candle", "empty", "unsure"])
def test_a_first_verdict_beyond_the_mark_is_a_broken_ledger(journal, verdict):
    with pytest.raises(LedgerBroken, match="stands at"):
        journal.commit([verdict], LATE)


@pytest.mark.parametrize(
    "verdict",
    [
        Empty(BTC, at(0), at(0), ""),
        Empty(BTC, at(1), at(0), ""),
        Empty(BTC, at(0), at(0.5), ""),
        Unsure(BTC, Millis(NOON - 1), at(1), Reason.UNPROVEN),
    ],
    ids=["no length", "backwards", "half a minute", "between two minutes"],
)
def test_a_span_that_is_not_whole_minutes_is_a_broken_ledger(journal, verdict):
    with pytest.raises(LedgerBroken, match="whole minutes"):
        journal.commit([verdict], LATE)


def test_a_verdict_on_a_series_that_nobody_expects_is_an_error(journal):
    with pytest.raises(KeyError):
        journal.commit([candle(0, series=ETH)], LATE)


def test_a_batch_that_fails_changes_nothing_on_disk_nor_in_memory(journal):
    journal.commit([candle(0), unsure(1, 4)], LATE)
    before = dump(journal)
    with pytest.raises(LedgerBroken):
        journal.commit([candle(4), empty(2, 3), candle(1), candle(4, 7), empty(5, 6), candle(9)], LATE)
    assert dump(journal) == before
    journal.commit([candle(4)], LATE)
    assert kinds(journal) == "CGGGC"


def test_marks_follow_a_failed_transaction_though_nothing_can_be_read(journal):
    """A disk that fails the transaction may fail a reading as well; marks in memory must not stay ahead."""

    def fail(action, table, *rest) -> int:
        failing = action == sqlite3.SQLITE_SELECT or (action == sqlite3.SQLITE_INSERT and table == "meta")
        return sqlite3.SQLITE_DENY if failing else sqlite3.SQLITE_OK

    journal.database.set_authorizer(fail)
    with pytest.raises(sqlite3.DatabaseError, match="not authorized"):
        journal.commit([candle(0)], LATE)
    journal.database.set_authorizer(None)
    assert journal.spans() == {BTC: (NOON, NOON)}
    assert journal.commit([candle(0)], LATE).accepted == 1


# --- second verdicts


def test_an_equal_candle_is_skipped_and_counted(journal):
    journal.commit([candle(0)], LATE)
    judged = journal.commit([candle(0, volume=2.5 * (1 + 1e-10), vwap=None, source=Source.REST)], LATE)
    assert [rule for _, rule in judged.rejected] == [Rule.DUPLICATE]
    assert judged.accepted == 0
    assert rows(journal, "SELECT source FROM candle") == [("websocket",)]
    assert rows(journal, "SELECT * FROM revision") == []
    assert rows(journal, "SELECT * FROM rejection") == [("okx", "duplicate", 1)]


def test_a_different_candle_is_recorded_and_the_stored_row_stays(journal):
    journal.commit([candle(0, 100.0)], LATE)
    judged = journal.commit([candle(0, 200.0)], Millis(LATE + 1))
    assert [rule for _, rule in judged.rejected] == [Rule.CONFLICT]
    assert judged.conflicts == [(candle(0, 100.0), candle(0, 200.0))]
    assert journal.stored(BTC, NOON) == candle(0, 100.0)
    ((seen, open_ms, stored, offered, outcome),) = rows(
        journal, "SELECT at_ms, open_ms, stored, offered, outcome FROM revision"
    )
    assert (seen, open_ms, outcome) == (LATE + 1, NOON, "open")
    assert (json.loads(stored)["open"], json.loads(offered)["open"]) == (100.0, 200.0)


def test_a_candle_already_in_a_day_file_is_found_there():
    with journal_in(elsewhere=lambda series, minute: candle(0) if (series, minute) == (BTC, NOON) else None) as journal:
        journal.expect([BTC], NOON, NOON)
        journal.commit([candle(0)], LATE)
        journal.replaced([("p", "d", BTC, [NOON])])
        judged = journal.commit([candle(0), candle(0, 5.0)], LATE)
        assert [rule for _, rule in judged.rejected] == [Rule.DUPLICATE, Rule.CONFLICT]


def test_a_minute_that_is_accounted_for_as_nothing_is_a_broken_ledger(journal):
    journal.commit([candle(0)], LATE)
    journal.replaced([("p", "d", BTC, [NOON])])  # and the day files do not have it
    with pytest.raises(LedgerBroken, match="nothing"):
        journal.commit([candle(0)], LATE)


def test_a_candle_of_an_empty_minute_is_a_conflict_and_the_minute_stays_empty(journal):
    journal.commit([empty(0, 3, "ids 5 to 6")], LATE)
    judged = journal.commit([candle(1)], LATE)
    assert [rule for _, rule in judged.rejected] == [Rule.CONFLICT]
    assert kinds(journal) == "EEE"
    ((stored,),) = rows(journal, "SELECT stored FROM revision")
    assert json.loads(stored) == {"empty": "ids 5 to 6"}


def test_a_candle_before_the_first_expected_minute_is_out_of_order(journal):
    journal.commit([candle(0)], LATE)
    judged = journal.commit([candle(-1)], LATE)
    assert [rule for _, rule in judged.rejected] == [Rule.OUT_OF_ORDER]
    assert kinds(journal) == "C"


def test_doubt_never_undoes_proof(journal):
    journal.commit([candle(0), empty(1, 2)], LATE)
    journal.commit([unsure(0, 3)], LATE)
    assert kinds(journal) == "CEG"


def test_a_gap_keeps_its_first_reason(journal):
    journal.commit([unsure(0, 1, Reason.DISCONNECTED)], LATE)
    journal.commit([unsure(0, 1, Reason.MISSING_TRADES)], LATE)
    assert gaps(journal) == [(0, 1, "disconnected")]


def test_a_closed_gap_is_split_and_both_parts_keep_what_was_known_of_it(journal):
    journal.commit([unsure(0, 5, Reason.DISCONNECTED, "reset")], at(6))
    journal.database.execute("UPDATE gap SET attempts = 3, last_error = 'HTTP 500'")
    journal.commit([candle(2, source=Source.REST)], at(7))
    assert rows(
        journal, "SELECT since_ms, until_ms, state, reason, detail, first_seen_ms, attempts, last_error FROM gap"
    ) == [
        (at(0), at(2), "open", "disconnected", "reset", at(6), 3, "HTTP 500"),
        (at(3), at(5), "open", "disconnected", "reset", at(6), 3, "HTTP 500"),
    ]
    journal.commit([empty(0, 1), candle(4)], at(8))
    assert kinds(journal) == "EGCGC"
    journal.commit([empty(0, 5)], at(9))
    assert kinds(journal) == "EECEC"
    assert gaps(journal) == []


def test_the_history_of_a_gap_is_appended(journal):
    journal.commit([unsure(0, 3, Reason.DISCONNECTED, "reset")], at(4))
    journal.commit([candle(1, source=Source.REST)], at(15))
    journal.commit([empty(0, 3, "zero row")], at(16))
    assert rows(journal, "SELECT at_ms, since_ms, until_ms, event, detail FROM gap_event ORDER BY rowid") == [
        (at(4), at(1), at(2), "opened", "disconnected: reset"),
        (at(15), at(1), at(2), "stored", "rest"),
        (at(4), at(0), at(1), "opened", "disconnected: reset"),
        (at(16), at(0), at(1), "empty", "zero row"),
        (at(4), at(2), at(3), "opened", "disconnected: reset"),
        (at(16), at(2), at(3), "empty", "zero row"),
    ]


def test_gaps_grow_while_the_reason_is_the_same(journal):
    for minute in range(3):
        journal.commit([unsure(minute, minute + 1, Reason.DISCONNECTED)], at(minute + 1))
    journal.commit([unsure(3, 4, Reason.REFUSED)], at(5))
    assert gaps(journal) == [(0, 3, "disconnected"), (3, 4, "refused")]
    assert rows(journal, "SELECT first_seen_ms FROM gap ORDER BY since_ms") == [(at(1),), (at(5),)]


def events(journal: Watched) -> list[tuple]:
    return [
        ((since - NOON) // MINUTE, (until - NOON) // MINUTE, event, detail)
        for since, until, event, detail in rows(
            journal, "SELECT since_ms, until_ms, event, detail FROM gap_event ORDER BY rowid"
        )
    ]


def test_no_opening_is_told_twice_of_minutes_that_have_a_later_history(journal):
    """A day file is lost twice: read in order, no minute is opened while it is open."""
    day = Millis(NOON - NOON % 86_400_000)
    journal.commit([candle(0), candle(1)], at(2))
    journal.replaced([("p", "d", BTC, [at(0), at(1)])])
    journal.lose("p", BTC, day, LATE, "gone")
    journal.commit([candle(1)], LATE)
    journal.replaced([("p", "d", BTC, [at(1)])])
    journal.lose("p", BTC, day, LATE, "gone")
    assert gaps(journal) == [(0, 2, "corrupt")]
    assert [event[:3] for event in events(journal)] == [(0, 2, "opened"), (1, 2, "stored"), (1, 2, "opened")]
    assert _gaps_by_history(journal) == {at(0), at(1)}


def test_what_is_old_of_the_history_is_forgotten_at_a_start_and_the_gap_is_not(journal):
    journal.commit([unsure(0, 1, Reason.DISCONNECTED)], at(6))
    journal.commit([candle(1), unsure(2, 3, Reason.REFUSED)], at(8))
    later = at(6) + 90 * DAY
    journal.expect([BTC], at(3), Millis(later))
    assert [event[:2] for event in events(journal)][:2] == [(0, 1), (2, 3)]
    journal.expect([BTC], at(3), Millis(later + 1))
    assert events(journal)[0][:2] == (2, 3)
    assert gaps(journal)[0] == (0, 1, "disconnected")


def test_empty_neighbours_are_joined_if_they_say_the_same_but_for_the_numbers(journal):
    """Else a quiet series has a row a minute; but a minute's evidence is never replaced by one of another kind."""
    journal.commit([empty(0, 1, "ids up to 9"), empty(1, 2, "ids up to 12"), empty(2, 3, "zero row of 12:02")], LATE)
    journal.commit([empty(3, 4, "ids up to 13")], LATE)
    assert rows(journal, "SELECT (since_ms - ?) / 60000, evidence FROM empty ORDER BY since_ms", NOON) == [
        (0, "ids up to 12"), (2, "zero row of 12:02"), (3, "ids up to 13"),
    ]  # fmt: skip


def test_a_candle_that_breaks_a_rule_becomes_a_gap(journal):
    bad = [candle(0, high=1.0), candle(1, open=float("nan")), candle(2, close_time=at(2)), candle(3, is_closed=False)]
    judged = journal.commit(bad, LATE)
    assert [rule.value for _, rule in judged.rejected] == [
        "high_below_low", "not_finite", "wrong_close_time", "not_closed",
    ]  # fmt: skip
    assert gaps(journal) == [(minute, minute + 1, "rejected") for minute in range(4)]
    assert rows(journal, "SELECT detail FROM gap WHERE since_ms = ?", NOON) == [("high_below_low",)]


def test_a_candle_of_the_future_is_rejected_and_the_next_minute_can_follow(journal):
    """It can only come here after the clock stepped back behind the assembler's."""
    judged = journal.commit([candle(0)], at(-5))
    assert [rule for _, rule in judged.rejected] == [Rule.IN_FUTURE]
    assert kinds(journal) == "G"
    journal.commit([candle(1), candle(0)], LATE)
    assert kinds(journal) == "CC"


def test_a_bad_candle_of_a_minute_that_is_proven_changes_nothing(journal):
    journal.commit([candle(0), empty(1, 2)], LATE)
    judged = journal.commit([candle(0, high=1.0), candle(1, low=500.0), candle(0.5)], LATE)
    assert len(judged.rejected) == 3
    assert kinds(journal) == "CE"


def test_the_newest_candle_is_remembered(journal):
    journal.commit([candle(0), unsure(1, 3), candle(3)], LATE)
    journal.commit([candle(2)], LATE)
    assert rows(journal, "SELECT last_candle_ms FROM series") == [(at(3),)]


def test_rejections_are_counted_since_the_directory_began(journal):
    journal.commit([candle(0), candle(0), candle(0)], LATE)
    journal.commit([], LATE, {("okx", "duplicate"): 2, ("okx", "parse_error"): 1})
    assert rows(journal, "SELECT * FROM rejection") == [("okx", "duplicate", 4), ("okx", "parse_error", 1)]


def test_open_gap_minutes_are_those_of_expected_series(journal):
    journal.commit([unsure(0, 5), candle(2)], LATE)
    journal.expect([BTC, ETH], at(-10), at(5))
    assert journal.gaps.open_minutes(LATE) == {"okx": 4 + 10, "kraken": 15}
    journal.expect([BTC], at(-10), at(5))
    assert journal.gaps.open_minutes(LATE) == {"okx": 14}


@pytest.mark.parametrize(("now", "count"), [(5, 5), (2.9, 2), (0.5, 0), (-3, 0), (11, 10)])
def test_a_minute_that_has_not_happened_is_not_counted_among_the_open_gaps(journal, now, count):
    journal.commit([unsure(0, 10)], at(0))
    assert journal.gaps.open_minutes(at(now))["okx"] == count


def test_only_the_open_ones_of_the_minutes_ahead_are_left_out_of_the_count(journal):
    journal.commit([unsure(0, 2), candle(2), unsure(3, 10), empty(10, 20), unsure(20, 30)], LATE)
    assert [journal.gaps.open_minutes(at(now))["okx"] for now in (1, 4, 15, 22)] == [1, 3, 9, 11]


# --- against a model that knows only minutes


class Model:
    """The contract of a commit, minute by minute, with nothing but a dictionary."""

    def __init__(self) -> None:
        self.minutes: dict[int, tuple] = {}
        self.mark = int(NOON)
        self.rejected: Counter[str] = Counter()

    def judge(self, verdict, now: int) -> None:
        if isinstance(verdict, Candle):
            self.judge_candle(verdict)
            return
        for minute in range(verdict.since, verdict.until, MINUTE):
            known = self.minutes.get(minute)
            if isinstance(verdict, Empty):
                if (known is not None and known[0] == "gap") or minute >= self.mark:
                    self.minutes[minute] = ("empty",)
            elif minute >= self.mark:
                kind = ("gap", verdict.reason.value, verdict.detail)
                before = self.minutes.get(minute - MINUTE, ("nothing",))
                self.minutes[minute] = (*kind, before[3] if before[:3] == kind else now)
        self.mark = max(self.mark, verdict.until)

    def judge_candle(self, verdict: Candle) -> None:
        known = self.minutes.get(verdict.open_time, ("gap",) if verdict.open_time >= self.mark else None)
        if known is None:
            self.rejected["out_of_order"] += 1
        elif known[0] == "gap":
            self.minutes[verdict.open_time] = ("candle", verdict.open)
        elif known == ("candle", verdict.open):
            self.rejected["duplicate"] += 1
        else:
            self.rejected["conflict"] += 1
        self.mark = max(self.mark, verdict.close_time)


@st.composite
def verdicts(draw, mark: int):
    """Any verdict that an assembler may send while *mark* minutes are accounted for, and the mark after it."""
    since = draw(st.integers(max(-2, mark - 8), mark))
    length = draw(st.integers(1, 5))
    kind = draw(st.sampled_from(["candle", "candle", "empty", "unsure"]))
    if kind == "candle":
        return candle(since, draw(st.sampled_from([10.0, 10.0, 11.0]))), max(mark, since + 1)
    if kind == "empty":
        return empty(since, since + length, draw(st.sampled_from(["a 1", "a 2", "b 1"]))), max(mark, since + length)
    reason = draw(st.sampled_from([Reason.UNPROVEN, Reason.DISCONNECTED]))
    detail = draw(st.sampled_from(["", "x"]))
    return unsure(since, since + length, reason, detail), max(mark, since + length)


@st.composite
def batches(draw):
    mark, some = 0, []
    for _ in range(draw(st.integers(1, 8))):
        batch = []
        for _ in range(draw(st.integers(1, 4))):
            verdict, mark = draw(verdicts(mark))
            batch.append(verdict)
        some.append((batch, draw(st.booleans())))
    return some


@settings(deadline=None)
@given(batches())
def test_any_sequence_of_verdicts_leaves_each_minute_exactly_what_the_model_says(some):
    with journal_in() as journal:
        journal.expect([BTC], NOON, NOON)
        model = Model()
        rejected: Counter[str] = Counter()
        for number, (batch, spoilt) in enumerate(some):
            now = LATE + number
            if spoilt:  # the same batch, with an end that cannot be: nothing of it may remain
                before = dump(journal)
                with pytest.raises(LedgerBroken):
                    journal.commit([*batch, empty(900, 901)], Millis(now))
                assert dump(journal) == before
            judged = journal.commit(batch, Millis(now))
            rejected.update(rule.value for _, rule in judged.rejected)
            for verdict in batch:
                model.judge(verdict, now)
            assert minutes(journal) == model.minutes
            assert journal.spans() == {BTC: (NOON, model.mark)}
            assert sorted(model.minutes) == list(range(NOON, model.mark, MINUTE))
            assert rejected == model.rejected
            assert _gaps_by_history(journal) == {m for m, what in model.minutes.items() if what[0] == "gap"}
        revisions = sum(count for _, count in rows(journal, "SELECT outcome, count(*) FROM revision"))
        assert min(1, rejected["conflict"]) <= revisions <= rejected["conflict"]  # what is said again is one revision


def _gaps_by_history(journal: Watched) -> set[int]:
    open_now: set[int] = set()
    for since, until, event in rows(journal, "SELECT since_ms, until_ms, event FROM gap_event ORDER BY rowid"):
        span = set(range(since, until, MINUTE))
        if event == "opened":
            assert not open_now & span
            open_now |= span
        else:
            assert open_now >= span
            open_now -= span
    return open_now


@pytest.mark.parametrize("seed", range(3))
def test_a_long_random_life_with_restarts_keeps_every_minute_accounted_for(seed, tmp_path):
    """Restarts, longer and shorter lookbacks, a clock that steps back, series that come and go."""
    chance = random.Random(seed)
    clock, spans_before = 0, {}
    for _ in range(25):
        with journal_in(tmp_path / "j") as journal:
            clock += chance.choice([0, 0, 1, 3, 20, -5])
            some = chance.sample([BTC, ETH], chance.choice([1, 2]))
            journal.expect(some, at(clock - chance.choice([0, 5, 30])), at(clock + 0.5))
            for _ in range(chance.randrange(6)):
                series = chance.choice(some)
                first, mark = ((time - NOON) // MINUTE for time in journal.spans()[series])
                since = chance.randint(max(first - 1, mark - 10), mark)
                verdict = chance.choice([candle(since), empty(since, since + 2), unsure(since, since + 3)])
                journal.commit([attrs.evolve(verdict, series=series)], LATE)
            clock = max(clock, *((mark - NOON) // MINUTE for _, mark in journal.spans().values()))
            for series, (first, mark) in journal.spans().items():
                assert sorted(minutes(journal, series)) == list(range(first, mark, MINUTE))
                old_first, old_mark = spans_before.get(series, (first, mark))
                assert first <= old_first
                assert mark >= old_mark
            spans_before = journal.spans()


# --- what is expected


def test_a_first_start_owes_the_lookback(journal):
    with journal_in() as journal:
        journal.expect([BTC, ETH], at(-3), at(0.9))
        assert journal.spans() == {BTC: (at(-3), at(0)), ETH: (at(-3), at(0))}
        assert gaps(journal) == [(-3, 0, "not_collected")] * 2


def test_a_first_start_without_lookback_owes_nothing():
    with journal_in() as journal:
        journal.expect([BTC], at(0.9), at(0.9))
        assert journal.spans() == {BTC: (NOON, NOON)}
        assert gaps(journal) == []


def test_a_restart_owes_the_time_between(journal):
    journal.commit([candle(0), candle(1)], LATE)
    journal.expect([BTC], at(-1), at(5.5))
    assert gaps(journal) == [(-1, 0, "not_collected"), (2, 5, "collector_down")]
    assert journal.spans() == {BTC: (at(-1), at(5))}


def test_a_restart_in_the_same_minute_owes_nothing(journal):
    journal.commit([candle(0), candle(1)], LATE)
    journal.expect([BTC], NOON, at(2.9))
    assert gaps(journal) == []


def test_a_symbol_taken_out_is_not_expected_and_owes_the_time_when_it_is_back(journal):
    journal.commit([candle(0)], LATE)
    journal.expect([ETH], at(3), at(3))
    assert rows(journal, "SELECT symbol, expected FROM series ORDER BY id") == [("BTC-USDT", 0), ("ETH/USD", 1)]
    assert journal.spans()[BTC] == (NOON, at(1))
    journal.expect([BTC], at(6), at(6))
    assert journal.spans() == {BTC: (NOON, at(6)), ETH: (at(3), at(3))}
    assert gaps(journal) == [(1, 6, "collector_down")]


def test_a_longer_lookback_reaches_further_back_and_a_shorter_one_drops_nothing(journal):
    journal.commit([candle(0)], LATE)
    journal.expect([BTC], at(-10), at(1))
    journal.expect([BTC], at(1), at(1))
    assert journal.spans() == {BTC: (at(-10), at(1))}
    assert gaps(journal) == [(-10, 0, "not_collected")]
    journal.expect([BTC], at(-20.5), at(1))
    assert gaps(journal) == [(-21, -10, "not_collected"), (-10, 0, "not_collected")]


def test_a_clock_that_stepped_back_takes_no_mark_with_it(journal):
    journal.commit([candle(0), candle(1)], LATE)
    journal.expect([BTC], at(-5), at(-3))
    assert journal.spans() == {BTC: (at(-5), at(2))}
    assert kinds(journal) == "GGGGGCC"
    journal.commit([candle(-2), candle(2)], LATE)
    assert kinds(journal) == "GGGCGCCC"


def test_a_lookback_into_the_future_is_none(journal):
    journal.expect([BTC, ETH], at(100), at(2))
    assert journal.spans() == {BTC: (NOON, at(2)), ETH: (at(2), at(2))}


# --- day files, as the ledger knows them


def test_the_minutes_of_a_lost_day_file_become_gaps_and_nothing_else_does(journal):
    journal.commit([candle(0), candle(1), empty(2, 3), unsure(3, 4), candle(4), candle(5)], LATE)
    journal.replaced([("p", "d", BTC, [at(0), at(1), at(4)])])
    day = Millis(NOON - NOON % 86_400_000)
    assert journal.lose("p", BTC, day, LATE, "p: gone") == 3
    assert journal.digests() == {}
    assert kinds(journal) == "GGEGGC"
    assert gaps(journal) == [(0, 2, "corrupt"), (3, 4, "unproven"), (4, 5, "corrupt")]
    assert journal.lose("p", BTC, day, LATE, "p: gone") == 0
    assert journal.commit([candle(0)], LATE).accepted == 1


def test_until_a_replacement_is_done_both_digests_are_known(journal):
    journal.commit([candle(0), candle(1)], LATE)
    journal.replacing({"p": "new"})
    assert journal.digest("p") == (None, "new")
    journal.replaced([("p", "new", BTC, [at(0)])])
    assert journal.digest("p") == ("new", None)
    assert [one.open_time for one in journal.waiting(BTC, Millis(NOON - NOON % 86_400_000))] == [at(1)]
    journal.replacing({"p": "newer"})
    assert journal.digest("p") == ("new", "newer")
    journal.not_replaced("p")
    assert journal.digest("p") == ("new", None)
    journal.replacing({"q": "first"})
    journal.not_replaced("q")
    assert journal.digest("q") == (None, None)


def test_what_waits_is_what_was_accepted(journal):
    midnight = 12 * 60
    offered = [
        candle(0, 10.1 + 0.2),
        candle(1, vwap=None, quote_volume=None, trades_count=None, source=Source.REST),
        candle(midnight, volume=0.0),
    ]
    journal.commit([offered[0], offered[1], empty(2, midnight), offered[2]], LATE)
    days = journal.waiting_days()
    assert days == [(BTC, at(-midnight)), (BTC, at(midnight))]
    assert [one for series, day in days for one in journal.waiting(series, day)] == offered


# --- the file


def test_what_was_committed_is_there_after_a_kill(tmp_path):
    path = tmp_path / "j"
    script = f"""
import os, signal, sys
sys.path[:0] = {[str(Path(__file__).parents[n]) for n in (1, 2)]!r}
from pathlib import Path
from directories import BTC
from journals import LATE, NOON, candle
from trio_candles.store.journal import Journal
journal = Journal.open(Path({str(path)!r}), lambda series, minute: None)
journal.expect([BTC], NOON, NOON)
journal.commit([candle(0)], LATE)
os.kill(os.getpid(), signal.SIGKILL) if hasattr(signal, "SIGKILL") else os._exit(1)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=60).returncode != 0
    with journal_in(path) as journal:
        assert kinds(journal) == "C"
        assert {**journal.meta(), "epoch": ""} == {"format": FORMAT, "latest_ms": str(LATE), "epoch": ""}


def test_at_rest_it_is_one_file_that_a_read_only_connection_reads(tmp_path):
    journal = Journal.open(tmp_path / "j", lambda series, minute: None)
    journal.expect([BTC], NOON, NOON)
    assert {path.name for path in tmp_path.iterdir()} == {"j", "j-wal", "j-shm"}
    journal.close()
    assert [path.name for path in tmp_path.iterdir()] == ["j"]
    reader = sqlite3.connect(f"file:{tmp_path / 'j'}?mode=ro", uri=True)
    assert reader.execute("SELECT count(*) FROM series").fetchone() == (1,)
    reader.close()


def test_each_commit_is_synced(journal, tmp_path):
    with journal_in(tmp_path / "j") as journal:
        assert rows(journal, "PRAGMA synchronous") == [(2,)]
        assert rows(journal, "PRAGMA fullfsync") == rows(journal, "PRAGMA checkpoint_fullfsync") == [(1,)]
        assert rows(journal, "PRAGMA journal_mode") == [("wal",)]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(b"this is no database at all" * 100),
        lambda path: path.write_bytes(path.read_bytes()[:4096] + bytes(len(path.read_bytes()) - 4096)),
        lambda path: path.write_bytes(path.read_bytes()[: len(path.read_bytes()) // 2]),
        lambda path: _in(path, "DELETE FROM meta"),
        lambda path: _in(path, "UPDATE series SET mark_ms = mark_ms + 1"),
        lambda path: _in(path, "UPDATE series SET mark_ms = 'x'"),
        lambda path: _in(path, "UPDATE series SET venue = CAST(x'ff' AS TEXT)"),
        lambda path: _in(path, "UPDATE gap SET until_ms = since_ms"),
        lambda path: _in(path, "UPDATE candle SET source = 'web8ocket'"),
        lambda path: _in(path, "UPDATE gap SET reason = 'unpsoven'"),
        lambda path: _in(path, "UPDATE gap SET state = 'opeo'"),
        lambda path: _in(path, "UPDATE revision SET offered = substr(offered, 2)"),
        lambda path: _in(path, "UPDATE revision SET offered = '[]'"),
        lambda path: _in(path, "UPDATE revision SET offered = replace(offered, 'close', 'clo3e')"),
        lambda path: _in(path, "UPDATE revision SET offered = replace(offered, 'websocket', 'web8ocket')"),
        lambda path: _in(path, "UPDATE revision SET offered = replace(offered, '200.0', '\"200.0\"')"),
        lambda path: _in(path, "UPDATE revision SET stored = substr(stored, 2)"),
    ],
    ids=[
        "text", "zeros", "half", "no format", "mark", "no number", "no text", "span",
        "source", "reason", "state", "offered", "offered no candle", "offered without a close", "offered by whom",
        "offered text", "stored",
    ],
)  # fmt: skip
def test_an_unsound_journal_is_said_to_be_broken(tmp_path, spoil):
    path = tmp_path / "j"
    journal = Journal.open(path, lambda series, minute: None)
    journal.expect([BTC], NOON, NOON)
    journal.commit([candle(0), unsure(1, 2), candle(0, 200.0)], LATE)
    journal.close()
    Journal.open(path, lambda series, minute: None).close()
    spoil(path)
    with pytest.raises(JournalBroken):
        Journal.open(path, lambda series, minute: None)


def test_any_damage_is_found_at_the_opening_or_does_no_harm(tmp_path):
    """SQLite has no checksums, so a wrong number can pass; but none may end every start from then on."""
    with journal_in(tmp_path / "sound") as journal:
        journal.expect([BTC], NOON, NOON)
        journal.commit([candle(0), unsure(1, 2), candle(2), empty(3, 9), candle(9)], LATE)
        journal.replacing({"p": "digest"})
        journal.close()
    sound, chance, broken = (tmp_path / "sound").read_bytes(), random.Random(1), 0
    for number in range(150):
        content = bytearray(sound)
        for _ in range(chance.choice([1, 8, 64])):
            content[chance.randrange(len(content))] = chance.randrange(256)
        (path := tmp_path / str(number)).write_bytes(content)
        try:
            with journal_in(path) as journal:
                journal.expect([BTC], NOON, at(20))
                _, mark = journal.spans()[BTC]
                journal.commit([attrs.evolve(candle(0), open_time=mark, close_time=mark + MINUTE)], Millis(mark + 1))
                for series, day in journal.waiting_days():
                    journal.waiting(series, day)
        except (JournalBroken, OtherFormat):
            broken += 1
    assert 20 < broken < 150


def test_a_journal_of_another_version_is_refused_and_not_called_broken(tmp_path):
    path = tmp_path / "j"
    Journal.open(path, lambda series, minute: None).close()
    _in(path, "UPDATE meta SET value = '99' WHERE key = 'format'")
    with pytest.raises(OtherFormat, match="format is 99"):
        Journal.open(path, lambda series, minute: None)


def test_a_journal_of_the_first_format_is_brought_up_and_keeps_what_it_says(tmp_path):
    path = tmp_path / "j"
    with journal_in(path) as journal:
        journal.expect([BTC], NOON, NOON)
        journal.commit([candle(0)], LATE)
    bring_down(path, "1")
    with journal_in(path) as journal:
        assert kinds(journal) == "C"
        assert journal.waiting(BTC, NOON_DAY) == [candle(0)]
        assert journal.meta()["format"] == FORMAT


def test_a_journal_of_the_second_format_is_brought_up_and_its_rows_get_checksums(tmp_path):
    path = tmp_path / "j"
    with journal_in(path) as journal:
        journal.expect([BTC], NOON, NOON)
        journal.commit([candle(0), candle(1)], LATE)
    bring_down(path, "2")
    for _ in range(2):
        with journal_in(path) as journal:
            assert journal.waiting(BTC, NOON_DAY) == [candle(0), candle(1)]
            assert journal.meta()["format"] == FORMAT


def test_a_journal_of_the_third_format_is_brought_up_and_nothing_in_it_waits(tmp_path):
    path = tmp_path / "j"
    with journal_in(path) as journal:
        journal.expect([BTC, ETH], NOON, NOON)
        journal.commit([candle(0), unsure(1, 4), candle(4), candle(0, 200.0)], LATE)
        journal.commit([Attempt(BTC, at(1), at(4), "no row"), Attempt(BTC, at(0), at(4), "", comparing=True)], LATE)
        columns = {"series": 8, "gap": 10, "revision": 7, "confirmed": 2}
        before = {table: rows(journal, f"SELECT * FROM {table}") for table in columns}
        said = kinds(journal)
    bring_down(path, "3")
    for _ in range(2):
        with journal_in(path) as journal:
            assert kinds(journal) == said
            assert journal.meta()["format"] == FORMAT
            assert rows(journal, "SELECT not_before_ms, rest_since_ms FROM gap") == [(0, None)]
            assert rows(journal, "SELECT not_before_ms FROM revision") == [(0,)]
            for table, width in columns.items():
                after = rows(journal, f"SELECT * FROM {table}")
                assert [row[:width] for row in after] == [row[:width] for row in before[table]]


@pytest.mark.parametrize("version", ["1", "2", "3", "4"])
def test_a_journal_of_an_older_format_is_known_to_be_unmended_and_a_new_one_is_not(tmp_path, version):
    path = tmp_path / "j"
    with journal_in(path) as journal:
        journal.expect([BTC], NOON, NOON)
        journal.commit([candle(0), unsure(1, 2)], LATE)
        assert UNMENDED not in journal.meta()
    bring_down(path, version)
    for _ in range(2):
        with journal_in(path) as journal:
            assert journal.meta()["format"] == FORMAT
            assert UNMENDED in journal.meta()
            assert kinds(journal) == "CG"


COLUMNS_OF_CANDLE = (
    "series_id", "open_ms", "open", "high", "low", "close", "volume", "quote_volume", "vwap", "trades_count", "source",
    "ingest_ms", "checksum",
)  # fmt: skip


@pytest.mark.parametrize("column", COLUMNS_OF_CANDLE)
def test_any_other_value_in_a_waiting_row_is_seen_at_the_start_and_when_it_is_read(tmp_path, column):
    path = tmp_path / "j"
    with journal_in(path) as journal:
        journal.expect([BTC, ETH], NOON, NOON)
        journal.commit([candle(0)], LATE)
    other = {
        "open_ms": f"open_ms + {MINUTE}", "series_id": "3 - series_id", "source": "'rest'", "trades_count": "1",
    }.get(column, f"{column} + 1")  # fmt: skip
    with journal_in(path) as journal:
        _in(path, f"UPDATE candle SET {column} = {other}")
        ((series, day),) = journal.waiting_days()
        with pytest.raises(LedgerBroken, match="does not match its checksum"):
            journal.waiting(series, day)
    with pytest.raises(JournalBroken, match="does not match its checksum"):
        Journal.open(path, lambda series, minute: None)


@pytest.mark.parametrize("volume", [5.0, 0.0, -0.0, 1e-300, 2.0**60])
def test_a_number_matches_its_checksum_however_sqlite_keeps_it(tmp_path, volume):
    with journal_in(tmp_path / "j") as journal:
        journal.expect([BTC], NOON, NOON)
        journal.commit([attrs.evolve(candle(0), volume=volume, quote_volume=volume, vwap=None, trades_count=0)], LATE)
        assert journal.waiting(BTC, NOON_DAY)[0].volume == volume


def test_a_journal_that_cannot_be_opened_now_is_not_called_broken(tmp_path):
    (tmp_path / "j").mkdir()
    with pytest.raises(sqlite3.OperationalError):
        Journal.open(tmp_path / "j", lambda series, minute: None)


def _in(path: Path, statement: str) -> None:
    database = sqlite3.connect(path, isolation_level=None)
    database.execute(statement)
    database.close()


def test_meta_is_remembered_and_forgotten(journal):
    journal.remember(kind="real", seed=7, stopped_at_ms=None)
    journal.remember(seed=None)
    assert journal.meta()["kind"] == "real"
    assert "seed" not in journal.meta()


# --- a ledger begun anew


def test_a_rebuilt_ledger_owes_what_lies_between_and_after_the_stored_minutes():
    with journal_in() as journal:
        assert journal.rebuild({"p": "d"}, {BTC: (at(0), [(at(2), at(4)), (at(6), at(7))])}, at(7)) == 4
        assert journal.digest("p") == ("d", None)
        assert journal.spans() == {BTC: (at(0), at(7))}
        assert gaps(journal) == [(0, 2, "ledger_lost"), (4, 6, "ledger_lost")]
        assert journal.meta()["latest_ms"] == str(at(7))
        assert journal.gaps.open_minutes(LATE) == {}  # until somebody expects it
        journal.expect([BTC], at(-1), at(9))
        assert gaps(journal) == [
            (-1, 0, "not_collected"), (0, 2, "ledger_lost"), (4, 6, "ledger_lost"), (7, 9, "ledger_lost"),
        ]  # fmt: skip
        journal.expect([BTC], at(-1), at(12))
        assert gaps(journal)[-1] == (9, 12, "collector_down")
