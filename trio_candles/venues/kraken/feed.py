"""Kraken, WebSocket v2: rows that never say they are closed, and trade ids that prove when they are.

Source: the v2 documentation of the channels ``ohlc``, ``trade``, ``status`` and ``heartbeat``, checked against
captured frames. A row is sent after each trade and counts its ``trades``; for a minute without trades nothing is
sent at all. ``trade_id`` is contiguous per book, so the first trade after a minute shows how many were in it:
:class:`~trio_candles.assembly.FromCountedRows`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import msgspec

from trio_candles.candles.model import MINUTE, Millis, floor_to
from trio_candles.venues.protocol import (
    UNREADABLE,
    Acked,
    Alive,
    Event,
    Id,
    Limits,
    Misunderstood,
    Notice,
    Refused,
    Row,
    Rows,
    Skipped,
    SystemStatus,
    Told,
    TradeSeen,
    Unread,
    optional_float,
    time_of,
)

__all__ = ["Kraken"]


class _Result(msgspec.Struct):
    channel: str = ""
    symbol: str = ""


# Acknowledged, one per symbol and channel:
#   {"method":"subscribe","result":{"channel":"ohlc","interval":1,"snapshot":true,"symbol":"BTC/USD"},
#    "success":true,"time_in":"...","time_out":"...","req_id":1}
# Refused: {"error":"Currency pair not supported XBT/USDT","method":"subscribe","success":false,
#           "symbol":"XBT/USDT",...}
# Sent too fast: {"Error":"Exceeded msg rate"}. Data: {"channel":"ohlc","type":"update","data":[...]}
class _Frame(msgspec.Struct):
    channel: str | None = None
    type: str | None = None
    data: msgspec.Raw = msgspec.Raw(b"null")
    method: str | None = None
    success: bool | None = None
    result: _Result | None = None
    error: str | None = None
    symbol: str | None = None
    time_out: str | None = None
    rate_error: str | None = msgspec.field(default=None, name="Error")


# {"symbol":"BTC/USD","open":77420.1,"high":77420.1,"low":77420.1,"close":77420.1,"trades":1,"volume":0.00064,
#  "vwap":77420.1,"interval_begin":"2026-09-10T17:44:00.000000000Z","interval":1,
#  "timestamp":"2026-09-10T17:45:00.000000Z"}: timestamp is the END of the interval.
class _OhlcRow(msgspec.Struct):
    symbol: str
    open: float
    high: float
    low: float
    close: float
    trades: Id
    volume: float
    vwap: object
    interval_begin: str
    interval: int
    timestamp: str | None = None


# {"symbol":"MATIC/USD","side":"sell","price":0.5117,"qty":40.0,"ord_type":"market","trade_id":4665906,
#  "timestamp":"2023-09-25T07:49:37.708706Z"}; several in one message, and sharing a time.
class _TradeRow(msgspec.Struct):
    symbol: str
    trade_id: Id
    timestamp: str


# What a row, or a trade, that cannot be read is about.
class _AboutRow(msgspec.Struct):
    symbol: str
    time: object = msgspec.field(default=None, name="interval_begin")


class _AboutTrade(msgspec.Struct):
    symbol: str
    time: object = msgspec.field(default=None, name="timestamp")


# {"system":"online","api_version":"v2",...}; online | cancel_only | maintenance | post_only
class _Status(msgspec.Struct):
    system: str


_FRAME = msgspec.json.Decoder(_Frame)
_OHLC = Rows(_OhlcRow)
_TRADES = Rows(_TradeRow)
_ABOUT_ROW = msgspec.json.Decoder(_AboutRow)
_ABOUT_TRADE = msgspec.json.Decoder(_AboutTrade)
_STATUS = msgspec.json.Decoder(list[_Status])


# "Already subscribed"; "Already subscribed to one ohlc interval on this symbol": the same of the channel that is named.
_ALREADY = "Already subscribed"


class Kraken:
    """Kraken's public v2 feed; no key needed."""

    name = "kraken"
    websocket_url = "wss://ws.kraken.com/v2"
    channels = ("ohlc", "trade")
    ping = '{"method":"ping"}'
    limits = Limits(
        connects_per_second=0.2,  # documented: 150 attempts in 10 minutes and IP, then a ban of 10 minutes
        connects_burst=10,
        symbols_per_connection=200,  # no documented limit
        symbols_per_message=20,  # what other maintained clients use
        messages_per_second=5.0,  # support has named 20
        changes_per_hour=None,
        too_fast=r"\bmsg rate|\brate limit",
        silence=10.0,  # a heartbeat about once a second whenever nothing else is sent
        ping_after=5.0,
        symbol_silence=None,  # a pair without trades is silent, and nothing on the feed can tell the difference
        symbol_remedy="reconnect",
    )

    def subscribe(self, symbols: Sequence[str], request: int) -> Iterator[str]:
        """The messages for rows and trades, with snapshots, which prove minutes from before the connection."""
        yield from self._messages("subscribe", symbols, request)

    def unsubscribe(self, symbols: Sequence[str], request: int) -> Iterator[str]:
        """The messages that end what :meth:`subscribe` began."""
        yield from self._messages("unsubscribe", symbols, request)

    def _messages(self, method: str, symbols: Sequence[str], request: int) -> Iterator[str]:
        for start in range(0, len(symbols), self.limits.symbols_per_message):
            batch = list(symbols[start : start + self.limits.symbols_per_message])
            for channel, more in (("ohlc", {"interval": 1}), ("trade", {})):
                params = {"channel": channel, "symbol": batch, "snapshot": True, **more}
                yield msgspec.json.encode({"method": method, "params": params, "req_id": request}).decode()

    def read(self, text: str) -> Sequence[Event]:
        """Rows, trade ids, acknowledgements, refusals, states of the market."""
        try:
            frame = _FRAME.decode(text)
            match frame.channel if frame.method is None else None:  # an answer may name its channel, too
                case "ohlc":
                    try:
                        return [_row(row) for row in _OHLC.decode(frame.data)]
                    except (Misunderstood, *UNREADABLE):
                        return _OHLC.read_each(frame.data, _row, partial(_unread, _ABOUT_ROW))
                case "trade":
                    try:
                        seen = [_trade(row) for row in _TRADES.decode(frame.data)]
                    except (Misunderstood, *UNREADABLE):
                        return _TRADES.read_each(frame.data, _trade, partial(_unread, _ABOUT_TRADE))
                    # A live trade (no snapshot's) is told as it happens, so its time is the message's.
                    if frame.type != "update":
                        return seen
                    return [*seen, *(Told(last.time) for last in seen[-1:])]
                case "heartbeat":
                    return (Alive(),)
                case "status":
                    states = [status.system for status in _STATUS.decode(frame.data)]
                    return [SystemStatus(None if state == "online" else f"system {state}") for state in states]
                case None:
                    return _answer(frame)
                case _:
                    return (Skipped("unknown_channel"),)
        except msgspec.ValidationError as error:
            raise Misunderstood("bad_shape", f"{error} in {text[:200]}") from None
        except UNREADABLE:
            raise Misunderstood("not_json", text[:200]) from None


