"""Trained embeddings, as named arrays and a manifest, and back."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from torch import nn

from reki_feast.clustering.embeddings.attributes import (
    Vocabularies,
    attributes_of,
    concatenated,
    encode_attributes,
    table_name,
    tensor,
    used_values,
)
from reki_feast.encoding import Floats
from reki_feast.errors import CondenseError
from reki_feast.schema import Key

_VERSION = 3
#: named the MLP's weights "output." instead of "deep."
_RENAMED = 2
_REFIT = "fit the embeddings again"


@dataclass(frozen=True, eq=False)
class Embedder:
    """Trained embeddings, and the rest of the DIN that new ones are folded into.

    Attributes:
        user: the users' key.
        item: the items' key.
        item_ids: ``[n]``, ids in the key's type.
        item_vectors: ``[n, d_i]`` float32: embeddings of the id, then of each attribute, e floats
            each.
        item_vocabularies: values of the item attributes, in the order of their embeddings.
        user_vocabularies: the same for users.
        levels: rating levels of the histories; empty where they hold liked and not liked.
        weights: DIN's state by name, float32, without the embeddings of ids.
    """

    user: Key
    item: Key
    item_ids: pa.Array
    item_vectors: Floats
    item_vocabularies: Vocabularies
    user_vocabularies: Vocabularies
    levels: tuple[float, ...]
    weights: Mapping[str, Floats]

    @property
    def size(self) -> int:
        """e, floats of one embedding."""
        return int(self.weights["inputs.verdict.weight"].shape[1])

    def profile_vectors(self, users: pa.Table | None, ids: pa.Array) -> Floats:
        """The embeddings of user profiles: one of each attribute, concatenated.

        Args:
            users: user key and attribute columns; None where there are no profiles.
            ids: of the users, in the key's type.

        Returns:
            float32 ``[len(ids), d_p]``, e floats an attribute; 0 for unknown users and values.

        Raises:
            CondenseError: an attribute column is missing from ``users`` or not of categories.
        """
        if users is None or not self.user_vocabularies:
            return np.zeros((len(ids), self.size * len(self.user_vocabularies)), np.float32)
        table = attributes_of(users, self.user, list(self.user_vocabularies), "users")
        names = [table_name("user", number) for number in range(len(self.user_vocabularies))]
        tables = [nn.Embedding.from_pretrained(tensor(self.weights[name])) for name in names]
        return concatenated(tables, encode_attributes(table, ids, self.user_vocabularies)).numpy()

    def without(self, ids: pa.Array, items: pa.Table, users: pa.Table | None) -> Embedder:
        """A copy without some items, and without attribute values that no remaining row has.

        Args:
            ids: of the items to remove, as text; unknown ones are ignored.
            items: the remaining items, with their attributes.
            users: the remaining users.

        Returns:
            The embedder; remaining vectors are the same, bit for bit.
        """
        remaining = pc.invert(pc.is_in(self.item_ids.cast(pa.string()), value_set=ids))
        weights, vocabularies = (
            dict(self.weights),
            {"user": self.user_vocabularies, "item": self.item_vocabularies},
        )
        for kind, table in (("user", users), ("item", items)):
            used = used_values(table, vocabularies[kind])
            for number, kept in enumerate(used.values()):
                rows = np.append(True, kept.to_numpy(zero_copy_only=False))
                weights[table_name(kind, number)] = weights[table_name(kind, number)][rows]
            vocabularies[kind] = {
                name: values.filter(used[name]) for name, values in vocabularies[kind].items()
            }
        return replace(
            self,
            item_ids=self.item_ids.filter(remaining),
            item_vectors=self.item_vectors[remaining.to_numpy(zero_copy_only=False)],
            item_vocabularies=vocabularies["item"],
            user_vocabularies=vocabularies["user"],
            weights=weights,
        )

    def tensors(self) -> dict[str, Floats]:
        """All arrays by name, float32, ready for safetensors."""
        return {"item_vectors": self.item_vectors, **self.weights}

    def manifest(self) -> dict[str, Any]:
        """What belongs to the tensors, as JSON; ``hash`` covers both."""
        written = {
            "version": _VERSION,
            "user": [self.user.name, str(self.user.type)],
            "item": [self.item.name, str(self.item.type)],
            "item_ids": self.item_ids.to_pylist(),
            "item_books": [
                [name, book.to_pylist()] for name, book in self.item_vocabularies.items()
            ],
            "user_books": [
                [name, book.to_pylist()] for name, book in self.user_vocabularies.items()
            ],
            "levels": list(self.levels),
        }
        return {**written, "hash": _hash(self.tensors(), written)}


def restore(tensors: Mapping[str, Floats], manifest: Mapping[str, Any]) -> Embedder:
    """Build the embedder again from :meth:`Embedder.tensors` and :meth:`Embedder.manifest`.

    Raises:
        CondenseError: the manifest is of another version or incomplete, or the tensors are not
            those it was written with.
    """
    rule = "embeddings and their manifest belong together"
    try:
        if manifest["version"] not in (_VERSION, _RENAMED):
            raise ValueError(f"version {manifest['version']!r} instead of {_VERSION}")
        written = {name: value for name, value in manifest.items() if name != "hash"}
        same = _hash(tensors, written) == manifest["hash"]
        user, item = (Key(name, pa.type_for_alias(kind)) for name, kind in _keys(manifest))
        weights = {
            re.sub(r"^output\.", "deep.", name): values
            for name, values in tensors.items()
            if name != "item_vectors"
        }
        embedder = Embedder(
            user=user,
            item=item,
            item_ids=pa.array(manifest["item_ids"], item.type),
            item_vectors=tensors["item_vectors"],
            item_vocabularies={
                name: pa.array(book, pa.string()) for name, book in manifest["item_books"]
            },
            user_vocabularies={
                name: pa.array(book, pa.string()) for name, book in manifest["user_books"]
            },
            levels=tuple(manifest["levels"]),
            weights=weights,
        )
    except (KeyError, TypeError, ValueError) as error:
        found = f"{type(error).__name__}: {error}"
        raise CondenseError(rule, detail=found, hint=_REFIT) from error
    if not same:
        raise CondenseError(rule, detail="another hash", hint=_REFIT)
    return embedder


def _keys(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(str(name), str(kind)) for name, kind in (manifest["user"], manifest["item"])]


def _hash(tensors: Mapping[str, Floats], written: Mapping[str, Any]) -> str:
    digest = hashlib.blake2b(json.dumps(written, sort_keys=True).encode(), digest_size=16)
    for name, values in sorted(tensors.items()):
        digest.update(f"{name} {values.shape} {values.dtype}".encode())
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()
