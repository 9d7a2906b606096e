"""OKX's WebSocket API v5: one-minute candles and single trades on /business, trades on /public."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from ..instruments import spread_out
from ..limits import Window
from ..market import MINUTE_MS
from ..session import parse_object, visible_ms
from ..text import plain, to_json

if TYPE_CHECKING:
    from decimal import Decimal

    from ..market import MarketTrade, TrueCandle, VenueMarket
    from ..session import Connection

# What can be subscribed on each path; clients are sent to the first.
CHANNELS = {"/ws/v5/business": ("candle1m", "trades-all"), "/ws/v5/public": ("trades",)}
SILENCE_MS = 30_000
LONGEST_MESSAGE = 64 * 1024
PUSH_EVERY_MS = 1_000
#: All of a minute's trades are visible this long after its end.
SETTLED_MS = 100
CONFIRM_SPREAD_MS = 800
SECOND_CONFIRM_MS = 2_000
HOUR_MS = 3_600_000


def candle_row(candle: TrueCandle, *, closed: bool) -> list[str]:
    """Nine strings: time, open, high, low, close, volume, twice the quote volume, confirm."""
    numbers = (
        candle.open, candle.high, candle.low, candle.close,
        candle.volume, candle.quote_volume, candle.quote_volume,
    )  # fmt: skip
    return [str(candle.minute_ms), *map(plain, numbers), "1" if closed else "0"]


def flat_row(minute_ms: int, price: Decimal, *, closed: bool) -> list[str]:
    """The row of a minute without trades: the previous close and no volume."""
    return [str(minute_ms), *[plain(price)] * 4, "0", "0", "0", "1" if closed else "0"]


def row_until(market: VenueMarket, symbol: str, minute_ms: int, next_id: int, *, closed: bool) -> list[str] | None:
    """A minute's row from the trades below *next_id*; None for a minute before the first trade ever."""
    if candle := market.candle_until(symbol, minute_ms, next_id):
        return candle_row(candle, closed=closed)
    before = market.first_id_from(symbol, minute_ms * 1000) - 1
    return flat_row(minute_ms, market.trade(symbol, before).price, closed=closed) if before else None


