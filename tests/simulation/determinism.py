"""One seed, one course of events: the only place that reaches into trio's private parts.

Trio shuffles the tasks that are ready together. Its own switch makes that shuffle depend on one source of chance,
which is seeded here; trio-websocket takes its ping payloads from :mod:`random`. What else could differ from run to
run is the order of sets (PYTHONHASHSEED, which a test varies) and the garbage collector, whose finalisers wake
trio's loop: it rests meanwhile.
"""

from __future__ import annotations

import gc
import random
from collections.abc import Iterator
from contextlib import contextmanager

import trio._core._run as trio_run

__all__ = ["determined"]


@contextmanager
def determined(seed: int) -> Iterator[None]:
    """Everything that trio and :mod:`random` decide in the block is decided by *seed*."""
    switch, shuffles, chance = trio_run._ALLOW_DETERMINISTIC_SCHEDULING, trio_run._r.getstate(), random.getstate()
    collecting = gc.isenabled()
    gc.collect()
    gc.freeze()  # what has lasted until now (modules, markets) need not be looked at again, by the next seed either
    gc.disable()
    trio_run._ALLOW_DETERMINISTIC_SCHEDULING = True
    trio_run._r.seed(seed)
    random.seed(seed)
    try:
        yield
    finally:
        trio_run._ALLOW_DETERMINISTIC_SCHEDULING = switch
        trio_run._r.setstate(shuffles)
        random.setstate(chance)
        if collecting:
            gc.enable()
