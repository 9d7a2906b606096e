"""What a run shows before anything is collected: the banner, the first table, and how far a long opening has come.

Opening a directory takes a moment, unless an older version wrote it, the journal is lost, or a crash left much to do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from trio_candles.clock import stopwatch
from trio_candles.collector.status import Board, VenueBoard, banner, render
from trio_candles.command.console import Console
from trio_candles.command.launch import Plan
from trio_candles.command.signals import Signals

__all__ = ["Start"]

PATIENCE = 1.0
"""Seconds of opening after which it is worth saying what takes so long."""
REDRAWN = 0.2
"""Seconds between two progress lines on a terminal, where each takes the place of the one before."""
REPEATED = 10.0
"""Seconds between two progress lines in a pipe or a file, where all of them stay."""


class Start:
    """The beginning of the run *planned*; *remarks* are lines in its banner, *stopwatch* gives seconds."""

    def __init__(
        self,
        planned: Plan,
        console: Console,
        signals: Signals,
        remarks: Sequence[str] = (),
        stopwatch: Callable[[], float] = stopwatch,
    ) -> None:
        self._console, self._signals, self._remarks, self._stopwatch = console, signals, remarks, stopwatch
        self._names = [venue.name for venue in planned.config.enabled_venues]
        self._board = Board(planned.time.now(), {name: VenueBoard(name, at_stop="[WAIT]") for name in self._names})
        self._shown = False
        self._due = stopwatch() + PATIENCE
        self._told = ""
        """The last progress line."""

    def go_on(self, what: str = "", done: int = 0, of: int = 0) -> None:
        """For whoever opens the directory (``GoOn``): :class:`StopAsked` if a stop was asked for. The first call, which
        says that the directory is ours, shows banner and table; a later one *what* is being done, and how much of it
        is *done*, if the opening takes long.
        """
        self._signals.go_on()
        if not self._shown:
            self._shown = True
            self._console.show(banner(self._names, self._remarks), final=True)
            self._console.show(self._table())
        if what and self._stopwatch() >= self._due:
            much = f": {done:,} of {of:,} ({100 * done // of}%)" if of else f": {done:,}" if done else ""
            self._tell(f"  {what}{much}\n")

    def _tell(self, line: str) -> None:
        if self._console.redraws:
            self._console.show(self._table() + line)
            self._due = self._stopwatch() + REDRAWN
        else:
            self._console.show(line)
            self._due = self._stopwatch() + REPEATED
        self._told = line

    def opened(self) -> None:
        """The directory is open: on a terminal the progress line goes."""
        if self._told and self._console.redraws:
            self._console.show(self._table())

    def given_up(self) -> None:
        """Show the table for the last time: a stop was asked for before anything was started."""
        self._console.show(self._table(), final=True)

    def _table(self) -> str:
        return render(self._board, self._board.started)
