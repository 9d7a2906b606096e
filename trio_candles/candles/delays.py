"""From a minute's end until its candle is durable: a histogram, whose buckets are those of the published metric."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Mapping

import attrs

__all__ = ["BOUNDS", "Delays", "delays_in", "delays_text"]

BOUNDS = (10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000)
"""The upper ends of the buckets in ms; one more bucket has what is longer."""
LONGEST = 86_400_000
"""What is longer counts as this: a clock that jumped is no delay."""


@attrs.define
class Delays:
    """How many candles were durable after how long. Times are in ms."""

    counts: list[int] = attrs.field(factory=lambda: [0] * (len(BOUNDS) + 1))
    total: int = 0
    """All delays together."""

    def add(self, delay: int) -> None:
        """Count a candle that was durable *delay* ms after its minute's end; a clock that is behind makes that 0."""
        delay = min(max(delay, 0), LONGEST)
        self.counts[bisect_left(BOUNDS, delay)] += 1
        self.total += delay

    @property
    def count(self) -> int:
        """How many candles."""
        return sum(self.counts)

    def quantile(self, share: float) -> float | None:
        """The delay that *share* of the candles did not exceed, as if those of a bucket were spread evenly in it; the
        last bound for what is longer; ``None`` if there are none.
        """
        wanted, seen = share * self.count, 0
        for index, count in enumerate(self.counts[:-1]):
            if count and seen + count >= wanted:
                low = BOUNDS[index - 1] if index else 0
                return low + (BOUNDS[index] - low) * (wanted - seen) / count
            seen += count
        return float(BOUNDS[-1]) if self.count else None


def delays_text(delays: Mapping[str, Delays]) -> str:
    """*delays* by venue as JSON, as the collector publishes them."""
    return json.dumps({venue: [*one.counts, one.total] for venue, one in delays.items()})


def delays_in(text: str | None) -> dict[str, Delays]:
    """The delays by venue in *text*, which is absent in an earlier version's journal; ``ValueError`` for other text."""
    found = {}
    for venue, numbers in ({} if text is None else dict(json.loads(text))).items():
        if not isinstance(numbers, list) or len(numbers) != len(BOUNDS) + 2:
            raise ValueError(f"{text!r} is no histogram of delays")
        if not all(isinstance(number, int) and 0 <= number < 2**63 for number in numbers):
            raise ValueError(f"{text!r} is no histogram of delays")
        found[str(venue)] = Delays(numbers[:-1], numbers[-1])
    return found
