"""The collector: ``python run.py --help``."""

import sys

from trio_candles.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
