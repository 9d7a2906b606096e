"""What the collector's repeated looks cost beside many rows: they are to cost what is due, not what is there.

A ledger of 60 series is filled, by SQL, with so many rows of one kind, all in one series or the same number in each.
Then what the collector does again and again is done on it, by the same code::

    look        all that REST may be asked next, of three venues, and the minutes in open gaps: every 5 s
    commit      one minute of 60 series: candles, empty minutes and gaps
    page        an answer in vain about 298 minutes, whose absence is noted
    flush       which days have candles to be saved, or aggregates behind their minutes
    read        ``read_candles`` of the last half hour, of the series with the most rows
    tidy        the longest transaction of those in which old history is let go of

    python benchmarks/looks.py
    python benchmarks/looks.py --sizes 500000 --kinds open,events --json

README.md, beside this file, says how to read the table.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import attrs

from trio_candles import read_candles
from trio_candles.candles.documents import CandleDocument, to_json
from trio_candles.candles.model import (
    DAY,
    MINUTE,
    Attempt,
    Candle,
    Empty,
    Finding,
    Millis,
    Reason,
    Series,
    Source,
    Unsure,
    Verdict,
)
from trio_candles.collector.backlog import Backlog
from trio_candles.store.journal import Journal
from trio_candles.store.schema import JOURNAL
from trio_candles.venues.registry import VENUES

NOW = Millis(1_798_761_600_000 + 12 * 60 * MINUTE)
"""2027-01-01 12:00:00 UTC."""
VENUE = {"okx": "-", "kraken": "/", "coinbase": "-"}
"""The venues, and what is between a symbol's two assets."""
SERIES = tuple(Series(venue, f"C{n:02}{mark}USD") for venue, mark in VENUE.items() for n in range(20))
SIZES = (10_000, 100_000, 500_000)
LATEST = 60
"""So many minutes of each series wait as candles, behind the rows."""
ROUNDS = 5
PAGE = 298
TARGETS = {"look": 10.0, "read": 10.0}
"""Ms, at the most rows."""

Table = Iterator[tuple[object, ...]]


def candle_of(series: Series, minute: int) -> Candle:
    """A candle like any other."""
    price, open_time = 40_000.5, Millis(minute)
    return Candle(
        series, open_time, price, price + 1, price - 1, price, 2.5, 250.0, price, 7, Source.WEBSOCKET,
        Millis(open_time + MINUTE + 100), Millis(open_time + MINUTE),
    )  # fmt: skip


# --- a ledger with many rows ------------------------------------------------------------------------------


def gaps(state: str) -> Callable[[int, int, int], tuple[object, ...]]:
    """Makes rows of ``gap``; every other minute is one."""
    values = (state, "unproven", "", NOW, 0, None, 0, None, None)
    return lambda number, id_, minute: (number, id_, minute, minute + MINUTE, *values)


def revisions(outcome: str) -> Callable[[int, int, int], tuple[object, ...]]:
    """Makes rows of ``revision``, each of a minute of its own."""
    stored = to_json(CandleDocument.of(candle_of(SERIES[0], NOW)))
    offered = to_json(attrs.evolve(CandleDocument.of(candle_of(SERIES[0], NOW)), high=41_000.5, source=Source.REST))
    return lambda number, id_, minute: (number, NOW, id_, minute, stored, offered, outcome, minute)


def event(number: int, id_: int, minute: int) -> tuple[object, ...]:
    """A row of ``gap_event``: half of them absences."""
    word = "absent" if number % 2 else "stored"
    return minute + MINUTE, id_, minute, minute + MINUTE, word, "made up"


def empty(_number: int, id_: int, minute: int) -> tuple[object, ...]:
    """A row of ``empty``."""
    return id_, minute, minute + MINUTE, "no trade between 17 and 18"


KINDS: dict[str, tuple[str, Callable[[int, int, int], tuple[object, ...]]]] = {
    "open": ("gap", gaps("open")),
    "unfillable": ("gap", gaps("unfillable")),
    "empties": ("empty", empty),
    "doubts": ("revision", revisions("open")),
    "revisions": ("revision", revisions("kept")),
    "events": ("gap_event", event),
}
"""Kind → its table, and what makes a row, given the row's number, the series' id, and a minute."""


def fill(path: Path, kind: str, count: int, width: int) -> None:
    """A journal with *count* rows of *kind* in the first *width* series, every other minute up to an hour ago."""
    each = count // width
    end = NOW - LATEST * MINUTE
    with closing(Journal.open(path, lambda series, minute: None)) as journal:
        for series in SERIES:  # one after the other: each begins with its first row
            rows = each if series in SERIES[:width] else 0
            journal.expect([series], Millis(end - 2 * rows * MINUTE), Millis(end - 2 * rows * MINUTE))
        journal.aggregate(["5m", "1h"], [])
        journal.remember(kind="real")
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE series SET mark_ms = ?, expected = 1", (end,))
    with closing(Journal.open(path, lambda series, minute: None)) as journal:
        for minute in range(end, NOW, MINUTE):
            journal.commit([candle_of(series, minute) for series in SERIES], NOW)
    table, make = KINDS[kind]
    with closing(sqlite3.connect(path)) as database, database:
        for place in range(len(SERIES)):
            (first,) = database.execute("SELECT first_ms FROM series WHERE id = ?", (place + 1,)).fetchone()
            days = [(place + 1, day, day) for day in range(first - first % DAY, end, DAY)]
            database.executemany("INSERT OR IGNORE INTO open_day VALUES (?, ?, ?)", days)
            if place < width:
                rows = (make(place * each + n + 1, place + 1, first + 2 * n * MINUTE) for n in range(each))
                marks = ", ".join("?" * len(make(0, 0, 0)))
                database.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)


