"""The freshness check as a command: 0 every series fresh, 1 something stale or missing, 2 usage."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from trio_candles.candles.model import printable
from trio_candles.command.options import print_json, show, through_a_pipe, write_plainly
from trio_candles.health.alive import look_alive
from trio_candles.health.options import add_common, place_of, screen_size, target_of
from trio_candles.health.screen import ENDLESS, as_text, check_lines

__all__ = ["command", "main"]


def command() -> int:
    """The console script."""
    try:
        return through_a_pipe(lambda: main(sys.argv[1:]))
    except KeyboardInterrupt:
        return 130


def main(arguments: Sequence[str]) -> int:
    """Look once as *arguments* say and print the result; returns the exit code."""
    options = _parser().parse_args(arguments)
    write_plainly()
    if options.alive:
        return _alive(options)
    target = target_of(options)
    if target is None:
        return 2
    health = target.look()
    if options.json:
        # Imported late: 8 ms for documents that the table does not need.
        from trio_candles.health.report import check_document

        print_json(check_document(health, target.data_dir))
    else:
        terminal = sys.stdout.isatty()
        if terminal and sys.platform == "win32":
            os.system("")  # lets a Windows console understand colours
        width, height = screen_size(terminal, ENDLESS)
        lines = check_lines(health, target.data_dir, target.source, width, height)
        show(as_text(lines, width, coloured=terminal and "NO_COLOR" not in os.environ), end="")
    return 0 if health.all_fresh else 1


def _alive(options: argparse.Namespace) -> int:
    place = place_of(options)
    if place is None:
        return 2
    data_dir, time = place
    found = look_alive(data_dir, time.now, time.speed)
    if options.json:
        print_json(found)
    else:
        show(f"{'OK' if found.ok else 'NOT ALIVE'}: {printable(found.detail)}")
    return 0 if found.ok else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="trio-candles-check",
        description="Is every configured series fresh: did the newest minute known to be a candle or empty end at most"
        " 6 minutes ago? A quiet symbol is fresh. Writes nothing; may run beside a collector.",
        epilog="Exit code: 0 every series fresh, 1 something stale or missing, 2 usage.",
    )
    parser.add_argument(
        "--alive",
        action="store_true",
        help="ask only whether the collector published its state within 30 s: 0 yes, 1 no",
    )
    add_common(parser)
    return parser
