"""Match scores as every way to features gives them, against numpy; real DuckDB, real Redis."""

from __future__ import annotations

import asyncio
import inspect
import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import FeatureService, FeatureStore, FeatureView, Field, RepoConfig
from feast.infra.offline_stores.file_source import SavedDatasetFileStorage
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.types import Float32

from reki_feast.errors import StoreError
from reki_feast.schema import KINDS, Key, augmented
from reki_feast.stores import materialize_views
from reki_feast.stores.formulas import FORMULA_TAG, DotProducts, dot_products, formula_of
from reki_feast.stores.serving import TensorReader
from reki_feast.stores.training import JoinedRows
from reki_feast.views import reki_match
from reki_feast.views.tags import PAIRS_TAG

pytestmark = pytest.mark.filterwarnings(
    "ignore:On demand feature view is an experimental:RuntimeWarning",
    "ignore:Saving dataset is an experimental:RuntimeWarning",
    # ibis 12 calls a method that DuckDB 2.0 deprecates.
    "ignore:fetch_arrow_table:DeprecationWarning:ibis.backends.duckdb",
)

WHEN = datetime(2026, 3, 1, tzinfo=UTC)
LATER = datetime(2026, 9, 1, tzinfo=UTC)
PAIRS = [["liked", "knowledge"], ["history", "description"]]
SCORES = ["score", "score_liked", "score_history"]
REFS = [f"reki_match:{name}" for name in SCORES]
VECTORS = ["reki:user_aug", "reki_item:item_aug"]
UNKNOWN = 99
#: Who meets what; the last pairs have a user, an item, neither that is known.
USERS, ITEMS = [0, 1, 5, 1, 4, UNKNOWN, 2, UNKNOWN], [3, 3, 0, 4, 1, 2, UNKNOWN, UNKNOWN]
DEFAULT_USER, DEFAULT_ITEM = [0.5, -0.5, 0.25, 0.0], [9.0, 8.0, 7.0, 6.0]


@dataclass
class Served:
    """A scenario in a store, and the vectors it holds."""

    store: FeatureStore
    user: np.ndarray
    item: np.ndarray
    defaults: bool

    def expected(self) -> np.ndarray:
        """``[3, n]`` for the pairs above; NaN for null."""
        none = np.full(4, np.nan)
        fallback = (DEFAULT_USER, DEFAULT_ITEM) if self.defaults else (none, none)
        users = np.array([fallback[0] if n == UNKNOWN else self.user[n] for n in USERS])
        items = np.array([fallback[1] if n == UNKNOWN else self.item[n] for n in ITEMS])
        product = users * items
        return np.array([product.sum(1), product[:, :2].sum(1), product[:, 2:].sum(1)])


@pytest.fixture(scope="module")
def scenario(tmp_path_factory: pytest.TempPathFactory, make_published: Callable[..., Any]) -> Any:
    """Six users and five items with vectors of two pairs of two floats."""
    keys = Key("user_id", pa.int64()), Key("sku", pa.int64())
    made = make_published(tmp_path_factory.mktemp("match") / "movies", *keys, users=6, items=5)
    rng = np.random.default_rng(0)
    for kind, key in zip(KINDS, keys, strict=True):
        count = 6 if kind == "user" else 5
        vectors = rng.standard_normal((count, 4), np.float32)
        setattr(made, f"{kind}_vectors", vectors)
        rows = {
            key.name: list(range(count)),
            f"{kind}_aug": list(vectors),
            "hash": ["x"] * count,
            "event_timestamp": [WHEN] * count,
            "created_timestamp": [WHEN] * count,
        }
        folder = made.folder / f"{kind}_aug"
        for old in folder.iterdir():
            old.unlink()
        pq.write_table(pa.table(rows, augmented(key, kind)), folder / "0.parquet")
    manifest = made.manifest() | {"pairs": PAIRS}
    (made.folder / "manifest.json").write_text(json.dumps(manifest))
    return made


