"""Vectors of two trainings never meet: what every reader gets, by its bytes, in each situation."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import Any

import pytest
from feast import FeatureStore

from reki_feast import stages
from reki_feast.project import DeclaredProject
from reki_feast.report import Silent
from reki_feast.stages import living_spaces, publishing
from reki_feast.stages.context import StageContext
from reki_feast.stores import materialize, registry
from reki_feast.stores.applying import apply_whole
from reki_feast.stores.redis_online import RekiRedisOnlineStore
from reki_feast.tables import lake
from reki_feast.tables.lake import Lake
from reki_feast.views.spaces import read_spaces
from tests.stages.conftest import reseed, write_tables
from tests.stages.space_shop import (
    LAST,
    LATER,
    READERS,
    STATES,
    VECTORS,
    Book,
    Read,
    Refs,
    Shops,
    SpaceShop,
    joined,
    killed,
    newest,
    online,
    pinned,
    stale,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore:On demand feature view is an exp:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning:ibis.backends.duckdb"),
]
ALL = [*VECTORS, *STATES]
#: Its name in the package is the command's.
space_commands = import_module("reki_feast.stages.spaces")
BEGINNING = datetime(1970, 1, 2, tzinfo=UTC)
#: As Feast's commands take it.
END = datetime.fromisoformat(LAST).replace(tzinfo=UTC)


def versions(shop: SpaceShop, read: Read, book: Book | None = None) -> set[str]:
    """The versions of the one space that all of a read may be of."""
    book = (book or Book()).learn(shop.project)
    assert book.unknown(read) == []
    return {one.partition("-")[0] for one in book.spaces(read)}


def see(shop: SpaceShop, version: str, refs: Refs = ALL, *, fresh: bool = True) -> None:
    """See that all readers get vectors of one space; the newest ones, if they are to be fresh."""
    store = shop.store()
    for reader in READERS:
        assert versions(shop, reader(store, refs)) == {version}, reader.__name__
    if fresh:
        assert stale(online(store, refs), newest(shop.project, version)) == []


def materialize_with_feast(shop: SpaceShop, *views: str) -> None:
    """`feast materialize`, of all views or some."""
    shop.store().materialize(BEGINNING, END, feature_views=[*views] or None)


def publish_by_old_weights(shop: SpaceShop) -> None:
    """A command that has read which spaces there are before there was a second one."""
    project = shop.project
    before = StageContext.of(project)
    list_before, weights_before = read_spaces(shop.data), before.lake.read_json("hein")
    assert len(list_before.spaces) == 1
    stages.train(reseed(shop.root, 1), retrain=True)
    stages.publish(shop.project)
    publishing._published(before.in_space(list_before.in_service), Silent())
    assert before.lake.read_json("hein") == weights_before


def promote_without_rows(shop: SpaceShop) -> None:
    """A promotion that is killed at once, and `feast apply`."""
    with killed(space_commands, "materialize_repo"):
        stages.promote(shop.project)
    apply_whole(shop.repo)


def grow(shop: SpaceShop) -> None:
    write_tables(shop.root, interactions=130)
    stages.run(shop.project)


def test_a_project_that_ran_once_has_one_space(shops: Shops) -> None:
    see(shops.ran, "v0")
    assert [one.version for one in read_spaces(shops.ran.data).spaces] == ["v0"]
    assert not (shops.ran.data / "spaces").exists()


@pytest.mark.parametrize("call", [1, 2, 3, 4])
def test_a_publish_is_killed_between_two_tables(shops: Shops, call: int) -> None:
    shop = shops.copy("trained")
    with killed(lake.parquet, "write_table", call):  # type: ignore[attr-defined]
        stages.publish(shop.project)
    see(shop, "v0")
    if call == 4:
        stages.publish(shop.project)
        see(shop, "v0")
        stages.promote(shop.project)
        see(shop, "v1")


def test_nothing_changes_for_readers_until_a_space_is_promoted(shops: Shops) -> None:
    """After publish and before apply; after apply and before anything is materialized."""
    shop = shops.copy("published")
    see(shop, "v0")
    apply_whole(shop.repo)
    see(shop, "v0")
    see(shop, "v1", pinned(VECTORS, "v1"), fresh=False)
    stages.publish(shop.project, materialize=True)
    see(shop, "v0")
    see(shop, "v1", pinned(VECTORS, "v1"))


def test_a_publish_by_old_weights_ends_last(shops: Shops) -> None:
    shop = shops.copy("ran")
    publish_by_old_weights(shop)
    see(shop, "v0")
    stages.promote(shop.project)
    see(shop, "v1")


def test_a_space_in_service_without_its_rows_gives_its_defaults(shops: Shops) -> None:
    """After apply; then one view alone; then a killed materialize; then what Feast goes on with."""
    shop = shops.copy("published")
    promote_without_rows(shop)
    see(shop, "v1", fresh=False)
    materialize_with_feast(shop, "reki")
    see(shop, "v1", fresh=False)
    with killed(RekiRedisOnlineStore, "write_arrow", 2):
        materialize_with_feast(shop)
    see(shop, "v1", fresh=False)
    shop.store().materialize_incremental(END)
    see(shop, "v1")
    see(shop, "v0", pinned(VECTORS, "v0"))


def test_an_increment_after_a_promotion(shops: Shops) -> None:
    shop = shops.copy("promoted")
    grow(shop)
    apply_whole(shop.repo)
    shop.store().materialize_incremental(END)
    see(shop, "v1")
    stages.publish(shop.project, materialize=True)
    see(shop, "v0", pinned(VECTORS, "v0"))


def test_one_view_alone_after_a_promotion(shops: Shops) -> None:
    shop = shops.copy("promoted")
    materialize_with_feast(shop, "reki")
    see(shop, "v1")


@pytest.mark.parametrize("refs", [ALL, pinned(VECTORS, "v0"), pinned(VECTORS, "v1")])
def test_a_join_by_times_of_creation_over_a_second_training(shops: Shops, refs: Refs) -> None:
    """A row's vector was made when its space was; those asked about before have the default."""
    shop = shops.promoted
    made = datetime.fromisoformat(read_spaces(shop.data).spaces[1].made)
    times = [made - timedelta(days=300), made - timedelta(microseconds=1), made, LATER]
    read = joined(shop.store(), refs, *times, created=True)
    assert versions(shop, read) == ({"v0"} if refs == pinned(VECTORS, "v0") else {"v1"})
    names = [name for name in read if name.endswith("_aug")]
    assert all(len({str(vector) for vector in read[name]}) > 1 for name in names)


