"""Fresh and healthy as the contract defines them, to the millisecond; what changed; what is drawn. All without I/O."""

from __future__ import annotations

import json
import re
from pathlib import Path

import attrs
import pytest

from trio_candles.candles.documents import to_json
from trio_candles.candles.model import MINUTE, Millis, Series
from trio_candles.health.alerts import Alert, Problems, alert_documents
from trio_candles.health.facts import Completeness, OpenGaps, Reading, SeriesFacts, VenueState
from trio_candles.health.judge import Problem, State, Subject, age_text, judge
from trio_candles.health.report import ProblemDocument, SeriesFreshness, check_document, monitor_document
from trio_candles.health.screen import as_text, check_lines, monitor_lines, series_text, summary_text

NOW = Millis(1_768_046_400_000)
BTC, ETH = Series("okx", "BTC-USDT"), Series("kraken", "ETH/USD")
HERE = Path("data")
ESCAPES = re.compile(r"\x1b\[[0-9]*m")


def facts(age: int | None = 30_000, **more: object) -> SeriesFacts:
    known = None if age is None else NOW - age
    return SeriesFacts(mark=NOW - 30_000, known_until=known, last_candle=NOW - 90_000, **more)


def state(age: int = 1000, *, connected: bool = True, status: str = "[OK]") -> VenueState:
    return VenueState(NOW - age, status, connected, 10, 9, 0, 0)


def reading(**changes: object) -> Reading:
    sound = Reading(
        now=NOW,
        running=True,
        series={BTC: facts(), ETH: facts()},
        venues={"okx": state(), "kraken": state()},
        latest=NOW - 1000,
    )
    return attrs.evolve(sound, **changes)


def problems(found: Reading, speed: float = 1.0, configured: tuple[Series, ...] = (BTC, ETH)) -> list[tuple[str, str]]:
    return [(str(one.subject), one.state) for one in judge(found, configured, speed).problems]


# --- fresh


@pytest.mark.parametrize(
    ("age", "word"),
    [
        (0, "fresh"),
        (6 * MINUTE, "fresh"),
        (6 * MINUTE + 1, "stale"),
        (3 * 24 * 60 * MINUTE, "stale"),
        (-MINUTE, "fresh"),
        (-MINUTE - 1, "stale"),  # a clock that stepped: what has not happened is not fresh
        (None, "stale"),
    ],
)
def test_fresh_is_at_most_six_minutes_to_the_millisecond(age, word):
    (one, _) = judge(reading(series={BTC: facts(age), ETH: facts()}), (BTC, ETH)).series
    assert one.state == word
    assert bool(one.detail) is (word != "fresh")


def test_a_stale_series_has_been_so_since_six_minutes_after_its_newest_minute():
    health = judge(reading(series={BTC: facts(10 * MINUTE, cause="disconnected"), ETH: facts()}), (BTC, ETH))
    (problem,) = health.problems
    assert problem.since == NOW - 4 * MINUTE
    assert problem.detail == "its newest known minute ended 10m 0s ago (disconnected)"


def test_a_quiet_series_is_fresh_however_old_its_last_candle():
    quiet = SeriesFacts(mark=NOW, known_until=NOW, last_candle=NOW - 10**9)
    assert judge(reading(series={BTC: quiet}, venues={"okx": state()}), (BTC,)).healthy


def test_a_configured_series_that_the_directory_does_not_know_is_missing():
    health = judge(reading(series={BTC: facts()}), (BTC, ETH))
    assert [one.state for one in health.series] == ["fresh", "missing"]
    assert not health.all_fresh


def test_a_series_that_is_not_configured_does_not_count():
    assert problems(reading(series={BTC: facts(), ETH: facts(10**9)}), configured=(BTC,)) == []


def test_no_series_at_all_is_neither_fresh_nor_healthy():
    health = judge(reading(), ())
    assert not health.all_fresh
    assert [one.state for one in health.problems] == ["nothing_configured"]


# --- healthy


