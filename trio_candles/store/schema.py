"""The data directory's shape: file names, the day files' columns, the journal's tables.

Shared by the writing path and by the read-only tools, and the only thing that they share.

::

    {data_dir}/{venue}/{BASE-QUOTE}/{timeframe}/{YYYY-MM-DD}.parquet     day files
    {data_dir}/journal.sqlite3                                          journal and ledger
    {data_dir}/identity.json                                            whose it is, should the journal be lost
    {data_dir}/collector.lock                                           held while a collector runs
    {data_dir}/.tmp/                                                    day files being written
    {data_dir}/quarantine/                                              day files that did not match their digest

Every ``*_ms`` is Unix milliseconds on the service's clock; every span is half-open.
"""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from collections.abc import Sequence

import pyarrow as pa

from trio_candles.candles.model import DAY

JOURNAL = "journal.sqlite3"
IDENTITY = "identity.json"
LOCK = "collector.lock"
TMP = ".tmp"
QUARANTINE = "quarantine"

ABSENT = "absent"
"""In place of a pending digest: the file is about to be removed; until that is done, it may be there or not."""

TIMEFRAMES = "timeframes"
"""In ``meta``: the timeframes that are derived, with commas between them."""

UNMENDED = "unmended"
"""In ``meta``: an earlier version wrote this journal, and may have believed a wrong clock; see :mod:`.mending`."""

WAITS = "clock_waits"
"""In ``meta``: why the running collector does not believe its clock, in words; absent while the collector does. Until
it does, no mark moves."""

DELAYS = "close_to_durable"
"""In ``meta``: of each venue, how long after their minutes' ends the candles of the running collector's feeds were
durable (:mod:`trio_candles.candles.delays`), as JSON."""

SCRUB = "scrub"
"""In ``meta``: how far the scrub is, as JSON: ``began_ms``, ``ended_ms`` (null while it runs), how many ``days`` it has
read ``of`` how many, and the last one's ``place``, as series id and day."""

UNSEALED = "unsealed"
"""In ``meta``: an earlier version wrote this journal, and its old days are still to be sealed; see :mod:`.upgrade`."""

EPOCH = "epoch"
"""In ``meta``: which journal this is, as eight hexadecimal digits, made with it: no other has its change feed."""

SUSPECT = "suspect"
"""In ``meta``: somebody met a page of this journal that cannot be read; the next start checks the whole file."""

FORMAT = "7"
"""Of the journal's tables; older ones listed in :data:`UPGRADES` are brought up, any other is refused."""
UNCHECKED = ("1", "2")
"""Formats whose waiting candles have no checksum."""

_FIELDS: list[pa.Field[pa.DataType]] = [
    pa.field("venue", pa.string(), nullable=False),
    pa.field("symbol", pa.string(), nullable=False),
    pa.field("timeframe", pa.string(), nullable=False),
    pa.field("open_time_ms", pa.int64(), nullable=False),
    pa.field("close_time_ms", pa.int64(), nullable=False),
    pa.field("open", pa.float64(), nullable=False),
    pa.field("high", pa.float64(), nullable=False),
    pa.field("low", pa.float64(), nullable=False),
    pa.field("close", pa.float64(), nullable=False),
    pa.field("volume", pa.float64(), nullable=False),
    pa.field("quote_volume", pa.float64(), nullable=True),
    pa.field("vwap", pa.float64(), nullable=True),
    pa.field("trades_count", pa.int64(), nullable=True),
    pa.field("is_closed", pa.bool_(), nullable=False),
    pa.field("source", pa.string(), nullable=False),
    pa.field("ingest_time_ms", pa.int64(), nullable=False),
]
COLUMNS = pa.schema(_FIELDS)
"""A day file's columns, in order, exactly."""
STRINGS = ("venue", "symbol", "timeframe", "source")
"""Those of the columns that have few different values."""
SERIES_KEY = b"trio_candles.series"
"""In a day file's own metadata: venue, symbol and folder as JSON, for when the ledger that knows them is lost."""
ACCOUNT_KEY = b"trio_candles.account"
"""In the metadata of a sealed day's file of minutes: what each minute of the day is, as JSON (:mod:`.accounts`)."""

