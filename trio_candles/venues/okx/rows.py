"""OKX's candle as a row, of the feed and of REST alike: nine texts, of which the last says whether it is closed."""

from __future__ import annotations

import re

import msgspec

from trio_candles.candles.model import MINUTE, Millis, floor_to
from trio_candles.venues.protocol import UNREADABLE, Misunderstood, floats_of

__all__ = ["MILLIS", "CandleRow", "minute_of", "numbers_of", "time_of_row"]

MILLIS = re.compile(r"[0-9]{13}", re.ASCII)
"""A time as OKX writes times: Unix ms."""


# ["1597026383085","8533.02","8553.74","8527.17","8548.26","45247","529.5858061","5529.5858061","1"]:
# ts (open, ms), o, h, l, c, volume in base, in quote, in quote, confirm ("0": forming). Recordings of 2022 have seven
# fields and no confirm.
class CandleRow(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A row as it is written; columns that are added after these are ignored."""

    ts: str
    open: str
    high: str
    low: str
    close: str
    volume: str
    in_currency: object
    in_quote: object
    confirm: str


class _About(msgspec.Struct, array_like=True):
    ts: object


_ABOUT = msgspec.json.Decoder(_About)


def time_of_row(row: CandleRow) -> Millis:
    """When *row*'s candle opens, in Unix ms; :class:`Misunderstood` if that is no time."""
    if MILLIS.fullmatch(row.ts) is None:
        raise Misunderstood("bad_time", repr(row.ts[:40]))
    return Millis(int(row.ts))


def numbers_of(row: CandleRow) -> tuple[float, float, float, float, float, float | None, float | None]:
    """Open, high, low, close, volume of *row*, then its quote volume and its vwap, which may be ``None``;
    :class:`Misunderstood` if one of the first five is no number.
    """
    needed, quote_volume = floats_of((row.open, row.high, row.low, row.close, row.volume), row.in_quote)
    opened, high, low, close, volume = needed
    vwap = quote_volume / volume if volume > 0 and quote_volume is not None else None
    return opened, high, low, close, volume, quote_volume, vwap


def minute_of(text: bytes) -> Millis | None:
    """The minute that the row *text*, which cannot be read, is about; ``None`` if that cannot be read, either."""
    try:
        time = str(_ABOUT.decode(text).ts)
    except UNREADABLE:
        return None
    return floor_to(int(time), MINUTE) if MILLIS.fullmatch(time) is not None else None
