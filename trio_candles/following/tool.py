"""The change feed as a command: a line of JSON for each change, on stdout.

With ``--state`` the cursor is kept in a file once the lines up to there were written: after each thousand lines, and
when half a second has passed without one. So a restarted pipe goes on where it was; a line may come twice, none is left
out. The cursor moves on, twice a minute, past what the options leave out.

Exit code: 0 after a signal, or when the reader of the lines has gone; 1 if the cursor is not served any more, or the
feed cannot be read any more; 2 usage, or the output cannot be written.
"""

from __future__ import annotations

import argparse
import select
import sys
from collections.abc import Sequence

from trio_candles.candles.documents import to_json
from trio_candles.command.options import add_common, data_dir_of, fail, show, through_a_pipe, timeframe, write_plainly
from trio_candles.command.signals import Signals
from trio_candles.reading.changes import EVENTS
from trio_candles.reading.errors import CursorError, NoLedger, NoSuchDirectory, ReadError, UnknownSeries
from trio_candles.reading.feed import OLDEST
from trio_candles.reading.follow import Changes, CursorFile, follow_sync

__all__ = ["main", "run"]

QUIET_SECONDS = 0.5
"""Without a change for so long, the cursor is kept."""
LINES_AT_ONCE = 1_000
"""After so many lines without a pause, the cursor is kept, too: each time costs a sync of the disk."""
QUIET_ROUNDS = 60
"""After so many times of quiet without a line, the cursor is kept if it has moved."""


def run(signals: Signals) -> int:
    """The console script, its signals being held already."""
    return through_a_pipe(lambda: main(sys.argv[1:], signals), left=0)


def main(arguments: Sequence[str], signals: Signals) -> int:
    """Print what *arguments* ask for until *signals* ask for a stop; the exit code."""
    options = _parser().parse_args(arguments)
    write_plainly()
    data_dir = data_dir_of(options.config, options.data_dir)
    if data_dir is None:
        return 2
    try:
        state = None if options.state is None else CursorFile(options.state)
        kept = None if state is None else state.read()
        after = options.after if kept is None else kept
        changes = follow_sync(data_dir, options.series, options.timeframe, options.event, after, QUIET_SECONDS)
    except CursorError as error:
        return fail(error, 1)
    except (ValueError, NoLedger, NoSuchDirectory, UnknownSeries, OSError) as error:
        return fail(error)
    except ReadError as error:
        return fail(error, 1)
    signals.on_stop(changes.close)
    with changes:
        try:
            _print(changes, state, kept, signals)
        except ReadError as error:
            return fail(error, 1)
        except OSError as error:
            if state is None or isinstance(error, BrokenPipeError):
                raise
            return fail(f"the cursor cannot be kept: {error}", 1)
    return 0


def _print(changes: Changes, state: CursorFile | None, kept: str | None, signals: Signals) -> None:
    """Print *changes* until a stop is asked for, and keep their cursor in *state*, which has *kept*."""
    lines, quiet = 0, 0

    def keep() -> None:
        nonlocal kept, lines, quiet
        if state is not None and changes.cursor != kept:
            state.write(changes.cursor)
        kept, lines, quiet = changes.cursor, 0, 0

    while not signals.asked:
        for change in changes:
            show(to_json(change))
            lines += 1
            if lines >= LINES_AT_ONCE:
                keep()
        quiet += 1
        _check_reader()
        if lines or quiet >= QUIET_ROUNDS or signals.asked:
            keep()


def _check_reader() -> None:
    """Raise ``BrokenPipeError`` if whoever read the lines has gone: with no line to write nothing else would say so."""
    if sys.platform == "win32":
        return
    look = select.poll()
    try:
        look.register(sys.stdout.fileno(), 0)
        found = look.poll(0)
    except (OSError, ValueError):  # there is no file behind it
        return
    if any(events & (select.POLLERR | select.POLLHUP) for _, events in found):
        raise BrokenPipeError


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="trio-candles-follow",
        description="Print what becomes known, in the order in which it became durable, as lines of JSON, until Ctrl-C."
        " Reads only; may run beside a collector, or wait for one.",
        epilog="Exit code: 0 after a signal or when the reader has gone, 1 the cursor or the feed is not served any"
        " more, 2 usage. docs/following.md says what each event means.",
    )
    add_common(parser, json=None)
    parser.add_argument(
        "--series", action="append", metavar="VENUE:SYMBOL", help="with wildcards, repeatable; default: all"
    )
    parser.add_argument(
        "--timeframe", action="append", type=timeframe, metavar="TF", help="any that divides a day; default: 1m"
    )
    parser.add_argument("--event", action="append", choices=EVENTS, metavar="EVENT", help=f"of {', '.join(EVENTS)}")
    parser.add_argument(
        "--after", metavar="CURSOR", help=f"where to begin: a cursor, or {OLDEST!r}; default: with what comes from now"
    )
    parser.add_argument(
        "--state",
        metavar="FILE",
        help="keep the cursor there; if the file is there, go on from it, whatever --after says",
    )
    return parser
