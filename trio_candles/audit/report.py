"""What an audit found: for programs as JSON (the contract's section 6), for people as text of 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from typing import Literal

import attrs

from trio_candles.candles.model import MINUTE, utc_text

__all__ = ["LISTED", "AuditDocument", "Kind", "KnownGap", "Report", "Tally", "Violation", "printable", "span_text"]

Kind = Literal[
    "unreadable_file",
    "checksum",
    "wrong_schema",
    "wrong_partition",
    "unsorted",
    "duplicate",
    "invalid_candle",
    "not_closed",
    "silent_gap",
    "contradiction",
    "wrong_aggregate",
    "missing_aggregate",
    "leftover_file",
    "ledger_corrupt",
]

LISTED = 1000
"""Violations listed at most; the totals count all. A ruined directory must not give a report of gigabytes."""


@attrs.frozen
class Violation:
    """One thing that is not as promised, and where; in the document as it stands here."""

    kind: Kind
    venue: str | None = attrs.field(default=None, kw_only=True)
    symbol: str | None = attrs.field(default=None, kw_only=True)
    """As the venue writes it, where that is known."""
    timeframe: str | None = attrs.field(default=None, kw_only=True)
    path: str
    """Below the data directory, with ``/``."""
    start_ms: int | None = attrs.field(default=None, kw_only=True)
    end_ms: int | None = attrs.field(default=None, kw_only=True)
    """The minutes concerned, half-open; ``None`` where the violation is not about minutes."""
    detail: str


@attrs.frozen
class KnownGap:
    """A gap that the ledger knows: no violation, but part of the report; in the document as it stands here."""

    venue: str
    symbol: str
    start_ms: int
    end_ms: int
    state: str
    reason: str
    attempts: int


@attrs.frozen(kw_only=True)
class Totals:
    """All series together."""

    series: int
    """How many series have a file or a row."""
    files: int
    candles: int
    empty_minutes: int
    open_gap_minutes: int
    unfillable_minutes: int
    violations: int
    """All of them, of which at most :data:`LISTED` are listed."""
    violations_not_listed: int
    quarantined_files: int


@attrs.frozen(kw_only=True)
class SeriesTotals:
    """One venue, symbol and timeframe on disk."""

    venue: str
    symbol: str
    timeframe: str
    first_open_ms: int | None
    last_open_ms: int | None
    candles: int
    empty_minutes: int
    open_gap_minutes: int
    unfillable_minutes: int


@attrs.frozen(kw_only=True)
class AuditDocument:
    """What ``audit --json`` prints: the contract's section 6."""

    ok: bool
    checked_at_ms: int
    data_dir: str
    collector_running: bool
    stopped_at_ms: int | None
    totals: Totals
    series: tuple[SeriesTotals, ...]
    gaps: tuple[KnownGap, ...]
    violations: tuple[Violation, ...]
    warnings: tuple[str, ...]
    """Paths below the data directory of files that an operating system left there: no violation."""


@attrs.define
class Tally:
    """Counts of one series, or of many together; *first* and *last* are open times in Unix ms."""

    files: int = 0
    candles: int = 0
    first: int | None = None
    last: int | None = None
    empty: int = 0
    open_gap: int = 0
    unfillable: int = 0

    def add(self, other: Tally) -> None:
        """Count *other* in."""
        self.files += other.files
        self.candles += other.candles
        self.empty += other.empty
        self.open_gap += other.open_gap
        self.unfillable += other.unfillable
        self.first = min((t for t in (self.first, other.first) if t is not None), default=None)
        self.last = max((t for t in (self.last, other.last) if t is not None), default=None)


