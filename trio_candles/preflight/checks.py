"""One line per check: what was looked at, how it is, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby

import attrs

from trio_candles.candles.model import printable
from trio_candles.venues.probes import Status

__all__ = ["Check", "Checks", "PreflightDocument", "coloured", "lines", "preflight_document", "total"]

EACH = 12
"""Up to so many symbols of a venue with the same outcome of a check have a line each; more have one together."""
_COLOURS = {"pass": "\x1b[32m", "warn": "\x1b[33m", "fail": "\x1b[31m"}


@attrs.frozen
class Check:
    """One thing that was looked at; in the document as it stands here."""

    name: str
    venue: str | None = attrs.field(default=None, kw_only=True)
    """``None`` for a check of this machine."""
    symbol: str | None = attrs.field(default=None, kw_only=True)
    status: Status
    detail: str
    remedy: str = ""
    """What to do about it; nothing where all is well."""


@attrs.frozen
class PreflightDocument:
    """What ``preflight --json`` prints."""

    ok: bool
    """No check failed."""
    checks: tuple[Check, ...]
    totals: Mapping[str, int]
    """How many ``checks`` there are, and how many came out as ``pass``, ``warn`` and ``fail``."""


@attrs.define
class Checks:
    """What was found so far, at one venue or (``None``) on this machine."""

    venue: str | None = None
    done: list[Check] = attrs.field(factory=list)

    def passed(self, name: str, detail: str, *, symbol: str | None = None) -> None:
        """Add a check that found all well."""
        self.add("pass", name, detail, "", symbol)

    def warned(self, name: str, detail: str, remedy: str, *, symbol: str | None = None) -> None:
        """Add a check that does not keep the collector from starting, but that somebody should know of."""
        self.add("warn", name, detail, remedy, symbol)

    def failed(self, name: str, detail: str, remedy: str, *, symbol: str | None = None) -> None:
        """Add a check by which the collector is not ready to start."""
        self.add("fail", name, detail, remedy, symbol)

    def add(self, status: Status, name: str, detail: str, remedy: str, symbol: str | None) -> None:
        """Add a check; texts of venues and systems in *detail* and *remedy* are made fit for a terminal."""
        self.done.append(Check(name, status, printable(detail), printable(remedy), venue=self.venue, symbol=symbol))


# --- for people -------------------------------------------------------------------------------------------


def lines(checks: Iterable[Check]) -> Iterator[str]:
    """The checks as text, a line each, and below it an indented one for what to do."""
    for group in _together(checks):
        first = group[0]
        subject = " ".join(filter(None, (first.venue, first.symbol, first.name)))
        detail = first.detail
        if len(group) > 1:
            subject, detail = (
                f"{first.venue} {first.name}",
                f"{len(group)} symbols; the first, {first.symbol}: {detail}",
            )
        yield f"[{first.status.upper()}] {subject}: {detail}"
        if first.remedy:
            yield f"       {first.remedy}"


def _together(checks: Iterable[Check]) -> Iterator[Sequence[Check]]:
    """Each check alone; those of a venue's symbols with the same outcome together, if more than :data:`EACH`."""
    for _, some in groupby(checks, key=lambda check: (check.venue, check.name, check.status, check.symbol is None)):
        group = list(some)
        if len(group) > EACH and group[0].symbol is not None:
            yield group
        else:
            yield from ([check] for check in group)


def coloured(line: str) -> str:
    """*line* with its tag in colour."""
    for status, colour in _COLOURS.items():
        tag = f"[{status.upper()}]"
        if line.startswith(tag):
            return f"{colour}{tag}\x1b[0m{line[len(tag) :]}"
    return line


def total(checks: Sequence[Check]) -> str:
    """The last line of the text: the verdict and the counts."""
    counts = _counts(checks)
    verdict = "NOT READY" if counts["fail"] else "READY, with warnings" if counts["warn"] else "READY"
    return (
        f"{verdict}: {counts['checks']} checks, {counts['pass']} passed,"
        f" {counts['warn']} warning{'s' * (counts['warn'] != 1)}, {counts['fail']} failed"
    )


# --- for programs -----------------------------------------------------------------------------------------


def preflight_document(checks: Sequence[Check]) -> PreflightDocument:
    """The whole as one document."""
    counts = _counts(checks)
    return PreflightDocument(not counts["fail"], tuple(checks), counts)


def _counts(checks: Sequence[Check]) -> dict[str, int]:
    counts = {"checks": len(checks)}
    for status in ("pass", "warn", "fail"):
        counts[status] = sum(check.status == status for check in checks)
    return counts
