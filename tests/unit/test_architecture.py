"""The rooms of the house: which module may import which, held against every import there is.

The tables below are the architecture. A new room, a new dependency or a new direction is a decision:
make it here, in the same commit.
"""

import ast
import graphlib
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = "octane_analytics"
ROOT = Path(__file__).resolve().parents[2] / PACKAGE

CORE = frozenset(
    [
        "columns",
        "types",
        "errors",
        "timing",
        "schema",
        "decode",
        "batch",
        "breaker",
        "ledger",
        "outages",
        "outbox",
        "positions",
        "ingest",
        "replay",
    ]
)
"""Knows no client library, no environment variable, no signal."""

MAY_IMPORT: Mapping[str, frozenset[str]] = {
    "columns": frozenset(),
    "types": frozenset({"columns"}),
    "errors": frozenset({"types"}),
    # What an exception means for the process that it ends.
    "exits": frozenset({"errors"}),
    "timing": frozenset({"types"}),
    "settings": frozenset({"errors"}),
    "schema": frozenset({"types"}),
    "decode": frozenset({"columns", "types", "errors"}),
    "batch": frozenset({"columns", "types", "errors"}),
    "breaker": frozenset({"errors"}),
    "outages": frozenset({"types", "errors"}),
    "outbox": CORE - {"outbox", "positions", "ingest", "replay"},
    "positions": CORE - {"positions", "ingest", "replay"},
    "ledger": frozenset({"types", "errors"}),
    "ingest": CORE - {"ingest", "replay"},
    "replay": CORE - {"replay"},
    # What the API's own settings say of limits is what the ClickHouse user is made with.
    "grants": frozenset({"schema", "settings"}),
    "kafka": frozenset({"types", "errors", "settings"}),
    "clickhouse": frozenset({"columns", "types", "errors", "settings", "schema"}),
    # What a replay keeps beside the target; speaks ClickHouse through the room that knows it.
    "staging": frozenset({"types", "errors", "schema", "replay", "clickhouse"}),
    "telemetry": frozenset({"types", "errors", "settings"}),
    "supervisor": frozenset({"types", "errors", "exits", "timing", "telemetry"}),
    "worker": CORE | {"exits", "settings", "kafka", "clickhouse", "telemetry", "operations"},
    # The supervisor's words to systemd; gunicorn's own come too early.
    "api": frozenset({"types", "errors", "exits", "settings", "schema", "clickhouse", "telemetry"})
    | {"supervisor"},
    "sandbox": frozenset({"settings", "types", "errors"}),
    # What operators look at and mend: below the commands, so that it is tested without them.
    "operations": CORE | {"settings", "kafka", "clickhouse"},
    "cli": CORE
    | {"exits", "settings", "kafka", "clickhouse", "telemetry", "supervisor", "worker", "api"}
    | {"grants", "sandbox", "staging", "operations"},
    # `python -m octane_analytics` is the command.
    "__main__": frozenset({"cli"}),
    # The package's own __init__ holds the version, which any room may ask for.
    "__init__": frozenset(),
}

THIRD_PARTY: Mapping[str, frozenset[str]] = {
    "decode": frozenset({"msgspec"}),
    "kafka": frozenset({"confluent_kafka"}),
    "clickhouse": frozenset({"clickhouse_driver"}),
    "telemetry": frozenset({"prometheus_client", "opentelemetry"}),
    "api": frozenset(
        {"starlette", "gunicorn", "uvicorn", "uvicorn_worker", "h11", "msgspec", "tomlkit"}
    ),
    "sandbox": frozenset({"msgspec"}),
    # Writing into argv is no work for Python; without it `ps` shows eight times the same line.
    "supervisor": frozenset({"setproctitle"}),
    "cli": frozenset({"click", "rich"}),
}
"""Distributions' import names by room; a room that is absent has the standard library only."""

SOLE_IMPORTERS = {"confluent_kafka": "kafka", "clickhouse_driver": "clickhouse"}


@dataclass(frozen=True)
class Import:
    """One imported module, by its absolute name."""

    target: str
    line: int
    is_local: bool

    @property
    def is_own(self) -> bool:
        return self.target.partition(".")[0] == PACKAGE


def violations(modules: Mapping[str, str]) -> list[str]:
    """What breaks the rules in the given sources (by dotted name, packages as `x.__init__`)."""
    trees = {name: ast.parse(source, name) for name, source in modules.items()}
    imports = {name: list(_imports(name, tree, modules)) for name, tree in trees.items()}
    found: list[str] = []
    for name, tree in trees.items():
        room = room_of(name)
        if room not in MAY_IMPORT:
            found.append(f"{name}: there is no room {room!r} in the table")
            continue
        found += _misplaced_imports(name, room, imports[name])
        found += _misbehaviour(name, room, tree)
    found += _cycle("modules", _module_graph(imports, modules))
    found += _cycle("rooms", _room_graph(imports))
    return found


