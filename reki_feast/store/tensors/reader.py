"""``TensorReader``: the features of many ids as tensors, in one round trip to Redis."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, Literal

import numpy as np
from feast import FeatureService, FeatureStore

from reki_feast.errors import StoreError

from .connections import Connections
from .features import Defaults, Feature
from .ids import Ids, columns_of
from .layouts import Column
from .plan import MatchPlan, Plan, ViewPlan, plan_of

Kind = Literal["torch", "numpy"]


class Batch(Mapping[str, Any]):
    """Features of n ids: name to ``(n, d)`` or ``(n,)``, a tensor or a numpy array.

    Attributes:
        known: name to a mask ``(n,)``; False where the store has no value and the default stands.
    """

    def __init__(self, values: Mapping[str, Any], known: Mapping[str, Any]) -> None:
        self._values = values
        self.known = known

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name}: {tuple(value.shape)}" for name, value in self.items())
        return f"Batch({shapes})"


@dataclass(frozen=True)
class _Part:
    """What is asked of one view, how many replies that has, and which row of them each id takes.

    ``places`` is None where the rows are the ids', one after another, or a single one for all.
    """

    view: ViewPlan
    replies: int
    places: np.ndarray | None


@dataclass(frozen=True)
class _Asked:
    """What is asked of all views for so many rows, and the commands for it."""

    parts: Sequence[_Part]
    commands: bytes
    rows: int

    @property
    def replies(self) -> int:
        return sum(part.replies for part in self.parts)


class TensorReader:
    """Reads a feature service's numbers from Redis, straight into tensors.

    One round trip for all views; ids given twice are asked once. Lists of floats become ``(n, d)``
    float32 (float64 for doubles), scalars ``(n,)`` of their own type, times int64 seconds since
    1970; match scores are computed. It may be used by many threads and event loops at once.

    An id without a value gets the feature's default: the one given here, else the default vector in
    the view's tags, else zeros; ``Batch.known`` tells.

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
        """Look the service up; the registry is not asked again until ``refresh``.

        Args:
            store: a Feast repo whose online store is Redis, Feast's own or ours.
            service: a feature service or its name, or refs ``view:feature``.
            defaults: feature to what unknown ids get, a number or a vector.
            full_feature_names: name features ``view__feature``, as Feast does.
            kind: what to give out; ``numpy`` works without torch.
            timeout: seconds to wait for Redis; by default what the connection string says, else 1.

        Raises:
            StoreError: the service is not there or has features that are no numbers, a default
                does not fit, or the online store is not Redis.
        """
        if kind not in ("torch", "numpy"):
            raise StoreError(
                "kind is what to give out", found=f"{kind!r}", mend='kind="torch" or kind="numpy"'
            )
        if not isinstance(service, str | FeatureService):
            service = list(service)
        self._store = store
        self._service = service
        self._defaults = dict(defaults or {})
        self._full_names = full_feature_names
        self._give = _tensor if kind == "torch" else _array
        self._connections = Connections(store, timeout)
        self.refresh()

    def refresh(self) -> None:
        """Look the service up in the registry anew, after ``feast apply``.

        Raises:
            StoreError: as at the start; what was known before stays in use.
        """
        self._plan = plan_of(
            self._store,
            self._service,
            defaults=self._defaults,
            full_names=self._full_names,
            cluster=self._connections.cluster,
        )

    def read(self, ids: Mapping[str, Ids]) -> Batch:
        """The features of some ids.

        Args:
            ids: join key to n ids: list, array, tensor or Arrow array. One id goes with every row.

        Raises:
            StoreError: the ids don't fit the service, Redis does not answer in time, or what it
                holds does not fit the registry.
        """
        plan = self._plan
        asked = _asked(plan, ids)
        replies = self._connections.ask(asked.commands, asked.replies)
        return self._batch(plan, asked, replies)

    async def read_async(self, ids: Mapping[str, Ids]) -> Batch:
        """The same on the running event loop."""
        plan = self._plan
        asked = _asked(plan, ids)
        replies = await self._connections.ask_async(asked.commands, asked.replies)
        return self._batch(plan, asked, replies)

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

    def _batch(self, plan: Plan, asked: _Asked, replies: Sequence[Any]) -> Batch:
        columns: dict[str, Column] = {}  # of each row, or of a single one that stands for all
        first = 0
        for part in asked.parts:
            found = part.view.layout.columns(replies[first : first + part.replies])
            first += part.replies
            for feature, column in zip(part.view.features, found, strict=True):
                filled = _filled(feature, column, plan.widths)
                if part.places is not None:
                    filled = Column(*[rows[part.places] for rows in filled])
                columns[feature.name] = filled
        for match in plan.matches:
            columns.update(_scored(match, columns))
        given = {name: _for_all(columns[name], asked.rows) for name in plan.names}
        return Batch(
            {name: self._give(column.values) for name, column in given.items()},
            {name: self._give(column.known) for name, column in given.items()},
        )


