"""All report templates: built-in ones, and the operator's, which add to or override them.

Does not depend on the contents of a file (see `template`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from octane_analytics.api.reports.template import Template, read_template
from octane_analytics.errors import ConfigError

REPORTS = Path(__file__).parent / "templates"


@dataclass(frozen=True, slots=True)
class Library:
    templates: Mapping[str, Template]
    """Templates by name, sorted."""
    refused: tuple[str, ...] = ()
    """One line for each invalid file of the operator: file, line, error, and what is served instead."""


def load(directory: Path | None = None, previous: Mapping[str, Template] | None = None) -> Library:
    """Read the built-in templates and those of `directory`, which override them.

    An invalid file of the operator is refused; the template of that name in `previous` (the result of
    an earlier load) is kept, else the built-in one. Raises ConfigError if a built-in file is invalid
    or there is none, and if the directory cannot be read and `previous` is None.
    """
    built_in = {path.stem: read_template(path) for path in sorted(REPORTS.glob("*.sql"))}
    if not built_in:
        raise ConfigError(f"no report templates in {REPORTS}: the installation is incomplete")
    if directory is None:
        return Library(built_in)
    try:
        paths = sorted(path for path in directory.iterdir() if path.suffix == ".sql")
    except OSError as error:
        message = f"REPORTS_DIR: cannot read {directory}: {error.strerror}"
        if previous is None:
            raise ConfigError(message) from error
        return Library(previous, (f"{message}; the previous templates are kept",))
    templates, refused = dict(built_in), []
    for path in paths:
        try:
            templates[path.stem] = read_template(path)
        except ConfigError as error:
            refused.append(
                f"{error}; {_substitute(path.stem, built_in, previous or {}, templates)}"
            )
    return Library(dict(sorted(templates.items())), tuple(refused))


def _substitute(
    name: str,
    built_in: Mapping[str, Template],
    previous: Mapping[str, Template],
    templates: dict[str, Template],
) -> str:
    """Add the template served instead of an invalid file; return which one it is."""
    if name in previous:
        templates[name] = previous[name]
        is_own = previous[name] != built_in.get(name)
        return "its previous version is served" if is_own else "the built-in one is served"
    return "the built-in one is served" if name in built_in else "it is not served"
