"""What a service manager is told, by systemd's protocol: a few lines of text in a datagram (sd_notify(3)).

=========== ====================================================================================================
READY=1     the directory is ours, and the writer has gone round
STATUS=     the table's first line and the venues, when they change
WATCHDOG=1  the event loop and the writer are alive: the writer has gone round since the last one. Not whether a venue
            is connected or the disk takes anything: neither is helped by a restart
STOPPING=1  a stop has begun
=========== ====================================================================================================

Whoever is started without NOTIFY_SOCKET tells nobody.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Callable, Mapping

import attrs
import trio

from trio_candles.candles.model import Millis
from trio_candles.collector.status import Board
from trio_candles.collector.writer import Writing

__all__ = ["Manager", "keep_telling", "summary"]

log = logging.getLogger(__name__)

PATIENCE_SHARE = 0.25
"""Of the manager's patience, the time between two signs of life: the writer may take five seconds to go round."""
STATUS_SECONDS = 10.0
"""Wall seconds between two looks at the status where no watchdog asks for more."""


@attrs.define
class Manager:
    """The service manager that started us."""

    address: str
    """A path, or ``@`` and a name of Linux's abstract namespace."""
    patience: float | None = None
    """Wall seconds after which the manager takes our silence for a hang; ``None`` if it does not watch."""
    _failed: str = attrs.field(default="", init=False)

    @classmethod
    def of(cls, environment: Mapping[str, str], pid: int) -> Manager | None:
        """The manager that *environment* names to the process *pid*; ``None`` if it names none that can be told."""
        address = environment.get("NOTIFY_SOCKET", "")
        if address[:1] not in ("/", "@") or not hasattr(socket, "AF_UNIX"):
            if address:
                log.warning("NOTIFY_SOCKET is %r, which nobody here can send to", address)
            return None
        watched = environment.get("WATCHDOG_USEC", "")
        if not watched.isdecimal() or environment.get("WATCHDOG_PID", str(pid)) != str(pid):
            return cls(address)
        return cls(address, int(watched) / 1_000_000 or None)

    def tell(self, *lines: str) -> bool:
        """Send *lines*, and return whether that worked; a manager that cannot be told is named once, and never waited
        for.
        """
        if sys.platform == "win32":  # there are no such sockets, and nobody is made there
            return False
        address = os.fsencode(self.address)
        if address.startswith(b"@"):
            address = b"\0" + address[1:]
        failed = ""
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.setblocking(False)
                sender.sendto("\n".join(" ".join(line.split()) for line in lines).encode(), address)
        except OSError as error:
            failed = str(error)
            if failed != self._failed:
                log.warning("the service manager cannot be told (%s): %s", self.address, failed)
        self._failed = failed
        return not failed


async def keep_telling(manager: Manager, writing: Writing, status: Callable[[], str], speed: float) -> None:
    """Tell *manager* that we are ready, *status* when it changes, and that we live, for ever; *speed* is service
    seconds per wall second.
    """
    seconds = STATUS_SECONDS if manager.patience is None else min(STATUS_SECONDS, manager.patience * PATIENCE_SHARE)
    told, ready = "", False
    while True:
        await writing.wait_turned()
        news = [] if ready else ["READY=1"]
        text = status()
        if text != told:
            news.append(f"STATUS={text}")
        if manager.patience is not None:
            news.append("WATCHDOG=1")
        if news and manager.tell(*news):  # what did not get through is told the next time
            told, ready = text, True
        await trio.sleep(seconds * speed)


def summary(board: Board, now: Millis) -> str:
    """The whole and its venues in one line: ``DEGRADED: kraken [OK], okx [DISC]; the journal: disk full``."""
    venues = ", ".join(f"{venue.name} {venue.status(now)}" for venue in board.venues.values())
    troubles = "".join(f"; {part}: {error}" for part, error in board.store_errors.items())
    return f"{board.status(now)}: {venues}{troubles}"
