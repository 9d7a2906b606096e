"""A log record as a line: text for a person, or JSON for a program (``logging.format``)."""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Callable

from trio_candles.candles.model import utc_text

__all__ = ["Json", "Text", "formatter"]

At = Callable[[float], int]
"""The service's time (Unix ms) at a time of the wall (Unix seconds)."""


def formatter(name: str, at: At, *, names: bool = True) -> logging.Formatter:
    """The formatter that ``logging.format`` calls *name*; *names* says whether a line of text has the logger's name."""
    return Json(at) if name == "json" else Text(at, names=names)


class Text(logging.Formatter):
    """One line per record, on the service's clock, with nothing in it that a terminal would obey."""

    def __init__(self, at: At, *, names: bool) -> None:
        super().__init__()
        self._at = at
        self._names = names

    def format(self, record: logging.LogRecord) -> str:
        time = self._at(record.created)
        name = f" {record.name}" if self._names else ""
        message = _printable(record.getMessage())
        text = f"{utc_text(time)}.{time % 1000:03} {record.levelname}{name} {message}"
        if record.exc_info:
            # Indented, because an error's text may be a venue's, and must not look like a record of ours.
            trace = "".join(traceback.format_exception(*record.exc_info)).rstrip().split("\n")
            text += "".join(f"\n  {_printable(line)}" for line in trace)
        return text


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class Json(logging.Formatter):
    """One JSON object per record, in a line of ASCII: time (ISO, UTC, on the service's clock), level, logger, message,
    and exception, which is the traceback or null.
    """

    def __init__(self, at: At) -> None:
        super().__init__()
        self._at = at

    def format(self, record: logging.LogRecord) -> str:
        time = self._at(record.created)
        trace = "".join(traceback.format_exception(*record.exc_info)).rstrip() if record.exc_info else None
        values = {
            "time": f"{utc_text(time).replace(' ', 'T')}.{time % 1000:03}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "exception": trace,
        }
        return json.dumps(values)
