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
    import ctypes
    import msvcrt
    from ctypes import wintypes

    class _Overlapped(ctypes.Structure):
        """OVERLAPPED, of which only the offset of the byte to lock matters: the first."""

        _fields_ = (
            ("internal", ctypes.c_void_p), ("internal_high", ctypes.c_void_p),
            ("offset", wintypes.DWORD), ("offset_high", wintypes.DWORD), ("event", wintypes.HANDLE),
        )  # fmt: skip

    _lock_file_ex = ctypes.WinDLL("kernel32").LockFileEx
    _lock_file_ex.argtypes = (
        wintypes.HANDLE, wintypes.DWORD, wintypes.DWORD, wintypes.DWORD, wintypes.DWORD, ctypes.POINTER(_Overlapped),
    )  # fmt: skip
    _AT_ONCE, _EXCLUSIVE = 1, 2
    """LOCKFILE_FAIL_IMMEDIATELY, LOCKFILE_EXCLUSIVE_LOCK; without the latter the lock is shared."""

    def _try_lock(handle: int, *, shared: bool) -> bool:
        flags = _AT_ONCE if shared else _AT_ONCE | _EXCLUSIVE
        return bool(_lock_file_ex(msvcrt.get_osfhandle(handle), flags, 0, 1, 0, ctypes.byref(_Overlapped())))
else:
    import fcntl

    def _try_lock(handle: int, *, shared: bool) -> bool:
        try:
            fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


@contextmanager
def hold_lock(path: Path, attempts: int = 10) -> Iterator[None]:
    """Hold *path*'s lock for the block; :class:`Locked` if somebody else does.

    A tool that looks whether a collector runs shares the lock for an instant, so a few *attempts* are made, a tenth
    of a second apart.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        for attempt in range(attempts):
            if _try_lock(handle, shared=False):
                break
            if attempt + 1 < attempts:
                threading.Event().wait(0.1)
        else:
            raise Locked(str(path))
        yield
    finally:
        os.close(handle)  # lets go of the lock


def is_locked(path: Path) -> bool:
    """Whether somebody holds *path*'s lock at this moment; never creates the file.

    For the look the lock is shared: of those who look at the same time none takes another one for a holder.
    """
    try:
        handle = os.open(path, os.O_RDWR if sys.platform == "win32" else os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        return not _try_lock(handle, shared=True)
    finally:
        os.close(handle)
