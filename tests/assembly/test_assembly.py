"""What an assembler promises about every minute, by example.

The days of these tests begin at 12:00; times are written as clocks show them and mean the venue's time, which
is also ours unless a test says otherwise. What is hostile and generated is in test_assembly_properties.py.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator
from decimal import Decimal
from time import perf_counter

import attrs
import pytest

from trio_candles.assembly import (
    SETTLE,
    Assembler,
    Outcome,
    Rejected,
    Remark,
    assembler_for,
)
from trio_candles.candles.folding import fold_trades
from trio_candles.candles.model import MINUTE, Candle, Empty, Millis, Reason, Series, Source, Trade, Unsure
from trio_candles.candles.validation import Rule
from trio_candles.simulator import Market
from trio_candles.venues.protocol import Alive, Event, Forming, Heartbeat, Row, Traded, TradeSeen
from trio_candles.venues.registry import VENUES

MIDNIGHT = 1_768_003_200_000
SYMBOL = "X-USD"


def at(clock: str) -> Millis:
    """``12:01``, ``12:01:30`` or ``12:01:30.250`` of the day."""
    hours, minutes, seconds = (clock + ":0").split(":")[:3]
    return Millis(MIDNIGHT + int(hours) * 3_600_000 + int(minutes) * MINUTE + round(float(seconds) * 1000))


def clock(time: int) -> str:
    minutes = (time - MIDNIGHT) // MINUTE
    return f"{minutes // 60:02}:{minutes % 60:02}"


def told(outcomes: Iterable[Outcome]) -> list[str]:
    """Outcomes in words: ``12:01 candle 3``, ``12:02-12:05 empty``, ``12:05 unproven``, ``! late_trade``."""
    words = []
    for outcome in outcomes:
        if isinstance(outcome, Candle):
            words.append(f"{clock(outcome.open_time)} candle {outcome.trades_count}")
        elif isinstance(outcome, Rejected):
            words.append(f"{clock(outcome.candle.open_time)} rejected {outcome.rule.value}")
        elif isinstance(outcome, Remark):
            words.append(f"! {outcome.kind}")
        else:
            what = "empty" if isinstance(outcome, Empty) else outcome.reason.value
            until = "" if outcome.until == outcome.since + MINUTE else f"-{clock(outcome.until)}"
            words.append(f"{clock(outcome.since)}{until} {what}")
    return words


@attrs.define
class Ear:
    """An assembler that hears every event at its own time, and is asked what is due as time passes."""

    assembler: Assembler

    def hear(self, *events: Event, now: str | int | None = None) -> list[str]:
        """What *events* prove, heard at their own time or all at *now*."""
        return told(self.outcomes(*events, now=now))

    def outcomes(self, *events: Event, now: str | int | None = None) -> list[Outcome]:
        moment = at(now) if isinstance(now, str) else now
        return [
            outcome
            for event in events
            for outcome in self.assembler.hear(event, Millis(moment if moment is not None else time_of(event)))
        ]

    def due(self, now: str) -> list[str]:
        return told(self.assembler.due(at(now)))

    def connected(self, now: str) -> None:
        self.assembler.connected(at(now))

    def disconnected(self, now: str) -> None:
        self.assembler.disconnected(at(now))


def ear(venue: str, connected: str | None = "11:50", frontier: str = "12:00", earliest: str = "00:00") -> Ear:
    made = Ear(assembler_for(VENUES[venue].proof, Series(venue, SYMBOL), at(frontier), at(earliest)))
    if connected is not None:
        made.connected(connected)
    return made


def time_of(event: Event) -> int:
    if isinstance(event, Traded):
        return event.trade.time
    if isinstance(event, Row):
        return event.close_time
    return event.time if isinstance(event, (TradeSeen, Heartbeat)) else at("12:00")


def trade(time: str, trade_id: int, price: str = "100", size: str = "1") -> Traded:
    return Traded(SYMBOL, Trade(trade_id, at(time), Decimal(price), Decimal(size)))


def beat(time: str, last_trade_id: int) -> Heartbeat:
    return Heartbeat(SYMBOL, at(time), last_trade_id)


def seen(time: str, trade_id: int) -> TradeSeen:
    return TradeSeen(SYMBOL, trade_id, at(time))


def row(
    minute: str, count: int | None, price: float = 100.0, *, closed: bool = False, high: float | None = None
) -> Row:
    since = at(minute)
    top = price if high is None else high
    return Row(
        SYMBOL, since, Millis(since + MINUTE), price, top, price, price, float(count or 1), None, None, count, closed
    )


ALL = pytest.mark.parametrize("venue", ["coinbase", "kraken", "okx"])


# --- every minute gets exactly one first verdict ----------------------------------------------------------


@ALL
def test_a_minute_without_proof_waits_eight_seconds_and_is_then_called_unsure(venue: str) -> None:
    listener = ear(venue)
    reason = "no_close" if venue == "okx" else "unproven"
    assert SETTLE == 8_000
    assert listener.due("12:01:07.999") == []
    assert listener.due("12:01:08") == [f"12:00 {reason}"]
    assert listener.due("12:01:09") == []
    assert listener.due("12:02:08") == [f"12:01 {reason}"]


@ALL
def test_an_outage_of_days_is_one_statement(venue: str) -> None:
    listener = ear(venue, connected=None)
    until = Millis(at("12:00") + 10_000 * MINUTE)
    (only,) = listener.assembler.due(Millis(until + SETTLE))
    assert only == Unsure(Series(venue, SYMBOL), at("12:00"), until, Reason.DISCONNECTED, "")


@ALL
def test_at_the_end_every_minute_that_is_over_gets_its_verdict(venue: str) -> None:
    listener = ear(venue)
    assert len(told(listener.assembler.give_up(at("12:03")))) == 1
    assert told(listener.assembler.give_up(at("12:03"))) == []
    assert listener.assembler.frontier == at("12:03")


@ALL
def test_what_is_no_statement_about_minutes_says_nothing(venue: str) -> None:
    assert ear(venue).hear(Alive(), Forming(SYMBOL), now="12:30") == []


def test_a_clock_that_steps_back_takes_no_verdict_back() -> None:
    listener = ear("coinbase")
    listener.due("12:05:08")
    assert listener.due("12:01:08") == []
    assert listener.due("12:06:08") == ["12:05 unproven"]


def test_a_proof_first_gives_the_minutes_before_it_their_verdict() -> None:
    listener = ear("okx")
    assert listener.hear(row("12:03", None, closed=True)) == ["12:00-12:03 no_close", "12:03 candle None"]
    assert listener.due("12:04:30") == []


# --- reasons ----------------------------------------------------------------------------------------------


@ALL
def test_minutes_touched_by_a_time_without_connection_say_so(venue: str) -> None:
    """The minute in which the connection was made, lost, found again, and each in between; no other."""
    listener = ear(venue, connected=None)
    listener.connected("12:00:30")
    other = "no_close" if venue == "okx" else "unproven"
    verdicts = listener.due("12:02:10")
    listener.disconnected("12:02:40")
    listener.connected("12:04:10")
    verdicts += listener.due("12:06:10")
    assert verdicts == ["12:00 disconnected", f"12:01 {other}", "12:02-12:05 disconnected", f"12:05 {other}"]


@ALL
def test_a_connection_lost_and_found_at_the_minute_touches_no_other(venue: str) -> None:
    listener = ear(venue)
    listener.disconnected("12:01")
    listener.connected("12:02")
    other = "no_close" if venue == "okx" else "unproven"
    assert listener.due("12:03:08") == [f"12:00 {other}", "12:01 disconnected", f"12:02 {other}"]


@ALL
def test_a_connection_lost_at_the_minute_and_not_found_touches_none_before(venue: str) -> None:
    listener = ear(venue)
    listener.disconnected("12:01")
    other = "no_close" if venue == "okx" else "unproven"
    assert listener.due("12:02:08") == [f"12:00 {other}", "12:01 disconnected"]


@ALL
def test_a_second_break_does_not_hide_the_first(venue: str) -> None:
    listener = ear(venue)
    for lost, found in (("12:00:50", "12:00:52"), ("12:01:03", "12:01:04")):
        listener.disconnected(lost)
        listener.connected(found)
    assert listener.due("12:01:08") == ["12:00 disconnected"]
    assert listener.due("12:02:08") == ["12:01 disconnected"]


@ALL
def test_being_told_twice_that_we_are_connected_changes_nothing(venue: str) -> None:
    listener = ear(venue)
    listener.connected("12:00:30")
    assert "disconnected" not in listener.due("12:01:08")[0]
    listener.disconnected("12:01:10")
    listener.disconnected("12:02:50")
    assert listener.due("12:03:08") == ["12:01-12:03 disconnected"]


@ALL
def test_a_refused_symbol_says_so_until_it_is_acknowledged(venue: str) -> None:
    listener = ear(venue, connected=None)
    listener.assembler.refused("not listed")
    (verdict,) = listener.assembler.due(at("12:02:08"))
    assert verdict == Unsure(Series(venue, SYMBOL), at("12:00"), at("12:02"), Reason.REFUSED, "not listed")
    listener.connected("12:02:30")
    assert listener.due("12:03:08") == ["12:02 disconnected"]


def test_of_several_reasons_for_a_gap_the_one_that_explains_the_others_is_named() -> None:
    """A refused symbol sends nothing to reject; without a connection nobody hears that the venue doubts itself."""
    listener = ear("okx")
    listener.assembler.doubted("maintenance")
    listener.disconnected("12:00:30")
    assert listener.due("12:01:08") == ["12:00 disconnected"]
    listener.connected("12:01:30")
    assert listener.due("12:03:08") == ["12:01 disconnected", "12:02 suspect"]
    listener.assembler.doubted(None)
    listener.hear(row("12:03", 1, closed=True, high=1.0), now="12:04:01")
    listener.assembler.refused("delisted")
    assert listener.due("12:04:08") == ["12:03 refused"]


@ALL
def test_a_venue_that_doubts_itself_is_quoted(venue: str) -> None:
    listener = ear(venue)
    listener.assembler.doubted("system maintenance")
    (verdict,) = listener.assembler.due(at("12:01:08"))
    assert verdict == Unsure(Series(venue, SYMBOL), at("12:00"), at("12:01"), Reason.SUSPECT, "system maintenance")
    listener.assembler.doubted(None)
    assert "suspect" not in listener.due("12:02:08")[0]


# --- trades and heartbeats: proof -------------------------------------------------------------------------


def test_a_candle_is_the_exact_fold_of_its_trades_in_the_order_of_their_ids() -> None:
    listener = ear("coinbase")
    listener.hear(trade("11:59:50", 7))
    listener.hear(
        trade("12:00", 8, "0.1", "0.1"),
        trade("12:00:20", 9, "0.3", "0.2"),
        trade("12:00:59.999", 10, "0.2", "0.3"),
    )
    (candle,) = listener.outcomes(beat("12:01:01.002", 10), now="12:01:01.033")
    assert candle == Candle(
        Series("coinbase", SYMBOL),
        at("12:00"),
        open=0.1,
        high=0.3,
        low=0.1,
        close=0.2,
        volume=0.6,
        quote_volume=0.13,
        vwap=float(Decimal("0.13") / Decimal("0.6")),
        trades_count=3,
        source=Source.WEBSOCKET,
        ingest_time=at("12:01:01.033"),
        close_time=at("12:01"),
    )


def test_sums_are_exact_where_floats_would_not_be() -> None:
    trades = [Trade(n, at("12:00"), Decimal("1e16") if n == 1 else Decimal("1"), Decimal("0.1")) for n in range(1, 12)]
    candle = fold_trades(Series("coinbase", SYMBOL), at("12:00"), trades, Source.REST, at("12:02"))
    assert candle.volume == 1.1
    assert candle.quote_volume == 1_000_000_000_000_001.0


def test_a_heartbeat_proves_a_minute_one_second_after_its_end_and_not_before() -> None:
    listener = ear("coinbase")
    listener.hear(trade("11:59:50", 7), trade("12:00:10", 8))
    assert listener.hear(beat("12:00:59.900", 8), beat("12:01:00.999", 8)) == []
    assert listener.hear(beat("12:01:01", 8)) == ["12:00 candle 1"]


def test_the_next_trade_proves_a_minute_as_well() -> None:
    listener = ear("coinbase")
    assert listener.hear(trade("11:59:50", 7), trade("12:00:10", 8), trade("12:01:00.5", 9)) == []
    assert listener.hear(trade("12:01:01", 10)) == ["12:00 candle 1"]


def test_minutes_without_a_trade_are_empty_as_soon_as_a_heartbeat_says_so() -> None:
    listener = ear("coinbase")
    listener.hear(trade("11:58:50", 7))
    assert listener.hear(beat("12:01:01", 7)) == ["11:59-12:01 empty"]
    assert listener.hear(beat("12:02:01", 7)) == ["12:01 empty"]
    assert listener.hear(trade("12:05:30", 8)) == ["12:02-12:05 empty"]


def test_the_minute_in_which_we_joined_is_never_proven() -> None:
    listener = ear("coinbase", connected="12:00:10")
    assert listener.hear(trade("12:00:20", 7), trade("12:00:40", 8), beat("12:01:05", 8)) == []
    assert listener.due("12:01:08") == ["12:00 disconnected"]
    assert listener.hear(beat("12:02:05", 8)) == ["12:01 empty"]


@pytest.mark.parametrize(
    ("joined", "first"), [("12:00:58.999", "12:01"), ("12:00:59", "12:01"), ("12:00:59.9", "12:02")]
)
def test_the_first_trade_proves_no_minute_in_which_the_missing_one_before_it_may_lie(joined: str, first: str) -> None:
    """Times follow ids, but not to the instant: trade 7, which nobody heard, may be of 12:01:00.05."""
    listener = ear("coinbase", connected="12:00:30")
    verdicts = listener.hear(trade(joined, 8), trade("12:01:30", 9), trade("12:02:30", 10), beat("12:03:01", 10))
    verdicts = [line for line in verdicts if "candle" in line]
    assert verdicts == ["12:01 candle 1", "12:02 candle 1"][first == "12:02" :]


def test_a_hole_right_before_a_minute_may_reach_into_it() -> None:
    listener = ear("coinbase")
    heard = trade("11:59:50", 7), trade("12:00:30", 8), trade("12:00:59.9", 10), trade("12:01:30", 11)
    assert listener.hear(*heard, beat("12:02:01", 11)) == ["! missing_trades"]
    assert listener.due("12:02:08") == ["12:00-12:02 missing_trades"]
    assert listener.hear(trade("12:01:00.05", 9), now="12:02:09") == ["12:00 candle 2", "12:01 candle 2"]


def test_without_a_single_trade_heartbeats_prove_nothing() -> None:
    listener = ear("coinbase")
    assert listener.hear(beat("12:01:05", 7), beat("12:02:05", 7)) == []


@pytest.mark.parametrize("said", [0, 1, 7, 9, 10**18], ids=["zero", "low", "lower", "higher", "absurd"])
def test_a_heartbeat_that_names_another_id_proves_nothing(said: int) -> None:
    listener = ear("coinbase")
    listener.hear(trade("11:59:50", 7), trade("12:00:10", 8))
    assert listener.hear(beat("12:01:05", said), beat("12:02:05", said)) == []
    assert listener.hear(beat("12:02:06", 8)) == ["12:00 candle 1", "12:01 empty"]


def test_a_heartbeat_from_the_far_future_proves_nothing_and_spoils_nothing() -> None:
    listener = ear("coinbase")
    listener.hear(trade("11:59:50", 7), trade("12:00:10", 8))
    assert listener.hear(beat("12:30", 8), now="12:00:20") == ["! wrong_time"]
    assert listener.hear(trade("12:00:30", 9), beat("12:01:05", 9)) == ["12:00 candle 2"]


def test_a_trade_from_the_far_future_is_not_heard_and_leaves_a_hole() -> None:
    listener = ear("coinbase")
    listener.hear(trade("11:59:50", 7))
    assert listener.hear(trade("12:30", 8), now="12:00:20") == ["! wrong_time"]
    assert listener.hear(trade("12:00:30", 9), beat("12:01:05", 9)) == ["! missing_trades"]
    assert listener.due("12:01:08") == ["12:00 missing_trades"]


@pytest.mark.parametrize("skew", [-50_000, 50_000])
def test_a_clock_that_is_fifty_seconds_off_changes_no_proof(skew: int) -> None:
    listener = ear("coinbase")
    events = trade("11:59:50", 7), trade("12:00:10", 8), beat("12:01:01", 8), beat("12:02:01", 8)
    verdicts = [verdict for event in events for verdict in listener.hear(event, now=time_of(event) + skew)]
    assert verdicts == ["12:00 candle 1", "12:01 empty"]


# --- trades and heartbeats: holes -------------------------------------------------------------------------


def test_a_missing_trade_leaves_its_minute_a_gap_that_names_the_ids() -> None:
    listener = ear("coinbase")
    assert listener.hear(trade("11:59:50", 7), trade("12:00:10", 8), trade("12:00:40", 11)) == ["! missing_trades"]
    assert listener.hear(beat("12:01:05", 11)) == []
    (verdict,) = listener.assembler.due(at("12:01:08"))
    assert verdict == Unsure(
        Series("coinbase", SYMBOL), at("12:00"), at("12:01"), Reason.MISSING_TRADES, "trade ids 9..10"
    )
    assert listener.hear(beat("12:02:05", 11)) == ["12:01 empty"]


def test_a_run_of_missing_trades_spoils_every_minute_that_it_may_have_touched() -> None:
    listener = ear("coinbase")
    listener.hear(trade("11:59:50", 7), trade("12:00:50", 8), trade("12:02:10", 12))
    assert listener.due("12:03:08") == ["12:00-12:03 missing_trades"]
    assert listener.hear(beat("12:04:01", 12)) == ["12:03 empty"]


def test_a_trade_missing_at_the_very_end_of_a_minute_shows_in_the_next_heartbeat() -> None:
    listener = ear("coinbase")
    listener.hear(trade("11:59:50", 7), trade("12:00:10", 8))
    assert listener.hear(beat("12:01:01", 9), beat("12:01:05", 9)) == []
    assert listener.due("12:01:08") == ["12:00 unproven"]


def test_trades_in_another_order_leave_no_gap() -> None:
    listener = ear("coinbase")
    listener.hear(trade("11:59:50", 7))
    listener.hear(trade("12:01:00.1", 10), trade("12:00:59.9", 9), trade("12:00:10", 8), now="12:01:02")
    assert listener.hear(beat("12:01:03", 10)) == ["12:00 candle 2"]


def test_a_hole_that_late_trades_fill_is_proven_then() -> None:
    listener = ear("coinbase")
    listener.hear(trade("11:59:50", 7), trade("12:00:10", 8), trade("12:01:10", 11))
    assert listener.due("12:02:08") == ["12:00-12:02 missing_trades"]
    assert listener.hear(beat("12:03:05", 11)) == ["12:02 empty"]
    assert listener.hear(trade("12:00:50", 9), now="12:03:10") == []
    assert listener.hear(trade("12:01:05", 10), now="12:03:11") == ["12:00 candle 2", "12:01 candle 2"]
    assert listener.hear(trade("12:01:05", 10), beat("12:04:05", 11), now="12:04:06") == ["12:03 empty"]


def test_a_hole_that_is_filled_before_anything_after_it_was_proven_is_no_gap() -> None:
    listener = ear("coinbase")
    listener.hear(trade("11:59:50", 7), trade("12:00:10", 9), trade("12:01:02", 10))
    assert listener.hear(trade("12:00:05", 8), now="12:01:03") == ["12:00 candle 2"]


def test_what_is_proven_before_a_hole_does_not_wait_for_the_hole() -> None:
    """Trades that come late may prove a minute although a later hole is still open."""
    listener = ear("coinbase")
    listener.hear(trade("11:59:50", 7), trade("12:05:10", 12))
    late = trade("12:00:50", 8), trade("12:01:30", 9)
    assert listener.hear(*late, now="12:05:12")[-1:] == ["12:00 candle 1"]


def test_an_id_out_of_the_blue_does_not_end_all_proof() -> None:
    listener = ear("coinbase")
    listener.hear(trade("11:59:50", 7), trade("12:00:10", 8), trade("12:00:20", 10**18))
    assert "12:00 candle 2" not in listener.hear(trade("12:00:30", 9), trade("12:01:10", 10))
    assert listener.hear(trade("12:02:10", 11), trade("12:03:10", 12))[-1:] == ["12:02 candle 1"]


def test_trades_heard_again_are_not_counted_again() -> None:
    listener = ear("coinbase")
    listener.hear(trade("11:59:50", 7), trade("12:00:10", 8), trade("12:00:20", 9), trade("12:00:10", 8))
    assert listener.hear(trade("12:00:20", 9), beat("12:01:05", 9), now="12:01:05") == ["12:00 candle 2"]
    assert listener.hear(trade("12:00:10", 8), now="12:01:06") == []


def test_trades_heard_again_after_many_holes_are_not_counted_again() -> None:
    """More holes than are remembered, then everything twice more: nothing, or the truth."""
    listener = ear("coinbase")
    trades = [trade(f"12:00:{second:02}.{n}", 8 + 10 * second + n) for second in range(30) for n in range(10)]
    outcomes = listener.outcomes(trade("11:59:50", 7), *trades[::2], now="12:00:35")
    outcomes += listener.outcomes(*[trade("11:59:50", 7), *trades] * 2, beat("12:01:05", 307), now="12:01:05")
    assert {line for line in told(outcomes) if "candle" in line} <= {"12:00 candle 300"}


def test_the_last_trade_of_what_is_forgotten_is_known_to_have_been_heard() -> None:
    listener = ear("coinbase")
    for n in range(100):
        listener.hear(trade("12:00:20", 8 + 2 * n))
    before = pickle.dumps(listener.assembler)
    for n in range(100):
        assert listener.hear(trade("12:00:20", 8 + 2 * n)) == []
    assert pickle.dumps(listener.assembler) == before


def test_a_minute_whose_ids_contradict_its_times_gets_no_verdict() -> None:
    """Trade 9 proves that 12:00 ended with trade 8; but trade 11 says that it was of 12:00."""
    listener = ear("coinbase")
    listener.hear(trade("11:59:50", 7), trade("12:00:10", 8), trade("12:00:20", 11))
    assert listener.hear(trade("12:01:10", 9)) == []
    assert listener.due("12:01:30") == ["12:00 missing_trades"]


# --- trades and heartbeats: connections -------------------------------------------------------------------


def test_a_reconnection_without_a_missed_trade_leaves_no_gap() -> None:
    listener = ear("coinbase")
    listener.hear(trade("11:59:50", 7), trade("12:00:10", 8))
    listener.disconnected("12:00:30")
    listener.connected("12:01:02")
    assert listener.hear(trade("12:00:10", 8), now="12:01:02") == []
    assert listener.hear(beat("12:01:03", 8)) == ["12:00 candle 1"]


def test_a_reconnection_leaves_no_gap_if_the_one_missed_trade_is_repeated() -> None:
    listener = ear("coinbase")
    listener.hear(trade("11:59:50", 7), trade("12:00:10", 8))
    listener.disconnected("12:00:30")
    listener.connected("12:01:02")
    assert listener.hear(trade("12:00:40", 9), now="12:01:02") == []
    assert listener.hear(beat("12:01:03", 9)) == ["12:00 candle 2"]


def test_trades_missed_without_a_connection_are_not_held_against_the_feed() -> None:
    listener = ear("coinbase")
    listener.hear(trade("11:59:50", 7), trade("12:00:10", 8))
    listener.disconnected("12:00:30")
    listener.connected("12:01:02")
    assert listener.hear(trade("12:00:50", 11), now="12:01:02") == []
    assert listener.hear(beat("12:01:03", 11)) == []
    assert listener.due("12:02:08") == ["12:00-12:02 disconnected"]


def test_a_long_silence_without_connection_is_proven_empty_afterwards() -> None:
    listener = ear("coinbase")
    listener.hear(trade("11:59:50", 7))
    listener.disconnected("12:00:10")
    assert listener.due("12:10:08") == ["12:00-12:10 disconnected"]
    listener.connected("12:10:10")
    assert listener.hear(beat("12:10:11", 7)) == ["12:00-12:10 empty"]


def test_nothing_is_said_about_minutes_before_the_first_expected_one() -> None:
    listener = ear("coinbase", frontier="12:02", earliest="12:01")
    assert listener.hear(trade("11:00:50", 7), trade("12:00:10", 8), beat("12:03:01", 8)) == ["12:01-12:03 empty"]


# --- trades and heartbeats: late trades -------------------------------------------------------------------


def test_a_trade_that_comes_after_its_minute_was_proven_says_the_minute_anew() -> None:
    listener = ear("coinbase")
    listener.hear(trade("11:59:50", 7), trade("12:00:10", 8))
    assert listener.hear(beat("12:01:01", 8)) == ["12:00 candle 1"]
    assert listener.hear(trade("12:00:50", 9), now="12:01:03") == ["! late_trade", "12:00 candle 2"]
    assert listener.hear(beat("12:02:01", 9)) == ["12:01 empty"]


def test_a_trade_that_comes_after_its_minute_was_called_empty_is_not_hidden() -> None:
    listener = ear("coinbase")
    listener.hear(trade("11:59:50", 7))
    assert listener.hear(beat("12:01:01", 7)) == ["12:00 empty"]
    assert listener.hear(trade("12:00:50", 8), now="12:01:03") == ["! late_trade", "12:00 candle 1"]


def test_a_trade_that_fills_a_hole_is_not_late_and_its_minute_is_said_once() -> None:
    listener = ear("coinbase")
    listener.hear(trade("11:59:50", 7), trade("12:00:10", 8), trade("12:00:40", 10))
    listener.due("12:01:08")
    assert listener.hear(beat("12:02:05", 10)) == ["12:01 empty"]
    assert listener.hear(trade("12:00:30", 9), now="12:02:10") == ["12:00 candle 3"]


def test_a_late_trade_is_noticed_below_an_open_hole_too() -> None:
    listener = ear("coinbase")
    listener.hear(trade("11:59:50", 7), trade("12:00:10", 8), beat("12:01:01", 8), trade("12:02:10", 12))
    assert listener.hear(trade("12:00:50", 9), now="12:02:12") == ["! late_trade", "12:00 candle 2"]


def test_a_trade_that_comes_hours_late_is_remarked_and_its_minute_is_left_alone() -> None:
    listener = ear("coinbase")
    listener.hear(trade("11:59:50", 7), trade("12:00:10", 8), beat("13:00:01", 8))
    assert listener.hear(trade("12:00:50", 9), now="13:00:05") == ["! late_trade"]
    assert listener.hear(beat("13:01:01", 9)) == ["13:00 empty"]


def test_a_minute_said_anew_is_held_against_the_rules_again() -> None:
    listener = ear("coinbase")
    listener.hear(trade("11:59:50", 7), trade("12:00:10", 8), beat("12:01:01", 8))
    assert listener.hear(trade("12:00:50", 9, price="0"), now="12:01:03") == [
        "! late_trade",
        "12:00 rejected nonpositive_price",
    ]


def test_a_trade_with_a_time_long_past_makes_no_minute_empty_that_was_not() -> None:
    """Its minute has been forgotten; what was forgotten must not look like nothing."""
    listener = ear("coinbase")
    listener.hear(trade("11:59:50", 7))
    for minute in range(30):
        listener.hear(trade(f"12:{minute:02}:30", 8 + minute))
    outcomes = listener.hear(trade("12:10:30", 50), now="12:29:40")
    outcomes += listener.hear(trade("12:29:50", 51), beat("12:31:05", 51))
    assert [line for line in outcomes if not line.startswith("!")] == ["12:29 missing_trades", "12:30 empty"]


def test_a_trade_with_a_time_before_a_lower_ids_proves_nothing_that_came_before_it() -> None:
    """At 12:01:20 there were eight; so 9, which was lost, may be of 12:01, whatever time trade 10 claims."""
    listener = ear("coinbase")
    listener.hear(trade("11:59:50", 7), trade("12:00:10", 8), beat("12:01:20", 8))
    outcomes = listener.hear(trade("12:00:30", 10), beat("12:03:05", 10), now="12:03:06")
    assert [line for line in outcomes if not line.startswith("!")] == ["12:01 missing_trades", "12:02 empty"]


def test_a_trade_with_a_time_years_past_costs_no_time() -> None:
    listener = ear("coinbase")
    listener.hear(Traded(SYMBOL, Trade(7, Millis(1_300_000_000_000), Decimal(1), Decimal(1))), now="12:00:05")
    since = perf_counter()
    listener.hear(trade("12:00:10", 9))
    assert perf_counter() - since < 0.1


# --- trades and heartbeats: rules, doubt, bounds ----------------------------------------------------------


def test_a_rejected_candle_leaves_its_minute_a_gap_that_names_the_rule() -> None:
    listener = ear("coinbase")
    listener.hear(trade("11:59:50", 7), trade("12:00:10", 8, price="0"))
    assert listener.hear(beat("12:01:01", 8)) == ["12:00 rejected nonpositive_price"]
    (verdict,) = listener.assembler.due(at("12:01:08"))
    assert verdict == Unsure(Series("coinbase", SYMBOL), at("12:00"), at("12:01"), Reason.REJECTED, "nonpositive_price")
    assert listener.hear(beat("12:02:01", 8)) == ["12:01 empty"]


def test_nothing_is_proven_while_the_venue_doubts_itself_and_what_was_heard_is_proven_after() -> None:
    listener = ear("coinbase")
    listener.hear(trade("11:59:50", 7), trade("12:00:10", 8))
    listener.assembler.doubted("maintenance")
    assert listener.hear(beat("12:01:05", 8), trade("12:01:10", 9), beat("12:02:05", 9)) == []
    assert listener.due("12:02:08") == ["12:00-12:02 suspect"]
    listener.assembler.doubted(None)
    assert listener.hear(beat("12:02:09", 9)) == ["12:00 candle 1", "12:01 candle 1"]


def test_a_hole_filled_while_the_venue_doubts_itself_is_proven_after() -> None:
    listener = ear("coinbase")
    listener.hear(trade("11:59:50", 7), trade("12:00:10", 8), trade("12:00:40", 10), beat("12:02:05", 10))
    listener.assembler.doubted("maintenance")
    assert listener.hear(trade("12:00:30", 9), beat("12:02:08", 10), now="12:02:10") == []
    listener.assembler.doubted(None)
    assert listener.hear(beat("12:02:11", 10)) == ["12:00 candle 3", "12:01 empty"]


def test_what_was_forgotten_during_a_long_doubt_does_not_look_empty() -> None:
    listener = ear("coinbase")
    listener.assembler.doubted("maintenance")
    for n in range(100):
        time = Millis(at("12:00") + n * MINUTE)
        listener.outcomes(Traded(SYMBOL, Trade(7 + n, time, Decimal(1), Decimal(1))), now=time)
    listener.assembler.doubted(None)
    words = listener.hear(beat("13:41", 106))
    assert len(words) > 55
    assert words[0].endswith("unproven")
    assert {word.partition(" ")[2] for word in words[1:]} == {"candle 1"}
    assert words[-1] == "13:39 candle 1"


def test_a_late_trade_says_nothing_anew_while_the_venue_doubts_itself() -> None:
    listener = ear("coinbase")
    listener.hear(trade("11:59:50", 7), trade("12:00:10", 8), beat("12:01:01", 8))
    listener.assembler.doubted("maintenance")
    assert listener.hear(trade("12:00:50", 9), now="12:01:03") == ["! late_trade"]


def size_of(assembler: Assembler) -> int:
    return len(pickle.dumps(assembler))


def every_minute(count: int) -> Iterator[Millis]:
    return (Millis(at("12:00") + n * MINUTE) for n in range(count))


@pytest.mark.parametrize("every", [1, 2, 3], ids=["all heard", "every other one lost", "a third heard"])
def test_what_is_kept_of_trades_is_bounded_however_many_are_missing(every: int) -> None:
    listener = ear("coinbase")
    for n, minute in enumerate(every_minute(3_000)):
        for k in range(3):
            time = Millis(minute + 20_000 * k)
            listener.outcomes(Traded(SYMBOL, Trade(7 + every * (3 * n + k), time, Decimal(1), Decimal(1))), now=time)
        list(listener.assembler.due(Millis(minute + 59_000)))
    assert size_of(listener.assembler) < 60_000


def test_what_is_kept_during_a_long_doubt_is_bounded() -> None:
    listener = ear("coinbase")
    listener.assembler.doubted("maintenance")
    for n, minute in enumerate(every_minute(3_000)):
        listener.outcomes(Traded(SYMBOL, Trade(7 + n, minute, Decimal(1), Decimal(1))), now=minute)
        list(listener.assembler.due(minute))
    assert size_of(listener.assembler) < 60_000


# --- rows that count their trades: proof ------------------------------------------------------------------


def test_a_row_is_proven_by_the_first_trade_after_it() -> None:
    listener = ear("kraken")
    listener.hear(seen("11:59:50", 7), seen("12:00:10", 8), seen("12:00:40", 9))
    assert listener.hear(row("12:00", 1), row("12:00", 2), now="12:00:41") == []
    (candle,) = listener.outcomes(seen("12:01:30", 10), now="12:01:31")
    assert candle == Candle(
        Series("kraken", SYMBOL), at("12:00"), 100.0, 100.0, 100.0, 100.0, 2.0, None, None, 2,
        Source.WEBSOCKET, at("12:01:31"), at("12:01"),
    )  # fmt: skip


def test_minutes_without_an_id_between_them_were_empty() -> None:
    listener = ear("kraken")
    assert listener.hear(seen("11:59:50", 7), seen("12:03:10", 8)) == ["12:00-12:03 empty"]
    listener.hear(row("12:03", 1), now="12:03:11")
    assert listener.hear(seen("12:06:10", 9)) == ["12:03 candle 1", "12:04-12:06 empty"]


def test_the_clock_alone_makes_no_row_a_candle() -> None:
    listener = ear("kraken")
    listener.hear(seen("11:59:50", 7), seen("12:00:10", 8))
    listener.hear(row("12:00", 1), now="12:00:11")
    assert listener.due("12:01:08") == ["12:00 unproven"]
    assert listener.hear(seen("12:04:30", 9)) == ["12:00 candle 1", "12:01-12:04 empty"]


def test_trades_that_the_feed_skipped_do_not_matter_if_the_row_counted_them() -> None:
    listener = ear("kraken")
    listener.hear(seen("11:59:50", 7), seen("12:00:10", 8))
    listener.hear(row("12:00", 40), now="12:00:41")
    assert listener.hear(seen("12:01:30", 48)) == ["12:00 candle 40"]


def test_a_row_that_counts_no_trade_is_an_empty_minute_once_ids_say_so() -> None:
    listener = ear("kraken")
    listener.hear(seen("11:59:50", 7), row("12:00", 0), now="12:00:41")
    assert listener.hear(seen("12:01:30", 8)) == ["12:00 empty"]


def test_a_row_that_counts_too_few_is_not_proven() -> None:
    listener = ear("kraken")
    listener.hear(seen("11:59:50", 7), seen("12:00:10", 8))
    listener.hear(row("12:00", 2), now="12:00:41")
    assert listener.hear(seen("12:01:30", 11)) == []
    assert listener.due("12:02:08") == ["12:00-12:02 unproven"]


def test_a_row_that_counts_too_many_is_not_proven() -> None:
    listener = ear("kraken")
    listener.hear(seen("11:59:50", 7), seen("12:00:10", 8))
    listener.hear(row("12:00", 4), now="12:00:41")
    assert listener.hear(seen("12:01:30", 11)) == []


def test_a_row_that_comes_after_the_next_minute_began_is_proven_then() -> None:
    listener = ear("kraken")
    listener.hear(seen("11:59:50", 7), seen("12:00:10", 8))
    listener.hear(row("12:00", 2), now="12:00:41")
    assert listener.hear(seen("12:01:01", 11)) == []
    assert listener.hear(row("12:00", 3), now="12:01:02") == ["12:00 candle 3"]


def test_an_older_state_of_a_row_does_not_replace_a_newer_one() -> None:
    listener = ear("kraken")
    listener.hear(seen("11:59:50", 7), seen("12:00:10", 8))
    listener.hear(row("12:00", 3), row("12:00", 1), now="12:00:41")
    assert listener.hear(seen("12:01:01", 11)) == ["12:00 candle 3"]
    assert listener.hear(row("12:00", 1), row("12:00", 3), now="12:01:02") == []


def test_of_two_rows_of_one_count_the_later_one_is_the_candle() -> None:
    listener = ear("kraken")
    listener.hear(seen("11:59:50", 7), seen("12:00:10", 8))
    listener.hear(row("12:00", 3), row("12:00", 3, 100.5), now="12:00:41")
    (candle,) = listener.outcomes(seen("12:01:01", 11))
    assert isinstance(candle, Candle)
    assert candle.close == 100.5


def test_a_trade_of_an_older_minute_that_comes_late_holds_up_no_row_of_it() -> None:
    listener = ear("kraken")
    listener.hear(seen("11:59:50", 7), seen("12:02:01", 11), seen("12:01:30", 10), now="12:02:02")
    assert listener.hear(row("12:00", 2), now="12:02:03") == ["12:00 candle 2"]
    assert listener.hear(row("12:01", 1), now="12:02:04") == ["12:01 candle 1"]


@pytest.mark.parametrize("skipped", ["last", "first"])
def test_a_boundary_trade_that_was_not_seen_leaves_its_minutes_unproven(skipped: str) -> None:
    """12:00 has 8, 9; 12:01 has 10, 11; 12:02 has 12: without 9 or 10 each, only 12:00 and 12:01 together can tell."""
    listener = ear("kraken")
    listener.hear(seen("11:59:50", 7), seen("12:00:10", 8), row("12:00", 2), now="12:00:41")
    if skipped == "first":
        listener.hear(seen("12:00:50", 9), now="12:00:50")
        assert listener.hear(seen("12:01:50", 11), now="12:01:50") == []
    else:
        assert listener.hear(seen("12:01:10", 10), now="12:01:10") == ["12:00 candle 2"]
        return
    listener.hear(row("12:01", 2), now="12:01:51")
    assert listener.hear(seen("12:02:30", 12)) == ["12:00 candle 2", "12:01 candle 2"]


def test_a_run_of_skipped_trades_across_a_boundary_is_told_by_both_rows_together() -> None:
    listener = ear("kraken")
    listener.hear(seen("11:59:50", 7))
    listener.hear(row("12:00", 5), now="12:00:59")
    listener.hear(row("12:01", 4), now="12:01:59")
    assert listener.hear(seen("12:02:30", 17)) == ["12:00 candle 5", "12:01 candle 4"]


def test_a_run_of_skipped_trades_across_a_boundary_spoils_both_minutes_if_a_row_missed_some() -> None:
    listener = ear("kraken")
    listener.hear(seen("11:59:50", 7))
    listener.hear(row("12:00", 5), now="12:00:59")
    listener.hear(row("12:01", 3), now="12:01:59")
    assert listener.hear(seen("12:02:30", 17)) == []
    assert listener.due("12:03:08") == ["12:00-12:03 unproven"]


def test_a_minute_that_cannot_be_proven_does_not_hold_up_the_next_ones() -> None:
    listener = ear("kraken")
    listener.hear(seen("11:59:50", 7), seen("12:00:10", 8))
    listener.hear(row("12:00", 1), seen("12:01:10", 12), row("12:01", 1), now="12:01:10")
    listener.hear(seen("12:02:10", 13), row("12:02", 1), now="12:02:10")
    assert listener.hear(seen("12:03:10", 14)) == ["12:00-12:02 unproven", "12:02 candle 1"]


def test_trades_that_come_in_another_order_prove_as_soon_as_they_are_there() -> None:
    """The last trade of 12:00 comes after the first two minutes' rows and after 12:02 began."""
    listener = ear("kraken")
    listener.hear(seen("12:00:10", 8), row("12:00", 2), now="12:00:50")
    listener.hear(seen("12:01:30", 10), row("12:01", 1), now="12:01:30")
    assert listener.hear(seen("12:02:00.1", 11)) == []
    assert listener.hear(seen("12:00:59.9", 9), now="12:02:00.200") == ["12:00 unproven", "12:01 candle 1"]


