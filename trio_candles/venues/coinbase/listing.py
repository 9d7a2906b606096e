"""What Coinbase lists, and how it writes symbols.

Source: the Exchange documentation of ``GET /products``, checked against recorded answers.
"""

from __future__ import annotations

from collections.abc import Set

import msgspec

from trio_candles.venues.coinbase.answers import judge
from trio_candles.venues.history import Answer, Request, read_body
from trio_candles.venues.listings import UNSTATED, Listed, Listing, Name, Symbols, Trading, by_symbol, readable

__all__ = ["LISTING", "SYMBOLS"]

SYMBOLS = Symbols("-", example="BTC-USD")


# {"id":"BTC-USD","base_currency":"BTC",...,"post_only":false,"limit_only":false,"cancel_only":false,
#  "status":"online","status_message":"","trading_disabled":false,"auction_mode":false,...}
# In 2018: "status_message":null. In the venue's other API: "alias":"BTC-USD" (of BTC-USDC), "alias_to":["BTC-USDC"].
class _Product(msgspec.Struct):
    id: Name
    status: str | None = None
    status_message: str | None = None
    trading_disabled: bool | None = None
    cancel_only: bool | None = None
    post_only: bool | None = None
    limit_only: bool | None = None
    auction_mode: bool | None = None
    alias: str | None = None


_ROWS = msgspec.json.Decoder(list[msgspec.Raw])
_PRODUCT = msgspec.json.Decoder(_Product)
_CLOSED = ("delisted", "internal", "offline")
_OWN_BOOKS = ("USDT-USDC", "EURC-USDC")
"""Documented: X-USDC is another name of X-USD, but for these."""


def _read(answer: Answer) -> dict[str, Listed]:
    judge(answer)
    rows = read_body(_ROWS, answer)
    products = readable(_PRODUCT, rows)
    symbols = {product.id for product in products}
    return by_symbol(_entry(product, symbols) for product in products)


def _entry(product: _Product, symbols: Set[str]) -> Listed:
    flags = [name for name in ("cancel_only", "post_only", "auction_mode", "limit_only") if getattr(product, name)]
    if product.status in _CLOSED or product.trading_disabled:
        trading = Trading.CLOSED
    else:
        # Many small markets are limit_only for ever; the other flags are passing states of any market.
        free = product.status == "online" and set(flags) <= {"limit_only"}
        trading = Trading.OPEN if free else Trading.LIMITED
    states = [product.status or UNSTATED, *flags, *(["trading_disabled"] if product.trading_disabled else [])]
    state = ", ".join([*states, *filter(None, [product.status_message])])
    return Listed(product.id, trading, state, alias_of=_alias(product, symbols))


def _alias(product: _Product, symbols: Set[str]) -> str | None:
    if product.alias is not None:
        return product.alias or None
    base, _, quote = product.id.partition("-")
    if quote == "USDC" and product.id not in _OWN_BOOKS and f"{base}-USD" in symbols:
        return f"{base}-USD"
    return None


LISTING = Listing(Request("/products", {}, "public"), _read)
