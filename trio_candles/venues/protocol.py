"""What a venue's live feed gives: its limits, its events, its errors.

A venue is a description of a wire protocol: text in, events out. It opens nothing, waits for nothing and
keeps no state, so one instance serves every connection. What a stream of events proves is decided in
:mod:`trio_candles.assembly`.

::

    VenueError
    ├── Misunderstood      a message that is not what the venue's documentation promises: skipped, counted
    └── Lost               a connection that is of no more use: reconnect
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Generic, Protocol, TypeVar

import attrs
import msgspec

from trio_candles.candles.model import Millis, Trade

__all__ = [
    "UNREADABLE",
    "Acked",
    "Alive",
    "Event",
    "FeedProtocol",
    "Forming",
    "Heartbeat",
    "Id",
    "Leaving",
    "Limits",
    "Lost",
    "Misunderstood",
    "Notice",
    "Number",
    "Proof",
    "Refused",
    "Row",
    "Rows",
    "Skipped",
    "SystemStatus",
    "Told",
    "TradeSeen",
    "Traded",
    "Unread",
    "VenueError",
    "exact",
    "floats_of",
    "optional_float",
    "plain_float",
    "plain_floats",
    "time_of",
]


class VenueError(Exception):
    """Something about a venue that is expected to go wrong and is handled where it occurs."""


class Misunderstood(VenueError):
    """A message that cannot be what it claims to be: it is skipped and counted, and never becomes a row.

    ``reason`` is one of a few words, fit for a counter; the text may quote the message.
    """

    def __init__(self, reason: str, text: str = "") -> None:
        super().__init__(f"{reason}: {text}" if text else reason)
        self.reason = reason


class Lost(VenueError):
    """The connection is gone, silent or useless; the one error that is answered by reconnecting."""


# --- what a venue says -----------------------------------------------------------------------------------


@attrs.frozen
class Acked:
    """The venue confirmed our subscription of *symbol* to *channel*."""

    symbol: str
    channel: str


@attrs.frozen
class Refused:
    """The venue refused a subscription; *symbol* is ``None`` where it does not say which."""

    symbol: str | None
    text: str


@attrs.frozen
class Traded:
    """A trade, live or replayed at subscription: ids make the difference harmless."""

    symbol: str
    trade: Trade


@attrs.frozen
class TradeSeen:
    """A trade's id and time, where the venue's own rows carry the numbers and ids only prove them."""

    symbol: str
    trade_id: int
    time: Millis


@attrs.frozen
class Heartbeat:
    """At *time* the newest trade of *symbol* was *last_trade_id*: the venue's own proof of completeness."""

    symbol: str
    time: Millis
    last_trade_id: int


@attrs.frozen
class Forming:
    """*symbol*'s current minute changed, at a venue that states its closes: a sign of life, without its numbers."""

    symbol: str
    open_time: Millis | None = None
    """The minute's, where that is legible: the venue's clock has reached it, and has hardly left the minute."""


class Row(msgspec.Struct, frozen=True, gc=False):
    """A candle as the venue states it. Numbers are as stated, not yet validated.

    A msgspec record where the other events are attrs: a busy feed consists of rows, and msgspec builds one in
    a fifth of the time.
    """

    symbol: str
    open_time: Millis
    close_time: Millis
    open: float
    high: float
    low: float
    close: float
    volume: float
    quote_volume: float | None
    vwap: float | None
    trades_count: int | None
    closed: bool
    """Whether the venue said that the minute is closed; ``False`` at a venue that never says so."""


@attrs.frozen
class Told:
    """The venue wrote this message at *time*, by its own clock."""

    time: Millis


@attrs.frozen
class Alive:
    """The venue is there (heartbeat, pong); nothing more."""


@attrs.frozen
class Notice:
    """The venue tells people something that changes nothing for us; logged."""

    text: str


@attrs.frozen
class SystemStatus:
    """The venue says that its market is not in normal operation (*text*), or is again (``None``)."""

    text: str | None


@attrs.frozen
class Leaving:
    """The venue announces that it will close this connection; leave before it does."""

    text: str


@attrs.frozen
class Skipped:
    """A message that we know and do not need, or a type that did not exist when this was written."""

    reason: str


