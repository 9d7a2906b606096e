"""What can be seen without a network: configuration, versions, data directory, disk, lock, logs.

Blocking; leaves nothing behind. Its files lie for a moment in ``.tmp``, where a collector that starts at that moment
would remove them; a folder that was not there before is removed again.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import attrs

from trio_candles import __version__
from trio_candles.candles.model import DAY, MINUTE, Series, Timeframe
from trio_candles.command.launch import Plan
from trio_candles.config.load import Config
from trio_candles.preflight.checks import Checks
from trio_candles.reading.errors import LedgerUnreadable, UnknownFormat
from trio_candles.reading.ledger import open_ledger
from trio_candles.store.disk import LOCAL_DISK, Disk
from trio_candles.store.identity import remembered_meta
from trio_candles.store.lock import is_locked
from trio_candles.store.mounts import Mount, is_networked, mount_of, mounts, spanning
from trio_candles.store.schema import JOURNAL, LOCK, TMP

__all__ = ["Machine", "bytes_a_day", "check_locally"]

ROW_BYTES = 80
FILE_BYTES = 5_000
"""Bytes that a day file takes beside its rows: the footer, mostly."""
DAYS_OF_ROOM = 30
LEAST_FREE = 100_000_000
YOURS_AGAIN = (
    "give the data directory and everything in it to the user who runs the collector, and run preflight as that one"
    " (was it once started as another, as with sudo?)"
)
PROBE = os.urandom(65_536)
"""More than a disk's block, and random: zeros a file system could store without writing anything."""
OLDEST_PYTHON = (3, 11)

VOLATILE = ("tmpfs", "ramfs")


@attrs.frozen
class Machine:
    """This machine as the checks see it."""

    disk: Disk = LOCAL_DISK
    free: Callable[[Path], int] = attrs.field(default=lambda path: shutil.disk_usage(path).free)
    """Bytes that may still be written to *path*'s file system."""
    mounts: Callable[[], Sequence[Mount]] = mounts
    """What is mounted, as far as the system tells."""


def check_locally(planned: Plan, source: Path, machine: Machine) -> Checks:
    """Everything about this machine; *source* is where the configuration came from."""
    checks, config = Checks(), planned.config
    _check_config(checks, config, source)
    _check_versions(checks)
    with _folder(checks, "data directory", config.data_dir) as there:
        if there:
            _check_disk(checks, config, machine)
            _check_space(checks, config, machine)
            _check_file_system(checks, config, machine)
            held = _check_lock(checks, config.data_dir)
            _check_kind(checks, planned, held)
    with _folder(checks, "log directory", config.log_dir) as there:
        if there:
            _check_logs(checks, config.log_dir, machine)
    return checks


# --- what is to run ---------------------------------------------------------------------------------------


def _check_config(checks: Checks, config: Config, source: Path) -> None:
    venues = config.enabled_venues
    symbols = sum(len(venue.symbols) for venue in venues)
    frames = len(config.aggregation.timeframes) if config.aggregation.enabled else 0
    disabled = len(config.venues) - len(venues)
    detail = (
        f"{source}: {_count(len(venues), 'venue')}, {_count(symbols, 'symbol')}, 1m and {frames} aggregates of each"
    )
    checks.passed("configuration", detail + (f"; {_count(disabled, 'venue')} disabled" if disabled else ""))


def _check_versions(checks: Checks) -> None:
    name, python = "versions", ".".join(str(part) for part in sys.version_info[:3])
    known, old = _libraries()
    if sys.version_info[:2] < OLDEST_PYTHON:
        old.append(f"Python {python} is older than {'.'.join(map(str, OLDEST_PYTHON))}")
    if old:
        checks.failed(name, "; ".join(old), "install the project anew: pip install -c constraints.txt .")
    else:
        checks.passed(name, f"trio-candles {__version__}, Python {python}, {known}")


def _libraries() -> tuple[str, list[str]]:
    """A text about the required libraries that are installed, and texts about those that are missing or too old."""
    try:
        required = requires("trio-candles") or []
    except PackageNotFoundError:  # run from the sources alone
        return "libraries unknown: not installed as a package", []
    good, old = 0, []
    for requirement in required:
        match = re.match(r"([A-Za-z0-9_.-]+)>=([0-9.]+)$", requirement)
        if match is None:  # an extra
            continue
        try:
            found = version(match[1])
        except PackageNotFoundError:
            old.append(f"{match[1]} is missing")
            continue
        if _numbers(found) < _numbers(match[2]):
            old.append(f"{match[1]} {found} is older than {match[2]}")
        good += 1
    return f"{good} libraries recent enough", old


