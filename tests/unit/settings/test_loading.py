"""Settings: origin and validity of each value, and masking of secrets."""

import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octane_analytics.errors import ConfigError
from octane_analytics.settings.connections import ClickHouseSettings
from octane_analytics.settings.fields import Setting
from octane_analytics.settings.loading import MASK, Loaded, catalogue, is_secret_property, load
from octane_analytics.settings.sections import MAX_BATCH_ROWS, Settings

SETTINGS = {setting.name: setting for setting in catalogue()}
SECRETS = [setting for setting in catalogue() if setting.is_secret]


def origin_of(loaded: Loaded, name: str) -> tuple[str, str, str]:
    (origin,) = (origin for origin in loaded.origins if origin.name == name)
    return origin.shown, origin.source, origin.detail


def error_of(environ: dict[str, str], overrides: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as raised:
        load(environ, overrides)
    return str(raised.value)


# Values and their origins


@pytest.mark.parametrize(
    ("name", "default"),
    [
        ("KAFKA_BOOTSTRAP_SERVERS", "kafka:9092"),
        ("KAFKA_TOPIC", "octane.events"),
        ("KAFKA_GROUP_ID", "analytics-worker"),
        ("CLICKHOUSE_HOST", "clickhouse"),
        ("CLICKHOUSE_PORT", "9000"),
        ("CLICKHOUSE_DATABASE", "default"),
        ("CLICKHOUSE_TABLE", "ai_analytics_events"),
        ("BATCH_SIZE", "1000"),
        ("FLUSH_INTERVAL", "5"),
        ("API_PORT", "8001"),
        ("METRICS_PORT", "8000"),
        ("DELIVERY", "exactly-once"),
    ],
)
def test_defaults_are_as_documented(name: str, default: str) -> None:
    assert SETTINGS[name].default == default
    assert origin_of(load({}), name) == (default, "default", "")


def test_load_without_variables_returns_the_defaults() -> None:
    assert load({}).settings == Settings()


def test_dead_letter_topic_defaults_to_topic_with_suffix() -> None:
    assert load({}).settings.kafka.dlq_topic == "octane.events.dlq"
    assert load({"KAFKA_TOPIC": "a"}).settings.kafka.dlq_topic == "a.dlq"
    named = load({"KAFKA_TOPIC": "a", "KAFKA_DLQ_TOPIC": "b"})
    assert named.settings.kafka.dlq_topic == "b"


def test_option_overrides_environment_which_overrides_default() -> None:
    name = "BATCH_SIZE"
    assert load({}).settings.batch.size == 1000
    assert load({name: "7"}).settings.batch.size == 7
    loaded = load({name: "7"}, {name: "9"})
    assert loaded.settings.batch.size == 9
    assert origin_of(load({}), name) == ("1000", "default", "")
    assert origin_of(load({name: "7"}), name) == ("7", "environment", "")
    assert origin_of(loaded, name) == ("9", "option", "")


@pytest.mark.parametrize("setting", catalogue(), ids=lambda setting: setting.name)
def test_empty_variable_keeps_the_default(setting: Setting) -> None:
    assert load({setting.name: ""}).settings == load({}).settings


def test_empty_option_is_not_ignored() -> None:
    assert "KAFKA_TOPIC" in error_of({}, {"KAFKA_TOPIC": ""})


def test_unknown_variables_are_ignored() -> None:
    assert load({"PATH": "/bin", "KAFKA_": "x", "BATCH_SIZES": "x"}).settings == Settings()


def test_every_setting_has_an_origin_and_a_help() -> None:
    assert [origin.name for origin in load({}).origins] == list(SETTINGS)
    for setting in catalogue():
        assert setting.help.endswith(".") or setting.help.endswith(")."), setting.name


def test_load_does_not_read_the_process_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCH_SIZE", "3")
    assert load({}).settings.batch.size == 1000


def test_process_count_auto_is_available_cpus() -> None:
    assert load({"WORKER_PROCS": "auto"}).settings.worker.procs == len(os.sched_getaffinity(0))
    assert load({"WORKER_PROCS": "3"}).settings.worker.procs == 3


def test_instance_prefix_is_host_none_or_given() -> None:
    assert load({}).settings.kafka.instance_prefix == socket.gethostname()
    assert load({"KAFKA_INSTANCE_PREFIX": "none"}).settings.kafka.instance_prefix == ""
    assert load({"KAFKA_INSTANCE_PREFIX": "vm-1"}).settings.kafka.instance_prefix == "vm-1"


@pytest.mark.parametrize(
    ("raw", "value"), [("1", True), ("TRUE", True), ("on", True), ("0", False), ("No", False)]
)
def test_flag_accepts_common_spellings(raw: str, value: bool) -> None:
    assert load({"CLICKHOUSE_SECURE": raw}).settings.clickhouse.is_secure is value


# Invalid values


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("KAFKA_BOOTSTRAP_SERVERS", " "),
        ("KAFKA_TOPIC", " "),
        ("CLICKHOUSE_HOST", " "),
        ("CLICKHOUSE_PORT", "0"),
        ("CLICKHOUSE_PORT", "65536"),
        ("CLICKHOUSE_PORT", "nine"),
        ("CLICKHOUSE_PORT", "9000.0"),
        ("CLICKHOUSE_SECURE", "maybe"),
        ("CLICKHOUSE_COMPRESSION", "gzip"),
        ("CLICKHOUSE_TIMEOUT", "0"),
        ("CLICKHOUSE_TIMEOUT", "soon"),
        ("BATCH_SIZE", "0"),
        ("BATCH_SIZE", "-1"),
        ("BATCH_SIZE", "1e3"),
        ("BATCH_SIZE", "1048576"),
        ("BATCH_MAX_ROWS", str(MAX_BATCH_ROWS + 1)),
        ("BATCH_MAX_BYTES", "10"),
        ("FLUSH_INTERVAL", "0"),
        ("FLUSH_INTERVAL", "nan"),
        ("FLUSH_INTERVAL", "inf"),
        ("FLUSH_INTERVAL", "5s"),
        ("DELIVERY", "at-most-once"),
        ("DLQ_MAX_RATIO", "2"),
        ("DLQ_MAX_CONSECUTIVE", "-1"),
        ("WORKER_PROCS", "0"),
        ("WORKER_PROCS", "many"),
        ("DRAIN_TIMEOUT", "-5"),
        ("HEARTBEAT_TIMEOUT", "1"),
        ("API_PORT", "-1"),
        ("METRICS_PORT", "65536"),
        ("LOG_LEVEL", "loud"),
        ("LOG_FORMAT", "xml"),
    ],
)
def test_invalid_value_is_reported_with_its_setting(name: str, raw: str) -> None:
    for message in (error_of({name: raw}), error_of({}, {name: raw})):
        assert message.startswith(name)
        assert repr(raw) in message


