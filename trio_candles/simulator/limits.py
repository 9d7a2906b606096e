"""Rate limits, on the service's clock."""

from __future__ import annotations

from collections import deque

import attrs


@attrs.define
class TokenBucket:
    """Lets *burst* requests through at once and *per_second* in the long run."""

    per_second: float
    burst: float
    _tokens: float = attrs.field(init=False)
    _filled_ms: int = attrs.field(init=False, default=0)

    def __attrs_post_init__(self) -> None:
        """Start full."""
        self._tokens = self.burst

    def take(self, now_ms: int, weight: float = 1) -> bool:
        """Whether a request of that weight is within the limit at this moment; one outside costs nothing."""
        gained = max(now_ms - self._filled_ms, 0) * self.per_second / 1000
        self._tokens = min(self._tokens + gained, self.burst)
        self._filled_ms = now_ms
        if self._tokens < weight:
            return False
        self._tokens -= weight
        return True


@attrs.define
class Window:
    """Lets requests of a weight of *most* together through in any *span_ms*."""

    most: int
    span_ms: int
    #: When requests were let through, oldest first, and what each weighed.
    _taken: deque[tuple[int, int]] = attrs.field(init=False, factory=deque)
    _weight: int = attrs.field(init=False, default=0)

    def take(self, now_ms: int, weight: int = 1) -> bool:
        """Whether a request of that weight is within the limit at this moment; one outside costs nothing."""
        while self._taken and self._taken[0][0] <= now_ms - self.span_ms:
            self._weight -= self._taken.popleft()[1]
        if self._weight + weight > self.most:
            return False
        self._taken.append((now_ms, weight))
        self._weight += weight
        return True
