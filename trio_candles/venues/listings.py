"""What the venues list: one question each, and which symbols exist, trade, or are another name of the same market.

Source: the documentation of Coinbase's ``GET /products``, Kraken's ``/0/public/AssetPairs`` and OKX's
``/api/v5/public/instruments``, checked against recorded answers. Bodies of a megabyte are usual.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from enum import StrEnum
from types import MappingProxyType

import attrs
import msgspec

from trio_candles.candles.model import Millis
from trio_candles.venues.answers import judge_coinbase, kraken_result, okx_data
from trio_candles.venues.history import Answer, Request, read_body
from trio_candles.venues.protocol import Misunderstood

__all__ = ["LISTINGS", "Listed", "Listing", "Trading", "nearest"]


class Trading(StrEnum):
    """Whether a symbol trades, by what the venue says of it."""

    OPEN = "trades"
    LIMITED = "trades with restrictions, or will again"
    CLOSED = "does not trade"


@attrs.frozen
class Listed:
    """One symbol as the venue lists it."""

    symbol: str
    """As its feed writes it, which is as the configuration does."""
    trading: Trading
    state: str
    """The venue's own words."""
    since: Millis | None = None
    """When it was listed, where the venue says."""
    alias_of: str | None = None
    """The symbol of the same market that the venue means by it: collecting both would store the same twice."""


@attrs.frozen
class Listing:
    """How a venue is asked what it lists, and how its answer is read."""

    path: str
    params: Mapping[str, str]
    bucket: str
    read: Callable[[Answer], dict[str, Listed]]
    """Everything that the venue lists, by symbol; the errors of :mod:`~trio_candles.venues.history`."""

    def request(self) -> Request:
        """The question."""
        return Request(self.path, self.params, self.bucket)


def nearest(symbol: str, listed: Mapping[str, Listed], most: int = 3) -> list[str]:
    """Up to *most* symbols that may have been meant by *symbol*, the likeliest first; only such that can be used."""
    usable = [one for one, entry in listed.items() if entry.trading is not Trading.CLOSED and entry.alias_of is None]
    base, separator, quote = re.split("([-/])", symbol, maxsplit=1)
    today = _NAMES_TODAY.get(base, base), _NAMES_TODAY.get(quote, quote)
    sure = [name for name in (separator.join(today), separator.join(reversed(today))) if name in usable]
    close = get_close_matches(symbol, usable, n=most + 1, cutoff=0.6)
    # Of names that are as close, those of the same base: BTC-USDX is BTC and something, not something and USDT.
    close.sort(key=lambda name: not name.startswith(base + separator))
    same_base = [] if close else sorted(name for name in usable if name.startswith(base + separator))
    return list(dict.fromkeys([*sure, *close, *same_base]))[:most]


# --- Coinbase ---------------------------------------------------------------------------------------------


# {"id":"BTC-USD","base_currency":"BTC",...,"post_only":false,"limit_only":false,"cancel_only":false,
#  "status":"online","status_message":"","trading_disabled":false,"auction_mode":false,...}
# Of the other API of the venue: "alias":"BTC-USD" (of BTC-USDC), "alias_to":["BTC-USDC"] (of BTC-USD).
class _Product(msgspec.Struct):
    id: str
    status: str
    status_message: str = ""
    trading_disabled: bool = False
    cancel_only: bool = False
    post_only: bool = False
    limit_only: bool = False
    auction_mode: bool = False
    alias: str | None = None


_PRODUCTS = msgspec.json.Decoder(list[_Product])
_OWN_BOOKS = ("USDT-USDC", "EURC-USDC")
"""Documented: X-USDC is another name of X-USD, but for these."""


def _read_products(answer: Answer) -> dict[str, Listed]:
    judge_coinbase(answer)
    products = {product.id: product for product in read_body(_PRODUCTS, answer)}
    return {symbol: _product(product, products) for symbol, product in products.items()}


