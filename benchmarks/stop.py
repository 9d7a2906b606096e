"""How long a stop takes when thousands of day files wait, and what share flushing takes while it runs.

A process of its own has a journal with some hours of many series that no day file has taken in yet. It runs
the writer, which flushes; after a while it gets a SIGTERM, amid a flush, and at that moment a candle more of every
series, which is not durable yet::

    python benchmarks/stop.py                          # 2,500 series with four hours each: some five minutes
    python benchmarks/stop.py --minutes 1440           # with a day each
    python benchmarks/stop.py --series 500 --seconds 70 --json

README.md, beside this file, says how to read the figures. Unix only.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import attrs
import trio

from trio_candles.candles.model import DAY, MINUTE, Candle, Millis, Series, Source
from trio_candles.clock import WallTime
from trio_candles.collector.service import DERIVING_SHARE, FLUSHING_SHARE, SHARE
from trio_candles.collector.status import Board, VenueBoard
from trio_candles.collector.vouching import Vouching
from trio_candles.collector.writer import Writing, write_verdicts
from trio_candles.store.schema import JOURNAL
from trio_candles.store.store import Store, open_store
from trio_candles.threads import in_thread

T = TypeVar("T")
TIMEFRAMES = ("5m", "15m", "1h", "4h", "1d")
TIMEOUT = 10.0
"""``shutdown.timeout_seconds``."""


def series_of(count: int) -> tuple[Series, ...]:
    """*count* series of one venue."""
    return tuple(Series("okx", f"C{place:04}-USDT") for place in range(count))


def candles_of(series: Sequence[Series], minutes: range) -> Iterator[Candle]:
    """A candle of every series, minute by minute."""
    for minute in minutes:
        for one in series:
            price = 100.0 + minute // MINUTE % 97
            yield Candle(
                one, Millis(minute), price, price + 1, price - 1, price, 2.5, 250.0, price, 7, Source.REST,
                Millis(minute + MINUTE), Millis(minute + MINUTE),
            )  # fmt: skip


def fill(root: Path, series: Sequence[Series], minutes: range) -> None:
    """Let candles of *minutes* wait in the journal of *root*."""
    with open_store(root) as store:
        store.claim("real")
        store.expect(series, Millis(minutes[0]), Millis(minutes[0]))
        flow = candles_of(series, minutes)
        while batch := list(islice(flow, 5_000)):
            store.commit(batch, Millis(minutes[-1] + MINUTE))


@attrs.define
class Watched:
    """Threads in which the store works; notes what each flush takes."""

    store: Store
    calls: list[float] = attrs.field(factory=list)
    """Wall seconds of each flush."""

    async def __call__(self, work: Callable[..., T], /, *args: Any) -> T:
        """As :func:`~trio_candles.threads.in_thread`."""
        began = time.perf_counter()
        done: Awaitable[T] = in_thread(work, *args)
        result = await done
        if work == self.store.flush:
            self.calls.append(time.perf_counter() - began)
        return result


def collect(root: Path, count: int, minute: int) -> int:
    """Run the service until a SIGTERM; prints what it did as JSON, and returns its exit code."""
    with open_store(root) as store:
        found, finished = trio.run(_collect, store, series_of(count), minute)
        (waiting, files), asked = store.journal.waiting_count(), found["asked"]
        closing = time.perf_counter()
        wal = (root / f"{JOURNAL}-wal").stat().st_size
    found |= {"candles_left": waiting, "files_left": files, "wal_mb": wal / 2**20}
    found |= {"closing": time.perf_counter() - closing, "stop": time.perf_counter() - asked}
    print(json.dumps(found))
    return 0 if finished else 1


async def _collect(store: Store, series: Sequence[Series], minute: int) -> tuple[dict[str, Any], bool]:
    """The writer as the service runs it, with its deadlines at the stop."""
    store.aggregate(TIMEFRAMES)
    offload, writing = Watched(store), Writing()
    clock = Vouching(WallTime(), vouched=True)
    board = Board(clock.now(), {"okx": VenueBoard("okx")})
    send, receive = trio.open_memory_channel[Any](16)
    grace = TIMEOUT * SHARE
    began, cpu = time.perf_counter(), time.process_time()
    with trio.open_signal_receiver(signal.SIGTERM) as signals, trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                write_verdicts, receive, store, board, clock, 60.0, grace * DERIVING_SHARE, offload, writing, {}
            )
            print("running", flush=True)
            async for _ in signals:
                break
            asked, ran = time.perf_counter(), list(offload.calls)
            scope.deadline = trio.current_time() + grace
            writing.flush_until = trio.current_time() + grace * FLUSHING_SHARE
            writing.last_words.append(list(candles_of(series, range(minute, minute + MINUTE, MINUTE))))
            send.close()
    found = {
        "asked": asked, "ran": asked - began, "flushing": sum(ran), "longest": max(offload.calls, default=0.0),
        "cpu": time.process_time() - cpu, "lost": len(writing.pending),
    }  # fmt: skip
    return found, writing.finished


def measure(home: Path, count: int, hours: int, seconds: float) -> dict[str, Any]:
    """One run: fill, start, signal, wait."""
    day = Millis(int(time.time() * 1000) // DAY * DAY - DAY)
    minutes = range(day, day + hours * MINUTE, MINUTE)
    series = series_of(count)
    began = time.perf_counter()
    fill(home, series, minutes)
    print(f"the journal is filled: {time.perf_counter() - began:.0f} s", file=sys.stderr)
    child = subprocess.Popen(
        [sys.executable, __file__, "--collect", str(minutes[-1] + MINUTE), "--dir", str(home), "--series", str(count)],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stdout is not None
    child.stdout.readline()
    time.sleep(seconds)
    asked = time.perf_counter()
    child.send_signal(signal.SIGTERM)
    said, _ = child.communicate(timeout=120)
    found: dict[str, Any] = {"exit": time.perf_counter() - asked, "code": child.returncode, **json.loads(said)}
    with open_store(home) as store:
        spans = store.journal.spans()
    found["durable"] = sum(mark == minutes[-1] + 2 * MINUTE for _, mark in spans.values())
    return found


def main() -> None:
    """Measure, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--series", type=int, default=2_500, help="(default: 2,500)")
    parser.add_argument("--minutes", type=int, default=240, help="of each that wait (default: 240)")
    parser.add_argument("--seconds", type=float, default=122.0, help="until the signal (default: 122)")
    parser.add_argument("--dir", type=Path, help="where to write: on the disk that is meant (default: the system's)")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.add_argument("--collect", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.collect is not None:
        sys.exit(collect(options.dir, options.series, options.collect))
    with tempfile.TemporaryDirectory(prefix="stop-", dir=options.dir) as home:
        found = measure(Path(home), options.series, options.minutes, options.seconds)
    if options.json:
        print(json.dumps(found))
        return
    print(f"{options.series} series with {options.minutes} minutes each in the journal, {found['ran']:.0f} s")
    print(f"flushing           {found['flushing'] / found['ran']:.1%} of the time, {found['longest']:.2f} s at most")
    print(f"from the signal    {found['exit']:.1f} s to the exit, code {found['code']}")
    print(f"closing            {found['closing']:.2f} s, a log of {found['wal_mb']:.1f} MB")
    print(f"verdicts           {found['lost']} lost of {options.series}; {found['durable']} durable at the next start")
    print(f"left in the journal {found['candles_left']:,} candles of {found['files_left']:,} day files")


if __name__ == "__main__":
    main()
