"""Sealed day files are read again in the background, so that a flipped bit or a missing file is found before somebody
needs what was in it.

A pass begins at the start and takes a twentieth of one core; the next one begins a day after the end of this one. A
pass that a stop cuts short goes on where it was. What it finds goes to quarantine, and the minutes are asked for again
(``Catalog.give_up``). How far it is lies in the ledger, under :data:`SCRUB`, for the tools.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import trio

from trio_candles.candles.model import Millis
from trio_candles.network.pacing import wall_floor
from trio_candles.store.schema import SCRUB
from trio_candles.store.store import Store, StoreUnavailable
from trio_candles.threads import Offload

__all__ = ["keep_scrubbing"]

log = logging.getLogger(__name__)

SHARE = 1 / 20
"""Of one core, at most."""
DAYS_AT_ONCE = 8
"""Sealed days between two pauses: some 50 files, a few ms, for which a commit may have to wait."""
PAUSE = 0.1
"""Wall seconds between two such groups, at least."""
SAID_EVERY = 10.0
"""Wall seconds between two notes of how far the pass is."""
NEXT_PASS = 86_400.0
"""Service seconds from the end of a pass to the beginning of the next."""
RETRY_SECONDS = 10.0
"""Service seconds until a disk that cannot be read is tried again."""


async def keep_scrubbing(store: Store, now: Callable[[], Millis | None], speed: float, offload: Offload) -> None:
    """Scrub for ever. *now* gives the time, or ``None`` while the clock is not believed."""
    while True:
        try:
            await _one_pass(store, now, speed, offload)
            wait = NEXT_PASS
        except StoreUnavailable as error:
            log.warning("sealed days cannot be read again now: %s", error)
            wait = RETRY_SECONDS
        await trio.sleep(wait)


async def _one_pass(store: Store, now: Callable[[], Millis | None], speed: float, offload: Offload) -> None:
    progress = await offload(store.ask, _begun, store, now())
    if progress["place"] == [0, 0]:
        log.info("scrub: %d sealed days are read again", progress["of"])
    place: tuple[int, int] | None = (progress["place"][0], progress["place"][1])
    said = trio.current_time()
    for series in await offload(store.ask, store.journal.spans):
        for timeframe in await offload(store.timeframes_in, series):
            await _paced(speed, partial(offload, store.set_strays_aside, series, timeframe))
    while place is not None:
        place, days = await _paced(speed, partial(offload, store.scrub, place, DAYS_AT_ONCE))
        progress["days"] += days
        if place is not None and trio.current_time() >= said + wall_floor(SAID_EVERY, speed):
            said = trio.current_time()
            progress["place"] = list(place)
            await offload(_note, store, progress)
    # Nothing that lasts is derived from a clock that nobody vouches for.
    while (ended := now()) is None:  # noqa: ASYNC110  (this waits once a day, and for seconds)
        await trio.sleep(RETRY_SECONDS)
    await offload(_note, store, {**progress, "place": [0, 0], "ended_ms": ended})
    log.info("scrub: %d sealed days were read again", progress["days"])


async def _paced(speed: float, work: Callable[[], Any]) -> Any:  # noqa: ANN401
    """*work*, and a pause after it, so that both together take :data:`SHARE` of a core."""
    began = trio.current_time()
    result = await work()
    spent = trio.current_time() - began
    await trio.sleep(max(spent * (1 / SHARE - 1), PAUSE * speed))
    return result


def _begun(store: Store, now: Millis | None) -> dict[str, Any]:
    """Where the pass begins: at the beginning, or where the last one was cut short."""
    try:
        before = json.loads(store.journal.meta()[SCRUB])
        if before["ended_ms"] is None and before["place"] != [0, 0]:
            begun: dict[str, Any] = {**before, "of": store.journal.sealed.count()}
            return begun
    except (LookupError, ValueError, TypeError):
        pass  # there was none, or somebody has changed it: it begins anew
    begun = {"began_ms": now, "ended_ms": None, "days": 0, "of": store.journal.sealed.count(), "place": [0, 0]}
    store.journal.remember(**{SCRUB: json.dumps(begun)})
    return begun


def _note(store: Store, progress: dict[str, Any]) -> None:
    with store.guarded():
        store.journal.remember(**{SCRUB: json.dumps(progress)})