def test_a_backfill_that_still_runs_is_no_illness():
    gaps = OpenGaps(40, 4320 * MINUTE, NOW - 9 * MINUTE, 0, MINUTE, "not_collected", "", 7, "timeout")
    behind = facts(open_gaps=gaps, day=Completeness(1, 1440))
    assert judge(reading(series={BTC: behind, ETH: behind}), (BTC, ETH)).healthy


DOWN = [("collector", "down"), ("okx", "not_connected"), ("kraken", "not_connected")]
SILENT = [("collector", "silent"), ("okx", "not_connected"), ("kraken", "not_connected")]
OLD = {"okx": state(30_001), "kraken": state(30_001)}


@pytest.mark.parametrize(
    ("changes", "speed", "found"),
    [
        ({}, 1.0, []),
        ({"running": False}, 1.0, DOWN),
        ({"running": None}, 1.0, DOWN),
        ({"venues": {"okx": state(), "kraken": state(connected=False)}}, 1.0, [("kraken", "not_connected")]),
        ({"venues": {"okx": state()}}, 1.0, [("kraken", "not_connected")]),
        ({"venues": {}}, 1.0, SILENT),
        ({"venues": {"okx": state(30_000), "kraken": state(30_000)}}, 1.0, []),
        ({"venues": OLD}, 1.0, SILENT),
        ({"venues": OLD}, 60.0, []),  # half a wall second
        ({"venues": {"okx": state(300_000), "kraken": state(300_000)}}, 60.0, []),
        ({"venues": {"okx": state(300_001), "kraken": state(300_001)}}, 60.0, SILENT),
        ({"venues": {"okx": state(-60_001), "kraken": state(-60_001)}}, 1.0, SILENT),
        ({"store_errors": {"journal": "disk is full"}}, 1.0, [("store journal", "cannot_write")]),
        ({"series": {BTC: facts(), ETH: facts(400_000)}}, 1.0, [("kraken ETH/USD", "stale")]),
        ({"series": {BTC: facts()}}, 1.0, [("kraken ETH/USD", "missing")]),
        (
            {"trouble": "the journal cannot be read: locked", "series": {}, "venues": {}},
            1.0,
            [("journal", "unreadable"), *SILENT[1:], ("okx BTC-USDT", "missing"), ("kraken ETH/USD", "missing")],
        ),
    ],
)
def test_healthy_is_a_collector_connected_venues_fresh_series_and_a_store_that_writes(changes, speed, found):
    assert problems(reading(**changes), speed) == found


@pytest.mark.parametrize("status", ["[WAIT]", "[STALE (5m)]"])
def test_a_connected_venue_is_no_illness_whatever_the_table_says(status):
    assert problems(reading(venues={"okx": state(status=status), "kraken": state()})) == []


def test_no_collector_is_told_with_the_time_it_stopped():
    stopped = judge(reading(running=False, stopped_at=NOW - 5000), (BTC,)).problems[0]
    killed = judge(reading(running=False), (BTC,)).problems[0]
    assert stopped.detail == "no collector is running; it stopped at 2026-01-10 11:59:55 UTC"
    assert killed.detail == "no collector is running; it was last heard of at 2026-01-10 11:59:59 UTC"
    assert (stopped.since, killed.since) == (NOW - 5000, NOW - 1000)


def test_coverage_is_100_only_if_nothing_is_missing():
    assert Completeness(1439, 1440).percent == 99.9
    assert Completeness(999_999, 1_000_000).percent == 99.9
    assert Completeness(60, 60).percent == 100.0
    assert Completeness(0, 0).percent is None


@pytest.mark.parametrize(
    ("length", "text"),
    [(None, "-"), (0, "0s"), (59_999, "59s"), (60_000, "1m 0s"), (3_600_000, "1h 0m"), (90_000_000, "1d 1h"),
     (-500, "0s"), (-61_000, "-1m 1s")],
)  # fmt: skip
def test_ages_are_told_as_people_say_them(length, text):
    assert age_text(length) == text


# --- what changed


