"""The lock: one collector per data directory, and none that outlives its process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from stores import LATE, candles, check, expect, flush

from trio_candles.store.disk import LocalDisk
from trio_candles.store.lock import Locked, hold_lock, is_locked
from trio_candles.store.schema import LOCK
from trio_candles.store.store import open_store

HOLD = """
import sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from trio_candles.store.lock import hold_lock
with hold_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def another_process_holding(path: Path):
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path), str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        try:
            assert holder.stdout.readline().strip() == b"held"
            yield holder
        finally:
            holder.kill()


def test_a_second_process_is_refused_until_the_first_is_killed(tmp_path):
    path = tmp_path / "lock"
    with another_process_holding(path) as holder:
        assert is_locked(path)
        with pytest.raises(Locked, match="lock"), hold_lock(path, attempts=2):
            pass
        holder.send_signal(getattr(signal, "SIGKILL", signal.SIGTERM))
        holder.wait(10)
        assert not is_locked(path)
        with hold_lock(path, attempts=1):
            assert is_locked(path)
    assert not is_locked(path)


def test_a_second_holder_in_the_same_process_is_refused(tmp_path):
    with (
        hold_lock(tmp_path / "lock"),
        pytest.raises(Locked),
        hold_lock(tmp_path / "lock", attempts=1),
    ):
        pass


def test_the_lock_is_let_go_when_the_block_fails(tmp_path):
    with pytest.raises(ZeroDivisionError), hold_lock(tmp_path / "lock"):
        raise ZeroDivisionError
    with hold_lock(tmp_path / "lock", attempts=1):
        pass


def test_looking_neither_creates_nor_waits(tmp_path):
    path = tmp_path / "lock"
    assert not is_locked(path)
    assert list(tmp_path.iterdir()) == []
    with another_process_holding(path):
        began = time.perf_counter()
        for _ in range(100):
            assert is_locked(path)
        assert time.perf_counter() - began < 2


def test_looking_does_not_keep_a_collector_from_starting(tmp_path):
    """A tool holds the lock for the instant of its look; the collector that starts just then tries again."""
    path = tmp_path / "lock"
    look = """
import sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from trio_candles.store.lock import is_locked
print("looking", flush=True)
for _ in range(20_000):
    is_locked(Path(sys.argv[1]))
"""
    path.touch()
    root = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", look, str(path), str(root)], stdout=subprocess.PIPE) as looker:
        assert looker.stdout.readline().strip() == b"looking"
        for _ in range(20):
            with hold_lock(path):
                pass
        looker.kill()


def looks_beside_another(path: Path, looks: int) -> int:
    """How many of *looks* at *path* say that it is held, while somebody else is in the middle of a look."""
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl = pytest.importorskip("fcntl")
        fcntl.flock(handle, fcntl.LOCK_SH)
        return sum(is_locked(path) for _ in range(looks))
    finally:
        os.close(handle)


def test_two_who_look_at_the_same_time_do_not_take_each_other_for_a_collector(tmp_path):
    (tmp_path / "lock").touch()
    assert looks_beside_another(tmp_path / "lock", 100) == 0


def test_four_threads_that_look_for_a_while_never_see_a_collector_that_is_not_there(tmp_path):
    path, seen = tmp_path / "lock", []
    path.touch()

    def look() -> None:
        seen.extend(is_locked(path) for _ in range(2_000))

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(seen), sum(seen)) == (8_000, 0)


def test_the_lock_is_not_handed_to_child_processes(tmp_path):
    """A child that outlives the collector must not keep the next one out."""
    path = tmp_path / "lock"
    talk = "print('here', flush=True); input()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with hold_lock(path):
        child = subprocess.Popen([sys.executable, "-c", talk], close_fds=False, **pipes)
        child.stdout.readline()
    try:
        assert not is_locked(path)
    finally:
        child.kill()
        child.communicate()


@pytest.mark.skipif(sys.platform == "win32", reason="file modes")
def test_a_lock_that_can_only_be_read_can_be_looked_at(tmp_path):
    path = tmp_path / "lock"
    with hold_lock(path):
        path.chmod(0o444)
        assert is_locked(path)
    assert not is_locked(path)


# --- a thread that is still writing -------------------------------------------------------------------------


class Hanging(LocalDisk):
    """Takes its time with the first day file: until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.hangs, self.let_go = threading.Event(), threading.Event()

    def write_new(self, path, content):
        if path.suffix == ".parquet":
            self.hangs.set()
            self.let_go.wait(60)
        super().write_new(path, content)


def wait_for_the_store() -> None:
    """Until the thread that puts a store to rest after its last writer has done so."""
    for thread in threading.enumerate():
        if thread.name == "store":
            thread.join(30)


@pytest.mark.parametrize("ends", ["in good order", "with a bug"])
def test_a_directory_stays_held_until_an_abandoned_thread_has_written(tmp_path, ends):
    disk, lock = Hanging(), tmp_path / LOCK
    try:
        with suppress(ZeroDivisionError), open_store(tmp_path, disk) as store:
            expect(store)
            store.commit(candles(-3, 3), LATE)
            writer = threading.Thread(target=flush, args=(store,))
            writer.start()
            disk.hangs.wait(30)
            if ends == "with a bug":
                raise ZeroDivisionError
        assert is_locked(lock)
        with pytest.raises(Locked), hold_lock(lock, attempts=1):
            pass
    finally:
        disk.let_go.set()
    writer.join(30)
    wait_for_the_store()
    assert not is_locked(lock)
    check(tmp_path, candles(-3, 3))


def test_a_directory_that_nobody_writes_to_is_let_go_at_once(tmp_path):
    with open_store(tmp_path) as store:
        writer = threading.Thread(target=store.stopped, args=(LATE,))
        writer.start()
        writer.join(30)
    assert not is_locked(tmp_path / LOCK)
