"""The old days of an earlier version's journal are sealed by the ledger alone, so that no later start looks at them.

The SQL of an upgrade (:data:`.schema.UPGRADES`) lets every day be open, and notes ``UNSEALED``. Then the days that are
over and known are sealed, a batch a transaction: an interruption leaves the other days open and the note in place, and
the next start goes on. Their files get the account later, in the background (``Flusher.finish``); until then the row of
such a day has a ``shape`` without ``account``.

No clock is believed yet, so a day is over if the newest candle of its series came after it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from trio_candles.candles.model import DAY, Millis, Series
from trio_candles.store.accounts import SealedDay, shape_of
from trio_candles.store.journal import Journal
from trio_candles.store.opening import GoOn
from trio_candles.store.schema import TIMEFRAMES, UNMENDED, UNSEALED
from trio_candles.store.sealed import path_of

__all__ = ["seal_old_days"]

AT_ONCE = 200
"""Days in one transaction: between two of them a start can be stopped."""


def seal_old_days(
    journal: Journal, timeframes_of: Callable[[Series], Sequence[str]], go_on: GoOn, at_once: int = AT_ONCE
) -> None:
    """Seal what can be sealed, once after an upgrade. *timeframes_of* gives the higher timeframes of which a series may
    have files; *go_on* is called before each batch of *at_once* days, and may raise.
    """
    meta = journal.meta()
    if UNSEALED not in meta:
        return
    configured = [name for name in meta.get(TIMEFRAMES, "").split(",") if name]
    ends = journal.newest_candles()
    days = [(series, day) for series, day in journal.open_days() if series in ends and day + DAY <= ends[series]]
    for number in range(0, len(days), at_once):
        batch = days[number : number + at_once]
        go_on("Sealing the days of an earlier version", number, len(days))
        found = []
        for series, day in batch:
            one = _as_sealed(journal, series, day, configured, timeframes_of(series), ends[series])
            if one is not None and (UNMENDED not in meta or one.account.gap is None):
                found.append(one)
        journal.replaced([], sealed=found, now=Millis(0))
    journal.remember(**{UNSEALED: None})


def _as_sealed(
    journal: Journal, series: Series, day: Millis, configured: Sequence[str], timeframes: Sequence[str], now: Millis
) -> SealedDay | None:
    account = journal.sealing.account(series, day, timeframes, now, filling=True)
    if account is None:
        return None
    paths = {name: path_of(series, day, name) for name in {"1m", *configured, *timeframes}}
    digests = {name: digest for name, path in paths.items() if (digest := journal.digest(path)[0]) is not None}
    if "1m" not in digests and account.count("c"):
        return None
    return SealedDay(account, digests, shape_of([*configured, *digests], in_file=False))
