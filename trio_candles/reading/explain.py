"""``explain``: everything known of one minute, as one document.

::

    facts   everything that the ledger has of the minute, at one moment
    look    the day file of that minute, held against the ledger's digests; if it was replaced meanwhile, both again
    judge   the verdict with its grounds: what the ledger says, and DAMAGED where the file does not bear it out
    futures what would change the verdict

A minute of which the ledger says nothing, within what is accounted for, is a stored candle; so a candle is one only if
its row is found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs

from trio_candles.candles.documents import CandleDocument, EmptyDocument, from_json, kept_from_json, to_json
from trio_candles.candles.model import DAY, MINUTE, Millis, Source, day_name, floor_to
from trio_candles.candles.times import Moment, unix_ms
from trio_candles.reading.errors import DayFileDamaged, check_texts, senseless_values
from trio_candles.reading.explanation import (
    Collector,
    Comparison,
    Day,
    DayFile,
    EmptySpan,
    Explanation,
    Gap,
    GapEntry,
    Question,
    RevisionEntry,
    Statement,
    Verdict,
)
from trio_candles.reading.files import DayFiles, Digests, FileChanged
from trio_candles.reading.futures import futures
from trio_candles.reading.ledger import Ledger, open_ledger
from trio_candles.reading.notes import Comparing, Listing, SampleSpan
from trio_candles.reading.records import Account, GapEvent, GapSpan, Revision
from trio_candles.reading.wording import FEED_PROVED, GAP_REASONS, time_text, with_times
from trio_candles.store.accounts import NOT_EXPECTED, SealedDay
from trio_candles.store.lock import is_locked
from trio_candles.store.schema import LOCK, WAITS, digest_of

__all__ = ["explain"]

TRIES = 50
"""As for ``read_candles``: a file that is not the ledger's in so many readings is not just being replaced."""
COLUMNS = (
    "open_time_ms", "open", "high", "low", "close", "volume", "quote_volume", "vwap", "trades_count", "source",
    "ingest_time_ms",
)  # fmt: skip
HEARD = ("absent", "first_row")
"""Events in a gap's history that are answers of REST."""


def explain(
    data_dir: str | Path, venue: str, symbol: str, minute: Moment, now: Callable[[], Millis] | None = None
) -> Explanation:
    """Everything known of the *minute* of a series that opens at *minute*, or in which that moment lies.

    *symbol* as the venue writes it or as its folder is called; *minute* as for ``read_candles``; *now* as for
    :func:`.open_ledger`. Safe beside a running collector; nothing is written. A damaged day file is no error but the
    verdict ``damaged``. Raises :class:`~trio_candles.reading.errors.ReadError`: ``UnknownSeries``,
    ``NoSuchDirectory``, ``LedgerUnreadable``; and ``ValueError`` or ``TypeError`` for arguments without sense.
    """
    check_texts(venue=venue, symbol=symbol)
    root, time = Path(data_dir), floor_to(unix_ms(minute), MINUTE)
    for _ in range(TRIES):
        with open_ledger(root, now) as ledger, senseless_values():
            facts = _facts(ledger, ledger.find(venue, symbol)[0], time)
        look = _look(root, facts)
        if not look.trouble:
            break
    with senseless_values():
        # SQLite checks no types: read back as what it says it is, the document has only values that make sense.
        return from_json(to_json(_document(root, facts, look)), Explanation)


# --- facts


