"""``follow``, ``follow_sync``, ``snapshot``, ``CursorFile``: what programs are promised."""

from __future__ import annotations

import logging
import shutil
import threading
from pathlib import Path

import attrs
import pytest
import trio
from directories import BTC, ETH, at, candle, flush, sql

from trio_candles import (
    Change,
    CursorExpired,
    CursorFile,
    CursorUnknown,
    LedgerUnreadable,
    NoSuchDirectory,
    UnknownSeries,
    follow,
    follow_sync,
    snapshot,
)
from trio_candles.candles.model import MINUTE, Empty, Page, Reason, Series, Source, Unsure
from trio_candles.store.store import Store, open_store

NIGHT = 20
"""Minutes after midnight at which the store begins."""


@pytest.fixture
def store(tmp_path):
    with open_store(tmp_path / "data") as store:
        store.expect([BTC, ETH], at(NIGHT), at(NIGHT))
        yield store


@pytest.fixture
def root(store, tmp_path) -> Path:
    return tmp_path / "data"


def close(store: Store, *minutes: int, series: Series = BTC) -> None:
    store.commit([candle(minute, series) for minute in minutes], at(max(minutes) + 1))


def told(root: Path, after: str | None = "oldest", **wanted) -> list[Change]:
    with follow_sync(root, after=after, timeout=0, **wanted) as changes:
        return list(changes)


