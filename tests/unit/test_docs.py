"""The README and the examples say what is true: held against the code."""

import re
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from octane_analytics.api import tokens
from octane_analytics.cli.main import COMMANDS
from octane_analytics.clickhouse.codes import DATA_ERRORS, OPERATOR_ERRORS
from octane_analytics.decode import REASONS
from octane_analytics.exits import Exit
from octane_analytics.settings.loading import catalogue, load
from octane_analytics.telemetry.lag import LagWatch
from octane_analytics.telemetry.metrics import ApiMetrics, Computed
from octane_analytics.telemetry.window import WindowWatch
from octane_analytics.telemetry.worker_metrics import (
    ProcessMetrics,
    SupervisorMetrics,
    WorkerMetrics,
)

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
EXAMPLE = ROOT / "conf" / "octane-analytics.env"


@pytest.mark.parametrize("name", [setting.name for setting in catalogue()])
def test_readme_names_every_setting(name: str) -> None:
    assert f"`{name}`" in README


def metric_names(directory: Path) -> dict[str, tuple[str, ...]]:
    """Every metric there is, with its labels."""
    registry = CollectorRegistry()
    made = [
        kind(registry) for kind in (WorkerMetrics, ProcessMetrics, SupervisorMetrics, ApiMetrics)
    ]
    families = {
        family.name + ("_total" if family.type == "counter" else ""): family
        for source in (registry, Computed(directory), LagWatch(dict), WindowWatch(int))
        for family in source.collect()
    }
    labels = {metric._name: metric._labelnames for group in made for metric in vars(group).values()}
    return {name: labels.get(family.name, ()) for name, family in families.items()}


def test_readme_names_every_metric_with_its_labels(tmp_path: Path) -> None:
    for name, labels in metric_names(tmp_path).items():
        listed = f"{{{','.join(labels)}}}" if labels else ""
        assert f"`{name}{listed}`" in README or (not labels and f"`{name}{{" in README), name


@pytest.mark.parametrize("command", COMMANDS)
def test_readme_names_every_command(command: str) -> None:
    assert re.search(rf"`{command}[` ]", README)


@pytest.mark.parametrize("code", [code.value for code in Exit])
def test_readme_names_every_exit_code(code: int) -> None:
    table = README[README.index("| exit code |") :].split("\n\n")[0]
    assert re.search(rf"\b{code}\b", table)


@pytest.mark.parametrize("reason", REASONS)
def test_readme_names_every_reason_of_a_dead_letter(reason: str) -> None:
    assert f"`{reason}`" in README


def test_readme_lists_the_error_codes_as_the_code_has_them() -> None:
    table = README[README.index("| codes | what they are") :].split("\n\n")[0].splitlines()
    data, operator = ({int(code) for code in re.findall(r"\d+", row)} for row in table[2:4])
    assert data - {252} == DATA_ERRORS
    assert operator == OPERATOR_ERRORS.keys()


def test_example_environment_has_known_settings_only_and_loads() -> None:
    known = {setting.name for setting in catalogue()}
    given, offered = {}, set()
    for line in EXAMPLE.read_text().splitlines():
        match = re.fullmatch(r"(#?)([A-Z_]+)=(.*)", line)
        if match:
            commented, name, value = match.groups()
            offered.add(name)
            if not commented:
                given[name] = value
    for name in offered:
        # librdkafka's and OpenTelemetry's settings are theirs to know.
        is_property = name.startswith(("KAFKA_RDKAFKA_", "OTEL_"))
        assert is_property or name in known or name.removesuffix("_FILE") in known, name
    load(given)


def test_example_of_tokens_is_one_the_api_takes() -> None:
    listed = tokens.read(ROOT / "conf" / "tokens.toml").listed
    assert {scope for token in listed for scope in token.scopes} == set(tokens.SCOPES)


@pytest.mark.parametrize("unit", sorted(path.name for path in (ROOT / "systemd").glob("*.service")))
def test_units_read_the_environment_file_and_run_a_command(unit: str) -> None:
    text = (ROOT / "systemd" / unit).read_text()
    assert "EnvironmentFile=/etc/octane-analytics/octane-analytics.env" in text
    start = re.search(r"^ExecStart=\S+/octane-analytics (\w+)", text, re.MULTILINE)
    assert start is not None
    assert start[1] in COMMANDS
