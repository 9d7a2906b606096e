"""config.yaml → :class:`Config`, or every mistake in it at once, each with its line and key.

PyYAML makes a tree of nodes of the text and goes no further: its own values would turn ``017`` into 15, take
the last of two equal keys and call what a tag names. The tables at the end of this file say which kind of
value (:mod:`.kinds`) stands under which key, and in which range; defaults are the records'. The same tables are the
schema that editors use: ``python -m trio_candles.config`` prints it.

Not cattrs: its values have no lines, its strictness has to be added kind by kind, and its errors would have
to be joined with the tree again. Walking the tree needs none of that, and is no more code.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

import attrs

from trio_candles.candles.model import canonical_symbol
from trio_candles.config.kinds import (
    BASE_TIMEFRAME,
    DIRECTORY,
    FLAG,
    TIMEFRAME_SCHEMA,
    Item,
    Kind,
    described,
    entries,
    list_of,
    mapping_schema,
    number,
    one_of,
    read_timeframe,
    record,
    url,
)
from trio_candles.config.yaml_tree import Place, Unreadable, compose, read_text
from trio_candles.venues.listings import Symbols
from trio_candles.venues.registry import VENUES

__all__ = [
    "Aggregation",
    "Config",
    "ConfigError",
    "GapDetection",
    "Logging",
    "Shutdown",
    "Status",
    "Storage",
    "VenueConfig",
    "load_config",
    "schema",
]


class ConfigError(Exception):
    """The configuration cannot be used; ``str()`` is one line per problem, as in the contract."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        """Each ``config.yaml:12: storage.flush_interval: unknown key; ...``, in the order of lines."""
        super().__init__(self.problems)

    def __str__(self) -> str:
        return "\n".join(self.problems)


@attrs.frozen
class VenueConfig:
    """One venue: what to collect there, and where it is if not at its usual address."""

    name: str
    enabled: bool
    symbols: tuple[str, ...]
    """As the venue writes them; never empty, never two that share a folder."""
    websocket_url: str | None = None
    """The whole URL; ``None`` for the venue's own."""
    rest_url: str | None = None
    """Scheme, host and port, without a slash at the end, for every host of the venue; ``None`` for the venue's own."""


@attrs.frozen
class GapDetection:
    """How gaps are looked for and filled."""

    enabled: bool = True
    """Whether gaps are filled over REST; detection is never off."""
    lookback_days: float = 3.0
    """How many days back from now a series is expected to be complete; 0: from now on."""


@attrs.frozen
class Aggregation:
    """Which higher timeframes are derived from the minutes."""

    enabled: bool = True
    base_timeframe: str = "1m"
    timeframes: tuple[str, ...] = ("5m", "15m", "1h", "4h", "1d")


@attrs.frozen
class Storage:
    """How often the journal is written to day files."""

    flush_interval_seconds: float = 60.0


@attrs.frozen
class Status:
    """How often the status table is shown."""

    interval_seconds: float = 30.0


@attrs.frozen
class Shutdown:
    """How long a clean stop may take."""

    timeout_seconds: float = 10.0
    """On the wall clock, whatever the service's clock does."""


@attrs.frozen
class Feed:
    """How much of the change feed is kept: what both allow."""

    retention_hours: float = 72.0
    """At most as long as settled revisions are kept."""
    max_changes: float = 10_000_000.0


@attrs.frozen
class Logging:
    """How log records are written, into the log file and on stderr."""

    format: str = "text"
    """``text`` | ``json``"""


@attrs.frozen(kw_only=True)
class Config:
    """A whole config.yaml, checked: nothing that reads it needs to check again."""

    data_dir: Path = Path("data")
    """A relative path is relative to the working directory, as in ``log_dir``."""
    log_dir: Path = Path("logs")
    venues: tuple[VenueConfig, ...]
    """In the file's order, the disabled ones too."""
    gap_detection: GapDetection = GapDetection()
    aggregation: Aggregation = Aggregation()
    storage: Storage = Storage()
    status: Status = Status()
    shutdown: Shutdown = Shutdown()
    feed: Feed = Feed()
    logging: Logging = Logging()

    @property
    def enabled_venues(self) -> tuple[VenueConfig, ...]:
        """The venues to collect from; at least one."""
        return tuple(venue for venue in self.venues if venue.enabled)


def load_config(path: Path, *, data_dir: Path | None = None) -> Config:
    """The configuration in the file *path*, with *data_dir* in place of the file's if it is given.

    Raises :class:`ConfigError` with everything that is wrong with the file; nothing else, whatever is in it.
    """
    problems: list[tuple[int, str]] = []
    try:
        root = compose(read_text(path), ", ".join(_CONFIG))
    except Unreadable as error:
        raise ConfigError([f"{path}:{error.line}: {error.message}"]) from error
    config = _FILE.read(Place(root, root.start_mark.line + 1, "", problems))
    if config is None:
        # By line: that a key is missing is noticed only after everything that is there was read.
        problems.sort(key=lambda problem: problem[0])
        raise ConfigError(f"{path}:{line}: {text}" for line, text in problems)
    return config if data_dir is None else attrs.evolve(config, data_dir=data_dir)