OURS = "reki_feast.stores.redis_online.RekiRedisOnlineStore"
STORES: dict[str, tuple[dict[str, Any], str]] = {
    "ours": ({"type": OURS}, "reki_feast.stores.duckdb_offline.RekiDuckDBOfflineStore"),
    "packed": (
        {"type": OURS, "layout": "packed"},
        "reki_feast.stores.duckdb_offline.RekiDuckDBOfflineStore",
    ),
    "stock": ({"type": "redis"}, "duckdb"),
}


@pytest.fixture(scope="module", params=STORES)
def served(
    request: pytest.FixtureRequest,
    scenario: Any,
    tmp_path_factory: pytest.TempPathFactory,
    redis_address: str,
) -> Served:
    online, offline = STORES[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    config = RepoConfig(
        project=f"match{request.param}",
        provider="local",
        registry=str(folder / "registry.db"),
        repo_path=folder,
        online_store={**online, "connection_string": redis_address},
        offline_store={"type": offline},
        entity_key_serialization_version=3,
    )
    views = scenario.views()
    match = reki_match(views.user, views.item)
    services = [
        FeatureService(name="all", features=[views.user, views.item, match]),
        FeatureService(name="scores", features=[match]),
        FeatureService(name="one", features=[match[["score_history"]]]),
    ]
    FeatureStore(config=config).apply(
        [*scenario.entities(), views.user, views.item, match, *services]
    )
    store = FeatureStore(config=config)  # reads the registry as another process would
    materialize_views(store, ["reki", "reki_item"], LATER)
    vectors = scenario.user_vectors, scenario.item_vectors
    return Served(store, *vectors, defaults=request.param != "stock")


def entity_rows() -> pd.DataFrame:
    return pd.DataFrame({"user_id": USERS, "sku": ITEMS, "event_timestamp": LATER})


def of_table(table: pa.Table, prefix: str = "") -> np.ndarray:
    """``[3, n]`` scores in the order of the pairs; null as NaN."""
    place = {pair: n for n, pair in enumerate(zip(USERS, ITEMS, strict=True))}
    rows = zip(table["user_id"].to_pylist(), table["sku"].to_pylist(), strict=True)
    order = np.argsort([place[pair] for pair in rows])
    columns = [table[prefix + name] for name in SCORES]
    assert {column.type for column in columns} == {pa.float32()}
    return np.array([column.to_numpy() for column in columns])[:, order]


@pytest.fixture
def view(scenario: Any) -> OnDemandFeatureView:
    views = scenario.views()
    return reki_match(views.user, views.item)


def test_the_view(scenario: Any, view: OnDemandFeatureView) -> None:
    assert view.name == "reki_match"
    assert [(field.name, field.dtype) for field in view.features] == [
        (name, Float32) for name in SCORES
    ]
    assert list(view.source_feature_view_projections) == ["reki", "reki_item"]
    assert view.owner == "films@example.org"
    assert "movies" in view.description
    assert view.tags["reki.scenario"] == "movies"
    assert json.loads(view.tags[PAIRS_TAG]) == PAIRS
    films = scenario.views(prefix="films")
    assert reki_match(films.user, films.item).name == "films_match"


def test_products_of_parts() -> None:
    user = np.array([[1, 2, 3, 4], [0, 1, 0, 1]], np.float32)
    item = np.array([[1, 1, 1, 1], [5, 6, 7, 8]], np.float32)
    assert dot_products(user, item, 2).tolist() == [[10, 14], [3, 6], [7, 8]]
    assert dot_products(user, item, 1).tolist() == [[10, 14], [10, 14]]
    assert dot_products(user[:0], item[:0], 2).shape == (3, 0)


@pytest.mark.parametrize(
    ("user", "item", "score"),
    [
        ([[1.0, 2.0, 3.0, 4.0]], [[1.0, 1.0, 1.0, 1.0]], [10.0]),
        ([np.array([1, 2, 3, 4], np.float32), None], [[1.0] * 4, [1.0] * 4], [10.0, None]),
        ([[1.0] * 4, [1.0] * 4], [None, [2.0] * 4], [None, 8.0]),
        ([[1.0] * 3, [1.0] * 4], [[1.0] * 4, [1.0] * 4], [None, 4.0]),
        ([None, None], [None, [1.0] * 4], [None, None]),
        ([], [], []),
    ],
)
def test_what_feast_runs(view: OnDemandFeatureView, user: Any, item: Any, score: Any) -> None:
    kind = pa.list_(pa.float32())
    columns = {"reki__user_aug": pa.array(user, kind), "reki_item__item_aug": pa.array(item, kind)}
    found = view.transform_arrow(pa.table(columns))
    assert [found[name].type for name in SCORES] == [pa.float32()] * 3
    assert found["score"].to_pylist() == score


def test_the_text_needs_no_package_of_ours(view: OnDemandFeatureView) -> None:
    """Both as dill has it and as text, in a process that cannot import this package."""
    script = """
import sys
sys.modules["reki_feast"] = None
import dill, pandas, pickle
text, body, frame = pickle.load(sys.stdin.buffer)
scope = {}
exec(text, scope)
for run in (scope["match"], dill.loads(body)):
    print(run(pandas.DataFrame(frame)).to_dict("list"))
"""
    proto = view.to_proto().spec.feature_transformation.user_defined_function
    frame = {"reki__user_aug": [[1.0, 2.0, 3.0, 4.0]], "reki_item__item_aug": [[1.0] * 4]}
    given = pickle.dumps((proto.body_text, proto.body, frame))
    made = subprocess.run([sys.executable, "-c", script], input=given, capture_output=True)
    one = "{'score': [10.0], 'score_liked': [3.0], 'score_history': [7.0]}"
    assert made.stdout.decode().splitlines() == [one, one], made.stderr.decode()


def test_a_view_is_known_by_its_text(served: Served) -> None:
    view = served.store.get_on_demand_feature_view("reki_match")
    known = DotProducts("reki:user_aug", "reki_item:item_aug", 4, tuple(SCORES))
    assert formula_of(view) == known
    transformation: Any = view.feature_transformation
    transformation.udf_string += "\n"
    assert formula_of(view) is None
    view.tags[FORMULA_TAG] = "{}"
    assert formula_of(view) is None


@pytest.mark.parametrize("full_names", [False, True])
@pytest.mark.parametrize("refs", [REFS, [*VECTORS, *REFS], "all", "scores"])
def test_online_and_historical(served: Served, refs: Any, full_names: bool) -> None:
    store, prefix = served.store, "reki_match__" if full_names else ""
    asked = store.get_feature_service(refs) if isinstance(refs, str) else refs
    ids: Any = {"user_id": USERS, "sku": ITEMS}
    online = store.get_online_features(asked, ids, full_feature_names=full_names).to_dict()
    shown = [prefix + name for name in SCORES]
    vectors = {name for name in online if name.endswith("_aug")}
    assert set(online) == {"user_id", "sku", *shown, *vectors}
    assert len(vectors) == (0 if refs in (REFS, "scores") else 2)
    found = np.array([online[name] for name in shown], float)
    np.testing.assert_allclose(found, served.expected(), rtol=1e-5)
    job = store.get_historical_features(entity_rows(), asked, full_feature_names=full_names)
    np.testing.assert_allclose(of_table(job.to_arrow(), prefix), found, rtol=1e-5)


@pytest.mark.parametrize("served", ["ours"], indirect=True)
def test_online_asynchronously_and_in_part(served: Served) -> None:
    store: Any = served.store
    online = store._get_provider().online_store

    async def read() -> dict[str, Any]:
        refs, ids = ["reki_match:score_history"], {"user_id": [1], "sku": [3]}
        try:
            answer = await store.get_online_features_async(refs, ids)
        finally:
            await (await online._get_client_async(store.config.online_store)).aclose()
        found: dict[str, Any] = answer.to_dict()
        return found

    found = asyncio.run(read())
    assert list(found) == ["user_id", "sku", "score_history"]
    assert found["score_history"] == pytest.approx([served.expected()[2][1]], rel=1e-5)


@pytest.mark.parametrize("served", ["ours"], indirect=True)
def test_ways_to_the_rows_of_a_join(served: Served, tmp_path: Path) -> None:
    job = served.store.get_historical_features(entity_rows(), [*VECTORS, *REFS])
    expected = served.expected()
    frame = job.to_df()
    assert frame["score"].dtype == np.float32
    np.testing.assert_allclose(of_table(pa.Table.from_pandas(frame)), expected, rtol=1e-5)
    stream = job.to_batches(3)  # type: ignore[attr-defined]
    np.testing.assert_allclose(of_table(stream.read_all()), expected, rtol=1e-5)
    assert stream.schema == job.to_arrow().schema
    for place in ("a.parquet", "folder"):
        job.persist(SavedDatasetFileStorage(str(tmp_path / place)))
        np.testing.assert_allclose(of_table(pq.read_table(tmp_path / place)), expected, rtol=1e-5)
    rows = JoinedRows(job)
    order = np.lexsort((rows.tensors["sku"], rows.tensors["user_id"]))
    wanted = np.lexsort((ITEMS, USERS))
    np.testing.assert_allclose(rows.tensors["score"][order], expected[0][wanted], rtol=1e-5)


@pytest.mark.parametrize("served", ["ours", "packed"], indirect=True)
def test_our_stores_run_no_pandas(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OnDemandFeatureView, "transform_arrow", None)
    online = served.store.get_online_features(REFS, {"user_id": USERS, "sku": ITEMS}).to_dict()
    np.testing.assert_allclose([online[name] for name in SCORES], served.expected(), rtol=1e-5)
    table = served.store.get_historical_features(entity_rows(), REFS).to_arrow()
    np.testing.assert_allclose(of_table(table), served.expected(), rtol=1e-5)


@pytest.mark.parametrize("served", ["ours"], indirect=True)
def test_no_rows(served: Served) -> None:
    sql = "SELECT 1 AS user_id, 2 AS sku, now() AS event_timestamp WHERE false"
    job: Any = served.store.get_historical_features(sql, REFS)
    assert job.to_arrow().num_rows == 0
    assert job.to_arrow().schema.names[-3:] == SCORES
    assert job.to_batches().read_all().schema == job.to_arrow().schema


@pytest.mark.parametrize("served", ["ours"], indirect=True)
def test_labels_have_a_column_of_that_name(served: Served) -> None:
    rows = entity_rows().assign(score=1)
    with pytest.raises(StoreError, match=r"(?s)twice: score.*full_feature_names"):
        served.store.get_historical_features(rows, REFS)


@pytest.mark.parametrize("service", [REFS, [*REFS, *VECTORS], "all", "scores"])
def test_as_tensors(served: Served, service: Any) -> None:
    with TensorReader(served.store, service, kind="numpy") as reader:
        batch = reader.read({"user_id": USERS, "sku": ITEMS})
    served = Served(served.store, served.user, served.item, defaults=True)  # it knows the tags
    found = np.array([batch[name] for name in SCORES])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, served.expected(), rtol=1e-5)
    assert (
        set(batch.known)
        == set(batch)
        == {*SCORES} | ({"user_aug", "item_aug"} if len(batch) > 3 else set())
    )
    assert batch.known["score"].tolist() == [True] * 5 + [False] * 3


