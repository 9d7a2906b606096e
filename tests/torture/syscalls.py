"""A store killed, or refused, at every single system call of its work and of its start (strace).

Each case is a child forked from a process that has everything imported, held until strace is attached to it: so the
N-th ``fsync`` is the work's, not the interpreter's. strace must say that it injected, or the case does not count.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import attrs

from torture.atwork import after_all, heard, work
from torture.evidence import Key, Row, counted

CHANGING = ("openat", "write", "pwrite64", "fsync", "fdatasync", "rename", "unlink", "mkdir", "ftruncate")
"""Calls after each of which the disk may be another; a kill before any of them is a crash of its own."""
READING = ("read", "pread64", "close", "fcntl", "lseek", "newfstatat", "getdents64", "mmap")
REFUSALS = {
    "openat": ("EIO", "ENOSPC", "EMFILE", "EROFS"),
    "write": ("EIO", "ENOSPC", "EINTR"),
    "pwrite64": ("EIO", "ENOSPC"),
    "fsync": ("EIO",),
    "fdatasync": ("EIO",),
    "rename": ("EIO", "ENOSPC"),
    "mkdir": ("ENOSPC",),
    "unlink": ("EIO",),
    "ftruncate": ("EIO",),
    "read": ("EIO",),
    "pread64": ("EIO",),
}
SHORT = {"write": 7}
"""The call says that so many bytes were written, and none was: a disk that lies."""
SECONDS = 20.0
"""For one child; then it hangs."""


@attrs.frozen
class Case:
    """One child: at the *number*-th *call*, *what* (strace's words)."""

    scene: str
    call: str
    number: int
    what: str

    def __str__(self) -> str:
        return f"{self.scene}: {self.what} at {self.call} {self.number}"


def run(chance: random.Random, deadline: float) -> dict[str, object]:
    """Every case, or a random part of them where *deadline* is too near for all."""
    part = {"part": "syscalls", "ok": True, "faults": []}
    if sys.platform != "linux" or shutil.which("strace") is None:
        return {**part, "skipped": "needs Linux and strace"}
    with tempfile.TemporaryDirectory(prefix="torture-") as folder:
        home = Path(folder)
        scenes: dict[str, Callable[[Path], Path]] = {"work": lambda place: place}
        counts = _count(home, "work", scenes["work"])
        if not counts:
            return {**part, "skipped": "strace may not attach to processes here"}
        kills = [Case("work", call, n, "signal=SIGKILL") for call in CHANGING for n in range(1, counts[call] + 1)]
        left = _crashes(home, kills, chance)
        cases = list(kills)
        cases += _refusals("work", counts)
        owed: dict[str, dict[Key, Row]] = {}
        for name, (template, acknowledged) in left.items():
            owed[name] = acknowledged
            scenes[name] = lambda place, template=template: Path(shutil.copytree(template, place))
            starts = _count(home, name, scenes[name])
            cases += [Case(name, call, n, "signal=SIGKILL") for call in CHANGING for n in range(1, starts[call] + 1)]
            cases += _refusals(name, starts)
        chance.shuffle(cases)
        outcomes: Counter[str] = Counter()
        faults: list[str] = []
        for number, case in enumerate(cases):
            if time.monotonic() > deadline or len(faults) > 20:
                break
            place = home / f"case {number}"
            outcome, acknowledged = _play(case, scenes[case.scene], place)
            outcomes[outcome] += 1
            if outcome in ("hangs", "not injected"):
                faults += [f"{case}: {outcome}"] * (outcome == "hangs")
            else:
                lies = "retval" in case.what
                all_owed = owed.get(case.scene, {}) | acknowledged
                wrong = [one for one in after_all(place, all_owed) if not (lies and "quarantine" in one)]
                faults += [f"{case}: {one}" for one in wrong[:3]]
            shutil.rmtree(place, ignore_errors=True)
    played = sum(outcomes.values())
    return {
        **part, "ok": not faults, "cases": len(cases), "played": played, "calls": sum(counts[c] for c in CHANGING),
        "scenes": len(scenes), **counted(outcomes), "faults": faults[:20],
    }  # fmt: skip


def _refusals(scene: str, counts: Counter[str]) -> list[Case]:
    errors = [(call, f"error={error}") for call, some in REFUSALS.items() for error in some]
    errors += [(call, f"retval={size}") for call, size in SHORT.items()]
    return [Case(scene, call, n, what) for call, what in errors for n in range(1, counts[call] + 1)]


def _crashes(home: Path, kills: list[Case], chance: random.Random) -> dict[str, tuple[Path, dict[Key, Row]]]:
    """Directories as different kills left them, and what they owe: what a start is begun upon."""
    found: dict[str, tuple[Path, dict[Key, Row]]] = {}
    shapes = set()
    for case in chance.sample(kills, min(len(kills), 24)):
        place = home / f"crash {len(found)}"
        _, acknowledged = _play(case, lambda place: place, place)
        shape = tuple(sorted(f"{one.name} {one.stat().st_size}" for one in place.rglob("*") if one.is_file()))
        if shape in shapes or not (place / "journal.sqlite3").exists() or len(found) == 4:
            shutil.rmtree(place, ignore_errors=True)
            continue
        shapes.add(shape)
        found[f"start {len(found)}"] = place, acknowledged
    return found


# --- one child --------------------------------------------------------------------------------------------


def _count(home: Path, scene: str, prepare: Callable[[Path], Path]) -> Counter[str]:
    """How often the scene makes each call when nothing is wrong."""
    place = home / f"count {scene}"
    outcome, trace, _ = _traced(prepare(place), ["-e", f"trace={','.join(CHANGING + READING)}"])
    assert outcome != "hangs"
    return Counter(re.findall(r"^(?:\[pid +\d+\] |\d+ +)?(\w+)\(", trace, re.MULTILINE))


def _play(case: Case, prepare: Callable[[Path], Path], place: Path) -> tuple[str, dict[Key, Row]]:
    options = ["-e", f"trace={case.call}", "-e", f"inject={case.call}:{case.what}:when={case.number}"]
    outcome, trace, said = _traced(prepare(place), options)
    if outcome == "ended" and "(INJECTED)" not in trace:
        outcome = "not injected"
    return outcome, heard(said)


def _traced(place: Path, options: list[str]) -> tuple[str, str, bytes]:
    """Fork a child that works in *place* under strace; how it ended, what strace saw, what it acknowledged."""
    place.mkdir(exist_ok=True)
    go_reading, go_writing = os.pipe()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(go_writing)
        code = 1
        try:
            os.read(go_reading, 1)
            work(place, writing, 0, 8)
            code = 0
        except BaseException as error:  # whatever ends it: the parent looks at what is on disk
            os.write(writing, f"# {type(error).__name__}: {error}".replace("\n", " ").encode()[:500])
        finally:
            os._exit(code)
    os.close(writing)
    os.close(go_reading)
    with tempfile.NamedTemporaryFile("r", prefix="strace-") as trace:
        command = ["strace", "-f", "-p", str(child), "-o", trace.name, *options]
        tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert tracer.stderr is not None
        attached = "attached" in tracer.stderr.readline()
        if attached:
            os.write(go_writing, b"!")
        os.close(go_writing)
        said, outcome = _listened(child, reading)
        tracer.wait()
        tracer.stderr.close()
        return outcome if attached else "not injected", trace.read() if attached else "", said


def _listened(child: int, reading: int) -> tuple[bytes, str]:
    """Everything the child says, and how it ends."""
    end = time.monotonic() + SECONDS
    said = b""
    os.set_blocking(reading, False)
    while True:
        try:
            data = os.read(reading, 65536)
        except BlockingIOError:
            if time.monotonic() > end:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                os.close(reading)
                return said, "hangs"
            time.sleep(0.005)
            continue
        if not data:
            break
        said += data
    os.close(reading)
    _, status = os.waitpid(child, 0)
    said, _, error = said.partition(b"#")
    return said, "killed" if os.WIFSIGNALED(status) else "gave up" if error else "ended"
