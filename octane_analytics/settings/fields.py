"""Metadata of a setting, and parsers of its text. A parser raises ValueError with the valid values."""

import os
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

_ORIGIN = re.compile(r"https?://(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])(?::[0-9]{1,5})?")


def text(raw: str) -> str:
    if not raw.strip():
        raise ValueError("must not be empty")
    return raw.strip()


def table(raw: str) -> str:
    name = text(raw)
    database, dot, rest = name.partition(".")
    if dot:
        raise ValueError(
            f"must not contain the database: set CLICKHOUSE_DATABASE={database} and "
            f"CLICKHOUSE_TABLE={rest}"
        )
    return name


def optional_table(raw: str) -> str | None:
    name = optional(raw)
    if name is not None and "." in name:
        raise ValueError("must not contain the database: it is in CLICKHOUSE_DATABASE")
    return name


def optional(raw: str) -> str | None:
    return raw.strip() or None


def weights(raw: str) -> tuple[int, ...]:
    values = raw.strip()
    return tuple(map(_weight, values.split(","))) if values else ()


def secret(raw: str) -> str:
    return raw


def flag(raw: str) -> bool:
    match raw.strip().lower():
        case "1" | "true" | "yes" | "on":
            return True
        case "0" | "false" | "no" | "off" | "":
            return False
    raise ValueError("must be one of 1, true, yes, on, 0, false, no, off")


def integer(low: int, high: int) -> Callable[[str], int]:
    def parse(raw: str) -> int:
        # int() alone would accept digits of other scripts and underscores too.
        if not re.fullmatch(r"[+-]?[0-9]{1,100}", raw.strip()):
            raise ValueError("must be a whole number")
        value = int(raw)
        if not low <= value <= high:
            raise ValueError(f"must be from {low} to {high}")
        return value

    return parse


def seconds(low: float, high: float) -> Callable[[str], float]:
    def parse(raw: str) -> float:
        try:
            value = float(raw.strip())
        except ValueError:
            raise ValueError("must be a number of seconds") from None
        if not low <= value <= high:
            raise ValueError(f"must be from {low:g} to {high:g} seconds")
        return value

    return parse


def rate(raw: str) -> float:
    try:
        value = float(raw.strip())
    except ValueError:
        raise ValueError("must be a number per second, 0 for no limit") from None
    if value != 0 and not 0.001 <= value <= 10_000:
        raise ValueError("must be 0 (no limit) or from 0.001 to 10000 per second")
    return value


def ratio(raw: str) -> float:
    try:
        value = float(raw.strip())
    except ValueError:
        raise ValueError("must be a number from 0 to 1") from None
    if not 0 <= value <= 1:
        raise ValueError("must be from 0 to 1")
    return value


def choice(*allowed: str) -> Callable[[str], str]:
    def parse(raw: str) -> str:
        value = raw.strip().lower()
        if value not in allowed:
            raise ValueError(f"must be one of {', '.join(allowed)}")
        return value

    return parse


def origins(raw: str) -> tuple[str, ...]:
    values = tuple(entry.strip().rstrip("/").lower() for entry in raw.split(",") if entry.strip())
    if values == ("*",):
        return values
    for origin in values:
        if not _ORIGIN.fullmatch(origin):
            raise ValueError(
                f"{origin!r} is not an origin: write https://host or https://host:port, separated by "
                "commas, or * alone for all"
            )
    return values


def process_count(raw: str) -> int:
    if raw.strip().lower() == "auto":
        return len(os.sched_getaffinity(0))
    return integer(1, 1024)(raw)


def instance_prefix(raw: str) -> str:
    value = raw.strip()
    return {"auto": socket.gethostname(), "none": ""}.get(value, value)


port = integer(1, 65535)
_weight = integer(0, 1000)
any_port = integer(0, 65535)


@dataclass(frozen=True, slots=True)
class Setting:
    """Metadata of a setting. `default` is its text form."""

    name: str
    default: str
    help: str
    unit: str
    is_secret: bool
    parse: Callable[[str], object]


def setting(
    name: str,
    parse: Callable[[str], Any],
    default: str,
    help: str,  # noqa: A002
    *,
    unit: str = "",
    secret: bool = False,
) -> Any:
    """Return a dataclass field with the setting's metadata and its parsed default."""
    metadata = Setting(name, default, help, unit, secret, parse)
    return field(
        default_factory=lambda: parse(default), repr=not secret, metadata={"setting": metadata}
    )