def test_a_data_folder_made_afresh_over_the_same_redis(shops: Shops) -> None:
    """Its as-of times are earlier than those of the rows that are online."""
    shop = shops.copy("promoted")
    before = Book().learn(shop.project)
    shutil.rmtree(shop.data)
    write_tables(shop.root, interactions=100)
    reseed(shop.root, 7)
    stages.run(shop.project, materialize=True)
    see(shop, "v0")
    assert before.unknown(online(shop.store(), VECTORS)) == ["user_aug", "item_aug"]


def test_a_clock_that_went_back(shops: Shops, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = shops.copy("trained")
    past = datetime(2020, 1, 1, tzinfo=UTC)
    for module in (publishing, living_spaces, space_commands):
        monkeypatch.setattr(module, "now", lambda: past)
    stages.publish(shop.project, materialize=True)
    see(shop, "v0")
    stages.promote(shop.project)
    see(shop, "v1")
    stages.rollback(shop.project)
    see(shop, "v0")


def test_who_reads_beside_a_publish_and_a_promotion_sees_one_space(
    shops: Shops, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before every part, object, view's rows and registry that is written."""
    shop = shops.copy("trained")
    kept, book = shop.store(), Book()
    found: list[str] = []
    places: Sequence[tuple[Any, str]] = [
        (Lake, "append"),
        (Lake, "write_json"),
        (RekiRedisOnlineStore, "write_arrow"),
        (registry, "_replace"),
    ]

    def look(store: FeatureStore, read: Callable[..., Read]) -> None:
        (version,) = versions(shop, read(store, ALL), book)
        found.append(version)

    for owner, name in places:
        _before(monkeypatch, owner, name, lambda: look(kept, online))
    _before(monkeypatch, registry, "_replace", lambda: look(shop.store(), joined))
    stages.publish(shop.project, materialize=True)
    assert set(found) == {"v0"}
    published = len(found)
    stages.promote(shop.project)
    look(kept, online)  # Feast keeps a registry for a time
    look(shop.store(), online)
    assert found[-1] == "v1"
    assert len(found) > published + 4 > 20


def _before(patch: pytest.MonkeyPatch, owner: Any, name: str, look: Callable[[], None]) -> None:
    """Look before each call of a function, but for calls while looking."""
    function = getattr(owner, name)
    looking: list[bool] = []

    def called(*given: Any, **named: Any) -> Any:
        if not looking:
            looking.append(True)
            look()
            looking.clear()
        return function(*given, **named)

    patch.setattr(owner, name, called)


def test_a_promotion_is_killed_and_repeated(shops: Shops) -> None:
    shop = shops.copy("published")
    places: list[tuple[Any, str, int]] = [
        (space_commands, "write_spaces", 1),
        (materialize, "apply_to", 1),
        (RekiRedisOnlineStore, "write_arrow", 1),
        (RekiRedisOnlineStore, "write_arrow", 5),
        (shutil, "copyfile", 2),  # the registry, when all is there
    ]
    for place in places:
        with killed(*place):
            stages.promote(shop.project, "v1")
        see(shop, "v0")
    stages.promote(shop.project, "v1")
    see(shop, "v1")


def test_two_spaces_are_told_apart(shops: Shops) -> None:
    """What these tests see by is no defect: a mixture is seen."""
    shop, project = shops.promoted, shops.promoted.project
    book, store = Book().learn(project), shop.store()
    new, old = online(store, VECTORS), online(store, pinned(VECTORS, "v0"))
    assert book.spaces({**new, "item_aug": old["item_aug"]}) == set()
    assert book.spaces({**new, "user_aug": [*new["user_aug"][:-1], old["user_aug"][-1]]}) == set()
    assert book.unknown({"user_aug": [[0.5] * len(new["user_aug"][0])]}) == ["user_aug"]
    assert stale(old, newest(project, "v1"))
    assert isinstance(project, DeclaredProject)
