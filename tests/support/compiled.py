"""Requirement of the package's compiled parts, which need a C compiler to be built."""

import importlib.util
import os

import pytest


def require_compiled(module: str) -> None:
    """Skip the calling test or module without this compiled part of `octane_analytics.events`, except
    in CI."""
    name = f"octane_analytics.events.{module}"
    if importlib.util.find_spec(name) is None and os.environ.get("CI") != "true":
        pytest.skip(f"{name} is not built: it needs a C compiler", allow_module_level=True)
