"""The export as a command: one series out of a data directory, in the shape that another program reads.

================= ========================================================== ===============================
format            what is in it                                              file
================= ========================================================== ===============================
csv               the contract's columns                                     VENUE-BASE-QUOTE-TF.csv
ohlcv             date (ISO, UTC), open, high, low, close, volume            VENUE-BASE-QUOTE-TF-ohlcv.csv
freqtrade         the same, date as timestamp[ms, UTC]; Feather              BASE_QUOTE-TF.feather
freqtrade-parquet the same as parquet                                        BASE_QUOTE-TF.parquet
ccxt              JSON: a list of ``[ms, open, high, low, close, volume]``   VENUE-BASE-QUOTE-TF.json
================= ========================================================== ===============================

Exit code: 0 written; 1 refused (gaps, a damaged file) or the disk does not take it; 2 usage; 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import attrs
import pyarrow as pa
import pyarrow.parquet as pq

from trio_candles.candles.model import utc_text
from trio_candles.command.options import (
    add_clock,
    add_common,
    data_dir_of,
    fail,
    print_json,
    show,
    symbol,
    through_a_pipe,
    timeframe,
    tool_clock,
    utc_time,
    write_plainly,
)
from trio_candles.reading.candles import ReadResult, read
from trio_candles.reading.errors import GapError, ReadError, UnknownMinutes, UnknownSeries
from trio_candles.venues.registry import VENUES

__all__ = ["FORMATS", "command", "main"]


def command() -> int:
    """The console script."""
    return through_a_pipe(lambda: main(sys.argv[1:]))


def main(arguments: Sequence[str]) -> int:
    """Export as *arguments* say; the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.since is not None and options.until is not None and options.since >= options.until:
        parser.error("--from is not before --to")
    write_plainly()
    data_dir = data_dir_of(options.config, options.data_dir)
    if data_dir is None:
        return 2
    try:
        reading = read(
            data_dir,
            options.venue,
            options.symbol,
            options.timeframe,
            options.since,
            options.until,
            on_gap=options.on_gap,
            fill=options.fill,
            now=tool_clock(data_dir, options.speed, options.pivot),
        )
        target = _target(options.output, options.format, reading, data_dir)
        _write_beside(target, lambda sink: _WRITERS[options.format](reading.table, sink))
    except KeyboardInterrupt:
        return 130
    except GapError as error:
        if options.json:
            print_json(RefusedDocument(ok=False, error=str(error), gaps=_gaps(error.gaps)))
        return fail(f"{error}\nnothing was written; --on-gap ignore exports what is known", 1)
    except (UnknownSeries, _Misplaced) as error:
        return fail(error)
    except (ReadError, OSError) as error:
        if options.json:
            print_json(RefusedDocument(ok=False, error=str(error), gaps=()))
        return fail(error, 1)
    _report(reading, target, options)
    return 0


