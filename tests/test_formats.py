"""Stored projects of the version before are read, served and gone on with; see docs/formats.md."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module, reload
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.numpy as safetensors

from reki_feast import Project, files, stages
from reki_feast.clustering.embeddings import restore
from reki_feast.errors import CondenseError, LakeError, LLMError, StoreError
from reki_feast.models.click.din import Din
from reki_feast.models.hein import restore_backbones, stored_backbones
from reki_feast.models.inputs import InputSpec
from reki_feast.models.trained_backbone import TrainedBackbone
from reki_feast.project import open_project
from reki_feast.stages.stored_hein import StoredHein
from reki_feast.stores import embedded
from reki_feast.views.manifest import read_manifest
from reki_feast.views.spaces import read_spaces
from tests.formats.make import ALL, MORE, PROJECTS, feast_rows, reki, told, write_log

BEFORE = Path(__file__).parent / "formats" / "v0.1"


@dataclass(frozen=True)
class Stored:
    """A project as it was stored, and what the version that wrote it gave to readers."""

    name: str
    root: Path
    expected: dict[str, Any]

    @property
    def repo(self) -> Path:
        return self.root / "feature_repo"

    @property
    def data(self) -> Path:
        return self.root / "data" / "shop"

    def digests(self) -> dict[str, bytes]:
        """What tables and weights hold, by path."""
        paths = [one for end in ("parquet", "safetensors") for one in self.data.rglob(f"*.{end}")]
        return {str(one.relative_to(self.data)): one.read_bytes() for one in paths}


def arrays(raw: bytes) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """What a file of arrays holds, but for what is said of them."""
    found = safetensors.load(raw)
    return {key: (str(one.dtype), one.shape, one.tobytes()) for key, one in found.items()}


def unpacked(name: str, folder: Path) -> Stored:
    root = folder / "my shop"
    with zipfile.ZipFile(BEFORE / f"{name}.zip") as packed:
        packed.extractall(root)
    return Stored(name, root, json.loads((root / "expected.json").read_text("utf-8")))


@pytest.fixture(params=PROJECTS)
def stored(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stored]:
    found = unpacked(request.param, tmp_path)
    yield found
    embedded.stop(found.root / "data" / "redis")


in_times = pytest.mark.parametrize("stored", ["times"], indirect=True)


def same(found: Any, expected: Any) -> None:
    """Columns are equal; scores, which are computed as they are read, to the last bits."""
    plain = json.loads(json.dumps(found, default=str))
    assert plain.keys() == expected.keys()
    for name, column in expected.items():
        wanted = pytest.approx(column, abs=1e-5) if "score" in name else column
        assert plain[name] == wanted, name


def test_rows_are_joined_and_served_before_anything_is_applied_anew(stored: Stored) -> None:
    """The registry, the tables, and the rows online of either layout."""
    found = feast_rows(stored.repo)
    same(found["joined"], stored.expected["read"]["joined"])
    same(found["online"], stored.expected["read"]["online"])


def test_a_run_makes_nothing_anew(stored: Stored) -> None:
    before = stored.digests()
    tables = reki(stored.root, "run", "--materialize")["tables"]
    assert [row["asked"] for row in tables["calls"]] == [0]
    assert {row["added"] for row in tables["tables"]} == {0}
    made = {path: digest for path, digest in stored.digests().items() if "inputs/" not in path}
    groups = {path for path in made if path.startswith("clusters/")}  # now of a later time
    assert all(arrays(made[path]) == arrays(before[path]) for path in groups)
    # what later runs compare with is new
    assert {path: raw for path, raw in made.items() if path not in groups} == {
        path: raw for path, raw in before.items() if path not in groups
    }
    found = feast_rows(stored.repo)
    same(found["joined"], stored.expected["read"]["joined"])
    same(found["online"], stored.expected["read"]["online"])


def test_stored_weights_make_the_same_rows(stored: Stored) -> None:
    """HEIN, of blocks or of folds, and scores; group embeddings are not needed for it."""
    tables = {path.name for end in ("aug", "match") for path in stored.data.glob(f"*_{end}")}
    before = {name: rows_of(stored, name) for name in tables}
    for name in tables:
        shutil.rmtree(stored.data / name)
    Project(stored.root).publish()
    assert len(tables) == {"times": 4, "folds": 2}[stored.name]
    for name, rows in before.items():
        again = rows_of(stored, name)
        assert again.keys() == rows.keys()
        assert all(again[key] == pytest.approx(rows[key], abs=1e-5) for key in rows), name


def rows_of(stored: Stored, table: str) -> dict[tuple[str, ...], list[float]]:
    """The floats of each row, by id and time."""
    found: dict[tuple[str, ...], list[float]] = {}
    for path in sorted((stored.data / table).iterdir()):
        for row in pq.read_table(path).to_pylist():
            key, *_ = row.values()
            vectors: list[float] = [
                number for value in row.values() if isinstance(value, list) for number in value
            ]
            found[key, str(row["event_timestamp"])] = vectors
    return found


def test_what_commands_say_is_the_same(stored: Stored) -> None:
    """The ledger's calls, the groups with their trees; and no file is damaged."""
    found = json.loads(json.dumps(told(stored.root, stored.name), default=str))
    assert found == {name: stored.expected[name] for name in found}
    assert Project(stored.root).check_ledger().failed == 0
    assert Project(stored.root).status().problems == []