def events(book: Problems, found: Reading) -> list[tuple[str, list[str]]]:
    return [(one.event, [str(p.subject) for p in one.problems]) for one in book.note(judge(found, (BTC, ETH)))]


def test_each_change_is_told_once_and_what_stays_is_no_news():
    book = Problems()
    assert events(book, reading()) == []
    sick = reading(series={BTC: facts(400_000), ETH: facts()})
    assert events(book, sick) == [("unhealthy", ["okx BTC-USDT"])]
    assert events(book, sick) == []
    gone = reading(series={ETH: facts()})  # stale or missing: not fresh, as before
    assert events(book, gone) == []
    other = reading(series={BTC: facts(), ETH: facts(400_000)})
    assert events(book, other) == [("recovered", ["okx BTC-USDT"]), ("unhealthy", ["kraken ETH/USD"])]
    assert events(book, reading()) == [("recovered", ["kraken ETH/USD"])]
    assert events(book, reading()) == []


def test_a_monitor_that_begins_when_something_is_wrong_says_so():
    assert events(Problems(), reading(running=False))[0][0] == "unhealthy"


def test_a_disconnected_venue_does_not_recover_by_the_death_of_its_collector():
    book = Problems()
    book.note(judge(reading(venues={"okx": state(connected=False), "kraken": state()}), (BTC, ETH)))
    assert events(book, reading(running=False)) == [("unhealthy", ["collector", "kraken"])]


def test_nothing_recovers_while_the_journal_cannot_be_read():
    book = Problems()
    book.note(judge(reading(store_errors={"journal": "disk is full"}), (BTC, ETH)))
    blind = reading(trouble="locked", series={}, venues={})
    assert [event for event, _ in events(book, blind)] == ["unhealthy"]
    assert Subject("store", part="journal") in [one.subject for one in book.open]
    assert events(book, reading())[0][0] == "recovered"
    assert not book.open


def test_an_alert_says_what_since_when_and_what_is_still_wrong():
    book = Problems()
    health = judge(
        reading(running=False, stopped_at=NOW - 5000, series={BTC: facts(), ETH: facts(400_000)}), (BTC, ETH)
    )
    (document,) = alert_documents(book.note(health), book.open, NOW, HERE)
    assert (document.event, document.healthy, document.at_ms) == ("unhealthy", False, NOW)
    assert document.data_dir == "data"
    assert document.text.startswith("trio_candles unhealthy: collector: no collector is running; it stopped at")
    assert document.problems == document.still_unhealthy
    assert document.problems[-1] == ProblemDocument(
        subject="series", venue="kraken", symbol="ETH/USD", part=None, state="stale", since_ms=NOW - 40_000,
        detail="its newest known minute ended 6m 40s ago",
    )  # fmt: skip
    assert {one.since_ms for one in document.problems if one.subject == "venue"} == {NOW}
    well = judge(reading(), (BTC, ETH))
    (document,) = alert_documents(book.note(well), book.open, NOW, HERE)
    assert (document.event, document.healthy, document.still_unhealthy) == ("recovered", True, ())
    assert len(document.problems) == 4
    assert "stopped" not in document.text


def test_an_alert_is_a_message_for_slack_and_for_discord_alike():
    """Slack shows ``text``, Discord ``content``, and neither takes a document without its own."""
    problem = Problem(Subject("venue", venue="okx"), "not_connected", "a connection is down")
    (document,) = alert_documents([Alert("unhealthy", (problem,))], (problem,), NOW, HERE)
    sent = json.loads(to_json(document))
    assert sent["text"] == sent["content"] == "trio_candles unhealthy: okx: a connection is down"


@pytest.mark.parametrize("length", [1_000, 100_000])
def test_an_alert_is_never_longer_than_discord_takes(length):
    problem = Problem(Subject("store", part="journal"), "cannot_write", "x" * length)
    (document,) = alert_documents([Alert("unhealthy", (problem,))], (problem,), NOW, HERE)
    assert len(document.text) > length
    assert len(document.content) == min(len(document.text), 2_000)
    assert document.text.startswith(document.content.removesuffix("…"))