@given(st.sampled_from(sorted(SETTINGS)), st.text(max_size=12))
def test_any_value_loads_or_names_a_setting(name: str, raw: str) -> None:
    try:
        load({}, {name: raw})
    except ConfigError as error:
        message = str(error)
    else:
        return
    assert any(known in message for known in SETTINGS)


# ClickHouse's servers


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("clickhouse", [("clickhouse", 9000)]),
        ("ch1, ch2:9001 ,ch3", [("ch1", 9000), ("ch2", 9001), ("ch3", 9000)]),
        ("10.0.0.1:9440", [("10.0.0.1", 9440)]),
        ("[::1]", [("::1", 9000)]),
        ("[2001:db8::1]:9001,ch2", [("2001:db8::1", 9001), ("ch2", 9000)]),
        ("my_host.example.com", [("my_host.example.com", 9000)]),
    ],
)
def test_hosts_is_the_failover_list(host: str, expected: list[tuple[str, int]]) -> None:
    assert load({"CLICKHOUSE_HOST": host}).settings.clickhouse.hosts() == expected


@pytest.mark.parametrize(
    ("host", "method"),
    [
        ("localhost", "none"),
        ("127.0.0.2:9001,[::1]", "none"),
        ("localhost,ch2", "lz4"),
        ("10.0.0.1", "lz4"),
        ("clickhouse", "lz4"),
    ],
)
def test_automatic_compression_is_none_on_loopback_only(host: str, method: str) -> None:
    assert ClickHouseSettings(host=host).compression_method() == method
    assert ClickHouseSettings(host=host, compression="zstd").compression_method() == "zstd"


