"""Names that look like settings and are not: warnings about them, never their values."""

import difflib
from collections.abc import Iterable, Mapping

from octane_analytics.settings.loading import RDKAFKA_PREFIX, catalogue

_NAMES = frozenset(setting.name for setting in catalogue())
KNOWN = _NAMES | {f"{setting.name}_FILE" for setting in catalogue() if setting.is_secret}
"""Every name that a setting is read from, but those of librdkafka's properties."""

_OTHERS = frozenset(
    {
        "HOME",
        "LANG",
        "LANGUAGE",
        "NOTIFY_SOCKET",
        "OCTANE_COMMAND",
        "OCTANE_ENV_FILE",
        "PATH",
        "TMPDIR",
    }
    | {"CREDENTIALS_DIRECTORY", "RUNTIME_DIRECTORY", "TZ"}
    | {name for proxy in ("HTTP", "HTTPS", "NO", "ALL") for name in (f"{proxy}_PROXY",)}
)
_FAMILIES = (RDKAFKA_PREFIX, "OTEL_", "PYTHON", "LC_", "LD_", "MALLOC_", "SSL_CERT_", "SYSTEMD_")
"""Variables of the interpreter, the C library, systemd and OpenTelemetry, which an env file may hold."""


def warnings(environ: Iterable[str], files: Mapping[str, str]) -> list[str]:
    """One line for each name that is probably a mistake.

    In an environment file (`files`: each name in one, with the file's path) that is every name which
    nothing reads; in the environment, where others have their variables, one that is a single typing
    mistake away from a setting.
    """
    lines = []
    strangers: dict[str, list[str]] = {}
    for name, path in files.items():
        if is_known(name):
            continue
        meant = one_typo_from(name) or _similar(name)
        if meant is None:
            strangers.setdefault(path, []).append(name)
        else:
            lines.append(f"{path}: {name} is not a setting and is ignored: did you mean {meant}?")
    for path, names in strangers.items():
        are = "is not a setting and is" if len(names) == 1 else "are not settings and are"
        lines.append(
            f"{path}: {', '.join(names)} {are} ignored: `octane-analytics config` lists all settings"
        )
    for name in sorted(set(environ) - files.keys()):
        meant = None if is_known(name) else one_typo_from(name)
        if meant is not None:
            lines.append(
                f"{name} in the environment is not a setting and is ignored: did you mean {meant}?"
            )
    return lines


def is_known(name: str) -> bool:
    """Whether something in this service or below it reads the variable."""
    return name in KNOWN or name.upper() in _OTHERS or name.startswith(_FAMILIES)


def one_typo_from(name: str) -> str | None:
    """The setting that differs from the name by one typing mistake, or by case alone."""
    upper = name.upper()
    if upper in KNOWN:
        return upper
    for known in sorted(KNOWN):
        if is_one_typo(upper, known):
            return known
    for length in range(len(RDKAFKA_PREFIX) - 1, len(RDKAFKA_PREFIX) + 2):
        if is_one_typo(upper[:length], RDKAFKA_PREFIX):
            return RDKAFKA_PREFIX + upper[length:]
    return None


def is_one_typo(one: str, other: str) -> bool:
    """Whether one character is missing, added or different, or two neighbours are exchanged."""
    if one == other or abs(len(one) - len(other)) > 1:
        return False
    start = 0
    while start < min(len(one), len(other)) and one[start] == other[start]:
        start += 1
    left, right = one[start:], other[start:]
    return (
        left[1:] == right[1:]
        or left[1:] == right
        or left == right[1:]
        or (left[1::-1] == right[:2] and left[2:] == right[2:])
    )


def _similar(name: str) -> str | None:
    return next(iter(difflib.get_close_matches(name.upper(), sorted(KNOWN), 1, 0.85)), None)
