"""One day of one symbol: is every minute exactly one thing, and do the aggregates follow from the minutes?

::

    a row in the day file or the journal ──► stored ─────┐
    a span in the ledger's table "empty" ──► empty ──────┤ exactly one: sound
                      an open gap there ───► open gap ───┤ more than one: contradiction
                an unfillable gap there ───► unfillable ─┘ none, though the minute is due: silent_gap

An open gap and an unfillable one of the same minute are no contradiction here: they are gaps of one table that overlap,
and :mod:`trio_candles.audit.ledger` reports these.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from math import fsum, inf, isfinite
from typing import Any

import attrs

from trio_candles.audit.bits import runs, span_bits
from trio_candles.audit.books import Account
from trio_candles.audit.daymap import DayMap
from trio_candles.audit.files import Cell, day_file_path
from trio_candles.audit.folds import follows
from trio_candles.audit.report import Kind, Tally, Violation
from trio_candles.audit.rows import MOST_RANGES, Piece, values
from trio_candles.audit.sealed import ACCOUNT, read_account
from trio_candles.candles.model import DAY, MINUTE, Timeframe
from trio_candles.store.schema import JOURNAL

__all__ = ["Day", "check_aggregates", "check_minutes", "check_sealed", "states"]

_GONE = "the ledger lists the file and it is gone"


@attrs.define
class Day:
    """The rows that were read of one cell, and the findings about it. Minutes are bits."""

    cell: Cell
    symbol: str
    """As the venue writes it."""
    account: Account | None
    """``None`` where the ledger does not know the series or cannot be used."""
    due: int = 0
    """The minutes that must be accounted for."""
    before_mark: int = 0
    """The minutes that the collector says it has accounted for, and all before."""
    files: dict[str, Piece] = attrs.field(factory=dict)
    """The readable day files by timeframe."""
    journal: Piece | None = None
    broken: set[str] = attrs.field(factory=set)
    """Timeframes whose file is there and cannot be read: what is in it is unknown, not missing."""
    gone: set[str] = attrs.field(factory=set)
    """Timeframes whose file the ledger lists and that is not there."""
    cover: DayMap | None = None
    """What each minute turned out to be."""
    violations: list[Violation] = attrs.field(factory=list)
    tallies: dict[tuple[str, str, str], Tally] = attrs.field(factory=dict)
    receipt: str | None = None
    """What the next audit may believe; only where nothing is wrong."""
    believed: bool = False
    """Whether an earlier audit's receipt was believed, and no file was decoded."""

    def pieces(self) -> list[Piece]:
        """All rows that there are."""
        return [*self.files.values(), *([] if self.journal is None else [self.journal])]

    def forget_rows(self) -> None:
        """Let go of the rows that were read."""
        self.files.clear()
        self.journal = None

    def note(self, kind: Kind, timeframe: str, detail: str, start: int | None, end: int | None, path: str = "") -> None:
        """Add a violation of this cell."""
        where = path or day_file_path(self.cell, timeframe)
        self.violations.append(
            Violation(
                kind, where, detail, venue=self.cell.venue, symbol=self.symbol, timeframe=timeframe,
                start_ms=start, end_ms=end,
            )
        )  # fmt: skip

    def note_bits(self, kind: Kind, bits: int, detail: str, path: str = "") -> None:
        """Add a violation for every run of minutes in *bits*."""
        found = list(runs(bits))
        if len(found) > MOST_RANGES:
            detail = f"{detail} ({bits.bit_count()} minutes in {len(found)} places)"
            found = [(found[0][0], found[-1][1])]
        day = self.cell.day
        for low, high in found:
            self.note(kind, "1m", detail, day + low * MINUTE, day + high * MINUTE, path)

    def tally(self, timeframe: str) -> Tally:
        """The count of one timeframe."""
        return self.tallies.setdefault((self.cell.venue, self.symbol, timeframe), Tally())

    def minutes_of(self, by_day: Mapping[int, int]) -> int:
        """The bits of this day in *by_day*."""
        return by_day.get(self.cell.day, 0)


