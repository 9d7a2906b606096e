"""What becomes known, as lines of JSON: ``python tools/follow.py --help``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from trio_candles.following import command

if __name__ == "__main__":
    sys.exit(command())
