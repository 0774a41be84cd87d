"""Weights in blocks of time: a row is made by weights that learnt earlier labels alone.

HEIN learns again at each cut, on all labels before it, from where it was. Vectors of two blocks
shall be read together, so each block's are turned and scaled upon those of the block before: such a
map changes dot products of a user's and an item's vector by one factor, and is part of the experts'
last layer, which is linear. (Orthogonal Procrustes problem: Schönemann, Psychometrika 1966.)
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

from reki_feast.condense.export import fingerprint, manifest, restore, vectors_of, weights
from reki_feast.condense.settings import Condensed
from reki_feast.encode import Floats
from reki_feast.hein import HeinSet
from reki_feast.schema import KINDS

_BLOCK = "block"
_TINY = 1e-9


@dataclass(frozen=True)
class VectorBlock:
    """Weights, and since when they make vectors.

    Attributes:
        cut: labels strictly before it were learnt; None without times.
        condensed: the weights.
    """

    cut: datetime | None
    condensed: Condensed


def align(condensed: Condensed, before: Condensed, users: pa.Table, items: pa.Table) -> None:
    """Turn the weights in place so that items' vectors lie as near as can be to those before.

    And scale them, so that vectors are as wide as those before: a network that goes on learning
    makes them longer and longer, and a model that has learnt the short ones trusts long ones too
    much. A pair's dot products change by one factor.

    Args:
        condensed: is changed.
        before: of the same pairs and sizes.
        users: representations that both read.
        items: the same of items.
    """
    size = condensed.heins.output_size
    ours, theirs = (
        {"user": vectors_of(one, users, "user"), "item": vectors_of(one, items, "item")}
        for one in (condensed, before)
    )
    for number in range(len(condensed.pairs)):
        part = slice(number * size, (number + 1) * size)
        product = ours["item"][:, part].T.astype(np.float64) @ theirs["item"][:, part]
        left, _, right = np.linalg.svd(product)
        factor = np.sqrt(np.prod([_wider(theirs[k][:, part], ours[k][:, part]) for k in KINDS]))
        turn = torch.from_numpy((factor * (left @ right)).astype(np.float32))
        for heins in (condensed.heins, *condensed.folds):
            _turn(heins, number, turn)


def _wider(one: Floats, other: Floats) -> float:
    """How much wider vectors spread than others; 1 where either do not."""
    spreads = [float(np.sqrt(part.var(axis=0, dtype=np.float64).sum())) for part in (one, other)]
    return spreads[0] / spreads[1] if min(spreads) > _TINY else 1.0


def all_weights(blocks: Sequence[VectorBlock]) -> dict[str, Floats]:
    """All numbers of all blocks by name; the last block's bear their plain names."""
    named = dict(weights(blocks[-1].condensed))
    for number, block in enumerate(blocks[:-1]):
        named |= {f"{_BLOCK}{number}.{name}": one for name, one in weights(block.condensed).items()}
    return named


def all_manifest(blocks: Sequence[VectorBlock]) -> dict[str, Any]:
    """What belongs to :func:`all_weights`, as JSON: the last block's, and when each begins."""
    begun = [
        {"cut": block.cut.isoformat() if block.cut else None, "hash": fingerprint(block.condensed)}
        for block in blocks
    ]
    return {**manifest(blocks[-1].condensed), "blocks": begun}


def restore_all(
    named: Mapping[str, Floats], said: Mapping[str, Any], *, until: datetime | None
) -> tuple[VectorBlock, ...]:
    """The blocks again, of :func:`all_weights` and :func:`all_manifest`.

    Args:
        named: the numbers.
        said: what belongs to them.
        until: before when the labels came that weights have learnt which an earlier version
            trained in one block: they make vectors from then on.

    Raises:
        CondenseError: as :func:`reki_feast.condense.restore`.
    """
    last = {name: one for name, one in named.items() if not name.startswith(_BLOCK)}
    if "blocks" not in said:
        return (VectorBlock(until, restore(last, said)),)
    blocks = []
    for number, begun in enumerate(said["blocks"]):
        cut = datetime.fromisoformat(begun["cut"]) if begun["cut"] else None
        if number == len(said["blocks"]) - 1:
            blocks.append(VectorBlock(cut, restore(last, said)))
            continue
        prefix = f"{_BLOCK}{number}."
        mine = {
            name.removeprefix(prefix): one for name, one in named.items() if name.startswith(prefix)
        }
        blocks.append(VectorBlock(cut, restore(mine, {**said, "hash": begun["hash"]})))
    return tuple(blocks)


def _turn(heins: HeinSet, pair: int, turn: Tensor) -> None:
    hein = heins.heins[pair]
    with torch.no_grad():
        for name in ("second_weight", "second_bias"):
            weight: Tensor = getattr(hein, name)
            weight.copy_(weight @ turn)
