"""A progress bar on a terminal, erased when the work is done."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TextIO

import attrs

__all__ = ["Bar", "bar_line"]

EVERY_MS = 100
"""Between two drawings, at least: a terminal over a slow line must not slow the work."""
_FULL, _FREE = "█", "░"


@attrs.define
class Bar:
    """Draws on *stream*, a terminal; called with how much is done of how much."""

    stream: TextIO
    now: Callable[[], int]
    """A clock in ms."""
    columns: Callable[[], int]
    """The terminal's width, asked anew each time: it may be resized meanwhile."""
    coloured: bool = True
    _begun: int | None = None
    _drawn_at: int = 0
    _drawn: int = 0
    """Columns that are drawn on."""

    @classmethod
    def on(cls, stream: TextIO, now: Callable[[], int], environment: Mapping[str, str] = os.environ) -> Bar | None:
        """A bar if *stream* is a terminal that people look at."""
        if not stream.isatty():
            return None
        coloured = "NO_COLOR" not in environment and environment.get("TERM") != "dumb" and os.name != "nt"
        return cls(stream, now, lambda: _width(stream), coloured)

    def __call__(self, done: int, of: int) -> None:
        """*done* of *of* days are audited."""
        now = self.now()
        if self._begun is None:
            self._begun = now
        if done >= of:
            self.erase()
        elif not self._drawn or now - self._drawn_at >= EVERY_MS:
            self._draw(bar_line(done, of, (now - self._begun) / 1000, self.columns() - 1, self._characters()))
            self._drawn_at = now

    def erase(self) -> None:
        """Leave an empty line where the bar was."""
        if self._drawn:
            self._write("\r" + " " * min(self._drawn, self.columns() - 1) + "\r")
            self._drawn = 0

    def _draw(self, line: str) -> None:
        rest = max(0, min(self._drawn, self.columns() - 1) - len(line))
        text = line
        if self.coloured:
            text = line.replace("[", "[\x1b[36m", 1).replace("]", "\x1b[0m]", 1)
        self._write("\r" + text + " " * rest)
        self._drawn = len(line)

    def _write(self, text: str) -> None:
        self.stream.write(text)
        self.stream.flush()

    def _characters(self) -> str:
        """What a bar is made of, as far as the terminal can show it."""
        try:
            (_FULL + _FREE).encode(self.stream.encoding or "ascii")
        except (LookupError, UnicodeEncodeError):
            return "#-"
        return _FULL + _FREE


def bar_line(done: int, of: int, seconds: float, columns: int, characters: str = "#-") -> str:
    """``audit [####----]  45 %  3,285 of 7,300 days  1,240/s  3 s left``: as much of it as fits in *columns*."""
    parts = [f"{done * 100 // of:3} %", f"{done:,} of {of:,} days"]
    if done and seconds >= 0.5:
        rate = done / seconds
        parts += [f"{rate:,.0f}/s", f"{_time((of - done) / rate)} left"]
    while len(parts) > 1 and len("audit []  ") + 10 + len("  ".join(parts)) > columns:
        parts.pop()
    words = "  ".join(parts)
    room = min(40, columns - len("audit []  ") - len(words))
    if room < 4:
        return words[: max(0, columns)]
    full = done * room // of
    return f"audit [{characters[0] * full}{characters[1] * (room - full)}]  {words}"


def _time(seconds: float) -> str:
    whole = int(seconds) + 1
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min" if whole < 3600 else f"{whole / 3600:.1f} h"


def _width(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return 80
