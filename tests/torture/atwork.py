"""A store at work, for those who kill it: what it accepts, and how to see afterwards whether it is all there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from torture.evidence import Key, Row, held_against, survey
from trio_candles.audit import audit
from trio_candles.candles.model import DAY, MINUTE, Candle, Millis, Series, Source
from trio_candles.store.disk import LOCAL_DISK, Disk
from trio_candles.store.store import Store, StoreUnavailable, open_store

SERIES = (Series("okx", "BTC-USDT"), Series("kraken", "BTC/USD"))
MIDNIGHT = Millis(1_768_089_600_000)
"""2026-01-11 00:00:00 UTC; the work begins shortly before, so that there are two day files a series."""
FIRST = Millis(MIDNIGHT - 3 * MINUTE)
LATE = Millis(MIDNIGHT + 2 * DAY)


def truth(key: Key) -> Row | None:
    """What every minute of this made-up market was."""
    n = key[2] // MINUTE % 1009
    return 100.0 + n, 103.0 + n, 98.5 + n, 101.25 + n, 0.125 * (1 + n % 7)


def candle(series: Series, minute: int) -> Candle:
    """The candle of *minute*, a number from :data:`FIRST` on."""
    time = Millis(FIRST + minute * MINUTE)
    row = truth((series.venue, series.symbol, time))
    assert row is not None
    source, end = Source.WEBSOCKET, Millis(time + MINUTE)
    return Candle(series, time, *row, None, None, None, source, Millis(end + 500), end)


def told(batch: list[Candle]) -> bytes:
    """What an acknowledgement says."""
    return b"".join(f"{one.series.venue} {one.series.symbol} {one.open_time}\n".encode() for one in batch)


def heard(text: bytes) -> dict[Key, Row]:
    """The candles that whole lines of *text* acknowledge."""
    found: dict[Key, Row] = {}
    for line in text.split(b"\n")[:-1]:
        venue, symbol, minute = line.decode().split(" ")
        key = venue, symbol, int(minute)
        row = truth(key)
        assert row is not None
        found[key] = row
    return found


def batches(since: int, until: int, size: int = 2) -> Iterator[list[Candle]]:
    """The minutes of [since, until), *size* at a time, of all series."""
    for minute in range(since, until, size):
        yield [candle(one, n) for one in SERIES for n in range(minute, min(until, minute + size))]


def work(root: Path, ears: int, since: int, until: int, disk: Disk = LOCAL_DISK) -> None:
    """Commit and flush, and tell the descriptor *ears* what was accepted; what is refused is left out."""
    with open_store(root, disk) as store:
        store.expect(SERIES, FIRST, FIRST)
        # Where the life before this one ended, or was refused.
        marks = {series: (mark - FIRST) // MINUTE for series, (_, mark) in store.expect(SERIES, FIRST, FIRST).items()}
        for batch in batches(since, until):
            fresh = [one for one in batch if (one.open_time - FIRST) // MINUTE >= marks[one.series]]
            with suppress(StoreUnavailable):
                store.commit(fresh, LATE)
                os.write(ears, told(fresh))
                marks |= {one.series: (one.close_time - FIRST) // MINUTE for one in fresh}
            _flush(store)


def _flush(store: Store) -> None:
    with suppress(StoreUnavailable):
        files = store.waiting()
        store.flush(files)


def after_all(root: Path, acknowledged: dict[Key, Row]) -> list[str]:
    """Start anew on *root*, write what waits, and say what is wrong then."""
    with open_store(root) as store:
        _flush(store)
    faults = held_against(survey(root), truth, acknowledged)
    report = audit(root, now=lambda: LATE, running=lambda: False, pauses=())
    faults += [f"audit: {one.kind} {one.path}: {one.detail}" for one in report.violations]
    faults += [f"left over: {path.name}" for path in (root / ".tmp").glob("*")]
    faults += [f"in quarantine: {path.name}" for path in (root / "quarantine").glob("*")]
    return faults
