"""Verdicts as JSON documents. Times are Unix ms, ages seconds, both on the service's clock."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import attrs

from trio_candles.candles.model import MINUTE, Series
from trio_candles.health.facts import OpenGaps, Scrub
from trio_candles.health.judge import Health, Problem, SeriesVerdict, State, VenueVerdict

__all__ = [
    "CheckDocument",
    "MonitorDocument",
    "ProblemDocument",
    "ScrubDocument",
    "SeriesFreshness",
    "check_document",
    "monitor_document",
    "problem_document",
]


@attrs.frozen(kw_only=True)
class _Whole:
    """What the documents of check and monitor have in common: the directory as a whole."""

    ok: bool
    """check: every series is fresh; monitor: healthy."""
    checked_at_ms: int
    data_dir: str
    collector_running: bool | None
    """Null if it cannot be seen whether one runs."""
    stopped_at_ms: int | None
    """When the collector stopped in good order, if it did."""
    error: str | None
    """Why the journal cannot be read; the other values are then as if nothing were known."""


@attrs.frozen(kw_only=True)
class SeriesFreshness:
    """How fresh a series is; a value that is not known is null."""

    venue: str
    symbol: str
    timeframe: str
    state: State
    detail: str
    """Why it is not fresh."""
    accounted_until_ms: int | None
    """The end of the newest minute known to be a candle or empty."""
    accounted_age_seconds: float | None
    last_candle_ms: int | None
    """Open time of the newest candle."""
    last_candle_age_seconds: float | None
    """Since that candle closed."""


@attrs.frozen(kw_only=True)
class OldestGap:
    """Of a series' open gaps, the one that has been known for longest."""

    start_ms: int
    end_ms: int
    reason: str
    detail: str
    first_seen_ms: int
    age_seconds: float
    """Since the gap was first seen."""
    attempts: int
    last_error: str | None


@attrs.frozen(kw_only=True)
class SeriesDetails(SeriesFreshness):
    """All that the monitor says of a series."""

    lag_seconds: float | None
    """From a live candle's close to its arrival; null where none is known."""
    mark_ms: int | None
    """The end of the accounted minutes."""
    mark_age_seconds: float | None
    coverage_hour_percent: float | None
    """How much of the last hour is candles or empty; null where nothing was expected."""
    coverage_day_percent: float | None
    open_gaps: int
    open_gap_minutes: int
    oldest_gap: OldestGap | None
    revisions_last_day: int


@attrs.frozen(kw_only=True)
class VenueDetails:
    """A venue: our verdict, and what its collector published last; null if it has published nothing."""

    venue: str
    connected: bool
    detail: str
    status: str
    """The status that the collector published, or this program's own where no collector runs, or it is silent."""
    published_at_ms: int | None
    published_age_seconds: float | None
    received: int | None
    saved: int | None
    reconnects: int | None
    rejected: int | None
    """In this run, duplicates aside."""
    close_to_durable_p50_seconds: float | None
    """From a minute's end until the feed's candle was durable, in this run: the median; null without a candle..."""
    close_to_durable_p99_seconds: float | None
    """...and what 99 of 100 candles did not exceed; 60 stands for anything longer."""
    rejections: Mapping[str, int]
    """Rule -> candles, since the directory began."""
    confirmations: Mapping[str, int]
    """Outcome -> candles compared with REST, and sampled ones rebuilt from trades, since the directory began."""
    sampled: int
    """Minutes that REST's rows filled and that were rebuilt from trades, as a sample, since the directory began."""
    sampled_percent: float | None
    """How many of these agreed, rounded down to a tenth; null if there are none."""


@attrs.frozen(kw_only=True)
class ScrubDocument:
    """How far the collector is with reading sealed days again."""

    began_ms: int | None
    """Null if no clock was believed when the pass began."""
    ended_ms: int | None
    """Null while the pass is under way."""
    days: int
    """Sealed days read in this pass..."""
    of: int
    """...of so many."""


@attrs.frozen(kw_only=True)
class ProblemDocument:
    """A problem, for the monitor and in alerts; the first four keys are the same for as long as the problem lasts."""

    subject: str
    """``collector`` | ``journal`` | ``store`` | ``venue`` | ``series``"""
    venue: str | None
    symbol: str | None
    part: str | None
    state: str
    since_ms: int | None
    """Unix ms; null where it is not known since when."""
    detail: str


@attrs.frozen(kw_only=True)
class CheckDocument(_Whole):
    """What ``check --json`` prints."""

    series: tuple[SeriesFreshness, ...]


@attrs.frozen(kw_only=True)
class MonitorDocument(_Whole):
    """What ``monitor --json`` prints."""

    problems: tuple[ProblemDocument, ...]
    store_errors: Mapping[str, str]
    """Part of the store -> the system's words for why it cannot write."""
    scrub: ScrubDocument | None
    """Null if there was none yet."""
    venues: tuple[VenueDetails, ...]
    series: tuple[SeriesDetails, ...]


