"""config.yaml → :class:`Config`, or every mistake in it at once, each with its line and key.

PyYAML makes a tree of nodes of the text and goes no further: its own values would turn ``017`` into 15, take
the last of two equal keys and call what a tag names. The tables at the end of this file say which kind of
value stands under which key, and in which range; defaults are the records'. A kind takes a :class:`Place`
and returns the value or refuses the place, and the walk goes on, so that everything wrong is said in one go.

Not cattrs: its values have no lines, its strictness has to be added kind by kind, and its errors would have
to be joined with the tree again. Walking the tree needs none of that, and is no longer.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import TypeVar

import attrs

from trio_candles.candles.model import MINUTE, Timeframe, canonical_symbol
from trio_candles.config.yaml_tree import (
    BOOL,
    FLOAT,
    INT,
    LIST,
    MAP,
    STR,
    Place,
    Unreadable,
    compose,
    read_text,
)
from trio_candles.venues.listings import Symbols
from trio_candles.venues.registry import VENUES

__all__ = [
    "Aggregation",
    "Config",
    "ConfigError",
    "GapDetection",
    "Shutdown",
    "Status",
    "Storage",
    "VenueConfig",
    "is_loopback_url",
    "load_config",
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
    """How far back from now a series is expected to be complete; 0 for from now on."""


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


@attrs.frozen(kw_only=True)
class Config:
    """A whole config.yaml, checked: nothing that reads it needs to check again."""

    data_dir: Path = Path("data")
    """A relative one is relative to the working directory, as is ``log_dir``."""
    log_dir: Path = Path("logs")
    venues: tuple[VenueConfig, ...]
    """In the file's order, the disabled ones too."""
    gap_detection: GapDetection = GapDetection()
    aggregation: Aggregation = Aggregation()
    storage: Storage = Storage()
    status: Status = Status()
    shutdown: Shutdown = Shutdown()

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
    config = _read_config(Place(root, root.start_mark.line + 1, "", problems))
    if config is None:
        # By line: that a key is missing is noticed only after everything that is there was read.
        problems.sort(key=lambda problem: problem[0])
        raise ConfigError(f"{path}:{line}: {text}" for line, text in problems)
    return config if data_dir is None else attrs.evolve(config, data_dir=data_dir)


def is_loopback_url(url: str) -> bool:
    """Whether *url* surely stays on this machine: to 127.0.0.0/8, ``[::1]`` or ``localhost``."""
    match = _URL.fullmatch(url)
    return match is not None and _is_loopback(match["host"]) is True


# --- what every kind is made of ------------------------------------------------------------------------------

_Kind = Callable[[Place], object]
_Item = Callable[[Place], tuple[str | int, str] | None]
"""A kind for the items of a list: what makes two of them the same, and the value."""
_Record = TypeVar("_Record")


def _entries(place: Place, kinds: Mapping[str, _Kind], *, noun: str, needs: str = "") -> dict[str, object]:
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
            found[name] = kinds[name](entry)
    if needs and needs not in lines:
        place.below(needs, place.node, place.line).refuse("missing; it has no default")
    return found


def _containing(name: str, kinds: Iterable[str]) -> list[str]:
    """The one key of which *name* is a part in whole words, as ``flush`` of ``flush_interval_seconds``."""
    words = set(name.split("_"))
    found = [kind for kind in kinds if words <= set(kind.split("_"))]
    return found if len(found) == 1 else []


def _record(
    build: Callable[..., _Record], kinds: Mapping[str, _Kind], *, needs: str = ""
) -> Callable[[Place], _Record | None]:
    """The kind of a mapping that becomes a record; ``None`` if anything in it was refused."""

    def read(place: Place) -> _Record | None:
        before = len(place.problems)
        found = _entries(place, kinds, noun="key", needs=needs)
        return build(**found) if len(place.problems) == before else None

    return read


def _list_of(what: str, read_item: _Item, *, least: int = 0) -> _Kind:
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

    return read


# --- the kinds ----------------------------------------------------------------------------------------------


def _flag(place: Place) -> bool | None:
    if place.node.tag == BOOL:
        return place.node.value.lower() in ("true", "yes", "on")
    place.expected("true or false")
    return None


_DECIMAL = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?", re.ASCII)


def _number(least: int, most: int) -> _Kind:
    """The kind of a number in ``[least, most]``, written as people do: no 017, 12:30:00, 1_0 or .nan."""

    def read(place: Place) -> float | None:
        is_number = place.node.tag in (INT, FLOAT)
        plain = is_number and _DECIMAL.fullmatch(place.node.value) is not None
        if plain and least <= float(place.node.value) <= most:
            return float(place.node.value)
        hint = "; write it in plain decimal digits" if is_number and not plain else ""
        place.expected(f"a number from {least} to {most}", hint)
        return None

    return read


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