def check_minutes(day: Day) -> None:
    """Count what each minute of *day* is: exactly one thing, or a violation."""
    file = day.files.get("1m")
    in_file = 0 if file is None else file.bits
    in_journal = 0 if day.journal is None else day.journal.bits
    for timeframe, piece in day.files.items():
        _count_rows(day.tally(timeframe), piece, 1)
    if day.journal is not None:
        _count_rows(day.tally("1m"), day.journal, 0)
        # A row in both is one candle, in the middle of being moved.
        day.tally("1m").candles -= (in_file & in_journal).bit_count()
    account = day.account
    if account is None:
        day.cover = DayMap(0, in_file | in_journal, 0, 0, 0)
        return
    open_gap, unfillable = day.minutes_of(account.open_gap), day.minutes_of(account.unfillable)
    empty, stored = day.minutes_of(account.empty), in_file | in_journal
    count = day.tally("1m")
    count.empty, count.open_gap, count.unfillable = (
        empty.bit_count(),
        open_gap.bit_count(),
        unfillable.bit_count(),
    )

    day.cover = DayMap(day.due, stored, empty, open_gap, unfillable)
    gap = open_gap | unfillable
    day.note_bits("contradiction", stored & empty, "stored, and called empty in the ledger")
    day.note_bits("contradiction", stored & gap, "stored, and a gap in the ledger")
    day.note_bits("contradiction", empty & gap, "called empty and a gap in the ledger")
    beyond = "a row at or after the series' mark, up to which the ledger says it has accounted"
    day.note_bits("ledger_corrupt", in_file & ~day.before_mark, beyond)
    day.note_bits("ledger_corrupt", in_journal & ~in_file & ~day.before_mark, beyond, JOURNAL)
    _compare_with_journal(day, in_file & in_journal, account.replaced)

    silent = day.due & ~(stored | empty | gap)
    if day.cell.day in account.sealed and "1m" not in day.gone | day.broken:
        said = account.sealed[day.cell.day].saying.stored
        day.note_bits(
            "contradiction", said & ~in_file, "the ledger's row of the sealed day has a candle, the file none"
        )
        silent &= ~said
    if "1m" not in day.broken:
        day.note_bits("silent_gap", silent, _GONE if "1m" in day.gone else "no row, and the ledger says nothing")
    if "1m" in day.gone and not silent:
        end = day.cell.day + DAY
        day.note("checksum", "1m", _GONE, day.cell.day, end)


def _count_rows(count: Tally, piece: Piece, files: int) -> None:
    count.add(Tally(files, piece.rows, piece.first, piece.last))


def check_sealed(day: Day) -> None:
    """Hold the ledger's row of a sealed *day*, the account in the file of minutes and the file's rows against each
    other. The file of an open day may carry an account, too, if a crash came before the row: that of its own rows.
    """
    account, file = day.account, day.files.get("1m")
    sealed = None if account is None else account.sealed.get(day.cell.day)
    if account is not None and sealed is not None:
        stray = account.astray.get(day.cell.day, 0)
        day.note_bits("contradiction", stray, "of a sealed day, and in the ledger's tables of open days", JOURNAL)
        if day.journal is not None:
            day.note_bits(
                "contradiction", day.journal.bits, "of a sealed day, and a candle waits for its file", JOURNAL
            )
        if file is not None:
            words = "a row, and the ledger's row of the sealed day says that the minute is not expected"
            day.note_bits("contradiction", file.bits & ~sealed.saying.known, words)
    if file is None or account is None:
        return
    if file.account is None:
        if sealed is not None and ACCOUNT in sealed.shape:
            _note_day(day, "the file carries no account, and the ledger says that it does")
        return
    saying, wrong = read_account(account.series, day.cell.day, file.account)
    for words in wrong:
        _note_day(day, words)
    if saying is None:
        return
    words = "stored in the file or in its account, and not in both"
    day.note_bits("contradiction", saying.stored ^ file.bits, words)
    if sealed is not None:
        minutes, names = saying.unlike(sealed.saying)
        day.note_bits("contradiction", minutes, "the account in the file and the ledger's row say different things")
        if names:
            _note_day(day, f"the account in the file and the ledger's row differ: {', '.join(names)}")


def _note_day(day: Day, words: str) -> None:
    day.note("contradiction", "1m", words, day.cell.day, day.cell.day + DAY)


