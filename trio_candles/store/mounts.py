"""On which file system what lies, and which of them a data directory cannot live on.

A day file is put in its place by renaming, and that does not cross from one file system to another: a directory of
which a part lies elsewhere (a venue's folder that is a link to a larger disk) could be collected into for ever, and
nothing would arrive. And the journal's write-ahead log needs memory that all its readers share, which a network file
system has for the processes of one machine at best (https://sqlite.org/wal.html, "Disadvantages", 2).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

import attrs

from trio_candles.store.schema import JOURNAL, QUARANTINE, TMP

__all__ = ["Mount", "is_networked", "listed_by_linux", "listed_by_macos", "mount_of", "mounts", "spanning"]

NETWORKED = re.compile(
    r"nfs\d?|cifs|smb\w*|9p|afs|afpfs|ceph|glusterfs|lustre|webdav|davfs|ncpfs|network drive"
    r"|fuse\.(sshfs|glusterfs|ceph\S*|s3fs|rclone|davfs2?)"
)


@attrs.frozen
class Mount:
    """One file system, and where it is mounted."""

    point: str
    kind: str
    """As the system calls it: ``ext4``, ``nfs4``, ``apfs``."""

    def __str__(self) -> str:
        return f"{self.kind} at {self.point}"


def listed_by_linux(text: str) -> list[Mount]:
    """The mounts in the *text* of /proc/self/mounts, where blanks in names are written as \\040."""
    lines = [line.split() for line in text.splitlines()]
    return [
        Mount(re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), fields[1]), fields[2])
        for fields in lines
        if len(fields) > 2
    ]


def listed_by_macos(text: str) -> list[Mount]:
    """The mounts in what the command ``mount`` prints: ``/dev/disk1s1 on / (apfs, local, journaled)``."""
    found = (re.fullmatch(r".*? on (/.*) \(([^,)]+).*\)", line) for line in text.splitlines())
    return [Mount(match[1], match[2]) for match in found if match is not None]


def mounts() -> list[Mount]:
    """All that is mounted, as far as the system tells."""
    try:
        if sys.platform == "darwin":
            done = subprocess.run(["/sbin/mount"], capture_output=True, text=True, timeout=5, check=True)
            return listed_by_macos(done.stdout)
        if sys.platform == "win32":
            import ctypes

            drives = [f"{letter}:\\" for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"]
            remote = 4  # DRIVE_REMOTE of GetDriveTypeW
            return [
                Mount(one, "network drive") for one in drives if ctypes.windll.kernel32.GetDriveTypeW(one) == remote
            ]
        return listed_by_linux(Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace"))
    except (OSError, subprocess.SubprocessError):
        return []


def mount_of(path: Path, known: Sequence[Mount]) -> Mount | None:
    """The one of *known* mounts on which *path* lies, wherever links lead; ``None`` if none is known."""
    real = os.path.realpath(path)
    best: Mount | None = None
    for mount in known:
        # The last one mounted at a place covers those before it.
        if _is_below(real, mount.point) and (best is None or len(mount.point) >= len(best.point)):
            best = mount
    if best is None and real.startswith("\\\\"):
        return Mount(os.path.splitdrive(real)[0], "network drive")  # \\server\share
    return best


def _is_below(real: str, point: str) -> bool:
    return real == point or real.startswith(point if point.endswith(("/", "\\")) else point + os.sep)


def is_networked(mount: Mount) -> bool:
    """Whether *mount* is another machine's disk."""
    return NETWORKED.fullmatch(mount.kind) is not None


def _device(path: str) -> int:
    return os.stat(path).st_dev


def spanning(
    root: Path,
    venues: Collection[str],
    known: Sequence[Mount],
    *,
    depth: int = 1,
    device: Callable[[str], int] = _device,
) -> str | None:
    """A line about the first part of the data directory *root* that lies on another file system than *root* does, with
    both mounts; ``None`` if there is none.

    Parts are the journal, the folders for temporary and damaged files, those of *venues*, and below these as many
    levels of folders as *depth* says: 1 is symbols, 2 timeframes too. Mounts that are *known* tell what the *device*
    does not: one that is mounted a second time is another file system for a rename.
    """
    home, points = os.path.realpath(root), {mount.point for mount in known}
    try:
        ours = device(home)
    except OSError:
        return None  # there is none yet
    for path in _parts(home, venues, depth):
        real = os.path.realpath(path) if os.path.islink(path) else path
        try:
            other = device(real) != ours or real in points
        except OSError:
            continue  # not there, or a link to nowhere: whoever uses it will say so
        if other or (real != path and mount_of(Path(real), known) != mount_of(Path(home), known)):
            return (
                f"{root}: {os.path.relpath(path, home)} lies on another file system ({_place(real, known)}) than the"
                f" data directory ({_place(home, known)}), and no file can be moved from one to the other at once:"
                " put both on the same one"
            )
    return None


def _parts(home: str, venues: Collection[str], depth: int) -> Iterator[str]:
    for name in (JOURNAL, TMP, QUARANTINE):
        yield os.path.join(home, name)
    folders = [os.path.join(home, venue) for venue in sorted(venues)]
    for _ in range(depth):
        yield from folders
        folders = [below for folder in folders for below in _folders_in(folder)]
    yield from folders


def _folders_in(folder: str) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.path for entry in entries if entry.is_dir())
    except OSError:
        return []


def _place(real: str, known: Sequence[Mount]) -> str:
    mount = mount_of(Path(real), known)
    if mount is not None:
        return str(mount)
    while not os.path.ismount(real) and os.path.dirname(real) != real:
        real = os.path.dirname(real)
    return f"mounted at {real}"
