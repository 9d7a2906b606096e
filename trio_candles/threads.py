"""Where blocking work runs: in a thread of its own, or in tests in the task itself.

Whoever has blocking work is given an :class:`Offload` and does not choose: under trio's mock clock a thread counts as
idle, so a test's time would leap while the thread works (50 ms in a thread moved the clock by an hour).

The threads are the store's own, and not rationed: trio's ration of 40 is one for the whole process, and 40 look-ups
at a name server that is silent would keep the store from the disk. Whoever hands work over waits for it, so there are
as many threads as there are such tasks: one or two.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

import trio

__all__ = ["Offload", "in_thread", "inline"]

T = TypeVar("T")

_UNRATIONED = trio.CapacityLimiter(math.inf)


class Offload(Protocol):
    """Runs blocking work and returns what the work returns; raises what the work raises."""

    def __call__(self, work: Callable[..., T], /, *args: Any) -> Awaitable[T]: ...  # noqa: ANN401


async def in_thread(work: Callable[..., T], /, *args: Any) -> T:  # noqa: ANN401
    """Run blocking *work* in a thread. A caller that is cancelled does not wait for the thread: it may hang in a
    disk."""
    return await trio.to_thread.run_sync(work, *args, abandon_on_cancel=True, limiter=_UNRATIONED)


async def inline(work: Callable[..., T], /, *args: Any) -> T:  # noqa: ANN401
    """Run *work* in the calling task, for tests."""
    await trio.lowlevel.checkpoint()
    return work(*args)
