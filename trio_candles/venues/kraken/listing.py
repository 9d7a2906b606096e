"""What Kraken lists, and how it writes symbols.

Source: the documentation of ``GET /0/public/AssetPairs``, checked against recorded answers.
"""

from __future__ import annotations

import attrs
import msgspec

from trio_candles.candles.model import Millis
from trio_candles.venues.history import Answer, Request, read_body
from trio_candles.venues.kraken.answers import result_of
from trio_candles.venues.listings import OLDER_NAMES, Listed, Listing, Symbols, Trading

__all__ = ["LISTING", "SYMBOLS"]

SYMBOLS = Symbols("/", example="BTC/USD", older=OLDER_NAMES)
"""The older feed and REST (``wsname``) know the older names of assets; the feed in use refuses them."""


# "XXBTZUSD":{"altname":"XBTUSD","wsname":"XBT/USD","base":"XXBT","quote":"ZUSD",...,"status":"online"}; dark pools
# (XXBTZUSD.d) have no wsname, and answers of 2021 no status.
class _Pair(msgspec.Struct):
    wsname: str | None = None
    status: str = ""


_PAIR = msgspec.json.Decoder(_Pair)
_STATES = {
    "": Trading.OPEN,
    "online": Trading.OPEN,
    "limit_only": Trading.LIMITED,
    "post_only": Trading.LIMITED,
    "reduce_only": Trading.LIMITED,
    "cancel_only": Trading.LIMITED,
    "maintenance": Trading.LIMITED,
}


def _read(answer: Answer) -> dict[str, Listed]:
    listed = {}
    for raw in result_of(answer, Millis(0)).values():
        pair = read_body(_PAIR, attrs.evolve(answer, body=bytes(raw)))
        if pair.wsname is not None:
            symbol = SYMBOLS.join(*pair.wsname.split("/"))
            trading = _STATES.get(pair.status, Trading.CLOSED)
            listed[symbol] = Listed(symbol, trading, pair.status or "listed, without a status")
    return listed


LISTING = Listing(Request("/0/public/AssetPairs", {}, "public"), _read)