@in_times
def test_states_are_pushed_on(stored: Stored) -> None:
    reki(stored.root, "push", str(stored.root / "clicks.parquet"))
    same(feast_rows(stored.repo)["online"], stored.expected["pushed"])


@in_times
def test_new_interactions_make_the_rows_that_the_version_before_made(stored: Stored) -> None:
    """Stored embeddings are gone on from, trees take new points, weights are kept."""
    write_log(stored.root, ALL + MORE, in_time=True)
    tables = reki(stored.root, "run")["tables"]
    assert sum(row["added"] for row in tables["tables"]) > 0
    same(feast_rows(stored.repo)["joined"], stored.expected["went_on"])


@in_times
def test_the_way_into_a_group_is_told(stored: Stored) -> None:
    user = "c'1"
    found = stages.groups(open_project(stored.root), of=user).plain()["tables"]
    assert f"path of user {user} through users, liked" in found


def test_weights_without_a_recommender_are_retrained_compatibly(stored: Stored) -> None:
    """The version before stored none; blocks and folds are as they were."""
    before = open_project(stored.root).lake
    assert before.backbones() is None
    Project(stored.root).encode(retrain=True)
    Project(stored.root).train(retrain=True, compatible=True)
    after = before.in_space(read_spaces(stored.data).spaces[-1])
    mine, others = before.read_json("hein") or {}, after.read_json("hein") or {}
    assert others["compatible_with"] == mine["hash"]
    assert others["settings"]["folds"] == mine["settings"]["folds"]
    assert len(others["blocks"]) == len(mine["blocks"])
    assert after.backbones() is not None


@in_times
def test_a_table_of_the_first_version_has_no_checksums(stored: Stored) -> None:
    """Parts that another writer of Parquet made are read, too."""
    part = next((stored.data / "user_aug").iterdir())
    table = pq.read_table(part)
    pq.write_table(table, part)
    assert Project(stored.root).status().problems == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("duckdb_offline", "reki_feast.stores.duckdb_offline"),
        ("redis_online", "reki_feast.stores.redis_online"),
        ("engine", "reki_feast.stores.engine"),
        ("registry", "reki_feast.stores.registry"),
        ("tensors", "reki_feast.stores.serving"),
        ("training", "reki_feast.stores.training"),
    ],
)
@pytest.mark.filterwarnings("ignore:reki_feast.store:FutureWarning")
def test_a_module_of_0_1_says_where_it_is_now(old: str, new: str) -> None:
    module = import_module(f"reki_feast.store.{old}")
    with pytest.warns(FutureWarning, match=rf"reki_feast\.store\.{old} is now {re.escape(new)}"):
        reload(module)
    assert all(getattr(module, one) is getattr(import_module(new), one) for one in module.__all__)


@pytest.mark.parametrize(
    ("name", "new"),
    [
        ("reki_views", "reki_feast.views.reki_views"),
        ("reki_match", "reki_feast.views.reki_match"),
        ("TensorReader", "reki_feast.stores.TensorReader"),
        ("default_tag", "reki_feast.stores.default_tag"),
    ],
)
def test_a_name_of_0_1_says_where_it_is_now(name: str, new: str) -> None:
    package, _, last = new.rpartition(".")
    with pytest.warns(FutureWarning, match=rf"reki_feast\.store\.{name} is now {re.escape(new)}"):
        found = getattr(import_module("reki_feast.store"), name)
    assert found is getattr(import_module(package), last)


# --- what is of a later version, or of none, is refused -------------------------------------------


