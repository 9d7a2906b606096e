"""Recorded real data, read and judged by us, against what independent programs found in it (EXPECTED.json)."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise

import attrs
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from recorded import DATA, SESSIONS, expected, frames, recorded

from trio_candles.assembly import FromCountedRows, FromStatedCloses, FromTrades, Rejected
from trio_candles.candles.folding import fold_trades
from trio_candles.candles.model import MINUTE, Candle, Empty, Millis, Reason, Series, Source, Trade, Unsure, floor_to
from trio_candles.candles.validation import Rule, broken_rule
from trio_candles.venues.protocol import Heartbeat, Misunderstood, Row, Skipped, Traded, TradeSeen, exact, time_of
from trio_candles.venues.registry import VENUES

NOW = Millis(1_790_000_000_000)
"""After everything that was recorded."""


# --- every recorded frame, read by every venue's reader ---------------------------------------------------

# What a frame yields, counted per event; "bad_shape" and the like: frames misunderstood, and why.
READ = {
    ("coinbase_advtrade_20260809_BTC-USD.jsonl", "coinbase"): {"bad_shape": 146},
    ("coinbase_advtrade_20260809_BTC-USD.jsonl", "kraken"): {"unknown_channel": 146},
    ("coinbase_advtrade_20260809_BTC-USD.jsonl", "okx"): {"bad_shape": 146},
    ("coinbase_advtrade_20260809_contiguous_tail.jsonl", "coinbase"): {"bad_shape": 230},
    ("coinbase_advtrade_20260809_contiguous_tail.jsonl", "kraken"): {"unknown_channel": 230},
    ("coinbase_advtrade_20260809_contiguous_tail.jsonl", "okx"): {"bad_shape": 230},
    # 85 tickers; 5 last_match and 80 match; three acknowledgements that list up to three channels of ten products.
    ("coinbase_exchange_20210417_matches_ticker.jsonl", "coinbase"): {"Acked": 60, "unknown_type": 85, "Traded": 85},
    ("coinbase_exchange_20210417_matches_ticker.jsonl", "kraken"): {"bad_shape": 173},
    ("coinbase_exchange_20210417_matches_ticker.jsonl", "okx"): {"bad_shape": 173},
    ("kraken_v1_20210417_trade.jsonl", "coinbase"): {"bad_shape": 49},
    ("kraken_v1_20210417_trade.jsonl", "kraken"): {"bad_shape": 49},
    ("kraken_v1_20210417_trade.jsonl", "okx"): {"unknown_event": 41, "bad_shape": 8},
    ("kraken_v2_2024_05_mixed_frames.jsonl", "coinbase"): {"bad_shape": 4, "unknown_type": 4},
    # A pong and a heartbeat; the acknowledgement of another interval is one; two rows; two messages of two trades.
    ("kraken_v2_2024_05_mixed_frames.jsonl", "kraken"): {
        "Alive": 2, "Acked": 2, "SystemStatus": 1, "Row": 2, "TradeSeen": 4, "Told": 4,
    },
    ("kraken_v2_2024_05_mixed_frames.jsonl", "okx"): {"bad_shape": 8},
    ("kraken_v2_20260910_ohlc_verbatim_frames.jsonl", "coinbase"): {"bad_shape": 3, "unknown_type": 3},
    ("kraken_v2_20260910_ohlc_verbatim_frames.jsonl", "kraken"): {
        "SystemStatus": 1, "Alive": 1, "Acked": 1, "Refused": 1, "Row": 10, "Told": 2,
    },
    ("kraken_v2_20260910_ohlc_verbatim_frames.jsonl", "okx"): {"bad_shape": 6},
    ("mixed_legacy_2021_2023_frames.jsonl", "coinbase"): {"bad_shape": 12},
    ("mixed_legacy_2021_2023_frames.jsonl", "kraken"): {"bad_shape": 12},
    # Kraken v1 and futures; OKX trades; OKX rows of 2022, seven fields long.
    ("mixed_legacy_2021_2023_frames.jsonl", "okx"): {"bad_shape": 4, "unknown_channel": 4, "Unread": 4},
    # The time 0001-01-01 and the size "0.-10000" stand in messages that we do not need.
    ("oddities_coinbase_exchange_tardis.jsonl", "coinbase"): {"Traded": 1, "unknown_type": 8},
    ("oddities_coinbase_exchange_tardis.jsonl", "kraken"): {"bad_shape": 9},
    ("oddities_coinbase_exchange_tardis.jsonl", "okx"): {"bad_shape": 9},
    ("okcoin_v5_20230527_candle1m_trades.jsonl", "coinbase"): {"bad_shape": 26},
    ("okcoin_v5_20230527_candle1m_trades.jsonl", "kraken"): {"bad_shape": 26},
    ("okcoin_v5_20230527_candle1m_trades.jsonl", "okx"): {"Acked": 14, "unknown_channel": 6, "Forming": 4, "Row": 2},
    ("okx_v5_20220513_trades_tickers.jsonl", "coinbase"): {"bad_shape": 120},
    ("okx_v5_20220513_trades_tickers.jsonl", "kraken"): {"bad_shape": 120},
    ("okx_v5_20220513_trades_tickers.jsonl", "okx"): {"Acked": 18, "unknown_channel": 102},
    # Five trades, three of them last_match; two acknowledgements of two channels each; the login that level2 wants.
    ("coinbase_exchange_2026_08_09_single_frames.jsonl", "coinbase"): {
        "Traded": 5, "Heartbeat": 1, "Acked": 4, "Refused": 1, "unknown_type": 1,
    },
    ("coinbase_exchange_2026_08_09_single_frames.jsonl", "kraken"): {"bad_shape": 10},
    ("coinbase_exchange_2026_08_09_single_frames.jsonl", "okx"): {"bad_shape": 10},
    ("kraken_v2_20260925_bytex_recorded.jsonl", "coinbase"): {"bad_shape": 5, "unknown_type": 4},
    # Refused: a pair by its older name, two wrong endpoints, a channel that needs a login. A ticker is not needed.
    ("kraken_v2_20260925_bytex_recorded.jsonl", "kraken"): {
        "SystemStatus": 1, "Acked": 1, "Refused": 4, "Row": 1, "TradeSeen": 1, "unknown_channel": 1, "Told": 6,
    },
    ("kraken_v2_20260925_bytex_recorded.jsonl", "okx"): {"bad_shape": 9},
    ("kraken_v2_single_frames_2025_2026.jsonl", "coinbase"): {"bad_shape": 3},
    # Already subscribed: to both channels, to one that is named, and without the symbol, which acknowledges nothing.
    ("kraken_v2_single_frames_2025_2026.jsonl", "kraken"): {"Acked": 3, "Notice": 1},
    ("kraken_v2_single_frames_2025_2026.jsonl", "okx"): {"bad_shape": 3},
    ("okx_v5_2025_12_roq_tests.jsonl", "coinbase"): {"bad_shape": 23},
    ("okx_v5_2025_12_roq_tests.jsonl", "kraken"): {"bad_shape": 22, "unknown_channel": 1},
    # Of bad shape: three objects without a key, and two acknowledgements of channels that have no instrument.
    ("okx_v5_2025_12_roq_tests.jsonl", "okx"): {
        "Forming": 1, "Leaving": 1, "Refused": 2, "Acked": 6, "unknown_event": 1, "unknown_channel": 7, "bad_shape": 5,
    },
    ("okx_v5_20260925_bytex_recorded.jsonl", "coinbase"): {"bad_shape": 5},
    ("okx_v5_20260925_bytex_recorded.jsonl", "kraken"): {"bad_shape": 5},
    ("okx_v5_20260925_bytex_recorded.jsonl", "okx"): {"Acked": 1, "Refused": 2, "unknown_channel": 2},
}  # fmt: skip


def heard(name, venue):
    """Every event of the recorded session *name*, as *venue* reads it."""
    return [event for frame in frames(name) for event in VENUES[venue].feed.read(frame.text)]


@pytest.mark.parametrize(("name", "venue"), READ)
def test_every_recorded_frame_is_read_or_set_aside_for_a_named_reason(name, venue):
    counts = Counter()
    for frame in frames(name):
        try:
            events = VENUES[venue].feed.read(frame.text)
        except Misunderstood as error:
            counts[error.reason] += 1
        else:
            assert events, frame.text
            counts.update(event.reason if isinstance(event, Skipped) else type(event).__name__ for event in events)
    assert counts == READ[name, venue]


def test_no_recorded_session_is_left_out():
    names = [path.name for folder in SESSIONS for path in recorded(folder).iterdir()]
    assert sorted(names) == sorted({name for name, _ in READ})


# --- Coinbase: candles from trades ------------------------------------------------------------------------

ADVANCED = "coinbase_advtrade_20260809_BTC-USD.jsonl"
BTC = Series("coinbase", "BTC-USD")
MINUTE_21_05 = Millis(1_786_309_500_000)


def advanced_trades(name=ADVANCED, product="BTC-USD", newest_first=False):
    """The Advanced Trade feed's trades as the events that the Exchange feed would have given, with their time.

    All events of a message and all trades of an event count; inside a message the newest trade comes first.
    """
    found = []
    for frame in frames(name):
        message = json.loads(frame.text)
        if message["channel"] != "market_trades":
            continue
        batch = [
            Trade(int(trade["trade_id"]), time_of(trade["time"]), exact(trade["price"]), exact(trade["size"]))
            for event in message["events"]
            for trade in event["trades"]
            if trade["product_id"] == product
        ]
        for trade in batch if newest_first else reversed(batch):
            found.append((Millis(int(frame.received * 1000)), Traded(product, trade)))
    return found


def assembled(assembler, timed_events):
    assembler.connected(timed_events[0][0])
    return [outcome for now, event in timed_events for outcome in assembler.hear(event, now)]


def candles_in(outcomes):
    return [outcome for outcome in outcomes if isinstance(outcome, Candle)]


def numbers(candle):
    return candle.open, candle.high, candle.low, candle.close, candle.volume


def stated(row):
    """A row of EXPECTED.json, whose numbers are texts."""
    return tuple(float(row[key]) for key in ("open", "high", "low", "close", "volume"))


@pytest.mark.parametrize("newest_first", [False, True])
def test_coinbase_the_recorded_minute_is_built_as_the_venue_s_own_candle_shows_it(newest_first):
    known = expected()["cross_checks"][ADVANCED]["BTC-USD"]
    minute, (_, venues_own) = known["minute_2026_08_09T21_05"], known["venue_5m_candle_updates"][-1]
    outcomes = assembled(FromTrades(BTC, MINUTE_21_05), advanced_trades(newest_first=newest_first))
    (candle,) = candles_in(outcomes)
    assert candle.open_time == MINUTE_21_05 == int(venues_own["start"]) * 1000
    assert numbers(candle) == stated(minute) == stated(venues_own)
    assert candle.trades_count == minute["trades"]
    assert not [outcome for outcome in outcomes if isinstance(outcome, (Rejected, Unsure))]


def test_coinbase_the_recorded_minute_is_also_the_plain_fold_of_its_trades():
    known = expected()["cross_checks"][ADVANCED]["BTC-USD"]
    trades = {event.trade.trade_id: event.trade for _, event in advanced_trades()}
    assert len(trades) == known["trades"]
    assert (min(trades), max(trades)) == (known["id_first"], known["id_last"])
    assert max(trades) - min(trades) + 1 - len(trades) == known["missing_ids"]
    inside = [trade for trade in trades.values() if floor_to(trade.time, MINUTE) == MINUTE_21_05]
    candle = fold_trades(BTC, MINUTE_21_05, inside, Source.WEBSOCKET, NOW)
    minute = known["minute_2026_08_09T21_05"]
    assert numbers(candle) == stated(minute)
    assert candle.trades_count == minute["trades"]
    assert candle.quote_volume == float(sum(trade.price * trade.size for trade in inside))
    assert candle.low < candle.vwap < candle.high
    assert broken_rule(candle, NOW) is None


def test_coinbase_a_heartbeat_after_the_minute_proves_it_and_one_before_its_end_does_not():
    end = MINUTE_21_05 + MINUTE
    inside = [(now, event) for now, event in advanced_trades() if event.trade.time < end]
    last_id = max(event.trade.trade_id for _, event in inside)
    assembler = FromTrades(BTC, MINUTE_21_05)
    assert candles_in(assembled(assembler, inside)) == []
    for time, last, proven in [
        (end - 1, last_id, 0),
        (end + 2000, last_id + 1, 0),
        (end + 2000, 0, 0),
        (end + 2000, last_id, 1),
    ]:
        outcomes = assembler.hear(Heartbeat("BTC-USD", Millis(time), last), Millis(end + 3000))
        assert len(candles_in(outcomes)) == proven
    (candle,) = candles_in(outcomes)
    assert numbers(candle) == stated(expected()["cross_checks"][ADVANCED]["BTC-USD"]["minute_2026_08_09T21_05"])


def test_coinbase_none_of_the_recorded_minute_s_trades_can_be_missing_unnoticed():
    events = advanced_trades()
    inside = [event.trade.trade_id for _, event in events if floor_to(event.trade.time, MINUTE) == MINUTE_21_05]
    assert len(inside) == 88
    for dropped in inside:
        some = [(now, event) for now, event in events if event.trade.trade_id != dropped]
        assert candles_in(assembled(FromTrades(BTC, MINUTE_21_05), some)) == []


def test_coinbase_hearing_every_trade_twice_changes_nothing():
    once = advanced_trades()
    twice = [timed for timed in once for _ in range(2)]
    assert assembled(FromTrades(BTC, MINUTE_21_05), once) == assembled(FromTrades(BTC, MINUTE_21_05), twice)


def test_coinbase_both_recordings_of_one_session_hold_the_same_trades():
    whole = {event.trade.trade_id: event.trade for _, event in advanced_trades()}
    tail = {
        event.trade.trade_id: event.trade
        for _, event in advanced_trades(ADVANCED.replace("BTC-USD", "contiguous_tail"))
    }
    assert tail
    assert tail.items() <= whole.items()


def test_coinbase_matches_go_on_contiguously_from_the_last_match_and_half_a_minute_proves_no_candle():
    matches = defaultdict(list)
    for event in heard("coinbase_exchange_20210417_matches_ticker.jsonl", "coinbase"):
        if isinstance(event, Traded):
            matches[event.symbol].append(event)
    assert {symbol: len(events) for symbol, events in matches.items()} == {
        "BAND-GBP": 5, "SKL-BTC": 9, "BAND-BTC": 9, "NMR-EUR": 9, "SKL-USD": 53,
    }  # fmt: skip
    for symbol, events in matches.items():
        assert all(after.trade.trade_id == before.trade.trade_id + 1 for before, after in pairwise(events))
        assembler = FromTrades(Series("coinbase", symbol), floor_to(events[0].trade.time, MINUTE))
        assert candles_in(assembled(assembler, [(event.trade.time, event) for event in events])) == []


# --- Kraken: rows that count their trades -----------------------------------------------------------------

USDT = Series("kraken", "BTC/USDT")
FIRST, END = 1_762_795_440_000, 1_762_804_380_000
"""The minutes that the recorded trades cover whole: 149, half-open."""


def page(name):
    pages = json.loads(recorded(f"rest/{name}").read_text(encoding="utf-8"), parse_float=Decimal)["result"]
    return pages["XBTUSDT"]


def kraken_trades():
    return [
        Trade(trade_id, Millis(int(time * 1000)), exact(price), exact(size))
        for price, size, time, *_, trade_id in page("kraken_trades_XBTUSDT_20251110_first400.json")
    ]


def kraken_rows():
    """REST's rows as the feed would state them, by minute."""
    rows = {}
    for time, open_, high, low, close, vwap, volume, count in page("kraken_ohlc_1m_XBTUSDT_20251110_trimmed.json"):
        minute = Millis(time * 1000)
        rows[minute] = Row(
            "BTC/USDT", minute, Millis(minute + MINUTE), float(open_), float(high), float(low), float(close),
            float(volume), None, float(vwap) if count else None, count, closed=False,
        )  # fmt: skip
    return rows


