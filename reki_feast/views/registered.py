"""The feature views of a scenario as a Feast repo has them registered."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from feast import FeatureStore, FeatureView

from reki_feast.stores.defaults import SCENARIO_TAG
from reki_feast.stores.exceptions import map_store_errors
from reki_feast.stores.spaces import space_of


@dataclass(frozen=True)
class RegisteredView:
    """A feature view that reads a scenario's table.

    Attributes:
        name: of the view.
        table: that its source reads.
        space: that it is in; empty where it has no such tag.
        features: their names.
        ttl: rows that are older are not served; None: all are.
        until: up to when rows were materialized; None before the first time.
    """

    name: str
    table: str
    space: str
    features: tuple[str, ...]
    ttl: timedelta | None
    until: datetime | None


def registered_views(repo: Path, scenario: str) -> list[RegisteredView]:
    """A scenario's feature views, by name.

    Args:
        repo: the folder of feature_store.yaml, applied.
        scenario: whose views.

    Raises:
        StoreError: Feast cannot open the repo.
    """
    with map_store_errors("Feast opens the repo", f"cd {repo} && feast apply"):
        views = FeatureStore(repo_path=str(repo)).list_feature_views()
    found = [_registered(view) for view in views if view.tags.get(SCENARIO_TAG) == scenario]
    return sorted(found, key=lambda one: one.name)


def _registered(view: FeatureView) -> RegisteredView:
    space = space_of(view)
    ends = [end for _, end in view.materialization_intervals]
    until = max(ends, default=None)
    if until is not None and until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    return RegisteredView(
        name=view.name,
        table=Path(getattr(view.batch_source, "path", "")).name,
        space="" if space is None else space.name,
        features=tuple(one.name for one in view.features),
        ttl=view.ttl or None,
        until=until,
    )
