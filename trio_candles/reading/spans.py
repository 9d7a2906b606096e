"""``coverage``: the ledger as a table, each minute of each series in exactly one of its spans."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa

from trio_candles.candles.intervals import cover
from trio_candles.candles.model import MINUTE, floor_to
from trio_candles.candles.times import Moment, unix_ms
from trio_candles.reading.errors import LedgerUnreadable, check_texts, senseless_values
from trio_candles.reading.ledger import Account, Ledger, open_ledger

__all__ = ["SPANS", "coverage"]

_FIELDS: list[pa.Field[pa.DataType]] = [
    pa.field("venue", pa.string(), nullable=False),
    pa.field("symbol", pa.string(), nullable=False),
    pa.field("since_ms", pa.int64(), nullable=False),
    pa.field("until_ms", pa.int64(), nullable=False),
    pa.field("state", pa.string(), nullable=False),
    pa.field("reason", pa.string()),
    pa.field("detail", pa.string()),
    pa.field("attempts", pa.int64()),
    pa.field("first_seen_ms", pa.int64()),
    pa.field("last_error", pa.string()),
    pa.field("grade", pa.string()),
]
SPANS = pa.schema(_FIELDS)
"""The columns of :func:`coverage`; ``grade`` is a :class:`~trio_candles.venues.venue.Grade`."""

_Noted = tuple[int, int, dict[str, Any]]
"""``since``, ``until``, and what the ledger has noted of these minutes, as the columns of a span."""


def coverage(
    data_dir: str | Path,
    venue: str | None = None,
    symbol: str | None = None,
    start: Moment | None = None,
    end: Moment | None = None,
) -> pa.Table:
    """What each minute is, by the ledger: half-open spans that cover every series from its first expected minute to
    the newest accounted one, each minute exactly once, sorted by venue, symbol and time.

    ``state`` is ``stored``, ``empty`` (``detail`` is the evidence), ``gap`` or ``unfillable`` (with ``reason``,
    ``detail``, ``attempts``, ``first_seen_ms`` and ``last_error``). ``grade`` says what makes the venue's live minutes
    certain: ``ids``, ``stated`` or ``compared``; null for a venue that this version does not know. *start* and *end*
    are as in ``read_candles``, and spans are clipped to them, in whole minutes.

    Day files are not opened: whether their rows are there is checked by ``read_candles``, for what it reads, and by the
    audit, for all. Raises :class:`~trio_candles.reading.errors.ReadError`, and ``ValueError`` if *start* is after
    *end*.
    """
    from trio_candles.venues.registry import VENUES  # takes 100 ms, which whoever reads candles only should not pay for

    check_texts(**{name: one for name, one in {"venue": venue, "symbol": symbol}.items() if one is not None})
    since = 0 if start is None else floor_to(unix_ms(start), MINUTE)
    until = None if end is None else floor_to(unix_ms(end) + MINUTE - 1, MINUTE)
    if until is not None and since > until:
        raise ValueError(f"start {start!r} is after end {end!r}")
    rows: list[dict[str, Any]] = []
    with open_ledger(Path(data_dir)) as ledger, senseless_values():
        for account in ledger.find(venue, symbol):
            low = max(since, account.first)
            high = account.mark if until is None else min(until, account.mark)
            known = VENUES.get(account.series.venue)
            series = {
                "venue": account.series.venue,
                "symbol": account.series.symbol,
                "grade": known and known.grade.value,
            }
            rows += ({**series, **span} for span in _spans(ledger, account, low, high))
        return pa.Table.from_pylist(rows, schema=SPANS)


def _spans(ledger: Ledger, account: Account, since: int, until: int) -> Iterator[dict[str, Any]]:
    """``[since, until)`` of *account* in spans, oldest first; minutes of which the ledger notes nothing are stored."""
    clipped = ((max(low, since), min(high, until), rest) for low, high, rest in _noted(ledger, account, since, until))
    noted = sorted((one for one in clipped if one[0] < one[1]), key=lambda one: one[:2])
    for (_, end, _), (low, _, _) in pairwise(noted):
        if low < end:
            raise LedgerUnreadable(f"{account.series}: the ledger says two things of minute {low}; run the audit")
    by_begin = {low: columns for low, _, columns in noted}
    for (low, high), is_noted in cover(((low, high) for low, high, _ in noted), since, until):
        yield {"since_ms": low, "until_ms": high, **(by_begin[low] if is_noted else {"state": "stored"})}


def _noted(ledger: Ledger, account: Account, since: int, until: int) -> Iterator[_Noted]:
    """Gaps and empty spans that touch ``[since, until)``."""
    for low, high, evidence in ledger.empties(account, since, until):
        yield low, high, {"state": "empty", "detail": evidence}
    for gap in ledger.gaps(account, since, until):
        columns = {
            "state": "gap" if gap.state == "open" else gap.state,
            "reason": gap.reason,
            "detail": gap.detail,
            "attempts": gap.attempts,
            "first_seen_ms": gap.first_seen,
            "last_error": gap.last_error,
        }
        yield gap.since, gap.until, columns
