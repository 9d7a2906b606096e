"""Seeds are clean, the same seed is the same everywhere, and planted bugs are found.

The tiers: here a fixed few seeds; with ``--slow`` all that have ever failed; thousands with ``tools/simulate.py``.
"""

from __future__ import annotations

import inspect
import os
import random
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
import trio
import trio._core._run as trio_run
from disks import File, PowerCut

from simulation import bugs
from simulation.bugs import BUGS
from simulation.campaign import main, saved_seeds
from simulation.determinism import determined
from simulation.life import run_seed
from simulation.plan import HOLES, PAST, SEALING, SHAPES, THIN, WRONG, plan_of
from simulation.record import Record, question_about
from simulation.torn import torn
from simulation.troubles import KINDS, calm_venue
from simulation.ways import Site
from trio_candles.simulator import Market, RestFault, SimulatedExchange
from trio_candles.venues.coinbase.history import CoinbaseHistory

TESTS = Path(__file__).parents[1]
SLOW = pytest.mark.slow
SEEDS = range(2, 6)
FOUND_SOON = [
    ("asked_is_filled", 0), ("forgets_the_log", 46), ("acknowledges_early", 0),
    pytest.param("believes_any_market", 21, marks=SLOW), pytest.param("forgets_listings", 0, marks=SLOW),
    pytest.param("believes_zero_rows", 20, marks=SLOW), pytest.param("as_long_as_told", 40, marks=SLOW),
    pytest.param("one_pool_of_threads", 16, marks=SLOW), pytest.param("seals_gaps", 45, marks=SLOW),
    pytest.param("seals_early", 0, marks=SLOW), pytest.param("upgrade_skips_a_day", 56, marks=SLOW),
]  # fmt: skip
"""Planted bugs, and the seed from which on they are found soon; ``tools/simulate.py --bug all`` plants every one."""


# --- seeds


@pytest.mark.parametrize(
    "seed", [*SEEDS, *(pytest.param(seed, marks=SLOW) for seed in sorted({*saved_seeds()} - {*SEEDS}))]
)
def test_whatever_happens_what_is_stored_is_true_and_the_rest_is_known(seed):
    outcome = run_seed(seed)
    assert outcome.broken is None, f"{outcome.text}\nagain, in full: python tools/simulate.py --seed {seed}"
    assert outcome.minutes


# --- one seed, one course of events

TELL = """
import sys
sys.path[:0] = sys.argv[1:3]
from simulation.life import run_seed
print([run_seed(seed).digest for seed in map(int, sys.argv[3:])])
"""


@pytest.mark.parametrize(
    ("seeds", "processes"), [([4], ["1"]), pytest.param([2, 4], ["1", "12345"], marks=SLOW)], ids=["one", "two"]
)
def test_a_seed_is_the_same_course_of_events_in_every_process(seeds, processes):
    """Seeds with crashes, once here and once in each of *processes*, which order their sets otherwise."""
    told = {str([run_seed(seed).digest for seed in seeds])}
    for hashes in processes:
        command = [sys.executable, "-c", TELL, str(TESTS), str(TESTS.parent), *map(str, seeds)]
        environment = os.environ | {"PYTHONHASHSEED": hashes}
        run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=True)
        told.add(run.stdout.strip())
    assert len(told) == 1


def order_of(seed: int) -> list[int]:
    """In which order trio runs ten tasks that are ready together."""
    order: list[int] = []

    async def note(number: int) -> None:
        order.append(number)

    async def start() -> None:
        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(note, number)

    with determined(seed):
        trio.run(start)
    return order


def test_the_seed_decides_in_which_order_trio_runs_its_tasks():
    """If this fails trio has changed: simulation/determinism.py must find another way, or no seed can be repeated."""
    assert isinstance(trio_run._r, random.Random)
    assert trio_run._ALLOW_DETERMINISTIC_SCHEDULING in (True, False)
    orders = [order_of(seed) for seed in range(5)]
    assert orders == [order_of(seed) for seed in range(5)]
    assert len({tuple(order) for order in orders}) == 5


def test_nothing_of_it_is_left_behind():
    before = trio_run._ALLOW_DETERMINISTIC_SCHEDULING, trio_run._r.getstate(), random.getstate()
    order_of(1)
    assert before == (trio_run._ALLOW_DETERMINISTIC_SCHEDULING, trio_run._r.getstate(), random.getstate())


def test_plans_differ_and_each_is_the_seeds_own():
    plans = [plan_of(seed, KINDS) for seed in range(50)]
    assert plans == [plan_of(seed, KINDS) for seed in range(50)]
    assert len({str(plan) for plan in plans}) == 50
    for kind, _ in KINDS:
        assert len({plan.rates[kind] for plan in plans if plan.shape not in PAST}) == 4


# --- the net


def test_a_planted_bug_is_all_that_is_wrong_with_what_it_is_planted_into():
    """One that misses a parameter of late would be found for that, and not for what it plants."""
    planted = [one for one in vars(bugs).values() if inspect.isclass(one) and one.__module__ == bugs.__name__]
    planted = [one for one in planted if "fill" in vars(one)]
    assert len(planted) == 3
    for one in planted:
        inspect.signature(one.fill).bind(*inspect.signature(CoinbaseHistory.fill).parameters)


@pytest.mark.parametrize(("name", "first"), FOUND_SOON)
def test_a_planted_bug_is_found(name, first):
    assert any(run_seed(seed, BUGS[name]).broken for seed in range(first, first + 12))


