"""JSON of records, and records of JSON: the one converter for what programs read and what the ledger keeps as JSON.

A *document* is a frozen record whose fields are the JSON object's keys, in their order; a record in it is an object,
``None`` is null, and every key is always there. Each tool's documents lie beside the code that fills them; here are
those that several share. What is read back is held to its record: a key too few or too many, a text where a number
belongs, NaN are a ``ValueError``, never a default and never a guess.
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
    """A candle's values, where series and minute are known: as the ledger keeps those of a revision."""

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
    """In a candle's place, where the minute was called empty."""

    empty: str
    """The evidence."""


def to_json(document: attrs.AttrsInstance) -> str:
    """*document* as one line of JSON; ``ValueError`` for a number that JSON does not have."""
    return json.dumps(_converter().unstructure(document), allow_nan=False)


def from_json(text: str, kind: type[T]) -> T:
    """The document of *kind* that *text* is; ``ValueError`` names everything that is not as it should be."""
    from cattrs import BaseValidationError, transform_error

    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError(f"{text[:200]} is no JSON object")
    try:
        return _converter().structure(value, kind)
    except BaseValidationError as error:
        raise ValueError(f"{'; '.join(transform_error(error))}, in {text[:300]}") from error


def kept_from_json(text: str) -> CandleDocument | EmptyDocument:
    """What the ledger keeps of a minute as it was before a revision; ``ValueError`` as of :func:`from_json`."""
    either: Any = CandleDocument | EmptyDocument  # told apart by their keys
    kept: CandleDocument | EmptyDocument = from_json(text, either)
    return kept


@cache
def _converter() -> Converter:
    # Imported late: 40 to 70 ms for which only those should wait who write or read a document.
    from cattrs import Converter

    converter = Converter(forbid_extra_keys=True)
    # By itself cattrs calls the type: int("7") and str(7) would pass for what they are not.
    for kind in (int, float, str):
        converter.register_structure_hook(kind, _exactly)
    converter.register_structure_hook(StrEnum, lambda value, kind: kind(value))  # else the one of str, its base
    return converter


def _exactly(value: object, kind: type) -> object:
    """*value*, if it is of *kind* as JSON has it: a whole number will do as a float; true is no number."""
    allowed = (int, float) if kind is float else kind
    if isinstance(value, bool) or not isinstance(value, allowed):
        raise TypeError(f"{value!r} is no {kind.__name__}")
    if kind is not float:
        return value
    number = float(value)  # type: ignore[arg-type]
    if not isfinite(number):
        raise ValueError(f"{value!r} is no number")
    return number