def by_minute(trades):
    minutes = defaultdict(list)
    for trade in trades:
        minutes[floor_to(trade.time, MINUTE)].append(trade)
    return minutes


def test_kraken_minutes_folded_from_trades_are_the_venue_s_own():
    known = expected()["cross_checks"]["kraken REST trades(400) -> 1m vs REST OHLC, XBTUSDT"]
    rows, minutes = kraken_rows(), by_minute(kraken_trades())
    equal = empty = 0
    mismatches, truncated = [], 0
    for minute in range(FIRST, END, MINUTE):
        row, previous = rows[minute], rows[minute - MINUTE]
        if minute in minutes:
            candle = fold_trades(USDT, Millis(minute), minutes[minute], Source.REST, NOW)
            same = (*numbers(candle), candle.trades_count) == (*numbers(row), row.trades_count)
            equal += same
            truncated += int(candle.vwap * 10) / 10 == row.vwap
            mismatches += [] if same else [minute]
        else:
            flat = numbers(row) == (previous.close,) * 4 + (0.0,) and row.trades_count == 0
            empty += flat
            mismatches += [] if flat else [minute]
    assert (
        (equal, empty) == (known["minutes_with_trades_equal"], known["empty_minutes_flat_carry_forward"]) == (101, 48)
    )
    assert len(mismatches) == known["mismatches"] == 0
    assert truncated == equal  # vwap is truncated to the tick, never rounded
    assert (known["first_full_minute"] * 1000, known["last_minute"] * 1000) == (FIRST, END)


