"""`feature_repo/crm/`: each job by its own command's way, and what the jobs share."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reki_feast.schema import Key
from reki_feast.stores import embedded
from tests.bench.crm_features import earlier, folds, out_of_fold, plain_features

REPO = Path(__file__).resolve().parents[2] / "feature_repo"
JOBS = {
    "lightgbm_job": ("lightgbm", "LightGBM"),
    "xgboost_job": ("xgboost", "XGBoost"),
    "sklearn_job": ("sklearn", "scikit-learn"),
    "torch_rechub_job": ("torch_rechub", "torch-rechub"),
    "fuxictr_job": ("fuxictr", "FuxiCTR"),
}
SERVICES = ("ctr_plain", "ctr_with_match", "ctr_with_reki")
#: LightGBM gets all services, the others those with features of ours.
RUNS = [
    (job, service)
    for job, (package, _) in JOBS.items()
    for service in (SERVICES if job == "lightgbm_job" else SERVICES[1:])
    if find_spec(package)
]
# All in one process: importing Feast takes seconds.
SCRIPT = """
import runpy, sys
from feast.cli.cli import cli
cli(["apply"], standalone_mode=False)
sys.path.insert(0, "crm")
for run in sys.argv[1:]:
    job, service = run.split(":")
    sys.argv = [f"crm/{job}.py", service]
    runpy.run_path(f"crm/{job}.py", run_name="__main__")
sys.modules["lightgbm"] = None  # as if it were not installed
runpy.run_path("crm/lightgbm_job.py", run_name="__main__")
"""


@pytest.fixture
def repo(tmp_path: Path, make_published: Callable[..., Any]) -> Iterator[Path]:
    """A copy of the Feast repo, small tables beside it; its embedded server ends with the test."""
    ignored = shutil.ignore_patterns("data", "__pycache__")
    shutil.copytree(REPO, tmp_path / "feature_repo", ignore=ignored)
    key = Key("user_id", pa.int64()), Key("item_id", pa.int64())
    make_published(tmp_path / "data" / "movies", *key, scored=True)
    _sample(tmp_path / "data" / "sample")
    subprocess.run([sys.executable, "prepare.py"], cwd=tmp_path / "feature_repo", check=True)
    yield tmp_path / "feature_repo"
    embedded.stop(tmp_path / "data" / "redis")


def _sample(folder: Path) -> None:
    folder.mkdir(parents=True)
    rng, n = np.random.default_rng(0), 1_000
    users, items = (1 << 40) + np.arange(40), (1 << 40) + np.arange(25)
    when = pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(rng.integers(0, 300, n), "D")
    work = np.where(np.arange(40) % 2, "cook", "smith")
    tables = {
        "users": {"user_id": users, "age": 30, "occupation": work},
        "items": {"item_id": items, "year": 1999, "genres": "Crime, Drama"},
        "interactions": {
            "user_id": rng.choice(users, n),
            "item_id": rng.choice(items, n),
            "rating": rng.integers(1, 6, n),
            "event_timestamp": when,
        },
    }
    for name, columns in tables.items():
        pd.DataFrame(columns).to_parquet(folder / f"{name}.parquet")


def test_every_job_with_every_service(repo: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *(f"{job}:{service}" for job, service in RUNS)],
        cwd=repo,
        capture_output=True,
        text=True,
        check=False,
    )
    told = [tuple(line.split()[:3]) for line in done.stdout.splitlines() if "  AUC 0." in line]
    assert told == [(JOBS[job][1], service, "AUC") for job, service in RUNS], done.stderr
    assert done.returncode == 2
    assert done.stderr.endswith("no module lightgbm: pip install lightgbm\n")


def ratings_of(stars: list[int]) -> pd.DataFrame:
    """Six users on four films, in turn."""
    row = np.arange(len(stars))
    frame = pd.DataFrame({"user_id": row % 6 + 10, "item_id": row * 7 % 4 + 20, "rating": stars})
    return frame.assign(liked=frame["rating"] >= 4)


USERS = pd.DataFrame({"user_id": range(10, 16), "age": 30})
ITEMS = pd.DataFrame({"item_id": range(20, 24), "genres": ["A", "A|B", "B", None], "year": 1999})
STARS = st.lists(st.integers(1, 5), min_size=24, max_size=24)


@settings(max_examples=25, deadline=None)
@given(stars=STARS, user=st.integers(0, 5), other=STARS)
def test_no_encoding_of_a_user_knows_the_users_own_labels(
    stars: list[int], user: int, other: list[int]
) -> None:
    own = np.arange(24) % 6 == user
    changed = np.where(own, other, stars).tolist()
    train = np.arange(24) % 6 < 5
    films = ["item_count", "item_rate", "item_mean"]
    before, after = (_item_columns(ratings_of(given_), train, films) for given_ in (stars, changed))
    np.testing.assert_allclose(before[own], after[own], atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(stars=STARS, at=st.integers(0, 23), new=st.integers(1, 5))
def test_no_feature_knows_its_own_label_or_a_later_one(stars: list[int], at: int, new: int) -> None:
    changed = [*stars[:at], new, *stars[at + 1 :]]
    before, after = (
        plain_features(ratings_of(given_), USERS, ITEMS, None).to_numpy()
        for given_ in (stars, changed)
    )
    np.testing.assert_array_equal(before[: at + 1], after[: at + 1])


def _item_columns(
    ratings: pd.DataFrame, train: npt.NDArray[np.bool_], names: list[str]
) -> npt.NDArray[Any]:
    return np.asarray(plain_features(ratings, USERS, ITEMS, train)[names])


def test_folds_keep_users_whole() -> None:
    user = np.array([0, 1, 0, 2, 1])
    fold = folds(user, np.array([True, True, True, False, True]), count=3)
    assert fold[0] == fold[2]
    assert fold[1] == fold[4]
    assert fold[3] == -1


def test_statistics_of_other_folds() -> None:
    item, fold = np.array([0, 0, 1, 0]), np.array([0, 1, 1, -1])
    count, total = out_of_fold(item, np.array([1.0, 2, 4, 8]), fold)
    assert count.tolist() == [1, 1, 0, 2]
    assert total.tolist() == [2, 1, 0, 3]


def test_earlier_rows_of_the_same_key() -> None:
    count, total = earlier(np.array([5, 3, 5, 5, 3]), np.array([1.0, 2, 4, 8, 16]))
    assert count.tolist() == [0, 0, 1, 2, 1]
    assert total.tolist() == [0, 0, 1, 5, 2]
