"""What people see: the status table on stdout, warnings on stderr, everything in the log file.

All of it is written by one thread behind a bounded queue. A terminal that is paused, a full pipe or a full disk
holds up that thread and nobody else; what does not fit into the queue is counted and reported later.
"""

from __future__ import annotations

import itertools
import logging
import logging.handlers
import math
import os
import queue
import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from io import TextIOWrapper
from pathlib import Path
from types import MappingProxyType
from typing import TextIO

import attrs

from trio_candles.command.formats import formatter
from trio_candles.store.lock import Locked, hold_lock

__all__ = ["LOG_NAME", "Console", "RotatedFile", "open_console"]

QUEUED = 10_000
"""Records and tables; some megabytes."""
LOG_NAME = "collector.log"
LOG_BYTES = 20_000_000
LOG_FILES = 5
ROTATION_SECONDS = 60.0
"""Between a rotation that failed and the next try."""
LOOK_SECONDS = 20.0
"""Wall seconds without anything to write, after which it is looked whether the log file is still there."""
GOODBYE_SECONDS = 0.5
"""Wall seconds for the thread to write what is left when we end."""

_COLOURS: Mapping[str, str] = MappingProxyType(
    {
        "[OK]": "\x1b[32m", "HEALTHY": "\x1b[32m", "[WAIT]": "\x1b[33m", "STARTING": "\x1b[33m",
        "[DISC]": "\x1b[31m", "DEGRADED": "\x1b[31m", "[STALE": "\x1b[33m",
    }
)  # fmt: skip
_COLOURED = re.compile(r"\[(?:OK|WAIT|DISC|STALE [^\]\n]*)\]|HEALTHY|STARTING|DEGRADED")


@attrs.frozen
class _Table:
    text: str
    final: bool


_LOOK = _Table("", final=False)
"""In place of something to write: look whether the log file is still there."""


def _record(text: str) -> logging.LogRecord:
    return logging.makeLogRecord({"name": __name__, "levelno": logging.WARNING, "levelname": "WARNING", "msg": text})


