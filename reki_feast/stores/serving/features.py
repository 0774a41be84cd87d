"""Features that become tensors, as the registry describes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from feast import FeatureView, ValueType

from reki_feast.errors import Problem, StoreError
from reki_feast.stores.defaults import default_vectors
from reki_feast.stores.online.decoding import LISTS, SCALARS

DIMENSION_TAG = "reki.dimension"
Defaults = Mapping[str, Any]


@dataclass(frozen=True)
class ServedFeature:
    """One feature of a view.

    Attributes:
        name: its name in the batch.
        source: its name in the view.
        kind: its type.
        width: how many numbers a vector has; None for a scalar, or where it is not declared.
        default: for ids that are not stored, a number or (width,) numbers; None for zero.
    """

    name: str
    source: str
    kind: ValueType
    width: int | None
    default: np.ndarray | None

    @property
    def is_list(self) -> bool:
        """Whether its values are vectors."""
        return self.kind in LISTS


def feature_of(view: FeatureView, field: str, name: str) -> ServedFeature:
    """A view's feature as the registry describes it."""
    projection: Any = view.projection
    spec = projection.get_feature(field)
    kind = spec.dtype.to_value_type()
    if kind not in LISTS:
        return ServedFeature(name, field, kind, None, None)
    vector = default_vectors(view).get(field)
    width = int(view.tags.get(DIMENSION_TAG, 0)) or spec.vector_length or len(vector or ())
    default = None if vector is None else np.array(vector, np.float32)
    return ServedFeature(name, field, kind, width or None, default)


def check(features: Sequence[ServedFeature], defaults: Defaults) -> None:
    """Check that all features are numbers, and that the defaults are for them.

    Raises:
        StoreError: some are not.
    """
    others = [f for f in features if f.kind not in LISTS | SCALARS]
    problems = [
        Problem(
            "Tensors hold numbers: ints, floats, bools, times and lists of floats",
            detail=f"{feature.name}: {feature.kind.name}",
            hint="leave it out of the service, or name refs of the others",
        )
        for feature in others
    ]
    names = [feature.name for feature in features]
    problems += [
        Problem(
            "Defaults are for features of the batch",
            detail=f"{name!r}; features {', '.join(names)}",
            hint="name them as the batch does",
        )
        for name in defaults
        if name not in names
    ]
    if problems:
        raise StoreError(problems)


def defaulted(feature: ServedFeature, defaults: Defaults) -> ServedFeature:
    """A feature with the caller's default, where there is one.

    Raises:
        StoreError: the default has another shape than the feature.
    """
    if feature.name in defaults:
        default = np.asarray(defaults[feature.name])
        width = feature.width or (len(default) if feature.is_list and default.ndim == 1 else None)
        feature = replace(feature, default=default, width=width)
    shape = (feature.width,) if feature.is_list else ()
    if feature.default is not None and feature.default.shape != shape:
        raise StoreError(
            f"The default of {feature.name} is {_shape_name(feature)}",
            detail=f"shape {feature.default.shape}",
            hint="give a default of that shape",
        )
    return feature


def _shape_name(feature: ServedFeature) -> str:
    if not feature.is_list:
        return "one number"
    return f"a vector of {feature.width} numbers" if feature.width else "a vector"
