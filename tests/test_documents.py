"""The documents that programs read, pinned to the key: keys, their order, numbers' types, what is null, what absent.

Each is taken where a program would take it (a tool's stdout, a webhook's request, the ledger) and held against the
file of its name in ``tests/documents``, in which the data directory is called ``data``.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest
from directories import BTC, at, candle, make, sql

from trio_candles.audit.tool import main as audit_main
from trio_candles.candles.documents import CandleDocument, EmptyDocument, from_json, kept_from_json, to_json
from trio_candles.candles.model import Empty, Millis, Reason, Series, Source, Unsure
from trio_candles.command.options import print_json
from trio_candles.command.signals import Signals
from trio_candles.explain import main as explain_main
from trio_candles.export import main as export_main
from trio_candles.health.alerts import Problems, alert_documents
from trio_candles.health.check import main as check_main
from trio_candles.health.monitor import main as monitor_main
from trio_candles.health.options import Target
from trio_candles.network.webhook import open_webhook
from trio_candles.preflight.checks import Checks, preflight_document
from trio_candles.store.journal import Journal, JournalBroken
from trio_candles.store.schema import JOURNAL
from trio_candles.store.store import Store, open_store

REPOSITORY = Path(__file__).resolve().parents[1]
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
        store.journal.publish(states, {"day files": "No space left on device"}, NOW)
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


# --- the converter

VALUES = {
    "open": 1.0, "high": 2.0, "low": 0.5, "close": 1.5, "volume": 7.0, "quote_volume": None, "vwap": 1.25,
    "trades_count": 3, "source": "rest", "ingest_time_ms": 5,
}  # fmt: skip


def test_a_candle_reads_back_as_it_was_written():
    bare = candle(3, quote_volume=None, vwap=None, trades_count=None, source=Source.REST)
    for one in (CandleDocument.of(candle(2)), CandleDocument.of(bare)):
        assert from_json(to_json(one), CandleDocument) == one == kept_from_json(to_json(one))
    why = EmptyDocument("ids 5 to 6")
    assert kept_from_json(to_json(why)) == why


def test_a_whole_number_will_do_as_a_float_and_is_one_then():
    found = from_json(json.dumps(VALUES | {"open": 1}), CandleDocument)
    assert (found.open, type(found.open)) == (1.0, float)


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"open": "1.0"}, "open"),
        ({"open": True}, "open"),
        ({"open": None}, "open"),
        ({"open": math.nan}, "open"),
        ({"open": math.inf}, "open"),
        ({"open": 10**400}, "open"),
        ({"vwap": "1.25"}, "vwap"),
        ({"trades_count": 3.0}, "trades_count"),
        ({"trades_count": False}, "trades_count"),
        ({"source": "fax"}, "source"),
        ({"source": None}, "source"),
        ({"ingest_time_ms": 5.0}, "ingest_time_ms"),
        ({"ingest_time_ms": None}, "ingest_time_ms"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_candle_with_a_value_that_is_none_of_its_field_is_refused_by_its_name(change, where):
    with pytest.raises(ValueError, match=where):
        from_json(json.dumps(VALUES | change), CandleDocument)


@pytest.mark.parametrize("key", VALUES)
def test_a_candle_without_one_of_its_keys_is_refused_by_its_name(key):
    with pytest.raises(ValueError, match=f"required field missing @ \\$.{key}"):
        from_json(json.dumps({name: value for name, value in VALUES.items() if name != key}), CandleDocument)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "5", '"text"', "{}", '{"empty": 5}', '{"empty": "x", "open": 1}']
)
def test_what_is_no_document_is_a_value_error(text):
    with pytest.raises(ValueError):  # noqa: PT011  # each for another reason, the parser's own among them
        kept_from_json(text)
    with pytest.raises(ValueError):  # noqa: PT011
        from_json(text, CandleDocument)


def test_all_that_is_wrong_is_said_at_once():
    with pytest.raises(ValueError, match=r"\$\.low.*\$\.source"):
        from_json(json.dumps(VALUES | {"low": "deep", "source": "fax"}), CandleDocument)


def test_a_number_that_json_does_not_have_is_not_written():
    with pytest.raises(ValueError, match="JSON"):
        to_json(CandleDocument.of(candle(0, vwap=math.nan)))


@attrs.frozen
class Line:
    """As lines of the change feed will be: a candle, or null, in a document; and one of two kinds before it."""

    event: str
    open_time_ms: Millis
    candle: CandleDocument | None
    before: CandleDocument | EmptyDocument | None


@pytest.mark.parametrize("kept", [None, CandleDocument.of(candle(1)), EmptyDocument("ids 5 to 6")])
def test_a_candle_is_an_object_in_another_document_or_null(kept):
    line = Line("revised", at(0), None if kept is None else CandleDocument.of(candle(0)), kept)
    text = to_json(line)
    assert list(json.loads(text)) == ["event", "open_time_ms", "candle", "before"]
    assert (json.loads(text)["candle"] is None) is (kept is None)
    assert from_json(text, Line) == line


# --- what is read of what the ledger keeps


@pytest.mark.parametrize("column", ["stored", "offered"])
@pytest.mark.parametrize(
    "damage",
    [
        ("36", '"36"'),
        ("36", "36.5"),
        ("websocket", "web8ocket"),
        ("volume", "volu-e"),
        ("100029.25", "NaN"),
        ("}", ', "x": 1}'),
    ],
)
def test_a_revision_that_makes_no_sense_is_a_broken_journal(root, column, damage):
    with a_collector(root):
        pass
    sql(root, f"UPDATE revision SET {column} = replace({column}, ?, ?)", *damage)
    with pytest.raises(JournalBroken, match=f"the revision of minute {at(29)}: "):
        Journal.open(root / JOURNAL, lambda series, minute: None)


# --- the contract's keys

SECTION_6 = """
{"ok": true, "checked_at_ms": 0, "data_dir": "data",
 "totals": {"series": 0, "files": 0, "candles": 0, "empty_minutes": 0, "open_gap_minutes": 0, "unfillable_minutes": 0, "violations": 0},
 "series": [{"venue": "okx", "symbol": "BTC-USDT", "timeframe": "1m", "first_open_ms": 0, "last_open_ms": 0, "candles": 0,
             "empty_minutes": 0, "open_gap_minutes": 0, "unfillable_minutes": 0}],
 "gaps": [{"venue": "okx", "symbol": "BTC-USDT", "start_ms": 0, "end_ms": 0, "state": "open", "reason": "disconnected", "attempts": 0}],
 "violations": [{"kind": "silent_gap", "venue": "okx", "symbol": "BTC-USDT", "timeframe": "1m", "path": "okx/BTC-USDT/1m/2026-01-10.parquet", "start_ms": 0, "end_ms": 0, "detail": "..."}]}
