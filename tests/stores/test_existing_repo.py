"""A line a kind of view brings them into a repo that `feast init` made."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from feast import FeatureStore
from feast.cli.cli import cli

from reki_feast.schema import Key
from reki_feast.stores import apply_and_materialize
from tests.stores.conftest import SCORE

pytestmark = pytest.mark.filterwarnings(
    # ibis 12 calls a method that DuckDB 2.0 deprecates.
    "ignore:fetch_arrow_table:DeprecationWarning:ibis.backends.duckdb",
    # Feast's own template declares an entity without a type, and Feast reads it back.
    "ignore:Entity value_type will be mandatory:DeprecationWarning",
    # It also has on-demand views.
    "ignore:On demand feature view is an experimental feature:RuntimeWarning",
)

THEIRS = """
from feast import Entity, ValueType
customer = Entity(name="customer", join_keys=["customer_id"], value_type=ValueType.INT64)
sku = Entity(name="sku", value_type=ValueType.STRING)
"""
OUR_LINES = """
from reki_feast.views import reki_match, reki_views
globals().update(reki_match({data!r}, user=customer, item=sku).by_name())
globals().update(reki_views({data!r}, user=customer, item=sku).by_name())
"""


@pytest.fixture
def initialised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What `feast init shop` lays down, with its own SQLite online store."""
    monkeypatch.chdir(tmp_path)
    cli(["init", "shop"], standalone_mode=False)
    return tmp_path / "shop" / "feature_repo"


def test_our_lines(initialised: Path, make_published: Callable[..., Any]) -> None:
    data = initialised.parent.parent / "films of mine" / "data" / "movies"
    keys = Key("customer_id", pa.int64()), Key("sku", pa.string())
    published = make_published(data, *keys, scored=True)
    theirs = initialised / "shop.py"
    theirs.write_text(THEIRS + OUR_LINES.format(data=f"../../{data.relative_to(data.parents[2])}"))

    end = datetime(2026, 11, 1, tzinfo=UTC)
    counts = {count.view: count for count in apply_and_materialize(initialised, end)}

    ours = {name: (c.source, c.online) for name, c in counts.items() if name.startswith("reki")}
    assert ours["reki"] == ours["reki_user_knowledge"] == (40, 40)
    assert ours["reki_item"] == ours["reki_item_representation"] == (25, 25)
    assert ours["reki_user_match"] == (40, 40)
    assert ours["reki_item_match"] == (25, 25)
    assert len(ours) == 8
    assert counts["driver_hourly_stats"].online == counts["driver_hourly_stats"].source > 0
    store = FeatureStore(repo_path=str(initialised))
    customer = published.ids["user"][2]
    rows = [{"customer_id": customer, "sku": sku} for sku in (published.ids["item"][0], "unknown")]
    refs = ["reki_match:score", "reki:user_aug", "reki_item:item_aug"]
    found = store.get_online_features(refs, rows).to_dict()
    assert found["user_aug"][1] == [1, 2, 0, 0]
    assert found["score"][0] == pytest.approx(SCORE)
    # a stock online store knows no default
    assert found["item_aug"][1] is None
    assert found["score"][1] is None
