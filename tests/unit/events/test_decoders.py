"""The setting DECODER: which decoder it selects, and what is said where the compiled one is missing."""

import pytest
from click.testing import CliRunner

from octane_analytics.cli.commands.check import check_decoder
from octane_analytics.cli.main import main
from octane_analytics.errors import ConfigError
from octane_analytics.events import decoders
from octane_analytics.events.decode import decode_all
from octane_analytics.events.decoders import choose
from octane_analytics.operations.checks.finding import Level
from octane_analytics.settings.fields import Setting
from octane_analytics.settings.loading import catalogue, load
from octane_analytics.worker.preflight import preflight
from tests.support.compiled import require_compiled


@pytest.fixture
def missing(monkeypatch: pytest.MonkeyPatch) -> str:
    reason = "the compiled decoder cannot be loaded: no such module"
    monkeypatch.setattr(decoders, "_MISSING", reason)
    return reason


@pytest.fixture
def built() -> None:
    require_compiled("_decoding")


def _setting() -> Setting:
    return next(setting for setting in catalogue() if setting.name == "DECODER")


def test_setting_accepts_choices_of_decoders() -> None:
    for choice in decoders.CHOICES:
        assert _setting().parse(choice.upper()) == choice
    with pytest.raises(ValueError, match="one of auto, compiled, python"):
        _setting().parse("c")
    assert _setting().default == "auto"


@pytest.mark.usefixtures("built")
@pytest.mark.parametrize("choice", ["auto", "compiled"])
def test_compiled_decoder_is_chosen_where_built(choice: str) -> None:
    assert choose(choice) == ("compiled", decoders.decode_compiled, "")
    finding = check_decoder(load({"DECODER": choice}).settings)
    assert (finding.level, finding.message) == (Level.OK, "compiled")


def test_python_decoder_is_chosen_on_request() -> None:
    assert choose("python") == ("python", decode_all, "")
    finding = check_decoder(load({"DECODER": "python"}).settings)
    assert (finding.level, finding.message) == (Level.OK, "python")


def test_missing_decoder_is_replaced_and_reported(missing: str) -> None:
    assert choose("auto") == ("python", decode_all, missing)
    finding = check_decoder(load({}).settings)
    assert finding.level is Level.WARN
    assert finding.message.startswith("python, ")
    assert missing in finding.message
    assert "DECODER=python" in finding.message


@pytest.mark.usefixtures("missing")
def test_missing_decoder_is_refused_on_request() -> None:
    settings = load({"DECODER": "compiled"}).settings
    with pytest.raises(ConfigError, match=r"install a C compiler .* or set DECODER=auto"):
        preflight(settings)
    finding = check_decoder(settings)
    assert finding.level is Level.FAIL
    assert "a worker would not start" in finding.message
    result = CliRunner(env={"DECODER": "compiled"}).invoke(main, ["config"])
    assert result.exit_code == 0
    assert "a worker would not start: DECODER is 'compiled'" in result.stderr
    assert "DECODER\tcompiled\tenvironment\n" in result.stdout


@pytest.mark.parametrize("given", ["auto", "python"])
def test_config_shows_effective_decoder(given: str) -> None:
    result = CliRunner(env={"DECODER": given}).invoke(main, ["config"])
    (line,) = (line for line in result.stdout.splitlines() if line.startswith("DECODER\t"))
    assert line.split("\t")[1] == choose(given).name
