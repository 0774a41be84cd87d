"""`reki diff` and `reki status --check`: what changed, and what is stale."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from reki_feast import Project, stages
from reki_feast.cli import app
from reki_feast.errors import DeclarationError
from reki_feast.project import DeclaredProject, open_project
from reki_feast.schema import MEMBERS
from reki_feast.tables.parts import newest
from reki_feast.views.spaces import read_spaces
from tests.stages.conftest import make_shop, reseed, write_tables
from tests.stages.test_explain import USER, without
from tests.stages.test_online_rows import client_of

pytestmark = [
    pytest.mark.filterwarnings("ignore:On demand feature view is an exp:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning:ibis.backends.duckdb"),
]
EARLY, LATE = datetime(2026, 1, 14, tzinfo=UTC), datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def copy(materialized: DeclaredProject, tmp_path: Path) -> DeclaredProject:
    """A copy of the shop's files, whose online store is not running."""
    root = tmp_path / "shop"
    shutil.copytree(materialized.root, root, ignore=shutil.ignore_patterns("redis"))
    return open_project(root)


# --- reki diff --------------------------------------------------------------------------------


def vectors(shop: DeclaredProject, time: datetime) -> dict[str, Any]:
    """Users' vectors as of a time, read by hand."""
    parts = [pq.read_table(path, partitioning=None) for path in shop.lake.parts("user_aug")]
    rows = pa.concat_tables(parts).filter(pc.field("event_timestamp") <= pa.scalar(time))
    last = newest(rows, ["customer_id"])
    pairs = zip(last["customer_id"].to_pylist(), last["user_aug"].to_pylist(), strict=True)
    return {one: np.array(vector, np.float32) for one, vector in pairs}


def test_drift_and_counts_are_those_of_the_tables(materialized: DeclaredProject) -> None:
    found = Project(materialized.root).diff(EARLY, LATE, limit=1000)
    users = found.rows[0]
    old, new = vectors(materialized, EARLY), vectors(materialized, LATE)
    assert (users.before, users.after, users.new) == (len(old), len(new), len(new.keys() - old))
    others = {one for one in old if not np.array_equal(old[one], new[one])}
    changed = [one for one in found.changed if one.kind == "user"]
    assert others <= {one.id for one in changed}
    assert users.changed == len(changed) > 0
    for one in changed:
        left, right = old[one.id], new[one.id]
        cosine = left @ right / np.linalg.norm(left) / np.linalg.norm(right)
        assert one.drift == pytest.approx(max(0, 1 - cosine), abs=2e-4)
    drifts = [one.drift for one in found.changed]
    assert drifts == sorted(drifts, reverse=True)
    assert {reason for one in changed for reason in one.by} == {"history"}


@pytest.mark.parametrize(
    ("column", "expected"), [("wording", "prompt"), ("factors", "factors"), ("seen", "history")]
)
def test_what_a_prompt_was_made_of_is_the_reason(
    copy: DeclaredProject, column: str, expected: str
) -> None:
    def same(rows: pa.Table) -> pa.Table:
        """Everything but one column is as it was asked before."""
        for name in ("wording", "factors", "seen"):
            if name == column:
                continue
            at, value = rows.column_names.index(name), pa.scalar(1 if name == "seen" else "x")
            made = pa.repeat(value, rows.num_rows)
            rows = rows.set_column(at, rows.schema.field(at), made)
        return rows

    if column == "wording":

        def other(rows: pa.Table) -> pa.Table:
            at = rows.column_names.index("wording")
            texts = pc.cast(rows["event_timestamp"], pa.string())
            return same(rows).set_column(at, rows.schema.field(at), texts)

    elif column == "factors":

        def other(rows: pa.Table) -> pa.Table:
            at = rows.column_names.index("factors")
            texts = pc.cast(rows["event_timestamp"], pa.string())
            return same(rows).set_column(at, rows.schema.field(at), texts)

    else:
        other = same
    copy.lake.rewrite("asked", other)
    found = stages.diff(copy, EARLY, LATE)
    assert {one.by for one in found.changed if one.kind == "user"} == {(expected,)}


def test_another_model_is_the_reason(copy: DeclaredProject) -> None:
    def other(rows: pa.Table) -> pa.Table:
        at = rows.column_names.index("model")
        texts = pc.cast(rows["event_timestamp"], pa.string())
        return rows.set_column(at, rows.schema.field(at), texts)

    copy.lake.rewrite("knowledge", other)
    found = stages.diff(copy, EARLY, LATE)
    assert all("model" in one.by for one in found.changed if one.kind == "user")


def test_a_moved_group_is_told(copy: DeclaredProject) -> None:
    times = [datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)]
    rows = [
        {"kind": "user", "channel": "knowledge", "owner": USER, "group": f"g-{n}"}
        | {"event_timestamp": time, "created_timestamp": time}
        for n, time in enumerate(times)
    ]
    copy.lake.append("members", pa.Table.from_pylist(rows, MEMBERS))
    copy.lake.rewrite(
        "knowledge", lambda rows: rows.filter(pc.invert(pc.equal(rows["owner"], USER)))
    )
    [one] = [one for one in stages.diff(copy, EARLY, LATE).changed if one.id == USER]
    assert (one.by, one.group, one.then) == (("group",), "g-0", "g-1")