@attrs.frozen
class _Facts:
    """What the ledger has of the minute that opens at ``time``, at one moment."""

    account: Account
    time: Millis
    now: Millis
    present: Millis
    meta: dict[str, str]
    venue: tuple[str, int] | None
    """The venue's status, and when the collector published it."""
    gaps: list[GapSpan]
    empties: list[tuple[int, int, str]]
    waiting: tuple[Any, ...] | None
    sealed: SealedDay | None
    path: str
    digests: Digests
    listed_file: bool
    asked_again: Millis | None
    events: list[GapEvent]
    revisions: list[tuple[Revision, Millis | None]]
    compared: Comparing | None
    sealing_due: Millis | None
    samples: list[SampleSpan]
    listing: Listing | None

    @property
    def letter(self) -> str | None:
        """What the sealed day says of the minute."""
        return None if self.sealed is None else self.sealed.account.minutes[self.time % DAY // MINUTE]


def _facts(ledger: Ledger, account: Account, time: Millis) -> _Facts:
    day = floor_to(time, DAY)
    path = f"{account.series.path}/{day_name(day)}.parquet"
    files = ledger.files(account, "1m", day, day + DAY)
    gaps = ledger.gaps(account, time, time + MINUTE)
    states = ((state[2], state[1]) for state in ledger.venue_states() if state[0] == account.series.venue)
    notes = ledger.notes
    return _Facts(
        account=account,
        time=time,
        now=ledger.now,
        present=ledger.present,
        meta=ledger.meta,
        venue=next(states, None),
        gaps=gaps,
        empties=ledger.empties(account, time, time + MINUTE),
        waiting=next(iter(ledger.waiting(account, time, time + MINUTE)), None),
        sealed=ledger.sealed_day(account, time),
        path=path,
        digests=files.get(path, (None, None)),
        listed_file=path in files,
        asked_again=notes.asked_again(account.id, gaps[0].since) if gaps else None,
        events=notes.gap_events(account.id, time),
        revisions=notes.revisions(account.id, time),
        compared=notes.compared(account.id),
        sealing_due=notes.sealing_due(account.id, time),
        samples=notes.samples(account.id, time),
        listing=notes.listing(account.id),
    )


@attrs.frozen
class _Look:
    """What the day file is, and its row of the minute; *trouble* is why none of it is believed."""

    exists: bool
    found: str | None = None
    row: tuple[Any, ...] | None = None
    trouble: str = ""


def _look(root: Path, facts: _Facts) -> _Look:
    try:
        found = digest_of((root / facts.path).read_bytes())
    except FileNotFoundError:
        gone = facts.digests[0] is not None
        return _Look(exists=False, trouble="the ledger lists the file, and it is gone" if gone else "")
    except OSError as error:
        return _Look(exists=True, trouble=f"the file cannot be read: {error.strerror or error}")
    if found not in facts.digests:
        known = "its digest is not the ledger's" if facts.listed_file else "the ledger does not know the file"
        return _Look(exists=True, found=found, trouble=known)
    try:
        table = DayFiles(root).read({facts.path: facts.digests}, COLUMNS)
    except (FileChanged, DayFileDamaged) as error:
        return _Look(exists=True, found=found, trouble=str(error.args[-1]))
    rows = zip(*(column.to_pylist() for column in table.columns), strict=True)
    return _Look(exists=True, found=found, row=next((row for row in rows if row[0] == facts.time), None))


# --- the verdict


@attrs.frozen
class _Judged:
    verdict: Verdict
    reason: str | None
    evidence: str


def _judge(facts: _Facts, look: _Look, grade: str | None) -> _Judged:
    outside = _outside(facts)
    if outside is not None:
        return outside
    row = facts.waiting or look.row
    said = [f"a gap ({gap.state})" for gap in facts.gaps] + ["empty"] * len(facts.empties)
    if row is not None:
        said.append("a stored candle")
    if len(said) > 1:
        why = f"the minute is {' and '.join(said)}, of which only one can be; run the audit"
        return _Judged(Verdict.DAMAGED, "contradiction", why)
    if facts.gaps:
        return _judge_gap(facts, facts.gaps[0])
    if facts.empties:
        return _Judged(Verdict.EMPTY, None, f"nothing traded: {facts.empties[0][2]}{_of_day(facts)}")
    if row is None:
        if look.trouble:
            return _Judged(
                Verdict.DAMAGED, "day_file", f"a candle is stored, and its day file is damaged: {look.trouble}"
            )
        why = "the ledger says that a candle is stored, and there is no row of it; run the audit"
        return _Judged(Verdict.DAMAGED, "contradiction", why)
    return _Judged(Verdict.CANDLE, None, _grounds(facts, row[-2], grade))


def _outside(facts: _Facts) -> _Judged | None:
    """The verdict on a minute that is not accounted for; ``None`` of one that is."""
    account, time = facts.account, facts.time
    if time < account.first:
        if account.since_listing and facts.listing is not None:
            why = f"the venue's market began at {time_text(account.first)}: {facts.listing.evidence}"
            return _Judged(Verdict.NOT_EXPECTED, "unlisted", why)
        why = f"the series is expected from {time_text(account.first)} on"
        return _Judged(Verdict.NOT_EXPECTED, "before_first", why)
    if time < account.mark:
        if facts.letter != NOT_EXPECTED:
            return None
        return _Judged(Verdict.NOT_EXPECTED, "not_configured", "the series was not expected when its day was sealed")
    if not account.expected:
        why = (
            f"the configuration does not name the series any more; it was accounted for until {time_text(account.mark)}"
        )
        return _Judged(Verdict.NOT_EXPECTED, "not_configured", why)
    if time >= facts.present:
        why = f"the minute has not ended; it is {time_text(facts.now)}"
        return _Judged(Verdict.UNACCOUNTED, "not_ended", why)
    until = f"the series is accounted for until {time_text(account.mark)}"
    if WAITS in facts.meta:
        until += f", and the collector does not believe its clock: {facts.meta[WAITS]}"
    elif "stopped_at_ms" in facts.meta:
        until += f", and the collector stopped at {time_text(int(facts.meta['stopped_at_ms']))}"
    return _Judged(Verdict.UNACCOUNTED, "not_yet", f"the minute has ended and has no verdict yet: {until}")


def _judge_gap(facts: _Facts, gap: GapSpan) -> _Judged:
    if gap.state == "unfillable":
        why = f"the venue does not serve the minute: {with_times(gap.last_error or gap.reason)}"
        return _Judged(Verdict.UNFILLABLE, gap.reason, why + _of_day(facts))
    detail = f" ({gap.detail})" if gap.detail else ""
    return _Judged(Verdict.GAP, gap.reason, f"{GAP_REASONS.get(gap.reason, gap.reason)}{detail}{_of_day(facts)}")


def _of_day(facts: _Facts) -> str:
    """What is to be known of evidence that the account of a sealed day has."""
    return "; the newest evidence of its kind in that sealed day" if facts.sealed else ""


def _grounds(facts: _Facts, source: str, grade: str | None) -> str:
    replaced = [one for one, _ in facts.revisions if one.outcome == "replaced"]
    if replaced:
        return "REST said twice, apart, something else than what was stored; both values are among the revisions"
    if source == Source.WEBSOCKET:
        return FEED_PROVED.get(grade, FEED_PROVED[None])
    return "the venue's REST record has it; the feed had not proved the minute"


# --- the document


def _document(root: Path, facts: _Facts, look: _Look) -> Explanation:
    from trio_candles.venues.registry import VENUES  # takes 100 ms, and only this line needs it

    account, series = facts.account, facts.account.series
    known_venue = VENUES.get(series.venue)
    grade = None if known_venue is None else known_venue.grade.value
    judged = _judge(facts, look, grade)
    row = facts.waiting or look.row
    candle = None if row is None else _candle(row)
    revisions = tuple(_revision(one) for one, _ in facts.revisions)
    comparison = _comparison(facts, judged.verdict, candle)
    questions = tuple(_questions(facts, judged.verdict, comparison))
    gap = facts.gaps[0] if facts.gaps else None
    return Explanation(
        known=judged.verdict in (Verdict.CANDLE, Verdict.EMPTY),
        checked_at_ms=facts.now,
        data_dir=str(root),
        venue=series.venue,
        symbol=series.symbol,
        timeframe=series.timeframe,
        open_time_ms=facts.time,
        close_time_ms=facts.time + MINUTE,
        verdict=judged.verdict,
        reason=judged.reason,
        evidence=judged.evidence,
        grade=grade,
        collector=_collector(root, facts),
        candle=candle,
        empty=next((EmptySpan(start_ms=low, end_ms=high, evidence=why) for low, high, why in facts.empties), None),
        gap=None if gap is None else _gap(gap),
        said=_said(facts, candle, revisions),
        revisions=revisions,
        gap_history=tuple(
            GapEntry(at_ms=one.at, event=one.event, start_ms=one.since, end_ms=one.until, detail=one.detail)
            for one in facts.events
        ),
        day=_day(facts),
        comparison=comparison,
        file=_file(facts, look),
        asked_next=questions,
        would_change=tuple(
            futures(judged.verdict, judged.reason, account.expected, facts.sealed is not None, questions, facts.events)
        ),
    )


def _collector(root: Path, facts: _Facts) -> Collector:
    try:
        running: bool | None = is_locked(root / LOCK)
    except OSError:
        running = None
    stopped = facts.meta.get("stopped_at_ms")
    status, published = facts.venue or (None, None)
    return Collector(
        running=running,
        stopped_at_ms=None if stopped is None else int(stopped),
        expects_series=facts.account.expected,
        accounted_until_ms=facts.account.mark,
        clock_waits=facts.meta.get(WAITS),
        venue_status=status,
        published_at_ms=published,
    )


def _candle(row: tuple[Any, ...]) -> CandleDocument:
    _, o, high, low, close, volume, quote_volume, vwap, count, source, ingest = row
    return CandleDocument(o, high, low, close, volume, quote_volume, vwap, count, Source(source), ingest)


def _gap(gap: GapSpan) -> Gap:
    return Gap(
        start_ms=gap.since, end_ms=gap.until, reason=gap.reason, detail=gap.detail, first_seen_ms=gap.first_seen,
        attempts=gap.attempts, last_error=gap.last_error,
    )  # fmt: skip


def _revision(one: Revision) -> RevisionEntry:
    offered = from_json(one.offered, CandleDocument)
    return RevisionEntry(at_ms=one.at, stored=kept_from_json(one.stored), offered=offered, outcome=one.outcome)


def _said(facts: _Facts, candle: CandleDocument | None, revisions: tuple[RevisionEntry, ...]) -> tuple[Statement, ...]:
    """Each candle that was heard once, and REST's answers without the minute, oldest first."""
    candles: list[CandleDocument | EmptyDocument | None] = [candle]
    for one in revisions:
        candles += [one.stored, one.offered]
    heard = dict.fromkeys(one for one in candles if isinstance(one, CandleDocument))
    found = [
        Statement(at_ms=one.ingest_time_ms, by=_speaker(one.source), what="candle", candle=one, detail="")
        for one in heard
    ]
    found += [
        Statement(at_ms=one.at, by="rest", what=one.event, candle=None, detail=one.detail)
        for one in facts.events
        if one.event in HEARD
    ]
    return tuple(sorted(found, key=lambda one: one.at_ms))


def _speaker(source: Source) -> str:
    return "feed" if source is Source.WEBSOCKET else source.value


def _day(facts: _Facts) -> Day:
    begin = floor_to(facts.time, DAY)
    accounted = facts.account.begin < begin + DAY and begin < facts.account.mark
    state = "sealed" if facts.sealed else "open" if accounted else "none"
    return Day(name=day_name(begin), state=state, sealing_looked_at_ms=facts.sealing_due)


def _comparison(facts: _Facts, verdict: Verdict, candle: CandleDocument | None) -> Comparison:
    mark = None if facts.compared is None else facts.compared.mark
    if verdict not in (Verdict.CANDLE, Verdict.EMPTY):
        state = "none"
    elif candle is not None and candle.source is Source.REST:
        state = "from_rest"
    elif facts.sealed is not None:
        state = "compared" if facts.sealed.account.compared else "not_compared"
    elif mark is None:
        state = "unknown"
    else:
        state = "compared" if facts.time < mark else "not_yet"
    return Comparison(state=state, mark_ms=mark)


def _file(facts: _Facts, look: _Look) -> DayFile:
    digest, pending = facts.digests
    row_in = "journal" if facts.waiting is not None else "file" if look.row is not None else None
    listed = digest is not None or look.exists
    return DayFile(
        path=facts.path,
        exists=look.exists,
        digest=digest,
        pending_digest=pending,
        found_digest=look.found,
        matches=not look.trouble if listed else None,
        row_in=row_in,
    )


def _questions(facts: _Facts, verdict: Verdict, comparison: Comparison) -> Iterator[Question]:
    """What REST is to be asked; of a series that is not expected, nothing."""
    if not facts.account.expected:
        return
    if verdict is Verdict.GAP:
        gap = facts.gaps[0]
        yield Question(about="gap", not_before_ms=facts.asked_again, attempts=gap.attempts)
    if comparison.state == "not_yet" and facts.compared is not None:
        yield Question(about="comparison", not_before_ms=facts.compared.not_before, attempts=0)
    for one, not_before in facts.revisions:
        if one.outcome == "open":
            yield Question(about="revision", not_before_ms=not_before, attempts=0)
    for sample in facts.samples:
        yield Question(about="sample", not_before_ms=sample.not_before, attempts=sample.attempts)
