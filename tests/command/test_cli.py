"""The collector as its user runs it: a process, its exit codes, its signals, what it leaves behind."""

from __future__ import annotations

import argparse
import errno
import json
import os
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
from contextlib import chdir, closing
from pathlib import Path

import pytest
from processes import AUDIT, CONFIG, ROOT, RUN, Running
from world import NOON, check_against_truth, ledger, rows_on_disk

from trio_candles import audit, export, preflight
from trio_candles.candles.model import Empty, Series
from trio_candles.clock import WallTime
from trio_candles.collector.service import Service
from trio_candles.collector.status import Board
from trio_candles.collector.vouching import Vouching
from trio_candles.collector.writer import Writing
from trio_candles.command.cli import check_file_systems, complain, exit_code, run
from trio_candles.command.options import directory
from trio_candles.command.signals import Signals
from trio_candles.config.load import load_config
from trio_candles.health import check, monitor
from trio_candles.simulator import Market
from trio_candles.store.disk import LocalDisk
from trio_candles.store.mounts import Mount
from trio_candles.store.store import StoreUnavailable, open_store

ALL = [
    Series(venue, symbol)
    for venue, symbols in {
        "coinbase": ("BTC-USD", "ETH-USD"),
        "kraken": ("BTC/USD", "ETH/USD"),
        "okx": ("BTC-USDT", "ETH-USDT"),
    }.items()
    for symbol in symbols
]
posix = pytest.mark.skipif(sys.platform == "win32", reason="signals between processes differ on Windows")


@pytest.fixture
def home(tmp_path):
    (tmp_path / "config.yaml").write_text(CONFIG)
    return tmp_path


def finished(home, *options, command=RUN, timeout=60):
    return subprocess.run([*command, *options], cwd=home, capture_output=True, text=True, timeout=timeout)


def audited(home, data_dir):
    done = finished(home, "--data-dir", data_dir, "--json", command=AUDIT)
    return done.returncode, json.loads(done.stdout)


def test_a_simulated_run_ends_by_itself_and_every_stored_candle_is_the_markets(home):
    done = finished(home, "--simulate", "--speed", "120", "--duration", "10m", "--seed", "7")
    assert done.returncode == 0, done.stderr
    assert "STATUS: HEALTHY" in done.stdout
    assert done.stdout.count("[OK]") >= 3
    for series in ALL:
        counts = check_against_truth(home / "data-simulated", Market(7), series)
        assert counts["candles"] >= 5
    code, report = audited(home, "data-simulated")
    assert (code, report["ok"], report["violations"]) == (0, True, [])
    found = [entry["timeframe"] for entry in report["series"]]
    assert found.count("1m") == 6
    assert "5m" in found
    assert all(gap["reason"] for gap in report["gaps"])


@posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_cleanly_with_everything_in_parquet(home, number):
    running = Running(home, "--simulate", "--speed", "60", "--data-dir", "d")
    running.wait_for("HEALTHY")
    running.process.send_signal(number)
    code, out, err = running.end()
    assert (code, err) == (0, "")
    assert "STATUS: HEALTHY" in out.splitlines()[-8]  # the final table
    with ledger(home / "d") as books:
        assert books.one("SELECT count(*) FROM candle") == 0
    assert not list((home / "d").glob("journal.sqlite3-*"))
    assert audited(home, "d")[0] == 0


@pytest.mark.parametrize(("verdicts", "code"), [(2, 1), (0, 0)])
def test_a_disk_that_hangs_at_the_stop_is_a_failure_only_if_it_costs_verdicts(capsys, caplog, verdicts, code):
    pending = [Empty(Series("okx", f"C{number}-USDT"), NOON, NOON, "quiet") for number in range(verdicts)]
    service = Service(Board(NOON, {}), Writing(pending), Vouching(WallTime()))
    assert complain(service) == code
    said = capsys.readouterr().err
    assert all(f"okx C{number}-USDT" in said for number in range(verdicts))
    assert ("verdicts are lost" in said) == bool(verdicts)
    assert ("for the next start" in caplog.text) == (not verdicts)


@posix
def test_a_signal_before_anything_has_begun_ends_it_as_cleanly(home):
    running = Running(home, "--simulate", "--data-dir", "d")
    running.wait_for("Venues:")
    running.process.send_signal(signal.SIGINT)
    code, _, err = running.end()
    assert (code, err) == (0, "")