@pytest.mark.parametrize("served", ["ours"], indirect=True)
def test_tensors_of_candidates(served: Served) -> None:
    with TensorReader(served.store, "one", defaults={"score_history": -1}) as reader:
        batch = reader.read({"user_id": [2], "sku": [0, UNKNOWN, 4, 0]})
    assert list(batch) == ["score_history"]
    wanted = served.item[[0, 0, 4, 0], 2:] @ served.user[2, 2:]
    wanted[1] = -1
    np.testing.assert_allclose(batch["score_history"].numpy(), wanted, rtol=1e-5)
    with TensorReader(served.store, "scores", full_feature_names=True) as reader:
        assert list(reader.read({"user_id": [2], "sku": [0]})) == [
            f"reki_match__{name}" for name in SCORES
        ]
    with pytest.raises(StoreError, match="Defaults are for features of the batch"):
        TensorReader(served.store, "scores", defaults={"user_aug": [0.0] * 4})


def test_text_of_another_version(
    scenario: Any, view: OnDemandFeatureView, make_store: Callable[..., FeatureStore]
) -> None:
    """Feast runs it as it stands; a reader of tensors, which runs no text, says what to do."""
    text, udf = f"{view.udf_string}\n# of another version\n", cast(Any, view.udf)
    other = OnDemandFeatureView(
        name=view.name,
        sources=list(view.source_feature_view_projections.values()),
        schema=view.features,
        udf=udf,
        udf_string=text,
        tags=view.tags,
    )
    store = make_store()
    views = scenario.views()
    store.apply([*scenario.entities(), views.user, views.item, other])
    served = Served(store, scenario.user_vectors, scenario.item_vectors, defaults=True)
    found = store.get_historical_features(entity_rows(), REFS)
    np.testing.assert_allclose(of_table(found.to_arrow()), served.expected(), rtol=1e-5)
    online = store.get_online_features(REFS, {"user_id": [UNKNOWN], "sku": [UNKNOWN]}).to_dict()
    assert online["score"] == [2.25]
    with pytest.raises(StoreError, match=r"(?s)on-demand feature view reki_match.*feast apply"):
        TensorReader(store, REFS)