def test_the_first_trade_of_the_next_minute_may_come_second() -> None:
    listener = ear("kraken")
    listener.hear(seen("11:59:50", 7), seen("12:00:10", 8), row("12:00", 1), now="12:00:50")
    assert listener.hear(seen("12:01:01", 10), now="12:01:02") == []
    assert listener.hear(seen("12:01:00", 9), now="12:01:03") == ["12:00 candle 1"]


def test_the_minute_in_which_we_joined_is_never_proven_by_a_row() -> None:
    listener = ear("kraken", connected="12:00:10")
    listener.hear(seen("12:00:20", 8), row("12:00", 2), now="12:00:21")
    assert listener.hear(seen("12:01:20", 9)) == []
    listener.hear(row("12:01", 1), now="12:01:21")
    assert listener.hear(seen("12:02:20", 10)) == ["12:00 disconnected", "12:01 candle 1"]


def test_a_snapshot_proves_the_minutes_without_a_connection() -> None:
    listener = ear("kraken")
    listener.hear(seen("11:59:50", 7), seen("12:00:10", 8), row("12:00", 1), now="12:00:11")
    listener.disconnected("12:00:20")
    assert listener.due("12:03:08") == ["12:00-12:03 disconnected"]
    listener.connected("12:03:10")
    rows = row("12:00", 2), row("12:02", 1), row("12:03", 1)
    assert listener.hear(*rows, now="12:03:10") == []
    assert listener.hear(seen("12:02:30", 10), seen("12:03:05", 11), now="12:03:10") == [
        "12:00 candle 2",
        "12:01 empty",
        "12:02 candle 1",
    ]