@posix
def test_a_signal_while_it_gets_ready_ends_it_before_it_has_begun(home):
    (home / "early.py").write_text(
        textwrap.dedent(
            """
            import os, signal, sys
            from trio_candles.command.signals import hold_signals

            signals = hold_signals()
            os.kill(os.getpid(), signal.SIGTERM)
            from trio_candles.command.cli import run

            sys.exit(run(sys.argv[1:], signals))
            """
        )
    )
    done = finished(home, "--simulate", "--data-dir", "d", command=[sys.executable, "early.py"])
    assert (done.returncode, done.stderr) == (0, "")
    assert "Venues:" not in done.stdout
    assert "STATUS: STARTING" in done.stdout  # the final table
    assert "asked to stop before anything was started" in (home / "logs" / "collector.log").read_text()
    assert not list((home / "d").glob("journal.sqlite3*"))


@posix
def test_a_terminal_that_closes_ends_it_as_cleanly_as_a_signal_that_was_sent(home):
    running = Running(home, "--simulate", "--data-dir", "d", "--speed", "60")
    running.wait_for("STATUS: HEALTHY")
    running.process.send_signal(signal.SIGHUP)
    running.process.send_signal(signal.SIGHUP)  # a shell and a terminal send one each
    code, out, err = running.end()
    assert (code, err) == (0, "")
    assert out.count("STATUS") > 0
    assert audited(home, "d")[0] == 0


@posix
def test_under_nohup_a_terminal_that_closes_is_no_matter():
    held = """
import os, signal
from trio_candles.command.signals import hold_signals
signal.signal(signal.SIGHUP, signal.SIG_IGN)
signals = hold_signals()
os.kill(os.getpid(), signal.SIGHUP)
print(signals.asked)
os.kill(os.getpid(), signal.SIGTERM)
print(signals.asked)
"""
    done = finished(ROOT, command=[sys.executable, "-c", held])
    assert (done.returncode, done.stdout, done.stderr) == (0, "False\nTrue\n", "")


@posix
@pytest.mark.parametrize("heavy", ["attrs", "pyarrow"])
@pytest.mark.parametrize("tool", ["audit", "check", "export", "preflight"])
def test_a_tool_that_is_interrupted_while_it_imports_leaves_without_a_word(tmp_path, tool, heavy):
    interrupted = """
import os, runpy, signal, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[2]:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
runpy.run_path(sys.argv[1], run_name="__main__")
"""
    script = str(ROOT / "tools" / f"{tool}.py")
    done = finished(tmp_path, script, heavy, command=[sys.executable, "-c", interrupted])
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@posix
def test_killed_at_once_it_loses_nothing_that_was_accepted_and_the_next_start_goes_on(home):
    running = Running(home, "--simulate", "--speed", "60", "--data-dir", "d", "--seed", "7")
    running.wait_for("HEALTHY")
    running.process.kill()
    running.end()
    code, before = audited(home, "d")
    assert (code, before["violations"]) == (0, [])
    done = finished(home, "--simulate", "--data-dir", "d", "--duration", "4m")  # seed and clock are remembered
    assert done.returncode == 0, done.stderr
    code, after = audited(home, "d")
    assert (code, after["violations"]) == (0, [])
    assert after["totals"]["candles"] >= before["totals"]["candles"]
    for series in ALL:
        check_against_truth(home / "d", Market(7), series)


@posix
def test_a_second_collector_is_kept_out_and_the_first_does_not_notice(home):
    running = Running(home, "--simulate", "--speed", "60", "--data-dir", "d")
    running.wait_for("[")
    second = finished(home, "--simulate", "--data-dir", "d")
    assert second.returncode == 3
    assert "another collector holds d" in second.stderr
    assert audited(home, "d")[1]["collector_running"] is True
    running.process.send_signal(signal.SIGINT)
    assert running.end()[0] == 0


def test_two_runs_in_one_folder_log_into_files_of_their_own_and_the_second_says_so(home):
    first = Running(home, "--simulate", "--data-dir", "one")
    first.wait_for("Venues:")
    second = finished(home, "--simulate", "--data-dir", "two", "--duration", "1s")
    first.process.terminate()
    code, _, err = first.end()
    assert (code, err) == (0, "")
    assert (second.returncode, second.stderr.count("\n")) == (0, 1)
    beside = str(Path("logs", "collector-2.log"))
    assert f"another run writes to collector.log there; this one logs to {beside}" in second.stderr
    assert f"Log: {beside}" in second.stdout
    logs = [(home / "logs" / name).read_text() for name in ("collector.log", "collector-2.log")]
    assert [text.count("started: simulated candles into one") for text in logs] == [1, 0]
    assert [text.count("started: simulated candles into two") for text in logs] == [0, 1]


