"""A run that changes nothing: each source is queried once, each stored column read at most once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from reki_feast import schema, stages
from reki_feast.errors import LakeError
from reki_feast.project import DeclaredProject, open_project
from reki_feast.stages.context import StageContext
from reki_feast.stages.snapshots import times
from reki_feast.stages.up_to_date import UP_TO_DATE
from reki_feast.tables import parquet
from tests.encoding.static_model import static_model
from tests.stages.conftest import make_shop, write_tables

SOURCES = """
import pyarrow.parquet as pq

def counted(name):
    with open(name + ".calls", "a") as file:
        file.write("called\\n")
    return pq.read_table(name + ".parquet")

def items(): return counted("items")
def users(): return counted("users")
def interactions(): return counted("interactions")

sources = Sources(items=items, users=users, interactions=interactions)
"""
Read = tuple[str, str]


def with_counted_sources(text: str) -> str:
    start, end = text.index("sources = Sources("), text.index("llm = ")
    return text[:start] + SOURCES + text[end:]


def calls(root: Path) -> dict[str, int]:
    """How often each source was queried since, and forget it."""
    found = {}
    for path in sorted(root.glob("*.calls")):
        found[path.stem] = len(path.read_text().splitlines())
        path.unlink()
    return found


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[Read]:
    """Counts how often each column of each stored part is read."""
    found: Counter[Read] = Counter()
    read_columns, read_table = parquet.read_columns, parquet.read_table

    def some(path: Path, names: Sequence[str], hint: str) -> pa.Table:
        table = read_columns(path, names, hint)
        found.update((path.parent.name + "/" + path.name, name) for name in table.column_names)
        return table

    def whole(path: Path, hint: str) -> pa.Table:
        table = read_table(path, hint)
        found.update((path.parent.name + "/" + path.name, name) for name in table.column_names)
        return table

    monkeypatch.setattr(parquet, "read_columns", some)
    monkeypatch.setattr(parquet, "read_table", whole)
    return found


EDITS = {
    "each user and item": lambda text: text,
    "with tastes": lambda text: text.replace('model="hash"', 'model="hash", taste=True'),
    "with groups": lambda text: text.replace("Individual", "Collective"),
}


@pytest.mark.parametrize("edit", EDITS)
def test_a_second_run_reads_everything_once(
    tmp_path: Path, edit: str, reads: Counter[Read]
) -> None:
    shop = make_shop(tmp_path, lambda text: with_counted_sources(EDITS[edit](text)))
    assert stages.run(shop).failed == 0
    stages.run(shop)  # groups that were formed on the way are read by the next run
    stored = sorted(shop.data.rglob("*.parquet"))
    calls(tmp_path)
    (shop.data / f"{UP_TO_DATE}.json").unlink()
    reads.clear()
    stages.run(shop)
    assert sorted(shop.data.rglob("*.parquet")) == stored
    assert calls(tmp_path) == {"items": 1, "users": 1, "interactions": 1}
    assert {one: count for one, count in reads.items() if count > 1} == {}
    assert {column for _, column in reads} >= {"hash", "event_timestamp", "text"}
    vectors = {path.split("/")[0] for path, column in reads if column in VECTORS}
    assert vectors <= {"item_representation", *(["vectors"] if edit == "with tastes" else [])}


@pytest.mark.parametrize("edit", EDITS)
def test_the_next_run_reads_no_rows(tmp_path: Path, edit: str, reads: Counter[Read]) -> None:
    shop = make_shop(tmp_path, lambda text: with_counted_sources(EDITS[edit](text)))
    for _ in range(3):
        stages.run(shop)
    calls(tmp_path)
    reads.clear()
    stages.run(shop)
    assert calls(tmp_path) == {"items": 1, "users": 1, "interactions": 1}
    assert {column for _, column in reads} <= {"kind", "channel"}, "are channels there still?"
    assert set(reads.values()) <= {1}


VECTORS = {*schema.USER_CHANNELS, *schema.ITEM_CHANNELS, "vector", "user_aug", "item_aug"}


def test_times_read_one_column(tmp_path: Path, reads: Counter[Read]) -> None:
    shop = make_shop(tmp_path)
    stages.run(shop)
    reads.clear()
    assert len(times(shop, "user_representation", "item_representation")) > 1
    assert {column for _, column in reads} == {"event_timestamp"}
    assert set(reads.values()) == {1}


def test_a_command_sees_what_it_adds(tmp_path: Path, reads: Counter[Read]) -> None:
    shop = make_shop(tmp_path)
    context = StageContext.of(shop)
    assert StageContext.of(context) is context
    assert times(context, "members") == []
    row = {
        "kind": "user",
        "channel": "liked",
        "owner": "c",
        "group": "liked-1",
        "event_timestamp": datetime(2026, 1, 1, tzinfo=UTC),
        "created_timestamp": datetime(2026, 1, 1, tzinfo=UTC),
    }
    for day in (2, 3):
        row["event_timestamp"] = datetime(2026, 1, day, tzinfo=UTC)
        context.lake.append("members", pa.Table.from_pylist([row], schema=schema.MEMBERS))
        assert [time.day for time in times(context, "members")] == [*range(2, day + 1)]
    assert set(reads.values()) == {1}


def with_model(root: Path) -> DeclaredProject:
    folder = static_model(root / "model")
    make_shop(root, lambda text: text.replace('"hash"', repr(str(folder))))
    return open_project(root)


def test_the_encoder_is_loaded_for_new_texts_alone(tmp_path: Path) -> None:
    shop = with_model(tmp_path)
    first = stages.run(shop)
    [weights] = (tmp_path / "model").rglob("model.safetensors")
    kept = weights.read_bytes()
    weights.unlink()
    again = stages.encode(shop)
    assert first.encode is not None
    assert (again.texts, again.encoder) == (0, first.encode.encoder)
    write_tables(tmp_path, interactions=700)
    weights.write_bytes(kept)
    assert stages.encode(shop).texts > 0


def test_a_remembered_name_is_checked_when_the_model_is_loaded(tmp_path: Path) -> None:
    shop = with_model(tmp_path)
    stages.encode(shop)
    stored = shop.lake.read_json("encoder") or {}
    shop.lake.write_json("encoder", {"name": "another", "declared": stored["declared"]})
    write_tables(tmp_path, interactions=700)
    with pytest.raises(LakeError, match="(?s)made by one encoder.*another made the stored ones"):
        stages.encode(shop)
