"""The computer that the collector runs on: its disk, the journal's files, and its power.

Day files go through a :class:`~disks.PowerCut`, which knows what a cut may leave of them. SQLite writes by itself,
to a real file system: a cut is made *between* two calls of ours, and of the journal is left what a disk may have of it
then. What SQLite wrote between the last two calls is cut at a random byte of its write-ahead log, with noise behind
it; while it copied the log into the database, any of the database's pages may be old or new. (Everything before has
been synced: ``synchronous=FULL``.) A journal for which there is no room is made with ``RLIMIT_FSIZE``: SQLite's own
writes fail, at a random byte.
"""

from __future__ import annotations

import errno
import os
import random
import sqlite3
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pyarrow as pa
import pyarrow.parquet as pq
import trio
from directories import bring_down
from disks import PowerCut

from simulation.days import interrupt, look_at_days
from simulation.sealed import Days, Key, Minutes
from simulation.torn import PAGE, Files, torn
from simulation.trace import Broken, Trace
from trio_candles.candles.model import Candle

if sys.platform != "win32":
    import resource

__all__ = ["FaultyDisk", "Machine", "PowerLost"]

JOURNAL = "journal.sqlite3"
QUARANTINE = "quarantine"
TMP = ".tmp"
LOOKS_APART = 600
"""The most points (calls of the store and of the disk, and steps of these) between two looks at what is there."""


class PowerLost(BaseException):
    """The process does not exist any more; what was not durable does not either."""


@attrs.define
class DiskError:
    """Calls that fail."""

    calls: frozenset[str]
    number: int
    until: float
    times: int

    def takes(self, call: str) -> bool:
        if call not in self.calls or self.times <= 0 or trio.current_time() >= self.until:
            return False
        self.times -= 1
        return True


@attrs.define
class FaultyDisk(PowerCut):
    """The disk, with the errors that the machine has in store for it."""

    machine: Machine = attrs.field(kw_only=True)
    ignores: str = ""
    """A planted bug: what this disk never does."""

    def _ask(self, call: str, path: Path) -> None:
        self.machine.point(call)
        self.machine.fail(call, path)

    def read(self, path: Path) -> bytes:
        self._ask("read", path)
        if "read back" in self.ignores and path in self.said:
            return self.said[path]
        return super().read(path)

    def names(self, folder: Path) -> list[str]:
        self._ask("names", folder)
        return super().names(folder)

    def write_new(self, path: Path, content: bytes) -> None:
        self._ask("write_new", path)
        if self._now(self._name(path)) is not None:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        machine = self.machine
        self.broken = " ".join((self.ignores, "file sync folder sync" if machine.lies else ""))
        whole = content
        if machine.short_writes:
            machine.short_writes -= 1
            machine.fired["disk_short"] += 1
            content = content[: machine.chance.randrange(len(content))]
        try:
            machine.fail("write", path)
        except OSError:
            part = content[: machine.chance.randrange(len(content) + 1)]
            synced, self.broken = self.broken, "file sync"
            super().write_new(path, part)
            self.broken = synced
            raise
        super().write_new(path, content)
        self.said[path] = whole

    def replace(self, source: Path, target: Path) -> None:
        self._ask("replace", target)
        super().replace(source, target)

    def remove(self, path: Path) -> None:
        self._ask("remove", path)
        if "remove" not in self.ignores:
            super().remove(path)

    def make_folder(self, path: Path) -> None:
        self._ask("make_folder", path)
        super().make_folder(path)

    def sync_folder(self, path: Path) -> None:
        self._ask("sync_folder", path)
        self.broken = " ".join((self.ignores, "file sync folder sync" if self.machine.lies else ""))
        super().sync_folder(path)


CALLS = frozenset({"read", "names", "write_new", "write", "replace", "remove", "make_folder", "sync_folder"})
WRITING = CALLS - {"read", "names", "remove"}


