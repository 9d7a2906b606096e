"""The first thing that a run shows, before its directory is open; and how far a long opening has come."""

from __future__ import annotations

import signal
import sqlite3
import sys
from contextlib import closing
from types import SimpleNamespace

import attrs
import pytest
from processes import CONFIG, Running

from trio_candles.clock import WallTime
from trio_candles.command.launch import Plan
from trio_candles.command.signals import Signals, StopAsked
from trio_candles.command.start import Start
from trio_candles.config.load import load_config
from trio_candles.store.store import open_store


@attrs.define
class Shown:
    """A console that keeps what it was given."""

    redraws: bool
    texts: list[str] = attrs.field(factory=list)

    def show(self, text, *, final=False):
        self.texts.append(text)


@pytest.fixture
def begin(tmp_path):
    """A start on a console, and its clock, whose ``now`` are seconds."""

    def begin(*, redraws=False, signals=None):
        (tmp_path / "config.yaml").write_text(CONFIG)
        plan = Plan(load_config(tmp_path / "config.yaml"), WallTime.starting(1.0, None), True, 7, None, False)
        console, clock = Shown(redraws), SimpleNamespace(now=0.0)
        start = Start(plan, console, signals or Signals(), ["Data: here"], stopwatch=lambda: clock.now)
        return start, console.texts, clock

    return begin


def test_banner_and_table_are_shown_as_soon_as_the_directory_is_ours_and_once(begin):
    start, texts, _ = begin()
    assert texts == []
    start.go_on()
    start.go_on("Checking the journal")
    banner, table = texts
    assert "Venues: COINBASE, KRAKEN, OKX\n  Data: here\n" in banner
    assert "STATUS: STARTING" in table
    assert table.count("[WAIT]") == 3


def test_a_pipe_is_told_now_and_then_how_far_a_long_opening_is(begin):
    start, texts, clock = begin()
    start.go_on()
    for second in range(25):
        clock.now = second
        start.go_on("Sealing", second * 1000, 25_000)
    start.go_on()
    start.opened()
    assert texts[2:] == [
        "  Sealing: 1,000 of 25,000 (4%)\n",
        "  Sealing: 11,000 of 25,000 (44%)\n",
        "  Sealing: 21,000 of 25,000 (84%)\n",
    ]


def test_on_a_terminal_the_progress_stands_below_the_table_and_goes_when_the_directory_is_open(begin):
    start, texts, clock = begin(redraws=True)
    for clock.now in (0.0, 2.0, 2.1, 3.0):
        start.go_on("Checking")
    start.opened()
    table = texts[1]
    assert texts[2:] == [f"{table}  Checking\n", f"{table}  Checking\n", table]


def test_a_short_opening_says_nothing_of_itself(begin):
    start, texts, clock = begin(redraws=True)
    for clock.now in (0.0, 0.5, 0.9):
        start.go_on("Checking", 1, 2)
    start.opened()
    assert len(texts) == 2


def test_a_stop_ends_an_opening_at_its_next_step(begin):
    signals = Signals()
    start, _, _ = begin(signals=signals)
    start.go_on()
    signals.handle(signal.SIGTERM, None)
    with pytest.raises(StopAsked):
        start.go_on("Checking")


@pytest.mark.skipif(sys.platform == "win32", reason="signals between processes differ on Windows")
def test_the_banner_is_there_before_the_directory_can_be_opened_and_a_stop_is_clean(tmp_path):
    (tmp_path / "config.yaml").write_text(CONFIG)
    with open_store(tmp_path / "d"):
        pass
    with closing(sqlite3.connect(tmp_path / "d" / "journal.sqlite3", isolation_level=None)) as reader:
        reader.executescript("BEGIN; SELECT * FROM meta")  # for as long as it reads, nobody else opens the journal
        running = Running(tmp_path, "--simulate", "--data-dir", "d")
        running.wait_for("Starting WebSocket streams...")
        running.wait_for("STATUS: STARTING")
        running.process.send_signal(signal.SIGINT)
        assert running.end()[0] == 0