def test_a_snapshot_says_nothing_about_minutes_before_the_first_expected_one() -> None:
    listener = ear("kraken", frontier="12:02", earliest="12:01")
    rows = row("11:59", 1), row("12:00", 1, high=1.0), row("12:01", 1), row("12:02", 1)
    listener.hear(*rows, now="12:02:30")
    trades = seen("11:58:30", 7), seen("11:59:30", 8), seen("12:00:30", 9), seen("12:01:30", 10), seen("12:02:20", 11)
    assert listener.hear(*trades, now="12:02:30") == ["12:01 candle 1"]


# --- rows that count their trades: what is wrong, doubtful, unbounded -------------------------------------


def test_a_row_that_changes_after_it_was_proven_is_said_anew() -> None:
    listener = ear("kraken")
    listener.hear(seen("11:59:50", 7), seen("12:00:10", 8), row("12:00", 1), now="12:00:11")
    assert listener.hear(seen("12:01:01", 9)) == ["12:00 candle 1"]
    assert listener.hear(row("12:00", 2), now="12:01:02") == ["! late_row", "12:00 candle 2"]
    assert listener.hear(row("12:00", 2), now="12:01:03") == []


def test_a_row_of_the_same_count_and_other_numbers_is_said_anew_after_it_was_proven() -> None:
    listener = ear("kraken")
    listener.hear(seen("11:59:50", 7), seen("12:00:10", 8), row("12:00", 1), seen("12:01:01", 9), now="12:01:01")
    other = row("12:00", 1, 100.5, high=101.0)
    late, anew = listener.outcomes(other, now="12:01:02")
    assert told([late, anew]) == ["! late_row", "12:00 candle 1"]
    assert isinstance(anew, Candle)
    assert (anew.high, anew.close) == (101.0, 100.5)
    assert listener.hear(other, now="12:01:03") == []