def test_mistakes_in_the_configuration_are_told_all_at_once_and_nothing_is_started(home):
    (home / "config.yaml").write_text(CONFIG.replace("flush_interval_seconds", "flush_interval") + "statu: {}\n")
    done = finished(home, "--simulate")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "config.yaml:8: storage.flush_interval: unknown key; did you mean flush_interval_seconds?",
        "config.yaml:10: statu: unknown key; did you mean status?",
    ]
    assert sorted(path.name for path in home.iterdir()) == ["config.yaml"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--config", "nowhere.yaml"], "nowhere.yaml:1: "),
        (["--duration", "5x", "--simulate"], "'5x' is no duration"),
        (["--speed", "0", "--simulate"], "not above zero"),
        (["--speed", "nan", "--simulate"], "out of range"),
        (["--speed", "2"], "--speed and --pivot go with --simulate"),
        (["--pivot", "0"], "--speed and --pivot go with --simulate"),
        (["--seed", "1"], "--seed goes with --simulate only"),
        (["--unknown"], "unrecognized arguments"),
    ],
)
def test_wrong_usage_is_exit_two_and_says_why(home, options, said):
    done = finished(home, *options)
    assert done.returncode == 2
    assert said in done.stderr
    assert not (home / "data").exists()


def test_a_directory_remembers_what_it_is_and_refuses_everything_else(home):
    assert (
        finished(home, "--simulate", "--speed", "60", "--duration", "30s", "--data-dir", "d", "--seed", "7").returncode
        == 0
    )
    for options, said in [
        (["--data-dir", "d"], "holds simulated candles"),
        (["--simulate", "--data-dir", "d", "--seed", "8"], "has seed 7, not 8"),
        (
            ["--simulate", "--data-dir", "d", "--speed", "60", "--pivot", "9999999999"],
            "before the directory's latest time",
        ),
    ]:
        done = finished(home, *options)
        assert done.returncode == 2, options
        assert said in done.stderr
    with ledger(home / "d") as books:
        before = int(books.one("SELECT value FROM meta WHERE key = 'latest_ms'"))
    assert finished(home, "--simulate", "--speed", "60", "--duration", "30s", "--data-dir", "d").returncode == 0
    with ledger(home / "d") as books:
        after = int(books.one("SELECT value FROM meta WHERE key = 'latest_ms'"))
    assert before + 30_000 <= after < before + 600_000  # its clock went on where it had stopped


class Refusing(LocalDisk):
    """Makes no folder, and says why."""

    def __init__(self, number):
        super().__init__()
        self.error = OSError(number, os.strerror(number))

    def make_folder(self, path):
        raise self.error


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("ENOSPC", 1),
        ("EIO", 1),
        ("EMFILE", 1),
        ("ENOENT", 1),
        ("EACCES", 2),
        ("EPERM", 2),
        ("EROFS", 2),
        ("ENOTDIR", 2),
        ("ENAMETOOLONG", 2),
        ("ELOOP", 2),
    ],
)
def test_a_place_that_is_closed_to_us_is_a_mistake_and_one_that_is_full_or_failing_is_not(tmp_path, name, code):
    """Of the data directory, and of the log's, whose errors are the system's as they are."""
    number = getattr(errno, name)
    with pytest.raises(StoreUnavailable, match=os.strerror(number)) as caught, open_store(tmp_path, Refusing(number)):
        pass
    assert exit_code(caught.value) == exit_code(OSError(number, os.strerror(number))) == code


COMMANDS = {
    "run": [],
    "preflight": ["--offline"],
    "check": [],
    "monitor": ["--once"],
    "audit": [],
    "export": ["--venue", "okx", "--symbol", "BTC-USDT"],
}

MAINS = {
    "run": lambda arguments: run(arguments, Signals()),
    "preflight": preflight.main,
    "check": check.main,
    "monitor": lambda arguments: monitor.main(arguments, Signals()),
    "audit": audit.main,
    "export": export.main,
}


def as_command(name):
    return [sys.executable, str(ROOT / ("run.py" if name == "run" else f"tools/{name}.py")), *COMMANDS[name]]


