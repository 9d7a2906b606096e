"""The account of a sealed day: what each of its minutes is, and by what evidence.

A UTC day of a series is *sealed* once it is over, known and compared (:mod:`.sealing` decides). Its account then lies
in two places, which say the same:

- in the metadata of the day's file of minutes, under ``ACCOUNT_KEY``, as JSON; so a lost ledger loses nothing of it;
- in the ledger's table ``sealed``, one row a day, instead of the day's rows in ``gap``, ``empty`` and ``day_file``.

The minutes are a text of 1,440 letters, one for each minute from midnight on::

    .  not expected: before the first expected minute, or after the last
    c  a candle, in the day file
    e  empty: nothing traded
    u  unfillable
    g  a gap: only where a series was not expected any more when the day was sealed

A row of ``sealed``: ``minutes`` is that text and ``detail`` the JSON of the evidence and of the files' digests, both
compressed by zlib. ``shape`` names what the day has, in one line, so that days which lack something are found by an
index: ``account`` if the file of minutes carries the account, and each higher timeframe that was derived (whether or
not that gave a row). ``unknown`` counts its gap minutes. ``checksum`` covers all of it, and whose it is.

For whoever writes, reads and rebuilds; the audit reads the same by code of its own. Times are Unix ms.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

from trio_candles.candles.intervals import Interval
from trio_candles.candles.model import DAY, MINUTE, Millis, Series, Timeframe

__all__ = [
    "ANY",
    "EMPTY",
    "GAP",
    "IN_FILE",
    "NOT_EXPECTED",
    "SEALED",
    "STORED",
    "UNFILLABLE",
    "Account",
    "AccountBroken",
    "SealedDay",
    "Unknown",
    "account_in",
    "account_json",
    "sealed_day",
    "sealed_minutes",
    "sealed_row",
    "shape_of",
]

NOT_EXPECTED, STORED, EMPTY, UNFILLABLE, GAP = ".", "c", "e", "u", "g"
ANY = STORED + EMPTY + UNFILLABLE + GAP
MINUTES = DAY // MINUTE
IN_FILE = "account"
"""In a row's ``shape``: the day's file of minutes carries the account."""
LONGEST = 150
"""Characters of one text of evidence: a row stays under 1 KB, however many minutes its day knows differently."""

_LETTERS = re.compile(rf"[{NOT_EXPECTED}{STORED}{EMPTY}{UNFILLABLE}{GAP}]{{{MINUTES}}}")
_RUN = re.compile(r"(.)\1*")


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _cut(text: str | None) -> str | None:
    return None if text is None else _short(text)


def _short_evidence(listed: tuple[Millis, str] | None) -> tuple[Millis, str] | None:
    return None if listed is None else (listed[0], _short(listed[1]))


class AccountBroken(ValueError):
    """A row of ``sealed``, or an account in a file, is not what was written."""


@attrs.frozen
class Unknown:
    """Why minutes are a gap or unfillable: what the newest such gap of the day says."""

    reason: str
    detail: str = attrs.field(converter=_short)
    first_seen: Millis
    attempts: int
    last_error: str | None = attrs.field(converter=_cut)


@attrs.frozen
class Account:
    """What each minute of one UTC day of a 1m series is."""

    series: Series
    day: Millis
    """The day's first instant."""
    minutes: str
    """A letter for each minute; see the module."""
    compared: bool
    """Whether the live candles were compared with REST; if not, nobody answered, or filling is off."""
    empty: str | None = attrs.field(default=None, converter=_cut)
    """The newest evidence of an empty minute; ``None`` if no minute is empty."""
    unfillable: Unknown | None = None
    gap: Unknown | None = None
    listed: tuple[Millis, str] | None = attrs.field(default=None, converter=_short_evidence)
    """When the venue's market began, and the evidence; only where that was in this day."""

    def spans(self, letters: str) -> list[Interval]:
        """The minutes that are one of *letters*, oldest first; neighbours are joined."""
        found = re.finditer(f"[{letters}]+", self.minutes)
        return [(self.day + run.start() * MINUTE, self.day + run.end() * MINUTE) for run in found]

    def runs(self) -> Iterator[tuple[str, int, int]]:
        """The day in runs of one letter, oldest first: letter, since, until."""
        for run in _RUN.finditer(self.minutes):
            yield run[1], self.day + run.start() * MINUTE, self.day + run.end() * MINUTE

    def count(self, letter: str) -> int:
        """How many minutes are *letter*."""
        return self.minutes.count(letter)


@attrs.frozen
class SealedDay:
    """A row of the table ``sealed``."""

    account: Account
    digests: Mapping[str, str]
    """Timeframe → digest of the day's file, as in ``day_file``; without those that have no file."""
    shape: str
    """See the module, and :func:`shape_of`."""


def shape_of(timeframes: Sequence[str], *, in_file: bool) -> str:
    """A row's ``shape``, given the higher *timeframes* that were derived, and whether the file carries the account."""
    names = sorted(set(timeframes) - {"1m", IN_FILE}, key=lambda name: Timeframe.parse(name).length)
    return " ".join([*([IN_FILE] if in_file else []), *names])


