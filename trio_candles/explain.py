"""Everything known of one minute, as a command: 0 known, 1 a gap or not expected, 2 usage.

What is known is gathered by :mod:`trio_candles.reading.explain`; here it is laid out for a person. Nothing is written.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from textwrap import wrap

import attrs

from trio_candles.candles.documents import CandleDocument, EmptyDocument
from trio_candles.candles.model import Millis, printable, utc_text
from trio_candles.command.options import (
    add_clock,
    add_common,
    data_dir_of,
    fail,
    print_json,
    show,
    through_a_pipe,
    tool_clock,
    utc_time,
    write_plainly,
)
from trio_candles.reading.errors import NoSuchDirectory, ReadError, UnknownSeries
from trio_candles.reading.explain import explain
from trio_candles.reading.explanation import Explanation, Question, RevisionEntry, Statement, Verdict
from trio_candles.reading.wording import minutes_text, time_text, with_times

__all__ = ["UnexplainedDocument", "command", "main"]

WIDTH = 100
LABEL = 12


def command() -> int:
    """The console script."""
    return through_a_pipe(lambda: main(sys.argv[1:]))


@attrs.frozen(kw_only=True)
class UnexplainedDocument:
    """What ``explain --json`` prints where the ledger cannot be read."""

    known: bool
    error: str


def main(arguments: Sequence[str]) -> int:
    """Explain the minute that *arguments* name; the exit code."""
    options = _parser().parse_args(arguments)
    write_plainly()
    data_dir = data_dir_of(options.config, options.data_dir)
    if data_dir is None:
        return 2
    # Without options the ledger's own clock will do, which costs no import of trio.
    asked = options.speed is not None or options.pivot is not None
    now: Callable[[], Millis] | None = tool_clock(data_dir, options.speed, options.pivot) if asked else None
    try:
        explanation = explain(data_dir, options.venue, options.symbol, options.minute, now)
    except KeyboardInterrupt:
        return 130
    except (UnknownSeries, NoSuchDirectory) as error:
        return fail(printable(str(error)))
    except ReadError as error:
        if options.json:
            print_json(UnexplainedDocument(known=False, error=str(error)))
        return fail(printable(str(error)), 1)
    if options.json:
        print_json(explanation)
    else:
        show("\n".join(lines(explanation)))
    return 0 if explanation.known else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="trio-candles-explain",
        description="Say everything known of one minute: what it is and by what evidence, who said what when, what is"
        " asked next, where it is stored, and what would change that. Writes nothing; may run beside a collector.",
        epilog="Exit code: 0 the minute is a candle or empty, 1 it is a gap, not accounted for yet, not expected, or"
        " damaged; 2 usage.",
    )
    parser.add_argument("venue", metavar="VENUE")
    parser.add_argument("symbol", metavar="SYMBOL", help="as the venue writes it, or BASE-QUOTE")
    parser.add_argument(
        "minute", metavar="MINUTE", type=utc_time,
        help="an ISO time (UTC unless it says otherwise) or Unix ms; the minute in which it lies",
    )  # fmt: skip
    add_common(parser)
    add_clock(parser)
    return parser


# --- for a person


def lines(one: Explanation) -> Iterator[str]:
    """*one* as lines of text; nothing that a terminal would obey is in them."""
    minute = f"{utc_text(one.open_time_ms)[:16]} UTC"
    yield f"{one.venue} {one.symbol}   {minute}   {one.verdict.value.upper().replace('_', ' ')}"
    yield from _item("", one.evidence, first="  ")
    yield ""
    if one.candle is not None:
        yield from _item("candle", _values(one.candle))
        yield from _item("source", _source(one, one.candle))
    if one.gap is not None:
        span = minutes_text(one.gap.start_ms, one.gap.end_ms)
        seen = time_text(one.gap.first_seen_ms)
        yield from _item("gap", f"{one.gap.reason}; {span}; first seen {seen}")
        yield from _item("attempts", _attempts(one))
    if one.empty is not None:
        yield from _item("empty", minutes_text(one.empty.start_ms, one.empty.end_ms))
    for question in one.asked_next:
        yield from _item("REST", _question(one, question))
    if one.comparison.state != "none":
        yield from _item("compared", _compared(one))
    yield from _item("day", _day(one))
    if one.day.state != "none" or one.file.exists:
        yield from _item("file", _file(one))
    yield from _item("collector", _collector(one))
    yield from _section("said", (_said(one, each) for each in one.said))
    yield from _section("revisions", (_revision(each) for each in one.revisions))
    yield from _section(
        "history",
        (
            f"{utc_text(each.at_ms)}  {each.event}  {minutes_text(each.start_ms, each.end_ms)}"
            f"{': ' if each.detail else ''}{with_times(each.detail)}"
            for each in one.gap_history
        ),
    )
    yield from _section("what would change it", one.would_change)


def _item(label: str, text: str, *, first: str = "") -> Iterator[str]:
    """*text* behind its label, wrapped; as one word of the venue's, whatever is in it."""
    head = first or f"  {label:<{LABEL}}"
    found = wrap(_plain(text), WIDTH - len(head), break_on_hyphens=False) or [""]
    for number, line in enumerate(found):
        yield f"{head if not number else ' ' * len(head)}{line}".rstrip()


