"""Vectors of two spaces never meet, whoever reads them, and however."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from feast import FeatureService, FeatureStore

from reki_feast.errors import StoreError
from reki_feast.stores import (
    JoinedRows,
    StreamedRows,
    TensorReader,
    apply_and_materialize,
    space_tag,
)
from reki_feast.stores.applying import apply_whole
from reki_feast.stores.deletion import EntityRows
from reki_feast.stores.spaces import SPACE_TAG, Space, space_of_tags
from tests.stores.toy_shop import END, REFS, ROWS, Shop, shop_config

pytestmark = [
    pytest.mark.filterwarnings("ignore:On demand feature view is an exp:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning:ibis.backends.duckdb"),
]
UNKNOWN = {"customer_id": 99, "sku": "nobody's"}
ASKED = [*ROWS, UNKNOWN]
Features = list[str] | FeatureService
#: Names of columns to the values of ASKED's rows, in their order.
Read = Mapping[str, Any]


def online(store: FeatureStore, features: Features) -> Read:
    read: Read = store.get_online_features(features, ASKED).to_dict()
    return read


def online_async(store: FeatureStore, features: Features) -> Read:
    store = FeatureStore(repo_path=str(store.repo_path))  # its connections are of one event loop
    reader: Any = store._get_provider().online_store

    async def read() -> Read:
        try:
            return (await store.get_online_features_async(features, ASKED)).to_dict()
        finally:
            await (await reader._get_client_async(store.config.online_store)).aclose()

    return asyncio.run(read())


def tensors(store: FeatureStore, features: Features) -> Read:
    with TensorReader(store, features, kind="numpy") as reader:
        return dict(reader.read({key: [row[key] for row in ASKED] for key in ASKED[0]}))


def join(store: FeatureStore, features: Features) -> Any:
    return store.get_historical_features(pd.DataFrame(ASKED).assign(event_timestamp=END), features)


def joined(store: FeatureStore, features: Features) -> Read:
    return {
        name: column.numpy() for name, column in JoinedRows(join(store, features)).tensors.items()
    }


def streamed(store: FeatureStore, features: Features) -> Read:
    (batch,) = StreamedRows(join(store, features))
    return {name: column.numpy() for name, column in batch.items()}


READERS = [online, online_async, tensors, joined, streamed]


def spaces_of(read: Read) -> set[int]:
    """The spaces that vectors are of: their first numbers say it, of default vectors, too."""
    found = [read[name] for name in ("likes", "looks") if name in read]
    assert all(np.shape(column) == (len(ASKED), 2) for column in found)
    return {int(row[0]) - 1 for column in found for row in column}


@pytest.fixture(scope="module", params=["hash", "packed"])
def make_shop(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, redis_address: str
) -> Callable[..., Shop]:
    """Makes a repo with a project of its own, whose rows are laid out in one way."""

    def make(*args: Any, **options: Any) -> Shop:
        folder = tmp_path_factory.mktemp("shop")
        config = shop_config(redis_address, folder.name, layout=request.param)
        return Shop(folder / "repo", *args, **{"config": config, **options}).write()

    return make


@pytest.fixture(scope="module")
def shop(make_shop: Callable[..., Shop]) -> Shop:
    """Space 1 in service, and space 0, of an earlier version, which a service is pinned to."""
    made = make_shop({0: "", 1: "b1"}, 1, ["taste@v0:likes", "style@v0:looks"], 0)
    apply_and_materialize(made.repo, END)
    return made


@pytest.mark.parametrize("read", READERS)
def test_a_space_is_read_by_name_by_version_and_by_a_pinned_service(
    shop: Shop, read: Callable[..., Read]
) -> None:
    store = shop.store()
    cases: list[tuple[Features, int]] = [
        (REFS, 1),
        (["taste@v1:likes", "style@v1:looks"], 1),
        (["taste:likes", "style@v1:looks"], 1),
        (["taste:likes", "style:looks", "fit@v1:score"], 1),
        (["taste@v0:likes", "style@v0:looks"], 0),
        (store.get_feature_service("in_service"), 1),
        (store.get_feature_service("pinned"), 0),
        (store.get_feature_service("held"), 0),
    ]
    assert [spaces_of(read(store, features)) for features, _ in cases] == [{n} for _, n in cases]


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    ("refs", "found"),
    [
        (["taste:likes", "style@v0:looks"], "style@v0 of shop/v0; taste of shop/v1-b1"),
        (["taste@v0:likes", "style@v1:looks"], "taste@v0 of shop/v0; style@v1 of shop/v1-b1"),
        (["taste@v0:likes", "fit:score"], "taste@v0 of shop/v0; "),
        (["fit@v0:score"], "fit@v0 of shop/v0; "),
    ],
)
def test_a_mixture_is_refused_by_whoever_reads(
    shop: Shop, read: Callable[..., Read], refs: list[str], found: str
) -> None:
    with pytest.raises(StoreError, match="A request reads vectors of one space") as caught:
        read(shop.store(), refs)
    (problem,) = caught.value.problems
    assert problem.detail.startswith(found)
    assert "`reki@v1:user_aug, reki_item@v1:item_aug`" in problem.hint


@pytest.mark.parametrize("read", READERS)
def test_a_service_of_two_spaces_is_refused(
    make_shop: Callable[..., Shop], read: Callable[..., Read]
) -> None:
    shop = make_shop({0: "a0", 1: "b1"}, 1, ["taste@v0:likes", "style:looks"])
    apply_and_materialize(shop.repo, END)
    store = shop.store()
    with pytest.raises(StoreError, match="vectors of one space"):
        read(store, store.get_feature_service("pinned"))


def test_who_reads_all_the_time_sees_one_space_or_the_other(make_shop: Callable[..., Shop]) -> None:
    shop = make_shop({0: "", 1: "b1"}, 1)
    apply_and_materialize(shop.repo, END)
    store = shop.store()
    reader = TensorReader(store, "in_service", kind="numpy")
    for service in (0, 1, 0):
        shop.after(service=service)
        apply_and_materialize(shop.repo, END)
        assert spaces_of(online(store, REFS)) == {service}
        reader.refresh()
        ids = {key: [row[key] for row in ASKED] for key in ASKED[0]}
        assert spaces_of(dict(reader.read(ids))) == {service}
        assert spaces_of(joined(store, REFS)) == {service}
        assert spaces_of(online(store, ["taste@v0:likes"])) == {0}
        assert spaces_of(online(store, ["taste@v1:likes"])) == {1}
    reader.close()


@pytest.mark.parametrize("read", [online, tensors])
def test_a_registry_that_is_replaced_between_two_views_is_read_again(
    make_shop: Callable[..., Shop], read: Callable[..., Read], monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = make_shop({0: "", 1: "b1"}, 0)
    apply_and_materialize(shop.repo, END)
    store = shop.store()
    registry: Any = store.registry
    resolve, service = registry.get_any_feature_view, iter([1])

    def and_promote(*args: Any) -> Any:
        view = resolve(*args)
        for number in service:
            shop.after(service=number)
            apply_whole(shop.repo)
        return view

    monkeypatch.setattr(registry, "get_any_feature_view", and_promote)
    assert spaces_of(read(store, REFS)) == {1}


def test_a_folder_made_afresh_reads_no_rows_of_before(
    make_shop: Callable[..., Shop], tmp_path: Path
) -> None:
    before = make_shop({0: "a0"}, 0)
    apply_and_materialize(before.repo, END)
    assert online(before.store(), REFS)["likes"][:4] == [[1.0, float(n)] for n in range(4)]

    fresh = before.after(repo=tmp_path / "fresh", spaces={0: "c9"})
    apply_whole(fresh.repo)
    read = online(fresh.store(), REFS)
    assert read["likes"] == [[1.0, -1.0]] * len(ASKED)  # the default vector


def test_a_user_is_forgotten_in_all_spaces(shop: Shop) -> None:
    store = shop.store()
    rows, taste = EntityRows(store), store.get_feature_view("taste")
    assert rows.ids([taste], "customer_id") == {"0", "1", "2", "3"}
    assert rows.delete([taste], "customer_id", ["2"]) == {"taste": {"2"}, "taste_v1-b1": {"2"}}
    assert rows.ids([taste], "customer_id") == {"0", "1", "3"}
    for space, refs in enumerate((["taste@v0:likes"], ["taste@v1:likes"])):
        assert online(store, refs)["likes"][2] == [space + 1.0, -1.0]
        assert online(store, refs)["likes"][1] == [space + 1.0, 1.0]


@pytest.mark.parametrize(
    ("group", "name"), [("", "v1"), ("shop", "1"), ("shop", "v1/b"), ("shop", "v1-"), ("shop", "")]
)
def test_a_space_has_a_number(group: str, name: str) -> None:
    with pytest.raises(StoreError, match="A space is named by its group and v<number>-<id>"):
        space_tag(group, name)


def test_the_tag_says_group_and_name() -> None:
    assert space_tag("a/b", "v12-x_1") == {SPACE_TAG: "a/b/v12-x_1"}
    space = space_of_tags({SPACE_TAG: "a/b/v12-x_1"})
    assert space == Space("a/b", "v12-x_1")
    assert space is not None
    assert (space.number, str(space)) == (12, "a/b/v12-x_1")
    assert space.stored_name("taste") == "taste_v12-x_1"
    assert Space("a", "v0").stored_name("taste") is None
    assert space_of_tags({}) is None
    with pytest.raises(StoreError, match="A space is named by its group"):
        space_of_tags({SPACE_TAG: "nonsense"})
