"""Rows that say themselves that they are closed: a row is the proof of its minute, and there is no other."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from trio_candles.assembly.base import Assembler, Outcome, candle_of
from trio_candles.candles.model import Millis, Reason
from trio_candles.venues.protocol import Event, Row

__all__ = ["FromStatedCloses"]


@attrs.define
class FromStatedCloses(Assembler):
    """Rows of which the venue itself says that they are closed: complete even if we connected during the minute."""

    default_reason = Reason.NO_CLOSE

    def hear(self, event: Event, now: Millis) -> Sequence[Outcome]:
        """A row that says it is closed is a candle; silence is never an empty minute."""
        if isinstance(event, Row) and event.closed and self._doubt is None:
            return list(self._prove(candle_of(self.series, event, now), now))
        return ()
