"""What lies in a data directory, and one day file's rows and soundness.

A file's bytes are read once, so that the digest is that of the very rows that are judged, whatever a
collector does to the path meanwhile. Whether it is the ledger's digest is judged in :mod:`trio_candles.audit.walk`.
Rows come through ``BufferReader`` without threads: pyarrow 26 aborted 1 process in 16 at exit after reading from memory
with threads, and a tool's exit code is its answer.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from datetime import date
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import attrs
import pyarrow as pa
import pyarrow.parquet as pq

from trio_candles.candles.model import DAY, Timeframe, canonical_symbol, day_name
from trio_candles.store.schema import ACCOUNT_KEY, COLUMNS, QUARANTINE, STRINGS, TMP, digest_of

__all__ = ["Cell", "Content", "DayFile", "Tree", "cell_of", "day_file_path", "decode", "read_content", "survey"]

MOST_BYTES = 64 << 20
"""A full day of minutes is about 100 kB; a file far larger than that is not read into memory."""
MOST_ROWS = 50_000
CODED = pa.schema(
    [
        pa.field(field.name, pa.dictionary(pa.int32(), pa.string()), nullable=False) if field.name in STRINGS else field
        for field in COLUMNS
    ]
)
"""A day file's columns as they are read, strings as dictionaries: 1,440 times the same word is one word."""
_DAY_FILE = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})\.parquet", re.ASCII)
_FOREIGN = re.compile(r"\.DS_Store|\._.*|\.directory|Thumbs\.db|ehthumbs\.db|desktop\.ini", re.IGNORECASE | re.DOTALL)
"""What macOS's Finder (``._`` on foreign disks), KDE's Dolphin and Windows' Explorer leave in a folder."""
_VENUE = re.compile(r"[a-z][a-z0-9]*", re.ASCII)
"""What a venue's folder can be called."""
_EPOCH = date(1970, 1, 1).toordinal()


class Cell(NamedTuple):
    """One day of one symbol, in all timeframes: the unit that is audited, and read again, as a whole."""

    venue: str
    folder: str
    """BASE-QUOTE."""
    day: int


@attrs.define
class Tree:
    """Which files lie in a data directory."""

    cells: dict[Cell, set[str]] = attrs.field(factory=dict)
    """The timeframes whose day file exists."""
    leftovers: list[str] = attrs.field(factory=list)
    """Names below a venue's folder, or in its place, that are no day file's."""
    foreign: list[str] = attrs.field(factory=list)
    """Names below a venue's folder that an operating system leaves wherever somebody looks."""
    temporary: list[str] = attrs.field(factory=list)
    quarantined: int = 0


@attrs.frozen
class Content:
    """The bytes of one day file, not looked at yet."""

    digest: str | None = None
    """``None`` if there was nothing to read."""
    content: bytes = b""
    unreadable: str | None = None
    """Why it cannot be read."""

    @property
    def missing(self) -> bool:
        """Whether there is no such file."""
        return self.digest is None and self.unreadable is None


@attrs.frozen
class DayFile:
    """One reading of one day file."""

    digest: str | None = None
    """``None`` if there was nothing to read."""
    table: pa.Table | None = None
    """The rows, if their columns are those of a day file; strings as dictionaries, :data:`CODED`."""
    account: bytes | None = None
    """The account that its metadata carry."""
    unreadable: str | None = None
    """Why it cannot be read."""
    wrong_schema: str | None = None
    """How its columns differ."""


_name_of = lru_cache(4096)(day_name)  # a year's days are the same for every series


def day_file_path(cell: Cell, timeframe: str) -> str:
    """The path of a day file, below the data directory, with ``/``."""
    return f"{cell.venue}/{cell.folder}/{timeframe}/{_name_of(cell.day)}.parquet"


def cell_of(path: str) -> tuple[Cell, str] | None:
    """The cell and timeframe whose day file belongs at *path*; ``None`` if none does."""
    parts = PurePosixPath(path).parts
    if len(parts) != 4:
        return None
    venue, folder, timeframe, name = parts
    match = _DAY_FILE.fullmatch(name)
    if match is None or not _is_timeframe(folder, timeframe):
        return None
    try:
        day = (date.fromisoformat(match[1]).toordinal() - _EPOCH) * DAY
    except ValueError:
        return None
    return (Cell(venue, folder, day), timeframe) if day >= 0 else None


@lru_cache(4096)
def _is_timeframe(folder: str, name: str) -> bool:
    """Whether day files belong in the folder *name* of a symbol's *folder*."""
    try:
        Timeframe.parse(name)
        return canonical_symbol(folder) == folder
    except ValueError:
        return False


