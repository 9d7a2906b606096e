"""A venue's nursery against simulated exchanges: what goes wrong on a feed, and what follows, at exact times."""

from __future__ import annotations

import json
import logging
from itertools import pairwise

import attrs
import pytest
import trio
from world import NOON, ONE_EACH, SYMBOLS, check_against_truth, collecting, ledger, rows_on_disk

from trio_candles.candles.model import MINUTE, Millis, Series
from trio_candles.collector.feed import leaves, watch
from trio_candles.collector.status import VenueBoard
from trio_candles.collector.subscriptions import Feed
from trio_candles.collector.venue_state import VenueState
from trio_candles.collector.vouching import Vouching
from trio_candles.network.websocket import Network
from trio_candles.simulator import Market, SimulatedExchange
from trio_candles.venues.coinbase.feed import Coinbase
from trio_candles.venues.kraken.feed import Kraken
from trio_candles.venues.protocol import Acked, Heartbeat, Notice
from trio_candles.venues.registry import VENUES

BTC = Series("coinbase", "BTC-USD")
COINBASE = {"coinbase": ("BTC-USD", "ETH-USD")}
KRAKEN = {"kraken": ("BTC/USD", "ETH/USD")}
OKX = {"okx": ("BTC-USDT", "ETH-USDT")}


SLOW = pytest.mark.slow


def minute(n: int) -> int:
    """The open time of the n-th minute of the test."""
    return NOON + n * MINUTE


def lived(exchange: SimulatedExchange) -> list[tuple[float, float | None]]:
    """When each connection was made and closed, in seconds of the test."""
    return [
        ((one.connected_at - NOON) / 1000, None if one.closed_at is None else (one.closed_at - NOON) / 1000)
        for one in exchange.connections
    ]


async def sleep_until(seconds: float) -> None:
    """Until that many seconds of the test have passed."""
    await trio.sleep(seconds - trio.current_time())


# --- losing and finding connections -----------------------------------------------------------------------


async def test_a_dropped_connection_is_made_again_and_a_quick_one_costs_coinbase_no_minute(autojump_clock, tmp_path):
    """Trade ids prove the minute in which the connection was lost and found, if no trade was missed."""
    async with collecting(tmp_path, {"coinbase": ("SOL-USD",)}, seed=3) as world:
        await sleep_until(600)
        world.exchanges["coinbase"].drop_connections()
        await sleep_until(900)
        board = world.service.board.venues["coinbase"]
        assert board.reconnects == 1
    first, second = lived(world.exchanges["coinbase"])
    assert first[1] == pytest.approx(600, abs=0.01)
    assert 0.4 < second[0] - 600 < 1.2
    gaps = _gaps(tmp_path, Series("coinbase", "SOL-USD"))
    assert minute(9) not in gaps
    assert minute(10) not in gaps


def _gaps(root, series):
    with ledger(root) as books:
        return books.gaps(series)


@pytest.mark.parametrize("symbols", [COINBASE, KRAKEN, OKX], ids=["coinbase", "kraken", "okx"])
async def test_an_outage_makes_gaps_of_the_minutes_it_touched_and_of_no_other(autojump_clock, tmp_path, symbols):
    (name,) = symbols
    async with collecting(tmp_path, symbols) as world:
        await sleep_until(605)
        world.exchanges[name].faults.refuse_connections = True
        world.exchanges[name].drop_connections()
        await sleep_until(905)
        assert world.service.board.venues[name].status(world.time.now()) == "[DISC]"
        # Every minute without connection is a gap; Kraken's snapshots, proven by ids, may close them later.
        for symbol in symbols[name]:
            opened = _gaps(tmp_path, Series(name, symbol))
            assert all(opened[minute(n)] == "disconnected" for n in range(11, 14))
        world.exchanges[name].faults.refuse_connections = False
        await sleep_until(1320)
    for symbol in symbols[name]:
        series = Series(name, symbol)
        check_against_truth(tmp_path, world.market, series)
        gaps = _gaps(tmp_path, series)
        during = {m for m in gaps if minute(10) <= m < minute(17)}
        assert set(gaps) - during <= {minute(21)}
        assert {gaps[m] for m in during} <= {"disconnected", "missing_trades"}
        assert during or name == "kraken"


