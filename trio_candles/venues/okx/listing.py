"""What OKX lists, and how it writes symbols.

Source: the v5 documentation of ``GET /api/v5/public/instruments``, checked against recorded answers.
"""

from __future__ import annotations

import re

import msgspec

from trio_candles.candles.model import Millis
from trio_candles.venues.history import Answer, Request, read_body
from trio_candles.venues.listings import Listed, Listing, Symbols, Trading
from trio_candles.venues.okx.answers import data_of
from trio_candles.venues.protocol import Misunderstood

__all__ = ["LISTING", "SYMBOLS"]

SYMBOLS = Symbols("-", example="BTC-USDT")

_PATH = "/api/v5/public/instruments"


# {"instType":"SPOT","instId":"BTC-USDT","baseCcy":"BTC",...,"listTime":"1548133413000","state":"live"}
class _Instrument(msgspec.Struct):
    instId: str
    state: str
    listTime: str = ""


_INSTRUMENTS = msgspec.json.Decoder(list[_Instrument])
_STATES = {"live": Trading.OPEN, "preopen": Trading.LIMITED}
_MILLIS = re.compile(r"[0-9]{12,13}", re.ASCII)


def _read(answer: Answer) -> dict[str, Listed]:
    listed = {}
    for found in read_body(_INSTRUMENTS, data_of(answer)):
        if found.listTime and _MILLIS.fullmatch(found.listTime) is None:
            raise Misunderstood("bad_time", repr(found.listTime[:40]))
        since = Millis(int(found.listTime)) if found.listTime else None
        listed[found.instId] = Listed(found.instId, _STATES.get(found.state, Trading.CLOSED), found.state, since)
    return listed


LISTING = Listing(Request(_PATH, {"instType": "SPOT"}, _PATH), _read)
