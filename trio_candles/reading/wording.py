"""The grounds of a verdict in words, for a person; each is a whole sentence without its full stop."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from trio_candles.candles.model import MINUTE, Reason, utc_text

__all__ = ["FEED_PROVED", "GAP_REASONS", "minutes_text", "time_text", "with_times"]

FEED_PROVED: Mapping[str | None, str] = MappingProxyType(
    {
        "ids": "the feed proved it: trade ids, or counts of them, show that no trade of the minute is missing",
        "stated": "the venue's feed said that the minute is closed",
        "compared": "what the feed brought without interruption equals the venue's settled row",
        None: "the feed brought it",
    }
)
"""By the grade of the venue."""

GAP_REASONS: Mapping[str, str] = MappingProxyType(
    {
        Reason.NOT_COLLECTED: "it lies before the first start: it is expected because of the look-back, and nobody was"
        " listening",
        Reason.COLLECTOR_DOWN: "no collector was running",
        Reason.DISCONNECTED: "there was no connection for the whole of the minute, or one was lost or made in it",
        Reason.UNPROVEN: "the feed was connected throughout, and nothing proves yet that no trade is missing",
        Reason.MISSING_TRADES: "trade ids jumped: the venue's feed left something out",
        Reason.NO_CLOSE: "the venue states its closes, and has not stated this one",
        Reason.REFUSED: "the venue refused the subscription, or never acknowledged it",
        Reason.SUSPECT: "the venue itself said that its feed is not to be trusted",
        Reason.REJECTED: "a candle came and broke a rule, or could not be read",
        Reason.OVERFLOW: "more verdicts waited for the disk than there is room for, and this one was given up",
        Reason.CORRUPT: "the day file that had the minute did not match its digest, and is in quarantine",
        Reason.LEDGER_LOST: "the ledger was missing or unreadable and was rebuilt; nothing sound says what was here",
    }
)


def time_text(time: int) -> str:
    """*time* (Unix ms) as ``2026-01-10 12:00:00 UTC``."""
    return f"{utc_text(time)} UTC"


def minutes_text(since: int, until: int) -> str:
    """``[since, until)`` as ``1 minute`` or ``3 minutes, 2026-01-10 12:00 to 12:03``."""
    count = (until - since) // MINUTE
    if count == 1:
        return "this minute alone"
    low, high = utc_text(since)[:16], utc_text(until)[:16]
    return f"{count:,} minutes, {low} to {high[11:] if low[:10] == high[:10] else high}"


def with_times(text: str) -> str:
    """*text* with each ``(at 1768046400000)``, as the ledger notes observations, as a time that a person reads."""
    return re.sub(r"\(at (\d{12,14})\)", lambda found: f"(at {time_text(int(found[1]))})", text)
