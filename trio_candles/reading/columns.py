"""The columns of ``coverage``, built without an object a span: a thin pair has 500,000 spans a year.

The spans of a series adjoin, so a span is where it begins and a *code*, the number of what is said of its minutes; its
end is the beginning of the next. What is said (:class:`Said`) is the same of many spans, and kept once.
"""

from __future__ import annotations

from array import array
from collections.abc import Hashable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import attrs
import pyarrow as pa
import pyarrow.compute as pc

from trio_candles.candles.model import DAY, MINUTE, Millis
from trio_candles.store.accounts import EMPTY, GAP, NOT_EXPECTED, STORED, UNFILLABLE, Account

__all__ = ["SPANS", "STORED_CODE", "Columns", "Said", "Whose"]


_FEW, _SOME, _MANY = (
    pa.dictionary(pa.int8(), pa.string()),
    pa.dictionary(pa.int16(), pa.string()),
    pa.dictionary(pa.int32(), pa.string()),
)

_FIELDS: list[pa.Field[pa.DataType]] = [
    pa.field("venue", _FEW, nullable=False),
    pa.field("symbol", _MANY, nullable=False),
    pa.field("since_ms", pa.int64(), nullable=False),
    pa.field("until_ms", pa.int64(), nullable=False),
    pa.field("state", _FEW, nullable=False),
    pa.field("reason", _SOME),
    pa.field("detail", _MANY),
    pa.field("attempts", pa.int64()),
    pa.field("first_seen_ms", pa.int64()),
    pa.field("last_error", _MANY),
    pa.field("grade", _FEW),
]
SPANS = pa.schema(_FIELDS)
"""The columns of ``coverage``: texts are dictionary-encoded, which makes a span at most 50 bytes. ``grade`` is a
:class:`~trio_candles.venues.venue.Grade`."""


class Said(NamedTuple):
    """What the ledger says of the minutes of a span; the names are the columns'."""

    state: str
    reason: str | None = None
    detail: str | None = None
    attempts: int | None = None
    first_seen_ms: int | None = None
    last_error: str | None = None


class Whose(NamedTuple):
    """Whose span it is; the names are the columns'."""

    venue: str
    symbol: str
    grade: str | None


STORED_CODE = 0
LETTERS = STORED + EMPTY + UNFILLABLE + GAP
_NUMBERS = bytes.maketrans(LETTERS.encode(), bytes(range(len(LETTERS))))
_AT_ONCE = 64
"""Sealed days that are taken apart together: the calls into Arrow cost as much as a day's minutes."""


@attrs.define
class _Spans:
    """The spans of one series."""

    whose: Whose
    begins: array[int]
    codes: array[int]
    end: int = 0


