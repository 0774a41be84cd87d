"""``TensorReader``: the features of many ids as tensors, in one round trip to Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from feast import FeatureService, FeatureStore

from reki_feast.errors import StoreError
from reki_feast.stores.online.layouts import FeatureColumn

from .batch import FeatureBatch, Nearest
from .connections import Connections
from .features import Defaults
from .filling import computed, filled, repeated
from .ids import Ids, columns_of
from .nearest import Asked, FoundRows, Searches, no_rows
from .plan import ReadPlan, ViewPlan, plan_of

Kind = Literal["torch", "numpy"]


@dataclass(frozen=True)
class _ViewCommands:
    """One view's part of a call.

    Attributes:
        view: what is read.
        replies: how many replies its commands have.
        inverse: (n,) for each row of the call the index of its entity; None where each row has its
            own, or all have one.
    """

    view: ViewPlan
    replies: int
    inverse: np.ndarray | None


@dataclass(frozen=True)
class _Commands:
    """The packed commands of a call of n rows, for all its views."""

    parts: Sequence[_ViewCommands]
    commands: bytes
    rows: int

    @property
    def replies(self) -> int:
        return sum(part.replies for part in self.parts)


class TensorReader:
    """Reads a feature service's numbers from Redis, straight into tensors.

    One round trip for all views; repeated ids are read once. Lists of floats become ``(n, d)``
    float32 (float64 for doubles), scalars ``(n,)`` of their own type, times int64 seconds since
    1970; on-demand views that have a formula, such as match scores, are computed. It may be used
    by many threads and event loops at once.

    An id without a value gets the feature's default: the one passed here, else the default vector
    in the view's tags, else zeros; ``FeatureBatch.known`` is its validity mask.

    Example::

        reader = TensorReader(store, "ctr", timeout=0.05)
        batch = reader.read({"user_id": [7], "item_id": candidates})
        scores = model(batch["user_aug"], batch["item_aug"])
    """

    def __init__(
        self,
        store: FeatureStore,
        service: str | FeatureService | Sequence[str],
        *,
        defaults: Defaults | None = None,
        full_feature_names: bool = False,
        kind: Kind = "torch",
        timeout: float | None = None,
    ) -> None:
        """Resolve the service; the registry is not read again until ``refresh``.

        Args:
            store: a Feast repo whose online store is Redis, Feast's own or this package's.
            service: a feature service or its name, or refs ``view:feature``.
            defaults: by feature, the value for ids that are not stored: a number or a vector.
            full_feature_names: name features ``view__feature``, as Feast does.
            kind: of the arrays returned; ``numpy`` works without torch.
            timeout: seconds to wait for Redis; by default the connection string's, else 1.

        Raises:
            StoreError: the service is not registered or has features that are no numbers, a default
                does not fit, or the online store is not Redis.
        """
        if kind not in ("torch", "numpy"):
            raise StoreError(
                "kind is the kind of the arrays returned",
                detail=f"{kind!r}",
                hint='kind="torch" or kind="numpy"',
            )
        if not isinstance(service, str | FeatureService):
            service = list(service)
        self._store = store
        self._service = service
        self._defaults = dict(defaults or {})
        self._full_names = full_feature_names
        self._convert = _tensor if kind == "torch" else _array
        self._connections = Connections(store, timeout)
        self._searches = Searches(store)
        self.refresh()

    def refresh(self) -> None:
        """Resolve the service again, after ``feast apply``.

        Raises:
            StoreError: as when it was made; the plan of before stays in use.
        """
        self._plan = plan_of(
            self._store,
            self._service,
            defaults=self._defaults,
            full_names=self._full_names,
        )

    def read(self, ids: Mapping[str, Ids]) -> FeatureBatch:
        """The features of some ids.

        Args:
            ids: join key to n ids: list, array, tensor or Arrow array. One id goes with every row.

        Raises:
            StoreError: the ids don't fit the service, Redis does not answer in time, or what it
                stores does not fit the registry.
        """
        return self._read(self._plan, ids)

    async def read_async(self, ids: Mapping[str, Ids]) -> FeatureBatch:
        """``read`` on the running event loop."""
        return await self._read_async(self._plan, ids)

    def nearest(
        self,
        query: Any,
        k: int = 50,
        *,
        metric: str | None = None,
        filters: Any = None,
        view: str | None = None,
    ) -> Nearest:
        """The rows of a view that are nearest to a vector, and their features.

        The first call reads the view's vectors into memory, where they follow Redis from then on.

        Args:
            query: (d,) list, array or tensor of numbers.
            k: how many rows; fewer are found where there are fewer.
            metric: cosine, inner_product or L2; None: as the field with the vector index says,
                else L2.
            filters: ComparisonFilter or CompoundFilter of ``feast.filter_models`` over features and
                join keys of the view, and ``event_timestamp``.
            view: of the service, with a vector index; None: the only one.

        Raises:
            QueryError: what is asked does not fit the service; a StoreError and ValueError.
            StoreError: Redis does not answer in time, or stored vectors differ in length.
        """
        found = self._searches.find(self._plan, Asked(query, k, metric, filters, view))
        batch = self._read(found.plan, found.ids) if len(found.scores) else self._no_rows(found)
        return Nearest(found.ids, self._convert(found.scores), batch)

    async def nearest_async(
        self,
        query: Any,
        k: int = 50,
        *,
        metric: str | None = None,
        filters: Any = None,
        view: str | None = None,
    ) -> Nearest:
        """``nearest`` on the running event loop; the search itself in a thread."""
        asked = Asked(query, k, metric, filters, view)
        found = await asyncio.to_thread(self._searches.find, self._plan, asked)
        if not len(found.scores):
            return Nearest(found.ids, self._convert(found.scores), self._no_rows(found))
        batch = await self._read_async(found.plan, found.ids)
        return Nearest(found.ids, self._convert(found.scores), batch)

    def close(self) -> None:
        """Close the connections of ``read``; a later read opens new ones."""
        self._connections.close()

    async def aclose(self) -> None:
        """Close the connections that ``read_async`` has on the running event loop."""
        await self._connections.aclose()

    def __enter__(self) -> TensorReader:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    async def __aenter__(self) -> TensorReader:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.aclose()
        self.close()

    def _read(self, plan: ReadPlan, ids: Mapping[str, Ids]) -> FeatureBatch:
        call = _commands(plan, ids)
        return self._batch(plan, call, self._connections.execute(call.commands, call.replies))

    async def _read_async(self, plan: ReadPlan, ids: Mapping[str, Ids]) -> FeatureBatch:
        call = _commands(plan, ids)
        replies = await self._connections.execute_async(call.commands, call.replies)
        return self._batch(plan, call, replies)

    def _no_rows(self, found: FoundRows) -> FeatureBatch:
        features = [feature for view in found.plan.views for feature in view.features]
        columns = {f.name: no_rows(f) for f in features if f.name in found.plan.names}
        return FeatureBatch(
            {name: self._convert(column.values) for name, column in columns.items()},
            {name: self._convert(column.valid) for name, column in columns.items()},
        )

    def _batch(self, plan: ReadPlan, call: _Commands, replies: Sequence[Any]) -> FeatureBatch:
        columns: dict[str, FeatureColumn] = {}  # of n rows each, or of a single one for all
        first = 0
        for part in call.parts:
            stored = part.view.columns(replies[first : first + part.replies])
            first += part.replies
            for feature, column in zip(part.view.features, stored, strict=True):
                read = filled(feature, column, plan.widths)
                if part.inverse is not None:
                    read = FeatureColumn(*[rows[part.inverse] for rows in read])
                columns[feature.name] = read
        for formula in plan.formulas:
            columns.update(computed(formula, columns))
        batch = {name: repeated(columns[name], call.rows) for name in plan.names}
        return FeatureBatch(
            {name: self._convert(column.values) for name, column in batch.items()},
            {name: self._convert(column.valid) for name, column in batch.items()},
        )


def _commands(plan: ReadPlan, ids: Mapping[str, Ids]) -> _Commands:
    columns, rows = columns_of(ids, plan.id_columns)
    parts, commands = [], []
    for view in plan.views:
        entities, inverse = _unique(view.entities(columns), rows)
        command, replies = view.layout.read(entities)
        commands.append(command)
        parts.append(_ViewCommands(view, replies, inverse))
    return _Commands(parts, b"".join(commands), rows)


def _unique(entities: list[bytes], rows: int) -> tuple[list[bytes], np.ndarray | None]:
    """Distinct entity keys, and the inverse: (n,) for each row the index of its own.

    None where each row has its own, or all have one.
    """
    indices = {key: index for index, key in enumerate(dict.fromkeys(entities))}
    if len(indices) in (1, len(entities)):
        return list(indices), None
    return list(indices), np.fromiter(map(indices.__getitem__, entities), np.intp, rows)


def _tensor(array: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(array)


def _array(array: np.ndarray) -> np.ndarray:
    return array
