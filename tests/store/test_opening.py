"""Others may leave things in the journal; what is changed in ours is refused; only damage is answered by rebuilding."""

from __future__ import annotations

import itertools
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from directories import BTC, bring_down, left_by_a_killed_collector, sql
from journals import LATE, NOON, at, candle, empty, journal_in, kinds, unsure
from sealing import collect, path, seal, sealed

from trio_candles import coverage, read_candles
from trio_candles.audit.walk import audit
from trio_candles.store.journal import Journal, JournalBroken, OtherFormat
from trio_candles.store.opening import NotAsWritten
from trio_candles.store.schema import FORMAT, JOURNAL, candle_checksum
from trio_candles.store.store import WrongDirectory, open_store


def run(root: Path, *statements: str) -> None:
    """Another program at the journal."""
    with closing(sqlite3.connect(root / JOURNAL, isolation_level=None)) as database:
        database.executescript(";".join(statements))


@pytest.fixture
def root(tmp_path):
    """A directory whose journal has a candle that waits, an empty minute and a gap."""
    with journal_in(tmp_path / JOURNAL) as journal:
        journal.expect([BTC], NOON, NOON)
        journal.commit([candle(0), unsure(1, 2), empty(2, 3)], LATE)
    return tmp_path


THEIRS = {
    "statistics": ["ANALYZE"],
    "a table": ["CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT)", "INSERT INTO notes VALUES (1, 'x')"],
    "a table with an index and a trigger": [
        "CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT)",
        "CREATE INDEX notes_text ON notes (text)",
        "CREATE TRIGGER noted AFTER INSERT ON notes BEGIN DELETE FROM notes WHERE id < NEW.id; END",
    ],
    "a view of ours": ["CREATE VIEW open_gaps AS SELECT * FROM gap WHERE state = 'open'"],
    "a table that refers to ours": ["CREATE TABLE tag (series_id INTEGER REFERENCES series (id), tag TEXT)"],
    "a name that an upgrade used once": ["CREATE TABLE before (x)"],
}


@pytest.mark.parametrize("version", [FORMAT, "6", "5", "4", "2"])
@pytest.mark.parametrize("what", THEIRS)
def test_what_others_leave_beside_our_tables_is_borne(root, what, version):
    run(root, *THEIRS[what])
    if version != FORMAT:
        bring_down(root / JOURNAL, version)
    theirs = "SELECT name, sql FROM sqlite_master WHERE name IN ('notes', 'notes_text', 'noted', 'open_gaps', 'tag')"
    before = sql(root, theirs)
    with open_store(root) as store:
        assert not (root / "quarantine").exists()
        store.expect([BTC], NOON, at(3))
        store.commit([candle(3)], LATE)
        store.flush(store.waiting())
    assert sql(root, theirs) == before
    assert read_candles(root, "okx", "BTC-USDT", on_gap="ignore").num_rows == 2
    assert coverage(root).column("state").to_pylist() == ["stored", "gap", "empty", "stored"]
    assert audit(root, now=lambda: LATE, running=lambda: False, pauses=()).violations == ()


CHANGED = {
    "an index on a table of ours": (["CREATE INDEX mine ON gap (reason)"], "index mine on gap: DROP INDEX mine"),
    "a trigger on a table of ours": (
        ["CREATE TRIGGER mine AFTER INSERT ON candle BEGIN DELETE FROM gap; END"],
        "trigger mine on candle: DROP TRIGGER mine",
    ),
    "a column": (["ALTER TABLE series ADD COLUMN note TEXT"], "table series is not as"),
    "a column's name": (["ALTER TABLE candle RENAME COLUMN high TO hihg"], "table candle is not as"),
    "no index": (["DROP INDEX gap_due"], "index gap_due is not as"),
    "another index of that name": (["DROP INDEX gap_due", "CREATE INDEX gap_due ON gap (reason)"], "index gap_due"),
    "no table": (["DROP TABLE series"], "table series is not as"),
    "no table of what it is": (["DROP TABLE meta"], "table meta is not as"),
    "a state that nobody knows": (["UPDATE gap SET state = 'postponed'"], "calls a gap 'postponed'"),
}


