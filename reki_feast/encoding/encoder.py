"""What an encoder is, and one for tests that needs no model."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Protocol

import numpy as np
import numpy.typing as npt

from reki_feast.encoding.columns import Floats


class TextEncoder(Protocol):
    """What turns texts into vectors; hand in any object of this shape."""

    @property
    def name(self) -> str:
        """Names all that decides a vector (model, pooling, limits): part of every row's hash."""

    @property
    def dimension(self) -> int:
        """Length m of a vector."""

    def encode(self, texts: list[str]) -> Floats:
        """Encode texts to float32 ``[n, m]``, rows in the order of ``texts``."""


class HashEncoder:
    """An encoder for tests: bags of words hashed to Gaussian vectors, without a model.

    Equal texts get equal vectors on every machine; texts that share words get near ones.

    >>> HashEncoder(dimension=8).encode(["a film", "a film"]).shape
    (2, 8)
    """

    def __init__(self, *, dimension: int = 32) -> None:
        self.dimension = dimension
        self.name = f"hash-{dimension}"

    def encode(self, texts: list[str]) -> Floats:
        """Encode texts to float32 ``[n, m]`` of unit length."""
        rows = [self._text(text) for text in texts]
        return np.stack(rows) if rows else np.empty((0, self.dimension), np.float32)

    def _text(self, text: str) -> Floats:
        words = text.casefold().split() or [""]
        total = np.sum([_word(word, self.dimension) for word in words], axis=0)
        return np.asarray(total / np.linalg.norm(total), np.float32)


@lru_cache(maxsize=1 << 16)
def _word(word: str, dimension: int) -> npt.NDArray[np.float64]:
    digest = hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    draw = np.random.default_rng(int.from_bytes(digest, "little"))
    return draw.standard_normal(dimension)
