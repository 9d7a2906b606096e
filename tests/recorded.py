"""Recorded market data beside the repository: frames, REST pages and series; absent, its tests are skipped visibly.

``../shared/data/PROVENANCE.md`` says where each file comes from, ``EXPECTED.json`` what was found in it by
programs that share nothing with ours.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
import pytest

DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data"

SESSIONS = ("ws", "added-2026-11/ws")
"""The folders of sessions on WebSockets; no two of them have a file of one name."""


def recorded(name: str) -> Path:
    """The recorded file *name*, below the data folder; skips the test where it is absent."""
    path = DATA / name
    if not path.exists():
        pytest.skip(f"no recorded data: {path} is absent")
    return path


def expected() -> dict[str, Any]:
    """What EXPECTED.json says of the recorded files."""
    return json.loads(recorded("EXPECTED.json").read_text(encoding="utf-8"))


@attrs.frozen
class Frame:
    """A text frame that was received, and when (Unix seconds, where that was recorded)."""

    received: float | None
    text: str


def frames(name: str) -> list[Frame]:
    """The frames received in the recorded session *name*, a file of one of :data:`SESSIONS`."""
    folder = next((folder for folder in SESSIONS if (DATA / folder / name).exists()), SESSIONS[0])
    with recorded(f"{folder}/{name}").open(encoding="utf-8") as lines:
        records = [json.loads(line) for line in lines]
    return [Frame(record["ts"], record["raw"]) for record in records if record["dir"] == "in"]
