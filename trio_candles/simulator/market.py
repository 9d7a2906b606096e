"""A venue's market, which is a pure function of its seed: who asks, when and in which order changes nothing.

Per instrument the number of trades of a UTC day is a constant, so the id of every trade follows from the
day, and within the day from the sums over its minutes. A minute is generated from one hash of (seed,
venue, symbol, minute); nothing is ever simulated forward.
"""

from __future__ import annotations

import math
import struct
from array import array
from bisect import bisect_right
from collections import Counter
from decimal import Context, Decimal
from functools import lru_cache
from hashlib import shake_128
from typing import TYPE_CHECKING, Literal

import attrs

from .instruments import ANCIENT_MS, Instrument, Listing, make_instrument

if TYPE_CHECKING:
    from collections.abc import Mapping

MINUTE_MS = 60_000
MINUTE_US = 60_000_000
MINUTES_PER_DAY = 1440
DAY_MS = 86_400_000

# A minute's quote volume has below 30 digits; nothing is ever rounded.
EXACT = Context(prec=60)

# About one minute in 350 is silent although the market is busy; its trades come in the next one.
SILENT_ONE_IN = 350

# 1000 load-test symbols, two days each at midnight, 6 kB per day.
DAYS_CACHED = 2_100
# 1000 symbols, a few minutes each; a busy minute is about 10 kB, and few symbols are busy.
MINUTES_CACHED = 4_000
CANDLES_CACHED = 20_000


@attrs.frozen
class MarketTrade:
    """One trade, as the matching engine knows it."""

    trade_id: int
    #: Unix microseconds.
    time_us: int
    price: Decimal
    size: Decimal
    #: The side of the taker; a venue that publishes the maker's side publishes the other one.
    side: Literal["buy", "sell"]


@attrs.frozen
class TrueCandle:
    """What really happened in a minute that had trades, exactly."""

    minute_ms: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    quote_volume: Decimal
    trades_count: int
    first_id: int
    last_id: int


def fold(minute_ms: int, trades: tuple[MarketTrade, ...]) -> TrueCandle:
    """The candle of a minute's trades, at least one, in the order of their ids."""
    volume = quote_volume = Decimal(0)
    for trade in trades:
        volume = EXACT.add(volume, trade.size)
        quote_volume = EXACT.fma(trade.price, trade.size, quote_volume)
    prices = [trade.price for trade in trades]
    return TrueCandle(
        minute_ms,
        prices[0],
        max(prices),
        min(prices),
        prices[-1],
        volume,
        quote_volume,
        len(trades),
        trades[0].trade_id,
        trades[-1].trade_id,
    )


