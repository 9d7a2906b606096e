"""Signals, held from the first instant: imported before anything heavy, and imports nothing heavy itself.

First SIGINT or SIGTERM (on Windows Ctrl-C or Ctrl-Break): ask for a clean stop. SIGINT while stopping: leave at
once with 130, waiting for no thread; what is durable stays durable.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType

__all__ = ["Signals", "StopAsked", "hold_signals"]


class StopAsked(Exception):
    """A stop was asked for before there was anything to stop."""


class Signals:
    """Whether a stop was asked for, and what to call when it is."""

    def __init__(self) -> None:
        self.asked = False
        self._callback: Callable[[], object] | None = None

    def on_stop(self, callback: Callable[[], object]) -> None:
        """Call *callback*, which must be safe in a signal handler, when a stop is asked for, or now if it was."""
        self._callback = callback
        if self.asked:
            callback()

    def go_on(self) -> None:
        """Raise :class:`StopAsked` if a stop was asked for; called at every step of a start, which may take long."""
        if self.asked:
            raise StopAsked

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Note that a stop was asked for; leave at once at the second SIGINT. Called by Python in the main thread."""
        if self.asked:
            if number != getattr(signal, "SIGTERM", None):
                os._exit(130)
            return
        self.asked = True
        if self._callback is not None:
            self._callback()


def hold_signals() -> Signals:
    """Take over the signals that ask for a stop; only in the main thread."""
    signals = Signals()
    for name in ("SIGINT", "SIGTERM", "SIGBREAK"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signals.handle)
    return signals
