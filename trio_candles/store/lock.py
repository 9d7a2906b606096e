"""One collector per data directory: a lock that the operating system lets go of when its holder dies."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["Locked", "hold_lock", "is_locked"]


class Locked(Exception):
    """Another process holds the lock."""


if sys.platform == "win32":
    import msvcrt

    def _try_lock(handle: int) -> bool:
        os.lseek(handle, 0, os.SEEK_SET)
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
else:
    import fcntl

    def _try_lock(handle: int) -> bool:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


@contextmanager
def hold_lock(path: Path, attempts: int = 10) -> Iterator[None]:
    """Hold *path*'s lock for the block; :class:`Locked` if somebody else does.

    A tool that looks whether a collector runs holds the lock for an instant, so a few *attempts* are made, a tenth
    of a second apart.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        for attempt in range(attempts):
            if _try_lock(handle):
                break
            if attempt + 1 < attempts:
                threading.Event().wait(0.1)
        else:
            raise Locked(str(path))
        yield
    finally:
        os.close(handle)  # lets go of the lock


def is_locked(path: Path) -> bool:
    """Whether somebody holds *path*'s lock at this moment; never creates the file."""
    try:
        handle = os.open(path, os.O_RDWR if sys.platform == "win32" else os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        return not _try_lock(handle)
    finally:
        os.close(handle)
