"""``read_candles``: day files and journal as one table, or a reason why not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

import attrs
import pyarrow as pa

from trio_candles.candles.model import DAY, MINUTE, Millis, Timeframe, day_name, floor_to
from trio_candles.candles.times import Moment, unix_ms
from trio_candles.reading.cursor import Cursor
from trio_candles.reading.errors import (
    DayFileDamaged,
    GapError,
    LedgerUnreadable,
    UnknownMinutes,
    check_texts,
    senseless_values,
)
from trio_candles.reading.files import DayFiles, FileChanged, between, strictly_sorted, with_waiting
from trio_candles.reading.fold import folded
from trio_candles.reading.ledger import open_ledger
from trio_candles.reading.plan import Plan, Request, plan
from trio_candles.store.schema import COLUMNS

__all__ = ["FILLED", "ReadResult", "read", "read_candles", "snapshot"]

FILLED = "filled"
"""The name of the column that marks made-up rows, and their ``source``."""

TRIES = 50
"""A file whose digest is not the ledger's in so many readings is not just being replaced: flushes are seconds apart. (A
machine that is busy elsewhere has lost ten such races in a row against a store that flushed without pause.)"""

OnGap = Literal["raise", "ignore"]
Fill = Literal["previous"]


@attrs.frozen
class ReadResult:
    """The candles asked for, the plan by which they were read, and the minutes that are not known."""

    plan: Plan
    table: pa.Table
    gaps: list[UnknownMinutes]
    """The minutes of the range that are not known; none unless gaps were to be ignored."""
    place: Cursor | None
    """Up to where the change feed has led to what was read; ``None`` of an earlier version's journal."""


def read_candles(
    data_dir: str | Path,
    venue: str,
    symbol: str,
    timeframe: str = "1m",
    start: Moment | None = None,
    end: Moment | None = None,
    columns: Sequence[str] | None = None,
    on_gap: OnGap = "raise",
    fill: Fill | None = None,
) -> pa.Table:
    """The candles of one series that open in ``[start, end)``: day files and journal as one, sorted, unique, verified.

    *symbol* as the venue writes it or as its folder is called (``BTC/USD``, ``BTC-USD``). *timeframe* is any that
    divides a day: rows that are not in day files (yet) are folded from the minutes. *start* and *end* are ISO dates or
    times (UTC unless they say otherwise), datetimes with a time zone, dates, Unix ms, or scalars of Arrow. By default
    reading begins with the first expected minute and ends with the newest that is accounted for, minutes of which the
    proof is still on its way (``unproven``, ``no_close``, the last five at most) excluded. No minute is known that has
    not ended. *columns* are the contract's, in the order wanted.

    A minute without trades has no row. A minute of which it is not known what traded (an open or unfillable gap, one
    before the first expected minute, one not accounted for yet) raises :class:`GapError`, unless *on_gap* is
    ``"ignore"``: then there are rows for what is known. A period of a higher timeframe is known if its minutes are.

    ``fill="previous"`` adds flat bars at the previous close for periods that are known to be without trades: volume,
    quote_volume and trades_count 0, no vwap, source ``filled``, the ingest time of the candle repeated. They are
    marked by a further column ``filled``. None is added where a gap lies between the period and the last candle, or
    where there is no candle before it.

    Safe beside a running collector. Raises :class:`ReadError`: :class:`GapError`, ``UnknownSeries``,
    ``NoSuchDirectory``, ``LedgerUnreadable``, ``DayFileDamaged``; and for arguments without sense ``ValueError``, or
    ``TypeError`` for those of another type.
    """
    return read(data_dir, venue, symbol, timeframe, start, end, columns, on_gap, fill).table


