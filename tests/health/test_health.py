"""check and monitor against real data directories: what is read, exit codes, JSON, the webhook, beside a collector."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import asynccontextmanager, chdir, closing, contextmanager
from functools import partial
from pathlib import Path

import attrs
import httpx
import pytest
import trio
from world import NOON, SYMBOLS, collecting

from trio_candles.candles.model import MINUTE, Candle, Empty, Millis, Reason, Series, Source, Unsure, Verdict
from trio_candles.command.signals import Signals
from trio_candles.health import monitor as monitoring
from trio_candles.health.alerts import AlertDocument
from trio_candles.health.check import main as check_main
from trio_candles.health.judge import judge
from trio_candles.health.lag import Lags
from trio_candles.health.monitor import View, monitor
from trio_candles.health.options import Target
from trio_candles.health.reading import read_health, read_ledger
from trio_candles.network.webhook import Undelivered, open_webhook
from trio_candles.reading.ledger import Ledger
from trio_candles.store.lock import hold_lock
from trio_candles.store.schema import JOURNAL, LOCK
from trio_candles.store.store import DayFile, Store, open_store
from trio_candles.threads import inline

REPOSITORY = Path(__file__).parents[2]
BTC, ETH = Series("okx", "BTC-USDT"), Series("okx", "ETH-USDT")
FIRST = Millis(NOON - 100 * MINUTE)
BLANK = AlertDocument(
    event="recovered", at_ms=0, data_dir="data", healthy=True, text="", content="", problems=(), still_unhealthy=()
)
FROZEN = ("--speed", "1e-12", "--pivot")
"""A clock that stands still at the pivot that follows."""


def candle(series: Series, minute: int, *, lag: int = 1500, source: Source = Source.WEBSOCKET) -> Candle:
    ingest, close = Millis(minute + MINUTE + lag), Millis(minute + MINUTE)
    return Candle(series, Millis(minute), 2.0, 3.0, 1.0, 2.0, 5.0, None, None, None, source, ingest, close)


def gap(series: Series, since: int, until: int, reason: Reason = Reason.DISCONNECTED, detail: str = "") -> Unsure:
    return Unsure(series, Millis(since), Millis(until), reason, detail)


def quiet(series: Series, since: int, until: int) -> Empty:
    return Empty(series, Millis(since), Millis(until), "the ids say so")


@contextmanager
def a_store(root: Path, series: Sequence[Series] = (BTC,), **clock: object) -> Iterator[Store]:
    """A directory that expects *series* from :data:`FIRST` on."""
    with open_store(root) as store:
        store.claim("simulated", seed=1, **{"speed": 1.0, "pivot": 0.0, **clock})
        store.expect(series, FIRST, FIRST)
        yield store


def made(root: Path, *verdicts: Verdict, series: Sequence[Series] = (BTC,), **clock: object) -> Path:
    """A directory at rest in which *verdicts* were committed."""
    with a_store(root, series, **clock) as store:
        store.commit(verdicts, NOON)
    return root


def read(root: Path, now: int = NOON, wanted: Sequence[Series] | None = None):
    return read_health(root, lambda: Millis(now), wanted)


# --- reading


@pytest.mark.parametrize(
    ("verdicts", "known_until", "cause"),
    [
        ((), None, ""),
        ((gap(BTC, FIRST, NOON),), None, "disconnected"),
        ((quiet(BTC, FIRST, NOON),), NOON, ""),
        ((quiet(BTC, FIRST, NOON - MINUTE), candle(BTC, NOON - MINUTE)), NOON, ""),
        ((quiet(BTC, FIRST, NOON - MINUTE), gap(BTC, NOON - MINUTE, NOON)), NOON - MINUTE, "disconnected"),
        # Gaps for several reasons follow on one another at the end...
        (
            (
                quiet(BTC, FIRST, NOON - 5 * MINUTE),
                gap(BTC, NOON - 5 * MINUTE, NOON - 2 * MINUTE, Reason.SUSPECT),
                gap(BTC, NOON - 2 * MINUTE, NOON - MINUTE),
                gap(BTC, NOON - MINUTE, NOON, Reason.UNPROVEN),
            ),
            NOON - 5 * MINUTE,
            "unproven",
        ),
        # ...and one in the middle does not matter.
        (
            (
                quiet(BTC, FIRST, NOON - 9 * MINUTE),
                gap(BTC, NOON - 9 * MINUTE, NOON - 2 * MINUTE),
                candle(BTC, NOON - 2 * MINUTE),
                gap(BTC, NOON - MINUTE, NOON),
            ),
            NOON - MINUTE,
            "disconnected",
        ),
        ((quiet(BTC, FIRST, NOON - 60 * MINUTE), gap(BTC, NOON - 60 * MINUTE, NOON - MINUTE),
          candle(BTC, NOON - MINUTE)), NOON, ""),
    ],
)  # fmt: skip
def test_the_newest_known_minute_ends_where_the_last_gaps_begin(tmp_path, verdicts, known_until, cause):
    facts = read(made(tmp_path, *verdicts)).series[BTC]
    assert (facts.known_until, facts.cause) == (known_until, cause)


def test_unfillable_minutes_are_accounted_for_and_not_known(tmp_path):
    made(tmp_path, quiet(BTC, FIRST, NOON - 3 * MINUTE), gap(BTC, NOON - 3 * MINUTE, NOON))
    with closing(sqlite3.connect(tmp_path / JOURNAL)) as database, database:
        database.execute("UPDATE gap SET state = 'unfillable'")
    facts = read(tmp_path).series[BTC]
    assert facts.known_until == NOON - 3 * MINUTE
    assert facts.open_gaps is None


def test_minutes_before_the_listing_are_nothing_known(tmp_path):
    made(tmp_path, quiet(BTC, FIRST, NOON - 3 * MINUTE), gap(BTC, NOON - 3 * MINUTE, NOON))
    with closing(sqlite3.connect(tmp_path / JOURNAL)) as database, database:
        database.execute("INSERT INTO listing VALUES (1, ?, 'the venue says so')", (NOON - 3 * MINUTE,))
    assert read(tmp_path).series[BTC].known_until is None


def test_coverage_counts_candles_and_empties_up_to_two_minutes_ago(tmp_path):
    root = made(
        tmp_path,
        quiet(BTC, FIRST, NOON - 70 * MINUTE),
        gap(BTC, NOON - 70 * MINUTE, NOON - 60 * MINUTE),  # two of them after the hour's beginning at 62 minutes ago
        *(candle(BTC, NOON - ago * MINUTE) for ago in range(60, 20, -1)),
        gap(BTC, NOON - 20 * MINUTE, NOON - 17 * MINUTE, Reason.UNPROVEN),
        quiet(BTC, NOON - 17 * MINUTE, NOON - MINUTE),
        gap(BTC, NOON - MINUTE, NOON),  # too young to count
    )
    facts = read(root, NOON + 30_000).series[BTC]
    assert (facts.hour.known, facts.hour.of) == (55 * MINUTE, 60 * MINUTE)
    assert (facts.day.known, facts.day.of) == (85 * MINUTE, 98 * MINUTE)  # from the first expected minute on
    # A quarter of an hour after the collector died, that is missing as well.
    later = read(root, NOON + 15 * MINUTE).series[BTC]
    assert (later.hour.known, later.hour.of) == (60 * MINUTE - 3 * MINUTE - 14 * MINUTE, 60 * MINUTE)


def test_gaps_before_the_last_hour_are_the_days(tmp_path):
    first = NOON - 100 * MINUTE
    root = made(tmp_path, gap(BTC, first, first + 20 * MINUTE), quiet(BTC, first + 20 * MINUTE, NOON))
    facts = read(root).series[BTC]
    assert (facts.hour.percent, facts.day.known, facts.day.of) == (100.0, 78 * MINUTE, 98 * MINUTE)


def test_open_gaps_are_counted_and_the_one_known_longest_is_named(tmp_path):
    with a_store(tmp_path) as store:
        store.commit([gap(BTC, FIRST, FIRST + 5 * MINUTE, Reason.NO_CLOSE, "older")], Millis(NOON - 9000))
        store.commit([quiet(BTC, FIRST + 5 * MINUTE, NOON - MINUTE), gap(BTC, NOON - MINUTE, NOON)], NOON)
    gaps = read(tmp_path).series[BTC].open_gaps
    assert (gaps.count, gaps.length, gaps.first_seen) == (2, 6 * MINUTE, NOON - 9000)
    assert (gaps.since, gaps.reason, gaps.detail, gaps.attempts) == (FIRST, "no_close", "older", 0)


def test_the_lag_is_the_newest_live_candles_before_and_after_the_flush(tmp_path):
    lags = Lags(tmp_path)
    with a_store(tmp_path) as store:
        store.commit([quiet(BTC, FIRST, NOON - 3 * MINUTE), candle(BTC, NOON - 3 * MINUTE, lag=1500)], NOON)
        assert lags.update(read(tmp_path).series) == {BTC: 1500}
        store.commit([candle(BTC, NOON - 2 * MINUTE, lag=2500)], NOON)
        store.flush(store.waiting())
        assert read(tmp_path).series[BTC].live is None
        assert lags.update(read(tmp_path).series) == {BTC: 2500}
        # A candle from REST says nothing about the live feed.
        store.commit([candle(BTC, NOON - MINUTE, lag=50_000, source=Source.REST)], NOON)
        assert lags.update(read(tmp_path).series) == {BTC: 2500}
        store.flush(store.waiting())
    (tmp_path / DayFile(BTC, Millis(NOON - NOON % 86_400_000)).path).unlink()
    assert Lags(tmp_path).update(read(tmp_path).series) == {}


def test_revisions_of_the_last_day_and_rejections_are_counted(tmp_path):
    root = made(tmp_path, quiet(BTC, FIRST, NOON - MINUTE), candle(BTC, NOON - MINUTE))
    with a_store(root) as store:
        others = [attrs.evolve(candle(BTC, NOON - MINUTE), volume=volume) for volume in (6.0, 7.0, 8.0)]
        store.commit(others[:1], NOON)
        store.commit(others[1:], Millis(NOON), {("okx", "high_below_low"): 3})
    with closing(sqlite3.connect(root / JOURNAL)) as database, database:
        database.execute("UPDATE revision SET at_ms = ? WHERE id = 1", (NOON - 86_400_000,))
    found = read(root, NOON + 1)
    assert found.series[BTC].revisions == 2
    assert found.rejections["okx"] == {"conflict": 3, "high_below_low": 3}


@pytest.mark.parametrize("back", [2 * 86_400_000, NOON])
def test_a_revision_noted_while_the_clock_was_set_back_hides_none_of_the_last_day(tmp_path, back):
    root = made(tmp_path, quiet(BTC, FIRST, NOON - MINUTE), candle(BTC, NOON - MINUTE))
    with a_store(root) as store:
        store.commit([attrs.evolve(candle(BTC, NOON - MINUTE), volume=volume) for volume in (6.0, 7.0, 8.0)], NOON)
    with closing(sqlite3.connect(root / JOURNAL)) as database, database:
        database.execute("UPDATE revision SET at_ms = ? WHERE id = (SELECT max(id) FROM revision)", (NOON - back,))
    assert read(root, NOON + 1).series[BTC].revisions == 2


def test_what_the_collector_publishes_is_read(tmp_path):
    with a_store(tmp_path) as store:
        store.journal.publish([("okx", "[DISC]", False, 5, 4, 3, 2)], {"day files": "disk is full"}, NOON)
        found = read(tmp_path, NOON + 1)
    assert found.running is True
    state = found.venues["okx"]
    assert (state.at, state.status, state.connected, state.rejected) == (NOON, "[DISC]", False, 2)
    assert found.store_errors == {"day files": "disk is full"}


def test_a_collector_that_waits_for_its_clock_is_alive_and_a_venue_of_an_earlier_run_does_not_speak_for_it(tmp_path):
    with a_store(tmp_path) as store:
        store.journal.publish([("kraken", "[OK]", True, 5, 4, 3, 2)], {}, NOON - 3_600_000)
        before = store.journal.meta()
        store.journal.publish([("okx", "[WAIT]", True, 0, 0, 0, 0)], {}, NOON, "no venue has been heard")
        found = read(tmp_path, NOON + 1)
        assert {name: (state.at, state.status) for name, state in found.venues.items()} == {"okx": (NOON, "[WAIT]")}
        assert found.latest == NOON - 3_600_000  # nothing durable is derived from a clock that is not vouched for
        assert store.journal.meta() == {**before, "clock_waits": "no venue has been heard"}
        store.journal.publish([("okx", "[OK]", True, 0, 0, 0, 0)], {}, NOON)
        assert store.journal.meta() == {**before, "latest_ms": str(NOON)}


def test_a_directory_without_a_journal_knows_nothing(tmp_path):
    found = read(tmp_path, wanted=[BTC])
    assert (found.exists, found.running, found.trouble, found.series) == (False, False, None, {})


def test_a_directory_in_which_nothing_can_be_looked_up_is_trouble_and_not_one_without_a_journal(tmp_path):
    """As one becomes that may not be searched any more; here for whoever may search everything, too."""
    found = read(tmp_path / ("x" * 300), wanted=[BTC])
    assert "the journal cannot be read: " in found.trouble
    assert not judge(found, (BTC,)).all_fresh


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (b"no data base at all" * 100, "the journal cannot be read: file is not a database"),
        ("UPDATE series SET mark_ms = 'soon'", "the journal makes no sense: 'soon' is no whole number"),
        ("UPDATE series SET last_candle_ms = -5", "the journal makes no sense"),
        ("UPDATE gap SET until_ms = 'x'", "the journal makes no sense"),
        ("UPDATE gap SET since_ms = x'00'", "the journal makes no sense"),
        ("INSERT INTO meta VALUES ('store_errors', '[')", "the journal makes no sense"),
        ("INSERT INTO meta VALUES ('store_errors', '7')", "the journal makes no sense"),
        ("INSERT INTO meta VALUES ('stopped_at_ms', 'noon')", "the journal makes no sense"),
        ("UPDATE meta SET value = '99' WHERE key = 'format'", "its format is '99'"),
        ("INSERT INTO venue_state VALUES ('okx', 'now', '[OK]', 1, 0, 0, 0, 0)", "the journal makes no sense"),
        ("INSERT INTO rejection VALUES ('okx', 'x', 'many')", "the journal makes no sense"),
        ("DROP TABLE gap", "the journal cannot be read: no such table: gap"),
    ],
)
def test_a_journal_that_is_none_or_makes_no_sense_is_trouble_and_no_traceback(tmp_path, damage, words):
    made(tmp_path, quiet(BTC, FIRST, NOON - MINUTE), gap(BTC, NOON - MINUTE, NOON))
    if isinstance(damage, bytes):
        (tmp_path / JOURNAL).write_bytes(damage)
    else:
        with closing(sqlite3.connect(tmp_path / JOURNAL)) as database, database:
            database.execute(damage)
    found = read(tmp_path, wanted=[BTC])
    assert words in found.trouble
    assert not judge(found, (BTC,)).all_fresh


def test_an_older_journal_is_read_as_far_as_it_goes(tmp_path):
    made(tmp_path, quiet(BTC, FIRST, NOON))
    with closing(sqlite3.connect(tmp_path / JOURNAL)) as database, database:
        database.execute("UPDATE meta SET value = '1' WHERE key = 'format'")
        for table in ("listing", "underived", "confirmed", "confirmation", "venue_state"):
            database.execute(f"DROP TABLE {table}")
    assert read(tmp_path).series[BTC].known_until == NOON


def steps_of_a_look(root: Path, days: int) -> int:
    """In thousands of steps of SQLite's machine, which do not depend on how busy the computer is."""
    first = Millis(NOON - days * 86_400_000)
    with open_store(root) as store:
        store.claim("simulated", seed=1, speed=1.0, pivot=0.0)
        store.expect([BTC], first, first)
        # A ledger of many empties, a history of many gaps, and few gaps that are open.
        store.commit([gap(BTC, first, NOON)], NOON)
        words = ("the ids say so", "the venue says so")
        hours = range(first, NOON - 60 * MINUTE, 60 * MINUTE)
        store.commit(
            [Empty(BTC, Millis(h), Millis(h + 60 * MINUTE), words[h // MINUTE % 120 // 60]) for h in hours], NOON
        )
    counted = []
    with closing(sqlite3.connect(root / JOURNAL)) as database:
        assert database.execute("SELECT count(*) FROM empty").fetchone() == (24 * days - 1,)
        database.set_progress_handler(lambda: counted.append(1), 10)
        read_ledger(Ledger(database), NOON, True, None)
    return len(counted)


def test_a_look_costs_the_same_however_long_the_ledger_is(tmp_path):
    assert steps_of_a_look(tmp_path / "short", 2) == steps_of_a_look(tmp_path / "long", 40) > 0


# --- check


def run_check(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = check_main([str(one) for one in arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


def configured(folder: Path, data_dir: Path, okx: str = "[BTC-USDT]", more: str = "") -> Path:
    path = folder / "config.yaml"
    path.write_text(f"data_dir: {json.dumps(str(data_dir))}\nvenues:\n  okx: {{symbols: {okx}}}\n{more}")
    return path


def states(text: str) -> dict[str, str]:
    document = json.loads(text)
    assert document["ok"] is all(one["state"] == "fresh" for one in document["series"])
    return {one["symbol"]: one["state"] for one in document["series"]}


@pytest.mark.parametrize(("seconds", "code"), [(0, 0), (360, 0), (360.001, 1), (9999, 1)])
def test_check_is_0_up_to_six_minutes_and_1_beyond(tmp_path, capsys, seconds, code):
    made(tmp_path, quiet(BTC, FIRST, NOON))
    pivot = NOON / 1000 + seconds
    found, out, err = run_check(capsys, "--data-dir", tmp_path, *FROZEN, pivot)
    assert (found, err) == (code, "")
    assert ("OK: 1 of 1 fresh." if code == 0 else "FAILED: 1 stale, 0 missing, 0 of 1 fresh.") in out


def test_check_reads_a_directory_by_the_clock_that_it_remembers(tmp_path, capsys):
    made(tmp_path / "fresh", quiet(BTC, FIRST, NOON), speed=1e-12, pivot=NOON / 1000 + 360)
    made(tmp_path / "stale", quiet(BTC, FIRST, NOON), speed=1e-12, pivot=NOON / 1000 + 361)
    made(tmp_path / "real", quiet(BTC, FIRST, NOON))
    assert run_check(capsys, "--data-dir", tmp_path / "fresh")[0] == 0
    assert run_check(capsys, "--data-dir", tmp_path / "stale")[0] == 1
    assert run_check(capsys, "--data-dir", tmp_path / "real")[0] == 1  # years ago
    assert run_check(capsys, "--data-dir", tmp_path / "stale", *FROZEN, NOON / 1000)[0] == 0


def test_check_holds_the_directory_against_the_configuration_that_is_given(tmp_path, capsys):
    root = made(tmp_path / "data", quiet(BTC, FIRST, NOON), gap(ETH, FIRST, NOON), series=(BTC, ETH))
    clock = (*FROZEN, NOON / 1000)
    disabled = "  kraken: {enabled: false, symbols: [BTC/USD]}\n"
    config = configured(tmp_path, root, more=disabled)
    code, out, _ = run_check(capsys, "--config", config, "--json", *clock)
    assert (code, states(out)) == (0, {"BTC-USDT": "fresh"})  # ETH is not configured and does not count
    config = configured(tmp_path, tmp_path / "elsewhere", "[BTC-USDT, SOL-USDT]")
    code, out, _ = run_check(capsys, "--config", config, "--data-dir", root, "--json", *clock)
    assert (code, states(out)) == (1, {"BTC-USDT": "fresh", "SOL-USDT": "missing"})
    # A directory alone: what its collector was configured with.
    code, out, _ = run_check(capsys, "--data-dir", root, "--json", *clock)
    assert (code, states(out)) == (1, {"BTC-USDT": "fresh", "ETH-USDT": "stale"})


def test_a_directory_without_a_journal_misses_every_configured_series(tmp_path, capsys):
    config = configured(tmp_path, tmp_path / "data")
    (tmp_path / "data").mkdir()
    code, out, _ = run_check(capsys, "--config", config, "--json")
    assert (code, states(out)) == (1, {"BTC-USDT": "missing"})
    with chdir(tmp_path):  # where the default configuration is
        code, out, _ = run_check(capsys, "--data-dir", "data", "--json")
        assert (code, states(out)) == (1, {"BTC-USDT": "missing"})
        assert run_check(capsys, "--data-dir", "data")[1].startswith("data  ")
    with chdir(tmp_path / "data"):  # and where there is none
        assert run_check(capsys, "--data-dir", ".")[0] == 2


def test_a_directory_that_is_not_there_misses_every_series_that_a_configuration_names(tmp_path, capsys):
    config = configured(tmp_path, tmp_path / "data")
    code, out, err = run_check(capsys, "--config", config)
    assert (code, err) == (1, "")
    assert "there is no such directory" in out
    assert "FAILED: 0 stale, 1 missing, 0 of 1 fresh." in out
    code, out, _ = run_check(capsys, "--config", config, "--json", "--data-dir", tmp_path / "elsewhere")
    assert (code, states(out)) == (1, {"BTC-USDT": "missing"})
    done = command("monitor", "--config", config, "--once", "--json")
    assert (done.returncode, done.stderr) == (1, "")
    problems = json.loads(done.stdout)["problems"]
    assert [one["detail"] for one in problems if one["subject"] == "series"] == ["there is no such directory"]
    assert not (tmp_path / "data").exists()
    with chdir(tmp_path):  # where the default configuration is: a directory that was named alone was misspelt
        assert run_check(capsys, "--data-dir", "nowhere")[0] == 2
        assert run_check(capsys)[0] == 1


def test_a_stopped_collector_is_told_and_is_no_fault_by_itself(tmp_path, capsys):
    with a_store(tmp_path) as store:
        store.commit([quiet(BTC, FIRST, NOON)], NOON)
        store.stopped(NOON)
    code, out, _ = run_check(capsys, "--data-dir", tmp_path, *FROZEN, NOON / 1000)
    assert code == 0
    assert "no collector is running; it stopped at 2026-01-10 12:00:00 UTC." in out
    with hold_lock(tmp_path / LOCK):
        code, out, _ = run_check(capsys, "--data-dir", tmp_path, "--json", *FROZEN, NOON / 1000)
        assert json.loads(out)["collector_running"] is True


def test_a_journal_that_cannot_be_read_is_said_and_is_1(tmp_path, capsys):
    made(tmp_path / "data", quiet(BTC, FIRST, NOON))
    (tmp_path / "data" / JOURNAL).write_bytes(b"nonsense" * 1000)
    config = configured(tmp_path, tmp_path / "data")
    code, out, _ = run_check(capsys, "--config", config)
    assert code == 1
    assert "the journal cannot be read: file is not a database" in out
    code, out, _ = run_check(capsys, "--data-dir", tmp_path / "data", "--json")
    assert code == 1
    assert json.loads(out)["ok"] is False


def main_of(tool: str, arguments: Sequence[str]) -> int:
    return check_main(arguments) if tool == "check" else monitoring.main(arguments, Signals())


@pytest.mark.parametrize("tool", ["check", "monitor"])
def test_usage_and_configuration_errors_are_2(tmp_path, capsys, tool):
    made(tmp_path / "data")
    assert main_of(tool, ["--data-dir", str(tmp_path / "nowhere")]) == 2
    assert "nowhere: no such directory" in capsys.readouterr().err
    assert main_of(tool, ["--config", str(tmp_path / "nowhere.yaml")]) == 2
    bad = tmp_path / "bad.yaml"
    bad.write_text("venues: {okx: {symbols: [BTC-USDT], colour: red}}")
    assert main_of(tool, ["--config", str(bad), "--data-dir", str(tmp_path / "data")]) == 2
    assert "bad.yaml:1: venues.okx.colour: unknown key" in capsys.readouterr().err
    for wrong in (["--speed", "0"], ["--speed", "nan"], ["--pivot", "noon"], ["--what"], ["venue"]):
        with pytest.raises(SystemExit) as exit_:
            main_of(tool, ["--data-dir", str(tmp_path / "data"), *wrong])
        assert exit_.value.code == 2
    for polite in ("--help", "--version"):
        with pytest.raises(SystemExit) as exit_:
            main_of(tool, [polite])
        assert exit_.value.code == 0


@pytest.mark.parametrize(
    "wrong",
    [("--interval", "0"), ("--interval", "soon"), ("--interval", "-1"), ("--interval", "1e9"), ("--interval", "2d"),
     ("--webhook", "http://example.com/secret"), ("--webhook", "ftp://127.0.0.1/secret"), ("--webhook", "secret"),
     ("--webhook", "https://"), ("--webhook", "https://user@example.com/secret"), ("--webhook", "http://[::1/secret")],
)  # fmt: skip
def test_the_monitors_own_options_are_checked_and_a_webhooks_token_is_not_repeated(tmp_path, capsys, wrong):
    with pytest.raises(SystemExit) as exit_:
        monitoring.main(["--data-dir", str(tmp_path), *wrong], Signals())
    assert exit_.value.code == 2
    assert "secret" not in capsys.readouterr().err


# --- monitor


@attrs.define
class Hook:
    """A webhook in memory: answers with *codes* in turn, then 204; ``None`` hangs."""

    codes: list[int | None] = attrs.field(factory=list)
    heard: list[tuple[float, dict[str, object]]] = attrs.field(factory=list)
    """When, and the document; of those that were taken."""
    tries: int = 0

    @asynccontextmanager
    async def open(self, url: str):
        async with open_webhook(url, httpx.MockTransport(self._answer)) as hook:
            yield hook

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        self.tries += 1
        assert request.method == "POST"
        assert request.headers["content-type"] == "application/json"
        code = self.codes.pop(0) if self.codes else 204
        if code is None:
            await trio.sleep_forever()
        if 200 <= code < 300:
            self.heard.append((trio.current_time(), json.loads(request.content)))
        return httpx.Response(code)

    @property
    def told(self) -> list[tuple[float, str, list[tuple[str, str | None]]]]:
        return [
            (at, said["event"], [(one["subject"], one["symbol"] or one["venue"]) for one in said["problems"]])
            for at, said in self.heard
        ]


@attrs.define
class Sick:
    """Writes the state of a collector into a directory, as told."""

    store: Store

    def say(self, now: int, *, connected: bool = True, **errors: str) -> None:
        self.store.journal.publish([("okx", "[OK]", connected, 1, 1, 0, 0)], errors, Millis(now))


@asynccontextmanager
async def monitored(root: Path, hook: Hook | None = None, interval: float = 5.0):
    """A monitor at work on *root*, whose clock stands at NOON; yields what it shows, then asks it to stop."""
    signals, views, codes = Signals(), [], []
    target = Target(root, None, "the test", 1e-12, NOON / 1000)
    url, open_hook = (None, open_webhook) if hook is None else ("https://example.com/hook", hook.open)

    async def run() -> None:
        show = views.append
        codes.append(await monitor(target, signals, show, interval, webhook=url, open_hook=open_hook, offload=inline))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        yield views
        signals.handle(signal.SIGINT, None)
    assert codes == [0]


async def test_the_monitor_looks_every_interval_and_ends_with_0(autojump_clock, tmp_path):
    with a_store(tmp_path) as store:
        store.commit([quiet(BTC, FIRST, NOON)], NOON)
        Sick(store).say(NOON)
        async with monitored(tmp_path) as views:
            await trio.sleep(17)
            assert len(views) == 4  # at 0, 5, 10, 15
        assert [view.first for view in views] == [True, False, False, False]
        assert all(view.health.healthy for view in views)
    assert trio.current_time() == 17


async def test_alerts_come_once_a_change_and_again_when_it_is_over(autojump_clock, tmp_path):
    hook = Hook()
    with a_store(tmp_path) as store:
        store.commit([quiet(BTC, FIRST, NOON)], NOON)
        sick = Sick(store)
        sick.say(NOON)
        async with monitored(tmp_path, hook):
            await trio.sleep(12)
            sick.say(NOON, connected=False)
            await trio.sleep(10)
            sick.say(NOON, connected=False, journal="No space left on device")
            await trio.sleep(10)
            sick.say(NOON)
            await trio.sleep(60)
    assert hook.told == [
        (15, "unhealthy", [("venue", "okx")]),
        (25, "unhealthy", [("store", None)]),
        (35, "recovered", [("venue", "okx"), ("store", None)]),
    ]
    second = hook.heard[1][1]
    assert "No space left on device" in second["text"]
    assert [one["subject"] for one in second["still_unhealthy"]] == ["venue", "store"]
    assert [said["healthy"] for _, said in hook.heard] == [False, False, True]


async def test_a_killed_collector_is_unhealthy_at_the_next_look_and_recovers(autojump_clock, tmp_path):
    hook = Hook()
    with a_store(tmp_path) as store:
        store.commit([quiet(BTC, FIRST, NOON)], NOON)
        Sick(store).say(NOON)
    async with monitored(tmp_path, hook):
        await trio.sleep(7)
        with hold_lock(tmp_path / LOCK):
            await trio.sleep(5)
        await trio.sleep(5)
    assert hook.told == [
        (0, "unhealthy", [("collector", None), ("venue", "okx")]),
        (10, "recovered", [("collector", None), ("venue", "okx")]),
        (15, "unhealthy", [("collector", None), ("venue", "okx")]),
    ]


async def test_an_alert_is_tried_again_until_it_arrives_and_later_ones_wait_their_turn(
    autojump_clock, tmp_path, capsys
):
    hook = Hook(codes=[500, 429, None, 302, 503])  # then taken
    made(tmp_path, quiet(BTC, FIRST, NOON))
    async with monitored(tmp_path, hook) as views:
        await trio.sleep(12)
        with hold_lock(tmp_path / LOCK):  # something changes meanwhile: the collector is there, but says nothing
            await trio.sleep(60)
            assert len(views) == 15  # a webhook that hangs holds up no look
    # 0: 500, 1: 429, 3: hangs 10 s, +4 = 17: 302, +8 = 25: 503, +16 = 41: taken.
    assert [(at, event) for at, event, _ in hook.told] == [(41, "unhealthy")]
    assert hook.tries == 6
    said = capsys.readouterr().err
    assert said.count("does not take an alert (it answered 500)") == 1
    assert said.count("takes alerts again") == 1
    assert "example.com" not in said


async def test_a_webhook_that_refuses_one_alert_does_not_hold_up_the_next(autojump_clock, tmp_path, capsys):
    hook = Hook(codes=[400] * 5)
    made(tmp_path, quiet(BTC, FIRST, NOON))
    with a_store(tmp_path) as store:
        Sick(store).say(NOON)
    async with monitored(tmp_path, hook):
        await trio.sleep(17)
        with hold_lock(tmp_path / LOCK):
            await trio.sleep(30)
    assert [event for _, event, _ in hook.told] == ["recovered"]
    assert "it is given up: trio_candles unhealthy: collector" in capsys.readouterr().err


async def test_a_stop_waits_two_seconds_for_alerts_and_no_longer(autojump_clock, tmp_path, capsys):
    made(tmp_path, quiet(BTC, FIRST, NOON))
    async with monitored(tmp_path, Hook(codes=[None] * 9)):
        await trio.sleep(6)
    assert trio.current_time() == 8
    assert "not every alert could be delivered" in capsys.readouterr().err


async def test_once_says_whether_all_is_well_and_posts_what_is_not(autojump_clock, tmp_path):
    hook, views = Hook(codes=[503]), []
    with a_store(tmp_path) as store:
        store.commit([quiet(BTC, FIRST, NOON)], NOON)
        sick = Sick(store)
        target = Target(tmp_path, None, "the test", 1e-12, NOON / 1000)
        look = partial(
            monitor, target, Signals(), views.append, None,
            webhook="https://example.com/x", open_hook=hook.open, offload=inline,
        )  # fmt: skip
        sick.say(NOON)
        assert await look() == 0
        assert hook.tries == 0
        sick.say(NOON, connected=False)
        assert await look() == 1
    assert hook.told == [(1, "unhealthy", [("venue", "okx")])]
    assert len(views) == 2


async def test_a_series_that_is_expected_since_a_restart_counts_from_then_on(autojump_clock, tmp_path):
    with a_store(tmp_path) as store:
        store.commit([quiet(BTC, FIRST, NOON)], NOON)
        Sick(store).say(NOON)
        async with monitored(tmp_path) as views:
            await trio.sleep(1)
            store.expect([BTC, ETH], FIRST, FIRST)
            Sick(store).say(NOON)
            await trio.sleep(5)
    assert [len(view.health.series) for view in views] == [1, 2]
    assert not views[-1].health.healthy


async def test_a_directory_that_goes_is_trouble_and_not_the_end(autojump_clock, tmp_path):
    root = made(tmp_path / "data", quiet(BTC, FIRST, NOON))
    async with monitored(root) as views:
        await trio.sleep(1)
        root.rename(tmp_path / "moved")
        await trio.sleep(5)
    assert [one.state for one in views[-1].health.series] == ["missing"]


async def test_output_that_cannot_be_written_ends_the_monitor(autojump_clock, tmp_path):
    made(tmp_path, quiet(BTC, FIRST, NOON))

    def broken(view: View) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    with pytest.RaisesGroup(BrokenPipeError, flatten_subgroups=True):
        await monitor(Target(tmp_path, None, "", None), Signals(), broken, 5.0, offload=inline)


@pytest.mark.parametrize(
    ("error", "words"),
    [(httpx.ConnectError("refused"), "ConnectError: refused"), (OSError(101, "unreachable"), "unreachable")],
)
async def test_what_the_network_does_is_an_alert_not_delivered(error, words):
    def fail(request: httpx.Request) -> httpx.Response:
        raise error

    async with open_webhook("https://example.com/token", httpx.MockTransport(fail)) as hook:
        with pytest.raises(Undelivered, match=words) as raised:
            await hook.post(BLANK)
    assert not raised.value.refused


@pytest.mark.parametrize(
    ("code", "refused"),
    [(301, False), (400, True), (404, True), (408, False), (425, False), (429, False), (500, False)],
)
async def test_only_what_is_judged_for_good_counts_as_refused(code, refused):
    async with open_webhook("https://example.com/x", httpx.MockTransport(lambda _: httpx.Response(code))) as hook:
        with pytest.raises(Undelivered, match=f"it answered {code}") as raised:
            await hook.post(BLANK)
    assert raised.value.refused is refused


async def test_beside_a_healthy_collector_the_monitor_finds_it_healthy(autojump_clock, tmp_path):
    """From the third minute on, at whatever second it looks, with flushes, quiet seconds and the lock in between."""
    async with collecting(tmp_path, {name: some[:1] for name, some in SYMBOLS.items()}) as world:
        target = Target(tmp_path, None, "the test")
        found = []
        for _ in range(100):
            await trio.sleep(3.7)
            reading = read_health(target.data_dir, world.time.now, None)
            found.append((trio.current_time(), [str(one) for one in judge(reading, reading.expected).problems]))
    assert [entry for entry in found if entry[0] > 180 and entry[1]] == []


# --- as commands


def command(tool: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, f"tools/{tool}.py", *map(str, arguments)],
        cwd=REPOSITORY, env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_the_scripts_run_from_the_repository_and_json_is_all_that_they_print(tmp_path):
    made(tmp_path, quiet(BTC, FIRST, NOON), speed=1e-12, pivot=NOON / 1000)
    done = command("check", "--data-dir", tmp_path, "--json")
    assert (done.returncode, done.stderr, states(done.stdout)) == (0, "", {"BTC-USDT": "fresh"})
    done = command("monitor", "--data-dir", tmp_path, "--once", "--json")
    assert (done.returncode, done.stderr, json.loads(done.stdout)["ok"]) == (1, "", False)
    done = command("monitor", "--data-dir", tmp_path, "--once")
    assert "no collector is running" in done.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="a console program cannot be sent Ctrl-C alone on Windows")
@pytest.mark.parametrize("json_lines", [False, True])
def test_sigint_ends_the_monitor_with_0(tmp_path, json_lines):
    made(tmp_path, quiet(BTC, FIRST, NOON), speed=1e-12, pivot=NOON / 1000)
    arguments = ["--data-dir", str(tmp_path), "--interval", "0.2", *(["--json"] if json_lines else [])]
    with subprocess.Popen(
        [sys.executable, "tools/monitor.py", *arguments], cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        first = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        rest, err = process.stdout.read(), process.stderr.read()
    assert (process.returncode, err) == (0, "")
    if json_lines:
        assert all(json.loads(line)["ok"] is False for line in [first, *rest.splitlines()])
    else:
        assert (
            first == "2026-01-10 12:00:00 UNHEALTHY  1/1 fresh, 0/1 connected, 0 gaps (0 min), 0 rejected, 0 revised\n"
        )
        assert "2026-01-10 12:00:00   unhealthy: okx: no collector is running" in rest