def _product(product: _Product, products: Mapping[str, _Product]) -> Listed:
    flags = [name for name in ("cancel_only", "post_only", "auction_mode", "limit_only") if getattr(product, name)]
    if product.status != "online" or product.trading_disabled:
        trading = Trading.CLOSED
    else:
        # limit_only is how many small markets are run for ever; the others are passing states of any market.
        trading = Trading.LIMITED if set(flags) - {"limit_only"} else Trading.OPEN
    words = [product.status, *flags, *(["trading_disabled"] if product.trading_disabled else [])]
    return Listed(
        product.id, trading, ", ".join([*words, *filter(None, [product.status_message])]),
        alias_of=_alias(product, products),
    )  # fmt: skip


def _alias(product: _Product, products: Mapping[str, _Product]) -> str | None:
    if product.alias is not None:
        return product.alias or None
    base, _, quote = product.id.partition("-")
    if quote == "USDC" and product.id not in _OWN_BOOKS and f"{base}-USD" in products:
        return f"{base}-USD"
    return None


# --- Kraken -----------------------------------------------------------------------------------------------


# "XXBTZUSD":{"altname":"XBTUSD","wsname":"XBT/USD","base":"XXBT","quote":"ZUSD",...,"status":"online"}; dark pools
# (XXBTZUSD.d) have no wsname, and answers of 2021 no status.
class _Pair(msgspec.Struct):
    wsname: str | None = None
    status: str = ""


_PAIR = msgspec.json.Decoder(_Pair)
_NAMES_TODAY = {"XBT": "BTC", "XDG": "DOGE"}
"""wsname is what the older feed calls a pair; the newer one refuses these two."""
_KRAKEN_STATES = {
    "": Trading.OPEN,
    "online": Trading.OPEN,
    "limit_only": Trading.LIMITED,
    "post_only": Trading.LIMITED,
    "reduce_only": Trading.LIMITED,
    "cancel_only": Trading.LIMITED,
    "maintenance": Trading.LIMITED,
}


def _read_pairs(answer: Answer) -> dict[str, Listed]:
    listed = {}
    for raw in kraken_result(answer, Millis(0)).values():
        pair = read_body(_PAIR, attrs.evolve(answer, body=bytes(raw)))
        if pair.wsname is not None:
            symbol = "/".join(_NAMES_TODAY.get(asset, asset) for asset in pair.wsname.split("/"))
            trading = _KRAKEN_STATES.get(pair.status, Trading.CLOSED)
            listed[symbol] = Listed(symbol, trading, pair.status or "listed, without a status")
    return listed


# --- OKX --------------------------------------------------------------------------------------------------


# {"instType":"SPOT","instId":"BTC-USDT","baseCcy":"BTC",...,"listTime":"1548133413000","state":"live"}
class _Instrument(msgspec.Struct):
    instId: str
    state: str
    listTime: str = ""


_INSTRUMENTS = msgspec.json.Decoder(list[_Instrument])
_OKX_STATES = {"live": Trading.OPEN, "preopen": Trading.LIMITED}
_MILLIS = re.compile(r"[0-9]{12,13}", re.ASCII)


def _read_instruments(answer: Answer) -> dict[str, Listed]:
    listed = {}
    for one in read_body(_INSTRUMENTS, okx_data(answer)):
        if one.listTime and _MILLIS.fullmatch(one.listTime) is None:
            raise Misunderstood("bad_time", repr(one.listTime[:40]))
        since = Millis(int(one.listTime)) if one.listTime else None
        listed[one.instId] = Listed(one.instId, _OKX_STATES.get(one.state, Trading.CLOSED), one.state, since)
    return listed


LISTINGS: Mapping[str, Listing] = MappingProxyType(
    {
        "coinbase": Listing("/products", {}, "public", _read_products),
        "kraken": Listing("/0/public/AssetPairs", {}, "public", _read_pairs),
        "okx": Listing(
            "/api/v5/public/instruments", {"instType": "SPOT"}, "/api/v5/public/instruments", _read_instruments
        ),
    }
)
"""By venue. The buckets are those of the venue's :class:`~trio_candles.venues.history.History`."""
