"""What the change feed says, as records: :class:`Change`, and which of them somebody wants: :class:`Wanted`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

import attrs

from trio_candles.candles.documents import CandleDocument
from trio_candles.candles.model import MINUTE, Series, Timeframe
from trio_candles.store.feed import Kind

__all__ = ["EVENTS", "CandleDocument", "Change", "Wanted"]

EVENTS = tuple(kind.name.lower() for kind in Kind)
"""``closed``, ``filled``, ``revised``, ``empty``, ``gap``, ``unfillable``, ``unlisted``, ``delisted``."""


@attrs.frozen
class Change:
    """Something that became known of one series, at ``at_ms``; times are Unix ms.

    A candle, of any timeframe: ``closed``, ``filled``, ``revised``. Or a span of minutes, always of timeframe ``1m``:
    ``empty``, ``gap``, ``unfillable``, ``unlisted``, ``delisted``.
    """

    cursor: str
    """Whoever goes on from here gets what came next. Opaque."""
    event: str
    venue: str
    symbol: str
    """As the venue writes it."""
    timeframe: str
    open_time_ms: int
    close_time_ms: int
    """The first instant after the candle, or after the span."""
    at_ms: int
    """When it became durable, on the service's clock."""
    candle: CandleDocument | None
    """As it is stored when it is read: the change's candle or a later one of the same minutes; ``None`` for a span, and
    where it is not stored any more: then the ``gap`` that says so follows."""
    before: CandleDocument | None
    """What a revised candle replaced; ``None`` if the minutes were called empty."""
    source: str | None
    """``websocket``, ``rest`` or ``aggregated``: the candle's."""
    reason: str | None
    """Why the span is a gap."""
    evidence: str | None
    """By what the span is known to be empty, unfillable, or before the market began; a gap's detail."""


@attrs.frozen
class Wanted:
    """What somebody follows: series by name, with wildcards, timeframes, and events."""

    series: tuple[str, ...]
    timeframes: tuple[Timeframe, ...]
    """From the shortest to the longest."""
    events: frozenset[Kind]

    @classmethod
    def of(cls, series: Sequence[str] | None, timeframes: Sequence[str] | None, events: Sequence[str] | None) -> Wanted:
        """Everything of what is ``None``, but of timeframes ``1m``; ``ValueError`` or ``TypeError`` if an argument
        makes no sense.
        """
        lengths = {one.length: one for one in map(Timeframe.parse, _texts("timeframes", timeframes, ("1m",)))}
        names = _texts("series", series, ("*:*",))
        for name in names:
            venue, colon, symbol = name.partition(":")
            if not (venue and colon and symbol):
                raise ValueError(f"{name!r} names no series; expected VENUE:SYMBOL, or VENUE:* for all of a venue")
        kinds = set()
        for event in _texts("events", events, EVENTS):
            if event not in EVENTS:
                near = get_close_matches(event, EVENTS, n=1)
                hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(EVENTS)}"
                raise ValueError(f"{event!r} is no event; {hint}")
            kinds.add(Kind[event.upper()])
        return cls(names, tuple(lengths[length] for length in sorted(lengths)), frozenset(kinds))

    def has(self, series: Series) -> bool:
        """Whether *series* is followed."""
        return any(matches(name, series) for name in self.series)

    def unknown(self, known: Iterable[Series]) -> list[str]:
        """The names without a wildcard that are none of *known*."""
        every = list(known)
        plain = [name for name in self.series if not set(name) & set("*?[")]
        return [name for name in plain if not any(matches(name, one) for one in every)]

    @property
    def has_minutes(self) -> bool:
        """Whether minutes themselves are followed."""
        return self.timeframes[0].length == MINUTE


def matches(name: str, series: Series) -> bool:
    """Whether *name*, VENUE:SYMBOL with the wildcards ``*``, ``?`` and ``[...]``, is *series*; the symbol as the venue
    writes it or as the folder is called, in upper or lower case.
    """
    pattern = name.upper()
    venue = series.venue.upper()
    symbols = {series.symbol.upper(), series.folder}
    return any(fnmatchcase(f"{venue}:{symbol}", pattern) for symbol in symbols)


def _texts(what: str, given: Sequence[str] | None, default: tuple[str, ...]) -> tuple[str, ...]:
    if given is None:
        return default
    if isinstance(given, str) or not all(isinstance(one, str) for one in given):
        raise TypeError(f"{what} is {given!r}; expected a list of texts")
    if not given:
        raise ValueError(f"{what} is empty: nothing would ever come")
    return tuple(given)
