"""Groups over a project's life: formed, kept, split, asked about; on disk, with real trees."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from reki_feast import files, schema, stages
from reki_feast.errors import ClusterError, CondenseError, DeclarationError, LakeError, SourceError
from reki_feast.project import DeclaredProject, open_project
from reki_feast.results import Result
from reki_feast.stages import group_state, grouping
from reki_feast.stages.doctor import doctor
from reki_feast.stages.snapshots import groups_of, state
from tests.stages.conftest import T0, Edit, make_shop, write_tables

ITEMS, USERS = 6, 8
LATE = datetime(2026, 6, 1, tzinfo=UTC)


def collective(text: str) -> str:
    """The shop's declarations with groups in place of single entities."""
    text = text.replace('Individual(kind="user")', f'Collective(kind="user", max_users={USERS})')
    text = text.replace('Individual(kind="item")', f'Collective(kind="item", max_items={ITEMS})')
    return text.replace("Encoder, Individual", "Collective, Encoder")


def handed_in(text: str) -> str:
    own = "sources = Sources(embeddings=\"select sku, vector from 'vectors.parquet'\", "
    return collective(text).replace("sources = Sources(", own)


@pytest.fixture
def shop(tmp_path: Path) -> DeclaredProject:
    return make_shop(tmp_path / "my shop", collective)


def again(project: DeclaredProject) -> DeclaredProject:
    return open_project(project.root)


def edited(text: str) -> Callable[[str], str]:
    return lambda _: text


def rows(report: Result, title: str) -> list[dict[str, Any]]:
    table = next(table for table in report.tables if table.title == title)
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


def members(project: DeclaredProject, as_of: datetime | None = None) -> dict[tuple[str, str], str]:
    """The group of each channel and owner."""
    held = state(project, as_of).members.to_pylist()
    return {(row["channel"], row["owner"]): row["group"] for row in held}


def write_vectors(root: Path, count: int = 20, width: int = 4, shift: float = 0.0) -> None:
    draw = np.random.default_rng(0)
    vectors = (draw.standard_normal((count, width)) + shift).tolist()
    table = pa.table({"sku": [f"s-{n}" for n in range(count)], "vector": vectors})
    pq.write_table(table, root / "vectors.parquet")


def test_a_run_with_groups_ends_in_vectors_for_everybody(shop: DeclaredProject) -> None:
    stages.run(shop)
    found = members(shop)
    sizes = Counter(found.values())
    assert {channel for channel, _ in found} == {"knowledge", "liked", "disliked"}
    assert all(size <= ITEMS for group, size in sizes.items() if group.startswith("item-"))
    assert all(size <= USERS for group, size in sizes.items() if not group.startswith("item-"))
    assert {owner for channel, owner in found if channel == "knowledge"} == {
        f"s-{n}" for n in range(20)
    }
    given = schema.augmented(schema.Key("customer_id", pa.string()), "user")
    vectors = shop.lake.read("user_aug", given)
    buyers = pq.read_table(shop.root / "interactions.parquet")["customer_id"].unique()
    assert set(vectors["customer_id"].to_pylist()) == set(buyers.to_pylist())
    spread = np.array(vectors["user_aug"].to_pylist()).std(axis=0)
    assert spread.max() > 0


def test_knowledge_is_stored_once_a_group_and_reaches_members_through_the_table(
    shop: DeclaredProject,
) -> None:
    report = stages.generate(shop)
    knowledge = shop.lake.read("knowledge", schema.KNOWLEDGE)
    assert pc.all(knowledge["grouped"]).as_py()
    asked = rows(report, "calls")[0]["asked"]
    assert knowledge.num_rows == asked == pc.count_distinct(knowledge["prompt_hash"]).as_py()
    assert asked < len(members(shop))
    assert set(knowledge["owner"].to_pylist()) == set(members(shop).values())


