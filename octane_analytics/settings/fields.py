"""What is known of one setting, and how its text is read: parsers raise ValueError with what may be."""

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
            f"is a table's name alone, without its database: set CLICKHOUSE_DATABASE={database} and "
            f"CLICKHOUSE_TABLE={rest}"
        )
    return name


def optional(raw: str) -> str | None:
    return raw.strip() or None


def secret(raw: str) -> str:
    return raw


def flag(raw: str) -> bool:
    match raw.strip().lower():
        case "1" | "true" | "yes" | "on":
            return True
        case "0" | "false" | "no" | "off" | "":
            return False
    raise ValueError("must be one of 1, true, yes, on, 0, false, no, off")


def whole(low: int, high: int) -> Callable[[str], int]:
    def parse(raw: str) -> int:
        # int() alone would take digits of other scripts and underscores too.
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
    listed = tuple(entry.strip().rstrip("/").lower() for entry in raw.split(",") if entry.strip())
    if listed == ("*",):
        return listed
    for origin in listed:
        if not _ORIGIN.fullmatch(origin):
            raise ValueError(
                f"{origin!r} is no origin: write https://host or https://host:port, separated by "
                "commas, or * alone for all"
            )
    return listed


def process_count(raw: str) -> int:
    if raw.strip().lower() == "auto":
        return len(os.sched_getaffinity(0))
    return whole(1, 1024)(raw)


def instance(raw: str) -> str:
    value = raw.strip()
    return {"auto": socket.gethostname(), "none": ""}.get(value, value)


port = whole(1, 65535)
any_port = whole(0, 65535)


@dataclass(frozen=True, slots=True)
class Setting:
    """What is known of a setting apart from its value. `default` is as one would write it."""

    name: str
    default: str
    help: str
    unit: str
    is_secret: bool
    parse: Callable[[str], object]


def described(
    name: str,
    parse: Callable[[str], Any],
    default: str,
    help: str,  # noqa: A002
    *,
    unit: str = "",
    secret: bool = False,
) -> Any:
    about = Setting(name, default, help, unit, secret, parse)
    return field(
        default_factory=lambda: parse(default), repr=not secret, metadata={"setting": about}
    )
