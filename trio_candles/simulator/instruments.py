"""What a simulated venue lists, and each instrument's character: price level, tick, activity."""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable

# Dollar prices in the right order of magnitude: ticks and sizes follow from them.
DOLLARS: dict[str, float] = {
    "BTC": 64_000.0, "ETH": 3_200.0, "SOL": 150.0, "XRP": 0.55, "ADA": 0.45, "DOGE": 0.12, "LTC": 80.0,
    "BCH": 400.0, "LINK": 14.0, "DOT": 6.5, "AVAX": 30.0, "UNI": 8.0, "ATOM": 8.0, "XLM": 0.11, "ALGO": 0.18,
    "FIL": 5.5, "ETC": 26.0, "NEAR": 6.0, "APT": 9.0, "ARB": 1.1, "OP": 2.2, "AAVE": 95.0, "MKR": 2_500.0,
    "SNX": 2.6, "CRV": 0.5, "COMP": 55.0, "SUSHI": 1.1, "YFI": 6_800.0, "GRT": 0.25, "SAND": 0.45,
    "MANA": 0.44, "AXS": 7.0, "CHZ": 0.12, "ENJ": 0.3, "BAT": 0.23, "ZRX": 0.5, "ZEC": 24.0, "DASH": 30.0,
    "XTZ": 0.95, "EOS": 0.8, "TRX": 0.12, "INJ": 25.0, "SUI": 1.2, "SHIB": 0.000024, "PEPE": 0.0000085,
}  # fmt: skip
IN_DOLLARS = {"USD": 1.0, "USDT": 0.9997, "USDC": 1.0001, "EUR": 1.08, "GBP": 1.26, "BTC": 64_000.0}
# 2013-01-01, before any of the real venues: "long ago" for whoever asks for history.
ANCIENT_MS = 1_356_998_400_000

# Period in minutes and amplitude of the waves whose sum is the logarithm of the price.
WAVES = (
    (788_400.0, 0.25),
    (61_813.0, 0.08),
    (10_243.0, 0.03),
    (1_439.0, 0.012),
    (217.0, 0.004),
    (37.0, 0.0015),
    (7.3, 0.0006),
)


def five_digits(dollars: float, quote: str) -> int:
    """Five digits behind a price's leading one, as most venues have."""
    return 5


@attrs.frozen
class Listing:
    """What a venue lists, and how the venue writes it."""

    #: Currencies in which markets are quoted, in the order of listing.
    quotes: tuple[str, ...]
    #: The quote currency of the thousand invented markets, SIM000 to SIM999.
    invented_quote: str
    #: The symbol of a base and a quote; with or without a separator, but no two markets have the same.
    write: Callable[[str, str], str]
    #: How many digits a price has behind its leading one, by the base's price in dollars and the quote.
    price_digits: Callable[[float, str], int] = five_digits
    #: Base and quote of every symbol: the real ones first, then the invented ones.
    markets: dict[str, tuple[str, str]] = attrs.field(init=False, repr=False)

    @markets.default
    def _list_markets(self) -> dict[str, tuple[str, str]]:
        real = [
            (base, quote)
            for base in DOLLARS
            for quote in self.quotes
            if base != quote and not (quote == "BTC" and DOLLARS[base] < 0.001)
        ]
        invented = [(f"SIM{number:03}", self.invented_quote) for number in range(1000)]
        markets = {self.write(base, quote): (base, quote) for base, quote in (*real, *invented)}
        assert len(markets) == len(real) + len(invented), "two markets are written alike"
        return markets


@attrs.frozen
class Instrument:
    """One market of one venue, with everything its trades are computed from."""

    symbol: str
    base: str
    quote: str
    #: The seed and the names, as the beginning of every hash's input.
    key: bytes
    #: Trades per UTC day; constant, so that ids are contiguous over all time.
    per_day: int
    #: The price when all waves are zero, in the quote currency.
    level: float
    #: The same of one unit of base in dollars, which sizes follow from.
    dollars: float
    #: Prices are whole multiples of ten to this power.
    tick_exponent: int
    #: One phase per wave; shared by all markets of the same base.
    phases: tuple[float, ...]
    listed_at_ms: int

    def logarithm(self, minute: int) -> float:
        """The logarithm of price over level at the start of a minute, counted from the Unix epoch."""
        total = 0.0
        for (period, amplitude), phase in zip(WAVES, self.phases, strict=True):
            total += amplitude * math.sin(minute / period * math.tau + phase)
        return total


def spread_out(key: bytes, bound: int) -> int:
    """A number in [0, bound) that depends on the key alone."""
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little") % bound


def make_instrument(seed: int, venue: str, listing: Listing, symbol: str, listed_at_ms: int) -> Instrument:
    """The character of one listed symbol, from the seed and its names alone."""
    base, quote = listing.markets[symbol]
    key = f"{seed}|{venue}|{symbol}".encode()
    base_key = f"{seed}|{base}".encode()
    dollars = DOLLARS.get(base) or 10.0 ** (spread_out(base_key + b"|price", 5000) / 1000 - 2)
    level = dollars / IN_DOLLARS[quote]
    tick_exponent = math.floor(math.log10(level)) - listing.price_digits(dollars, quote)
    phases = tuple(
        spread_out(base_key + b"|wave|%d" % number, 1 << 32) / (1 << 32) * math.tau for number in range(len(WAVES))
    )
    return Instrument(
        symbol, base, quote, key, trades_per_day(key, base, quote), level, dollars,
        min(tick_exponent, 0), phases, listed_at_ms,
    )  # fmt: skip


def trades_per_day(key: bytes, base: str, quote: str) -> int:
    """How busy a market is: BTC about 28 trades a minute, ETH about 4, the rest quiet or very thin.

    SIM900 to SIM999 are thin: a trade every ten to ninety minutes.
    """
    if base == "BTC":
        return 1440 * 24 + spread_out(key + b"|activity", 1440 * 8)
    if base == "ETH" and quote != "BTC":
        return 5_400 + spread_out(key + b"|activity", 720)
    if base.startswith("SIM9"):
        return 16 + spread_out(key + b"|activity", 129)
    if spread_out(key + b"|thin", 4) == 0:
        return 4 + spread_out(key + b"|activity", 9)
    return 540 + spread_out(key + b"|activity", 360)
