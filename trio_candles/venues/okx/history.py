"""OKX, REST: rows that say themselves that they are closed, on two endpoints of different depth.

Source: the v5 documentation of ``GET /market/candles`` and ``/market/history-candles``, and what maintained clients
say of their bounds. There is a row for every minute, a flat one where nothing traded; so a missing row is a hole,
never an empty minute. No answer names its instrument. There is no way to rebuild a candle from trades by id.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from functools import partial
from types import MappingProxyType

import msgspec

from trio_candles.candles.model import MINUTE, Candle, Millis, Series, Source, floor_to
from trio_candles.venues.findings import Findings, finish
from trio_candles.venues.history import (
    BESIDE,
    NOTHING,
    Answer,
    Fill,
    Heard,
    Penalty,
    Rate,
    Request,
    RestUrls,
    Using,
    Why,
    pages,
    read_body,
    read_rows,
    settled_until,
)
from trio_candles.venues.okx.answers import data_of
from trio_candles.venues.okx.rows import MILLIS, CandleRow, minute_of, numbers_of, time_of_row
from trio_candles.venues.protocol import Misunderstood, Rows

__all__ = ["OkxHistory"]

_CANDLES = "/api/v5/market/candles"
_HISTORY = "/api/v5/market/history-candles"
_PUBLIC = "/api/v5/public/time"
_INSTRUMENTS = "/api/v5/public/instruments"

_PAGE = 300
"""Documented: the most that one page has."""
_WINDOW = Millis((_PAGE - 2) * MINUTE)
"""One row more is asked for on either side: whichever bound turns out to be inclusive, no minute is lost."""
_AHEAD = Millis(10 * MINUTE)
"""How many ms of younger minutes are asked for in addition."""
_DEPTH = Millis(1_440 * MINUTE)
"""Documented: how far /candles goes back, the forming row included."""
_MARGIN = Millis(10 * MINUTE)
"""Minutes that near to the end of /candles may be beyond it by the time they are asked for."""


# {"ts":"1597026383085"}
class _Time(msgspec.Struct):
    ts: str


# {"instType":"SPOT","instId":"BTC-USDT","listTime":"1548133413000","state":"live",...}
class _Instrument(msgspec.Struct):
    instId: str
    listTime: str


_ROWS = Rows(CandleRow)
_TIMES = msgspec.json.Decoder(list[_Time])
_INSTRUMENT_LIST = msgspec.json.Decoder(list[_Instrument])


class OkxHistory:
    """OKX's public market data; no key needed."""

    name = "okx"
    rest_urls: RestUrls = MappingProxyType({None: "https://openapi.okx.com"})
    rates: Mapping[str, Rate] = MappingProxyType(
        {
            # Documented: 40 and 20 requests in any 2 s, per endpoint and IP; burst + 2 s of the rate stay below.
            _CANDLES: Rate(per_second=14.0, burst=8),
            _HISTORY: Rate(per_second=7.0, burst=4),
            _PUBLIC: Rate(per_second=2.0, burst=2),
            _INSTRUMENTS: Rate(per_second=2.0, burst=2),
        }
    )
    penalty = Penalty(Rate(per_second=2.0, burst=1), seconds=30.0)  # not documented

    def windows(self, since: Millis, until: Millis, now: Millis) -> Iterator[tuple[Millis, Millis]]:
        """Pages of one endpoint, which overlap by a row on either side."""
        return pages(since, min(until, settled_until(now)), _WINDOW)

    anonymous = True
    has_trades = False
    sampled = False

    def settles_by(self, minute: Millis, now: Millis) -> Using:
        """By rows: there is no way to rebuild them from trades by id."""
        return Using.ROWS

    def reach(self, now: Millis) -> Millis:
        """0: the documented depth is recent years."""
        return Millis(0)

    depth = None  # documented: recent years, which is no number
    tells_listing = True

    def fill(
        self,
        series: Series,
        since: Millis,
        until: Millis,
        now: Millis,
        using: Using = Using.ALL,
        heard: Heard = NOTHING,
    ) -> Fill:
        """One request for rows, and a second one where rows are missing that the other endpoint may have.

        If the oldest minutes are still missing, the venue is asked when it listed the symbol.
        """
        findings = Findings(series, since, until, now, heard)
        return finish(findings, _fill(findings, using))

    def server_time(self) -> Request:
        """The request for the venue's time, which is answered in milliseconds."""
        return Request(_PUBLIC, {}, _PUBLIC)

    def read_time(self, answer: Answer) -> Millis:
        """{"code":"0","msg":"","data":[{"ts":"1597026383085"}]}"""
        times = read_body(_TIMES, data_of(answer))
        if len(times) != 1 or MILLIS.fullmatch(times[0].ts) is None:
            raise Misunderstood("bad_time", repr(answer.body[:200]))
        return Millis(int(times[0].ts))


