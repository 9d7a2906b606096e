"""Single bits flipped in day files, in the journal and in its log: each is found by the audit or a start, or harmless.

Harmless means that after a start every minute is what it was. A candle that is gone and known to be (a gap) was
found; one that is stored and not true, or gone and called something else, was not: that is what this looks for.
"""

from __future__ import annotations

import logging
import os
import random
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

from torture.atwork import FIRST, LATE, SERIES, batches, truth
from torture.evidence import Survey, counted, held_against, survey
from trio_candles.audit import audit
from trio_candles.candles.model import MINUTE, Empty, Millis, Reason, Unsure
from trio_candles.store.store import open_store
from trio_candles.venues.registry import VENUES

MINUTES = 300
EMPTY, GAP = range(100, 110), range(200, 230)
NOW = Millis(FIRST + MINUTES * MINUTE)


def run(flips: int, chance: random.Random, deadline: float) -> dict[str, object]:
    """*flips*, or as many as fit before *deadline*; in day files and in three states of a journal."""
    if sys.platform == "win32":
        return {"part": "bitrot", "ok": True, "faults": [], "skipped": "needs fork and SIGKILL"}
    logging.disable(logging.CRITICAL)
    outcomes: Counter[str] = Counter()
    faults: list[str] = []
    with tempfile.TemporaryDirectory(prefix="torture-") as folder:
        home = Path(folder)
        rest, killed = home / "rest", home / "killed"
        _life(rest, flush=True)
        _killed(killed)
        shutil.copytree(killed, waiting := home / "waiting")
        with closing(sqlite3.connect(waiting / "journal.sqlite3")) as journal:
            journal.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # as SQLite does by itself once the log is long
        roots = rest, killed, waiting
        whole = {root: survey(shutil.copytree(root, home / f"{root.name} as it was")) for root in roots}
        places = [(rest, "*/*/1m/*.parquet"), (rest, "journal.sqlite3"), (waiting, "journal.sqlite3")]
        places.append((killed, "journal.sqlite3*"))
        for number in range(flips):
            if time.monotonic() > deadline:
                break
            template, pattern = places[number % len(places)]
            shutil.copytree(template, root := home / "now")
            where = _flip(chance, chance.choice(sorted(root.glob(pattern))), root)
            try:
                outcome, wrong = _judge(root, whole[template])
            # Whatever a flipped bit makes a start or an audit raise is a finding, by its words.
            except Exception as error:
                outcome, wrong = "not survived", [f"{type(error).__name__}: {error}"]
            outcomes[outcome] += 1
            faults += [f"{template.name}: {where}: {outcome}: {one}" for one in wrong[:2]]
            shutil.rmtree(root)
    return {
        "part": "bitrot", "ok": not faults, "flips": sum(outcomes.values()), **counted(outcomes),
        "faults": faults[:40],
    }  # fmt: skip


def _flip(chance: random.Random, path: Path, root: Path) -> str:
    content = bytearray(path.read_bytes())
    bit = chance.randrange(len(content) * 8)
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)
    return f"{path.relative_to(root)} byte {bit // 8} of {len(content)}, bit {bit % 8}"


def _judge(root: Path, before: Survey) -> tuple[str, list[str]]:
    """What became of a flip, and what of it nobody noticed."""
    report = audit(root, now=lambda: LATE, running=lambda: False, pauses=())
    told: list[str] = []
    handler = _Ear(told)
    logging.disable(logging.NOTSET)
    logging.getLogger("trio_candles").addHandler(handler)
    logging.getLogger("trio_candles").propagate = False
    try:
        with open_store(root) as store:
            store.expect(SERIES, FIRST, NOW)
            for venue in VENUES.values():
                store.ask(store.journal.gaps.due, venue.history, NOW)
            store.flush(store.waiting())
    finally:
        logging.getLogger("trio_candles").removeHandler(handler)
        logging.disable(logging.CRITICAL)
    after = survey(root)
    wrong = held_against(after, truth_beside_empties)
    for key in before.candles.keys() | before.empties.keys() | before.gaps.keys():
        if key not in after.gaps and (after.candles.get(key), key in after.empties) != (
            before.candles.get(key),
            key in before.empties,
        ):
            wrong.append(f"{key} was {before.candles.get(key, 'no candle')} and is {after.candles.get(key, 'none')}")
    if report.violations:
        # A start may have gone on with what the audit had called wrong; whoever asks it is told.
        return "found by the audit", []
    if told:
        return "found by a start", wrong
    changed = wrong or (after.candles, after.gaps, after.empties) != (before.candles, before.gaps, before.empties)
    if wrong:
        return "not found", wrong
    return ("known as gaps" if changed else "harmless"), []


def truth_beside_empties(key):
    """The market's, which was silent in some minutes."""
    return None if (key[2] - FIRST) // MINUTE in EMPTY else truth(key)


class _Ear(logging.Handler):
    """Hears what a start calls an error."""

    def __init__(self, told: list[str]) -> None:
        super().__init__(logging.ERROR)
        self._told = told

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        self._told.append(record.getMessage())


# --- the directories --------------------------------------------------------------------------------------


def _life(root: Path, *, flush: bool) -> None:
    with open_store(root) as store:
        store.expect(SERIES, FIRST, FIRST)
        for batch in batches(0, MINUTES, 10):
            minutes = {(one.open_time - FIRST) // MINUTE for one in batch}
            store.commit(_verdicts(batch, minutes), LATE)
            if flush:
                store.flush(store.waiting())
        if not flush:
            os.kill(os.getpid(), signal.SIGKILL)


def _verdicts(batch, minutes):
    """*batch*, or what there is instead of it."""
    since, until = Millis(FIRST + min(minutes) * MINUTE), Millis(FIRST + (max(minutes) + 1) * MINUTE)
    if minutes <= set(EMPTY):
        return [Empty(one, since, until, "no trade between the ids 7 and 8") for one in SERIES]
    if minutes <= set(GAP):
        return [Unsure(one, since, until, Reason.DISCONNECTED, "") for one in SERIES]
    return batch


def _killed(root: Path) -> None:
    """A life in which nothing reached a day file, ended by SIGKILL: everything is in the journal and its log."""
    child = os.fork()
    if child == 0:
        try:
            _life(root, flush=False)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