def _base_timeframe(place: Place) -> str:
    if place.text('"1m"') not in (None, "1m"):
        place.expected('"1m"')
    return "1m"


def _timeframe(place: Place) -> tuple[int, str] | None:
    text = place.text('a timeframe, as in "5m"')
    if text is None:
        return None
    try:
        timeframe = Timeframe.parse(text[:60])  # no timeframe is as long, and so its error stays short
    except ValueError as error:
        place.refuse(str(error))
        return None
    if timeframe.length <= MINUTE:  # every other one is a multiple of it, being a whole number of minutes
        place.expected("a timeframe longer than the base, 1m")
    return timeframe.length, text  # by length: 60m and 1h would be the same candles


_PAIR = re.compile(r"\s*([A-Z0-9]{1,20})[-/_: ]([A-Z0-9]{1,20})\s*", re.ASCII | re.IGNORECASE)
"""What can be put into a venue's own form. The value itself has to be in it already."""


def _symbol(symbols: Symbols) -> _Item:
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
        # Of a refused one too: XBT/USD beside BTC/USD is a duplicate as soon as it is corrected.
        return canonical_symbol(own), own

    return read


# Stricter than urllib, which drops newlines and lets \ and a user name stand beside the host: what this
# matches, every library reads alike. After host and port: visible ASCII without # (a fragment) and \.
_URL = re.compile(
    r"(?P<scheme>[a-z]+)://(?P<host>\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]{1,253})"
    r"(?::(?P<port>[1-9][0-9]{0,4}))?(?P<rest>(?:[/?][!-\"$-\[\]-~]*)?)",
    re.ASCII,
)
_NAME = re.compile(r"(?:\w(?:[\w-]{0,61}\w)?\.)*[A-Za-z](?:[\w-]{0,61}\w)?", re.ASCII)
"""The last label begins with a letter, or 127.1 would be a name to us and an address to the system."""


def _is_loopback(host: str) -> bool | None:
    """``None`` for what is neither a name nor an address."""
    if _NAME.fullmatch(host):
        return host.lower() == "localhost"
    try:
        # Not .is_loopback: newer Pythons say yes to ::ffff:127.0.0.1, older ones no.
        if host.startswith("["):
            return int(ipaddress.IPv6Address(host[1:-1])) == 1
        return ipaddress.IPv4Address(host).packed[0] == 127
    except ValueError:
        return None


def _url(secure: str, plain: str, *, path: bool) -> _Kind:
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

    return read


# --- key → kind → range -------------------------------------------------------------------------------------


def _venue(name: str, symbols: Symbols) -> _Kind:
    kinds = {
        "enabled": _flag,
        "symbols": _list_of("symbols", _symbol(symbols), least=1),
        "websocket_url": _url("wss", "ws", path=True),
        "rest_url": _url("https", "http", path=False),
    }
    return _record(partial(VenueConfig, name, enabled=True), kinds, needs="symbols")


_VENUES = {name: _venue(name, venue.symbols) for name, venue in VENUES.items()}


def _venues(place: Place) -> tuple[VenueConfig, ...]:
    before = len(place.problems)
    venues = tuple(v for v in _entries(place, _VENUES, noun="venue").values() if isinstance(v, VenueConfig))
    if len(place.problems) == before and not any(venue.enabled for venue in venues):
        found = "all of them disabled" if venues else "none"
        place.refuse(f"expected at least one enabled venue of {', '.join(_VENUES)}, found {found}")
    return venues


_CONFIG: dict[str, _Kind] = {
    "data_dir": _directory,
    "log_dir": _directory,
    "venues": _venues,
    "gap_detection": _record(GapDetection, {"enabled": _flag, "lookback_days": _number(0, 3650)}),
    "aggregation": _record(
        Aggregation,
        {
            "enabled": _flag,
            "base_timeframe": _base_timeframe,
            "timeframes": _list_of("timeframes", _timeframe),
        },
    ),
    "storage": _record(Storage, {"flush_interval_seconds": _number(1, 3600)}),
    "status": _record(Status, {"interval_seconds": _number(1, 3600)}),
    "shutdown": _record(Shutdown, {"timeout_seconds": _number(1, 600)}),
}
_read_config = _record(Config, _CONFIG, needs="venues")
