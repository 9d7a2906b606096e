"""OKX's REST API v5: candles, trades, instruments, time and status."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from typing import TYPE_CHECKING

import attrs

from ..limits import Window
from ..market import MINUTE_MS
from ..text import Request, Response, answer_json, answer_text, parse_whole, to_json
from .feed import row_until, trade_row

if TYPE_CHECKING:
    from ..faults import Faults
    from ..market import VenueMarket

DEPTH = 1440
DEFAULT_ROWS = 100
MOST_ROWS = 300
TRADES_KEPT_MS = 90 * 86_400_000

# Requests per span in milliseconds, for each path.
LIMITS = {
    "/api/v5/market/candles": (40, 2_000),
    "/api/v5/market/history-candles": (20, 2_000),
    "/api/v5/market/trades": (100, 2_000),
    "/api/v5/market/history-trades": (20, 2_000),
    "/api/v5/public/time": (10, 2_000),
    "/api/v5/public/instruments": (20, 2_000),
    "/api/v5/system/status": (1, 5_000),
}

# What is said, in turn, to everybody when the service is unwell, and to who asks too often, all with HTTP 200.
UNWELL = (
    ("50013", "Systems are busy. Please try again later."),
    ("50001", "Service temporarily unavailable. Please try again later"),
    ("50004", "API endpoint request timeout."),
    ("50005", "API is offline or unavailable"),
)
OVERRUN = (
    ("50011", "Too Many Requests"),
    ("50040", "Too frequent operations, please try again later"),
    ("50061", "Requests too frequent."),
)
# Not live, and trading.
STATES = {"SIM998-USDT": "post_only", "SIM997-USDT": "rebase"}
# Announced, and without most of what a market has.
NEWCOMER: dict[str, object] = {
    "instType": "SPOT", "instId": "FRESH-USDT", "baseCcy": "", "quoteCcy": "", "tickSz": "", "lotSz": "", "minSz": "",
    "listTime": "", "contTdSwTime": None, "expTime": None, "state": "preopen", "tradeQuoteCcyList": [],
}  # fmt: skip


@attrs.define(eq=False)
class OkxRest:
    """Answers requests at a given moment."""

    market: VenueMarket
    faults: Faults
    _windows: dict[str, Window] = attrs.Factory(
        lambda: {path: Window(most, span) for path, (most, span) in LIMITS.items()}
    )
    _said: Counter[str] = attrs.Factory(Counter)

    def within_limits(self, request: Request, now_ms: int) -> bool:
        """Whether the request may be answered; each path has a limit of its own."""
        window = self._windows.get(request.path)
        return window is None or window.take(now_ms)

    def throttled(self) -> Response:
        """What a client that asks too often gets."""
        return failure("50011", "Too Many Requests", 429)

    def overrun(self) -> Response:
        """The same with HTTP 200, which was seen too."""
        return self._next(OVERRUN)

    def busy(self) -> Response:
        """What everybody gets when the service is unwell."""
        return self._next(UNWELL)

    def _next(self, errors: tuple[tuple[str, str], ...]) -> Response:
        """The next of these errors, over and over."""
        first = errors[0][0]
        self._said[first] += 1
        return failure(*errors[(self._said[first] - 1) % len(errors)], 200)

    def misdirect(self, request: Request) -> Request:
        """The same question about another instrument."""
        other = "ETH-USDT" if request.query.get("instId") != "ETH-USDT" else "BTC-USDT"
        return attrs.evolve(request, query=request.query | {"instId": other})

    def answer(self, request: Request, now_ms: int) -> Response:
        """The answer; what is wrong is a code, mostly with HTTP 200."""
        match request.path.removeprefix("/api/v5/"):
            case "public/time":
                return success([{"ts": str(now_ms)}])
            case "public/instruments":
                return self._instruments(request)
            case "system/status":
                return success(self._status(now_ms))
            case "market/candles" | "market/history-candles" | "market/trades" | "market/history-trades":
                symbol = request.query.get("instId", "")
                if not self.market.listed(symbol):
                    text = "Instrument ID, Instrument ID code or Spread ID doesn't exist."
                    return failure("51001", text, 200)
                if "candles" in request.path:
                    return self._candles(symbol, request, now_ms)
                return self._trades(symbol, request, now_ms)
        return failure("404", "Not Found", 404)

    def _status(self, now_ms: int) -> list[dict[str, str]]:
        if self.faults.system == "online":
            return []
        begin, end = str(now_ms - 60_000), str(now_ms + 600_000)
        return [{"title": "Spot system upgrade", "state": "ongoing", "begin": begin, "end": end,
                 "serviceType": "5", "system": "unified"}]  # fmt: skip

    def _instruments(self, request: Request) -> Response:
        if request.query.get("instType") != "SPOT":
            return failure("51000", "Parameter instType error", 400)
        symbols, more = self.market.symbols, [NEWCOMER]
        if (wanted := request.query.get("instId")) is not None:
            if not self.market.listed(wanted):
                text = "Instrument ID, Instrument ID code or Spread ID doesn't exist."
                return failure("51001", text, 200)
            symbols, more = (wanted,), []
        return success([self._describe(symbol) for symbol in symbols] + more)

    def _describe(self, symbol: str) -> dict[str, object]:
        instrument = self.market.instrument(symbol)
        return {
            "instType": "SPOT",
            "instId": symbol,
            "baseCcy": instrument.base,
            "quoteCcy": instrument.quote,
            "tickSz": f"{10.0**instrument.tick_exponent:.{-instrument.tick_exponent}f}",
            "lotSz": "0.00000001",
            "minSz": "0.00001",
            "listTime": str(instrument.listed_at_ms),
            "contTdSwTime": "",
            "expTime": "",
            "state": "suspend" if symbol in self.faults.delisted_symbols else STATES.get(symbol, "live"),
            "tradeQuoteCcyList": [instrument.quote],
        }

    def _candles(self, symbol: str, request: Request, now_ms: int) -> Response:
        """Newest first, both bounds exclusive; with ``before`` alone the page is the newest one."""
        query = request.query
        numbers = read_numbers(query, ("after", "before", "limit"))
        limit = numbers.get("limit", DEFAULT_ROWS) if numbers is not None else 0
        if numbers is None or query.get("bar", "1m") != "1m" or not 1 <= limit <= MOST_ROWS:
            return failure("51000", "Parameter error", 400)
        forming = now_ms // MINUTE_MS * MINUTE_MS
        if request.path.endswith("history-candles"):
            newest, oldest = forming - (1 + self.faults.history_lag) * MINUTE_MS, 0
        else:
            newest, oldest = forming, forming - (DEPTH - 1) * MINUTE_MS
        listed_ms = self.market.instrument(symbol).listed_at_ms // MINUTE_MS * MINUTE_MS
        oldest = max(oldest, listed_ms)
        if "after" in numbers:
            newest = min(newest, (numbers["after"] - 1) // MINUTE_MS * MINUTE_MS)
        lowest = max(oldest, newest - (limit - 1) * MINUTE_MS)
        if "before" in numbers:
            lowest = max(lowest, (numbers["before"] // MINUTE_MS + 1) * MINUTE_MS)
        visible = self.market.first_id_from(symbol, now_ms * 1000)
        rows = []
        for minute_ms in range(newest, lowest - 1, -MINUTE_MS):
            row = row_until(self.market, symbol, minute_ms, visible, closed=minute_ms < forming)
            if self.faults.holds("revise_row", symbol, minute_ms) and row is not None:
                row[5] = f"{2 * Decimal(row[5]):f}"
            if row is not None and not self.faults.holds("lose_row", symbol, minute_ms):
                row = row[:7] if self.faults.seven_fields else row
                rows.append(self.faults.row(symbol, minute_ms, to_json(row)))
        return answer_text(f'{{"code":"0","msg":"","data":[{",".join(rows)}]}}')

    def _trades(self, symbol: str, request: Request, now_ms: int) -> Response:
        """Newest first; history pages by id (type 1) or by time (type 2)."""
        history = request.path.endswith("history-trades")
        most = 100 if history else 500
        numbers = read_numbers(request.query, ("after", "before", "limit", "type"))
        limit = numbers.get("limit", 100) if numbers is not None else 0
        if numbers is None or not 1 <= limit <= most or numbers.get("type", 1) not in (1, 2):
            return failure("51000", "Parameter error", 400)
        market = self.market
        below = market.first_id_from(symbol, now_ms * 1000)
        above = market.first_id_from(symbol, (now_ms - TRADES_KEPT_MS) * 1000) - 1
        if history and "after" in numbers:
            by_time = numbers.get("type", 1) == 2
            after = numbers["after"]
            below = min(below, market.first_id_from(symbol, after * 1000) if by_time else after)
        if history and "before" in numbers and numbers.get("type", 1) == 1:
            above = max(above, numbers["before"])
        ids = range(below - 1, max(below - 1 - limit, above), -1)
        return success([trade_row(symbol, market.trade(symbol, i)) | {"source": "0"} for i in ids])


def read_numbers(query: dict[str, str], names: tuple[str, ...]) -> dict[str, int] | None:
    """Those parameters that are given, as numbers; None if one is no number."""
    given = {name: parse_whole(query[name]) for name in names if query.get(name)}
    numbers = {name: number for name, number in given.items() if number is not None}
    return numbers if len(numbers) == len(given) else None


def success(data: object) -> Response:
    """An answer without an error."""
    return answer_json({"code": "0", "msg": "", "data": data})


def failure(code: str, text: str, status: int) -> Response:
    """An error, often HTTP 200."""
    return answer_json({"code": code, "msg": text, "data": []}, status)