@attrs.define
class Machine:
    """One computer, from its first start to the end of the seed."""

    root: Path
    chance: random.Random
    trace: Trace
    fired: Counter[str]
    looking: random.Random
    disk: FaultyDisk = attrs.field(init=False)
    ignores: str = ""
    """A planted bug: what the disk never does."""
    dead: bool = False
    errors: list[DiskError] = attrs.field(factory=list)
    short_writes: int = 0
    lies: bool = False
    """Syncs say that they are done, and are not."""
    has_lied: bool = False
    """At any time: what is set aside after that need not be the product's fault."""
    full_until: float = float("-inf")
    """Until then SQLite's writes fail."""
    slow_until: float = float("-inf")
    acknowledged: dict[tuple[str, str, int], tuple[float, ...]] = attrs.field(factory=dict)
    """Candles that the store said it had accepted."""
    look_in: Callable[[str], bool] = lambda _: False
    """Told at some of the points what is under way; whether it has looked."""
    told: Callable[[str], None] = lambda _: None
    """Told which call of the store has just been done."""
    losing: random.Random = attrs.field(factory=lambda: random.Random(0))
    """A source of chance for :mod:`.losses`."""
    loses: str = ""
    """What is lost before the next start."""
    lost: set[str] = attrs.field(factory=set)
    """``journal`` or ``file``: what was lost at any time."""
    lost_at: float = float("-inf")
    kept: Minutes = attrs.field(factory=dict)
    """What the next start must still know, although the journal was lost."""
    damaged: set[Key] = attrs.field(factory=set)
    """Sealed days whose rows were damaged."""
    cut_on: dict[str, str] = attrs.field(factory=dict)
    """What a cut waits for → how."""
    believed: Callable[[], int] = lambda: 0
    """The latest time that a clock which is believed may show."""
    sealed: Days = attrs.field(factory=dict)
    """The sealed days, after the last call of the store."""
    is_of_today: bool = False
    """Whether the directory was once of the format before sealed days."""
    visitor: str = ""
    """SQL that another tool runs in the journal before the next start."""
    _look_at: int = 0
    _points: int = 0
    _cut_at: int | None = None
    _cut_how: str = "power"
    _before: Files = (b"", b"")
    """The journal's files at the last point, while a cut is near."""
    _at_last_point: Files = (b"", b"")
    """The journal when the disk was asked for something last, if the power may go behind a call: what was committed
    before a file was replaced was synced, and is not torn by a cut after it."""
    _unsynced_since: Files | None = None
    """The journal's files when the disk began to lie."""
    _at_start: Files = (b"", b"")
    _left: Files | None = None
    """What the last cut left of the journal."""
    _excused: bool = False
    """The last cut took what a lying disk had not synced."""

    def __attrs_post_init__(self) -> None:
        self.disk = self._disk_holding({"": None})

    def _disk_holding(self, contents: dict[str, bytes | None]) -> FaultyDisk:
        return FaultyDisk.holding(
            self.root, contents, watch=lambda: self.point("step"), machine=self, ignores=self.ignores
        )

    # --- errors

    def fail(self, call: str, path: Path) -> None:
        """Raise the error that waits for this call, if one does."""
        for error in self.errors:
            if error.takes(call):
                self.fired[f"disk_{errno.errorcode[error.number].lower()}"] += 1
                self.trace.note(f"disk {call} fails: {os.strerror(error.number)}")
                raise OSError(error.number, os.strerror(error.number), str(path))

    @contextmanager
    def _journals_room(self) -> Iterator[None]:
        if sys.platform == "win32" or trio.current_time() >= self.full_until:
            yield
            return
        room = self.chance.choice((0, self.chance.randrange(sum(map(len, self._journal())) + 4 * PAGE)))
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
        try:
            yield
        except OSError:
            self.fired["journal_full"] += 1
            raise
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    def lie(self) -> None:
        """From now on syncs are not done, though the disk says so."""
        self.lies = self.has_lied = True
        if self._unsynced_since is None:
            self._unsynced_since = self._journal()

    # --- the service's blocking calls

    async def offload(self, work: Callable[..., Any], /, *args: Any) -> Any:
        """Run a call of the store here and now, on this disk."""
        await trio.lowlevel.checkpoint()
        if trio.current_time() < self.slow_until:
            self.fired["disk_slow"] += 1
            await trio.sleep(self.chance.uniform(0.1, 5.0))
        name = getattr(work.func if isinstance(work, partial) else work, "__name__", "?")
        self.point(name)
        interrupt(self, name)
        self._at_last_point = self._journal() if self.cut_on else (b"", b"")
        try:
            with self._journals_room():
                told = work(*args)
                if getattr(told, "error", None) and trio.current_time() < self.full_until:
                    self.fired["journal_full"] += 1
        except OSError as error:
            self.trace.note(f"store {name}: {type(error).__name__} {error}")
            raise
        look_at_days(self, name, self._at_last_point)
        self.point(f"{name} done")
        self.trace.note(f"store {name} {len(args[0]) if args and isinstance(args[0], list) else ''}")
        if name == "commit":
            refused = {(candle.series, candle.open_time) for candle, _ in told.rejected}
            for one in args[0]:
                if isinstance(one, Candle) and (one.series, one.open_time) not in refused:
                    key = (one.series.venue, one.series.symbol, int(one.open_time))
                    self.acknowledged[key] = (one.open, one.high, one.low, one.close, one.volume)
        self.told(name)
        return told

    def hold(self, contents: dict[str, bytes | None]) -> None:
        """Let the disk hold *contents*, durably."""
        self.disk = self._disk_holding(contents)

    def begin_again(self) -> None:
        """The journal's files are durably what they are, and something was lost just now."""
        self._at_start = self._journal()
        self.lost_at = trio.current_time()

    # --- power

    def point(self, what: str) -> None:
        """A moment at which the power may go; from then on every call finds that it has gone."""
        if self.dead:
            raise PowerLost
        self._points += 1
        if self.cut_on:
            self._at_last_point = self._journal()
        if self._points >= self._look_at:
            looked = self.look_in(what)
            self._look_at = self._points + (self.looking.randint(1, LOOKS_APART) if looked else 20)
        if self._cut_at is not None:
            if self._points >= self._cut_at:
                self.cut(what)
                raise PowerLost
            self._before = self._journal()

    def arm(self, points: int, how: str) -> None:
        """Let the power go at the *points*-th moment from now on."""
        self._cut_at, self._cut_how = self._points + points, how
        self._before = self._journal()

    def arm_behind(self, before: Files, how: str) -> None:
        """Let the power go at the next moment, in the midst of what brought the journal from *before* to what it is."""
        self._cut_at, self._cut_how, self._before = self._points + 1, how, before

    @property
    def is_armed(self) -> bool:
        """Whether the power is about to go."""
        return self._cut_at is not None

    def disarm(self) -> None:
        """Do not."""
        self._cut_at = None

    def cut(self, where: str, how: str | None = None) -> None:
        """End the process here; with ``power``, what is not durable goes, too."""
        how = how or self._cut_how
        now = self._journal()
        before = self._before if self._cut_at is not None else now
        self.dead, self._cut_at = True, None
        if how == "power":
            if self._unsynced_since is not None:
                before, self._unsynced_since, self._excused = self._unsynced_since, None, True
            if "journal sync" in self.ignores:
                before = self._at_start
            self._left = torn(before, now, self.chance)
            left = self.disk.a_cut(self.chance)
            self.disk = self._disk_holding(left)
        else:
            self._left = now
        self.fired[how] += 1
        self.trace.note(f"{how} cut at {where}; journal {len(self._left[0])} + {len(self._left[1])} bytes")

    def restore(self) -> None:
        """Put on the real disk what the cut left of the journal, for the next process."""
        assert self._left is not None
        for name in (JOURNAL, f"{JOURNAL}-wal", f"{JOURNAL}-shm"):
            (self.root / name).unlink(missing_ok=True)
        for name, content in zip((JOURNAL, f"{JOURNAL}-wal"), self._left, strict=True):
            if content:
                (self.root / name).write_bytes(content)
        self._left, self.dead = None, False
        self._at_start = self._journal()
        if self.lies:
            self._unsynced_since = self._at_start

    def receive_visitor(self) -> None:
        """Let another tool do what it wants in the journal of a collector that is down; durably, as SQLite does."""
        sql, self.visitor = self.visitor, ""
        if not sql or self.has_lied or not (self.root / JOURNAL).exists():
            return
        with closing(sqlite3.connect(self.root / JOURNAL)) as database:
            database.executescript(sql)
        self._at_start = self._journal()
        self.fired["foreign"] += 1
        self.trace.note(f"another tool was in the journal: {sql}")

    def bring_down(self) -> None:
        """Let the directory be one of the format before sealed days; once, if no day is sealed in it."""
        if self.is_of_today or not (self.root / JOURNAL).exists():
            return
        with closing(sqlite3.connect(self.root / JOURNAL)) as database:
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        bring_down(self.root / JOURNAL, "5")
        self.is_of_today, self._at_start = True, self._journal()
        self.fired["upgraded"] += 1
        self.trace.note("the directory is of the format before")

    def _journal(self) -> Files:
        return _content(self.root / JOURNAL), _content(self.root / f"{JOURNAL}-wal")

    # --- what is there

    def stored(self) -> dict[tuple[str, str, int], tuple[float, ...]]:
        """Every stored minute, journal and day files together, read with nothing of the product's."""
        found: dict[tuple[str, str, int], tuple[float, ...]] = {}
        with closing(sqlite3.connect(f"file:{self.root / JOURNAL}?mode=ro", uri=True)) as database:
            for venue, symbol, minute, *numbers in database.execute(
                "SELECT venue, symbol, open_ms, open, high, low, close, volume"
                " FROM candle JOIN series ON series.id = series_id WHERE timeframe = '1m'"
            ):
                found[venue, symbol, minute] = tuple(numbers)
        return found | self.stored_in_files()

    def stored_in_files(self) -> dict[tuple[str, str, int], tuple[float, ...]]:
        """Every minute in the day files that can be read: one that a loss has damaged need not be."""
        found: dict[tuple[str, str, int], tuple[float, ...]] = {}
        for name, content in self.disk.contents().items():
            if not content or not name.endswith(".parquet") or name.split("/")[2:3] != ["1m"]:
                continue
            columns = ["venue", "symbol", "open_time_ms", "open", "high", "low", "close", "volume"]
            try:
                table = pq.read_table(pa.BufferReader(content), columns=columns, use_threads=False)
                rows = [tuple(row[name] for name in columns) for row in table.to_pylist()]
            except (OSError, ValueError, LookupError):
                if "file" not in self.lost:
                    raise
                continue
            found |= {(venue, symbol, time): tuple(numbers) for venue, symbol, time, *numbers in rows}
        return found

    def check_nothing_is_lost(self) -> None:
        """After a start: what was acknowledged is there; what may have been lost to a lie is forgotten."""
        stored = self.stored()
        lost = sorted(set(self.acknowledged) - set(stored))
        if self._excused:
            self._excused = False
            for key in lost:
                del self.acknowledged[key]
        elif lost:
            raise Broken("acknowledged", f"{len(lost)} candles that had been accepted are gone, first {lost[0]}")
        if self.has_lied:
            return
        aside = [name for name in self.disk.contents() if name.startswith(f"{QUARANTINE}/")]
        aside += os.listdir(self.root / QUARANTINE) if (self.root / QUARANTINE).exists() else []
        aside = [name for name in aside if not ("journal" in self.lost and JOURNAL in name)]
        if aside and "file" not in self.lost:
            raise Broken("quarantine", f"set aside although no disk had lied: {', '.join(aside)}")

    def materialise(self, folder: Path) -> None:
        """Write the day files into *folder*, for whoever reads a data directory."""
        for name, content in self.disk.contents().items():
            path = folder / name
            if content is None:
                path.mkdir(parents=True, exist_ok=True)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
        if folder != self.root:
            for name, content in zip((JOURNAL, f"{JOURNAL}-wal"), self._journal(), strict=True):
                if content:
                    (folder / name).write_bytes(content)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
