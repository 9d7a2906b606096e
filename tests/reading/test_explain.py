"""What is explained of a minute is what the ledger and the files say, whatever the minute is and wherever it lies."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import attrs
import pytest
from directories import (
    BTC,
    ETH,
    at,
    bring_down,
    candle,
    flush,
    left_by_a_killed_collector,
    make,
    put_into_journal,
    sql,
)
from sealing import UNANSWERED, collect, path, seal
from stores import spoil

from trio_candles.candles.documents import CandleDocument, EmptyDocument
from trio_candles.candles.model import MINUTE, Attempt, Empty, Page, Reason, Source, Unsure
from trio_candles.reading.errors import LedgerUnreadable, NoSuchDirectory, UnknownSeries
from trio_candles.reading.explain import explain
from trio_candles.reading.explanation import Explanation, Question, Verdict
from trio_candles.reading.futures import SPACED
from trio_candles.reading.spans import coverage
from trio_candles.store import history
from trio_candles.store.schema import JOURNAL
from trio_candles.store.store import Store, open_store

STATES = {"stored": "candle"}
"""What ``coverage`` calls otherwise."""


def asked(root: Path, minute: float, now: float = 2000, series=BTC) -> Explanation:
    return explain(root, series.venue, series.symbol, at(minute), lambda: at(now))


def page(minute: int, *candles, conclusive: bool = True, comparing: bool = False) -> Page:
    return Page(BTC, at(minute), at(minute + 1), candles, (), conclusive=conclusive, comparing=comparing)


def from_rest(minute: int, heard: float, **changes):
    return candle(minute, source=Source.REST, ingest_time=at(heard), **changes)


# --- what a minute is


WORD = "ssequggsssee"


@pytest.mark.parametrize("flush_at", [(), (3,), (12,), (4, 9)], ids=str)
def test_the_verdict_on_every_minute_is_that_of_coverage(tmp_path, flush_at):
    make(tmp_path, WORD, first=1435, flush_at=[1435 + minute for minute in flush_at])
    told = {
        minute: STATES.get(span["state"], span["state"])
        for span in coverage(tmp_path, "okx", "BTC-USDT").to_pylist()
        for minute in range(span["since_ms"], span["until_ms"], MINUTE)
    }
    found = {one: asked(tmp_path, (one - at(0)) / MINUTE) for one in told}
    assert {minute: one.verdict.value for minute, one in found.items()} == told
    assert len(found) == len(WORD)
    assert all(one.known == (one.verdict in ("candle", "empty")) for one in found.values())
    assert all((one.open_time_ms, one.close_time_ms) == (minute, minute + MINUTE) for minute, one in found.items())


def test_a_candle_has_its_values_who_brought_it_when_and_by_what_it_is_certain(tmp_path):
    make(tmp_path, "sss", flush_at=[3])
    one = asked(tmp_path, 1)
    assert one.candle == CandleDocument.of(candle(1))
    assert [(each.by, each.what, each.at_ms, each.candle) for each in one.said] == [
        ("feed", "candle", candle(1).ingest_time, one.candle)
    ]
    assert (one.grade, one.evidence) == ("stated", "the venue's feed said that the minute is closed")
    assert (one.reason, one.gap, one.empty) == (None, None, None)


def test_any_moment_of_the_minute_in_any_spelling_will_do(tmp_path):
    make(tmp_path, "sss")
    for moment in (at(1), at(1) + 59_999, "2026-01-11T00:01:30", "2026-01-11 01:01+01:00"):
        assert explain(tmp_path, "OKX", "btc-usdt", moment).open_time_ms == at(1)


def test_an_empty_minute_has_its_span_and_the_evidence(tmp_path):
    make(tmp_path, "ses")
    one = asked(tmp_path, 1)
    assert one.evidence == "nothing traded: the ids say so, 1"
    assert one.empty is not None
    assert attrs.astuple(one.empty) == (at(1), at(2), "the ids say so, 1")


def test_a_gap_says_why_since_when_how_often_it_was_asked_about_and_when_it_will_be(tmp_path):
    with open_store(tmp_path) as store:
        store.expect([BTC], at(0), at(0))
        store.commit([candle(0), Unsure(BTC, at(1), at(4), Reason.DISCONNECTED, "lost"), candle(4)], at(5))
        before = asked(tmp_path, 2, 6)
        store.commit([Attempt(BTC, at(1), at(4), "HTTP 503")], at(7))
        after = asked(tmp_path, 2, 7)
    assert before.gap is not None
    assert attrs.astuple(before.gap) == (at(1), at(4), "disconnected", "lost", at(5), 0, None)
    assert before.asked_next == (Question(about="gap", not_before_ms=0, attempts=0),)
    assert after.gap is not None
    assert (after.gap.attempts, after.gap.last_error) == (1, "HTTP 503")
    assert after.asked_next == (Question(about="gap", not_before_ms=at(7.5), attempts=1),)
    assert after.evidence.startswith("there was no connection for the whole of the minute")
    assert after.evidence.endswith("(lost)")


def test_an_absence_that_was_seen_once_says_when_a_second_one_would_count(tmp_path):
    with open_store(tmp_path) as store:
        store.expect([BTC], at(0), at(0))
        store.commit([candle(0), Unsure(BTC, at(1), at(2), Reason.NO_CLOSE), candle(2)], at(3))
        store.commit([Attempt(BTC, at(1), at(2), "left out", absent=True)], at(70))
        once = asked(tmp_path, 1, 71)
        store.commit([Attempt(BTC, at(1), at(2), "left out again", absent=True)], at(80))
        twice = asked(tmp_path, 1, 81)
    assert once.verdict is Verdict.GAP
    assert [(each.by, each.what, each.at_ms, each.detail) for each in once.said] == [
        ("rest", "absent", at(70), "left out")
    ]
    assert "01:20:00 UTC or later, the minute is unfillable" in once.would_change[1]
    assert twice.verdict is Verdict.UNFILLABLE
    assert twice.evidence == (
        "the venue does not serve the minute: left out (at 2026-01-11 01:10:00 UTC);"
        " left out again (at 2026-01-11 01:20:00 UTC)"
    )
    assert twice.asked_next == ()
    assert [each.event for each in twice.gap_history] == ["opened", "absent", "unfillable"]
    assert SPACED == history.SPACED


def test_the_history_of_a_gap_that_was_filled_stays_with_its_minutes_and_not_with_others(tmp_path):
    with open_store(tmp_path) as store:
        store.expect([BTC], at(0), at(0))
        store.commit([candle(0), Unsure(BTC, at(1), at(4), Reason.DISCONNECTED), candle(4)], at(20))
        store.commit([page(2, from_rest(2, 21))], at(21))
    filled, still_open, beside = (asked(tmp_path, minute) for minute in (2, 1, 4))
    assert filled.verdict is Verdict.CANDLE
    assert filled.evidence == "the venue's REST record has it; the feed had not proved the minute"
    assert [(each.event, each.at_ms) for each in filled.gap_history] == [("opened", at(20)), ("stored", at(21))]
    assert [each.event for each in still_open.gap_history] == ["opened"]
    assert beside.gap_history == ()


# --- outside of what is accounted for


@pytest.mark.parametrize(
    ("minute", "verdict", "reason"),
    [
        (-1, "not_expected", "before_first"),
        (-5000, "not_expected", "before_first"),
        (3, "unaccounted", "not_yet"),
        (9, "unaccounted", "not_yet"),
        (10, "unaccounted", "not_ended"),
        (100_000, "unaccounted", "not_ended"),
    ],
)
def test_a_minute_without_a_verdict_says_why(tmp_path, minute, verdict, reason):
    make(tmp_path, "sss")
    one = asked(tmp_path, minute, 10.5)
    assert (one.verdict, one.reason, one.known, one.candle) == (verdict, reason, False, None)


def test_what_keeps_a_minute_from_its_verdict_is_named(tmp_path):
    make(tmp_path, "sss")
    sql(tmp_path, "INSERT INTO meta VALUES ('stopped_at_ms', ?)", str(at(3.5)))
    assert "stopped at 2026-01-11 00:03:30 UTC" in asked(tmp_path, 5, 10).evidence
    sql(tmp_path, "INSERT INTO meta VALUES ('clock_waits', 'no venue has been heard')")
    assert asked(tmp_path, 5, 10).evidence.endswith("does not believe its clock: no venue has been heard")
    assert asked(tmp_path, 1, 10).verdict is Verdict.CANDLE


def test_before_the_venues_market_began_nothing_is_expected_and_the_evidence_is_told(tmp_path):
    make(tmp_path, "eeess")
    sql(tmp_path, "INSERT INTO listing SELECT id, ?, 'trade 1' FROM series", at(3))
    one = asked(tmp_path, 1)
    assert (one.verdict, one.reason) == ("not_expected", "unlisted")
    assert one.evidence == "the venue's market began at 2026-01-11 00:03:00 UTC: trade 1"
    assert asked(tmp_path, 3).verdict is Verdict.CANDLE


def test_a_series_that_left_is_not_expected_from_then_on_and_nobody_asks_about_its_gaps(tmp_path):
    make(tmp_path, "sgs")
    sql(tmp_path, "UPDATE series SET expected = 0")
    after, gap = asked(tmp_path, 3), asked(tmp_path, 1)
    assert (after.verdict, after.reason) == ("not_expected", "not_configured")
    assert (gap.verdict, gap.asked_next, gap.collector.expects_series) == ("gap", (), False)
    assert gap.would_change == ("the series being configured again: until then nobody asks about the gap",)


# --- revisions and comparing


def revised(store: Store) -> None:
    """Minute 1 is a live candle that REST contradicts once."""
    store.expect([BTC], at(0), at(0))
    store.commit([candle(0), candle(1), candle(2)], at(3))
    store.commit([page(1, from_rest(1, 20, volume=9.0), comparing=True)], at(20))


def test_a_revision_has_both_values_both_times_and_when_rest_is_asked_again(tmp_path):
    with open_store(tmp_path) as store:
        revised(store)
        one = asked(tmp_path, 1, 21)
    (noted,) = one.revisions
    assert noted.stored == CandleDocument.of(candle(1)) == one.candle
    assert noted.offered == CandleDocument.of(from_rest(1, 20, volume=9.0))
    assert (noted.at_ms, noted.outcome) == (at(20), "open")
    assert [(each.by, each.at_ms) for each in one.said] == [("feed", candle(1).ingest_time), ("rest", at(20))]
    (question,) = (each for each in one.asked_next if each.about == "revision")
    assert question.not_before_ms is not None
    assert question.not_before_ms > at(20) + MINUTE
    assert one.would_change[0].startswith("the open revision")


def test_what_rest_replaced_is_told_with_what_was_there(tmp_path):
    with open_store(tmp_path) as store:
        revised(store)
        store.commit([page(1, from_rest(1, 23, volume=9.0), comparing=True)], at(23))
        one = asked(tmp_path, 1, 24)
    assert one.candle is not None
    assert (one.candle.source, one.candle.volume) == (Source.REST, 9.0)
    assert [each.outcome for each in one.revisions] == ["replaced"]
    assert one.evidence.startswith("REST said twice")
    assert [each.at_ms for each in one.said] == [candle(1).ingest_time, at(20), at(23)]


def test_a_candle_of_a_minute_that_was_called_empty_is_a_revision_of_the_evidence(tmp_path):
    with open_store(tmp_path) as store:
        store.expect([BTC], at(0), at(0))
        store.commit([candle(0), Empty(BTC, at(1), at(2), "ids 5 and 6"), candle(2)], at(3))
        store.commit([page(1, from_rest(1, 20), comparing=True)], at(20))
        one = asked(tmp_path, 1, 21)
    assert one.verdict is Verdict.EMPTY
    assert [each.stored for each in one.revisions] == [EmptyDocument("ids 5 and 6")]
    assert [each.by for each in one.said] == ["rest"]


def test_whether_a_candle_was_compared_is_told_by_the_confirmed_mark(tmp_path):
    with open_store(tmp_path) as store:
        store.expect([BTC], at(0), at(0))
        store.commit([candle(minute) for minute in range(4)], at(4))
        compared = page(0, from_rest(0, 20), from_rest(1, 20), comparing=True)
        store.commit([attrs.evolve(compared, until=at(2))], at(20))
        known, waits = asked(tmp_path, 1, 21), asked(tmp_path, 2, 21)
    assert (known.comparison.state, known.comparison.mark_ms) == ("compared", at(2))
    assert (waits.comparison.state, waits.comparison.mark_ms) == ("not_yet", at(2))
    assert known.asked_next == ()
    assert [each.about for each in waits.asked_next] == ["comparison"]
    assert "the comparison with REST that is still to come" in waits.would_change


def test_a_minute_that_is_sampled_says_so(tmp_path):
    make(tmp_path, "sss")
    sql(tmp_path, "INSERT INTO sample VALUES (1, 1, ?, ?, ?, 2, ?)", at(1), at(0), at(3), at(50))
    assert [each.about for each in asked(tmp_path, 0).asked_next if each.about == "sample"] == []
    (sample,) = (each for each in asked(tmp_path, 1).asked_next if each.about == "sample")
    assert (sample.attempts, sample.not_before_ms) == (2, at(50))
    sql(tmp_path, "UPDATE sample SET minute_ms = NULL")
    assert "sample" in [each.about for each in asked(tmp_path, 0).asked_next]


# --- files


def test_where_the_row_lies_and_that_the_file_is_the_ledgers(tmp_path):
    make(tmp_path, "sss", flush_at=[2])
    filed, waits = asked(tmp_path, 1), asked(tmp_path, 2)
    assert (filed.file.path, filed.file.row_in, filed.file.matches) == (path(), "file", True)
    assert filed.file.found_digest == filed.file.digest is not None
    assert (waits.file.row_in, waits.file.matches, waits.verdict) == ("journal", True, "candle")
    assert waits.candle == CandleDocument.of(candle(2))


def test_before_its_first_flush_a_day_has_no_file_and_nothing_is_wrong(tmp_path):
    make(tmp_path, "sss")
    file = asked(tmp_path, 1).file
    assert (file.exists, file.digest, file.matches, file.row_in) == (False, None, None, "journal")


def test_a_pending_digest_is_as_good_as_the_current_one(tmp_path):
    make(tmp_path, "sss", flush_at=[3])
    sql(tmp_path, "UPDATE day_file SET pending = digest, digest = 'before'")
    one = asked(tmp_path, 1)
    assert (one.file.matches, one.verdict, one.file.digest) == (True, "candle", "before")


@pytest.mark.parametrize("damage", ["spoiled", "gone", "unlisted"])
def test_a_damaged_file_costs_the_candles_that_are_nowhere_else(tmp_path, damage):
    make(tmp_path, "seggs", flush_at=[3])
    if damage == "spoiled":
        spoil(tmp_path / path())
    elif damage == "gone":
        (tmp_path / path()).unlink()
    else:
        sql(tmp_path, "DELETE FROM day_file")
    lost, empty, gap, waits = (asked(tmp_path, minute) for minute in (0, 1, 2, 4))
    assert (lost.verdict, lost.reason, lost.known, lost.candle) == ("damaged", "day_file", False, None)
    assert [one.verdict for one in (empty, gap, waits)] == ["empty", "gap", "candle"]
    assert [one.file.matches for one in (lost, empty, gap, waits)] == [False] * 4
    assert lost.would_change[0].startswith("the collector: it moves a day file")


@pytest.mark.parametrize(
    ("break_it", "says"),
    [
        ("INSERT INTO gap SELECT 9, id, {0}, {1}, 'open', 'unproven', '', 0, 0, NULL, 0, NULL, NULL, 0 FROM series",
         "a gap (open) and a stored candle"),
        ("INSERT INTO empty SELECT id, {0}, {1}, 'ids' FROM series", "empty and a stored candle"),
        ("DELETE FROM candle WHERE open_ms = {0}", "there is no row of it"),
    ],
)  # fmt: skip
def test_a_minute_that_is_two_things_or_none_is_damaged(tmp_path, break_it, says):
    make(tmp_path, "sss")
    sql(tmp_path, break_it.format(at(1), at(2)))
    one = asked(tmp_path, 1)
    assert (one.verdict, one.reason) == ("damaged", "contradiction")
    assert says in one.evidence


def test_a_row_where_a_gap_is_known_is_a_contradiction(tmp_path):
    make(tmp_path, "sgs")
    put_into_journal(tmp_path, candle(1))
    assert asked(tmp_path, 1).reason == "contradiction"


# --- sealed days


@pytest.fixture
def lived(tmp_path):
    """A sealed day that begins with candles, an empty minute and an unfillable one; and an open day of one candle."""
    with open_store(tmp_path) as store:
        collect(store, "cceg" + "c" * 1436, "c")
        for minute in (70, 90):
            store.commit([Attempt(BTC, at(3), at(4), "no row", absent=True)], at(minute + 1440))
        before = [asked(tmp_path, minute, 3000) for minute in range(5)]
        seal(store, 2 * 1440 + UNANSWERED)
    return tmp_path, before


def test_a_sealed_day_says_what_its_open_day_said(lived):
    root, before = lived
    after = [asked(root, minute, 3000) for minute in range(5)]
    assert [one.verdict for one in after] == ["candle", "candle", "empty", "unfillable", "candle"]
    assert [(one.verdict, one.candle, one.said) for one in after] == [
        (one.verdict, one.candle, one.said) for one in before
    ]
    assert (before[2].evidence, after[2].evidence) == (
        "nothing traded: the ids say so, 2",
        "nothing traded: the ids say so, 2; the newest evidence of its kind in that sealed day",
    )
    assert {one.day.state for one in before} == {"open"}
    assert {one.day.state for one in after} == {"sealed"}
    assert {(one.file.path, one.file.matches, one.file.row_in is not None) for one in after if one.candle} == {
        (path(), True, True)
    }
    assert {one.comparison.state for one in after if one.candle} == {"not_compared"}


def test_a_sealed_file_that_is_damaged_is_found_when_it_is_explained(lived):
    root, _ = lived
    spoil(root / path())
    one = asked(root, 0, 3000)
    assert (one.verdict, one.file.matches, one.day.state) == ("damaged", False, "sealed")
    assert asked(root, 2, 3000).verdict is Verdict.EMPTY


# --- which directories can be asked


@pytest.mark.parametrize("version", ["1", "2", "3", "4", "5", "6"])
def test_a_journal_of_an_earlier_version_is_read_as_it_is(tmp_path, version):
    make(tmp_path, "sseguss", flush_at=[4])
    with open_store(tmp_path) as store:
        store.commit([candle(1, volume=3.0)], at(8))
    newest = [asked(tmp_path, minute) for minute in range(-1, 9)]
    bring_down(tmp_path / JOURNAL, version)
    before = (tmp_path / JOURNAL).read_bytes()
    older = [asked(tmp_path, minute) for minute in range(-1, 9)]
    assert [one.verdict for one in older] == [one.verdict for one in newest]
    assert [(one.candle, one.gap, one.empty, one.revisions) for one in older] == [
        (one.candle, one.gap, one.empty, one.revisions) for one in newest
    ]
    assert (tmp_path / JOURNAL).read_bytes() == before
    if version == "1":
        assert older[1].comparison.state == "unknown"
    if version < "4":
        assert [each.not_before_ms for each in older[4].asked_next] == [None]


def test_beside_a_collector_what_is_durable_at_that_moment_is_told(tmp_path):
    with open_store(tmp_path) as store:
        store.expect([BTC], at(0), at(0))
        assert asked(tmp_path, 0, 5).verdict is Verdict.UNACCOUNTED
        store.commit([candle(0)], at(1))
        store.journal.publish([("okx", "[OK]", True, 1, 0, 0, 0)], {}, at(2))
        one = asked(tmp_path, 0, 5)
    assert (one.verdict, one.collector.running) == ("candle", True)
    assert (one.collector.venue_status, one.collector.published_at_ms) == ("[OK]", at(2))
    assert asked(tmp_path, 0, 5).collector.running is False


def test_a_file_that_is_replaced_between_the_ledger_and_the_file_is_no_damage(tmp_path):
    with open_store(tmp_path) as store:
        store.expect([BTC], at(0), at(0))
        store.commit([candle(0)], at(1))
        flush(store)
        readings = []

        def now():  # asked for when the reading of the ledger has begun
            readings.append(len(readings))
            if len(readings) == 1:
                store.commit([candle(1)], at(2))
                flush(store)
            return at(5)

        one = explain(tmp_path, "okx", "BTC-USDT", at(0), now)
    assert (one.verdict, one.file.matches, len(readings)) == ("candle", True, 2)


def test_what_a_killed_collector_left_is_told_and_nothing_of_it_is_changed(tmp_path):
    with left_by_a_killed_collector(tmp_path / "origin", tmp_path / "left", "sssees") as root:
        before = {file.name: file.read_bytes() for file in root.iterdir() if file.is_file()}
        assert [asked(root, minute).verdict.value[0] for minute in range(6)] == list("ccceec")
        after = {file.name: file.read_bytes() for file in root.iterdir() if file.is_file()}
    assert {name: content for name, content in after.items() if not name.endswith("-shm")} == before


def test_a_series_that_is_not_there_names_the_nearest(tmp_path):
    make(tmp_path, "s")
    make(tmp_path, "s", series=ETH)
    with pytest.raises(UnknownSeries, match="did you mean 'okx BTC-USDT'"):
        explain(tmp_path, "okx", "BTC-USD", at(0))
    with pytest.raises(UnknownSeries, match="did you mean 'kraken ETH/USD'"):
        explain(tmp_path, "krakn", "ETH-USD", at(0))


@pytest.mark.parametrize("minute", ["yesterday", 1_768_089_600, -1, "2400-01-01"])
def test_a_time_that_is_none_is_refused(tmp_path, minute):
    make(tmp_path, "s")
    with pytest.raises(ValueError, match=r"is no UTC|looks like seconds|is not between"):
        explain(tmp_path, "okx", "BTC-USDT", minute)


def test_a_directory_without_a_ledger_or_with_one_that_is_none_is_said(tmp_path):
    with pytest.raises(NoSuchDirectory):
        explain(tmp_path / "absent", "okx", "BTC-USDT", at(0))
    with pytest.raises(LedgerUnreadable):
        explain(tmp_path, "okx", "BTC-USDT", at(0))
    (tmp_path / JOURNAL).write_bytes(b"nonsense" * 1000)
    with pytest.raises(LedgerUnreadable):
        explain(tmp_path, "okx", "BTC-USDT", at(0))


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE series SET mark_ms = 'soon'",
        "UPDATE revision SET stored = '{'",
        "UPDATE candle SET volume = 7 WHERE open_ms % 7 < 7",
        "UPDATE gap SET until_ms = 'later'",
        "UPDATE gap SET attempts = 'many'",
        "UPDATE gap SET detail = x'ff'",
    ],
)
def test_values_that_make_no_sense_are_the_ledgers_fault(tmp_path, damage):
    with open_store(tmp_path) as store:
        store.expect([BTC], at(0), at(0))
        store.commit([candle(0), candle(1), Unsure(BTC, at(2), at(3), Reason.UNPROVEN)], at(3))
        store.commit([candle(1, volume=3.0)], at(4))
    sql(tmp_path, damage)
    minute = 2 if "gap" in damage else 1
    with pytest.raises(LedgerUnreadable):
        asked(tmp_path, minute)


def test_nobody_who_explains_waits_for_trio(tmp_path):
    make(tmp_path, "sgs", flush_at=[2])
    script = (
        "import sys\n"
        "from trio_candles.explain import main\n"
        "main(['okx', 'BTC-USDT', sys.argv[2], '--data-dir', sys.argv[1]])\n"
        "assert not {'trio', 'httpx'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path), str(at(1))], check=True, capture_output=True)
