"""Events of a feed about a series -> one verdict for every minute of it; what is not proven is ``Unsure``.

Three ways to prove a minute, one class each; what they share is :class:`Assembler`, which gives every minute
its first verdict in order and exactly once:

=================== =================================== ==============================================
class               the venue                           a minute is certain when
=================== =================================== ==============================================
FromTrades          sends trades, and heartbeats that   ids are contiguous from a trade before the
                    name the newest id                  minute to a trade or heartbeat after it
FromCountedRows     sends rows that count their         the ids between a trade before and a trade
                    trades, and trade ids               after are as many as the row counted
FromStatedCloses    sends rows that say "closed"        the row says so
=================== =================================== ==============================================

No class takes a clock or a connection for a proof: ids that are contiguous across a lost connection prove the
minutes in which it was lost and restored, and ids that jump on a healthy connection prove nothing.
The clock only decides when to stop waiting for a first verdict (:data:`SETTLE`): such a minute is ``Unsure``,
and a later proof may still make it a candle.
"""

from __future__ import annotations

from collections.abc import Callable

from trio_candles.assembly.base import AHEAD, BEGINNING, SETTLE, Assembler, Outcome, Rejected, Remark
from trio_candles.assembly.counted import FromCountedRows
from trio_candles.assembly.stated import FromStatedCloses
from trio_candles.assembly.trades import FromTrades
from trio_candles.candles.model import Millis, Series
from trio_candles.venues.protocol import Proof

__all__ = [
    "AHEAD",
    "SETTLE",
    "Assembler",
    "FromCountedRows",
    "FromStatedCloses",
    "FromTrades",
    "Outcome",
    "Rejected",
    "Remark",
    "assembler_for",
]

_ASSEMBLERS: dict[Proof, Callable[[Series, Millis, Millis], Assembler]] = {
    Proof.TRADE_IDS: FromTrades,
    Proof.COUNTED_ROWS: FromCountedRows,
    Proof.STATED_CLOSES: FromStatedCloses,
}


def assembler_for(proof: Proof, series: Series, frontier: Millis, earliest: Millis = BEGINNING) -> Assembler:
    """An assembler for *series* that proves minutes by *proof*, and owes first verdicts from the minute *frontier* on.

    It passes on later proofs of older minutes too, back to the minute *earliest*.
    """
    return _ASSEMBLERS[proof](series, frontier, earliest)