async def test_reconnection_waits_grow_and_never_exceed_a_minute(autojump_clock, tmp_path):
    async with collecting(tmp_path, OKX) as world:
        world.exchanges["okx"].faults.refuse_connections = True
        world.exchanges["okx"].drop_connections()
        await sleep_until(900)
        attempts = [(ms - NOON) / 1000 for ms in world.exchanges["okx"].attempts]
        waits = [later - earlier for earlier, later in pairwise(attempts)]
        assert world.service.board.venues["okx"].reconnects == len(attempts) - 1
    assert waits[1] < waits[3] < waits[5]
    assert max(waits) <= 60.0
    assert all(30.0 <= wait <= 60.0 for wait in waits[7:])
    assert not world.exchanges["okx"].violations


@pytest.mark.parametrize("symbols", [COINBASE, KRAKEN], ids=["coinbase", "kraken"])
async def test_a_half_open_connection_is_left_after_ten_silent_seconds(autojump_clock, tmp_path, symbols):
    (name,) = symbols
    async with collecting(tmp_path, symbols) as world:
        await sleep_until(300)
        world.exchanges[name].faults.mute = True
        await sleep_until(301)
        world.exchanges[name].faults.ignore_close = True
        await sleep_until(312)
        world.exchanges[name].faults.mute = False
        world.exchanges[name].faults.ignore_close = False
        await sleep_until(400)
        times = lived(world.exchanges[name])
    assert len(times) == 2
    assert 310 <= times[1][0] <= 316  # ten seconds of silence, two of goodbye, one of back-off


async def test_a_silent_okx_connection_is_asked_and_kept_if_it_answers(autojump_clock, tmp_path):
    """The venue closes after 30 s without data; a ping keeps a connection of quiet instruments."""
    async with collecting(tmp_path, OKX) as world:
        await sleep_until(60)
        world.exchanges["okx"].faults.silent = True
        await sleep_until(190)
        assert len(world.exchanges["okx"].connections) == 1
        assert world.service.board.venues["okx"].reconnects == 0
        assert world.service.board.venues["okx"].status(world.time.now()) == "[STALE (2m)]"


async def test_an_okx_connection_that_answers_no_ping_is_left(autojump_clock, tmp_path):
    async with collecting(tmp_path, OKX) as world:
        await sleep_until(120)
        world.exchanges["okx"].faults.mute = True
        await sleep_until(152)
        world.exchanges["okx"].faults.mute = False
        await sleep_until(200)
        times = lived(world.exchanges["okx"])
    assert len(times) == 2
    assert 149 <= times[1][0] <= 155


async def test_one_silent_product_on_coinbase_is_noticed_though_others_speak(autojump_clock, tmp_path):
    """A zombie subscription: the venue beats once a second per product, so ten silent seconds are a fault."""
    async with collecting(tmp_path, COINBASE) as world:
        await sleep_until(300)
        world.exchanges["coinbase"].faults.silent_symbols = {"ETH-USD"}
        world.exchanges["coinbase"].faults.heartbeats = False
        await sleep_until(312)
        assert len(world.exchanges["coinbase"].connections) >= 2


async def test_an_announced_close_is_left_before_it_comes(autojump_clock, tmp_path):
    async with collecting(tmp_path, OKX) as world:
        world.exchanges["okx"].faults.notice = 120
        await sleep_until(300)
        assert len(world.exchanges["okx"].connections) >= 2


async def test_a_reconnecting_venue_never_exceeds_its_connection_limit(autojump_clock, tmp_path):
    async with collecting(tmp_path, ONE_EACH) as world:
        for name in ("coinbase", "kraken", "okx"):
            world.exchanges[name].faults.longest_connection = 3.0
        await sleep_until(1200)
        for name in ("coinbase", "kraken", "okx"):
            assert not world.exchanges[name].violations


