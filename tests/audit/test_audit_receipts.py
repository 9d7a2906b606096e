"""With receipts an audit decodes what has changed, and hides nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from handmade import DAY0, DAY1, FILE0, FILE1, FIRST, MARK, NOW, OKX, Directory, folded, minutes, row, run

from trio_candles.audit import Report, Selection
from trio_candles.audit.account import Day
from trio_candles.audit.bits import span_bits
from trio_candles.audit.books import Account
from trio_candles.audit.files import Cell, Content, read_content
from trio_candles.audit.ledger import read_ledger
from trio_candles.audit.receipts import Found, NotReceipts, Receipts, seal_of, written
from trio_candles.candles.documents import to_json
from trio_candles.candles.model import DAY, MINUTE, Series, day_name

FIVES = [
    folded([row(time + at * MINUTE) for at in range(2 if time == DAY1 + 25 * MINUTE else 0, 5)], time)
    for time in range(DAY1, MARK, 5 * MINUTE)
    if not DAY1 + 10 * MINUTE <= time < DAY1 + 25 * MINUTE
]
AGGREGATES = f"okx/BTC-USDT/5m/{day_name(DAY1)}.parquet"
LETTERS = "." * 1380 + "c" * 50 + "e" * 10
ROWS = [row(DAY0 + at * MINUTE) for at in range(1380, 1430)]
WHY = ["not_collected", "", DAY1, 3, None]
CELLS = 4


class Audits:
    """Audits of one directory, each with the receipts of the last."""

    def __init__(self, directory: Directory, file: Path) -> None:
        self.directory = directory
        self.file = file
        self.believed = 0

    def __call__(self, **options: object) -> Report:
        receipts = Receipts.read(self.file)
        report = self.directory.audit(receipts=receipts, **options)
        self.file.write_text(receipts.text())
        self.believed = receipts.believed
        return report


@pytest.fixture
def audits(sound: Directory, tmp_path: Path) -> Audits:
    """The sound directory, with aggregates and a sealed day, audited once: four cells have a receipt."""
    sound.sql("DELETE FROM gap WHERE state = 'unfillable'")
    sound.empty(1, DAY1 + 25 * MINUTE, DAY1 + 27 * MINUTE)
    sound.write(AGGREGATES, FIVES)
    sound.sql(f"DELETE FROM day_file WHERE path = '{FILE0}'")
    sound.seal(1, DAY0, ROWS, LETTERS)
    made = Audits(sound, tmp_path / "receipts")
    assert made().violations == ()
    assert made.believed == 0
    return made


def test_what_has_not_changed_is_not_decoded_again_and_the_report_is_the_same(audits: Audits) -> None:
    plain = audits.directory.audit()
    report = audits()
    assert audits.believed == CELLS
    assert to_json(report.document()) == to_json(plain.document())
    assert report.series == plain.series
    before = audits.file.read_text()
    audits()
    assert audits.file.read_text() == before


def flip(audits: Audits, path: str) -> None:
    file = audits.directory.root / path
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)


DAMAGE: dict[str, tuple[Callable[[Audits], object], str]] = {
    "a flipped bit": (lambda a: flip(a, FILE1), "checksum"),
    "a flipped bit in a sealed day": (lambda a: flip(a, FILE0), "checksum"),
    "a flipped bit in aggregates": (lambda a: flip(a, AGGREGATES), "checksum"),
    "a removed file": (lambda a: (a.directory.root / FILE1).unlink(), "silent_gap"),
    "a removed sealed file": (lambda a: (a.directory.root / FILE0).unlink(), "silent_gap"),
    "removed aggregates": (lambda a: (a.directory.root / AGGREGATES).unlink(), "missing_aggregate"),
    "another digest": (lambda a: a.directory.sql("UPDATE day_file SET digest = 'x'"), "checksum"),
    "an empty minute under an aggregate that is unfillable now": (
        lambda a: (
            a.directory.sql(f"DELETE FROM empty WHERE since_ms = {DAY1 + 25 * MINUTE}"),
            a.directory.gap(1, DAY1 + 25 * MINUTE, DAY1 + 27 * MINUTE, "unfillable"),
        ),
        "wrong_aggregate",
    ),
    "a sealed row with another evidence": (
        lambda a: reseal(a, LETTERS, empty="another"), "contradiction",
    ),
    "a gap that is forgotten": (lambda a: a.directory.sql("DELETE FROM gap WHERE state = 'open'"), "silent_gap"),
    "a candle that is called empty": (lambda a: a.directory.empty(1, DAY1, DAY1 + MINUTE), "contradiction"),
    "a gap that ends earlier": (
        lambda a: a.directory.sql("UPDATE gap SET until_ms = until_ms - 300000 WHERE state = 'open'"), "silent_gap",
    ),
    "a timeframe that must be there": (
        lambda a: a.directory.sql("INSERT INTO meta VALUES ('timeframes', '15m')"), "missing_aggregate",
    ),
    "a sealed day that is forgotten": (lambda a: a.directory.sql("DELETE FROM sealed"), "ledger_corrupt"),
    "a candle that waits for a sealed day": (lambda a: a.directory.wait(1, [ROWS[0]]), "contradiction"),
    "a sealed row that says something else": (
        lambda a: reseal(a, LETTERS.replace("e", "u"), empty=None, unfillable=WHY), "contradiction",
    ),
    "new aggregates that are wrong": (
        lambda a: a.directory.write(AGGREGATES, [FIVES[0] | {"high": 1e6}, *FIVES[1:]]), "wrong_aggregate",
    ),
    "new minutes under old aggregates": (
        lambda a: a.directory.write(
            FILE1, [row(t, high=1e5) for t in minutes(DAY1, MARK) if not DAY1 + 600_000 <= t < DAY1 + 1_620_000]
        ),
        "wrong_aggregate",
    ),
}  # fmt: skip


def reseal(audits: Audits, told: str, **evidence: object) -> None:
    """The ledger's row says *told* now; the file, and its digest, stay."""
    audits.directory.sql("DELETE FROM sealed")
    audits.directory.seal(1, DAY0, ROWS, LETTERS, told=told, **evidence)


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_receipt_hides_nothing_that_is_wrong(audits: Audits, damage: str) -> None:
    do, kind = DAMAGE[damage]
    do(audits)
    plain = audits.directory.audit()
    assert kind in {one.kind for one in plain.violations}
    for _ in range(2):  # nor was a receipt given to what was wrong
        assert audits().violations == plain.violations
    assert audits.believed < CELLS