_SERIES = """
CREATE TABLE series (
    id INTEGER PRIMARY KEY,
    venue TEXT NOT NULL, symbol TEXT NOT NULL, timeframe TEXT NOT NULL,
    first_ms INTEGER NOT NULL,          -- the first expected minute
    mark_ms INTEGER NOT NULL,           -- every minute in [first_ms, mark_ms) is accounted for
    last_candle_ms INTEGER,             -- open time of the newest accepted candle
    expected INTEGER NOT NULL,          -- 1 while the configuration names it
    folder TEXT,                        -- BASE-QUOTE, where the symbol alone does not tell
    UNIQUE (venue, symbol, timeframe)
);
"""

_GAP = """
CREATE TABLE gap (                      -- disjoint within a series
    id INTEGER PRIMARY KEY,
    series_id INTEGER NOT NULL REFERENCES series (id),
    since_ms INTEGER NOT NULL, until_ms INTEGER NOT NULL,
    state TEXT NOT NULL,                -- open | unfillable
    reason TEXT NOT NULL, detail TEXT NOT NULL,
    first_seen_ms INTEGER NOT NULL,
    attempts INTEGER NOT NULL, last_error TEXT,
    not_before_ms INTEGER NOT NULL DEFAULT 0,   -- REST is not asked about it again before then; 0: as soon as may be
    rest_since_ms INTEGER, rest_until_ms INTEGER,   -- what is left to ask before it waits; NULL: all of it
    reported_ms INTEGER NOT NULL DEFAULT 0  -- the change feed has its minutes before this one
);
CREATE UNIQUE INDEX gap_span ON gap (series_id, since_ms);
CREATE INDEX gap_due ON gap (series_id, not_before_ms) WHERE state = 'open';
CREATE INDEX gap_unreported ON gap (reported_ms) WHERE reported_ms < until_ms;
"""

_REVISION = """
CREATE TABLE revision (                 -- two different closed candles of one minute were heard
    id INTEGER PRIMARY KEY,
    at_ms INTEGER NOT NULL,
    series_id INTEGER NOT NULL, open_ms INTEGER NOT NULL,
    stored TEXT NOT NULL, offered TEXT NOT NULL,    -- JSON
    outcome TEXT NOT NULL,              -- open | kept | replaced
    not_before_ms INTEGER NOT NULL DEFAULT 0    -- while it is open: asked about again from then on
);
CREATE INDEX revision_minute ON revision (series_id, open_ms);
"""

_CONFIRMED = """
CREATE TABLE confirmed (                -- live candles that open before the mark were compared with REST, or are out
    series_id INTEGER PRIMARY KEY REFERENCES series (id),   -- of its reach
    mark_ms INTEGER NOT NULL,
    not_before_ms INTEGER NOT NULL DEFAULT 0    -- the next are compared from then on
);
"""

_SAMPLE = """
CREATE TABLE sample (                   -- minutes that rows of REST filled, to be rebuilt from trades and compared
    id INTEGER PRIMARY KEY,
    series_id INTEGER NOT NULL REFERENCES series (id),
    minute_ms INTEGER,                  -- the one of its page that is asked about; NULL once it differed: all are
    since_ms INTEGER NOT NULL, until_ms INTEGER NOT NULL,   -- the page, or what is left of it to rebuild
    attempts INTEGER NOT NULL,          -- in vain
    not_before_ms INTEGER NOT NULL      -- asked about from then on
);
CREATE UNIQUE INDEX sample_minute ON sample (series_id, minute_ms);
"""

