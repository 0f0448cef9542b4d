"""Reads all settings, checks their combinations and reports the origin of each value.

Limits that concern only a worker's drain are compared in `drain`.

An option on the command line overrides the environment, the environment overrides the default. A secret
can also be given as the path of a file (`NAME_FILE`) or as the name of one of systemd's credentials.
Does not depend on any use of the settings.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, cast

from octane_analytics.errors import ConfigError
from octane_analytics.settings.connections import ClickHouseSettings, KafkaSettings
from octane_analytics.settings.drain import max_poll_seconds
from octane_analytics.settings.fields import Setting
from octane_analytics.settings.raw_sql import RawSqlSettings
from octane_analytics.settings.sections import (
    BatchSettings,
    LogSettings,
    MetricsSettings,
    Settings,
    WorkerSettings,
)
from octane_analytics.settings.serving import ApiSettings

RDKAFKA_PREFIX = "KAFKA_RDKAFKA_"
HTTP_PORTS = (8123, 8443)
"""ClickHouse's HTTP ports, often confused with the native one."""
NATIVE_PORT, NATIVE_TLS_PORT = 9000, 9440
MASK = "********"
CREDENTIALS = "CREDENTIALS_DIRECTORY"
"""Variable with the directory of a unit's credentials: systemd.exec(5)."""

Source = Literal["option", "environment", "file", "default"]


@dataclass(frozen=True, slots=True)
class Origin:
    """Origin of one value, in a form that may be shown: a secret is masked."""

    name: str
    shown: str
    source: Source
    detail: str
    """Path of the file the value was read from; empty for other sources."""


@dataclass(frozen=True, slots=True)
class Loaded:
    settings: Settings
    origins: tuple[Origin, ...]


_SECTIONS = {
    "kafka": KafkaSettings,
    "clickhouse": ClickHouseSettings,
    "batch": BatchSettings,
    "worker": WorkerSettings,
    "api": ApiSettings,
    "queries": RawSqlSettings,
    "metrics": MetricsSettings,
    "log": LogSettings,
}


_SECTION_OF = {
    item.metadata["setting"].name: section
    for section, kind in _SECTIONS.items()
    for item in fields(kind)
    if "setting" in item.metadata
}


def catalogue() -> list[Setting]:
    """Return all settings in the order of the sections, without KAFKA_RDKAFKA_…"""
    return [
        cast(Setting, item.metadata["setting"])
        for section in _SECTIONS.values()
        for item in fields(section)
        if "setting" in item.metadata
    ]


def section_of(name: str) -> str:
    """Return the setting's section: `kafka`, `clickhouse`, … Raise KeyError for an unknown name."""
    return _SECTION_OF[name]


def load(environ: Mapping[str, str], overrides: Mapping[str, str] | None = None) -> Loaded:
    """Return all settings; `overrides` are the command line's, by the setting's name.

    Raise ConfigError with the setting, its value (unless secret) and the valid values. Reads only the
    files that `NAME_FILE` variables name.
    """
    origins: list[Origin] = []
    sections: dict[str, Any] = {}
    for section, kind in _SECTIONS.items():
        values: dict[str, object] = {}
        for item in fields(kind):
            if "setting" in item.metadata:
                values[item.name] = _read(
                    item.metadata["setting"], environ, overrides or {}, origins
                )
        if kind is KafkaSettings:
            values["rdkafka"] = _rdkafka_properties(environ, origins)
        sections[section] = kind(**values)
    settings = Settings(**sections)
    _check_combinations(settings)
    return Loaded(settings, tuple(origins))


def _read(
    setting: Setting,
    environ: Mapping[str, str],
    overrides: Mapping[str, str],
    origins: list[Origin],
) -> object:
    raw, source, detail = _raw_value(setting, environ, overrides)
    try:
        value = setting.parse(raw)
    except ValueError as error:
        value_part = "" if setting.is_secret else f" is {raw!r}:"
        raise ConfigError(f"{setting.name}{value_part} {error}") from error
    shown = (MASK if raw else "") if setting.is_secret else raw
    origins.append(Origin(setting.name, shown, source, detail))
    return value


def _raw_value(
    setting: Setting, environ: Mapping[str, str], overrides: Mapping[str, str]
) -> tuple[str, Source, str]:
    file_name = f"{setting.name}_FILE"
    if setting.name in overrides:
        return overrides[setting.name], "option", ""
    if setting.is_secret and environ.get(file_name):
        if environ.get(setting.name):
            raise ConfigError(f"{setting.name} and {file_name} are both set: unset one of them")
        return _read_secret(file_name, environ), "file", environ[file_name]
    if environ.get(setting.name):
        return environ[setting.name], "environment", ""
    # An empty variable counts as unset: an EnvironmentFile cannot unset one.
    return setting.default, "default", ""


