"""What check and monitor are asked to look at: a directory, its series, its clock; and one look at these."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from trio_candles.candles.model import Series
from trio_candles.command import options as command_options
from trio_candles.command.options import CONFIG, NO_DIRECTORY, tool_time, trouble_with
from trio_candles.health.judge import Health, judge
from trio_candles.health.reading import read_health

if TYPE_CHECKING:
    from trio_candles.clock import WallTime

__all__ = ["Target", "add_common", "place_of", "screen_size", "target_of"]


class Unusable(Exception):
    """Usage or configuration, reported on stderr; exit code 2."""


@attrs.define
class Target:
    """A data directory, by which clock to read it, and the series that should be fresh there."""

    data_dir: Path
    series: tuple[Series, ...] | None
    """``None``: at each look, the series with which the directory's collector is configured at that moment."""
    source: str
    """Where the series are from, for people."""
    _speed: float | None = None
    _pivot: float | None = None
    _last_expected: tuple[Series, ...] = ()

    def look(self) -> Health:
        """The health of the directory now. Blocking."""
        # A collector that was restarted may have another clock: without options, the clock is read at each look.
        time = tool_time(self.data_dir, self._speed, self._pivot)
        reading = read_health(self.data_dir, time.now, self.series)
        if self.series is not None:
            return judge(reading, self.series, time.speed)
        # A journal that cannot be read right now does not mean that nothing is expected any more.
        self._last_expected = reading.expected or self._last_expected
        return judge(reading, self._last_expected, time.speed)


def add_common(parser: argparse.ArgumentParser) -> None:
    """Add what both tools take."""
    command_options.add_common(
        parser,
        config="names the series that should be fresh; default: config.yaml, or with --data-dir alone those that the"
        " directory's collector was configured with",
        json="JSON on stdout, nothing else there",
    )
    command_options.add_clock(parser)


def target_of(options: argparse.Namespace) -> Target | None:
    """What to look at; ``None`` after printing on stderr why that is not known (exit code 2)."""
    try:
        return _target(options)
    except Unusable as error:
        print(error, file=sys.stderr)
        return None


def place_of(options: argparse.Namespace) -> tuple[Path, WallTime] | None:
    """The data directory to look at and the clock to read it by, without a look; ``None`` as of :func:`target_of`."""
    try:
        data_dir, _, _ = _place(options)
    except Unusable as error:
        print(error, file=sys.stderr)
        return None
    return data_dir, tool_time(data_dir, options.speed, options.pivot)


def _target(options: argparse.Namespace) -> Target:
    data_dir, series, source = _place(options)
    pivot = options.pivot
    if options.speed is not None and pivot is None:
        # Decided once: a pivot of "now" at every look would be a clock that never runs ahead.
        pivot = tool_time(Path(), 1.0, None).pivot
    target = Target(data_dir, series, source, options.speed, pivot)
    if series is None:
        reading = target.look().reading
        if not reading.expected and reading.trouble is None:
            # No collector has noted in the directory what it collects: only a configuration can say what is missing.
            target.series, target.source = _configured(CONFIG, data_dir)[1], str(CONFIG)
    return target


def _place(options: argparse.Namespace) -> tuple[Path, tuple[Series, ...] | None, str]:
    """Data directory, series and source as in :class:`Target`."""
    data_dir, config = options.data_dir, options.config
    series, source = None, "its collector's configuration"
    if data_dir is None or config is not None:
        data_dir, series = _configured(config or CONFIG, data_dir)
        source = str(config or CONFIG)
    trouble = trouble_with(data_dir)
    # If there is no directory, a configuration still says which series are missing; without one, nothing does.
    if trouble is not None and (series is None or trouble != NO_DIRECTORY):
        raise Unusable(f"{data_dir}: {trouble}")
    return data_dir, series, source


def _configured(path: Path, data_dir: Path | None) -> tuple[Path, tuple[Series, ...]]:
    # Imported late: with --data-dir alone nobody should wait for YAML.
    from trio_candles.config.load import ConfigError, load_config

    try:
        config = load_config(path, data_dir=data_dir)
    except ConfigError as error:
        raise Unusable(error) from error
    series = (Series(venue.name, symbol) for venue in config.enabled_venues for symbol in venue.symbols)
    return config.data_dir, tuple(series)


def screen_size(is_terminal: bool, endless: int) -> tuple[int, int]:
    """Columns and lines to fill: the terminal's, or 140 and *endless* for an output that is no terminal."""
    if not is_terminal:
        return 140, endless
    size = shutil.get_terminal_size((80, 24))
    return size.columns, size.lines
