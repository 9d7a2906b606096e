"""Answers of a venue's record about BTC: pages of candles by minutes from noon, and any answer for a property."""

from __future__ import annotations

from directories import BTC
from hypothesis import strategies as st
from journals import at, candle, empty

from trio_candles.candles.model import MINUTE, Attempt, Candle, Millis, Page, Source

NOW = at(200)


def rest(minute: int, price: float = 100.0, asked: int = NOW) -> Candle:
    return candle(minute, price, source=Source.REST, ingest_time=Millis(asked))


def page(since: int, until: int, *candles: Candle, empties=(), **words) -> Page:
    return Page(BTC, at(since), at(until), candles, tuple(empties), **words)


def absent(since: int, until: int, said: str = "left out") -> Attempt:
    return Attempt(BTC, at(since), at(until), said, absent=True)


@st.composite
def findings(draw):
    since = draw(st.integers(0, 8))
    until = draw(st.integers(since + 1, 9))
    kind = draw(st.sampled_from(["page", "page", "page", "absent", "candle"]))
    if kind == "absent":
        return absent(since, until)
    price = st.sampled_from([100.0, 100.0, 55.0, 56.0])
    if kind == "candle":
        return candle(since % 8, draw(price))
    told = draw(st.lists(st.integers(0, 9), unique=True).map(sorted))
    asked = draw(st.integers(NOW, NOW + 10 * MINUTE))
    spans = [empty(m, m + 1) for m in range(10) if m not in told and draw(st.booleans())]
    return page(
        since, until, *(rest(m, draw(price), asked) for m in told), empties=spans,
        anonymous=draw(st.booleans()), twice=draw(st.booleans()), conclusive=draw(st.booleans()),
    )  # fmt: skip
