"""Who is stuck hides nobody who can be helped: many series of one venue, a ledger, and a venue that answers by rule."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import trio
from journals import NOON, at, candle, empty, journal_in, rows, unsure
from world import AdjustableTime

from trio_candles.candles.model import Attempt, Finding, Millis, Page, Reason, Series, Source
from trio_candles.collector.backlog import Backlog
from trio_candles.collector.confirm import Comparer
from trio_candles.collector.gapfill import Filler
from trio_candles.collector.status import VenueBoard
from trio_candles.collector.venue_state import OUTBOX_LIMIT, VenueState
from trio_candles.collector.vouching import Vouching
from trio_candles.store.gaps import Due
from trio_candles.venues.registry import VENUES


def series(venue: str, number: int, letter: str) -> list[Series]:
    return [Series(venue, f"{letter}{n:03}/USD") for n in range(number)]


async def ask_for(
    seconds: int, journal, venue: str, now: Millis, pace: float, answer: Callable[[float, Due], Finding | None]
) -> None:
    """Ask a venue at its *pace*, each answer in the ledger at once, for so long or until there is no *answer*."""
    filler, clock = Filler(Backlog(VENUES[venue].history)), AdjustableTime(now)
    look = 0.0
    while trio.current_time() < seconds:
        if trio.current_time() >= look:
            filler.backlog.look(journal, clock.now())
            look += 5
        page = filler.next_page(clock.now())
        if page is not None:
            finding = answer(trio.current_time(), page)
            if finding is None:
                return
            journal.commit([finding], clock.now())
            filler.backlog.look_again(journal, clock.now(), [finding])
            filler.backlog.release([finding])
        await trio.sleep(1 / pace)


async def test_500_symbols_that_are_refused_do_not_keep_200_others_from_being_filled_at_the_venues_pace(autojump_clock):
    """Each of the 510 has a gap that grows minute by minute, so that its end is always young."""
    refused, holes, filled = series("kraken", 510, "R"), series("kraken", 200, "H"), 0
    with journal_in() as journal:
        journal.expect([*refused, *holes], NOON, NOON)
        journal.commit([unsure(0, 60, Reason.DISCONNECTED, series=one) for one in holes], at(60))
        journal.commit([empty(60, 240, series=one) for one in holes], at(240))
        journal.commit([unsure(0, 240, Reason.REFUSED, series=one) for one in refused], at(240))

        minutes = iter(range(240, 10_000))

        def answer(second: float, page: Due) -> Finding | None:
            nonlocal filled
            if second % 60 == 0:
                minute = next(minutes)
                journal.commit([unsure(minute, minute + 1, Reason.REFUSED, series=one) for one in refused], at(minute))
            if page.series in refused:
                return Attempt(page.series, page.since, page.until, "UnknownSymbol")
            filled += 1
            done = Page(page.series, page.since, page.until, (), (empty(0, 60, series=page.series),))
            return None if filled == len(holes) else done

        await ask_for(3600, journal, "kraken", at(240), 1.0, answer)
        assert filled == len(holes)
    assert trio.current_time() <= 710  # each of all of them was asked about once at most


async def test_young_minutes_go_first_and_leave_a_quarter_of_the_questions_to_the_rest(autojump_clock):
    young, old = series("kraken", 300, "Y"), series("kraken", 20, "O")
    filler = Filler(Backlog(VENUES["kraken"].history))
    filler.backlog.due = {one: Due(one, at(150), at(160 + n % 9), True, False) for n, one in enumerate(young)}
    filler.backlog.due |= {one: Due(one, at(0), at(60), True, False) for one in old}
    asked = [filler.next_page(at(200)).series.symbol[0] for _ in range(40)]
    assert Counter(asked) == {"Y": 30, "O": 10}


async def test_one_hiccup_ends_no_wait_but_its_own(autojump_clock):
    """A hundred holes that nobody can fill, and every hundredth answer is an HTTP 502."""
    holes = series("okx", 100, "H")
    with journal_in() as journal:
        journal.expect(holes, NOON, NOON)
        journal.commit(
            [one for hole in holes for one in (unsure(0, 1, series=hole), empty(1, 90, series=hole))], at(90)
        )
        count, unwell, again = 0, {}, []

        def answer(second: float, page: Due) -> Finding:
            nonlocal count
            count += 1
            if page.series in unwell:
                again.append(second - unwell.pop(page.series))
            if count % 100 == 0:
                unwell[page.series] = second
            return Attempt(page.series, page.since, page.until, "HTTP 502", unwell=page.series in unwell)

        await ask_for(3600, journal, "okx", at(90), 0.5, answer)
    # 30 s, 60, 120, 240, 480 and then 600: nine or ten a hole, and one for each that was not answered.
    assert 100 * 8 < count < 100 * 10.5
    assert max(again) < 400  # nobody waits for anything but the turns of the others


async def test_50_products_with_empty_pages_do_not_keep_200_live_series_from_being_compared(autojump_clock):
    """Their candles have waited the longest, and will for ever."""
    closed, live = series("coinbase", 50, "C"), series("coinbase", 200, "L")
    with journal_in() as journal:
        journal.expect(closed, at(-600), at(-600))
        journal.commit([candle(-600, series=one) for one in closed], NOON)
        journal.expect([*closed, *live], NOON, NOON)
        journal.commit([candle(0, series=one) for one in live], at(1))
        comparer = Comparer(Backlog(VENUES["coinbase"].history))
        asked = Counter()
        for turn in range(int(0.8 * 60 * 20)):  # twenty minutes of a tenth of the venue's pace
            now = Millis(int(NOON + turn * 1000 / 0.8))
            comparer.backlog.look(journal, now)
            question = comparer.next_question(now)
            if question is not None:
                asked[question.series] += 1
                told = (candle(0, series=question.series, source=Source.REST),) if question.series in live else ()
                page = Page(question.series, question.since, question.until, told, (), comparing=True)
                journal.commit([page], now)
                comparer.backlog.release([page])
        compared = rows(journal, "SELECT count(*) FROM confirmed WHERE mark_ms > ?", NOON)
    assert compared == [(200,)]
    assert all(asked[one] == 1 for one in live)
    assert 2 <= max(asked[one] for one in closed) <= 3


async def test_a_question_that_failed_goes_behind_the_others(autojump_clock):
    some = series("coinbase", 3, "C")
    with journal_in() as journal:
        journal.expect(some, NOON, NOON)
        journal.commit([candle(0, series=one) for one in some], at(1))
        comparer = Comparer(Backlog(VENUES["coinbase"].history))
        asked = []
        for _ in range(4):
            comparer.backlog.look(journal, at(20))
            question = comparer.next_question(at(20))
            if question is not None:
                asked.append(question.series)
                answer = Attempt(question.series, question.since, question.until, "HTTP 500", comparing=True)
                journal.commit([answer], at(20))
                comparer.backlog.release([answer])
        assert sorted(asked) == some
        assert rows(journal, "SELECT max(attempts) FROM gap") == [(None,)]


async def test_of_a_series_one_question_is_under_way_until_the_ledger_knows_of_the_answer(autojump_clock):
    (one,) = series("okx", 1, "H")
    with journal_in() as journal:
        journal.expect([one], NOON, NOON)
        journal.commit([unsure(0, 2000, series=one)], at(2001))
        filler = Filler(Backlog(VENUES["okx"].history))
        filler.backlog.look(journal, at(2002))
        page = filler.next_page(at(2002))
        assert page is not None
        filler.backlog.look(journal, at(2002))
        assert filler.next_page(at(2002)) is None
        answers = [Page(one, page.since, page.until, (), (empty(0, 2000, series=one),))]
        journal.commit([Page(one, page.since, page.until, (), (), comparing=True), *answers], at(2002))
        filler.backlog.release([Page(one, page.since, page.until, (), (), comparing=True)])
        assert filler.next_page(at(2002)) is None  # that was another question
        filler.backlog.look_again(journal, at(2002), answers)
        filler.backlog.release(answers)
        assert filler.next_page(at(2002)) is None  # and now there is nothing left
        assert not filler.backlog.busy


async def test_an_answer_that_is_given_up_for_want_of_room_still_releases_its_series(autojump_clock):
    """What it proved is asked for again."""
    (one,) = series("okx", 1, "H")
    state = VenueState(VenueBoard("okx"), {}, Vouching(AdjustableTime(NOON), vouched=True))
    proved = Page(one, at(0), at(5), (candle(0, series=one),), (empty(1, 5, series=one),), listed=(at(0), "x"))
    state.add([proved, Attempt(one, at(5), at(6), "no row")])
    state.put([candle(10 + n, series=one) for n in range(OUTBOX_LIMIT)])
    left = [outcome for outcome in state.take() if isinstance(outcome, (Page, Attempt))]
    assert left == [Page(one, at(0), at(5), (), ()), Attempt(one, at(5), at(6), "no row")]
