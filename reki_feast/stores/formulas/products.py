"""Dot products of two vectors and of their parts.

Both vectors are made of equally many parts of one length. The dot product of each pair of parts is
a number, and their sum is the dot product of the whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .base import Floats, VectorInput, source_of


def dot_products(user: Floats, item: Floats, parts: int) -> Floats:
    """Dot products of vectors ``[n, q]`` and, below, of each of their parts: ``[1 + parts, n]``."""
    shape = (len(user), parts, user.shape[1] // parts)
    products = np.einsum("npd,npd->pn", user.reshape(shape), item.reshape(shape))
    scores: Floats = np.concatenate([products.sum(0, keepdims=True), products])
    return scores


@dataclass(frozen=True)
class DotProducts:
    """Dot products of a user's and an item's vector.

    Attributes:
        user: reference of the user's vector, ``view:feature``.
        item: reference of the item's.
        size: q, floats of either.
        names: of the results: the whole vectors', then one a pair of parts.
    """

    user: str
    item: str
    size: int
    names: tuple[str, ...]

    hides_inputs = False

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> DotProducts:
        """From JSON of its fields."""
        return cls(raw["user"], raw["item"], int(raw["size"]), tuple(raw["names"]))

    @property
    def inputs(self) -> tuple[VectorInput, ...]:
        """The user's vector and the item's."""
        return VectorInput(self.user, self.size), VectorInput(self.item, self.size)

    @property
    def parts(self) -> int:
        """Number of parts."""
        return len(self.names) - 1

    @property
    def source(self) -> str:
        """Python that computes it in a frame, for Feast to store: it needs numpy and pandas."""
        return source_of(dot_products, (self.parts,), self.inputs, self.names)

    def scores(self, *vectors: Floats) -> Floats:
        """Results ``[names, n]`` of the two vectors ``[n, q]``; a single one is for every row."""
        user, item = np.broadcast_arrays(*vectors)
        return dot_products(user, item, self.parts)
