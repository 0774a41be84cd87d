"""Match scores of a join's rows, batch by batch: no pandas, and streams stay streams.

The vectors that scores are computed of are among the join's columns, asked for or not: so has it
Feast. Those of products stay there. Those of texts are left out of the result, unless they were
asked for: a user's holds some thousand floats, which in each row of a training table would be
gigabytes.
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

from reki_feast.store.scores import Floats, Formula, TextMatch, match_of


@dataclass(frozen=True)
class Scores:
    """The scores of one view.

    Attributes:
        formula: what to compute.
        columns: the vectors that it is computed of.
        shown: the scores asked for, each with the name of its column.
    """

    formula: Formula
    columns: Sequence[str]
    shown: Mapping[str, str]

    def added(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """The rows with the scores' columns at the end; null where a vector is."""
        scores = self._computed(*[rows.column(name) for name in self.columns])
        for name, column in self.shown.items():
            values = scores[self.formula.names.index(name)]
            rows = rows.append_column(column, pa.array(values, from_pandas=True))  # NaN is null
        return rows

    def _computed(self, *columns: pa.Array) -> Floats:
        formula, sizes = self.formula, [vector.size for vector in self.formula.inputs]
        sized = [
            pc.equal(pc.list_value_length(vectors), size)
            for vectors, size in zip(columns, sizes, strict=True)
        ]
        known = pc.fill_null(reduce(pc.and_, sized), False)
        if known.true_count == len(known):
            return formula.scores(*map(_matrix, columns, sizes))
        scores = np.full((len(formula.names), len(known)), np.nan, np.float32)
        some = [vectors.filter(known) for vectors in columns]
        scores[:, known.to_numpy(zero_copy_only=False)] = formula.scores(*map(_matrix, some, sizes))
        return scores


def scores_of(
    views: Sequence[OnDemandFeatureView],
    refs: Sequence[str],
    columns: Collection[str],
    full_names: bool,
) -> tuple[list[Scores], list[OnDemandFeatureView]]:
    """Those of on-demand views that are match scores, and the others.

    Args:
        views: on-demand views to compute.
        refs: features asked for, ``view:feature``.
        columns: the join's, without what on-demand views add.
        full_names: whether columns are named ``view__feature``.
    """
    scores, others = [], []
    for view in views:
        formula = match_of(view)
        if formula is None:
            others.append(view)
            continue
        projection: Any = view.projection
        known_as = projection.name_to_use()
        asked = [ref.split(":")[1] for ref in refs if ref.split(":")[0] == known_as]
        shown = {name: f"{known_as}__{name}" if full_names else name for name in asked}
        inputs = [column_of(vector.ref, columns) for vector in formula.inputs]
        scores.append(Scores(formula, inputs, shown))
    return scores, others


def added_refs(views: Sequence[OnDemandFeatureView], refs: Sequence[str]) -> list[str]:
    """Vectors of texts' scores that nobody asked for, and no other view is computed of.

    Feast does not tell them from features asked for. But it names what it adds after those, so the
    vectors at the very end count as added: to have one, name it before the scores.

    Args:
        views: on-demand views to compute.
        refs: features asked for, then what Feast adds to compute the views.
    """
    formulas = {view.name: match_of(view) for view in views}
    added = {
        vector.ref
        for formula in formulas.values()
        if isinstance(formula, TextMatch)
        for vector in formula.inputs
    }
    sources = _sources(view for view in views if not isinstance(formulas[view.name], TextMatch))
    at_the_end = takewhile((added | sources).__contains__, reversed(refs))
    return [ref for ref in at_the_end if ref not in sources]


def _sources(views: Iterable[OnDemandFeatureView]) -> set[str]:
    """What on-demand views are computed of."""
    projections: list[Any] = [
        projection for view in views for projection in view.source_feature_view_projections.values()
    ]
    return {f"{p.name}:{feature.name}" for p in projections for feature in p.features}


def column_of(ref: str, columns: Collection[str]) -> str:
    """The column of a feature, ``view:feature``, among a join's."""
    full = ref.replace(":", "__")
    return full if full in columns else ref.split(":")[1]


def _matrix(vectors: pa.Array, size: int) -> Floats:
    """Lists of `size` floats, none null, as ``[n, size]``; a view where there are no nulls."""
    flat = vectors.flatten().to_numpy(zero_copy_only=False)
    matrix: Floats = flat.astype(np.float32, copy=False).reshape(-1, size)
    return matrix