def test_item_groups_show_items_of_theirs_and_user_groups_what_most_users_clicked(
    shop: DeclaredProject,
) -> None:
    stages.generate(shop)
    time = max(groups_of(shop)["event_timestamp"].to_pylist())
    found = members(shop, time)
    log = pq.read_table(shop.root / "interactions.parquet").to_pylist()
    for row in groups_of(shop, time).to_pylist():
        if row["kind"] == "item":
            assert all(found["knowledge", item] == row["group"] for item in row["shown"])
    first = min(groups_of(shop)["event_timestamp"].to_pylist())
    stored = shop.lake.read("groups", schema.GROUPS).to_pylist()
    liked = next(r for r in stored if r["channel"] == "liked" and r["event_timestamp"] == first)
    slot = ("liked", liked["group"])
    group = {
        who for (channel, who), name in members(shop, first).items() if (channel, name) == slot
    }
    clicks = {
        (row["customer_id"], row["sku"])
        for row in log
        if row["stars"] >= 4 and row["event_timestamp"] < first and row["customer_id"] in group
    }
    counts = Counter(item for _, item in clicks)
    assert liked["shown"] == sorted(counts, key=lambda item: (-counts[item], item))[:15]


def test_a_second_run_asks_and_adds_nothing(shop: DeclaredProject) -> None:
    stages.generate(shop)
    before = {name: shop.lake.parts(name) for name in ("members", "groups", "knowledge")}
    report = stages.generate(again(shop))
    assert rows(report, "calls")[0]["asked"] == 0
    assert {row["new"] + row["splits"] + row["changed"] for row in rows(report, "groups")} == {0}
    assert {name: shop.lake.parts(name) for name in before} == before


def test_equal_projects_have_equal_groups(tmp_path: Path) -> None:
    found = []
    for name in ("one", "two"):
        project = make_shop(tmp_path / name, collective)
        stages.form_groups(project)
        shown = groups_of(project).select(["channel", "group", "shown"]).to_pylist()
        found.append((members(project), sorted(shown, key=str)))
    assert found[0] == found[1]


def test_new_rows_go_down_the_tree_and_known_ones_stay(shop: DeclaredProject) -> None:
    stages.generate(shop, as_of=[T0 + timedelta(days=10)])
    before = members(shop)
    vectors = group_state.load(shop, "item", "knowledge")
    write_tables(shop.root, interactions=2000)
    report = stages.generate(again(shop), as_of=[LATE])
    after = members(shop)
    moved = [key for key, group in before.items() if after[key] != group]
    counted = rows(report, "groups")
    assert len(moved) == sum(row["moved"] for row in counted)
    assert len(after) - len(before) == sum(row["new"] for row in counted)
    assert max(Counter(after.values()).values()) <= max(ITEMS, USERS)
    now = group_state.load(shop, "item", "knowledge")
    assert vectors is not None
    assert now is not None
    assert now.placed[: len(vectors.placed)].tobytes() == vectors.placed.tobytes()
    # as of the first snapshot nothing has changed
    assert members(shop, T0 + timedelta(days=10)) == before


def test_an_item_that_is_met_at_last_is_learnt_then_and_placed_anew(shop: DeclaredProject) -> None:
    path = shop.root / "interactions.parquet"
    log = pq.read_table(path)
    late = ["s-4", "s-11"]
    known = log.filter(~pc.field("sku").isin(late))
    pq.write_table(known, path)
    stages.generate(shop, as_of=[T0 + timedelta(days=10)])
    first = group_state.load(shop, "item", "knowledge")
    assert first is not None
    assert sorted(np.array(first.ids)[first.cold]) == sorted(late)
    assert {owner for channel, owner in members(shop) if channel == "knowledge"} >= set(late)
    pq.write_table(log, path)
    report = stages.generate(again(shop), as_of=[LATE])
    told = next(row for row in rows(report, "groups") if row["of"] == "items")
    assert (told["members"], told["new"], told["anew"]) == (20, 0, 2)
    then = group_state.load(shop, "item", "knowledge")
    assert then is not None
    assert len(then.ids) == 22
    assert then.live.sum() == 20
    assert not then.cold[then.live].any()
    for item in late:
        old, new = (np.flatnonzero(np.array(then.ids) == item)).tolist()
        assert (then.live[old], then.point(item)) == (False, new)
        assert (then.placed[old] != then.placed[new]).any()
    assert then.placed[:20].tobytes() == first.placed.tobytes()
    sizes = Counter(
        group for (channel, _), group in members(shop).items() if channel == "knowledge"
    )
    assert max(sizes.values()) <= ITEMS
    path_table = stages.groups(again(shop), of="s-4", kind="item").tables[-1]
    assert path_table.rows[0][1] == 20
    assert rows(stages.generate(again(shop), as_of=[LATE]), "calls")[0]["asked"] == 0


