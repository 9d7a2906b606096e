"""Whether the data is fresh and its collector well: ``check`` says it once, ``monitor`` goes on saying it.

Facts are read from the ledger (:mod:`.reading`), judged without I/O (:mod:`.judge`), and then shown
(:mod:`.report`, :mod:`.screen`) or posted (:mod:`.alerts`). Nothing is written into the data directory.

This file imports nothing heavy, so that signals are held before anything else is imported.
"""

from __future__ import annotations

import sys

from trio_candles.command.signals import hold_signals

__all__ = ["check_command", "monitor_command"]


def check_command() -> int:
    """``tools/check.py``, ``trio-candles-check``: the exit code."""
    try:
        from trio_candles.command.options import through_a_pipe
        from trio_candles.health.check import main

        return through_a_pipe(lambda: main(sys.argv[1:]))
    except KeyboardInterrupt:
        return 130


def monitor_command() -> int:
    """``tools/monitor.py``, ``trio-candles-monitor``: the exit code."""
    signals = hold_signals()
    from trio_candles.health.monitor import main

    return main(sys.argv[1:], signals)
