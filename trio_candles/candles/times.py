"""Times as people and programs write them → Unix milliseconds; one parser for the reader's and the tools' arguments.

======== ==========================================================================================
text     an ISO date (its UTC midnight), an ISO time (UTC unless it says otherwise), or Unix ms
datetime with a time zone; a naive datetime is refused, because Python takes it for local time
date     its UTC midnight
int      Unix ms
======== ==========================================================================================
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from trio_candles.candles.model import Millis

__all__ = ["LATEST", "Moment", "unix_ms"]

Moment = str | int | date | datetime
"""What :func:`unix_ms` takes."""

LATEST = Millis(10_413_792_000_000)
"""The year 2300 (accelerated clocks run ahead): a time after it is a mistake."""

_SECONDS_BELOW = 100_000_000_000
"""Unix ms of 1973; as seconds, the year 5138. A smaller number is taken for seconds given by mistake."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def unix_ms(value: Moment) -> Millis:
    """*value* in Unix ms; ``TypeError`` for another type, ``ValueError`` where it is uncertain which time is meant."""
    if isinstance(value, bool) or not isinstance(value, (str, int, date)):
        raise TypeError(f"{value!r} is no time; expected a text, a datetime or Unix ms")
    if isinstance(value, str):
        time = _time_in(value)
    elif isinstance(value, int):
        time = value
    elif isinstance(value, datetime):
        if value.utcoffset() is None:
            raise ValueError(f"{value!r} names no time zone; for UTC, give it tzinfo=datetime.UTC")
        time = _since_epoch(value)
    else:
        time = _since_epoch(datetime(value.year, value.month, value.day, tzinfo=UTC))
    if not 0 <= time <= LATEST:
        raise ValueError(f"{value!r} is not between 1970 and 2300")
    if 0 < time < _SECONDS_BELOW and not isinstance(value, date):
        raise ValueError(f"{value!r} looks like seconds; expected Unix milliseconds")
    return Millis(time)


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
