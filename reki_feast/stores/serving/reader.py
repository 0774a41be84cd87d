"""``TensorReader``: the features of many ids as tensors, in one round trip to Redis."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, Literal

import numpy as np
from feast import FeatureService, FeatureStore
from typing_extensions import override

from reki_feast.errors import StoreError
from reki_feast.stores.online.layouts import FeatureColumn

from .connections import Connections
from .features import Defaults, ServedFeature
from .ids import Ids, columns_of
from .plan import FormulaPlan, ReadPlan, ViewPlan, plan_of

Kind = Literal["torch", "numpy"]


class FeatureBatch(Mapping[str, Any]):
    """Features of n ids: name to ``(n, d)`` or ``(n,)``, a tensor or a numpy array.

    Attributes:
        known: name to a validity mask ``(n,)``; False where the store has no value, and the values
            are the default.
    """

    def __init__(self, values: Mapping[str, Any], known: Mapping[str, Any]) -> None:
        self._values = values
        self.known = known

    @override
    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    @override
    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    @override
    def __len__(self) -> int:
        return len(self._values)

    @override
    def __repr__(self) -> str:
        shapes = ", ".join(f"{name}: {tuple(value.shape)}" for name, value in self.items())
        return f"FeatureBatch({shapes})"


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
        plan = self._plan
        call = _commands(plan, ids)
        return self._batch(plan, call, self._connections.execute(call.commands, call.replies))

    async def read_async(self, ids: Mapping[str, Ids]) -> FeatureBatch:
        """``read`` on the running event loop."""
        plan = self._plan
        call = _commands(plan, ids)
        replies = await self._connections.execute_async(call.commands, call.replies)
        return self._batch(plan, call, replies)

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

    def _batch(self, plan: ReadPlan, call: _Commands, replies: Sequence[Any]) -> FeatureBatch:
        columns: dict[str, FeatureColumn] = {}  # of n rows each, or of a single one for all
        first = 0
        for part in call.parts:
            stored = part.view.columns(replies[first : first + part.replies])
            first += part.replies
            for feature, column in zip(part.view.features, stored, strict=True):
                filled = _filled(feature, column, plan.widths)
                if part.inverse is not None:
                    filled = FeatureColumn(*[rows[part.inverse] for rows in filled])
                columns[feature.name] = filled
        for formula in plan.formulas:
            columns.update(_computed(formula, columns))
        batch = {name: _repeated(columns[name], call.rows) for name in plan.names}
        return FeatureBatch(
            {name: self._convert(column.values) for name, column in batch.items()},
            {name: self._convert(column.valid) for name, column in batch.items()},
        )


def _computed(
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


def _filled(feature: ServedFeature, column: FeatureColumn, widths: dict[str, int]) -> FeatureColumn:
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


def _repeated(column: FeatureColumn, rows: int) -> FeatureColumn:
    """A column of so many rows; a single one is repeated."""
    if len(column.valid) == rows:
        return column
    return FeatureColumn(*[np.repeat(single, rows, axis=0) for single in column])


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
