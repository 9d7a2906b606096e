"""What OKX lists, and how it writes symbols.

Source: the v5 documentation of ``GET /api/v5/public/instruments``, checked against recorded answers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from trio_candles.candles.model import Millis
from trio_candles.venues.history import Answer, Request, read_body
from trio_candles.venues.listings import UNSTATED, Listed, Listing, Name, Symbols, Trading, by_symbol, readable
from trio_candles.venues.okx.answers import data_of

__all__ = ["LISTING", "SYMBOLS"]

SYMBOLS = Symbols("-", example="BTC-USDT")

_PATH = "/api/v5/public/instruments"


# {"instType":"SPOT","instId":"BTC-USDT","baseCcy":"BTC",...,"listTime":"1548133413000","state":"live"}; of an
# announced instrument, baseCcy and others may be empty.
class _Instrument(msgspec.Struct):
    instId: Name
    state: str | None = None
    listTime: object = None


_ROWS = msgspec.json.Decoder(list[msgspec.Raw])
_INSTRUMENT = msgspec.json.Decoder(_Instrument)
_STATES: Mapping[str | None, Trading] = {
    "live": Trading.OPEN,
    "expired": Trading.CLOSED,
    "test": Trading.CLOSED,
}
"""Others restrict (post_only) or wait (preopen, rebase, suspend); a delisted instrument is not listed any more."""
_MILLIS = re.compile(r"[0-9]{12,13}", re.ASCII)


def _read(answer: Answer) -> dict[str, Listed]:
    rows = read_body(_ROWS, data_of(answer))
    return by_symbol(map(_entry, readable(_INSTRUMENT, rows)))


def _entry(found: _Instrument) -> Listed:
    time = found.listTime
    since = Millis(int(time)) if isinstance(time, str) and _MILLIS.fullmatch(time) else None
    return Listed(found.instId, _STATES.get(found.state, Trading.LIMITED), found.state or UNSTATED, since)


LISTING = Listing(Request(_PATH, {"instType": "SPOT"}, _PATH), _read)
