"""Items out of the recommenders that are stored beside the weights which were trained with them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt

from reki_feast import files
from reki_feast.tables.lake import Lake
from reki_feast.views.domain_files import domain_files

#: The embeddings of a recommender's items by index; 0 is none.
_EMBEDDINGS = "inputs.item.weight"


def forget_items(lake: Lake, ids: Collection[str]) -> set[str]:
    """Remove ids and embeddings of items, given as text; those that were there.

    Raises:
        LakeError: the file is damaged, or cannot be written.
    """
    if not ids:
        return set()
    gone = _out_of_domains(lake, ids)
    if (found := lake.backbones()) is None:
        return gone
    arrays, manifests = dict(found[0]), found[1]
    here: set[str] = set()
    for number, about in enumerate(manifests):
        if about:
            here |= _out_of(arrays, f"block{number}.{_EMBEDDINGS}", about, ids)
    if here:
        lake.write_backbones(arrays, manifests)
    return gone | here


def _out_of_domains(lake: Lake, ids: Collection[str]) -> set[str]:
    """The same out of the recommenders of domains."""
    gone: set[str] = set()
    for path, about in domain_files(lake.folder_of("hein")):
        arrays = dict(files.read_tensors(path)[0])
        if here := _out_of(arrays, _EMBEDDINGS, about["backbone"], ids):
            lake.write_tensors(path, arrays, about)
            gone |= here
    return gone


def _out_of(
    arrays: dict[str, npt.NDArray[Any]], name: str, about: dict[str, Any], ids: Collection[str]
) -> set[str]:
    """Remove ids and embeddings from one recommender, in place; those that were there."""
    items = about["items"]
    stays = [str(one) not in ids for one in items]
    if not all(stays):
        about["items"] = [one for one, kept in zip(items, stays, strict=True) if kept]
        arrays[name] = np.asarray(arrays[name])[[True, *stays]]
    return {str(one) for one in items} & {*ids}
