"""The journal and the ledger as the audit sees them: one consistent reading, of which nothing is taken for granted.

SQLite checks no types, and a ledger that somebody broke need not keep its constraints: each value is checked.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from zlib import crc32

import attrs
import pyarrow as pa

from trio_candles.audit.bits import LATEST, days_of, span_bits
from trio_candles.audit.report import KnownGap, Violation
from trio_candles.candles.model import DAY, MINUTE, Series, Timeframe, canonical_symbol
from trio_candles.store.schema import COLUMNS, FORMAT, JOURNAL, TIMEFRAMES, UNCHECKED, UPGRADES
from trio_candles.store.snapshot import open_snapshot

__all__ = ["Account", "Ledger", "read_ledger"]

REASONS = frozenset(
    (
        "not_collected", "collector_down", "disconnected", "unproven", "missing_trades", "no_close", "refused",
        "suspect", "rejected", "overflow", "corrupt", "ledger_lost",
    )
)  # fmt: skip
"""The values of :class:`~trio_candles.candles.model.Reason`, spelt once more: the audit does not ask who writes
them."""
BEFORE_FOLDERS = ("1", "2", "3")
"""Formats of the journal in which a series' symbol alone tells its folder."""
_LISTED_SINGLY = 20
"""Complaints of one sort about one series that are listed singly: a ruined table is not 1,000 findings."""


