"""The environment the suite runs in: its own, as it wants pytest below 8."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path

from reki_feast.errors import StoreError

#: What the suite imports or its pytest.ini sets; testcontainers and what it needs are imported
#: by fixtures that are not used here.
SUITE = (
    "pytest>=7.4,<8",
    "pytest-asyncio<=0.24",
    "pytest-env",
    "pytest-timeout==1.4.2",
    "pytest-xdist>=3.8",
    "assertpy==1.1",
    "botocore>=1.35",
    "cryptography>=43",
    "google-cloud-bigquery",
    "minio>=7.2.11",
    "python-keycloak>=4.2.2",
    "requests",
    "testcontainers>=4.15.0rc2",
)
#: Of our own dependencies, what the stores import.
STORES = ("feast", "duckdb", "pyarrow", "numpy")
PATIENCE_S = 1_200


def python_of(folder: Path, root: Path) -> Path:
    """The interpreter of the environment, which is made when missing or out of date.

    Args:
        folder: of the environment.
        root: of the project, with ``constraints.txt``.

    Raises:
        StoreError: pip fails.
    """
    python, mark = folder / "bin" / "python", folder / ".ready"
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    constraints = root / "constraints.txt"
    steps = [
        [*pip, "--constraint", str(constraints), *requirements()],
        # Without constraints: botocore, for one, wants older packages than ours.
        [*pip, *SUITE],
        [*pip, "--no-deps", "--editable", str(root)],
    ]
    wanted = hashlib.sha256((repr(steps) + constraints.read_text()).encode()).hexdigest()
    if mark.is_file() and mark.read_text() == wanted:
        return python
    shutil.rmtree(folder, ignore_errors=True)
    for step in ([sys.executable, "-m", "venv", str(folder)], *steps):
        _run(step)
    mark.write_text(wanted)
    return python


def requirements() -> list[str]:
    """What the stores need, as the installed project declares it."""
    return [line for line in requires("reki-feast") or [] if line.startswith(STORES)]


def version_of(python: Path, package: str) -> str:
    """The version of a package in an environment."""
    code = f"from importlib.metadata import version; print(version({package!r}), end='')"
    return _run([str(python), "-c", code])


def _run(command: list[str]) -> str:
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    if done.returncode != 0:
        raise StoreError(
            "The suite's environment can be made",
            detail="\n".join(done.stderr.splitlines()[-8:]),
            hint="this command failed: " + " ".join(command),
        )
    return done.stdout
