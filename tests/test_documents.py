"""The documents that programs read, pinned to the key: keys, their order, numbers' types, what is null, what absent.

Each is taken where a program would take it (a tool's stdout, a webhook's request, the ledger) and held against the
file of its name in ``tests/documents``, in which the data directory is called ``data``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import chdir, contextmanager
from pathlib import Path

import attrs
import httpx
import pytest
from directories import BTC, at, candle, make, sql

from trio_candles.audit.tool import main as audit_main
from trio_candles.candles.model import Empty, Reason, Series, Unsure
from trio_candles.command.options import print_json
from trio_candles.command.signals import Signals
from trio_candles.export import main as export_main
from trio_candles.health.alerts import AlertBook, alert_documents
from trio_candles.health.check import main as check_main
from trio_candles.health.monitor import main as monitor_main
from trio_candles.health.options import Target
from trio_candles.network.webhook import open_webhook
from trio_candles.preflight.checks import Checks, preflight_document
from trio_candles.store.schema import JOURNAL
from trio_candles.store.store import Store, open_store

PINNED = Path(__file__).parent / "documents"
OKX_ETH, KRAKEN = Series("okx", "ETH-USDT"), Series("kraken", "ETH/USD")
NOW = at(30)
FROZEN = ["--speed", "1e-12", "--pivot", str(NOW / 1000)]
"""A clock that stands still at :data:`NOW`."""


def check(name: str, documents: Sequence[str], root: Path) -> None:
    """Hold *documents*, one line of JSON each, against what is pinned under *name*."""
    for text in documents:
        assert text == json.dumps(json.loads(text))  # the spelling, too: spaces, escapes, numbers as Python writes them
    found = json.dumps([json.loads(text) for text in documents], indent=1)
    found = found.replace(json.dumps(str(root))[1:-1], "data")
    assert found + "\n" == (PINNED / f"{name}.json").read_text(encoding="utf-8")


@contextmanager
def a_collector(root: Path) -> Iterator[Store]:
    """A collector that holds *root*: one series is fresh, one has a gap, of one nothing is known."""
    with open_store(root) as store:
        store.claim("simulated", seed=1, speed=1.0, pivot=0.0)
        store.expect([BTC, OKX_ETH, KRAKEN], at(0), at(0))
        store.commit([Unsure(OKX_ETH, at(0), at(5), Reason.NO_CLOSE, "older")], at(6))
        heard = [Empty(BTC, at(0), at(28), "the ids say so"), candle(28), candle(29)]
        heard += [Empty(OKX_ETH, at(5), at(30), "the ids say so"), Unsure(KRAKEN, at(0), at(30), Reason.DISCONNECTED)]
        store.commit(heard, NOW, {("okx", "high_below_low"): 3})
        store.commit([candle(29, volume=1.0)], NOW)  # something else than what is stored
        states = [("kraken", "[DISC]", False, 0, 0, 4, 0), ("okx", "[OK]", True, 5, 4, 1, 2)]
        store.publish(states, {"day files": "No space left on device"}, NOW)
        yield store


@pytest.fixture
def root(tmp_path) -> Path:
    """A data directory that is not there yet; its name can be found in a document and replaced."""
    return tmp_path / "the-data-directory"


@pytest.fixture
def configured(tmp_path, root) -> list[str]:
    """Options that name a configuration of one series in :func:`root`, where nothing has been collected yet."""
    root.mkdir()
    config = tmp_path / "config.yaml"
    config.write_text(f"data_dir: {json.dumps(str(root))}\nvenues:\n  okx: {{symbols: [BTC-USDT]}}\n")
    return ["--config", str(config), "--json", *FROZEN]


# --- check and monitor


def test_check_beside_a_collector(root, capfd):
    with a_collector(root):
        check_main(["--data-dir", str(root), "--json", *FROZEN])
    check("check", capfd.readouterr().out.splitlines(), root)


def test_check_after_a_collector_has_stopped(root, capfd):
    with a_collector(root) as store:
        store.stopped(NOW)
    check_main(["--data-dir", str(root), "--json", *FROZEN])
    check("check-stopped", capfd.readouterr().out.splitlines(), root)


def test_check_without_a_ledger_and_with_one_that_is_none(root, configured, capfd):
    check_main(configured)
    (root / JOURNAL).write_bytes(b"nonsense" * 1000)
    check_main(configured)
    check("check-no-ledger", capfd.readouterr().out.splitlines(), root)


def test_monitor_beside_a_collector(root, capfd):
    with a_collector(root):
        monitor_main(["--data-dir", str(root), "--once", "--json", *FROZEN], Signals())
    check("monitor", capfd.readouterr().out.splitlines(), root)


def test_monitor_without_a_ledger_and_with_one_that_is_none(root, configured, capfd):
    monitor_main([*configured, "--once"], Signals())
    (root / JOURNAL).write_bytes(b"nonsense" * 1000)
    monitor_main([*configured, "--once"], Signals())
    check("monitor-no-ledger", capfd.readouterr().out.splitlines(), root)


async def test_alerts_as_a_webhook_gets_them(root):
    posted: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        posted.append(request.content.decode())
        return httpx.Response(204)

    with a_collector(root):
        sick = Target(root, None, "the test", 1e-12, NOW / 1000).look()
    book = AlertBook()
    async with open_webhook("https://example.com/x", httpx.MockTransport(answer)) as hook:
        for health in (sick, attrs.evolve(sick, problems=sick.problems[1:])):
            for alert in alert_documents(book.note(health), book.open, NOW, root):
                await hook.post(alert)
    check("alerts", posted, root)


# --- audit


def test_audit_beside_a_collector_and_after_it(root, capfd):
    with a_collector(root):
        audit_main(["--data-dir", str(root), "--json", *FROZEN])
    audit_main(["--data-dir", str(root), "--json", *FROZEN])
    check("audit", capfd.readouterr().out.splitlines(), root)


def test_audit_of_a_damaged_directory(root, capfd):
    make(root, "sqeguss", flush_at=[7])
    (root / "okx" / "stray.txt").write_bytes(b"")
    audit_main(["--data-dir", str(root), "--json", *FROZEN])
    next(root.rglob("*.parquet")).unlink()
    audit_main(["--data-dir", str(root), "--json", *FROZEN])
    sql(root, "UPDATE series SET mark_ms = mark_ms + 1")
    audit_main(["--data-dir", str(root), "--json", *FROZEN])
    check("audit-damaged", capfd.readouterr().out.splitlines(), root)


# --- preflight


def test_preflight(tmp_path, capfd):
    here, venue = Checks(), Checks("okx")
    here.passed("disk", "4 GB free")
    venue.warned("trades", "none in 30 s", "wait", symbol="BTC-USDT")
    print_json(preflight_document([*here.done, *venue.done]))
    venue.failed("clock", "3 s off", "set it")
    print_json(preflight_document([*here.done, *venue.done]))
    check("preflight", capfd.readouterr().out.splitlines(), tmp_path)


# --- export


def export(root: Path, *more: str) -> None:
    series = ["--venue", "okx", "--symbol", "BTC-USDT"]
    with chdir(root.parent):
        export_main(["--data-dir", str(root), *series, "--output", "out.csv", "--json", *more])


def test_export_written_whole_with_gaps_and_without_a_row(root, capfd):
    make(root, "sqeguss")
    export(root, "--to", str(at(2)))
    export(root, "--on-gap", "ignore", "--fill")
    export(root, "--from", str(at(2)), "--to", str(at(3)))
    check("export", capfd.readouterr().out.splitlines(), root)


def test_export_refused_for_gaps_and_for_damage(root, capfd):
    make(root, "sqeguss", flush_at=[7])
    export(root)
    next(root.rglob("*.parquet")).unlink()
    export(root, "--on-gap", "ignore")
    check("export-refused", capfd.readouterr().out.splitlines(), root)


# --- the ledger


def test_what_the_ledger_keeps_of_revisions(root):
    with a_collector(root) as store:
        # What a venue does not tell is null; and a minute that was called empty is kept as why.
        bare = candle(3, quote_volume=None, vwap=None, trades_count=None)
        store.commit([bare], NOW)
    kept = sql(root, "SELECT stored, offered FROM revision ORDER BY id")
    check("revisions", [text for row in kept for text in row], root)