@pytest.mark.parametrize("what", CHANGED)
def test_what_is_changed_in_a_sound_journal_is_refused_with_a_remedy_and_left_as_it_is(root, what):
    statements, words = CHANGED[what]
    run(root, *statements)
    before = sql(root, "SELECT * FROM sqlite_master"), sql(root, "SELECT * FROM candle")
    for _ in range(2):
        with pytest.raises(WrongDirectory, match=words), open_store(root):
            pass
    assert (sql(root, "SELECT * FROM sqlite_master"), sql(root, "SELECT * FROM candle")) == before
    assert not (root / "quarantine").exists()


@pytest.mark.parametrize("statements", [["ANALYZE"], ["CREATE TABLE notes (text)", "VACUUM"]])
def test_nothing_is_lost_of_what_a_killed_collector_left_when_somebody_looks_into_it_first(tmp_path, statements):
    with left_by_a_killed_collector(tmp_path / "live", tmp_path / "killed", "s" * 60) as root:
        run(root, *statements)
        with open_store(root) as store:
            assert sql(root, "SELECT count(*) FROM candle") == [(30,)]
            store.flush(store.waiting())
        assert not (root / "quarantine").exists()
        assert read_candles(root, "okx", "BTC-USDT").num_rows == 60


def test_the_remedy_works(root):
    run(root, "CREATE INDEX mine ON gap (reason)")
    with pytest.raises(NotAsWritten, match="DROP INDEX mine"):
        Journal.open(root / JOURNAL, lambda series, minute: None)
    run(root, "DROP INDEX mine")
    with journal_in(root / JOURNAL) as journal:
        assert kinds(journal) == "CGE"


def test_a_reason_that_only_a_newer_version_knows_is_shown_as_it_is(root):
    run(root, "UPDATE gap SET reason = 'venue_on_holiday'")
    with open_store(root) as store:
        store.expect([BTC], NOON, at(5))
        store.commit([candle(1), candle(5)], LATE)
    run(root, "UPDATE gap SET reason = 'venue_on_holiday'")
    with open_store(root):
        pass
    assert not (root / "quarantine").exists()
    assert set(coverage(root).column("reason").to_pylist()) == {None, "venue_on_holiday"}


def test_a_waiting_candle_of_a_source_that_only_a_newer_version_knows_is_refused_and_kept(root):
    (row,) = sql(root, "SELECT * FROM candle")
    changed = [*row[:10], "merged", row[11]]
    sql(root, "UPDATE candle SET source = 'merged', checksum = ?", candle_checksum(changed))
    with pytest.raises(OtherFormat, match="'merged'"):
        Journal.open(root / JOURNAL, lambda series, minute: None)
    assert not (root / "quarantine").exists()


@pytest.mark.parametrize("text", ["CREATE TABLE gap (", "-- disjoint", "WHERE outcome = 'open", "CREATE INDEX gap_due"])
def test_a_bit_that_flipped_in_the_schema_is_damage_and_no_change(root, text):
    with closing(sqlite3.connect(root / JOURNAL)) as database:
        database.execute("PRAGMA journal_mode = DELETE")
    content = bytearray((root / JOURNAL).read_bytes())
    at_byte = content.index(text.encode()) + len(text) - 1
    content[at_byte] ^= 1
    (root / JOURNAL).write_bytes(content)
    with pytest.raises(JournalBroken):
        Journal.open(root / JOURNAL, lambda series, minute: None)


def test_a_table_in_the_place_of_one_that_an_upgrade_makes_is_refused_and_kept(root):
    bring_down(root / JOURNAL, "1")
    run(root, "CREATE TABLE listing (mine TEXT)", "INSERT INTO listing VALUES ('x')")
    with pytest.raises(WrongDirectory, match="cannot be brought up"), open_store(root):
        pass
    assert sql(root, "SELECT * FROM listing") == [("x",)]


