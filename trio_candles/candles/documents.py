"""Records to JSON and back: the one converter for the JSON that programs read and the JSON that the ledger keeps.

A *document* is a frozen record whose fields are the JSON object's keys, in their order; a nested record is an object,
``None`` is null, and every key is always present. Each tool's documents lie beside the code that fills them; this
module has the documents that several tools share. JSON that is read back must match its record: a missing or extra
key, a text where a number belongs, or NaN is a ``ValueError``, never a default and never a guess.
"""

from __future__ import annotations

import json
from enum import StrEnum
from functools import cache
from math import isfinite
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from trio_candles.candles.model import Candle, Source

if TYPE_CHECKING:
    from cattrs import Converter

__all__ = ["CandleDocument", "EmptyDocument", "from_json", "kept_from_json", "to_json"]

T = TypeVar("T")


@attrs.frozen
class CandleDocument:
    """A candle's values without its series and minute: how the ledger keeps the candles of a revision."""

    open: float
    high: float
    low: float
    close: float
    volume: float
    quote_volume: float | None
    vwap: float | None
    trades_count: int | None
    source: Source
    ingest_time_ms: int

    @classmethod
    def of(cls, candle: Candle) -> CandleDocument:
        """The values of *candle*."""
        return cls(
            candle.open, candle.high, candle.low, candle.close, candle.volume, candle.quote_volume, candle.vwap,
            candle.trades_count, candle.source, candle.ingest_time,
        )  # fmt: skip


@attrs.frozen
class EmptyDocument:
    """Takes the place of a :class:`CandleDocument` where the minute was called empty."""

    empty: str
    """The evidence."""


def to_json(document: attrs.AttrsInstance) -> str:
    """*document* as one line of JSON; ``ValueError`` for a number that JSON does not have."""
    return json.dumps(_converter().unstructure(document), allow_nan=False)


def from_json(text: str, kind: type[T]) -> T:
    """*text* read as a document of *kind*; ``ValueError`` if it is none, which lists every mismatch."""
    from cattrs import BaseValidationError, transform_error

    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError(f"{text[:200]} is no JSON object")
    try:
        return _converter().structure(value, kind)
    except BaseValidationError as error:
        raise ValueError(f"{'; '.join(transform_error(error))}, in {text[:300]}") from error


def kept_from_json(text: str) -> CandleDocument | EmptyDocument:
    """*text* read as what a minute was before a revision, a candle or empty; errors as of :func:`from_json`."""
    either: Any = CandleDocument | EmptyDocument  # told apart by their keys
    kept: CandleDocument | EmptyDocument = from_json(text, either)
    return kept


@cache
def _converter() -> Converter:
    # Imported late: the import takes 40 to 70 ms, for which only whoever writes or reads a document should wait.
    from cattrs import Converter

    converter = Converter(forbid_extra_keys=True)
    # By itself cattrs calls the type, so the text "7" would be accepted as a number and the number 7 as a text.
    for kind in (int, float, str, bool):
        converter.register_structure_hook(kind, _exactly)
    converter.register_structure_hook(StrEnum, lambda value, kind: kind(value))  # else the hook of str, StrEnum's base
    return converter


def _exactly(value: object, kind: type) -> object:
    """*value* if JSON's type for it is *kind*; a whole number passes as a float, ``true`` passes as no number.

    ``TypeError`` for another type, ``ValueError`` for a number that is not finite.
    """
    allowed = (int, float) if kind is float else kind
    if (isinstance(value, bool) and kind is not bool) or not isinstance(value, allowed):
        raise TypeError(f"{value!r} is no {kind.__name__}")
    if kind is not float:
        return value
    number = float(value)  # type: ignore[arg-type]
    if not isfinite(number):
        raise ValueError(f"{value!r} is no number")
    return number
