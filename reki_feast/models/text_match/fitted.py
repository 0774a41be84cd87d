"""Fitted text match scores."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from reki_feast.encoding import Floats
from reki_feast.models.text_match.settings import MatchSettings
from reki_feast.models.text_match.states import Encoded
from reki_feast.models.text_match.texts import Basis, Texts
from reki_feast.models.text_match.towers import (
    Towers,
)
from reki_feast.tables.asof import Indices


@dataclass(frozen=True)
class ScoreBlock:
    """What scores rows from a cut on.

    Attributes:
        cut: microseconds since 1970; labels strictly before it were learnt.
        towers: None where there was too little to learn from.
        stack: ``[1 + kernels + 1]``, weights of the scores.
    """

    cut: int
    towers: Towers | None
    stack: Floats


@dataclass(frozen=True)
class Fitted:
    """Fitted scores.

    Attributes:
        settings: what they were fitted with.
        channels: of the items, whose vectors make a text.
        basis: reduces texts to few numbers.
        blocks: by cut; before the first one there are kernels' scores alone.
    """

    settings: MatchSettings
    channels: tuple[str, ...]
    basis: Basis
    blocks: tuple[ScoreBlock, ...]

    @property
    def cuts(self) -> Indices:
        """The blocks' cuts, rising."""
        return np.array([block.cut for block in self.blocks], np.int64)

    def number(self, time: Indices) -> Indices:
        """How many blocks begin at or before each time: number k is scored by ``blocks[k - 1]``."""
        return np.searchsorted(self.cuts, time, side="right").astype(np.int64)

    def encode(self, texts: Texts) -> Encoded:
        """Numbers of texts."""
        return Encoded(texts, self.basis.reduced(texts.vectors))

    def users(self, number: int, tastes: Floats) -> Floats:
        """Towers' vectors ``[n, tower]`` of users' tastes ``[n, p]`` in block ``number``."""
        towers = self.blocks[number - 1].towers if number else None
        if towers is None:
            return np.zeros((len(tastes), self.settings.tower), np.float32)
        return towers.users(tastes)

    def items(self, number: int, reduced: Floats) -> Floats:
        """The same of items' texts ``[n, p]``."""
        towers = self.blocks[number - 1].towers if number else None
        if towers is None:
            return np.zeros((len(reduced), self.settings.tower), np.float32)
        return towers.items(reduced)

    def stack(self, number: int) -> Floats:
        """Weights of the scores in block ``number``: 0 before the first."""
        if not number:
            return np.zeros(len(self.settings.kernels) + 2, np.float32)
        return self.blocks[number - 1].stack

    def fingerprint(self, number: int) -> str:
        """Hash of all that makes rows of block ``number``."""
        digest = hashlib.blake2b(digest_size=16)
        made = {f"basis.{name}": one for name, one in self.basis.arrays().items()}
        made |= {f"block.{name}": one for name, one in self._arrays_of(number).items()}
        for name, values in sorted(made.items()):
            digest.update(f"{name} {values.shape}".encode())
            digest.update(np.ascontiguousarray(values).tobytes())
        return digest.hexdigest()

    def _arrays_of(self, number: int) -> dict[str, Floats]:
        if not number:
            return {}
        block = self.blocks[number - 1]
        towers = block.towers.arrays() if block.towers is not None else {}
        return {"stack": block.stack, **{f"towers.{name}": one for name, one in towers.items()}}
