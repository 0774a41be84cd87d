"""On-demand views that have a formula, computed for a response without pandas."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from feast.protos.feast.serving.ServingService_pb2 import GetOnlineFeaturesResponse
from feast.protos.feast.types.Value_pb2 import FloatList, Value

from reki_feast.stores.formulas import Floats, Formula, VectorInput, formula_of

from .decoding import vectors
from .requests import OnlineRequest
from .response import add_column


def compute_on_demand(request: OnlineRequest, full_names: bool) -> OnlineRequest:
    """Add the features of on-demand views that have a formula to the response.

    Returns:
        The request with those on-demand views that are still to be computed.
    """
    context, others = request.context, []
    for view in context.on_demand:
        formula = formula_of(view)
        if formula is None:
            others.append(view)
            continue
        name = view.projection.name_to_use()
        refs = [ref.split(":") for ref in context.refs]
        features = [feature for of_view, feature in refs if of_view == name]
        columns = {f: f"{name}__{f}" if full_names else f for f in features}
        _add(request.response, formula, columns)
    return request._replace(context=context._replace(on_demand=others))


def _add(response: GetOnlineFeaturesResponse, formula: Formula, columns: Mapping[str, str]) -> None:
    inputs = [_vectors(response, vector) for vector in formula.inputs]
    computed = formula.scores(*[matrix for matrix, _ in inputs])
    results = dict(zip(formula.names, computed, strict=True))
    valid = np.logical_and.reduce([mask for _, mask in inputs]).tolist()
    for feature, column in columns.items():
        pairs = zip(results[feature].tolist(), valid, strict=True)
        add_column(response, column, [Value(float_val=x) if v else Value() for x, v in pairs])


def _vectors(response: Any, vector: VectorInput) -> tuple[Floats, np.ndarray]:
    """A column's vectors ``[n, size]`` and the validity mask of those of that size."""
    names = list(response.metadata.feature_names.val)
    full, short = vector.column, vector.ref.split(":")[1]
    column = response.results[names.index(full if full in names else short)]
    messages = [value.SerializeToString() for value in column.values]
    # Lists of one length are messages of one length.
    size = len(Value(float_list_val=FloatList(val=[0.0] * vector.size)).SerializeToString())
    sized = [message if len(message) == size else None for message in messages]
    return vectors(sized, vector.size)
