"""What a venue's REST history must be able to ask and answer: requests, answers, rates, findings, errors.

A fill is a generator that yields :class:`Request`\\ s and is sent :class:`Answer`\\ s, so that paging, the second
endpoint and the proof stay together and pure: a fill opens nothing, waits for nothing, reads no clock::

    fill = history.fill(series, since, until, now)
    request = next(fill)
    while True:
        request = fill.send(await ask(request))     # StopIteration carries the Filled

An error on the way to an answer is thrown into the fill (``fill.throw(Unavailable("no answer in 10 s"))``).

::

    VenueError
    ├── Misunderstood      the first answer is nonsense; a later one leaves its minutes Missing
    └── Refusal            the venue has no answer for us; ``proven`` holds what earlier answers proved
        ├── Throttled      we asked too often, says the venue
        ├── Unavailable    5xx, busy, a page of HTML, no answer
        └── UnknownSymbol  the venue does not know what we ask about
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from enum import Enum, StrEnum
from typing import Protocol, TypeVar

import attrs
import msgspec

from trio_candles.candles.model import MINUTE, Candle, Empty, Millis, Series, Trade, floor_to
from trio_candles.candles.validation import Rule
from trio_candles.venues.protocol import UNREADABLE, Bad, Good, Misunderstood, R, Rows, TradeSeen, VenueError

__all__ = [
    "ABSENT",
    "BESIDE",
    "CLOCK",
    "GRACE",
    "NOTHING",
    "SETTLED",
    "Answer",
    "Fill",
    "Filled",
    "Heard",
    "History",
    "Missing",
    "Penalty",
    "Rate",
    "Refusal",
    "Request",
    "RestUrls",
    "Shown",
    "Throttled",
    "Unavailable",
    "UnknownSymbol",
    "Using",
    "Why",
    "judge_status",
    "pages",
    "read_body",
    "read_rows",
    "settled_until",
]

SETTLED = Millis(60_000)
"""How many ms after its end a minute is believed: late trades have come, and caches have dropped old answers."""

GRACE = Millis(1_000)
"""Ids follow time, but not to the instant: a trade this far from a minute certainly lies before or after it."""

BESIDE = Millis(30 * MINUTE)
"""How many ms of older minutes are asked for in addition where the answer does not name its market."""


def settled_until(now: Millis) -> Millis:
    """The first minute that is not settled at *now*: all before it ended at least :data:`SETTLED` ago."""
    return floor_to(now - SETTLED, MINUTE)


# --- what the feed knows ----------------------------------------------------------------------------------


CLOCK = Millis(60_000)
"""How many ms are taken off a time of ours at which a venue was asked, where the time bounds what its answer proves:
our clock is within 30 s of a venue's, or nothing is derived from it, and records are no further than that behind."""


@attrs.frozen
class Shown:
    """What the answers of one fill showed: trade *id* as the newest one when the venue was asked."""

    id: int
    asked: Millis
    """When, by our clock (Unix ms)."""


@attrs.frozen
class Heard:
    """What is known of one series besides the answers to a fill: what its live feed told, and what earlier answers did.

    All of it is the venue's word, and stays true when the connection is lost. Times are the venue's, in Unix ms.
    """

    trades: tuple[Trade | TradeSeen, ...] = ()
    """The newest trades that the feed told, ascending and without a hole among the ids; those of a feed that tells
    no numbers prove that there was no trade between them."""
    newest: int = 0
    """The id of the newest trade of the series, as far as the feed knows; 0: the feed does not know one."""
    quiet_until: Millis = attrs.field(default=Millis(0))
    """The venue said that before this time no trade followed ``newest``; 0: it said nothing of the kind."""

    shown: Shown | None = None
    """What an earlier fill's answers showed of the newest trade."""


NOTHING = Heard()
"""What is known without a feed, by the first fill."""


# --- asking and answering ---------------------------------------------------------------------------------


RestUrls = Mapping[str | None, str]
"""Name of a host, as in :attr:`Request.host` → its URL, without a slash at the end; ``None``: the main one."""


@attrs.frozen
class Request:
    """One question to a venue's REST."""

    path: str
    """Below the host's URL."""
    params: Mapping[str, str]
    """The query's parameters."""
    bucket: str
    """Which of the venue's rates the question counts against: a key of :attr:`History.rates`."""
    method: str = "GET"
    body: bytes | None = None
    """JSON, and sent as such."""
    weight: int = 1
    """How many turns of its bucket the question takes."""
    host: str | None = None
    """Which of the venue's hosts is asked: a key of :attr:`History.rest_urls`."""


@attrs.frozen
class Answer:
    """An HTTP answer, whole and decompressed; whoever reads it from the wire bounds its size."""

    status: int
    body: bytes
    retry_after: float | None = None
    """Seconds, as the header of that name says."""
    seconds: float = 0.0
    """From the question's leaving to the answer's end, on the service's clock; without the wait for the budget."""
    date: Millis | None = None
    """When the answer was written, Unix ms in whole seconds, as the header of that name says; ``None`` for an answer
    out of a cache."""