def test_a_row_that_changes_four_minutes_after_it_was_proven_is_said_anew() -> None:
    listener = ear("kraken")
    listener.hear(seen("11:59:50", 7), now="11:59:51")
    for minute, trade_id in (("12:00", 8), ("12:01", 9), ("12:02", 10), ("12:03", 11), ("12:04", 12)):
        listener.hear(seen(minute, trade_id), row(minute, 1), now=minute)
    assert listener.hear(seen("12:05:01", 13)) == ["12:04 candle 1"]
    assert listener.hear(row("12:00", 1, 100.5), now="12:05:02") == ["! late_row", "12:00 candle 1"]


def test_a_row_said_anew_is_held_against_the_rules_again() -> None:
    listener = ear("kraken")
    listener.hear(seen("11:59:50", 7), seen("12:00:10", 8), row("12:00", 1), seen("12:01:01", 9), now="12:01:01")
    assert listener.hear(row("12:00", 2, high=1.0), now="12:01:02") == ["! late_row", "12:00 rejected high_below_low"]


def test_a_trade_that_comes_after_its_minute_was_proven_is_remarked() -> None:
    listener = ear("kraken")
    listener.hear(seen("11:59:50", 7), seen("12:00:10", 8), row("12:00", 1), seen("12:01:01", 9), now="12:01:01")
    assert listener.hear(seen("12:00:50", 12), now="12:01:02") == ["! late_trade"]
    assert listener.hear(seen("12:00:10", 8), now="12:01:02") == []


