"""docs/schedulers under a real Dagster.

    python -m tests.schedulers

It gets an environment over this one, below ``build/schedulers`` and kept between runs, so that
only what it brings is installed. Airflow 3.2 wants other versions of FastAPI and pydantic than
Feast has here; its test runs wherever it can be imported. Ends with 1 if a test failed.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "build" / "schedulers"
PACKAGES = ("dagster==1.13.29",)


def main() -> int:
    """Make the environment, and test in it; pytest's status."""
    python = FOLDER / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", FOLDER], check=True)
        here = sysconfig.get_path("purelib")
        there = next(FOLDER.glob("lib/python*/site-packages"))
        (there / "over.pth").write_text(f"import site; site.addsitedir({here!r})\n", "utf-8")
    pins = ("--constraint", str(ROOT / "constraints.txt"))
    quiet = ("--quiet", "--disable-pip-version-check")
    subprocess.run([python, "-m", "pip", "install", *quiet, *pins, *PACKAGES], check=True)
    tests = (python, "-m", "pytest", "-p", "no:cacheprovider", "-rs", "tests/test_schedulers.py")
    return subprocess.run(tests, cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main())