def _numbers(text: str) -> list[int]:
    return [int(part) for part in re.findall(r"[0-9]+", text)[:3]]


# --- folders ----------------------------------------------------------------------------------------------


@contextmanager
def _folder(checks: Checks, name: str, path: Path) -> Iterator[bool]:
    """The folder *path* for the block, made if need be and then removed again; False if it cannot be, which fails
    *name*.
    """
    made: list[Path] = []
    try:
        try:
            for folder in [*reversed(path.absolute().parents), path.absolute()]:
                # os.path, here and below: before Python 3.14 Path.exists() fails where a folder is closed to us.
                if not os.path.exists(folder):
                    folder.mkdir()
                    made.append(folder)
            if not os.path.isdir(path):
                raise NotADirectoryError(f"{path} is no directory")
        except OSError as error:
            checks.failed(name, f"{path}: {error}", "choose another directory, or make this one yours")
            yield False
        else:
            yield True
    finally:
        for folder in reversed(made):
            with suppress(OSError):  # not empty any more: somebody else has begun to use it
                folder.rmdir()


def _check_disk(checks: Checks, config: Config, machine: Machine) -> None:
    """Check that a file can go the way of a day file: be written, synced, read back, and put in another's place."""
    name, disk, data_dir = "data directory", machine.disk, config.data_dir
    tmp = data_dir / TMP
    new, old = (tmp / f"preflight-{os.getpid()}-{part}" for part in ("new", "old"))
    had_tmp = os.path.exists(tmp)
    try:
        try:
            disk.make_folder(tmp)
            disk.write_new(old, b"old")
            disk.write_new(new, PROBE)
            if disk.read(new) != PROBE:
                raise OSError("what was written does not read back")
            disk.replace(new, old)
            disk.sync_folder(tmp)
            if disk.read(old) != PROBE:
                raise OSError("a renamed file does not read back")
        finally:
            for path in (new, old):
                with suppress(OSError):
                    disk.remove(path)
            if not had_tmp:
                with suppress(OSError):
                    tmp.rmdir()
    except OSError as error:
        checks.failed(name, f"{data_dir}: {error}", "the collector must be able to write, sync and rename files there")
        return
    closed = sorted({str(folder) for folder in _series_folders(config) if not _takes_files(folder)})
    if closed:
        more = f" and {len(closed) - 1} more" if len(closed) > 1 else ""
        checks.failed(name, f"{closed[0]}{more}: no files may be written there", YOURS_AGAIN)
    else:
        checks.passed(name, f"{data_dir}: written, synced, renamed, read back")


def _series_folders(config: Config) -> Iterator[Path]:
    """For each configured series and timeframe its folder or, until that is made, the nearest one above that exists."""
    frames = ["1m", *(config.aggregation.timeframes if config.aggregation.enabled else ())]
    for venue in config.enabled_venues:
        for symbol in venue.symbols:
            for frame in frames:
                folder = config.data_dir / Series(venue.name, symbol, frame).path
                while folder != config.data_dir and not os.path.lexists(folder):
                    folder = folder.parent
                if folder != config.data_dir:  # which has just been written to
                    yield folder


def _takes_files(folder: Path) -> bool:
    return os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK)


def _check_logs(checks: Checks, log_dir: Path, machine: Machine) -> None:
    name, probe, log = "log directory", log_dir / f".preflight-{os.getpid()}", log_dir / "collector.log"
    try:
        try:
            machine.disk.write_new(probe, b"preflight\n")
        finally:
            with suppress(OSError):
                machine.disk.remove(probe)
        if os.path.isdir(log):
            raise IsADirectoryError(f"{log} is a directory; the log file belongs there")
        if os.path.exists(log) and not os.access(log, os.W_OK):
            raise PermissionError(f"{log} may not be written")
        _open_for_writing(log_dir / ".collector.log.lock")
    except OSError as error:
        checks.failed(name, f"{log_dir}: {error}", "make it writable, or set log_dir to another directory")
    else:
        checks.passed(name, f"{log_dir}: writable")


# --- the disk ---------------------------------------------------------------------------------------------