def test_applied_again(
    scenario: Any, view: OnDemandFeatureView, make_store: Callable[..., FeatureStore]
) -> None:
    store = make_store()
    versions = []
    for _ in range(2):
        views = scenario.views()
        match = reki_match(views.user, views.item)
        store.apply([*scenario.entities(), views.user, views.item, match])
        versions.append(store.get_on_demand_feature_view("reki_match").current_version_number)
    assert versions[0] == versions[1]
    # Views out of the registry serve as well.
    user, item = (store.get_feature_view(name) for name in ("reki", "reki_item"))
    assert reki_match(user, item) == view


def test_beside_another_on_demand_view(
    scenario: Any, view: OnDemandFeatureView, make_store: Callable[..., FeatureStore]
) -> None:
    views = scenario.views()
    longest = OnDemandFeatureView(
        name="norm",
        sources=[views.user],
        schema=[Field(name="norm", dtype=Float32)],
        udf=cast(Any, _norm),
        udf_string=inspect.getsource(_norm),
    )
    store = make_store()
    store.apply([*scenario.entities(), views.user, views.item, view, longest])
    served = Served(store, scenario.user_vectors, scenario.item_vectors, defaults=True)
    job: Any = store.get_historical_features(entity_rows(), [*REFS, "norm:norm"])
    table = job.to_batches(3).read_all()
    np.testing.assert_allclose(of_table(table), served.expected(), rtol=1e-5)
    online = store.get_online_features([*REFS, "norm:norm"], {"user_id": [UNKNOWN], "sku": [7]})
    assert online.to_dict()["norm"] == [0.75]
    assert online.to_dict()["score"] == [2.25]