def snapshot(
    data_dir: str | Path,
    venue: str,
    symbol: str,
    timeframe: str = "1m",
    start: Moment | None = None,
    columns: Sequence[str] | None = None,
    on_gap: OnGap = "ignore",
) -> tuple[pa.Table, str]:
    """All that is known of one series from *start* on, as by :func:`read_candles`, and the cursor with which ``follow``
    goes on from there: both of one moment, so that no candle is missing between the two and none comes twice.

    Unlike there, minutes that are not known are left out unless *on_gap* is ``"raise"``: the change feed says when they
    are filled. And reading ends with the last minute that is accounted for, whatever is unproven before it.

    Raises as :func:`read_candles` does, and ``LedgerUnreadable`` for a journal that has no change feed yet.
    """
    result = read(data_dir, venue, symbol, timeframe, start, columns=columns, on_gap=on_gap, to_the_mark=True)
    if result.place is None:
        raise LedgerUnreadable("an earlier version wrote the journal; its change feed begins when this one is started")
    return result.table, str(result.place)


def read(
    data_dir: str | Path,
    venue: str,
    symbol: str,
    timeframe: str = "1m",
    start: Moment | None = None,
    end: Moment | None = None,
    columns: Sequence[str] | None = None,
    on_gap: OnGap = "raise",
    fill: Fill | None = None,
    now: Callable[[], Millis] | None = None,
    *,
    to_the_mark: bool = False,
) -> ReadResult:
    """As :func:`read_candles`, with the plan, the gaps and the place in the change feed beside the table; *now* as for
    :func:`.open_ledger`. *to_the_mark* lets reading end, by default, with the last minute that is accounted for.
    """
    check_texts(venue=venue, symbol=symbol, timeframe=timeframe)
    if on_gap not in ("raise", "ignore"):
        raise ValueError(f"on_gap is {on_gap!r}; expected 'raise' or 'ignore'")
    if fill not in (None, "previous"):
        raise ValueError(f"fill is {fill!r}; expected 'previous' or None")
    since, until = None if start is None else unix_ms(start), None if end is None else unix_ms(end)
    if since is not None and until is not None and since > until:
        raise ValueError(f"start {start!r} is after end {end!r}")
    wanted = _columns(columns, fill)
    request = Request(venue, symbol, Timeframe.parse(timeframe), since, until, fill is not None, to_the_mark)
    files = DayFiles(Path(data_dir))
    for _ in range(TRIES):
        with open_ledger(files.root, now) as ledger, senseless_values():
            planned = plan(ledger, request)
            place = ledger.told.ends()[1] if ledger.told.is_known else None
            gaps = planned.not_known()
        if gaps and on_gap == "raise":
            raise GapError(planned.series, gaps)
        try:
            table = _table(planned, files, wanted)
        except FileChanged as error:
            changed = error
            continue
        return ReadResult(planned, table, gaps, place)
    raise DayFileDamaged(changed.path, changed.why)


