"""What is said of a sealed day, once by the ledger's row and once by the day's file of minutes.

Both are decoded here anew, by what the schema and the contract say of them, and not by the code that writes them: what
one of the two gets wrong the other finds. Of the minutes there is a text of 1,440 letters, one for each minute from
midnight on: ``.`` not expected, ``c`` a candle, ``e`` empty, ``u`` unfillable, ``g`` a gap.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from trio_candles.audit.bits import LATEST
from trio_candles.candles.model import DAY, MINUTE, Series, Timeframe

__all__ = ["ACCOUNT", "Saying", "SealedDay", "read_account", "read_row"]

ACCOUNT = "account"
"""In a row's ``shape``: the day's file of minutes carries the account, too."""
_LETTERS = ".ceug"
_AS_BITS = {letter: str.maketrans({one: "01"[one == letter] for one in _LETTERS}) for letter in _LETTERS}
_MINUTES = DAY // MINUTE
_MOST_BYTES = 1 << 20
"""Of a decompressed column: whoever broke the ledger must not fill the memory."""
_WHYS = {"e": "empty", "u": "unfillable", "g": "gap"}
"""Which evidence there must be for which letter."""
_EVIDENCE = ("compared", "empty", "unfillable", "gap", "listed")


@attrs.frozen
class Saying:
    """What one of the two says of a day's minutes, as bits, and the evidence by its kind."""

    stored: int
    empty: int
    unfillable: int
    gap: int
    evidence: Mapping[str, Any]

    @property
    def known(self) -> int:
        """The minutes that are expected."""
        return self.stored | self.empty | self.unfillable | self.gap

    def unlike(self, other: Saying) -> tuple[int, list[str]]:
        """The minutes that *other* calls something else, and the kinds of evidence that differ."""
        minutes = (
            (self.stored ^ other.stored)
            | (self.empty ^ other.empty)
            | (self.unfillable ^ other.unfillable)
            | (self.gap ^ other.gap)
        )
        return minutes, [name for name in _EVIDENCE if self.evidence[name] != other.evidence[name]]


@attrs.frozen
class SealedDay:
    """A row of the table ``sealed``."""

    saying: Saying
    shape: frozenset[str]
    """The higher timeframes that were derived, and :data:`ACCOUNT`."""
    digests: Mapping[str, str]
    """Timeframe -> digest of the day's file."""
    content: bytes
    """A digest of the whole row."""


def read_row(series: Series, row: Sequence[Any]) -> tuple[SealedDay | None, list[str]]:
    """The sealed day that *row* tells of, ``None`` if nothing can be made of it; and what is wrong with the row.

    *row* has the columns day_ms, shape, minutes, detail, unknown and checksum. Its day is a day's first instant.
    """
    _, shape, minutes, detail, unknown, checksum = row
    wrong = []
    content = repr((series.venue, series.symbol, series.folder, *row[:-1])).encode("utf-8", "replace")
    if checksum != zlib.crc32(content):
        wrong.append("the row does not match its checksum")
    try:
        values = _object(_unpacked(detail))
        saying, missing = _saying(_unpacked(minutes), values)
        digests = values["digests"]
        if not isinstance(digests, dict) or not all(isinstance(one, str) for one in digests.values()):
            raise ValueError("its digests are none")
        has = frozenset(str(shape).split())
        for name in {*has, *digests} - {ACCOUNT, "1m"}:
            Timeframe.parse(name)
    except (ValueError, LookupError, TypeError, zlib.error) as error:
        return None, [*wrong, f"the row cannot be read: {error}"]
    wrong += missing
    if unknown != saying.gap.bit_count():
        wrong.append(f"{unknown!r} gap minutes are counted, and there are {saying.gap.bit_count()}")
    if "1m" not in digests and ACCOUNT in has:
        wrong.append("the account is said to be in a file, and there is no file's digest")
    return SealedDay(saying, has, digests, hashlib.blake2b(content, digest_size=16).digest()), wrong


def read_account(series: Series, day: int, text: bytes) -> tuple[Saying | None, list[str]]:
    """What the account in a file of minutes says, ``None`` if nothing can be made of it; and what is wrong with it.

    *series* and *day* are those of the file's place.
    """
    try:
        values = _object(text)
        whose = (values["venue"], values["symbol"], values["folder"], values["day"])
        saying, wrong = _saying(str(values["minutes"]).encode(), values)
    except (ValueError, LookupError, TypeError) as error:
        return None, [f"the account in the file cannot be read: {error}"]
    if whose != (series.venue, series.symbol, series.folder, day):
        wrong.append(f"it is that of another day: {whose}")
    return saying, [f"the account in the file: {words}" for words in wrong]


def _unpacked(column: object) -> bytes:
    if not isinstance(column, bytes):
        raise TypeError(f"{column!r} is not packed")
    packer = zlib.decompressobj()
    content = packer.decompress(column, _MOST_BYTES)
    if not packer.eof or packer.unused_data:
        raise ValueError("it is not packed whole")
    return content


def _object(text: bytes) -> dict[str, Any]:
    values = json.loads(text)
    if not isinstance(values, dict):
        raise ValueError("no JSON object")
    return values


def _saying(letters: bytes, values: Mapping[str, Any]) -> tuple[Saying, list[str]]:
    """What *letters* and the evidence in *values* say; raises if they say nothing."""
    text = letters.decode("ascii")
    if len(text) != _MINUTES or set(text) - set(_LETTERS):
        raise ValueError(f"not {_MINUTES} of the letters {_LETTERS}")
    evidence = {name: values[name] for name in _EVIDENCE}
    bits = {letter: _bits(text, letter) for letter in "ceug"}
    wrong = []
    for letter, name in _WHYS.items():
        if bits[letter] and evidence[name] is None:
            wrong.append(f"{name}: there are such minutes, and no evidence")
        elif evidence[name] is not None and not bits[letter]:
            wrong.append(f"{name}: there is evidence, and no such minute")
    wrong += [f"{name} is not to be understood" for name in _EVIDENCE if not _is_sound(name, evidence[name])]
    return Saying(bits["c"], bits["e"], bits["u"], bits["g"], evidence), wrong


def _bits(text: str, letter: str) -> int:
    if letter not in text:
        return 0
    return int(text.translate(_AS_BITS[letter])[::-1], 2)  # bit 0 is midnight's minute


def _is_sound(name: str, value: Any) -> bool:  # noqa: ANN401
    """Whether *value* can be the evidence called *name*."""
    if name == "compared":
        return isinstance(value, bool)
    if value is None:
        return True
    if name == "empty":
        return isinstance(value, str) and bool(value.strip())
    if not isinstance(value, list):
        return False
    if name == "listed":
        return len(value) == 2 and _is_time(value[0]) and isinstance(value[1], str)
    return (
        len(value) == 5
        and isinstance(value[0], str)
        and bool(value[0].strip())
        and isinstance(value[1], str)
        and _is_time(value[2])
        and type(value[3]) is int
        and isinstance(value[4], str | None)
    )


def _is_time(value: object) -> bool:
    return type(value) is int and 0 <= value <= LATEST