@attrs.frozen
class Unread:
    """A row or trade of a message that could not be read: the message's other rows count, and it proves nothing."""

    symbol: str
    """Empty where that cannot be read, either."""
    minute: Millis | None
    """The minute that the row is about, in Unix ms; ``None`` where that cannot be read, either."""
    reason: str
    """One of a few words, as of :class:`Misunderstood`."""
    text: str


Event = (
    Acked
    | Refused
    | Traded
    | TradeSeen
    | Heartbeat
    | Forming
    | Row
    | Told
    | Alive
    | Notice
    | SystemStatus
    | Leaving
    | Skipped
    | Unread
)


class Proof(Enum):
    """What in a venue's events proves a minute; :mod:`trio_candles.assembly` has a class for each."""

    TRADE_IDS = "trades with ids, and heartbeats that name the newest"
    COUNTED_ROWS = "rows that count their trades, and the trades' ids"
    STATED_CLOSES = "rows that say that they are closed"


# --- what we may do --------------------------------------------------------------------------------------


@attrs.frozen
class Limits:
    """A venue's published limits, and how long a silence may last there. Seconds are on the service's clock."""

    connects_per_second: float
    """Sustained; every attempt counts, successful or not."""
    connects_burst: int
    symbols_per_connection: int
    symbols_per_message: int
    messages_per_second: float
    """Messages that we send on one connection."""
    changes_per_hour: float | None
    """Subscriptions and unsubscriptions on one connection; ``None``: limited by ``messages_per_second`` alone."""
    too_fast: str
    """A regular expression, found in the words by which the venue complains about our pace, in upper or lower case."""
    silence: float
    """No frame at all for this long: the connection is dead, whatever TCP believes."""
    ping_after: float | None
    """Send :attr:`FeedProtocol.ping` after this much silence; ``None``: the venue sends heartbeats unasked."""
    symbol_silence: float | None
    """No frame about one symbol for this long is a fault; ``None``: silence of a symbol is legitimate."""
    symbol_remedy: str
    """What to do then: ``reconnect`` where a heartbeat per symbol proves the fault, ``resubscribe`` where silence only
    suggests a fault."""


class FeedProtocol(Protocol):
    """One venue's protocol; what it must not do is in the module's docstring."""

    @property
    def name(self) -> str: ...
    @property
    def websocket_url(self) -> str:
        """The built-in endpoint; the configuration may override it."""
        ...

    @property
    def limits(self) -> Limits: ...
    @property
    def channels(self) -> tuple[str, ...]:
        """Every symbol must be acknowledged once on each of these."""
        ...

    @property
    def ping(self) -> str | None:
        """The text that asks "are you there?", where the venue wants to be asked."""
        ...

    def subscribe(self, symbols: Sequence[str], request: int) -> Iterator[str]:
        """The messages that subscribe *symbols*, within the venue's size limits, in sending order."""
        ...

    def unsubscribe(self, symbols: Sequence[str], request: int) -> Iterator[str]: ...
    def read(self, text: str) -> Sequence[Event]:
        """The events in *text*; :class:`Misunderstood` if *text* is not what the protocol promises."""
        ...


# --- reading rows, numbers and times, strictly ------------------------------------------------------------

UNREADABLE = (msgspec.DecodeError, RecursionError, UnicodeError)
"""What msgspec raises for a text that is no JSON, is nested too deeply, is no UTF-8, or holds half a surrogate pair."""

R = TypeVar("R")
Good = TypeVar("Good")
Bad = TypeVar("Bad")

_RAW_ROWS = msgspec.json.Decoder(list[msgspec.Raw])


