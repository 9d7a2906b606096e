"""The report as one HTML file that needs nothing else: no network, no script but its own.

The content policy names the digest of the one script, so that nothing a ledger may hold could run even if it were
not escaped, and everything is escaped. The heat-maps are drawn by that script from runs of minutes; the days in which
something is missing are listed as text, too.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from importlib.resources import files
from itertools import chain
from pathlib import Path

from trio_candles import __version__
from trio_candles.audit.daymap import LETTERS, STATES, DayMap
from trio_candles.audit.history import History
from trio_candles.audit.report import LISTED, Report, Tally, printable
from trio_candles.candles.model import MINUTE, day_name, utc_text

__all__ = ["page", "write_whole"]

MOST_DAYS = 1100
"""How many of a series' newest days are drawn: three years."""
TEXT_DAYS, TEXT_SPANS = 60, 8
"""How many days of a series are listed as text if something is missing in them, and how many spans of each day."""
OPEN_AT_FIRST = 4
"""How many heat-maps of sound series are open at first; of those in which something is missing, thrice as many are."""

DayMaps = Mapping[tuple[str, str], Mapping[int, DayMap]]
Cell = tuple[str, str]
"""A table's cell: its class and its HTML."""


def page(report: Report, covers: DayMaps, history: History) -> str:
    """The whole report; *covers* and *history* are of the same selection."""
    script = _asset("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    drawn = {key: dict(sorted(days.items(), reverse=True)[:MOST_DAYS]) for key, days in sorted(covers.items())}
    data = [[[day_name(day), cover.as_code()] for day, cover in days.items()] for days in drawn.values()]
    sections = [
        ("series", "Series", str(len(report.series)), _series(report)),
        ("coverage", "Coverage", "", _coverage(drawn, covers)),
        ("violations", "Violations", f"{len(report.violations):,}", _violations(report)),
        ("gaps", "Known gaps", f"{len(report.gaps):,}", _gaps(history)),
        ("history", "History of gaps", "the last 90 days", _events(history)),
        (
            "revisions",
            "Revisions",
            f"{len(history.revisions) + history.more.get('revisions', 0):,}",
            _revisions(history),
        ),
        ("quarantine", "Quarantine", f"{len(history.quarantined):,}", _quarantine(history)),
    ]
    lines = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8">',
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline';"
        f" script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'\">",
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>Audit of {_text(report.data_dir)}: {'OK' if report.ok else 'FAILED'}</title>",
        f"<style>{_asset('page.css')}</style></head><body>",
        *_head(report, covers),
        "<nav aria-label='Sections'><div>",
        *(f'<a href="#{name}">{title}</a>' for name, title, _, _ in sections),
        "</div></nav><main>",
        *chain.from_iterable(
            [f'<section id="{name}"><h2>{title} <small>{count}</small></h2>', *content, "</section>"]
            for name, title, count, content in sections
        ),
        f"<footer>trio_candles {__version__}. Times are UTC; a span does not include its end.</footer>",
        f'</main><script type="application/json" id="coverage-data">{json.dumps(data, separators=(",", ":"))}</script>',
        f"<script>{script}</script></body></html>",
    ]
    return "\n".join(lines) + "\n"


