"""``tools/follow.py`` as its users run it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from directories import BTC, ETH, at, candle
from processes import ROOT
from schemas import faults

from trio_candles import CursorFile, follow_sync
from trio_candles.candles.model import Empty, Reason, Unsure
from trio_candles.reading.changes import EVENTS
from trio_candles.store.store import open_store

TOOL = [sys.executable, str(ROOT / "tools" / "follow.py")]
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="a POSIX shell and its signals")
KEYS = [
    "cursor", "event", "venue", "symbol", "timeframe", "open_time_ms", "close_time_ms", "at_ms", "candle", "before",
    "source", "reason", "evidence",
]  # fmt: skip


@pytest.fixture
def root(tmp_path):
    """Five minutes of two series: candles, one of them late, an empty minute, an outage."""
    with open_store(tmp_path / "data") as store:
        store.expect([BTC, ETH], at(0), at(0))
        store.commit([candle(0), Empty(BTC, at(1), at(2), "no id between"), candle(2)], at(3))
        store.commit([Unsure(BTC, at(3), at(4), Reason.DISCONNECTED, "reset"), candle(4)], at(5))
        store.commit([candle(0, ETH), candle(3)], at(6))
    return tmp_path / "data"


def started(root: Path, *options: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*TOOL, "--data-dir", str(root), *map(str, options)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1,
    )  # fmt: skip


def lines(process: subprocess.Popen[str], count: int) -> list[dict]:
    assert process.stdout is not None
    return [json.loads(process.stdout.readline()) for _ in range(count)]


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    return process.returncode, errors


def run(root: Path, *options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*TOOL, "--data-dir", str(root), *map(str, options)], capture_output=True, text=True, timeout=60, check=False
    )


@POSIX
def test_each_change_is_a_line_with_these_keys_and_ctrl_c_is_a_clean_end(root):
    process = started(root, "--after", "oldest", "--timeframe", "1m", "--timeframe", "5m")
    found = lines(process, 8)
    assert ended(process) == (0, "")
    schema = json.loads((ROOT / "docs" / "change.schema.json").read_text(encoding="utf-8"))
    assert [list(faults(one, schema)) for one in found] == [[]] * 8
    assert list(faults({**found[0], "candle": {**found[0]["candle"], "open": "1"}}, schema)) == [
        ".candle.open: no number"
    ]
    assert list(schema["properties"]) == KEYS
    assert schema["properties"]["event"]["enum"] == list(EVENTS)
    assert [list(one) for one in found] == [KEYS] * 8
    assert [(one["event"], one["symbol"], one["timeframe"]) for one in found] == [
        ("closed", "BTC-USDT", "1m"), ("empty", "BTC-USDT", "1m"), ("closed", "BTC-USDT", "1m"),
        ("gap", "BTC-USDT", "1m"), ("closed", "BTC-USDT", "1m"), ("closed", "ETH/USD", "1m"),
        ("filled", "BTC-USDT", "1m"), ("filled", "BTC-USDT", "5m"),
    ]  # fmt: skip
    assert (found[3]["reason"], found[3]["evidence"], found[3]["candle"]) == ("disconnected", "reset", None)
    assert found[1]["evidence"] == "no id between"
    assert found[7]["candle"]["source"] == found[7]["source"] == "aggregated"


@POSIX
def test_a_restarted_pipe_goes_on_where_the_state_file_says(root, tmp_path):
    state = tmp_path / "state"
    process = started(root, "--after", "oldest", "--state", state, "--series", "okx:*")
    before = lines(process, 6)
    assert ended(process)[0] == 0
    assert CursorFile(state).read() is not None
    with open_store(root) as store:
        store.commit([candle(5)], at(6))
    process = started(root, "--after", "oldest", "--state", state, "--series", "okx:*")
    (after,) = lines(process, 1)
    assert ended(process)[0] == 0
    assert after["open_time_ms"] == at(5)
    assert after["cursor"] not in {one["cursor"] for one in before}


@POSIX
def test_the_kept_cursor_moves_past_what_is_left_out(root, tmp_path):
    state = tmp_path / "state"
    with follow_sync(root) as everything:
        newest = everything.cursor
    process = started(root, "--after", "oldest", "--state", state, "--event", "closed", "--series", "okx:*")
    lines(process, 3)
    assert ended(process)[0] == 0
    assert CursorFile(state).read() == newest


@POSIX
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_nothing_comes_ends_it(root, number):
    process = started(root, "--after", "oldest", "--event", "closed")
    lines(process, 4)
    process.send_signal(number)
    assert process.communicate(timeout=30) == ("", "")
    assert process.returncode == 0


@POSIX
def test_a_reader_that_leaves_is_a_clean_end(root):
    words = " ".join(TOOL)
    told = subprocess.run(
        ["bash", "-c", f"{words} --data-dir {root} --after oldest | head -1; echo ${{PIPESTATUS[0]}} >&2"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert json.loads(told.stdout)["event"] == "closed"
    assert told.stderr == "0\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_is_said_in_one_line(root):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*TOOL, "--data-dir", str(root), "--after", "oldest"],
            stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == "the output cannot be written: [Errno 28] No space left on device\n"


@POSIX
def test_a_state_that_cannot_be_kept_is_said_in_one_line(root, tmp_path):
    process = started(root, "--after", "oldest", "--state", tmp_path / "nowhere" / "state")
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert errors.startswith("the cursor cannot be kept: ")
    assert errors.count("\n") == 1


def test_a_cursor_of_another_history_ends_with_1_and_says_what_to_do(root):
    done = run(root, "--after", "deadbeef-1.2-00000000")
    assert done.returncode == 1
    assert "snapshot()" in done.stderr
    assert "oldest" in done.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--after", "yesterday"), "'yesterday' is no cursor"),
        (("--series", "okx:BTC-USDX"), "did you mean 'okx BTC-USDT'?"),
        (("--series", "BTC-USDT"), "names no series"),
        (("--timeframe", "7m"), "does not divide a day"),
        (("--event", "close"), "invalid choice: 'close'"),
    ],
)
def test_what_makes_no_sense_is_usage(root, options, words):
    done = run(root, *options)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_directory_without_a_journal_is_usage(tmp_path):
    done = run(tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "start the collector first" in done.stderr


def test_a_state_file_that_holds_something_else_is_usage(root, tmp_path):
    (tmp_path / "state").write_text("rubbish")
    done = run(root, "--state", tmp_path / "state")
    assert done.returncode == 2
    assert "remove the file to begin anew" in done.stderr
