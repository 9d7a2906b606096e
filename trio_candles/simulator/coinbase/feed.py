"""Coinbase Exchange's WebSocket feed: matches and heartbeats."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from ..instruments import spread_out
from ..limits import TokenBucket
from ..session import LATENCY_LEAST_US, parse_object, strings, visible_ms
from ..text import iso, plain, to_json

if TYPE_CHECKING:
    from ..market import MarketTrade
    from ..session import Connection

CHANNELS = ("matches", "heartbeat", "status", "ticker", "level2", "level2_batch", "full")
SUBSCRIBE_WITHIN_MS = 5_000
HEARTBEAT_US = 1_000_000

# The maker stands on the other side of the taker.
MAKER = {"buy": "sell", "sell": "buy"}


def match_text(kind: str, symbol: str, trade: MarketTrade) -> str:
    """A match or last_match message."""
    return (
        f'{{"type":"{kind}","trade_id":{trade.trade_id},"sequence":{sequence(trade.time_us)},'
        f'"maker_order_id":"ac928c66-ca53-498f-9c13-{trade.trade_id:012x}",'
        f'"taker_order_id":"132fb6ae-456b-4654-b4e0-{trade.trade_id:012x}",'
        f'"time":"{iso(trade.time_us)}","product_id":"{symbol}",'
        f'"size":"{plain(trade.size)}","price":"{plain(trade.price)}","side":"{MAKER[trade.side]}"}}'
    )


def heartbeat_text(symbol: str, last_trade_id: int, time_us: int) -> str:
    """A heartbeat message."""
    return (
        f'{{"type":"heartbeat","sequence":{sequence(time_us)},"last_trade_id":{last_trade_id},'
        f'"product_id":"{symbol}","time":"{iso(time_us)}"}}'
    )


def sequence(time_us: int) -> int:
    """The number of a product's event: it grows with time, and not by one from match to match."""
    return (time_us - 1_356_998_400_000_000) // 400


@attrs.define
class Product:
    """One product's stream of matches and heartbeats, strictly in the order in which they happened.

    A heartbeat of time T comes after every match before T, and knows nothing of those after it.
    """

    symbol: str
    matches: bool = False
    heartbeat: bool = False
    next_id: int = 0
    next_heartbeat_us: int = 0
    #: When the last message was due: nothing overtakes it.
    sent_ms: int = 0
    #: Only the newest plan counts: a subscription changes what comes next.
    plan: int = 0

    @property
    def subscribed(self) -> bool:
        """Whether anything of this product is subscribed."""
        return self.matches or self.heartbeat