@attrs.define
class Columns:
    """The table under construction: :meth:`begin` a series, add its spans in order, :meth:`end` it."""

    _codes: dict[Said, int] = attrs.field(factory=lambda: {Said("stored"): STORED_CODE})
    _done: list[_Spans] = attrs.field(factory=list)
    _at: _Spans = attrs.field(init=False)
    _days: list[tuple[str, list[int]]] = attrs.field(init=False, factory=list)
    """Sealed days that adjoin and are not taken apart yet: letters, and the code of each letter."""
    _days_begin: int = attrs.field(init=False, default=0)

    def begin(self, whose: Whose) -> None:
        """The spans that follow are *whose*."""
        self._at = _Spans(whose, array("q"), array("i"))

    def end(self, time: int) -> None:
        """The last span of the series ends at *time*."""
        self._take_apart()
        if self._at.codes:
            self._at.begins.append(time)
            self._done.append(self._at)

    def code(self, said: Said) -> int:
        """The number of *said*."""
        return self._codes.setdefault(said, len(self._codes))

    def add(self, since: int, code: int) -> None:
        """A span that begins at *since*; joined to the one before if that says the same."""
        if self._days:
            self._take_apart()
        if not self._at.codes or self._at.codes[-1] != code:
            self._at.begins.append(since)
            self._at.codes.append(code)

    def add_day(self, day: Millis, letters: str, account: Account | None, since: int, until: int) -> None:
        """The part ``[since, until)`` of a sealed *day*, as the ledger's reader has it; ``ValueError`` if the account
        does not know one of these minutes.
        """
        if account is None:
            self.add(since, STORED_CODE)
            return
        part = letters[(since - day) // MINUTE : (until - day) // MINUTE]
        if NOT_EXPECTED in part:
            raise ValueError(f"the account of {day} does not know each minute of [{since}, {until})")
        codes = [STORED_CODE, -1, -1, -1]
        if account.empty is not None:
            codes[1] = self.code(Said("empty", detail=account.empty))
        for place, state, why in ((2, "unfillable", account.unfillable), (3, "gap", account.gap)):
            if why is not None:
                said = Said(state, why.reason, why.detail, why.attempts, why.first_seen, why.last_error)
                codes[place] = self.code(said)
        if len(self._days) == _AT_ONCE:
            self._take_apart()
        if not self._days:
            self._days_begin = since
        self._days.append((part, codes))

    def _take_apart(self) -> None:
        """Add the spans of the sealed days that wait for it."""
        if not self._days:
            return
        days, self._days = self._days, []
        text = "".join(part for part, _ in days).encode().translate(_NUMBERS)
        letters = pa.Array.from_buffers(pa.uint8(), len(text), [None, pa.py_buffer(text)])
        changes = pc.indices_nonzero(pc.not_equal(letters[:-1], letters[1:])).cast(pa.int64())
        # Where two days say different things of minutes with the same letter.
        midnights, place = [0], 0
        for (part, codes), (_, after) in pairwise(days):
            place += len(part)
            if text[place - 1] == text[place] and codes[text[place]] != after[text[place]]:
                midnights.append(place)
        begins = pa.concat_arrays([pa.array(midnights, pa.int64()), pc.add(changes, 1)])
        begins = begins.take(pc.sort_indices(begins))
        # Only the first day may begin within the day, so that all the others begin at its multiples.
        first = (DAY - self._days_begin % DAY) // MINUTE
        number = pc.divide(pc.add(begins, DAY // MINUTE - first), DAY // MINUTE)
        key = pc.add(pc.multiply(number, len(LETTERS)), letters.take(begins).cast(pa.int64()))
        found = pa.array([code for _, codes in days for code in codes], pa.int32()).take(key)
        times = pc.add(pc.multiply(begins, int(MINUTE)), self._days_begin)
        if self._at.codes and self._at.codes[-1] == found[0].as_py():
            times, found = times[1:], found[1:]
        self._at.begins.frombytes(_memory(times))
        self._at.codes.frombytes(_memory(found))

    def table(self) -> pa.Table:
        """All that was added, as :data:`SPANS` has it; ``ValueError`` or ``TypeError`` where a value is of a type that
        its column cannot hold.
        """
        said = [*self._codes]
        by_code = {
            name: _Values.of(SPANS.field(name).type, [getattr(one, name) for one in said]) for name in Said._fields
        }
        by_series = {
            name: _Values.of(SPANS.field(name).type, [getattr(one.whose, name) for one in self._done])
            for name in Whose._fields
        }
        chunks: dict[str, list[pa.Array[Any]]] = {name: [] for name in SPANS.names}
        while self._done:  # each is forgotten as soon as it is in the table
            spans = self._done.pop(0)
            count, place = len(spans.codes), len(chunks["venue"])
            times = pa.Array.from_buffers(pa.int64(), count + 1, [None, pa.py_buffer(spans.begins)])
            codes = pa.Array.from_buffers(pa.int32(), count, [None, pa.py_buffer(spans.codes)])
            chunks["since_ms"].append(times[:-1])
            chunks["until_ms"].append(times[1:])
            for name, values in by_code.items():
                chunks[name].append(values.take(codes))
            for name, values in by_series.items():
                chunks[name].append(values.take(pa.repeat(pa.scalar(place, pa.int32()), count)))
        columns = [pa.chunked_array(chunks[field.name], field.type) for field in SPANS]
        return pa.Table.from_arrays(columns, schema=SPANS)


@attrs.frozen
class _Values:
    """The values of a column, by number."""

    values: pa.Array[Any]
    """The values themselves, or their places among the texts."""
    texts: pa.Array[Any] | None

    @classmethod
    def of(cls, type_: pa.DataType, values: Sequence[Hashable]) -> _Values:
        if not isinstance(type_, pa.DictionaryType):
            return cls(pa.array(values, type_), None)
        texts = {text: place for place, text in enumerate(dict.fromkeys(one for one in values if one is not None))}
        places = [None if one is None else texts[one] for one in values]
        return cls(pa.array(places, type_.index_type), pa.array([*texts], type_.value_type))

    def take(self, numbers: pa.Array[Any]) -> pa.Array[Any]:
        taken = self.values.take(numbers)
        return taken if self.texts is None else pa.DictionaryArray.from_arrays(taken, self.texts)


def _memory(numbers: pa.Array[Any]) -> memoryview:
    """The memory in which *numbers*, none of which is null, lie."""
    (_, buffer), width = numbers.buffers(), numbers.type.bit_width // 8
    assert buffer is not None
    return memoryview(buffer)[numbers.offset * width : (numbers.offset + len(numbers)) * width]