def _section(title: str, entries: Iterable[str]) -> Iterator[str]:
    found = list(entries)
    if found:
        yield ""
        yield f"  {title}"
        for entry in found:
            yield from _item("", entry, first="    ")


def _plain(text: str) -> str:
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _values(candle: CandleDocument | EmptyDocument) -> str:
    if isinstance(candle, EmptyDocument):
        return f"empty: {candle.empty}"
    also = {"quote_volume": candle.quote_volume, "vwap": candle.vwap, "trades": candle.trades_count}
    values = {
        "open": candle.open,
        "high": candle.high,
        "low": candle.low,
        "close": candle.close,
        "volume": candle.volume,
    }
    return "  ".join(f"{name} {value!r}" for name, value in {**values, **also}.items() if value is not None)


def _source(one: Explanation, candle: CandleDocument) -> str:
    late = (candle.ingest_time_ms - one.close_time_ms) / 1000
    return f"{candle.source.value}, received {time_text(candle.ingest_time_ms)}, {_after(late)} the minute's end"


def _after(seconds: float) -> str:
    return f"{_length(abs(seconds))} {'after' if seconds >= 0 else 'before'}"


def _length(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _attempts(one: Explanation) -> str:
    assert one.gap is not None
    if one.verdict is Verdict.UNFILLABLE:
        return f"{one.gap.attempts}; REST is not asked about it any more"
    if not one.gap.attempts:
        return "REST was not asked about it yet"
    often = "once" if one.gap.attempts == 1 else f"{one.gap.attempts:,} times"
    return f"REST was asked {often} in vain; the last answer: {with_times(one.gap.last_error or '-')}"


def _question(one: Explanation, question: Question) -> str:
    subject = {
        "gap": "is asked about the gap", "comparison": "is asked for comparison",
        "revision": "is asked about the revision", "sample": "is asked for the minute's trades, as a sample",
    }[question.about]  # fmt: skip
    ahead = (question.not_before_ms or 0) - one.checked_at_ms
    if question.not_before_ms is None:
        when = "when its turn comes"
    elif ahead > 0:
        when = f"not before {time_text(question.not_before_ms)}, in {_length(ahead / 1000)}"
    else:
        when = "as soon as its turn comes: it is due"
    return f"{subject} {when}{'' if one.collector.running else '; but no collector runs'}"


def _compared(one: Explanation) -> str:
    mark = one.comparison.mark_ms
    differ = f", {len(one.revisions)} differences below" if one.revisions else ", no difference noted"
    agrees = "REST says nothing else" if one.empty else "yes, with REST"
    until = "" if mark is None else f"live candles are compared, or out of REST's reach, up to {time_text(mark)}"
    return {
        "compared": f"{agrees}{differ}{'; ' if until else ''}{until}",
        "not_yet": f"not yet; {until}",
        "not_compared": "no: the day was sealed without an answer of REST",
        "from_rest": f"it is REST's own{differ}",
        "unknown": "unknown: an earlier version's journal does not say",
    }[one.comparison.state]


def _day(one: Explanation) -> str:
    if one.day.state == "none":
        return f"{one.day.name}: nothing of it is accounted for"
    looked = one.day.sealing_looked_at_ms
    when = ""
    if looked is not None:
        later = looked > one.checked_at_ms
        when = f"; looked at for sealing {f'from {time_text(looked)} on' if later else 'next'}"
    return f"{one.day.name}, {one.day.state}{when}"


def _file(one: Explanation) -> str:
    file = one.file
    row = {
        "journal": "the row waits in the journal", "file": "the row is in it", None: "no row of the minute",
    }[file.row_in]  # fmt: skip
    if file.digest is None and not file.exists:
        return f"{file.path}: not written yet; {row}"
    if file.matches:
        return f"{file.path}: matches the ledger's digest {_short(file.found_digest)}; {row}"
    found = f"it is {_short(file.found_digest)}" if file.found_digest else "unreadable" if file.exists else "no file"
    return f"{file.path}: DOES NOT MATCH the ledger's digest {_short(file.digest)}: {found}; {row}"


def _short(digest: str | None) -> str:
    return "-" if digest is None else f"{digest[:12]}…"


def _collector(one: Explanation) -> str:
    who = one.collector
    until = f"accounted for until {time_text(who.accounted_until_ms)}"
    if not who.expects_series:
        return f"does not collect the series any more; {until}"
    if who.running is None:
        state = "cannot be seen"
    elif who.running:
        published = (
            ""
            if who.published_at_ms is None
            else f"; the venue was {who.venue_status} at {time_text(who.published_at_ms)}"
        )
        state = f"runs{published}"
    else:
        state = "does not run" + ("" if who.stopped_at_ms is None else f", stopped {time_text(who.stopped_at_ms)}")
    return f"{state}; {until}"


def _said(one: Explanation, each: Statement) -> str:
    if each.candle is None:
        what = f"{each.what}: {with_times(each.detail)}"
    else:
        what = "the candle that is stored" if each.candle == one.candle else _values(each.candle)
    return f"{utc_text(each.at_ms)}  {'REST' if each.by == 'rest' else each.by}  {what}"


def _revision(each: RevisionEntry) -> str:
    return (
        f"{utc_text(each.at_ms)}  {each.outcome}: stored {_values(each.stored)}, then {_values(each.offered)}"
        f" from {each.offered.source.value}"
    )
