"""docs/adding-a-venue.md is true: its blocks, written into a copy of the project, are a venue that works."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import attrs
import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/adding-a-venue.md"
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
HEAD = re.compile(r"(?:# |<!-- |\+\+\+ )([\w./-]+)(, continued)?(?: -->)?")
"""The first line of a block: the file's path; of a diff's, after +++."""


@attrs.frozen
class Block:
    """One block of code of the page."""

    path: str
    text: str
    is_diff: bool
    continues: bool
    before: str
    """The last line of prose before it."""


def read_blocks(page: str) -> list[Block]:
    blocks = []
    for match in FENCE.finditer(page):
        first, _, text = match[2].partition("\n")
        head = HEAD.fullmatch(first)
        assert head is not None, f"a block begins with {first!r}, not with a path"
        before = page[: match.start()].rstrip().rpartition("\n")[2]
        blocks.append(Block(head[1], text, match[1] == "diff", head[2] is not None, before))
    return blocks


def changed(text: str, diff: str) -> str:
    """*text* after the parts of *diff*; each must fit at exactly one place."""
    for part in diff.split("@@\n"):
        lines = part.splitlines()
        old, new = ("\n".join(line[1:] for line in lines if line[0] in kept) for kept in (" -", " +"))
        assert text.count(old) == 1, f"not exactly once in the file:\n{old}"
        text = text.replace(old, new)
    return text


def write_blocks(root: Path, blocks: list[Block]) -> None:
    for block in blocks:
        path = root / block.path
        path.parent.mkdir(parents=True, exist_ok=True)
        if block.is_diff:
            path.write_text(changed(path.read_text(encoding="utf-8"), block.text), encoding="utf-8")
            continue
        assert path.exists() == block.continues, block.path
        with path.open("a", encoding="utf-8") as file:
            file.write("\n\n" + block.text if block.continues else block.text)


def run(root: Path, *arguments: str) -> str:
    """What Python printed with *root*'s package in place of the installed one; fails if it did not end well."""
    environment = {**os.environ, "PYTHONPATH": str(root)}
    # Of the process that runs this test, and not of one below it.
    environment = {name: value for name, value in environment.items() if not name.startswith("PYTEST_")}
    done = subprocess.run([sys.executable, *arguments], cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def blocks() -> list[Block]:
    return read_blocks(PAGE.read_text(encoding="utf-8"))


def test_each_block_follows_prose_and_together_they_are_the_whole_venue(blocks):
    assert {block.path for block in blocks} == {
        "docs/venues/examplex.md", "config.yaml", "tests/venues/test_examplex.py",
        *(f"trio_candles/venues/examplex/{name}.py" for name in (
            "__init__", "answers", "feed", "history", "listing", "probes",
        )),
        *(f"trio_candles/simulator/examplex/{name}.py" for name in ("__init__", "feed", "rest")),
        *(f"trio_candles/{room}/registry.py" for room in ("venues", "simulator")),
    }  # fmt: skip
    assert not [block.path for block in blocks if block.before == "```"]


def test_a_venue_made_of_the_pages_blocks_is_collected_from_without_a_loss(blocks, tmp_path):
    for folder in ("trio_candles", "tests"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    write_blocks(tmp_path, blocks)
    options = ("-n", "0", "-p", "no:cacheprovider", "-rA", f"--basetemp={tmp_path / 'temporary'}")  # no others' folders
    printed = run(tmp_path, "-m", "pytest", *options, "tests/venues/test_examplex.py")
    (tests,) = [block.text for block in blocks if block.path.startswith("tests/")]
    promised = set(re.findall(r"^(?:async )?def (test_\w+)", tests, re.MULTILINE))
    assert "test_what_is_collected_is_the_market_s_truth_and_every_gap_is_filled" in promised
    assert promised == set(re.findall(r"^PASSED .*::(test_\w+)", printed, re.MULTILINE)), printed
    look = (
        "from trio_candles.config.load import load_config; import trio_candles, pathlib; print(trio_candles.__file__)"
    )
    printed = run(tmp_path, "-c", f"{look}; print(load_config(pathlib.Path('config.yaml')).enabled_venues[0].symbols)")
    assert printed.split("\n")[:2] == [
        str(tmp_path / "trio_candles" / "__init__.py"),
        "('BTC-USDT', 'ETH-USDT')",
    ]


@pytest.mark.parametrize("diff", [" a\n+b\n", "-c\n+b\n", "-x\n+b\n"])
def test_a_change_that_does_not_fit_is_noticed(diff):
    with pytest.raises(AssertionError, match="not exactly once"):
        changed("a\na\nd\n" + "c\n" * 2, diff)
