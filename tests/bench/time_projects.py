"""A project on disk for a data set of time.py, brought up to date as its log grows.

It is trained when four fifths of the interactions are there, and published; then the rest comes,
and it is encoded and published again with the weights it has. No language model is asked: an item's
text is imported. Users have their history as a text, and the mean of what is known of items they
liked.
"""

from __future__ import annotations

import runpy
import shutil
import warnings
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from feast import Entity, FeatureService, FeatureStore, FeatureView
from feast.on_demand_feature_view import OnDemandFeatureView

from reki_feast import files, stages
from reki_feast.encoding import Floats
from reki_feast.project import DeclaredProject, open_project
from reki_feast.report import Progress, Silent
from tests.bench.crm_joined import join
from tests.bench.time_data import Data

#: Snapshots of users' histories, each after as many interactions.
SNAPSHOTS = 20

GENERATOR = """
from reki_feast import Encoder, Scenario, Sources, Training

scenario = Scenario(
    name="{name}", item="item", rating="rating", rating_scale="from 1 to 5", liked="{liked}",
    description="{{{{ said }}}}",
)
sources = Sources(
    items="select * from 'items.parquet'",
    interactions="select * from 'interactions.parquet'",
)
encoder = Encoder(max_tokens=128, pooling="mean", taste=True)
training = Training(match=1, check=False)
"""
FEATURES = """
from feast import Entity, FeatureService, ValueType
from reki_feast.views import reki_match, reki_views

user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
item = Entity(name="item", join_keys=["item_id"], value_type=ValueType.INT64)
views = reki_views("../data/{name}", user=user, item=item, repo=__file__)
reki, reki_item = views.user, views.item
vectors = FeatureService(name="vectors", features=[reki, reki_item])
reki_scores, reki_user_match, reki_item_match = reki_match(
    "../data/{name}", user=user, item=item, repo=__file__
)
match = FeatureService(name="match", features=[reki_scores])
"""
STORE = """
project: {name}
provider: local
registry: data/registry.db
offline_store: {{type: reki_feast.stores.duckdb_offline.RekiDuckDBOfflineStore}}
online_store: {{type: sqlite, path: data/online.db}}
entity_key_serialization_version: 3
"""


def columns_of(
    data: Data, cut: pd.Timestamp, folder: Path, texts: Path, progress: Progress | None = None
) -> tuple[dict[str, Floats], npt.NDArray[np.bool_]]:
    """What Feast joins to all interactions, by service, and the rows whose user and item it knows.

    Args:
        data: the data set.
        cut: when it is trained.
        folder: of the project; made anew.
        texts: folder where vectors of texts are kept between runs.
        progress: shows how far it is; None shows nothing.
    """
    project = laid_down(data, folder, texts)
    live(project, data, cut, progress or Silent())
    _keep(project.data / "vectors", texts)
    store = applied(project)
    asked = data.ratings[["user_id", "item_id", "event_timestamp"]]
    services = [service.name for service in store.list_feature_services()]
    found = {name: join(store, name, asked).columns for name in services}
    return found, known(project, data.ratings)


def laid_down(data: Data, folder: Path, texts: Path) -> DeclaredProject:
    """Its files, no interactions yet."""
    shutil.rmtree(folder, ignore_errors=True)
    files.write_text(
        folder / "generators" / f"{data.name}.py",
        GENERATOR.format(name=data.name, liked=data.liked),
    )
    files.write_text(folder / "feature_repo" / "feature_store.yaml", STORE.format(name=data.name))
    data.items.drop(columns="known").to_parquet(folder / "items.parquet")
    project = open_project(folder)
    if texts.exists():
        shutil.copytree(texts, project.data / "vectors")
    return project


def live(project: DeclaredProject, data: Data, cut: pd.Timestamp, progress: Progress) -> None:
    """Import what is known of items, train at the cut, publish; go on to the end of the log."""
    when = data.ratings["event_timestamp"]
    times = snapshots(when, cut)
    known_items = project.root / "known.parquet"
    said = data.items[["item_id", "known"]].dropna().rename(columns={"known": "text"})
    said.to_parquet(known_items)
    for upto, some in ((cut, [time for time in times if time <= cut]), (None, times)):
        rows = data.ratings if upto is None else data.ratings[when < upto]
        rows.drop(columns="liked").to_parquet(project.root / "interactions.parquet")
        stages.import_knowledge(project, {"items": str(known_items)}, as_of=times[:1])
        stages.encode(project, as_of=some, progress=progress)
        stages.train(project, progress=progress)
        stages.publish(project)


def snapshots(when: pd.Series, cut: pd.Timestamp) -> list[datetime]:
    """A day before the first interaction, the cut, and times after as many interactions each."""
    between = when.quantile(np.arange(1, SNAPSHOTS) / SNAPSHOTS)
    ends = [when.min() - timedelta(days=1), *between, cut, when.max() + timedelta(microseconds=1)]
    return sorted({time.to_pydatetime() for time in pd.DatetimeIndex(ends).floor("us")})


def applied(project: DeclaredProject) -> FeatureStore:
    """The project's Feast repo over what is published: vectors and scores."""
    path = project.feature_repo / "features.py"
    files.write_text(path, FEATURES.format(name=project.name))
    kinds = Entity, FeatureView, OnDemandFeatureView, FeatureService
    (project.feature_repo / "data").mkdir(exist_ok=True)
    store = FeatureStore(repo_path=str(project.feature_repo))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "On demand feature view is an exp", RuntimeWarning)
        named = runpy.run_path(str(path))
        store.apply([value for value in named.values() if isinstance(value, kinds)])
    return store


def known(project: DeclaredProject, ratings: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """The rows ``[n]`` whose user and item had a row for their scores at that time."""
    found = np.ones(len(ratings), bool)
    for kind in ("user", "item"):
        parts = project.lake.parts(f"{kind}_match")
        names = [f"{kind}_id", "event_timestamp"]
        rows = pa.concat_tables(pq.read_table(part, columns=names) for part in parts).to_pandas()
        first = ratings[names[0]].map(rows.groupby(names[0])["event_timestamp"].min())
        found &= (first <= ratings["event_timestamp"]).to_numpy()
    return found


def _keep(vectors: Path, texts: Path) -> None:
    """Keep the vectors of texts for the next run."""
    for part in vectors.glob("*.parquet"):
        texts.mkdir(parents=True, exist_ok=True)
        if not (texts / part.name).exists():
            shutil.copy(part, texts / part.name)