def edit_json(path: Path, **changes: Any) -> None:
    """Change an object as by hand: without its checksum."""
    value = json.loads(path.read_text("utf-8")) | changes
    value.pop("checksum", None)
    path.write_text(json.dumps(value), "utf-8")


def edit_arrays(path: Path, *keys: str, value: Any) -> None:
    """Change what a file of arrays says of them, its checksum made anew."""
    tensors, about = files.read_tensors(path)
    inner = about
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    files.write_tensors(path, tensors, about)


@in_times
@pytest.mark.parametrize("name", ["snapshots", "made", "encoder", "hein", "manifest"])
def test_an_object_of_another_version(stored: Stored, name: str) -> None:
    edit_json(stored.data / f"{name}.json", version=99)
    with pytest.raises(LakeError, match=rf"of version 1\n(.|\n)*{name}\.json(.|\n)*run `reki"):
        open_project(stored.root).lake.read_json(name)


@in_times
def test_a_manifest_of_another_version_is_refused_by_the_views(stored: Stored) -> None:
    edit_json(stored.data / "manifest.json", version=99)
    with pytest.raises(StoreError, match=r"version 99 instead of 1\n  hint:   run `reki publish`"):
        read_manifest(stored.data)


def test_a_recommender_of_another_format(stored: Stored) -> None:
    made = StoredHein.of(open_project(stored.root)).blocks[-1].hein
    model = Din(InputSpec(items=2, extra_sizes=(made.q, made.q)))
    sizes = (made.q, made.q)
    trained = TrainedBackbone(model, pa.array(["a", "b"]), (), sizes)
    named, said = stored_backbones([trained])
    lake = open_project(stored.root).lake
    lake.write_backbones(named, [{**said[0], "format": 99}])
    with pytest.raises(CondenseError, match=r"format 99 instead of 1\n(.|\n)*--retrain"):
        restore_backbones(*(lake.backbones() or ({}, [])))
    assert StoredHein.of(open_project(stored.root)).blocks  # vectors are made without it


def test_weights_of_another_format(stored: Stored) -> None:
    edit_json(stored.data / "hein.json", format=99)
    hein = StoredHein.of(open_project(stored.root))
    with pytest.raises(CondenseError, match=r"format 99 instead of 2\n(.|\n)*train --retrain"):
        assert hein.blocks


@in_times
def test_weights_that_the_manifest_does_not_name(stored: Stored) -> None:
    weights = next(stored.data.glob("hein-*.safetensors"))
    arrays = safetensors.load(weights.read_bytes())
    weights.write_bytes(safetensors.save({name: array + 1 for name, array in arrays.items()}))
    with pytest.raises(LakeError, match=r"belong together\n(.|\n)*reki train --retrain"):
        Project(stored.root).publish()


@in_times
def test_scores_without_their_settings(stored: Stored) -> None:
    edit_arrays(stored.data / "match.safetensors", "cuts", value=None)
    with pytest.raises(CondenseError, match=r"scores are those of this version\n(.|\n)*--retrain"):
        Project(stored.root).publish()


@in_times
def test_groups_of_another_version(stored: Stored) -> None:
    edit_arrays(stored.data / "clusters" / "user_liked.safetensors", "tree", "format", value=99)
    with pytest.raises(
        LakeError, match=r"stored by this version\n(.|\n)*move (.|\n)*clusters away"
    ):
        Project(stored.root).groups(of="c'1")


@in_times
def test_an_embedder_of_another_version(stored: Stored) -> None:
    edit_arrays(stored.data / "clusters" / "embedder.safetensors", "version", value=99)
    with pytest.raises(CondenseError, match=r"version 99 instead of 3\n(.|\n)*again"):
        restore(*files.read_tensors(stored.data / "clusters" / "embedder.safetensors"))


@in_times
def test_a_ledger_of_a_later_version(stored: Stored) -> None:
    with sqlite3.connect(stored.data / "ledger.sqlite") as later:
        later.execute("PRAGMA user_version = 99")
    later.close()
    with pytest.raises(LLMError, match=r"at most \d\n(.|\n)*pip install -U reki-feast"):
        Project(stored.root).ledger()


@in_times
def test_a_table_that_is_damaged(stored: Stored) -> None:
    part = next((stored.data / "user_aug").iterdir())
    raw = bytearray(part.read_bytes())
    raw[20] ^= 255
    part.write_bytes(bytes(raw))
    with pytest.raises(LakeError, match=r"checksum of its (.|\n)*move it away and run `reki run`"):
        Project(stored.root).publish()
