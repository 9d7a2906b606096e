"""Where a reader stands in the change feed, as text that a program keeps.

::

    3fa9c1d2-1234.10-9ab3c4d5
    epoch    seq  step check

*epoch* is the journal's. Everything up to the number *seq* was delivered, and of this number the steps up to *step*:
the minute itself is the first step, and the candles of higher timeframes that follow it come by length. *check* is that
of the row that has the number (:func:`trio_candles.store.feed.check_of`): in a journal that was put back from a copy
the same number may be another change's.

Programs treat the text as opaque: another version may write another.
"""

from __future__ import annotations

import re

import attrs

from trio_candles.candles.model import DAY, MINUTE

__all__ = ["FIRST_STEP", "LAST_STEP", "NOTHING", "Cursor", "step_of"]

NOTHING = "00000000"
"""The check of the place before everything that a journal ever told."""


def step_of(length: int, side: int = 0) -> int:
    """The step of a candle of *length* ms. A span may complete two of one timeframe: the second one is on *side* 1."""
    return 2 * (length // MINUTE) + side


FIRST_STEP = step_of(MINUTE)
LAST_STEP = step_of(DAY, 1)

_TEXT = re.compile(r"([0-9a-f]{8})-([0-9]{1,18})\.([0-9]{1,4})-([0-9a-f]{8})", re.ASCII)


@attrs.frozen
class Cursor:
    """A place in the change feed."""

    epoch: str
    seq: int
    step: int
    check: str

    def __str__(self) -> str:
        return f"{self.epoch}-{self.seq}.{self.step}-{self.check}"

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """The place that *text* names; ``ValueError`` if it names none."""
        match = _TEXT.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise ValueError(f"{text!r} is no cursor; expected one that a change came with, 'oldest' or None")
        return cls(match[1], int(match[2]), int(match[3]), match[4])