_SEALED = """
CREATE TABLE sealed (                   -- days that are over, known and compared; see accounts.py
    series_id INTEGER NOT NULL REFERENCES series (id),
    day_ms INTEGER NOT NULL,
    shape TEXT NOT NULL,                -- what the day has: account, 5m, 15m, ...
    minutes BLOB NOT NULL,              -- a letter for each minute, compressed by zlib
    detail BLOB NOT NULL,               -- evidence, and the files' digests: JSON, compressed by zlib
    unknown INTEGER NOT NULL,           -- how many of its minutes are gaps
    checksum INTEGER NOT NULL,          -- of the others; SQLite has none
    PRIMARY KEY (series_id, day_ms)
);
CREATE INDEX sealed_shape ON sealed (shape);
CREATE INDEX sealed_unknown ON sealed (series_id) WHERE unknown > 0;

CREATE TABLE open_day (                 -- the other days of what is accounted for: in gap, empty and day_file
    series_id INTEGER NOT NULL REFERENCES series (id),
    day_ms INTEGER NOT NULL,
    not_before_ms INTEGER NOT NULL,     -- whether it can be sealed is looked at again from then on
    PRIMARY KEY (series_id, day_ms)
) WITHOUT ROWID;
CREATE INDEX open_day_due ON open_day (not_before_ms);
"""

_CHANGE = """
CREATE TABLE change (                   -- what became known, in the order of the commits; see feed.py
    seq INTEGER PRIMARY KEY,            -- of its first minute; a run of candles takes as many numbers as minutes
    kind INTEGER NOT NULL,
    series_id INTEGER NOT NULL,
    since_ms INTEGER NOT NULL, minutes INTEGER NOT NULL,
    at_ms INTEGER NOT NULL,
    around TEXT,                        -- what was known around it then; NULL: all of its day before, nothing after
    detail TEXT,                        -- why, unless the ledger's other tables say so
    revision_id INTEGER
);
CREATE INDEX change_told ON change (series_id, since_ms) WHERE kind IN (2, 3);
"""

_ABSENT = """
CREATE INDEX gap_event_absent ON gap_event (series_id, since_ms) WHERE event = 'absent';
"""

_REVISION_AT = """
CREATE INDEX revision_at ON revision (at_ms);
"""

_DUE = """
CREATE INDEX revision_due ON revision (series_id, not_before_ms) WHERE outcome = 'open';
CREATE INDEX revision_open_at ON revision (at_ms) WHERE outcome = 'open';
CREATE INDEX sample_due ON sample (series_id, not_before_ms);
CREATE INDEX gap_event_at ON gap_event (at_ms);
"""

TABLES = f"""{_SERIES}{_GAP}{_REVISION}{_REVISION_AT}
CREATE TABLE meta (
    key TEXT PRIMARY KEY,     -- format, kind (real | simulated), seed, speed, pivot, latest_ms, stopped_at_ms
    value TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE gap_event (                -- the history of every gap, of the last 90 days; at_ms is when it began
    at_ms INTEGER NOT NULL,
    series_id INTEGER NOT NULL, since_ms INTEGER NOT NULL, until_ms INTEGER NOT NULL,
    event TEXT NOT NULL,                -- opened | stored | empty | absent | first_row | unfillable | unlisted
    detail TEXT NOT NULL
);
CREATE INDEX gap_event_series ON gap_event (series_id, until_ms);
{_ABSENT}
CREATE TABLE empty (                    -- nothing traded; disjoint within a series, and from its gaps
    series_id INTEGER NOT NULL REFERENCES series (id),
    since_ms INTEGER NOT NULL, until_ms INTEGER NOT NULL,
    evidence TEXT NOT NULL,
    PRIMARY KEY (series_id, since_ms)
);

CREATE TABLE rejection (                -- since the directory began
    venue TEXT NOT NULL, reason TEXT NOT NULL, count INTEGER NOT NULL,
    PRIMARY KEY (venue, reason)
) WITHOUT ROWID;

CREATE TABLE day_file (
    path TEXT PRIMARY KEY,              -- below the data directory, with /
    digest TEXT,                        -- of the whole file; NULL before the first replacement is done
    pending TEXT                        -- digest of a replacement under way; until it is done either one is valid
) WITHOUT ROWID;
"""

