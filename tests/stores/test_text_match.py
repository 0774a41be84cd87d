"""Match scores of texts and HEIN as every way to features gives them, against a closed form."""

from __future__ import annotations

import asyncio
import json
import math
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import FeatureService, FeatureStore, Field, RepoConfig
from feast.infra.offline_stores.file_source import SavedDatasetFileStorage
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.types import Array, Float32, Int64

from reki_feast.errors import StoreError
from reki_feast.schema import Key
from reki_feast.stores import materialize_views
from reki_feast.stores.defaults import default_vectors
from reki_feast.stores.formulas import (
    FORMULA_TAG,
    TextKernel,
    TextKernels,
    formula_of,
    text_scores,
)
from reki_feast.stores.serving import TensorReader
from reki_feast.stores.training import JoinedRows
from reki_feast.views import MatchViews, reki_match

pytestmark = pytest.mark.filterwarnings(
    "ignore:On demand feature view is an experimental:RuntimeWarning",
    "ignore:Saving dataset is an experimental:RuntimeWarning",
    # ibis 12 calls a method that DuckDB 2.0 deprecates.
    "ignore:fetch_arrow_table:DeprecationWarning:ibis.backends.duckdb",
)

FIRST, THEN, LATER = (datetime(2026, month, 1, tzinfo=UTC) for month in (3, 6, 9))
BEFORE_THEN = THEN - timedelta(days=1)
KERNELS = [
    {"name": "text_wide", "sharpness": 4.0, "shrink": 3.0},
    {"name": "text_near", "sharpness": 8.0, "shrink": 0.5},
]
WIDTH, RECENT, TOWER, SUMS = 3, 4, 2, 5
U, I = RECENT * (WIDTH + 1) + TOWER, WIDTH + TOWER + 4  # noqa: E741
SCORES = ["score", "text_wide", "text_near", "hein"]
REFS = [f"reki_match:{name}" for name in SCORES]
VECTORS = ["reki_user_match:user_match", "reki_item_match:item_match"]
UNKNOWN = 99
#: Who meets what; the last pairs have a user, an item, neither that is known.
USERS, ITEMS = [0, 1, 5, 1, 4, UNKNOWN, 2, UNKNOWN], [3, 3, 0, 4, 1, 2, UNKNOWN, UNKNOWN]
PAIRS = {"user_id": USERS, "sku": ITEMS}
RNG = np.random.default_rng(0)


def vectors(rows: int, size: int, texts: int) -> np.ndarray:
    """Vectors that start with so many texts of length 1."""
    made = RNG.standard_normal((rows, size), np.float32)
    parts = made[:, : texts * WIDTH].reshape(-1, texts, WIDTH)
    made[:, : texts * WIDTH] = (parts / np.linalg.norm(parts, axis=2, keepdims=True)).reshape(
        rows, -1
    )
    return made


#: Of the two states that each user has, of items, of ids that are not known.
USER, ITEM = vectors(12, U, RECENT).reshape(2, 6, U), vectors(5, I, 1)
DEFAULT_USER, DEFAULT_ITEM = vectors(1, U, RECENT)[0], vectors(1, I, 1)[0]
FEWER, NONE, WITHOUT_TEXT = 4, 5, 4
USER[:, FEWER, 2 * WIDTH : RECENT * WIDTH] = USER[:, FEWER, RECENT * WIDTH + 2 : -TOWER] = 0
USER[:, NONE] = 0
ITEM[WITHOUT_TEXT, :WIDTH] = 0


def closed_form(user: np.ndarray, item: np.ndarray) -> list[float]:
    """The scores of one pair, in doubles and one text after another."""
    u, i = user.astype(float).tolist(), item.astype(float).tolist()
    text, (first, *weights) = i[:WIDTH], i[WIDTH + TOWER :]
    scores = []
    for kernel in KERNELS:
        met, liked = float(str(kernel["shrink"])), 0.0
        for n in range(RECENT):
            other = u[n * WIDTH : (n + 1) * WIDTH]
            if any(text) and any(other):
                cosine = sum(a * b for a, b in zip(text, other, strict=True))
                alike = math.exp(float(str(kernel["sharpness"])) * (cosine - 1))
                met, liked = met + alike, liked + alike * u[RECENT * WIDTH + n]
        scores.append(liked / met)
    scores.append(float(np.dot(u[-TOWER:], i[WIDTH : WIDTH + TOWER])))
    return [first + float(np.dot(weights, scores)), *scores]


