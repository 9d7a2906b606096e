"""How numbers and times are written on the wires, and the two ends of a REST request."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from decimal import ROUND_CEILING, Decimal
from typing import TYPE_CHECKING

import attrs
import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

#: Of a body that comes slowly.
PIECES = 10
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_json(value: object) -> str:
    """Compact JSON, as venues send it."""
    return json.dumps(value, separators=(",", ":"))


def iso(time_us: int) -> str:
    """ISO 8601 with microseconds and Z."""
    return (_EPOCH + timedelta(microseconds=time_us)).isoformat(timespec="microseconds")[:-6] + "Z"


def iso_nanoseconds(time_us: int) -> str:
    """ISO 8601 with nine digits behind the point and Z."""
    return iso(time_us)[:-1] + "000Z"


def parse_whole(text: str) -> int | None:
    """A number of at most 19 digits and no sign; None if it is anything else."""
    return int(text) if re.fullmatch("[0-9]{1,19}", text) else None


def parse_decimal(text: str) -> Decimal | None:
    """A number of at most 19 digits, perhaps with nine behind the point; None if it is anything else."""
    return Decimal(text) if re.fullmatch(r"[0-9]{1,19}(\.[0-9]{1,9})?", text) else None


def parse_time(text: str) -> int | None:
    """Unix seconds of an ISO time or of a number of seconds, rounded up; None if it is neither."""
    if (number := parse_decimal(text)) is not None:
        return int(number.to_integral_value(ROUND_CEILING))
    try:
        moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return -((_EPOCH - moment) // timedelta(seconds=1))


def plain(number: Decimal) -> str:
    """All digits, no exponent, no zeros at the end: 26800, 0.0000125."""
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def pointed(number: Decimal) -> str:
    """The same with at least one digit behind the point: 40.0, 0.01919415."""
    text = plain(number)
    return text if "." in text else text + ".0"


def fixed(number: Decimal, places: int) -> str:
    """With *places* digits behind the point, or more if the number has more."""
    return f"{number:.{max(places, -_exponent(number))}f}"


def _exponent(number: Decimal) -> int:
    exponent = number.as_tuple().exponent
    return exponent if isinstance(exponent, int) else 0


@attrs.frozen
class Request:
    """A request to a REST interface; header names are lower case."""

    method: str
    path: str
    query: dict[str, str] = attrs.Factory(dict)
    headers: dict[str, str] = attrs.Factory(dict)
    body: bytes = b""

    @property
    def target(self) -> str:
        """Path, query and body in one text, the same for the same question."""
        query = "&".join(f"{key}={value}" for key, value in sorted(self.query.items()))
        return f"{self.path}?{query}{self.body.decode('utf-8', 'replace')}"


@attrs.frozen
class Response:
    """The answer of a REST interface."""

    status: int
    headers: dict[str, str]
    body: bytes
    #: How many seconds the body takes, in :data:`PIECES` pieces.
    drip: float = 0.0

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body, as slowly as it comes."""
        size = -(-len(self.body) // PIECES) if self.drip else len(self.body)
        for start in range(0, len(self.body), max(size, 1)):
            if self.drip:
                await trio.sleep(self.drip / PIECES)
            yield self.body[start : start + size]


def answer_json(value: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """An answer with a JSON body."""
    return answer_text(to_json(value), status, headers)


def answer_text(text: str, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """An answer whose body is JSON already."""
    return Response(status, {"content-type": "application/json; charset=utf-8", **(headers or {})}, text.encode())
