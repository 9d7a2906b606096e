"""Kraken's REST API: OHLC, trades, asset pairs, time and status."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import attrs

from ..limits import TokenBucket
from ..market import MINUTE_MS
from ..text import Request, Response, answer_json, answer_text, fixed, iso, parse_decimal, parse_whole
from .feed import average

if TYPE_CHECKING:
    from ..faults import Faults
    from ..market import MarketTrade, VenueMarket

COMMITTED_ROWS = 720
MOST_TRADES = 1000
CACHED_SECONDS = 2
# Listed by another venue under the same roof, under the names of pairs that trade here.
TWINS = ("BTC/USD", "ZEC/USD")
DARK = ("BTC/USD", "ETH/USD")
# Above this a "since" is in nanoseconds.
NANOSECONDS_FROM = 10**15

# Kraken's own names: where both sides have an old one, the canonical pair is made of these.
OLD_ASSETS = {
    "BTC": "XXBT", "ETH": "XETH", "XRP": "XXRP", "LTC": "XLTC", "ZEC": "XZEC", "XLM": "XXLM", "ETC": "XETC",
}  # fmt: skip
OLD_QUOTES = {"USD": "ZUSD", "EUR": "ZEUR", "GBP": "ZGBP", "BTC": "XXBT"}
ALIASES = {"BTC": "XBT", "DOGE": "XDG"}


@attrs.frozen
class Pair:
    """One market and its many names."""

    symbol: str
    #: XBTUSD
    altname: str
    #: XXBTZUSD, the key of every answer.
    canonical: str
    #: XBT/USD, which the WebSocket API v2 does not accept.
    wsname: str


def cached_seconds(request: Request) -> int:
    """For how long the answer to a request is repeated, whatever it is about."""
    return CACHED_SECONDS


def make_pair(symbol: str) -> Pair:
    """The names of a pair written as in BTC/USD."""
    base, quote = symbol.split("/")
    old_base, old_quote = ALIASES.get(base, base), ALIASES.get(quote, quote)
    canonical = old_base + old_quote
    if base in OLD_ASSETS and quote in OLD_QUOTES:
        canonical = OLD_ASSETS[base] + OLD_QUOTES[quote]
    return Pair(symbol, old_base + old_quote, canonical, f"{old_base}/{old_quote}")


@attrs.define(eq=False)
class KrakenRest:
    """Answers requests at a given moment."""

    market: VenueMarket
    faults: Faults
    _bucket: TokenBucket = attrs.Factory(lambda: TokenBucket(per_second=1, burst=15))
    _pairs: dict[str, Pair] = attrs.Factory(dict)

    def __attrs_post_init__(self) -> None:
        """Enter every pair under each of its names."""
        for symbol in self.market.symbols:
            pair = make_pair(symbol)
            for name in (pair.symbol, pair.altname, pair.canonical, pair.wsname):
                self._pairs[name] = pair

    def within_limits(self, request: Request, now_ms: int) -> bool:
        """Whether the request may be answered; one a second, fifteen at once."""
        return self._bucket.take(now_ms)

    def throttled(self) -> Response:
        """What a client that asks too often gets: HTTP 200."""
        return failure("EGeneral:Too many requests")

    def overrun(self) -> Response:
        """The same, for the fault of that name."""
        return failure("EAPI:Rate limit exceeded", result=None)

    def busy(self) -> Response:
        """What everybody gets when the service is unwell: HTTP 200."""
        return failure("EService:Unavailable", result=None)

    def misdirect(self, request: Request) -> Request:
        """The same question about another pair."""
        other = "XETHZUSD" if self._pairs.get(request.query.get("pair", "")) is not self._pairs[
            "XETHZUSD"
        ] else "XXBTZUSD"  # fmt: skip
        return attrs.evolve(request, query=request.query | {"pair": other})

    def answer(self, request: Request, now_ms: int) -> Response:
        """The answer; what is wrong is a text in it."""
        second = now_ms // 1000
        match request.path.strip("/").split("/"):
            case ["0", "public", "Time"]:
                text = datetime.fromtimestamp(second, UTC).strftime("%a, %d %b %y %H:%M:%S +0000")
                return success({"unixtime": second, "rfc1123": text})
            case ["0", "public", "SystemStatus"]:
                now_text = iso(second * 1_000_000)[:-8] + "Z"
                return success({"status": self.faults.system, "timestamp": now_text})
            case ["0", "public", "AssetPairs"]:
                return self._asset_pairs(request)
            case ["0", "public", "OHLC" | "Trades" as question]:
                pair = self._pairs.get(request.query.get("pair", ""))
                if pair is None:
                    return failure("EQuery:Unknown asset pair")
                if question == "OHLC":
                    return self._ohlc(pair, request, now_ms)
                return self._trades(pair, request, now_ms)
        return failure("EGeneral:Unknown method")

    def _asset_pairs(self, request: Request) -> Response:
        names = request.query["pair"].split(",") if "pair" in request.query else None
        if names is not None and not all(name in self._pairs for name in names):
            return failure("EQuery:Unknown asset pair")
        pairs = self._pairs.values() if names is None else [self._pairs[name] for name in names]
        described = {pair.canonical: self._describe(pair) for pair in pairs}
        if names is None:
            for symbol in DARK:
                pair = self._pairs[symbol]
                dark = self._describe(pair) | {"altname": f"{pair.altname}.d"}
                del dark["wsname"]
                described[f"{pair.canonical}.d"] = dark
            for symbol in TWINS:
                name = f"{self._pairs[symbol].altname}:BTNL"
                twin = {"altname": name, "status": "delisted", "execution_venue": "bitnomial_exchange"}
                described[name] = self._describe(self._pairs[symbol]) | twin
        return success(described)

    def _describe(self, pair: Pair) -> dict[str, object]:
        instrument = self.market.instrument(pair.symbol)
        decimals = -instrument.tick_exponent
        return {
            "altname": pair.altname,
            "wsname": pair.wsname,
            "aclass_base": "currency",
            "base": OLD_ASSETS.get(instrument.base, ALIASES.get(instrument.base, instrument.base)),
            "aclass_quote": "currency",
            "quote": OLD_QUOTES.get(instrument.quote, instrument.quote),
            "pair_decimals": decimals,
            "lot_decimals": 8,
            "cost_decimals": 5,
            "ordermin": "0.0001",
            "costmin": "0.5",
            "tick_size": f"{10.0**instrument.tick_exponent:.{decimals}f}",
            "status": "delisted" if pair.symbol in self.faults.delisted_symbols else "online",
            "execution_venue": "international",
        }

    def _ohlc(self, pair: Pair, request: Request, now_ms: int) -> Response:
        """The newest 720 committed rows and the forming one; minutes without trades are zero rows."""
        query = request.query
        since = parse_whole(query.get("since", "0"))
        if query.get("interval", "1") != "1" or since is None:
            return failure("EGeneral:Invalid arguments")
        since += self.faults.is_set("since_exclusive")
        forming = now_ms // MINUTE_MS * 60
        rows, visible = [], self.market.first_id_from(pair.symbol, now_ms * 1000)
        oldest = max(forming - COMMITTED_ROWS * 60, -(-since // 60) * 60)
        for second in range(oldest, forming + 1, 60):
            if self.faults.holds("lose_row", pair.symbol, second * 1000):
                continue
            row = self._row(pair, second * 1000, visible)
            if second < forming and self._is_denied(pair, second * 1000):
                row = self._zero_row(pair, second)
            if row is not None:
                rows.append(self.faults.row(pair.symbol, second * 1000, row))
        last = forming if self.faults.last_is_forming else forming - 60
        return answer_text(f'{{"error":[],"result":{{"{pair.canonical}":[{",".join(rows)}],"last":{last}}}}}')

    def _is_denied(self, pair: Pair, minute_ms: int) -> bool:
        """Whether a minute that had trades is to be answered as if there had been none."""
        if self.faults.zero_row is None or self.market.candle(pair.symbol, minute_ms) is None:
            return False
        return self.faults.holds("zero_row", pair.symbol, minute_ms)

    def _zero_row(self, pair: Pair, second: int) -> str:
        """What a minute with trades has instead of its row: zeros, or another price than the close before it."""
        price = "0"
        if second // 60 % 2:
            candle = self.market.candle(pair.symbol, second * 1000)
            assert candle is not None
            price = f"{candle.open * 2:f}"
        prices = ",".join([f'"{price}"'] * 4)
        return f'[{second},{prices},"0","0.00000000",0]'

    def _row(self, pair: Pair, minute_ms: int, visible: int) -> str | None:
        tick_exponent = self.market.instrument(pair.symbol).tick_exponent
        second = minute_ms // 1000
        candle = self.faults.recorded(pair.symbol, self.market.candle_until(pair.symbol, minute_ms, visible))
        if candle is not None:
            prices = f'"{candle.open:f}","{candle.high:f}","{candle.low:f}","{candle.close:f}"'
            vwap = f"{average(candle, tick_exponent):f}"
            return f'[{second},{prices},"{vwap}","{candle.volume:.8f}",{candle.trades_count}]'
        if self.faults.is_set("omit_empty_rows"):
            return None
        before = self.market.first_id_from(pair.symbol, minute_ms * 1000) - 1
        if not before:
            return None
        close = f'"{self.market.trade(pair.symbol, before).price:f}"'
        return f'[{second},{close},{close},{close},{close},"{0:.{-tick_exponent}f}","0.00000000",0]'

    def _trades(self, pair: Pair, request: Request, now_ms: int) -> Response:
        """Oldest first from "since" on, so that the next page repeats the last trade of this one."""
        query = request.query
        count = parse_whole(query.get("count", str(MOST_TRADES)))
        since = parse_decimal(query["since"]) if "since" in query else None
        if count is None or not 1 <= count <= MOST_TRADES or (since is None and "since" in query):
            return failure("EGeneral:Invalid arguments")
        market = self.market
        end = market.first_id_from(pair.symbol, now_ms * 1000)
        if since is None:
            first, last = max(end - count, 1), now_ms * 1_000_000
        else:
            last = int(since if since >= NANOSECONDS_FROM else since * 10**9)
            nanoseconds = last + 1 if self.faults.since_exclusive else last
            first = market.first_id_from(pair.symbol, max(-(-nanoseconds // 1000), 0))
        ids = range(first, min(first + count, end))
        lost = self.faults.holds
        trades = [market.trade(pair.symbol, i) for i in ids if not lost("lose_trade", pair.symbol, i)]
        if trades:
            last = trades[-1].time_us * 1000
        more = ',""]' if self.faults.is_set("extra_columns") else "]"
        rows = ",".join(trade_text(trade)[:-1] + more for trade in trades)
        return answer_text(f'{{"error":[],"result":{{"{pair.canonical}":[{rows}],"last":"{last}"}}}}')


def trade_text(trade: MarketTrade) -> str:
    """Price, volume, seconds as a float, side, kind, nothing, id."""
    kind = "m" if trade.trade_id % 3 else "l"
    seconds = f"{trade.time_us // 1_000_000}.{trade.time_us % 1_000_000:06}"
    return (
        f'["{fixed(trade.price, 5)}","{fixed(trade.size, 8)}",{seconds},"{trade.side[0]}","{kind}","",{trade.trade_id}]'
    )


def success(result: object) -> Response:
    """An answer without an error."""
    return answer_json({"error": [], "result": result})


def failure(error: str, **more: object) -> Response:
    """An error, which is HTTP 200; with a result that is null, or without."""
    return answer_json({"error": [error], **more})