def _row(row: _OhlcRow) -> Row:
    if row.interval != 1:
        raise Misunderstood("wrong_interval", f"{row.symbol} {row.interval}")
    open_time = time_of(row.interval_begin)
    close_time = Millis(open_time + MINUTE) if row.timestamp is None else time_of(row.timestamp)
    return Row(
        row.symbol, open_time, close_time, row.open, row.high, row.low, row.close, row.volume,
        quote_volume=None,  # vwap is truncated to the tick, so vwap x volume would only look exact
        vwap=optional_float(row.vwap) if row.trades else None,
        trades_count=row.trades,
        closed=False,
    )  # fmt: skip


def _trade(row: _TradeRow) -> TradeSeen:
    if row.trade_id <= 0:
        raise Misunderstood("bad_trade", str(row.trade_id))
    return TradeSeen(row.symbol, row.trade_id, time_of(row.timestamp))


def _unread(
    decoder: msgspec.json.Decoder[_AboutRow] | msgspec.json.Decoder[_AboutTrade], text: bytes, error: Misunderstood
) -> Unread:
    try:
        about = decoder.decode(text)
    except UNREADABLE:
        return Unread("", None, error.reason, str(error))
    try:
        minute = floor_to(time_of(about.time), MINUTE) if isinstance(about.time, str) else None
    except Misunderstood:
        minute = None
    return Unread(about.symbol, minute, error.reason, str(error))


def _answer(frame: _Frame) -> Sequence[Event]:
    """The events of a frame that carries no data: mostly one that answers a request of ours."""
    if frame.method == "subscribe" and frame.error is not None and frame.error.startswith(_ALREADY):
        # The answer to a request that was repeated because the first answer was late: what was asked for is subscribed.
        # If no channel is named, all count as acknowledged; one that is not subscribed after all proves nothing, and
        # its minutes stay gaps. If no symbol is named, nothing was refused, either.
        named = [channel for channel in Kraken.channels if channel in frame.error] or Kraken.channels
        return [Acked(frame.symbol, channel) for channel in named] if frame.symbol else (Notice(frame.error),)
    event = _event(frame)
    try:
        return (event,) if frame.time_out is None else (event, Told(time_of(frame.time_out)))
    except Misunderstood:
        return (event,)  # when it was sent matters less than what it says


def _event(frame: _Frame) -> Event:
    if frame.rate_error is not None:
        return Notice(frame.rate_error)
    if frame.method == "pong":
        return Alive()
    if frame.method == "subscribe" and frame.success and frame.result is not None and frame.result.symbol:
        return Acked(frame.result.symbol, frame.result.channel)
    if frame.method == "subscribe" and frame.success is False:
        return Refused(frame.symbol, frame.error or "refused without a reason")
    if frame.method == "unsubscribe":
        return Skipped("unsubscribed")
    if frame.error is not None:
        return Notice(frame.error)
    raise Misunderstood("bad_shape", "neither a channel nor an answer")