"""  # noqa: E501
"""The contract's own example, to the letter."""
BESIDES = {
    "": ["collector_running", "stopped_at_ms", "warnings"],
    "totals": ["violations_not_listed", "quarantined_files"],
}
"""What the audit tells besides; ``stopped_at_ms`` is in the contract's sentences."""

MONITOR = {
    "": "ok checked_at_ms data_dir collector_running stopped_at_ms error problems store_errors scrub venues series",
    "problems": "subject venue symbol part state since_ms detail",
    "venues": "venue connected detail status published_at_ms published_age_seconds received saved reconnects rejected"
    " close_to_durable_p50_seconds close_to_durable_p99_seconds rejections confirmations sampled sampled_percent",
    "series": "venue symbol timeframe state detail accounted_until_ms accounted_age_seconds last_candle_ms"
    " last_candle_age_seconds lag_seconds mark_ms mark_age_seconds coverage_hour_percent coverage_day_percent open_gaps"
    " open_gap_minutes oldest_gap revisions_last_day",
    "oldest_gap": "start_ms end_ms reason detail first_seen_ms age_seconds attempts last_error",
}
"""The document that ``/v1/status`` and ``/readyz`` give as well (section 9)."""


def objects(value: object, name: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object in *value*, by the key under which it lies, alone or in a list."""
    if isinstance(value, list):
        for one in value:
            yield from objects(one, name)
    elif isinstance(value, dict):
        yield name, value
        for key, inner in value.items():
            yield from objects(inner, key)


def test_the_audits_document_has_the_keys_of_the_contracts_section_6(root, capfd):
    make(root, "sqeguss", flush_at=[7])
    make(root, "sss", series=KRAKEN, flush_at=[3])
    next((root / "okx").rglob("*.parquet")).unlink()
    audit_main(["--data-dir", str(root), "--json", *FROZEN])
    promised: dict[str, dict[str, Any]] = dict(objects(json.loads(SECTION_6)))
    found = list(objects(json.loads(capfd.readouterr().out)))
    assert {name for name, _ in found} == promised.keys() == {"", "totals", "series", "gaps", "violations"}
    for name, one in found:
        besides = BESIDES.get(name, [])
        assert [key for key in one if key not in besides] == list(promised[name])
        assert [key for key in one if key in besides] == besides
        for key, value in promised[name].items():
            assert one[key] is None or type(one[key]) is type(value), (name, key)


def test_the_monitors_document_has_these_keys_and_no_others(root, capfd):
    with a_collector(root):
        monitor_main(["--data-dir", str(root), "--once", "--json", *FROZEN], Signals())
    found = [(name, one) for name, one in objects(json.loads(capfd.readouterr().out)) if name in MONITOR]
    assert {name for name, _ in found} == MONITOR.keys()
    for name, one in found:
        assert list(one) == MONITOR[name].split()


# --- what it costs


def test_who_shows_no_document_does_not_wait_for_the_converter(root):
    """cattrs takes 40 to 70 ms to import: a quarter of what ``check --help`` takes."""
    with a_collector(root):
        pass
    script = (
        "import sys\n"
        "from trio_candles.health.check import main\n"
        "from trio_candles import audit, export, preflight, network\n"
        "from trio_candles.network import webhook\n"
        "from trio_candles.store import store\n"
        "from trio_candles.health import monitor\n"
        "main(sys.argv[1:])\n"
        "assert 'cattrs' not in sys.modules\n"
        "main([*sys.argv[1:], '--json'])\n"
        "assert 'cattrs' in sys.modules\n"
    )
    command = [sys.executable, "-c", script, "--data-dir", str(root), *FROZEN]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


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
    book = Problems()
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


# --- explain


def test_explain_of_a_revised_candle_an_empty_minute_a_gap_and_a_minute_that_is_not_expected(root, capfd):
    with a_collector(root):
        for series, minute in ((BTC, 29), (BTC, 5), (OKX_ETH, 2), (BTC, -1)):
            explain_main([series.venue, series.symbol, str(at(minute)), "--data-dir", str(root), "--json", *FROZEN])
    check("explain", capfd.readouterr().out.splitlines(), root)


def test_explain_without_a_ledger(root, capfd):
    root.mkdir()
    explain_main(["okx", "BTC-USDT", str(at(0)), "--data-dir", str(root), "--json", *FROZEN])
    check("explain-no-ledger", capfd.readouterr().out.splitlines(), root)


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
