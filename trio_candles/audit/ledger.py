"""The journal and the ledger as the audit sees them: one consistent reading, of which nothing is taken for granted.

SQLite checks no types, and a ledger that somebody broke need not keep its constraints: each value is checked.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from pathlib import Path
from zlib import crc32

import pyarrow as pa

from trio_candles.audit.bits import LATEST, days_of, runs, span_bits
from trio_candles.audit.books import Account, Ledger
from trio_candles.audit.files import cell_of
from trio_candles.audit.report import KnownGap
from trio_candles.audit.sealed import SealedDay, read_row
from trio_candles.candles.model import DAY, MINUTE, Series, Timeframe, canonical_symbol
from trio_candles.store.schema import COLUMNS, FORMAT, JOURNAL, UNCHECKED, UPGRADES
from trio_candles.store.snapshot import open_snapshot

__all__ = ["read_ledger"]

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
BEFORE_SEALING = ("1", "2", "3", "4", "5")
"""Formats of the journal in which no day is sealed."""
_LISTED_SINGLY = 20
"""Complaints of one sort about one series that are listed singly: a ruined table is not 1,000 findings."""


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
    if ledger.meta["format"] not in BEFORE_SEALING:
        _read_sealed(database, ledger, by_id)
        order = {(one.series.venue, one.series.symbol): number for number, one in enumerate(ledger.accounts.values())}
        ledger.gaps.sort(key=lambda gap: (order[gap.venue, gap.symbol], gap.start_ms))
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


_SEALED_ROWS = """
SELECT series_id, day_ms, shape, minutes, detail, unknown, checksum FROM sealed ORDER BY series_id, day_ms
"""


def _read_sealed(database: sqlite3.Connection, ledger: Ledger, by_id: dict[int, Account]) -> None:
    """Read the sealed days into the accounts; each day that is accounted for must be sealed, or else open."""
    found: dict[int, tuple[set[int], set[int]]] = {id_: (set(), set()) for id_ in by_id}
    for id_, group in groupby(database.execute(_SEALED_ROWS), key=lambda row: row[0]):
        account = _account_of(ledger, by_id, "sealed", id_)
        if account is None:
            continue
        for _, *row in group:
            day = row[0]
            if not _is_minute(day) or day % DAY:
                ledger.blame(f"sealed: {day!r} is no day", account.series)
                continue
            found[id_][0].add(day)
            sealed, wrong = read_row(account.series, row)
            for words in wrong:
                ledger.blame(f"sealed: {words}", account.series, day, day + DAY)
            if sealed is not None:
                _take_in(ledger, account, day, sealed)
    for id_, day in database.execute("SELECT series_id, day_ms FROM open_day"):
        if id_ in found:
            found[id_][1].add(day)
    for id_, (closed, opened) in found.items():
        account = by_id[id_]
        _blame_days(ledger, account, closed & opened, "sealed: the day is among the open ones, too")
        days = days_of(account.first, account.mark)
        lost = {day for day in days if day not in closed and day not in opened}
        _blame_days(ledger, account, lost, "the day is accounted for, and neither open nor sealed")
    for path, (digest, _) in ledger.files.items():
        place = None if digest is None else cell_of(path)
        account = None if place is None else ledger.accounts.get(place[0][:2])
        if place is not None and account is not None and place[0].day in account.sealed:
            day = place[0].day
            ledger.blame(
                f"day_file: {path} is of a sealed day, whose row has its digest", account.series, day, day + DAY
            )


def _take_in(ledger: Ledger, account: Account, day: int, sealed: SealedDay) -> None:
    """Add the gaps and empty minutes of a sealed *day* to those of the *account*."""
    series, said = account.series, sealed.saying
    account.sealed[day] = sealed
    by_day = (account.open_gap, account.unfillable, account.empty)
    astray = by_day[0].get(day, 0) | by_day[1].get(day, 0) | by_day[2].get(day, 0)
    if astray:
        account.astray[day] = astray
    happened = span_bits(0, account.happened, day)
    for minutes, bits in zip(by_day, (said.gap, said.unfillable, said.empty), strict=True):
        if bits & happened:
            minutes[day] = minutes.get(day, 0) | (bits & happened)
    for state, bits, name in (("open", said.gap, "gap"), ("unfillable", said.unfillable, "unfillable")):
        why = said.evidence[name]
        reason, attempts = (why[0], why[3]) if isinstance(why, list) and len(why) == 5 else ("unknown", 0)
        if bits and reason not in REASONS:
            ledger.blame(f"sealed: {reason!r} is no reason that there is", series, day, day + DAY)
        for low, high in runs(bits & happened):
            since, until = day + low * MINUTE, day + high * MINUTE
            ledger.gaps.append(
                KnownGap(
                    series.venue,
                    series.symbol,
                    since,
                    until,
                    state,
                    str(reason).strip() or "unknown",
                    attempts if isinstance(attempts, int) else 0,
                )
            )
    if said.gap and account.expected:
        ledger.blame("sealed: a gap of a series that is expected: nobody would fill it", series, day, day + DAY)


def _blame_days(ledger: Ledger, account: Account, days: Iterable[int], words: str) -> None:
    """Note that *days* are as *words* say; many of them as one finding."""
    some = sorted(days)
    if len(some) > _LISTED_SINGLY:
        ledger.blame(f"{words} ({len(some)} days)", account.series, some[0], some[-1] + DAY)
        return
    for day in some:
        ledger.blame(words, account.series, day, day + DAY)


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
