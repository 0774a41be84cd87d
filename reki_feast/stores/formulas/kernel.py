"""Text kernels and the lengths of their vectors; imported without Feast."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class TextKernel:
    """A kernel, which compares an item's text with a user's recent ones.

    Attributes:
        name: of its result.
        sharpness: how fast the similarity falls with the angle of two texts.
        shrink: the similarity at which the kernel has half its weight.
    """

    name: str
    sharpness: float
    shrink: float

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> TextKernel:
        """From JSON of its fields."""
        return cls(str(raw["name"]), float(raw["sharpness"]), float(raw["shrink"]))


def user_length(width: int, recent: int, tower: int) -> int:
    """Floats of a user's vector.

    >>> user_length(width=32, recent=32, tower=32)
    1088
    """
    return recent * (width + 1) + tower


def item_length(kernels: int, width: int, tower: int) -> int:
    """Floats of an item's vector.

    >>> item_length(2, width=32, tower=32)
    68
    """
    return width + tower + kernels + 2
