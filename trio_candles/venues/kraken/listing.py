"""What Kraken lists, and how it writes symbols.

Source: the documentation of ``GET /0/public/AssetPairs``, checked against recorded answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from trio_candles.candles.model import Millis
from trio_candles.venues.history import Answer, Request
from trio_candles.venues.kraken.answers import result_of
from trio_candles.venues.listings import OLDER_NAMES, UNSTATED, Listed, Listing, Symbols, Trading, by_symbol, readable

__all__ = ["LISTING", "SYMBOLS"]

SYMBOLS = Symbols("/", example="BTC/USD", older=OLDER_NAMES)
"""The older feed and REST (``wsname``) know the older names of assets; the feed in use refuses them."""


# "XXBTZUSD":{"altname":"XBTUSD","wsname":"XBT/USD","base":"XXBT","quote":"ZUSD",...,"status":"online",
#   "execution_venue":"international"}; answers of 2021 have no status, and older ones no execution_venue.
# The market of another venue under the same roof (2026): "XBTUSD:BTNL":{"altname":"XBTUSD:BTNL","wsname":"XBT/USD",
#   "status":"delisted","execution_venue":"bitnomial_exchange",...}; a dark pool: "XXBTZUSD.d", mostly without a wsname.
class _Pair(msgspec.Struct):
    altname: str | None = None
    wsname: str | None = None
    status: str | None = None
    execution_venue: str | None = None


_PAIR = msgspec.json.Decoder(_Pair)
_OWN_VENUES = (None, "", "international")
_STATES: Mapping[str | None, Trading] = {
    None: Trading.OPEN,
    "": Trading.OPEN,
    "online": Trading.OPEN,
    "delisted": Trading.CLOSED,
}
"""Others (limit_only, post_only, reduce_only, cancel_only, maintenance, work_in_progress) restrict or pass."""


def _read(answer: Answer) -> dict[str, Listed]:
    pairs = result_of(answer, Millis(0))
    own = readable(_PAIR, (raw for name, raw in pairs.items() if _is_own(name)))
    return by_symbol(_entries(pair for pair in own if pair.execution_venue in _OWN_VENUES and _is_own(pair.altname)))


def _is_own(name: str | None) -> bool:
    """Whether the feed may know the pair called *name*: no other venue's, and no dark pool's."""
    return name is None or not (":" in name or name.endswith(".d"))


def _entries(pairs: Iterable[_Pair]) -> Iterator[Listed]:
    for pair in pairs:
        assets = (pair.wsname or "").split(SYMBOLS.separator)
        if len(assets) == 2 and all(assets):
            trading = _STATES.get(pair.status, Trading.LIMITED)
            yield Listed(SYMBOLS.join(*assets), trading, pair.status or UNSTATED)


LISTING = Listing(Request("/0/public/AssetPairs", {}, "public"), _read)