def test_a_run_killed_before_the_state_is_stored_goes_on(
    shop: DeclaredProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def kill(*_: object) -> None:
        raise Killed("killed")

    monkeypatch.setattr(grouping, "save", kill)
    with pytest.raises(Killed, match="killed"):
        stages.form_groups(shop)
    monkeypatch.undo()
    stages.form_groups(again(shop))
    stored = shop.lake.read("members", schema.MEMBERS)
    named = stored.select(["channel", "owner", "event_timestamp"]).to_pylist()
    keys = (tuple(row.values()) for row in named)
    assert max(Counter(keys).values()) == 1
    other = make_shop(shop.root.parent / "other", collective)
    stages.form_groups(other)
    assert members(shop) == members(other)


def test_a_lower_cap_splits_what_is_there(shop: DeclaredProject) -> None:
    stages.form_groups(shop)
    path = shop.declared.path
    path.write_text(path.read_text().replace(f"max_users={USERS}", "max_users=3"))
    report = stages.form_groups(again(shop))
    assert sum(row["splits"] for row in rows(report, "groups")) > 0
    sizes = Counter(group for (channel, _), group in members(shop).items() if channel == "liked")
    assert max(sizes.values()) <= 3


def test_groups_formed_anew_leave_none_behind_that_nobody_is_in(shop: DeclaredProject) -> None:
    stages.generate(shop)
    before = {row["group"] for row in groups_of(shop).to_pylist()}
    shutil.rmtree(shop.data / "clusters")
    path = shop.declared.path
    path.write_text(path.read_text().replace(f"max_items={ITEMS}", "max_items=20"))
    stages.form_groups(again(shop))
    left = before - set(members(shop).values())
    assert left
    path.write_text(path.read_text().replace('"style"]', '"style", "size"]'))
    stages.generate(again(shop))
    told = shop.lake.read("knowledge", schema.KNOWLEDGE).to_pylist()
    asked = {row["owner"] for row in told if any(name == "size" for name, _ in row["factors"])}
    assert asked == set(members(shop).values())


def test_state_of_another_version_is_told_with_the_way_out(shop: DeclaredProject) -> None:
    stages.form_groups(shop)
    path = shop.data / "clusters" / "item_knowledge.safetensors"
    tensors, said = files.read_tensors(path)
    del tensors["cold"]
    files.write_tensors(path, tensors, said)
    with pytest.raises(LakeError, match=r"(?s)stored by this version.*'cold'.*form groups anew"):
        stages.form_groups(again(shop))


def test_an_earlier_time_is_served_by_what_is_stored_or_refused(shop: DeclaredProject) -> None:
    first, last = T0 + timedelta(days=10), LATE
    stages.generate(shop, as_of=[first, last])
    assert rows(stages.generate(shop, as_of=[first]), "calls")[0]["asked"] == 0
    with pytest.raises(ClusterError, match="earlier snapshots are formed before later ones"):
        stages.generate(shop, as_of=[T0 + timedelta(days=5)])


def test_a_group_is_asked_again_only_when_enough_of_its_items_changed(
    shop: DeclaredProject,
) -> None:
    stages.generate(shop, as_of=[T0 + timedelta(days=10)])
    edit = shop.declared.path
    calls = {}
    for refresh in (1.0, 0.0):
        text = edit.read_text()
        text = text.replace(f"max_users={USERS}", f"max_users={USERS}, refresh={refresh}")
        twin = make_shop(shop.root.parent / f"refresh {refresh}", edited(text))
        stages.generate(twin, as_of=[T0 + timedelta(days=10)])
        write_tables(twin.root, interactions=2000)
        report = stages.generate(open_project(twin.root), as_of=[LATE])
        calls[refresh] = [row["changed"] for row in rows(report, "groups") if "users" in row["of"]]
    # 1: only groups that a split made; 0: any new item
    assert sum(calls[1.0]) < sum(calls[0.0])


def test_groups_whose_shown_items_left_the_catalogue_are_shown_by_others(tmp_path: Path) -> None:
    cap = f"max_items={ITEMS}"
    shop = make_shop(
        tmp_path / "shop", lambda text: collective(text).replace(cap, f"{cap}, shown=2")
    )
    stages.generate(shop, as_of=[T0 + timedelta(days=10)])

    def shown(time: datetime) -> dict[str, list[str]]:
        stored = groups_of(shop, time).to_pylist()
        return {row["group"]: row["shown"] for row in stored if row["kind"] == "item"}

    gone = {item for items in shown(LATE).values() for item in items}
    placed = {
        owner: name for (channel, owner), name in members(shop).items() if channel == "knowledge"
    }
    peopled = {name for owner, name in placed.items() if owner not in gone}
    catalogue = pq.read_table(shop.root / "items.parquet")
    left = pc.invert(pc.is_in(catalogue["sku"], value_set=pa.array(gone)))
    pq.write_table(catalogue.filter(left), shop.root / "items.parquet")
    report = stages.generate(again(shop), as_of=[LATE])
    of_items = next(row for row in rows(report, "groups") if row["of"] == "items")
    assert (of_items["members"], of_items["groups"]) == (20 - len(gone), len(peopled))
    for group in peopled:
        assert shown(LATE)[group]
        assert all(placed[item] == group and item not in gone for item in shown(LATE)[group])
    knowledge = state(shop, LATE).knowledge.to_pylist()
    assert peopled <= {row["owner"] for row in knowledge if row["event_timestamp"] == LATE}
    pq.write_table(catalogue, shop.root / "items.parquet")
    stages.generate(again(shop), as_of=[LATE + timedelta(days=1)])
    assert placed.items() <= {owner: name for (_, owner), name in members(shop).items()}.items()


def test_vectors_handed_in_are_grouped_by_and_nothing_is_learnt(tmp_path: Path) -> None:
    project = make_shop(tmp_path / "shop", handed_in)
    write_vectors(project.root)
    report = stages.generate(project)
    held = group_state.load(project, "item", "knowledge")
    assert held is not None
    assert held.placed.shape == (20, 4)
    assert not (project.data / "clusters" / "embedder.safetensors").exists()
    users = group_state.load(project, "user", "liked")
    assert users is not None
    assert users.placed.shape[1] == 4
    assert rows(report, "calls")[0]["failed"] == 0


def test_a_users_vector_is_the_mean_of_liked_items_and_of_the_vector_handed_in(
    tmp_path: Path,
) -> None:
    profiles = "user_embeddings=\"select customer_id, [1.0, 2.0] as vector from 'users.parquet'\", "
    project = make_shop(
        tmp_path / "shop", lambda text: handed_in(text).replace("Sources(", f"Sources({profiles}")
    )
    write_vectors(project.root)
    stages.form_groups(project)
    held = group_state.load(project, "user", "liked")
    assert held is not None
    assert held.placed.shape[1] == 6
    assert held.placed[:, 4:].tolist() == [[1.0, 2.0]] * len(held.ids)
    table = pq.read_table(project.root / "vectors.parquet")
    vectors = dict(zip(table["sku"].to_pylist(), table["vector"].to_pylist(), strict=True))
    as_of = min(project.lake.read("members", schema.MEMBERS)["event_timestamp"].to_pylist())
    log = pq.read_table(project.root / "interactions.parquet").to_pylist()
    who = held.ids[0].as_py()
    mine = [
        row["sku"]
        for row in log
        if row["customer_id"] == who and row["stars"] >= 4 and row["event_timestamp"] < as_of
    ]
    expected = np.mean([vectors[item] for item in mine[-30:]], axis=0)
    np.testing.assert_allclose(held.placed[0, :4], expected, rtol=1e-5)


def test_without_dislikes_there_is_one_channel_of_users(tmp_path: Path) -> None:
    project = make_shop(
        tmp_path / "shop",
        lambda text: handed_in(text).replace('liked="stars >= 4"', 'liked="true"'),
    )
    write_vectors(project.root)
    stages.form_groups(project)
    assert {channel for channel, _ in members(project)} == {"knowledge", "liked"}


def test_vectors_that_moved_are_reported_and_groups_kept(tmp_path: Path) -> None:
    project = make_shop(tmp_path / "shop", handed_in)
    write_vectors(project.root)
    stages.form_groups(project)
    before = members(project)
    table = pq.read_table(project.root / "vectors.parquet")
    turned = [[-x for x in vector] for vector in table["vector"].to_pylist()]
    pq.write_table(
        table.set_column(1, "vector", pa.array(turned)), project.root / "vectors.parquet"
    )
    report = stages.form_groups(again(project))
    drift = {row["of"]: row["drift"] for row in rows(report, "groups")}
    assert drift["items"] == 2.0
    assert drift["users, liked"] > 1
    assert any("vectors moved by 2.00 (cosine)" in note for note in report.notes)
    assert members(project) == before


def test_vectors_of_another_length_are_refused_and_nothing_is_harmed(tmp_path: Path) -> None:
    project = make_shop(tmp_path / "shop", handed_in)
    write_vectors(project.root)
    stages.form_groups(project)
    before = members(project)
    write_vectors(project.root, width=5)
    with pytest.raises(ClusterError, match="5 floats, 4 before"):
        stages.form_groups(again(project))
    write_vectors(project.root)
    stages.form_groups(again(project))
    assert members(project) == before


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("select sku, 1 as v from 'items.parquet'", "embeddings: has a column vector"),
        ("select sku, title as vector from 'items.parquet'", "is a list of numbers"),
        ("select sku, [1.0, 'nan'::double] as vector from 'items.parquet'", "numbers are finite"),
        (
            "select 's-1' as sku, [1.0] as vector from 'items.parquet'",
            "embeddings.sku: each id once",
        ),
        (
            "select sku, case when sku = 's-1' then [1.0] else [1.0, 2.0] end as vector "
            "from 'items.parquet'",
            "all have one length",
        ),
    ],
)
def test_faults_of_vectors_handed_in_are_told(tmp_path: Path, query: str, said: str) -> None:
    own = f'sources = Sources(embeddings="{query}", '
    project = make_shop(
        tmp_path / "shop", lambda text: collective(text).replace("sources = Sources(", own)
    )
    with pytest.raises(SourceError, match=said):
        stages.form_groups(project)
    assert not members(project)


