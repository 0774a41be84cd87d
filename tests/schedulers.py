"""docs/schedulers under a real Airflow and a real Dagster.

    python -m tests.schedulers [airflow] [dagster]

Each gets an environment over this one, below ``build/schedulers`` and kept between runs, so that
only what it brings is installed. Ends with 1 if a test failed.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.overlay import install, make_overlay

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "schedulers"
PACKAGES = {"airflow": "apache-airflow==3.3.2", "dagster": "dagster==1.13.29"}
#: Airflow has an upper bound that the environment below is beyond.
FREE = {"airflow": ("fastapi==",), "dagster": ()}


def main() -> int:
    """Make the environments, and test in each; 1 if a test failed."""
    return max([tested(name) for name in sys.argv[1:] or PACKAGES])


def tested(name: str) -> int:
    """Pytest's status in the environment of a scheduler."""
    python = make_overlay(BUILD / name)
    pins = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    free = [line for line in pins if not line.startswith(FREE[name])]
    install(python, [PACKAGES[name], "reki-feast"], free)
    tests = ("-m", "pytest", "-p", "no:cacheprovider", "-rs", "tests/test_schedulers.py")
    return subprocess.run([python, *tests, "-k", name], cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main())