def expected(state: int = 1, *, defaults: bool = True) -> np.ndarray:
    """``[4, n]`` for the pairs above; NaN for null."""
    scores = []
    for user, item in zip(USERS, ITEMS, strict=True):
        if UNKNOWN in (user, item) and not defaults:
            scores.append([np.nan] * 4)
            continue
        left = DEFAULT_USER if user == UNKNOWN else USER[state, user]
        scores.append(closed_form(left, DEFAULT_ITEM if item == UNKNOWN else ITEM[item]))
    return np.array(scores).T


def close(found: Any, wanted: Any) -> None:
    np.testing.assert_allclose(np.array(found, float), wanted, rtol=1e-4, atol=1e-5)


def section() -> dict[str, Any]:
    default = {"user": DEFAULT_USER.tolist(), "item": DEFAULT_ITEM.tolist()}
    sizes = {"width": WIDTH, "recent": RECENT, "tower": TOWER, "sums": SUMS}
    return {"kernels": KERNELS, **sizes, "default": default}


def rewrite(folder: Path, **parts: Any) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | parts))


def write_table(folder: Path, name: str, key: str, columns: dict[str, Any], when: Any) -> None:
    rows = {
        key: pa.array(columns.pop(key), pa.int64()),
        **{c: pa.array(list(v), pa.list_(pa.float32())) for c, v in columns.items()},
        "hash": ["x"] * len(when),
        "event_timestamp": pa.array(when, pa.timestamp("us", "UTC")),
        "created_timestamp": pa.array(when, pa.timestamp("us", "UTC")),
    }
    (folder / name).mkdir()
    pq.write_table(pa.table(rows), folder / name / "0.parquet")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, make_published: Callable[..., Any]) -> Any:
    """Six users in two states each and five items."""
    keys = Key("user_id", pa.int64()), Key("sku", pa.int64())
    made = make_published(tmp_path_factory.mktemp("text match") / "movies", *keys)
    users = {
        "user_id": [*range(6)] * 2,
        "user_match": USER.reshape(12, U),
        "user_sums": RNG.standard_normal((12, SUMS), np.float32),
    }
    write_table(made.folder, "user_match", "user_id", users, [FIRST] * 6 + [THEN] * 6)
    items = {"sku": [*range(5)], "item_match": ITEM}
    write_table(made.folder, "item_match", "sku", items, [FIRST] * 5)
    rewrite(made.folder, match=section())
    return made


def views_of(published: Any, **options: Any) -> MatchViews:
    user, item = published.entities()
    return reki_match(published.folder, user=user, item=item, **options)


OURS = "reki_feast.stores.redis_online.RekiRedisOnlineStore"
DUCKDB = "reki_feast.stores.duckdb_offline.RekiDuckDBOfflineStore"
STORES: dict[str, tuple[dict[str, Any], str]] = {
    "ours": ({"type": OURS}, DUCKDB),
    "packed": ({"type": OURS, "layout": "packed"}, DUCKDB),
    "stock": ({"type": "redis"}, "duckdb"),
    "sqlite": ({"type": "sqlite"}, "duckdb"),
}
in_our_stores = pytest.mark.parametrize("served", ["ours", "packed"], indirect=True)
in_redis = pytest.mark.parametrize("served", ["ours", "packed", "stock"], indirect=True)
in_one = pytest.mark.parametrize("served", ["ours"], indirect=True)


@dataclass
class Served:
    """A repo over the scenario, and whether its stores know the defaults."""

    store: FeatureStore
    defaults: bool


