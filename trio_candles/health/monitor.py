"""The monitor as a command: runs until SIGINT (0); with ``--once`` 0 healthy, 1 not; 2 usage.

::

    monitor
    ├ watch      every interval reads the health, compares it with the last, hands both on; waits for no other task
    ├ screen     shows the health: a terminal that is paused holds up this task alone
    └ deliver    posts alerts, each until it has arrived
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from functools import partial
from typing import TextIO, TypeVar
from urllib.parse import urlsplit

import attrs
import trio

from trio_candles.candles.documents import to_json
from trio_candles.candles.model import Series, printable, utc_text
from trio_candles.command.options import seconds_of, write_plainly
from trio_candles.command.signals import Signals
from trio_candles.config.kinds import is_loopback_url
from trio_candles.health.alerts import ALERTS_QUEUED, Alert, AlertDocument, Problems, alert_documents, deliver
from trio_candles.health.judge import Health
from trio_candles.health.lag import Lags
from trio_candles.health.options import Target, add_common, screen_size, target_of
from trio_candles.health.report import monitor_document
from trio_candles.health.screen import ENDLESS, as_text, monitor_lines, series_text, summary_text
from trio_candles.network.trust import BadAuthorities, trusted
from trio_candles.network.webhook import Webhook, open_webhook
from trio_candles.threads import Offload, in_thread

__all__ = ["View", "main", "monitor"]

T = TypeVar("T")

INTERVAL_SECONDS = 5.0
SHOWN_QUEUED = 100
"""Views that wait for a terminal that is paused or a pipe that is full; further views are not shown."""
GOODBYE_SECONDS = 2.0
"""For alerts that are on their way when we are stopped."""
ONCE_SECONDS = 30.0
"""For the alerts of ``--once``."""
DAY_SECONDS = 86_400.0
INTERRUPTED = 130


@attrs.frozen
class View:
    """The health at one look, and what changed since the look before."""

    health: Health
    lags: Mapping[Series, int]
    """In ms."""
    alerts: Sequence[Alert]
    first: bool


OpenHook = Callable[[str], AbstractAsyncContextManager[Webhook]]

Show = Callable[[View], None]
"""Writes a view to where people or programs see it. Blocking."""


def main(
    arguments: Sequence[str],
    signals: Signals,
    *,
    open_hook: OpenHook = open_webhook,
) -> int:
    """Monitor as *arguments* say; the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    write_plainly()
    target = target_of(options)
    if target is None:
        return 2
    try:
        if options.webhook is not None:
            trusted()
    except BadAuthorities as error:
        print(error, file=sys.stderr)
        return 2
    show = _show(options, target)
    try:
        interval = None if options.once else options.interval
        return trio.run(partial(monitor, target, signals, show, interval, webhook=options.webhook, open_hook=open_hook))
    except* OSError as group:
        print(f"the output cannot be written: {group.exceptions[0]}", file=sys.stderr)
    return 2  # with --once, 1 would mean that something is not well


async def monitor(
    target: Target,
    signals: Signals,
    show: Show,
    interval: float | None,
    *,
    webhook: str | None = None,
    open_hook: OpenHook = open_webhook,
    offload: Offload = in_thread,
) -> int:
    """Look every *interval* seconds until a signal asks to stop, or once for ``None``; the exit code.

    ``OSError`` if the output cannot be written.
    """
    stop = trio.Event()
    token = trio.lowlevel.current_trio_token()

    def ask() -> None:
        with suppress(trio.RunFinishedError):
            token.run_sync_soon(stop.set)

    signals.on_stop(ask)
    frames, to_show = trio.open_memory_channel[View](SHOWN_QUEUED)
    alerts, to_post = trio.open_memory_channel[AlertDocument](ALERTS_QUEUED)
    delivered = trio.Event()
    watcher = Watcher(target, Lags(target.data_dir), Problems(), frames, alerts if webhook is not None else None)
    code = INTERRUPTED if interval is None else 0
    async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
        if webhook is None:
            delivered.set()
        else:
            hook = await stack.enter_async_context(open_hook(webhook))
            nursery.start_soon(_then, delivered.set, deliver, to_post, hook.post, _complain, name="deliver")
        if interval is None:
            nursery.start_soon(_then, nursery.cancel_scope.cancel, stop.wait, name="signals")
            healthy = await watcher.look(offload)
            frames.close()
            alerts.close()
            await _write_all(to_show, show, offload)
            patience = ONCE_SECONDS
            code = 0 if healthy else 1
        else:
            nursery.start_soon(_write_all, to_show, show, offload, name="screen")
            nursery.start_soon(watcher.watch, interval, offload, name="watch")
            await stop.wait()
            alerts.close()
            patience = GOODBYE_SECONDS
        with trio.move_on_after(patience):
            await delivered.wait()
        if not delivered.is_set():
            _complain("not every alert could be delivered")
        nursery.cancel_scope.cancel()
    return code


async def _then(done: Callable[[], None], work: Callable[..., Awaitable[None]], *args: object) -> None:
    """Call *done* once *work* has ended well."""
    await work(*args)
    done()