@attrs.frozen
class Report:
    """The whole result."""

    data_dir: str
    checked_at: int
    running: bool
    stopped_at: int | None
    """When the collector stopped; ``None`` while one runs, or where none has ever run."""
    series: dict[tuple[str, str, str], Tally]
    """By venue, symbol and timeframe."""
    gaps: tuple[KnownGap, ...]
    violations: tuple[Violation, ...]
    quarantined: int = 0
    """Files in quarantine. They are no violation: the ledger has their minutes as gaps."""

    foreign: tuple[str, ...] = ()
    """Paths below the data directory of files that an operating system left there: no violation."""

    exists: bool = True
    """Whether there is a journal, or a day file."""

    @property
    def is_of_nothing(self) -> bool:
        """Whether there was nothing to audit."""
        return not self.exists and not self.violations

    @property
    def ok(self) -> bool:
        """Whether every promise holds."""
        return not self.violations

    @property
    def exit_code(self) -> int:
        """0 clean, 1 violations."""
        return 0 if self.ok else 1

    def totals(self) -> Tally:
        """All series together."""
        total = Tally()
        for tally in self.series.values():
            total.add(tally)
        return total

    def document(self) -> AuditDocument:
        """The document of ``audit --json``."""
        total = self.totals()
        on_disk = {key: tally for key, tally in self.series.items() if tally.files or tally.candles}
        return AuditDocument(
            ok=self.ok,
            checked_at_ms=self.checked_at,
            data_dir=self.data_dir,
            collector_running=self.running,
            stopped_at_ms=self.stopped_at,
            totals=Totals(
                series=len(on_disk),
                files=total.files,
                candles=total.candles,
                empty_minutes=total.empty,
                open_gap_minutes=total.open_gap,
                unfillable_minutes=total.unfillable,
                violations=len(self.violations),
                violations_not_listed=max(0, len(self.violations) - LISTED),
                quarantined_files=self.quarantined,
            ),
            series=tuple(
                SeriesTotals(
                    venue=venue,
                    symbol=symbol,
                    timeframe=timeframe,
                    first_open_ms=tally.first,
                    last_open_ms=tally.last,
                    candles=tally.candles,
                    empty_minutes=tally.empty,
                    open_gap_minutes=tally.open_gap,
                    unfillable_minutes=tally.unfillable,
                )
                for (venue, symbol, timeframe), tally in on_disk.items()
            ),
            gaps=self.gaps,
            violations=self.violations[:LISTED],
            warnings=self.foreign[:LISTED],
        )

    def as_text(self) -> str:
        """For people: at most 80 columns, except where a name is longer."""
        return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        yield f"Audit of {printable(self.data_dir)}, {utc_text(self.checked_at)} UTC"
        if self.running:
            yield "A collector is running."
        elif self.stopped_at is not None:
            yield f"No collector is running; the last one stopped at {utc_text(self.stopped_at)} UTC."
        yield ""
        if self.series:
            yield from self._series_lines()
            yield ""
        if self.gaps:
            yield "KNOWN GAPS (no violation: they are known, and filled while a collector runs)"
            yield from _gap_lines(self.gaps)
            yield ""
        if self.quarantined:
            one = self.quarantined == 1
            files, minutes = ("1 file lies", "its") if one else (f"{self.quarantined:,} files lie", "their")
            yield f"{files} in quarantine; {minutes} minutes are gaps above."
            yield ""
        if self.foreign:
            more = f" and {len(self.foreign) - 1:,} more" if len(self.foreign) > 1 else ""
            yield f"Warning: left there by an operating system: {printable(self.foreign[0])}{more}"
            yield ""
        if self.violations:
            yield "VIOLATIONS"
            for violation in self.violations[:LISTED]:
                yield from _violation_lines(violation)
            if len(self.violations) > LISTED:
                yield f"... and {len(self.violations) - LISTED:,} more."
            yield ""
        count = len(self.violations)
        yield "OK: no violations." if self.ok else f"FAILED: {count:,} violation{'s' * (count != 1)}."

    def _series_lines(self) -> Iterator[str]:
        yield f"{'SERIES':<29} {'FILES':>6} {'CANDLES':>12} {'EMPTY':>9} {'GAPS':>8} {'UNFILLABLE':>10}"
        yield "-" * 79
        for key, tally in self.series.items():
            yield _series_line(printable(" ".join(key)), tally)
        yield "-" * 79
        yield _series_line("total", self.totals())


def _series_line(name: str, tally: Tally) -> str:
    return (
        f"{name:<29} {tally.files:>6,} {tally.candles:>12,} {tally.empty:>9,} {tally.open_gap:>8,}"
        f" {tally.unfillable:>10,}"
    )


def _gap_lines(gaps: Iterable[KnownGap]) -> Iterator[str]:
    """Gaps of one series, state and reason in one line: an evening of single minutes is one fact, not 300."""
    groups: dict[tuple[str, str, str, str], list[KnownGap]] = {}
    for gap in gaps:
        groups.setdefault((gap.venue, gap.symbol, gap.state, gap.reason), []).append(gap)
    for (venue, symbol, state, reason), members in sorted(groups.items()):
        minutes = sum(gap.end_ms - gap.start_ms for gap in members) // MINUTE
        times = "once" if len(members) == 1 else f"in {len(members):,} places"
        attempts = max(gap.attempts for gap in members)
        span = span_text(min(gap.start_ms for gap in members), max(gap.end_ms for gap in members))
        words = f"{minutes:,} min {times}, {attempts} attempt{'s' * (attempts != 1)}"
        yield f"  {printable(f'{venue} {symbol}: {state}, {reason}')}, {words}"
        yield f"      {span}"


def _violation_lines(violation: Violation) -> Iterator[str]:
    yield f"  {violation.kind:<17} {printable(violation.path)}"
    if violation.start_ms is not None and violation.end_ms is not None:
        yield f"      {span_text(violation.start_ms, violation.end_ms)}"
    yield from textwrap.wrap(
        printable(violation.detail),
        80,
        initial_indent="      ",
        subsequent_indent="      ",
        break_long_words=False,
    )


def span_text(start: int, end: int) -> str:
    """``[start, end)`` in UTC."""
    return f"{utc_text(start)} to {utc_text(end)} UTC"


def printable(text: str) -> str:
    """*text* without what would drive a terminal: a file's name may hold anything."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "replace").decode() for c in text)
