"""Export candles for other programs: ``python tools/export.py --help``."""

import sys

from trio_candles.export import command

if __name__ == "__main__":
    sys.exit(command())
