"""Check and monitor see sealed and open days as one, and say how far the scrub is."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from directories import BTC, ETH, at, sql
from sealing import UNANSWERED, collect, seal, sealed

from trio_candles.health.judge import judge
from trio_candles.health.reading import read_health, read_ledger
from trio_candles.health.report import monitor_document
from trio_candles.health.screen import monitor_lines, summary_text
from trio_candles.reading.ledger import Ledger, open_ledger
from trio_candles.store.store import open_store

LATER = 3 * UNANSWERED


def scrubbed(root: Path, noted: object) -> tuple[str, object]:
    """What the monitor says of *noted*, as a line and as a document."""
    with open_store(root) as store:
        store.expect([BTC], at(0), at(0))
        store.journal.remember(scrub=noted if isinstance(noted, str) else json.dumps(noted))
    health = judge(read_health(root, lambda: at(LATER + 10), None), [BTC])
    (line,) = [one.text for one in monitor_lines(health, root, {}, 140) if "scrub" in one.text] or [""]
    assert line.strip() in summary_text(health)
    document = monitor_document(health, root, {})
    return line.strip(), None if document.scrub is None else tuple(vars_of(document.scrub))


def vars_of(document: object) -> list[object]:
    return [getattr(document, name) for name in ("began_ms", "ended_ms", "days", "of")]


@pytest.mark.parametrize(
    ("noted", "line", "document"),
    [
        (
            {"began_ms": at(LATER + 4), "ended_ms": None, "days": 3120, "of": 21900, "place": [7, 0]},
            "scrub: 3,120 of 21,900 days, since 00:04",
            (at(LATER + 4), None, 3120, 21900),
        ),
        (
            {"began_ms": at(0), "ended_ms": None, "days": 0, "of": 2},
            "scrub: 0 of 2 days, since 2026-01-11 00:00",
            (at(0), None, 0, 2),
        ),
        ({"began_ms": None, "ended_ms": None, "days": 1, "of": 2}, "scrub: 1 of 2 days", (None, None, 1, 2)),
        (
            {"began_ms": at(0), "ended_ms": at(40), "days": 21900, "of": 21900},
            "scrubbed 2026-01-11 00:40, 21,900 days",
            (at(0), at(40), 21900, 21900),
        ),
        ({"began_ms": at(0), "ended_ms": at(0), "days": 0, "of": 0}, "", (at(0), at(0), 0, 0)),
        ("no JSON", "", None),
        ({"began_ms": "yesterday", "ended_ms": None, "days": 0, "of": 0}, "", None),
    ],
)
def test_the_monitor_says_how_far_the_scrub_is(tmp_path, noted, line, document):
    assert scrubbed(tmp_path, noted) == (line, document)


def test_a_series_that_has_left_keeps_its_sealed_gaps_in_the_totals(tmp_path):
    with open_store(tmp_path) as store:
        collect(store, "cgg", "cgc", timeframes=())
        store.expect([ETH], at(2880), at(2880))
        seal(store, LATER)
    assert sorted(sealed(tmp_path)) == [0, 1]
    gaps = read_health(tmp_path, lambda: at(LATER), [BTC]).series[BTC].open_gaps
    assert gaps is not None
    assert (gaps.count, gaps.length // 60_000, gaps.since, gaps.until) == (2, 3, at(1), at(3))


def test_of_series_that_are_expected_no_look_reads_more_sealed_days_the_more_there_are(tmp_path):
    """A look reads those of the last two days, however many there are before them."""
    steps = {}
    for days in (3, 5):
        root = tmp_path / str(days)
        with open_store(root) as store:
            collect(store, *["ce"] * days, timeframes=())
            seal(store, days * 1440 + UNANSWERED)
        assert len(sealed(root)) == days
        steps[days] = steps_of_a_look(root, at(days * 1440 + 2))
    assert steps[5] <= steps[3] + 5


def steps_of_a_look(root: Path, now: int) -> int:
    """How many steps SQLite takes for a look, in hundreds."""
    taken = 0

    def step() -> int:
        nonlocal taken
        taken += 1
        return 0

    with closing(sqlite3.connect(root / "journal.sqlite3")) as database:
        ledger = Ledger(database, lambda: now)
        database.set_progress_handler(step, 100)
        read_ledger(ledger, now, running=False, wanted=None)
    return taken


def test_a_sealed_day_whose_row_is_damaged_is_trouble_and_no_traceback(tmp_path):
    with open_store(tmp_path) as store:
        collect(store, "ce", timeframes=())
        seal(store)
    sql(tmp_path, "UPDATE sealed SET unknown = 7")
    found = read_health(tmp_path, lambda: at(1441), None)
    assert found.trouble is not None
    assert "checksum" in found.trouble
    with open_ledger(tmp_path) as ledger:
        assert ledger.accounts()
