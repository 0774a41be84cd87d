"""The living versions of a view: in a registry, in the online store, and how they go."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from feast import FeatureStore
from feast.errors import FeatureViewVersionNotFound

from reki_feast.errors import StoreError
from reki_feast.stores import (
    Count,
    apply_and_materialize,
    count_online,
    delete_version,
    materialize_views,
    pinned,
    space_tag,
    versions_tag,
)
from reki_feast.stores.applying import apply_whole
from reki_feast.stores.counting import count_rows
from reki_feast.stores.deletion import EntityRows
from reki_feast.stores.versions import VERSIONS_TAG, versions_of
from tests.stores.toy_shop import END, REGISTRY, ROWS, Shop, shop_config, vector

pytestmark = [
    pytest.mark.filterwarnings("ignore:On demand feature view is an exp:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning:ibis.backends.duckdb"),
]
PINS = ["taste@v0:likes", "style@v0:looks"]
STOCK = {**REGISTRY, "registry_store_type": "FileRegistryStore"}
SQL = {"registry_type": "sql", "enable_online_feature_view_versioning": True}


@pytest.fixture
def make_shop(tmp_path: Path, redis_address: str) -> Callable[..., Shop]:
    """Makes a repo with a project of its own; ``config`` has what differs from ours."""
    project = "p" + tmp_path.name.replace("_", "").replace("-", "")

    def make(
        spaces: dict[int, str], service: int = 0, config: dict[str, Any] | None = None, **pins: Any
    ) -> Shop:
        made = {**shop_config(redis_address, project), **(config or {})}
        return Shop(tmp_path / "repo", spaces, service, **pins, config=made).write()

    return make


def likes(store: FeatureStore, ref: str = "taste:likes") -> Any:
    return store.get_online_features([ref], ROWS).to_dict()["likes"]


def of_space(number: int) -> list[list[float]]:
    return [vector(number, row) for row in range(len(ROWS))]


def versions(store: FeatureStore, view: str) -> list[tuple[str, str]]:
    found = store.list_feature_view_versions(view)
    return [(one["version"], one["version_id"]) for one in found]


def pins(store: FeatureStore, service: str) -> list[tuple[str, int | None]]:
    projections = store.get_feature_service(service).feature_view_projections
    return [(one.name, one.version_tag) for one in projections]


def current(store: FeatureStore, view: str) -> int | None:
    number: int | None = store.registry.get_any_feature_view(
        view, store.project
    ).current_version_number
    return number


class TestRegistry:
    def test_it_has_the_living_versions_and_no_others(self, make_shop: Callable[..., Shop]) -> None:
        shop = make_shop({0: ""})
        apply_whole(shop.repo)
        states = [versions(shop.store(), "taste")]
        for changes in (
            {"spaces": {0: "", 1: "b1"}},  # staged
            {"spaces": {0: "", 1: "b1"}, "service": 1},  # promoted
            {"spaces": {0: "", 1: "b1", 2: "c2"}, "service": 1},
            {"spaces": {1: "b1", 2: "c2"}, "service": 2},  # retired
        ):
            shop = shop.after(**changes)
            apply_whole(shop.repo)
            states.append(versions(shop.store(), "taste"))
            assert [versions(shop.store(), view) for view in ("style", "fit")] == states[-1:] * 2
            assert current(shop.store(), "taste") == (shop.service or None)
        v0, v1, v2 = ("v0", "v0"), ("v1", "v1-b1"), ("v2", "v2-c2")
        assert states == [[v0], [v0, v1], [v0, v1], [v0, v1, v2], [v1, v2]]
        store = shop.store()
        with pytest.raises(FeatureViewVersionNotFound):
            likes(store, "taste@v0:likes")

    def test_what_feast_writes_afterwards_keeps_them(self, make_shop: Callable[..., Shop]) -> None:
        shop = make_shop({0: "", 1: "b1"}, 1)
        apply_and_materialize(shop.repo, END)
        store, before = shop.store(), shop.store().list_feature_view_versions("taste")
        assert len(before) == 2
        store.disable_feature_view("taste")
        store.enable_feature_view("taste")
        store.materialize_incremental(END, feature_views=["taste"])
        apply_whole(shop.repo)
        store = shop.store()
        assert store.list_feature_view_versions("taste") == before
        assert current(store, "taste") == 1
        assert [likes(store), likes(store, "taste@v0:likes")] == [of_space(1), of_space(0)]

    def test_feasts_own_class_reads_them(self, make_shop: Callable[..., Shop]) -> None:
        shop = make_shop({0: "", 1: "b1"}, 1)
        apply_and_materialize(shop.repo, END)
        config = {**shop.config, "registry": STOCK}
        store = shop.after(config=config).store()
        assert [likes(store), likes(store, "taste@v0:likes")] == [of_space(1), of_space(0)]

    def test_views_without_a_space_keep_feasts_own(self, make_shop: Callable[..., Shop]) -> None:
        shop = make_shop({0: ""})
        apply_whole(shop.repo)
        features = shop.repo / "features.py"
        text = features.read_text()
        for length in (2, 3):
            plain = f"""