@pytest.mark.parametrize(
    "host",
    [
        ",",
        "a,",
        "a,,b",
        ":9000",
        "a:",
        "a:b",
        "a:0",
        "a:65536",
        "a:-1",
        "a:9000:9001",
        "::1",
        "2001:db8::1",
        "[::1",
        "::1]",
        "[]",
        "[]:9000",
        "[::1]9000",
        "a b",
        "http://clickhouse:9000",
        "a:\u0669",
    ],
)
def test_hosts_refuses_an_invalid_host(host: str) -> None:
    message = error_of({"CLICKHOUSE_HOST": host})
    assert message.startswith("CLICKHOUSE_HOST: ")
    assert "ch1.example.com" in message


def test_table_with_database_is_refused_with_advice() -> None:
    message = error_of({"CLICKHOUSE_TABLE": "ledger.events"})
    assert "CLICKHOUSE_DATABASE=ledger" in message
    assert "CLICKHOUSE_TABLE=events" in message


@pytest.mark.parametrize(
    ("environ", "native"),
    [
        ({"CLICKHOUSE_PORT": "8123"}, "9000"),
        ({"CLICKHOUSE_PORT": "8443", "CLICKHOUSE_SECURE": "1"}, "9440"),
        ({"CLICKHOUSE_HOST": "ch1:9000,ch2:8123"}, "9000"),
        ({"CLICKHOUSE_HOST": "[::1]:8443", "CLICKHOUSE_SECURE": "yes"}, "9440"),
    ],
)
def test_http_port_is_refused_with_the_native_one(environ: dict[str, str], native: str) -> None:
    message = error_of(environ)
    assert "HTTP port" in message
    assert message.endswith(f"use {native}")


def test_unused_http_port_is_accepted() -> None:
    environ = {"CLICKHOUSE_HOST": "ch1:9000", "CLICKHOUSE_PORT": "8123"}
    assert load(environ).settings.clickhouse.hosts() == [("ch1", 9000)]


# Secrets


def test_passwords_are_the_only_secret_settings() -> None:
    names = [setting.name for setting in SECRETS]
    assert names == ["CLICKHOUSE_PASSWORD", "CLICKHOUSE_QUERY_PASSWORD"]


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_secret_can_be_read_from_a_file(tmp_path: Path, ending: str) -> None:
    path = tmp_path / "password"
    path.write_bytes(b" s3cr=t " + ending.encode())
    loaded = load({"CLICKHOUSE_PASSWORD_FILE": str(path)})
    assert loaded.settings.clickhouse.password == " s3cr=t "
    assert origin_of(loaded, "CLICKHOUSE_PASSWORD") == (MASK, "file", str(path))


def test_secret_from_the_environment_is_masked() -> None:
    environ = {
        "CLICKHOUSE_PASSWORD": "s3cret",
        "KAFKA_RDKAFKA_SASL_PASSWORD": "s3cret",
        "KAFKA_RDKAFKA_SSL_KEY_PEM": "s3cret",
    }
    loaded = load(environ)
    assert loaded.settings.clickhouse.password == "s3cret"
    assert loaded.settings.kafka.rdkafka["sasl.password"] == "s3cret"
    for shown in (repr(loaded), str(loaded), repr(loaded.settings), repr(loaded.origins)):
        assert "s3cret" not in shown
    assert origin_of(loaded, "CLICKHOUSE_PASSWORD") == (MASK, "environment", "")