def test_a_failed_seed_tells_everything_that_is_needed_to_see_it_again(capsys):
    assert main(["--seed", "4", "--bug", "stores_forming"]) == 1
    said = capsys.readouterr().out
    assert "seed 4 of commit" in said
    assert "is broken: " in said
    assert "troubles per minute: " in said
    assert said.rstrip().endswith("again, in full: python tools/simulate.py --seed 4 --bug stores_forming")


def test_a_campaign_counts_what_happened(tmp_path, capsys):
    assert main(["--seeds", "1", "--start", "4", "--jobs", "1", "--json", str(tmp_path / "counts.json")]) == 0
    said = capsys.readouterr().out
    assert said.startswith("1 seeds in ")
    assert said.endswith("failed: none\n")
    assert '"seeds": 1' in (tmp_path / "counts.json").read_text(encoding="utf-8")


# --- what a cut leaves


def files_of(path: Path) -> tuple[bytes, bytes]:
    log = path.with_name(f"{path.name}-wal")
    return path.read_bytes(), log.read_bytes() if log.exists() else b""


def content_of(files: tuple[bytes, bytes], folder: Path) -> list[tuple[int]]:
    for name, content in zip(("cut", "cut-wal"), files, strict=True):
        (folder / name).write_bytes(content)
    (folder / "cut-shm").unlink(missing_ok=True)
    with closing(sqlite3.connect(folder / "cut")) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return database.execute("SELECT * FROM one ORDER BY x").fetchall()


@pytest.mark.parametrize("then", ["", "PRAGMA wal_checkpoint(PASSIVE)", "restart"])
def test_a_cut_while_sqlite_commits_leaves_all_of_the_transaction_or_nothing(tmp_path, then):
    """Also while the log is copied into the database, and where the log begins anew."""
    chance = random.Random(1)
    with closing(sqlite3.connect(tmp_path / "one", isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.execute("CREATE TABLE one (x INTEGER, y BLOB)")
        database.executemany("INSERT INTO one VALUES (?, zeroblob(3000))", [(x,) for x in range(20)])
        if then == "restart":
            database.execute("PRAGMA wal_checkpoint(RESTART)")
        before = files_of(tmp_path / "one")
        database.execute("BEGIN")
        database.executemany("INSERT INTO one VALUES (?, zeroblob(3000))", [(x,) for x in range(20, 30)])
        database.execute("COMMIT")
        if then.startswith("PRAGMA"):
            database.execute(then)
        now = files_of(tmp_path / "one")
    found = set()
    for _ in range(100):
        rows = content_of(torn(before, now, chance), tmp_path)
        found.add(len(rows))
    assert found <= {20, 30}
    assert found == ({30} if then.startswith("PRAGMA") else {20, 30})


def test_a_drawn_cut_is_one_of_those_that_are_possible(tmp_path):
    disk = PowerCut.holding(tmp_path, {"": None, "a": None, "a/old": b"old"})
    disk.changes["a/new"] = [File(b"12"), None]
    disk.changes["a/old"] = [File(b"newer", synced=True)]
    possible = [dict(state) for state in disk.after_a_cut()]
    drawn = [disk.a_cut(random.Random(number)) for number in range(200)]
    for state in possible:
        assert state in drawn
    assert all(set(state) in [set(other) for other in possible] for state in drawn)


# --- what a seed may hold


def test_what_is_planned_for_good_is_drawn_often_enough_to_be_met():
    """One seed in fifty at least, of each sort of wrong clock too."""
    plans = [plan_of(seed, KINDS) for seed in range(400)]
    met = Counter(kind for plan in plans for kind in (*plan.holes, plan.shape, plan.wrong_sort))
    met.update(kind for plan in plans for kind in SEALING if plan.rates[kind])
    met.update(absent=sum(plan.absent is not None for plan in plans), upgraded=sum(plan.upgraded for plan in plans))
    met.update(longer=sum(plan.first_lookback is not None for plan in plans))
    met.update(stuck=sum(bool(plan.stuck) for plan in plans))
    met.update(thin=sum(THIN[venue] in some for plan in plans for venue, some in plan.symbols.items()))
    wanted = (*HOLES, *SHAPES, *PAST, *SEALING, *WRONG, "absent", "upgraded", "longer", "stuck", "thin")
    assert {kind: met[kind] for kind in wanted if met[kind] < 8} == {}


def test_when_troubles_end_a_venue_is_well_but_for_its_record():
    plan = next(
        plan for plan in (plan_of(seed, KINDS) for seed in range(99)) if "odd_rows" in plan.holes and plan.stuck
    )
    (venue,) = plan.stuck
    record, exchange = Record(plan), SimulatedExchange(venue, Market(1), lambda: 0)
    record.spoil(venue, exchange.faults)
    kept = {name: getattr(exchange.faults, name) for name in ("omit_empty_rows", "extra_columns")}
    exchange.faults.mute = exchange.faults.omit_empty_rows = exchange.faults.unresolved = True
    exchange.faults.rest.append(RestFault("html"))
    calm_venue(Site(None, exchange, plan.symbols[venue], random.Random(1)), record)
    assert not exchange.faults.mute
    assert not exchange.faults.unresolved
    assert kept == {name: getattr(exchange.faults, name) for name in kept}
    assert exchange.faults.odd_row is not None
    assert [question_about(venue, symbol) for symbol in plan.stuck[venue]] == [one.path for one in exchange.faults.rest]