def _columns(columns: Sequence[str] | None, fill: str | None) -> list[str]:
    """The columns to return; ``ValueError`` if one is unknown or named twice."""
    known = [*COLUMNS.names, FILLED] if fill else COLUMNS.names
    if columns is None:
        return known
    if isinstance(columns, str):
        raise ValueError(f"columns is the text {columns!r}; expected a list of names")
    names = list(columns)
    for name in names:
        if name not in known:
            near = get_close_matches(str(name), known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
            raise ValueError(f"unknown column {name!r}; {hint}")
    if len(set(names)) < len(names):
        raise ValueError(f"a column is named twice: {', '.join(names)}")
    return [*names, FILLED] if fill and FILLED not in names else names


def _table(planned: Plan, files: DayFiles, wanted: list[str]) -> pa.Table:
    if planned.timeframe.length == MINUTE:
        table = _minutes(planned, files, COLUMNS.names if FILLED in wanted else _with_time(wanted))
    else:
        table = _aggregates(planned, files)
    if not strictly_sorted(table):
        raise LedgerUnreadable(f"{planned.series}: rows are not sorted, or one is there twice; run the audit")
    if FILLED in wanted:
        table = _filled(planned, table)
    return between(table, planned.since, planned.until).select(wanted)


def _with_time(columns: list[str]) -> list[str]:
    return columns if "open_time_ms" in columns else [*columns, "open_time_ms"]


def _minutes(planned: Plan, files: DayFiles, columns: list[str]) -> pa.Table:
    filed = between(files.read(planned.minute_files, columns), planned.reach, planned.until)
    table = with_waiting(filed, planned.waiting)
    _check_count(planned, table.num_rows, planned.stored_minutes(planned.reach, planned.until))
    return table


def _aggregates(planned: Plan, files: DayFiles) -> pa.Table:
    """The rows of a higher timeframe: from its day files where those follow the minutes, folded where not yet."""
    due = planned.periods_with_row()
    stored = files.read(planned.files, COLUMNS.names)
    good = set(due) - planned.changed_periods()
    times = stored.column("open_time_ms").to_pylist()
    kept = [time in good for time in times]
    if not all(kept):
        stored = stored.filter(pa.array(kept))
    missing = sorted(set(due).difference(time for time, keep in zip(times, kept, strict=True) if keep))
    if not missing:
        return stored
    return pa.concat_tables([stored, _derived(planned, files, missing)]).sort_by("open_time_ms")


def _derived(planned: Plan, files: DayFiles, missing: list[int]) -> pa.Table:
    """The rows of the periods *missing*, folded from their minutes."""
    length = planned.timeframe.length
    days = {day_name(floor_to(period, DAY)) for period in missing}
    needed = {path: known for path, known in planned.minute_files.items() if path[-18:-8] in days}
    minutes = with_waiting(files.read(needed, COLUMNS.names), planned.waiting)
    if not strictly_sorted(minutes):
        raise LedgerUnreadable(f"{planned.account.series}: rows are not sorted, or one is there twice; run the audit")
    wanted = set(missing)
    under = [time // length * length in wanted for time in _times(minutes)]
    minutes = minutes.filter(pa.array(under, pa.bool_()))
    empty = planned.empty_minutes_by_period()
    _check_count(planned, minutes.num_rows, sum(length // MINUTE - empty[period] for period in missing))
    return folded(minutes, planned.series, length)


def _check_count(planned: Plan, found: int, expected: int) -> None:
    """Raise :class:`LedgerUnreadable` unless the rows are as many as the ledger says: none may be missing silently."""
    if found != expected:
        raise LedgerUnreadable(
            f"{planned.account.series}: the ledger says that {expected} minutes are stored, and {found} are;"
            " run the audit"
        )


def _filled(planned: Plan, table: pa.Table) -> pa.Table:
    """*table* and a flat bar for each empty period that follows a row, directly or after others like it."""
    length = planned.timeframe.length
    at = {time: index for index, time in enumerate(_times(table))}
    sources: list[int] = []
    opens: list[int] = []
    for since, until in planned.empty_periods():
        before = at.get(since - length)
        if before is not None:
            run = range(since, until, length)
            sources += [before] * len(run)
            opens += run
    bars = _flat(table.take(pa.array(sources, pa.int64())), opens, length)
    marked = [
        rows.append_column(pa.field(FILLED, pa.bool_(), nullable=False), pa.array([mark] * rows.num_rows, pa.bool_()))
        for rows, mark in ((table, False), (bars, True))
    ]
    return pa.concat_tables(marked).sort_by("open_time_ms") if opens else marked[0]


def _flat(previous: pa.Table, opens: Sequence[int], length: int) -> pa.Table:
    """Rows without trades that open at *opens*, each at the close of its row in *previous*."""
    count = len(opens)
    close = previous.column("close")
    changed: dict[str, pa.Array[Any] | pa.ChunkedArray[Any]] = {
        "open_time_ms": pa.array(opens, pa.int64()),
        "close_time_ms": pa.array([time + length for time in opens], pa.int64()),
        **dict.fromkeys(("open", "high", "low"), close),
        **dict.fromkeys(("volume", "quote_volume"), pa.array([0.0] * count, pa.float64())),
        "vwap": pa.nulls(count, pa.float64()),
        "trades_count": pa.array([0] * count, pa.int64()),
        "source": pa.array([FILLED] * count, pa.string()),
    }
    return pa.Table.from_arrays([changed.get(name, previous.column(name)) for name in COLUMNS.names], schema=COLUMNS)


def _times(table: pa.Table) -> Iterable[int]:
    return table.column("open_time_ms").to_pylist()  # type: ignore[return-value]  # not nullable