@pytest.mark.parametrize("name", list(COMMANDS))
def test_a_directory_whose_name_no_system_takes_is_refused_in_the_systems_words(home, name):
    done = finished(home, "--data-dir", "x" * 300, command=as_command(name))
    assert done.returncode == (1 if name == "preflight" else 2)
    told = done.stdout if name == "preflight" else done.stderr
    assert os.strerror(errno.ENAMETOOLONG) in told
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == (0 if name == "preflight" else 1)


@pytest.mark.parametrize("name", list(COMMANDS))
@pytest.mark.parametrize("wrong", [("--data-dir", ""), ("--data-dir", "~/candles"), ("--config", "")])
def test_a_place_that_was_hardly_meant_is_refused_by_every_command_as_by_the_configuration(home, capsys, name, wrong):
    """That of an unset variable, and that of a ~ which no shell has expanded."""
    with chdir(home), pytest.raises(SystemExit) as ended:
        MAINS[name]([*wrong, *COMMANDS[name]])
    assert ended.value.code == 2
    assert f"argument {wrong[0]}: expected a " in capsys.readouterr().err
    assert os.listdir(home) == ["config.yaml"]


def plain_user():
    """What makes of a command one that permissions hold for."""
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("no permission holds for root, and there is no setpriv to make it plain")
    return ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such permissions")
@pytest.mark.parametrize(
    ("part", "name"),
    [
        ("collector.lock", "lock"),
        ("journal.sqlite3", "contents"),
        ("okx", "data directory"),
        ("okx/ETH-USDT/1m", "data directory"),
    ],
)
def test_what_may_not_be_written_because_another_user_once_ran_it_is_found_before_the_start(home, part, name):
    command = [*plain_user(), *as_command("preflight")]
    with open_store(home / "data"):
        pass
    (home / "data" / "okx" / "ETH-USDT" / "1m").mkdir(parents=True)
    (home / "data" / part).chmod(0o500)
    try:
        done = finished(home, command=command)
        if "." in part:
            assert finished(home, command=[*plain_user(), *RUN]).returncode == 2
    finally:
        (home / "data" / part).chmod(0o700)
    assert done.returncode == 1
    assert [line.partition(":")[0] for line in done.stdout.splitlines() if line.startswith("[F")] == [f"[FAIL] {name}"]
    assert str(Path("data", part)) in done.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such permissions")
@pytest.mark.parametrize("name", list(COMMANDS))
def test_a_directory_that_may_not_be_searched_is_refused_in_the_systems_words(home, name):
    plain = plain_user()
    (home / "closed").mkdir(mode=0)
    try:
        done = finished(home, "--data-dir", "closed", command=[*plain, *as_command(name)])
    finally:
        (home / "closed").chmod(0o700)
    assert done.returncode == (1 if name == "preflight" else 2)
    assert "Permission denied" in (done.stdout if name == "preflight" else done.stderr)
    assert "Traceback" not in done.stderr
    assert list((home / "closed").iterdir()) == []


def test_a_journal_that_somebody_does_not_let_go_of_is_no_mistake_of_whoever_starts_us(tmp_path):
    with open_store(tmp_path):
        pass
    journal = tmp_path / "journal.sqlite3"
    with (
        closing(sqlite3.connect(journal, isolation_level=None)) as holder,
        closing(sqlite3.connect(journal, isolation_level=None, timeout=0)) as other,
    ):
        holder.executescript("BEGIN; SELECT * FROM meta")
        with (
            pytest.raises(StoreUnavailable, match="database is locked") as caught,
            # Instead of waiting for as long as it takes, the last attempt is made by the test.
            open_store(tmp_path, go_on=lambda *_: other.execute("PRAGMA journal_mode = WAL")),
        ):
            pass
    assert exit_code(caught.value) == 1


@posix
@pytest.mark.parametrize(("kind", "warned"), [("nfs4", True), ("fuse.sshfs", True), ("ext4", False)])
def test_a_start_on_a_network_file_system_warns_of_it(home, caplog, kind, warned):
    config = load_config(home / "config.yaml", data_dir=home / "data")
    check_file_systems(config, [Mount("/", "xfs"), Mount(str(home.resolve()), kind)])
    assert [f"{kind} at {home.resolve()}" in record.getMessage() for record in caplog.records] == [True] * warned


