"""The change feed in an asyncio program: a thread follows, and a queue carries the changes to the event loop.

    python examples/asyncio_queue.py data okx:BTC-USDT

The queue is bounded: while the program is busy the thread waits, and nothing is lost, because the feed is on disk.
"""

from __future__ import annotations

import argparse
import asyncio
from concurrent.futures import CancelledError
from contextlib import suppress

from trio_candles import Change, follow_sync


async def work(queue: asyncio.Queue[Change]) -> None:
    """What the program does with each change."""
    while True:
        change = await queue.get()
        close = "" if change.candle is None else f" close {change.candle.close:g}"
        print(f"{change.venue} {change.symbol} {change.event} {change.open_time_ms}{close}", flush=True)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_dir")
    parser.add_argument("series", nargs="*", metavar="VENUE:SYMBOL")
    parser.add_argument("--after", help="a cursor, or 'oldest'")
    options = parser.parse_args()
    queue: asyncio.Queue[Change] = asyncio.Queue(maxsize=100)
    loop = asyncio.get_running_loop()
    changes = follow_sync(options.data_dir, options.series or None, after=options.after)

    def follow() -> None:
        try:
            for change in changes:
                asyncio.run_coroutine_threadsafe(queue.put(change), loop).result()
        except (CancelledError, RuntimeError):
            pass  # the program ends

    thread = asyncio.create_task(asyncio.to_thread(follow))
    try:
        await work(queue)
    finally:
        changes.close()
        thread.cancel()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main())
