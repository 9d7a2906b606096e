"""Options in, one line a part out; exit code 0 if nothing was found."""

from __future__ import annotations

import argparse
import json
import logging
import random
import sys
import time
from collections.abc import Callable

from torture import bitrot, deaf, kills, powercut, syscalls

WHAT = "Kill, cut, freeze and flip a real collector, and hold what is left against what is true."
Part = Callable[[argparse.Namespace, random.Random, float], dict[str, object]]

PARTS: dict[str, Part] = {
    "kills": lambda options, chance, deadline: kills.run(options.kills, chance, deadline),
    "syscalls": lambda options, chance, deadline: syscalls.run(chance, deadline),
    "powercut": lambda options, chance, deadline: powercut.run(options.cuts, chance, deadline),
    "deaf": lambda options, chance, deadline: deaf.run(chance, deadline),
    "bitrot": lambda options, chance, deadline: bitrot.run(options.flips, chance, deadline),
}


def main() -> int:
    """Run the parts asked for."""
    parser = argparse.ArgumentParser(prog="torture.py", description=WHAT)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"some of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--kills", type=int, default=20, help="of the running collector (default: 20)")
    parser.add_argument("--cuts", type=int, default=40, help="of the power (default: 40)")
    parser.add_argument("--flips", type=int, default=300, help="of bits (default: 300)")
    parser.add_argument("--minutes", type=float, default=5.0, help="each part's longest (default: 5)")
    parser.add_argument("--seed", type=int, help="of what is left to chance (default: another each time; it is said)")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of lines")
    options = parser.parse_args()
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        parser.error(f"unknown part: {', '.join(sorted(unknown))}")
    logging.disable(logging.CRITICAL)  # what a store says of what is done to it would drown what we say
    seed = random.randrange(1_000_000) if options.seed is None else options.seed
    results = []
    for name in options.parts or PARTS:
        began = time.monotonic()
        result = PARTS[name](options, random.Random(f"{seed} {name}"), began + options.minutes * 60)
        result["seconds"] = round(time.monotonic() - began, 1)
        results.append(result)
        if not options.json:
            print(line(result), flush=True)
    if options.json:
        print(json.dumps({"ok": all(one["ok"] for one in results), "seed": seed, "parts": results}, indent=2))
    else:
        print(f"seed {seed}", file=sys.stderr)
    return 0 if all(one["ok"] for one in results) else 1


def line(result: dict[str, object]) -> str:
    """A part in a line, and each of its faults in another."""
    if "skipped" in result:
        return f"[SKIP] {result['part']}: {result['skipped']}"
    figures = ", ".join(
        f"{key.replace('_', ' ')} {value}" for key, value in result.items() if key not in ("part", "ok", "faults")
    )
    faults = result.get("faults")
    assert isinstance(faults, list)
    return "\n".join(
        [f"[{'PASS' if result['ok'] else 'FAIL'}] {result['part']}: {figures}", *map("       {}".format, faults)]
    )