def _norm(frame: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({"norm": [sum(v) ** 2 * 12 for v in frame["user_aug"]]}, dtype="float32")


def _damaged(view: FeatureView, **tags: str) -> FeatureView:
    view.tags.update({tag.replace("_", "."): value for tag, value in tags.items()})
    return view


@pytest.mark.parametrize(
    ("choose", "found"),
    [
        (lambda v: (v.item, v.user), r"2 problems(?s:.*)view reki_item with item_aug"),
        (lambda v: (v.user, v.item_knowledge), "second argument is the view of item_aug"),
        (lambda v: (v.user, _damaged(v.item, reki_scenario="books")), "'movies' and 'books'"),
        (lambda v: (v.user, _damaged(v.item, reki_weights="x")), "'abc' and 'x'"),
        (lambda v: (_damaged(v.user, reki_pairs=""), v.item), "(?s)reki.pairs.*reki publish"),
    ],
)
def test_views_that_do_not_match(scenario: Any, choose: Callable[..., Any], found: str) -> None:
    with pytest.raises(StoreError, match=found):
        reki_match(*choose(scenario.views()))


@pytest.mark.parametrize(
    ("pairs", "found"),
    [
        ([["liked", "knowledge"]] * 2, "differ in the user's channel"),
        ([["a", "b"], ["c", "d"], ["e", "f"]], "q = 4 for 3 pairs"),
        ([["a"]], "ValueError"),
    ],
)
def test_pairs_that_are_none(published: Any, pairs: Any, found: str) -> None:
    manifest = published.manifest() | {"pairs": pairs}
    (published.folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(StoreError, match=found):
        published.views()
