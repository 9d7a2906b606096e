"""Kraken's WebSocket API v2: ohlc of one minute, and trades."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from .limits import TokenBucket
from .market import MINUTE_MS, TrueCandle, fold
from .session import parse_object, strings, visible_ms
from .text import average, iso, iso_nanoseconds, pointed, to_json

if TYPE_CHECKING:
    from .market import MarketTrade
    from .session import Line

VENUE = "kraken"
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


def trade_row(symbol: str, trade: MarketTrade) -> str:
    """A row of the trade channel."""
    kind = "market" if trade.trade_id % 3 else "limit"
    return (
        f'{{"symbol":"{symbol}","side":"{trade.side}","price":{trade.price:f},"qty":{pointed(trade.size)},'
        f'"ord_type":"{kind}","trade_id":{trade.trade_id},"timestamp":"{iso(trade.time_us)}"}}'
    )


@attrs.define
class Book:
    """One symbol's position in its trades, and which channels are told of them."""

    symbol: str
    channels: set[str] = attrs.Factory(set)
    next_id: int = 0
    sent_ms: int = 0
    plan: int = 0


class KrakenSession:
    """What Kraken says on one connection."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._books: dict[str, Book] = {}
        self._messages = TokenBucket(per_second=20, burst=20)
        self._announced = ""

    def opened(self) -> None:
        """Say that the system is online, or what else it is."""
        self._announced = self._line.faults.system
        status = (
            f'{{"version":"2.0.10","system":"{self._announced}","api_version":"v2",'
            f'"connection_id":{16_174_536_464_690_282_295 + self._line.number},'
            f'"upcoming_maintenance":[],"emergency":[]}}'
        )
        self._line.say(f'{{"channel":"status","type":"update","data":[{status}]}}')

    def second_passed(self, now_ms: int) -> None:
        """Announce a change of the system; send a heartbeat if nothing else was sent; leave the idle."""
        line = self._line
        if line.faults.system != self._announced:
            line.faults.fired["system"] += 1
            self.opened()
        if not self._books:
            if now_ms - max(line.heard_ms, line.opened_ms) >= IDLE_MS:
                line.closing = (1000, "")
        elif now_ms - line.spoke_ms >= 990:
            if line.faults.heartbeats:
                line.say(HEARTBEAT)
            else:
                line.faults.fired["heartbeats"] += 1

    def heard(self, text: str) -> None:
        """Subscribe, unsubscribe, answer a ping, or complain."""
        line = self._line
        if not line.faults.lift_limits and not self._messages.take(line.now()):
            line.violations["messages"] += 1
            return line.say('{"Error":"Exceeded msg rate"}')
        message = parse_object(text)
        if message is None:
            return line.say(to_json({"error": "Malformed request", "success": False} | self._times({})))
        match message.get("method"):
            case "ping":
                return line.say(to_json({"method": "pong"} | self._times(message)))
            case "subscribe" | "unsubscribe" as method:
                params = message.get("params")
                return self._change(method, params if isinstance(params, dict) else {}, message)
            case other:
                error = {"error": "Unsupported method", "method": other, "success": False}
                return line.say(to_json(error | self._times(message)))

    def _change(self, method: str, params: dict[str, Any], message: dict[str, Any]) -> None:
        channel = params.get("channel")
        if channel not in CHANNELS:
            error = {"error": f"Unsupported channel {channel}", "method": method, "success": False}
            return self._line.say(to_json(error | self._times(message)))
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
        line = self._line
        if "/" not in symbol:
            return f"Currency pair not in ISO 4217-A3 format {symbol}"
        if symbol in line.faults.refused_symbols:
            line.faults.fired["refused_symbols"] += 1
            return f"Currency pair not supported {symbol}"
        if not line.market.listed(VENUE, symbol):
            return f"Currency pair not supported {symbol}"
        if channel == "ohlc" and params.get("interval", 1) != 1:
            return "Interval not supported"
        has = symbol in self._books and channel in self._books[symbol].channels
        if method == "subscribe" and has:
            return "Already subscribed"
        if method == "unsubscribe" and not has:
            return "Subscription Not Found"
        return None

    def _reject(self, error: str, method: str, symbol: str, message: dict[str, Any]) -> None:
        rejection = {"error": error, "method": method, "success": False, "symbol": symbol}
        self._line.say(to_json(rejection | self._times(message)))

    def _subscribe(self, symbol: str, channel: str, params: dict[str, Any], message: dict[str, Any]) -> None:
        line = self._line
        snapshot = bool(params.get("snapshot", channel == "ohlc"))
        result: dict[str, Any] = {"channel": channel, "snapshot": snapshot, "symbol": symbol}
        if channel == "ohlc":
            result |= {"interval": 1, "warnings": ["timestamp is deprecated, use interval_begin"]}
        if symbol in line.faults.unacknowledged_symbols:
            line.faults.fired["unacknowledged_symbols"] += 1
        else:
            acknowledgement = {"method": "subscribe", "result": result, "success": True}
            line.say(to_json(acknowledgement | self._times(message)))
        book = self._books.get(symbol)
        if book is None:
            book = self._books[symbol] = Book(symbol)
            book.next_id = line.market.first_id_from(VENUE, symbol, line.now() * 1000)
            self._plan_next(book)
        book.channels.add(channel)
        if snapshot and not line.faults.is_silent(symbol, line.age):
            (self._ohlc_snapshot if channel == "ohlc" else self._trade_snapshot)(book)

    def _unsubscribe(self, symbol: str, channel: str, message: dict[str, Any]) -> None:
        book = self._books[symbol]
        book.channels.discard(channel)
        if not book.channels:
            book.plan += 1
            del self._books[symbol]
        result = {"channel": channel, "symbol": symbol} | ({"interval": 1} if channel == "ohlc" else {})
        acknowledgement = {"method": "unsubscribe", "result": result, "success": True}
        self._line.say(to_json(acknowledgement | self._times(message)))

    def _ohlc_snapshot(self, book: Book) -> None:
        """The last minutes that had trades, oldest first; the forming one only if it has some."""
        line = self._line
        tick_exponent = line.market.instrument(VENUE, book.symbol).tick_exponent
        newest = line.now() // MINUTE_MS * MINUTE_MS
        rows = []
        for minute_ms in range(newest - SNAPSHOT_MINUTES * MINUTE_MS, newest + 1, MINUTE_MS):
            trades = line.market.trades(VENUE, book.symbol, minute_ms)
            if past := tuple(trade for trade in trades if trade.trade_id < book.next_id):
                rows.append(ohlc_row(book.symbol, fold(minute_ms, past), tick_exponent))
        line.say(self._ohlc_message("snapshot", rows))

    def _trade_snapshot(self, book: Book) -> None:
        ids = range(max(book.next_id - SNAPSHOT_TRADES, 1), book.next_id)
        trades = [self._line.market.trade(VENUE, book.symbol, trade_id) for trade_id in ids]
        rows = ",".join(trade_row(book.symbol, trade) for trade in trades)
        self._line.say(f'{{"channel":"trade","type":"snapshot","data":[{rows}]}}')

    def _ohlc_message(self, kind: str, rows: list[str]) -> str:
        time = iso_nanoseconds(self._line.now() * 1000)
        return f'{{"channel":"ohlc","type":"{kind}","timestamp":"{time}","data":[{",".join(rows)}]}}'

    def _plan_next(self, book: Book) -> None:
        """Put the next trade, with all others of its instant, on the agenda."""
        book.plan += 1
        plan = book.plan
        market = self._line.market
        trades = [market.trade(VENUE, book.symbol, book.next_id)]
        minute = market.trades(VENUE, book.symbol, trades[0].time_us // 1000 // MINUTE_MS * MINUTE_MS)
        for trade in minute[trades[0].trade_id - minute[0].trade_id + 1 :]:
            if trade.time_us != trades[0].time_us:
                break
            trades.append(trade)
        due_ms = max(book.sent_ms, visible_ms(trades[0]))
        self._line.plan(due_ms, lambda _: self._traded(book, plan, trades, due_ms))

    def _traded(self, book: Book, plan: int, trades: list[MarketTrade], due_ms: int) -> None:
        if plan != book.plan:
            return
        book.sent_ms = due_ms
        book.next_id = trades[-1].trade_id + 1
        self._plan_next(book)
        if self._line.faults.is_silent(book.symbol, self._line.age):
            return
        if "trade" in book.channels:
            self._tell_trades(book.symbol, trades)
        if "ohlc" in book.channels:
            for trade in trades:
                self._tell_ohlc(book.symbol, trade)

    def _tell_trades(self, symbol: str, trades: list[MarketTrade]) -> None:
        line, faults = self._line, self._line.faults
        rows = []
        for trade in trades:
            if faults.holds("drop_trade", symbol, trade.trade_id):
                continue
            row = trade_row(symbol, trade)
            if late := faults.delay("delay_trade", symbol, trade.trade_id):
                line.push_later(late, f'{{"channel":"trade","type":"update","data":[{row}]}}')
                continue
            rows.extend([row, row] if faults.holds("duplicate_trade", symbol, trade.trade_id) else [row])
        if rows:
            line.push(f'{{"channel":"trade","type":"update","data":[{",".join(rows)}]}}')

    def _tell_ohlc(self, symbol: str, trade: MarketTrade) -> None:
        """Send the row of the trade's minute, from its start up to this trade."""
        line, faults = self._line, self._line.faults
        if faults.holds("skip_ohlc", symbol, trade.trade_id):
            return
        minute_ms = trade.time_us // 1000 // MINUTE_MS * MINUTE_MS
        trades = line.market.trades(VENUE, symbol, minute_ms)
        candle = fold(minute_ms, trades[: trade.trade_id - trades[0].trade_id + 1])
        row = ohlc_row(symbol, candle, line.market.instrument(VENUE, symbol).tick_exponent)
        if late := faults.delay("delay_ohlc", symbol, trade.trade_id):
            line.push_later(late, self._ohlc_message("update", [row]))
            return
        line.push(self._ohlc_message("update", [row]))

    def _times(self, message: dict[str, Any]) -> dict[str, Any]:
        """When the request came and the answer went, and the request's id if it had one."""
        now_us = self._line.now() * 1000
        times: dict[str, Any] = {"time_in": iso(now_us + 217), "time_out": iso(now_us + 285)}
        if "req_id" in message:
            times["req_id"] = message["req_id"]
        return times
