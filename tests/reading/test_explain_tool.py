"""``explain`` as a command: its exit codes, and what a person reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from directories import BTC, ETH, at, candle, make, sql
from stores import spoil

from trio_candles.candles.model import Attempt, Empty, Reason, Source, Unsure
from trio_candles.explain import WIDTH, main
from trio_candles.store.schema import JOURNAL
from trio_candles.store.store import open_store

NOW = at(30)
FROZEN = ("--speed", "1e-12", "--pivot", str(NOW / 1000))


@pytest.fixture
def root(tmp_path) -> Path:
    """Minute 0 is a candle, 1 is empty, 2 to 4 are a gap, 5 a candle that REST contradicts."""
    with open_store(tmp_path / "data") as store:
        store.expect([BTC], at(0), at(0))
        store.commit([candle(0), Empty(BTC, at(1), at(2), "ids 5 and 6")], at(2))
        store.commit([Unsure(BTC, at(2), at(5), Reason.DISCONNECTED, "lost"), candle(5)], at(12))
        store.commit([Attempt(BTC, at(2), at(5), "HTTP 503")], at(30))
        store.commit([candle(5, volume=9.0, source=Source.REST, ingest_time=at(20))], at(20))
    return tmp_path / "data"


def told(capsys, root: Path, minute: object, *options: str, symbol: str = "BTC-USDT") -> tuple[int, str, str]:
    code = main(["okx", symbol, str(minute), "--data-dir", str(root), *FROZEN, *options])
    return code, *capsys.readouterr()


def items(text: str) -> dict[str, str]:
    """The labelled lines, wrapped ones joined."""
    found: dict[str, str] = {}
    label = ""
    for line in text.splitlines()[2:]:
        if line.startswith("  ") and line[2:3].strip():
            label = line[2:14].strip()
            found[label] = line[14:].strip()
        elif label and line.strip():
            found[label] += f" {line.strip()}"
    return found


@pytest.mark.parametrize(
    ("minute", "code", "verdict"),
    [
        (0, 0, "CANDLE"), (1, 0, "EMPTY"), (2, 1, "GAP"), (5, 0, "CANDLE"), (-1, 1, "NOT EXPECTED"),
        (7, 1, "UNACCOUNTED"), (31, 1, "UNACCOUNTED"),
    ],
)  # fmt: skip
def test_what_is_known_is_0_and_everything_else_1(capsys, root, minute, code, verdict):
    found, out, err = told(capsys, root, at(minute))
    assert (found, err) == (code, "")
    assert out.splitlines()[0].endswith(f" UTC   {verdict}")


def test_a_gap_is_told_at_three_in_the_morning(capsys, root):
    code, out, _ = told(capsys, root, "2026-01-11T00:03")
    assert code == 1
    assert out.splitlines()[:2] == [
        "okx BTC-USDT   2026-01-11 00:03 UTC   GAP",
        "  there was no connection for the whole of the minute, or one was lost or made in it (lost)",
    ]
    lines = items(out)
    assert lines["gap"] == (
        "disconnected; 3 minutes, 2026-01-11 00:02 to 00:05; first seen 2026-01-11 00:12:00 UTC"
    )  # fmt: skip
    assert lines["attempts"] == "REST was asked once in vain; the last answer: HTTP 503"
    assert lines["REST"] == (
        "is asked about the gap not before 2026-01-11 00:30:30 UTC, in 30.0 s; but no collector runs"
    )  # fmt: skip
    assert "opened  3 minutes" in out
    assert "what would change it" in out


def test_a_revised_minute_shows_both_values(capsys, root):
    _, out, _ = told(capsys, root, at(5))
    assert f"stored open {candle(5).open!r}" in out
    assert "volume 9.0" in out
    assert "open: stored" in out
    assert " feed  the candle that is stored" in out
    assert "is asked about the revision" in out


def test_a_damaged_file_is_named_with_both_digests(capsys, root):
    with open_store(root) as store:
        store.flush(store.waiting())
    spoil(root / "okx/BTC-USDT/1m/2026-01-11.parquet")
    code, out, _ = told(capsys, root, at(0))
    assert (code, out.splitlines()[0][-7:]) == (1, "DAMAGED")
    assert "DOES NOT MATCH" in items(out)["file"]


def test_beside_a_collector_its_venue_is_told_as_well(capsys, root):
    with open_store(root) as store:
        store.journal.publish([("okx", "[DISC]", False, 0, 0, 9, 0)], {}, at(29))
        _, out, _ = told(capsys, root, at(2))
    assert items(out)["collector"].startswith("runs; the venue was [DISC] at 2026-01-11 00:29:00 UTC")
    assert "no collector runs" not in out


def test_nothing_in_the_ledger_gives_orders_to_a_terminal_and_no_line_is_too_long(capsys, root):
    sql(root, "UPDATE gap SET detail = ?, last_error = ?", "\x1b[2J\nGAP", "\u202e" + "x" * 300)
    sql(root, "UPDATE gap_event SET detail = ?", "\x1b[2J")
    _, out, _ = told(capsys, root, at(3))
    assert "\x1b" not in out
    assert "\u202e" not in out
    assert "\nGAP" not in out
    assert max(map(len, out.splitlines())) <= WIDTH


def test_json_is_one_document_and_nothing_else(capsys, root):
    code, out, err = told(capsys, root, at(0), "--json")
    assert (code, err, out.count("\n")) == (0, "", 1)
    assert json.loads(out)["verdict"] == "candle"


def test_a_wrong_series_names_the_nearest_and_is_usage(capsys, root):
    make(root, "s", series=ETH)
    code, out, err = told(capsys, root, at(0), "--json", symbol="BTC-USDC")
    assert (code, out) == (2, "")
    assert err == "'okx BTC-USDC' is not there; did you mean 'okx BTC-USDT'?\n"


@pytest.mark.parametrize("minute", ["yesterday", "1768089600", "2026-13-01", "-5"])
def test_a_minute_that_is_none_is_usage(capsys, root, minute):
    with pytest.raises(SystemExit) as ended:
        told(capsys, root, minute)
    assert ended.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_a_ledger_that_cannot_be_read_is_1_and_a_directory_that_is_not_there_2(capsys, tmp_path):
    assert told(capsys, tmp_path / "absent", at(0))[0] == 2
    (tmp_path / JOURNAL).write_bytes(b"nonsense" * 1000)
    code, out, err = told(capsys, tmp_path, at(0), "--json")
    assert code == 1
    assert json.loads(out) == {"known": False, "error": err.strip()}


def test_the_directory_may_be_the_configurations(capsys, root, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(f"data_dir: {json.dumps(str(root))}\nvenues: {{okx: {{symbols: [BTC-USDT]}}}}\n")
    assert main(["okx", "BTC-USDT", str(at(0)), "--config", str(config)]) == 0
    assert "CANDLE" in capsys.readouterr().out
    assert main(["okx", "BTC-USDT", str(at(0)), "--config", str(tmp_path / "absent.yaml")]) == 2
