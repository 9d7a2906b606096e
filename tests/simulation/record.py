"""The venues' REST records, as spoiled for good as the plan says: rows and trades that they lack, rows that differ.

A pure function of the plan, so that the oracle knows what the venues hide without asking them.
"""

from __future__ import annotations

from zlib import crc32

import attrs

from simulation.plan import MINUTE, Plan
from trio_candles.simulator import FOREVER, Faults, Market, RestFault

__all__ = ["KNOBS", "Record"]

KNOBS = ("lose_row", "revise_row", "lose_trade", "odd_row", "zero_row", "omit_empty_rows", "extra_columns")
"""What of a venue's faults is its record, and stays when the troubles end."""
ROWS_OF_KRAKEN = 700 * MINUTE
"""How old a minute is, at most, whose row this venue is asked for: it has rows of twenty minutes more."""
GRACE = 1_000
"""Ms by which trades beside a minute may be needed to prove it."""


@attrs.frozen
class Record:
    """What of each venue's record is not as it was."""

    plan: Plan

    def _is_among(self, kind: str, venue: str, symbol: str, number: int) -> bool:
        share = self.plan.holes.get(kind, 0.0)
        return crc32(f"{self.plan.seed}|{kind}|{venue}|{symbol}|{number}".encode()) < share * (1 << 32)

    def is_stuck(self, venue: str, symbol: str) -> bool:
        """Whether nothing that is answered about *symbol* can be understood."""
        return symbol in self.plan.stuck.get(venue, ())

    def lost_row(self, venue: str, symbol: str, minute: int) -> bool:
        """Candles have no row of *minute* that says anything: none at all, an odd one, one that denies its trades."""
        kinds = ("lost_rows", "odd_rows", *(("zero_rows",) if venue == "kraken" else ()))
        return self.is_stuck(venue, symbol) or any(self._is_among(kind, venue, symbol, minute) for kind in kinds)

    def revised_row(self, venue: str, symbol: str, minute: int) -> bool:
        """Candles give *minute* twice its volume."""
        return self._is_among("revised_rows", venue, symbol, minute) and not self.lost_row(venue, symbol, minute)

    def lost_trade(self, venue: str, symbol: str, trade_id: int) -> bool:
        """Trades leave *trade_id* out; not the first one of all, which says when the market began."""
        if self.is_stuck(venue, symbol):
            return True
        return trade_id > 1 and self._is_among("lost_trades", venue, symbol, trade_id)

    def omits_empty_rows(self, venue: str) -> bool:
        """Whether minutes without trades have no row."""
        return venue == "coinbase" or (venue == "kraken" and "omitted_rows" in self.plan.holes)

    def spoil(self, venue: str, faults: Faults) -> None:
        """Let *venue*'s record be so."""
        if "lost_rows" in self.plan.holes:
            faults.lose_row = lambda symbol, minute: self._is_among("lost_rows", venue, symbol, minute)
        if "odd_rows" in self.plan.holes:
            faults.odd_row = lambda symbol, minute: self._is_among("odd_rows", venue, symbol, minute)
        if "zero_rows" in self.plan.holes:
            faults.zero_row = lambda symbol, minute: self._is_among("zero_rows", venue, symbol, minute)
        faults.omit_empty_rows = "omitted_rows" in self.plan.holes
        faults.extra_columns = "extra_columns" in self.plan.holes
        kind = ("empty", "truncated", "html")[self.plan.seed % 3]
        for symbol in self.plan.stuck.get(venue, ()):
            faults.rest.append(RestFault(kind, question_about(venue, symbol), FOREVER))  # type: ignore[arg-type]
        if "revised_rows" in self.plan.holes:
            faults.revise_row = lambda symbol, minute: self.revised_row(venue, symbol, minute)
        if "lost_trades" in self.plan.holes:
            faults.lose_trade = lambda symbol, trade_id: self.lost_trade(venue, symbol, trade_id)

    def hides(self, market: Market, venue: str, symbol: str, minute: int, now: int) -> bool:
        """Whether the record does not tell at *now* what *minute* was: neither by its row nor by contiguous trades."""
        has_row = not self.lost_row(venue, symbol, minute) and (venue != "kraken" or minute >= now - ROWS_OF_KRAKEN)
        if venue == "okx":  # which has flat rows, but none before the first trade of all
            return not has_row or market.first_id_from(venue, symbol, (minute + MINUTE) * 1000) == 1
        if has_row and market.candle(venue, symbol, minute) is not None:
            # Nothing at Coinbase says that a row is settled but a later one, of the ten minutes asked for besides; and
            # not the one that opens as the minute ends.
            later = range(minute + 2 * MINUTE, minute + 11 * MINUTE, MINUTE)
            rows = (not self.lost_row(venue, symbol, one) and market.candle(venue, symbol, one) for one in later)
            if venue != "coinbase" or any(rows):
                return False
        first = market.first_id_from(venue, symbol, (minute - GRACE) * 1000) - 1
        last = market.first_id_from(venue, symbol, (minute + MINUTE + GRACE) * 1000)
        return any(self.lost_trade(venue, symbol, trade_id) for trade_id in range(first, last + 1))

    def contradicts_itself(self, venue: str, symbol: str, minute: int) -> bool:
        """Whether row and trades of *minute* tell two things: who has heard both believes neither."""
        return venue != "okx" and self.revised_row(venue, symbol, minute)


def question_about(venue: str, symbol: str) -> str:
    """What every question to REST about *symbol* has in it."""
    match venue:
        case "coinbase":
            return f"/products/{symbol}/"
        case "kraken":
            return f"pair={symbol.replace('BTC', 'XBT').replace('/', '')}"
        case _:
            return f"instId={symbol}"
