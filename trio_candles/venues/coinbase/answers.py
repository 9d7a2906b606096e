"""Coinbase's REST answers have no envelope: an error is an HTTP status and a message."""

from __future__ import annotations

import msgspec

from trio_candles.venues.history import Answer, UnknownSymbol, judge_status, read_body
from trio_candles.venues.protocol import Misunderstood

__all__ = ["judge"]


# {"message":"NotFound"}; elsewhere at this venue it is "Not found", or more words follow.
class _Complaint(msgspec.Struct):
    message: str = ""


_COMPLAINT = msgspec.json.Decoder(_Complaint)


def judge(answer: Answer) -> None:
    """Raise the error that *answer* reports (of :mod:`~trio_candles.venues.history`); if none, its body is data."""
    judge_status(answer, spoken=(400, 404))
    if answer.status != 200:
        message = read_body(_COMPLAINT, answer).message[:200]
        if answer.status == 404 and message.replace(" ", "").lower().startswith("notfound"):
            raise UnknownSymbol(message)
        raise Misunderstood("refused", f"HTTP {answer.status} {message}")