def test_a_file_where_the_logs_belong_is_a_mistake(home):
    (home / "logs").write_text("")
    done = finished(home, "--simulate")
    assert (done.returncode, "logs" in done.stderr) == (2, True)
    assert not (home / "data-simulated").exists()


@pytest.mark.parametrize("folder", ["okx/BTC-USDT", ".tmp", "quarantine/x"])
def test_logs_may_not_lie_where_only_candles_do(home, folder):
    (home / "config.yaml").write_text(CONFIG.replace("log_dir: logs", f"log_dir: data/{folder}"))
    told = finished(home, "--simulate", "--data-dir", "data", "--duration", "1s")
    assert told.returncode == 2
    assert "where only candles belong" in told.stderr
    assert not (home / "data").exists()


@pytest.mark.parametrize("options", [("--speed", "60", "--pivot", "0"), ("--speed", "60", "--pivot", "2e9")])
def test_a_clock_that_shows_another_age_is_refused(home, options):
    told = finished(home, "--simulate", *options, "--duration", "1s")
    assert told.returncode == 2
    assert "expected a time from" in told.stderr
    assert not (home / "data-simulated").exists()


@posix
@pytest.mark.parametrize("closed", [">&-", "2>&-"])
def test_a_stream_that_is_closed_from_the_start_costs_only_what_it_would_have_shown(home, closed):
    words = shlex.join([*RUN, "--simulate", "--speed", "60", "--duration", "90s", "--log-level", "INFO"])
    told = subprocess.run(["sh", "-c", f"{words} {closed}"], cwd=home, capture_output=True, text=True, timeout=60)
    assert told.returncode == 0
    assert "Traceback" not in told.stdout + told.stderr
    if closed == "2>&-":
        assert told.stdout.count("STATUS:") >= 3
    assert (home / "logs" / "collector.log").read_text().count("\n") > 5


@pytest.mark.slow
def test_without_a_network_every_venue_is_disconnected_and_it_stops_as_usual(home):
    closed = "ws://127.0.0.1:9"
    (home / "config.yaml").write_text(
        "venues:\n"
        f"  coinbase: {{symbols: [BTC-USD], websocket_url: '{closed}/', rest_url: 'http://127.0.0.1:9'}}\n"
        f"  kraken: {{symbols: [BTC/USD], websocket_url: '{closed}/', rest_url: 'http://127.0.0.1:9'}}\n"
        f"  okx: {{symbols: [BTC-USDT], websocket_url: '{closed}/', rest_url: 'http://127.0.0.1:9'}}\n"
    )
    done = finished(home, "--speed", "60", "--duration", "5m")
    assert done.returncode == 0
    last = done.stdout.splitlines()[-9:]
    assert "STATUS: DEGRADED" in last[1]
    rows = [line.split() for line in last if "[DISC]" in line]
    assert len(rows) == 3
    assert all(4 <= int(row[4]) <= 12 for row in rows)
    assert "cannot connect to ws://127.0.0.1:9/" in done.stderr


def test_a_bug_ends_it_with_a_traceback_and_what_was_received_is_in_parquet(home):
    """The unexpected is planted where it would be: in one venue's reader."""
    (home / "buggy.py").write_text(
        textwrap.dedent(
            """
            import attrs, sys
            from trio_candles.command.cli import run
            from trio_candles.command.signals import hold_signals
            from trio_candles.venues.registry import VENUES
            from trio_candles.venues.okx.feed import Okx

            class Buggy(Okx):
                read_so_far = 0

                def read(self, text):
                    self.read_so_far += 1
                    return super().read(text) if self.read_so_far < 120 else [][0]

            sys.exit(run(sys.argv[1:], hold_signals(), {**VENUES, "okx": attrs.evolve(VENUES["okx"], feed=Buggy())}))
            """
        )
    )
    done = finished(
        home, "--simulate", "--speed", "120", "--data-dir", "d", "--seed", "7", command=[sys.executable, "buggy.py"]
    )
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "IndexError: list index out of range" in done.stderr
    assert "IndexError" in (home / "logs" / "collector.log").read_text()
    assert sum(len(rows_on_disk(home / "d", series)) for series in ALL) >= 12
    for series in ALL:
        check_against_truth(home / "d", Market(7), series)
    assert audited(home, "d")[0] == 0


