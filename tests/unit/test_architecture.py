"""The direction of imports between packages, held against every import there is.

The tables below are the architecture. A new package, a new dependency or a new direction is a
decision: make it here, in the same commit.
"""

import ast
import graphlib
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = "octane_analytics"
ROOT = Path(__file__).resolve().parents[2] / PACKAGE
MAX_LINES = 400
MAX_TOP_LEVEL_MODULES = 9

CORE = frozenset({"errors", "types", "interfaces", "runtime", "events", "pipeline", "replay"})
"""Packages that know no client library and no environment variable; only `runtime` knows signals."""

_VALUES = frozenset({"errors", "types", "interfaces"})
_EDGES = frozenset({"kafka", "clickhouse", "telemetry"})
_CHECKS = frozenset({"operations", "operations.checks"})
_API = frozenset(
    {"api", "api.auth", "api.dashboard", "api.docs", "api.middleware"}
    | {"api.raw_sql", "api.reports", "api.results"}
)

MAY_IMPORT: Mapping[str, frozenset[str]] = {
    "errors": frozenset(),
    "types": frozenset({"errors"}),
    "interfaces": frozenset({"types"}),
    "runtime": frozenset({"errors"}),
    "settings": frozenset({"errors"}),
    "events": frozenset({"errors", "types"}),
    "pipeline": _VALUES | {"runtime", "events"},
    "replay": _VALUES | {"runtime", "events", "pipeline"},
    "kafka": _VALUES | {"runtime", "settings"},
    # The staging tables of a replay satisfy the Protocols that `replay` declares.
    "clickhouse": frozenset({"errors", "types", "events", "replay", "runtime", "settings"}),
    "telemetry": _VALUES | {"settings"},
    "sandbox": frozenset(),
    "operations": _VALUES | {"events", "kafka", "pipeline", "replay"},
    "operations.checks": frozenset({"errors", "types", "pipeline", "settings"})
    | {"kafka", "clickhouse", "operations"},
    "supervisor": frozenset({"errors", "runtime", "telemetry"}),
    "api": frozenset({"errors", "runtime", "clickhouse"}),
    "api.results": frozenset({"errors", "clickhouse", "api"}),
    "api.auth": frozenset({"errors", "telemetry", "api"}),
    "api.middleware": frozenset({"errors", "telemetry", "api", "api.auth", "api.results"}),
    "api.reports": frozenset(
        {"errors", "clickhouse", "telemetry", "api", "api.auth", "api.results"}
    ),
    "api.raw_sql": frozenset({"errors", "clickhouse", "telemetry", "api", "api.results"}),
    "api.dashboard": frozenset({"telemetry", "supervisor", "api.auth", "api.results"}),
    "api.docs": frozenset({"api", "api.raw_sql", "api.reports", "api.results"}),
    # gunicorn reports to systemd too early by itself: the supervisor's sd_notify does it.
    "api.server": _API | {"errors", "settings", "clickhouse", "telemetry", "supervisor"},
    "worker": _VALUES
    | _EDGES
    | {"events", "pipeline", "runtime", "settings", "supervisor", "operations"},
    "cli": frozenset({"errors", "runtime", "settings", "supervisor"}),
    "cli.output": frozenset({"errors", "runtime"}),
    "cli.dlq": frozenset({"operations", "settings", "types", "cli", "cli.output"}),
    "cli.produce": frozenset({"errors", "events", "interfaces", "runtime", "sandbox"}),
    "cli.replay": _VALUES
    | {"events", "kafka", "clickhouse", "replay", "runtime", "settings", "supervisor"}
    | {"cli.output"},
    "cli.sandbox": _VALUES
    | {"clickhouse", "runtime", "sandbox", "settings", "telemetry", "cli", "cli.output"},
    "cli.commands": _VALUES
    | _EDGES
    | _CHECKS
    | _API
    | {"events", "replay", "runtime", "sandbox", "settings", "supervisor", "worker"}
    | {"api.server", "cli", "cli.dlq", "cli.output", "cli.produce", "cli.replay", "cli.sandbox"},
    # `python -m octane_analytics` is the command.
    "__main__": frozenset({"cli"}),
    # The package's own __init__ holds the version, which any package may import.
    "__init__": frozenset(),
}

