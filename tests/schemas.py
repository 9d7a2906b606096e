"""As much of JSON Schema, draft 7, as docs/*.schema.json use; what it does not know it refuses to ignore."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

TYPES = {"object": dict, "array": list, "string": str, "boolean": bool, "number": (int, float), "null": type(None)}
ANNOTATIONS = {"$schema", "title", "description", "default"}


def faults(value: Any, schema: Mapping[str, Any], at: str = "") -> Iterator[str]:
    """What *schema* forbids in *value*, one line each; nothing where *value* is allowed."""
    for keyword, rule in schema.items():
        if keyword not in ANNOTATIONS:
            yield from (f"{at or 'the whole'}: {fault}" for fault in RULES[keyword](value, rule, schema))
    if isinstance(value, dict):
        for key, below in value.items():
            extra = schema.get("additionalProperties", True)
            inner = schema.get("properties", {}).get(key, extra)
            if inner is False:
                yield f"{at}.{key}: not allowed"
            elif inner is not True:
                yield from faults(below, inner, f"{at}.{key}")
    if isinstance(value, list):
        for index, below in enumerate(value):
            yield from faults(below, schema.get("items", {}), f"{at}[{index}]")


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def of_type(value: Any, name: str | list[str]) -> bool:
    if isinstance(name, list):
        return any(of_type(value, one) for one in name)
    if name == "integer":
        return isinstance(value, int) and not isinstance(value, bool)
    return is_number(value) and not math.isnan(value) if name == "number" else isinstance(value, TYPES[name])


def same(one: Any, other: Any) -> bool:
    """As JSON has it: true is not 1."""
    return type(one) is type(other) and one == other


def matches(text: str, pattern: str) -> bool:
    # JavaScript's $ is the end of the text; Python's stands before a last newline, too.
    return re.search(re.sub(r"\$$", r"\\Z", pattern), text, re.ASCII) is not None


RULES = {
    "type": lambda value, name, _: [] if of_type(value, name) else [f"no {name}"],
    "required": lambda value, names, _: [
        f"{n} is missing" for n in names if isinstance(value, dict) and n not in value
    ],
    "minItems": lambda value, least, _: ["too short"] if isinstance(value, list) and len(value) < least else [],
    "uniqueItems": lambda value, _, __: (
        ["twice the same"] if isinstance(value, list) and any(value.count(one) > 1 for one in value) else []
    ),
    "pattern": lambda value, text, _: ["no match"] if isinstance(value, str) and not matches(value, text) else [],
    "enum": lambda value, some, _: [] if any(same(value, one) for one in some) else ["none of those"],
    "const": lambda value, one, _: [] if same(value, one) else [f"not {one}"],
    "minimum": lambda value, least, _: ["too small"] if is_number(value) and value < least else [],
    "maximum": lambda value, most, _: ["too large"] if is_number(value) and value > most else [],
    "not": lambda value, schema, _: [] if [*faults(value, schema)] else ["what must not be"],
    # These look below, where the fault is.
    "properties": lambda *_: [],
    "additionalProperties": lambda *_: [],
    "items": lambda *_: [],
}