class VenueMarket:
    """Every trade on one venue at any time since 2013, computed when asked for.

    Symbols are written as the venue writes them. *listed_at_ms* gives a symbol's time of listing where that is
    not long ago; there are no trades before it, and the first trade ever has the id 1. *per_day* gives how many trades
    a symbol has each day where that is not for the seed to say.
    """

    def __init__(
        self,
        seed: int,
        venue: str,
        listing: Listing,
        listed_at_ms: Mapping[str, int],
        per_day: Mapping[str, int] | None = None,
    ) -> None:
        self._seed = seed
        self._venue = venue
        self._listing = listing
        self._listed_at_ms = listed_at_ms
        self._per_day = per_day or {}
        # The caches belong to this market; they can be cleared at any time without changing an answer.
        self._instrument = lru_cache(maxsize=None)(self._make_instrument)
        self._unborn = lru_cache(maxsize=None)(self._count_unborn)
        self._day = lru_cache(maxsize=DAYS_CACHED)(self._make_day)
        self._minute = lru_cache(maxsize=MINUTES_CACHED)(self._make_minute)
        self._candle = lru_cache(maxsize=CANDLES_CACHED)(self._make_candle)

    @property
    def symbols(self) -> tuple[str, ...]:
        """Every listed symbol."""
        return tuple(self._listing.markets)

    def listed(self, symbol: str) -> bool:
        """Whether the venue has such a symbol, spelled exactly so."""
        return symbol in self._listing.markets

    def instrument(self, symbol: str) -> Instrument:
        """The character of a listed symbol; LookupError for any other."""
        return self._instrument(symbol)

    def trades(self, symbol: str, minute_ms: int) -> tuple[MarketTrade, ...]:
        """The trades of the minute that starts at *minute_ms*, in the order of id and time."""
        return self._minute(symbol, minute_ms // MINUTE_MS)

    def candle(self, symbol: str, minute_ms: int) -> TrueCandle | None:
        """The exact candle of a minute, or None if nothing was traded in it."""
        return self._candle(symbol, minute_ms // MINUTE_MS)

    def candle_until(self, symbol: str, minute_ms: int, next_id: int) -> TrueCandle | None:
        """A minute's candle of the trades below an id alone, or None if there are none."""
        trades = self.trades(symbol, minute_ms)
        if not trades or trades[0].trade_id >= next_id:
            return None
        if trades[-1].trade_id < next_id:
            return self.candle(symbol, minute_ms)
        return fold(minute_ms // MINUTE_MS * MINUTE_MS, trades[: next_id - trades[0].trade_id])

    def first_id_from(self, symbol: str, time_us: int) -> int:
        """The id of the first trade at or after a time, be it in the future."""
        minute = time_us // MINUTE_US
        trade_id = self._first_id(symbol, minute)
        if time_us % MINUTE_US:
            trade_id += sum(trade.time_us < time_us for trade in self._minute(symbol, minute))
        return trade_id

    def last_trade_before(self, symbol: str, time_us: int) -> MarketTrade:
        """The newest trade strictly before a time; LookupError if there was none yet."""
        return self.trade(symbol, self.first_id_from(symbol, time_us) - 1)

    def trade(self, symbol: str, trade_id: int) -> MarketTrade:
        """The trade of that id, past or future; LookupError below the first id."""
        if trade_id < 1:
            raise LookupError(f"{self._venue} {symbol} has no trade {trade_id}")
        instrument = self._instrument(symbol)
        index = trade_id - 1 + self._unborn(symbol)
        day, rest = divmod(index, instrument.per_day)
        minute = bisect_right(self._day(symbol, day), rest) - 1
        trades = self._minute(symbol, day * MINUTES_PER_DAY + minute)
        return trades[trade_id - trades[0].trade_id]

    def _first_id(self, symbol: str, minute: int) -> int:
        """The id of the first trade in or after a minute counted from the epoch."""
        instrument = self._instrument(symbol)
        day, within = divmod(minute, MINUTES_PER_DAY)
        index = day * instrument.per_day + self._day(symbol, day)[within]
        return max(index - self._unborn(symbol), 0) + 1

    def _make_instrument(self, symbol: str) -> Instrument:
        if not self.listed(symbol):
            raise LookupError(f"{self._venue} does not list {symbol}")
        listed_at_ms = self._listed_at_ms.get(symbol, ANCIENT_MS)
        instrument = make_instrument(self._seed, self._venue, self._listing, symbol, listed_at_ms)
        return attrs.evolve(instrument, per_day=self._per_day.get(symbol, instrument.per_day))

    def _count_unborn(self, symbol: str) -> int:
        """How many trades the formula yields before the listing, which is cut to a whole minute."""
        instrument = self._instrument(symbol)
        day, within = divmod(-(-instrument.listed_at_ms // MINUTE_MS), MINUTES_PER_DAY)
        return day * instrument.per_day + self._day(symbol, day)[within]

    def _make_day(self, symbol: str, day: int) -> array[int]:
        """How many trades of the day came before each of its minutes, and at the end their number."""
        instrument = self._instrument(symbol)
        draws: array[int] = array("H")
        draws.frombytes(shake_128(instrument.key + b"|day|%d" % day).digest(2 * instrument.per_day))
        counts = [0] * MINUTES_PER_DAY
        for draw, count in Counter(draws).items():
            counts[draw * MINUTES_PER_DAY >> 16] += count
        silence: array[int] = array("H")
        silence.frombytes(shake_128(instrument.key + b"|silence|%d" % day).digest(2 * MINUTES_PER_DAY))
        for minute in range(MINUTES_PER_DAY - 1):
            if silence[minute] % SILENT_ONE_IN == 0:
                counts[minute + 1] += counts[minute]
                counts[minute] = 0
        sums: array[int] = array("L", [0])
        total = 0
        for count in counts:
            total += count
            sums.append(total)
        return sums

    def _make_minute(self, symbol: str, minute: int) -> tuple[MarketTrade, ...]:
        instrument = self._instrument(symbol)
        day, within = divmod(minute, MINUTES_PER_DAY)
        sums = self._day(symbol, day)
        count = sums[within + 1] - sums[within]
        if not count or minute * MINUTE_MS < instrument.listed_at_ms:
            return ()
        first_id = day * instrument.per_day + sums[within] - self._unborn(symbol) + 1
        return generate(instrument, minute, first_id, count)

    def _make_candle(self, symbol: str, minute: int) -> TrueCandle | None:
        trades = self._minute(symbol, minute)
        return fold(minute * MINUTE_MS, trades) if trades else None


def generate(instrument: Instrument, minute: int, first_id: int, count: int) -> tuple[MarketTrade, ...]:
    """The trades of one minute: times with bursts, prices around the path, sizes with a long tail."""
    cells = struct.unpack(f"<{4 * count}I", shake_128(instrument.key + b"|minute|%d" % minute).digest(16 * count))
    offsets = sorted(cell * MINUTE_US >> 32 for cell in cells[::4])
    tick = 10.0**instrument.tick_exponent
    scale = instrument.level / tick
    begin = scale * math.exp(instrument.logarithm(minute))
    slope = (scale * math.exp(instrument.logarithm(minute + 1)) - begin) / MINUTE_US
    noise = max(1.5, begin * 4e-5) / 0x8000
    start_us = minute * MINUTE_US
    exponent = Decimal(instrument.tick_exponent)
    # Sizes are in units of 1e-8; the median is some sixty dollars, the mean twice that.
    per_dollar = 1e8 / instrument.dollars
    scaled = EXACT.scaleb
    trades: list[MarketTrade] = []
    previous = 0
    for number in range(count):
        _, wobble, draw, flags = cells[4 * number : 4 * number + 4]
        offset = offsets[number]
        if number and (burst := flags >> 24) < 120:
            # One taker meets several makers at the same instant; or a flurry within a millisecond.
            offset = previous if burst < 80 else min(offset, previous + (flags >> 8) % 997)
        previous = offset
        buys = flags & 1
        units = begin + slope * offset + noise * ((wobble & 0xFFFF) - 0x8000) + (0.5 if buys else -0.5)
        dollars = min(40.0 * ((draw + 1) / 4294967296.0) ** -0.7, 400_000.0)
        size = int(dollars * per_dollar) + 1
        if flags & 6 == 6 and size > 20_000:
            size -= size % 10_000
        trades.append(
            MarketTrade(
                first_id + number,
                start_us + offset,
                scaled(Decimal(max(round(units), 1)), exponent),
                scaled(Decimal(size), _SIZE_EXPONENT),
                "buy" if buys else "sell",
            )
        )
    return tuple(trades)


_SIZE_EXPONENT = Decimal(-8)
