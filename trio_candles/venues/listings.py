"""What all listings share: which symbols a venue lists and trades, how it writes them, what a misspelt one may mean."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, TypeVar

import attrs
import msgspec

from trio_candles.candles.model import Millis
from trio_candles.venues.history import Answer, Request
from trio_candles.venues.protocol import UNREADABLE, Misunderstood

__all__ = [
    "OLDER_NAMES",
    "UNSTATED",
    "Listed",
    "Listing",
    "Name",
    "Symbols",
    "Trading",
    "by_symbol",
    "nearest",
    "readable",
]

OLDER_NAMES: Mapping[str, str] = MappingProxyType({"XBT": "BTC", "XDG": "DOGE"})
"""Older name of an asset, which people and some interfaces still use → the name that every feed uses."""


@attrs.frozen
class Symbols:
    """How a venue writes its symbols."""

    separator: str
    """Between base and quote."""
    example: str
    older: Mapping[str, str] = attrs.field(factory=dict)
    """Older name of an asset → the name that the venue's feed uses, where the feed refuses the older one."""

    def join(self, *assets: str) -> str:
        """The symbol of *assets*, base and quote, as the venue's feed writes it."""
        return self.separator.join(self.older.get(asset, asset) for asset in assets)


class Trading(StrEnum):
    """Whether a symbol trades, by what the venue says of it, the freest first.

    Only words that are known to say so close a symbol: what a state of the future means, nobody knows yet.
    """

    OPEN = "trades"
    LIMITED = "trades with restrictions, or will again"
    CLOSED = "does not trade"


@attrs.frozen
class Listed:
    """One symbol as the venue lists it."""

    symbol: str
    """As the venue's feed and the configuration write it."""
    trading: Trading
    state: str
    """The venue's own words."""
    since: Millis | None = None
    """When it was listed, where the venue says."""
    alias_of: str | None = None
    """The symbol of which this one is another name, where it is: collecting both would store the same candles twice."""


@attrs.frozen
class Listing:
    """How a venue is asked what it lists, and how its answer is read."""

    request: Request
    """The question; bodies of a megabyte are usual."""
    read: Callable[[Answer], dict[str, Listed]]
    """Everything that the venue lists, by symbol; the errors of :mod:`~trio_candles.venues.history`."""


Name = Annotated[str, msgspec.Meta(min_length=1)]
"""A name without which a row of a listing is about nothing."""

UNSTATED = "listed, without a status"
"""The state of a symbol of which the venue states none."""

T = TypeVar("T")


def readable(decoder: msgspec.json.Decoder[T], rows: Iterable[msgspec.Raw]) -> list[T]:
    """The *rows* of a listing that *decoder* can read: one that cannot be read costs its own symbol, not the others.

    ``Misunderstood`` if there are rows and none can be read: then it is the listing that has another shape.
    """
    found: list[T] = []
    failed: Exception | None = None
    for row in rows:
        try:
            found.append(decoder.decode(row))
        except UNREADABLE as error:
            failed = error
    if failed is not None and not found:
        raise Misunderstood("bad_shape", f"no row of the listing can be read: {failed}"[:200])
    return found


def by_symbol(entries: Iterable[Listed]) -> dict[str, Listed]:
    """One of *entries* for each symbol: where several share it, the freest to trade; of equals the first."""
    order, found = list(Trading), dict[str, Listed]()
    for entry in entries:
        known = found.setdefault(entry.symbol, entry)
        if order.index(entry.trading) < order.index(known.trading):
            found[entry.symbol] = entry
    return found


def nearest(symbol: str, listed: Mapping[str, Listed], most: int = 3) -> list[str]:
    """Up to *most* symbols that *symbol* may have meant, the likeliest first; none that is closed or an alias."""
    usable = [one for one, entry in listed.items() if entry.trading is not Trading.CLOSED and entry.alias_of is None]
    base, separator, quote = [*re.split("([-/])", symbol, maxsplit=1), "", ""][:3]
    today = OLDER_NAMES.get(base, base), OLDER_NAMES.get(quote, quote)
    sure = [name for name in (separator.join(today), separator.join(reversed(today))) if name in usable]
    close = get_close_matches(symbol, usable, n=most + 1, cutoff=0.6)
    # Of the close names, those of the same base come first: BTC-USDX is BTC and something, not something and USDT.
    close.sort(key=lambda name: not name.startswith(base + separator))
    same_base = [] if close else sorted(name for name in usable if name.startswith(base + separator))
    return list(dict.fromkeys([*sure, *close, *same_base]))[:most]
