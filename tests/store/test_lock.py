"""The lock: one collector per data directory, and none that outlives its process."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from trio_candles.store.lock import Locked, hold_lock, is_locked

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