def _scored(plan: MatchPlan, columns: Mapping[str, Column]) -> Iterator[tuple[str, Column]]:
    """Scores of the vectors read or, where those are not known, of the defaults."""
    vectors = [columns[name] for name in plan.vectors]
    computed = plan.formula.scores(*[vector.values for vector in vectors])
    scores = dict(zip(plan.formula.names, computed, strict=True))
    for feature in plan.features:
        values = scores[feature.source]
        known = reduce(np.logical_and, [vector.known for vector in vectors])
        if feature.default is not None:
            values[~known] = feature.default
        yield feature.name, Column(values, known)


def _filled(feature: Feature, column: Column, widths: dict[str, int]) -> Column:
    """A column that may be written to, with defaults where nothing is known."""
    values, known = column
    if feature.is_list:
        width = _width(feature, values.shape[1] if known.any() else None, widths)
        if not known.any():
            values = np.zeros((len(known), width), values.dtype)
    values = np.require(values, requirements=["C", "W"])
    if not known.all():
        values[~known] = 0 if feature.default is None else feature.default
    return Column(values, np.require(known, requirements=["W"]))


def _width(feature: Feature, found: int | None, widths: dict[str, int]) -> int:
    """How long a feature's vectors are; ``found`` is None when there is none to see."""
    width = feature.width or widths.get(feature.name, found)
    if width is None:
        raise StoreError(
            f"The length of {feature.name} is known before the first row of it is read",
            found="no id that has one, no default, no tag reki.dimension on its view",
            mend=f'defaults={{"{feature.name}": [0.0] * length}}, or the tag on the view',
        )
    if found not in (None, width):
        raise StoreError(
            f"The vectors of {feature.name} have {width} numbers, as the registry says",
            found=f"{found} in Redis",
            mend="`feast apply` and refresh() of the TensorReader, or materialize again",
        )
    widths[feature.name] = width
    return width


def _for_all(column: Column, rows: int) -> Column:
    """A column of so many rows: its single one that often, if it has no more."""
    if len(column.known) == rows:
        return column
    return Column(*[np.repeat(single, rows, axis=0) for single in column])


def _asked(plan: Plan, ids: Mapping[str, Ids]) -> _Asked:
    columns, rows = columns_of(ids, plan.id_columns)
    parts, commands = [], []
    for view in plan.views:
        entities, places = _unique(view.entities(columns), rows)
        command, replies = view.layout.ask(entities)
        commands.append(command)
        parts.append(_Part(view, replies, places))
    return _Asked(parts, b"".join(commands), rows)


def _unique(entities: list[bytes], rows: int) -> tuple[list[bytes], np.ndarray | None]:
    """Entity keys without repetitions, and which of them each row has.

    None for its own, or for the single one.
    """
    places = {key: place for place, key in enumerate(dict.fromkeys(entities))}
    if len(places) in (1, len(entities)):
        return list(places), None
    return list(places), np.fromiter(map(places.__getitem__, entities), np.intp, rows)


def _tensor(array: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(array)


def _array(array: np.ndarray) -> np.ndarray:
    return array
