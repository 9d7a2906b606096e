"""Receipts: what a cell was found to be, so that its files are hashed at the next audit and not decoded again.

A receipt is given to a cell in which nothing was wrong, and is a line of a plain text file::

    venue/folder/day TAB seal TAB [[timeframe, rows, first, last], ...], minutes of the 1m file as hex

Nothing in it is believed but by its *seal*, which is made anew at each look: a digest of what the line says, of the
digest of each file of the cell as just read, of everything in the ledger on which the judgement of the files depended
(the row of a sealed day, which minutes count as empty or in doubt, which aggregates must be there), and of the
version of the audit's rules. Whatever of it has changed, the cell is decoded again. What the ledger says of each
minute, and which digests it lists, is judged every time, with the minutes that the receipt names.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from trio_candles import __version__
from trio_candles.audit.account import Day, states
from trio_candles.audit.bits import LATEST
from trio_candles.audit.files import Cell, Content, day_file_path
from trio_candles.audit.rows import Piece
from trio_candles.candles.model import DAY, MINUTE, Series
from trio_candles.store.schema import COLUMNS

__all__ = ["NotReceipts", "Receipts", "seal_of", "written"]

RULES = 1
"""Of the audit: raised whenever a rule of a file is added or made stricter, so that every file is decoded again."""
_HEADER = "trio_candles receipts 1"
_NO_ROWS = COLUMNS.empty_table()


class NotReceipts(Exception):
    """The file holds something else, and is not to be overwritten."""


@attrs.frozen
class Found:
    """What the files of a cell were found to be."""

    files: Sequence[tuple[str, int, int | None, int | None]]
    """Timeframe, number of rows, and the open times of the first and the last."""
    minutes: int
    """Of the 1m file, as bits."""

    @classmethod
    def of(cls, day: Day) -> Found:
        """What was found in *day*."""
        base = day.files.get("1m")
        files = [(name, piece.rows, piece.first, piece.last) for name, piece in sorted(day.files.items())]
        return cls(files, 0 if base is None else base.bits)

    def put_into(self, day: Day) -> None:
        """Give *day* its files, without their rows."""
        for name, rows, first, last in self.files:
            series = Series(day.cell.venue, day.symbol, name)
            bits = self.minutes if name == "1m" else 0
            path = day_file_path(day.cell, name)
            day.files[name] = Piece(day.cell, series, path, _NO_ROWS, bits=bits, first=first, last=last, rows=rows)

    def text(self) -> str:
        """As it lies in the file."""
        return json.dumps([self.files, f"{self.minutes:x}"], separators=(",", ":"))

    @classmethod
    def read(cls, text: str) -> Found:
        """What :meth:`text` has written; ``ValueError`` or ``TypeError`` if it has not."""
        files, minutes = json.loads(text)
        found = [(str(name), int(rows), _time(first), _time(last)) for name, rows, first, last in files]
        bits = int(minutes, 16)
        rows = next((rows for name, rows, *_ in found if name == "1m"), 0)
        if not 0 <= bits < 1 << DAY // MINUTE or rows != bits.bit_count():
            raise ValueError("not the minutes of the day's rows")
        return cls(found, bits)


def _time(value: Any) -> int | None:  # noqa: ANN401
    if value is not None and not (type(value) is int and 0 <= value <= LATEST):
        raise ValueError(f"{value!r} is no time")
    return value


def seal_of(day: Day, found: Found, contents: Mapping[str, Content], due: Sequence[str], closed_by: int) -> str:
    """The seal of a receipt that *found* is what *day*'s files are, their *contents* being as read now.

    *day* has its files, with or without rows. *due* are the aggregates that must be there. *closed_by* is the end of
    what is accounted for and has happened: under a clock by which a row is in the future this is another one.
    """
    assert day.account is not None
    _, empty, doubtful = states(day)
    sealed = day.account.sealed.get(day.cell.day)
    judged = (
        (RULES, __version__),
        (day.cell.venue, day.cell.folder, day.cell.day, day.symbol),
        sorted((name, content.digest) for name, content in contents.items()),
        None if sealed is None else sealed.content,
        (empty, doubtful),
        (tuple(due), min(max(closed_by - day.cell.day, 0), DAY)),
        found.text(),
    )
    return hashlib.blake2b(repr(judged).encode(), digest_size=16).hexdigest()


def may_have_one(day: Day) -> bool:
    """Whether a receipt can stand for *day*: not without a ledger, nor while candles wait for its files."""
    return day.account is not None and day.journal is None


def written(day: Day, found: Found, seal: str) -> str:
    """A receipt as a line of the file."""
    return f"{_key(day.cell)}\t{seal}\t{found.text()}"


def _key(cell: Cell) -> str:
    return f"{cell.venue}/{cell.folder}/{cell.day}"


@attrs.define
class Receipts:
    """The receipts of a directory: those that were there, and those that this audit gives."""

    path: Path
    given: dict[str, str] = attrs.field(factory=dict)
    """Cell -> line."""
    broken: int = 0
    """How many lines could not be read."""
    believed: int = 0
    """How many were believed by this audit."""

    @classmethod
    def read(cls, path: Path) -> Receipts:
        """The receipts at *path*, none if there is no such file. :class:`NotReceipts` if it holds something else."""
        try:
            header, *lines = path.read_text("utf-8", errors="replace").split("\n")
        except FileNotFoundError:
            return cls(path)
        if not header and not lines:
            return cls(path)
        words = header.removeprefix(_HEADER)
        if words == header:
            raise NotReceipts("it holds something else than receipts of an audit")
        given = {line.partition("\t")[0]: line for line in lines if line.count("\t") == 2}
        count = int(words) if words.strip().isdigit() else len(lines)
        return cls(path, given, max(0, count - len(given)))

    def found(self, cell: Cell) -> tuple[Found, str] | None:
        """What the files of *cell* were found to be, and the seal that this must have; ``None`` without a receipt."""
        line = self.given.get(_key(cell))
        if line is None:
            return None
        _, seal, text = line.split("\t")
        try:
            return Found.read(text), seal
        except (ValueError, TypeError):
            return None

    def give(self, cell: Cell, line: str | None, *, believed: bool) -> None:
        """The receipt of *cell* is *line* from now on; ``None``: none. *believed*: it was there, and still holds."""
        self.believed += believed
        if line is None:
            self.given.pop(_key(cell), None)
        else:
            self.given[_key(cell)] = line

    def text(self) -> str:
        """All receipts as they are written."""
        return "\n".join([f"{_HEADER} {len(self.given)}", *self.given.values(), ""])
