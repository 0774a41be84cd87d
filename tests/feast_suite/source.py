"""Where Feast's tests come from; its source distribution lacks them."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

from reki_feast.errors import StoreError

URL = "https://github.com/feast-dev/feast"
SDK = "sdk/python"
WANTED = ("tests", "pytest.ini")
PATIENCE_S = 300


def fetch(version: str, folder: Path, source: str = "") -> str:
    """Put ``tests/`` and ``pytest.ini`` of Feast's Python SDK into a folder; says which ones.

    Args:
        version: of the installed Feast.
        folder: emptied first.
        source: a checkout or a git directory of Feast; its tag of the version counts, or its
            ``HEAD`` where it has no such tag. A folder without git is taken as it is. Empty: the
            tag from GitHub.

    Raises:
        StoreError: there is nothing to take the tests from.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    place = Path(source).expanduser().resolve() if source else cloned(version, folder.parent)
    found = commit(place, version)
    if found:
        unpack(place, found, folder)
        return f"{place} at {found}"
    if not (place / SDK / "tests").is_dir():
        raise _unusable(place, f"neither git nor {SDK}/tests is there")
    shutil.copytree(place / SDK / "tests", folder / "tests")
    shutil.copy(place / SDK / "pytest.ini", folder)
    return str(place)


def cloned(version: str, folder: Path) -> Path:
    """The version's tag from GitHub, without its history; cloned once."""
    place = folder / f"feast-{version}"
    if place.is_dir():
        return place
    half = folder / "clone"
    shutil.rmtree(half, ignore_errors=True)
    options = ["--quiet", "--depth=1", "--filter=blob:none", "--sparse", f"--branch=v{version}"]
    try:
        _git("clone", *options, URL, str(half))
        _git("-C", str(half), "sparse-checkout", "set", f"{SDK}/tests")
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        raise StoreError(
            f"Feast's tests come from {URL}, tag v{version}",
            detail=_said(error),
            hint="name a checkout or git directory of Feast: make feast-suite FEAST_SOURCE=FOLDER",
        ) from error
    half.rename(place)
    return place


def commit(place: Path, version: str) -> str:
    """``v0.67.0`` where git has that tag, else ``HEAD``'s commit; empty where there is no git."""
    if not place.is_dir():
        raise _unusable(place, "no such folder")
    if not (place / ".git").exists() and not (place / "HEAD").is_file():
        return ""
    said = ""
    for name, shown in ((f"v{version}", "--symbolic"), ("HEAD", "--short=12")):
        try:
            return _git("-C", str(place), "rev-parse", "--verify", shown, name).strip()
        except subprocess.CalledProcessError as error:
            said = _said(error)
    raise _unusable(place, f"git finds neither v{version} nor HEAD: {said}")


def unpack(place: Path, name: str, folder: Path) -> None:
    """The tests of one commit; nothing of the repository's own files is touched."""
    command = ["git", "-C", str(place), "archive", f"{name}:{SDK}", *WANTED]
    done = subprocess.run(command, capture_output=True, check=False, timeout=PATIENCE_S)
    if done.returncode != 0:
        raise _unusable(place, done.stderr.decode(errors="replace").strip())
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(folder, filter="data")


def _git(*arguments: str) -> str:
    """What git says; it asks for no password."""
    return subprocess.run(
        ["git", *arguments],
        env={**os.environ, "GIT_TERMINAL_PROMPT": "0"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE_S,
    ).stdout


def _said(error: subprocess.CalledProcessError | subprocess.TimeoutExpired) -> str:
    if isinstance(error, subprocess.TimeoutExpired):
        return f"nothing within {PATIENCE_S} seconds"
    return str(error.stderr).strip()


def _unusable(place: Path, found: str) -> StoreError:
    return StoreError(
        "FEAST_SOURCE is a checkout or a git directory of feast-dev/feast",
        detail=f"{place}: {found}",
        hint=f"git clone --depth=1 --branch=v0.67.0 {URL}, and name that folder",
    )
