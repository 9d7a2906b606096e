"""Kraken's WebSocket API v2: ohlc of one minute, and trades."""

from __future__ import annotations

from decimal import ROUND_DOWN, Decimal
from typing import TYPE_CHECKING, Any

import attrs

from ..limits import TokenBucket
from ..market import EXACT, MINUTE_MS
from ..session import parse_object, strings, visible_ms
from ..text import iso, iso_nanoseconds, pointed, to_json

if TYPE_CHECKING:
    from ..market import MarketTrade, TrueCandle
    from ..session import Connection

SNAPSHOT_MINUTES = 12
SNAPSHOT_TRADES = 50
IDLE_MS = 60_000
HEARTBEAT = '{"channel":"heartbeat"}'
CHANNELS = ("ohlc", "trade")


def ohlc_row(symbol: str, candle: TrueCandle, tick_exponent: int) -> str:
    """A row of the ohlc channel: numbers with all their digits; timestamp is the END of the minute."""
    begin_us = candle.minute_ms * 1000
    return (
        f'{{"symbol":"{symbol}","open":{candle.open:f},"high":{candle.high:f},"low":{candle.low:f},'
        f'"close":{candle.close:f},"trades":{candle.trades_count},"volume":{pointed(candle.volume)},'
        f'"vwap":{average(candle, tick_exponent):f},"interval_begin":"{iso_nanoseconds(begin_us)}",'
        f'"interval":1,"timestamp":"{iso(begin_us + MINUTE_MS * 1000)}"}}'
    )


def average(candle: TrueCandle, tick_exponent: int) -> Decimal:
    """The volume-weighted average price, truncated to the tick."""
    exact = EXACT.divide(candle.quote_volume, candle.volume)
    return exact.quantize(Decimal(1).scaleb(tick_exponent), ROUND_DOWN, EXACT)


def trade_row(symbol: str, trade: MarketTrade) -> str:
    """A row of the trade channel."""
    kind = "market" if trade.trade_id % 3 else "limit"
    return (
        f'{{"symbol":"{symbol}","side":"{trade.side}","price":{trade.price:f},"qty":{pointed(trade.size)},'
        f'"ord_type":"{kind}","trade_id":{trade.trade_id},"timestamp":"{iso(trade.time_us)}"}}'
    )


@attrs.define
class Stream:
    """One symbol's trades: on which channels they are sent, and which is the next."""

    symbol: str
    channels: set[str] = attrs.Factory(set)
    next_id: int = 0
    sent_ms: int = 0
    plan: int = 0