class CoinbaseSession:
    """What Coinbase sends on one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._products: dict[str, Product] = {}
        #: Every channel's subscribed products; what an acknowledgement lists.
        self._channels: dict[str, dict[str, None]] = {}
        self._messages = TokenBucket(per_second=100, burst=100)

    def opened(self) -> None:
        """Give the client five seconds to subscribe."""
        self._connection.plan(self._connection.now() + SUBSCRIBE_WITHIN_MS, self._expect_subscription)

    def second_passed(self, now_ms: int) -> None:
        """Nothing: heartbeats have their own time."""

    def heard(self, text: str) -> None:
        """Subscribe, unsubscribe, or complain."""
        connection = self._connection
        if not connection.faults.lift_limits and not self._messages.take(connection.now()):
            connection.violations["messages"] += 1
            return self._refuse("Rate limit exceeded")
        message = parse_object(text)
        match message and message.get("type"):
            case "subscribe" | "unsubscribe" as kind if message is not None:
                return self._change(message, subscribe=kind == "subscribe")
            case None:
                return self._refuse("Malformed JSON")
            case other:
                return self._refuse("Failed to process message", f"{other} is not a valid type")

    def _change(self, message: dict[str, Any], *, subscribe: bool) -> None:
        what = "Failed to subscribe" if subscribe else "Failed to unsubscribe"
        wanted: dict[str, list[str]] = {}
        products = strings(message.get("product_ids"))
        channels = message.get("channels")
        for channel in channels if isinstance(channels, list) else []:
            if isinstance(channel, str):
                wanted.setdefault(channel, []).extend(products)
            elif isinstance(channel, dict):
                own = strings(channel.get("product_ids"))
                wanted.setdefault(str(channel.get("name")), []).extend(own or products)
        if not wanted:
            return self._refuse(what, "channels is required")
        for channel, symbols in wanted.items():
            if channel not in CHANNELS:
                return self._refuse(what, f"{channel} is not a valid channel")
            if subscribe and not symbols and channel != "status":
                return self._refuse(what, "product_ids is required")
            for symbol in symbols:
                if reason := self._objection(symbol):
                    return self._refuse(what, reason)
        fresh = self._enter(wanted) if subscribe else self._leave(wanted)
        self._acknowledge()
        for symbol in fresh:
            self._start_matches(symbol)
        return None

    def _objection(self, symbol: str) -> str | None:
        faults = self._connection.faults
        if faults.names("delisted_symbols", symbol):
            return f"{symbol} is delisted"
        if faults.names("refused_symbols", symbol) or not self._connection.market.listed(symbol):
            return f"{symbol} is not a valid product"
        return None

    def _enter(self, wanted: dict[str, list[str]]) -> list[str]:
        fresh = []
        for channel, symbols in wanted.items():
            entry = self._channels.setdefault(channel, {})
            for symbol in symbols:
                entry[symbol] = None
                product = self._products.setdefault(symbol, Product(symbol))
                if channel == "matches" and not product.matches:
                    now_us = self._connection.now() * 1000
                    product.matches = True
                    product.next_id = self._connection.market.first_id_from(symbol, now_us)
                    fresh.append(symbol)
                elif channel == "heartbeat" and not product.heartbeat:
                    product.heartbeat = True
                    now_us = self._connection.now() * 1000
                    phase = spread_out(symbol.encode(), HEARTBEAT_US)
                    product.next_heartbeat_us = now_us + (phase - now_us) % HEARTBEAT_US
                    self._plan_next(product)
        return fresh

    def _leave(self, wanted: dict[str, list[str]]) -> list[str]:
        for channel, symbols in wanted.items():
            entry = self._channels.get(channel, {})
            for symbol in symbols or list(entry):
                entry.pop(symbol, None)
                if product := self._products.get(symbol):
                    product.matches = product.matches and channel != "matches"
                    product.heartbeat = product.heartbeat and channel != "heartbeat"
                    self._plan_next(product)
            if not entry:
                self._channels.pop(channel, None)
        return []

    def _acknowledge(self) -> None:
        """List everything subscribed now, not only what this message asked for."""
        hidden = self._connection.faults.unacknowledged_symbols
        channels = [
            {"name": name, "product_ids": [symbol for symbol in symbols if symbol not in hidden]}
            for name, symbols in self._channels.items()
        ]
        if any(symbol in hidden for symbols in self._channels.values() for symbol in symbols):
            self._connection.faults.fired["unacknowledged_symbols"] += 1
        self._connection.send(to_json({"type": "subscriptions", "channels": channels}))

    def _start_matches(self, symbol: str) -> None:
        """Send the last match as the baseline, and continue behind it."""
        connection = self._connection
        product = self._products[symbol]
        if product.next_id > 1 and not connection.is_silent(symbol):
            last = connection.market.trade(symbol, product.next_id - 1)
            connection.send(match_text("last_match", symbol, last))
        self._plan_next(product)

    def _plan_next(self, product: Product) -> None:
        """Put the product's next match or heartbeat on the agenda, whichever happens first."""
        product.plan += 1
        if not product.subscribed:
            return
        plan = product.plan
        if product.matches:
            trade = self._connection.market.trade(product.symbol, product.next_id)
            if not product.heartbeat or trade.time_us < product.next_heartbeat_us:
                due_ms = max(product.sent_ms, visible_ms(trade))
                self._connection.plan(due_ms, lambda _: self._match(product, plan, trade, due_ms))
                return
        due_ms = max(product.sent_ms, (product.next_heartbeat_us + LATENCY_LEAST_US) // 1000)
        self._connection.plan(due_ms, lambda _: self._heartbeat(product, plan, due_ms))

    def _match(self, product: Product, plan: int, trade: MarketTrade, due_ms: int) -> None:
        if plan != product.plan:
            return
        product.sent_ms = due_ms
        product.next_id = trade.trade_id + 1
        self._plan_next(product)
        self._connection.send_trade(product.symbol, trade.trade_id, match_text("match", product.symbol, trade))

    def _heartbeat(self, product: Product, plan: int, due_ms: int) -> None:
        if plan != product.plan:
            return
        product.sent_ms = due_ms
        time_us = product.next_heartbeat_us
        product.next_heartbeat_us += HEARTBEAT_US
        self._plan_next(product)
        connection, symbol = self._connection, product.symbol
        if not connection.faults.heartbeats:
            connection.faults.fired["heartbeats"] += 1
            return
        zero = connection.faults.is_set("last_trade_id_zero")
        last_trade_id = 0 if zero else connection.market.first_id_from(symbol, time_us) - 1
        connection.send(heartbeat_text(symbol, last_trade_id, time_us))

    def _expect_subscription(self, _: int) -> None:
        if not self._channels:
            self._connection.closing = (1008, "No subscription within 5 seconds")

    def _refuse(self, message: str, reason: str | None = None) -> None:
        error = {"type": "error", "message": message} | ({"reason": reason} if reason else {})
        self._connection.send(to_json(error))
