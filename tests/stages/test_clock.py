"""What was made last is served, also where it was made by a clock that went back."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from feast import FeatureStore

from reki_feast import schema, stages
from reki_feast.project import DeclaredProject, now, open_project
from reki_feast.stages.publishing import _end
from reki_feast.stores import embedded
from tests.bench.serving import make_repo
from tests.stages.conftest import T0, make_shop, reseed

pytestmark = [
    pytest.mark.filterwarnings("ignore:On demand feature view is an exp:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning:ibis.backends.duckdb"),
]
AHEAD = timedelta(hours=2)
WHO = [f"c'{n}" for n in range(20)]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("clock") / "my shop"
    make_repo(root)
    yield root
    embedded.stop(root / "data" / "redis")


@pytest.fixture(params=["counted", "of before"])
def shop(ran: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[DeclaredProject]:
    """A shop whose tables were made by a clock two hours ahead; or by a version without a count."""
    shutil.copytree(ran, tmp_path / "my shop", ignore=shutil.ignore_patterns("redis"))
    project = open_project(tmp_path / "my shop")
    ahead(project)
    if request.param == "of before":
        (project.data / "made.json").unlink()
    yield project
    embedded.stop(project.root / "data" / "redis")


def ahead(project: DeclaredProject) -> None:
    """Have all rows made two hours later."""
    for path in sorted(project.data.glob("*/*.parquet")):
        table = pq.read_table(path, partitioning=None)
        if "created_timestamp" in table.column_names:
            at = table.column_names.index("created_timestamp")
            later = pc.add(table.column(at), pa.scalar(AHEAD, pa.duration("us")))
            pq.write_table(table.set_column(at, table.schema.field(at), later), path)
    last = (project.lake.next_made() + AHEAD).isoformat()
    project.lake.write_json("made", {"last": last})


def served(project: DeclaredProject) -> tuple[np.ndarray, np.ndarray]:
    """Users' vectors ``[n, q]``, joined and online."""
    store = FeatureStore(repo_path=str(project.feature_repo))
    when = [T0 + timedelta(days=90)] * len(WHO)
    asked = pd.DataFrame({"customer_id": WHO, "event_timestamp": when})
    joined = store.get_historical_features(asked, ["reki:user_aug"]).to_df()
    rows = [{"customer_id": one} for one in WHO]
    online = store.get_online_features(["reki:user_aug"], rows).to_dict()
    by_id = joined.set_index("customer_id")["user_aug"].loc[WHO]
    return np.stack(by_id.to_list()), np.array(online["user_aug"], np.float32)


def test_new_weights_are_served(shop: DeclaredProject) -> None:
    stages.publish(shop, materialize=True)
    before, _ = served(shop)
    project = reseed(shop.root, 1)
    stages.train(project, retrain=True)
    stages.publish(project)
    stages.promote(project)
    after, online = served(project)
    assert np.abs(after - before).max(axis=1).min() > 0
    np.testing.assert_array_equal(after, online)
    (table,) = stages.publish(project).tables
    assert {name: added for name, _, added in table.rows if added} == {}


def test_rows_of_a_time_that_is_still_to_come_are_materialized(tmp_path: Path) -> None:
    """The clock went back behind the last snapshot."""
    project = make_shop(tmp_path / "my shop")
    assert _end(project) - now() < timedelta(minutes=1)
    key = schema.Key("customer_id", pa.string())
    made = schema.augmented(key, "user")
    coming = now() + AHEAD
    rows = {"customer_id": ["a"], "user_aug": [[1.0]], "hash": ["x"]}
    rows |= {"event_timestamp": [coming], "created_timestamp": [now()]}
    project.lake.append("user_aug", pa.table(rows, schema=made))
    assert _end(project) == coming
