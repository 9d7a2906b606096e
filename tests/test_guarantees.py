"""Every promise of docs/guarantees.md has its tests, and no name among them is left without one that is not slow.

A test is named as ```` `folder/test_module.test_name` ````; ``…`` stands for any beginning or end, a name alone
belongs to the module named before it, and a module alone means all of its tests.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import attrs
import pytest

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "guarantees.md"

NAMED = re.compile(r"`(?:(?P<module>(?:\w+/)*test_[\w*]+)(?:\.(?P<test>test_\w+…?))?|(?P<more>…\w+…?))`")


@attrs.frozen
class Promise:
    """A row of one of the page's tables, or a paragraph outside them, that names tests."""

    line: int
    text: str

    def tests(self) -> Iterator[tuple[str, str]]:
        """What the row names, each as a pattern of modules and a pattern of names in them."""
        module = "(no module)"
        for named in NAMED.finditer(self.text):
            module = named["module"] or module
            name = named["test"] or named["more"] or "test_*"
            yield module, name.replace("…", "*")


def promises(page: str) -> list[Promise]:
    """The rows and paragraphs of *page* that name a test."""
    found, line = [], 1
    for block in re.split(r"(?<=\n)(?=\n)|(?<=\|\n)", page):
        if NAMED.search(block):
            found.append(Promise(line, block))
        line += block.count("\n")
    return found


def is_slow(decorator: ast.expr) -> bool:
    return ast.unparse(decorator) == "pytest.mark.slow"


def named_in(text: str) -> dict[str, bool]:
    """The tests of a module by name, and whether all that each does is slow."""
    tree = ast.parse(text)
    whole = any(
        isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark" and "slow" in ast.unparse(node)
        for node in tree.body
    )
    return {
        node.name: whole or any(map(is_slow, node.decorator_list))
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


def found(modules: dict[str, dict[str, bool]], module: str, name: str) -> list[bool]:
    """Whether each test that the two patterns mean is slow."""
    return [
        slow
        for path, tests in modules.items()
        if fnmatchcase(path, module)
        for test, slow in tests.items()
        if fnmatchcase(test, name)
    ]


MODULES = {
    path.relative_to(TESTS).with_suffix("").as_posix(): named_in(path.read_text(encoding="utf-8"))
    for path in TESTS.rglob("test_*.py")
}
PROMISES = promises(PAGE.read_text(encoding="utf-8"))


def test_the_page_is_read():
    assert len(PROMISES) > 70
    assert sum(len(list(promise.tests())) for promise in PROMISES) > 150


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: f"line-{promise.line}")
def test_every_test_that_a_promise_names_exists_and_runs_without_slow(promise):
    """Of several tests that one name means, one at least."""
    tests = {f"{module}.{name}": found(MODULES, module, name) for module, name in promise.tests()}
    assert not [name for name, those in tests.items() if not those], promise.text
    assert not [name for name, those in tests.items() if all(those)], promise.text


def test_what_is_not_there_and_what_is_slow_is_recognised():
    modules = {"a/test_one": named_in("@pytest.mark.slow\ndef test_it(): ...\nasync def test_that(): ...")}
    modules["test_two"] = named_in("pytestmark = pytest.mark.slow\ndef test_it(): ...")
    assert modules == {"a/test_one": {"test_it": True, "test_that": False}, "test_two": {"test_it": True}}
    assert found(modules, "a/test_*", "*th*") == [False]
    assert found(modules, "test_one", "test_it") == []
    (first, second) = promises("| p | t |\n|---|---|\n| x | `test_two`: `…it` |\n| y | `a/test_one.test_it…` |\n")
    assert (first.line, list(first.tests())) == (3, [("test_two", "test_*"), ("test_two", "*it")])
    assert (second.line, list(second.tests())) == (4, [("a/test_one", "test_it*")])