def test_a_pipe_that_nobody_reads_does_not_keep_it_from_collecting_and_ending(home):
    (home / "config.yaml").write_text(CONFIG.replace("interval_seconds: 30", "interval_seconds: 1"))
    reader, writer = os.pipe()
    try:
        process = subprocess.Popen(
            [*RUN, "--simulate", "--speed", "120", "--duration", "6m", "--data-dir", "d"],
            cwd=home, stdout=writer, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
    finally:
        os.close(reader)
        os.close(writer)
    assert audited(home, "d")[0] == 0


@pytest.mark.slow
def test_a_reader_that_leaves_early_does_not_disturb_it(home):
    reader, writer = os.pipe()
    os.close(reader)
    try:
        process = subprocess.Popen(
            [*RUN, "--simulate", "--speed", "120", "--duration", "2m"],
            cwd=home,
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
        )
        _, err = process.communicate(timeout=60)
    finally:
        os.close(writer)
    # On a busy machine a venue may lose its patience at this speed, and that is said; the pipe is not.
    assert process.returncode == 0, err
    assert "Traceback" not in err
    assert "pipe" not in err.lower()


@pytest.mark.parametrize("command", [RUN, AUDIT, [sys.executable, "-m", "trio_candles"]])
def test_help_and_version_say_what_they_should(home, command):
    assert "usage:" in finished(home, "--help", command=command).stdout
    version = finished(home, "--version", command=command)
    assert version.returncode == 0
    assert version.stdout.startswith("trio-candles")


@pytest.mark.parametrize("tool", ["audit", "preflight"])
def test_a_tool_whose_reader_leaves_says_nothing_about_it(tmp_path, tool):
    (tmp_path / "d").mkdir()
    command = [sys.executable, str(ROOT / "tools" / f"{tool}.py"), "--data-dir", str(tmp_path / "d")]
    offline = ["--offline"] if tool == "preflight" else []
    process = subprocess.Popen(
        [*command, *offline], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.close()
    _, err = process.communicate(timeout=60)
    assert "Traceback" not in err


def looked_at(home, name):
    """The tool on a sound directory of one series that is long stale: 1 for check and monitor, else 0."""
    with open_store(home / "d") as store:
        store.claim("real", seed=None, speed=1.0, pivot=0.0, latest_ms=NOON)
        store.expect([Series("okx", "BTC-USDT")], NOON, NOON)
        store.stopped(NOON)
    return [*as_command(name), "--data-dir", "d", "--json"]


@pytest.mark.skipif(sys.platform == "win32", reason="a shell that closes a descriptor")
@pytest.mark.parametrize(("name", "code"), [("preflight", 0), ("check", 1), ("monitor", 1), ("audit", 0)])
def test_a_tool_started_without_stdout_still_ends_with_its_code(home, name, code):
    command = ["sh", "-c", 'exec "$@" >&-', "sh", *looked_at(home, name)]
    done = finished(home, command=command)
    assert (done.returncode, done.stderr) == (code, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("name", ["preflight", "check", "monitor", "audit"])
def test_output_that_cannot_be_written_is_2_and_no_verdict(home, name):
    command = looked_at(home, name)
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, cwd=home, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    said = f"the output cannot be written: [Errno {errno.ENOSPC}] {os.strerror(errno.ENOSPC)}\n"
    assert (done.returncode, done.stderr) == (2, said)


@pytest.mark.parametrize("name", ["audit", "check", "explain", "export", "monitor", "preflight"])
def test_a_tool_runs_the_checkout_that_it_lies_in_whatever_is_installed(tmp_path, name):
    package = tmp_path / "checkout" / "trio_candles"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "entry.py").write_text("audit = check = explain = export = preflight = lambda: 7\n")
    (package / "health.py").write_text("monitor_command = lambda: 7\n")
    (tmp_path / "checkout" / "tools").mkdir()
    script = shutil.copy(ROOT / "tools" / f"{name}.py", tmp_path / "checkout" / "tools")
    assert finished(tmp_path, command=[sys.executable, str(script)]).returncode == 7


@pytest.mark.parametrize("text", ["", " ", "~", "~/x", "~\\x", "a\0b", "a\nb", "a\tb", "\x7f", "\x85"])
def test_no_directory_has_such_a_name(text):
    with pytest.raises(argparse.ArgumentTypeError, match="expected a directory"):
        directory(text)


@pytest.mark.parametrize("text", ["d", ".", "..", "a b", "./~", "a~", "~user", "ü", "C:\\data", "/", "\udcff"])
def test_any_other_name_is_taken_as_it_is(text):
    assert directory(text) == Path(text)
