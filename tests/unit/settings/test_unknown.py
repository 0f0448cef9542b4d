"""Warnings about names that resemble settings."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octane_analytics.settings.unknown import KNOWN, is_known, is_one_typo, one_typo_from, warnings

_NAME_CHARACTERS = st.sampled_from(string.ascii_uppercase + "_")


@st.composite
def misspelled(draw: st.DrawFn) -> tuple[str, str]:
    """Return the name of a setting, and the name with one typing mistake."""
    name = draw(st.sampled_from(sorted(KNOWN)))
    at = draw(st.integers(0, len(name) - 1))
    wrong = draw(
        st.sampled_from(
            [
                name[:at] + name[at + 1 :],
                name[:at] + draw(_NAME_CHARACTERS) + name[at:],
                name[:at] + draw(_NAME_CHARACTERS) + name[at + 1 :],
                name[:at] + name[at : at + 2][::-1] + name[at + 2 :],
                name.lower(),
            ]
        )
    )
    return name, wrong


@given(misspelled())
def test_typing_mistake_in_the_environment_is_reported(names: tuple[str, str]) -> None:
    _, wrong = names
    found = warnings([wrong], {})
    # The mistyped name may itself be a setting.
    assert len(found) == (0 if is_known(wrong) else 1)
    assert all(line.startswith(f"{wrong} in the environment is not a setting") for line in found)


def test_known_settings_cause_no_warning() -> None:
    assert warnings(KNOWN, dict.fromkeys(KNOWN, "/etc/x.env")) == []


@given(st.text(max_size=12), st.text(max_size=12))
def test_one_typo_is_symmetric_and_never_equality(one: str, other: str) -> None:
    assert is_one_typo(one, other) == is_one_typo(other, one)
    assert not is_one_typo(one, one)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("FLUSH_INTERVALL", "FLUSH_INTERVAL"),
        ("FLUSH_INTERAVL", "FLUSH_INTERVAL"),
        ("CLICKHOUSE_PASSWRD", "CLICKHOUSE_PASSWORD"),
        ("CLICKHOUSE_PASSWORD_FIL", "CLICKHOUSE_PASSWORD_FILE"),
        ("KAFKA_RDKAFA_LINGER_MS", "KAFKA_RDKAFKA_LINGER_MS"),
        ("batch_size", "BATCH_SIZE"),
        ("CLICKHOUSE_PORT_9000_TCP", None),
        ("KAFKA_SERVICE_HOST", None),
        ("PATH", None),
        ("HOST", None),
    ],
)
def test_nearest_setting_is_suggested(name: str, expected: str | None) -> None:
    assert one_typo_from(name) == expected


def test_unread_names_in_files_are_reported() -> None:
    names = [
        "KAFKA_TOPIC",
        "OTEL_SDK_DISABLED",
        "TZ",
        "http_proxy",
        "CLICKHOUSE_HOSTNAME",
        "ONE",
        "TWO",
    ]
    assert warnings([], dict.fromkeys(names, "/etc/x.env")) == [
        "/etc/x.env: CLICKHOUSE_HOSTNAME is not a setting and is ignored: did you mean CLICKHOUSE_HOST?",
        "/etc/x.env: ONE, TWO are not settings and are ignored: `octane-analytics config` lists all "
        "settings",
    ]


def test_variables_of_other_programs_are_ignored() -> None:
    assert warnings(["KAFKA_HOME", "CLICKHOUSE_SERVICE_PORT", "ONE"], {}) == []
