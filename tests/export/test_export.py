"""The export: what other programs read is what the reader says, whole or not at all; and options, read strictly."""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from directories import BTC, ETH, MIDNIGHT, Truth, at, make

from trio_candles import read_candles
from trio_candles.command import options
from trio_candles.export import FORMATS, main
from trio_candles.store.schema import COLUMNS, JOURNAL

REPOSITORY = Path(__file__).resolve().parents[2]
OHLCV = ["open", "high", "low", "close", "volume"]


def export(root: Path, output: Path, *more: str) -> int:
    return main(["--data-dir", str(root), "--venue", "okx", "--symbol", "BTC-USDT", "--output", str(output), *more])


@pytest.fixture
def data(tmp_path) -> Path:
    root = tmp_path / "data"
    make(root, "sqesss", first=-3, flush_at=[0])
    return root


@pytest.fixture
def out(tmp_path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


@pytest.fixture
def bars(data) -> list[list[float]]:
    table = read_candles(data, "okx", "BTC-USDT", columns=["open_time_ms", *OHLCV])
    return [list(row.values()) for row in table.to_pylist()]


def test_csv_has_the_contracts_columns_and_reads_back_to_the_bit(data, out):
    assert export(data, out) == 0
    (path,) = out.iterdir()
    assert path.name == "okx-BTC-USDT-1m.csv"
    types = dict(zip(COLUMNS.names, COLUMNS.types, strict=True))
    table = pyarrow.csv.read_csv(
        str(path), pyarrow.csv.ReadOptions(use_threads=False), None, pyarrow.csv.ConvertOptions(column_types=types)
    )
    assert table.to_pylist() == read_candles(data, "okx", "BTC-USDT").to_pylist()


def test_ohlcv_is_csv_with_iso_dates(data, out, bars):
    assert export(data, out, "--format", "ohlcv") == 0
    with (out / "okx-BTC-USDT-1m-ohlcv.csv").open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header == ["date", *OHLCV]
    assert rows[0][0] == "2026-01-10T23:57:00Z"
    assert [[float(number) for number in row[1:]] for row in rows] == [bar[1:] for bar in bars]


@pytest.mark.parametrize("name", ["freqtrade", "freqtrade-parquet"])
def test_freqtrade_finds_its_name_its_columns_and_its_dates(data, out, bars, name):
    assert export(data, out, "--format", name) == 0
    if name == "freqtrade":
        with pa.memory_map(str(out / "BTC_USDT-1m.feather")) as source:
            table = pa.ipc.open_file(source).read_all()
    else:
        table = pq.read_table(str(out / "BTC_USDT-1m.parquet"), use_threads=False)
    assert table.column_names == ["date", *OHLCV]
    assert table.schema.field("date").type == pa.timestamp("ms", "UTC")
    dates = table.column("date").cast(pa.int64()).to_pylist()
    assert list(map(list, zip(dates, *(table.column(column).to_pylist() for column in OHLCV), strict=True))) == bars


def test_ccxt_gets_the_list_that_fetch_ohlcv_returns(data, out, bars):
    assert export(data, out, "--format", "ccxt") == 0
    assert json.loads((out / "okx-BTC-USDT-1m.json").read_text(encoding="utf-8")) == bars


@pytest.mark.parametrize("name", FORMATS)
def test_a_range_without_a_candle_is_a_file_without_a_row(data, out, name):
    assert export(data, out, "--format", name, "--from", str(at(-1)), "--to", str(at(0))) == 0
    (path,) = out.iterdir()
    assert path.stat().st_size > 0


def test_range_timeframe_and_filling_are_the_readers(tmp_path, out, capsys):
    make(tmp_path / "data", "ssesss", series=ETH)
    arguments = [
        "--data-dir", str(tmp_path / "data"), "--venue", "kraken", "--symbol", "eth/usd", "--timeframe", "2m",
        "--from", "2026-01-11T00:02", "--to", "2026-01-11T00:06:00Z", "--fill", "--json", "--format", "ccxt",
        "--output", str(out / "x.json"),
    ]  # fmt: skip
    assert main(arguments) == 0
    said = json.loads(capsys.readouterr().out)
    assert said == {
        "ok": True, "path": str(out / "x.json"), "format": "ccxt", "venue": "kraken", "symbol": "ETH/USD",
        "timeframe": "2m", "start_ms": at(2), "end_ms": at(6), "rows": 2, "filled_rows": 0, "first_open_ms": at(2),
        "last_open_ms": at(4), "unknown_minutes": 0, "gaps": [],
    }  # fmt: skip
    rows = Truth("ssesss", 0, ETH).rows(2, 6, "2m")
    assert json.loads((out / "x.json").read_text(encoding="utf-8")) == [
        [row[name] for name in ("open_time_ms", *OHLCV)] for row in rows
    ]


def test_filled_rows_are_counted_and_marked(data, out, capsys):
    assert export(data, out, "--fill", "--json") == 0
    assert json.loads(capsys.readouterr().out)["filled_rows"] == 1
    with (out / "okx-BTC-USDT-1m.csv").open(newline="", encoding="utf-8") as file:
        assert [row["filled"] for row in csv.DictReader(file)] == ["false", "false", "true", "false", "false", "false"]


def test_gaps_refuse_the_export_until_told_otherwise(tmp_path, out, capsys):
    root = tmp_path / "data"
    make(root, "sggs")
    assert export(root, out) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "2 minutes are not known" in said.err
    assert "--on-gap ignore" in said.err
    assert list(out.iterdir()) == []
    assert export(root, out, "--json") == 1
    gap = {"start_ms": at(1), "end_ms": at(3), "state": "open", "reason": "disconnected", "attempts": 0}
    said = json.loads(capsys.readouterr().out)
    assert (said["ok"], said["gaps"]) == (False, [gap])
    assert export(root, out, "--on-gap", "ignore", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["ok"], said["rows"], said["unknown_minutes"], said["gaps"]) == (True, 2, 2, [gap])
    assert export(root, out, "--on-gap", "ignore") == 0
    assert "2 minutes are not known" in capsys.readouterr().err


def test_an_older_export_is_replaced_whole_or_stays(data, out):
    target = out / "candles.csv"
    target.write_text("older")
    assert export(data, target, "--to", "2030-01-01") == 1
    assert target.read_text() == "older"
    assert export(data, target) == 0
    assert target.read_text(encoding="utf-8").startswith("venue,symbol")
    assert [path.name for path in out.iterdir()] == ["candles.csv"]


def test_what_is_no_file_is_never_replaced(data, out, capsys):
    (out / "candles.csv").mkdir()
    (out / "candles.csv" / "okx-BTC-USDT-1m.csv").mkdir()
    assert export(data, out / "candles.csv") == 2
    assert "okx-BTC-USDT-1m.csv is no file that could be replaced" in capsys.readouterr().err
    assert [path.name for path in (out / "candles.csv").iterdir()] == ["okx-BTC-USDT-1m.csv"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--symbol", "BTC-USD"], "did you mean 'okx BTC-USDT'?"),
        (["--data-dir", "nowhere"], "nowhere: no such directory"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
        (["--output", "nowhere/x.csv"], "nowhere: no such directory"),
        (["--output", "nowhere/"], "nowhere: no such directory"),
    ],
)
def test_what_cannot_be_meant_is_usage(data, out, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(out)
    assert export(data, out, *arguments) == 2
    assert words in capsys.readouterr().err
    assert list(out.iterdir()) == []


def test_nothing_is_written_into_the_data_directory(data, capsys):
    before = sorted(data.rglob("*"))
    for place in (data, data / "okx", data / JOURNAL):
        assert export(data, place) == 2
        assert "only the collector writes" in capsys.readouterr().err
    assert sorted(data.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--timeframe", "7m"], "does not divide a day"),
        (["--from", "yesterday"], "'yesterday' is no UTC date"),
        (["--from", "2026-01-11", "--to", "2026-01-11"], "--from is not before --to"),
        (["--format", "xlsx"], "invalid choice"),
        (["--symbol", "../../etc"], "is no symbol"),
        (["--speed", "0"], "not above zero"),
        (["--pivot", "nan"], "is out of range"),
    ],
)
def test_options_without_sense_are_usage(data, out, capsys, arguments, words):
    with pytest.raises(SystemExit) as caught:
        export(data, out, *arguments)
    assert caught.value.code == 2
    assert words in capsys.readouterr().err


def test_the_script_is_the_command(data, out):
    script = REPOSITORY / "tools" / "export.py"
    arguments = ["--data-dir", str(data), "--venue", "okx", "--symbol", "BTC-USDT"]
    done = subprocess.run(
        [sys.executable, str(script), *arguments], cwd=out, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "okx-BTC-USDT-1m.csv: okx BTC-USDT 1m, 5 rows\n"
    assert (out / "okx-BTC-USDT-1m.csv").is_file()


# --- options


def test_the_data_directory_comes_from_the_configuration_unless_it_is_given(tmp_path, capsys):
    given, configured = tmp_path / "given", tmp_path / "configured"
    given.mkdir()
    configured.mkdir()
    config = tmp_path / "config.yaml"
    config.write_text(f"data_dir: '{configured.as_posix()}'\nvenues:\n  okx:\n    symbols: [BTC-USDT]\n")
    assert options.data_dir_of(None, given) == given
    assert options.data_dir_of(config, None) == configured
    assert options.data_dir_of(config, given) == given
    config.write_text("venue: {}\n")
    assert options.data_dir_of(config, given) is None  # it was asked for, so it must make sense
    assert "config.yaml:1: venue: unknown key" in capsys.readouterr().err


@pytest.mark.parametrize(("text", "value"), [("1", 1.0), ("0.5", 0.5), ("6e1", 60.0)])
def test_numbers_are_read(text, value):
    assert options.positive(text) == value


@pytest.mark.parametrize("text", ["0", "-1", "inf", "nan", "x", "", "1e12"])
def test_what_is_no_number_above_zero_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError):
        options.positive(text)


def test_times_symbols_and_timeframes_are_read():
    assert options.utc_time("2026-01-11") == MIDNIGHT
    assert options.symbol("eth/usd") == ETH.symbol
    assert options.timeframe("4h") == "4h"
    assert BTC.symbol == options.symbol("BTC-USDT")
