"""Watch a data directory beside its collector: ``python tools/monitor.py --help``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from trio_candles.health import monitor_command

if __name__ == "__main__":
    sys.exit(monitor_command())
