"""What is proven sound in a broken journal: candles that waited in it, sealed days, and empty minutes.

A row of ``candle`` or ``sealed`` has a checksum, so each that matches is believed, even if its neighbours cannot be
read. Its series is known by a number only; the name that belongs to the number lies twice in the file, in ``series``
and in the index of that table, and is believed where the two agree. A span in ``empty`` has no checksum. The spans are
believed all together or not at all: where SQLite finds that the table and its index agree, and each span is one of
whole minutes and after the one before (no single bit turns a whole minute into another one).

Gaps of open days, marks, attempts and revisions are not salvaged: minutes that are nothing else become gaps and are
asked for again.
"""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import attrs

from trio_candles.candles.intervals import Interval, minutes, subtract, union
from trio_candles.candles.model import MINUTE, Candle, Millis, Series
from trio_candles.store.accounts import SEALED, AccountBroken, SealedDay, sealed_day
from trio_candles.store.disk import LOCAL_DISK
from trio_candles.store.opening import OtherFormat
from trio_candles.store.schema import JOURNAL, TMP
from trio_candles.store.verdicts import CANDLE, LedgerBroken, candle_of

__all__ = ["Salvaged", "keep_copy", "salvage"]

log = logging.getLogger(__name__)

COPY = f"{TMP}/{JOURNAL}"
"""The copy of a broken journal, from which a rebuilding salvages; removed by the recovery that follows."""

EmptySpan = tuple[Millis, Millis, str]
"""Since, until, evidence."""


@attrs.frozen
class Salvaged:
    """What is sound, by series; all of it oldest first."""

    candles: Mapping[Series, list[Candle]] = attrs.field(factory=dict)
    empties: Mapping[Series, list[EmptySpan]] = attrs.field(factory=dict)
    sealed: Mapping[Series, dict[Millis, SealedDay]] = attrs.field(factory=dict)
    """By day. Whether the day's file is still what was sealed is for whoever has the file."""

    def spans(self, series: Series) -> list[Interval]:
        """The minutes of *series* that are a candle or empty."""
        candles, empties = self.candles.get(series, ()), self.empties.get(series, ())
        return [*((one.open_time, one.close_time) for one in candles), *((low, high) for low, high, _ in empties)]

    def beside(
        self, stored: Mapping[Series, Sequence[Interval]], known: Mapping[Series, Sequence[Interval]]
    ) -> Salvaged:
        """What is neither *stored* in day files nor said twice. A candle goes before empty, and an empty minute is left
        out where anything is *known* of it. Both are spans, oldest first.
        """
        candles = {}
        for series, some in self.candles.items():
            waiting = ((one.open_time, one.close_time) for one in some)
            left = set(minutes(subtract(waiting, stored.get(series, ()))))
            if left:
                candles[series] = [one for one in some if one.open_time in left]
        empties = {}
        for series, spans in self.empties.items():
            waiting = ((one.open_time, one.close_time) for one in candles.get(series, ()))
            taken = list(union(sorted([*known.get(series, ()), *waiting])))
            left_over = [
                (Millis(low), Millis(high), evidence)
                for since, until, evidence in spans
                for low, high in subtract([(since, until)], taken)
            ]
            if left_over:
                empties[series] = left_over
        return attrs.evolve(self, candles=candles, empties=empties)


def keep_copy(root: Path) -> None:
    """Copy the broken journal of *root*, with its log, durably, to where :func:`salvage` finds it.

    A copy, because SQLite changes what it reads; made before the journal is set aside, so that a rebuilding that is cut
    short salvages when it is done again. ``OSError`` if the disk is full.
    """
    for suffix in ("-wal", "-shm", ""):  # an older copy must not lend its log to this one
        LOCAL_DISK.remove(root / (COPY + suffix))
    for suffix in ("", "-wal"):
        original, copy = root / (JOURNAL + suffix), root / (COPY + suffix)
        if original.is_file():
            shutil.copyfile(original, copy)
            with copy.open("rb+") as file:
                os.fsync(file.fileno())
    LOCAL_DISK.sync_folder(root / TMP)


