"""The file system as the day files need it: a few calls, each with a promise of what outlives a power cut.

Everything in a data directory but the lock and SQLite's own files goes through a :class:`Disk`. It is a seam:
tests hand in one that is full, that lies, that belongs to Windows, or that loses its power at a chosen instant.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import attrs

__all__ = ["LOCAL_DISK", "REPLACING", "SHARING", "Disk", "FileHeld", "LocalDisk", "held_if", "is_closed"]


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


@attrs.define
class LocalDisk:
    """The operating system's file system."""

    sync: Callable[[int], None] = os.fsync
    """Makes what is behind a descriptor durable."""

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
