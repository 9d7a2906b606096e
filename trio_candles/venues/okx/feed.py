"""OKX v5, business endpoint: candles that say themselves when they are closed.

Source: the v5 documentation of the ``candle1m`` channel, checked against recorded frames of the same protocol.
A minute's row is pushed at most once a second with ``confirm`` "0", and once with "1" when it has closed:
:class:`~trio_candles.assembly.FromStatedCloses`. There is no sequence number, so a minute whose row with "1" did not
arrive is not known, whatever else arrived.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import partial

import msgspec

from trio_candles.candles.model import MINUTE, Millis
from trio_candles.venues.okx.rows import MILLIS, CandleRow, minute_of, numbers_of, time_of_row
from trio_candles.venues.protocol import (
    UNREADABLE,
    Acked,
    Alive,
    Event,
    Forming,
    Leaving,
    Limits,
    Misunderstood,
    Notice,
    Refused,
    Row,
    Rows,
    Skipped,
    Unread,
)

__all__ = ["Okx"]

_CHANNEL = "candle1m"
_LEAVING = "64008"
# An error 60018 has no arg, and names the instrument in its text: "Wrong URL or channel:candle1m,instId:XX-USDT
# doesn't exist. Please use ..."; "Subscribe failed, wrong URL or channel:candle1m, instId:XX-USDT doesn't exist. ..."
_NAMED = re.compile(r"\binstId: ?([A-Z0-9]{1,20}-[A-Z0-9]{1,20})(?![\w-])", re.ASCII)


class _Arg(msgspec.Struct):
    channel: str = ""
    instId: str = ""


# {"arg":{"channel":"candle1m","instId":"BTC-USDT"},"data":[["1685221620000","26800","26800","26800","26800",
#   "0","0","0","1"]]}: rows as in trio_candles.venues.okx.rows.
# {"id":"1","event":"subscribe","arg":{...},"connId":"a4d3ae55"}; {"event":"error","code":"60018","msg":"..."}
# {"event":"notice","code":"64008","msg":"The connection will soon be closed for a service upgrade. ..."}
class _Frame(msgspec.Struct):
    arg: _Arg | None = None
    data: msgspec.Raw = msgspec.Raw(b"")
    event: str | None = None
    code: str = ""
    msg: str = ""


_FRAME = msgspec.json.Decoder(_Frame)
_ROWS = Rows(CandleRow)


class Okx:
    """OKX's public business feed; no login needed."""

    name = "okx"
    websocket_url = "wss://ws.okx.com:8443/ws/v5/business"
    channels = (_CHANNEL,)
    ping = "ping"
    limits = Limits(
        connects_per_second=1.5,  # documented: 3 a second and IP
        connects_burst=2,
        symbols_per_connection=200,  # 480 requests an hour and connection leave room to subscribe each symbol again
        symbols_per_message=100,  # documented: 64 KB of arguments; a hundred symbols take 6
        messages_per_second=2.0,
        changes_per_hour=480.0,  # documented, subscribe, unsubscribe and login together
        too_fast=r"^60014\b",
        silence=30.0,  # documented: the venue itself closes after 30 s without data
        ping_after=20.0,
        symbol_silence=150.0,  # a row a minute is likely for a silent pair too, but not documented for the feed
        symbol_remedy="resubscribe",
    )

    def subscribe(self, symbols: Sequence[str], request: int) -> Iterator[str]:
        """One message for up to a hundred instruments; acknowledged one by one."""
        yield from self._messages("subscribe", symbols, request)

    def unsubscribe(self, symbols: Sequence[str], request: int) -> Iterator[str]:
        """The messages that end what :meth:`subscribe` began."""
        yield from self._messages("unsubscribe", symbols, request)

    def _messages(self, op: str, symbols: Sequence[str], request: int) -> Iterator[str]:
        for start in range(0, len(symbols), self.limits.symbols_per_message):
            batch = symbols[start : start + self.limits.symbols_per_message]
            args = [{"channel": _CHANNEL, "instId": symbol} for symbol in batch]
            yield msgspec.json.encode({"id": str(request), "op": op, "args": args}).decode()

    def read(self, text: str) -> Sequence[Event]:
        """Rows, acknowledgements, refusals, notices, and the text frame ``pong``."""
        if text == "pong":
            return (Alive(),)
        try:
            frame = _FRAME.decode(text)
            if frame.event is not None:
                return (_event(frame, frame.event),)
            if frame.arg is None or not frame.data:
                raise Misunderstood("bad_shape", text[:200])
            if frame.arg.channel != _CHANNEL:
                return (Skipped("unknown_channel"),)
            symbol = frame.arg.instId
            if not symbol:
                raise Misunderstood("bad_shape", text[:200])
            try:
                return [_row(symbol, row) for row in _ROWS.decode(frame.data)]
            except (Misunderstood, *UNREADABLE):
                return _ROWS.read_each(frame.data, partial(_row, symbol), partial(_unread, symbol))
        except msgspec.ValidationError as error:
            raise Misunderstood("bad_shape", f"{error} in {text[:200]}") from None
        except UNREADABLE:
            raise Misunderstood("not_json", text[:200]) from None


def _row(symbol: str, row: CandleRow) -> Row | Forming:
    if row.confirm == "0":
        return Forming(symbol, Millis(int(row.ts)) if MILLIS.fullmatch(row.ts) else None)
    if row.confirm != "1":
        raise Misunderstood("bad_confirm", f"{symbol} {row.confirm[:40]!r}")
    open_time = time_of_row(row)
    opened, high, low, close, volume, quote_volume, vwap = numbers_of(row)
    return Row(
        symbol, open_time, Millis(open_time + MINUTE), opened, high, low, close, volume, quote_volume, vwap,
        trades_count=None, closed=True,
    )  # fmt: skip


def _unread(symbol: str, text: bytes, error: Misunderstood) -> Unread:
    return Unread(symbol, minute_of(text), error.reason, f"{symbol} {error}")


def _event(frame: _Frame, event: str) -> Event:
    match event:
        case "subscribe" if frame.arg is not None and frame.arg.instId:
            return Acked(frame.arg.instId, frame.arg.channel)
        case "subscribe":
            raise Misunderstood("bad_shape", "an acknowledgement of nothing")
        case "unsubscribe":
            return Skipped("unsubscribed")
        case "error":
            named = _NAMED.search(frame.msg)
            symbol = frame.arg.instId if frame.arg is not None and frame.arg.instId else named and named[1]
            return Refused(symbol, f"{frame.code} {frame.msg}")
        case "notice" if frame.code == _LEAVING:
            return Leaving(frame.msg)
        case "notice":
            return Notice(f"{frame.code} {frame.msg}")
        case _:
            return Skipped("unknown_event")
