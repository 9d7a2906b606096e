"""Exchanges that freeze (SIGSTOP), go on without a word, or do not answer a SYN: no socket error, only silence.

The collector must notice within each venue's limit, reconnect once they are back, and store nothing that is not true.
"""

from __future__ import annotations

import json
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import attrs

from torture.evidence import ROOT, RUN, audited, held_against, market_truth, survey
from trio_candles.venues.registry import VENUES

SEED, SPEED = 11, 10.0
SYMBOLS = {"coinbase": ["BTC-USD", "ETH-USD"], "kraken": ["BTC/USD", "ETH/USD"], "okx": ["BTC-USDT", "ETH-USDT"]}
SLACK = 1.5
"""Wall seconds beyond a venue's limit: the watchdog's tick, the log, and a machine with other work."""
PATIENCE = 30.0
"""Wall seconds to be well again: back-off, handshake, subscriptions, a candle each."""


@attrs.define
class Scene:
    """A collector and the exchanges that it listens to, each a process."""

    home: Path
    exchange: subprocess.Popen[str]
    collector: subprocess.Popen[str]

    def tables(self) -> str:
        """Its console so far."""
        return (self.home / "console").read_text(errors="replace")

    def wait(self, seen: Callable[[], bool], seconds: float) -> float | None:
        """Wall seconds until *seen*; ``None`` if it is not in time."""
        began = time.monotonic()
        while time.monotonic() < began + seconds:
            if seen():
                return time.monotonic() - began
            time.sleep(0.05)
        return None


def run(chance: random.Random, deadline: float) -> dict[str, object]:
    """Freeze, thaw, silence, speak again; then everything stored must be true."""
    if sys.platform == "win32":
        return {"part": "deaf", "ok": True, "faults": [], "skipped": "needs SIGSTOP"}
    faults: list[str] = []
    noticed: dict[str, dict[str, float | None]] = {}
    with tempfile.TemporaryDirectory(prefix="torture-") as folder:
        scene = _open(Path(folder))
        try:
            if scene.wait(lambda: "HEALTHY" in scene.tables(), PATIENCE) is None:
                faults.append(f"it was never well: {scene.tables()[-800:]}")
            for name, begin, end in (
                ("frozen", lambda: scene.exchange.send_signal(signal.SIGSTOP),
                 lambda: scene.exchange.send_signal(signal.SIGCONT)),
                ("silent", lambda: _say(scene, mute=True), lambda: _say(scene, mute=False)),
            ):  # fmt: skip
                if faults or time.monotonic() > deadline:
                    break
                time.sleep(chance.uniform(0.5, 4.0))
                noticed[name], wrong = _ordeal(scene, begin, end)
                faults += [f"{name}: {one}" for one in wrong]
        finally:
            scene.exchange.send_signal(signal.SIGCONT)
            scene.collector.send_signal(signal.SIGINT)
            try:
                code = scene.collector.wait(timeout=20)
            except subprocess.TimeoutExpired:
                scene.collector.kill()
                code = scene.collector.wait()
            scene.exchange.kill()
            scene.exchange.wait()
        if code:
            faults.append(f"the collector ended with {code}: {scene.tables()[-800:]}")
        else:
            found = survey(scene.home / "data")
            faults += held_against(found, market_truth(SEED))
            faults += audited(scene.home / "data", home=scene.home)
    attempts, wrong = _into_the_dark()
    faults += [f"black hole: {one}" for one in wrong]
    return {
        "part": "deaf", "ok": not faults, "noticed_after_wall_seconds": noticed,
        "attempts_into_a_black_hole": attempts, "faults": faults[:20],
    }  # fmt: skip


