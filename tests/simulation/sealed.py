"""Sealed days, read with SQL, zlib and JSON and nothing of the product's; and what must hold of each.

A day of a series is sealed or open. A sealed day's minutes are letters, in the ledger's row and in the metadata of its
file of minutes, and both say the same::

    .  not expected    c  a row of the file    e  empty    u  unfillable    g  a gap, of a series that has left
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import zlib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

import attrs
import pyarrow as pa
import pyarrow.parquet as pq

from simulation.trace import Broken

__all__ = [
    "DAY",
    "Day",
    "Days",
    "Key",
    "Minutes",
    "account_in",
    "days_of",
    "judge_days",
    "judge_kept",
    "judge_sealing",
    "minutes_of",
    "path_of",
]

MINUTE, DAY, HOUR = 60_000, 86_400_000, 3_600_000
KEY = b"trio_candles.account"
WORDS = {"e": "empty", "u": "unfillable", "g": "gap"}
"""Letter → the key of its evidence."""

Key = tuple[str, str, int]
"""Venue, symbol, day."""
Minutes = dict[Key, str]
"""What each minute of sealed days is, a letter each."""


@attrs.frozen
class Day:
    """A row of ``sealed``, or the account in a file of minutes (which has no digests and no shape)."""

    venue: str
    symbol: str
    day: int
    letters: str
    evidence: Mapping[str, Any]
    digests: Mapping[str, str] = attrs.field(factory=dict)
    shape: tuple[str, ...] = ()

    @property
    def key(self) -> Key:
        return self.venue, self.symbol, self.day

    @property
    def name(self) -> str:
        return f"{self.venue} {self.symbol} {self.day}"

    def times(self, letters: str) -> list[int]:
        """The minutes that are one of *letters*."""
        return [self.day + number * MINUTE for number, letter in enumerate(self.letters) if letter in letters]

    def spans(self, letter: str) -> Iterator[tuple[int, int]]:
        """Runs of *letter*."""
        for found, run in groupby(range(len(self.letters)), lambda number: self.letters[number]):
            if found == letter:
                since = next(run)
                yield self.day + since * MINUTE, self.day + (since + 1 + sum(1 for _ in run)) * MINUTE


Days = dict[Key, Day]


def path_of(venue: str, symbol: str, day: int, timeframe: str = "1m") -> str:
    """Where a day file lies, below the data directory."""
    name = datetime.fromtimestamp(day / 1000, UTC).date().isoformat()
    return f"{venue}/{symbol.replace('/', '-')}/{timeframe}/{name}.parquet"


def days_of(database: sqlite3.Connection, *, damaged: set[Key] | None = None) -> Days:
    """Every sealed day of the ledger; a row that is not what was written is added to *damaged*, or is broken."""
    found: Days = {}
    for venue, symbol, day, shape, minutes, detail, unknown, checksum in database.execute(
        "SELECT venue, symbol, day_ms, shape, minutes, detail, unknown, checksum"
        " FROM sealed JOIN series ON series.id = series_id ORDER BY 1, 2, 3"
    ):
        values = (venue, symbol, symbol.replace("/", "-"), day, shape, minutes, detail, unknown)
        if zlib.crc32(repr(values).encode()) != checksum:
            if damaged is None:
                raise Broken("sealed", f"{venue} {symbol} {day}: the row is not what its checksum says")
            damaged.add((venue, symbol, day))
            continue
        letters, evidence = zlib.decompress(minutes).decode(), json.loads(zlib.decompress(detail))
        digests = evidence.pop("digests")
        one = Day(venue, symbol, day, letters, evidence, digests, tuple(shape.split()))
        judge_account(one)
        if letters.count("g") != unknown:
            raise Broken("sealed", f"{one.name}: {letters.count('g')} gaps, and the row says {unknown}")
        found[one.key] = one
    return found


def account_in(content: bytes) -> Day | None:
    """The account in the metadata of a file of minutes, held against its rows; ``None`` if it carries none."""
    file = pq.ParquetFile(pa.BufferReader(content))
    text = (file.metadata.metadata or {}).get(KEY)
    if text is None:
        return None
    values = json.loads(text)
    names = [values.pop(name) for name in ("venue", "symbol", "folder", "day", "minutes")]
    one = Day(names[0], names[1], names[3], names[4], values)
    judge_account(one)
    if names[2] != names[1].replace("/", "-"):
        raise Broken("sealed", f"{one.name}: its folder is said to be {names[2]}")
    rows = file.read(columns=["open_time_ms"], use_threads=False).column(0).to_pylist()
    if rows != one.times("c"):
        differ = sorted({*rows} ^ {*one.times("c")})
        raise Broken("sealed", f"{one.name}: the account in the file and its rows differ at {differ[:4]}")
    return one


def is_as_sealed(one: Day, content: bytes) -> bool:
    """Whether *content*, of the day's file of minutes, is what was sealed."""
    return hashlib.blake2b(content, digest_size=32).hexdigest() == one.digests.get("1m")


