"""Is everything ready to start? ``python tools/preflight.py --help``."""

import sys

from trio_candles.preflight import command

if __name__ == "__main__":
    sys.exit(command())
