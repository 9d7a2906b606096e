"""What each minute of a day is, small enough to keep for years and to be drawn."""

from __future__ import annotations

import re
from collections.abc import Iterator

import attrs

from trio_candles.candles.model import DAY, MINUTE

__all__ = ["LETTERS", "STATES", "DayMap"]

STATES = ("not expected", "stored", "empty", "gap", "unfillable", "unaccounted", "contradiction")
"""What a minute may be; the last two are violations."""
LETTERS = "abcdefg"
"""A letter for each of :data:`STATES`."""
_LETTER_OF = {tuple(f"{state:03b}"): letter for state, letter in enumerate(LETTERS)}
_MINUTES = DAY // MINUTE
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_SIXES = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_PAIRS = {(a, b): _SIXES[LETTERS.index(a) * 8 + LETTERS.index(b)] for a in LETTERS for b in LETTERS}


@attrs.frozen
class DayMap:
    """One day of one symbol, in bits (:mod:`trio_candles.audit.bits`)."""

    due: int
    stored: int
    empty: int
    open_gap: int
    unfillable: int

    def layers(self) -> tuple[int, ...]:
        """The minutes in each of :data:`STATES`; every minute is in exactly one."""
        gap = self.open_gap | self.unfillable
        twice = (self.stored & self.empty) | (self.stored & gap) | (self.empty & gap)
        known = self.stored | self.empty | gap
        named = [bits & ~twice for bits in (self.stored, self.empty, self.open_gap, self.unfillable & ~self.open_gap)]
        return (((1 << _MINUTES) - 1) & ~(known | self.due), *named, self.due & ~known, twice)

    def spans(self, of: str = LETTERS) -> Iterator[tuple[int, int, int]]:
        """The runs of minutes alike, in order: begin, end and number of the state; *of* some letters only."""
        for run in re.finditer("|".join(f"{letter}+" for letter in of), self._letters()):
            yield run.start(), run.end(), LETTERS.index(run[0][0])

    def as_code(self) -> str:
        """The day as text: runs (``b140`` is 1,440 stored minutes), or ``~`` and two minutes a character.

        The second form is for days so torn that the runs would be longer: 721 characters at most.
        """
        planes = self._planes()
        changes = planes[0] ^ planes[0] >> 1 | planes[1] ^ planes[1] >> 1 | planes[2] ^ planes[2] >> 1
        if changes.bit_count() <= _MINUTES // 4:  # at least two characters each
            coded = "".join(f"{LETTERS[state]}{_base36(high - low)}" for low, high, state in self.spans())
            if len(coded) <= _MINUTES // 2:
                return coded
        letters = self._letters()
        return "~" + "".join(map(_PAIRS.__getitem__, zip(letters[::2], letters[1::2], strict=True)))

    def _planes(self) -> tuple[int, int, int]:
        """The digits of each minute's state, in base two, the highest first."""
        _, one, two, three, four, five, six = self.layers()
        return four | five | six, two | three | six, one | three | five

    def _letters(self) -> str:
        """A letter a minute. Made from digits: to ask a number for 1,440 bits one by one takes milliseconds."""
        digits = zip(*(f"{plane:0{_MINUTES}b}" for plane in self._planes()), strict=True)
        return "".join(map(_LETTER_OF.__getitem__, digits))[::-1]


def _base36(number: int) -> str:
    text = ""
    while number:
        number, digit = divmod(number, 36)
        text = _DIGITS[digit] + text
    return text
