"""On-demand views that have a formula, computed for a join's rows batch by batch.

It needs no pandas, and streams stay streams. The vectors that are computed of are among the join's
columns, asked for or not, as with Feast. Formulas with ``hides_inputs`` leave theirs out of the
result, unless they were asked for.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import takewhile
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from feast.on_demand_feature_view import OnDemandFeatureView

from reki_feast.stores.formulas import Floats, Formula, formula_of


@dataclass(frozen=True)
class FormulaColumns:
    """The columns of one view.

    Attributes:
        formula: what to compute.
        inputs: the columns of the vectors that it is computed of.
        outputs: the features asked for, each with the name of its column.
    """

    formula: Formula
    inputs: Sequence[str]
    outputs: Mapping[str, str]

    def add_to(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """The rows with the view's columns at the end; null where a vector is."""
        results = self._computed(*[rows.column(name) for name in self.inputs])
        for name, column in self.outputs.items():
            values = results[self.formula.names.index(name)]
            rows = rows.append_column(column, pa.array(values, from_pandas=True))  # NaN is null
        return rows

    def _computed(self, *columns: pa.Array) -> Floats:
        formula, sizes = self.formula, [vector.size for vector in self.formula.inputs]
        sized = [
            pc.equal(pc.list_value_length(vectors), size)
            for vectors, size in zip(columns, sizes, strict=True)
        ]
        valid = pc.fill_null(reduce(pc.and_, sized), False)
        if valid.true_count == len(valid):
            return formula.scores(*map(_matrix, columns, sizes))
        results = np.full((len(formula.names), len(valid)), np.nan, np.float32)
        rows = [vectors.filter(valid) for vectors in columns]
        mask = valid.to_numpy(zero_copy_only=False)
        results[:, mask] = formula.scores(*map(_matrix, rows, sizes))
        return results


def formula_columns(
    views: Sequence[OnDemandFeatureView],
    refs: Sequence[str],
    columns: Collection[str],
    full_names: bool,
) -> tuple[list[FormulaColumns], list[OnDemandFeatureView]]:
    """The columns of on-demand views that have a formula, and the other views.

    Args:
        views: on-demand views to compute.
        refs: features asked for, ``view:feature``.
        columns: the join's, without those of on-demand views.
        full_names: whether columns are named ``view__feature``.
    """
    computed, others = [], []
    for view in views:
        formula = formula_of(view)
        if formula is None:
            others.append(view)
            continue
        projection: Any = view.projection
        name = projection.name_to_use()
        features = [ref.split(":")[1] for ref in refs if ref.split(":")[0] == name]
        outputs = {f: f"{name}__{f}" if full_names else f for f in features}
        inputs = [column_of(vector.ref, columns) for vector in formula.inputs]
        computed.append(FormulaColumns(formula, inputs, outputs))
    return computed, others


def hidden_refs(views: Sequence[OnDemandFeatureView], refs: Sequence[str]) -> list[str]:
    """Inputs of formulas that hide them, that nobody asked for and no other view is computed of.

    Feast does not mark them. But it appends what it adds to the features asked for, so the inputs
    at the very end count as added: to have one, name it before the view's features.

    Args:
        views: on-demand views to compute.
        refs: features asked for, then what Feast adds to compute the views.
    """
    formulas = {view.name: formula_of(view) for view in views}
    hiding = {name: f for name, f in formulas.items() if f is not None and f.hides_inputs}
    inputs = {vector.ref for formula in hiding.values() for vector in formula.inputs}
    sources = _sources(view for view in views if view.name not in hiding)
    at_the_end = takewhile((inputs | sources).__contains__, reversed(refs))
    return [ref for ref in at_the_end if ref not in sources]


def _sources(views: Iterable[OnDemandFeatureView]) -> set[str]:
    """The inputs of on-demand views."""
    projections: list[Any] = [
        projection for view in views for projection in view.source_feature_view_projections.values()
    ]
    return {f"{p.name}:{feature.name}" for p in projections for feature in p.features}


def column_of(ref: str, columns: Collection[str]) -> str:
    """The column of a feature, ``view:feature``, among those of a join."""
    full = ref.replace(":", "__")
    return full if full in columns else ref.split(":")[1]


def _matrix(vectors: pa.Array, size: int) -> Floats:
    """Lists of ``size`` floats, none null, as ``[n, size]``; a view where no float is null."""
    flat = vectors.flatten().to_numpy(zero_copy_only=False)
    matrix: Floats = flat.astype(np.float32, copy=False).reshape(-1, size)
    return matrix
