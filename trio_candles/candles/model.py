"""What flows through the program: series, trades, candles and the verdict on every minute.

Floor 0: imports nothing of ours, waits for nothing, reads no clock.

Times are Unix milliseconds UTC (:data:`Millis`); a minute is named by its open time; every span is
half-open, ``[since, until)``. Exactly one :data:`Verdict` exists for each minute of each series:

========== =====================================================================================
Candle     the venue said it closed, or the feed proved that no trade of it is missing
Empty      the venue said, or ids proved, that nothing traded; ``evidence`` says how
Unsure     neither: a gap, with its reason, until somebody can prove more
========== =====================================================================================

``Empty`` and ``Unsure`` are spans, because an outage of three days is one statement, not 4,320.
"""

from __future__ import annotations

import re
from decimal import Decimal
from enum import StrEnum
from typing import NewType

import attrs

__all__ = [
    "DAY",
    "MINUTE",
    "Attempt",
    "Candle",
    "Empty",
    "Finding",
    "Millis",
    "Page",
    "Reason",
    "Series",
    "Source",
    "Timeframe",
    "Trade",
    "Unsure",
    "Verdict",
    "canonical_symbol",
    "day_name",
    "floor_to",
    "printable",
    "utc_text",
]

Millis = NewType("Millis", int)
"""Unix time in milliseconds, UTC; also used for lengths of time."""

MINUTE = Millis(60_000)
DAY = Millis(86_400_000)


def floor_to(time: int, step: int) -> Millis:
    """The largest multiple of *step* that is not after *time* (both in ms)."""
    return Millis(time - time % step)


