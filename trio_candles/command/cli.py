"""The collector as a command: options in, exit code out.

======= ==========================================================================================
0       stopped cleanly, by a signal or after ``--duration``
1       an unexpected failure (its traceback is on the console and in the log), a disk that is full or
        failing at the start, a journal that others do not let go of, or verdicts that could not be made
        durable in time (they are named on stderr)
2       bad configuration or usage, or a data directory that belongs to another kind of run or is closed
        to us (no permission, read-only, no directory)
3       another collector holds the data directory
130     a second SIGINT
======= ==========================================================================================
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import trio

from trio_candles.clock import ServiceClock
from trio_candles.collector.feed import leaves
from trio_candles.collector.service import Service, open_service
from trio_candles.collector.status import render
from trio_candles.command.console import LOG_NAME, Console, open_console
from trio_candles.command.launch import Plan, UsageError, plan, world
from trio_candles.command.notify import Manager, keep_telling, summary
from trio_candles.command.options import add_common, add_run, duration
from trio_candles.command.signals import Signals, StopAsked
from trio_candles.command.start import Start
from trio_candles.config.load import Config, ConfigError
from trio_candles.network.names import looking_up
from trio_candles.network.streams import paced_ticks
from trio_candles.network.websocket import CLOSE_SECONDS, Network, dial_tcp
from trio_candles.store.disk import is_closed
from trio_candles.store.lock import Locked
from trio_candles.store.mounts import Mount, is_networked, mount_of, mounts, spanning
from trio_candles.store.store import Store, StoreUnavailable, WrongDirectory, open_store
from trio_candles.venues.registry import VENUES
from trio_candles.venues.venue import Venue

__all__ = ["run"]

log = logging.getLogger(__name__)


def parser() -> argparse.ArgumentParser:
    """The collector's options."""
    parser = argparse.ArgumentParser(
        prog="trio-candles", description="Collect closed 1-minute candles of several crypto exchanges into parquet."
    )
    add_common(parser, json=None)
    add_run(parser, "collect from simulated exchanges in this process; needs no network")
    parser.add_argument(
        "--duration", type=duration, metavar="D", help="stop after D of the service's time: 90s, 10m, 2h"
    )
    parser.add_argument(
        "--log-level", type=str.upper, default="WARNING", metavar="LEVEL",
        choices=["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"], help="of the console (default WARNING)",
    )  # fmt: skip
    return parser


def run(arguments: Sequence[str], signals: Signals, venues: Mapping[str, Venue] = VENUES) -> int:
    """Run the collector until it is asked to stop; the exit code."""
    options = parser().parse_args(arguments)
    try:
        planned = plan(options)
    except (ConfigError, UsageError) as error:
        print(error, file=sys.stderr)
        return 2
    level = logging.getLevelNamesMapping()[options.log_level]
    code, console = _run_with_console(planned, level, signals, venues)
    if console is not None and console.stuck:
        # The console's thread hangs in a pipe or a terminal that takes nothing, and Python would wait for it.
        os._exit(code)
    return code


def _run_with_console(
    planned: Plan, level: int, signals: Signals, venues: Mapping[str, Venue]
) -> tuple[int, Console | None]:
    console, start = None, None
    with ExitStack() as stack:
        try:
            config = planned.config
            console = stack.enter_context(
                open_console(config.log_dir, level, planned.time.at, format=config.logging.format)
            )
            check_file_systems(planned.config, mounts())
            start = Start(planned, console, signals, remarks(planned, console.log_file))
            store = stack.enter_context(open_store(planned.config.data_dir, go_on=start.go_on))
            signals.go_on()
            start.opened()
            store.claim(
                planned.kind, seed=planned.seed, speed=planned.time.speed, pivot=planned.time.pivot,
                **({} if planned.of_wall else {"latest_ms": planned.time.now()}),
            )  # fmt: skip
            if console.log_file.name != LOG_NAME:
                log.warning("another run writes to %s there; this one logs to %s", LOG_NAME, console.log_file)
        except StopAsked:
            log.info("asked to stop before anything was started")
            assert start is not None
            start.given_up()
            return 0, console
        except Locked:
            print(f"another collector holds {planned.config.data_dir}", file=sys.stderr)
            return 3, console
        except (WrongDirectory, OSError) as error:
            print(error, file=sys.stderr)
            return exit_code(error), console
        return _run(planned, store, console, signals, venues), console


def check_file_systems(config: Config, known: Sequence[Mount]) -> None:
    """:class:`WrongDirectory` if the data directory spans file systems; a warning if it lies on a network's. What is
    mounted is *known*.
    """
    divided = spanning(config.data_dir, [venue.name for venue in config.venues], known)
    if divided is not None:
        raise WrongDirectory(divided)
    mount = mount_of(config.data_dir, known)
    if mount is not None and is_networked(mount):
        log.warning(
            "%s lies on a network file system (%s): its locks and syncs cannot be relied on, and what is durable here"
            " may be lost or damaged; keep data_dir on a local disk", config.data_dir, mount,
        )  # fmt: skip


