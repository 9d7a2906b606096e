"""Audit a data directory: ``python tools/audit.py --help``."""

import sys

from trio_candles.audit import command

if __name__ == "__main__":
    sys.exit(command())