# --- subscriptions ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("symbols", "bad"),
    [
        ({"coinbase": ("BTC-USD", "GIBBERISH-USD")}, "GIBBERISH-USD"),
        ({"kraken": ("BTC/USD", "GIBBERISH/USD")}, "GIBBERISH/USD"),
        ({"okx": ("BTC-USDT", "GIBBERISH-USDT")}, "GIBBERISH-USDT"),
    ],
    ids=["coinbase", "kraken", "okx"],
)
async def test_a_refused_symbol_is_loud_and_does_not_take_its_venue_down(
    autojump_clock, tmp_path, caplog, symbols, bad
):
    caplog.set_level(logging.WARNING)
    (name,) = symbols
    async with collecting(tmp_path, symbols) as world:
        await sleep_until(600)
        good = next(symbol for symbol in symbols[name] if symbol != bad)
        board = world.service.board.venues[name]
        assert board.status(world.time.now()) == "[OK]"
        assert board.saved >= 7
    counts = check_against_truth(tmp_path, world.market, Series(name, good))
    assert counts["gap"] <= 2
    assert set(_gaps(tmp_path, Series(name, bad)).values()) == {"refused"}
    assert any(bad in record.message and record.levelno == logging.ERROR for record in caplog.records)


@pytest.mark.parametrize("symbols", [COINBASE, KRAKEN, OKX], ids=["coinbase", "kraken", "okx"])
async def test_a_symbol_that_is_never_acknowledged_is_loud_and_its_proofs_still_count(
    autojump_clock, tmp_path, caplog, symbols
):
    (name,) = symbols
    silent, good = symbols[name][0], symbols[name][1]
    async with collecting(tmp_path, symbols) as world:
        world.exchanges[name].faults.unacknowledged_symbols = {silent}
        await sleep_until(400)
    loud = any(silent in record.message and record.levelno == logging.ERROR for record in caplog.records)
    assert loud is (name != "kraken")  # which says, asked again, that it is subscribed already
    check_against_truth(tmp_path, world.market, Series(name, silent))
    assert check_against_truth(tmp_path, world.market, Series(name, good))["candles"] >= 4


async def test_a_refused_symbol_is_asked_for_again_and_collected_once_it_is_listed(autojump_clock, tmp_path):
    async with collecting(tmp_path, KRAKEN) as world:
        world.exchanges["kraken"].faults.refused_symbols = {"ETH/USD"}
        await sleep_until(120)
        world.exchanges["kraken"].faults.refused_symbols = set()
        series = Series("kraken", "ETH/USD")
        await sleep_until(150)
        assert _gaps(tmp_path, series)[minute(1)] == "refused"
        await sleep_until(900)
    gaps = _gaps(tmp_path, series)
    assert not any(m >= minute(7) for m in gaps if m < minute(14))


async def test_a_connection_whose_symbols_are_all_refused_is_made_again_within_a_minute(
    autojump_clock, tmp_path, caplog
):
    """A venue drops a connection that it subscribed nothing on; what it refuses may be listed again by then."""
    caplog.set_level(logging.INFO)
    async with collecting(tmp_path, {"kraken": ("BTC/USD",)}) as world:
        exchange = world.exchanges["kraken"]
        exchange.faults.refused_symbols = {"BTC/USD"}
        exchange.drop_connections()
        for at in (20, 90, 160):
            await sleep_until(at)
            exchange.drop_connections()
        exchange.faults.refused_symbols = set()
        await sleep_until(400)
    times = lived(exchange)
    assert len(times) == 4
    assert all(later[0] - earlier[1] <= 60.5 for earlier, later in pairwise(times))
    assert check_against_truth(tmp_path, world.market, Series("kraken", "BTC/USD"))["candles"] >= 2
    # Asked for before its time, because nothing else was left to ask for: its refusal is no news.
    assert len([one for one in caplog.records if one.levelno == logging.ERROR and "refused" in one.message]) == 1


@pytest.mark.slow
async def test_more_symbols_than_a_connection_carries_are_spread_over_several(autojump_clock, tmp_path):
    symbols = tuple(f"SIM{n:03}/USD" for n in range(450))
    async with collecting(tmp_path, {"kraken": symbols}) as world:
        await sleep_until(60)
        assert len(world.exchanges["kraken"].open_connections) == 3
        world.exchanges["kraken"].open_connections[0].drop()
        await sleep_until(60.1)
        assert world.service.board.venues["kraken"].status(world.time.now()) == "[DISC]"
        await sleep_until(90)
        assert len(world.exchanges["kraken"].open_connections) == 3
        assert world.service.board.venues["kraken"].reconnects == 1
        assert not world.exchanges["kraken"].violations