def _compare_with_journal(day: Day, both: int, replaced: Mapping[int, Sequence[float]]) -> None:
    """Note minutes of which the day file and the journal hold different candles, without a revision that says so."""
    file = day.files.get("1m")
    if not both or file is None or day.journal is None:
        return
    filed, waiting = _numbers(file), _numbers(day.journal)
    different = 0
    for low, high in runs(both):
        for minute in range(low, high):
            time = day.cell.day + minute * MINUTE
            if time not in filed or time not in waiting or _equal(filed[time], waiting[time]):
                continue
            if time not in replaced or not _equal(replaced[time], waiting[time]):
                different |= 1 << minute
    day.note_bits("duplicate", different, "the journal holds another candle of the minute, and no revision of it")


def _numbers(piece: Piece) -> dict[int, Sequence[float]]:
    names = ("open", "high", "low", "close", "volume")
    columns = [values(piece.table, name) for name in names]
    return dict(zip(values(piece.table, "open_time_ms"), zip(*columns, strict=True), strict=True))


def _equal(one: Sequence[float], other: Sequence[float]) -> bool:
    """The contract's section 4: prices identical, volume within 1e-9."""
    volume, offered = one[4], other[4]
    return one[:4] == other[:4] and abs(volume - offered) <= 1e-9 * max(abs(volume), abs(offered))


_FOLDED = ("open", "high", "low", "close", "volume", "quote_volume", "vwap", "trades_count", "ingest_time_ms")


def check_aggregates(day: Day, timeframes: Sequence[str], closed_by: int) -> None:
    """Derive every aggregate of *day* anew from its stored minutes (contract, 5.5); compare to the bit.

    Aggregates are not judged where they cannot be: where their minutes are themselves in question, which have their own
    violation, and where they are still to follow, the minutes being in the journal or noted as underived. *closed_by*
    is the end, in Unix ms, of what must be accounted for.
    """
    for timeframe in day.gone - {"1m"}:
        end = day.cell.day + DAY
        day.note("missing_aggregate", timeframe, _GONE, day.cell.day, end)
    wanted = [one for one in timeframes if one not in day.broken | day.gone | day.files.keys()]
    present = [one for one, piece in day.files.items() if one != "1m" and piece.orderly]
    base = day.files.get("1m")
    if not (wanted or present) or "1m" in day.broken | day.gone or (base is not None and base.violations):
        return
    minutes = _Minutes.of(day, base)
    present = [one for one in present if not _follows(day, one, minutes)]
    for timeframe in present:
        _check_present(day, timeframe, minutes)
    if day.account is not None:
        for timeframe in [*wanted, *(one for one in present if one in timeframes)]:
            _check_missing(day, timeframe, minutes, closed_by)


def _follows(day: Day, timeframe: str, minutes: _Minutes) -> bool:
    """Whether the rows of *timeframe* are certainly right and all there; ``False`` decides nothing."""
    length = Timeframe.parse(timeframe).length
    return not minutes.doubtful and follows(
        day.files[timeframe].table,
        length,
        day.cell.day,
        minutes.stored,
        minutes.empty,
        minutes.opens,
        minutes.columns,
    )


def _check_present(day: Day, timeframe: str, minutes: _Minutes) -> None:
    table = day.files[timeframe].table
    length = Timeframe.parse(timeframe).length
    rows = zip(*(values(table, name) for name in _FOLDED), strict=True)
    found: list[tuple[int, int, str]] = []
    for time, row in zip(values(table, "open_time_ms"), rows, strict=True):
        under = span_bits(time, time + length, day.cell.day)
        if time % length or under & minutes.doubtful:
            continue
        if day.account is not None and under & ~(minutes.stored | minutes.empty):
            wrong = "it stands on minutes that are gaps or unknown"
        elif not under & minutes.stored:
            wrong = "no candle is under it" if day.account is not None else ""
        else:
            wrong = ", ".join(
                f"{name} is {stored!r}, derived {derived!r}"
                for name, stored, derived in zip(_FOLDED, row, minutes.fold(time, time + length), strict=True)
                if stored != derived
            )
        if wrong:
            found.append((time, time + length, wrong))
    if len(found) > MOST_RANGES:
        found = [(found[0][0], found[-1][1], f"{len(found)} rows; the first: {found[0][2]}")]
    for start, end, wrong in found:
        day.note("wrong_aggregate", timeframe, wrong, start, end)


