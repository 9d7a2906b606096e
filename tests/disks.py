"""Disks for tests: what a file system may do to those who trust it."""

from __future__ import annotations

import errno
import itertools
import os
import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import attrs
import trio

from trio_candles.candles.model import Candle
from trio_candles.store.disk import LocalDisk


@attrs.define
class File:
    """What is in a file, and whether a power cut may take some of it."""

    content: bytes = b""
    synced: bool = False


FOLDER = File(synced=True)


@attrs.define
class PowerCut:
    """A disk in memory that knows what a power cut may leave behind, at each instant and in every combination.

    A file that was not synced may be whole, half or nothing. A change of a name may be missing unless its folder
    was synced since; of two changes, in one folder or in two, either one may have come through without the other.
    """

    root: Path
    durable: dict[str, File] = attrs.field(factory=lambda: {"": FOLDER})
    changes: dict[str, list[File | None]] = attrs.field(factory=dict)
    """Of each name, oldest first, since its folder was last synced; ``None``: it is removed."""
    watch: Callable[[], None] = lambda: None
    """Called after every step that a cut may follow."""
    broken: str = ""
    """What this disk fails to do: ``file sync``, ``folder sync``; or ``writing``, with ``reading`` not showing it."""

    said: dict[Path, bytes] = attrs.field(factory=dict)
    """What this disk was told to write."""

    def _name(self, path: Path) -> str:
        return "" if path == self.root else path.relative_to(self.root).as_posix()

    def _now(self, name: str) -> File | None:
        return self.changes[name][-1] if name in self.changes else self.durable.get(name)

    def _change(self, name: str, file: File | None) -> None:
        self.changes.setdefault(name, []).append(file)

    def read(self, path: Path) -> bytes:
        file = self._now(self._name(path))
        if file is None or file is FOLDER:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path))
        return self.said[path] if "reading" in self.broken and path in self.said else file.content

    def names(self, folder: Path) -> list[str]:
        return sorted(
            name.rpartition("/")[2]
            for name in {*self.durable, *self.changes}
            if name and name.rpartition("/")[0] == self._name(folder) and self._now(name) is not None
        )

    def write_new(self, path: Path, content: bytes) -> None:
        name = self._name(path)
        assert self._now(name) is None, "it must not exist"
        assert self._now(name.rpartition("/")[0]) is FOLDER
        self._change(name, file := File())
        self.watch()
        self.said[path] = content
        file.content = content[7:] if "writing" in self.broken else content
        self.watch()
        file.synced = "file sync" not in self.broken
        self.watch()

    def replace(self, source: Path, target: Path) -> None:
        file = self._now(self._name(source))
        assert file is not None
        self._change(self._name(target), file)
        self._change(self._name(source), None)
        self.watch()

    def remove(self, path: Path) -> None:
        if self._now(self._name(path)) is not None:
            self._change(self._name(path), None)
            self.watch()

    def make_folder(self, path: Path) -> None:
        if self._now(self._name(path)) is None:
            self._change(self._name(path), FOLDER)
            self.watch()

    def sync_folder(self, path: Path) -> None:
        if "folder sync" in self.broken:
            return
        for name in [name for name in self.changes if name.rpartition("/")[0] == self._name(path)]:
            file = self.changes.pop(name)[-1]
            self.durable.pop(name, None)
            if file is not None:
                self.durable[name] = file
        self.watch()

    def after_a_cut(self) -> Iterator[dict[str, bytes | None]]:
        """Every content of the disk that is possible after a cut now; ``None`` is a folder."""
        names = sorted({*self.durable, *self.changes})
        choices = [[self.durable.get(name), *self.changes.get(name, [])] for name in names]
        for some in itertools.product(*({id(file): file for file in files}.values() for files in choices)):
            there = {name: file for name, file in zip(names, some, strict=True) if file is not None}
            reachable = {
                name: file
                for name, file in there.items()
                if all(parent in there for parent in itertools.accumulate(name.split("/")[:-1], "{}/{}".format))
            }
            unsure = [file for file in {id(file): file for file in reachable.values()}.values() if not file.synced]
            for lengths in itertools.product((0, 0.5, 1), repeat=len(unsure)):
                left = {id(file): int(len(file.content) * part) for file, part in zip(unsure, lengths, strict=True)}
                yield {
                    name: None if file is FOLDER else file.content[: left.get(id(file))]
                    for name, file in reachable.items()
                }

    def a_cut(self, chance: random.Random) -> dict[str, bytes | None]:
        """One of those, drawn: what was not synced is whole, nothing, or cut at any byte."""
        there = {}
        for name in sorted({*self.durable, *self.changes}):
            choices = [self.durable.get(name), *self.changes.get(name, [])]
            parent = name.rpartition("/")[0]
            file = chance.choice(choices)
            if file is not None and (not name or parent in there):
                there[name] = file
        parts: dict[int, float] = {}
        for file in there.values():
            if not file.synced:
                parts.setdefault(id(file), chance.choice((0.0, 1.0, chance.random())))
        return {
            name: None if file is FOLDER else file.content[: round(len(file.content) * parts.get(id(file), 1.0))]
            for name, file in there.items()
        }

    def contents(self) -> dict[str, bytes | None]:
        """Everything as it is now; ``None`` is a folder."""
        files = {name: self._now(name) for name in sorted({*self.durable, *self.changes})}
        return {name: None if file is FOLDER else file.content for name, file in files.items() if file is not None}

    @classmethod
    def holding(cls, root: Path, what: Mapping[str, bytes | None], **more) -> PowerCut:
        """A disk on which all of *what* is durable."""
        files = {name: FOLDER if content is None else File(content, synced=True) for name, content in what.items()}
        return cls(root, files, **more)