def test_a_vector_holds_from_its_time_on(tmp_path: Path) -> None:
    project = make_shop(tmp_path / "shop", handed_in)
    write_vectors(project.root)
    table = pq.read_table(project.root / "vectors.parquet")
    later = [T0 + timedelta(days=60 if n == 7 else -1) for n in range(20)]
    dated = table.append_column("event_timestamp", pa.array(later))
    pq.write_table(dated, project.root / "vectors.parquet")
    path = project.declared.path
    path.write_text(path.read_text().replace("select sku, vector from", "select * from"))
    stages.generate(again(project), as_of=[T0 + timedelta(days=10)])
    assert ("knowledge", "s-7") not in members(project)
    stages.generate(again(project), as_of=[T0 + timedelta(days=90)])
    assert ("knowledge", "s-7") in members(project)


def test_doctor_says_what_groups_will_be_formed_by(tmp_path: Path) -> None:
    def told(edit: Edit, name: str) -> tuple[str, str]:
        project = make_shop(tmp_path / name, edit)
        write_vectors(project.root)
        table = doctor(project.root).tables[0]
        return next((state, found) for check, state, found in table.rows if check == "groups")

    learnt = told(collective, "learnt")
    assert learnt == (
        "fine",
        "of users and items; user embeddings learnt, with region; "
        "item embeddings learnt, with kind",
    )
    assert told(handed_in, "own")[1].endswith("item vectors handed in: 20 of 4 floats")
    assert told(lambda text: text, "none")[1] == "none: no collective generator is declared"
    wrong = told(lambda text: handed_in(text).replace("select sku, vector", "select sku"), "wrong")
    assert wrong[0] == "wrong"
    broken = told(lambda text: collective(text).replace("items.parquet", "gone.parquet"), "broken")
    assert broken == ("fine", "not checked before the tables are fine")