from feast import FeatureView, Field
from feast.types import Array, Float32, Int64
plain = FeatureView(name="plain", entities=[customer], source=taste.batch_source, schema=[
    Field(name="customer_id", dtype=Int64), Field(name="likes", dtype=Array(Float32)),
    Field(name="likes{length}", dtype=Array(Float32))])
"""
            features.write_text(text + plain)
            apply_whole(shop.repo)
        store = shop.store()
        assert [version for version, _ in versions(store, "plain")] == ["v0", "v1"]
        assert versions(store, "taste") == [("v0", "v0")]

    def test_rows_without_a_space_are_those_of_v0(self, make_shop: Callable[..., Shop]) -> None:
        shop = make_shop({0: "", 1: "b1"}, 0)
        store, made = shop.store(), shop.objects()
        made["taste"].tags = {}
        store.apply([made["customer"], made["taste"]])
        materialize_views(store, ["taste"], END)
        apply_whole(shop.repo)  # with the tag, and nothing is materialized anew
        assert likes(shop.store()) == likes(shop.store(), "taste@v0:likes") == of_space(0)
        assert versions(shop.store(), "taste") == [("v0", "v0"), ("v1", "v1-b1")]

    def test_two_spaces_of_one_number_are_refused(self, make_shop: Callable[..., Shop]) -> None:
        shop = make_shop({0: "", 1: "b1"}, 0)
        apply_whole(shop.repo)
        store = shop.store()
        taste = store.get_feature_view("taste")
        taste.tags = {**taste.tags, **space_tag("shop", "v1-other")}
        with pytest.raises(StoreError, match="Versions of view taste are of spaces with different"):
            store.registry.apply_feature_view(taste, store.project)

    @pytest.mark.parametrize("registry", [STOCK, SQL], ids=["file", "sql"])
    def test_others_serve_the_space_in_service_alone(
        self, make_shop: Callable[..., Shop], registry: dict[str, Any], tmp_path: Path
    ) -> None:
        registry = {"path": f"sqlite:///{tmp_path / 'registry.sqlite'}", **registry}
        shop = make_shop({0: "", 1: "b1"}, 0, config={"registry": registry})
        apply_and_materialize(shop.repo, END)
        assert likes(shop.store()) == of_space(0)
        shop = shop.after(service=1)
        apply_and_materialize(shop.repo, END)
        store = shop.store()
        assert likes(store) == of_space(1)
        assert count_rows(store, versions_of(store.get_feature_view("taste"))[0]) == len(ROWS)
        with pytest.raises(FeatureViewVersionNotFound):
            likes(store, "taste@v1:likes")
        # Of the first apply; the tag says the space all the same.
        assert likes(store, "taste@v0:likes") == of_space(0)

    def test_a_number_of_feasts_own_is_not_taken_for_a_space(
        self, make_shop: Callable[..., Shop]
    ) -> None:
        shop = make_shop({1: "b1"}, 1, config={"registry": STOCK})
        apply_and_materialize(shop.repo, END)
        store = shop.store()
        with pytest.raises(StoreError, match="Version v0 of view taste is in space v0") as caught:
            likes(store, "taste@v0:likes")  # what Feast counted when it was applied first
        assert "WholeFileRegistryStore" in caught.value.problems[0].hint


class TestApplying:
    def test_a_service_names_versions_in_a_new_registry(
        self, make_shop: Callable[..., Shop]
    ) -> None:
        shop = make_shop({0: "", 1: "b1"}, 1, refs=PINS)
        apply_and_materialize(shop.repo, END)
        store = shop.store()
        service = store.get_feature_service("pinned")
        assert store.get_online_features(service, ROWS).to_dict()["likes"] == of_space(0)

    def test_feast_apply_takes_a_pinned_view_at_once_and_references_afterwards(
        self, make_shop: Callable[..., Shop]
    ) -> None:
        shop = make_shop({0: "", 1: "b1"}, 1, pins=0)
        shop.feast("apply")
        assert versions(shop.store(), "taste") == [("v0", "v0"), ("v1", "v1-b1")]
        assert pins(shop.store(), "held") == [("taste", 0), ("style", 0)]
        shop.after(refs=PINS).feast("apply")
        assert pins(shop.store(), "pinned") == [("taste", 0), ("style", 0)]

    def test_feast_materialize_writes_a_version_under_its_own_rows(
        self, make_shop: Callable[..., Shop]
    ) -> None:
        shop = make_shop({0: "", 1: "b1"}, 0)
        apply_whole(shop.repo)
        tags = shop.store().get_feature_view("taste").tags
        times = ("2020-01-01T00:00:00", "2026-09-01T00:00:00")
        shop.feast("materialize", "-v", "taste", "--version", "v1", *times)
        store = shop.store()
        assert likes(store, "taste@v1:likes") == of_space(1)
        assert count_online(store, "taste") == 0
        assert store.get_feature_view("taste").tags == tags

    def test_all_versions_are_materialized_and_counted(
        self, make_shop: Callable[..., Shop]
    ) -> None:
        shop = make_shop({0: "", 1: "b1", 2: "c2"}, 1)
        counts = apply_and_materialize(shop.repo, END)
        assert sorted((count.name, count.source, count.online) for count in counts) == [
            ("style", 4, 4),
            ("style@v0", 4, 4),
            ("style@v2", 4, 4),
            ("taste", 4, 4),
            ("taste@v0", 4, 4),
            ("taste@v2", 4, 4),
        ]
        assert Count("taste", 4, 4, version=2) in counts

    def test_rows_that_a_version_lacks_are_named(
        self, make_shop: Callable[..., Shop], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shop = make_shop({0: "", 1: "b1"}, 0)
        monkeypatch.setattr("reki_feast.stores.materialize._materialize_versions", lambda *_: None)
        with pytest.raises(StoreError, match="every id of view style@v1 is in the online store"):
            apply_and_materialize(shop.repo, END)


def stock_redis(redis: str, _: Path) -> dict[str, Any]:
    return {"type": "redis", "connection_string": redis}


def sqlite(_: str, folder: Path) -> dict[str, Any]:
    return {"type": "sqlite", "path": str(folder / "online.db")}


@pytest.mark.parametrize("online", [stock_redis, sqlite])
class TestFeastsOwnStores:
    """They know no spaces: Feast's own version numbers tell rows apart there."""

    def test_with_versions(
        self,
        make_shop: Callable[..., Shop],
        redis_address: str,
        tmp_path: Path,
        online: Callable[..., dict[str, Any]],
    ) -> None:
        config = {"online_store": online(redis_address, tmp_path)}
        shop = make_shop({0: "", 1: "b1", 2: "c2"}, 1, config=config)
        counts = apply_and_materialize(shop.repo, END)
        assert [count.version for count in counts] == [None, None, 0, 2, 0, 2]
        store = shop.store()
        assert [
            likes(store, ref) for ref in ("taste:likes", "taste@v0:likes", "taste@v2:likes")
        ] == [
            of_space(1),
            of_space(0),
            of_space(2),
        ]
        assert delete_version(store, "taste", 0) == len(ROWS)
        assert delete_version(store, "taste", 0) == 0
        assert likes(store, "taste@v0:likes") == [None] * len(ROWS)
        assert [likes(store), likes(store, "taste@v2:likes")] == [of_space(1), of_space(2)]

    def test_without_versions_the_space_in_service_alone_is_online(
        self,
        make_shop: Callable[..., Shop],
        redis_address: str,
        tmp_path: Path,
        online: Callable[..., dict[str, Any]],
    ) -> None:
        registry = {**REGISTRY, "enable_online_feature_view_versioning": False}
        config = {"online_store": online(redis_address, tmp_path), "registry": registry}
        shop = make_shop({0: "", 1: "b1"}, 1, config=config)
        counts = apply_and_materialize(shop.repo, END)
        assert {count.name for count in counts} == {"style", "taste"}
        store = shop.store()
        assert likes(store) == of_space(1)
        with pytest.raises(StoreError, match="when another one is in service"):
            delete_version(store, "taste", 0)
        assert likes(store) == of_space(1)


