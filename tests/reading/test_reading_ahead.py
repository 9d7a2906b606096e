"""A reader knows no minute that has not happened, whatever a wrong clock has left in the ledger."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from directories import BTC, sql
from stores import at, candles, expect, flush

from trio_candles import GapError, coverage, read_candles
from trio_candles.audit.walk import audit
from trio_candles.candles.model import DAY, MINUTE, Attempt, Empty, Millis, Reason, Unsure
from trio_candles.clock import WallTime
from trio_candles.export import main as export
from trio_candles.health.reading import read_health
from trio_candles.reading.candles import read
from trio_candles.reading.ledger import open_ledger
from trio_candles.store.store import open_store

HOURS = {"six hours": 360, "three years": 3 * 365 * 1440}
NOW = Millis(at(600) + 20_000)


def now() -> Millis:
    return NOW


def by_a_clock_ahead(root: Path, minutes: int, kind: str) -> None:
    """*root* with 600 candles of BTC, and *minutes* after them of one *kind* that have not happened."""
    with open_store(root) as store:
        store.aggregate(["1h"])
        expect(store, since=0, now=0)
        store.commit(candles(0, 590), at(590))
        ahead = Millis(at(600) + minutes * MINUTE)
        said = Unsure(BTC, at(600), ahead, Reason.COLLECTOR_DOWN) if kind == "gap" else Empty(BTC, at(600), ahead, "x")
        store.commit([*candles(590, 600), said], ahead)
        flush(store)


@pytest.fixture(params=HOURS.values(), ids=HOURS)
def minutes(request) -> int:
    return request.param


@pytest.mark.parametrize("kind", ["gap", "empty"])
def test_read_candles_ends_with_the_newest_minute_that_has_happened(tmp_path, minutes, kind):
    by_a_clock_ahead(tmp_path, minutes, kind)
    for timeframe, count in (("1m", 600), ("1h", 10)):
        found = read(tmp_path, "okx", "BTC-USDT", timeframe, now=now)
        assert (found.table.num_rows, found.plan.until, found.gaps) == (count, at(600), [])
    filled = read(tmp_path, "okx", "BTC-USDT", fill="previous", now=now)
    assert filled.table.num_rows == 600
    with pytest.raises(GapError, match="not accounted for yet"):
        read(tmp_path, "okx", "BTC-USDT", end=at(601), now=now)


def test_a_gap_that_reaches_ahead_is_a_gap_up_to_now(tmp_path):
    by_a_clock_ahead(tmp_path, 360, "gap")
    later = at(610) + 5
    found = read(tmp_path, "okx", "BTC-USDT", on_gap="ignore", now=lambda: Millis(later))
    assert [(gap.since, gap.until) for gap in found.gaps] in ([(at(600), at(610))], [(at(600), at(605))])


@pytest.mark.parametrize("kind", ["gap", "empty"])
def test_coverage_knows_no_minute_that_has_not_happened(tmp_path, kind):
    ten_years = 3650 * 1440  # coverage reads by the wall's clock
    by_a_clock_ahead(tmp_path, ten_years, kind)
    until = coverage(tmp_path).column("until_ms").to_pylist()[-1]
    assert at(600) <= until < at(600) + ten_years * MINUTE
    assert until == coverage(tmp_path, end=LATE_IN_2099).column("until_ms").to_pylist()[-1]


LATE_IN_2099 = "2099-12-31"


@pytest.mark.parametrize("set_back_to", [at(-3000), at(300), 0])
def test_a_readers_clock_that_is_behind_hides_no_stored_candle(tmp_path, set_back_to):
    by_a_clock_ahead(tmp_path, 360, "gap")
    found = read(tmp_path, "okx", "BTC-USDT", now=lambda: Millis(set_back_to))
    assert (found.table.num_rows, found.plan.until) == (600, at(600))


def test_a_series_that_is_expected_from_a_time_ahead_has_nothing_yet(tmp_path):
    with open_store(tmp_path) as store:
        expect(store, since=1000, now=2000)
    found = read(tmp_path, "okx", "BTC-USDT", now=now)
    assert (found.table.num_rows, found.gaps) == (0, [])
    with open_ledger(tmp_path, now) as ledger:
        assert [(one.first, one.mark) for one in ledger.accounts()] == [(at(600), at(600))]
        assert ledger.open_gaps(ledger.accounts()) == {}


def test_the_export_does_not_wait_for_the_clock_to_catch_up(tmp_path, capsys):
    root = tmp_path / "d"
    by_a_clock_ahead(root, 3650 * 1440, "empty")
    asked = ["--data-dir", str(root), "--venue", "okx", "--symbol", "BTC-USDT", "--output", str(tmp_path / "out.csv")]
    pivot = ["--speed", "1e-12", "--pivot", str(NOW / 1000)]  # a clock that stands still
    assert export([*asked, *pivot, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["rows"], told["end_ms"], told["gaps"]) == (600, at(600), [])


def test_the_monitor_counts_no_gap_that_has_not_happened(tmp_path, minutes):
    by_a_clock_ahead(tmp_path, minutes, "gap")
    reading = read_health(tmp_path, lambda: Millis(at(603)), None)
    facts = reading.series[BTC]
    assert (facts.mark, facts.known_until, facts.cause) == (at(603), at(600), "collector_down")
    assert (facts.open_gaps.length, facts.open_gaps.until) == (3 * MINUTE, at(603))
    assert read_health(tmp_path, now, None).series[BTC].open_gaps is None


@pytest.mark.parametrize("kind", ["gap", "empty"])
def test_the_audit_blames_nobody_for_minutes_that_have_not_happened(tmp_path, minutes, kind):
    by_a_clock_ahead(tmp_path, minutes, kind)
    for running in (False, True):
        report = audit(tmp_path, now=now, running=lambda beside=running: beside, pauses=())
        assert report.violations == ()
        assert report.gaps == ()
        (minute_total,) = [tally for (*_, timeframe), tally in report.series.items() if timeframe == "1m"]
        assert (minute_total.candles, minute_total.empty, minute_total.open_gap) == (600, 0, 0)


def test_the_audit_goes_on_blaming_a_stored_candle_that_has_not_happened(tmp_path):
    by_a_clock_ahead(tmp_path, 360, "gap")
    report = audit(tmp_path, now=lambda: at(500), running=lambda: False, pauses=())
    assert {one.kind for one in report.violations} >= {"invalid_candle"}
    assert not [one for one in report.violations if one.kind == "ledger_corrupt"]


def test_the_history_of_an_absence_ahead_is_borne(tmp_path):
    by_a_clock_ahead(tmp_path, 360, "gap")
    with open_store(tmp_path) as store:
        store.commit([Attempt(BTC, at(600), at(900), "no row", absent=True)], Millis(at(0) + 3 * DAY))
    assert sql(tmp_path, "SELECT count(*) FROM gap_event WHERE event = 'absent'") == [(1,)]
    assert read_candles(tmp_path, "okx", "BTC-USDT", end=at(600)).num_rows == 600


@pytest.mark.parametrize(("speed", "pivot"), [(1.0, 0.0), (60.0, 1.7e9), (60.0, 1e9), ("x", 0), (float("inf"), 0)])
def test_the_clock_of_a_reader_is_the_one_that_the_directory_remembers_or_the_walls(tmp_path, speed, pivot):
    with open_store(tmp_path) as store:
        store.claim("real", speed=speed, pivot=pivot)
    usual = speed in (1.0, "x", float("inf"))
    before = (WallTime() if usual else WallTime(speed, pivot)).now()
    with open_ledger(tmp_path) as ledger:
        assert 0 <= ledger.now - before < 60_000 * 60
        assert ledger.present == ledger.now - ledger.now % MINUTE
