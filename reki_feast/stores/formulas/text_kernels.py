"""TextKernel regression over a user's recent vectors, beside a two-tower score, and their stack.

A kernel compares the text vector of an item with those of the items that the user interacted with
last. Each counts for as much as it is similar; its residual is how much more than expected the user
liked it::

    similarity = exp(sharpness (texts · text - 1)), 0 without a text
    kernel     = Σ similarity residual / (Σ similarity + shrink)
    hein       = user tower · item tower
    score      = stack[0] + Σ stack[1 + k] kernel[k] + stack[-1] hein

A user's vector holds the texts, newest first and zeros where there are fewer, their residuals, and
the tower; an item's its text, or zeros, the tower, and the stack's weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .base import Floats, VectorInput, source_of
from .kernel import TextKernel, item_length, user_length


def text_scores(
    user: Floats,
    item: Floats,
    kernels: Sequence[tuple[float, float]],
    width: int,
    recent: int,
    tower: int,
) -> Floats:
    """Scores ``[1 + kernels + 1, n]``: the stack's, each kernel's, HEIN's.

    Of items' vectors ``[n, …]`` and users' ``[n, …]``, or ``[1, …]`` where one meets all items.
    """
    scores = np.empty((len(kernels) + 2, len(item)), np.float32)
    for start in range(0, len(item), 4096):  # which bounds memory
        rows = slice(start, start + 4096)
        users, items = user if len(user) == 1 else user[rows], item[rows]
        # Arrays [user, his items, …]: what meets one user is a single product of matrices.
        texts = users[:, : recent * width].reshape(-1, recent, width)
        residuals = users[:, recent * width : -tower, None]
        text = items[:, :width].reshape(len(users), -1, width)
        towers = items[:, width : width + tower].reshape(len(users), -1, tower)
        some, others = np.logical_or.reduce(text, 2), np.logical_or.reduce(texts, 2)
        there = some[:, :, None] & others[:, None]
        far = text @ texts.swapaxes(1, 2) - 1
        for place, (sharpness, shrink) in enumerate(kernels, 1):
            alike = np.exp(sharpness * far) * there
            liked = (alike @ residuals)[:, :, 0]
            scores[place, rows] = (liked / (alike.sum(2) + shrink)).ravel()
        scores[-1, rows] = (towers @ users[:, -tower:, None]).ravel()
        stack = items[:, width + tower :].T
        scores[0, rows] = stack[0] + (stack[1:] * scores[1:, rows]).sum(0)
    return scores


@dataclass(frozen=True)
class TextKernels:
    """Scores of text kernels and of two towers, and their stack.

    Attributes:
        user: reference of the user's vector, ``view:feature``.
        item: reference of the item's.
        kernels: in the order of their scores.
        width: floats of a text.
        recent: texts of a user.
        tower: floats of the towers.
    """

    user: str
    item: str
    kernels: tuple[TextKernel, ...]
    width: int
    recent: int
    tower: int

    #: A user's vector has some thousand floats, which in each row of a join would be gigabytes.
    hides_inputs = True

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> TextKernels:
        """From JSON of its fields."""
        kernels = tuple(TextKernel.from_json(kernel) for kernel in raw["kernels"])
        sizes = [int(raw[name]) for name in ("width", "recent", "tower")]
        return cls(raw["user"], raw["item"], kernels, *sizes)

    @property
    def inputs(self) -> tuple[VectorInput, ...]:
        """The user's vector and the item's."""
        user = user_length(self.width, self.recent, self.tower)
        item = item_length(len(self.kernels), self.width, self.tower)
        return VectorInput(self.user, user), VectorInput(self.item, item)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the results: the stack's, each kernel's, the towers'."""
        return ("score", *(kernel.name for kernel in self.kernels), "hein")

    @property
    def source(self) -> str:
        """Python that computes it in a frame, for Feast to store: it needs numpy and pandas."""
        return source_of(text_scores, self._options, self.inputs, self.names)

    def scores(self, *vectors: Floats) -> Floats:
        """Results ``[names, n]`` of users' and items' vectors; a single one is for every row."""
        user, item = vectors
        if len(item) == 1:
            item = np.broadcast_to(item, (len(user), item.shape[1]))
        return text_scores(user, item, *self._options)

    @property
    def _options(self) -> tuple[tuple[tuple[float, float], ...], int, int, int]:
        kernels = tuple((kernel.sharpness, kernel.shrink) for kernel in self.kernels)
        return kernels, self.width, self.recent, self.tower
