"""What Coinbase lists, and how it writes symbols.

Source: the Exchange documentation of ``GET /products``, checked against recorded answers.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from trio_candles.venues.coinbase.answers import judge
from trio_candles.venues.history import Answer, Request, read_body
from trio_candles.venues.listings import Listed, Listing, Symbols, Trading

__all__ = ["LISTING", "SYMBOLS"]

SYMBOLS = Symbols("-", example="BTC-USD")


# {"id":"BTC-USD","base_currency":"BTC",...,"post_only":false,"limit_only":false,"cancel_only":false,
#  "status":"online","status_message":"","trading_disabled":false,"auction_mode":false,...}
# In the venue's other API: "alias":"BTC-USD" (of BTC-USDC), "alias_to":["BTC-USDC"] (of BTC-USD).
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


def _read(answer: Answer) -> dict[str, Listed]:
    judge(answer)
    products = {product.id: product for product in read_body(_PRODUCTS, answer)}
    return {symbol: _product(product, products) for symbol, product in products.items()}


def _product(product: _Product, products: Mapping[str, _Product]) -> Listed:
    flags = [name for name in ("cancel_only", "post_only", "auction_mode", "limit_only") if getattr(product, name)]
    if product.status != "online" or product.trading_disabled:
        trading = Trading.CLOSED
    else:
        # Many small markets are limit_only for ever; the other flags are passing states of any market.
        trading = Trading.LIMITED if set(flags) - {"limit_only"} else Trading.OPEN
    states = [product.status, *flags, *(["trading_disabled"] if product.trading_disabled else [])]
    return Listed(
        product.id, trading, ", ".join([*states, *filter(None, [product.status_message])]),
        alias_of=_alias(product, products),
    )  # fmt: skip


def _alias(product: _Product, products: Mapping[str, _Product]) -> str | None:
    if product.alias is not None:
        return product.alias or None
    base, _, quote = product.id.partition("-")
    if quote == "USDC" and product.id not in _OWN_BOOKS and f"{base}-USD" in products:
        return f"{base}-USD"
    return None


LISTING = Listing(Request("/products", {}, "public"), _read)
