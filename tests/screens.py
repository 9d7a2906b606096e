"""Streams for the console to write to."""

from __future__ import annotations

import os


class Screen:
    """A pipe that the console takes for a stream, and whose other end can be read back."""

    encoding = "utf-8"

    def __init__(self, tty=False):
        self.reader, self.writer = os.pipe()
        self.tty = tty

    def fileno(self):
        return self.writer

    def isatty(self):
        return self.tty

    def close(self, *ends):
        for end in ends or ("reader", "writer"):
            if getattr(self, end) is not None:
                os.close(getattr(self, end))
                setattr(self, end, None)

    def shown(self):
        self.close("writer")
        with os.fdopen(os.dup(self.reader), "rb") as reader:
            return reader.read().decode()