# --- what a start looks at


def ruin(root: Path, table: str) -> None:
    """Write nonsense over the root page of *table*."""
    ((page, size),) = sql(root, "SELECT rootpage, page_size FROM sqlite_master, pragma_page_size WHERE name = ?", table)
    content = bytearray((root / JOURNAL).read_bytes())
    content[(page - 1) * size : page * size] = b"\xa5" * size
    (root / JOURNAL).write_bytes(content)


@pytest.fixture
def sealed_root(tmp_path):
    """A directory with a sealed day and an open one."""
    with open_store(tmp_path) as store:
        collect(store, "cec", "c")
        seal(store)
    assert sealed(tmp_path)
    return tmp_path


def test_a_start_does_not_read_what_is_sealed(sealed_root):
    ruin(sealed_root, "sealed")
    (sealed_root / path()).unlink()
    with open_store(sealed_root):
        assert not (sealed_root / "quarantine").exists()


@pytest.mark.skipif(sqlite3.sqlite_version_info < (3, 33), reason="it checks the whole file or nothing")
@pytest.mark.parametrize("table", ["gap", "empty", "series", "day_file", "open_day", "meta", "gap_due"])
def test_a_start_reads_what_is_not_sealed(sealed_root, table):
    ruin(sealed_root, table)
    with pytest.raises(JournalBroken):
        Journal.open(sealed_root / JOURNAL, lambda series, minute: None)


def test_whoever_meets_damage_among_sealed_days_leaves_word_and_the_next_start_mends_it(sealed_root):
    before = coverage(sealed_root)
    ruin(sealed_root, "sealed")
    with open_store(sealed_root) as store, pytest.raises(sqlite3.DatabaseError, match="malformed"):
        store.commit([candle(720)], at(720 + 2 * 1440))
    with open_store(sealed_root):
        assert list((sealed_root / "quarantine").glob("journal.sqlite3*"))
    assert coverage(sealed_root).slice(0, 4) == before.slice(0, 4)
    with open_store(sealed_root):  # and then it is sound
        assert len(list((sealed_root / "quarantine").iterdir())) == 1


def test_a_suspicion_that_the_check_does_not_confirm_is_forgotten(sealed_root):
    sql(sealed_root, "INSERT INTO meta VALUES ('suspect', 'True')")
    with open_store(sealed_root):
        pass
    assert sql(sealed_root, "SELECT count(*) FROM meta WHERE key = 'suspect'") == [(0,)]
    assert not (sealed_root / "quarantine").exists()


class Asked(Exception):
    """A stop was asked for."""


def test_a_stop_ends_a_long_statement_of_the_opening_and_the_next_start_finds_all_as_it_was(root):
    bring_down(root / JOURNAL, "3")
    run(
        root,
        "INSERT INTO gap WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 12000)"
        f" SELECT n + 9, 1, {NOON} - n * 120000, {NOON} - n * 120000 + 60000, 'open', 'lost', '', 0, 0, NULL FROM n",
        f"UPDATE series SET first_ms = {NOON} - 12000 * 120000",
    )
    gaps = sql(root, "SELECT since_ms, until_ms, reason FROM gap")
    stopped = []
    for number in itertools.count(1):
        heard = []

        def go_on(what="", done=0, of=0, heard=heard, number=number):
            heard.append(what)
            if len(heard) == number:
                raise Asked

        try:
            Journal.open(root / JOURNAL, lambda series, minute: None, go_on).close()
            break
        except Asked:
            stopped.append(heard[-1])
        assert sql(root, "PRAGMA journal_mode") == [("delete",)]
        assert sql(root, "SELECT value FROM meta WHERE key = 'format'") == [("3",)]
    assert min(stopped.count("Checking the journal"), stopped.count(f"Bringing the journal up to format {FORMAT}")) >= 2
    assert sql(root, "SELECT value FROM meta WHERE key = 'format'") == [(FORMAT,)]
    assert sql(root, "SELECT since_ms, until_ms, reason FROM gap") == gaps