def utc_text(time: int) -> str:
    """*time* (Unix ms) as ``2026-01-10 12:00:00``, in UTC, for people; works for any value that a clock can show."""
    days, rest = divmod(int(time), DAY)
    seconds = rest // 1000
    return f"{day_name(days * DAY)} {seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def day_name(time: int) -> str:
    """The UTC day of *time* as ``YYYY-MM-DD``, by arithmetic (no locale, no time zone data base)."""
    # Civil-from-days: the proleptic Gregorian calendar in closed form, eras of 400 years = 146,097 days.
    days = int(time) // DAY + 719_468
    era, day_of_era = divmod(days, 146_097)
    year_of_era = (day_of_era - day_of_era // 1460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    shifted_month = (5 * day_of_year + 2) // 153
    day = day_of_year - (153 * shifted_month + 2) // 5 + 1
    month = shifted_month + 3 if shifted_month < 10 else shifted_month - 9
    return f"{year_of_era + era * 400 + (month <= 2):04}-{month:02}-{day:02}"


def printable(text: str) -> str:
    """The first 500 characters of *text* from a venue, fit for a terminal and a log: control characters escaped."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[:500])


_TIMEFRAME = re.compile(r"([1-9][0-9]{0,3})([mhd])", re.ASCII)
_UNIT = {"m": 60_000, "h": 3_600_000, "d": 86_400_000}


@attrs.frozen(order=False)
class Timeframe:
    """A candle's length: ``1m``, ``5m``, ``4h``, ``1d``; always divides a UTC day."""

    name: str
    length: Millis

    @classmethod
    def parse(cls, name: str) -> Timeframe:
        """The timeframe called *name*; ``ValueError`` unless it is a number and m, h or d that divides a day."""
        match = _TIMEFRAME.fullmatch(name)
        if match is None:
            raise ValueError(f"{name!r} is no timeframe; expected a number and m, h or d, as in 5m")
        length = int(match[1]) * _UNIT[match[2]]
        if length > DAY or DAY % length:
            raise ValueError(f"{name!r} does not divide a day")
        return cls(name, Millis(length))


ONE_MINUTE = Timeframe("1m", MINUTE)

_CANONICAL = re.compile(r"[A-Z0-9]{1,20}-[A-Z0-9]{1,20}", re.ASCII)


def canonical_symbol(symbol: str) -> str:
    """The folder of *symbol*: ``BASE-QUOTE``, upper case, ``-`` for the venue's separator.

    ``ValueError`` for anything else: this name becomes a path, so nothing but letters, digits and one
    dash gets through (no ``..``, no drive, no newline, no Windows device).
    """
    name = symbol.replace("/", "-", 1)
    if _CANONICAL.fullmatch(name) is None:
        raise ValueError(f"{symbol!r} is no symbol; expected BASE and QUOTE, as in BTC-USD")
    return name


@attrs.frozen(order=True)
class Series:
    """One venue's one symbol in one timeframe: what a day file, a gap or a mark belongs to."""

    venue: str
    symbol: str
    """As the venue writes it: ``BTC-USD``, ``BTC/USD``, ``BTC-USDT``."""
    timeframe: str = "1m"

    _folder: str | None = attrs.field(default=None, eq=False, order=False, repr=False)
    """``BASE-QUOTE``, from the venue's listing or the ledger, where the symbol does not show it (``BTCUSDT``)."""

    @property
    def folder(self) -> str:
        """``BASE-QUOTE``: the folder of all the symbol's timeframes; ``ValueError`` if it is neither given nor shown by
        the symbol.
        """
        return self._folder or canonical_symbol(self.symbol)

    @property
    def path(self) -> str:
        """Where the series' day files lie below the data directory, with ``/`` on every system."""
        return f"{self.venue}/{self.folder}/{self.timeframe}"

    def __str__(self) -> str:
        return f"{self.venue} {self.symbol} {self.timeframe}"


class Source(StrEnum):
    """Where a row's numbers came from; the ``source`` column."""

    WEBSOCKET = "websocket"
    REST = "rest"
    AGGREGATED = "aggregated"


@attrs.frozen
class Trade:
    """One execution; exact numbers, because sums of them must be exact."""

    trade_id: int
    time: Millis
    """The venue's engine time, floored to the millisecond: decides the minute."""
    price: Decimal
    size: Decimal
    """In the base currency."""


@attrs.frozen
class Candle:
    """A candle as it will lie on disk: one field per column, in the columns' order."""

    series: Series
    open_time: Millis
    open: float
    high: float
    low: float
    close: float
    volume: float
    """In the base currency."""
    quote_volume: float | None
    """In the quote currency; ``None`` where the venue does not say."""
    vwap: float | None
    trades_count: int | None
    source: Source
    ingest_time: Millis
    """When the collector received the candle, on the service's clock."""
    close_time: Millis
    """The first instant after the candle; a candle with any other value is rejected."""
    is_closed: bool = True

    def same_as(self, other: Candle) -> bool:
        """The contract's *equal*: prices identical, volume within 1e-9 relative, the rest not compared."""
        return (
            self.open == other.open
            and self.high == other.high
            and self.low == other.low
            and self.close == other.close
            and abs(self.volume - other.volume) <= 1e-9 * max(abs(self.volume), abs(other.volume))
        )


class Reason(StrEnum):
    """Why a minute is not certain; the ledger stores the value, and people read it.

    Who decides: ``Assembler._why`` in ``assembly/base.py`` for minutes of a live feed, from what the assemblers noted
    and their ``default_reason``; ``expect``, ``rebuild`` and ``lose`` in ``store/journal.py`` for minutes outside
    of a run; ``store/verdicts.py`` for a candle rejected there; ``collector/venue_state.py`` for overflow.
    """

    NOT_COLLECTED = "not_collected"
    """Before the first start: expected because of the lookback, never listened to."""
    COLLECTOR_DOWN = "collector_down"
    """Between two runs of the collector."""
    DISCONNECTED = "disconnected"
    """No connection for the whole of the minute, or the minute in which one was lost or made."""
    UNPROVEN = "unproven"
    """Connected throughout, but nothing yet proves that no trade is missing."""
    MISSING_TRADES = "missing_trades"
    """Trade ids jumped: the venue's feed dropped something."""
    NO_CLOSE = "no_close"
    """The venue states its closes and has not stated this one."""
    REFUSED = "refused"
    """The venue refused, or never acknowledged, the subscription."""
    SUSPECT = "suspect"
    """The venue itself said that its feed is not to be trusted (maintenance, cancel-only...)."""
    REJECTED = "rejected"
    """A candle came and broke a rule, or a row that cannot be read; the detail names the rule, or what is wrong."""
    OVERFLOW = "overflow"
    """More verdicts waited for the disk than the stated bound, and these were given up."""
    CORRUPT = "corrupt"
    """The day file that held the minute does not match its digest."""
    LEDGER_LOST = "ledger_lost"
    """The ledger was missing or unreadable and has been rebuilt."""


@attrs.frozen
class Empty:
    """Nothing traded in ``[since, until)``, and why we may say so."""

    series: Series
    since: Millis
    until: Millis
    evidence: str


@attrs.frozen
class Unsure:
    """``[since, until)`` is a gap, and why."""

    series: Series
    since: Millis
    until: Millis
    reason: Reason
    detail: str = ""


Verdict = Candle | Empty | Unsure


# --- findings: what else REST's answers tell the ledger; no verdicts ---------------------------------------


@attrs.frozen
class Attempt:
    """A question about ``[since, until)`` that proved nothing, and why."""

    series: Series
    since: Millis
    until: Millis
    error: str
    absent: bool = False
    """The venue gave a good answer and does not have these minutes. Observed twice, well apart, they are unfillable."""
    unwell: bool = False
    """The venue gave no answer at all: these minutes may be asked about again as soon as it does."""
    comparing: bool = False
    """The minutes are stored, and were asked about in order to compare them."""


@attrs.frozen
class Page:
    """What one answer of the venue's REST record proved. The page is believed or refused whole: whether it is about
    this market at all shows in its minutes that are stored already.
    """

    series: Series
    since: Millis
    until: Millis
    """The minutes that were asked for."""
    candles: tuple[Candle, ...]
    """Ascending; of minutes that are gaps or stored, also outside of the span."""
    empties: tuple[Empty, ...]
    anonymous: bool = False
    """The answer does not name its market: the page is believed if the stored minutes agree with it."""
    twice: bool = False
    """Two answers were the same; that is enough where nothing is stored that could agree with the page."""
    conclusive: bool = True
    """The page may replace a stored candle if an earlier answer had the same other candle."""
    comparing: bool = False
    """The page was asked for to compare stored candles: an old minute that it leaves out, the venue does not have."""
    sampled: bool = False
    """Rows of this venue are believed on a sample: some of the minutes that they fill are to be rebuilt from trades."""
    listed: tuple[Millis, str] | None = None
    """The minute in which the venue's market of the series began, and how that is known: earlier minutes are not
    expected, and are no part of the page."""
    first_row: tuple[Millis, str] | None = None
    """The minute of the oldest row of answers that reach a day further back, and what they were. Observed twice, well
    apart, it is where the market began."""


Finding = Attempt | Page
