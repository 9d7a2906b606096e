"""Of the minutes that rows filled, a sample is rebuilt from trades: where row and trades differ, the trades decide."""

from __future__ import annotations

import json
import random
import sqlite3
from collections import Counter

import pytest
import trio
from journals import at, candle, journal_in, unsure
from world import NOON, check_against_truth, collecting, rows_on_disk

from trio_candles.audit.tool import main as audit_main
from trio_candles.candles.model import MINUTE, Page, Series, Source
from trio_candles.collector.backlog import Backlog
from trio_candles.collector.confirm import Comparer, keep_comparing
from trio_candles.network.pacing import Backoff
from trio_candles.simulator import FOREVER, RestFault
from trio_candles.store.revisions import Unconfirmed
from trio_candles.store.samples import Sample, chosen
from trio_candles.venues.history import NOTHING, Answer, Filled, Request, Using
from trio_candles.venues.registry import VENUES

BTC, ETH = Series("coinbase", "BTC-USD"), Series("coinbase", "ETH-USD")
LOOKBACK = 0.2
"""In days: 288 minutes, a page or two of rows."""
START = NOON - 18 * 60 * MINUTE
"""BTC trades in each of the minutes before, so that its rows alone fill them."""
BACKFILLED = range(START - 280 * MINUTE, START - 10 * MINUTE, MINUTE)
SAMPLED = chosen(BTC, BACKFILLED)[0]
"""A minute that is sampled in whichever page it comes."""


def query(root, sql):
    database = sqlite3.connect(root / "journal.sqlite3")
    try:
        return database.execute(sql).fetchall()
    finally:
        database.close()


def outcomes(root):
    """What sampling came to, in minutes."""
    return dict(query(root, "SELECT outcome, count FROM confirmation WHERE outcome LIKE '%sampled%'"))


async def sleep_until(seconds):
    await trio.sleep(seconds - trio.current_time())


def backfilling(root, series=BTC, epoch=START, **options):
    return collecting(root, {series.venue: (series.symbol,)}, epoch=epoch, fill=True, lookback_days=LOOKBACK, **options)


async def test_a_row_that_its_trades_deny_is_revised_and_so_is_all_of_its_page(autojump_clock, tmp_path):
    wrong = {SAMPLED, SAMPLED - 40 * MINUTE, SAMPLED - 39 * MINUTE, SAMPLED + 25 * MINUTE}
    async with backfilling(tmp_path, timeframes=("5m",)) as world:
        world.exchanges["coinbase"].faults.revise_row = lambda _, at: at in wrong
        await sleep_until(62)
        before = rows_on_disk(tmp_path, BTC)
        true = {minute: float(world.market.candle("coinbase", "BTC-USD", minute).volume) for minute in wrong}
        assert {minute: before[minute]["volume"] for minute in wrong} == {m: 2 * true[m] for m in wrong}
        await sleep_until(15 * 60)
        assert world.service.board.venues["coinbase"].compared["differed"] == 0  # CONF is about live candles
    check_against_truth(tmp_path, world.market, BTC)
    after = rows_on_disk(tmp_path, BTC)
    assert all(after[minute]["trades_count"] and after[minute]["source"] == "rest" for minute in wrong)
    for minute in before.keys() - wrong:
        assert after[minute] == before[minute]  # an equal candle never changes the stored row
    revisions = query(tmp_path, "SELECT open_ms, stored, offered, outcome FROM revision")
    assert {minute for minute, *_ in revisions} == wrong
    assert len(revisions) == len(wrong)  # the row comes again with every page, and says nothing new
    for minute, stored, offered, outcome in revisions:
        volumes = (json.loads(stored)["volume"], json.loads(offered)["volume"])
        assert (volumes, outcome) == ((2 * true[minute], true[minute]), "replaced")
    assert outcomes(tmp_path)["sampled_differed"] == 1
    assert not query(tmp_path, "SELECT * FROM sample")
    assert audit_main(["--data-dir", str(tmp_path)]) == 0


async def test_rows_that_are_what_their_trades_say_agree(autojump_clock, tmp_path):
    async with backfilling(tmp_path, ETH) as world:
        await sleep_until(600)
    check_against_truth(tmp_path, world.market, ETH)
    assert outcomes(tmp_path).keys() == {"sampled_agreed"}
    assert outcomes(tmp_path)["sampled_agreed"] >= 1
    assert not query(tmp_path, "SELECT * FROM revision")
    assert not query(tmp_path, "SELECT * FROM sample")


async def test_a_wrong_row_that_is_not_sampled_stays_which_is_what_the_rate_is_for(autojump_clock, tmp_path):
    async with backfilling(tmp_path) as world:
        world.exchanges["coinbase"].faults.revise_row = lambda _, at: at == SAMPLED - 100 * MINUTE
        await sleep_until(600)
    assert rows_on_disk(tmp_path, BTC)[SAMPLED - 100 * MINUTE]["trades_count"] is None
    assert outcomes(tmp_path).keys() == {"sampled_agreed"}
    assert not query(tmp_path, "SELECT * FROM revision")


