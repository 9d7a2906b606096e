"""The envelope of Kraken's REST answers: an error is a text in the list ``error``, with HTTP 200."""

from __future__ import annotations

import re
from collections.abc import Mapping

import attrs
import msgspec

from trio_candles.candles.model import Millis
from trio_candles.venues.history import Answer, Throttled, Unavailable, UnknownSymbol, judge_status, read_body
from trio_candles.venues.protocol import Misunderstood, VenueError

__all__ = ["part_of", "result_of"]

# Errors are known by their beginning: details follow in some, as in "EGeneral:Invalid arguments:Index unavailable".
_TOO_FAST = (
    "EGeneral:Too many requests",
    "EGeneral:Temporary lockout",
    "EAPI:Rate limit exceeded",
    "EService:Throttled",
)
_UNWELL = ("EService:", "EGeneral:Internal error", "EDatabase:Internal error")

_THROTTLED_UNTIL = re.compile(r"EService: ?Throttled: ?([0-9]{10})", re.ASCII)


# {"error":["EQuery:Unknown asset pair"]}; {"error":[],"result":{"XXBTZUSD":[...],"last":1788415380}}
# {"error":["EAPI:Rate limit exceeded"],"result":null}
class _Body(msgspec.Struct):
    error: list[str]
    result: dict[str, msgspec.Raw] | None = None


_BODY = msgspec.json.Decoder(_Body)


def result_of(answer: Answer, now: Millis) -> dict[str, msgspec.Raw]:
    """The parts of the answer's result, by name; raises the error that the answer reports.

    Kraken gives the time until which we are throttled; *now* (Unix ms) turns that time into seconds to wait.
    """
    judge_status(answer)
    body = read_body(_BODY, answer)
    errors = [error for error in body.error if not error.startswith("W")]  # W: a warning beside a good answer
    if errors:
        raise _error(errors[0][:200], answer.retry_after, now)
    return body.result or {}


def _error(text: str, retry_after: float | None, now: Millis) -> VenueError:
    """The error that Kraken's *text* means, as in ``EService: Throttled: 1762820224``."""
    until = _THROTTLED_UNTIL.match(text)
    if until is not None:
        return Throttled(text, max(int(until[1]) - now / 1000, 0.0))
    known = text.replace(": ", ":")  # both are written
    if known.startswith(_TOO_FAST):
        return Throttled(text, retry_after)
    if known.startswith(_UNWELL):
        return Unavailable(text, retry_after)
    if known.startswith("EQuery:Unknown asset pair"):
        return UnknownSymbol(text)
    return Misunderstood("refused", text)


def part_of(answer: Answer, result: Mapping[str, msgspec.Raw], key: str) -> Answer:
    """The part of *result* called *key*, as an answer of its own; :class:`Misunderstood` if there is none."""
    if key not in result:
        raise Misunderstood("bad_shape", f"no {key} among {sorted(result)[:5]}")
    return attrs.evolve(answer, body=bytes(result[key]))
