"""The other living versions of a view, declared by a tag.

A view in service may have views of the same name in other spaces, which models downstream still
read::

    tags={**space_tag("shop", "v2-5d41aa"), **versions_tag([of_space_v1])}

They are versions of the view in Feast's sense, ``customer_vectors@v1:taste``: the registry of this
package keeps them as such. Feast makes a version itself when a schema changes; a space changes
none.
"""

from __future__ import annotations

import base64
import copy
import zlib
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from reki_feast.errors import StoreError

from .spaces import space_of, space_of_tags

if TYPE_CHECKING:
    from feast.protos.feast.core.FeatureViewVersion_pb2 import (
        FeatureViewVersionHistory,
        FeatureViewVersionRecord,
    )

#: Views of the same name in other spaces: base64 of zlib of Feast's FeatureViewVersionHistory.
VERSIONS_TAG = "reki.versions"


def versions_tag(views: Iterable[Any]) -> dict[str, str]:
    """The tag that declares the other living versions of a view.

    Args:
        views: feature views or on-demand views of one name, each with its own space tag; whole
            views, with their own source, schema and tags.

    Returns:
        A tag, to be merged with those of the view in service; empty where there are no views.

    Raises:
        StoreError: a view is in no space, two have the same number, or names differ.
    """
    from feast.protos.feast.core.FeatureViewVersion_pb2 import FeatureViewVersionHistory

    found = list(views)
    spaces = [space_of(view) for view in found]
    numbers = {space.number for space in spaces if space is not None}
    if len(numbers) < len(found) or len({view.name for view in found}) > 1:
        raise StoreError(
            "Versions of a view have its name, and each its own space",
            detail=", ".join(f"{v.name} of {s}" for v, s in zip(found, spaces, strict=True)),
            hint="give each view the tag of its space: space_tag(group, name)",
        )
    if not found:
        return {}
    records = [record_of_proto(_kind(view), view.to_proto()) for view in sorted(found, key=_number)]
    raw = FeatureViewVersionHistory(records=records).SerializeToString(deterministic=True)
    return {VERSIONS_TAG: base64.b64encode(zlib.compress(raw, 9)).decode()}


def versions_of(view: Any) -> list[Any]:
    """The other living versions of a view, as its tag declares them.

    Args:
        view: a feature view or on-demand view of the registry, or of a repo.

    Returns:
        Views of the same name, by their number.

    Raises:
        StoreError: the tag cannot be read.
    """
    tag = view.tags.get(VERSIONS_TAG)
    if not tag:
        return []
    return [_view_of(record, view) for record in records_of_tag(tag, view.name)]


def living_versions(view: Any) -> list[Any]:
    """A view and its other living versions: whatever has rows of its own online.

    Raises:
        StoreError: the view's tag cannot be read.
    """
    return [view, *versions_of(view)]


def pinned(view: Any, number: int) -> Any:
    """A version of a view for a feature service, which stays with it whatever is in service.

    In a repo's files, as the reference ``"customer_vectors@v1:taste"`` but also where the registry
    is new and has no versions yet::

        FeatureService(name="ctr", features=[pinned(customer_vectors, 1)[["taste"]]])

    Args:
        view: the view in service.
        number: of its version.

    Returns:
        The version, which Feast does not take for the latest one.

    Raises:
        StoreError: there is no such version.
    """
    version = copy.copy(version_of(view, number))
    version.version = f"v{number}"
    return version


def version_of(view: Any, number: int) -> Any:
    """A living version of a view, itself among them.

    Raises:
        StoreError: there is no such version.
    """
    by_number = {_number(version): version for version in living_versions(view)}
    if number not in by_number:
        raise StoreError(
            f"Version v{number} of view {view.name} is declared",
            detail=f"declared are {', '.join(f'v{known}' for known in sorted(by_number))}",
            hint="name one of these; a space that was retired has no version any more",
        )
    return by_number[number]


