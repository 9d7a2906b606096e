"""What all command lines have in common: options, how their values are read, where the data is.

Every parser begins with :func:`add_common`; a tool that reads a data directory adds :func:`add_clock`, a command that
decides a run as the collector does adds :func:`add_run`. Every ``type=`` function here raises ArgumentTypeError, whose
text argparse prints, exit code 2.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from attrs import AttrsInstance

from trio_candles import __version__
from trio_candles.candles.documents import to_json
from trio_candles.candles.model import Millis, Timeframe, canonical_symbol, printable
from trio_candles.candles.times import unix_ms

if TYPE_CHECKING:
    from trio_candles.clock import WallTime

__all__ = [
    "CONFIG",
    "NO_DIRECTORY",
    "Unwritten",
    "add_clock",
    "add_common",
    "add_run",
    "config_file",
    "data_dir_of",
    "directory",
    "duration",
    "fail",
    "finite",
    "positive",
    "print_json",
    "seconds_of",
    "show",
    "speed",
    "symbol",
    "through_a_pipe",
    "timeframe",
    "tool_clock",
    "tool_time",
    "trouble_with",
    "utc_time",
    "write_plainly",
]

CONFIG = Path("config.yaml")

FASTEST = 10_000.0
"""Service seconds per wall second, at most."""
USAGE = 2
"""The exit code of usage and configuration."""
NO_DIRECTORY = "no such directory"


def add_common(
    parser: argparse.ArgumentParser,
    *,
    config: str = f"default: {CONFIG}",
    json: str | None = "one JSON document on stdout, nothing else there",
) -> None:
    """Add ``--config``, ``--data-dir``, ``--json`` and ``--version``.

    *config* and *json* are the help texts of their options; if *json* is ``None``, there is no ``--json``.
    """
    # No default for --config: with --data-dir the configuration is read only if it is asked for.
    parser.add_argument("--config", type=config_file, metavar="FILE", help=config)
    parser.add_argument("--data-dir", type=directory, metavar="DIR", help="overrides the configuration's data_dir")
    if json is not None:
        parser.add_argument("--json", action="store_true", help=json)
    parser.add_argument("--version", action="version", version=f"trio-candles {__version__}")


def add_clock(parser: argparse.ArgumentParser) -> None:
    """Add ``--speed`` and ``--pivot``: by which clock a data directory is read; by default by its own."""
    parser.add_argument("--speed", type=positive, metavar="X", help="service seconds per wall second")
    parser.add_argument("--pivot", type=finite, metavar="T", help="Unix seconds at which both clocks agree")


def add_run(parser: argparse.ArgumentParser, simulate: str) -> None:
    """Add what decides a run, a default for ``--config`` included; *simulate* is the help of ``--simulate``."""
    parser.set_defaults(config=CONFIG)
    parser.add_argument("--simulate", action="store_true", help=simulate)
    parser.add_argument("--speed", type=speed, metavar="X", help="service seconds per wall second (default 1)")
    parser.add_argument("--pivot", type=finite, metavar="T", help="Unix seconds at which both clocks agree")
    parser.add_argument("--seed", type=int, metavar="N", help="of the simulated market")


def tool_time(data_dir: Path, speed: float | None, pivot: float | None) -> WallTime:
    """The clock by which a tool should read *data_dir*: the one given, else the one it was written under.

    With a pivot alone, the speed is the one that the directory remembers.
    """
    # Imported late: --help should not wait for trio and pyarrow.
    from trio_candles.clock import WallTime
    from trio_candles.store.identity import remembered_meta

    if speed is not None:
        return WallTime.starting(speed, pivot)
    meta = remembered_meta(data_dir)
    try:
        time = WallTime(float(meta["speed"]), float(meta["pivot"]))
    except (KeyError, ValueError):
        time = WallTime()
    return time if pivot is None else WallTime(time.speed, pivot)


def tool_clock(data_dir: Path, speed: float | None, pivot: float | None) -> Callable[[], Millis]:
    """The ``now`` of :func:`tool_time`: the service's time in Unix ms."""
    return tool_time(data_dir, speed, pivot).now


def data_dir_of(config: Path | None, data_dir: Path | None) -> Path | None:
    """The directory to look at, which exists; ``None`` after printing on stderr why there is none (exit code 2)."""
    if data_dir is None or config is not None:
        # Imported late: --help and --data-dir should not wait for YAML.
        from trio_candles.config.load import ConfigError, load_config

        try:
            data_dir = load_config(config or CONFIG, data_dir=data_dir).data_dir
        except ConfigError as error:
            print(error, file=sys.stderr)
            return None
    if (trouble := trouble_with(data_dir)) is not None:
        print(f"{data_dir}: {trouble}", file=sys.stderr)
        return None
    return data_dir


