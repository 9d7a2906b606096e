"""The audit as a command: options in, report on stdout, exit code out.

0 clean, 1 violations found, 2 usage or configuration; 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path

from trio_candles import __version__
from trio_candles.audit.bar import Bar
from trio_candles.audit.coverage import Cover
from trio_candles.audit.history import read_history
from trio_candles.audit.page import page, write_whole
from trio_candles.audit.report import Report, printable
from trio_candles.audit.spans import LATEST
from trio_candles.audit.walk import Selection, audit
from trio_candles.model import MINUTE, Timeframe, canonical_symbol
from trio_candles.store.schema import LOCK

__all__ = ["command", "main"]

CONFIG = Path("config.yaml")


def command() -> int:
    """The console script."""
    return main(sys.argv[1:])


def main(arguments: Sequence[str]) -> int:
    """Audit as *arguments* say and print what was found; the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.since >= options.until:
        parser.error("--from is not before --to")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file's name may be what a code page cannot show
    data_dir = _data_dir(options.config, options.data_dir)
    if data_dir is None:
        return 2
    if not data_dir.is_dir():
        print(f"{data_dir}: no such directory", file=sys.stderr)
        return 2
    if options.html is not None and (wrong := _no_place_for(options.html, data_dir)):
        print(f"--html {options.html}: {wrong}", file=sys.stderr)
        return 2
    # Imported late: neither is needed to audit, and --help should not wait for trio.
    from trio_candles.clock import WallTime, tool_clock
    from trio_candles.store.lock import is_locked

    now = tool_clock(data_dir, options.speed, options.pivot)
    symbol = options.symbol and options.symbol.upper()
    selection = Selection(options.venue, symbol, options.since, options.until)
    covers: dict[tuple[str, str], dict[int, Cover]] | None = None if options.html is None else {}
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
        )
    except KeyboardInterrupt:
        return 130
    finally:
        if bar is not None:
            bar.erase()
    if (options.venue or symbol) and not (report.series or report.gaps or report.violations):
        print(f"{data_dir} knows nothing of {' '.join(filter(None, (options.venue, symbol)))}", file=sys.stderr)
        return 2
    if covers is not None:
        try:
            write_whole(options.html, page(report, covers, read_history(data_dir, selection)))
        except OSError as error:
            print(f"the report cannot be written: {error}", file=sys.stderr)
            return 2
    _print(report, options.json)
    return report.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="trio-candles-audit",
        description="Check everything in a data directory: every file, row and minute. Writes nothing;"
        " may run beside a collector.",
        epilog="Exit code: 0 clean, 1 violations found, 2 usage.",
    )
    # No default here: with --data-dir the configuration is read only if it is asked for.
    parser.add_argument("--config", type=Path, metavar="FILE", help="default: config.yaml")
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="overrides the configuration's data_dir")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout, nothing else there")
    parser.add_argument("--html", type=Path, metavar="FILE", help="also write a report for a browser, in one file")
    parser.add_argument("--venue", help="only this venue")
    parser.add_argument("--symbol", type=_symbol, help="only this symbol: BTC-USD or BTC/USD")
    parser.add_argument(
        "--from",
        dest="since",
        type=_time,
        default=0,
        metavar="TIME",
        help="since this UTC date, ISO time or Unix ms",
    )
    parser.add_argument(
        "--to",
        dest="until",
        type=_time,
        default=LATEST,
        metavar="TIME",
        help="only before this time (not included)",
    )
    parser.add_argument(
        "--timeframes", type=_timeframes, default=(), metavar="LIST",
        help="aggregates that must be there besides those that the collector derives, as in 5m,1h",
    )  # fmt: skip
    parser.add_argument("--speed", type=_speed, metavar="X", help="service seconds per wall second")
    parser.add_argument("--pivot", type=float, metavar="T", help="Unix seconds at which both clocks agree")
    parser.add_argument("--version", action="version", version=f"trio-candles {__version__}")
    return parser


def _no_place_for(html: Path, data_dir: Path) -> str | None:
    """Why the report cannot lie at *html*: said before an hour's audit, not after it."""
    folder = html.absolute().parent
    if not folder.is_dir():
        return f"{folder}: no such directory"
    if html.is_dir():
        return "it is a directory"
    if folder.resolve().is_relative_to(data_dir.resolve()):
        return "it lies in the data directory, where the audit writes nothing"
    return None


def _data_dir(config: Path | None, data_dir: Path | None) -> Path | None:
    """Where to look; ``None`` after saying on stderr why that is not known."""
    if data_dir is not None and config is None:
        return data_dir
    from trio_candles.config import ConfigError, load_config

    try:
        return load_config(config or CONFIG, data_dir=data_dir).data_dir
    except ConfigError as error:
        print(error, file=sys.stderr)
        return None


def _print(report: Report, as_json: bool) -> None:
    if as_json:
        print(json.dumps(report.as_json(), allow_nan=False))
    else:
        print(report.as_text(), end="")


def _symbol(text: str) -> str:
    try:
        canonical_symbol(text.upper())
    except ValueError as error:
        raise argparse.ArgumentTypeError(printable(str(error))) from None
    return text


def _time(text: str) -> int:
    """Unix ms of a UTC date, an ISO time (UTC unless it says otherwise) or Unix ms; on a minute."""
    try:
        if text.isascii() and text.isdigit() and len(text) > 8:
            time = int(text)
        elif len(text) == 10:
            time = (date.fromisoformat(text).toordinal() - date(1970, 1, 1).toordinal()) * 86_400_000
        else:
            moment = datetime.fromisoformat(text)
            aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
            time = round(aware.timestamp() * 1000)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"{text!r} is no UTC date, ISO time or Unix ms") from None
    if not 0 <= time <= LATEST:
        raise argparse.ArgumentTypeError(f"{text!r} is not between 1970 and 2300")
    return time - time % MINUTE


def _timeframes(text: str) -> tuple[str, ...]:
    names = tuple(name for name in text.split(",") if name and name != "1m")
    try:
        for name in names:
            Timeframe.parse(name)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return names


def _speed(text: str) -> float:
    speed = float(text)
    if not 0 < speed < 1e12:
        raise argparse.ArgumentTypeError(f"{text!r} is not above zero")
    return speed