THIRD_PARTY: Mapping[str, frozenset[str]] = {
    "runtime": frozenset({"msgspec"}),
    "events": frozenset({"msgspec"}),
    "kafka": frozenset({"confluent_kafka"}),
    "clickhouse": frozenset({"clickhouse_driver"}),
    "telemetry": frozenset({"prometheus_client", "opentelemetry"}),
    "sandbox": frozenset({"msgspec"}),
    # Python cannot write into argv; without this every process shows the same line in `ps`.
    "supervisor": frozenset({"setproctitle"}),
    "api": frozenset({"starlette", "msgspec"}),
    "api.auth": frozenset({"starlette", "msgspec", "tomlkit"}),
    "api.dashboard": frozenset({"starlette"}),
    "api.docs": frozenset({"starlette"}),
    "api.middleware": frozenset({"starlette", "zstd"}),
    "api.raw_sql": frozenset({"starlette", "sqlglot"}),
    "api.reports": frozenset({"starlette", "msgspec", "cachetools"}),
    "api.results": frozenset({"msgspec"}),
    "api.server": frozenset({"starlette", "gunicorn", "uvicorn", "uvicorn_worker", "h11"}),
    "cli": frozenset({"click"}),
    "cli.commands": frozenset({"click", "rich"}),
    "cli.dlq": frozenset({"click"}),
    "cli.output": frozenset({"click", "rich"}),
    "cli.produce": frozenset({"click"}),
    "cli.replay": frozenset({"click"}),
    "cli.sandbox": frozenset({"rich"}),
}
"""Import names of libraries by package; an absent package has the standard library only."""

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
    """Return the violations in the given sources (by dotted name, packages as `x.__init__`)."""
    trees = {name: ast.parse(source, name) for name, source in modules.items()}
    imports = {name: list(_imports(name, tree, modules)) for name, tree in trees.items()}
    found: list[str] = []
    for name, tree in trees.items():
        package = package_of(name)
        if package not in MAY_IMPORT:
            found.append(f"{name}: unknown package {package!r} in the table")
            continue
        found += _misplaced_imports(name, package, imports[name])
        found += _misbehaviour(name, package, tree)
    found += _cycle("modules", _module_graph(imports, modules))
    found += _cycle("packages", _package_graph(imports))
    return found


def package_of(module: str) -> str:
    """Return the package that a module belongs to; a module at the top level is its own.

    `octane_analytics.cli.main` is in `cli`, `octane_analytics.api.auth.tokens` in `api.auth`,
    `octane_analytics` itself in `__init__`.
    """
    parts = module.split(".")[1:]
    for length in range(len(parts), 0, -1):
        if (name := ".".join(parts[:length])) in MAY_IMPORT:
            return name
    return parts[0] if parts else "__init__"


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
    is_known = package == PACKAGE and member in MAY_IMPORT
    return is_known or name in modules or f"{name}.__init__" in modules


def _misplaced_imports(name: str, package: str, imports: list[Import]) -> Iterator[str]:
    for item in imports:
        where = f"{name}:{item.line}"
        if item.is_own:
            target = package_of(item.target)
            if target not in MAY_IMPORT[package] | {package, "__init__"}:
                yield f"{where}: {package} may not import {target}"
            if item.is_local:
                yield f"{where}: an import of {item.target} hides in a function"
        elif (top := item.target.partition(".")[0]) not in sys.stdlib_module_names:
            if top in SOLE_IMPORTERS and package != SOLE_IMPORTERS[top]:
                yield f"{where}: only {SOLE_IMPORTERS[top]} may import {top}"
            elif top not in THIRD_PARTY.get(package, ()):
                yield f"{where}: {package} may not import {top}"
        elif package in CORE - {"runtime"} and top == "signal":
            yield f"{where}: the core knows no signals"


def _misbehaviour(name: str, package: str, tree: ast.Module) -> Iterator[str]:
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
            ) if package in CORE:
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


def _package_graph(imports: Mapping[str, list[Import]]) -> dict[str, set[str]]:
    graph: dict[str, set[str]] = {}
    for name, items in imports.items():
        packages = {package_of(item.target) for item in items if item.is_own}
        graph.setdefault(package_of(name), set()).update(packages - {package_of(name)})
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


def test_modules_import_as_the_table_allows() -> None:
    sources = _sources()
    assert f"{PACKAGE}.types" in sources, f"{ROOT} does not hold the package"
    found = violations(sources)
    assert not found, "\n".join(["", *found])


def test_class_names_stand_once() -> None:
    names = Counter(
        node.name
        for source in _sources().values()
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ClassDef)
    )
    assert [name for name, times in names.items() if times > 1] == []


def test_modules_are_short() -> None:
    lengths = {name: source.count("\n") for name, source in _sources().items()}
    assert {name: lines for name, lines in lengths.items() if lines > MAX_LINES} == {}


def test_top_level_holds_few_modules() -> None:
    assert len(list(ROOT.glob("*.py"))) <= MAX_TOP_LEVEL_MODULES


def test_table_has_no_cycle_and_no_unknown_name() -> None:
    graph = {package: set(others) for package, others in MAY_IMPORT.items()}
    assert list(_cycle("packages", graph)) == []
    assert set().union(*MAY_IMPORT.values()) | THIRD_PARTY.keys() | CORE <= MAY_IMPORT.keys()


def test_core_imports_only_the_core() -> None:
    for package in CORE:
        assert MAY_IMPORT[package] <= CORE
    clients = {"confluent_kafka", "clickhouse_driver", "prometheus_client", "opentelemetry"}
    assert not any(THIRD_PARTY.get(package, frozenset()) & clients for package in CORE)


