"""Dot products of two augmented vectors and of their parts.

The two vectors are made of parts, one a pair of channels, that HEIN learnt to be read together.
The dot product of each pair's parts is a number, and their sum is the dot product of the whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .formula import Floats, Input, source_of


def dot_products(user: Floats, item: Floats, parts: int) -> Floats:
    """Dot products of vectors ``[n, q]`` and, below, of each of their parts: ``[1 + parts, n]``."""
    shape = (len(user), parts, user.shape[1] // parts)
    products = np.einsum("npd,npd->pn", user.reshape(shape), item.reshape(shape))
    scores: Floats = np.concatenate([products.sum(0, keepdims=True), products])
    return scores


@dataclass(frozen=True)
class Match:
    """Dot products of a user's and an item's augmented vector.

    Attributes:
        user: reference of the user's vector, ``view:feature``.
        item: reference of the item's.
        size: q, floats of either.
        names: of the scores: all floats, then a pair of channels each.
    """

    user: str
    item: str
    size: int
    names: tuple[str, ...]

    @classmethod
    def said(cls, raw: Mapping[str, Any]) -> Match:
        """Out of JSON of its fields."""
        return cls(raw["user"], raw["item"], int(raw["size"]), tuple(raw["names"]))

    @property
    def inputs(self) -> tuple[Input, ...]:
        """The user's vector and the item's."""
        return Input(self.user, self.size), Input(self.item, self.size)

    @property
    def parts(self) -> int:
        """Number of channel pairs."""
        return len(self.names) - 1

    @property
    def source(self) -> str:
        """Python that computes it in a frame, for Feast to store: it needs numpy and pandas."""
        return source_of(dot_products, (self.parts,), self.inputs, self.names)

    def scores(self, *vectors: Floats) -> Floats:
        """Scores ``[names, n]`` of the two vectors ``[n, q]``; one goes with every row."""
        user, item = np.broadcast_arrays(*vectors)
        return dot_products(user, item, self.parts)