@attrs.define
class Watcher:
    """Reads the health, compares it with the last, hands both on; waits for nothing but the disk."""

    _target: Target
    _lags: Lags
    _known: Problems
    _frames: trio.MemorySendChannel[View]
    _alerts: trio.MemorySendChannel[AlertDocument] | None
    _first: bool = True

    async def watch(self, interval: float, offload: Offload) -> None:
        """Look every *interval* seconds, for ever."""
        while True:
            due = trio.current_time() + interval
            await self.look(offload)
            await trio.sleep_until(due)

    async def look(self, offload: Offload) -> bool:
        """Look once; returns whether all is well."""
        health, lags = await offload(self._read)
        changes = self._known.note(health)
        # To a paused terminal nothing is shown; the next view has the whole state again.
        with suppress(trio.WouldBlock):
            self._frames.send_nowait(View(health, lags, changes, self._first))
        self._first = False
        if self._alerts is not None:
            try:
                for document in alert_documents(changes, self._known.open, health.reading.now, self._target.data_dir):
                    self._alerts.send_nowait(document)
            except trio.WouldBlock:
                _complain("too many alerts wait for the webhook; one is lost")
            except trio.ClosedResourceError:
                pass  # we are being stopped
        return health.healthy

    def _read(self) -> tuple[Health, Mapping[Series, int]]:
        health = self._target.look()
        return health, self._lags.update(health.reading.series)


async def _write_all(views: trio.MemoryReceiveChannel[View], show: Show, offload: Offload) -> None:
    async for view in views:
        await offload(show, view)


def _complain(text: str) -> None:
    print(printable(text), file=sys.stderr, flush=True)


# --- what is shown


def _show(options: argparse.Namespace, target: Target) -> Show:
    """How views are written, as options and stdout have it."""
    out, terminal = sys.stdout, sys.stdout.isatty()
    if options.json:
        return lambda view: _write(out, to_json(monitor_document(view.health, target.data_dir, view.lags)) + "\n")
    if terminal and sys.platform == "win32":
        os.system("")  # lets a Windows console understand colours
    coloured = terminal and "NO_COLOR" not in os.environ
    if terminal or options.once:
        return lambda view: _write(
            out, _table(view, target, terminal=terminal, redraw=not options.once, coloured=coloured)
        )
    return lambda view: _write(out, _lines(view))


def _table(view: View, target: Target, *, terminal: bool, redraw: bool, coloured: bool) -> str:
    width, height = screen_size(terminal, ENDLESS)
    lines = monitor_lines(view.health, target.data_dir, view.lags, width, height)
    if not (terminal and redraw):
        return as_text(lines, width, coloured=coloured)
    # Written over the last table, line by line, so that nothing flickers; cleared at first, and below the table.
    text = as_text(lines, width, coloured=coloured, end="\x1b[K\n")
    return ("\x1b[2J" if view.first else "") + f"\x1b[H{text}\x1b[J"


def _lines(view: View) -> str:
    """A summary, and each series once; from then on a line for whatever changes."""
    health = view.health
    lines = [summary_text(health)]
    time = utc_text(health.reading.now)
    if view.first:
        lines += [f"{time}   {series_text(one, view.lags.get(one.series))}" for one in health.series]
    for alert in view.alerts:
        for problem in alert.problems:
            why = f": {problem.detail}" if alert.event == "unhealthy" else ""
            lines.append(f"{time}   {alert.event}: {printable(f'{problem.subject}{why}')}")
    return "\n".join(lines) + "\n"


def _write(stream: TextIO, text: str) -> None:
    """Write past Python's buffers: what a broken pipe leaves in them would fail again, louder, at exit."""
    rest = memoryview(text.encode(stream.encoding or "utf-8", "backslashreplace"))
    while rest:
        rest = rest[os.write(stream.fileno(), rest) :]


# --- options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="trio-candles-monitor",
        description="Watch a data directory beside its collector: freshness, lag, coverage, gaps, rejections. Writes"
        " nothing. Runs until Ctrl-C.",
        epilog="Exit code: 0 after Ctrl-C; with --once 0 healthy, 1 not; 2 usage. With --json, one document per"
        " look, each on a line.",
    )
    add_common(parser)
    parser.add_argument("--once", action="store_true", help="look once; the exit code says whether all is well")
    parser.add_argument(
        "--interval", type=_interval, default=INTERVAL_SECONDS, metavar="D",
        help="wall-clock time between two looks: 5, 10s, 1m (default 5s)",
    )  # fmt: skip
    parser.add_argument(
        "--webhook", type=_url, metavar="URL",
        help="post a JSON alert there when something becomes unhealthy and when it recovers; https, or http to this"
        " machine",
    )  # fmt: skip
    return parser


def _interval(text: str) -> float:
    seconds = seconds_of(text, unit="s")
    if seconds is None or not 0.1 <= seconds <= DAY_SECONDS:
        raise argparse.ArgumentTypeError(f"{text!r} is no time from 0.1 s to a day; expected 5, 10s or 1m")
    return seconds


def _url(text: str) -> str:
    try:
        url = urlsplit(text)
        named = bool(url.hostname) and url.username is None and (url.port is None or url.port > 0)
    except ValueError:
        named = False
    if not (named and text.isascii() and (url.scheme == "https" or (url.scheme == "http" and is_loopback_url(text)))):
        # The URL is not repeated: there is often a token in it.
        raise argparse.ArgumentTypeError("expected https://..., or http:// to this machine")
    return text
