"""Virtual environments over the one that runs: they have its packages, and some of their own."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path


def make_overlay(folder: Path) -> Path:
    """An environment over this one, made unless it is there: what it lacks is found in this one.

    Returns:
        Its Python.
    """
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    below = sysconfig.get_path("purelib")
    own = next(folder.glob("lib/python*/site-packages"))
    (own / "over.pth").write_text(f"import site; site.addsitedir({below!r})\n", "utf-8")
    return python


def install(python: Path, packages: Iterable[str], pins: Iterable[str], *options: str) -> None:
    """Bring packages into an environment, others held to the pins, as in a constraints file."""
    constraints = python.parents[1] / "constraints.txt"
    constraints.write_text("".join(f"{one}\n" for one in pins), "utf-8")
    quiet = ("--quiet", "--disable-pip-version-check")
    command = [str(python), "-m", "pip", "install", *quiet, *options]
    subprocess.run([*command, "--constraint", str(constraints), *packages], check=True)
