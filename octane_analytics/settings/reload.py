"""Reads the settings again in a running process, whose environment does not change.

Environment files and files with secrets may change. A variable that had the file's value at the start
follows the file, because systemd's EnvironmentFile= has set it; a variable with another value was set
explicitly and stays.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from octane_analytics.settings import environment_file
from octane_analytics.settings.loading import Loaded, load
from octane_analytics.settings.unknown import warnings


class EnvironmentReload:
    """Source of settings for a reload, created at the start. Raises ConfigError like `load`."""

    def __init__(
        self, environ: Mapping[str, str], overrides: Mapping[str, str], files: Sequence[Path]
    ) -> None:
        self._files = files
        self._overrides = dict(overrides)
        at_start = self._read()
        self._explicit = {
            name: value for name, value in environ.items() if at_start.get(name) != value
        }

    def load(self) -> Loaded:
        """See `loading.load`."""
        return load(self._read() | self._explicit, self._overrides)

    def warnings(self) -> list[str]:
        """See `unknown.warnings`, for the current content of the files."""
        paths = {name: str(file) for file in self._files for name in environment_file.read(file)}
        return warnings((), paths)

    def _read(self) -> dict[str, str]:
        variables: dict[str, str] = {}
        for file in self._files:
            variables |= environment_file.read(file)
        return variables
