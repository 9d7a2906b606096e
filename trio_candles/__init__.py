"""trio_candles: 1-minute candles of several crypto exchanges, collected so that they can be believed.

For programs: :func:`read_candles`, :func:`coverage` and :func:`snapshot` for what is stored, :func:`follow` (trio) and
:func:`follow_sync` (any thread) for what becomes known, and what they raise. They are imported when first asked for, so
that ``import trio_candles`` stays cheap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from trio_candles.reading.candles import read_candles, snapshot
    from trio_candles.reading.changes import CandleDocument, Change
    from trio_candles.reading.errors import (
        CursorError,
        CursorExpired,
        CursorUnknown,
        DayFileDamaged,
        GapError,
        LedgerUnreadable,
        NoSuchDirectory,
        ReadError,
        UnknownMinutes,
        UnknownSeries,
    )
    from trio_candles.reading.follow import CursorFile, follow_sync
    from trio_candles.reading.following import follow
    from trio_candles.reading.spans import coverage

__all__ = [
    "CandleDocument",
    "Change",
    "CursorError",
    "CursorExpired",
    "CursorFile",
    "CursorUnknown",
    "DayFileDamaged",
    "GapError",
    "LedgerUnreadable",
    "NoSuchDirectory",
    "ReadError",
    "UnknownMinutes",
    "UnknownSeries",
    "__version__",
    "coverage",
    "follow",
    "follow_sync",
    "read_candles",
    "snapshot",
]


if not TYPE_CHECKING:  # a type checker would take it as leave to find any name here

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        if name == "follow":  # the only one that needs trio
            from trio_candles.reading.following import follow

            return follow
        from trio_candles.reading import candles, changes, errors, spans
        from trio_candles.reading import follow as follows

        places = {
            "CandleDocument": changes, "Change": changes, "CursorFile": follows, "coverage": spans,
            "follow_sync": follows, "read_candles": candles, "snapshot": candles,
        }  # fmt: skip
        return getattr(places.get(name, errors), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
