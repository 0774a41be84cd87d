"""The whole way on a small shop: what is stored, what a second run does, what is never harmed."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from reki_feast import schema, stages
from reki_feast.errors import (
    CondenseError,
    DeclarationError,
    EncodeError,
    FactorsError,
    LakeError,
    LLMError,
    SourceError,
)
from reki_feast.project import DeclaredProject, open_project
from reki_feast.results import Result
from reki_feast.stages.snapshots import times
from reki_feast.stages.training_data import training_data
from reki_feast.stores import embedded
from reki_feast.tables.asof import after
from tests.stages.conftest import T0, in_space, make_shop, write_tables

USER, ITEM = schema.Key("customer_id", pa.string()), schema.Key("sku", pa.string())
USER_CHANNELS = ["knowledge", "history"]


def cells(report: Result, table: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = report.plain()["tables"][table]
    return found


def stored(project: DeclaredProject, kind: schema.Kind) -> pa.Table:
    key = USER if kind == "user" else ITEM
    return project.lake.read(f"{kind}_aug", schema.augmented(key, kind))


def files(project: DeclaredProject) -> dict[str, int]:
    paths = (path for path in project.data.rglob("*.parquet"))
    return {str(path): path.stat().st_mtime_ns for path in paths}


@pytest.fixture
def done(shop: DeclaredProject) -> DeclaredProject:
    stages.run(shop)
    return shop


def test_interactions_go_in_and_vectors_come_out(shop: DeclaredProject) -> None:
    report = stages.run(shop)
    assert report.failed == 0
    users, items = stored(shop, "user"), stored(shop, "item")
    assert len(users["customer_id"].unique()) == 29  # the 30th never came
    cuts = (shop.lake.read_json("hein") or {})["blocks"]
    assert len(cuts) == 6
    assert items.num_rows == 20 * len(cuts)  # the weights change at each cut
    manifest = shop.lake.read_json("manifest")
    assert manifest is not None
    assert (manifest["user"]["key"], manifest["user"]["type"]) == ("customer_id", "string")
    assert manifest["user"]["channels"] == ["knowledge", "history"]
    q = manifest["user"]["q"]
    assert q == 64 == len(manifest["user"]["default"])
    for table, name in ((users, "user_aug"), (items, "item_aug")):
        vectors = np.array(table[name].to_pylist())
        assert vectors.shape[1] == q
        assert np.isfinite(vectors).all()


def test_the_first_run_makes_snapshots_at_the_start_of_sixths_and_at_the_end(
    done: DeclaredProject,
) -> None:
    manifest = done.lake.read_json("manifest")
    assert manifest is not None
    hours = [99, 199, 299, 399, 499, 599]  # the median is asked about, and the end
    expected = [T0, *(after(T0 + timedelta(hours=hour)) for hour in hours)]
    assert manifest["snapshots"] == [time.isoformat() for time in expected]
    assert manifest["trained_until"] == expected[-1].isoformat()


def test_snapshots_between_ask_nothing_and_vectors_begin_before_users_are_asked_about(
    done: DeclaredProject,
) -> None:
    median = after(T0 + timedelta(hours=299))
    assert times(done, "knowledge") == [T0, median, after(T0 + timedelta(hours=599))]
    assert training_data(done).time == median
    users = done.lake.read("user_representation", schema.representation(USER, USER_CHANNELS))
    early = users.filter(pc.field("event_timestamp") < median)
    assert early.num_rows > 30
    assert early["knowledge"].null_count == early.num_rows
    assert times(done, "user_aug")[0] < median


def test_a_second_run_writes_nothing(done: DeclaredProject) -> None:
    before = files(done)
    report = stages.run(done)
    assert cells(report, "calls")[0]["asked"] == 0
    assert [row["added"] for row in cells(report, "tables")] == [0] * 8
    assert files(done) == before


def test_new_interactions_add_a_snapshot_of_those_who_had_some(done: DeclaredProject) -> None:
    before = stored(done, "user")
    weights = done.lake.read_json("hein")
    write_tables(done.root, interactions=605)
    report = stages.run(done)
    now = stored(done, "user")
    changed = {row["customer_id"] for row in _log(done).slice(600).to_pylist()}
    added = now.num_rows - before.num_rows
    assert added == len(changed) == cells(report, "calls")[0]["added"]
    assert pc.max(now["event_timestamp"]).as_py() == after(T0 + timedelta(hours=604))
    assert done.lake.read_json("hein") == weights


def _log(project: DeclaredProject) -> pa.Table:
    return pq.read_table(project.root / "interactions.parquet")


def test_retraining_makes_every_snapshot_anew_in_a_space_of_its_own(done: DeclaredProject) -> None:
    before = stored(done, "user")
    path = done.declared.path
    path.write_text(path.read_text().replace("epochs=1", "epochs=1, seed=1"))
    again = open_project(done.root)
    notes = stages.train(again, retrain=True).notes
    assert [note.split(":")[0] for note in notes[:1]] == ["samples"]
    assert notes[1:] == ["weights of a new space, v1; v0 stays in service until `reki promote v1`"]
    stages.publish(again)
    assert stored(again, "user").equals(before)
    new = stored(in_space(again, 1), "user")
    whose = ["customer_id", "event_timestamp"]
    assert new.select(whose).equals(before.select(whose))
    assert new["user_aug"] != before["user_aug"]
    stages.promote(again)
    assert stored(open_project(done.root), "user").equals(new)


OURS = """
offline_store: {type: reki_feast.stores.duckdb_offline.RekiDuckDBOfflineStore}
online_store: {type: reki_feast.stores.redis_online.RekiRedisOnlineStore}
batch_engine: {type: reki_feast.stores.engine.RekiComputeEngine}
"""


@pytest.mark.parametrize(
    ("said", "advised"),
    [
        ("", "feast materialize 1970-01-02T00:00:00 20"),
        ("a: [", "feast materialize 1970-01-02T00:00:00 20"),
        (OURS.replace("batch_engine", "# "), "feast materialize 1970-01-02T00:00:00 20"),
        (OURS, "feast materialize-incremental 20"),
    ],
)
def test_what_is_advised_reaches_snapshots_older_than_the_last_materialization(
    done: DeclaredProject, said: str, advised: str
) -> None:
    done.feature_repo.mkdir()
    (done.feature_repo / "feature_store.yaml").write_text(said)
    for interactions in (605, 610):
        write_tables(done.root, interactions=interactions)
        assert stages.run(done).next[-1].startswith(advised)


def test_what_waits_for_a_training_is_said(done: DeclaredProject) -> None:
    assert len(stages.train(done).notes) == 2
    path = done.declared.path
    path.write_text(path.read_text().replace("Training(", "Training(match=1, components=16, "))
    notes = stages.train(open_project(done.root)).notes
    assert "match_weight: 1.0 is declared, the weights were trained with 0.0" in notes
    assert any(note.startswith("components: 16 is declared") for note in notes)


def test_retraining_mends_weights_that_are_damaged(done: DeclaredProject) -> None:
    (path,) = done.data.glob("hein-*.safetensors")
    path.write_bytes(b"")
    with pytest.raises(LakeError, match="reki train --retrain"):
        stages.publish(done)
    stages.train(done, retrain=True)
    published = stages.publish(done)
    assert {row.table for row in published.published if row.added} == {
        "user_aug@v1",
        "item_aug@v1",
        "user_match@v1",
        "item_match@v1",
    }
    assert "belong together" in published.notes[0]
    stages.promote(done)
    stages.retire(done, "v0")
    assert stages.publish(done).notes == []


def test_user_vectors_out_of_folds(tmp_path: Path) -> None:
    shop = make_shop(
        tmp_path, lambda text: text.replace("Training(", "Training(match=1, folds=2, ")
    )
    stages.run(shop)
    notes = stages.train(shop).notes
    assert "user vectors out of 2 folds of users" in notes
    assert not [note for note in notes if "stays in service" in note]  # the first space is
    assert stages.publish(shop).tables[0].rows
    weights, made = shop.lake.weights() or ({}, {})
    assert {name.split(".")[0] for name in weights} >= {"fold0", "fold1"}
    assert made["settings"]["folds"] == 2


@pytest.mark.parametrize(
    ("said", "message"),
    [("match=1, folds=1", "one fold leaves nobody"), ("folds=2", "match=1 beside them")],
)
def test_folds_that_cannot_be(tmp_path: Path, said: str, message: str) -> None:
    with pytest.raises(DeclarationError, match=message):
        make_shop(tmp_path, lambda text: text.replace("Training(", f"Training({said}, "))


def test_only_a_part_may_be_asked(shop: DeclaredProject) -> None:
    report = stages.generate(shop, limit=3)
    assert cells(report, "calls")[0]["asked"] == 3
    plan = cells(stages.plan(shop), "plan")
    assert plan[-1]["answered"] == 3
    assert plan[-1]["to_ask"] == plan[-1]["prompts"] - 3


def test_a_plan_says_money_only_where_the_price_is_known(tmp_path: Path) -> None:
    def with_model(model: str) -> Any:
        shop = make_shop(
            tmp_path / model, lambda t: t.replace('provider="echo"', f'model="{model}"')
        )
        return cells(stages.plan(shop), "plan")[-1]["money"]

    assert with_model("gpt-4o-mini") > 0
    assert with_model("nobody-knows") is None


def test_bad_input_after_a_good_run_harms_nothing(done: DeclaredProject) -> None:
    before = files(done)
    table = pq.read_table(done.root / "items.parquet")
    pq.write_table(pa.concat_tables([table, table]), done.root / "items.parquet")
    with pytest.raises(SourceError, match=r"items.sku: each id once"):
        stages.run(done)
    (done.root / "items.parquet").unlink()
    with pytest.raises(SourceError, match=r"items: a source is a query.*"):
        stages.run(done)
    assert files(done) == before


def test_unconfirmed_factors_are_refused(tmp_path: Path) -> None:
    shop = make_shop(tmp_path, lambda text: text.replace('factors=["price", "style"],', ""))
    with pytest.raises(FactorsError, match="reki factors"):
        stages.generate(shop)
    shop.factors_path.write_text("confirmed: false\nfactors: [price]\n")
    with pytest.raises(FactorsError, match="confirmed"):
        stages.generate(shop)
    assert stages.generate(shop, allow_unconfirmed=True).failed == 0
    stages.confirm_factors(shop)
    assert stages.generate(shop).failed == 0
    with pytest.raises(FactorsError, match="not overwritten"):
        stages.factors(shop)


def test_another_encoder_waits_for_a_retraining(done: DeclaredProject) -> None:
    before = files(done)
    path = done.declared.path
    path.write_text(path.read_text().replace('model="hash"', 'model="/no/such/model"'))
    write_tables(done.root, interactions=605)
    again = open_project(done.root)
    report = stages.run(again)
    assert report.encode is not None
    assert report.encode.encoder == "hash-32"
    assert (
        "Encoder(model): /no/such/model is declared, the weights were trained with hash"
        in report.notes
    )
    assert before.items() <= files(done).items()
    with pytest.raises(EncodeError, match="/no/such/model"):
        stages.run(again, retrain=True)
    assert (again.lake.read_json("encoder") or {})["name"] == "hash-32"


def test_an_encoder_that_made_nothing_is_not_kept_to(shop: DeclaredProject) -> None:
    path, right = shop.declared.path, 'model="hash"'
    path.write_text(path.read_text().replace(right, 'model="/no/such/model"'))
    stages.generate(open_project(shop.root))
    with pytest.raises(EncodeError, match="/no/such/model"):
        stages.encode(open_project(shop.root))
    path.write_text(path.read_text().replace('model="/no/such/model"', right))
    assert "hash-32" in stages.encode(open_project(shop.root)).title


def test_stages_name_the_one_that_is_missing(shop: DeclaredProject) -> None:
    with pytest.raises(CondenseError, match="reki encode"):
        stages.train(shop)
    with pytest.raises(CondenseError, match="reki train"):
        stages.publish(shop)


def test_a_single_late_snapshot_leaves_nothing_to_learn_from(shop: DeclaredProject) -> None:
    last = [T0 + timedelta(days=90)]
    stages.generate(shop, as_of=last)
    stages.encode(shop, as_of=last)
    with pytest.raises(CondenseError, match=r"(?s)came after a snapshot.*--as-of 2026-01-13"):
        stages.train(shop)


def test_interactions_without_times_use_positions(tmp_path: Path) -> None:
    shop = make_shop(tmp_path, lambda t: t.replace("factors=", 'as_of=["2026-03-01"], factors='))
    table = _log(shop).drop_columns(["event_timestamp"])
    table = table.append_column("position", pa.array(range(table.num_rows)))
    pq.write_table(table, tmp_path / "interactions.parquet")
    assert stages.run(shop).failed == 0
    assert stored(shop, "user")["event_timestamp"].unique().to_pylist() == [T0.replace(month=3)]


def test_without_generators_knowledge_must_be_imported(tmp_path: Path) -> None:
    shop = make_shop(tmp_path, lambda text: text[: text.index("customers =")])
    with pytest.raises(DeclarationError, match="generated or imported"):
        stages.run(shop)


def test_a_damaged_ledger_is_named_and_nothing_is_asked(shop: DeclaredProject) -> None:
    shop.data.mkdir(parents=True)
    (shop.data / "ledger.sqlite").write_text("no database " * 50)
    with pytest.raises(LLMError, match=r"ledger\.sqlite"):
        stages.generate(shop)


def test_status_tells_what_is_stored(done: DeclaredProject) -> None:
    report = stages.status(done)
    rows = {row["table"]: row["rows"] for row in cells(report, "tables")}
    assert rows["item_aug"] == 20 * 6
    prompts, [plan, bill] = cells(report, "prompts")[0], cells(report, "runs")
    assert prompts["answered"] > 0
    assert plan["calls"] == bill["calls"] == prompts["answered"]
    assert (plan["of"], bill["of"], bill["outcome"]) == ("plan", "bill", "done")
    assert cells(report, "running")[1]["state"] == "not running"
    assert "no embedded Redis" in stages.down(done).title


def test_status_and_down_find_the_embedded_redis(shop: DeclaredProject) -> None:
    def state() -> str:
        said: str = cells(stages.status(shop), "running")[1]["state"]
        return said

    try:
        address = embedded.start(shop.redis)
        pid = embedded.status(shop.redis).pid
        assert state().startswith(f"socket {address.path}, pid {pid}, 0 keys, ")
        Path(address.path).unlink()
        assert state() == f"cannot be reached: pid {pid}; run reki down"
    finally:
        assert "is stopped" in stages.down(shop).title
    assert state() == "not running"
