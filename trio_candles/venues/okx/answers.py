"""The envelope of OKX's REST answers: an error is a ``code`` other than "0", mostly with HTTP 200."""

from __future__ import annotations

import attrs
import msgspec

from trio_candles.venues.history import Answer, Throttled, Unavailable, UnknownSymbol, judge_status, read_body
from trio_candles.venues.protocol import Misunderstood

__all__ = ["data_of"]

# Codes of the documentation's general class that are about us or the venue. The others are about what we ask, and
# would be the same each time: they are not understood.
_THROTTLED = ("50011", "50040", "50061")
"""Rate limit reached; too frequent operations; rate limit of a sub-account."""
_UNWELL = ("50001", "50004", "50005", "50013", "50026")
"""Service unavailable; endpoint timed out; API offline (HTTP 410); systems busy; system error."""
_UNKNOWN = ("51001",)
"""No such instrument."""


# {"code":"0","msg":"","data":[...]}; {"code":"51001","msg":"Instrument ID ... doesn't exist.","data":[]}
class _Body(msgspec.Struct):
    code: str
    msg: str = ""
    data: msgspec.Raw = msgspec.Raw(b"[]")


_BODY = msgspec.json.Decoder(_Body)


def data_of(answer: Answer) -> Answer:
    """The answer's data, as an answer of its own; raises the error that the answer reports."""
    judge_status(answer, spoken=(400, 404, 410))
    body = read_body(_BODY, answer)
    if body.code == "0" and answer.status == 200:
        return attrs.evolve(answer, body=bytes(body.data))
    text = f"HTTP {answer.status} {body.code[:20]} {body.msg[:200]}"
    if body.code in _THROTTLED:
        raise Throttled(text, answer.retry_after)
    if body.code in _UNWELL:
        raise Unavailable(text, answer.retry_after)
    if body.code in _UNKNOWN:
        raise UnknownSymbol(text)
    raise Misunderstood("refused", text)