def test_a_row_that_breaks_a_rule_leaves_its_minute_a_gap() -> None:
    listener = ear("kraken")
    listener.hear(seen("11:59:50", 7), seen("12:00:10", 8), row("12:00", 1, high=1.0), now="12:00:11")
    assert listener.hear(seen("12:01:01", 9)) == ["12:00 rejected high_below_low"]
    assert listener.due("12:01:08") == ["12:00 rejected"]


def test_a_row_that_does_not_begin_at_a_minute_is_rejected_and_counts_nothing() -> None:
    listener = ear("kraken")
    listener.hear(seen("11:59:50", 7), now="12:00:11")
    assert listener.hear(row("12:01:30", 1), now="12:02:11") == ["12:01 rejected unaligned"]
    assert listener.hear(seen("12:03:01", 9)) == []
    assert listener.due("12:04:08") == ["12:00 unproven", "12:01 rejected", "12:02-12:04 unproven"]


def test_rows_and_trades_of_absurd_times_are_remarked_and_change_nothing() -> None:
    listener = ear("kraken")
    listener.hear(seen("11:59:50", 7), now="12:00:11")
    absurd = row("12:30", 1), seen("12:30", 8), row("00:00", 1)
    assert listener.hear(*absurd[:2], now="12:00:20") == ["! wrong_time", "! wrong_time"]
    assert listener.hear(absurd[2], now=at("12:00") + 24 * 60 * MINUTE) == ["! wrong_time"]
    assert listener.hear(seen("12:01:01", 8)) == ["12:00 empty"]


