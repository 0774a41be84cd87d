"""The nearest rows of a view to a vector, for ``TensorReader``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from feast import FeatureStore

from reki_feast.stores._feast import provider_of, redis_client_of
from reki_feast.stores.connecting import redis_errors
from reki_feast.stores.online.decoding import decode
from reki_feast.stores.online.document_rows import DocumentRows, vector_field
from reki_feast.stores.online.documents import SearchedViews
from reki_feast.stores.online.layouts import FeatureColumn
from reki_feast.stores.online.searching import RedisSearcher, oldest
from reki_feast.stores.redis_online import location_of
from reki_feast.stores.search import Filter, Query, QueryError, metric_of

from .features import ServedFeature
from .plan import ReadPlan, ViewPlan


@dataclass(frozen=True)
class Asked:
    """What a call of ``TensorReader.nearest`` asks for.

    Attributes:
        vector: (d,) list, array or tensor of numbers.
        count: how many rows.
        metric: name of a metric; None: the field's own, or L2.
        filters: of Feast; None: none.
        view: name of the view, as the service has it; None: the one with a vector index.
    """

    vector: Any
    count: int
    metric: str | None
    filters: Filter | None
    view: str | None


@dataclass(frozen=True)
class FoundRows:
    """The nearest rows, without features.

    Attributes:
        ids: column to n ids.
        scores: (n,) float32, the larger the nearer.
        plan: of the features that these ids have.
    """

    ids: Mapping[str, list[Any]]
    scores: np.ndarray
    plan: ReadPlan


class Searches:
    """Searches of the views of a repo, in the memory that its online store has for them."""

    def __init__(self, store: FeatureStore) -> None:
        """Nothing is read yet."""
        self._store, self._online = store, provider_of(store).online_store
        is_ours = isinstance(self._online, RedisSearcher)
        self._searched = self._online.searched if is_ours else SearchedViews()

    def find(self, plan: ReadPlan, asked: Asked) -> FoundRows:
        """The nearest rows.

        Raises:
            QueryError: what is asked does not fit the service.
            StoreError: Redis cannot be reached, or stored vectors differ in length.
        """
        searched = _searched(plan, asked.view)
        view, config = searched.view, self._store.config
        field = vector_field(view, [feature.source for feature in searched.features])
        metric = metric_of(asked.metric or field.vector_search_metric)
        query = Query(
            _vector(asked.vector), asked.count, metric, asked.filters, oldest(view, config)
        )
        rows = DocumentRows(config, view, field, self._client)
        with redis_errors(location_of(self._online, config)):
            found = self._searched.of(rows).nearest(query)
        columns = searched.join_keys
        ids = {columns[key]: rows.ids(key, found.keys) for key in columns}
        scores = metric.scores(found.distances).astype(np.float32)
        return FoundRows(ids, scores, _part(plan, set(columns.values())))

    def _client(self) -> Any:
        return redis_client_of(self._online, self._store.config.online_store)


def no_rows(feature: ServedFeature) -> FeatureColumn:
    """A feature of no rows."""
    values, valid = decode([], feature.kind)
    if feature.is_list:
        values = values.reshape(0, feature.width or 0)
    return FeatureColumn(values, valid)


def _vector(values: Any) -> np.ndarray:
    try:
        return np.asarray(values, np.float32)
    except (ValueError, TypeError) as error:
        raise QueryError(
            "A query is a list, an array or a tensor of numbers",
            detail=str(error),
            hint="give a vector of floats",
        ) from error


def _searched(plan: ReadPlan, name: str | None) -> ViewPlan:
    """The view that is searched."""
    views = {view.name: view for view in plan.views if view.has_vector_index}
    if name is None and len(views) == 1:
        return next(iter(views.values()))
    if name not in views:
        raise QueryError(
            "A view of the service with a vector index is searched",
            detail=f"{name!r}; {', '.join(views) or 'none'} have one",
            hint="name one of them, view=…; a field has an index by vector_index=True",
        )
    return views[name]


def _part(plan: ReadPlan, columns: set[str]) -> ReadPlan:
    """What of a plan can be read for these ids alone."""
    views = [view for view in plan.views if set(view.join_keys.values()) <= columns]
    readable = {feature.name for view in views for feature in view.features}
    names: Sequence[str] = [name for name in plan.names if name in readable]
    return ReadPlan(views, [], names, plan.widths)
