"""What can go wrong with a venue, as knobs that a test turns while the simulation runs."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Literal

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable

    from .market import TrueCandle

#: What happens to the WebSocket handshake; an integer is the HTTP status of a refusal.
Handshake = Literal["normal", "close", "garbage", "silent"] | int

#: What is wrong with one frame. The first three spoil the frame, "binary" sends it with the wrong opcode,
#: "not_json" and "giant" replace it; "unknown" is sent before it, which stays whole. "impossible" is well-formed and
#: no market: a high below its low, a negative size. "null_row" puts a null before the rows of a message that has rows.
Corruption = Literal[
    "truncated", "nan", "wrong_type", "binary", "not_json", "giant", "unknown", "impossible", "null_row"
]

#: What is wrong with a REST answer.
RestKind = Literal[
    "status",  # *status* instead of an answer; 5xx with an HTML body, 429 with the venue's own
    "throttle",  # the venue's way to say "too many requests"; HTTP 200 on Kraken and OKX
    "busy",  # HTTP 200 with the venue's "service unavailable" in it
    "slow",  # the answer comes after *seconds*
    "drip",  # the head comes at once, the body in ten pieces over *seconds*
    "stale",  # the answer of *seconds* ago
    "truncated",  # the body ends in the middle
    "html",  # HTTP 200 with a page of HTML
    "empty",  # a good answer without a row
    "short",  # only the first half of the rows
    "repeated",  # the first half of the rows once more behind the last one, as of pages that overlap
    "odd_row",  # something that is no number in one of the rows
    "wrong_symbol",  # another instrument's data, under that one's name where the venue gives a name
    "disconnect",  # the connection breaks instead of an answer
]

FOREVER = 1 << 60
GIANT_BYTES = 8 << 20
#: What may stand in a row where a number belongs.
NO_NUMBERS: tuple[object, ...] = (None, "n/a", {}, [])


@attrs.define
class RestFault:
    """One thing that is wrong with REST answers, for the next *times* requests whose path it fits."""

    kind: RestKind
    #: Only requests whose path and query contain this text.
    path: str = ""
    times: int = 1
    status: int = 503
    seconds: float = 0.0
    #: What the header Retry-After of a "status" says, in seconds; none if None.
    retry_after: int | None = None


@attrs.define(eq=False)
class Faults:
    """One venue's faults; as made, nothing is wrong.

    Symbols are written as the venue writes them, minutes are Unix milliseconds of their start.
    """

    # -- the connection ----------------------------------------------------------------------------------
    #: The venue's name finds no address: dialling and asking in memory wait until it does.
    unresolved: bool = False
    #: Dialling raises ConnectionRefusedError; over TCP the connection is closed before a byte was sent.
    refuse_connections: bool = False
    #: "close": closed during the handshake; "garbage": something that is no HTTP; "silent": never answered.
    handshake: Handshake = "normal"
    #: From now on not one byte comes from the venue, pongs and closes included; TCP stays open.
    mute: bool = False
    #: The same, for every connection from this age in seconds on.
    mute_after: float | None = None
    #: A closing handshake is never answered, and TCP never closed by the venue.
    ignore_close: bool = False
    #: Every connection is closed with code 1001 at this age in seconds, without notice.
    longest_connection: float | None = None

    # -- what is sent ------------------------------------------------------------------------------------
    #: The zombie: subscriptions are acknowledged and heartbeats sent, but no data of these symbols.
    silent_symbols: set[str] = attrs.Factory(set)
    #: The zombie for all symbols.
    silent: bool = False
    #: The zombie for all symbols from this age of a connection on, in seconds.
    silent_after: float | None = None
    #: False: not even heartbeats, though pings are answered.
    heartbeats: bool = True
    #: Refused as if the venue did not list them (Coinbase: the whole message fails).
    refused_symbols: set[str] = attrs.Factory(set)
    #: Coinbase says "is delisted" instead.
    delisted_symbols: set[str] = attrs.Factory(set)
    #: Subscribed in silence: data comes, the acknowledgement does not.
    unacknowledged_symbols: set[str] = attrs.Factory(set)
    #: (symbol, trade id): not sent on the trades channel; last_trade_id and the candles count it.
    drop_trade: Callable[[str, int], bool] | None = None
    #: (symbol, trade id) to seconds by which that trade's message comes late, after its successors.
    delay_trade: Callable[[str, int], float] | None = None
    #: (symbol, trade id): sent twice on the trades channel.
    duplicate_trade: Callable[[str, int], bool] | None = None
    #: Every n-th data frame is sent twice; 0 for none.
    duplicate_every: int = 0
    #: One for each of the next data frames.
    corrupt: list[Corruption] = attrs.Factory(list)

    # -- Coinbase ----------------------------------------------------------------------------------------
    #: heartbeat.last_trade_id is 0, as in 2019.
    last_trade_id_zero: bool = False
    #: REST candle volumes are sums of doubles, 14.697630010000001.
    float_artefacts: bool = False
    #: REST candles begin so many minutes before the start that was asked for.
    early_rows: int = 0

    # -- Kraken ------------------------------------------------------------------------------------------
    #: What status messages and SystemStatus say; a change is announced on every connection.
    system: str = "online"
    #: (symbol, trade id): no ohlc update after that trade; the next one counts it.
    skip_ohlc: Callable[[str, int], bool] | None = None
    #: (symbol, trade id) to seconds by which the ohlc update after that trade comes late.
    delay_ohlc: Callable[[str, int], float] | None = None
    #: REST OHLC and Trades treat since as exclusive, as older documentation has it.
    since_exclusive: bool = False
    #: "last" of OHLC is the forming row (2026) or the newest committed one (2025).
    last_is_forming: bool = True
    #: REST OHLC leaves minutes without trades out, as in 2019.
    omit_empty_rows: bool = False
    #: (symbol, minute in ms): REST OHLC has a row without trades of a minute that had some: of zero prices, or of one
    #: that is not the close before it.
    zero_row: Callable[[str, int], bool] | None = None

    # -- OKX ---------------------------------------------------------------------------------------------
    #: (symbol, minute in ms): no confirm "1" row.
    lose_confirm: Callable[[str, int], bool] | None = None
    #: (symbol, minute in ms): two identical confirm "1" rows, the second two seconds later.
    duplicate_confirm: Callable[[str, int], bool] | None = None
    #: (symbol, minute in ms): a second confirm "1" row two seconds later that differs in its volume.
    revise_confirm: Callable[[str, int], bool] | None = None
    #: Seconds by which confirm "1" rows come later than usual.
    confirm_delay: float = 0.0
    #: Silent minutes are not confirmed at all; whether they are is not documented.
    no_flat_rows: bool = False
    #: Rows end after volCcy, as in 2022.
    seven_fields: bool = False
    #: Connections get notice 64008 now and are closed this many seconds later.
    notice: float | None = None
    #: history-candles lags behind by so many minutes.
    history_lag: int = 0

    # -- REST --------------------------------------------------------------------------------------------
    #: The first that fits a request is applied to it.
    rest: list[RestFault] = attrs.Factory(list)
    #: (symbol, minute in ms): candles have no row of that minute, as if the record had a hole.
    lose_row: Callable[[str, int], bool] | None = None
    #: (symbol, minute in ms): the row of that minute has something that is no number for a price.
    odd_row: Callable[[str, int], bool] | None = None
    #: Rows that are lists have one more column than is documented, on the feed too.
    extra_columns: bool = False
    #: (symbol, minute in ms): candles give that minute another volume than its trades have, as after a revision.
    revise_row: Callable[[str, int], bool] | None = None
    #: (symbol, trade id): trades leave it out, as if the record had a hole.
    lose_trade: Callable[[str, int], bool] | None = None
    #: True: no rate limit is enforced, nor a violation counted.
    lift_limits: bool = False

    #: How often each knob had an effect.
    fired: Counter[str] = attrs.Factory(Counter)

    def rest_fault(self, target: str) -> RestFault | None:
        """The fault for a request to this path and query, used up by one."""
        for fault in self.rest:
            if fault.times > 0 and fault.path in target:
                fault.times -= 1
                self.fired[f"rest {fault.kind}"] += 1
                return fault
        return None

    def is_silent(self, symbol: str, age: float) -> bool:
        """Whether a connection of this age in seconds gets no data of a symbol."""
        silent = (
            self.silent or symbol in self.silent_symbols or (self.silent_after is not None and age >= self.silent_after)
        )
        if silent:
            self.fired["silent"] += 1
        return silent

    def is_mute(self, age: float) -> bool:
        """Whether a connection of this age in seconds gets no byte at all."""
        return self.mute or (self.mute_after is not None and age >= self.mute_after)

    def holds(self, knob: str, symbol: str, number: int) -> bool:
        """Whether the predicate of that name is set and holds; counted if so."""
        predicate: Callable[[str, int], bool] | None = getattr(self, knob)
        if predicate is None or not predicate(symbol, number):
            return False
        self.fired[knob] += 1
        return True

    def is_set(self, knob: str) -> bool:
        """Whether the knob of that name is turned; counted if so."""
        turned = bool(getattr(self, knob))
        if turned:
            self.fired[knob] += 1
        return turned

    def names(self, knob: str, symbol: str) -> bool:
        """Whether the knob of that name, a set of symbols, has this one; counted if so."""
        named = symbol in getattr(self, knob)
        if named:
            self.fired[knob] += 1
        return named

    def recorded(self, symbol: str, candle: TrueCandle | None) -> TrueCandle | None:
        """A minute's candle as REST has it: revised or lost, if a knob says so."""
        if candle is None or self.holds("lose_row", symbol, candle.minute_ms):
            return None
        if self.holds("revise_row", symbol, candle.minute_ms):
            return attrs.evolve(candle, volume=candle.volume * 2)
        return candle

    def row(self, symbol: str, minute_ms: int, row: str) -> str:
        """A minute's row as REST has it, a JSON list, the prices behind the time; odd or longer, if knobs say so."""
        if self.holds("odd_row", symbol, minute_ms):
            row = spoil_row(row, minute_ms // 60_000)
        return f"{row[:-1]},0]" if self.is_set("extra_columns") else row

    def delay(self, knob: Literal["delay_trade", "delay_ohlc"], symbol: str, number: int) -> float:
        """The extra delay in seconds that the knob of that name gives; counted if there is one."""
        seconds: Callable[[str, int], float] | None = getattr(self, knob)
        if seconds is None or not (late := seconds(symbol, number)):
            return 0.0
        self.fired[knob] += 1
        return late


def spoil_row(row: str, number: int) -> str:
    """A row, a JSON list, with something that is no number for one of its prices; *number* decides what and where."""
    cells = json.loads(row)
    cells[1 + number % 4] = NO_NUMBERS[number // 4 % len(NO_NUMBERS)]
    return json.dumps(cells, separators=(",", ":"))
