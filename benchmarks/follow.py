"""Following: how soon another process has a change, how fast a follower catches up, and what followers cost.

    python benchmarks/follow.py [--quick]

Prints JSON lines. Absolute times are this machine's; the ratios and the shares of one core are what is compared.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from trio_candles import follow_sync
from trio_candles.candles.model import MINUTE, Candle, Millis, Series, Source
from trio_candles.store.store import Store, open_store

BEGIN = Millis(1_768_089_600_000)


def series_of(count: int) -> list[Series]:
    return [Series("okx", f"A{number}-USDT") for number in range(count)]


def candle(series: Series, minute: int) -> Candle:
    time_, price = Millis(BEGIN + minute * MINUTE), 100.0 + minute % 7
    return Candle(
        series, time_, price, price + 1, price - 1, price + 0.5, 1.5, 150.0, price, 7, Source.WEBSOCKET,
        Millis(time_ + MINUTE + 200), Millis(time_ + MINUTE),
    )  # fmt: skip


def close(store: Store, series: Sequence[Series], minute: int) -> None:
    """A minute of all *series* closes."""
    store.commit([candle(one, minute) for one in series], Millis(BEGIN + (minute + 1) * MINUTE + 500))


def say(**values: object) -> None:
    print(json.dumps(values), flush=True)


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


# --- commit → another process has it


def listen(root: str, after: str, pipe: Connection) -> None:
    with follow_sync(root, after=after) as changes:
        pipe.send(None)
        for change in changes:
            pipe.send((change.open_time_ms, time.monotonic()))


def latency(commits: int) -> None:
    with tempfile.TemporaryDirectory() as root, open_store(Path(root)) as store:
        (one,) = series_of(1)
        store.expect([one], BEGIN, BEGIN)
        pipe, other = multiprocessing.Pipe()
        process = multiprocessing.Process(target=listen, args=(root, "oldest", other), daemon=True)
        process.start()
        pipe.recv()
        delays = []
        for minute in range(commits):
            close(store, [one], minute)
            committed = time.monotonic()
            _, came = pipe.recv()
            delays.append((came - committed) * 1000)
            time.sleep(0.013 + 0.007 * (minute % 5))
        process.kill()
        process.join()
    say(
        what="commit to another process",
        p50_ms=round(percentile(delays, 0.5), 1),
        p99_ms=round(percentile(delays, 0.99), 1),
    )


# --- catching up


def catch_up(count: int, minutes: int, timeframes: list[str]) -> None:
    with tempfile.TemporaryDirectory() as root:
        series = series_of(count)
        with open_store(Path(root)) as store:
            store.expect(series, BEGIN, BEGIN)
            for minute in range(minutes):
                close(store, series, minute)
            while waiting := store.waiting():
                store.flush(waiting)
        began = time.process_time()
        told = sum(1 for _ in follow_sync(root, timeframes=timeframes, after="oldest", timeout=0))
        seconds = time.process_time() - began
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    say(
        what="catching up",
        series=count,
        timeframes=timeframes,
        changes=told,
        changes_a_second=round(told / seconds),
        most_mb=most,
    )


# --- what followers cost


def idle(root: str, pipe: Connection) -> None:
    with follow_sync(root) as changes:
        pipe.send(None)
        for _ in changes:
            if pipe.poll():
                break
    pipe.send(time.process_time())


def crowd(followers: int, count: int, minutes: int) -> None:
    """The collector's CPU for each minute, without followers and with them, a minute taking ten seconds."""
    spent = {}
    for some in (0, followers):
        with tempfile.TemporaryDirectory() as root, open_store(Path(root)) as store:
            series = series_of(count)
            store.expect(series, BEGIN, BEGIN)
            close(store, series, 0)
            pipes = [multiprocessing.Pipe() for _ in range(some)]
            processes = [multiprocessing.Process(target=idle, args=(root, other), daemon=True) for _, other in pipes]
            for process in processes:
                process.start()
            for pipe, _ in pipes:
                pipe.recv()
            began = time.process_time()
            for minute in range(1, minutes + 1):
                close(store, series, minute)
            spent[some] = (time.process_time() - began) / minutes
            for process in processes:
                process.kill()
    say(
        what="followers beside a collector", followers=followers, series=count,
        collector_ms_a_minute=round(spent[0] * 1000), with_followers_ms=round(spent[followers] * 1000),
        share_of_a_core=round((spent[followers] - spent[0]) / 60, 4),
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of everything")
    options = parser.parse_args()
    part = 10 if options.quick else 1
    latency(300 // part)
    for timeframes in (["1m"], ["1m", "5m", "1h"]):
        catch_up(60, 1440 // part, timeframes)
        catch_up(2500, 60 // part, timeframes)
    crowd(50 // part, 2500, 10 // part or 1)


if __name__ == "__main__":
    main()
