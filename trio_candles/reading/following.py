"""``follow``: the change feed as an asynchronous iterator, for programs that run on trio."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import trio

from trio_candles.reading.changes import Change, Wanted
from trio_candles.reading.feed import Feed
from trio_candles.reading.follow import POLL_SECONDS, Buffered

__all__ = ["AsyncChanges", "follow"]


class AsyncChanges:
    """What ``async with follow(...)`` gives: an asynchronous iterator of changes, without an end."""

    def __init__(self, feed: Feed) -> None:
        self._buffered = Buffered(feed)

    @property
    def cursor(self) -> str:
        """The cursor from which what follows the last change goes on. Moves on, too, past what is not wanted, whenever
        all that is wanted was delivered.
        """
        return self._buffered.cursor

    def __aiter__(self) -> AsyncChanges:
        return self

    async def __anext__(self) -> Change:
        while True:
            await trio.lowlevel.checkpoint()  # before, for what was taken here would be lost in a cancellation
            change = self._buffered.next()
            if change is not None:
                return change
            if self._buffered.changed():
                await trio.to_thread.run_sync(self._buffered.read)
            else:
                await trio.sleep(POLL_SECONDS)


@asynccontextmanager
async def follow(
    data_dir: str | Path,
    series: Sequence[str] | None = None,
    timeframes: Sequence[str] | None = None,
    events: Sequence[str] | None = None,
    after: str | None = None,
) -> AsyncIterator[AsyncChanges]:
    """The changes of *data_dir* as they become durable, in the order of the commits, for the block. Arguments and
    errors are those of ``follow_sync``.

    A cancelled iteration delivers nothing and loses nothing: it may be gone on with.
    """
    wanted = Wanted.of(series, timeframes, events)
    feed = await trio.to_thread.run_sync(partial(Feed, data_dir, wanted, after))
    try:
        yield AsyncChanges(feed)
    finally:
        feed.close()
