"""The freshness check as a command: 0 every series fresh, 1 something stale or missing, 2 usage."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from trio_candles.command.options import print_json, show, through_a_pipe, write_plainly
from trio_candles.health.options import add_common, screen_size, target_of
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="trio-candles-check",
        description="Is every configured series fresh: did the newest minute known to be a candle or empty end at most"
        " 6 minutes ago? A quiet symbol is fresh. Writes nothing; may run beside a collector.",
        epilog="Exit code: 0 every series fresh, 1 something stale or missing, 2 usage.",
    )
    add_common(parser)
    return parser
