"""What each minute of a day is, small enough to keep for years and to be drawn."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from trio_candles.audit.spans import runs
from trio_candles.model import DAY, MINUTE

__all__ = ["STATES", "Cover"]

STATES = ("not expected", "stored", "empty", "gap", "unfillable", "unaccounted", "contradiction")
"""What a minute may be; the last two are violations."""
_LETTERS = "abcdefg"
_MINUTES = DAY // MINUTE
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_SIXES = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


@attrs.frozen
class Cover:
    """One day of one symbol, in bits (:mod:`trio_candles.audit.spans`)."""

    due: int
    stored: int
    empty: int
    open_gap: int
    unfillable: int

    def layers(self) -> tuple[int, ...]:
        """The minutes in each of :data:`STATES`; every minute is in exactly one."""
        gap = self.open_gap | self.unfillable
        twice = (self.stored & self.empty) | (self.stored & gap) | (self.empty & gap)
        told = self.stored | self.empty | gap
        named = [bits & ~twice for bits in (self.stored, self.empty, self.open_gap, self.unfillable & ~self.open_gap)]
        return (((1 << _MINUTES) - 1) & ~(told | self.due), *named, self.due & ~told, twice)

    def spans(self) -> Iterator[tuple[int, int, int]]:
        """The runs of minutes alike, in order: begin, end and number of the state."""
        found = [(low, high, state) for state, bits in enumerate(self.layers()) for low, high in runs(bits)]
        return iter(sorted(found))

    def as_code(self) -> str:
        """The day as text: runs (``b140`` is 1,440 stored minutes), or ``~`` and two minutes a character.

        The second is for days so torn that the runs would be longer: 721 characters at most.
        """
        spans = list(self.spans())
        coded = "".join(f"{_LETTERS[state]}{_base36(high - low)}" for low, high, state in spans)
        if len(coded) <= _MINUTES // 2:
            return coded
        minutes = [state for low, high, state in spans for _ in range(low, high)]
        return "~" + "".join(_SIXES[a * 8 + b] for a, b in zip(minutes[::2], minutes[1::2], strict=True))


def _base36(number: int) -> str:
    text = ""
    while number:
        number, digit = divmod(number, 36)
        text = _DIGITS[digit] + text
    return text
