"""What happened, in order: a digest of all of it, and the words for whoever wants to read them."""

from __future__ import annotations

import hashlib
import logging
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import trio

__all__ = ["Broken", "Trace", "logged"]

KEPT = 60
"""Newest lines that a failure shows."""


class Broken(AssertionError):
    """An invariant does not hold; ``name`` is the oracle's word for it."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(f"{name}: {text}")
        self.name = name


class Trace:
    """Lines with the simulated time before them."""

    def __init__(self, root: str, tell: Callable[[str], object] | None = None) -> None:
        self._root = root
        self._tell = tell
        self._digest = hashlib.blake2b(digest_size=16)
        self.newest: deque[str] = deque(maxlen=KEPT)

    @property
    def digest(self) -> str:
        """The same for the same course of events, wherever it ran."""
        return self._digest.hexdigest()

    @property
    def is_told(self) -> bool:
        """Whether somebody reads along."""
        return self._tell is not None

    def note(self, text: str, *, aside: bool = False) -> None:
        """Add a line; one said *aside* is for the reader only."""
        line = f"{trio.current_time():9.3f}  {text.replace(self._root, '.')}"
        if not aside:
            self._digest.update(line.encode() + b"\n")
            self.newest.append(line)
        if self._tell is not None:
            self._tell(line)


class _Handler(logging.Handler):
    def __init__(self, trace: Trace) -> None:
        super().__init__(logging.DEBUG if trace.is_told else logging.WARNING)
        self._trace = trace

    def emit(self, record: logging.LogRecord) -> None:
        text = f"{record.levelname} {record.getMessage()}"
        self._trace.note(text, aside=record.levelno < logging.WARNING)


@contextmanager
def logged(trace: Trace) -> Iterator[None]:
    """The product's log is part of *trace* for the block, and goes nowhere else."""
    log = logging.getLogger("trio_candles")
    level, propagate, handler = log.level, log.propagate, _Handler(trace)
    log.setLevel(handler.level if trace.is_told else logging.WARNING)
    log.propagate = False
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        log.propagate = propagate
