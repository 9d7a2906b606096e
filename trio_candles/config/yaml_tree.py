"""A YAML file as a tree of nodes that know their lines, and nothing that YAML can do beyond a tree.

No aliases, anchors or tags, bounded in size and depth. PyYAML's own values are never made: they would turn ``017``
into 15, take the last of two equal keys and call what a tag names.
"""

from __future__ import annotations

import re
from pathlib import Path

import attrs
import yaml

__all__ = [
    "BOOL", "DATE", "FLOAT", "INT", "LIST", "MAP", "NULL", "STR",
    "Place", "Unreadable", "compose", "describe", "quoted", "read_text",
]  # fmt: skip

_MAX_BYTES = 1 << 20
_MAX_DEPTH = 16
"""Our deepest value lies at 5; unbounded, PyYAML's recursion ended below 500."""
_MAX_NODES = 20_000
"""Room for thousands of symbols, read in about a second; 1 MiB of ``a,a,a`` took 19."""


class Unreadable(Exception):
    """The file gives no tree: then this is the only problem, and it has a line but no key."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(line, message)
        self.line = line
        self.message = message


def read_text(path: Path) -> str:
    """The text of the file *path*, at most 1 MiB of UTF-8; else :class:`Unreadable`."""
    try:
        if path.is_dir():  # Windows would call it "Permission denied"
            raise Unreadable(1, "expected a file, found a directory")
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise Unreadable(1, f"cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if len(data) > _MAX_BYTES:
        raise Unreadable(1, "expected at most 1 MiB, found more")
    try:
        return data.decode("utf-8-sig")  # -sig: Windows editors put a BOM there
    except UnicodeDecodeError as error:
        # Windows PowerShell's > writes UTF-16.
        hint = "; it looks like UTF-16, save it as UTF-8" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else ""
        line = data.count(b"\n", 0, error.start) + 1
        raise Unreadable(line, f"expected UTF-8, found the byte 0x{data[error.start]:02x}{hint}") from error


NULL, BOOL, INT, FLOAT, STR, LIST, MAP, DATE, MERGE = (
    f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "seq", "map", "timestamp", "merge")
)


class _StrictLoader(yaml.SafeLoader):
    """Composes a tree of bounded size, in which no node is used twice. An alias, an anchor or a tag does not end the
    reading: as its tag, the node gets a text that no kind accepts, and so it is refused by its key like any other."""

    depth = 0
    nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        anchor, tag, mark = event.anchor, getattr(event, "tag", None), event.start_mark
        self.nodes += 1
        if self.depth >= _MAX_DEPTH:
            raise Unreadable(mark.line + 1, f"expected at most {_MAX_DEPTH} levels, found a deeper nesting")
        if self.nodes > _MAX_NODES:
            raise Unreadable(mark.line + 1, f"expected at most {_MAX_NODES} values, found more")
        if isinstance(event, yaml.AliasEvent):
            self.get_event()  # type: ignore[no-untyped-call]
            return yaml.ScalarNode(f"the alias {quoted('*' + anchor)}; write the value out", "", mark, mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        if node is not None and (tag is not None or anchor is not None):
            odd = f"the tag {quoted(tag)}" if tag is not None else f"the anchor {quoted('&' + anchor)}"
            node.tag = f"{odd}; leave it out"
        return node


def compose(text: str, keys: str) -> yaml.Node:
    """The tree of nodes of *text*, whose root should have *keys*; :class:`Unreadable` if there is none."""
    try:
        loader = _StrictLoader(text)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        character = f"U+{ord(text[error.position]):04X}"
        raise Unreadable(line, f"not YAML: the character {character} is not allowed") from error
    try:
        root = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = ", ".join(part for part in (error.context, error.problem) if part)
        # "C:\data" is how a Windows path gets here.
        hint = r"; in double quotes \ starts an escape, use single quotes" if "unknown escape" in problem else ""
        raise Unreadable(mark.line + 1 if mark else 1, f"not YAML: {problem[:200]}{hint}") from error
    except (ValueError, OverflowError) as error:
        # PyYAML's own slips: "\U00110000", or a %YAML version of 5,000 digits.
        raise Unreadable(loader.line + 1, f"not YAML: {error}") from error
    if root is None:
        raise Unreadable(1, f"expected a mapping of {keys}, found an empty file")
    return root


# --- nodes, values: what every kind is made of --------------------------------------------------------------


@attrs.frozen
class Place:
    """A value in the file: its node, its line (that of its key, if it has one), its dotted key."""

    node: yaml.Node
    line: int
    key: str
    problems: list[tuple[int, str]]
    """Line and words of everything refused; shared by all places of one file."""

    def refuse(self, message: str) -> None:
        """Note *message* as a problem of this place."""
        self.problems.append((self.line, f"{self.key}: {message}" if self.key else message))

    def expected(self, what: str, hint: str = "") -> None:
        """Refuse the value, which is not *what* was expected."""
        self.refuse(f"expected {what}, found {describe(self.node)}{hint}")

    def text(self, what: str) -> str | None:
        """The text at this place; ``None`` after refusing a value that YAML reads as anything else, and that is not
        *what*.
        """
        if self.node.tag == STR:
            return str(self.node.value)
        is_word = self.node.tag in (BOOL, INT, FLOAT, DATE)
        self.expected(what, "; put it in quotes if it is meant as text" if is_word else "")
        return None

    def below(self, name: str, node: yaml.Node, line: int) -> Place:
        """The place of *node*, which stands under the key *name* of this place's mapping."""
        plain = re.fullmatch(r"[A-Za-z0-9_-]{1,60}", name)
        key = f"{self.key}{'.' if self.key else ''}{name if plain else quoted(name)}"
        return Place(node, line, key, self.problems)


def quoted(text: str) -> str:
    """*text* as a message may show it: ASCII characters, at most 60 of *text*."""
    # ascii(): a console may be unable to show the very character that is wrong, or must not obey it (ESC).
    return ascii(text[:60]) + ("…" if len(text) > 60 else "")


def describe(node: yaml.Node) -> str:
    """What YAML makes of *node*, in words: ``the number 017``, ``the boolean NO``, ``the text 'btc'``."""
    if node.tag in (LIST, MAP):
        return f"{'a' if node.value else 'an empty'} {'list' if node.tag == LIST else 'mapping'}"
    if node.tag == STR:
        return f"the text {quoted(node.value)}"
    words = {BOOL: "the boolean", INT: "the number", FLOAT: "the number", DATE: "the date"}
    if node.tag in words:
        return f"{words[node.tag]} {node.value[:60]}"
    if node.tag == MERGE:
        return "a merge key, which is not followed"
    return "nothing" if node.tag == NULL else node.tag
