"""The versions of views that a registry's version history holds, by what the views' tags declare.

Feast makes a version when a schema changes, and a space changes none. So a view with a space tag
gets its records here: itself under its space's number, and those that its versions tag declares.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from feast.protos.feast.core.FeatureViewVersion_pb2 import FeatureViewVersionRecord
from feast.protos.feast.core.Registry_pb2 import Registry

from reki_feast.errors import StoreError

from .spaces import space_of_tags
from .versions import VERSIONS_TAG, record_of_proto, records_of_tag

#: Where a registry keeps views of each kind, as records name it.
_VIEWS = {
    "feature_view": "feature_views",
    "stream_feature_view": "stream_feature_views",
    "on_demand_feature_view": "on_demand_feature_views",
}


def register_versions(registry: Registry) -> None:
    """Bring a registry's version history in line with the tags of its views.

    Records of other versions of those views are dropped; views without a space tag keep what Feast
    wrote of them.

    Raises:
        StoreError: a tag cannot be read, or declares two spaces with one number.
    """
    records: dict[tuple[str, str], list[FeatureViewVersionRecord]] = {}
    for kind, field in _VIEWS.items():
        for view in getattr(registry, field):
            if (space := space_of_tags(view.spec.tags)) is not None:
                view.meta.current_version_number = space.number
                records[view.spec.project, view.spec.name] = [*_records(kind, view)]
    if not records:
        return
    before = registry.feature_view_version_history.records
    times = {_identity(record): record.created_timestamp for record in before}
    written = [record for some in records.values() for record in some]
    for record in written:
        made = times.get(_identity(record), registry.last_updated)
        record.created_timestamp.CopyFrom(made)
    others = [one for one in before if (one.project_id, one.feature_view_name) not in records]
    history = [FeatureViewVersionRecord.FromString(one.SerializeToString()) for one in others]
    del before[:]
    before.extend([*history, *written])


def _identity(record: FeatureViewVersionRecord) -> tuple[str, str, int, str]:
    """What a record keeps over writes: the space of a view."""
    return (
        record.project_id,
        record.feature_view_name,
        record.version_number,
        record.version_id,
    )


def _records(kind: str, view: Any) -> Iterator[FeatureViewVersionRecord]:
    """The records of a view's message."""
    own = record_of_proto(kind, view)
    yield own
    tag = view.spec.tags.get(VERSIONS_TAG)
    for declared in records_of_tag(tag, view.spec.name) if tag else ():
        if declared.version_number != own.version_number:
            yield record_of_proto(kind, _completed(declared, view))
        elif declared.version_id != own.version_id:
            raise StoreError(
                f"Versions of view {view.spec.name} are of spaces with different numbers",
                detail=f"{own.version_id} and {declared.version_id}",
                hint="give each space a number of its own, then `feast apply`",
            )


def _completed(declared: FeatureViewVersionRecord, view: Any) -> Any:
    """A declared view's message, of the project, with what `feast apply` inferred for the view."""
    version = type(view).FromString(declared.feature_view_proto)
    version.spec.project = view.spec.project
    if not version.spec.entity_columns:
        version.spec.entity_columns.extend(view.spec.entity_columns)
    return version
