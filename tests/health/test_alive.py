"""``check --alive``: whether a collector lives, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from directories import BTC, at, bring_down, make

from trio_candles.candles.model import Millis, Reason, Unsure
from trio_candles.health.alive import look_alive
from trio_candles.health.check import main
from trio_candles.store.schema import JOURNAL
from trio_candles.store.store import open_store

NOW = at(30)


@pytest.fixture
def root(tmp_path) -> Path:
    return tmp_path / "data"


def published(root: Path, ago: float = 0, *, stopped: float | None = None) -> None:
    """A collector of one series, of which nothing is known, published its state so many seconds ago; and stopped."""
    with open_store(root) as store:
        store.claim("real", seed=None, speed=1.0, pivot=0.0)
        store.expect([BTC], at(0), at(0))
        store.commit([Unsure(BTC, at(0), at(20), Reason.DISCONNECTED)], NOW)
        store.journal.publish([("okx", "[DISC]", False, 0, 0, 9, 0)], {}, NOW - round(ago * 1000))
        if stopped is not None:
            store.stopped(NOW - round(stopped * 1000))


def asked(root: Path, capsys, *options: str):
    code = main(["--alive", "--data-dir", str(root), "--speed", "1e-12", "--pivot", str(NOW / 1000), *options])
    return code, *capsys.readouterr()


@pytest.mark.parametrize(("ago", "code"), [(0, 0), (29.9, 0), (30, 0), (30.1, 1), (86_400, 1), (-59, 0), (-61, 1)])
def test_a_collector_lives_up_to_30_seconds_after_it_published_its_state(root, capsys, ago, code):
    published(root, ago)
    found, out, err = asked(root, capsys)
    assert (found, err) == (code, "")
    assert out.startswith("OK: " if code == 0 else "NOT ALIVE: ")


def test_an_outage_of_every_venue_and_a_series_without_a_candle_are_none_of_the_question(root, capsys):
    published(root, 3)
    assert main(["--data-dir", str(root), "--speed", "1e-12", "--pivot", str(NOW / 1000)]) == 1  # nothing is fresh
    capsys.readouterr()
    assert asked(root, capsys) == (0, "OK: the collector published its state 3s ago\n", "")


def test_one_that_has_stopped_in_good_order_does_not_live(root, capsys):
    published(root, 5, stopped=4)
    assert asked(root, capsys) == (1, "NOT ALIVE: the collector stopped 4s ago\n", "")


def test_one_that_was_started_again_lives(root, capsys):
    published(root, 50, stopped=40)
    published(root, 2)
    assert asked(root, capsys)[0] == 0


@pytest.mark.parametrize(("ago", "alive"), [(4_999_000, True), (5_001_000, False)])
def test_a_fast_clock_gives_the_disk_five_seconds_of_the_wall(root, ago, alive):
    published(root, 0)
    assert look_alive(root, lambda: Millis(NOW + ago), 1000.0).ok is alive


@pytest.mark.parametrize("older", ["1", "4", "6"])
def test_a_journal_of_an_earlier_version_is_read(root, capsys, older):
    published(root, 5)
    bring_down(root / JOURNAL, older)
    assert asked(root, capsys)[0] == (1 if older == "1" else 0)  # the first format had no such table


def test_a_directory_in_which_no_collector_was_is_not_alive(root, capsys):
    root.mkdir()
    assert asked(root, capsys) == (1, "NOT ALIVE: no collector has published its state there\n", "")
    make(root, "ss")
    assert asked(root, capsys)[0] == 1


def test_a_journal_that_makes_no_sense_is_not_alive_and_no_traceback(root, capsys):
    root.mkdir()
    (root / JOURNAL).write_bytes(b"nonsense" * 1000)
    code, out, err = asked(root, capsys)
    assert (code, err) == (1, "")
    assert "the journal cannot be read" in out


def test_the_document(root, capsys):
    published(root, 5)
    code, out, _ = asked(root, capsys, "--json")
    assert code == 0
    assert json.loads(out) == {
        "ok": True, "checked_at_ms": NOW, "data_dir": str(root), "published_at_ms": NOW - 5000,
        "published_age_seconds": 5.0, "stopped_at_ms": None, "detail": "the collector published its state 5s ago",
    }  # fmt: skip


def test_a_directory_that_is_not_there_is_usage_unless_a_configuration_names_it(tmp_path, root, capsys):
    assert asked(root, capsys) == (2, "", f"{root}: no such directory\n")
    config = tmp_path / "config.yaml"
    config.write_text(f"data_dir: {json.dumps(str(root))}\nvenues: {{okx: {{symbols: [BTC-USDT]}}}}\n")
    assert main(["--alive", "--config", str(config)]) == 1
    assert main(["--alive", "--config", str(tmp_path / "absent.yaml")]) == 2
