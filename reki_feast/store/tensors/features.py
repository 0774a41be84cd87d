"""What the registry says of a feature that becomes a tensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from feast import FeatureView, ValueType

from reki_feast.errors import Fault, StoreError
from reki_feast.store.defaults import default_vectors

from .layouts import LISTS, SCALARS

DIMENSION_TAG = "reki.dimension"
Defaults = Mapping[str, Any]


@dataclass(frozen=True)
class Feature:
    """One feature of a view.

    Attributes:
        name: its name in the batch.
        source: its name in the view.
        kind: its type.
        width: how many numbers a vector has; None for a scalar, or where nothing says so.
        default: what an unknown id gets, a number or (width,) numbers; None for zero.
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


def feature_of(view: FeatureView, field: str, name: str) -> Feature:
    """A view's feature as the registry describes it."""
    projection: Any = view.projection
    spec = projection.get_feature(field)
    kind = spec.dtype.to_value_type()
    if kind not in LISTS:
        return Feature(name, field, kind, None, None)
    vector = default_vectors(view).get(field)
    width = int(view.tags.get(DIMENSION_TAG, 0)) or spec.vector_length or len(vector or ())
    default = None if vector is None else np.array(vector, np.float32)
    return Feature(name, field, kind, width or None, default)


def check(features: Sequence[Feature], defaults: Defaults) -> None:
    """See that all are numbers, and that the defaults are for them.

    Raises:
        StoreError: some are not.
    """
    others = [f for f in features if f.kind not in LISTS | SCALARS]
    faults = [
        Fault(
            "Tensors hold numbers: ints, floats, bools, times and lists of floats",
            found=f"{feature.name}: {feature.kind.name}",
            mend="leave it out of the service, or name refs of the others",
        )
        for feature in others
    ]
    names = [feature.name for feature in features]
    faults += [
        Fault(
            "Defaults are for features of the batch",
            found=f"{name!r}; features {', '.join(names)}",
            mend="name them as the batch does",
        )
        for name in defaults
        if name not in names
    ]
    if faults:
        raise StoreError(faults)


def defaulted(feature: Feature, defaults: Defaults) -> Feature:
    """With the caller's default, where there is one.

    Raises:
        StoreError: it has another shape than the feature.
    """
    if feature.name in defaults:
        default = np.asarray(defaults[feature.name])
        width = feature.width or (len(default) if feature.is_list and default.ndim == 1 else None)
        feature = replace(feature, default=default, width=width)
    wanted = (feature.width,) if feature.is_list else ()
    if feature.default is not None and feature.default.shape != wanted:
        raise StoreError(
            f"The default of {feature.name} is {_meant(feature)}",
            found=f"shape {feature.default.shape}",
            mend="give a default of that shape",
        )
    return feature


def _meant(feature: Feature) -> str:
    if not feature.is_list:
        return "one number"
    return f"a vector of {feature.width} numbers" if feature.width else "a vector"
