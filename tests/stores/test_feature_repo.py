"""`feature_repo/` as a user meets it: Feast's own commands, from its own folder."""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from reki_feast.cli.init import init
from reki_feast.schema import Key
from reki_feast.stores import embedded

REPO = Path(__file__).resolve().parents[2] / "feature_repo"
SERVICES = ["ctr_plain", "ctr_with_match", "ctr_with_reki"]
# All in one process: importing Feast takes seconds.
SCRIPT = """
import runpy, shutil, socket, sys, threading, time, urllib.request
from importlib.util import find_spec
from feast.cli.cli import cli

def feast(line):
    print("$ feast", line, flush=True)
    cli(line.split(), standalone_mode=False)

shutil.move("../data/movies/manifest.json", "../data/manifest.json")
try:
    feast("apply")
except Exception as error:
    print(type(error).__name__, error)
shutil.move("../data/manifest.json", "../data/movies/manifest.json")

feast("apply")
feast("materialize 2020-01-01T00:00:00 2026-04-01T00:00:00")
feast("materialize-incremental 2026-11-01T00:00:00")
feast("feature-views list")
feast("feature-services list")
runpy.run_path("train_ctr.py", run_name="__main__")
if find_spec("grpc") is None:
    sys.exit("feast ui needs feast[grpcio]")

with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
ui = f"ui --host 127.0.0.1 --port {port}"
threading.Thread(target=feast, args=[ui], daemon=True).start()
for page in ("/", "/api/v1/feature_views/reki?project=reki"):
    for wait in range(3000):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{page}", timeout=60) as answer:
                print(answer.status, answer.read().decode()[:4000])
                break
        except ConnectionError:
            time.sleep(0.1)
        except urllib.error.URLError as error:
            if not isinstance(error.reason, ConnectionError):
                raise
            time.sleep(0.1)
"""


@pytest.fixture
def project(tmp_path: Path, make_published: Callable[..., Any]) -> Iterator[Path]:
    """A copy of the repo in a path with a space, sample-like tables beside it."""
    root = tmp_path / "my project"
    ignored = shutil.ignore_patterns("data", "__pycache__")
    shutil.copytree(REPO, root / "feature_repo", ignore=ignored)
    keys = Key("user_id", pa.int64()), Key("item_id", pa.int64())
    make_published(root / "data" / "movies", *keys, scored=True)
    _sample(root / "data" / "sample")
    yield root
    embedded.stop(root / "data" / "redis")


def _sample(folder: Path) -> None:
    """Interactions of random users and films, as the package's sample has them."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    users, items = (1 << 40) + np.arange(40), (1 << 40) + np.arange(25)
    n = 2_000
    when = pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(rng.integers(0, 300, n), "D")
    tables = {
        "users": {"user_id": users, "age": 30, "occupation": "cook", "region": "north"},
        "items": {"item_id": items, "title": "t", "year": 1999, "genres": "Crime, Drama"},
        "interactions": {
            "user_id": rng.choice(users, n),
            "item_id": rng.choice(items, n),
            "rating": rng.integers(1, 6, n),
            "event_timestamp": when,
        },
    }
    for name, columns in tables.items():
        pd.DataFrame(columns).to_parquet(folder / f"{name}.parquet")


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "REDIS_URL"}
    return subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("seen", ["2026-01-03T00:00:00+00:00", "2026-01-02T00:00:00.000001+00:00"])
def test_jobs_are_tested_on_labels_that_no_vector_has_learnt(seen: str) -> None:
    """The tag says before when labels were learnt: a label at that very time was not."""
    view = SimpleNamespace(tags={"reki.trained_until": seen})
    store = SimpleNamespace(get_feature_view=lambda _: view)
    when = pd.to_datetime([f"2026-01-0{day}" for day in (1, 2, 3, 4)], utc=True)
    rows = pd.DataFrame({"event_timestamp": when, "liked": [0, 1, 0, 1]})
    common = runpy.run_path(str(REPO / "crm" / "common.py"))
    assert common["is_late"](store, rows).tolist() == [False, False, True, True]


def test_the_repo_that_init_lays_down_leads_with_the_score(
    tmp_path: Path, make_published: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    init(tmp_path / "shop", "books")
    keys = Key("user_id", pa.int64()), Key("item_id", pa.int64())
    make_published(tmp_path / "shop" / "data" / "books", *keys, scored=True)
    monkeypatch.chdir(tmp_path / "shop" / "feature_repo")  # where `feast apply` runs
    said = runpy.run_path("features.py")
    refs = {
        name: [f"{one.name}:{field.name}" for one in views for field in one.features]
        for name in ("scored", "vectors")
        for views in [said[name].feature_view_projections]
    }
    assert refs == {
        "scored": ["reki_match:score"],
        "vectors": ["reki:user_aug", "reki_item:item_aug"],
    }


def test_feasts_commands(project: Path) -> None:
    repo = project / "feature_repo"
    prepared = run(repo, "prepare.py")
    assert prepared.returncode == 0, prepared.stderr
    done = run(repo, "-c", SCRIPT)
    without, said = done.stdout.split("$ feast apply")[1:]

    assert "StoreError" in without
    assert "hint:   run `reki run` in the project's folder" in without
    assert "Deploying infrastructure for" in said, done.stderr
    assert "reki_user_knowledge" in said
    assert "reki_user_match" in said
    assert all(name in said for name in SERVICES)
    assert embedded.status(project / "data" / "redis").keys == 40 + 25 + 1  # how far they are
    told = [line.split()[0] for line in said.splitlines() if "  AUC 0." in line]
    assert told == SERVICES
    if "feast ui needs" in done.stderr:
        pytest.skip("`feast ui` needs feast[grpcio]; the other commands passed")
    assert done.returncode == 0, done.stderr
    assert "Augmented user vector" in said
