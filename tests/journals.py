"""A journal in memory or in a file, verdicts by minutes from noon, and what the ledger makes of each minute."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path

import attrs
from directories import BTC

from trio_candles.candles.model import MINUTE, Candle, Empty, Millis, Reason, Series, Source, Unsure
from trio_candles.store.journal import Journal

NOON = Millis(1_768_046_400_000)
LATE = Millis(NOON + 10_000 * MINUTE)


def at(minute: float) -> Millis:
    """So many minutes after noon."""
    return Millis(int(NOON + minute * MINUTE))


def candle(minute: float, price: float = 100.0, series: Series = BTC, **changes) -> Candle:
    open_time = at(minute)
    return attrs.evolve(
        Candle(
            series, open_time, price, price + 1, price - 1, price, 2.5, 250.0, price, 7, Source.WEBSOCKET,
            Millis(open_time + MINUTE + 100), Millis(open_time + MINUTE),
        ),
        **changes,
    )  # fmt: skip


def empty(since: int, until: int, evidence: str = "no trade", series: Series = BTC) -> Empty:
    return Empty(series, at(since), at(until), evidence)


def unsure(since: int, until: int, reason: Reason = Reason.UNPROVEN, detail: str = "", series: Series = BTC) -> Unsure:
    return Unsure(series, at(since), at(until), reason, detail)


class Watched(Journal):
    """A journal whose database the tests may look into."""

    def __init__(self, database, stored_elsewhere) -> None:
        super().__init__(database, stored_elsewhere)
        self.database = database


@contextmanager
def journal_in(place: Path | str = ":memory:", elsewhere=lambda series, minute: None):
    journal = Watched.open(Path(place), elsewhere)
    try:
        yield journal
    finally:
        journal.abandon()


def rows(journal: Watched, query: str, *parameters):
    return journal.database.execute(query, parameters).fetchall()


def minutes(journal: Watched, series: Series = BTC) -> dict[int, tuple]:
    """What the ledger says of each minute, read minute by minute; fails if a minute is two things."""
    (number,) = rows(journal, "SELECT id FROM series WHERE venue = ? AND symbol = ?", series.venue, series.symbol)[0]
    said: dict[int, tuple] = {}

    def say(since: int, until: int, what: tuple) -> None:
        assert since < until
        for minute in range(since, until, MINUTE):
            assert minute not in said, f"{minute}: {said[minute]} and {what}"
            said[minute] = what

    for open_ms, price in rows(journal, "SELECT open_ms, open FROM candle WHERE series_id = ?", number):
        say(open_ms, open_ms + MINUTE, ("candle", price))
    for since, until in rows(journal, "SELECT since_ms, until_ms FROM empty WHERE series_id = ?", number):
        say(since, until, ("empty",))
    for since, until, reason, detail, seen, state in rows(
        journal, "SELECT since_ms, until_ms, reason, detail, first_seen_ms, state FROM gap WHERE series_id = ?", number
    ):
        assert state == "open"
        say(since, until, ("gap", reason, detail, seen))
    return said


def gaps(journal: Watched) -> list[tuple]:
    """(first minute, last minute + 1, reason), counted from noon."""
    return [
        ((since - NOON) // MINUTE, (until - NOON) // MINUTE, reason)
        for since, until, reason in rows(journal, "SELECT since_ms, until_ms, reason FROM gap ORDER BY since_ms")
    ]


def kinds(journal: Watched) -> str:
    """A letter for each minute from noon on: Candle, Empty, Gap."""
    return "".join(what[0][0].upper() for _, what in sorted(minutes(journal).items()))
