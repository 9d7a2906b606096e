"""An older version's ledger is brought up without losing a minute, wherever it is cut short."""

from __future__ import annotations

import itertools
import shutil
import zlib

import pytest
from directories import BTC, ETH, at, bring_down, sql
from journals import journal_in
from sealing import collect
from stores import candle, flush

from trio_candles.candles.model import DAY, MINUTE, Attempt, Millis, Page, Source
from trio_candles.store.schema import JOURNAL
from trio_candles.store.store import open_store
from trio_candles.store.upgrade import seal_old_days


class Asked(Exception):
    """A stop was asked for."""


@pytest.fixture
def old(tmp_path):
    """A directory of format 5: six days of a series that is expected, three of one that is not, and all that a day may
    have that keeps it open.
    """
    root = tmp_path / "old"
    with open_store(root) as store:
        collect(store, "cg", "c", "c", series=ETH)
        collect(store, "cgc", "ceg", "c", "ecc", "e", "c" * 61)
        for minute in (1700, 1720):
            store.commit([Attempt(BTC, at(1442), at(1443), "no row", absent=True)], at(minute))
        other = candle(2880, 7.0, source=Source.REST, ingest_time=Millis(at(9000)))
        store.commit([Page(BTC, at(2880), at(2881), (other,), (), comparing=True)], at(9000))
        store.commit([candle(6 * 1440, 9.0)], at(6 * 1440 + 1))  # waits
    assert sql(root, "SELECT state, count(*) FROM gap GROUP BY state") == [("open", 2), ("unfillable", 1)]
    assert sql(root, "SELECT outcome FROM revision") == [("open",)]
    bring_down(root / JOURNAL, "5")
    return root


SEALED = [("ETH/USD", 0), ("BTC-USDT", 1), ("BTC-USDT", 3), ("BTC-USDT", 4)]
"""BTC's day 0 has a gap and day 2 a revision; the others are not over, or nobody compared them yet."""


def days_sealed(root) -> list[tuple[str, int]]:
    query = "SELECT symbol, day_ms FROM sealed JOIN series ON series.id = series_id ORDER BY series_id, day_ms"
    return [(symbol, (day - at(0)) // DAY) for symbol, day in sql(root, query)]


def known(root) -> dict[int, str]:
    """Series id -> a letter for each minute of its account, from the tables alone."""
    found = {}
    for id_, first, mark in sql(root, "SELECT id, first_ms, mark_ms FROM series"):
        letters = ["c"] * ((mark - first) // MINUTE)
        spans = [("e", *row) for row in sql(root, "SELECT since_ms, until_ms FROM empty WHERE series_id = ?", id_)]
        states = sql(root, "SELECT state, since_ms, until_ms FROM gap WHERE series_id = ?", id_)
        for letter, low, high in [*spans, *((state[0].replace("o", "g"), *rest) for state, *rest in states)]:
            letters[(low - first) // MINUTE : (high - first) // MINUTE] = letter * ((high - low) // MINUTE)
        days = []
        if sql(root, "SELECT 1 FROM sqlite_master WHERE name = 'sealed'"):
            days = sql(root, "SELECT day_ms, minutes FROM sealed WHERE series_id = ?", id_)
        for day, minutes in days:
            whole = letters[max(0, (day - first) // MINUTE) : (day + DAY - first) // MINUTE]
            assert set(whole) == {"c"}, "a span reaches into a sealed day"
            account = zlib.decompress(minutes).decode()
            for minute, letter in enumerate(account):
                if letter != ".":
                    letters[(day - first) // MINUTE + minute] = letter
        found[id_] = "".join(letters)
    return found


def digests(root) -> dict[str, str]:
    """Path -> digest, of every file that the ledger knows."""
    with open_store(root) as store:
        paths = [path.relative_to(root).as_posix() for path in root.glob("*/*/*/*.parquet")]
        return {path: store.journal.digest(path)[0] for path in paths}


def test_bringing_up_changes_no_minute_and_no_digest(old):
    before, files = known(old), sql(old, "SELECT path, digest FROM day_file")
    with open_store(old):
        pass
    assert known(old) == before
    assert {path: digest for path, digest in digests(old).items() if digest} == dict(files)
    assert days_sealed(old) == SEALED
    assert sql(old, "SELECT count(*) FROM meta WHERE key = 'unsealed'") == [(0,)]


def test_cut_short_before_any_batch_it_goes_on_with_the_next_start_and_loses_nothing(old, tmp_path):
    before = known(old)
    for number in itertools.count(1):
        root = tmp_path / f"copy-{number}"
        shutil.copytree(old, root)
        steps = []

        def go_on(what="", done=0, of=0, steps=steps, number=number):
            steps.append((done, of))
            if len(steps) == number:
                raise Asked

        with journal_in(root / JOURNAL) as journal:
            try:
                seal_old_days(journal, lambda series: ["5m", "1h"], go_on, at_once=1)
            except Asked:
                assert "unsealed" in journal.meta()
        assert known(root) == before
        assert len(days_sealed(root)) < number
        with open_store(root) as store:
            assert "unsealed" not in store.journal.meta()
        assert known(root) == before
        assert days_sealed(root) == SEALED
        shutil.rmtree(root)
        if len(steps) < number:
            break
    assert [done for done, _ in steps] == list(range(steps[0][1]))
    assert len(steps) >= 5


def test_what_was_brought_up_is_collected_on(old):
    with open_store(old) as store:
        store.expect([BTC, ETH], at(0), at(7 * 1440))
        store.commit([candle(1443, 5.0), candle(7 * 1440, 5.0)], at(7 * 1440 + 1))
        assert flush(store).error is None
        assert store.finish(store.unfinished()).error is None
        assert store.unfinished() == []
        assert store.look_up(BTC, at(1440)) == candle(1440, 1540.0)