def test_unset_secret_is_shown_as_empty() -> None:
    assert origin_of(load({}), "CLICKHOUSE_PASSWORD") == ("", "default", "")


def test_duplicate_secret_is_refused_without_its_value(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text("from the file")
    message = error_of({"CLICKHOUSE_PASSWORD": "s3cret", "CLICKHOUSE_PASSWORD_FILE": str(path)})
    assert (
        message
        == "CLICKHOUSE_PASSWORD and CLICKHOUSE_PASSWORD_FILE are both set: unset one of them"
    )


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_unreadable_secret_file_is_reported_with_its_setting(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "password"
    if content is not None:
        path.write_bytes(content)
    message = error_of({"CLICKHOUSE_PASSWORD_FILE": str(path)})
    assert message.startswith(f"CLICKHOUSE_PASSWORD_FILE: cannot read {path}: ")


def test_secret_file_without_slash_is_a_credential(tmp_path: Path) -> None:
    (tmp_path / "ch-password").write_text("s3cret\n")
    (tmp_path / "kafka-password").write_text("s4cret\n")
    loaded = load(
        {
            "CLICKHOUSE_PASSWORD_FILE": "ch-password",
            "KAFKA_RDKAFKA_SASL_PASSWORD_FILE": "kafka-password",
            "CREDENTIALS_DIRECTORY": str(tmp_path),
        }
    )
    assert loaded.settings.clickhouse.password == "s3cret"
    assert loaded.settings.kafka.rdkafka["sasl.password"] == "s4cret"


def test_missing_credential_is_reported_with_advice(tmp_path: Path) -> None:
    message = error_of({"CLICKHOUSE_PASSWORD_FILE": "ch-password"})
    assert message.startswith("CLICKHOUSE_PASSWORD_FILE is 'ch-password': ")
    assert "LoadCredential=" in message
    environ = {"CLICKHOUSE_PASSWORD_FILE": "ch-password", "CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert f"cannot read {tmp_path}/ch-password: " in error_of(environ)


def test_file_variable_is_read_for_secrets_only() -> None:
    assert load({"KAFKA_TOPIC_FILE": "/nowhere"}).settings == Settings()


def test_secret_option_overrides_its_file() -> None:
    environ = {"CLICKHOUSE_PASSWORD_FILE": "/nowhere"}
    loaded = load(environ, {"CLICKHOUSE_PASSWORD": "given"})
    assert loaded.settings.clickhouse.password == "given"
    assert origin_of(loaded, "CLICKHOUSE_PASSWORD") == (MASK, "option", "")


def test_repr_of_section_omits_the_password() -> None:
    assert "s3cret" not in repr(ClickHouseSettings(password="s3cret"))


# librdkafka's properties


def test_rdkafka_variables_become_properties() -> None:
    loaded = load(
        {
            "KAFKA_RDKAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "KAFKA_RDKAFKA_FETCH_MIN_BYTES": "1000",
            "KAFKA_RDKAFKA_EMPTY": "",
        }
    )
    assert loaded.settings.kafka.rdkafka == {
        "security.protocol": "SASL_SSL",
        "fetch.min.bytes": "1000",
    }
    assert origin_of(loaded, "KAFKA_RDKAFKA_FETCH_MIN_BYTES") == ("1000", "environment", "")


@pytest.mark.parametrize(
    ("variable", "advice"),
    [
        ("BOOTSTRAP_SERVERS", "KAFKA_BOOTSTRAP_SERVERS"),
        ("METADATA_BROKER_LIST", "KAFKA_BOOTSTRAP_SERVERS"),
        ("GROUP_ID", "KAFKA_GROUP_ID"),
        ("GROUP_INSTANCE_ID", "KAFKA_INSTANCE_PREFIX"),
        ("GROUP_PROTOCOL", "classic"),
        ("PARTITION_ASSIGNMENT_STRATEGY", "cooperative-sticky"),
        ("ENABLE_AUTO_COMMIT", "stored"),
        ("ENABLE_AUTO_OFFSET_STORE", "stored"),
        ("AUTO_OFFSET_RESET", "gone"),
        ("ENABLE_PARTITION_EOF", "finds the ends"),
        ("CLIENT_ID", "version of each worker"),
        ("RETRY_BACKOFF_MS", "repeated commits"),
        ("RETRY_BACKOFF_MAX_MS", "repeated commits"),
    ],
)
def test_reserved_property_is_refused_with_advice(variable: str, advice: str) -> None:
    message = error_of({f"KAFKA_RDKAFKA_{variable}": "x"})
    assert message.startswith(f"KAFKA_RDKAFKA_{variable} cannot be set: ")
    assert advice in message


@pytest.mark.parametrize(
    ("name", "is_secret"),
    [
        ("sasl.password", True),
        ("ssl.key.password", True),
        ("ssl.keystore.password", True),
        ("ssl.key.pem", True),
        ("sasl.oauthbearer.client.secret", True),
        ("sasl.oauthbearer.config", True),
        ("sasl.oauthbearer.assertion.private.key.passphrase", True),
        ("sasl.oauthbearer.assertion.private.key.pem", True),
        ("sasl.username", False),
        ("ssl.ca.pem", False),
        ("ssl.certificate.pem", False),
        ("ssl.key.location", False),
        ("security.protocol", False),
    ],
)
def test_secret_properties_are_recognized_by_name(name: str, is_secret: bool) -> None:
    assert is_secret_property(name) is is_secret
    variable = "KAFKA_RDKAFKA_" + name.upper().replace(".", "_")
    shown, source, _ = origin_of(load({variable: "v4lue"}), variable)
    assert (shown, source) == (MASK if is_secret else "v4lue", "environment")


def test_secret_property_can_be_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text("s3cret\n")
    loaded = load({"KAFKA_RDKAFKA_SASL_PASSWORD_FILE": str(path)})
    assert loaded.settings.kafka.rdkafka == {"sasl.password": "s3cret"}
    assert origin_of(loaded, "KAFKA_RDKAFKA_SASL_PASSWORD") == (MASK, "file", str(path))
    assert "s3cret" not in repr(loaded)


def test_duplicate_secret_property_is_refused_without_value(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text("s3cret")
    message = error_of(
        {
            "KAFKA_RDKAFKA_SASL_PASSWORD": "0ther",
            "KAFKA_RDKAFKA_SASL_PASSWORD_FILE": str(path),
        }
    )
    assert "KAFKA_RDKAFKA_SASL_PASSWORD_FILE are both set" in message
    assert "s3cret" not in message
    assert "0ther" not in message


# Combinations of settings


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        (
            {"BATCH_SIZE": "2000", "BATCH_MAX_ROWS": "1000"},
            ["BATCH_SIZE", "2000", "BATCH_MAX_ROWS", "1000"],
        ),
        (
            {"KAFKA_RDKAFKA_MAX_POLL_INTERVAL_MS": "long"},
            ["KAFKA_RDKAFKA_MAX_POLL_INTERVAL_MS", "long"],
        ),
    ],
)
def test_contradicting_values_are_refused(environ: dict[str, str], named: list[str]) -> None:
    message = error_of(environ)
    for word in named:
        assert word in message


def test_consistent_values_are_accepted() -> None:
    loaded = load(
        {
            "BATCH_SIZE": "5000",
            "BATCH_MAX_ROWS": "5000",
            "CLICKHOUSE_TIMEOUT": "200",
            "DRAIN_TIMEOUT": "300",
            "KAFKA_RDKAFKA_MAX_POLL_INTERVAL_MS": "400000",
        }
    )
    assert loaded.settings.batch.size == 5000


def test_batch_limit_plus_one_poll_fits_block() -> None:
    driver_block_rows, poll_records = 1_048_576, 10_000
    assert MAX_BATCH_ROWS + poll_records < driver_block_rows