def _into_the_dark() -> tuple[dict[str, int], list[str]]:
    """Every SYN is swallowed: attempts give up by themselves and go on, and a stop does not wait for one."""
    faults: list[str] = []
    attempts = dict.fromkeys(SYMBOLS, 0)
    with tempfile.TemporaryDirectory(prefix="torture-") as folder, _black_hole() as port:
        home = Path(folder)
        at = {"websocket_url": f"ws://127.0.0.1:{port}/", "rest_url": f"http://127.0.0.1:{port}"}
        venues = {name: {"symbols": symbols, **at} for name, symbols in SYMBOLS.items()}
        config = {"venues": venues, "gap_detection": {"lookback_days": 0.01}, "status": {"interval_seconds": 2}}
        (home / "config.yaml").write_text(json.dumps(config))
        with (home / "console").open("w") as console:
            collector = subprocess.Popen(
                [*RUN, "--speed", str(SPEED)], cwd=home, stdout=console, stderr=console, text=True
            )
        began = time.monotonic()
        while time.monotonic() < began + PATIENCE and min(attempts.values()) < 3:
            time.sleep(0.1)
            for name in SYMBOLS:
                rows = re.findall(rf"{name.upper()} +\[DISC\] +0 +0 +([0-9]+)", (home / "console").read_text())
                attempts[name] = int(rows[-1]) if rows else 0
        faults += [f"{name}: {count} attempts in {PATIENCE:.0f} s" for name, count in attempts.items() if count < 3]
        asked = time.monotonic()
        collector.send_signal(signal.SIGINT)
        try:
            code = collector.wait(timeout=20)
        except subprocess.TimeoutExpired:
            collector.kill()
            code = collector.wait()
        if code or time.monotonic() - asked > 10:
            faults.append(f"the stop took {time.monotonic() - asked:.1f} s and ended with {code}")
        faults += audited(home / "data", home=home)
    return attempts, faults


@contextmanager
def _black_hole() -> Iterator[int]:
    """A port of this machine that answers no SYN: its queue of connections is full, and nobody takes one from it."""
    with ExitStack() as stack:
        hole = stack.enter_context(socket.socket())
        hole.bind(("127.0.0.1", 0))
        hole.listen(0)
        while True:
            filler = stack.enter_context(socket.socket())
            filler.settimeout(0.5)
            try:
                filler.connect(hole.getsockname())
            except TimeoutError:
                break
        yield hole.getsockname()[1]


def _open(home: Path) -> Scene:
    pivot = time.time()
    command = [sys.executable, "-m", "torture.exchange", str(SEED), str(SPEED), str(pivot)]
    exchange = subprocess.Popen(
        command, cwd=ROOT / "tests", stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    assert exchange.stdout is not None
    where = json.loads(exchange.stdout.readline())
    venues = {name: {"symbols": symbols, **where[name]} for name, symbols in SYMBOLS.items()}
    config = {"venues": venues, "gap_detection": {"lookback_days": 0}, "status": {"interval_seconds": 2}}
    (home / "config.yaml").write_text(json.dumps(config))  # YAML, too
    collect = [*RUN, "--speed", str(SPEED), "--pivot", str(pivot)]
    with (home / "console").open("w") as console:
        collector = subprocess.Popen(collect, cwd=home, stdout=console, stderr=console, text=True)
    return Scene(home, exchange, collector)


def _say(scene: Scene, **knobs: object) -> None:
    assert scene.exchange.stdin is not None
    scene.exchange.stdin.write(json.dumps(knobs) + "\n")
    scene.exchange.stdin.flush()


def _ordeal(
    scene: Scene, begin: Callable[[], None], end: Callable[[], None]
) -> tuple[dict[str, float | None], list[str]]:
    """Until every venue's silence was noticed, and until all is well again; seconds, and what is wrong."""
    faults: list[str] = []
    before = len(scene.tables())
    began = time.monotonic()
    begin()
    seconds: dict[str, float | None] = {}
    longest = max(_limit(name) for name in SYMBOLS)
    while time.monotonic() < began + longest + SLACK and len(seconds) < len(SYMBOLS):
        lines = scene.tables()[before:].splitlines()
        for name in SYMBOLS:
            if name not in seconds and any(name.upper() in line and "[DISC]" in line for line in lines):
                seconds[name] = round(time.monotonic() - began, 2)
        time.sleep(0.05)
    for name in SYMBOLS:
        took = seconds.setdefault(name, None)
        if took is None or took > _limit(name) + SLACK:
            faults.append(f"{name} noticed after {took} s; its limit is {_limit(name):.1f} s")
    time.sleep(2.0)  # frozen, it must not take a handshake that nobody answers for a connection
    shown = len(scene.tables())
    end()
    if scene.wait(lambda: "HEALTHY" in scene.tables()[shown:], PATIENCE + 10) is None:
        faults.append(f"never well again: {scene.tables()[-700:]}")
    return seconds, faults


def _limit(venue: str) -> float:
    """Wall seconds of silence after which a connection is given up; never less than one."""
    return max(VENUES[venue].feed.limits.silence / SPEED, 1.0)
