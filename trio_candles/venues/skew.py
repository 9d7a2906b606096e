"""How far our clock is from a venue's, from question and answer; pure.

An answer states the venue's time at some moment between our question and the answer's arrival, cut to the precision
that the venue states: Kraken states whole seconds. So each answer gives bounds, and a further answer, asked for when
the venue's second should just be turning, halves them. An answer out of a cache states too early a time, never too
late.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from trio_candles.candles.model import Millis

__all__ = ["WARN_MS", "WORST_MS", "Skew", "TimeAnswer"]

WORST_MS = 2_000
"""The contract's: beyond it preflight fails."""
WARN_MS = 1_000
CACHED_MS = 2_100
"""Kraken's content network may repeat an answer for two seconds."""


@attrs.frozen
class TimeAnswer:
    """A venue gave *venue* as its time; by our clock we asked at *asked* and had the answer at *answered*; Unix ms."""

    venue: Millis
    asked: Millis
    answered: Millis

    @property
    def grain(self) -> int:
        """Ms to which the time may have been cut: a whole second if the time is one."""
        return 1_000 if self.venue % 1_000 == 0 else 1


@attrs.frozen
class Skew:
    """How far the venue's clock is ahead of ours, in ms: surely between *least* and *most*."""

    least: int
    most: int

    @classmethod
    def of(cls, answers: Sequence[TimeAnswer]) -> Skew:
        """The bounds that all *answers* together leave."""
        # When an answer arrives, the venue's clock shows at least the time in it: this holds for an old answer, too.
        least = max(one.venue - one.answered for one in answers)
        # An answer whose upper bound is below *least* came out of a cache: its upper bound means nothing.
        most = min(upper for one in answers if (upper := one.venue + one.grain - one.asked) >= least)
        return cls(least, most)

    @property
    def middle(self) -> int:
        """The likeliest value, in ms."""
        return (self.least + self.most) // 2

    @property
    def certain(self) -> bool:
        """Whether all values between the bounds lead to the same verdict: passed, warned or failed."""
        if self.least < 0 < self.most:
            return max(-self.least, self.most) <= WARN_MS
        near, far = sorted((abs(self.least), abs(self.most)))
        return far <= WARN_MS or near > WORST_MS or (near > WARN_MS and far <= WORST_MS)

    def wait(self, now: Millis) -> float:
        """Seconds from *now* until an answer cut to whole seconds narrows the bounds most: at the turn of a second."""
        later = now + CACHED_MS
        return (CACHED_MS + (-(later + self.middle)) % 1_000) / 1000

    def __str__(self) -> str:
        margin = f"+/- {(self.most - self.least) / 2000:.2f} s"
        if abs(self.middle) < 5:
            return f"ours agrees ({margin})"
        return f"ours is {abs(self.middle) / 1000:.2f} s {'behind' if self.middle > 0 else 'ahead'} ({margin})"
