"""docs/config.schema.json, by which editors judge a config.yaml: generated, and of one mind with what reads the file.

That it allows whatever is read, and refuses whatever it can of what is refused, is held by test_config.py: each of its
examples is shown to the schema as well.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import yaml
from schemas import faults

from trio_candles.config.load import schema

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docs" / "config.schema.json"


def test_the_file_is_what_is_generated():
    command = [sys.executable, "-m", "trio_candles.config"]
    made = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert FILE.read_text(encoding="utf-8") == made, "python -m trio_candles.config > docs/config.schema.json"


def test_the_shipped_file_names_the_schema_in_its_first_line():
    first = (ROOT / "config.yaml").read_text(encoding="utf-8").splitlines()[0]
    assert ROOT / first.removeprefix("# yaml-language-server: $schema=") == FILE


def test_the_shipped_file_is_allowed():
    assert [*faults(yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8")), schema())] == []


def test_the_mistakes_that_the_readme_shows_are_marked():
    shown = yaml.safe_load("venues: {kraken: {symbols: [XBT/USD]}}\nstorage: {flush_interval: 60}")
    marked = [fault.partition(":")[0] for fault in faults(shown, schema())]
    assert marked == [".venues.kraken.symbols[0]", ".storage.flush_interval"]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert all(f": {place[1:]}: " in readme for place in marked)


def test_the_defaults_that_are_shown_are_the_shipped_files():
    shipped = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))

    def check(value: object, schema: dict, at: str) -> int:
        if "default" in schema:
            assert value == schema["default"], at
            return 1
        below = schema.get("properties", {}) if isinstance(value, dict) else {}
        return sum(check(value[key], inner, f"{at}.{key}") for key, inner in below.items() if key in value)

    assert check(shipped, json.loads(FILE.read_text(encoding="utf-8")), "") == 16


def test_every_value_says_what_it_is_for():
    def undescribed(schema: dict, at: str):
        for key, inner in schema.get("properties", {}).items():
            if "properties" in inner:
                yield from undescribed(inner, f"{at}.{key}")
            elif not inner.get("description"):
                yield f"{at}.{key}"

    assert [*undescribed(json.loads(FILE.read_text(encoding="utf-8")), "")] == []
