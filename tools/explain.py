"""Everything known of one minute. ``python tools/explain.py --help``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from trio_candles.entry import explain

if __name__ == "__main__":
    sys.exit(explain())
