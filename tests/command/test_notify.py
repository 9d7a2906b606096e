"""A service manager is told when we are ready, how we are, that we live, that we stop; and never more than is so."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import pytest
import trio
from processes import CONFIG, RUN
from stores import candle, expect
from world import AdjustableTime

from trio_candles.candles.model import Millis
from trio_candles.collector.status import Board, VenueBoard
from trio_candles.collector.vouching import Vouching
from trio_candles.collector.writer import Writing, write_verdicts
from trio_candles.command.notify import Manager, keep_telling, summary
from trio_candles.config.load import Feed
from trio_candles.store.store import StoreUnavailable, open_store

pytestmark = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no such sockets on Windows")


class Listening:
    """A service manager: its socket, and what it was told."""

    def __init__(self, address):
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address.replace("@", "\0", 1))
        self.socket.setblocking(False)

    def close(self):
        self.socket.close()

    def told(self):
        """The messages since the last call, each as its lines."""
        found = []
        while True:
            try:
                found.append(self.socket.recv(65536).decode().split("\n"))
            except BlockingIOError:
                return found


ABSTRACT = pytest.param("@", marks=pytest.mark.skipif(sys.platform != "linux", reason="Linux has abstract names"))


@pytest.fixture(params=["/", ABSTRACT])
def manager(request):
    with tempfile.TemporaryDirectory(prefix="tc-") as folder:  # pytest's own is longer than the address of a socket
        address = f"{folder}/notify" if request.param == "/" else f"@tc-{Path(folder).name}"
        with closing(Listening(address)) as listening:
            yield listening


def test_a_message_is_one_datagram_of_lines_and_a_line_stays_one(manager):
    Manager(manager.address).tell("READY=1", "STATUS=the disk:\nfull\x00 now")
    assert manager.told() == [["READY=1", "STATUS=the disk: full\x00 now"]]


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"NOTIFY_SOCKET": ""}, None),
        ({"NOTIFY_SOCKET": "/run/n"}, ("/run/n", None)),
        ({"NOTIFY_SOCKET": "@n", "WATCHDOG_USEC": "60000000"}, ("@n", 60.0)),
        ({"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "500000", "WATCHDOG_PID": "7"}, ("/n", 0.5)),
        ({"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "500000", "WATCHDOG_PID": "8"}, ("/n", None)),
        ({"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "0"}, ("/n", None)),
        ({"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "soon"}, ("/n", None)),
        ({"WATCHDOG_USEC": "500000"}, None),
    ],
)
def test_the_manager_is_the_one_of_the_environment(environment, expected):
    found = Manager.of(environment, 7)
    assert expected == (None if found is None else (found.address, found.patience))


def test_a_manager_that_is_nowhere_we_can_send_to_is_named(caplog):
    assert Manager.of({"NOTIFY_SOCKET": "vsock:2:1234"}, 7) is None
    assert "vsock:2:1234" in caplog.text


def test_a_manager_that_has_gone_is_named_once_until_it_is_back(manager, caplog):
    one = Manager(manager.address)
    manager.close()
    if not manager.address.startswith("@"):
        os.unlink(manager.address)
    for _ in range(3):
        one.tell("WATCHDOG=1")
    assert caplog.text.count("the service manager cannot be told") == 1
    with closing(Listening(manager.address)) as back:
        one.tell("WATCHDOG=1")
        assert back.told() == [["WATCHDOG=1"]]
    one.tell("WATCHDOG=1")
    assert caplog.text.count("the service manager cannot be told") == 2


def test_a_manager_that_takes_nothing_is_not_waited_for(manager, caplog):
    one = Manager(manager.address)
    while not caplog.records:  # until its queue is full
        one.tell("WATCHDOG=1")
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_the_status_is_the_whole_and_its_venues_in_a_line():
    board = Board(Millis(0), {name: VenueBoard(name, connections=1) for name in ("kraken", "okx")})
    board.venues["okx"].connections_up = board.venues["okx"].received = 1
    assert summary(board, Millis(5)) == "DEGRADED: kraken [DISC], okx [OK]"
    board.store_errors["journal"] = "disk full"
    assert summary(board, Millis(5)) == "DEGRADED: kraken [DISC], okx [OK]; journal: disk full"


class Disk:
    """Runs the store's work: at once, or never, or in vain."""

    def __init__(self):
        self.state = "well"

    async def __call__(self, work, /, *args):
        await trio.lowlevel.checkpoint()
        if self.state == "hangs":
            await trio.sleep_forever()
        if self.state == "full":
            raise StoreUnavailable("No space left on device")
        return work(*args)