def trouble_with(directory: Path) -> str | None:
    """Why nothing in *directory* can be read, as text; ``None`` if it is a directory and may be searched."""
    try:
        # "directory/." and not "directory", which can be looked at even where it may not be searched.
        mode = os.stat(os.path.join(directory, os.curdir)).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return NO_DIRECTORY
    except OSError as error:
        return error.strerror or str(error)
    return None if stat.S_ISDIR(mode) else NO_DIRECTORY


def write_plainly() -> None:
    """Let stdout and stderr show what a terminal's code page cannot, instead of failing: a file's name, a symbol.

    If we were started without one of the two, what is written there is lost, and nothing fails.
    """
    sys.stdout = sys.stdout or _nowhere()
    sys.stderr = sys.stderr or _nowhere()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _nowhere() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")


class Unwritten(Exception):
    """Stdout cannot be written; the text is the system's."""


def show(text: str, end: str = "\n") -> None:
    """Write *text* to stdout at once; raises :class:`Unwritten` where stdout does not take it."""
    try:
        print(text, end=end, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise Unwritten(str(error)) from error


def print_json(document: AttrsInstance) -> None:
    """*document* on stdout, as one line of JSON."""
    show(to_json(document))


def fail(message: object, code: int = USAGE) -> int:
    """Print *message* on stderr; returns *code*, the exit code."""
    print(message, file=sys.stderr)
    return code


def through_a_pipe(run: Callable[[], int], left: int = 1) -> int:
    """The exit code of *run*; *left* if the reader of its output leaves before *run* ends, as ``| head`` does.

    Output that cannot be written is reported on stderr, exit code 2: no other code means anything without its output.
    """
    write_plainly()
    code = left
    try:
        code = run()
        show("", end="")
    except* BrokenPipeError:
        _discard_stdout()
    except* Unwritten as group:
        _discard_stdout()
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        code = fail(f"the output cannot be written: {error}")
    return code


def _discard_stdout() -> None:
    """Point stdout at nothing: what Python still holds for it would fail again, louder, at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


# --- values


def directory(text: str) -> Path:
    """The path of a directory, held to the rule for the configuration's ``data_dir``."""
    if not text.strip() or re.match(r"~(?:[/\\]|$)", text):
        # A blank may be an unset variable, and would be the working directory; and not every shell expands a ~.
        raise argparse.ArgumentTypeError(f"expected a directory, written out; found {text!r}")
    if re.search(r"[\x00-\x1f\x7f-\x9f]", text):
        raise argparse.ArgumentTypeError(f"expected a directory without control characters, found {text!r}")
    return Path(text)


def config_file(text: str) -> Path:
    """The path of a file; refuses a blank one, as of an unset variable."""
    if not text.strip():
        raise argparse.ArgumentTypeError(f"expected a file, found {text!r}")
    return Path(text)


def utc_time(text: str) -> Millis:
    """Unix ms of a UTC date, an ISO time (UTC unless it says otherwise) or Unix ms."""
    try:
        return unix_ms(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def symbol(text: str) -> str:
    """*text* in upper case, if it could be a symbol: ``BTC-USD``, ``BTC/USD``."""
    try:
        canonical_symbol(text.upper())
    except ValueError as error:
        raise argparse.ArgumentTypeError(printable(str(error))) from None
    return text.upper()


def timeframe(text: str) -> str:
    """*text*, if it is a timeframe."""
    try:
        return Timeframe.parse(text).name
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def positive(text: str) -> float:
    """A number above zero, and finite."""
    number = finite(text)
    if number <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not above zero")
    return number


def speed(text: str) -> float:
    """A number above zero, and at most :data:`FASTEST`: service seconds per wall second."""
    number = positive(text)
    if number > FASTEST:
        raise argparse.ArgumentTypeError(f"{text!r} is more than {FASTEST:.0f}, which no machine keeps up with")
    return number


_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)([smhd])?", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def seconds_of(text: str, unit: str | None = None) -> float | None:
    """The seconds in ``90s``, ``10m``, ``2h`` or ``1d``; a bare number is in *unit*. ``None`` for other texts."""
    match = _DURATION.fullmatch(text)
    if match is None or not (unit := match[2] or unit):
        return None
    return float(match[1]) * _SECONDS[unit]


def duration(text: str) -> float:
    """``90s``, ``10m``, ``2h``, ``1d`` in seconds; above zero."""
    seconds = seconds_of(text)
    if not seconds:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration; expected a number and s, m, h or d, as in 10m")
    return seconds


def finite(text: str) -> float:
    """A number, not ``nan`` and not ``inf``, of a size that a clock can show."""
    try:
        number = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from None
    if not -1e12 < number < 1e12:
        raise argparse.ArgumentTypeError(f"{text!r} is out of range")
    return number
