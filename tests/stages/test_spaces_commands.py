"""`reki spaces`, `promote`, `rollback` and `retire`, and what reaches every space."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from importlib import import_module
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from feast.errors import FeatureViewVersionNotFound

from reki_feast import stages
from reki_feast.encoding import HashEncoder
from reki_feast.errors import StoreError
from reki_feast.project import DeclaredProject
from reki_feast.stages import Pusher, living_spaces
from reki_feast.stores import applying, embedded
from reki_feast.stores.applying import apply_whole
from reki_feast.stores.deletion import EntityRows
from reki_feast.views.spaces import read_spaces
from tests.stages.conftest import T0, reseed, write_tables
from tests.stages.space_shop import (
    ITEMS,
    STATES,
    USERS,
    VECTORS,
    Book,
    Shops,
    SpaceShop,
    joined,
    killed,
    newest,
    online,
    pinned,
    stale,
    tensors,
)
from tests.stages.test_spaces import see, versions
from tests.test_formats import unpacked

pytestmark = [
    pytest.mark.filterwarnings("ignore:On demand feature view is an exp:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning:ibis.backends.duckdb"),
]
PINS = """
from reki_feast.stores.versions import pinned

by_text = FeatureService(name="by_text", features=["reki@v0:user_aug", "reki_item@v0:item_aug"])
held = FeatureService(name="held", features=[pinned(reki, 0), pinned(reki_item, 0)])
"""
space_commands = import_module("reki_feast.stages.spaces")


def living(shop: SpaceShop) -> list[str]:
    return [one.version for one in read_spaces(shop.data).spaces]


def rows_online(shop: SpaceShop) -> list[str]:
    """The spaces that rows online are of."""
    names = [key.decode().rpartition("_v") for key in shop.row_names()]
    return sorted({f"v{name[2].partition('-')[0]}" for name in names})


def test_spaces_are_listed(shops: Shops) -> None:
    project = shops.promoted.project
    old, new = stages.spaces(project).spaces
    assert [(one.space, one.state, one.encoder) for one in (old, new)] == [
        ("v0", "was in service", "hash-32"),
        ("v1", "in service", "hash-32"),
    ]
    assert [one.online for one in (old, new)] == [29 + 20] * 2
    assert [one.offline for one in (old, new)] == [
        sum(project.lake.in_space(space).size(f"{kind}_aug")[1] for kind in ("user", "item"))
        for space in read_spaces(project.data).spaces
    ]
    assert [one.readers for one in (old, new)] == [(), ("vectors",)]
    assert len({one.id for one in (old, new)}) == 2
    assert stages.spaces(project).notes == []


def test_what_is_staged_is_told(shops: Shops) -> None:
    found = stages.spaces(shops.published.project)
    assert [one.state for one in found.spaces] == ["in service", "staged"]
    assert found.next == ["reki promote v1"]
    assert found.spaces[1].online is None or found.spaces[1].online == 0


def test_a_promotion_and_its_way_back(shops: Shops) -> None:
    shop = shops.copy("published")
    made = stages.promote(shop.project)
    assert (made.space, made.before, made.compatible) == ("v1", "v0", False)
    assert made.title == "shop: v1 is in service, in place of v0"
    assert made.notes == [
        "models that learnt from v0 cannot read v1: train them again, or have their feature "
        "services name v0: reki@v0:user_aug"
    ]
    assert {"reki", "reki@v0", "reki_item@v0", "reki_user_match@v0"} <= {
        one.view for one in made.online
    }
    see(shop, "v1")
    again = stages.promote(shop.project, "v1")
    assert again.title == "shop: v1 stays in service"
    back = stages.rollback(shop.project)
    assert (back.space, back.before) == ("v0", "v1")
    see(shop, "v0")
    see(shop, "v1", pinned(VECTORS, "v1"))


def test_services_that_name_a_version_stay_with_it(shops: Shops) -> None:
    shop = shops.copy("ran")
    shop.add_features(PINS)
    apply_whole(shop.repo)
    stages.train(reseed(shop.root, 1), retrain=True)
    stages.publish(shop.project)
    before = online(shop.store(), VECTORS)
    for change in (lambda: stages.promote(shop.project), lambda: apply_whole(shop.repo)):
        change()
        store = shop.store()
        for name in ("by_text", "held"):
            service = store.get_feature_service(name)
            rows = [
                dict(zip(("customer_id", "sku"), row, strict=True))
                for row in zip(USERS, ITEMS, strict=True)
            ]
            read = store.get_online_features(service, rows).to_dict()
            assert {key: read[key] for key in before} == before
            assert versions(shop, tensors(store, name)) == {"v0"}
        see(shop, "v1")
    (old, _) = stages.spaces(shop.project).spaces
    assert old.readers == ("by_text", "held")
    with pytest.raises(StoreError, match="no feature service reads it") as caught:
        stages.retire(shop.project, "v0")
    assert str(caught.value) == (
        "A space is retired when no feature service reads it\n"
        f"  detail: by_text, held of {shop.repo} names v0\n"
        "  hint:   have it name another version and `feast apply`; or --force"
    )
    see(shop, "v0", pinned(VECTORS, "v0"))
    forced = stages.retire(shop.project, "v0", force=True)
    assert forced.notes == [
        f"by_text, held of {shop.repo} names v0 still: have it name another version, then feast "
        "apply"
    ]
    see(shop, "v1")


def test_a_retired_space_is_nowhere(shops: Shops) -> None:
    shop = shops.copy("promoted")
    tables = Book().learn(shop.project)
    assert rows_online(shop) == ["v0", "v1"]
    report = stages.retire(shop.project, "v0")
    assert report.offline == 29 + 20 == 49
    assert report.online == 2 * (29 + 20)  # vectors, and what scores are computed of
    _see_retired(shop)
    assert tables.spaces(online(shop.store(), VECTORS)) == {read_spaces(shop.data).spaces[0].name}
    stages.train(reseed(shop.root, 5), retrain=True)
    stages.publish(shop.project)
    assert living(shop) == ["v1", "v2"]
    stages.promote(shop.project)
    see(shop, "v2")


def _see_retired(shop: SpaceShop) -> None:
    """Space 0 is neither in the registry nor in a table nor online."""
    assert living(shop) == ["v1"]
    assert read_spaces(shop.data).leaving is None
    assert rows_online(shop) == ["v1"]
    assert not [*shop.data.glob("*_aug"), *shop.data.glob("*_match"), *shop.data.glob("hein*")]
    with pytest.raises(FeatureViewVersionNotFound, match="v0"):
        online(shop.store(), pinned(VECTORS, "v0"))
    see(shop, "v1")


@pytest.mark.parametrize(
    ("place", "calls"),
    [
        ((EntityRows, "delete_all"), (1, 3)),
        ((space_commands, "drop"), (1,)),
        ((living_spaces, "write_spaces"), (1, 2)),
        ((living_spaces.shutil, "rmtree"), (1, 3)),  # type: ignore[attr-defined]
        ((applying, "apply_whole"), (1,)),
    ],
)
def test_a_removal_is_killed_and_repeated(
    shops: Shops, place: tuple[object, str], calls: tuple[int, ...]
) -> None:
    for call in calls:
        shop = shops.copy("promoted")
        with killed(*place, call):
            stages.retire(shop.project, "v0")
        see(shop, "v1")
        stages.retire(shop.project, "v0")
        _see_retired(shop)


def test_a_removal_that_was_killed_is_ended_by_another(shops: Shops) -> None:
    shop = shops.copy("promoted")
    stages.train(reseed(shop.root, 5), retrain=True)
    stages.publish(shop.project)
    with killed(living_spaces.shutil, "rmtree"):  # type: ignore[attr-defined]
        stages.retire(shop.project, "v0")
    assert (shop.data / "user_aug").exists()
    stages.retire(shop.project, "v2")
    assert not (shop.data / "user_aug").exists()
    assert not (shop.data / "spaces" / "v2").exists()
    see(shop, "v1")


def test_a_space_that_is_served_still_is_not_retired(shops: Shops) -> None:
    """A promotion was killed before its repo was applied."""
    shop = shops.copy("published")
    with killed(space_commands, "materialize_repo"):
        stages.promote(shop.project)
    (note,) = stages.spaces(shop.project).notes
    assert note.startswith("the Feast repo serves v1")
    with pytest.raises(StoreError, match="when the Feast repo serves another one") as caught:
        stages.retire(shop.project, "v0", force=True)
    assert str(caught.value).splitlines()[1:] == [
        f"  detail: {shop.repo} serves v0: it was not applied since",
        "  hint:   reki promote, of the space in service, applies it",
    ]
    see(shop, "v0")
    stages.promote(shop.project, "v1")
    stages.retire(shop.project, "v0")
    _see_retired(shop)


@pytest.mark.parametrize(
    ("moment", "call", "message"),
    [
        (
            "promoted",
            lambda project: stages.promote(project, "v7"),
            "v7 is a living space of vectors\n"
            "  detail: there are v0, v1\n"
            "  hint:   `reki spaces` lists them; `reki train --retrain` makes a new one",
        ),
        (
            "promoted",
            lambda project: stages.retire(project, "v7"),
            "v7 is a living space of vectors\n"
            "  detail: there are v0, v1\n"
            "  hint:   `reki spaces` lists them; `reki train --retrain` makes a new one",
        ),
        (
            "ran",
            stages.promote,
            "A space of vectors waits to be put in service\n"
            "  detail: v0 is in service, and no newer one is published\n"
            "  hint:   `reki run --retrain` makes one; `reki promote SPACE` takes any of "
            "`reki spaces`",
        ),
        (
            "trained",
            lambda project: stages.promote(project, "v1"),
            "A space is published before it is put in service\n"
            "  detail: v1 has no tables for Feast\n"
            "  hint:   reki publish",
        ),
        (
            "ran",
            stages.rollback,
            "A space of vectors was in service before, and lives\n"
            "  detail: v0 is the only one that was\n"
            "  hint:   `reki spaces` lists the living ones; `reki promote SPACE` takes any",
        ),
        (
            "promoted",
            lambda project: stages.retire(project, "v1"),
            "A space is retired when another one is in service\n"
            "  detail: v1 is in service\n"
            "  hint:   `reki promote` puts another in service",
        ),
    ],
)
def test_what_cannot_be_done_is_told(
    shops: Shops, moment: str, call: Callable[[DeclaredProject], object], message: str
) -> None:
    shop = getattr(shops, moment)
    with pytest.raises(StoreError, match=f"^{re.escape(message)}$"):
        call(shop.project)


def test_a_mixture_is_refused(shops: Shops) -> None:
    refs = ["reki:user_aug", "reki_item@v0:item_aug"]
    for read in (online, tensors, joined):
        with pytest.raises(StoreError, match="A request reads vectors of one space") as caught:
            read(shops.promoted.store(), refs)
        assert "reki of shop/v1-" in str(caught.value)
        assert "reki_item@v0 of shop/v0-" in str(caught.value)


def test_a_repo_that_takes_no_rows_stays_with_the_space_before(
    shops: Shops, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = shops.copy("published")
    shop.add_features("\nraise RuntimeError('no repo')\n")
    with pytest.raises(StoreError, match="Feast accepts the repo"):
        stages.promote(shop.project)
    assert read_spaces(shop.data).in_service.version == "v0"
    see(shop, "v0")


def test_new_rows_reach_every_space(shops: Shops) -> None:
    shop = shops.copy("promoted")
    before = {version: newest(shop.project, version) for version in ("v0", "v1")}
    write_tables(shop.root, interactions=130)
    stages.run(shop.project, materialize=True)
    see(shop, "v1")
    see(shop, "v0", pinned([*VECTORS, *STATES], "v0"))
    for version, rows in before.items():
        now = newest(shop.project, version)
        assert sum(rows["user_aug"][one] != now["user_aug"][one] for one in rows["user_aug"]) >= 5


def test_interactions_are_pushed_to_every_space(shops: Shops) -> None:
    shop = shops.copy("promoted")
    refs = {version: pinned(STATES[:1], version) for version in ("v0", "v1")}
    before = {version: online(shop.store(), some) for version, some in refs.items()}
    row = {"customer_id": USERS[0], "sku": ITEMS[0], "stars": 5}
    row["event_timestamp"] = T0 + timedelta(days=30)
    assert Pusher(shop.project).push([row]).counted == 1
    after = {version: online(shop.store(), some) for version, some in refs.items()}
    for version, read in after.items():
        vectors = zip(read["user_match"], before[version]["user_match"], strict=True)
        assert [new != old for new, old in vectors] == [True] + [False] * (len(USERS) - 1)
    assert after["v0"]["user_match"][0] != after["v1"]["user_match"][0]


def test_who_is_forgotten_is_in_no_space(shops: Shops) -> None:
    shop = shops.copy("promoted")
    for name in ("users", "interactions"):
        table = pq.read_table(shop.root / f"{name}.parquet")
        pq.write_table(
            table.filter(pc.not_equal(table["customer_id"], USERS[1])),
            shop.root / f"{name}.parquet",
        )
    stages.forget(shop.project, users=[USERS[1]])
    for version in ("v0", "v1"):
        assert USERS[1] not in newest(shop.project, version)["user_aug"]
        read = online(shop.store(), pinned(VECTORS, version))
        assert read["user_aug"][1] == read["user_aug"][-1]  # the default
        assert read["user_aug"][0] != read["user_aug"][-1]
        see(shop, version, pinned(VECTORS, version))


def test_a_space_goes_on_with_the_encoder_that_it_was_made_by(
    shops: Shops, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is declared is another one by then."""

    def encoder(project: DeclaredProject, *given: object, **named: object) -> HashEncoder:
        return HashEncoder(dimension=project.declared.encoder.max_tokens or 32)

    monkeypatch.setattr(DeclaredProject, "encoder", encoder)
    shop = shops.copy("ran")
    path = shop.project.declared.path
    path.write_text(path.read_text().replace('model="hash"', 'model="hash", max_tokens=16'))
    stages.encode(shop.project, retrain=True)
    stages.train(reseed(shop.root, 1), retrain=True)
    stages.publish(shop.project)
    stages.promote(shop.project)
    see(shop, "v1")
    write_tables(shop.root, interactions=130)
    stages.run(shop.project, materialize=True)
    see(shop, "v1")
    see(shop, "v0", pinned(VECTORS, "v0"))
    folders = (shop.data, shop.data / "spaces" / "v1")
    assert [_widths(folder) for folder in folders] == [{32}, {16}]
    assert [one.encoder for one in stages.spaces(shop.project).spaces] == ["hash-32", "hash-16"]