# --- as JSON, in the file


def account_json(account: Account) -> str:
    """*account* as it lies in the metadata of its day file, under ``ACCOUNT_KEY``."""
    names = {"venue": account.series.venue, "symbol": account.series.symbol, "folder": account.series.folder}
    return json.dumps({**names, "day": account.day, "minutes": account.minutes, **_evidence(account)})


def account_in(text: str | bytes) -> Account:
    """The account that :func:`account_json` wrote; :class:`AccountBroken` if nobody would have written it."""
    try:
        values = json.loads(text)
        series = Series(_text(values["venue"]), _text(values["symbol"]), folder=_text(values["folder"]))
        return _account(series, _whole(values["day"]), _text(values["minutes"]), values)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise AccountBroken(f"the account cannot be read: {error!r}") from error


def _evidence(account: Account) -> dict[str, Any]:
    return {
        "compared": account.compared,
        "empty": account.empty,
        "unfillable": _unknown_values(account.unfillable),
        "gap": _unknown_values(account.gap),
        "listed": None if account.listed is None else [*account.listed],
    }


def _unknown_values(unknown: Unknown | None) -> list[Any] | None:
    if unknown is None:
        return None
    return [unknown.reason, unknown.detail, unknown.first_seen, unknown.attempts, unknown.last_error]


def _account(series: Series, day: int, minutes: str, evidence: Mapping[str, Any]) -> Account:
    if day % DAY or not _LETTERS.fullmatch(minutes):
        raise ValueError(f"the minutes of {day} are no account")
    listed = evidence["listed"]
    account = Account(
        series,
        Millis(day),
        minutes,
        _flag(evidence["compared"]),
        None if evidence["empty"] is None else _text(evidence["empty"]),
        _unknown(evidence["unfillable"]),
        _unknown(evidence["gap"]),
        None if listed is None else (Millis(_whole(listed[0])), _text(listed[1])),
    )
    for letter, why in ((EMPTY, account.empty), (UNFILLABLE, account.unfillable), (GAP, account.gap)):
        if (why is None) == (letter in minutes):
            raise ValueError(f"the minutes {letter!r} and their evidence do not go together")
    return account


def _unknown(values: Any) -> Unknown | None:  # noqa: ANN401
    if values is None:
        return None
    reason, detail, first_seen, attempts, error = values
    last_error = None if error is None else _text(error)
    return Unknown(_text(reason), _text(detail), Millis(_whole(first_seen)), _whole(attempts), last_error)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _whole(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{value!r} is no whole number")
    return value


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{value!r} is neither true nor false")
    return value


# --- as a row of the ledger

SEALED = "day_ms, shape, minutes, detail, unknown, checksum"
"""The columns of a row of ``sealed`` but the series' id: what :func:`sealed_row` gives and :func:`sealed_day` takes."""

_WHOLLY_STORED = zlib.compress((STORED * MINUTES).encode())


def sealed_row(sealed: SealedDay) -> tuple[int, str, bytes, bytes, int, int]:
    """The values of a row of ``sealed``, in the order of :data:`SEALED`."""
    account = sealed.account
    minutes = zlib.compress(account.minutes.encode())
    detail = zlib.compress(json.dumps({**_evidence(account), "digests": dict(sealed.digests)}).encode())
    row = (account.day, sealed.shape, minutes, detail, account.count(GAP))
    return (*row, _checksum(account.series, row))


def sealed_day(series: Series, row: Sequence[Any]) -> SealedDay:
    """The day that :func:`sealed_row` made a row of; :class:`AccountBroken` if *row* is not that of *series* which was
    written.
    """
    text = sealed_minutes(series, row)
    day, shape, _, detail, *_ = row
    try:
        evidence = json.loads(zlib.decompress(detail))
        return SealedDay(_account(series, day, text, evidence), evidence["digests"], shape)
    except (ValueError, LookupError, TypeError, zlib.error) as error:
        raise AccountBroken(f"{series}: the account of {day!r} cannot be read: {error!r}") from error


def sealed_minutes(series: Series, row: Sequence[Any]) -> str:
    """The letters of the day that :func:`sealed_row` made a row of, for whoever needs no evidence: a tenth of the work
    of :func:`sealed_day`, and as careful.
    """
    *values, checksum = row
    if _checksum(series, values) != checksum:
        raise AccountBroken(f"{series}: the account of {values[0]!r} does not match its checksum")
    minutes = values[2]
    try:
        text = STORED * MINUTES if minutes == _WHOLLY_STORED else zlib.decompress(minutes).decode()
    except (ValueError, TypeError, zlib.error) as error:
        raise AccountBroken(f"{series}: the account of {values[0]!r} cannot be read: {error!r}") from error
    return text


def _checksum(series: Series, values: Sequence[Any]) -> int:
    """CRC-32 of a row's other columns, and of the names of its series: the ledger knows it by a number only."""
    return zlib.crc32(repr((series.venue, series.symbol, series.folder, *values)).encode())