# --- what is drawn


def many(count: int, stale: int) -> tuple[Reading, tuple[Series, ...]]:
    series = tuple(Series("okx", f"SIM{number:03}-USDT") for number in range(count))
    found = {one: facts(10 * MINUTE if number >= count - stale else 0) for number, one in enumerate(series)}
    return reading(series=found, venues={"okx": state()}), series


@pytest.mark.parametrize("width", [80, 140])
@pytest.mark.parametrize("height", [24, 30, 50])
@pytest.mark.parametrize("stale", [0, 3, 150])
def test_a_hundred_and_fifty_series_fit_the_screen_and_the_sick_come_first(width, height, stale):
    found, series = many(150, stale)
    health = judge(found, series)
    for lines in (
        monitor_lines(health, HERE, {}, width, height),
        check_lines(health, HERE, "config.yaml", width, height),
    ):
        text = as_text(lines, width, coloured=False)
        assert len(text.splitlines()) == height - 1
        assert max(map(len, text.splitlines())) <= width
        rows = [line for line in text.splitlines() if "SIM" in line]
        assert sum(" stale " in row for row in rows[:3]) == min(stale, 3)
        assert "more, all fresh" in text if stale <= 3 else "more, none fresh" in text
        assert "150" in text.splitlines()[-2] + text.splitlines()[-1]


def test_what_is_no_screen_gets_every_series():
    found, series = many(150, 1)
    lines = monitor_lines(judge(found, series), HERE, {}, 140)
    assert sum("SIM" in line.text for line in lines) == 150


def worst() -> tuple[Reading, tuple[Series, ...]]:
    """The longest and most hostile of everything."""
    name = Series("okx\x1b[2J", "A" * 200 + "\x07-\N{RIGHT-TO-LEFT OVERRIDE}\nUSDT")
    gaps = OpenGaps(10**6, 10**12, 0, 0, MINUTE, "un\x1b[31mproven", "x" * 900 + "\r", 10**6, "\x1b]0;title\x07")
    sick = facts(10**11, open_gaps=gaps, revisions=10**6, hour=Completeness(0, 1), cause="\x1b[0m\nlost")
    states = {name.venue: VenueState(0, "[\x1b[5m]" * 20, False, 10**9, 10**8, 10**8, 10**5)}
    found = reading(
        series={name: sick}, venues=states, store_errors={"journal": "full\x1b[1m\n" * 50}, running=None,
        rejections={name.venue: {"not\x1b[0m_finite": 3}}, confirmations={name.venue: {"agreed": 10**9}},
    )  # fmt: skip
    return found, (name, ETH)


@pytest.mark.parametrize("width", [80, 100, 140])
def test_nothing_from_a_directory_drives_the_terminal_or_breaks_the_table(width):
    found, series = worst()
    health = judge(found, series)
    where = Path("da\x1b[2Jta")
    for lines in (
        monitor_lines(health, where, dict.fromkeys(series, 10**12), width),
        check_lines(health, where, "con\x1bfig", width),
    ):
        text = as_text(lines, width, coloured=True)
        plain = ESCAPES.sub("", text)
        assert "\x1b[31m" in text
        assert all(line.isprintable() for line in plain.split("\n"))
        assert max(map(len, plain.split("\n"))) <= width
    for text in (summary_text(health), *(series_text(one, 5) for one in health.series)):
        assert text.isprintable()


def test_colours_are_asked_for():
    health = judge(reading(running=False), (BTC, ETH))
    assert "\x1b" not in as_text(monitor_lines(health, HERE, {}, 80), 80, coloured=False)
    assert "\x1b[31m" in as_text(monitor_lines(health, HERE, {}, 80), 80, coloured=True)


