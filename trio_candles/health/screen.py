"""Verdicts as lines of text that fit a screen. Pure: the screen's size is a parameter.

Every text from a data directory is made printable, in this module or before: a ledger must not drive a terminal.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from pathlib import Path

import attrs

from trio_candles.candles.model import Series, printable, utc_text
from trio_candles.health.facts import OpenGaps, VenueState
from trio_candles.health.judge import Health, SeriesVerdict, State, VenueVerdict, age_text, stop_text

__all__ = ["ENDLESS", "Line", "Mood", "as_text", "check_lines", "monitor_lines", "series_text", "summary_text"]

NARROWEST, WIDEST = 80, 140
ENDLESS = 1_000_000
"""The height, in lines, of an output that is no screen."""
FEWEST_ROWS = 3
RATED = ("sampled_agreed", "sampled_differed")
"""Outcomes of comparing of which the share is shown, and not the counts."""


class Mood(Enum):
    """How a line is coloured."""

    PLAIN = ""
    GOOD = "\x1b[32m"
    WARN = "\x1b[33m"
    BAD = "\x1b[31m"
    DIM = "\x1b[2m"


@attrs.frozen
class Line:
    """A line of text, without its end."""

    text: str
    mood: Mood = Mood.PLAIN


def as_text(lines: Iterable[Line], width: int, *, coloured: bool, end: str = "\n") -> str:
    """*lines* cut to *width*, each ended by *end*."""
    texts = []
    for line in lines:
        text = line.text.rstrip()[:width]
        texts.append(f"{line.mood.value}{text}\x1b[0m{end}" if coloured and line.mood.value else text + end)
    return "".join(texts)


# --- check


def check_lines(health: Health, data_dir: Path, source: str, width: int, height: int = ENDLESS) -> list[Line]:
    """The check's one screen: series that are not fresh first, then as many others as there is room for."""
    width = _width(width)
    reading = health.reading
    fresh, total = health.count(State.FRESH), len(health.series)
    head = [
        Line(f"{_path(data_dir)}  {utc_text(reading.now)} UTC  (series of {printable(source)})"),
        Line(_check_row("SERIES", "STATE", "ACCOUNTED", "LAST CANDLE", "", width), Mood.DIM),
    ]
    foot = []
    if reading.trouble is not None:
        foot.append(Line(printable(reading.trouble), Mood.BAD))
    if not reading.running:
        foot.append(Line(f"{stop_text(reading)}.", Mood.WARN))
    if not total:
        foot.append(Line("FAILED: no series is configured.", Mood.BAD))
    elif health.all_fresh:
        foot.append(Line(f"OK: {total} of {total} fresh.", Mood.GOOD))
    else:
        stale, missing = health.count(State.STALE), health.count(State.MISSING)
        foot.append(Line(f"FAILED: {stale} stale, {missing} missing, {fresh} of {total} fresh.", Mood.BAD))
    rows = [
        Line(
            _check_row(_name(one.series), one.state, _ago(one.known_age), _ago(one.candle_age), one.detail, width),
            _mood(one),
        )
        for one in _worst_first(health.series)
    ]
    return [*head, *_fitted(rows, health.series, height - len(head) - len(foot) - 1), *foot]


def _check_row(name: str, state: str, known: str, candle: str, detail: str, width: int) -> str:
    row = f"{_cut(name, 24 + (width - NARROWEST) // 3)} {state:<8}"
    if known == candle == "-" and detail:
        return row + f"  {printable(detail)}"
    return f"{row}{known:>12} {candle:>12}  {printable(detail)}"


def _ago(age: int | None) -> str:
    return "-" if age is None else f"{age_text(age)} ago"


# --- monitor


def monitor_lines(
    health: Health, data_dir: Path, lags: Mapping[Series, int], width: int, height: int = ENDLESS
) -> list[Line]:
    """The monitor's table: head, venues, what else is wrong, and the series, worst first."""
    width = min(_width(width), WIDEST)
    double, single = Line("=" * width), Line("-" * width)
    head = [
        double,
        Line(f"  {_verdict(health)}  |  {utc_text(health.reading.now)} UTC  |  {_path(data_dir)}", _overall(health)),
        double,
        *_venue_lines(health, width),
        *_trouble_lines(health, width),
        single,
        Line(_series_head(width), Mood.DIM),
    ]
    scrub = _scrub(health)
    foot = [single, Line(f"  {_totals(health)}"), *([Line(f"  {scrub}")] if scrub else []), double]
    rows = [Line(_series_row(one, lags.get(one.series), width), _mood(one)) for one in _worst_first(health.series)]
    return [*head, *_fitted(rows, health.series, height - len(head) - len(foot) - 1), *foot]