@pytest.mark.slow
async def test_a_sample_without_an_answer_waits_and_is_counted_in_the_end(autojump_clock, tmp_path):
    async with backfilling(tmp_path) as world:
        await sleep_until(1)
        world.exchanges["coinbase"].faults.rest.append(RestFault("status", path="/trades", times=FOREVER))
        await sleep_until(600)
        waiting = query(tmp_path, "SELECT minute_ms FROM sample")
        assert (SAMPLED,) in waiting
        assert not outcomes(tmp_path)
        await sleep_until(2 * 3600)
        assert (SAMPLED,) not in query(tmp_path, "SELECT minute_ms FROM sample")
        assert outcomes(tmp_path)["sampled_unanswered"] >= len(waiting)
    assert rows_on_disk(tmp_path, BTC)[SAMPLED]["trades_count"] is None


@pytest.mark.slow
@pytest.mark.parametrize(
    "stopped_after", [40, 12, 75], ids=["unanswered", "once it differed", "while its page is rebuilt"]
)
async def test_a_sample_outlives_the_collector(autojump_clock, tmp_path, stopped_after):
    wrong = {SAMPLED, SAMPLED + 20 * MINUTE}
    async with backfilling(tmp_path) as world:
        faults = world.exchanges["coinbase"].faults
        faults.revise_row = lambda _, at: at in wrong
        if stopped_after == 40:
            faults.rest.append(RestFault("status", path="/trades", times=FOREVER))
        await sleep_until(stopped_after)
    assert query(tmp_path, "SELECT * FROM sample") or query(tmp_path, "SELECT * FROM revision WHERE outcome = 'open'")
    async with backfilling(tmp_path) as world:
        world.exchanges["coinbase"].faults.revise_row = lambda _, at: at in wrong
        await sleep_until(stopped_after + 40 * 60)
    check_against_truth(tmp_path, world.market, BTC)
    assert outcomes(tmp_path)["sampled_differed"] == 1


def test_a_stored_row_that_the_feed_denies_is_asked_about_by_trades_and_not_by_the_row_again():
    """The row would repeat itself, whatever the trades say."""
    row = candle(0, 55.0, BTC, trades_count=None, source=Source.REST)
    with journal_in() as journal:
        journal.expect([BTC], at(0), at(0))
        journal.commit([unsure(0, 1, series=BTC)], at(1))
        journal.commit([Page(BTC, at(0), at(1), (row,), ())], at(2))
        journal.commit([candle(0, series=BTC)], at(3))
        journal.commit([Page(BTC, at(0), at(1), (row,), (), conclusive=False)], at(4))
        comparer = Comparer(Backlog(VENUES["coinbase"].history))
        comparer.backlog.look(journal, at(20))
        question = comparer.next_question(at(20))
        assert question is not None
        assert (question.since, question.using, question.conclusive) == (at(0), Using.TRADES, True)


def test_samples_take_what_others_leave_and_a_tenth_at_least():
    comparer = Comparer(Backlog(VENUES["coinbase"].history))
    others = [Series("coinbase", f"X{n}-USD") for n in range(300)]
    comparer.backlog.unconfirmed = [Unconfirmed(one, at(0)) for one in others]
    comparer.backlog.samples = [Sample(Series("coinbase", f"Y{n}-USD"), at(0), at(1)) for n in range(300)]
    spent = Counter()
    while sum(spent.values()) < 200:
        question = comparer.next_question(at(100))
        cost = 9 if question.is_sample else 1
        comparer.has_taken(question, cost)
        spent[question.is_sample] += cost
    assert 20 <= spent[True] <= 29
    comparer.backlog.unconfirmed = []
    assert all(comparer.next_question(at(100)).is_sample for _ in range(20))


class FortyRequests:
    """A venue whose every answer about trades takes as many requests as a question may."""

    name, anonymous, sampled = "coinbase", False, True

    def fill(self, *_):
        for _ in range(40):
            yield Request("/trades", {}, "public")
        return Filled((), (), ())


class Peer:
    """A venue's REST and state in one, which notes what is asked and heard."""

    def __init__(self):
        self.asked, self.found = 0, []

    def pace(self):
        return 8.0

    async def ask(self, request):
        await trio.lowlevel.checkpoint()
        self.asked += request.weight
        return Answer(200, b"")

    async def room(self):
        await trio.lowlevel.checkpoint()
        return at(100)

    def heard(self, _):
        return NOTHING

    def answered(self, _, unclear):
        assert not unclear

    def reject(self, rejected):
        assert not rejected

    add = property(lambda self: self.found.extend)


async def test_comparing_takes_a_tenth_of_the_pace_whatever_a_sample_costs(autojump_clock):
    peer, backlog = Peer(), Backlog(FortyRequests())
    backlog.samples = [Sample(Series("coinbase", f"Y{n}-USD"), at(0), at(1)) for n in range(1000)]
    with trio.move_on_after(1000):
        await keep_comparing(backlog, peer, peer, Backoff(random.Random(1)))
    assert 0.09 * 8 * 1000 <= peer.asked <= 0.1 * 8 * 1000 + 40
    assert len(peer.found) == peer.asked / 40