class _Misplaced(Exception):
    """The output may not be written where the options put it."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="trio-candles-export",
        description="Write one series of a data directory to a file that other programs read. May run beside a"
        " collector.",
        epilog="Exit code: 0 written, 1 refused because of gaps or damage, or the disk does not take it, 2 usage.",
    )
    add_common(parser)
    parser.add_argument("--venue", required=True, help=", ".join(VENUES))
    parser.add_argument("--symbol", required=True, type=symbol, help="BTC-USD or BTC/USD")
    parser.add_argument("--timeframe", type=timeframe, default="1m", metavar="TF", help="default: 1m")
    parser.add_argument(
        "--from", dest="since", type=utc_time, metavar="TIME",
        help="since this UTC date, ISO time or Unix ms; default: the first expected minute",
    )  # fmt: skip
    parser.add_argument(
        "--to", dest="until", type=utc_time, metavar="TIME",
        help="only before this time (not included); default: the newest minute accounted for",
    )  # fmt: skip
    parser.add_argument(
        "--format", choices=list(FORMATS), default="csv",
        help="csv: all columns (the default); ohlcv: CSV of date, open, high, low, close, volume; freqtrade: its"
        " feather files; freqtrade-parquet; ccxt: JSON as fetch_ohlcv returns it",
    )  # fmt: skip
    parser.add_argument(
        "--output", default="", metavar="PATH",
        help="a file, or a folder in which the file gets its usual name; default: here",
    )  # fmt: skip
    parser.add_argument(
        "--on-gap", choices=["raise", "ignore"], default="raise",
        help="if minutes are not known: write nothing (the default), or what is known",
    )  # fmt: skip
    parser.add_argument(
        "--fill", nargs="?", const="previous", choices=["previous"],
        help="add flat bars for minutes that are known to be without trades; never for gaps",
    )  # fmt: skip
    add_clock(parser)  # as every tool; nothing is exported that has not happened
    return parser


# --- shapes


def _csv(table: pa.Table, sink: BinaryIO) -> None:
    """Numbers as Python writes them: the shortest text that reads back to the same bits."""
    text = io.TextIOWrapper(sink, encoding="utf-8", newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table.column_names)
    for batch in table.to_batches(max_chunksize=50_000):
        writer.writerows(zip(*map(_cells, batch.columns), strict=True))
    text.flush()
    text.detach()


def _cells(column: pa.Array[Any]) -> list[Any]:
    values: list[Any] = column.to_pylist()
    return [str(value).lower() for value in values] if pa.types.is_boolean(column.type) else values


def _ohlcv(table: pa.Table, sink: BinaryIO) -> None:
    times: list[Any] = table.column("open_time_ms").to_pylist()
    dates = pa.array([f"{utc_text(time).replace(' ', 'T')}Z" for time in times], pa.string())
    _csv(_bars(table).set_column(0, "date", dates), sink)


def _feather(table: pa.Table, sink: BinaryIO) -> None:
    bars, content = _bars(table).combine_chunks(), pa.BufferOutputStream()
    with pa.ipc.new_file(content, bars.schema, options=pa.ipc.IpcWriteOptions(compression="lz4")) as writer:
        writer.write_table(bars)
    sink.write(content.getvalue())


def _parquet(table: pa.Table, sink: BinaryIO) -> None:
    content = pa.BufferOutputStream()
    pq.write_table(_bars(table), content, write_page_checksum=True)
    sink.write(content.getvalue())


def _ccxt(table: pa.Table, sink: BinaryIO) -> None:
    names = ("open_time_ms", *_NUMBERS)
    rows = zip(*(table.column(name).to_pylist() for name in names), strict=True)
    sink.write(b"[")
    for number, row in enumerate(rows):
        sink.write((",\n" if number else "\n").encode() + json.dumps(row, allow_nan=False).encode())
    sink.write(b"\n]\n")


_NUMBERS = ("open", "high", "low", "close", "volume")


def _bars(table: pa.Table) -> pa.Table:
    """Date and five numbers, as most programs want them."""
    dates = table.column("open_time_ms").cast(pa.timestamp("ms", "UTC"))
    return pa.table({"date": dates} | {name: table.column(name) for name in _NUMBERS})


FORMATS = {
    "csv": "{venue}-{folder}-{timeframe}.csv",
    "ohlcv": "{venue}-{folder}-{timeframe}-ohlcv.csv",
    "freqtrade": "{pair}-{timeframe}.feather",
    "freqtrade-parquet": "{pair}-{timeframe}.parquet",
    "ccxt": "{venue}-{folder}-{timeframe}.json",
}
"""Format → the name of its file where the options name none."""

_WRITERS: dict[str, Callable[[pa.Table, BinaryIO], None]] = {
    "csv": _csv,
    "ohlcv": _ohlcv,
    "freqtrade": _feather,
    "freqtrade-parquet": _parquet,
    "ccxt": _ccxt,
}


# --- the file


def _target(where: str, format_: str, reading: ReadResult, data_dir: Path) -> Path:
    """The file to write; raises :class:`_Misplaced` if it would lie in the data directory, or in no directory."""
    series, output = reading.plan.series, Path(where)
    if where.endswith(("/", os.sep)) and not output.is_dir():
        raise _Misplaced(f"{output}: no such directory")
    folder = series.folder
    if output.is_dir():
        output /= FORMATS[format_].format(
            venue=series.venue, folder=folder, pair=folder.replace("-", "_"), timeframe=series.timeframe
        )
    if output.resolve().is_relative_to(data_dir.resolve()):
        raise _Misplaced(f"{output} lies in the data directory, where only the collector writes")
    if not output.parent.is_dir():
        raise _Misplaced(f"{output.parent}: no such directory")
    if where == "-" or (output.exists() and not output.is_file()):
        raise _Misplaced(f"{output} is no file that could be replaced; name one, or a directory")
    return output


def _write_beside(target: Path, write: Callable[[BinaryIO], None]) -> None:
    """Let *write* fill *target*, which is then whole or as it was: a file beside it is written, synced and renamed."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("xb") as sink:
            write(sink)
            sink.flush()
            os.fsync(sink.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


# --- what is printed about the export


@attrs.frozen
class ExportGap:
    """Minutes ``[start_ms, end_ms)`` of the range that are not known; Unix ms."""

    start_ms: int
    end_ms: int
    state: str
    """``open`` | ``unfillable`` | ``unaccounted``"""
    reason: str
    attempts: int


@attrs.frozen(kw_only=True)
class ExportDocument:
    """What ``export --json`` prints of a file that was written."""

    ok: bool
    path: str
    format: str
    venue: str
    symbol: str
    timeframe: str
    start_ms: int
    end_ms: int
    rows: int
    filled_rows: int
    """Of the rows, those that ``--fill`` has added."""
    first_open_ms: int | None
    """Null where there is no row."""
    last_open_ms: int | None
    unknown_minutes: int
    gaps: tuple[ExportGap, ...]


@attrs.frozen(kw_only=True)
class RefusedDocument:
    """What ``export --json`` prints where nothing was written."""

    ok: bool
    error: str
    gaps: tuple[ExportGap, ...]
    """Those for which the export was refused; none where damage or the disk is the reason."""


def _report(reading: ReadResult, target: Path, options: argparse.Namespace) -> None:
    table, series, skipped = reading.table, reading.plan.series, sum(gap.minutes for gap in reading.gaps)
    times = table.column("open_time_ms")
    filled = table.column("filled").to_pylist().count(True) if options.fill else 0
    if options.json:
        document = ExportDocument(
            ok=True,
            path=str(target),
            format=options.format,
            venue=series.venue,
            symbol=series.symbol,
            timeframe=series.timeframe,
            start_ms=reading.plan.since,
            end_ms=reading.plan.until,
            rows=table.num_rows,
            filled_rows=filled,
            first_open_ms=times[0].as_py() if table.num_rows else None,
            last_open_ms=times[-1].as_py() if table.num_rows else None,
            unknown_minutes=skipped,
            gaps=_gaps(reading.gaps),
        )
        print_json(document)
        return
    more = f", {filled:,} of them filled" if options.fill else ""
    show(f"{target}: {series}, {table.num_rows:,} rows{more}")
    if skipped:
        fail(f"{skipped:,} minutes are not known and not in it")


def _gaps(gaps: Iterable[UnknownMinutes]) -> tuple[ExportGap, ...]:
    return tuple(
        ExportGap(gap.since, gap.until, "open" if gap.state == "gap" else gap.state, gap.reason, gap.attempts)
        for gap in gaps
    )
