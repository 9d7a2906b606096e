"""Times as people and programs write them → Unix milliseconds; one parser for the reader's and the tools' arguments.

======== ==========================================================================================
text     an ISO date (its UTC midnight), an ISO time (UTC unless it says otherwise), or Unix ms
datetime with a time zone; a naive datetime is refused, because Python takes it for local time
date     its UTC midnight
int      Unix ms; also numpy's integers, and whatever else is one by ``__index__``
======== ==========================================================================================

A scalar of Arrow is what it is in Python (``as_py()``).
"""

from __future__ import annotations

import operator
from datetime import UTC, date, datetime, timedelta
from typing import Protocol, SupportsIndex

from trio_candles.candles.model import Millis

__all__ = ["LATEST", "Moment", "unix_ms"]


class ArrowScalar(Protocol):
    """A value in a column of Arrow."""

    def as_py(self) -> object:
        """The value as Python's own."""
        ...


Moment = str | SupportsIndex | date | datetime | ArrowScalar
"""What :func:`unix_ms` takes."""

LATEST = Millis(10_413_792_000_000)
"""The year 2300 (accelerated clocks run ahead): a time after it is a mistake."""

_SECONDS_BELOW = 100_000_000_000
"""Unix ms of 1973; as seconds, the year 5138. A smaller number is taken for seconds given by mistake."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def unix_ms(value: Moment) -> Millis:
    """*value* in Unix ms; ``TypeError`` for another type, ``ValueError`` where it is uncertain which time is meant."""
    own = _as_python(value)
    if isinstance(own, str):
        time = _time_in(own)
    elif isinstance(own, int):
        time = own
    elif isinstance(own, datetime):
        if own.utcoffset() is None:
            raise ValueError(f"{value!r} names no time zone; for UTC, give it tzinfo=datetime.UTC")
        time = _since_epoch(own)
    else:
        time = _since_epoch(datetime(own.year, own.month, own.day, tzinfo=UTC))
    if not 0 <= time <= LATEST:
        raise ValueError(f"{value!r} is not between 1970 and 2300")
    if 0 < time < _SECONDS_BELOW and not isinstance(own, date):
        raise ValueError(f"{value!r} looks like seconds; expected Unix milliseconds")
    return Millis(time)


def _as_python(value: object) -> str | int | date:
    own = value.as_py() if hasattr(value, "as_py") else value
    if isinstance(own, (str, date)):
        return own
    if not isinstance(own, bool) and hasattr(own, "__index__"):
        try:
            return operator.index(own)
        except TypeError:  # numpy's booleans, and arrays of more than one number
            pass
    raise TypeError(f"{value!r} is no time; expected a text, a datetime or Unix ms")


def _time_in(text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) > 8:  # eight digits are a date
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is no UTC date, ISO time or Unix ms") from None
    return _since_epoch(moment if moment.utcoffset() is not None else moment.replace(tzinfo=UTC))


def _since_epoch(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(milliseconds=1)
