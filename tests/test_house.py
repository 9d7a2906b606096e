"""The house's floors, held by reading the imports of every module: see "Floors" in docs/architecture.md.

An import points to a lower floor, never up, and sideways only within a room. The pure floors, 0 to 2,
import nothing that could wait, look at a clock, or touch the world. A module that is on no floor fails here.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from trio_candles.venues.registry import VENUES

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "trio_candles"

FLOORS = {
    # A package's floor is that of all its modules that are not named themselves.
    "trio_candles": 0,  # the version, and nothing that would make "import trio_candles" slow; see DOORS
    "trio_candles.candles": 0,
    "trio_candles.venues": 1,
    "trio_candles.assembly": 2,
    "trio_candles.network": 3,
    "trio_candles.clock": 3,
    "trio_candles.threads": 3,
    "trio_candles.config": 4,
    "trio_candles.store": 4,
    "trio_candles.reading": 5,
    "trio_candles.collector": 6,
    "trio_candles.command": 7,
    "trio_candles.audit": 8,
    "trio_candles.health": 8,
    "trio_candles.preflight": 8,
    "trio_candles.explain": 8,
    "trio_candles.export": 8,
    "trio_candles.following": 8,
    "trio_candles.entry": 9,
    "trio_candles.__main__": 9,
}
"""Where each room is."""

DOORS = {
    "trio_candles": {
        f"trio_candles.reading.{name}" for name in ("candles", "changes", "errors", "follow", "following", "spans")
    }
}
"""What a module hands on when it is asked for it, and imports only then."""

PURE = {
    "__future__", "abc", "attrs", "bisect", "cattrs", "collections", "contextlib", "dataclasses", "datetime", "decimal",
    "difflib", "enum", "fractions", "functools", "hashlib", "heapq", "itertools", "json", "math", "msgspec", "numbers",
    "operator", "re", "statistics", "string", "textwrap", "types", "typing", "urllib.parse", "zlib",
}  # fmt: skip
"""All that floors 0 to 2 may import from outside: none of it waits, reads a clock, logs, or touches the world.
cattrs makes values of values, and that is all it does."""

ONLY_IN = {
    # Followers wait on the system's monotonic clock, and never ask what time it is; trio is not to be imported for it.
    "time": {"trio_candles.clock", "trio_candles.reading.feed", "trio_candles.reading.follow"},
    "trio_websocket": {"trio_candles.network.websocket"},
    # The webhook is nobody's venue: it has no budget, posts, and is configured by whoever runs the monitor.
    "httpx": {f"trio_candles.network.{name}" for name in ("trust", "websocket", "rest", "webhook")},
    "ssl": {f"trio_candles.network.{name}" for name in ("trust", "websocket", "streams", "webhook")},
    # A service manager is told by a datagram that stays on the machine.
    "socket": {"trio_candles.network.names", "trio_candles.command.notify"},
    "cattrs": {"trio_candles.candles.documents"},  # one converter for all; imported late, for it is slow to import
    "asyncio": set(),
    "select": {"trio_candles.following.tool"},  # whether somebody still reads what is printed
    "selectors": set(),
    "multiprocessing": set(),
    "requests": set(),
    "pickle": set(),
}
"""Who may import it; the simulator has its own sockets, being the other side."""


@attrs.frozen
class Import:
    """*importer* says that it needs *target*, ours or not, in *line*."""

    importer: str
    target: str
    line: int

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.target}"


@attrs.frozen
class Module:
    """One file of the product."""

    name: str
    path: Path
    text: str
    tree: ast.Module

    @property
    def is_simulator(self) -> bool:
        return within(self.name, "trio_candles.simulator")


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def modules() -> dict[str, Module]:
    found = {}
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        text = path.read_text(encoding="utf-8")
        found[name] = Module(name, path, text, ast.parse(text, str(path)))
    return found


MODULES = modules()
NAMES = list(MODULES)
OURS = [name for name in NAMES if not MODULES[name].is_simulator]


def imports_of(module: Module) -> Iterator[Import]:
    """Every import in *module*, also those inside functions and for type checkers only."""
    package = module.name if module.path.name == "__init__.py" else module.name.rpartition(".")[0]
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(module.name, alias.name, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            for alias in node.names:
                # "from package import module" imports the module, not just its package.
                full = f"{base}.{alias.name}"
                yield Import(module.name, full if full in MODULES else base, node.lineno)


def all_imports(names: list[str]) -> Iterator[Import]:
    for name in names:
        yield from imports_of(MODULES[name])


def floor_of(name: str) -> int | None:
    """*name*'s own floor, or its package's; the whole product is no package whose floor a module could have."""
    while name not in FLOORS:
        name = name.rpartition(".")[0]
        if name in ("", PACKAGE):
            return None
    return FLOORS[name]


def room_of(name: str) -> str:
    return ".".join(name.split(".")[:2])


def is_ours(name: str) -> bool:
    return within(name, PACKAGE)


def listed(faults: list[str]) -> str:
    return "\n" + "\n".join(faults)


# --- floors -----------------------------------------------------------------------------------------------


def test_the_tree_is_read():
    assert {
        "trio_candles",
        "trio_candles.candles.model",
        "trio_candles.venues.okx.feed",
        "trio_candles.simulator",
    } <= set(MODULES)
    assert "trio_candles.candles.model" in {
        item.target for item in imports_of(MODULES["trio_candles.candles.validation"])
    }
    assert "trio_candles.simulator.market" in {item.target for item in imports_of(MODULES["trio_candles.simulator"])}


@pytest.mark.parametrize("name", OURS)
def test_every_module_is_on_a_floor(name):
    assert floor_of(name) is not None, (
        f"{name} is on no floor: decide where it belongs, and say so in FLOORS of tests/test_house.py "
        "and in docs/architecture.md"
    )


@pytest.mark.parametrize("name", OURS)
def test_imports_point_downwards_only(name):
    floor, faults = floor_of(name), []
    if floor is None:
        pytest.skip(f"{name} is on no floor, which is another test's failure")
    for item in imports_of(MODULES[name]):
        below = floor_of(item.target)
        if not is_ours(item.target) or within(item.target, "trio_candles.simulator") or below is None or below < floor:
            continue
        if item.target in DOORS.get(name, set()):
            continue
        if below > floor:
            faults.append(f"{item}: floor {floor} must not know floor {below}")
        elif room_of(item.target) != room_of(name):
            faults.append(f"{item}: rooms of the same floor {floor} do not know each other")
    assert not faults, listed(faults)


@pytest.mark.parametrize("name", [name for name in OURS if floor_of(name) in (0, 1, 2)])
def test_the_pure_floors_import_nothing_that_waits_or_touches_the_world(name):
    faults = [
        str(item)
        for item in imports_of(MODULES[name])
        if not is_ours(item.target) and item.target not in PURE and item.target.partition(".")[0] not in PURE
    ]
    assert not faults, listed(faults)


def test_importing_the_package_imports_nothing_heavy():
    """The version costs nothing; who asks for the reader pays for the reader."""
    script = (
        "import sys, trio_candles\n"
        "heavy = {'pyarrow', 'trio', 'attrs', 'cattrs', 'httpx'}\n"
        "def ours(): return {name.partition('.')[0] for name in sys.modules} & heavy\n"
        "assert not ours(), ours()\n"
        "trio_candles.read_candles\n"
        "assert 'pyarrow' in ours() and not {'trio', 'cattrs', 'httpx'} & ours(), ours()\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)


def test_the_pure_floors_have_no_async_function():
    faults = [
        f"{name}:{node.lineno}"
        for name in OURS
        if floor_of(name) in (0, 1, 2)
        for node in ast.walk(MODULES[name].tree)
        if isinstance(node, (ast.AsyncFunctionDef, ast.Await, ast.AsyncWith, ast.AsyncFor))
    ]
    assert not faults, listed(faults)


def rings(graph: dict[str, set[str]]) -> set[str]:
    """The nodes that lie on a way from a ring to a ring: nothing is left of a graph that has none."""
    graph = {name: set(targets) for name, targets in graph.items()}
    while graph:
        reached = set().union(*graph.values())
        idle = {name for name, targets in graph.items() if name not in reached or not targets}
        if not idle:
            break
        graph = {name: targets - idle for name, targets in graph.items() if name not in idle}
    return set(graph)


@pytest.mark.parametrize(
    ("graph", "left"),
    [
        ({}, ""),
        ({"a": "bc", "b": "c", "c": ""}, ""),
        ({"a": "b", "b": "a"}, "ab"),
        ({"a": "b", "b": "c", "c": "db", "d": ""}, "bc"),
        ({"a": "a"}, "a"),
    ],
)
def test_a_ring_of_imports_is_recognised(graph, left):
    assert rings({name: set(targets) for name, targets in graph.items()}) == set(left)


def test_no_module_imports_itself_by_way_of_others():
    graph = {name: {item.target for item in imports_of(MODULES[name]) if item.target in MODULES} for name in NAMES}
    left = sorted(rings(graph))
    assert not left, f"a ring of imports among {', '.join(left)}"


def test_nothing_is_reached_around_the_floors():
    """No import by name at run time, which this file could not see."""
    faults = [
        f"{name}:{node.lineno}"
        for name in NAMES
        for node in ast.walk(MODULES[name].tree)
        if (isinstance(node, ast.Name) and node.id == "__import__")
        or (isinstance(node, ast.alias) and node.name.partition(".")[0] == "importlib")
    ]
    assert not faults, listed(faults)


# --- seams ------------------------------------------------------------------------------------------------


def test_clocks_sockets_and_their_libraries_have_one_home_each():
    faults = [
        f"{item}: only {', '.join(sorted(ONLY_IN[top])) or 'nobody'} may"
        for item in all_imports(NAMES)
        if (top := item.target.partition(".")[0]) in ONLY_IN
        and item.importer not in ONLY_IN[top]
        and not (within(item.importer, "trio_candles.simulator") and top != "time")
    ]
    assert not faults, listed(faults)


def dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


NOW = re.compile(r"(.*\.)?(datetime|date)\.(now|utcnow|today)")


def test_nobody_but_the_clock_asks_what_time_it_is():
    faults = [
        f"{name}:{node.lineno} reads {dotted(node)}"
        for name in NAMES
        if name != "trio_candles.clock"
        for node in ast.walk(MODULES[name].tree)
        if isinstance(node, ast.Attribute) and NOW.fullmatch(dotted(node))
    ]
    assert not faults, listed(faults)


@pytest.mark.parametrize(
    ("source", "reads"),
    [
        ("datetime.now(UTC)", True),
        ("datetime.datetime.utcnow()", True),
        ("date.today()", True),
        ("self.time.now()", False),
        ("datetime.fromisoformat(x)", False),
    ],
)
def test_a_look_at_the_clock_is_recognised(source, reads):
    found = [dotted(node) for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute)]
    assert any(NOW.fullmatch(text) for text in found) is reads


def test_nobody_but_the_network_opens_a_socket_through_trio():
    own = re.compile(
        r"trio\.(open_tcp_stream|open_tcp_listeners|serve_tcp|open_ssl_over_tcp_stream|SSLStream|socket\..*)"
    )
    faults = [
        f"{name}:{node.lineno} uses {dotted(node)}"
        for name in OURS
        if name not in ("trio_candles.network.websocket", "trio_candles.network.names")
        for node in ast.walk(MODULES[name].tree)
        if isinstance(node, ast.Attribute) and own.fullmatch(dotted(node))
    ]
    assert not faults, listed(faults)


def test_the_simulator_shares_nothing_with_what_it_tests():
    faults = [
        str(item)
        for item in all_imports([name for name in NAMES if MODULES[name].is_simulator])
        if is_ours(item.target) and not within(item.target, "trio_candles.simulator")
    ]
    assert not faults, listed(faults)


def test_the_product_knows_the_simulator_where_a_run_is_planned_only():
    faults = [
        str(item)
        for item in all_imports(OURS)
        if within(item.target, "trio_candles.simulator") and item.importer != "trio_candles.command.launch"
    ]
    assert not faults, listed(faults)


def borrowed(package: str, allowed: set[str]) -> list[str]:
    """What the modules of *package* import of ours beyond *allowed*."""
    return [
        str(item)
        for item in all_imports([name for name in NAMES if within(name, package)])
        if is_ours(item.target) and not within(item.target, package) and item.target not in allowed
    ]


READERS_MAY = {
    # The reader shares nothing with the writer either: what it asks of the ledger is asked the same way by all tools.
    "trio_candles.reading.ledger", "trio_candles.reading.errors",
    "trio_candles.command.options", "trio_candles.candles.times", "trio_candles.candles.intervals",
    "trio_candles", "trio_candles.candles.model", "trio_candles.store.schema", "trio_candles.store.lock",
    "trio_candles.clock", "trio_candles.config.load", "trio_candles.store.snapshot", "trio_candles.threads",
    "trio_candles.config.kinds",
    "trio_candles.candles.delays",  # what a published histogram is; pure
    "trio_candles.candles.documents",  # how a document becomes JSON; the audit reads the ledger's JSON by itself
}  # fmt: skip


def test_the_reader_shares_no_code_with_the_writer():
    # The fold is pure, and how a candle is made of minutes is said once for all who make any; the audit has its own.
    # The grade of a venue stands in the registry and nowhere else. The codec of a sealed day is pure, and its row has
    # a checksum; the condition by which spans are found is a text. The audit has its own of both.
    allowed = {
        "trio_candles.candles.model", "trio_candles.candles.times", "trio_candles.candles.aggregation",
        "trio_candles.candles.intervals", "trio_candles.store.snapshot", "trio_candles.store.schema",
        "trio_candles.venues.registry", "trio_candles.store.accounts", "trio_candles.store.spans",
        # The change feed's rows are written by one side and read by the other: their shape is said once, and pure.
        "trio_candles.store.feed", "trio_candles.candles.documents",
        # Whether a collector holds the directory is asked in the same way by all tools.
        "trio_candles.store.lock",
    }  # fmt: skip
    faults = borrowed("trio_candles.reading", allowed)
    assert not faults, listed(faults)


def test_the_audit_shares_no_code_with_the_writer():
    """It re-derives what it checks: the schema, the lock and the words are all that it has in common."""
    faults = borrowed("trio_candles.audit", READERS_MAY)
    assert not faults, listed(faults)


def test_the_ledger_is_opened_for_reading_in_one_place_for_all_tools():
    """And once more for the audit's judgement, and for whose directory it is, which the collector asks as well."""
    may = {"trio_candles.reading.ledger", "trio_candles.audit.ledger", "trio_candles.store.identity"}
    users = {item.importer for item in all_imports(OURS) if item.target == "trio_candles.store.snapshot"}
    assert users == may