def summary_text(health: Health) -> str:
    """A reading in one line."""
    parts = filter(None, (_totals(health), _scrub(health)))
    return f"{utc_text(health.reading.now)} {_verdict(health)}  {', '.join(parts)}"


def series_text(one: SeriesVerdict, lag: int | None) -> str:
    """A series in one line; *lag* in ms."""
    facts = one.facts
    parts = [f"{_name(one.series)} {one.state}"]
    if one.detail:
        parts.append(printable(one.detail))
    if facts is not None:
        parts.append(f"known until {age_text(one.known_age)} ago")
        parts.append(f"last candle {age_text(one.candle_age)} ago")
        parts.append(f"lag {_lag(lag)}")
        parts.append(f"coverage 1h {_percent(facts.hour.percent)} 24h {_percent(facts.day.percent)}")
        parts.append(_gaps_text(facts.open_gaps, one.now))
        parts.append(_many(facts.revisions, "revision"))
    return ", ".join(parts)


def _verdict(health: Health) -> str:
    return "HEALTHY" if health.healthy else "UNHEALTHY"


def _overall(health: Health) -> Mood:
    return Mood.GOOD if health.healthy else Mood.BAD


def _totals(health: Health) -> str:
    reading = health.reading
    gaps = [one.facts.open_gaps for one in health.series if one.facts is not None and one.facts.open_gaps is not None]
    rejected = sum(
        count
        for venue in health.venues
        for rule, count in reading.rejections.get(venue.venue, {}).items()
        if rule != "duplicate"
    )
    revised = sum(one.facts.revisions for one in health.series if one.facts is not None)
    return (
        f"{health.count(State.FRESH)}/{len(health.series)} fresh, "
        f"{sum(one.connected for one in health.venues)}/{len(health.venues)} connected, "
        f"{_many(sum(one.count for one in gaps), 'gap')} ({sum(one.length for one in gaps) // 60_000} min), "
        f"{rejected} rejected, {revised} revised"
    )


def _scrub(health: Health) -> str:
    """How far the scrub is; nothing while no day is sealed."""
    scrub = health.reading.scrub
    if scrub is None or not scrub.of:
        return ""
    if scrub.ended is not None:
        return f"scrubbed {utc_text(scrub.ended)[:16]}, {scrub.days:,} days"
    since = "" if scrub.began is None else f", since {_when(scrub.began, health.reading.now)}"
    return f"scrub: {scrub.days:,} of {scrub.of:,} days{since}"


def _when(time: int, now: int) -> str:
    """*time* to the minute, with its date unless that is today's."""
    text = utc_text(time)[:16]
    return text[11:] if text[:10] == utc_text(now)[:10] else text


def _venue_lines(health: Health, width: int) -> Iterable[Line]:
    wide = width >= WIDEST
    head = f"  {'VENUE':<12} {'STATUS':<14}{'RECV':>9} {'SAVED':>8} {'RECONN':>8} {'REJ':>5} {'SAID':>8} {'DURABLE':>8}"
    yield Line(head + (f"  {'REJECTED SINCE THE BEGINNING, COMPARED WITH REST'}" if wide else ""), Mood.DIM)
    for one in health.venues:
        state = one.state
        if state is None:
            text = (
                f"  {_cut(one.venue.upper(), 12)} {one.status:<14}{'-':>9} {'-':>8} {'-':>8} {'-':>5} {'-':>8} {'-':>8}"
            )
        else:
            published = age_text(health.reading.now - state.at)
            text = (
                f"  {_cut(one.venue.upper(), 12)} {_cut(one.status, 14)}{state.received:>9} {state.saved:>8}"
                f" {state.reconnects:>8} {state.rejected:>5} {published:>8} {_delays(state):>8}"
            )
        yield Line(text + (f"  {_counts(one, health)}" if wide else ""), Mood.PLAIN if one.connected else Mood.BAD)


def _delays(state: VenueState) -> str:
    """From a minute's end until the feed's candle was durable, in seconds: the median, and what 99 % do not exceed."""
    median, most = state.delays.quantile(0.5), state.delays.quantile(0.99)
    return "-" if median is None or most is None else f"{median / 1000:.1f}/{most / 1000:.0f}s"


