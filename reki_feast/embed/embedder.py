"""The trained embeddings, as numbers and a manifest, and back."""

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

from reki_feast.embed.values import (
    Books,
    attributes_of,
    fields_of,
    joined,
    table_name,
    tensor,
    values_there,
)
from reki_feast.encode import Floats
from reki_feast.errors import CondenseError
from reki_feast.schema import Key

_VERSION = 3
_RENAMED = 2  # its names of the MLP's weights began with another word
_LEARNT_ANEW = "learn the embeddings anew"


@dataclass(frozen=True, eq=False)
class Embedder:
    """Trained embeddings, and the rest of the DIN, into which new ones are folded.

    Attributes:
        user: the users' key.
        item: the items' key.
        item_ids: ``[n]``, ids in the key's type.
        item_vectors: ``[n, d_i]`` float32: the id's embedding, then one of each attribute, e floats
            each.
        item_books: the values of the item attributes that have embeddings.
        user_books: the same for users.
        levels: the ratings that histories tell apart; none where they tell liked from not.
        weights: DIN's state by name, float32, without the embeddings of ids.
    """

    user: Key
    item: Key
    item_ids: pa.Array
    item_vectors: Floats
    item_books: Books
    user_books: Books
    levels: tuple[float, ...]
    weights: Mapping[str, Floats]

    @property
    def size(self) -> int:
        """e, floats of one embedding."""
        return int(self.weights["inputs.verdict.weight"].shape[1])

    def profile_vectors(self, users: pa.Table | None, ids: pa.Array) -> Floats:
        """The embeddings of users' profiles: one of each attribute, joined.

        Args:
            users: user key and attribute columns; None where there are no profiles.
            ids: whose vectors are wanted, in the key's type.

        Returns:
            float32 ``[len(ids), d_p]``, e floats an attribute; 0 for unknown users and values.

        Raises:
            CondenseError: an attribute column is missing from ``users`` or not of categories.
        """
        if users is None or not self.user_books:
            return np.zeros((len(ids), self.size * len(self.user_books)), np.float32)
        table = attributes_of(users, self.user, list(self.user_books), "users")
        names = [table_name("user", number) for number in range(len(self.user_books))]
        tables = [nn.Embedding.from_pretrained(tensor(self.weights[name])) for name in names]
        return joined(tables, fields_of(table, ids, self.user_books)).numpy()

    def without(self, ids: pa.Array, items: pa.Table, users: pa.Table | None) -> Embedder:
        """The same without some items, and without attribute values that nobody has any more.

        Args:
            ids: of the items, as text; unknown ones are passed over.
            items: those that stay, with their attributes.
            users: those that stay.

        Returns:
            The embedder; all that it still knows stands, bit for bit.
        """
        stays = pc.invert(pc.is_in(self.item_ids.cast(pa.string()), value_set=ids))
        weights, books = dict(self.weights), {"user": self.user_books, "item": self.item_books}
        for kind, table in (("user", users), ("item", items)):
            there = values_there(table, books[kind])
            for number, kept in enumerate(there.values()):
                rows = np.append(True, kept.to_numpy(zero_copy_only=False))
                weights[table_name(kind, number)] = weights[table_name(kind, number)][rows]
            books[kind] = {name: book.filter(there[name]) for name, book in books[kind].items()}
        return replace(
            self,
            item_ids=self.item_ids.filter(stays),
            item_vectors=self.item_vectors[stays.to_numpy(zero_copy_only=False)],
            item_books=books["item"],
            user_books=books["user"],
            weights=weights,
        )

    def tensors(self) -> dict[str, Floats]:
        """All numbers by name, float32, ready for safetensors."""
        return {"item_vectors": self.item_vectors, **self.weights}

    def manifest(self) -> dict[str, Any]:
        """What belongs to the tensors, as JSON; ``hash`` covers both."""
        written = {
            "version": _VERSION,
            "user": [self.user.name, str(self.user.type)],
            "item": [self.item.name, str(self.item.type)],
            "item_ids": self.item_ids.to_pylist(),
            "item_books": [[name, book.to_pylist()] for name, book in self.item_books.items()],
            "user_books": [[name, book.to_pylist()] for name, book in self.user_books.items()],
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
            item_books={name: pa.array(book, pa.string()) for name, book in manifest["item_books"]},
            user_books={name: pa.array(book, pa.string()) for name, book in manifest["user_books"]},
            levels=tuple(manifest["levels"]),
            weights=weights,
        )
    except (KeyError, TypeError, ValueError) as error:
        found = f"{type(error).__name__}: {error}"
        raise CondenseError(rule, found=found, mend=_LEARNT_ANEW) from error
    if not same:
        raise CondenseError(rule, found="another hash", mend=_LEARNT_ANEW)
    return embedder


def _keys(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(str(name), str(kind)) for name, kind in (manifest["user"], manifest["item"])]


def _hash(tensors: Mapping[str, Floats], written: Mapping[str, Any]) -> str:
    digest = hashlib.blake2b(json.dumps(written, sort_keys=True).encode(), digest_size=16)
    for name, values in sorted(tensors.items()):
        digest.update(f"{name} {values.shape} {values.dtype}".encode())
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()
