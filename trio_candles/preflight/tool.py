"""Preflight as a command: options in, a line per check on stdout, exit code out.

0 all checks pass (warnings allowed), 1 a check failed, 2 usage or configuration; 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import signal
import sys
import textwrap
from collections.abc import Sequence

import attrs
import trio

from trio_candles.clock import ServiceClock
from trio_candles.command.launch import Plan, UsageError, plan, world
from trio_candles.command.options import add_common, add_run, print_json, show, through_a_pipe, write_plainly
from trio_candles.config.load import ConfigError
from trio_candles.network.websocket import Network, dial_tcp
from trio_candles.preflight.checks import Check, coloured, lines, preflight_document, total
from trio_candles.preflight.run import preflight

__all__ = ["command", "main"]


def command() -> int:
    """The console script."""
    # What the feed logs is in the report already; without a handler Python would write it to stderr.
    logging.getLogger().addHandler(logging.NullHandler())
    # A shell that starts us in the background has SIGINT ignored, and Python leaves it so.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return through_a_pipe(lambda: main(sys.argv[1:]))


def main(arguments: Sequence[str]) -> int:
    """Check what *arguments* say and print what was found; returns the exit code."""
    options = _parser().parse_args(arguments)
    write_plainly()
    try:
        planned = plan(options, looking=True)
    except (ConfigError, UsageError) as error:
        print(error, file=sys.stderr)
        return 2
    screen = _Screen(quiet=options.json)
    interrupted, found = False, list[Check]()
    try:
        found = trio.run(_run, planned, options, screen, clock=ServiceClock(planned.time.speed))
    except* KeyboardInterrupt:
        interrupted = True
    screen.clear()
    if interrupted:
        print("interrupted", file=sys.stderr)
        return 130
    if options.json:
        print_json(preflight_document(found))
    else:
        show(total(found))
    return 1 if any(check.status == "fail" for check in found) else 0


async def _run(planned: Plan, options: argparse.Namespace, screen: _Screen) -> list[Check]:
    network = Network(dial_tcp(lambda: 0.0), planned.time.speed)
    if options.offline:
        return await preflight(planned, None, network, options.config, screen.show)
    async with world(planned) as config:
        return await preflight(planned, config, network, options.config, screen.show)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="trio-candles-preflight",
        description="Is everything ready to start? Looks at this machine and asks the venues, for at most 30 seconds;"
        " leaves nothing behind.",
        epilog="Exit code: 0 all checks pass (warnings allowed), 1 a check failed, 2 usage.",
    )
    add_common(parser)
    parser.add_argument("--offline", action="store_true", help="only what can be told without a network")
    add_run(parser, "ask simulated exchanges in this process")
    parser.set_defaults(duration=None)
    return parser


@attrs.define
class _Screen:
    """Shows the checks of one place after the other, and on a terminal which venues are still being asked."""

    quiet: bool
    _waiting: bool = False

    def show(self, checks: Sequence[Check], waiting: Sequence[str]) -> None:
        """Print *checks*; *waiting* are the venues whose checks are still to come."""
        self.clear()
        if not self.quiet:
            for line in lines(checks):
                show(_fitted(line) if sys.stdout.isatty() else line)
        if waiting and sys.stderr.isatty():
            print(f"asking {', '.join(waiting)} ...", end="", file=sys.stderr, flush=True)
            self._waiting = True

    def clear(self) -> None:
        """Take away the line that says who is being asked."""
        if self._waiting:
            print("\r" + " " * 60 + "\r", end="", file=sys.stderr, flush=True)
            self._waiting = False


def _fitted(line: str) -> str:
    """*line* for a terminal: in colour, and in lines of its width, the later ones below the text of the first."""
    width, indent = max(40, shutil.get_terminal_size().columns), " " * 7
    first = "" if line.startswith("[") else indent
    fitted = textwrap.fill(
        line.strip(), width - 1, initial_indent=first, subsequent_indent=indent,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
    return fitted if "NO_COLOR" in os.environ else coloured(fitted)
