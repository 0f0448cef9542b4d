"""README, manual, CHANGELOG and examples agree with the code."""

import configparser
import fnmatch
import importlib
import json
import re
import shlex
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import click
import pytest
from prometheus_client import CollectorRegistry

from octane_analytics import __version__
from octane_analytics.api.auth import token_file, tokens
from octane_analytics.cli.commands.manual import PAGES, description
from octane_analytics.cli.main import COMMANDS
from octane_analytics.clickhouse.error_codes import DATA_ERRORS, OPERATOR_ERRORS
from octane_analytics.events.decode import REASONS
from octane_analytics.runtime.exit_codes import Exit
from octane_analytics.sandbox.generator import generate
from octane_analytics.settings.loading import catalogue, load
from octane_analytics.telemetry.api_metrics import ApiMetrics
from octane_analytics.telemetry.dedup_window import DedupWindowCollector
from octane_analytics.telemetry.exposition import ComputedMetrics
from octane_analytics.telemetry.lag_metrics import LagCollector
from octane_analytics.telemetry.process_metrics import ProcessMetrics
from octane_analytics.telemetry.supervisor_metrics import SupervisorMetrics
from octane_analytics.telemetry.worker_metrics import (
    WorkerMetrics,
)

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "octane_analytics"
MANUAL = PACKAGE / "manual"
README = (ROOT / "README.md").read_text()
CHANGELOG = (ROOT / "CHANGELOG.md").read_text()
EXAMPLE = ROOT / "conf" / "octane-analytics.env"
README_BYTES = 8_000
PAGE_BYTES = 10_000
COLUMNS = 80
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    ROOT / ".github" / "CONTRIBUTING.md",
    ROOT / "tests" / "README.md",
    *sorted(MANUAL.glob("*.md")),
]
WRAPPED = [path for path in DOCUMENTS if path.name != "CHANGELOG.md"]
SETTINGS = {setting.name: setting for setting in catalogue()}


def page(name: str) -> str:
    return (MANUAL / f"{name}.md").read_text()


def table(text: str, heading: str) -> str:
    """Return the table whose first row begins with the text."""
    return text[text.index(f"| {heading} |") :].split("\n\n")[0]