def test_a_wrong_time_is_said_with_its_sign() -> None:
    listener = ear("kraken")
    (behind,) = listener.outcomes(row("00:00", 1), now=at("12:00") + 24 * 60 * MINUTE)
    (ahead,) = listener.outcomes(row("12:30", 1), now="12:00")
    assert isinstance(behind, Remark)
    assert isinstance(ahead, Remark)
    assert f"row is {36 * 60 * MINUTE} ms behind our clock" in behind.text
    assert f"row is {30 * MINUTE} ms ahead of our clock" in ahead.text


@pytest.mark.parametrize("venue", list(VENUES))
def test_a_sleep_of_a_million_years_costs_no_more_than_one_of_an_hour(venue: str) -> None:
    """Minute by minute it would take days."""
    listener, until = ear(venue), Millis(at("12:00") + 1_000_000 * 365 * 1440 * MINUTE)
    listener.assembler.disconnected(at("12:01:30"))
    listener.assembler.connected(Millis(until - 90_000))
    others, asleep = listener.assembler.default_reason, Reason.DISCONNECTED
    given = list(listener.assembler.give_up(until))
    assert [(one.since, one.until, one.reason) for one in given if isinstance(one, Unsure)] == [
        (at("12:00"), at("12:01"), others),
        (at("12:01"), until - MINUTE, asleep),
        (until - MINUTE, until, others),
    ]


