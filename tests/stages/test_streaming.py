"""The paper's claims on real data: few calls, and a tree that need not be built again."""

from __future__ import annotations

from pathlib import Path

from reki_feast.project import open_project
from reki_feast.stages.snapshots import groups_of, state
from tests.bench.streaming import batch, planned, stream

PAPER_CALLS = 377


def test_ten_slices_cost_less_than_twice_one_batch(tmp_path: Path, movielens_100k: Path) -> None:
    once = batch(tmp_path / "batch", movielens_100k)
    slices = stream(tmp_path / "stream", movielens_100k)
    told = "\n".join(map(str, slices))
    assert slices[-1].members == once.members  # everybody is in a group, as in one batch
    assert sum(one.calls for one in slices) < 2 * once.calls, told
    # most members of a slice stay where they were
    assert sum(one.moved for one in slices) < 0.1 * sum(one.members for one in slices), told
    project = open_project(tmp_path / "stream")
    sizes = state(project).members.group_by(["channel", "group"]).aggregate([("owner", "count")])
    assert all(
        row["owner_count"] <= (80 if row["channel"] == "knowledge" else 100)
        for row in sizes.to_pylist()
    )
    assert groups_of(project).num_rows == sizes.num_rows


def test_movielens_1m_takes_no_more_calls_than_the_papers(
    tmp_path: Path, movielens_1m: Path
) -> None:
    calls = planned(tmp_path / "million", movielens_1m)
    assert calls["each user"] + calls["each item"] == 9_746
    assert 0 < calls["groups of users"] + calls["groups of items"] <= PAPER_CALLS
