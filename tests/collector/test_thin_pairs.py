"""Pairs that trade a few times a day: no minute of theirs waits for the next trade to be known."""

from __future__ import annotations

import pytest
import trio
from world import check_against_truth, collecting

from trio_candles.candles.model import MINUTE, Series
from trio_candles.simulator import Market

ALLOWED = 5 * MINUTE
WRITES = {"coinbase": "SIM{:03}-USD", "kraken": "SIM{:03}/USD", "okx": "SIM{:03}-USDT"}
PER_DAY = (1, 16, 24, 48, 96, 144)
"""A trade every ten to ninety minutes; and one a day, so that many a day has none."""


def thin_pairs(count: int) -> tuple[dict[str, tuple[str, ...]], Market]:
    """So many thin pairs of each venue, and their market."""
    symbols = {venue: tuple(form.format(n) for n in range(count)) for venue, form in WRITES.items()}
    per_day = {
        (venue, symbol): PER_DAY[n % len(PER_DAY)] for venue, some in symbols.items() for n, symbol in enumerate(some)
    }
    return symbols, Market(11, per_day=per_day)


def open_minutes(world) -> dict[str, int]:
    """Open minutes that ended over five minutes ago, or have no verdict at all, by series."""
    ended = world.time.now() - ALLOWED
    rows = world.store.journal._db.execute(
        "SELECT venue || ' ' || symbol, sum((min(until_ms, ?) - since_ms) / 60000) FROM gap"
        " JOIN series ON series.id = series_id WHERE state = 'open' AND since_ms + 60000 <= ? GROUP BY 1",
        (ended // MINUTE * MINUTE, ended),
    ).fetchall()
    return dict(rows)


SLOW = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.mark.parametrize(
    ("count", "minutes", "omitted"),
    [
        (2, 10, False),
        (2, 10, True),
        pytest.param(6, 10, False, marks=SLOW),
        pytest.param(6, 10, True, marks=SLOW),
        pytest.param(100, 10, False, marks=SLOW),
        # Without its rows a record costs two questions where one would do: that many pairs are within the limits.
        pytest.param(40, 5, True, marks=SLOW),
    ],
)
async def test_ten_minutes_after_the_start_no_minute_of_a_thin_pair_is_open_for_long(
    autojump_clock, tmp_path, count, minutes, omitted
):
    """With a day to look back on, and from then on; whether or not a record has rows for minutes without trades."""
    symbols, market = thin_pairs(count)
    async with collecting(tmp_path, symbols, fill=True, lookback_days=1, market=market) as world:
        world.exchanges["kraken"].faults.omit_empty_rows = omitted
        for minute in range(10, 10 + minutes + 1):
            await trio.sleep(minute * 60 - trio.current_time())
            assert open_minutes(world) == {}, f"after {minute} minutes"
    for venue, some in symbols.items():
        for symbol in some:
            counts = check_against_truth(tmp_path, market, Series(venue, symbol))
            assert counts["gap"] <= 6, symbol
