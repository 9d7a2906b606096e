"""The ledger → facts: one transaction beside the live collector, whose cost does not grow with the ledger's history.

Of ``gap``, the newest day is walked through its index, and what is open is counted; ``candle`` and ``revision`` are
read from their newest end; ``empty`` and the day files not at all. SQLite checks no types: what is no whole number
where one belongs makes the reading fail as a whole, in words, and never the tool.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from trio_candles.candles.model import DAY, MINUTE, Millis, Series, floor_to
from trio_candles.health.facts import Coverage, Live, OpenGaps, Reading, SeriesFacts, VenueState
from trio_candles.store.lock import is_locked
from trio_candles.store.schema import FORMAT, JOURNAL, LOCK, UPGRADES
from trio_candles.store.snapshot import open_snapshot

__all__ = ["SETTLED", "read_health", "read_ledger"]

ATTEMPTS = 3
"""At a journal that cannot be read at the moment: a collector that starts or stops has it to itself for an instant."""
PAUSE_SECONDS = 0.2
HOUR = 3_600_000
SETTLED = 2 * MINUTE
"""Ms after which a closed minute counts for the coverage; younger ones are still on their way, as for the audit."""
NEWEST_CANDLES = 20
"""Candles among which the newest live one is looked for; further back it would say little about now."""
LATEST = 10_413_792_000_000
"""The year 2300: no time in a ledger is later."""


def read_health(data_dir: Path, now: Callable[[], Millis], wanted: Sequence[Series] | None) -> Reading:
    """What *data_dir* says of the *wanted* series, or of those that its collector expects. Blocking.

    Never fails: what cannot be read is said in ``trouble``. *now* is asked once, at the moment that is read.
    """
    path = data_dir / JOURNAL
    trouble = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            threading.Event().wait(PAUSE_SECONDS)
        try:
            if not _is_there(path):
                there = data_dir.is_dir()
                return Reading(now=now(), running=_running(data_dir), exists=False, directory=there)
            with open_snapshot(path) as database:
                return read_ledger(database, now(), _running(data_dir), wanted)
        except (sqlite3.Error, OSError) as error:
            trouble = f"the journal cannot be read: {error}"
        # Whoever broke a ledger did not keep to the types of its columns.
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            trouble = f"the journal makes no sense: {error}"
    return Reading(now=now(), running=_running(data_dir), trouble=trouble)


def read_ledger(
    database: sqlite3.Connection, now: Millis, running: bool | None, wanted: Sequence[Series] | None
) -> Reading:
    """What an open transaction says; ``sqlite3.Error``, ``ValueError`` or the like where that makes no sense."""
    return _Look(database, now, running).read(wanted)


def _is_there(path: Path) -> bool:
    """``OSError`` where that cannot be told, for which ``path.exists()`` would say no since Python 3.14."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _running(data_dir: Path) -> bool | None:
    try:
        return is_locked(data_dir / LOCK)
    except OSError:
        return None