def brief(changes: list[Change]) -> list[tuple[str, str, str, int]]:
    return [(one.event, one.symbol, one.timeframe, (one.open_time_ms - at(0)) // MINUTE) for one in changes]


def test_what_comes_from_now_on_comes_and_nothing_before(store, root):
    close(store, 20)
    with follow_sync(root, timeout=0) as changes:
        assert list(changes) == []
        close(store, 21)
        (change,) = changes
        assert (change.event, change.open_time_ms, change.source) == ("closed", at(21), "websocket")
        assert change.candle is not None
        assert change.candle.close == candle(21).close
        assert list(changes) == []  # and the iteration may be gone on with
        close(store, 22)
        assert [one.open_time_ms for one in changes] == [at(22)]


@pytest.mark.parametrize("name", ["okx:BTC-USDT", "okx:btc-usdt", "OKX:*", "*:BTC-*", "o?x:*"])
def test_series_are_named_with_wildcards(store, root, name):
    close(store, 20)
    close(store, 20, series=ETH)
    assert brief(told(root, series=[name])) == [("closed", "BTC-USDT", "1m", 20)]


@pytest.mark.parametrize("name", ["kraken:ETH/USD", "kraken:ETH-USD"])
def test_a_symbol_is_named_as_the_venue_or_the_folder_does(store, root, name):
    close(store, 20)
    close(store, 20, series=ETH)
    assert brief(told(root, series=[name])) == [("closed", "ETH/USD", "1m", 20)]


def test_candles_of_higher_timeframes_follow_their_last_minute_shortest_first(store, root):
    close(store, *range(20, 29))
    found = told(root, timeframes=["10m", "1m", "5m", "2m"])
    assert brief(found)[4:8] == [
        ("closed", "BTC-USDT", "1m", 23), ("closed", "BTC-USDT", "2m", 22),
        ("closed", "BTC-USDT", "1m", 24), ("closed", "BTC-USDT", "5m", 20),
    ]  # fmt: skip
    for one in found:  # also between a minute and what follows it
        assert told(root, one.cursor, timeframes=["10m", "1m", "5m", "2m"]) == found[found.index(one) + 1 :]


def test_spans_come_with_any_timeframe_and_may_complete_two_candles_of_it(store, root):
    doubt = Unsure(BTC, at(21), at(26), Reason.SUSPECT)
    store.commit([candle(20), doubt, *(candle(minute) for minute in range(26, 30))], at(30))
    store.commit([Empty(BTC, at(21), at(26), "no id")], at(31))
    found = told(root, timeframes=["5m"])
    assert brief(found) == [
        ("gap", "BTC-USDT", "1m", 21), ("empty", "BTC-USDT", "1m", 21),
        ("closed", "BTC-USDT", "5m", 20), ("closed", "BTC-USDT", "5m", 25),
    ]  # fmt: skip
    assert (found[0].reason, found[1].evidence) == ("suspect", "no id")
    assert told(root, found[2].cursor, timeframes=["5m"]) == found[3:]


def test_a_revision_comes_with_both_values_and_changes_what_stands_on_it(store, root):
    close(store, *range(20, 25))
    for asked in (at(40), at(42)):
        other = attrs.evolve(candle(21), close=100_021.5, source=Source.REST, ingest_time=asked)
        store.commit([Page(BTC, at(21), at(22), (other,), (), comparing=True)], asked)
    minute, five = told(root, timeframes=["1m", "5m"], events=["revised"])
    assert minute.before is not None
    assert minute.candle is not None
    assert (minute.before.close, minute.candle.close) == (candle(21).close, 100_021.5)
    assert five.before is not None
    assert five.candle is not None
    assert five.before.volume == five.candle.volume
    assert (five.timeframe, five.open_time_ms, five.candle.close) == ("5m", at(20), candle(24).close)


def test_what_is_not_stored_any_more_has_no_candle_and_the_gap_follows(store, root):
    close(store, *range(20, 25))
    flush(store)
    (root / f"{BTC.path}/2026-01-11.parquet").unlink()
    store.ask(store.journal.lose, f"{BTC.path}/2026-01-11.parquet", BTC, at(0), at(30), "gone")
    found = told(root, timeframes=["1m", "5m"])
    assert [one.candle for one in found] == [None] * 7
    assert (found[-1].event, found[-1].reason, found[-1].evidence) == ("gap", "corrupt", "gone")


def test_a_cursor_moves_on_past_what_is_not_wanted(store, root):
    with follow_sync(root, events=["gap"], timeout=0) as changes:
        before = changes.cursor
        close(store, 20)
        assert list(changes) == []
        assert changes.cursor != before
        newest = changes.cursor
    assert told(root, newest) == []


def test_a_snapshot_and_its_cursor_are_of_one_moment(store, root):
    close(store, 20)
    store.commit([Unsure(BTC, at(21), at(22), Reason.UNPROVEN), candle(22)], at(23))
    table, cursor = snapshot(root, "okx", "BTC-USDT")
    assert table.column("open_time_ms").to_pylist() == [at(20), at(22)]  # whatever is unproven before it
    close(store, 21)
    close(store, 23)
    assert brief(told(root, cursor)) == [("closed", "BTC-USDT", "1m", 21), ("closed", "BTC-USDT", "1m", 23)]


# --- cursors that are not served


def test_a_cursor_that_is_older_than_what_is_kept_is_expired(store, root):
    for minute in range(20, 30):
        close(store, minute)
    found = told(root)
    store.journal.forget_changes(at(26), 10**9)
    with pytest.raises(CursorExpired, match="snapshot") as error:
        told(root, found[0].cursor)
    assert told(root, error.value.oldest) == told(root) == found[5:]
    assert told(root, error.value.newest) == []
    assert told(root, found[4].cursor) == found[5:]


def test_a_cursor_of_another_directory_or_of_the_future_is_unknown(store, root, tmp_path):
    close(store, 20, 21)
    (*_, last) = told(root)
    with open_store(tmp_path / "other") as other:
        other.expect([BTC], at(NIGHT), at(NIGHT))
        close(other, 20, 21, 22)
    for cursor in (told(tmp_path / "other")[0].cursor, last.cursor.replace("-2.", "-99.")):
        with pytest.raises(CursorUnknown) as error:
            told(root, cursor)
        assert error.value.cursor == cursor


def test_a_backup_that_is_put_back_is_another_history(root, store, tmp_path):
    close(store, 20, 21)
    store.journal._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copy(root / "journal.sqlite3", tmp_path / "backup")
    close(store, 22)
    (*_, last) = told(root)
    restored = tmp_path / "restored"
    restored.mkdir()
    shutil.copy(tmp_path / "backup", restored / "journal.sqlite3")
    with pytest.raises(CursorUnknown):  # from its future...
        told(restored, last.cursor)
    with open_store(restored) as other:
        other.commit([candle(22, close=100_022.0)], at(24))
    with pytest.raises(CursorUnknown):  # ...and where the number is another change's
        told(restored, last.cursor)


def test_a_journal_that_is_replaced_under_a_follower_is_noticed(tmp_path):
    for name in ("data", "other"):
        with open_store(tmp_path / name) as store:
            store.expect([BTC], at(NIGHT), at(NIGHT))
            close(store, 20)
    with follow_sync(tmp_path / "data", timeout=0) as changes:
        list(changes)
        changes._buffered._feed._looked -= 2  # two seconds ago
        (tmp_path / "other" / "journal.sqlite3").replace(tmp_path / "data" / "journal.sqlite3")
        with pytest.raises(CursorUnknown):
            list(changes)


def test_a_journal_that_is_gone_is_said(tmp_path):
    with open_store(tmp_path / "data") as store:
        store.expect([BTC], at(NIGHT), at(NIGHT))
    with follow_sync(tmp_path / "data", timeout=0) as changes:
        (tmp_path / "data" / "journal.sqlite3").unlink()
        changes._buffered._feed._looked -= 2
        with pytest.raises(LedgerUnreadable, match="start the collector first"):
            list(changes)


# --- arguments


@pytest.mark.parametrize(
    ("wanted", "error", "words"),
    [
        ({"series": ["BTC-USDT"]}, ValueError, "VENUE:SYMBOL"),
        ({"series": "okx:*"}, TypeError, "a list of texts"),
        ({"series": []}, ValueError, "nothing would ever come"),
        ({"series": ["okx:BTC-USDX"]}, UnknownSeries, "did you mean 'okx BTC-USDT'"),
        ({"timeframes": ["7m"]}, ValueError, "does not divide a day"),
        ({"events": ["close"]}, ValueError, "did you mean closed"),
        ({"after": "yesterday"}, ValueError, "is no cursor"),
    ],
)
def test_arguments_without_sense_are_refused_with_what_was_expected(root, wanted, error, words):
    with pytest.raises(error, match=words):
        follow_sync(root, **wanted)


def test_a_directory_without_a_collector_is_said(tmp_path):
    with pytest.raises(NoSuchDirectory):
        follow_sync(tmp_path / "nowhere")
    with pytest.raises(LedgerUnreadable, match="start the collector first"):
        follow_sync(tmp_path)


# --- beside a collector


def test_a_stop_beside_a_follower_leaves_an_empty_log_without_a_word_and_the_next_puts_it_to_rest(tmp_path, caplog):
    root = tmp_path / "data"
    with caplog.at_level(logging.INFO):
        with open_store(root) as store:
            store.expect([BTC], at(NIGHT), at(NIGHT))
            changes = follow_sync(root, timeout=0)
            close(store, 20)
        assert (root / "journal.sqlite3-wal").stat().st_size == 0
        assert [one.open_time_ms for one in changes] == [at(20)]
        with open_store(root) as store:  # and the follower goes on over a restart
            store.expect([BTC], at(NIGHT), at(21))
            close(store, 21)
        assert [one.open_time_ms for one in changes] == [at(21)]
        changes.close()
        assert list(changes) == []
        with open_store(root):
            pass
    assert not [path.name for path in root.iterdir() if path.name.endswith(("-wal", "-shm"))]
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_follower_writes_nothing(store, root):
    close(store, 20)
    before = sql(root, "SELECT * FROM change"), sql(root, "SELECT * FROM meta")
    told(root)
    assert (sql(root, "SELECT * FROM change"), sql(root, "SELECT * FROM meta")) == before


def test_it_may_be_closed_from_another_thread(root):
    changes = follow_sync(root)
    ended = threading.Thread(target=lambda: list(changes))
    ended.start()
    changes.close()
    ended.join(timeout=10)
    assert not ended.is_alive()


async def test_follow_is_the_same_for_trio_and_a_cancellation_loses_nothing(autojump_clock, store, root):
    found = []
    async with follow(root, timeframes=["1m", "5m"]) as changes:
        for minute in range(20, 26):
            close(store, minute)
            for limit in (0.0, 0.001, 5.0):
                with trio.move_on_after(limit):
                    async for change in changes:
                        found.append(change)
        assert changes.cursor == str(changes._buffered._feed.place)
    assert brief(found) == brief(told(root, timeframes=["1m", "5m"]))


# --- the file of a cursor


def test_a_cursor_is_kept_in_a_file_that_is_replaced_as_a_whole(store, root, tmp_path):
    close(store, 20)
    (change,) = told(root)
    kept = CursorFile(tmp_path / "cursor")
    assert kept.read() is None
    kept.write(change.cursor)
    assert CursorFile(tmp_path / "cursor").read() == change.cursor
    assert [path.name for path in tmp_path.iterdir() if "cursor" in path.name] == ["cursor"]
    (tmp_path / "cursor").write_text("rubbish")
    with pytest.raises(ValueError, match="remove the file"):
        kept.read()