def test_what_is_mended_gets_a_receipt_again(audits: Audits) -> None:
    content = (audits.directory.root / FILE1).read_bytes()
    flip(audits, FILE1)
    assert not audits().ok
    (audits.directory.root / FILE1).write_bytes(content)
    assert audits().ok
    assert audits.believed == CELLS - 1
    assert audits().ok
    assert audits.believed == CELLS


def test_a_file_in_the_place_of_another_is_decoded_whatever_its_digest(audits: Audits) -> None:
    """The receipt of a digest is that of its place: yesterday's file, listed as today's."""
    root = audits.directory.root
    (root / "kraken/BTC-USD/1m" / f"{day_name(DAY1)}.parquet").write_bytes(
        (root / "kraken/BTC-USD/1m" / f"{day_name(DAY0)}.parquet").read_bytes()
    )
    audits.directory.list(f"kraken/BTC-USD/1m/{day_name(DAY1)}.parquet")
    assert "wrong_partition" in {one.kind for one in audits().violations}


@pytest.mark.parametrize("other", [Cell(*OKX, DAY1), Cell("okx", "ETH-USDT", DAY0), Cell("kraken", "BTC-USDT", DAY0)])
def test_a_receipt_is_of_its_own_cell_even_where_the_files_are_the_same(other: Cell) -> None:
    account = Account(Series(*OKX), DAY0, DAY1 + DAY, expected=True)
    one, another = (Day(cell, "BTC-USDT", account) for cell in (Cell(*OKX, DAY0), other))
    found, contents = Found([("1m", 0, None, None)], 0), {"1m": Content("00")}
    seals = [seal_of(day, found, contents, (), DAY1 + DAY) for day in (one, one, another)]
    assert seals[0] == seals[1] != seals[2]


def forged(audits: Audits, bits: int) -> None:
    """A receipt that says that the file of the second day has the minutes *bits*, with the right seal."""
    ledger = read_ledger(audits.directory.root, lambda: NOW)
    account = ledger.accounts[OKX]
    day = Day(Cell(*OKX, DAY1), "BTC-USDT", account, due=span_bits(FIRST, MARK, DAY1))
    found = Found([("1m", bits.bit_count(), DAY1, MARK - MINUTE), ("5m", len(FIVES), DAY1, MARK - 5 * MINUTE)], bits)
    found.put_into(day)
    contents = {
        name: read_content(str(audits.directory.root / path)) for name, path in (("1m", FILE1), ("5m", AGGREGATES))
    }
    line = written(day, found, seal_of(day, found, contents, (), account.end(False, NOW)))
    receipts = Receipts.read(audits.file)
    receipts.give(day.cell, line, believed=False)
    audits.file.write_text(receipts.text())


STORED = span_bits(FIRST, MARK, DAY1) & ~span_bits(DAY1 + 10 * MINUTE, DAY1 + 27 * MINUTE, DAY1)


