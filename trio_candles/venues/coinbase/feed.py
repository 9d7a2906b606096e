"""Coinbase Exchange: trades and heartbeats, from which minutes are built and proven.

Source: the Exchange WebSocket documentation (channels ``matches`` and ``heartbeat``), checked against a
recorded session. The venue has no 1-minute candle channel, so :class:`~trio_candles.assembly.FromTrades`
builds candles. Trades may be dropped by the venue although TCP loses nothing; ``trade_id`` is contiguous per
product, and ``heartbeat.last_trade_id`` gives the newest id once a second.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import msgspec

from trio_candles.candles.model import Trade
from trio_candles.venues.protocol import (
    UNREADABLE,
    Acked,
    Event,
    Heartbeat,
    Id,
    Limits,
    Misunderstood,
    Refused,
    Skipped,
    Traded,
    exact,
    time_of,
)

__all__ = ["Coinbase"]

# A product that the venue refuses is named in its words: "XX-USD is not a valid product", "XX-USD is delisted".
_NAMED = re.compile(r"(?<![\w-])([A-Z0-9]{1,20}-[A-Z0-9]{1,20})(?![\w-])", re.ASCII)


# {"type":"match","trade_id":10,"sequence":50,"time":"2014-11-07T08:19:27.028459Z","product_id":"BTC-USD",
#  "size":"5.23512","price":"400.23","side":"sell", ...}; last_match: the same, once per product at the start.
class _Match(msgspec.Struct, tag_field="type", tag="match"):
    trade_id: Id
    time: str
    product_id: str
    size: str
    price: str


class _LastMatch(_Match, tag_field="type", tag="last_match"):
    pass


# {"type":"heartbeat","sequence":90,"last_trade_id":20,"product_id":"BTC-USD","time":"2014-11-07T08:19:28.464459Z"}
class _Heartbeat(msgspec.Struct, tag_field="type", tag="heartbeat"):
    last_trade_id: Id
    product_id: str
    time: str


# {"type":"subscriptions","channels":[{"name":"matches","product_ids":["BTC-USD"]}, ...]}: all current ones.
class _Channel(msgspec.Struct):
    name: str
    product_ids: list[str]


class _Subscriptions(msgspec.Struct, tag_field="type", tag="subscriptions"):
    channels: list[_Channel]


# {"type":"error","message":"Failed to subscribe","reason":"GIBBERISH-USD is not a valid product"}
class _Error(msgspec.Struct, tag_field="type", tag="error"):
    message: str | None = None
    reason: str | None = None


_DECODER = msgspec.json.Decoder(_Match | _LastMatch | _Heartbeat | _Subscriptions | _Error)


class Coinbase:
    """Coinbase Exchange's public feed; no key needed."""

    name = "coinbase"
    websocket_url = "wss://ws-feed.exchange.coinbase.com"
    channels = ("matches", "heartbeat")
    ping = None
    limits = Limits(
        connects_per_second=4.0,  # documented: 8 a second and IP, burst 20; other programs share the IP
        connects_burst=8,
        symbols_per_connection=100,  # no documented limit; the venue advises to spread products
        symbols_per_message=100,
        messages_per_second=5.0,  # documented: 10 a second on the stricter page
        changes_per_hour=None,
        too_fast=r"\brate limit",
        silence=10.0,  # a heartbeat per product and second: ten missed are no coincidence
        ping_after=None,
        symbol_silence=10.0,
        symbol_remedy="reconnect",
    )

    def subscribe(self, symbols: Sequence[str], request: int) -> Iterator[str]:
        """One message for up to a hundred products; the first must arrive within 5 s of connecting."""
        yield from self._messages("subscribe", symbols)

    def unsubscribe(self, symbols: Sequence[str], request: int) -> Iterator[str]:
        """The messages that end what :meth:`subscribe` began."""
        yield from self._messages("unsubscribe", symbols)

    def _messages(self, what: str, symbols: Sequence[str]) -> Iterator[str]:
        for start in range(0, len(symbols), self.limits.symbols_per_message):
            batch = list(symbols[start : start + self.limits.symbols_per_message])
            message = {"type": what, "product_ids": batch, "channels": list(self.channels)}
            yield msgspec.json.encode(message).decode()

    def read(self, text: str) -> Sequence[Event]:
        """Trades, heartbeats, acknowledgements and refusals; unknown types are skipped, as documented."""
        try:
            message = _DECODER.decode(text)
        except UNREADABLE as error:
            return (_other(text, error),)
        if isinstance(message, _Match):
            return (_traded(message),)
        if isinstance(message, _Heartbeat):
            return (Heartbeat(message.product_id, time_of(message.time), message.last_trade_id),)
        if isinstance(message, _Subscriptions):
            return [Acked(symbol, channel.name) for channel in message.channels for symbol in channel.product_ids]
        words = ": ".join(filter(None, (message.message, message.reason))) or "refused without a reason"
        named = _NAMED.search(words)
        return (Refused(named and named[1], words),)


def _traded(message: _Match) -> Traded:
    price, size = exact(message.price), exact(message.size)
    if price <= 0 or size <= 0 or message.trade_id <= 0:
        raise Misunderstood("bad_trade", f"{message.product_id} {message.trade_id} {price} {size}")
    return Traded(message.product_id, Trade(message.trade_id, time_of(message.time), price, size))


def _other(text: str, error: Exception) -> Skipped:
    """Judge a message that the typed decoder refused: skipped if we do not know its type, else ``Misunderstood``."""
    try:
        message = msgspec.json.decode(text)
    except UNREADABLE:
        raise Misunderstood("not_json", text[:200]) from None
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise Misunderstood("bad_shape", text[:200])
    if message["type"] in ("match", "last_match", "heartbeat", "subscriptions", "error"):
        raise Misunderstood("bad_shape", f"{error} in {text[:200]}")
    return Skipped("unknown_type")
