"""Whether the data is fresh and its collector well: ``check`` says it once, ``monitor`` goes on saying it.

Facts are read from the ledger (:mod:`.reading`), judged without I/O (:mod:`.judge`), and then shown
(:mod:`.report`, :mod:`.screen`) or posted (:mod:`.alerts`). Nothing is written into the data directory.

This file imports nothing heavy, so that signals are held before anything else is imported.
"""

from __future__ import annotations

import sys

from trio_candles.command.signals import hold_signals

__all__ = ["monitor_command"]


def monitor_command() -> int:
    """``tools/monitor.py``, ``trio-candles-monitor``: the exit code."""
    signals = hold_signals()
    from trio_candles.health.monitor import main

    return main(sys.argv[1:], signals)