def test_times_that_have_no_snapshot_between_them(
    copy: DeclaredProject, capsys: pytest.CaptureFixture[str]
) -> None:
    found = stages.diff(copy, LATE, LATE + timedelta(days=1))
    assert [one.changed + one.new for one in found.rows] == [0, 0]
    assert any("no snapshot was made between" in note for note in found.notes)
    before = stages.diff(copy, EARLY - timedelta(days=3000), LATE)
    assert all(one.new == one.after for one in before.rows)
    assert any("nothing was made as of the first time" in note for note in before.notes)
    with pytest.raises(DeclarationError, match="the first snapshot is before the second"):
        stages.diff(copy, LATE, EARLY)
    words = ["diff", "2026-01-14", "2026-03-01", "--limit", "2", "--project", str(copy.root)]
    assert app.main(words) == app.DONE
    assert "more changed rows; --limit" in capsys.readouterr().out


# --- reki status --check ----------------------------------------------------------------------


def grown(shop: DeclaredProject) -> None:
    write_tables(shop.root, interactions=700)


def half_asked(shop: DeclaredProject) -> None:
    with closing(sqlite3.connect(shop.data / "ledger.sqlite")) as ledger, ledger:
        ledger.execute("UPDATE prompts SET state = 'failed' WHERE owner = ?", (USER,))


def trained(shop: DeclaredProject) -> None:
    said = shop.lake.read_json("hein") or {}
    shop.lake.write_json("hein", {**said, "hash": "another"})


def damaged(shop: DeclaredProject) -> None:
    next((shop.data / "user_aug").iterdir()).write_bytes(b"")


def no_source(shop: DeclaredProject) -> None:
    (shop.root / "items.parquet").unlink()


def redeclared(shop: DeclaredProject) -> None:
    path = shop.root / "generators" / "shop.py"
    path.write_text(
        path.read_text().replace('description="{{ title }},', 'description="{{ title }} -')
    )


def old_answers(shop: DeclaredProject) -> None:
    path = shop.root / "generators" / "shop.py"
    text = path.read_text().replace("import LLM,", "import LLM, Freshness,")
    path.write_text(f"{text}freshness = Freshness(max_age_days=30)\n")
    with closing(sqlite3.connect(shop.data / "ledger.sqlite")) as ledger, ledger:
        old = "2026-01-01T00:00:00+00:00"
        ledger.execute("UPDATE prompts SET answered = ? WHERE kind = 'user'", (old,))
    # of one who is gone nothing is asked any more
    users = pq.read_table(shop.root / "users.parquet")
    log = pq.read_table(shop.root / "interactions.parquet")
    for table, name in ((users, "users"), (log, "interactions")):
        kept = table.filter(pc.field("customer_id") != USER)
        pq.write_table(kept, shop.root / f"{name}.parquet")


STALE: list[tuple[Callable[[DeclaredProject], None], str, str, str]] = [
    (grown, "snapshots", "100 interactions came since the last", "reki run"),
    (half_asked, "prompts", "wait for an answer", "reki generate"),
    (without("item_representation", "user_representation"), "representations", "since", "reki run"),
    (without("user_aug"), "user_aug", "none are published", "reki run"),
    (trained, "manifest", "weights were trained since", "reki publish --materialize"),
    (damaged, "files", "whole Parquet file", ""),
    (no_source, "tables", "", "reki doctor"),
    (redeclared, "declarations", "changed since the last `reki run`", "reki run"),
    (old_answers, "answers", "of 28 are older than Freshness(max_age_days=30)", "reki run"),
]


@pytest.mark.parametrize(("change", "what", "found", "mend"), STALE)
def test_what_is_stale_has_its_mend(
    copy: DeclaredProject,
    change: Callable[[DeclaredProject], None],
    what: str,
    found: str,
    mend: str,
) -> None:
    change(copy)
    result = stages.check_status(open_project(copy.root))
    assert what in [one.what for one in result.stale]
    [one] = [one for one in result.stale if one.what == what]
    assert found in one.found
    assert mend in one.mend
    assert result.failed == len(result.stale)


def test_exit_codes_for_cron(copy: DeclaredProject, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["status", "--check", "--project", str(copy.root)]
    assert app.main(words) == app.DONE
    assert "all is up to date" in capsys.readouterr().out
    grown(copy)
    assert app.main(words) == app.FAILED
    said = capsys.readouterr().out
    assert "1 stale" in said
    assert "reki run" in said.split("next")[1]


def test_a_space_that_waits_is_no_fault(copy: DeclaredProject) -> None:
    found = read_spaces(copy.data)
    spaces, space = found.begun(found.in_service, LATE)
    shutil.copytree(
        copy.data,
        copy.data / space.folder("hein"),
        ignore=lambda folder, names: [
            name for name in names if not name.endswith((".json", ".safetensors"))
        ],
    )
    copy.lake.write_json("spaces", spaces.to_json())
    result = stages.check_status(open_project(copy.root))
    assert (result.stale, result.failed) == ([], 0)
    assert result.notes == ["space v1 is staged: `reki promote v1`"]


def test_rows_online_that_lack_are_stale(materialized: DeclaredProject) -> None:
    assert stages.check_status(materialized).stale == []
    with client_of(materialized) as client:
        kept = {key: client.dump(key) for key in client.scan_iter()}
        client.flushdb()
        found = stages.check_status(materialized)
        for key, raw in kept.items():
            client.restore(key, 0, raw)
    assert {one.what for one in found.stale} >= {"view reki", "view reki_item"}
    assert found.next == ["reki publish --materialize"]


def test_a_project_that_never_ran_is_stale(tmp_path: Path) -> None:
    found = stages.check_status(make_shop(tmp_path / "shop"))
    assert [(one.what, one.mend) for one in found.stale] == [("snapshots", "reki run")]


def test_a_run_mends_what_is_stale(copy: DeclaredProject) -> None:
    grown(copy)
    shop = reseed(copy.root, 0)
    stages.run(shop)
    assert stages.check_status(open_project(copy.root)).stale == []
