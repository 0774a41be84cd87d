"""MovieLens-100K with its timestamps: two snapshots, materialized, and a point-in-time join.

No language model is asked here: what the ratings before an as-of time tell of each item and user is
imported as knowledge. So both sides differ between the two snapshots, and every joined row can be
checked against the snapshot it was allowed to see.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from reki_feast import files, schema, stages
from reki_feast.project import DeclaredProject, open_project
from reki_feast.report import Progress, Report, Silent, Table
from reki_feast.tables import duckdb_session
from reki_feast.tables.parts import newest
from tests.bench.common import Row

SNAPSHOTS = (
    datetime(1997, 12, 1, tzinfo=UTC),
    datetime(1998, 3, 1, tzinfo=UTC),
)

GENERATOR = """
from reki_feast import Encoder, Scenario, Sources, Training

scenario = Scenario(
    name="ml100k", item="movie", user="viewer", rating="rating", rating_scale="from 1 to 5",
    description="{{{{ title }}}}, {{{{ genres | replace('|', ', ') }}}}",
    profile="{{{{ age }}}} years old, {{{{ occupation }}}}",
    as_of={as_of!r},
)
sources = Sources(
    items="select * from '{data}/movies.parquet'",
    users="select * from '{data}/users.parquet'",
    interactions="select user_id, item_id, rating, timestamp as event_timestamp "
    "from '{data}/ratings.parquet'",
)
encoder = Encoder(max_tokens=64, pooling="mean")
training = Training(epochs=3)
"""

# What the ratings before a time tell, as sentences that a language model could have written.
OPINIONS = {
    "items": """
        select item_id, format(
          '{{}} has {{}} ratings so far, {{:.1f}} stars on average, most of them from {{}}s.',
          m.title, count(*), avg(r.rating), mode(u.occupation)) as text
        from '{data}/ratings.parquet' r
        join '{data}/movies.parquet' m using (item_id)
        join '{data}/users.parquet' u using (user_id)
        where r.timestamp < '{as_of}' group by item_id, m.title""",
    "users": """
        select user_id, format(
          'Has rated {{}} movies so far, {{:.1f}} stars on average, most of them {{}}.',
          count(*), avg(r.rating), mode(m.genres)) as text
        from '{data}/ratings.parquet' r join '{data}/movies.parquet' m using (item_id)
        where r.timestamp < '{as_of}' group by user_id""",
}

FEATURES = """
from feast import Entity, FeatureService, ValueType
from reki_feast.views import reki_views

user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
item = Entity(name="item", join_keys=["item_id"], value_type=ValueType.INT64)
(reki, reki_item, user_text, item_text, user_vectors, item_vectors) = reki_views(
    "../data/ml100k", user=user, item=item
)
vectors = FeatureService(name="vectors", features=[reki, reki_item])
"""

STORE = """
project: ml100k
provider: local
registry: data/registry.db
offline_store: {type: reki_feast.stores.duckdb_offline.RekiDuckDBOfflineStore}
online_store:
  type: reki_feast.stores.redis_online.RekiRedisOnlineStore
  connection_string: embedded:../data/redis