_CANDLE = """
CREATE TABLE candle (                   -- accepted, durable, not yet in a day file
    series_id INTEGER NOT NULL REFERENCES series (id),
    open_ms INTEGER NOT NULL,
    open REAL NOT NULL, high REAL NOT NULL, low REAL NOT NULL, close REAL NOT NULL, volume REAL NOT NULL,
    quote_volume REAL, vwap REAL, trades_count INTEGER,
    source TEXT NOT NULL, ingest_ms INTEGER NOT NULL,
    checksum INTEGER NOT NULL,          -- of the others; SQLite has none
    PRIMARY KEY (series_id, open_ms)
);
"""
TABLES += _CANDLE

TABLES_SINCE_2 = f"""{_CONFIRMED}
CREATE TABLE listing (                  -- when the venue's market of a series began: earlier minutes are not expected
    series_id INTEGER PRIMARY KEY REFERENCES series (id),
    since_ms INTEGER NOT NULL,
    evidence TEXT NOT NULL
);

CREATE TABLE underived (                -- minutes that changed without a row in candle: aggregates follow at a flush
    id INTEGER PRIMARY KEY,
    series_id INTEGER NOT NULL REFERENCES series (id),
    since_ms INTEGER NOT NULL, until_ms INTEGER NOT NULL
);
CREATE INDEX underived_span ON underived (series_id, since_ms);

CREATE TABLE confirmation (             -- what comparing came to, in candles, since the directory began
    venue TEXT NOT NULL, outcome TEXT NOT NULL,     -- agreed | differed | replaced | unanswered
    count INTEGER NOT NULL,
    PRIMARY KEY (venue, outcome)
) WITHOUT ROWID;

CREATE TABLE venue_state (              -- what the running collector's table shows, every few seconds; for the tools
    venue TEXT PRIMARY KEY,
    at_ms INTEGER NOT NULL,
    status TEXT NOT NULL,               -- [OK] | [WAIT] | [DISC] | [STALE (Xm)]
    connected INTEGER NOT NULL,         -- 1 while every connection is up
    received INTEGER NOT NULL, saved INTEGER NOT NULL, reconnects INTEGER NOT NULL, rejected INTEGER NOT NULL
) WITHOUT ROWID;
"""

TABLES += TABLES_SINCE_2 + _SAMPLE + _SEALED + _DUE + _CHANGE


def _remade(table: str, statements: str, values: str) -> str:
    """SQL that gives *table* the shape of *statements*, and fills it with *values* of each row that it had.

    Not by ALTER TABLE, which writes a text of its own into the schema: the text is compared with ours at each start.
    """
    return (
        f"CREATE TEMP TABLE before AS SELECT * FROM {table}; DROP TABLE {table}; {statements}"
        f"INSERT INTO {table} SELECT {values} FROM temp.before; DROP TABLE temp.before;"
    )


_SINCE_3 = _remade(
    "candle",
    _CANDLE,
    "*, candle_checksum(series_id, open_ms, open, high, low, close, volume, quote_volume, vwap, trades_count, source,"
    " ingest_ms)",
)
_SINCE_4 = (
    _remade("series", _SERIES, "id, venue, symbol, timeframe, first_ms, mark_ms, last_candle_ms, expected, NULL")
    + _remade(
        "gap",
        _GAP,
        "id, series_id, since_ms, until_ms, state, reason, detail, first_seen_ms, attempts, last_error, 0, NULL, NULL,"
        " until_ms",
    )
    + _remade("revision", _REVISION, "id, at_ms, series_id, open_ms, stored, offered, outcome, 0")
    + _remade("confirmed", _CONFIRMED, "series_id, mark_ms, 0")
    + _ABSENT
)
# A simulated or accelerated clock was ahead of the wall's rightly.
_SINCE_5 = f"""{_REVISION_AT}{_SAMPLE}
INSERT OR REPLACE INTO meta SELECT '{UNMENDED}', 'True' WHERE NOT EXISTS (
    SELECT 1 FROM meta WHERE key = 'kind' AND value = 'simulated' OR key = 'speed' AND CAST(value AS REAL) != 1
);
"""
_SINCE_6 = f"""{_SEALED}
DROP INDEX IF EXISTS revision_due; DROP INDEX IF EXISTS sample_due;{_DUE}
INSERT INTO open_day WITH RECURSIVE day (id, at, mark) AS (
    SELECT id, first_ms - first_ms % {DAY}, mark_ms FROM series WHERE timeframe = '1m' AND first_ms < mark_ms
    UNION ALL SELECT id, at + {DAY}, mark FROM day WHERE at + {DAY} < mark
) SELECT id, at, 0 FROM day;
INSERT OR REPLACE INTO meta VALUES ('{UNSEALED}', 'True');
"""
NEW_EPOCH = f"INSERT OR REPLACE INTO meta VALUES ('{EPOCH}', lower(hex(randomblob(4))));"
# Where the feed begins, everybody knows of the gaps that there are.
_SINCE_7 = (
    _remade(
        "gap",
        _GAP,
        "id, series_id, since_ms, until_ms, state, reason, detail, first_seen_ms, attempts, last_error, not_before_ms,"
        " rest_since_ms, rest_until_ms, until_ms",
    )
    + _CHANGE
    + NEW_EPOCH
)

