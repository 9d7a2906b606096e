"""The file system as the day files need it: a few calls, each with a promise of what outlives a power cut.

Everything in a data directory but the lock and SQLite's own files goes through a :class:`Disk`. It is a seam:
tests hand in one that is full, that lies, that belongs to Windows, or that loses its power at a chosen instant.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Protocol

import attrs

if sys.platform == "win32":
    fcntl: ModuleType | None = None
else:
    import fcntl

__all__ = ["LOCAL_DISK", "REPLACING", "SHARING", "Disk", "FileHeld", "LocalDisk", "held_if", "is_closed", "system_sync"]

log = logging.getLogger(__name__)


class Disk(Protocol):
    """Blocking calls; every one of them may raise ``OSError``."""

    def read(self, path: Path) -> bytes:
        """The content of a file; ``FileNotFoundError`` if there is none."""

    def names(self, folder: Path) -> list[str]:
        """What lies in *folder*, sorted; nothing if there is no such folder."""

    def write_new(self, path: Path, content: bytes) -> None:
        """Make a file that does not exist yet. Its content outlives a power cut; its name does not."""

    def replace(self, source: Path, target: Path) -> None:
        """Put *source* in *target*'s place, atomically; durable once *target*'s folder is synced."""

    def remove(self, path: Path) -> None:
        """Remove a file, if it is there."""

    def make_folder(self, path: Path) -> None:
        """Make a folder, if it is not there; durable once its parent is synced."""

    def sync_folder(self, path: Path) -> None:
        """Make the names in *path* durable."""


UNSYNCABLE = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.ENOTTY)
"""What a file system says that does not know a kind of sync; a sync that has failed is EIO, ENOSPC or EDQUOT."""


def system_sync(control: ModuleType | None) -> Callable[[int], None]:
    """What makes durable what is behind a descriptor; *control* is the module ``fcntl`` of systems that have one.

    On macOS ``fsync`` leaves what is written in the disk's own memory; ``F_FULLFSYNC`` empties that too (fsync(2)
    there).
    """
    full = getattr(control, "F_FULLFSYNC", None)
    if control is None or full is None:
        return os.fsync

    def sync(handle: int) -> None:
        try:
            control.fcntl(handle, full)
        except OSError as error:
            if error.errno not in UNSYNCABLE:
                raise
            os.fsync(handle)

    return sync


_SYNC = system_sync(fcntl)


@attrs.define
class LocalDisk:
    """The operating system's file system."""

    sync: Callable[[int], None] = _SYNC
    """Makes what is behind a descriptor durable."""
    _warned: bool = attrs.field(default=False, init=False)
    """Whether it was said that folders cannot be synced here."""

    def read(self, path: Path) -> bytes:
        return path.read_bytes()

    def names(self, folder: Path) -> list[str]:
        try:
            return sorted(os.listdir(folder))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def write_new(self, path: Path, content: bytes) -> None:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o644)
        try:
            rest = memoryview(content)
            while rest:
                rest = rest[os.write(handle, rest) :]
            self.sync(handle)
        finally:
            os.close(handle)

    def replace(self, source: Path, target: Path) -> None:
        os.replace(source, target)

    def remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)

    def make_folder(self, path: Path) -> None:
        path.mkdir(exist_ok=True)

    def sync_folder(self, path: Path) -> None:
        # Windows has no such call and does it with the rename.
        if sys.platform != "win32":
            handle = os.open(path, os.O_RDONLY)
            try:
                self.sync(handle)
            except OSError as error:
                if error.errno not in UNSYNCABLE:
                    raise
                if not self._warned:
                    log.warning(
                        "%s: this file system does not sync folders (%s): after a power cut a file may have its old"
                        " name or content again; the next start sees that, and its minutes become gaps", path, error,
                    )  # fmt: skip
                self._warned = True
            finally:
                os.close(handle)


LOCAL_DISK = LocalDisk()


def is_closed(error: OSError) -> bool:
    """Whether *error* means that a path is closed to us (no permission, read-only, no folder, an impossible name): a
    mistake of whoever named the path, which trying again does not mend.
    """
    if getattr(error, "winerror", None) in SHARING:
        return False
    return error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP)


class FileHeld(OSError):
    """Another program has the day file open (Windows); it is read, or replaced, once it is free."""


SHARING = {32, 33}
"""Windows' numbers for an open file: sharing violation, lock violation."""
REPLACING = SHARING | {5}
"""Replacing or removing an open file gives "access denied" too, which for any other call means just that."""


@contextmanager
def held_if(codes: Container[object]) -> Iterator[None]:
    """Around a call on a day file: an ``OSError`` with one of Windows' *codes* becomes :class:`FileHeld`."""
    try:
        yield
    except OSError as error:
        if getattr(error, "winerror", None) in codes:
            raise FileHeld(str(error)) from error
        raise