# --- symbols ----------------------------------------------------------------------------------------------

_PAIR = re.compile(r"\s*([A-Z0-9]{1,20})[-/_: ]([A-Z0-9]{1,20})\s*", re.ASCII | re.IGNORECASE)
"""Texts that can be put into a venue's own form, for a hint. A value that is accepted has that form already."""


def _symbol(symbols: Symbols) -> Item:
    what = f"BASE{symbols.separator}QUOTE in upper case, as in {symbols.example}"

    def read(place: Place) -> tuple[str, str] | None:
        text = place.text(what)
        pair = None if text is None else _PAIR.fullmatch(text)
        if pair is None:
            if text is not None:
                place.expected(what)
            return None
        own = symbols.join(*(part.upper() for part in pair.groups()))
        if text != own:
            place.expected(what, f"; did you mean {own}?")
        # A refused symbol is returned too: XBT/USD beside BTC/USD is a duplicate as soon as it is corrected.
        return canonical_symbol(own), own

    return read


def _symbol_schema(symbols: Symbols) -> Mapping[str, object]:
    separator = symbols.separator
    older = "".join(f"(?!{name}{separator})(?!.*{separator}{name}$)" for name in symbols.older)
    return {"type": "string", "pattern": f"^{older}[A-Z0-9]{{1,20}}{separator}[A-Z0-9]{{1,20}}$"}


# --- key → kind → range -------------------------------------------------------------------------------------


def _venue(name: str, symbols: Symbols) -> Kind[VenueConfig | None]:
    form = f"BASE{symbols.separator}QUOTE in upper case, as in {symbols.example}"
    pairs = list_of("symbols", _symbol(symbols), _symbol_schema(symbols), least=1)
    kinds: dict[str, Kind[object]] = {
        "enabled": described("Whether to collect from this venue.", FLAG),
        "symbols": described(f"What to collect: {form}.", pairs),
        "websocket_url": described("Another WebSocket endpoint; the whole URL.", url("wss", "ws", path=True)),
        "rest_url": described("Another REST endpoint: scheme, host and port.", url("https", "http", path=False)),
    }
    return record(partial(VenueConfig, name, enabled=True), kinds, needs="symbols")


_VENUES = {name: _venue(name, venue.symbols) for name, venue in VENUES.items()}


def _venues(place: Place) -> tuple[VenueConfig, ...]:
    before = len(place.problems)
    venues = tuple(v for v in entries(place, _VENUES, noun="venue").values() if isinstance(v, VenueConfig))
    if len(place.problems) == before and not any(venue.enabled for venue in venues):
        found = "all of them disabled" if venues else "none"
        place.refuse(f"expected at least one enabled venue of {', '.join(_VENUES)}, found {found}")
    return venues


_DISABLED = {"required": ["enabled"], "properties": {"enabled": {"const": False}}}
_CONFIG: dict[str, Kind[object]] = {
    "data_dir": described("Where the candles are kept.", DIRECTORY),
    "log_dir": described("Where collector.log is written.", DIRECTORY),
    "venues": described(
        "What to collect, by venue; at least one is enabled.",
        Kind(_venues, {**mapping_schema(_VENUES), "not": {"additionalProperties": _DISABLED}}),
    ),
    "gap_detection": record(
        GapDetection,
        {
            "enabled": described("Fill gaps over REST; detection itself is never off.", FLAG),
            "lookback_days": described("How far back from now a series is expected to be complete.", number(0, 3650)),
        },
    ),
    "aggregation": record(
        Aggregation,
        {
            "enabled": described("Derive higher timeframes from the minutes.", FLAG),
            "base_timeframe": described("What the others are derived from.", BASE_TIMEFRAME),
            "timeframes": described(
                "What is derived; each divides a day.", list_of("timeframes", read_timeframe, TIMEFRAME_SCHEMA)
            ),
        },
    ),
    "storage": record(
        Storage,
        {"flush_interval_seconds": described("Between two writes of day files.", number(1, 3600))},
    ),
    "status": record(Status, {"interval_seconds": described("Between two status tables.", number(1, 3600))}),
    "shutdown": record(
        Shutdown,
        {"timeout_seconds": described("Wall-clock time for a clean stop, at most.", number(1, 600))},
    ),
    "feed": record(
        Feed,
        {
            "retention_hours": described("How long a change is kept for followers.", number(25, 2160)),
            "max_changes": described("How many changes are kept, at most.", number(100_000, 1_000_000_000)),
        },
    ),
    "logging": record(
        Logging,
        {"format": described("A log record as a line of text, or as an object of JSON.", one_of("text", "json"))},
    ),
}
_FILE = record(Config, _CONFIG, needs="venues")


def schema() -> dict[str, object]:
    """JSON Schema (draft 7) of config.yaml, for editors; ``docs/config.schema.json`` is this."""
    return {"$schema": "http://json-schema.org/draft-07/schema#", "title": "trio_candles' config.yaml", **_FILE.schema}
