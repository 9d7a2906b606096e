"""The recordings of ``added-2026-11`` through readers, assemblers and histories: what each of them comes to."""

from __future__ import annotations

import json
from itertools import pairwise

import pyarrow.parquet as pq
from recorded import DATA, frames, recorded

from trio_candles.assembly import FromCountedRows, FromStatedCloses, FromTrades
from trio_candles.assembly.base import Assembler, Outcome
from trio_candles.candles.model import MINUTE, Candle, Millis, Reason, Series, Source, Unsure, floor_to
from trio_candles.candles.validation import broken_rule
from trio_candles.venues.history import Answer, Filled
from trio_candles.venues.protocol import Event, Row, Traded, TradeSeen
from trio_candles.venues.registry import VENUES

USED = {
    "coinbase_1m_BTC-USD_20251123_1231_advtrade.parquet",
    "coinbase_5m_BTC-USD_20251123_1231_advtrade.parquet",
    "coinbase_candles_404_20250827.json",
    "coinbase_http_headers_20250827.json",
    "coinbase_products_2018_xchange.json",
    "coinbase_products_20250827.json",
    "kraken_assetpairs_20260925_bytex_5pairs.json",
    "kraken_assetpairs_tokenized_nautilus_202603.json",
    "kraken_ohlc_1m_XBTUSD_20170811_xchange.json",
    "okx_candles_ack_roq_20250905.json",
    "okx_instruments_roq_202512_0.json",
    "okx_instruments_spot_nautilus.json",
}
"""Read by the tests below, of listings, of words and of aggregation; sessions are counted with all others."""


def test_no_added_recording_is_left_out():
    folders = [recorded(f"added-2026-11/{name}") for name in ("rest", "series")]
    assert {path.name for folder in folders for path in folder.iterdir()} == USED
    assert {path.name for path in (DATA / "added-2026-11").iterdir()} == {"rest", "series", "ws"}


def heard(venue: str, name: str) -> list[Event]:
    """What *venue* reads in the frames of the session *name* that are its own."""
    return [event for frame in frames(name) for event in VENUES[venue].feed.read(frame.text)]


def told(assembler: Assembler, events: list[Event], now: int) -> list[Outcome]:
    """The outcomes of *events*, and of the wait until all minutes before *now* are due."""
    assembler.connected(assembler.frontier)
    outcomes = [outcome for event in events for outcome in assembler.hear(event, Millis(now))]
    return [*outcomes, *assembler.due(Millis(now + MINUTE))]


# --- sessions through the assemblers ----------------------------------------------------------------------


def test_coinbase_a_match_follows_the_last_match_and_a_part_of_a_minute_is_no_candle():
    """Two connections of 2026, each with the trade before it and the first trade of its own; ids are contiguous."""
    events = heard("coinbase", "coinbase_exchange_2026_08_09_single_frames.jsonl")
    trades = sorted((event for event in events if isinstance(event, Traded)), key=lambda event: event.trade.trade_id)
    old, *rest = trades
    pairs = [rest[:2], rest[2:]]
    assert old.trade.trade_id == 443_907_480
    for first, second in pairs:
        assert second.trade.trade_id == first.trade.trade_id + 1
        minute = floor_to(first.trade.time, MINUTE)
        assembler = FromTrades(Series("coinbase", "BTC-USD"), minute)
        outcomes = told(assembler, [first, second], second.trade.time)
        assert [type(outcome) for outcome in outcomes if not isinstance(outcome, Unsure)] == []
        assert [(outcome.since, outcome.reason) for outcome in outcomes] == [(minute, Reason.UNPROVEN)]


def test_kraken_a_row_and_a_trade_of_one_instant_prove_no_minute_alone():
    """Recorded with one time, 2026-09-25 17:48:26.844359: the row counts 33 trades, of which one was heard."""
    events = heard("kraken", "kraken_v2_20260925_bytex_recorded.jsonl")
    (row,) = (event for event in events if isinstance(event, Row))
    (seen,) = (event for event in events if isinstance(event, TradeSeen))
    assert row.open_time == floor_to(seen.time, MINUTE)
    assert (row.trades_count, seen.trade_id) == (33, 109_116_693)
    assembler = FromCountedRows(Series("kraken", "BTC/USD"), row.open_time)
    outcomes = told(assembler, [seen, row], seen.time)
    assert [(outcome.since, outcome.reason) for outcome in outcomes] == [(row.open_time, Reason.UNPROVEN)]


def test_kraken_the_recorded_row_is_a_candle_once_ids_before_and_after_count_its_trades():
    events = heard("kraken", "kraken_v2_20260925_bytex_recorded.jsonl")
    (row,) = (event for event in events if isinstance(event, Row))
    before = TradeSeen("BTC/USD", 109_116_660, Millis(row.open_time - 1))
    after = TradeSeen("BTC/USD", 109_116_694, Millis(row.close_time + 1))
    assembler = FromCountedRows(Series("kraken", "BTC/USD"), row.open_time)
    outcomes = told(assembler, [before, row, after], row.close_time + 5_000)
    assert [(outcome.open_time, outcome.close, outcome.trades_count) for outcome in outcomes] == [
        (row.open_time, 83744.3, 33)
    ]


