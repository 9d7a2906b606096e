"""Signals, held from the first instant: imported before anything heavy, and imports nothing heavy itself.

First SIGINT or SIGTERM (on Windows Ctrl-C or Ctrl-Break): ask for a clean stop; SIGHUP too, which a terminal sends
when it closes, unless somebody has it ignored (nohup). SIGINT while stopping: leave at once with 130, waiting for no
thread; what is durable stays durable.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["Signals", "StopAsked", "hold_signals", "leaving_at_once"]

_AT_ONCE = {getattr(signal, name) for name in ("SIGINT", "SIGBREAK") if hasattr(signal, name)}
"""What a person at the keyboard sends; the second one of these is meant."""


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
            if number in _AT_ONCE:
                os._exit(130)
            return
        self.asked = True
        if self._callback is not None:
            self._callback()


def hold_signals() -> Signals:
    """Take over the signals that ask for a stop; only in the main thread."""
    signals = Signals()
    for number in _AT_ONCE | {signal.SIGTERM}:
        signal.signal(number, signals.handle)
    if sys.platform != "win32" and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signals.handle)
    return signals


@contextmanager
def leaving_at_once() -> Iterator[None]:
    """For the block, in which a tool imports what it needs, Ctrl-C ends the process with 130 and without a word: an
    exception in the middle of an import would be Python's own traceback. A Ctrl-C that is ignored stays ignored.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:
        yield
        return
    signal.signal(signal.SIGINT, lambda number, frame: os._exit(130))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
