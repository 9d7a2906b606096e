"""Verdicts as JSON documents. Times are Unix ms, ages seconds, both on the service's clock."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from trio_candles.candles.model import Series
from trio_candles.health.facts import OpenGaps
from trio_candles.health.judge import Health, Problem, SeriesVerdict, VenueVerdict

__all__ = ["check_document", "monitor_document", "problem_document"]


def check_document(health: Health, data_dir: Path) -> dict[str, object]:
    """What ``check --json`` prints."""
    reading = health.reading
    return {
        "ok": health.all_fresh,
        "checked_at_ms": reading.now,
        "data_dir": str(data_dir),
        "collector_running": reading.running,
        "stopped_at_ms": reading.stopped_at,
        "error": reading.trouble,
        "series": [_freshness(one) for one in health.series],
    }


def monitor_document(health: Health, data_dir: Path, lags: Mapping[Series, int]) -> dict[str, object]:
    """What ``monitor --json`` prints; *lags* in ms."""
    reading = health.reading
    return {
        "ok": health.healthy,
        "checked_at_ms": reading.now,
        "data_dir": str(data_dir),
        "collector_running": reading.running,
        "stopped_at_ms": reading.stopped_at,
        "error": reading.trouble,
        "problems": [problem_document(one) for one in health.problems],
        "store_errors": dict(reading.store_errors),
        "venues": [_venue(one, health) for one in health.venues],
        "series": [_freshness(one) | _details(one, lags.get(one.series)) for one in health.series],
    }


def problem_document(problem: Problem) -> dict[str, object]:
    """What is not well, for documents and alerts; ``subject`` is the same while it lasts."""
    subject = problem.subject
    return {
        "subject": subject.kind,
        "venue": subject.venue,
        "symbol": subject.symbol,
        "part": subject.part,
        "state": problem.state,
        "since_ms": problem.since,
        "detail": problem.detail,
    }


def _freshness(one: SeriesVerdict) -> dict[str, object]:
    facts = one.facts
    return {
        "venue": one.series.venue,
        "symbol": one.series.symbol,
        "timeframe": one.series.timeframe,
        "state": one.state.value,
        "detail": one.detail,
        "accounted_until_ms": None if facts is None else facts.known_until,
        "accounted_age_seconds": _seconds(one.known_age),
        "last_candle_ms": None if facts is None else facts.last_candle,
        "last_candle_age_seconds": _seconds(one.candle_age),
    }


def _details(one: SeriesVerdict, lag: int | None) -> dict[str, object]:
    facts = one.facts
    gaps = None if facts is None else facts.open_gaps
    return {
        "lag_seconds": _seconds(lag),
        "mark_ms": None if facts is None else facts.mark,
        "mark_age_seconds": None if facts is None else _seconds(one.now - facts.mark),
        "coverage_hour_percent": None if facts is None else facts.hour.percent,
        "coverage_day_percent": None if facts is None else facts.day.percent,
        "open_gaps": 0 if gaps is None else gaps.count,
        "open_gap_minutes": 0 if gaps is None else gaps.length // 60_000,
        "oldest_gap": None if gaps is None else _gap(gaps, one.now),
        "revisions_last_day": 0 if facts is None else facts.revisions,
    }


def _gap(gaps: OpenGaps, now: int) -> dict[str, object]:
    return {
        "start_ms": gaps.since,
        "end_ms": gaps.until,
        "reason": gaps.reason,
        "detail": gaps.detail,
        "first_seen_ms": gaps.first_seen,
        "age_seconds": _seconds(now - gaps.first_seen),
        "attempts": gaps.attempts,
        "last_error": gaps.last_error,
    }


def _venue(one: VenueVerdict, health: Health) -> dict[str, object]:
    state, reading = one.state, health.reading
    return {
        "venue": one.venue,
        "connected": one.connected,
        "detail": one.detail,
        "status": one.status,
        "published_at_ms": None if state is None else state.at,
        "published_age_seconds": None if state is None else _seconds(reading.now - state.at),
        "received": None if state is None else state.received,
        "saved": None if state is None else state.saved,
        "reconnects": None if state is None else state.reconnects,
        "rejected": None if state is None else state.rejected,
        "rejections": dict(reading.rejections.get(one.venue, {})),
        "confirmations": dict(reading.confirmations.get(one.venue, {})),
    }


def _seconds(length: int | None) -> float | None:
    return None if length is None else length / 1000
