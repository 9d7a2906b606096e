"""The days of a machine, looked at as they are sealed and opened; and cuts that wait for that."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulation.sealed import days_of, judge_days, judge_kept, judge_sealing
from simulation.stored import open_ledger

if TYPE_CHECKING:
    from simulation.machine import Machine
    from simulation.torn import Files

__all__ = ["interrupt", "judge_the_start", "look_at_days"]

WAITS_FOR = {"seal": "sealing", "finish": "finishing", "scrub": "scrubbing", "set_strays_aside": "scrubbing"}
CHANGE = ("seal", "finish", "scrub", "commit", "expect", "flush")
"""The store's calls that may change which days are sealed."""


def interrupt(machine: Machine, call: str) -> None:
    """A cut that waits for *call* is near."""
    what = WAITS_FOR.get(call, "")
    if what in machine.cut_on and not machine.is_armed:
        machine.arm(machine.chance.randint(1, 8 if what == "scrubbing" else 40), machine.cut_on.pop(what))
        machine.fired[f"cut {what}"] += 1


def look_at_days(machine: Machine, call: str, before: Files) -> None:
    """The store has done *call*, which may have sealed days, or opened some; *before* it the journal was so."""
    if call not in CHANGE or not (call == "seal" or machine.sealed):
        return
    with open_ledger(machine.root) as database:
        sealed = days_of(database, damaged=set())
        fresh = [one for key, one in sealed.items() if key not in machine.sealed]
        gone = [key for key in machine.sealed if key not in sealed and key not in machine.damaged]
        if sealed != machine.sealed and not machine.has_lied:
            files = machine.disk.contents()
            judge_days(database, files, machine.damaged)
            for one in fresh if call == "seal" else ():
                judge_sealing(database, files, one, machine.believed())
    machine.fired["days sealed"] += len(fresh)
    machine.fired["days opened"] += len(gone)
    machine.sealed = sealed
    for what, some in (("sealed", fresh), ("opened", gone)):
        if some and what in machine.cut_on and not machine.is_armed:
            machine.arm_behind(before, machine.cut_on.pop(what))
            machine.fired[f"cut {what}"] += 1


def judge_the_start(machine: Machine) -> None:
    """After a start: each day is sealed or open, and a journal that was lost has cost no sealed day a minute."""
    if not machine.has_lied:
        with open_ledger(machine.root) as database:
            files = machine.disk.contents()
            machine.sealed = judge_days(database, files, machine.damaged)
            judge_kept(database, files, machine.kept)
    machine.kept = {}
    for copy in (machine.root / ".tmp").glob("*"):  # of a journal: SQLite's files are on another disk than the store's
        copy.unlink()