@attrs.frozen
class Cut:
    """What is left after a power cut, and what had been acknowledged before it."""

    journal: tuple[bytes, bytes]
    """The database and its write-ahead log: SQLite syncs what it has committed."""
    files: tuple[tuple[str, bytes | None], ...]
    acknowledged: tuple[Candle, ...]


def cuts(root: Path, disk: PowerCut, work: Callable[[PowerCut, list[Candle]], None], known=()) -> set[Cut]:
    """Everything that a power cut may leave behind, at every step of *work*."""
    found: set[Cut] = set()
    acknowledged = list(known)

    def watch() -> None:
        parts = [root / "journal.sqlite3", root / "journal.sqlite3-wal"]
        journal = tuple(path.read_bytes() if path.exists() else b"" for path in parts)
        for files in disk.after_a_cut():
            found.add(Cut(journal, tuple(sorted(files.items())), tuple(acknowledged)))

    disk.watch = watch
    work(disk, acknowledged)
    watch()
    return found


def after(cut: Cut, root: Path, **more) -> PowerCut:
    """The disk and, in *root*, the journal as *cut* left them."""
    root.mkdir()
    for name, content in zip(("journal.sqlite3", "journal.sqlite3-wal"), cut.journal, strict=True):
        if content:
            (root / name).write_bytes(content)
    return PowerCut.holding(root, dict(cut.files), **more)


class Failing(LocalDisk):
    """Fails its calls whose numbers are in *when*; with *dead*, every call after the first of them as well."""

    def __init__(self, when=(), number: int = errno.ENOSPC, dead: bool = False) -> None:
        super().__init__()
        self.calls: list[str] = []
        self.when, self.number, self.dead = set(when), number, dead

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if len(self.calls) in self.when:
            self.when |= {len(self.calls) + 1} if self.dead else set()
            raise OSError(self.number, os.strerror(self.number))

    def read(self, path):
        self._call("read")
        return super().read(path)

    def write_new(self, path, content):
        self._call("write_new")
        super().write_new(path, content)

    def replace(self, source, target):
        self._call("replace")
        super().replace(source, target)

    def remove(self, path):
        self._call("remove")
        super().remove(path)

    def make_folder(self, path):
        self._call("make_folder")
        super().make_folder(path)

    def sync_folder(self, path):
        self._call("sync_folder")
        super().sync_folder(path)


class Refusing(LocalDisk):
    """Fails every call of the given names on files whose path has a word in it."""

    def __init__(self, word: str, *calls: str, number: int = errno.EIO) -> None:
        super().__init__()
        self.word, self.calls, self.number = word, calls, number

    def _call(self, name: str, path: Path) -> None:
        if name in self.calls and self.word in path.as_posix():
            raise OSError(self.number, os.strerror(self.number))

    def write_new(self, path, content):
        self._call("write_new", path)
        super().write_new(path, content)

    def read(self, path):
        self._call("read", path)
        return super().read(path)

    def replace(self, source, target):
        self._call("replace", target)
        super().replace(source, target)

    def remove(self, path):
        self._call("remove", path)
        super().remove(path)

    def sync_folder(self, path):
        self._call("sync_folder", path)
        super().sync_folder(path)


class HeldOpen(LocalDisk):
    """Windows while another program has some of the files open; *exclusive*: they cannot be read either."""

    def __init__(self, *held: str, exclusive: bool = False) -> None:
        super().__init__()
        self.held, self.exclusive = held, exclusive

    def _refuse(self, path: Path) -> None:
        if path.as_posix().endswith(self.held or ("\0",)) and ".tmp" not in path.parts:
            error = PermissionError(13, "The process cannot access the file")
            error.winerror = 32
            raise error

    def read(self, path):
        if self.exclusive:
            self._refuse(path)
        return super().read(path)

    def replace(self, source, target):
        self._refuse(target)
        super().replace(source, target)


class Slow(LocalDisk):
    """Every file takes its time to write, under trio's clock: work is to be handed over by :meth:`offload`."""

    def __init__(self, seconds: float, refused: str = "\0") -> None:
        super().__init__()
        self.seconds, self.refused = seconds, refused
        self.written: list[str] = []
        """The names of files in ``.tmp``."""
        self._spent = 0.0

    def write_new(self, path, content):
        self._spent += self.seconds
        if self.refused in path.name:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        super().write_new(path, content)
        self.written.append(path.name)

    async def offload(self, work, /, *args):
        """Run *work*, and let the time pass that its writing took."""
        self._spent = 0.0
        result = work(*args)
        if self._spent:
            await trio.sleep(self._spent)
        else:
            await trio.lowlevel.checkpoint()
        return result