def exit_code(error: WrongDirectory | OSError) -> int:
    """2 where the command or the directory must be mended; 1 where a supervisor may try again: a full disk, a lock."""
    match error:
        case StoreUnavailable():
            return 2 if error.closed else 1
        case OSError():
            # The log's directory; "exists" is a file in its place.
            return 2 if is_closed(error) or isinstance(error, FileExistsError | IsADirectoryError) else 1
    return 2


def _run(planned: Plan, store: Store, console: Console, signals: Signals, venues: Mapping[str, Venue]) -> int:
    clock = ServiceClock(planned.time.speed)
    try:
        service = trio.run(collect, planned, store, console, signals, venues, clock=clock)
    # The outermost handler: whatever ends the service, a bug included, is on the console and in the log, whole.
    except BaseException as error:
        report(error)
        if console.failed is not None:  # nobody is left to write what was reported
            traceback.print_exception(error)
        return 1
    if not service.writing.finished:
        code = complain(service)
        console.stop()
        # A thread may hang in the disk; it is not waited for. What is durable stays durable.
        os._exit(code)
    return 0


async def collect(
    planned: Plan, store: Store, console: Console, signals: Signals, known: Mapping[str, Venue]
) -> Service:
    """Collect until a signal or the end of the duration; returns the service as it was at the end. Raises what ended
    the service, or the console's thread.
    """
    stop = trio.Event()
    token = trio.lowlevel.current_trio_token()

    def ask() -> None:
        # A signal that comes after the end is not needed: everything is ending.
        with suppress(trio.RunFinishedError):
            token.run_sync_soon(stop.set)

    signals.on_stop(ask)
    console.on_failure(ask)
    time, manager = planned.time, Manager.of(os.environ, os.getpid())
    async with looking_up(), world(planned) as config:
        goodbye = min(CLOSE_SECONDS, config.shutdown.timeout_seconds / 4)
        network = Network(dial_tcp(paced_ticks(time.now)), time.speed, goodbye)
        async with open_service(
            config, network, store, time, show=console.show, venues=known, of_wall=planned.of_wall
        ) as service:
            log.info("started: %s candles into %s, %s", planned.kind, planned.config.data_dir, time)
            async with trio.open_nursery() as nursery:
                if manager is not None:
                    nursery.start_soon(
                        keep_telling, manager, service.writing, lambda: summary(service.board, time.now()), time.speed,
                        name="manager",
                    )  # fmt: skip
                with trio.move_on_after(planned.duration if planned.duration is not None else float("inf")):
                    await stop.wait()
                nursery.cancel_scope.cancel()
            log.info("stopping")
            if manager is not None:
                manager.tell("STOPPING=1")
    if console.failed is not None:
        raise console.failed
    console.show(render(service.board, time.now()), final=True)
    return service


def remarks(planned: Plan, log_file: Path) -> list[str]:
    """Lines for the banner: where the candles go, and what about this run is not as usual."""
    config = planned.config
    lines = [f"Data: {config.data_dir}   Log: {log_file}   Ctrl-C stops"]
    if planned.simulate:
        lines.append(f"SIMULATED exchanges, market seed {planned.seed}")
    if planned.accelerated:
        lines.append(f"The clock runs at {planned.time.speed:g} times the wall's; this directory remembers it")
    return lines


def report(error: BaseException) -> None:
    """Log the whole traceback, and each leaf of a group in a line with its notes: five groups deep is usual here."""
    log.critical("the service has failed", exc_info=error)
    group = error if isinstance(error, BaseExceptionGroup) else BaseExceptionGroup("", [error])
    for leaf in leaves(group):
        notes = "".join(f" ({note})" for note in getattr(leaf, "__notes__", ()))
        last = traceback.extract_tb(leaf.__traceback__)[-1:]
        where = f" at {last[0].filename}:{last[0].lineno}" if last else ""
        log.critical("%s: %s%s%s", type(leaf).__name__, leaf, notes, where)


def complain(service: Service) -> int:
    """Name on stderr what is not durable although time is over; the exit code: 0 if only day files lag behind."""
    pending = service.writing.pending
    if not pending:
        log.warning("the disk did not answer in time; what day files lack is in the journal, for the next start")
        return 0
    print("not everything could be written in time:", file=sys.stderr)
    series = sorted({str(verdict.series) for verdict in pending})
    print(f"  {len(pending)} verdicts are lost (their minutes will be gaps): {', '.join(series)}", file=sys.stderr)
    for part, error in service.board.store_errors.items():
        print(f"  the {part} cannot be written: {error}", file=sys.stderr)
    return 1