def check_document(health: Health, data_dir: Path) -> CheckDocument:
    """*health* as ``check`` says it."""
    look = attrs.asdict(_whole(health, health.all_fresh, data_dir))
    return CheckDocument(**look, series=tuple(_freshness(one) for one in health.series))


def monitor_document(health: Health, data_dir: Path, lags: Mapping[Series, int]) -> MonitorDocument:
    """*health* as ``monitor`` says it; *lags* in ms."""
    return MonitorDocument(
        **attrs.asdict(_whole(health, health.healthy, data_dir)),
        problems=tuple(problem_document(one) for one in health.problems),
        store_errors=health.reading.store_errors,
        scrub=_scrub(health.reading.scrub),
        venues=tuple(_venue(one, health) for one in health.venues),
        series=tuple(_series(one, lags.get(one.series)) for one in health.series),
    )


def problem_document(problem: Problem) -> ProblemDocument:
    """*problem* for the monitor's document and for alerts."""
    subject = problem.subject
    return ProblemDocument(
        subject=subject.kind,
        venue=subject.venue,
        symbol=subject.symbol,
        part=subject.part,
        state=problem.state,
        since_ms=problem.since,
        detail=problem.detail,
    )


def _whole(health: Health, ok: bool, data_dir: Path) -> _Whole:
    reading = health.reading
    return _Whole(
        ok=ok,
        checked_at_ms=reading.now,
        data_dir=str(data_dir),
        collector_running=reading.running,
        stopped_at_ms=reading.stopped_at,
        error=reading.trouble,
    )


def _scrub(scrub: Scrub | None) -> ScrubDocument | None:
    if scrub is None:
        return None
    return ScrubDocument(began_ms=scrub.began, ended_ms=scrub.ended, days=scrub.days, of=scrub.of)


def _freshness(one: SeriesVerdict) -> SeriesFreshness:
    facts = one.facts
    return SeriesFreshness(
        venue=one.series.venue,
        symbol=one.series.symbol,
        timeframe=one.series.timeframe,
        state=one.state,
        detail=one.detail,
        accounted_until_ms=None if facts is None else facts.known_until,
        accounted_age_seconds=_seconds(one.known_age),
        last_candle_ms=None if facts is None else facts.last_candle,
        last_candle_age_seconds=_seconds(one.candle_age),
    )


def _series(one: SeriesVerdict, lag: int | None) -> SeriesDetails:
    facts = one.facts
    gaps = None if facts is None else facts.open_gaps
    return SeriesDetails(
        **attrs.asdict(_freshness(one)),
        lag_seconds=_seconds(lag),
        mark_ms=None if facts is None else facts.mark,
        mark_age_seconds=None if facts is None else _seconds(one.now - facts.mark),
        coverage_hour_percent=None if facts is None else facts.hour.percent,
        coverage_day_percent=None if facts is None else facts.day.percent,
        open_gaps=0 if gaps is None else gaps.count,
        open_gap_minutes=0 if gaps is None else gaps.length // MINUTE,
        oldest_gap=None if gaps is None else _gap(gaps, one.now),
        revisions_last_day=0 if facts is None else facts.revisions,
    )


def _gap(gaps: OpenGaps, now: int) -> OldestGap:
    return OldestGap(
        start_ms=gaps.since,
        end_ms=gaps.until,
        reason=gaps.reason,
        detail=gaps.detail,
        first_seen_ms=gaps.first_seen,
        age_seconds=(now - gaps.first_seen) / 1000,
        attempts=gaps.attempts,
        last_error=gaps.last_error,
    )


def _venue(one: VenueVerdict, health: Health) -> VenueDetails:
    state, reading = one.state, health.reading
    return VenueDetails(
        venue=one.venue,
        connected=one.connected,
        detail=one.detail,
        status=one.status,
        published_at_ms=None if state is None else state.at,
        published_age_seconds=None if state is None else _seconds(reading.now - state.at),
        received=None if state is None else state.received,
        saved=None if state is None else state.saved,
        reconnects=None if state is None else state.reconnects,
        rejected=None if state is None else state.rejected,
        close_to_durable_p50_seconds=None if state is None else _seconds(state.delays.quantile(0.5)),
        close_to_durable_p99_seconds=None if state is None else _seconds(state.delays.quantile(0.99)),
        rejections=reading.rejections.get(one.venue, {}),
        confirmations=reading.confirmations.get(one.venue, {}),
        sampled=reading.sampled(one.venue).of,
        sampled_percent=reading.sampled(one.venue).percent,
    )


def _seconds(length: float | None) -> float | None:
    return None if length is None else round(length / 1000, 3)
