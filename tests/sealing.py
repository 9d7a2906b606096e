"""Days that are over and known, in a store; and what a directory says of every minute, sealed or not."""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import pyarrow.parquet as pq
from directories import BTC, DAY, MINUTE, at
from stores import candles

from trio_candles.candles.model import Candle, Empty, Millis, Reason, Series, Unsure, day_name
from trio_candles.store.store import Store

OVER = 1440 + 60
"""The minute from which on the day at midnight can be sealed."""
UNANSWERED = 2 * 1440
"""The minute from which on it is sealed although nobody compared its candles."""


def day_of(letters: str, day: int = 0, series: Series = BTC) -> list[Candle | Empty | Unsure]:
    """Verdicts on the first minutes of *day*, a letter each (c, e, g), the rest of the day being empty."""
    start = day * 1440
    verdicts: list[Candle | Empty | Unsure] = []
    for minute, letter in enumerate(letters, start):
        since, until = at(minute), at(minute + 1)
        if letter == "c":
            verdicts += candles(minute, minute + 1, series)
        elif letter == "g":
            verdicts.append(Unsure(series, since, until, Reason.DISCONNECTED, "lost"))
        else:
            verdicts.append(Empty(series, since, until, f"the ids say so, {minute}"))
    rest = Millis(at(start + len(letters)))
    if len(letters) == 1440:
        return verdicts
    return [*verdicts, Empty(series, rest, at(start + 1440), f"no trade since {rest}")]


def collect(store: Store, *days: str, series: Series = BTC, timeframes: Iterable[str] = ("5m", "1h")) -> None:
    """Days from midnight on, and their files."""
    store.aggregate(tuple(timeframes))
    store.expect([series], at(0), at(0))
    for day, letters in enumerate(days):
        store.commit(day_of(letters, day, series), at((day + 1) * 1440))
    assert store.flush(store.waiting()).error is None


def seal(store: Store, minute: float = UNANSWERED, *, filling: bool = True) -> None:
    """Seal what can be sealed at *minute*."""
    files = store.sealable(at(minute))
    assert store.seal(files, at(minute), filling=filling).error is None


def sealed(root: Path) -> dict[int, str]:
    """Day -> its minutes as letters, of every sealed day, read as the format has it."""
    with closing(sqlite3.connect(root / "journal.sqlite3")) as database:
        rows = database.execute("SELECT day_ms, minutes FROM sealed ORDER BY series_id, day_ms").fetchall()
    return {(day - at(0)) // DAY: zlib.decompress(minutes).decode() for day, minutes in rows}


def open_days(root: Path) -> list[int]:
    with closing(sqlite3.connect(root / "journal.sqlite3")) as database:
        rows = database.execute("SELECT day_ms FROM open_day ORDER BY series_id, day_ms").fetchall()
    return [(day - at(0)) // DAY for (day,) in rows]


def path(day: int = 0, series: Series = BTC, timeframe: str = "1m") -> str:
    return f"{series.venue}/{series.folder}/{timeframe}/{day_name(Millis(at(0) + day * DAY))}.parquet"


def in_file(root: Path, day: int = 0, series: Series = BTC) -> dict[str, object] | None:
    """The account in the metadata of a day's file of minutes; ``None`` if there is none."""
    text = pq.read_metadata(root / path(day, series)).metadata.get(b"trio_candles.account")
    return None if text is None else json.loads(text)


def spans(root: Path, table: str) -> list[tuple[int, int]]:
    """The spans of a table, in minutes from midnight."""
    with closing(sqlite3.connect(root / "journal.sqlite3")) as database:
        rows = database.execute(f"SELECT since_ms, until_ms FROM {table} ORDER BY since_ms").fetchall()
    return [((low - at(0)) // MINUTE, (high - at(0)) // MINUTE) for low, high in rows]