@pytest.mark.parametrize("layout", ["hash", "packed"])
class TestDeletion:
    @pytest.fixture
    def shop(self, make_shop: Callable[..., Shop], layout: str) -> Shop:
        made = make_shop({0: "", 1: "b1"}, 1)
        online = {**made.config["online_store"], "layout": layout}
        made = made.after(config={**made.config, "online_store": online})
        apply_and_materialize(made.repo, END)
        return made

    def test_of_one_version(self, shop: Shop) -> None:
        store = shop.store()
        assert delete_version(store, "taste", 0) == len(ROWS)
        assert likes(store) == of_space(1)
        assert likes(store, "taste@v0:likes") == [[1.0, -1.0]] * len(ROWS)
        assert likes(store, "taste@v0:likes") == [[1.0, -1.0]] * len(ROWS)
        assert delete_version(store, "taste", 0) == 0
        apply_and_materialize(shop.repo, END)  # it lives: rows come back
        assert likes(store, "taste@v0:likes") == of_space(0)

    def test_of_a_part_is_gone_on_with(self, shop: Shop) -> None:
        store = shop.store()
        (version,) = versions_of(store.get_feature_view("taste"))
        rows = EntityRows(store)
        assert rows.delete([version], "customer_id", ["0", "3"]) == {"taste": {"0", "3"}}
        assert delete_version(store, "taste", 0) == 2
        assert count_rows(store, version) == 0

    @pytest.mark.parametrize(
        ("number", "problem"),
        [
            (1, "The rows of a version are deleted when another one is in service"),
            (7, "Version v7 of view taste is declared"),
        ],
    )
    def test_of_another_is_refused(self, shop: Shop, number: int, problem: str) -> None:
        store = shop.store()
        with pytest.raises(StoreError, match=problem):
            delete_version(store, "taste", number)
        assert [likes(store), likes(store, "taste@v0:likes")] == [of_space(1), of_space(0)]

    def test_of_a_view_takes_its_versions(self, shop: Shop) -> None:
        store = shop.store()
        taste = store.get_feature_view("taste")
        counted = [taste, *versions_of(taste)]
        counted += versions_of(store.get_feature_view("style"))
        (shop.repo / "features.py").write_text("")
        apply_whole(shop.repo)
        assert [count_rows(store, one) for one in counted] == [0, 0, 0]


