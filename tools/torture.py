"""Kill, cut, freeze and flip a real collector (trio_candles): ``python tools/torture.py --help``."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent / name) for name in (".", "tests")]

from torture.command import main  # type: ignore[import-not-found]  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
