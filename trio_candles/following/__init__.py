"""The change feed as lines of JSON: ``tools/follow.py``.

``tool`` is the command. This file imports nothing heavy, so that signals are held before anything else.
"""

from __future__ import annotations

from trio_candles.command.signals import hold_signals

__all__ = ["command"]


def command() -> int:
    """``tools/follow.py``, ``trio-candles-follow``: the exit code."""
    signals = hold_signals()
    from trio_candles.following.tool import run

    return run(signals)