def trade_row(symbol: str, trade: MarketTrade) -> dict[str, str]:
    """One trade, without what differs between the channels."""
    return {
        "instId": symbol,
        "tradeId": str(trade.trade_id),
        "px": plain(trade.price),
        "sz": plain(trade.size),
        "side": trade.side,
        "ts": str(trade.time_us // 1000),
    }


@attrs.define
class Candles:
    """One instrument's candle subscription."""

    symbol: str
    #: The minute whose forming row is pushed.
    minute_ms: int
    #: The first trade that no push has counted yet.
    next_id: int
    pushed_ms: int = 0
    #: The minute of the newest forming row that was pushed.
    shown_ms: int = 0
    plan: int = 0
    alive: bool = True


@attrs.define
class Trades:
    """One instrument's trade subscription."""

    channel: str
    symbol: str
    next_id: int
    sent_ms: int = 0
    alive: bool = True


class OkxSession:
    """What OKX sends on one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._candles: dict[str, Candles] = {}
        self._trades: dict[tuple[str, str], Trades] = {}
        self._requests = Window(480, HOUR_MS)
        self._noticed = False

    def opened(self) -> None:
        """Nothing: OKX waits to be asked."""

    def second_passed(self, now_ms: int) -> None:
        """Close a connection on which nothing was sent either way; announce a service upgrade."""
        connection = self._connection
        if now_ms - max(connection.sent_ms, connection.heard_ms, connection.connected_at) >= SILENCE_MS:
            connection.closing = (4004, "No data received in 30s")
        if connection.faults.notice is not None and not self._noticed:
            self._noticed = True
            connection.faults.fired["notice"] += 1
            text = "The connection will soon be closed for a service upgrade. Please reconnect."
            connection.send(to_json({"event": "notice", "code": "64008", "msg": text, "connId": self._name}))
            connection.plan(now_ms + round(connection.faults.notice * 1000), self._close_for_upgrade)

    def heard(self, text: str) -> None:
        """Answer a ping, subscribe, unsubscribe, or complain."""
        connection = self._connection
        if text == "ping":
            return connection.send("pong")
        message = parse_object(text)
        arguments = message.get("args") if message else None
        operation = message.get("op") if message else None
        if message is None or not isinstance(arguments, list) or len(text) > LONGEST_MESSAGE:
            return self._refuse("60012", f"Invalid request: {text[:300]}", message)
        if operation not in ("subscribe", "unsubscribe"):
            return self._refuse("60012", f"Invalid request: {text[:300]}", message)
        if not connection.faults.lift_limits and not self._requests.take(connection.now()):
            connection.violations["messages"] += 1
            return self._refuse("60014", "Requests too frequent", message)
        for argument in arguments:
            if isinstance(argument, dict):
                self._change(operation, argument, message)
            else:
                self._refuse("60013", "Invalid args", message)
        return None

    @property
    def _name(self) -> str:
        return f"{0xA4D30000 + self._connection.number:08x}"

    def _change(self, operation: str, argument: dict[str, Any], message: dict[str, Any]) -> None:
        connection = self._connection
        channel, symbol = str(argument.get("channel")), str(argument.get("instId"))
        refused = connection.faults.names("refused_symbols", symbol)
        if refused or channel not in CHANNELS.get(connection.path, ()) or not connection.market.listed(symbol):
            names = ",".join(f"{key}:{value}" for key, value in argument.items() if key != "channel")
            return self._refuse(
                "60018",
                f"Wrong URL or channel:{channel},{names} doesn't exist. Please use the correct URL, "
                "channel and parameters referring to API document.",
                None,
            )
        if operation != "subscribe" or not connection.faults.names("unacknowledged_symbols", symbol):
            identity = {"id": message["id"]} if "id" in message else {}
            answer = identity | {"event": operation, "arg": argument, "connId": self._name}
            connection.send(to_json(answer))
        if operation == "unsubscribe":
            return self._unsubscribe(channel, symbol)
        next_id = connection.market.first_id_from(symbol, connection.now() * 1000)
        if channel == "candle1m":
            return self._start_candles(symbol, next_id)
        if (channel, symbol) not in self._trades:
            trades = self._trades[channel, symbol] = Trades(channel, symbol, next_id)
            self._plan_trade(trades)
        return None

    def _unsubscribe(self, channel: str, symbol: str) -> None:
        if channel == "candle1m" and (candles := self._candles.pop(symbol, None)):
            candles.alive = False
        if trades := self._trades.pop((channel, symbol), None):
            trades.alive = False

    def _refuse(self, code: str, text: str, message: dict[str, Any] | None) -> None:
        identity = {"id": message["id"]} if message and "id" in message else {}
        error = identity | {"event": "error", "code": code, "msg": text, "connId": self._name}
        self._connection.send(to_json(error))

    def _close_for_upgrade(self, _: int) -> None:
        self._connection.closing = (1001, "service upgrade")

    # -- candles -------------------------------------------------------------------------------------------

    def _start_candles(self, symbol: str, next_id: int) -> None:
        """Show the forming row at once; from now on push, roll over and confirm."""
        now_ms = self._connection.now()
        if symbol in self._candles:
            return
        minute_ms = now_ms // MINUTE_MS * MINUTE_MS
        candles = self._candles[symbol] = Candles(symbol, minute_ms, next_id)
        self._show(candles, now_ms)
        self._plan_minute(candles)

    def _plan_minute(self, candles: Candles) -> None:
        """Plan the end of the forming minute: the change to the next one, and the confirmation."""
        minute_ms = candles.minute_ms
        end_ms = minute_ms + MINUTE_MS
        spread = spread_out(f"{candles.symbol}|{minute_ms}".encode(), CONFIRM_SPREAD_MS)
        delay_ms = round(self._connection.faults.confirm_delay * 1000)
        confirm_ms = end_ms + SETTLED_MS + spread + delay_ms
        self._connection.plan(end_ms + SETTLED_MS, lambda now_ms: self._roll(candles, now_ms))
        self._connection.plan(confirm_ms, lambda now_ms: self._confirm(candles, minute_ms, now_ms))
        if delay_ms:
            self._connection.faults.fired["confirm_delay"] += 1

    def _plan_push(self, candles: Candles) -> None:
        """Plan a push for when the next trade is visible, but not within a second of the last push."""
        candles.plan += 1
        plan = candles.plan
        trade = self._connection.market.trade(candles.symbol, candles.next_id)
        if trade.time_us < (candles.minute_ms + MINUTE_MS) * 1000:
            due_ms = max(visible_ms(trade), candles.pushed_ms + PUSH_EVERY_MS)
            self._connection.plan(due_ms, lambda now_ms: self._traded(candles, plan, now_ms))

    def _traded(self, candles: Candles, plan: int, now_ms: int) -> None:
        if plan == candles.plan and candles.alive:
            self._show(candles, now_ms)

    def _show(self, candles: Candles, now_ms: int) -> None:
        """Push the forming row as far as its trades are visible, and plan the next push."""
        market, symbol, minute_ms = self._connection.market, candles.symbol, candles.minute_ms
        for trade in market.trades(symbol, minute_ms):
            if trade.trade_id >= candles.next_id:
                if visible_ms(trade) > now_ms:
                    break
                candles.next_id = trade.trade_id + 1
        row = row_until(market, symbol, minute_ms, candles.next_id, closed=False)
        candles.pushed_ms = now_ms
        candles.shown_ms = minute_ms
        self._push(symbol, row)
        self._plan_push(candles)

    def _roll(self, candles: Candles, now_ms: int) -> None:
        if not candles.alive:
            return
        candles.minute_ms += MINUTE_MS
        # If the clock leapt, the minutes between are still confirmed, each at once.
        candles.next_id = self._connection.market.first_id_from(candles.symbol, candles.minute_ms * 1000)
        self._plan_minute(candles)
        self._plan_push(candles)

    def _confirm(self, candles: Candles, minute_ms: int, now_ms: int) -> None:
        """Push the closed row, once, and the next minute's flat one if nothing was traded in it yet."""
        if not candles.alive:
            return
        connection, faults, symbol = self._connection, self._connection.faults, candles.symbol
        next_id = connection.market.first_id_from(symbol, (minute_ms + MINUTE_MS) * 1000)
        row = row_until(connection.market, symbol, minute_ms, next_id, closed=True)
        if row is None:
            return
        if faults.no_flat_rows and row[5] == "0":
            faults.fired["no_flat_rows"] += 1
        elif not faults.holds("lose_confirm", symbol, minute_ms):
            self._push(symbol, row)
            if faults.holds("duplicate_confirm", symbol, minute_ms):
                connection.plan(now_ms + SECOND_CONFIRM_MS, lambda _: self._push(symbol, row))
            if faults.holds("revise_confirm", symbol, minute_ms):
                revised = [*row[:5], *("1" + number for number in row[5:8]), "1"]
                connection.plan(now_ms + SECOND_CONFIRM_MS, lambda _: self._push(symbol, revised))
        if candles.shown_ms < candles.minute_ms and not faults.no_flat_rows:
            self._show(candles, now_ms)

    def _push(self, symbol: str, row: list[str] | None) -> None:
        connection = self._connection
        if row is None or connection.is_silent(symbol):
            return
        if connection.faults.is_set("seven_fields"):
            row = row[:7]
        elif connection.faults.is_set("extra_columns"):
            row = [*row, "0"]
        connection.send_data(to_json({"arg": {"channel": "candle1m", "instId": symbol}, "data": [row]}))

    # -- trades --------------------------------------------------------------------------------------------

    def _plan_trade(self, trades: Trades) -> None:
        trade = self._connection.market.trade(trades.symbol, trades.next_id)
        due_ms = max(trades.sent_ms, visible_ms(trade))
        self._connection.plan(due_ms, lambda _: self._send_trade(trades, trade, due_ms))

    def _send_trade(self, trades: Trades, trade: MarketTrade, due_ms: int) -> None:
        if not trades.alive:
            return
        trades.sent_ms = due_ms
        trades.next_id += 1
        self._plan_trade(trades)
        symbol = trades.symbol
        row: dict[str, Any] = trade_row(symbol, trade) | {"source": "0"}
        if trades.channel == "trades":
            row |= {"count": "1", "seqId": trade.trade_id * 3}
        text = to_json({"arg": {"channel": trades.channel, "instId": symbol}, "data": [row]})
        self._connection.send_trade(symbol, trade.trade_id, text)
