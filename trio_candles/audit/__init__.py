"""The integrity audit of a data directory: reads everything, believes nothing, writes never.

Shares the schema with the writing path, and nothing else: whatever it checks, it derives anew.

======== =========================================================================================
ledger   one consistent reading of the journal; its own soundness
books    what the ledger says, as it is kept while it is judged
sealed   what the ledger's row and the day's file say of a sealed day, each decoded
files    what lies where; a day file's digest, columns and rows
batch    whether every rule holds for many files' rows, in as few passes as prove it
rows     the rules of every row, one by one, where some rule does not hold
folds    whether a day's aggregates all follow from its minutes, a column at a time
account  per symbol and day: is each minute exactly one thing, do aggregates follow from minutes?
receipts what cells were found to be, so that they need not be decoded again
walk     all of this, and whatever looks wrong once more, before it is reported
report   what was found, as JSON and as text
daymap   what each minute of a day is, to be drawn
bits     a day's minutes as the bits of one integer: the arithmetic in which the audit judges
history  what the ledger remembers of gaps and revisions, to be shown
page     the report as one HTML file; page.css, page.js
bar      the progress, on a terminal
tool     options, exit code
======== =========================================================================================
"""

from trio_candles.audit.report import KnownGap, Report, Tally, Violation
from trio_candles.audit.tool import command, main
from trio_candles.audit.walk import Selection, audit

__all__ = ["KnownGap", "Report", "Selection", "Tally", "Violation", "audit", "command", "main"]
