"""trio_candles: 1-minute candles of several crypto exchanges, collected so that they can be believed.

For programs: :func:`read_candles` and :func:`coverage`, and what they raise. They are imported when first asked for,
so that ``import trio_candles`` stays cheap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from trio_candles.reading.candles import read_candles
    from trio_candles.reading.errors import (
        DayFileDamaged,
        GapError,
        LedgerUnreadable,
        NoSuchDirectory,
        ReadError,
        UnknownMinutes,
        UnknownSeries,
    )
    from trio_candles.reading.spans import coverage

__all__ = [
    "DayFileDamaged",
    "GapError",
    "LedgerUnreadable",
    "NoSuchDirectory",
    "ReadError",
    "UnknownMinutes",
    "UnknownSeries",
    "__version__",
    "coverage",
    "read_candles",
]


if not TYPE_CHECKING:  # a type checker would take it as leave to find any name here

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from trio_candles.reading import candles, errors, spans

        return getattr({"read_candles": candles, "coverage": spans}.get(name, errors), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