class Watched:
    """A writer that a manager watches, patient for a minute; what the manager was told, with the time of it."""

    def __init__(self, manager, root, nursery, store):
        self.manager, self.status, self.disk, self.writing = manager, "well", Disk(), Writing()
        self.send, receive = trio.open_memory_channel(16)
        board = Board(Millis(0), {"okx": VenueBoard("okx")})
        clock = Vouching(AdjustableTime(candle(5).open_time), vouched=True)
        nursery.start_soon(write_verdicts, receive, store, board, clock, 60.0, 3.0, self.disk, self.writing, {}, Feed())
        told = Manager(manager.address, 60.0)
        nursery.start_soon(keep_telling, told, self.writing, lambda: self.status, 1.0)

    async def heard(self, seconds):
        """What is told in so many seconds from now on."""
        self.manager.told()
        lines, until = [], trio.current_time() + seconds
        while trio.current_time() < until:
            await trio.sleep(1)
            lines += [line for message in self.manager.told() for line in message]
        return lines


@pytest.fixture
async def watched(manager, tmp_path):
    with open_store(tmp_path) as store:
        expect(store)
        async with trio.open_nursery() as nursery:
            yield Watched(manager, tmp_path, nursery, store)
            nursery.cancel_scope.cancel()


async def test_ready_comes_once_and_the_status_when_it_changes(autojump_clock, watched):
    lines = await watched.heard(100)
    assert lines[:3] == ["READY=1", "STATUS=well", "WATCHDOG=1"]
    assert {*lines[3:]} == {"WATCHDOG=1"}
    watched.status = "ill"
    assert (await watched.heard(30)).count("STATUS=ill") == 1


async def test_ready_is_told_again_if_it_did_not_get_through(autojump_clock, manager):
    writing, filler = Writing(), Manager(manager.address)
    while filler.tell("X=1"):
        pass
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep_telling, Manager(manager.address), writing, lambda: "well", 1.0)
        for _ in range(30):
            await trio.sleep(1)
            writing.turned()
        manager.told()
        for _ in range(30):
            await trio.sleep(1)
            writing.turned()
        assert manager.told() == [["READY=1", "STATUS=well"]]
        nursery.cancel_scope.cancel()


async def test_a_sign_of_life_comes_in_time(autojump_clock, watched):
    last = trio.current_time()
    for _ in range(1000):
        if await watched.heard(1):
            last = trio.current_time()
        assert trio.current_time() - last < 30  # half of the manager's patience


async def test_nothing_says_ready_before_the_writer_has_gone_round(autojump_clock, manager):
    writing = Writing()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep_telling, Manager(manager.address, 60.0), writing, lambda: "well", 1.0)
        await trio.sleep(1000)
        assert manager.told() == []
        writing.turned()
        await trio.sleep(1)
        assert manager.told() == [["READY=1", "STATUS=well", "WATCHDOG=1"]]
        nursery.cancel_scope.cancel()


async def test_a_writer_that_hangs_gives_no_sign_of_life(autojump_clock, watched):
    await watched.heard(20)
    watched.disk.state = "hangs"
    await watched.heard(20)
    assert await watched.heard(1000) == []


@pytest.mark.parametrize("waiting", [True, False])
async def test_a_disk_that_takes_nothing_is_no_hang(autojump_clock, watched, waiting):
    await watched.heard(20)
    watched.disk.state = "full"
    if waiting:
        watched.send.send_nowait([candle(-3)])
    await watched.heard(20)
    assert len(await watched.heard(1000)) >= 1000 // 30
    assert bool(watched.writing.pending) is waiting


def test_a_collector_under_a_manager_says_ready_how_it_is_and_that_it_stops(manager, tmp_path):
    (tmp_path / "config.yaml").write_text(CONFIG)
    environment = {**os.environ, "NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "60000000"}
    command = [*RUN, "--simulate", "--speed", "60", "--duration", "5m"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    first, *_, last = manager.told()
    assert first[0] == "READY=1"
    assert first[1].startswith("STATUS=")
    assert "coinbase [" in first[1]
    assert first[2] == "WATCHDOG=1"
    assert last == ["STOPPING=1"]