def _check_missing(day: Day, timeframe: str, minutes: _Minutes, closed_by: int) -> None:
    length = Timeframe.parse(timeframe).length
    piece = day.files.get(timeframe)
    present = set() if piece is None else set(values(piece.table, "open_time_ms"))
    missing: list[tuple[int, int]] = []
    for time in range(day.cell.day, day.cell.day + DAY, length):
        under = span_bits(time, time + length, day.cell.day)
        complete = not under & ~(minutes.stored | minutes.empty) and under & minutes.stored
        if not complete or under & minutes.doubtful or time in present or time + length > closed_by:
            continue
        if not _can_be_stored(minutes.fold(time, time + length)):
            continue
        if missing and missing[-1][1] == time:
            missing[-1] = (missing[-1][0], time + length)
        else:
            missing.append((time, time + length))
    for start, end in missing:
        count = (end - start) // length
        day.note(
            "missing_aggregate",
            timeframe,
            f"{count} row{'s' * (count != 1)}: every minute is known",
            start,
            end,
        )


def _can_be_stored(row: Sequence[float | int | None]) -> bool:
    """Whether the fold of sound minutes is a sound candle: a sum may be more than its column takes."""
    return all(
        number is None or (isfinite(number) if isinstance(number, float) else abs(number) < 2**63) for number in row
    )


def states(day: Day) -> tuple[int, int, int]:
    """The minutes of *day* of which aggregates are made, those that count as empty, and those that are in doubt, as
    bits: on these nothing is derived, because aggregates are to follow, or they are silently missing or contradicted.
    """
    base = day.files.get("1m")
    stored = 0 if base is None else base.bits
    waiting = 0 if day.journal is None else day.journal.bits
    if day.account is None:
        return stored, 0, waiting
    empty = day.minutes_of(day.account.empty)
    gap = day.minutes_of(day.account.open_gap) | day.minutes_of(day.account.unfillable)
    silent = day.due & ~(stored | empty | gap)
    contradicted = (stored & (empty | gap)) | (empty & gap)
    listed = span_bits(0, day.account.listed, day.cell.day)
    return stored, empty | listed, waiting | day.minutes_of(day.account.underived) | silent | contradicted


@attrs.frozen
class _Minutes:
    """The stored 1m candles of a day, ready to be folded."""

    stored: int
    empty: int
    doubtful: int
    """Minutes on which nothing is derived: aggregates are to follow, silently missing, or contradicted."""
    opens: Sequence[int]
    columns: dict[str, list[Any]]

    @classmethod
    def of(cls, day: Day, base: Piece | None) -> _Minutes:
        names = ("open", "high", "low", "close", "volume", "quote_volume", "trades_count", "ingest_time_ms")
        columns = {name: [] if base is None else values(base.table, name) for name in names}
        opens = [] if base is None else values(base.table, "open_time_ms")
        return cls(*states(day), opens, columns)

    def fold(self, since: int, until: int) -> tuple[Any, ...]:
        """The aggregate of the candles that open in ``[since, until)``, in the order of ``_FOLDED``."""
        low, high = _position(self.opens, since), _position(self.opens, until)
        part = {name: column[low:high] for name, column in self.columns.items()}
        volume, quotes, trades = _sum(part["volume"]), part["quote_volume"], part["trades_count"]
        quote = None if None in quotes else _sum(quotes)
        return (
            part["open"][0],
            max(part["high"]),
            min(part["low"]),
            part["close"][-1],
            volume,
            quote,
            None if quote is None or volume == 0 else quote / volume,
            None if None in trades else sum(trades),
            max(part["ingest_time_ms"]),
        )


def _position(opens: Sequence[int], time: int) -> int:
    """How many of the sorted *opens* are before *time*; a dense day needs no search."""
    guess = (time - opens[0]) // MINUTE
    if 0 <= guess < len(opens) and opens[guess] == time:
        return guess
    return bisect_left(opens, time)


def _sum(numbers: Sequence[float]) -> float:
    try:
        return fsum(numbers)
    except OverflowError:
        return inf
