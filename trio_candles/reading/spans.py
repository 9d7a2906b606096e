"""``coverage``: the ledger as a table, each minute of each series in exactly one of its spans."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pyarrow as pa

from trio_candles.candles.model import DAY, MINUTE, floor_to
from trio_candles.candles.times import Moment, unix_ms
from trio_candles.reading.columns import SPANS, STORED_CODE, Columns, Said, Whose
from trio_candles.reading.errors import LedgerUnreadable, check_texts, senseless_values
from trio_candles.reading.ledger import Account, Ledger, open_ledger

__all__ = ["SPANS", "coverage"]


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
    are as in ``read_candles``, and spans are clipped to them, in whole minutes. Neighbours that say the same are one
    span. Texts are dictionary-encoded: a span takes at most 50 bytes, and a thin pair has 500,000 a year.

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
    columns = Columns()
    with open_ledger(Path(data_dir)) as ledger, senseless_values():
        for account in ledger.find(venue, symbol):
            known = VENUES.get(account.series.venue)
            columns.begin(
                Whose(account.series.venue, account.series.symbol, None if known is None else known.grade.value)
            )
            low = max(since, account.first)
            high = account.mark if until is None else min(until, account.mark)
            if low < high:
                _add_spans(columns, ledger, account, low, high)
                columns.end(high)
        return columns.table()


def _add_spans(columns: Columns, ledger: Ledger, account: Account, since: int, until: int) -> None:
    """``[since, until)`` of *account*, oldest first; minutes of which the ledger notes nothing are stored."""
    noted, at = _noted(columns, ledger, account, since, until), since
    for day, letters, evidence in ledger.sealed_minutes(account, since, until):
        low, high = max(day, since), min(day + DAY, until)
        _add_open_days(columns, account, noted, at, low)
        if noted and noted[-1][0] < high:
            raise _two_things(account, noted[-1][0])
        columns.add_day(day, letters, evidence, low, high)
        at = high
    _add_open_days(columns, account, noted, at, until)


_Noted = tuple[int, int, int]
"""``since``, ``until``, and the code of what the ledger has noted of these minutes."""


def _add_open_days(columns: Columns, account: Account, noted: list[_Noted], at: int, until: int) -> None:
    """``[at, until)``, in which no day is sealed; takes those of *noted* that begin before *until* from its end."""
    while noted and noted[-1][0] < until:
        low, high, code = noted.pop()
        if high > until:
            raise _two_things(account, until)
        if at < low:
            columns.add(at, STORED_CODE)
        columns.add(low, code)
        at = high
    if at < until:
        columns.add(at, STORED_CODE)


def _noted(columns: Columns, ledger: Ledger, account: Account, since: int, until: int) -> list[_Noted]:
    """What the ledger has noted of minutes of open days in ``[since, until)``; the oldest last."""
    found = [
        (low, high, columns.code(Said("empty", detail=evidence)))
        for low, high, evidence in ledger.empties_of_open_days(account, since, until)
    ]
    for gap in ledger.gaps_of_open_days(account, since, until):
        state = "gap" if gap.state == "open" else gap.state
        said = Said(state, gap.reason, gap.detail, gap.attempts, gap.first_seen, gap.last_error)
        found.append((gap.since, gap.until, columns.code(said)))
    clipped = ((max(low, since), min(high, until), code) for low, high, code in found)
    noted = sorted(one for one in clipped if one[0] < one[1])
    for (_, end, _), (low, _, _) in pairwise(noted):
        if low < end:
            raise _two_things(account, low)
    return noted[::-1]


def _two_things(account: Account, minute: int) -> LedgerUnreadable:
    return LedgerUnreadable(f"{account.series}: the ledger says two things of minute {minute}; run the audit")