def names_of(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


# --- form ---


def test_readme_and_pages_are_short_enough() -> None:
    assert len(README.encode()) <= README_BYTES
    for path in MANUAL.glob("*.md"):
        assert len(path.read_bytes()) <= PAGE_BYTES, f"{path.name}: split the page"


def test_manual_lists_exactly_the_pages_there_are() -> None:
    assert sorted(PAGES) == sorted(path.stem for path in MANUAL.iterdir())


def test_readme_lists_every_page_with_its_description() -> None:
    listed = re.findall(r"^\| \[([\w-]+)\]\(\S+/\1\.md\) \| (.+) \|$", README, re.MULTILINE)
    assert listed == [(name, description(name)) for name in PAGES]


@pytest.mark.parametrize("name", PAGES)
def test_page_begins_with_title_and_one_line_description(name: str) -> None:
    title, blank, line, after, *_ = page(name).splitlines()
    assert title.startswith("# ")
    assert line.endswith(".")
    assert blank == after == ""


@pytest.mark.parametrize("path", WRAPPED, ids=names_of(WRAPPED))
def test_prose_fits_eighty_columns(path: Path) -> None:
    is_code = False
    for number, line in enumerate(path.read_text().splitlines(), 1):
        is_code ^= line.startswith("```")
        if not is_code and not line.startswith("|"):
            assert len(line) <= COLUMNS, f"{path.name}:{number}"


def anchors(text: str) -> set[str]:
    """Return GitHub's anchors of the headings."""
    headings = re.findall(r"^#+ (.+)$", _without_code(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _without_code(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("path", DOCUMENTS, ids=names_of(DOCUMENTS))
def test_links_lead_to_files_and_sections(path: Path) -> None:
    text = _without_code(path.read_text())
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        linked = path.parent / name if name else path
        assert linked.exists(), f"{path.name}: {target}"
        assert not anchor or anchor in anchors(linked.read_text()), f"{path.name}: {target}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=names_of(DOCUMENTS))
def test_named_files_and_programs_exist(path: Path) -> None:
    for name in re.findall(r"`((?:conf|bin|tests)/[\w./-]+)[` ]", path.read_text()):
        assert (ROOT / name).exists(), name
    for module in re.findall(r"python -m (tests[\w.]+)", path.read_text()):
        assert (ROOT / module.replace(".", "/")).with_suffix(".py").exists(), module


def test_package_data_holds_every_file_but_modules() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    patterns = config["options.package_data"]["octane_analytics"].split()
    for path in PACKAGE.rglob("*"):
        name = str(path.relative_to(PACKAGE))
        if path.is_file() and path.suffix not in (".py", ".pyc", ".so"):
            assert any(fnmatch.fnmatch(name, pattern) for pattern in patterns), name


# --- commands ---


def examples() -> Iterator[tuple[str, str]]:
    """Yield every command line of the service in a code block, with its document."""
    for path in DOCUMENTS:
        for block in re.findall(r"^```(?:sh)?\n(.*?)^```$", path.read_text(), re.DOTALL | re.M):
            for line in block.replace("\\\n", " ").splitlines():
                match = re.match(r"(?:\$ |until )?octane-analytics ([a-z].*)", line)
                if match:
                    yield path.name, re.split(r" [|&>]|; do| <<", match[1])[0]


def _command(name: str) -> click.Command:
    command = getattr(importlib.import_module(f"octane_analytics.cli.commands.{name}"), name)
    assert isinstance(command, click.Command)
    return command


EXAMPLES = list(dict.fromkeys(examples()))


@pytest.mark.parametrize(("document", "line"), EXAMPLES, ids=[" ".join(e) for e in EXAMPLES])
def test_example_is_a_command_with_its_options(document: str, line: str) -> None:
    name, *words = shlex.split(line, comments=True)
    if name == "topic" and name not in COMMANDS:
        pytest.skip("this version does not have the command")
    command = _command(name)
    while isinstance(command, click.Group):
        command = command.commands[words.pop(0)]
    known = {flag for option in command.params for flag in (*option.opts, *option.secondary_opts)}
    asked = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
    assert asked <= known, f"{document}: {asked - known}"


def _leaves(name: str, command: click.Command) -> Iterator[str]:
    if isinstance(command, click.Group):
        for inner, sub in command.commands.items():
            yield from _leaves(f"{name} {inner}", sub)
    else:
        yield name


@pytest.mark.parametrize("name", COMMANDS)
def test_operations_page_lists_every_command(name: str) -> None:
    listed = table(page("operations"), "command")
    for leaf in _leaves(name, _command(name)):
        assert f"`{leaf}`" in listed, leaf


@pytest.mark.parametrize("code", [code.value for code in Exit])
def test_operations_page_lists_every_exit_code(code: int) -> None:
    assert re.search(rf"^\|[^|]*\b{code}\b", table(page("operations"), "exit code"), re.MULTILINE)


# --- settings, metrics, reports, reasons, codes ---

SETTING_ROWS = {
    name: default
    for text in (page("settings"), page("settings-api"))
    for name, default in re.findall(r"^\| `([A-Z_]+)` \| (.*?) \|", text, re.MULTILINE)
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_pages_have_a_row_for_every_setting(name: str) -> None:
    assert name in SETTING_ROWS


@pytest.mark.parametrize("name", SETTING_ROWS)
def test_settings_pages_show_settings_and_defaults_that_exist(name: str) -> None:
    default = re.fullmatch(r"`([\w.:-]+)`(?: s| events)?", SETTING_ROWS[name])
    assert name in SETTINGS
    # A default in prose, such as 32 MiB, is not compared.
    assert default is None or default[1] in (SETTINGS[name].default, *_inherited(name))


def _inherited(name: str) -> list[str]:
    """Return the setting whose value is this one's default."""
    return ["CLICKHOUSE_USER"] if name == "CLICKHOUSE_QUERY_USER" else []


def metric_names(directory: Path) -> dict[str, tuple[str, ...]]:
    """Return every metric with its labels."""
    registry = CollectorRegistry()
    made = [
        kind(registry) for kind in (WorkerMetrics, ProcessMetrics, SupervisorMetrics, ApiMetrics)
    ]
    families = {
        family.name + ("_total" if family.type == "counter" else ""): family
        for source in (
            registry,
            ComputedMetrics(directory),
            LagCollector(dict),
            DedupWindowCollector(int),
        )
        for family in source.collect()
    }
    labels = {metric._name: metric._labelnames for group in made for metric in vars(group).values()}
    return {name: labels.get(family.name, ()) for name, family in families.items()}


def test_metrics_page_lists_every_metric_with_its_labels(tmp_path: Path) -> None:
    rows = "\n".join(re.findall(r"^\| (`analytics_.*?) \|", page("metrics"), re.MULTILINE))
    for name, labels in metric_names(tmp_path).items():
        listed = f"{{{','.join(labels)}}}" if labels else ""
        assert f"`{name}{listed}`" in rows or (not labels and f"`{name}{{" in rows), name


def test_reports_page_lists_every_built_in_report() -> None:
    listed = re.findall(r"^\| `(\w+)` \|", table(page("reports"), "report"), re.MULTILINE)
    assert sorted(listed) == sorted(path.stem for path in PACKAGE.glob("api/reports/**/*.sql"))


def test_events_page_lists_every_reason() -> None:
    listed = re.findall(r"^\| `(\w+)` \|", table(page("events"), "reason"), re.MULTILINE)
    assert set(listed) - {"refused_by_clickhouse"} == set(REASONS)


def test_events_page_lists_every_generated_name() -> None:
    until = datetime(2026, 2, 2, tzinfo=UTC)
    events = [json.loads(line) for line in generate(5000, seed=1, until=until)]
    listed = "\n".join(
        row.split("|")[1]
        for heading in ("event", "property")
        for row in table(page("events"), heading).splitlines()
    )
    names = {event["event_name"] for event in events}
    for name in names.union(*(event["properties"] for event in events)):
        assert f"`{name}`" in listed, name


def test_events_page_names_only_reports_there_are() -> None:
    reports = {path.stem for path in PACKAGE.glob("api/reports/**/*.sql")}
    for row in table(page("events"), "event").splitlines()[2:]:
        named = set(re.findall(r"`(\w+)`", row.split("|")[3]))
        assert named <= reports, named - reports


CMCD_KEYS = (
    "ab bg bl br bs bsa bsd bsda cen cid cmsdd cmsds cs d dfa dl e ec h lab lb ltc msd mtp nor nr ot"
    " pb pr pt rc rtp sf sid smrt sn st sta su tab tb tbl tpb ts ttfb ttfbb ttlb url v"
)
"""Keys of CTA-5004-A."""
CMCD_VALUES = {
    "e": "abs abe ae as b bc c ce e h m pc pe pr ps rr sk t um",
    "sta": "s p k r a e f q d",
}


def test_events_page_names_only_keys_of_cmcd() -> None:
    rows = [row.strip("|").split("|")[-1] for row in table(page("events"), "ours").splitlines()[2:]]
    named = re.findall(r"`(\w+)(?:=(\w+))?`", "".join(rows))
    assert len(named) > 15
    for key, value in named:
        if value:
            assert value in CMCD_VALUES[key].split(), (key, value)
        else:
            assert key in f"{CMCD_KEYS} {CMCD_VALUES['sta']}".split(), key


def test_clickhouse_page_lists_the_error_codes() -> None:
    rows = table(page("clickhouse"), "codes").splitlines()
    data, operator = ({int(code) for code in re.findall(r"\d+", row)} for row in rows[2:4])
    assert data - {252} == DATA_ERRORS
    assert operator == OPERATOR_ERRORS.keys()


def test_architecture_page_names_every_package() -> None:
    listed = table(page("architecture"), "package")
    for path in PACKAGE.glob("*/"):
        if path.name != "__pycache__":
            assert f"`{path.name}/`" in listed, path.name


# --- changes ---


def test_changelog_has_the_form_of_keep_a_changelog() -> None:
    unreleased, *released = re.findall(r"^## (.+)$", CHANGELOG, re.MULTILINE)
    assert unreleased == "[Unreleased]"
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", name) for name in released)
    for line in CHANGELOG[CHANGELOG.index("## ") :].splitlines():
        assert re.match(r"(## \[|### (Added|Changed|Fixed|Security)$|- [`A-Z0-9].+\.$|$)", line), (
            line
        )


def test_changelog_has_a_section_for_this_version() -> None:
    (newest, *_) = re.findall(r"^## \[(\d.+?)\]", CHANGELOG, re.MULTILINE)
    assert newest == __version__


# --- examples ---


def test_example_environment_has_known_settings_only_and_loads() -> None:
    given, offered = {}, set()
    for line in EXAMPLE.read_text().splitlines():
        match = re.fullmatch(r"(#?)([A-Z_]+)=(.*)", line)
        if match:
            commented, name, value = match.groups()
            offered.add(name)
            if not commented:
                given[name] = value
    for name in offered:
        # Settings of librdkafka and OpenTelemetry are not ours.
        is_property = name.startswith(("KAFKA_RDKAFKA_", "OTEL_"))
        assert is_property or name in SETTINGS or name.removesuffix("_FILE") in SETTINGS, name
    load(given)


def test_example_of_tokens_is_one_the_api_takes() -> None:
    listed = token_file.read(ROOT / "conf" / "tokens.toml").listed
    assert {scope for token in listed for scope in token.scopes} == set(tokens.SCOPES)


@pytest.mark.parametrize("unit", sorted(path.name for path in (ROOT / "systemd").glob("*.service")))
def test_units_read_environment_file_and_run_a_command(unit: str) -> None:
    text = (ROOT / "systemd" / unit).read_text()
    assert "EnvironmentFile=/etc/octane-analytics/octane-analytics.env" in text
    start = re.search(r"^ExecStart=\S+/octane-analytics (\w+)", text, re.MULTILINE)
    assert start is not None
    assert start[1] in COMMANDS
