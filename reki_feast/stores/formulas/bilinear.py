"""A domain's score of two vectors: weighted floats, and weighted products of floats."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .base import Floats, VectorInput, source_of


def bilinear(
    user: Floats,
    item: Floats,
    of_user: tuple[float, ...],
    of_item: tuple[float, ...],
    of_both: tuple[float, ...],
    bias: float,
) -> Floats:
    """Scores ``[1, n]`` of vectors ``[n, q]``: a logit."""
    alone = user @ np.array(of_user, np.float32) + item @ np.array(of_item, np.float32)
    scores: Floats = alone + (user * item) @ np.array(of_both, np.float32) + np.float32(bias)
    return scores[None]


@dataclass(frozen=True)
class Bilinear:
    """A domain's score of a user's and an item's vector.

    Attributes:
        user: reference of the user's vector, ``view:feature``.
        item: reference of the item's.
        of_user: weights of the user's floats.
        of_item: of the item's.
        of_both: of their products.
        bias: a number.
    """

    user: str
    item: str
    of_user: tuple[float, ...]
    of_item: tuple[float, ...]
    of_both: tuple[float, ...]
    bias: float

    names = ("score",)
    hides_inputs = False

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Bilinear:
        """From JSON of its fields."""
        of_user, of_item, of_both = (
            tuple(map(float, raw[name])) for name in ("of_user", "of_item", "of_both")
        )
        return cls(raw["user"], raw["item"], of_user, of_item, of_both, float(raw["bias"]))

    @property
    def inputs(self) -> tuple[VectorInput, ...]:
        """The user's vector and the item's."""
        size = len(self.of_both)
        return VectorInput(self.user, size), VectorInput(self.item, size)

    @property
    def source(self) -> str:
        """Python that computes it in a frame, for Feast to store: it needs numpy and pandas."""
        options = (self.of_user, self.of_item, self.of_both, self.bias)
        return source_of(bilinear, options, self.inputs, self.names)

    def scores(self, *vectors: Floats) -> Floats:
        """Results ``[1, n]`` of the two vectors ``[n, q]``; a single one is for every row."""
        user, item = np.broadcast_arrays(*vectors)
        return bilinear(user, item, self.of_user, self.of_item, self.of_both, self.bias)
