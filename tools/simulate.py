"""Deterministic simulation of trio_candles, from a checkout of it: ``python tools/simulate.py --help``."""

import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests")]

from simulation.campaign import main  # type: ignore[import-not-found]  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