class _Queue(logging.Handler):
    """Puts records into the bounded queue, or counts them as dropped."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.DEBUG)
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        record.getMessage()
        self._console.put(record)


class RotatedFile(logging.handlers.RotatingFileHandler):
    """Python's handler, but for three things. That the file cannot be written (a full disk) is reported once on stderr,
    not with a traceback for each record. And a rotation that fails loses nothing and is tried again later: on Windows a
    file that somebody reads cannot be renamed. For that the full file is moved to number 0 first, and the backups are
    renamed only once there is a number 0. And a file that somebody moved or deleted is made anew with the next record,
    or by :meth:`make_anew`.
    """

    _broken = False
    _reported = False
    _asked_at = 0.0
    _failed_at = -math.inf
    """When the last rotation failed, by the time that the record at hand carries (Unix seconds)."""
    _opened: os.stat_result
    """The file behind the stream."""

    def emit(self, record: logging.LogRecord) -> None:
        self._reported, self._broken = self._broken, False
        try:
            self._follow_the_name()
            super().emit(record)
        except OSError:
            self.handleError(record)

    def _open(self) -> TextIOWrapper:
        os.makedirs(os.path.dirname(self.baseFilename), exist_ok=True)
        stream = super()._open()
        self._opened = os.fstat(stream.fileno())
        return stream

    def _follow_the_name(self) -> None:
        """Forget the stream if its file does not bear our name any more; the next record opens the file anew."""
        if self.stream is None:
            return
        with suppress(FileNotFoundError):
            if os.path.samestat(self._opened, os.stat(self.baseFilename)):
                return
        stream, self.stream = self.stream, None
        stream.close()

    def make_anew(self) -> None:
        """Open the file anew if it does not bear our name any more; where that fails, the next record tells of it."""
        with suppress(OSError):
            self._follow_the_name()
            if self.stream is None:
                self.stream = self._open()

    def handleError(self, record: logging.LogRecord) -> None:
        self._broken = True
        if not self._reported:
            print(f"the log file cannot be written: {sys.exc_info()[1]}", file=sys.stderr, flush=True)

    def shouldRollover(self, record: logging.LogRecord) -> bool:
        self._asked_at = record.created
        # The absolute value: a clock that was set back must not put the rotation off for long.
        waits = abs(self._asked_at - self._failed_at) < ROTATION_SECONDS
        return not waits and bool(super().shouldRollover(record))

    def doRollover(self) -> None:
        # The stream is forgotten first, because closing and opening may fail: the next record opens the file anew.
        stream, self.stream = self.stream, None
        if stream:
            stream.close()
        try:
            if os.path.exists(self._numbered(0)):
                self._shift_backups()  # which the last rotation could not do
            self.rotate(self.baseFilename, self._numbered(0))
            self._shift_backups()
        except OSError:
            self._failed_at = self._asked_at
        self.stream = self._open()

    def _shift_backups(self) -> None:
        """Make number 0 the first backup; the last one goes only if there is no free number before it."""
        numbers = range(1, self.backupCount)
        free = next((n for n in numbers if not os.path.exists(self._numbered(n))), self.backupCount)
        for number in range(free - 1, -1, -1):
            self.rotate(self._numbered(number), self._numbered(number + 1))

    def rotate(self, source: str, dest: str) -> None:
        # Unlike os.rename, it replaces on Windows too.
        (self.rotator or os.replace)(source, dest)

    def _numbered(self, number: int) -> str:
        return f"{self.baseFilename}.{number}"


class Console:
    """The thread that writes, and its queue; made by :func:`open_console`."""

    def __init__(
        self,
        out: TextIO,
        err: TextIO,
        level: int,
        log_file: Path,
        file: RotatedFile,
        stamp: logging.Formatter,
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        self._out, self._err, self._level = out, err, level
        self._file, self._stamp, self._look_seconds = file, stamp, look_seconds
        self.log_file = log_file
        """Where everything is logged."""
        self.stuck = False
        """Whether the thread was still writing when it was to stop; then nobody may wait for the thread."""
        self.failed: Exception | None = None
        """The bug that ended the thread: nothing is shown or logged any more."""
        self._on_failure: Callable[[], object] | None = None
        self._queue: queue.Queue[logging.LogRecord | _Table | None] = queue.Queue(QUEUED)
        self._dropped = 0
        self.redraws = out.isatty()
        """Whether a table takes the place of the one before."""
        self._coloured = self.redraws and "NO_COLOR" not in os.environ
        self._drawn = 0
        """Lines of the table that stands at the bottom of the terminal."""
        self._thread = threading.Thread(target=self._write_all, name="console", daemon=True)

    def put(self, item: logging.LogRecord | _Table | None) -> None:
        """Queue *item*, or count it as dropped; never waits."""
        try:
            self._queue.put_nowait(item)
        except queue.Full:
            self._dropped += 1

    def show(self, text: str, *, final: bool = False) -> None:
        """Print *text*; on a terminal it takes the place of what was shown before, until a *final* one."""
        self.put(_Table(text, final))

    def on_failure(self, callback: Callable[[], object]) -> None:
        """Call *callback*, from the thread that writes, when that thread fails; at once if it has."""
        self._on_failure = callback
        if self.failed is not None:
            callback()

    def start(self) -> None:
        """Start the thread; called by :func:`open_console`."""
        if sys.platform == "win32" and self.redraws:
            os.system("")
        self._thread.start()

    def stop(self) -> bool:
        """Give the thread a moment to end; returns whether it has. A terminal that takes nothing must not keep us."""
        try:
            self._queue.put(None, timeout=GOODBYE_SECONDS)
        except queue.Full:
            return False
        self._thread.join(GOODBYE_SECONDS)
        return not self._thread.is_alive()

    def _write_all(self) -> None:
        while (item := self._next()) is not None:
            try:
                if item is _LOOK:
                    self._file.make_anew()
                elif isinstance(item, _Table):
                    self._file.make_anew()
                    self._draw(item)
                else:
                    self._file.handle(item)
                    if item.levelno >= self._level:
                        self._write_line(self._stamp.format(item))
                if self._dropped:
                    dropped, self._dropped = self._dropped, 0
                    text = f"{dropped} log records or tables were dropped: the console or the disk is too slow"
                    self._write_line(self._stamp.format(_record(text)))
            except (OSError, ValueError):
                # Nobody reads it: the reader of our pipe has gone, or the stream is closed.
                continue
            # A bug, which must end the service: a thread that dies alone would leave it mute.
            except Exception as error:
                self.failed = error
                if self._on_failure is not None:
                    self._on_failure()
                return

    def _next(self) -> logging.LogRecord | _Table | None:
        """What is to be written next; :data:`_LOOK` after a while without anything."""
        try:
            return self._queue.get(timeout=self._look_seconds)
        except queue.Empty:
            return _LOOK

    def _write_line(self, text: str) -> None:
        if self._drawn and self._err.isatty():
            _write(self._out, f"\x1b[{self._drawn}F\x1b[J")
            self._drawn = 0
        _write(self._err, text + "\n")

    def _draw(self, table: _Table) -> None:
        text, lines = table.text, table.text.count("\n")
        if self._drawn:
            _write(self._out, f"\x1b[{self._drawn}F\x1b[J")
        stays = table.final or not self.redraws
        if not stays:
            columns, rows = self._size()
            # A line that the terminal wraps is more lines than we go back; to a line that scrolled off nothing goes
            # back.
            text = "".join(f"{line[: columns - 1]}\n" for line in text.splitlines())
            stays = lines >= rows
        if self._coloured:
            text = _COLOURED.sub(lambda found: f"{_COLOURS[found[0].split()[0]]}{found[0]}\x1b[0m", text)
        _write(self._out, text)
        self._drawn = 0 if stays else lines

    def _size(self) -> tuple[int, int]:
        """Columns and lines of the terminal; sys.maxsize where the terminal does not say."""
        try:
            columns, rows = os.get_terminal_size(self._out.fileno())
        except OSError:
            columns = rows = 0
        return columns or sys.maxsize, rows or sys.maxsize


def _write(stream: TextIO, text: str) -> None:
    """Write past Python's buffers: what a broken pipe leaves in them would fail again, louder, at exit."""
    rest = memoryview(text.encode(stream.encoding or "utf-8", "backslashreplace"))
    while rest:
        rest = rest[os.write(stream.fileno(), rest) :]


