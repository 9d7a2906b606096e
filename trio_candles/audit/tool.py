"""The audit as a command: options in, report on stdout, exit code out.

0 clean, 1 violations found, 2 usage or configuration; 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from trio_candles.audit.bar import Bar
from trio_candles.audit.bits import LATEST
from trio_candles.audit.daymap import DayMap
from trio_candles.audit.history import read_history
from trio_candles.audit.page import page, write_whole
from trio_candles.audit.receipts import NotReceipts, Receipts
from trio_candles.audit.walk import Selection, audit
from trio_candles.candles.model import MINUTE
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
    utc_time,
    write_plainly,
)
from trio_candles.store.schema import LOCK

__all__ = ["command", "main"]


def command() -> int:
    """The console script."""
    return through_a_pipe(lambda: main(sys.argv[1:]))


def main(arguments: Sequence[str]) -> int:
    """Audit as *arguments* say and print what was found; returns the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.since >= options.until:
        parser.error("--from is not before --to")
    write_plainly()
    data_dir = data_dir_of(options.config, options.data_dir)
    if data_dir is None:
        return 2
    for name, place in (("--html", options.html), ("--receipts", options.receipts)):
        if place is not None and (wrong := _no_place_for(place, data_dir)):
            print(f"{name} {place}: {wrong}", file=sys.stderr)
            return 2
    receipts = None
    if options.receipts is not None:
        if options.html is not None and options.receipts.resolve() == options.html.resolve():
            print("--receipts and --html name the same file", file=sys.stderr)
            return 2
        try:
            receipts = Receipts.read(options.receipts)
        except (NotReceipts, OSError) as error:
            print(f"--receipts {options.receipts}: {error}", file=sys.stderr)
            return 2
        if receipts.broken:
            print(f"{options.receipts}: {receipts.broken:,} receipts cannot be read: ignored", file=sys.stderr)
    # Imported late: --help should not wait for trio.
    from trio_candles.clock import WallTime
    from trio_candles.command.options import tool_clock
    from trio_candles.store.lock import is_locked

    now = tool_clock(data_dir, options.speed, options.pivot)
    selection = Selection(options.venue, options.symbol, options.since, options.until)
    covers: dict[tuple[str, str], dict[int, DayMap]] | None = None if options.html is None else {}
    bar = Bar.on(sys.stderr, WallTime().now)
    try:
        report = audit(
            data_dir,
            now=now,
            running=lambda: is_locked(data_dir / LOCK),
            timeframes=options.timeframes,
            selection=selection,
            progress=bar,
            covers=covers,
            receipts=receipts,
        )
    except KeyboardInterrupt:
        return 130
    except OSError as error:  # a folder or the lock file that may not be opened
        return fail(f"{data_dir}: {error}")
    finally:
        if bar is not None:
            bar.erase()
    if report.is_of_nothing:
        return fail(f"{data_dir}: no day files and no journal: this is no data directory, or nothing was collected yet")
    if (options.venue or options.symbol) and not (report.series or report.gaps or report.violations):
        print(f"{data_dir} knows nothing of {' '.join(filter(None, (options.venue, options.symbol)))}", file=sys.stderr)
        return 2
    if covers is not None:
        try:
            write_whole(options.html, page(report, covers, read_history(data_dir, selection)))
        except OSError as error:
            print(f"the report cannot be written: {error}", file=sys.stderr)
            return 2
    if receipts is not None:
        _keep(receipts)
    if options.json:
        print_json(report.document())
    else:
        show(report.as_text(), end="")
    return report.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="trio-candles-audit",
        description="Check everything in a data directory: every file, row and minute. Writes nothing there;"
        " may run beside a collector.",
        epilog="Exit code: 0 clean, 1 violations found, 2 usage.",
    )
    add_common(parser)
    parser.add_argument("--html", type=Path, metavar="FILE", help="also write a report for a browser, in one file")
    parser.add_argument(
        "--receipts", type=Path, metavar="FILE",
        help="keep there, outside the data directory, what each file was found to be: what has not changed since is"
        " hashed at the next audit and not decoded again",
    )  # fmt: skip
    parser.add_argument("--venue", help="only this venue")
    parser.add_argument("--symbol", type=symbol, help="only this symbol: BTC-USD or BTC/USD")
    parser.add_argument(
        "--from",
        dest="since",
        type=_minute,
        default=0,
        metavar="TIME",
        help="since this UTC date, ISO time or Unix ms",
    )
    parser.add_argument(
        "--to",
        dest="until",
        type=_minute,
        default=LATEST,
        metavar="TIME",
        help="only before this time (not included)",
    )
    parser.add_argument(
        "--timeframes", type=_timeframes, default=(), metavar="LIST",
        help="aggregates that must be there besides those that the collector derives, as in 5m,1h",
    )  # fmt: skip
    add_clock(parser)
    return parser


def _keep(receipts: Receipts) -> None:
    """Write *receipts*; if that fails it is said, and the audit's answer stays what it is."""
    try:
        Receipts.read(receipts.path)  # what has come there meanwhile is not ours to overwrite
        write_whole(receipts.path, receipts.text())
    except (NotReceipts, OSError) as error:
        print(f"the receipts cannot be written to {receipts.path}: {error}", file=sys.stderr)


def _no_place_for(file: Path, data_dir: Path) -> str | None:
    """Why nothing can be written to *file*, so that an hour's audit is not begun; ``None`` if it can."""
    folder = file.absolute().parent
    if not os.path.isdir(folder):
        return f"{folder}: no such directory"
    if os.path.isdir(file):
        return "it is a directory"
    if folder.resolve().is_relative_to(data_dir.resolve()):
        return "it lies in the data directory, where the audit writes nothing"
    return None


def _minute(text: str) -> int:
    time = utc_time(text)
    return time - time % MINUTE


def _timeframes(text: str) -> tuple[str, ...]:
    return tuple(timeframe(name) for name in text.split(",") if name and name != "1m")