def room_of(module: str) -> str:
    """`octane_analytics.cli.main` is in the room cli, `octane_analytics` in __init__."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def _imports(name: str, tree: ast.Module, modules: Mapping[str, str]) -> Iterator[Import]:
    at_top = {id(node) for node in _outside_functions(tree)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            origin = _origin(name, node)
            targets = [
                # A name can be a module of that package or something the module defines.
                member if _is_module(member := f"{origin}.{alias.name}", modules) else origin
                for alias in node.names
            ]
        else:
            continue
        for target in dict.fromkeys(targets):
            yield Import(target, node.lineno, is_local=id(node) not in at_top)


def _outside_functions(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
            yield from _outside_functions(child)


def _origin(name: str, node: ast.ImportFrom) -> str:
    if node.level == 0:
        assert node.module is not None
        return node.module
    base = name.split(".")[: -node.level]
    return ".".join([*base, node.module] if node.module else base)


def _is_module(name: str, modules: Mapping[str, str]) -> bool:
    package, _, member = name.partition(".")
    is_room = package == PACKAGE and member in MAY_IMPORT
    return is_room or name in modules or f"{name}.__init__" in modules


def _misplaced_imports(name: str, room: str, imports: list[Import]) -> Iterator[str]:
    for item in imports:
        where = f"{name}:{item.line}"
        if item.is_own:
            target = room_of(item.target)
            if target not in MAY_IMPORT[room] | {room, "__init__"}:
                yield f"{where}: {room} may not import {target}"
            if item.is_local:
                yield f"{where}: an import of {item.target} hides in a function"
        elif (top := item.target.partition(".")[0]) not in sys.stdlib_module_names:
            if top in SOLE_IMPORTERS and room != SOLE_IMPORTERS[top]:
                yield f"{where}: only {SOLE_IMPORTERS[top]} may import {top}"
            elif top not in THIRD_PARTY.get(room, ()):
                yield f"{where}: {room} may not import {top}"
        elif room in CORE and top == "signal":
            yield f"{where}: the core knows no signals"


def _misbehaviour(name: str, room: str, tree: ast.Module) -> Iterator[str]:
    if not ast.get_docstring(tree):
        yield f"{name}: has no docstring"
    if name.endswith(".__init__"):
        for statement in tree.body[1:] if ast.get_docstring(tree) else tree.body:
            if not _is_version(statement):
                yield f"{name}:{statement.lineno}: an __init__ holds a docstring and the version only"
    for node in ast.walk(tree):
        match node:
            case (
                ast.Name(id="TYPE_CHECKING")
                | ast.Attribute(attr="TYPE_CHECKING")
                | ast.alias(name="TYPE_CHECKING")
            ):
                yield f"{name}:{node.lineno}: TYPE_CHECKING hides an import"
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__")
                | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(target)), *_],
            ) if target.startswith((PACKAGE, ".")):
                yield f"{name}:{node.lineno}: an import of {target} hides in a call"
            case (
                ast.Attribute(value=ast.Name(id="os"), attr="environ" | "environb" | "getenv")
                | ast.alias(name="environ" | "environb" | "getenv")
            ) if room in CORE:
                yield f"{name}:{node.lineno}: the core knows no environment variables"
            case _:
                pass


def _is_version(node: ast.stmt) -> bool:
    match node:
        case ast.Assign(targets=[ast.Name(id="__version__")], value=ast.Constant()):
            return True
        case _:
            return False


def _module_graph(
    imports: Mapping[str, list[Import]], modules: Mapping[str, str]
) -> dict[str, set[str]]:
    graph: dict[str, set[str]] = {}
    for name, items in imports.items():
        targets = (item.target for item in items if item.is_own)
        files = (t if t in modules else f"{t}.__init__" for t in targets)
        graph[name] = {file for file in files if file in modules and file != name}
    return graph


def _room_graph(imports: Mapping[str, list[Import]]) -> dict[str, set[str]]:
    graph: dict[str, set[str]] = {}
    for name, items in imports.items():
        rooms = {room_of(item.target) for item in items if item.is_own}
        graph.setdefault(room_of(name), set()).update(rooms - {room_of(name)})
    return graph


def _cycle(what: str, graph: Mapping[str, set[str]]) -> Iterator[str]:
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        yield f"{what} import each other: {' -> '.join(error.args[1])}"


def _sources() -> dict[str, str]:
    return {
        ".".join(path.relative_to(ROOT.parent).with_suffix("").parts): path.read_text("utf-8")
        for path in sorted(ROOT.rglob("*.py"))
    }


def test_package_keeps_to_its_rooms() -> None:
    sources = _sources()
    assert f"{PACKAGE}.types" in sources, f"{ROOT} does not hold the package"
    found = violations(sources)
    assert not found, "\n".join(["", *found])


def test_table_itself_has_no_cycle_and_no_stranger() -> None:
    graph = {room: set(others) for room, others in MAY_IMPORT.items()}
    assert list(_cycle("rooms", graph)) == []
    assert set().union(*MAY_IMPORT.values()) | THIRD_PARTY.keys() | CORE <= MAY_IMPORT.keys()


def test_table_lets_the_core_see_only_the_core() -> None:
    for room in CORE:
        assert MAY_IMPORT[room] <= CORE
    clients = {"confluent_kafka", "clickhouse_driver", "prometheus_client", "opentelemetry"}
    assert not any(THIRD_PARTY.get(room, frozenset()) & clients for room in CORE)


def test_table_names_one_importer_of_each_client() -> None:
    for library, owner in SOLE_IMPORTERS.items():
        assert [room for room, known in THIRD_PARTY.items() if library in known] == [owner]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("ledger", "from octane_analytics.types import Span"),
        ("ledger", "from octane_analytics import __version__"),
        ("clickhouse", "from octane_analytics import schema as contract"),
        ("clickhouse", "import clickhouse_driver.errors"),
        ("kafka.source", "from confluent_kafka.admin import AdminClient"),
        ("kafka.source", "from .client import Broker"),
        ("kafka.source", "from octane_analytics.kafka import client"),
        ("ingest", "from octane_analytics.ledger import Ledger"),
        ("replay", "from octane_analytics import ingest"),
        ("worker", "import os\nfrom octane_analytics.kafka import client"),
        ("cli.main", "import signal, click\nfrom octane_analytics.supervisor import arbiter"),
        ("settings", "import os\ndef f() -> object:\n    return os.environ"),
        ("sandbox.engine", "def f() -> None:\n    import ctypes"),
        ("telemetry.metrics", "from ..settings import load"),
    ],
)
def test_checker_accepts(module: str, source: str) -> None:
    assert violations(_one(module, source)) == []


@pytest.mark.parametrize(
    ("module", "source", "complaint"),
    [
        ("ledger", "from octane_analytics.kafka import client", "ledger may not import kafka"),
        ("ledger", "from octane_analytics import kafka", "ledger may not import kafka"),
        ("ledger", "import octane_analytics.settings", "ledger may not import settings"),
        ("ledger", "from . import settings", "ledger may not import settings"),
        ("ledger", "from .batch import Batch", "ledger may not import batch"),
        ("telemetry.metrics", "from .. import api", "telemetry may not import api"),
        ("ingest", "from octane_analytics.settings import load", "ingest may not import settings"),
        ("worker", "from octane_analytics.cli.main import main", "worker may not import cli"),
        ("worker", "from octane_analytics.supervisor import states", "not import supervisor"),
        ("worker", "import confluent_kafka", "only kafka may import confluent_kafka"),
        ("sandbox.kafka", "import confluent_kafka.admin", "only kafka may import"),
        ("api.app", "from clickhouse_driver import Client", "only clickhouse may import"),
        ("batch", "import msgspec", "batch may not import msgspec"),
        ("supervisor.arbiter", "import click", "supervisor may not import click"),
        ("ingest", "import signal", "the core knows no signals"),
        ("ingest", "from signal import SIGTERM", "the core knows no signals"),
        ("timing", "import os\nX = os.environ.get('X')", "no environment variables"),
        ("timing", "import os\nX = os.getenv('X')", "no environment variables"),
        ("timing", "from os import environ", "no environment variables"),
        (
            "cli.main",
            "def f() -> None:\n    from octane_analytics.worker import run",
            "hides in a function",
        ),
        (
            "cli.main",
            "class A:\n    async def f(self) -> None:\n        import octane_analytics.worker",
            "hides in a function",
        ),
        (
            "cli.main",
            "import importlib\nimportlib.import_module('octane_analytics.worker')",
            "hides in a call",
        ),
        ("cli.main", "from typing import TYPE_CHECKING", "TYPE_CHECKING hides"),
        ("cli.main", "import typing\nif typing.TYPE_CHECKING:\n    import rich", "hides an import"),
        ("helpers", "", "there is no room 'helpers'"),
        ("api.__init__", "from octane_analytics.api.app import app", "version only"),
        ("api.__init__", "__all__ = ['app']", "version only"),
    ],
)
def test_checker_refuses(module: str, source: str, complaint: str) -> None:
    found = violations(_one(module, source))
    assert len([text for text in found if complaint in text]) >= 1, found


def test_checker_refuses_a_module_without_docstring() -> None:
    assert violations({f"{PACKAGE}.types": "X = 1"}) == [f"{PACKAGE}.types: has no docstring"]


def test_checker_refuses_modules_of_one_room_that_import_each_other() -> None:
    modules = _one("api.app", "from octane_analytics.api.auth import check")
    modules |= _one("api.auth", "from octane_analytics.api import app")
    (found,) = violations(modules)
    assert found.startswith("modules import each other: ")


def test_checker_refuses_rooms_that_import_each_other_through_different_modules() -> None:
    modules = _one("kafka.source", "from octane_analytics.telemetry.tracing import span")
    modules |= _one("telemetry.metrics", "from octane_analytics.kafka.client import Broker")
    found = violations(modules)
    assert any(text.startswith("rooms import each other: ") for text in found), found
    assert not any(text.startswith("modules import each other") for text in found), found


def _one(module: str, source: str) -> dict[str, str]:
    return {f"{PACKAGE}.{module}": f'"""Says what it owns."""\n{source}\n'}
