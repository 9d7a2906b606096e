"""Coinbase Exchange's REST API: products, candles, trades, time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from ..limits import TokenBucket
from ..market import MINUTE_MS
from ..text import Request, Response, answer_json, answer_text, fixed, iso, parse_time, parse_whole, plain
from .feed import MAKER

if TYPE_CHECKING:
    from ..faults import Faults
    from ..market import MarketTrade, TrueCandle, VenueMarket

GRANULARITY = 60
MOST_AGGREGATIONS = 300
NEWEST_CANDLES = 350
# Recorded: what the cache before the venue may repeat, and for how many seconds.
CANDLES_CACHED = 300
PRODUCTS_CACHED = 5
# Its product has no status message, which is null instead of a text.
WITHOUT_MESSAGE = "SIM999-USD"
MOST_TRADES = 1000


def cached_seconds(request: Request) -> int:
    """For how long the answer to a request is repeated."""
    match request.path.strip("/").split("/"):
        case ["products", _, "candles"]:
            return CANDLES_CACHED
        case ["products"]:
            return PRODUCTS_CACHED
        case _:
            return 0


@attrs.define(eq=False)
class CoinbaseRest:
    """Answers requests at a given moment."""

    market: VenueMarket
    faults: Faults
    _bucket: TokenBucket = attrs.Factory(lambda: TokenBucket(per_second=10, burst=15))

    def within_limits(self, request: Request, now_ms: int) -> bool:
        """Whether the request may be answered; ten a second, fifteen at once."""
        return self._bucket.take(now_ms)

    def throttled(self) -> Response:
        """What a client that asks too often gets."""
        return answer_json({"message": "Public rate limit exceeded"}, 429)

    def overrun(self) -> Response:
        """The same, for the fault of that name."""
        return self.throttled()

    def busy(self) -> Response:
        """What everybody gets when the service is unwell."""
        return answer_json({"message": "Service unavailable"}, 503)

    def misdirect(self, request: Request) -> Request:
        """The same question about another product."""
        parts = request.path.split("/")
        if len(parts) > 2:
            parts[2] = "ETH-USD" if parts[2] != "ETH-USD" else "BTC-USD"
        return attrs.evolve(request, path="/".join(parts))

    def answer(self, request: Request, now_ms: int) -> Response:
        """The answer, 404 included."""
        if request.method != "GET":
            return answer_json({"message": "Method not allowed"}, 405)
        if not request.headers.get("user-agent"):
            return answer_json({"message": "User-Agent header is required."}, 400)
        match request.path.strip("/").split("/"):
            case ["time"]:
                return answer_json({"iso": iso(now_ms * 1000)[:-4] + "Z", "epoch": now_ms / 1000})
            case ["products"]:
                return answer_json([self._product(symbol) for symbol in self.market.symbols])
            case ["products", symbol, *rest] if self.market.listed(symbol):
                match rest:
                    case []:
                        return answer_json(self._product(symbol))
                    case ["candles"]:
                        return self._candles(symbol, request, now_ms)
                    case ["trades"]:
                        return self._trades(symbol, request, now_ms)
        return answer_json({"message": "NotFound"}, 404)

    def _product(self, symbol: str) -> dict[str, object]:
        instrument = self.market.instrument(symbol)
        delisted = symbol in self.faults.delisted_symbols
        return {
            "id": symbol,
            "base_currency": instrument.base,
            "quote_currency": instrument.quote,
            "quote_increment": f"{10.0**instrument.tick_exponent:.{-instrument.tick_exponent}f}",
            "base_increment": "0.00000001",
            "display_name": symbol,
            "min_market_funds": "1",
            "margin_enabled": False,
            "post_only": False,
            "limit_only": False,
            "cancel_only": False,
            "status": "delisted" if delisted else "online",
            "status_message": None if symbol == WITHOUT_MESSAGE else "",
            "trading_disabled": delisted,
            "fx_stablecoin": False,
            "max_slippage_percentage": "0.02",
            "auction_mode": False,
            "high_bid_limit_percentage": "",
        }

    def _candles(self, symbol: str, request: Request, now_ms: int) -> Response:
        query = request.query
        if query.get("granularity", "60") != str(GRANULARITY):
            return answer_json({"message": "Unsupported granularity"}, 400)
        newest = now_ms // MINUTE_MS * GRANULARITY
        if "start" in query and "end" in query:
            start, end = parse_time(query["start"]), parse_time(query["end"])
            if start is None or end is None or end < start:
                return answer_json({"message": "Invalid time range"}, 400)
            start = -(-start // GRANULARITY) * GRANULARITY
            if end - start > MOST_AGGREGATIONS * GRANULARITY:
                text = "granularity too small for the requested time range. "
                text += "Count of aggregations requested exceeds 300"
                return answer_json({"message": text}, 400)
            if self.faults.is_set("early_rows"):
                start -= self.faults.early_rows * GRANULARITY
        else:
            start, end = newest - (NEWEST_CANDLES - 1) * GRANULARITY, newest
        rows, visible = [], self.market.first_id_from(symbol, now_ms * 1000)
        for second in range(min(end // GRANULARITY * GRANULARITY, newest), start - 1, -GRANULARITY):
            candle = self.market.candle_until(symbol, second * 1000, visible)
            if candle := self.faults.recorded(symbol, candle):
                rows.append(self._row(symbol, candle))
        return answer_text(f"[{','.join(rows)}]")

    def _row(self, symbol: str, candle: TrueCandle) -> str:
        """Time, low, high, open, close, volume: numbers, and low before high."""
        volume = plain(candle.volume)
        if self.faults.is_set("float_artefacts"):
            volume = repr(sum(float(t.size) for t in self.market.trades(symbol, candle.minute_ms)))
        prices = ",".join(map(plain, (candle.low, candle.high, candle.open, candle.close)))
        return self.faults.row(symbol, candle.minute_ms, f"[{candle.minute_ms // 1000},{prices},{volume}]")

    def _trades(self, symbol: str, request: Request, now_ms: int) -> Response:
        """Newest first. ``before`` does not move the page: it is the newest one, cut off at that id."""
        query = request.query
        below = self.market.first_id_from(symbol, now_ms * 1000)
        limit = parse_whole(query.get("limit", str(MOST_TRADES)))
        after = parse_whole(query.get("after", str(below)))
        before = parse_whole(query.get("before", "0"))
        if limit is None or after is None or before is None:
            return answer_json({"message": "Invalid parameter"}, 400)
        below = min(below, after)
        lowest = max(below - min(max(limit, 1), MOST_TRADES), before + 1, 1)
        ids = [i for i in range(below - 1, lowest - 1, -1) if not self.faults.holds("lose_trade", symbol, i)]
        trades = [self.market.trade(symbol, i) for i in ids]
        headers = {}
        if trades:
            headers = {"cb-before": str(trades[0].trade_id), "cb-after": str(trades[-1].trade_id)}
        return answer_text(f"[{','.join(map(trade_text, trades))}]", headers=headers)


def trade_text(trade: MarketTrade) -> str:
    """A trade as /trades writes it: eight digits behind the point, the maker's side."""
    return (
        f'{{"time":"{iso(trade.time_us)}","trade_id":{trade.trade_id},'
        f'"price":"{fixed(trade.price, 8)}","size":"{fixed(trade.size, 8)}","side":"{MAKER[trade.side]}"}}'
    )
