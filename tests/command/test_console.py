"""What people see, and that nobody who does not look can hold the service up."""

from __future__ import annotations

import json
import logging
import os
import shutil
import struct
import threading
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest
from screens import Screen

from trio_candles.candles.model import Millis
from trio_candles.collector.status import Board, VenueBoard, banner, render
from trio_candles.command.console import LOG_FILES, QUEUED, Console, RotatedFile, open_console
from trio_candles.store.lock import Locked, hold_lock

NOON = Millis(1_768_046_400_000)
log = logging.getLogger("trio_candles.test")


@pytest.fixture
def screens():
    pair = Screen(), Screen()
    yield pair
    for screen in pair:
        screen.close()


@pytest.fixture
def terminals(screens):
    for screen in screens:
        screen.tty = True
    return screens


def at(wall):
    return NOON


def test_the_console_shows_warnings_and_the_file_everything(tmp_path, screens):
    out, err = screens
    with open_console(tmp_path, logging.WARNING, at, out=out, err=err):
        log.debug("a detail")
        log.warning("a warning")
    said = err.shown()
    assert "a warning" in said
    assert "a detail" not in said
    assert out.shown() == ""
    written = (tmp_path / "collector.log").read_text()
    assert "a detail" in written
    assert "2026-01-10 12:00:00.000 WARNING trio_candles.test a warning" in written


def test_what_a_venue_says_cannot_give_orders_to_a_terminal_or_forge_a_log_line(tmp_path, screens):
    out, err = screens
    with open_console(tmp_path, logging.WARNING, at, out=out, err=err):
        log.warning("said %s", "\x1b[2Jhello\n2026-01-10 12:00:00.000 ERROR forged\u202e")
    for text in (err.shown(), (tmp_path / "collector.log").read_text()):
        assert text.count("\n") == 1
        assert "\x1b" not in text
        assert "\u202e" not in text
        assert "\\x1b[2Jhello\\n2026" in text


def test_a_traceback_is_told_whole(tmp_path, screens):
    out, err = screens
    with open_console(tmp_path, logging.WARNING, at, out=out, err=err):
        try:
            raise ZeroDivisionError("a bug")
        except ZeroDivisionError as error:
            log.critical("failed", exc_info=error)
    said = err.shown()
    assert "Traceback (most recent call last)" in said
    assert "ZeroDivisionError: a bug" in said


def test_piped_tables_follow_each_other_as_plain_text(tmp_path, screens):
    out, err = screens
    table = render(Board(NOON, {"okx": VenueBoard("okx", connections=1, connections_up=1, received=3)}), NOON)
    with open_console(tmp_path, logging.WARNING, at, out=out, err=err) as console:
        console.show(table)
        console.show(table)
    assert out.shown() == table * 2


def test_on_a_terminal_a_table_takes_the_place_of_the_one_before(tmp_path, terminals):
    out, err = terminals
    table = render(Board(NOON, {"okx": venue(received=3, last_data=NOON)}), NOON)
    lines = table.count("\n")
    with open_console(tmp_path, logging.WARNING, at, out=out, err=err) as console:
        console.show("banner\n", final=True)
        console.show(table)
        console.show(table)
    shown = out.shown()
    assert shown.startswith("banner\n")
    assert shown.count(f"\x1b[{lines}F\x1b[J") == 1
    assert "\x1b[32m[OK]\x1b[0m" in shown or "NO_COLOR" in os.environ


@pytest.mark.parametrize(
    ("columns", "rows", "redrawn"), [(60, 40, True), (200, 40, True), (0, 0, True), (200, 9, False)]
)
def test_on_a_narrow_terminal_lines_are_cut_and_on_a_low_one_tables_follow_each_other(
    tmp_path, screens, columns, rows, redrawn
):
    """What a terminal wraps takes more of its lines than are gone back; what has scrolled off cannot be redrawn."""
    pty, fcntl, termios = (pytest.importorskip(name) for name in ("pty", "fcntl", "termios"))
    ours, its = pty.openpty()
    try:
        fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        out = SimpleNamespace(fileno=lambda: its, isatty=lambda: True, encoding="utf-8")
        table = "".join(f"{n} {'x' * 98}\n" for n in range(9))
        with open_console(tmp_path, logging.WARNING, at, out=out, err=screens[1]) as console:
            console.show(table)
            console.show(table)
        os.write(its, b"!")
        shown = ""
        # A terminal gives what was written to it in pieces of its own choosing.
        while not shown.endswith("!"):
            shown += os.read(ours, 100_000).decode()
    finally:
        os.close(ours)
        os.close(its)
    width = min(columns - 1, 100) if columns else 100
    cut = "".join(f"{line[:width]}\n" for line in table.splitlines())
    assert shown.replace("\r\n", "\n") == cut + ("\x1b[9F\x1b[J" if redrawn else "") + cut + "!"