UPGRADES = {
    "1": TABLES_SINCE_2 + _SINCE_3 + _SINCE_4 + _SINCE_5 + _SINCE_6 + _SINCE_7,
    "2": _SINCE_3 + _SINCE_4 + _SINCE_5 + _SINCE_6 + _SINCE_7,
    "3": _SINCE_4 + _SINCE_5 + _SINCE_6 + _SINCE_7,
    "4": _SINCE_5 + _SINCE_6 + _SINCE_7,
    "5": _SINCE_6 + _SINCE_7,
    "6": _SINCE_7,
}
"""Format of an older journal -> what turns it into this one, in a transaction, :func:`candle_checksum` being known."""


def candle_checksum(row: Sequence[object]) -> int:
    """The checksum of a row of ``candle``, given its other columns: CRC-32 of the values as Python writes them.

    A row waits there for minutes, or as long as a disk is full; a flipped bit in it is noticed before it is believed.
    """
    series_id, open_ms, o, h, low, c, volume, quote, vwap, count, source, ingest_ms = row
    # SQLite gives back 5 as 5.0 and -0.0 as 0.0, in a column of reals. Nearly always all are floats; the sums are
    # written out, without a loop, because every minute of a backfill comes here three times.
    reals: tuple[object, ...]
    try:
        reals = (
            o + 0.0, h + 0.0, low + 0.0, c + 0.0, volume + 0.0,  # type: ignore[operator]
            quote if quote is None else quote + 0.0, vwap if vwap is None else vwap + 0.0,  # type: ignore[operator]
        )  # fmt: skip
    except TypeError:
        numbers = (o, h, low, c, volume, quote, vwap)
        reals = tuple(one + 0.0 if isinstance(one, (int, float)) else one for one in numbers)
    return zlib.crc32(repr((series_id, open_ms, *reals, count, source, ingest_ms)).encode())


def digest_of(content: bytes | memoryview | pa.Buffer) -> str:
    """The digest of a whole day file, kept in the table ``day_file``: BLAKE2b, 32 bytes, as hex.

    A flush notes it (:mod:`.flushing`); whether a file is believed by it is decided in ``Catalog.read``.
    """
    return hashlib.blake2b(content, digest_size=32).hexdigest()


def identity_content(kind: str, seed: object, speed: object, pivot: object) -> bytes:
    """What is in ``identity.json``."""
    return f"{json.dumps({'kind': kind, 'seed': seed, 'speed': speed, 'pivot': pivot})}\n".encode()


def identity_in(content: bytes) -> dict[str, str]:
    """The values in ``identity.json``, as ``meta`` has them; ``ValueError`` if they are none that we would write."""
    values = json.loads(content)
    if not isinstance(values, dict) or not isinstance(values.get("kind"), str):
        raise ValueError("it names no kind")
    kinds: dict[str, type | tuple[type, ...]] = {"kind": str, "seed": int, "speed": (int, float), "pivot": (int, float)}
    found = {key: values[key] for key in kinds if values.get(key) is not None}
    for key, value in found.items():
        if not isinstance(value, kinds[key]) or isinstance(value, bool):
            raise ValueError(f"{key} is {value!r}")
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{key} is {value!r}")
    return {key: str(value) for key, value in found.items()}