@pytest.fixture(scope="module", params=STORES)
def served(
    request: pytest.FixtureRequest,
    published: Any,
    tmp_path_factory: pytest.TempPathFactory,
    redis_address: str,
) -> Served:
    online, offline = STORES[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    if online["type"] == "sqlite":
        place = {"path": str(folder / "online.db")}
    else:
        place = {"connection_string": redis_address}
    config = RepoConfig(
        project=f"textmatch{request.param}",
        provider="local",
        registry=str(folder / "registry.db"),
        repo_path=folder,
        online_store={**online, **place},
        offline_store={"type": offline},
        entity_key_serialization_version=3,
    )
    views = views_of(published)
    services = [
        FeatureService(name="all", features=[views.user[["user_match"]], views.item, views.match]),
        FeatureService(name="scores", features=[views.match]),
        FeatureService(name="one", features=[views.match[["text_near"]]]),
    ]
    FeatureStore(config=config).apply([*published.entities(), *views.views(), *services])
    store = FeatureStore(config=config)  # reads the registry as another process would
    counts = materialize_views(store, ["reki_user_match", "reki_item_match"], LATER)
    assert [count.online for count in counts] == [6, 5]
    return Served(store, defaults=request.param in ("ours", "packed"))


def entity_rows(when: datetime = LATER) -> pd.DataFrame:
    return pd.DataFrame({**PAIRS, "event_timestamp": when})


def of_table(table: pa.Table, prefix: str = "") -> np.ndarray:
    """``[4, n]`` scores in the order of the pairs; null as NaN."""
    place = {pair: n for n, pair in enumerate(zip(USERS, ITEMS, strict=True))}
    rows = zip(table["user_id"].to_pylist(), table["sku"].to_pylist(), strict=True)
    order = np.argsort([place[pair] for pair in rows])
    columns = [table[prefix + name] for name in SCORES]
    assert {column.type for column in columns} == {pa.float32()}
    return np.array([column.to_numpy() for column in columns])[:, order]


def test_the_views(published: Any) -> None:
    views = views_of(published, ttl=timedelta(days=9), tags={"team": "ranking"})
    assert list(views.by_name()) == ["reki_match", "reki_user_match", "reki_item_match"]
    assert list(views.by_name().values()) == views.views() == list(views)
    assert [(f.name, f.dtype) for f in views.match.features] == [(n, Float32) for n in SCORES]
    sources = list(views.match.source_feature_view_projections)
    assert sources == [views.user.name, views.item.name]
    assert {f.name: (f.dtype, f.vector_length) for f in views.user.features} == {
        "user_match": (Array(Float32), U),
        "user_sums": (Array(Float32), SUMS),
    }
    assert {f.name: f.vector_length for f in views.item.features} == {"item_match": I}
    defaults = {"user_match": tuple(DEFAULT_USER.tolist()), "user_sums": (0.0,) * SUMS}
    assert default_vectors(views.user) == defaults
    assert default_vectors(views.item) == {"item_match": tuple(DEFAULT_ITEM.tolist())}
    assert views.user.ttl == views.item.ttl == timedelta(days=9)
    for view in views:
        assert view.owner == "films@example.org"
        assert view.tags["reki.scenario"] == "movies"
        assert view.tags["team"] == "ranking"
    films = views_of(published, prefix="films", owner="me")
    assert list(films.by_name()) == ["films_match", "films_user_match", "films_item_match"]
    assert films.match.owner == "me"
    assert published.views(prefix="films").user.name == "films"  # beside the others' names


@pytest.mark.parametrize(
    ("user", "item", "known"),
    [
        ([USER[0, 0]], [ITEM[0]], [True]),
        ([USER[0, 0].tolist(), None], [ITEM[0].tolist()] * 2, [True, False]),
        ([USER[0, 0]] * 2, [None, ITEM[0]], [False, True]),
        ([USER[0, 0, 1:], USER[0, 0]], [ITEM[0]] * 2, [False, True]),
        ([None, None], [None, ITEM[0]], [False, False]),
        ([], [], []),
    ],
)
def test_what_feast_runs(published: Any, user: Any, item: Any, known: list[bool]) -> None:
    kind = pa.list_(pa.float32())
    columns = {
        "reki_user_match__user_match": pa.array(user, kind),
        "reki_item_match__item_match": pa.array(item, kind),
    }
    found = views_of(published).match.transform_arrow(pa.table(columns))
    for name, score in zip(SCORES, closed_form(USER[0, 0], ITEM[0]), strict=True):
        assert found[name].type == pa.float32()
        wanted = [pytest.approx(score, rel=1e-4) if there else None for there in known]
        assert found[name].to_pylist() == wanted


def test_the_text_needs_no_package_of_ours(published: Any) -> None:
    """Both as dill has it and as text, in a process that cannot import this package."""
    script = """
import sys
sys.modules["reki_feast"] = None
import dill, pandas, pickle
text, body, frame = pickle.load(sys.stdin.buffer)
scope = {}
exec(text, scope)
for run in (scope["match"], dill.loads(body)):
    print(run(pandas.DataFrame(frame)).to_json(orient="values", double_precision=15))
"""
    proto = views_of(published).match.to_proto().spec.feature_transformation.user_defined_function
    frame = {
        "reki_user_match__user_match": [USER[0, 0].tolist()],
        "reki_item_match__item_match": [ITEM[0].tolist()],
    }
    given = pickle.dumps((proto.body_text, proto.body, frame))
    made = subprocess.run([sys.executable, "-c", script], input=given, capture_output=True)
    assert made.returncode == 0, made.stderr.decode()
    for line in made.stdout.decode().splitlines():
        close(json.loads(line), [closed_form(USER[0, 0], ITEM[0])])


def test_a_view_is_known_by_its_text(served: Served) -> None:
    view = served.store.get_on_demand_feature_view("reki_match")
    kernels = TextKernel("text_wide", 4.0, 3.0), TextKernel("text_near", 8.0, 0.5)
    known: Any = TextKernels(VECTORS[0], VECTORS[1], kernels, WIDTH, RECENT, TOWER)
    assert formula_of(view) == known
    assert [size for _, size in known.inputs] == [U, I]
    text: Any = view.feature_transformation
    text.udf_string += "\n"
    assert formula_of(view) is None
    for damaged in ("{}", "[]", '{"kernels": [3]}'):
        view.tags[FORMULA_TAG] = damaged
        assert formula_of(view) is None


def test_another_formula_is_another_text(published: Any) -> None:
    view = views_of(published).match
    known: Any = formula_of(view)
    other: Any
    for other in ({"tower": 3}, {"width": 2}, {"recent": 5}, {"kernels": known.kernels[:1]}):
        assert replace(known, **other).source != view.udf_string
    for other in ({"shrink": 0.25}, {"sharpness": 2.0}):
        kernels = (known.kernels[0], replace(known.kernels[1], **other))
        assert replace(known, kernels=kernels).source != view.udf_string


def test_many_pairs() -> None:
    """More than are computed at a time; and one user beside many items."""
    options: Any = ((4.0, 3.0), (8.0, 0.5)), WIDTH, RECENT, TOWER
    users, items = vectors(5_000, U, RECENT), vectors(5_000, I, 1)
    some = [0, 1, 4095, 4096, 4999]
    found = text_scores(users, items, *options)
    assert found.dtype == np.float32
    close(found[:, some].T, [closed_form(users[n], items[n]) for n in some])
    close(text_scores(users[some], items[some], *options), found[:, some])
    beside = text_scores(users[:1], items, *options)
    close(beside[:, some].T, [closed_form(users[0], items[n]) for n in some])
    assert text_scores(users[:0], items[:0], *options).shape == (4, 0)
    assert text_scores(users[:1], items[:0], *options).shape == (4, 0)


def test_kernels_without_texts_are_0(published: Any) -> None:
    known: Any = formula_of(views_of(published).match)
    user, item = USER[1], ITEM
    for lone in (NONE, FEWER):
        assert not known.scores(user[[lone]], item[[WITHOUT_TEXT]])[1:3].any()
    assert not known.scores(user[[NONE]], item)[1:3].any()
    assert not known.scores(user, item[[WITHOUT_TEXT]])[1:3].any()
    assert known.scores(user[[FEWER]], item[[0]])[1:3].all()
    residuals = user[[FEWER]].copy()
    residuals[:, RECENT * WIDTH + 2 : -TOWER] = 7  # of texts that are not there
    close(known.scores(residuals, item), known.scores(user[[FEWER]], item))


@pytest.mark.parametrize("full_names", [False, True])
@pytest.mark.parametrize("refs", [REFS, [*VECTORS, *REFS], "all", "scores"])
def test_online_and_historical(served: Served, refs: Any, full_names: bool) -> None:
    store, prefix = served.store, "reki_match__" if full_names else ""
    asked = store.get_feature_service(refs) if isinstance(refs, str) else refs
    ids: Any = PAIRS
    online = store.get_online_features(asked, ids, full_feature_names=full_names).to_dict()
    shown = [prefix + name for name in SCORES]
    vectors = {name for name in online if name.endswith(("user_match", "item_match"))}
    assert set(online) == {"user_id", "sku", *shown, *vectors}
    assert len(vectors) == (0 if refs in (REFS, "scores") else 2)
    close([online[name] for name in shown], expected(defaults=served.defaults))
    job = store.get_historical_features(entity_rows(), asked, full_feature_names=full_names)
    table = job.to_arrow()
    close(of_table(table, prefix), expected(defaults=served.defaults))
    if served.defaults:  # in our offline store
        assert set(table.column_names) == {*online, "event_timestamp"}


def test_a_join_sees_the_state_of_its_time(served: Served) -> None:
    for state, when in ((0, BEFORE_THEN), (1, THEN)):
        job = served.store.get_historical_features(entity_rows(when), REFS)
        close(of_table(job.to_arrow()), expected(state, defaults=served.defaults))


def test_one_score(served: Served) -> None:
    refs = ["reki_match:hein"]
    ids: Any = {"user_id": [1], "sku": [3]}
    online = served.store.get_online_features(refs, ids).to_dict()
    assert set(online) == {"user_id", "sku", "hein"}
    close(online["hein"], expected()[3, 1:2])
    table = served.store.get_historical_features(entity_rows(), refs).to_arrow()
    assert not set(SCORES) - {"hein"} & set(table.column_names)
    row = table.filter(pa.compute.equal(table["user_id"], 0))
    close(row["hein"].to_pylist(), expected()[3, :1])


@in_our_stores
def test_our_stores_run_no_pandas(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OnDemandFeatureView, "transform_arrow", None)
    ids: Any = PAIRS
    online = served.store.get_online_features(REFS, ids).to_dict()
    close([online[name] for name in SCORES], expected())
    table = served.store.get_historical_features(entity_rows(), REFS).to_arrow()
    close(of_table(table), expected())


@in_one
@pytest.mark.parametrize("full_names", [False, True])
def test_a_join_leaves_out_the_vectors(served: Served, full_names: bool, tmp_path: Path) -> None:
    """On every way to its rows."""
    job: Any = served.store.get_historical_features(
        entity_rows(), REFS, full_feature_names=full_names
    )
    prefix = "reki_match__" if full_names else ""
    names = {"user_id", "sku", "event_timestamp", *(prefix + name for name in SCORES)}
    job.persist(SavedDatasetFileStorage(str(tmp_path / "a.parquet")))
    frame = pa.Table.from_pandas(job.to_df(), preserve_index=False)
    tables = [job.to_arrow(), job.to_batches(3).read_all(), pq.read_table(tmp_path / "a.parquet")]
    for table in [*tables, frame]:
        assert set(table.column_names) == names
        close(of_table(table, prefix), expected())
    assert job.to_batches().schema == tables[0].schema
    none: Any = served.store.get_historical_features(entity_rows()[:0], REFS)
    assert none.to_arrow().num_rows == 0
    assert set(none.to_arrow().column_names) == {"user_id", "sku", "event_timestamp", *SCORES}


@in_one
@pytest.mark.parametrize(
    ("refs", "shown"),
    [
        ([VECTORS[0], *REFS], {"user_match"}),
        ([VECTORS[1], *REFS], {"item_match"}),
        ([REFS[0], *VECTORS, *REFS[1:]], {"user_match", "item_match"}),
        (["reki_user_match:user_sums", *REFS], {"user_sums"}),
        ([*REFS, "reki_user_match:user_sums"], {"user_sums"}),
        ([*REFS, *VECTORS], set()),  # as Feast adds them: named after the scores
    ],
)
def test_vectors_asked_for(served: Served, refs: list[str], shown: set[str]) -> None:
    job = served.store.get_historical_features(entity_rows(), refs)
    table = job.to_arrow()
    assert set(table.column_names) == {"user_id", "sku", "event_timestamp", *SCORES} | shown
    close(of_table(table), expected())
    if "user_match" in shown:
        first = table.filter(pa.compute.equal(table["user_id"], 0))["user_match"][0]
        np.testing.assert_array_equal(first.as_py(), USER[1, 0])


@in_one
def test_a_saved_join(served: Served, tmp_path: Path) -> None:
    job = served.store.get_historical_features(entity_rows(), REFS)
    place = SavedDatasetFileStorage(str(tmp_path / "saved.parquet"))
    saved = served.store.create_saved_dataset(job, "saved", place, allow_overwrite=True)
    close(of_table(saved.to_arrow()), expected())


def test_vectors_that_another_view_is_computed_of(
    published: Any, make_store: Callable[..., FeatureStore]
) -> None:
    views, store = views_of(published), make_store()
    length = OnDemandFeatureView(
        name="lengths",
        sources=[views.item[["item_match"]]],
        schema=[Field(name="length", dtype=Int64)],
        mode="pandas",
        udf=cast(Any, lengths),
        udf_string="def lengths(inputs): …",
    )
    store.apply([*published.entities(), *views.views(), length])
    job = store.get_historical_features(entity_rows(), [*REFS, "lengths:length"])
    table = job.to_arrow()
    close(of_table(table), expected())
    assert table["length"].to_pylist() == [I] * len(USERS)
    assert "user_match" not in table.column_names


def lengths(inputs: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({"length": inputs["item_match"].str.len()})


@in_one
def test_a_join_streams(served: Served) -> None:
    job: Any = served.store.get_historical_features(entity_rows(), [*VECTORS, *REFS])
    stream = job.to_batches(3)
    close(of_table(stream.read_all()), expected())
    assert stream.schema == job.to_arrow().schema
    rows = JoinedRows(job)
    order = np.lexsort((rows.tensors["sku"], rows.tensors["user_id"]))
    close(rows.tensors["score"].numpy()[order], expected()[0][np.lexsort((ITEMS, USERS))])


@in_one
def test_a_join_without_defaults_has_nulls(published: Any, served: Served) -> None:
    """A view from which somebody took the tag: unknown ids have no vector, and no score."""
    views = views_of(published)
    bare = [view for view in views.views() if view.tags.pop("reki.default", None)]
    store = FeatureStore(config=served.store.config.model_copy(update={"project": "bare"}))
    store.apply([*published.entities(), views.match, *bare])
    job: Any = store.get_historical_features(entity_rows(), REFS)
    close(of_table(job.to_batches(3).read_all()), expected(defaults=False))
    materialize_views(store, ["reki_user_match", "reki_item_match"], LATER)
    ids: Any = PAIRS
    online = store.get_online_features(REFS, ids).to_dict()
    close([online[name] for name in SCORES], expected(defaults=False))


@in_redis
@pytest.mark.parametrize("service", [REFS, [*REFS, *VECTORS], "all", "scores"])
def test_as_tensors(served: Served, service: Any) -> None:
    with TensorReader(served.store, service, kind="numpy") as reader:
        batch = reader.read(PAIRS)

        async def read() -> Any:
            async with reader:
                return await reader.read_async(PAIRS)

        again = asyncio.run(read())
    vectors = {"user_match", "item_match"} if service not in (REFS, "scores") else set()
    assert set(batch.known) == set(batch) == {*SCORES} | vectors
    assert {batch[name].dtype for name in SCORES} == {np.dtype(np.float32)}
    for found in (batch, again):
        close([found[name] for name in SCORES], expected())  # it knows the tags
        assert found.known["hein"].tolist() == [True] * 5 + [False] * 3
    if vectors:
        np.testing.assert_array_equal(batch["user_match"][0], USER[1, 0])
        np.testing.assert_array_equal(batch["item_match"][6], DEFAULT_ITEM)


@in_redis
def test_tensors_of_one_user_and_candidates(served: Served) -> None:
    candidates = [0, UNKNOWN, 4, 0]
    with TensorReader(served.store, "one", defaults={"text_near": -1}) as reader:
        batch = reader.read({"user_id": [2], "sku": candidates})
        unknown = reader.read({"user_id": [UNKNOWN], "sku": candidates})
    assert list(batch) == ["text_near"]
    wanted = [closed_form(USER[1, 2], ITEM[n])[2] if n != UNKNOWN else -1 for n in candidates]
    close(batch["text_near"].numpy(), wanted)
    assert unknown["text_near"].tolist() == [-1] * 4
    with TensorReader(served.store, "scores", full_feature_names=True) as reader:
        batch = reader.read({"user_id": [UNKNOWN], "sku": candidates})
    assert list(batch) == [f"reki_match__{name}" for name in SCORES]
    items = [DEFAULT_ITEM if n == UNKNOWN else ITEM[n] for n in candidates]
    wanted_all = np.array([closed_form(DEFAULT_USER, item) for item in items])
    close([batch[f"reki_match__{name}"].numpy() for name in SCORES], wanted_all.T)


@in_redis
def test_tensors_do_not_repeat_a_single_vector(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[tuple[int, ...]] = []
    compute = TextKernels.scores

    def scores(self: TextKernels, *vectors: Any) -> Any:
        given.append(tuple(len(vector) for vector in vectors))
        return compute(self, *vectors)

    monkeypatch.setattr(TextKernels, "scores", scores)
    asked: list[tuple[list[int], list[int], tuple[int, int]]] = [
        ([2], [0, 3, 1], (1, 3)),
        ([2, 2, 2], [0, 3, 1], (1, 3)),
        ([0, 1, 2], [3], (3, 1)),
        ([2, 2, 2], [3, 3, 3], (1, 1)),
        ([0, 1, 0], [3, 3, 1], (3, 3)),
        ([2], [3], (1, 1)),
    ]
    with TensorReader(served.store, [*REFS, *VECTORS], kind="numpy") as reader:
        for users, items, sizes in asked:
            batch = reader.read({"user_id": users, "sku": items})
            assert given.pop() == sizes
            rows = max(len(users), len(items))
            pairs = list(np.broadcast(users, items))
            assert len(pairs) == rows
            wanted = [closed_form(USER[1, user], ITEM[item]) for user, item in pairs]
            close([batch[name] for name in SCORES], np.array(wanted).T)
            vectors = np.array([USER[1, user] for user, _ in pairs])
            np.testing.assert_array_equal(batch["user_match"], vectors)
            assert {len(known) for known in batch.known.values()} == {rows}
            assert all(values.flags.writeable for values in batch.values())


@in_one
def test_sums_are_read_as_well(served: Served) -> None:
    with TensorReader(served.store, ["reki_user_match:user_sums"], kind="numpy") as reader:
        sums = reader.read({"user_id": [0, UNKNOWN]})["user_sums"]
    assert sums.shape == (2, SUMS)
    assert sums[0].any()
    assert not sums[1].any()


@in_one
def test_vectors_of_another_size(published: Any, served: Served) -> None:
    """As where the views were applied anew, and the on-demand view was not."""
    views = views_of(published)
    for field in views.user.features:
        field.vector_length = 3
    del views.user.tags["reki.default"]
    store = FeatureStore(config=served.store.config.model_copy(update={"project": "sizes"}))
    store.apply([*published.entities(), *views.views()])
    with pytest.raises(StoreError, match=rf"(?s)of {U} numbers.*user_match has 3.*feast apply"):
        TensorReader(store, REFS)


def test_applied_again(published: Any, make_store: Callable[..., FeatureStore]) -> None:
    store, versions = make_store(), []
    for _ in range(2):
        views = views_of(published)
        store.apply([*published.entities(), *views.views()])
        versions.append(
            [
                store.get_on_demand_feature_view("reki_match").current_version_number,
                store.get_feature_view("reki_user_match").current_version_number,
            ]
        )
    assert versions[0] == versions[1]


def test_both_kinds_of_scores_together(
    published: Any, make_store: Callable[..., FeatureStore]
) -> None:
    vectors = published.views(prefix="vectors")
    products, texts = reki_match(vectors.user, vectors.item), views_of(published)
    store = make_store()
    store.apply([*published.entities(), vectors.user, vectors.item, products, *texts.views()])
    refs = ["vectors_match:score_history", *REFS[1:]]
    found: Any = store.get_historical_features(entity_rows(), refs)
    table = found.to_arrow()
    order = np.lexsort((ITEMS, USERS))
    rows = np.lexsort((table["sku"], table["user_id"]))
    for name, wanted in zip(SCORES[1:], expected()[1:], strict=True):
        close(table[name].to_numpy()[rows], wanted[order])
    assert table["score_history"].null_count == 0


def test_relative_data_starts_at_the_feast_repo(
    published: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = published.folder.parent / "feature_repo"
    repo.mkdir()
    (repo / "feature_store.yaml").write_text("")
    user, item = published.entities()
    named = reki_match("../movies", user=user, item=item, repo=repo)
    monkeypatch.chdir(repo)
    found = reki_match("../movies", user=user, item=item)
    for views in (named, found):
        assert getattr(views.user.batch_source, "path", "") == "../movies/user_match"


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"tower": 3}, "2 problems(?s:.*)user default vector of match scores has 19"),
        ({"recent": 3}, "user default vector of match scores has 14"),
        ({"sums": 0}, "sums is 1 or more"),
        ({"kernels": [KERNELS[0], {**KERNELS[1], "name": "hein"}]}, "names that differ"),
        ({"kernels": [KERNELS[0], {**KERNELS[1], "name": "a b"}]}, "names that differ"),
        ({"kernels": [KERNELS[0], {**KERNELS[1], "shrink": 0}]}, "shrink of text_near"),
        ({"kernels": [{**KERNELS[0], "sharpness": -1}, KERNELS[1]]}, "sharpness of text_wide"),
        ({"width": 0}, "3 problems(?s:.*)width is 1 or more"),
        ({"default": {"user": [0.0] * U, "item": [float("nan")] * I}}, "9 finite numbers"),
        ({"default": {"user": [0.0] * U}}, "KeyError: 'item'"),
        ({"kernels": [[3, 3.0]]}, "TypeError"),
        ({"kernels": [{"name": "text_wide", "size": 3, "shrink": 3.0}]}, "KeyError: 'sharpness'"),
        ({"tower": None}, "TypeError"),
    ],
)
def test_sections_that_are_none(
    tmp_path: Path, make_published: Callable[..., Any], change: dict[str, Any], found: str
) -> None:
    keys = Key("user_id", pa.int64()), Key("sku", pa.int64())
    made = make_published(tmp_path / "movies", *keys, users=1, items=1)
    rewrite(made.folder, match=section() | change)
    with pytest.raises(StoreError, match=found):
        views_of(made)


