"""Power cuts on a real file system: ext4 in an image of its own, copied while its writer stands still.

What the writer had not synced is in the page cache of the mounted file system and not in the image: the copy is
what a disk holds after the power has gone. It is mounted, and a start on it must find everything acknowledged.
A writer whose fsync does nothing is the control: it must lose something, or this would prove nothing.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torture.atwork import after_all, heard, work
from trio_candles.store.disk import LOCAL_DISK, LocalDisk

CONTROL_CUTS = 8
BYTES = 48 << 20


def run(cuts: int, chance: random.Random, deadline: float) -> dict[str, object]:
    """*cuts* of a writer as it is, and some of one that syncs nothing."""
    part = {"part": "powercut", "ok": True, "faults": []}
    if sys.platform != "linux" or os.geteuid() or shutil.which("mkfs.ext4") is None:
        return {**part, "skipped": "needs Linux, root and mkfs.ext4"}
    with tempfile.TemporaryDirectory(prefix="torture-") as folder:
        home = Path(folder)
        try:
            with _mounted(_image(home / "probe"), home / "probe mount"):
                pass
        except subprocess.CalledProcessError as error:
            return {**part, "skipped": f"images cannot be mounted here: {error.stderr.strip()[:100]}"}
        done, acknowledged, faults = _cut(home / "real", cuts, chance, deadline, LOCAL_DISK)
        lying = LocalDisk(sync=lambda handle: None)
        controls, _, lost = _cut(home / "control", CONTROL_CUTS, chance, deadline + 30, lying)
    if not lost:
        faults.append(f"the control: {controls} cuts of a writer that syncs nothing, and nothing was lost")
    return {
        **part, "ok": not faults, "cuts": done, "acknowledged": acknowledged, "control_cuts": controls,
        "faults_found_in_the_control": len(lost), "faults": faults[:20],
    }  # fmt: skip


def _cut(home: Path, cuts: int, chance: random.Random, deadline: float, disk: LocalDisk) -> tuple[int, int, list[str]]:
    """Cuts done, candles that had been acknowledged by the last, and what was wrong after any."""
    home.mkdir()
    image, faults, done, said = _image(home / "image"), [], 0, b""
    with _mounted(image, home / "mount"):
        child, reading = _writer(home / "mount" / "data", disk)
        try:
            while done < cuts and time.monotonic() < deadline and not faults:
                time.sleep(chance.uniform(0.05, 0.4))
                os.kill(child, signal.SIGSTOP)
                time.sleep(0.02)  # a call under way ends first, and what it says is heard
                said += _everything(reading)
                copy = home / "copy"
                subprocess.run(["cp", "--sparse=always", image, copy], check=True)
                os.kill(child, signal.SIGCONT)
                with _mounted(copy, home / "after"):
                    try:
                        faults += [f"cut {done}: {one}" for one in after_all(home / "after" / "data", heard(said))]
                    # A start that fails on what a cut left is what this looks for, whatever it says.
                    except Exception as error:
                        faults.append(f"cut {done}: the start failed: {type(error).__name__}: {error}")
                done += 1
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            os.close(reading)
    return done, len(heard(said)), faults


def _image(path: Path) -> Path:
    with path.open("wb") as file:
        file.truncate(BYTES)
    subprocess.run(["mkfs.ext4", "-q", "-F", path], check=True, capture_output=True, text=True)
    return path


@contextmanager
def _mounted(image: Path, place: Path) -> Iterator[None]:
    place.mkdir(exist_ok=True)
    # commit=300: the kernel writes nothing back by itself, as far as it can be asked not to.
    command = ["mount", "-o", "loop,commit=300", image, place]
    subprocess.run(command, check=True, capture_output=True, text=True)
    try:
        yield
    finally:
        subprocess.run(["umount", place], check=True)


def _writer(data: Path, disk: LocalDisk) -> tuple[int, int]:
    """A child that works there for a long time; its pid, and where it tells what was accepted."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            work(data, writing, 0, 100_000, disk)
        finally:
            os._exit(0)
    os.close(writing)
    os.set_blocking(reading, False)
    return child, reading


def _everything(reading: int) -> bytes:
    said = b""
    try:
        while data := os.read(reading, 65536):
            said += data
    except BlockingIOError:
        pass
    return said
