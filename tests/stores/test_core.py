"""What ``pip install reki-feast`` alone serves: the same as with all extras."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from reki_feast.schema import Key

JOB = Path(__file__).with_name("core_job.py")
USER, ITEM = Key("user_id", pa.int64()), Key("sku", pa.int64())
UNKNOWN = {"user": [0.5, -0.5, 0.25, 0.0], "item": [9.0, 8.0, 7.0, 6.0]}
NEWEST = [[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0]]  # of the first two rows
SCORES = {"score": [2.0, 2.0, 0.0], "text_wide": [0.5, 0.5, 0.0], "hein": [0.25, 0.25, 0.0]}
VECTORS = {
    "user_aug": [*NEWEST, UNKNOWN["user"]],
    "item_aug": [*NEWEST, UNKNOWN["item"]],
}
TASTES = [[1.0, 2.0], [5.0, 6.0], [0.5, -0.5]]


@pytest.fixture(scope="module")
def job(
    tmp_path_factory: pytest.TempPathFactory, make_published: Callable[..., Any]
) -> dict[str, Any]:
    """What the job gives on a machine that has the core alone."""
    folder = tmp_path_factory.mktemp("core")
    make_published(folder / "movies", USER, ITEM, users=4, items=3, scored=True)
    return {mode: run(folder, mode) for mode in ("bare", "full")}


def run(folder: Path, mode: str) -> dict[str, Any]:
    options = ["--bare"] if mode == "bare" else []
    command = [sys.executable, str(JOB), str(folder / mode), str(folder / "movies"), *options]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_nothing_of_an_extra_is_loaded(job: dict[str, Any]) -> None:
    assert job["bare"]["loaded"] == []


@pytest.mark.parametrize("repo", ["plain", "reki"])
def test_extras_change_nothing(job: dict[str, Any], repo: str) -> None:
    assert job["bare"][repo] == job["full"][repo]


def test_a_plain_repo_is_joined_and_read(job: dict[str, Any]) -> None:
    found = job["bare"]["plain"]
    assert found["joined"]["vector"] == [[1.0, 2.0], [3.0, 4.0], [0.5, -0.5]]
    assert found["joined"]["visits"] == [10, 20, None]
    assert found["online"] == {
        "customer_id": [1, 2, 99],
        "vector": TASTES,
        "visits": [10, 30, None],
    }
    assert found["arrays"] == {"vector": TASTES, "visits": [10, 30, 0]}
    assert found["known"] == {name: [True, True, False] for name in ("vector", "visits")}


@pytest.mark.parametrize("way", ["joined", "online", "arrays"])
def test_a_published_scenario_is_served(job: dict[str, Any], way: str) -> None:
    found = job["bare"]["reki"][way]
    assert {name: found[name] for name in [*SCORES, *VECTORS]} == SCORES | VECTORS
