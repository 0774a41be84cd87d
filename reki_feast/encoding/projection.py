"""Representations of fewer floats: their principal components, by a projection that is fitted once.

The components of all representations of a space are the same ones, whenever a text came. HEIN's own
principal components (:mod:`reki_feast.models.hein.standardisation`) are of its weights, and are
fitted to what this projection leaves.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from reki_feast.encoding.columns import Floats
from reki_feast.encoding.encoder import TextEncoder
from reki_feast.errors import EncodeError

#: Texts that a projection is fitted to, at most.
FITTED_TO = 50_000
_ROWS = 8_192  # vectors that are projected at a time


@dataclass(frozen=True)
class Projection:
    """The first p principal components of texts' vectors.

    Attributes:
        centre: ``[m]``, mean of the texts that it was fitted to.
        components: ``[m, p]``, of unit length, the one of the largest variance first.
        explained: share of the variance of these texts' vectors that the components keep.
        texts: how many texts it was fitted to.
    """

    centre: Floats
    components: Floats
    explained: float
    texts: int

    @classmethod
    def fit(cls, vectors: Floats, components: int) -> Projection:
        """Fit to vectors ``[n, m]``.

        Raises:
            EncodeError: vectors have fewer floats than there are to be components, or there are no
                two texts.
        """
        count, width = vectors.shape
        if components > width:
            raise EncodeError(
                "Encoder(components=…) is at most the number of floats of the encoder's vectors",
                detail=f"{components} of {width} floats",
                hint=f"components={width} or fewer, or leave components out",
            )
        if count < 2:
            rule = "principal components are fitted to two texts or more"
            raise EncodeError(rule, detail=f"{count}", hint="leave components out")
        centre = vectors.mean(axis=0, dtype=np.float64)
        scatter = np.zeros((width, width))
        for start in range(0, count, _ROWS):
            part = vectors[start : start + _ROWS] - centre
            scatter += part.T @ part
        values, basis = np.linalg.eigh(scatter)
        values, basis = values[::-1].clip(0), basis[:, ::-1][:, :components]
        # an eigenvector's sign is open: the float that is largest is positive
        basis = basis * np.sign(basis[np.abs(basis).argmax(axis=0), np.arange(components)])
        kept = float(values[:components].sum() / max(values.sum(), np.finfo(np.float64).tiny))
        return cls(centre.astype(np.float32), basis.astype(np.float32), kept, count)

    @property
    def width(self) -> int:
        """Floats p of a projected vector."""
        return int(self.components.shape[1])

    @property
    def id(self) -> str:
        """Tells it from every other one."""
        digest = hashlib.blake2b(digest_size=4)
        for array in (self.centre, self.components):
            digest.update(np.ascontiguousarray(array, "<f4").tobytes())
        return f"pca{self.width}-{digest.hexdigest()}"

    @property
    def about(self) -> str:
        """What it keeps, in words."""
        return (
            f"the first {self.width} principal components of {len(self.centre)} floats, which "
            f"explain {self.explained:.1%} of the variance (fitted to {self.texts:,} texts)"
        )

    def reduced(self, vectors: Floats) -> Floats:
        """Vectors ``[n, m]`` as ``[n, p]``; a vector's floats do not depend on the others."""
        made = np.empty((len(vectors), self.width), np.float32)
        for start in range(0, len(vectors), _ROWS):
            part = vectors[start : start + _ROWS].astype(np.float64) - self.centre
            made[start : start + _ROWS] = part @ self.components.astype(np.float64)
        return made

    def tensors(self) -> dict[str, Floats]:
        """Its arrays by name."""
        return {"centre": self.centre, "components": self.components}

    def manifest(self) -> dict[str, Any]:
        """JSON-able data about it."""
        return {"format": 1, "explained": self.explained, "texts": self.texts}

    @classmethod
    def of(cls, tensors: Mapping[str, Floats], about: Mapping[str, Any]) -> Projection:
        """Of :meth:`tensors` and :meth:`manifest`.

        Raises:
            EncodeError: they are of another format.
        """
        if about.get("format") != 1 or not {"centre", "components"} <= tensors.keys():
            raise EncodeError(
                "the stored projection of representations is of format 1",
                detail=f"format {about.get('format')!r}",
                hint="reki run --retrain, which fits another one in a space of its own",
            )
        return cls(tensors["centre"], tensors["components"], about["explained"], about["texts"])


class ProjectedEncoder:
    """An encoder whose vectors are projected.

    Args:
        encoder: gives the vectors ``[n, m]``.
        projection: makes ``[n, p]`` of them.
    """

    def __init__(self, encoder: TextEncoder, projection: Projection) -> None:
        self._encoder, self._projection = encoder, projection
        self.name = f"{encoder.name}/{projection.id}"

    @property
    def dimension(self) -> int:
        """Length p of a vector."""
        return self._projection.width

    def encode(self, texts: list[str]) -> Floats:
        """Encode texts to float32 ``[n, p]``."""
        return self._projection.reduced(self._encoder.encode(texts))
