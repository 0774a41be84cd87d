"""Match scores of an answer to ``get_online_features``, without pandas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from feast.protos.feast.serving.ServingService_pb2 import GetOnlineFeaturesResponse
from feast.protos.feast.types.Value_pb2 import FloatList, Value

from reki_feast.store.scores import Floats, Formula, Input, match_of

from .requests import Request
from .response import add_known
from .stored import vectors


def with_scores(request: Request, full_names: bool) -> Request:
    """Add the scores asked for to the response.

    Returns:
        The request with those on-demand views that are still to be computed.
    """
    context, others = request.context, []
    for view in context.on_demand:
        formula = match_of(view)
        if formula is None:
            others.append(view)
            continue
        asked = view.projection.name_to_use()
        refs = [ref.split(":") for ref in context.refs]
        names = [name for of_view, name in refs if of_view == asked]
        shown = {name: f"{asked}__{name}" if full_names else name for name in names}
        _add(request.response, formula, shown)
    return request._replace(context=context._replace(on_demand=others))


def _add(response: GetOnlineFeaturesResponse, formula: Formula, shown: dict[str, str]) -> None:
    found = [_vectors(response, vector) for vector in formula.inputs]
    computed = formula.scores(*[vectors for vectors, _ in found])
    scores = dict(zip(formula.names, computed, strict=True))
    known = np.logical_and.reduce([there for _, there in found]).tolist()
    for name, column in shown.items():
        pairs = zip(scores[name].tolist(), known, strict=True)
        messages = [Value(float_val=score) if there else Value() for score, there in pairs]
        add_known(response, column, messages)


def _vectors(response: Any, vector: Input) -> tuple[Floats, np.ndarray]:
    """A column's vectors ``[n, size]`` and which rows have one of that size."""
    names = list(response.metadata.feature_names.val)
    full, short = vector.column, vector.ref.split(":")[1]
    column = names.index(full if full in names else short)
    found: Sequence[bytes] = [
        value.SerializeToString() for value in response.results[column].values
    ]
    # Lists of one length are messages of one length.
    wanted = len(Value(float_list_val=FloatList(val=[0.0] * vector.size)).SerializeToString())
    sized = [message if len(message) == wanted else None for message in found]
    return vectors(sized, vector.size)
