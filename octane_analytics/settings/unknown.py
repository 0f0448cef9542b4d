"""Warnings about names that resemble settings; the values are never shown."""

import difflib
from collections.abc import Iterable, Mapping

from octane_analytics.settings.loading import RDKAFKA_PREFIX, catalogue

_SETTING_NAMES = frozenset(setting.name for setting in catalogue())
KNOWN = _SETTING_NAMES | {f"{setting.name}_FILE" for setting in catalogue() if setting.is_secret}
"""Variables from which settings are read, without those of librdkafka properties."""

_OTHER_VARIABLES = frozenset(
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
_PREFIXES = (RDKAFKA_PREFIX, "OTEL_", "PYTHON", "LC_", "LD_", "MALLOC_", "SSL_CERT_", "SYSTEMD_")
"""Prefixes of variables of Python, the C library, systemd and OpenTelemetry, allowed in env files."""


def warnings(environ: Iterable[str], files: Mapping[str, str]) -> list[str]:
    """Return one line for each name that is probably a mistake.

    In an environment file (`files`: path by name) that is every name that nothing reads; in the
    environment, which holds variables of other programs, a name that is one typing mistake away from a
    setting.
    """
    lines = []
    unknown: dict[str, list[str]] = {}
    for name, path in files.items():
        if is_known(name):
            continue
        meant = one_typo_from(name) or _similar(name)
        if meant is None:
            unknown.setdefault(path, []).append(name)
        else:
            lines.append(f"{path}: {name} is not a setting and is ignored: did you mean {meant}?")
    for path, names in unknown.items():
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
    """Return whether this service or a library of it reads the variable."""
    return name in KNOWN or name.upper() in _OTHER_VARIABLES or name.startswith(_PREFIXES)


def one_typo_from(name: str) -> str | None:
    """Return the setting that differs from the name by one typing mistake or by case, or None."""
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
    """Return whether one character is missing, added or different, or two neighbours are swapped."""
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