def records_of_tag(tag: str, view: str) -> list[FeatureViewVersionRecord]:
    """The records of a view's versions tag.

    Raises:
        StoreError: the tag cannot be read.
    """
    return list(_history(tag, view).records)


@lru_cache(maxsize=64)
def _history(tag: str, view: str) -> FeatureViewVersionHistory:
    from feast.protos.feast.core.FeatureViewVersion_pb2 import FeatureViewVersionHistory
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    history = FeatureViewVersionHistory()
    try:
        history.ParseFromString(zlib.decompress(base64.b64decode(tag)))
    except (ValueError, zlib.error, DecodeError) as error:
        raise StoreError(
            f"Tag {VERSIONS_TAG} of view {view} holds its other versions",
            detail=f"{tag[:40]!r}: {error}",
            hint="make it by reki_feast.stores.versions_tag, then `feast apply`",
        ) from error
    return history


def record_of_proto(kind: str, view: Any) -> FeatureViewVersionRecord:
    """A view's message as a record of Feast's version history, without its versions tag.

    It has no state and no materialization: Feast writes a view with a state back to the registry
    when that version is materialized, in place of the one in service.

    Args:
        kind: of the view, as Feast's records name it.
        view: message of a view with a space tag.
    """
    from feast.protos.feast.core.FeatureViewVersion_pb2 import FeatureViewVersionRecord

    proto = type(view).FromString(view.SerializeToString())
    space = space_of_tags(proto.spec.tags)
    assert space is not None
    proto.spec.tags.pop(VERSIONS_TAG, None)
    proto.meta.Clear()
    _clear_source_times(proto.spec)
    proto.meta.current_version_number = space.number
    return FeatureViewVersionRecord(
        feature_view_name=proto.spec.name,
        project_id=proto.spec.project,
        version_number=space.number,
        feature_view_type=kind,
        feature_view_proto=proto.SerializeToString(deterministic=True),
        description=str(space),
        version_id=space.name,
    )


def _clear_source_times(message: Any) -> None:
    """Without the times at which Feast made the objects: a tag is the same each time."""
    if message.DESCRIPTOR.name == "DataSource":
        message.ClearField("meta")
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in _messages(value):
                _clear_source_times(part)


def _messages(value: Any) -> list[Any]:
    """The messages of a field: a single one, a list or a map."""
    if hasattr(value, "ListFields"):
        return [value]
    parts = value.values() if hasattr(value, "values") else value
    return [part for part in parts if hasattr(part, "ListFields")]


def _number(view: Any) -> int:
    space = space_of(view)
    return space.number if space else 0


def _classes() -> dict[str, tuple[Any, Any]]:
    """Kinds of views, as Feast's records name them, from the special to the general.

    Each with its class and that of its message.
    """
    from feast import FeatureView, OnDemandFeatureView, StreamFeatureView
    from feast.protos.feast.core.FeatureView_pb2 import FeatureView as Message
    from feast.protos.feast.core.OnDemandFeatureView_pb2 import OnDemandFeatureView as OnDemand
    from feast.protos.feast.core.StreamFeatureView_pb2 import StreamFeatureView as Stream

    return {
        "on_demand_feature_view": (OnDemandFeatureView, OnDemand),
        "stream_feature_view": (StreamFeatureView, Stream),
        "feature_view": (FeatureView, Message),
    }


def _kind(view: Any) -> str:
    return next(kind for kind, (of_kind, _) in _classes().items() if isinstance(view, of_kind))


def _view_of(record: FeatureViewVersionRecord, view: Any) -> Any:
    """The view of a record, with what was inferred for the one in service since."""
    of_kind, message = _classes()[record.feature_view_type]
    proto = message.FromString(record.feature_view_proto)
    if not proto.spec.entity_columns:
        proto.spec.entity_columns.extend(column.to_proto() for column in view.entity_columns)
    version = of_kind.from_proto(proto)
    version.current_version_number = record.version_number
    return version
