"""All report templates: the package's, and the operator's, which add to them or stand in for them.

Owns which file counts; refuses to know what is in one (see `templates`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from octane_analytics.api.reports.template import Template, read
from octane_analytics.errors import ConfigError

REPORTS = Path(__file__).parent / "templates"


@dataclass(frozen=True, slots=True)
class Library:
    templates: Mapping[str, Template]
    """By name, in the names' order."""
    refused: tuple[str, ...] = ()
    """One line for each of the operator's files that is broken: file, line, what is wrong, and what
    is served in its place."""


def load(directory: Path | None = None, before: Mapping[str, Template] | None = None) -> Library:
    """Reads the package's templates and those of `directory`, which win.

    A broken file of the operator's is refused; what `before` (an earlier reading) has under its name
    stays, else the package's own. Raises ConfigError where a file of the package is broken or there is
    none, and where the directory cannot be read and there is no earlier reading to stay with.
    """
    shipped = {path.stem: read(path) for path in sorted(REPORTS.glob("*.sql"))}
    if not shipped:
        raise ConfigError(f"no report templates in {REPORTS}: the installation is incomplete")
    if directory is None:
        return Library(shipped)
    try:
        paths = sorted(path for path in directory.iterdir() if path.suffix == ".sql")
    except OSError as error:
        told = f"REPORTS_DIR: cannot read {directory}: {error.strerror}"
        if before is None:
            raise ConfigError(told) from error
        return Library(before, (f"{told}; all templates stay as they were",))
    templates, refused = dict(shipped), []
    for path in paths:
        try:
            templates[path.stem] = read(path)
        except ConfigError as error:
            refused.append(f"{error}; {_instead(path.stem, shipped, before or {}, templates)}")
    return Library(dict(sorted(templates.items())), tuple(refused))


def _instead(
    name: str,
    shipped: Mapping[str, Template],
    before: Mapping[str, Template],
    templates: dict[str, Template],
) -> str:
    """Puts in what stands in for a broken file, and says what it is."""
    if name in before:
        templates[name] = before[name]
        is_own = before[name] != shipped.get(name)
        return "it stays as it was read before" if is_own else "the built-in one is served"
    return "the built-in one is served" if name in shipped else "it is not served"