def test_client_libraries_have_one_importer() -> None:
    for library, owner in SOLE_IMPORTERS.items():
        assert [package for package, known in THIRD_PARTY.items() if library in known] == [owner]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("pipeline.intents", "from octane_analytics.types import OffsetRange"),
        ("pipeline.intents", "from octane_analytics import __version__"),
        ("pipeline.ingest_loop", "from octane_analytics.pipeline.batch import Batch"),
        ("clickhouse.client", "from octane_analytics.clickhouse import schema as expected"),
        ("clickhouse.client", "import clickhouse_driver.errors"),
        ("kafka.consumer", "from confluent_kafka.admin import AdminClient"),
        ("kafka.consumer", "from .client import Broker"),
        ("kafka.consumer", "from octane_analytics.kafka import client"),
        ("replay.fill", "from octane_analytics import pipeline"),
        ("worker.process", "import os\nfrom octane_analytics.kafka import client"),
        ("worker.process", "from octane_analytics.supervisor import status_board"),
        ("api.server.app", "from octane_analytics.api.auth import tokens"),
        ("cli.main", "import signal, click\nfrom octane_analytics.supervisor import arbiter"),
        ("settings.loading", "import os\ndef f() -> object:\n    return os.environ"),
        ("sandbox.engine", "def f() -> None:\n    import ctypes"),
        ("telemetry.exposition", "from ..settings import loading"),
        ("runtime.stop_signal", "import signal"),
    ],
)
def test_checker_accepts(module: str, source: str) -> None:
    assert violations(_one(module, source)) == []


@pytest.mark.parametrize(
    ("module", "source", "complaint"),
    [
        (
            "pipeline.batch",
            "from octane_analytics.kafka import client",
            "pipeline may not import kafka",
        ),
        ("pipeline.batch", "from octane_analytics import kafka", "pipeline may not import kafka"),
        ("pipeline.batch", "import octane_analytics.settings", "pipeline may not import settings"),
        ("pipeline.batch", "from .. import settings", "pipeline may not import settings"),
        ("events.decode", "from ..pipeline.batch import Batch", "events may not import pipeline"),
        ("telemetry.exposition", "from .. import api", "telemetry may not import api"),
        ("pipeline.batch", "from octane_analytics.settings import load", "may not import settings"),
        (
            "worker.process",
            "from octane_analytics.cli.main import main",
            "worker may not import cli",
        ),
        (
            "api.auth.tokens",
            "from octane_analytics.api.server import app",
            "may not import api.server",
        ),
        ("api.raw_sql.validator", "from octane_analytics.api.reports import cache", "api.reports"),
        ("cli.output.table", "from octane_analytics.cli.commands import lag", "cli.commands"),
        ("worker.process", "import confluent_kafka", "only kafka may import confluent_kafka"),
        ("sandbox.kafka", "import confluent_kafka.admin", "only kafka may import"),
        ("api.server.app", "from clickhouse_driver import Client", "only clickhouse may import"),
        ("pipeline.batch", "import msgspec", "pipeline may not import msgspec"),
        ("supervisor.arbiter", "import click", "supervisor may not import click"),
        ("pipeline.ingest_loop", "import signal", "the core knows no signals"),
        ("pipeline.ingest_loop", "from signal import SIGTERM", "the core knows no signals"),
        ("runtime.timing", "import os\nX = os.environ.get('X')", "no environment variables"),
        ("runtime.timing", "import os\nX = os.getenv('X')", "no environment variables"),
        ("runtime.timing", "from os import environ", "no environment variables"),
        (
            "cli.main",
            "def f() -> None:\n    from octane_analytics.worker import process",
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
        ("helpers", "", "unknown package 'helpers'"),
        ("api.__init__", "from octane_analytics.api.server.app import app", "version only"),
        ("api.__init__", "__all__ = ['app']", "version only"),
    ],
)
def test_checker_refuses(module: str, source: str, complaint: str) -> None:
    found = violations(_one(module, source))
    assert len([text for text in found if complaint in text]) >= 1, found


def test_checker_refuses_a_module_without_docstring() -> None:
    assert violations({f"{PACKAGE}.types": "X = 1"}) == [f"{PACKAGE}.types: has no docstring"]


def test_checker_refuses_a_cycle_of_modules() -> None:
    modules = _one("api.app", "from octane_analytics.api.pool import check")
    modules |= _one("api.pool", "from octane_analytics.api import app")
    (found,) = violations(modules)
    assert found.startswith("modules import each other: ")


def test_checker_refuses_a_cycle_of_packages() -> None:
    modules = _one("kafka.consumer", "from octane_analytics.telemetry.tracing import span")
    modules |= _one("telemetry.exposition", "from octane_analytics.kafka.client import Broker")
    found = violations(modules)
    assert any(text.startswith("packages import each other: ") for text in found), found
    assert not any(text.startswith("modules import each other") for text in found), found


def _one(module: str, source: str) -> dict[str, str]:
    return {f"{PACKAGE}.{module}": f'"""Says what it owns."""\n{source}\n'}
