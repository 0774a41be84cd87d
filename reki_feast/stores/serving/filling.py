"""Columns of a batch: defaults where nothing is stored, and what formulas compute."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import reduce

import numpy as np

from reki_feast.errors import StoreError
from reki_feast.stores.online.layouts import FeatureColumn

from .features import ServedFeature
from .plan import FormulaPlan


def computed(
    plan: FormulaPlan, columns: Mapping[str, FeatureColumn]
) -> Iterator[tuple[str, FeatureColumn]]:
    """The features of a formula, of the vectors read or, where there are none, their defaults."""
    inputs = [columns[name] for name in plan.inputs]
    results = plan.formula.scores(*[vectors.values for vectors in inputs])
    by_name = dict(zip(plan.formula.names, results, strict=True))
    for feature in plan.features:
        values = by_name[feature.source]
        valid = reduce(np.logical_and, [vectors.valid for vectors in inputs])
        if feature.default is not None:
            values[~valid] = feature.default
        yield feature.name, FeatureColumn(values, valid)


def filled(feature: ServedFeature, column: FeatureColumn, widths: dict[str, int]) -> FeatureColumn:
    """A writable column, with defaults where there is no value."""
    values, valid = column
    if feature.is_list:
        width = _width(feature, values.shape[1] if valid.any() else None, widths)
        if not valid.any():
            values = np.zeros((len(valid), width), values.dtype)
    values = np.require(values, requirements=["C", "W"])
    if not valid.all():
        values[~valid] = 0 if feature.default is None else feature.default
    return FeatureColumn(values, np.require(valid, requirements=["W"]))


def _width(feature: ServedFeature, found: int | None, widths: dict[str, int]) -> int:
    """The length of a feature's vectors; ``found`` is None when none was read."""
    width = feature.width or widths.get(feature.name, found)
    if width is None:
        raise StoreError(
            f"The length of {feature.name} is known before the first row of it is read",
            detail="no id that has one, no default, no tag reki.dimension on its view",
            hint=f'defaults={{"{feature.name}": [0.0] * length}}, or the tag on the view',
        )
    if found not in (None, width):
        raise StoreError(
            f"The vectors of {feature.name} have {width} numbers, as the registry says",
            detail=f"{found} in Redis",
            hint="`feast apply` and refresh() of the TensorReader, or materialize again",
        )
    widths[feature.name] = width
    return width


def repeated(column: FeatureColumn, rows: int) -> FeatureColumn:
    """A column of so many rows; a single one is repeated."""
    if len(column.valid) == rows:
        return column
    return FeatureColumn(*[np.repeat(single, rows, axis=0) for single in column])
