"""Export candles for other programs: ``python tools/export.py --help``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from trio_candles.entry import export

if __name__ == "__main__":
    sys.exit(export())
