"""Weights in blocks of time: a row is made by weights that learnt earlier labels alone.

HEIN is fitted again at each cut, on all labels before it, from the weights of the block before.
Vectors of two blocks are read together, so each block's are rotated and scaled onto those of the
block before: such a map changes dot products of a user's and an item's vector by one factor, and is
part of the experts' last layer, which is linear. (Orthogonal Procrustes problem: Schönemann,
Psychometrika 1966.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from reki_feast.encoding import Floats
from reki_feast.models.hein.config import FittedHein
from reki_feast.models.hein.export import fingerprint, manifest, restore, weights
from reki_feast.models.hein.network import HeinSet
from reki_feast.models.hein.transformation import vectors_of
from reki_feast.models.trained_backbone import TrainedBackbone, restore_backbone, stored
from reki_feast.schema import KINDS

_BLOCK = "block"
_TINY = 1e-9


@dataclass(frozen=True)
class VectorBlock:
    """Fitted HEINs, and the time from which they make vectors.

    Attributes:
        cut: Labels strictly before it were learnt; None without times.
        hein: The fitted HEINs.
    """

    cut: datetime | None
    hein: FittedHein


def align(hein: FittedHein, before: FittedHein, users: pa.Table, items: pa.Table) -> None:
    """Rotate the weights in place so that item vectors are as near as possible to those before.

    And scale them, so that vectors spread as wide as those before: a network that is trained
    further makes them longer and longer, and a model that was trained on the short ones would
    trust long ones too much. A pair's dot products change by one factor. The recommender that was
    trained with the weights, if there is one, is changed so as to make the same of the vectors.

    Args:
        hein: Changed in place.
        before: Of the same pairs and sizes.
        users: Representations that both read.
        items: The same of items.
    """
    size, rotations = hein.heins.output_size, []
    vectors, targets = (
        {"user": vectors_of(one, users, "user"), "item": vectors_of(one, items, "item")}
        for one in (hein, before)
    )
    for pair in range(len(hein.pairs)):
        part = slice(pair * size, (pair + 1) * size)
        product = vectors["item"][:, part].T.astype(np.float64) @ targets["item"][:, part]
        left, _, right = np.linalg.svd(product)
        ratios = [_spread_ratio(targets[kind][:, part], vectors[kind][:, part]) for kind in KINDS]
        factor = np.sqrt(np.prod(ratios))
        rotation = torch.from_numpy((factor * (left @ right)).astype(np.float32))
        for heins in (hein.heins, *hein.folds):
            _rotate(heins, pair, rotation)
        rotations.append(rotation)
    if hein.backbone is not None:
        hein.backbone.model.rotate_vectors(torch.block_diag(*rotations))


def _spread_ratio(one: Floats, other: Floats) -> float:
    """Ratio of the spreads of two sets of vectors; 1 where either has none."""
    spreads = [float(np.sqrt(part.var(axis=0, dtype=np.float64).sum())) for part in (one, other)]
    return spreads[0] / spreads[1] if min(spreads) > _TINY else 1.0


def all_weights(blocks: Sequence[VectorBlock]) -> dict[str, Floats]:
    """All weights of all blocks by name; the last block's have no prefix.

    Args:
        blocks: Blocks in the order of time.

    Returns:
        Arrays by name.
    """
    named = dict(weights(blocks[-1].hein))
    for number, block in enumerate(blocks[:-1]):
        block_weights = weights(block.hein).items()
        named |= {f"{_BLOCK}{number}.{name}": values for name, values in block_weights}
    return named


def all_manifest(blocks: Sequence[VectorBlock]) -> dict[str, Any]:
    """What belongs to :func:`all_weights`, as JSON: the last block's, and when each begins.

    Args:
        blocks: Blocks in the order of time.

    Returns:
        An object for JSON.
    """
    starts = [
        {"cut": block.cut.isoformat() if block.cut else None, "hash": fingerprint(block.hein)}
        for block in blocks
    ]
    return {**manifest(blocks[-1].hein), "blocks": starts}


def restore_all(
    named: Mapping[str, Floats], stored: Mapping[str, Any], *, until: datetime | None
) -> tuple[VectorBlock, ...]:
    """The blocks of :func:`all_weights` and :func:`all_manifest`.

    Args:
        named: The weights.
        stored: The manifest.
        until: End of the labels that the weights of an earlier version learnt, which had one
            block: they make vectors from then on.

    Returns:
        The blocks in the order of time.

    Raises:
        CondenseError: As :func:`reki_feast.models.hein.restore`.
    """
    last = {name: values for name, values in named.items() if not name.startswith(_BLOCK)}
    if "blocks" not in stored:
        return (VectorBlock(until, restore(last, stored)),)
    blocks = []
    for number, start in enumerate(stored["blocks"]):
        cut = datetime.fromisoformat(start["cut"]) if start["cut"] else None
        if number == len(stored["blocks"]) - 1:
            blocks.append(VectorBlock(cut, restore(last, stored)))
            continue
        own = _under(named, f"{_BLOCK}{number}.")
        blocks.append(VectorBlock(cut, restore(own, {**stored, "hash": start["hash"]})))
    return tuple(blocks)


def stored_backbones(
    backbones: Sequence[TrainedBackbone | None],
) -> tuple[dict[str, Floats], list[Any]]:
    """The recommenders of all blocks as named arrays, and what belongs to them.

    Args:
        backbones: In the order of the blocks, None for a block without.

    Returns:
        Arrays by name, and an object for JSON a block, null for a block without.
    """
    named: dict[str, Floats] = {}
    said: list[Any] = []
    for number, backbone in enumerate(backbones):
        arrays, about = ({}, None) if backbone is None else stored(backbone)
        named |= {f"{_BLOCK}{number}.{name}": values for name, values in arrays.items()}
        said.append(about)
    return named, said


def restore_backbones(
    named: Mapping[str, Floats], said: Sequence[Any]
) -> list[TrainedBackbone | None]:
    """The recommenders of :func:`stored_backbones`, one a block.

    Args:
        named: The arrays.
        said: What belongs to them.

    Returns:
        The recommenders in the order of time, None for a block without.

    Raises:
        CondenseError: They are of another format.
    """
    made: list[TrainedBackbone | None] = []
    for number, about in enumerate(said):
        own = _under(named, f"{_BLOCK}{number}.")
        made.append(None if about is None else restore_backbone(own, about))
    return made


def _under(named: Mapping[str, Floats], prefix: str) -> dict[str, Floats]:
    return {
        name.removeprefix(prefix): values
        for name, values in named.items()
        if name.startswith(prefix)
    }


def _rotate(heins: HeinSet, pair: int, rotation: Tensor) -> None:
    hein = heins.heins[pair]
    with torch.no_grad():
        for name in ("second_weight", "second_bias"):
            weight: Tensor = getattr(hein, name)
            weight.copy_(weight @ rotation)
