"""Items out of the recommenders that are stored beside the weights which were trained with them."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from reki_feast.tables.lake import Lake

#: The embeddings of a recommender's items by index; 0 is none.
_EMBEDDINGS = "inputs.item.weight"


def forget_items(lake: Lake, ids: Collection[str]) -> set[str]:
    """Remove ids and embeddings of items, given as text; those that were there.

    Raises:
        LakeError: the file is damaged, or cannot be written.
    """
    found = lake.backbones() if ids else None
    if found is None:
        return set()
    arrays, manifests = found
    gone: set[str] = set()
    for number, about in enumerate(manifests):
        name = f"block{number}.{_EMBEDDINGS}"
        items = about["items"] if about else []
        stays = [str(one) not in ids for one in items]
        if not all(stays):
            gone |= {str(one) for one in items} & {*ids}
            about["items"] = [one for one, kept in zip(items, stays, strict=True) if kept]
            arrays = {**arrays, name: np.asarray(arrays[name])[[True, *stays]]}
    if gone:
        lake.write_backbones(arrays, manifests)
    return gone
