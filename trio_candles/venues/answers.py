"""The envelopes of the venues' REST answers: what is in them, or what the venue says went wrong.

Each of the three says it in another way: Coinbase by the HTTP status, Kraken in ``error`` with HTTP 200, OKX by a
``code`` that is not "0", mostly with HTTP 200. All raise what :mod:`~trio_candles.venues.history` names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import attrs
import msgspec

from trio_candles.candles.model import Millis
from trio_candles.venues.history import Answer, Throttled, Unavailable, UnknownSymbol, judge_status, read_body
from trio_candles.venues.protocol import Misunderstood, VenueError

__all__ = ["judge_coinbase", "kraken_part", "kraken_result", "okx_data"]

_THROTTLED_UNTIL = re.compile(r"EService: ?Throttled: ?([0-9]{10})", re.ASCII)
_OKX_THROTTLED = ("50011",)
_OKX_UNWELL = ("50001", "50013", "50026")
_OKX_UNKNOWN = ("51001",)


# {"message":"NotFound"}
class _Complaint(msgspec.Struct):
    message: str = ""


# {"error":["EQuery:Unknown asset pair"]}; {"error":[],"result":{"XXBTZUSD":[...],"last":1788415380}}
class _KrakenBody(msgspec.Struct):
    error: list[str]
    result: dict[str, msgspec.Raw] = {}


# {"code":"0","msg":"","data":[...]}; {"code":"51001","msg":"Instrument ID ... doesn't exist.","data":[]}
class _OkxBody(msgspec.Struct):
    code: str
    msg: str = ""
    data: msgspec.Raw = msgspec.Raw(b"[]")


_COMPLAINT = msgspec.json.Decoder(_Complaint)
_KRAKEN = msgspec.json.Decoder(_KrakenBody)
_OKX = msgspec.json.Decoder(_OkxBody)


def judge_coinbase(answer: Answer) -> None:
    """Raise what the answer complains of; else its body is the data itself."""
    judge_status(answer, spoken=(400, 404))
    if answer.status != 200:
        message = read_body(_COMPLAINT, answer).message[:200]
        if answer.status == 404 and message == "NotFound":
            raise UnknownSymbol(message)
        raise Misunderstood("refused", f"HTTP {answer.status} {message}")


def kraken_result(answer: Answer, now: Millis) -> dict[str, msgspec.Raw]:
    """The parts of the answer's result, by name; *now* makes seconds of the time until which we are throttled."""
    judge_status(answer)
    body = read_body(_KRAKEN, answer)
    errors = [error for error in body.error if not error.startswith("W")]  # W: a warning beside a good answer
    if errors:
        raise _kraken_error(errors[0][:200], answer.retry_after, now)
    return body.result


def _kraken_error(text: str, retry_after: float | None, now: Millis) -> VenueError:
    """``EService: Throttled: 1762820224`` and its like as what they mean."""
    until = _THROTTLED_UNTIL.match(text)
    if until is not None:
        return Throttled(text, min(max(int(until[1]) - now / 1000, 0.0), 600.0))
    match text.replace(": ", ":"):
        case "EGeneral:Too many requests" | "EAPI:Rate limit exceeded" | "EGeneral:Temporary lockout":
            return Throttled(text, retry_after)
        case "EQuery:Unknown asset pair":
            return UnknownSymbol(text)
        case known if known.startswith("EService:Throttled"):
            return Throttled(text, retry_after)
        case known if known.startswith("EService:") or known == "EGeneral:Internal error":
            return Unavailable(text, retry_after)
        case _:
            return Misunderstood("refused", text)


def kraken_part(answer: Answer, result: Mapping[str, msgspec.Raw], key: str) -> Answer:
    """The part of *result* called *key*, as an answer of its own."""
    if key not in result:
        raise Misunderstood("bad_shape", f"no {key} among {sorted(result)[:5]}")
    return attrs.evolve(answer, body=bytes(result[key]))


def okx_data(answer: Answer) -> Answer:
    """The answer's data; what went wrong is a code, also with HTTP 200."""
    judge_status(answer, spoken=(400, 404))
    body = read_body(_OKX, answer)
    if body.code == "0" and answer.status == 200:
        return attrs.evolve(answer, body=bytes(body.data))
    text = f"HTTP {answer.status} {body.code[:20]} {body.msg[:200]}"
    if body.code in _OKX_THROTTLED:
        raise Throttled(text, answer.retry_after)
    if body.code in _OKX_UNWELL:
        raise Unavailable(text, answer.retry_after)
    if body.code in _OKX_UNKNOWN:
        raise UnknownSymbol(text)
    raise Misunderstood("refused", text)