def test_one_side_may_be_individual(tmp_path: Path) -> None:
    half = 'Collective(kind="user", max_users=8)', 'Individual(kind="user")'
    project = make_shop(
        tmp_path / "shop",
        lambda text: (
            collective(text).replace(*half).replace("Collective,", "Collective, Individual,")
        ),
    )
    stages.generate(project)
    knowledge = project.lake.read("knowledge", schema.KNOWLEDGE).to_pylist()
    assert {(row["kind"], row["grouped"]) for row in knowledge} == {("user", False), ("item", True)}


def test_labels_that_are_all_equal_are_told_with_the_way_out(tmp_path: Path) -> None:
    project = make_shop(
        tmp_path / "shop", lambda text: collective(text).replace('"stars >= 4"', '"true"')
    )
    with pytest.raises(CondenseError, match=r"Sources\(embeddings"):
        stages.form_groups(project)


def test_an_attribute_that_is_not_there_is_told_before_anything_is_learnt(tmp_path: Path) -> None:
    wrong = 'max_items=6, attributes=["colour"]'
    project = make_shop(
        tmp_path / "shop", lambda text: collective(text).replace("max_items=6", wrong)
    )
    with pytest.raises(SourceError, match="no column colour; there are: sku, title, kind"):
        stages.form_groups(project)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ('kind="item", max_users=5', "max_users does not cap groups of items"),
        ('kind="item", refresh=2', "less than or equal to 1"),
        ('kind="item", max_items=0', "greater than or equal to 1"),
        ('kind="film"', "'user' or 'item'"),
    ],
)
def test_faults_of_the_declaration(tmp_path: Path, given: str, said: str) -> None:
    with pytest.raises(DeclarationError, match=said):
        make_shop(
            tmp_path / "shop",
            lambda text: collective(text).replace('kind="item", max_items=6', given),
        )


def test_plan_forms_the_groups_and_says_what_either_way_takes(shop: DeclaredProject) -> None:
    report = stages.plan(shop)
    told = {
        row["a prompt for"]: row["calls"]
        for row in rows(report, "collective instead of individual")
    }
    snapshots = 2
    assert told["each item"] == 20
    assert told["each user"] <= 30 * snapshots
    assert told["groups of items"] == sum(
        row["changed"] for row in rows(report, "groups") if row["of"] == "items"
    )
    assert "calls in place of" in report.notes[-1]
    asked = rows(stages.generate(again(shop)), "calls")[0]["asked"]
    assert asked == told["groups of items"] + told["groups of users"]