def test_what_is_not_published(tmp_path: Path, make_published: Callable[..., Any]) -> None:
    keys = Key("user_id", pa.int64()), Key("sku", pa.int64())
    made = make_published(tmp_path / "movies", *keys, users=1, items=1)
    with pytest.raises(StoreError, match=r"(?s)no \"match\" in .*times.*reki run.*views\.user"):
        views_of(made)
    rewrite(made.folder, match=section())
    with pytest.raises(StoreError, match="Table user_match of scenario movies is published"):
        views_of(made)
    user, item = made.entities()
    with pytest.raises(StoreError, match=r"2 problems(?s:.*)'user_id' in the tables, 'sku'"):
        reki_match(made.folder, user=item, item=user)


def test_arguments_of_neither_form(published: Any) -> None:
    views, (user, item) = published.views(), published.entities()
    folder, call = published.folder, cast(Callable[..., Any], reki_match)
    wrong: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
        ((folder, views.user, views.item), {}),
        ((folder,), {"user": views.user, "item": views.item}),
        ((views.user, item), {}),
        ((views.user, views.item), {"prefix": "films"}),
        ((user, item), {}),
    ]
    for given, named in wrong:
        with pytest.raises(StoreError, match=r"two entities, or two views of vectors(?s:.*)detail"):
            call(*given, **named)
    with pytest.raises(TypeError, match="item"):
        call(folder, user=user)
    texts = views_of(published)
    with pytest.raises(StoreError, match="first argument is the view of user_aug"):
        reki_match(texts.user, texts.item)