def salvage(root: Path, known: Collection[Series]) -> Salvaged:
    """What is sound in the copy of a broken journal, if there is one. *known* are the series that have day files."""
    if not (root / COPY).is_file():
        return Salvaged()
    try:
        with closing(sqlite3.connect(root / COPY, isolation_level=None)) as database:
            database.text_factory = lambda text: text.decode(errors="surrogateescape")
            by_id = _series(database, {one.path: one for one in known})
            return Salvaged(_candles(database, by_id), _empties(database, by_id), _sealed(database, by_id))
    except sqlite3.Error as error:
        log.warning("nothing can be salvaged from the broken journal: %s", error)
        return Salvaged()


def _readable(database: sqlite3.Connection, query: str) -> Iterator[tuple[Any, ...]]:
    """The rows of *query*, as far as they can be read."""
    try:
        yield from database.execute(query)
    except sqlite3.DatabaseError as error:
        log.warning("the broken journal cannot be read any further: %s", error)


def _series(database: sqlite3.Connection, known: Mapping[str, Series]) -> dict[int, Series]:
    """Number → 1m series, where the table and its index agree."""
    query = "SELECT id, venue, symbol, timeframe FROM series {} WHERE timeframe = '1m'"
    rows, index = (
        set(_readable(database, query.format(how))) for how in ("NOT INDEXED", "INDEXED BY sqlite_autoindex_series_1")
    )
    folders = dict(_readable(database, "SELECT id, folder FROM series NOT INDEXED"))
    by_id = {}
    for id_, venue, symbol, timeframe in rows & index:
        one = Series(venue, symbol, timeframe, folders.get(id_))
        try:
            path = one.path
        except (ValueError, TypeError):
            continue
        # A folder lies in the file once only: it is believed if there are day files in it.
        if folders.get(id_) is None or known.get(path) == one:
            by_id[id_] = one
    if not {*known.values()} <= {*by_id.values()}:  # a name was changed in both places: it may be anyone's
        return {id_: one for id_, one in by_id.items() if one.path in known}
    return by_id


def _candles(database: sqlite3.Connection, by_id: Mapping[int, Series]) -> dict[Series, list[Candle]]:
    found: dict[tuple[Series, Millis], Candle] = {}
    for order in ("ASC", "DESC"):  # from both ends towards what cannot be read
        for row in _readable(database, f"SELECT {CANDLE} FROM candle NOT INDEXED ORDER BY rowid {order}"):
            try:
                one = candle_of(by_id[row[0]], row)
            except (LedgerBroken, OtherFormat, LookupError, TypeError):
                continue
            found[one.series, one.open_time] = one
    candles: dict[Series, list[Candle]] = {}
    for (series, _), one in sorted(found.items(), key=lambda item: item[0][1]):
        candles.setdefault(series, []).append(one)
    return candles


def _sealed(database: sqlite3.Connection, by_id: Mapping[int, Series]) -> dict[Series, dict[Millis, SealedDay]]:
    found: dict[Series, dict[Millis, SealedDay]] = {}
    if not list(_readable(database, "SELECT 1 FROM sqlite_master WHERE name = 'sealed'")):
        return found  # an earlier version's journal
    for order in ("ASC", "DESC"):
        query = f"SELECT series_id, {SEALED} FROM sealed NOT INDEXED ORDER BY rowid {order}"
        for id_, *row in _readable(database, query):
            with suppress(AccountBroken, LookupError, TypeError):
                one = sealed_day(by_id[id_], row)
                days = found.setdefault(one.account.series, {})
                if one.account.day in days:
                    break  # both ends have met
                days[one.account.day] = one
    return found


def _empties(database: sqlite3.Connection, by_id: Mapping[int, Series]) -> dict[Series, list[EmptySpan]]:
    if sqlite3.sqlite_version_info < (3, 33):  # it checks the whole file or nothing
        return {}
    for table in ("empty", "series"):
        if list(_readable(database, f"PRAGMA integrity_check('{table}')")) != [("ok",)]:
            return {}
    empties: dict[Series, list[EmptySpan]] = {}
    rows = _readable(database, "SELECT series_id, since_ms, until_ms, evidence FROM empty ORDER BY series_id, since_ms")
    for id_, since, until, evidence in rows:
        if id_ not in by_id:
            continue
        spans = empties.setdefault(by_id[id_], [])
        whole = all(isinstance(time, int) and time % MINUTE == 0 for time in (since, until))
        if not whole or since >= until or (spans and since < spans[-1][1]) or not isinstance(evidence, str):
            return {}
        spans.append((Millis(since), Millis(until), evidence))
    return empties