def test_a_hole_of_a_million_years_in_the_ids_is_one_reason() -> None:
    listener, late = ear("coinbase"), Millis(at("12:00") + 1_000_000 * 365 * 1440 * MINUTE)
    listener.hear(trade("12:00:10", 7))
    trades = [Traded(SYMBOL, attrs.evolve(trade("12:00:10", 9).trade, time=late))]
    outcomes = listener.outcomes(*trades, now=late)
    assert [one.kind for one in outcomes if isinstance(one, Remark)] == ["missing_trades"]
    (gap,) = listener.assembler.give_up(late)
    assert isinstance(gap, Unsure)
    assert (gap.since, gap.until, gap.reason) == (at("12:00"), late, Reason.MISSING_TRADES)


def test_a_doubt_about_a_later_minute_is_none_about_the_one_before_it() -> None:
    """A hole among the ids of 12:01 is known before 12:00 has its verdict."""
    listener = ear("coinbase")
    listener.hear(trade("12:00:10", 7), trade("12:01:05", 8), trade("12:01:20", 10), now="12:01:20")
    assert told(listener.assembler.give_up(at("12:00"))) == []
    assert told(listener.assembler.give_up(at("12:01"))) == ["12:00 unproven"]
    assert told(listener.assembler.give_up(at("12:02"))) == ["12:01 missing_trades"]


def test_no_row_is_proven_while_the_venue_doubts_itself() -> None:
    listener = ear("kraken")
    listener.assembler.doubted("maintenance")
    listener.hear(seen("11:59:50", 7), seen("12:00:10", 8), row("12:00", 1), now="12:00:11")
    assert listener.hear(seen("12:01:01", 9)) == []
    listener.assembler.doubted(None)
    assert listener.hear(seen("12:02:01", 10)) == ["12:00 candle 1"]


def test_no_row_is_said_anew_while_the_venue_doubts_itself() -> None:
    listener = ear("kraken")
    listener.hear(seen("11:59:50", 7), seen("12:00:10", 8), row("12:00", 1), seen("12:01:01", 9), now="12:01:01")
    listener.assembler.doubted("maintenance")
    assert listener.hear(row("12:00", 2), now="12:01:02") == ["! late_row"]


@pytest.mark.parametrize("heard", ["rows and trades", "rows", "trades", "rows that never fit"])
def test_what_is_kept_of_rows_is_bounded_whatever_is_missing(heard: str) -> None:
    listener = ear("kraken")
    for n, minute in enumerate(every_minute(4_000)):
        events: list[Event] = []
        if "trades" in heard or "fit" in heard:
            events.append(TradeSeen(SYMBOL, 7 + (3 if "fit" in heard else 1) * n, minute))
        if "rows" in heard:
            events.append(attrs_row(minute))
        listener.outcomes(*events, now=minute + 1_000)
        list(listener.assembler.due(Millis(minute + 1_000)))
    assert size_of(listener.assembler) < 250_000


def test_what_is_kept_of_rows_that_were_proven_is_next_to_nothing() -> None:
    listener = ear("kraken")
    for n, minute in enumerate(every_minute(500)):
        listener.outcomes(TradeSeen(SYMBOL, 7 + n, minute), attrs_row(minute), now=minute + 1_000)
    assert size_of(listener.assembler) < 10_000


def test_of_more_minutes_than_are_tried_together_the_oldest_goes_and_the_next_is_proven_from_its_last_id() -> None:
    listener = ear("kraken")
    for n, minute in enumerate(every_minute(21)):
        first, last = (TradeSeen(SYMBOL, 10 * n + more, Millis(minute + more)) for more in (10, 15))
        assert listener.hear(first, last) == []
    assert listener.hear(row("12:01", 14), now="12:20:30") == ["12:00 unproven", "12:01 candle 14"]


def test_of_more_rows_than_are_kept_the_oldest_go() -> None:
    listener = ear("kraken")
    for minute in every_minute(1_500):
        listener.outcomes(attrs_row(minute), now=minute + 1_000)
    before, after = TradeSeen(SYMBOL, 7, Millis(minute - 1)), TradeSeen(SYMBOL, 9, Millis(minute + MINUTE))
    assert listener.hear(before, after, now=minute + MINUTE + 1)[-1] == f"{clock(minute)} candle 1"


def attrs_row(minute: int) -> Row:
    return Row(SYMBOL, Millis(minute), Millis(minute + MINUTE), 1.0, 1.0, 1.0, 1.0, 1.0, None, None, 1, closed=False)


def test_rows_of_every_absurd_time_are_not_kept() -> None:
    listener = ear("kraken")
    for n in range(20_000):
        listener.outcomes(attrs_row(at("12:00") - n * 997), now="12:00:30")
    assert size_of(listener.assembler) < 250_000


def test_many_unproven_rows_cost_little_time() -> None:
    """A day of rows and twenty minutes of ids that fit none of them, then each row changes once more."""
    listener = ear("kraken")
    minutes = [Millis(at("12:00") - n * MINUTE) for n in range(700)][::-1]
    listener.outcomes(*map(attrs_row, minutes), now="12:00:30")
    listener.outcomes(
        *(TradeSeen(SYMBOL, 1_000 + 5 * n, minute) for n, minute in enumerate(minutes[-20:])), now="12:00:30"
    )
    since = perf_counter()
    listener.outcomes(*map(attrs_row, minutes[:100]), now="12:00:31")
    assert perf_counter() - since < 0.5


# --- rows that say they are closed ------------------------------------------------------------------------


def test_a_row_that_says_it_is_closed_is_a_candle_even_of_the_minute_in_which_we_joined() -> None:
    listener = ear("okx", connected="12:00:30")
    assert listener.hear(row("12:00", None, closed=False), now="12:00:59") == []
    assert listener.hear(row("12:00", None, closed=True), now="12:01:00.2") == ["12:00 candle None"]


def test_a_closed_row_said_again_or_otherwise_is_passed_on_for_the_store_to_judge() -> None:
    listener = ear("okx")
    first, again = row("12:00", None, closed=True), row("12:00", None, 101.0, closed=True)
    outcomes = listener.outcomes(first, first, again, now="12:01:01")
    assert [(clock(candle.open_time), candle.close) for candle in outcomes] == [
        ("12:00", 100.0),
        ("12:00", 100.0),
        ("12:00", 101.0),
    ]