def write_whole(path: Path, text: str) -> None:
    """Put *text* at *path* so that a reader finds the old file or the new one; OSError if it cannot be written."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(path.stat().st_mode & 0o777 if path.exists() else 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _asset(name: str) -> str:
    return files("trio_candles.audit").joinpath(name).read_text("utf-8")


def _text(text: object) -> str:
    """*text* as HTML that is nothing but text."""
    return escape(printable(str(text)))


def _head(report: Report, covers: DayMaps) -> Iterator[str]:
    total = report.totals()
    states = [_counts(days) for days in covers.values()]
    known, expected = sum(one[1] + one[2] for one in states), sum(sum(one[1:]) for one in states)
    yield f"<header><div><h1>Audit of {_text(report.data_dir)}</h1>"
    state = "A collector is running."
    if not report.running:
        stopped = "" if report.stopped_at is None else f"; the last one stopped at {utc_text(report.stopped_at)} UTC"
        state = f"No collector is running{stopped}."
    yield f'<p class="soft">{utc_text(report.checked_at)} UTC. {state}</p>'
    if report.ok:
        yield '<div class="verdict ok"><b>✓ OK</b><span>No violations: every file, row and minute is as promised.'
    else:
        count = len(report.violations)
        yield f'<div class="verdict failed"><b>✗ FAILED</b><span>{count:,} violation{"s" * (count != 1)}:'
        yield ", ".join(f"{number:,} {kind}" for kind, number in _by_kind(report)) + "."
    share = f" {_percent(known, expected)} of the expected minutes are known." if expected else ""
    yield f"{share}</span></div>"
    tiles = [
        (len(report.series), "series", False),
        (total.files, "day files", False),
        (total.candles, "candles, all timeframes", False),
        (total.empty, "empty minutes", False),
        (total.open_gap, "open gap minutes", False),
        (total.unfillable, "unfillable minutes", False),
        (report.quarantined, "files in quarantine", report.quarantined > 0),
        (len(report.violations), "violations", not report.ok),
    ]
    yield '<div class="tiles">'
    for number, name, bad in tiles:
        yield f'<div class="tile{" bad" * bad}"><b>{number:,}</b><span>{name}</span></div>'
    yield "</div></div></header>"


def _by_kind(report: Report) -> list[tuple[str, int]]:
    kinds = [violation.kind for violation in report.violations]
    return sorted(((str(kind), kinds.count(kind)) for kind in set(kinds)), key=lambda pair: -pair[1])


def _counts(days: Mapping[int, DayMap]) -> list[int]:
    """How many minutes of *days* are in each of the states."""
    layers = [cover.layers() for cover in days.values()]
    return [sum(bits[state].bit_count() for bits in layers) for state in range(len(STATES))]


def _percent(part: int, whole: int) -> str:
    """The share as text, rounded down: 100 % means all and nothing less."""
    return "100 %" if part == whole else f"{part * 10_000 // whole / 100:.2f} %"


def _series(report: Report) -> Iterator[str]:
    def row(name: str, tally: Tally, bar: str, span: str) -> list[Cell]:
        numbers = (tally.files, tally.candles, tally.empty, tally.open_gap, tally.unfillable)
        return [("", name), *(("number", f"{number:,}") for number in numbers), ("", bar), ("", span)]

    rows = []
    for key, tally in report.series.items():
        span = "" if tally.first is None or tally.last is None else f"{_minute(tally.first)} to {_minute(tally.last)}"
        rows.append(row(_text(" ".join(key)), tally, _bar(tally) if key[2] == "1m" else "", span))
    titles = ("Series", "#Files", "#Candles", "#Empty", "#Gap", "#Unfillable", "Minutes", "First and last candle")
    yield from _table(titles, rows, row("Total", report.totals(), "", ""))


def _bar(tally: Tally) -> str:
    parts = [(1, tally.candles), (2, tally.empty), (3, tally.open_gap), (4, tally.unfillable)]
    summary = ", ".join(f"{number:,} {STATES[state]}" for state, number in parts)
    inside = "".join(f'<i class="s{state}" style="flex:{number}"></i>' for state, number in parts if number)
    return f'<span class="bar" role="img" aria-label="{summary}" title="{summary}">{inside}</span>'


def _coverage(drawn: DayMaps, covers: DayMaps) -> Iterator[str]:
    yield "<p class='soft'>A row is a day, the newest first; from left to right its 1,440 minutes. Point at a minute,"
    yield "or step into a map with <kbd>Tab</kbd> and use the arrow keys; <kbd>n</kbd> and <kbd>p</kbd> go to the next"
    yield "older and newer gap.</p><ul class='legend'>"
    words = ("not expected", "stored", "empty: nothing traded", "open gap", "unfillable gap", "violation")
    yield from (f'<li><i class="swatch s{state}"></i>{word}</li>' for state, word in enumerate(words))
    yield "</ul>"
    sound = torn = 0
    for number, ((venue, symbol), days) in enumerate(drawn.items()):
        missing = any(cover.layers()[state] for cover in days.values() for state in (3, 4, 5, 6))
        torn, sound = torn + missing, sound + (not missing)
        is_open = torn <= 3 * OPEN_AT_FIRST if missing else sound <= OPEN_AT_FIRST
        yield from _map(number, f"{venue} {symbol}", days, len(covers[venue, symbol]) - len(days), is_open)
    if not drawn:
        yield "<p class='more'>No series has a minute to show.</p>"


def _map(number: int, name: str, days: Mapping[int, DayMap], older: int, is_open: bool) -> Iterator[str]:
    counts = _counts(days)
    due = sum(counts[1:])
    summary = ", ".join(f"{count:,} min {STATES[state]}" for state, count in enumerate(counts) if count and state)
    tall = 18 if len(days) <= 14 else 10 if len(days) <= 62 else 5 if len(days) <= 200 else 3
    known = _percent(counts[1] + counts[2], due) if due else "nothing"
    yield f"<details class='series'{' open' * is_open}><summary><b>{_text(name)}</b>"
    yield f"<span>{known} known</span><span class='soft'>{summary}</span></summary>"
    yield "<div class='map'><div class='hours'>" + "".join(f"<span>{hour:02}</span>" for hour in (0, 6, 12, 18, 24))
    yield "</div><div class='labels'>"
    every = max(1, -(-16 // tall))
    for row, day in enumerate(days):
        if row % every == 0:
            year, rest = day_name(day)[:5], day_name(day)[5:]
            place = row * tall + (tall - 15) // 2
            yield f'<span style="top:{place}px"><i class="year">{year}</i>{rest}</span>'
    label = _text(f"{name}: {summary}; a row a day, {len(days)} days. Arrow keys go from minute to minute.")
    yield f'</div><div class="plot" style="height:{len(days) * tall}px">'
    yield f'<canvas data-series="{number}" tabindex="0" role="img" aria-label="{label}"></canvas>'
    yield "<div class='cursor'></div></div></div><p class='readout soft' role='status'>&nbsp;</p>"
    if older:
        yield f"<p class='more'>{older:,} older days are not drawn.</p>"
    yield from _missing_as_text(days)
    yield "</details>"


def _missing_as_text(days: Mapping[int, DayMap]) -> Iterator[str]:
    """The days in which something is missing, in words."""
    rows: list[list[Cell]] = []
    left = 0
    for day, cover in days.items():
        spans = list(cover.spans(LETTERS[3:]))
        if not spans:
            continue
        if len(rows) == TEXT_DAYS:
            left += 1
            continue
        words = [f"{STATES[state]} {_clock(low)} to {_clock(high)}" for low, high, state in spans[:TEXT_SPANS]]
        if len(spans) > TEXT_SPANS:
            words.append(f"and {len(spans) - TEXT_SPANS:,} more")
        minutes = sum(high - low for low, high, _ in spans)
        rows.append([("", day_name(day)), ("number", f"{minutes:,}"), ("text", "; ".join(words))])
    if rows:
        yield "<details><summary>As text</summary>"
        yield from _table(("Day", "#Minutes", "What is missing"), rows, more=left, of="days")
        yield "</details>"


def _violations(report: Report) -> Iterator[str]:
    rows = [
        [
            ("kind", str(violation.kind)),
            ("path", _text(violation.path)),
            ("", _span(violation.start_ms, violation.end_ms)),
            ("text", _text(violation.detail)),
        ]
        for violation in report.violations[:LISTED]
    ]
    more = max(0, len(report.violations) - LISTED)
    yield from _table(("Kind", "Path", "From and to", "Detail"), rows, more=more, of="violations", none="None.")


def _gaps(history: History) -> Iterator[str]:
    yield "<p class='soft'>No violation: they are known, and filled while a collector runs.</p>"
    if history.trouble:
        yield f"<p>The ledger cannot be read: {_text(history.trouble)}</p>"
    rows: list[list[Cell]] = [
        [
            ("", _text(gap.series)),
            ("", _span(gap.start, gap.end)),
            ("number", f"{(gap.end - gap.start) // MINUTE:,}"),
            ("state", f'<i class="swatch s{4 if gap.state == "unfillable" else 3}"></i>{_text(gap.state)}'),
            ("", _text(gap.reason)),
            ("number", f"{gap.attempts:,}"),
            ("", _minute(gap.first_seen)),
            ("text", "<br>".join(_text(words) for words in (gap.detail, gap.last_error) if words)),
        ]
        for gap in history.gaps
    ]
    titles = ("Series", "From and to", "#Minutes", "State", "Reason", "#Attempts", "First seen", "Detail, last error")
    yield from _table(titles, rows, more=history.more.get("gaps", 0), of="gaps", none="None.")


def _events(history: History) -> Iterator[str]:
    rows: list[list[Cell]] = [
        [
            ("", utc_text(event.at)),
            ("", _text(event.series)),
            ("", _span(event.start, event.end)),
            ("number", f"{(event.end - event.start) // MINUTE:,}"),
            ("state", _text(event.event)),
            ("text", _text(event.detail)),
        ]
        for event in history.events
    ]
    titles = ("At", "Series", "From and to", "#Minutes", "Event", "Detail")
    yield from _table(titles, rows, more=history.more.get("events", 0), of="events", none="Nothing has happened.")


def _revisions(history: History) -> Iterator[str]:
    yield "<p class='soft'>Two different closed candles of one minute were heard; both are kept here.</p>"
    rows: list[list[Cell]] = [
        [
            ("", utc_text(revision.at)),
            ("", _text(revision.series)),
            ("", _minute(revision.start)),
            ("text", f"<b>stored</b> {_text(revision.stored)}<br><b>offered</b> {_text(revision.offered)}"),
            ("state", _text(revision.outcome)),
        ]
        for revision in history.revisions
    ]
    titles = ("Heard at", "Series", "Minute", "Candles", "Outcome")
    yield from _table(titles, rows, more=history.more.get("revisions", 0), of="revisions", none="None.")


def _quarantine(history: History) -> Iterator[str]:
    yield "<p class='soft'>Day files that did not match their digest; their minutes are gaps, and are filled anew.</p>"
    yield from _table(("File",), [[("path", _text(name))] for name in history.quarantined], none="None.")


def _table(
    titles: Sequence[str],
    rows: Iterable[Sequence[Cell]],
    total: Sequence[Cell] = (),
    *,
    more: int = 0,
    of: str = "",
    none: str = "",
) -> Iterator[str]:
    """*rows* under *titles*, a # before those of numbers; *none* is the text where there are no rows."""
    rows = list(rows)
    if not rows and none:
        yield f"<p>{none}</p>"
        return
    heads = "".join(
        f'<th scope="col" class="number">{title[1:]}</th>' if title[0] == "#" else f'<th scope="col">{title}</th>'
        for title in titles
    )
    yield f'<div class="wide" tabindex="0"><table><thead><tr>{heads}</tr></thead><tbody>'
    for row in rows:
        yield "<tr>" + "".join(
            f'<td class="{sort}">{content}</td>' if sort else f"<td>{content}</td>" for sort, content in row
        )
    if total:
        yield '<tr class="total">' + "".join(f'<td class="{sort}">{content}</td>' for sort, content in total)
    yield "</tbody></table></div>"
    if more:
        yield f"<p class='more'>{more:,} older {of} are not shown.</p>"


def _minute(time: int) -> str:
    return utc_text(time)[:-3]


def _clock(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"


def _span(start: int | None, end: int | None) -> str:
    """``2026-01-10 12:00 to 13:00``; empty if a bound is missing."""
    if start is None or end is None:
        return ""
    low, high = (utc_text(time) if time % MINUTE else _minute(time) for time in (start, end))
    return f"{low} to {high[11:] if low[:10] == high[:10] else high}"
