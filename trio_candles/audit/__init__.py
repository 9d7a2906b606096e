"""The integrity audit of a data directory: reads everything, believes nothing, writes never.

Shares with the writing path the schema and nothing else: what it checks it derives anew.

======== =========================================================================================
ledger   one consistent reading of the journal; its own soundness
files    what lies where; a day file's digest, columns and rows
batch    whether every rule holds for many files' rows, in as few passes as prove it
rows     the rules of every row, one by one, where it does not
folds    whether a day's aggregates all follow from its minutes, a column at a time
account  per symbol and day: is each minute exactly one thing, do aggregates follow from minutes?
walk     all of it, and again whatever looks wrong, before it is reported
report   what was found, as JSON and as text
daymap   what each minute of a day is, to be drawn
bits     a day's minutes as the bits of one integer: the arithmetic in which the audit judges
history  what the ledger remembers of gaps and revisions, to be shown
page     all of it as one HTML file; page.css, page.js
bar      how far it is, on a terminal
tool     options, exit code
======== =========================================================================================
"""

from trio_candles.audit.report import KnownGap, Report, Tally, Violation
from trio_candles.audit.tool import command, main
from trio_candles.audit.walk import Selection, audit

__all__ = ["KnownGap", "Report", "Selection", "Tally", "Violation", "audit", "command", "main"]
