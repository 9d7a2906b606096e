"""Is everything ready to start? ``python tools/preflight.py --help``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from trio_candles.entry import preflight

if __name__ == "__main__":
    sys.exit(preflight())
