"""The ledger → facts: one transaction beside the live collector, whose cost does not grow with the ledger's history.

Gaps are read through their index for the newest day, and open gaps are counted; revisions of the last day are counted
by an index, in whichever order a clock that was set back has noted them; waiting candles are read from their newest
end; empties and day files are not read at all. SQLite checks no types: a value that is no whole number where a whole
number belongs makes the reading fail as a whole, with a text that says so, and never the tool.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from trio_candles.candles.delays import Delays, delays_in
from trio_candles.candles.intervals import length, subtract
from trio_candles.candles.model import DAY, MINUTE, Millis, Series, floor_to
from trio_candles.health.facts import Completeness, Live, OpenGaps, Published, Reading, Scrub, SeriesFacts, VenueState
from trio_candles.reading.errors import LedgerUnreadable, NoLedger, NoSuchDirectory, UnknownFormat
from trio_candles.reading.ledger import Account, GapTotals, Ledger, open_ledger
from trio_candles.store.lock import is_locked
from trio_candles.store.schema import DELAYS, LOCK, SCRUB

__all__ = ["SETTLED", "read_health", "read_ledger", "read_published"]

T = TypeVar("T")

ATTEMPTS = 3
"""To read a journal: a collector that starts or stops has the journal to itself for an instant."""
PAUSE_SECONDS = 0.2
HOUR = 3_600_000
SETTLED = 2 * MINUTE
"""Ms after which a closed minute counts as complete or missing, as for the audit; younger minutes are on their way."""
NEWEST_CANDLES = 20
"""Candles among which the newest live one is looked for; further back it would say little about now."""
LATEST = 10_413_792_000_000
"""The year 2300: no time in a ledger is later."""


def read_health(data_dir: Path, now: Callable[[], Millis], wanted: Sequence[Series] | None) -> Reading:
    """What *data_dir* says of the *wanted* series, or of those that its collector expects. Blocking.

    Never fails: why the journal cannot be read is in ``trouble``. *now* gives Unix ms, and is called once for a
    reading.
    """
    try:
        found = _take(data_dir, now, lambda ledger: read_ledger(ledger, ledger.now, _running(data_dir), wanted))
    except (NoSuchDirectory, NoLedger) as error:
        directory = isinstance(error, NoLedger)
        return Reading(now=now(), running=_running(data_dir), exists=False, directory=directory)
    return found if isinstance(found, Reading) else Reading(now=now(), running=_running(data_dir), trouble=found)


def read_published(data_dir: Path, now: Callable[[], Millis]) -> Published:
    """When the collector of *data_dir* published its state. Never fails, as :func:`read_health`."""
    try:
        found = _take(data_dir, now, _published)
    except (NoSuchDirectory, NoLedger):
        return Published(now=now())
    return found if isinstance(found, Published) else Published(now=now(), trouble=found)


def _published(ledger: Ledger) -> Published:
    at = max((state.at for state in _venues(ledger).values()), default=None)
    return Published(now=ledger.now, at=at, stopped_at=_stopped_at(ledger))


def _stopped_at(ledger: Ledger) -> int | None:
    stopped = ledger.meta.get("stopped_at_ms")
    return None if stopped is None else _time(int(stopped))


def _take(data_dir: Path, now: Callable[[], Millis], take: Callable[[Ledger], T]) -> T | str:
    """What *take* finds in the ledger, or why the ledger cannot be read or makes no sense."""
    trouble = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            threading.Event().wait(PAUSE_SECONDS)
        try:
            with open_ledger(data_dir, now) as ledger:
                return take(ledger)
        except (NoSuchDirectory, NoLedger):
            raise
        except UnknownFormat as error:
            trouble = f"the journal makes no sense: its format is {error.found!r}; this version knows {error.known!r}"
        except LedgerUnreadable as error:
            trouble = f"the journal cannot be read: {error.why}"
        # A ledger that somebody broke need not keep to the types of its columns.
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            trouble = f"the journal makes no sense: {error}"
    return trouble


def read_ledger(ledger: Ledger, now: Millis, running: bool | None, wanted: Sequence[Series] | None) -> Reading:
    """The facts in *ledger*; ``ValueError`` or the like where its values make no sense."""
    accounts = {account.series: account for account in ledger.accounts()}
    expected = tuple(series for series, account in accounts.items() if account.expected)
    asked = expected if wanted is None else wanted
    open_gaps = ledger.open_gaps(accounts[series] for series in asked if series in accounts)
    revisions = ledger.revisions_since(now - DAY)
    facts = {}
    for series in asked:
        if series not in accounts:
            continue
        account = accounts[series]
        first, mark, last = _time(account.begin), _time(account.mark), account.last_candle
        if account.listed is not None:
            first = max(first, _time(account.listed))
        known_until, cause, gaps = _newest_known(ledger, account, now)
        hour, day = (_completeness(gaps, first, mark, now, span) for span in (HOUR, DAY))
        gap = open_gaps.get(account.id)
        facts[account.series] = SeriesFacts(
            mark=mark,
            known_until=known_until if known_until > first else None,
            cause=cause,
            last_candle=None if last is None else _time(last),
            live=_newest_live(ledger, account),
            hour=hour,
            day=day,
            open_gaps=None if gap is None else _open_gaps(gap),
            revisions=_whole(revisions.get(account.id, 0)),
        )
    meta = ledger.meta
    return Reading(
        now=now,
        running=running,
        expected=expected,
        series=facts,
        venues=_venues(ledger),
        store_errors=_store_errors(meta.get("store_errors")),
        rejections=_by_venue(ledger.rejections()),
        confirmations=_by_venue(ledger.confirmations()),
        scrub=_scrub(meta.get(SCRUB)),
        stopped_at=_stopped_at(ledger),
        latest=_time(int(meta["latest_ms"])) if "latest_ms" in meta else None,
    )


def _running(data_dir: Path) -> bool | None:
    try:
        return is_locked(data_dir / LOCK)
    except OSError:
        return None


def _newest_known(ledger: Ledger, account: Account, now: int) -> tuple[int, str, list[tuple[int, int]]]:
    """The end of the newest minute that is no gap, the reason of the gap after it, and the gaps of the last day.

    The gaps are disjoint, and are read as far back as they adjoin one another or touch the last day: what a look costs
    does not grow with history.
    """
    mark, reach = _time(account.mark), 2 * DAY
    while True:
        since = min(mark, _settled(now)) - reach
        newest, cause, gaps = mark, "", list[tuple[int, int]]()
        for gap in ledger.gaps(account, since, mark, newest_first=True):
            low, high = _time(gap.since), _time(gap.until)
            if high >= newest:
                newest, cause = min(newest, low), cause or str(gap.reason)
            elif high <= _settled(now) - DAY:
                break
            gaps.append((low, high))
        if newest > since or since <= account.begin:
            return newest, cause, gaps[::-1]
        reach *= 4


def _completeness(gaps: Sequence[tuple[int, int]], first: int, mark: int, now: int, span: int) -> Completeness:
    """How much is known of the last *span* ms of settled, expected minutes; *gaps* are at least those of that span."""
    end = _settled(now)
    since = max(end - span, first)
    return Completeness(length(subtract([(since, min(end, mark))], gaps)), max(0, end - since))


def _settled(now: int) -> int:
    return floor_to(now, MINUTE) - SETTLED


def _newest_live(ledger: Ledger, account: Account) -> Live | None:
    rows = ledger.newest_waiting(account, NEWEST_CANDLES)
    return next((Live(_time(at), _time(came)) for at, came, source in rows if source == "websocket"), None)


def _open_gaps(gaps: GapTotals) -> OpenGaps:
    oldest = gaps.oldest
    return OpenGaps(
        gaps.count, _whole(gaps.length), _time(oldest.first_seen), _time(oldest.since), _time(oldest.until),
        str(oldest.reason), str(oldest.detail), _whole(oldest.attempts),
        None if oldest.last_error is None else str(oldest.last_error),
    )  # fmt: skip


def _venues(ledger: Ledger) -> dict[str, VenueState]:
    delays = delays_in(ledger.meta.get(DELAYS))
    found = {}
    for venue, at, status, connected, *counts in ledger.venue_states():
        received, saved, reconnects, rejected = map(_whole, counts)
        found[str(venue)] = VenueState(
            _time(at), str(status), connected == 1, received, saved, reconnects, rejected,
            delays.get(str(venue), Delays()),
        )  # fmt: skip
    return found


def _by_venue(counts: Iterable[tuple[str, str, int]]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for venue, what, count in counts:
        found.setdefault(str(venue), {})[str(what)] = _whole(count)
    return found


def _whole(value: object) -> int:
    if not isinstance(value, int):
        raise ValueError(f"{value!r} is no whole number")
    return value


def _time(value: object) -> int:
    if not 0 <= _whole(value) <= LATEST:
        raise ValueError(f"{value!r} is no time between 1970 and 2300")
    return _whole(value)


def _store_errors(text: str | None) -> dict[str, str]:
    """Part of the store → why it cannot be written, from JSON *text*, which is absent while all is well. Raises
    ``ValueError`` or ``AttributeError`` for any other text.
    """
    return {} if text is None else {str(part): str(error) for part, error in json.loads(text).items()}


def _scrub(text: str | None) -> Scrub | None:
    """How far the scrub is, from JSON *text*, which is absent before the first; ``None`` also for any other text, in
    whose place the collector begins anew.
    """
    try:
        noted = {} if text is None else json.loads(text)
        began, ended = (None if noted[key] is None else _time(noted[key]) for key in ("began_ms", "ended_ms"))
        return Scrub(began, ended, _whole(noted["days"]), _whole(noted["of"]))
    except (ValueError, LookupError, TypeError):
        return None
