"""Many seeds, counted; or one, told in full: ``python tools/simulate.py --help``."""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from types import FrameType

import attrs

from simulation.bugs import BUGS, NONE
from simulation.life import Outcome, run_seed
from simulation.plan import SEALING
from simulation.troubles import KINDS

__all__ = ["SAVED", "Campaign", "main", "saved_seeds", "told"]

SAVED = Path(__file__).with_name("seeds.txt")
REPOSITORY = Path(__file__).parents[2]
WALL_SECONDS = 180
"""For one seed, which takes two: what takes longer hangs."""
OFTEN_ENOUGH = 100
EXTRA = (
    "outage", "told to wait", "wrong seconds", "wrong hours", "wrong years", "stuck", "cached", "asked_anew",
    "odd_row", "zero_row", "omit_empty_rows", "extra_columns", "lose_row", "lose_trade", "revise_row", "listing",
    "unfillable", "revision kept", "revision replaced",
    *SEALING, "days sealed", "days opened", "days sealed at the end", "upgraded", "put back",
    "sampled_agreed", "sampled_differed",
    "audited", "cut in recovery", "noticed silence", "noticed staleness", "refused start", "went on",
    "followers anew", "follower died", "changes told",
)  # fmt: skip
"""Counted besides the kinds of trouble: how a seed may end, what records lack, what came of it."""


def saved_seeds() -> list[int]:
    """The seeds that have failed once, and are run for ever."""
    lines = SAVED.read_text(encoding="utf-8").splitlines()
    return [int(line.split()[0]) for line in lines if line.strip() and not line.startswith("#")]


def commit() -> str:
    """Which commit this is, as far as git knows."""
    command = ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def told(outcome: Outcome, bug: str | None = None) -> str:
    """A failed seed: everything that is needed to see it again."""
    planted = f" --bug {bug}" if bug else ""
    return "\n".join(
        [
            f"seed {outcome.seed} of commit {commit()} is broken: {outcome.text.rstrip()}",
            f"  plan: {outcome.plan}",
            "  the newest of what happened:",
            *(f"    {line}" for line in outcome.newest[-15:]),
            f"  again, in full: python tools/simulate.py --seed {outcome.seed}{planted}",
        ]
    )


@attrs.define
class Campaign:
    """What has come of the seeds so far."""

    seeds: int = 0
    seconds: float = 0.0
    minutes: int = 0
    candles: int = 0
    lives: int = 0
    fired: Counter[str] = attrs.field(factory=Counter)
    failures: list[Outcome] = attrs.field(factory=list)

    def add(self, outcome: Outcome) -> None:
        """Count *outcome* in."""
        self.seeds += 1
        self.minutes += outcome.minutes
        self.candles += outcome.candles
        self.lives += outcome.lives
        self.fired.update(outcome.fired)
        if outcome.broken is not None:
            self.failures.append(outcome)

    def as_json(self) -> dict[str, object]:
        """All of it."""
        return {
            "commit": commit(),
            "seeds": self.seeds,
            "wall_seconds": round(self.seconds, 1),
            "minutes_checked": self.minutes,
            "candles_checked": self.candles,
            "lives": self.lives,
            "fired": {kind: self.fired[kind] for kind in (*dict(KINDS), *EXTRA)},
            "failures": [{"seed": one.seed, "broken": one.broken, "text": one.text} for one in self.failures],
        }

    def as_text(self) -> str:
        """The same for people."""
        kinds = [*dict(KINDS), *EXTRA]
        columns = [f"{kind:<22}{self.fired[kind]:>7}" for kind in kinds]
        height = math.ceil(len(columns) / 2)
        table = [
            f"  {left}   {right}"
            for left, right in zip(columns[:height], [*columns[height:], ""][:height], strict=True)
        ]
        rare = [f"{kind} ({self.fired[kind]})" for kind, _ in KINDS if self.fired[kind] < OFTEN_ENOUGH]
        return "\n".join(
            [
                f"{self.seeds} seeds in {self.seconds:.0f} s; {self.minutes} minutes checked, {self.candles} candles;",
                f"{self.lives} lives: power lost {self.fired['power']} times, killed {self.fired['kill']},"
                f" stopped {self.fired['restart'] + self.seeds}",
                "",
                *table,
                "",
                f"fired fewer than {OFTEN_ENOUGH} times: {', '.join(rare) or 'none'}",
                f"failed: {', '.join(str(one.seed) for one in self.failures) or 'none'}",
            ]
        )