@attrs.frozen
class Rate:
    """A token bucket. Seconds are the service's."""

    per_second: float
    burst: int
    empty_at_start: bool = True
    """Whether the bucket has no tokens at first: a new process does not know how many the process before it has spent,
    and so the two together keep the limit."""


@attrs.frozen
class Penalty:
    """After a :class:`Throttled`, *rate* replaces the bucket's own for *seconds*."""

    rate: Rate
    seconds: float


class Why(StrEnum):
    """Why an answer proves nothing about a minute. Others: a broken rule's value, a Misunderstood's text."""

    UNSETTLED = "not settled yet"
    NO_ROW = "no row, which proves nothing"
    UNREADABLE = "a row of the answer cannot be read"
    ZERO_ROW_BREAKS_RULE = "a row without trades whose prices are not all the last price before it"
    LONG_SILENCE = "many rows without trades, of a market that trades in most other minutes"
    LEFT_OUT = "the venue has rows before and after it, and none of it"
    NO_ROW_YET = "after the listing, and before the first row that the venue has"
    NOT_CONFIRMED = "the venue has not confirmed the row"
    MAYBE_OLD = "nothing in the answer is later than the minute's settling"
    ROWS_DIFFER = "two rows of the minute differ"
    ROW_AND_TRADES_DIFFER = "row and trades differ"
    ROWS_AND_TRADES_DIFFER = "most rows and trades differ: they are not of the same market"
    ID_HOLE = "trade ids are not contiguous"
    NO_TRADES = "the venue shows no trades"
    NO_TRADE_AFTER = "no trade after it yet"
    NO_TRADE_BEFORE = "no trade before it is served"
    BEFORE_FIRST = "before the first trade"
    BEYOND_DEPTH = "beyond the depth that the venue documents, and its newest rows are served"
    NOT_REACHED = "trades not reached"
    """The requests of this fill are used up: another fill for the missing minutes will reach other trades."""


class Using(Enum):
    """Which part of a venue's record to ask."""

    ALL = "rows, and trades where those leave something open"
    ROWS = "rows alone"
    TRADES = "trades by id alone, where the venue has them"


ABSENT = frozenset({Why.LEFT_OUT, Why.NO_ROW_YET, Why.ID_HOLE, Why.NO_TRADE_BEFORE, Why.BEYOND_DEPTH})
"""The reasons which mean that the venue gave a good answer, with what lies around these minutes, or with all that can
still be expected, and without them."""


@attrs.frozen
class Missing:
    """A span that a fill did not prove, and why."""

    since: Millis
    until: Millis
    why: str


@attrs.frozen
class Filled:
    """What a fill found out: each minute that was asked for is in exactly one of candles, empties and missing."""

    candles: tuple[Candle, ...]
    """Ascending. Also of minutes nobody asked for: whatever the answers carried and proved."""
    empties: tuple[Empty, ...]
    """Ascending, disjoint. Also of minutes nobody asked for."""
    missing: tuple[Missing, ...]
    """Ascending, disjoint; of minutes that were asked for only."""
    listed: tuple[Millis, str] | None = None
    """The minute in which the venue's market of the series began, and how that is known."""
    rejected: tuple[tuple[Candle, Rule], ...] = ()
    """Settled candles that break a rule, and the rule, to be counted and logged; at most one of each minute."""
    unclear: str | None = None
    """What was not understood first in an answer, if anything was not: a row, or all of a later answer."""
    shown: Shown | None = None
    """What the answers showed of the newest trade; to be told to a later fill (:attr:`Heard.shown`)."""
    first_row: tuple[Millis, str] | None = None
    """The minute of the oldest row of answers that reach a day further back, and what they were; no fill says so, but
    who asked (:mod:`trio_candles.collector.horizon`)."""


Fill = Generator[Request, Answer, Filled]


class Refusal(VenueError):
    """The venue has no answer for us, which proves nothing about the minutes."""

    def __init__(self, text: str, retry_after: float | None = None) -> None:
        super().__init__(text)
        self.retry_after = retry_after
        """Seconds, where the venue says how long it wants to be left alone."""
        self.proven: Filled | None = None
        """What the fill had proved before the refusal; ``None`` if no answer had been understood."""


class Throttled(Refusal):
    """We asked too often, says the venue."""


class Unavailable(Refusal):
    """The venue, or the way to it, is not well: 5xx, busy, a page of HTML, no answer."""


class UnknownSymbol(Refusal):
    """The venue does not know the symbol."""


