"""The default vector of an unknown id: written into a view's tag, read back by the stores.

A plain tag travels through every Feast registry, needs no code in the feature server, and is
ignored by stores that know nothing of it.
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
#: HEIN has learnt labels of interactions strictly before this time; a fair test of a model is of
#: those at it or later.
TRAINED_UNTIL_TAG = "reki.trained_until"


def default_tag(feature: str, vector: Sequence[float]) -> dict[str, str]:
    """The tag that says what an unknown id's vector is.

    >>> default_tag("user_aug", [0.5, 1.0])
    {'reki.default': '{"user_aug": [0.5, 1.0]}'}
    """
    return default_tags({feature: vector})


def default_tags(vectors: Mapping[str, Sequence[float]]) -> dict[str, str]:
    """The same for a view of several vectors.

    >>> default_tags({"near": [0.5], "wide": [0.25, 1.0]})
    {'reki.default': '{"near": [0.5], "wide": [0.25, 1.0]}'}
    """
    return {DEFAULT_TAG: json.dumps({name: list(vector) for name, vector in vectors.items()})}


def default_vectors(view: FeatureView) -> dict[str, tuple[float, ...]]:
    """Default vectors by feature; empty for a view that is not ours.

    Raises:
        StoreError: the tag cannot be read.
    """
    tag = view.tags.get(DEFAULT_TAG)
    return _parsed(tag, view.name) if tag else {}


def default_values(view: FeatureView) -> dict[str, Value]:
    """The same, as the protobuf values that online stores hand out."""
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
            found=f"{tag[:60]!r}: {error}",
            mend="run `feast apply` again, with the view made by reki_views",
        ) from error


@lru_cache(maxsize=64)
def _values(tag: str, view: str) -> dict[str, Value]:
    from feast.protos.feast.types.Value_pb2 import FloatList, Value

    vectors = _parsed(tag, view)
    return {name: Value(float_list_val=FloatList(val=v)) for name, v in vectors.items()}