@contextmanager
def open_console(
    log_dir: Path,
    level: int,
    at: Callable[[float], int],
    *,
    format: str = "text",
    out: TextIO | None = None,
    err: TextIO | None = None,
    look_seconds: float = LOOK_SECONDS,
) -> Iterator[Console]:
    """The console for the block, with Python's logging leading to it and to ``log_dir/collector.log``, or to a file
    beside that one while another run writes to it. What is logged there and on stderr has the *format* ``text`` or
    ``json``; the file is made anew if it is gone for *look_seconds*.

    OSError if the log file cannot be opened.
    """
    with (
        open(os.devnull, "w", encoding="utf-8") as nowhere,  # for a stream that was closed before we began
        _own_log(log_dir) as path,
        _open_console(
            path, level, at, format, out or sys.stdout or nowhere, err or sys.stderr or nowhere, look_seconds
        ) as console,
    ):
        yield console


@contextmanager
def _own_log(log_dir: Path) -> Iterator[Path]:
    """The first of ``collector.log``, ``collector-2.log``, … that no other run writes to; this one's for the block.

    Two runs in one file would rotate it from under each other. One that had nothing to say leaves no file beside the
    usual one.
    """
    log_dir.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        for number in itertools.count(1):
            path = log_dir / (LOG_NAME if number == 1 else f"collector-{number}.log")
            try:
                stack.enter_context(hold_lock(log_dir / f".{path.name}.lock", attempts=1))
            except Locked:
                continue
            break
        yield path
        if number > 1 and path.exists() and not path.stat().st_size:
            with suppress(OSError):
                path.unlink()


@contextmanager
def _open_console(
    path: Path,
    level: int,
    at: Callable[[float], int],
    format: str,
    out: TextIO,
    err: TextIO,
    look_seconds: float,
) -> Iterator[Console]:
    file = RotatedFile(path, maxBytes=LOG_BYTES, backupCount=LOG_FILES, encoding="utf-8")
    file.setFormatter(formatter(format, at))
    console = Console(out, err, level, path, file, formatter(format, at, names=False), look_seconds)
    handler = _Queue(console)
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    # Libraries that describe every frame at DEBUG would fill the disk and cost more than the frames.
    quiet = [logging.getLogger(name) for name in ("trio-websocket", "httpcore", "httpx")]
    for logger in quiet:
        logger.setLevel(logging.WARNING)
    console.start()
    try:
        yield console
    finally:
        root.removeHandler(handler)
        root.setLevel(before)
        console.stuck = not console.stop()
        if not console.stuck:
            file.close()