def _fill(findings: Findings, using: Using) -> Generator[Request, Answer, None]:
    """/candles for young minutes, /history-candles for old ones; then the other endpoint for minutes still missing."""
    young = Millis(floor_to(findings.now, MINUTE) - _DEPTH + _MARGIN)
    paths = (_CANDLES, _HISTORY) if findings.since >= young else (_HISTORY, _CANDLES)
    for path in paths:
        spans = findings.open()
        if not spans or (path == _CANDLES and spans[-1][1] <= young):
            continue
        for since, until in pages(spans[0][0], spans[-1][1], _WINDOW):
            answer = yield _request(path, findings.series.symbol, since, until, findings.now)
            _take_rows(findings, answer)
    findings.leaves_out(findings.since, findings.until)
    spans = findings.open()
    if using is Using.ALL and spans and spans[0][0] == findings.since:
        # The oldest minutes are missing: they may be from before the market began.
        answer = yield Request(_INSTRUMENTS, {"instType": "SPOT", "instId": findings.series.symbol}, _INSTRUMENTS)
        _take_listing(findings, answer)


def _take_listing(findings: Findings, answer: Answer) -> None:
    """Take from *answer* when the market began; earlier minutes are neither served nor expected."""
    instruments = read_body(_INSTRUMENT_LIST, data_of(answer))
    found = [instrument for instrument in instruments if instrument.instId == findings.series.symbol]
    if len(found) != 1 or MILLIS.fullmatch(found[0].listTime) is None:
        raise Misunderstood("bad_listing", repr(answer.body[:200]))
    time = Millis(int(found[0].listTime))
    minute = floor_to(time, MINUTE)
    findings.excuse(findings.since, minute, Why.BEFORE_FIRST)
    first = findings.first_row()
    if first is not None and findings.since <= minute:
        findings.excuse(minute, first, Why.NO_ROW_YET)
    findings.listed = (minute, f"listTime {time}")


def _request(path: str, symbol: str, since: Millis, until: Millis, now: Millis) -> Request:
    # Both bounds are exclusive, and named backwards: after=T asks for rows before T. The row before since and the row
    # at until are asked for too. "before" alone would get the newest page, whatever its value.
    # A small page is filled up with minutes on both sides: comparing them with stored candles shows which market the
    # answer is about. With older minutes only, a single row that the venue has changed since could decide that alone.
    end = max(until, min(until + _AHEAD, since + _WINDOW, floor_to(now, MINUTE)))
    start = min(since - MINUTE, max(since - BESIDE, end - _WINDOW))
    bounds = {"after": str(end + MINUTE), "before": str(start - 1)}
    return Request(path, {"instId": symbol, "bar": "1m", **bounds, "limit": str(_PAGE)}, path)


def _take_rows(findings: Findings, answer: Answer) -> None:
    rows = read_rows(_ROWS, data_of(answer), partial(_read, findings), _unread)
    findings.understood = True
    for row in rows:
        if isinstance(row, Candle):
            findings.row(row)
        elif isinstance(row, int):  # the minute was forming when the venue wrote the row
            findings.excuse(row, Millis(row + MINUTE), Why.NOT_CONFIRMED)
        else:
            findings.unread(*row)


def _read(findings: Findings, row: CandleRow) -> Candle | Millis:
    """The candle of *row*, or the minute of a candle that the venue has not confirmed."""
    time = time_of_row(row)
    if row.confirm != "1":
        return time
    opened, high, low, close, volume, quote_volume, vwap = numbers_of(row)
    return Candle(
        findings.series, time, opened, high, low, close, volume, quote_volume, vwap, trades_count=None,
        source=Source.REST, ingest_time=findings.now, close_time=Millis(time + MINUTE),
    )  # fmt: skip


def _unread(text: bytes, error: Misunderstood) -> tuple[tuple[Millis, Millis] | None, str]:
    """The minute that the row *text* is about, if that can be read, and why the row cannot be."""
    minute = minute_of(text)
    return (None if minute is None else (minute, Millis(minute + MINUTE))), str(error)