def _counts(one: VenueVerdict, health: Health) -> str:
    rejected = health.reading.rejections.get(one.venue, {})
    compared = health.reading.confirmations.get(one.venue, {})
    sampled = health.reading.sampled(one.venue)
    counts = [f"SAMPLED {sampled.percent} % of {sampled.of:,}"] if sampled.of else []
    counts += [f"{rule} {count}" for rule, count in sorted(rejected.items()) if rule != "duplicate"]
    counts += [f"{outcome} {count}" for outcome, count in sorted(compared.items()) if outcome not in RATED]
    return printable(", ".join(counts)) or "-"


def _trouble_lines(health: Health, width: int) -> Iterable[Line]:
    """The problems that the rows of venues and series do not show themselves."""
    kinds = {problem.subject.kind for problem in health.problems}
    for problem in health.problems:
        kind, venue = problem.subject.kind, problem.subject.venue
        if venue is None or (kind == "venue" and not kinds & {"collector", "journal"}):
            text = printable(f"{problem.subject}: {problem.detail}")
            for line in textwrap.wrap(text, width, initial_indent="  ! ", subsequent_indent="    "):
                yield Line(line, Mood.BAD)


def _series_head(width: int) -> str:
    text = f"  {'SERIES':<24} {'STATE':<8}{'KNOWN':>8} {'LAG':>6} {'1H %':>6} {'24H %':>6} {'GAPS':>5} {'OLDEST':>8}"
    return text + (f" {'MIN':>7} {'CANDLE':>8} {'MARK':>8} {'REV':>4}  {'WHY':<24}" if width >= WIDEST else "")


def _series_row(one: SeriesVerdict, lag: int | None, width: int) -> str:
    facts = one.facts
    name = f"  {_cut(_name(one.series), 24)} {one.state:<8}"
    if facts is None:
        return name + (f"  {printable(one.detail)}")
    gaps = facts.open_gaps
    text = (
        f"{name}{age_text(one.known_age):>8} {_lag(lag):>6} {_percent(facts.hour.percent):>6}"
        f" {_percent(facts.day.percent):>6} {gaps.count if gaps else 0:>5}"
        f" {age_text(one.now - gaps.first_seen) if gaps else '-':>8}"
    )
    if width < WIDEST:
        return text
    why = "" if gaps is None else f"{gaps.reason} {gaps.detail}".strip()
    if one.state is not State.FRESH:
        why = facts.cause or one.detail  # why nothing newer is known, rather than what the oldest gap is about
    return (
        f"{text} {gaps.length // 60_000 if gaps else 0:>7} {age_text(one.candle_age):>8}"
        f" {age_text(one.now - facts.mark):>8} {facts.revisions:>4}  {printable(why)}"
    )


def _gaps_text(gaps: OpenGaps | None, now: int) -> str:
    if gaps is None:
        return "no gaps"
    return (
        f"{_many(gaps.count, 'gap')} ({gaps.length // 60_000} min; the oldest {age_text(now - gaps.first_seen)} old,"
        f" {printable(gaps.reason)}, {_many(gaps.attempts, 'attempt')})"
    )


# --- both


def _worst_first(series: Sequence[SeriesVerdict]) -> list[SeriesVerdict]:
    order = (State.MISSING, State.STALE, State.FRESH)
    return sorted(series, key=lambda one: order.index(one.state))


def _fitted(rows: list[Line], series: Sequence[SeriesVerdict], room: int) -> list[Line]:
    """*rows*, worst first; where there is no room for all, the last line counts the others."""
    room = max(room, FEWEST_ROWS)
    if len(rows) <= room:
        return rows
    left = len(rows) - (room - 1)
    fresh = sum(one.state is State.FRESH for one in series)
    state = "all fresh" if left <= fresh else f"{left - fresh} of them not fresh" if fresh else "none fresh"
    return [*rows[: room - 1], Line(f"  ... and {left} more, {state}", Mood.DIM if left <= fresh else Mood.BAD)]


def _mood(one: SeriesVerdict) -> Mood:
    return Mood.PLAIN if one.state is State.FRESH else Mood.BAD


def _width(width: int) -> int:
    return max(width, NARROWEST)


def _name(series: Series) -> str:
    return ascii(f"{series.venue} {series.symbol}")[1:-1]


def _path(data_dir: Path) -> str:
    return printable(str(data_dir))


def _cut(text: str, width: int) -> str:
    text = printable(text)
    return f"{text:<{width}}" if len(text) <= width else text[: width - 2] + ".."


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _many(count: int, thing: str) -> str:
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def _lag(lag: int | None) -> str:
    if lag is None:
        return "-"
    return f"{lag / 1000:.1f}s" if 0 <= lag < 100_000 else age_text(lag)
