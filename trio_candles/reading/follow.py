"""``follow_sync``, ``CursorFile``: the change feed for programs, in any thread; :mod:`.following` has it for trio."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Event
from time import monotonic
from types import TracebackType

from trio_candles.reading.changes import Change, Wanted
from trio_candles.reading.cursor import Cursor
from trio_candles.reading.feed import Feed

__all__ = ["POLL_SECONDS", "Changes", "CursorFile", "follow_sync"]

POLL_SECONDS = 0.02
"""Between two looks for a commit: a follower has a change within twice that, and costs some 0.1 % of a core."""


class Buffered:
    """A feed, and what was read of it and not delivered yet."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._read: deque[Change] = deque()
        self._last: Change | None = None

    @property
    def cursor(self) -> str:
        """Where to go on after the last change that was delivered. Moves on, too, past what is not wanted, whenever
        all that is wanted was delivered.
        """
        return str(self._feed.place) if self._last is None else self._last.cursor

    def next(self) -> Change | None:
        """The next change that was read; ``None`` if all were delivered."""
        self._last = self._read.popleft() if self._read else None
        return self._last

    def end(self) -> None:
        """No change is asked for any more: if all were delivered, the cursor moves past what is not wanted."""
        if not self._read:
            self._last = None

    def read(self) -> None:
        """Read what comes next; only after :meth:`next` has returned ``None``."""
        self._read.extend(self._feed.read())

    def changed(self) -> bool:
        """Whether there may be something to read."""
        return self._feed.changed()

    def close(self) -> None:
        """Let go of the journal."""
        self._feed.close()


class Changes:
    """What ``follow_sync`` returns: an iterator of changes, and a context manager that lets go of the journal."""

    def __init__(self, feed: Feed, timeout: float | None) -> None:
        self._buffered = Buffered(feed)
        self._timeout = timeout
        self._closed = Event()

    @property
    def cursor(self) -> str:
        """The cursor from which what follows the last change goes on; see :attr:`.Buffered.cursor`."""
        return self._buffered.cursor

    def close(self) -> None:
        """End the iteration, from any thread, and let go of the journal."""
        self._closed.set()

    def __iter__(self) -> Iterator[Change]:
        return self

    def __next__(self) -> Change:
        waiting = monotonic()
        while not self._closed.is_set():
            change = self._buffered.next()
            if change is not None:
                return change
            if self._buffered.changed():
                self._buffered.read()
            elif self._timeout is not None and monotonic() - waiting >= self._timeout:
                raise StopIteration
            else:
                self._closed.wait(POLL_SECONDS)
        self._buffered.end()
        self._buffered.close()
        raise StopIteration

    def __enter__(self) -> Changes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        self._buffered.close()


def follow_sync(
    data_dir: str | Path,
    series: Sequence[str] | None = None,
    timeframes: Sequence[str] | None = None,
    events: Sequence[str] | None = None,
    after: str | None = None,
    timeout: float | None = None,
) -> Changes:
    """The changes of *data_dir* as they become durable, in the order of the commits: an iterator for any thread.

    *series* are names as ``okx:BTC-USDT`` or ``kraken:*``, all by default; *timeframes* any that divide a day, ``1m``
    by default; *events* are those of :class:`Change`, all by default. *after* is the ``cursor`` of a change, of this
    iterator or of ``snapshot``; ``"oldest"`` for everything that is kept; by default what comes from now on. The
    iteration ends after *timeout* seconds without a change, and may be gone on with; without *timeout* it never ends.

    Raises :class:`CursorExpired` and :class:`CursorUnknown`, here or in the iteration: nothing is ever left out without
    one. Further :class:`ReadError` for a directory, a ledger or a series that is not there, ``ValueError`` and
    ``TypeError`` for arguments without sense.
    """
    return Changes(Feed(data_dir, Wanted.of(series, timeframes, events), after), timeout)


class CursorFile:
    """A cursor kept durably beside a program's own work: read it at the start, write it after the work is done.

    A change may come twice if the program dies between the two; none is left out.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def read(self) -> str | None:
        """The cursor that was written last; ``None`` if none was; ``ValueError`` if the file holds something else."""
        try:
            text = self.path.read_text("utf-8").strip()
        except FileNotFoundError:
            return None
        try:
            return str(Cursor.parse(text))
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}; remove the file to begin anew") from None

    def write(self, cursor: str) -> None:
        """Keep *cursor*: the file is replaced as a whole, and durable when this returns. ``OSError`` if the disk does
        not take it; then the file has the cursor from before.
        """
        temporary = self.path.with_name(f"{self.path.name}.tmp")
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(f"{cursor}\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self.path)
        if os.name == "posix":
            folder = os.open(self.path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