class TestTag:
    def test_it_is_the_same_each_time_and_small(self, make_shop: Callable[..., Shop]) -> None:
        shop = make_shop({0: "", 1: "b1", 2: "c2"}, 1)
        first, second = shop.objects()["taste"].tags, shop.objects()["taste"].tags
        assert first == second
        assert len(first[VERSIONS_TAG]) < 1_000
        assert versions_tag([]) == {}

    def test_versions_are_whole_views(self, make_shop: Callable[..., Shop]) -> None:
        shop = make_shop({0: "", 1: "b1", 2: "c2"}, 1)
        for name in ("taste", "fit"):
            view = shop.objects()[name]
            found = versions_of(view)
            assert [one.current_version_number for one in found] == [0, 2]
            assert [one.tags["reki.space"] for one in found] == ["shop/v0", "shop/v2-c2"]
            assert all(VERSIONS_TAG not in one.tags for one in found)
            assert {type(one) for one in found} == {type(view)}
        taste = versions_of(shop.objects()["taste"])[1]
        assert taste.batch_source.path.endswith("tables/v2c2/taste")
        assert taste.join_keys == ["customer_id"]

    def test_a_version_is_pinned(self, make_shop: Callable[..., Shop]) -> None:
        taste = make_shop({0: "", 1: "b1"}, 1).objects()["taste"]
        assert [pinned(taste, n).version for n in (0, 1)] == ["v0", "v1"]
        assert taste.version == "latest"
        with pytest.raises(StoreError, match="Version v3 of view taste is declared") as caught:
            pinned(taste, 3)
        assert caught.value.problems[0].detail == "declared are v0, v1"

    def test_what_is_no_version_is_refused(self, make_shop: Callable[..., Shop]) -> None:
        made = make_shop({0: "", 1: "b1"}, 1).objects()
        taste, style = made["taste"], made["style"]
        plain = make_shop({0: ""}).objects()["taste"]
        plain.tags = {}
        for views in ([taste, taste], [taste, style], [plain]):
            with pytest.raises(StoreError, match="Versions of a view have its name, and each its"):
                versions_tag(views)

    @pytest.mark.parametrize("tag", ["no base64", "AAAA", json.dumps({})])
    def test_one_that_is_damaged_is_refused(self, make_shop: Callable[..., Shop], tag: str) -> None:
        taste = make_shop({0: ""}).objects()["taste"]
        taste.tags = {**taste.tags, VERSIONS_TAG: tag}
        with pytest.raises(StoreError, match="Tag reki.versions of view taste holds its other"):
            versions_of(taste)