def test_the_audit_judges_without_the_reader():
    """Only what its page shows and nobody judges is read as the other tools read it."""
    judging = [name for name in NAMES if within(name, "trio_candles.audit") and name != "trio_candles.audit.history"]
    faults = [str(item) for item in all_imports(judging) if within(item.target, "trio_candles.reading")]
    assert not faults, listed(faults)


def test_check_and_monitor_share_no_code_with_the_writer():
    faults = borrowed(
        "trio_candles.health",
        READERS_MAY | {f"trio_candles.{name}" for name in ("command.signals", "network.webhook", "network.trust")},
    )
    assert not faults, listed(faults)


# --- venues -----------------------------------------------------------------------------------------------

REGISTRIES = {"trio_candles.venues.registry", "trio_candles.simulator.registry"}
"""The modules that name venues, because they list them."""


def may_name_a_venue(name: str) -> bool:
    folders = [f"trio_candles.{room}.{venue}" for room in ("venues", "simulator") for venue in VENUES]
    return name in REGISTRIES or any(within(name, folder) for folder in folders)


def words(text: str) -> set[str]:
    """Of a name or a sentence, in lower case: ``KrakenHistory``, ``OKX_TIMES`` and ``api.kraken.com`` have some."""
    return {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", text)}


def texts(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Every identifier and every string in *tree* with its line, but for docstrings."""
    docstrings = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if node in docstrings and isinstance(node, ast.Constant):
            continue
        for _, value in ast.iter_fields(node):
            for text in value if isinstance(value, list) else [value]:
                if isinstance(text, bytes):
                    yield getattr(node, "lineno", 0), text.decode("latin-1")
                elif isinstance(text, str):
                    yield getattr(node, "lineno", 0), text


def venues_named(tree: ast.AST) -> list[tuple[int, str]]:
    return [(line, name) for line, text in texts(tree) for name in VENUES if name in words(text)]


@pytest.mark.parametrize("name", [name for name in NAMES if not may_name_a_venue(name)])
def test_outside_its_folder_and_the_registry_no_module_names_a_venue(name):
    faults = [f"{name}:{line} names {venue}" for line, venue in venues_named(MODULES[name].tree)]
    faults += [f"{name} is called like {venue}" for venue in VENUES if venue in words(name)]
    assert not faults, listed(faults)


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ('"""Kraken tells whole seconds."""\nx = 1  # as OKX does\n"""Of Coinbase."""\n', []),
        ('x = {"okx": 1}', [1]),
        ('def f():\n    return f"wss://{x}.KRAKEN.com"', [2]),
        ('x = b"kraken"', [1]),
        ("class TardyCoinbase:\n    pass", [1]),
        ("x = OKX_TIMES", [1]),
        ("f(okx=1)", [1]),
        ("from trio_candles.venues.kraken import VENUE", [1]),
        ("import trio_candles.venues as krakens", []),  # a name that is part of a word is no name of a venue
        ("match x:\n    case V(okx=1):\n        pass", [2]),
    ],
)
def test_a_venues_name_is_recognised(source, lines):
    assert sorted({line for line, _ in venues_named(ast.parse(source))}) == lines


# --- errors and state -------------------------------------------------------------------------------------

EVERYTHING = {"Exception", "BaseException"}


def catches_everything(handler: ast.ExceptHandler) -> bool:
    if handler.type is None:
        return True
    types = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(dotted(kind) in EVERYTHING for kind in types)


def unexplained(text: str) -> list[int]:
    """Lines of *text* where everything is caught, not passed on, and nobody says why."""
    lines = text.splitlines()
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ExceptHandler) and catches_everything(node):
            last = node.body[-1]
            passed_on = isinstance(last, ast.Raise) and last.exc is None
            said = "#" in lines[node.lineno - 1] or lines[node.lineno - 2].lstrip().startswith("#")
            if not passed_on and not said:
                found.append(node.lineno)
        elif isinstance(node, ast.Call) and dotted(node.func).rpartition(".")[2] == "suppress":
            found += [node.lineno for argument in node.args if dotted(argument) in EVERYTHING]
    return found


def test_nobody_catches_everything_without_saying_why():
    faults = [f"{module.name}:{line}" for module in MODULES.values() for line in unexplained(module.text)]
    assert not faults, listed(faults)


@pytest.mark.parametrize(
    ("handler", "lines"),
    [
        ("except Exception:\n    pass", [3]),
        ("except:\n    pass", [3]),
        ("except (OSError, BaseException):\n    pass", [3]),
        ("except* Exception:\n    pass", [3]),
        ("# A bug is reported, whatever it is.\nexcept Exception:\n    pass", []),
        ("except Exception:  # whatever a callback raises is its own\n    pass", []),
        ("except BaseException:\n    close()\n    raise", []),
        ("except OSError:\n    pass", []),
    ],
)
def test_a_silent_catch_of_everything_is_recognised(handler, lines):
    assert unexplained(f"try:\n    work()\n{handler}\n") == lines


def test_a_silent_suppression_of_everything_is_recognised():
    assert unexplained("with suppress(OSError):\n    work()\nwith contextlib.suppress(Exception):\n    work()\n") == [3]


LONGEST = 450
"""Lines of a module: what is longer has more than one subject."""


@pytest.mark.parametrize("name", NAMES)
def test_no_module_is_longer_than_one_can_keep_in_mind(name):
    assert len(MODULES[name].text.splitlines()) <= LONGEST


def test_no_function_changes_a_global():
    faults = [
        f"{name}:{node.lineno}"
        for name in NAMES
        for node in ast.walk(MODULES[name].tree)
        if isinstance(node, ast.Global)
    ]
    assert not faults, listed(faults)


@pytest.mark.parametrize("path", [ROOT / "run.py", *sorted((ROOT / "tools").glob("*.py"))], ids=lambda path: path.name)
def test_what_is_started_by_hand_is_a_few_lines_and_lives_in_the_package(path):
    if not path.exists():
        pytest.skip(f"{path.name} is absent")
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 25
    assert "trio_candles" in text


def test_no_test_module_imports_another():
    faults = [
        f"{path.relative_to(ROOT)}:{node.lineno} imports {node.module}"
        for path in sorted((ROOT / "tests").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("test_")
    ]
    assert not faults, listed(faults)
