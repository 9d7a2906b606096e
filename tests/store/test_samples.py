"""What the ledger samples of the minutes that rows filled, and what it makes of the trades' answer."""

from __future__ import annotations

import pytest
from directories import BTC, bring_down
from journals import LATE, NOON, Watched, at, candle, empty, journal_in, rows, unsure
from pages import NOW, page, rest

from trio_candles.candles.model import MINUTE, Attempt, Candle, Series
from trio_candles.store.samples import TRIES, WAIT, WAITING, chosen

FILLED = 150
"""Minutes from noon that one page of rows fills."""


@pytest.fixture
def journal():
    with journal_in() as journal:
        journal.expect([BTC], NOON, NOON)
        journal.commit([unsure(0, FILLED), candle(FILLED)], at(FILLED + 1))
        yield journal


def row(minute: int, price: float = 100.0, **changes) -> Candle:
    return candle(minute, price, source=rest(0).source, ingest_time=NOW, trades_count=None, vwap=None, **changes)


def filled(journal: Watched, wrong=(), since: int = 0, until: int = FILLED) -> list[int]:
    """Fill a page of rows, the *wrong* ones with another price; the sampled minutes, counted from noon."""
    told = [row(m, 55.0 if m in wrong else 100.0) for m in range(since, until)]
    journal.commit([page(since, until, *told, sampled=True)], NOW)
    return sampled(journal)