# --- what is done again and again -------------------------------------------------------------------------


def median_ms(work: Callable[[int], object], rounds: int = ROUNDS) -> float:
    """The median of the ms of CPU time that *work* takes, in so many rounds."""
    found = []
    for number in range(rounds):
        began = time.process_time()
        work(number)
        found.append((time.process_time() - began) * 1e3)
    return statistics.median(found)


def measure(kind: str, count: int, width: int) -> dict[str, float]:
    """Ms of CPU time of everything, beside *count* rows of *kind* in *width* series."""
    with tempfile.TemporaryDirectory(prefix="looks-") as folder:
        root = Path(folder)
        fill(root / JOURNAL, kind, count, width)
        began = time.process_time()
        journal = Journal.open(root / JOURNAL, lambda series, minute: None)
        found = {"open": (time.process_time() - began) * 1e3}
        with closing(journal):
            backlogs = [Backlog(VENUES[name].history) for name in VENUE]
            rows = range(NOW - (LATEST + 2 * count // width) * MINUTE, NOW - LATEST * MINUTE, MINUTE)
            first = SERIES[0]
            found["look"] = median_ms(lambda _: look(journal, backlogs))
            found["commit"] = median_ms(lambda number: journal.commit(minute(NOW + number * MINUTE), later(number)))
            found["page"] = median_ms(lambda number: journal.commit([in_vain(first, rows, number)], NOW))
            found["flush"] = median_ms(lambda _: (journal.waiting_days(), journal.underived_days()))
            found["read"] = median_ms(
                lambda _: read_candles(root, first.venue, first.symbol, start=NOW - 30 * MINUTE, end=NOW)
            )
            found["tidy"] = longest_tidy(journal)
        return found


def look(journal: Journal, backlogs: list[Backlog]) -> None:
    """As the writer does."""
    for one in backlogs:
        one.look(journal, NOW)
    journal.gaps.open_minutes(NOW)


def minute(open_time: int) -> list[Verdict | Finding]:
    """One minute of every series: two thirds are candles."""
    since, until = Millis(open_time), Millis(open_time + MINUTE)
    found: list[Verdict | Finding] = []
    for place, series in enumerate(SERIES):
        match place % 6:
            case 0:
                found.append(Empty(series, since, until, "no trade between 17 and 18"))
            case 1:
                found.append(Unsure(series, since, until, Reason.UNPROVEN))
            case _:
                found.append(candle_of(series, open_time))
    return found


def later(number: int) -> Millis:
    """When the minute *number* after now has ended."""
    return Millis(NOW + (number + 1) * MINUTE + 500)


def in_vain(series: Series, rows: range, number: int) -> Attempt:
    """An answer without any of a page's minutes; each time of another page."""
    since = rows[len(rows) * (number + 1) // (ROUNDS + 2)]
    return Attempt(series, Millis(since), Millis(since + PAGE * MINUTE), "none of it", absent=True)


def longest_tidy(journal: Journal) -> float:
    """Ms of CPU time of the longest transaction in which old history is let go of."""
    longest, more = 0.0, True
    while more:
        began = time.process_time()
        more = bool(journal.tidy(Millis(NOW + 3 * DAY)))
        longest = max(longest, (time.process_time() - began) * 1e3)
    return longest


# --- the run ----------------------------------------------------------------------------------------------


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="rows (default: %(default)s)")
    parser.add_argument("--kinds", default=",".join(KINDS), help="of what (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print everything as JSON instead of the table")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    found = []
    for kind in options.kinds.split(","):
        for width in (len(SERIES), 1):
            for size in map(int, options.sizes.split(",")):
                figures = measure(kind, size, width)
                if not found and not options.json:
                    names = "".join(f"{name:>9}" for name in figures)
                    print(f"{'ms of CPU time':<16}{'series':>7}{'rows':>9}{names}")
                found.append({"kind": kind, "series": width, "rows": size, **figures})
                if not options.json:
                    line = "".join(f"{value:>9.1f}" for value in figures.values())
                    print(f"{kind:<16}{width:>7}{size:>9,}{line}", flush=True)
    if options.json:
        print(json.dumps({"python": platform.python_version(), "sqlite": sqlite3.sqlite_version, "found": found}))
    missed = [
        f"{one['kind']} in {one['series']} series: {name} takes {one[name]:.1f} ms of {limit:.0f}"
        for one in found for name, limit in TARGETS.items() if one["rows"] == max(SIZES) and one[name] > limit
    ]  # fmt: skip
    print("\n".join(missed), file=sys.stderr)
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