def bytes_a_day(config: Config) -> int:
    """Bytes that a day of the configured series takes on disk, generously."""
    frames = [MINUTE]
    if config.aggregation.enabled:
        frames += [Timeframe.parse(name).length for name in config.aggregation.timeframes]
    one = sum(DAY // length * ROW_BYTES + FILE_BYTES for length in frames)
    return one * sum(len(venue.symbols) for venue in config.enabled_venues)


def _check_space(checks: Checks, config: Config, machine: Machine) -> None:
    name, need = "disk space", bytes_a_day(config)
    try:
        free = machine.free(config.data_dir)
    except OSError as error:
        checks.failed(name, str(error), "see what is wrong with the disk")
        return
    days = free // need
    room = f"{days} days" if days <= 3650 else "more than ten years"
    detail = f"{_size(free)} free, {_size(need)} needed a day: room for {room}"
    remedy = "free some space, or set data_dir to a larger disk"
    if free < max(LEAST_FREE, need):
        checks.failed(name, detail, remedy)
    elif days < DAYS_OF_ROOM:
        checks.warned(name, detail, remedy)
    else:
        checks.passed(name, detail)


def _check_file_system(checks: Checks, config: Config, machine: Machine) -> None:
    name, known = "file system", machine.mounts()
    divided = spanning(config.data_dir, [venue.name for venue in config.venues], known, depth=2)
    mount = mount_of(config.data_dir, known)
    if divided is not None:
        checks.failed(name, divided, "move the part back, or the whole directory; then start")
    elif mount is None:
        return  # this system does not list its file systems
    elif is_networked(mount):
        checks.failed(
            name, f"{mount}: the journal's readers share memory, which no network has, and its locks and syncs fail",
            "keep data_dir on a local disk, and copy from there",
        )  # fmt: skip
    elif mount.kind in VOLATILE:
        checks.warned(name, f"{mount}: gone when the machine restarts", "set data_dir to a disk, unless that is meant")
    else:
        checks.passed(name, str(mount))


# --- whose directory it is ----------------------------------------------------------------------------------


def _check_lock(checks: Checks, data_dir: Path) -> bool:
    """Whether a collector holds *data_dir*; false where that cannot be seen. Adds the check."""
    name = "lock"
    try:
        locked = is_locked(data_dir / LOCK)
        if not locked:
            _open_for_writing(data_dir / LOCK)
    except OSError as error:
        checks.failed(name, f"{data_dir / LOCK}: {error}", YOURS_AGAIN)
        return False
    if locked:
        checks.failed(
            name,
            f"another collector holds {data_dir}",
            "stop it first, or use another --data-dir: a second one exits 3",
        )
    else:
        checks.passed(name, "free: no collector runs here")
    return locked


def _open_for_writing(path: Path) -> None:
    """Open *path* as the collector is going to; ``OSError`` if that fails, but not if there is no *path*."""
    with suppress(FileNotFoundError):
        os.close(os.open(path, os.O_RDWR))


def _check_kind(checks: Checks, planned: Plan, held: bool) -> None:
    """Check whether this run can continue what lies in the directory; *held*: a collector holds it."""
    name, data_dir = "contents", planned.config.data_dir
    kind = remembered_meta(data_dir).get("kind")
    if kind is not None and kind != planned.kind:
        checks.failed(
            name, f"{data_dir} holds {kind} candles; this run would write {planned.kind} ones", "use another --data-dir"
        )
        return
    if not os.path.exists(data_dir / JOURNAL):
        lost = f"{planned.kind} candles, their journal missing: it is rebuilt at the start"
        checks.passed(name, lost if kind else "none yet")
        return
    try:
        if not held:  # else it is a collector's at this moment, and another check has failed
            _open_for_writing(data_dir / JOURNAL)
    except OSError as error:
        checks.failed(name, f"{data_dir / JOURNAL}: {error}", YOURS_AGAIN)
        return
    try:
        with open_ledger(data_dir) as ledger:
            checks.passed(name, f"{planned.kind} candles, journal of format {ledger.meta['format']}")
    except UnknownFormat as error:
        checks.failed(
            name, f"the journal has format {error.found}; this version knows {error.known}",
            "use the version that wrote it, or another --data-dir",
        )  # fmt: skip
    except LedgerUnreadable as error:
        checks.warned(
            name, f"the journal cannot be read: {error.why}",
            "the next start sets it aside, rebuilds it from the day files and refills the gaps; audit after that",
        )  # fmt: skip


# --- words ------------------------------------------------------------------------------------------------


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def _size(size: int) -> str:
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size} bytes"