class Rows(Generic[R]):
    """Reads JSON lists of rows of one type: a row that is not as promised costs itself, and no other row."""

    def __init__(self, row: type[R]) -> None:
        self.decode = msgspec.json.Decoder(list[row]).decode  # type: ignore[valid-type]
        """All rows of a text; raises what :data:`UNREADABLE` names, also for a single row."""
        self._one = msgspec.json.Decoder(row)

    def read(
        self,
        text: bytes | msgspec.Raw,
        good: Callable[[R], Good],
        bad: Callable[[bytes, Misunderstood], Bad],
    ) -> list[Good | Bad]:
        """What *good* makes of each row of *text*, and *bad* of each row that cannot be read or that *good* calls
        :class:`Misunderstood`, in the rows' order. *good* may be called twice with a row.

        The rows are read all at once, which is quick, and one at a time only if one of them is bad. Raises what
        :data:`UNREADABLE` names if *text* is no list.
        """
        try:
            return [good(row) for row in self.decode(text)]
        except (Misunderstood, *UNREADABLE):
            return self.read_each(text, good, bad)

    def read_each(
        self,
        text: bytes | msgspec.Raw,
        good: Callable[[R], Good],
        bad: Callable[[bytes, Misunderstood], Bad],
    ) -> list[Good | Bad]:
        """As :meth:`read`, one row at a time from the start."""
        return [self._read_one(bytes(row), good, bad) for row in _RAW_ROWS.decode(text)]

    def _read_one(
        self, text: bytes, good: Callable[[R], Good], bad: Callable[[bytes, Misunderstood], Bad]
    ) -> Good | Bad:
        try:
            return good(self._one.decode(text))
        except Misunderstood as error:
            return bad(text, error)
        except UNREADABLE as error:
            reason = "bad_shape" if isinstance(error, msgspec.ValidationError) else "not_json"
            return bad(text, Misunderstood(reason, f"{error} in {text[:200]!r}"))


Id = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
"""An id or a count: JSON's integers have no end, the columns and the ledger are int64."""

Number = Annotated[float, msgspec.Meta(gt=-1e20, lt=1e20)]
"""A price or an amount that is written as a number: of twenty digits before the point at most, as in :func:`exact`."""

_NUMBER = re.compile(r"-?[0-9]{1,20}(\.[0-9]{1,20})?", re.ASCII)


def exact(text: str) -> Decimal:
    """*text* as an exact number; ``Misunderstood`` unless it is plain digits.

    Decimal itself accepts ``NaN``, ``1_000``, surrounding blanks and Arabic digits; no venue writes those.
    """
    if _NUMBER.fullmatch(text) is None:
        raise Misunderstood("bad_number", repr(text[:40]))
    return Decimal(text)


def plain_float(text: str) -> float:
    """*text* as the nearest float, under the same rule as :func:`exact`."""
    if _NUMBER.fullmatch(text) is None:
        raise Misunderstood("bad_number", repr(text[:40]))
    return float(text)


_NUMBERS = re.compile(rf"{_NUMBER.pattern}(?:,{_NUMBER.pattern})*", re.ASCII)


def plain_floats(texts: Sequence[str]) -> list[float]:
    """Each of *texts* as :func:`plain_float` reads it; quicker for a row of them."""
    if _NUMBERS.fullmatch(",".join(texts)) is not None:
        try:
            return list(map(float, texts))
        except ValueError:  # a text with a comma in it
            pass
    return [plain_float(text) for text in texts]


def optional_float(value: object) -> float | None:
    """*value*, a number or the text of one, as the nearest float; ``None`` if it is negative, or anything else.

    For sums and means that may be null: nothing is proven by them, and none is worth the row that it stands in.
    """
    if isinstance(value, str):
        number = float(value) if _NUMBER.fullmatch(value) is not None else -1.0
    elif type(value) is float or (type(value) is int and value < 2**63):
        number = float(value)
    else:
        return None
    return number if number >= 0 else None


def floats_of(needed: tuple[str, ...], optional: object) -> tuple[list[float], float | None]:
    """*needed* as :func:`plain_floats` reads them, and *optional* as :func:`optional_float` does; quicker than both."""
    if isinstance(optional, str) and _NUMBERS.fullmatch(f"{','.join(needed)},{optional}") is not None:
        try:
            number = float(optional)
            return list(map(float, needed)), number if number >= 0 else None
        except ValueError:  # a text with a comma in it
            pass
    return plain_floats(needed), optional_float(optional)


_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?Z", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


def time_of(text: str) -> Millis:
    """An ISO 8601 time in UTC (``2026-01-10T12:00:00.028459Z``, up to ns) floored to ms; else Misunderstood."""
    # fromisoformat reads much that no venue writes (weeks, offsets, 12000000Z): the shape is checked first.
    if _TIME.fullmatch(text) is None:
        raise Misunderstood("bad_time", repr(text[:40]))
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise Misunderstood("bad_time", repr(text[:40])) from None
    if not 2009 <= time.year <= 9998:
        # Coinbase has sent 0001-01-01; no trade of these markets is older than 2009.
        raise Misunderstood("bad_time", repr(text[:40]))
    return Millis((time - _EPOCH) // _MILLISECOND)