def read_by(feed):
    """All venues, the one of *feed* read by it."""
    return {**VENUES, feed.name: attrs.evolve(VENUES[feed.name], feed=feed)}


class DeafCoinbase(Coinbase):
    """Does not hear what is said about one product: the simulator's zombies still have their heartbeats."""

    deaf_to = ""

    def read(self, text):
        return [
            event
            for event in super().read(text)
            if isinstance(event, Acked) or getattr(event, "symbol", None) != self.deaf_to
        ]


async def test_a_product_that_stays_silent_costs_its_connection_once_and_then_only_itself(
    autojump_clock, tmp_path, caplog
):
    coinbase = DeafCoinbase()
    async with collecting(tmp_path, COINBASE, venues=read_by(coinbase)) as world:
        await sleep_until(100)
        coinbase.deaf_to = "ETH-USD"
        await sleep_until(420)
        coinbase.deaf_to = ""
        await sleep_until(900)
        times = lived(world.exchanges["coinbase"])
        assert world.service.board.venues["coinbase"].status(world.time.now()) == "[OK]"
        said = world.exchanges["coinbase"].open_connections[0].heard
    assert len(times) == 2
    assert 109 <= times[0][1] <= 112
    assert [json.loads(text)["type"] for text in said] == ["subscribe", "unsubscribe", "subscribe"]
    assert len(_errors(caplog)) == 1
    assert "ETH-USD is refused: silent" in _errors(caplog)[0]
    assert not any(minute(3) <= m < minute(14) for m in _gaps(tmp_path, BTC))
    eth = _gaps(tmp_path, Series("coinbase", "ETH-USD"))
    assert {eth[minute(n)] for n in range(2, 6)} == {"refused"}
    assert not any(minute(8) <= m < minute(14) for m in eth)
    check_against_truth(tmp_path, world.market, BTC)
    check_against_truth(tmp_path, world.market, Series("coinbase", "ETH-USD"))


@pytest.mark.parametrize(("minutes", "refusals"), [(24, {4, 5}), pytest.param(120, {*range(20, 25)}, marks=SLOW)])
async def test_a_product_that_never_speaks_is_refused_every_five_minutes_on_a_connection_that_stays(
    autojump_clock, tmp_path, caplog, minutes, refusals
):
    coinbase = DeafCoinbase()
    coinbase.deaf_to = "ETH-USD"
    async with collecting(tmp_path, COINBASE, venues=read_by(coinbase)) as world:
        await sleep_until(60 * minutes)
        assert len(world.exchanges["coinbase"].connections) == 2
    assert len(_errors(caplog)) in refusals
    assert not any(minute(2) <= m < minute(minutes - 2) for m in _gaps(tmp_path, BTC))


async def test_when_no_product_speaks_it_is_the_connection_every_time(autojump_clock, tmp_path, caplog):
    async with collecting(tmp_path, COINBASE) as world:
        for at in (100, 200, 300):
            await sleep_until(at)
            world.exchanges["coinbase"].faults.silent = True
            world.exchanges["coinbase"].faults.heartbeats = False
            await sleep_until(at + 15)
            world.exchanges["coinbase"].faults.silent = False
            world.exchanges["coinbase"].faults.heartbeats = True
        await sleep_until(400)
        assert world.service.board.venues["coinbase"].status(world.time.now()) == "[OK]"
        assert len(world.exchanges["coinbase"].connections) >= 4
    assert not _errors(caplog)


