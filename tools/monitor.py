"""Watch a data directory beside its collector: ``python tools/monitor.py --help``."""

import sys

from trio_candles.health import monitor_command

if __name__ == "__main__":
    sys.exit(monitor_command())