@pytest.mark.skipif("NO_COLOR" in os.environ, reason="somebody wants no colours")
def test_every_word_of_a_venue_has_its_colour_on_a_terminal(tmp_path, terminals):
    out, err = terminals
    with open_console(tmp_path, logging.WARNING, at, out=out, err=err) as console:
        console.show("[OK] [WAIT] [DISC] [STALE (12m)] HEALTHY\n", final=True)
    green, yellow, red, end = "\x1b[32m", "\x1b[33m", "\x1b[31m", "\x1b[0m"
    assert out.shown() == (
        f"{green}[OK]{end} {yellow}[WAIT]{end} {red}[DISC]{end} {yellow}[STALE (12m)]{end} {green}HEALTHY{end}\n"
    )


def test_a_bug_in_the_thread_that_writes_is_told_to_whoever_can_end_the_service(tmp_path, screens):
    out, err = screens
    told = threading.Event()
    with open_console(tmp_path, logging.WARNING, at, out=out, err=err) as console:
        console.on_failure(told.set)
        console.put(SimpleNamespace(levelno=None))  # no record, no table
        assert told.wait(30)
        assert isinstance(console.failed, TypeError)
        late = threading.Event()
        console.on_failure(late.set)
        assert late.is_set()


def test_a_pipe_that_nobody_reads_never_holds_up_whoever_logs(tmp_path, screens):
    """A pipe holds 64 KB; beyond it the writing thread waits, alone, and what does not fit is dropped and counted."""
    out, err = screens
    done = threading.Event()

    def work(console):
        for n in range(QUEUED // 2 + 100):
            console.show("x" * 1000 + "\n")
            log.warning("still here %d", n)
        done.set()

    with open_console(tmp_path, logging.WARNING, at, out=out, err=err) as console:
        worker = threading.Thread(target=work, args=(console,), daemon=True)
        worker.start()
        assert done.wait(30)
    assert console.stuck
    # Let the thread go, so that it does not outlive the test.
    out.close("reader")
    err.close("reader")
    console._queue.put(None, timeout=10)
    console._thread.join(10)
    assert not console._thread.is_alive()
    console._file.close()


def test_a_reader_that_goes_away_costs_only_what_it_would_have_read(tmp_path, screens):
    out, err = screens
    out.close("reader")
    with open_console(tmp_path, logging.WARNING, at, out=out, err=err) as console:
        console.show("nobody reads this\n")
        log.warning("but this")
    assert not console.stuck
    assert "but this" in err.shown()


def test_the_log_file_is_rotated_and_bounded(tmp_path, screens):
    out, err = screens
    with open_console(tmp_path, logging.CRITICAL, at, out=out, err=err) as console:
        handler = console._file
        handler.maxBytes = 10_000
        for n in range(2_000):
            log.info("record %d %s", n, "x" * 50)
    sizes = [path.stat().st_size for path in tmp_path.glob("collector.log*")]
    assert len(sizes) == 6
    assert max(sizes) <= 10_000


class Tailed:
    """A rotation while somebody has some of the files open, which on Windows keeps them from being renamed."""

    def __init__(self, *open_files):
        self.open_files, self.asked = open_files, []

    def __call__(self, source, target):
        self.asked.append((Path(source).name, Path(target).name))
        if {Path(source).name, Path(target).name} & {*self.open_files}:
            raise PermissionError(13, "The process cannot access the file because it is being used")
        os.replace(source, target)


class LogFile:
    """A log of records of 10 bytes that is rotated at 100, and has five backups already."""

    def __init__(self, folder, *open_files):
        self.folder = folder
        for number in range(1, LOG_FILES + 1):
            (folder / f"collector.log.{number}").write_text(f"backup {number}\n")
        self.handler = RotatedFile(folder / "collector.log", maxBytes=100, backupCount=LOG_FILES)
        self.handler.rotator = self.tailed = Tailed(*open_files)
        self.written = 0

    def write(self, records, since=0.0):
        """A record a second."""
        for second in range(records):
            told = f"{self.written:09}"
            self.handler.handle(logging.makeLogRecord({"msg": told, "created": since + second}))
            self.written += 1

    def lines(self):
        """What is in the files, oldest first."""
        numbers = [f".{number}" for number in range(LOG_FILES, -1, -1)] + [""]
        paths = [self.folder / f"collector.log{number}" for number in numbers]
        return [line for path in paths if path.exists() for line in path.read_text().splitlines()]


@pytest.fixture
def log_file(tmp_path):
    made = LogFile(tmp_path)
    yield made
    made.handler.close()


def test_a_log_that_somebody_reads_goes_on_in_its_file_and_no_backup_is_lost(log_file, capsys):
    log_file.tailed.open_files = ("collector.log",)
    log_file.write(50)
    expected = [f"backup {number}" for number in range(5, 0, -1)] + [f"{n:09}" for n in range(50)]
    assert log_file.lines() == expected
    assert log_file.tailed.asked == [("collector.log", "collector.log.0")]  # and not once a record
    log_file.write(60, since=50.0)
    assert len(log_file.tailed.asked) == 2
    log_file.tailed.open_files = ()
    log_file.write(5, since=200.0)
    assert log_file.lines() == [*expected[1:], *(f"{n:09}" for n in range(50, 115))]
    assert (log_file.folder / "collector.log").read_text().count("\n") == 5
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("number", range(1, LOG_FILES + 1))
def test_a_backup_that_somebody_reads_costs_at_most_the_oldest_one(log_file, number):
    """The backups before it wait until it is free, as often as that is tried."""
    log_file.tailed.open_files = (f"collector.log.{number}",)
    log_file.write(50)
    log_file.write(50, since=1000.0)
    log_file.tailed.open_files = ()
    log_file.write(1, since=2000.0)
    lines = log_file.lines()
    assert lines == ["backup 3", "backup 2", "backup 1", *(f"{n:09}" for n in range(101))]  # of two rotations


def test_a_log_that_can_be_written_again_says_the_next_time_that_it_cannot(log_file, capsys):
    broken = SimpleNamespace(write=lambda text: [][0], tell=lambda: 0, seek=lambda *to: 0, flush=str, close=str)
    for _ in range(2):
        log_file.handler.stream, whole = broken, log_file.handler.stream
        log_file.write(3)
        log_file.handler.stream = whole
        log_file.write(1)
    assert capsys.readouterr().err == "the log file cannot be written: list index out of range\n" * 2


@pytest.mark.skipif(os.name == "nt", reason="Windows moves no open file")
@pytest.mark.parametrize("gone", ["deleted", "moved", "replaced", "with its folder"])
def test_a_log_file_that_somebody_moved_or_deleted_is_made_anew(tmp_path, gone):
    folder = tmp_path / "logs"
    folder.mkdir()
    log_file = LogFile(folder)
    log_file.write(1)
    path = folder / "collector.log"
    if gone == "deleted":
        path.unlink()
    elif gone == "with its folder":
        shutil.rmtree(folder)
    else:
        path.rename(tmp_path / "elsewhere")
    if gone == "replaced":
        path.write_text("theirs\n")
    log_file.write(2)
    log_file.handler.close()
    assert path.read_text() == "theirs\n" * (gone == "replaced") + "000000001\n000000002\n"
    if gone == "moved":
        assert (tmp_path / "elsewhere").read_text() == "000000000\n"


def test_a_log_file_that_was_made_anew_is_rotated_as_ever(tmp_path, log_file):
    log_file.write(5)
    (tmp_path / "collector.log").rename(tmp_path / "elsewhere")
    log_file.write(15)
    assert [path.read_text().count("\n") for path in (tmp_path / "collector.log.1", tmp_path / "collector.log")] == [
        9,
        6,
    ]


@pytest.mark.skipif(os.name == "nt", reason="Windows moves no open file")
@pytest.mark.parametrize("shown", [False, True], ids=["in silence", "at the next table"])
def test_a_log_file_that_is_gone_is_made_anew_although_nothing_is_logged(tmp_path, screens, shown):
    out, err = screens
    path = tmp_path / "collector.log"
    with open_console(
        tmp_path, logging.WARNING, at, out=out, err=err, look_seconds=3600 if shown else 0.001
    ) as console:
        path.unlink()
        if shown:
            console.show("table\n")
        while not path.exists():
            os.sched_yield()
    assert path.read_text() == ""


@pytest.mark.skipif(os.name == "nt", reason="Windows moves no open file")
def test_a_log_file_that_cannot_be_made_anew_is_told_of_with_the_next_record_and_waited_for(tmp_path, capsys):
    folder = tmp_path / "logs"
    folder.mkdir()
    log_file = LogFile(folder)
    shutil.rmtree(folder)
    folder.write_text("in the way")
    log_file.handler.make_anew()
    assert capsys.readouterr().err == ""
    log_file.write(1)
    assert "the log file cannot be written" in capsys.readouterr().err
    folder.unlink()
    log_file.handler.make_anew()
    log_file.handler.close()
    assert (folder / "collector.log").read_text() == ""


def test_json_logs_are_an_object_a_line_in_the_file_and_on_stderr(tmp_path, screens):
    out, err = screens
    with open_console(tmp_path, logging.WARNING, at, format="json", out=out, err=err):
        log.debug("a detail of %s", "okx")
        try:
            raise ZeroDivisionError("a bug\x1b[2J\u202e")
        except ZeroDivisionError as error:
            log.critical("failed\nhard", exc_info=error)
    said, written = err.shown(), (tmp_path / "collector.log").read_text()
    assert said.isascii()
    assert "\x1b" not in said
    assert said == written.splitlines(keepends=True)[1]
    detail, failure = map(json.loads, written.splitlines())
    assert detail == {
        "time": "2026-01-10T12:00:00.000Z", "level": "DEBUG", "logger": "trio_candles.test",
        "message": "a detail of okx", "exception": None,
    }  # fmt: skip
    assert (list(failure), failure["message"]) == (list(detail), "failed\nhard")
    assert failure["exception"].startswith("Traceback (most recent call last)")
    assert failure["exception"].endswith("ZeroDivisionError: a bug\x1b[2J\u202e")


def test_what_is_dropped_is_told_in_the_format_of_the_log(tmp_path, screens):
    out, err = screens
    with open_console(tmp_path, logging.WARNING, at, format="json", out=out, err=err) as console:
        console._dropped = 3
        log.debug("a detail")
    told = json.loads(err.shown())
    assert (told["level"], told["message"][:26]) == ("WARNING", "3 log records or tables we")


def test_a_second_run_with_the_same_log_directory_has_a_log_of_its_own(tmp_path, screens):
    out, err = screens

    def run() -> Console:
        return stack.enter_context(open_console(tmp_path, logging.WARNING, at, out=out, err=err))

    with ExitStack() as stack:
        assert [run().log_file.name for _ in range(3)] == ["collector.log", "collector-2.log", "collector-3.log"]
    assert sorted(path.name for path in tmp_path.glob("*.log")) == ["collector.log"]  # the others said nothing
    with open_console(tmp_path, logging.WARNING, at, out=out, err=err) as console:
        assert console.log_file == tmp_path / "collector.log"


def test_a_log_of_ones_own_stays_if_something_was_said(tmp_path, screens):
    out, err = screens
    with hold_lock(tmp_path / ".collector.log.lock"):
        with open_console(tmp_path, logging.WARNING, at, out=out, err=err):
            log.info("hello")
        with pytest.raises(Locked), open_console(tmp_path, logging.WARNING, at, out=out, err=err):
            raise Locked("the data directory")  # another one's, and no reason to look for another log
    assert "hello" in (tmp_path / "collector-2.log").read_text()
    assert not (tmp_path / "collector-3.log").exists()


def test_libraries_that_describe_every_frame_do_not_reach_the_log(tmp_path, screens):
    out, err = screens
    with open_console(tmp_path, logging.WARNING, at, out=out, err=err):
        logging.getLogger("trio-websocket").debug("frame")
        logging.getLogger("httpcore.connection").debug("bytes")
    assert (tmp_path / "collector.log").read_text() == ""


# --- the table --------------------------------------------------------------------------------------------


def venue(**counters):
    return VenueBoard("okx", **{"connections": 1, "connections_up": 1, **counters})


def test_the_table_is_the_contracts_to_the_column():
    board = Board(
        NOON,
        {
            "coinbase": VenueBoard("coinbase", 1, 1, received=50, saved=45),
            "kraken": VenueBoard("kraken", 1, 1, received=30, saved=28),
            "okx": VenueBoard("okx", 1, 1, received=60, saved=55),
        },
    )
    for one in board.venues.values():
        one.last_data = Millis(NOON + 300_000)
    shown = [line[:56].rstrip() for line in render(board, Millis(NOON + 300_000)).splitlines()]
    assert shown == [
        "=" * 56,
        "  STATUS: HEALTHY  |  Uptime: 5 min  |  12:05:00",
        "=" * 56,
        "  VENUE        STATUS             RECV    SAVED   RECONN",
        "-" * 56,
        "  COINBASE     [OK]                 50       45        0",
        "  KRAKEN       [OK]                 30       28        0",
        "  OKX          [OK]                 60       55        0",
        "=" * 56,
    ]


@pytest.mark.parametrize(
    ("one", "word", "status"),
    [
        (venue(received=1, last_data=NOON), "[OK]", "HEALTHY"),
        (venue(last_data=NOON), "[WAIT]", "STARTING"),
        (venue(up_since=NOON), "[WAIT]", "STARTING"),
        (venue(received=1, connections_up=0), "[DISC]", "DEGRADED"),
        (venue(received=1, connections=3, connections_up=2, last_data=NOON), "[DISC]", "DEGRADED"),
        (VenueBoard("okx"), "[DISC]", "DEGRADED"),  # before its first connection is begun
        (venue(received=1, last_data=Millis(NOON - 119_999)), "[OK]", "HEALTHY"),
        (venue(received=1, last_data=Millis(NOON - 120_000)), "[STALE (2m)]", "DEGRADED"),
        (venue(received=1, last_data=Millis(NOON - 725_000)), "[STALE (12m)]", "DEGRADED"),
        (venue(received=1, last_data=Millis(NOON - 3_600_000), up_since=NOON), "[STALE (60m)]", "DEGRADED"),
        (venue(up_since=Millis(NOON - 120_000)), "[STALE (2m)]", "DEGRADED"),
        (venue(received=1, last_data=NOON, waiting=True), "[WAIT]", "STARTING"),  # for the clock
        (venue(last_data=Millis(NOON - 120_000), waiting=True), "[STALE (2m)]", "DEGRADED"),
    ],
)
def test_a_venues_word_and_what_it_makes_of_the_whole(one, word, status):
    board = Board(NOON, {"okx": one})
    assert one.status(NOON) == word
    assert board.status(NOON) == status


def test_a_store_that_cannot_write_is_degraded_in_the_systems_own_words():
    board = Board(
        NOON,
        {"okx": venue(received=1, last_data=NOON)},
        store_errors={"journal": "OSError: [Errno 28] No space left on device"},
    )
    assert "STATUS: DEGRADED" in render(board, NOON)
    assert "No space left on device" in render(board, NOON)


def test_a_venue_that_says_goodbye_is_shown_as_it_was():
    board = Board(NOON, {"okx": venue(received=1, last_data=NOON)})
    board.stopping(NOON)
    board.venues["okx"].connections_up = 0
    assert "STATUS: HEALTHY" in render(board, NOON)


def test_the_banner_names_the_venues_and_says_what_comes_next():
    lines = banner(["coinbase", "okx"]).splitlines()
    assert lines[0] == lines[-1] == "=" * 79
    assert any("TRIO CANDLES" in line for line in lines)
    assert "  Venues: COINBASE, OKX" in lines
    assert "  Starting WebSocket streams..." in lines
