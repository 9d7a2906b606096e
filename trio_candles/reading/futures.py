"""What would change the verdict on a minute, in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from trio_candles.candles.model import MINUTE
from trio_candles.reading.explanation import Question, Verdict
from trio_candles.reading.records import GapEvent
from trio_candles.reading.wording import time_text

__all__ = ["futures"]

SPACED = 10 * MINUTE
"""Ms between the two observations that make a minute unfillable, at least: as ``store/history`` has it."""


def futures(
    verdict: Verdict,
    reason: str | None,
    expected: bool,
    sealed: bool,
    questions: Sequence[Question],
    events: Sequence[GapEvent],
) -> Iterator[str]:
    """What would change *verdict*, the likeliest first."""
    match verdict:
        case Verdict.CANDLE | Verdict.EMPTY:
            yield from _of_known(verdict, sealed, {one.about for one in questions})
        case Verdict.GAP:
            yield from _of_gap(expected, events)
        case Verdict.UNFILLABLE:
            yield "a later answer of REST, or the feed, that has the minute after all; nobody asks for it any more"
        case Verdict.UNACCOUNTED if reason == "not_ended":
            yield "its end; then the feed proves it, or it becomes a gap that REST is asked about"
        case Verdict.UNACCOUNTED:
            yield "the running collector's next commit, or the next start: what was not heard becomes a gap then"
        case Verdict.NOT_EXPECTED if reason == "before_first":
            yield "a longer gap_detection.lookback_days at the next start: then the minute is a gap, and REST is asked"
        case Verdict.NOT_EXPECTED if reason == "unlisted":
            yield "nothing: there was no market"
        case Verdict.NOT_EXPECTED:
            yield "the series being configured again: then the minutes since it left are gaps, and REST is asked"
        case Verdict.DAMAGED:
            yield (
                "the collector: it moves a day file that is not what was written to quarantine, makes its minutes gaps,"
                " and asks REST again; for an open day at its next start, for a sealed one in the background"
            )


def _of_known(verdict: Verdict, sealed: bool, asked: set[str]) -> Iterator[str]:
    if "revision" in asked:
        yield (
            "the open revision: REST saying the other value twice, at least a minute apart, replaces what is stored;"
            " REST saying what is stored, or nothing for two days, keeps it"
        )
    elif verdict is Verdict.CANDLE:
        yield "another candle from the feed or from REST: both are kept, and REST replaces this one if it insists"
    else:
        yield "a candle from the feed or from REST: it is kept as a revision, and stored if REST insists"
    if "comparison" in asked:
        yield "the comparison with REST that is still to come"
    if "sample" in asked:
        yield "the trades of the minute, from which it is to be rebuilt as a sample"
    if verdict is Verdict.CANDLE:
        yield "damage to its day file" + (", which the scrub looks for" if sealed else "")


def _of_gap(expected: bool, events: Sequence[GapEvent]) -> Iterator[str]:
    if not expected:
        yield "the series being configured again: until then nobody asks about the gap"
        return
    yield "an answer of REST, or a later proof of the feed: then it is a candle, or empty"
    absences = [one for one in events if one.event == "absent"]
    if absences:
        seen = absences[-1].at
        yield (
            f"a second answer without it: REST did not have it at {time_text(seen)}, and if it has not at"
            f" {time_text(seen + SPACED)} or later, the minute is unfillable"
        )
    else:
        yield "two answers of REST, ten minutes apart, that have what lies around it and not the minute: unfillable"