def survey(data_dir: Path, venues: Collection[str]) -> Tree:
    """Look at every name below the folders of *venues*, which the ledger knows, and of others that look like theirs.

    A folder looks like a venue's if any parquet file lies in it, or a folder of a symbol's timeframe; a plain file is
    in the place of a venue's folder if a venue could be called so.
    """
    tree = Tree()
    for entry in sorted(data_dir.iterdir()):
        if not entry.is_dir():
            if entry.suffix == ".parquet" or entry.name in venues or _VENUE.fullmatch(entry.name):
                tree.leftovers.append(entry.name)
            continue
        files = list(_files_below(entry, entry.name))
        if entry.name == TMP:
            tree.temporary = files
        elif entry.name == QUARANTINE:
            tree.quarantined = len(files)
        elif entry.name in venues or _looks_like_a_venue(entry, files):
            for path in files:
                found = cell_of(path)
                if _FOREIGN.fullmatch(path.rpartition("/")[2]):
                    tree.foreign.append(path)
                elif found is None:
                    tree.leftovers.append(path)
                else:
                    tree.cells.setdefault(found[0], set()).add(found[1])
            tree.leftovers += _folders_called_like_files(entry, entry.name)
    return tree


def _looks_like_a_venue(folder: Path, files: Collection[str]) -> bool:
    return any(path.endswith(".parquet") for path in files) or any(
        below.is_dir() and _is_timeframe(below.parent.name, below.name) for below in folder.glob("*/*")
    )


def _files_below(folder: Path, name: str) -> Iterator[str]:
    for root, folders, files in os.walk(folder):
        folders.sort()
        below = Path(root).relative_to(folder).parts
        for file in sorted(files):
            yield "/".join((name, *below, file))
        for link in [one for one in folders if Path(root, one).is_symlink()]:
            yield "/".join((name, *below, link))  # not followed: what is behind it belongs to somebody else


def _folders_called_like_files(folder: Path, name: str) -> Iterator[str]:
    for root, folders, _ in os.walk(folder):
        folders.sort()
        below = Path(root).relative_to(folder).parts
        for one in folders:
            if one.endswith(".parquet") and not Path(root, one).is_symlink():
                yield "/".join((name, *below, one))


def read_content(path: str) -> Content:
    """Read the bytes of the file at *path*; whatever is wrong with it is in the result, not raised."""
    try:
        with open(path, "rb") as file:
            # Python sets aside as much memory as is asked for: ask for the file and one byte, lest it grow meanwhile.
            content = file.read(min(os.fstat(file.fileno()).st_size, MOST_BYTES) + 1)
    except (FileNotFoundError, NotADirectoryError):
        return Content()
    except OSError as error:
        return Content(unreadable=str(error))
    digest = digest_of(content)
    if len(content) > MOST_BYTES:
        return Content(digest, unreadable=f"larger than {MOST_BYTES:,} bytes")
    return Content(digest, content)


def decode(read: Content, digests: Collection[str | None] = ()) -> DayFile:
    """The day file that was *read*; whatever is wrong with it is in the result, not raised. *digests* are those that
    the ledger knows: rows of a file with another digest are validated in full.
    """
    digest, content = read.digest, read.content
    if digest is None or read.unreadable is not None:
        return DayFile(digest, unreadable=read.unreadable)
    try:
        # The file's schema, not the reader's: the reader calls a column a dictionary if we ask for a dictionary,
        # whatever the file says, and fails if such a column is missing.
        metadata = pq.read_metadata(pa.BufferReader(content))
        schema = metadata.schema.to_arrow_schema()
        wrong = _schema_difference(schema)
        if wrong is not None:
            return DayFile(digest, wrong_schema=wrong)
        with pq.ParquetFile(
            pa.BufferReader(content), metadata=metadata, page_checksum_verification=True, read_dictionary=list(STRINGS)
        ) as parquet:
            if parquet.metadata.num_rows > MOST_ROWS:
                return DayFile(digest, unreadable=f"{parquet.metadata.num_rows:,} rows; a day has 1,440 minutes")
            table = parquet.read(use_threads=False)
        if not table.schema.equals(CODED):
            return DayFile(digest, wrong_schema="other columns")
        if digest not in digests:
            table.validate(full=True)  # a tenth of the reading, which a known digest makes needless
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        return DayFile(digest, unreadable=" ".join(str(error).split()) or type(error).__name__)
    return DayFile(digest, table, (schema.metadata or {}).get(ACCOUNT_KEY))


def _schema_difference(found: pa.Schema) -> str | None:
    """How *found* differs from a day file's columns, ``None`` if it does not (metadata aside)."""
    if found.equals(COLUMNS):
        return None
    if found.names != COLUMNS.names:
        missing = [name for name in COLUMNS.names if name not in found.names]
        foreign = [name for name in found.names if name not in COLUMNS.names]
        if not missing and not foreign:
            return "the columns are in another order, or doubled"
        parts = [
            f"missing {', '.join(missing)}" if missing else "",
            f"foreign {', '.join(foreign)}" if foreign else "",
        ]
        return "columns: " + "; ".join(part for part in parts if part)
    wrong = [f"{a} instead of {b}" for a, b in zip(found, COLUMNS, strict=True) if not a.equals(b)]
    return "columns: " + "; ".join(wrong)