entity_key_serialization_version: 3
"""


def run(data: Path, folder: Path, progress: Progress | None = None) -> tuple[list[Row], Report]:
    """Lay a project down in ``folder``, run it, materialize it and check the join row by row."""
    project = _project(data / "ml-100k", folder)
    began = time.perf_counter()
    for as_of in SNAPSHOTS:
        _import_opinions(project, data / "ml-100k", as_of)
    stages.encode(project, progress=progress or Silent())
    stages.train(project, progress=progress or Silent())
    try:
        report = stages.publish(project, materialize=True)
        made = time.perf_counter() - began
        found = _join(project, data / "ml-100k")
    finally:
        stages.down(project)
    rows = [_row(found, made)]
    return rows, Report("MovieLens-100K: two snapshots", [*report.tables, _table(found)])


def _project(data: Path, folder: Path) -> DeclaredProject:
    as_of = [time.isoformat() for time in SNAPSHOTS]
    files.write_text(
        folder / "generators" / "ml100k.py", GENERATOR.format(data=data.resolve(), as_of=as_of)
    )
    files.write_text(folder / "feature_repo" / "features.py", FEATURES)
    files.write_text(folder / "feature_repo" / "feature_store.yaml", STORE)
    return open_project(folder)


def _import_opinions(project: DeclaredProject, data: Path, as_of: datetime) -> None:
    files = {}
    for name, sql in OPINIONS.items():
        table = duckdb_session.query(
            sql.format(data=data.resolve(), as_of=as_of), root=project.root
        )
        files[name] = str(project.root / f"{name}-{as_of:%Y%m%d}.parquet")
        pq.write_table(table, files[name])
    stages.import_knowledge(project, files, as_of=[as_of])


Found = dict[str, Any]


def _join(project: DeclaredProject, data: Path) -> Found:
    """Join all ratings through Feast; compare each row with the snapshots on disk."""
    from feast import FeatureStore

    ratings = pq.read_table(data / "ratings.parquet", columns=["user_id", "item_id", "timestamp"])
    entities = pa.table(
        {
            "user_id": ratings["user_id"].cast(pa.int64()),
            "item_id": ratings["item_id"].cast(pa.int64()),
            "event_timestamp": ratings["timestamp"],
        }
    ).to_pandas()
    store = FeatureStore(repo_path=str(project.feature_repo))
    began = time.perf_counter()
    job = store.get_historical_features(entities, store.get_feature_service("vectors"))
    joined = job.to_arrow()
    found: Found = {"rows": joined.num_rows, "seconds": time.perf_counter() - began}
    for kind in schema.KINDS:
        found[kind] = _checked(project, joined, kind)
    return found


def _checked(project: DeclaredProject, joined: pa.Table, kind: schema.Kind) -> dict[str, int]:
    """Rows by what they saw; ``future`` saw a vector as of a later time than the row's own."""
    manifest = project.lake.read_json("manifest")
    assert manifest is not None
    key = schema.Key(manifest[kind]["key"], pa.int64())
    stored = project.lake.read(f"{kind}_aug", schema.augmented(key, kind))
    seen = _matrix(joined[f"{kind}_aug"])
    when = joined["event_timestamp"].cast(schema.TIMESTAMP).to_numpy().astype("datetime64[us]")
    times = sorted(stored["event_timestamp"].unique().to_pylist())
    vectors = {time: _at(stored, key, kind, time, joined[key.name]) for time in times}
    default = np.asarray(manifest[kind]["default"], np.float32)
    allowed = np.tile(default, (len(seen), 1))
    for time_, (has, rows) in vectors.items():
        there = has & (when >= np.datetime64(time_.replace(tzinfo=None), "us"))
        allowed[there] = rows[there]
    right = (seen == allowed).all(axis=1)
    future = np.zeros(len(seen), bool)
    for time_, (has, rows) in vectors.items():
        later = has & (when < np.datetime64(time_.replace(tzinfo=None), "us"))
        future |= later & (seen == rows).all(axis=1) & ~right
    is_default = (seen == default).all(axis=1)
    return {
        "default": int(is_default.sum()),
        "stored": int((right & ~is_default).sum()),
        "future": int(future.sum()),
        "wrong": int((~right).sum()),
    }


def _at(
    stored: pa.Table, key: schema.Key, kind: str, as_of: datetime, ids: pa.ChunkedArray
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float32]]:
    """Each row's vector in the snapshot of a time, and whether its id is in that snapshot.

    An id whose vector did not change since an earlier snapshot has its row there.
    """
    upto = stored.filter(pc.field("event_timestamp") <= pa.scalar(as_of, schema.TIMESTAMP))
    rows = newest(upto, [key.name])
    at = pc.index_in(ids.combine_chunks(), value_set=rows[key.name].combine_chunks())
    has = at.is_valid().to_numpy(zero_copy_only=False)
    return has, _matrix(rows[f"{kind}_aug"])[at.fill_null(0).to_numpy()]


def _matrix(column: pa.ChunkedArray) -> npt.NDArray[np.float32]:
    flat = pc.list_flatten(column.cast(schema.VECTOR)).to_numpy()
    return np.asarray(flat.reshape(len(column), -1), np.float32)


def _row(found: Found, made: float) -> Row:
    ours = sum(found[kind]["future"] for kind in schema.KINDS)
    wrong = sum(found[kind]["wrong"] for kind in schema.KINDS)
    # asserted here, row by row, so that a wrong join cannot go unnoticed in a table
    assert ours == 0, f"{ours} rows saw a later snapshot"
    assert wrong == 0, f"{wrong} rows saw another vector than the newest one allowed"
    return {
        "name": "ml100k_rows_from_the_future",
        "ours": ours,
        "reference": 0,
        "ratio": None,
        "unit": "rows",
        "rows": found["rows"],
        "wrong": wrong,
        "seconds_pipeline": round(made, 1),
        "seconds_join": round(found["seconds"], 2),
        **{kind: found[kind] for kind in schema.KINDS},
    }


def _table(found: Found) -> Table:
    columns = ("vector", "rows", "default", "stored", "future", "wrong")
    names = columns[2:]
    rows = [
        (f"{kind}_aug", found["rows"], *(found[kind][name] for name in names))
        for kind in schema.KINDS
    ]
    return Table("point-in-time join: which snapshot a row saw", columns, rows)
