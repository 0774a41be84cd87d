"""Default vectors of unknown ids: any feature view may declare them by a tag.

A tag passes through every Feast registry, needs no code in the feature server, and is ignored by
stores that do not know it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from reki_feast.errors import StoreError

if TYPE_CHECKING:
    from feast import FeatureView
    from feast.protos.feast.types.Value_pb2 import Value

#: JSON object, feature name to its default vector.
DEFAULT_TAG = "reki.default"
#: Name of the scenario; every view that reki_views makes has it.
SCENARIO_TAG = "reki.scenario"
#: Tag of a source: "true" where its path starts in the Feast repo, wherever one works; "false"
#: where the repo names a whole path. Without it, a whole path was made of the repo's place.
FROM_REPO_TAG = "reki.from_repo"


def default_tag(vectors: Mapping[str, Sequence[float]]) -> dict[str, str]:
    """The tag that declares the default vectors of a feature view.

    For any view with features of type ``Array(Float32)``; a feature without a default is null as
    always::

        FeatureView(
            name="customer_vectors",
            entities=[customer],
            schema=[Field(name="taste", dtype=Array(Float32))],
            source=source,
            tags={"team": "search", **default_tag({"taste": [0.0] * 32})},
        )

    The stores of this package return the default where an id has no row: in a historical join, in
    ``get_online_features`` (status ``NOT_FOUND``) and in ``TensorReader``. Other stores ignore the
    tag.

    Args:
        vectors: default by feature, each with the length of the stored vectors.

    Returns:
        A tag, to be merged with the view's others.

    >>> default_tag({"near": [0.5], "wide": [0.25, 1.0]})
    {'reki.default': '{"near": [0.5], "wide": [0.25, 1.0]}'}
    """
    return {DEFAULT_TAG: json.dumps({name: list(vector) for name, vector in vectors.items()})}


def default_vectors(view: FeatureView) -> dict[str, tuple[float, ...]]:
    """Default vectors by feature; empty for a view without the tag.

    Raises:
        StoreError: the tag cannot be read.
    """
    tag = view.tags.get(DEFAULT_TAG)
    return _parsed(tag, view.name) if tag else {}


def default_values(view: FeatureView) -> dict[str, Value]:
    """The same, as the protobuf values that online stores return."""
    tag = view.tags.get(DEFAULT_TAG)
    return _values(tag, view.name) if tag else {}


@lru_cache(maxsize=64)
def _parsed(tag: str, view: str) -> dict[str, tuple[float, ...]]:
    try:
        raw = json.loads(tag)
        return {name: tuple(float(x) for x in vector) for name, vector in raw.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise StoreError(
            f"Tag {DEFAULT_TAG} of feature view {view} is a JSON object of vectors",
            detail=f"{tag[:60]!r}: {error}",
            hint="make it by reki_feast.stores.default_tag, then `feast apply`",
        ) from error


@lru_cache(maxsize=64)
def _values(tag: str, view: str) -> dict[str, Value]:
    from feast.protos.feast.types.Value_pb2 import FloatList, Value

    vectors = _parsed(tag, view)
    return {name: Value(float_list_val=FloatList(val=v)) for name, v in vectors.items()}