def kraken_feed(row_delay, rows):
    """Trades as seen at their time, each minute's row *row_delay* after its end, in the order of receipt."""
    feed = [(trade.time, 0, TradeSeen("BTC/USDT", trade.trade_id, trade.time)) for trade in kraken_trades()]
    feed += [(Millis(row.close_time + row_delay), 1, row) for row in rows if row.open_time >= FIRST - MINUTE]
    return [(now, event) for now, _, event in sorted(feed, key=lambda item: item[:2])]


@pytest.mark.parametrize("row_delay", [-1, 500, 30_000])
@pytest.mark.parametrize("zero_rows", [False, True])
def test_kraken_every_minute_between_the_recorded_trades_is_proven_and_right(row_delay, zero_rows):
    """Whether a row comes before its minute's end or well into the next ones, and whether empty ones come at all."""
    rows = kraken_rows()
    said = [row for row in rows.values() if zero_rows or row.trades_count]
    outcomes = assembled(FromCountedRows(USDT, Millis(FIRST)), kraken_feed(row_delay, said))
    assert {type(outcome) for outcome in outcomes} == {Candle, Empty}
    proven = {}
    for outcome in outcomes:
        if isinstance(outcome, Candle):
            assert outcome.open_time not in proven
            proven[outcome.open_time] = outcome
            row = rows[outcome.open_time]
            assert (*numbers(outcome), outcome.trades_count) == (*numbers(row), row.trades_count)
        else:
            for minute in range(outcome.since, outcome.until, MINUTE):
                assert minute not in proven
                assert rows[minute].trades_count == 0
                proven[minute] = outcome
    assert sorted(proven) == list(range(FIRST, END, MINUTE))
    assert Counter(type(verdict).__name__ for verdict in proven.values()) == {"Candle": 101, "Empty": 48}


