"""The reader: a data directory as tables, for programs; read-only, beside a collector or not, and fail-closed.

======== =========================================================================================
ledger   what the ledger says, in one transaction; for the tools as well
sealed   the ledger's sealed days
plan     what the ledger says about one request: the range, what is not known, what is empty
files    rows out of day files whose digest the ledger knows, joined with those in the journal
fold     minutes into a higher timeframe, where the day files do not follow yet
candles  ``read_candles``: all of this, again if a file was replaced meanwhile
spans    ``coverage``: the ledger as a table
columns  that table's columns, without an object a span
errors   why something could not be read
======== =========================================================================================

This file imports nothing, so that whoever imports the ledger alone does not wait for tables. Programs import what they
need from ``trio_candles``.
"""
