"""One entity in a Feast repo: the rows of its views online, and what a request gets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from feast import FeatureStore, FeatureView
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.type_map import feast_value_type_to_python_type, python_values_to_proto_values

from reki_feast.schema import Kind
from reki_feast.stores._feast import provider_of
from reki_feast.stores.defaults import SCENARIO_TAG
from reki_feast.stores.exceptions import map_store_errors
from reki_feast.stores.spaces import SPACE_TAG, space_of


@dataclass(frozen=True)
class EntityRow:
    """What a feature view has of one entity.

    Attributes:
        view: its name.
        table: name of the table that its source reads.
        space: that the view is in; empty where it has no such tag.
        time: of the row online; None without one.
        stored: values of the row online, by feature; empty without a row.
        served: values that a request gets, the default where there is no row that may be served.
        columns: the table's column of each feature.
    """

    view: str
    table: str
    space: str
    time: datetime | None
    stored: Mapping[str, Any]
    served: Mapping[str, Any]
    columns: Mapping[str, str]


class EntityViews:
    """The views of a scenario in one Feast repo, opened once for several entities.

    Args:
        repo: the folder of feature_store.yaml, applied.
        scenario: whose views.

    Raises:
        StoreError: Feast cannot open the repo.
    """

    def __init__(self, repo: Path, scenario: str) -> None:
        self._scenario = scenario
        with map_store_errors("Feast opens the repo", f"cd {repo} && feast apply"):
            self._store = FeatureStore(repo_path=str(repo))
            self._views = self._store.list_feature_views()

    def rows(self, kind: Kind, id: Any) -> list[EntityRow]:
        """What the views have of a user, or an item, online.

        Args:
            kind: of the entity.
            id: in the key's type.

        Raises:
            StoreError: the online store does not answer.
        """
        views = [view for view in self._views if _is_of(view, self._scenario, kind)]
        return list(_rows(self._store, views, id))


def _is_of(view: FeatureView, scenario: str, kind: Kind) -> bool:
    is_served = view.online and view.tags.get(SCENARIO_TAG) == scenario
    return is_served and _table(view).startswith(f"{kind}_")


def _table(view: FeatureView) -> str:
    return Path(getattr(view.batch_source, "path", "")).name


def _rows(store: FeatureStore, views: list[FeatureView], id: Any) -> Iterator[EntityRow]:
    for view in views:
        names = [field.name for field in view.features]
        rule = f"view {view.name} is read from the online store"
        with map_store_errors(rule, "see that it is up"):
            time, stored = _stored(store, view, id, names)
            refs = [f"{view.name}:{name}" for name in names]
            found = store.get_online_features(refs, [{view.join_keys[0]: id}]).to_dict()
        space, source = space_of(view), view.batch_source
        mapping = {new: old for old, new in (source.field_mapping if source else {}).items()}
        yield EntityRow(
            view=view.name,
            table=_table(view),
            space="" if space is None else space.name,
            time=time,
            stored=stored,
            served={name: found[name][0] for name in names},
            columns={name: mapping.get(name, name) for name in names},
        )


def _stored(
    store: FeatureStore, view: FeatureView, id: Any, names: list[str]
) -> tuple[datetime | None, dict[str, Any]]:
    """The row itself, however old; without the default that a request gets in its place."""
    bare: FeatureView = FeatureView.from_proto(view.to_proto())
    bare.ttl = None
    bare.tags = {tag: bare.tags[tag] for tag in (SPACE_TAG,) if tag in bare.tags}
    (key,) = bare.entity_columns
    [value] = python_values_to_proto_values([id], key.dtype.to_value_type())
    keys = [EntityKey(join_keys=[key.name], entity_values=[value])]
    [(time, row)] = provider_of(store).online_read(store.config, bare, keys, names)
    if time is None or not any(value.WhichOneof("val") for value in (row or {}).values()):
        return None, {}
    aware = time if time.tzinfo else time.replace(tzinfo=UTC)
    assert row is not None
    values = {name: feast_value_type_to_python_type(row[name]) for name in names if name in row}
    return aware, values