def test_silence_is_never_an_empty_minute() -> None:
    listener = ear("okx")
    assert listener.hear(row("12:00", None, closed=True), row("12:03", None, closed=True)) == [
        "12:00 candle None",
        "12:01-12:03 no_close",
        "12:03 candle None",
    ]


def test_a_close_that_comes_late_closes_its_gap() -> None:
    listener = ear("okx")
    assert listener.due("12:01:08") == ["12:00 no_close"]
    assert listener.hear(row("12:00", None, closed=True), now="12:01:30") == ["12:00 candle None"]


def test_no_close_is_believed_while_the_venue_doubts_itself() -> None:
    listener = ear("okx")
    listener.assembler.doubted("maintenance")
    assert listener.hear(row("12:00", None, closed=True), now="12:01:01") == []
    assert listener.due("12:01:08") == ["12:00 suspect"]


@pytest.mark.parametrize(
    ("wrong", "rule"),
    [
        (row("12:00", None, closed=True, high=1.0), Rule.HIGH_BELOW_LOW),
        (row("12:00", None, float("nan"), closed=True), Rule.NOT_FINITE),
        (row("12:00:30", None, closed=True), Rule.UNALIGNED),
        (row("12:30", None, closed=True), Rule.IN_FUTURE),
    ],
    ids=lambda value: value.value if isinstance(value, Rule) else "",
)
def test_a_closed_row_that_breaks_a_rule_is_no_candle(wrong: Row, rule: Rule) -> None:
    listener = ear("okx")
    (outcome,) = listener.outcomes(wrong, now="12:01:01")
    assert isinstance(outcome, Rejected)
    assert outcome.rule is rule
    reason = "no_close" if rule is Rule.IN_FUTURE else "rejected"
    assert listener.due("12:01:08") == [f"12:00 {reason}"]


def test_a_rejected_row_of_a_minute_to_come_says_nothing_of_that_minute() -> None:
    listener = ear("okx")
    assert listener.hear(row("12:05", 1, closed=True), now="12:00:30") == ["12:05 rejected in_future"]
    assert listener.due("12:06:08") == ["12:00-12:06 no_close"]


def test_why_a_minute_is_in_doubt_is_kept_while_the_minute_before_it_is_given_up() -> None:
    listener = ear("okx")
    listener.hear(row("12:01", 1, closed=True, high=1.0), now="12:02:01")
    assert listener.due("12:02:07") == ["12:00 no_close"]
    assert listener.due("12:02:08") == ["12:01 rejected"]


def test_a_minute_whose_first_row_was_rejected_may_still_be_closed_by_another() -> None:
    listener = ear("okx")
    wrong, right = row("12:00", None, closed=True, high=1.0), row("12:00", None, closed=True)
    assert listener.hear(wrong, right, now="12:01:01") == ["12:00 rejected high_below_low", "12:00 candle None"]
    assert listener.due("12:02:08") == ["12:01 no_close"]


def test_nothing_is_said_about_a_row_before_the_first_expected_minute_right_or_wrong() -> None:
    listener = ear("okx", frontier="12:02", earliest="12:01")
    rows = row("12:00", None, closed=True), row("12:00", None, closed=True, high=1.0), row("12:01", None, closed=True)
    assert listener.hear(*rows, now="12:02:01") == ["12:01 candle None"]


# --- the simulated market ---------------------------------------------------------------------------------

MARKET = Market(7)
HOURS = [Millis(at("12:00") + n * MINUTE) for n in range(120)]


def said_by(venue: str, symbol: str) -> Iterator[tuple[int, Event]]:
    """What *venue* says in two hours, each a few milliseconds after it happened."""
    for minute in HOURS:
        trades = MARKET.trades(venue, symbol, minute)
        if venue == "coinbase":
            said = [
                (t.time_us // 1000 + 30, Traded(symbol, Trade(t.trade_id, Millis(t.time_us // 1000), t.price, t.size)))
                for t in trades
            ]
            for second in range(60):
                time = Millis(minute + second * 1000 + 100)
                last = MARKET.last_trade_before(venue, symbol, (time + 1) * 1000).trade_id
                said.append((time + 31, Heartbeat(symbol, time, last)))
            yield from sorted(said, key=lambda pair: pair[0])
            continue
        prices: list[float] = []
        volume = Decimal(0)
        for count, t in enumerate(trades, 1):
            time = Millis(t.time_us // 1000)
            prices.append(float(t.price))
            volume += t.size
            yield time + 30, TradeSeen(symbol, t.trade_id, time)
            yield time + 31, Row(
                symbol, minute, Millis(minute + MINUTE), prices[0], max(prices), min(prices), prices[-1],
                float(volume), None, None, count, closed=False,
            )  # fmt: skip


def verdicts_on(venue: str, symbol: str, said: Iterable[tuple[int, Event]]) -> tuple[dict[int, Outcome], list[str]]:
    """The last word on each minute, and all words."""
    assembler = assembler_for(VENUES[venue].proof, Series(venue, symbol), HOURS[0])
    assembler.connected(HOURS[0])
    outcomes: list[Outcome] = []
    watch = HOURS[0]
    for moment, event in said:
        while watch < moment:
            outcomes += assembler.due(watch)
            watch = Millis(watch + 1000)
        outcomes += assembler.hear(event, Millis(moment))
    last: dict[int, Outcome] = {}
    for outcome in outcomes:
        if isinstance(outcome, Candle):
            last[outcome.open_time] = outcome
        elif isinstance(outcome, (Empty, Unsure)):
            for minute in range(outcome.since, outcome.until, MINUTE):
                last[minute] = outcome
    return last, told(outcomes)


def assert_true(venue: str, symbol: str, last: dict[int, Outcome]) -> None:
    for minute, verdict in last.items():
        truth = MARKET.candle(venue, symbol, minute)
        if isinstance(verdict, Empty):
            assert truth is None
        elif isinstance(verdict, Candle):
            assert truth is not None
            assert (verdict.open, verdict.high, verdict.low, verdict.close, verdict.volume, verdict.trades_count) == (
                float(truth.open), float(truth.high), float(truth.low), float(truth.close), float(truth.volume),
                truth.trades_count,
            )  # fmt: skip
            assert verdict.quote_volume == (float(truth.quote_volume) if venue == "coinbase" else None)


SIMULATED = pytest.mark.parametrize(
    ("venue", "symbol"),
    [("coinbase", "BTC-USD"), ("coinbase", "ADA-USD"), ("kraken", "BTC/USD"), ("kraken", "SOL/USD")],
)


@SIMULATED
def test_a_feed_without_a_fault_is_proven_to_the_bit(venue: str, symbol: str) -> None:
    said = list(said_by(venue, symbol))
    last, _ = verdicts_on(venue, symbol, said)
    assert_true(venue, symbol, last)
    times = [e.trade.time if isinstance(e, Traded) else e.time for _, e in said if isinstance(e, (Traded, TradeSeen))]
    first = times[0] // MINUTE * MINUTE + MINUTE
    until = HOURS[-1] if venue == "coinbase" else times[-1] // MINUTE * MINUTE
    assert all(isinstance(last[minute], (Candle, Empty)) for minute in range(first, until, MINUTE))
    assert sum(isinstance(verdict, Candle) for verdict in last.values()) > 20


@SIMULATED
@pytest.mark.parametrize("lost", [3, 50, 400], ids="1 in {}".format)
def test_a_feed_that_drops_messages_is_never_believed_too_much(venue: str, symbol: str, lost: int) -> None:
    said = [pair for n, pair in enumerate(said_by(venue, symbol)) if n * 7919 % 65_537 % lost]
    last, words = verdicts_on(venue, symbol, said)
    assert_true(venue, symbol, last)
    assert any(word.endswith(("missing_trades", "unproven")) for word in words)