def _widths(folder: Path) -> set[int]:
    """Floats of the texts' vectors, of all times."""
    rows = pq.read_table(folder / "user_representation", partitioning=None)
    assert pc.max(rows["event_timestamp"]).as_py() > T0 + timedelta(hours=129)
    return {len(one) for one in rows["history"].to_pylist() if one is not None}


@pytest.mark.filterwarnings("ignore:reki_feast.store:FutureWarning")
def test_a_project_of_the_version_before_goes_on(tmp_path: Path) -> None:
    """It has no spaces.json; its rows have the views' own names, online in another layout."""
    shop = SpaceShop(unpacked("times", tmp_path).root, 0, 0)
    yaml = shop.repo / "feature_store.yaml"
    yaml.write_text(
        yaml.read_text().replace(
            "  path: data/registry.db\n",
            "  path: data/registry.db\n  enable_online_feature_view_versioning: true\n",
        )
    )
    refs = ["reki:user_aug", "reki_item:item_aug"]
    try:
        before = online(shop.store(), refs)
        assert versions(shop, before) == {"v0"}
        stages.run(reseed(shop.root, 9), retrain=True, materialize=True)
        assert online(shop.store(), refs) == before
        stages.promote(shop.project)
        assert versions(shop, online(shop.store(), refs)) == {"v1"}
        assert stale(online(shop.store(), refs), newest(shop.project, "v1")) == []
        assert online(shop.store(), pinned(refs, "v0")) == before
        stages.rollback(shop.project)
        assert online(shop.store(), refs) == before
        stages.promote(shop.project, "v1")
        assert stages.retire(shop.project, "v0").online > 0
        assert versions(shop, joined(shop.store(), refs)) == {"v1"}
        assert living(shop) == ["v1"]
    finally:
        with suppress(StoreError):
            embedded.stop(shop.root / "data" / "redis")
