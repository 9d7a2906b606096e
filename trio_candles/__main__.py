"""``python -m trio_candles``, ``python run.py`` and ``trio-candles``: the collector."""

from __future__ import annotations

import sys

from trio_candles.command.signals import hold_signals


def main() -> int:
    """Run the collector; the exit code. Signals are held before anything heavy is imported."""
    signals = hold_signals()
    from trio_candles.command.cli import run

    return run(sys.argv[1:], signals)


if __name__ == "__main__":
    sys.exit(main())
