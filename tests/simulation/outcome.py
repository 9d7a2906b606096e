"""What became of a seed, for whoever counts and tells."""

from __future__ import annotations

import attrs

__all__ = ["Outcome"]


@attrs.frozen
class Outcome:
    """What became of a seed."""

    seed: int
    plan: str
    broken: str | None
    """The name of the first invariant that did not hold."""
    text: str
    digest: str
    fired: dict[str, int]
    minutes: int
    candles: int
    lives: int
    newest: tuple[str, ...]
