"""Checks of points, parameters and stored arrays of StreaKHC."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from reki_feast.clustering.kernel import Floats
from reki_feast.clustering.tree import NODE, Tree
from reki_feast.errors import ClusterError

_STORED = {
    *("nodes", "sums", "free", "state", "maps", "first_cells", "young"),
    *("n_estimators", "max_samples", "beam_width", "random_state"),
    *("seed", "drawn_from", "draws"),
    "n_features_in",
}


def check_points(points: npt.ArrayLike, features: int | None) -> Floats:
    """Points as float32 ``[n, d]``; ``features`` is d of earlier points, if any.

    Raises:
        ClusterError: The points are not finite numbers in rows of d floats.
    """
    try:
        wide = np.asarray(points)
        if wide.dtype.kind in "cmM":
            raise TypeError(f"values of type {wide.dtype}")
        wide = wide.astype(np.float64, copy=False)
    except (TypeError, ValueError) as error:
        rule, hint = "points are numbers in rows of equal length", "give an [n, d] array"
        raise ClusterError(rule, detail=str(error), hint=hint) from error
    if wide.ndim != 2 or wide.shape[1] == 0:
        rule, hint = "points are an array [n, d] with d of 1 or more", "reshape it: one row a point"
        raise ClusterError(rule, detail=f"shape {wide.shape}", hint=hint)
    if features is not None and wide.shape[1] != features:
        rule, hint = "all points of a tree have as many floats", "fit(X) begins a new tree"
        found = f"{wide.shape[1]} floats, {features} before"
        raise ClusterError(rule, detail=found, hint=hint)
    with np.errstate(over="ignore"):
        narrow = np.ascontiguousarray(wide, np.float32)
    bad = ~np.isfinite(narrow).all(axis=1)
    if bad.any():
        rule, hint = "points are finite in float32", "drop or fill those rows; scale huge values"
        found = f"{int(bad.sum())} of {len(narrow)} rows are not, first row {int(bad.argmax())}"
        raise ClusterError(rule, detail=found, hint=hint)
    return narrow


def check_positive(name: str, value: object) -> None:
    """Raise ClusterError unless a parameter is an integer of 1 or more."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        rule = f"{name} is an integer of 1 or more"
        raise ClusterError(rule, detail=repr(value), hint=f"set {name}")


def check_stored(arrays: Mapping[str, Any], about: object, version: int) -> None:
    """Raise ClusterError unless all arrays and entries of a format are there."""
    stored = about if isinstance(about, dict) else {}
    absent = ", ".join(sorted(_STORED - {*arrays, *stored}))
    if stored.get("format") != version or absent:
        rule = f"a saved StreaKHC is of format {version}, and whole"
        found = f"format {stored.get('format')}" if stored.get("format") != version else ""
        hint = "fit anew, or read it with the version that wrote it"
        raise ClusterError(rule, detail=found or f"no {absent}", hint=hint)


def restored(arrays: Mapping[str, npt.NDArray[Any]]) -> Tree:
    """The tree of stored arrays."""
    nodes = np.ascontiguousarray(arrays["nodes"]).reshape(-1).view(NODE)
    free = np.zeros(len(arrays["sums"]), np.int32)
    free[: len(arrays["free"])] = arrays["free"]
    # the other arrays are copied as soon as a point is inserted
    return Tree(nodes, arrays["sums"], free, arrays["state"].copy())