def _errors(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


def _subscribed(caplog):
    """The symbols of which all channels were acknowledged so far."""
    return {
        record.getMessage().split()[1] for record in caplog.records if record.getMessage().endswith(" is subscribed")
    }


@pytest.mark.slow
async def test_one_bad_product_of_a_hundred_costs_the_others_seconds_and_few_messages(autojump_clock, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    good = tuple(f"SIM{n:03}-USD" for n in range(99))
    async with collecting(tmp_path, {"coinbase": (*good[:50], "GIBBERISH-USD", *good[50:])}) as world:
        await sleep_until(5)
        assert _subscribed(caplog) == set(good)
        await sleep_until(60)
        (connection,) = world.exchanges["coinbase"].connections
        assert len(connection.heard) == 2
    assert len(_errors(caplog)) == 1
    assert "GIBBERISH-USD is refused" in _errors(caplog)[0]


@pytest.mark.slow
async def test_a_request_that_waits_for_its_turn_is_not_called_unanswered(autojump_clock, tmp_path, caplog):
    """A hundred requests of their own take twenty seconds to be said; each has five from then on."""
    caplog.set_level(logging.INFO)
    symbols = tuple(f"SIM{n:03}-USD" for n in range(100))
    async with collecting(tmp_path, {"coinbase": symbols}) as world:
        faults = world.exchanges["coinbase"].faults
        faults.unacknowledged_symbols = set(symbols)
        await sleep_until(14)
        faults.unacknowledged_symbols = {symbols[7]}
        await sleep_until(45)
        assert _subscribed(caplog) == {*symbols} - {symbols[7]}
        assert len(world.exchanges["coinbase"].connections) == 1
    assert [symbols[7] in text for text in _errors(caplog)] == [True]


class TardyCoinbase(Coinbase):
    """Acknowledges one product again with each of its heartbeats, from the second minute on."""

    def read(self, text):
        for event in super().read(text):
            if isinstance(event, Heartbeat) and event.symbol == "ETH-USD" and trio.current_time() >= 60:
                yield Acked("ETH-USD", "matches")
                yield Acked("ETH-USD", "heartbeat")
            yield event


async def test_a_late_acknowledgement_ends_a_refusal(autojump_clock, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    async with collecting(tmp_path, COINBASE, venues=read_by(TardyCoinbase())) as world:
        world.exchanges["coinbase"].faults.unacknowledged_symbols = {"ETH-USD"}
        await sleep_until(59)
        assert _subscribed(caplog) == {"BTC-USD"}
        (connection,) = world.exchanges["coinbase"].connections
        said = len(connection.heard)
        await sleep_until(62)
        assert _subscribed(caplog) == {"BTC-USD", "ETH-USD"}
        await sleep_until(900)
        assert len(connection.heard) == said
    assert len(_errors(caplog)) == 1


class SternKraken(Kraken):
    """Hears that we are too fast, instead of the first acknowledgements."""

    until = 0.0

    def read(self, text):
        if trio.current_time() < self.until and '"subscribe"' in text:
            return [Notice("Exceeded msg rate")]
        return super().read(text)


async def test_a_venue_that_finds_us_too_fast_is_left_alone_for_a_minute(autojump_clock, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    kraken = SternKraken()
    kraken.until = 3.0
    symbols = tuple(f"SIM{n:03}/USD" for n in range(40))
    async with collecting(tmp_path, {"kraken": symbols}, venues=read_by(kraken)) as world:
        await sleep_until(60)
        (connection,) = world.exchanges["kraken"].connections
        said = [text for text in connection.heard if "subscribe" in text]
        assert len(said) == 4
        await sleep_until(90)
        assert len([text for text in connection.heard if "subscribe" in text]) == 8
    assert not [text for text in _errors(caplog) if "no acknowledgement" in text]


@pytest.mark.slow
@pytest.mark.parametrize("many", [20, pytest.param(100, marks=SLOW)])
async def test_many_quiet_okx_instruments_are_subscribed_anew_together_and_ever_more_rarely(
    autojump_clock, tmp_path, many
):
    symbols = tuple(f"SIM{n:03}-USDT" for n in range(many))
    async with collecting(tmp_path, {"okx": symbols}) as world:
        world.exchanges["okx"].faults.silent_symbols = set(symbols)
        await sleep_until(3700)
        connections = world.exchanges["okx"].connections
        said = [text for connection in connections for text in connection.heard if text != "ping"]
        assert not world.exchanges["okx"].violations
    assert len(connections) <= 4
    assert 7 <= len(said) <= 30


@pytest.mark.slow
@pytest.mark.parametrize("many", [10, pytest.param(100, marks=SLOW)])
async def test_okx_without_flat_rows_is_asked_at_most_half_of_what_it_allows(autojump_clock, tmp_path, many):
    symbols = tuple(f"SIM{n:03}-USDT" for n in range(many))
    async with collecting(tmp_path, {"okx": symbols}) as world:
        world.exchanges["okx"].faults.no_flat_rows = True
        await sleep_until(3700)
        (connection,) = world.exchanges["okx"].connections
        said = [text for text in connection.heard if text != "ping"]
        assert not world.exchanges["okx"].violations
    assert 3 <= len(said) <= 120


# --- what is said -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("symbols", [COINBASE, KRAKEN, OKX], ids=["coinbase", "kraken", "okx"])
async def test_corrupt_frames_cost_at_most_their_minute(autojump_clock, tmp_path, symbols):
    (name,) = symbols
    async with collecting(tmp_path, symbols) as world:
        for at, kind in enumerate(["truncated", "nan", "wrong_type", "binary", "not_json", "unknown", "giant"], 2):
            await sleep_until(at * 80)
            world.exchanges[name].faults.corrupt.append(kind)
        await sleep_until(960)
        assert sum(world.service.board.venues[name].skipped.values()) >= 5
    for symbol in symbols[name]:
        counts = check_against_truth(tmp_path, world.market, Series(name, symbol))
        assert counts["candles"] + counts["empty"] >= 16 - 7 - 2


async def test_a_dropped_trade_makes_a_gap_of_its_minute_and_says_which_ids(autojump_clock, tmp_path):
    async with collecting(tmp_path, {"coinbase": ("BTC-USD",)}) as world:
        await sleep_until(470)
        trades = world.market.trades("coinbase", "BTC-USD", minute(8))
        lost = trades[len(trades) // 2].trade_id
        world.exchanges["coinbase"].faults.drop_trade = lambda symbol, id_: symbol == "BTC-USD" and id_ == lost
        await sleep_until(660)
    gaps = _gaps(tmp_path, BTC)
    assert gaps == {minute(8): "missing_trades", minute(10): "unproven"}
    with ledger(tmp_path) as books:
        assert str(lost) in str(books.one("SELECT detail FROM gap WHERE reason = 'missing_trades'"))
    check_against_truth(tmp_path, world.market, BTC)


async def test_trades_dropped_across_the_end_of_a_minute_are_noticed(autojump_clock, tmp_path):
    """Measured at the venue: sixteen trades missing around a boundary, with nothing else to show for it."""
    async with collecting(tmp_path, {"coinbase": ("BTC-USD",)}) as world:
        await sleep_until(300)
        trades = (
            world.market.trades("coinbase", "BTC-USD", minute(6)),
            world.market.trades("coinbase", "BTC-USD", minute(7)),
        )
        run = {trade.trade_id for trade in (*trades[0][-2:], *trades[1][:2])}
        world.exchanges["coinbase"].faults.drop_trade = lambda symbol, id_: symbol == "BTC-USD" and id_ in run
        await sleep_until(600)
    gaps = _gaps(tmp_path, BTC)
    assert {minute(6), minute(7)} <= set(gaps)
    check_against_truth(tmp_path, world.market, BTC)


async def test_heartbeats_without_ids_prove_nothing_and_trades_still_do(autojump_clock, tmp_path):
    async with collecting(tmp_path, {"coinbase": ("BTC-USD",)}) as world:
        world.exchanges["coinbase"].faults.last_trade_id_zero = True
        await sleep_until(720)
    counts = check_against_truth(tmp_path, world.market, BTC)
    assert counts["candles"] >= 9


async def test_a_lost_close_on_okx_is_a_gap_and_never_a_guess(autojump_clock, tmp_path):
    async with collecting(tmp_path, OKX) as world:
        world.exchanges["okx"].faults.lose_confirm = lambda symbol, at: symbol == "BTC-USDT" and at == minute(5)
        await sleep_until(900)
    gaps = _gaps(tmp_path, Series("okx", "BTC-USDT"))
    assert gaps[minute(5)] == "no_close"
    assert minute(4) not in gaps
    assert minute(6) not in gaps


async def test_a_late_close_on_okx_closes_the_gap_that_it_had_become(autojump_clock, tmp_path):
    async with collecting(tmp_path, OKX) as world:
        world.exchanges["okx"].faults.confirm_delay = 20.0
        series = Series("okx", "BTC-USDT")
        for number in range(1, 14):
            await sleep_until(60 * number + 78)
            assert list(_gaps(tmp_path, series))[-1] == minute(number)
        await sleep_until(900)
    gaps = _gaps(tmp_path, series)
    assert not any(minute(1) <= m < minute(14) for m in gaps)
    with ledger(tmp_path) as books:
        assert books.one("SELECT count(*) FROM gap_event WHERE event = 'stored'") == 0  # each was a gap for seconds


async def test_two_different_closes_of_one_minute_are_a_conflict_and_the_first_stays(autojump_clock, tmp_path, caplog):
    async with collecting(tmp_path, OKX) as world:
        world.exchanges["okx"].faults.revise_confirm = lambda symbol, at: symbol == "BTC-USDT" and at == minute(5)
        await sleep_until(900)
        assert world.service.board.venues["okx"].rejected["conflict"] == 1
    check_against_truth(tmp_path, world.market, Series("okx", "BTC-USDT"))
    with ledger(tmp_path) as books:
        assert books.one("SELECT count(*) FROM revision") == 1
    assert any("conflict" in record.message for record in caplog.records)


async def test_an_equal_close_again_is_skipped_without_a_word_on_the_console(autojump_clock, tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    async with collecting(tmp_path, OKX) as world:
        world.exchanges["okx"].faults.duplicate_confirm = lambda symbol, at: True
        await sleep_until(600)
        assert world.service.board.venues["okx"].rejected["duplicate"] >= 10
    assert not [record for record in caplog.records if "duplicate" in record.message]
    check_against_truth(tmp_path, world.market, Series("okx", "BTC-USDT"))


async def test_while_kraken_is_in_maintenance_nothing_is_certain_and_afterwards_ids_decide(
    autojump_clock, tmp_path, caplog
):
    async with collecting(tmp_path, {"kraken": ("BTC/USD",)}) as world:
        await sleep_until(330)
        world.exchanges["kraken"].faults.system = "maintenance"
        await sleep_until(500)
        assert "suspect" in _gaps(tmp_path, Series("kraken", "BTC/USD")).values()
        world.exchanges["kraken"].faults.system = "online"
        await sleep_until(900)
    assert any("maintenance" in record.message for record in caplog.records)
    check_against_truth(tmp_path, world.market, Series("kraken", "BTC/USD"))


# --- failures that are ours -------------------------------------------------------------------------------


class BuggyKraken(Kraken):
    """A reader that divides by zero once five minutes have been heard."""

    rows = 0

    def read(self, text):
        self.rows += '"ohlc"' in text
        return super().read(text) if self.rows < 150 else 1 / 0


async def test_a_bug_in_one_venues_reader_ends_the_service_loudly_after_everything_is_in_parquet(
    autojump_clock, tmp_path
):
    with pytest.raises(BaseExceptionGroup) as caught:
        async with collecting(tmp_path, venues=read_by(BuggyKraken())):
            await trio.sleep_forever()
    assert [type(error) for error in leaves(caught.value)] == [ZeroDivisionError]
    for series in (BTC, Series("okx", "BTC-USDT"), Series("kraken", "BTC/USD")):
        assert len(rows_on_disk(tmp_path, series)) >= 3
    with ledger(tmp_path) as books:
        assert books.one("SELECT count(*) FROM candle") == 0


async def test_minutes_that_closed_ten_seconds_before_the_stop_have_their_verdict(autojump_clock, tmp_path):
    async with collecting(tmp_path):
        await sleep_until(190)
    with ledger(tmp_path) as books:
        for name, symbols in (COINBASE | KRAKEN | OKX).items():
            for symbol in symbols:
                assert books.range(Series(name, symbol)).stop >= minute(3)


# --- connections that live and bring nothing ---------------------------------------------------------------


@pytest.mark.parametrize("venue", ["coinbase", "kraken", "okx"])
async def test_a_connection_that_beats_and_brings_no_data_is_made_anew(autojump_clock, tmp_path, venue):
    """Acknowledged, heartbeats, no trade and no row: TCP, WebSocket and venue are well, and nothing comes."""
    async with collecting(tmp_path, {venue: SYMBOLS[venue]}) as world:
        await trio.sleep(300)
        exchange, board = world.exchanges[venue], world.service.board.venues[venue]
        before = board.reconnects
        exchange.faults.silent = True
        await trio.sleep(320)
        assert board.reconnects > before
        exchange.faults.silent = False
        exchange.drop_connections()
        await trio.sleep(300)
        assert board.status(world.time.now()) == "[OK]"
    for symbol in SYMBOLS[venue]:
        check_against_truth(tmp_path, world.market, Series(venue, symbol))


@pytest.mark.parametrize("silent_from", [0, 300])
async def test_a_new_connection_that_brings_nothing_either_makes_nothing_fresh(autojump_clock, tmp_path, silent_from):
    """Stale counts from the last data, or from when the venue first came up, whatever was reconnected since."""
    async with collecting(tmp_path, {"kraken": ("BTC/USD",)}) as world:
        exchange, board = world.exchanges["kraken"], world.service.board.venues["kraken"]
        await sleep_until(silent_from)
        exchange.faults.silent = True
        await sleep_until(silent_from + 170)
        exchange.drop_connections()
        await sleep_until(silent_from + 190)
        assert board.reconnects
        assert board.status(world.time.now()) == "[STALE (3m)]"
        exchange.faults.silent = False
        await sleep_until(silent_from + 600)
        assert board.status(world.time.now()) == "[OK]"


@pytest.mark.parametrize("hours", [1, pytest.param(3, marks=SLOW)])
async def test_a_quiet_market_costs_ever_fewer_connections(autojump_clock, tmp_path, hours):
    """Kraken says nothing of a pair without trades: after two minutes we look, then after four, eight..."""
    market = Market(7)
    symbol = next(one for one in market.symbols("kraken") if market.instrument("kraken", one).per_day < 8)
    async with collecting(tmp_path, {"kraken": (symbol,)}, market=market) as world:
        await trio.sleep(hours * 3600)
        assert 3 <= world.service.board.venues["kraken"].reconnects <= 4 + hours
    check_against_truth(tmp_path, world.market, Series("kraken", symbol))


async def test_a_quiet_product_whose_heartbeats_prove_that_nothing_is_missing_costs_none(autojump_clock, tmp_path):
    async with collecting(tmp_path, {"coinbase": ("SOL-USD",)}) as world:
        await trio.sleep(1800)
        assert world.service.board.venues["coinbase"].reconnects == 0


# --- the clock ---------------------------------------------------------------------------------------------


@attrs.define
class Drifting:
    """A clock that runs away from trio's by *ppm* microseconds a second, and that may be set."""

    ppm: float = 0.0
    speed: float = 1.0
    ahead: float = 0.0
    """Seconds."""

    def now(self) -> Millis:
        return Millis(round(1000 * (NOON / 1000 + trio.current_time() * (1 + self.ppm / 1e6) + self.ahead)))


async def nobody(*_: object) -> None:
    raise OSError("there is nobody to dial")


def watched(time: Drifting) -> tuple[Feed, VenueState]:
    """A venue without a connection: its watchdog has nothing to watch but the clock."""
    clock = Vouching(time, vouched=True)
    state = VenueState(VenueBoard("okx"), {}, clock)
    return Feed(VENUES["okx"].feed, "ws://nowhere", state, Network(nobody), clock), state


@pytest.mark.parametrize("ppm", [-1000.0, 1000.0])
async def test_a_clock_that_drifts_is_not_taken_for_one_that_jumps(autojump_clock, caplog, ppm):
    """Where nothing disciplines the monotonic clock, 30 ppm are 2.6 s a day; here they come in less than an hour."""
    with trio.move_on_after(3600):
        await watch(*watched(Drifting(ppm)))
    assert not [record.message for record in caplog.records if "jumped" in record.message]


@pytest.mark.parametrize("by", [-2.5, 2.5])
async def test_a_jump_between_two_looks_is_told_once(autojump_clock, caplog, by):
    time = Drifting()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch, *watched(time))
        await trio.sleep(10)
        time.ahead += by
        await trio.sleep(10)
        nursery.cancel_scope.cancel()
    (said,) = [record.message for record in caplog.records if "jumped" in record.message]
    assert f"the clock jumped by {by:+.1f} s" in said