class _Look:
    """One look through an open transaction."""

    def __init__(self, database: sqlite3.Connection, now: Millis, running: bool | None) -> None:
        self._db = database
        self._now = now
        self._running = running

    def read(self, wanted: Sequence[Series] | None) -> Reading:
        meta = {str(key): str(value) for key, value in self._db.execute("SELECT key, value FROM meta")}
        version = meta.get("format")
        if version != FORMAT and version not in UPGRADES:
            raise ValueError(f"its format is {version!r}; this version knows {FORMAT!r}")
        newer = version != "1"  # an older journal is brought up when its collector starts
        rows = {
            Series(str(venue), str(symbol)): (id_, _time(first), _time(mark), last, expected)
            for id_, venue, symbol, first, mark, last, expected in self._db.execute(
                "SELECT id, venue, symbol, first_ms, mark_ms, last_candle_ms, expected FROM series"
                " WHERE timeframe = '1m' ORDER BY id"
            )
        }
        expected = tuple(series for series, row in rows.items() if row[4] == 1)
        listed = dict(self._db.execute("SELECT series_id, since_ms FROM listing")) if newer else {}
        open_gaps, revisions = self._open_gaps(), self._revisions()
        facts = {}
        for series in expected if wanted is None else wanted:
            if series not in rows:
                continue
            id_, first, mark, last, _ = rows[series]
            first = max(first, _time(listed.get(id_, 0)))
            known_until, cause, hour, day = self._walk(id_, first, mark)
            facts[series] = SeriesFacts(
                mark=mark,
                known_until=known_until,
                cause=cause,
                last_candle=None if last is None else _time(last),
                live=self._newest_live(id_),
                hour=hour,
                day=day,
                open_gaps=open_gaps.get(id_),
                revisions=revisions.get(id_, 0),
            )
        return Reading(
            now=self._now,
            running=self._running,
            expected=expected,
            series=facts,
            venues=self._venues() if newer else {},
            store_errors=_words(meta.get("store_errors")),
            rejections=self._counts("SELECT venue, reason, count FROM rejection"),
            confirmations=self._counts("SELECT venue, outcome, count FROM confirmation") if newer else {},
            stopped_at=_time(int(meta["stopped_at_ms"])) if "stopped_at_ms" in meta else None,
            latest=_time(int(meta["latest_ms"])) if "latest_ms" in meta else None,
        )

    def _walk(self, id_: int, first: int, mark: int) -> tuple[int | None, str, Coverage, Coverage]:
        """The end of the newest known minute, why nothing newer is known, and what is known of the last hour and day:
        from the gaps, which are disjoint, newest first, no further back than a day or than they follow on one another.
        """
        end = floor_to(self._now, MINUTE) - SETTLED
        spans = [(max(end - length, first), end) for length in (HOUR, DAY)]
        known = [max(0, min(until, mark) - since) for since, until in spans]
        newest, touching, cause = mark, True, ""
        gaps = self._db.execute(
            "SELECT since_ms, until_ms, reason FROM gap WHERE series_id = ? AND since_ms < ? ORDER BY since_ms DESC",
            (id_, mark),
        )
        for since, until, reason in gaps:
            touching = touching and _time(until) >= newest
            if touching:
                newest, cause = min(newest, _time(since)), cause or str(reason)
            elif until <= spans[-1][0]:
                break
            for index, (low, high) in enumerate(spans):
                known[index] -= max(0, min(until, high, mark) - max(since, low))
        hour, day = (Coverage(part, max(0, high - low)) for part, (low, high) in zip(known, spans, strict=True))
        return (newest if newest > first else None), cause, hour, day

    def _newest_live(self, id_: int) -> Live | None:
        rows = self._db.execute(
            "SELECT open_ms, ingest_ms, source FROM candle WHERE series_id = ? ORDER BY open_ms DESC LIMIT ?",
            (id_, NEWEST_CANDLES),
        )
        return next((Live(_time(at), _time(came)) for at, came, source in rows if source == "websocket"), None)

    def _open_gaps(self) -> dict[int, OpenGaps]:
        """By series. The one query that reads a table whole: it holds what is open or was given up, and is small."""
        rows = self._db.execute(
            "SELECT series_id, count(*), sum(until_ms - since_ms), min(first_seen_ms), since_ms, until_ms, reason,"
            " detail, attempts, last_error FROM gap WHERE state = 'open' GROUP BY series_id"
        )  # with min(), SQLite takes the other columns from the row that has it
        return {
            id_: OpenGaps(
                count, _whole(length), _time(seen), _time(since), _time(until), str(reason), str(detail),
                _whole(attempts), None if error is None else str(error),
            )
            for id_, count, length, seen, since, until, reason, detail, attempts, error in rows
        }  # fmt: skip

    def _revisions(self) -> dict[int, int]:
        """How many of the last day, by series; read from the newest back, as far as the day goes."""
        found: dict[int, int] = {}
        for id_, at in self._db.execute("SELECT series_id, at_ms FROM revision ORDER BY id DESC"):
            if _time(at) < self._now - DAY:
                break
            found[id_] = found.get(id_, 0) + 1
        return found

    def _venues(self) -> dict[str, VenueState]:
        rows = self._db.execute(
            "SELECT venue, at_ms, status, connected, received, saved, reconnects, rejected FROM venue_state"
        )
        return {
            str(venue): VenueState(_time(at), str(status), connected == 1, *map(_whole, counts))
            for venue, at, status, connected, *counts in rows
        }

    def _counts(self, query: str) -> dict[str, dict[str, int]]:
        found: dict[str, dict[str, int]] = {}
        for venue, word, count in self._db.execute(query):
            found.setdefault(str(venue), {})[str(word)] = _whole(count)
        return found


def _whole(value: object) -> int:
    if not isinstance(value, int):
        raise ValueError(f"{value!r} is no whole number")
    return value


def _time(value: object) -> int:
    if not 0 <= _whole(value) <= LATEST:
        raise ValueError(f"{value!r} is no time between 1970 and 2300")
    return _whole(value)


def _words(text: str | None) -> dict[str, str]:
    """What ``store_errors`` says; absent while all is well, and anything else than its form is no good news."""
    if text is None:
        return {}
    said = json.loads(text)
    return {str(part): str(error) for part, error in said.items()}
