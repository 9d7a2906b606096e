"""Is every series fresh? ``python tools/check.py --help``."""

import sys

from trio_candles.health import check_command

if __name__ == "__main__":
    sys.exit(check_command())