def test_okx_the_recorded_forming_row_is_no_candle():
    events = heard_okx("okx_v5_2025_12_roq_tests.jsonl")
    minute = Millis(1_757_076_060_000)
    outcomes = told(FromStatedCloses(Series("okx", "BTC-USDT"), minute), events, minute + MINUTE)
    assert [(outcome.since, outcome.reason) for outcome in outcomes] == [(minute, Reason.NO_CLOSE)]


def heard_okx(name: str) -> list[Event]:
    rows = [frame.text for frame in frames(name) if '"channel":"candle1m"' in frame.text and '"data"' in frame.text]
    assert len(rows) == 1
    return [event for text in rows for event in VENUES["okx"].feed.read(text)]


# --- answers through the histories ------------------------------------------------------------------------


def filled(series: Series, since: int, until: int, now: int, body: bytes, nothing: bytes) -> Filled:
    """What a fill finds that is answered *body* first, and *nothing* to whatever it asks besides."""
    fill = VENUES[series.venue].history.fill(series, Millis(since), Millis(until), Millis(now))
    next(fill)
    answer = Answer(200, body)
    try:
        while True:
            fill.send(answer)
            answer = Answer(200, nothing)
    except StopIteration as stop:
        return stop.value


def test_kraken_720_recorded_rows_of_2017_are_701_candles_and_17_empty_minutes():
    """The newest row is forming and the one before it not settled; all 17 rows of zeros have the close before them."""
    body = recorded("added-2026-11/rest/kraken_ohlc_1m_XBTUSD_20170811_xchange.json").read_bytes()
    rows = json.loads(body)["result"]["XXBTZUSD"]
    assert all(after[0] - before[0] == 60 for before, after in pairwise(rows))
    first, newest = rows[0][0] * 1000, rows[-1][0] * 1000
    found = filled(Series("kraken", "BTC/USD"), first, newest - MINUTE, newest + 20_000, body, b"")
    assert not found.missing
    assert (len(found.candles), sum(one.until - one.since for one in found.empties) // MINUTE) == (701, 17)
    assert sum(row[7] == 0 and row[4] == before[4] for before, row in pairwise(rows)) == 17
    by_time = {row[0] * 1000: row for row in rows}
    for candle in found.candles:
        row = by_time[candle.open_time]
        numbers = (candle.open, candle.high, candle.low, candle.close, candle.vwap, candle.volume)
        assert (*numbers, candle.trades_count) == (*map(float, row[1:7]), row[7])


def test_okx_recorded_rows_are_candles_where_they_are_confirmed_also_without_volume():
    """Four rows of 2025-09-05: one forming, three closed, of which one is flat and without volume."""
    body = recorded("added-2026-11/rest/okx_candles_ack_roq_20250905.json").read_bytes()
    rows = [row for row in json.loads(body)["data"] if row[8] == "1"]
    oldest, newest = int(rows[-1][0]), int(rows[0][0])
    nothing = b'{"code":"0","msg":"","data":[]}'
    found = filled(Series("okx", "BTC-USDT"), oldest, newest + MINUTE, newest + 5 * MINUTE, body, nothing)
    assert [(one.open_time, one.close, one.volume) for one in found.candles] == [
        (int(row[0]), float(row[4]), float(row[5])) for row in reversed(rows)
    ]
    assert [one.volume for one in found.candles] == [0.0, 0.22385039, 2.98698034]
    # Between the second and the third row, 297 minutes are not in this answer.
    assert sum(one.until - one.since for one in found.missing) // MINUTE == (newest - oldest) // MINUTE - 2


def test_coinbase_recorded_headers_let_a_cache_repeat_an_answer_about_candles_for_five_minutes():
    """Of the same question, asked 15 s later, the answer was the same, and its age was told: a hit."""
    heads = json.loads(recorded("added-2026-11/rest/coinbase_http_headers_20250827.json").read_bytes())
    good = [one for one in heads if "/candles?" in one["uri"] and one["status"] == 200]
    assert {text for one in good for text in one["cc"]} == {"public, max-age=300, must-revalidate"}
    assert max(int(age) for one in good for age in one["age"] or ["0"]) == 15
    assert {text for one in heads if one["uri"].endswith("/products") for text in one["cc"]} == {
        "public, max-age=5, must-revalidate"
    }


# --- the series -------------------------------------------------------------------------------------------


def test_coinbase_55536_recorded_minutes_break_no_rule_and_two_had_no_trade():
    table = pq.read_table(
        recorded("added-2026-11/series/coinbase_1m_BTC-USD_20251123_1231_advtrade.parquet"), use_threads=False
    )
    series = Series("coinbase", "BTC-USD")
    times = table["open_time_ms"].to_pylist()
    assert len(times) == 55_536
    assert [(before, after) for before, after in pairwise(times) if after != before + MINUTE] == [
        (1_765_553_460_000, 1_765_553_640_000)  # 2025-12-12 15:32 and 15:33
    ]
    numbers = [table[name].to_pylist() for name in ("open", "high", "low", "close", "volume")]
    now = Millis(times[-1] + 5 * MINUTE)
    candles = [
        Candle(series, time, *row, None, None, None, Source.REST, now, Millis(time + MINUTE))
        for time, *row in zip(times, *numbers, strict=True)
    ]
    assert {broken_rule(candle, now) for candle in candles} == {None}
