"""Filters of a search: Feast's comparisons, and compounds of them, over columns of features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TypeAlias

import numpy as np

from .columns import ORDERED, Column
from .exceptions import QueryError


class Comparison(Protocol):
    """``feast.filter_models.ComparisonFilter``."""

    type: Any
    key: str
    value: Any


class Compound(Protocol):
    """``feast.filter_models.CompoundFilter``."""

    type: Any
    filters: Any


Filter: TypeAlias = "Comparison | Compound"


def names_of(filters: Filter | None) -> set[str]:
    """The features that a filter compares.

    Raises:
        QueryError: it is no filter.
    """
    if filters is None:
        return set()
    parts = getattr(filters, "filters", None)
    if parts is not None:
        return {name for part in parts for name in names_of(part)}
    key = getattr(filters, "key", None)
    if key is None:
        raise QueryError(
            "Filters are ComparisonFilter and CompoundFilter of feast.filter_models",
            detail=f"{filters!r:.60}",
            hint='ComparisonFilter(type="eq", key="category", value="news")',
        )
    return {str(key)}


def matching(filters: Filter, columns: Mapping[str, Column], count: int) -> np.ndarray:
    """(count,) mask of the rows that a filter lets through.

    Args:
        filters: a comparison or a compound; an empty compound lets all through, as in Feast.
        columns: of all features that it names.
        count: of rows.

    Raises:
        QueryError: a comparison does not fit its feature.
    """
    parts = getattr(filters, "filters", None)
    if parts is None:
        return _compared(filters, columns, count)
    masks = [matching(part, columns, count) for part in parts]
    if not masks:
        return np.ones(count, np.bool_)
    combine = np.logical_and if filters.type == "and" else np.logical_or
    mask: np.ndarray = combine.reduce(masks)
    return mask


def _compared(one: Any, columns: Mapping[str, Column], count: int) -> np.ndarray:
    if one.type not in ORDERED and not isinstance(one.value, list | tuple | set | frozenset):
        raise QueryError(
            f"A filter of type {one.type} has a list of values",
            detail=f"{one.key}: {one.value!r:.60}",
            hint=f'ComparisonFilter(type="{one.type}", key="{one.key}", value=[…])',
        )
    return columns[one.key].matches(one.type, one.value, count)
