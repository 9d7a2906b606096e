"""The tools as commands: imports nothing heavy before Ctrl-C is in hand.

The collector and the monitor, which hold signals for as long as they run, have entries of their own, in
:mod:`trio_candles.__main__` and :mod:`trio_candles.health`.
"""

from __future__ import annotations

from trio_candles.command.signals import leaving_at_once

__all__ = ["audit", "check", "explain", "export", "preflight"]


def audit() -> int:
    """``tools/audit.py``, ``trio-candles-audit``: the exit code."""
    with leaving_at_once():
        from trio_candles.audit.tool import command
    return command()


def check() -> int:
    """``tools/check.py``, ``trio-candles-check``: the exit code."""
    with leaving_at_once():
        from trio_candles.health.check import command
    return command()


def explain() -> int:
    """``tools/explain.py``, ``trio-candles-explain``: the exit code."""
    with leaving_at_once():
        from trio_candles.explain import command
    return command()


def export() -> int:
    """``tools/export.py``, ``trio-candles-export``: the exit code."""
    with leaving_at_once():
        from trio_candles.export import command
    return command()


def preflight() -> int:
    """``tools/preflight.py``, ``trio-candles-preflight``: the exit code."""
    with leaving_at_once():
        from trio_candles.preflight.tool import command
    return command()
