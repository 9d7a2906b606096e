"""The markets of all venues, as one pure function of a seed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .market import VenueMarket
from .registry import VENUES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .instruments import Instrument
    from .market import MarketTrade, TrueCandle
    from .venue import SimulatedVenue


class Market:
    """Every trade on every venue; ``market[venue]`` is that venue's alone.

    *listed_at_ms* gives the time of listing of ``(venue, symbol)`` where it is not long ago, *per_day* the trades of
    each of its days where they are not to be as many as the seed says. *venues* are those
    that exist in this market: another mapping than the registry's simulates a venue that is not registered.
    """

    def __init__(
        self,
        seed: int,
        listed_at_ms: Mapping[tuple[str, str], int] | None = None,
        venues: Mapping[str, SimulatedVenue] = VENUES,
        per_day: Mapping[tuple[str, str], int] | None = None,
    ) -> None:
        self.seed = seed
        self.venues = venues
        listed, busy = listed_at_ms or {}, per_day or {}
        self._markets = {
            name: VenueMarket(
                seed,
                name,
                venue.listing,
                {symbol: at for (of, symbol), at in listed.items() if of == name},
                {symbol: count for (of, symbol), count in busy.items() if of == name},
            )
            for name, venue in venues.items()
        }

    def __getitem__(self, venue: str) -> VenueMarket:
        """The market of that venue."""
        return self._markets[venue]

    def symbols(self, venue: str) -> tuple[str, ...]:
        """Every symbol the venue lists, as the venue writes it."""
        return self._markets[venue].symbols

    def listed(self, venue: str, symbol: str) -> bool:
        """Whether the venue has such a symbol, spelled exactly so."""
        return self._markets[venue].listed(symbol)

    def instrument(self, venue: str, symbol: str) -> Instrument:
        """The character of a listed symbol; LookupError for any other."""
        return self._markets[venue].instrument(symbol)

    def trades(self, venue: str, symbol: str, minute_ms: int) -> tuple[MarketTrade, ...]:
        """The trades of the minute that starts at *minute_ms*, in the order of id and time."""
        return self._markets[venue].trades(symbol, minute_ms)

    def candle(self, venue: str, symbol: str, minute_ms: int) -> TrueCandle | None:
        """The exact candle of a minute, or None if nothing was traded in it."""
        return self._markets[venue].candle(symbol, minute_ms)

    def trade(self, venue: str, symbol: str, trade_id: int) -> MarketTrade:
        """The trade of that id, past or future; LookupError below the first id."""
        return self._markets[venue].trade(symbol, trade_id)

    def first_id_from(self, venue: str, symbol: str, time_us: int) -> int:
        """The id of the first trade at or after a time, be it in the future."""
        return self._markets[venue].first_id_from(symbol, time_us)

    def last_trade_before(self, venue: str, symbol: str, time_us: int) -> MarketTrade:
        """The newest trade strictly before a time; LookupError if there was none yet."""
        return self._markets[venue].last_trade_before(symbol, time_us)
