"""What is on record of minutes of which feed and REST said different things; and that nothing changed otherwise."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Mapping, Set

from simulation.record import Record
from simulation.stored import MINUTE, Row
from simulation.trace import Broken

__all__ = ["judge_revisions"]

APART = MINUTE
NAMES = ("open", "high", "low", "close", "volume")


def judge_revisions(
    database: sqlite3.Connection,
    id_: int,
    venue: str,
    symbol: str,
    rows: Mapping[int, Row],
    record: Record,
    revised: Set[tuple[str, int]],
    acknowledged: Mapping[tuple[str, str, int], tuple[float, ...]],
    has_lied: bool,
) -> set[int]:
    """Raise :class:`Broken` for a revision without cause, and for a change without one; the minutes with a revision.

    Of minutes of which the venue said one thing only, there is none. A candle was replaced only by what two REST
    answers had said, a minute apart or more; and no stored candle is another one than was accepted but those.
    """
    name = f"{venue} {symbol}"
    told, replaced = set(), set()
    for minute, stored, offered, outcome in database.execute(
        "SELECT open_ms, stored, offered, outcome FROM revision WHERE series_id = ? ORDER BY id", (id_,)
    ):
        if (symbol, minute) not in revised and not record.revised_row(venue, symbol, minute):
            raise Broken(
                "revision", f"{name}: {minute} is {outcome}; stored {stored}, offered {offered}, and one was true"
            )
        told.add(minute)
        if outcome == "replaced":
            replaced.add(minute)
            if not has_lied:  # what a lying disk has lost since was filled anew, with what REST said then
                _judge_replaced(name, minute, rows.get(minute), json.loads(offered))
    for minute, row in rows.items():
        accepted = acknowledged.get((venue, symbol, minute))
        now = tuple(row[key] for key in NAMES)
        if accepted is not None and accepted != now and minute not in replaced and not has_lied:
            raise Broken("revision", f"{name}: {minute} was accepted as {accepted} and is {now}, and no word of it")
    return told


def _judge_replaced(name: str, minute: int, row: Row | None, offered: Mapping[str, float]) -> None:
    if row is None:
        raise Broken("revision", f"{name}: {minute} was replaced, and is not there")
    same = all(math.isclose(row[key], offered[key], rel_tol=1e-9) for key in NAMES)
    if not same or row["source"] != "rest" or offered["source"] != "rest":
        raise Broken("revision", f"{name}: {minute} was replaced by {offered}, and {row} is stored")
    if row["ingest_time_ms"] - offered["ingest_time_ms"] < APART:
        raise Broken(
            "revision", f"{name}: {minute} was replaced after one answer, or two of one moment: {offered}, {row}"
        )
