"""What a venue cannot serve any more is given up, and a market begins at the venue's first row; on two answers each."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import attrs
import pytest
import trio
from world import NOON, collecting

from trio_candles.candles.model import DAY, MINUTE, Empty, Millis, Series
from trio_candles.collector.horizon import FIRST, look_beyond
from trio_candles.simulator import Market
from trio_candles.store.gaps import Due
from trio_candles.venues.history import NOTHING, Filled, Missing, Using, Why
from trio_candles.venues.okx.history import OkxHistory
from trio_candles.venues.registry import VENUES

SERIES = Series("okx", "BTC-USDT")


def minute(n):
    return Millis(NOON + n * MINUTE)


@attrs.frozen
class Shallow(OkxHistory):
    """A venue with rows of *depth* ms, that names its markets and does not tell when they began."""

    depth: Millis | None
    anonymous = False
    tells_listing = False

    def fill(self, series, since, until, now, using=Using.ALL, heard=NOTHING):
        """Rows alone: the listing is not asked for."""
        return super().fill(series, since, until, now, Using.ROWS, heard)


def shallow(root, depth: int | None, lookback: int, market: Market | None = None):
    """The service against that venue, looking *lookback* minutes back; its *depth* is in minutes, too."""
    history = Shallow(None if depth is None else Millis(depth * MINUTE))
    venues = {"okx": attrs.evolve(VENUES["okx"], history=history)}
    return collecting(
        root, {"okx": (SERIES.symbol,)}, fill=True, lookback_days=lookback * MINUTE / DAY, venues=venues, market=market
    )


def rows(root, sql: str) -> list[tuple]:
    with closing(sqlite3.connect(root / "journal.sqlite3")) as database:
        return database.execute(sql).fetchall()


def minutes(root, state: str, before: int) -> list[int]:
    """The minutes before *before* that are gaps of *state*, counted from the start."""
    spans = rows(root, f"SELECT since_ms, until_ms FROM gap WHERE state = '{state}' ORDER BY since_ms")
    found = [(at - NOON) // MINUTE for since, until in spans for at in range(since, until, MINUTE)]
    return [one for one in found if one < before]


# --- beyond the depth


@pytest.mark.parametrize("seconds", [300, 1500])
async def test_what_is_beyond_the_documented_depth_is_unfillable_after_two_answers_ten_minutes_apart(
    autojump_clock, tmp_path, seconds
):
    """Of the documented 300 minutes the venue serves 200: the minutes inside that depth are asked for again."""
    async with shallow(tmp_path, 300, 400) as world:
        world.exchanges["okx"].faults.lose_row = lambda _, at: at < world.time.true_now() - 200 * MINUTE
        await trio.sleep(seconds)
    given_up = minutes(tmp_path, "unfillable", 0)
    assert given_up == list(range(-400, -400 + len(given_up)))
    assert (90 <= len(given_up) <= 99 + seconds // 60) if seconds > 600 else not given_up
    assert minutes(tmp_path, "open", -200) == list(range(-400 + len(given_up), -200))
    for (evidence,) in rows(tmp_path, "SELECT last_error FROM gap WHERE state = 'unfillable'"):
        assert evidence.count("beyond the depth that the venue documents") == 2


async def test_nothing_is_beyond_the_depth_of_a_venue_that_does_not_serve_its_newest_rows(autojump_clock, tmp_path):
    async with shallow(tmp_path, 300, 400) as world:
        faults = world.exchanges["okx"].faults
        faults.lose_row = lambda _, at: not -250 <= (at - world.time.true_now()) // MINUTE < -40
        await trio.sleep(1500)
    assert minutes(tmp_path, "unfillable", 99) == []
    assert minutes(tmp_path, "open", -300) == list(range(-400, -300))


async def test_nothing_is_beyond_the_depth_of_a_venue_that_documents_none(autojump_clock, tmp_path):
    async with shallow(tmp_path, None, 400) as world:
        world.exchanges["okx"].faults.lose_row = lambda _, at: at < minute(-200)
        await trio.sleep(1500)
    assert minutes(tmp_path, "unfillable", 99) == []


# --- the beginning


def began(root) -> int | None:
    """The listing, in minutes from the start, which is the first expected minute; ``None`` if there is none."""
    listings = rows(root, "SELECT since_ms FROM listing")
    assert listings in ([], rows(root, "SELECT first_ms FROM series"))
    return (listings[0][0] - NOON) // MINUTE if listings else None


@pytest.mark.parametrize(("seconds", "first"), [(300, None), (1500, -150)])
async def test_a_market_begins_at_the_oldest_row_of_two_answers_ten_minutes_apart(
    autojump_clock, tmp_path, seconds, first
):
    market = Market(7, {("okx", SERIES.symbol): minute(-150)})
    async with shallow(tmp_path, None, 400, market):
        await trio.sleep(seconds)
    assert began(tmp_path) == first
    assert minutes(tmp_path, "open", -150) == ([] if first else list(range(-400, -150)))
    assert minutes(tmp_path, "unfillable", 99) == []


async def test_a_market_that_began_where_a_page_ends_is_asked_about_beyond_that_page(autojump_clock, tmp_path):
    """Its oldest row is the first one after what is asked for, in each answer but the first."""
    market = Market(7, {("okx", SERIES.symbol): minute(0)})
    async with shallow(tmp_path, None, 100, market):
        await trio.sleep(1500)
    assert began(tmp_path) == 0


async def test_a_market_does_not_begin_where_the_depth_ends_within_the_day_before_its_oldest_row(
    autojump_clock, tmp_path
):
    market = Market(7, {("okx", SERIES.symbol): minute(-150)})
    async with shallow(tmp_path, 1440 + 100, 400, market):
        await trio.sleep(1500)
    assert began(tmp_path) is None
    assert minutes(tmp_path, "open", -150) == list(range(-400, -150))


async def test_a_market_does_not_begin_after_a_hole_in_its_rows(autojump_clock, tmp_path):
    """The hole is longer than the look-back, and shorter than a day."""
    async with shallow(tmp_path, None, 100) as world:
        world.exchanges["okx"].faults.lose_row = lambda _, at: minute(-800) <= at < minute(-50)
        await trio.sleep(1500)
        assert len(world.exchanges.exchanges["okx"].requests) < 60
    assert began(tmp_path) is None
    assert minutes(tmp_path, "open", -50) == list(range(-100, -50))


# --- what is asked


@attrs.define
class Record:
    """What a venue has, by the minute, and what it was asked; of a page it gives no minute beside the page."""

    rows: set[int]
    asked: list[tuple[int, int]] = attrs.field(factory=list)
    unreadable: int | None = None
    oldest: dict[Series, Millis] = attrs.field(factory=dict)

    async def ask(self, since: Millis, until: Millis) -> Filled:
        self.asked.append(((since - NOON) // MINUTE, (until - NOON) // MINUTE))
        asked = range((since - NOON) // MINUTE, (until - NOON) // MINUTE)
        known = [Empty(SERIES, minute(n), minute(n + 1), "zero row") for n in asked if n in self.rows]
        whys = {self.unreadable: Why.UNREADABLE}
        missing = [Missing(minute(n), minute(n + 1), whys.get(n, Why.NO_ROW)) for n in asked if n not in self.rows]
        return Filled((), tuple(known), tuple(missing))

    def looked(self, since: int, until: int) -> Filled:
        """What is concluded of a page that was asked for at noon."""
        page = Due(SERIES, minute(since), minute(until), fresh=False, tried=True)

        async def look() -> Filled:
            filled = await self.ask(page.since, page.until)
            self.asked.clear()
            return await look_beyond(Shallow(None), self.ask, self.oldest, page, filled, NOON)

        return trio.run(look)


@pytest.mark.parametrize("began", [-100, -60, -59, -50])
def test_the_first_row_is_one_in_the_page_or_the_first_after_it(began):
    record = Record(set(range(began, 0)))
    first = record.looked(-100, -60).first_row
    assert (first[0] if first else None) == (minute(began) if began == -60 else None)
    assert record.asked[:1] == ([] if began == -100 else [(-60, -30)])
    record = Record(set(range(began, 0)))
    assert record.looked(-110, -40).first_row == (minute(began), FIRST)
    assert record.asked[0][1] == began
    assert record.asked[-1][0] == began - 1440


def test_a_row_that_cannot_be_read_may_be_an_older_first_one():
    assert Record(set(range(-50, 0))).looked(-100, -10).first_row is not None
    assert Record(set(range(-50, 0)), unreadable=-900).looked(-100, -10).first_row is None


def test_a_series_of_which_older_rows_were_seen_is_asked_nothing_more_about_its_beginning():
    record = Record({*range(-900, -50), *range(-40, 0)})
    assert record.looked(-60, 0).first_row is None
    for _ in range(2):
        record.looked(-50, -20)
        record.looked(-45, -42)
        assert record.asked == []
