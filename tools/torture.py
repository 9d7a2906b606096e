"""Kill, cut, freeze and flip a real collector (trio_candles): ``python tools/torture.py --help``."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent / name) for name in (".", "tests")]

from torture.command import main  # noqa: E402  (the tests are no package that is installed)

if __name__ == "__main__":
    sys.exit(main())
