"""Output of commands on a terminal of 80 columns, and in full in a pipe."""

import pytest

from tests.support.command import run
from tests.support.terminal import on_terminal

NOWHERE = {
    "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1,127.0.0.1:2,broker-with-a-long-name.invalid:9092",
    "CLICKHOUSE_HOST": "127.0.0.1:1",
}


@pytest.mark.parametrize(
    ("arguments", "code", "whole"),
    [
        (["config"], 0, ["broker-with-a-long-name.invalid:9092", "10000000000 rows"]),
        (["check"], 69, ["127.0.0.1:1", "check KAFKA_BOOTSTRAP_SERVERS and the broker"]),
        (["report", "--list"], 0, ["Width of a bucket in seconds; 86400 is a calendar day"]),
        (["--help"], 0, ["each one exited again"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_output_fits_80_columns_with_whole_words(
    arguments: list[str], code: int, whole: list[str]
) -> None:
    shown = on_terminal(*arguments, settings=NOWHERE)
    assert shown.code == code
    assert max(map(len, shown.lines)) <= 80
    text = " ".join(" ".join(shown.lines).split())
    for part in whole:
        assert part in text


def test_check_without_a_terminal_prints_unwrapped_lines() -> None:
    done = run("check", settings=NOWHERE)
    kafka = [line for line in done.stdout.splitlines() if line.split()[1] == "kafka"]
    assert len(kafka) == 1
    assert kafka[0].endswith("check KAFKA_BOOTSTRAP_SERVERS and the broker")


def test_check_warns_of_unknown_settings() -> None:
    done = run("check", settings=NOWHERE | {"FLUSH_INTERVALL": "value-1"})
    (line,) = [line for line in done.stdout.splitlines() if "FLUSH_INTERVALL" in line]
    assert line.startswith("WARN  settings")
    assert line.endswith("did you mean FLUSH_INTERVAL?")
    assert done.stderr == ""
    assert "value-1" not in done.stdout