def sampled(journal: Watched) -> list[int]:
    found = rows(journal, "SELECT minute_ms FROM sample WHERE minute_ms IS NOT NULL ORDER BY minute_ms")
    return [(minute - NOON) // MINUTE for (minute,) in found]


def due(journal: Watched, now: int = NOW) -> list[tuple[int, int]]:
    """What is to be asked about, in minutes from noon."""
    return [((one.since - NOON) // MINUTE, (one.until - NOON) // MINUTE) for one in journal.samples.due("okx", now)]


def by_trades(since: int, until: int, *told: Candle, **words):
    return page(since, until, *told, comparing=True, sampled=True, **words)


def outcomes(journal: Watched) -> dict[str, int]:
    return dict(rows(journal, "SELECT outcome, count FROM confirmation WHERE outcome LIKE '%sampled%'"))


MINUTES = chosen(BTC, [at(m) for m in range(FILLED)])
ONE = (MINUTES[0] - NOON) // MINUTE


def test_of_each_page_of_rows_some_minutes_are_sampled_and_always_the_same(journal):
    assert filled(journal) == [(minute - NOON) // MINUTE for minute in MINUTES]
    assert chosen(BTC, [at(7)]) == [at(7)]
    assert 20 <= len(chosen(BTC, [at(m) for m in range(3000)])) <= 40


def test_what_trades_filled_is_not_sampled_nor_a_venue_whose_rows_need_none(journal):
    journal.commit([page(0, 5, *(rest(m) for m in range(5)), sampled=True)], NOW)
    journal.commit([page(5, 10, *(row(m) for m in range(5, 10)))], NOW)
    assert not rows(journal, "SELECT * FROM sample")


@pytest.mark.parametrize("wrong", [{"price": 55.0}, {"volume": 2.6}], ids=["the price", "the volume alone"])
def test_a_sampled_row_that_differs_is_replaced_once_trades_said_so_twice_and_its_page_is_rebuilt(journal, wrong):
    told = [row(m, **wrong) if m in (ONE, ONE + 9) else row(m) for m in range(FILLED)]
    journal.commit([page(0, FILLED, *told, sampled=True)], NOW)
    first = journal.commit([by_trades(ONE, ONE + 1, rest(ONE))], NOW)
    assert first.conflicts == [(told[ONE], rest(ONE))]
    assert outcomes(journal) == {"sampled_differed": 1}
    assert due(journal)[0] == (0, FILLED)
    journal.commit([by_trades(0, FILLED, *(rest(m) for m in range(FILLED)))], NOW)
    assert due(journal) == []
    later = NOW + 60_000
    doubts = [doubt.minute for doubt in journal.revisions.doubtful("okx", LATE)]
    assert doubts == [at(ONE), at(ONE + 9)]
    for minute in (ONE, ONE + 9):
        journal.commit([by_trades(minute, minute + 1, rest(minute, asked=later))], later)
        assert journal.stored(BTC, at(minute)) == rest(minute, asked=later)
    assert rows(journal, "SELECT DISTINCT outcome FROM revision") == [("replaced",)]
    again = [one for one in told if one.open_time in doubts]
    assert not journal.commit([page(0, FILLED, *again, conclusive=False)], LATE).conflicts  # the row is no news


def test_a_sampled_row_that_is_what_its_trades_say_agrees_and_stays(journal):
    (one, *_) = filled(journal)
    judged = journal.commit([by_trades(one, one + 1, rest(one))], NOW)
    assert not judged.conflicts
    assert judged.compared == {("okx", "sampled_agreed"): 1}
    assert one not in sampled(journal)
    assert journal.stored(BTC, at(one)) == row(one)


def test_a_wrong_row_beside_a_sampled_one_has_its_page_rebuilt_and_does_not_count(journal):
    filled(journal, wrong=[ONE + 1])
    journal.commit([by_trades(ONE, ONE + 1, rest(ONE), rest(ONE + 1))], NOW)
    assert outcomes(journal) == {"sampled_agreed": 1}
    assert due(journal)[0] == (0, FILLED)


def test_a_row_of_a_minute_in_which_nothing_traded_has_its_page_rebuilt(journal):
    filled(journal)
    journal.commit([by_trades(ONE, ONE + 1, empties=[empty(-10_000, 20_000)])], NOW)
    assert outcomes(journal) == {"sampled_differed": len(sampled_in(ONE, ONE + 1))}
    assert due(journal)[0] == (0, FILLED)


def sampled_in(since: int, until: int) -> list[int]:
    return [minute for minute in MINUTES if at(since) <= minute < at(until)]


def test_a_page_is_rebuilt_from_its_newest_part_on_as_far_as_each_question_reaches(journal):
    filled(journal, wrong=range(FILLED))
    journal.commit([by_trades(ONE, ONE + 1, rest(ONE))], NOW)
    journal.commit([by_trades(0, FILLED, *(rest(m) for m in range(100, FILLED)))], NOW)
    assert due(journal)[0] == (0, 100)
    journal.commit([by_trades(0, 100, *(rest(m) for m in range(40, 60)), *(rest(m) for m in range(70, 100)))], NOW)
    assert due(journal)[0] == (0, 40)
    for told in range(TRIES):
        assert (0, 40) in due(journal, NOW + told * WAIT)
        journal.commit([by_trades(0, 40)], NOW + told * WAIT)
    assert (0, 40) not in due(journal, LATE)
    differed = rows(journal, "SELECT count(*) FROM revision WHERE outcome = 'open'")
    assert differed == [(FILLED - 40 - 10 + (ONE < 40 or 60 <= ONE < 70),)]


def test_a_minute_without_an_answer_waits_and_counts_as_unanswered_after_three(journal):
    filled(journal)
    now = NOW
    for _ in range(TRIES):
        assert (ONE, ONE + 1) in due(journal, now)
        journal.commit([Attempt(BTC, at(ONE), at(ONE + 1), "HTTP 503", comparing=True)], now)
        assert (ONE, ONE + 1) not in due(journal, now + WAIT - 1)
        now += WAIT
    assert outcomes(journal) == {"sampled_unanswered": 1}
    assert ONE not in sampled(journal)


def test_an_answer_about_something_else_is_no_attempt(journal):
    before = filled(journal)
    journal.commit([Attempt(BTC, at(0), at(FILLED), "HTTP 503", comparing=True)], NOW)
    journal.commit([page(0, FILLED, row(ONE), comparing=True, conclusive=False, sampled=True)], NOW)
    assert sampled(journal) == before
    assert (ONE, ONE + 1) in due(journal)


def test_so_many_samples_of_a_series_wait_and_no_more_and_the_others_are_counted(journal):
    for minute in range(30):
        filled(journal, since=minute, until=minute + 1)
    assert sampled(journal) == list(range(30 - WAITING, 30))
    assert outcomes(journal) == {"not_sampled": 30 - WAITING}


def test_a_series_that_is_not_expected_any_more_is_not_asked_about(journal):
    filled(journal)
    journal.expect([Series("okx", "ETH-USDT")], NOON, NOW)
    assert due(journal) == []


def test_an_unconfirmed_live_candle_in_a_page_whose_trades_were_not_reached_is_still_to_be_compared(journal):
    filled(journal)
    judged = journal.commit([by_trades(0, FILLED + 1, rest(100))], LATE)
    assert judged.compared["okx", "unanswered"] == 0
    assert journal.revisions.mark(1) == at(FILLED)


def test_samples_are_in_the_ledger_and_an_older_ledger_has_none(tmp_path):
    path = tmp_path / "journal.sqlite3"
    with journal_in(path) as journal:
        journal.expect([BTC], NOON, NOON)
        journal.commit([unsure(0, FILLED)], at(FILLED))
        before = filled(journal)
    with journal_in(path) as journal:
        assert sampled(journal) == before != []
    bring_down(path, "4")
    with journal_in(path) as journal:
        assert sampled(journal) == []
