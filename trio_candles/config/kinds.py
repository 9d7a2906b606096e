"""Kinds: what may stand under a key of config.yaml, as code that reads it and as JSON Schema for editors.

A kind's reader takes a :class:`~trio_candles.config.yaml_tree.Place` and returns the value, or refuses the place and
goes on, so that everything wrong is reported in one go. The kind's schema says the same as far as JSON Schema can: what
the reader takes, the schema allows, and whatever the schema forbids the reader refuses, with a better explanation.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import attrs

from trio_candles.candles.model import DAY, MINUTE, Timeframe
from trio_candles.config.yaml_tree import BOOL, FLOAT, INT, LIST, MAP, STR, Place

__all__ = [
    "BASE_TIMEFRAME",
    "DIRECTORY",
    "FLAG",
    "TIMEFRAME_SCHEMA",
    "Item",
    "Kind",
    "described",
    "entries",
    "is_loopback_url",
    "list_of",
    "mapping_schema",
    "number",
    "one_of",
    "read_timeframe",
    "record",
    "url",
]

T_co = TypeVar("T_co", covariant=True)
Schema = Mapping[str, object]


@attrs.frozen
class Kind(Generic[T_co]):
    """What may stand under a key."""

    read: Callable[[Place], T_co]
    """The value at a place; meaningless where the place was refused, which the place has noted."""
    schema: Schema
    """JSON Schema, draft 7."""


Item = Callable[[Place], tuple[str | int, str] | None]
"""Reads an item of a list: what makes two items the same, and the value."""
_Record = TypeVar("_Record")


def described(text: str, kind: Kind[T_co]) -> Kind[T_co]:
    """*kind*, with *text* for an editor to show beside its key."""
    return attrs.evolve(kind, schema={"description": text, **kind.schema})


def entries(place: Place, kinds: Mapping[str, Kind[object]], *, noun: str, needs: str = "") -> dict[str, object]:
    """The values of the mapping that stands here, each read by its kind; an absent key stays absent."""
    if place.node.tag != MAP:
        place.expected(f"a mapping of {', '.join(kinds)}")
        return {}
    found: dict[str, object] = {}
    lines: dict[str, int] = {}
    for key_node, value_node in place.node.value:
        line = key_node.start_mark.line + 1
        if key_node.tag != STR:
            attrs.evolve(place, node=key_node, line=line).expected(f"a {noun}, one of {', '.join(kinds)}")
            continue
        name = key_node.value
        entry = place.below(name, value_node, line)
        if name in lines:
            entry.refuse(f"repeated key; first given on line {lines[name]}")
        elif name not in kinds:
            known = f"known{' venues' * (noun == 'venue')}: {', '.join(kinds)}"
            near = get_close_matches(name.lower(), kinds, n=1) or _containing(name.lower(), kinds)
            hint = f"did you mean {near[0]}?" if near else known
            entry.refuse(f"unknown key; {hint}" + (f" {known}" if near and noun == "venue" else ""))
        lines.setdefault(name, line)
        if name in kinds:
            found[name] = kinds[name].read(entry)
    if needs and needs not in lines:
        place.below(needs, place.node, place.line).refuse("missing; it has no default")
    return found


def _containing(name: str, kinds: Iterable[str]) -> list[str]:
    """The only one of *kinds* that contains every word of *name*, as ``flush_interval_seconds`` does ``flush``; else
    none.
    """
    words = set(name.split("_"))
    found = [kind for kind in kinds if words <= set(kind.split("_"))]
    return found if len(found) == 1 else []


def record(
    build: Callable[..., _Record], kinds: Mapping[str, Kind[object]], *, needs: str = ""
) -> Kind[_Record | None]:
    """The kind of a mapping that becomes a record; ``None`` if anything in it was refused."""

    def read(place: Place) -> _Record | None:
        before = len(place.problems)
        found = entries(place, kinds, noun="key", needs=needs)
        return build(**found) if len(place.problems) == before else None

    made: Any = build.func if isinstance(build, partial) else build
    defaults = {field.name: field.default for field in attrs.fields(made)} | getattr(build, "keywords", {})
    return Kind(read, mapping_schema(kinds, needs, defaults))


def mapping_schema(kinds: Mapping[str, Kind[object]], needs: str = "", defaults: Schema | None = None) -> Schema:
    """The schema of a mapping with the keys of *kinds*, of which *needs* must be there."""
    properties = {name: dict(kind.schema) for name, kind in kinds.items()}
    for name, default in (defaults or {}).items():
        if name in properties and isinstance(default, bool | float | str | tuple | Path):
            properties[name]["default"] = str(default) if isinstance(default, Path) else default
    required = {"required": [needs]} if needs else {}
    return {"type": "object", "additionalProperties": False, "properties": properties, **required}


def list_of(what: str, read_item: Item, schema: Schema, *, least: int = 0) -> Kind[tuple[str, ...]]:
    """The kind of a list of at least *least* things, no two of them the same."""

    def read(place: Place) -> tuple[str, ...]:
        if place.node.tag != LIST or len(place.node.value) < least:
            place.expected(f"a list of {what}" + (", at least one" if least else ""))
            return ()
        values: list[str] = []
        firsts: dict[str | int, Place] = {}
        for index, node in enumerate(place.node.value):
            item = Place(node, node.start_mark.line + 1, f"{place.key}[{index}]", place.problems)
            if (given := read_item(item)) is not None:
                identity, value = given
                values.append(value)
                first = firsts.setdefault(identity, item)
                if first is not item:
                    item.refuse(f"duplicate of {first.key} on line {first.line}")
        return tuple(values)

    return Kind(read, {"type": "array", "minItems": least, "uniqueItems": True, "items": schema})


# --- the kinds ----------------------------------------------------------------------------------------------


def _flag(place: Place) -> bool | None:
    if place.node.tag == BOOL:
        return place.node.value.lower() in ("true", "yes", "on")
    place.expected("true or false")
    return None


FLAG = Kind(_flag, {"type": "boolean"})

_DECIMAL = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?", re.ASCII)


def number(least: int, most: int) -> Kind[float | None]:
    """The kind of a number in ``[least, most]``, written as people do: no 017, 12:30:00, 1_0 or .nan."""

    def read(place: Place) -> float | None:
        is_number = place.node.tag in (INT, FLOAT)
        plain = is_number and _DECIMAL.fullmatch(place.node.value) is not None
        if plain and least <= float(place.node.value) <= most:
            return float(place.node.value)
        hint = "; write it in plain decimal digits" if is_number and not plain else ""
        place.expected(f"a number from {least} to {most}", hint)
        return None

    return Kind(read, {"type": "number", "minimum": least, "maximum": most})


def one_of(*words: str) -> Kind[str]:
    """The kind of a text that is one of *words*."""
    what = " or ".join(words)

    def read(place: Place) -> str:
        text = place.text(what)
        if text is not None and text not in words:
            place.expected(what)
        return text or words[0]

    return Kind(read, {"enum": list(words)})


def _directory(place: Place) -> Path | None:
    text = place.text("a directory")
    if text is None:
        return None
    if not text.strip() or re.match(r"~(?:[/\\]|$)", text):
        place.expected("a directory, written out")  # nobody expands a ~: it would be a folder of that name
    elif re.search(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]", text):
        # NUL is refused by every system; a tab or newline is a Windows path in the wrong quotes.
        hint = r"; in double quotes \ starts an escape, use single quotes"
        place.expected("a directory without control characters", hint)
    return Path(text)


DIRECTORY = Kind(_directory, {"type": "string", "pattern": r"^(?!~(?:[/\\]|$))(?=.*\S)[^\x00-\x1f\x7f-\x9f]+$"})


def _base_timeframe(place: Place) -> str:
    if place.text('"1m"') not in (None, "1m"):
        place.expected('"1m"')
    return "1m"


BASE_TIMEFRAME = Kind(_base_timeframe, {"const": "1m"})


def read_timeframe(place: Place) -> tuple[int, str] | None:
    """The timeframe at *place* as its length in ms and its text; ``None`` if it was no higher one, and refused."""
    text = place.text('a timeframe, as in "5m"')
    if text is None:
        return None
    try:
        timeframe = Timeframe.parse(text[:60])  # no timeframe is as long, and so its error stays short
    except ValueError as error:
        place.refuse(str(error))
        return None
    if timeframe.length <= MINUTE:  # every longer one is a multiple of 1m, being whole minutes
        place.expected("a timeframe longer than the base, 1m")
    return timeframe.length, text  # by length: 60m and 1h would be the same candles


_LENGTHS = {"m": MINUTE, "h": 60 * MINUTE, "d": DAY}
TIMEFRAME_SCHEMA: Schema = {
    "enum": [
        f"{n}{unit}"
        for unit, length in _LENGTHS.items()
        for n in range(1, DAY // length + 1)
        if n * length > MINUTE and DAY % (n * length) == 0
    ]
}


# Stricter than urllib, which drops newlines and lets \ and a user name stand beside the host: what this
# matches, every library reads alike. After host and port: visible ASCII without # (a fragment) and \.
_URL = re.compile(
    r"(?P<scheme>[a-z]+)://(?P<host>\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]{1,253})"
    r"(?::(?P<port>[1-9][0-9]{0,4}))?(?P<rest>(?:[/?][!-\"$-\[\]-~]*)?)",
    re.ASCII,
)
_NAME = re.compile(r"(?:\w(?:[\w-]{0,61}\w)?\.)*[A-Za-z](?:[\w-]{0,61}\w)?", re.ASCII)
"""The last label begins with a letter, or 127.1 would be a name to us and an address to the system."""
# For editors, which have no ipaddress: everything that _is_loopback takes for an address, and a little more.
_IPV4, _IPV6 = r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}", r"\[[0-9a-fA-F:.]+\]"
_LOCALHOST = "".join(f"[{letter.upper()}{letter}]" for letter in "localhost")


def _is_loopback(host: str) -> bool | None:
    """Whether *host* is this machine; ``None`` if *host* is neither a name nor an address."""
    if _NAME.fullmatch(host):
        return host.lower() == "localhost"
    try:
        # Not .is_loopback: newer Pythons say yes to ::ffff:127.0.0.1, older ones no.
        if host.startswith("["):
            return int(ipaddress.IPv6Address(host[1:-1])) == 1
        return ipaddress.IPv4Address(host).packed[0] == 127
    except ValueError:
        return None


def is_loopback_url(url: str) -> bool:
    """Whether *url* surely stays on this machine: to 127.0.0.0/8, ``[::1]`` or ``localhost``."""
    match = _URL.fullmatch(url)
    return match is not None and _is_loopback(match["host"]) is True


def url(secure: str, plain: str, *, path: bool) -> Kind[str | None]:
    """The kind of an endpoint: *secure* to anywhere, *plain* to loopback; with a *path*, or with none."""
    form = "host[:port]" + ("[/path]" if path else " and nothing after it")
    what = f"{secure}://{form}, or {plain}:// to 127.0.0.1, [::1] or localhost"

    def read(place: Place) -> str | None:
        text = place.text(what)
        if text is None:
            return None
        match = _URL.fullmatch(text)
        loopback = None if match is None else _is_loopback(match["host"])
        if (
            match is not None
            and loopback is not None
            and (match["scheme"] == secure or (match["scheme"] == plain and loopback))
            and int(match["port"] or 1) <= 65_535
            and (path or match["rest"] in ("", "/"))
        ):
            return text if path else text.removesuffix("/")
        if "@" in text:  # perhaps a password, and what we say ends in logs
            place.refuse(f"expected {what}, found a URL with an @ (not shown); leave out user and password")
        else:
            place.expected(what)
        return None

    anywhere, on_loopback = rf"{_NAME.pattern}|{_IPV4}|{_IPV6}", rf"127(?:\.[0-9]{{1,3}}){{3}}|{_IPV6}|{_LOCALHOST}"
    rest = r'(?:[/?][!-"$-\[\]-~]*)?' if path else "/?"
    pattern = rf"^(?:{secure}://(?:{anywhere})|{plain}://(?:{on_loopback}))(?::[1-9][0-9]{{0,4}})?{rest}$"
    return Kind(read, {"type": "string", "pattern": pattern})