def test_the_table_at_80_columns_shows_lag_coverage_gaps_and_venues():
    gaps = OpenGaps(3, 12 * MINUTE, NOW - 3 * 3_600_000, 0, MINUTE, "disconnected", "reset", 7, "timeout")
    one = facts(open_gaps=gaps, hour=Completeness(59, 60), day=Completeness(1400, 1440), revisions=2)
    health = judge(
        reading(series={BTC: one, ETH: facts()}, rejections={"okx": {"high_below_low": 4, "duplicate": 9}}), (BTC, ETH)
    )
    text = as_text(monitor_lines(health, HERE, {BTC: 1234}, 80), 80, coloured=False)
    assert re.search(r"okx BTC-USDT +fresh +30s +1\.2s +98\.3 +97\.2 +3 +3h 0m$", text, re.MULTILINE)
    assert re.search(r"OKX +\[OK\] +10 +9 +0 +0 +1s +-$", text, re.MULTILINE)
    assert "2/2 fresh, 2/2 connected, 3 gaps (12 min), 4 rejected, 2 revised" in text
    wide = as_text(monitor_lines(health, HERE, {BTC: 1234}, 140), 140, coloured=False)
    assert "disconnected reset" in wide
    assert "high_below_low 4" in wide


@pytest.mark.parametrize(
    ("agreed", "differed", "percent"), [(1230, 4, 99.6), (1, 0, 100.0), (99_999, 1, 99.9), (0, 3, 0.0)]
)
def test_the_rate_of_sampled_rows_stands_beside_what_comparing_came_to_and_is_never_rounded_up(
    agreed, differed, percent
):
    counts = {"agreed": 7, "sampled_agreed": agreed, "sampled_differed": differed, "sampled_unanswered": 2}
    health = judge(reading(series={BTC: facts()}, confirmations={"okx": counts}), (BTC,))
    wide = as_text(monitor_lines(health, HERE, {}, 140), 140, coloured=False)
    assert f"SAMPLED {percent} % of {agreed + differed:,}, agreed 7, sampled_unanswered 2" in wide
    (venue,) = (one for one in monitor_document(health, HERE, {}).venues if one.venue == "okx")
    assert (venue.sampled, venue.sampled_percent) == (agreed + differed, percent)
    assert venue.confirmations == counts


def test_a_venue_of_which_nothing_was_sampled_has_no_rate():
    health = judge(reading(series={BTC: facts()}, confirmations={"okx": {"agreed": 7}}), (BTC,))
    assert "SAMPLED" not in as_text(monitor_lines(health, HERE, {}, 140), 140, coloured=False)
    assert {one.sampled_percent for one in monitor_document(health, HERE, {}).venues} == {None}


# --- documents


def test_the_check_document_is_the_contracts():
    document = check_document(judge(reading(series={BTC: facts(360_001)}), (BTC, ETH)), HERE)
    assert document.ok is False
    assert document.checked_at_ms == NOW
    assert document.collector_running is True
    assert document.series[0] == SeriesFreshness(
        venue="okx", symbol="BTC-USDT", timeframe="1m", state=State.STALE,
        detail="its newest known minute ended 6m 0s ago",
        accounted_until_ms=NOW - 360_001, accounted_age_seconds=360.001,
        last_candle_ms=NOW - 90_000, last_candle_age_seconds=30.0,
    )  # fmt: skip
    assert document.series[1].state == "missing"
    assert document.series[1].accounted_until_ms is None


def test_the_monitor_document_says_all_that_the_table_shows():
    gaps = OpenGaps(3, 12 * MINUTE, NOW - 9000, NOW - MINUTE, NOW, "disconnected", "reset", 7, "timeout")
    found = reading(series={BTC: facts(open_gaps=gaps, hour=Completeness(59, 60)), ETH: facts()})
    document = monitor_document(judge(found, (BTC, ETH)), HERE, {BTC: 1500})
    assert document.ok is True
    assert [venue.connected for venue in document.venues] == [True, True]
    one = document.series[0]
    assert (one.lag_seconds, one.coverage_hour_percent, one.open_gap_minutes) == (1.5, 98.3, 12)
    assert one.oldest_gap.reason == "disconnected"
    assert one.oldest_gap.age_seconds == 9.0
    assert document.series[1].oldest_gap is None