class KrakenSession:
    """What Kraken sends on one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._streams: dict[str, Stream] = {}
        self._messages = TokenBucket(per_second=20, burst=20)
        self._announced = ""

    def opened(self) -> None:
        """Send the system's status: online, or what the fault says."""
        self._announced = self._connection.faults.system
        status = (
            f'{{"version":"2.0.10","system":"{self._announced}","api_version":"v2",'
            f'"connection_id":{16_174_536_464_690_282_295 + self._connection.number},'
            f'"upcoming_maintenance":[],"emergency":[]}}'
        )
        self._connection.send(f'{{"channel":"status","type":"update","data":[{status}]}}')

    def second_passed(self, now_ms: int) -> None:
        """Announce a change of the system; send a heartbeat if nothing else was sent; leave the idle."""
        connection = self._connection
        if connection.faults.system != self._announced:
            connection.faults.fired["system"] += 1
            self.opened()
        if not self._streams:
            if now_ms - max(connection.heard_ms, connection.connected_at) >= IDLE_MS:
                connection.closing = (1000, "")
        elif now_ms - connection.sent_ms >= 990:
            if connection.faults.heartbeats:
                connection.send(HEARTBEAT)
            else:
                connection.faults.fired["heartbeats"] += 1

    def heard(self, text: str) -> None:
        """Subscribe, unsubscribe, answer a ping, or complain."""
        connection = self._connection
        if not connection.faults.lift_limits and not self._messages.take(connection.now()):
            connection.violations["messages"] += 1
            return connection.send('{"Error":"Exceeded msg rate"}')
        message = parse_object(text)
        if message is None:
            return connection.send(to_json({"error": "Malformed request", "success": False} | self._times({})))
        match message.get("method"):
            case "ping":
                return connection.send(to_json({"method": "pong"} | self._times(message)))
            case "subscribe" | "unsubscribe" as method:
                params = message.get("params")
                return self._change(method, params if isinstance(params, dict) else {}, message)
            case other:
                error = {"error": "Unsupported method", "method": other, "success": False}
                return connection.send(to_json(error | self._times(message)))

    def _change(self, method: str, params: dict[str, Any], message: dict[str, Any]) -> None:
        channel = params.get("channel")
        if channel not in CHANNELS:
            error = {"error": f"Unsupported channel {channel}", "method": method, "success": False}
            return self._connection.send(to_json(error | self._times(message)))
        for symbol in strings(params.get("symbol")):
            objection = self._objection(symbol, channel, params, method)
            if objection:
                self._reject(objection, method, symbol, message)
            elif method == "subscribe":
                self._subscribe(symbol, channel, params, message)
            else:
                self._unsubscribe(symbol, channel, message)
        return None

    def _objection(self, symbol: str, channel: str, params: dict[str, Any], method: str) -> str | None:
        connection = self._connection
        if "/" not in symbol:
            return f"Currency pair not in ISO 4217-A3 format {symbol}"
        if connection.faults.names("refused_symbols", symbol) or not connection.market.listed(symbol):
            return f"Currency pair not supported {symbol}"
        has = symbol in self._streams and channel in self._streams[symbol].channels
        if method == "subscribe" and has:
            return "Already subscribed" + " to one ohlc interval on this symbol" * (channel == "ohlc")
        if channel == "ohlc" and params.get("interval", 1) != 1:
            return "Interval not supported"
        if method == "unsubscribe" and not has:
            return "Subscription Not Found"
        return None

    def _reject(self, error: str, method: str, symbol: str, message: dict[str, Any]) -> None:
        rejection = {"error": error, "method": method, "success": False, "symbol": symbol}
        self._connection.send(to_json(rejection | self._times(message)))

    def _subscribe(self, symbol: str, channel: str, params: dict[str, Any], message: dict[str, Any]) -> None:
        connection = self._connection
        snapshot = bool(params.get("snapshot", channel == "ohlc"))
        result: dict[str, Any] = {"channel": channel, "snapshot": snapshot, "symbol": symbol}
        if channel == "ohlc":
            result |= {"interval": 1, "warnings": ["timestamp is deprecated, use interval_begin"]}
        if not connection.faults.names("unacknowledged_symbols", symbol):
            acknowledgement = {"method": "subscribe", "result": result, "success": True}
            connection.send(to_json(acknowledgement | self._times(message)))
        stream = self._streams.get(symbol)
        if stream is None:
            stream = self._streams[symbol] = Stream(symbol)
            stream.next_id = connection.market.first_id_from(symbol, connection.now() * 1000)
            self._plan_next(stream)
        stream.channels.add(channel)
        if snapshot and not connection.is_silent(symbol):
            (self._ohlc_snapshot if channel == "ohlc" else self._trade_snapshot)(stream)

    def _unsubscribe(self, symbol: str, channel: str, message: dict[str, Any]) -> None:
        stream = self._streams[symbol]
        stream.channels.discard(channel)
        if not stream.channels:
            stream.plan += 1
            del self._streams[symbol]
        result = {"channel": channel, "symbol": symbol} | ({"interval": 1} if channel == "ohlc" else {})
        acknowledgement = {"method": "unsubscribe", "result": result, "success": True}
        self._connection.send(to_json(acknowledgement | self._times(message)))

    def _ohlc_snapshot(self, stream: Stream) -> None:
        """The last minutes that had trades, oldest first; the forming one only if it has some."""
        connection = self._connection
        tick_exponent = connection.market.instrument(stream.symbol).tick_exponent
        newest = connection.now() // MINUTE_MS * MINUTE_MS
        rows = []
        for minute_ms in range(newest - SNAPSHOT_MINUTES * MINUTE_MS, newest + 1, MINUTE_MS):
            if candle := connection.market.candle_until(stream.symbol, minute_ms, stream.next_id):
                rows.append(ohlc_row(stream.symbol, candle, tick_exponent))
        connection.send(self._ohlc_message("snapshot", rows))

    def _trade_snapshot(self, stream: Stream) -> None:
        ids = range(max(stream.next_id - SNAPSHOT_TRADES, 1), stream.next_id)
        trades = [self._connection.market.trade(stream.symbol, trade_id) for trade_id in ids]
        rows = ",".join(trade_row(stream.symbol, trade) for trade in trades)
        self._connection.send(f'{{"channel":"trade","type":"snapshot","data":[{rows}]}}')

    def _ohlc_message(self, kind: str, rows: list[str]) -> str:
        time = iso_nanoseconds(self._connection.now() * 1000)
        return f'{{"channel":"ohlc","type":"{kind}","timestamp":"{time}","data":[{",".join(rows)}]}}'

    def _plan_next(self, stream: Stream) -> None:
        """Put the next trade, with all others of its instant, on the agenda."""
        stream.plan += 1
        plan = stream.plan
        market = self._connection.market
        trades = [market.trade(stream.symbol, stream.next_id)]
        minute = market.trades(stream.symbol, trades[0].time_us // 1000 // MINUTE_MS * MINUTE_MS)
        for trade in minute[trades[0].trade_id - minute[0].trade_id + 1 :]:
            if trade.time_us != trades[0].time_us:
                break
            trades.append(trade)
        due_ms = max(stream.sent_ms, visible_ms(trades[0]))
        self._connection.plan(due_ms, lambda _: self._traded(stream, plan, trades, due_ms))

    def _traded(self, stream: Stream, plan: int, trades: list[MarketTrade], due_ms: int) -> None:
        if plan != stream.plan:
            return
        stream.sent_ms = due_ms
        stream.next_id = trades[-1].trade_id + 1
        self._plan_next(stream)
        if self._connection.is_silent(stream.symbol):
            return
        if "trade" in stream.channels:
            self._send_trades(stream.symbol, trades)
        if "ohlc" in stream.channels:
            for trade in trades:
                self._send_ohlc(stream.symbol, trade)

    def _send_trades(self, symbol: str, trades: list[MarketTrade]) -> None:
        connection, faults = self._connection, self._connection.faults
        rows = []
        for trade in trades:
            if faults.holds("drop_trade", symbol, trade.trade_id):
                continue
            row = trade_row(symbol, trade)
            if late := faults.delay("delay_trade", symbol, trade.trade_id):
                connection.send_data_later(late, f'{{"channel":"trade","type":"update","data":[{row}]}}')
                continue
            rows.extend([row, row] if faults.holds("duplicate_trade", symbol, trade.trade_id) else [row])
        if rows:
            connection.send_data(f'{{"channel":"trade","type":"update","data":[{",".join(rows)}]}}')

    def _send_ohlc(self, symbol: str, trade: MarketTrade) -> None:
        """Send the row of the trade's minute, from its start up to this trade."""
        connection, faults = self._connection, self._connection.faults
        if faults.holds("skip_ohlc", symbol, trade.trade_id):
            return
        candle = connection.market.candle_until(symbol, trade.time_us // 1000, trade.trade_id + 1)
        assert candle is not None
        row = ohlc_row(symbol, candle, connection.market.instrument(symbol).tick_exponent)
        if late := faults.delay("delay_ohlc", symbol, trade.trade_id):
            connection.send_data_later(late, self._ohlc_message("update", [row]))
            return
        connection.send_data(self._ohlc_message("update", [row]))

    def _times(self, message: dict[str, Any]) -> dict[str, Any]:
        """When the request came and the answer went, and the request's id if it had one."""
        now_us = self._connection.now() * 1000
        times: dict[str, Any] = {"time_in": iso(now_us + 217), "time_out": iso(now_us + 285)}
        if "req_id" in message:
            times["req_id"] = message["req_id"]
        return times
