"""``run.py --simulate`` killed at random moments under load, and started again each time."""

from __future__ import annotations

import random
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from torture.evidence import RUN, Row, audited, copied, held_against, market_truth, survey

SEED = 11
CONFIG = """\
log_dir: logs
venues:
  coinbase: {symbols: [BTC-USD, ETH-USD, SOL-USD]}
  kraken: {symbols: [BTC/USD, ETH/USD, SOL/USD]}
  okx: {symbols: [BTC-USDT, ETH-USDT, SOL-USDT]}
gap_detection: {lookback_days: 0.2}
storage: {flush_interval_seconds: 15}   # a quarter of a second at speed 60: a flush is nearly always under way
"""
AUDIT_EVERY = 5
"""Kills between two clean stops, after which nothing at all may be left over."""


def run(kills: int, chance: random.Random, deadline: float) -> dict[str, object]:
    """*kills* times, or as many as fit before *deadline*."""
    truth = market_truth(SEED)
    faults: list[str] = []
    survived, durable, unfinished = 0, 0, 0
    with tempfile.TemporaryDirectory(prefix="torture-") as folder:
        home, data = Path(folder), Path(folder, "data")
        (home / "config.yaml").write_text(CONFIG)
        options = ["--speed", "60", "--seed", str(SEED)]
        while survived < kills and time.monotonic() < deadline and not faults:
            before, ended = _live_and_die(home, data, options, chance)
            options = []  # the directory remembers
            if ended != -signal.SIGKILL:
                faults.append(f"it ended by itself: {ended}")
                break
            survived += 1
            unfinished += any((data / ".tmp").glob("*")) if data.exists() else 0
            with copied(data) as copy:
                found = survey(copy)
                faults += held_against(found, truth, before)
                # A temporary file is what a killed flush leaves; the next start removes it.
                faults += audited(copy, home=home, allow=lambda one: one["path"].startswith(".tmp/"))
            durable = len(found.candles)
            if survived % AUDIT_EVERY == 0 or survived == kills:
                faults += _stop_cleanly(home, data, found.candles, truth)
    return {
        "part": "kills", "ok": not faults, "kills": survived, "candles": durable,
        "in_the_middle_of_a_flush": unfinished, "faults": faults[:20],
    }  # fmt: skip


def _live_and_die(
    home: Path, data: Path, options: list[str], chance: random.Random
) -> tuple[dict[tuple[str, str, int], Row], str | int]:
    """Run for a random while and be killed; what was durable just before, and how it ended."""
    command = [*RUN, "--simulate", "--data-dir", str(data), *options]
    with (home / "console").open("w") as console:
        process = subprocess.Popen(command, cwd=home, stdout=console, stderr=console)
    try:
        # Half of them early, in a start or its recovery; a fresh directory first has to remember what it is.
        fresh = not (data / "journal.sqlite3").exists()
        longest = 8.0 if fresh or chance.random() < 0.5 else 2.0
        moment = time.monotonic() + chance.uniform(4.0 if fresh else 0.4, longest)
        before: dict[tuple[str, str, int], Row] = {}
        while time.monotonic() < moment - 0.3 and process.poll() is None:
            time.sleep(0.05)
        if (data / "journal.sqlite3").exists():
            before = survey(data).candles  # reads as the kill comes near, and sometimes after its moment
        time.sleep(max(0.0, moment - time.monotonic()))
        code = process.poll()
        if code is not None:
            return before, f"exit code {code}: {(home / 'console').read_text()[-800:]}"
    finally:
        process.kill()
        process.wait()
    return before, process.returncode


def _stop_cleanly(home: Path, data: Path, before: dict[tuple[str, str, int], Row], truth) -> list[str]:
    """Start once more and stop as one should: no fault, no leftover, nothing gone."""
    command = [*RUN, "--simulate", "--data-dir", str(data), "--duration", "3m"]
    done = subprocess.run(command, cwd=home, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        return [f"a clean stop ended with {done.returncode}: {done.stderr[-800:]}"]
    faults = audited(data, home=home)
    faults += [f"left over: {path}" for path in (data / ".tmp").glob("*")]
    faults += [f"in quarantine: {path}" for path in (data / "quarantine").glob("*")]
    with copied(data) as copy:
        found = survey(copy)
        faults += held_against(found, truth, before)
    return faults
