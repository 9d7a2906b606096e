"""What all probes share: questions that show whether a venue's REST still does what our code takes for granted.

A probe asks about one symbol, preferably a busy one, and gives a finding for each assumption. A difference from what
was once measured passes if the code handles both ways, and fails if it does not: better to learn of it before a start
than from gaps that stay open. Like a fill, a probe is a generator that yields requests and is sent answers; it decodes
rows with decoders of its own, not with the decoders whose assumptions it tests.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from itertools import pairwise
from typing import Literal

import attrs

from trio_candles.candles.model import MINUTE, Millis, floor_to
from trio_candles.venues.history import GRACE, Answer, Request

__all__ = [
    "Clock",
    "Finding",
    "Probe",
    "ProbedRow",
    "Status",
    "as_assumed",
    "check_columns",
    "check_forming_row",
    "check_trade_ids",
    "must_hold",
    "order_of",
]

Status = Literal["pass", "warn", "fail"]


@attrs.frozen
class Finding:
    """What a probe found out about one assumption."""

    name: str
    status: Status
    detail: str


Clock = Callable[[], Millis]
"""Returns the time at the venue in Unix ms; handed in, and called when an answer has come."""
Probe = Generator[Request, Answer, list[Finding]]
"""Raises the errors of :mod:`~trio_candles.venues.history`."""


# --- checks of rows and trades that all venues share -------------------------------------------------------


@attrs.frozen
class ProbedRow:
    """A row in the columns that we assume; *time* is its open time in Unix ms."""

    time: int
    open: float
    high: float
    low: float
    close: float
    volume: float
    vwap: float | None = None


def check_columns(rows: Sequence[ProbedRow]) -> Finding:
    """Whether the columns are what we take them for: prices in each other's bounds, times on the minute."""
    name = "columns"
    if not rows:
        return Finding(name, "warn", "not seen: there is no row")
    for row in rows:
        average = row.vwap if row.vwap is not None else row.close
        # A venue's average is rounded to the tick, or is a quotient of rounded sums.
        slack = 1e-3 * row.high
        if (
            row.time % MINUTE
            or not 0 < row.low <= min(row.open, row.close) <= max(row.open, row.close) <= row.high
            or not row.low - slack <= average <= row.high + slack
            or row.volume < 0
        ):
            return Finding(name, "fail", f"a row is no candle, read as we read it: {row}"[:200])
    return Finding(name, "pass", f"{len(rows)} rows are candles, in the columns that we assume")


def order_of(times: Sequence[int]) -> str:
    """The order of rows that open at *times*, in words."""
    steps = {(later > earlier) - (later < earlier) for earlier, later in pairwise(times)}
    return {1: "oldest first", -1: "newest first"}.get(steps.pop(), "with repetitions") if len(steps) == 1 else "mixed"


def as_assumed(name: str, found: str, assumed: str) -> Finding:
    """A pass, with a note if *found* is not what was *assumed*: the code handles both."""
    note = ", as assumed" if found == assumed else f" ({assumed} was assumed; the code handles both)"
    return Finding(name, "pass", found + note)


def must_hold(name: str, holds: bool, assumed: str, found: str) -> Finding:
    """A pass if the assumption *holds*, else a failure, because the code relies on it; *found* says what was seen."""
    return Finding(name, "pass", f"{assumed}, as assumed") if holds else Finding(name, "fail", found)


def check_forming_row(newest: int, now: Millis) -> Finding:
    """Whether the forming minute's row is among the others, unmarked."""
    minute = floor_to(now, MINUTE)
    if newest > minute + MINUTE:  # one minute may turn while we ask
        return Finding("forming row", "fail", f"a row opens {(newest - now) / 1000:.0f} s from now")
    return as_assumed("forming row", "there, unmarked" if newest >= minute else "not there", "there, unmarked")


def check_trade_ids(trades: Iterable[tuple[int, int]]) -> Finding:
    """Whether the ids of *trades* (id, time in ms) have no hole, and their times go back by no more than ``GRACE``."""
    name, by_id = "trade ids", sorted(trades)
    if len(by_id) < 2:
        return Finding(name, "warn", f"not seen: {len(by_id)} trades")
    ids = [id for id, _ in by_id]
    holes = ids[-1] - ids[0] + 1 - len(set(ids))
    if holes:
        return Finding(name, "fail", f"{holes} of the {ids[-1] - ids[0] + 1} ids are missing from one page")
    latest = by_id[0][1]
    for id, time in by_id:
        if time < latest - GRACE:
            return Finding(name, "fail", f"trade {id} is {(latest - time) / 1000:.1f} s earlier than one before it")
        latest = max(latest, time)
    return Finding(name, "pass", f"{len(ids)} trades in a row without a hole, in order of time")