def test_kraken_a_row_that_lacks_one_trade_is_not_proven():
    rows = kraken_rows()
    short = next(row for row in rows.values() if row.open_time > FIRST + 10 * MINUTE and row.trades_count > 2)
    said = [row for row in rows.values() if row.trades_count and row is not short]
    said.append(Row(*[getattr(short, name) for name in Row.__struct_fields__[:10]], short.trades_count - 1, False))
    outcomes = assembled(FromCountedRows(USDT, Millis(FIRST)), kraken_feed(500, said))
    proven = {candle.open_time for candle in candles_in(outcomes)}
    assert short.open_time not in proven
    assert len(proven) >= 95


def test_kraken_the_captured_snapshot_leaves_out_minutes_without_trades_and_breaks_no_rule():
    rows = [
        event for event in heard("kraken_v2_20260910_ohlc_verbatim_frames.jsonl", "kraken") if isinstance(event, Row)
    ]
    update, snapshot = rows[0], rows[1:]
    assert update in snapshot
    minutes = [(row.open_time - snapshot[0].open_time) // MINUTE for row in snapshot]
    assert minutes == [0, 1, 2, 3, 6, 7, 8, 9, 11]
    series = Series("kraken", "BTC/USDT")
    for row in snapshot:
        candle = Candle(
            series, row.open_time, *numbers(row), row.quote_volume, row.vwap, row.trades_count, Source.WEBSOCKET, NOW,
            row.close_time,
        )  # fmt: skip
        assert broken_rule(candle, NOW) is None


TRADES_FILE = "kraken_trades_BTC-USDT_20231117_19.parquet"
FREQTRADE_FILE = "kraken_1m_from_trades_freqtrade_BTC-USDT_20231117_19.parquet"


def recorded_trades():
    columns = pq.read_table(recorded(f"series/{TRADES_FILE}"), columns=["timestamp", "id", "price", "amount"])
    return [
        Trade(int(trade_id), Millis(time), Decimal(repr(price)), Decimal(repr(amount)))
        for time, trade_id, price, amount in zip(*(column.to_pylist() for column in columns.columns), strict=True)
    ]


def missing_between(trades):
    return [(before, after) for before, after in pairwise(trades) if after.trade_id != before.trade_id + 1]


def test_kraken_the_recorded_trades_are_what_was_found_in_them():
    known, trades = expected()["series"][TRADES_FILE], recorded_trades()
    ids = [trade.trade_id for trade in trades]
    assert len(trades) == known["trades"]
    assert (min(ids), max(ids)) == (known["id_first"], known["id_last"])
    assert len(ids) - len(set(ids)) == known["dup_ids"]
    assert max(ids) - min(ids) + 1 - len(set(ids)) == known["missing_ids"] == 12
    assert len(trades) - len({trade.time for trade in trades}) == known["rows_sharing_ms"]
    assert float(min(trade.size for trade in trades)) == known["min_amount"]


def test_kraken_three_days_folded_from_trades_are_freqtrade_s_candles():
    known = expected()["cross_checks"]["kraken trades -> 1m vs freqtrade 1m, BTC-USDT"]
    minutes, theirs = by_minute(recorded_trades()), candles_of(FREQTRADE_FILE)
    assert len(theirs) == known["common"] == 2834
    assert sorted(minutes) == [candle.open_time for candle in theirs]
    for candle in theirs:
        assert fold_trades(USDT, candle.open_time, minutes[candle.open_time], Source.REST, NOW).same_as(candle)


def test_three_days_of_trades_prove_every_minute_but_those_that_a_missing_id_may_belong_to():
    trades = recorded_trades()
    first, last = floor_to(trades[0].time, MINUTE), floor_to(trades[-1].time, MINUTE)
    touched = {
        minute
        for before, after in missing_between(trades)
        # Times follow ids to the second: the missing trade may be as much later than the trade after it.
        for minute in range(floor_to(before.time, MINUTE), after.time + 1_000, MINUTE)
    }
    assert len(touched) == 19
    outcomes = assembled(
        FromTrades(USDT, first), [(Millis(trade.time + 5), Traded("BTC/USDT", trade)) for trade in trades]
    )
    accounted = Counter()
    minutes = by_minute(trades)
    for outcome in outcomes:
        if isinstance(outcome, Candle):
            accounted[outcome.open_time] += 1
            everything = fold_trades(USDT, outcome.open_time, minutes[outcome.open_time], Source.WEBSOCKET, NOW)
            assert attrs.evolve(outcome, ingest_time=NOW) == everything
        elif isinstance(outcome, Empty):
            accounted.update(range(outcome.since, outcome.until, MINUTE))
            assert not any(minute in minutes for minute in range(outcome.since, outcome.until, MINUTE))
    assert set(accounted.values()) == {1}
    # The first minute began before the first trade that we know, and the last one is not over.
    assert set(range(first, last, MINUTE)) - set(accounted) == touched | {first}
    unsure = [outcome for outcome in outcomes if isinstance(outcome, Unsure) and outcome.since > first]
    assert {minute for gap in unsure for minute in range(gap.since, gap.until, MINUTE)} == touched
    assert {gap.reason for gap in unsure} == {Reason.MISSING_TRADES}
    assert all(gap.detail for gap in unsure)


def test_kraken_the_downloadable_trade_history_holds_plain_numbers_only():
    name = "kraken_trades_official_csv_BCH-EUR_20230101.csv"
    known = expected()["series"][name]
    rows = [line.split(",") for line in recorded(f"series/{name}").read_text(encoding="utf-8").split()]
    times = [int(time) for time, _, _ in rows]
    assert (len(rows), times[0], times[-1]) == (known["trades"], known["first"], known["last"])
    assert (times == sorted(times)) is known["ascending"]
    assert len(times) - len(set(times)) == known["rows_sharing_second"]
    assert all(exact(price) > 0 and exact(size) > 0 for _, price, size in rows)


# --- OKX: rows that say they are closed -------------------------------------------------------------------


@pytest.mark.parametrize(("symbol", "price"), [("BTC-USD", 26800.0), ("ETH-USD", 1880.0)])
def test_okx_a_recorded_row_that_says_it_is_closed_is_the_candle(symbol, price):
    series, minute = Series("okx", symbol), Millis(1_685_221_620_000)
    about = [
        event
        for event in heard("okcoin_v5_20230527_candle1m_trades.jsonl", "okx")
        if getattr(event, "symbol", "") == symbol
    ]
    now = Millis(minute + MINUTE + 1000)
    assert assembled(FromStatedCloses(series, minute), [(now, event) for event in about]) == [
        Candle(
            series, minute, price, price, price, price, 0.0, quote_volume=0.0, vwap=None, trades_count=None,
            source=Source.WEBSOCKET, ingest_time=now, close_time=Millis(minute + MINUTE),
        )
    ]  # fmt: skip


def test_okx_a_row_that_does_not_say_it_is_closed_is_no_candle():
    row = kraken_rows()[FIRST]
    assert not row.closed
    assert assembled(FromStatedCloses(USDT, row.open_time), [(Millis(row.close_time + 1000), row)]) == []


# --- long series: the validator, and accounting for every minute ------------------------------------------

STEPS = {"1s": 1000, "1min": MINUTE, "5min": 5 * MINUTE, "1h": 60 * MINUTE}
TIMEFRAMES = {1000: "1m", MINUTE: "1m", 5 * MINUTE: "5m", 60 * MINUTE: "1h"}
NO_CANDLES = {TRADES_FILE, "kraken_trades_official_csv_BCH-EUR_20230101.csv"}
LONG_SERIES = {
    "bitmex_5m_XBTUSD_202011.parquet": "5min",
    "coinbase_1m_BTC-EUR_20230301_21_advtrade.parquet": "1min",
    "coinbase_1m_BTC-USD_20230301_21_advtrade.parquet": "1min",
    "coinbase_1m_BTC-USD_20230301_21_exchange.parquet": "1min",
    "kraken_1m_from_trades_A_BTC-USD_20230301_21.parquet": "1min",
    "kraken_1m_from_trades_B_BTC-USD_20230301_21.parquet": "1min",
    "kraken_1m_from_trades_freqtrade_BTC-USDT_20231117_19.parquet": "1min",
    "kraken_ohlcvt_official_1h_BTC-USD_201310_202009.csv": "1h",
    "kraken_ohlcvt_official_1h_STORJ-USD_to_202009.csv": "1h",
    "kraken_ohlcvt_official_1m_BTC-USDC_202301_02.csv": "1min",
    "lean_coinbase_minute_btcusd_20161007.csv": "1min",
    "lean_coinbase_minute_btcusd_20161008.csv": "1min",
    "lean_coinbase_minute_btcusd_20180404.csv": "1min",
    "lean_coinbase_minute_btcusd_20180405.csv": "1min",
    "lean_coinbase_second_btcusd_20161007.csv": "1s",
    "lean_coinbase_second_btcusd_20161008.csv": "1s",
    "okx_1m_BTC-USDT-SWAP_20260101_08.parquet": "1min",
    "okx_5m_BTC-USDT-SWAP_2022.parquet": "5min",
    "okx_5m_DOGE-USDT-SWAP_2022.parquet": "5min",
}


def rows_of(name):
    """``(open time, open, high, low, close, volume, trades or None)`` of each row of *name*, as it stands there."""
    path = recorded(f"series/{name}")
    if path.suffix == ".csv":
        with path.open(encoding="utf-8") as lines:
            rows = [line.strip().split(",") for line in lines]
        # LEAN counts milliseconds since the midnight that its file name ends with; Kraken writes Unix seconds.
        scale, origin = 1000, 0
        if name.startswith("lean"):
            scale = 1
            origin = int(datetime.strptime(path.stem[-8:], "%Y%m%d").replace(tzinfo=UTC).timestamp()) * 1000
        return [
            (int(row[0]) * scale + origin, *map(float, row[1:6]), int(row[6]) if len(row) > 6 else None) for row in rows
        ]
    table = pq.read_table(path)
    column = table["date" if "date" in table.column_names else "timestamp"]
    if pa.types.is_timestamp(column.type):
        times = column.cast(pa.timestamp("ms", "UTC")).cast(pa.int64()).to_pylist()
    else:
        times = [int(datetime.fromisoformat(text).timestamp()) * 1000 for text in column.to_pylist()]
    names = ["open", "high", "low", "close", "homeNotional" if name.startswith("bitmex") else "volume"]
    count = next((name for name in ("trades", "n_trades") if name in table.column_names), None)
    counts = table[count].to_pylist() if count else [None] * len(times)
    return list(zip(times, *(table[name].to_pylist() for name in names), counts, strict=True))


def candles_of(name, step=MINUTE):
    """The rows of *name* as candles; rows shorter than a minute keep their numbers and stand in their minute."""
    length = max(step, MINUTE)
    series = Series(name.split("_")[0], "BTC-USD", TIMEFRAMES[step])
    candles = []
    for time, *prices, volume, count in rows_of(name):
        start = floor_to(time, MINUTE) if step < MINUTE else time
        candles.append(Candle(series, start, *prices, volume, None, None, count, Source.REST, NOW, start + length))
    return candles


def accounted(times, step):
    """Every step from the first to the last time: there, missing, or there more than once."""
    distinct = sorted(set(times))
    grid = (distinct[-1] - distinct[0]) // step + 1
    gaps = [
        (before + step, (after - before) // step - 1) for before, after in pairwise(distinct) if after - before > step
    ]
    return {
        "rows": len(times),
        "first": distinct[0],
        "last": distinct[-1],
        "grid": grid,
        "missing": grid - len(distinct),
        "gap_runs": len(gaps),
        "duplicates": len(times) - len(distinct),
        "ascending": times == sorted(times),
        "offgrid": sum(time % step != 0 for time in times),
    }, gaps


def runs(flags):
    """``(index, length)`` of each run of true *flags*."""
    found, start = [], None
    for index, flag in enumerate([*flags, False]):
        if flag and start is None:
            start = index
        elif not flag and start is not None:
            found.append((start, index - start))
            start = None
    return found


def check_longest(stated_runs, found):
    """The longest of *found* are those stated; which of several equally long ones are named is left open."""
    stated_runs = [(ms_of(time), length) for time, length in stated_runs]
    lengths = sorted((length for _, length in found), reverse=True)
    assert [length for _, length in stated_runs] == lengths[: len(stated_runs)]
    assert len(stated_runs) == min(5, len(found))
    assert set(stated_runs) <= set(found)


def ms_of(text):
    return int(datetime.fromisoformat(text).timestamp()) * 1000


def test_no_recorded_series_is_left_out():
    assert set(expected()["series"]) == set(LONG_SERIES) | NO_CANDLES
    assert {path.name for path in (DATA / "series").iterdir()} == set(LONG_SERIES) | NO_CANDLES


PRICE_RULES = {
    Rule.HIGH_BELOW_LOW,
    Rule.HIGH_BELOW_OPEN,
    Rule.HIGH_BELOW_CLOSE,
    Rule.LOW_ABOVE_OPEN,
    Rule.LOW_ABOVE_CLOSE,
}


@pytest.mark.parametrize(("name", "step_name"), LONG_SERIES.items())
def test_a_long_series_breaks_the_rules_and_lacks_the_minutes_that_others_counted(name, step_name):
    known, step = expected()["series"][name], STEPS[step_name]
    rows, candles = rows_of(name), candles_of(name, step)
    found, gaps = accounted([row[0] for row in rows], step)
    broken = Counter(broken_rule(candle, NOW) for candle in candles)
    zero = [candle.volume == 0 for candle in candles]
    found["nan"] = broken[Rule.NOT_FINITE]
    found["ohlc_violations"] = found["open_outside_high_low"] = sum(broken[rule] for rule in PRICE_RULES)
    found["zero_volume"] = sum(zero)
    found["flat"] = sum(candle.open == candle.high == candle.low == candle.close for candle in candles)
    for key in ("first", "last"):
        if key in known:
            assert found.pop(key) == ms_of(known[key])
    assert {key: found[key] for key in known if key in found} == {key: known[key] for key in known if key in found}
    if name.startswith("bitmex"):  # open is the previous close there, and lies outside: real violations
        assert broken == {None: len(rows) - 256, Rule.HIGH_BELOW_OPEN: broken[Rule.HIGH_BELOW_OPEN],
                          Rule.LOW_ABOVE_OPEN: 256 - broken[Rule.HIGH_BELOW_OPEN]}  # fmt: skip
        return
    assert broken == {None: len(rows)}
    assert known["step"] == step_name
    check_longest(known["longest_gaps"], gaps)
    check_longest(known["longest_zero_runs"], [(rows[start][0], length) for start, length in runs(zero)])


@pytest.mark.parametrize("day", ["20161007", "20161008"])
def test_seconds_joined_to_minutes_are_equal_to_the_minutes(day):
    known = expected()["cross_checks"][f"lean coinbase 1s -> 1m {day}"]
    seconds = defaultdict(list)
    for candle in candles_of(f"lean_coinbase_second_btcusd_{day}.csv", 1000):
        seconds[candle.open_time].append(candle)
    theirs = candles_of(f"lean_coinbase_minute_btcusd_{day}.csv")
    assert sorted(seconds) == [candle.open_time for candle in theirs]
    same = 0
    for candle in theirs:
        parts = seconds[candle.open_time]
        joined = attrs.evolve(
            parts[0],
            high=max(part.high for part in parts),
            low=min(part.low for part in parts),
            close=parts[-1].close,
            volume=sum(part.volume for part in parts),
        )
        same += joined.same_as(candle)
    assert same == known["common"] == known["volume_equal_1e-9"]


@pytest.mark.parametrize(
    ("check", "one", "other"),
    [
        (
            "coinbase advtrade vs exchange endpoint, 1m",
            "coinbase_1m_BTC-USD_20230301_21_advtrade.parquet",
            "coinbase_1m_BTC-USD_20230301_21_exchange.parquet",
        ),
        (
            "kraken trades-built A vs B, BTC-USD 1m",
            "kraken_1m_from_trades_A_BTC-USD_20230301_21.parquet",
            "kraken_1m_from_trades_B_BTC-USD_20230301_21.parquet",
        ),
    ],
)
def test_two_records_of_one_market_are_equal_candle_by_candle_as_often_as_others_counted(check, one, other):
    """Kraken A and B hold the trade that two pages repeat twice: prices agree, volumes do not always."""
    known = expected()["cross_checks"][check]
    first = {candle.open_time: candle for candle in candles_of(one)}
    second = {candle.open_time: candle for candle in candles_of(other)}
    common = sorted(set(first) & set(second))
    assert (len(first), len(second), len(common)) == (known["rows_a"], known["rows_b"], known["common"])
    assert sum(first[time].same_as(second[time]) for time in common) == known["volume_equal_1e-9"]
    assert all(numbers(first[time])[:4] == numbers(second[time])[:4] for time in common)
    if "count_equal" in known:
        differences = Counter(first[time].trades_count - second[time].trades_count for time in common)
        assert {str(key): count for key, count in differences.items()} == known["count_diff"]