def _read_secret(name: str, environ: Mapping[str, str]) -> str:
    """Return the text of the file that the variable names.

    A value without a slash names a credential that systemd has loaded for this process
    (LoadCredential=).
    """
    path = environ[name]
    if "/" not in path:
        if not environ.get(CREDENTIALS):
            raise ConfigError(
                f"{name} is {path!r}: a value without a slash names a credential, and this process has "
                f"none ({CREDENTIALS} is not set): set the path of a file, or start the process from a "
                "unit with LoadCredential="
            )
        path = f"{environ[CREDENTIALS]}/{path}"
    try:
        return Path(path).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"{name}: cannot read {path}: {reason}") from error


_RESERVED = {
    "bootstrap.servers": "use KAFKA_BOOTSTRAP_SERVERS",
    "metadata.broker.list": "use KAFKA_BOOTSTRAP_SERVERS",
    "group.id": "use KAFKA_GROUP_ID",
    "group.instance.id": "use KAFKA_INSTANCE_PREFIX",
    "group.protocol": "the delivery protocol requires the classic one",
    "partition.assignment.strategy": "the delivery protocol requires cooperative-sticky",
    "enable.auto.commit": "offsets are committed only for stored events",
    "enable.auto.offset.store": "offsets are committed only for stored events",
    "auto.offset.reset": "a worker decides this itself, and logs when offsets are gone",
    "enable.partition.eof": "a worker finds the ends of partitions itself",
    "client.id": "the version of each worker in the group is part of it",
    "retry.backoff.ms": "the delivery protocol recognises repeated commits by it",
    "retry.backoff.max.ms": "the delivery protocol recognises repeated commits by it",
}


def is_secret_property(name: str) -> bool:
    """Return whether the librdkafka property holds a secret, which must not be shown."""
    return any(
        word in name for word in ("password", "secret", "passphrase", "oauthbearer.config")
    ) or (name.endswith(".pem") and "key" in name)


def _rdkafka_properties(environ: Mapping[str, str], origins: list[Origin]) -> dict[str, str]:
    properties: dict[str, str] = {}
    for variable in sorted(environ):
        if not variable.startswith(RDKAFKA_PREFIX) or not environ[variable]:
            continue
        raw, detail = environ[variable], ""
        source: Source = "environment"
        shown_name = variable
        name = variable.removeprefix(RDKAFKA_PREFIX).lower().replace("_", ".")
        if is_secret_property(name) and name.endswith(".file"):
            name, shown_name = name.removesuffix(".file"), variable.removesuffix("_FILE")
            raw, source, detail = _read_secret(variable, environ), "file", raw
        if name in _RESERVED:
            raise ConfigError(f"{variable} cannot be set: {_RESERVED[name]}")
        if name in properties:
            raise ConfigError(f"{shown_name} and {shown_name}_FILE are both set: unset one of them")
        properties[name] = raw
        origins.append(
            Origin(shown_name, MASK if is_secret_property(name) else raw, source, detail)
        )
    return properties


def _check_combinations(settings: Settings) -> None:
    clickhouse, batch = settings.clickhouse, settings.batch
    _check_cluster(clickhouse)
    for host, port in clickhouse.hosts():
        if port in HTTP_PORTS:
            native = NATIVE_TLS_PORT if clickhouse.is_secure else NATIVE_PORT
            raise ConfigError(
                f"CLICKHOUSE_PORT is {port} (for {host}): that is ClickHouse's HTTP port, and this "
                f"service uses the native protocol: use {native}"
            )
    if batch.size > batch.max_rows:
        raise ConfigError(
            f"BATCH_SIZE is {batch.size}, more than BATCH_MAX_ROWS ({batch.max_rows}): "
            "raise BATCH_MAX_ROWS or lower BATCH_SIZE"
        )
    max_poll_seconds(settings.kafka.rdkafka)


def _check_cluster(clickhouse: ClickHouseSettings) -> None:
    shards = len(clickhouse.topology().shards)
    if shards > 1 and clickhouse.cluster is None:
        raise ConfigError(
            f"CLICKHOUSE_HOST lists {shards} shards, and CLICKHOUSE_CLUSTER is not set: set it to the "
            "name that this cluster has in ClickHouse's remote_servers, see system.clusters"
        )
    if clickhouse.distributed_table == clickhouse.table:
        raise ConfigError(
            f"CLICKHOUSE_DISTRIBUTED_TABLE is {clickhouse.table!r}, as CLICKHOUSE_TABLE is: the "
            "Distributed table needs a name of its own"
        )
