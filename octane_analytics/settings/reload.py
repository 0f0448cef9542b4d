"""Reads the settings again in a running process, whose environment stays what it was at its start.

What can change are the environment files and the files that hold secrets. A variable whose value was
the file's when the process started follows the file (systemd's EnvironmentFile= has put it into the
environment); one whose value was another was given by somebody who meant it, and stays.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from octane_analytics.settings import environment_file
from octane_analytics.settings.loading import Loaded, load
from octane_analytics.settings.unknown import warnings


class EnvironmentReload:
    """To be made at the start. Raises ConfigError where a file cannot be read."""

    def __init__(
        self, environ: Mapping[str, str], overrides: Mapping[str, str], files: Sequence[Path]
    ) -> None:
        self._files = files
        self._overrides = dict(overrides)
        at_start = self._read()
        self._given = {
            name: value for name, value in environ.items() if at_start.get(name) != value
        }

    def load(self) -> Loaded:
        """See `loading.load`."""
        return load(self._read() | self._given, self._overrides)

    def warnings(self) -> list[str]:
        """See `unknown.warnings`, of the files as they are now."""
        paths = {name: str(file) for file in self._files for name in environment_file.read(file)}
        return warnings((), paths)

    def _read(self) -> dict[str, str]:
        variables: dict[str, str] = {}
        for file in self._files:
            variables |= environment_file.read(file)
        return variables