@contextmanager
def _wall_limit() -> Iterator[None]:
    """A seed that hangs is a seed that fails (where there is such a signal)."""
    if sys.platform == "win32":
        yield
        return

    def give_up(_: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"still not done after {WALL_SECONDS} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(WALL_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _work(seed: int, bug: str | None) -> Outcome:
    with _wall_limit():
        return run_seed(seed, BUGS[bug] if bug else NONE)


def _ignore_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def outcomes(seeds: Iterable[int], jobs: int, bug: str | None, until: float) -> Iterator[Outcome]:
    """What becomes of *seeds*, *jobs* at once, none begun after *until*."""
    left = iter(seeds)
    if jobs == 1:
        for seed in left:
            if time.monotonic() >= until:
                return
            yield _work(seed, bug)
        return
    # A process keeps the markets that it has computed, and a little of each seed.
    with ProcessPoolExecutor(jobs, get_context("spawn"), _ignore_interrupts, max_tasks_per_child=300) as pool:
        running: set[Future[Outcome]] = set()
        while True:
            if time.monotonic() < until:
                running |= {pool.submit(_work, seed, bug) for seed in islice(left, 2 * jobs - len(running))}
            if not running:
                return
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()


def _seconds(text: str) -> float:
    units = {"s": 1, "m": 60, "h": 3600}
    return float(text[:-1]) * units[text[-1]] if text[-1:] in units else float(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="simulate.py",
        description="Deterministic simulation of the whole service against seeded trouble.",
        epilog="Exit code: 0 all seeds clean, 1 a seed failed (with --bug: 0 found, 1 not found), 2 usage.",
    )
    parser.add_argument("--seeds", type=int, default=100, metavar="N", help="how many (default: 100)")
    parser.add_argument("--start", type=int, default=0, metavar="N", help="the first of them (default: 0)")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="at once (default: one a core)"
    )
    parser.add_argument(
        "--time-limit", type=_seconds, default=math.inf, metavar="D", help="begin none after 90s, 60m, 2h"
    )
    parser.add_argument("--saved", action="store_true", help="the seeds that have failed once, instead")
    parser.add_argument("--seed", type=int, metavar="N", help="this one alone, with everything that happens")
    parser.add_argument(
        "--bug", choices=[*BUGS, "all"], metavar="NAME", help=f"plant one of: {', '.join(BUGS)}; or all"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the counts there, too")
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run seeds as *arguments* say; the exit code."""
    options = _parser().parse_args(arguments)
    if options.seed is not None:
        return _one(options.seed, options.bug)
    if options.bug:
        return _plant(options)
    seeds = saved_seeds() if options.saved else range(options.start, options.start + options.seeds)
    campaign, began = Campaign(), time.monotonic()
    try:
        for outcome in outcomes(seeds, options.jobs, None, began + options.time_limit):
            campaign.add(outcome)
            campaign.seconds = time.monotonic() - began
            if outcome.broken is not None:
                print(told(outcome), end="\n\n", flush=True)
            _progress(campaign, len(seeds))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
    print(campaign.as_text())
    if options.json is not None:
        options.json.write_text(json.dumps(campaign.as_json(), indent=1) + "\n", encoding="utf-8")
    return 1 if campaign.failures else 0


def _progress(campaign: Campaign, of: int) -> None:
    text = f"{campaign.seeds} of {of} seeds, {len(campaign.failures)} failed"
    if sys.stderr.isatty():
        print(f"\r{text}", end="\n" if campaign.seeds == of else "", file=sys.stderr, flush=True)
    elif campaign.seeds % 100 == 0:
        print(f"{text}, {campaign.seconds:.0f} s", file=sys.stderr, flush=True)


def _one(seed: int, bug: str | None) -> int:
    outcome = run_seed(seed, BUGS[bug] if bug else NONE, tell=print)
    if outcome.broken is None:
        print(f"seed {seed} is clean; {outcome.minutes} minutes, {outcome.lives} lives, trace {outcome.digest}")
        return 0
    print(told(outcome, bug))
    return 1


def _plant(options: argparse.Namespace) -> int:
    """For each bug, run seeds until one finds it."""
    bugs = list(BUGS) if options.bug == "all" else [options.bug]
    missed = 0
    for bug in bugs:
        seeds = range(options.start, options.start + options.seeds)
        tried, found = 0, None
        for outcome in outcomes(seeds, options.jobs, bug, math.inf):
            tried += 1
            if outcome.broken is not None:
                found = outcome
                break
        missed += found is None
        what = f"seed {found.seed}: {found.text.splitlines()[0][:100]}" if found else "NOT FOUND"
        print(f"{bug:<26} {tried:>4} seeds  {what}", flush=True)
    return 1 if missed else 0