@pytest.mark.parametrize(
    ("bits", "kind"),
    [
        (STORED, None),
        (STORED | 1 << 12, "contradiction"),
        (STORED | 1 << 22, "contradiction"),
        (STORED & ~1, "silent_gap"),
    ],
    ids=["true", "a gap called stored", "an empty minute called stored", "a candle left out"],
)
def test_minutes_that_are_not_the_ledgers_are_not_taken_from_a_receipt(
    audits: Audits, bits: int, kind: str | None
) -> None:
    """They are held against the ledger like rows; and what looks wrong is decoded."""
    content = audits.file.read_text()
    forged(audits, bits)
    assert {one.kind for one in audits(pauses=()).violations} == ({kind} if kind else set())
    assert audits.believed == CELLS
    audits.file.write_text(content)
    forged(audits, bits)
    assert audits().violations == ()
    assert sorted(audits.file.read_text().splitlines()) == sorted(content.splitlines())


def test_a_row_in_the_future_is_found_whatever_the_clock_was(audits: Audits) -> None:
    plain = audits.directory.audit(now=MARK - 30 * MINUTE)
    assert {one.kind for one in plain.violations} == {"invalid_candle"}
    assert audits(now=MARK - 30 * MINUTE).violations == plain.violations


def test_only_what_is_selected_is_brought_up_to_date(audits: Audits) -> None:
    audits(selection=Selection(venue="kraken"))
    assert audits.believed == 2
    audits()
    assert audits.believed == CELLS


def test_a_timeframe_that_is_asked_for_is_looked_for(audits: Audits) -> None:
    assert audits(timeframes=("15m",)).violations == audits.directory.audit(timeframes=("15m",)).violations != ()


# --- the file


def test_without_a_ledger_there_are_no_receipts(audits: Audits) -> None:
    (audits.directory.root / "journal.sqlite3").unlink()
    assert not audits().ok
    assert audits.believed == 0


@pytest.mark.parametrize("cut", [1, 30, 300, 600])
def test_broken_receipts_are_ignored_and_written_anew(audits: Audits, cut: int) -> None:
    content = audits.file.read_text()
    audits.file.write_text(content[:-cut])
    assert audits().ok
    assert (audits.believed == CELLS) == (cut == 1)
    assert sorted(audits.file.read_text().splitlines()) == sorted(content.splitlines())


def test_no_flipped_bit_in_the_receipts_changes_the_answer(audits: Audits) -> None:
    plain, content = audits.directory.audit(), audits.file.read_bytes()
    for at in range(len(content.partition(b"\n")[0]), len(content), 41):
        broken = bytearray(content)
        broken[at] ^= 1
        audits.file.write_bytes(broken)
        assert to_json(audits().document()) == to_json(plain.document()), at


@pytest.mark.parametrize("content", ["a diary", "SQLite format 3", "trio_candle"])
def test_a_file_that_holds_something_else_is_not_overwritten(
    sound: Directory, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    file = tmp_path / "receipts"
    file.write_text(content)
    with pytest.raises(NotReceipts):
        Receipts.read(file)
    code, out, err = run(capsys, "--data-dir", str(sound.root), "--receipts", str(file))
    assert (code, out) == (2, "")
    assert "something else" in err
    assert file.read_text() == content


def test_the_command_keeps_receipts_outside_the_data_directory(
    sound: Directory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "receipts"
    file.touch()
    code, _, _ = run(capsys, "--data-dir", str(sound.root), "--json", "--receipts", str(file))
    assert code == 0
    assert len(Receipts.read(file).given) == CELLS
    content = file.read_bytes()
    file.write_bytes(content[:-30])
    code, _, _ = run(capsys, "--data-dir", str(sound.root), "--json", "--receipts", str(file))
    assert code == 0
    assert file.read_bytes() == content
    inside = sound.root / "receipts"
    code, _, err = run(capsys, "--data-dir", str(sound.root), "--receipts", str(inside))
    assert code == 2
    assert "data directory" in err
    assert not inside.exists()
    code, _, err = run(capsys, "--data-dir", str(sound.root), "--receipts", str(file), "--html", str(file))
    assert code == 2
    assert file.read_bytes() == content


def test_receipts_that_cannot_be_read_are_counted(
    sound: Directory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "receipts"
    run(capsys, "--data-dir", str(sound.root), "--receipts", str(file))
    lines = file.read_text().splitlines()
    file.write_text("\n".join(lines[:3]))
    code, _, err = run(capsys, "--data-dir", str(sound.root), "--receipts", str(file))
    assert code == 0
    assert "2 receipts cannot be read" in err
    assert sorted(file.read_text().splitlines()) == sorted(lines)