@attrs.define
class Account:
    """What the ledger says of one 1m series. Minutes are bits by day (:mod:`trio_candles.audit.bits`)."""

    series: Series
    first: int
    mark: int
    expected: bool
    happened: int = LATEST
    """The end of the newest minute that has happened: a clock that was ahead may have left gaps and empty minutes that
    have not, which say nothing. A mark may be later."""
    open_gap: dict[int, int] = attrs.field(factory=dict)
    unfillable: dict[int, int] = attrs.field(factory=dict)
    empty: dict[int, int] = attrs.field(factory=dict)
    underived: dict[int, int] = attrs.field(factory=dict)
    """Minutes whose aggregates are to follow at a flush."""
    listed: int = 0
    """When the market began: no minute before is expected, and aggregates count such minutes as empty."""
    journal: dict[int, pa.Table] = attrs.field(factory=dict)
    """Day -> accepted candles that are in no day file yet, shaped as a day file's rows."""
    replaced: dict[int, Sequence[float]] = attrs.field(factory=dict)
    """Minute -> open, high, low, close and volume that it is on record to have now, whatever the day file has."""

    def end(self, running: bool, now: int) -> int:
        """The end of what must be accounted for: the mark, as far as it has happened; beside a collector at least the
        time two minutes ago.
        """
        end = max(self.first, min(self.mark, self.happened))
        if not (running and self.expected):
            return end
        return max(end, min(now, LATEST) // MINUTE * MINUTE - 2 * MINUTE)

    def days(self, end: int) -> set[int]:
        """Every day up to *end* that this account covers, and every other of which it holds anything."""
        noted = (self.open_gap, self.unfillable, self.empty, self.journal)
        return {*days_of(self.first, end), *(day for by_day in noted for day in by_day)}


@attrs.define
class Ledger:
    """One reading of the whole data base."""

    exists: bool = True
    usable: bool = False
    """Whether the day files can be held against it."""
    accounts: dict[tuple[str, str], Account] = attrs.field(factory=dict)
    """By venue and folder."""
    files: dict[str, tuple[str | None, str | None]] = attrs.field(factory=dict)
    """Path -> digest and pending digest."""
    gaps: list[KnownGap] = attrs.field(factory=list)
    meta: dict[str, str] = attrs.field(factory=dict)
    problems: list[Violation] = attrs.field(factory=list)

    def blame(
        self, detail: str, series: Series | None = None, start: int | None = None, end: int | None = None
    ) -> None:
        """Note that the ledger is corrupt."""
        where = {} if series is None else dict(venue=series.venue, symbol=series.symbol, timeframe=series.timeframe)
        self.problems.append(Violation("ledger_corrupt", JOURNAL, detail, **where, start_ms=start, end_ms=end))

    @property
    def timeframes(self) -> tuple[str, ...]:
        """The higher timeframes that the collector derives."""
        names = self.meta.get(TIMEFRAMES, "").split(",")
        return tuple(name for name in names if _is_timeframe(name) and name != "1m")

    @property
    def stopped_at(self) -> int | None:
        """When the last collector stopped; after a crash, how far it had accounted."""
        stopped = self.meta.get("stopped_at_ms", "")
        if stopped.isascii() and stopped.isdigit():
            return int(stopped)
        return max((account.end(False, 0) for account in self.accounts.values()), default=None)


def read_ledger(data_dir: Path, now: Callable[[], int]) -> Ledger:
    """The whole ledger, read in one transaction; what is wrong with it is in its ``problems``, and never raised.

    *now* gives Unix ms, and is called once the transaction has begun: no gap and no empty minute counts that is later.
    """
    path = data_dir / JOURNAL
    if not path.exists():
        return Ledger(exists=False)
    ledger = Ledger()
    try:
        with open_snapshot(path) as database:
            _read(database, ledger, min(max(now(), 0), LATEST) // MINUTE * MINUTE)
    except (sqlite3.Error, OSError) as error:
        ledger = Ledger()
        ledger.blame(f"the journal cannot be read: {error}")
    return ledger


def _read(database: sqlite3.Connection, ledger: Ledger, happened: int) -> None:
    for (line,) in database.execute("PRAGMA quick_check(10)").fetchall():
        if line != "ok":
            ledger.blame(f"quick_check: {line}")
    ledger.meta = {str(key): str(value) for key, value in database.execute("SELECT key, value FROM meta")}
    if ledger.meta.get("format") not in (FORMAT, *UPGRADES):
        ledger.blame(f"the journal's format is {ledger.meta.get('format')!r}, not {FORMAT!r}")
        return
    by_id = _read_series(database, ledger, happened)
    _read_gaps(database, ledger, by_id)
    _read_empties(database, ledger, by_id)
    _read_journal(database, ledger, by_id)
    if ledger.meta["format"] != "1":
        _read_derivation(database, ledger, by_id)
    for path, digest, pending in database.execute("SELECT path, digest, pending FROM day_file"):
        ledger.files[str(path)] = (digest, pending)
    ledger.usable = True


def _read_series(database: sqlite3.Connection, ledger: Ledger, happened: int) -> dict[int, Account]:
    by_id = {}
    folder = "folder" if ledger.meta["format"] not in BEFORE_FOLDERS else "NULL"
    rows = database.execute(f"SELECT id, venue, symbol, timeframe, {folder}, first_ms, mark_ms, expected FROM series")
    for id_, venue, symbol, timeframe, folder, first, mark, expected in rows:
        series = Series(str(venue), str(symbol), str(timeframe), None if folder is None else str(folder))
        try:
            key = (series.venue, canonical_symbol(series.folder))
            Timeframe.parse(series.timeframe)
        except ValueError as error:
            ledger.blame(f"series: {error}")
            continue
        if not (_is_minute(first) and _is_minute(mark) and first <= mark):
            ledger.blame(f"series: first {first!r} and mark {mark!r} are no span of minutes", series)
            continue
        if series.timeframe != "1m":
            continue  # only minutes are accounted for; aggregates follow from them
        account = Account(series, first, mark, expected == 1, happened)
        if ledger.accounts.setdefault(key, account) is not account:
            ledger.blame(f"series: two share the folder {series.path}", series)
            continue
        by_id[id_] = account
    return by_id


def _read_gaps(database: sqlite3.Connection, ledger: Ledger, by_id: dict[int, Account]) -> None:
    rows = database.execute(
        "SELECT series_id, since_ms, until_ms, state, reason, attempts FROM gap ORDER BY series_id, since_ms"
    )
    for id_, group in groupby(rows, key=lambda row: row[0]):
        account = _account_of(ledger, by_id, "gap", id_)
        if account is None:
            continue
        series, spans = account.series, []
        for _, since, until, state, reason, attempts in group:
            if not _is_span(ledger, series, "gap", since, until):
                continue
            if state not in ("open", "unfillable"):
                ledger.blame(f"gap: the state {state!r} is neither open nor unfillable", series, since, until)
            if not str(reason or "").strip():
                ledger.blame("gap: no reason", series, since, until)
            elif reason not in REASONS:
                ledger.blame(f"gap: {reason!r} is no reason that there is", series, since, until)
            spans.append((since, until))
            until = min(until, account.happened)
            if since >= until:
                continue
            _mark(account.unfillable if state == "unfillable" else account.open_gap, since, until)
            count = attempts if isinstance(attempts, int) else 0
            why = str(reason or "").strip() or "unknown"
            ledger.gaps.append(KnownGap(series.venue, series.symbol, since, until, str(state), why, count))
        _check_disjoint(ledger, series, "gap", spans)


def _read_empties(database: sqlite3.Connection, ledger: Ledger, by_id: dict[int, Account]) -> None:
    rows = database.execute("SELECT series_id, since_ms, until_ms, evidence FROM empty ORDER BY series_id, since_ms")
    for id_, group in groupby(rows, key=lambda row: row[0]):
        account = _account_of(ledger, by_id, "empty", id_)
        if account is None:
            continue
        series, spans = account.series, []
        for _, since, until, evidence in group:
            if not _is_span(ledger, series, "empty", since, until):
                continue
            if not str(evidence or "").strip():
                ledger.blame("empty: no evidence", series, since, until)
            _mark(account.empty, since, min(until, account.happened))
            spans.append((since, until))
        _check_disjoint(ledger, series, "empty", spans)


_JOURNAL_ROWS = f"""
SELECT series_id, open_ms, open, high, low, close, volume, quote_volume, vwap, trades_count, source, ingest_ms%s
FROM candle WHERE typeof(open_ms) = 'integer' AND open_ms BETWEEN 0 AND {LATEST} ORDER BY series_id, open_ms
"""

_REPLACED = """
SELECT revision.series_id, revision.open_ms, revision.offered FROM revision
JOIN candle ON candle.series_id = revision.series_id AND candle.open_ms = revision.open_ms
WHERE revision.outcome = 'replaced' AND typeof(revision.open_ms) = 'integer' ORDER BY revision.id
"""


def _read_journal(database: sqlite3.Connection, ledger: Ledger, by_id: dict[int, Account]) -> None:
    checked = ledger.meta.get("format") not in UNCHECKED  # rows had no checksum before format 3
    rows = database.execute(_JOURNAL_ROWS % (", checksum" if checked else ""))
    read = 0
    for (id_, day), group in groupby(rows, key=lambda row: (row[0], row[1] - row[1] % DAY)):
        candles = list(group)
        read += len(candles)
        account = _account_of(ledger, by_id, "candle", id_)
        if account is None:
            continue
        if checked:
            for one in (one for one in candles if _checksum(one[:-1]) != one[-1]):
                detail = "candle: a row does not match its checksum"
                ledger.blame(detail, account.series, one[1], one[1] + MINUTE)
            candles = [one[:-1] for one in candles]
        try:
            account.journal[day] = _as_table(account.series, candles)
        except (pa.ArrowException, OverflowError, TypeError) as error:
            ledger.blame(f"candle: {error}", account.series, candles[0][1], candles[-1][1] + MINUTE)
    (count,) = database.execute("SELECT count(*) FROM candle").fetchone()
    if count != read:
        ledger.blame(f"candle: {count - read} rows without a time between 1970 and 2300")
    for id_, minute, offered in database.execute(_REPLACED):
        if id_ in by_id:
            numbers = _numbers_in(offered)
            if numbers is None:
                ledger.blame("revision: what was offered is no candle", by_id[id_].series, minute, minute + MINUTE)
            else:
                by_id[id_].replaced[minute] = numbers  # of several, the newest


def _numbers_in(offered: object) -> Sequence[float] | None:
    """Open, high, low, close and volume of a candle in JSON."""
    try:
        candle = json.loads(offered) if isinstance(offered, str) else None
        return tuple(float(candle[name]) for name in ("open", "high", "low", "close", "volume"))  # type: ignore[index]
    except (ValueError, TypeError, LookupError):
        return None


def _checksum(row: Sequence[object]) -> int:
    """What a row's ``checksum`` should be, computed here once more: the audit does not ask who writes it."""
    # Prices and volumes are real, whatever SQLite has made of a whole number.
    values = [float(x) + 0.0 if 2 <= at <= 8 and isinstance(x, (int, float)) else x for at, x in enumerate(row)]
    return crc32(repr(tuple(values)).encode("utf-8"))


def _read_derivation(database: sqlite3.Connection, ledger: Ledger, by_id: dict[int, Account]) -> None:
    """Read the tables that a journal of format 1 lacks: the collector upgrades it before it derives anything."""
    for id_, since, until in database.execute("SELECT series_id, since_ms, until_ms FROM underived"):
        account = _account_of(ledger, by_id, "underived", id_)
        if account is not None and _is_span(ledger, account.series, "underived", since, until):
            _mark(account.underived, since, until)
    for id_, since in database.execute("SELECT series_id, since_ms FROM listing"):
        account = _account_of(ledger, by_id, "listing", id_)
        if account is not None and _is_span(ledger, account.series, "listing", 0, since):
            account.listed = since


def _as_table(series: Series, rows: Sequence[Sequence[object]]) -> pa.Table:
    """Journal rows shaped as a day file's; raises where a value is not of its column's type."""
    _, opens, *prices, trades, source, ingest = zip(*rows, strict=True)
    count = len(rows)
    values = [
        [series.venue] * count,
        [series.symbol] * count,
        [series.timeframe] * count,
        opens,
        [open_ms + MINUTE for open_ms in opens],
        *prices,
        trades,
        [True] * count,
        source,
        ingest,
    ]
    arrays = [pa.array(column, field.type) for column, field in zip(values, COLUMNS, strict=True)]
    for array, field in zip(arrays, COLUMNS, strict=True):
        if array.null_count and not field.nullable:
            raise TypeError(f"{field.name} is null")
    return pa.Table.from_arrays(arrays, schema=COLUMNS)


def _account_of(ledger: Ledger, by_id: dict[int, Account], table: str, id_: int) -> Account | None:
    account = by_id.get(id_)
    if account is None:
        ledger.blame(f"{table}: rows of series {id_!r}, which is not there or not to be understood")
    return account


def _mark(by_day: dict[int, int], since: int, until: int) -> None:
    for day in days_of(since, until):
        by_day[day] = by_day.get(day, 0) | span_bits(since, until, day)


def _is_timeframe(name: str) -> bool:
    try:
        Timeframe.parse(name)
    except ValueError:
        return False
    return True


def _is_minute(time: object) -> bool:
    return isinstance(time, int) and 0 <= time <= LATEST and time % MINUTE == 0


def _is_span(ledger: Ledger, series: Series, table: str, since: object, until: object) -> bool:
    """Whether ``[since, until)`` is a span of whole minutes; if not, that is noted as a problem of *table*."""
    if _is_minute(since) and _is_minute(until) and since < until:  # type: ignore[operator]
        return True
    ledger.blame(f"{table}: {since!r} to {until!r} is no span of minutes", series)
    return False


def _check_disjoint(ledger: Ledger, series: Series, table: str, spans: Sequence[tuple[int, int]]) -> None:
    """Note where *spans*, sorted by their beginnings, overlap."""
    reached, trouble = 0, 0
    for since, until in spans:
        if since < reached:
            trouble += 1
            if trouble <= _LISTED_SINGLY:
                ledger.blame(f"{table}: two overlap", series, since, min(until, reached))
        reached = max(reached, until)
    if trouble > _LISTED_SINGLY:
        ledger.blame(f"{table}: {trouble - _LISTED_SINGLY} more overlap", series, spans[0][0], reached)
