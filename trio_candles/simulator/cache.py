"""The cache between a venue's REST and its clients, which repeats answers for as long as their headers say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable

    from .faults import Faults
    from .text import Request, Response

# Some hundred series, a few pages each.
ANSWERS_KEPT = 500


@attrs.define(eq=False)
class Cache:
    """The answers of one venue that may be given again."""

    faults: Faults
    _kept: dict[str, tuple[int, Response]] = attrs.Factory(dict)

    def answer(self, request: Request, now_ms: int, seconds: int, make: Callable[[], Response]) -> Response:
        """The answer of *make*, or the one that the same question got less than *seconds* ago.

        Only good answers are kept, and a request that says ``Cache-Control: no-cache`` gets a new one.
        """
        kept_ms, kept = self._kept.get(request.target, (0, None))
        if kept is not None and 0 <= (age_ms := now_ms - kept_ms) < seconds * 1000:
            if "no-cache" not in request.headers.get("cache-control", ""):
                self.faults.fired["cached"] += 1
                return with_headers(kept, {"cf-cache-status": "HIT", "age": str(age_ms // 1000)})
            self.faults.fired["asked_anew"] += 1
        made = make()
        if made.status != 200:
            return with_headers(made, {"cache-control": "no-store"})
        made = with_headers(made, {"cache-control": f"public, max-age={seconds}, must-revalidate"})
        if len(self._kept) >= ANSWERS_KEPT:
            self._kept.clear()
        self._kept[request.target] = now_ms, made
        return with_headers(made, {"cf-cache-status": "MISS"})


def with_headers(response: Response, headers: dict[str, str]) -> Response:
    """The answer with these headers besides its own."""
    return attrs.evolve(response, headers=response.headers | headers)
