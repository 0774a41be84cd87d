"""Match scores of a join's rows, batch by batch: no pandas, and streams stay streams."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from feast.on_demand_feature_view import OnDemandFeatureView

from reki_feast.store.match import Floats, Match, match_of


@dataclass(frozen=True)
class Scores:
    """The scores of one view.

    Attributes:
        match: what to compute.
        columns: the user's and the item's vector.
        shown: the scores asked for, each with the name of its column.
    """

    match: Match
    columns: tuple[str, str]
    shown: Mapping[str, str]

    def added(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """The rows with the scores' columns at the end; null where a vector is."""
        scores = self._computed(*[rows.column(name) for name in self.columns])
        for name, column in self.shown.items():
            values = scores[self.match.names.index(name)]
            rows = rows.append_column(column, pa.array(values, from_pandas=True))  # NaN is null
        return rows

    def _computed(self, user: pa.Array, item: pa.Array) -> Floats:
        size = self.match.size
        sized = [pc.equal(pc.list_value_length(vectors), size) for vectors in (user, item)]
        known = pc.fill_null(pc.and_(*sized), False)
        if known.true_count == len(known):
            return self.match.scores(_matrix(user, size), _matrix(item, size))
        scores = np.full((len(self.match.names), len(known)), np.nan, np.float32)
        both = [_matrix(vectors.filter(known), size) for vectors in (user, item)]
        scores[:, known.to_numpy(zero_copy_only=False)] = self.match.scores(*both)
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
        match = match_of(view)
        if match is None:
            others.append(view)
            continue
        projection: Any = view.projection
        known_as = projection.name_to_use()
        asked = [ref.split(":")[1] for ref in refs if ref.split(":")[0] == known_as]
        shown = {name: f"{known_as}__{name}" if full_names else name for name in asked}
        user, item = (_column(ref, columns) for ref in (match.user, match.item))
        scores.append(Scores(match, (user, item), shown))
    return scores, others


def _column(ref: str, columns: Collection[str]) -> str:
    full = ref.replace(":", "__")
    return full if full in columns else ref.split(":")[1]


def _matrix(vectors: pa.Array, size: int) -> Floats:
    """Lists of `size` floats, none null, as ``[n, size]``; a view where there are no nulls."""
    flat = vectors.flatten().to_numpy(zero_copy_only=False)
    matrix: Floats = flat.astype(np.float32, copy=False).reshape(-1, size)
    return matrix
