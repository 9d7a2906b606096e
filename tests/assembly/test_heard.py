"""What an assembler has heard, as evidence for the answers of REST: never more than the venue said."""

from __future__ import annotations

from decimal import Decimal

import pytest

from trio_candles.assembly import Assembler, assembler_for
from trio_candles.candles.model import MINUTE, Millis, Series, Trade
from trio_candles.venues.history import NOTHING, Heard
from trio_candles.venues.protocol import Forming, Heartbeat, Traded, TradeSeen
from trio_candles.venues.registry import VENUES

NOON = 1_768_046_400_000
SYMBOL = "X-USD"


def made(venue: str) -> Assembler:
    one = assembler_for(VENUES[venue].proof, Series(venue, SYMBOL), Millis(NOON))
    one.connected(Millis(NOON))
    return one


def hear(one: Assembler, *events: Traded | TradeSeen | Heartbeat) -> Heard:
    for event in events:
        one.hear(event, Millis(NOON + 10 * MINUTE))
    return one.heard()


def trade(id: int, seconds: float) -> Trade:
    return Trade(id, Millis(NOON + round(seconds * 1000)), Decimal(100), Decimal(1))


def traded(id: int, seconds: float) -> Traded:
    return Traded(SYMBOL, trade(id, seconds))


def beat(id: int, seconds: float) -> Heartbeat:
    return Heartbeat(SYMBOL, Millis(NOON + round(seconds * 1000)), id)


def seen(id: int, seconds: float) -> TradeSeen:
    return TradeSeen(SYMBOL, id, Millis(NOON + round(seconds * 1000)))


# --- trades and heartbeats ----------------------------------------------------------------------------------


def test_the_newest_trade_is_told_though_its_minute_was_long_forgotten():
    """It is an hour old, and repeated at the subscription; heartbeats name it from then on."""
    heard = hear(made("coinbase"), traded(42, -3600), beat(42, 60), beat(42, 120))
    assert heard == Heard((trade(42, -3600),), 42, Millis(NOON + 120_000))


def test_trades_are_told_back_to_the_first_hole_among_their_ids():
    heard = hear(made("coinbase"), traded(40, 1), traded(42, 3), traded(43, 3), traded(44, 70))
    assert [one.trade_id for one in heard.trades] == [42, 43, 44]
    assert heard.newest == 0, "no heartbeat has named it"


def test_a_hole_that_is_filled_later_is_none():
    heard = hear(made("coinbase"), traded(40, 1), traded(42, 3), traded(41, 2))
    assert [one.trade_id for one in heard.trades] == [40, 41, 42]


@pytest.mark.parametrize(
    ("beats", "newest", "seconds"),
    [
        ([(0, 60)], 0, None),  # as the venue once did for months
        ([(41, 60)], 0, None),
        ([(42, 60), (41, 61)], 42, 60),
        ([(43, 60)], 43, 60),  # a trade that is on its way, or lost: REST may have it
        ([(10**9, 60), (42, 61)], 42, 61),
        ([(42, 10_000)], 0, None),  # far ahead of our clock
    ],
)
def test_a_heartbeat_counts_if_it_names_no_older_trade_than_was_heard(beats, newest, seconds):
    heard = hear(made("coinbase"), traded(42, 30), *(beat(*one) for one in beats))
    assert (heard.newest, heard.quiet_until) == (newest, NOON + seconds * 1000 if seconds else 0)


def test_a_heartbeat_counts_where_no_trade_was_ever_heard():
    assert hear(made("coinbase"), beat(42, 60)) == Heard((), 42, Millis(NOON + 60_000))


def test_of_a_busy_product_a_few_trades_are_told():
    heard = hear(made("coinbase"), *(traded(id, id / 10) for id in range(1, 3_000)))
    assert 64 <= len(heard.trades) <= 64 + 600
    assert [one.trade_id for one in heard.trades] == list(range(3_000 - len(heard.trades), 3_000))


# --- ids alone ----------------------------------------------------------------------------------------------


def test_the_newest_id_is_known_while_there_is_a_connection():
    one = made("kraken")
    assert hear(one, seen(41, -3600), seen(42, -60)) == Heard((seen(41, -3600), seen(42, -60)), 42)
    one.disconnected(Millis(NOON + 11 * MINUTE))
    assert one.heard() == Heard((seen(41, -3600), seen(42, -60)), 0)
    one.connected(Millis(NOON + 12 * MINUTE))
    one.refused("not supported")
    assert one.heard().newest == 0


def test_ids_are_told_back_to_the_first_hole_in_whatever_order_they_came():
    heard = hear(made("kraken"), seen(44, 4), seen(40, 1), seen(43, 3), seen(42, 2))
    assert [one.trade_id for one in heard.trades] == [42, 43, 44]
    assert heard.newest == 44


def test_of_a_busy_pair_the_newest_ids_are_told():
    heard = hear(made("kraken"), *(seen(id, id / 10) for id in range(1, 3_000)))
    assert [one.trade_id for one in heard.trades] == list(range(2_936, 3_000))


# --- none of it ---------------------------------------------------------------------------------------------


def test_a_feed_that_the_venue_calls_into_question_is_no_evidence():
    one = made("kraken")
    hear(one, seen(42, -60))
    one.doubted("system maintenance")
    assert one.heard() == NOTHING
    one.doubted(None)
    assert one.heard().newest == 42


def test_a_feed_of_stated_closes_knows_no_ids():
    one = made("okx")
    one.hear(Forming(SYMBOL), Millis(NOON))
    assert one.heard() == NOTHING