class History(Protocol):
    """One venue's REST record of the past."""

    @property
    def name(self) -> str: ...
    @property
    def rest_urls(self) -> RestUrls:
        """The venue's own hosts, the main one at least."""
        ...

    @property
    def rates(self) -> Mapping[str, Rate]:
        """Every bucket that a request may name, at rates below the venue's published limits."""
        ...

    @property
    def penalty(self) -> Penalty: ...
    def windows(self, since: Millis, until: Millis, now: Millis) -> Iterator[tuple[Millis, Millis]]:
        """``[since, until)`` without its unsettled end, newest first, in pieces that one fill can handle."""
        ...

    @property
    def anonymous(self) -> bool:
        """Whether an answer may be of another market without saying so."""
        ...

    @property
    def has_trades(self) -> bool:
        """Whether candles can be built from trades by id: :attr:`Using.TRADES`."""
        ...

    @property
    def sampled(self) -> bool:
        """Whether rows, believed on their word, are not always what the trades say: then some of the minutes that they
        filled are rebuilt from trades (:attr:`Using.TRADES`). Such rows have no count of trades.
        """
        ...

    def settles_by(self, minute: Millis, now: Millis) -> Using:
        """Which part of the record may replace a stored candle of *minute*."""
        ...

    def reach(self, now: Millis) -> Millis:
        """The first minute of which rows are served (Unix ms); 0 where rows go far enough back."""
        ...

    @property
    def depth(self) -> Millis | None:
        """How many ms back from now anything at all is served, by whatever way, as the venue documents; ``None``: as
        far back as there is something, or the documents give no number.
        """
        ...

    @property
    def tells_listing(self) -> bool:
        """Whether the venue tells when a market began, by a date or by its first trade: :attr:`Filled.listed`."""
        ...

    def fill(
        self,
        series: Series,
        since: Millis,
        until: Millis,
        now: Millis,
        using: Using = Using.ALL,
        heard: Heard = NOTHING,
    ) -> Fill:
        """What the venue's record, with what its feed has *heard*, proves about the minutes of ``[since, until)`` at
        *now*.

        Raises :class:`Misunderstood`, :class:`Throttled`, :class:`Unavailable` or :class:`UnknownSymbol`, and nothing
        else, whatever the fill is sent.
        """
        ...

    def server_time(self) -> Request:
        """The request for the venue's time."""
        ...

    def read_time(self, answer: Answer) -> Millis:
        """The venue's time in the *answer* to :meth:`server_time`, in Unix ms; raises the errors of :meth:`fill`."""
        ...


def pages(since: Millis, until: Millis, size: int) -> Iterator[tuple[Millis, Millis]]:
    """The whole minutes that ``[since, until)`` touches, newest first, in pieces of at most *size* ms."""
    begin, end = floor_to(since, MINUTE), floor_to(until + MINUTE - 1, MINUTE)
    while begin < end:
        start = Millis(max(begin, end - size))
        yield start, end
        end = start


# --- reading answers --------------------------------------------------------------------------------------

_REFUSING = (401, 403, 407, 408, 425, 451)
"""HTTP statuses of proxies, firewalls and regional blocks: they are about us, not about what we ask."""

T = TypeVar("T")


def judge_status(answer: Answer, spoken: tuple[int, ...] = ()) -> None:
    """Raise the error that the HTTP status alone shows; nothing for 200 and the statuses in *spoken*, which the venue
    itself uses: there the body decides.
    """
    status = answer.status
    if status == 429:
        raise Throttled("HTTP 429", answer.retry_after)
    if status == 200 or status in spoken:
        return
    if status >= 500 or status in _REFUSING:
        raise Unavailable(f"HTTP {status}", answer.retry_after)
    raise Misunderstood("http_status", f"{status} {answer.body[:200]!r}")


def read_body(decoder: msgspec.json.Decoder[T], answer: Answer) -> T:
    """The answer's body, decoded; :class:`Unavailable` for a page of HTML, :class:`Misunderstood` for the rest."""
    return _reading(decoder.decode, answer)


def read_rows(
    rows: Rows[R], answer: Answer, good: Callable[[R], Good], bad: Callable[[bytes, Misunderstood], Bad]
) -> list[Good | Bad]:
    """The answer's body as a list of rows (see :meth:`~trio_candles.venues.protocol.Rows.read`); the errors of
    :func:`read_body` if the body is no list.
    """
    return _reading(lambda body: rows.read(body, good, bad), answer)


def _reading(read: Callable[[bytes], T], answer: Answer) -> T:
    try:
        return read(answer.body)
    except msgspec.ValidationError as error:
        raise Misunderstood("bad_shape", f"{error} in {answer.body[:200]!r}") from None
    except UNREADABLE:
        if answer.body.lstrip()[:1] == b"<":
            raise Unavailable(f"HTTP {answer.status} with a page of HTML", answer.retry_after) from None
        raise Misunderstood("not_json", repr(answer.body[:200])) from None