def judge_account(one: Day) -> None:
    """A letter for each minute, and evidence, in words, of each kind that occurs and of no other."""
    if len(one.letters) != 1440 or set(one.letters) - set(".ceug") or not set(one.letters) - {"."}:
        raise Broken("sealed", f"{one.name}: no letter for each minute: {set(one.letters)}")
    if "." in one.letters.strip("."):
        raise Broken("sealed", f"{one.name}: minutes between expected ones are said not to be expected")
    for letter, word in WORDS.items():
        told = one.evidence[word]
        words = told if isinstance(told, str) or told is None else told[0]
        if (letter in one.letters) != bool(words):
            raise Broken("evidence", f"{one.name}: of {word} minutes it says {told!r}")
    if not isinstance(one.evidence["compared"], bool):
        raise Broken("evidence", f"{one.name}: compared is {one.evidence['compared']!r}")


def minutes_of(database: sqlite3.Connection, files: Mapping[str, bytes | None]) -> Minutes:
    """What each minute of every day that has an account in its file is, by the ledger: *files* by their paths."""
    days = days_of(database, damaged=set())
    return {
        key: one.letters
        for key, one in days.items()
        if (content := files.get(path_of(*key))) and is_as_sealed(one, content) and account_in(content)
    }


def judge_days(database: sqlite3.Connection, files: Mapping[str, bytes | None], damaged: set[Key]) -> Days:
    """Each day of what is accounted for is sealed or open; what is known of a sealed day is in its row and nowhere
    else, and in its file. Rows in *damaged* are left out: nobody has met them yet.
    """
    met: set[Key] = set()
    sealed = days_of(database, damaged=met)
    if met - damaged:
        raise Broken("sealed", f"rows are not what their checksums say: {sorted(met - damaged)[:3]}")
    there = [*sealed, *met]
    opened = set(database.execute("SELECT venue, symbol, day_ms FROM open_day JOIN series ON series.id = series_id"))
    if both := opened.intersection(there):
        raise Broken("sealed", f"days are open and sealed: {sorted(both)[:3]}")
    wanted = {
        (venue, symbol, day)
        for venue, symbol, first, mark in database.execute(
            "SELECT venue, symbol, first_ms, mark_ms FROM series WHERE timeframe = '1m' AND first_ms < mark_ms"
        )
        for day in range(first // DAY * DAY, mark, DAY)
    }
    if differ := wanted ^ {*opened, *there}:
        raise Broken(
            "sealed", f"days are accounted for, and neither open nor sealed, or the reverse: {sorted(differ)[:3]}"
        )
    expected = {tuple(row) for row in database.execute("SELECT venue, symbol FROM series WHERE expected = 1")}
    for one in sealed.values():
        _judge_alone(database, one)
        if "g" in one.letters and (one.venue, one.symbol) in expected:
            raise Broken("sealed", f"{one.name}: has gaps, and the series is expected: {one.times('g')[:3]}")
        _judge_file(database, files, one)
    return sealed


def _judge_alone(database: sqlite3.Connection, one: Day) -> None:
    """Nothing else in the ledger speaks of the day's minutes, and no candle waits for its file."""
    of_day = (one.venue, one.symbol, one.day + DAY, one.day)
    for table, since, until in (
        ("gap", "since_ms", "until_ms"), ("empty", "since_ms", "until_ms"),
        ("candle", "open_ms", f"open_ms + {MINUTE}"),
    ):  # fmt: skip
        (count,) = database.execute(
            f"SELECT count(*) FROM {table} JOIN series ON series.id = series_id"
            f" WHERE venue = ? AND symbol = ? AND {since} < ? AND {until} > ?", of_day,
        ).fetchone()  # fmt: skip
        if count:
            raise Broken("sealed", f"{one.name}: {count} rows of {table} are of the sealed day")


def _judge_file(database: sqlite3.Connection, files: Mapping[str, bytes | None], one: Day) -> None:
    path = path_of(*one.key)
    row = database.execute("SELECT digest, pending FROM day_file WHERE path = ?", (path,)).fetchone()
    if row is not None:
        if row[0] is not None or row[1] is None:
            raise Broken("sealed", f"{one.name}: the digest of its file is in two places")
        return  # it is being replaced
    content = files.get(path)
    if content is None or "account" not in one.shape or not is_as_sealed(one, content):
        return  # lost or damaged, and not found yet; or all of it is empty, and the file is still to come
    told = account_in(content)
    if told is not None and (told.letters, told.evidence) != (one.letters, one.evidence):
        raise Broken("sealed", f"{one.name}: ledger and file differ: {one.evidence}, {told.evidence}")


def judge_sealing(database: sqlite3.Connection, files: Mapping[str, bytes | None], one: Day, now: int) -> None:
    """The contract's 5.7, of a day sealed just now; *now* is the latest that a believed clock may show."""
    if now < one.day + DAY + HOUR:
        raise Broken("sealed too early", f"{one.name}: at {now}")
    of_series = (one.venue, one.symbol)
    id_, first, mark, expected = database.execute(
        "SELECT id, first_ms, mark_ms, expected FROM series WHERE venue = ? AND symbol = ? AND timeframe = '1m'",
        of_series,
    ).fetchone()
    until = min(mark, one.day + DAY)
    if one.times("ceug") != list(range(max(first, one.day), until, MINUTE)):
        raise Broken("sealed", f"{one.name}: other minutes than those of [{first}, {mark}) are expected")
    if expected and (until < one.day + DAY or "g" in one.letters):
        raise Broken("sealed", f"{one.name}: not all of it is known: {one.times('g')[:3]}, up to {mark}")
    (doubts,) = database.execute(
        "SELECT count(*) FROM revision WHERE series_id = ? AND open_ms >= ? AND open_ms < ? AND outcome = 'open'",
        (id_, one.day, one.day + DAY),
    ).fetchone()
    if doubts:
        raise Broken("sealed", f"{one.name}: {doubts} revisions are open")
    content = files.get(path_of(*one.key))
    if content is None or account_in(content) is None:
        raise Broken("sealed", f"{one.name}: its file carries no account")
    (compared,) = database.execute("SELECT max(mark_ms) FROM confirmed WHERE series_id = ?", (id_,)).fetchone()
    agreed = compared is not None and "c" not in one.letters[max(0, (compared - one.day) // MINUTE) :]
    if one.evidence["compared"] and not agreed:
        raise Broken("sealed", f"{one.name}: said to be compared, and was up to {compared} only")
    if not agreed and now < one.day + 2 * DAY:
        raise Broken("sealed", f"{one.name}: compared up to {compared} only, and nobody waited for a day")


def judge_kept(database: sqlite3.Connection, files: Mapping[str, bytes | None], kept: Minutes) -> None:
    """After the journal was lost: each minute of *kept* is what it was, or (its day being open) a candle."""
    sealed = days_of(database, damaged=set())
    for key, letters in kept.items():
        now = sealed[key].letters if key in sealed else _open_letters(database, files, key)
        differ = [
            number for number in range(1440) if letters[number] != "." and now[number] not in (letters[number], "c")
        ]
        if differ:
            found = {(letters[number], now[number]) for number in differ}
            raise Broken("forgotten", f"{key}: {len(differ)} minutes of a sealed day are not what they were: {found}")


def _open_letters(database: sqlite3.Connection, files: Mapping[str, bytes | None], key: Key) -> str:
    venue, symbol, day = key
    letters = ["."] * 1440
    for letter, query in (
        ("e", "SELECT since_ms, until_ms FROM empty"),
        ("u", "SELECT since_ms, until_ms FROM (SELECT * FROM gap WHERE state = 'unfillable')"),
        ("g", "SELECT since_ms, until_ms FROM (SELECT * FROM gap WHERE state = 'open')"),
        ("c", f"SELECT open_ms, open_ms + {MINUTE} FROM candle"),
    ):
        for since, until in database.execute(
            f"{query} JOIN series ON series.id = series_id WHERE venue = ? AND symbol = ?", (venue, symbol)
        ):
            for minute in range(max(since, day), min(until, day + DAY), MINUTE):
                letters[(minute - day) // MINUTE] = letter
    content = files.get(path_of(*key))
    if content:
        column = pq.read_table(pa.BufferReader(content), columns=["open_time_ms"], use_threads=False).column(0)
        for minute in column.to_pylist():
            letters[(minute - day) // MINUTE] = "c"
    return "".join(letters)
