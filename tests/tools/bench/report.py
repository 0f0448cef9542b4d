"""Output of results: the terminal, a JSON file, a picture."""

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import click
from rich.console import Console, RenderableType

_TO_PNG = "rsvg-convert"
_WIDTH = 170
"""Width of a table without a terminal."""


def show(*told: RenderableType) -> None:
    Console(width=None if sys.stdout.isatty() else _WIDTH).print(*told, sep="\n")


def write_json(file: Path | None, **figures: object) -> None:
    """Write the figures and a description of the machine. Does nothing without a file."""
    if file is not None:
        machine = {"cpus": os.cpu_count(), "python": platform.python_version()}
        file.write_text(json.dumps({**machine, **figures}, indent=1) + "\n")


def picture_file(_: click.Context, __: click.Parameter, file: Path | None) -> Path | None:
    """Option callback that rejects a picture's suffix before the measurement."""
    if file is None or file.suffix == ".svg":
        return file
    if file.suffix != ".png":
        raise click.BadParameter(f"{file.name}: pictures are .svg or .png")
    if shutil.which(_TO_PNG) is None:
        raise click.BadParameter(f"a PNG takes {_TO_PNG}, which is not installed: name an .svg")
    return file


def write_picture(file: Path | None, svg: str) -> None:
    """Write the picture as SVG or PNG, by the suffix of the file. Does nothing without a file."""
    if file is None:
        return
    if file.suffix == ".png":
        command = [_TO_PNG, "--zoom", "2", "--output", str(file)]
        subprocess.run(command, input=svg.encode(), check=True)
    else:
        file.write_text(svg)
