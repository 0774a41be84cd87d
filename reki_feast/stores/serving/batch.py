"""What ``TensorReader`` returns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from typing_extensions import override


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
class Nearest:
    """The rows of a view that are nearest to a vector, the nearest first.

    Attributes:
        ids: join key to n ids, as ``read`` takes them.
        scores: (n,) float32, the larger the nearer: cosine, inner product, or minus the Euclidean
            distance; a tensor or a numpy array.
        features: what the service has for these ids alone.
    """

    ids: Mapping[str, list[Any]]
    scores: Any
    features: FeatureBatch
